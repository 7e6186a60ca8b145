//! The conformance suite of openraft 0.9, in memory and on disk, and its log storage after another opening.

#[path = "../examples/cluster/machine.rs"]
mod machine;

use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Poll;
use std::io;

use openraft_0_9 as openraft;

use machine::{Kv, Machine, Put};
use openraft::entry::FromAppData;
use openraft::storage::{RaftLogReaderExt, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite, blank_ent, log_id};
use openraft::{Entry, RaftLogId, RaftLogReader, StorageError, Vote};
use ring_raft::{Codec, Postcard, RaftLog, RaftLogs, V0_9};
use ringlog::directory::MemoryDirectory;
use ringlog::{Log, Options};
use tempfile::TempDir;

type Outcome<T> = Result<T, StorageError<u64>>;
type Storage = RaftLog<Kv, Postcard>;

fn small() -> Options {
    Log::options().segment_size(1 << 20).ring(3, 64 << 10)
}

/// A log and a map for each test of the suite.
struct Builder {
    in_memory: bool,
    built: AtomicU64,
    /// All in one log, as groups.
    shared: Option<RaftLogs>,
}

impl StoreBuilder<Kv, Storage, Machine, TempDir> for Builder {
    async fn build(&self) -> Outcome<(TempDir, Storage, Machine)> {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine::open(&folder.path().join("snapshot")).expect("a machine");
        let built = self.built.fetch_add(1, Ordering::Relaxed);
        let options = if self.in_memory { small().in_memory() } else { small() };
        let logs = match &self.shared {
            Some(logs) => logs.clone(),
            None => RaftLogs::open(folder.path().join("log"), options).await.expect("logs").0,
        };
        Ok((folder, logs.group(built), machine))
    }
}

fn suite(in_memory: bool, shared: Option<RaftLogs>) {
    let builder = Builder { in_memory, built: AtomicU64::new(0), shared };
    Suite::test_store(&builder).expect("it conforms");
    assert!(builder.built.into_inner() > 30);
}

#[test]
fn the_suite_is_green_in_memory() {
    suite(true, None);
}

#[test]
fn the_suite_is_green_on_disk() {
    suite(false, None);
}

#[test]
fn the_suite_is_green_for_groups_of_one_log() {
    let (logs, _) = RaftLogs::open_blocking("", small().in_memory()).expect("logs");
    suite(true, Some(logs));
}

fn put(term: u64, index: u64, len: usize) -> Entry<Kv> {
    let mut entry = Entry::from_app_data(Put { key: index.to_string(), value: "x".repeat(len) });
    entry.set_log_id(&log_id(term, 1, index));
    entry
}

#[tokio::test]
async fn what_openraft_has_stored_is_there_after_a_crash() -> Result<(), Box<dyn core::error::Error>> {
    let directory = MemoryDirectory::new();
    let (logs, _) = RaftLogs::open("", small().directory(&directory)).await?;
    for group in [1, 2] {
        let mut storage: Storage = logs.group(group);
        storage.blocking_append([blank_ent::<Kv>(1, 1, 0), put(1, 1, 10), put(2, 2, 200_000), put(2, 3, 5)]).await?;
        storage.save_vote(&Vote::new_committed(2 + group, 1)).await?;
        storage.save_committed(Some(log_id(1, 1, 1))).await?;
        storage.truncate(log_id(2, 1, 3)).await?;
        storage.blocking_append([put(3, 3, 7), put(3, 4, 7)]).await?;
        storage.purge(log_id(1, 1, 0)).await?;
    }
    logs.log().sync()?;
    for image in [directory.power_cut(1), directory.kill(2)] {
        let (logs, recovery) = RaftLogs::open("", small().directory(&image)).await?;
        assert_eq!((recovery.groups, recovery.entries), (2, 8));
        for group in [1, 2] {
            let mut storage: Storage = logs.group(group);
            let state = storage.get_log_state().await?;
            assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 1, 0)), Some(log_id(3, 1, 4))));
            assert_eq!(storage.read_vote().await?, Some(Vote::new_committed(2 + group, 1)));
            assert_eq!(storage.read_committed().await?, Some(log_id(1, 1, 1)));
            let entries = storage.try_get_log_entries(..).await?;
            assert_eq!(entries, [put(1, 1, 10), put(2, 2, 200_000), put(3, 3, 7), put(3, 4, 7)]);
            assert_eq!(storage.get_log_id(2).await?, log_id(2, 1, 2));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_gets_at_least_one_entry_and_not_many_mebibytes_at_once() -> Result<(), Box<dyn core::error::Error>> {
    let (logs, _) = RaftLogs::open("", Log::options().in_memory()).await?;
    let mut storage: Storage = logs.group(1);
    storage.blocking_append((0..20).map(|index| put(1, index, 1 << 20))).await?;
    let mut reader = storage.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(0, 20).await?.len(), 3);
    assert_eq!(reader.try_get_log_entries(0..20).await?.len(), 20);
    storage.blocking_append([put(1, 20, 10 << 20)]).await?;
    assert_eq!(reader.limited_get_log_entries(20, 21).await?.len(), 1);
    Ok(())
}

