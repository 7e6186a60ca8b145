//! What becomes of writes when the device misbehaves, fault by fault, on the engine that misbehaves on request.

mod common;

use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use common::{Holding, attach, bytes, drain, pattern};
use ring_alloc::BLOCK;
use ring_io::{DeviceError, DeviceEvent, Finished, MemoryDevice, Operation, QuikIO, Wait, WriteQueue};
use rustix::io::Errno;

const AT: u64 = 3 * BLOCK as u64;
const LEN: usize = 4 * BLOCK;

fn device() -> (Arc<QuikIO>, MemoryDevice, WriteQueue) {
    let (io, device) = QuikIO::in_memory();
    let io = Arc::new(io);
    let queue = attach(&io);
    (io, device, queue)
}

/// One write of `LEN` bytes at `AT`, and what came of it.
fn write(queue: &WriteQueue) -> Result<(), DeviceError> {
    queue.submit(1, bytes(1, LEN), AT);
    let mut finished = drain(queue);
    assert_eq!(finished.len(), 1);
    assert!(finished[0].bytes[..] == pattern(1, LEN));
    finished.remove(0).result
}

fn landed(device: &MemoryDevice) -> bool {
    device.contents()[AT as usize..] == pattern(1, LEN)
}

#[test]
fn a_short_write_goes_on_from_the_last_whole_block() {
    for (short, resumed) in [(2 * BLOCK, 2), (BLOCK + 1, 1), (2 * BLOCK - 1, 1), (LEN - 1, 3), (2048, 0)] {
        let (_, device, queue) = device();
        device.shorten_write(0, short);
        assert_eq!(write(&queue), Ok(()));
        let rest = resumed * BLOCK;
        assert_eq!(device.writes(), [(AT, LEN), (AT + rest as u64, LEN - rest)], "{short} bytes taken");
        assert!(landed(&device), "{short} bytes taken");
    }
}

#[test]
fn a_write_may_be_short_at_every_block() {
    let (_, device, queue) = device();
    for nth in 0..3 {
        device.shorten_write(nth, BLOCK + 7);
    }
    assert_eq!(write(&queue), Ok(()));
    let block = BLOCK as u64;
    let expected = [(AT, LEN), (AT + block, LEN - BLOCK), (AT + 2 * block, LEN - 2 * BLOCK), (AT + 3 * block, BLOCK)];
    assert_eq!(device.writes(), expected);
    assert!(landed(&device));
}

#[test]
fn a_zero_length_completion_is_an_error_at_once() {
    let (_, device, queue) = device();
    device.shorten_write(0, 0);
    let error = write(&queue).unwrap_err();
    assert_eq!((error.operation(), error.errno(), error.range()), (Operation::Write, None, AT..AT + LEN as u64));
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    assert_eq!(error.to_string(), "write of bytes 12288..28672 failed: the device makes no progress");
    assert_eq!(device.writes().len(), 1);
}

#[test]
fn a_device_that_never_takes_a_whole_block_is_given_up() {
    for taken in [1, 100, 511] {
        let (_, device, queue) = device();
        for nth in 0..1000 {
            device.shorten_write(nth, taken);
        }
        assert_eq!(write(&queue).unwrap_err().errno(), None);
        assert!(device.writes().len() < 200, "{} attempts", device.writes().len());
    }
}

/// As at the end of a file's permitted length: what fits is taken, and only a write that begins behind it is refused
/// with the reason.
#[test]
fn a_device_that_stops_inside_a_block_is_asked_for_the_reason_there() {
    for sectors in 1..8 {
        let (_, device, queue) = device();
        let stop = sectors * 512;
        device.shorten_write(0, BLOCK + stop);
        // Aligned, it comes no further, twice.
        device.shorten_write(1, stop);
        device.shorten_write(2, stop);
        device.fail_write(3, Errno::FBIG.raw_os_error());
        let error = write(&queue).unwrap_err();
        assert_eq!((error.errno(), error.range()), (Some(Errno::FBIG.raw_os_error()), AT..AT + LEN as u64));
        let block = AT + BLOCK as u64;
        let aligned = (block, LEN - BLOCK);
        let expected = [(AT, LEN), aligned, aligned, (block + stop as u64, LEN - BLOCK - stop)];
        assert_eq!(device.writes(), expected, "{stop} bytes of a block");
    }
}

