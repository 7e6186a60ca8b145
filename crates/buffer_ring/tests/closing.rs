//! A ring is closed through any reference to it: what was appended is durable then, and nothing comes after it.

mod common;

use core::sync::atomic::{AtomicBool, Ordering};
use core::{hint, mem};
use std::sync::{Arc, Barrier};
use std::thread;

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, Extent, QuikIO, ReadError, RingError, RotateError};
use common::{
    EIO, Holding, LIMIT, MOMENT, buffered_file, current, disk, eventually, fixed, held, in_memory, options, pattern,
    ring_on, within,
};

const SIZE: usize = 4096;

#[test]
fn everything_that_comes_after_close_is_closed_through_whatever_it_comes() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, SIZE));
        let ring = Arc::new(ring);
        let (other, mut owned) = (Arc::clone(&ring), ring.writer_owned());
        let mut writer = other.writer();
        let watch = ring.durable_watch();
        let extent = ring.append(&pattern(1, 100)).expect("room");
        let handle = current(&ring);
        assert_eq!(other.close(), Ok(SIZE as u64));
        assert!(device.synced()[..100] == pattern(1, 100));

        let closed = Err(AppendError::Closed);
        let appends = [
            ring.append(b"x"),
            ring.try_append(b"x"),
            ring.append_timeout(b"x", LIMIT),
            ring.append_vectored(&[std::io::IoSlice::new(b"x")]),
            ring.append_with(1, |_, _| panic!("not called")),
            ring.append_durable(b"x"),
            ring.append_durable_timeout(b"x", LIMIT),
            ring.append_durable_vectored(&[std::io::IoSlice::new(b"x")]),
            ring.reserve(1).map(|reserved| reserved.extent()),
            ring.try_reserve(1).map(|reserved| reserved.extent()),
            writer.append(b"x"),
            writer.append_with(1, |_, _| panic!("not called")),
            writer.append_durable(b"x"),
            writer.reserve(1).map(|reserved| reserved.extent()),
            owned.append(b"x"),
            owned.append_with(1, |_, _| panic!("not called")),
            owned.append_durable(b"x"),
            owned.reserve(1).map(|reserved| reserved.extent()),
        ];
        assert!(appends.iter().all(|append| *append == closed), "{appends:?}");
        assert_eq!(ring.append(&[]), Err(AppendError::Empty), "what never fits is refused as ever");
        assert_eq!(ring.sync(), Err(RingError::Closed));
        assert_eq!(ring.rotate(), Err(RotateError::Closed));
        assert_eq!(ring.read(extent, &mut [0; 100]), Err(ReadError::Closed));
        assert_eq!((ring.flush(&handle).wait(), ring.flush(&current(&ring)).wait()), (Ok(()), Err(RingError::Closed)));
        assert_eq!((ring.wait_durable(extent.end()), ring.wait_durable(SIZE as u64)), (Ok(()), Ok(())));
        assert_eq!(ring.wait_durable(SIZE as u64 + 1), Err(RingError::Closed));
        assert_eq!((watch.wait_ge(SIZE as u64), watch.wait_ge(SIZE as u64 + 1)), (Ok(4096), Err(RingError::Closed)));
        assert_eq!((ring.close(), ring.close_timeout(MOMENT)), (Ok(SIZE as u64), Ok(SIZE as u64)));
        assert_eq!((ring.tail(), ring.durable_watermark(), ring.written_watermark()), (4096, 4096, 4096));
        assert_eq!((ring.poisoned(), device.contents().len()), (None, SIZE));
    });
}

#[test]
fn closing_lets_the_file_go_and_cuts_it_though_the_ring_is_still_there() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        let ring = ring_on(QuikIO::open(&path).expect("a new file"), options(2, 64 << 10));
        // Small commits in a row: space is prepared behind them.
        for _ in 0..40 {
            ring.append_durable(&[7; 100]).expect("a working device");
        }
        let end = ring.close().expect("a working device");
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), end);
        let next = ring_on(QuikIO::open(&path).expect("it is unlocked"), options(2, 64 << 10));
        assert_eq!(next.append(b"more").map(|extent| extent.start()), Ok(end));
        assert_eq!(ring.append(b"more"), Err(AppendError::Closed));
    });
}

