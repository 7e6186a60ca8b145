//! All records from a position on, and those that come.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::batch::AHEAD;
use super::forward::{Event, Forward, Shown, Staged};
use super::origin::{File, Origin, Voids};
use crate::Lsn;
use crate::format::Manifest;
use crate::log::{Error, Hold};
use crate::recovery::{Item, Record};

/// Until where a reader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// What is on stable storage: no crash takes back what was read.
    Durable,
    /// What was appended: soon after that, and perhaps before it is durable. After a crash the log may go on
    /// differently.
    Staged,
}

/// All records from a position on, and then those that come. Made by [`Log::follow`](crate::Log::follow),
/// [`Cursor::follow`](crate::Cursor::follow) and [`Reader::follow`](crate::Reader::follow).
///
/// What is still in memory comes from there, without a buffer being sealed or a file read; a follower that is behind
/// reads files, verified and a mebibyte at a time, until it has caught up. A [`Record`] borrows its bytes from it.
/// Records come in the order of their ends, as in a [`Scan`](crate::Scan), each one once, and none before all that come
/// before it.
///
/// While it lives, [trimming](crate::Log::trim) leaves what it has not given yet, unless it is
/// [`unpinned`](Self::unpinned). After an error of a batch it goes on: behind the damage, or where the log begins.
#[derive(Debug)]
pub struct Follow {
    origin: Origin,
    upto: Upto,
    manifest: Arc<Manifest>,
    forward: Forward<File>,
    /// Records that end here or before are passed over.
    from: Lsn,
    position: Lsn,
    /// Whether the batch that holds the position was found.
    is_located: bool,
    hold: Option<Hold>,
    voids: Voids,
    /// What is wrong with the position; said first.
    refusal: Option<Error>,
}

/// What comes next.
enum Next {
    Shown(Shown),
    /// Nothing yet.
    Wait,
}

impl Follow {
    pub(crate) fn new(origin: Origin, from: Lsn, upto: Upto) -> Self {
        let (first, hold) = origin.hold(Some(from));
        let refusal = (from < first).then_some(Error::Trimmed { first });
        let (manifest, forward) = (origin.manifest(), Forward::new(origin.max_record(), 0, AHEAD));
        let (from, voids, is_located) = (from.max(first), Voids::default(), false);
        Self { origin, upto, manifest, forward, from, position: from, is_located, hold, voids, refusal }
    }

