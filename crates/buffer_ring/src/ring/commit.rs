//! Group commit: those that wait for durability bring it about, one for many.
//!
//! A waiting thread first does any pending work that no other thread has claimed: it seals the buffer that has its
//! bytes and those of all that came meanwhile, and writes it; it syncs what was written plainly; it drives the device.
//! If others are at all of that it spins for a moment, about as long as two writes take, and then parks. So a lone
//! commit is one system call and no hand-over, and a crowd's commits are as few writes as the
//! [policy](crate::commit::groups) makes them.
//!
//! The thread that has changed something [notifies](Core::notify_waiters) those that are parked: the ones whose bytes
//! are durable now, and one of the others if there is something left to do.

use std::time::Instant;

use ring_io::{Wait, events};

use crate::commit::groups::CommitGroup;
use crate::error::{AppendError, RingError, TimedOut};
use crate::extent::Extent;
use crate::metrics::latency::Measure;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::ring::drive::SUSPICIOUS;
use crate::ring::flush::Sealing;
use crate::staging::rotation::BufferId;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, Backoff, Parker, yield_now};

/// What a thread waits for, and when it gives up.
#[derive(Clone, Copy)]
pub(crate) struct DurabilityWait<'a> {
    /// Where the bytes end that have to be durable.
    pub(crate) upto: u64,
    pub(crate) deadline: Option<Instant>,
    /// Of a thread that waits in the stead of others: whether it is wanted elsewhere. Then it is as if the deadline had
    /// come.
    pub(crate) cancelled: Option<&'a AtomicBool>,
}

impl DurabilityWait<'_> {
    fn is_cancelled(&self) -> bool {
        // ordering: what it is cancelled for is behind a lock.
        self.cancelled.is_some_and(|cancelled| cancelled.load(Relaxed))
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline) || self.is_cancelled()
    }
}

/// How a batch was led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Led {
    ToItsEnd,
    /// It is sealed, and goes out when a reservation ends that has been held for suspiciously long.
    BehindReservation,
}

impl Core {
    /// Appends, and returns when the bytes are durable.
    pub(crate) fn append_durable(&self, payload: &[u8], deadline: Option<Instant>) -> Result<Extent, AppendError> {
        self.append_durable_with(payload.len(), deadline, |target| target.copy_from_slice(payload))
    }