/// Many threads append by every hand while one closes. What they got is compared with what is durable.
#[test]
fn an_append_beside_close_is_durable_or_refused() {
    within(LIMIT, || {
        let rings: [fn(usize, usize) -> BufferRingOptions; 3] = [options, held, fixed];
        for round in 0..300_u64 {
            let (ring, device) = in_memory(rings[round as usize % 3](3, 2 * SIZE));
            let ring = Arc::new(ring);
            let started = AtomicBool::new(false);
            let (extents, end): (Vec<_>, _) = thread::scope(|scope| {
                let threads: Vec<_> = (0..4_u64)
                    .map(|thread| {
                        let (ring, started) = (&ring, &started);
                        scope.spawn(move || {
                            let mut owned = (thread == 2).then(|| ring.writer_owned());
                            let mut writer = (thread == 1).then(|| ring.writer());
                            let mut mine: Vec<(Extent, Vec<u8>)> = Vec::new();
                            for id in 0.. {
                                let bytes = pattern(thread << 32 | id, 1 + (id as usize * 7 + thread as usize) % 300);
                                let outcome = match (&mut owned, &mut writer) {
                                    (Some(owned), _) => owned.append(&bytes),
                                    (_, Some(writer)) => writer.append(&bytes),
                                    _ if thread == 3 => {
                                        ring.append_with(bytes.len(), |_, target| target.copy_from_slice(&bytes))
                                    }
                                    _ => ring.append(&bytes),
                                };
                                started.store(true, Ordering::Relaxed);
                                match outcome {
                                    Ok(extent) => mine.push((extent, bytes)),
                                    Err(AppendError::Closed) => break,
                                    // Manual modes: the buffer's user would flush, or rotate.
                                    Err(AppendError::RingFull | AppendError::Sealed) => {
                                        ring.flush(&current(ring));
                                        thread::yield_now();
                                    }
                                    Err(error) => panic!("{error:?}"),
                                }
                            }
                            assert_eq!(ring.append(b"later"), Err(AppendError::Closed));
                            mine
                        })
                    })
                    .collect();
                eventually("a thread appends", || started.load(Ordering::Relaxed));
                let closers = [(); 2].map(|()| scope.spawn(|| ring.close().expect("nothing failed")));
                let ends = closers.map(|closer| closer.join().expect("no panic"));
                assert_eq!(ends[0], ends[1]);
                // At this moment, and not when the threads have ended.
                let synced = device.synced();
                let extents = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
                assert!(synced == device.synced() && synced.len() as u64 == ends[0], "nothing comes after close");
                (extents, ends[0])
            });
            let synced = device.synced();
            for (extent, bytes) in extents {
                assert!(extent.end() <= end, "{extent:?} beyond {end}");
                assert!(synced[extent.start() as usize..extent.end() as usize] == bytes, "{extent:?} is not there");
            }
        }
    });
}

#[test]
fn close_fetches_those_that_wait_for_room() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, SIZE));
        let holding = Holding::new(&device);
        for id in 0..2 {
            ring.append(&pattern(id, SIZE)).expect("room");
        }
        thread::scope(|scope| {
            let waiting = scope.spawn(|| ring.append(b"no room"));
            eventually("it waits", || ring.stats().full_waits > 0 || current(&ring).is_sealed());
            let closing = scope.spawn(|| ring.close());
            assert_eq!(waiting.join().expect("no panic"), Err(AppendError::Closed), "while the device still has all");
            assert_eq!(ring.close_timeout(MOMENT), Err(RingError::TimedOut), "the device takes its time");
            drop(holding);
            assert_eq!(closing.join().expect("no panic"), Ok(2 * SIZE as u64));
        });
    });
}

#[test]
fn close_waits_for_a_reservation_and_says_so_when_that_takes_long() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, SIZE));
        ring.append(&pattern(1, SIZE)).expect("room");
        let mut reserved = ring.reserve(100).expect("room");
        assert_eq!(ring.close_timeout(MOMENT), Err(RingError::ReservationLeaked(SIZE as u64)));
        assert_eq!(ring.append(b"x"), Err(AppendError::Closed), "it is closed nevertheless");
        reserved.copy_from_slice(&pattern(2, 100));
        thread::scope(|scope| {
            let closing = scope.spawn(|| ring.close());
            thread::sleep(MOMENT);
            let extent = reserved.commit();
            assert_eq!(closing.join().expect("no panic"), Ok(2 * SIZE as u64));
            assert!(device.synced()[extent.start() as usize..extent.end() as usize] == pattern(2, 100));
        });
    });
}

#[test]
fn a_leaked_reservation_does_not_keep_close_for_ever() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, SIZE));
        ring.append(&pattern(1, SIZE)).expect("room");
        mem::forget(ring.reserve(100).expect("room"));
        let ticket = ring.flush(&current(&ring));
        assert_eq!(ring.close(), Err(RingError::ReservationLeaked(SIZE as u64)));
        assert!(device.synced() == pattern(1, SIZE), "what is below it is durable");
        assert_eq!((ticket.wait(), ring.sync()), (Err(RingError::Closed), Err(RingError::Closed)));
    });
}