    /// Lets [trimming](crate::Log::trim) pass: what is trimmed before the follower has come to it is answered with
    /// [`Error::Trimmed`], after which it goes on where the log begins.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.hold = None;
        self
    }

    /// Behind the record that was given last; of a group, if all of it was given. Another follower goes on from here.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Returns the next record, and waits for it; `None`: the log was closed, and all was given. Passes over gaps and
    /// truncations: see [`next_item`](Self::next_item).
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`]: the log has failed, and all that can be read was given. [`Error::Damaged`],
    /// [`Error::Trimmed`] and [`Error::File`], after which the next call goes on. [`Error::NotAppended`] if it was made
    /// for a position behind the log's end, [`Error::InsideRecord`] for one inside of a record.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        self.next_record(None)
    }

    /// The same, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::TimedOut`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Record<'_>>, Error> {
        self.next_record(Some(Instant::now() + timeout))
    }

    /// Returns the next record, if it is there, without waiting for it.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.step()? {
                Next::Wait => return Ok(None),
                Next::Shown(Shown::Record(record)) => return Ok(Some(self.forward.record(&record))),
                Next::Shown(_) => {}
            }
        }
    }

    /// Returns the next record, or what else a reader that keeps a copy has to know: a gap, or that records which it
    /// may have been given are [truncated](Item::Truncated). Waits for it; `None`: the log was closed, and all was
    /// given.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.wait(None)?.map(|shown| self.forward.item(shown)))
    }

    /// The same, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::TimedOut`].
    pub fn next_item_timeout(&mut self, timeout: Duration) -> Result<Option<Item<'_>>, Error> {
        Ok(self.wait(Some(Instant::now() + timeout))?.map(|shown| self.forward.item(shown)))
    }

    fn next_record(&mut self, deadline: Option<Instant>) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.wait(deadline)? {
                None => return Ok(None),
                Some(Shown::Record(record)) => return Ok(Some(self.forward.record(&record))),
                Some(_) => {}
            }
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Shown>, Error> {
        let mut waits = 0;
        loop {
            // In this order: what is there when the log ends is given.
            let (seen, ending) = (self.origin.progress(self.upto), self.origin.ending());
            if let Next::Shown(shown) = self.step()? {
                return Ok(Some(shown));
            }
            if let Some(ending) = ending {
                return ending.map(|()| None);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::TimedOut);
            }
            self.origin.await_progress(self.upto, seen, waits, deadline);
            waits += 1;
        }
    }

    /// What comes next, without waiting for it.
    fn step(&mut self) -> Result<Next, Error> {
        self.origin.check()?;
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        self.locate()?;
        loop {
            let before = self.forward.next_batch();
            let event = self.advance();
            if self.forward.next_batch() != before
                && let Some(hold) = &self.hold
            {
                hold.advance(self.forward.needed(self.position).get());
            }
            match event {
                Ok(None) => return Ok(Next::Wait),
                Ok(Some(Event::Truncation { from, at })) => {
                    if from < self.position && self.position <= at {
                        return Ok(Next::Shown(Shown::Truncated { from }));
                    }
                }
                Ok(Some(Event::Gap(gap))) => {
                    if gap.end > self.position {
                        return Ok(Next::Shown(Shown::Gap(gap)));
                    }
                }
                Ok(Some(Event::Record(record))) if record.end <= self.from => {}
                Ok(Some(Event::Record(record))) => {
                    if record.is_last {
                        self.position = record.end;
                    }
                    if record.is_whole && record.lsn < self.from {
                        return Err(Error::InsideRecord { address: self.from, record: record.lsn..record.end });
                    }
                    if record.lsn.get() >= self.origin.first() && !self.voids.contain(&self.origin, record.lsn) {
                        return Ok(Next::Shown(Shown::Record(record)));
                    }
                }
                Err(error) => {
                    if let Error::Trimmed { first } = error {
                        (self.from, self.position, self.is_located) = (first, first, false);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Finds where the position is, at first and after a trim.
    fn locate(&mut self) -> Result<(), Error> {
        if self.is_located {
            return Ok(());
        }
        let end = self.origin.end();
        if self.position.get() > end {
            return Err(Error::NotAppended { address: self.position, end: Lsn::new(end) });
        }
        self.manifest = self.origin.manifest();
        let durable = self.origin.durable();
        let at = self.forward.locate(&self.origin.files(&self.manifest), self.position.get(), durable)?;
        self.forward.seek(at);
        self.is_located = true;
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let files = self.origin.files(&self.manifest);
            let met = self.forward.within_batch(&files).map_err(|problem| self.origin.explain(problem))?;
            if met.is_some() {
                return Ok(met);
            }
            if let Origin::Open(log) = &self.origin
                && (self.upto == Upto::Staged || self.forward.next_batch() < files.durable)
            {
                match self.forward.load_staged(log, &files)? {
                    Staged::More => continue,
                    Staged::NotYet => return Ok(None),
                    Staged::Elsewhere => {}
                }
            }
            let end = self.origin.readable(self.forward.next_batch(), self.upto)?;
            if self.forward.next_batch() >= end {
                return Ok(None);
            }
            self.manifest = self.origin.manifest();
            let files = self.origin.files(&self.manifest);
            let met = self.forward.next_of_file(&files, end).map_err(|problem| self.origin.explain(problem))?;
            if met.is_some() {
                return Ok(met);
            }
        }
    }
}
