//! A page store in the manner of LLAMA: pages change in memory by compare-and-swap, and on flash by appending to a log.
//!
//! ```text
//! cargo run --release --example page_store                          # works, then kills itself three times
//! cargo run --release --example page_store -- --seconds 60 --threads 8 --memory 64
//! cargo run --release --example page_store -- --dir my-store --crash-after 3000
//! cargo run --release --example page_store -- --dir my-store --verify
//! ```
//!
//! What to look at: [`store`] is the store, with [`page`], the chain of a page in memory, and [`record`], what the log
//! holds of it. `docs/PAGE_STORE.md` walks through them. The rest is their trial: threads update and read pages of a
//! working set that is four times the memory, and check each page that they read; then the program opens the store
//! again and checks all pages, and starts itself as a child that kills itself, round after round ([`trial`]).

mod page;
mod record;
mod store;
mod trial;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use clap::Parser;
use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressStyle};
use ringlog::{Log, Options, Recovery};
use rustix::process::{Signal, getpid, kill_process};

use page::PAGE;
use store::Store;
use trial::{Failure, MOST_OWNERS, Owner, Owners};

/// Update and read pages of a store that does not fit the memory, kill it, and check each page.
#[derive(Parser)]
struct Args {
    /// Folder of the store, to be made, or gone on with [default: beside this program, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How long to work
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Threads that update and read, of a new store
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=MOST_OWNERS as i64))]
    threads: u16,
    /// MiB of memory that pages may take
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    memory: u32,
    /// Pages of a new store [default: as many as take four times the memory]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pages: Option<u32>,
    /// Rounds in which the program starts itself, and the child kills itself
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// End by SIGKILL after so many milliseconds of work
    #[arg(long, requires = "dir")]
    crash_after: Option<u64>,
    /// Only check each page of the store in the folder
    #[arg(long, requires = "dir")]
    verify: bool,
}

