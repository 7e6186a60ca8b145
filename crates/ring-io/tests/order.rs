//! The write modes, checked by the order in which writes arrive at a device that completes them in any order.

mod common;

use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use common::{Holding, O_DSYNC, attach, bytes, disk, drain, open, pattern};
use ring_alloc::BLOCK;
use ring_io::{Finished, MemoryDevice, QuikIO, Wait, WriteMode, WriteQueue};
use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

const SIZE: u64 = BLOCK as u64;
const START: u64 = 3 * SIZE;

fn serialized() -> (Arc<QuikIO>, MemoryDevice, WriteQueue) {
    let (_, device) = QuikIO::in_memory();
    let io = device.builder().start_at(START).write_mode(WriteMode::Serialized).build().expect("no obstacle");
    assert_eq!((io.write_mode(), io.start()), (WriteMode::Serialized, Ok(START)));
    let io = Arc::new(io);
    let queue = attach(&io);
    (io, device, queue)
}

/// Write `token` is the one that begins `token` blocks behind the start.
fn submit(queue: &WriteQueue, token: u64) {
    queue.submit(token, bytes(token, BLOCK), START + token * SIZE);
}

fn tokens(finished: &[Finished]) -> Vec<u64> {
    finished.iter().map(|write| write.token).collect()
}

fn in_order(writes: u64) -> Vec<(u64, usize)> {
    (0..writes).map(|token| (START + token * SIZE, BLOCK)).collect()
}

#[test]
fn without_a_choice_the_write_mode_is_tail_localized() {
    let (io, _device) = QuikIO::in_memory();
    assert_eq!((io.write_mode(), WriteMode::default()), (WriteMode::TailLocalized, WriteMode::TailLocalized));
}

/// Each of them has the device flushed, whether it is to be durable or not.
#[test]
fn writes_to_a_file_that_syncs_them_all_are_durable_and_serialized() {
    let marked = |path: &Path| {
        let file = open(path, OFlags::empty());
        let flags = ioctl_getflags(&file).expect("the attributes of a file");
        ioctl_setflags(&file, flags | IFlags::SYNC).expect("its owner may mark it");
        file
    };
    let ways: [fn(&Path) -> File; 3] = [|path| open(path, O_DSYNC), |path| open(path, OFlags::SYNC), marked];
    for way in ways {
        let dir = disk();
        let io = QuikIO::builder(way(&dir.path().join("log"))).write_mode(WriteMode::TailLocalized);
        let io = Arc::new(io.build().expect("no obstacle"));
        assert_eq!(io.write_mode(), WriteMode::Serialized);
        let queue = attach(&io);
        queue.submit(1, bytes(1, BLOCK), SIZE);
        assert_eq!((queue.in_flight(), queue.waiting()), (0, 1));
        let first = queue.write_now(0, bytes(0, BLOCK), 0);
        let second = drain(&queue).remove(0);
        assert_eq!([(first.result, first.durable), (second.result, second.durable)], [(Ok(()), true), (Ok(()), true)]);
    }
}

#[test]
fn tail_localized_writes_do_not_wait_for_each_other() {
    let (io, device) = QuikIO::in_memory();
    let queue = attach(&Arc::new(io));
    let _holding = Holding::new(&device);
    for token in [2, 0, 5] {
        submit(&queue, token);
    }
    assert_eq!((device.held(), queue.in_flight(), queue.waiting()), (3, 3, 0));
    device.release_all();
    assert_eq!(drain(&queue).len(), 3);
}

#[test]
fn serialized_writes_arrive_in_the_order_of_the_file_and_one_at_a_time() {
    let (_, device, queue) = serialized();
    let _holding = Holding::new(&device);
    for token in [4, 2, 0, 3, 1] {
        submit(&queue, token);
        assert_eq!(device.held(), usize::from(queue.in_flight() > 0), "at most one is at the device");
    }
    assert_eq!((device.writes(), queue.in_flight(), queue.waiting()), (in_order(1), 1, 4));
    let mut finished = Vec::new();
    for token in 0..5 {
        assert_eq!((device.held(), device.writes()), (1, in_order(token + 1)));
        let so_far: Vec<_> = (0..token).flat_map(|token| pattern(token, BLOCK)).collect();
        assert!(device.contents().get(START as usize..).unwrap_or_default() == so_far, "a prefix of the log");
        device.release(0);
        assert_eq!(device.held(), 0, "the next goes when this one has been seen to complete");
        queue.reap(Wait::Until(None), &mut finished);
    }
    assert_eq!((tokens(&finished), queue.in_flight(), queue.waiting()), (vec![0, 1, 2, 3, 4], 0, 0));
}

