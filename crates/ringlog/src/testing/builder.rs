//! The records of one batch, placed as the ring places them: each at the next multiple of 8.

use crate::format::{
    BLOCK, HEADER_LEN, NOT_COUNTED, RECORD_HEADER_LEN, RecordHeader, RecordType, Snapshot, SnapshotEntry,
    payload_capacity,
};

/// One payload of a group.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The byte that its writer chooses.
    pub kind: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Places records in a buffer.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    base: u64,
    /// The room for the batch's header, and the records so far.
    bytes: Vec<u8>,
    end: usize,
}

impl BatchBuilder {
    /// A batch at `base`, in a buffer of `buffer_len` bytes.
    #[must_use]
    pub fn new(base: u64, buffer_len: usize) -> Self {
        Self { base, bytes: vec![0; HEADER_LEN], end: HEADER_LEN + payload_capacity(buffer_len) as usize }
    }

    /// Returns the longest payload that still fits.
    #[must_use]
    pub fn room(&self) -> usize {
        (self.end - self.bytes.len()).saturating_sub(RECORD_HEADER_LEN)
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_LEN
    }

    /// Places a record, and returns its address; `None` if it does not fit.
    pub fn push(&mut self, record_type: RecordType, kind: u8, payload: &[u8]) -> Option<u64> {
        if self.bytes.len() + RECORD_HEADER_LEN + payload.len() > self.end {
            return None;
        }
        let at = self.bytes.len();
        let (len, blocks_back) = (payload.len() as u32, (at / BLOCK) as u16);
        self.bytes.extend(RecordHeader { len, blocks_back, record_type, kind }.encode());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Some(self.base + at as u64)
    }

    /// Places a payload of the user.
    pub fn record(&mut self, kind: u8, payload: &[u8]) -> Option<u64> {
        self.push(RecordType::Record, kind, payload)
    }

    /// Places several payloads of the user, atomically; returns the address of the group.
    pub fn group(&mut self, payloads: &[Payload<'_>]) -> Option<u64> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend((payload.bytes.len() as u32).to_le_bytes());
            bytes.extend([0, 0, 0, payload.kind]);
            bytes.extend(payload.bytes);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        self.push(RecordType::Group, 0, &bytes)
    }

    /// Places a snapshot that is complete: it says all that the log keeps beside its records.
    pub fn snapshot(&mut self, entries: Vec<SnapshotEntry<'_>>) -> Option<u64> {
        let complete_to = self.base + self.bytes.len() as u64;
        self.push(RecordType::Snapshot, 0, &Snapshot { complete_to, records: NOT_COUNTED, entries }.encode())
    }

    /// Leaves this many bytes zero, rounded up to a multiple of 8, as an aborted reservation does.
    pub fn filler(&mut self, len: usize) {
        let end = (self.bytes.len() + len).next_multiple_of(8).min(self.end);
        self.bytes.resize(end, 0);
    }

    /// Returns header room and records; a batch without any is a single no-op.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.is_empty() {
            self.push(RecordType::NoOp, 0, &[]);
        }
        self.bytes
    }
}

/// A record longer than a buffer, placed part by part, one batch after the other.
#[derive(Clone, Debug)]
pub struct LongRecord {
    kind: u8,
    payload: Vec<u8>,
    placed: usize,
    first: Option<u64>,
}

impl LongRecord {
    /// A record with this payload, of at least two bytes.
    ///
    /// # Panics
    ///
    /// If the payload is shorter.
    #[must_use]
    pub fn new(kind: u8, payload: Vec<u8>) -> Self {
        assert!(payload.len() > 1, "a long record has two parts");
        Self { kind, payload, placed: 0, first: None }
    }

    /// Places the next part, of at most `most` bytes; its address, if it was the last one, is that of the whole.
    ///
    /// Places nothing if the batch has no room.
    pub fn place(&mut self, batch: &mut BatchBuilder, most: usize) -> Option<u64> {
        let prefix = match self.first {
            None => {
                [(self.payload.len() as u64).to_le_bytes(), [RecordType::Record as u8, 0, 0, 0, 0, 0, 0, 0]].concat()
            }
            Some(first) => first.to_le_bytes().to_vec(),
        };
        let rest = &self.payload[self.placed..];
        // The first part is never the last one too.
        let left = if self.first.is_none() { rest.len() - 1 } else { rest.len() };
        let len = batch.room().checked_sub(prefix.len()).map_or(0, |room| room.min(most).min(left));
        if len == 0 {
            return None;
        }
        let is_last = len == rest.len();
        let record_type = match self.first {
            None => RecordType::First,
            Some(_) if is_last => RecordType::Last,
            Some(_) => RecordType::Middle,
        };
        let at = batch.push(record_type, self.kind, &[&prefix, &rest[..len]].concat());
        self.placed += len;
        self.first = self.first.or(at);
        self.first.filter(|_| is_last)
    }
}
