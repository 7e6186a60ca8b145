//! The ring, as its users meet it.

use core::time::Duration;
use std::io::IoSlice;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::append::{Patience, gather, total_len};
use crate::shared::Shared;
use crate::sync::Ordering;
use crate::{
    AppendError, BufferHandle, BufferRingBuilder, BufferRingOptions, DurableWatch, Extent, FlushTicket, OptionsError,
    ReadError, Reservation, RingError, RingStats, RotateError,
};

/// A latch-free ring of buffers between many appending threads and one file.
///
/// All methods but [`close`](Self::close) take `&self`: share the ring by reference or in an [`Arc`](std::sync::Arc). What an
/// append does, and when its bytes are durable, is told in the [crate documentation](crate).
///
/// Dropping the ring flushes what it can, without a sync, and waits for all I/O in flight; [`close`](Self::close) does the same
/// with a sync, and tells how it went.
#[derive(Debug)]
pub struct BufferRing {
    pub(crate) shared: Arc<Shared>,
}

impl BufferRing {
    pub(crate) fn new(mut shared: Shared) -> Self {
        let shared = Arc::new_cyclic(|this| {
            shared.this = Weak::clone(this);
            shared
        });
        Self { shared }
    }

    /// A ring with these parts.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is wrong, where [`try_with_options`](Self::try_with_options) gives an error.
    #[must_use]
    pub fn with_options(options: BufferRingOptions) -> Self {
        match Self::try_with_options(options) {
            Ok(ring) => ring,
            Err(error) => panic!("invalid options for a buffer ring: {error}"),
        }
    }

    /// A ring with these parts.
    ///
    /// On a file with content the log begins behind it, at the next multiple of 4096 (or where the builder of the
    /// [`QuikIO`](crate::QuikIO) said); that content is synced first, so that the durable watermark, which begins there, tells
    /// the truth.
    ///
    /// # Errors
    ///
    /// [`OptionsError`]: sizes out of range, no memory, a file that cannot hold a log, a `QuikIO` that already serves a ring.
    pub fn try_with_options(options: BufferRingOptions) -> Result<Self, OptionsError> {
        Self::builder(options).build()
    }

    /// For a ring with more than the five options.
    pub fn builder(options: BufferRingOptions) -> BufferRingBuilder {
        BufferRingBuilder::new(options)
    }

