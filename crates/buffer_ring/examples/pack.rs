//! Packs a tree of real files into one log with several threads, then reads every file back and compares it.
//!
//! ```text
//! cargo run --release --example pack                       # these sources, and those of the Cargo registry
//! cargo run --release --example pack -- ~/src --threads 8  # a folder of yours
//! cargo run --release --example pack -- a b --out my.log   # keeps the log
//! ```
//!
//! What to look at: `pack` puts a ring over a file, shares it between threads by plain reference and ends it properly
//! (`sync`, `stats`, `close`). `pack_file` appends and keeps the [`Extent`]s, all that it takes to find the bytes
//! again. `verify_file` reads them back through nothing but the file. Each chunk is a record as the page
//! [`buffer_ring::reopening`] has them: `framing` is its code, and would find them all without the extents.

#[path = "../src/reopening/framing.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is written for the documentation")]
mod framing;

use core::error::Error;
use core::fmt::Display;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use std::{env, thread};

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, Extent, Placement, QuikIO};
use clap::Parser;
use framing::HEADER;
use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressStyle};

/// Files are cut into chunks of this size, or of the buffer size where that is smaller.
const CHUNK: usize = 64 * 1024;

/// Pack files into one log through a latch-free ring, then read them back and compare.
#[derive(Parser)]
struct Args {
    /// Files and folders to pack [default: the sources of this checkout and of the local Cargo registry]
    paths: Vec<PathBuf>,
    /// Threads that pack, and then verify
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Log to write, and to keep; it must be new or empty [default: a file beside this program, removed at the end]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the default log where it is; the next run replaces it
    #[arg(long)]
    keep: bool,
    /// Buffers in the ring
    #[arg(long, default_value_t = 8)]
    buffers: usize,
    /// Bytes of each buffer, a multiple of 4096; K and M are understood
    #[arg(long, default_value = "1M", value_parser = parse_size)]
    buffer_size: usize,
}

/// What there is to pack: files, and how long they were when the walk saw them.
#[derive(Default)]
struct Tree {
    files: Vec<Found>,
    bytes: u64,
    skipped: AtomicUsize,
}

/// A file that is in the log.
struct Packed<'a> {
    path: &'a Path,
    /// Where its pieces went.
    chunks: Vec<Extent>,
}

/// Why a file is not in the log: it could not be read, and is skipped; or the ring takes no more, and that is the end.
enum PackError {
    File(io::Error),
    Ring(AppendError),
}

type Found = (PathBuf, u64);
type Summary = Vec<(&'static str, String)>;

fn main() -> ExitCode {
    let Err(message) = run(&Args::parse()) else { return ExitCode::SUCCESS };
    eprintln!("pack: {message}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<(), String> {
    let tree = if args.paths.is_empty() { Tree::walk(&default_roots()) } else { Tree::walk(&args.paths) }?;
    let log = args.out.clone().map_or_else(default_log, Ok)?;
    let keep = args.keep || args.out.is_some();
    let mut summary = Summary::new();
    let packed = match pack(args, &tree, &log, &mut summary) {
        Err(message) if !keep => return remove(&log).and(Err(message)),
        packed => packed?,
    };
    // A log that fails here is evidence, and stays.
    verify(args, &packed, &log, &mut summary)?;
    if !keep {
        remove(&log)?;
    }

    summary.push(("log", format!("{}{}", log.display(), if keep { "" } else { " (removed; --keep keeps it)" })));
    for (name, value) in summary {
        println!("{name:>10}  {value}");
    }
    Ok(())
}

/// Appends every file to a new log.
fn pack<'a>(args: &Args, tree: &'a Tree, log: &Path, summary: &mut Summary) -> Result<Vec<Packed<'a>>, String> {
    let io = Arc::new(open_new(log)?);
    let engine = format!("{}, {}", io.engine(), if io.is_direct() { "O_DIRECT" } else { "buffered" });
    let ring = BufferRing::try_with_options(BufferRingOptions {
        capacity: args.buffers,
        buffer_size: args.buffer_size,
        io_instance: Some(io),
        ..Default::default()
    })
    .map_err(|error| with_causes(&error))?;

    let (files, size) = (count(tree.files.len()), DecimalBytes(tree.bytes));
    println!("packing {files} files, {size}, with {} threads into {}", args.threads, log.display());
    let bar = progress_bar(tree.bytes);
    let start = Instant::now();
    let chunk = CHUNK.min(args.buffer_size - HEADER) as u64;
    let outcomes = in_parallel(args.threads, &tree.files, |file| match pack_file(&ring, file, chunk, &bar) {
        Ok(chunks) => Ok(Some(Packed { path: &file.0, chunks })),
        Err(PackError::File(error)) => {
            bar.suspend(|| tree.skip(&file.0, &error));
            Ok(None)
        }
        Err(PackError::Ring(error)) => Err(cannot("append to", log, with_causes(&error))),
    })?;
    // Part of the work: until this answers, nothing is promised to be on the disk.
    ring.sync().map_err(|error| cannot("sync", log, with_causes(&error)))?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let stats = ring.stats();
    ring.close().map_err(|error| cannot("close", log, with_causes(&error)))?;

    let packed: Vec<_> = outcomes.into_iter().flatten().collect();
    let extents: usize = packed.iter().map(|file| file.chunks.len()).sum();
    if extents == 0 {
        return Err("nothing to pack: no file could be read".into());
    }
    let percent = 100.0 * stats.padding_bytes as f64 / (stats.bytes_appended + stats.padding_bytes) as f64;
    summary.extend([
        ("files", format!("{} packed, {} skipped", count(packed.len()), count(tree.skipped.load(Ordering::Relaxed)))),
        ("bytes", HumanCount(bytes_of(&packed)).to_string()),
        ("extents", count(extents).to_string()),
        ("flushed", format!("{} buffers", HumanCount(stats.buffers_flushed))),
        ("padding", format!("{} bytes, {percent:.2} %", HumanCount(stats.padding_bytes))),
        ("engine", engine),
        ("packing", format!("{}, synced", speed(&packed, seconds))),
    ]);
    Ok(packed)
}

