//! Sealing on request, and the way of a sealed buffer to the device and back.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use ring_io::{Finished, Wait};
use ring_state::Seal;

use crate::RingError;
use crate::error::TimedOut;
use crate::ring::Core;
use crate::rotation::Life;
use crate::slot::Flush;

/// One life of one buffer of a ring: what [`current_buffer`](crate::BufferRing::current_buffer) gives.
///
/// It may outlive the ring, and it never speaks of a later life of the same buffer.
#[derive(Clone)]
pub struct BufferHandle {
    core: Arc<Core>,
    life: Life,
}

impl BufferHandle {
    pub(crate) fn new(core: Arc<Core>, life: Life) -> Self {
        Self { core, life }
    }

    pub(crate) fn is_of(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.core, core)
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
        let slot = &self.core.slots[self.life.slot()];
        // In this order: an open word of a later life was opened after its generation was set.
        let sealed = slot.snapshot().is_sealed();
        sealed || slot.generation() != self.life.generation()
    }

    /// Whether the bytes of this life have been written to the device, which may not have synced them. Once true it stays true.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.core.slots[self.life.slot()].has_completed(self.life.generation())
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("generation", &self.generation())
            .field("sealed", &self.is_sealed())
            .field("written", &self.is_written())
            .finish()
    }
}

/// The outcome of a [`flush`](crate::BufferRing::flush), to wait for or to ignore. It may outlive the ring.
#[derive(Clone)]
pub struct FlushTicket {
    core: Arc<Core>,
    /// `None`: there was nothing to write.
    life: Option<Life>,
}

impl FlushTicket {
    pub(crate) fn new(core: Arc<Core>, life: Option<Life>) -> Self {
        Self { core, life }
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
        self.life.is_none_or(|life| self.core.slots[life.slot()].has_completed(life.generation()))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), RingError> {
        self.core.wait_until(deadline, || {
            // In this order: what was going to be written has been written when the ring is closed.
            let closed = self.core.durability.is_closed();
            if self.is_done() {
                return Some(Ok(()));
            }
            self.core.poisoned().or(closed.then_some(RingError::Closed)).map(Err)
        })?
    }
}

impl fmt::Debug for FlushTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushTicket").field("done", &self.is_done()).finish()
    }
}

impl Core {
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
        if has_bytes && !self.auto_flush() {
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
        self.drive(Wait::No);
    }

    /// The buffer has been written: its slot is free.
    fn complete(&self, bytes: ring_alloc::Frozen) {
        let slot = &self.slots[bytes.index()];
        let (generation, end) = (slot.generation(), slot.base() + bytes.len() as u64);
        slot.complete(bytes);
        self.durability.written_up_to(generation, end, !self.device.exists());
        self.counters.flushed();
        self.advance();
        self.waiters.wake();
    }

    /// Takes finished writes from the device, if nobody else is at it and there are any. `true` if it had the driver role.
    pub(crate) fn drive(&self, wait: Wait) -> bool {
        if self.device.in_flight() == 0 {
            return false;
        }
        let Some(mut finished) = self.driver.try_lock() else { return false };
        self.reap(wait, &mut finished);
        drop(finished);
        // The role is free: somebody who sleeps may have to take it.
        self.waiters.wake();
        true
    }

    fn reap(&self, wait: Wait, finished: &mut Vec<Finished>) {
        self.device.with(|queue| queue.reap(wait, finished));
        for Finished { bytes, result, .. } in finished.drain(..) {
            match result {
                Ok(()) => self.complete(bytes),
                // The buffer stays as it is, flushing: its bytes can be read, and never change again.
                Err(error) => self.poison(RingError::Device(error)),
            }
        }
    }

    /// Waits until nothing is in flight.
    pub(crate) fn drain(&self) {
        let mut finished = self.driver.lock();
        while self.device.in_flight() > 0 {
            self.reap(Wait::Until(None), &mut finished);
        }
    }

    /// Waits until `ready` has an answer: drives the device while there is something to drive, sleeps otherwise.
    pub(crate) fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(TimedOut);
            }
            if !self.drive(Wait::Until(deadline)) {
                let mut answer = None;
                let look = || {
                    answer = ready();
                    answer.is_some() || self.wants_driver()
                };
                // Whether the time was over is looked at above, after one more look for the answer.
                let _ = self.waiters.sleep_unless(look, deadline);
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
        }
    }

    fn wants_driver(&self) -> bool {
        self.device.in_flight() > 0 && !self.driver.is_locked()
    }
}
