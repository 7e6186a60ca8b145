//! Space prepared ahead of the log, so that a durable write finds blocks that the file system has written before.
//!
//! A durable write that extends the file, or is the first in an allocated block, takes the file system's journal along;
//! one that overwrites a block does not, which is a third to a half of its time. So while small durable writes come,
//! blocks of [markers](crate::prealloc::marker) are written behind the log, as ordinary writes of the queue, one at a
//! time, for which no caller waits:
//!
//! ```text
//!  base            submitted_end                 end = the file's
//!    ├───────────────────┼─────────────────────────┤
//!    │ the log, written  │ prepared │ in flight    │
//!    │ by this queue     │          │ (at most 1)  │
//!    └───────────────────┴──────────┴──────────────┘
//!                        ├── at most `lead` bytes ─┤
//! ```
//!
//! The markers carry a [key](crate::prealloc::marker), which a queue draws for itself when it is about to prepare,
//! unless the file ends with markers under the one that it has. The first marker is written when the key is
//! [settled](crate::prealloc::settle).
//!
//! A write of the log may hold a block that *is* a marker under the file's key, in its place. Before it goes to the
//! device the key is removed, and preparing ends. Whatever flush acknowledges that payload begins later, and so takes
//! the removal along; by then all of the file is log, also after a power cut.
//!
//! Marks are not durable themselves, and no sync is made for them: the next durable write or sync takes along what the
//! file system noted of them, which it would have to wait for in any case. So preparing cannot take the error of
//! another write away from a sync.
//!
//! A write of the log never goes to the device while a preparing one to the same blocks is there: it is kept until that
//! has ended.

mod chunk;
pub(crate) mod marker;
pub(crate) mod settle;

use core::mem;
use core::ops::Range;

use ring_alloc::{BLOCK, Frozen, round_down};
use rustix::io::Errno;

use crate::backend::Request;
use crate::prealloc::marker::{Ending, Key};
use crate::{QuikIO, event};

/// What is prepared ahead at most, if nothing else is said. Measured: more gains nothing, and this is one more megabyte
/// than is used up during the slowest preallocating write that was seen.
pub(crate) const DEFAULT_LIMIT: u64 = 8 << 20;

/// A durable write of more bytes gains less by preallocated space than preparing it costs.
const SMALL: u64 = 64 << 10;

/// Small durable writes in a row, before anything is prepared.
const PATIENCE: u32 = 4;

/// What is prepared ahead before much has been committed.
const FIRST_LEAD: u64 = 256 << 10;

/// Bytes of the largest preallocating write: about a millisecond of the device's time.
const CHUNK: usize = 2 << 20;

/// The most small durable writes in a row that are waited for, while the kernel has no worker for a preparing one.
const MAX_PATIENCE: u32 = 1 << 16;

/// The end of the file, as the writer of the log knows it.
#[derive(Debug)]
pub(crate) struct Preallocation {
    /// The file's, as this queue has found or set it.
    key: Result<Option<Key>, Errno>,
    /// Whether it is for the markers of this queue.
    is_own: bool,
    /// Bytes to be ahead at most.
    limit: u64,
    /// Where the log ended when the queue came.
    base: u64,
    /// Where the furthest write ends that has been submitted.
    submitted_end: u64,
    /// Where preallocated space ends, with what is being prepared.
    end: u64,
    /// Where the furthest preallocating write ends that was tried.
    tried: u64,
    /// Bytes of small durable writes, since the log last overtook what was prepared.
    committed: u64,
    /// Small durable writes in a row.
    streak: u32,
    /// [`PATIENCE`], or more.
    patience: u32,
    /// Lent to the device, which prepares this range.
    in_flight: Option<Range<u64>>,
    /// Writes of the log that a preallocating write is in the way of.
    kept: Vec<Request>,
    stopped: bool,
}

/// How a preallocating write has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// The space is there.
    Yes,
    /// The kernel had no worker to do it.
    NotNow,
    /// It failed.
    No,
}

