//! Readers of a buffer's memory, against the buffer's next generation.
//!
//! A reader goes through the latch, and while it is inside, the slot cannot be opened again. The opener closes the
//! latch for the moment in which the slot changes from one generation to the next. Neither waits: a reader that finds
//! the latch closed knows that the old generation has been written, and reads the file; an opener that finds readers
//! leaves the rotation to the last of them.

use crate::sync::AtomicU32;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

const CLOSED: u32 = 1 << 31;

/// A count of readers, or closed.
#[derive(Debug)]
pub(crate) struct ReaderLatch(AtomicU32);

impl ReaderLatch {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Lets a reader in; `false` if the latch is closed.
    #[must_use]
    pub(crate) fn try_acquire(&self) -> bool {
        // ordering: acquire half of R6.
        self.0.fetch_update(Acquire, Relaxed, |readers| (readers != CLOSED).then_some(readers + 1)).is_ok()
    }

    /// Lets a reader out; `true` if it was the last one, which then sees to a rotation that may have waited for it.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // ordering: release half of R5.
        self.0.fetch_sub(1, Release) == 1
    }

    /// Whether there is no reader, and the latch is open. May be out of date.
    pub(crate) fn is_free(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Closes the latch; `false` if there are readers.
    #[must_use]
    pub(crate) fn try_close(&self) -> bool {
        // ordering: acquire half of R5.
        self.0.compare_exchange(0, CLOSED, Acquire, Relaxed).is_ok()
    }

    /// Opens the latch. Only for the one that closed it.
    pub(crate) fn reopen(&self) {
        // ordering: release half of R6.
        self.0.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_and_the_opener_exclude_each_other() {
        let latch = ReaderLatch::new();
        assert!(latch.try_acquire() && latch.try_acquire());
        assert!(!latch.try_close() && !latch.is_free());
        assert!(!latch.release() && latch.release());
        assert!(latch.is_free() && latch.try_close());
        assert!(!latch.try_acquire() && !latch.is_free());
        latch.reopen();
        assert!(latch.try_acquire());
    }
}
