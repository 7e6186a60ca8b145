//! Looking after the log: trimming, rolling, closing.

use core::ops::Range;
use core::time::Duration;

use buffer_ring::RingError;

use super::append::append_noop;
use super::{Error, Inner, Log};
use crate::Lsn;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{BatchHeader, FirstBatch, HEADER_LEN};
use crate::segment::{place, remove};

/// Trimmed segments that are kept to be used again.
const KEPT: usize = 2;

/// How long closing waits before it looks whether the next segment is what it waits for: at first, and then, so long
/// that the ring finds out about leaked reservations first.
pub(super) const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(7);

/// What a trim has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Where the log begins now.
    pub first: Lsn,
    /// Bytes of segments that were removed, or will be used again.
    pub bytes: u64,
    /// The name of the [cursor](crate::Cursor) that held the trim back, if one did: the lowest one. Or "a reader": a
    /// [scan](crate::Scan) or a [follower](crate::Follow) that has not given what lies behind.
    pub held_by: Option<String>,
}

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The addresses that it holds; of the last one, those that are given out.
    pub range: Range<Lsn>,
}

impl Log {
    /// Where the log begins: what was before is trimmed.
    #[must_use]
    pub fn first(&self) -> Lsn {
        Lsn::new(self.inner.keeper.first())
    }

    /// Gives up what lies before `before`, or before the durable end of the log, the lowest [cursor](Self::cursor) or
    /// the lowest reader if that is lower. Segments that lie below as a whole are removed, or used again. If there is
    /// none, nothing changes.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: then close the log, and open it anew. [`Error::NoSegment`]: a [named value](Self::set_meta) has
    /// to be written again first, and the disk is full. [`Error::Closed`] and [`Error::Poisoned`], if one has to be;
    /// [`Error::Forked`].
    pub fn trim(&self, before: Lsn) -> Result<Trimmed, Error> {
        let (inner, keeper) = (&*self.inner, &*self.inner.keeper);
        inner.check_process()?;
        let (size, durable) = (inner.manifest.segment_size, inner.durable_batch());
        let going = self.begin_trim(before.get().min(durable));
        let (to, mut held_by) = (going.to, going.held_by.clone());
        if to / size > keeper.first() / size {
            self.keep_values(to / size * size)?;
        }
        // One trim at a time.
        let mut opened = keeper.manifest();
        let holds = inner.holds.lock();
        let held = holds.lowest().filter(|held| *held < to);
        if held.is_some() {
            held_by = Some("a reader".into());
        }
        let to = held.unwrap_or(to);
        let nothing = Trimmed { first: Lsn::new(opened.manifest().trim), bytes: 0, held_by: held_by.clone() };
        if to / size <= opened.manifest().first_segment() {
            return Ok(nothing);
        }
        let Some(first) = inner.first_batch(to / size * size)? else { return Ok(nothing) };
        let trimming = inner.holds.begin_trim(holds, to);
        let mut pool = keeper.pool();
        let mut free = opened.trim(keeper.directory(), to, first, durable)?;
        keeper.note_trim(to);
        drop((trimming, opened));
        free.retain(|name| !pool.contains(name));
        if let Some(io) = keeper.io.upgrade() {
            // One that is being read now is removed when the log is opened again.
            match io.remove_segments_before(to / size) {
                Ok(_removed) => {}
                Err(_in_use) => free.clear(),
            }
        }
        let bytes = free.len() as u64 * size;
        let surplus = free.split_off(free.len().min(KEPT - pool.len().min(KEPT)));
        remove(keeper.directory(), &surplus)?;
        pool.extend(free);
        Ok(Trimmed { first: Lsn::new(to), bytes, held_by })
    }

