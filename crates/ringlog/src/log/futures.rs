//! The futures of the feature `async`, for any runtime.
//!
//! Those of the [`Log`] own their share of it, and can be spawned. The last share that goes closes the log, which waits
//! for the device: a program that must not block there keeps a clone, and closes it elsewhere.

use core::future::Future;
use core::ops::Range;

use super::append::{Long, encode};
use super::{Committed, Error, Log, Writer, range, record_len};
use crate::Lsn;
use crate::format::RecordType;

impl Log {
    /// [`append`](Self::append) as a future: ready at once if there is room, else when there is.
    ///
    /// Nothing is appended before it is polled. Dropped before it is ready it has appended nothing, or, of a record
    /// longer than a buffer, parts that no reader shows.
    ///
    /// ```
    /// use ringlog::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    /// let (log, _) = Log::options().open(folder.path().join("my-log"))?;
    /// let staged = runtime.spawn(log.append_async(1, b"staged".to_vec()));
    /// let durable = runtime.spawn(log.commit_async(1, b"durable".to_vec()));
    /// runtime.block_on(staged)??;
    /// let done = runtime.block_on(durable)??;
    /// assert!(log.durable() >= done.end());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn append_async(
        &self,
        kind: u8,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<Range<Lsn>, Error>> + Send + 'static {
        let log = self.clone();
        async move { log.append_soon(kind, &payload).await }
    }

    /// [`commit`](Self::commit) as a future.
    ///
    /// Dropped before it is ready it may have appended; that stays in the log.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit).
    pub fn commit_async(
        &self,
        kind: u8,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<Committed, Error>> + Send + 'static {
        let log = self.clone();
        async move {
            let unsettled = log.begin_commit()?;
            let range = log.append_soon(kind, &payload).await?;
            log.durable_soon(range.end).await?;
            Ok(Committed::new(range, unsettled))
        }
    }

    /// [`wait_durable`](Self::wait_durable) as a future. Dropping it takes nothing from others that wait.
    ///
    /// # Errors
    ///
    /// Those of [`wait_durable`](Self::wait_durable).
    pub fn wait_durable_async(&self, end: Lsn) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let log = self.clone();
        async move { log.durable_soon(end).await }
    }

    /// [`sync`](Self::sync) as a future: of what was appended when it is first polled.
    ///
    /// # Errors
    ///
    /// Those of [`sync`](Self::sync).
    pub fn sync_async(&self) -> impl Future<Output = Result<Lsn, Error>> + Send + 'static {
        let log = self.clone();
        async move {
            log.durable_soon(log.end()).await?;
            Ok(log.durable())
        }
    }

    async fn durable_soon(&self, end: Lsn) -> Result<(), Error> {
        Ok(self.inner.ring.wait_durable_async(end.get()).await?)
    }

    async fn append_soon(&self, kind: u8, payload: &[u8]) -> Result<Range<Lsn>, Error> {
        self.inner.check_process()?;
        if payload.len() <= self.inner.short {
            return self.place_soon(RecordType::Record, kind, &[payload]).await;
        }
        let mut long = Long::new(self, RecordType::Record, payload.to_vec())?;
        let _alone = self.inner.long.take_async().await;
        while let Some((part_type, prefix, part)) = long.next() {
            let placed = self.place_soon(part_type, kind, &[prefix.bytes(), part]).await?;
            long.placed(placed);
        }
        Ok(long.range)
    }

    async fn place_soon(&self, record_type: RecordType, kind: u8, parts: &[&[u8]]) -> Result<Range<Lsn>, Error> {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut reserved = self.inner.ring.reserve_async(record_len(len)).await?;
        encode(reserved.placement(), record_type, kind, len, parts.iter().copied(), &mut reserved);
        Ok(range(reserved.commit()))
    }
}

impl Writer {
    /// [`append`](Self::append) as a future; see [`Log::append_async`].
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub async fn append_async(&mut self, kind: u8, payload: &[u8]) -> Result<Range<Lsn>, Error> {
        match self.try_append(kind, payload) {
            // Its lease has ended, so that what it appends next gets a higher address.
            Err(Error::Full) => self.log().append_soon(kind, payload).await,
            outcome => outcome,
        }
    }

    /// [`commit`](Self::commit) as a future; see [`Log::commit_async`].
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit).
    pub async fn commit_async(&mut self, kind: u8, payload: &[u8]) -> Result<Committed, Error> {
        let unsettled = self.log().begin_commit()?;
        let range = self.append_async(kind, payload).await?;
        self.log().durable_soon(range.end).await?;
        Ok(Committed::new(range, unsettled))
    }
}
