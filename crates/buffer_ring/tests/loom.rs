//! Every interleaving of small programs over a whole ring. Run with `cargo xtask loom`.
//!
//! The threads that race are the spawned ones, and each model counts, outside the model, that the branch it is about
//! was taken: a model that never gets there would pass with any bug.
#![cfg(loom)]

#[path = "../../ring-state/tests/model/mod.rs"]
mod model;

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::Arc;

use buffer_ring::model::ModelDevice;
use buffer_ring::{AppendError, BufferRing, BufferRingOptions, Extent, ReadError, RingError};

use loom::thread;
use model::{Bound, hit, model};

/// An extent, and the byte that it was filled with.
type Appended = (Extent, u8);

fn append(ring: &BufferRing, len: usize, mark: u8) -> Appended {
    (ring.append(&vec![mark; len]).expect("the ring takes it"), mark)
}

/// Closes the ring, and checks that the device has each byte once, where its extent says.
fn check(ring: Arc<BufferRing>, device: &ModelDevice, appended: &[Appended]) {
    let ring = Arc::into_inner(ring).expect("all threads are gone");
    let end = ring.close().expect("nothing failed");
    let mut written = device.written();
    written.sort_unstable_by_key(|(at, _)| *at);
    let mut file = Vec::new();
    for (at, bytes) in written {
        assert_eq!(at, file.len() as u64, "a hole, or written twice");
        file.extend(bytes);
    }
    assert_eq!(end, file.len() as u64);
    assert_eq!(device.synced_up_to(), end);
    let mut expected = vec![0; file.len()];
    for (extent, mark) in appended {
        for byte in &mut expected[extent.start() as usize..extent.end() as usize] {
            assert_eq!(*byte, 0, "{extent:?} overlaps another one");
            *byte = *mark;
        }
    }
    assert!(file == expected, "the file is not what was appended");
}

/// A ring without a device: buffers are recycled as soon as the last writer has left.
fn recycling(capacity: usize) -> Arc<BufferRing> {
    let options = BufferRingOptions { capacity, buffer_size: 4096, ..Default::default() };
    Arc::new(BufferRing::with_options(options))
}

/// The smallest ring: one buffer, without a device, that opens again in place when it is flushed.
fn in_place() -> Arc<BufferRing> {
    let options = BufferRingOptions { capacity: 1, buffer_size: 4096, auto_rotate: false, ..Default::default() };
    Arc::new(BufferRing::with_options(options))
}

/// Runs `body` in a thread that has the ring.
fn spawn<T: 'static>(ring: &Arc<BufferRing>, body: impl FnOnce(&BufferRing) -> T + 'static) -> thread::JoinHandle<T> {
    let ring = Arc::clone(ring);
    thread::spawn(move || body(&ring))
}

/// No two extents overlap, each begins where the one before ends or at the next block, and the log ends there.
fn check_log(ring: &BufferRing, mut appended: Vec<Appended>) {
    appended.sort_unstable();
    let end = appended.iter().fold(0, |end: u64, (extent, _)| {
        let next_block = end.next_multiple_of(4096);
        assert!(extent.start() == end || extent.start() == next_block, "{extent:?} after {end}");
        extent.end()
    });
    let tail = ring.tail();
    assert!(tail == end || tail == end.next_multiple_of(4096), "tail {tail} after {end}");
}

/// The durable watermark, which must be true at any moment.
fn durable(ring: &BufferRing, device: &ModelDevice) -> u64 {
    let durable = ring.durable_watermark();
    assert!(durable <= device.synced_up_to(), "durable up to {durable}, synced up to {}", device.synced_up_to());
    durable
}

// Ranges, sealers, flushes.

#[test]
fn exact_appends_fill_buffers_that_go_out_once() {
    static BETWEEN: Count = Count::new(0);
    model("exact_appends_fill_buffers_that_go_out_once", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let other = spawn(&ring, |ring| [append(ring, 2048, 1), append(ring, 2048, 2)]);
        let mine = [append(&ring, 2048, 3), append(&ring, 2048, 4)];
        let theirs = other.join().unwrap();
        if theirs[0].0 < mine[1].0 && mine[0].0 < theirs[1].0 {
            hit(&BETWEEN);
        }
        check(ring, &device, &[mine, theirs].concat());
    });
    assert!(BETWEEN.load(Relaxed) > 0);
}

