//! Aligned buffers to a file through io_uring or positioned writes, with complete error reporting.
//!
//! ```text
//!               submit(token, Frozen, offset)                 raw requests
//!  ┌─────────┐ ─────────────────────────────▶ ┌────────────┐ ─────────────▶ ┌───────────────────┐
//!  │ a ring, │                                │ WriteQueue │                │ io_uring,         │ ───▶ the file
//!  │ or you  │ ◀───────────────────────────── │  (retries) │ ◀───────────── │ positioned writes │
//!  └─────────┘   reap: token, Frozen, result  └────────────┘   completions  │ or memory         │
//!                                                                           └───────────────────┘
//! ```
//!
//! A [`QuikIO`] is one file with one engine, or the files of one log. [`QuikIO::attach`] gives the exclusive right to
//! write to it, a [`WriteQueue`]; [`QuikIO::read_at`] and [`QuikIO::sync`] may be called by any thread. All engines
//! behave alike, and one test suite holds them to it.
//!
//! # The owner of the bytes at each moment
//!
//! Bytes travel as a [`Frozen`](ring_alloc::Frozen): a value that keeps its memory mapped and unwritten while it lives.
//!
//! | moment | owner of the `Frozen` | reader of the bytes |
//! |---|---|---|
//! | before [`WriteQueue::submit`] | the caller | the caller |
//! | from `submit` on | the engine, in a slot of its own | the device |
//! | its completion was seen, but some bytes have to go out again | the queue, then the engine | the device |
//! | from [`WriteQueue::reap`] on | the caller, in [`Finished`] | the caller |
//!
//! So memory is free to be used again exactly when it comes back, and not before. Dropping the [`WriteQueue`] waits
//! until everything has come back. [`WriteQueue::write_durable_now`] goes through the same rows within one call. If
//! even waiting fails, the memory is leaked: the kernel may still be reading it.
//!
//! # What comes back
//!
//! Every token comes back exactly once, in any order. A short write goes on from the block where it stopped; `EINTR`,
//! `EAGAIN`, `EBUSY` and `ECANCELED` are tried again, a bounded number of times; everything else is a [`DeviceError`]
//! with the errno and the file range. A write that came back is in the file. It is on stable storage if it was durable
//! ([`WriteQueue::submit_durable`], [`WriteQueue::write_durable_now`]), all of it, however many attempts it took; else
//! once a sync that began later has succeeded: [`QuikIO::sync`], or [`WriteQueue::submit_sync`], which returns at once.
//! A failed sync is never tried again.
//!
//! At a task limit (`RLIMIT_NPROC`, `pids.max`) the kernel has no worker for what would block; then the thread that
//! reaps writes or syncs itself. Submitting never blocks, not even on FUSE, unless io_uring is asked for there by name.
//!
//! # In an event loop
//!
//! When a write completes, io_uring interrupts the thread that has submitted it: `epoll_wait`, `poll` and reads with a
//! timeout return `EINTR` without any signal, 100 of 100 times on Linux 6.18. Go on after `EINTR`, submit from another
//! thread, or choose [`kernel_submits`](QuikIOBuilder::kernel_submits) or positioned writes, with both of which it
//! happens 0 of 100 times.
//!
//! # Preallocated space
//!
//! While small durable writes come, the queue also writes behind the log: space [prepared](QuikIOBuilder::prepare) for
//! them, which [`QuikIO::log_end`] excludes, and which is cut off when the queue is dropped.
//!
//! # Segments
//!
//! A log of which the beginning is to be removed lies in several files: [`QuikIOOptions::segments`]. All that is said
//! here of a file is then said of the log, and an offset is an address in it. A write that needs a segment which is not
//! there yet waits for it in the queue, a sync covers all files, and a read goes through them.
//!
//! This crate knows nothing about reservations, records or rotation: that is the business of the ring on top.
//!
//! ```
//! use std::sync::Arc;
//! use ring_alloc::{BLOCK, Buffer};
//! use ring_io::{QuikIO, Wait};
//!
//! let dir = tempfile::tempdir()?;
//! let io = Arc::new(QuikIO::open(dir.path().join("log"))?);
//!
//! let mut buffer = Buffer::zeroed(BLOCK)?;
//! buffer[..5].copy_from_slice(b"hello");
//! let bytes = buffer.freeze(BLOCK);
//!
//! let queue = io.attach(bytes.arena())?;
//! queue.submit(7, bytes, io.start()?);
//! let mut finished = Vec::new();
//! queue.reap(Wait::Until(None), &mut finished);
//! assert_eq!(finished[0].token, 7);
//! assert_eq!(finished[0].result, Ok(()));
//! io.sync()?;
//!
//! let mut back = [0; 5];
//! assert_eq!(io.read_at(0, &mut back)?, 5);
//! assert_eq!(&back, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod builder;
mod completion_queue;
mod engine;
mod error;
#[doc(hidden)]
pub mod events;
mod file;
mod files;
pub mod fork;
mod lock;
pub mod locks;
mod open;
mod prealloc;
mod queue;
mod quik_io;
mod retry;
mod segments;
mod sequencer;
mod sticky_error;
mod thread;
mod watch;

pub use builder::{QuikIOBuilder, QuikIOOptions};
pub use engine::memory::MemoryDevice;
pub use engine::{Engine, EngineKind};
pub use error::{AttachError, DeviceError, FileError, OpenError, Operation, SegmentFault};
pub use files::{SEGMENT_HEADER, SegmentFile};
pub use open::make_direct;
pub use queue::{Finished, LogWrite, Registered, Wait, WriteQueue};
pub use quik_io::QuikIO;
pub use sequencer::WriteMode;
#[doc(hidden)]
pub use thread::spawn;
pub use watch::DeviceEvent;

/// The examples of the crate's README, which are compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
