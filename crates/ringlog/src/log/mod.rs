//! The log: records appended through a ring of buffers, in segments that are made ready ahead.
//!
//! ```text
//!   append ─▶ ring ─▶ batch, sealed by `Sealer` ─▶ segment k ─▶ segment k + 1
//!                           │ how far the log is         ▲ made ready by the keeper's thread,
//!                           ▼                            │ before a batch leads to it
//!                       `Progress` ──────────────────▶ keeper
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `options` | opens: recovers, replays, starts the ring |
//! | `append` | records, groups, records longer than a buffer |
//! | `commit` | durable records, and what is settled |
//! | `callbacks` | calls when records are durable |
//! | `truncate` | records that are void |
//! | `own` | named values, and the snapshots of what is kept beside the records |
//! | `cursor` | named positions, which trims stop at |
//! | `writer` | a thread's own way in |
//! | `futures`, `turn` | the same for tasks; the turn to append a record longer than a buffer |
//! | `sealer` | the frame of each batch |
//! | `keeper` | the thread that makes segments, syncs by time, and seals an idle log |
//! | `maintain` | trimming, rolling, closing |
//! | `read` | one record, checked; what readers need of the log |
//! | `holds` | what readers need that a trim leaves |

mod append;
mod callbacks;
mod commit;
mod cursor;
mod error;
#[cfg(feature = "async")]
mod futures;
mod holds;
mod keeper;
mod maintain;
mod options;
mod own;
mod read;
mod sealer;
mod truncate;
mod turn;
mod writer;

use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::{fmt, mem};
use std::sync::Arc;
use std::thread::JoinHandle;

use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::Mutex;
use buffer_ring::{BufferRing, Extent, RingStats};

use crate::Lsn;
use crate::format::{Manifest, RECORD_HEADER_LEN};
use crate::reading::{File, Forward};
use crate::recovery::Replay;
#[cfg(feature = "async")]
use crate::tasks::{Reads, Tasks};

pub use append::{Group, Reservation};
pub use commit::Committed;
pub use cursor::Cursor;
pub use error::Error;
pub(crate) use holds::Hold;
pub use maintain::{Segment, Trimmed};
pub use options::{Options, SyncPolicy};
pub use writer::Writer;

use callbacks::Callbacks;
use commit::Unsettled;
use holds::Holds;
use keeper::Keeper;
use own::Own;
use turn::Turn;

/// A log that is open for appending. Cheap to clone; the last clone that goes closes it. What opening does after a
/// crash has [its page](crate::after_a_crash).
///
/// ```
/// use ringlog::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my-log");
/// let (log, _) = Log::options().open(&path)?;
/// let staged = log.append(1, b"in memory")?;
/// let done = log.commit(1, &[std::io::IoSlice::new(b"on stable storage, with all before it")])?;
/// assert!(log.durable() >= staged.end && done.lsn() == staged.end);
/// drop(done);
/// log.close()?;
/// drop(log);
///
/// let mut records = Vec::new();
/// let (log, recovery) = Log::options().open_with(&path, |record| {
///     records.push((record.lsn, record.payload.to_vec()));
///     Ok::<_, std::convert::Infallible>(())
/// })?;
/// assert_eq!((records.len(), recovery.records, records[0].0), (2, 2, staged.start));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

/// What the clones of a log share.
struct Inner {
    /// The one that owns the log: in a forked child no lock is taken and no file touched.
    process: Process,
    ring: Arc<BufferRing>,
    keeper: Arc<Keeper>,
    /// Ended when the log goes.
    thread: Option<JoinHandle<()>>,
    unsettled: Arc<Unsettled>,
    /// What does not change while the log is open: its id, its key, its segments' size, its epochs.
    manifest: Arc<Manifest>,
    /// Bytes of the longest payload that fits a buffer.
    longest: usize,
    /// How records are read back; it knows the longest one that is allowed.
    replay: Replay,
    /// Bytes of the longest record of the user's that is placed as a whole: the smaller one of both.
    short: usize,
    callbacks: Callbacks,
    /// Of those that append the parts of a record longer than a buffer.
    long: Turn,
    own: Arc<Mutex<Own>>,
    /// Counts truncations.
    void_version: AtomicU64,
    holds: Arc<Holds>,
    /// Of single records: each has its newest batch, verified.
    readers: Arc<Mutex<Vec<Forward<File>>>>,
    #[cfg(feature = "async")]
    durable_tasks: Tasks,
    #[cfg(feature = "async")]
    staged_tasks: Tasks,
    #[cfg(feature = "async")]
    reads: Reads,
    /// Whether `MANIFEST` says that the log was closed.
    closed: Mutex<bool>,
}

impl Log {
    /// The way to open a log, or to create one.
    pub fn options() -> Options {
        Options::new()
    }

    /// Everything below is on stable storage, and is there after a crash. Only grows.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn::new(self.inner.ring.durable_watermark())
    }

    /// Where the next record may begin. Only grows.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn::new(self.inner.ring.tail())
    }

    /// What the ring has counted.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.inner.ring.stats()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = (self.first().get(), self.durable().get(), self.end().get());
        f.debug_struct("Log").field("first_durable_end", &range).finish_non_exhaustive()
    }
}

/// The range of a record.
fn range(extent: Extent) -> Range<Lsn> {
    Lsn::new(extent.start())..Lsn::new(extent.end())
}

/// Bytes that a record takes in the log, header and padding included.
const fn record_len(payload: usize) -> usize {
    RECORD_HEADER_LEN + payload.next_multiple_of(8)
}

impl Inner {
    /// Before anything that a thread of the parent may have been doing at the moment of the fork.
    fn check_process(&self) -> Result<(), Error> {
        if self.process.is_here() { Ok(()) } else { Err(Error::Forked) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // Its threads are not here, and what they were changing must not even be freed.
            let threads = (self.thread.take(), mem::take(&mut self.callbacks));
            #[cfg(feature = "async")]
            let threads = (threads, mem::take(&mut self.reads));
            let shared = (Arc::clone(&self.own), Arc::clone(&self.unsettled), Arc::clone(&self.readers));
            return mem::forget((threads, shared));
        }
        // What went wrong has been reported to those that waited for it; a log that is not closed is recovered.
        if self.close().is_err() {
            self.keeper.give_up();
        }
        self.callbacks.end();
        self.keeper.stop();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
