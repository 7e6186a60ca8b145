//! CommitWaiters alone: a thread that waits for an address, and the thread that moves what it looks at.

use super::*;
use crate::commit::waiters::CommitWaiters;
use crate::sync::{AtomicU64, Ordering, Parker};

/// Waits until `watermark` is at `address`. It is relaxed: what makes it seen is the count of those that are parked.
fn wait(waiters: &CommitWaiters, watermark: &AtomicU64, address: u64, waiter: &Count) {
    while watermark.load(Ordering::Relaxed) < address {
        let parker = Parker::new();
        let key = waiters.add(address, parker.waker());
        if watermark.load(Ordering::Relaxed) < address {
            hit(waiter);
            parker.park(None);
        }
        waiters.remove(key);
    }
}

fn advance(waiters: &CommitWaiters, watermark: &AtomicU64, address: u64) {
    watermark.store(address, Ordering::Relaxed);
    if !waiters.is_empty() {
        waiters.wake_up_to(address);
    }
}

#[test]
fn a_parked_thread_is_woken_by_what_it_waits_for() {
    static PARKED: Count = Count::new(0);
    model("a_parked_thread_is_woken_by_what_it_waits_for", Bound::None, || {
        let parts = Arc::new((CommitWaiters::new(), AtomicU64::new(0)));
        let waiter = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || wait(&parts.0, &parts.1, 7, &PARKED))
        };
        advance(&parts.0, &parts.1, 7);
        waiter.join().unwrap();
        assert!(parts.0.is_empty());
    });
    assert!(PARKED.load(Relaxed) > 0);
}

/// The first batch wakes the one, the second the other; neither is forgotten because the other was woken.
#[test]
fn each_batch_wakes_its_own() {
    static PARKED: Count = Count::new(0);
    model("each_batch_wakes_its_own", Bound::Preemptions(3), || {
        let parts = Arc::new((CommitWaiters::new(), AtomicU64::new(0)));
        let threads = [7, 9].map(|address| {
            let parts = Arc::clone(&parts);
            thread::spawn(move || wait(&parts.0, &parts.1, address, &PARKED))
        });
        advance(&parts.0, &parts.1, 8);
        advance(&parts.0, &parts.1, 9);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(parts.0.is_empty());
    });
    assert!(PARKED.load(Relaxed) > 0);
}

/// A flag stands for something that any thread that waits may do. A thread that is called and leaves, having had its
/// answer, passes the call on.
#[test]
fn an_election_is_answered_or_passed_on() {
    static CALLED: Count = Count::new(0);
    static PASSED_ON: Count = Count::new(0);
    model("an_election_is_answered_or_passed_on", Bound::Preemptions(3), || {
        let parts = Arc::new((CommitWaiters::new(), AtomicU64::new(0)));
        // Each waits for its own answer or for the flag, and the thread that finds the flag takes it down.
        let threads = [1, 2].map(|address| {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (waiters, bits) = &*parts;
                let mut elected = false;
                loop {
                    // Bit 0: the flag; bit `address`: the answer.
                    let seen = bits.load(Ordering::Relaxed);
                    if seen >> address & 1 == 1 {
                        break;
                    }
                    if seen & 1 == 1 && bits.fetch_and(!1, Ordering::AcqRel) & 1 == 1 {
                        // Done: that is the answer of all.
                        bits.fetch_or(0b110, Ordering::AcqRel);
                        if !waiters.is_empty() {
                            waiters.wake_up_to(2);
                        }
                        break;
                    }
                    let parker = Parker::new();
                    let key = waiters.add(address, parker.waker());
                    if bits.load(Ordering::Relaxed) & (1 << address | 1) == 0 {
                        parker.park(None);
                    }
                    elected |= waiters.remove(key);
                }
                if elected {
                    hit(&CALLED);
                    if !waiters.is_empty() && bits.load(Ordering::Relaxed) & 1 == 1 {
                        hit(&PASSED_ON);
                        waiters.elect_beyond(0);
                    }
                }
            })
        });
        let (waiters, bits) = &*parts;
        bits.fetch_or(1, Ordering::AcqRel);
        if !waiters.is_empty() {
            waiters.elect_beyond(0);
        }
        // The first gets its answer from elsewhere, perhaps after it was called, and before it has answered the call.
        bits.fetch_or(0b10, Ordering::AcqRel);
        if !waiters.is_empty() {
            waiters.wake_up_to(1);
            if bits.load(Ordering::Relaxed) & 1 == 1 {
                waiters.elect_beyond(0);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(waiters.is_empty());
    });
    assert!(CALLED.load(Relaxed) > 0 && PASSED_ON.load(Relaxed) > 0);
}
