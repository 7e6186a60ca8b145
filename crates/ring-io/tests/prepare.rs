//! Space prepared ahead of the log: when, how much, what becomes of it, and that it never takes a byte from the log.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use common::{O_DSYNC, attach, bytes, disk, drain, open, pattern};
use ring_alloc::{BLOCK, Buffer};
use ring_io::{EngineKind, MemoryDevice, Operation, QuikIO, Wait, WriteMode, WriteQueue};
use rustix::fs::OFlags;
use rustix::io::Errno;

const SIZE: u64 = BLOCK as u64;

/// Plenty.
const LIMIT: u64 = 4 << 20;

/// The first preallocating write comes along with this durable one, counted from 1, and is so long.
const PATIENCE: u64 = 4;
const FIRST: u64 = 128 << 10;

fn on(device: &MemoryDevice, limit: u64) -> (Arc<QuikIO>, WriteQueue) {
    let io = Arc::new(device.builder().prepare(limit).build().expect("no obstacle"));
    let queue = attach(&io);
    (io, queue)
}

fn device() -> (Arc<QuikIO>, MemoryDevice, WriteQueue) {
    let device = QuikIO::in_memory().1;
    let (io, queue) = on(&device, LIMIT);
    (io, device, queue)
}

/// A device that holds `contents` already, as after a crash, under this key.
fn holding(contents: &[u8], key: Option<[u8; 16]>) -> MemoryDevice {
    let (io, device) = QuikIO::in_memory();
    let mut buffer = Buffer::zeroed(contents.len().next_multiple_of(BLOCK)).expect("a buffer");
    buffer[..contents.len()].copy_from_slice(contents);
    let queue = attach(&Arc::new(io));
    queue.submit(0, buffer.freeze(contents.len().next_multiple_of(BLOCK)), 0);
    assert_eq!(drain(&queue)[0].result, Ok(()));
    device.set_key(key);
    device
}

/// What a `QuikIO` would find after a crash at this moment.
fn log_end(device: &MemoryDevice) -> u64 {
    let contents = device.contents();
    if contents.is_empty() {
        0
    } else {
        holding(&contents, device.key()).builder().build().expect("no obstacle").log_end().expect("an end")
    }
}

/// Writes block `n` of the log durably, and waits for that; it looks like `pattern(n, BLOCK)`.
fn commit(queue: &WriteQueue, n: u64) {
    queue.submit_durable(n, bytes(n, BLOCK), n * SIZE);
    assert!(drain(queue).iter().all(|write| write.durable), "block {n}");
}

fn log(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|n| pattern(n, BLOCK)).collect()
}

#[test]
fn small_durable_writes_in_a_row_find_prepared_space() {
    let (io, device, queue) = device();
    for n in 0..PATIENCE - 1 {
        commit(&queue, n);
    }
    assert_eq!(device.contents().len() as u64, 3 * SIZE, "not yet");
    commit(&queue, 3);
    assert_eq!(device.writes().last(), Some(&(4 * SIZE, FIRST as usize)));
    for n in 4..40 {
        let prepared = device.contents().len() as u64;
        assert!(prepared > (n + 1) * SIZE, "block {n} is written where something is");
        commit(&queue, n);
        assert!(device.contents().starts_with(&log(n + 1)));
        assert_eq!((log_end(&device), io.log_end()), ((n + 1) * SIZE, Ok((n + 1) * SIZE)));
    }
    assert!(device.writes().len() > device.durable_writes().len());
    assert!(device.durable_writes().iter().all(|&(_, len)| len == BLOCK), "no preallocating write is durable");
    assert_eq!((device.syncs(), io.preparing_stopped()), (0, None));
}

#[test]
fn other_writes_prepare_nothing() {
    type Submit = fn(&WriteQueue, u64);
    let plain: Submit = |queue, n| queue.submit(n, bytes(n, BLOCK), n * SIZE);
    let large: Submit = |queue, n| queue.submit_durable(n, bytes(n, 17 * BLOCK), n * 17 * SIZE);
    let mixed: Submit = |queue, n| match n % 4 {
        0 => queue.submit(n, bytes(n, BLOCK), n * SIZE),
        _ => queue.submit_durable(n, bytes(n, BLOCK), n * SIZE),
    };
    for submit in [plain, large, mixed] {
        let (_, device, queue) = device();
        for n in 0..50 {
            submit(&queue, n);
            drain(&queue);
        }
        assert_eq!(device.writes().len(), 50);
    }
}

