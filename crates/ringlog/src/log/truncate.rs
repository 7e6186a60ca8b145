//! Making the newest records void: by one more record that says so, and nothing rewritten.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::{Error, Log};
use crate::Lsn;
use crate::format::{RecordType, Truncation};
use crate::void::{self, MAX_VOIDS};

impl Log {
    /// Makes all records from `from` on void, for those who read the log now, and after a crash. The log itself goes
    /// on: addresses are not used again. Returns the range of the record that says so; it is durable like any other,
    /// and what is appended later is durable only if it is.
    ///
    /// Records that other threads append meanwhile are void if their addresses are below that record's.
    ///
    /// # Errors
    ///
    /// [`Error::NotAppended`] if `from` is beyond the end of the log, [`Error::Trimmed`] if it is before its beginning,
    /// [`Error::TooManyTruncations`], and those of [`append`](Self::append).
    pub fn truncate(&self, from: Lsn) -> Result<Range<Lsn>, Error> {
        // In one step from the append to the list, so that the list has the order of the log.
        self.change(|own| self.truncate_now(&mut own.void, from))
    }

    fn truncate_now(&self, void: &mut Vec<Range<Lsn>>, from: Lsn) -> Result<Range<Lsn>, Error> {
        let (first, end) = (self.first(), self.end());
        if from > end {
            return Err(Error::NotAppended { address: from, end });
        }
        if from < first {
            return Err(Error::Trimmed { first });
        }
        // Recovery begins with the segment that the log begins in.
        let recovered_from =
            Lsn::new(first.get() / self.inner.manifest.segment_size * self.inner.manifest.segment_size);
        void.retain(|range| range.end >= recovered_from);
        if void.partition_point(|range| range.end < from) >= MAX_VOIDS {
            return Err(Error::TooManyTruncations { max: MAX_VOIDS });
        }
        let payload = Truncation { from: from.get() }.encode();
        let placed = self.try_place(RecordType::Truncation, 0, [&payload[..]].into_iter())?;
        void::add(void, from..placed.start);
        // Relaxed: it orders nothing; the list is read under its lock, and a writer that goes on with a lease on
        // addresses below does so beside this call.
        self.inner.void_version.fetch_add(1, Ordering::Relaxed);
        Ok(placed)
    }

    /// Whether a truncation has made a record at this address void.
    pub(super) fn is_void(&self, at: Lsn) -> bool {
        void::contains(&self.inner.own.lock().void, at)
    }
}