#[test]
fn a_serialized_write_waits_for_one_that_is_not_submitted_yet() {
    let (_, device, queue) = serialized();
    let mut finished = Vec::new();
    submit(&queue, 1);
    submit(&queue, 2);
    queue.reap(Wait::Until(None), &mut finished);
    queue.reap(Wait::No, &mut finished);
    queue.reap(Wait::Until(Some(Instant::now())), &mut finished);
    assert_eq!((tokens(&finished), device.writes()), (vec![], vec![]));
    assert_eq!((queue.in_flight(), queue.waiting()), (0, 2), "no reason to wait for the device");
    submit(&queue, 0);
    assert_eq!(tokens(&drain(&queue)), [0, 1, 2]);
    assert_eq!(device.writes(), in_order(3));
}

#[test]
fn writes_to_the_same_place_are_made_in_the_order_in_which_they_came() {
    let (_, device, queue) = serialized();
    for token in [1, 2, 3] {
        queue.submit(token, bytes(token, BLOCK), START + SIZE);
    }
    assert_eq!(queue.waiting(), 3);
    submit(&queue, 0);
    assert_eq!(tokens(&drain(&queue)), [0, 1, 2, 3]);
    assert!(device.contents()[(START + SIZE) as usize..] == pattern(3, BLOCK), "the last one stays");
}

#[test]
fn short_and_put_off_writes_keep_their_place() {
    let (_, device, queue) = serialized();
    device.fail_write(0, Errno::AGAIN.raw_os_error());
    device.shorten_write(1, 2048);
    device.fail_write(3, Errno::CANCELED.raw_os_error());
    for token in [1, 0, 2] {
        submit(&queue, token);
    }
    let finished = drain(&queue);
    assert!(finished.iter().all(|write| write.result.is_ok()));
    assert_eq!(tokens(&finished), [0, 1, 2]);
    let offsets: Vec<_> = device.writes().iter().map(|(offset, _)| (offset - START) / SIZE).collect();
    assert_eq!(offsets, [0, 0, 0, 1, 1, 2]);
}

#[test]
fn what_waits_behind_a_failed_write_comes_back_untried() {
    for failing in 0..4 {
        let (_, device, queue) = serialized();
        device.fail_write(failing as usize, Errno::IO.raw_os_error());
        for token in [3, 1, 2, 0, 5] {
            submit(&queue, token);
        }
        let mut finished = drain(&queue);
        // Also what comes later, wherever it belongs.
        submit(&queue, 4);
        submit(&queue, 6);
        assert_eq!(queue.in_flight(), 2);
        finished.extend(drain(&queue));
        assert_eq!((queue.in_flight(), queue.waiting()), (0, 0));
        assert_eq!(device.writes(), in_order(failing + 1), "nothing behind the failure was tried");
        let mut sorted = tokens(&finished);
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6], "each exactly once");
        assert_eq!(
            tokens(&finished)[..=failing as usize],
            (0..=failing).collect::<Vec<_>>(),
            "the failure comes first"
        );
        for write in finished {
            assert!(write.bytes[..] == pattern(write.token, BLOCK));
            let offset = START + write.token * SIZE;
            let failed = START + failing * SIZE;
            match write.result {
                Ok(()) => assert!(write.token < failing),
                Err(error) => {
                    assert_eq!((error.range(), error.errno()), (offset..offset + SIZE, Some(5)));
                    let behind = (write.token != failing).then_some(failed..failed + SIZE);
                    assert_eq!(error.behind(), behind, "write {}", write.token);
                }
            }
        }
    }
}