#[test]
fn nothing_is_prepared_where_that_is_switched_off() {
    for limit in [0, 1, 2 * SIZE - 1] {
        let device = QuikIO::in_memory().1;
        let (_, queue) = on(&device, limit);
        (0..50).for_each(|n| commit(&queue, n));
        assert_eq!(device.writes().len(), 50, "limit {limit}");
    }
    let (io, device) = QuikIO::in_memory();
    let queue = attach(&Arc::new(io));
    (0..50).for_each(|n| commit(&queue, n));
    assert_eq!(device.writes().len(), 50, "memory prepares only on request");
}

#[test]
fn what_is_ahead_is_bounded_by_the_limit_and_by_what_was_committed() {
    const BEGINNING: u64 = 256 << 10;
    for limit in [2 * SIZE, 3 * SIZE, 100 * SIZE, LIMIT] {
        let device = QuikIO::in_memory().1;
        let (_, queue) = on(&device, limit);
        let mut most = 0;
        for n in 0..1000 {
            commit(&queue, n);
            let (committed, len) = ((n + 1) * SIZE, device.contents().len() as u64);
            let ahead = len - committed;
            assert!(ahead <= limit && ahead <= committed.max(BEGINNING), "{ahead} bytes behind {committed}");
            most = most.max(ahead);
        }
        assert!(most >= limit / 4, "limit {limit}: no more than {most} bytes");
        let preparing = device.writes().len() - 1000;
        assert!(limit < LIMIT || preparing < 20, "{preparing} preallocating writes");
    }
}

#[test]
fn a_log_that_overtakes_prepared_space_begins_anew() {
    let (_, device, queue) = device();
    (0..500).for_each(|n| commit(&queue, n));
    let there = device.contents().len() as u64 / SIZE;
    let far = there + 100;
    for n in 500..far {
        queue.submit(n, bytes(n, BLOCK), n * SIZE);
    }
    drain(&queue);
    assert_eq!(device.contents().len() as u64, far * SIZE);
    (far..far + PATIENCE).for_each(|n| commit(&queue, n));
    assert_eq!(device.writes().last(), Some(&((far + PATIENCE) * SIZE, FIRST as usize)));
    assert_eq!(log_end(&device), (far + PATIENCE) * SIZE);
    assert!(device.contents().starts_with(&log(far + PATIENCE)));
}

/// Durable writes up to the one that a preallocating write follows, which is held: the next is in its place.
fn with_a_held_preparing_write() -> (Arc<QuikIO>, MemoryDevice, WriteQueue) {
    let (io, device, queue) = device();
    (0..PATIENCE - 1).for_each(|n| commit(&queue, n));
    device.hold();
    queue.submit_durable(3, bytes(3, BLOCK), 3 * SIZE);
    assert_eq!(device.held(), 2);
    device.release(0);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    assert_eq!((finished[0].token, queue.in_flight(), device.held()), (3, 0, 1));
    (io, device, queue)
}

#[test]
fn a_write_waits_while_space_is_prepared_in_its_place() {
    let (_, device, queue) = with_a_held_preparing_write();
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    assert!(finished.is_empty(), "no caller waits for a preallocating write alone");
    queue.submit_durable(4, bytes(4, BLOCK), 4 * SIZE);
    queue.submit(5, bytes(5, BLOCK), 5 * SIZE);
    let behind = 4 + FIRST / SIZE;
    queue.submit(behind, bytes(behind, BLOCK), behind * SIZE);
    assert_eq!((device.held(), queue.in_flight()), (2, 3), "the third is out of the way");
    device.release_all();
    let mut tokens: Vec<_> = drain(&queue).iter().map(|write| (write.token, write.result.is_ok())).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [(4, true), (5, true), (behind, true)]);
    assert!(device.contents().starts_with(&log(6)));
    assert!(device.contents()[behind as usize * BLOCK..] == pattern(behind, BLOCK));
}