fn main() -> ExitCode {
    let Err(failure) = run(&Args::parse()) else { return ExitCode::SUCCESS };
    eprintln!("page_store: {failure}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<(), Failure> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        // Among the build products: that is a real disk, where /tmp may be memory.
        None => env::current_exe()?.with_extension("store"),
    };
    if args.verify {
        let (recovery, took) = verify(&folder, args)?;
        println!("{}; recovered in {took:.0?}, every page as acknowledged", recovery.verdict);
        return Ok(());
    }
    if args.dir.is_none() && folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    work(&folder, args)?;
    let (recovery, took) = verify(&folder, args)?;
    println!("  opened again in {took:.0?}: {}; every page as acknowledged", recovery.verdict);
    die(&folder, args)?;
    // A store that fails here is evidence, and stays.
    if args.dir.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn open_or_create(folder: &Path, args: &Args) -> Result<Owners, Failure> {
    fs::create_dir_all(folder)?;
    if folder.join("acknowledged").exists() {
        return Owners::open(folder);
    }
    let pages = args.pages.unwrap_or((4 << 20) / PAGE as u32 * args.memory);
    Owners::create(folder, pages, args.threads.into())
}

fn open(folder: &Path, pages: u32, args: &Args) -> Result<(Store, Recovery), Failure> {
    Ok(Store::open(options(), &folder.join("log"), pages, (args.memory as usize) << 20)?)
}

/// Buffers are small, because a batch is read and verified as a whole, and a page is a small part of it.
fn options() -> Options {
    Log::options().ring(32, 32 << 10).segment_size(4 << 20)
}

/// The log is cleaned when it is longer: twice the pages.
fn longest_log(pages: u32) -> u64 {
    u64::from(pages) * PAGE as u64 * 2
}

/// Updates and reads from several threads, and prints what that took.
fn work(folder: &Path, args: &Args) -> Result<(), Failure> {
    let Owners { acknowledged, pages, mut all } = open_or_create(folder, args)?;
    let (store, _) = open(folder, pages, args)?;
    let size = DecimalBytes(u64::from(pages) * PAGE as u64);
    let memory = DecimalBytes(u64::from(args.memory) << 20);
    println!("{} threads, {pages} pages: {size} in {memory} of memory, in {}", all.len(), folder.display());
    let (updates, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let limit = Duration::from_millis(args.crash_after.unwrap_or(args.seconds * 1000));
    let bar = progress_bar(limit.as_secs());
    let start = Instant::now();
    let one_thread = |owner: &mut Owner| {
        // Relaxed: the numbers carry nothing but themselves, and joining the threads publishes what they did.
        let worked = owner.work(&store, &acknowledged, longest_log(pages), |done| {
            updates.fetch_add(done, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        });
        stop.store(true, Ordering::Relaxed);
        worked
    };
    thread::scope(|scope| {
        let threads: Vec<_> = all.iter_mut().map(|owner| scope.spawn(|| one_thread(owner))).collect();
        while !stop.load(Ordering::Relaxed) && start.elapsed() < limit {
            thread::sleep(Duration::from_millis(5));
            bar.set_position(start.elapsed().as_secs());
            let rate = updates.load(Ordering::Relaxed) as f64 * 2.0 / start.elapsed().as_secs_f64();
            bar.set_message(format!("{rate:.0} operations/s"));
        }
        // In the middle of everything; but not if a thread has failed.
        if args.crash_after.is_some() && !stop.load(Ordering::Relaxed) {
            kill_process(getpid(), Signal::KILL)?;
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked; see above"))
    })?;
    bar.finish_and_clear();
    print_table(&store, updates.into_inner(), start.elapsed());
    store.log().close()?;
    Ok(())
}

fn print_table(store: &Store, updates: u64, took: Duration) {
    let (counts, log) = (&store.counts, store.log());
    let [whole, increments, failed, loads, records, evictions, relocations] = [
        &counts.whole,
        &counts.increments,
        &counts.failed,
        &counts.loads,
        &counts.records,
        &counts.evictions,
        &counts.relocations,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    let per_second = |count: u64| HumanCount((count as f64 / took.as_secs_f64()) as u64);
    let ratio = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    let len = store.log_len();
    let rows = [
        ("operations/s", format!("{}: half of them updates, half reads", per_second(2 * updates))),
        ("flushes", format!("{} of writes only, {} of whole pages", HumanCount(increments), HumanCount(whole))),
        ("failed flushes", format!("{}: the page had changed", HumanCount(failed))),
        ("evictions", format!("{}, and {} pages read back", HumanCount(evictions), HumanCount(loads))),
        ("relocations", format!("{} pages, to clean the log", HumanCount(relocations))),
        ("bytes per update", format!("{:.0} in the log", ratio(log.stats().bytes_appended, updates))),
        (
            "read amplification",
            format!("{:.2} records per page read back, {:.2} per read", ratio(records, loads), ratio(records, updates)),
        ),
        (
            "space amplification",
            format!("{:.2}: a log of {} for the pages", ratio(len, (store.live() * PAGE) as u64), DecimalBytes(len)),
        ),
    ];
    for (name, text) in rows {
        println!("  {name:<20} {text}");
    }
}

/// Opens the store in a folder, and checks all of it. Returns what opening found, and how long it took.
fn verify(folder: &Path, args: &Args) -> Result<(Recovery, Duration), Failure> {
    let Owners { pages, all, .. } = Owners::open(folder)?;
    let start = Instant::now();
    let (store, recovery) = open(folder, pages, args)?;
    let took = start.elapsed();
    trial::verify(&store, pages, &all)?;
    store.log().close()?;
    Ok((recovery, took))
}

/// Has children kill themselves, and checks each time.
fn die(folder: &Path, args: &Args) -> Result<(), Failure> {
    for round in 1..=args.kills {
        // By the clock's last digits: no two runs are killed at the same moments.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let time = 200 + u64::from(now.subsec_micros()) % 800;
        let mut child = Command::new(env::current_exe()?);
        child.args(["--dir".as_ref(), folder.as_os_str()]);
        let child = child.args(["--crash-after", &time.to_string(), "--memory", &args.memory.to_string()]);
        let ended = child.output()?;
        if ended.status.signal() != Some(Signal::KILL.as_raw()) {
            let why = String::from_utf8_lossy(&ended.stderr);
            return Err(format!("round {round}: the child ended before it was killed: {}, {why}", ended.status).into());
        }
        let (recovery, took) = verify(folder, args).map_err(|failure| format!("round {round}: {failure}"))?;
        println!("  killed {round} times: {}; recovered in {took:.0?}, every page as acknowledged", recovery.verdict);
    }
    Ok(())
}

fn progress_bar(seconds: u64) -> ProgressBar {
    const LOOK: &str = "{bar:40} {pos} of {len} s, {msg}";
    ProgressBar::new(seconds).with_style(ProgressStyle::with_template(LOOK).expect("the template is well formed"))
}
