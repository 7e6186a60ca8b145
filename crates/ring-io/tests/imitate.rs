//! Payloads that look like preallocated space, and files whose key is gone, foreign or out of reach: nothing
//! acknowledged is ever taken for free space.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{attach, bytes, disk, drain, open, pattern};
use ring_alloc::{BLOCK, Buffer, Frozen};
use ring_io::{DeviceEvent, EngineKind, Finished, MemoryDevice, QuikIO, WriteMode, WriteQueue};
use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

const SIZE: u64 = BLOCK as u64;
const LIMIT: u64 = 4 << 20;
const KEY: &str = "user.ring-io.prepared";

/// Commits after which space is prepared behind the log.
const COMMITS: u64 = 20;

type Key = [u8; 16];

/// What preallocated space of `blocks` blocks from `address` looks like.
fn markers(key: Key, address: u64, blocks: usize) -> Vec<u8> {
    let mut markers = vec![0; blocks * BLOCK];
    for (n, block) in markers.chunks_exact_mut(BLOCK).enumerate() {
        block[..12].copy_from_slice(b"ring-io free");
        block[16..32].copy_from_slice(&key);
        block[32..40].copy_from_slice(&(address + n as u64 * SIZE).to_le_bytes());
    }
    markers
}

fn frozen(contents: &[u8]) -> Frozen {
    let mut buffer = Buffer::zeroed(contents.len()).expect("a buffer");
    buffer.copy_from_slice(contents);
    buffer.freeze(contents.len())
}

fn commit(queue: &WriteQueue, n: u64) {
    queue.submit_durable(n, bytes(n, BLOCK), n * SIZE);
    assert!(drain(queue).iter().all(|write| write.durable), "block {n}");
}

fn log(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|n| pattern(n, BLOCK)).collect()
}

fn on(device: &MemoryDevice, mode: WriteMode) -> (Arc<QuikIO>, WriteQueue) {
    let io = Arc::new(device.builder().prepare(LIMIT).write_mode(mode).build().expect("no obstacle"));
    let queue = attach(&io);
    (io, queue)
}

/// A device with a log of so many blocks, and space prepared behind it.
fn prepared(mode: WriteMode) -> (Arc<QuikIO>, MemoryDevice, WriteQueue) {
    let device = QuikIO::in_memory().1;
    let (io, queue) = on(&device, mode);
    (0..COMMITS).for_each(|n| commit(&queue, n));
    assert!(device.contents().len() as u64 > (COMMITS + 3) * SIZE);
    (io, device, queue)
}

/// Where the log would be found to end after a power cut that leaves all bytes, and of the key what is on stable
/// storage.
fn log_end_after_a_power_cut(device: &MemoryDevice) -> u64 {
    let twin = QuikIO::in_memory().1;
    let queue = attach(&Arc::new(twin.builder().build().expect("no obstacle")));
    queue.submit(0, frozen(&device.contents()), 0);
    drain(&queue);
    twin.set_key(device.synced_key());
    twin.builder().build().expect("no obstacle").log_end().expect("an end")
}

/// Writes in one of the four ways, and syncs what is not durable.
fn write(way: usize, queue: &WriteQueue, contents: &[u8], offset: u64) -> Finished {
    let bytes = frozen(contents);
    let finished = match way {
        0 => queue.write_now(7, bytes, offset),
        1 => queue.write_durable_now(7, bytes, offset),
        2 => {
            queue.submit(7, bytes, offset);
            drain(queue).remove(0)
        }
        _ => {
            queue.submit_durable(7, bytes, offset);
            drain(queue).remove(0)
        }
    };
    match way {
        0 => queue.io().sync().expect("no fault"),
        2 => {
            queue.submit_sync().expect("no fault");
            while queue.reap(ring_io::Wait::Until(None), &mut Vec::new()).is_none() {}
        }
        _ => {}
    }
    finished
}

const MODES: [WriteMode; 2] = [WriteMode::TailLocalized, WriteMode::Serialized];

