//! Space prepared ahead of a ring's log: gone when the ring is, reported from the log after a crash, and never in the
//! way.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use buffer_ring::{BLOCK, BufferRing, EngineKind, Extent, MemoryDevice, QuikIO, ReadError, RingError};
use common::{
    EIO, LIMIT, buffered_file, direct_file, disk, eventually, in_memory, options, pattern, read, ring_on, within,
};
use rustix::fs::XattrFlags;

const ENOSPC: i32 = 28;

/// More than are needed before the first space is prepared.
const COMMITS: u64 = 100;

fn prepared(device: &MemoryDevice) -> (Arc<QuikIO>, BufferRing) {
    let io = Arc::new(device.builder().prepare(1 << 20).build().expect("no obstacle"));
    let ring = ring_on(Arc::clone(&io), options(4, 4 * BLOCK));
    (io, ring)
}

/// Commits so many records of `len` bytes, one by one.
fn commit(ring: &BufferRing, records: u64, len: usize) -> Vec<(Extent, Vec<u8>)> {
    let one = |id| (ring.append_durable(&pattern(id, len)).expect("a sound device"), pattern(id, len));
    (0..records).map(one).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("the file").len()
}

/// A copy of the file with its key, as a crash would leave it that comes when there is prepared space behind `end`.
fn crashed(path: &Path, end: u64) -> PathBuf {
    const KEY: &str = "user.ring-io.prepared";
    eventually("prepared space", || length(path) > end);
    let (copy, mut key) = (path.with_extension("crashed"), [0; 16]);
    assert_eq!(rustix::fs::getxattr(path, KEY, &mut key), Ok(16));
    fs::copy(path, &copy).expect("a copy");
    rustix::fs::setxattr(&copy, KEY, &key, XattrFlags::empty()).expect("an attribute");
    copy
}

#[test]
fn the_file_is_as_long_as_the_log_when_the_ring_is_gone() {
    for kind in [EngineKind::IoUring, EngineKind::Positioned] {
        for direct in [true, false] {
            for close in [true, false] {
                let dir = disk();
                let path = dir.path().join("log");
                let file = if direct { direct_file(&path) } else { buffered_file(&path) };
                let Ok(io) = QuikIO::builder(file).engine(kind).build() else {
                    assert!(std::env::var_os("BUFFER_RING_REQUIRE_URING").is_none(), "io_uring is required");
                    eprintln!("SKIPPED: no {kind}");
                    continue;
                };
                let case = format!("{kind}, direct: {direct}, closed: {close}");
                let ring = ring_on(io, options(4, 16 * BLOCK));
                let records = commit(&ring, COMMITS, 100);
                // The last piece may still be on its way.
                eventually("prepared space", || length(&path) > ring.tail());
                let watermark = ring.durable_watermark();
                assert_eq!(watermark, COMMITS * BLOCK as u64, "{case}");
                if close {
                    assert_eq!(ring.close(), Ok(watermark), "{case}");
                } else {
                    drop(ring);
                }
                assert_eq!(length(&path), watermark, "{case}");
                let bytes = fs::read(&path).expect("the file");
                for (extent, payload) in records {
                    assert!(bytes[extent.start() as usize..extent.end() as usize] == payload, "{case}, {extent:?}");
                }
            }
        }
    }
}

#[test]
fn a_log_that_was_not_closed_goes_on_exactly_where_it_ended() {
    let dir = disk();
    let path = dir.path().join("log");
    let ring = ring_on(QuikIO::open(&path).expect("a file"), options(4, 16 * BLOCK));
    let mut records = commit(&ring, COMMITS, 3000);
    let end = ring.durable_watermark();
    let copy = crashed(&path, end);
    drop(ring);

    let io = Arc::new(QuikIO::open(&copy).expect("the copy"));
    assert_eq!((io.log_end(), io.start()), (Ok(end), Ok(end)));
    let ring = ring_on(io, options(4, 16 * BLOCK));
    assert_eq!((ring.tail(), ring.durable_watermark()), (end, end));
    records.extend(commit(&ring, 10, 3000));
    for (extent, payload) in &records {
        assert!(read(&ring, *extent) == *payload, "{extent:?}");
    }
    assert_eq!(ring.close(), Ok(end + 10 * BLOCK as u64));
    assert_eq!(length(&copy), end + 10 * BLOCK as u64);
}

