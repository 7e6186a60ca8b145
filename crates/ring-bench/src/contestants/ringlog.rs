//! `ringlog`: the ring with a format, segments and recovery.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ring_alloc::Buffer;
use ringlog::Options;
use ringlog::directory::DiskDirectory;
use ringlog::recovery::{Verify, verify};
use rustix::fs::Advice;

use super::direct;
use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::measure::{Job, Meters, Sample};
use crate::stamp::{Record, Tally};

pub const STAGING: [Contestant; 2] =
    [ours::<Appends<false>>("ringlog append"), ours::<ByLogWriters<false>>("ringlog writer")];
pub const STREAMING: [Contestant; 2] =
    [ours::<Appends<true>>("ringlog append"), ours::<ByLogWriters<true>>("ringlog writer")];
pub const DURABLE: [Contestant; 2] =
    [ours::<Commits<SEGMENT>>("ringlog commit"), ours::<Commits<SMALL_SEGMENT>>("ringlog commit, small segments")];
pub const RECOVERY: [Contestant; 8] = [
    Contestant::program(Family::Limit, "direct reads of 1 MiB", |job| read(job, "log", Reads::Direct)),
    Contestant::program(Family::Limit, "reads from the page cache", |job| read(job, "log", Reads::Cached)),
    Contestant::program(Family::Ours, "ringlog verify", |job| recover(job, "log", false, &check)),
    Contestant::program(Family::Ours, "ringlog verify, from the page cache", |job| recover(job, "log", true, &check)),
    Contestant::program(Family::Ours, "ringlog open_with, not closed", |job| recover(job, "unclosed", false, &replay)),
    Contestant::program(Family::Ours, "ringlog scan", |job| recover(job, "log", false, &scan)),
    Contestant::program(Family::Ours, "ringlog scan, from the page cache", |job| recover(job, "log", true, &scan)),
    Contestant::program(Family::Ours, "ringlog scan in parallel", |job| recover(job, "log", false, &scan_in_parallel)),
];

const MIB: usize = 1 << 20;
const SEGMENT: u64 = 64 << 20;
/// Left behind by 64 threads in a few milliseconds.
const SMALL_SEGMENT: u64 = 1 << 20;

const fn ours<L: Log>(name: &'static str) -> Contestant {
    Contestant::of::<L>(Family::Ours, name)
}

fn options(buffers: usize, buffer_size: usize, segment: u64) -> Options {
    ringlog::Log::options().ring(buffers, buffer_size).segment_size(segment)
}

/// A log in a new directory.
struct Opened {
    log: ringlog::Log,
    folder: PathBuf,
}

impl Opened {
    fn new(place: &Place, options: Options) -> Outcome<Self> {
        let folder = place.folder.join("ringlog");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        Ok(Self { log: options.open(&folder)?.0, folder })
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        let Self { log, folder } = self;
        log.close()?;
        drop(log);
        let each = |record: ringlog::Record<'_>| {
            tally.note(record.payload);
            Ok::<_, Infallible>(())
        };
        // The smallest ring: nothing is appended.
        let (log, _) = options(2, 4096, SEGMENT).open_with(&folder, each)?;
        log.close()?;
        Ok(true)
    }
}

/// Appends of all threads through the log itself. With `TO_DEVICE` it ends when all is on stable storage.
pub struct Appends<const TO_DEVICE: bool>(Opened);

impl<const TO_DEVICE: bool> Log for Appends<TO_DEVICE> {
    type Writer<'a> = LogAppend<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        let memory = if TO_DEVICE { 8 * MIB } else { place.memory };
        Ok(Self(Opened::new(place, options(memory / MIB, MIB, SEGMENT))?))
    }

    fn writer(&self, _: usize) -> LogAppend<'_> {
        LogAppend(&self.0.log)
    }

    fn finish(&mut self) -> Outcome<()> {
        if TO_DEVICE {
            self.0.log.close()?;
        }
        Ok(())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct LogAppend<'a>(&'a ringlog::Log);

impl Writer for LogAppend<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.0.append(0, record).expect("the log takes it");
    }
}

/// The same through a writer for each thread.
pub struct ByLogWriters<const TO_DEVICE: bool>(Appends<TO_DEVICE>);

impl<const TO_DEVICE: bool> Log for ByLogWriters<TO_DEVICE> {
    type Writer<'a> = ringlog::Writer;

    fn open(place: &Place) -> Outcome<Self> {
        Appends::open(place).map(Self)
    }

    fn writer(&self, _: usize) -> ringlog::Writer {
        self.0.0.log.writer()
    }

    fn finish(&mut self) -> Outcome<()> {
        self.0.finish()
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

impl Writer for ringlog::Writer {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        ringlog::Writer::append(self, 0, record).expect("the log takes it");
    }
}

/// Each record is waited for until it is on stable storage.
pub struct Commits<const SEGMENT: u64>(Opened);

impl<const SEGMENT: u64> Log for Commits<SEGMENT> {
    type Writer<'a> = Commit<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        Ok(Self(Opened::new(place, options(8, 256 << 10, SEGMENT))?))
    }

