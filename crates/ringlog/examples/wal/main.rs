//! A key-value store whose write-ahead log is `ringlog`, filled with real files, killed, and compared byte for byte.
//!
//! ```text
//! cargo run --release --example wal                        # the sources of this checkout and of the Cargo registry
//! cargo run --release --example wal -- --kills 100 --threads 8
//! cargo run --release --example wal -- --dir my-store      # keeps the store
//! ```
//!
//! What to look at: [`kv`] is the whole store, on two screens: `open`, `put`, `delete`, `checkpoint`. The rest is its
//! trial. First several threads put each file under its path and delete every tenth again, while checkpoints trim the
//! log; the store is closed, opened again and compared. Then the program starts itself as a child that goes on with
//! puts and deletes in a store of its own until SIGKILL ends it at a random moment, round after round; each time the
//! store has to hold what was acknowledged, and nothing else ([`kills`]).

mod kills;
mod kv;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io, thread};

use clap::Parser;
use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressStyle};
use ringlog::recovery::Verdict;
use ringlog::{Log, Lsn, Options};

use kills::Rounds;
use kv::{Kv, Map};

/// Longer ones are left out.
const LONGEST_FILE: u64 = 4 << 20;

/// The log grows by so much between checkpoints.
const CHECKPOINT: u64 = 16 << 20;

/// How many of the files the killed child works with: so that it comes to the same keys again and again.
const FILES_OF_A_CHILD: usize = 200;

/// Fill a key-value store on `ringlog` with real files, kill it, and compare what it holds.
#[derive(Parser)]
struct Args {
    /// Folder for the stores, to be kept; it must be new or empty [default: beside this program, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Files to load, at most
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..))]
    files: u64,
    /// Rounds in which the program starts itself and kills the child
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Threads that commit
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

fn main() -> ExitCode {
    kills::run_if_child();
    let Err(message) = run(&Args::parse()) else { return ExitCode::SUCCESS };
    eprintln!("wal: {message}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<(), String> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        // Among the build products: that is a real disk, where /tmp may be memory.
        None => env::current_exe().map_err(text)?.with_extension("stores"),
    };
    if args.dir.is_none() && folder.exists() {
        fs::remove_dir_all(&folder).map_err(text)?;
    }
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty; empty it, or name another folder", folder.display()));
    }

    let mut files = Vec::new();
    for root in roots() {
        find(&root, args.files as usize, &mut files).map_err(text)?;
    }
    if files.is_empty() {
        return Err("no files are found".into());
    }
    load(args, &folder.join("loaded"), &files)?;
    die(args, &folder.join("killed"), &files[..files.len().min(FILES_OF_A_CHILD)])?;
    // A store that fails here is evidence, and stays.
    if args.dir.is_none() {
        fs::remove_dir_all(&folder).map_err(text)?;
    }
    Ok(())
}

type Files = [(Vec<u8>, Arc<[u8]>)];

fn options() -> Options {
    Log::options().segment_size(8 << 20)
}

/// Puts all files from several threads, and deletes every tenth again; then looks what a new opening finds.
fn load(args: &Args, folder: &Path, files: &Files) -> Result<(), String> {
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let (count, size) = (HumanCount(files.len() as u64), DecimalBytes(bytes as u64));
    println!("loading {count} files, {size}, by commits of {} threads into {}", args.threads, folder.display());
    let (kv, _) = Kv::open(folder, options()).map_err(text)?;
    let (next, commits, checkpoints) = (AtomicUsize::new(0), AtomicUsize::new(0), &mut 0);
    let bar = progress_bar(bytes as u64);
    let one_thread = || -> io::Result<()> {
        // Relaxed: the numbers carry nothing but themselves, and joining the threads publishes what they did.
        while let Some((path, content)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            kv.put(path, content)?;
            commits.fetch_add(1, Ordering::Relaxed);
            bar.inc(content.len() as u64);
        }
        Ok(())
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads).map(|_| scope.spawn(one_thread)).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if kv.log().end().get() - kv.log().first().get() > CHECKPOINT {
                bar.suspend(|| checkpoint(&kv))?;
                *checkpoints += 1;
            }
        }
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked; see above"))
    })
    .map_err(text)?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    for (path, _) in files.iter().step_by(10) {
        kv.delete(path).map_err(text)?;
    }
    kv.log().close().map_err(text)?;
    drop(kv);

    let commits = commits.into_inner();
    println!(
        "  {commits} commits in {seconds:.1} s: {:.0} commits/s, {:.0} MB/s, {checkpoints} checkpoints",
        commits as f64 / seconds,
        bytes as f64 / 1e6 / seconds
    );

    let start = Instant::now();
    let (kv, recovery) = Kv::open(folder, options()).map_err(text)?;
    println!("  opened again in {:.0?}: {}, {} records replayed", start.elapsed(), recovery.verdict, recovery.records);
    let expected: Vec<_> = files.iter().enumerate().filter(|(n, _)| n % 10 != 0).map(|(_, file)| file).collect();
    let map = kv.map();
    for (path, content) in &expected {
        if map.get(path).and_then(|(_, value)| value.as_ref()) != Some(content) {
            return Err(format!("{} is not as it was put", String::from_utf8_lossy(path)));
        }
    }
    let found = map.values().filter(|(_, value)| value.is_some()).count();
    if found != expected.len() {
        return Err(format!("{found} keys are there instead of {}", expected.len()));
    }
    println!("  {found} values equal byte for byte, {} deleted ones not there", files.len() - found);
    Ok(())
}

