//! Reading records back, checked.

use core::ops::{Range, RangeBounds};
use core::sync::atomic::Ordering;
#[cfg(feature = "async")]
use core::task::{Poll, Waker};
use core::time::Duration;
use std::sync::Arc;

use buffer_ring::{DurableWatch, Peek, RingError};

use super::{Error, Hold, Log};
use crate::Lsn;
#[cfg(feature = "async")]
use crate::OpenError;
use crate::directory::AnyDirectory;
use crate::format::Manifest;
use crate::reading::{Event, File, Follow, Forward, Origin, Problem, Scan, Upto};
#[cfg(feature = "async")]
use crate::tasks::{Pace, Reads};

/// Bytes that are read at once: records are mostly short, and in batches of a few blocks.
const AHEAD: usize = 16 << 10;

/// Batches that stay in memory, verified, for further records of them.
const KEPT: usize = 2;

impl Log {
    /// Reads the record at `at` into `into`, whose old content goes, and returns its kind. Its batch is read and
    /// verified, unless it is one of the two that were read last; of a group it is the first payload. A record that is
    /// not durable yet is made so first.
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
        let mut found = self.find(at, into)?;
        if found.is_none() && durable < end {
            // Further parts of it may be missing.
            self.sync()?;
            found = self.find(at, into)?;
        }
        // It may have gone meanwhile.
        let first = self.first();
        found.ok_or(if at < first { Error::Trimmed { first } } else { Error::NotARecord(at) })
    }

    /// Reads the record at `at`, if all of it is durable.
    fn find(&self, at: Lsn, into: &mut Vec<u8>) -> Result<Option<u8>, Error> {
        let mut forward = self.take_reader(at);
        let found = self.find_with(&mut forward, at, into);
        self.keep_reader(forward);
        found
    }

    /// A reader that has the batch with the record at `at` in memory, or another one.
    fn take_reader(&self, at: Lsn) -> Forward<File> {
        let mut readers = self.inner.readers.lock();
        // The memory of the oldest one.
        let oldest = (readers.len() == KEPT).then_some(0);
        match readers.iter().position(|reader| reader.has_read(at)).or(oldest) {
            Some(reader) => readers.remove(reader),
            None => Forward::new(self.max_record(), 0, AHEAD),
        }
    }

    fn keep_reader(&self, mut reader: Forward<File>) {
        // The space of a segment that is removed is free when no process has it open.
        reader.close();
        let mut readers = self.inner.readers.lock();
        // Other threads may have brought theirs back.
        if readers.len() < KEPT {
            readers.push(reader);
        }
    }

    fn find_with(&self, forward: &mut Forward<File>, at: Lsn, into: &mut Vec<u8>) -> Result<Option<u8>, Error> {
        let inner = &self.inner;
        let origin = Origin::Open(self.clone());
        let (files, end) = (&origin.files(&inner.manifest), inner.durable_batch());
        let base = forward.locate(files, at.get(), end)?;
        forward.seek_record(base, at);
        let mut damage = None;
        loop {
            match forward.advance(files, end) {
                Ok(Some(Event::Record)) if forward.met().lsn == at => {
                    into.clear();
                    into.extend_from_slice(forward.record().payload);
                    return Ok(Some(forward.met().kind));
                }
                // Parts of it may be followed by other records.
                Ok(Some(Event::Record)) if forward.met().lsn > at && !forward.is_open(at) => break,
                Ok(Some(_)) => {}
                Ok(None) => break,
                // It may lie between the parts.
                Err(problem @ Problem::Damaged { .. }) if forward.is_open(at) => damage = damage.or(Some(problem)),
                Err(problem) => return Err(origin.explain(problem)),
            }
        }
        damage.map_or(Ok(None), |problem| Err(origin.explain(problem)))
    }

    /// [`read`](Self::read) as a future: the kind of the record at `at`, and its payload. A thread of the log reads it.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read), and [`Error::File`] if the thread cannot be started.
    #[cfg(feature = "async")]
    pub fn read_async(&self, at: Lsn) -> impl Future<Output = Result<(u8, Vec<u8>), Error>> + Send + 'static {
        let log = self.clone();
        async move {
            log.inner.check_process()?;
            let reader = log.clone();
            let answer = log.inner.reads.start(move || {
                let mut payload = Vec::new();
                reader.read(at, &mut payload).map(|kind| (kind, payload))
            })?;
            core::future::poll_fn(|context| answer.take(context.waker()).map_or(Poll::Pending, Poll::Ready)).await
        }
    }

    /// The records of a range, in the order of the log: see [`Scan`]. Without an end, it is what is durable when the
    /// first record is read; a range that ends behind that is made durable first.
    ///
    /// ```
    /// use ringlog::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("")?;
    /// log.append(1, b"one")?;
    /// let two = log.append(2, b"two")?;
    /// let mut scan = log.scan(..two.end);
    /// while let Some(record) = scan.next()? {
    ///     println!("{}: {:?}", record.lsn, record.payload);
    /// }
    /// assert_eq!(log.scan(two.start..two.end).next()?.map(|record| record.kind), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn scan(&self, range: impl RangeBounds<Lsn>) -> Scan {
        Scan::new(Origin::Open(self.clone()), &range)
    }

    /// All records that end behind `from`, and those that come: see [`Follow`]. `from` may be older than this process.
    ///
    /// ```
    /// use ringlog::{Log, Upto};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("")?;
    /// let mut follow = log.follow(log.end(), Upto::Staged);
    /// let at = log.append(1, b"one")?;
    /// let record = follow.next()?.expect("the log is open");
    /// assert_eq!((record.lsn, record.payload), (at.start, &b"one"[..]));
    /// log.close()?;
    /// assert_eq!(follow.next()?, None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn follow(&self, from: Lsn, upto: Upto) -> Follow {
        Follow::new(Origin::Open(self.clone()), from, upto)
    }
}