#[test]
fn a_write_in_the_own_thread_waits_too_and_leaves_others_their_completions() {
    let (_, device, queue) = with_a_held_preparing_write();
    let other = 1000;
    queue.submit(other, bytes(other, BLOCK), other * SIZE);
    thread::scope(|scope| {
        let writing = scope.spawn(|| queue.write_durable_now(4, bytes(4, BLOCK), 4 * SIZE));
        device.release(1);
        device.release_all();
        let write = writing.join().expect("no panic");
        assert_eq!((write.token, write.result, write.durable), (4, Ok(()), true));
    });
    assert_eq!(queue.in_flight(), 1);
    assert_eq!(drain(&queue)[0].token, other);
    assert!(device.contents().starts_with(&log(5)));
}

#[test]
fn a_lone_committer_that_never_reaps_is_prepared_for_all_the_same() {
    let (_, device, queue) = device();
    for n in 0..1000 {
        assert!(queue.write_durable_now(n, bytes(n, BLOCK), n * SIZE).durable);
        assert_eq!((log_end_of_file(&queue), queue.in_flight()), ((n + 1) * SIZE, 0));
        let ahead = device.contents().len() as u64 - (n + 1) * SIZE;
        // More than one piece: each is taken back before the log has reached it.
        assert!(n < 900 || ahead > 3 << 19, "only {ahead} bytes are prepared behind block {n}");
    }
    assert!(device.writes().len() > 1005 && device.contents().starts_with(&log(1000)));
    drop(queue);
    assert!(device.contents() == log(1000));
}

fn log_end_of_file(queue: &WriteQueue) -> u64 {
    queue.io().log_end().expect("an end")
}

#[test]
fn serialized_writes_are_prepared_for_too() {
    let device = QuikIO::in_memory().1;
    let io = device.builder().prepare(LIMIT).write_mode(WriteMode::Serialized).build().expect("no obstacle");
    let queue = attach(&Arc::new(io));
    for n in (0..100).rev() {
        queue.submit_durable(n, bytes(n, BLOCK), n * SIZE);
    }
    assert_eq!(drain(&queue).len(), 100);
    assert!(device.writes().len() > 100 && device.contents().starts_with(&log(100)));
    assert_eq!(log_end(&device), 100 * SIZE);
}

#[test]
fn a_dropped_queue_cuts_off_what_it_prepared_and_syncs_that() {
    let (_, device, queue) = device();
    (0..100).for_each(|n| commit(&queue, n));
    assert!(device.contents().len() > 100 * BLOCK);
    drop(queue);
    assert!(device.contents() == log(100) && device.synced() == log(100));
    assert_eq!(device.syncs(), 1);
}

#[test]
fn a_dropped_queue_waits_for_a_preparing_write() {
    let (io, device, queue) = with_a_held_preparing_write();
    let dropping = thread::spawn(move || drop(queue));
    // Time for it to do the wrong thing.
    (0..1000).for_each(|_| thread::yield_now());
    assert_eq!((device.held(), dropping.is_finished()), (1, false));
    assert!(io.attach(bytes(0, BLOCK).arena()).is_err(), "it still serves the first queue");
    device.release_all();
    dropping.join().expect("no panic");
    assert!(device.contents() == log(4));
    drop(attach(&io));
}

#[test]
fn a_log_goes_on_exactly_where_it_ended_and_uses_what_is_prepared() {
    let (_, first, queue) = device();
    (0..300).for_each(|n| commit(&queue, n));
    let crashed = first.contents();
    assert!(crashed.len() > 400 * BLOCK);

    let device = holding(&crashed, first.key());
    let (io, queue) = on(&device, LIMIT);
    assert_eq!((io.start(), io.log_end()), (Ok(300 * SIZE), Ok(300 * SIZE)));
    let before = device.writes().len();
    for n in 300..310 {
        commit(&queue, n);
        assert_eq!(device.writes().len() - before, n as usize - 299, "there is space");
        assert_eq!((device.contents().len(), log_end(&device)), (crashed.len(), (n + 1) * SIZE));
    }
    // What is prepared now has the same id: otherwise the end would not be found.
    for n in 310..1000 {
        commit(&queue, n);
        assert_eq!(io.log_end(), Ok((n + 1) * SIZE));
    }
    drop(queue);
    assert!(device.contents() == log(1000));
}

