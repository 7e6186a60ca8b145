//! A thread that sees that no generation is opened any more knows where the log ends.

use super::*;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::staging::layout::Layout;
use crate::sync::model_device::ModelDevice;
use crate::{AppendError, CommitPolicy};

/// One buffer that opens in place: the generation that is taken out of use may be another than the one that was found
/// empty.
#[test]
fn a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends() {
    static APPENDED: Count = Count::new(0);
    static REFUSED: Count = Count::new(0);
    model("a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends", Bound::Preemptions(3), || {
        let arena = Arc::new(Arena::new(1, BUFFER).expect("a valid arena"));
        let core = Arc::new(Core::new(&arena, Layout::plain(&arena), true, false, CommitPolicy::default(), 0, None));
        let other = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let appended = core.append(&[1; 512], Patience::Never).is_ok();
                if appended {
                    core.seal(BufferId::new(1, 0));
                }
                (appended, core.freeze())
            })
        };
        let end = core.freeze();
        let (appended, their_end) = other.join().unwrap();
        hit(if appended { &APPENDED } else { &REFUSED });
        assert_eq!((end, their_end), if appended { (4096, 4096) } else { (0, 0) });
        assert!(core.append(&[2; 512], Patience::Never).is_err(), "a generation was opened");
    });
    assert!(APPENDED.load(Relaxed) > 0 && REFUSED.load(Relaxed) > 0);
}

/// Both buffers are at the device, and nothing else wakes the thread that waits for one of them.
#[test]
fn close_fetches_an_append_that_waits_for_room() {
    static WAITED: Count = Count::new(0);
    model("close_fetches_an_append_that_waits_for_room", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = device.ring(2, true, true);
        for _ in 0..2 {
            ring.append(&[1; BUFFER]).expect("there is room");
        }
        let waiter = {
            let core = Arc::clone(&ring.core);
            thread::spawn(move || core.append(&[2; 512], Patience::ForRoom))
        };
        ring.core.refuse_appends();
        assert_eq!(waiter.join().unwrap(), Err(AppendError::Closed));
        if ring.stats().full_waits > 0 {
            hit(&WAITED);
        }
        device.complete_from_now_on();
    });
    assert!(WAITED.load(Relaxed) > 0);
}

/// Behind a reservation that is held, with nothing at the device.
#[test]
fn close_wakes_an_append_that_sleeps_until_there_is_room() {
    static WAITED: Count = Count::new(0);
    model("close_wakes_an_append_that_sleeps_until_there_is_room", Bound::Preemptions(3), || {
        let arena = Arc::new(Arena::new(2, BUFFER).expect("a valid arena"));
        let core = Arc::new(Core::new(&arena, Layout::plain(&arena), true, true, CommitPolicy::default(), 0, None));
        let held = core.seize(512, Patience::ForRoom).expect("there is room");
        core.append(&[1; BUFFER], Patience::ForRoom).expect("there is room in the next buffer");
        let waiter = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.append(&[2; 512], Patience::ForRoom))
        };
        core.refuse_appends();
        assert_eq!(waiter.join().unwrap(), Err(AppendError::Closed));
        if core.stats().full_waits > 0 {
            hit(&WAITED);
        }
        core.release(held);
    });
    assert!(WAITED.load(Relaxed) > 0);
}
