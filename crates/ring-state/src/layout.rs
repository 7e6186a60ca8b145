//! Bits and masks of the word, its limits, and the static assertions between them. Nothing else in the crate shifts.

pub(crate) const SEALED: usize = 1;
pub(crate) const FLUSHING: usize = 1 << 1;
pub(crate) const RESERVED_MASK: usize = 0b11_1111 << 2;
pub(crate) const WRITER: usize = 1 << 8;
pub(crate) const WRITERS_SHIFT: u32 = 8;
pub(crate) const WRITERS_MASK: usize = ((1 << 24) - 1) << WRITERS_SHIFT;
pub(crate) const OFFSET_SHIFT: u32 = 32;
pub(crate) const OFFSET_MASK: usize = ((1 << 32) - 1) << OFFSET_SHIFT;

/// `len` bytes, as they are added to the offset.
#[inline]
pub(crate) const fn bytes(len: u32) -> usize {
    (len as usize) << OFFSET_SHIFT
}

/// The largest buffer: 2 GiB.
pub const MAX_CAPACITY: u32 = 1 << 31;

/// The longest reservation, in bytes, that is added before it is known to fit.
///
/// Every thread may have run over the end of a full buffer at once, and the 32-bit offset must not wrap even then. With
/// at most 2^22 - 1 threads, 512 bytes each and a buffer of at most [`MAX_CAPACITY`] it cannot. Longer reservations go
/// through a compare-exchange, which never runs over.
pub const MAX_OPTIMISTIC_LEN: u32 = 512;

/// Linux gives out thread ids below 2^22.
pub(crate) const MAX_THREADS: usize = (1 << 22) - 1;

/// With this many writers inside, which takes leaked reservations, a buffer counts as full.
pub(crate) const CROWDED: u32 = 1 << 23;

/// The bit that is set as soon as there are so many.
pub(crate) const CROWD: usize = (CROWDED as usize) << WRITERS_SHIFT;

const _: () = {
    assert!(usize::BITS == 64);

    // The fields tile the word: no gap (first line), no overlap (second).
    assert!(OFFSET_MASK ^ WRITERS_MASK ^ RESERVED_MASK ^ FLUSHING ^ SEALED == usize::MAX);
    assert!(OFFSET_MASK.count_ones() + WRITERS_MASK.count_ones() + RESERVED_MASK.count_ones() + 2 == usize::BITS);

    // Neither counter can overflow into its neighbour, whatever all threads add at once.
    assert!(MAX_CAPACITY as usize + MAX_THREADS * MAX_OPTIMISTIC_LEN as usize <= u32::MAX as usize);
    assert!(CROWDED as usize + MAX_THREADS < 1 << 24);

    // No count of writers that the field can hold reaches `CROWDED` without that bit.
    assert!(CROWD == WRITERS_MASK & !(WRITERS_MASK >> 1));
};