#[test]
fn a_mark_that_was_read_and_appended_in_its_own_place_is_log() {
    for (way, mode) in (0..4).flat_map(|way| MODES.map(|mode| (way, mode))) {
        for blocks in [1, 200] {
            let (io, device, queue) = prepared(mode);
            let case = format!("way {way}, {mode:?}, {blocks} blocks");
            let key = device.key().expect("a key");
            let payload = markers(key, COMMITS * SIZE, blocks);
            assert!(device.contents()[COMMITS as usize * BLOCK..].starts_with(&payload[..BLOCK]), "{case}");
            let end = COMMITS * SIZE + payload.len() as u64;
            let (flushes, writes) = (device.syncs() + device.durable_writes().len(), device.writes().len());
            assert_eq!(write(way, &queue, &payload, COMMITS * SIZE).result, Ok(()), "{case}");
            assert_eq!((device.key(), device.synced_key()), (None, None), "{case}");
            assert!(log_end_after_a_power_cut(&device) >= end, "{case}");
            assert_eq!(device.syncs() + device.durable_writes().len(), flushes + 1, "{case}: no flush for the key");

            let behind = end / SIZE;
            (behind..behind + 100).for_each(|n| commit(&queue, n));
            assert_eq!(device.writes().len(), writes + 101, "{case}: nothing is prepared any more");
            let whole = [log(COMMITS), payload, (behind..behind + 100).flat_map(|n| pattern(n, BLOCK)).collect()];
            drop(queue);
            assert!(device.contents() == whole.concat(), "{case}: what was prepared is cut off");
            assert_eq!(io.log_end(), Ok((behind + 100) * SIZE), "{case}");
        }
    }
}

#[test]
fn a_mark_among_other_blocks_of_a_write_is_log() {
    for place in 0..3 {
        let (_, device, queue) = prepared(WriteMode::TailLocalized);
        let mut contents = pattern(9, 3 * BLOCK);
        let address = (COMMITS + place) * SIZE;
        let marker = markers(device.key().expect("a key"), address, 1);
        contents[place as usize * BLOCK..][..BLOCK].copy_from_slice(&marker);
        write(1, &queue, &contents, COMMITS * SIZE);
        assert_eq!(device.synced_key(), None, "block {place}");
        assert!(log_end_after_a_power_cut(&device) >= (COMMITS + 3) * SIZE, "block {place}");
    }
}

#[test]
fn a_mark_that_was_made_up_is_log_and_hinders_nothing() {
    for way in 0..4 {
        let (io, device, queue) = prepared(WriteMode::TailLocalized);
        let key = device.key();
        let end = (COMMITS + 2) * SIZE;
        write(way, &queue, &markers([42; 16], COMMITS * SIZE, 2), COMMITS * SIZE);
        assert_eq!((device.key(), io.log_end()), (key, Ok(end)), "way {way}");
        // Its own markers, but elsewhere.
        write(way, &queue, &markers(key.expect("a key"), 0, 1), end);
        assert_eq!((device.key(), io.log_end()), (key, Ok(end + SIZE)), "way {way}");
    }
}

#[test]
fn a_mark_that_is_appended_while_its_place_is_being_prepared_is_log() {
    let device = QuikIO::in_memory().1;
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    (0..3).for_each(|n| commit(&queue, n));
    device.hold();
    queue.submit_durable(3, bytes(3, BLOCK), 3 * SIZE);
    assert_eq!(device.held(), 2, "a commit, and a preallocating write");
    queue.submit_durable(4, frozen(&markers(device.key().expect("a key"), 4 * SIZE, 1)), 4 * SIZE);
    device.release_all();
    assert!(drain(&queue).iter().all(|write| write.durable));
    assert_eq!((device.key(), device.synced_key()), (None, None));
    assert!(log_end_after_a_power_cut(&device) >= 5 * SIZE);
}

/// What happens at a device, in short.
fn watch(device: &MemoryDevice) -> Arc<Mutex<Vec<&'static str>>> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    device.watch(move |event| {
        seen.lock().expect("no panic").push(match event {
            DeviceEvent::WriteArrived { durable: true, .. } => "commit",
            DeviceEvent::WriteArrived { .. } => "markers",
            DeviceEvent::KeyChanged { key: Some(_) } => "key",
            DeviceEvent::KeyChanged { key: None } => "no key",
            DeviceEvent::KeySynced { .. } => "key synced",
            DeviceEvent::SyncBegan { .. } => "sync",
            DeviceEvent::Cut { .. } => "cut",
            _ => return,
        });
    });
    events
}