#[test]
fn a_log_of_zeros_ends_where_it_was_written_to() {
    let dir = disk();
    let path = dir.path().join("log");
    let ring = ring_on(QuikIO::open(&path).expect("a file"), options(4, 16 * BLOCK));
    for commit in 1..=COMMITS {
        let extent = ring.append_durable(&[0; BLOCK]).expect("a sound device");
        assert_eq!(extent.end(), commit * BLOCK as u64);
    }
    let copy = crashed(&path, ring.tail());
    assert_eq!(QuikIO::open(&copy).expect("the copy").log_end(), Ok(COMMITS * BLOCK as u64));
    assert_eq!(ring.close(), Ok(COMMITS * BLOCK as u64));
    assert!(fs::read(&path).expect("the file") == vec![0; COMMITS as usize * BLOCK]);
}

/// The block that stands behind the log, read there and appended, and marks of a key that was made up.
#[test]
fn a_payload_that_looks_like_prepared_space_is_a_part_of_the_log() {
    for (blocks, made_up) in [(1, false), (1, true), (60, false), (200, true)] {
        let case = format!("{blocks} blocks, made up: {made_up}");
        let dir = disk();
        let path = dir.path().join("log");
        let ring = ring_on(QuikIO::open(&path).expect("a file"), options(2, 256 * BLOCK));
        commit(&ring, COMMITS, 3000);
        let end = ring.tail();
        let copy = crashed(&path, end);
        drop(ring);
        let file = fs::read(&copy).expect("the copy");
        let mut payload = file[end as usize..][..blocks.min((file.len() - end as usize) / BLOCK) * BLOCK].to_vec();
        if made_up {
            payload = (0..blocks).flat_map(|n| mark([42; 16], end + (n * BLOCK) as u64)).collect();
        }
        let ring = ring_on(QuikIO::open(&copy).expect("the copy"), options(2, 256 * BLOCK));
        let extent = ring.append_durable(&payload).expect("a sound device");
        assert_eq!((extent.start(), ring.durable_watermark()), (end, extent.end()), "{case}");
        let reader = QuikIO::new(fs::File::open(&copy).expect("the copy"));
        assert!(reader.log_end().expect("an end") >= extent.end(), "{case}: as after a kill");
        assert_eq!(ring.close(), Ok(extent.end()), "{case}");
        // Opening and closing changes nothing.
        drop(ring_on(QuikIO::open(&copy).expect("the copy"), options(2, 16 * BLOCK)));
        let bytes = fs::read(&copy).expect("the copy");
        assert!(bytes.len() as u64 == extent.end() && bytes.ends_with(&payload), "{case}");
    }
}

fn mark(key: [u8; 16], address: u64) -> Vec<u8> {
    let mut mark = [b"ring-io free\0\0\0\0".as_slice(), &key, &address.to_le_bytes()].concat();
    mark.resize(BLOCK, 0);
    mark
}

#[test]
fn prepared_space_is_never_read() {
    let (_, device) = in_memory(options(2, 4 * BLOCK));
    let (_, ring) = prepared(&device);
    let records = commit(&ring, COMMITS, 100);
    let tail = ring.tail();
    assert!(device.contents().len() as u64 > tail);
    let beyond = Extent::new(tail, 64);
    assert_eq!(ring.read(beyond, &mut [0; 64]), Err(ReadError::NotAppended { extent: beyond, tail }));
    for (extent, payload) in records {
        let block = read(&ring, Extent::new(extent.start(), BLOCK));
        assert!(block[..100] == payload && block[100..].iter().all(|&byte| byte == 0), "padding of {extent:?}");
    }
}

