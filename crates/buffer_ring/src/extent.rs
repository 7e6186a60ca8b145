//! Where bytes lie in the log.

use core::fmt;
use core::ops::{Deref, Range};

use ring_alloc::BLOCK;

/// The address at which a log ends: 1 EiB less a block, beyond what any file system holds. Each buffer takes at least a
/// block, so that there are less than 2^48 of them, as many as a [`BufferId`](crate::staging::rotation::BufferId) can
/// count.
pub(crate) const ADDRESS_LIMIT: u64 = (1 << 60) - BLOCK as u64;

/// A range of bytes in the file, known as soon as it is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    start: u64,
    len: usize,
}

impl Extent {
    /// The extent of `len` bytes from the absolute file address `start`: one that was stored, and comes back.
    ///
    /// # Panics
    ///
    /// If the end is beyond `u64::MAX`.
    #[must_use]
    #[inline]
    pub const fn new(start: u64, len: usize) -> Self {
        assert!(start.checked_add(len as u64).is_some(), "the extent ends beyond the address space");
        Self { start, len }
    }

    /// One that is known to end within the address space, because it is a part of one, or lies in a buffer of the ring.
    #[inline]
    pub(crate) const fn within(start: u64, len: usize) -> Self {
        debug_assert!(start.checked_add(len as u64).is_some());
        Self { start, len }
    }

    /// File address of the first byte.
    #[must_use]
    #[inline]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes. No append gives such an extent.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// File address behind the last byte. Once the durable watermark has reached it, the bytes are on stable storage.
    #[must_use]
    #[inline]
    pub const fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// The addresses as a range.
    #[must_use]
    #[inline]
    pub const fn range(&self) -> Range<u64> {
        self.start..self.end()
    }
}

/// Where a record lies, for the code that encodes it in place. Dereferences to its [`Extent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub(crate) extent: Extent,
    pub(crate) batch_base: u64,
}

impl Placement {
    /// File address of the first byte of the batch that the record is flushed with, a multiple of 4096.
    #[must_use]
    #[inline]
    pub const fn batch_base(&self) -> u64 {
        self.batch_base
    }
}

impl Deref for Placement {
    type Target = Extent;

    #[inline]
    fn deref(&self) -> &Extent {
        &self.extent
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extent({}..{})", self.start, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_knows_both_ends_and_prints_them() {
        let extent = Extent::new(4096, 10);
        assert_eq!((extent.start(), extent.len(), extent.end()), (4096, 10, 4106));
        assert_eq!((extent.range(), extent.is_empty()), (4096..4106, false));
        assert_eq!(format!("{extent:?}"), "Extent(4096..4106)");
        assert!(Extent::new(u64::MAX, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "the extent ends beyond the address space")]
    fn an_extent_beyond_the_address_space_is_refused() {
        let _ = Extent::new(u64::MAX, 1);
    }
}
