//! What the ring has done. Counting costs an append no shared write: each thread counts in a shard of its own. Nothing
//! depends on the counters, so that loom need not see them.

use core::time::Duration;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use ring_io::{Engine, event, events};

#[cfg(feature = "latencies")]
use crate::metrics::latency::Latencies;
use crate::ring::core::Core;
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
    /// The oldest buffer with a reservation at this moment. Usually that is a thread copying; if it stays the same, it
    /// is a reservation that is held or leaked, and keeps the log from going on.
    pub oldest_reservation: Option<OldestReservation>,
    /// How long things took; `None` unless the ring was [built](crate::BufferRingBuilder::measure_latency) to measure
    /// it. Feature `latencies`.
    #[cfg(feature = "latencies")]
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
    /// Whether the kernel offers `membarrier`, so that an append into a lease passes no fence.
    pub membarrier: bool,
}

impl Core {
    pub(crate) fn stats(&self) -> RingStats {
        self.poll();
        let counters = &self.counters;
        let (records, bytes) = counters.totals();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (open, leased_records, leased_bytes) = self.staging.leases().totals();
        RingStats {
            records_appended: records + leased_records,
            bytes_appended: bytes + leased_bytes,
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
                membarrier: Barrier::probe() == Barrier::Membarrier,
            },
            engine: self.writeback.engine(),
            registered_buffers: self.writeback.has_registered_buffers(),
            oldest_reservation: self.oldest_reservation(),
            #[cfg(feature = "latencies")]
            latencies: if self.is_inherited() { None } else { self.latency.get() },
        }
    }

    pub(crate) fn oldest_reservation(&self) -> Option<OldestReservation> {
        let busy = self.staging.slots().iter().filter_map(|slot| {
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

    /// A thread has waited for long: says so, if it is for a reservation that has not ended. At once, since it may
    /// last; by a thread that owes nothing to others.
    pub(crate) fn warn_of_stall(&self) {
        if let Some(OldestReservation { buffer_start, count, waiting: Some(waiting) }) = self.oldest_reservation() {
            events::at_once(|| {
                event!(WARN, buffer_start, count, ?waiting, "reservations that have not ended hold the log back");
            });
        }
    }
}
