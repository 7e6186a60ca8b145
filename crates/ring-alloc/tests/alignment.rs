//! Every buffer is where direct I/O needs it, whatever the size of the arena.

use std::sync::Arc;

use ring_alloc::{Arena, ArenaError, BLOCK, HugePages, ONE_MEGABYTE_BLOCK};

const HUGE_PAGE: usize = 2 << 20;

#[test]
fn every_buffer_is_block_aligned_zero_and_apart_from_the_others() {
    for (count, size) in [(1, BLOCK), (3, BLOCK), (2, 3 * BLOCK), (16, 1 << 20), (5, 5 * BLOCK), (700, BLOCK)] {
        let arena = Arena::new(count, size).expect("a valid arena");
        let first = arena.address(0) as usize;
        for index in 0..count {
            let address = arena.address(index) as usize;
            assert_eq!(address % BLOCK, 0);
            assert_eq!(address, first + index * size);
        }
        for buffer in arena.into_buffers() {
            assert_eq!(buffer.len(), size);
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn an_arena_of_a_huge_page_or_more_is_aligned_to_one() {
    let large = Arena::new(4, 1 << 20).expect("a valid arena");
    assert_eq!(large.address(0) as usize % HUGE_PAGE, 0);
    assert_ne!(large.huge_pages(), HugePages::TooSmall);
    let small = Arena::new(1, HUGE_PAGE - BLOCK).expect("a valid arena");
    assert_eq!(small.huge_pages(), HugePages::TooSmall);
}

#[test]
fn impossible_arenas_are_refused_with_the_reason() {
    assert_eq!(Arena::new(0, BLOCK).unwrap_err(), ArenaError::NoBuffers);
    for size in [0, 1, BLOCK - 1, BLOCK + 512] {
        assert_eq!(Arena::new(2, size).unwrap_err(), ArenaError::BufferSize(size));
    }
    let (count, buffer_size) = (usize::MAX / BLOCK, 2 * BLOCK);
    assert_eq!(Arena::new(count, buffer_size).unwrap_err(), ArenaError::TooLarge { count, buffer_size });
    let out_of_memory = Arena::new(1 << 40, 1 << 20).unwrap_err();
    assert!(matches!(out_of_memory, ArenaError::Map { bytes, errno: 12 } if bytes > 1 << 60), "{out_of_memory:?}");
}

#[test]
fn an_arena_its_regions_and_its_buffers_know_how_many_there_are_and_which_is_which() {
    let arena = Arc::new(Arena::new(3, ONE_MEGABYTE_BLOCK).expect("a valid arena"));
    assert_eq!((arena.count(), arena.buffer_size()), (3, 1024 * 1024));
    for index in 0..3 {
        let region = arena.region(index);
        // SAFETY: *quiet*: nothing writes in this test.
        let frozen = unsafe { region.clone().freeze(BLOCK) };
        assert_eq!((region.index(), frozen.index(), frozen.len()), (index, index, BLOCK));
        assert_eq!(frozen.as_ptr(), arena.address(index).cast_const());
    }
}

#[test]
fn a_range_of_a_buffer_gives_exactly_its_bytes() {
    let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
    let region = arena.region(1);
    for (start, end) in [(0, BLOCK), (1, 3), (BLOCK - 1, BLOCK), (7, 7), (BLOCK, BLOCK)] {
        // SAFETY: *unwritten*: nothing writes in this test.
        let bytes = unsafe { region.bytes(start..end) };
        assert_eq!((bytes.as_ptr().addr(), bytes.len()), (arena.address(1).addr() + start, end - start));
    }
}

#[test]
fn a_part_of_a_buffer_counts_from_its_own_start_and_knows_its_buffer() {
    let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
    let part = arena.region(1).part(72..4000);
    assert_eq!((part.len(), part.index(), part.whole().len()), (4000 - 72, 1, BLOCK));
    let inner = part.part(8..16);
    // SAFETY: *unwritten*: nothing writes in this test.
    let bytes = unsafe { inner.bytes(0..8) };
    assert_eq!((bytes.as_ptr().addr(), bytes.len()), (arena.address(1).addr() + 80, 8));
}

#[test]
#[should_panic(expected = "bytes 0..3929 of a buffer of 3928")]
fn a_part_has_no_bytes_of_the_rest() {
    let _ = Arc::new(Arena::new(1, BLOCK).expect("a valid arena")).region(0).part(72..4000).part(0..3929);
}

#[test]
#[should_panic(expected = "a part of a buffer is not aligned")]
fn a_part_of_a_buffer_cannot_be_lent_to_a_device() {
    let part = Arc::new(Arena::new(1, BLOCK).expect("a valid arena")).region(0).part(8..BLOCK);
    // SAFETY: *quiet*: nothing writes in this test.
    let _ = unsafe { part.freeze(8) };
}

#[test]
#[should_panic(expected = "bytes 3..2 of a buffer of 4096")]
fn a_range_that_ends_before_it_begins_is_refused() {
    let region = Arc::new(Arena::new(1, BLOCK).expect("a valid arena")).region(0);
    let (start, end) = (3, 2);
    // SAFETY: *unwritten*: the arena is this test's alone.
    let _ = unsafe { region.bytes(start..end) };
}

#[test]
#[should_panic(expected = "of a buffer of 4096")]
fn a_range_beyond_its_buffer_is_refused() {
    let region = Arc::new(Arena::new(2, BLOCK).expect("a valid arena")).region(0);
    // SAFETY: *unwritten*: the arena is this test's alone.
    let _ = unsafe { region.bytes(0..BLOCK + 1) };
}

#[test]
#[should_panic(expected = "buffer 2 of an arena of 2")]
fn a_buffer_beyond_the_arena_is_refused() {
    let _ = Arena::new(2, BLOCK).expect("a valid arena").address(2);
}
