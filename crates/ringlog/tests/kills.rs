//! Crash, recover, append, crash again: a process that is killed at random moments, round after round on one log, and
//! each time every record that it had acknowledged is there. `RINGLOG_KILLS=200` for more rounds, `RINGLOG_SEED` for
//! the same ones.

use core::convert::Infallible;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::path::Path;
use std::process::{self, Command, Stdio};

use std::{env, thread};

use ring_testing::Random;
use ringlog::directory::DiskDirectory;
use ringlog::recovery::{Item, Replay, Verdict, Verify, replay, verify};
use ringlog::{Group, Log, Lsn};

/// Where the child finds the log, and what it acknowledges into.
const FOLDER: &str = "RINGLOG_KILLS_FOLDER";
const SEED: &str = "RINGLOG_KILLS_CHILD";

const THREADS: u64 = 4;

/// Round, thread, number, and where it is; or `u64::MAX`, and what is trimmed: 0 before it is, 1 after; and where the
/// log begins then.
type Acknowledged = [u64; 4];

/// What a record holds: who wrote it, and bytes that follow from that.
fn payload(by: [u64; 3]) -> Vec<u8> {
    let mut random = Random::new(by[0] << 40 ^ by[1] << 32 ^ by[2]);
    // Some are longer than a buffer.
    let len = if random.chance(2) { 9000 + random.below(20_000) } else { random.below(1500) };
    let mut bytes: Vec<_> = by.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.extend((0..len).map(|_| random.below(256) as u8));
    bytes
}

/// Who wrote it, if it is as it was written.
fn author(bytes: &[u8]) -> Option<[u64; 3]> {
    let (numbers, _) = bytes.get(..24)?.as_chunks::<8>();
    let by = [0, 1, 2].map(|n| u64::from_le_bytes(numbers[n]));
    (payload(by) == bytes).then_some(by)
}

/// Ends the process if its thread panics: the others would go on, and hide that.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        if thread::panicking() {
            process::exit(101);
        }
    }
}

/// Opens the log, and appends until it is killed.
fn child(folder: &Path, seed: u64) -> ! {
    let (log, recovery) = Log::options()
        .ring(4, 2 << 12)
        .segment_size(16 << 12)
        .open(folder.join("log"))
        .expect("a log that can be recovered");
    assert!(!matches!(recovery.verdict, Verdict::Damaged(_)));
    let acks = OpenOptions::new().append(true).open(folder.join("acks")).expect("a file");
    let acknowledge = |acknowledged: Acknowledged| {
        let bytes: Vec<_> = acknowledged.iter().flat_map(|number| number.to_le_bytes()).collect();
        // One call: all of it, or nothing.
        assert_eq!((&acks).write(&bytes).expect("written"), bytes.len());
    };
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, acknowledge, next) = (&log, &acknowledge, &next);
            scope.spawn(move || {
                let _ends_all = EndsAll;
                let (mut random, mut writer) = (Random::new(seed ^ thread << 50), log.writer());
                loop {
                    let by = [seed, thread, next.fetch_add(1, Ordering::Relaxed)];
                    let bytes = payload(by);
                    let done = match random.below(4) {
                        0 => writer.commit(thread as u8, &bytes),
                        1 => log.commit_group(Group::new().push(thread as u8, &bytes)),
                        _ => {
                            writer.append(9, &payload([seed, THREADS, by[2]])).expect("room");
                            log.commit(thread as u8, &bytes.chunks(700).map(IoSlice::new).collect::<Vec<_>>())
                        }
                    };
                    let done = done.expect("no failure");
                    acknowledge([by[0], by[1], by[2], done.lsn().get()]);
                    drop(done);
                    if random.chance(2) {
                        log.roll().expect("no failure");
                    }
                    if random.chance(4) {
                        // Some of what was acknowledged stays.
                        let kept = log.settled().get().saturating_sub(3 * (16 << 12));
                        acknowledge([u64::MAX, 0, 0, kept]);
                        let trimmed = log.trim(Lsn::new(kept)).expect("no failure");
                        acknowledge([u64::MAX, 1, 0, trimmed.first.get()]);
                    }
                }
            });
        }
    });
    unreachable!("it is killed")
}

