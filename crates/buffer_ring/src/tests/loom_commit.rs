//! Group commit: flights, and threads that wait for durability on a ring with a device.

use super::*;
use crate::commit::groups::{CommitGroup, CommitGroups, CommitPolicy};
use crate::ring::append::Patience;
use crate::ring::core::Shared;
use crate::ring::flush::Sealing;
use crate::staging::slot::Flush;
use crate::sync::Parker;
use crate::sync::model_device::ModelDevice;
use crate::{AppendError, BufferRing, RingError};

fn append(shared: &Shared, len: usize) -> u64 {
    shared.append(&vec![1; len], Patience::ForRoom).expect("there is room").end()
}

fn spawn<T: 'static>(ring: &BufferRing, body: impl FnOnce(&Shared) -> T + 'static) -> thread::JoinHandle<T> {
    let shared = Arc::clone(&ring.shared);
    thread::spawn(move || body(&shared))
}

/// Starts a flight, and seals the first generation for it, which nobody is inside of.
fn sealed(shared: &Shared) -> (CommitGroup<'_>, Flush<'_>) {
    let group = shared.groups.start(false, || 0).expect("none is under way");
    let Sealing::Sealed(Some(flush)) = shared.try_seal(BufferId::new(1, 0)) else { panic!("somebody is inside") };
    (group, flush)
}

/// What the ring calls durable is so.
fn check(shared: &Shared, device: &ModelDevice, address: u64) {
    let durable = shared.durability.durable();
    assert!(durable >= address, "durable up to {durable}, and not {address}");
    assert!(device.synced_up_to() >= durable, "durable up to {durable}, synced up to {}", device.synced_up_to());
}

#[test]
fn one_group_starts_at_once_and_a_second_when_it_has_enough() {
    static BOTH: Count = Count::new(0);
    model("one_group_starts_at_once_and_a_second_when_it_has_enough", Bound::None, || {
        let groups = Arc::new(CommitGroups::new(CommitPolicy::Immediate));
        let fly = |groups: &CommitGroups| {
            let _waiting = groups.arrive(true);
            let group = groups.start(false, || 0);
            if let Some(group) = &group {
                assert!(group.take_members(|| 0) <= 2);
            }
            let count = groups.count();
            assert!(count <= 2, "{count} in flight");
            (group.is_some(), count)
        };
        let other = {
            let groups = Arc::clone(&groups);
            thread::spawn(move || fly(&groups))
        };
        let mine = fly(&groups);
        let theirs = other.join().unwrap();
        assert!(mine.0 || theirs.0, "nobody flies");
        assert_eq!(groups.count(), 0);
        if mine.1 == 2 || theirs.1 == 2 {
            hit(&BOTH);
        }
    });
    assert!(BOTH.load(Relaxed) > 0);
}

#[test]
fn with_a_least_interval_there_is_one_group() {
    static REFUSED: Count = Count::new(0);
    model("with_a_least_interval_there_is_one_group", Bound::None, || {
        let groups = Arc::new((CommitGroups::new(CommitPolicy::MinInterval(core::time::Duration::ZERO)), cell()));
        let fly = |(groups, cell): &(CommitGroups, Shadow)| match groups.start(false, || 0) {
            Some(_flight) => cell.write(0..512),
            None => hit(&REFUSED),
        };
        let other = {
            let groups = Arc::clone(&groups);
            thread::spawn(move || fly(&groups))
        };
        fly(&groups);
        other.join().unwrap();
    });
    assert!(REFUSED.load(Relaxed) > 0);
}

