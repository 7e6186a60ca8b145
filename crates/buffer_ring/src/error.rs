//! What can go wrong: one small enum per operation.

use std::io::{self, ErrorKind};

use ring_alloc::ArenaError;
use ring_io::{AttachError, DeviceError};

use crate::extent::ADDRESS_LIMIT;
use crate::options::MAX_BUFFERS;

/// Why there is no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Too few buffers: two are the least that can rotate, one without rotation.
    #[error("capacity {given} is below {least}, the least that works with auto_rotate = {}", *.least == 2)]
    Capacity {
        /// Buffers asked for.
        given: usize,
        /// The least number of buffers.
        least: usize,
    },
    /// More buffers than a ring can have.
    #[error("capacity {0} is above {MAX_BUFFERS}, the most buffers of a ring")]
    TooManyBuffers(usize),
    /// The buffer size is 0 or not a multiple of 4096.
    #[error("buffer_size {0} is not a positive multiple of 4096")]
    BufferSize(usize),
    /// The buffer size is above 2 GiB.
    #[error("buffer_size {0} is above 2 GiB")]
    BufferTooLarge(usize),
    /// The log would begin so high that not even one buffer has addresses.
    #[error("the log cannot begin at {start}: its first buffer would end beyond the last address, {ADDRESS_LIMIT}")]
    Start {
        /// Where it would begin: [`start_at`](ring_io::QuikIOBuilder::start_at) of the device.
        start: u64,
    },
    /// The frames leave no room for appends in a buffer, or their header is not a multiple of 8.
    #[error("a buffer of {buffer_size} has no room beside {margins:?}, or the header is not a multiple of 8")]
    Margins {
        /// What [`Framing::margins`](crate::Framing::margins) answered.
        margins: crate::Margins,
        /// Bytes of a buffer.
        buffer_size: usize,
    },
    /// [`framing`](crate::BufferRingBuilder::framing) needs `auto_flush` and `auto_rotate`.
    #[error("a framing needs auto_flush and auto_rotate")]
    FramingByHand,
    /// The segments of the device are shorter than a buffer, or no multiple of 4096.
    #[error("segments of {segment_size} bytes cannot hold buffers of {buffer_size}")]
    SegmentSize {
        /// Bytes of a segment.
        segment_size: u64,
        /// Bytes of a buffer.
        buffer_size: usize,
    },
    /// A log in segments needs a [`framing`](crate::BufferRingBuilder::framing): nothing else says to a reader where
    /// the log goes on in the next segment.
    #[error("a log in segments needs a framing")]
    SegmentsWithoutFrames,
    /// The rest of the segment that the log would begin in cannot hold a buffer.
    #[error("the log cannot begin at {start}: a buffer would cross into the next segment; begin there")]
    SegmentFull {
        /// Where it would begin: [`start_at`](ring_io::QuikIOBuilder::start_at) of the device.
        start: u64,
    },
    /// The memory for the buffers cannot be had.
    #[error("no memory for the buffers")]
    Memory(#[source] ArenaError),
    /// The device cannot serve this ring: it serves another one, or its file cannot hold a log.
    #[error(transparent)]
    Device(AttachError),
    /// The file has content, and syncing it failed, so that nothing could ever be called durable.
    #[error("what the file holds already cannot be synced")]
    Sync(#[source] DeviceError),
}

impl OptionsError {
    /// The same as the standard library calls it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Capacity { .. }
            | Self::Start { .. }
            | Self::TooManyBuffers(_)
            | Self::BufferSize(_)
            | Self::Margins { .. }
            | Self::FramingByHand
            | Self::SegmentSize { .. }
            | Self::SegmentsWithoutFrames
            | Self::SegmentFull { .. }
            | Self::BufferTooLarge(_) => ErrorKind::InvalidInput,
            Self::Memory(error) => error.kind(),
            Self::Device(error) => error.kind(),
            Self::Sync(error) => error.kind(),
        }
    }
}

