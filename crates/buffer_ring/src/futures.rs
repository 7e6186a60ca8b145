//! The futures of the feature `async`, and the two threads that do the work while they are pending.
//!
//! A future must not block, so it cannot lead a batch, sync, or drive the device as a thread that waits does. While futures are
//! pending, one thread waits in their stead for the lowest address that they wait for, and another for room. Each is started when
//! it is needed for the first time, sleeps while nothing is pending, and ends with the ring.
//!
//! The lowest, because nothing is durable before what lies below it; what came meanwhile goes out in the same batch, unless that was
//! sealed already. A future that comes later and needs less recalls the thread from what it is at, which may be a wait for bytes behind
//! a reservation that is held.
//!
//! A future knows no runtime: it leaves its waker where it will be woken, and dropping it takes the waker away again.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::append::Patience;
use crate::commit::Errand;
use crate::flights::Waiting;
use crate::parking::Place;
use crate::rotation::Life;
use crate::shared::Shared;
use crate::{AppendError, BufferRing, Extent, RingError};

impl BufferRing {
    /// [`append`](Self::append) as a future: ready at once if there is room, else when there is.
    ///
    /// Nothing is appended before it is polled, nor after it was dropped.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn append_async<'a>(&'a self, payload: &'a [u8]) -> AppendFuture<'a> {
        AppendFuture { shared: &self.shared, payload, place: None }
    }

    /// [`append_durable`](Self::append_durable) as a future.
    ///
    /// Dropped before it is ready it may have appended; that stays in the log.
    ///
    /// # Errors
    ///
    /// Those of [`append_durable`](Self::append_durable).
    pub async fn append_durable_async(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.shared.check_device()?;
        let extent = self.append_async(payload).await?;
        let outcome = self.wait_durable_async(extent.end()).await;
        outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
    }

    /// [`wait_durable`](Self::wait_durable) as a future. Dropping it takes nothing from others who wait.
    ///
    /// It waits for reservations in the buffers concerned, too: one that the task holds itself keeps it pending for ever. A waker may be
    /// called by a thread that is at the device: it must not drop the ring itself.
    ///
    /// # Errors
    ///
    /// Those of [`wait_durable`](Self::wait_durable).
    pub fn wait_durable_async(&self, address: u64) -> DurableFuture<'_> {
        DurableFuture { shared: &self.shared, address, waiting: None, place: None }
    }
}

/// Made by [`BufferRing::wait_durable_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct DurableFuture<'a> {
    shared: &'a Arc<Shared>,
    address: u64,
    /// Since the first poll, so that what goes out meanwhile is durable.
    waiting: Option<Waiting<'a>>,
    place: Option<Place>,
}

impl Future for DurableFuture<'_> {
    type Output = Result<(), RingError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (shared, address) = (this.shared, this.address);
        if let Err(forked) = shared.check_process() {
            return Poll::Ready(Err(forked));
        }
        // The waker may be another one each time.
        this.forget();
        if !shared.device.exists() {
            return Poll::Ready(Err(RingError::NoDevice));
        }
        // In this order: what was durable at the end was durable.
        let closed = shared.durability.is_closed();
        if let Some(outcome) = shared.durable_outcome(address).or(closed.then_some(Err(RingError::Closed))) {
            return Poll::Ready(outcome);
        }
        if let Err(error) = shared.check_appended(address) {
            return Poll::Ready(Err(error));
        }
        this.waiting.get_or_insert_with(|| shared.flights.arrive(!shared.is_sealed(address)));
        this.place = Some(shared.parking.follow(address, context.waker().clone()));
        if let Some(outcome) = shared.durable_outcome(address) {
            this.forget();
            return Poll::Ready(outcome);
        }
        if !shared.helpers.commit(shared, address) {
            // Without a thread it cannot be had without waiting.
            return Poll::Ready(shared.wait_durable(address, None));
        }
        Poll::Pending
    }
}

impl DurableFuture<'_> {
    fn forget(&mut self) {
        if let Some(place) = self.place.take()
            && !self.shared.is_inherited()
        {
            self.shared.parking.unfollow(place);
        }
    }
}

