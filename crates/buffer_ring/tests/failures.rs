//! A device that fails: all threads is notified, nothing is acknowledged any more, and what is not a failure is no
//! failure.

mod common;

use std::sync::Barrier;
use std::thread;

use buffer_ring::ring_io::Operation;
use buffer_ring::{AppendError, BufferRing, MemoryDevice, RingError, RotateError};
use common::{
    EAGAIN, EIO, Holding, LIMIT, MOMENT, current, eventually, fixed, in_memory, options, pattern, read, stored, within,
};

const ENOSPC: i32 = 28;

fn errno(error: &RingError) -> (Operation, Option<i32>) {
    let RingError::Device(error) = error else { panic!("{error:?}") };
    (error.operation(), error.errno())
}

/// Everything that appends or waits answers with `failure`, and the durable watermark stays.
fn assert_poisoned(ring: &BufferRing, failure: &RingError) {
    let durable = ring.durable_watermark();
    let refused = AppendError::Poisoned(failure.clone());
    assert_eq!(ring.poisoned().as_ref(), Some(failure));
    assert_eq!(ring.append(b"x").as_ref(), Err(&refused));
    assert_eq!(ring.try_append(b"x").as_ref(), Err(&refused));
    let mut writer = ring.writer();
    assert_eq!(writer.append(b"x").as_ref(), Err(&refused));
    assert_eq!(writer.try_append(b"x").as_ref(), Err(&refused));
    assert_eq!(writer.append_durable(b"x").as_ref(), Err(&refused));
    assert_eq!(ring.append_timeout(b"x", LIMIT).as_ref(), Err(&refused));
    assert_eq!(ring.append_vectored(&[std::io::IoSlice::new(b"x")]).as_ref(), Err(&refused));
    assert_eq!(ring.append_durable(b"x").as_ref(), Err(&refused));
    assert_eq!(ring.reserve(1).err().as_ref(), Some(&refused));
    assert_eq!(ring.sync().as_ref(), Err(failure));
    assert_eq!(ring.sync_timeout(LIMIT).as_ref(), Err(failure));
    assert_eq!(ring.wait_durable(durable + 1).as_ref(), Err(failure));
    assert_eq!(ring.rotate(), Err(RotateError::Poisoned(failure.clone())));
    assert_eq!(ring.durable_watermark(), durable, "it never moves again");
}

#[test]
fn a_failed_write_poisons_the_ring_and_the_bytes_stay_readable() {
    within(LIMIT, || {
        for (options, errno_given) in [(options(3, 4096), EIO), (options(3, 4096), ENOSPC), (fixed(3, 4096), EIO)] {
            let (ring, device) = in_memory(options);
            let first = ring.append_durable(&pattern(1, 1000)).expect("a working device");
            device.fail_write(0, errno_given);
            let lost = ring.append(&pattern(2, 1000)).expect("room");
            let handle = current(&ring);
            let failure = ring.flush(&handle).wait().expect_err("a failing device");
            assert_eq!(errno(&failure), (Operation::Write, Some(errno_given)));
            assert_poisoned(&ring, &failure);
            assert_eq!((ring.durable_watermark(), ring.written_watermark()), (4096, 4096));
            assert_eq!(ring.wait_durable(first.end()), Ok(()), "what was durable stays so");
            assert!(!handle.is_written());
            assert!(read(&ring, first) == pattern(1, 1000) && read(&ring, lost) == pattern(2, 1000), "for rescue");
            assert_eq!(ring.close(), Err(failure));
            assert_eq!(device.writes().len(), 2, "a failed write is not tried again");
        }
    });
}

#[test]
fn bytes_staged_behind_a_failure_stay_readable_and_are_not_written() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let holding = Holding::new(&device);
        device.fail_write(0, EIO);
        let extents = [0, 1, 2].map(|id| ring.append(&pattern(id, 4000)).expect("room"));
        let open = ring.append(&pattern(3, 10)).expect("room");
        let ticket = ring.flush(&current(&ring));
        drop(holding);
        let failure = ring.sync().expect_err("a failing device");
        assert!(ticket.wait().is_ok() || ticket.wait() == Err(failure.clone()), "its own write may have succeeded");
        assert_poisoned(&ring, &failure);
        assert_eq!((ring.durable_watermark(), ring.written_watermark()), (0, 0), "the first buffer is missing");
        for (id, extent) in (0..).zip(extents) {
            assert!(read(&ring, extent) == pattern(id, 4000), "buffer {id}");
        }
        assert!(read(&ring, open) == pattern(3, 10));
        let writes = device.writes().len();
        drop(ring);
        assert_eq!(device.writes().len(), writes, "nothing is written after a failure");
    });
}