/// Postcard that cannot encode an entry with this key, and one that panics at another.
struct Failing;

impl Codec<Kv, V0_9> for Failing {
    fn size(entry: &Entry<Kv>) -> io::Result<usize> {
        <Postcard as Codec<Kv, V0_9>>::size(entry)
    }

    fn encode_into(entry: &Entry<Kv>, bytes: &mut [u8]) -> io::Result<()> {
        <Postcard as Codec<Kv, V0_9>>::encode_into(entry, bytes)?;
        match entry.get_log_id().index {
            5 => Err(io::Error::new(io::ErrorKind::InvalidInput, "not this one")),
            _ => Ok(()),
        }
    }

    fn decode(bytes: &[u8]) -> io::Result<Entry<Kv>> {
        <Postcard as Codec<Kv, V0_9>>::decode(bytes)
    }
}

#[tokio::test]
async fn an_entry_that_cannot_be_encoded_takes_its_batch_with_it_and_the_log_goes_on()
-> Result<(), Box<dyn core::error::Error>> {
    let directory = MemoryDirectory::new();
    let (logs, _) = RaftLogs::open("", small().directory(&directory)).await?;
    let mut storage = logs.group::<Kv, Failing>(1);
    storage.blocking_append((0..3).map(|index| put(1, index, 9))).await?;
    let error = storage.blocking_append((3..8).map(|index| put(1, index, 9))).await.expect_err("it cannot be encoded");
    let text = error.to_string();
    assert!(text.contains("entry 5 of group 1") && text.contains("not this one"), "{text}");
    assert_eq!(storage.get_log_state().await?.last_log_id, Some(log_id(1, 1, 2)));
    storage.blocking_append([put(2, 3, 4)]).await?;
    drop((storage, logs));
    let (logs, _) = RaftLogs::open("", small().directory(&directory)).await?;
    let entries = logs.group::<Kv, Failing>(1).try_get_log_entries(..).await?;
    assert_eq!(entries, [put(1, 0, 9), put(1, 1, 9), put(1, 2, 9), put(2, 3, 4)]);
    Ok(())
}

#[tokio::test]
async fn an_append_can_be_read_at_once_and_is_reported_when_it_is_durable() -> Result<(), Box<dyn core::error::Error>> {
    let directory = MemoryDirectory::new();
    let (logs, _) = RaftLogs::open("", small().directory(&directory)).await?;
    let mut storage: Storage = logs.group(1);
    storage.blocking_append([put(1, 0, 9)]).await?;
    directory.device().hold();
    let (mut reader, entry) = (storage.clone(), put(1, 1, 9));
    {
        let mut append = pin!(storage.blocking_append([entry.clone()]));
        let is_pending = poll_fn(|context| Poll::Ready(append.as_mut().poll(context).is_pending())).await;
        let read = reader.try_get_log_entries(1..).await;
        directory.device().release_all();
        assert!(is_pending, "the device has not written it");
        assert_eq!(read?, [entry]);
        append.await?;
    }
    let mut vote = storage.clone();
    directory.device().hold();
    let vote = async { vote.save_vote(&Vote::new(7, 1)).await };
    let mut vote = pin!(vote);
    let is_pending = poll_fn(|context| Poll::Ready(vote.as_mut().poll(context).is_pending())).await;
    directory.device().release_all();
    assert!(is_pending, "nor the vote");
    vote.await?;
    let (logs, _) = RaftLogs::open("", small().directory(&directory.power_cut(1))).await?;
    let mut storage: Storage = logs.group(1);
    assert_eq!(storage.read_vote().await?, Some(Vote::new(7, 1)));
    assert_eq!(storage.get_log_state().await?.last_log_id, Some(log_id(1, 1, 1)));
    Ok(())
}
