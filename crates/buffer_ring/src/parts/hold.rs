//! The hold: a sealer that leaves its place behind, and whoever asks for the flush.

use super::*;
use crate::hold::Hold;

#[test]
fn the_place_goes_to_whoever_comes_second() {
    static DEPOSITED: Count = Count::new(0);
    static ASKED: Count = Count::new(0);
    model("the_place_goes_to_whoever_comes_second", Bound::None, || {
        let hold = Arc::new(Hold::new());
        hold.open(1);
        let sealer = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || hold.deposit(1))
        };
        let got = hold.request(1);
        let deposited = sealer.join().unwrap();
        assert_eq!(got, deposited, "got the place: {got}, left there: {deposited}");
        hit(if got { &DEPOSITED } else { &ASKED });
    });
    assert!(DEPOSITED.load(Relaxed) > 0 && ASKED.load(Relaxed) > 0);
}

#[test]
fn of_two_who_ask_one_gets_the_place() {
    model("of_two_who_ask_one_gets_the_place", Bound::None, || {
        let hold = Arc::new(Hold::new());
        hold.open(1);
        assert!(hold.deposit(1));
        let other = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || hold.request(1))
        };
        let mine = hold.request(1);
        assert!(mine != other.join().unwrap());
    });
}

/// Who picks the place up leaves with it, and with all that the sealer knows.
#[test]
fn who_asks_for_the_flush_knows_how_long_the_life_is() {
    static PICKED_UP: Count = Count::new(0);
    model("who_asks_for_the_flush_knows_how_long_the_life_is", Bound::None, || {
        let rotary = Rotary::new(1, Target::Same);
        let slot = &rotary.slots[0];
        assert_eq!(granted(slot, BUFFER).release(), Released::Pending);
        let sealer = {
            let rotary = Arc::clone(&rotary);
            thread::spawn(move || {
                let slot = &rotary.slots[0];
                let Seized::Sealed(pin) = slot.reserve(BUFFER as u32) else { panic!("it is full") };
                if !slot.hold.deposit(1) {
                    drop(flush(slot, pin.release()));
                }
            })
        };
        if let Some(pin) = slot.claim_hold(1) {
            hit(&PICKED_UP);
            slot.complete(flush(slot, pin.release()));
            assert!(slot.is_openable(), "{:?}", slot.snapshot());
        }
        sealer.join().unwrap();
    });
    assert!(PICKED_UP.load(Relaxed) > 0);
}
