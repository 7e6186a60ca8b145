//! What a ring counts. Counting costs an append no shared write: each thread counts in a shard of its own. Nothing
//! depends on the counters, so that loom need not see them.

use core::array;
use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;
use std::time::Instant;

use crossbeam_utils::CachePadded;

/// Threads that count in a shard of their own. Others share one.
const SHARDS: usize = 64;

/// Counters of one ring.
#[derive(Debug)]
pub(crate) struct Counters {
    start: Instant,
    /// The last one is shared.
    shards: Box<[CachePadded<Shard>; SHARDS + 1]>,
    pub(crate) aborted: AtomicU64,
    pub(crate) leases_ended: AtomicU64,
    pub(crate) unused: AtomicU64,
    pub(crate) flushed: AtomicU64,
    pub(crate) padding: AtomicU64,
    pub(crate) full_waits: AtomicU64,
    pub(crate) full_wait_nanos: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) durable_writes: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            shards: Box::new(array::from_fn(|_| CachePadded::default())),
            aborted: AtomicU64::new(0),
            leases_ended: AtomicU64::new(0),
            unused: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            padding: AtomicU64::new(0),
            full_waits: AtomicU64::new(0),
            full_wait_nanos: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            durable_writes: AtomicU64::new(0),
        }
    }

    /// Records and bytes that were appended without a lease.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let add = |(records, bytes): (u64, u64), shard: &CachePadded<Shard>| {
            (records + shard.records.load(Relaxed), bytes + shard.bytes.load(Relaxed))
        };
        self.shards.iter().fold((0, 0), add)
    }

    /// Nanoseconds since the ring was made.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// The moment that is so many nanoseconds of the ring's clock.
    pub(crate) fn moment(&self, nanos: u64) -> Instant {
        // A word of nanoseconds is six centuries: no clock ends so soon.
        self.start + Duration::from_nanos(nanos)
    }

    #[inline]
    pub(crate) fn appended(&self, len: usize) {
        let number = MINE.get();
        if number < SHARDS {
            // This thread's alone: no read-modify-write.
            let shard = &self.shards[number];
            shard.records.store(shard.records.load(Relaxed) + 1, Relaxed);
            shard.bytes.store(shard.bytes.load(Relaxed) + len as u64, Relaxed);
        } else {
            self.appended_elsewhere(len);
        }
    }

    /// By a thread without a shard: the first time, or because there was none left.
    #[cold]
    fn appended_elsewhere(&self, len: usize) {
        let shard = &self.shards[shard()];
        // A read-modify-write, since it may be the shared one.
        shard.records.fetch_add(1, Relaxed);
        shard.bytes.fetch_add(len as u64, Relaxed);
    }

    pub(crate) fn aborted(&self) {
        self.aborted.fetch_add(1, Relaxed);
    }

    pub(crate) fn lease_ended(&self, unused: usize) {
        self.leases_ended.fetch_add(1, Relaxed);
        if unused > 0 {
            self.unused.fetch_add(unused as u64, Relaxed);
        }
    }

    pub(crate) fn dispatched(&self, padding: u64) {
        self.padding.fetch_add(padding, Relaxed);
    }

    pub(crate) fn flushed(&self) {
        self.flushed.fetch_add(1, Relaxed);
    }

    pub(crate) fn written(&self, durable: bool) {
        self.durable_writes.fetch_add(u64::from(durable), Relaxed);
    }

    pub(crate) fn synced(&self) {
        self.syncs.fetch_add(1, Relaxed);
    }

    pub(crate) fn waited_for_room(&self, time: Duration) {
        self.full_waits.fetch_add(1, Relaxed);
        self.full_wait_nanos.fetch_add(nanos(time), Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

thread_local! {
    /// The shard of this thread, the same in all rings: below [`SHARDS`] no other thread's while the thread lives, or
    /// the shared one, which also stands for not knowing. Without a destructor, so that looking at it is one load.
    static MINE: Cell<usize> = const { Cell::new(SHARDS) };
    static GUARD: ShardGuard = ShardGuard::take();
}

/// The shard of this thread, taken if it has none.
fn shard() -> usize {
    let shard = GUARD.try_with(|guard| guard.0).unwrap_or(SHARDS);
    MINE.set(shard);
    shard
}

/// Lanes that threads have, a bit for each. Not behind a lock: a fork while another thread holds that would leave it
/// locked in the child.
static TAKEN: AtomicU64 = AtomicU64::new(0);

const _: () = assert!(SHARDS == u64::BITS as usize, "a bit for each shard");

/// A thread's claim to its shard.
struct ShardGuard(usize);

impl ShardGuard {
    #[cold]
    fn take() -> Self {
        let free = |taken: u64| taken.trailing_ones() as usize;
        // ordering: acquire half of D5: the shard's last thread has counted. With no shard left it is the
        // shared one.
        let take = |taken: u64| (free(taken) < SHARDS).then(|| taken | 1 << free(taken));
        Self(TAKEN.fetch_update(Acquire, Relaxed, take).map_or(SHARDS, free))
    }
}

impl Drop for ShardGuard {
    fn drop(&mut self) {
        // What the thread still appends in its last moments goes to the shared one.
        MINE.set(SHARDS);
        if self.0 < SHARDS {
            // ordering: release half of D5: what this thread has counted → the next thread of the shard.
            TAKEN.fetch_and(!(1 << self.0), Release);
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn the_clock_of_a_ring_counts_nanoseconds_from_its_start() {
        for (time, expected) in [(Duration::ZERO, 0), (Duration::from_micros(3), 3000), (Duration::MAX, u64::MAX)] {
            assert_eq!(nanos(time), expected);
        }
        let counters = Counters::new();
        for nanos in [0, 1, 1 << 40, u64::MAX] {
            assert_eq!(counters.moment(nanos) - counters.start, Duration::from_nanos(nanos));
        }
        thread::sleep(Duration::from_millis(1));
        let now = counters.now();
        assert!(now >= 1_000_000 && counters.moment(now) <= Instant::now());
    }

    #[test]
    fn threads_that_live_at_once_have_shards_of_their_own_and_leave_them_to_others() {
        let mine = shard();
        // More than there are, one after the other.
        for _ in 0..2 * SHARDS {
            let barrier = Barrier::new(2);
            let shards = thread::scope(|scope| {
                let take = || {
                    let counters = Counters::new();
                    (0..2).for_each(|_| counters.appended(8));
                    let number = MINE.get();
                    assert_eq!((counters.totals(), shard()), ((2, 16), number));
                    assert_eq!(counters.shards[number].records.load(Relaxed), 2);
                    barrier.wait();
                    number
                };
                [scope.spawn(take), scope.spawn(take)].map(|thread| thread.join().expect("no panic"))
            });
            assert!(shards[0] != shards[1] && !shards.contains(&mine), "{mine} {shards:?}");
            assert!(shards.iter().all(|&shard| shard < SHARDS), "{shards:?}");
        }
        // More than there are, all at once: some share the last one.
        let (counters, barrier) = (Counters::new(), Barrier::new(SHARDS + 8));
        thread::scope(|scope| {
            let count = |len| {
                let (counters, barrier) = (&counters, &barrier);
                scope.spawn(move || {
                    counters.appended(len);
                    barrier.wait();
                    (1..100).for_each(|_| counters.appended(len));
                    barrier.wait();
                })
            };
            let threads: Vec<_> = (1..=SHARDS + 8).map(count).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        let threads = SHARDS as u64 + 8;
        assert_eq!(counters.totals(), (100 * threads, 100 * threads * (threads + 1) / 2));
    }

    #[test]
    fn what_is_counted_adds_up() {
        let counters = Counters::new();
        counters.lease_ended(0);
        counters.lease_ended(7);
        assert_eq!((counters.leases_ended.load(Relaxed), counters.unused.load(Relaxed)), (2, 7));
        counters.dispatched(4000);
        counters.dispatched(90);
        assert_eq!(counters.padding.load(Relaxed), 4090);
        counters.waited_for_room(Duration::from_micros(2));
        counters.waited_for_room(Duration::from_micros(3));
        assert_eq!((counters.full_waits.load(Relaxed), counters.full_wait_nanos.load(Relaxed)), (2, 5000));
    }
}