impl Preallocation {
    pub(crate) fn new(limit: u64, ending: Ending) -> Self {
        // Whatever the file holds has been written before, also if it is not marked.
        let (end, tried) = (round_down(ending.file), if ending.is_prepared() { ending.file } else { 0 });
        Self {
            key: ending.key,
            is_own: ending.is_prepared(),
            limit,
            base: ending.log,
            submitted_end: 0,
            end,
            tried,
            committed: 0,
            streak: 0,
            patience: PATIENCE,
            in_flight: None,
            kept: Vec::new(),
            stopped: limit < 2 * BLOCK as u64,
        }
    }

    /// A write of the log is about to go to the device. Returns whether it may: not while its place is being
    /// preallocated.
    #[must_use]
    pub(crate) fn begin_write(&mut self, io: &QuikIO, request: &Request, durable: bool) -> bool {
        let range = &request.range();
        if durable && range.end - range.start <= SMALL {
            self.streak = self.streak.saturating_add(1);
            self.committed += range.end - range.start;
        } else {
            self.streak = 0;
        }
        self.submitted_end = self.submitted_end.max(range.end);
        if self.streak + 1 >= PATIENCE && !self.is_own && !self.stopped {
            self.draw_key(io);
        }
        self.is_free(range)
    }

    /// Sets it early enough that the flush of this durable write settles it, and markers can follow the next one.
    fn draw_key(&mut self, io: &QuikIO) {
        let key = Key::random().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        match key.and_then(|key| io.set_key(Some(key)).map(|()| key)) {
            Ok(key) => (self.key, self.is_own) = (Ok(Some(key)), true),
            Err(errno) => {
                event!(DEBUG, %errno, "the file cannot have a key: no space is prepared");
                self.stopped = true;
            }
        }
    }

    /// The file's, as this queue has found or set it.
    pub(crate) fn key(&self) -> Result<Option<Key>, Errno> {
        self.key
    }

    /// A write of the log that is about to go to the device holds what would be preallocated space under the key.
    pub(crate) fn give_up_key(&mut self, io: &QuikIO) -> Result<(), Errno> {
        (self.key, self.is_own, self.stopped) = (Ok(None), false, true);
        io.set_key(None)
    }

    /// Whether nothing is being prepared there.
    pub(crate) fn is_free(&self, range: &Range<u64>) -> bool {
        !self.in_flight.as_ref().is_some_and(|chunk| chunk.start < range.end && range.start < chunk.end)
    }

    /// Keeps a write that may not begin, until [`done`](Self::done).
    pub(crate) fn keep(&mut self, request: Request) {
        self.kept.push(request);
    }