/// Saves a snapshot, and trims the log.
fn checkpoint(kv: &Kv) -> io::Result<()> {
    let start = Instant::now();
    let trimmed = kv.checkpoint()?;
    let (bytes, took) = (DecimalBytes(trimmed.bytes), start.elapsed());
    println!("  checkpoint in {took:.0?}: the log begins at {}, {bytes} given up", trimmed.first);
    Ok(())
}

/// Has children killed, and compares each time.
fn die(args: &Args, folder: &Path, files: &Files) -> Result<(), String> {
    println!("killing a child that puts and deletes, {} times", args.kills);
    let files = files.iter().map(|(path, content)| (path.clone(), (Lsn::START, Some(content.clone()))));
    let mut rounds = Rounds::new(folder, args.threads.into(), Map::from_iter(files)).map_err(text)?;
    let (mut acknowledged, mut torn, mut slowest) = (0, 0, Duration::ZERO);
    for round in 1..=args.kills {
        let mut child = Command::new(env::current_exe().map_err(text)?);
        // By the clock's last digits: no two runs are killed at the same moments.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?;
        let time = Duration::from_micros(u64::from(now.subsec_micros()) % 700_000);
        let seen = rounds.round(&mut child, time)?;
        acknowledged += seen.acknowledged;
        torn += u32::from(matches!(seen.recovery.verdict, Verdict::Torn(_)));
        slowest = slowest.max(seen.time);
        println!(
            "  {round}: {} acknowledged, {} more there; recovered in {:.0?}: {}; {} values equal",
            seen.acknowledged, seen.unacknowledged, seen.time, seen.recovery.verdict, seen.keys
        );
    }
    println!(
        "nothing lost, nothing invented: {acknowledged} operations acknowledged in {} rounds, {torn} torn tails cut, \
         at most {slowest:.0?} to recover",
        args.kills
    );
    Ok(())
}

/// This checkout, and the sources of the packages that Cargo has.
fn roots() -> Vec<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registry = cargo.map(|home| home.join("registry/src")).filter(|folder| folder.is_dir());
    [Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")].into_iter().chain(registry).collect()
}

/// Reads files below `path` until there are `most`: not what is hidden, built, empty, or very long.
fn find(path: &Path, most: usize, files: &mut Vec<(Vec<u8>, Arc<[u8]>)>) -> io::Result<()> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.into_iter().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if files.len() == most {
            break;
        } else if metadata.is_dir() && !path.join("CACHEDIR.TAG").exists() {
            find(&path, most, files)?;
        } else if metadata.is_file() && (1..LONGEST_FILE).contains(&metadata.len()) {
            files.push((path.as_os_str().as_encoded_bytes().to_vec(), fs::read(&path)?.into()));
        }
    }
    Ok(())
}

fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

fn progress_bar(bytes: u64) -> ProgressBar {
    const LOOK: &str = "{bar:40} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
    ProgressBar::new(bytes).with_style(ProgressStyle::with_template(LOOK).expect("the template is well formed"))
}
