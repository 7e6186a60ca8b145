//! The records of a range, against the order of the log.

use core::ops::Range;

use super::forward::Event;
use super::scan::Scan;
use crate::Lsn;
use crate::log::Error;
use crate::recovery::{Item, Record};

/// The records of a range, the last one first. Made by [`Scan::rev`].
///
/// It gives exactly what the scan would have given, in the opposite order. It reads a batch at a time, and needs the
/// memory of its records.
#[derive(Debug)]
pub struct ScanRev {
    scan: Scan,
    /// Batches that are left of the segment that is being read, in the order of the log.
    batches: Vec<u64>,
    /// Where that segment begins, and where the last batch ended that was read; `None`: nothing was read.
    at: Option<(u64, u64)>,
    /// What was met in the newest batch, in the order of the log.
    met: Vec<Result<Met, Error>>,
    /// The payloads of that.
    bytes: Vec<u8>,
    /// Where the gap begins that was met last: it may cover several segments.
    gap: Option<Lsn>,
}

#[derive(Debug)]
enum Met {
    Record { lsn: Lsn, end: Lsn, kind: u8, payload: Range<usize> },
    Gap(Range<Lsn>),
}

impl ScanRev {
    pub(super) fn new(scan: Scan) -> Self {
        Self { scan, batches: Vec::new(), at: None, met: Vec::new(), bytes: Vec::new(), gap: None }
    }

    /// Returns the record before the one that was given last; `None`: there is none in the range.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::next`].
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.step()? {
                None => return Ok(None),
                Some(Met::Gap(_)) => {}
                Some(Met::Record { lsn, end, kind, payload }) => {
                    return Ok(Some(Record { lsn, end, kind, payload: &self.bytes[payload] }));
                }
            }
        }
    }

    /// Returns the record or the gap before the one that was given last.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::next`].
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.step()?.map(|met| match met {
            Met::Gap(range) => Item::Gap(range),
            Met::Record { lsn, end, kind, payload } => {
                Item::Record(Record { lsn, end, kind, payload: &self.bytes[payload] })
            }
        }))
    }

    fn step(&mut self) -> Result<Option<Met>, Error> {
        loop {
            self.scan.check()?;
            if let Some(met) = self.met.pop() {
                return met.map(Some);
            }
            let size = self.scan.segment_size();
            let (segment, above) = match self.at {
                Some(at) => at,
                None => {
                    let end = self.scan.begin()?;
                    (end.next_multiple_of(size), end)
                }
            };
            if above <= self.scan.from().get() {
                return Ok(None);
            }
            let Some(batch) = self.batches.pop() else {
                let Some(before) = segment.checked_sub(size) else { return Ok(None) };
                self.batches = self.scan.batches(before, above)?;
                self.at = Some((before, above));
                continue;
            };
            self.read(batch, above);
            self.at = Some((segment, batch));
        }
    }

    /// Reads what is between `batch` and `end`.
    fn read(&mut self, batch: u64, end: u64) {
        self.bytes.clear();
        self.scan.seek_batch(batch);
        loop {
            match self.scan.advance_to(end) {
                Ok(None) => return,
                Ok(Some(Event::Truncation { .. })) => {}
                Ok(Some(Event::Gap(gap))) => {
                    if gap.end > self.scan.from() && self.gap.replace(gap.start) != Some(gap.start) {
                        self.met.push(Ok(Met::Gap(gap)));
                    }
                }
                Ok(Some(Event::Record)) => match self.scan.shows() {
                    Ok(false) => {}
                    Ok(true) => {
                        let record = self.scan.record();
                        let (lsn, end, kind, start) = (record.lsn, record.end, record.kind, self.bytes.len());
                        self.bytes.extend_from_slice(record.payload);
                        self.met.push(Ok(Met::Record { lsn, end, kind, payload: start..self.bytes.len() }));
                    }
                    Err(error) => self.met.push(Err(error)),
                },
                Err(error) => {
                    let is_over = matches!(error, Error::Trimmed { .. });
                    self.met.push(Err(error));
                    if is_over {
                        return;
                    }
                }
            }
        }
    }
}
