//! The futures: on a runtime and on none, dropped at any moment, beside threads that wait.

mod common;

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};

use buffer_ring::{AppendError, BufferRing, MemoryDevice, QuikIO, RingError};
use common::{
    EIO, Holding, LIMIT, MOMENT, current, direct_file, disk, eventually, held, in_memory, options, pattern, ring_on,
    stored, within,
};

/// An executor of a few lines: one future, one thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A waker whose copies can be counted.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Polls once.
fn poll<F: Future + Unpin>(future: &mut F, counted: &Arc<Counted>) -> Poll<F::Output> {
    core::pin::Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(counted))))
}

/// `tasks` tasks with `each` commits, and what they committed.
fn commit_on_tokio(ring: &Arc<BufferRing>, tasks: u64, each: u64) -> Vec<(buffer_ring::Extent, u64)> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let spawn = |task| {
            let ring = Arc::clone(ring);
            tokio::spawn(async move {
                let mut committed = Vec::new();
                for id in task * each..(task + 1) * each {
                    let extent = ring.append_durable_async(&pattern(id, 100)).await.expect("a working device");
                    assert!(ring.durable_watermark() >= extent.end());
                    committed.push((extent, id));
                }
                committed
            })
        };
        let tasks: Vec<_> = (0..tasks).map(spawn).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("no panic"));
        }
        all
    })
}

#[test]
fn tasks_on_tokio_commit_together() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 16384));
        let ring = Arc::new(ring);
        for (extent, id) in commit_on_tokio(&ring, 100, 10) {
            assert!(stored(&device, extent) == pattern(id, 100));
        }
        assert_eq!(device.synced(), device.contents());
        assert_eq!(ring.stats().records_appended, 1000);
    });
}

#[test]
fn tasks_on_tokio_commit_to_a_file() {
    within(LIMIT, || {
        let folder = disk();
        let path = folder.path().join("log");
        let ring = Arc::new(ring_on(QuikIO::new(direct_file(&path)), options(4, 16384)));
        let committed = commit_on_tokio(&ring, 20, 10);
        let file = std::fs::read(&path).expect("the file");
        for (extent, id) in committed {
            assert!(file[extent.start() as usize..extent.end() as usize] == pattern(id, 100));
        }
    });
}

#[test]
fn futures_need_no_runtime_and_get_along_with_threads_that_wait() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let ring = Arc::new(ring);
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let ring = &ring;
                scope.spawn(move || {
                    for n in 0..50 {
                        let payload = pattern(thread * 50 + n, 100);
                        let extent = match (thread + n) % 3 {
                            0 => block_on(ring.append_durable_async(&payload)).expect("a working device"),
                            1 => ring.append_durable(&payload).expect("a working device"),
                            _ => {
                                let extent = block_on(ring.append_async(&payload)).expect("room");
                                assert_eq!(block_on(ring.wait_durable_async(extent.end())), Ok(()));
                                extent
                            }
                        };
                        assert!(ring.durable_watermark() >= extent.end());
                    }
                });
            }
        });
        assert_eq!((ring.stats().records_appended, device.synced()), (400, device.contents()));
    });
}

/// A ring of two buffers, both full and in flight until the last value is dropped.
fn full() -> (BufferRing, MemoryDevice, Holding) {
    let (ring, device) = in_memory(options(2, 4096));
    let holding = Holding::new(&device);
    for id in 0..2 {
        ring.append(&pattern(id, 4096)).expect("room");
    }
    (ring, device, holding)
}

#[test]
fn a_future_waits_for_room_and_appends_once() {
    within(LIMIT, || {
        let (ring, device, holding) = full();
        let counted = Arc::new(Counted);
        let payload = pattern(2, 4096);
        let mut future = ring.append_async(&payload);
        assert!(poll(&mut future, &counted).is_pending());
        drop(holding);
        let extent = block_on(future).expect("room");
        assert_eq!((extent.start(), ring.stats().records_appended), (8192, 3));
        ring.sync().expect("a working device");
        assert!(stored(&device, extent) == pattern(2, 4096));
    });
}

