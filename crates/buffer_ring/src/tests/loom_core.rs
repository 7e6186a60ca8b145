//! What the parts do for each other: tail, failure, and which thread wakes which. Mostly on a ring without a device,
//! where a buffer is written as soon as its last writer has left.

use super::*;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::staging::layout::Layout;
use crate::sync::model_device::ModelDevice;
use crate::{CommitPolicy, RingError};

fn recycling(capacity: usize, auto_rotate: bool) -> Arc<Core> {
    let arena = Arc::new(Arena::new(capacity, BUFFER).expect("a valid arena"));
    Arc::new(Core::new(&arena, Layout::plain(&arena), true, auto_rotate, CommitPolicy::default(), 0, None))
}

fn append(core: &Core, len: usize) -> u64 {
    core.append(&vec![1; len], Patience::ForRoom).expect("there is room").start()
}

fn spawn<T: 'static>(core: &Arc<Core>, body: impl FnOnce(&Core) -> T + 'static) -> thread::JoinHandle<T> {
    let core = Arc::clone(core);
    thread::spawn(move || body(&core))
}

/// The tail is put together from a word, a base and the next base: of one generation, whatever happens between the
/// looks.
#[test]
fn a_tail_is_of_one_generation() {
    static SEEN: [Count; 3] = [const { Count::new(0) }; 3];
    model("a_tail_is_of_one_generation", Bound::Preemptions(4), || {
        let core = recycling(1, false);
        append(&core, 512);
        let sealer = spawn(&core, |core| core.seal(BufferId::new(1, 0)));
        let mut last = 512;
        for _ in 0..2 {
            let tail = core.tail();
            assert!([512, 4096].contains(&tail) && tail >= last, "{tail} after {last}");
            last = tail;
            hit(&SEEN
                [usize::from(tail == 4096) + usize::from(tail == 4096 && core.staging.current().generation() == 2)]);
        }
        sealer.join().unwrap();
        assert_eq!(core.tail(), 4096);
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed) > 0), "{SEEN:?}");
}

#[test]
fn a_thread_that_sees_a_buffer_written_sees_the_watermark() {
    static WRITTEN: Count = Count::new(0);
    model("a_thread_that_sees_a_buffer_written_sees_the_watermark", Bound::None, || {
        let core = recycling(1, false);
        append(&core, 512);
        let sealer = spawn(&core, |core| core.seal(BufferId::new(1, 0)));
        if core.staging.slots()[0].has_completed(1) {
            hit(&WRITTEN);
            assert_eq!(core.writeback.written(), 4096);
        }
        sealer.join().unwrap();
    });
    assert!(WRITTEN.load(Relaxed) > 0);
}

#[test]
fn the_durable_watermark_is_never_ahead_of_the_written_one() {
    static DURABLE: Count = Count::new(0);
    model("the_durable_watermark_is_never_ahead_of_the_written_one", Bound::None, || {
        let core = recycling(1, false);
        append(&core, 512);
        let sealer = spawn(&core, |core| core.record(1, BUFFER as u64, true));
        let durable = core.writeback.durable();
        assert!(durable <= core.writeback.written());
        if durable > 0 {
            hit(&DURABLE);
        }
        sealer.join().unwrap();
    });
    assert!(DURABLE.load(Relaxed) > 0);
}

#[test]
fn a_thread_that_sees_the_ring_closed_sees_what_was_written_before() {
    static CLOSED: Count = Count::new(0);
    model("a_thread_that_sees_the_ring_closed_sees_what_was_written_before", Bound::None, || {
        let core = recycling(1, false);
        append(&core, 512);
        let closer = spawn(&core, |core| {
            core.seal(BufferId::new(1, 0));
            core.writeback.close();
        });
        if core.writeback.is_closed() {
            hit(&CLOSED);
            assert!(core.staging.slots()[0].has_completed(1));
        }
        closer.join().unwrap();
    });
    assert!(CLOSED.load(Relaxed) > 0);
}

