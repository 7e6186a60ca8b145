//! Events for event loops that the ring knows nothing of.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

pub(crate) use self::imp::Bell;
use crate::sync::Ordering::AcqRel;
use crate::sync::{AtomicUsize, Mutex};

/// The `eventfd`s of watches of the durable watermark. Ringing costs one atomic instruction while there are none.
#[derive(Debug)]
pub(crate) struct Bells {
    count: AtomicUsize,
    hung: Mutex<Hung>,
}

#[derive(Debug, Default)]
struct Hung {
    bells: BTreeMap<u64, Arc<Bell>>,
    arrivals: u64,
}

impl Bells {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), hung: Mutex::new(Hung::default()) }
    }

    /// From now on it rings. Whatever it would have rung for before, the caller sees by a look after this. The answer is for
    /// [`remove`](Self::remove).
    pub(crate) fn add(&self, bell: &Arc<Bell>) -> u64 {
        let mut hung = self.hung.lock();
        hung.arrivals += 1;
        let number = hung.arrivals;
        hung.bells.insert(number, Arc::clone(bell));
        // ordering: acquire half of R18.
        self.count.fetch_add(1, AcqRel);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut hung = self.hung.lock();
        let bell = hung.bells.remove(&number);
        self.count.fetch_sub(1, AcqRel);
        drop(hung);
        drop(bell);
    }

    /// Whether there is one to ring for what the caller has changed.
    pub(crate) fn is_any(&self) -> bool {
        // An addition of nothing: the read-modify-write is the point. ordering: release half of R18.
        self.count.fetch_add(0, AcqRel) > 0
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn len(&self) -> usize {
        self.hung.lock().bells.len()
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        if self.is_any() {
            self.hung.lock().bells.values().for_each(|bell| bell.ring());
        }
    }
}

/// A new one, which does not ring yet.
pub(crate) fn make() -> io::Result<Arc<Bell>> {
    Ok(Arc::new(Bell::new()?))
}

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::write;

    #[derive(Debug)]
    pub(crate) struct Bell(OwnedFd);

    impl Bell {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        pub(crate) fn ring(&self) {
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
    pub(crate) struct Bell(AtomicUsize);

    impl Bell {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(AtomicUsize::new(0)))
        }

        pub(crate) fn ring(&self) {
            self.0.fetch_add(1, Relaxed);
        }

        /// What the event counts, and so takes away.
        pub(crate) fn take(&self) -> usize {
            self.0.swap(0, Relaxed)
        }
    }
}
