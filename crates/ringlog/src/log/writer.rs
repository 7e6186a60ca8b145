//! A thread's own way into the log.

use core::fmt;
use core::ops::Range;

use buffer_ring::OwnedWriter;

use super::append::{encode, header};
use super::{Committed, Error, Log, range, record_len};
use crate::Lsn;
use crate::format::{RECORD_HEADER_LEN, RecordType};

/// Appends with fewer instructions on shared memory than the [`Log`] itself: for a thread or task that appends many
/// small records. It owns its share of the log, and may live in a struct beside it.
///
/// Its records are in the order of its calls. But one may lie before a record that another thread has appended earlier,
/// as the writer may have taken its place in the log ahead. Where the order between threads matters, use the log.
pub struct Writer {
    log: Log,
    ring: OwnedWriter,
    /// Truncations that were made before its lease began.
    truncations: u64,
}

impl Log {
    /// Makes a writer.
    #[must_use]
    pub fn writer(&self) -> Writer {
        // First: one that comes now is noticed by the next append.
        let truncations = self.void_version();
        Writer { log: self.clone(), ring: self.inner.ring.writer_owned(), truncations }
    }
}

impl Writer {
    /// Appends a record, like [`Log::append`].
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`].
    #[inline]
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<Range<Lsn>, Error> {
        let len = payload.len();
        if len > self.log.inner.short {
            return self.log.append(kind, payload);
        }
        let fill = |placement, bytes: &mut [u8]| encode(placement, RecordType::Record, kind, len, [payload], bytes);
        Ok(range(self.ring().append_filled(record_len(len), fill)?))
    }

    /// The same without ever waiting for room; what is longer than a buffer is taken for not finding any.
    #[cfg(feature = "async")]
    pub(super) fn try_append(&mut self, kind: u8, payload: &[u8]) -> Result<Range<Lsn>, Error> {
        if payload.len() > self.log.inner.short {
            return Err(Error::Full);
        }
        let mut reserved = self.ring().try_reserve(record_len(payload.len()))?;
        let (placement, len) = (reserved.placement(), payload.len());
        encode(placement, RecordType::Record, kind, len, [payload], &mut reserved);
        Ok(range(reserved.commit()))
    }

    /// Has `fill` encode a record in place, like [`Log::append_with`].
    ///
    /// # Errors
    ///
    /// Those of [`Log::append_with`].
    pub fn append_with(
        &mut self,
        kind: u8,
        len: usize,
        fill: impl FnOnce(Lsn, &mut [u8]),
    ) -> Result<Range<Lsn>, Error> {
        self.log.check_short(len)?;
        let extent = self.ring().append_with(record_len(len), |placement, bytes| {
            fill(Lsn::new(placement.start()), &mut bytes[RECORD_HEADER_LEN..][..len]);
            // Behind what may panic: without it the bytes are no record.
            bytes[..RECORD_HEADER_LEN].copy_from_slice(&header(placement, RecordType::Record, kind, len));
        })?;
        Ok(range(extent))
    }

    /// Appends a record, and returns when it is durable, like [`Log::commit`].
    ///
    /// # Errors
    ///
    /// Those of [`Log::commit`].
    pub fn commit(&mut self, kind: u8, payload: &[u8]) -> Result<Committed, Error> {
        let log = self.log.clone();
        log.committing(|| self.append(kind, payload))
    }

    /// The ring's writer, without a lease from before a truncation: what is appended there would be void.
    #[inline]
    fn ring(&mut self) -> &mut OwnedWriter {
        // A line that changes with truncations only, so that it costs a load.
        let truncations = self.log.void_version();
        if truncations != self.truncations {
            self.renew();
        }
        &mut self.ring
    }

    #[cold]
    fn renew(&mut self) {
        *self = self.log.writer();
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writer").field(&self.ring).finish()
    }
}
