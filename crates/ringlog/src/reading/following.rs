//! What a follower does: it reads, and never waits.

use std::sync::Arc;
use std::time::Instant;

use buffer_ring::DurableWatch;

use super::batch::AHEAD;
use super::follow::Upto;
use super::forward::{Event, Forward, Shown, Staged};
use super::origin::{File, Origin, Voids, behind_header};
use super::pin::Pin;
use crate::Lsn;
use crate::format::Manifest;
use crate::log::Error;
use crate::recovery::{Item, Record};

/// A follower, where it is.
#[derive(Debug)]
pub(super) struct Following {
    origin: Origin,
    upto: Upto,
    manifest: Arc<Manifest>,
    forward: Forward<File>,
    /// Records that end here or before are passed over.
    from: Lsn,
    position: Lsn,
    /// Behind what was given, or what a predecessor was given.
    given: Lsn,
    /// Whether the batch that holds the position was found.
    is_located: bool,
    pin: Pin,
    voids: Voids,
    /// What is wrong with the position; said first.
    refusal: Option<Error>,
    /// What was read ahead of the call that asks for it.
    read: Option<Result<Came, Error>>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Shown(Shown),
    /// Nothing yet.
    Wait,
    /// Nothing, as a thread is just writing there.
    Soon,
    /// It is in a file.
    Read,
}

/// Whether files are read here, or by another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Allowed,
    Elsewhere,
}

#[derive(Debug)]
enum Came {
    Event(Event),
    Nothing,
    Writing,
    InFile,
}

impl Following {
    pub(super) fn new(origin: Origin, from: Lsn, upto: Upto) -> Self {
        let (first, hold) = origin.hold(Some(from));
        let refusal = (from < first).then_some(Error::Trimmed { first });
        let (manifest, forward) = (origin.manifest(), Forward::new(origin.max_record(), 0, AHEAD));
        let (from, voids, is_located) = (from.max(first), Voids::default(), false);
        Self {
            origin,
            upto,
            manifest,
            forward,
            from,
            position: from,
            given: from,
            is_located,
            pin: Pin::new(hold),
            voids,
            refusal,
            read: None,
        }
    }

