use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

use buffer_ring::{BLOCK, BufferRing, BufferRingOptions, Extent, QuikIO};

/// Tag, length of the payload, address, checksum.
pub const HEADER: usize = 20;

/// Does not begin with a zero byte.
const TAG: [u8; 4] = *b"\xB0Log";

/// Writes a record for `extent` into `bytes`: for `append_with`, with `HEADER` bytes more than the payload.
pub fn encode(extent: Extent, payload: &[u8], bytes: &mut [u8]) {
    bytes[..4].copy_from_slice(&TAG);
    bytes[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&extent.start().to_le_bytes());
    bytes[HEADER..].copy_from_slice(payload);
    let checksum = checksum(bytes);
    bytes[16..HEADER].copy_from_slice(&checksum.to_le_bytes());
}

/// The payload of the record at address `at`, if `bytes` begin with one that is whole.
pub fn decode(at: u64, bytes: &[u8]) -> Option<&[u8]> {
    let record = bytes.get(..record_len(at, bytes)?)?;
    (record[16..HEADER] == checksum(record).to_le_bytes()).then(|| &record[HEADER..])
}

/// How long the record at address `at` is, if `bytes` begin with the header of one.
fn record_len(at: u64, bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER)?;
    let is_one = header[..4] == TAG && header[8..16] == at.to_le_bytes();
    let len = u32::from_le_bytes(header[4..8].try_into().ok()?);
    is_one.then_some(HEADER + len as usize)
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..16]);
    hasher.update(&record[HEADER..]);
    hasher.finalize()
}

/// Passes every record with its address to `found`, up to the first thing that is none. Gives the end of the last one.
pub fn scan(io: &QuikIO, mut found: impl FnMut(u64, &[u8])) -> Result<u64> {
    let mut log = Log { io, end: io.log_end()?, start: 0, bytes: Vec::new() };
    let (mut at, mut kept) = (0, 0);
    while at < log.end {
        let len = record_len(at, log.read(at, HEADER)?).unwrap_or(0);
        if let Some(payload) = decode(at, log.read(at, len)?) {
            found(at, payload);
            at += len as u64;
            kept = at;
            continue;
        }
        let zeros = log.read(at, BLOCK)?.iter().take_while(|&&byte| byte == 0).count();
        if zeros == 0 {
            break;
        }
        at += zeros as u64;
    }
    Ok(kept)
}

/// The last whole record that begins at a block from `at` on: there each buffer begins.
fn last_behind(io: &QuikIO, at: u64) -> Result<Option<u64>> {
    let mut log = Log { io, end: io.log_end()?, start: 0, bytes: Vec::new() };
    let mut last = None;
    for at in (at..log.end).step_by(BLOCK) {
        let len = record_len(at, log.read(at, HEADER)?).unwrap_or(0);
        if decode(at, log.read(at, len)?).is_some() {
            last = Some(at);
        }
    }
    Ok(last)
}

/// Makes a ring that goes on behind the last record of the log at `path`, all of which are handed to `found` first.
pub fn reopen(path: &Path, capacity: usize, buffer_size: usize, found: impl FnMut(u64, &[u8])) -> Result<BufferRing> {
    let io = QuikIO::open(path)?;
    let at = scan(&io, found)?;
    if let Some(last) = last_behind(&io, at.next_multiple_of(BLOCK as u64))?
        && last >= at + (capacity * buffer_size) as u64
    {
        let what = format!("the log is damaged at {at}, or was not synced: there is a record at {last}");
        return Err(Error::new(ErrorKind::InvalidData, what));
    }
    io.cut(at)?;
    let io_instance = Some(Arc::new(io));
    Ok(BufferRing::try_with_options(BufferRingOptions { capacity, buffer_size, io_instance, ..Default::default() })?)
}

/// The file as far as it was read.
struct Log<'a> {
    io: &'a QuikIO,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Log<'_> {
    /// The `len` bytes at `at`, or as many as there are; read by the mebibyte.
    fn read(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let len = len.min((self.end - at) as usize);
        if at < self.start || at + len as u64 > self.start + self.bytes.len() as u64 {
            self.start = at;
            self.bytes.resize(len.max(1 << 20).min((self.end - at) as usize), 0);
            let read = self.io.read_at(at, &mut self.bytes)?;
            self.bytes.truncate(read);
        }
        let bytes = &self.bytes[(at - self.start) as usize..];
        Ok(&bytes[..len.min(bytes.len())])
    }
}