    /// Copies `payload` into the log. Waits while the ring is full.
    ///
    /// The bytes are staged when it returns, not durable: see [`wait_durable`](Self::wait_durable) and
    /// [`append_durable`](Self::append_durable).
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended then. Without `auto_flush` it does not wait for a flush that nobody has asked for:
    /// that is [`AppendError::RingFull`].
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.shared.append(payload, Patience::ForRoom)
    }

    /// Copies `payload` into the log without ever waiting.
    ///
    /// # Errors
    ///
    /// [`AppendError::RingFull`] if no buffer is free at this moment, and the others of [`append`](Self::append).
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.shared.append(payload, Patience::Never)
    }

    /// Copies `payload` into the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`AppendError::TimedOut`], and the others of [`append`](Self::append). Without `auto_flush` it does wait for other threads to
    /// ask for the flush.
    pub fn append_timeout(&self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        self.shared.append(payload, Patience::Until(deadline(timeout)))
    }

    /// Copies several parts into the log as one contiguous extent. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), for the parts together.
    pub fn append_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        self.shared.append_with(total_len(parts), Patience::ForRoom, |target| gather(parts, target))
    }

    /// Copies `payload` into the log, and returns when it is on stable storage: [`append`](Self::append) and
    /// [`wait_durable`](Self::wait_durable) in one.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append). [`AppendError::Poisoned`] may also mean that the bytes were staged, and not made durable.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.shared.append_durable(payload, None)
    }

    /// Like [`append_durable`](Self::append_durable), but not longer than `timeout` for room and durability together.
    ///
    /// # Errors
    ///
    /// [`AppendError::TimedOut`] if there was no room in time, and nothing was appended; [`AppendError::NotDurableYet`] with the extent if
    /// the bytes are appended, and were not durable in time; the others of [`append_durable`](Self::append_durable).
    pub fn append_durable_timeout(&self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        // A time so long that it cannot be told is a long one.
        let deadline = deadline(timeout).or_else(|| deadline(Duration::from_secs(1 << 32)));
        self.shared.append_durable(payload, deadline)
    }

    /// Reserves `len` zeroed bytes of the log, to encode into in place. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.shared.reserve(len, Patience::ForRoom)
    }

    /// Reserves `len` zeroed bytes of the log without ever waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_append`](Self::try_append).
    pub fn try_reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.shared.reserve(len, Patience::Never)
    }

    /// Reserves `len` zeroed bytes of the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`append_timeout`](Self::append_timeout).
    pub fn reserve_timeout(&self, len: usize, timeout: Duration) -> Result<Reservation<'_>, AppendError> {
        self.shared.reserve(len, Patience::Until(deadline(timeout)))
    }

    /// The buffer that appends go to now. Looking changes nothing; the answer may be out of date at once, and stays bound to this
    /// life of the buffer.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
    /// # ring.append(b"record")?;
    /// let current = ring.current_buffer(Ordering::Acquire);
    /// if current.is_sealed() { ring.flush(&current); }   // looking never changes anything
    /// ring.flush(&current);                              // seals it first when it is still open
    /// # assert!(current.is_sealed() && current.is_written());
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `ordering` is `Release` or `AcqRel`, which no load has.
    #[must_use]
    pub fn current_buffer(&self, ordering: Ordering) -> BufferHandle {
        assert!(!matches!(ordering, Ordering::Release | Ordering::AcqRel), "there is no {ordering:?} load");
        BufferHandle::new(Arc::clone(&self.shared), self.shared.rotation.current_with(ordering))
    }

    /// Sees to it that this life of the buffer is written: seals it if it is still open, and has it written when the last writer
    /// has left. Does not wait; the ticket can.
    ///
    /// An empty buffer, and one that has been written, need nothing: a flush through a stale handle never touches a later life.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
    /// # ring.append(b"record")?;
    /// # let my_buffer = ring.current_buffer(Ordering::Acquire);
    /// ring.flush(&my_buffer);
    /// # assert_eq!(ring.flush(&my_buffer).wait(), Ok(()));
    /// # assert_eq!(ring.stats().buffers_flushed, 1);
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the handle is of another ring.
    pub fn flush(&self, buffer: &BufferHandle) -> FlushTicket {
        assert!(buffer.is_of(&self.shared), "the buffer belongs to another ring");
        let life = buffer.life();
        let has_bytes = self.shared.seal_and_flush(life);
        FlushTicket::new(Arc::clone(&self.shared), has_bytes.then_some(life))
    }

    /// Makes the next buffer of the ring current, and seals the present one if it is still open. An open buffer without bytes stays
    /// current: it is as good as the next.
    ///
    /// Only a ring without `auto_rotate` has to be told.
    ///
    /// # Errors
    ///
    /// [`RotateError::RingFull`] if the next buffer is not free; nothing was sealed, unless a write to the buffer raced.
    /// [`RotateError::AddressesExhausted`] if the log has come to its last address, and [`RotateError::Poisoned`] after a failure.
    pub fn rotate(&self) -> Result<(), RotateError> {
        self.shared.rotate()
    }

    /// Makes everything that was appended before the call durable, and gives the durable watermark.
    ///
    /// Waits for reservations that are held in the buffers concerned.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring.
    pub fn sync(&self) -> Result<u64, RingError> {
        self.shared.sync(None)
    }

    /// Like [`sync`](Self::sync), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn sync_timeout(&self, timeout: Duration) -> Result<u64, RingError> {
        self.shared.sync(deadline(timeout))
    }

    /// Returns when the durable watermark has reached `address`, usually an [`Extent::end`]. Flushes and syncs what that needs, so
    /// that it does not depend on anybody else's flush.
    ///
    /// Waits for reservations that are held in the buffers concerned, the caller's own included.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::NotAppended`] if the address is beyond the tail.
    pub fn wait_durable(&self, address: u64) -> Result<(), RingError> {
        self.shared.wait_durable(address, None)
    }

    /// Like [`wait_durable`](Self::wait_durable), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn wait_durable_timeout(&self, address: u64, timeout: Duration) -> Result<(), RingError> {
        self.shared.wait_durable(address, deadline(timeout))
    }

    /// Every byte of the log below this address is on stable storage. Only grows, and never past a hole.
    #[must_use]
    pub fn durable_watermark(&self) -> u64 {
        self.shared.durability.durable()
    }

    /// For following the durable watermark from elsewhere: it may outlive the ring.
    #[must_use]
    pub fn durable_watch(&self) -> DurableWatch {
        DurableWatch::new(&self.shared)
    }

    /// Every byte of the log below this address has been written to the device, which may not have synced it. Only grows.
    #[must_use]
    pub fn written_watermark(&self) -> u64 {
        self.shared.poll();
        self.shared.durability.written()
    }

    /// The address that the next append will get, if no other thread comes first, and it fits the buffer.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.shared.tail()
    }

    /// Fills the first `extent.len()` bytes of `target` with the bytes of the log there, and gives their number.
    ///
    /// They come from memory while their buffer is still there, else from the file; the answer is the same. After a failure of the
    /// device, whatever is in memory can still be read. Addresses that nobody wrote, such as the padding between buffers, read as
    /// zeros.
    ///
    /// While other threads are appending to the same buffer, it may have to be sealed and waited for; so a thread must not hold a
    /// [`Reservation`] near an extent that it reads.
    ///
    /// # Errors
    ///
    /// A [`ReadError`], which says what of the extent cannot be had and why: its variants are documented there.
    pub fn read(&self, extent: Extent, target: &mut [u8]) -> Result<usize, ReadError> {
        self.shared.read(extent, target)
    }

    /// The error that poisoned the ring, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<RingError> {
        self.shared.poisoned()
    }

    /// What the ring has done so far. A sum of counters that move on while they are read.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.shared.stats()
    }

    /// Makes everything durable, waits for all I/O, and gives the durable watermark, at which the log ends.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::ReservationLeaked`] if a forgotten reservation holds the rest back.
    /// In each case all I/O in flight has ended.
    pub fn close(self) -> Result<u64, RingError> {
        // A helper may be inside a buffer, which is no leak.
        self.shared.pause_helpers();
        self.shared.flush_everything();
        if let Some(address) = self.shared.leaked() {
            self.shared.drain();
            self.shared.wait_durable(self.shared.durability.written(), None)?;
            return Err(RingError::ReservationLeaked(address));
        }
        let durable = self.shared.sync(None);
        self.shared.drain();
        durable
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        self.shared.end_helpers();
        self.shared.flush_everything();
        self.shared.drain();
        // What a leaked reservation held back is lost; nobody may wait for it.
        self.shared.device.close();
        self.shared.durability.close();
        self.shared.waiters.wake();
        self.shared.parking.wake_up_to(u64::MAX);
        self.shared.bells.ring();
    }
}

pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    // A time so long that it cannot be told is for ever.
    Instant::now().checked_add(timeout)
}
