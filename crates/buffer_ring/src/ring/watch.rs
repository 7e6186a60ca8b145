//! Following the durable watermark from outside.

use core::fmt;
use core::time::Duration;
use std::io;
#[cfg(not(any(loom, shuttle)))]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::commit::eventfd::{self, EventFd};
use crate::error::RingError;
use crate::ring::commit::DurabilityWait;
use crate::ring::core::Core;
use crate::ring::drive::deadline;
use crate::sync::{Mutex, OnceLock, Parker, yield_now};

/// The durable watermark of a ring, to follow it: for replicating what is on stable storage, for answering clients in
/// the order of the log, for an event loop. It may outlive the ring. Made by
/// [`BufferRing::durable_watch`](crate::BufferRing::durable_watch).
///
/// It asks for nothing: the watermark moves when a thread or a future [waits for
/// durability](crate::BufferRing::wait_durable) or [syncs](crate::BufferRing::sync). So an address may be waited for
/// long before it is given out.
///
/// What was asked for is seen also if its caller gave up. A commit whose time is over
/// ([`NotDurableYet`](crate::AppendError::NotDurableYet), [`TimedOut`](RingError::TimedOut)), or whose future was
/// dropped, is brought to its end while the watermark is followed: by a thread that waits here, or, for those that have
/// nothing but an [`eventfd`](Self::eventfd), by a thread that the ring starts for that.
///
/// ```
/// # use buffer_ring::{BufferRing, BufferRingOptions};
/// # use buffer_ring::QuikIO;
/// # let io_instance = Some(QuikIO::in_memory().0.into());
/// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, io_instance, ..Default::default() };
/// # let ring = BufferRing::with_options(options);
/// let watch = ring.durable_watch();
/// let follower = std::thread::spawn(move || watch.wait_ge(6));
/// ring.append_durable(b"record")?;
/// assert!(follower.join().unwrap()? >= 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DurableWatch {
    core: Arc<Core>,
    /// Of this watch and its clones.
    event: Arc<Event>,
}

/// The event of a watch, made when it is asked for. The ring forgets it when the last clone of the watch is dropped.
struct Event {
    core: Arc<Core>,
    eventfd: OnceLock<(u64, Arc<EventFd>)>,
    making: Mutex<()>,
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some((number, _)) = self.eventfd.get()
            && !self.core.is_inherited()
        {
            self.core.waiting.eventfds().remove(*number);
        }
    }
}

impl DurableWatch {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        let event = Event { core: Arc::clone(core), eventfd: OnceLock::new(), making: Mutex::new(()) };
        Self { core: Arc::clone(core), event: Arc::new(event) }
    }

    /// The watermark: every byte of the log below is on stable storage. Only grows.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.core.writeback.durable()
    }

    /// Returns the watermark when it has reached `address`.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::Closed`] if the ring is closed or gone, and the watermark
    /// never got there; [`RingError::NoDevice`] if there is no device, so that it never moves.
    pub fn wait_ge(&self, address: u64) -> Result<u64, RingError> {
        self.core.watch(address, None)
    }

    /// Like [`wait_ge`](Self::wait_ge), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`].
    pub fn wait_ge_timeout(&self, address: u64, timeout: Duration) -> Result<u64, RingError> {
        self.core.watch(address, deadline(timeout))
    }

    /// An `eventfd(2)` for an event loop (`poll`, `epoll`, io_uring, tokio's `AsyncFd`): readable after each move of
    /// the watermark, after the ring was poisoned, and after it has gone; at once, if one of the latter two came first.
    /// One for this watch and its clones.
    ///
    /// After the first call look at [`get`](Self::get) once: moves before it do not count. Then, each time it is
    /// readable, read its 8 bytes, which makes it unreadable until the next move, and after that look. It is
    /// non-blocking, and closed with the last clone of this watch;
    /// [`try_clone_to_owned`](BorrowedFd::try_clone_to_owned) gives one of your own, which is never readable again when
    /// the last clone has gone. It does not say why it is readable: [`wait_ge_timeout`](Self::wait_ge_timeout) with a
    /// timeout of zero returns the failure.
    ///
    /// A commit whose caller gives up later is finished by a thread that is started then. At a task limit there is
    /// none: a warning of `tracing` says so, and the event comes with the next commit, or with the next call that takes
    /// finished writes from the device.
    ///
    /// # Errors
    ///
    /// If the process has no descriptor left; or no thread, while a commit is unfinished whose caller has given up.
    #[cfg(not(any(loom, shuttle)))]
    pub fn eventfd(&self) -> io::Result<BorrowedFd<'_>> {
        self.core.check_process().map_err(io::Error::other)?;
        self.make_eventfd().map(|eventfd| eventfd.as_fd())
    }

    pub(crate) fn make_eventfd(&self) -> io::Result<&EventFd> {
        if let Some((_, eventfd)) = self.event.eventfd.get() {
            return Ok(eventfd);
        }
        // A subscriber of events may ask for it, too.
        let _held = ring_io::events::hold();
        // No clone may have it before it rings.
        let _making = self.event.making.lock();
        if self.event.eventfd.get().is_none() {
            self.core.adopt_abandoned()?;
            let eventfd = eventfd::create()?;
            let number = self.core.waiting.eventfds().add(&eventfd);
            // What came before, and nothing comes after: it will not be rung for that.
            if self.core.poisoned().is_some() || self.core.writeback.is_closed() {
                eventfd.notify();
            }
            self.event.eventfd.get_or_init(|| (number, eventfd));
            let _ = self.core.adopt_abandoned();
        }
        Ok(&self.event.eventfd.get().expect("set above").1)
    }
}

