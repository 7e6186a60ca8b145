//! Sealing on request, and the way of a sealed buffer to the device and back.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use ring_alloc::Frozen;
use ring_io::{Finished, event, events};
use ring_state::Seal;

use crate::RingError;
use crate::commit::groups::CommitGroup;
use crate::metrics::latency::Measure;
use crate::ring::core::Shared;
use crate::ring::deadline;
use crate::staging::rotation::BufferId;
use crate::staging::slot::{Flush, PinGuard};
use crate::sync::Ordering::Relaxed;

/// One generation of one buffer of a ring: what [`current_buffer`](crate::BufferRing::current_buffer) gives.
///
/// It may outlive the ring, and it never speaks of a later generation of the same buffer.
#[derive(Clone)]
pub struct BufferHandle {
    shared: Arc<Shared>,
    id: BufferId,
}

impl BufferHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: BufferId) -> Self {
        Self { shared, id }
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
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
        let slot = &self.shared.slots[self.id.slot()];
        // In this order: an open word of a later generation was opened after its generation was set.
        let sealed = slot.snapshot().is_sealed();
        sealed || slot.generation() != self.id.generation()
    }

    /// Whether the bytes of this generation have been written to the device, which may not have synced them. Once true it stays true.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.shared.poll();
        self.shared.has_completed(self.id)
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("generation", &self.generation())
            .field("sealed", &self.is_sealed())
            .field("written", &self.shared.has_completed(self.id))
            .finish()
    }
}

/// The outcome of a [`flush`](crate::BufferRing::flush), to wait for or to ignore. It may outlive the ring.
#[derive(Clone)]
pub struct FlushTicket {
    shared: Arc<Shared>,
    /// `None`: there was nothing to write.
    id: Option<BufferId>,
}

impl FlushTicket {
    pub(crate) fn new(shared: Arc<Shared>, id: Option<BufferId>) -> Self {
        Self { shared, id }
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
        self.wait_until(deadline(timeout))
    }

