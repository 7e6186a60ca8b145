//! Where a log begins in a file: behind what is there, or where it is asked to.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use buffer_ring::{BufferRing, BufferRingOptions, EngineKind, OptionsError, QuikIO, WriteMode};
use common::{EIO, LIMIT, buffered_file, direct_file, disk, options, pattern, read, ring_on, within};

fn content(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the file")
}

fn open(path: &Path) -> BufferRing {
    ring_on(QuikIO::open(path).expect("a file"), options(2, 8192))
}

#[test]
fn a_file_with_content_is_appended_to_and_not_overwritten() {
    let dir = disk();
    let path = dir.path().join("log");
    for (len, start) in [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192), (20000, 20480)] {
        let old = pattern(1, len);
        fs::write(&path, &old).expect("a file");
        let ring = open(&path);
        assert_eq!((ring.tail(), ring.written_watermark(), ring.durable_watermark()), (start, start, start));
        let extent = ring.append(&pattern(2, 100)).expect("room");
        assert_eq!(extent.start(), start, "behind {len} bytes");
        assert_eq!(ring.close(), Ok(start + 4096));
        let padding = vec![0; start as usize - len];
        assert!(content(&path) == [old, padding, pattern(2, 100), vec![0; 3996]].concat(), "behind {len} bytes");
    }
}

#[test]
fn a_ring_that_appends_nothing_leaves_the_file_as_it_was() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, pattern(1, 5000)).expect("a file");
    let ring = open(&path);
    assert_eq!(ring.sync(), Ok(8192));
    assert_eq!(ring.close(), Ok(8192));
    assert!(content(&path) == pattern(1, 5000));
}

#[test]
fn a_log_goes_on_behind_itself_when_it_is_opened_again() {
    let dir = disk();
    let path = dir.path().join("log");
    let mut expected = Vec::new();
    for life in 0..5_u64 {
        let ring = open(&path);
        assert_eq!(ring.tail(), expected.len() as u64);
        for record in 0..7_u64 {
            let payload = pattern(life * 10 + record, 3000);
            let extent = ring.append(&payload).expect("room");
            expected.resize(extent.start() as usize, 0);
            expected.extend(payload);
        }
        let end = ring.tail().next_multiple_of(4096);
        expected.resize(end as usize, 0);
        if life % 2 == 0 {
            assert_eq!(ring.close(), Ok(end));
        } else {
            // The log is all there as well.
            drop(ring);
        }
        let content = content(&path);
        let differ = content.iter().zip(&expected).position(|(is, was)| is != was);
        assert_eq!((content.len(), differ), (expected.len(), None), "life {life}");
    }
}

#[test]
fn bytes_of_an_earlier_ring_can_be_read_through_a_later_one() {
    let dir = disk();
    let path = dir.path().join("log");
    let first = open(&path);
    let extent = first.append(&pattern(1, 5000)).expect("room");
    first.close().expect("a working disk");
    let second = open(&path);
    let later = second.append(&pattern(2, 5000)).expect("room");
    assert!(read(&second, extent) == pattern(1, 5000));
    assert!(read(&second, later) == pattern(2, 5000));
}

#[test]
fn a_start_that_is_asked_for_is_where_the_log_begins() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, pattern(1, 20000)).expect("a file");
    let io = QuikIO::builder(direct_file(&path)).start_at(8192).build().expect("a multiple of 4096");
    let ring = ring_on(io, options(2, 4096));
    assert_eq!((ring.tail(), ring.durable_watermark()), (8192, 8192));
    assert_eq!(ring.append(&pattern(2, 10)).map(|extent| extent.start()), Ok(8192));
    assert_eq!(ring.close(), Ok(12288));
    let mut expected = pattern(1, 20000);
    expected[8192..12288].fill(0);
    expected[8192..8202].copy_from_slice(&pattern(2, 10));
    assert!(content(&path) == expected, "only the log's own blocks changed");
}

#[test]
fn a_start_beyond_the_end_leaves_a_hole_of_zeros() {
    let dir = disk();
    let path = dir.path().join("log");
    let io = QuikIO::builder(buffered_file(&path)).start_at(1 << 20).build().expect("a multiple of 4096");
    let ring = ring_on(io, options(2, 4096));
    assert_eq!(ring.append(b"x").map(|extent| extent.start()), Ok(1 << 20));
    assert_eq!(ring.close(), Ok((1 << 20) + 4096));
    let content = content(&path);
    assert_eq!(content.len(), (1 << 20) + 4096);
    assert!(content[1 << 20] == b'x' && content[..1 << 20].iter().all(|&byte| byte == 0));
}

#[test]
fn a_log_that_has_no_room_below_the_last_address_is_refused() {
    let dir = disk();
    within(LIMIT, move || {
        for start in [1 << 60, u64::MAX - 4095] {
            let path = dir.path().join("log");
            let io = QuikIO::builder(buffered_file(&path)).start_at(start).build().expect("a multiple of 4096");
            let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(2, 4096) };
            let refused = BufferRing::try_with_options(options).map(drop);
            assert_eq!(refused, Err(OptionsError::Start { start }));
            assert_eq!(content(&path).len(), 0);
        }
    });
}

