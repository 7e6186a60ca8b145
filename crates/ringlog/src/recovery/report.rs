//! What recovery found, with the proof.

use core::fmt;
use core::ops::Range;

use crate::Lsn;
use crate::format::{HeaderRefusal, is_zero};
use crate::values::Values;

/// What stands where the log stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The segment file does not exist.
    MissingFile,
    /// The segment file ends before it.
    BeyondFile,
    /// A block of zeros.
    Zeros,
    /// A signed batch that does not continue the log: of an epoch or a number that does not belong there.
    StaleBatch {
        /// Its number.
        number: u64,
        /// Its epoch.
        epoch: u32,
    },
    /// A signed batch that belongs to another address, as in a recycled segment.
    OtherAddress {
        /// Where it belongs.
        address: u64,
    },
    /// No header of this log.
    BadHeader,
    /// A header whose batch would not fit into its segment.
    BadLength,
    /// A header whose table of checksums is not the one that was written.
    BadTable,
    /// A block that does not match its checksum.
    BadBlock {
        /// Blocks behind the batch's header.
        index: u64,
    },
    /// A batch whose padding is not zero.
    BadPadding,
}

impl Content {
    /// What stands where a header was refused; `block` is what the file has there. The refusal itself, if it is of a
    /// header that this log has signed.
    pub(crate) fn of_refused(refusal: HeaderRefusal, block: &[u8]) -> Result<Self, HeaderRefusal> {
        Ok(match refusal {
            HeaderRefusal::Version(_) | HeaderRefusal::Flags(_) | HeaderRefusal::Rule(_) => return Err(refusal),
            HeaderRefusal::OtherAddress(address) => Self::OtherAddress { address },
            _ if block.is_empty() => Self::BeyondFile,
            _ if is_zero(block) => Self::Zeros,
            _ => Self::BadHeader,
        })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFile => f.write_str("the segment file is missing"),
            Self::BeyondFile => f.write_str("the segment file ends before it"),
            Self::Zeros => f.write_str("zeros"),
            Self::StaleBatch { number, epoch } => write!(f, "a stale batch, number {number} of epoch {epoch}"),
            Self::OtherAddress { address } => write!(f, "a batch that belongs to address {address}"),
            Self::BadHeader => f.write_str("no batch header"),
            Self::BadLength => f.write_str("a batch header with an impossible length"),
            Self::BadTable => f.write_str("a batch with a bad table of checksums"),
            Self::BadBlock { index } => write!(f, "a batch whose block {index} is bad"),
            Self::BadPadding => f.write_str("a batch with bad padding"),
        }
    }
}

/// What promises that bytes were durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// `MANIFEST`: the durable address at its last update.
    KnownDurable,
    /// `MANIFEST`: a clean close.
    CleanEnd,
    /// `MANIFEST`: the end that the newest opening found.
    EpochStart,
    /// A signed batch header.
    Batch {
        /// Where it stands.
        at: Lsn,
    },
    /// A segment is durable before anything leads to it.
    MissingFile,
    /// The header of the segment says that the file was longer: it was cut, or copied in part.
    WholeFile,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KnownDurable => f.write_str("the durable address in MANIFEST"),
            Self::CleanEnd => f.write_str("the clean end in MANIFEST"),
            Self::EpochStart => f.write_str("the start of the newest epoch in MANIFEST"),
            Self::Batch { at } => write!(f, "the batch at address {at}"),
            Self::MissingFile => f.write_str("the rule that a segment is made before it is needed"),
            Self::WholeFile => f.write_str("the header of the segment, which is shorter now,"),
        }
    }
}

/// Acknowledged bytes that are not as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// From where the log stops to where the proof reaches.
    pub range: Range<Lsn>,
    /// The file that holds the start of the range.
    pub file: String,
    /// What stands there.
    pub content: Content,
    /// What proves that the range was durable.
    pub proof: Proof,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, file, content, proof } = self;
        let Range { start, end } = range;
        write!(
            f,
            "acknowledged bytes are damaged: at address {start} of {file} is {content}, but {proof} proves \
             that all up to {end} was "
        )?;
        f.write_str("durable; restore the file, or set the damage aside or skip it")
    }
}

/// What shows that a write was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A batch header of the newest epoch.
    Header {
        /// Where it stands.
        at: Lsn,
    },
    /// The checksums of a batch whose header is not there.
    Table {
        /// Where the batch begins.
        at: Lsn,
    },
}

/// A write that was in flight when the log stopped, and never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// What stands where the log ends.
    pub content: Content,
    /// What shows that a write was in flight.
    pub evidence: Evidence,
}

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There was no log; opening has made one.
    Fresh,
    /// It was closed.
    Clean,
    /// A process ended without closing it; nothing is left of writes in flight.
    Unclosed,
    /// A write was in flight, and never acknowledged.
    Torn(Torn),
    /// Acknowledged bytes are not as they were.
    Damaged(Damage),
    /// Another opener writes to it: nothing is said of what it has not made durable.
    InUse,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("a new log"),
            Self::Clean => f.write_str("closed"),
            Self::Unclosed => f.write_str("not closed; nothing acknowledged is lost"),
            Self::Torn(torn) => write!(f, "torn ({}); nothing acknowledged is lost", torn.content),
            Self::Damaged(damage) => damage.fmt(f),
            Self::InUse => f.write_str("in use by another opener"),
        }
    }
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The log's identity.
    pub log_id: u64,
    /// Bytes of addresses in each segment.
    pub segment_size: u64,
    /// The trim point: what lies below is not part of the log.
    pub first: Lsn,
    /// Where checking began: everything from here to the end was verified.
    pub checked_from: Lsn,
    /// Where the log ends: the next batch begins here.
    pub end: Lsn,
    /// The highest address that something promises to have been durable.
    pub promised: Lsn,
    /// Batches between `checked_from` and the end.
    pub batches: u64,
    /// Payloads of the user in them, void ones included.
    pub records: u64,
    /// Segment files of the log.
    pub segments: usize,
    /// The number of the next batch.
    pub next_number: u64,
    /// The address of the last batch, or [`NO_ADDRESS`](crate::format::NO_ADDRESS).
    pub previous: u64,
    /// The newest epoch.
    pub epoch: u32,
    /// How the log ends.
    pub verdict: Verdict,
    /// Accepted damage: no records are read from there.
    pub gaps: Vec<Range<Lsn>>,
    /// Ranges whose records are void, because a truncation says so.
    pub void: Vec<Range<Lsn>>,
    /// Named values and cursors at the end.
    pub(crate) values: Values,
    /// Segment files whose header is bad. Their batches prove themselves; a header is repaired when its segment is
    /// written to.
    pub bad_segment_headers: Vec<String>,
}

impl Report {
    /// Returns what a name stands for at the end of the log; see [`Log::set_meta`](crate::Log::set_meta).
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&[u8]> {
        self.values.metas.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// Returns all names, and what each of them stands for, in the order of the names.
    pub fn metas(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.metas.iter().map(|(name, value)| (name, &**value))
    }

    /// Returns the position that a cursor has at the end of the log; see [`Log::cursor`](crate::Log::cursor).
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<Lsn> {
        self.values.cursors.get(name.as_bytes()).map(|&position| Lsn::new(position))
    }

    /// Returns the names of all cursors, and the position of each, in the order of the names.
    pub fn cursors(&self) -> impl Iterator<Item = (&[u8], Lsn)> {
        self.values.cursors.iter().map(|(name, &position)| (name, Lsn::new(position)))
    }
}