#[test]
fn optimistic_appends_fill_buffers_that_go_out_once() {
    static CROSSED: [Count; 2] = [const { Count::new(0) }; 2];
    model("optimistic_appends_fill_buffers_that_go_out_once", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let first = append(&ring, 3584, 1);
        let other = spawn(&ring, |ring| append(ring, 512, 2));
        let mine = [append(&ring, 512, 3), append(&ring, 512, 4)];
        let theirs = other.join().unwrap();
        hit(&CROSSED[usize::from(theirs.0.start() == 4096)]);
        check(ring, &device, &[first, mine[0], mine[1], theirs]);
    });
    assert!(CROSSED.iter().all(|crossed| crossed.load(Relaxed) > 0));
}

#[test]
fn two_threads_wrap_round() {
    static ALTERNATING: Count = Count::new(0);
    model("two_threads_wrap_round", Bound::Preemptions(3), || {
        let ring = recycling(2);
        let other = spawn(&ring, |ring| [append(ring, 4096, 1), append(ring, 4096, 2)]);
        let mine = append(&ring, 4096, 3);
        let theirs = other.join().unwrap();
        if theirs[0].0 < mine.0 && mine.0 < theirs[1].0 {
            hit(&ALTERNATING);
        }
        check_log(&ring, vec![mine, theirs[0], theirs[1]]);
    });
    assert!(ALTERNATING.load(Relaxed) > 0);
}

#[test]
fn a_flush_on_request_and_a_full_buffer_have_one_sealer() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("a_flush_on_request_and_a_full_buffer_have_one_sealer", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let first = append(&ring, 2048, 1);
        let other = spawn(&ring, |ring| [append(ring, 2048, 2), append(ring, 2048, 3)]);
        let current = ring.current_buffer(Acquire);
        assert_eq!(ring.flush(&current).wait(), Ok(()));
        assert!(current.is_sealed() && current.is_written());
        let theirs = other.join().unwrap();
        hit(if theirs[0].0.start() == 2048 { &AFTER } else { &BEFORE });
        check(ring, &device, &[first, theirs[0], theirs[1]]);
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

#[test]
fn an_aborted_reservation_becomes_zeros() {
    static SEALED_UNDER_IT: Count = Count::new(0);
    model("an_aborted_reservation_becomes_zeros", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let first = append(&ring, 512, 1);
        let other = spawn(&ring, |ring| {
            let current = ring.current_buffer(Acquire);
            let mut reservation = ring.reserve(512).expect("there is room");
            reservation.fill(7);
            if current.generation() == 1 && reservation.extent().start() == 512 && current.is_sealed() {
                hit(&SEALED_UNDER_IT);
            }
        });
        ring.flush(&ring.current_buffer(Acquire));
        other.join().unwrap();
        check(ring, &device, &[first]);
    });
    assert!(SEALED_UNDER_IT.load(Relaxed) > 0);
}

// Rotation.

/// An addition that comes so late that the slot is free already keeps it from opening; the thread that undoes it
/// rotates.
#[test]
fn a_late_arrival_does_not_lose_the_rotation() {
    static IN_THE_WAY: Count = Count::new(0);
    model("a_late_arrival_does_not_lose_the_rotation", Bound::Preemptions(3), || {
        let ring = in_place();
        append(&ring, 512, 1);
        let late = spawn(&ring, |ring| ring.append(&[2; 512]).is_ok());
        ring.flush(&ring.current_buffer(Acquire));
        if ring.current_buffer(Acquire).is_sealed() {
            hit(&IN_THE_WAY);
        }
        late.join().unwrap();
        append(&ring, 512, 3);
        assert_eq!(ring.flush(&ring.current_buffer(Acquire)).wait(), Ok(()));
        assert_eq!(ring.written_watermark(), ring.tail());
    });
    assert!(IN_THE_WAY.load(Relaxed) > 0);
}

/// A thread with an old idea of the current buffer reserves in its next generation, fills it and seals it, before it is
/// published.
#[test]
fn a_generation_can_end_before_its_opener_has_published_it() {
    static IN_THE_NEXT: Count = Count::new(0);
    model("a_generation_can_end_before_its_opener_has_published_it", Bound::Preemptions(3), || {
        let ring = in_place();
        append(&ring, 512, 1);
        let late = spawn(&ring, |ring| {
            let start = ring.append(&[2; 512]).map(|extent| extent.start());
            (start, ring.append(&[3; 4096]).is_err())
        });
        ring.flush(&ring.current_buffer(Acquire));
        if late.join().unwrap() == (Ok(4096), true) {
            hit(&IN_THE_NEXT);
        }
        // Whatever happened, the ring goes on.
        ring.flush(&ring.current_buffer(Acquire));
        append(&ring, 512, 4);
        assert_eq!(ring.flush(&ring.current_buffer(Acquire)).wait(), Ok(()));
        assert_eq!(ring.written_watermark(), ring.tail());
    });
    assert!(IN_THE_NEXT.load(Relaxed) > 0);
}

