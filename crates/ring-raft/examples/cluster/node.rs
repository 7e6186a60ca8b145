//! A node: its log, its map, and the connections to the others and to clients.
//!
//! A message is its length, four bytes, and postcard.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft_0_9 as openraft;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use ring_raft::{Postcard, RaftLogs};
use ringlog::Log;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::machine::{Kv, Machine, Put, decode, encode};

/// Bytes of the longest message.
const LONGEST: usize = 256 << 20;

/// What a node is asked for, by another one or by a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Kv>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Kv>),
    /// The three nodes become a cluster.
    Initialize,
    Put(Put),
    /// All that the node has applied.
    Dump,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    Done,
    /// It was not done; this node may know better, if there is one.
    Refused(Option<u64>),
    Dump {
        applied: Option<u64>,
        map: BTreeMap<String, String>,
        /// Where the node's log begins: what is before is trimmed.
        first: u64,
    },
}

/// Opens the log and the map in `folder`, and serves until the process ends. `addresses` are those of all nodes.
pub(crate) async fn run(id: u64, folder: &Path, addresses: &[SocketAddr]) -> Result<(), Box<dyn core::error::Error>> {
    let options = Log::options().segment_size(1 << 20).ring(4, 128 << 10);
    let (logs, _) = RaftLogs::open(folder.join("log"), options).await?;
    let machine = Machine::open(&folder.join("snapshot"))?;
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 200,
        election_timeout_max: 400,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(2000),
        max_in_snapshot_log_to_keep: 500,
        ..Config::default()
    };
    let storage = logs.group::<Kv, Postcard>(1);
    let raft = Raft::new(id, Arc::new(config.validate()?), Network, storage, machine.clone()).await?;
    let members = (0..).zip(addresses).map(|(id, address)| (id, BasicNode::new(address))).collect();
    let node = Arc::new(Node { raft, machine, members, logs });
    let listener = TcpListener::bind(addresses[id as usize]).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok(request) = receive(&mut stream).await {
                let response = node.answer(request).await;
                if send(&mut stream, &response).await.is_err() {
                    break;
                }
            }
        });
    }
}

struct Node {
    raft: Raft<Kv>,
    machine: Machine,
    members: BTreeMap<u64, BasicNode>,
    logs: RaftLogs,
}

impl Node {
    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Append(rpc) => Response::Append(self.raft.append_entries(rpc).await),
            Request::Vote(rpc) => Response::Vote(self.raft.vote(rpc).await),
            Request::Snapshot(rpc) => Response::Snapshot(self.raft.install_snapshot(rpc).await),
            Request::Initialize => match self.raft.initialize(self.members.clone()).await {
                Ok(()) => Response::Done,
                Err(_) => Response::Refused(None),
            },
            Request::Put(put) => match self.raft.client_write(put).await {
                Ok(_) => Response::Done,
                Err(error) => Response::Refused(error.forward_to_leader().and_then(|to| to.leader_id)),
            },
            Request::Dump => {
                let state = self.machine.state();
                let first = self.logs.log().first().get();
                Response::Dump { applied: state.applied.map(|id| id.index), map: state.map.clone(), first }
            }
        }
    }
}

pub(crate) async fn send(stream: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = encode(message)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_le_bytes()[..], &bytes].concat()).await
}

pub(crate) async fn receive<T: for<'a> Deserialize<'a>>(stream: &mut TcpStream) -> io::Result<T> {
    let len = stream.read_u32_le().await? as usize;
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes)
}

/// A connection to a node, made when it is needed.
#[derive(Debug)]
pub(crate) struct Peer {
    address: String,
    stream: Option<TcpStream>,
}

impl Peer {
    pub(crate) fn new(address: impl ToString) -> Self {
        Self { address: address.to_string(), stream: None }
    }

    pub(crate) async fn call(&mut self, request: &Request) -> io::Result<Response> {
        // Dropped meanwhile, or after a failure, it begins with another connection.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        send(&mut stream, request).await?;
        let response = receive(&mut stream).await?;
        self.stream = Some(stream);
        Ok(response)
    }
}

#[derive(Debug)]
struct Network;

impl RaftNetworkFactory<Kv> for Network {
    type Network = Remote;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Remote {
        Remote { target, peer: Peer::new(&node.addr) }
    }
}

struct Remote {
    target: u64,
    peer: Peer,
}

type Answer<T, E = RaftError<u64>> = Result<T, RPCError<u64, BasicNode, E>>;

impl Remote {
    /// Asks the node; `take` picks the answer that belongs to the question.
    async fn ask<T, E: core::error::Error + 'static>(
        &mut self,
        request: Request,
        take: impl FnOnce(Response) -> Option<Result<T, E>>,
    ) -> Answer<T, E> {
        let response = self.peer.call(&request).await.map_err(|error| Unreachable::new(&error))?;
        let mixed_up = || NetworkError::new(&io::Error::from(io::ErrorKind::InvalidData));
        let answer = take(response).ok_or_else(mixed_up)?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl RaftNetwork<Kv> for Remote {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Kv>,
        _: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        let take = |response| if let Response::Append(answer) = response { Some(answer) } else { None };
        self.ask(Request::Append(rpc), take).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Kv>,
        _: RPCOption,
    ) -> Answer<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        let take = |response| if let Response::Snapshot(answer) = response { Some(answer) } else { None };
        self.ask(Request::Snapshot(rpc), take).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Answer<VoteResponse<u64>> {
        let take = |response| if let Response::Vote(answer) = response { Some(answer) } else { None };
        self.ask(Request::Vote(rpc), take).await
    }
}