    /// Whether the buffer has been written, or there was nothing to write. Once true it stays true.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.poll();
        self.has_completed()
    }

    fn has_completed(&self) -> bool {
        self.id.is_none_or(|id| self.shared.has_completed(id))
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

/// What became of a try to seal.
#[derive(Debug)]
pub(crate) enum Sealing<'a> {
    /// This thread sealed it. With the flush, if it was also the last one out.
    Sealed(Option<Flush<'a>>),
    /// It was sealed before, or has been written.
    Already,
    /// It is open, and has no bytes.
    Empty,
}

impl Shared {
    /// The sealer's part: tells where the next generation begins, has it opened, and leaves, or deposits its place for a later flush. Gives
    /// the flush if nobody else is inside any more.
    #[must_use]
    pub(crate) fn finish_seal<'a>(&self, pin: PinGuard<'a>) -> Option<Flush<'a>> {
        let slot = pin.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), slot.sealed_len());
        pin.note_time(self.counters.now());
        event!(TRACE, generation, base, len, "sealed");
        let next_base = base + ring_alloc::round_up(u64::from(len));
        self.rotation.hand_over(BufferId::new(generation, slot.index()), next_base);
        self.advance();
        self.revoke_after_seal(slot);
        if !self.auto_flush && slot.deferred.defer(generation) {
            // Who waits for room may have to give up now.
            self.changes.notify();
            None
        } else {
            slot.try_take_flush(pin.release())
        }
    }

    /// Seals `generation` if it is open and has bytes.
    ///
    /// The caller holds events back until it has dealt with the flush.
    pub(crate) fn try_seal(&self, id: BufferId) -> Sealing<'_> {
        let slot = &self.slots[id.slot()];
        // If it cannot be entered, its flush has begun.
        let Some(pin) = slot.pin() else { return Sealing::Already };
        // Only from inside: a generation that was looked up from outside may be over when it is sealed.
        let sealed = if slot.generation() == id.generation() { pin.seal() } else { Seal::Already };
        if let Seal::Sealed { .. } = sealed {
            return Sealing::Sealed(self.finish_seal(pin));
        }
        self.flush_if_drained(slot, pin.release());
        // Being inside may have been what kept the slot from opening.
        self.advance();
        if sealed == Seal::Empty { Sealing::Empty } else { Sealing::Already }
    }

    /// Seals `generation` if it is open and has bytes. `false` if it is open and has none.
    pub(crate) fn seal(&self, id: BufferId) -> bool {
        let _held = events::hold();
        match self.try_seal(id) {
            Sealing::Sealed(flush) => {
                self.dispatch(flush);
                true
            }
            Sealing::Already => true,
            Sealing::Empty => false,
        }
    }

    /// Seals `generation`, and has it written when the last writer has left. `false` if it is open and has no bytes.
    pub(crate) fn seal_and_flush(&self, id: BufferId) -> bool {
        let has_bytes = self.seal(id);
        if has_bytes && self.device.is_serialized() {
            // It is written only after those before it, and nobody else may ask for them.
            self.flush_all_deferred(id, u64::MAX);
        } else if has_bytes && !self.auto_flush {
            self.flush_deferred(id);
        }
        has_bytes
    }

    /// Without `auto_flush`: asks for the flush of `generation`, which is sealed.
    pub(crate) fn flush_deferred(&self, id: BufferId) {
        let slot = &self.slots[id.slot()];
        if let Some(pin) = slot.claim_deferred(id.generation()) {
            self.flush_if_drained(slot, pin.release());
        }
    }

    /// Has everything written that has bytes.
    pub(crate) fn flush_everything(&self) {
        let current = self.rotation.current();
        self.seal_and_flush(current);
        self.flush_all_deferred(current, u64::MAX);
    }

    /// Without `auto_flush`: asks for the flush of all sealed buffers, up to generation `last`, that begin below `address`.
    pub(crate) fn flush_all_deferred(&self, last: BufferId, address: u64) {
        if self.auto_flush {
            return;
        }
        for slot in &self.slots {
            // A generation after `last` may just be prepared; its flush is nobody's wish yet.
            let generation = slot.generation();
            if generation <= last.generation() && slot.snapshot().is_sealed() && slot.base() < address {
                self.flush_deferred(BufferId::new(generation, slot.index()));
            }
        }
    }

    /// Sends the bytes on their way, if there is a flush. By the one thread that took it.
    #[cold]
    pub(crate) fn dispatch(&self, flush: Option<Flush<'_>>) {
        let _held = events::hold();
        if let Some(write) = flush.and_then(|flush| self.prepare(flush)) {
            self.submit(write);
        }
    }

    fn submit(&self, Write { token, bytes, base }: Write) {
        // If nobody waits for durability, a sync will do, for many buffers at once.
        let durable = self.groups.has_waiters() && self.may_be_durable(base);
        // The device goes when the ring ends, which waits for all threads that flush.
        let submitted = self.device.with(|queue| {
            if durable { queue.submit_durable(token, bytes, base) } else { queue.submit(token, bytes, base) }
        });
        debug_assert!(submitted.is_some(), "a flush after the ring was closed");
        // If somebody else drives, that thread sees this write when it gives the role up, and wakes who may have to drive.
        self.poll();
        if self.device.is_serialized() {
            // The device may not have it yet, so that nothing else tells who waits for the writers to leave.
            self.notify();
        }
    }

    /// Writes the bytes in this thread, which needs them on stable storage and has nothing else to do. Then the `group` ends. If it
    /// could not be a durable write, this thread finds next that a sync is needed.
    #[cold]
    pub(crate) fn write_now(&self, flush: Flush<'_>, group: Option<CommitGroup<'_>>) {
        let _held = events::hold();
        match self.prepare(flush) {
            // A serialized file takes it when its turn comes.
            Some(write) if self.device.is_serialized() && self.durability.written() < write.base => self.submit(write),
            Some(write) => return self.write_here(write, group),
            None => {}
        }
        drop(group);
        self.notify_waiters();
    }

    fn write_here(&self, Write { token, bytes, base }: Write, group: Option<CommitGroup<'_>>) {
        let durable = self.may_be_durable(base);
        let start = Instant::now();
        let finished = self.device.with(|queue| {
            if durable { queue.write_durable_now(token, bytes, base) } else { queue.write_now(token, bytes, base) }
        });
        if durable {
            self.groups.measured(start.elapsed());
        }
        self.latency.time(Measure::Device, start.elapsed());
        // Before anybody is told, so that the device need not wait until all are.
        drop(group);
        self.finish(finished.expect("a write after the ring was closed"));
        if self.driver.is_claimed_now() {
            // Who drives waits at the device, and perhaps for this.
            self.device.interrupt();
        }
    }

    /// Makes a flush ready for the device; `None` if there is nothing left to do.
    fn prepare(&self, flush: Flush<'_>) -> Option<Write> {
        if self.failing.load(Relaxed) || self.is_inherited() {
            // The bytes stay in memory, to be read for rescue.
            self.notify();
            return None;
        }
        let slot = flush.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), flush.len());
        let bytes = flush.freeze();
        self.counters.dispatched(bytes.len() as u64 - u64::from(len));
        event!(TRACE, generation, base, len, "flushing");
        if !self.device.exists() {
            // As good as written, and never durable.
            self.complete(bytes, false);
            return None;
        }
        Some(Write { token: slot.index() as u64, bytes, base })
    }

    /// A write has come back.
    pub(crate) fn finish(&self, Finished { bytes, durable, result, .. }: Finished) {
        match result {
            Ok(()) => {
                self.counters.written(durable);
                self.complete(bytes, durable);
            }
            // The buffer stays as it is, flushing: its bytes can be read, and never change again.
            Err(error) => self.poison(RingError::Device(error)),
        }
    }

    /// Whether the bytes of `generation` have been written.
    pub(crate) fn has_completed(&self, id: BufferId) -> bool {
        self.slots[id.slot()].has_completed(id.generation())
    }

    /// The buffer has been written: its slot is free.
    fn complete(&self, bytes: Frozen, durable: bool) {
        let slot = &self.slots[bytes.index()];
        let (generation, end) = (slot.generation(), slot.base() + bytes.len() as u64);
        // First the watermarks, then the slot: whoever sees the buffer written sees them.
        self.record(generation, end, durable);
        self.counters.flushed();
        slot.complete(bytes);
        self.advance_as_driver();
        self.notify();
    }
}

/// What goes to the device.
struct Write {
    token: u64,
    bytes: Frozen,
    base: u64,
}
