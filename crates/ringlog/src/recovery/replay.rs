//! Handing out the records of a verified log, in order.
//!
//! Each batch is verified once more when it is read, because a file may have changed since the verdict. A record
//! longer than a buffer is handed out where its last part is: an incomplete one at the end of the log is not a
//! record. Void records are left out.

use core::convert::Infallible;
use core::fmt;
use core::ops::Range;
use std::collections::{BTreeMap, HashMap};

use thiserror::Error;

use super::batch::{Records, check_bytes};
use super::chain::Source;
use super::reader::{MAX_READ, SegmentReader};
use super::report::Report;
use crate::Lsn;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{
    BatchHeader, GROUP_ENTRY_LEN, Manifest, RECORD_HEADER_LEN, RecordHeader, RecordType, padded, u32_at, u64_at,
};
use crate::manifest::ManifestFile;
use crate::segment::{file_name, parse_name};
use crate::void;

/// A record of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Where it is.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// The byte that its writer chose.
    pub kind: u8,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What a log consists of for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A record.
    Record(Record<'a>),
    /// Damage that was accepted: records may be missing here.
    Gap(Range<Lsn>),
}

/// How [`replay`] reads.
#[derive(Clone, Debug)]
#[must_use]
pub struct Replay {
    pub(crate) max_record: usize,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// Records of up to 64 MiB.
    pub fn new() -> Self {
        Self { max_record: 64 << 20 }
    }

    /// The longest record, and the most memory for all records that are incomplete at one moment.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }
}

/// Why [`replay`] ended early.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError<E> {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The caller's function failed at this record or gap.
    #[error("replay stopped at address {0}")]
    Stopped(Lsn, #[source] E),
}

/// Calls `each` for every record of the log that `report` describes, from its trim point to its end, and for every gap.
///
/// # Errors
///
/// [`ReplayError`]: the first failure of a file or of `each`.
///
/// # Examples
///
/// ```
/// use ringlog::directory::MemoryDirectory;
/// use ringlog::recovery::{Item, Recover, Replay, replay};
///
/// let directory = MemoryDirectory::new();
/// let opened = Recover::new().open(&directory)?;
/// let mut records = 0;
/// replay(&directory, opened.report(), &Replay::new(), |item| {
///     records += usize::from(matches!(item, Item::Record(_)));
///     Ok::<_, core::convert::Infallible>(())
/// })?;
/// assert_eq!(records, 0);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn replay<D: Directory, E>(
    directory: &D,
    report: &Report,
    how: &Replay,
    each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), ReplayError<E>> {
    let manifest = ManifestFile::read(directory, false)?.ok_or(OpenError::Missing)?.content().clone();
    let names = directory.list().map_err(OpenError::io("list", "the directory"))?;
    let numbered = names.into_iter().filter_map(|name| Some((parse_name(&name)? / manifest.segment_size, name)));
    let segments = numbered.collect::<BTreeMap<_, _>>();
    let mut replaying = Replaying::new(Source { directory, manifest, segments }, report, how, each);
    let mut at = report.checked_from.get();
    while at < report.end.get() {
        at = match report.gaps.iter().find(|gap| gap.contains(&Lsn::new(at))) {
            Some(gap) => replaying.gap(gap)?,
            None => replaying.segment(at)?,
        };
    }
    Ok(())
}

/// Reads the one record at `at`, whose batch is said to begin at `base`; `None` if no record begins there. Of a group
/// it is the first payload. Everything is verified, up to the end of `report`.
pub(crate) fn read_one<D: Directory>(
    directory: &D,
    manifest: &Manifest,
    report: &Report,
    how: &Replay,
    base: u64,
    at: Lsn,
) -> Result<Option<(u8, Vec<u8>)>, OpenError> {
    let mut found = None;
    let each = |item: Item<'_>| -> Result<(), Infallible> {
        if let Item::Record(record) = item
            && record.lsn == at
            && found.is_none()
        {
            found = Some((record.kind, record.payload.to_vec()));
        }
        Ok(())
    };
    let segments = (manifest.segment_of(base)..=manifest.segment_of(report.end.get()))
        .map(|segment| (segment, file_name(segment * manifest.segment_size)));
    let source = Source { directory, manifest: manifest.clone(), segments: segments.collect() };
    let mut replaying = Replaying::new(source, report, how, each);
    let mut next = base;
    loop {
        next = match replaying.one_batch(next) {
            Ok(next) => next,
            Err(ReplayError::Log(error)) => return Err(error),
            Err(ReplayError::Stopped(..)) => break,
        };
        // A record longer than a buffer goes on in the next batch.
        if next >= report.end.get() || !replaying.open.contains_key(&at.get()) {
            break;
        }
    }
    drop(replaying);
    Ok(found)
}

