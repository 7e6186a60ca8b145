//! What openraft is given, as far as its versions have it in common.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Bound, Range, RangeBounds};
use std::io;

use ringlog::Lsn;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, TypeConfig, decode, encode};
use crate::{EntryId, Error, GroupLog, RaftLogs};

/// Bytes of the entries that one call reads for replication, at most; it asks again.
pub(crate) const AT_ONCE: usize = 4 << 20;

/// The log of a group as openraft's log storage and log reader: of the application's types `C`, encoded by `K`.
///
/// Made by [`RaftLogs::group`]. Clones are the same group; one instance of `openraft::Raft` writes to it.
///
/// An `append` returns when the entries are staged in the ring's memory, where they can be read at once; openraft's
/// callback is made by a thread of the log, in order, when they are on stable storage. A vote is on stable storage when
/// `save_vote` returns. Errors are what openraft calls fatal: the node stops, with the reason.
///
/// Two calls may hold their thread for a while: an `append` while all buffers of the ring are on their way to the
/// device, and a read of entries that are not among the newest ones in memory.
pub struct RaftLog<C, K> {
    pub(crate) log: GroupLog,
    types: PhantomData<fn() -> (C, K)>,
}

impl RaftLogs {
    /// The log of a group as openraft's log storage, of the application's types `C`, encoded by `K`. The group need not
    /// be there yet: its first record makes it.
    ///
    /// ```
    /// # #[cfg(feature = "openraft-0_9")]
    /// # async fn service<C: openraft_0_9::RaftTypeConfig>() -> Result<(), Box<dyn std::error::Error>>
    /// # where C::Entry: serde::Serialize + serde::de::DeserializeOwned
    /// # {
    /// use openraft_0_9::storage::RaftLogStorage;
    /// use ring_raft::{Postcard, RaftLogs};
    ///
    /// let (logs, recovery) = RaftLogs::open("raft", ringlog::Log::options()).await?;
    /// assert!(recovery.lost.is_empty(), "{:?}", recovery.lost);
    /// let mut storage = logs.group::<C, Postcard>(1);
    /// println!("{:?}", storage.get_log_state().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn group<C, K>(&self, id: u64) -> RaftLog<C, K> {
        RaftLog { log: self.group_log(id), types: PhantomData }
    }
}

impl<C, K> RaftLog<C, K> {
    /// The log under it.
    #[must_use]
    pub fn group_log(&self) -> &GroupLog {
        &self.log
    }

    /// Entries of a range, until they are `max` bytes together.
    pub(crate) fn entries<V>(&self, range: &impl RangeBounds<u64>, max: usize) -> Result<Vec<C::Entry>, Error>
    where
        C: TypeConfig<V>,
        K: Codec<C, V>,
    {
        let mut entries = Vec::new();
        self.log.read(indexes(range), max, |_, bytes| {
            entries.push(K::decode(bytes)?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Appends entries, and has `call` called when they are durable: once, with an error also if nothing is appended or
    /// the log goes. `id` gives the index of an entry, and its leader.
    pub(crate) fn append_entries<V, L: Serialize>(
        &self,
        entries: impl IntoIterator<Item = C::Entry>,
        id: impl Fn(&C::Entry) -> (u64, &L),
        call: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), Error>
    where
        C: TypeConfig<V>,
        K: Codec<C, V>,
    {
        let call = Once(Some(call));
        let append = || -> Result<Lsn, Error> {
            let mut batch = self.log.batch()?;
            for entry in entries {
                let (index, leader) = id(&entry);
                let failed = |source| Error::Encode { group: self.log.id(), index, source };
                let (leader, size) = (encode(leader).map_err(failed)?, K::size(&entry).map_err(failed)?);
                batch.push(index, &leader, size, |bytes| K::encode_into(&entry, bytes))?;
            }
            Ok(batch.finish())
        };
        match append() {
            Ok(end) => {
                self.log.on_durable(end, |outcome| call.call(outcome.map_err(io::Error::from)));
                Ok(())
            }
            Err(error) => {
                call.call(Err(io::Error::other(error.to_string())));
                Err(error)
            }
        }
    }

    /// Saves a vote; it is durable when this returns.
    pub(crate) async fn vote(&self, vote: &impl Serialize) -> Result<(), Error> {
        let vote = encode(vote).map_err(|source| self.undecodable(source))?;
        let end = self.log.save_vote(&vote)?;
        Ok(self.log.logs.log.wait_durable_async(end).await?)
    }

    /// The vote that was saved last.
    pub(crate) fn voted<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let vote = self.log.vote()?;
        vote.map(|vote| decode(&vote).map_err(|source| self.undecodable(source))).transpose()
    }

    /// An entry's leader, as openraft has it, and its index.
    pub(crate) fn id<L: DeserializeOwned>(&self, id: Option<EntryId>) -> Result<Option<(L, u64)>, Error> {
        let decoded = |id: EntryId| Ok((decode(&id.leader).map_err(|source| self.undecodable(source))?, id.index));
        id.map(decoded).transpose()
    }

    /// The other way round.
    pub(crate) fn entry_id(&self, leader: &impl Serialize, index: u64) -> Result<EntryId, Error> {
        let leader = encode(leader).map_err(|source| Error::Encode { group: self.log.id(), index, source })?;
        Ok(EntryId { index, leader: leader.into() })
    }

    /// Gives up entries, and then the segments that no group needs, in a thread of its own.
    pub(crate) fn purge_to(&self, id: EntryId) -> Result<(), Error> {
        self.log.purge(id)?;
        self.log.logs.trim_apart();
        Ok(())
    }

    fn undecodable(&self, source: io::Error) -> Error {
        Error::Types { group: self.log.id(), source }
    }
}

impl<C, K> Clone for RaftLog<C, K> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), types: PhantomData }
    }
}

impl<C, K> fmt::Debug for RaftLog<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RaftLog").field(&self.log).finish()
    }
}

/// A callback that is made once: with an error if it is dropped before.
struct Once<F: FnOnce(io::Result<()>)>(Option<F>);

impl<F: FnOnce(io::Result<()>)> Once<F> {
    fn call(mut self, outcome: io::Result<()>) {
        if let Some(call) = self.0.take() {
            call(outcome);
        }
    }
}

impl<F: FnOnce(io::Result<()>)> Drop for Once<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Err(ringlog::Error::Closed.into()));
        }
    }
}

/// The indexes of a range.
fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}
