//! Handing out the records of a verified log, in order.
//!
//! Each batch is verified once more when it is read, because a file may have changed since the verdict. A record
//! longer than a buffer is handed out where its last part is: an incomplete one at the end of the log is not a
//! record. Void records are left out.

use core::ops::Range;

use thiserror::Error;

use super::report::Report;
use crate::Lsn;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::manifest::ManifestFile;
use crate::reading::{AHEAD, Event, Files, Forward, Problem};
use crate::segment::place;
use crate::void;

/// A record of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Where it is.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// The byte that its writer chose.
    pub kind: u8,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What a log consists of for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A record.
    Record(Record<'a>),
    /// Damage that was accepted: records may be missing here.
    Gap(Range<Lsn>),
    /// For a [follower](crate::Follow): what it was given, or its predecessor was, from `from` on is
    /// [truncated](crate::Log::truncate).
    Truncated {
        /// Where the first record is that is void.
        from: Lsn,
    },
}

/// How [`replay`] reads.
#[derive(Clone, Debug)]
#[must_use]
pub struct Replay {
    pub(crate) max_record: usize,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// Records of up to 64 MiB.
    pub fn new() -> Self {
        Self { max_record: 64 << 20 }
    }

    /// The longest record, and the most memory for all records that are incomplete at one moment.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }
}

/// Why [`replay`] ended early.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError<E> {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The caller's function failed at this record or gap.
    #[error("replay stopped at address {0}")]
    Stopped(Lsn, #[source] E),
}

/// Calls `each` for every record of the log that `report` describes, from its trim point to its end, and for every gap.
///
/// # Errors
///
/// [`ReplayError`]: the first failure of a file or of `each`.
///
/// # Examples
///
/// ```
/// use ringlog::directory::MemoryDirectory;
/// use ringlog::recovery::{Item, Recover, Replay, replay};
///
/// let directory = MemoryDirectory::new();
/// let opened = Recover::new().open(&directory)?;
/// let mut records = 0;
/// replay(&directory, opened.report(), &Replay::new(), |item| {
///     records += usize::from(matches!(item, Item::Record(_)));
///     Ok::<_, core::convert::Infallible>(())
/// })?;
/// assert_eq!(records, 0);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn replay<D: Directory, E>(
    directory: &D,
    report: &Report,
    how: &Replay,
    mut each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), ReplayError<E>> {
    let manifest = ManifestFile::read(directory, false)?.ok_or(OpenError::Missing)?.content().clone();
    let first = report.checked_from.get();
    let files = &Files { directory, manifest: &manifest, first, durable: report.end.get() };
    let mut forward = Forward::new(how.max_record, first, AHEAD);
    loop {
        let (lsn, item) = match forward.advance(files, report.end.get()) {
            Ok(None) => return Ok(()),
            Ok(Some(Event::Gap(range))) => (range.start, Item::Gap(range)),
            Ok(Some(Event::Truncation { .. })) => continue,
            Ok(Some(Event::Record)) => {
                let lsn = forward.met().lsn;
                if lsn < report.first || void::contains(&report.void, lsn) {
                    continue;
                }
                (lsn, Item::Record(forward.record()))
            }
            Err(Problem::Log(error)) => return Err(error.into()),
            Err(Problem::Damaged { range, .. }) => {
                let (file, _) = place(range.start.get(), manifest.segment_size);
                return Err(OpenError::Changed { file, address: range.start.get() }.into());
            }
        };
        each(item).map_err(|error| ReplayError::Stopped(lsn, error))?;
    }
}
