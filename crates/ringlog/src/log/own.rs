//! What a log keeps beside its records: named values, cursors, and the ranges that truncations have made void.
//!
//! Each change is a record, and one lock is held from its reservation until it is known here; so the changes are known
//! in the order of the log. Once per segment all of it is repeated as one record, a snapshot: opening can begin at any
//! segment that holds one, and trimming loses nothing.

use core::ops::Range;

use buffer_ring::ring_io::events;
use buffer_ring::{AppendError, BufferRing};

use super::append::encode;
use super::keeper::STEP;
use super::maintain::SOON;
use super::{Error, Log, range, record_len};
use crate::Lsn;
use crate::format::{Metadata, NOT_COUNTED, Position, RECORD_HEADER_LEN, REMOVED, RecordType, Snapshot, SnapshotEntry};
use crate::recovery::Report;
use crate::values::{Endangered, MAX_VALUES, Values};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) void: Vec<Range<Lsn>>,
    pub(super) values: Values,
    /// The segment with the newest snapshot. The first one of a log needs none.
    snapshot_in: u64,
    /// Behind the newest snapshot of this opening.
    snapshot_end: u64,
    /// Where trims that go on now will have the log begin: no cursor goes below.
    trims: Vec<u64>,
}

impl Log {
    /// Has `name` stand for `value`: small state that belongs to the log, such as a vote or a schema. It is a record in
    /// the order of the log, durable like any other, and is kept when the log is trimmed or truncated. Returns its
    /// range.
    ///
    /// ```
    /// use ringlog::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("my-log");
    /// let (log, _) = Log::options().open(&path)?;
    /// let at = log.set_meta("vote", b"7")?;
    /// assert_eq!(log.meta("vote").as_deref(), Some(&b"7"[..]));
    /// log.wait_durable(at.end)?;
    /// drop(log);
    /// let (log, recovery) = Log::options().open(&path)?;
    /// assert_eq!(recovery.meta("vote"), Some(&b"7"[..]));
    /// assert!(log.remove_meta("vote")?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if it does not fit a buffer, or all names and values take more than 64 KiB together; and
    /// those of [`append`](Self::append).
    pub fn set_meta(&self, name: &str, value: &[u8]) -> Result<Range<Lsn>, Error> {
        self.change(|own| {
            let others = own.values.len() - own.values.metas.len_of(name.as_bytes());
            self.check_name(name.len() + value.len(), others)?;
            self.say(own, name.as_bytes(), Some(value))
        })
    }

    /// Has `name` stand for nothing. Returns the range of the record that says so; `None` if it does already.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn remove_meta(&self, name: &str) -> Result<Option<Range<Lsn>>, Error> {
        self.change(|own| match own.values.metas.get(name.as_bytes()) {
            Some(_) => self.say(own, name.as_bytes(), None).map(Some),
            None => Ok(None),
        })
    }

    /// Returns what a name stands for, durable or not. In a forked child it is nothing.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.check_process().ok()?;
        self.inner.own.lock().values.metas.get(name.as_bytes()).cloned()
    }

    /// Makes a change, which appends a record without waiting: [`Error::Full`] has it called again when there is room.
    /// The lock is not held until then, because a trim takes it, and may be what makes the room.
    pub(super) fn change<R>(&self, mut change: impl FnMut(&mut Own) -> Result<R, Error>) -> Result<R, Error> {
        self.inner.check_process()?;
        loop {
            match self.try_change(&mut change) {
                Err(Error::Full) => drop(self.inner.ring.reserve(RECORD_HEADER_LEN)?),
                changed => return changed,
            }
        }
    }

    fn try_change<R>(&self, change: impl FnOnce(&mut Own) -> Result<R, Error>) -> Result<R, Error> {
        let _held = events::hold();
        change(&mut self.inner.own.lock())
    }

    /// Whether `len` bytes of a name and what it stands for fit beside all others.
    pub(super) fn check_name(&self, len: usize, others: usize) -> Result<(), Error> {
        let max = (self.inner.longest - NAME_LEN).min(MAX_VALUES.saturating_sub(others));
        if len > max { Err(Error::TooLarge { len, max }) } else { Ok(()) }
    }

    fn say(&self, own: &mut Own, name: &[u8], value: Option<&[u8]>) -> Result<Range<Lsn>, Error> {
        let kind = if value.is_some() { 0 } else { REMOVED };
        let len = (name.len() as u32).to_le_bytes();
        let parts = [&len[..], name, value.unwrap_or_default()];
        let placed = self.try_place(RecordType::Metadata, kind, parts.into_iter())?;
        own.values.metas.set(name, value.map(<[u8]>::to_vec), placed.start.get(), self.durable().get());
        Ok(placed)
    }

    /// Appends one of the log's own records, without waiting.
    pub(super) fn try_place<'a>(
        &self,
        record_type: RecordType,
        kind: u8,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Range<Lsn>, Error> {
        let len = parts.clone().map(<[u8]>::len).sum();
        let mut reserved = self.inner.ring.try_reserve(record_len(len))?;
        encode(reserved.placement(), record_type, kind, len, parts, &mut reserved);
        Ok(range(reserved.commit()))
    }

    /// Sees to it that no named value is lost when all below `address` goes, which no cursor is below.
    pub(super) fn keep_values(&self, address: u64) -> Result<(), Error> {
        // A cursor is never lost: what was said of it stands at or above its position.
        let mut needed = Lsn::START;
        let mut say_again = |own: &mut Own| {
            for endangered in own.values.metas.endangered(address, self.durable().get()) {
                needed = needed.max(match endangered {
                    Endangered::Value(name, value) => self.say(own, &name, Some(&value))?.end,
                    // All of its batch becomes durable at once.
                    Endangered::Staged(at) => Lsn::new(at + RECORD_HEADER_LEN as u64),
                });
            }
            Ok(())
        };
        while let Err(error) = self.try_change(&mut say_again) {
            if !matches!(error, Error::Full) {
                return Err(error);
            }
            match self.inner.ring.reserve_timeout(RECORD_HEADER_LEN, SOON).map_err(Error::from) {
                Err(Error::TimedOut) => self.inner.keeper.check_segments()?,
                room => drop(room?),
            }
        }
        while needed > self.durable() {
            match self.wait_durable_timeout(needed, SOON) {
                Err(Error::TimedOut) => self.inner.keeper.check_segments()?,
                outcome => return outcome,
            }
        }
        Ok(())
    }
}