/// Threads that wait in every way there is; then `fail`; then all of them have the error.
fn everybody_wakes_up(fail: impl FnOnce(&MemoryDevice)) {
    let (ring, device) = in_memory(options(2, 4096));
    let holding = Holding::new(&device);
    device.fail_write(0, EIO);
    ring.append(&[1; 4096]).expect("room");
    ring.append(&[2; 4096]).expect("room");
    let ticket = ring.flush(&current(&ring));
    assert_eq!(device.held(), 2);
    let begun = Barrier::new(10);
    thread::scope(|scope| {
        let poisoned = |error| match error {
            AppendError::Poisoned(failure) => failure,
            other => panic!("{other}"),
        };
        let (ring, begun, ticket) = (&ring, &begun, &ticket);
        let waits: [Box<dyn FnOnce() -> Option<RingError> + Send>; 9] = [
            Box::new(move || ring.append(b"x").err().map(poisoned)),
            Box::new(move || ring.append_durable(b"x").err().map(poisoned)),
            Box::new(move || ring.writer().append(b"x").err().map(poisoned)),
            Box::new(move || ring.writer().append_durable(b"x").err().map(poisoned)),
            Box::new(move || ring.reserve(1).err().map(poisoned)),
            Box::new(move || ring.append_timeout(b"x", LIMIT).err().map(poisoned)),
            Box::new(move || ring.sync().err()),
            Box::new(move || ring.wait_durable(1).err()),
            // Its own write may succeed before the other one's failure is noticed.
            Box::new(move || ticket.wait().err().or_else(|| ring.sync().err())),
        ];
        let threads = waits.map(|wait| {
            scope.spawn(move || {
                begun.wait();
                wait()
            })
        });
        begun.wait();
        fail(&device);
        for waiting in threads {
            let error = waiting.join().expect("no panic").expect("the device failed");
            assert_eq!(errno(&error), (Operation::Write, Some(EIO)));
        }
    });
    assert_eq!((ring.durable_watermark(), ring.written_watermark()), (0, 0));
    drop(holding);
}

#[test]
fn a_failed_write_reaches_all_that_wait() {
    within(LIMIT, || {
        for _ in 0..50 {
            everybody_wakes_up(MemoryDevice::release_all);
            everybody_wakes_up(|device| device.release(0));
        }
    });
}

#[test]
fn a_failed_sync_poisons_and_is_never_made_up_for() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let first = ring.append_durable(&[1; 100]).expect("a working device");
        assert_eq!((device.syncs(), ring.stats().durable_writes), (0, 1), "a commit is one durable write");
        ring.append(&[2; 100]).expect("room");
        // No thread waits for durability yet: a plain write, which a sync has to follow.
        ring.flush(&current(&ring)).wait().expect("written");
        device.fail_sync(EIO);
        let failure = ring.sync().expect_err("a failing sync");
        assert_eq!(errno(&failure), (Operation::Sync, Some(EIO)));
        // The device would say yes from now on.
        assert_poisoned(&ring, &failure);
        assert_eq!(ring.sync(), Err(failure.clone()));
        assert_eq!((device.syncs(), ring.stats().syncs), (1, 0), "nobody asked the device again");
        assert_eq!((ring.durable_watermark(), ring.written_watermark()), (4096, 8192));
        assert_eq!(ring.wait_durable(first.end()), Ok(()));
        assert_eq!(ring.close(), Err(failure));
        assert_eq!(device.syncs(), 1);
    });
}

/// No thread is at the device, and a thread that had the sync made is gone: the thread that waits then has its outcome.
#[test]
fn a_failed_sync_that_was_left_reaches_all_and_is_never_made_up_for() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        ring.append(&[1; 100]).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        let holding = Holding::new(&device);
        device.fail_sync(EIO);
        while device.syncs() == 0 {
            assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
        }
        thread::scope(|scope| {
            let ring = &ring;
            let waits: [fn(&BufferRing) -> Option<RingError>; 4] = [
                |ring| ring.wait_durable(4096).err(),
                |ring| ring.wait_durable_timeout(4096, LIMIT).err(),
                |ring| ring.sync().err(),
                |ring| ring.sync_timeout(LIMIT).err(),
            ];
            let waits = waits.map(|wait| scope.spawn(move || wait(ring)));
            drop(holding);
            for wait in waits {
                let failure = wait.join().expect("no panic").expect("the device failed");
                assert_eq!(errno(&failure), (Operation::Sync, Some(EIO)));
            }
        });
        // The device would say yes from now on.
        let failure = ring.poisoned().expect("poisoned");
        assert_poisoned(&ring, &failure);
        assert_eq!((ring.durable_watermark(), ring.written_watermark()), (0, 4096));
        assert_eq!((ring.close(), device.syncs(), device.durable_writes().len()), (Err(failure), 1, 0));
    });
}

