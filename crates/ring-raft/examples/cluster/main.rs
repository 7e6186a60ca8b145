//! A replicated key-value map: three nodes in three processes, on `ring-raft` and openraft 0.9, that are killed while
//! clients write to them.
//!
//! ```text
//! cargo run --release --example cluster                                # ten seconds, a kill each second
//! cargo run --release --example cluster -- --seconds 60 --kill 300 --writers 16
//! ```
//!
//! What to look at: [`node::run`] is a whole node, [`machine`] its map with snapshots. The rest is their trial: clients
//! put values under keys that are never used again; one node after the other, at random, is ended by SIGKILL and
//! started again. Afterwards all nodes must have the same map, with each value that was acknowledged, and none that was
//! not sent.

mod machine;
mod node;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{sleep, timeout};

use machine::Put;
use node::{Peer, Request, Response};

const NODES: usize = 3;

/// Set for a node: its number, its folder, and the addresses of all.
const NODE: &str = "RING_RAFT_CLUSTER_NODE";

/// More than an answer takes, also from a node that has just been started on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes that replicate a map, and are killed while clients write.
#[derive(Parser)]
struct Args {
    /// Folder for the nodes, to be kept; it must be new or empty [default: beside this program, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How long clients write
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Kills meanwhile, spread evenly
    #[arg(long, default_value_t = 10)]
    kill: u32,
    /// Clients that write at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    writers: u64,
}

fn main() -> ExitCode {
    let outcome = match env::var(NODE) {
        Ok(node) => serve(&node),
        Err(_) => run(&Args::parse()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("cluster: {error}");
    ExitCode::FAILURE
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A child: one node, until it is killed.
fn serve(node: &str) -> Outcome<()> {
    // It must not outlive its parent, as it ends by no other means.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut parts = node.split('|');
    let (id, folder) = (parts.next().unwrap_or_default().parse()?, PathBuf::from(parts.next().unwrap_or_default()));
    let addresses = parts.map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(node::run(id, &folder, &addresses))
}

fn run(args: &Args) -> Outcome<()> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        // Among the build products: that is a real disk, where /tmp may be memory. Two runs do not meet.
        None => env::current_exe()?.with_extension(format!("nodes-{}", std::process::id())),
    };
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty; empty it, or name another folder", folder.display()).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(trial(args, &folder));
    if args.dir.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    outcome
}

/// The processes.
struct Cluster {
    folder: PathBuf,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Child>,
}

impl Cluster {
    fn start(folder: &Path) -> io::Result<Self> {
        // All at once, so that they are different.
        let ports = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
        let addresses = ports.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        drop(ports);
        let mut cluster = Self { folder: folder.to_owned(), addresses, nodes: Vec::new() };
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
        Command::new(env::current_exe()?).env(NODE, node).stdin(Stdio::null()).spawn()
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

impl Drop for Cluster {
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

async fn trial(args: &Args, folder: &Path) -> Outcome<()> {
    let mut cluster = Cluster::start(folder)?;
    initialize(&cluster.addresses).await?;
    let written = Arc::new(Written::default());
    let writers: Vec<_> = (0..args.writers)
        .map(|writer| tokio::spawn(write(writer, cluster.addresses.clone(), Arc::clone(&written))))
        .collect();

    let (begin, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let bar = ProgressBar::new(args.seconds * 10);
    bar.set_style(ProgressStyle::with_template("{bar:30} {msg}")?);
    let (mut kills, mut random) = (0, SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos() as usize);
    while begin.elapsed() < time {
        sleep(Duration::from_millis(20)).await;
        let passed = begin.elapsed();
        bar.set_position(passed.as_millis() as u64 / 100);
        bar.set_message(format!("{kills} kills, {} writes", written.acknowledged.load(Ordering::Relaxed)));
        if passed * (args.kill + 1) > time * (kills + 1) && kills < args.kill {
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
    let writes = sent.len();
    let last = put_until_done(&cluster.addresses, Put { key: "last".into(), value: "done".into() }).await?;
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

    let seconds = time.as_secs_f64();
    println!("kills                    {kills:>12}");
    println!("writes sent              {writes:>12}");
    println!("acknowledged             {acknowledged:>12}   {:.0} a second", acknowledged as f64 / seconds);
    println!("refused, and sent again  {:>12}", written.refused.load(Ordering::Relaxed));
    println!("keys of each node        {:>12}", map.len());
    println!("entries applied          {:>12}", applied + 1);
    for (node, (_, _, first)) in nodes.iter().enumerate() {
        println!("node {node}: log begins at    {first:>12}");
    }
    println!("all nodes agree, with every acknowledged write (the last by node {last})");
    Ok(())
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

/// Puts a value, and returns the node that did.
async fn put_until_done(addresses: &[SocketAddr], put: Put) -> Outcome<usize> {
    let (begin, request) = (Instant::now(), Request::Put(put));
    while begin.elapsed() < PATIENCE {
        for (node, address) in addresses.iter().enumerate() {
            let asked = timeout(Duration::from_secs(2), Peer::new(address).call(&request)).await;
            if let Ok(Ok(Response::Done)) = asked {
                return Ok(node);
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
