//! `crash`: incarnations of a ring, from opening to end, over a disk, and everything that a power cut may leave of
//! each.
//!
//! A run is three incarnations of one log: the second and the third begin on an image that survived the one before,
//! as after a reboot.

use core::mem;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::{Instant, SystemTime};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use crate::explore::{Explored, explore};
use crate::filesystem::{self, FileSystem};
use crate::incarnation::{self, Plan};
use crate::log::Log;
use crate::report::{self, count, rate, table};
use crate::simulate::{Found, simulate};
use ring_testing::Random;

const IMAGES: u64 = 1_000_000;
const FS_IMAGES: u64 = 50;
/// Of an incarnation under a file system.
const FS_IMAGES_PER_INCARNATION: u64 = 10;
const INCARNATIONS: u32 = 3;
const IMAGES_PER_INCARNATION: u64 = 8_000;
/// In so many incarnations writers must have had leases.
const MANY_INCARNATIONS: u64 = 30;
/// One of this many images comes from a real kernel, which takes longer to record.
const FUSE_SHARE: u64 = 5;
/// Nothing that a run does waits for the outside, so it takes longer only if a thread waits for ever. In ticks of the
/// watching thread, which stand still while the process is stopped.
const PATIENCE: u64 = 1_500;
const TICK: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct CrashOptions {
    /// About how many images
    #[arg(long)]
    images: Option<u64>,
    /// Seed of the first run; each further run has the next one
    #[arg(long)]
    seed: Option<u64>,
    /// Over which disks
    #[arg(long, value_enum, default_value_t = Level::All)]
    level: Level,
    /// Under this file system, on a loop device: 50 images by default
    #[arg(long, value_enum)]
    fs: Option<FileSystem>,
    /// A log of `ringlog` under the file system instead of a bare ring
    #[arg(long, requires = "fs")]
    records: bool,
    /// Only this log, kept from a failure
    #[arg(long)]
    log: Option<PathBuf>,
    /// With a log: show what is in it
    #[arg(long)]
    events: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// In memory, each run decided by its seed
    Memory,
    /// A file of FUSE, through a real kernel
    Fuse,
    All,
}

pub(crate) fn task(options: &CrashOptions) -> Result<(), String> {
    if let Some(path) = &options.log {
        return replay(path, options.events);
    }
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let seed = options.seed.unwrap_or_else(clock);
    println!("seed {seed}");
    if let Some(system) = options.fs {
        return under(system, options.records, seed, options.images.unwrap_or(FS_IMAGES));
    }
    let images = options.images.unwrap_or(IMAGES);
    let heading =
        ["level", "incarnations", "images", "torn", "of kills", "in leases", "imitated", "violations", "images/s"];
    let heading = heading.map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    if options.level != Level::Fuse {
        let share = if options.level == Level::All { images - images / FUSE_SHARE } else { images };
        rows.push(timed("memory", || in_memory(seed, share))?);
    }
    if options.level != Level::Memory && incarnation::is_available()? {
        let share = if options.level == Level::All { images / FUSE_SHARE } else { images };
        rows.push(timed("FUSE disk", || on_fuse(seed, share))?);
    }
    print!("{}", table(&rows));
    Ok(())
}

/// A row of the closing table.
fn timed(level: &str, explore: impl FnOnce() -> Result<Totals, String>) -> Result<Vec<String>, String> {
    let begun = Instant::now();
    let Totals { incarnations, images, torn, killed, far_holes, leased, imitated } = explore()?;
    if incarnations >= MANY_INCARNATIONS && leased == 0 {
        return Err(format!("in none of {incarnations} incarnations did a writer have a lease"));
    }
    if incarnations >= MANY_INCARNATIONS && (killed == 0 || far_holes == 0) {
        return Err(format!(
            "{incarnations} incarnations had {killed} images of kills, and {far_holes} holes that no kill leaves"
        ));
    }
    if incarnations >= MANY_INCARNATIONS && imitated == 0 {
        return Err(format!("in none of {incarnations} incarnations was a payload a marker under the key of its file"));
    }
    let rate = rate(images, begun.elapsed());
    let numbers = [incarnations, images, torn, killed, leased, imitated].map(count);
    Ok([vec![level.to_owned()], numbers.to_vec(), vec!["0".into(), rate]].concat())
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    incarnations: u64,
    images: u64,
    torn: u64,
    killed: u64,
    /// Of power cuts, with holes that a kill could not have left: so the promise is not made where it does not hold.
    far_holes: u64,
    /// Records that went into leases of writers.
    leased: u64,
    /// Payloads that were markers under the key of their file.
    imitated: u64,
}

impl Totals {
    fn add(&mut self, explored: &Explored) {
        self.incarnations += 1;
        self.images += explored.images;
        self.torn += explored.torn;
        self.killed += explored.killed;
        self.far_holes += explored.far_holes;
        self.leased += explored.leased;
        self.imitated += explored.imitated;
    }
}

fn replay(path: &Path, show: bool) -> Result<(), String> {
    let log = Log::load(path).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}: seed {}, {} events", log.setting, log.seed, log.events.len());
    if show {
        log.events.iter().enumerate().for_each(|(position, event)| println!("{position:>6} {event}"));
    }
    let outcome = match log.file_system {
        Some(_) => filesystem::explore(&log, &report::progress("mounted images", log.images)),
        None => explore(&log, |_| ()),
    };
    match outcome {
        Ok(explored) => {
            println!("{} images, no violation", count(explored.images));
            Ok(())
        }
        Err(violation) => Err(report::violation(&log, &violation)),
    }
}

