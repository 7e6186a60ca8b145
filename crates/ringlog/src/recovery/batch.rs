//! One batch: its checksums, and the records in it. Recovery does both in pieces, so that batches of any length need
//! little memory, also one per thread. A reader needs the whole batch anyway, and has it checked as one slice.

use core::ops::Range;

use super::reader::{MAX_READ, SegmentReader};
use super::report::Content;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{
    BLOCK, BatchHeader, BlockSums, GROUP_ENTRY_LEN, HEADER_LEN, Metadata, Position, RECORD_HEADER_LEN, REMOVED,
    RecordHeader, RecordRefusal, RecordType, SUM_LEN, Snapshot, SnapshotEntry, is_zero, padded, u32_at, u64_at,
};
use crate::values::{MAX_VALUES, Values};
use crate::void::{self, MAX_VOIDS};

const CHUNK: usize = MAX_READ / BLOCK;

/// Checks all bytes of the batch with this header, which fits into its segment. `None`: they are right.
pub(super) fn check_bytes<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    header: &BatchHeader,
) -> Result<Option<Content>, OpenError> {
    let (layout, sums, base) = (header.layout(), BlockSums::of(header), header.address);
    let table = base + layout.table as u64;
    if !table_is_right(reader, &sums, base, table, layout.blocks)? {
        return Ok(Some(Content::BadTable));
    }
    for first in (0..layout.blocks).step_by(CHUNK) {
        let blocks = (layout.blocks - first).min(CHUNK);
        let mut expected = [0; CHUNK * SUM_LEN];
        reader.read_aside(table + (first * SUM_LEN) as u64, &mut expected[..blocks * SUM_LEN])?;
        let (start, end) = (first * BLOCK, ((first + blocks) * BLOCK).min(layout.table));
        let bytes = reader.read(base + start as u64, end - start)?;
        for (n, block) in bytes.chunks(BLOCK).enumerate() {
            if sums.block(base + (start + n * BLOCK) as u64, block) != u64_at(&expected, n * SUM_LEN) {
                return Ok(Some(Content::BadBlock { index: (first + n) as u64 }));
            }
        }
    }
    let used = layout.table + (layout.blocks + 1) * SUM_LEN;
    let padding = reader.read(base + used as u64, layout.len - used)?;
    Ok((!is_zero(padding)).then_some(Content::BadPadding))
}

/// Checks a batch that is in memory: `batch` is all that the layout of its header names, padding included. `None`: each
/// byte is as it was sealed.
///
/// # Panics
///
/// If `batch` is shorter.
#[must_use]
pub fn check_batch(header: &BatchHeader, batch: &[u8]) -> Option<Content> {
    let (layout, sums, base) = (header.layout(), BlockSums::of(header), header.address);
    let (blocks, rest) = batch.split_at(layout.table);
    let (table, rest) = rest.split_at(layout.blocks * SUM_LEN);
    if sums.table(base, table) != u64_at(rest, 0) {
        return Some(Content::BadTable);
    }
    let mut addresses = (base..).step_by(BLOCK);
    for (n, block) in blocks.chunks(BLOCK).enumerate() {
        if sums.block(addresses.next()?, block) != u64_at(table, n * SUM_LEN) {
            return Some(Content::BadBlock { index: n as u64 });
        }
    }
    (!is_zero(&rest[SUM_LEN..])).then_some(Content::BadPadding)
}

/// Whether the checksums of the blocks are those that the batch at `base` was sealed with.
pub(super) fn table_is_right<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    sums: &BlockSums,
    base: u64,
    table: u64,
    blocks: usize,
) -> Result<bool, OpenError> {
    // 512 KiB for the longest batch, whose length the signed header states.
    let mut bytes = vec![0; (blocks + 1) * SUM_LEN];
    for (n, piece) in bytes.chunks_mut(CHUNK * SUM_LEN).enumerate() {
        reader.read_aside(table + (n * CHUNK * SUM_LEN) as u64, piece)?;
    }
    Ok(sums.table(base, &bytes[..blocks * SUM_LEN]) == u64_at(&bytes, blocks * SUM_LEN))
}

/// Iterates over the records of a verified batch, and stops at bytes that are no record.
#[derive(Debug)]
pub(super) struct Records {
    base: u64,
    /// Relative to the batch.
    at: usize,
    end: usize,
}

/// A record, and where its header stands.
pub(super) type Found = (u64, RecordHeader);
/// Bytes that are no record: where, and why.
pub(super) type BadRecord = (u64, RecordRefusal);

impl Records {
    pub(super) fn of(header: &BatchHeader) -> Self {
        Self { base: header.address, at: HEADER_LEN, end: header.layout().table }
    }

