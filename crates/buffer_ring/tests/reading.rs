//! Reading back: the answer is the same from memory, from the file, and while a buffer moves from the one to the other.

mod common;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread;

use buffer_ring::{BufferRing, BufferRingOptions, Extent, QuikIO, ReadError, WriteMode};
use common::{Holding, LIMIT, current, disk, held, in_memory, options, pattern, read, ring_on, within};

#[test]
fn bytes_can_be_read_in_every_state_of_their_buffer() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let holding = Holding::new(&device);
        let payload = pattern(1, 1000);
        let extent = ring.append(&payload).expect("room");
        assert!(read(&ring, extent) == payload, "open");
        let reserved = ring.reserve(10).expect("room");
        let ticket = ring.flush(&current(&ring));
        reserved.commit();
        assert_eq!(device.held(), 1);
        assert!(read(&ring, extent) == payload, "in flight");
        drop(holding);
        ticket.wait().expect("written");
        assert!(read(&ring, extent) == payload, "written, and still in memory");
        for _ in 0..5 {
            ring.append(&[1; 4096]).expect("room");
        }
        assert!(read(&ring, extent) == payload, "from the file");
    });
}

#[test]
fn an_extent_across_buffers_is_read_with_zeros_for_the_padding() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, 8192));
        let mut expected = Vec::new();
        for id in 0..9 {
            let payload = pattern(id, 5000);
            let extent = ring.append(&payload).expect("room");
            expected.resize(extent.start() as usize, 0);
            expected.extend(payload);
            // Memory and file in every proportion.
            assert!(read(&ring, Extent::new(0, expected.len())) == expected);
            let tail = &expected[expected.len() - 7000.min(expected.len())..];
            assert!(read(&ring, Extent::new(ring.tail() - tail.len() as u64, tail.len())) == tail);
        }
        ring.sync().expect("a working device");
        let tail = ring.tail();
        let padding = Extent::new(tail - 3192, 3192);
        assert!(read(&ring, padding) == vec![0; 3192]);
    });
}

/// The file has it only up to the nearest buffer that is still in memory; what is in that one is not written yet.
#[test]
fn an_extent_that_begins_in_the_file_goes_on_in_the_nearest_buffer_in_memory() {
    let (ring, device) = in_memory(options(2, 4096));
    let whole: Vec<_> = (0..4).map(|id| pattern(id, 4096)).collect();
    for bytes in &whole[..2] {
        ring.append(bytes).expect("room");
    }
    ring.sync().expect("a working device");
    let _holding = Holding::new(&device);
    for bytes in &whole[2..] {
        ring.append(bytes).expect("room");
    }
    assert!(read(&ring, Extent::new(4096, 3 * 4096)) == whole[1..].concat());
    assert!(read(&ring, Extent::new(4000, 8192)) == whole.concat()[4000..][..8192]);
    assert_eq!(device.contents().len(), 8192, "the rest is in memory alone");
}

#[test]
fn what_was_not_appended_cannot_be_read() {
    let (ring, _device) = in_memory(options(2, 4096));
    let extent = ring.append(&[1; 100]).expect("room");
    let mut target = [0; 200];
    let beyond = Extent::new(0, 101);
    assert_eq!(ring.read(beyond, &mut target), Err(ReadError::NotAppended { extent: beyond, tail: 100 }));
    let far = Extent::new(1 << 40, 1);
    assert_eq!(ring.read(far, &mut target), Err(ReadError::NotAppended { extent: far, tail: 100 }));
    assert_eq!(ring.read(extent, &mut target[..99]), Err(ReadError::TooShort { len: 99, extent: 100 }));
    assert_eq!(target, [0; 200], "nothing was read");
    assert_eq!(ring.read(extent, &mut target), Ok(100));
    assert_eq!(
        (&target[..100], &target[100..]),
        (&[1; 100][..], &[0; 100][..]),
        "the rest of the target is left alone"
    );
    assert_eq!(ring.read(Extent::new(100, 0), &mut []), Ok(0));
}