    fn writer(&self, _: usize) -> Commit<'_> {
        Commit(&self.0.log)
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct Commit<'a>(&'a ringlog::Log);

impl Writer for Commit<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        drop(self.0.commit(0, &[IoSlice::new(record)]).expect("the log takes it"));
    }
}

/// A closed log, and one as a killed process leaves it. All contestants of a workload share both.
fn prepared_logs(place: &Place) -> Outcome<PathBuf> {
    let shared = place.folder.parent().expect("a folder for each contestant").join(format!("logs-{}", place.size));
    let (closed, unclosed) = (shared.join("log"), shared.join("unclosed"));
    if closed.exists() {
        return Ok(shared);
    }
    fs::create_dir_all(&unclosed)?;
    let (log, _) = options(8, MIB, SEGMENT).open(&closed)?;
    let mut writer = log.writer();
    let mut record = Record::new(0, place.size);
    while record.written() < place.expected / place.size as u64 {
        writer.append(0, record.next())?;
    }
    drop(writer);
    log.sync()?;
    for file in files(&closed)? {
        fs::copy(&file, unclosed.join(file.file_name().expect("a file")))?;
    }
    log.close()?;
    drop(log);
    for file in files(&unclosed)? {
        File::open(file)?.sync_all()?;
    }
    Ok(shared)
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Has the page cache forget the log, or read it.
fn prepare_cache(folder: &Path, cached: bool) -> Outcome<()> {
    for path in files(folder)? {
        let file = File::open(&path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        if cached {
            fs::read(&path)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Direct,
    Cached,
}

/// Reads all files of the log, by as many threads as there are processors, or by four to the device.
fn read(job: &Job, log: &str, reads: Reads) -> Outcome<Sample> {
    let place = &job.place;
    let folder = prepared_logs(place)?.join(log);
    prepare_cache(&folder, reads == Reads::Cached)?;
    let files: Vec<_> = files(&folder)?.into_iter().filter(|path| path.extension().is_some()).collect();
    let threads = if reads == Reads::Direct { 4 } else { thread::available_parallelism()?.get() };
    let total = AtomicU64::new(0);
    let meters = Meters::read(place);
    let start = Instant::now();
    let work = |first: usize| -> Outcome<()> {
        let mut buffer = Buffer::zeroed(MIB)?;
        for path in files.iter().skip(first).step_by(threads) {
            let file = if reads == Reads::Direct { direct(path)? } else { File::open(path)? };
            let mut offset = 0;
            loop {
                let len = rustix::io::pread(&file, &mut buffer[..], offset)?;
                total.fetch_add(len as u64, Ordering::Relaxed);
                offset += len as u64;
                if len < MIB {
                    break;
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|first| scope.spawn(move || work(first))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let sample = meters.sample(place, start, place.expected / place.size as u64);
    let total = total.into_inner();
    if total < place.expected { Err(format!("{total} bytes were read").into()) } else { Ok(sample) }
}

fn check(folder: &Path) -> Outcome<u64> {
    Ok(verify(&DiskDirectory::open(folder)?, &Verify::new())?.records)
}

fn replay(folder: &Path) -> Outcome<u64> {
    let mut seen = 0;
    let each = |_: ringlog::Record<'_>| {
        seen += 1;
        Ok::<_, Infallible>(())
    };
    let (_, recovery) = options(2, 4096, SEGMENT).open_with(folder, each)?;
    if seen == recovery.records { Ok(seen) } else { Err(format!("{seen} records were replayed").into()) }
}

/// By one thread, record by record.
fn scan(folder: &Path) -> Outcome<u64> {
    let (mut scan, mut seen) = (ringlog::Log::options().open_read_only(folder)?.scan(..), 0);
    while scan.next()?.is_some() {
        seen += 1;
    }
    Ok(seen)
}

fn scan_in_parallel(folder: &Path) -> Outcome<u64> {
    let seen = AtomicU64::new(0);
    let each = |_: ringlog::Record<'_>| _ = seen.fetch_add(1, Ordering::Relaxed);
    let threads = thread::available_parallelism()?.get();
    ringlog::Log::options().open_read_only(folder)?.scan(..).in_parallel(threads, each)?;
    Ok(seen.into_inner())
}

/// Reads the whole log, and checks that all records are there.
fn recover(job: &Job, log: &str, cached: bool, by: &dyn Fn(&Path) -> Outcome<u64>) -> Outcome<Sample> {
    let place = &job.place;
    let folder = prepared_logs(place)?.join(log);
    prepare_cache(&folder, cached)?;
    let meters = Meters::read(place);
    let start = Instant::now();
    let found = by(&folder)?;
    let records = place.expected / place.size as u64;
    let sample = meters.sample(place, start, records);
    if found == records { Ok(sample) } else { Err(format!("{found} records found").into()) }
}