#[test]
fn prepared_space_that_is_found_is_cut_off_even_if_nothing_is_written_or_prepared() {
    let (_, first, queue) = device();
    (0..50).for_each(|n| commit(&queue, n));
    for limit in [0, LIMIT] {
        let device = holding(&first.contents(), first.key());
        let (_, queue) = on(&device, limit);
        drop(queue);
        assert!(device.contents() == log(50), "limit {limit}");
    }
}

#[test]
fn zeros_are_a_part_of_the_log() {
    let zeros = |blocks: usize| Buffer::zeroed(blocks * BLOCK).expect("a buffer").freeze(blocks * BLOCK);
    let (_, device, queue) = device();
    for n in 0..100 {
        queue.submit_durable(n, zeros(1), n * SIZE);
        drain(&queue);
        assert_eq!(log_end(&device), (n + 1) * SIZE);
    }
    queue.submit(100, zeros(3), 100 * SIZE);
    drain(&queue);
    assert_eq!(log_end(&device), 103 * SIZE);
    drop(queue);
    assert!(device.contents() == [0; 103 * BLOCK]);
}

#[test]
fn what_was_torn_counts_as_log() {
    let (_, device, queue) = device();
    (0..50).for_each(|n| commit(&queue, n));
    let whole = device.contents();
    for (torn, start) in [(0, 512), (0, 2048), (512, 4096), (3584, 4096)] {
        let mut contents = whole.clone();
        let block = 55 * BLOCK;
        contents[block + torn..block + start].copy_from_slice(&pattern(99, BLOCK)[torn..start]);
        let io = holding(&contents, device.key()).builder().build().expect("no obstacle");
        assert_eq!(io.log_end(), Ok(56 * SIZE), "bytes {torn}..{start}");
    }
    // A gap that writes out of order have left is inside the log.
    let mut contents = whole.clone();
    contents[60 * BLOCK..61 * BLOCK].copy_from_slice(&pattern(60, BLOCK));
    assert_eq!(holding(&contents, device.key()).builder().build().expect("no obstacle").log_end(), Ok(61 * SIZE));
    // A copy of a marker in another place is none.
    contents.copy_within(70 * BLOCK..71 * BLOCK, 71 * BLOCK);
    assert_eq!(holding(&contents, device.key()).builder().build().expect("no obstacle").log_end(), Ok(72 * SIZE));
}

#[test]
fn marks_of_another_log_are_data() {
    let (_, one, queue) = device();
    (0..PATIENCE).for_each(|n| commit(&queue, n));
    let (_, other, other_queue) = device();
    (0..PATIENCE).for_each(|n| commit(&other_queue, n));
    let (one_key, other_key) = (one.key(), other.key());
    let (one, other) = (one.contents(), other.contents());
    assert_eq!(one.len(), other.len());
    // The first half of one, the second of the other.
    let middle = 20 * BLOCK;
    let mixed = [&one[..middle], &other[middle..]].concat();
    for (key, end) in [(other_key, middle), (one_key, mixed.len()), (None, mixed.len())] {
        let io = holding(&mixed, key).builder().build().expect("no obstacle");
        assert_eq!(io.log_end(), Ok(end as u64));
    }
}

#[test]
fn old_content_is_never_cut_off() {
    // Without markers, longer than what is written in its middle.
    let device = holding(&log(200), None);
    let io = Arc::new(device.builder().start_at(50 * SIZE).prepare(LIMIT).build().expect("no obstacle"));
    let queue = attach(&io);
    (50..80).for_each(|n| commit(&queue, n));
    assert_eq!(device.contents().len() as u64, 200 * SIZE, "what is there has been written before");
    drop(queue);
    assert!(device.contents() == log(200));

    // With preallocated space behind it.
    let (_, first, queue) = self::device();
    (0..200).for_each(|n| commit(&queue, n));
    let device = holding(&first.contents(), first.key());
    let io = Arc::new(device.builder().start_at(50 * SIZE).prepare(LIMIT).build().expect("no obstacle"));
    let queue = attach(&io);
    (50..80).for_each(|n| commit(&queue, n));
    drop(queue);
    assert!(device.contents() == log(200));

    // What another program has appended meanwhile.
    let (io, device, queue) = self::device();
    (0..50).for_each(|n| commit(&queue, n));
    let len = device.contents().len();
    let foreign = len as u64 / SIZE + 3;
    drop(queue);
    let queue = attach(&io);
    (50..60).for_each(|n| commit(&queue, n));
    queue.submit(foreign, bytes(foreign, BLOCK), foreign * SIZE);
    drain(&queue);
    drop(queue);
    assert_eq!(device.contents().len() as u64, (foreign + 1) * SIZE);
}

