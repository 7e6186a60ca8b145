//! One buffer's memory, located, and the place where raw pointers become slices. Only a writer's lease, in
//! `buffer_ring`, makes some of a range that it was granted here.

use core::ops::Range;
use core::slice;
use std::sync::Arc;

use crate::{Arena, Frozen};

/// The memory of one buffer of an arena, or a [part](Self::part) of it. It keeps the arena alive. Many values may stand
/// for the same memory: which thread may touch which bytes is for their users to decide.
///
/// It keeps the buffer's address, so that a hot path need not compute it from the arena each time.
#[derive(Clone, Debug)]
pub struct Region {
    start: *mut u8,
    len: usize,
    index: usize,
    arena: Arc<Arena>,
}

// SAFETY: the mapping that `start` points into can be used from every thread; a caller of the `unsafe` methods promises
// that others do nothing with those bytes that would be a race.
unsafe impl Send for Region {}

// SAFETY: as above; the value itself never changes.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(arena: &Arc<Arena>, index: usize) -> Self {
        Self { start: arena.address(index), len: arena.buffer_size(), index, arena: Arc::clone(arena) }
    }

    /// Returns the index of the buffer in its arena.
    #[must_use]
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the size of the region in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no buffer is empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes `range` as a region of their own, in which they count from 0.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// let buffer = Arc::new(ring_alloc::Arena::new(1, 4096)?).region(0);
    /// let part = buffer.part(72..4000);
    /// assert_eq!((part.len(), part.whole().len()), (3928, 4096));
    /// # Ok::<(), ring_alloc::ArenaError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `range` is not inside the region.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let (start, len) = self.locate(range);
        Self { start, len, index: self.index, arena: Arc::clone(&self.arena) }
    }

    /// Returns the whole buffer that the region is a part of.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self::new(&self.arena, self.index)
    }

    /// Returns the arena that the buffer lies in.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The bytes `range` of the region, to read.
    ///
    /// # Safety
    ///
    /// - *Unwritten*: while the slice lives, these bytes of the buffer stay unwritten.
    ///
    /// # Panics
    ///
    /// If `range` is not inside the region.
    #[must_use]
    #[inline]
    pub unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        let (start, len) = self.locate(range);
        // SAFETY:
        // - in bounds of one mapping, initialised: `locate` checked the range, and the kernel zero-fills the mapping;
        // - alive: `self`, borrowed for the returned lifetime, keeps the arena, which owns the mapping;
        // - not written meanwhile: *unwritten*, promised by the caller.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// The bytes `range` of the region, to write.
    ///
    /// # Safety
    ///
    /// - *Exclusive*: while the slice lives, it alone reads and writes these bytes of the buffer.
    ///
    /// # Panics
    ///
    /// If `range` is not inside the region.
    #[must_use]
    #[allow(
        clippy::mut_from_ref,
        reason = "disjoint ranges go to different threads; *exclusive* is the caller's promise"
    )]
    #[inline]
    pub unsafe fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        let (start, len) = self.locate(range);
        // SAFETY:
        // - in bounds of one mapping, initialised: `locate` checked the range, and the kernel zero-fills the mapping;
        // - alive: `self`, borrowed for the returned lifetime, keeps the arena, which owns the mapping;
        // - not aliased: *exclusive*, promised by the caller.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// Returns the first `len` bytes of the buffer as a value that can be lent to the kernel.
    ///
    /// # Safety
    ///
    /// - *Quiet*: from now until the answer is dropped, those bytes stay unwritten.
    ///
    /// # Panics
    ///
    /// If the region is shorter than `len`, or does not begin where its buffer does.
    #[must_use]
    pub unsafe fn freeze(self, len: usize) -> Frozen {
        assert!(self.start == self.arena.address(self.index), "a part of a buffer is not aligned");
        Frozen::shared(self, len)
    }

    /// Where `range` lies in memory; the one bounds check of the crate.
    #[inline]
    fn locate(&self, range: Range<usize>) -> (*mut u8, usize) {
        if range.start > range.end || range.end > self.len {
            self.outside(range);
        }
        (self.start.wrapping_add(range.start), range.end - range.start)
    }

    /// Out of line, and by value: what a message borrows would have to lie in memory also where nothing is wrong.
    #[cold]
    fn outside(&self, range: Range<usize>) -> ! {
        panic!("bytes {range:?} of a buffer of {}", self.len)
    }
}
