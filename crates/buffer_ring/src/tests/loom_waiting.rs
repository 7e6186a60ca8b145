//! Sleeping, and driving the device on behalf of those that sleep: no wake-up is lost, and no thread sleeps at the
//! device for an answer that is there.

use super::*;
use crate::commit::eventcount::EventCount;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::sync::model_device::ModelDevice;
use crate::sync::{AtomicBool, Ordering};
use crate::{BufferRing, RingError};

#[test]
fn a_sleeper_sees_the_change_or_is_woken() {
    static SEEN: Count = Count::new(0);
    static SLEPT: Count = Count::new(0);
    model("a_sleeper_sees_the_change_or_is_woken", Bound::None, || {
        let parts = Arc::new((EventCount::new(), AtomicBool::new(false)));
        let sleeper = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (changes, change) = &*parts;
                while !change.load(Ordering::Relaxed) {
                    let mut seen = false;
                    let look = || {
                        seen = change.load(Ordering::Relaxed);
                        seen
                    };
                    assert!(changes.wait_unless(look, None).is_ok());
                    hit(if seen { &SEEN } else { &SLEPT });
                }
            })
        };
        let (changes, change) = &*parts;
        change.store(true, Ordering::Relaxed);
        changes.notify();
        sleeper.join().unwrap();
    });
    assert!(SEEN.load(Relaxed) > 0 && SLEPT.load(Relaxed) > 0);
}

#[test]
fn a_change_wakes_all_that_sleep() {
    static BOTH_SLEPT: Count = Count::new(0);
    model("a_change_wakes_all_that_sleep", Bound::None, || {
        let parts = Arc::new((EventCount::new(), AtomicBool::new(false)));
        let sleepers = [(); 2].map(|()| {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (changes, change) = &*parts;
                let mut slept = false;
                while !change.load(Ordering::Relaxed) {
                    slept = true;
                    assert!(changes.wait_unless(|| change.load(Ordering::Relaxed), None).is_ok());
                }
                slept
            })
        });
        let (changes, change) = &*parts;
        change.store(true, Ordering::Relaxed);
        changes.notify();
        if sleepers.map(|sleeper| sleeper.join().unwrap()) == [true, true] {
            hit(&BOTH_SLEPT);
        }
    });
    assert!(BOTH_SLEPT.load(Relaxed) > 0);
}

#[test]
fn a_thread_that_waits_for_room_sees_it_or_is_seen() {
    static SEEN: Count = Count::new(0);
    static WANTED: Count = Count::new(0);
    model("a_thread_that_waits_for_room_sees_it_or_is_seen", Bound::None, || {
        let parts = Arc::new((EventCount::new(), AtomicBool::new(false)));
        let waiter = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (changes, room) = &*parts;
                core::mem::forget(changes.ask_for_room());
                room.load(Ordering::Relaxed)
            })
        };
        let (changes, room) = &*parts;
        room.store(true, Ordering::Relaxed);
        let wanted = changes.want_room();
        let seen = waiter.join().unwrap();
        assert!(wanted || seen, "it would sleep at the device");
        hit(if seen { &SEEN } else { &WANTED });
    });
    assert!(SEEN.load(Relaxed) > 0 && WANTED.load(Relaxed) > 0);
}

/// A ring of three buffers; the first two are being written.
fn two_in_flight() -> (ModelDevice, BufferRing) {
    let device = ModelDevice::held();
    let ring = device.ring(3, true, true);
    let core = &ring.core;
    for generation in 1..=2 {
        core.append(&[1; BUFFER], Patience::ForRoom).expect("there is room");
        core.seal(BufferId::new(generation, generation as usize - 1));
    }
    assert_eq!(core.writeback.in_flight(), 2);
    (device, ring)
}

fn spawn<T: 'static>(core: &Arc<Core>, body: impl FnOnce(&Core) -> T + 'static) -> thread::JoinHandle<T> {
    let core = Arc::clone(core);
    thread::spawn(move || body(&core))
}

/// Waits for a generation, and says how often it had to look.
fn wait_for(core: &Core, generation: u64) -> usize {
    let mut looks = 0;
    let written = || {
        looks += 1;
        core.staging.slots()[generation as usize - 1].has_completed(generation).then_some(())
    };
    assert!(core.wait_until(None, written).is_ok());
    looks
}