/// The arrivals of the preallocating writes among the first `commits`, and all of them together.
fn preparing_writes(commits: u64) -> (Vec<usize>, usize) {
    let (_, device, queue) = device();
    (0..commits).for_each(|n| commit(&queue, n));
    let (all, durable) = (device.writes(), device.durable_writes());
    let preparing = (0..all.len()).filter(|&arrival| !durable.contains(&all[arrival])).collect();
    (preparing, all.len())
}

#[test]
fn a_full_disk_ends_preparing_and_nothing_else() {
    const COMMITS: u64 = 150;
    let (preparing, _) = preparing_writes(COMMITS);
    assert!(preparing.len() > 3);
    let whole = log(COMMITS);
    for (nth, &arrival) in preparing.iter().enumerate() {
        for errno in [Some(Errno::NOSPC), Some(Errno::DQUOT), Some(Errno::FBIG), None] {
            for part in [0, 3 * BLOCK + 512] {
                let (io, device, queue) = device();
                if part > 0 {
                    device.shorten_write(arrival, part);
                }
                let at = arrival + usize::from(part > 0);
                match errno {
                    Some(errno) => device.fail_write(at, errno.raw_os_error()),
                    None => device.shorten_write(at, 0),
                }
                (0..COMMITS).for_each(|n| commit(&queue, n));
                let case = format!("preallocating write {nth}, {errno:?}, after {part} bytes");
                assert!(device.synced().starts_with(&whole), "{case}");
                let error = io.preparing_stopped().expect(&case);
                let expected = errno.map(Errno::raw_os_error);
                assert_eq!((error.operation(), error.errno()), (Operation::Write, expected), "{case}");
                let tried = COMMITS as usize + nth + 1 + usize::from(part > 0);
                assert_eq!(device.writes().len(), tried, "{case}: no more of them");
                assert_eq!(io.sync(), Ok(()), "{case}");
                drop(queue);
                assert!(device.contents() == whole, "{case}");
                // The next queue tries again.
                let queue = attach(&io);
                (COMMITS..COMMITS + 10).for_each(|n| commit(&queue, n));
                assert!(device.contents().len() as u64 > (COMMITS + 10) * SIZE, "{case}");
            }
        }
    }
}

#[test]
fn any_other_failure_is_reported_by_the_next_durable_write_and_by_every_sync() {
    const COMMITS: u64 = 150;
    for (nth, &arrival) in preparing_writes(COMMITS).0.iter().enumerate() {
        for errno in [Errno::IO, Errno::INVAL, Errno::NXIO] {
            let (io, device, queue) = device();
            device.fail_write(arrival, errno.raw_os_error());
            let case = format!("preallocating write {nth}, {errno}");
            let errno = Some(errno.raw_os_error());
            let mut acknowledged = 0;
            let error = loop {
                queue.submit_durable(acknowledged, bytes(acknowledged, BLOCK), acknowledged * SIZE);
                match drain(&queue).remove(0).result {
                    Ok(()) => acknowledged += 1,
                    Err(error) => break error,
                }
                assert!(acknowledged < COMMITS, "{case}: not reported");
            };
            assert_eq!((error.errno(), io.preparing_stopped()), (errno, None), "{case}");
            let now = queue.write_durable_now(7, bytes(7, BLOCK), COMMITS * SIZE);
            assert_eq!((now.result.unwrap_err().errno(), now.durable), (errno, false), "{case}");
            assert_eq!(io.sync().unwrap_err().errno(), errno, "{case}");
            let len = device.contents().len();
            assert!(device.synced().starts_with(&log(acknowledged)), "{case}");
            drop(queue);
            assert_eq!((device.contents().len(), device.syncs()), (len, 0), "{case}: nothing is cut off");
            assert!(io.sync().is_err(), "{case}");
        }
    }
}

/// Every write from the `first` from now on, for a while.
fn fail_from(device: &MemoryDevice, first: usize, errno: Errno) {
    (first..first + 200).for_each(|nth| device.fail_write(nth, errno.raw_os_error()));
}

fn repair(device: &MemoryDevice) {
    (0..400).for_each(|nth| device.shorten_write(nth, usize::MAX));
}

