//! Write modes, and the sequencer in front of the device that the serialized one needs.

use std::collections::BTreeMap;

use crate::backend::Request;
use crate::{DeviceError, Finished};

/// The order in which the parts of a log reach the file.
///
/// What each promises is about a process that is killed, and a kernel that goes on. After a power cut any write may be
/// missing that no sync covers, whatever was written later, unless the device and the file system keep every completed
/// write: `docs/DURABILITY.md`, "Write modes", says which do. Everything below the durable watermark is there in each
/// case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// In parallel, in any order. After a kill there may be holes, but only near the end: a ring with `auto_rotate`
    /// writes nothing that is further than `capacity` x `buffer_size` bytes from what is missing.
    #[default]
    TailLocalized,
    /// One after the other: a write begins when the one before it in the file has completed. So the file, as other
    /// processes see it and as a kill leaves it, is at every moment a prefix of the log (the write in flight may be
    /// there in part, and preallocated space behind it), and the device is never busy with two of its writes.
    ///
    /// The thread that [reaps](crate::WriteQueue::reap) a write sends the next.
    Serialized,
}

/// Writes in the order of their offsets, one at a time.
#[derive(Debug)]
pub(crate) struct WriteSequencer {
    /// Everything below is in the file, or holds nothing. The engine has at most the write that begins here, so that
    /// all others wait.
    next: u64,
    /// By offset, and by order of arrival where that is the same.
    waiting: BTreeMap<(u64, u64), Request>,
    arrivals: u64,
    failure: Option<DeviceError>,
    /// What the failure kept from being tried.
    untried: Vec<Finished>,
}

/// When a write that arrives goes to the device.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is its turn.
    Now(Request),
    /// It is kept until its turn comes.
    Later,
    /// It is kept for [`WriteSequencer::take_untried`].
    Never,
}

impl WriteSequencer {
    /// For a log that begins at `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self { next: start, waiting: BTreeMap::new(), arrivals: 0, failure: None, untried: Vec::new() }
    }

    #[must_use]
    pub(crate) fn enqueue(&mut self, request: Request) -> Turn {
        if let Some(failure) = &self.failure {
            self.untried.push(request.untried(failure));
            return Turn::Never;
        }
        self.arrivals += 1;
        self.waiting.insert((request.offset, self.arrivals), request);
        self.next_turn().map_or(Turn::Later, Turn::Now)
    }

    /// For a write that does not go through the engine's queue: gives it back, or untried after a failure.
    ///
    /// # Panics
    ///
    /// If it is not its turn.
    pub(crate) fn claim(&mut self, request: Request) -> Result<Request, Box<Finished>> {
        if let Some(failure) = &self.failure {
            return Err(Box::new(request.untried(failure)));
        }
        let its_turn = request.offset <= self.next;
        assert!(its_turn, "a serialized write of bytes {:?} with {} missing", request.range(), self.next);
        Ok(request)
    }

    /// The write before the one at `next` has succeeded. Returns the next.
    #[must_use]
    pub(crate) fn succeeded(&mut self, next: u64) -> Option<Request> {
        self.next = self.next.max(next);
        self.next_turn()
    }

    /// It has failed, and what waits behind it with it. Returns their number.
    #[must_use]
    pub(crate) fn failed(&mut self, error: &DeviceError) -> usize {
        self.failure = Some(error.clone());
        let waiting = core::mem::take(&mut self.waiting);
        let count = waiting.len();
        self.untried.extend(waiting.into_values().map(|request| request.untried(error)));
        count
    }

    pub(crate) fn take_untried(&mut self, finished: &mut Vec<Finished>) {
        finished.append(&mut self.untried);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The first that waits, if nothing is missing before it.
    fn next_turn(&mut self) -> Option<Request> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= self.next)?;
        Some(first.remove())
    }
}