/// Appends one file, chunk by chunk, up to where the walk saw it end, however it grows.
fn pack_file(ring: &BufferRing, file: &Found, chunk: u64, bar: &ProgressBar) -> Result<Vec<Extent>, PackError> {
    let (path, len) = file;
    let mut rest = File::open(path).map_err(PackError::File)?.take(*len);
    let mut bytes = Vec::with_capacity(chunk.min(*len) as usize);
    let mut chunks = Vec::new();
    while rest.by_ref().take(chunk).read_to_end(&mut bytes).map_err(PackError::File)? > 0 {
        let encode = |placement: Placement, record: &mut [u8]| framing::encode(*placement, &bytes, record);
        chunks.push(ring.append_with(HEADER + bytes.len(), encode).map_err(PackError::Ring)?);
        bar.inc(bytes.len() as u64);
        bytes.clear();
    }
    Ok(chunks)
}

/// Reads every file back from the log and compares it with the one on disk.
fn verify(args: &Args, packed: &[Packed<'_>], log: &Path, summary: &mut Summary) -> Result<(), String> {
    let io = QuikIO::open(log).map_err(reason)?;
    println!("verifying {} files", count(packed.len()));
    let bar = progress_bar(bytes_of(packed));
    let start = Instant::now();
    let same = in_parallel(args.threads, packed, |file| {
        let path = file.path.display();
        let same = verify_file(&io, file, &bar).map_err(|why| format!("{path} is not in {}: {why}", log.display()))?;
        if !same {
            bar.suspend(|| eprintln!("changed since it was packed: {path}"));
        }
        Ok(same)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let equal = same.iter().filter(|same| **same).count();
    let (equal, changed) = (count(equal), count(packed.len() - equal));
    summary.push(("verifying", speed(packed, seconds)));
    summary.push(("equal", format!("{equal} files byte for byte, {changed} changed on disk meanwhile")));
    Ok(())
}

/// Whether the file on disk is still what was packed. That the log does not hold what was packed is an error.
fn verify_file(io: &QuikIO, file: &Packed<'_>, bar: &ProgressBar) -> Result<bool, String> {
    // `None` once the file on disk is known to be another: gone, shorter, longer or different.
    let mut on_disk = File::open(file.path).ok();
    for chunk in &file.chunks {
        let (start, mut record) = (chunk.start(), vec![0; chunk.len()]);
        let count = io.read_at(start, &mut record).map_err(|error| with_causes(&error))?;
        if count < record.len() {
            return Err(format!("the log ends at {}", start + count as u64));
        }
        let Some(logged) = framing::decode(start, &record) else {
            return Err(format!("the {count} bytes at {start} are not those that were packed"));
        };
        let mut original = vec![0; logged.len()];
        on_disk = on_disk.filter(|mut disk| disk.read_exact(&mut original).is_ok() && original == logged);
        bar.inc(logged.len() as u64);
    }
    Ok(on_disk.is_some_and(|mut disk| matches!(disk.read(&mut [0]), Ok(0))))
}

/// Does `work` on every item; each thread takes the next that no thread has. The first error stops them all.
fn in_parallel<'a, I: Sync, T: Send, W>(threads: u16, items: &'a [I], work: W) -> Result<Vec<T>, String>
where
    W: Fn(&'a I) -> Result<T, String> + Sync,
{
    // Relaxed: the index carries nothing but itself, and joining the threads publishes what they did.
    let next = AtomicUsize::new(0);
    let one_thread = || -> Result<Vec<T>, String> {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?);
        }
        Ok(done)
    };
    let done: Result<Vec<Vec<T>>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked; see above")).collect()
    });
    Ok(done?.into_iter().flatten().collect())
}

