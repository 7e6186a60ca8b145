//! Why a log that is open did not do what it was asked for.

use core::ops::Range;
use std::io;
use std::sync::Arc;

use buffer_ring::{AppendError, ReadError, RingError};
use thiserror::Error;

use crate::recovery::Content;
use crate::{Lsn, OpenError};

/// Why a call on an open log failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to append.
    #[error("the group is empty")]
    Empty,
    /// The record is longer than the log takes here.
    #[error("a record of {len} bytes is longer than {max}; raise max_record, or the buffer size of the ring")]
    TooLarge {
        /// Bytes of the record.
        len: usize,
        /// What is taken.
        max: usize,
    },
    /// No buffer is free now, and the call does not wait for one.
    #[error("no buffer is free; wait for one with append_with")]
    Full,
    /// The address is beyond the end of the log: waiting might be for ever.
    #[error("address {address} is beyond the end of the log at {end}")]
    NotAppended {
        /// What was asked for.
        address: Lsn,
        /// The end at that moment.
        end: Lsn,
    },
    /// It did not happen in time. It may still happen.
    #[error("timed out; what was asked for goes on")]
    TimedOut,
    /// The record was trimmed.
    #[error("the log begins at {first}; what was before is trimmed")]
    Trimmed {
        /// Where the log begins.
        first: Lsn,
    },
    /// The record was made void by a [truncation](crate::Log::truncate).
    #[error("the record at address {0} was truncated")]
    Truncated(Lsn),
    /// There are as many truncated ranges apart from each other as a log can have. Truncate from an earlier record on,
    /// or [trim](crate::Log::trim) the log.
    #[error("the log has {max} truncated ranges; truncate from an earlier record on, or trim it")]
    TooManyTruncations {
        /// How many it can have.
        max: usize,
    },
    /// The [cursor](crate::Cursor) was removed, through another handle.
    #[error("the cursor was removed; make it again with Log::cursor")]
    CursorRemoved,
    /// No record begins at this address.
    #[error("no record begins at address {0}")]
    NotARecord(Lsn),
    /// A reader cannot begin inside of a record.
    #[error("address {address} is inside of a record; begin at {}, or behind it at {}", .record.start, .record.end)]
    InsideRecord {
        /// What was asked for.
        address: Lsn,
        /// Where the record lies.
        record: Range<Lsn>,
    },
    /// What was on stable storage is not as it was. What lies behind the range can still be read.
    #[error("{} to {} is damaged: {content} at its start; verify the log", .range.start, .range.end)]
    Damaged {
        /// What cannot be read.
        range: Range<Lsn>,
        /// What stands where it begins.
        content: Content,
    },
    /// The segment that the log needs next cannot be made, as on a full disk. What is staged stays; when there is room
    /// again, or after a [trim](crate::Log::trim), the log goes on.
    #[error("the next segment cannot be made; make room, or trim the log")]
    NoSegment(#[source] Arc<OpenError>),
    /// The log has used up its addresses.
    #[error("the log has reached its last address; copy the records into a new one")]
    AddressesExhausted,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The device has failed. Nothing more is taken, and what was not durable before never will be.
    #[error("the log has failed, and takes no more records")]
    Poisoned(#[source] RingError),
    /// This process was forked from the one that the log belongs to.
    #[error("the log belongs to the process that this one was forked from; open it again in this process")]
    Forked,
    /// A file of the log could not be read or written.
    #[error(transparent)]
    File(#[from] OpenError),
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Empty => Self::Empty,
            AppendError::TooLarge { len, max } => Self::TooLarge { len, max },
            AppendError::RingFull | AppendError::Sealed => Self::Full,
            AppendError::TimedOut | AppendError::NotDurableYet(_) => Self::TimedOut,
            AppendError::AddressesExhausted => Self::AddressesExhausted,
            AppendError::Closed => Self::Closed,
            AppendError::Forked => Self::Forked,
            AppendError::Poisoned(error) => error.into(),
            _ => Self::Poisoned(RingError::NoDevice),
        }
    }
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Self {
        match error {
            RingError::TimedOut => Self::TimedOut,
            RingError::NotAppended { address, tail } => {
                Self::NotAppended { address: Lsn::new(address), end: Lsn::new(tail) }
            }
            RingError::Closed => Self::Closed,
            RingError::Forked => Self::Forked,
            error => Self::Poisoned(error),
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the error, with the kind that the standard library knows it by.
    fn from(error: Error) -> Self {
        use io::ErrorKind;
        let kind = match &error {
            Error::Empty
            | Error::TooLarge { .. }
            | Error::NotAppended { .. }
            | Error::NotARecord(_)
            | Error::InsideRecord { .. } => ErrorKind::InvalidInput,
            Error::Full => ErrorKind::WouldBlock,
            Error::TimedOut => ErrorKind::TimedOut,
            Error::Trimmed { .. } | Error::Truncated(_) | Error::CursorRemoved => ErrorKind::NotFound,
            Error::Damaged { .. } => ErrorKind::InvalidData,
            Error::AddressesExhausted => ErrorKind::FileTooLarge,
            Error::Closed => ErrorKind::BrokenPipe,
            Error::Poisoned(error) => error.kind(),
            Error::Forked | Error::TooManyTruncations { .. } => ErrorKind::Other,
            Error::NoSegment(error) => match &**error {
                OpenError::Io { source, .. } => source.kind(),
                _ => ErrorKind::Other,
            },
            Error::File(_) => ErrorKind::Other,
        };
        match error {
            Error::File(error) => error.into(),
            error => Self::new(kind, error),
        }
    }
}

/// What reading back from the ring cannot give.
impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotAppended { extent, tail } => {
                Self::NotAppended { address: Lsn::new(extent.start()), end: Lsn::new(tail) }
            }
            ReadError::Closed => Self::Closed,
            ReadError::Forked => Self::Forked,
            ReadError::Device(error) => Self::Poisoned(RingError::Device(error)),
            _ => Self::TimedOut,
        }
    }
}