/// A batch is on its way when somebody else commits: both are told, and of nothing that is not so. A batch that is written beside
/// another one takes a sync, when that is over.
#[test]
fn two_commits_are_durable_when_they_return() {
    static APART: Count = Count::new(0);
    static BESIDE: Count = Count::new(0);
    model("two_commits_are_durable_when_they_return", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let shared = &ring.shared;
        let end = append(shared, 512);
        let (group, flush) = sealed(shared);
        let other = {
            let device = device.clone();
            spawn(&ring, move |shared| {
                let extent = shared.append_durable(&[1; 512], None).expect("a working device");
                check(shared, &device, extent.end());
            })
        };
        shared.write_now(flush, Some(group));
        assert_eq!(shared.wait_durable(end, None), Ok(()));
        check(shared, &device, end);
        other.join().unwrap();
        let stats = ring.stats();
        match (stats.buffers_flushed, stats.durable_writes, stats.syncs) {
            (2, 2, 0) => hit(&APART),
            (2, 1, 1) => hit(&BESIDE),
            more => panic!("{more:?}"),
        }
    });
    assert!(APART.load(Relaxed) > 0 && BESIDE.load(Relaxed) > 0);
}

/// With one flight at a time, who comes during it is called when it is over.
#[test]
fn the_next_batch_starts_when_the_group_is_over() {
    static DURING: Count = Count::new(0);
    model("the_next_batch_starts_when_the_group_is_over", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring_with(3, true, true, CommitPolicy::MinBytes(u64::MAX));
        let shared = &ring.shared;
        append(shared, 512);
        let (group, flush) = sealed(shared);
        let other = spawn(&ring, |shared| {
            if shared.groups.count() == 1 {
                hit(&DURING);
            }
            assert!(shared.append_durable(&[1; 512], None).is_ok());
        });
        shared.write_now(flush, Some(group));
        other.join().unwrap();
        assert_eq!(ring.stats().buffers_flushed, 2);
    });
    assert!(DURING.load(Relaxed) > 0);
}

/// Who gets the role of syncing after a failure is told of the failure, and asks the device for nothing.
#[test]
fn a_failed_sync_is_not_tried_again() {
    model("a_failed_sync_is_not_tried_again", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        append(&ring.shared, BUFFER);
        ring.shared.seal(BufferId::new(1, 0));
        device.break_down();
        let other = spawn(&ring, |shared| shared.wait_durable(4096, None));
        assert!(matches!(ring.wait_durable(4096), Err(RingError::Device(_))));
        assert!(matches!(other.join().unwrap(), Err(RingError::Device(_))));
        assert_eq!((ring.durable_watermark(), device.syncs()), (0, 1));
    });
}

/// A leader seals the batch while another committer is still inside: that one writes for both.
#[test]
fn the_last_one_out_writes_for_the_leader() {
    static LAST_OUT: Count = Count::new(0);
    model("the_last_one_out_writes_for_the_leader", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let shared = &ring.shared;
        let end = append(shared, 512);
        let grant = shared.seize(512, Patience::ForRoom).expect("there is room");
        let leader = {
            let device = device.clone();
            spawn(&ring, move |shared| {
                assert_eq!(shared.wait_durable(end, None), Ok(()));
                check(shared, &device, end);
            })
        };
        let (slot, end) = (grant.slot(), grant.extent().end());
        if let Some(flush) = slot.try_take_flush(grant.release()) {
            hit(&LAST_OUT);
            shared.write_now(flush, None);
        }
        leader.join().unwrap();
        check(shared, &device, end);
        assert_eq!(ring.stats().durable_writes, 1);
    });
    assert!(LAST_OUT.load(Relaxed) > 0);
}

/// The one who waits flushes and has written what nobody else sees to, and who only follows is told.
#[test]
fn a_waiter_for_durability_flushes_what_it_needs() {
    static SLEPT: Count = Count::new(0);
    static ALREADY: Count = Count::new(0);
    model("a_waiter_for_durability_flushes_what_it_needs", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let shared = &ring.shared;
        let end = append(shared, 512);
        let waiter = spawn(&ring, move |shared| assert_eq!(shared.wait_durable(end, None), Ok(())));
        let parker = Parker::new();
        let place = shared.waiters.add_follower(end, parker.waker());
        if shared.durability.durable() < end {
            hit(&SLEPT);
            parker.park(None);
        } else {
            hit(&ALREADY);
        }
        shared.waiters.remove_follower(place);
        check(shared, &device, end);
        waiter.join().unwrap();
    });
    assert!(SLEPT.load(Relaxed) > 0 && ALREADY.load(Relaxed) > 0);
}

