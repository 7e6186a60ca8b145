//! Long waits: beyond the second after which a wait for room or for writers looks for its cause, and as long as a
//! `Duration` can be.

mod common;

use core::time::Duration;
use std::sync::Arc;
use std::thread;

use buffer_ring::hdrhistogram::Histogram;
use buffer_ring::{AppendError, BufferRing, BufferRingOptions, CommitPolicy, MemoryDevice, QuikIO, RingError};
use common::{Holding, LIMIT, MOMENT, current, eventually, held, in_memory, options, pattern, within};

/// Longer than the first look for the cause of a wait.
const LONG: Duration = Duration::from_millis(1200);

/// Longer than any clock can report.
const FOR_EVER: Duration = Duration::MAX;

fn measured(options: BufferRingOptions) -> (BufferRing, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options };
    (BufferRing::builder(options).measure_latency(true).build().expect("valid options"), device)
}

/// One entry, of about [`LONG`]: its thread may have begun to measure somewhat later than the test to wait.
fn assert_measured(histogram: &Histogram<u64>) {
    assert_eq!(histogram.len(), 1);
    assert!(u128::from(histogram.max()) >= LONG.as_nanos() / 2, "{} ns", histogram.max());
}

/// Two buffers, both full and held.
fn full(measures: bool) -> (BufferRing, MemoryDevice) {
    let (ring, device) = if measures { measured(held(2, 4096)) } else { in_memory(held(2, 4096)) };
    ring.append(&[1; 4096]).expect("room");
    ring.append(&[2; 4096]).expect("room");
    (ring, device)
}

#[test]
fn a_wait_for_room_goes_on_after_its_first_second() {
    within(LIMIT, || {
        for timeout in [LIMIT, FOR_EVER] {
            let (ring, _device) = full(true);
            let last = current(&ring);
            thread::scope(|scope| {
                let wait = scope.spawn(|| ring.append_timeout(&[3; 4096], timeout));
                eventually("it has sealed the last buffer", || last.is_sealed());
                thread::sleep(LONG);
                assert!(!wait.is_finished(), "the time is not over");
                ring.sync().expect("a working device");
                assert_eq!(wait.join().expect("no panic").map(|extent| extent.start()), Ok(8192));
            });
            let stats = ring.stats();
            assert_eq!(stats.full_waits, 1);
            assert!(stats.full_wait_time >= LONG / 2, "{stats:?}");
            assert_measured(&stats.latencies.expect("asked for").room);
        }
    });
}

#[test]
fn a_wait_for_room_that_is_longer_than_a_second_ends_too() {
    within(LIMIT, || {
        let (ring, _device) = full(false);
        assert_eq!(ring.append_timeout(&[3; 4096], LONG), Err(AppendError::TimedOut));
        assert_eq!(ring.reserve_timeout(8, LONG).err(), Some(AppendError::TimedOut));
        assert_eq!(ring.stats().full_waits, 2);
    });
}

#[test]
fn a_wait_for_a_writer_that_stays_inside_goes_on_after_its_first_second() {
    within(LIMIT, || {
        let (ring, _device) = measured(options(2, 4096));
        let reservation = ring.reserve(8).expect("room");
        let end = ring.append(b"record").expect("room").end();
        thread::scope(|scope| {
            let waits = [
                scope.spawn(|| ring.wait_durable_timeout(end, LIMIT)),
                scope.spawn(|| ring.wait_durable(end)),
                scope.spawn(|| ring.wait_durable_timeout(end, FOR_EVER)),
            ];
            let waiting = || ring.stats().oldest_reservation.and_then(|oldest| oldest.waiting);
            eventually("one of them has sealed the buffer", || waiting().is_some());
            thread::sleep(LONG);
            assert!(waits.iter().all(|wait| !wait.is_finished()), "what comes before is not there yet");
            assert!(waiting().is_some_and(|time| LONG <= time && time <= LIMIT), "{:?}", waiting());
            reservation.commit();
            for wait in waits {
                assert_eq!(wait.join().expect("no panic"), Ok(()));
            }
        });
        assert_measured(&ring.stats().latencies.expect("asked for").stragglers);
    });
}

#[test]
fn a_time_too_long_to_be_expressed_never_ends() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let holding = Holding::new(&device);
        let end = ring.append(&pattern(1, 100)).expect("room").end();
        let ticket = ring.flush(&current(&ring));
        let watch = ring.durable_watch();
        thread::scope(|scope| {
            let waits = [
                scope.spawn(|| ring.wait_durable_timeout(end, FOR_EVER)),
                scope.spawn(|| ring.sync_timeout(FOR_EVER).map(|_| ())),
                scope.spawn(|| ticket.wait_timeout(FOR_EVER)),
                scope.spawn(|| watch.wait_ge_timeout(end, FOR_EVER).map(|_| ())),
            ];
            let append = scope.spawn(|| ring.append_durable_timeout(&pattern(2, 100), FOR_EVER));
            thread::sleep(MOMENT);
            assert!(
                waits.iter().all(|wait| !wait.is_finished()) && !append.is_finished(),
                "the device has not answered"
            );
            drop(holding);
            let extent = append.join().expect("no panic").expect("durable");
            assert!(ring.durable_watermark() >= extent.end());
            for wait in waits {
                assert_eq!(wait.join().expect("no panic"), Ok(()));
            }
        });
    });
}

#[test]
fn an_interval_too_long_to_be_counted_lets_no_second_batch_start() {
    within(LIMIT, || {
        let (io, device) = QuikIO::in_memory();
        let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(4, 4096) };
        let builder = BufferRing::builder(options).commit_policy(CommitPolicy::MinInterval(FOR_EVER));
        let ring = builder.build().expect("valid options");
        ring.append_durable(&pattern(0, 100)).expect("the first one waits for nothing");
        let end = ring.append(&pattern(1, 100)).expect("room").end();
        assert_eq!(ring.wait_durable_timeout(end, MOMENT), Err(RingError::TimedOut));
        assert_eq!(device.writes().len(), 1, "the interval is not over");
    });
}
