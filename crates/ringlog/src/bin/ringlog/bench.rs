//! `ringlog bench`: how fast a log is here.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ringlog::format::BLOCK;
use ringlog::{Log, Writer};

use crate::output::{Cell, Failure, Output, Page, Status};
use crate::source::Source;

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Append, and make all of it durable at the end
    Append,
    /// Wait for each record to be durable
    Commit,
}

/// Append records to a new log, and print how fast that was
///
/// Records begin with the number of their thread, which is also their kind, and their own number in that thread, each
/// in 8 bytes, little-endian. The log is kept, to be looked at.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Directory of the log, which must be new or empty
    dir: PathBuf,
    /// What the threads do: one of these, or both in turn
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Threads that append
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Bytes of each record, at least 16
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=16 << 20))]
    size: u32,
    /// Seconds that each mode takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Records of each thread in each mode, if that is fewer
    #[arg(long)]
    records: Option<u64>,
    /// Bytes of each segment
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    segment_size: u64,
    /// Go on with the log in the directory
    #[arg(long)]
    append: bool,
}

/// What one thread has seen.
#[derive(Debug, Default)]
struct Seen {
    records: u64,
    /// Of commits, in nanoseconds.
    times: Vec<u64>,
}

impl Bench {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let seconds = Duration::try_from_secs_f64(self.seconds).map_err(Failure::at("--seconds"))?;
        let is_used = fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_some());
        if is_used && !self.append {
            let dir = self.dir.display();
            return Err(Failure::new(format!("{dir} is not empty; name another one, or go on there with --append")));
        }
        let mut segment_size = self.segment_size;
        if is_used {
            // What is no log is not made one.
            let source = Source::open(&self.dir)?;
            segment_size = source.manifest().map_err(source.here())?.segment_size;
        }
        let buffer = (segment_size / 4).min(1 << 20) / BLOCK as u64 * BLOCK as u64;
        let options = Log::options().segment_size(segment_size).ring(8, buffer as usize);
        let (log, recovery) = options.open(&self.dir).map_err(Failure::at(self.dir.display()))?;
        let mut rows = Vec::new();
        let mut next = vec![0; self.threads.into()];
        for mode in self.mode.map_or_else(|| vec![Mode::Append, Mode::Commit], |mode| vec![mode]) {
            rows.push(self.measure(&log, mode, seconds, &mut next)?);
        }
        let end = log.close()?;
        let mut page = Page::default();
        page.fact("log", Cell::id(recovery.log_id)).fact("threads", u32::from(self.threads));
        page.fact("bytes of a record", self.size).fact("from", recovery.end).fact("end", end);
        let columns =
            &["mode", "records", "seconds", "records per second", "MB per second", "median in us", "99 % in us"];
        page.table("rates", columns, rows);
        output.page(&page)?;
        Ok(Status::Good)
    }

    /// One mode. Numbers go on from `next`.
    fn measure(&self, log: &Log, mode: Mode, seconds: Duration, next: &mut [u64]) -> Result<Vec<Cell>, Failure> {
        let stop = AtomicBool::new(false);
        let bar = ProgressBar::new(seconds.as_millis() as u64);
        let style = ProgressStyle::with_template("{msg} {bar:40} {eta} left");
        let bar = style.map(|style| bar.clone().with_style(style)).unwrap_or(bar);
        bar.set_message(if mode == Mode::Append { "append" } else { "commit" });
        let start = Instant::now();
        let seen = thread::scope(|scope| {
            let threads: Vec<_> = (0_u64..)
                .zip(next.iter_mut())
                .map(|(thread, next)| {
                    let (writer, stop) = (log.writer(), &stop);
                    scope.spawn(move || self.write(writer, mode, thread, next, stop))
                })
                .collect();
            while start.elapsed() < seconds && !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                thread::sleep(Duration::from_millis(5));
                bar.set_position(start.elapsed().as_millis() as u64);
            }
            // Relaxed: it carries nothing but itself.
            stop.store(true, Ordering::Relaxed);
            let seen = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked; see above"))));
            seen.collect::<Result<Vec<_>, _>>()
        });
        bar.finish_and_clear();
        let seen = seen?;
        log.sync()?;
        let took = start.elapsed().as_secs_f64().max(1e-9);
        let records: u64 = seen.iter().map(|seen| seen.records).sum();
        let mut times: Vec<_> = seen.into_iter().flat_map(|seen| seen.times).collect();
        times.sort_unstable();
        let rate = records as f64 / took;
        let micros = |percent: usize| {
            let last = times.len().checked_sub(1)?;
            Some(rounded(times[last * percent / 100] as f64 / 1e3))
        };
        Ok(vec![
            Cell::from(if mode == Mode::Append { "append" } else { "commit" }),
            records.into(),
            rounded(took),
            rounded(rate),
            rounded(rate * f64::from(self.size) / 1e6),
            micros(50).into(),
            micros(99).into(),
        ])
    }

    fn write(
        &self,
        mut writer: Writer,
        mode: Mode,
        thread: u64,
        next: &mut u64,
        stop: &AtomicBool,
    ) -> Result<Seen, Failure> {
        let mut payload = vec![b'.'; self.size as usize];
        payload[..8].copy_from_slice(&thread.to_le_bytes());
        let mut seen = Seen::default();
        while seen.records < self.records.unwrap_or(u64::MAX) && !stop.load(Ordering::Relaxed) {
            payload[8..16].copy_from_slice(&next.to_le_bytes());
            if mode == Mode::Append {
                writer.append(thread as u8, &payload)?;
            } else {
                let start = Instant::now();
                let _applied = writer.commit(thread as u8, &payload)?;
                seen.times.push(start.elapsed().as_nanos() as u64);
            }
            *next += 1;
            seen.records += 1;
        }
        Ok(seen)
    }
}

fn rounded(number: f64) -> Cell {
    let number = (number * 100.0).round() / 100.0;
    Cell::new(number.to_string(), number)
}
