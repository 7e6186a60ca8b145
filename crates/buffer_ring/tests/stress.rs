//! Calls that race with each other, over and over: no thread hangs, no thread is notified a lie.

mod common;

use core::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use buffer_ring::{AppendError, RotateError};
use common::append_path::PathMix;
use common::{LIMIT, current, fixed, held, in_memory, options, within};

/// Runs `work` in `threads` threads until the first one, which runs `main` alone, is through.
fn beside(threads: usize, work: impl Fn(usize) + Sync, main: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..threads {
            let (work, done) = (&work, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    work(number);
                }
            });
        }
        // Also when it panics, or the others would go on for ever.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let _done = Done(&done);
        main();
    });
}

#[test]
fn a_ring_can_be_synced_while_others_append() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 4096));
        let appending = |_| {
            let _ = ring.append(&[1; 2000]);
        };
        beside(2, appending, || {
            for round in 0..5_000 {
                let tail = ring.tail();
                let synced = ring.sync();
                assert!(synced.as_ref().is_ok_and(|&synced| synced >= tail), "round {round}: {synced:?}");
            }
        });
        assert_eq!(ring.poisoned(), None);
    });
}

#[test]
fn all_threads_flush_while_all_append() {
    within(2 * LIMIT, || {
        for appenders in [PathMix::Ring, PathMix::Writers] {
            let (ring, device) = in_memory(options(2, 8192));
            let flushing = |_| drop(ring.flush(&current(&ring)));
            let mut appended = 0;
            beside(3, flushing, || {
                let mut appender = appenders.of(&ring, 0);
                for _ in 0..40_000 {
                    let extent = appender.append(&[7; 100]).expect("room");
                    assert!(extent.start() >= appended);
                    appended = extent.end();
                }
            });
            let end = ring.close().expect("a working device");
            // Behind the last record there may be what a lease had left.
            let expected = appended.next_multiple_of(4096);
            assert!(end == expected || appenders == PathMix::Writers && end > expected, "{end} after {appended}");
            assert_eq!(device.contents().iter().filter(|&&byte| byte == 7).count(), 4_000_000);
            let written = device.writes().iter().map(|&(_, len)| len as u64).sum::<u64>();
            assert_eq!(written, end, "each block was written once");
        }
    });
}

#[test]
fn a_ring_that_is_rotated_and_flushed_by_others_takes_every_byte() {
    within(LIMIT, || {
        let mut manual = fixed(3, 4096);
        for auto_flush in [true, false] {
            manual.auto_flush = auto_flush;
            let (ring, device) = in_memory(manual.clone());
            let helping = |number| match number {
                0 => {
                    let rotated = ring.rotate();
                    assert!(matches!(rotated, Ok(()) | Err(RotateError::RingFull)), "{rotated:?}");
                    thread::yield_now();
                }
                _ => {
                    ring.sync().expect("a working device");
                }
            };
            beside(2, helping, || {
                let mut appended = 0;
                while appended < 5_000 {
                    match ring.append(&[7; 300]) {
                        Ok(_) => appended += 1,
                        Err(AppendError::Sealed | AppendError::RingFull) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            let end = ring.close().expect("a working device");
            assert_eq!(device.contents().len() as u64, end);
            assert_eq!(device.contents().iter().filter(|&&byte| byte == 7).count(), 5_000 * 300);
        }
    });
}

#[test]
fn watermarks_only_grow_and_stay_in_order() {
    within(LIMIT, || {
        for options in [options(3, 4096), held(3, 4096)] {
            let (ring, _device) = in_memory(options);
            let working = |number| match number {
                0 | 1 => drop(ring.try_append(&[1; 700])),
                _ => drop(ring.sync()),
            };
            beside(3, working, || {
                let mut last = (0_u64, 0);
                while last.0 < 4 << 20 {
                    // In this order, because each may grow meanwhile.
                    let durable = ring.durable_watermark();
                    let written = ring.written_watermark();
                    assert!(last.0 <= durable && last.1 <= written, "{last:?}, then {durable}, {written}");
                    assert!(durable <= written, "{durable} durable of {written} written");
                    last = (durable, written);
                }
            });
            assert!(ring.sync().is_ok_and(|end| end == ring.tail()));
        }
    });
}

#[test]
fn the_tail_only_grows() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(3, 65536));
        let working = |number| match number {
            0 | 1 => drop(ring.append(&[1; 400])),
            _ => drop(ring.flush(&current(&ring))),
        };
        beside(4, working, || {
            let mut last = 0_u64;
            while last < 40 << 20 {
                let tail = ring.tail();
                assert!(last <= tail, "{last}, then {tail}");
                last = tail;
            }
        });
        assert_eq!(ring.poisoned(), None);
    });
}
