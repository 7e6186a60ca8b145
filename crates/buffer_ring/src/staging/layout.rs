//! How batches lie in the log: the [frame](crate::framing) around the bytes of a buffer, and where the next one begins.
//!
//! The ring counts in addresses of bytes that are appended: a generation reaches from the first of its own to the first
//! of the next, frames included. So offsets in a buffer, the state word and the watermarks know nothing of frames.
//!
//! A buffer that overflows has at most [`MAX_OPTIMISTIC_LEN`] bytes free, and its batch is not shorter than what can be
//! appended to a buffer: so the next generation begins beyond every address of this one.

use core::num::NonZeroU64;
use std::sync::Arc;

use ring_alloc::{Arena, BLOCK, round_up};

#[cfg(doc)]
use ring_state::MAX_OPTIMISTIC_LEN;

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

    /// Whether a batch at `address` is the first of its segment.
    pub(crate) fn opens_segment(&self, address: u64) -> bool {
        self.segment_size.is_some_and(|size| address.is_multiple_of(size.get()))
    }

    /// Asks for the next generation that is sealed to be the last of its segment.
    pub(crate) fn request_roll(&self) {
        // ordering: see `next_base`.
        self.roll.store(true, Relaxed);
    }

    /// Whether a whole buffer that begins at `start` ends within its segment.
    pub(crate) fn fits_at(&self, start: u64) -> bool {
        self.segment_size.is_none_or(|size| start % size <= size.get() - self.buffer_size as u64)
    }

    /// The highest base of a generation: a whole buffer there has addresses.
    pub(crate) fn last_base(&self) -> u64 {
        ADDRESS_LIMIT - self.buffer_size as u64 + self.margins.header as u64
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use ring_state::MAX_OPTIMISTIC_LEN;

    use super::*;

    #[derive(Debug)]
    struct Empty(Margins);

    impl Framing for Empty {
        fn margins(&self) -> Margins {
            self.0
        }

        fn seal(&self, _: &crate::BatchInfo, _: &mut [u8], _: &[u8], _: &mut [u8]) {}
    }

    fn layout(blocks: usize, margins: Margins, segment_size: u64) -> Result<Layout, OptionsError> {
        let arena = Arena::new(1, blocks * BLOCK).expect("a valid arena");
        Layout::framed(&arena, Arc::new(Empty(margins)), NonZeroU64::new(segment_size))
    }

    /// A checksum for each block.
    const CHECKED: Margins = Margins { header: 72, trailer: 8, trailer_per_block: 8 };

    #[test]
    fn what_can_be_appended_fits_a_buffer_with_its_frame_and_no_address_is_given_twice() {
        let sizes = [0, 1, 8, 72, 256, 504, 511, 512, 1024, 2048, 3583, 3584, 3585, 4000];
        let mut valid = 0;
        for blocks in [1, 2, 3, 7, 8, 9, 64, 600] {
            for header in [0, 8, 72, 504, 512, 4096] {
                for (trailer, trailer_per_block) in sizes.into_iter().flat_map(|a| sizes.map(|b| (a, b))) {
                    let margins = Margins { header, trailer, trailer_per_block };
                    let Ok(layout) = layout(blocks, margins, 0) else { continue };
                    valid += 1;
                    let capacity = layout.capacity();
                    assert!(layout.batch_len(capacity as u32) <= layout.buffer_size as u64, "{blocks} {margins:?}");
                    for len in capacity.saturating_sub(MAX_OPTIMISTIC_LEN as usize - 1).max(1)..=capacity {
                        assert!(layout.batch_len(len as u32) >= capacity as u64, "{len} {blocks} {margins:?}");
                    }
                }
            }
        }
        assert!(valid > 3000, "{valid}");
    }

    #[test]
    fn no_batch_crosses_a_segment_and_one_sealer_rolls() {
        let segment = 10 * BLOCK as u64;
        let layout = layout(4, CHECKED, segment).expect("valid");
        let base = |block: u64| block * BLOCK as u64 + 72;
        // In blocks: where a batch of so many begins, and the one behind it.
        for (at, len, next) in [(0, 1, 1), (0, 4, 4), (4, 2, 6), (5, 2, 10), (6, 4, 10), (6, 1, 10), (10, 1, 11)] {
            assert_eq!(layout.next_base(base(at), len * BLOCK as u32 - 200), base(next), "{at} {len}");
            assert_eq!(layout.opens_segment(base(next) - 72), next == 10);
        }
        layout.request_roll();
        assert_eq!([layout.next_base(base(0), 8), layout.next_base(base(0), 8)], [base(10), base(1)]);
        // Where the segment ends anyway, the request is met.
        layout.request_roll();
        assert_eq!([layout.next_base(base(9), 8), layout.next_base(base(10), 8)], [base(10), base(11)]);
    }

    #[test]
    fn segments_that_hold_no_buffer_are_refused() {
        for (segment_size, valid) in [(4096, false), (8192, true), (8193, false), (12288, true)] {
            let expected = OptionsError::SegmentSize { segment_size, buffer_size: 8192 };
            assert_eq!(layout(2, CHECKED, segment_size).err(), (!valid).then_some(expected));
        }
    }
}