#[test]
fn a_key_is_on_stable_storage_before_the_first_mark_and_gone_after_the_last() {
    let device = QuikIO::in_memory().1;
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    let events = watch(&device);
    (0..4).for_each(|n| commit(&queue, n));
    drop(queue);
    let expected = ["commit", "commit", "key", "commit", "key synced", "commit", "markers", "cut", "sync", "no key"];
    assert_eq!(*events.lock().expect("no panic"), expected);
}

#[test]
fn commits_that_overlap_prepare_nothing_before_the_key_is_on_stable_storage() {
    let device = QuikIO::in_memory().1;
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    let events = watch(&device);
    device.hold();
    (0..10).for_each(|n| queue.submit_durable(n, bytes(n, BLOCK), n * SIZE));
    assert_eq!((device.held(), device.synced_key()), (10, None));
    device.release_all();
    drain(&queue);
    commit(&queue, 10);
    assert!(device.synced_key().is_some());
    assert_eq!(events.lock().expect("no panic").last(), Some(&"markers"));
}

#[test]
fn a_log_without_small_commits_gets_no_key() {
    let device = QuikIO::in_memory().1;
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    for n in 0..50 {
        queue.submit(n, bytes(n, BLOCK), n * SIZE);
        drain(&queue);
    }
    queue.submit_durable(50, bytes(50, 17 * BLOCK), 50 * SIZE);
    drain(&queue);
    assert_eq!(device.key(), None);
}

/// A queue that was dropped has taken the key away, which no flush has seen: a power cut would bring it back.
#[test]
fn a_mark_under_a_key_that_a_power_cut_would_bring_back_is_log() {
    for way in 0..4 {
        let (_, device, queue) = prepared(WriteMode::TailLocalized);
        let key = device.key().expect("a key");
        drop(queue);
        assert_eq!((device.key(), device.synced_key()), (None, Some(key)));
        let queue = attach(&Arc::new(device.builder().build().expect("no obstacle")));
        write(way, &queue, &markers(key, COMMITS * SIZE, 1), COMMITS * SIZE);
        assert_eq!(log_end_after_a_power_cut(&device), (COMMITS + 1) * SIZE, "way {way}");
    }
}

/// The same where another writer has been there since this `QuikIO` has synced.
#[test]
fn a_queue_does_not_know_what_another_writer_has_left_of_the_key() {
    let device = QuikIO::in_memory().1;
    let io = Arc::new(device.builder().build().expect("no obstacle"));
    assert_eq!(io.sync(), Ok(()));
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    (0..COMMITS).for_each(|n| commit(&queue, n));
    let key = device.key().expect("a key");
    drop(queue);
    let queue = attach(&io);
    write(1, &queue, &markers(key, COMMITS * SIZE, 1), COMMITS * SIZE);
    assert_eq!((device.synced_key(), log_end_after_a_power_cut(&device)), (None, (COMMITS + 1) * SIZE));
}

/// The same for a log that is only opened: what it holds is acknowledged by the sync of a new ring.
#[test]
fn a_sync_of_a_file_that_was_only_opened_settles_its_key() {
    let (_, device, queue) = prepared(WriteMode::TailLocalized);
    drop(queue);
    assert!(device.synced_key().is_some());
    assert_eq!(device.builder().build().expect("no obstacle").sync(), Ok(()));
    assert_eq!(device.synced_key(), None);
}

#[test]
fn a_queue_goes_on_with_the_key_of_the_marks_that_it_finds_and_draws_its_own_where_there_are_none() {
    let (io, device, queue) = prepared(WriteMode::TailLocalized);
    let key = device.key();
    device.fail_sync(Errno::IO.raw_os_error());
    assert!(io.sync().is_err());
    drop(queue);
    assert_eq!(device.key(), key, "nothing is tidied up after a failure");
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    (COMMITS..3 * COMMITS).for_each(|n| commit(&queue, n));
    assert_eq!(device.key(), key);
    drop(queue);
    assert_eq!(device.key(), None);

    device.set_key(key);
    let (_, queue) = on(&device, WriteMode::TailLocalized);
    (3 * COMMITS..4 * COMMITS).for_each(|n| commit(&queue, n));
    assert!(device.key().is_some() && device.key() != key, "under that one there were no markers");
}

