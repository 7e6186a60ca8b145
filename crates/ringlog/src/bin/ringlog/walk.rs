//! From batch to batch through a log that has been judged: what its records do not show.

use ringlog::directory::{Directory, DiskFile};
use ringlog::format::{BLOCK, BatchHeader, HEADER_LEN, Manifest, RECORD_HEADER_LEN, RecordHeader, SEGMENT_HEADER_LEN};
use ringlog::segment::file_name;
use ringlog::{Lsn, OpenError, Recovery};

use crate::output::Failure;
use crate::source::{ReadOnly, Source};

/// Reads `buffer.len()` bytes of the log at `address`; what the file lacks reads as zeros. `false`: there is no such
/// file.
fn read(source: &Source, manifest: &Manifest, address: u64, buffer: &mut [u8]) -> Result<bool, Failure> {
    let within = address % manifest.segment_size;
    let name = file_name(address - within);
    let directory: &ReadOnly = source.directory();
    let file: DiskFile = match directory.open(&name, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(Failure::at(format!("cannot open {name}")))?,
    };
    let read = directory.read_at(&file, buffer, SEGMENT_HEADER_LEN as u64 + within);
    let read = read.map_err(Failure::at(format!("cannot read {name}")))?;
    buffer[read..].fill(0);
    Ok(true)
}

/// The header of the batch at `address`, if it is one of this log.
pub(crate) fn header_at(source: &Source, manifest: &Manifest, address: u64) -> Result<Option<BatchHeader>, Failure> {
    let mut bytes = [0; HEADER_LEN];
    if !address.is_multiple_of(BLOCK as u64) || !read(source, manifest, address, &mut bytes)? {
        return Ok(None);
    }
    Ok(BatchHeader::decode_at(&bytes, &manifest.key, manifest.log_id, address).ok())
}

/// The batches of a log, in order.
pub(crate) struct Walk<'a> {
    source: &'a Source,
    manifest: &'a Manifest,
    report: &'a Recovery,
    next: u64,
    payload: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(source: &'a Source, manifest: &'a Manifest, report: &'a Recovery) -> Self {
        Self { source, manifest, report, next: report.checked_from.get(), payload: Vec::new() }
    }

    /// The next batch, and where the one behind it begins.
    pub(crate) fn next(&mut self) -> Result<Option<(BatchHeader, u64)>, Failure> {
        while let Some(gap) = self.report.gaps.iter().find(|gap| gap.contains(&Lsn::new(self.next))) {
            self.next = gap.end.get();
        }
        let at = self.next;
        if at >= self.report.end.get() {
            return Ok(None);
        }
        let changed = || OpenError::Changed { file: file_name(at - at % self.manifest.segment_size), address: at };
        let header = header_at(self.source, self.manifest, at)?.ok_or_else(changed)?;
        self.payload.resize(header.payload_len as usize, 0);
        if !read(self.source, self.manifest, at + HEADER_LEN as u64, &mut self.payload)? {
            return Err(changed().into());
        }
        self.next = self.manifest.behind(&header);
        Ok(Some((header, self.next)))
    }

    /// The records of the newest batch: each header, and its payload.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordHeader, &[u8])> {
        let mut at = 0;
        core::iter::from_fn(move || {
            loop {
                let word = self.payload.get(at..)?.first_chunk::<RECORD_HEADER_LEN>()?;
                match RecordHeader::decode(word, HEADER_LEN + at) {
                    Ok(None) => at += RECORD_HEADER_LEN,
                    Ok(Some(record)) => {
                        let payload = self.payload.get(at + RECORD_HEADER_LEN..)?.get(..record.len as usize)?;
                        at += record.padded_len() as usize;
                        return Some((record, payload));
                    }
                    // A log that was verified has none.
                    Err(_) => return None,
                }
            }
        })
    }
}