#[test]
fn a_ring_without_a_device_says_when_bytes_are_gone() {
    let ring = BufferRing::with_options(options(2, 4096));
    let extent = ring.append(&[1; 4096]).expect("room");
    assert!(read(&ring, extent) == [1; 4096]);
    for _ in 0..3 {
        ring.append(&[2; 4096]).expect("room");
    }
    assert_eq!(ring.read(extent, &mut [0; 4096]), Err(ReadError::Gone(0)));
}

#[test]
fn a_file_that_was_cut_short_is_not_taken_for_zeros() {
    let dir = disk();
    let path = dir.path().join("log");
    let ring = ring_on(QuikIO::open(&path).expect("a file"), options(2, 4096));
    let extent = ring.append(&[1; 4096]).expect("room");
    for _ in 0..4 {
        ring.append(&[2; 4096]).expect("room");
    }
    ring.sync().expect("a working disk");
    std::fs::OpenOptions::new().write(true).open(&path).expect("the file").set_len(2048).expect("cut");
    assert_eq!(ring.read(extent, &mut [0; 4096]), Err(ReadError::Truncated(2048)));
}

#[test]
fn reading_beside_writers_always_gives_what_was_appended() {
    let dir = disk();
    within(LIMIT, move || {
        let ring = ring_on(QuikIO::open(dir.path().join("log")).expect("a file"), options(3, 8192));
        let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        // Every record is its own address, over and over, so that a reader knows what to expect anywhere.
        let record = |start: u64| start.to_le_bytes().repeat(40);
        thread::scope(|scope| {
            for reader in 0..2_u64 {
                let (ring, done, reads) = (&ring, &done, &reads);
                scope.spawn(move || {
                    let mut random = common::Random::new(reader);
                    while !done.load(Ordering::Acquire) {
                        // Full buffers hold 25 records of 320 bytes and 192 bytes of padding.
                        let full = ring.tail() / 8192;
                        if full == 0 {
                            continue;
                        }
                        // Near the tail, where buffers move from memory to the file.
                        let buffer = full - 1 - (random.below(6) as u64).min(full - 1);
                        let start = buffer * 8192 + random.below(25) as u64 * 320;
                        assert!(read(ring, Extent::new(start, 320)) == record(start), "at {start}");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for appended in 0.. {
                if appended >= 20_000 && reads.load(Ordering::Relaxed) >= 1000 {
                    break;
                }
                let mut reserved = ring.reserve(320).expect("room");
                let bytes = record(reserved.extent().start());
                reserved.copy_from_slice(&bytes);
                reserved.commit();
            }
            done.store(true, Ordering::Release);
        });
        assert!(ring.poisoned().is_none() && reads.into_inner() >= 1000);
    });
}

#[test]
fn a_reservation_in_another_buffer_does_not_keep_an_extent_from_being_read() {
    within(LIMIT, || {
        for manual in [false, true] {
            let (ring, _device) = in_memory(if manual { held(4, 65536) } else { options(4, 65536) });
            ring.append(&pattern(1, 100)).expect("room");
            let reserved = ring.reserve(10).expect("room");
            // Sealed early: the next buffer's addresses begin where this one still had room.
            ring.flush(&current(&ring));
            let extent = ring.append(&pattern(2, 1000)).expect("room");
            assert_eq!(extent.start(), 4096);
            let mut bytes = vec![0; 1000];
            assert_eq!(ring.read(extent, &mut bytes), Ok(1000), "manual: {manual}");
            assert!(bytes == pattern(2, 1000));
            reserved.commit();
        }
    });
}

/// Its buffer cannot be written before the one before it, which is held.
#[test]
fn in_serialized_mode_a_reader_learns_when_the_last_writer_leaves() {
    within(LIMIT, || {
        let (_, device) = QuikIO::in_memory();
        let io = device.builder().write_mode(WriteMode::Serialized).build().expect("no obstacle");
        let ring = BufferRing::with_options(BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(4, 65536) });
        ring.append(&pattern(1, 100)).expect("room");
        let holding = ring.reserve(10).expect("room");
        ring.flush(&current(&ring));
        let extent = ring.append(&pattern(2, 1000)).expect("room");
        let writing = ring.reserve(10).expect("room");
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&ring, extent));
            // Time enough to fall asleep.
            thread::sleep(Duration::from_millis(100));
            writing.commit();
            assert!(reader.join().expect("no panic") == pattern(2, 1000));
        });
        holding.commit();
    });
}