/// As io_uring answers where no task is to be had for a worker.
#[test]
fn preparing_that_is_cancelled_is_tried_ever_more_rarely_and_fails_nothing() {
    const COMMITS: u64 = 200;
    let (io, device, queue) = device();
    let mut tries = Vec::new();
    for n in 0..COMMITS {
        // The log's own write comes first.
        let before = device.writes().len();
        fail_from(&device, 1, Errno::CANCELED);
        commit(&queue, n);
        // Takes back what was lent for preparing.
        queue.reap(Wait::No, &mut Vec::new());
        queue.reap(Wait::No, &mut Vec::new());
        match device.writes().len() - before {
            1 => {}
            // Once more, since a thread that has exited cancels as well.
            3 => tries.push(n + 1),
            writes => panic!("{writes} writes for commit {n}"),
        }
        repair(&device);
    }
    assert_eq!(tries, [4, 12, 28, 60, 124], "it waits twice as long each time");
    assert_eq!((device.contents().len() as u64, io.sync(), io.preparing_stopped()), (COMMITS * SIZE, Ok(()), None));
    // Then there are workers again.
    (COMMITS..300).for_each(|n| commit(&queue, n));
    assert!(device.contents().len() as u64 > 300 * SIZE);
    drop(queue);
    assert!(device.contents() == log(300));
}

#[test]
fn preparing_that_is_put_off_for_ever_ends_and_fails_nothing() {
    let (io, device, queue) = device();
    (0..PATIENCE - 1).for_each(|n| commit(&queue, n));
    fail_from(&device, 1, Errno::AGAIN);
    commit(&queue, 3);
    for _ in 0..100 {
        queue.reap(Wait::No, &mut Vec::new());
    }
    repair(&device);
    (4..50).for_each(|n| commit(&queue, n));
    let stopped = io.preparing_stopped().and_then(|error| error.errno());
    assert_eq!((stopped, io.sync()), (Some(Errno::AGAIN.raw_os_error()), Ok(())));
    assert!(device.contents() == log(50));
}

#[test]
fn nothing_is_cut_off_after_a_failure_of_the_log() {
    for sync in [false, true] {
        let (io, device, queue) = device();
        (0..50).for_each(|n| commit(&queue, n));
        if sync {
            device.fail_sync(Errno::IO.raw_os_error());
            assert!(io.sync().is_err());
        } else {
            device.fail_write(0, Errno::IO.raw_os_error());
            queue.submit(50, bytes(50, BLOCK), 50 * SIZE);
            assert!(drain(&queue)[0].result.is_err());
        }
        let len = device.contents().len();
        drop(queue);
        assert_eq!(device.contents().len(), len, "sync: {sync}");
    }
}

#[test]
fn a_preparing_write_that_is_short_or_put_off_goes_on() {
    let (io, device, queue) = device();
    (0..PATIENCE - 1).for_each(|n| commit(&queue, n));
    device.shorten_write(1, 5 * BLOCK + 100);
    device.fail_write(2, Errno::AGAIN.raw_os_error());
    commit(&queue, 3);
    commit(&queue, 4);
    let rest = FIRST as usize - 5 * BLOCK;
    let expected = [(4 * SIZE, FIRST as usize), (9 * SIZE, rest), (9 * SIZE, rest)];
    assert_eq!(device.writes()[4..7], expected);
    assert_eq!((log_end(&device), io.preparing_stopped()), (5 * SIZE, None));
}

#[test]
fn a_failed_cut_is_reported_to_the_next_call() {
    let (io, device, queue) = device();
    (0..50).for_each(|n| commit(&queue, n));
    device.fail_sync(Errno::IO.raw_os_error());
    drop(queue);
    assert_eq!(io.sync().unwrap_err().errno(), Some(Errno::IO.raw_os_error()));
}