#[test]
fn a_key_without_marks_goes_with_the_next_queue_though_that_prepares_nothing() {
    let device = QuikIO::in_memory().1;
    device.set_key(Some([7; 16]));
    let queue = attach(&Arc::new(device.builder().build().expect("no obstacle")));
    commit(&queue, 0);
    drop(queue);
    assert_eq!((device.key(), device.contents().len()), (None, BLOCK));
}

#[test]
fn a_queue_that_prepares_nothing_minds_the_key_that_it_finds() {
    for way in 0..4 {
        let device = QuikIO::in_memory().1;
        device.set_key(Some([7; 16]));
        let queue = attach(&Arc::new(device.builder().prepare(0).build().expect("no obstacle")));
        write(way, &queue, &markers([7; 16], 0, 3), 0);
        assert_eq!((device.synced_key(), log_end_after_a_power_cut(&device)), (None, 3 * SIZE), "way {way}");
    }
}

#[test]
fn where_the_key_cannot_be_read_all_is_log_and_a_mark_is_not_acknowledged() {
    for way in [1, 3] {
        let (io, device, queue) = prepared(WriteMode::TailLocalized);
        let (key, len) = (device.key().expect("a key"), device.contents().len() as u64);
        device.fail_sync(Errno::IO.raw_os_error());
        assert!(io.sync().is_err());
        drop(queue);
        device.fail_keys(Some(Errno::ACCESS.raw_os_error()));
        let (io, queue) = on(&device, WriteMode::TailLocalized);
        assert_eq!(io.log_end(), Ok(len));
        let end = len / SIZE;
        (end..end + 50).for_each(|n| commit(&queue, n));
        assert_eq!(device.contents().len() as u64, len + 50 * SIZE, "nothing is prepared");
        let finished = write(way, &queue, &markers(key, len + 50 * SIZE, 1), len + 50 * SIZE);
        let errno = Some(Errno::ACCESS.raw_os_error());
        assert_eq!((finished.durable, finished.result.unwrap_err().errno()), (false, errno));
        assert_eq!(io.sync().unwrap_err().errno(), errno);
        drop(queue);
        device.fail_keys(None);
        assert!(log_end_after_a_power_cut(&device) >= len + 50 * SIZE);
    }
}

#[test]
fn a_mark_whose_key_cannot_be_removed_is_not_acknowledged() {
    for way in [1, 3] {
        let (io, device, queue) = prepared(WriteMode::TailLocalized);
        device.fail_keys(Some(Errno::IO.raw_os_error()));
        let finished = write(way, &queue, &markers(device.key().expect("a key"), COMMITS * SIZE, 1), COMMITS * SIZE);
        assert_eq!(finished.result.unwrap_err().errno(), Some(Errno::IO.raw_os_error()));
        assert!(io.sync().is_err() && !finished.durable);
    }
}

#[test]
fn where_no_key_can_be_set_nothing_is_prepared() {
    let device = QuikIO::in_memory().1;
    let (io, queue) = on(&device, WriteMode::TailLocalized);
    device.fail_keys(Some(Errno::NOSPC.raw_os_error()));
    (0..50).for_each(|n| commit(&queue, n));
    assert_eq!((device.writes().len(), io.sync()), (50, Ok(())));
}

#[test]
fn what_a_cut_has_left_is_log_whatever_it_looks_like() {
    let key = [7; 16];
    let contents = [log(5), markers(key, 5 * SIZE, 1), pattern(6, BLOCK), markers(key, 7 * SIZE, 3)].concat();
    let device = QuikIO::in_memory().1;
    let queue = attach(&Arc::new(device.builder().build().expect("no obstacle")));
    queue.submit(0, frozen(&contents), 0);
    drain(&queue);
    drop(queue);
    device.set_key(Some(key));
    let io = device.builder().build().expect("no obstacle");
    assert_eq!(io.log_end(), Ok(7 * SIZE));
    assert_eq!(io.cut(6 * SIZE), Ok(()));
    assert_eq!((io.start(), device.synced_key()), (Ok(6 * SIZE), None));
    assert!(device.synced() == contents[..6 * BLOCK]);
}

