//! The log storage of openraft 0.10.

use core::fmt::Debug;
use core::ops::{RangeBounds, RangeInclusive};
use std::io;

use openraft_0_10::entry::RaftEntry;
use openraft_0_10::storage::{IOFlushed, RaftLogStorage};
use openraft_0_10::vote::RaftLeaderId;
use openraft_0_10::{LogId, LogState, OptionalSend, RaftLogReader, RaftTypeConfig};

use crate::codec::{Codec, TypeConfig, V0_10};
use crate::raft_log::AT_ONCE;
use crate::{EntryId, Error, RaftLog};

impl<C: RaftTypeConfig> TypeConfig<V0_10> for C {
    type Entry = C::Entry;
}

type LeaderOf<C> = <<C as RaftTypeConfig>::LeaderId as RaftLeaderId>::Committed;
type LogIdOf<C> = LogId<LeaderOf<C>>;

fn log_id<C: RaftTypeConfig, K>(log: &RaftLog<C, K>, id: Option<EntryId>) -> Result<Option<LogIdOf<C>>, Error> {
    Ok(log.id(id)?.map(|(leader_id, index)| LogId { leader_id, index }))
}

impl<C: RaftTypeConfig, K: Codec<C, V0_10>> RaftLogReader<C> for RaftLog<C, K> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<C::Entry>> {
        Ok(self.entries(&range, usize::MAX)?)
    }

    async fn read_vote(&mut self) -> io::Result<Option<C::Vote>> {
        Ok(self.voted()?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        Ok(self.entries(&(start..end), AT_ONCE)?)
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogIdOf<C>>) -> io::Result<Vec<LogIdOf<C>>> {
        let (first, last) = range.into_inner();
        let mut ids = Vec::new();
        for id in self.log.leaders(first.index..last.index.saturating_add(1))? {
            ids.extend(log_id(self, Some(id))?);
        }
        Ok(ids)
    }
}

impl<C: RaftTypeConfig, K: Codec<C, V0_10>> RaftLogStorage<C> for RaftLog<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let (last_purged_log_id, last_log_id) = (log_id(self, self.log.purged()?)?, log_id(self, self.log.last()?)?);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &C::Vote) -> io::Result<()> {
        Ok(self.vote(vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        let id = committed.map(|id| self.entry_id(&id.leader_id, id.index)).transpose()?;
        self.log.save_committed(id)?;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        Ok(log_id(self, self.log.committed()?)?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        fn id<C: RaftTypeConfig>(entry: &C::Entry) -> (u64, &LeaderOf<C>) {
            let (leader, index) = entry.log_id_parts();
            (index, leader)
        }
        Ok(self.append_entries(entries, id::<C>, |outcome| callback.io_completed(outcome))?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        self.log.truncate(last_log_id.map_or(0, |id| id.index + 1))?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        Ok(self.purge_to(self.entry_id(&log_id.leader_id, log_id.index)?)?)
    }
}
