//! What may be on a disk after a power cut, at any position of the log.
//!
//! On stable storage are the writes that had completed before a flush began that ended in success, and the synced
//! writes that have completed. The key of the file's markers is there as it was when the last flush began that
//! covered it, or as it was at any moment since. Of every other write that has arrived, each sector of 512 bytes is
//! there or not, independently of all others. Once a flush has failed, what it should have covered is never safe
//! again: the kernel may have dropped it, and the next flush does not report that.

use core::ops::Range;

use crate::log::Event;
use crate::record::Key;

pub(crate) const SECTOR: usize = 512;

/// A write that is not on stable storage as a whole.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    pub(crate) write: usize,
    pub(crate) offset: usize,
    pub(crate) bytes: &'a [u8],
    /// Sectors that are neither on stable storage nor overwritten by something that is.
    live: Vec<bool>,
    synced: bool,
    arrived: usize,
    /// When it completed.
    ended: Option<usize>,
    /// How many of its bytes were then written; unknown for one that failed.
    completed: Option<usize>,
    doubtful: bool,
}

impl Pending<'_> {
    pub(crate) fn sectors(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn sector(&self, n: usize) -> Range<usize> {
        n * SECTOR..((n + 1) * SECTOR).min(self.bytes.len())
    }

    /// Whether it may still be in flight, or has failed: then any part of it may be there, even where no completed
    /// write is lost.
    pub(crate) fn is_open(&self) -> bool {
        self.completed.is_none()
    }

    /// Whether a sector of it is in the file, as far as the disk has reported.
    pub(crate) fn has_completed(&self, sector: usize) -> bool {
        self.completed.is_some_and(|written| written == self.bytes.len() || sector < written / SECTOR)
    }

    /// Copies the live sectors that `taken` selects into `image`.
    pub(crate) fn apply(&self, image: &mut Vec<u8>, taken: impl Fn(usize) -> bool) {
        for n in (0..self.live.len()).filter(|&n| self.live[n] && taken(n)) {
            put(image, self.offset, self.bytes, self.sector(n));
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8], range: Range<usize>) {
    let end = offset + range.end;
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset + range.start..end].copy_from_slice(&bytes[range]);
}

#[derive(Debug)]
pub(crate) struct Disk<'a> {
    /// What is on stable storage.
    pub(crate) stable: Vec<u8>,
    /// In order of arrival.
    pub(crate) pending: Vec<Pending<'a>>,
    /// A flush in flight, and the writes that it will make stable.
    flushing: Vec<(usize, Vec<usize>)>,
    /// What the key of the markers may be, oldest first: there is always one, which is on stable storage.
    keys: Vec<Option<Key>>,
    failed: bool,
    now: usize,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(before: &[u8], key: Option<Key>) -> Self {
        let (pending, flushing) = (Vec::new(), Vec::new());
        Self { stable: before.to_vec(), pending, flushing, keys: vec![key], failed: false, now: 0 }
    }

    /// What the key of the markers may be after a power cut, oldest first; the last is the one that programs see.
    pub(crate) fn keys(&self) -> &[Option<Key>] {
        &self.keys
    }

    /// Takes the next event, and returns which bytes of `stable` it has changed.
    pub(crate) fn step(&mut self, event: &'a Event) -> Vec<Range<usize>> {
        self.now += 1;
        match event {
            Event::Arrived { write, offset, bytes, synced } => {
                self.pending.push(Pending {
                    write: *write,
                    offset: *offset as usize,
                    bytes,
                    live: vec![true; bytes.len().div_ceil(SECTOR)],
                    synced: *synced,
                    arrived: self.now,
                    ended: None,
                    completed: None,
                    doubtful: false,
                });
            }
            Event::Completed { write, written } => {
                let now = self.now;
                let Some(pending) = self.pending.iter_mut().find(|pending| pending.write == *write) else {
                    return Vec::new();
                };
                pending.ended = Some(now);
                pending.completed = Some(*written);
                if pending.synced {
                    return self.harden(&[*write]);
                }
            }
            Event::Failed { write } => {
                let now = self.now;
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.write == *write) {
                    pending.ended = Some(now);
                }
            }
            Event::FlushBegan { flush } => {
                let covered = self.pending.iter().filter(|pending| pending.completed.is_some() && !pending.doubtful);
                self.flushing.push((*flush, covered.map(|pending| pending.write).collect()));
            }
            Event::FlushEnded { flush, succeeded } => {
                let at = self.flushing.iter().position(|(running, _)| running == flush);
                let covered = at.map(|at| self.flushing.remove(at).1).unwrap_or_default();
                if *succeeded {
                    return self.harden(&covered);
                }
                self.failed = true;
                for pending in self.pending.iter_mut().filter(|pending| pending.completed.is_some()) {
                    pending.doubtful = true;
                }
            }
            Event::KeyChanged { key } => self.keys.push(*key),
            Event::KeySynced { key } if !self.failed => {
                let at = self.keys.iter().position(|candidate| candidate == key).unwrap_or(0);
                self.keys.drain(..at);
            }
            _ => {}
        }
        Vec::new()
    }

    /// Puts the completed parts of `writes` on stable storage.
    fn harden(&mut self, writes: &[usize]) -> Vec<Range<usize>> {
        let mut changed = Vec::new();
        for at in 0..self.pending.len() {
            let pending = &self.pending[at];
            let Some(written) = pending.completed.filter(|_| writes.contains(&pending.write) && !pending.doubtful)
            else {
                continue;
            };
            let (arrived, offset, whole) = (pending.arrived, pending.offset, pending.sectors());
            let sectors = if written == pending.bytes.len() { whole } else { written / SECTOR };
            for n in 0..sectors {
                if self.pending[at].live[n] {
                    let range = self.pending[at].sector(n);
                    put(&mut self.stable, offset, self.pending[at].bytes, range);
                    self.pending[at].live[n] = false;
                    self.supersede(arrived, offset + n * SECTOR);
                }
            }
            changed.push(offset..offset + sectors * SECTOR);
        }
        self.pending.retain(|pending| pending.live.contains(&true));
        changed
    }

    /// A write that completed before a now stable one arrived can no longer show in its sectors.
    fn supersede(&mut self, arrived: usize, address: usize) {
        for older in &mut self.pending {
            let before = older.ended.is_some_and(|ended| ended < arrived);
            if before && (older.offset..older.end()).contains(&address) {
                older.live[(address - older.offset) / SECTOR] = false;
            }
        }
    }
}