// Files.

fn key_of(path: &Path) -> Option<Key> {
    let mut key = [0; 17];
    match rustix::fs::getxattr(path, KEY, &mut key) {
        Ok(16) => Some(key[..16].try_into().expect("16 bytes")),
        Ok(len) => panic!("a key of {len} bytes"),
        Err(errno) => {
            assert_eq!(errno, Errno::NODATA);
            None
        }
    }
}

fn set_key(path: &Path, value: &[u8]) {
    rustix::fs::setxattr(path, KEY, value, XattrFlags::empty()).expect("a file system with attributes");
}

fn engines() -> Vec<EngineKind> {
    let file = || tempfile::tempfile().expect("a file");
    let works = |kind: &EngineKind| QuikIO::builder(file()).engine(*kind).build().is_ok();
    let engines: Vec<_> = [EngineKind::IoUring, EngineKind::Positioned].into_iter().filter(works).collect();
    assert!(engines.len() == 2 || std::env::var_os("BUFFER_RING_REQUIRE_URING").is_none(), "io_uring is required");
    engines
}

fn log_end(path: &Path) -> u64 {
    QuikIO::new(File::open(path).expect("the file")).log_end().expect("an end")
}

/// A file that looks as after a kill: a log of so many blocks, preallocated space behind it, and the key.
fn killed(path: &Path) -> Key {
    let io = Arc::new(QuikIO::new(open(path, OFlags::DIRECT)));
    let queue = attach(&io);
    (0..COMMITS).for_each(|n| assert!(queue.write_durable_now(n, bytes(n, BLOCK), n * SIZE).durable));
    let key = key_of(path).expect("a key");
    let copy = path.with_extension("killed");
    // The preallocating write may still be in flight.
    while log_end(path) != COMMITS * SIZE || fs::metadata(path).expect("the file").len() == COMMITS * SIZE {
        std::thread::yield_now();
    }
    fs::copy(path, &copy).expect("a copy");
    drop(queue);
    fs::rename(&copy, path).expect("the copy");
    set_key(path, &key);
    key
}

#[test]
fn a_file_has_a_key_while_space_is_prepared_and_is_found_by_it() {
    for kind in engines() {
        let dir = disk();
        let path = dir.path().join("log");
        let io = QuikIO::builder(open(&path, OFlags::DIRECT)).engine(kind).build().expect("an engine");
        let queue = attach(&Arc::new(io));
        assert_eq!(key_of(&path), None);
        (0..COMMITS).for_each(|n| commit(&queue, n));
        assert!(key_of(&path).is_some());
        drop(queue);
        assert_eq!((key_of(&path), log_end(&path)), (None, COMMITS * SIZE));
        assert!(fs::read(&path).expect("the file") == log(COMMITS));
    }
}

#[test]
fn a_mark_in_a_file_is_log_whether_it_was_made_up_or_read_there() {
    for (kind, way) in engines().into_iter().flat_map(|kind| (0..4).map(move |way| (kind, way))) {
        for (blocks, made_up) in [(1, true), (200, true), (1, false), (200, false)] {
            let dir = disk();
            let path = dir.path().join("log");
            let case = format!("{kind}, way {way}, {blocks} blocks, made up: {made_up}");
            let real = killed(&path);
            let key = if made_up { [42; 16] } else { real };
            let payload = markers(key, COMMITS * SIZE, blocks);
            let io = QuikIO::builder(open(&path, OFlags::DIRECT)).engine(kind).build().expect("an engine");
            let queue = attach(&Arc::new(io));
            assert_eq!(write(way, &queue, &payload, COMMITS * SIZE).result, Ok(()), "{case}");
            let end = COMMITS * SIZE + payload.len() as u64;
            assert!(log_end(&path) >= end, "{case}: as after a kill");
            assert_eq!(key_of(&path), made_up.then_some(real), "{case}");
            drop(queue);
            let whole = [log(COMMITS), payload].concat();
            assert!((log_end(&path), fs::read(&path).expect("the file")) == (end, whole), "{case}");
        }
    }
}

