//! The protocol of one log buffer on one atomic word: reserve, release, seal, flush, reopen.
//!
//! ```text
//!  63 ............ 32   31 ........ 8   7 .. 2       1          0
//! ┌─────────────────┬──────────────┬──────────┬──────────┬────────┐
//! │  offset (bytes) │   writers    │ reserved │ flushing │ sealed │
//! └─────────────────┴──────────────┴──────────┴──────────┴────────┘
//! ```
//!
//! Every field moves by one atomic instruction on this word, so that any snapshot of it is consistent in itself. In
//! particular, at a moment when the word is sealed and has no writers, the offset is exactly the number of bytes that
//! were written.
//!
//! # The states, and which threads may touch the bytes
//!
//! | sealed | writers | offset | flushing | state | who may touch the bytes |
//! |---|---|---|---|---|---|
//! | no | any | <= capacity | no | *open* | each writer its own range |
//! | no | >= 1 | > capacity | no | *overflowed*: one thread is about to seal | each writer its own range |
//! | yes | >= 1 | any | no | *sealed*: the last writers are copying | each writer its own range |
//! | yes | 0 | >= 1 | no | *drained*: a thread that sees it tries to take the flush | none |
//! | yes | any (late arrivals) | >= 1 | yes | *flushing* | the one that took the flush; the device reads |
//! | yes | any (late arrivals) | any | no | *vacant* | none, until it is reopened |
//!
//! *Sealed* and *vacant* can be the same word for a moment, while a late arrival has not undone its addition. Whether a
//! buffer is free must therefore not be read off the word; a ring keeps a mark of its own for that. Only the exact word
//! "sealed, and all else zero" can be [reopened](StateWord::reopen).
//!
//! # One write, step by step
//!
//! 1. [`reserve`](StateWord::reserve) adds the length and one writer in one instruction. What was there before decides:
//!    the range is [granted](Reserve::Granted); or it ran over the end, so that this thread, and no other,
//!    [sealed](Reserve::Sealed) the buffer; or it came [late](Reserve::Late).
//! 2. The writer copies its bytes, and [releases](StateWord::release) its count.
//! 3. The thread that sees the buffer drained gets a [`Released`], and tries to [take the
//!    flush](StateWord::try_take_flush) by compare-exchange from exactly the word it saw. One wins.
//! 4. When the bytes are written, the winner [completes](StateWord::complete); some time later the buffer is
//!    [reopened](StateWord::reopen) for its next generation.
//!
//! A thread that has to look at a generation without writing [pins](StateWord::pin) it, like a writer of no bytes: as
//! long as it holds the pin, this generation cannot end. Sealing on request takes a pin, too.
//!
//! # Orderings
//!
//! Each edge carries something from one thread to another. The witness is the model in `tests/loom.rs` that fails when
//! either half is weakened.
//!
//! | edge | carries | release half | acquire half | witness |
//! |---|---|---|---|---|
//! | E1 | the writers' bytes → the flusher | `release` | `try_take_flush` | `the_flusher_sees_every_byte` |
//! | E2 | the flusher's last read → the next generation's opener | `complete` | `reopen` | `the_next_generation_waits_for_the_flusher` |
//! | E3 | what the opener prepared → the next generation's threads | `reopen` | `reserve`, `pin` | `the_next_generation_sees_what_its_opener_prepared` |
//! | E4 | the bytes of writers that have left → a reader of a snapshot | `release` | `snapshot` | a ring's, see there |
//!
//! All other operations are relaxed. They are read-modify-writes, and those continue the release sequence that they
//! land in, so that a relaxed seal or undo between `release` and `try_take_flush` breaks no edge. A stale
//! [`snapshot`](StateWord::snapshot) costs one failed compare-exchange or one more addition that is undone.
//!
//! # ABA
//!
//! `try_take_flush` may succeed on a later generation whose word happens to equal the one that was seen. That is
//! harmless: the word says that *this* generation is drained too, and that is all that taking a flush needs. The caller
//! has to look up which generation it is after it has won, not before. `pin` and `seal` are protected by the caller
//! being inside, from which moment the generation stays the same.
//!
//! # What this crate does not do
//!
//! It has no bytes, no file and no threads that wait: it counts. It assumes at most 2^22 - 1 threads, the limit of
//! 64-bit Linux, see [`MAX_OPTIMISTIC_LEN`].
//!
//! ```
//! use ring_state::{Released, Reserve, StateWord};
//!
//! let word = StateWord::vacant();
//! assert!(word.reopen());
//! let capacity = 4096;
//!
//! assert_eq!(word.reserve(3000, capacity), Reserve::Granted { start: 0 });
//! // 2000 bytes do not fit any more: this thread has sealed the buffer, and is still inside it.
//! assert_eq!(word.reserve(2000, capacity), Reserve::Sealed { len: 3000 });
//! assert_eq!(word.release(), Released::Pending);
//!
//! // The first writer is the last one out.
//! let Released::Flushable(drained) = word.release() else { panic!("no other writer is inside") };
//! assert!(word.try_take_flush(drained));
//! assert_eq!(drained.len(), 3000);
//! word.complete(drained.len());
//! assert!(word.reopen());
//! ```

#![cfg_attr(not(any(loom, shuttle)), no_std)]
#![forbid(unsafe_code)]

mod layout;
mod snapshot;
mod sync;
mod word;

pub use layout::{MAX_CAPACITY, MAX_OPTIMISTIC_LEN};
pub use snapshot::{Drained, Snapshot};
pub use word::{Released, Reserve, Seal, StateWord};

#[cfg(all(test, not(any(loom, shuttle))))]
mod exhaustive;
