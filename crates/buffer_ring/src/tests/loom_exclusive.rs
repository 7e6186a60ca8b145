//! An exclusive claim: one holder at a time, which sees what the one before did, and what was done before failed
//! claims.

use super::*;
use crate::sync::{AtomicUsize, Ordering};
use crate::writeback::exclusive::Exclusive;

#[test]
fn an_exclusive_claim_has_one_holder_at_a_time() {
    static BOTH: Count = Count::new(0);
    model("an_exclusive_claim_has_one_holder_at_a_time", Bound::None, || {
        let parts = Arc::new((Exclusive::new(), cell()));
        let act = |(exclusive, cell): &(Exclusive, Shadow)| {
            let claim = exclusive.try_claim();
            if claim.is_some() {
                cell.write(0..512);
            }
            claim.is_some()
        };
        let other = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || act(&parts))
        };
        let mine = act(&parts);
        if other.join().unwrap() && mine {
            hit(&BOTH);
        }
    });
    assert!(BOTH.load(Relaxed) > 0);
}

/// Three claims, so that one can fail while another is held, and the third comes after that.
#[test]
fn a_failed_claim_takes_nothing_from_the_holder() {
    static IN_VAIN: Count = Count::new(0);
    model("a_failed_claim_takes_nothing_from_the_holder", Bound::None, || {
        let parts = Arc::new((Exclusive::new(), cell()));
        let other = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (exclusive, cell) = &*parts;
                for _ in 0..2 {
                    match exclusive.try_claim() {
                        Some(_claim) => cell.write(0..512),
                        None => hit(&IN_VAIN),
                    }
                }
            })
        };
        let (exclusive, cell) = &*parts;
        let claim = exclusive.try_claim();
        if claim.is_some() {
            cell.write(0..512);
        }
        drop(claim);
        other.join().unwrap();
    });
    assert!(IN_VAIN.load(Relaxed) > 0);
}

/// As threads do that wait until nothing is in flight, and no thread is at work on what was.
#[test]
fn a_thread_that_sees_no_claim_sees_what_its_holder_did() {
    static FREE: Count = Count::new(0);
    model("a_thread_that_sees_no_claim_sees_what_its_holder_did", Bound::None, || {
        let parts = Arc::new((Exclusive::new(), cell(), AtomicUsize::new(1)));
        let claim = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (exclusive, cell, in_flight) = &*parts;
                let claim = exclusive.try_claim();
                in_flight.fetch_sub(1, Ordering::AcqRel);
                cell.write(0..512);
                drop(claim);
            })
        };
        let (exclusive, cell, in_flight) = &*parts;
        if in_flight.load(Ordering::Acquire) == 0 && !exclusive.is_claimed() {
            hit(&FREE);
            cell.read(0..512);
        }
        claim.join().unwrap();
    });
    assert!(FREE.load(Relaxed) > 0);
}

/// Why a submitter whose claim fails need not wake any thread: the holder wakes them, and has seen the write by then.
#[test]
fn a_holder_that_gives_up_sees_what_was_done_before_failed_claims() {
    static IN_VAIN: Count = Count::new(0);
    model("a_holder_that_gives_up_sees_what_was_done_before_failed_claims", Bound::None, || {
        let parts = Arc::new((Exclusive::new(), AtomicUsize::new(0)));
        let (exclusive, in_flight) = &*parts;
        let claim = exclusive.try_claim();
        let submitter = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (exclusive, in_flight) = &*parts;
                in_flight.fetch_add(1, Ordering::Relaxed);
                exclusive.try_claim().is_some()
            })
        };
        drop(claim);
        let seen = in_flight.load(Ordering::Relaxed) > 0;
        let got = submitter.join().unwrap();
        assert!(got || seen, "a write that no thread would wait for");
        if !got {
            hit(&IN_VAIN);
        }
    });
    assert!(IN_VAIN.load(Relaxed) > 0);
}