/// The same from the append's side: its next look finds the generation that it is in, so that its own sync covers it.
#[test]
fn an_append_is_covered_by_its_own_sync() {
    static IN_THE_NEXT: Count = Count::new(0);
    model("an_append_is_covered_by_its_own_sync", Bound::Preemptions(3), || {
        let ring = Arc::new(ModelDevice::instant().ring(1, true, false));
        append(&ring, 512, 1);
        let late = spawn(&ring, |ring| {
            if let Ok(extent) = ring.append(&[2; 512]) {
                if extent.start() == 4096 {
                    hit(&IN_THE_NEXT);
                }
                assert!(ring.sync().expect("nothing failed") >= extent.end());
            }
        });
        ring.flush(&ring.current_buffer(Acquire));
        late.join().unwrap();
    });
    assert!(IN_THE_NEXT.load(Relaxed) > 0);
}

#[test]
fn a_stale_handle_leaves_the_next_generation_alone() {
    static NEXT: Count = Count::new(0);
    model("a_stale_handle_leaves_the_next_generation_alone", Bound::Preemptions(3), || {
        let ring = in_place();
        append(&ring, 512, 1);
        let first = ring.current_buffer(Acquire);
        let other = {
            let first = first.clone();
            spawn(&ring, move |ring| drop(ring.flush(&first)))
        };
        ring.flush(&first);
        if ring.append(&[2; 512]).is_ok_and(|extent| extent.start() == 4096) {
            hit(&NEXT);
            other.join().unwrap();
            let second = ring.current_buffer(Acquire);
            assert!(second.generation() == 2 && !second.is_sealed());
        } else {
            other.join().unwrap();
        }
    });
    assert!(NEXT.load(Relaxed) > 0);
}

#[test]
fn a_handle_that_was_sealed_stays_sealed() {
    static SEALED: Count = Count::new(0);
    model("a_handle_that_was_sealed_stays_sealed", Bound::None, || {
        let ring = in_place();
        append(&ring, 512, 1);
        let first = ring.current_buffer(Acquire);
        let looker = {
            let first = first.clone();
            thread::spawn(move || {
                if first.is_sealed() {
                    hit(&SEALED);
                    assert!(first.is_sealed());
                }
            })
        };
        ring.flush(&first);
        looker.join().unwrap();
        assert!(first.is_sealed());
    });
    assert!(SEALED.load(Relaxed) > 0);
}

/// Not only its completion does, which may wait for a thread to ask for the flush.
#[test]
fn a_sealer_opens_the_next_buffer() {
    static SECOND: [Count; 2] = [const { Count::new(0) }; 2];
    model("a_sealer_opens_the_next_buffer", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(3, false, true));
        let first = append(&ring, 4096, 1);
        let other = spawn(&ring, |ring| append(ring, 4096, 2));
        let mine = append(&ring, 4096, 3);
        let theirs = other.join().unwrap();
        // Either may seal the first buffer and get the second.
        hit(&SECOND[usize::from(mine.0.start() == 4096)]);
        assert!(device.written().is_empty());
        check(ring, &device, &[first, mine, theirs]);
    });
    assert!(SECOND.iter().all(|count| count.load(Relaxed) > 0));
}

/// Readers keep a slot from its next generation, and the last of them sees to the rotation.
#[test]
fn a_reader_never_meets_the_next_generation() {
    static READ: Count = Count::new(0);
    static GONE: Count = Count::new(0);
    static IN_THE_WAY: Count = Count::new(0);
    model("a_reader_never_meets_the_next_generation", Bound::Preemptions(3), || {
        let ring = in_place();
        let (extent, _) = append(&ring, 512, 1);
        let reader = spawn(&ring, move |ring| {
            let mut bytes = [0; 512];
            match ring.read(extent, &mut bytes) {
                Ok(512) => {
                    hit(&READ);
                    assert_eq!(bytes, [1; 512]);
                }
                Err(ReadError::Gone(0)) => hit(&GONE),
                other => panic!("{other:?}"),
            }
        });
        ring.flush(&ring.current_buffer(Acquire));
        if ring.append(&[2; 512]).is_err() {
            hit(&IN_THE_WAY);
        }
        reader.join().unwrap();
        append(&ring, 512, 3);
    });
    assert!(READ.load(Relaxed) > 0 && GONE.load(Relaxed) > 0 && IN_THE_WAY.load(Relaxed) > 0);
}