#[test]
fn a_device_that_takes_a_sector_at_a_time_gets_there() {
    let (_, device, queue) = device();
    for nth in 0..1000 {
        device.shorten_write(nth, 512 + nth % 512);
    }
    assert_eq!(write(&queue), Ok(()));
    assert!(landed(&device));
    assert!(device.writes().iter().all(|&(offset, _)| offset % 512 == 0), "{:?}", device.writes());
}

#[test]
fn what_is_put_off_goes_out_again_exactly_once() {
    for errno in [Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::CANCELED] {
        let (_, device, queue) = device();
        device.fail_write(0, errno.raw_os_error());
        assert_eq!(write(&queue), Ok(()), "{errno}");
        assert_eq!(device.writes(), [(AT, LEN); 2], "{errno}");
        assert!(landed(&device), "{errno}");
    }
}

#[test]
fn what_is_put_off_for_ever_fails_in_the_end() {
    const WRITES: u64 = 100; // each would take a noticeable time, if they did not stall together
    let (_, device, queue) = device();
    for nth in 0..100_000 {
        device.fail_write(nth, Errno::AGAIN.raw_os_error());
    }
    for token in 0..WRITES {
        queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
    }
    let finished = drain(&queue);
    assert_eq!(finished.len() as u64, WRITES);
    for write in finished {
        assert_eq!(write.result.unwrap_err().errno(), Some(Errno::AGAIN.raw_os_error()));
    }
    assert!((device.writes().len() as u64) < 200 * WRITES, "{} attempts", device.writes().len());
}

#[test]
fn progress_renews_the_patience() {
    const BLOCKS: usize = 10;
    let (_, device, queue) = device();
    // More faults than any one block is granted, but not without a block in between.
    for nth in 0..BLOCKS * 10 {
        match nth % 10 {
            9 => device.shorten_write(nth, BLOCK),
            _ => device.fail_write(nth, Errno::INTR.raw_os_error()),
        }
    }
    queue.submit(1, bytes(1, BLOCKS * BLOCK), 0);
    assert_eq!(drain(&queue)[0].result, Ok(()));
    assert!(device.contents() == pattern(1, BLOCKS * BLOCK));
}

#[test]
fn any_other_error_is_final_and_reported_in_full() {
    for errno in [Errno::IO, Errno::NOSPC, Errno::FBIG, Errno::DQUOT, Errno::INVAL] {
        let (_, device, queue) = device();
        device.fail_write(0, errno.raw_os_error());
        let error = write(&queue).unwrap_err();
        assert_eq!(error.operation(), Operation::Write);
        assert_eq!(error.errno(), Some(errno.raw_os_error()));
        assert_eq!(error.range(), AT..AT + LEN as u64);
        assert_eq!(error.kind(), io::Error::from(errno).kind());
        assert_eq!(device.writes().len(), 1);
        assert_eq!(write(&queue), Ok(()), "the next write is a new one");
    }
}

#[test]
fn an_error_after_a_short_write_is_final_too() {
    let (_, device, queue) = device();
    device.shorten_write(0, BLOCK);
    device.fail_write(1, Errno::IO.raw_os_error());
    let error = write(&queue).unwrap_err();
    assert_eq!(error.to_string(), "write of bytes 12288..28672 failed (errno 5)");
    assert_eq!(error.range(), AT..AT + LEN as u64);
}

#[test]
fn a_failed_sync_is_reported_and_never_made_good() {
    let (io, device, queue) = device();
    write(&queue).expect("no fault yet");
    device.fail_sync(Errno::IO.raw_os_error());
    let error = io.sync().unwrap_err();
    assert_eq!((error.operation(), error.errno()), (Operation::Sync, Some(Errno::IO.raw_os_error())));
    assert_eq!(error.to_string(), "sync failed (errno 5)");
    // The device would succeed from now on.
    assert_eq!(io.sync(), Err(error.clone()));
    for durable in [queue.write_durable_now(1, bytes(1, BLOCK), 0), {
        queue.submit_durable(2, bytes(2, BLOCK), 0);
        drain(&queue).remove(0)
    }] {
        assert_eq!((durable.result, durable.durable), (Err(error.clone()), false));
    }
    assert!(queue.write_now(3, bytes(3, BLOCK), 0).result.is_ok(), "it promises nothing");
    assert_eq!(device.syncs(), 1);
}

