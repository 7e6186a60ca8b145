//! Space prepared ahead of the log, so that a durable write finds blocks that the file system has written before.
//!
//! A durable write that extends the file, or is the first in an allocated block, takes the file system's journal along; one that
//! overwrites a block does not, which is a third to a half of its time. So while small durable writes come, blocks of
//! [marks](crate::mark) are written behind the log, as ordinary writes of the queue, one at a time, which nobody waits for:
//!
//! ```text
//!  floor               reach                     end = the file's
//!    ├───────────────────┼─────────────────────────┤
//!    │ the log, written  │ prepared │ in flight    │
//!    │ by this queue     │          │ (at most 1)  │
//!    └───────────────────┴──────────┴──────────────┘
//!                        ├── at most `lead` bytes ─┤
//! ```
//!
//! They are not durable themselves, and no sync is made for them: the next durable write or sync takes along what the file system noted of
//! them, which it would have to wait for in any case. So preparing cannot take the error of another write away from a sync.
//!
//! A write of the log never goes to the device while a preparing one to the same blocks is there: it is kept until that has ended.

use core::mem;
use core::ops::Range;

use ring_alloc::{BLOCK, Buffer, Frozen, round_down};

use crate::event;
use crate::mark::{Ending, LogId};
use crate::seam::Request;

/// What is prepared ahead at most, if nothing else is said. Measured: more gains nothing, and this is one more megabyte than is used
/// up during the slowest preparing write that was seen.
pub(crate) const DEFAULT_LIMIT: u64 = 8 << 20;

/// A durable write of more bytes gains less by prepared space than preparing it costs.
const SMALL: u64 = 64 << 10;

/// Small durable writes in a row, before anything is prepared.
const PATIENCE: u32 = 4;

/// What is prepared ahead before much has been committed.
const FIRST_LEAD: u64 = 256 << 10;

/// Bytes of the largest preparing write: about a millisecond of the device's time.
const CHUNK: usize = 2 << 20;

/// The end of the file, as the writer of the log knows it.
#[derive(Debug)]
pub(crate) struct Space {
    id: Option<LogId>,
    /// Bytes to be ahead at most.
    limit: u64,
    /// Where the log ended when the queue came.
    floor: u64,
    /// Where the furthest write ends that has been submitted.
    reach: u64,
    /// Where prepared space ends, with what is being prepared.
    end: u64,
    /// Where the furthest preparing write ends that was tried.
    tried: u64,
    /// Bytes of small durable writes, since the log last overtook what was prepared.
    committed: u64,
    /// Small durable writes in a row.
    streak: u32,
    chunk: Chunk,
    /// Writes of the log that a preparing write is in the way of.
    kept: Vec<Request>,
    stopped: bool,
}

/// The memory for preparing writes.
#[derive(Debug)]
enum Chunk {
    /// Not needed so far.
    None,
    /// At hand.
    Idle(Buffer),
    /// Lent to the device, which prepares this range.
    InFlight(Range<u64>),
}

impl Space {
    pub(crate) fn new(limit: u64, ending: Ending) -> Self {
        // Whatever the file holds has been written before, also if it is not marked.
        let (end, tried) = (round_down(ending.file), if ending.id.is_some() { ending.file } else { 0 });
        Self {
            id: ending.id,
            limit,
            floor: ending.log,
            reach: 0,
            end,
            tried,
            committed: 0,
            streak: 0,
            chunk: Chunk::None,
            kept: Vec::new(),
            stopped: limit < 2 * BLOCK as u64,
        }
    }

    /// A write of the log is about to go to the device. Answers whether it may: not while something is being prepared in its place.
    #[must_use]
    pub(crate) fn admit(&mut self, range: &Range<u64>, durable: bool) -> bool {
        if durable && range.end - range.start <= SMALL {
            self.streak = self.streak.saturating_add(1);
            self.committed += range.end - range.start;
        } else {
            self.streak = 0;
        }
        self.reach = self.reach.max(range.end);
        self.is_free(range)
    }

    /// Whether nothing is being prepared there.
    pub(crate) fn is_free(&self, range: &Range<u64>) -> bool {
        !matches!(&self.chunk, Chunk::InFlight(chunk) if chunk.start < range.end && range.start < chunk.end)
    }

    /// Keeps a write that was not admitted, until [`done`](Self::done).
    pub(crate) fn keep(&mut self, request: Request) {
        self.kept.push(request);
    }

    pub(crate) fn is_preparing(&self) -> bool {
        matches!(self.chunk, Chunk::InFlight(_))
    }

    /// The next preparing write, if it is time for one.
    #[must_use]
    pub(crate) fn next(&mut self) -> Option<Request> {
        let ahead = self.end.saturating_sub(self.reach);
        if self.stopped || self.is_preparing() || self.streak < if ahead == 0 { PATIENCE } else { 1 } {
            return None;
        }
        if ahead == 0 {
            self.committed = 0;
        }
        // Never more than has been committed, after a beginning.
        let lead = self.committed.max(FIRST_LEAD).min(self.limit);
        if ahead >= lead / 2 {
            return None;
        }
        let start = self.end.max(self.reach);
        let len = round_down(lead / 2).min(CHUNK as u64).min(round_down(file_size_limit().saturating_sub(start)));
        let id = self.id.or_else(|| LogId::random().ok());
        let (Some(id), Some(mut buffer)) = (id, self.buffer()) else { return self.stop() };
        if len == 0 {
            return self.stop();
        }
        self.id = Some(id);
        id.mark(&mut buffer[..len as usize], start);
        let reach = self.reach;
        event!(TRACE, start, len, reach, "preparing");
        self.end = start + len;
        self.tried = self.tried.max(self.end);
        self.chunk = Chunk::InFlight(start..self.end);
        Some(Request::preparing(buffer.freeze(len as usize), start))
    }

    fn buffer(&mut self) -> Option<Buffer> {
        match mem::replace(&mut self.chunk, Chunk::None) {
            Chunk::Idle(buffer) => Some(buffer),
            _ => Buffer::zeroed(CHUNK).ok(),
        }
    }

    fn stop(&mut self) -> Option<Request> {
        let end = self.end;
        event!(DEBUG, end, "no more space can be prepared");
        self.stopped = true;
        None
    }

    /// The preparing write has ended. Answers what was kept, which may go to the device now.
    #[must_use]
    pub(crate) fn done(&mut self, bytes: Frozen, success: bool) -> Vec<Request> {
        self.chunk = bytes.thaw().map_or(Chunk::None, Chunk::Idle);
        self.stopped |= !success;
        mem::take(&mut self.kept)
    }

    /// What to cut off the file, whose length is `len`, now that nobody writes: where to, if it ends with prepared space.
    pub(crate) fn surplus(&self, len: u64) -> Option<u64> {
        let log = self.reach.max(self.floor);
        // Longer than anything that was prepared: somebody else has written there.
        (log < len && len <= self.tried).then_some(log)
    }
}

/// Beyond this many bytes of a file the kernel not only refuses a write, but sends `SIGXFSZ`: no place to go without need.
fn file_size_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}
