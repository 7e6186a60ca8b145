//! Placing records: encoded in the ring's own memory, where they lie in the log.

use core::ops::{Deref, DerefMut, Range};
use std::io::IoSlice;

use buffer_ring::ring_io::events;
use buffer_ring::{AppendError, BufferRing, Placement};

use super::{Error, Log, range, record_len};
use crate::Lsn;
use crate::format::{BLOCK, GROUP_ENTRY_LEN, RECORD_HEADER_LEN, RecordHeader, RecordType};

/// The fixed bytes of the first part of a long record, and of each further one.
const FIRST_PREFIX: usize = RecordType::First.prefix_len();
const NEXT_PREFIX: usize = RecordType::Middle.prefix_len();

/// Payloads that become one record: all of them are there after a crash, or none.
#[derive(Clone, Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
}

impl Group {
    /// A group without payloads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a payload behind those that are there.
    pub fn push(&mut self, kind: u8, payload: &[u8]) -> &mut Self {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut entry = [0; GROUP_ENTRY_LEN];
        entry[..4].copy_from_slice(&len.to_le_bytes());
        entry[7] = kind;
        self.bytes.extend(entry);
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self
    }

    /// Removes all payloads, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The header of a record, placed.
#[inline]
pub(super) fn header(placement: Placement, record_type: RecordType, kind: u8, len: usize) -> [u8; RECORD_HEADER_LEN] {
    let blocks_back = ((placement.start() - placement.batch_base()) / BLOCK as u64) as u16;
    RecordHeader { len: len as u32, blocks_back, record_type, kind }.encode()
}

fn total_len<'a>(parts: impl Iterator<Item = &'a [u8]>) -> usize {
    parts.fold(0, |len: usize, part| len.saturating_add(part.len()))
}

/// Writes a record of `parts`, `len` bytes together, into `bytes`, all of them.
#[inline]
pub(super) fn encode<'a>(
    placement: Placement,
    record_type: RecordType,
    kind: u8,
    len: usize,
    parts: impl IntoIterator<Item = &'a [u8]>,
    bytes: &mut [u8],
) {
    // The padding, by one store of a known length.
    if let Some(last) = bytes.last_chunk_mut() {
        *last = [0; 8];
    }
    let (head, mut rest) = bytes.split_at_mut(RECORD_HEADER_LEN);
    head.copy_from_slice(&header(placement, record_type, kind, len));
    for part in parts {
        let (target, behind) = rest.split_at_mut(part.len());
        target.copy_from_slice(part);
        rest = behind;
    }
}

/// Appends a record that no reader shows.
pub(super) fn append_noop(ring: &BufferRing) -> Result<(), AppendError> {
    let fill = |placement, bytes: &mut [u8]| encode(placement, RecordType::NoOp, 0, 0, [], bytes);
    ring.append_filled(RECORD_HEADER_LEN, fill).map(drop)
}

impl Log {
    /// Appends a record. It is in memory when this returns, at the range that it gives, and durable with the next
    /// commit, sync or durable wait, or as the [`SyncPolicy`](crate::SyncPolicy) says. Waits while the ring is full.
    ///
    /// `kind` is a byte of the caller's own, that comes back with the record. A record longer than a buffer is placed
    /// in parts; it is there after a crash as a whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was appended, or, of a record longer than a buffer, parts that no reader shows.
    #[inline]
    pub fn append(&self, kind: u8, payload: &[u8]) -> Result<Range<Lsn>, Error> {
        let len = payload.len();
        if len > self.inner.short {
            return self.append_long(RecordType::Record, kind, &[payload]);
        }
        let fill = |placement, bytes: &mut [u8]| encode(placement, RecordType::Record, kind, len, [payload], bytes);
        Ok(range(self.inner.ring.append_filled(record_len(len), fill)?))
    }

