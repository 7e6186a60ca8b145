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
    /// Seizes `len` bytes of the current buffer if there is room. Nothing here goes out of line, so that it all stays in registers.
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
        if len > self.buffer_size {
            return Err(AppendError::TooLarge { len, max: self.buffer_size });
        }
        Ok(())
    }
}