#[test]
fn a_future_waits_for_room_and_reserves_zeros_once() {
    within(LIMIT, || {
        let (ring, device, holding) = full();
        let counted = Arc::new(Counted);
        let mut future = ring.reserve_async(100);
        assert!(poll(&mut future, &counted).is_pending());
        drop(holding);
        let mut reserved = block_on(future).expect("room");
        assert_eq!((reserved.extent().start(), &reserved[..]), (8192, &[0; 100][..]));
        reserved.copy_from_slice(&pattern(2, 100));
        let extent = reserved.commit();
        drop(block_on(ring.reserve_async(8)).expect("room"));
        assert_eq!((ring.stats().records_appended, ring.stats().reservations_aborted), (3, 1));
        assert_eq!(block_on(ring.reserve_async(0)).map(drop), Err(AppendError::Empty));
        ring.sync().expect("a working device");
        assert!(stored(&device, extent) == pattern(2, 100));
    });
}

#[test]
fn a_dropped_future_takes_nothing_from_others_and_leaves_no_waker() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let ring = Arc::new(ring);
        let holding = Holding::new(&device);
        let extent = ring.append(&pattern(0, 100)).expect("room");
        let counted = Arc::new(Counted);
        for _ in 0..10 {
            let mut future = ring.wait_durable_async(extent.end());
            assert!(poll(&mut future, &counted).is_pending() && poll(&mut future, &counted).is_pending());
            assert_eq!(Arc::strong_count(&counted), 2, "one waker for each future");
            drop(future);
            assert_eq!(Arc::strong_count(&counted), 1, "and none without");
        }
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || block_on(ring.wait_durable_async(extent.end())))
        };
        ring.append(&pattern(1, 4096)).expect("room");
        while ring.try_append(&pattern(2, 4096)).is_ok() {}
        for _ in 0..10 {
            let payload = pattern(3, 4096);
            let mut future = ring.append_async(&payload);
            assert!(poll(&mut future, &counted).is_pending() && poll(&mut future, &counted).is_pending());
            assert_eq!(Arc::strong_count(&counted), 2);
            drop(future);
            assert_eq!(Arc::strong_count(&counted), 1);
        }
        drop(holding);
        assert_eq!(other.join().expect("no panic"), Ok(()));
        assert!(stored(&device, extent) == pattern(0, 100));
    });
}

#[test]
fn a_failure_reaches_futures() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let ring = Arc::new(ring);
        device.fail_write(0, EIO);
        let holding = Holding::new(&device);
        let tasks = [0, 1, 2].map(|id| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || block_on(ring.append_durable_async(&pattern(id, 100))))
        });
        eventually("a batch is under way", || device.held() > 0);
        drop(holding);
        for task in tasks {
            assert!(matches!(task.join().expect("no panic"), Err(AppendError::Poisoned(RingError::Device(_)))));
        }
        assert_eq!(ring.durable_watermark(), 0);
        assert!(block_on(ring.append_async(b"x")).is_err());
    });
}

#[test]
fn what_is_not_there_is_not_waited_for() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 4096));
        let tail = ring.tail();
        assert_eq!(
            block_on(ring.wait_durable_async(tail + 1)),
            Err(RingError::NotAppended { address: tail + 1, tail })
        );
        assert_eq!(block_on(ring.append_async(b"")), Err(AppendError::Empty));
        // A flush that no thread asks for is not waited for either.
        let (ring, _device): (BufferRing, MemoryDevice) = in_memory(held(2, 4096));
        for id in 0..2 {
            ring.append(&pattern(id, 4096)).expect("room");
        }
        assert_eq!(block_on(ring.append_async(&pattern(2, 4096))), Err(AppendError::RingFull));
        ring.flush(&current(&ring)).wait().expect("written");
        assert_eq!(block_on(ring.wait_durable_async(8192)), Ok(()));
    });
}

