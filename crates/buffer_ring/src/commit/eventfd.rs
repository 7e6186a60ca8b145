//! Events for event loops that the ring knows nothing of.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub(crate) use self::imp::EventFd;
use crate::sync::Ordering::AcqRel;
use crate::sync::{AtomicUsize, Mutex};

/// The `eventfd`s of watches of the durable watermark. Ringing costs one atomic instruction while there are none.
#[derive(Debug)]
pub(crate) struct EventFds {
    count: AtomicUsize,
    registered: Mutex<EventFdMap>,
}

#[derive(Debug, Default)]
struct EventFdMap {
    eventfds: BTreeMap<u64, Arc<EventFd>>,
    arrivals: u64,
}

impl EventFds {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), registered: Mutex::new(EventFdMap::default()) }
    }

    /// From now on it rings. Whatever it would have rung for before, the caller sees by a look after this. The answer
    /// is for [`remove`](Self::remove).
    pub(crate) fn add(&self, eventfd: &Arc<EventFd>) -> u64 {
        let mut registered = self.registered.lock();
        registered.arrivals += 1;
        let number = registered.arrivals;
        registered.eventfds.insert(number, Arc::clone(eventfd));
        // ordering: acquire half of R18.
        self.count.fetch_add(1, AcqRel);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut registered = self.registered.lock();
        let eventfd = registered.eventfds.remove(&number);
        // ordering: as in `add` (R18), though nothing relies on a removal.
        self.count.fetch_sub(1, AcqRel);
        drop(registered);
        drop(eventfd);
    }

    /// Whether there is one to ring for what the caller has changed.
    pub(crate) fn is_any(&self) -> bool {
        // An addition of nothing: the read-modify-write is the point. ordering: release half of R18.
        self.count.fetch_add(0, AcqRel) > 0
    }

    #[cfg(test)]
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn len(&self) -> usize {
        self.registered.lock().eventfds.len()
    }

    /// Something has changed.
    pub(crate) fn notify(&self) {
        if self.is_any() {
            self.registered.lock().eventfds.values().for_each(|eventfd| eventfd.notify());
        }
    }
}

/// A new one, which does not ring yet.
pub(crate) fn create() -> io::Result<Arc<EventFd>> {
    Ok(Arc::new(EventFd::new()?))
}

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::write;

    #[derive(Debug)]
    pub(crate) struct EventFd(OwnedFd);

    impl EventFd {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        pub(crate) fn notify(&self) {
            // It fails only if it is full, and so is readable anyway.
            let _ = write(&self.0, &1_u64.to_ne_bytes());
        }

        pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

/// For models: counts.
#[cfg(any(loom, shuttle))]
mod imp {
    use std::io;

    use crate::sync::AtomicUsize;
    use crate::sync::Ordering::Relaxed;

    #[derive(Debug)]
    pub(crate) struct EventFd(AtomicUsize);

    impl EventFd {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(AtomicUsize::new(0)))
        }

        pub(crate) fn notify(&self) {
            self.0.fetch_add(1, Relaxed);
        }

        /// What the event counts, and so takes away.
        pub(crate) fn take(&self) -> usize {
            self.0.swap(0, Relaxed)
        }
    }
}
