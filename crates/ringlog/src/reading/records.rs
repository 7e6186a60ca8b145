//! Records, from the bytes of one batch after the other.
//!
//! A record is handed out where it ends: one longer than a buffer with its last part. So the order of the ends is the
//! order of the log, also for a reader that begins in the middle; the parts that such a reader has missed are
//! [fetched](Piece::Missed) when the first of the others is met.

use core::ops::Range;
use std::collections::HashMap;

use crate::Lsn;
use crate::format::{
    GROUP_ENTRY_LEN, HEADER_LEN, NO_ADDRESS, RECORD_HEADER_LEN, RecordHeader, RecordRefusal, RecordType, is_zero,
    padded, u32_at, u64_at,
};

/// Puts records together. Needs memory for those that are incomplete, and no more of it than is allowed.
#[derive(Debug)]
pub(crate) struct Assembler {
    max_record: usize,
    /// By the address of the first part; `None`: not to be shown.
    open: HashMap<u64, Option<Open>>,
    open_bytes: usize,
    /// Of the newest batch.
    epoch: u32,
    /// Where the newest batch begins, and how much of its records was looked at.
    base: u64,
    at: usize,
    /// What the newest record consists of that is longer than a buffer.
    long: Vec<u8>,
    group: Option<Entries>,
    /// The record that was met last, and its payload. Kept here, as handing it up from call to call costs more than
    /// finding it.
    met: Located,
    payload: Place,
}

/// A record of which the last part has not been met.
#[derive(Debug)]
struct Open {
    kind: u8,
    of: RecordType,
    len: u64,
    bytes: Vec<u8>,
    parts: Parts,
}

/// Where in the log the bytes of a payload are: each part by its offset in the payload, and its address.
type Parts = Vec<(usize, u64)>;

/// The payloads of a group that were not handed out.
#[derive(Debug)]
struct Entries {
    lsn: Lsn,
    end: Lsn,
    place: Place,
    at: usize,
    parts: Parts,
}

/// A payload: in the batch, or in what was put together.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Batch(Range<usize>),
    Long(Range<usize>),
}

impl Place {
    fn part(&self, range: Range<usize>) -> Self {
        let within = |whole: &Range<usize>| whole.start + range.start..whole.start + range.end;
        match self {
            Self::Batch(whole) => Self::Batch(within(whole)),
            Self::Long(whole) => Self::Long(within(whole)),
        }
    }
}

/// A record of the user's, and where it lies in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) lsn: Lsn,
    pub(crate) end: Lsn,
    pub(crate) kind: u8,
    /// Whether it is neither one of a group nor in parts: no position between its ends makes sense.
    pub(crate) is_whole: bool,
    /// Whether no other one has the same end: of a group it is the last one.
    pub(crate) is_last: bool,
}

/// What comes next in a batch.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A record, which is kept.
    Record,
    /// The records from `from` up to this one, at `at`, are void.
    Truncation { from: Lsn, at: Lsn },
    /// A part, perhaps the last one, of a record whose first part, at this address, was not met. It is looked at again
    /// by the next call: what is known of the record then has to be said before.
    Missed { first: u64, is_last: bool },
}

/// Bytes that are no record: where, and why.
pub(crate) type BadRecord = (u64, RecordRefusal);

/// Why records cannot be put together.
#[derive(Debug)]
pub(crate) enum Trouble {
    Bad(BadRecord),
    TooLong { address: u64, len: u64 },
}

impl Assembler {
    pub(crate) fn new(max_record: usize) -> Self {
        Self {
            max_record,
            open: HashMap::new(),
            open_bytes: 0,
            epoch: 0,
            base: NO_ADDRESS,
            at: 0,
            long: Vec::new(),
            group: None,
            met: Located { lsn: Lsn::START, end: Lsn::START, kind: 0, is_whole: false, is_last: false },
            payload: Place::Long(0..0),
        }
    }

    /// The next batch begins at `base`. If it is the one that is being read, it goes on in that.
    pub(crate) fn begin(&mut self, base: u64, epoch: u32) {
        if epoch != self.epoch {
            // What a killed writer has left incomplete stays so.
            self.forget();
            self.epoch = epoch;
        } else if base == self.base {
            return;
        }
        (self.base, self.at, self.group) = (base, 0, None);
    }

