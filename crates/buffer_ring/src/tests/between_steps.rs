//! What a thread finds that comes between two steps of another one: done here by one thread, in that order.

use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;

use ring_alloc::{Arena, BLOCK};
use ring_io::MemoryDevice;

use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::ring::drive::deadline;
use crate::staging::layout::Layout;
use crate::staging::rotation::BufferId;
use crate::sync::fence::Barrier;
use crate::writeback::device;
use crate::{AppendError, CommitPolicy, QuikIO, RingError, WriteMode};

/// A hang, and nothing else, takes longer.
const LIMIT: Duration = Duration::from_secs(20);

fn without_device(buffers: usize) -> Core {
    let arena = Arc::new(Arena::new(buffers, BLOCK).expect("a valid arena"));
    Core::new(&arena, Layout::plain(&arena), true, true, CommitPolicy::default(), 0, None)
}

fn on_a_device(mode: WriteMode) -> (Arc<Core>, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    drop(io);
    let io = device.builder().write_mode(mode).build().expect("a device");
    let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
    let queue = device::attach(&Arc::new(io), &arena).expect("the only queue");
    (
        Core::new(&arena, Layout::plain(&arena), true, true, CommitPolicy::default(), 0, Some(queue)).into_shared(),
        device,
    )
}

/// The second generation is open in the only slot, and its opener has not made it current yet.
fn unpublished() -> (Core, BufferId) {
    let core = without_device(1);
    core.append(&[1; BLOCK], Patience::Never).expect("there is room");
    let first = core.staging.current();
    let slot = core.staging.slot(first);
    let pin = slot.pin().expect("it is open");
    let _ = pin.seal();
    slot.complete(slot.try_take_flush(pin.release()).expect("no thread is inside").freeze(0).expect("no framing"));
    assert!(slot.open(2, BLOCK as u64));
    assert_eq!(core.staging.current(), first);
    (core, BufferId::new(2, 0))
}

#[test]
fn an_append_in_a_generation_that_is_not_published_publishes_it() {
    let (core, second) = unpublished();
    let extent = core.append(b"record", Patience::Never).expect("there is room");
    assert_eq!((extent.start(), core.staging.current()), (BLOCK as u64, second));
}

#[test]
fn the_tail_in_a_generation_that_is_not_published_publishes_it() {
    let (core, second) = unpublished();
    assert_eq!((core.tail(), core.staging.current()), (BLOCK as u64, second));
}

/// Another thread seals between reservation and release, so that the append is the last one out.
#[test]
fn a_durable_append_that_is_the_last_one_out_writes_durably_itself() {
    for mode in [WriteMode::default(), WriteMode::Serialized] {
        let (core, device) = on_a_device(mode);
        let extent = core.append_durable_with(8, None, |target| {
            target.fill(1);
            assert!(core.seal(core.staging.current()));
        });
        assert_eq!(extent.map(|extent| extent.end()), Ok(8));
        assert_eq!((device.durable_writes(), device.syncs()), (vec![(0, BLOCK)], 0), "{mode:?}");
    }
}

#[test]
fn a_durable_append_with_a_deadline_that_is_the_last_one_out_is_not_at_the_device() {
    let (core, device) = on_a_device(WriteMode::default());
    device.hold();
    let (done, outcome) = mpsc::channel();
    let appender = {
        let core = Arc::clone(&core);
        thread::spawn(move || {
            let end = deadline(Duration::from_millis(5));
            let outcome = core.append_durable_with(8, end, |target| {
                target.fill(1);
                assert!(core.seal(core.staging.current()));
            });
            done.send(outcome).expect("it is waited for");
        })
    };
    let outcome = outcome.recv_timeout(LIMIT).expect("its time is over, whatever the device does");
    assert!(matches!(outcome, Err(AppendError::NotDurableYet(extent)) if extent.end() == 8), "{outcome:?}");
    appender.join().expect("no panic");
    device.release_all();
    core.wait_durable(8, None).expect("a working device");
}

#[test]
fn a_new_log_has_nothing_unfinished() {
    let (core, device) = on_a_device(WriteMode::default());
    assert_eq!(core.unfinished(), None);
    device.hold();
    let outcome = core.append_durable(b"record", deadline(Duration::from_millis(5)));
    assert!(matches!(outcome, Err(AppendError::NotDurableYet(_))), "{outcome:?}");
    assert_eq!(core.unfinished(), Some(6));
    device.release_all();
    core.wait_durable(6, None).expect("a working device");
    assert_eq!(core.unfinished(), None);
}

#[test]
fn the_end_waits_for_followers_that_are_at_work_and_calls_them_back() {
    use crate::sync::Ordering::Relaxed;

    let core = Arc::new(without_device(1));
    let (began, begun) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let follower = {
        let core = Arc::clone(&core);
        thread::spawn(move || {
            core.work_as_follower(|ending| {
                began.send(()).expect("it is waited for");
                while !ending.load(Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(20));
                done.send(()).expect("it is waited for");
            })
        })
    };
    begun.recv_timeout(LIMIT).expect("it begins");
    core.end_helpers();
    assert_eq!(ended.try_recv(), Ok(()), "the ring goes only after it");
    assert_eq!(follower.join().expect("no panic"), Some(()));
}

#[test]
fn a_core_says_that_it_is_driven_and_that_it_is_failing_and_what_its_writers_pass() {
    let (core, device) = on_a_device(WriteMode::default());
    device.hold();
    core.append(b"record", Patience::Never).expect("there is room");
    assert!(core.seal(core.staging.current()));
    let look = || [core.writeback.is_driven(), core.writeback.is_driven_now()];
    let before = look();
    let driver = core.writeback.claim_driver().expect("there is something in flight");
    let meanwhile = look();
    core.release_driver(driver);
    let after = look();
    // A held write would keep a failure of this test from ending.
    device.release_all();
    assert_eq!([before, meanwhile, after], [[false; 2], [true; 2], [false; 2]]);
    assert_eq!(core.stats().writers.membarrier, Barrier::probe() == Barrier::Membarrier);
    core.wait_durable(6, None).expect("a working device");
    assert!(!core.is_failing());
    core.poison(RingError::Closed);
    assert!(core.is_failing() && core.poisoned() == Some(RingError::Closed));
}
