//! The one place of this crate that knows where atomics and locks come from: the hardware and `ring_io::locks`, or a
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
    pub(crate) use ring_io::locks::{Condvar, Mutex};
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::thread::{JoinHandle, yield_now};

    use core::task::Waker;
    use core::time::Duration;
    use std::io;
    use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard, TryLockError};
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

    /// A lock for many that read, and one that writes once: a writer that waits does not keep readers out, so that
    /// a thread that reads may read once more.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            let mut backoff = Backoff::new();
            loop {
                // Only tried: the lock gives no reader its turn behind a writer that waits.
                match self.0.try_write() {
                    Ok(guard) => return guard,
                    Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => backoff.pause(),
                }
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