#[test]
fn in_manual_mode_writers_in_the_same_buffer_do_not_make_a_read_fail() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(held(2, 1 << 26));
        let extent = ring.append(&pattern(1, 100)).expect("room");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        if ring.append(&[7; 3000]).is_err() {
                            break;
                        }
                    }
                });
            }
            for _ in 0..300 {
                let mut bytes = [0; 100];
                let outcome = ring.read(extent, &mut bytes);
                if outcome != Ok(100) || bytes[..] != pattern(1, 100) {
                    done.store(true, Ordering::Release);
                    panic!("{outcome:?}");
                }
            }
            done.store(true, Ordering::Release);
        });
        assert!(ring.stats().records_appended > 0);
    });
}

#[test]
fn readers_of_an_old_buffer_do_not_keep_writers_out_for_ever() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 1 << 20));
        let payload = pattern(1, 1 << 20);
        let extent = ring.append(&payload).expect("room");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut bytes = vec![0; extent.len()];
                    while !done.load(Ordering::Acquire) {
                        assert_eq!(ring.read(extent, &mut bytes), Ok(extent.len()));
                        assert!(bytes == payload);
                    }
                });
            }
            for _ in 0..10 {
                ring.append(&[2; 1 << 20]).expect("room");
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(ring.tail(), 11 << 20);
    });
}

/// All that lies below the tail, and every extent around the places where one kind of it meets the next.
fn check_all(ring: &BufferRing, expected: &[u8], edges: &[usize], when: &str) {
    assert!(read(ring, Extent::new(0, expected.len())) == expected, "{when}");
    for (n, &from) in edges.iter().enumerate() {
        for &to in &edges[n..] {
            for (from, to) in [(from, to), (from.saturating_sub(1), to + 1), (from + 1, to + 1), (from, to + 1)] {
                if from <= to && to <= expected.len() {
                    let extent = Extent::new(from as u64, to - from);
                    assert!(read(ring, extent) == expected[from..to], "{when}: {extent:?}");
                }
            }
        }
    }
}

#[test]
fn the_gap_before_the_log_reads_as_zeros_in_every_state_of_its_first_buffer() {
    within(LIMIT, || {
        for (len, start_at) in
            [(100, None), (1, None), (4095, None), (4096, None), (5000, None), (0, Some(8192)), (100, Some(16384))]
        {
            let dir = disk();
            let path = dir.path().join("log");
            let content = pattern(1, len);
            std::fs::write(&path, &content).expect("a file");
            let mut builder = QuikIO::builder(common::direct_file(&path));
            if let Some(start) = start_at {
                builder = builder.start_at(start);
            }
            let ring = ring_on(builder.build().expect("a file"), options(2, 4096));
            let start = ring.tail() as usize;
            let mut expected = content.clone();
            expected.resize(start, 0);
            let edges = [0, len, start];
            check_all(&ring, &expected, &edges, &format!("{len} bytes, nothing appended"));
            let payload = pattern(2, 50);
            let extent = ring.append(&payload).expect("room");
            assert_eq!(extent.start() as usize, start);
            expected.extend(&payload);
            let edges = [0, len, start, start + 50];
            check_all(&ring, &expected, &edges, &format!("{len} bytes, in memory"));
            ring.sync().expect("a working disk");
            expected.resize(start + 4096, 0);
            let edges = [0, len, start, start + 50, start + 4096];
            check_all(&ring, &expected, &edges, &format!("{len} bytes, synced"));
            for _ in 0..3 {
                expected.extend(&[3; 4096]);
                ring.append(&[3; 4096]).expect("room");
            }
            check_all(&ring, &expected, &edges, &format!("{len} bytes, in the file"));
            ring.close().expect("a working disk");
            let ring = ring_on(QuikIO::open(&path).expect("a file"), options(2, 4096));
            check_all(&ring, &expected, &edges, &format!("{len} bytes, opened again"));
        }
    });
}