#[test]
fn a_shared_file_can_be_read_beside_the_ring() {
    use std::os::unix::fs::FileExt;
    let dir = disk();
    let path = dir.path().join("log");
    let file = Arc::new(buffered_file(&path));
    let ring = ring_on(QuikIO::new(Arc::clone(&file)), options(2, 4096));
    let extent = ring.append_durable(&pattern(1, 1000)).expect("a working disk");
    let mut bytes = vec![0; 1000];
    file.read_exact_at(&mut bytes, extent.start()).expect("the bytes");
    assert!(bytes == pattern(1, 1000));
}

#[test]
fn a_second_ring_on_a_quik_io_goes_on_behind_the_first_wherever_that_began() {
    let dir = disk();
    for engine in [EngineKind::IoUring, EngineKind::Positioned] {
        let path = dir.path().join(format!("{engine}"));
        fs::write(&path, pattern(1, 40_000)).expect("a file");
        let io = QuikIO::builder(direct_file(&path)).start_at(8192).engine(engine).build();
        let Ok(io) = io.inspect_err(|why| eprintln!("SKIPPED: {why}")).map(Arc::new) else { continue };
        let mut expected = pattern(1, 8192);
        for life in 0..4 {
            let ring = ring_on(Arc::clone(&io), options(2, 8192));
            assert_eq!(ring.tail(), expected.len() as u64, "{engine}, ring {life}");
            let payload = pattern(10 + life, 5000);
            if life % 2 == 0 {
                ring.append_durable(&payload).expect("room");
                assert_eq!(ring.close(), Ok(expected.len() as u64 + 8192));
            } else {
                ring.append(&payload).expect("room");
                drop(ring);
            }
            expected.extend([payload, vec![0; 3192]].concat());
        }
        assert!(content(&path)[..expected.len()] == expected);
    }
}

#[test]
fn a_second_ring_does_not_overwrite_what_one_before_acknowledged_that_failed() {
    for durable_fails in [false, true] {
        let (_, device) = QuikIO::in_memory();
        let io = Arc::new(device.builder().start_at(4096).build().expect("no obstacle"));
        let ring = ring_on(Arc::clone(&io), options(2, 4096));
        let first = ring.append_durable(&pattern(1, 4096)).expect("room");
        device.fail_write(0, EIO);
        if durable_fails {
            ring.append_durable(&pattern(2, 4096)).expect_err("the device fails");
        } else {
            ring.append(&pattern(2, 4096)).expect("room");
            // Sends what is before it on its way.
            _ = ring.append(&pattern(3, 4096));
            drop(ring);
        }
        let next =
            BufferRing::try_with_options(BufferRingOptions { io_instance: Some(Arc::clone(&io)), ..options(2, 4096) });
        // After a failed durable write nothing can be called durable any more.
        if let Ok(ring) = next {
            assert!(!durable_fails && ring.tail() >= first.end(), "{}", ring.tail());
            ring.append_durable(&pattern(4, 4096)).expect("room");
        }
        assert!(device.synced()[4096..8192] == pattern(1, 4096), "durable fails: {durable_fails}");
    }
}

#[test]
fn a_ring_that_is_made_at_once_and_one_that_has_all_its_memory_write_the_same() {
    let dir = disk();
    for prefault in [false, true] {
        let path = dir.path().join(format!("{prefault}"));
        let io = Arc::new(QuikIO::open(&path).expect("a file"));
        let options = BufferRingOptions { io_instance: Some(io), ..options(16, 4 << 20) };
        let before = resident();
        let ring = BufferRing::builder(options).prefault(prefault).build().expect("a ring");
        let grown = resident() - before;
        // Other tests run beside this one.
        assert!(!prefault || grown > 48 << 20, "{grown} bytes of 64 MiB are there");
        ring.append_durable(&pattern(1, 5000)).expect("room");
        assert_eq!(ring.close(), Ok(8192));
        assert!(content(&path) == [pattern(1, 5000), vec![0; 3192]].concat());
    }
}

/// Bytes of this process that are in memory.
fn resident() -> i64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("a process");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).expect("a number") * 4096
}

/// The content is in the file, but not on stable storage: a ring says that it is, by its first durable watermark.
#[test]
fn what_the_file_holds_is_synced_before_the_first_watermark_says_so() {
    for serialized in [false, true] {
        let (_, device) = QuikIO::in_memory();
        let mode = if serialized { WriteMode::Serialized } else { WriteMode::TailLocalized };
        let open = || {
            BufferRing::try_with_options(BufferRingOptions {
                io_instance: Some(Arc::new(device.builder().write_mode(mode).build().expect("no obstacle"))),
                ..options(2, 4096)
            })
        };
        let ring = open().expect("an empty device");
        assert_eq!(device.syncs(), 0, "there is nothing to sync");
        ring.append(&pattern(1, 4096)).expect("room");
        drop(ring);
        assert!(device.contents() == pattern(1, 4096) && device.synced().is_empty());

        device.fail_sync(EIO);
        let error = open().map(drop).expect_err("the sync fails");
        assert!(matches!(&error, OptionsError::Sync(error) if error.errno() == Some(EIO)), "{error:?}");

        let ring = open().expect("the next sync works, on a file that was opened again");
        assert_eq!(ring.durable_watermark(), 4096);
        assert!(device.synced() == pattern(1, 4096), "not all below the watermark is on stable storage");
        assert_eq!(ring.wait_durable(4096), Ok(()));
    }
}
