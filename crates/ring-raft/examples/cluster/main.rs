//! A replicated key-value map: three nodes in three processes, on `ring-raft` and openraft 0.9, that are killed while
//! clients write to them.
//!
//! ```text
//! cargo run --release --example cluster                                # ten seconds, a kill each second
//! cargo run --release --example cluster -- --seconds 60 --kill 300 --writers 16
//! ```
//!
//! What to look at: [`node::run`] is a whole node, [`machine`] its map with snapshots. The rest is their [`trial`]:
//! clients put values under keys that are never used again; one node after the other, at random, is ended by SIGKILL
//! and started again. Afterwards all nodes must have the same map, with each value that was acknowledged, and none that
//! was not sent.

mod machine;
mod node;
mod trial;

use std::path::PathBuf;
use std::process::{Command, ExitCode, id};
use std::{env, fs};

use clap::Parser;

use trial::{Outcome, Trial};

/// Three nodes that replicate a map, and are killed while clients write.
#[derive(Parser)]
struct Args {
    /// Folder for the nodes, to be kept; it must be new or empty [default: beside this program, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How long clients write
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// SIGKILL to a node, so many times meanwhile
    #[arg(long, default_value_t = 10, default_missing_value = "10", num_args = 0..=1)]
    kill: u32,
    /// Clients that write at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    writers: u64,
}

fn main() -> ExitCode {
    trial::run_if_node();
    let Err(error) = run(&Args::parse()) else { return ExitCode::SUCCESS };
    eprintln!("cluster: {error}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Outcome<()> {
    let program = env::current_exe()?;
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        // Among the build products: that is a real disk, where /tmp may be memory. Two runs do not meet.
        None => program.with_extension(format!("nodes-{}", id())),
    };
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty; empty it, or name another folder", folder.display()).into());
    }
    let Args { seconds, kill: kills, writers, .. } = *args;
    let outcome = trial::run(Trial { seconds, kills, writers }, &folder, || Command::new(&program));
    if args.dir.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    let report = outcome?;
    let rate = report.acknowledged as f64 / seconds as f64;
    println!("kills                    {:>12}", report.kills);
    println!("writes sent              {:>12}", report.sent);
    println!("acknowledged             {:>12}   {rate:.0} a second", report.acknowledged);
    println!("refused, and sent again  {:>12}", report.refused);
    println!("keys of each node        {:>12}", report.keys);
    println!("entries applied          {:>12}", report.applied);
    for (node, first) in report.firsts.iter().enumerate() {
        println!("log of node {node} begins at {first:>12}");
    }
    println!("all nodes agree, with every acknowledged write");
    Ok(())
}
