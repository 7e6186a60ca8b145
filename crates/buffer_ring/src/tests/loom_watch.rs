//! Those that follow the durable watermark: a thread that waits, and an event. The end, a failure, and what a caller
//! has given up reach them.

use super::*;
use crate::commit::eventfd::{EventFds, create};
use crate::ring::append::Patience;
use crate::ring::watch::DurableWatch;
use crate::sync::model_device::ModelDevice;
use crate::sync::{AtomicBool, Ordering};
use crate::{BufferRing, RingError};

fn append(ring: &BufferRing, len: usize) -> u64 {
    ring.core.append(&vec![1; len], Patience::ForRoom).expect("there is room").end()
}

/// A thread that waits for `address` as a follower does, with no deadline.
fn follow(watch: &DurableWatch, address: u64) -> thread::JoinHandle<Result<u64, RingError>> {
    let watch = watch.clone();
    thread::spawn(move || watch.wait_ge(address))
}

#[test]
fn an_eventfd_is_notified_or_its_owner_sees_the_change() {
    static SEEN: Count = Count::new(0);
    static RUNG: Count = Count::new(0);
    model("an_eventfd_is_notified_or_its_owner_sees_the_change", Bound::None, || {
        let parts = Arc::new((EventFds::new(), AtomicBool::new(false)));
        let owner = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (eventfds, change) = &*parts;
                let eventfd = create().expect("a model of one");
                let number = eventfds.add(&eventfd);
                let seen = change.load(Ordering::Relaxed);
                (eventfd, number, seen)
            })
        };
        let (eventfds, change) = &*parts;
        change.store(true, Ordering::Relaxed);
        eventfds.notify();
        let (eventfd, number, seen) = owner.join().unwrap();
        let rung = eventfd.take() > 0;
        assert!(rung || seen, "the change is never noticed");
        hit(if seen { &SEEN } else { &RUNG });
        eventfds.remove(number);
        eventfds.notify();
        assert!(eventfd.take() == 0 && !eventfds.is_any());
    });
    assert!(SEEN.load(Relaxed) > 0 && RUNG.load(Relaxed) > 0);
}

/// One event comes and goes while another one is notified.
#[test]
fn an_eventfd_that_goes_silences_no_other() {
    static BOTH: Count = Count::new(0);
    model("an_eventfd_that_goes_silences_no_other", Bound::None, || {
        let eventfds = Arc::new(EventFds::new());
        let stays = create().expect("a model of one");
        eventfds.add(&stays);
        let other = {
            let eventfds = Arc::clone(&eventfds);
            thread::spawn(move || {
                let goes = create().expect("a model of one");
                let number = eventfds.add(&goes);
                eventfds.remove(number);
                goes.take()
            })
        };
        eventfds.notify();
        assert_eq!(stays.take(), 1);
        if other.join().unwrap() == 1 {
            hit(&BOTH);
        }
    });
    assert!(BOTH.load(Relaxed) > 0);
}

