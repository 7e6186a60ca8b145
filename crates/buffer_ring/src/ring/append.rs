//! The path of an append, and what it does when the buffer is full.

use std::io::IoSlice;
use std::time::Instant;

use ring_io::events::{self, Hold};
use ring_state::Released;

use crate::error::TimedOut;
use crate::metrics::latency::Measure;
use crate::ring::core::Shared;
use crate::staging::rotation::{BufferId, Rotation, Target};
use crate::staging::slot::{Grant, PinGuard, Seized, Slot};
use crate::sync::Ordering::Relaxed;
use crate::sync::spin_loop;
use crate::{AppendError, Extent, Reservation};

/// How often a thread looks whether another one is just about to open the next buffer. Checkers would explore little but that.
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
    /// Until there is room, if anybody sees to that: not for a flush that nobody has asked for.
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

/// Why the first try gave no range.
#[derive(Debug)]
enum Missed<'a> {
    /// The payload cannot be appended, or nothing can.
    Refused,
    /// What became of it, and in which generation; it may even be a range, of a generation that is not published yet.
    Seized(Seized<'a>, BufferId),
}

impl Shared {
    #[inline(always)]
    pub(crate) fn append(&self, payload: &[u8], patience: Patience) -> Result<Extent, AppendError> {
        self.append_with(payload.len(), patience, |target| target.copy_from_slice(payload))
    }

