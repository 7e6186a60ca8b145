//! Why a log is refused. Each refusal names the file, the address where there is one, and the way out; none has
//! changed the disk.

use std::io;

use buffer_ring::OptionsError;
use thiserror::Error;

use crate::format::{HeaderRefusal, ManifestRefusal, RecordRefusal};
use crate::recovery::Report;

/// Why a log was not opened, or a part of it not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system or the device reported an error.
    #[error("cannot {operation} {file}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        file: String,
        /// What was reported.
        source: io::Error,
    },
    /// Another opener holds the log.
    #[error("{file} is locked by another opener; close the log there first")]
    Locked {
        /// The file whose lock is held.
        file: String,
    },
    /// There is no log, and none was to be made.
    #[error("there is no log here; mount the right directory, or allow the log to be created")]
    Missing,
    /// There is data of a log, but no `MANIFEST`.
    #[error("no MANIFEST, but {file} is not empty; restore MANIFEST, or move the file away")]
    NoManifest {
        /// A file that is not empty.
        file: String,
    },
    /// Both slots of `MANIFEST` are bad.
    #[error("no slot of MANIFEST is usable (first: {first}; second: {second}); restore MANIFEST, or repair the log")]
    BadManifest {
        /// What is wrong with the first slot.
        first: ManifestRefusal,
        /// What is wrong with the second slot.
        second: ManifestRefusal,
    },
    /// The two slots of `MANIFEST` contradict each other.
    #[error("the two slots of MANIFEST contradict each other ({what}); restore MANIFEST")]
    Contradiction {
        /// In what.
        what: &'static str,
    },
    /// A newer release wrote the file.
    #[error("{file} has format version {version}, which is unknown; use a newer release")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        version: u8,
    },
    /// A file of another log.
    #[error(
        "{file} belongs to log {found:016x}, not to {expected:016x}; put the right file back, or move this one away"
    )]
    Foreign {
        /// The file.
        file: String,
        /// The log that it belongs to.
        found: u64,
        /// This log.
        expected: u64,
    },
    /// The log holds batches of an epoch that `MANIFEST` does not know.
    #[error(
        "{file} has a batch of epoch {epoch} at address {address}, but MANIFEST ends at {newest}; \
         restore the newest one"
    )]
    OldManifest {
        /// The segment.
        file: String,
        /// Where the batch is.
        address: u64,
        /// Its epoch.
        epoch: u32,
        /// The newest epoch that `MANIFEST` knows.
        newest: u32,
    },
    /// The log mixes batches of two copies that were both written to.
    #[error("{file} has a batch at address {address} of another copy's epoch {epoch}; restore the files of one copy")]
    Mixed {
        /// The segment.
        file: String,
        /// Where the batch is.
        address: u64,
        /// Its epoch.
        epoch: u32,
    },
    /// A batch header carries the signature of this log, but cannot be read.
    #[error("the batch header at address {address} of {file} cannot be read: {refusal}")]
    Header {
        /// The segment.
        file: String,
        /// Where it is.
        address: u64,
        /// Why.
        refusal: HeaderRefusal,
    },
    /// A batch has the right checksums, but holds bytes that are no record.
    #[error("the record at address {address} of {file} cannot be read: {refusal}")]
    Record {
        /// The segment.
        file: String,
        /// Where it is.
        address: u64,
        /// Why.
        refusal: RecordRefusal,
    },
    /// The log ends in a torn write, and [`TornTail::Refuse`](crate::recovery::TornTail::Refuse) was asked for.
    #[error("the log is torn at address {}; nothing acknowledged is lost, open it with TornTail::Cut to go on", .0.end)]
    Torn(Box<Report>),
    /// Acknowledged bytes are damaged.
    #[error("{}", .0.verdict)]
    Damaged(Box<Report>),
    /// `MANIFEST` cannot hold another accepted gap.
    #[error(
        "MANIFEST holds {0} gaps already; trim the log above the oldest, or set the damage aside",
        crate::format::MAX_GAPS
    )]
    TooManyGaps,
    /// The log holds more disjoint truncations than a reader keeps in memory.
    #[error("more than {max} disjoint ranges of records are void; trim the log")]
    TooManyTruncations {
        /// What a reader keeps.
        max: usize,
    },
    /// A record is longer than the reader allows.
    #[error("the record at address {address} is {len} bytes long, {max} are allowed; raise max_record")]
    RecordTooLong {
        /// Where it begins.
        address: u64,
        /// Its length.
        len: u64,
        /// What the reader allows.
        max: usize,
    },
    /// The log cannot be opened for appending once more.
    #[error("all epoch numbers are used; copy the records into a new log")]
    NoEpochLeft,
    /// The ring over the log's files could not be made.
    #[error("cannot start the ring over the segments")]
    Ring(#[source] OptionsError),
    /// An option that no log can have.
    #[error("{0}")]
    Option(&'static str),
    /// What was verified has changed since.
    #[error("{file} has changed at address {address} since it was verified; close its other writer")]
    Changed {
        /// The segment.
        file: String,
        /// Where.
        address: u64,
    },
}

impl OpenError {
    /// For `map_err`: an I/O error of `file`.
    pub(crate) fn io(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, file: file.to_owned(), source }
    }
}

impl From<OpenError> for io::Error {
    /// Keeps the kind and the errno that the operating system reported.
    fn from(error: OpenError) -> Self {
        let kind = match error {
            OpenError::Io { source, .. } if source.raw_os_error().is_some() => return source,
            OpenError::Io { ref source, .. } => source.kind(),
            OpenError::Locked { .. } => io::ErrorKind::WouldBlock,
            OpenError::Missing => io::ErrorKind::NotFound,
            OpenError::Ring(ref error) => error.kind(),
            OpenError::Option(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
