//! The path of an append, and what it does when the buffer is full.

use std::io::IoSlice;
use std::time::Instant;

use ring_io::events::{self, Hold};
use ring_state::Released;

use crate::error::{AppendError, TimedOut};
use crate::extent::{Extent, Placement};
use crate::metrics::latency::Measure;
use crate::reservation::Reservation;
use crate::ring::core::Core;
use crate::staging::append::Missed;
use crate::staging::rotation::BufferId;
use crate::staging::slot::{Grant, PinGuard, Seized};
use crate::sync::spin_loop;

/// How often a thread looks whether another one is just about to open the next buffer. Checkers would explore little
/// but that.
const SPIN_LIMIT: usize = if cfg!(loom) {
    0
} else if cfg!(shuttle) {
    2
} else {
    64
};

/// How long a thread that finds the ring full will wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    Never,
    /// Until there is room, if any thread sees to that: not for a flush that no thread has asked for.
    ForRoom,
    /// Until there is room, whatever it takes, or this moment.
    Until(Option<Instant>),
}

/// Bytes of all parts together.
pub(crate) fn total_len(parts: &[IoSlice<'_>]) -> usize {
    parts.iter().fold(0, |len, part| len.saturating_add(part.len()))
}

/// Copies the parts one behind the other.
pub(crate) fn gather(parts: &[IoSlice<'_>], mut target: &mut [u8]) {
    for part in parts {
        let (head, rest) = target.split_at_mut(part.len());
        head.copy_from_slice(part);
        target = rest;
    }
}

impl Core {
    #[inline(always)]
    pub(crate) fn append(&self, payload: &[u8], patience: Patience) -> Result<Extent, AppendError> {
        self.append_with(payload.len(), patience, |target| target.copy_from_slice(payload))
    }

    /// Reserves, fills, leaves. `fill` must not panic: the range would be leaked.
    ///
    /// Inlined into the caller, so that the extent stays in registers: an answer of that size comes back through
    /// memory, and the thread that moves it on waits for the store buffer.
    #[inline(always)]
    pub(crate) fn append_with(
        &self,
        len: usize,
        patience: Patience,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Extent, AppendError> {
        match self.staging.try_seize(len) {
            Ok(grant) => Ok(self.fill(grant, len, fill)),
            Err(missed) => self.append_after(missed, len, patience, fill),
        }
    }

    #[cold]
    fn append_after(
        &self,
        missed: Missed<'_>,
        len: usize,
        patience: Patience,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Extent, AppendError> {
        // A subscriber that appends may fill the buffer that this thread is about to try.
        let _held = events::hold();
        let grant = self.seize_after(missed, len, patience)?;
        Ok(self.fill(grant, len, fill))
    }

    #[inline(always)]
    pub(crate) fn fill(&self, mut grant: Grant<'_>, len: usize, fill: impl FnOnce(&mut [u8])) -> Extent {
        let extent = grant.extent();
        fill(grant.bytes_mut());
        self.release(grant);
        self.counters.appended(len);
        extent
    }

    /// Like [`append_with`](Self::append_with), with where the bytes lie; and `fill` may panic.
    #[inline(always)]
    pub(crate) fn append_placed(
        &self,
        len: usize,
        fill: impl FnOnce(Placement, &mut [u8]),
    ) -> Result<Extent, AppendError> {
        // Dropped by a panic, it leaves zeros.
        let mut reservation = Reservation::unzeroed(self, self.seize(len, Patience::ForRoom)?);
        fill(reservation.placement(), &mut reservation);
        Ok(reservation.commit())
    }

    pub(crate) fn reserve(&self, len: usize, patience: Patience) -> Result<Reservation<'_>, AppendError> {
        Ok(Reservation::new(self, self.seize(len, patience)?))
    }

    /// Seizes `len` bytes of the current buffer, or of a later one if it is full.
    #[inline]
    pub(crate) fn seize(&self, len: usize, patience: Patience) -> Result<Grant<'_>, AppendError> {
        self.staging.try_seize(len).or_else(|missed| self.seize_after(missed, len, patience))
    }

    /// Goes on with what became of the first try, until `len` bytes are seized.
    #[cold]
    fn seize_after<'a>(&'a self, missed: Missed<'a>, len: usize, patience: Patience) -> Result<Grant<'a>, AppendError> {
        let Missed::Seized(mut seized, mut seen) = missed else { return Err(self.refusal(len)) };
        // A child that was not made by the C library's `fork` comes here first.
        self.check_process().map_err(|_| AppendError::Forked)?;
        // The events of the first buffer come at once. Those of others, which a subscriber has filled meanwhile, come
        // later: else that would go on without end, and at last this thread has a range.
        let mut kept = None;
        loop {
            let missed = match seized {
                Seized::Granted(grant) => {
                    // Granted in a generation that its opener has not published yet: the caller's next look has to find
                    // it.
                    if grant.slot().generation() != seen.generation() {
                        self.staging.publish(BufferId::new(grant.slot().generation(), seen.slot()));
                    }
                    kept.into_iter().for_each(Hold::keep);
                    return Ok(grant);
                }
                Seized::Sealed(pin) => self.after_seal(pin, patience, seen),
                Seized::Late(released) => self.after_late(released, patience, seen),
            };
            kept.get_or_insert_with(events::hold);
            // A ring that has ended looks like a full one to some.
            if self.has_ended() {
                return Err(self.end_error());
            }
            missed?;
            (seized, seen) = self.staging.seize(len);
        }
    }

    /// Why a payload of `len` bytes is not even tried.
    fn refusal(&self, len: usize) -> AppendError {
        self.staging.check_len(len).err().unwrap_or_else(|| self.end_error())
    }

    #[cold]
    fn after_seal(&self, pin: PinGuard<'_>, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        {
            let _held = events::hold();
            self.dispatch(self.finish_seal(pin));
        }
        // Even if the buffer has opened again in place: whether a full buffer is reported must not depend on the
        // device's speed.
        if !self.staging.auto_rotate() {
            return Err(AppendError::Sealed);
        }
        self.wait_for_room(patience, seen)
    }

    #[cold]
    fn after_late(&self, released: Released, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        self.flush_if_drained(self.staging.slot(seen), released);
        self.advance();
        self.wait_for_room(patience, seen)
    }

    /// Waits until the current generation is another than `seen`, as long as `patience` lasts.
    fn wait_for_room(&self, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        let rotated = || self.staging.current() != seen;
        // Another thread may be between sealing and opening.
        let mut tries = 0;
        while !rotated() && tries < SPIN_LIMIT && self.staging.has_room(self.staging.target()) {
            spin_loop();
            tries += 1;
        }
        if rotated() {
            return Ok(());
        }
        if self.staging.is_exhausted() {
            return Err(AppendError::AddressesExhausted);
        }
        if !self.staging.auto_rotate() {
            return Err(AppendError::Sealed);
        }
        // A write that has finished may be all that is missing.
        self.poll();
        if rotated() {
            return Ok(());
        }
        let deadline = match patience {
            Patience::Never => return Err(AppendError::RingFull),
            Patience::ForRoom => None,
            Patience::Until(deadline) => deadline,
        };
        let look = || {
            if rotated() {
                Some(Ok(()))
            } else if self.has_ended() {
                Some(Err(self.end_error()))
            } else if self.staging.is_exhausted() {
                Some(Err(AppendError::AddressesExhausted))
            } else if patience == Patience::ForRoom && self.staging.next_is_deferred(seen) {
                Some(Err(AppendError::RingFull))
            } else {
                None
            }
        };
        let _wanted = self.waiting.changes().ask_for_room();
        let start = Instant::now();
        let outcome = self.wait_patiently(deadline, look);
        self.counters.waited_for_room(start.elapsed());
        self.latency.time(Measure::Room, start.elapsed());
        match outcome {
            Ok(outcome) => outcome,
            Err(TimedOut) => Err(AppendError::TimedOut),
        }
    }
}
