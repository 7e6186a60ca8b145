//! Group commit: commit groups, and threads that wait for durability on a ring with a device.

use super::*;
use crate::commit::groups::{CommitGroup, CommitGroups, CommitPolicy};
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::ring::flush::Sealing;
use crate::staging::slot::Flush;
use crate::sync::Parker;
use crate::sync::model_device::ModelDevice;
use crate::{AppendError, BufferRing, RingError};

fn append(core: &Core, len: usize) -> u64 {
    core.append(&vec![1; len], Patience::ForRoom).expect("there is room").end()
}

fn spawn<T: 'static>(ring: &BufferRing, body: impl FnOnce(&Core) -> T + 'static) -> thread::JoinHandle<T> {
    let core = Arc::clone(&ring.core);
    thread::spawn(move || body(&core))
}

/// Starts a group, and seals the first buffer for it, which no thread has pinned.
fn sealed(core: &Core) -> (CommitGroup<'_>, Flush<'_>) {
    let group = core.waiting.groups().start(false, || 0).expect("none is under way");
    let Sealing::Sealed(Some(flush)) = core.try_seal(BufferId::new(1, 0)) else { panic!("a writer holds the buffer") };
    (group, flush)
}

/// What the ring calls durable is so.
fn check(core: &Core, device: &ModelDevice, address: u64) {
    let durable = core.writeback.durable();
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
        assert!(mine.0 || theirs.0, "no group is under way");
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

/// A batch is on its way when another thread commits: both are notified, and of nothing that is not so. A batch that is
/// written beside another one takes a sync, when that is over.
#[test]
fn two_commits_are_durable_when_they_return() {
    static APART: Count = Count::new(0);
    static BESIDE: Count = Count::new(0);
    model("two_commits_are_durable_when_they_return", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let core = &ring.core;
        let end = append(core, 512);
        let (group, flush) = sealed(core);
        let other = {
            let device = device.clone();
            spawn(&ring, move |core| {
                let extent = core.append_durable(&[1; 512], None).expect("a working device");
                check(core, &device, extent.end());
            })
        };
        core.write_now(flush, Some(group));
        assert_eq!(core.wait_durable(end, None), Ok(()));
        check(core, &device, end);
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

/// With one group at a time, a commit that comes during it is elected when it is over.
#[test]
fn the_next_batch_starts_when_the_group_is_over() {
    static DURING: Count = Count::new(0);
    model("the_next_batch_starts_when_the_group_is_over", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring_with(3, true, true, CommitPolicy::MinBytes(u64::MAX));
        let core = &ring.core;
        append(core, 512);
        let (group, flush) = sealed(core);
        let other = spawn(&ring, |core| {
            if core.waiting.groups().count() == 1 {
                hit(&DURING);
            }
            assert!(core.append_durable(&[1; 512], None).is_ok());
        });
        core.write_now(flush, Some(group));
        other.join().unwrap();
        assert_eq!(ring.stats().buffers_flushed, 2);
    });
    assert!(DURING.load(Relaxed) > 0);
}

/// A thread that claims the sync after a failure learns of the failure, and asks the device for nothing.
#[test]
fn a_failed_sync_is_not_tried_again() {
    model("a_failed_sync_is_not_tried_again", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        append(&ring.core, BUFFER);
        ring.core.seal(BufferId::new(1, 0));
        device.break_down();
        let other = spawn(&ring, |core| core.wait_durable(4096, None));
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
        let core = &ring.core;
        let end = append(core, 512);
        let grant = core.seize(512, Patience::ForRoom).expect("there is room");
        let leader = {
            let device = device.clone();
            spawn(&ring, move |core| {
                assert_eq!(core.wait_durable(end, None), Ok(()));
                check(core, &device, end);
            })
        };
        let (slot, end) = (grant.slot(), grant.extent().end());
        if let Some(flush) = slot.try_take_flush(grant.release()) {
            hit(&LAST_OUT);
            core.write_now(flush, None);
        }
        leader.join().unwrap();
        check(core, &device, end);
        assert_eq!(ring.stats().durable_writes, 1);
    });
    assert!(LAST_OUT.load(Relaxed) > 0);
}

/// The one that waits flushes and has written what no other thread sees to, and a thread that only follows is notified.
#[test]
fn a_waiter_for_durability_flushes_what_it_needs() {
    static SLEPT: Count = Count::new(0);
    static ALREADY: Count = Count::new(0);
    model("a_waiter_for_durability_flushes_what_it_needs", Bound::None, || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        let core = &ring.core;
        let end = append(core, 512);
        let waiter = spawn(&ring, move |core| assert_eq!(core.wait_durable(end, None), Ok(())));
        let parker = Parker::new();
        let place = core.waiting.waiters().add_follower(end, parker.waker());
        if core.writeback.durable() < end {
            hit(&SLEPT);
            parker.park(None);
        } else {
            hit(&ALREADY);
        }
        core.waiting.waiters().remove_follower(place);
        check(core, &device, end);
        waiter.join().unwrap();
    });
    assert!(SLEPT.load(Relaxed) > 0 && ALREADY.load(Relaxed) > 0);
}

