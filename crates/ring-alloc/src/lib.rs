//! Memory for direct I/O: one mapping, cut into equal buffers whose addresses and lengths are multiples of 4096.
//!
//! ```text
//!            2 MiB-aligned when the arena is that large, and advised to huge pages
//!            │
//!            ▼
//!  mapping  ─┬───────────────┬───────────────┬───────────────┬─
//!            │   buffer 0    │   buffer 1    │   buffer 2    │
//!           ─┴───────────────┴───────────────┴───────────────┴─
//!            4096-aligned     start + size     start + 2 size
//! ```
//!
//! Direct I/O hands a buffer's address to the device, so the address and the length have to be block-aligned; and a
//! buffer that lies on huge pages is one segment to the device instead of hundreds. An [`Arena`] provides both, for all
//! buffers of a ring at once, from one anonymous mapping that starts as zeros.
//!
//! # Three ways to hold the bytes
//!
//! | type | may write | may read | how to get it |
//! |---|---|---|---|
//! | [`Buffer`] | its owner | its owner | safely: [`Arena::into_buffers`], [`Buffer::zeroed`] |
//! | [`Frozen`] | no thread | every thread, and the kernel | safely by [`Buffer::freeze`]; or [`Region::freeze`] |
//! | a slice | as the borrow says | as the borrow says | [`Region::bytes`], [`Region::bytes_mut`] of an [`Arena::region`] |
//!
//! The last two rows' `unsafe` calls are for a caller with a protocol that decides which thread owns which range, such
//! as a latch-free ring: this crate turns ranges into slices, and knows nothing about writers. Raw pointers become
//! slices in `region.rs` and nowhere else.
//!
//! Every [`Buffer`], [`Frozen`] and [`Region`] keeps its arena alive, so memory that an operating system is still
//! reading is never unmapped.
//!
//! ```
//! use ring_alloc::{BLOCK, Buffer};
//!
//! let mut buffer = Buffer::zeroed(2 * BLOCK)?;
//! buffer[..5].copy_from_slice(b"hello");
//! let frozen = buffer.freeze(BLOCK);          // the first block, ready for a direct write
//! assert_eq!(frozen.as_ptr() as usize % BLOCK, 0);
//! assert_eq!(&frozen[..6], b"hello\0");
//! let buffer = frozen.thaw().expect("it came from a buffer");
//! assert_eq!(buffer.len(), 2 * BLOCK);
//! # Ok::<(), ring_alloc::ArenaError>(())
//! ```

mod arena;
mod block;
mod buffer;
mod region;

pub use arena::{Arena, ArenaError, HugePages};
pub use block::{BLOCK, ONE_MEGABYTE_BLOCK, is_aligned, round_down, round_up};
pub use buffer::{Buffer, Frozen};
pub use region::Region;

/// The examples of the crate's README, which are compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
