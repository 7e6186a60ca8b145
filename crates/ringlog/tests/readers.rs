//! Scans, backwards scans, parallel scans, read-only logs and followers, beside everything that a log does: each record
//! once, in order, and none early. `RINGLOG_SEED` repeats a run, `RINGLOG_STEPS` makes it longer.

mod common;

use core::ops::{ControlFlow, Range};
use core::time::Duration;
use std::env;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Mutex;

use common::open::{payload, small};
use ring_testing::Random;
use ringlog::directory::MemoryDirectory;
use ringlog::recovery::TornTail;
use ringlog::{Follow, Group, Log, Lsn, Options, Record, Upto};

/// A record as a reader gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    lsn: Lsn,
    end: Lsn,
    kind: u8,
    payload: Vec<u8>,
}

impl From<Record<'_>> for Given {
    fn from(record: Record<'_>) -> Self {
        Self { lsn: record.lsn, end: record.end, kind: record.kind, payload: record.payload.to_vec() }
    }
}

/// What the log holds, in the order of the ends.
#[derive(Default)]
struct Truth {
    records: Vec<Given>,
    /// What truncations have made void, and where they are.
    void: Vec<(Given, Lsn)>,
    first: Lsn,
}

impl Truth {
    fn range(&self, from: Lsn, to: Lsn) -> Vec<Given> {
        let from = from.max(self.first);
        let within = |record: &&Given| from < record.end && record.end <= to && record.lsn >= self.first;
        self.records.iter().filter(within).cloned().collect()
    }

    fn truncate(&mut self, from: Lsn, at: Lsn) {
        let void = self.records.extract_if(.., |record| (from..at).contains(&record.lsn));
        self.void.extend(void.map(|record| (record, at)));
    }

    /// What a reader sees that knows the log up to `end` only.
    fn before(&self, end: Lsn) -> Vec<Given> {
        let void = self.void.iter().filter(|(record, at)| record.end <= end && *at >= end && record.lsn >= self.first);
        let mut seen = self.range(self.first, end);
        seen.extend(void.map(|(record, _)| record.clone()));
        seen.sort_by_key(|record| (record.end, record.lsn));
        seen
    }

    fn end(&self) -> Lsn {
        self.records.last().map_or(self.first, |record| record.end)
    }

    /// A place between records, or where the log begins or ends.
    fn boundary(&self, random: &mut Random) -> Lsn {
        match random.below(8) {
            0 => self.first,
            1 => self.end(),
            _ if self.records.is_empty() => self.first,
            _ => self.records[random.below(self.records.len())].end.max(self.first),
        }
    }
}

fn scanned(log: &Log, range: Range<Lsn>) -> Vec<Given> {
    let mut given = Vec::new();
    let end = log.scan(range).for_each(|record| {
        given.push(record.into());
        ControlFlow::Continue(())
    });
    assert!(end.expect("a scan") >= given.last().map_or(Lsn::START, |last: &Given| last.end));
    given
}

/// A follower, and what it was given so far ends where.
struct Follower {
    follow: Follow,
    upto: Upto,
    position: Lsn,
}

impl Follower {
    fn new(log: &Log, from: Lsn, upto: Upto) -> Self {
        Self { follow: log.follow(from, upto), upto, position: from }
    }

