//! A log of `ringlog` under a file system: what a child process does to it, and what an image of it must hold.
//!
//! The child opens the log, appends and commits from several threads, rolls, trims and truncates, closes, opens it
//! again, goes on, and ends with or without a close. Segments are small, so that they are rotated and used again.
//!
//! *Lower bound*: what was reported to be durable is there, with its address and kind, unless it was trimmed or
//! truncated. *Upper bound*: each record that is there was appended, is whole, is there once, where it was placed, and
//! not below a truncation that is durable. And no image of a power cut is damaged.

use core::convert::Infallible;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::thread;

use clap::Args;
use ringlog::directory::DiskDirectory;
use ringlog::recovery::{Item, Replay, ReplayError, Verdict, Verify, replay, verify};
use ringlog::{Group, Log, Lsn, OpenError, Options};
use serde::{Deserialize, Serialize};

use crate::incarnation;
use crate::log::{self, Event};
use crate::record::{HEADER, RecordId, decode, encode};
use crate::workload::note;
use ring_testing::Random;

const SEGMENT: u64 = 64 << 10;
const THREADS: u32 = 3;
/// What each thread does in an incarnation.
const STEPS: usize = 25;

/// What happened to the log, as its user has seen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Logged {
    /// The log is about to be opened.
    Opening,
    /// This is about to be appended.
    Appending { record: RecordId },
    /// It was, alone or with others as a group, in this range.
    Appended { record: RecordId, start: u64, end: u64 },
    /// Everything below is reported to be durable.
    Durable { below: u64 },
    /// The log is about to be trimmed to an address that is at most this one.
    Trimming { to: u64 },
    /// It begins here now.
    Trimmed { first: u64 },
    /// Records from here on are about to be made void.
    Truncating { from: u64 },
    /// Those up to the record in this range are.
    Truncated { from: u64, start: u64, end: u64 },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RecordsOptions {
    /// The folder of the log
    #[arg(long)]
    log: PathBuf,
    /// Where to record acknowledgements
    #[arg(long)]
    acks: PathBuf,
    #[arg(long)]
    seed: u64,
}

/// Runs the workload in a process of its own, and returns its last line.
pub(crate) fn run(seed: u64, log: &Path, acks: &Path) -> Result<String, String> {
    let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
    command.arg("records").arg("--log").arg(log).arg("--acks").arg(acks).args(["--seed", &seed.to_string()]);
    incarnation::finish(command, seed)
}

/// How a log with these choices is opened.
fn options(random: &mut Random) -> Options {
    let (buffers, buffer_size) = (2 + random.below(4), random.pick(&[4096, 8192, 16_384]));
    Log::options().segment_size(SEGMENT).ring(buffers, buffer_size)
}

pub(crate) fn task(chosen: &RecordsOptions) -> Result<(), String> {
    let acks = File::options().write(true).open(&chosen.acks).map_err(|error| format!("the acks: {error}"))?;
    let note = |logged| note(&acks, &Event::Logged(logged));
    let mut random = Random::new(chosen.seed);
    for incarnation in 1..=2 {
        note(Logged::Opening);
        let (log, recovery) = options(&mut random).open(&chosen.log).map_err(|error| error.to_string())?;
        let work = Work { log: &log, note: &note, incarnation, next: AtomicU32::new(0), placed: Mutex::default() };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (work, random) = (&work, Random::new(random.next()));
                scope.spawn(move || work.run(thread, random));
            }
        });
        if incarnation == 1 || random.chance(50) {
            let below = log.close().map_err(|error| error.to_string())?.get();
            note(Logged::Durable { below });
        }
        if incarnation == 2 {
            println!("{} segments, opened as {}", log.segments().len(), recovery.verdict);
            // Without the close that dropping the log makes.
            process::exit(0);
        }
    }
    Ok(())
}

struct Work<'a, N> {
    log: &'a Log,
    note: &'a N,
    incarnation: u32,
    next: AtomicU32,
    /// Where records begin.
    placed: Mutex<Vec<u64>>,
}

