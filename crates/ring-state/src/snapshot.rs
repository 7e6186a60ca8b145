//! One value of the word, its readers, and the decisions that follow from it. Nothing here is atomic.

use core::fmt;

use crate::layout::{
    CROWD, CROWDED, FLUSHING, OFFSET_MASK, OFFSET_SHIFT, SEALED, WRITER, WRITERS_MASK, WRITERS_SHIFT, bytes,
};

/// The word as it was at one moment. It may be out of date when you look at it, but it is consistent in itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot(pub(crate) usize);

impl Snapshot {
    /// Bytes handed out. Beyond the capacity, or larger than what was granted, while additions wait to be undone.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> u32 {
        (self.0 >> OFFSET_SHIFT) as u32
    }

    /// Threads inside: writers, and threads with a pin.
    #[must_use]
    #[inline]
    pub const fn writers(self) -> u32 {
        ((self.0 & WRITERS_MASK) >> WRITERS_SHIFT) as u32
    }

    /// Whether no reservation succeeds any more in this generation. Once true it stays so until the buffer is reopened.
    #[must_use]
    #[inline]
    pub const fn is_sealed(self) -> bool {
        self.0 & SEALED != 0
    }

    /// Whether the flush has been taken and not completed.
    #[must_use]
    #[inline]
    pub const fn is_flushing(self) -> bool {
        self.0 & FLUSHING != 0
    }

    /// Whether the word is exactly "sealed, and all else zero": the only one that can be reopened.
    #[must_use]
    #[inline]
    pub const fn is_vacant(self) -> bool {
        self.0 == SEALED
    }

    /// This word as a proof that the flush can be taken: sealed, no writer inside, some bytes, no flush under way.
    #[must_use]
    #[inline]
    pub const fn drained(self) -> Option<Drained> {
        if self.is_sealed() && self.writers() == 0 && self.offset() > 0 && !self.is_flushing() {
            Some(Drained(self))
        } else {
            None
        }
    }

    /// What an addition of `len` bytes means when `self` is the word that it was added to.
    #[inline]
    pub(crate) const fn classify(self, len: u32, capacity: u32) -> Fit {
        if self.is_sealed() || self.offset() > capacity {
            Fit::Late
        } else if self.offset() as u64 + len as u64 <= capacity as u64 {
            // In 64 bits the sum cannot wrap.
            Fit::Granted
        } else {
            Fit::Overflow
        }
    }

    /// The same before anything was added, with the one more reason to be full: too many writers inside.
    #[inline]
    pub(crate) const fn would_fit(self, len: u32, capacity: u32) -> Fit {
        match self.classify(len, capacity) {
            Fit::Granted if self.writers() >= CROWDED => Fit::Overflow,
            fit => fit,
        }
    }

    /// Whether [`would_fit`](Self::would_fit) says granted, found by looking at the word as a whole, which is what an
    /// append can afford. `len` is at most `capacity`.
    #[inline]
    pub(crate) const fn has_room(self, len: u32, capacity: u32) -> bool {
        // The offset is on top: this is the largest word whose offset is not beyond that.
        let last = bytes(capacity - len) | !OFFSET_MASK;
        self.0 <= last && self.0 & (SEALED | CROWD) == 0
    }

    /// Whether a thread may enter: this generation has not ended, and its bytes are not with the device.
    #[inline]
    pub(crate) const fn admits(self) -> bool {
        let ended = self.is_sealed() && self.offset() == 0;
        !ended && !self.is_flushing()
    }

    /// The word with one more pin.
    #[inline]
    pub(crate) const fn pinned(self) -> Self {
        Self(self.0 + WRITER)
    }

    /// The word with `len` more bytes handed out, to one more writer.
    #[inline]
    pub(crate) const fn granted(self, len: u32) -> Self {
        Self(self.0 + WRITER + bytes(len))
    }

    /// The word sealed.
    #[inline]
    pub(crate) const fn sealed(self) -> Self {
        Self(self.0 | SEALED)
    }

    /// The word with the flush taken.
    #[inline]
    pub(crate) const fn flushing(self) -> Self {
        Self(self.0 | FLUSHING)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("offset", &self.offset())
            .field("writers", &self.writers())
            .field("flushing", &self.is_flushing())
            .field("sealed", &self.is_sealed())
            .finish()
    }
}

/// What an addition means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits: the bytes from the old offset on are the caller's.
    Granted,
    /// It is the one that does not fit: the caller seals.
    Overflow,
    /// The buffer is sealed, or another reservation has overflowed.
    Late,
}

/// A word that was seen sealed, with no writer inside, with bytes and without a flush under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained(pub(crate) Snapshot);

impl Drained {
    /// Bytes in the buffer: all granted ranges together, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a drained buffer has at least one byte")]
    #[inline]
    pub const fn len(self) -> u32 {
        self.0.offset()
    }
}
