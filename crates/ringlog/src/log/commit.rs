//! Durable records, and the address below which all of them have been applied.

use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::Mutex;

use super::{Error, Log};
use crate::Lsn;

impl Log {
    /// Appends several parts as one record, and returns when it is on stable storage, with all that was appended
    /// before. Commits of other threads share the device's write. On a full disk it waits until the next segment can be
    /// made; [`wait_durable_timeout`](Self::wait_durable_timeout) does not.
    ///
    /// # Errors
    ///
    /// [`Error`]. After [`Error::Poisoned`] the record may have been appended, and may be durable or not.
    pub fn commit(&self, kind: u8, parts: &[IoSlice<'_>]) -> Result<Committed, Error> {
        self.committing(|| self.append_vectored(kind, parts))
    }

    /// The same for a [group](crate::Group).
    ///
    /// # Errors
    ///
    /// Those of [`append_group`](Self::append_group) and [`commit`](Self::commit).
    pub fn commit_group(&self, group: &crate::Group) -> Result<Committed, Error> {
        self.committing(|| self.append_group(group))
    }

    /// Waits until what `append` has appended is durable.
    pub(super) fn committing(&self, append: impl FnOnce() -> Result<Range<Lsn>, Error>) -> Result<Committed, Error> {
        let unsettled = self.begin_commit()?;
        let range = append()?;
        self.wait_durable(range.end)?;
        Ok(Committed::new(range, unsettled))
    }

    /// Before the append, so that no thread that asks meanwhile takes its record for settled.
    pub(super) fn begin_commit(&self) -> Result<Held, Error> {
        self.inner.check_process()?;
        Ok(self.inner.unsettled.begin(|| self.inner.ring.tail()))
    }

    /// Everything that was committed below has been applied: none of its [`Committed`] values is left. What a
    /// checkpoint of what was applied may [trim](Self::trim) up to. Only grows.
    #[must_use]
    ///
    /// In a forked child it is where the log begins.
    pub fn settled(&self) -> Lsn {
        if self.inner.check_process().is_err() {
            return self.first();
        }
        let settled = self.inner.unsettled.lowest(|| self.inner.ring.tail());
        Lsn::new(settled).min(self.durable())
    }

    /// Waits until all below `end` is on stable storage, and has it put there.
    ///
    /// # Errors
    ///
    /// [`Error::NotAppended`] if `end` is beyond the log's; [`Error::Closed`] and [`Error::Poisoned`] if it will never
    /// be durable.
    pub fn wait_durable(&self, end: Lsn) -> Result<(), Error> {
        Ok(self.inner.ring.wait_durable(end.get())?)
    }

    /// The same, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`wait_durable`](Self::wait_durable), and [`Error::TimedOut`].
    pub fn wait_durable_timeout(&self, end: Lsn, timeout: Duration) -> Result<(), Error> {
        Ok(self.inner.ring.wait_durable_timeout(end.get(), timeout)?)
    }

    /// Puts everything that was appended on stable storage, and returns up to where that is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] and [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn, Error> {
        self.inner.ring.sync()?;
        Ok(self.durable())
    }
}

/// A record that is durable. Kept until its owner has applied it: as long as it lives, it holds
/// [`settled`](Log::settled) back.
#[derive(Debug)]
#[must_use = "kept until the record is applied"]
pub struct Committed {
    range: Range<Lsn>,
    _unsettled: Held,
}

impl Committed {
    pub(super) fn new(range: Range<Lsn>, unsettled: Held) -> Self {
        Self { range, _unsettled: unsettled }
    }

    /// Where the record lies.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.range.start
    }

    /// Behind it.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.range.end
    }
}

/// The ends that the log had when commits began that are not settled.
#[derive(Debug)]
pub(super) struct Unsettled {
    process: Process,
    ends: Mutex<BTreeMap<u64, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<Unsettled>,
    end: u64,
}

impl Unsettled {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { process: Process::here(), ends: Mutex::default() })
    }

    /// `end` is read in the lock, so that the lowest one never decreases.
    fn begin(self: &Arc<Self>, end: impl FnOnce() -> u64) -> Held {
        let mut ends = self.ends.lock();
        let end = end();
        *ends.entry(end).or_default() += 1;
        Held { all: Arc::clone(self), end }
    }

    fn lowest(&self, end: impl FnOnce() -> u64) -> u64 {
        let ends = self.ends.lock();
        ends.first_key_value().map_or_else(end, |(end, _)| *end)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.all.process.is_here() {
            return;
        }
        let mut ends = self.all.ends.lock();
        if let Some(commits) = ends.get_mut(&self.end) {
            *commits -= 1;
            if *commits == 0 {
                ends.remove(&self.end);
            }
        }
    }
}