#[test]
fn a_file_that_was_cut_within_its_earlier_content_is_not_taken_for_the_gap() {
    let dir = disk();
    let path = dir.path().join("log");
    std::fs::write(&path, pattern(1, 5000)).expect("a file");
    let ring = ring_on(QuikIO::open(&path).expect("a file"), options(2, 4096));
    std::fs::OpenOptions::new().write(true).open(&path).expect("the file").set_len(4990).expect("cut");
    assert!(read(&ring, Extent::new(0, 4990)) == pattern(1, 5000)[..4990]);
    assert_eq!(ring.read(Extent::new(4000, 1001), &mut [0; 1001]), Err(ReadError::Truncated(4990)));
    assert!(read(&ring, Extent::new(5000, 3192)) == [0; 3192]);
}

#[test]
fn what_was_reserved_and_not_written_reads_as_zeros_in_every_state_of_its_buffer() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 8192));
        // Memory that is not zero: each slot has been used before.
        (0..4).for_each(|_| _ = ring.append(&[0xAA; 8192]).expect("room"));
        let base = ring.sync().expect("a working device") as usize;
        let mut expected = [0xAA; 4 * 8192].to_vec();
        let mut writer = ring.writer();
        writer.append(&[1; 100]).expect("room");
        drop(writer);
        let mut aborted = ring.reserve(200).expect("room");
        aborted.fill(0xEE);
        drop(aborted);
        let last = ring.append(&[2; 100]).expect("room");
        expected.resize(base + 100, 1);
        expected.resize(last.start() as usize, 0);
        expected.resize(last.end() as usize, 2);
        let edges = [base, base + 100, last.start() as usize, last.end() as usize];
        check_all(&ring, &expected, &edges, "open");
        let holding = Holding::new(&device);
        let ticket = ring.flush(&current(&ring));
        expected.resize(expected.len().next_multiple_of(4096), 0);
        let edges = [base, base + 100, last.start() as usize, last.end() as usize, expected.len()];
        assert_eq!(ring.tail() as usize, expected.len());
        check_all(&ring, &expected, &edges, "in flight");
        drop(holding);
        ticket.wait().expect("written");
        check_all(&ring, &expected, &edges, "written");
        (0..4).for_each(|_| _ = ring.append(&[0xAA; 8192]).expect("room"));
        check_all(&ring, &expected, &edges, "in the file");
        let beyond = Extent::new(ring.tail() - 1, 2);
        assert!(matches!(ring.read(beyond, &mut [0; 2]), Err(ReadError::NotAppended { .. })));
    });
}

#[test]
fn a_leaked_reservation_hides_its_own_buffer_and_no_other() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(held(4, 4096));
        let before = ring.append(&pattern(1, 4096)).expect("room");
        let beside = ring.append(&pattern(2, 100)).expect("room");
        core::mem::forget(ring.reserve(100).expect("room"));
        let behind = ring.append(&pattern(3, 4096)).expect("room");
        assert!(read(&ring, before) == pattern(1, 4096) && read(&ring, behind) == pattern(3, 4096));
        assert_eq!(ring.read(beside, &mut [0; 100]), Err(ReadError::Reserved));
        assert!(matches!(ring.close(), Err(buffer_ring::RingError::ReservationLeaked(_))));
    });
}
