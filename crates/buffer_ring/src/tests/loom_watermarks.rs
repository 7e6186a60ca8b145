//! A sync that its thread does not wait for, because it has a deadline.

use super::*;
use crate::ring::append::Patience;
use crate::sync::model_device::ModelDevice;

/// The thread that takes the outcome from the device ends the sync, be it the one that needs it or another. Then the
/// next can begin, for what was written meanwhile.
#[test]
fn a_sync_that_was_left_is_ended_by_another_thread() {
    static ENDED_BY_THE_WAITER: Count = Count::new(0);
    static NOT_YET: Count = Count::new(0);
    model("a_sync_that_was_left_is_ended_by_another_thread", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = device.ring(3, true, true);
        let core = &ring.core;
        let write = |generation| {
            core.append(&[1; BUFFER], Patience::ForRoom).expect("there is room");
            core.seal(BufferId::new(generation, generation as usize - 1));
        };
        write(1);
        assert!(device.complete(0));
        core.poll();
        write(2);
        let waiter = {
            let (core, device) = (Arc::clone(core), device.clone());
            thread::spawn(move || {
                assert_eq!(core.wait_durable(8192, None), Ok(()));
                assert_eq!(device.synced_up_to(), 8192);
            })
        };
        let syncer = core.writeback.claim_syncer().expect("nothing else can be synced yet");
        assert!(core.sync_device(syncer, false));
        // Its time is over.
        core.notify_waiters();
        assert!(device.complete(0));
        core.poll();
        // The sync, which does not cover what that was.
        assert!(device.complete(0));
        hit(if core.writeback.in_flight() == 0 { &ENDED_BY_THE_WAITER } else { &NOT_YET });
        core.poll();
        waiter.join().unwrap();
        assert!(!core.writeback.is_syncing());
        assert_eq!(device.syncs(), 2);
    });
    assert!(ENDED_BY_THE_WAITER.load(Relaxed) > 0 && NOT_YET.load(Relaxed) > 0);
}