/// A record of which the last part has not been read.
struct Open {
    kind: u8,
    of: RecordType,
    len: u64,
    bytes: Vec<u8>,
    parts: Parts,
}

/// Where in the log the bytes of a payload are: each part by its offset in the payload, and its address.
type Parts = Vec<(usize, u64)>;

/// The address of the byte at `offset` of a payload.
fn address_of(parts: &[(usize, u64)], offset: usize) -> u64 {
    let behind = parts.partition_point(|(start, _)| *start <= offset);
    let (start, address) = parts[behind - 1];
    address + (offset - start) as u64
}

struct Replaying<'a, D, F> {
    source: Source<'a, D>,
    report: &'a Report,
    how: &'a Replay,
    /// By the address of the first part.
    open: HashMap<u64, Open>,
    open_bytes: usize,
    /// Of the newest batch.
    epoch: u32,
    buffer: Vec<u8>,
    each: F,
}

impl<D: fmt::Debug, F> fmt::Debug for Replaying<'_, D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replaying").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<'a, D: Directory, F> Replaying<'a, D, F> {
    fn new(source: Source<'a, D>, report: &'a Report, how: &'a Replay, each: F) -> Self {
        Self { source, report, how, open: HashMap::new(), open_bytes: 0, epoch: 0, buffer: Vec::new(), each }
    }

    /// The segment that holds `address`, which a file has to be there for.
    fn reader(&self, address: u64) -> Result<SegmentReader<'a, D>, OpenError> {
        let missing = || OpenError::Changed { file: self.source.name(address), address };
        self.source.reader(self.source.manifest.segment_of(address))?.ok_or_else(missing)
    }

    fn gap<E>(&mut self, gap: &Range<Lsn>) -> Result<u64, ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        (self.each)(Item::Gap(gap.clone())).map_err(|error| ReplayError::Stopped(gap.start, error))?;
        Ok(gap.end.get())
    }

    /// The batch at `at`. Returns where the next one is.
    fn one_batch<E>(&mut self, at: u64) -> Result<u64, ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let mut reader = self.reader(at)?;
        let end = self.report.end.get().min(reader.end());
        self.verified(&mut reader, at, end)
    }

    /// The batches from `at` on, up to the end of the segment, a gap, or the end of the log.
    fn segment<E>(&mut self, mut at: u64) -> Result<u64, ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let mut reader = self.reader(at)?;
        let end = self.report.end.get().min(reader.end());
        while at < end && !self.report.gaps.iter().any(|gap| gap.contains(&Lsn::new(at))) {
            at = self.verified(&mut reader, at, end)?;
        }
        Ok(at)
    }

    /// The batch at `at`, which ends at `end` or before; everything in it is verified first. Returns where the next one
    /// is.
    fn verified<E>(&mut self, reader: &mut SegmentReader<'_, D>, at: u64, end: u64) -> Result<u64, ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let changed = || OpenError::Changed { file: self.source.name(at), address: at };
        let manifest = &self.source.manifest;
        let header = reader.header(manifest, at)?.ok().filter(|header| manifest.epoch_fits(header, None));
        let header = header.ok_or_else(changed)?;
        let behind = at + header.layout().len as u64;
        if behind > end || check_bytes(reader, &header)?.is_some() {
            return Err(changed().into());
        }
        if header.epoch != self.epoch {
            // What a killed writer has left incomplete stays so.
            self.open.clear();
            (self.open_bytes, self.epoch) = (0, header.epoch);
        }
        self.batch(reader, &header)?;
        Ok(if header.flags.last { reader.end() } else { behind })
    }

    fn batch<E>(&mut self, reader: &mut SegmentReader<'_, D>, header: &BatchHeader) -> Result<(), ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let mut records = Records::of(header);
        loop {
            let found = records.next(reader)?;
            let Some((address, record)) = found.map_err(|(address, refusal)| OpenError::Record {
                file: reader.name().to_owned(),
                address,
                refusal,
            })?
            else {
                return Ok(());
            };
            match record.record_type {
                RecordType::Record | RecordType::Group => {
                    self.read(reader, address, &record, 0)?;
                    let bytes = core::mem::take(&mut self.buffer);
                    let end = address + record.padded_len();
                    let parts = [(0, address + RECORD_HEADER_LEN as u64)];
                    let shown = self.show(address, end, record.kind, record.record_type, &bytes, &parts);
                    self.buffer = bytes;
                    shown?;
                }
                RecordType::First => self.begin(reader, address, &record)?,
                RecordType::Middle | RecordType::Last => self.go_on(reader, address, &record)?,
                _ => {}
            }
        }
    }

    /// Reads a payload, but for its first `skipped` bytes, into the buffer.
    fn read(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        address: u64,
        record: &RecordHeader,
        skipped: usize,
    ) -> Result<(), OpenError> {
        let len = record.len as usize - skipped;
        if len > self.how.max_record {
            return Err(OpenError::RecordTooLong { address, len: len as u64, max: self.how.max_record });
        }
        self.buffer.clear();
        let from = address + (RECORD_HEADER_LEN + skipped) as u64;
        for start in (0..len).step_by(MAX_READ) {
            let piece = reader.read(from + start as u64, (len - start).min(MAX_READ))?;
            self.buffer.extend_from_slice(piece);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        address: u64,
        record: &RecordHeader,
    ) -> Result<(), OpenError> {
        let mut prefix = [0; 16];
        reader.read_aside(address + RECORD_HEADER_LEN as u64, &mut prefix)?;
        let of = if prefix[8] == RecordType::Group as u8 { RecordType::Group } else { RecordType::Record };
        if prefix[8] > RecordType::Group as u8 {
            // The log's own: not for the user.
            return Ok(());
        }
        self.read(reader, address, record, 16)?;
        let open = Open { kind: record.kind, of, len: u64_at(&prefix, 0), bytes: Vec::new(), parts: Parts::new() };
        self.open.insert(address, open);
        self.grow(address, address + (RECORD_HEADER_LEN + prefix.len()) as u64)
    }

    /// Appends the buffer, which was read from `from`, to the record that begins at `first`.
    fn grow(&mut self, first: u64, from: u64) -> Result<(), OpenError> {
        let Some(open) = self.open.get_mut(&first) else { return Ok(()) };
        self.open_bytes += self.buffer.len();
        if self.open_bytes > self.how.max_record || open.len > self.how.max_record as u64 {
            return Err(OpenError::RecordTooLong { address: first, len: open.len, max: self.how.max_record });
        }
        open.parts.push((open.bytes.len(), from));
        open.bytes.extend_from_slice(&self.buffer);
        Ok(())
    }

    fn go_on<E>(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        address: u64,
        record: &RecordHeader,
    ) -> Result<(), ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let mut prefix = [0; 8];
        reader.read_aside(address + RECORD_HEADER_LEN as u64, &mut prefix)?;
        let first = u64::from_le_bytes(prefix);
        // A part whose beginning was trimmed, lies in a gap, or is the log's own.
        if !self.open.contains_key(&first) {
            return Ok(());
        }
        self.read(reader, address, record, prefix.len())?;
        self.grow(first, address + (RECORD_HEADER_LEN + prefix.len()) as u64)?;
        if record.record_type == RecordType::Last
            && let Some(open) = self.open.remove(&first)
        {
            self.open_bytes -= open.bytes.len();
            // A part of it lies in a gap.
            if open.bytes.len() as u64 == open.len {
                self.show(first, address + record.padded_len(), open.kind, open.of, &open.bytes, &open.parts)?;
            }
        }
        Ok(())
    }

    /// Hands out the payloads of a record or a group, unless they are void or trimmed: each has an address of its own.
    fn show<E>(
        &mut self,
        address: u64,
        end: u64,
        kind: u8,
        of: RecordType,
        bytes: &[u8],
        parts: &[(usize, u64)],
    ) -> Result<(), ReplayError<E>>
    where
        F: FnMut(Item<'_>) -> Result<(), E>,
    {
        let (lsn, end) = (Lsn::new(address), Lsn::new(end));
        let Report { first, void, .. } = self.report;
        let mut show = |lsn, kind, payload| {
            if lsn < *first || void::contains(void, lsn) {
                return Ok(());
            }
            (self.each)(Item::Record(Record { lsn, end, kind, payload }))
                .map_err(|error| ReplayError::Stopped(lsn, error))
        };
        if of == RecordType::Record {
            return show(lsn, kind, bytes);
        }
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + GROUP_ENTRY_LEN) {
            let len = u32_at(head, 0);
            let (start, next) = (at + GROUP_ENTRY_LEN, at + GROUP_ENTRY_LEN + padded(len) as usize);
            let Some(payload) = bytes.get(start..start + len as usize) else { break };
            // The group is atomic: a reader that keeps a position keeps the end of the whole.
            let own = if at == 0 { lsn } else { Lsn::new(address_of(parts, at)) };
            show(own, head[7], payload)?;
            at = next;
        }
        Ok(())
    }
}
