//! The log storage of openraft 0.9.

#![expect(clippy::result_large_err, reason = "the error is openraft's")]

use core::fmt::Debug;
use core::ops::RangeBounds;

use openraft_0_9::storage::{LogFlushed, RaftLogStorage};
use openraft_0_9::{
    AnyError, CommittedLeaderId, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogId, RaftLogReader,
    RaftTypeConfig, StorageError, StorageIOError, Vote,
};

use crate::codec::{Codec, TypeConfig, V0_9};
use crate::raft_log::AT_ONCE;
use crate::{EntryId, Error, RaftLog};

impl<C: RaftTypeConfig> TypeConfig<V0_9> for C {
    type Entry = C::Entry;
}

type Outcome<C, T> = Result<T, StorageError<<C as RaftTypeConfig>::NodeId>>;

/// What openraft calls fatal, with the whole chain of reasons.
fn fatal<C: RaftTypeConfig>(
    verb: ErrorVerb,
    subject: ErrorSubject<C::NodeId>,
) -> impl FnOnce(Error) -> StorageError<C::NodeId> {
    move |error| StorageIOError::new(subject, verb, AnyError::new(&error)).into()
}

type MaybeLogId<C> = Option<LogId<<C as RaftTypeConfig>::NodeId>>;

fn log_id<C: RaftTypeConfig, K>(log: &RaftLog<C, K>, id: Option<EntryId>) -> Outcome<C, MaybeLogId<C>> {
    let id = log.id::<CommittedLeaderId<C::NodeId>>(id).map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Logs))?;
    Ok(id.map(|(leader, index)| LogId::new(leader, index)))
}

impl<C: RaftTypeConfig, K: Codec<C, V0_9>> RaftLogReader<C> for RaftLog<C, K> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Outcome<C, Vec<C::Entry>> {
        self.entries(&range, usize::MAX).map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Logs))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Outcome<C, Vec<C::Entry>> {
        self.entries(&(start..end), AT_ONCE).map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Logs))
    }
}

impl<C: RaftTypeConfig, K: Codec<C, V0_9>> RaftLogStorage<C> for RaftLog<C, K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Outcome<C, LogState<C>> {
        let state = || Ok((self.log.purged()?, self.log.last()?));
        let (purged, last) = state().map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Logs))?;
        Ok(LogState { last_purged_log_id: log_id(self, purged)?, last_log_id: log_id(self, last)? })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Outcome<C, ()> {
        self.vote(vote).await.map_err(fatal::<C>(ErrorVerb::Write, ErrorSubject::Vote))
    }

    async fn read_vote(&mut self) -> Outcome<C, Option<Vote<C::NodeId>>> {
        self.voted().map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Vote))
    }

    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Outcome<C, ()> {
        let save = || {
            let id = committed.map(|id| self.entry_id(&id.leader_id, id.index)).transpose()?;
            self.log.save_committed(id).map(drop)
        };
        save().map_err(fatal::<C>(ErrorVerb::Write, ErrorSubject::Logs))
    }

    async fn read_committed(&mut self) -> Outcome<C, Option<LogId<C::NodeId>>> {
        let committed = self.log.committed().map_err(fatal::<C>(ErrorVerb::Read, ErrorSubject::Logs))?;
        log_id(self, committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Outcome<C, ()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        fn id<C: RaftTypeConfig>(entry: &C::Entry) -> (u64, &CommittedLeaderId<C::NodeId>) {
            let LogId { leader_id, index } = entry.get_log_id();
            (*index, leader_id)
        }
        let appended = self.append_entries(entries, id::<C>, |outcome| callback.log_io_completed(outcome));
        appended.map_err(fatal::<C>(ErrorVerb::Write, ErrorSubject::Logs))
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Outcome<C, ()> {
        let truncated = self.log.truncate(log_id.index).map(drop);
        truncated.map_err(fatal::<C>(ErrorVerb::Delete, ErrorSubject::Log(log_id)))
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Outcome<C, ()> {
        let id = self.entry_id(&log_id.leader_id, log_id.index);
        id.and_then(|id| self.purge_to(id)).map_err(fatal::<C>(ErrorVerb::Delete, ErrorSubject::Log(log_id)))
    }
}
