//! A writer: one thread's way to append without an instruction on memory that others write.
//!
//! A plain append seizes its range by an addition to the buffer's word, and under contention that instruction, not the
//! copy, is the price of a small record. A writer seizes a larger range through the same word, its *lease*, and places
//! its own records inside. To the buffer a lease is a writer like others. So that a flush does not have to wait for a
//! writer that went idle, the thread that needs the buffer takes back what the writers have not filled: see
//! [`lease`](crate::staging::lease). Where records go that do not fit, and how large a lease is, see [`lease_sizer`].

mod lease_sizer;
mod owned;

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::time::Duration;
use std::io::IoSlice;

use ring_io::events;

use crate::error::AppendError;
use crate::extent::{Extent, Placement};
use crate::reservation::Reservation;
use crate::ring::BufferRing;
use crate::ring::append::{Patience, gather, total_len};
use crate::ring::core::Core;
use crate::ring::drive::deadline;
use crate::staging::lease::Lease;
use crate::staging::lease_registry::Place;
use crate::sync::fence::Barrier;

use lease_sizer::LeaseSizer;
pub use owned::OwnedWriter;

/// One thread's own way into a ring: small appends at the speed of memory.
///
/// It keeps the promises of the ring's own appends: the address is known at once, extents do not overlap, and those of
/// one writer ascend. It mixes freely with them, and with other writers.
///
/// After some appends in a row the writer takes a *lease*, 256 bytes to 64 KiB of the current buffer and at most a
/// quarter of what that has left, and the appends that follow only copy into it. What a lease has left when it ends
/// stays in the log as zeros. It ends when the next record does not fit, when the writer is dropped, and when a thread
/// needs the buffer: it is full, or is flushed, synced or read. So an idle writer holds up no thread. A writer whose
/// records are waited for one by one takes no leases.
///
/// A writer may be sent to another thread, but not used by two. It costs a ring 128 bytes, which the next writer gets
/// when it is dropped. One that is leaked (by `mem::forget`) costs them for good; its lease is taken back like an idle
/// one's.
///
/// ```
/// # use buffer_ring::{BufferRing, BufferRingOptions};
/// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 65536, ..Default::default() });
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| {
///             let mut writer = ring.writer();
///             for record in 0..1000_u32 {
///                 writer.append(&record.to_le_bytes()).expect("the ring takes it");
///             }
///         });
///     }
/// });
/// assert_eq!(ring.stats().records_appended, 4000);
/// ```
pub struct Writer<'a> {
    ring: &'a BufferRing,
    lease: Lease<'a>,
    place: Place<'a>,
    sizer: LeaseSizer,
    /// Not `Sync`: whatever the writer does, one thread does it.
    alone: PhantomData<Cell<()>>,
}

impl BufferRing {
    /// A new writer of this ring.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        let registry = &self.core.staging.leases();
        let place = if self.core.is_inherited() { registry.apart() } else { registry.enroll() };
        let lease = Lease::new(place.cell(), Barrier::probe());
        Writer { ring: self, lease, place, sizer: LeaseSizer::new(), alone: PhantomData }
    }
}