impl Drop for DurableFuture<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Made by [`BufferRing::append_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct AppendFuture<'a> {
    shared: &'a Arc<Shared>,
    payload: &'a [u8],
    /// Its number among those who wait for room.
    place: Option<u64>,
}

impl Future for AppendFuture<'_> {
    type Output = Result<Extent, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.forget();
        let shared = this.shared;
        let seen = shared.rotation.current();
        match shared.append(this.payload, Patience::Never) {
            Err(AppendError::RingFull) if !shared.next_is_held(seen) => {}
            outcome => return Poll::Ready(outcome),
        }
        match shared.helpers.await_room(shared, seen, context.waker()) {
            Some(place) => {
                this.place = Some(place);
                Poll::Pending
            }
            // Without a thread it cannot be had without waiting.
            None => Poll::Ready(shared.append(this.payload, Patience::ForRoom)),
        }
    }
}

impl AppendFuture<'_> {
    fn forget(&mut self) {
        if let Some(place) = self.place.take()
            && !self.shared.is_inherited()
        {
            // Not dropped within the lock: with the waker a task may go, and with it others who wait for room.
            drop(self.shared.helpers.room.with(|room| room.wakers.remove(&place)));
        }
    }
}

impl Drop for AppendFuture<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The threads that wait in the stead of futures.
#[derive(Debug, Default)]
pub(crate) struct Helpers {
    commit: Helper<Commits>,
    room: Helper<Room>,
    /// Whether the ring is going.
    ending: AtomicBool,
    /// Whether the thread that waits for durability is to look at once what it is wanted for. Changed within its lock.
    recalled: AtomicBool,
}

/// What futures wait for to be durable.
#[derive(Debug, Default)]
struct Commits {
    /// Where it ends. Some of those who wait for it may have been dropped.
    wanted: BTreeSet<u64>,
    /// The one that the thread is at.
    current: Option<u64>,
}

/// Those who wait for room.
#[derive(Debug, Default)]
struct Room {
    wakers: BTreeMap<u64, Waker>,
    arrivals: u64,
    /// The oldest life that one of them has found to be full.
    seen: Option<Life>,
}

impl Helpers {
    /// Has somebody wait until `address` is durable. `false` if there is no thread to be had.
    fn commit(&self, shared: &Arc<Shared>, address: u64) -> bool {
        let mut interrupted = None;
        let add = |commits: &mut Commits| {
            commits.wanted.insert(address);
            interrupted = commits.current.filter(|&current| address < current);
            if interrupted.is_some() {
                self.recalled.store(true, Relaxed);
            }
        };
        let waits = self.commit.want(shared, "ring-commit", Shared::commit_for_futures, add);
        if let Some(current) = interrupted {
            shared.wake_helper_at(current);
        }
        waits
    }

    /// Leaves `waker` with somebody who waits until another life than `seen` is current. `None` if there is no thread to be had.
    fn await_room(&self, shared: &Arc<Shared>, seen: Life, waker: &Waker) -> Option<u64> {
        let mut place = 0;
        let add = |room: &mut Room| {
            room.arrivals += 1;
            place = room.arrivals;
            room.wakers.insert(place, waker.clone());
            room.seen = Some(room.seen.map_or(seen, |oldest| oldest.min(seen)));
        };
        let waits = self.room.want(shared, "ring-room", Shared::await_room_for_futures, add);
        if !waits {
            drop(self.room.with(|room| room.wakers.remove(&place)));
        }
        waits.then_some(place)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Acquire)
    }
}

/// A thread that is started when it is wanted, and what it is wanted for.
#[derive(Debug, Default)]
struct Helper<W> {
    wanted: Mutex<W>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<W> Helper<W> {
    fn with<R>(&self, f: impl FnOnce(&mut W) -> R) -> R {
        f(&mut self.wanted.lock())
    }

    /// Adds to what is wanted, and sees to it that there is a thread.
    fn want(&self, shared: &Arc<Shared>, name: &str, run: fn(&Shared), add: impl FnOnce(&mut W)) -> bool {
        self.with(add);
        self.changed.notify_one();
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(shared);
            match ring_io::spawn(name, move || run(&shared)) {
                Ok(started) => *thread = Some(started),
                Err(error) => tracing::warn!(%error, name, "cannot start a thread for futures: they block"),
            }
        }
        thread.is_some()
    }

    /// What is wanted, taken by `take` when there is something; `None` when the ring is going.
    fn next<R>(&self, ending: impl Fn() -> bool, take: impl Fn(&mut W) -> Option<R>) -> Option<R> {
        let mut wanted = self.wanted.lock();
        loop {
            if ending() {
                return None;
            }
            if let Some(next) = take(&mut wanted) {
                return Some(next);
            }
            self.changed.wait(&mut wanted);
        }
    }

    /// Waits until the thread has ended, which has been told to.
    fn end(&self) {
        // So that it is either before its look at whether the ring is going, or asleep.
        drop(self.wanted.lock());
        self.changed.notify_one();
        if let Some(thread) = self.thread.lock().take()
            // A waker that drops the ring is called by that thread.
            && thread.thread().id() != thread::current().id()
        {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a helper panicked");
        }
    }
}

impl Shared {
    fn commit_for_futures(&self) {
        let helpers = &self.helpers;
        let ending = || helpers.is_ending();
        let first = |commits: &mut Commits| {
            commits.current = commits.wanted.first().copied();
            helpers.recalled.store(false, Relaxed);
            commits.current
        };
        while let Some(address) = helpers.commit.next(ending, first) {
            let errand = Errand { address, deadline: None, recalled: Some(&helpers.recalled) };
            if self.run(errand) == Err(RingError::TimedOut) {
                continue;
            }
            let done = address.max(self.durability.durable());
            helpers.commit.with(|commits| commits.wanted.retain(|&wanted| wanted > done));
            // Most have been woken by whoever brought the outcome. Not if one of them waits for what nobody has appended: its look at the
            // tail was deceived by a thread whose bytes did not fit. All of them look again, each for itself.
            self.parking.wake_up_to(done);
        }
    }

    /// The thread that waits until `address` is durable looks again, wherever it sleeps.
    fn wake_helper_at(&self, address: u64) {
        self.waiters.wake();
        self.parking.call_at(address);
        self.device.interrupt();
    }

    fn await_room_for_futures(&self) {
        let ending = || self.helpers.is_ending();
        // Those who wait stay in the list, so that they can take themselves away.
        while let Some(seen) = self.helpers.room.next(ending, |room| room.seen.filter(|_| !room.wakers.is_empty())) {
            let news = || {
                self.rotation.current() != seen
                    || self.has_ended()
                    || self.rotation.is_exhausted(&self.slots)
                    || self.next_is_held(seen)
                    || ending()
            };
            // It may be at the device when there is room. Without a deadline the wait ends only with news.
            let _wanted = self.waiters.ask_for_room();
            let _ = self.wait_until(None, || news().then_some(()));
            let woken = self.helpers.room.with(|room| {
                room.seen = None;
                core::mem::take(&mut room.wakers)
            });
            woken.into_values().for_each(Waker::wake);
        }
    }

    /// Ends the threads; whatever they wait for, no future is pending any more.
    pub(crate) fn end_helpers(&self) {
        let helpers = &self.helpers;
        helpers.commit.with(|_| {
            helpers.ending.store(true, Release);
            helpers.recalled.store(true, Relaxed);
        });
        self.waiters.wake();
        self.parking.wake_up_to(u64::MAX);
        self.device.interrupt();
        helpers.commit.end();
        helpers.room.end();
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::time::Duration;
    use std::sync::mpsc;
    use std::task::Wake;

    use ring_io::QuikIO;

    use super::*;
    use crate::BufferRingOptions;

    struct Tell(mpsc::Sender<()>);

    impl Wake for Tell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    /// The tail can be told too high for a moment: then somebody waits for an address that nobody has appended. It has to look again.
    #[test]
    fn who_waits_for_too_much_is_woken_and_takes_nothing_from_the_others() {
        let options = BufferRingOptions {
            capacity: 2,
            buffer_size: 4096,
            io_instance: Some(Arc::new(QuikIO::in_memory().0)),
            ..Default::default()
        };
        let ring = BufferRing::with_options(options);
        let extent = ring.append(&[1; 512]).expect("there is room");
        let channel = || {
            let (tell, told) = mpsc::channel();
            (Waker::from(Arc::new(Tell(tell))), move || {
                told.recv_timeout(Duration::from_secs(60)).expect("it is woken");
            })
        };
        // Not by a future, which would find out at once.
        let (deceived, deceived_is_woken) = channel();
        ring.shared.parking.follow(1 << 40, deceived);
        assert!(ring.shared.helpers.commit(&ring.shared, 1 << 40));
        let (waker, is_woken) = channel();
        let mut durable = pin!(ring.wait_durable_async(extent.end()));
        while durable.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            is_woken();
        }
        assert!(ring.durable_watermark() >= extent.end());
        deceived_is_woken();
    }
}