/// Also if the errno says "not now": the kernel reports each error once.
#[test]
fn a_submitted_sync_that_fails_is_final() {
    for errno in [Errno::IO, Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::CANCELED] {
        let (io, device, queue) = device();
        write(&queue).expect("no fault yet");
        device.fail_sync(errno.raw_os_error());
        queue.submit_sync().expect("nothing is known yet");
        let outcome = queue.reap(Wait::Until(None), &mut Vec::new()).expect("it has ended");
        let error = outcome.unwrap_err();
        assert_eq!((error.operation(), error.errno()), (Operation::Sync, Some(errno.raw_os_error())));
        // The device would succeed from now on.
        assert_eq!((queue.submit_sync(), queue.in_flight()), (Err(error.clone()), 0));
        assert_eq!(io.sync(), Err(error));
        assert_eq!((device.syncs(), device.synced().len()), (1, 0), "{errno}");
    }
}

#[test]
fn a_submitted_sync_that_no_thread_reaped_is_not_forgotten() {
    let (io, device, queue) = device();
    device.fail_sync(Errno::IO.raw_os_error());
    queue.submit_sync().expect("nothing is known yet");
    drop(queue);
    assert_eq!(io.sync().unwrap_err().errno(), Some(Errno::IO.raw_os_error()));
    assert_eq!(device.syncs(), 1);
}

#[test]
fn a_submitted_sync_does_not_succeed_beside_a_failure_that_may_be_about_it() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit_sync().expect("nothing is known yet");
    device.fail_write(0, Errno::IO.raw_os_error());
    queue.submit_durable(1, bytes(1, LEN), AT);
    let mut finished = Vec::new();
    device.release(1);
    assert_eq!(queue.reap(Wait::Until(None), &mut finished), None);
    let error = finished.remove(0).result.unwrap_err();
    device.release(0);
    assert_eq!(queue.reap(Wait::Until(None), &mut finished), Some(Err(error)));
}

#[test]
fn a_submitted_sync_is_held_like_a_write_and_no_caller_has_to_wait_for_it() {
    let (_, device, queue) = device();
    let events = Arc::new(Mutex::new(Vec::new()));
    device.watch({
        let events = Arc::clone(&events);
        move |event| match event {
            DeviceEvent::SyncBegan { sync } => events.lock().expect("no panic").push((sync, None)),
            DeviceEvent::SyncEnded { sync, succeeded } => {
                events.lock().expect("no panic").push((sync, Some(succeeded)))
            }
            _ => {}
        }
    });
    write(&queue).expect("no fault");
    let _holding = Holding::new(&device);
    queue.submit_sync().expect("no fault");
    let mut finished = Vec::new();
    assert_eq!(queue.reap(Wait::No, &mut finished), None);
    assert_eq!(queue.reap(Wait::Until(Some(Instant::now())), &mut finished), None);
    assert_eq!((queue.in_flight(), device.held(), device.syncs(), device.synced().len()), (1, 1, 1, 0));
    assert_eq!(*events.lock().expect("no panic"), [(0, None)]);
    device.release(0);
    assert_eq!(*events.lock().expect("no panic"), [(0, None), (0, Some(true))]);
    assert_eq!(queue.reap(Wait::No, &mut finished), Some(Ok(())));
    assert!(device.synced() == device.contents() && queue.in_flight() == 0);
}

#[test]
#[should_panic(expected = "a submitted sync is under way")]
fn a_second_submitted_sync_is_a_mistake() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit_sync().expect("no fault");
    let _ = queue.submit_sync();
}

/// Its error may have been about what a sync would cover.
#[test]
fn after_a_failed_durable_write_no_sync_succeeds_and_after_a_plain_one_it_does() {
    for durable in [true, false] {
        let (io, device, queue) = device();
        write(&queue).expect("no fault yet");
        device.fail_write(0, Errno::IO.raw_os_error());
        let failed = match durable {
            true => queue.write_durable_now(1, bytes(1, BLOCK), 0),
            false => queue.write_now(1, bytes(1, BLOCK), 0),
        };
        let error = failed.result.unwrap_err();
        assert_eq!(io.sync(), if durable { Err(error) } else { Ok(()) });
        assert_eq!(device.syncs(), usize::from(!durable));
    }
}