#[test]
fn a_raw_copy_of_another_log_is_log() {
    let dir = disk();
    let (source, archive) = (dir.path().join("source"), dir.path().join("archive"));
    killed(&source);
    let raw = fs::read(&source).expect("the source");
    let queue = attach(&Arc::new(QuikIO::open(&archive).expect("a file")));
    for (n, piece) in raw.chunks(BLOCK).enumerate() {
        assert!(queue.write_durable_now(0, frozen(piece), n as u64 * SIZE).durable);
    }
    drop(queue);
    for _ in 0..2 {
        assert_eq!(log_end(&archive), raw.len() as u64);
        assert!(fs::read(&archive).expect("the archive") == raw);
        drop(attach(&Arc::new(QuikIO::open(&archive).expect("a file"))));
    }
}

#[test]
fn a_copy_without_the_key_is_log_to_its_end_and_one_with_it_is_like_the_file() {
    let dir = disk();
    let (path, copy) = (dir.path().join("log"), dir.path().join("copy"));
    let key = killed(&path);
    let raw = fs::read(&path).expect("the file");
    fs::copy(&path, &copy).expect("a copy");
    assert_eq!((key_of(&copy), log_end(&copy), log_end(&path)), (None, raw.len() as u64, COMMITS * SIZE));
    let queue = attach(&Arc::new(QuikIO::open(&copy).expect("a file")));
    let end = raw.len() as u64 / SIZE;
    (end..end + 50).for_each(|n| commit(&queue, n));
    drop(queue);
    assert!(fs::read(&copy).expect("the copy").starts_with(&raw));
    assert_eq!(log_end(&copy), (end + 50) * SIZE);

    fs::copy(&path, &copy).expect("a copy");
    set_key(&copy, &key);
    assert_eq!(log_end(&copy), COMMITS * SIZE);
    drop(attach(&Arc::new(QuikIO::open(&copy).expect("a file"))));
    assert!(fs::read(&copy).expect("the copy") == log(COMMITS));
}

#[test]
fn a_key_that_was_removed_or_is_none_makes_all_of_the_file_log() {
    for value in [None, Some(&[][..]), Some(&[1; 15]), Some(&[1; 17]), Some(&[1; 100]), Some(&[1; 16])] {
        let dir = disk();
        let path = dir.path().join("log");
        killed(&path);
        match value {
            Some(value) => set_key(&path, value),
            None => rustix::fs::removexattr(&path, KEY).expect("the key"),
        }
        let raw = fs::read(&path).expect("the file");
        assert_eq!(log_end(&path), raw.len() as u64, "{value:?}");
        // A log goes on behind it, and has a key of its own when it is prepared for.
        let queue = attach(&Arc::new(QuikIO::open(&path).expect("a file")));
        let end = raw.len() as u64 / SIZE;
        (end..end + COMMITS).for_each(|n| commit(&queue, n));
        assert!(key_of(&path).is_some_and(|key| key != [1; 16]), "{value:?}");
        drop(queue);
        assert_eq!(log_end(&path), (end + COMMITS) * SIZE, "{value:?}");
        assert!(fs::read(&path).expect("the file").starts_with(&raw), "{value:?}");
    }
}

#[test]
fn a_key_that_is_removed_behind_the_back_of_a_queue_costs_nothing_but_space() {
    let dir = disk();
    let path = dir.path().join("log");
    let queue = attach(&Arc::new(QuikIO::open(&path).expect("a file")));
    (0..COMMITS).for_each(|n| commit(&queue, n));
    rustix::fs::removexattr(&path, KEY).expect("the key");
    (COMMITS..2 * COMMITS).for_each(|n| commit(&queue, n));
    assert!(log_end(&path) >= 2 * COMMITS * SIZE, "as after a kill");
    assert!(fs::read(&path).expect("the file").starts_with(&log(2 * COMMITS)));
    drop(queue);
    assert!(fs::read(&path).expect("the file") == log(2 * COMMITS));
}