impl<'a> Writer<'a> {
    /// Copies `payload` into the log. Waits while the ring is full.
    ///
    /// The bytes are staged when it returns, not durable: see [`append_durable`](Self::append_durable) and
    /// [`BufferRing::wait_durable`].
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append`]; nothing was appended then.
    #[inline]
    pub fn append(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.append_bytes(payload, Patience::ForRoom)
    }

    /// Copies `payload` into the log without ever waiting.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::try_append`].
    #[inline]
    pub fn try_append(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.append_bytes(payload, Patience::Never)
    }

    /// Copies `payload` into the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append_timeout`].
    pub fn append_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        self.append_bytes(payload, Patience::Until(deadline(timeout)))
    }

    /// Copies several parts into the log as one contiguous extent. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), for the parts together.
    pub fn append_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        self.append_bytes_with(total_len(parts), Patience::ForRoom, move |target| gather(parts, target))
    }

    /// Copies `payload` into the log, and returns when it is on stable storage, with all that was appended before.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append_durable`].
    pub fn append_durable(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.append_durable_bytes(payload.len(), move |target| target.copy_from_slice(payload))
    }

    /// Copies several parts into the log as one contiguous extent, and returns when it is on stable storage, with all
    /// that was appended before.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append_durable`], for the parts together.
    pub fn append_durable_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        self.append_durable_bytes(total_len(parts), move |target| gather(parts, target))
    }

    fn append_durable_bytes(&mut self, len: usize, fill: impl FnMut(&mut [u8]) + Copy) -> Result<Extent, AppendError> {
        self.core().check_device()?;
        self.sizer.record_wait();
        // Where there is no lease, the ring's own way is shorter.
        if self.lease.room() < len as u64 {
            self.core().staging.check_len(len)?;
            self.end_lease(Why::NoRoom);
            return self.core().append_durable_with(len, None, fill);
        }
        let extent = self.append_bytes_with(len, Patience::ForRoom, fill)?;
        // The wait would take it back.
        self.end_lease(Why::NotNeeded);
        let outcome = self.core().wait_durable(extent.end(), None);
        outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
    }

    /// Has `fill` encode a record of `len` bytes in place, at the extent that it is given: within the lease, where
    /// there is one. Waits while the ring is full.
    ///
    /// The bytes are zeros at first. If `fill` panics the range stays in the log as zeros, the writer and the ring go
    /// on, and the panic goes to the caller. Until `fill` returns, it holds the buffer back like a [`Reservation`]: it
    /// must not wait for the ring.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append_with`]; `fill` was not called then.
    pub fn append_with(&mut self, len: usize, fill: impl FnOnce(Placement, &mut [u8])) -> Result<Extent, AppendError> {
        let mut fill = Some(|placement, bytes: &mut [u8]| {
            bytes.fill(0);
            fill(placement, bytes);
        });
        match self.encode(len, |placement, bytes| fill.take().expect("called once")(placement, bytes)) {
            Some(extent) => Ok(extent),
            None => self.encode_otherwise(len, &mut |placement, bytes| {
                fill.take().expect("called once")(placement, bytes);
            }),
        }
    }

    /// Like [`append_with`](Self::append_with), but the bytes are not zeroed first: `fill` has to write each of them.
    /// Those that it leaves as they are hold what was appended there before. A copy of it is called, once.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::append_with`]; `fill` was not called then.
    #[inline(always)]
    pub fn append_filled(
        &mut self,
        len: usize,
        fill: impl FnOnce(Placement, &mut [u8]) + Copy,
    ) -> Result<Extent, AppendError> {
        match self.encode(len, fill) {
            Some(extent) => Ok(extent),
            None => self.encode_otherwise(len, &mut |placement, bytes| fill(placement, bytes)),
        }
    }

    /// Into a new lease, or without one. `fill` is called once.
    #[cold]
    #[inline(never)]
    fn encode_otherwise(
        &mut self,
        len: usize,
        fill: &mut dyn FnMut(Placement, &mut [u8]),
    ) -> Result<Extent, AppendError> {
        self.core().staging.check_len(len)?;
        self.end_lease(Why::NoRoom);
        while let Some(size) = self.sizer.lease(len, self.core().staging.room()) {
            let lasts = self.begin_lease(size, Patience::ForRoom)?;
            let encoded = self.encode(len, &mut *fill);
            if !lasts || encoded.is_none() {
                self.end_lease(Why::NoRoom);
            }
            if let Some(extent) = encoded {
                return Ok(extent);
            }
        }
        let extent = self.core().append_placed(len, fill)?;
        self.sizer.record_append();
        Ok(extent)
    }

    /// Has `fill` encode a record in the lease. `None` if there is no room, or it has been taken back: then it has to
    /// be ended.
    #[inline(always)]
    fn encode(&mut self, len: usize, fill: impl FnOnce(Placement, &mut [u8])) -> Option<Extent> {
        let placement = self.lease.next(len);
        // If `fill` panics, what is left of the lease becomes zeros.
        let guard = EndsLease(self);
        let written = guard.0.lease.write(len, |bytes| fill(placement, bytes));
        mem::forget(guard);
        let written = written?;
        if written.revoked {
            self.end_lease(Why::NoRoom);
        }
        Some(written.extent)
    }

    /// Reserves `len` zeroed bytes of the log, to encode into in place. Waits while the ring is full.
    ///
    /// The writer goes on when the reservation has ended. It is one of the ring's: the writer's lease ends.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::reserve`].
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::ForRoom)
    }

    /// Reserves `len` zeroed bytes of the log without ever waiting.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::try_reserve`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::Never)
    }

    /// Reserves `len` zeroed bytes of the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::reserve_timeout`].
    pub fn reserve_timeout(&mut self, len: usize, timeout: Duration) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::Until(deadline(timeout)))
    }

    fn reserve_with(&mut self, len: usize, patience: Patience) -> Result<Reservation<'_>, AppendError> {
        self.core().staging.check_len(len)?;
        self.end_lease(Why::NotNeeded);
        self.ring.core.reserve(len, patience)
    }

    fn core(&self) -> &'a Core {
        &self.ring.core
    }

    #[inline(always)]
    fn append_bytes(&mut self, payload: &[u8], patience: Patience) -> Result<Extent, AppendError> {
        self.append_bytes_with(payload.len(), patience, move |target| target.copy_from_slice(payload))
    }

    /// Into the lease, if it fits and no thread has taken it back: a few stores to the writer's own cell, and no shared
    /// memory. A copy of `fill` is used for that, so that what it has captured need not be in memory.
    #[inline(always)]
    fn append_bytes_with(
        &mut self,
        len: usize,
        patience: Patience,
        mut fill: impl FnMut(&mut [u8]) + Copy,
    ) -> Result<Extent, AppendError> {
        match self.lease.write(len, fill) {
            Some(written) if !written.revoked => Ok(written.extent),
            Some(written) => {
                self.end_lease(Why::NoRoom);
                Ok(written.extent)
            }
            None => self.append_otherwise(len, patience, &mut fill),
        }
    }

    /// Into a new lease, or without one.
    #[cold]
    #[inline(never)]
    fn append_otherwise(
        &mut self,
        len: usize,
        patience: Patience,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Extent, AppendError> {
        self.core().staging.check_len(len)?;
        self.core().check_process().map_err(|_| AppendError::Forked)?;
        // As with the ring's own appends.
        let _held = events::hold();
        self.end_lease(Why::NoRoom);
        while let Some(size) = self.sizer.lease(len, self.core().staging.room()) {
            let lasts = self.begin_lease(size, patience)?;
            let written = self.lease.write(len, &mut *fill);
            if !lasts || written.as_ref().is_none_or(|written| written.revoked) {
                self.end_lease(Why::NoRoom);
            }
            if let Some(written) = written {
                return Ok(written.extent);
            }
            // A thread took it back at once.
        }
        let extent = self.core().append_with(len, patience, fill)?;
        self.sizer.record_append();
        Ok(extent)
    }

    /// Takes a lease. `false` if the buffer is needed already, and no other thread may end it.
    fn begin_lease(&mut self, size: usize, patience: Patience) -> Result<bool, AppendError> {
        let grant = self.core().seize(size, patience)?;
        let slot = grant.slot();
        self.lease.begin(grant);
        self.place.announce(slot);
        Ok(!slot.snapshot().is_sealed() && !self.core().is_failing())
    }

    /// Ends the lease, if there is one.
    fn end_lease(&mut self, why: Why) {
        let Some(end) = self.lease.end() else { return };
        if self.core().is_inherited() {
            return;
        }
        if why == Why::NotNeeded || end.was_revoked {
            self.sizer.record_revoked(end.len as usize, end.unused as usize);
        } else {
            self.sizer.record_filled(end.len as usize);
        }
        if let Some(rest) = end.rest {
            self.core().return_lease(rest);
        }
    }
}

/// Ends the lease if a record is not finished: what it has left, this record's part included, becomes zeros.
struct EndsLease<'w, 'a>(&'w mut Writer<'a>);

impl Drop for EndsLease<'_, '_> {
    fn drop(&mut self) {
        self.0.end_lease(Why::NoRoom);
        self.0.core().counters.aborted();
    }
}

/// Why a writer ends its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The next record goes elsewhere, because it does not fit or because the lease was taken back.
    NoRoom,
    NotNeeded,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.end_lease(Why::NotNeeded);
        self.place.leave();
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("leased", &self.lease.room()).finish_non_exhaustive()
    }
}
