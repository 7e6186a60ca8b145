//! Sealing, submitting, syncing, rotating, trimming, closing: in the order that the rules require.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::builder::BatchBuilder;
use crate::directory::{Directory, MemoryDirectory};
use crate::error::OpenError;
use crate::format::{
    BatchHeader, BatchInfo, FirstBatch, Framing, HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, trailer_len,
};
use crate::recovery::{Opened, Recover};
use crate::segment::{ensure, ensure_whole, file_name, place, recycle, remove};

/// A write that is not durable yet.
#[derive(Clone, Debug)]
pub struct Flight {
    id: u64,
    /// Where its batch begins.
    pub base: u64,
    /// Where the next batch begins.
    pub next: u64,
    /// It has completed.
    pub written: bool,
    durably: bool,
}

/// A batch as it was handed to the device.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// Where it begins.
    pub base: u64,
    /// Where the next one begins.
    pub next: u64,
    /// All of it.
    pub bytes: Vec<u8>,
    /// The watermark that it carries.
    pub durable: u64,
}

#[derive(Clone, Debug)]
struct Syncing {
    covers: u64,
    segments: VecDeque<u64>,
}

/// A log that is written batch by batch.
#[derive(Debug)]
pub struct ReferenceWriter {
    directory: MemoryDirectory,
    opened: Opened<MemoryDirectory>,
    framing: Framing,
    buffer: usize,
    next: u64,
    previous: u64,
    generation: u64,
    durable: u64,
    flights: VecDeque<Flight>,
    syncing: Option<Syncing>,
    /// Segments up to this one are ready.
    ready: u64,
    /// Trimmed segments to be used again.
    pool: Vec<String>,
    /// Whether segments are whole files before they are used.
    whole: bool,
}

impl ReferenceWriter {
    /// Opens the log in `directory`, with buffers of `buffer` bytes.
    ///
    /// # Errors
    ///
    /// As [`Recover::open`].
    pub fn open(directory: &MemoryDirectory, how: Recover, buffer: usize) -> Result<Self, OpenError> {
        let opened = how.open(directory)?;
        let report = opened.report();
        let (next, previous) = (report.end.get(), report.previous);
        Ok(Self {
            directory: directory.clone(),
            framing: opened.framing(),
            buffer,
            next,
            previous,
            generation: 0,
            durable: next,
            flights: VecDeque::new(),
            syncing: None,
            ready: next / report.segment_size,
            pool: Vec::new(),
            whole: false,
            opened,
        })
    }

