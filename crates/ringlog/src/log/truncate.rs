//! Making the newest records void: by one more record that says so, and nothing rewritten.

use core::ops::Range;

use super::{Error, Log};
use crate::Lsn;
use crate::format::{RecordType, Truncation};

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
    /// and those of [`append`](Self::append).
    pub fn truncate(&self, from: Lsn) -> Result<Range<Lsn>, Error> {
        // From the append to the list, so that the list has the order of the log.
        let mut void = self.inner.void.lock();
        let (first, end) = (self.first(), self.end());
        if from > end {
            return Err(Error::NotAppended { address: from, end });
        }
        if from < first {
            return Err(Error::Trimmed { first });
        }
        let payload = Truncation { from: from.get() }.encode();
        let placed = self.place(RecordType::Truncation, 0, [&payload[..]].into_iter())?;
        void.add(from..placed.start);
        Ok(placed)
    }

    /// Whether a truncation has made a record at this address void.
    pub(super) fn is_void(&self, at: Lsn) -> bool {
        self.inner.void.lock().contains(at)
    }
}

/// Ranges of void records, in order and apart.
#[derive(Debug, Default)]
pub(super) struct Void(Vec<Range<Lsn>>);

impl Void {
    /// As recovery found them.
    pub(super) fn new(ranges: Vec<Range<Lsn>>) -> Self {
        Self(ranges)
    }

    /// Adds a range that ends behind all others.
    fn add(&mut self, mut range: Range<Lsn>) {
        while let Some(last) = self.0.pop_if(|last| last.end >= range.start) {
            range.start = range.start.min(last.start);
        }
        self.0.push(range);
    }

    fn contains(&self, at: Lsn) -> bool {
        let behind = self.0.partition_point(|range| range.end <= at);
        self.0.get(behind).is_some_and(|range| range.contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_ranges_merge_where_they_meet() {
        let mut void = Void::default();
        let range = |start, end| Lsn::new(start)..Lsn::new(end);
        for (start, end) in [(10, 20), (30, 40), (50, 60)] {
            void.add(range(start, end));
        }
        assert_eq!(void.0.len(), 3);
        let void_at = |void: &Void| (0..80).filter(|at| void.contains(Lsn::new(*at))).collect::<Vec<_>>();
        assert_eq!(void_at(&void), [(10..20), (30..40), (50..60)].into_iter().flatten().collect::<Vec<_>>());
        void.add(range(35, 70));
        assert_eq!(void.0, [range(10, 20), range(30, 70)]);
        void.add(range(5, 75));
        assert_eq!(void.0, [range(5, 75)]);
    }
}