    pub(super) fn unpin(&mut self) {
        self.pin = Pin::new(None);
    }

    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    pub(super) fn record(&self) -> Record<'_> {
        self.forward.record()
    }

    pub(super) fn item(&self, shown: Shown) -> Item<'_> {
        self.forward.item(shown)
    }

    #[cfg(feature = "async")]
    pub(super) fn upto(&self) -> Upto {
        self.upto
    }

    #[cfg(feature = "async")]
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Has a task woken when the log is further than `seen`; `None`: soon.
    #[cfg(feature = "async")]
    pub(super) fn wake(&self, seen: Option<u64>, waker: &core::task::Waker) -> Result<(), Error> {
        self.origin.wake(self.upto, seen, waker)
    }

    /// How far the log is; when it is further, there may be more.
    pub(super) fn progress(&self) -> u64 {
        self.origin.progress(self.upto)
    }

    /// Whether the log has ended, or failed.
    pub(super) fn ending(&self) -> Option<Result<(), Error>> {
        self.origin.ending()
    }

    /// What says when more is durable.
    pub(super) fn durable_watch(&self) -> Result<DurableWatch, Error> {
        self.origin.check()?;
        self.origin.durable_watch()
    }

    /// Waits until the log may be further than `seen`, for the time number `times`; not long after `deadline`.
    pub(super) fn await_progress(&self, seen: u64, times: u32, deadline: Option<Instant>) {
        self.origin.await_progress(self.upto, seen, times, deadline);
    }

    /// What comes next, without waiting for it.
    pub(super) fn step(&mut self, reading: Reading) -> Result<Next, Error> {
        self.origin.check()?;
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        loop {
            let found = self.read.take().unwrap_or_else(|| self.advance(reading));
            let event = match found {
                Ok(Came::Event(event)) => Ok(event),
                Ok(Came::Writing) => return Ok(Next::Soon),
                Ok(Came::InFile) => return Ok(Next::Read),
                Ok(Came::Nothing) => return Ok(Next::Wait),
                Err(error) => Err(error),
            };
            self.pin.advance(&self.forward, self.position);
            match event {
                Ok(Event::Truncation { from, at }) => {
                    if from < self.given && self.given <= at {
                        self.given = from;
                        return Ok(Next::Shown(Shown::Truncated { from }));
                    }
                }
                Ok(Event::Gap(gap)) => {
                    if gap.end > self.position {
                        return Ok(Next::Shown(Shown::Gap(gap)));
                    }
                }
                Ok(Event::Record) => {
                    let record = self.forward.met();
                    if record.end <= self.from {
                        continue;
                    }
                    let first = Lsn::new(self.origin.first());
                    if record.lsn < first && self.position < first {
                        return self.trimmed(first);
                    }
                    let void = self.voids.truncation_of(&self.origin, record.lsn);
                    if self.upto == Upto::Durable && void.is_some_and(|at| at.get() >= self.origin.durable()) {
                        // A crash may take the truncation back. It is decided when that is durable.
                        self.read = Some(Ok(Came::Event(Event::Record)));
                        return Ok(Next::Wait);
                    }
                    if record.is_last {
                        self.position = record.end;
                    }
                    if record.lsn < first {
                        continue;
                    }
                    if record.is_whole && record.lsn < self.from {
                        return Err(Error::InsideRecord { address: self.from, record: record.lsn..record.end });
                    }
                    if void.is_none() {
                        self.given = record.end;
                        return Ok(Next::Shown(Shown::Record));
                    }
                }
                Err(Error::Trimmed { first }) => return self.trimmed(first),
                Err(error) => return Err(error),
            }
        }
    }

    /// What comes next is trimmed. It goes on where the log begins.
    fn trimmed(&mut self, first: Lsn) -> Result<Next, Error> {
        (self.from, self.position, self.given, self.is_located) = (first, first, first, false);
        Err(Error::Trimmed { first })
    }

    /// Finds where the position is, at first and after a trim. `false`: another process's log is not proven to be so
    /// far.
    fn locate(&mut self) -> Result<bool, Error> {
        if let Origin::Open(log) = &self.origin {
            let end = log.end();
            if self.position > end {
                return Err(Error::NotAppended { address: self.position, end });
            }
        } else if self.position > behind_header(self.origin.readable(self.origin.durable(), self.upto)?) {
            return Ok(false);
        }
        let first = Lsn::new(self.origin.first());
        if self.position < first {
            return Err(Error::Trimmed { first });
        }
        self.manifest = self.origin.manifest();
        let durable = self.origin.durable();
        let at = self.forward.locate(&self.origin.files(&self.manifest), self.position.get(), durable)?;
        self.forward.seek(at);
        self.is_located = true;
        Ok(true)
    }

    /// Reads ahead what the next step would have to read.
    #[cfg(feature = "async")]
    pub(super) fn read(&mut self) {
        self.read = Some(self.advance(Reading::Allowed));
    }

    fn advance(&mut self, reading: Reading) -> Result<Came, Error> {
        if !self.is_located {
            if reading == Reading::Elsewhere {
                return Ok(Came::InFile);
            }
            if !self.locate()? {
                return Ok(Came::Nothing);
            }
        }
        loop {
            let files = self.origin.files(&self.manifest);
            if let Some(met) = self.forward.within_batch(&files).map_err(|problem| self.origin.explain(problem))? {
                return Ok(Came::Event(met));
            }
            if let Origin::Open(log) = &self.origin {
                if self.upto == Upto::Durable && self.forward.next_batch() >= files.durable {
                    return Ok(Came::Nothing);
                }
                match self.forward.load_staged(log, &files)? {
                    Staged::More => continue,
                    Staged::NotYet => return Ok(Came::Nothing),
                    Staged::Writing => return Ok(Came::Writing),
                    Staged::Elsewhere => {}
                }
            }
            if reading == Reading::Elsewhere {
                return Ok(Came::InFile);
            }
            let end = self.origin.readable(self.forward.next_batch(), self.upto)?;
            if self.forward.next_batch() >= end {
                return Ok(Came::Nothing);
            }
            self.manifest = self.origin.manifest();
            let files = self.origin.files(&self.manifest);
            let met = self.forward.next_of_file(&files, end).map_err(|problem| self.origin.explain(problem))?;
            if let Some(met) = met {
                return Ok(Came::Event(met));
            }
        }
    }
}
