//! Events for event loops that the ring knows nothing of.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::AcqRel;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;

/// The `eventfd`s of those who watch the durable watermark. Ringing costs one atomic instruction while there are none.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    /// How many there are, those of watches that are gone included until it rings again.
    count: AtomicUsize,
    bells: Mutex<Vec<Weak<OwnedFd>>>,
}

impl Bells {
    /// A new one, which does not ring yet.
    pub(crate) fn make() -> io::Result<OwnedFd> {
        Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
    }

    /// From now on it rings.
    pub(crate) fn add(&self, bell: &Arc<OwnedFd>) {
        self.bells.lock().push(Arc::downgrade(bell));
        // A read-modify-write here and below: either whoever rings finds it, or whoever added it looks later than the change.
        self.count.fetch_add(1, AcqRel);
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        if self.count.fetch_add(0, AcqRel) == 0 {
            return;
        }
        let ring = |bell: &Weak<OwnedFd>| {
            let Some(bell) = bell.upgrade() else { return false };
            // It fails only if it is full, and so is readable anyway.
            let _ = write(bell.as_fd(), &1_u64.to_ne_bytes());
            true
        };
        let mut bells = self.bells.lock();
        let before = bells.len();
        bells.retain(ring);
        self.count.fetch_sub(before - bells.len(), AcqRel);
    }
}