/// All that was acknowledged, and between which addresses the log begins.
fn acknowledged(path: &Path) -> (Vec<Acknowledged>, RangeInclusive<u64>) {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("a file");
    let (words, _) = bytes.as_chunks::<8>();
    let all = words.chunks_exact(4).map(|words| [0, 1, 2, 3].map(|n| u64::from_le_bytes(words[n])));
    let (trims, acks): (Vec<_>, Vec<_>) = all.partition(|ack| ack[0] == u64::MAX);
    let most = |done| trims.iter().filter(|trim| trim[1] == done).map(|trim| trim[3]).max().unwrap_or(0);
    (acks, most(1)..=most(0))
}

#[test]
fn what_was_acknowledged_in_any_round_is_there_in_all_later_ones() {
    if let (Some(folder), Some(seed)) = (env::var_os(FOLDER), env::var(SEED).ok()) {
        child(Path::new(&folder), seed.parse().expect("a number"));
    }
    let number = |name: &str, default: u64| env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (rounds, seed) = (number("RINGLOG_KILLS", 12), number("RINGLOG_SEED", u64::from(process::id())));
    println!("RINGLOG_SEED={seed} RINGLOG_KILLS={rounds}");
    let folder = tempfile::tempdir().expect("a folder");
    let (log, acks) = (folder.path().join("log"), folder.path().join("acks"));
    File::create(&acks).expect("a file");
    let (mut random, mut most, mut torn, mut before) = (Random::new(seed), 0, 0, BTreeMap::new());
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["what_was_acknowledged_in_any_round_is_there_in_all_later_ones", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        // At least something has to happen.
        let len = fs::metadata(&acks).expect("a file").len();
        while fs::metadata(&acks).expect("a file").len() == len {
            assert_eq!(child.try_wait().expect("a child"), None, "round {round}: the child has failed");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        child.kill().expect("killed");
        let status = child.wait().expect("a child");
        assert_eq!(status.code(), None, "round {round}: the child has failed before it was killed");

        // Read only: the next child recovers.
        let directory = DiskDirectory::open(&log).expect("a log");
        let report = verify(&directory, &Verify::new()).expect("a log");
        torn += u32::from(matches!(report.verdict, Verdict::Torn(_)));
        assert!(matches!(report.verdict, Verdict::Torn(_) | Verdict::Unclosed), "round {round}: {}", report.verdict);
        let (mut found, mut authors) = (BTreeMap::new(), BTreeSet::new());
        replay(&directory, &report, &Replay::new(), |item| {
            let Item::Record(record) = item else { panic!("a gap") };
            let by = author(record.payload);
            let by = by.unwrap_or_else(|| panic!("round {round}: the record at {} is invented", record.lsn));
            assert!(by[0] <= round && authors.insert(by), "round {round}: the record at {} is there again", record.lsn);
            assert_eq!(u64::from(record.kind), if by[1] == THREADS { 9 } else { by[1] });
            assert!(found.insert(record.lsn.get(), by).is_none());
            Ok::<_, Infallible>(())
        })
        .expect("it can be read");
        let (acks, first) = acknowledged(&acks);
        let begin = report.first.get();
        assert!(first.contains(&begin), "round {round}: the log begins at {begin}, not in {first:?}");
        for (at, by) in before.range(begin..) {
            assert_eq!(found.get(at), Some(by), "round {round}: what was there before at {at} is not");
        }
        before = found.clone();
        let mut last = BTreeMap::new();
        for [by, thread, number, at] in &acks {
            let earlier = last.insert((by, thread), (number, at));
            assert!(earlier < Some((number, at)), "round {round}: the order of a thread");
        }
        for [by, thread, number, at] in acks.iter().filter(|ack| ack[3] >= report.first.get()) {
            let there = found.get(at);
            assert_eq!(there, Some(&[*by, *thread, *number]), "round {round}: the record at {at} is not there");
        }
        most = most.max(acks.iter().filter(|ack| ack[3] >= report.first.get()).count());
    }
    println!("at most {most} records at once, {torn} torn tails");
    assert!(most > 50, "{most}");
}