/// Why nothing was appended. The log is as it was before the call, with two exceptions: after
/// [`NotDurableYet`](Self::NotDurableYet) the bytes are appended, and after [`Poisoned`](Self::Poisoned) from a durable
/// append they may be, and may or may not be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload has no bytes.
    #[error("the payload is empty")]
    Empty,
    /// The payload is longer than a buffer.
    #[error("a payload of {len} bytes is longer than a buffer of {max}")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Bytes of a buffer.
        max: usize,
    },
    /// No buffer is free now, and the call does not wait for one; without `auto_flush`: no thread has asked for the
    /// flush that would free one.
    #[error("no buffer is free; flush one, or use append, which waits")]
    RingFull,
    /// Without `auto_rotate`: the current buffer is sealed, and stays current until it is rotated or flushed.
    #[error("the current buffer is sealed; rotate, or flush it")]
    Sealed,
    /// No buffer became free in time. Nothing was appended.
    #[error("timed out waiting for a free buffer; nothing was appended")]
    TimedOut,
    /// The bytes are appended at this extent, and were not durable in time, or not before the ring was closed by
    /// another thread. They stay part of the log, and become durable with the next wait or sync if not before;
    /// [`wait_durable`](crate::BufferRing::wait_durable) with the end of the extent goes on waiting.
    #[error("appended at {}..{}, not durable yet; wait_durable goes on waiting", .0.start(), .0.end())]
    NotDurableYet(crate::extent::Extent),
    /// The log has reached the last address that a ring gives out, a block below 1 EiB.
    #[error("the log has reached its last address, {ADDRESS_LIMIT}")]
    AddressesExhausted,
    /// The ring has no device, so that nothing can become durable: `io_instance` was left out. Nothing was appended.
    #[error("the ring has no device: set io_instance, in tests to QuikIO::in_memory()")]
    NoDevice,
    /// The ring was closed. Nothing was appended.
    #[error("the ring is closed")]
    Closed,
    /// The device has failed; the ring takes no more bytes.
    #[error("the ring is poisoned")]
    Poisoned(#[source] RingError),
    /// This process was [forked](crate::BufferRing#fork-and-daemons) from the one that the ring belongs to.
    #[error("{FORKED}")]
    Forked,
}

/// What a call answers in a child, and the way out.
const FORKED: &str =
    "the ring belongs to the process that this one was forked from; open the file again in this process";

impl AppendError {
    /// What a durable append answers that has appended `extent`, and whose wait for durability has ended with `error`.
    pub(crate) fn after(extent: crate::extent::Extent, error: RingError) -> Self {
        match error {
            RingError::TimedOut | RingError::Closed => Self::NotDurableYet(extent),
            RingError::Forked => Self::Forked,
            error => Self::Poisoned(error),
        }
    }

    /// The same as the standard library calls it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::RingFull | Self::Sealed => ErrorKind::WouldBlock,
            Self::TimedOut | Self::NotDurableYet(_) => ErrorKind::TimedOut,
            Self::AddressesExhausted => ErrorKind::FileTooLarge,
            Self::NoDevice => ErrorKind::Unsupported,
            Self::Closed => ErrorKind::BrokenPipe,
            Self::Poisoned(error) => error.kind(),
            Self::Forked => ErrorKind::Other,
        }
    }
}

/// Why the ring could not do, or can no longer do, what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The device failed. The ring is poisoned.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It did not happen in time. It may still happen.
    #[error("timed out; what was asked for goes on")]
    TimedOut,
    /// The address is beyond the tail of the log: no thread has appended there, and waiting might be for ever.
    #[error("address {address} is beyond the tail of the log, {tail}")]
    NotAppended {
        /// The address that was asked for.
        address: u64,
        /// The tail at that moment.
        tail: u64,
    },
    /// A reservation is held, or was leaked, so that its buffer, which begins at this address, cannot be written.
    #[error("a reservation is held or leaked, which keeps the log from address {0} on from being written")]
    ReservationLeaked(u64),
    /// The ring has no device, so that nothing can become durable: `io_instance` was left out.
    #[error("the ring has no device: set io_instance, in tests to QuikIO::in_memory()")]
    NoDevice,
    /// The [`Framing`](crate::Framing) of the ring panicked, and the batch at this address was not written. The ring is
    /// poisoned.
    #[error("the framing panicked, so that the batch at {0} was not written")]
    Framing(u64),
    /// The ring was closed first, or is gone.
    #[error("the ring was closed first")]
    Closed,
    /// This process was [forked](crate::BufferRing#fork-and-daemons) from the one that the ring belongs to.
    #[error("{FORKED}")]
    Forked,
}

