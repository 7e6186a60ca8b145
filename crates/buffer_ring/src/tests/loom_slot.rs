//! One slot: two generations of it, and its readers.

use super::*;
use crate::staging::slot::Copied;

/// A slot whose first generation is being written.
fn flushing() -> (Arc<RotationFixture>, Frozen) {
    let fixture = RotationFixture::new(1, Target::Same);
    let bytes = fixture.over(0);
    (fixture, bytes)
}

#[test]
fn the_next_generation_begins_when_all_of_the_one_before_is_over() {
    static OPENED: Count = Count::new(0);
    static TOO_EARLY: Count = Count::new(0);
    model("the_next_generation_begins_when_all_of_the_one_before_is_over", Bound::None, || {
        let (fixture, bytes) = flushing();
        let completer = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.slots[0].complete(bytes))
        };
        let slot = &fixture.slots[0];
        let opened = slot.open(2, 4096);
        assert!(!opened || slot.has_completed(1));
        completer.join().unwrap();
        hit(if opened { &OPENED } else { &TOO_EARLY });
        assert!(opened || slot.open(2, 4096));
        assert!(slot.has_completed(1) && !slot.has_completed(2));
        assert!(!slot.is_free() && slot.sealed_len() == 0);
        slot.complete(fixture.over(0));
        assert!(slot.is_openable() && slot.has_completed(2));
    });
    assert!(OPENED.load(Relaxed) > 0 && TOO_EARLY.load(Relaxed) > 0);
}

#[test]
fn a_reader_meets_one_generation_and_no_writer() {
    static FOUND: [Count; 4] = [const { Count::new(0) }; 4];
    model("a_reader_meets_one_generation_and_no_writer", Bound::None, || {
        let (fixture, bytes) = flushing();
        fixture.slots[0].complete(bytes);
        let reader = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let slot = &fixture.slots[0];
                if !slot.latch.try_acquire() {
                    hit(&FOUND[0]);
                    return false;
                }
                let (generation, base) = (slot.generation(), slot.base());
                assert_eq!(base, (generation - 1) * 4096);
                let mut target = [0; 512];
                match slot.copy_stable(0, &mut target) {
                    Copied::Bytes(512) => {
                        hit(&FOUND[generation as usize]);
                        assert_eq!(target, [generation as u8; 512]);
                    }
                    Copied::Writing => hit(&FOUND[3]),
                    Copied::Beyond => assert_eq!(generation, 2),
                    Copied::Bytes(len) => panic!("{len} bytes of generation {generation}"),
                }
                slot.latch.release()
            })
        };
        let slot = &fixture.slots[0];
        let opened = slot.open(2, 4096);
        if opened {
            assert_eq!(granted(slot, 512).release(), Released::Pending);
        }
        let was_last = reader.join().unwrap();
        assert!(opened || was_last);
    });
    assert!(FOUND.iter().all(|found| found.load(Relaxed) > 0), "{FOUND:?}");
}

/// The word loses its offset before the slot says that the write has come back.
#[test]
fn a_reader_gets_all_of_a_generation_while_its_write_comes_back() {
    model("a_reader_gets_all_of_a_generation_while_its_write_comes_back", Bound::None, || {
        let (fixture, bytes) = flushing();
        let completer = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.slots[0].complete(bytes))
        };
        let (slot, mut target, mut rest) = (&fixture.slots[0], [0; 512], Vec::new());
        assert!(slot.latch.try_acquire());
        assert_eq!(slot.copy_stable(0, &mut target), Copied::Bytes(512));
        assert_eq!(slot.copy_rest(&mut rest), Some(None));
        assert!(target == [1; 512] && rest == [1; 4096], "{} bytes", rest.len());
        let _ = slot.latch.release();
        completer.join().unwrap();
    });
}

/// Where a sealed generation ends is known before it is drained; where an open one does is not.
#[test]
fn a_new_generation_has_no_end_yet() {
    model("a_new_generation_has_no_end_yet", Bound::None, || {
        let (fixture, bytes) = flushing();
        let slot = &fixture.slots[0];
        slot.complete(bytes);
        assert!(slot.open(2, 4096));
        assert_eq!(slot.sealed_len(), 0);
        let grant = granted(slot, 1024);
        let reader = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let slot = &fixture.slots[0];
                assert!(slot.latch.try_acquire());
                assert_eq!(slot.copy_stable(512, &mut [0; 512]), Copied::Writing);
                let _ = slot.latch.release();
            })
        };
        reader.join().unwrap();
        assert_eq!(grant.release(), Released::Pending);
    });
}
