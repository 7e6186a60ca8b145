//! How long things take, as histograms: for rings that ask for it, since each entry takes a lock. Without the feature
//! `latencies` no ring can.

use core::time::Duration;
use std::time::Instant;

#[cfg(feature = "latencies")]
use hdrhistogram::Histogram;
#[cfg(feature = "latencies")]
use ring_io::locks::Mutex;

#[cfg(feature = "latencies")]
type Histograms = Box<[Mutex<Histogram<u64>>; 5]>;
#[cfg(not(feature = "latencies"))]
type Histograms = core::convert::Infallible;

/// Histograms of a ring's latencies, in nanoseconds unless stated otherwise, with two significant digits: see
/// [`BufferRingBuilder::measure_latency`](crate::BufferRingBuilder::measure_latency).
#[cfg(feature = "latencies")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Latencies {
    /// Durable appends, and waits for durability, from call to return.
    pub commit: Histogram<u64>,
    /// How many commits a batch took along, about.
    pub batch_size: Histogram<u64>,
    /// Writes, plain or durable, and syncs that a thread made itself.
    pub device: Histogram<u64>,
    /// Appends that found the ring full, until there was room or they gave up.
    pub room: Histogram<u64>,
    /// Batches that were sealed and waited for a thread inside the buffer, or were submitted for a call with a
    /// deadline.
    pub stragglers: Histogram<u64>,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure {
    Commit,
    BatchSize,
    Device,
    Room,
    Stragglers,
}

/// The histograms of a ring that asked for them.
#[derive(Debug)]
pub(crate) struct Recorder(Option<Histograms>);

impl Recorder {
    pub(crate) fn off() -> Self {
        Self(None)
    }

    #[cfg(feature = "latencies")]
    pub(crate) fn on() -> Self {
        let histogram = || Mutex::new(Histogram::new(2).expect("two significant digits are allowed"));
        Self(Some(Box::new([(); 5].map(|()| histogram()))))
    }

    /// The moment, if any thread wants to know.
    pub(crate) fn start(&self) -> Option<Instant> {
        self.0.is_some().then(Instant::now)
    }

    /// What began at `start` is over.
    pub(crate) fn stop(&self, measure: Measure, start: Option<Instant>) {
        if let Some(start) = start {
            self.time(measure, start.elapsed());
        }
    }

    pub(crate) fn time(&self, measure: Measure, time: Duration) {
        self.count(measure, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self, measure: Measure, value: u64) {
        if let Some(histograms) = &self.0 {
            record(histograms, measure, value);
        }
    }

    #[cfg(feature = "latencies")]
    pub(crate) fn get(&self) -> Option<Latencies> {
        let [commit, batch_size, device, room, stragglers] = &**self.0.as_ref()?;
        let copy = |histogram: &Mutex<Histogram<u64>>| histogram.lock().clone();
        Some(Latencies {
            commit: copy(commit),
            batch_size: copy(batch_size),
            device: copy(device),
            room: copy(room),
            stragglers: copy(stragglers),
        })
    }
}

#[cfg(feature = "latencies")]
fn record(histograms: &Histograms, measure: Measure, value: u64) {
    // Not `saturating_record`: that never makes the histogram larger, and takes every value for the largest so far
    // possible.
    let recorded = histograms[measure as usize].lock().record(value);
    debug_assert!(recorded.is_ok(), "a histogram grows up to any value: {recorded:?}");
}

#[cfg(not(feature = "latencies"))]
fn record(never: &Histograms, _: Measure, _: u64) {
    match *never {}
}
