//! Waits that are over before what they wait for is there: what they leave behind, and to which thread.

mod common;

use core::time::Duration;
use std::sync::{Mutex, mpsc};
use std::thread;

use buffer_ring::{AppendError, DeviceEvent, RingError};
use common::{EIO, Holding, LIMIT, MOMENT, current, eventually, in_memory, options, pattern, within};

/// It is the only thread that looks at the ring from then on.
#[test]
fn a_thread_that_follows_wakes_up_for_a_commit_whose_caller_gives_up_later() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 8192));
        let holding = Holding::new(&device);
        let watch = ring.durable_watch();
        let follower = thread::spawn(move || watch.wait_ge(100));
        thread::sleep(MOMENT);
        let outcome = ring.append_durable_timeout(&pattern(1, 100), Duration::from_millis(1));
        assert!(matches!(outcome, Err(AppendError::NotDurableYet(_))), "{outcome:?}");
        drop(holding);
        assert!(follower.join().expect("no panic").is_ok());
        assert_eq!(device.synced(), device.contents());
    });
}

#[test]
fn a_ring_is_not_closed_while_another_thread_syncs_what_was_written() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        ring.append(&pattern(1, 100)).expect("room");
        ring.flush(&current(&ring)).wait().expect("a working device");
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        device.watch(move |event| {
            if let DeviceEvent::SyncBegan { .. } = event {
                // Until the sender is dropped.
                let _ = released.lock().expect("no panic").recv();
            }
        });
        thread::scope(|scope| {
            let sync = scope.spawn(|| ring.sync());
            eventually("it is at the device", || device.syncs() > 0);
            assert_eq!(ring.close_timeout(MOMENT), Err(RingError::TimedOut));
            assert_eq!(ring.durable_watermark(), 0);
            drop(release);
            assert_eq!(sync.join().expect("no panic"), Ok(4096));
        });
        assert_eq!(ring.close(), Ok(4096));
    });
}

#[cfg(feature = "async")]
mod futures {
    use core::future::Future;
    use core::pin::{Pin, pin};
    use core::task::{Context, Poll, Waker};
    use std::sync::Arc;
    use std::task::Wake;

    use buffer_ring::{BufferRing, BufferRingOptions, CommitPolicy, QuikIO};
    use common::held;

    use super::*;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// The outcome of a future that was polled before.
    fn finish<F: Future>(mut future: Pin<&mut F>) -> F::Output {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// When the thread that waits for room sleeps. Not by a scoped thread, whose end would wake the future's.
    fn release_later(holding: Holding) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            thread::sleep(MOMENT);
            drop(holding);
        })
    }

    #[test]
    fn a_future_that_waits_for_room_ends_with_the_failure() {
        within(LIMIT, || {
            let (ring, device) = in_memory(options(2, 4096));
            // Neither buffer becomes free, which would be news, too.
            device.fail_write(0, EIO);
            device.fail_write(1, EIO);
            let holding = Holding::new(&device);
            while ring.try_append(&pattern(1, 4096)).is_ok() {}
            let payload = pattern(2, 4096);
            let mut append = pin!(ring.append_async(&payload));
            assert!(is_pending(append.as_mut()));
            let released = release_later(holding);
            assert!(matches!(finish(append), Err(AppendError::Poisoned(RingError::Device(_)))));
            released.join().expect("no panic");
        });
    }

    /// Only a flush that no thread has asked for is not waited for.
    #[test]
    fn a_future_waits_for_a_flush_that_is_under_way() {
        within(LIMIT, || {
            let (ring, device) = in_memory(held(2, 4096));
            let first = current(&ring);
            ring.append(&pattern(1, 4096)).expect("room");
            ring.append(&pattern(2, 4096)).expect("room");
            let holding = Holding::new(&device);
            ring.flush(&first);
            let payload = pattern(3, 4096);
            let mut append = pin!(ring.append_async(&payload));
            assert!(is_pending(append.as_mut()));
            let released = release_later(holding);
            assert_eq!(finish(append).map(|extent| extent.start()), Ok(8192));
            released.join().expect("no panic");
        });
    }

    #[test]
    fn a_batch_counts_the_futures_that_it_takes_along() {
        within(LIMIT, || {
            const FUTURES: u64 = 5;
            let (io, device) = QuikIO::in_memory();
            let options = BufferRingOptions { io_instance: Some(io.into()), ..options(4, 4096) };
            let builder = BufferRing::builder(options).measure_latency(true);
            let ring = builder.commit_policy(CommitPolicy::MinBytes(1 << 30)).build().expect("valid options");
            let holding = Holding::new(&device);
            thread::scope(|scope| {
                let first = scope.spawn(|| ring.append_durable(&pattern(0, 100)));
                eventually("a batch is under way", || device.held() > 0);
                let append = |id| ring.append(&pattern(id, 100)).expect("room").end();
                let mut futures: Vec<_> =
                    (0..FUTURES).map(|id| Box::pin(ring.wait_durable_async(append(1 + id)))).collect();
                assert!(futures.iter_mut().all(|future| is_pending(future.as_mut())));
                drop(holding);
                assert!(first.join().expect("no panic").is_ok());
                for future in &mut futures {
                    assert_eq!(finish(future.as_mut()), Ok(()));
                }
            });
            let sizes = ring.stats().latencies.expect("asked for").batch_size;
            assert!(sizes.max() >= FUTURES, "{} of {FUTURES}", sizes.max());
        });
    }
}