#[test]
fn every_later_sync_and_durable_write_gets_the_failure_that_came_first() {
    let (io, device, queue) = device();
    let _holding = Holding::new(&device);
    let errnos = [Errno::IO, Errno::NOSPC].map(Errno::raw_os_error);
    for (token, errno) in (0..).zip(errnos) {
        device.fail_write(0, errno);
        queue.submit_durable(token, bytes(token, BLOCK), token * BLOCK as u64);
    }
    // The second comes back first.
    device.release(1);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    device.release_all();
    finished.extend(drain(&queue));
    let [second, first] = [0, 1].map(|nth: usize| finished[nth].result.clone().unwrap_err());
    assert_eq!([&second, &first].map(DeviceError::errno), [Some(errnos[1]), Some(errnos[0])], "each has its own");
    assert_eq!(io.sync(), Err(second.clone()));
    assert_eq!(queue.submit_sync(), Err(second.clone()));
    // Nor does one that works succeed.
    let write = queue.write_durable_now(2, bytes(2, BLOCK), 2 * BLOCK as u64);
    assert_eq!((write.result, write.durable), (Err(second.clone()), false));
    drop(queue);
    assert_eq!((io.sync(), device.syncs()), (Err(second), 0));
}

#[test]
fn a_sync_covers_what_was_completed_and_no_more() {
    let (io, device, queue) = device();
    let block = BLOCK as u64;
    queue.submit(0, bytes(0, BLOCK), 0);
    let _holding = Holding::new(&device);
    queue.submit(1, bytes(1, BLOCK), block);
    io.sync().expect("no fault");
    assert!(device.synced() == pattern(0, BLOCK));
    device.release_all();
    assert!(device.synced() == pattern(0, BLOCK));
    // Overwritten and extended, also with a gap.
    queue.submit(2, bytes(2, BLOCK), 0);
    queue.submit(3, bytes(3, BLOCK), 3 * block);
    io.sync().expect("no fault");
    let expected = [pattern(2, BLOCK), pattern(1, BLOCK), vec![0; BLOCK], pattern(3, BLOCK)].concat();
    assert!(device.synced() == expected && device.contents() == expected);
}

/// One durable write of `LEN` bytes at `AT`, either way, and what came of it.
fn write_durable(queue: &WriteQueue, now: bool) -> Finished {
    if now {
        return queue.write_durable_now(1, bytes(1, LEN), AT);
    }
    queue.submit_durable(1, bytes(1, LEN), AT);
    drain(queue).remove(0)
}

#[test]
fn every_attempt_at_a_durable_write_is_durable() {
    let rest = [(AT, LEN), (AT + BLOCK as u64, LEN - BLOCK)];
    for now in [false, true] {
        let (_, device, queue) = device();
        device.fail_write(0, Errno::AGAIN.raw_os_error());
        device.shorten_write(1, BLOCK + 100);
        device.fail_write(2, Errno::CANCELED.raw_os_error());
        let write = write_durable(&queue, now);
        assert_eq!((write.result, write.durable), (Ok(()), true));
        assert_eq!(device.writes(), [rest[0], rest[0], rest[1], rest[1]]);
        assert_eq!(device.durable_writes(), device.writes());
        assert!(device.synced() == device.contents() && landed(&device));
        assert_eq!(device.syncs(), 0);
    }
}

#[test]
fn a_durable_write_that_fails_is_not_durable() {
    for (now, errno) in [(false, Errno::IO), (true, Errno::IO), (false, Errno::NOSPC), (true, Errno::NOSPC)] {
        let (_, device, queue) = device();
        device.shorten_write(0, BLOCK);
        device.fail_write(1, errno.raw_os_error());
        let failed = write_durable(&queue, now);
        let error = failed.result.unwrap_err();
        assert!(!failed.durable && failed.bytes[..] == pattern(1, LEN));
        assert_eq!((error.operation(), error.errno()), (Operation::Write, Some(errno.raw_os_error())));
        assert_eq!((error.range(), device.writes().len()), (AT..AT + LEN as u64, 2));
        assert_eq!(write(&queue), Ok(()), "the next write is a new one");
    }
}

#[test]
fn a_durable_write_that_is_put_off_for_ever_fails_in_the_end() {
    let (_, device, queue) = device();
    for nth in 0..1000 {
        device.fail_write(nth, Errno::AGAIN.raw_os_error());
    }
    let errno = Some(Errno::AGAIN.raw_os_error());
    assert_eq!(write_durable(&queue, true).result.unwrap_err().errno(), errno);
    assert!(device.writes().len() < 200, "{} attempts", device.writes().len());
}