#[test]
fn no_thread_sleeps_at_the_device_for_an_answer_that_is_there() {
    static ALREADY: Count = Count::new(0);
    static LATER: Count = Count::new(0);
    model("no_thread_sleeps_at_the_device_for_an_answer_that_is_there", Bound::None, || {
        let (device, ring) = two_in_flight();
        let core = &ring.core;
        assert!(device.complete(0));
        let waiter = spawn(core, |core| wait_for(core, 1));
        core.poll();
        // The other write is still in flight.
        let looks = waiter.join().unwrap();
        hit(if looks == 1 { &ALREADY } else { &LATER });
        device.complete_from_now_on();
    });
    assert!(ALREADY.load(Relaxed) > 0 && LATER.load(Relaxed) > 0);
}

/// The thread that has its answer leaves the device to the one that has not.
#[test]
fn a_driver_that_leaves_has_a_successor() {
    static SLEPT: Count = Count::new(0);
    model("a_driver_that_leaves_has_a_successor", Bound::None, || {
        let (device, ring) = two_in_flight();
        let core = &ring.core;
        let waiter = spawn(core, |core| wait_for(core, 2));
        assert!(device.complete(0));
        wait_for(core, 1);
        assert!(device.complete(0));
        if waiter.join().unwrap() > 2 {
            hit(&SLEPT);
        }
    });
    assert!(SLEPT.load(Relaxed) > 0);
}

/// A reader is in the way of the next generation; when it goes, one that waits for room sleeps at the device, for a
/// write that takes long.
#[test]
fn an_opener_fetches_a_thread_that_waits_for_room_from_the_device() {
    static AT_THE_DEVICE: Count = Count::new(0);
    model("an_opener_fetches_a_thread_that_waits_for_room_from_the_device", Bound::None, || {
        let device = ModelDevice::held();
        let ring = device.ring(2, true, true);
        let core = &ring.core;
        for generation in 1..=2 {
            core.append(&[1; BUFFER], Patience::ForRoom).expect("there is room");
            core.seal(BufferId::new(generation, generation as usize - 1));
            if generation == 1 {
                assert!(core.staging.slots()[0].latch.try_acquire());
                assert!(device.complete(0));
                core.poll();
            }
        }
        assert_eq!(core.writeback.in_flight(), 1);
        let waiter = spawn(core, |core| core.append(&[1; 512], Patience::ForRoom).expect("there is room").start());
        if core.writeback.is_driven() {
            hit(&AT_THE_DEVICE);
        }
        assert!(core.staging.slots()[0].latch.release());
        core.advance();
        assert_eq!(waiter.join().unwrap(), 2 * BUFFER as u64);
        device.complete_from_now_on();
    });
    assert!(AT_THE_DEVICE.load(Relaxed) > 0);
}

#[test]
fn what_is_drained_has_been_dealt_with() {
    static IN_FLIGHT: Count = Count::new(0);
    model("what_is_drained_has_been_dealt_with", Bound::None, || {
        let (device, ring) = two_in_flight();
        let core = &ring.core;
        device.complete_from_now_on();
        let driver = spawn(core, |core| core.poll());
        if core.writeback.in_flight() > 0 {
            hit(&IN_FLIGHT);
        }
        core.drain(None).expect("no deadline");
        assert!(core.staging.slots()[0].has_completed(1) && core.staging.slots()[1].has_completed(2));
        driver.join().unwrap();
    });
    assert!(IN_FLIGHT.load(Relaxed) > 0);
}

#[test]
fn what_was_done_before_the_failure_was_done() {
    static DONE: Count = Count::new(0);
    static NOTHING: Count = Count::new(0);
    model("what_was_done_before_the_failure_was_done", Bound::None, || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let core = &ring.core;
        let done = Arc::new(AtomicBool::new(false));
        let failing = {
            let done = Arc::clone(&done);
            spawn(core, move |core| {
                done.store(true, Ordering::Relaxed);
                core.poison(RingError::Closed);
            })
        };
        match core.outcome(|| done.load(Ordering::Relaxed)) {
            Some(outcome) => {
                hit(&DONE);
                assert_eq!(outcome, Ok(()));
            }
            None => hit(&NOTHING),
        }
        failing.join().unwrap();
        assert_eq!(core.outcome(|| true), Some(Ok(())));
        assert_eq!(core.outcome(|| false), Some(Err(RingError::Closed)));
    });
    assert!(DONE.load(Relaxed) > 0 && NOTHING.load(Relaxed) > 0);
}
