//! What every engine promises: one suite, run over each of them.

mod common;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use std::{env, fs};

use common::{Device, attach, buffers, bytes, disk, drain, open, pattern, patterned, read_all, this_test};
use ring_alloc::{Arena, BLOCK};
use ring_io::{AttachError, EngineKind, Finished, QuikIO, Wait};
use rustix::fs::OFlags;

macro_rules! every_engine {
    ($($promise:ident),* $(,)?) => {
        every_engine!(@on io_uring [$($promise)*]);
        every_engine!(@on io_uring_buffered [$($promise)*]);
        every_engine!(@on io_uring_of_the_kernel [$($promise)*]);
        every_engine!(@on positioned [$($promise)*]);
        every_engine!(@on positioned_buffered [$($promise)*]);
        every_engine!(@on memory [$($promise)*]);
    };
    (@on $device:ident [$($promise:ident)*]) => {
        mod $device {
            $(#[test]
            fn $promise() {
                if let Some(device) = super::Device::$device() {
                    super::$promise(device);
                }
            })*
        }
    };
}

every_engine! {
    bytes_land_at_their_offsets,
    every_token_comes_back_once_with_its_bytes,
    writes_of_threads_that_exit_at_once_complete,
    more_writes_than_the_queue_has_entries_complete,
    reaping_with_nothing_in_flight_returns_at_once,
    a_completion_comes_before_a_distant_deadline,
    dropping_the_queue_waits_for_what_is_in_flight,
    handles_may_be_dropped_in_any_order,
    one_queue_at_a_time,
    any_range_can_be_read,
    a_new_log_starts_behind_what_is_there,
    sync_succeeds_after_writes,
    a_submitted_sync_is_in_flight_until_its_outcome_is_handed_out,
    a_sync_goes_on_without_the_thread_that_submitted_it,
    a_durable_write_needs_no_sync,
    a_write_in_the_own_thread_is_what_was_asked_for_when_it_returns,
    threads_that_write_themselves_do_not_disturb_those_that_submit,
}

fn ok(finished: &[Finished]) -> bool {
    finished.iter().all(|write| write.result.is_ok())
}