#[test]
fn a_failure_takes_back_the_leases_of_every_buffer() {
    within(LIMIT, || {
        for before in 1..4 {
            let (ring, device) = in_memory(options(4, 1 << 16));
            let holding = Holding::new(&device);
            device.fail_write(0, EIO);
            let mut writer = ring.writer();
            (0..before).for_each(|_| _ = ring.append(&[1; 1 << 16]).expect("room"));
            (0..50).for_each(|_| _ = writer.append(&[2; 16]).expect("room"));
            assert!(ring.stats().writers.leased_records > 0, "it has a lease in buffer {before}");
            // Nothing seals that buffer; only the failure ends the lease.
            drop(holding);
            eventually("the failure is noticed", || {
                let _ = ring.written_watermark();
                ring.poisoned().is_some()
            });
            let failure = ring.poisoned().expect("poisoned");
            assert_eq!(writer.append(&[3; 16]), Err(AppendError::Poisoned(failure)), "buffer {before}");
        }
    });
}

#[test]
fn what_was_written_or_durable_before_a_failure_is_reported_so_after_it() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let durable = ring.append_durable(&[1; 100]).expect("a working device");
        ring.append(&[2; 100]).expect("room");
        let written = ring.flush(&current(&ring));
        written.wait().expect("a working device");
        device.fail_write(0, EIO);
        ring.append(&[3; 100]).expect("room");
        let lost = ring.flush(&current(&ring));
        let failure = lost.wait().expect_err("a failing device");
        assert_eq!((written.wait(), written.wait_timeout(LIMIT), written.is_done()), (Ok(()), Ok(()), true));
        let watch = ring.durable_watch();
        assert_eq!((watch.wait_ge(durable.end()), ring.wait_durable(durable.end())), (Ok(4096), Ok(())));
        assert_eq!((watch.wait_ge(4097), ring.wait_durable(4097)), (Err(failure.clone()), Err(failure.clone())));
        assert!(!lost.is_done());
        drop(ring);
        assert_eq!((written.wait(), lost.wait(), watch.wait_ge(4096)), (Ok(()), Err(failure), Ok(4096)));
    });
}

/// What it covered may have been what failed: the device says that once.
#[test]
fn a_sync_that_succeeds_after_a_failure_moves_no_watermark_of_what_is_durable() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        ring.append(&[1; 100]).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        let _holding = Holding::new(&device);
        while device.syncs() == 0 {
            assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
        }
        ring.append(&[2; 100]).expect("room");
        ring.flush(&current(&ring));
        device.fail_write(0, EIO);
        ring.append(&[3; 100]).expect("room");
        let failing = ring.flush(&current(&ring));
        // The sync is the oldest, then come the two writes.
        device.release(2);
        let failure = failing.wait().expect_err("a failing device");
        assert_eq!(errno(&failure), (Operation::Write, Some(EIO)));
        device.release(0);
        eventually("the sync has ended", || ring.stats().syncs == 1);
        assert_eq!(ring.durable_watermark(), 0);
        assert_poisoned(&ring, &failure);
        let watch = ring.durable_watch();
        device.release_all();
        drop(ring);
        assert_eq!((watch.get(), watch.wait_ge(1)), (0, Err(failure)));
    });
}

/// The thread that drives the device sleeps there, not where others do.
#[test]
fn a_failed_sync_wakes_even_the_thread_that_drives_the_device() {
    within(LIMIT, || {
        for _ in 0..50 {
            let (ring, device) = in_memory(options(2, 4096));
            ring.append(&[1; 4096]).expect("room");
            ring.flush(&current(&ring)).wait().expect("written");
            let _holding = Holding::new(&device);
            ring.append(&[2; 4096]).expect("room");
            ring.append(&[3; 4096]).expect("room");
            let last = current(&ring);
            device.fail_sync(EIO);
            thread::scope(|scope| {
                let waiting = scope.spawn(|| ring.append(&[4; 4096]));
                eventually("the append has sealed the last buffer", || last.is_sealed());
                let failure = ring.wait_durable(4096).expect_err("a failing sync");
                assert_eq!(waiting.join().expect("no panic"), Err(AppendError::Poisoned(failure)));
            });
        }
    });
}

