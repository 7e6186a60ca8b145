//! Judges a crash image by both bounds.
//!
//! *Lower*: what the ring has reported to be on stable storage is there, byte for byte, at its address, and so is
//! everything that the file held before. *Upper*: every record that a scan finds had been submitted, was not refused,
//! is whole, and stands where the ring has put it; so none is there twice, and none belongs to an earlier
//! incarnation.

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::disk::SECTOR;
use crate::log::{Event, Log};
use crate::record::{BLOCK, Key, RecordId, encode, is_marker, is_preallocated, log_end, scan, zeros};

/// What is known of a record at the end.
#[derive(Debug, Default)]
struct Fate {
    submitted: usize,
    len: usize,
    start: Option<usize>,
    refused: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    /// Where this incarnation of the log begins, and how long the file was then.
    start: usize,
    found: usize,
    /// The file as it should become: what was there before, each record at its place, zeros between them.
    expected: Vec<u8>,
    fates: HashMap<RecordId, Fate>,
    /// Payloads that are no records, by start: whatever is found in them belongs to them.
    imitated: BTreeMap<usize, usize>,
    /// Whether the place of every record is known, or that it has none; if not, nothing is known of what lies between
    /// the acknowledged ones.
    complete: bool,
    now: usize,
    /// Everything below has to be as expected.
    watermark: usize,
    /// And so has this, by start: what was acknowledged beyond.
    acknowledged: BTreeMap<usize, usize>,
}

impl Oracle {
    /// For this log, of which nothing has happened yet.
    pub(crate) fn new(log: &Log) -> Result<Self, String> {
        let start = log.start as usize;
        let mut expected = if log.file_system.is_none() { log.before.clone() } else { Vec::new() };
        expected.resize(expected.len().max(start), 0);
        expected.truncate(start);
        let mut oracle = Self {
            start,
            found: log.before.len(),
            expected,
            fates: HashMap::new(),
            imitated: BTreeMap::new(),
            complete: true,
            now: 0,
            watermark: start,
            acknowledged: BTreeMap::new(),
        };
        for (now, event) in log.events.iter().enumerate() {
            oracle.learn(now, event)?;
        }
        let padded = oracle.expected.len().next_multiple_of(BLOCK);
        oracle.expected.resize(padded, 0);
        oracle.complete = oracle.fates.values().all(|fate| fate.refused || fate.start.is_some());
        Ok(oracle)
    }

