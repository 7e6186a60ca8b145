//! The records of a range, in the order of the log.

use core::ops::{Bound, ControlFlow, RangeBounds};
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use buffer_ring::ring_io::locks::Mutex;

use super::batch::AHEAD;
use super::forward::{Event, Files, Forward, Shown};
use super::origin::{File, Origin, Voids, behind_header};
use super::pin::Pin;
use super::rev::ScanRev;
use crate::Lsn;
use crate::format::Manifest;
use crate::log::Error;
use crate::recovery::{Item, Record};

/// The records of a range, in the order of the log. Made by [`Log::scan`](crate::Log::scan) and
/// [`Reader::scan`](crate::Reader::scan).
///
/// Batches are read ahead by the mebibyte, and each is verified once; a [`Record`] borrows its bytes from the scan.
/// What a [truncation](crate::Log::truncate) has made void by the time when the scan comes to it is left out. A record
/// belongs to the range if its *end* does, `from < end <= to`: so ranges that meet share no record, also where a record
/// longer than a buffer, which comes where its last part is, surrounds others.
///
/// While it lives, [trimming](crate::Log::trim) leaves what it has not given yet. After an error it goes on: behind the
/// damage, or where the log begins.
#[derive(Debug)]
pub struct Scan {
    origin: Origin,
    manifest: Arc<Manifest>,
    forward: Forward<File>,
    /// Records that end here or before are passed over.
    from: Lsn,
    position: Lsn,
    to: Option<Lsn>,
    /// Where the last batch ends that is read; `None` until the first one is.
    end: Option<u64>,
    /// Whether the first batch was found.
    is_located: bool,
    /// Where the log began when the newest batch was read.
    first: u64,
    pin: Pin,
    voids: Voids,
    /// What is wrong with the range; said first.
    refusal: Option<Error>,
}

/// The limits of a range in which a record lies if its end does.
fn limits(range: &impl RangeBounds<Lsn>) -> (Option<Lsn>, Option<Lsn>) {
    let from = match range.start_bound() {
        Bound::Unbounded => None,
        // What ends there is not in it, also if it is included.
        Bound::Included(from) | Bound::Excluded(from) => Some(*from),
    };
    let to = match range.end_bound() {
        Bound::Unbounded => None,
        Bound::Included(to) | Bound::Excluded(to) => Some(*to),
    };
    (from, to)
}

impl Scan {
    pub(crate) fn new(origin: Origin, range: &impl RangeBounds<Lsn>) -> Self {
        let (asked, to) = limits(range);
        let (first, hold) = origin.hold(asked);
        let from = asked.unwrap_or(first).max(first);
        let refusal = (asked.is_some_and(|asked| asked < first)).then_some(Error::Trimmed { first });
        let (manifest, forward) = (origin.manifest(), Forward::new(origin.max_record(), 0, AHEAD));
        Self {
            origin,
            manifest,
            forward,
            from,
            position: from,
            to,
            end: None,
            is_located: false,
            first: first.get(),
            pin: Pin::new(hold),
            voids: Voids::default(),
            refusal,
        }
    }

