//! The ring's own threads: what is wanted of them is done, also if it comes late, and they end with the ring.

use super::*;
use crate::commit::groups::CommitPolicy;
use crate::ring::append::Patience;
use crate::ring::commit::DurabilityWait;
use crate::sync::model_device::ModelDevice;
use crate::sync::{AtomicBool, Ordering, Parker};
use crate::{BufferRing, RingError};

fn append(ring: &BufferRing, len: usize) -> u64 {
    ring.core.append(&vec![1; len], Patience::ForRoom).expect("there is room").end()
}

/// A thread that is parked because another one leads a batch, or is just about to park, comes back at once when it is
/// cancelled.
#[test]
fn a_thread_that_is_cancelled_comes_back_from_where_it_parks() {
    static PARKED: Count = Count::new(0);
    static BEFORE: Count = Count::new(0);
    model("a_thread_that_is_cancelled_comes_back_from_where_it_parks", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring_with(2, true, true, CommitPolicy::MinBytes(u64::MAX));
        let core = &ring.core;
        let address = append(&ring, 512);
        let group = core.waiting.groups().start(false, || 0).expect("none is under way");
        let cancelled = Arc::new(AtomicBool::new(false));
        let helper = {
            let (core, cancelled) = (Arc::clone(core), Arc::clone(&cancelled));
            thread::spawn(move || {
                core.run(DurabilityWait { upto: address, deadline: None, cancelled: Some(&cancelled) })
            })
        };
        hit(if core.waiting.waiters().is_empty() { &BEFORE } else { &PARKED });
        cancelled.store(true, Ordering::Relaxed);
        core.wake_helper_at(address);
        assert_eq!(helper.join().unwrap(), Err(RingError::TimedOut));
        drop(group);
    });
    assert!(PARKED.load(Relaxed) > 0 && BEFORE.load(Relaxed) > 0);
}

/// A task leaves its waker while the thread does not exist, sleeps, or is at the task before.
#[test]
fn a_task_is_woken_when_its_bytes_are_durable() {
    model("a_task_is_woken_when_its_bytes_are_durable", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(3, true, true);
        for end in [4096, 8192] {
            let address = append(&ring, 512);
            let parker = Parker::new();
            let waits = ring.core.await_commit(address, parker.waker());
            assert!(waits.is_ok());
            parker.park(None);
            assert_eq!(ring.durable_watermark(), end);
        }
        drop(ring);
    });
}

/// The thread waits for bytes behind a reservation; a task comes that needs less.
#[test]
fn a_task_that_needs_less_is_served_first() {
    static RECALLED: Count = Count::new(0);
    model("a_task_that_needs_less_is_served_first", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(2, true, true);
        let core = &ring.core;
        // Written, and in need of a sync.
        let lower = append(&ring, BUFFER);
        core.seal(BufferId::new(1, 0));
        let grant = core.seize(512, Patience::ForRoom).expect("there is room");
        let higher = append(&ring, 512);
        let [first, second] = [(); 2].map(|()| Parker::new());
        assert!(core.await_commit(higher, first.waker()).is_ok());
        if core.waiting.waiters().is_empty() {
            hit(&RECALLED);
        }
        assert!(core.await_commit(lower, second.waker()).is_ok());
        second.park(None);
        assert_eq!(ring.durable_watermark(), lower);
        core.release(grant);
        first.park(None);
        assert!(ring.durable_watermark() >= higher);
        drop(ring);
    });
    assert!(RECALLED.load(Relaxed) > 0);
}

#[test]
fn a_task_is_woken_when_there_is_room() {
    model("a_task_is_woken_when_there_is_room", Bound::Preemptions(3), || {
        let device = ModelDevice::held();
        let ring = device.ring(1, true, true);
        let core = &ring.core;
        append(&ring, BUFFER);
        let seen = core.staging.current();
        core.seal(seen);
        let releaser = {
            let device = device.clone();
            thread::spawn(move || device.complete_from_now_on())
        };
        let parker = Parker::new();
        assert!(core.await_room(seen, parker.waker()).is_ok());
        parker.park(None);
        assert!(core.staging.current() != seen);
        releaser.join().unwrap();
        drop(ring);
    });
}

/// The ring goes while its threads are at work, or about to begin.
#[test]
fn the_threads_end_with_the_ring_whatever_they_wait_for() {
    static PENDING: Count = Count::new(0);
    model("the_threads_end_with_the_ring_whatever_they_wait_for", Bound::Preemptions(3), || {
        let ring = ModelDevice::instant().ring(2, true, true);
        let address = append(&ring, 512);
        let parker = Parker::new();
        assert!(ring.core.await_commit(address, parker.waker()).is_ok());
        if ring.durable_watermark() < address {
            hit(&PENDING);
        }
        drop(ring);
        // With the outcome, or to find that the ring has gone.
        parker.park(None);
    });
    assert!(PENDING.load(Relaxed) > 0);
}

/// The thread at the device waits for another write; what it needs comes by a sync that another thread makes.
#[test]
fn a_sync_fetches_the_driver_from_the_device() {
    static AT_THE_DEVICE: Count = Count::new(0);
    model("a_sync_fetches_the_driver_from_the_device", Bound::None, || {
        let device = ModelDevice::held();
        let ring = device.ring(2, true, true);
        let core = &ring.core;
        let address = append(&ring, BUFFER);
        core.seal(BufferId::new(1, 0));
        assert!(device.complete(0));
        core.poll();
        append(&ring, 512);
        core.seal(BufferId::new(2, 1));
        assert_eq!((core.writeback.in_flight(), ring.written_watermark()), (1, address));
        let syncer = core.writeback.claim_syncer().expect("no thread syncs");
        let driver = {
            let core = Arc::clone(core);
            thread::spawn(move || core.wait_durable(address, None))
        };
        if core.writeback.is_driven() {
            hit(&AT_THE_DEVICE);
        }
        assert!(core.sync_device(syncer, true));
        assert_eq!(driver.join().unwrap(), Ok(()));
        device.complete_from_now_on();
    });
    assert!(AT_THE_DEVICE.load(Relaxed) > 0);
}
