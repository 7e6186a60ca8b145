//! The replicated map: a state machine that is in memory, and on disk as its newest snapshot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft_0_9 as openraft;

use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};
use serde::{Deserialize, Serialize};

/// What a client writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) value: String,
}

openraft::declare_raft_types!(
    /// The types of the service.
    pub(crate) Kv: D = Put, R = Option<String>
);

/// The map, and up to where the log is applied to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    pub(crate) map: BTreeMap<String, String>,
}

/// The state machine. Clones share the map.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

type Outcome<T> = Result<T, StorageError<u64>>;

impl Machine {
    /// Goes on with the newest snapshot at `path`; openraft applies the rest from the log.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let state = match fs::read(path) {
            Ok(bytes) => decode(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the snapshot: it is there as a whole, the old one or the new one.
    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

#[expect(clippy::result_large_err, reason = "the error is openraft's")]
fn snapshot(bytes: Vec<u8>) -> Outcome<Snapshot<Kv>> {
    let state: State = decode(&bytes).map_err(|error| StorageIOError::read_snapshot(None, &error))?;
    let snapshot_id = state.applied.map_or_else(String::new, |applied| applied.to_string());
    let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership, snapshot_id };
    Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
}

impl RaftSnapshotBuilder<Kv> for Machine {
    async fn build_snapshot(&mut self) -> Outcome<Snapshot<Kv>> {
        let bytes = encode(&*self.state());
        let saved = bytes.and_then(|bytes| self.save(&bytes).map(|()| bytes));
        snapshot(saved.map_err(|error| StorageIOError::write_snapshot(None, &error))?)
    }
}

impl RaftStateMachine<Kv> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Outcome<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Outcome<Vec<Option<String>>>
    where
        I: IntoIterator<Item = Entry<Kv>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.state();
        let replaced = entries.into_iter().map(|entry| {
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(Put { key, value }) => state.map.insert(key, value),
                EntryPayload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
                EntryPayload::Blank => None,
            }
        });
        Ok(replaced.collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Outcome<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Outcome<()> {
        let bytes = snapshot.into_inner();
        let installed = decode(&bytes).and_then(|state| self.save(&bytes).map(|()| *self.state() = state));
        Ok(installed.map_err(|error| StorageIOError::write_snapshot(None, &error))?)
    }

    async fn get_current_snapshot(&mut self) -> Outcome<Option<Snapshot<Kv>>> {
        match fs::read(&self.path) {
            Ok(bytes) => snapshot(bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageIOError::read_snapshot(None, &error).into()),
        }
    }
}