/// What one thread does: the seed of its run, and since which tick.
#[derive(Default)]
struct Bench {
    seed: AtomicU64,
    since: AtomicU64,
}

/// Runs over disks in memory, in as many threads as there are cores.
fn in_memory(seed: u64, images: u64) -> Result<Totals, String> {
    let bar = report::progress("crash images, memory", images);
    let next = AtomicU64::new(seed);
    let (tried, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcome = Mutex::new((Totals::default(), None::<String>));
    let ticks = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let benches: Vec<_> = (0..threads).map(|_| Bench::default()).collect();
    let work = |bench: &Bench| {
        while !over.load(Relaxed) && tried.load(Relaxed) < images {
            let seed = next.fetch_add(1, Relaxed);
            bench.seed.store(seed, Relaxed);
            bench.since.store(ticks.load(Relaxed), Relaxed);
            let ran = panic::catch_unwind(AssertUnwindSafe(|| run(seed, &bar, &tried)));
            let ran = ran.unwrap_or_else(|_| Err("the ring or the lab panicked".into()));
            let (totals, failure) = &mut *outcome.lock().expect("no panic");
            match ran {
                Ok(explored) => explored.iter().for_each(|explored| totals.add(explored)),
                Err(what) => {
                    let again = format!("run {seed}: {what}\n  replay: cargo xtask crash --seed {seed} --images 1");
                    _ = failure.get_or_insert(again);
                    over.store(true, Relaxed);
                }
            }
        }
        bench.since.store(u64::MAX, Relaxed);
    };
    thread::scope(|scope| {
        let workers: Vec<_> = benches.iter().map(|bench| scope.spawn(|| work(bench))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(TICK);
            let now = ticks.fetch_add(1, Relaxed);
            for bench in &benches {
                if now.saturating_sub(bench.since.load(Relaxed)) > PATIENCE {
                    let seed = bench.seed.load(Relaxed);
                    eprintln!(
                        "run {seed}: a thread waits for ever\n  replay: cargo xtask crash --seed {seed} --images 1"
                    );
                    process::exit(1);
                }
            }
        }
    });
    bar.finish_and_clear();
    let (totals, failure) = outcome.into_inner().expect("no panic");
    failure.map_or(Ok(totals), Err)
}

fn run(seed: u64, bar: &ProgressBar, tried: &AtomicU64) -> Result<Vec<Explored>, String> {
    let mut random = Random::new(seed);
    let mut last = Explored::default();
    let mut all = Vec::new();
    for incarnation in 1..=INCARNATIONS {
        let before = Found { image: mem::take(&mut last.survivor), key: last.key, owed: last.owed_end };
        let mut log = simulate(random.next(), incarnation, before)?;
        log.images = IMAGES_PER_INCARNATION;
        let explored = explore(&log, |images| {
            bar.inc(images);
            tried.fetch_add(images, Relaxed);
        });
        last = explored.map_err(|violation| report::violation(&log, &violation))?;
        all.push(last.clone());
    }
    Ok(all)
}

/// Runs over FUSE disks, in a process of their own each, through io_uring and positioned writes in turn.
fn on_fuse(seed: u64, images: u64) -> Result<Totals, String> {
    let engines = incarnation::engines()?;
    let bar = report::progress("crash images, FUSE disks", images);
    let mut totals = Totals::default();
    for seed in seed.. {
        if totals.images >= images {
            break;
        }
        let mut random = Random::new(seed);
        let engine = engines[seed as usize % engines.len()];
        let mut last = Explored::default();
        for incarnation in 1..=INCARNATIONS {
            let plan = Plan {
                seed: random.next(),
                incarnation,
                engine,
                hands: None,
                appends: 20,
                before: mem::take(&mut last.survivor),
                key: last.key,
                owed: last.owed_end,
                fault: None,
                images: IMAGES_PER_INCARNATION,
            };
            let log = incarnation::record(&plan).map_err(|what| format!("run {seed}: {what}"))?.log;
            let explored = explore(&log, |images| bar.inc(images));
            last = explored.map_err(|violation| report::violation(&log, &violation))?;
            totals.add(&last);
        }
    }
    bar.finish_and_clear();
    Ok(totals)
}

/// Runs under a file system; each image is mounted.
fn under(system: FileSystem, records: bool, seed: u64, images: u64) -> Result<(), String> {
    if !incarnation::is_available()? {
        return Ok(());
    }
    let engines = incarnation::engines()?;
    let bar = report::progress(&format!("crash images, {}", system.name()), images);
    let begun = Instant::now();
    let mut totals = Totals::default();
    for seed in seed.. {
        if totals.images >= images {
            break;
        }
        let some = FS_IMAGES_PER_INCARNATION.min(images - totals.images);
        let log = if records {
            filesystem::record_records(seed, system, some)?
        } else {
            filesystem::record(seed, system, engines[seed as usize % engines.len()], some)?
        };
        let explored = filesystem::explore(&log, &bar);
        totals.add(&explored.map_err(|violation| report::violation(&log, &violation))?);
    }
    bar.finish_and_clear();
    let heading = ["level", "incarnations", "images", "violations", "images/s"].map(str::to_owned).to_vec();
    let Totals { incarnations, images, .. } = totals;
    let row = [
        format!("{}{}", system.name(), if records { ", records" } else { "" }),
        count(incarnations),
        count(images),
        "0".into(),
        rate(images, begun.elapsed()),
    ]
    .to_vec();
    print!("{}", table(&[heading, row]));
    Ok(())
}