impl<N: Fn(Logged) + Sync> Work<'_, N> {
    fn run(&self, thread: u32, mut random: Random) {
        for _ in 0..STEPS {
            self.step(thread, &mut random).unwrap_or_else(|error| {
                // Its other threads go on, and would hide that.
                eprintln!("{error}");
                process::exit(1);
            });
        }
    }

    fn step(&self, thread: u32, random: &mut Random) -> Result<(), ringlog::Error> {
        let (log, kind) = (self.log, thread as u8);
        match random.below(20) {
            0..=5 => {
                let (record, bytes) = self.record(thread, random.below(1500));
                let placed = log.append(kind, &bytes)?;
                self.appended(&[record], placed.start, placed.end);
            }
            6..=9 => {
                let (record, bytes) = self.record(thread, random.below(3000));
                let placed = log.writer().append(kind, &bytes)?;
                self.appended(&[record], placed.start, placed.end);
                self.wait(placed.end)?;
            }
            10..=12 => {
                let (mut group, mut records) = (Group::new(), Vec::new());
                for _ in 0..1 + random.below(4) {
                    let (record, bytes) = self.record(thread, random.below(700));
                    group.push(kind, &bytes);
                    records.push(record);
                }
                let done = log.commit_group(&group)?;
                self.appended(&records, done.lsn(), done.end());
                (self.note)(Logged::Durable { below: done.end().get() });
            }
            13..=14 => {
                let (record, bytes) = self.record(thread, 17_000 + random.below(20_000));
                let placed = log.append(kind, &bytes)?;
                self.appended(&[record], placed.start, placed.end);
                if random.chance(50) {
                    self.wait(placed.end)?;
                }
            }
            15 => (self.note)(Logged::Durable { below: log.sync()?.get() }),
            16 => _ = log.roll()?,
            17 | 18 => {
                let to = log.settled().get().saturating_sub(random.below(2 * SEGMENT as usize) as u64);
                (self.note)(Logged::Trimming { to });
                (self.note)(Logged::Trimmed { first: log.trim(Lsn::new(to))?.first.get() });
            }
            _ => self.truncate(random)?,
        }
        Ok(())
    }

    fn truncate(&self, random: &mut Random) -> Result<(), ringlog::Error> {
        let from = {
            let placed = self.placed.lock().expect("no panic");
            let few = placed.len().min(6);
            if few == 0 {
                return Ok(());
            }
            placed[placed.len() - 1 - random.below(few)]
        };
        if from < self.log.first().get() {
            return Ok(());
        }
        (self.note)(Logged::Truncating { from });
        match self.log.truncate(Lsn::new(from)) {
            // Trimmed meanwhile.
            Err(ringlog::Error::Trimmed { .. }) => Ok(()),
            placed => {
                let (start, end) = placed.map(|placed| (placed.start.get(), placed.end.get()))?;
                (self.note)(Logged::Truncated { from, start, end });
                if random.chance(60) { self.wait(Lsn::new(end)) } else { Ok(()) }
            }
        }
    }

    /// A record that is about to be appended.
    fn record(&self, writer: u32, more: usize) -> (RecordId, Vec<u8>) {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let record = RecordId { incarnation: self.incarnation, writer, sequence };
        (self.note)(Logged::Appending { record });
        (record, encode(record, HEADER + more))
    }

    fn appended(&self, records: &[RecordId], start: Lsn, end: Lsn) {
        let (start, end) = (start.get(), end.get());
        records.iter().for_each(|&record| (self.note)(Logged::Appended { record, start, end }));
        self.placed.lock().expect("no panic").push(start);
    }

    fn wait(&self, end: Lsn) -> Result<(), ringlog::Error> {
        self.log.wait_durable(end)?;
        (self.note)(Logged::Durable { below: end.get() });
        Ok(())
    }
}

/// A truncation.
#[derive(Debug)]
struct Void {
    from: u64,
    /// The record that says so.
    start: u64,
    end: u64,
}

impl Void {
    fn contains(&self, at: u64) -> bool {
        (self.from..self.start).contains(&at)
    }
}

/// Judges a log by both bounds.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Where each record is placed, sooner or later.
    placed: BTreeMap<RecordId, (u64, u64)>,
    voids: Vec<Void>,
    appending: BTreeMap<RecordId, ()>,
    durable: u64,
    /// Where the log may begin.
    first: RangeInclusive<u64>,
    /// From where on records may be void.
    truncating: Vec<u64>,
}

type Found = BTreeMap<RecordId, u64>;

impl Bounds {
    /// For this log, of which nothing has happened yet.
    pub(crate) fn new(log: &log::Log) -> Self {
        let mut bounds = Self {
            placed: BTreeMap::new(),
            voids: Vec::new(),
            appending: BTreeMap::new(),
            durable: 0,
            first: 0..=0,
            truncating: Vec::new(),
        };
        for event in &log.events {
            match *event {
                Event::Logged(Logged::Appended { record, start, end }) => {
                    _ = bounds.placed.insert(record, (start, end));
                }
                Event::Logged(Logged::Truncated { from, start, end }) => bounds.voids.push(Void { from, start, end }),
                _ => {}
            }
        }
        bounds
    }

    pub(crate) fn note(&mut self, logged: &Logged) {
        let (least, most) = self.first.clone().into_inner();
        match *logged {
            Logged::Appending { record } => _ = self.appending.insert(record, ()),
            Logged::Durable { below } => self.durable = self.durable.max(below),
            Logged::Trimming { to } => self.first = least..=most.max(to),
            Logged::Trimmed { first } => self.first = least.max(first)..=most.max(first),
            Logged::Truncating { from } => self.truncating.push(from),
            Logged::Opening | Logged::Appended { .. } | Logged::Truncated { .. } => {}
        }
    }

