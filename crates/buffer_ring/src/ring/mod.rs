//! The ring, as its users meet it.

pub(crate) mod append;
mod background;
mod close;
pub(crate) mod commit;
pub(crate) mod core;
pub(crate) mod drive;
pub(crate) mod flush;
#[cfg(any(feature = "async", test))]
pub(crate) mod futures;
pub(crate) mod handle;
#[cfg(any(loom, shuttle))]
mod on_model;
pub(crate) mod read;
mod rotate;
pub(crate) mod stats;
mod sync;
pub(crate) mod watch;

use ::core::fmt;
use ::core::mem;
use ::core::time::Duration;
use std::io::IoSlice;
use std::sync::{Arc, Weak};

use ring_io::fork::{self, Adopted};

use crate::builder::BufferRingBuilder;
use crate::error::{AppendError, OptionsError, ReadError, RingError, RotateError};
use crate::extent::{Extent, Placement};
use crate::options::BufferRingOptions;
use crate::reservation::Reservation;
use crate::ring::append::{Patience, gather, total_len};
use crate::ring::core::Core;
use crate::ring::drive::deadline;
use crate::ring::handle::{BufferHandle, FlushTicket};
use crate::ring::read::Peek;
use crate::ring::stats::RingStats;
use crate::ring::watch::DurableWatch;
use crate::sync::Ordering;

/// A latch-free ring of buffers between many appending threads and one file.
///
/// All methods take `&self`: share the ring by reference or in an [`Arc`]. What an append does, and when its bytes are
/// durable, is described in the [crate documentation](crate); what to do before a log goes on after a crash, in
/// [`reopening`](crate::reopening).
///
/// Dropping the ring flushes what it can, without a sync, and waits for all I/O in flight; [`close`](Self::close) does
/// the same with a sync, and says how it went.
///
/// # Fork and daemons
///
/// A ring belongs to the process that made it. In a child of `fork(2)` every call that appends, waits, reads or writes
/// answers an error `Forked`, at once, and dropping the ring, or what belongs to it, does nothing. The parent's ring
/// goes on as if there were no child, and keeps the file's lock.
///
/// - **A daemon** forks first, then opens the file. What a ring holds in memory does not go along: it is the parent's
///   to write.
/// - **A child** may open other files, and make rings of its own on them; also on the same file, once the parent's ring
///   has gone.
/// - **Spawning a command** costs nothing for the ring's memory: a child gets none of it, but finds zeros there. So
///   does a [`Reservation`] that was held across the fork; ending it does nothing. (Kernels before 4.14 copy the
///   memory.)
/// - A child keeps what it inherited, memory and descriptors, until it calls `exec` or ends. Until then, if the parent
///   dies, the file stays locked; a ring that is dropped or closed unlocks it.
/// - After a bare `clone(2)`, without the C library's `fork`, [`append`](Self::append) goes on in the child until a
///   buffer is full, in memory that is never written; all that waits for durability answers `Forked`.
pub struct BufferRing {
    pub(crate) core: Arc<Core>,
    /// Has a forked child know what it has.
    _adopted: Adopted,
}

impl BufferRing {
    pub(crate) fn new(core: Core) -> Self {
        let core = core.into_shared();
        let heir: Weak<Core> = Arc::downgrade(&core);
        Self { core, _adopted: fork::adopt(heir) }
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
    /// [`QuikIO`](crate::QuikIO) said); that content is synced first, so that the durable watermark, which begins
    /// there, says the truth. After a crash there may be more in the file than was acknowledged: first do what
    /// [`reopening`](crate::reopening) says.
    ///
    /// # Errors
    ///
    /// [`OptionsError`]: sizes out of range, no memory, a file that cannot hold a log, a `QuikIO` that already serves a
    /// ring.
    pub fn try_with_options(options: BufferRingOptions) -> Result<Self, OptionsError> {
        Self::builder(options).build()
    }

    /// For a ring with more than the five options.
    pub fn builder(options: BufferRingOptions) -> BufferRingBuilder {
        BufferRingBuilder::new(options)
    }

    /// Copies `payload` into the log. Waits while the ring is full.
    ///
    /// A later system call of the thread may return `EINTR` without a signal, when a buffer that the append has flushed
    /// is written: see [`kernel_submits`](ring_io::QuikIOBuilder::kernel_submits).
    ///
    /// The bytes are staged when it returns, not durable: see [`wait_durable`](Self::wait_durable) and
    /// [`append_durable`](Self::append_durable).
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended then. Without `auto_flush` it does not wait for a flush that no thread has
    /// asked for: that is [`AppendError::RingFull`].
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.append(payload, Patience::ForRoom)
    }