/// The reader in the way of the rotation is the only one to wake the thread that waits for it.
#[test]
fn an_opener_wakes_a_thread_that_waits_for_room() {
    static WAITED: Count = Count::new(0);
    model("an_opener_wakes_a_thread_that_waits_for_room", Bound::None, || {
        let core = recycling(2, true);
        append(&core, BUFFER);
        assert!(core.staging.slots()[1].latch.try_acquire());
        let waiter = spawn(&core, |core| append(core, 512));
        let was_last = core.staging.slots()[1].latch.release();
        if was_last {
            core.advance();
        }
        assert_eq!(waiter.join().unwrap(), 4096);
        if core.stats().full_waits > 0 {
            hit(&WAITED);
        }
    });
    assert!(WAITED.load(Relaxed) > 0);
}

/// There is room for both.
#[test]
fn all_that_wait_for_room_go_on() {
    static BOTH_WAITED: Count = Count::new(0);
    model("all_that_wait_for_room_go_on", Bound::Preemptions(3), || {
        let core = recycling(2, true);
        append(&core, BUFFER);
        assert!(core.staging.slots()[1].latch.try_acquire());
        core.seal(BufferId::new(1, 0));
        let waiters = [(); 2].map(|()| spawn(&core, |core| append(core, 512)));
        assert!(core.staging.slots()[1].latch.release());
        core.advance();
        let mut starts = waiters.map(|waiter| waiter.join().unwrap());
        starts.sort_unstable();
        assert_eq!(starts, [4096, 4608]);
        if core.stats().full_waits == 2 {
            hit(&BOTH_WAITED);
        }
    });
    assert!(BOTH_WAITED.load(Relaxed) > 0);
}

#[test]
fn a_completion_wakes_a_thread_that_waits_for_it() {
    static WAITED: Count = Count::new(0);
    model("a_completion_wakes_a_thread_that_waits_for_it", Bound::None, || {
        // The next buffer is open by then: no thread rotates.
        let core = recycling(2, true);
        let reservation = core.reserve(512, Patience::ForRoom).expect("there is room");
        let waiter = spawn(&core, |core| {
            core.seal(BufferId::new(1, 0));
            let mut looks = 0;
            let written = || {
                looks += 1;
                core.outcome(|| core.staging.slots()[0].has_completed(1))
            };
            assert_eq!(core.wait_until(None, written), Ok(Ok(())));
            if looks > 1 {
                hit(&WAITED);
            }
        });
        reservation.commit();
        waiter.join().unwrap();
    });
    assert!(WAITED.load(Relaxed) > 0);
}

/// Waits for what never comes, until the ring is closed. A hit if the thread had to wait for that.
fn wait_in_vain(core: &Core, waited: &Count) {
    let mut looks = 0;
    let never = || {
        looks += 1;
        core.outcome(|| false)
    };
    assert_eq!(core.wait_until(None, never), Ok(Err(RingError::Closed)));
    if looks > 2 {
        hit(waited);
    }
}

#[test]
fn a_failure_wakes_a_thread_that_waits() {
    static WAITED: Count = Count::new(0);
    model("a_failure_wakes_a_thread_that_waits", Bound::None, || {
        let core = recycling(1, false);
        let waiter = spawn(&core, |core| wait_in_vain(core, &WAITED));
        core.poison(RingError::Closed);
        waiter.join().unwrap();
    });
    assert!(WAITED.load(Relaxed) > 0);
}

/// A driver sleeps at the device, where nothing happens any more.
#[test]
fn a_failure_fetches_the_driver_from_the_device() {
    static IN_FLIGHT: Count = Count::new(0);
    model("a_failure_fetches_the_driver_from_the_device", Bound::None, || {
        let device = ModelDevice::held();
        let ring = device.ring(1, true, false);
        let core = Arc::clone(&ring.core);
        append(&core, BUFFER);
        core.seal(BufferId::new(1, 0));
        assert_eq!(core.writeback.in_flight(), 1);
        let waiter = spawn(&core, |core| wait_in_vain(core, &IN_FLIGHT));
        core.poison(RingError::Closed);
        waiter.join().unwrap();
        device.complete_from_now_on();
    });
    assert!(IN_FLIGHT.load(Relaxed) > 0);
}

