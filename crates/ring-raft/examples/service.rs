//! A replicated map on one page: three nodes, each with its Raft log and a map in memory. The example `cluster` is the
//! same over TCP, with snapshots on disk, in processes that are killed.

use std::collections::BTreeMap;
use std::io::{Cursor, Error, ErrorKind};
use std::sync::{Arc, Mutex};

use openraft_0_9 as openraft; // In a program of your own it is `openraft`.

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership,
};
use ring_raft::{Postcard, RaftLogs};

// What is written: a key and a value. What is answered: the value before.
openraft::declare_raft_types!(pub(crate) Kv: D = (String, String), R = Option<String>);

type Members = StoredMembership<u64, BasicNode>;
type State = (Option<LogId<u64>>, Members, BTreeMap<String, String>);
type Outcome<T> = Result<T, StorageError<u64>>;
type Answer<T, E = RaftError<u64>> = Result<T, RPCError<u64, BasicNode, E>>;

/// The map, with up to where the log is applied to it; and the newest snapshot.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<State>>, Arc<Mutex<Option<Vec<u8>>>>);

impl RaftSnapshotBuilder<Kv> for Machine {
    async fn build_snapshot(&mut self) -> Outcome<Snapshot<Kv>> {
        let bytes = postcard::to_stdvec(&*self.0.lock().expect("no panic"));
        *self.1.lock().expect("no panic") = Some(bytes.map_err(|e| StorageIOError::write_snapshot(None, &e))?);
        Ok(self.get_current_snapshot().await?.expect("it was built"))
    }
}

impl RaftStateMachine<Kv> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Outcome<(Option<LogId<u64>>, Members)> {
        let state = self.0.lock().expect("no panic");
        Ok((state.0, state.1.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Outcome<Vec<Option<String>>>
    where
        I: IntoIterator<Item = Entry<Kv>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (applied, members, map) = &mut *self.0.lock().expect("no panic");
        let answers = entries.into_iter().map(|entry| {
            *applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal((key, value)) => return map.insert(key, value),
                EntryPayload::Membership(new) => *members = StoredMembership::new(Some(entry.log_id), new),
                EntryPayload::Blank => {}
            }
            None
        });
        Ok(answers.collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Outcome<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta<u64, BasicNode>, new: Box<Cursor<Vec<u8>>>) -> Outcome<()> {
        let state = postcard::from_bytes(new.get_ref()).map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        *self.0.lock().expect("no panic") = state;
        *self.1.lock().expect("no panic") = Some(new.into_inner());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Outcome<Option<Snapshot<Kv>>> {
        let Some(bytes) = self.1.lock().expect("no panic").clone() else { return Ok(None) };
        let state: State = postcard::from_bytes(&bytes).map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        let meta =
            SnapshotMeta { last_log_id: state.0, last_membership: state.1, snapshot_id: format!("{:?}", state.0) };
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// The network: here all nodes are in one process, and a message is a call.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<u64, Raft<Kv>>>>);

struct Peer(u64, Network);

impl Peer {
    fn raft(&self) -> Result<Raft<Kv>, Unreachable> {
        let raft = self.1.0.lock().expect("no panic").get(&self.0).cloned();
        raft.ok_or_else(|| Unreachable::new(&Error::from(ErrorKind::NotConnected)))
    }

    fn failed<E: core::error::Error>(&self) -> impl Fn(E) -> RPCError<u64, BasicNode, E> {
        let to = self.0;
        move |error| RPCError::RemoteError(RemoteError::new(to, error))
    }
}

impl RaftNetworkFactory<Kv> for Network {
    type Network = Peer;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Peer {
        Peer(to, self.clone())
    }
}

impl RaftNetwork<Kv> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Kv>,
        _: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        self.raft()?.append_entries(rpc).await.map_err(self.failed())
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Answer<VoteResponse<u64>> {
        self.raft()?.vote(rpc).await.map_err(self.failed())
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Kv>,
        _: RPCOption,
    ) -> Answer<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        self.raft()?.install_snapshot(rpc).await.map_err(self.failed())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let (network, config) = (Network::default(), Arc::new(Config::default().validate()?));
    let (mut nodes, mut members) = (Vec::new(), BTreeMap::new());
    for id in 0..3 {
        // On a disk: `RaftLogs::open("folder", Log::options())`; then what was acknowledged is there after a crash.
        let (logs, _) = RaftLogs::open("", ringlog::Log::options().in_memory()).await?;
        let machine = Machine::default();
        let storage = logs.group::<Kv, Postcard>(1);
        let raft = Raft::new(id, Arc::clone(&config), network.clone(), storage, machine.clone()).await?;
        network.0.lock().expect("no panic").insert(id, raft.clone());
        members.insert(id, BasicNode::default());
        nodes.push((raft, machine));
    }
    nodes[0].0.initialize(members).await?;
    let led = nodes[0].0.wait(None).metrics(|state| state.current_leader.is_some(), "a leader").await?;
    let leader = &nodes[led.current_leader.expect("there is one") as usize].0;
    let mut written = None;
    for n in 0..100 {
        written = Some(leader.client_write((format!("key {}", n % 10), format!("value {n}"))).await?.log_id.index);
    }
    for (id, (raft, machine)) in nodes.iter().enumerate() {
        raft.wait(None).applied_index_at_least(written, "all writes").await?;
        let state = machine.0.lock().expect("no panic");
        assert_eq!((state.2.len(), &*state.2["key 9"]), (10, "value 99"));
        println!("node {id} has {} keys, applied up to {:?}", state.2.len(), state.0.map(|id| id.index));
    }
    Ok(())
}
