//! When the next batch may start: the policy of group commit.
//!
//! A batch is what has been appended to the open buffer by the time it is sealed for a thread that waits. Its way to
//! the device and back is its *commit group*. With none under way the next starts at once. While one is, what arrives
//! waits for it and forms the next batch; a second one may start beside it when it has enough to carry, so that a late
//! arrival waits for one group at most. The same goes for a sync that is under way: what is written beside it needs
//! another one, so there is no hurry until it has ended.
//!
//! There is no timer, but for the policy that asks for one: each thread that arrives, and each that ends a group or a
//! sync, decides. Whatever the policy, with neither under way the answer is yes; so no thread is left alone.
//!
//! Only the count of groups orders anything. The other numbers are hints at what is quickest: whatever they say, a
//! batch starts when neither is under way, and what went out plainly is synced. So checkers need not see them, like the
//! counters of the statistics.

use core::sync::atomic::{AtomicU64, AtomicUsize as Hint};
use core::time::Duration;

use crate::commit::backoff::{SpinLimit, SpinPolicy};
use crate::sync::AtomicUsize;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};

/// When durable appends go to the device: see
/// [`BufferRingBuilder::commit_policy`](crate::BufferRingBuilder::commit_policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitPolicy {
    /// At once if no batch is under way. Otherwise what arrives forms the next batch; up to two are under way.
    #[default]
    Immediate,
    /// At once if no batch is under way. Beside one, a second starts when so many bytes have gathered: less than that
    /// waits for the first to come back. For devices on which writes in parallel are no gain.
    MinBytes(u64),
    /// One batch at a time, and at least so long from the start of one to the start of the next: a commit that comes
    /// earlier waits that out. For devices that bill by the operation. A buffer that is full goes out nevertheless.
    MinInterval(Duration),
}

/// The least that a second group takes along: one in so many of those that wait. Small batches would last: each group
/// wakes as many as it brings back, and they are the next batch.
const SHARE: usize = 3;

/// What a group beside a sync takes along: half of those that wait, though not more than so many. Fewer would pay for a
/// write each, and more would have to be woken first.
const BESIDE_A_SYNC: usize = 16;

/// On a device that is faster than this, a second group costs more than it brings.
const FAST: Duration = Duration::from_micros(20);

/// The batches under way, and those that wait.
#[derive(Debug)]
pub(crate) struct CommitGroups {
    policy: CommitPolicy,
    count: AtomicUsize,
    /// Those that wait for durability.
    waiting: Hint,
    /// About how many of them have come since the latest batch was sealed.
    pending: Hint,
    /// About how many that batch took along.
    latest: Hint,
    /// When it was sealed, in nanoseconds of the ring's clock.
    started: AtomicU64,
    /// How long a durable write takes: the average of the latest, in nanoseconds.
    write_time: AtomicU64,
    spinning: SpinPolicy,
}

/// One commit group. Dropping it ends it; then those that are parked have to be notified.
#[derive(Debug)]
pub(crate) struct CommitGroup<'a>(&'a CommitGroups);

/// A thread that waits for durability.
#[derive(Debug)]
pub(crate) struct WaiterCount<'a>(&'a CommitGroups);

impl CommitGroups {
    pub(crate) fn new(policy: CommitPolicy) -> Self {
        Self {
            policy,
            count: AtomicUsize::new(0),
            waiting: Hint::new(0),
            pending: Hint::new(0),
            latest: Hint::new(0),
            started: AtomicU64::new(0),
            write_time: AtomicU64::new(0),
            spinning: SpinPolicy::new(),
        }
    }

    /// CommitGroups under way. May be out of date.
    #[cfg(all(test, loom))]
    pub(crate) fn count(&self) -> usize {
        // ordering: acquire half of R14.
        self.count.load(Acquire)
    }

