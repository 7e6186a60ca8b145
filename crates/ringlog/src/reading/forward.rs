//! From batch to batch through the files of a log, and from record to record.

use core::ops::Range;

use buffer_ring::Peek;

use super::batch::{AHEAD, Bad, BatchReader};
use super::records::{Assembler, Located, Piece, Trouble};
use crate::Lsn;
use crate::directory::{AnyDirectory, Directory};
use crate::error::OpenError;
use crate::format::{BLOCK, Gap, HEADER_LEN, Manifest, RECORD_HEADER_LEN, u16_at};
use crate::log::{Error, Log};
use crate::recovery::{Content, Item, Record};
use crate::segment::place;

/// Where batches are read.
#[derive(Debug)]
pub(crate) struct Files<'a, D> {
    pub(crate) directory: &'a D,
    pub(crate) manifest: &'a Manifest,
    /// Where the log begins. Of a record that begins before, no part is looked for.
    pub(crate) first: u64,
    /// Where the last batch ends that is known to be in them.
    pub(crate) durable: u64,
}

/// What a reader meets, in the order of the log.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is in the reader.
    Record,
    /// The records from `from` up to `at` are void.
    Truncation { from: Lsn, at: Lsn },
    /// Damage that was accepted.
    Gap(Range<Lsn>),
}

/// What a reader hands out.
#[derive(Debug)]
pub(super) enum Shown {
    Record,
    Gap(Range<Lsn>),
    Truncated { from: Lsn },
}

/// Why a reader cannot give what comes next. It goes on behind it.
#[derive(Debug)]
pub(crate) enum Problem {
    Log(OpenError),
    /// A batch that was accepted once is not as it was.
    Damaged {
        range: Range<Lsn>,
        content: Content,
    },
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

/// How a batch is linked with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    number: u64,
    previous: u64,
}

/// A batch, in one of two places.
#[derive(Clone, Copy, Debug)]
enum Current {
    /// In the window of what reads batches: looked up once, not for each record.
    Read { start: usize, end: usize },
    /// In the ring; `next` is where the batch behind it begins, if no more comes to this one.
    Staged { next: Option<u64> },
}

impl Current {
    /// The bytes that hold records.
    fn bytes<'a, F>(&self, batches: &'a BatchReader<F>, staged: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Read { start, end } => &batches.window()[*start..*end],
            Self::Staged { .. } => staged,
        }
    }
}

/// What is in memory of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staged {
    /// More bytes than before.
    More,
    /// No more, and no more in a file either.
    NotYet,
    /// A thread is just writing there.
    Writing,
    /// It is in its file.
    Elsewhere,
}

/// Reads a log forward.
#[derive(Debug)]
pub(crate) struct Forward<F> {
    batches: BatchReader<F>,
    records: Assembler,
    max_record: usize,
    /// The batch whose records are being handed out.
    current: Option<Current>,
    /// What was staged in it, if it is in memory.
    staged: Vec<u8>,
    /// Where the next batch begins, and what it must be, if that is known.
    next: u64,
    expected: Option<Link>,
    /// The record that the next batch is read for: those before are passed over.
    wanted: Option<Lsn>,
    /// Whether batches are read against the order of the log: then a record is looked for where it ends only.
    is_backwards: bool,
}

impl<F> Forward<F> {
    /// Begins with the batch at `next`, and reads so many bytes at once.
    pub(crate) fn new(max_record: usize, next: u64, ahead: usize) -> Self {
        let (batches, records) = (BatchReader::new(ahead), Assembler::new(max_record));
        let (current, staged, expected, wanted) = (None, Vec::new(), None, None);
        Self { batches, records, max_record, current, staged, next, expected, wanted, is_backwards: false }
    }

    /// Whether the batch that was read last holds the record at `at`.
    pub(crate) fn has_read(&self, at: Lsn) -> bool {
        self.batches.verified(at.get()).is_some()
    }

    /// Keeps no file open.
    pub(crate) fn close(&mut self) {
        self.batches.close();
    }

    /// Where the next batch begins.
    pub(crate) fn next_batch(&self) -> u64 {
        self.next
    }

    /// Whether parts of a record that begins there were met, and not the last one.
    pub(crate) fn is_open(&self, first: Lsn) -> bool {
        self.records.is_open(first.get())
    }

    /// The record that was met last, without its bytes.
    #[inline]
    pub(crate) fn met(&self) -> Located {
        self.records.met()
    }

