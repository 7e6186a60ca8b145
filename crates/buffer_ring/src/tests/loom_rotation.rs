//! Rotation over bare slots: the token, which puts it back, which removes an obstacle, and openers that are late.

use core::sync::atomic::Ordering::{Acquire, Release};

use loom::sync::atomic::AtomicU64;

use super::*;

/// R has the token and finds the slot not free; meanwhile it becomes free. Either R looks again, or the other one finds
/// the token.
#[test]
fn a_slot_that_becomes_free_beside_the_token_is_opened() {
    static BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("a_slot_that_becomes_free_beside_the_token_is_opened", Bound::None, || {
        let fixture = RotationFixture::new(1, Target::Same);
        let bytes = fixture.over(0);
        let completer = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                fixture.slots[0].complete(bytes);
                fixture.advance()
            })
        };
        let mine = fixture.advance();
        let theirs = completer.join().unwrap();
        assert!((mine == Rotated::No) != (theirs == Rotated::No), "{mine:?} and {theirs:?}");
        assert_eq!(fixture.generation(), 2);
        hit(&BY[usize::from(mine == Rotated::No)]);
    });
    assert!(BY.iter().all(|by| by.load(Relaxed) > 0));
}

#[test]
fn the_last_reader_takes_up_the_rotation() {
    static BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("the_last_reader_takes_up_the_rotation", Bound::None, || {
        let fixture = RotationFixture::new(1, Target::Same);
        let bytes = fixture.over(0);
        fixture.slots[0].complete(bytes);
        assert!(fixture.slots[0].latch.try_acquire());
        let reader = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || if fixture.slots[0].latch.release() { fixture.advance() } else { Rotated::No })
        };
        let mine = fixture.advance();
        let theirs = reader.join().unwrap();
        assert!((mine == Rotated::No) != (theirs == Rotated::No), "{mine:?} and {theirs:?}");
        assert_eq!(fixture.generation(), 2);
        hit(&BY[usize::from(mine == Rotated::No)]);
    });
    assert!(BY.iter().all(|by| by.load(Relaxed) > 0));
}

/// A rotator that sleeps before it takes the token: meanwhile the next generation is opened, and is over, and its slot
/// is free again.
#[test]
fn a_rotator_with_an_old_idea_opens_nothing_twice() {
    static BY: [Count; 2] = [const { Count::new(0) }; 2];
    model("a_rotator_with_an_old_idea_opens_nothing_twice", Bound::None, || {
        let fixture = RotationFixture::new(2, Target::Next);
        // Stays in flight, so that the generation after the next cannot begin.
        let first = fixture.over(0);
        let rotator = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.advance())
        };
        let second = Rotated::Opened(BufferId::new(2, 1));
        let mine = fixture.advance();
        if mine == second {
            let bytes = fixture.over(1);
            fixture.slots[1].complete(bytes);
            assert_eq!(fixture.advance(), Rotated::No);
        }
        let theirs = rotator.join().unwrap();
        assert!([mine, theirs].contains(&second) && [mine, theirs].contains(&Rotated::No), "{mine:?} and {theirs:?}");
        assert_eq!(fixture.generation(), 2);
        hit(&BY[usize::from(mine == Rotated::No)]);
        drop(first);
    });
    assert!(BY.iter().all(|by| by.load(Relaxed) > 0));
}

/// Between opening a generation and publishing it, others can fill that generation, seal it, and have it over.
#[test]
fn a_generation_that_is_over_before_it_is_published_is_not_opened_twice() {
    static OVER: Count = Count::new(0);
    static LATE: Count = Count::new(0);
    model("a_generation_that_is_over_before_it_is_published_is_not_opened_twice", Bound::None, || {
        let fixture = RotationFixture::new(1, Target::Same);
        let bytes = fixture.over(0);
        fixture.slots[0].complete(bytes);
        let opener = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || assert_eq!(fixture.advance(), Rotated::Opened(BufferId::new(2, 0))))
        };
        // Two threads with an old idea of the current generation, one after the other: the first has bytes, the second
        // does not fit.
        let slot = &fixture.slots[0];
        match slot.reserve(BUFFER as u32) {
            Seized::Granted(grant) => {
                if fixture.rotation.current().generation() == 1 {
                    hit(&OVER);
                }
                assert_eq!(grant.release(), Released::Pending);
                slot.complete(fixture.seal(slot));
                assert_eq!(fixture.advance(), Rotated::Opened(BufferId::new(3, 0)));
                opener.join().unwrap();
                assert_eq!(fixture.generation(), 3);
            }
            Seized::Late(released) => {
                hit(&LATE);
                assert_eq!(released, Released::Pending);
                opener.join().unwrap();
                assert_eq!(fixture.generation(), 2);
            }
            Seized::Sealed(_) => panic!("it fits"),
        }
    });
    assert!(OVER.load(Relaxed) > 0 && LATE.load(Relaxed) > 0);
}