/// What lies below a reservation that is held does not wait for it, the thread that waits for what lies behind it.
#[test]
fn a_future_that_needs_less_fetches_the_thread_from_one_that_waits_for_a_reservation() {
    within(LIMIT, || {
        for behind_another_thread in [false, true] {
            let (ring, device) = in_memory(options(4, 4096));
            let first = ring.append(&pattern(0, 4096)).expect("room");
            ring.flush(&current(&ring)).wait().expect("a working device");
            let held = ring.reserve(100).expect("room");
            let second = current(&ring);
            let behind = ring.append(&pattern(1, 100)).expect("room").end();
            thread::scope(|scope| {
                let waiter = behind_another_thread.then(|| {
                    let waiter = scope.spawn(|| ring.wait_durable(behind));
                    eventually("it waits for the reservation", || second.is_sealed());
                    waiter
                });
                let counted = Arc::new(Counted);
                let mut future = ring.wait_durable_async(behind);
                assert!(poll(&mut future, &counted).is_pending());
                eventually("a thread waits for the reservation", || second.is_sealed());
                // The thread that waits for futures, too, asleep by now; behind a reservation it looks once more after
                // a second.
                thread::sleep(if behind_another_thread { MOMENT } else { Duration::from_millis(1100) });
                assert_eq!(block_on(ring.wait_durable_async(first.end())), Ok(()));
                assert!((first.end()..behind).contains(&ring.durable_watermark()));
                held.commit();
                assert_eq!(block_on(future), Ok(()));
                assert!(waiter.is_none_or(|waiter| waiter.join().expect("no panic") == Ok(())));
            });
            assert_eq!(device.synced(), device.contents());
        }
    });
}

#[test]
fn a_future_that_needs_less_fetches_the_thread_from_the_device() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let first = ring.append(&pattern(0, 4096)).expect("room");
        ring.flush(&current(&ring)).wait().expect("a working device");
        let holding = Holding::new(&device);
        let second = ring.append(&pattern(1, 100)).expect("room");
        ring.flush(&current(&ring));
        let mut behind = ring.wait_durable_async(second.end());
        assert!(poll(&mut behind, &Arc::new(Counted)).is_pending());
        // The thread is at the device by now.
        thread::sleep(MOMENT);
        assert_eq!(block_on(ring.wait_durable_async(first.end())), Ok(()));
        assert_eq!((ring.durable_watermark(), device.held()), (first.end(), 1));
        drop(holding);
        assert_eq!(block_on(behind), Ok(()));
    });
}

/// Who watches asks for nothing, also while others do.
#[test]
fn a_watch_beside_a_future_asks_for_nothing() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(4, 4096));
        let holding = Holding::new(&device);
        let first = ring.append(&pattern(0, 100)).expect("room");
        let watch = ring.durable_watch();
        let watcher = thread::spawn(move || watch.wait_ge(1 << 40));
        let mut future = ring.wait_durable_async(first.end());
        assert!(poll(&mut future, &Arc::new(Counted)).is_pending());
        eventually("it is under way", || device.held() > 0);
        let second = ring.append(&pattern(1, 100)).expect("room");
        drop(holding);
        assert_eq!(block_on(future), Ok(()));
        thread::sleep(MOMENT);
        assert!(!current(&ring).is_sealed());
        assert_eq!(ring.written_watermark(), second.start());
        drop(ring);
        assert!(watcher.join().expect("no panic").is_err());
    });
}

/// Forgotten futures, one behind a reservation that never ends, and a ring that goes all the same.
#[test]
fn the_threads_for_futures_end_with_the_ring() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 4096));
        core::mem::forget(ring.reserve(100).expect("room"));
        let end = ring.append(&pattern(0, 100)).expect("room").end();
        let counted = Arc::new(Counted);
        let mut durable = ring.wait_durable_async(end);
        assert!(poll(&mut durable, &counted).is_pending());
        core::mem::forget(durable);
        while ring.try_append(&pattern(1, 4096)).is_ok() {}
        let payload = pattern(2, 4096);
        let mut append = ring.append_async(&payload);
        assert!(poll(&mut append, &counted).is_pending());
        core::mem::forget(append);
        drop(ring);
        eventually("no thread has a waker any more", || Arc::strong_count(&counted) == 1);
    });
}
