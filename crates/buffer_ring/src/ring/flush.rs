//! Sealing on request, and the way of a sealed buffer to the device and back.

use std::time::Instant;

use ring_io::{LogWrite, event, events};
use ring_state::Seal;

use crate::commit::groups::CommitGroup;
use crate::error::RingError;
use crate::metrics::latency::Measure;
use crate::ring::core::Core;
use crate::staging::rotation::BufferId;
use crate::staging::slot::Flush;
use crate::writeback::Batch;

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

impl Core {
    /// Seals `id` if it is open and has bytes.
    ///
    /// The caller holds events back until it has dealt with the flush.
    pub(crate) fn try_seal(&self, id: BufferId) -> Sealing<'_> {
        let slot = self.staging.slot(id);
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

    /// Seals `id` if it is open and has bytes. `false` if it is open and has none.
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

    /// Seals `id`, and has it written when the last writer has left. `false` if it is open and has no bytes.
    pub(crate) fn seal_and_flush(&self, id: BufferId) -> bool {
        let has_bytes = self.seal(id);
        if has_bytes && self.writeback.is_serialized() {
            // It is written only after those before it, and no other thread may ask for them.
            self.flush_all_deferred(id, u64::MAX);
        } else if has_bytes && !self.staging.auto_flush() {
            self.flush_deferred(id);
        }
        has_bytes
    }

    /// Without `auto_flush`: asks for the flush of `id`, which is sealed.
    pub(crate) fn flush_deferred(&self, id: BufferId) {
        let slot = self.staging.slot(id);
        if let Some(pin) = slot.claim_deferred(id.generation()) {
            self.flush_if_drained(slot, pin.release());
        }
    }

    /// Has everything written that has bytes.
    pub(crate) fn flush_everything(&self) {
        let current = self.staging.current();
        self.seal_and_flush(current);
        self.flush_all_deferred(current, u64::MAX);
    }

    /// Without `auto_flush`: asks for the flush of all sealed buffers, up to generation `last`, that begin below
    /// `address`.
    pub(crate) fn flush_all_deferred(&self, last: BufferId, address: u64) {
        if self.staging.auto_flush() {
            return;
        }
        for slot in self.staging.slots() {
            // A generation after `last` may just be prepared; no thread has asked for its flush yet.
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
        if let Some(batch) = flush.and_then(|flush| self.prepare(flush)) {
            self.submit(batch);
        }
    }

    fn submit(&self, Batch { base, write }: Batch) {
        // If no thread waits for durability, a sync will do, for many buffers at once.
        let durable = self.waiting.groups().has_waiters() && self.writeback.may_be_durable(base);
        // The device goes when the ring ends, which waits for all threads that flush.
        let submitted = self.writeback.submit(LogWrite { durable, ..write });
        debug_assert!(submitted.is_some(), "a flush after the ring was closed");
        // If another thread drives, that thread sees this write when it gives the claim up, and wakes a thread that may
        // have to drive.
        self.poll();
        if self.writeback.is_serialized() {
            // The device may not have it yet, so that nothing else notifies a thread that waits for the writers to
            // leave.
            self.notify();
        }
    }

    /// Writes the bytes in this thread, which needs them on stable storage and has nothing else to do. Then the `group`
    /// ends. If it could not be a durable write, this thread finds next that a sync is needed.
    #[cold]
    pub(crate) fn write_now(&self, flush: Flush<'_>, group: Option<CommitGroup<'_>>) {
        let _held = events::hold();
        match self.prepare(flush) {
            // A serialized file takes it when its turn comes.
            Some(batch) if self.writeback.is_serialized() && self.writeback.written() < batch.base => {
                self.submit(batch)
            }
            Some(batch) => return self.write_here(batch, group),
            None => {}
        }
        drop(group);
        self.notify_waiters();
    }

    fn write_here(&self, Batch { base, write }: Batch, group: Option<CommitGroup<'_>>) {
        let durable = self.writeback.may_be_durable(base);
        let start = Instant::now();
        let finished = self.writeback.write_or_submit(LogWrite { durable, ..write });
        if durable {
            self.waiting.groups().measured(start.elapsed());
        }
        self.latency.time(Measure::Device, start.elapsed());
        // Before any thread is notified, so that the device need not wait until all are.
        drop(group);
        match finished.expect("a write after the ring was closed") {
            Some(finished) => self.finish(finished),
            // It waits for its segment; the driver takes it.
            None => self.notify_waiters(),
        }
        if self.writeback.is_driven_now() {
            // The driver waits at the device, and perhaps for this.
            self.writeback.interrupt();
        }
    }

    /// Makes a flush ready for the device; `None` if there is nothing left to do.
    fn prepare(&self, flush: Flush<'_>) -> Option<Batch> {
        if self.is_failing() || self.is_inherited() {
            // The bytes stay in memory, to be read for rescue.
            self.notify();
            return None;
        }
        let slot = flush.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), flush.len());
        let Some(bytes) = flush.freeze(self.writeback.durable()) else {
            self.poison(RingError::Framing(slot.batch_base()));
            return None;
        };
        self.counters.dispatched(bytes.len() as u64 - u64::from(len));
        event!(TRACE, generation, base, len, "flushing");
        if !self.writeback.exists() {
            // As good as written, and never durable.
            self.complete(bytes, false);
            return None;
        }
        let (address, next) = (slot.batch_base(), slot.next_batch());
        Some(Batch { base, write: LogWrite { token: slot.index() as u64, bytes, address, next, durable: false } })
    }
}
