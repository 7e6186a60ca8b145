//! The log that a reader reads: one that is open here, or one that this process only reads.

use core::ops::Range;
#[cfg(feature = "async")]
use core::task::Waker;
use core::time::Duration;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use buffer_ring::DurableWatch;

use super::follow::Upto;
use super::forward::{Files, Problem};
use super::read_only::ReadOnly;
use crate::directory::{AnyDirectory, Directory};
use crate::error::OpenError;
use crate::format::{HEADER_LEN, Manifest};
use crate::log::{Error, Hold, Log};
#[cfg(feature = "async")]
use crate::tasks::Reads;
use crate::{Lsn, void};

/// How long a follower first waits for what is staged, and for what another process writes; 16 times as long at most.
const STAGED: Duration = Duration::from_micros(50);
const OTHERS: Duration = Duration::from_millis(1);

/// An open file of a log.
pub(crate) type File = <AnyDirectory as Directory>::File;

/// Where records are read from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Open(Log),
    ReadOnly(Arc<ReadOnly>),
}

impl Origin {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Open(log) => log.check_process(),
            Self::ReadOnly(log) => log.check(),
        }
    }

    /// What the log is; of a log of another process it may be newer with each call.
    pub(crate) fn manifest(&self) -> Arc<Manifest> {
        match self {
            Self::Open(log) => log.manifest(),
            Self::ReadOnly(log) => log.manifest(),
        }
    }

    pub(crate) fn directory(&self) -> &AnyDirectory {
        match self {
            Self::Open(log) => log.directory(),
            Self::ReadOnly(log) => log.directory(),
        }
    }

    pub(crate) fn files<'a>(&'a self, manifest: &'a Manifest) -> Files<'a, AnyDirectory> {
        let directory = self.directory();
        Files { directory, manifest, first: self.first(), durable: self.durable() }
    }

    /// Where the log begins.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::Open(log) => log.first().get(),
            Self::ReadOnly(log) => log.first(),
        }
    }

    /// Where the last batch ends that is known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        match self {
            Self::Open(log) => log.durable_batch(),
            Self::ReadOnly(log) => log.durable(),
        }
    }

    /// Bytes of the longest record.
    pub(crate) fn max_record(&self) -> usize {
        match self {
            Self::Open(log) => log.max_record(),
            Self::ReadOnly(log) => log.max_record(),
        }
    }

    /// Where the log begins; and keeps it from being trimmed behind `from`, or behind that, if that can be had.
    pub(crate) fn hold(&self, from: Option<Lsn>) -> (Lsn, Option<Hold>) {
        match self {
            Self::Open(log) => {
                let (first, hold) = log.hold(from);
                (first, Some(hold))
            }
            Self::ReadOnly(log) => (Lsn::new(log.first()), None),
        }
    }

    /// Where the last batch ends that is known to be durable, when all up to `to` is.
    pub(crate) fn durable_upto(&self, to: Option<Lsn>) -> Result<u64, Error> {
        if let (Self::Open(log), Some(to)) = (self, to)
            && to > log.durable()
        {
            log.wait_durable(to)?;
        }
        let durable = self.durable();
        match to {
            Some(to) if to.get() > durable && matches!(self, Self::ReadOnly(_)) => {
                Err(Error::NotAppended { address: to, end: Lsn::new(durable) })
            }
            _ => Ok(durable),
        }
    }

    /// Whether it is open here.
    #[cfg(feature = "async")]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Up to where the files can be read, for a follower that has come to the batch at `at`, which is not in memory.
    pub(crate) fn readable(&self, at: u64, upto: Upto) -> Result<u64, Error> {
        let durable = self.durable();
        Ok(match self {
            _ if at < durable => durable,
            Self::Open(log) if upto == Upto::Staged => log.written_batch(at)?,
            Self::Open(_) => durable,
            Self::ReadOnly(log) => log.look_on(at)?,
        })
    }

    /// How far the log is. When it has come further, a follower looks again.
    pub(crate) fn progress(&self, upto: Upto) -> u64 {
        match (self, upto) {
            (Self::Open(log), Upto::Durable) => log.durable().get(),
            (Self::Open(log), Upto::Staged) => log.end().get(),
            (Self::ReadOnly(log), _) => log.durable(),
        }
    }

    /// What says when more is durable.
    pub(crate) fn durable_watch(&self) -> Result<DurableWatch, Error> {
        let unsupported =
            || OpenError::io("make an event of", "a log that is only read")(ErrorKind::Unsupported.into());
        match self {
            Self::Open(log) => Ok(log.durable_watch()),
            Self::ReadOnly(_) => Err(unsupported().into()),
        }
    }

    /// Whether the log has ended, or failed.
    pub(crate) fn ending(&self) -> Option<Result<(), Error>> {
        match self {
            Self::Open(log) => log.ending(),
            Self::ReadOnly(_) => None,
        }
    }

    /// Waits until the log may have come further than `seen`, or has ended; not long after `deadline`. For the time
    /// number `times` in a row.
    pub(crate) fn await_progress(&self, upto: Upto, seen: u64, times: u32, deadline: Option<Instant>) {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let pause = |first: Duration| left.min(first * (1 << times.min(4)));
        match (self, upto) {
            (Self::Open(log), Upto::Durable) => log.await_durable(seen + 1, left),
            // No append wakes a follower. What becomes durable does, and so does the end.
            (Self::Open(log), Upto::Staged) => log.await_durable(log.durable().get() + 1, pause(STAGED)),
            (Self::ReadOnly(_), _) => thread::sleep(pause(OTHERS)),
        }
    }

    /// The thread that reads for tasks.
    #[cfg(feature = "async")]
    pub(crate) fn reads(&self) -> &Reads {
        match self {
            Self::Open(log) => log.reads(),
            Self::ReadOnly(log) => log.reads(),
        }
    }

    /// Has a task woken when the log is further than `seen`, or has ended; `None`: soon.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&self, upto: Upto, seen: Option<u64>, waker: &Waker) -> Result<(), Error> {
        // Foreign code, which may panic: before anything is locked.
        let waker = waker.clone();
        Ok(match (self, upto) {
            (Self::Open(log), Upto::Durable) => log.wake_when_durable(seen, waker),
            (Self::Open(log), Upto::Staged) => log.wake_when_staged(seen, waker),
            (Self::ReadOnly(log), _) => log.wake_soon(waker),
        }?)
    }

    /// Why what was there once could not be read.
    pub(crate) fn explain(&self, problem: Problem) -> Error {
        if let (Self::ReadOnly(log), Problem::Damaged { .. }) = (self, &problem) {
            // It may have been trimmed since.
            let _unreadable = log.renew();
        }
        let (first, segment_size) = (self.first(), self.manifest().segment_size);
        match problem {
            // Its file went meanwhile, or is used again.
            Problem::Damaged { range, .. } if range.start.get() / segment_size < first / segment_size => {
                Error::Trimmed { first: Lsn::new(first) }
            }
            Problem::Damaged { range, content } => Error::Damaged { range, content },
            Problem::Log(error) => error.into(),
        }
    }
}

/// The first position behind the batches that end at `end`: behind the header of the next one.
pub(super) fn behind_header(end: u64) -> Lsn {
    Lsn::new(end + HEADER_LEN as u64)
}

/// The ranges that truncations have made void, as they were at the last look.
#[derive(Debug, Default)]
pub(crate) struct Voids {
    version: Option<u64>,
    ranges: Vec<Range<Lsn>>,
}

impl Voids {
    /// Where the record stands that has made the one at `at` void.
    pub(crate) fn truncation_of(&mut self, origin: &Origin, at: Lsn) -> Option<Lsn> {
        match origin {
            Origin::Open(log) => {
                let version = log.void_version();
                if self.version != Some(version) {
                    (self.version, self.ranges) = (Some(version), log.voids());
                }
            }
            Origin::ReadOnly(log) if self.version.is_none() => (self.version, self.ranges) = (Some(0), log.voids()),
            Origin::ReadOnly(_) => {}
        }
        void::find(&self.ranges, at).map(|void| void.end)
    }
}