impl RingError {
    /// The same as the standard library calls it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Device(error) => error.kind(),
            Self::TimedOut => ErrorKind::TimedOut,
            Self::NotAppended { .. } => ErrorKind::InvalidInput,
            Self::ReservationLeaked(_) => ErrorKind::ResourceBusy,
            Self::NoDevice => ErrorKind::Unsupported,
            Self::Closed => ErrorKind::BrokenPipe,
            Self::Framing(_) | Self::Forked => ErrorKind::Other,
        }
    }
}

/// Why [`rotate`](crate::BufferRing::rotate) changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// The next buffer is not free.
    #[error("the next buffer of the ring is not free")]
    RingFull,
    /// The log has reached the last address that a ring gives out, a block below 1 EiB.
    #[error("the log has reached its last address, {ADDRESS_LIMIT}")]
    AddressesExhausted,
    /// The ring was closed.
    #[error("the ring is closed")]
    Closed,
    /// The device has failed; the ring takes no more bytes.
    #[error("the ring is poisoned")]
    Poisoned(#[source] RingError),
    /// This process was [forked](crate::BufferRing#fork-and-daemons) from the one that the ring belongs to.
    #[error("{FORKED}")]
    Forked,
}

impl RotateError {
    /// The same as the standard library calls it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::RingFull => ErrorKind::WouldBlock,
            Self::AddressesExhausted => ErrorKind::FileTooLarge,
            Self::Closed => ErrorKind::BrokenPipe,
            Self::Poisoned(error) => error.kind(),
            Self::Forked => ErrorKind::Other,
        }
    }
}

/// Why bytes could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The destination is shorter than the extent.
    #[error("a destination of {len} bytes is shorter than the extent of {extent}")]
    TooShort {
        /// Bytes of the destination.
        len: usize,
        /// Bytes of the extent.
        extent: usize,
    },
    /// The extent ends beyond the tail of the log.
    #[error("extent {}..{} ends beyond the tail of the log, {tail}", extent.start(), extent.end())]
    NotAppended {
        /// What was asked for.
        extent: crate::extent::Extent,
        /// The tail at that moment.
        tail: u64,
    },
    /// A thread holds a reservation in the same buffer, and nothing will make it go out soon.
    #[error("a reservation is still held in the same buffer")]
    Reserved,
    /// The ring has no device, and the buffer has been recycled.
    #[error("the bytes at {0} are gone: this ring has no device")]
    Gone(u64),
    /// The file ends here, before the extent does: it is shorter than the log.
    #[error("the file ends at {0}, before the extent does")]
    Truncated(u64),
    /// The ring was closed, and has let its file go: read it through a `QuikIO`.
    #[error("the ring is closed: read the file through a QuikIO")]
    Closed,
    /// The file could not be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// This process was [forked](crate::BufferRing#fork-and-daemons) from the one that the ring belongs to.
    #[error("{FORKED}")]
    Forked,
}

impl ReadError {
    /// The same as the standard library calls it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooShort { .. } | Self::NotAppended { .. } => ErrorKind::InvalidInput,
            Self::Reserved => ErrorKind::WouldBlock,
            Self::Gone(_) => ErrorKind::Unsupported,
            Self::Truncated(_) => ErrorKind::UnexpectedEof,
            Self::Closed => ErrorKind::BrokenPipe,
            Self::Forked => ErrorKind::Other,
            Self::Device(error) => error.kind(),
        }
    }
}

/// Each keeps the error as it is, with its kind: it is the `io::Error`'s [`get_ref`](io::Error::get_ref), and what has
/// failed at the device is among its sources.
macro_rules! into_io_error {
    ($($error:ty),*) => {$(
        impl From<$error> for io::Error {
            /// Keeps the error, with its `kind`.
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error)
            }
        }
    )*};
}

into_io_error!(OptionsError, AppendError, RingError, RotateError, ReadError);

/// A wait whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut;

impl From<TimedOut> for RingError {
    fn from(_: TimedOut) -> Self {
        Self::TimedOut
    }
}
