//! `ringlog`: the record layer over the ring: the on-disk format, and a recovery that proves its verdict. It recovers
//! logs but cannot append through the ring yet.
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
//! # What is not
//!
//! Appending through the ring. Only the reference writer of the tests (feature `testing`) writes batches so far.
//!
//! # Examples
//!
//! ```
//! use ringlog::directory::DiskDirectory;
//! use ringlog::recovery::{Recover, Verdict, Verify, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let directory = DiskDirectory::create(folder.path().join("my-log"))?;
//! let opened = Recover::new().segment_size(1 << 20).open(&directory)?;
//! assert_eq!(opened.report().verdict, Verdict::Fresh);
//! drop(opened);
//! let report = verify(&directory, &Verify::new())?;
//! assert_eq!(report.verdict, Verdict::Unclosed);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod directory;
mod error;
pub mod format;
mod lsn;
pub mod manifest;
mod random;
pub mod recovery;
pub mod segment;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::OpenError;
pub use lsn::Lsn;