/// A thread that comes while a leader waits for a thread inside its buffer is called when that is over.
#[test]
fn a_commit_that_comes_while_a_leader_waits_is_elected() {
    static LAST_OUT: Count = Count::new(0);
    model("a_commit_that_comes_while_a_leader_waits_is_elected", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        // One group at a time.
        let ring = device.ring_with(3, true, true, CommitPolicy::MinBytes(u64::MAX));
        let core = Arc::clone(&ring.core);
        let end = append(&core, 512);
        let grant = core.seize(512, Patience::ForRoom).expect("there is room");
        let leader = {
            let core = Arc::clone(&core);
            thread::spawn(move || assert_eq!(core.wait_durable(end, None), Ok(())))
        };
        if let Some(flush) = grant.slot().try_take_flush(grant.release()) {
            hit(&LAST_OUT);
            core.write_now(flush, None);
            assert!(core.append_durable(&[1; 512], None).is_ok());
        }
        leader.join().unwrap();
    });
    assert!(LAST_OUT.load(Relaxed) > 0);
}

/// A buffer that went out when no thread waited needs a sync, whatever comes behind it.
#[test]
fn a_commit_behind_a_plain_write_syncs_it() {
    static SYNCED: Count = Count::new(0);
    model("a_commit_behind_a_plain_write_syncs_it", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = device.ring(2, true, true);
        append(&ring.core, BUFFER);
        ring.core.seal(BufferId::new(1, 0));
        let other = {
            let device = device.clone();
            spawn(&ring, move |core| {
                assert_eq!(core.wait_durable(4096, None), Ok(()));
                check(core, &device, 4096);
            })
        };
        let extent = ring.core.append_durable(&[1; 512], None).expect("a working device");
        check(&ring.core, &device, extent.end());
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
        let core = &ring.core;
        let grant = core.seize(512, Patience::ForRoom).expect("there is room");
        core.seal(BufferId::new(1, 0));
        append(core, 512);
        core.seal(BufferId::new(2, 1));
        assert_eq!(core.writeback.in_flight(), 1);
        let driver = spawn(&ring, |core| assert_eq!(core.wait_durable(512, None), Ok(())));
        if core.writeback.is_driven() {
            hit(&AT_THE_DEVICE);
        }
        core.write_now(grant.slot().try_take_flush(grant.release()).expect("the last one out"), None);
        driver.join().unwrap();
        device.complete_from_now_on();
    });
    assert!(AT_THE_DEVICE.load(Relaxed) > 0);
}

#[test]
fn a_failed_commit_reaches_all_that_wait() {
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("a_failed_commit_reaches_all_that_wait", Bound::None, || {
        let device = ModelDevice::instant();
        device.break_down();
        let ring = device.ring(2, true, true);
        let core = &ring.core;
        let end = append(core, 512);
        let (group, flush) = sealed(core);
        let other = spawn(&ring, move |core| {
            hit(if core.poisoned().is_none() { &BEFORE } else { &AFTER });
            core.wait_durable(end, None)
        });
        core.write_now(flush, Some(group));
        assert!(matches!(other.join().unwrap(), Err(RingError::Device(_))));
        assert!(matches!(ring.append_durable(&[1; 512]), Err(AppendError::Poisoned(RingError::Device(_)))));
        assert_eq!(ring.durable_watermark(), 0);
    });
    assert!(BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}