    /// Returns the next record; `None`: there is no other one in the range. Passes over gaps: see
    /// [`next_item`](Self::next_item).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`]; the next call goes on behind it. [`Error::Trimmed`] if the range begins before the log; the
    /// next call goes on where the log begins. [`Error::NotAppended`] if the range is not in the log,
    /// [`Error::InsideRecord`] if it begins inside of a record.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.step()? {
                None => return Ok(None),
                Some(Shown::Record) => return Ok(Some(self.forward.record())),
                Some(_) => {}
            }
        }
    }

    /// Returns the next record, or the next range of damage that was accepted, by
    /// [`OnDamage::Skip`](crate::recovery::OnDamage::Skip), when the log was opened.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.step()?.map(|shown| self.forward.item(shown)))
    }

    /// Calls `each` for every record that is left, or until it breaks. Returns where the scan is then: see
    /// [`position`](Self::position).
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn for_each(mut self, mut each: impl FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Lsn, Error> {
        while let Some(record) = self.next()? {
            if each(record).is_break() {
                break;
            }
        }
        Ok(self.position)
    }

    /// Goes on with the first record that ends behind `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Trimmed`] if the log begins behind it, and [`Error::NotAppended`] if the scan ends before it; the scan
    /// stays where it is.
    pub fn seek(&mut self, from: Lsn) -> Result<(), Error> {
        self.check()?;
        self.refusal = None;
        let (end, first) = (self.begin()?, Lsn::new(self.origin.first()));
        if from < first {
            return Err(Error::Trimmed { first });
        }
        if from > behind_header(end) {
            return Err(Error::NotAppended { address: from, end: Lsn::new(end) });
        }
        (self.from, self.position) = (from, from);
        self.locate(end)
    }

    /// Behind the record that was given last; of a group, if all of it was given. A scan from here on gives the others.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The same range, the last record first.
    #[must_use]
    pub fn rev(mut self) -> ScanRev {
        self.forward.go_backwards();
        ScanRev::new(self)
    }

    /// Calls `each` for every record that is left, in several threads, one segment each at a time: in the order of the
    /// log inside of a segment, and in any order otherwise. A record is in the segment in which it ends.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next): the one at the lowest address. `each` may have been called for records behind it.
    ///
    /// # Panics
    ///
    /// If `each` does.
    pub fn in_parallel(mut self, threads: usize, each: impl Fn(Record<'_>) + Sync) -> Result<(), Error> {
        self.check()?;
        let (size, end) = (self.segment_size(), self.begin()?);
        let (from, to) = (self.from, self.to.unwrap_or(Lsn::new(end)));
        let next = AtomicU64::new(from.get() / size);
        let first_error = Mutex::new(None);
        let work = || {
            loop {
                let segment = next.fetch_add(1, Ordering::Relaxed);
                let start = from.max(Lsn::new(segment.saturating_mul(size)));
                if start >= to || first_error.lock().is_some() {
                    return;
                }
                let part = start..to.min(Lsn::new((segment + 1) * size));
                let scan = Self::new(self.origin.clone(), &part);
                let done = scan.for_each(|record| {
                    each(record);
                    ControlFlow::Continue(())
                });
                if let Err(error) = done {
                    let mut first = first_error.lock();
                    if first.as_ref().is_none_or(|(earlier, _)| segment < *earlier) {
                        *first = Some((segment, error));
                    }
                }
            }
        };
        thread::scope(|scope| {
            let workers = (1..threads.max(1)).map(|_| scope.spawn(work)).collect::<Vec<_>>();
            work();
            workers.into_iter().for_each(|worker| {
                if let Err(panic) = worker.join() {
                    resume_unwind(panic);
                }
            });
        });
        first_error.lock().take().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.origin.check()
    }

    pub(super) fn from(&self) -> Lsn {
        self.from
    }

    pub(super) fn segment_size(&self) -> u64 {
        self.manifest.segment_size
    }

    /// Where the batches begin in the segment at `start`, up to `end`.
    pub(super) fn batches(&mut self, start: u64, end: u64) -> Result<Vec<u64>, Error> {
        Ok(self.forward.batches(&self.origin.files(&self.manifest), start, end)?)
    }

    pub(super) fn seek_batch(&mut self, batch: u64) {
        self.forward.seek(batch);
    }

    pub(super) fn advance_to(&mut self, end: u64) -> Result<Option<Event>, Error> {
        let files =
            Files { directory: self.origin.directory(), manifest: &self.manifest, first: self.first, durable: end };
        let event = self.forward.advance(&files, end);
        if self.pin.advance(&self.forward, self.position) {
            self.first = self.origin.first();
        }
        event.map_err(|problem| self.origin.explain(problem))
    }

    pub(super) fn record(&self) -> Record<'_> {
        self.forward.record()
    }

    /// Whether the record that was met is in the range, and neither trimmed nor void.
    pub(super) fn shows(&mut self) -> Result<bool, Error> {
        let record = self.forward.met();
        if record.end <= self.from || self.to.is_some_and(|to| record.end > to) {
            return Ok(false);
        }
        if record.lsn.get() < self.first {
            return Ok(false);
        }
        if record.is_whole && record.lsn < self.from {
            return Err(Error::InsideRecord { address: self.from, record: record.lsn..record.end });
        }
        Ok(self.voids.truncation_of(&self.origin, record.lsn).is_none())
    }

    /// Where the last batch ends that is read.
    pub(super) fn begin(&mut self) -> Result<u64, Error> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        if let Some(end) = self.end {
            return Ok(end);
        }
        let end = self.origin.durable_upto(self.to)?;
        if self.from > behind_header(end) {
            return Err(Error::NotAppended { address: self.from, end: Lsn::new(end) });
        }
        self.end = Some(end);
        Ok(end)
    }

    fn locate(&mut self, end: u64) -> Result<(), Error> {
        let at = self.forward.locate(&self.origin.files(&self.manifest), self.from.get(), end)?;
        self.forward.seek(at);
        self.is_located = true;
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Shown>, Error> {
        self.check()?;
        let end = self.begin()?;
        if !self.is_located {
            self.locate(end)?;
        }
        loop {
            match self.advance_to(end) {
                Ok(None) => return Ok(None),
                Ok(Some(Event::Truncation { .. })) => {}
                Ok(Some(Event::Gap(gap))) => {
                    if gap.end > self.from {
                        return Ok(Some(Shown::Gap(gap)));
                    }
                }
                Ok(Some(Event::Record)) => {
                    let record = self.forward.met();
                    if self.to.is_some_and(|to| record.end > to) {
                        // No later one ends before it.
                        self.forward.seek(end);
                        return Ok(None);
                    }
                    let (shows, first) = (self.shows(), Lsn::new(self.first));
                    if record.lsn < first && self.position < first {
                        return self.trimmed(first, end);
                    }
                    if record.is_last {
                        self.position = self.position.max(record.end);
                    }
                    if shows? {
                        return Ok(Some(Shown::Record));
                    }
                }
                Err(Error::Trimmed { first }) => return self.trimmed(first, end),
                Err(error) => return Err(error),
            }
        }
    }

    /// What comes next is trimmed. It goes on where the log begins.
    fn trimmed(&mut self, first: Lsn, end: u64) -> Result<Option<Shown>, Error> {
        (self.from, self.position) = (first, first);
        self.locate(end)?;
        Err(Error::Trimmed { first })
    }
}
