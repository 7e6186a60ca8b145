//! Rotation on request, for rings without `auto_rotate`.

use crate::error::{AppendError, RotateError};
use crate::ring::core::Core;
use crate::staging::rotation::Target;
use crate::sync::Backoff;

impl Core {
    /// Why there is no next buffer, now that the ring takes no more bytes.
    #[cold]
    fn rotate_error(&self) -> RotateError {
        match self.end_error() {
            AppendError::Poisoned(error) => RotateError::Poisoned(error),
            _ => RotateError::Closed,
        }
    }

    /// Without `auto_rotate`: makes the next buffer current, if it is free.
    pub(crate) fn rotate(&self) -> Result<(), RotateError> {
        if self.is_inherited() {
            return Err(RotateError::Forked);
        }
        if self.has_ended() {
            return Err(self.rotate_error());
        }
        let seen = self.staging.current();
        let slot = self.staging.slot(seen);
        let word = slot.snapshot();
        if !word.is_sealed() && word.offset() == 0 {
            return Ok(());
        }
        if !self.staging.has_room(Target::Next) {
            self.poll();
        }
        if self.staging.current() == seen && !self.staging.has_room(Target::Next) {
            return Err(RotateError::RingFull);
        }
        self.seal(seen);
        let mut backoff = Backoff::new();
        while !self.advance_to(Target::Next) && self.staging.current() == seen {
            if self.staging.is_exhausted() {
                return Err(RotateError::AddressesExhausted);
            }
            if !self.staging.has_room(Target::Next) {
                // While this thread had the token, the buffer may have become free to open in place.
                self.advance();
                return if self.staging.current() == seen { Err(RotateError::RingFull) } else { Ok(()) };
            }
            if self.has_ended() {
                // Closing keeps the token for good.
                return Err(self.rotate_error());
            }
            // Another thread has sealed, and is about to hand over; or it has the token for a moment.
            backoff.pause();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{Arena, BLOCK};

    use super::*;
    use crate::commit::groups::CommitPolicy;
    use crate::extent::ADDRESS_LIMIT;
    use crate::ring::append::Patience;
    use crate::staging::layout::Layout;

    #[test]
    fn an_append_beyond_the_last_address_is_refused() {
        let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
        let core = Core::new(
            &arena,
            Layout::plain(&arena),
            true,
            true,
            CommitPolicy::default(),
            ADDRESS_LIMIT - 2 * BLOCK as u64,
            None,
        );
        let append = |len| core.append(&vec![1; len], Patience::ForRoom);
        let extents = [append(BLOCK), append(8)].map(|extent| extent.expect("two blocks are left"));
        assert_eq!(extents.map(|extent| ADDRESS_LIMIT - extent.start()), [2 * BLOCK as u64, BLOCK as u64]);
        assert_eq!(append(BLOCK), Err(AppendError::AddressesExhausted));
        assert_eq!(append(8), Err(AppendError::AddressesExhausted));
        assert_eq!(core.tail(), ADDRESS_LIMIT);
    }
}