#[test]
fn an_untried_write_says_what_was_in_its_way() {
    let (_, device, queue) = serialized();
    device.fail_write(0, Errno::IO.raw_os_error());
    submit(&queue, 1);
    submit(&queue, 0);
    let error = drain(&queue).remove(1).result.unwrap_err();
    let sentence = "write of bytes 16384..20480 was not tried: that of bytes 12288..16384 before it failed \
                    (errno 5)";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn a_deadline_and_an_interrupt_end_a_wait_while_others_wait_their_turn() {
    let (_, device, queue) = serialized();
    let _holding = Holding::new(&device);
    for token in 0..3 {
        submit(&queue, token);
    }
    let mut finished = Vec::new();
    queue.reap(Wait::Until(Some(Instant::now())), &mut finished);
    assert_eq!((finished.len(), queue.in_flight(), queue.waiting()), (0, 1, 2));
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
    assert_eq!(tokens(&drain(&queue)), [0, 1, 2]);
}

#[test]
fn a_dropped_queue_sends_what_can_go_and_drops_what_cannot() {
    let (io, device, queue) = serialized();
    let _holding = Holding::new(&device);
    for token in [0, 1, 2, 4] {
        submit(&queue, token);
    }
    let dropping = thread::spawn(move || drop(queue));
    device.release_all();
    dropping.join().expect("no panic");
    assert_eq!(device.writes(), in_order(3), "number 3 is missing");
    drop(attach(&io));
}

#[test]
fn threads_that_submit_and_reap_at_once_keep_the_order() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50;
    let (_, device, queue) = serialized();
    let finished = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let queue = &queue;
                scope.spawn(move || {
                    let mut finished = Vec::new();
                    // Each thread from its last to its first, so that almost everything has to wait.
                    for nth in (0..EACH).rev() {
                        submit(queue, nth * THREADS + thread);
                        queue.reap(Wait::No, &mut finished);
                    }
                    finished
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut all = tokens(&finished);
    all.extend(tokens(&drain(&queue)));
    all.sort_unstable();
    assert_eq!(all, (0..THREADS * EACH).collect::<Vec<_>>());
    assert_eq!(device.writes(), in_order(THREADS * EACH));
}

#[test]
fn a_durable_write_in_the_own_thread_takes_its_turn() {
    let (_, device, queue) = serialized();
    submit(&queue, 1);
    let write = queue.write_durable_now(0, bytes(0, BLOCK), START);
    assert_eq!((write.token, write.result, write.durable), (0, Ok(()), true));
    assert_eq!(tokens(&drain(&queue)), [1], "what waited for it has gone");
    assert_eq!(device.writes(), in_order(2));
    device.fail_write(0, Errno::IO.raw_os_error());
    submit(&queue, 3);
    assert!(queue.write_durable_now(2, bytes(2, BLOCK), START + 2 * SIZE).result.is_err());
    let untried = queue.write_durable_now(4, bytes(4, BLOCK), START + 4 * SIZE).result.unwrap_err();
    assert_eq!(untried.behind(), Some(START + 2 * SIZE..START + 3 * SIZE));
    assert_eq!(tokens(&drain(&queue)), [3]);
    assert_eq!(device.writes(), in_order(3));
}

#[test]
#[should_panic(expected = "a serialized write of bytes 16384..20480 with 12288 missing")]
fn a_durable_write_in_the_own_thread_cannot_overtake() {
    let (_, _device, queue) = serialized();
    let _ = queue.write_durable_now(1, bytes(1, BLOCK), START + SIZE);
}

#[test]
fn what_was_not_tried_comes_back_while_the_device_is_at_a_sync() {
    let (_io, device, queue) = serialized();
    device.fail_write(0, Errno::IO.raw_os_error());
    submit(&queue, 0);
    submit(&queue, 1);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!(tokens(&finished), [0]);
    let _holding = Holding::new(&device);
    queue.submit_sync().expect("the failure concerns no sync");
    let (came, outcome) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut finished = Vec::new();
            queue.reap(Wait::Until(None), &mut finished);
            _ = came.send(tokens(&finished));
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(60));
        device.release_all();
        assert_eq!(outcome, Ok(vec![1]), "it waits for the sync");
    });
}