    /// Appends several parts as one record.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn append_vectored(&self, kind: u8, parts: &[IoSlice<'_>]) -> Result<Range<Lsn>, Error> {
        self.append_typed(RecordType::Record, kind, parts.iter().map(Deref::deref))
    }

    /// Has `fill` encode a record of `len` bytes in place, at the address that it is given. The bytes are zeros at
    /// first. Until `fill` returns, it holds its buffer back: it must not wait for the log. If it panics there is no
    /// record, and the panic goes to the caller.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), and [`Error::TooLarge`] for a record longer than a buffer; `fill` was not
    /// called then.
    pub fn append_with(&self, kind: u8, len: usize, fill: impl FnOnce(Lsn, &mut [u8])) -> Result<Range<Lsn>, Error> {
        Ok(self.reserve(kind, len)?.filled(fill))
    }

    /// The same without ever waiting for room.
    ///
    /// # Errors
    ///
    /// Those of [`append_with`](Self::append_with), and [`Error::Full`].
    pub fn try_append_with(
        &self,
        kind: u8,
        len: usize,
        fill: impl FnOnce(Lsn, &mut [u8]),
    ) -> Result<Range<Lsn>, Error> {
        Ok(self.try_reserve(kind, len)?.filled(fill))
    }

    /// Reserves a record of `len` bytes, zeroed, to be filled in place. Waits while the ring is full.
    ///
    /// The order of the log is that of the calls: the record lies behind each one that another call of the log has
    /// reserved or appended before this call began, in whatever thread. Records of a [`Writer`](crate::Writer) are
    /// outside of that order.
    ///
    /// # Errors
    ///
    /// Those of [`append_with`](Self::append_with).
    pub fn reserve(&self, kind: u8, len: usize) -> Result<Reservation<'_>, Error> {
        self.check_short(len)?;
        Ok(Reservation { kind, len, bytes: self.inner.ring.reserve(record_len(len))? })
    }

    /// The same without ever waiting for room.
    ///
    /// # Errors
    ///
    /// Those of [`reserve`](Self::reserve), and [`Error::Full`].
    pub fn try_reserve(&self, kind: u8, len: usize) -> Result<Reservation<'_>, Error> {
        self.check_short(len)?;
        Ok(Reservation { kind, len, bytes: self.inner.ring.try_reserve(record_len(len))? })
    }

    /// Appends all payloads of a group as one record: after a crash all of them are there, or none. Replay and readers
    /// show them one by one, each with an address of its own; a [trim](Self::trim) or a [truncation](Self::truncate)
    /// from the address of one of them keeps the others.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), and [`Error::Empty`].
    pub fn append_group(&self, group: &Group) -> Result<Range<Lsn>, Error> {
        if group.is_empty() {
            return Err(Error::Empty);
        }
        self.append_typed(RecordType::Group, 0, [&*group.bytes].into_iter())
    }

    fn append_typed<'a>(
        &self,
        record_type: RecordType,
        kind: u8,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Range<Lsn>, Error> {
        if total_len(parts.clone()) > self.inner.short {
            return self.append_long(record_type, kind, &parts.collect::<Vec<_>>());
        }
        self.place(record_type, kind, parts)
    }

    /// Appends what fits a buffer.
    pub(super) fn place<'a>(
        &self,
        record_type: RecordType,
        kind: u8,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Range<Lsn>, Error> {
        let len = total_len(parts.clone());
        let fill = |placement, bytes: &mut [u8]| encode(placement, record_type, kind, len, parts, bytes);
        Ok(range(self.inner.ring.append_filled(record_len(len), fill)?))
    }

    /// A record longer than a buffer, part by part. Other records may come between them, but no parts of another one:
    /// so a reader needs memory for one only.
    #[cold]
    fn append_long(&self, record_type: RecordType, kind: u8, parts: &[&[u8]]) -> Result<Range<Lsn>, Error> {
        self.inner.check_process()?;
        let mut long = Long::new(self, record_type, parts.concat())?;
        // A subscriber to events may append one, too: it does so when it is its turn again.
        let _held = events::hold();
        let _alone = self.inner.long.take();
        while let Some((part_type, prefix, part)) = long.next() {
            let placed = self.place(part_type, kind, [prefix.bytes(), part].into_iter())?;
            long.placed(placed);
        }
        Ok(long.range)
    }

    pub(super) fn check_short(&self, len: usize) -> Result<(), Error> {
        let max = self.inner.short;
        if len > max { Err(Error::TooLarge { len, max }) } else { Ok(()) }
    }
}