#[test]
fn threads_that_commit_and_stream_lose_nothing_to_it() {
    within(LIMIT, || (0..5).for_each(commit_and_stream));
}

fn commit_and_stream(seed: u64) {
    let (_, device) = in_memory(options(2, 4 * BLOCK));
    device.shuffle(seed);
    let (io, ring) = prepared(&device);
    let records: Vec<_> = thread::scope(|scope| {
        let committer = |thread: u64| {
            let ring = &ring;
            scope.spawn(move || {
                let one = |id: u64| {
                    let payload = pattern(id, 1 + (id % 50) as usize * 300);
                    let extent = if id % 10 == 9 { ring.append(&payload) } else { ring.append_durable(&payload) };
                    (extent.expect("a sound device"), payload)
                };
                (thread * 1000..thread * 1000 + 200).map(one).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..4).map(committer).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let end = ring.close().expect("a sound device");
    let contents = device.contents();
    assert_eq!((contents.len() as u64, io.log_end()), (end, Ok(end)));
    for (extent, payload) in records {
        assert!(contents[extent.start() as usize..extent.end() as usize] == payload, "{extent:?}");
    }
}

/// The arrivals of the preparing writes, when nothing fails.
fn preparing_writes() -> Vec<usize> {
    let (_, device) = in_memory(options(2, 4 * BLOCK));
    let (_, ring) = prepared(&device);
    commit(&ring, COMMITS, 100);
    let (writes, durable) = (device.writes(), device.durable_writes());
    let preparing: Vec<_> = (0..writes.len()).filter(|&arrival| !durable.contains(&writes[arrival])).collect();
    assert!(preparing.len() > 1);
    preparing
}

#[test]
fn a_full_disk_while_preparing_is_no_failure() {
    for arrival in preparing_writes() {
        let (_, device) = in_memory(options(2, 4 * BLOCK));
        let (io, ring) = prepared(&device);
        device.fail_write(arrival, ENOSPC);
        let records = commit(&ring, COMMITS, 100);
        assert_eq!(io.preparing_stopped().and_then(|error| error.errno()), Some(ENOSPC), "write {arrival}");
        assert_eq!(ring.poisoned(), None);
        assert_eq!(ring.close(), Ok(COMMITS * BLOCK as u64), "write {arrival}");
        assert_eq!(device.contents().len() as u64, COMMITS * BLOCK as u64);
        let synced = device.synced();
        for (extent, payload) in records {
            assert!(synced[extent.start() as usize..extent.end() as usize] == payload, "write {arrival}, {extent:?}");
        }
    }
}

#[test]
fn any_other_failure_while_preparing_poisons_the_ring() {
    for arrival in preparing_writes() {
        let (_, device) = in_memory(options(2, 4 * BLOCK));
        let (_, ring) = prepared(&device);
        device.fail_write(arrival, EIO);
        let mut acknowledged = Vec::new();
        while let Ok(extent) = ring.append_durable(&pattern(acknowledged.len() as u64, 100)) {
            acknowledged.push(extent);
            assert!(acknowledged.len() as u64 <= COMMITS, "write {arrival}: told to nobody");
        }
        assert!(matches!(ring.poisoned(), Some(RingError::Device(error)) if error.errno() == Some(EIO)));
        let watermark = ring.durable_watermark();
        assert!(ring.sync().is_err() && ring.durable_watermark() == watermark);
        let (synced, len) = (device.synced(), device.contents().len());
        for (id, extent) in (0..).zip(acknowledged) {
            assert!(extent.end() <= watermark);
            assert!(synced[extent.start() as usize..extent.end() as usize] == pattern(id, 100), "write {arrival}");
        }
        assert!(ring.close().is_err());
        assert_eq!(device.contents().len(), len, "nothing is cut off");
    }
}