/// Bytes beside a name and its value.
const NAME_LEN: usize = RecordType::Metadata.prefix_len();

impl Own {
    pub(super) fn recovered(report: &Report) -> Self {
        let snapshot_at = report.values.snapshot().unwrap_or(report.first.get());
        let (void, values) = (report.void.clone(), report.values.clone());
        let snapshot_in = snapshot_at / report.segment_size;
        Self { void, values, snapshot_in, snapshot_end: 0, trims: Vec::new() }
    }

    /// Whether a segment has been begun, by a log that goes on at `end`, and holds no snapshot.
    pub(super) fn needs_snapshot(&self, end: u64, segment_size: u64) -> bool {
        end / segment_size > self.snapshot_in
    }

    /// Whether nothing was appended behind the newest snapshot.
    pub(super) fn ends_at(&self, tail: u64) -> bool {
        self.snapshot_end == tail
    }

    /// Appends a snapshot, without waiting for long. `false`: the ring has no room.
    pub(super) fn add_snapshot(&mut self, ring: &BufferRing, end: u64, segment_size: u64) -> bool {
        let values = self.values.metas.iter().map(|(name, value)| SnapshotEntry::Metadata(Metadata { name, value }));
        let cursors = self.values.cursors.iter();
        let cursors = cursors.map(|(name, &position)| SnapshotEntry::Cursor(Position { position, name }));
        let voids = self.void.iter().map(|void| SnapshotEntry::Void { from: void.start.get(), to: void.end.get() });
        let entries = values.chain(cursors).chain(voids).collect();
        let payload = Snapshot { complete_to: 0, records: NOT_COUNTED, entries }.encode();
        let at = match ring.reserve_timeout(record_len(payload.len()), STEP) {
            Ok(mut reserved) => {
                let at = reserved.extent().start();
                // It is complete to where it stands, which is known only now.
                let parts = [&at.to_le_bytes()[..], &payload[8..]];
                encode(reserved.placement(), RecordType::Snapshot, 0, payload.len(), parts, &mut reserved);
                self.snapshot_end = reserved.commit().end();
                self.values.repeat(at, ring.durable_watermark());
                at
            }
            Err(AppendError::TimedOut | AppendError::RingFull | AppendError::Sealed) => return false,
            // It does not fit a buffer, or the log has ended. Then opening begins with an earlier segment.
            Err(_) => end,
        };
        self.snapshot_in = at / segment_size;
        true
    }
}

/// A trim that goes on.
pub(super) struct Trim<'a> {
    log: &'a Log,
    /// Where the log will begin.
    pub(super) to: u64,
    /// The cursor that holds it back, if one does.
    pub(super) held_by: Option<String>,
}

impl Log {
    /// Begins a trim to `to`, or to the lowest cursor. Until it has ended, no cursor goes below.
    pub(super) fn begin_trim(&self, to: u64) -> Trim<'_> {
        let _held = events::hold();
        let own = &mut *self.inner.own.lock();
        let lowest = own.values.cursors.lowest(self.durable().get());
        let holds = lowest.filter(|(position, _)| *position < to);
        let to = holds.map_or(to, |(position, _)| position);
        let held_by = holds.map(|(_, name)| String::from_utf8_lossy(name).into_owned());
        own.trims.push(to);
        Trim { log: self, to, held_by }
    }
}

impl Own {
    /// Where the log begins, as a cursor sees it that is not there yet, or goes backwards.
    pub(super) fn first(&self, log: &Log) -> Lsn {
        self.trims.iter().map(|to| Lsn::new(*to)).fold(log.first(), Lsn::max)
    }
}

impl Drop for Trim<'_> {
    fn drop(&mut self) {
        let _held = events::hold();
        let trims = &mut self.log.inner.own.lock().trims;
        if let Some(this) = trims.iter().position(|to| *to == self.to) {
            trims.swap_remove(this);
        }
    }
}