/// A late arrival's addition makes an opening fail. What that has left behind is known to the next thread that tries.
#[test]
fn what_a_failed_opening_leaves_is_known_to_the_next() {
    static IN_THE_WAY: Count = Count::new(0);
    model("what_a_failed_opening_leaves_is_known_to_the_next", Bound::Preemptions(3), || {
        let fixture = RotationFixture::new(1, Target::Same);
        let slot = &fixture.slots[0];
        assert_eq!(granted(slot, BUFFER - 512).release(), Released::Pending);
        let late = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || match fixture.slots[0].reserve(512) {
                Seized::Late(released) => fixture.flush_if_drained(&fixture.slots[0], released),
                Seized::Granted(grant) => fixture.flush_if_drained(&fixture.slots[0], grant.release()),
                Seized::Sealed(_) => panic!("it fits"),
            })
        };
        let other = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.flush_if_drained(&fixture.slots[0], Released::Pending))
        };
        let pin = slot.pin().expect("it is open");
        assert!(matches!(pin.seal(), Seal::Sealed { .. }));
        fixture.rotation.hand_over(BufferId::new(1, 0), 4096);
        fixture.flush_if_drained(slot, pin.release());
        if slot.is_free() {
            hit(&IN_THE_WAY);
        }
        late.join().unwrap();
        other.join().unwrap();
        assert_eq!(fixture.generation(), 2);
    });
    assert!(IN_THE_WAY.load(Relaxed) > 0);
}

/// Six halves are three generations, on two slots: what an append does, with no thread that waits and no log.
#[test]
fn two_threads_lap_the_ring() {
    static ALTERNATING: Count = Count::new(0);
    model("two_threads_lap_the_ring", Bound::Preemptions(3), || {
        let fixture = RotationFixture::new(2, Target::Next);
        let other = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || [(); 3].map(|()| fixture.append(BUFFER / 2)))
        };
        let mine = [(); 3].map(|()| fixture.append(BUFFER / 2));
        let theirs = other.join().unwrap();
        if theirs[0] < mine[1] && mine[0] < theirs[1] {
            hit(&ALTERNATING);
        }
        let mut starts = [mine, theirs].concat();
        starts.sort_unstable();
        assert_eq!(starts, [0, 2048, 4096, 6144, 8192, 10240]);
        assert_eq!(fixture.generation(), 3);
    });
    assert!(ALTERNATING.load(Relaxed) > 0);
}

/// Two slots. The first generation is over, and the second is open and has some bytes.
fn in_its_second_generation() -> Arc<RotationFixture> {
    let fixture = RotationFixture::new(2, Target::Next);
    let bytes = fixture.over(0);
    fixture.slots[0].complete(bytes);
    assert_eq!(fixture.advance(), Rotated::Opened(BufferId::new(2, 1)));
    assert_eq!(granted(&fixture.slots[1], 512).release(), Released::Pending);
    fixture
}