#[test]
fn a_follower_learns_that_the_ring_has_gone() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("a_follower_learns_that_the_ring_has_gone", Bound::None, || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let watch = ring.durable_watch();
        let core = Arc::clone(&ring.core);
        let follower = follow(&watch, 1);
        hit(if core.waiting.waiters().is_empty() { &BEFORE } else { &AFTER });
        drop(ring);
        assert_eq!(follower.join().unwrap(), Err(RingError::Closed));
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

/// Whatever was durable when the ring went is never answered with its end.
#[test]
fn what_was_durable_at_the_end_stays_durable_for_a_follower() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("what_was_durable_at_the_end_stays_durable_for_a_follower", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let address = append(&ring, 512);
        let watch = ring.durable_watch();
        let follower = {
            let watch = watch.clone();
            thread::spawn(move || {
                hit(if watch.get() == 0 { &BEFORE } else { &AFTER });
                watch.wait_ge(address)
            })
        };
        assert_eq!(ring.wait_durable(address), Ok(()));
        drop(ring);
        assert_eq!(follower.join().unwrap(), Ok(4096));
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

#[test]
fn an_event_that_is_made_while_the_ring_goes_is_readable() {
    static RUNG_TWICE: Count = Count::new(0);
    model("an_event_that_is_made_while_the_ring_goes_is_readable", Bound::None, || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let watch = ring.durable_watch();
        let maker = {
            let watch = watch.clone();
            thread::spawn(move || _ = watch.make_eventfd().expect("a model of one"))
        };
        drop(ring);
        maker.join().unwrap();
        let count = watch.take_event();
        assert!(count > 0, "it is never readable");
        if count > 1 {
            hit(&RUNG_TWICE);
        }
    });
    assert!(RUNG_TWICE.load(Relaxed) > 0);
}

#[test]
fn an_event_that_is_made_while_the_ring_fails_is_readable() {
    model("an_event_that_is_made_while_the_ring_fails_is_readable", Bound::None, || {
        let device = ModelDevice::instant();
        device.break_down();
        let ring = device.ring(1, true, true);
        let watch = ring.durable_watch();
        let maker = {
            let watch = watch.clone();
            thread::spawn(move || _ = watch.make_eventfd().expect("a model of one"))
        };
        append(&ring, 512);
        ring.core.seal(BufferId::new(1, 0));
        ring.core.poll();
        assert!(ring.poisoned().is_some());
        maker.join().unwrap();
        assert!(watch.take_event() > 0, "it is never readable");
    });
}

/// A caller has sealed the batch, and gives up while it is in flight.
#[test]
fn a_follower_finishes_what_a_caller_gave_up() {
    static PARKED: Count = Count::new(0);
    static LATER: Count = Count::new(0);
    model("a_follower_finishes_what_a_caller_gave_up", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let address = append(&ring, 512);
        let watch = ring.durable_watch();
        let follower = follow(&watch, address);
        hit(if ring.core.waiting.waiters().is_empty() { &LATER } else { &PARKED });
        ring.core.abandon(address);
        assert_eq!(follower.join().unwrap(), Ok(4096));
    });
    assert!(PARKED.load(Relaxed) > 0 && LATER.load(Relaxed) > 0);
}

/// The same for an event: a thread of the ring does it.
#[test]
fn an_event_comes_for_what_a_caller_gave_up() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("an_event_comes_for_what_a_caller_gave_up", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let address = append(&ring, 512);
        let watch = ring.durable_watch();
        let maker = {
            let watch = watch.clone();
            thread::spawn(move || _ = watch.make_eventfd().expect("a model of one"))
        };
        hit(if ring.core.waiting.eventfds().is_any() { &BEFORE } else { &AFTER });
        ring.core.abandon(address);
        maker.join().unwrap();
        // By an event, or before there was one.
        while watch.take_event() == 0 && watch.get() < address {
            thread::yield_now();
        }
        drop(ring);
        assert_eq!(watch.get(), 4096);
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

/// A follower at work uses the device, which goes when the ring's end is over: by then it has done what it began, or
/// begins nothing.
#[test]
fn the_end_of_a_ring_comes_after_what_a_follower_has_begun() {
    static WORKED: Count = Count::new(0);
    static REFUSED: Count = Count::new(0);
    model("the_end_of_a_ring_comes_after_what_a_follower_has_begun", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(1, true, true);
        let done = Arc::new(AtomicBool::new(false));
        let follower = {
            let (core, done) = (Arc::clone(&ring.core), Arc::clone(&done));
            thread::spawn(move || core.work_as_follower(|_| done.store(true, Ordering::Relaxed)).is_some())
        };
        ring.core.end_helpers();
        let seen = done.load(Ordering::Relaxed);
        let worked = follower.join().unwrap();
        assert_eq!(worked, seen, "the ring has gone while a follower was at work");
        hit(if worked { &WORKED } else { &REFUSED });
    });
    assert!(WORKED.load(Relaxed) > 0 && REFUSED.load(Relaxed) > 0);
}
