//! A deferred flush: a sealer that leaves its pin behind, and the thread that requests the flush.

use super::*;
use crate::staging::deferred_flush::DeferredFlush;

#[test]
fn the_pin_goes_to_the_one_that_comes_second() {
    static DEPOSITED: Count = Count::new(0);
    static ASKED: Count = Count::new(0);
    model("the_pin_goes_to_the_one_that_comes_second", Bound::None, || {
        let deferred = Arc::new(DeferredFlush::new());
        deferred.open(1);
        let sealer = {
            let deferred = Arc::clone(&deferred);
            thread::spawn(move || deferred.defer(1))
        };
        let got = deferred.request(1);
        let deferred_it = sealer.join().unwrap();
        assert_eq!(got, deferred_it, "got the place: {got}, left there: {deferred_it}");
        hit(if got { &DEPOSITED } else { &ASKED });
    });
    assert!(DEPOSITED.load(Relaxed) > 0 && ASKED.load(Relaxed) > 0);
}

#[test]
fn of_two_requests_one_gets_the_pin() {
    model("of_two_requests_one_gets_the_pin", Bound::None, || {
        let deferred = Arc::new(DeferredFlush::new());
        deferred.open(1);
        assert!(deferred.defer(1));
        let other = {
            let deferred = Arc::clone(&deferred);
            thread::spawn(move || deferred.request(1))
        };
        let mine = deferred.request(1);
        assert!(mine != other.join().unwrap());
    });
}

/// The thread that takes the pin over knows all that the sealer knows.
#[test]
fn a_request_for_the_flush_knows_the_length() {
    static PICKED_UP: Count = Count::new(0);
    model("a_request_for_the_flush_knows_the_length", Bound::None, || {
        let fixture = RotationFixture::new(1, Target::Same);
        let slot = &fixture.slots[0];
        assert_eq!(granted(slot, BUFFER).release(), Released::Pending);
        let sealer = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let slot = &fixture.slots[0];
                let Seized::Sealed(pin) = slot.reserve(BUFFER as u32) else { panic!("it is full") };
                if !slot.deferred.defer(1) {
                    drop(flush(slot, pin.release()));
                }
            })
        };
        if let Some(pin) = slot.claim_deferred(1) {
            hit(&PICKED_UP);
            slot.complete(flush(slot, pin.release()));
            assert!(slot.is_openable(), "{:?}", slot.snapshot());
        }
        sealer.join().unwrap();
    });
    assert!(PICKED_UP.load(Relaxed) > 0);
}
