//! Many threads commit records to one log, each waiting for its own to be on stable storage; then the log is read back
//! and proved whole.
//!
//! ```text
//! cargo run --release --example commit_log                         # commits, prints how fast, proves, cleans up
//! cargo run --release --example commit_log -- --threads 64 --records 2000
//! cargo run --release --example commit_log -- --writers 2             # two of the threads commit 32 records at a time
//! cargo run --release --example commit_log -- --file my.log --crash-after 5000   # kills itself by SIGKILL
//! cargo run --release --example commit_log -- --file my.log --verify             # what was acknowledged is there
//! cargo run --release --example commit_log -- --file my.log                      # goes on where that log ended
//! ```
//!
//! What to look at: `commit` is all that a thread does, and `commit_together` what one does that has a writer of its
//! own. The records' frames, and how a log is read and goes on after a crash, are those of the page
//! [`buffer_ring::reopening`]: `framing` is its code. Acknowledgements are kept in a second file, written after
//! [`wait_durable`](BufferRing::wait_durable) has returned, and without a sync: what a process has given to the kernel
//! survives the process.

#[path = "../src/reopening/framing.rs"]
#[allow(unreachable_pub, reason = "it is written for the documentation")]
mod framing;

use core::error::Error;
use core::fmt::Display;
use core::hash::BuildHasher;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::hash::RandomState;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, thread};

use buffer_ring::{BufferRing, Placement, QuikIO, Writer};
use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use rustix::process::{Signal, getpid, kill_process};

/// Commit records from many threads, each durable before the next; then prove that all of them are in the log.
#[derive(Parser)]
struct Args {
    /// Threads that commit
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Records that each of them commits
    #[arg(long, default_value_t = 2000)]
    records: u64,
    /// Threads among them that append through a writer, `ring.writer()`, and wait for several records at once
    #[arg(long, default_value_t = 0)]
    writers: u16,
    /// Records that such a thread waits for at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Bytes of each record's payload
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Buffers in the ring
    #[arg(long, default_value_t = 8)]
    buffers: usize,
    /// Bytes of each buffer, a multiple of 4096
    #[arg(long, default_value_t = 256 << 10)]
    buffer_size: usize,
    /// Log to write, and to keep; if it is there, it goes on [default: a file beside this program, removed at the end]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Kill this process by SIGKILL when so many commits have been acknowledged
    #[arg(long, value_name = "ACKNOWLEDGED")]
    crash_after: Option<u64>,
    /// Commit nothing: only prove that what was acknowledged is in the log
    #[arg(long)]
    verify: bool,
}

/// Writer and sequence number: no two records have the same.
type Name = (u64, u64);

/// Bytes of a name, with which each payload begins.
const NAME: usize = 16;

