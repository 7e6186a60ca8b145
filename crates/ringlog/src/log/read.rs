//! Reading one record back, checked.

use super::{Error, Log};
use crate::Lsn;
use crate::error::OpenError;
use crate::format::{BLOCK, RECORD_HEADER_LEN, u16_at};
use crate::recovery::read_one;

impl Log {
    /// Reads the record at `at` into `into`, whose old content goes, and returns its kind. Its batch is read and
    /// verified; of a group it is the first payload. A record that is not durable yet is made so first.
    ///
    /// # Errors
    ///
    /// [`Error::Trimmed`], [`Error::Truncated`], [`Error::NotAppended`], [`Error::NotARecord`] and [`Error::Damaged`];
    /// and those of [`sync`](Self::sync).
    pub fn read(&self, at: Lsn, into: &mut Vec<u8>) -> Result<u8, Error> {
        self.inner.check_process()?;
        let (first, end) = (self.first(), self.end());
        if at < first {
            return Err(Error::Trimmed { first });
        }
        if at >= end {
            return Err(Error::NotAppended { address: at, end });
        }
        if self.is_void(at) {
            return Err(Error::Truncated(at));
        }
        // Before the look: what becomes durable meanwhile may not have been seen.
        let mut durable = self.durable();
        if at >= durable {
            durable = self.sync()?;
        }
        let mut found = self.look(at)?;
        if found.is_none() && durable < end {
            // Further parts of it may be missing.
            self.sync()?;
            found = self.look(at)?;
        }
        let (kind, payload) = found.ok_or(Error::NotARecord(at))?;
        *into = payload;
        Ok(kind)
    }

    /// The record at `at`, if all of it is durable.
    fn look(&self, at: Lsn) -> Result<Option<(u8, Vec<u8>)>, Error> {
        match (self.find(at), self.first()) {
            (Ok(Some(found)), _) => Ok(Some(found)),
            // Its file went meanwhile, or is used again.
            (_, first) if at < first => Err(Error::Trimmed { first }),
            (Err(OpenError::Changed { .. } | OpenError::Record { .. }), _) => Err(Error::Damaged(at)),
            (found, _) => Ok(found?),
        }
    }

    fn find(&self, at: Lsn) -> Result<Option<(u8, Vec<u8>)>, OpenError> {
        let inner = &self.inner;
        let (manifest, directory, size) = (&inner.manifest, inner.keeper.directory(), inner.manifest.segment_size);
        let header: [u8; RECORD_HEADER_LEN] = inner.bytes_at(at.get())?;
        // Only a hint: the header of the batch there is signed, and all records up to this one are read.
        let blocks = at.get() / BLOCK as u64;
        let base = blocks.checked_sub(u64::from(u16_at(&header, 4))).map(|block| block * BLOCK as u64);
        let Some(base) = base.filter(|base| *base >= at.get() / size * size) else { return Ok(None) };
        let mut report = inner.report.clone();
        (report.first, report.end) = (at, Lsn::new(inner.durable_batch()));
        match read_one(directory, manifest, &report, &inner.replay, base, at) {
            // No batch is there: the hint was no record's.
            Err(OpenError::Changed { address, .. }) if address == base && inner.header_at(base)?.is_none() => Ok(None),
            found => found,
        }
    }
}
