//! The records of a follower as a stream, for those who combine streams.

use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::follow::Follow;
use super::forward::Shown;
use crate::Lsn;
use crate::log::Error;
use crate::recovery::Record;

/// A [`Record`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedRecord {
    /// Where it is.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// The byte that its writer chose.
    pub kind: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        Self { lsn: record.lsn, end: record.end, kind: record.kind, payload: record.payload.to_vec() }
    }
}

/// The records of a follower. Made by [`Follow::into_stream`].
///
/// It ends with the log: when that was closed and all was given, or behind the error of its failure, or of a position
/// behind its end. After other errors it goes on as [`Follow::next`] does.
#[derive(Debug)]
pub struct RecordStream {
    follow: Follow,
    has_ended: bool,
}

impl Follow {
    /// The records as a stream, each with a copy of its bytes. Gaps and truncations are passed over.
    ///
    /// ```
    /// use ringlog::{Log, Upto};
    /// use tokio_stream::StreamExt;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("")?;
    /// let records = log.follow(log.end(), Upto::Durable).into_stream().filter_map(Result::ok);
    /// let odd = records.filter(|record| record.kind % 2 == 1);
    /// (0..6).try_for_each(|kind| log.append(kind, b"a record").map(drop))?;
    /// log.close()?;
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(odd.map(|record| record.kind).collect::<Vec<_>>()), [1, 3, 5]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_stream(self) -> RecordStream {
        RecordStream { follow: self, has_ended: false }
    }
}

impl RecordStream {
    /// The follower, where it is.
    #[must_use]
    pub fn into_inner(self) -> Follow {
        self.follow
    }
}

impl Stream for RecordStream {
    type Item = Result<OwnedRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.has_ended {
            let item = match self.follow.poll_shown(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(Shown::Record))) => Ok(self.follow.here().record().into()),
                Poll::Ready(Ok(Some(_))) => continue,
                Poll::Ready(Ok(None)) => {
                    self.has_ended = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(error)) => {
                    self.has_ended = matches!(error, Error::Poisoned(_) | Error::Forked | Error::NotAppended { .. });
                    Err(error)
                }
            };
            return Poll::Ready(Some(item));
        }
        Poll::Ready(None)
    }
}

impl FusedStream for RecordStream {
    fn is_terminated(&self) -> bool {
        self.has_ended
    }
}