    /// Counts in a thread that waits, with bytes that are `pending` or that have been sealed before.
    pub(crate) fn arrive(&self, pending: bool) -> WaiterCount<'_> {
        self.waiting.fetch_add(1, Relaxed);
        if pending {
            self.pending.fetch_add(1, Relaxed);
        }
        WaiterCount(self)
    }

    /// Whether what goes out now should be durable when it comes back. May be out of date: it is a matter of speed.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whether the next batch may start, perhaps beside a sync. May be out of date, except that the end of a group is
    /// seen by each thread that parks later.
    pub(crate) fn may_start(&self, syncing: bool, bytes: impl FnOnce() -> u64) -> bool {
        // ordering: acquire half of R14.
        let count = self.count.load(Acquire);
        match self.policy {
            _ if count > 1 => false,
            _ if count == 0 && !syncing => true,
            CommitPolicy::Immediate => {
                let (waiting, pending) = (self.waiting.load(Relaxed), self.pending.load(Relaxed));
                if count == 0 {
                    pending >= waiting.div_ceil(2).min(BESIDE_A_SYNC)
                } else {
                    !self.is_fast() && pending >= self.latest.load(Relaxed).max(waiting / SHARE).max(1)
                }
            }
            CommitPolicy::MinBytes(least) => bytes() >= least,
            CommitPolicy::MinInterval(_) => count == 0,
        }
    }

    /// Starts a group, if it may.
    pub(crate) fn start(&self, syncing: bool, bytes: impl FnOnce() -> u64) -> Option<CommitGroup<'_>> {
        // ordering: acquire half of R14, like the exchange below.
        let seen = self.count.load(Acquire);
        let started =
            self.may_start(syncing, bytes) && self.count.compare_exchange(seen, seen + 1, AcqRel, Relaxed).is_ok();
        started.then(|| CommitGroup(self))
    }

    /// The moment of the ring's clock, in nanoseconds, before which the next batch is not to be sealed.
    pub(crate) fn due(&self) -> Option<u64> {
        match self.policy {
            CommitPolicy::MinInterval(interval) => match self.started.load(Relaxed) {
                0 => None,
                started => Some(started.saturating_add(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX))),
            },
            _ => None,
        }
    }

    /// A durable write took so long.
    pub(crate) fn measured(&self, time: Duration) {
        if cfg!(any(loom, shuttle)) {
            return;
        }
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(1 << 40);
        let average = match self.write_time.load(Relaxed) {
            0 => time,
            average => average - average / 8 + time / 8,
        };
        self.write_time.store(average, Relaxed);
    }

    fn is_fast(&self) -> bool {
        (1..FAST.as_nanos()).contains(&self.write_time.load(Relaxed).into())
    }

    /// For another thread's write, before sleeping: about as long as two of them take.
    pub(crate) fn spin_limit(&self) -> SpinLimit<'_> {
        self.spinning.limit(Duration::from_nanos(self.write_time.load(Relaxed)))
    }
}

impl CommitGroup<'_> {
    /// The batch is about to be sealed, at this moment of the ring's clock. Answers about how many it takes along.
    pub(crate) fn take_members(&self, now: impl FnOnce() -> u64) -> usize {
        let CommitGroups { policy, pending, latest, started, .. } = self.0;
        let taken = pending.swap(0, Relaxed);
        latest.store(taken, Relaxed);
        if let CommitPolicy::MinInterval(_) = policy {
            started.store(now().max(1), Relaxed);
        }
        taken
    }
}

impl Drop for CommitGroup<'_> {
    fn drop(&mut self) {
        // ordering: release half of R14.
        self.0.count.fetch_sub(1, AcqRel);
    }
}