    /// Copies `payload` into the log without ever waiting.
    ///
    /// # Errors
    ///
    /// [`AppendError::RingFull`] if no buffer is free at this moment, and the others of [`append`](Self::append).
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.append(payload, Patience::Never)
    }

    /// Copies `payload` into the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`AppendError::TimedOut`], and the others of [`append`](Self::append). Without `auto_flush` it does wait for
    /// other threads to ask for the flush.
    pub fn append_timeout(&self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        self.core.append(payload, Patience::Until(deadline(timeout)))
    }

    /// Copies several parts into the log as one contiguous extent. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), for the parts together.
    pub fn append_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        self.core.append_with(total_len(parts), Patience::ForRoom, |target| gather(parts, target))
    }

    /// Copies `payload` into the log, and returns when it is on stable storage: [`append`](Self::append) and
    /// [`wait_durable`](Self::wait_durable) in one.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), and [`AppendError::NoDevice`]. [`AppendError::Poisoned`] may also mean that
    /// the bytes were staged, and not made durable.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.append_durable(payload, None)
    }

    /// Copies several parts into the log as one contiguous extent, and returns when it is on stable storage.
    ///
    /// # Errors
    ///
    /// Those of [`append_durable`](Self::append_durable), for the parts together.
    pub fn append_durable_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        self.core.append_durable_with(total_len(parts), None, |target| gather(parts, target))
    }

    /// Like [`append_durable`](Self::append_durable), but not longer than `timeout` for room and durability together.
    ///
    /// # Errors
    ///
    /// [`AppendError::TimedOut`] if there was no room in time, and nothing was appended; [`AppendError::NotDurableYet`]
    /// with the extent if the bytes are appended, and were not durable in time; the others of
    /// [`append_durable`](Self::append_durable).
    pub fn append_durable_timeout(&self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        // A time so long that it cannot be expressed is a long one.
        let deadline = deadline(timeout).or_else(|| deadline(Duration::from_secs(1 << 32)));
        self.core.append_durable(payload, deadline)
    }

    /// Has `fill` encode a record of `len` bytes in place, at the extent that it is given. Waits while the ring is
    /// full.
    ///
    /// The bytes are zeros at first. If `fill` panics the range stays in the log as zeros, the ring goes on, and the
    /// panic goes to the caller. Until `fill` returns, it holds the buffer back like a [`Reservation`]: it must not
    /// wait for the ring.
    ///
    /// ```
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() };
    /// # let ring = BufferRing::with_options(options);
    /// // A record that carries its own address.
    /// let extent = ring.append_with(14, |placement, bytes| {
    ///     bytes[..8].copy_from_slice(&placement.start().to_le_bytes());
    ///     bytes[8..].copy_from_slice(b"record");
    /// })?;
    /// # assert_eq!(extent.len(), 14);
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append); `fill` was not called then.
    pub fn append_with(&self, len: usize, fill: impl FnOnce(Placement, &mut [u8])) -> Result<Extent, AppendError> {
        self.append_filled(len, |placement, bytes| {
            bytes.fill(0);
            fill(placement, bytes);
        })
    }

    /// Like [`append_with`](Self::append_with), but the bytes are not zeroed first, which a short record would feel:
    /// `fill` has to write each of them. Those that it leaves as they are hold what was appended there before.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append); `fill` was not called then.
    #[inline]
    pub fn append_filled(&self, len: usize, fill: impl FnOnce(Placement, &mut [u8])) -> Result<Extent, AppendError> {
        self.core.append_placed(len, fill)
    }

    /// Reserves `len` zeroed bytes of the log, to encode into in place. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, Patience::ForRoom)
    }

    /// Reserves `len` zeroed bytes of the log without ever waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_append`](Self::try_append).
    pub fn try_reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, Patience::Never)
    }

    /// Reserves `len` zeroed bytes of the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`append_timeout`](Self::append_timeout).
    pub fn reserve_timeout(&self, len: usize, timeout: Duration) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, Patience::Until(deadline(timeout)))
    }

    /// Makes the log go on in the next segment: the current batch, or the next one that is sealed, is the last of its
    /// segment. Appends go on meanwhile. `false` if the current batch has no bytes yet: then it ends the segment when
    /// it has.
    ///
    /// Without [segments](ring_io::QuikIOOptions::segments) it only has the current buffer written.
    pub fn roll(&self) -> bool {
        self.core.staging.layout().request_roll();
        self.core.seal_and_flush(self.core.staging.current())
    }

    /// The buffer that appends go to now. Looking changes nothing; the answer may be out of date at once, and stays
    /// bound to this generation of the buffer.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() };
    /// # let ring = BufferRing::with_options(options);
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
        // ordering: acquire half of R1, or more; what a load cannot have is refused.
        assert!(!matches!(ordering, Ordering::Release | Ordering::AcqRel), "there is no {ordering:?} load");
        BufferHandle::new(Arc::clone(&self.core), self.core.staging.current_with(ordering))
    }

    /// Sees to it that this generation of the buffer is written: seals it if it is still open, and has it written when
    /// the last writer has left. Does not wait; the ticket can.
    ///
    /// An empty buffer, and one that has been written, need nothing: a flush through a stale handle never touches a
    /// later generation.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() };
    /// # let ring = BufferRing::with_options(options);
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
        assert!(buffer.is_of(&self.core), "the buffer belongs to another ring");
        let id = buffer.id();
        // A forked child's ticket answers so.
        let has_bytes = self.core.is_inherited() || self.core.seal_and_flush(id);
        FlushTicket::new(Arc::clone(&self.core), has_bytes.then_some(id))
    }

    /// Makes the next buffer of the ring current, and seals the present one if it is still open. An open buffer without
    /// bytes stays current: it is as good as the next.
    ///
    /// Only a ring without `auto_rotate` needs it.
    ///
    /// # Errors
    ///
    /// [`RotateError::RingFull`] if the next buffer is not free; nothing was sealed, unless a write to the buffer
    /// raced. [`RotateError::AddressesExhausted`] if the log has come to its last address, [`RotateError::Poisoned`]
    /// after a failure, and [`RotateError::Closed`] after [`close`](Self::close), or beside it.
    pub fn rotate(&self) -> Result<(), RotateError> {
        self.core.rotate()
    }

    /// Makes everything that was appended before the call durable, and gives the durable watermark.
    ///
    /// Waits for reservations that are held in the buffers concerned.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::NoDevice`]; [`RingError::Closed`].
    pub fn sync(&self) -> Result<u64, RingError> {
        self.core.sync(None)
    }

    /// Like [`sync`](Self::sync), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn sync_timeout(&self, timeout: Duration) -> Result<u64, RingError> {
        self.core.sync(deadline(timeout))
    }

    /// Returns when the durable watermark has reached `address`, usually an [`Extent::end`]. Flushes and syncs what
    /// that needs, so that it does not depend on another thread's flush.
    ///
    /// Waits for reservations that are held in the buffers concerned, the caller's own included.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::NotAppended`] if the address is beyond the tail;
    /// [`RingError::NoDevice`]; [`RingError::Closed`] if the ring was closed, and the watermark never got there.
    pub fn wait_durable(&self, address: u64) -> Result<(), RingError> {
        self.core.wait_durable(address, None)
    }

    /// Like [`wait_durable`](Self::wait_durable), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn wait_durable_timeout(&self, address: u64, timeout: Duration) -> Result<(), RingError> {
        self.core.wait_durable(address, deadline(timeout))
    }

    /// Every byte of the log below this address is on stable storage. Only grows, and never past a hole.
    #[must_use]
    pub fn durable_watermark(&self) -> u64 {
        self.core.writeback.durable()
    }

    /// For following the durable watermark from elsewhere: it may outlive the ring.
    #[must_use]
    pub fn durable_watch(&self) -> DurableWatch {
        DurableWatch::new(&self.core)
    }

    /// Every byte of the log below this address has been written to the device, which may not have synced it. Only
    /// grows.
    #[must_use]
    pub fn written_watermark(&self) -> u64 {
        self.core.poll();
        self.core.writeback.written()
    }

    /// The address that the next append will get, if no other thread comes first, and it fits the buffer.
    ///
    /// It never decreases, and [`wait_durable`](Self::wait_durable) never refuses it. Bytes below may still be in the
    /// hands of the threads that reserved them.
    ///
    /// ```
    /// # use buffer_ring::{BufferRing, BufferRingOptions, QuikIO};
    /// # let io_instance = Some(QuikIO::in_memory().0.into());
    /// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, io_instance, ..Default::default() };
    /// # let ring = BufferRing::with_options(options);
    /// let extent = ring.append(b"record")?;
    /// let tail = ring.tail();
    /// assert!(tail >= extent.end());
    /// ring.wait_durable(tail).expect("the device works");
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.core.tail()
    }

    /// Fills the first `extent.len()` bytes of `target` with the bytes of the log there, and gives their number.
    ///
    /// They come from memory while their buffer is still there, else from the file; the answer is the same. After a
    /// failure of the device, whatever is in memory can still be read. Addresses below the tail that were never written
    /// read as zeros at all times: the padding between buffers, aborted reservations, the rest of a writer's lease, and
    /// the gap between the end of the file's earlier content and the start of the log.
    ///
    /// While other threads are appending to the same buffer, it may have to be sealed and waited for; so a thread must
    /// not hold a [`Reservation`] near an extent that it reads.
    ///
    /// # Errors
    ///
    /// A [`ReadError`], which says what of the extent cannot be had and why: its variants are documented there.
    pub fn read(&self, extent: Extent, target: &mut [u8]) -> Result<usize, ReadError> {
        self.core.read(extent, target)
    }

    /// Adds to `bytes`, which holds the first bytes of the payload of the batch that begins at `base`, all that was
    /// appended to it since, if the batch is in memory. For following a log without waiting, and without a buffer being
    /// sealed or a file read for it: also bytes that are not durable are seen.
    ///
    /// It looks at a moment in which no thread is writing to the buffer, and takes back the leases of idle
    /// [`Writer`](crate::Writer)s for it; where appends are so dense that there is none, the bytes are seen when the
    /// buffer is full. Only for a ring with [frames](crate::Framing); without them no batch is known to have ended. To
    /// be called again after the ring was closed, or has failed: what is in memory stays there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Forked`].
    pub fn peek(&self, base: u64, bytes: &mut Vec<u8>) -> Result<Peek, ReadError> {
        self.core.peek(base, bytes)
    }

    /// The error that poisoned the ring, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<RingError> {
        self.core.poisoned()
    }

    /// What the ring has done so far. A sum of counters that move on while they are read.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.core.stats()
    }

    /// Ends the log: makes everything durable, waits for all I/O, lets the file go, and gives the durable watermark, at
    /// which the log ends.
    ///
    /// An append that runs at the same time, through any reference to the ring or any writer, is either part of the log
    /// that is durable when this returns, or answers [`AppendError::Closed`]; and so does every append and reservation
    /// that comes later. Then [`sync`](Self::sync), [`rotate`](Self::rotate), [`read`](Self::read) and what waits for
    /// an address that was never durable answer `Closed` as well, and [`wait_durable`](Self::wait_durable) for one that
    /// was is still right. The file is cut at the end of the log, and unlocked. Closing again, or in several threads at
    /// once, gives the same answer. Without a device the answer is where the log began.
    ///
    /// Waits for reservations that are held: for some seconds, since one of them may have been leaked, or be the
    /// caller's own. Then it gives up, and may be called again.
    ///
    /// # Errors
    ///
    /// - The [`RingError`] that poisoned the ring. Then the file stays as it is, and locked, until the ring is dropped,
    ///   and whatever is in memory can still be read.
    /// - [`RingError::ReservationLeaked`] if a reservation is held; all below its buffer is durable. Its own buffer is
    ///   written when the reservation ends, and is durable when this is called again.
    ///
    /// In each case all I/O that was in flight has ended, and appends are refused from now on.
    pub fn close(&self) -> Result<u64, RingError> {
        self.core.check_process()?;
        self.core.close(None)
    }

    /// Like [`close`](Self::close), but not longer than `timeout` for reservations and for the device to make all
    /// durable.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`] if it is the device that takes longer. Closing goes on when this is called again,
    /// or `close` is, and when the ring is dropped.
    pub fn close_timeout(&self, timeout: Duration) -> Result<u64, RingError> {
        self.core.check_process()?;
        self.core.close(deadline(timeout))
    }
}

impl fmt::Debug for BufferRing {
    /// Without a lock: in a forked child another thread may have had it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferRing")
            .field("capacity", &self.core.staging.slots().len())
            .field("buffer_size", &self.core.staging.layout().buffer_size())
            .field("written", &self.core.writeback.written())
            .field("durable", &self.core.writeback.durable())
            .finish_non_exhaustive()
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.core.is_inherited() {
            // Never dropped, as it is where the C library's `fork` made the child.
            return mem::forget(Arc::clone(&self.core));
        }
        self.core.end_helpers();
        self.core.flush_everything();
        // Without a deadline the wait ends only when it is done.
        let _ = self.core.drain(None);
        // What a leaked reservation held back is lost; no thread may wait for it.
        self.core.writeback.detach_device();
        self.core.writeback.close();
        self.core.wake_all();
    }
}
