//! Reading a segment through two windows of bounded size: one for data, one for tables of checksums.

use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{BLOCK, BatchHeader, HEADER_LEN, HeaderRefusal, Manifest, SEGMENT_HEADER_LEN};
use crate::pages::Pages;

const DATA: usize = 1 << 20;
const TABLE: usize = 64 << 10;

/// The most that one call reads.
pub(super) const MAX_READ: usize = 256 << 10;

#[derive(Debug, Default)]
struct Window {
    /// The place in the file of its first byte.
    start: u64,
    bytes: Pages,
}

impl Window {
    fn holds(&self, at: u64, len: usize) -> bool {
        at >= self.start && at + len as u64 <= self.start + self.bytes.len() as u64
    }

    fn slice(&self, at: u64, len: usize) -> &[u8] {
        let from = (at - self.start) as usize;
        &self.bytes[from..from + len]
    }
}

/// An open segment. What lies beyond the end of the file reads as zeros.
#[derive(Debug)]
pub(super) struct SegmentReader<'a, D: Directory> {
    directory: &'a D,
    file: D::File,
    name: String,
    base: u64,
    size: u64,
    /// Where the addresses end that the file has bytes for.
    filled: u64,
    data: Window,
    table: Window,
}

impl<'a, D: Directory> SegmentReader<'a, D> {
    pub(super) fn open(directory: &'a D, name: &str, base: u64, size: u64) -> Result<Self, OpenError> {
        let file = directory.open(name, false).map_err(OpenError::io("open", name))?;
        let len = directory.len(&file).map_err(OpenError::io("measure", name))?;
        let filled = base + len.saturating_sub(SEGMENT_HEADER_LEN as u64).min(size);
        let (data, table) = (Window::default(), Window::default());
        Ok(Self { directory, file, name: name.to_owned(), base, size, filled, data, table })
    }

    pub(super) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Behind it, the file has no bytes.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    fn fill(&mut self, is_table: bool, at: u64, len: usize) -> Result<(), OpenError> {
        let (window, room) = if is_table { (&mut self.table, TABLE) } else { (&mut self.data, DATA) };
        if window.holds(at, len) {
            return Ok(());
        }
        let left = self.size + SEGMENT_HEADER_LEN as u64 - at;
        let wanted = room.max(len).min(usize::try_from(left).unwrap_or(usize::MAX));
        window.start = at;
        window.bytes.resize(wanted);
        let read = self.directory.read_at(&self.file, &mut window.bytes, at);
        let read = read.map_err(OpenError::io("read", &self.name));
        if read.is_err() {
            window.bytes.resize(0);
        }
        window.bytes[*read.as_ref().unwrap_or(&0)..].fill(0);
        read.map(drop)
    }

    fn place(&self, address: u64, len: usize) -> u64 {
        assert!(
            address >= self.base && address + len as u64 <= self.end() && len <= MAX_READ,
            "{len} bytes at {address} are not in one segment"
        );
        address - self.base + SEGMENT_HEADER_LEN as u64
    }

    /// Returns `len` bytes at `address`, which the caller knows to be inside the segment.
    pub(super) fn read(&mut self, address: u64, len: usize) -> Result<&[u8], OpenError> {
        let at = self.place(address, len);
        self.fill(false, at, len)?;
        Ok(self.data.slice(at, len))
    }

    /// Like [`read`](Self::read), but leaves the data window where it is.
    pub(super) fn read_aside(&mut self, address: u64, into: &mut [u8]) -> Result<(), OpenError> {
        let (at, len) = (self.place(address, into.len()), into.len());
        let window = if self.data.holds(at, len) {
            &self.data
        } else {
            self.fill(true, at, len)?;
            &self.table
        };
        into.copy_from_slice(window.slice(at, len));
        Ok(())
    }

    /// Reads the batch header at `address`, which is the start of a block.
    pub(super) fn header(
        &mut self,
        manifest: &Manifest,
        address: u64,
    ) -> Result<Result<BatchHeader, HeaderRefusal>, OpenError> {
        let block = self.read(address, BLOCK)?;
        let Some(bytes) = block.first_chunk::<HEADER_LEN>() else { return Ok(Err(HeaderRefusal::Magic)) };
        Ok(BatchHeader::decode_at(bytes, &manifest.key, manifest.log_id, address))
    }
}
