//! The first try of an append: a range of the current buffer, with nothing but the buffer's word touched.

use crate::error::AppendError;
use crate::staging::Staging;
use crate::staging::rotation::BufferId;
use crate::staging::slot::{Grant, Seized};
use crate::sync::Ordering::Relaxed;

/// Why the first try gave no range.
#[derive(Debug)]
pub(crate) enum Missed<'a> {
    /// The payload cannot be appended, or nothing can.
    Refused,
    /// What became of it, and in which generation; it may even be a range, of a buffer that is not published yet.
    Seized(Seized<'a>, BufferId),
}

impl Staging {
    /// Seizes `len` bytes of the current buffer if there is room. Nothing here goes out of line, so that it all stays
    /// in registers.
    #[inline(always)]
    pub(crate) fn try_seize(&self, len: usize) -> Result<Grant<'_>, Missed<'_>> {
        // In one comparison: 0 - 1 is larger than any buffer, and a ring that is poisoned or closed takes nothing.
        if len.wrapping_sub(1) >= self.longest.load(Relaxed) {
            return Err(Missed::Refused);
        }
        let seen = self.current();
        match self.slot(seen).reserve(len as u32) {
            Seized::Granted(grant) if grant.slot().generation() == seen.generation() => Ok(grant),
            seized => Err(Missed::Seized(seized, seen)),
        }
    }

    /// Seizes `len` bytes of the buffer that is current now, whatever becomes of it.
    pub(crate) fn seize(&self, len: usize) -> (Seized<'_>, BufferId) {
        let seen = self.current();
        (self.slot(seen).reserve(len as u32), seen)
    }

    /// Whether there can be a payload of `len` bytes.
    #[inline]
    pub(crate) fn check_len(&self, len: usize) -> Result<(), AppendError> {
        if len == 0 {
            return Err(AppendError::Empty);
        }
        if len > self.capacity {
            return Err(AppendError::TooLarge { len, max: self.capacity });
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{Arena, BLOCK};

    use super::*;
    use crate::staging::layout::Layout;
    use crate::staging::rotation::{Rotated, Target};

    #[test]
    fn the_first_try_is_an_append_only_in_a_generation_that_is_published() {
        let arena = Arc::new(Arena::new(1, BLOCK).expect("a valid arena"));
        let staging = Staging::new(&arena, Layout::plain(&arena), true, true, 0);
        let first = BufferId::new(1, 0);
        assert_eq!(staging.advance(Target::Next), Rotated::Opened(first));
        let grant = staging.try_seize(8).expect("there is room");
        // It is over, and the next one begins in its place; but its opener is not there yet.
        let slot = staging.slot(first);
        let pin = slot.pin().expect("it is open");
        let _ = (pin.seal(), grant.release());
        slot.complete(slot.try_take_flush(pin.release()).expect("no thread is inside").freeze(0).expect("no framing"));
        assert!(slot.open(2, BLOCK as u64));
        let Err(Missed::Seized(Seized::Granted(grant), seen)) = staging.try_seize(8) else { panic!("not published") };
        assert_eq!((seen, grant.extent().start()), (first, BLOCK as u64));
        staging.publish(BufferId::new(2, 0));
        assert_eq!(staging.try_seize(8).expect("published").extent().start(), BLOCK as u64 + 8);
    }
}
