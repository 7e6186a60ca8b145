//! Batches of segment files, one at a time: read ahead by the mebibyte, and verified before anything of them is used.

use core::ops::Range;

use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{BLOCK, BatchHeader, HEADER_LEN, HeaderRefusal, Manifest};
use crate::pages::Pages;
use crate::recovery::{Content, check_batch};
use crate::segment::place;

/// Bytes that a reader of many batches reads at once, unless a batch is longer.
pub(crate) const AHEAD: usize = 1 << 20;

/// Reads batches. The newest one stays in memory.
#[derive(Debug)]
pub(crate) struct BatchReader<F> {
    /// The number of the segment that is open, and its file.
    file: Option<(u64, F)>,
    ahead: usize,
    window: Pages,
    /// The address of the window's first byte.
    start: u64,
    /// Bytes of the window that are read.
    len: usize,
    /// The newest batch, if it is as it was sealed; it is in the window.
    verified: Option<BatchHeader>,
}

/// A batch that is not as it was sealed: what stands there, and where the next one begins, if that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bad {
    pub(crate) content: Content,
    pub(crate) next: Option<u64>,
}

impl<F> BatchReader<F> {
    /// A reader that reads so many bytes at once.
    pub(crate) fn new(ahead: usize) -> Self {
        Self { file: None, ahead, window: Pages::default(), start: 0, len: 0, verified: None }
    }

    /// Where the newest batch begins, if it holds the record at `at`.
    pub(crate) fn verified(&self, at: u64) -> Option<u64> {
        let header = self.verified.as_ref()?;
        let records = header.address + HEADER_LEN as u64..header.address + header.layout().table as u64;
        records.contains(&at).then_some(header.address)
    }

    /// Closes the file. The newest batch stays.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Reads the batch at `at`, and verifies all of it, unless it is the newest one. What lies at `end` or behind is
    /// not read, as it may still change.
    pub(crate) fn load<D: Directory<File = F>>(
        &mut self,
        directory: &D,
        manifest: &Manifest,
        at: u64,
        end: u64,
    ) -> Result<Result<BatchHeader, Bad>, OpenError> {
        let bad = |content| Ok(Err(Bad { content, next: None }));
        let segment_end = (manifest.segment_of(at) + 1) * manifest.segment_size;
        let end = end.min(segment_end);
        if let Some(header) = self.verified.filter(|header| header.address == at) {
            return Ok(Ok(header));
        }
        if !self.open(directory, manifest, at)? {
            return Ok(Err(Bad { content: Content::MissingFile, next: Some(segment_end) }));
        }
        let filled = self.fill(directory, manifest, at, BLOCK.min(left(at, end)), end)?;
        let header = match decode(self.bytes(at, filled), manifest, at) {
            Ok(header) => header,
            Err(refusal) => {
                let (file, _) = place(at, manifest.segment_size);
                let content = Content::of_refused(refusal, self.bytes(at, filled));
                return bad(content.map_err(|refusal| OpenError::Header { file, address: at, refusal })?);
            }
        };
        if !manifest.epoch_fits(&header, None) {
            return bad(Content::StaleBatch { number: header.number, epoch: header.epoch });
        }
        let len = header.layout().len;
        if len > left(at, end) {
            return bad(Content::BadLength);
        }
        let filled = self.fill(directory, manifest, at, len, end)?;
        // What the file does not have reads as zeros: the end of the padding may be missing.
        self.window[filled..len].fill(0);
        self.len = self.len.max(len);
        let content = check_batch(&header, self.bytes(at, len));
        if content.is_none() {
            self.verified = Some(header);
        }
        Ok(content.map_or(Ok(header), |content| Err(Bad { content, next: Some(manifest.behind(&header)) })))
    }

    /// Where the bytes that hold records are in the window, of the batch with this header, which was the last one read.
    pub(crate) fn payload(&self, header: &BatchHeader) -> Range<usize> {
        let start = (header.address - self.start) as usize;
        start + HEADER_LEN..start + header.layout().table
    }

    pub(crate) fn window(&self) -> &[u8] {
        &self.window
    }

    /// The header of the batch at `at`, the start of a block, if there is one that belongs there; nothing else of it is
    /// verified.
    pub(crate) fn header<D: Directory<File = F>>(
        &mut self,
        directory: &D,
        manifest: &Manifest,
        at: u64,
    ) -> Result<Option<BatchHeader>, OpenError> {
        let bytes: [u8; HEADER_LEN] = self.peek(directory, manifest, at)?;
        Ok(decode(&bytes, manifest, at).ok().filter(|header| manifest.epoch_fits(header, None)))
    }

    /// Bytes as they are in the file, not verified; those that are missing are zeros.
    pub(crate) fn peek<D: Directory<File = F>, const N: usize>(
        &mut self,
        directory: &D,
        manifest: &Manifest,
        at: u64,
    ) -> Result<[u8; N], OpenError> {
        let mut bytes = [0; N];
        if self.open(directory, manifest, at)?
            && let Some((_, file)) = &self.file
        {
            let (name, offset) = place(at, manifest.segment_size);
            directory.read_at(file, &mut bytes, offset).map_err(OpenError::io("read", &name))?;
        }
        Ok(bytes)
    }

    /// Opens the segment that holds `at`. `false`: it does not exist.
    fn open<D: Directory<File = F>>(&mut self, directory: &D, manifest: &Manifest, at: u64) -> Result<bool, OpenError> {
        let segment = manifest.segment_of(at);
        if self.file.as_ref().is_some_and(|(open, _)| *open == segment) {
            return Ok(true);
        }
        (self.file, self.len, self.verified) = (None, 0, None);
        let (name, _) = place(at, manifest.segment_size);
        match directory.open(&name, false) {
            Ok(file) => self.file = Some((segment, file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(OpenError::io("open", &name)(error)),
        }
        Ok(true)
    }

    /// Has `len` bytes from `at` on in the window, and reads ahead, up to `end`. Fewer: the file ends before.
    fn fill<D: Directory<File = F>>(
        &mut self,
        directory: &D,
        manifest: &Manifest,
        at: u64,
        len: usize,
        end: u64,
    ) -> Result<usize, OpenError> {
        if at < self.start || at > self.start + self.len as u64 {
            (self.start, self.len) = (at, 0);
        }
        let before = (at - self.start) as usize;
        if self.len - before >= len {
            return Ok(len);
        }
        self.verified = None;
        self.window.copy_within(before..self.len, 0);
        (self.start, self.len) = (at, self.len - before);
        let wanted = self.ahead.max(len).min(left(at, end));
        if wanted > self.window.len() {
            self.window.resize(wanted);
        }
        let (name, offset) = place(at, manifest.segment_size);
        if let Some((_, file)) = &self.file {
            let read = directory.read_at(file, &mut self.window[self.len..wanted], offset + self.len as u64);
            self.len += read.map_err(OpenError::io("read", &name))?;
        }
        Ok(len.min(self.len))
    }

    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        &self.window[(at - self.start) as usize..][..len]
    }
}

fn left(at: u64, end: u64) -> usize {
    usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX)
}

fn decode(bytes: &[u8], manifest: &Manifest, at: u64) -> Result<BatchHeader, HeaderRefusal> {
    let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(HeaderRefusal::Magic)?;
    BatchHeader::decode_at(bytes, &manifest.key, manifest.log_id, at)
}