/// Without a device there is no thread to fail, but the rule is the same: what is full after the failure stays as it
/// is, to be read.
#[test]
fn after_a_failure_no_buffer_is_used_again() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("after_a_failure_no_buffer_is_used_again", Bound::None, || {
        let core = recycling(1, false);
        append(&core, 512);
        let sealer = spawn(&core, |core| core.seal(BufferId::new(1, 0)));
        core.poison(RingError::Closed);
        let failed = core.append(&[2; 512], Patience::ForRoom);
        assert_eq!(failed, Err(crate::AppendError::Poisoned(RingError::Closed)));
        sealer.join().unwrap();
        let slot = &core.staging.slots()[0];
        if slot.has_completed(1) {
            hit(&BEFORE);
        } else {
            hit(&AFTER);
            assert!(slot.snapshot().is_flushing() && core.writeback.written() == 0);
            assert_eq!(core.staging.current().generation(), 1);
        }
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

#[test]
fn a_thread_that_sees_the_ring_poisoned_sees_by_what() {
    static POISONED: Count = Count::new(0);
    model("a_thread_that_sees_the_ring_poisoned_sees_by_what", Bound::None, || {
        let core = recycling(1, false);
        let poisoner = spawn(&core, |core| core.poison(RingError::Closed));
        if let Some(error) = core.poisoned() {
            hit(&POISONED);
            assert_eq!(error, RingError::Closed);
        }
        poisoner.join().unwrap();
    });
    assert!(POISONED.load(Relaxed) > 0);
}

/// A visitor can be inside a free slot, because a late arrival makes it look like one that has bytes. The thread that
/// of the two leaves last sees to the rotation.
#[test]
fn a_visitor_does_not_lose_the_rotation() {
    static IN_TIME: Count = Count::new(0);
    static LATE: Count = Count::new(0);
    model("a_visitor_does_not_lose_the_rotation", Bound::Preemptions(3), || {
        let core = recycling(1, false);
        append(&core, 512);
        let late = spawn(&core, |core| {
            // In the generation that is being sealed, or not.
            let start = core.append(&[1; 512], Patience::Never).map(|extent| extent.start());
            hit(if start == Ok(512) { &IN_TIME } else { &LATE });
        });
        core.seal(BufferId::new(1, 0));
        core.seal(BufferId::new(1, 0));
        late.join().unwrap();
        assert!(core.staging.current().generation() == 2, "the next generation was not opened");
    });
    assert!(IN_TIME.load(Relaxed) > 0 && LATE.load(Relaxed) > 0);
}

/// The second generation's buffer is the second slot: what a late arrival owes there is a flush of that one.
#[test]
fn a_late_arrival_pays_where_it_was_late() {
    static LATE_AND_LAST: Count = Count::new(0);
    model("a_late_arrival_pays_where_it_was_late", Bound::Preemptions(3), || {
        let core = recycling(2, true);
        append(&core, BUFFER);
        append(&core, 512);
        assert_eq!(core.staging.current(), BufferId::new(2, 1));
        let late = spawn(&core, |core| append(core, 512));
        core.seal(BufferId::new(2, 1));
        let was_last = core.staging.slots()[1].has_completed(2);
        if late.join().unwrap() == 8192 && !was_last {
            hit(&LATE_AND_LAST);
        }
        assert!(core.staging.slots()[1].has_completed(2), "the flush is lost");
        assert_eq!(core.writeback.written(), 8192);
    });
    assert!(LATE_AND_LAST.load(Relaxed) > 0);
}

/// A reader comes to the next slot, so that it cannot be opened after all; meanwhile the current one may have become
/// free, with the token in the hands of the thread that rotates.
#[test]
fn a_rotation_that_is_given_up_leaves_the_buffer_to_be_opened_in_place() {
    static GIVEN_UP: [Count; 2] = [const { Count::new(0) }; 2];
    let name = "a_rotation_that_is_given_up_leaves_the_buffer_to_be_opened_in_place";
    model(name, Bound::Preemptions(3), || {
        let core = recycling(2, false);
        let reservation = core.reserve(512, Patience::ForRoom).expect("there is room");
        let rotator = spawn(&core, Core::rotate);
        let reader = spawn(&core, |core| core.staging.slots()[1].latch.try_acquire());
        reservation.commit();
        let outcome = rotator.join().unwrap();
        _ = reader.join().unwrap();
        let opened = core.staging.current().generation() == 2;
        assert_eq!(core.staging.slots()[0].has_completed(1), opened, "the next generation was not opened");
        if outcome.is_err() {
            hit(&GIVEN_UP[usize::from(opened)]);
        }
    });
    assert!(GIVEN_UP.iter().all(|count| count.load(Relaxed) > 0), "{GIVEN_UP:?}");
}
