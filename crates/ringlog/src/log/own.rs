//! What a log keeps beside its records: named values, and the ranges that truncations have made void.
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
use super::{Error, Log, record_len};
use crate::Lsn;
use crate::format::{Metadata, NOT_COUNTED, RECORD_HEADER_LEN, REMOVED, RecordType, Snapshot, SnapshotEntry};
use crate::recovery::Report;
use crate::values::{Endangered, MAX_VALUES, Values};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) void: Vec<Range<Lsn>>,
    values: Values,
    /// The segment with the newest snapshot. The first one of a log needs none.
    snapshot_in: u64,
    /// Behind the newest snapshot of this opening.
    snapshot_end: u64,
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
        self.inner.check_process()?;
        let _held = events::hold();
        let mut own = self.inner.own.lock();
        let others = own.values.len() - own.values.get(name.as_bytes()).map_or(0, |value| name.len() + value.len());
        let (len, max) = (name.len() + value.len(), (self.inner.longest - NAME_LEN).min(MAX_VALUES - others));
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        self.say(&mut own, name.as_bytes(), Some(value))
    }

    /// Has `name` stand for nothing. Returns the range of the record that says so; `None` if it does already.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn remove_meta(&self, name: &str) -> Result<Option<Range<Lsn>>, Error> {
        self.inner.check_process()?;
        let _held = events::hold();
        let mut own = self.inner.own.lock();
        if own.values.get(name.as_bytes()).is_none() {
            return Ok(None);
        }
        self.say(&mut own, name.as_bytes(), None).map(Some)
    }

    /// Returns what a name stands for, durable or not. In a forked child it is nothing.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.check_process().ok()?;
        self.inner.own.lock().values.get(name.as_bytes()).map(<[u8]>::to_vec)
    }

    fn say(&self, own: &mut Own, name: &[u8], value: Option<&[u8]>) -> Result<Range<Lsn>, Error> {
        let kind = if value.is_some() { 0 } else { REMOVED };
        let len = (name.len() as u32).to_le_bytes();
        let parts = [&len[..], name, value.unwrap_or_default()];
        let placed = self.place(RecordType::Metadata, kind, parts.into_iter())?;
        own.values.set(name, value, placed.start.get(), self.durable().get());
        Ok(placed)
    }

    /// Sees to it that no named value is lost when all below `address` goes.
    pub(super) fn keep_values(&self, address: u64) -> Result<(), Error> {
        let mut needed = Lsn::START;
        {
            let _held = events::hold();
            let mut own = self.inner.own.lock();
            for endangered in own.values.endangered(address, self.durable().get()) {
                needed = needed.max(match endangered {
                    Endangered::Value(name, value) => self.say(&mut own, &name, Some(&value))?.end,
                    // All of its batch becomes durable at once.
                    Endangered::Staged(at) => Lsn::new(at + RECORD_HEADER_LEN as u64),
                });
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

/// Bytes of a name's length.
const NAME_LEN: usize = RecordType::Metadata.prefix_len();

impl Own {
    pub(super) fn recovered(report: &Report) -> Self {
        let snapshot_at = report.values.snapshot().unwrap_or(report.first.get());
        let (void, values) = (report.void.clone(), report.values.clone());
        Self { void, values, snapshot_in: snapshot_at / report.segment_size, snapshot_end: 0 }
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
        let values = self.values.iter().map(|(name, value)| SnapshotEntry::Metadata(Metadata { name, value }));
        let voids = self.void.iter().map(|void| SnapshotEntry::Void { from: void.start.get(), to: void.end.get() });
        let entries = values.chain(voids).collect();
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
