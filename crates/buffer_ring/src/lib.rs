#![doc = include_str!("../README.md")]
//!
//! # One append, step by step
//!
//! ```text
//!            current                                  the device
//!               │                                         ▲
//!               ▼                                         │ flush: one write per buffer
//!  ┌────────┬────────┬────────┬────────┐                  │
//!  │flushing│  open  │  free  │  free  │ ─── sealed, last writer left
//!  └────────┴────────┴────────┴────────┘
//!    slot 0   slot 1   slot 2   slot 3        generation 6 in slot 1: file address base(6) + offset
//! ```
//!
//! 1. [`append`](BufferRing::append) adds its length to the current buffer's word: one instruction. The offset that was
//!    there before, and the buffer's base, are its address.
//! 2. It copies its bytes, and takes its count off the word: one instruction.
//! 3. An append that does not fit seals the buffer instead, says where the next one begins, and opens it if it is free.
//! 4. The thread that leaves a sealed buffer last pads it with zeros to the next block, and submits it.
//! 5. Its completion frees the slot, and moves [`written_watermark`](BufferRing::written_watermark) if no earlier
//!    buffer is missing.
//! 6. If a thread waits for durability, the write is durable by itself; else a sync follows when a thread does. Then
//!    [`durable_watermark`](BufferRing::durable_watermark) moves, and those are woken whose bytes are below.
//!
//! There is no background thread. Threads that wait do what there is to do: one of them writes the batch for all, or
//! drives the device, the others sleep. With no thread waiting, finished writes are taken along by the next flush.
//!
//! # Wakers and subscribers
//!
//! The wakers of futures and the subscribers of `tracing` are code that the ring does not know. It calls them when its
//! own state is complete, with nothing locked: they may use the ring. Their panics end in the ring, after the panic
//! hook has reported them, and harm no other task or thread. Events that a subscriber causes itself, by using the ring,
//! are not emitted.

mod builder;
mod commit;
mod error;
mod extent;
mod framing;
mod metrics;
mod options;
mod reservation;
mod ring;
mod staging;
mod sync;
mod writeback;
mod writer;

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
#[path = "tests/asleep.rs"]
mod asleep;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
#[path = "tests/between_steps.rs"]
mod between_steps;
#[cfg(doctest)]
#[path = "tests/compile_fail.rs"]
mod compile_fail;
#[cfg(all(test, loom))]
mod tests;

pub use builder::BufferRingBuilder;
pub use commit::groups::CommitPolicy;
pub use error::{AppendError, OptionsError, ReadError, RingError, RotateError};
pub use extent::{Extent, Placement};
pub use framing::{BatchInfo, Framing, Margins};
#[cfg(feature = "latencies")]
pub use hdrhistogram;
#[cfg(feature = "latencies")]
pub use metrics::latency::Latencies;
pub use options::{BufferRingOptions, MAX_BUFFERS};
pub use reservation::Reservation;
pub use ring::BufferRing;
#[cfg(feature = "async")]
pub use ring::futures::{AppendFuture, DurableFuture, ReserveFuture};
pub use ring::handle::{BufferHandle, FlushTicket};
pub use ring::read::Peek;
pub use ring::stats::{OldestReservation, RingStats, WriterStats};
pub use ring::watch::DurableWatch;
#[cfg(any(loom, shuttle))]
pub use sync::model_device as model;
pub use writer::{OwnedWriter, Writer};

pub use ring_alloc::{self, Arena, ArenaError, BLOCK, Buffer, Frozen, HugePages, ONE_MEGABYTE_BLOCK, Region};
pub use ring_io::{
    self, AttachError, DeviceError, DeviceEvent, Engine, EngineKind, FileError, Finished, LogWrite, MemoryDevice,
    OpenError, Operation, QuikIO, QuikIOBuilder, QuikIOOptions, Registered, SEGMENT_HEADER, SegmentFault, SegmentFile,
    Wait, WriteMode, WriteQueue,
};
pub use ring_state;

#[doc = include_str!("reopening/page.md")]
#[doc = "```"]
#[doc = include_str!("reopening/framing.rs")]
#[doc = include_str!("reopening/usage.rs")]
#[doc = "```"]
pub mod reopening {}
