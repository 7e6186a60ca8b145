//! Following the durable watermark from outside.

use core::fmt;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::RingError;
use crate::bells::Bells;
use crate::ring::deadline;
use crate::shared::Shared;
use crate::sync::Parker;

/// The durable watermark of a ring, to follow it: for replicating what is on stable storage, for answering clients in the order of the
/// log, for an event loop. It may outlive the ring. Made by [`BufferRing::durable_watch`](crate::BufferRing::durable_watch).
///
/// It asks for nothing: the watermark moves when somebody [waits for durability](crate::BufferRing::wait_durable) or
/// [syncs](crate::BufferRing::sync). So an address may be waited for long before it is given out.
///
/// ```
/// # use buffer_ring::{BufferRing, BufferRingOptions};
/// # use buffer_ring::QuikIO;
/// # let io_instance = Some(QuikIO::in_memory().0.into());
/// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, io_instance, ..Default::default() });
/// let watch = ring.durable_watch();
/// let follower = std::thread::spawn(move || watch.wait_ge(6));
/// ring.append_durable(b"record")?;
/// assert!(follower.join().unwrap()? >= 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DurableWatch {
    shared: Arc<Shared>,
    /// Made when it is asked for. The ring has it weakly, so that it is closed with the last watch.
    event: Arc<OnceLock<Arc<OwnedFd>>>,
}

impl DurableWatch {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), event: Arc::default() }
    }

    /// The watermark: every byte of the log below is on stable storage. Only grows.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.shared.durability.durable()
    }

    /// Returns the watermark when it has reached `address`.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::Closed`] if the ring is closed or gone, and the watermark never got there;
    /// [`RingError::NoDevice`] if there is no device, so that it never moves.
    pub fn wait_ge(&self, address: u64) -> Result<u64, RingError> {
        self.shared.watch(address, None)
    }

    /// Like [`wait_ge`](Self::wait_ge), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`].
    pub fn wait_ge_timeout(&self, address: u64, timeout: Duration) -> Result<u64, RingError> {
        self.shared.watch(address, deadline(timeout))
    }

    /// An `eventfd(2)` for an event loop (`poll`, `epoll`, io_uring, tokio's `AsyncFd`): readable after each move of the watermark, after
    /// the ring was poisoned, and after it has gone. One for this watch and its clones.
    ///
    /// After the first call look at [`get`](Self::get) once: moves before it are not told. Then, each time it is readable, read its 8
    /// bytes, which makes it unreadable until the next move, and after that look. It is non-blocking, and closed with the last clone
    /// of this watch; [`try_clone_to_owned`](BorrowedFd::try_clone_to_owned) gives one of your own. Nobody is told why
    /// it is readable: [`wait_ge_timeout`](Self::wait_ge_timeout) with a timeout of zero tells of a failure.
    ///
    /// # Errors
    ///
    /// If the process has no descriptor left.
    pub fn eventfd(&self) -> io::Result<BorrowedFd<'_>> {
        self.shared.check_process().map_err(io::Error::other)?;
        if let Some(event) = self.event.get() {
            return Ok(event.as_fd());
        }
        let event = Arc::new(Bells::make()?);
        // Another clone may have been faster; then this one is closed here.
        if self.event.set(Arc::clone(&event)).is_ok() {
            self.shared.bells.add(&event);
        }
        Ok(self.event.get().expect("set above").as_fd())
    }
}

impl fmt::Debug for DurableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableWatch").field("durable", &self.get()).finish()
    }
}

impl Shared {
    /// Waits until the watermark has reached `address`, and does nothing for it.
    fn watch(&self, address: u64, deadline: Option<Instant>) -> Result<u64, RingError> {
        if !self.device.exists() {
            return Err(RingError::NoDevice);
        }
        // What has come back from the device may be all that is missing.
        self.poll();
        loop {
            if let Some(outcome) = self.watched(address) {
                return outcome;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(RingError::TimedOut);
            }
            let parker = Parker::new();
            let place = self.parking.follow(address, parker.waker());
            if self.watched(address).is_none() {
                parker.park(deadline);
            }
            self.parking.unfollow(place);
        }
    }

    fn watched(&self, address: u64) -> Option<Result<u64, RingError>> {
        // In this order: what was durable at the end, or before the failure, was durable.
        let closed = self.durability.is_closed();
        let outcome = self.outcome(|| self.durability.durable() >= address);
        let outcome = outcome.or(closed.then_some(Err(RingError::Closed)))?;
        Some(outcome.map(|()| self.durability.durable()))
    }
}