fn bytes_land_at_their_offsets(device: Device) {
    const SIZE: usize = 4 * BLOCK;
    let (arena, buffers) = buffers(16, SIZE);
    let queue = device.io.attach(&arena).expect("the only queue");
    let mut expected = vec![0; 17 * SIZE];
    for (index, buffer) in buffers.into_iter().enumerate() {
        let (token, place, len) = (index as u64, (index * 7 % 16) * SIZE, (1 + index % 4) * BLOCK);
        expected[place..place + len].copy_from_slice(&pattern(token, len));
        queue.submit(token, patterned(buffer, token, len), place as u64);
    }
    // Memory that the queue has never heard of is as good.
    expected[16 * SIZE..].copy_from_slice(&pattern(99, SIZE));
    queue.submit(99, bytes(99, SIZE), 16 * SIZE as u64);
    let finished = drain(&queue);
    assert!(ok(&finished) && finished.len() == 17);
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn every_token_comes_back_once_with_its_bytes(device: Device) {
    const THREADS: u64 = 8;
    const EACH: u64 = 40;
    let queue = attach(&device.io);
    let finished = thread::scope(|scope| {
        let submit = |thread: u64| {
            let queue = &queue;
            scope.spawn(move || {
                let mut finished = Vec::new();
                for token in thread * EACH..(thread + 1) * EACH {
                    queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
                    let wait = if token % 4 == 0 { Wait::Until(None) } else { Wait::No };
                    queue.reap(wait, &mut finished);
                }
                finished
            })
        };
        let threads: Vec<_> = (0..THREADS).map(submit).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let finished: Vec<_> = finished.into_iter().chain(drain(&queue)).collect();
    assert!(ok(&finished));
    assert!(finished.iter().all(|write| write.bytes[..] == pattern(write.token, BLOCK)));
    let tokens: BTreeSet<_> = finished.iter().map(|write| write.token).collect();
    assert_eq!((finished.len() as u64, tokens), (THREADS * EACH, (0..THREADS * EACH).collect()));
    let expected: Vec<_> = (0..THREADS * EACH).flat_map(|token| pattern(token, BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn writes_of_threads_that_exit_at_once_complete(device: Device) {
    const THREADS: u64 = 100;
    let queue = attach(&device.io);
    thread::scope(|scope| {
        for token in 0..THREADS {
            let queue = &queue;
            scope.spawn(move || queue.submit(token, bytes(token, 8 * BLOCK), token * 8 * BLOCK as u64));
        }
    });
    let finished = drain(&queue);
    assert!(ok(&finished) && finished.len() as u64 == THREADS);
    let expected: Vec<_> = (0..THREADS).flat_map(|token| pattern(token, 8 * BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn more_writes_than_the_queue_has_entries_complete(device: Device) {
    const WRITES: u64 = 700;
    let queue = attach(&device.io);
    for token in 0..WRITES {
        queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
    }
    assert_eq!(queue.in_flight() as u64, WRITES);
    let finished = drain(&queue);
    let tokens: BTreeSet<_> = finished.iter().map(|write| write.token).collect();
    assert!(ok(&finished) && finished.len() as u64 == WRITES);
    assert_eq!(tokens, (0..WRITES).collect());
    let expected: Vec<_> = (0..WRITES).flat_map(|token| pattern(token, BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn reaping_with_nothing_in_flight_returns_at_once(device: Device) {
    let queue = attach(&device.io);
    let mut finished = Vec::new();
    queue.reap(Wait::No, &mut finished);
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!((finished.len(), queue.in_flight()), (0, 0));
}

fn a_completion_comes_before_a_distant_deadline(device: Device) {
    let queue = attach(&device.io);
    let deadline = Instant::now() + Duration::from_secs(3600);
    let mut finished = Vec::new();
    queue.submit(5, bytes(5, BLOCK), 0);
    queue.reap(Wait::Until(Some(deadline)), &mut finished);
    assert_eq!((finished[0].token, finished.len(), queue.in_flight()), (5, 1, 0));
}

fn dropping_the_queue_waits_for_what_is_in_flight(device: Device) {
    let queue = attach(&device.io);
    for token in 0..200 {
        queue.submit(token, bytes(token, 4 * BLOCK), token * 4 * BLOCK as u64);
    }
    drop(queue);
    let expected: Vec<_> = (0..200).flat_map(|token| pattern(token, 4 * BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn handles_may_be_dropped_in_any_order(device: Device) {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (arena, buffers) = buffers(32, 2 * BLOCK);
        let queue = device.io.attach(&arena).expect("the only queue");
        for (token, buffer) in (0..).zip(buffers) {
            queue.submit(token, patterned(buffer, token, 2 * BLOCK), token * 2 * BLOCK as u64);
        }
        let (mut queue, mut arena, mut io) = (Some(queue), Some(arena), Some(Arc::clone(&device.io)));
        for handle in order {
            match handle {
                0 => drop(queue.take()),
                1 => drop(arena.take()),
                _ => drop(io.take()),
            }
        }
    }
    let expected: Vec<_> = (0..32).flat_map(|token| pattern(token, 2 * BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn one_queue_at_a_time(device: Device) {
    let (arena, _buffers) = buffers(2, BLOCK);
    let first = device.io.attach(&arena).expect("the only queue");
    assert_eq!(device.io.attach(&arena).unwrap_err(), AttachError::Busy);
    drop(first);
    let (arena, buffers) = buffers_of_another_size();
    let second = device.io.attach(&arena).expect("the first is gone");
    for (token, buffer) in (0..).zip(buffers) {
        second.submit(token, patterned(buffer, token, 2 * BLOCK), token * 2 * BLOCK as u64);
    }
    assert!(ok(&drain(&second)));
    let expected: Vec<_> = (0..3).flat_map(|token| pattern(token, 2 * BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

fn buffers_of_another_size() -> (Arc<Arena>, Vec<ring_alloc::Buffer>) {
    buffers(3, 2 * BLOCK)
}

fn any_range_can_be_read(device: Device) {
    const LEN: usize = 300 * BLOCK; // more than goes through one bounce buffer
    let queue = attach(&device.io);
    queue.submit(3, bytes(3, LEN), 0);
    assert!(ok(&drain(&queue)));
    let expected = pattern(3, LEN);
    let edges = [0, 1, 511, 512, 4095, 4096, 4097, 10_000, LEN - 4097, LEN - 1, LEN, LEN + 1, LEN + 10_000];
    for start in edges {
        for len in [0, 1, 17, 4095, 4096, 4097, 3 * BLOCK, LEN] {
            let mut got = vec![0xEE; len];
            let read = device.io.read_at(start as u64, &mut got).expect("a readable file");
            let there = &expected[start.min(LEN)..(start + len).min(LEN)];
            assert_eq!(read, there.len(), "{len} bytes at {start}");
            assert!(got[..read] == *there, "{len} bytes at {start}");
            assert!(got[read..].iter().all(|&byte| byte == 0xEE), "behind {len} bytes at {start}");
        }
    }
    for nowhere in [i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
        assert_eq!(device.io.read_at(nowhere, &mut [0; 8]), Ok(0));
    }
}

fn a_new_log_starts_behind_what_is_there(device: Device) {
    assert_eq!(device.io.start(), Ok(0));
    let queue = attach(&device.io);
    queue.submit(0, bytes(0, 3 * BLOCK), BLOCK as u64);
    assert!(ok(&drain(&queue)));
    assert_eq!(device.io.start(), Ok(4 * BLOCK as u64));
}

fn sync_succeeds_after_writes(device: Device) {
    let queue = attach(&device.io);
    queue.submit(0, bytes(0, BLOCK), 0);
    assert!(ok(&drain(&queue)));
    assert_eq!(device.io.sync(), Ok(()));
    if let Some(memory) = device.memory {
        assert_eq!((memory.synced(), memory.syncs()), (memory.contents(), 1));
    }
}

fn a_submitted_sync_is_in_flight_until_its_outcome_is_handed_out(device: Device) {
    let queue = attach(&device.io);
    let mut finished = Vec::new();
    for round in 1..=10 {
        queue.submit(round, bytes(round, BLOCK), round * BLOCK as u64);
        assert!(ok(&drain(&queue)));
        assert_eq!((queue.submit_sync(), queue.in_flight()), (Ok(()), 1));
        assert_eq!(queue.reap(Wait::Until(None), &mut finished), Some(Ok(())));
        assert_eq!((queue.reap(Wait::Until(None), &mut finished), queue.in_flight(), finished.len()), (None, 0, 0));
        if let Some(memory) = &device.memory {
            assert_eq!((memory.synced(), memory.syncs() as u64), (memory.contents(), round));
        }
    }
    // A write that no thread reaps is waited for.
    assert_eq!(queue.submit_sync(), Ok(()));
    drop(queue);
    assert_eq!(device.io.sync(), Ok(()));
}

fn a_sync_goes_on_without_the_thread_that_submitted_it(device: Device) {
    let queue = attach(&device.io);
    for round in 0..50 {
        // Beside a write that may come before it or after.
        queue.submit(round, bytes(round, BLOCK), round * BLOCK as u64);
        let submitted = thread::scope(|scope| scope.spawn(|| queue.submit_sync()).join());
        assert_eq!(submitted.expect("no panic"), Ok(()));
        let (mut finished, mut synced) = (Vec::new(), None);
        while queue.in_flight() > 0 {
            synced = synced.or(queue.reap(Wait::Until(None), &mut finished));
        }
        assert_eq!((synced, ok(&finished), finished.len()), (Some(Ok(())), true, 1), "round {round}");
    }
}

fn a_durable_write_needs_no_sync(device: Device) {
    let block = BLOCK as u64;
    let queue = attach(&device.io);
    // Extending with a gap, filling the gap, overwriting; and beside them a write that is not durable.
    for (token, at) in [(0, 2), (1, 0), (2, 2)] {
        queue.submit_durable(token, bytes(token, BLOCK), at * block);
        let finished = drain(&queue);
        assert!(ok(&finished) && finished.iter().all(|write| write.durable));
    }
    queue.submit(3, bytes(3, BLOCK), block);
    let finished = drain(&queue);
    assert!(ok(&finished) && !finished[0].durable);
    let durable = [pattern(1, BLOCK), vec![0; BLOCK], pattern(2, BLOCK)].concat();
    if let Some(memory) = &device.memory {
        assert!(memory.synced() == durable);
        assert_eq!(memory.durable_writes(), [(2 * block, BLOCK), (0, BLOCK), (2 * block, BLOCK)]);
        assert_eq!((memory.syncs(), memory.writes().len()), (0, 4));
    }
    assert_eq!(device.io.sync(), Ok(()));
    let all = [pattern(1, BLOCK), pattern(3, BLOCK), pattern(2, BLOCK)].concat();
    assert!(read_all(&device.io, all.len()) == all);
    if let Some(memory) = &device.memory {
        assert!(memory.synced() == all);
    }
}

fn a_write_in_the_own_thread_is_what_was_asked_for_when_it_returns(device: Device) {
    const LEN: usize = 3 * BLOCK;
    let (arena, buffers) = buffers(3, 4 * BLOCK);
    let queue = device.io.attach(&arena).expect("the only queue");
    for (token, buffer) in (0..).zip(buffers) {
        let (bytes, at, durable) = (patterned(buffer, token, LEN), token * LEN as u64, token < 2);
        let write = match durable {
            true => queue.write_durable_now(token, bytes, at),
            false => queue.write_now(token, bytes, at),
        };
        assert_eq!((write.token, write.result, write.durable), (token, Ok(()), durable));
        assert!(write.bytes[..] == pattern(token, LEN));
        assert_eq!(queue.in_flight(), 0);
    }
    let expected: Vec<_> = (0..3).flat_map(|token| pattern(token, LEN)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
    if let Some(memory) = &device.memory {
        assert!(memory.synced() == expected[..2 * LEN]);
        assert_eq!((memory.syncs(), memory.durable_writes()), (0, memory.writes()[..2].to_vec()));
    }
}

fn threads_that_write_themselves_do_not_disturb_those_that_submit(device: Device) {
    const EACH: u64 = 50;
    let queue = attach(&device.io);
    let finished = thread::scope(|scope| {
        for thread in 0..3 {
            let queue = &queue;
            scope.spawn(move || {
                for token in (thread * EACH..).take(EACH as usize) {
                    let write = queue.write_durable_now(token, bytes(token, BLOCK), token * BLOCK as u64);
                    assert_eq!((write.token, write.result), (token, Ok(())));
                }
            });
        }
        for token in 3 * EACH..4 * EACH {
            queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
        }
        drain(&queue)
    });
    let tokens: BTreeSet<_> = finished.iter().map(|write| write.token).collect();
    assert!(ok(&finished) && finished.len() as u64 == EACH && tokens == (3 * EACH..4 * EACH).collect());
    // What was prepared meanwhile is cut off.
    drop(queue);
    let expected: Vec<_> = (0..4 * EACH).flat_map(|token| pattern(token, BLOCK)).collect();
    assert!(read_all(&device.io, expected.len()) == expected);
}

/// Registration is a matter of speed: without it the same writes succeed.
#[test]
fn refused_registration_is_reported_and_harmless() {
    const MORE_THAN_THE_KERNEL_TAKES: usize = 16_385;
    let Some(device) = Device::io_uring() else { return };
    let (arena, mut buffers) = buffers(MORE_THAN_THE_KERNEL_TAKES, BLOCK);
    let queue = device.io.attach(&arena).expect("the only queue");
    assert!(!queue.registered().buffers() && queue.registered().file());
    assert!(queue.registered().reason().is_some_and(|reason| reason.starts_with("buffers: ")));
    queue.submit(1, patterned(buffers.remove(16_000), 1, BLOCK), 0);
    assert!(ok(&drain(&queue)));
    assert!(read_all(&device.io, BLOCK) == pattern(1, BLOCK));
}

#[test]
fn an_ordinary_arena_is_registered_with_every_queue() {
    let Some(device) = Device::io_uring() else { return };
    for _ in 0..3 {
        let (arena, _buffers) = buffers(4, 16 * BLOCK);
        let queue = device.io.attach(&arena).expect("the only queue");
        let registered = queue.registered();
        assert!(registered.file(), "{registered:?}");
        // An unprivileged user may be short of RLIMIT_MEMLOCK; then it says so.
        assert!(registered.buffers() != registered.reason().is_some(), "{registered:?}");
    }
}

#[test]
fn open_creates_and_keeps() {
    let dir = disk();
    let path = dir.path().join("log");
    let io = Arc::new(QuikIO::open(&path).expect("a new file"));
    let queue = attach(&io);
    queue.submit(1, bytes(1, 2 * BLOCK), 0);
    assert!(ok(&drain(&queue)));
    drop((queue, io));
    assert!(fs::read(&path).expect("the file") == pattern(1, 2 * BLOCK));
    let io = QuikIO::open(&path).expect("the same file");
    assert_eq!(io.start(), Ok(2 * BLOCK as u64));
    assert!(read_all(&io, 2 * BLOCK) == pattern(1, 2 * BLOCK));
}

/// `cargo xtask engines` runs all tests in several surroundings, and wants to be sure of each.
#[test]
fn the_engine_is_the_one_that_the_surroundings_are_meant_to_bring_about() {
    let Ok(expected) = env::var("BUFFER_RING_EXPECT") else { return };
    let dir = disk();
    let io = Arc::new(QuikIO::open(dir.path().join("log")).expect("a new file"));
    let (arena, _buffers) = buffers(64, 16 * BLOCK);
    let queue = io.attach(&arena).expect("the only queue");
    let found = format!("{}, buffers registered: {}", io.engine(), queue.registered().buffers());
    assert!(found.contains(&expected), "`{found}`, and not `{expected}`");
}

/// The environment of a process cannot be changed safely, so each value gets a process: this very test, again.
#[test]
fn the_environment_chooses_where_the_builder_does_not() {
    const PRINT: &str = "RING_IO_TEST_PRINTS_ITS_ENGINE";
    let dir = disk();
    if env::var_os(PRINT).is_some() {
        let file = Arc::new(open(&dir.path().join("log"), OFlags::empty()));
        let forced = QuikIO::builder(Arc::clone(&file)).engine(EngineKind::Positioned).build().expect("no obstacle");
        println!("forced: {}", forced.engine());
        let engine = |io: Result<QuikIO, String>| io.map_or_else(|error| error, |io| io.engine().to_string());
        println!("file: {}", engine(QuikIO::options().file(Arc::clone(&file)).map_err(|error| error.to_string())));
        println!("build: {}", engine(QuikIO::builder(Arc::clone(&file)).build().map_err(|error| error.to_string())));
        println!("new: {}", QuikIO::new(file).engine());
        let path = dir.path().join("missing");
        let opened = QuikIO::open(&path);
        assert_eq!(path.exists(), opened.is_ok(), "what is refused leaves no file behind");
        println!("open: {}", engine(opened.map_err(|error| error.file_error().expect("not the file").to_string())));
        return;
    }
    let print = |value: &str| {
        let mut test = this_test("the_environment_chooses_where_the_builder_does_not", PRINT, "");
        let output = test.env("BUFFER_RING_ENGINE", value).output().expect("a process");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for how in ["new", "file", "build", "open"] {
        let asked_for = format!("{how}: positioned writes (asked for by BUFFER_RING_ENGINE)\n");
        assert!(print("positioned").contains(&asked_for), "{how}");
    }
    assert!(print("io_uring").contains("forced: positioned writes (asked for by the builder)\n"));
    const UNKNOWN: &str =
        "there is no engine `abacus`: set BUFFER_RING_ENGINE to uring, io_uring or positioned, or unset it";
    let unknown = print("abacus");
    for how in ["file", "build", "open"] {
        assert!(unknown.contains(&format!("{how}: {UNKNOWN}\n")), "{unknown}");
    }
    assert!(unknown.contains("forced: positioned writes (asked for by the builder)\n"), "{unknown}");
    assert!(unknown.contains(&format!("ignored: {UNKNOWN})\n")), "{unknown}");
    if Device::io_uring().is_some() {
        assert!(unknown.contains("new: io_uring (ignored"), "{unknown}");
        for value in ["uring", "io_uring", ""] {
            assert!(print(value).contains("new: io_uring\n"), "{value}");
        }
    }
}