/// Who comes while a leader waits for somebody inside its buffer is called when that is over.
#[test]
fn a_commit_that_comes_while_a_leader_waits_is_elected() {
    static LAST_OUT: Count = Count::new(0);
    model("a_commit_that_comes_while_a_leader_waits_is_elected", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        // One flight at a time.
        let ring = device.ring_with(3, true, true, CommitPolicy::MinBytes(u64::MAX));
        let shared = Arc::clone(&ring.shared);
        let end = append(&shared, 512);
        let grant = shared.seize(512, Patience::ForRoom).expect("there is room");
        let leader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || assert_eq!(shared.wait_durable(end, None), Ok(())))
        };
        if let Some(flush) = grant.slot().try_take_flush(grant.release()) {
            hit(&LAST_OUT);
            shared.write_now(flush, None);
            assert!(shared.append_durable(&[1; 512], None).is_ok());
        }
        leader.join().unwrap();
    });
    assert!(LAST_OUT.load(Relaxed) > 0);
}

/// A buffer that went out when nobody waited needs a sync, whatever comes behind it.
#[test]
fn a_commit_behind_a_plain_write_syncs_it() {
    static SYNCED: Count = Count::new(0);
    model("a_commit_behind_a_plain_write_syncs_it", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        append(&ring.shared, BUFFER);
        ring.shared.seal(BufferId::new(1, 0));
        let other = {
            let device = device.clone();
            spawn(&ring, move |shared| {
                assert_eq!(shared.wait_durable(4096, None), Ok(()));
                check(shared, &device, 4096);
            })
        };
        let extent = ring.shared.append_durable(&[1; 512], None).expect("a working device");
        check(&ring.shared, &device, extent.end());
        other.join().unwrap();
        assert!(ring.stats().syncs > 0);
        if ring.stats().syncs == 1 {
            hit(&SYNCED);
        }
    });
    assert!(SYNCED.load(Relaxed) > 0);
}

/// The driver sleeps at the device, for a write that is not its own; its own is made by another thread.
#[test]
fn a_write_in_a_thread_of_its_own_fetches_the_driver_from_the_device() {
    static AT_THE_DEVICE: Count = Count::new(0);
    model("a_write_in_a_thread_of_its_own_fetches_the_driver_from_the_device", Bound::None, || {
        let device = ModelDevice::held();
        let ring = device.ring(2, true, true);
        let shared = &ring.shared;
        let grant = shared.seize(512, Patience::ForRoom).expect("there is room");
        shared.seal(BufferId::new(1, 0));
        append(shared, 512);
        shared.seal(BufferId::new(2, 1));
        assert_eq!(shared.device.in_flight(), 1);
        let driver = spawn(&ring, |shared| assert_eq!(shared.wait_durable(512, None), Ok(())));
        if shared.driver.is_claimed() {
            hit(&AT_THE_DEVICE);
        }
        shared.write_now(grant.slot().try_take_flush(grant.release()).expect("the last one out"), None);
        driver.join().unwrap();
        device.complete_from_now_on();
    });
    assert!(AT_THE_DEVICE.load(Relaxed) > 0);
}

#[test]
fn a_failed_commit_reaches_all_who_wait() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("a_failed_commit_reaches_all_who_wait", Bound::None, || {
        let device = ModelDevice::instant();
        device.break_down();
        let ring = device.ring(2, true, true);
        let shared = &ring.shared;
        let end = append(shared, 512);
        let (group, flush) = sealed(shared);
        let other = spawn(&ring, move |shared| {
            hit(if shared.poisoned().is_none() { &BEFORE } else { &AFTER });
            shared.wait_durable(end, None)
        });
        shared.write_now(flush, Some(group));
        assert!(matches!(other.join().unwrap(), Err(RingError::Device(_))));
        assert!(matches!(ring.append_durable(&[1; 512]), Err(AppendError::Poisoned(RingError::Device(_)))));
        assert_eq!(ring.durable_watermark(), 0);
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}
