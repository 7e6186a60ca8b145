//! What the ring has done. Counting costs an append no shared write: each thread counts in a shard of its own. Nothing depends on
//! the counters, so that loom need not see them.

use core::array;
use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;
use ring_io::{Engine, event, events};

use crate::metrics::latency::Latencies;
use crate::ring::core::Shared;
use crate::sync::fence::Barrier;

/// What a ring has done so far, as far as it was known at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RingStats {
    /// Payloads appended, and reservations committed.
    pub records_appended: u64,
    /// Bytes of them.
    pub bytes_appended: u64,
    /// Reservations that were dropped without commit; their ranges are zeros in the log.
    pub reservations_aborted: u64,
    /// Buffers written to the device.
    pub buffers_flushed: u64,
    /// Bytes of zeros that filled their last blocks.
    pub padding_bytes: u64,
    /// How often an append found the ring full and waited.
    pub full_waits: u64,
    /// How long that took, all appends together.
    pub full_wait_time: Duration,
    /// Syncs of the device that succeeded.
    pub syncs: u64,
    /// Buffers among [`buffers_flushed`](Self::buffers_flushed) whose write was durable by itself. Together with
    /// [`syncs`](Self::syncs): how often the device had to flush its cache.
    pub durable_writes: u64,
    /// Its writers.
    pub writers: WriterStats,
    /// What the ring writes through; `None` without a device.
    pub engine: Option<Engine>,
    /// Whether the buffers are registered with the engine.
    pub registered_buffers: bool,
    /// The oldest buffer that somebody is inside of at this moment. Usually that is somebody copying; if it stays the same, it is a
    /// reservation that is held or leaked, and keeps the log from going on.
    pub oldest_reservation: Option<OldestReservation>,
    /// How long things took; `None` unless the ring was [built](crate::BufferRingBuilder::measure_latency) to measure it.
    pub latencies: Option<Latencies>,
}

/// A buffer with reservations that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestReservation {
    /// File address of the buffer's first byte.
    pub buffer_start: u64,
    /// Reservations in it that have not ended.
    pub count: u32,
    /// How long the sealed buffer has been waiting for them; `None` while it is open, and nothing waits.
    pub waiting: Option<Duration>,
}

/// What the writers of a ring have done. Their records count among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterStats {
    /// Writers that have not been dropped.
    pub open: u64,
    /// Records that were appended without touching shared memory, into a lease.
    pub leased_records: u64,
    /// Bytes of them.
    pub leased_bytes: u64,
    /// Leases that have ended.
    pub leases_ended: u64,
    /// Bytes that they had left, which are zeros in the log.
    pub unused_bytes: u64,
    /// How a writer and those who take back its lease come to see each other.
    pub barrier: Barrier,
}

/// Threads that count in a shard of their own. Others share one.
const SHARDS: usize = 64;

/// Counters of one ring.
#[derive(Debug)]
pub(crate) struct Counters {
    start: Instant,
    /// The last one is shared.
    shards: Box<[CachePadded<Shard>; SHARDS + 1]>,
    aborted: AtomicU64,
    leases_ended: AtomicU64,
    unused: AtomicU64,
    flushed: AtomicU64,
    padding: AtomicU64,
    full_waits: AtomicU64,
    full_wait_nanos: AtomicU64,
    syncs: AtomicU64,
    durable_writes: AtomicU64,
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