// Waiting.

#[test]
fn a_full_ring_lets_its_waiter_go_on() {
    static WAITED: Count = Count::new(0);
    model("a_full_ring_lets_its_waiter_go_on", Bound::None, || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(2, true, true));
        let first = [append(&ring, 4096, 1), append(&ring, 4096, 2)];
        let waiter = spawn(&ring, |ring| append(ring, 4096, 3));
        let completer = {
            let device = device.clone();
            thread::spawn(move || assert!(device.complete(0)))
        };
        let last = waiter.join().unwrap();
        completer.join().unwrap();
        if ring.stats().full_waits > 0 {
            hit(&WAITED);
        }
        device.complete_from_now_on();
        check(ring, &device, &[first[0], first[1], last]);
    });
    assert!(WAITED.load(Relaxed) > 0);
}

/// Two threads wait for room; one of them drives, and hands the role on when it leaves.
#[test]
fn the_driver_hands_its_claim_on() {
    static WRITTEN: [Count; 2] = [const { Count::new(0) }; 2];
    model("the_driver_hands_its_claim_on", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(2, true, true));
        let (extent, _) = append(&ring, 512, 1);
        let ticket = ring.flush(&ring.current_buffer(Acquire));
        let waiter = thread::spawn(move || ticket.wait());
        assert!(device.complete(0));
        // By the other one, or not yet: then there are two who may drive.
        hit(&WRITTEN[usize::from(ring.written_watermark() == 0)]);
        assert_eq!(ring.wait_durable(extent.end()), Ok(()));
        assert_eq!(waiter.join().unwrap(), Ok(()));
        assert_eq!(durable(&ring, &device), 4096);
    });
    assert!(WRITTEN.iter().all(|count| count.load(Relaxed) > 0));
}

/// An append that comes while a thread waits for an address beyond it: both end.
#[test]
fn a_waiter_is_not_left_alone_with_an_append_that_comes_late() {
    static TOO_EARLY: Count = Count::new(0);
    static DURABLE: Count = Count::new(0);
    let name = "a_waiter_is_not_left_alone_with_an_append_that_comes_late";
    wait_for_what_is_not_appended(name, true, &TOO_EARLY, &DURABLE);
}

/// The same where nothing is flushed by itself.
#[test]
fn a_waiter_asks_for_the_flush_of_an_append_that_comes_late() {
    static TOO_EARLY: Count = Count::new(0);
    static DURABLE: Count = Count::new(0);
    let name = "a_waiter_asks_for_the_flush_of_an_append_that_comes_late";
    wait_for_what_is_not_appended(name, false, &TOO_EARLY, &DURABLE);
}

fn wait_for_what_is_not_appended(name: &str, auto_flush: bool, too_early: &'static Count, durable: &'static Count) {
    model(name, Bound::Preemptions(3), move || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, auto_flush, true));
        let waiter = spawn(&ring, |ring| ring.wait_durable(512));
        append(&ring, 512, 1);
        match waiter.join().unwrap() {
            Ok(()) => hit(durable),
            Err(RingError::NotAppended { address: 512, tail: 0 }) => hit(too_early),
            Err(error) => panic!("{error}"),
        }
    });
    assert!(too_early.load(Relaxed) > 0 && durable.load(Relaxed) > 0);
}

// Durability.