    pub(super) fn next<D: Directory>(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
    ) -> Result<Result<Option<Found>, BadRecord>, OpenError> {
        while self.at < self.end {
            let len = (self.end - self.at).min(BLOCK);
            let bytes = reader.read(self.base + self.at as u64, len)?;
            let (words, _) = bytes.as_chunks::<RECORD_HEADER_LEN>();
            let Some(filler) = words.iter().position(|word| *word != [0; RECORD_HEADER_LEN]) else {
                self.at += len;
                continue;
            };
            let word = words[filler];
            self.at += filler * RECORD_HEADER_LEN;
            let address = self.base + self.at as u64;
            let header = match RecordHeader::decode(&word, self.at) {
                Ok(Some(header)) => header,
                Ok(None) => continue,
                Err(refusal) => return Ok(Err((address, refusal))),
            };
            let left = (self.end - self.at) as u64;
            if header.padded_len() > left {
                return Ok(Err((address, RecordRefusal::Length(header.len))));
            }
            if let Err(refusal) = check_payload(reader, address, &header)? {
                return Ok(Err((address, refusal)));
            }
            self.at += header.padded_len() as usize;
            return Ok(Ok(Some((address, header))));
        }
        Ok(Ok(None))
    }
}

fn check_payload<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    address: u64,
    header: &RecordHeader,
) -> Result<Result<(), RecordRefusal>, OpenError> {
    let payload = address + RECORD_HEADER_LEN as u64;
    let padding = (padded(header.len) - u64::from(header.len)) as usize;
    let mut zeros = [0; 8];
    reader.read_aside(payload + u64::from(header.len), &mut zeros[..padding])?;
    if !is_zero(&zeros) {
        return Ok(Err(RecordRefusal::Padding));
    }
    let mut prefix = [0; 16];
    let prefix = &mut prefix[..header.record_type.prefix_len()];
    reader.read_aside(payload, prefix)?;
    let holds = match header.record_type {
        RecordType::Record | RecordType::NoOp => true,
        RecordType::Group => return group_len(reader, payload, header.len).map(|entries| entries.map(drop)),
        RecordType::First => {
            let of = [RecordType::Record, RecordType::Group];
            let begun = u64::from(header.len) - 16;
            of.iter().any(|of| *of as u8 == prefix[8]) && is_zero(&prefix[9..]) && u64_at(prefix, 0) > begun
        }
        RecordType::Middle | RecordType::Last => u64_at(prefix, 0) < address,
        RecordType::Metadata => u32_at(prefix, 0) <= header.len - 4,
        RecordType::Truncation => header.len == 8 && u64_at(prefix, 0) <= address,
        RecordType::Snapshot | RecordType::Cursor => u64_at(prefix, 0) <= address,
    };
    Ok(if holds { Ok(()) } else { Err(NOT_OF_ITS_TYPE) })
}

const NOT_OF_ITS_TYPE: RecordRefusal = RecordRefusal::Payload("the payload is not what its type asks for");

fn too_long(address: u64) -> BadRecord {
    (address, RecordRefusal::Payload("named values longer than a log can have"))
}

/// The whole payload of one of the log's own records; `None` if it is longer than any.
fn payload<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    address: u64,
    record: &RecordHeader,
) -> Result<Option<Vec<u8>>, OpenError> {
    let len = record.len as usize;
    if len > MAX_SNAPSHOT {
        return Ok(None);
    }
    let mut payload = vec![0; len];
    for (n, piece) in payload.chunks_mut(MAX_READ).enumerate() {
        reader.read_aside(address + (RECORD_HEADER_LEN + n * MAX_READ) as u64, piece)?;
    }
    Ok(Some(payload))
}

/// Counts the payloads of a group.
fn group_len<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    payload: u64,
    len: u32,
) -> Result<Result<u64, RecordRefusal>, OpenError> {
    let (mut at, end, mut entries) = (payload, payload + u64::from(len), 0);
    while at < end {
        let mut head = [0; GROUP_ENTRY_LEN];
        if end - at < GROUP_ENTRY_LEN as u64 {
            return Ok(Err(RecordRefusal::Payload("a group ends inside an entry")));
        }
        reader.read_aside(at, &mut head)?;
        let len = u32_at(&head, 0);
        let next = at + GROUP_ENTRY_LEN as u64 + padded(len);
        if next > end || !is_zero(&head[4..7]) {
            return Ok(Err(RecordRefusal::Payload("an entry of a group is not well formed")));
        }
        let mut zeros = [0; 8];
        let padding = (padded(len) - u64::from(len)) as usize;
        reader.read_aside(next - padding as u64, &mut zeros[..padding])?;
        if !is_zero(&zeros) {
            return Ok(Err(RecordRefusal::Padding));
        }
        at = next;
        entries += 1;
    }
    Ok(Ok(entries))
}