impl fmt::Debug for DurableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableWatch").field("durable", &self.get()).finish()
    }
}

impl Core {
    /// Waits until the watermark has reached `address`. Does nothing for it but finish what another caller has begun
    /// and given up.
    fn watch(&self, address: u64, deadline: Option<Instant>) -> Result<u64, RingError> {
        self.check_process()?;
        if !self.writeback.exists() {
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
            if let Some(unfinished) = self.unfinished() {
                let address = unfinished.min(address);
                let done = self.work_as_follower(|ending| {
                    self.run(DurabilityWait { upto: address, deadline, cancelled: Some(ending) })
                });
                if matches!(done, Some(Err(_))) {
                    // The outcome is looked for above: of a failure, too, which another thread is just making known.
                    yield_now();
                }
                if done.is_some() {
                    continue;
                }
            }
            let parker = Parker::new();
            let place = self.waiting.waiters().add_follower(address, parker.waker());
            if self.watched(address).is_none() && (self.unfinished().is_none() || self.waiting.helpers().is_ending()) {
                parker.park(deadline);
            }
            self.waiting.waiters().remove_follower(place);
        }
    }

    fn watched(&self, address: u64) -> Option<Result<u64, RingError>> {
        // In this order: what was durable at the end, or before the failure, was durable.
        let closed = self.writeback.is_closed();
        let outcome = self.outcome(|| self.writeback.durable() >= address);
        let outcome = outcome.or(closed.then_some(Err(RingError::Closed)))?;
        Some(outcome.map(|()| self.writeback.durable()))
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::os::fd::AsRawFd;

    use crate::options::BufferRingOptions;
    use crate::ring::BufferRing;

    #[test]
    fn a_watch_that_is_gone_leaves_no_event_behind() {
        let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
        let kept = ring.durable_watch();
        let number = kept.eventfd().expect("a descriptor").as_raw_fd();
        for _ in 0..10_000 {
            let (watch, silent) = (ring.durable_watch(), ring.durable_watch());
            let clone = watch.clone();
            assert_ne!(watch.eventfd().expect("a descriptor").as_raw_fd(), number);
            drop((watch, silent));
            assert_eq!(ring.core.waiting.eventfds().len(), 2, "its clone has it");
            drop(clone);
            assert_eq!(ring.core.waiting.eventfds().len(), 1);
        }
        drop(kept);
        assert!(!ring.core.waiting.eventfds().is_any() && ring.core.waiting.eventfds().len() == 0);
    }
}
