//! The way to the file, for as long as there is a ring.

use ring_io::fork::Process;
use ring_io::{DeviceError, WriteMode, events};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use imp::{WriteQueue, attach};

use crate::sync::RwLock;
#[cfg(any(loom, shuttle))]
pub(crate) use crate::sync::model_device::{WriteQueue, attach};

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use std::sync::Arc;

    use ring_alloc::Arena;
    pub(crate) use ring_io::WriteQueue;
    use ring_io::{AttachError, QuikIO};

    pub(crate) fn attach(io: &Arc<QuikIO>, arena: &Arc<Arena>) -> Result<WriteQueue, AttachError> {
        io.attach(arena)
    }
}

/// A write queue that can be taken away: a ticket that outlives the ring must not keep the file busy.
#[derive(Debug)]
pub(crate) struct Device {
    queue: RwLock<Option<WriteQueue>>,
    exists: bool,
    serialized: bool,
    process: Process,
}

impl Device {
    pub(crate) fn new(queue: Option<WriteQueue>) -> Self {
        let serialized = queue.as_ref().is_some_and(|queue| queue.io().write_mode() == WriteMode::Serialized);
        Self { exists: queue.is_some(), serialized, process: Process::here(), queue: RwLock::new(queue) }
    }

    /// Whether there ever was a file.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Whether a buffer is written only after the one before it.
    pub(crate) fn is_serialized(&self) -> bool {
        self.serialized
    }

    /// Calls `f` with the queue, if there is one: not in a forked child. The lock is shared, and taken once per buffer.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&WriteQueue) -> R) -> Option<R> {
        if !self.process.is_here() {
            return None;
        }
        // A thread that waits to take the queue away does not keep out the one that it waits for.
        self.queue.read().as_ref().map(f)
    }

    /// Puts what has been written on stable storage. `None`: there is no device, or none any more, and nothing was
    /// synced.
    pub(crate) fn sync(&self) -> Option<Result<(), DeviceError>> {
        self.with(|queue| queue.io().sync())
    }

    /// The same, without waiting for it: the thread that reaps takes the outcome.
    pub(crate) fn submit_sync(&self) -> Option<Result<(), DeviceError>> {
        self.with(WriteQueue::submit_sync)
    }

    /// What was submitted and has not come back.
    pub(crate) fn in_flight(&self) -> usize {
        if self.exists { self.with(WriteQueue::in_flight).unwrap_or(0) } else { 0 }
    }

    /// Lets the thread that waits at the device look whether it still has to.
    pub(crate) fn interrupt(&self) {
        self.with(WriteQueue::interrupt);
    }

    /// Takes the queue away, which waits for what is in flight.
    pub(crate) fn close(&self) {
        let _held = events::hold();
        drop(self.queue.write().take());
    }
}