    /// Takes what is there, some of it at least.
    fn take(&mut self, log: &Log, truth: &Truth, random: &mut Random) {
        let (limit, mut left) = (log.durable(), random.below(30));
        let expected = truth.range(self.position, truth.end());
        let expected_end_of = |n: usize| expected.get(n).map(|expected| expected.end);
        for (n, expected) in expected.iter().enumerate() {
            if self.upto == Upto::Durable && expected.end > limit {
                break;
            }
            // Of a group all is taken.
            if left == 0 && expected.end > self.position {
                return;
            }
            left = left.saturating_sub(1);
            // Not at once: a thread of the log may just be appending a snapshot.
            let given = self.follow.next_timeout(Duration::from_secs(60)).expect("a follower").map(Given::from);
            assert_eq!(given.as_ref(), Some(expected), "{:?} follower at {}", self.upto, self.position);
            // Of a group, the position is in front until all of it was given.
            let is_last = expected_end_of(n + 1) != Some(expected.end);
            assert!(self.follow.position() < expected.end || is_last && self.follow.position() == expected.end);
            self.position = expected.end;
        }
        assert_eq!(self.follow.try_next().expect("a follower"), None, "{:?}, durable: {limit}", self.upto);
        // Records that are void may follow; if that is not durable yet, the last ones of a group are waited for.
        assert!(self.follow.position() >= self.position || self.upto == Upto::Durable);
    }
}

struct Run {
    random: Random,
    directory: MemoryDirectory,
    truth: Truth,
    number: usize,
}

impl Run {
    fn options(&self) -> Options {
        small().directory(&self.directory)
    }

    fn fresh(&mut self, most: usize) -> (u8, Vec<u8>) {
        self.number += 1;
        (self.number as u8, payload(self.number, self.random.below(most)))
    }

    /// A writer's record may lie before what was appended after its lease began.
    fn add(&mut self, range: Range<Lsn>, kind: u8, payload: Vec<u8>) {
        let at = self.truth.records.partition_point(|record| record.end <= range.end);
        self.truth.records.insert(at, Given { lsn: range.start, end: range.end, kind, payload });
    }

    fn append(&mut self, log: &Log, most: usize) {
        let (kind, payload) = self.fresh(most);
        let range = log.append(kind, &payload).expect("room");
        self.add(range, kind, payload);
    }

    fn group(&mut self, log: &Log, most: usize) {
        let (mut group, mut entries) = (Group::new(), Vec::new());
        for _ in 0..=self.random.below(4) {
            let (kind, payload) = self.fresh(most);
            group.push(kind, &payload);
            entries.push((kind, payload));
        }
        let range = log.append_group(&group).expect("room");
        // Only the first one's address is known; the others are asked for.
        let mut found = Vec::new();
        log.scan(range.start..range.end)
            .for_each(|record| {
                found.push(Given::from(record));
                ControlFlow::Continue(())
            })
            .expect("a scan");
        assert_eq!(found.len(), entries.len());
        for ((kind, payload), found) in entries.into_iter().zip(found) {
            assert_eq!((found.kind, &found.payload, found.end), (kind, &payload, range.end));
            self.add(found.lsn..found.end, kind, payload);
        }
    }

    fn scans(&mut self, log: &Log) {
        let (a, b) = (self.truth.boundary(&mut self.random), self.truth.boundary(&mut self.random));
        let (from, to) = (a.min(b), a.max(b));
        let expected = self.truth.range(from, to);
        let got = scanned(log, from..to);
        let brief = |given: &[Given]| given.iter().map(|given| (given.lsn.get(), given.end.get())).collect::<Vec<_>>();
        assert_eq!(brief(&got), brief(&expected), "{from:?}..{to:?}, first {:?}", log.first());
        let mut backwards = log.scan(from..to).rev();
        for expected in expected.iter().rev() {
            let given = backwards.next().expect("a scan").map(Given::from);
            assert_eq!(given.as_ref(), Some(expected), "{from:?}..{to:?}, backwards");
        }
        assert_eq!(backwards.next().expect("a scan"), None);
        if self.random.chance(30) {
            let parallel = Mutex::new(Vec::new());
            let collect = |record: Record<'_>| parallel.lock().expect("no panic").push(Given::from(record));
            log.scan(from..to).in_parallel(3, collect).expect("a scan");
            let mut parallel = parallel.into_inner().expect("no panic");
            parallel.sort_by_key(|given| (given.end, given.lsn));
            assert_eq!(parallel, expected, "{from:?}..{to:?}, in parallel");
        }
        if self.random.chance(20) {
            let reader = self.options().open_read_only("").expect("a log that is in use");
            assert!(reader.end() <= log.durable());
            let mut scan = reader.scan(..);
            for expected in self.truth.before(reader.end()) {
                assert_eq!(scan.next().expect("a scan").map(Given::from), Some(expected));
            }
            assert_eq!(scan.next().expect("a scan"), None);
        }
    }
}