    fn learn(&mut self, now: usize, event: &Event) -> Result<(), String> {
        match *event {
            Event::Submitted { record, len } => {
                let fate = Fate { submitted: now, len: len as usize, ..Fate::default() };
                if self.fates.insert(record, fate).is_some() {
                    return Err(format!("the workload has submitted {record} twice"));
                }
            }
            Event::Placed { record, start } => {
                let fate = self.fates.get_mut(&record).ok_or_else(|| format!("{record} was placed, not submitted"))?;
                fate.start = Some(start as usize);
                let bytes = encode(record, fate.len);
                self.give(start as usize, &bytes).map_err(|what| format!("{record} {what}"))?;
            }
            Event::Imitated { start, ref bytes } => {
                self.give(start as usize, bytes).map_err(|what| format!("a payload {what}"))?;
                self.imitated.insert(start as usize, start as usize + bytes.len());
            }
            Event::Refused { record } => {
                if let Some(fate) = self.fates.get_mut(&record) {
                    fate.refused = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn give(&mut self, start: usize, bytes: &[u8]) -> Result<(), String> {
        let end = start + bytes.len();
        self.expected.resize(self.expected.len().max(end), 0);
        if self.expected[start..end].iter().any(|&byte| byte != 0) {
            return Err(format!("was given {start}..{end}, and so was another"));
        }
        self.expected[start..end].copy_from_slice(bytes);
        Ok(())
    }

    /// The file as it should become.
    pub(crate) fn expected(&self) -> &[u8] {
        &self.expected
    }

    /// Whether [`expected`](Self::expected) is all that may be written.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Everything below has to be there.
    pub(crate) fn watermark(&self) -> usize {
        self.watermark
    }

    /// Where the last byte ends that has to be there.
    pub(crate) fn owed_end(&self) -> usize {
        self.acknowledged.values().copied().max().unwrap_or(0).max(self.watermark)
    }

    /// Takes the next event, and checks that `stable`, of which it has changed these parts, holds what it must by
    /// now.
    pub(crate) fn step(&mut self, event: &Event, stable: &[u8], changed: &[Range<usize>]) -> Result<(), String> {
        for range in changed {
            self.owed_within(stable, range.clone())?;
        }
        let new = self.note(event)?;
        self.compare(stable, new)
    }

    /// Takes the next event, and returns what must survive from now on.
    pub(crate) fn note(&mut self, event: &Event) -> Result<Range<usize>, String> {
        self.now += 1;
        match *event {
            Event::Watermark { address } if self.complete && address as usize > self.watermark => {
                let new = self.watermark..address as usize;
                self.expected.resize(self.expected.len().max(new.end), 0);
                self.watermark = new.end;
                self.acknowledged.retain(|_, end| *end > new.end);
                Ok(new)
            }
            Event::Acknowledged { record } => {
                let place = self.fates.get(&record).and_then(|fate| Some((fate.start?, fate.len)));
                let (start, len) = place.ok_or_else(|| format!("{record} was acknowledged, but never placed"))?;
                if start + len > self.watermark {
                    self.acknowledged.insert(start, start + len);
                }
                Ok(start..start + len)
            }
            _ => Ok(0..0),
        }
    }

    /// Judges an image that differs from stable storage, which holds what it must, in these parts.
    pub(crate) fn judge(&self, image: &[u8], differs: &[Range<usize>]) -> Result<(), String> {
        for range in differs {
            self.owed_within(image, range.clone())?;
        }
        self.nothing_invented(image, self.watermark / BLOCK * BLOCK)
    }

    /// Judges where the log would be found to end in an image whose file has one of these keys.
    pub(crate) fn judge_end(&self, image: &[u8], keys: &[Option<Key>]) -> Result<(), String> {
        let owed = self.owed_end().min(image.len());
        let last = owed.saturating_sub(1) / BLOCK * BLOCK;
        for &key in keys.iter().flatten().filter(|_| owed > 0) {
            // What lies behind matters only if the block of the last byte that must survive is a marker.
            let is_free = image.get(last..last + BLOCK).is_some_and(|block| is_marker(block, last, key));
            let end = if is_free { log_end(image, Some(key)) } else { owed };
            if end < owed {
                return Err(format!("the log would be found to end at {end}, and {owed} bytes of it must survive"));
            }
        }
        Ok(())
    }

    /// Judges an image of which nothing is known.
    pub(crate) fn judge_whole(&self, image: &[u8]) -> Result<(), String> {
        self.owed_within(image, 0..self.owed_end())?;
        self.nothing_invented(image, self.watermark / BLOCK * BLOCK)?;
        let mut found = BTreeSet::new();
        scan(image, 0, |at, _, _| {
            found.insert(at);
            Ok::<(), String>(())
        })?;
        match self.acknowledged.keys().find(|start| !found.contains(start)) {
            Some(start) => Err(format!("a scan does not find the record at {start}, which was acknowledged")),
            None => Ok(()),
        }
    }

    /// Judges the file of the log, whose blocks a file system has kept: none of them may hold anything foreign
    /// either.
    pub(crate) fn judge_file(&self, content: &[u8]) -> Result<(), String> {
        self.judge_whole(content)?;
        for (sector, at) in content.chunks(SECTOR).zip((0..).step_by(SECTOR)) {
            let expected = self.expected.get(at..at + sector.len()) == Some(sector);
            // All that is not zero of a marker is in its first sector; the rest of the block may have become log.
            let mut marker = sector.to_vec();
            marker.resize(BLOCK, 0);
            let prepared = at % BLOCK == 0 && is_preallocated(&marker, at as u64);
            if self.complete && !expected && zeros(sector) < sector.len() && !prepared {
                let head = &sector[..sector.len().min(32)];
                return Err(format!("the sector at {at} holds what was never written there: {head:02x?}"));
            }
        }
        Ok(())
    }

    fn owed_within(&self, image: &[u8], range: Range<usize>) -> Result<(), String> {
        if range.start < self.watermark {
            self.compare(image, range.start..range.end.min(self.watermark))?;
        }
        for (&start, &end) in self.acknowledged.range(..range.end).filter(|(_, end)| **end > range.start) {
            self.compare(image, start..end)?;
        }
        Ok(())
    }

    fn compare(&self, image: &[u8], range: Range<usize>) -> Result<(), String> {
        let Range { start, mut end } = range;
        if end <= self.start && image.len() >= self.found {
            // A log begins at a whole block, also behind a torn one.
            end = end.min(image.len()).max(start);
        }
        let is = image.get(start..end.min(image.len())).unwrap_or_default();
        if is == &self.expected[start..end] {
            return Ok(());
        }
        let differ = is.iter().zip(&self.expected[start..end]).position(|(is, should)| is != should);
        Err(match differ {
            Some(at) => format!("bytes {start}..{end} were reported stable, and differ at {}", start + at),
            None => format!("bytes {start}..{end} were reported stable, and the file ends at {}", image.len()),
        })
    }

    fn nothing_invented(&self, image: &[u8], from: usize) -> Result<(), String> {
        let mut unplaced = Vec::new();
        scan(image, from, |at, id, len| {
            let payload = self.imitated.range(..=at).next_back().filter(|(_, end)| **end > at);
            if payload.is_some_and(|(_, end)| at + len <= *end) && image[at..at + len] == self.expected[at..at + len] {
                return Ok(());
            }
            let fate = self.fates.get(&id).filter(|fate| fate.submitted < self.now && fate.len == len);
            let fate = fate.ok_or_else(|| format!("at {at} there is {id}, which was never submitted"))?;
            if fate.refused {
                return Err(format!("at {at} there is {id}, which was refused"));
            }
            match fate.start {
                Some(start) if start != at => Err(format!("at {at} there is {id}, whose place is {start}")),
                Some(_) if image[at..at + len] == self.expected[at..at + len] => Ok(()),
                None if !unplaced.contains(&id) && image[at..at + len] == encode(id, len) => {
                    unplaced.push(id);
                    Ok(())
                }
                _ => Err(format!("at {at} there is {id} with other bytes, or for the second time")),
            }
        })
    }
}