    /// Makes the newest segment a whole file, and all that come.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn make_whole(&mut self) -> Result<(), OpenError> {
        self.whole = true;
        self.ensure(&self.opened.segment_header(self.ready))
    }

    fn ensure(&self, header: &SegmentHeader) -> Result<(), OpenError> {
        if self.whole { ensure_whole(&self.directory, header, 0) } else { ensure(&self.directory, header) }
    }

    /// Returns what opening has found, and what `MANIFEST` says.
    #[must_use]
    pub fn opened(&self) -> &Opened<MemoryDirectory> {
        &self.opened
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &MemoryDirectory {
        &self.directory
    }

    /// Returns where the next batch begins.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the durable watermark.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Returns the writes that are not durable.
    #[must_use]
    pub fn flights(&self) -> &VecDeque<Flight> {
        &self.flights
    }

    fn size(&self) -> u64 {
        self.opened.manifest().segment_size
    }

    fn segment_end(&self, address: u64) -> u64 {
        (address / self.size() + 1) * self.size()
    }

    /// Whether a whole buffer does not fit into the rest of the segment: right after a cut. Then the next batch must
    /// be an empty one.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        !self.next.is_multiple_of(self.size()) && self.next + self.buffer as u64 > self.segment_end(self.next)
    }

    /// A batch to be filled.
    #[must_use]
    pub fn batch(&self) -> BatchBuilder {
        BatchBuilder::new(self.next, if self.is_tight() { 4096 } else { self.buffer })
    }

    /// Makes the next segment ready: a trimmed one, or a new one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn prepare_next(&mut self) -> Result<(), OpenError> {
        let number = self.ready + 1;
        let header = self.opened.segment_header(number);
        let is_there = self.directory.open(&header.file_name(), true).is_ok();
        if !is_there && let Some(trimmed) = self.pool.first().cloned() {
            recycle(&self.directory, &trimmed, &header)?;
            self.pool.remove(0);
        }
        self.ensure(&header)?;
        self.ready = number;
        Ok(())
    }

    /// Seals a batch and hands it to the device. `roll`: the next one begins a segment. `durably`: as a write that is
    /// durable when it completes, if nothing before it is still in doubt.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn submit(&mut self, batch: BatchBuilder, roll: bool, durably: bool) -> Result<Submitted, OpenError> {
        let (base, end) = (self.next, self.segment_end(self.next));
        let mut bytes = batch.finish();
        let payload_len = (bytes.len() - HEADER_LEN) as u32;
        bytes.resize(bytes.len() + trailer_len(payload_len), 0);
        let behind = base + bytes.len() as u64;
        let last = roll || behind + self.buffer as u64 > end;
        if last && self.ready == base / self.size() {
            self.prepare_next()?;
        }
        let next_base = if last { end } else { behind };
        let info = BatchInfo {
            base,
            generation: self.generation,
            previous: self.previous,
            next_base,
            last,
            payload_len,
            durable: self.durable,
        };
        self.framing.seal(&mut bytes, info);
        let (name, at) = place(base, self.size());
        let file = self.directory.open(&name, true).map_err(OpenError::io("open", &name))?;
        let id = self.directory.begin_write(&file, &bytes, at).map_err(OpenError::io("write", &name))?;
        let durably = durably && self.flights.is_empty() && self.syncing.is_none();
        self.flights.push_back(Flight { id, base, next: next_base, written: false, durably });
        (self.previous, self.next) = (base, next_base);
        self.generation += 1;
        Ok(Submitted { base, next: next_base, bytes, durable: info.durable })
    }

    /// Submits an empty batch.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn submit_empty(&mut self, roll: bool) -> Result<Submitted, OpenError> {
        self.submit(BatchBuilder::new(self.next, 4096), roll, false)
    }

    /// Completes a write: the one at this position among those that are not durable.
    pub fn complete(&mut self, position: usize) {
        let flight = &mut self.flights[position];
        flight.written = true;
        let (id, durably, next) = (flight.id, flight.durably, flight.next);
        self.directory.complete(id, durably);
        if durably {
            self.advance(next);
        }
    }

    fn advance(&mut self, to: u64) {
        while self.flights.pop_front_if(|flight| flight.next <= to && flight.written).is_some() {}
        self.durable = self.durable.max(to);
    }

    /// Begins a sync of what is written contiguously, unless one is in flight.
    pub fn sync_begin(&mut self) {
        let written: Vec<_> = self.flights.iter().take_while(|flight| flight.written).collect();
        let Some(covers) = written.last().map(|flight| flight.next) else { return };
        if self.syncing.is_some() || self.flights.iter().any(|flight| flight.durably) {
            return;
        }
        let segments: BTreeSet<_> = written.iter().map(|flight| flight.base / self.size()).collect();
        self.syncing = Some(Syncing { covers, segments: segments.into_iter().collect() });
    }

    /// Syncs one file of the sync in flight; behind the last one the watermark moves.
    ///
    /// Writes that complete in between are covered by what the memory directory syncs, but not by the watermark.
    ///
    /// # Errors
    ///
    /// What the directory reports.
    pub fn sync_step(&mut self) -> io::Result<()> {
        let Some(mut syncing) = self.syncing.take() else { return Ok(()) };
        if let Some(segment) = syncing.segments.pop_front() {
            let file = self.directory.open(&file_name(segment * self.size()), true)?;
            self.directory.sync_file(&file)?;
        }
        if syncing.segments.is_empty() {
            self.advance(syncing.covers);
        } else {
            self.syncing = Some(syncing);
        }
        Ok(())
    }

    /// Completes and syncs everything.
    ///
    /// # Errors
    ///
    /// What the directory reports.
    pub fn settle(&mut self) -> io::Result<()> {
        while self.syncing.is_some() {
            self.sync_step()?;
        }
        while let Some(position) = self.flights.iter().rposition(|flight| !flight.written) {
            self.complete(position);
        }
        self.sync_begin();
        while self.syncing.is_some() {
            self.sync_step()?;
        }
        Ok(())
    }

    /// Trims to `to`, which is at most the watermark. Segments that are free then are removed, or kept to be used
    /// again.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn trim(&mut self, to: u64, keep_files: bool) -> Result<(), OpenError> {
        assert!(to <= self.durable, "a trim point above the watermark");
        let manifest = self.opened.manifest();
        let (segment, mut first) = (to / self.size(), manifest.first);
        if segment != manifest.first_segment() {
            let name = file_name(segment * self.size());
            let io = |operation| OpenError::io(operation, &name);
            let file = self.directory.open(&name, false).map_err(io("open"))?;
            let mut bytes = [0; HEADER_LEN];
            self.directory.read_at(&file, &mut bytes, SEGMENT_HEADER_LEN as u64).map_err(io("read"))?;
            let address = segment * self.size();
            // A segment that begins inside an accepted gap, or at the end of the log, has no first batch.
            let Ok(head) = BatchHeader::decode_at(&bytes, &manifest.key, manifest.log_id, address) else {
                return Ok(());
            };
            first = FirstBatch { number: head.number, previous: head.previous, epoch: Some((head.epoch, head.salt)) };
        }
        let free = self.opened.trim(&self.directory, to, first, self.durable)?;
        let free: Vec<_> = free.into_iter().filter(|name| !self.pool.contains(name)).collect();
        if keep_files {
            self.pool.extend(free);
            Ok(())
        } else {
            remove(&self.directory, &free)
        }
    }

    /// Makes everything durable and records a clean close.
    ///
    /// An empty batch before it ends the window in which damage to the newest batch cannot be proved.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn close(&mut self) -> Result<(), OpenError> {
        self.settle().map_err(OpenError::io("sync", "the segments"))?;
        self.opened.close(&self.directory, self.next)
    }
}