impl Drop for WaiterCount<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_does_not_start_a_second_group_for_a_few() {
        let groups = CommitGroups::new(CommitPolicy::Immediate);
        let start = || groups.start(false, || 0);
        let crowd: Vec<_> = (0..9).map(|_| groups.arrive(true)).collect();
        let first = start().expect("none is under way");
        assert_eq!(first.take_members(|| 0), 9);
        drop(first);
        // Those nine have not been woken yet when the next batch starts, with one.
        let mut late = vec![groups.arrive(true)];
        let small = start().expect("none is under way");
        assert_eq!(small.take_members(|| 0), 1);
        for pending in 1..=3 {
            late.push(groups.arrive(true));
            assert!(start().is_none(), "{pending} of {}", crowd.len() + late.len());
        }
        late.push(groups.arrive(true));
        let second = start().expect("it takes 4 of 14 along");
        assert_eq!(second.take_members(|| 0), 4);
        late.push(groups.arrive(true));
        assert!(start().is_none(), "two are under way");
    }

    #[test]
    fn beside_a_sync_a_group_waits_for_half_of_the_others_or_for_its_end() {
        for (crowd, enough) in [(1, 1), (2, 1), (3, 2), (4, 2), (16, 8), (64, BESIDE_A_SYNC)] {
            let groups = CommitGroups::new(CommitPolicy::Immediate);
            let mut waiting: Vec<_> = (0..crowd).map(|_| groups.arrive(false)).collect();
            for pending in 1..=enough {
                let may_start = || groups.may_start(true, || 0);
                assert!(!may_start(), "{pending} of {crowd}");
                waiting.pop();
                waiting.push(groups.arrive(true));
                assert_eq!(may_start(), pending == enough, "{pending} of {crowd}");
            }
            assert!(CommitGroups::new(CommitPolicy::Immediate).may_start(false, || 0));
        }
    }
    #[test]
    fn a_moment_of_writes_is_averaged_over_about_eight() {
        for (measured, average) in [
            (&[800_u64][..], 800),
            (&[800, 1600], 900),
            (&[8000, 16000, 16000], 9875),
            (&[1600, 0], 1400),
            (&[u64::MAX], 1 << 40),
        ] {
            let groups = CommitGroups::new(CommitPolicy::Immediate);
            measured.iter().for_each(|&nanos| groups.measured(Duration::from_nanos(nanos)));
            assert_eq!(groups.write_time.load(Relaxed), average, "{measured:?}");
        }
        let groups = CommitGroups::new(CommitPolicy::Immediate);
        groups.measured(Duration::MAX);
        assert_eq!(groups.write_time.load(Relaxed), 1 << 40);
    }

    #[test]
    fn beside_a_write_of_a_fast_device_no_second_one_starts() {
        for (write_time, may_start) in [(0, true), (1, false), (19_999, false), (20_000, true), (20_001, true)] {
            let groups = CommitGroups::new(CommitPolicy::Immediate);
            groups.measured(Duration::from_nanos(write_time));
            let _first = groups.start(false, || 0).expect("none is under way");
            let _waiting = groups.arrive(true);
            assert_eq!(groups.may_start(false, || 0), may_start, "{write_time} ns");
        }
    }

    #[test]
    fn each_policy_says_when_a_batch_starts_beside_others() {
        let interval = CommitPolicy::MinInterval(Duration::from_nanos(500));
        // Under way, whether a sync is, bytes that have gathered: whether one starts.
        for (policy, count, syncing, bytes, may_start) in [
            (CommitPolicy::MinBytes(100), 0, false, 0, true),
            (CommitPolicy::MinBytes(100), 0, true, 99, false),
            (CommitPolicy::MinBytes(100), 0, true, 100, true),
            (CommitPolicy::MinBytes(100), 1, false, 99, false),
            (CommitPolicy::MinBytes(100), 1, true, 101, true),
            (CommitPolicy::MinBytes(100), 2, false, 101, false),
            (interval, 0, false, 0, true),
            (interval, 0, true, 0, true),
            (interval, 1, false, 1 << 30, false),
            (interval, 1, true, 1 << 30, false),
            (CommitPolicy::Immediate, 1, false, 1 << 30, false),
            (CommitPolicy::Immediate, 0, true, 0, true),
        ] {
            let groups = CommitGroups::new(policy);
            groups.count.store(count, Relaxed);
            let case = (policy, count, syncing, bytes);
            assert_eq!(groups.may_start(syncing, || bytes), may_start, "{case:?}");
            let group = groups.start(syncing, || bytes);
            assert_eq!(group.is_some(), may_start, "{case:?}");
            assert_eq!(groups.count.load(Relaxed), count + usize::from(may_start), "{case:?}");
            drop(group);
            assert_eq!(groups.count.load(Relaxed), count, "{case:?}");
        }
    }

    #[test]
    fn only_an_interval_makes_a_batch_wait_for_a_moment() {
        let nanos = Duration::from_nanos;
        for (policy, now, due) in [
            (CommitPolicy::Immediate, 1000, None),
            (CommitPolicy::MinBytes(100), 1000, None),
            (CommitPolicy::MinInterval(nanos(500)), 1000, Some(1500)),
            // 0 stands for no batch yet.
            (CommitPolicy::MinInterval(nanos(500)), 0, Some(501)),
            (CommitPolicy::MinInterval(Duration::MAX), 1000, Some(u64::MAX)),
        ] {
            let groups = CommitGroups::new(policy);
            assert_eq!(groups.due(), None, "{policy:?} before the first batch");
            let _waiting = [groups.arrive(true), groups.arrive(false), groups.arrive(true)];
            let group = groups.start(false, || 0).expect("none is under way");
            assert_eq!(group.take_members(|| now), 2, "those whose bytes are pending");
            assert_eq!(group.take_members(|| now), 0);
            assert_eq!(groups.due(), due, "{policy:?}");
        }
    }

    #[test]
    fn those_that_wait_are_counted_until_they_go() {
        let groups = CommitGroups::new(CommitPolicy::Immediate);
        assert!(!groups.has_waiters());
        let (first, second) = (groups.arrive(true), groups.arrive(false));
        drop(first);
        assert!(groups.has_waiters());
        drop(second);
        assert!(!groups.has_waiters());
    }
}
