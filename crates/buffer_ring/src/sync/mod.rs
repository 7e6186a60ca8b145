//! The one place of this crate that knows where atomics and locks come from: the hardware and `parking_lot`, or a
//! checker.

#[cfg(any(loom, shuttle))]
mod checked;
pub(crate) mod fence;
#[cfg(any(loom, shuttle))]
pub mod model_device;
pub(crate) mod shadow;

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::thread::{JoinHandle, yield_now};

    use core::task::Waker;
    use core::time::Duration;
    use std::io;
    use std::sync::Arc;
    use std::task::Wake;
    use std::thread;
    use std::time::Instant;

    use crossbeam_utils::sync::Unparker;

    const FIRST_NAP: Duration = Duration::from_micros(10);
    const LONGEST_NAP: Duration = Duration::from_millis(1);

    /// Pauses for a thread that waits for a few instructions of another one: it spins, then yields, then sleeps.
    ///
    /// The other thread may be waiting for this one's processor, and have a lower priority: then yielding does not let
    /// it run, but sleeping does.
    #[derive(Debug)]
    pub(crate) struct Backoff {
        short: crossbeam_utils::Backoff,
        nap: Duration,
    }

    impl Backoff {
        pub(crate) fn new() -> Self {
            Self { short: crossbeam_utils::Backoff::new(), nap: FIRST_NAP }
        }

        pub(crate) fn pause(&mut self) {
            if self.short.is_completed() { self.sleep() } else { self.short.snooze() }
        }

        /// For a thread that has spun and yielded already.
        pub(crate) fn sleep(&mut self) {
            thread::sleep(self.nap);
            self.nap = (2 * self.nap).min(LONGEST_NAP);
        }
    }

    /// Starts a thread of the ring's own.
    pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        ring_io::spawn(name, run)
    }

    pub(crate) fn is_this_thread(thread: &JoinHandle<()>) -> bool {
        thread.thread().id() == thread::current().id()
    }

    /// Lets its thread sleep until the waker is used, be it before or after.
    pub(crate) struct Parker(crossbeam_utils::sync::Parker);

    impl Parker {
        pub(crate) fn new() -> Self {
            Self(crossbeam_utils::sync::Parker::new())
        }

        pub(crate) fn waker(&self) -> Waker {
            Waker::from(Arc::new(Unpark(self.0.unparker().clone())))
        }

        pub(crate) fn park(&self, deadline: Option<Instant>) {
            match deadline {
                None => self.0.park(),
                Some(deadline) => self.0.park_deadline(deadline),
            }
        }
    }

    struct Unpark(Unparker);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }
}

#[cfg(any(loom, shuttle))]
pub(crate) use checked::*;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use imp::*;
