//! Why a call on a Raft log failed.

use std::io;

use ringlog::recovery::ReplayError;
use ringlog::{Lsn, OpenError};
use thiserror::Error;

use crate::Lost;

/// Why logs were not opened, or a call on one of them failed. Each names what it is about, and the way out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The log under it failed, or cannot do it now.
    #[error(transparent)]
    Log(#[from] ringlog::Error),
    /// The log was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record of the log is none of a Raft group.
    #[error("the record at address {0} is none of a Raft group; open the log that ring-raft has written")]
    Foreign(Lsn),
    /// There is no such group.
    #[error("there is no group {0}; it was never written to, or was removed")]
    UnknownGroup(u64),
    /// Damage that was accepted when the log was opened has taken entries of the group, or perhaps its vote.
    #[error("group {group} has lost {lost}; remove it, and rebuild it from its peers")]
    Lost {
        /// The group.
        group: u64,
        /// What it has lost.
        lost: Lost,
    },
    /// An entry does not follow the last one.
    #[error("group {group} goes on at index {expected}, not at {index}; append without a gap, or truncate first")]
    NotConsecutive {
        /// The group.
        group: u64,
        /// The index that was to be appended.
        index: u64,
        /// The one that is next.
        expected: u64,
    },
    /// A truncation would take entries that are committed.
    #[error("group {group} is committed up to index {committed}, and cannot be truncated from {from}")]
    Committed {
        /// The group.
        group: u64,
        /// From where on was to be truncated.
        from: u64,
        /// The last committed index.
        committed: u64,
    },
    /// A truncation would take entries that are purged.
    #[error("group {group} is purged up to index {purged}, and cannot be truncated from {from}")]
    Purged {
        /// The group.
        group: u64,
        /// From where on was to be truncated.
        from: u64,
        /// The last purged index.
        purged: u64,
    },
    /// The codec cannot write an entry. Nothing of the batch was appended.
    #[error("entry {index} of group {group} cannot be encoded; nothing of its batch was appended")]
    Encode {
        /// The group.
        group: u64,
        /// The entry.
        index: u64,
        /// What the codec says.
        source: io::Error,
    },
    /// The codec cannot read an entry.
    #[error("entry {index} of group {group} cannot be decoded; open the log with the codec that wrote it")]
    Decode {
        /// The group.
        group: u64,
        /// The entry.
        index: u64,
        /// What the codec says.
        source: io::Error,
    },
    /// A vote or a leader is not of the application's types.
    #[error("a vote or leader of group {group} is not of these types; open the log with the types that wrote it")]
    Types {
        /// The group.
        group: u64,
        /// What the format says.
        source: io::Error,
    },
}

impl From<ReplayError<Error>> for Error {
    fn from(error: ReplayError<Error>) -> Self {
        match error {
            ReplayError::Log(error) => Self::Open(error),
            ReplayError::Stopped(_, error) => error,
            other => Self::Open(OpenError::Io {
                operation: "replay",
                file: "the log".into(),
                source: io::Error::other(other.to_string()),
            }),
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the error, with the kind that the standard library knows it by.
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Log(error) => return error.into(),
            Error::Open(error) => return error.into(),
            Error::UnknownGroup(_) => io::ErrorKind::NotFound,
            Error::Encode { ref source, .. } | Error::Decode { ref source, .. } | Error::Types { ref source, .. } => {
                source.kind()
            }
            Error::Foreign(_) | Error::Lost { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