/// A record longer than a buffer, while it is placed part by part.
pub(super) struct Long {
    record_type: RecordType,
    payload: Vec<u8>,
    /// Bytes of the longest part, prefix included.
    longest: usize,
    /// Bytes that are placed.
    done: usize,
    /// From the first part to the newest one.
    pub(super) range: Range<Lsn>,
}

/// What a part begins with.
pub(super) enum Prefix {
    First([u8; FIRST_PREFIX]),
    Next([u8; NEXT_PREFIX]),
}

impl Prefix {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::First(bytes) => bytes,
            Self::Next(bytes) => bytes,
        }
    }
}

impl Long {
    pub(super) fn new(log: &Log, record_type: RecordType, payload: Vec<u8>) -> Result<Self, Error> {
        let (len, max, longest) = (payload.len(), log.inner.replay.max_record, log.inner.longest);
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        Ok(Self { record_type, payload, longest, done: 0, range: Lsn::START..Lsn::START })
    }

    /// The part to be placed next; `None`: all are.
    pub(super) fn next(&self) -> Option<(RecordType, Prefix, &[u8])> {
        let rest = &self.payload[self.done..];
        if self.done == 0 {
            let mut prefix = [0; FIRST_PREFIX];
            prefix[..8].copy_from_slice(&(self.payload.len() as u64).to_le_bytes());
            prefix[8] = self.record_type as u8;
            return Some((RecordType::First, Prefix::First(prefix), &rest[..self.longest - FIRST_PREFIX]));
        }
        let part = &rest[..rest.len().min(self.longest - NEXT_PREFIX)];
        let part_type = if part.len() == rest.len() { RecordType::Last } else { RecordType::Middle };
        (!part.is_empty()).then(|| (part_type, Prefix::Next(self.range.start.to_bytes()), part))
    }

    /// It is placed there.
    pub(super) fn placed(&mut self, at: Range<Lsn>) {
        let prefix = if self.done == 0 { FIRST_PREFIX } else { NEXT_PREFIX };
        if self.done == 0 {
            self.range.start = at.start;
        }
        self.range.end = at.end;
        self.done += (self.longest - prefix).min(self.payload.len() - self.done);
    }
}

/// A record that is being filled in place. Dereferences to its payload, zeroed at first.
///
/// [`commit`](Self::commit) makes it part of the log. Dropped without it there is no record, only zeros that readers
/// skip. Held for long, it holds its whole buffer back.
#[derive(Debug)]
#[must_use = "a reservation that is dropped leaves no record"]
pub struct Reservation<'a> {
    kind: u8,
    len: usize,
    bytes: buffer_ring::Reservation<'a>,
}

impl Reservation<'_> {
    /// Where the record lies.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.bytes.extent().start())
    }

    /// Behind it: once it is committed, it is durable when the log is durable up to here.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn::new(self.bytes.extent().end())
    }

    fn filled(mut self, fill: impl FnOnce(Lsn, &mut [u8])) -> Range<Lsn> {
        fill(self.lsn(), &mut self);
        self.commit()
    }

    /// Makes the record part of the log as it is now.
    pub fn commit(mut self) -> Range<Lsn> {
        let header = header(self.bytes.placement(), RecordType::Record, self.kind, self.len);
        self.bytes[..RECORD_HEADER_LEN].copy_from_slice(&header);
        range(self.bytes.commit())
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[RECORD_HEADER_LEN..][..self.len]
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[RECORD_HEADER_LEN..][..self.len]
    }
}