    /// Reserves, fills, leaves. `fill` must not panic: the range would be leaked.
    ///
    /// Inlined into the caller, so that the extent stays in registers: an answer of that size comes back through memory, and whoever
    /// moves it on waits for the store buffer.
    #[inline(always)]
    pub(crate) fn append_with(
        &self,
        len: usize,
        patience: Patience,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Extent, AppendError> {
        match self.try_seize(len) {
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
    fn fill(&self, mut grant: Grant<'_>, len: usize, fill: impl FnOnce(&mut [u8])) -> Extent {
        let extent = grant.extent();
        fill(grant.bytes_mut());
        self.release(grant);
        self.counters.appended(len);
        extent
    }

    pub(crate) fn reserve(&self, len: usize, patience: Patience) -> Result<Reservation<'_>, AppendError> {
        Ok(Reservation::new(self, self.seize(len, patience)?))
    }

    /// Seizes `len` bytes of the current buffer, or of a later one if it is full.
    #[inline]
    pub(crate) fn seize(&self, len: usize, patience: Patience) -> Result<Grant<'_>, AppendError> {
        self.try_seize(len).or_else(|missed| self.seize_after(missed, len, patience))
    }

    /// Seizes `len` bytes of the current buffer if there is room. Nothing here goes out of line, so that it all stays in registers.
    #[inline(always)]
    fn try_seize(&self, len: usize) -> Result<Grant<'_>, Missed<'_>> {
        // In one comparison: 0 - 1 is larger than any buffer, and a ring that is poisoned or closed takes nothing.
        if len.wrapping_sub(1) >= self.longest.load(Relaxed) {
            return Err(Missed::Refused);
        }
        let seen = self.rotation.current();
        match self.slots[seen.slot()].reserve(len as u32) {
            Seized::Granted(grant) if grant.slot().generation() == seen.generation() => Ok(grant),
            seized => Err(Missed::Seized(seized, seen)),
        }
    }

    /// Goes on with what became of the first try, until `len` bytes are seized.
    #[cold]
    fn seize_after<'a>(&'a self, missed: Missed<'a>, len: usize, patience: Patience) -> Result<Grant<'a>, AppendError> {
        let Missed::Seized(mut seized, mut seen) = missed else { return Err(self.refusal(len)) };
        // A child that was not made by the C library's `fork` comes here first.
        self.check_process().map_err(|_| AppendError::Forked)?;
        // The events of the first buffer come at once. Those of others, which a subscriber has filled meanwhile, come later: else that
        // would go on without end, and at last this thread has a range.
        let mut kept = None;
        loop {
            let missed = match seized {
                Seized::Granted(grant) => {
                    // Granted in a generation that its opener has not published yet: the caller's next look has to find it.
                    if grant.slot().generation() != seen.generation() {
                        self.rotation.publish(BufferId::new(grant.slot().generation(), seen.slot()));
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
            seen = self.rotation.current();
            seized = self.slots[seen.slot()].reserve(len as u32);
        }
    }

    /// Why a payload of `len` bytes is not even tried.
    fn refusal(&self, len: usize) -> AppendError {
        self.check_len(len).err().unwrap_or_else(|| self.end_error())
    }

    /// Whether there can be a payload of `len` bytes.
    #[inline]
    pub(crate) fn check_len(&self, len: usize) -> Result<(), AppendError> {
        if len == 0 {
            return Err(AppendError::Empty);
        }
        if len > self.buffer_size {
            return Err(AppendError::TooLarge { len, max: self.buffer_size });
        }
        Ok(())
    }

    /// Ends a granted range.
    #[inline]
    pub(crate) fn release(&self, grant: Grant<'_>) {
        let slot = grant.slot();
        self.flush_if_drained(slot, grant.release());
    }

    /// Does what a thread owes after it has left `slot`.
    #[inline]
    pub(crate) fn flush_if_drained(&self, slot: &Slot, released: Released) {
        if released != Released::Pending {
            self.flush_drained(slot, released);
        }
    }

    #[cold]
    fn flush_drained(&self, slot: &Slot, released: Released) {
        let _held = events::hold();
        if let Some(flush) = slot.try_take_flush(released) {
            self.dispatch(Some(flush));
        }
    }

    #[cold]
    fn after_seal(&self, pin: PinGuard<'_>, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        {
            let _held = events::hold();
            self.dispatch(self.finish_seal(pin));
        }
        // Even if the buffer has opened again in place: whether a full buffer is told must not depend on the device's speed.
        if !self.auto_rotate {
            return Err(AppendError::Sealed);
        }
        self.wait_for_room(patience, seen)
    }

    #[cold]
    fn after_late(&self, released: Released, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        self.flush_if_drained(&self.slots[seen.slot()], released);
        self.advance();
        self.wait_for_room(patience, seen)
    }

    /// Waits until the current generation is another than `seen`, as long as `patience` lasts.
    fn wait_for_room(&self, patience: Patience, seen: BufferId) -> Result<(), AppendError> {
        let rotated = || self.rotation.current() != seen;
        // Another thread may be between sealing and opening.
        let mut tries = 0;
        while !rotated() && tries < SPIN_LIMIT && self.rotation.has_room(&self.slots, self.target()) {
            spin_loop();
            tries += 1;
        }
        if rotated() {
            return Ok(());
        }
        if self.rotation.is_exhausted(&self.slots) {
            return Err(AppendError::AddressesExhausted);
        }
        if !self.auto_rotate {
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
            } else if self.rotation.is_exhausted(&self.slots) {
                Some(Err(AppendError::AddressesExhausted))
            } else if patience == Patience::ForRoom && self.next_is_deferred(seen) {
                Some(Err(AppendError::RingFull))
            } else {
                None
            }
        };
        let _wanted = self.changes.ask_for_room();
        let start = Instant::now();
        let outcome = self.wait_patiently(deadline, look);
        self.counters.waited_for_room(start.elapsed());
        self.latency.time(Measure::Room, start.elapsed());
        match outcome {
            Ok(outcome) => outcome,
            Err(TimedOut) => Err(AppendError::TimedOut),
        }
    }

    /// Without `auto_flush`: whether the slot after `seen` waits for a flush that nobody has asked for.
    pub(crate) fn next_is_deferred(&self, seen: BufferId) -> bool {
        let next = &self.slots[Rotation::target(seen, &self.slots, Target::Next)];
        !self.auto_flush && next.deferred.is_deferred(next.generation())
    }
}
