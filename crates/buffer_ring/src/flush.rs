//! Sealing on request, and the way of a sealed buffer to the device and back.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use ring_state::Seal;

use crate::RingError;
use crate::rotation::Life;
use crate::shared::Shared;
use crate::slot::{Flush, Inside};

/// One life of one buffer of a ring: what [`current_buffer`](crate::BufferRing::current_buffer) gives.
///
/// It may outlive the ring, and it never speaks of a later life of the same buffer.
#[derive(Clone)]
pub struct BufferHandle {
    shared: Arc<Shared>,
    life: Life,
}

impl BufferHandle {
    pub(crate) fn new(shared: Arc<Shared>, life: Life) -> Self {
        Self { shared, life }
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// Which life it is, counted through the whole ring from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.life.generation()
    }

    /// Whether this life takes no more bytes. Once true it stays true; `false` may be out of date.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        let slot = &self.shared.slots[self.life.slot()];
        // In this order: an open word of a later life was opened after its generation was set.
        let sealed = slot.snapshot().is_sealed();
        sealed || slot.generation() != self.life.generation()
    }

    /// Whether the bytes of this life have been written to the device, which may not have synced them. Once true it stays true.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.shared.poll();
        self.shared.has_completed(self.life)
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("generation", &self.generation())
            .field("sealed", &self.is_sealed())
            .field("written", &self.shared.has_completed(self.life))
            .finish()
    }
}

/// The outcome of a [`flush`](crate::BufferRing::flush), to wait for or to ignore. It may outlive the ring.
#[derive(Clone)]
pub struct FlushTicket {
    shared: Arc<Shared>,
    /// `None`: there was nothing to write.
    life: Option<Life>,
}

impl FlushTicket {
    pub(crate) fn new(shared: Arc<Shared>, life: Option<Life>) -> Self {
        Self { shared, life }
    }

    /// Returns when the buffer has been written to the device, which may not have synced it.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring before the buffer was written; [`RingError::Closed`] if the ring is gone, and a leaked
    /// reservation had kept the buffer from being written.
    pub fn wait(&self) -> Result<(), RingError> {
        self.wait_until(None)
    }

    /// Like [`wait`](Self::wait), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; the flush goes on.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), RingError> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Whether the buffer has been written, or there was nothing to write. Once true it stays true.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.poll();
        self.has_completed()
    }

    fn has_completed(&self) -> bool {
        self.life.is_none_or(|life| self.shared.has_completed(life))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), RingError> {
        self.shared.wait_until(deadline, || {
            // In this order: what was going to be written has been written when the ring is closed.
            let closed = self.shared.durability.is_closed();
            self.shared.outcome(|| self.has_completed()).or(closed.then_some(Err(RingError::Closed)))
        })?
    }
}

impl fmt::Debug for FlushTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushTicket").field("done", &self.has_completed()).finish()
    }
}

impl Shared {
    /// The sealer's part: tells where the next life begins, has it opened, and leaves, or deposits its place for a later flush.
    pub(crate) fn finish_seal(&self, inside: Inside<'_>) {
        let slot = inside.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), slot.sealed_len());
        inside.note_time(self.counters.now());
        tracing::trace!(generation, base, len, "sealed");
        let next_base = base + ring_alloc::round_up(u64::from(len));
        self.rotation.hand_over(Life::new(generation, slot.index()), next_base);
        self.advance();
        if !self.auto_flush && slot.hold.deposit(generation) {
            // Who waits for room may have to give up now.
            self.waiters.wake();
        } else {
            self.pay(slot, inside.leave());
        }
    }

    /// Seals `life` if it is open and has bytes. `false` if it is open and has none.
    pub(crate) fn seal(&self, life: Life) -> bool {
        let slot = &self.slots[life.slot()];
        // If it cannot be entered, its flush has begun.
        let Some(inside) = slot.enter() else { return true };
        // Only from inside: a life that was looked up from outside may be over when it is sealed.
        let sealed = if slot.generation() == life.generation() { inside.seal() } else { Seal::Already };
        if let Seal::Sealed { .. } = sealed {
            self.finish_seal(inside);
            return true;
        }
        self.pay(slot, inside.leave());
        // Being inside may have been what kept the slot from opening.
        self.advance();
        sealed != Seal::Empty
    }

    /// Seals `life`, and has it written when the last writer has left. `false` if it is open and has no bytes.
    pub(crate) fn seal_and_flush(&self, life: Life) -> bool {
        let has_bytes = self.seal(life);
        if has_bytes && self.device.is_serialized() {
            // It is written only after those before it, and nobody else may ask for them.
            self.flush_all_held(life, u64::MAX);
        } else if has_bytes && !self.auto_flush {
            self.flush_held(life);
        }
        has_bytes
    }

    /// Without `auto_flush`: asks for the flush of `life`, which is sealed.
    pub(crate) fn flush_held(&self, life: Life) {
        let slot = &self.slots[life.slot()];
        if let Some(inside) = slot.claim_hold(life.generation()) {
            self.pay(slot, inside.leave());
        }
    }

    /// Sends the bytes on their way. By the one thread that took the flush.
    #[cold]
    pub(crate) fn dispatch(&self, flush: Flush<'_>) {
        if self.poisoned().is_some() {
            // The bytes stay in memory, to be read for rescue.
            self.waiters.wake();
            return;
        }
        let slot = flush.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), flush.len());
        let bytes = flush.freeze();
        self.counters.dispatched(bytes.len() as u64 - u64::from(len));
        tracing::trace!(generation, base, len, "flushing");
        if !self.device.exists() {
            self.complete(bytes);
            return;
        }
        let token = slot.index() as u64;
        // The device goes when the ring does, which nobody can be inside of.
        let submitted = self.device.with(|queue| queue.submit(token, bytes, base));
        debug_assert!(submitted.is_some(), "a flush after the ring was closed");
        // If somebody else drives, that thread sees this write when it gives the role up, and wakes who may have to drive.
        self.poll();
    }

    /// Whether the bytes of `life` have been written.
    fn has_completed(&self, life: Life) -> bool {
        self.slots[life.slot()].has_completed(life.generation())
    }

    /// The buffer has been written: its slot is free.
    pub(crate) fn complete(&self, bytes: ring_alloc::Frozen) {
        let slot = &self.slots[bytes.index()];
        let (generation, end) = (slot.generation(), slot.base() + bytes.len() as u64);
        // First the watermark, then the slot: whoever sees the buffer written sees the watermark.
        self.durability.written_up_to(generation, end);
        self.counters.flushed();
        slot.complete(bytes);
        self.advance();
        self.waiters.wake();
    }
}