    pub(crate) fn is_preparing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The next preallocating write, if it is time for one.
    #[must_use]
    pub(crate) fn next(&mut self, io: &QuikIO) -> Option<Request> {
        let (Ok(Some(key)), true) = (self.key, self.is_own && io.is_key_settled()) else { return None };
        let ahead = self.end.saturating_sub(self.submitted_end);
        if self.stopped || self.is_preparing() || self.streak < if ahead == 0 { self.patience } else { 1 } {
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
        let start = self.end.max(self.submitted_end);
        let len = round_down(lead / 2).min(CHUNK as u64).min(round_down(file_size_limit().saturating_sub(start)));
        if len == 0 {
            return self.stop();
        }
        let Some(mut buffer) = chunk::SPARE.borrow(len as usize) else { return self.stop() };
        key.write_markers(&mut buffer[..len as usize], start);
        let log_end = self.submitted_end;
        event!(TRACE, start, len, log_end, "preparing");
        self.end = start + len;
        self.tried = self.tried.max(self.end);
        self.in_flight = Some(start..self.end);
        Some(Request::preparing(buffer.freeze(len as usize), start))
    }

    fn stop(&mut self) -> Option<Request> {
        let end = self.end;
        event!(DEBUG, end, "no more space can be prepared");
        self.stopped = true;
        None
    }

    /// The preallocating write has ended. Returns the writes that were kept, which may go to the device now.
    #[must_use]
    pub(crate) fn done(&mut self, bytes: Frozen, outcome: Prepared) -> Vec<Request> {
        let range = self.in_flight.take().unwrap_or(self.end..self.end);
        // After a failure the kernel may still be reading: no other ring is to write there.
        if outcome != Prepared::No {
            chunk::SPARE.give_back(bytes);
        }
        match outcome {
            Prepared::Yes => self.patience = PATIENCE,
            Prepared::NotNow => {
                // Each failed try delays the writes in its place.
                self.patience = (2 * self.patience).min(MAX_PATIENCE);
                (self.end, self.streak) = (range.start, 0);
            }
            Prepared::No => self.stopped = true,
        }
        mem::take(&mut self.kept)
    }

    /// Where to cut the file, whose length is `len`, once all writes have ended; `None` if it does not end with
    /// preallocated space.
    pub(crate) fn surplus(&self, len: u64) -> Option<u64> {
        let log = self.submitted_end.max(self.base);
        // Longer than anything that was prepared: another program has written there.
        (log < len && len <= self.tried).then_some(log)
    }

    /// Whether the file, of this length, has a key and no more preallocated space that it would be for.
    pub(crate) fn has_idle_key(&self, len: u64) -> bool {
        matches!(self.key, Ok(Some(_))) && len <= self.submitted_end.max(self.base)
    }
}

/// Beyond this many bytes of a file the kernel not only refuses a write, but sends `SIGXFSZ`: no place to go without
/// need.
fn file_size_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LEN: u64 = 8 * BLOCK as u64;

    fn preallocation(file: u64) -> Preallocation {
        Preallocation::new(DEFAULT_LIMIT, Ending { log: file, file, key: Ok(None) })
    }

    #[test]
    fn memory_that_the_kernel_may_still_read_serves_no_other_ring() {
        for (outcome, is_spare) in [(Prepared::No, false), (Prepared::Yes, true), (Prepared::NotNow, true)] {
            let lent = chunk::SPARE.borrow(LEN as usize).expect("memory").freeze(LEN as usize);
            // So that its address is not used again.
            let arena = Arc::clone(lent.arena());
            let mut preallocation = preallocation(0);
            preallocation.in_flight = Some(0..LEN);
            assert!(preallocation.done(lent, outcome).is_empty());
            let next = chunk::SPARE.borrow(LEN as usize).expect("memory").freeze(BLOCK);
            assert_eq!(Arc::ptr_eq(next.arena(), &arena), is_spare, "{outcome:?}");
        }
    }

    #[test]
    fn only_a_write_in_the_place_of_a_preallocating_one_waits_for_it() {
        let mut preallocation = preallocation(0);
        assert!(preallocation.is_free(&(0..u64::MAX)), "nothing is in flight");
        preallocation.in_flight = Some(LEN..2 * LEN);
        for (range, is_free) in [
            (0..LEN, true),
            (0..LEN + 1, false),
            (LEN..LEN + 1, false),
            (0..3 * LEN, false),
            (2 * LEN - 1..2 * LEN, false),
            (2 * LEN..3 * LEN, true),
        ] {
            assert_eq!(preallocation.is_free(&range), is_free, "{range:?}");
        }
    }

    #[test]
    fn only_what_lies_behind_the_log_is_surplus() {
        let mut preallocation = preallocation(LEN);
        preallocation.tried = 2 * LEN;
        assert_eq!(
            [LEN - 1, LEN, LEN + 1, 2 * LEN].map(|len| preallocation.surplus(len)),
            [None, None, Some(LEN), Some(LEN)]
        );
        assert_eq!(preallocation.surplus(2 * LEN + 1), None, "another program has written there");
    }

    #[test]
    fn where_nothing_can_be_prepared_nothing_more_is_tried() {
        let mut preallocation = preallocation(0);
        assert!(!preallocation.stopped);
        assert!(preallocation.stop().is_none());
        assert!(preallocation.stopped);
    }
}