#[test]
fn closing_a_poisoned_ring_says_why_and_leaves_its_bytes_to_be_read() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, SIZE));
        device.fail_write(0, EIO);
        let extent = ring.append(&pattern(1, 100)).expect("room");
        let failure = ring.close().expect_err("a failing device");
        let RingError::Device(error) = &failure else { panic!("{failure:?}") };
        assert_eq!(error.errno(), Some(EIO));
        assert_eq!((ring.close(), ring.poisoned()), (Err(failure.clone()), Some(failure.clone())));
        assert_eq!(ring.append(b"x"), Err(AppendError::Poisoned(failure)));
        let mut bytes = [0; 100];
        assert_eq!(ring.read(extent, &mut bytes), Ok(100));
        assert!(bytes[..] == pattern(1, 100));
    });
}

#[test]
fn an_empty_ring_closes_where_it_began() {
    let dir = disk();
    let path = dir.path().join("log");
    std::fs::write(&path, [1; 5000]).expect("a file");
    for _ in 0..3 {
        let ring = ring_on(QuikIO::new(buffered_file(&path)), options(2, SIZE));
        assert_eq!((ring.close(), ring.close(), ring.tail()), (Ok(8192), Ok(8192), 8192));
    }
    for capacity in [1, 2] {
        let (ring, device) = in_memory(fixed(capacity, SIZE));
        assert_eq!((ring.close(), device.writes().len()), (Ok(0), 0));
    }
}

#[test]
fn without_a_device_nothing_promises_durability() {
    within(LIMIT, || {
        let ring = Arc::new(BufferRing::with_options(options(2, 64 << 10)));
        let (mut owned, watch) = (ring.writer_owned(), ring.durable_watch());
        let mut writer = ring.writer();
        for _ in 0..50 {
            writer.append(&[1; 16]).expect("room");
        }
        let tail = ring.tail();
        let parts = [std::io::IoSlice::new(b"x")];
        let appends = [
            ring.append_durable(b"x"),
            ring.append_durable_timeout(b"x", LIMIT),
            ring.append_durable_vectored(&parts),
            writer.append_durable(b"x"),
            writer.append_durable_vectored(&parts),
            owned.append_durable(b"x"),
            owned.append_durable_vectored(&parts),
        ];
        assert!(appends.iter().all(|append| *append == Err(AppendError::NoDevice)), "{appends:?}");
        let waits = [
            ring.sync(),
            ring.sync_timeout(LIMIT),
            ring.wait_durable(0).map(|()| 0),
            ring.wait_durable(16).map(|()| 0),
            ring.wait_durable_timeout(16, LIMIT).map(|()| 0),
            owned.wait_durable(16).map(|()| 0),
            watch.wait_ge(0),
            watch.wait_ge_timeout(16, LIMIT),
        ];
        assert!(waits.iter().all(|wait| *wait == Err(RingError::NoDevice)), "{waits:?}");
        assert_eq!(ring.tail(), tail, "nothing was appended");
        drop(writer);
        assert_eq!(ring.flush(&current(&ring)).wait(), Ok(()), "a flush recycles the buffer");
        assert_eq!((ring.durable_watermark(), watch.get(), ring.close()), (0, 0, Ok(0)));
        assert_eq!((ring.append(b"x"), ring.durable_watermark()), (Err(AppendError::Closed), 0));
    });
}

/// Closing takes the last buffer out of use for good: a thread that waits for the next one must see that.
#[test]
fn a_rotation_beside_close_ends() {
    within(LIMIT, || {
        for round in 0..400_u32 {
            let all = options(4, SIZE);
            // Half of the rings without a device, as closing is fastest there.
            let options = BufferRingOptions { auto_rotate: round % 2 == 0, ..all };
            let ring = if round % 4 < 2 { BufferRing::with_options(options) } else { in_memory(options).0 };
            ring.append(b"record").expect("room");
            let start = Barrier::new(2);
            thread::scope(|scope| {
                let rotating = scope.spawn(|| {
                    start.wait();
                    (0..round % 50).for_each(|_| hint::spin_loop());
                    ring.rotate()
                });
                start.wait();
                (0..round / 50 * 7).for_each(|_| hint::spin_loop());
                let closed = ring.close();
                assert!(matches!(closed, Ok(_) | Err(RingError::NoDevice)), "round {round}: {closed:?}");
                let rotated = rotating.join().expect("no panic");
                let ends = matches!(rotated, Ok(()) | Err(RotateError::Closed | RotateError::RingFull));
                assert!(ends, "round {round}: {rotated:?}");
            });
            assert_eq!(ring.rotate(), Err(RotateError::Closed));
        }
    });
}