fn main() -> ExitCode {
    let Err(message) = run(&Args::parse()) else { return ExitCode::SUCCESS };
    eprintln!("commit_log: {message}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<(), String> {
    // Among the build products: that is a real disk, where /tmp may be memory.
    let default = || env::current_exe().map(|program| program.with_extension("log"));
    let log = args.file.clone().map_or_else(default, Ok).map_err(reason)?;
    let acks = log.with_added_extension("acknowledged");
    if args.verify {
        return verify(&log, &acks);
    }
    let remove_all = || remove(&log).and_then(|()| remove(&acks));
    if args.file.is_some() {
        commit_all(args, &log, &acks)?;
        return verify(&log, &acks);
    }
    // What an earlier run has left, which was killed.
    remove_all()?;
    commit_all(args, &log, &acks)?;
    // A log that fails here is evidence, and stays.
    verify(&log, &acks)?;
    remove_all()
}

/// Has every thread commit its records, and says how that went.
fn commit_all(args: &Args, log: &Path, acks: &Path) -> Result<(), String> {
    let mut old = 0_u64;
    let ring = framing::reopen(log, args.buffers, args.buffer_size, |_, _| old += 1);
    let ring = ring.map_err(|why| cannot("open", log, with_causes(&why)))?;
    if old > 0 {
        println!("goes on behind {} records", HumanCount(old));
    }
    let engine = ring.stats().engine.map_or("none".into(), |engine| engine.to_string());
    let acks = OpenOptions::new().append(true).create(true).open(acks).map_err(|why| cannot("open", acks, why))?;

    let total = u64::from(args.threads) * args.records;
    println!("{} commits of {} bytes by {} threads to {}", HumanCount(total), args.bytes, args.threads, log.display());
    let bar = progress_bar(total);
    let acknowledged = AtomicU64::new(0);
    // Other runs on this log have had other names.
    let run = RandomState::new().hash_one(log) << 16;
    let start = Instant::now();
    let latencies: Vec<_> = thread::scope(|scope| {
        let committer = |thread: u16| {
            let (ring, acks, bar, acknowledged) = (&ring, &acks, &bar, &acknowledged);
            scope.spawn(move || {
                let mut latency = new_histogram();
                let mut writer = (thread < args.writers).then(|| ring.writer());
                let at_once = if writer.is_some() { args.batch } else { 1 };
                for first in (0..args.records).step_by(at_once as usize) {
                    let sequences = first..args.records.min(first.saturating_add(at_once));
                    let names: Vec<_> = sequences.map(|sequence| (run | u64::from(thread), sequence)).collect();
                    let nanos = match &mut writer {
                        Some(writer) => commit_together(ring, writer, &names, args.bytes, acks)?,
                        None => commit(ring, names[0], args.bytes, acks)?,
                    };
                    latency.saturating_record_n(nanos, names.len() as u64);
                    bar.inc(names.len() as u64);
                    let count = acknowledged.fetch_add(names.len() as u64, Ordering::Relaxed) + names.len() as u64;
                    if args.crash_after.is_some_and(|crash_after| count >= crash_after) {
                        kill_process(getpid(), Signal::KILL).map_err(reason)?;
                    }
                }
                Ok::<_, String>(latency)
            })
        };
        let threads: Vec<_> = (0..args.threads).map(committer).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked; see above")).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let stats = ring.stats();
    ring.close().map_err(|why| cannot("close", log, with_causes(&why)))?;

    let mut latency = new_histogram();
    for one in latencies {
        latency.add(one?).expect("histograms of one kind");
    }
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    println!("   commits  {:.0} per second, {total} in {seconds:.2} s", total as f64 / seconds);
    println!("   latency  p50 {:.0} µs, p99 {:.0} µs, p999 {:.0} µs", micros(0.5), micros(0.99), micros(0.999));
    // Each is one flush of the device's cache.
    let flushes = stats.durable_writes + stats.syncs;
    if args.writers > 0 {
        println!("    leases  {} records in {}", stats.writers.leased_records, stats.writers.leases_ended);
    }
    println!("   flushes  {:.3} of the device per commit", flushes as f64 / total as f64);
    println!("    engine  {engine}");
    Ok(())
}

/// Appends one record, waits until it is durable, and only then says so. Gives the nanoseconds until then.
fn commit(ring: &BufferRing, name: Name, bytes: usize, acks: &File) -> Result<u64, String> {
    let payload = payload(name, bytes);
    let start = Instant::now();
    let extent = ring.append_with(framing::HEADER + payload.len(), framed(&payload));
    let committed = extent
        .map_err(|why| with_causes(&why))
        .and_then(|extent| ring.wait_durable(extent.end()).map_err(|why| with_causes(&why)));
    committed.map_err(|why| format!("a commit failed: {why}"))?;
    let nanos = start.elapsed().as_nanos() as u64;
    acknowledge(name, acks)?;
    Ok(nanos)
}

/// Appends some records through a writer, waits until the last one is durable, and with it all before, and only then
/// says so.
fn commit_together(
    ring: &BufferRing,
    writer: &mut Writer<'_>,
    names: &[Name],
    bytes: usize,
    acks: &File,
) -> Result<u64, String> {
    let payloads: Vec<_> = names.iter().map(|name| payload(*name, bytes)).collect();
    let start = Instant::now();
    let mut end = 0;
    for payload in &payloads {
        let extent = writer.append_with(framing::HEADER + payload.len(), framed(payload));
        end = extent.map_err(|why| format!("an append failed: {}", with_causes(&why)))?.end();
    }
    ring.wait_durable(end).map_err(|why| format!("a commit failed: {}", with_causes(&why)))?;
    let nanos = start.elapsed().as_nanos() as u64;
    names.iter().try_for_each(|name| acknowledge(*name, acks))?;
    Ok(nanos)
}

/// Encodes the record of a payload where it is placed.
fn framed(payload: &[u8]) -> impl FnOnce(Placement, &mut [u8]) {
    move |placement, bytes| framing::encode(*placement, payload, bytes)
}

fn acknowledge(name: Name, mut acks: &File) -> Result<(), String> {
    // One write, so that acknowledgements of other threads cannot come in between.
    let ack = [name.0.to_le_bytes(), name.1.to_le_bytes()].concat();
    acks.write_all(&ack).map_err(|why| format!("cannot note an acknowledgement: {why}"))
}

/// Its name, and then bytes that only this record can have.
fn payload(name: Name, bytes: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(NAME + bytes);
    payload.extend(name.0.to_le_bytes());
    payload.extend(name.1.to_le_bytes());
    let mut state = name.0 ^ name.1.rotate_left(32);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state ^ state >> 29).to_le_bytes()
    });
    payload.extend(words.take(bytes));
    payload
}

