//! What names one generation of one buffer: its handle, and the ticket of its flush.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use crate::error::RingError;
use crate::ring::core::Core;
use crate::ring::drive::deadline;
use crate::staging::rotation::BufferId;

/// One generation of one buffer of a ring: what [`current_buffer`](crate::BufferRing::current_buffer) gives.
///
/// It may outlive the ring, and it never speaks of a later generation of the same buffer.
#[derive(Clone)]
pub struct BufferHandle {
    core: Arc<Core>,
    id: BufferId,
}

impl BufferHandle {
    pub(crate) fn new(core: Arc<Core>, id: BufferId) -> Self {
        Self { core, id }
    }

    pub(crate) fn is_of(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    pub(crate) fn id(&self) -> BufferId {
        self.id
    }

    /// Which generation it is, counted through the whole ring from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.id.generation()
    }

    /// Whether this generation takes no more bytes. Once true it stays true; `false` may be out of date.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        let slot = self.core.staging.slot(self.id);
        // In this order: an open word of a later generation was opened after its generation was set.
        let sealed = slot.snapshot().is_sealed();
        sealed || slot.generation() != self.id.generation()
    }

    /// Whether the bytes of this generation have been written to the device, which may not have synced them. Once true
    /// it stays true.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.core.poll();
        self.core.has_completed(self.id)
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("generation", &self.generation())
            .field("sealed", &self.is_sealed())
            .field("written", &self.core.has_completed(self.id))
            .finish()
    }
}

/// The outcome of a [`flush`](crate::BufferRing::flush), to wait for or to ignore. It may outlive the ring.
#[derive(Clone)]
pub struct FlushTicket {
    core: Arc<Core>,
    /// `None`: there was nothing to write.
    id: Option<BufferId>,
}

impl FlushTicket {
    pub(crate) fn new(core: Arc<Core>, id: Option<BufferId>) -> Self {
        Self { core, id }
    }

    /// Returns when the buffer has been written to the device, which may not have synced it.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring before the buffer was written; [`RingError::Closed`] if the ring is
    /// gone, and a leaked reservation had kept the buffer from being written.
    pub fn wait(&self) -> Result<(), RingError> {
        self.wait_until(None)
    }

    /// Like [`wait`](Self::wait), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; the flush goes on.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), RingError> {
        self.wait_until(deadline(timeout))
    }

    /// Whether the buffer has been written, or there was nothing to write. Once true it stays true.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.core.poll();
        self.has_completed()
    }

    fn has_completed(&self) -> bool {
        self.id.is_none_or(|id| self.core.has_completed(id))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), RingError> {
        self.core.wait_until(deadline, || {
            // In this order: what was going to be written has been written when the ring is closed.
            let closed = self.core.writeback.is_closed();
            self.core.outcome(|| self.has_completed()).or(closed.then_some(Err(RingError::Closed)))
        })?
    }
}

impl fmt::Debug for FlushTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushTicket").field("done", &self.has_completed()).finish()
    }
}
