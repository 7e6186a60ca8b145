//! One mapping, its equal parts, and the place where raw pointers become slices. Only a session's lease, in `buffer_ring`, makes some of a range that it was granted here.

use core::ops::Range;
use core::slice;
use std::io;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

use crate::buffer::Frozen;
use crate::{Buffer, is_aligned};

/// Bytes of a huge page, to which a large arena is aligned.
const HUGE_PAGE: usize = 2 << 20;

/// One anonymous mapping cut into `count` equal, 4096-aligned buffers. Fresh memory is zero.
#[derive(Debug)]
pub struct Arena {
    map: MmapRaw,
    /// Where buffer 0 begins in `map`: the mapping has slack so that this can be aligned to a huge page.
    start: usize,
    buffer_size: usize,
    count: usize,
    huge_pages: HugePages,
}

/// Whether the kernel was asked to back an arena with huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// The arena is 2 MiB-aligned and advised; whether a page is huge in the end is the kernel's choice.
    Advised,
    /// The arena is smaller than one huge page.
    TooSmall,
    /// The kernel refused the advice, with this errno; the arena lies on ordinary pages.
    Refused(i32),
}

/// Why there is no arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The count of buffers is 0.
    #[error("an arena needs at least one buffer")]
    NoBuffers,
    /// The size of a buffer is 0 or not a multiple of [`BLOCK`](crate::BLOCK).
    #[error("buffer size {0} is not a positive multiple of 4096")]
    BufferSize(usize),
    /// The arena as a whole would be larger than the address space.
    #[error("{count} buffers of {buffer_size} bytes are more than the address space holds")]
    TooLarge {
        /// Buffers asked for.
        count: usize,
        /// Bytes of each.
        buffer_size: usize,
    },
    /// The kernel would not map that many bytes.
    #[error("cannot map {bytes} bytes of memory (errno {errno})")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What `mmap` answered.
        errno: i32,
    },
}

impl Arena {
    /// An arena of `count` zeroed buffers of `buffer_size` bytes each.
    ///
    /// # Errors
    ///
    /// [`ArenaError`], if `count` is 0, `buffer_size` is not a positive multiple of 4096, or the memory cannot be mapped.
    pub fn new(count: usize, buffer_size: usize) -> Result<Self, ArenaError> {
        if count == 0 {
            return Err(ArenaError::NoBuffers);
        }
        if buffer_size == 0 || !is_aligned(buffer_size as u64) {
            return Err(ArenaError::BufferSize(buffer_size));
        }
        let too_large = ArenaError::TooLarge { count, buffer_size };
        let len =
            count.checked_mul(buffer_size).filter(|&len| len <= isize::MAX as usize - HUGE_PAGE).ok_or(too_large)?;
        let (map, start, huge_pages) = if len < HUGE_PAGE {
            (map(len)?, 0, HugePages::TooSmall)
        } else {
            let map = map(len + HUGE_PAGE)?;
            let start = map.as_ptr().align_offset(HUGE_PAGE);
            let huge_pages = match map.advise_range(Advice::HugePage, start, len) {
                Ok(()) => HugePages::Advised,
                Err(error) => HugePages::Refused(errno(&error)),
            };
            (map, start, huge_pages)
        };
        Ok(Self { map: MmapRaw::from(map), start, buffer_size, count, huge_pages })
    }

    /// The buffers as owned values, in order; each keeps the arena alive.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Buffer> {
        let arena = Arc::new(self);
        // The arena came by value, so that nobody else can have a slice of it, and each index goes out once.
        (0..arena.count).map(|index| Buffer::sole_owner(Arc::clone(&arena), index)).collect()
    }

    /// Buffers in the arena.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// Whether the kernel was asked for huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> HugePages {
        self.huge_pages
    }

    /// The address of buffer `index`, a multiple of 4096, for registering it with the kernel.
    ///
    /// # Panics
    ///
    /// If there is no such buffer.
    #[must_use]
    #[inline]
    pub fn address(&self, index: usize) -> *mut u8 {
        if index >= self.count {
            self.missing(index);
        }
        self.map.as_mut_ptr().wrapping_add(self.start + index * self.buffer_size)
    }

    /// The bytes `range` of buffer `index`, to read.
    ///
    /// # Safety
    ///
    /// - *Unwritten*: while the slice lives, nobody writes in `range` of this buffer.
    ///
    /// # Panics
    ///
    /// If there is no such buffer, or `range` is not inside it.
    #[must_use]
    #[inline]
    pub unsafe fn bytes(&self, index: usize, range: Range<usize>) -> &[u8] {
        let (start, len) = self.locate(index, range);
        // SAFETY:
        // - in bounds of one mapping, initialised: `locate` checked the range, and the kernel zero-fills the mapping;
        // - alive: `self`, borrowed for the returned lifetime, owns the mapping;
        // - not written meanwhile: *unwritten*, promised by the caller.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// The bytes `range` of buffer `index`, to write.
    ///
    /// # Safety
    ///
    /// - *Exclusive*: while the slice lives, nobody else reads or writes in `range` of this buffer.
    ///
    /// # Panics
    ///
    /// If there is no such buffer, or `range` is not inside it.
    #[must_use]
    #[allow(
        clippy::mut_from_ref,
        reason = "disjoint ranges go to different threads; *exclusive* is the caller's promise"
    )]
    #[inline]
    pub unsafe fn bytes_mut(&self, index: usize, range: Range<usize>) -> &mut [u8] {
        let (start, len) = self.locate(index, range);
        // SAFETY:
        // - in bounds of one mapping, initialised: `locate` checked the range, and the kernel zero-fills the mapping;
        // - alive: `self`, borrowed for the returned lifetime, owns the mapping;
        // - not aliased: *exclusive*, promised by the caller.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// The first `len` bytes of buffer `index` as a value that can be lent to the kernel.
    ///
    /// # Safety
    ///
    /// - *Quiet*: from now until the answer is dropped, nobody writes in those bytes.
    ///
    /// # Panics
    ///
    /// If there is no such buffer, or it is shorter than `len`.
    #[must_use]
    pub unsafe fn freeze(self: &Arc<Self>, index: usize, len: usize) -> Frozen {
        Frozen::shared(Arc::clone(self), index, len)
    }

    /// Out of line, and by value: what a message borrows would have to lie in memory also where nothing is wrong.
    #[cold]
    fn outside(&self, range: Range<usize>) -> ! {
        panic!("bytes {range:?} of a buffer of {}", self.buffer_size)
    }

    #[cold]
    fn missing(&self, index: usize) -> ! {
        panic!("buffer {index} of an arena of {}", self.count)
    }

    /// Where `range` of buffer `index` lies in memory; the one bounds check of the crate.
    #[inline]
    fn locate(&self, index: usize, range: Range<usize>) -> (*mut u8, usize) {
        if range.start > range.end || range.end > self.buffer_size {
            self.outside(range);
        }
        (self.address(index).wrapping_add(range.start), range.len())
    }
}

fn map(len: usize) -> Result<MmapMut, ArenaError> {
    MmapOptions::new().len(len).map_anon().map_err(|error| ArenaError::Map { bytes: len, errno: errno(&error) })
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
