//! How batches lie in the log: the [frame](crate::framing) around the bytes of a buffer, and where the next one begins.
//!
//! The ring counts in addresses of bytes that are appended: a generation reaches from the first of its own to the first
//! of the next, frames included. So offsets in a buffer, the state word and the watermarks know nothing of frames.

use core::num::NonZeroU64;
use std::sync::Arc;

use ring_alloc::{Arena, BLOCK, round_up};

use crate::error::OptionsError;
use crate::extent::ADDRESS_LIMIT;
use crate::framing::{Framing, Margins};
use crate::sync::AtomicBool;
use crate::sync::Ordering::Relaxed;

/// The layout of all batches of a ring.
#[derive(Debug)]
pub(crate) struct Layout {
    buffer_size: usize,
    margins: Margins,
    framing: Option<Arc<dyn Framing>>,
    /// No batch crosses a multiple of this.
    segment_size: Option<NonZeroU64>,
    /// Whether the next generation to be sealed is the last of its segment. Taken by one sealer.
    roll: AtomicBool,
}

impl Layout {
    /// Without frames: a batch is what was appended, and zeros to the next block.
    pub(crate) fn plain(arena: &Arena) -> Self {
        Self {
            buffer_size: arena.buffer_size(),
            margins: Margins::default(),
            framing: None,
            segment_size: None,
            roll: AtomicBool::new(false),
        }
    }

    /// With frames, and perhaps in segments.
    pub(crate) fn framed(
        arena: &Arena,
        framing: Arc<dyn Framing>,
        segment_size: Option<NonZeroU64>,
    ) -> Result<Self, OptionsError> {
        let (margins, buffer_size) = (framing.margins(), arena.buffer_size());
        let layout = Self { margins, framing: Some(framing), segment_size, ..Self::plain(arena) };
        // What is appended is aligned to 8 bytes in memory if the format aligns it in the log.
        if !margins.header.is_multiple_of(8) || layout.checked_capacity().is_none() {
            return Err(OptionsError::Margins { margins, buffer_size });
        }
        match segment_size.map(NonZeroU64::get) {
            Some(size) if size < buffer_size as u64 || !ring_alloc::is_aligned(size) => {
                Err(OptionsError::SegmentSize { segment_size: size, buffer_size })
            }
            _ => Ok(layout),
        }
    }

    pub(crate) fn framing(&self) -> Option<&dyn Framing> {
        self.framing.as_deref()
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.framing.is_none()
    }

    /// Bytes of a buffer, frame included.
    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// Bytes of a batch before the first append.
    pub(crate) fn header_len(&self) -> usize {
        self.margins.header
    }

    /// Bytes that can be appended to one buffer.
    pub(crate) fn capacity(&self) -> usize {
        self.checked_capacity().expect("checked when it was made")
    }

    fn checked_capacity(&self) -> Option<usize> {
        let Margins { header, trailer, trailer_per_block } = self.margins;
        let per_block = (self.buffer_size / BLOCK).checked_mul(trailer_per_block)?;
        let margins = header.checked_add(trailer)?.checked_add(per_block)?;
        self.buffer_size.checked_sub(margins).filter(|capacity| *capacity > 0)
    }

    /// Bytes of a batch with `len` appended bytes, from its header to the end of its last block.
    pub(crate) fn batch_len(&self, len: u32) -> u64 {
        let Margins { header, trailer, trailer_per_block } = self.margins;
        let table = header + len as usize;
        round_up((table + trailer + table.div_ceil(BLOCK) * trailer_per_block) as u64)
    }

    /// Where the generation begins that follows the one at `base` with `len` appended bytes. For the sealer, once.
    pub(crate) fn next_base(&self, base: u64, len: u32) -> u64 {
        let end = base + self.batch_len(len);
        let Some(size) = self.segment_size else { return end };
        let start = end - self.margins.header as u64;
        let boundary = start.next_multiple_of(size.get());
        // ordering: nothing depends on the request but itself; the swap gives it to one sealer.
        if self.roll.swap(false, Relaxed) || boundary - start < self.buffer_size as u64 {
            boundary + self.margins.header as u64
        } else {
            end
        }
    }

    /// Whether the generation that begins at `base` is the first of its segment.
    pub(crate) fn opens_segment(&self, base: u64) -> bool {
        self.segment_size.is_some_and(|size| (base - self.margins.header as u64).is_multiple_of(size.get()))
    }

    /// The highest base of a generation: a whole buffer there has addresses.
    pub(crate) fn last_base(&self) -> u64 {
        ADDRESS_LIMIT - self.buffer_size as u64 + self.margins.header as u64
    }
}
