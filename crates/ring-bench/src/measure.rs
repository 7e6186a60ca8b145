//! One measurement: threads that start together, stop together, and what it cost.

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::log::{Log, Outcome, Place, Writer};
use crate::stamp::{Record, Tally};

/// Appends between two looks at the clock's flag, where an append takes nanoseconds.
const STRIDE: u64 = 64;

/// How long a measurement goes on.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    For(Duration),
    /// Records, all threads together.
    Records(u64),
}

#[derive(Clone, Debug)]
pub struct Job {
    pub place: Place,
    pub amount: Amount,
    /// Whether each append is timed by itself.
    pub timed: bool,
}

impl Job {
    /// Records that one of the threads appends, at most.
    pub fn share(&self, thread: usize) -> u64 {
        let threads = self.place.threads as u64;
        match self.amount {
            Amount::For(_) => u64::MAX,
            Amount::Records(all) => all / threads + u64::from((thread as u64) < all % threads),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Sample {
    pub records: u64,
    pub payload: u64,
    /// From the start of the first thread to the end of the last, and of [`Log::finish`].
    pub wall: Duration,
    /// CPU time of the whole process, kernel included.
    pub cpu: Duration,
    /// Bytes that the block device took meanwhile, from any process.
    pub device: u64,
    /// Bytes that this process sent on their way to a device.
    pub process: u64,
    /// Bytes that this process read, also from the page cache.
    pub read: u64,
    /// Bytes of the log's file.
    pub file: Option<u64>,
    pub latency: Option<Histogram<u64>>,
    /// What the stamp check says; `None` for a limit.
    pub verdict: Option<Result<(), String>>,
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

pub fn run<L: Log>(job: &Job) -> Outcome<Sample> {
    let place = &job.place;
    let log = L::open(place)?;
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(place.threads + 1);
    let meters = Meters::read(place);
    let mut start = Instant::now();
    let threads: Vec<_> = thread::scope(|scope| {
        let (log, stop, barrier) = (&log, &stop, &barrier);
        let threads: Vec<_> = (0..place.threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut writer = log.writer(thread);
                    let mut record = Record::new(thread, place.size);
                    barrier.wait();
                    let latency = work(job, thread, &mut writer, &mut record, stop);
                    (record.written(), latency)
                })
            })
            .collect();
        barrier.wait();
        start = Instant::now();
        if let Amount::For(time) = job.amount {
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        }
        threads.into_iter().map(|thread| thread.join().expect("a contestant panicked")).collect()
    });
    conclude(job, log, &meters, start, &threads)
}

/// The sample, when all who append have ended: how many records each has written, and how long each took.
pub fn conclude<L: Log>(
    job: &Job,
    mut log: L,
    meters: &Meters,
    start: Instant,
    written: &[(u64, Option<Histogram<u64>>)],
) -> Outcome<Sample> {
    let place = &job.place;
    log.finish()?;
    let counts: Vec<_> = written.iter().map(|(count, _)| *count).collect();
    let sample = meters.sample(place, start, counts.iter().sum());

    let file = log.length();
    let verdict = if place.checked {
        let mut tally = Tally::new(&counts, place.size);
        log.read_back(&mut tally)?.then(|| tally.verdict())
    } else {
        None
    };
    let latency = job.timed.then(|| {
        let mut sum = histogram();
        written.iter().filter_map(|(_, latency)| latency.as_ref()).for_each(|one| sum.add(one).expect("same bounds"));
        sum
    });
    Ok(Sample { file, latency, verdict, ..sample })
}

/// Appends until it is enough.
fn work(
    job: &Job,
    thread: usize,
    writer: &mut impl Writer,
    record: &mut Record,
    stop: &AtomicBool,
) -> Option<Histogram<u64>> {
    let limit = job.share(thread);
    if job.timed {
        let mut latency = histogram();
        while record.written() < limit && !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            writer.append(black_box(record.next()));
            latency.saturating_record(start.elapsed().as_nanos() as u64);
        }
        return Some(latency);
    }
    while record.written() < limit && !stop.load(Ordering::Relaxed) {
        for _ in 0..STRIDE.min(limit - record.written()) {
            writer.append(black_box(record.next()));
        }
    }
    None
}

/// The kernel's meters, as they stand when a measurement begins.
pub struct Meters {
    cpu: Duration,
    device: u64,
    process: u64,
    read: u64,
}

impl Meters {
    pub fn read(place: &Place) -> Self {
        Self {
            cpu: cpu_time(),
            device: device_bytes(place).unwrap_or(0),
            process: process_bytes("write_bytes: ").unwrap_or(0),
            read: process_bytes("rchar: ").unwrap_or(0),
        }
    }

    /// What it took to append `records` records since `start`.
    pub fn sample(&self, place: &Place, start: Instant, records: u64) -> Sample {
        let wall = start.elapsed();
        let now = Self::read(place);
        Sample {
            records,
            payload: records * place.size as u64,
            wall,
            cpu: now.cpu - self.cpu,
            device: now.device - self.device,
            process: now.process - self.process,
            read: now.read - self.read,
            file: None,
            latency: None,
            verdict: None,
        }
    }
}

fn cpu_time() -> Duration {
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: it is given a valid place to write to.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Sectors written to the device under the folder, from `/proc/diskstats`.
fn device_bytes(place: &Place) -> Option<u64> {
    let stat = rustix::fs::stat(&place.folder).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let all = fs::read_to_string("/proc/diskstats").ok()?;
    let line = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| {
        fields.first().and_then(|field| field.parse().ok()) == Some(major)
            && fields.get(1).and_then(|field| field.parse().ok()) == Some(minor)
    })?;
    Some(line.get(9)?.parse::<u64>().ok()? * 512)
}

fn process_bytes(which: &str) -> Option<u64> {
    let all = fs::read_to_string("/proc/self/io").ok()?;
    all.lines().find_map(|line| line.strip_prefix(which))?.parse().ok()
}