#[test]
fn watermarks_never_pass_a_hole() {
    static OUT_OF_ORDER: Count = Count::new(0);
    model("watermarks_never_pass_a_hole", Bound::None, || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(3, true, true));
        append(&ring, 4096, 1);
        append(&ring, 4096, 2);
        let second = ring.flush(&ring.current_buffer(Acquire));
        let waiter = {
            let second = second.clone();
            thread::spawn(move || second.wait())
        };
        assert!(device.complete(1));
        if second.is_done() {
            hit(&OUT_OF_ORDER);
        }
        assert_eq!(ring.written_watermark(), 0);
        assert!(device.complete(0));
        assert_eq!(waiter.join().unwrap(), Ok(()));
        let written = ring.written_watermark();
        assert!(written == 0 || written == 8192, "{written}");
        assert_eq!(ring.sync(), Ok(8192));
        assert_eq!(durable(&ring, &device), 8192);
    });
    assert!(OUT_OF_ORDER.load(Relaxed) > 0);
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    static COVERED_ONE: Count = Count::new(0);
    model("a_sync_covers_only_what_was_written_before_it_began", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(3, true, true));
        append(&ring, 4096, 1);
        append(&ring, 4096, 2);
        let second = ring.flush(&ring.current_buffer(Acquire));
        assert!(device.complete(0));
        let syncer = {
            let device = device.clone();
            spawn(&ring, move |ring| {
                assert_eq!(ring.wait_durable(4096), Ok(()));
                if durable(ring, &device) == 4096 {
                    hit(&COVERED_ONE);
                }
            })
        };
        assert!(device.complete(0));
        assert_eq!(second.wait(), Ok(()));
        durable(&ring, &device);
        syncer.join().unwrap();
        durable(&ring, &device);
    });
    assert!(COVERED_ONE.load(Relaxed) > 0);
}

#[test]
fn a_device_error_reaches_a_thread_that_waits_for_room() {
    static WAITED: Count = Count::new(0);
    model("a_device_error_reaches_a_thread_that_waits_for_room", Bound::None, || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(2, true, true));
        append(&ring, 4096, 1);
        append(&ring, 4096, 2);
        let waiter = spawn(&ring, |ring| ring.append(&[3; 4096]));
        device.break_down();
        assert!(device.complete(0));
        assert!(matches!(waiter.join().unwrap(), Err(AppendError::Poisoned(_))));
        if ring.stats().full_waits > 0 {
            hit(&WAITED);
        }
        device.complete_from_now_on();
        assert!(ring.poisoned().is_some() && ring.durable_watermark() == 0);
        assert!(matches!(ring.append(&[4; 512]), Err(AppendError::Poisoned(_))));
    });
    assert!(WAITED.load(Relaxed) > 0);
}

#[test]
fn a_device_error_reaches_a_thread_that_waits_for_durability() {
    static BY_THE_OTHER: Count = Count::new(0);
    static BY_THIS: Count = Count::new(0);
    model("a_device_error_reaches_a_thread_that_waits_for_durability", Bound::None, || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(2, true, true));
        let (extent, _) = append(&ring, 4096, 1);
        let ticket = ring.flush(&ring.current_buffer(Acquire));
        let waiter = spawn(&ring, move |ring| ring.wait_durable(extent.end()));
        device.break_down();
        assert!(device.complete(0));
        hit(if ring.poisoned().is_some() { &BY_THE_OTHER } else { &BY_THIS });
        assert!(ticket.wait().is_err());
        assert!(waiter.join().unwrap().is_err());
        assert_eq!(ring.durable_watermark(), 0);
    });
    assert!(BY_THE_OTHER.load(Relaxed) > 0 && BY_THIS.load(Relaxed) > 0);
}

/// The writes succeed, the sync does not: nothing is durable, for no thread, also when later syncs would succeed.
#[test]
fn a_failed_sync_is_never_made_good() {
    static KNOWN: Count = Count::new(0);
    static UNKNOWN: Count = Count::new(0);
    model("a_failed_sync_is_never_made_good", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let (extent, _) = append(&ring, 512, 1);
        assert!(ring.flush(&ring.current_buffer(Acquire)).is_done());
        device.break_syncs();
        let other = spawn(&ring, move |ring| {
            hit(if ring.poisoned().is_some() { &KNOWN } else { &UNKNOWN });
            ring.wait_durable(extent.end())
        });
        let mine = ring.wait_durable(extent.end());
        // As a file system does that has reported of an error once.
        device.mend();
        let theirs = other.join().unwrap();
        assert!(mine.is_err() && mine == theirs, "{mine:?} and {theirs:?}");
        assert_eq!((ring.written_watermark(), ring.durable_watermark()), (4096, 0));
        assert!(ring.sync().is_err() && ring.append(&[2; 512]).is_err());
        assert_eq!(ring.durable_watermark(), 0);
    });
    assert!(KNOWN.load(Relaxed) > 0 && UNKNOWN.load(Relaxed) > 0);
}

