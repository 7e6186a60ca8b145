//! A range of the log to encode into in place.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::extent::{Extent, Placement};
use crate::ring::core::Core;
use crate::staging::slot::Grant;

/// Bytes of the log that are this value's alone, zeroed at first. Dereferences to them.
///
/// [`commit`](Self::commit) makes them part of the log. Dropped without it, also by a panic, the reservation is
/// *aborted*: the range stays in the log, filled with zeros, and nothing hangs. Leaked or held for long, it holds its
/// whole buffer back: the watermarks stop before it, and the ring fills up behind it.
/// [`RingStats::oldest_reservation`](crate::RingStats::oldest_reservation) shows them.
///
/// ```
/// # use buffer_ring::{BufferRing, BufferRingOptions};
/// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
/// let mut record = ring.reserve(12)?;
/// record[..4].copy_from_slice(&8_u32.to_le_bytes());
/// record[4..].copy_from_slice(b"encoded!");
/// let extent = record.commit();
/// assert_eq!((extent.start(), extent.len()), (0, 12));
/// # Ok::<(), buffer_ring::AppendError>(())
/// ```
#[must_use = "a reservation that is dropped is aborted"]
pub struct Reservation<'a> {
    core: &'a Core,
    /// Taken when it ends.
    grant: Option<Grant<'a>>,
}

impl<'a> Reservation<'a> {
    pub(crate) fn new(core: &'a Core, grant: Grant<'a>) -> Self {
        let mut reservation = Self::unzeroed(core, grant);
        reservation.fill(0);
        reservation
    }

    /// With the bytes of an earlier generation, which must not come into the log: each has to be overwritten.
    #[inline]
    pub(crate) fn unzeroed(core: &'a Core, grant: Grant<'a>) -> Self {
        Self { core, grant: Some(grant) }
    }

    /// Where the bytes lie in the log.
    #[must_use]
    #[inline]
    pub fn extent(&self) -> Extent {
        self.grant().extent()
    }

    /// The same, with where its batch begins.
    #[must_use]
    #[inline]
    pub fn placement(&self) -> Placement {
        self.grant().placement()
    }

    /// Makes the bytes part of the log as they are now.
    #[inline(always)]
    pub fn commit(mut self) -> Extent {
        let extent = self.extent();
        if let Some(grant) = self.grant.take() {
            self.core.release(grant);
            self.core.counters.appended(extent.len());
        }
        extent
    }

    #[inline]
    fn grant(&self) -> &Grant<'a> {
        self.grant.as_ref().expect("taken only when the reservation ends")
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.grant().bytes()
    }
}

impl DerefMut for Reservation<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.grant.as_mut().expect("taken only when the reservation ends").bytes_mut()
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(mut grant) = self.grant.take() {
            grant.bytes_mut().fill(0);
            self.core.release(grant);
            self.core.counters.aborted();
        }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(&self.extent()).finish()
    }
}
