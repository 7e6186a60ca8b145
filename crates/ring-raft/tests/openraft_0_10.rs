//! The conformance suite of openraft 0.10, in memory and on disk, and its log storage after another opening.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft_0_10 as openraft;

use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::testing::{blank_ent, log_id};
use openraft::vote::{RaftLeaderId, RaftVote};
use openraft::{OptionalSend, RaftLogReader, RaftSnapshotBuilder, RaftTypeConfig, StorageError};
use ring_raft::{Postcard, RaftLog, RaftLogs};
use ringlog::directory::MemoryDirectory;
use ringlog::{Log, Options};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

openraft::declare_raft_types!(
    /// The types of the tests.
    Types: D = String, R = ()
);

type Leader = <<Types as RaftTypeConfig>::LeaderId as openraft::vote::RaftLeaderId>::Committed;
type LogId = openraft::LogId<Leader>;
type Membership = openraft::StoredMembership<Leader, u64, openraft::impls::BasicNode>;
type Meta = openraft::SnapshotMeta<Leader, u64, openraft::impls::BasicNode>;
type Snapshot = openraft::Snapshot<Leader, u64, openraft::impls::BasicNode, Cursor<Vec<u8>>>;
type Storage = RaftLog<Types, Postcard>;

/// A state machine that knows only up to where it is.
#[derive(Clone, Debug, Default)]
struct Machine(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId>,
    membership: Membership,
    /// Up to where the newest snapshot is, and its membership.
    snapshot: Option<(Option<LogId>, Membership)>,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn snapshot(of: &(Option<LogId>, Membership)) -> Snapshot {
    let (last_log_id, last_membership) = of.clone();
    Snapshot { meta: Meta { last_log_id, last_membership }, snapshot: Cursor::default() }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut state = self.state();
        let of = (state.applied, state.membership.clone());
        state.snapshot = Some(of.clone());
        Ok(snapshot(&of))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: futures_core::Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = next(&mut entries).await {
            let (entry, responder) = next?;
            let mut state = self.state();
            state.applied = Some(entry.log_id());
            if let Some(membership) = entry.get_membership() {
                state.membership = Membership::new(Some(entry.log_id()), membership);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, _: Cursor<Vec<u8>>) -> io::Result<()> {
        let mut state = self.state();
        (state.applied, state.membership) = (meta.last_log_id, meta.last_membership.clone());
        state.snapshot = Some((meta.last_log_id, meta.last_membership.clone()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.state().snapshot.as_ref().map(snapshot))
    }
}

async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    core::future::poll_fn(|context| core::pin::Pin::new(&mut *stream).poll_next(context)).await
}

fn small() -> Options {
    Log::options().segment_size(1 << 20).ring(3, 64 << 10)
}

/// A log and a state machine for each test of the suite.
struct Builder {
    in_memory: bool,
    built: AtomicU64,
}

impl StoreBuilder<Types, Storage, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Storage, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a folder");
        let built = self.built.fetch_add(1, Ordering::Relaxed);
        let options = if self.in_memory { small().in_memory() } else { small() };
        let (logs, _) = RaftLogs::open(folder.path().join("log"), options).await.expect("logs");
        Ok((folder, logs.group(built), Machine::default()))
    }
}

async fn suite(in_memory: bool) {
    let builder = Builder { in_memory, built: AtomicU64::new(0) };
    Suite::test_store(&builder).await.expect("it conforms");
    assert!(builder.built.into_inner() > 30);
}

#[tokio::test]
async fn the_suite_is_green_in_memory() {
    suite(true).await;
}

#[tokio::test]
async fn the_suite_is_green_on_disk() {
    suite(false).await;
}

#[tokio::test]
async fn what_openraft_has_stored_is_there_after_a_crash() -> Result<(), Box<dyn core::error::Error>> {
    let directory = MemoryDirectory::new();
    let (logs, _) = RaftLogs::open("", small().directory(&directory)).await?;
    let leader = <Types as RaftTypeConfig>::LeaderId::new(4, 1);
    let vote = <Types as RaftTypeConfig>::Vote::from_leader_id(leader, true);
    for group in [1, 2] {
        let mut storage: Storage = logs.group(group);
        storage.blocking_append((0..5).map(|index| blank_ent::<Types>(1 + index / 2, 1, index))).await?;
        storage.save_vote(&vote).await?;
        storage.save_committed(Some(log_id::<Types>(1, 1, 1))).await?;
        storage.truncate_after(Some(log_id::<Types>(2, 1, 3))).await?;
        storage.blocking_append([blank_ent::<Types>(4, 1, 4), blank_ent::<Types>(4, 1, 5)]).await?;
        storage.purge(log_id::<Types>(1, 1, 0)).await?;
    }
    logs.log().sync()?;
    for image in [directory.power_cut(1), directory.kill(2)] {
        let (logs, recovery) = RaftLogs::open("", small().directory(&image)).await?;
        assert_eq!((recovery.groups, recovery.entries), (2, 10));
        for group in [1, 2] {
            let mut storage: Storage = logs.group(group);
            let state = storage.get_log_state().await?;
            let (first, last) = (log_id::<Types>(1, 1, 1), log_id::<Types>(4, 1, 5));
            assert_eq!(state.last_purged_log_id, Some(log_id::<Types>(1, 1, 0)));
            assert_eq!((state.last_log_id, storage.read_committed().await?), (Some(last), Some(first)));
            assert_eq!(storage.read_vote().await?.as_ref(), Some(&vote));
            let keys = [first, log_id::<Types>(2, 1, 3), last];
            assert_eq!(storage.get_key_log_ids(first..=last).await?, keys);
            let indexes: Vec<_> = storage.try_get_log_entries(..).await?.iter().map(|entry| entry.index()).collect();
            assert_eq!(indexes, [1, 2, 3, 4, 5]);
        }
    }
    Ok(())
}