/// What readers need of the log.
impl Log {
    pub(crate) fn peek(&self, base: u64, bytes: &mut Vec<u8>) -> Result<Peek, Error> {
        Ok(self.inner.ring.peek(base, bytes)?)
    }

    /// Where the batch at `at` ends, which has been written to its file, and may not be durable.
    pub(crate) fn written_batch(&self, at: u64) -> Result<u64, Error> {
        let header = self.inner.header_at(at)?;
        Ok(header.map_or(at, |header| at + header.layout().len as u64))
    }

    pub(crate) fn durable_watch(&self) -> DurableWatch {
        self.inner.ring.durable_watch()
    }

    /// Whether the log was closed, or has failed.
    pub(crate) fn ending(&self) -> Option<Result<(), Error>> {
        match self.durable_watch().wait_ge_timeout(u64::MAX, Duration::ZERO) {
            Ok(_) | Err(RingError::TimedOut) => None,
            Err(RingError::Closed) => Some(Ok(())),
            Err(error) => Some(Err(error.into())),
        }
    }

    #[cfg(feature = "async")]
    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    /// Has a task woken when more is durable than was `seen`.
    #[cfg(feature = "async")]
    pub(crate) fn wake_when_durable(&self, seen: Option<u64>, waker: Waker) -> Result<(), OpenError> {
        self.inner.durable_tasks.add(seen, waker, || Pace::Durable(self.durable_watch()))
    }

    /// Has a task woken when more is staged than was `seen`; without that, soon.
    #[cfg(feature = "async")]
    pub(crate) fn wake_when_staged(&self, seen: Option<u64>, waker: Waker) -> Result<(), OpenError> {
        let ring = &self.inner.ring;
        self.inner.staged_tasks.add(seen, waker, || Pace::Staged(ring.durable_watch(), Arc::downgrade(ring)))
    }

    /// Waits until all below `address` is durable, or never will be; has nothing done for it.
    pub(crate) fn await_durable(&self, address: u64, timeout: Duration) {
        let _outcome = self.durable_watch().wait_ge_timeout(address, timeout);
    }

    pub(crate) fn check_process(&self) -> Result<(), Error> {
        self.inner.check_process()
    }

    pub(crate) fn directory(&self) -> &AnyDirectory {
        self.inner.keeper.directory()
    }

    pub(crate) fn manifest(&self) -> Arc<Manifest> {
        Arc::clone(&self.inner.manifest)
    }

    pub(crate) fn durable_batch(&self) -> u64 {
        self.inner.durable_batch()
    }

    pub(crate) fn max_record(&self) -> usize {
        self.inner.replay.max_record
    }

    /// Where the log begins, and keeps it from being trimmed behind `from`, or behind that.
    pub(crate) fn hold(&self, from: Option<Lsn>) -> (Lsn, Hold) {
        let (first, hold) = self.inner.holds.hold(from.map(Lsn::get), || self.inner.keeper.first());
        (Lsn::new(first), hold)
    }

    /// Moves with each truncation.
    pub(crate) fn void_version(&self) -> u64 {
        // Relaxed: it orders nothing, and is as new as what the caller knows of.
        self.inner.void_version.load(Ordering::Relaxed)
    }

    pub(crate) fn voids(&self) -> Vec<Range<Lsn>> {
        self.inner.own.lock().void.clone()
    }
}