    /// Nanoseconds since the ring was made.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// The moment that is so many nanoseconds of the ring's clock.
    pub(crate) fn moment(&self, nanos: u64) -> Instant {
        // One that is too late to be told is far enough away.
        self.start.checked_add(Duration::from_nanos(nanos)).unwrap_or_else(|| self.start + Duration::from_secs(1 << 32))
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

impl Shared {
    pub(crate) fn stats(&self) -> RingStats {
        self.poll();
        let counters = &self.counters;
        let sum = |field: fn(&Shard) -> &AtomicU64| -> u64 {
            counters.shards.iter().map(|shard| field(shard).load(Relaxed)).sum()
        };
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (open, leased_records, leased_bytes) = self.registry.totals();
        RingStats {
            records_appended: sum(|shard| &shard.records) + leased_records,
            bytes_appended: sum(|shard| &shard.bytes) + leased_bytes,
            reservations_aborted: get(&counters.aborted),
            buffers_flushed: get(&counters.flushed),
            padding_bytes: get(&counters.padding),
            full_waits: get(&counters.full_waits),
            full_wait_time: Duration::from_nanos(get(&counters.full_wait_nanos)),
            syncs: get(&counters.syncs),
            durable_writes: get(&counters.durable_writes),
            writers: WriterStats {
                open,
                leased_records,
                leased_bytes,
                leases_ended: get(&counters.leases_ended),
                unused_bytes: get(&counters.unused),
                barrier: Barrier::probe(),
            },
            engine: self.device.with(|queue| queue.io().engine().clone()),
            registered_buffers: self.device.with(|queue| queue.registered().buffers()).unwrap_or(false),
            oldest_reservation: self.oldest_reservation(),
            latencies: if self.is_inherited() { None } else { self.latency.get() },
        }
    }

    pub(crate) fn oldest_reservation(&self) -> Option<OldestReservation> {
        let busy = self.slots.iter().filter_map(|slot| {
            let (generation, word) = (slot.generation(), slot.snapshot());
            let places = u32::from(word.is_sealed() && slot.deferred.is_deferred(generation));
            let count = word.writers().saturating_sub(places);
            if count == 0 || word.is_flushing() || slot.has_completed(generation) {
                return None;
            }
            // 0: not sealed, or just about to be.
            let sealed_at = Some(slot.sealed_at()).filter(|&at| at > 0);
            let waiting = sealed_at.map(|at| Duration::from_nanos(self.counters.now().saturating_sub(at)));
            Some(OldestReservation { buffer_start: slot.base(), count, waiting })
        });
        busy.min_by_key(|oldest| oldest.buffer_start)
    }

    /// Somebody has waited for long: says so, if it is for a reservation that has not ended. At once, since it may last; by a thread
    /// that owes nothing to others.
    pub(crate) fn warn_of_stall(&self) {
        if let Some(OldestReservation { buffer_start, count, waiting: Some(waiting) }) = self.oldest_reservation() {
            events::at_once(|| {
                event!(WARN, buffer_start, count, ?waiting, "reservations that have not ended hold the log back");
            });
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

thread_local! {
    /// The shard of this thread, the same in all rings: below [`SHARDS`] nobody else's while the thread generations, or the shared one, which
    /// also stands for not knowing. Without a destructor, so that looking at it is one load.
    static MINE: Cell<usize> = const { Cell::new(SHARDS) };
    static GUARD: ShardGuard = ShardGuard::take();
}

/// The shard of this thread, taken if it has none.
fn shard() -> usize {
    let shard = GUARD.try_with(|guard| guard.0).unwrap_or(SHARDS);
    MINE.set(shard);
    shard
}

/// Lanes that threads have, a bit for each. Not behind a lock: a fork while another thread holds that would leave it locked in the child.
static TAKEN: AtomicU64 = AtomicU64::new(0);

const _: () = assert!(SHARDS == u64::BITS as usize, "a bit for each shard");

/// A thread's claim to its shard.
struct ShardGuard(usize);

impl ShardGuard {
    #[cold]
    fn take() -> Self {
        let free = |taken: u64| taken.trailing_ones() as usize;
        // ordering: with the release in `drop`: the shard's last thread has counted. With no shard left it is the shared one.
        let take = |taken: u64| (free(taken) < SHARDS).then(|| taken | 1 << free(taken));
        Self(TAKEN.fetch_update(Acquire, Relaxed, take).map_or(SHARDS, free))
    }
}

impl Drop for ShardGuard {
    fn drop(&mut self) {
        // What the thread still appends in its last moments goes to the shared one.
        MINE.set(SHARDS);
        if self.0 < SHARDS {
            TAKEN.fetch_and(!(1 << self.0), Release);
        }
    }
}