/// Proves that every acknowledged record is in the log, as it was written and once.
fn verify(log: &Path, acks: &Path) -> Result<(), String> {
    let found = scan(log)?;
    let bytes = match fs::read(acks) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes.map_err(|why| cannot("read", acks, why))?,
    };
    // A kill can cut the last one short: then it was not given.
    let acknowledged: HashSet<Name> = bytes.chunks_exact(16).map(|ack| (word(ack), word(&ack[8..]))).collect();
    if acknowledged.len() != bytes.len() / 16 {
        return Err("something was acknowledged twice".into());
    }
    let missing: Vec<_> = acknowledged.iter().filter(|name| !found.contains_key(name)).collect();
    if let Some((writer, sequence)) = missing.iter().min() {
        let (missing, all) = (missing.len(), acknowledged.len());
        return Err(format!(
            "{missing} of {all} acknowledged records are lost; record {sequence} of writer {writer:x} is"
        ));
    }
    let unacknowledged = found.len() - acknowledged.len();
    println!("    proved  {} acknowledged records are in the log, and {unacknowledged} others", acknowledged.len());
    Ok(())
}

/// All records of a log, with their addresses.
fn scan(log: &Path) -> Result<HashMap<Name, u64>, String> {
    // Only to read: another process may still write to it.
    let io = QuikIO::new(File::open(log).map_err(|why| cannot("open", log, why))?);
    let (mut found, mut wrong) = (HashMap::new(), None);
    let scanned = framing::scan(&io, |at, bytes| {
        let name = (bytes.len() >= NAME).then(|| (word(bytes), word(&bytes[8..])));
        let Some(name) = name.filter(|name| payload(*name, bytes.len() - NAME) == bytes) else {
            wrong = Some(format!("the record at {at} is none of this program"));
            return;
        };
        if let Some(first) = found.insert(name, at) {
            wrong = Some(format!("record {} of writer {:x} is at {first} and again at {at}", name.1, name.0));
        }
    });
    scanned.map_err(|why| cannot("read", log, with_causes(&why)))?;
    wrong.map_or(Ok(found), Err)
}

/// The number in the first eight of `bytes`.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", path, error)),
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: impl AsRef<Path>, why: impl Display) -> String {
    format!("cannot {what} {}: {}", path.as_ref().display(), reason(why))
}

/// The error's sentence, and those of its causes.
fn with_causes(error: &dyn Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", with_causes(source)))
}

/// The error's sentence without the system's number for it.
fn reason(error: impl Display) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

/// Of nanoseconds, up to a minute, to three digits.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("valid bounds")
}

fn progress_bar(commits: u64) -> ProgressBar {
    const LOOK: &str = "{bar:40} {human_pos} of {human_len} commits, {per_sec}, {eta} left";
    ProgressBar::new(commits).with_style(ProgressStyle::with_template(LOOK).expect("the template is well formed"))
}