    /// The record that was met last.
    pub(crate) fn record(&self) -> Record<'_> {
        let Located { lsn, end, kind, .. } = self.records.met();
        Record { lsn, end, kind, payload: self.records.payload(self.batch()) }
    }

    /// The same, or what else was met.
    pub(super) fn item(&self, shown: Shown) -> Item<'_> {
        match shown {
            Shown::Record => Item::Record(self.record()),
            Shown::Gap(range) => Item::Gap(range),
            Shown::Truncated { from } => Item::Truncated { from },
        }
    }

    /// The bytes of the batch that hold records.
    fn batch(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |current| current.bytes(&self.batches, &self.staged))
    }

    /// Behind what a reader needs that goes on at `position`.
    pub(crate) fn needed(&self, position: Lsn) -> Lsn {
        self.records.lowest_open().map_or(position, |first| position.min(Lsn::new(first)))
    }

    /// Batches will be read against the order of the log.
    pub(super) fn go_backwards(&mut self) {
        self.is_backwards = true;
    }

    /// Goes on with the batch at `next`.
    pub(crate) fn seek(&mut self, next: u64) {
        (self.current, self.next, self.expected, self.wanted) = (None, next, None, None);
        self.records.forget();
    }

    /// Goes on with the record at `at` of the batch at `base`, or the first one behind.
    pub(crate) fn seek_record(&mut self, base: u64, at: Lsn) {
        self.seek(base);
        self.wanted = Some(at);
    }

    /// Goes on to the next record, gap or truncation of all batches below `end`, which are in files.
    pub(crate) fn advance<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
        end: u64,
    ) -> Result<Option<Event>, Problem> {
        loop {
            let met = match self.within_batch(files)? {
                None if self.next >= end => return Ok(None),
                None => self.next_of_file(files, end)?,
                met => met,
            };
            if met.is_some() {
                return Ok(met);
            }
        }
    }

    /// Goes on to the next record or truncation of the batch that is being read.
    pub(super) fn within_batch<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
    ) -> Result<Option<Event>, Problem> {
        while let Some(current) = &self.current {
            match self.records.next(current.bytes(&self.batches, &self.staged)) {
                Ok(Some(Piece::Record)) => return Ok(Some(Event::Record)),
                Ok(Some(Piece::Truncation { from, at })) => return Ok(Some(Event::Truncation { from, at })),
                Ok(Some(Piece::Missed { first, is_last: false })) if self.is_backwards => self.records.ignore(first),
                Ok(Some(Piece::Missed { first, .. })) => {
                    let upto = self.records.base();
                    self.fetch(files, first, upto)?;
                }
                Ok(None) => match *current {
                    Current::Staged { next: None } => return Ok(None),
                    Current::Staged { next: Some(next) } => {
                        let previous = self.records.base();
                        self.expected = self.expected.map(|Link { number, .. }| Link { number: number + 1, previous });
                        (self.current, self.next) = (None, next);
                    }
                    Current::Read { .. } => self.current = None,
                },
                Err(Trouble::TooLong { address, len }) => {
                    return Err(OpenError::RecordTooLong { address, len, max: self.max_record }.into());
                }
                Err(Trouble::Bad((address, refusal))) => {
                    self.current = None;
                    let (file, _) = place(address, files.manifest.segment_size);
                    return Err(OpenError::Record { file, address, refusal }.into());
                }
            }
        }
        Ok(None)
    }

    /// Goes on with the next batch, which is in its file below `end`, or over a gap.
    pub(super) fn next_of_file<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
        end: u64,
    ) -> Result<Option<Event>, Problem> {
        let at = self.next;
        if let Some(gap) = gap_at(files.manifest, at) {
            self.seek(gap.end);
            self.expected = Some(Link { number: gap.number, previous: gap.previous });
            return Ok(Some(Event::Gap(Lsn::new(gap.start)..Lsn::new(gap.end))));
        }
        self.load(files, at, end).map(|()| None)
    }

    /// Goes on with what is staged in the batch that is being read, or in the next one.
    pub(super) fn load_staged(&mut self, log: &Log, files: &Files<'_, AnyDirectory>) -> Result<Staged, Error> {
        let base = if self.current.is_some() { self.records.base() } else { self.next };
        if self.current.is_none() {
            self.staged.clear();
        }
        let known = self.staged.len();
        match log.peek(base, &mut self.staged)? {
            Peek::Bytes { next } => {
                if self.current.is_none() {
                    self.records.begin(base, files.manifest.newest_epoch().epoch);
                }
                self.current = Some(Current::Staged { next });
                let is_more = self.staged.len() > known || next.is_some();
                Ok(if is_more { Staged::More } else { Staged::NotYet })
            }
            Peek::NotBegun if base >= files.durable => Ok(Staged::NotYet),
            Peek::Writing => Ok(Staged::Writing),
            _ => {
                // What of it was read from memory is passed over.
                (self.current, self.next) = (None, base);
                Ok(Staged::Elsewhere)
            }
        }
    }

    fn load<D: Directory<File = F>>(&mut self, files: &Files<'_, D>, at: u64, end: u64) -> Result<(), Problem> {
        let Files { directory, manifest, .. } = *files;
        let bad = match self.batches.load(directory, manifest, at, end)? {
            Ok(header) => {
                let is_expected = Link { number: header.number, previous: header.previous };
                if self.expected.is_none_or(|expected| expected == is_expected) {
                    self.records.begin(at, header.epoch);
                    let Range { start, end } = self.batches.payload(&header);
                    if let Some(wanted) = self.wanted.take() {
                        self.records.skip_to(&self.batches.window()[start..end], wanted.get());
                    }
                    self.next = manifest.behind(&header);
                    self.expected = Some(Link { number: header.number + 1, previous: at });
                    self.current = Some(Current::Read { start, end });
                    return Ok(());
                }
                Bad {
                    content: Content::StaleBatch { number: header.number, epoch: header.epoch },
                    next: Some(manifest.behind(&header)),
                }
            }
            Err(bad) => bad,
        };
        let next = match bad.next {
            Some(next) => next,
            None => self.next_header(files, at + BLOCK as u64, end)?,
        };
        (self.next, self.expected) = (next, None);
        Err(Problem::Damaged { range: Lsn::new(at)..Lsn::new(next), content: bad.content })
    }

    /// The next block from `at` on in its segment that begins with a batch header which belongs there, or `end`.
    fn next_header<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
        at: u64,
        end: u64,
    ) -> Result<u64, OpenError> {
        let segment_end = at.next_multiple_of(files.manifest.segment_size).min(end);
        for block in (at..segment_end).step_by(BLOCK) {
            if self.batches.header(files.directory, files.manifest, block)?.is_some() {
                return Ok(block);
            }
        }
        Ok(segment_end)
    }

    /// Where to begin, to meet all records that end behind `from`: the batch that holds it, or one before.
    pub(crate) fn locate<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
        from: u64,
        end: u64,
    ) -> Result<u64, OpenError> {
        let Files { directory, manifest, first, .. } = *files;
        let start = |address: u64| address / manifest.segment_size * manifest.segment_size;
        // At the end, with the last batch: what is behind it is known from there.
        let from = from.min(end.saturating_sub(1)).max(first);
        if from >= end {
            return Ok(end);
        }
        if let Some(base) = self.batches.verified(from) {
            return Ok(base);
        }
        let mut at = start(from);
        // A record's header leads there; other bytes may seem to, and batch headers cannot be imitated.
        let word: [u8; RECORD_HEADER_LEN] = self.batches.peek(directory, manifest, from)?;
        let base = (from / BLOCK as u64).checked_sub(u64::from(u16_at(&word, 4))).map(|block| block * BLOCK as u64);
        if let Some(base) = base.filter(|base| *base >= at)
            && let Some(header) = self.batches.header(directory, manifest, base)?
            && (base + HEADER_LEN as u64..manifest.behind(&header)).contains(&from)
        {
            return Ok(base);
        }
        loop {
            let behind = self.behind(files, at, end)?;
            if behind > from || behind >= end {
                return Ok(at);
            }
            at = behind;
        }
    }

    /// Where the batches begin in the segment at `start`, up to `end`; and gaps, and what is no batch.
    pub(super) fn batches<D: Directory<File = F>>(
        &mut self,
        files: &Files<'_, D>,
        start: u64,
        end: u64,
    ) -> Result<Vec<u64>, OpenError> {
        let end = end.min(start + files.manifest.segment_size);
        let (mut batches, mut at) = (Vec::new(), start);
        while at < end {
            batches.push(at);
            at = self.behind(files, at, end)?;
        }
        Ok(batches)
    }

    /// Where the next batch is behind what stands at `at`: a batch, a gap, or what is no batch.
    fn behind<D: Directory<File = F>>(&mut self, files: &Files<'_, D>, at: u64, end: u64) -> Result<u64, OpenError> {
        let Files { directory, manifest, .. } = *files;
        if let Some(gap) = gap_at(manifest, at) {
            return Ok(gap.end);
        }
        match self.batches.header(directory, manifest, at)? {
            Some(header) => Ok(manifest.behind(&header)),
            None => self.next_header(files, at + BLOCK as u64, end),
        }
    }

    /// Looks for the parts of the record that begins at `first` in the batches before the one at `upto`.
    fn fetch<D: Directory<File = F>>(&mut self, files: &Files<'_, D>, first: u64, upto: u64) -> Result<(), Problem> {
        // Unless they are found.
        self.records.ignore(first);
        if first < files.first {
            return Ok(());
        }
        // A reader begins with a batch that is in its file, or behind one; so what is not there yet held no part.
        let upto = upto.min(files.durable);
        let mut earlier = Self::new(self.max_record, 0, AHEAD);
        earlier.next = earlier.locate(files, first, upto)?;
        while earlier.next < upto {
            if gap_at(files.manifest, earlier.next).is_some() {
                return Ok(());
            }
            match earlier.load(files, earlier.next, upto) {
                // What is missing is seen when the last part is met.
                Err(Problem::Damaged { .. }) => continue,
                loaded => loaded?,
            }
            let Some(current) = &earlier.current else { return Ok(()) };
            loop {
                match earlier.records.next(current.bytes(&earlier.batches, &earlier.staged)) {
                    Ok(Some(Piece::Missed { first, .. })) => earlier.records.ignore(first),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        self.records.adopt(&mut earlier.records, first);
        Ok(())
    }
}

fn gap_at(manifest: &Manifest, at: u64) -> Option<&Gap> {
    manifest.gaps.iter().find(|gap| gap.range().contains(&at))
}