    /// Judges the log in `folder`: as it is, and once it has been opened and goes on.
    pub(crate) fn judge(&self, folder: &Path) -> Result<(), String> {
        let before = match self.read(folder) {
            Ok(found) => found,
            Err(Refused::Missing) if self.durable == 0 => Found::new(),
            Err(Refused::Missing) => return Err("there is no log".into()),
            Err(Refused::Other(why)) => return Err(why),
        };
        let (mut opened, mut next) = (Found::new(), None);
        let log = Log::options().segment_size(SEGMENT).ring(2, 4096).open_with(folder, |record| {
            // What it is was looked at before.
            if let Some((id, _)) = decode(record.payload) {
                opened.insert(id, record.lsn.get());
            }
            Ok::<_, Infallible>(())
        });
        let (log, _) = log.map_err(|error| format!("it does not open: {error}"))?;
        if opened != before {
            return Err(format!("{} records are there, and {} once it is opened", before.len(), opened.len()));
        }
        for n in 0..2 {
            let bytes = encode(RecordId { incarnation: 3, writer: 0, sequence: n }, 100);
            let parts = [std::io::IoSlice::new(&bytes)];
            next = Some(log.commit(9, &parts).map_err(|error| format!("it does not go on: {error}"))?.lsn().get());
        }
        drop(log);
        let (report, found) = self.look(folder).map_err(|refused| format!("opened again, {refused:?}"))?;
        match report.verdict {
            Verdict::Clean if found.values().max() == next.as_ref() && found.len() == before.len() + 2 => Ok(()),
            verdict => Err(format!("{verdict}, with {} records after {}", found.len(), before.len())),
        }
    }

    /// What is in the log, judged.
    fn read(&self, folder: &Path) -> Result<Found, Refused> {
        let (report, found) = self.look(folder)?;
        let wrong = |what: String| Err(Refused::Other(what));
        let first = report.first.get();
        if let Verdict::Damaged(_) = report.verdict {
            return wrong(format!("{}", report.verdict));
        }
        if !self.first.contains(&first) {
            return wrong(format!("the log begins at {first}, not in {:?}", self.first));
        }
        for (id, &at) in &found {
            let known = self.placed.get(id);
            if !self.appending.contains_key(id) {
                return wrong(format!("{id} at {at} is invented"));
            }
            if known.is_some_and(|(start, end)| !(*start..*end).contains(&at)) {
                return wrong(format!("{id} is at {at}, and was placed at {known:?}"));
            }
            if let Some(void) = self.voids.iter().find(|void| void.end <= self.durable && void.contains(at)) {
                return wrong(format!("{id} at {at} is void: {void:?}"));
            }
        }
        for (id, &(start, end)) in self.placed.iter().filter(|(_, (_, end))| *end <= self.durable) {
            // A truncation that has begun may be there.
            let may_be_void =
                || self.voids.iter().any(|void| void.contains(start) && self.truncating.contains(&void.from));
            if start >= first && !found.contains_key(id) && !may_be_void() {
                return wrong(format!("{id} at {start}..{end} was durable, and is not there; {}", report.verdict));
            }
        }
        Ok(found)
    }

    /// All records that are there, whole, with their kinds, each once.
    fn look(&self, folder: &Path) -> Result<(ringlog::Recovery, Found), Refused> {
        let directory = match DiskDirectory::open(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Refused::Missing),
            opened => opened.map_err(|error| Refused::Other(error.to_string()))?,
        };
        let report = match verify(&directory, &Verify::new()) {
            Err(OpenError::Missing) => return Err(Refused::Missing),
            judged => judged.map_err(|error| Refused::Other(error.to_string()))?,
        };
        let mut found = Found::new();
        let replayed = replay(&directory, &report, &Replay::new(), |item| {
            let Item::Record(record) = item else { return Err("there is a gap".to_owned()) };
            let (id, len) = decode(record.payload).ok_or("it is no record of the workload")?;
            let kind = if id.incarnation == 3 { 9 } else { id.writer as u8 };
            if len != record.payload.len() || kind != record.kind || encode(id, len) != record.payload {
                return Err(format!("{id} is not what was appended"));
            }
            match found.insert(id, record.lsn.get()) {
                None => Ok(()),
                Some(other) => Err(format!("{id} is there twice, at {other} too")),
            }
        });
        replayed.map_err(|error| match error {
            ReplayError::Stopped(at, why) => Refused::Other(format!("at {at}, {why}")),
            error => Refused::Other(format!("{error:?}")),
        })?;
        Ok((report, found))
    }
}

/// Why there is nothing to be judged.
#[derive(Debug)]
enum Refused {
    Missing,
    Other(String),
}
