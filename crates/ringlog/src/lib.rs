//! `ringlog`: a log of records over [`buffer_ring`], in segments, with a recovery that proves its verdict.
//!
//! Many threads append; a commit costs a share of one device write; after a crash every acknowledged record is there,
//! and [opening](Options::open_with) the log says how it knows.
//!
//! A log is a directory of segments and a `MANIFEST`. What the ring flushes together is a *batch*: a header that only
//! this log can have written, records, and a checksum for each block of 4096 bytes. A batch is accepted as a whole or
//! not at all. Each batch also carries the durable watermark of the moment when it was sealed: a *promise* that
//! everything below was on stable storage. That promise is what separates a torn tail, which was never acknowledged,
//! from damage, which was.
//!
//! ```text
//! my-log/
//!   MANIFEST                  two 4096-byte slots
//!   00000000000000000000.seg  4096-byte segment header, then the addresses 0 .. S
//!   00000000000067108864.seg
//!   LOCK                      advisory lock: one writer
//! ```
//!
//! # What is here
//!
//! - [`Log`]: opening, appending, committing, trimming.
//! - [`Scan`], [`Follow`] and [`Reader`]: the records of a range, those that come, and those of another process's log.
//! - [`after_a_crash`]: what opening does then, what it says, and what is left to decide.
//! - [`format`](mod@format): each structure on disk, with decoders that refuse and never panic, and
//!   [`Framing`](format::Framing), which seals a batch in the ring's buffer.
//! - [`directory`]: the few operations that a log needs of a directory, on disk and in memory; the one in memory can
//!   crash.
//! - [`manifest`] and [`segment`]: how the files are created, updated, recycled and removed, so that a crash at any
//!   step is harmless.
//! - [`recovery`]: [`verify`](recovery::verify) finds the end of a log and proves its verdict without writing a byte;
//!   [`Recover`](recovery::Recover) makes the log ready to be appended to; [`replay`](recovery::replay) hands out the
//!   records.
//!
//! # Examples
//!
//! ```
//! use ringlog::Log;
//! use ringlog::directory::DiskDirectory;
//! use ringlog::recovery::{Verdict, Verify, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("my-log");
//! let (log, recovery) = Log::options().segment_size(4 << 20).ring(4, 1 << 20).open(&path)?;
//! assert_eq!(recovery.verdict, Verdict::Fresh);
//! log.append(0, b"a record")?;
//! log.close()?;
//! drop(log);
//! let report = verify(&DiskDirectory::open(&path)?, &Verify::new())?;
//! assert_eq!((report.verdict, report.records), (Verdict::Clean, 1));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[doc = include_str!("after_a_crash.md")]
pub mod after_a_crash {}
pub mod directory;
mod error;
pub mod format;
mod log;
mod lsn;
pub mod manifest;
mod pages;
mod random;
mod reading;
pub mod recovery;
pub mod segment;
#[cfg(feature = "async")]
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod values;
mod void;

pub use error::OpenError;
pub use log::{Committed, Cursor, Error, Group, Log, Options, Reservation, Segment, SyncPolicy, Trimmed, Writer};
pub use lsn::Lsn;
pub use reading::{Follow, Reader, Scan, ScanRev, Upto};
#[cfg(feature = "async")]
pub use reading::{OwnedRecord, RecordStream};
pub use recovery::{Item, Record, Report as Recovery};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
