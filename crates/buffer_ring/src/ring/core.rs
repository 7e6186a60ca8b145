//! The core of a ring: it joins [staging](crate::staging), [writeback](crate::writeback) and
//! [those that wait](crate::commit), none of which calls another. Sealing, completion and
//! poisoning are here, whose steps have an order.

use std::sync::{Arc, Weak};

use ring_alloc::{Arena, Frozen};
use ring_io::fork::{Inherited, Process};
use ring_io::{Finished, event, events};
use ring_state::Released;

use crate::commit::Waiting;
use crate::commit::groups::CommitPolicy;
use crate::error::{AppendError, RingError};
use crate::metrics::counters::Counters;
use crate::metrics::latency::Recorder;
use crate::staging::Staging;
use crate::staging::layout::Layout;
use crate::staging::rotation::{BufferId, Rotated, Target};
use crate::staging::slot::{Flush, Grant, PinGuard, Slot};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, Mutex};
use crate::writeback::Writeback;
use crate::writeback::device::WriteQueue;
use crate::writeback::ledger::Ledger;

/// What the ring, its tickets and its handles share.
///
/// | field | written by | read by | ordered by |
/// |---|---|---|---|
/// | `staging`, `writeback`, `waiting` | their own methods | the same | see there |
/// | `failure` | the first failure | a thread that found a flag set, or the ring ended | its lock |
/// | `failing` | `poison`, in that lock | flushes; new leases | W4: the lease is found, or the flag is |
/// | `poisoned` | `poison`, in that lock, when all leases are revoked | all | its reader takes the lock |
/// | longest payload (`staging`) | `poison`, `refuse_appends`, in that lock | appends | a refused one takes the lock |
/// | `counters`, `latency` | all | the statistics | nothing depends on them |
/// | `this`, `process` | never | all | the ring's making |
#[derive(Debug)]
pub(crate) struct Core {
    /// This, for threads of its own.
    this: Weak<Self>,
    pub(crate) staging: Staging,
    pub(crate) writeback: Writeback,
    pub(crate) waiting: Waiting,
    pub(crate) counters: Counters,
    pub(crate) latency: Recorder,
    /// Whether the ring is poisoned: `failure` is set, and all leases have been taken back.
    poisoned: AtomicBool,
    /// Whether `failure` is set: no lease begins any more, and no write.
    failing: AtomicBool,
    failure: Mutex<Option<RingError>>,
    process: Process,
}

impl Inherited for Core {
    fn disown(&self) {
        self.staging.disown();
    }
}

impl Core {
    /// Joins the parts of a ring whose first batch is at `start`, and opens its first buffer.
    pub(crate) fn new(
        arena: &Arc<Arena>,
        layout: Layout,
        auto_flush: bool,
        auto_rotate: bool,
        policy: CommitPolicy,
        start: u64,
        queue: Option<WriteQueue>,
    ) -> Self {
        // All is counted in addresses of what is appended.
        let start = start + layout.header_len() as u64;
        let core = Self {
            this: Weak::new(),
            staging: Staging::new(arena, layout, auto_flush, auto_rotate, start),
            writeback: Writeback::new(queue, start),
            waiting: Waiting::new(policy, start),
            counters: Counters::new(),
            latency: Recorder::off(),
            poisoned: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            process: Process::here(),
        };
        core.advance();
        core
    }

    /// The same in an `Arc` that its own threads can have a share of.
    pub(crate) fn into_shared(mut self) -> Arc<Self> {
        Arc::new_cyclic(|this| {
            self.this = Weak::clone(this);
            self
        })
    }

