//! One mapping, and its equal parts.

use std::io;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use rustix::mm::{Advice as ForkAdvice, madvise};

use crate::{Buffer, Region, is_aligned};

/// Bytes of a huge page, to which a large arena is aligned.
const HUGE_PAGE: usize = 2 << 20;

/// One anonymous mapping cut into `count` equal, 4096-aligned buffers. Fresh memory is zero.
///
/// A child made by `fork(2)` does not get the bytes: there the memory is zero again, and nothing is copied. Copying
/// would cost a fork much time and memory where the kernel has the pages pinned for I/O. Kernels before 4.14 give the
/// child a copy.
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

/// Why an arena could not be made.
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

impl ArenaError {
    /// Returns the error kind by which the standard library knows this failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NoBuffers | Self::BufferSize(_) | Self::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Self::Map { errno, .. } => io::Error::from_raw_os_error(*errno).kind(),
        }
    }
}

impl From<ArenaError> for io::Error {
    /// Keeps the error, with its [`kind`](ArenaError::kind).
    fn from(error: ArenaError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl Arena {
    /// Maps `count` zeroed buffers of `buffer_size` bytes each.
    ///
    /// # Errors
    ///
    /// [`ArenaError`], if `count` is 0, `buffer_size` is not a positive multiple of 4096, or the memory cannot be
    /// mapped.
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
        let map = MmapRaw::from(map);
        wipe_on_fork(&map);
        Ok(Self { map, start, buffer_size, count, huge_pages })
    }

    /// The buffers as owned values, in order; each keeps the arena alive.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Buffer> {
        let arena = Arc::new(self);
        // The arena came by value, so that no other region of it exists, and each index goes out once.
        (0..arena.count).map(|index| Buffer::sole_owner(arena.region(index))).collect()
    }

    /// Returns the number of buffers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the size of each buffer in bytes.
    #[must_use]
    pub fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// Returns whether the kernel was asked for huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> HugePages {
        self.huge_pages
    }

    /// Makes all memory resident now, so that no later access has to wait for it; takes a second or more per gigabyte.
    ///
    /// Otherwise that happens at the first access to each page. Does nothing if the kernel cannot (before 5.14).
    pub fn populate(&self) {
        // Whatever the error says, the first access to each page does the same.
        _ = self.map.advise_range(Advice::PopulateWrite, self.start, self.count * self.buffer_size);
    }

    /// Returns the address of buffer `index`, a multiple of 4096, for registering it with the kernel.
    ///
    /// # Panics
    ///
    /// If there is no such buffer.
    #[must_use]
    pub fn address(&self, index: usize) -> *mut u8 {
        assert!(index < self.count, "buffer {index} of an arena of {}", self.count);
        self.map.as_mut_ptr().wrapping_add(self.start + index * self.buffer_size)
    }

    /// Returns the memory of buffer `index`.
    ///
    /// # Panics
    ///
    /// If there is no such buffer.
    #[must_use]
    pub fn region(self: &Arc<Self>, index: usize) -> Region {
        Region::new(self, index)
    }
}

fn map(len: usize) -> Result<MmapMut, ArenaError> {
    MmapOptions::new().len(len).map_anon().map_err(|error| ArenaError::Map { bytes: len, errno: errno(&error) })
}

/// Keeps the memory from a forked child, which finds zeros there.
fn wipe_on_fork(map: &MmapRaw) {
    let start = map.as_mut_ptr().cast();
    // SAFETY: *nothing changes in this process*: the advice concerns only children, in which each byte of the mapping
    // stays readable and writable, and is initialised, to zero. It was made of the whole mapping, which is private and
    // anonymous.
    let outcome = unsafe { madvise(start, map.len(), ForkAdvice::LinuxWipeOnFork) };
    // Refused: the child gets a copy, as of all other memory.
    _ = outcome;
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
