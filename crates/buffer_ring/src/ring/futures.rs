//! The futures of the feature `async`.
//!
//! A future must not block, so it cannot lead a batch, sync, or drive the device as a thread that waits does. While
//! futures are pending, [threads of the ring](crate::commit::helpers) do that in their stead.
//!
//! A future knows no runtime: it leaves its waker where it will be woken, and dropping it takes the waker away again.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::sync::Arc;

use ring_io::event;

use crate::commit::groups::WaiterCount;
use crate::commit::helpers::{Ticket, run_again_after_panic};
use crate::error::{AppendError, RingError};
use crate::extent::Extent;
use crate::reservation::Reservation;
use crate::ring::BufferRing;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::staging::rotation::BufferId;
use crate::staging::slot::Grant;

impl BufferRing {
    /// [`append`](Self::append) as a future: ready at once if there is room, else when there is.
    ///
    /// Nothing is appended before it is polled, nor after it was dropped.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn append_async<'a>(&'a self, payload: &'a [u8]) -> AppendFuture<'a> {
        AppendFuture { room: RoomFuture::new(&self.core, payload.len()), payload }
    }

    /// [`reserve`](Self::reserve) as a future: ready at once if there is room, else when there is.
    ///
    /// Nothing is reserved before it is polled, nor after it was dropped. A task that holds the reservation while it
    /// waits for something else holds a whole buffer back.
    ///
    /// # Errors
    ///
    /// Those of [`reserve`](Self::reserve).
    pub fn reserve_async(&self, len: usize) -> ReserveFuture<'_> {
        ReserveFuture { room: RoomFuture::new(&self.core, len) }
    }

    /// [`append_durable`](Self::append_durable) as a future.
    ///
    /// Dropped before it is ready it may have appended; that stays in the log.
    ///
    /// # Errors
    ///
    /// Those of [`append_durable`](Self::append_durable).
    pub async fn append_durable_async(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.check_device()?;
        let extent = self.append_async(payload).await?;
        let outcome = self.wait_durable_async(extent.end()).await;
        outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
    }

    /// [`wait_durable`](Self::wait_durable) as a future. Dropping it takes nothing from others that wait.
    ///
    /// It waits for reservations in the buffers concerned, too: one that the task holds itself keeps it pending for
    /// ever.
    ///
    /// A waker is called by a thread of the ring, which holds nothing then: it may use the ring, and drop it. If it
    /// panics, the panic goes to the panic hook and to `tracing`, and to no other task or thread. While it blocks,
    /// other tasks of the ring are not woken.
    ///
    /// # Errors
    ///
    /// Those of [`wait_durable`](Self::wait_durable).
    pub fn wait_durable_async(&self, address: u64) -> DurableFuture<'_> {
        DurableFuture { core: &self.core, address, waiting: None, ticket: None }
    }
}

/// Made by [`BufferRing::wait_durable_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct DurableFuture<'a> {
    core: &'a Arc<Core>,
    address: u64,
    /// Since the first poll, so that what goes out meanwhile is durable.
    waiting: Option<WaiterCount<'a>>,
    ticket: Option<Ticket>,
}

impl Future for DurableFuture<'_> {
    type Output = Result<(), RingError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (core, address) = (this.core, this.address);
        if let Err(forked) = core.check_process() {
            return Poll::Ready(Err(forked));
        }
        // The waker may be another one each time.
        this.forget(false);
        if !core.writeback.exists() {
            return Poll::Ready(Err(RingError::NoDevice));
        }
        // In this order: what was durable at the end was durable.
        let closed = core.writeback.is_closed();
        if let Some(outcome) = core.durable_outcome(address).or(closed.then_some(Err(RingError::Closed))) {
            return Poll::Ready(outcome);
        }
        if let Err(error) = core.check_appended(address) {
            return Poll::Ready(Err(error));
        }
        // Foreign code, which may panic: before anything is begun.
        let waker = context.waker().clone();
        this.waiting.get_or_insert_with(|| core.waiting.groups().arrive(!core.is_sealed(address)));
        match core.await_commit(address, waker) {
            Ok(ticket) => {
                this.ticket = Some(ticket);
                Poll::Pending
            }
            // Without a thread it cannot be had without waiting.
            Err(error) => {
                warn_of_blocking(error);
                Poll::Ready(core.wait_durable(address, None))
            }
        }
    }
}

impl DurableFuture<'_> {
    fn forget(&mut self, abandoned: bool) {
        if let Some(ticket) = self.ticket.take()
            && !self.core.is_inherited()
        {
            self.core.waiting.helpers().forget_commit(ticket, abandoned);
        }
    }
}

impl Drop for DurableFuture<'_> {
    fn drop(&mut self) {
        self.forget(true);
    }
}

/// Made by [`BufferRing::append_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct AppendFuture<'a> {
    room: RoomFuture<'a>,
    payload: &'a [u8],
}

impl Future for AppendFuture<'_> {
    type Output = Result<Extent, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (core, payload) = (self.room.core, self.payload);
        let fill = |grant| core.fill(grant, payload.len(), |target| target.copy_from_slice(payload));
        self.room.poll(context).map(|grant| grant.map(fill))
    }
}

/// Made by [`BufferRing::reserve_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct ReserveFuture<'a> {
    room: RoomFuture<'a>,
}

impl<'a> Future for ReserveFuture<'a> {
    type Output = Result<Reservation<'a>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let core = self.room.core;
        self.room.poll(context).map(|grant| grant.map(|grant| Reservation::new(core, grant)))
    }
}