    /// A share for a thread of its own; `None` while the ring goes.
    pub(crate) fn share(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// Ends a granted range.
    #[inline]
    pub(crate) fn release(&self, grant: Grant<'_>) {
        let slot = grant.slot();
        self.flush_if_drained(slot, grant.release());
    }

    /// Does what a thread owes after it has left `slot`.
    #[inline]
    pub(crate) fn flush_if_drained(&self, slot: &Slot, released: Released) {
        if released != Released::Pending {
            self.flush_drained(slot, released);
        }
    }

    #[cold]
    fn flush_drained(&self, slot: &Slot, released: Released) {
        let _held = events::hold();
        if let Some(flush) = slot.try_take_flush(released) {
            self.dispatch(Some(flush));
        }
    }

    /// Opens the next generation if that is due and possible; to be called by the thread that has removed an obstacle.
    pub(crate) fn advance(&self) {
        let _held = events::hold();
        // One of those that wait for room may be at the device, where the next completion can be far.
        if self.advance_to(self.staging.target()) && self.waiting.changes().want_room() {
            self.writeback.interrupt();
        }
    }

    /// The same for the thread that takes completions: no other thread is at the device.
    pub(crate) fn advance_as_driver(&self) {
        self.advance_to(self.staging.target());
    }

    pub(crate) fn advance_to(&self, target: Target) -> bool {
        let _held = events::hold();
        match self.staging.advance(target) {
            Rotated::Opened(id) => {
                event!(TRACE, generation = id.generation(), slot = id.slot(), "opened");
                self.waiting.changes().notify();
                true
            }
            Rotated::Exhausted => {
                // A thread that waits for room waits in vain.
                self.waiting.changes().notify();
                false
            }
            Rotated::No => false,
        }
    }

    /// The sealer's part: says where the next buffer begins, has it opened, and releases its pin, or defers the flush.
    /// Gives the flush if no other thread holds the buffer any more.
    #[must_use]
    pub(crate) fn finish_seal<'a>(&self, pin: PinGuard<'a>) -> Option<Flush<'a>> {
        let slot = pin.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), slot.sealed_len());
        pin.note_time(self.counters.now());
        event!(TRACE, generation, base, len, "sealed");
        let next_base = slot.end_generation();
        self.staging.hand_over(BufferId::new(generation, slot.index()), next_base);
        self.advance();
        self.revoke_after_seal(slot);
        if !self.staging.auto_flush() && slot.deferred.defer(generation) {
            // A thread that waits for room may have to give up now.
            self.waiting.changes().notify();
            None
        } else {
            slot.try_take_flush(pin.release())
        }
    }

    /// The sealer of the generation in `slot`, still inside, takes back all leases there.
    pub(crate) fn revoke_after_seal(&self, slot: &Slot) {
        self.revoke(slot, true);
    }

    /// Takes back the leases in `slot`, as far as they are known: a thread that waits for its writers looks again
    /// anyway.
    pub(crate) fn revoke_leases(&self, slot: &Slot) {
        self.revoke(slot, false);
    }

    fn revoke(&self, slot: &Slot, sealed: bool) {
        let _held = events::hold();
        self.staging.revoke(slot, sealed).for_each(|rest| self.return_lease(rest));
    }

    /// Ends the rest of a lease.
    pub(crate) fn return_lease(&self, mut rest: Grant<'_>) {
        rest.bytes_mut().fill(0);
        self.counters.lease_ended(rest.extent().len());
        self.release(rest);
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

    /// The buffer has been written: its slot is free.
    pub(crate) fn complete(&self, bytes: Frozen, durable: bool) {
        let slot = &self.staging.slots()[bytes.index()];
        let (generation, end) = (slot.generation(), slot.next_base());
        // First the watermarks, then the slot: the thread that sees the buffer written sees them.
        self.record(generation, end, durable);
        self.counters.flushed();
        slot.complete(bytes);
        self.advance_as_driver();
        self.notify();
    }

    /// The buffer `generation`, which ends at `end`, has been written, and perhaps is `durable`.
    pub(crate) fn record(&self, generation: u64, end: u64, durable: bool) {
        self.update(|ledger| ledger.complete(generation, end, durable));
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Ledger)) {
        if self.writeback.update(change, |publish| self.unless_poisoned(publish)) {
            self.waiting.eventfds().notify();
        }
    }

    /// Whether the bytes of `id` have been written.
    pub(crate) fn has_completed(&self, id: BufferId) -> bool {
        self.staging.slot(id).has_completed(id.generation())
    }

    /// Keeps the first error, and lets all that wait know. When it returns every thread can know, also of an error that
    /// came first in another thread.
    #[cold]
    pub(crate) fn poison(&self, error: RingError) {
        let _held = events::hold();
        let is_first = {
            let mut failure = self.failure.lock();
            let is_first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            self.failing.store(true, Relaxed);
            is_first
        };
        if is_first {
            event!(ERROR, %error, "the ring is poisoned");
        }
        // Writers look at nothing but their leases. A thread that knows of the failure must find that they have none.
        self.staging.slots().iter().for_each(|slot| self.revoke_leases(slot));
        {
            let _failure = self.failure.lock();
            self.staging.refuse();
            self.poisoned.store(true, Relaxed);
        }
        self.wake_all();
        // The thread that drives sleeps at the device, where perhaps nothing will happen any more.
        self.writeback.interrupt();
    }

    /// Does `f`, except after a failure; and no failure comes while it does.
    pub(crate) fn unless_poisoned(&self, f: impl FnOnce()) {
        let failure = self.failure.lock();
        if failure.is_none() {
            f();
        }
    }

    /// Whether there is a failure, which may not have been made known yet: no lease begins any more, and no write.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    pub(crate) fn poisoned(&self) -> Option<RingError> {
        if self.is_inherited() {
            return Some(RingError::Forked);
        }
        self.poisoned.load(Relaxed).then(|| self.failure.lock().clone().expect("set before the flag"))
    }

    /// Whether the ring takes no more bytes.
    pub(crate) fn has_ended(&self) -> bool {
        self.staging.has_ended()
    }

    /// Why the ring [takes no more bytes](Self::has_ended).
    #[cold]
    pub(crate) fn end_error(&self) -> AppendError {
        if self.is_inherited() {
            return AppendError::Forked;
        }
        // The lock orders this look behind a failure that was the cause.
        self.failure.lock().clone().map_or(AppendError::Closed, AppendError::Poisoned)
    }

    /// The ring takes no more bytes from now on, though nothing has failed.
    pub(crate) fn refuse_appends(&self) {
        {
            let _failure = self.failure.lock();
            self.staging.refuse();
        }
        self.waiting.changes().notify();
        // A thread that waits for room may be at the device.
        self.writeback.interrupt();
    }

    /// The next address to be given out. It never decreases.
    pub(crate) fn tail(&self) -> u64 {
        if self.is_inherited() {
            // A forked child has no thread that would finish what was under way.
            return self.staging.next_base();
        }
        self.staging.tail()
    }

    /// Whether the caller is in a child that was forked from the ring's process. There each call finds that out before
    /// it takes a lock or a claim, or waits: a thread of the parent may have had what it needs, and never gives it back
    /// here.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_here()
    }

    pub(crate) fn check_process(&self) -> Result<(), RingError> {
        if self.is_inherited() { Err(RingError::Forked) } else { Ok(()) }
    }

    /// Something has changed that others may wait for.
    pub(crate) fn notify(&self) {
        if self.is_inherited() {
            return;
        }
        self.waiting.changes().notify();
        self.notify_waiters();
    }

    /// Wakes all threads that wait, for whatever it is, so that they look again.
    pub(crate) fn wake_all(&self) {
        self.waiting.wake_all();
    }
}