impl Tree {
    /// Every regular file below `roots`, in a stable order. Symbolic links below a root are not followed.
    fn walk(roots: &[PathBuf]) -> Result<Self, String> {
        let mut tree = Self::default();
        for root in roots {
            let added = root.canonicalize().and_then(|path| tree.add(path));
            added.map_err(|error| cannot("open", root, reason(error)))?;
        }
        if tree.bytes == 0 { Err("nothing to pack: no file with anything in it".into()) } else { Ok(tree) }
    }

    fn add(&mut self, path: PathBuf) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for child in entries.iter().map(fs::DirEntry::path).filter(|child| !is_build_or_git(child)) {
                self.add(child.clone()).unwrap_or_else(|error| self.skip(&child, &error));
            }
        } else if metadata.is_file() {
            self.bytes += metadata.len();
            self.files.push((path, metadata.len()));
        }
        Ok(())
    }

    fn skip(&self, path: &Path, error: &io::Error) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        eprintln!("skipped {}: {}", path.display(), reason(error));
    }
}

/// Cargo marks its build folder with a tag, which reports it from a module that is called `target`.
fn is_build_or_git(path: &Path) -> bool {
    path.ends_with(".git") || (path.ends_with("target") && path.join("CACHEDIR.TAG").exists())
}

fn default_roots() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registry = cargo_home.map(|home| home.join("registry/src")).filter(|folder| folder.is_dir());
    [checkout.unwrap_or_else(|_| ".".into())].into_iter().chain(registry).collect()
}

/// Among the build products: that is a real disk, where /tmp may be memory. An earlier run may have left one there.
fn default_log() -> Result<PathBuf, String> {
    let log = env::current_exe().map_err(reason)?.with_extension("log");
    remove(&log).and(Ok(log))
}

/// A ring would append behind what a log holds already; here that is more likely a mistyped name.
fn open_new(log: &Path) -> Result<QuikIO, String> {
    if fs::metadata(log).is_ok_and(|old| old.is_file() && old.len() > 0) {
        return Err(format!("{} is not empty; remove it or name another file", log.display()));
    }
    QuikIO::open(log).map_err(reason)
}

fn remove(log: &Path) -> Result<(), String> {
    match fs::remove_file(log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", log, reason(error))),
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, why: impl Display) -> String {
    format!("cannot {what} {}: {why}", path.display())
}

/// The error's sentence without the system's number for it.
fn reason(error: impl Display) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

/// The error's sentence, and those of its causes.
fn with_causes(error: &dyn Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", with_causes(source)))
}

fn count(things: usize) -> HumanCount {
    HumanCount(things as u64)
}

fn bytes_of(files: &[Packed<'_>]) -> u64 {
    files.iter().flat_map(|file| &file.chunks).map(|chunk| (chunk.len() - HEADER) as u64).sum()
}

fn speed(files: &[Packed<'_>], seconds: f64) -> String {
    format!("{:.0} MB/s in {seconds:.2} s", bytes_of(files) as f64 / 1e6 / seconds)
}

fn progress_bar(bytes: u64) -> ProgressBar {
    const LOOK: &str = "{bar:40} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
    ProgressBar::new(bytes).with_style(ProgressStyle::with_template(LOOK).expect("the template is well formed"))
}

fn parse_size(text: &str) -> Result<usize, &'static str> {
    let (number, unit) = match (text.strip_suffix('K'), text.strip_suffix('M')) {
        (Some(number), _) => (number, 1 << 10),
        (_, Some(number)) => (number, 1 << 20),
        _ => (text, 1),
    };
    number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit)).ok_or("write it as 65536, 64K or 1M")
}
