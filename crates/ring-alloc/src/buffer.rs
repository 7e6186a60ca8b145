//! Buffers as values: exclusively owned, or frozen while the kernel reads them.

use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::{Arena, ArenaError, Region};

/// One buffer of an arena, owned. Dereferences to its bytes.
#[derive(Debug)]
pub struct Buffer {
    region: Region,
}

impl Buffer {
    /// Makes a buffer in an arena of its own: `len` zero bytes, 4096-aligned.
    ///
    /// # Errors
    ///
    /// [`ArenaError`], if `len` is not a positive multiple of 4096 or the memory cannot be mapped.
    pub fn zeroed(len: usize) -> Result<Self, ArenaError> {
        Ok(Self::sole_owner(Arc::new(Arena::new(1, len)?).region(0)))
    }

    /// The caller promises that nothing else uses this region.
    pub(crate) fn sole_owner(region: Region) -> Self {
        Self { region }
    }

    /// Turns the first `len` bytes into a value that is immutable, and so can be lent to the kernel. [`Frozen::thaw`]
    /// takes it back.
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than `len`.
    #[must_use]
    pub fn freeze(self, len: usize) -> Frozen {
        Frozen { sole: true, ..Frozen::shared(self.region, len) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: *unwritten*: only this value's owner can write, and `self` is borrowed.
        unsafe { self.region.bytes(0..self.region.len()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: *exclusive*: this value is the buffer's only owner, and `self` is borrowed mutably.
        unsafe { self.region.bytes_mut(0..self.region.len()) }
    }
}

/// The first bytes of a buffer, immutable as long as this value lives, so that a device may read them.
///
/// It keeps its arena alive. Dereferences to its bytes.
#[derive(Debug)]
pub struct Frozen {
    region: Region,
    len: usize,
    /// Whether it came from a [`Buffer`], which it then still owns.
    sole: bool,
}

impl Frozen {
    /// The caller promises that those bytes stay unwritten while the answer lives.
    pub(crate) fn shared(region: Region, len: usize) -> Self {
        assert!(len <= region.len(), "{len} bytes of a buffer of {}", region.len());
        Self { region, len, sole: false }
    }

    /// Returns the index of the buffer in its arena.
    #[must_use]
    pub fn index(&self) -> usize {
        self.region.index()
    }

    /// Returns the arena that the bytes lie in.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        self.region.arena()
    }

    /// Returns the whole buffer, writable again.
    ///
    /// # Errors
    ///
    /// Gives itself back if it was frozen by [`Region::freeze`]: then the arena's user decides which thread may write
    /// next.
    pub fn thaw(self) -> Result<Buffer, Self> {
        if self.sole { Ok(Buffer::sole_owner(self.region)) } else { Err(self) }
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: *unwritten*: the value stands for exactly that promise, by `Buffer::freeze` or by `Region::freeze`'s
        // *quiet*.
        unsafe { self.region.bytes(0..self.len) }
    }
}