#[test]
fn a_write_in_the_own_thread_waits_while_it_is_held_and_no_other_thread_reaps_it() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    let mut finished = Vec::new();
    thread::scope(|scope| {
        let writing = scope.spawn(|| write_durable(&queue, true));
        while device.held() == 0 {
            thread::yield_now();
        }
        assert!(!writing.is_finished() && device.synced().is_empty());
        queue.interrupt();
        queue.reap(Wait::Until(None), &mut finished);
        assert!(!writing.is_finished() && finished.is_empty());
        device.release(0);
        assert_eq!(writing.join().expect("no panic").result, Ok(()));
    });
    assert!(device.synced() == device.contents() && landed(&device));
}

#[test]
fn a_durable_write_makes_nothing_durable_but_itself() {
    let (io, device, queue) = device();
    let block = BLOCK as u64;
    queue.submit(0, bytes(0, BLOCK), 0);
    queue.submit_durable(1, bytes(1, BLOCK), block);
    queue.submit(2, bytes(2, BLOCK), block);
    assert_eq!(drain(&queue).len(), 3);
    assert!(device.synced() == [vec![0; BLOCK], pattern(1, BLOCK)].concat());
    io.sync().expect("no fault");
    assert!(device.synced() == device.contents());
}

#[test]
fn completions_come_in_the_order_of_the_device() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    for token in 0..4 {
        queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
    }
    let mut finished = Vec::new();
    queue.reap(Wait::No, &mut finished);
    assert_eq!((finished.len(), device.held(), device.contents().len()), (0, 4, 0));
    device.release(2);
    device.release(0);
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!(finished.iter().map(|write| write.token).collect::<Vec<_>>(), [2, 0]);
    assert_eq!((queue.in_flight(), device.held()), (2, 2));
    device.release_all();
    queue.submit(4, bytes(4, BLOCK), 4 * BLOCK as u64);
    finished.extend(drain(&queue));
    assert_eq!(finished.iter().map(|write| write.token).collect::<Vec<_>>(), [2, 0, 1, 3, 4]);
}

#[test]
fn a_deadline_ends_the_wait_for_a_held_write() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit(1, bytes(1, BLOCK), 0);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(Some(Instant::now())), &mut finished);
    assert_eq!((finished.len(), queue.in_flight()), (0, 1));
    device.release_all();
    assert_eq!(drain(&queue).len(), 1);
}

#[test]
fn a_dropped_queue_waits_for_a_held_write() {
    let (io, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit(1, bytes(1, BLOCK), 0);
    let dropping = thread::spawn({
        let device = device.clone();
        move || {
            drop(queue);
            device.contents()
        }
    });
    // Time enough for a queue that does not wait.
    thread::sleep(Duration::from_millis(30));
    assert_eq!(device.held(), 1);
    assert!(io.attach(bytes(0, BLOCK).arena()).is_err(), "it still serves the first queue");
    device.release_all();
    assert!(dropping.join().expect("no panic") == pattern(1, BLOCK), "gone before its write had completed");
    drop(attach(&io));
}

#[test]
fn a_waiting_thread_is_woken_by_a_late_completion() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit(1, bytes(1, BLOCK), 0);
    let finished = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut finished = Vec::new();
            queue.reap(Wait::Until(None), &mut finished);
            finished
        });
        device.release(0);
        waiting.join().expect("no panic")
    });
    assert_eq!(finished.len(), 1);
}

#[test]
fn memory_has_an_end() {
    let (_, _device, queue) = device();
    queue.submit(1, bytes(1, BLOCK), 1 << 40);
    assert_eq!(drain(&queue)[0].result.as_ref().unwrap_err().errno(), Some(Errno::FBIG.raw_os_error()));
}

#[test]
fn an_interrupt_ends_a_wait_for_a_write_that_does_not_come() {
    let (_, device, queue) = device();
    let _holding = Holding::new(&device);
    queue.submit(7, bytes(7, BLOCK), 0);
    let mut finished = Vec::new();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut finished = Vec::new();
            queue.reap(Wait::Until(None), &mut finished);
            finished.len()
        });
        queue.interrupt();
        assert_eq!(waiting.join().expect("no panic"), 0);
    });
    device.release_all();
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!(finished[0].token, 7);
}
