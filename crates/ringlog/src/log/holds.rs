//! What readers still need, so that trimming leaves it.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::Mutex;

/// Where the readers of a log are.
#[derive(Debug)]
pub(crate) struct Holds {
    process: Process,
    positions: Mutex<Positions>,
}

/// By the number of the reader.
#[derive(Debug, Default)]
pub(super) struct Positions {
    of_readers: BTreeMap<u64, u64>,
    readers: u64,
    /// Where the log will begin, while a trim makes that so.
    going: u64,
}

impl Positions {
    /// The lowest one.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.of_readers.values().min().copied()
    }
}

impl Holds {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { process: Process::here(), positions: Mutex::default() })
    }

    /// Locked while it is decided what is trimmed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock()
    }

    /// It is decided: until the trim has ended, a reader begins where the log will. The others go on meanwhile, as they
    /// are behind that. One trim at a time.
    pub(super) fn begin_trim(&self, mut positions: MutexGuard<'_, Positions>, to: u64) -> Trimming<'_> {
        positions.going = to;
        Trimming { all: self }
    }

    /// Holds what lies behind `from`, or behind where the log begins, which is `first`, or where a trim will have it
    /// begin that goes on.
    pub(super) fn hold(self: &Arc<Self>, from: Option<u64>, first: impl FnOnce() -> u64) -> (u64, Hold) {
        if !self.process.is_here() {
            // A thread that is not there may have locked it.
            return (first(), Hold { all: Arc::clone(self), reader: 0 });
        }
        let mut positions = self.positions.lock();
        positions.readers += 1;
        let (reader, first) = (positions.readers, first().max(positions.going));
        positions.of_readers.insert(reader, from.unwrap_or(first).max(first));
        (first, Hold { all: Arc::clone(self), reader })
    }
}

/// A trim that goes on, until it is dropped.
#[derive(Debug)]
pub(super) struct Trimming<'a> {
    all: &'a Holds,
}

impl Drop for Trimming<'_> {
    fn drop(&mut self) {
        self.all.positions.lock().going = 0;
    }
}

/// Holds what lies behind a position, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    all: Arc<Holds>,
    reader: u64,
}

impl Hold {
    /// What lies before `position` is not needed any more.
    pub(crate) fn advance(&self, position: u64) {
        if self.all.process.is_here() {
            self.all.positions.lock().of_readers.insert(self.reader, position);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.all.process.is_here() {
            self.all.positions.lock().of_readers.remove(&self.reader);
        }
    }
}