    /// Makes the log go on in a new segment, and returns where that begins: behind all that was appended before the
    /// call. Appends go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Poisoned`] and [`Error::Forked`].
    pub fn roll(&self) -> Result<Lsn, Error> {
        self.inner.check_process()?;
        let (ring, size) = (&self.inner.ring, self.inner.manifest.segment_size);
        let before = ring.tail();
        let begun = || Some(ring.tail() / size * size).filter(|start| *start >= before).map(Lsn::new);
        loop {
            ring.roll();
            if let Some(start) = begun() {
                return Ok(start);
            }
            // A batch has to end the segment, and either there is none, or another thread had it sealed before it was
            // to be the last. This also waits for a buffer, and finds out that the log is closed.
            append_noop(ring)?;
            if let Some(start) = begun() {
                return Ok(start);
            }
        }
    }

    /// The segments that hold the log, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        let (size, end) = (self.inner.manifest.segment_size, self.end().get());
        let first = self.first().get() / size;
        let range = |number: u64| Lsn::new(number * size)..Lsn::new(((number + 1) * size).min(end));
        (first..=end / size).map(|number| Segment { range: range(number) }).collect()
    }

    /// Whether the log can go on where it is: for a program that had no room without waiting, and must not wait for an
    /// operator to make some.
    ///
    /// # Errors
    ///
    /// [`Error::NoSegment`]: the segment that it needs next cannot be made, as on a full disk. [`Error::Forked`].
    pub fn check_room(&self) -> Result<(), Error> {
        self.inner.check_process()?;
        self.inner.keeper.check_segments()
    }

    /// Closes the log for all clones and writers: what was appended becomes durable, `MANIFEST` says where the log
    /// ends, and whatever comes later fails with [`Error::Closed`]. Returns that end.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], and [`Error::File`] for `MANIFEST`: the log will be recovered when it is opened.
    /// [`Error::NoSegment`]: closing goes on when this is called again. [`Error::Forked`].
    pub fn close(&self) -> Result<Lsn, Error> {
        self.inner.close()
    }
}

impl Inner {
    pub(super) fn close(&self) -> Result<Lsn, Error> {
        self.check_process()?;
        let mut closed = self.closed.lock();
        let mut patience = SOON;
        loop {
            match self.ring.close_timeout(patience) {
                Err(RingError::TimedOut) => {
                    self.keeper.check_segments()?;
                    patience = LATER;
                }
                closed => {
                    closed?;
                    break;
                }
            }
        }
        let end = self.durable_batch();
        if !*closed {
            self.keeper.manifest().close(self.keeper.directory(), end)?;
            *closed = true;
        }
        Ok(Lsn::new(end))
    }

    /// The durable watermark, as the address of a batch.
    pub(super) fn durable_batch(&self) -> u64 {
        self.ring.durable_watermark() - HEADER_LEN as u64
    }

    /// What the batch at `address`, the first of its segment, is expected to be; `None` if none is there.
    fn first_batch(&self, address: u64) -> Result<Option<FirstBatch>, OpenError> {
        Ok(self.header_at(address)?.map(|head| FirstBatch {
            number: head.number,
            previous: head.previous,
            epoch: Some((head.epoch, head.salt)),
        }))
    }

    /// The header of the batch at `address`, if there is one of the epoch that belongs there: not what an earlier
    /// opening cut off.
    pub(super) fn header_at(&self, address: u64) -> Result<Option<BatchHeader>, OpenError> {
        let (manifest, bytes) = (&self.manifest, self.bytes_at(address)?);
        let head = BatchHeader::decode_at(&bytes, &manifest.key, manifest.log_id, address).ok();
        Ok(head.filter(|head| manifest.epoch_fits(head, None)))
    }

    /// Bytes of the log as they are in its file, not checked; those that are missing are zeros.
    pub(super) fn bytes_at<const N: usize>(&self, address: u64) -> Result<[u8; N], OpenError> {
        let (directory, mut bytes) = (self.keeper.directory(), [0; N]);
        let (name, offset) = place(address, self.manifest.segment_size);
        let file = directory.open(&name, false).map_err(OpenError::io("open", &name))?;
        directory.read_at(&file, &mut bytes, offset).map_err(OpenError::io("read", &name))?;
        Ok(bytes)
    }
}
