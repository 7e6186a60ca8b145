//! Buffers as values: exclusively owned, or frozen while the kernel reads them.

use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::{Arena, ArenaError};

/// One buffer of an arena, with its only owner. Dereferences to its bytes.
#[derive(Debug)]
pub struct Buffer {
    arena: Arc<Arena>,
    index: usize,
}

impl Buffer {
    /// A buffer of its own arena: `len` zero bytes, 4096-aligned.
    ///
    /// # Errors
    ///
    /// [`ArenaError`], if `len` is not a positive multiple of 4096 or the memory cannot be mapped.
    pub fn zeroed(len: usize) -> Result<Self, ArenaError> {
        Ok(Self::sole_owner(Arc::new(Arena::new(1, len)?), 0))
    }

    /// The caller vouches that nobody else holds this buffer of `arena`.
    pub(crate) fn sole_owner(arena: Arc<Arena>, index: usize) -> Self {
        Self { arena, index }
    }

    /// The first `len` bytes, immutable from now on and so fit to be lent to the kernel. [`Frozen::thaw`] takes it back.
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than `len`.
    #[must_use]
    pub fn freeze(self, len: usize) -> Frozen {
        Frozen { sole: true, ..Frozen::shared(self.arena, self.index, len) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: *unwritten*: only this value's owner can write, and `self` is borrowed.
        unsafe { self.arena.bytes(self.index, 0..self.arena.buffer_size()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: *exclusive*: this value is the buffer's only owner, and `self` is borrowed mutably.
        unsafe { self.arena.bytes_mut(self.index, 0..self.arena.buffer_size()) }
    }
}

/// The first bytes of a buffer, which nobody writes as long as this value lives: what a device may be given to read.
///
/// It keeps its arena alive. Dereferences to its bytes.
#[derive(Debug)]
pub struct Frozen {
    arena: Arc<Arena>,
    index: usize,
    len: usize,
    /// Whether it came from a [`Buffer`], whose owner it then still is.
    sole: bool,
}

impl Frozen {
    /// The caller vouches that nobody writes in those bytes while the answer lives.
    pub(crate) fn shared(arena: Arc<Arena>, index: usize, len: usize) -> Self {
        assert!(len <= arena.buffer_size(), "{len} bytes of a buffer of {}", arena.buffer_size());
        Self { arena, index, len, sole: false }
    }

    /// The buffer's index in its arena.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The arena that the bytes lie in.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The whole buffer again, writable.
    ///
    /// # Errors
    ///
    /// Gives itself back if it was frozen by [`Arena::freeze`]: then the arena's user decides who may write next.
    pub fn thaw(self) -> Result<Buffer, Self> {
        if self.sole { Ok(Buffer::sole_owner(self.arena, self.index)) } else { Err(self) }
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: *unwritten*: the value stands for exactly that promise, by `Buffer::freeze` or by `Arena::freeze`'s *quiet*.
        unsafe { self.arena.bytes(self.index, 0..self.len) }
    }
}