/// Commits, large and plain writes in any order of completion, against a model that knows what belongs where.
#[test]
fn whatever_is_written_stays_written() {
    for seed in 0..40 {
        let mut state: u64 = seed * 2 + 1;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (io, device, queue) = device();
        device.hold();
        let (mut tail, mut flying, mut landed) = (0, BTreeMap::new(), BTreeMap::new());
        for token in 0..200 {
            let blocks = if random(8) == 0 { 1 + random(20) as usize } else { 1 };
            let (at, len) = (tail, blocks * BLOCK);
            tail += len as u64;
            match random(10) {
                0 => queue.submit(token, bytes(token, len), at),
                _ => queue.submit_durable(token, bytes(token, len), at),
            }
            flying.insert(token, (at, len));
            while flying.len() as u64 > random(6) || (device.held() > 0 && random(3) == 0) {
                let held = device.held() as u64;
                if held > 0 {
                    device.release(random(held) as usize);
                }
                let mut finished = Vec::new();
                queue.reap(Wait::No, &mut finished);
                for write in finished {
                    assert_eq!(write.result, Ok(()), "seed {seed}");
                    let place = flying.remove(&write.token).expect("once");
                    landed.insert(write.token, place);
                }
            }
            if flying.is_empty() {
                assert_eq!(io.log_end(), Ok(tail), "seed {seed}, token {token}");
            }
        }
        device.release_all();
        drop(queue);
        let contents = device.contents();
        assert_eq!(contents.len() as u64, tail, "seed {seed}");
        for (token, (at, len)) in landed {
            assert!(contents[at as usize..][..len] == pattern(token, len), "seed {seed}, token {token}");
        }
    }
}

fn files() -> impl Iterator<Item = (EngineKind, OFlags)> {
    let kinds = [EngineKind::IoUring, EngineKind::Positioned];
    kinds.into_iter().flat_map(|kind| [(kind, OFlags::DIRECT), (kind, OFlags::empty())])
}

#[test]
fn files_are_prepared_by_every_engine_found_again_and_cut() {
    for (kind, flags) in files() {
        let dir = disk();
        let path = dir.path().join("log");
        let Ok(io) = QuikIO::builder(open(&path, flags)).engine(kind).build() else {
            assert!(std::env::var_os("BUFFER_RING_REQUIRE_URING").is_none(), "io_uring is required");
            eprintln!("SKIPPED: no {kind}");
            continue;
        };
        let case = format!("{kind}, {flags:?}");
        let queue = attach(&Arc::new(io));
        // As a reader would open it after a crash.
        let reader = QuikIO::new(File::open(&path).expect("the file"));
        for n in 0..400 {
            match n % 2 {
                0 => commit(&queue, n),
                _ => assert!(queue.write_durable_now(n, bytes(n, BLOCK), n * SIZE).durable),
            }
            assert!(n % 50 > 0 || settled(&reader, (n + 1) * SIZE), "{case}, block {n}");
        }
        assert!(fs::metadata(&path).expect("the file").len() > 400 * SIZE, "{case}");
        drop(queue);
        assert!(fs::read(&path).expect("the file") == log(400), "{case}");
    }
}

/// Whether the log is found to end there, unless the file grows at this moment.
fn settled(reader: &QuikIO, end: u64) -> bool {
    (0..1000).any(|_| {
        thread::yield_now();
        reader.log_end() == Ok(end)
    })
}

#[test]
fn what_another_program_has_appended_is_not_cut_off() {
    let dir = disk();
    let path = dir.path().join("log");
    let queue = attach(&Arc::new(QuikIO::new(open(&path, OFlags::DIRECT))));
    (0..50).for_each(|n| commit(&queue, n));
    let foreign = open(&path, OFlags::empty());
    let end = 1 << 20;
    foreign.write_all_at(b"of another program", end).expect("another end");
    drop(queue);
    let contents = fs::read(&path).expect("the file");
    assert!(contents.starts_with(&log(50)) && contents[end as usize..] == *b"of another program");
}

#[test]
fn memory_file_systems_are_not_prepared() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    let path = dir.path().join("log");
    let queue = attach(&Arc::new(QuikIO::new(open(&path, OFlags::empty()))));
    for n in 0..50 {
        commit(&queue, n);
        assert_eq!(fs::metadata(&path).expect("the file").len(), (n + 1) * SIZE);
    }
}

#[test]
fn a_file_whose_writes_are_all_synced_is_not_prepared() {
    let dir = disk();
    let path = dir.path().join("log");
    let queue = attach(&Arc::new(QuikIO::new(open(&path, O_DSYNC))));
    for n in 0..50 {
        commit(&queue, n);
        assert_eq!(fs::metadata(&path).expect("the file").len(), (n + 1) * SIZE);
    }
}