/// Two threads have seen the first generation current. The third begins in its slot: one appends there, and the other
/// one looks, perhaps before it is published. So a wait for the tail is never refused: that looks at the tail again.
#[test]
fn the_tail_only_grows() {
    static SEEN: [Count; 2] = [const { Count::new(0) }; 2];
    model("the_tail_only_grows", Bound::Preemptions(3), || {
        let fixture = in_its_second_generation();
        let bytes = fixture.seal(&fixture.slots[1]);
        fixture.slots[1].complete(bytes);
        let appender = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || match fixture.slots[0].reserve(512) {
                Seized::Granted(grant) => {
                    fixture.rotation.publish(BufferId::new(3, 0));
                    assert_eq!(grant.release(), Released::Pending);
                }
                // The third generation may now never begin.
                Seized::Late(released) => assert_eq!(released, Released::Pending),
                Seized::Sealed(_) => panic!("it fits"),
            })
        };
        let looker = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let first = fixture.rotation.tail_from(BufferId::new(1, 0), &fixture.slots);
                let second = fixture.rotation.tail(&fixture.slots);
                assert!(first <= Some(second), "{first:?}, then {second}");
                if let Some(first) = first {
                    hit(&SEEN[usize::from(first > 2 * BUFFER as u64)]);
                }
            })
        };
        fixture.advance();
        appender.join().unwrap();
        looker.join().unwrap();
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed) > 0), "{SEEN:?}");
}

/// The one that hands it over has seen the first generation current, and knows nothing of the second but where it ends.
#[test]
fn a_tail_that_was_handed_over_is_known_to_the_next_thread() {
    static HANDED_OVER: [Count; 3] = [const { Count::new(0) }; 3];
    model("a_tail_that_was_handed_over_is_known_to_the_next_thread", Bound::Preemptions(3), || {
        let fixture = in_its_second_generation();
        let handed = Arc::new(AtomicU64::new(0));
        let sender = {
            let (fixture, handed) = (Arc::clone(&fixture), Arc::clone(&handed));
            thread::spawn(move || {
                let tail = fixture.rotation.tail_from(BufferId::new(1, 0), &fixture.slots);
                handed.store(tail.expect("the generation is over"), Release);
            })
        };
        let receiver = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let (handed, tail) = (handed.load(Acquire), fixture.rotation.tail(&fixture.slots));
                assert!(handed <= tail, "{tail}, but {handed} was handed over");
                hit(&HANDED_OVER[handed as usize / BUFFER]);
            })
        };
        let bytes = fixture.seal(&fixture.slots[1]);
        sender.join().unwrap();
        receiver.join().unwrap();
        drop(bytes);
    });
    assert!(HANDED_OVER.iter().all(|seen| seen.load(Relaxed) > 0), "{HANDED_OVER:?}");
}

/// Three threads find room for one, so that an addition runs over the end, and another one comes too late. No next
/// generation is opened.
#[test]
fn the_tail_of_a_buffer_that_runs_over_is_its_end() {
    static SEEN: [Count; 2] = [const { Count::new(0) }; 2];
    static LATE: Count = Count::new(0);
    model("the_tail_of_a_buffer_that_runs_over_is_its_end", Bound::Preemptions(3), || {
        let fixture = RotationFixture::new(1, Target::Same);
        let slot = &fixture.slots[0];
        assert_eq!(granted(slot, BUFFER - 512).release(), Released::Pending);
        let appenders = [400, 500].map(|len| {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let slot = &fixture.slots[0];
                // What the last one out owes is left undone.
                match slot.reserve(len) {
                    Seized::Granted(grant) => _ = grant.release(),
                    Seized::Sealed(pin) => {
                        fixture.rotation.hand_over(BufferId::new(1, 0), BUFFER as u64);
                        _ = pin.release();
                    }
                    Seized::Late(_) => hit(&LATE),
                }
            })
        });
        let first = fixture.rotation.tail(&fixture.slots);
        let second = fixture.rotation.tail(&fixture.slots);
        assert!(first <= second && second <= BUFFER as u64, "{first}, then {second}");
        hit(&SEEN[usize::from(first == BUFFER as u64)]);
        if let Seized::Sealed(pin) = slot.reserve(300) {
            fixture.rotation.hand_over(BufferId::new(1, 0), BUFFER as u64);
            _ = pin.release();
        }
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
        assert_eq!(fixture.rotation.tail(&fixture.slots), BUFFER as u64);
    });
    assert!(SEEN.iter().all(|seen| seen.load(Relaxed) > 0) && LATE.load(Relaxed) > 0, "{SEEN:?}");
}