/// Seizes bytes when there is room.
#[derive(Debug)]
struct RoomFuture<'a> {
    core: &'a Arc<Core>,
    len: usize,
    /// Its number among those that wait for room.
    place: Option<u64>,
}

impl<'a> RoomFuture<'a> {
    fn new(core: &'a Arc<Core>, len: usize) -> Self {
        Self { core, len, place: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Grant<'a>, AppendError>> {
        self.forget();
        let core = self.core;
        let seen = core.staging.current();
        match core.seize(self.len, Patience::Never) {
            Err(AppendError::RingFull) if !core.staging.next_is_deferred(seen) => {}
            outcome => return Poll::Ready(outcome),
        }
        // Foreign code, which may panic: before anything is begun.
        let waker = context.waker().clone();
        match core.await_room(seen, waker) {
            Ok(place) => {
                self.place = Some(place);
                Poll::Pending
            }
            // Without a thread it cannot be had without waiting.
            Err(error) => {
                warn_of_blocking(error);
                Poll::Ready(core.seize(self.len, Patience::ForRoom))
            }
        }
    }

    fn forget(&mut self) {
        if let Some(place) = self.place.take()
            && !self.core.is_inherited()
        {
            self.core.waiting.helpers().forget_room(place);
        }
    }
}

impl Drop for RoomFuture<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

fn warn_of_blocking(error: io::Error) {
    event!(WARN, %error, "cannot start a thread for futures: they block");
}

impl Core {
    /// Has a thread bring it about that `address` is durable, and `waker` woken then. The error says why there is no
    /// thread.
    pub(crate) fn await_commit(&self, address: u64, waker: Waker) -> io::Result<Ticket> {
        let helpers = self.waiting.helpers();
        let (ticket, interrupted) = helpers.add_task(address, waker);
        self.start_committer(interrupted).map(|()| ticket).inspect_err(|_| helpers.forget_commit(ticket, false))
    }

    /// Has `waker` woken when another buffer than `seen` is current. The error says why there is no thread to do it.
    pub(crate) fn await_room(&self, seen: BufferId, waker: Waker) -> io::Result<u64> {
        let helpers = self.waiting.helpers();
        let place = helpers.add_room_task(seen, waker);
        let started = self.start(&helpers.room, "ring-room", Self::await_room_for_futures);
        started.map(|()| place).inspect_err(|_| helpers.forget_room(place))
    }

    /// All that the thread does that waits for room.
    fn await_room_for_futures(&self) {
        run_again_after_panic(|| self.await_room_until_the_end(), || self.waiting.helpers().wake_room());
    }

    fn await_room_until_the_end(&self) {
        let helpers = self.waiting.helpers();
        while let Some(seen) = helpers.next_room() {
            let news = || {
                self.staging.current() != seen
                    || self.has_ended()
                    || self.staging.is_exhausted()
                    || self.staging.next_is_deferred(seen)
                    || helpers.is_ending()
            };
            {
                // It may be at the device when there is room.
                let _wanted = self.waiting.changes().ask_for_room();
                // Without a deadline the wait ends only with news.
                let _ = self.wait_until(None, || news().then_some(()));
            }
            helpers.wake_room();
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::pin::pin;
    use core::time::Duration;
    use std::sync::mpsc;
    use std::task::Wake;

    use ring_io::QuikIO;

    use super::*;
    use crate::options::BufferRingOptions;
    use crate::staging::layout::Layout;
    use ring_testing::events;

    struct Notify(mpsc::Sender<()>);

    impl Wake for Notify {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    /// A core that no thread can have a share of, as if the ring were going.
    #[test]
    fn a_future_for_which_no_thread_can_be_started_blocks_and_says_so() {
        let (io, _device) = QuikIO::in_memory();
        let arena = Arc::new(ring_alloc::Arena::new(2, 4096).expect("a valid arena"));
        let queue = crate::writeback::device::attach(&Arc::new(io), &arena).expect("the only queue");
        let policy = crate::commit::groups::CommitPolicy::default();
        let core = Arc::new(Core::new(&arena, Layout::plain(&arena), true, true, policy, 0, Some(queue)));
        let told = events::during(|| {
            let end = core.append(b"record", Patience::Never).expect("there is room").end();
            let mut durable = pin!(DurableFuture { core: &core, address: end, waiting: None, ticket: None });
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Ok(())));
            assert_eq!(core.writeback.durable(), 4096);
        });
        events::assert_one(&told, "WARN  cannot start a thread for futures: they block", &["error=the ring has gone"]);
    }

    /// The tail can be too high for a moment: then a thread waits for an address that no thread has appended. It has to
    /// look again.
    #[test]
    fn a_wait_for_too_much_is_woken_and_takes_nothing_from_the_others() {
        let options = BufferRingOptions {
            capacity: 2,
            buffer_size: 4096,
            io_instance: Some(Arc::new(QuikIO::in_memory().0)),
            ..Default::default()
        };
        let ring = BufferRing::with_options(options);
        let extent = ring.append(&[1; 512]).expect("there is room");
        let channel = || {
            let (sender, woken) = mpsc::channel();
            (Waker::from(Arc::new(Notify(sender))), move || {
                woken.recv_timeout(Duration::from_secs(60)).expect("it is woken");
            })
        };
        // Not by a future, which would find out at once.
        let (deceived, deceived_is_woken) = channel();
        assert!(ring.core.await_commit(1 << 40, deceived).is_ok());
        let (waker, is_woken) = channel();
        let mut durable = pin!(ring.wait_durable_async(extent.end()));
        while durable.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            is_woken();
        }
        assert!(ring.durable_watermark() >= extent.end());
        deceived_is_woken();
    }
}