fn steps() -> (u64, usize) {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse().ok());
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64;
    (number("RINGLOG_SEED").unwrap_or(now), number("RINGLOG_STEPS").unwrap_or(2000) as usize)
}

#[test]
fn every_reader_gives_each_record_once_in_order_and_none_early() {
    /// Of one log.
    const MOST: usize = 2000;
    let (first, steps) = steps();
    println!("RINGLOG_SEED={first} RINGLOG_STEPS={steps}");
    for (n, done) in (0..steps).step_by(MOST).enumerate() {
        let seed = first.wrapping_add(n as u64);
        let run = catch_unwind(|| steps_of_one_log(seed, MOST.min(steps - done)));
        if let Err(panic) = run {
            println!("RINGLOG_SEED={seed} RINGLOG_STEPS={MOST}");
            resume_unwind(panic);
        }
    }
}

fn steps_of_one_log(seed: u64, steps: usize) {
    let (random, directory, truth) = (Random::new(seed), MemoryDirectory::new(), Truth::default());
    let mut run = Run { random, directory, truth, number: 0 };
    let (mut log, _) = run.options().open("").expect("a new log");
    let mut writer = log.writer();
    let mut followers: Vec<Follower> = Vec::new();
    for step in 0..steps {
        match run.random.below(100) {
            0..30 => run.append(&log, 300),
            30..40 => run.append(&log, 6000),
            40..43 => run.append(&log, 40_000),
            43..50 => {
                let (kind, payload) = run.fresh(300);
                let range = writer.append(kind, &payload).expect("room");
                run.add(range, kind, payload);
            }
            50..55 => run.group(&log, 300),
            55..56 => run.group(&log, 9000),
            56..60 => drop(log.reserve(1, run.random.below(1000)).expect("room")),
            60..68 => _ = log.sync().expect("a working device"),
            68..71 => {
                let Some(from) = run.truth.records.get(run.random.below(run.truth.records.len().max(1))) else {
                    continue;
                };
                let from = from.lsn.max(run.truth.first);
                // Followers have to be where they can be compared.
                if followers.iter().any(|follower| follower.position > from) {
                    continue;
                }
                let at = log.truncate(from).expect("room").start;
                run.truth.truncate(from, at);
            }
            71..74 => {
                let held = followers.iter().map(|follower| follower.follow.position()).min().unwrap_or(log.end());
                let to = run.truth.boundary(&mut run.random);
                let trimmed = log.trim(to).expect("a working device");
                assert!(trimmed.first <= held.max(run.truth.first), "followers hold what they have not given");
                run.truth.first = trimmed.first;
                run.truth.records.retain(|record| record.lsn >= trimmed.first);
            }
            74..75 => _ = log.roll().expect("room"),
            75..77 if run.random.chance(30) => {
                followers.clear();
                log.close().expect("a working device");
                drop((log, writer));
                log = run.options().torn_tail(TornTail::Refuse).open("").expect("a closed log").0;
                writer = log.writer();
            }
            77..80 => {
                if followers.len() == 4 {
                    followers.remove(run.random.below(4));
                }
                let upto = run.random.pick(&[Upto::Durable, Upto::Staged]);
                let from = run.truth.boundary(&mut run.random);
                followers.push(Follower::new(&log, from, upto));
            }
            80..90 => {
                for follower in &mut followers {
                    follower.take(&log, &run.truth, &mut run.random);
                }
            }
            _ => run.scans(&log),
        }
        assert!(run.truth.first == log.first(), "step {step}");
    }
}