    /// The same for `len` bytes that `fill` writes, which must not panic: the range would be leaked.
    pub(crate) fn append_durable_with(
        &self,
        len: usize,
        deadline: Option<Instant>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Extent, AppendError> {
        self.check_device()?;
        let patience = deadline.map_or(Patience::ForRoom, |deadline| Patience::Until(Some(deadline)));
        let start = self.latency.start();
        let held = events::hold();
        let mut grant = self.seize(len, patience)?;
        fill(grant.bytes_mut());
        let (slot, extent) = (grant.slot(), grant.extent());
        let released = grant.release();
        self.counters.appended(len);
        // If the batch was sealed for another thread, and this thread is the last one out, it is the one that writes.
        match slot.try_take_flush(released) {
            Some(flush) if deadline.is_none() => self.write_now(flush, None),
            flush => self.dispatch(flush),
        }
        drop(held);
        let outcome = self.wait(DurabilityWait { upto: extent.end(), deadline, cancelled: None });
        self.latency.stop(Measure::Commit, start);
        outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
    }

    /// Whether anything can become durable.
    pub(crate) fn check_device(&self) -> Result<(), AppendError> {
        self.check_process().map_err(|_| AppendError::Forked)?;
        if self.writeback.exists() { Ok(()) } else { Err(AppendError::NoDevice) }
    }

    /// Makes durable what has been appended by now, and gives the durable watermark.
    pub(crate) fn sync(&self, deadline: Option<Instant>) -> Result<u64, RingError> {
        self.check_process()?;
        if self.writeback.is_closed() {
            return Err(RingError::Closed);
        }
        self.wait_durable(self.tail(), deadline)?;
        Ok(self.writeback.durable())
    }

    pub(crate) fn wait_durable(&self, address: u64, deadline: Option<Instant>) -> Result<(), RingError> {
        self.check_process()?;
        if !self.writeback.exists() {
            return Err(RingError::NoDevice);
        }
        // In this order: what was durable at the end was durable.
        let closed = self.writeback.is_closed();
        if closed && self.writeback.durable() < address {
            return Err(RingError::Closed);
        }
        self.run(DurabilityWait { upto: address, deadline, cancelled: None })
    }

    /// Does what it takes. [`RingError::TimedOut`] if the wait ends first.
    pub(crate) fn run(&self, wait: DurabilityWait<'_>) -> Result<(), RingError> {
        self.check_process()?;
        let start = self.latency.start();
        let outcome = self.wait(wait);
        self.latency.stop(Measure::Commit, start);
        outcome
    }

    fn wait(&self, wait: DurabilityWait<'_>) -> Result<(), RingError> {
        if self.writeback.durable() >= wait.upto {
            return Ok(());
        }
        let waiting = self.waiting.groups().arrive(!self.is_sealed(wait.upto));
        let mut elected = false;
        let outcome = self.await_durable(wait, &mut elected);
        drop(waiting);
        let gave_up = outcome == Err(RingError::TimedOut);
        if elected || gave_up {
            // What this thread was to do is another thread's now.
            self.notify_waiters();
        }
        if gave_up && wait.cancelled.is_none() {
            self.abandon(wait.upto);
        }
        outcome
    }

    /// `elected` is set if this thread was woken to do something.
    fn await_durable(&self, wait: DurabilityWait<'_>, elected: &mut bool) -> Result<(), RingError> {
        let address = wait.upto;
        let mut spinning = self.waiting.groups().spin_limit();
        let mut backoff = Backoff::new();
        self.flush_deferred_below(address);
        loop {
            if let Some(outcome) = self.durable_outcome(address) {
                return outcome;
            }
            // Even if the time is over: what was asked for is begun.
            let worked = self.do_pending_work(wait, &mut backoff)?;
            if wait.is_over() {
                return self.durable_outcome(address).unwrap_or(Err(RingError::TimedOut));
            }
            if worked {
                continue;
            }
            if spinning.lasts() {
                yield_now();
                continue;
            }
            *elected |= self.park(wait);
            self.flush_deferred_below(address);
        }
    }

    /// Does one piece of pending work that no other thread has claimed; `false` if there is none.
    fn do_pending_work(&self, wait: DurabilityWait<'_>, backoff: &mut Backoff) -> Result<bool, RingError> {
        let DurabilityWait { upto: address, deadline, .. } = wait;
        self.check_appended(address)?;
        if self.has_open_bytes(address)
            && let Some(group) = self.waiting.groups().start(self.is_syncing(), || self.open_bytes())
        {
            let led = {
                let _held = events::hold();
                self.lead(group, wait)?
            };
            if led == Led::BehindReservation {
                self.warn_of_stall();
            }
            return Ok(true);
        }
        if self.writeback.written() >= address
            && let Some(syncer) = self.writeback.claim_syncer()
        {
            if self.durable_outcome(address).is_none() {
                // With a deadline this thread must not be at the device.
                if !self.sync_device(syncer, deadline.is_none()) {
                    // All of it is durable, but a failure is just being made known in another thread.
                    backoff.pause();
                }
            } else {
                drop(syncer);
                self.notify();
            }
            return Ok(true);
        }
        if let Some(driver) = self.writeback.claim_driver() {
            // The driver before may have brought the answer, or something else to do.
            if self.durable_outcome(address).is_some() {
                self.release_driver(driver);
            } else if self.drive(driver, Wait::Until(deadline)) == 0 {
                yield_now();
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Seals a batch and has it written. The group ends when it has been written, so that others gather until then.
    fn lead(&self, group: CommitGroup<'_>, wait: DurabilityWait<'_>) -> Result<Led, RingError> {
        let mut led = Led::ToItsEnd;
        if self.await_due(wait)? {
            let commits = group.take_members(|| self.counters.now());
            self.latency.count(Measure::BatchSize, commits as u64);
            let current = self.staging.current();
            match self.try_seal(current) {
                Sealing::Sealed(Some(flush)) if wait.deadline.is_none() => {
                    self.write_now(flush, Some(group));
                    return Ok(led);
                }
                // With a deadline this thread must not be at the device; without the flush a writer still pins the
                // buffer, and will send it.
                Sealing::Sealed(flush) => {
                    let start = self.latency.start();
                    self.dispatch(flush);
                    // Without `auto_flush` it is held now, and no other thread may ask for it.
                    self.flush_deferred_below(wait.upto);
                    led = self.await_straggler(current, wait)?;
                    self.latency.stop(Measure::Stragglers, start);
                }
                Sealing::Already | Sealing::Empty => {}
            }
        }
        drop(group);
        self.notify_waiters();
        Ok(led)
    }

    /// Waits until `id` has been written, in which a writer may still hold a range. Not for long: a group that
    /// a held reservation keeps from being written must not keep others from theirs, nor its leader's events from their
    /// subscriber.
    fn await_straggler(&self, id: BufferId, wait: DurabilityWait<'_>) -> Result<Led, RingError> {
        let cancelled = || wait.is_cancelled().then_some(Err(RingError::TimedOut));
        let suspicious = Instant::now() + SUSPICIOUS;
        let until = wait.deadline.map_or(suspicious, |deadline| deadline.min(suspicious));
        match self.wait_until(Some(until), || self.outcome(|| self.has_completed(id)).or_else(cancelled)) {
            Ok(outcome) => outcome.map(|()| Led::ToItsEnd),
            Err(TimedOut) if until < suspicious => Err(RingError::TimedOut),
            Err(TimedOut) => Ok(Led::BehindReservation),
        }
    }

    /// Waits until the policy lets the batch be sealed; `false` if there is no need any more.
    fn await_due(&self, wait: DurabilityWait<'_>) -> Result<bool, RingError> {
        let Some(due) = self.waiting.groups().due() else { return Ok(true) };
        let due = self.counters.moment(due);
        let until = wait.deadline.map_or(due, |deadline| deadline.min(due));
        let cancelled = || wait.is_cancelled().then_some(Err(RingError::TimedOut));
        match self.wait_until(Some(until), || self.durable_outcome(wait.upto).or_else(cancelled)) {
            Ok(outcome) => outcome.map(|()| false),
            Err(TimedOut) if until < due => Err(RingError::TimedOut),
            Err(TimedOut) => Ok(true),
        }
    }

    /// Sleeps until it is woken. `true` if it was elected to do something.
    fn park(&self, wait: DurabilityWait<'_>) -> bool {
        let parker = Parker::new();
        let place = self.waiting.waiters().add(wait.upto, parker.waker());
        if !self.has_news(wait.upto) && !wait.is_cancelled() {
            parker.park(wait.deadline);
        }
        self.waiting.waiters().remove(place)
    }

    /// Whether a thread that waits for `address` has its answer, or something to do.
    fn has_news(&self, address: u64) -> bool {
        self.durable_outcome(address).is_some()
            || self.has_open_bytes(address) && self.may_start_batch()
            || self.wants_syncer(address)
            || self.writeback.wants_driver()
    }

    /// Wakes those that are parked: all whose bytes are durable, and one for each piece of work that no thread has
    /// claimed.
    pub(crate) fn notify_waiters(&self) {
        if self.waiting.waiters().is_empty() {
            return;
        }
        // First what keeps the device busy.
        if self.may_start_batch() {
            self.waiting.waiters().elect_beyond(self.staging.next_base());
        }
        self.waiting.waiters().wake_up_to(self.writeback.durable());
        if !self.is_syncing() {
            self.waiting.waiters().elect_up_to(self.writeback.written());
        }
        if self.writeback.wants_driver() {
            self.waiting.waiters().elect_beyond(0);
        }
    }

    pub(crate) fn durable_outcome(&self, address: u64) -> Option<Result<(), RingError>> {
        self.outcome(|| self.writeback.durable() >= address)
    }

    /// An address past the tail might never be appended; fail instead of blocking.
    pub(crate) fn check_appended(&self, address: u64) -> Result<(), RingError> {
        if self.is_sealed(address) {
            return Ok(());
        }
        let tail = self.tail();
        if address > tail { Err(RingError::NotAppended { address, tail }) } else { Ok(()) }
    }

    fn may_start_batch(&self) -> bool {
        self.waiting.groups().may_start(self.is_syncing(), || self.open_bytes())
    }

    fn is_syncing(&self) -> bool {
        self.writeback.is_syncing()
    }

    fn wants_syncer(&self, address: u64) -> bool {
        self.writeback.written() >= address && !self.is_syncing()
    }

    /// Whether all generations below `address` are sealed; then their last writers write them, without any help.
    pub(crate) fn is_sealed(&self, address: u64) -> bool {
        self.staging.next_base() >= address
    }

    /// Whether `address` lies in the open buffer, so that a thread has to seal it.
    fn has_open_bytes(&self, address: u64) -> bool {
        !self.is_sealed(address) && !self.staging.slot(self.staging.current()).snapshot().is_sealed()
    }

    /// About how many bytes the next batch has.
    fn open_bytes(&self) -> u64 {
        self.tail().saturating_sub(self.staging.next_base())
    }

    /// Without `auto_flush` there are no commit groups: a thread that waits requests the flush of all that begins below
    /// `address`.
    fn flush_deferred_below(&self, address: u64) {
        if !self.staging.auto_flush() {
            let current = self.staging.current();
            // If the slot has moved on to a later generation, the current one has been written.
            if self.staging.slot(current).base() < address {
                self.seal_and_flush(current);
            }
            self.flush_all_deferred(current, address);
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;

    use ring_alloc::{Arena, BLOCK};
    use ring_io::{MemoryDevice, QuikIO};

    use super::*;
    use crate::commit::groups::CommitPolicy;
    use crate::staging::layout::Layout;
    use crate::writeback::device;

    /// Two buffers, a device that holds its writes, and a policy that lets a batch start beside a sync but not beside
    /// another.
    fn core() -> (Core, MemoryDevice) {
        let (io, device) = QuikIO::in_memory();
        let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
        let queue = device::attach(&Arc::new(io), &arena).expect("the only queue");
        device.hold();
        (
            Core::new(
                &arena,
                Layout::plain(&arena),
                true,
                true,
                CommitPolicy::MinInterval(Duration::from_nanos(1)),
                0,
                Some(queue),
            ),
            device,
        )
    }

    /// What a thread that waits for `address` looks at: whether there is news, and of that, whether a batch may start,
    /// a sync is under way, one is wanted, and a driver is.
    fn look(core: &Core, address: u64) -> [bool; 5] {
        [
            core.has_news(address),
            core.may_start_batch(),
            core.is_syncing(),
            core.wants_syncer(address),
            core.writeback.wants_driver(),
        ]
    }

    #[test]
    fn a_thread_that_waits_sleeps_only_when_all_there_is_to_do_is_done_by_others() {
        const YES: bool = true;
        const NO: bool = false;
        let (core, device) = core();
        let end = core.append(b"record", Patience::Never).expect("there is room").end();

        // Its bytes are in the open buffer: it can lead a batch, unless another thread does.
        assert_eq!((look(&core, end), core.open_bytes()), ([YES, YES, NO, NO, NO], 6));
        let group = core.waiting.groups().start(NO, || 6).expect("none is under way");
        assert_eq!(look(&core, end), [NO, NO, NO, NO, NO]);

        // The batch is at the device, for which a thread has to wait.
        assert!(core.seal(core.staging.current()));
        assert_eq!((look(&core, end), core.open_bytes()), ([YES, NO, NO, NO, YES], 0));
        let driver = core.writeback.claim_driver().expect("there is something in flight");
        assert_eq!(look(&core, end), [NO, NO, NO, NO, NO]);
        drop(group);
        assert_eq!(look(&core, end), [NO, YES, NO, NO, NO], "what could be in the next one is not waited for");

        // It has been written: what is missing is a sync.
        device.release_all();
        assert_eq!(core.drive(driver, Wait::No), 1);
        assert_eq!(look(&core, end), [YES, YES, NO, YES, NO]);
        assert_eq!(look(&core, BLOCK as u64), [YES, YES, NO, YES, NO]);
        assert_eq!(look(&core, BLOCK as u64 + 1), [YES, YES, NO, NO, NO], "it is not written");
        let syncer = core.writeback.claim_syncer().expect("no thread has it");
        assert_eq!(look(&core, end), [NO, YES, YES, NO, NO]);
        assert!(core.sync_device(syncer, YES));
        assert_eq!(look(&core, end), [YES, YES, NO, YES, NO], "it is durable");
    }

    #[test]
    fn what_is_still_to_do_for_a_wait_is_done_step_by_step_and_nothing_twice() {
        let (core, device) = core();
        let upto = core.append(b"record", Patience::Never).expect("there is room").end();
        let wait = DurabilityWait { upto, deadline: None, cancelled: None };
        let mut backoff = Backoff::new();
        assert!(core.seal(core.staging.current()));
        let driver = core.writeback.claim_driver().expect("there is something in flight");
        assert_eq!(core.do_pending_work(wait, &mut backoff), Ok(false), "another thread drives");
        drop(driver);
        device.release_all();
        assert_eq!(core.do_pending_work(wait, &mut backoff), Ok(true));
        assert_eq!((core.writeback.written(), core.writeback.durable()), (BLOCK as u64, 0));
        let syncer = core.writeback.claim_syncer().expect("no thread has it");
        assert_eq!(core.do_pending_work(wait, &mut backoff), Ok(false), "another thread syncs");
        drop(syncer);
        assert_eq!(core.do_pending_work(wait, &mut backoff), Ok(true));
        assert_eq!((core.writeback.durable(), device.syncs()), (BLOCK as u64, 1));
        let beyond = DurabilityWait { upto: BLOCK as u64 + 1, ..wait };
        let tail = BLOCK as u64;
        assert_eq!(core.do_pending_work(beyond, &mut backoff), Err(RingError::NotAppended { address: tail + 1, tail }));
    }
}