    /// Forgets what is incomplete, and what was read.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
        (self.open_bytes, self.base) = (0, NO_ADDRESS);
    }

    /// Passes over the records of `batch` that end before `at`, as fast as their headers can be read.
    pub(crate) fn skip_to(&mut self, batch: &[u8], at: u64) {
        let to = at.saturating_sub(self.base + HEADER_LEN as u64);
        while let Some(head) = batch.get(self.at..).and_then(|rest| rest.first_chunk::<RECORD_HEADER_LEN>()) {
            let len = match RecordHeader::decode(head, HEADER_LEN + self.at) {
                Ok(Some(header)) => header.padded_len(),
                Ok(None) => RECORD_HEADER_LEN as u64,
                Err(_) => return,
            };
            if self.at as u64 + len > to {
                return;
            }
            self.at += len as usize;
        }
    }

    /// Where the newest batch begins.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The record that was met last.
    #[inline]
    pub(crate) fn met(&self) -> Located {
        self.met
    }

    /// The payload of the record that was met last, in `batch` or put together.
    #[inline]
    pub(crate) fn payload<'a>(&'a self, batch: &'a [u8]) -> &'a [u8] {
        match &self.payload {
            Place::Batch(range) => &batch[range.clone()],
            Place::Long(range) => &self.long[range.clone()],
        }
    }

    /// Where the first record begins that is incomplete.
    pub(crate) fn lowest_open(&self) -> Option<u64> {
        self.open.iter().filter(|(_, open)| open.is_some()).map(|(first, _)| *first).min()
    }

    /// The next record in `batch`, the bytes of the batch that hold records; `None`: there is no other one. When more
    /// bytes are known, the next call goes on.
    pub(crate) fn next(&mut self, batch: &[u8]) -> Result<Option<Piece>, Trouble> {
        loop {
            if self.group.is_some() && self.next_entry(batch)? {
                return Ok(Some(Piece::Record));
            }
            let Some(filler) = batch[self.at..].chunks_exact(8).position(|word| word != [0; 8]) else {
                self.at += (batch.len() - self.at) / 8 * 8;
                return Ok(None);
            };
            self.at += filler * 8;
            let address = self.base + (HEADER_LEN + self.at) as u64;
            let bad = |refusal| Trouble::Bad((address, refusal));
            let (rest, offset) = (&batch[self.at..], HEADER_LEN + self.at);
            let head = rest.first_chunk::<RECORD_HEADER_LEN>().expect("a word was found there");
            let Some(header) = RecordHeader::decode(head, offset).map_err(bad)? else { return Ok(None) };
            if header.padded_len() > rest.len() as u64 {
                return Err(bad(RecordRefusal::Length(header.len)));
            }
            let start = self.at + RECORD_HEADER_LEN;
            let payload = start..start + header.len as usize;
            let end = address + header.padded_len();
            if let RecordType::Middle | RecordType::Last = header.record_type {
                let first = u64_at(&batch[payload.clone()], 0);
                if first >= address {
                    return Err(bad(RecordRefusal::Payload("a part comes before its first one")));
                }
                if !self.open.contains_key(&first) {
                    let is_last = header.record_type == RecordType::Last;
                    return Ok(Some(Piece::Missed { first, is_last }));
                }
            }
            self.at += header.padded_len() as usize;
            if payload.len() > self.max_record && matches!(header.record_type, RecordType::Record | RecordType::Group) {
                return Err(Trouble::TooLong { address, len: payload.len() as u64 });
            }
            let (lsn, end) = (Lsn::new(address), Lsn::new(end));
            match header.record_type {
                RecordType::Record => {
                    self.met = Located { lsn, end, kind: header.kind, is_whole: true, is_last: true };
                    self.payload = Place::Batch(payload);
                    return Ok(Some(Piece::Record));
                }
                RecordType::Group => {
                    let parts = vec![(0, address + RECORD_HEADER_LEN as u64)];
                    self.group = Some(Entries { lsn, end, place: Place::Batch(payload), at: 0, parts });
                }
                RecordType::First => self.first(address, header.kind, &batch[payload])?,
                RecordType::Middle => self.part(address, &batch[payload])?,
                RecordType::Last => {
                    let first = u64_at(&batch[payload.clone()], 0);
                    self.part(address, &batch[payload])?;
                    if self.last(first, end) {
                        return Ok(Some(Piece::Record));
                    }
                }
                RecordType::Truncation => {
                    let from = Lsn::new(u64_at(&batch[payload], 0));
                    return Ok(Some(Piece::Truncation { from, at: lsn }));
                }
                RecordType::NoOp | RecordType::Metadata | RecordType::Cursor | RecordType::Snapshot => {}
            }
        }
    }

    /// Meets the next payload of the group that was met last. `false`: there is no other one.
    fn next_entry(&mut self, batch: &[u8]) -> Result<bool, Trouble> {
        let Some(group) = &mut self.group else { return Ok(false) };
        let bytes = match &group.place {
            Place::Batch(range) => &batch[range.clone()],
            Place::Long(range) => &self.long[range.clone()],
        };
        let (at, address) = (group.at, address_of(&group.parts, group.at));
        if at >= bytes.len() {
            self.group = None;
            return Ok(false);
        }
        let malformed = Trouble::Bad((address, RecordRefusal::Payload("an entry of a group is not well formed")));
        let Some(head) = bytes.get(at..at + GROUP_ENTRY_LEN) else { return Err(malformed) };
        let (start, len) = (at + GROUP_ENTRY_LEN, u32_at(head, 0));
        let next = start as u64 + padded(len);
        if next > bytes.len() as u64 || !is_zero(&head[4..7]) {
            return Err(malformed);
        }
        group.at = next as usize;
        // The group is atomic: a reader that keeps a position keeps the end of the whole.
        let lsn = if at == 0 { group.lsn } else { Lsn::new(address) };
        self.payload = group.place.part(start..start + len as usize);
        let is_last = group.at == bytes.len();
        self.met = Located { lsn, end: group.end, kind: head[7], is_whole: false, is_last };
        Ok(true)
    }

    fn first(&mut self, address: u64, kind: u8, payload: &[u8]) -> Result<(), Trouble> {
        const PREFIX: usize = RecordType::First.prefix_len();
        let (len, of, begun) = (u64_at(payload, 0), payload[8], &payload[PREFIX..]);
        let Some(of) = [RecordType::Record, RecordType::Group].into_iter().find(|known| *known as u8 == of) else {
            return Err(Trouble::Bad((address, RecordRefusal::Payload("a part of neither a record nor a group"))));
        };
        if len > self.max_record as u64 {
            self.ignore(address);
            return Err(Trouble::TooLong { address, len });
        }
        // One is appended at a time: what is still incomplete was given up.
        self.open.retain(|_, open| open.is_none());
        self.open_bytes = 0;
        let parts = vec![(0, address + (RECORD_HEADER_LEN + PREFIX) as u64)];
        self.open.insert(address, Some(Open { kind, of, len, bytes: Vec::new(), parts }));
        self.add(address, begun)
    }

    fn part(&mut self, address: u64, payload: &[u8]) -> Result<(), Trouble> {
        const PREFIX: usize = RecordType::Middle.prefix_len();
        let (first, bytes) = (u64_at(payload, 0), &payload[PREFIX..]);
        if let Some(Some(open)) = self.open.get_mut(&first) {
            open.parts.push((open.bytes.len(), address + (RECORD_HEADER_LEN + PREFIX) as u64));
            self.add(first, bytes)?;
        }
        Ok(())
    }

    /// Adds bytes to the record that begins at `first`.
    fn add(&mut self, first: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let Some(Some(open)) = self.open.get_mut(&first) else { return Ok(()) };
        let len = open.len;
        if self.open_bytes + bytes.len() > self.max_record {
            self.open_bytes -= open.bytes.len();
            self.ignore(first);
            return Err(Trouble::TooLong { address: first, len });
        }
        open.bytes.extend_from_slice(bytes);
        self.open_bytes += bytes.len();
        Ok(())
    }

    /// The record that begins at `first` ends at `end`. Whether it is met as a whole.
    fn last(&mut self, first: u64, end: Lsn) -> bool {
        let Some(open) = self.open.remove(&first).flatten() else { return false };
        self.open_bytes -= open.bytes.len();
        // A part of it lies in a gap.
        if open.bytes.len() as u64 != open.len {
            return false;
        }
        self.long = open.bytes;
        let (lsn, place) = (Lsn::new(first), Place::Long(0..self.long.len()));
        if open.of == RecordType::Group {
            self.group = Some(Entries { lsn, end, place, at: 0, parts: open.parts });
            return false;
        }
        self.met = Located { lsn, end, kind: open.kind, is_whole: false, is_last: true };
        self.payload = place;
        true
    }

    /// Does not show the record that begins at `first`.
    pub(crate) fn ignore(&mut self, first: u64) {
        self.open.insert(first, None);
    }

    /// Whether the record that begins at `first` is incomplete.
    pub(crate) fn is_open(&self, first: u64) -> bool {
        self.open.get(&first).is_some_and(Option::is_some)
    }

    /// What `other` knows of the record that begins at `first`.
    pub(crate) fn adopt(&mut self, other: &mut Self, first: u64) {
        let open = other.open.remove(&first).flatten().filter(|_| other.epoch == self.epoch);
        self.open_bytes += open.as_ref().map_or(0, |open| open.bytes.len());
        self.open.insert(first, open);
    }
}

/// The address of the byte at `offset` of a payload.
fn address_of(parts: &[(usize, u64)], offset: usize) -> u64 {
    let behind = parts.partition_point(|(start, _)| *start <= offset);
    let (start, address) = parts[behind - 1];
    address + (offset - start) as u64
}