/// Totals over the records of accepted batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) batches: u64,
    pub(super) records: u64,
    /// In order, disjoint.
    pub(super) voids: Vec<Range<u64>>,
    pub(super) values: Values,
}

/// What is recovered is durable.
const DURABLE: u64 = u64::MAX;

/// Bytes of the longest snapshot: all named values, and all truncations.
const MAX_SNAPSHOT: usize = 2 * MAX_VALUES + 32 * MAX_VOIDS;

impl Tally {
    /// Reads the records of a verified batch.
    pub(super) fn add<D: Directory>(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        header: &BatchHeader,
    ) -> Result<Result<(), BadRecord>, OpenError> {
        let mut records = Records::of(header);
        loop {
            let (address, record) = match records.next(reader)? {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(bad) => return Ok(Err(bad)),
            };
            match record.record_type {
                RecordType::Record | RecordType::Last => self.records += 1,
                RecordType::Group => {
                    let payload = address + RECORD_HEADER_LEN as u64;
                    self.records += group_len(reader, payload, record.len)?.unwrap_or(0);
                }
                RecordType::Truncation => {
                    let mut from = [0; 8];
                    reader.read_aside(address + RECORD_HEADER_LEN as u64, &mut from)?;
                    self.void(u64::from_le_bytes(from)..address)?;
                }
                RecordType::Metadata | RecordType::Cursor | RecordType::Snapshot => {
                    let read = match record.record_type {
                        RecordType::Metadata => Self::named,
                        RecordType::Cursor => Self::cursor,
                        _ => Self::restart,
                    };
                    let Some(payload) = payload(reader, address, &record)? else { return Ok(Err(too_long(address))) };
                    if let Err(refusal) = read(self, address, record.kind, &payload)? {
                        return Ok(Err((address, refusal)));
                    }
                    if self.values.len() > MAX_VALUES {
                        return Ok(Err(too_long(address)));
                    }
                }
                _ => {}
            }
        }
        self.batches += 1;
        Ok(Ok(()))
    }

    /// Adds the totals of what follows.
    pub(super) fn join(&mut self, later: &Self) -> Result<(), OpenError> {
        self.batches += later.batches;
        self.records += later.records;
        self.values.join(&later.values);
        if later.values.snapshot().is_some() {
            self.voids.clear();
        }
        later.voids.iter().try_for_each(|range| self.void(range.clone()))
    }

    /// A named value.
    fn named(&mut self, address: u64, kind: u8, payload: &[u8]) -> Result<Result<(), RecordRefusal>, OpenError> {
        Ok(Metadata::decode(payload).map_err(|_| NOT_OF_ITS_TYPE).map(|Metadata { name, value }| {
            self.values.metas.set(name, (kind != REMOVED).then(|| value.to_vec()), address, DURABLE);
        }))
    }

    /// A named position.
    fn cursor(&mut self, address: u64, kind: u8, payload: &[u8]) -> Result<Result<(), RecordRefusal>, OpenError> {
        Ok(Position::decode(payload).map_err(|_| NOT_OF_ITS_TYPE).map(|Position { position, name }| {
            self.values.cursors.set(name, (kind != REMOVED).then_some(position), address, DURABLE);
        }))
    }

    /// A snapshot says all; one that is complete only to an earlier address says nothing.
    fn restart(&mut self, address: u64, _: u8, payload: &[u8]) -> Result<Result<(), RecordRefusal>, OpenError> {
        let Ok(snapshot) = Snapshot::decode(payload, address) else { return Ok(Err(NOT_OF_ITS_TYPE)) };
        if snapshot.complete_to != address {
            return Ok(Ok(()));
        }
        self.values.restart(address);
        self.voids.clear();
        for entry in snapshot.entries {
            match entry {
                SnapshotEntry::Metadata(Metadata { name, value }) => {
                    self.values.metas.set(name, Some(value.to_vec()), address, DURABLE);
                }
                SnapshotEntry::Cursor(Position { position, name }) if position <= address => {
                    self.values.cursors.set(name, Some(position), address, DURABLE);
                }
                SnapshotEntry::Void { from, to } if from <= to && to <= address => self.void(from..to)?,
                SnapshotEntry::Void { .. } | SnapshotEntry::Cursor(_) => return Ok(Err(NOT_OF_ITS_TYPE)),
            }
        }
        Ok(Ok(()))
    }

    fn void(&mut self, range: Range<u64>) -> Result<(), OpenError> {
        void::add(&mut self.voids, range);
        if self.voids.len() > MAX_VOIDS {
            return Err(OpenError::TooManyTruncations { max: MAX_VOIDS });
        }
        Ok(())
    }
}