/// A completion beside the closing: closing waits for it, and what it reports is what is on stable storage.
#[test]
fn closing_waits_for_what_is_in_flight() {
    static IN_FLIGHT: Count = Count::new(0);
    static COMPLETED: Count = Count::new(0);
    model("closing_waits_for_what_is_in_flight", Bound::None, || {
        let device = ModelDevice::held();
        let ring = Arc::new(device.ring(3, true, true));
        let appended = [append(&ring, 4096, 1), append(&ring, 4096, 2)];
        ring.flush(&ring.current_buffer(Acquire));
        let completer = {
            let device = device.clone();
            thread::spawn(move || {
                // In the wrong order.
                assert!(device.complete(1));
                hit(if device.complete(0) { &IN_FLIGHT } else { &COMPLETED });
            })
        };
        check(ring, &device, &appended);
        completer.join().unwrap();
    });
    assert!(IN_FLIGHT.load(Relaxed) > 0 && COMPLETED.load(Relaxed) == 0);
}

#[test]
fn a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight() {
    static IN_FLIGHT: Count = Count::new(0);
    static WRITTEN: Count = Count::new(0);
    model("a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = device.ring(2, true, true);
        append(&ring, 4096, 1);
        let ticket = ring.flush(&ring.current_buffer(Acquire));
        let waiter = thread::spawn(move || ticket.wait());
        let completer = {
            let device = device.clone();
            thread::spawn(move || assert!(device.complete(0)))
        };
        hit(if device.written().is_empty() { &IN_FLIGHT } else { &WRITTEN });
        drop(ring);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        completer.join().unwrap();
        assert_eq!(device.written().len(), 1);
    });
    assert!(IN_FLIGHT.load(Relaxed) > 0 && WRITTEN.load(Relaxed) > 0);
}

// Manual flushing.

#[test]
fn a_deferred_flush_goes_out_once_when_it_is_requested() {
    static ASKED_FIRST: Count = Count::new(0);
    model("a_deferred_flush_goes_out_once_when_it_is_requested", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, false, true));
        let first = append(&ring, 2048, 1);
        let other = spawn(&ring, |ring| append(ring, 4096, 2));
        let current = ring.current_buffer(Acquire);
        let ticket = ring.flush(&current);
        if !ticket.is_done() {
            hit(&ASKED_FIRST);
        }
        assert_eq!(ticket.wait(), Ok(()));
        let theirs = other.join().unwrap();
        check(ring, &device, &[first, theirs]);
    });
    assert!(ASKED_FIRST.load(Relaxed) > 0);
}

/// An append that waits for room gives up as soon as the next buffer waits for a flush that no thread has asked for.
#[test]
fn a_deferred_flush_wakes_a_thread_that_waits_for_room() {
    static FULL: Count = Count::new(0);
    model("a_deferred_flush_wakes_a_thread_that_waits_for_room", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, false, true));
        append(&ring, 512, 1);
        let other = spawn(&ring, |ring| ring.append(&[2; 4096]).is_err());
        let mine = ring.append(&[3; 4096]).is_err() || ring.append(&[4; 512]).is_err();
        if other.join().unwrap() || mine {
            hit(&FULL);
        }
    });
    assert!(FULL.load(Relaxed) > 0);
}

/// An append that began before is durable when the ring is closed, or was refused, wherever it was delayed.
#[test]
fn an_append_beside_close_is_durable_or_refused() {
    static APPENDED: Count = Count::new(0);
    static REFUSED: Count = Count::new(0);
    static BETWEEN: Count = Count::new(0);
    model("an_append_beside_close_is_durable_or_refused", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = Arc::new(device.ring(2, true, true));
        let appender = spawn(&ring, |ring| [ring.append(&[1; 512]), ring.append(&[2; 512])]);
        let end = ring.close().expect("nothing failed");
        assert_eq!(device.synced_up_to(), end);
        let written: usize = device.written().iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(written as u64, end);
        assert_eq!(ring.append(&[3; 512]), Err(AppendError::Closed));
        let appended = appender.join().unwrap();
        for outcome in &appended {
            match outcome {
                Ok(extent) => assert!(extent.end() <= end, "{extent:?} beyond {end}"),
                Err(error) => assert_eq!(*error, AppendError::Closed),
            }
        }
        match appended {
            [Ok(_), Ok(_)] => hit(&APPENDED),
            [Ok(_), Err(_)] => hit(&BETWEEN),
            [Err(_), second] => {
                hit(&REFUSED);
                assert!(second.is_err(), "refused, and then taken");
            }
        }
        assert_eq!(ring.close(), Ok(end));
    });
    assert!([&APPENDED, &BETWEEN, &REFUSED].iter().all(|count| count.load(Relaxed) > 0));
}