#[test]
fn a_sync_covers_only_writes_that_completed_before_it_began() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        ring.append(&pattern(1, 4096)).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        let holding = Holding::new(&device);
        ring.append(&pattern(2, 4096)).expect("room");
        let ticket = ring.flush(&current(&ring));
        assert_eq!(ring.wait_durable(4096), Ok(()));
        assert_eq!((ring.durable_watermark(), device.syncs()), (4096, 1));
        drop(holding);
        ticket.wait().expect("written");
        assert_eq!((ring.written_watermark(), ring.durable_watermark()), (8192, 4096), "written after the sync");
        assert_eq!(ring.sync(), Ok(8192));
        assert_eq!(device.syncs(), 2);
    });
}

/// The device reports an error once. So its success reports nothing while another call has it flushed, which may be
/// expressed that error.
#[test]
fn at_most_one_cache_flush_is_in_flight() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        // Written plainly, so that it needs a sync.
        ring.append(&[1; 100]).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        let holding = Holding::new(&device);
        thread::scope(|scope| {
            let beside = scope.spawn(|| ring.append_durable(&[2; 100]));
            eventually("a commit is at the device", || device.held() == 1);
            assert_eq!(ring.wait_durable(4096), Ok(()));
            assert_eq!((device.syncs(), device.durable_writes().len()), (1, 0));
            drop(holding);
            assert!(beside.join().expect("no panic").is_ok());
        });
        assert_eq!((device.syncs(), device.durable_writes().len(), ring.durable_watermark()), (2, 0, 8192));
    });
}

#[test]
fn no_cache_flush_begins_beside_a_durable_write_or_after_it_failed() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        device.fail_write(0, EIO);
        let holding = Holding::new(&device);
        thread::scope(|scope| {
            let commits = [1, 2].map(|count| {
                let commit = scope.spawn(|| ring.append_durable(&[1; 100]));
                eventually("the commit is at the device", || device.held() == count);
                commit
            });
            assert_eq!((device.syncs(), device.durable_writes().len()), (0, 1), "only the first");
            device.release(1);
            drop(holding);
            for commit in commits {
                assert!(matches!(commit.join().expect("no panic"), Err(AppendError::Poisoned(RingError::Device(_)))));
            }
        });
        assert_eq!((device.syncs(), device.durable_writes().len(), ring.durable_watermark()), (0, 1, 0));
    });
}

#[test]
fn short_writes_and_put_off_writes_are_no_failures() {
    within(LIMIT, || {
        for short in [1, 512, 2048, 4096, 4097, 10000] {
            let (ring, device) = in_memory(options(2, 16384));
            device.shorten_write(0, short);
            device.shorten_write(1, 4096);
            device.fail_write(2, EAGAIN);
            let extent = ring.append(&pattern(1, 16384)).expect("room");
            assert_eq!(ring.sync(), Ok(16384), "{short} bytes at first");
            assert!(stored(&device, extent) == pattern(1, 16384) && device.synced() == device.contents());
            assert!(device.writes().len() >= 4, "{:?}", device.writes());
            assert!(device.writes().iter().all(|&(offset, len)| offset % 4096 == 0 && len % 4096 == 0), "all aligned");
            assert_eq!((ring.poisoned(), ring.stats().buffers_flushed), (None, 1));
        }
    });
}

#[test]
fn a_device_that_takes_nothing_is_a_failure_and_no_endless_loop() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        device.shorten_write(0, 0);
        ring.append(&[1; 100]).expect("room");
        let failure = ring.sync().expect_err("a device that takes nothing");
        assert_eq!(errno(&failure), (Operation::Write, None));
        assert_poisoned(&ring, &failure);
    });
}

#[test]
fn the_first_failure_is_the_one_that_is_kept() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let _holding = Holding::new(&device);
        device.fail_write(0, ENOSPC);
        device.fail_write(1, EIO);
        ring.append(&[1; 4096]).expect("room");
        ring.append(&[2; 4096]).expect("room");
        ring.flush(&current(&ring));
        device.release(1);
        eventually("the second write's failure is noticed", || ring.sync_timeout(MOMENT) != Err(RingError::TimedOut));
        let failure = ring.poisoned().expect("poisoned");
        assert_eq!(errno(&failure), (Operation::Write, Some(EIO)));
        let watch = ring.durable_watch();
        device.release(0);
        assert_eq!(ring.close(), Err(failure.clone()));
        assert_eq!(watch.wait_ge(1), Err(failure), "also when the other one has come back");
    });
}
