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
fn a_file_that_was_cut_short_is_told_from_zeros() {
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
fn in_serialized_mode_a_reader_is_told_when_the_last_writer_leaves() {
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
