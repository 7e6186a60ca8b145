//! The trial: three nodes that are killed while clients write, and what they must have then.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::machine::Put;
use crate::node::{self, Peer, Request, Response};

const NODES: usize = 3;

/// Set for a node: its number, its folder, and the addresses of all.
const NODE: &str = "RING_RAFT_CLUSTER_NODE";

/// More than an answer takes, also from a node that has just been started on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Outcome<T> = Result<T, Box<dyn core::error::Error>>;

/// How hard it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) seconds: u64,
    pub(crate) kills: u32,
    pub(crate) writers: u64,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kills: u32,
    pub(crate) sent: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: u64,
    pub(crate) keys: usize,
    /// Entries that each node has applied.
    pub(crate) applied: u64,
    /// Where the log of each node begins.
    pub(crate) firsts: Vec<u64>,
}

/// Does not return in a child, which is a node until it is killed.
pub(crate) fn run_if_node() {
    if let Ok(node) = env::var(NODE) {
        let failed = serve(&node);
        eprintln!("a node ends: {failed:?}");
        process::exit(1);
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn serve(node: &str) -> Outcome<()> {
    // It must not outlive its parent, as it ends by no other means.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut parts = node.split('|');
    let (id, folder) = (parts.next().unwrap_or_default().parse()?, PathBuf::from(parts.next().unwrap_or_default()));
    let addresses = parts.map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    runtime()?.block_on(node::run(id, &folder, &addresses))
}

/// Has the nodes keep what they have in `folder`; each is a `program`.
pub(crate) fn run(trial: Trial, folder: &Path, program: impl Fn() -> Command) -> Outcome<Report> {
    runtime()?.block_on(held(trial, folder, &program))
}

/// The processes.
struct Cluster<'a> {
    program: &'a dyn Fn() -> Command,
    folder: PathBuf,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Child>,
}

impl<'a> Cluster<'a> {
    fn start(folder: &Path, program: &'a dyn Fn() -> Command) -> io::Result<Self> {
        // All at once, so that they are different.
        let ports = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
        let addresses = ports.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        drop(ports);
        let mut cluster = Self { program, folder: folder.to_owned(), addresses, nodes: Vec::new() };
        for id in 0..NODES {
            fs::create_dir_all(cluster.folder_of(id))?;
            let node = cluster.spawn(id)?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    fn folder_of(&self, id: usize) -> PathBuf {
        self.folder.join(format!("node-{id}"))
    }

    fn spawn(&self, id: usize) -> io::Result<Child> {
        let mut node = format!("{id}|{}", self.folder_of(id).display());
        self.addresses.iter().for_each(|address| node += &format!("|{address}"));
        (self.program)().env(NODE, node).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    }

    /// SIGKILL, and a new process on the same folder.
    fn kill(&mut self, id: usize) -> io::Result<()> {
        if let Some(status) = self.nodes[id].try_wait()? {
            return Err(io::Error::other(format!("node {id} has ended by itself: {status}")));
        }
        self.nodes[id].kill()?;
        self.nodes[id].wait()?;
        self.nodes[id] = self.spawn(id)?;
        Ok(())
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ended = node.kill().and_then(|()| node.wait());
        }
    }
}

/// What clients have done.
#[derive(Default)]
struct Written {
    is_over: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

async fn held(trial: Trial, folder: &Path, program: &dyn Fn() -> Command) -> Outcome<Report> {
    let Trial { seconds, kills: wanted, writers } = trial;
    let mut cluster = Cluster::start(folder, program)?;
    initialize(&cluster.addresses).await?;
    let written = Arc::new(Written::default());
    let writers: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(write(writer, cluster.addresses.clone(), Arc::clone(&written))))
        .collect();

    let (begin, time) = (Instant::now(), Duration::from_secs(seconds));
    let bar = ProgressBar::new(seconds * 10);
    bar.set_style(ProgressStyle::with_template("{bar:30} {msg}")?);
    let (mut kills, mut random) = (0, SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos() as usize);
    while begin.elapsed() < time {
        sleep(Duration::from_millis(20)).await;
        let passed = begin.elapsed();
        bar.set_position(passed.as_millis() as u64 / 100);
        bar.set_message(format!("{kills} kills, {} writes", written.acknowledged.load(Ordering::Relaxed)));
        if passed * (wanted + 1) > time * (kills + 1) && kills < wanted {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            cluster.kill((random >> 33) % NODES)?;
            kills += 1;
        }
    }
    bar.finish_and_clear();
    written.is_over.store(true, Ordering::Relaxed);
    let mut sent = BTreeMap::new();
    for writer in writers {
        sent.extend(writer.await??);
    }

    // One more write has all nodes learn what is committed.
    put_until_done(&cluster.addresses, Put { key: "last".into(), value: "done".into() }).await?;
    sent.insert("last".into(), ("done".into(), true));
    let nodes = agreed(&cluster.addresses).await?;
    let (applied, map, _) = &nodes[0];
    let acknowledged = sent.values().filter(|(_, is_acknowledged)| *is_acknowledged).count();
    for (key, (value, is_acknowledged)) in &sent {
        if *is_acknowledged && map.get(key) != Some(value) {
            return Err(format!("{key} was acknowledged as {value}, and is {:?}", map.get(key)).into());
        }
    }
    if let Some((key, value)) = map.iter().find(|(key, value)| sent.get(*key).is_none_or(|sent| sent.0 != **value)) {
        return Err(format!("{key} is {value}, which was not sent").into());
    }
    let refused = written.refused.load(Ordering::Relaxed);
    let (firsts, applied) = (nodes.iter().map(|node| node.2).collect(), applied + 1);
    Ok(Report { kills, sent: sent.len(), acknowledged, refused, keys: map.len(), applied, firsts })
}

/// Makes the nodes a cluster.
async fn initialize(addresses: &[SocketAddr]) -> Outcome<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let asked = Peer::new(addresses[0]).call(&Request::Initialize).await;
        if let Ok(Response::Done) = asked {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err("the nodes do not start".into())
}

/// By key: the value that was sent, and whether it was acknowledged.
type Sent = BTreeMap<String, (String, bool)>;

/// A client: puts values until it is over.
async fn write(writer: u64, addresses: Vec<SocketAddr>, written: Arc<Written>) -> io::Result<Sent> {
    let mut peers: Vec<_> = addresses.iter().map(Peer::new).collect();
    let (mut sent, mut to) = (Sent::new(), writer as usize % peers.len());
    while !written.is_over.load(Ordering::Relaxed) {
        let (key, value) = (format!("{writer}/{}", sent.len()), format!("{}", writer * 1000 + sent.len() as u64));
        sent.insert(key.clone(), (value.clone(), false));
        let request = Request::Put(Put { key: key.clone(), value: value.clone() });
        // Sent again it does no harm: the key has one value.
        while !written.is_over.load(Ordering::Relaxed) {
            match timeout(Duration::from_secs(2), peers[to].call(&request)).await {
                Ok(Ok(Response::Done)) => {
                    sent.insert(key, (value, true));
                    written.acknowledged.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Ok(Ok(Response::Refused(Some(leader)))) if leader as usize != to => to = leader as usize,
                _ => {
                    to = (to + 1) % peers.len();
                    sleep(Duration::from_millis(10)).await;
                }
            }
            written.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(sent)
}

/// Puts a value.
async fn put_until_done(addresses: &[SocketAddr], put: Put) -> Outcome<()> {
    let (begin, request) = (Instant::now(), Request::Put(put));
    while begin.elapsed() < PATIENCE {
        for address in addresses {
            let asked = timeout(Duration::from_secs(2), Peer::new(address).call(&request)).await;
            if let Ok(Ok(Response::Done)) = asked {
                return Ok(());
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err("no node takes a write".into())
}

/// Of a node: the last index that it has applied, its map, and where its log begins.
type Dump = (u64, BTreeMap<String, String>, u64);

/// What all nodes have applied, when they have applied the same entries.
async fn agreed(addresses: &[SocketAddr]) -> Outcome<Vec<Dump>> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let mut dumps = Vec::new();
        for address in addresses {
            if let Ok(Response::Dump { applied: Some(applied), map, first }) =
                Peer::new(address).call(&Request::Dump).await
            {
                dumps.push((applied, map, first));
            }
        }
        if dumps.len() == NODES && dumps.iter().all(|(applied, _, _)| *applied == dumps[0].0) {
            return match dumps.iter().position(|(_, map, _)| *map != dumps[0].1) {
                Some(node) => Err(format!("node {node} has another map than node 0").into()),
                None => Ok(dumps),
            };
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err("the nodes do not come to the same index".into())
}
