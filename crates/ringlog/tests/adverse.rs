//! The log where things meet: trims beside readers and beside what an earlier life left, kills in the middle of long
//! records, forks, and limits of the process.

mod common;

use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{env, fs, thread};

use common::open::{self, SEGMENT, payload, small};
use ring_testing::Child;
use ringlog::directory::DiskDirectory;
use ringlog::recovery::{OnDamage, Recover, Verdict, Verify, verify};
use ringlog::{Error, Group, Log, Lsn, OpenError, Options, Recovery, SyncPolicy, segment};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Commits a record, and has it settled at once.
fn commit(log: &Log, bytes: &[u8]) -> Range<Lsn> {
    let done = log.commit(1, &[IoSlice::new(bytes)]).expect("no failure");
    done.lsn()..done.end()
}

type Records = Vec<(Lsn, Vec<u8>)>;

/// All records, without their kinds.
fn reopen(options: Options, path: &Path) -> (Log, Recovery, Records) {
    let (log, recovery, records) = open::reopen(options, path);
    (log, recovery, records.into_iter().map(|(lsn, _, payload)| (lsn, payload)).collect())
}

/// The files as a killed process leaves them, when all is written up to `end`, or durable or not.
fn killed(log: Log, path: &Path, end: u64) -> TempDir {
    let start = Instant::now();
    let directory = DiskDirectory::open(path).expect("a log");
    while verify(&directory, &Verify::new()).expect("a log").end.get() < end {
        assert!(start.elapsed() < Duration::from_secs(60), "not written up to {end}");
        thread::sleep(Duration::from_millis(5));
    }
    let copy = folder();
    for entry in fs::read_dir(path).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    core::mem::forget(log);
    copy
}

/// A log that ends at the third block, and behind it what a cut has left: batches up to the second segment.
fn cut_off() -> (TempDir, Records) {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let mut left = Records::new();
    while log.end().get() < SEGMENT + (6 << 12) {
        let bytes = payload(left.len(), 3000);
        left.push((log.append(1, &bytes).expect("room").start, bytes));
    }
    // Nothing was acknowledged, so that nothing promises what is lost.
    let copy = killed(log, path.path(), SEGMENT + (2 << 12));
    let file = fs::File::options().write(true).open(copy.path().join(format!("{:020}.seg", 0))).expect("a segment");
    file.write_all_at(&[0xa5; 512], 3 << 12).expect("written");
    (copy, left)
}

#[test]
fn a_trim_to_a_segment_without_batches_takes_none_for_its_first_that_an_earlier_opening_cut_off() {
    let (path, _) = cut_off();
    let (log, recovery, _) = reopen(small(), path.path());
    assert!(matches!(recovery.verdict, Verdict::Torn(_)), "{:?}", recovery.verdict);
    assert_eq!(recovery.end.get(), 2 << 12);
    assert_eq!(log.roll().expect("no failure").get(), SEGMENT);
    log.sync().expect("no failure");
    let trimmed = log.trim(Lsn::new(SEGMENT)).expect("no failure");
    assert_eq!((trimmed.first, trimmed.bytes), (Lsn::START, 0), "nothing is known of the segment's first batch yet");
    let acknowledged = commit(&log, b"acknowledged").start;
    assert_eq!(log.trim(acknowledged).expect("no failure").first, acknowledged);
    let copy = killed(log, path.path(), SEGMENT + (1 << 12));
    let (_, recovery, found) = reopen(small(), copy.path());
    assert!(!matches!(recovery.verdict, Verdict::Damaged(_)), "{:?}", recovery.verdict);
    assert_eq!(found, [(acknowledged, b"acknowledged".to_vec())]);
}

#[test]
fn what_an_earlier_opening_cut_off_is_no_record_where_the_log_skips_the_rest_of_a_segment() {
    let (path, left) = cut_off();
    let (log, recovery, _) = reopen(small(), path.path());
    log.roll().expect("no failure");
    commit(&log, b"behind");
    let skipped: Vec<_> =
        left.iter().filter(|(at, _)| (recovery.end.get() + (2 << 12)..SEGMENT).contains(&at.get())).collect();
    assert!(skipped.len() > 5);
    for (at, _) in skipped {
        let read = log.read(*at, &mut Vec::new());
        assert!(matches!(read, Err(Error::NotARecord(_))), "{at}: {read:?}");
    }
}

#[test]
fn another_process_reads_what_is_promised_in_front_of_a_segment_that_an_earlier_opening_cut_off() {
    let (path, _) = cut_off();
    let (log, recovery, _) = reopen(small(), path.path());
    assert!(path.path().join(segment::file_name(SEGMENT)).exists());
    let ats = [0, 1, 2, 3].map(|n| commit(&log, &payload(n, 100)));
    assert!(ats[3].end.get() < SEGMENT && ats[0].start > recovery.end);
    // Each batch promises those before it.
    let reader = Log::options().open_read_only(path.path()).expect("a log in use");
    assert_eq!(reader.report().verdict, Verdict::InUse);
    assert!((ats[2].end..=log.durable()).contains(&reader.end()), "{} of {ats:?}", reader.end());
    let mut scan = reader.scan(recovery.end..);
    for at in &ats[..3] {
        assert_eq!(scan.next().expect("a record").map(|record| record.lsn), Some(at.start));
    }
}

#[test]
fn a_log_opens_however_often_it_was_killed_in_the_middle_of_a_long_record() {
    let options = || small().max_record(70_000);
    let mut path = folder();
    let mut firsts = Vec::new();
    for n in 0..4 {
        let (log, _, found) = reopen(options(), path.path());
        assert_eq!(found, [], "round {n}");
        let placed = log.append(1, &payload(n, 60_000)).expect("no failure");
        firsts.push(placed.start);
        // Its last part is in memory, and dies there.
        path = killed(log, path.path(), placed.start.get() + 50_000);
    }
    let (log, _, found) = reopen(options(), path.path());
    assert_eq!(found, []);
    commit(&log, b"goes on");
    for at in firsts {
        let read = log.read(at, &mut Vec::new());
        assert!(matches!(read, Err(Error::NotARecord(_))), "{at}: {read:?}");
    }
}

#[test]
fn long_records_of_many_threads_are_replayed_with_the_memory_for_one() {
    let path = folder();
    let options = || small().max_record(60_000);
    let (log, _) = options().open(path.path()).expect("a new log");
    thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..20 {
                    log.append(1, &payload(thread * 100 + n, 50_000 + n)).expect("no failure");
                    log.append(1, b"between").expect("no failure");
                }
            });
        }
    });
    drop(log);
    assert_eq!(reopen(options(), path.path()).2.len(), 160);
}

#[test]
fn a_long_record_is_read_whose_first_parts_alone_are_durable() {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let bytes = payload(3, 60_000);
    let at = log.append(1, &bytes).expect("no failure").start;
    log.wait_durable(Lsn::new(at.get() + 30_000)).expect("no failure");
    let mut found = Vec::new();
    assert_eq!(log.read(at, &mut found).expect("it is there"), 1);
    assert_eq!(found, bytes);
}

#[test]
fn records_of_each_length_fit_a_log_of_large_buffers() {
    let path = folder();
    let options = || Log::options().ring(2, 8 << 20).segment_size(32 << 20);
    let (log, _) = options().open(path.path()).expect("a new log");
    // What fits, what does not quite, and what is placed in parts.
    let most = (8 << 20) - 72 - 8 - 8 * (8 << 20 >> 12) - 8;
    let lens = [most - 8, most, most + 1, most + 8, most + 24, most + 40, 20 << 20];
    let bytes = payload(5, 20 << 20);
    for len in lens {
        log.append(1, &bytes[..len]).unwrap_or_else(|error| panic!("{len}: {error}"));
    }
    drop(log);
    let found: Vec<_> = reopen(options(), path.path()).2.into_iter().map(|(_, found)| found).collect();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), lens);
    assert!(found.iter().all(|found| bytes.starts_with(found)));
}

#[test]
fn no_record_is_taken_that_replay_with_the_same_options_refuses() {
    let path = folder();
    let options = || small().max_record(1000);
    let (log, _) = options().open(path.path()).expect("a new log");
    let (long, mut writer, mut group) = ([7; 1001], log.writer(), Group::new());
    group.push(1, &[7; 500]).push(2, &[7; 500]);
    let refused = [
        log.append(1, &long),
        log.append_vectored(1, &[IoSlice::new(&long)]),
        log.append_with(1, 1001, |_, _| panic!("called")),
        log.try_append_with(1, 1001, |_, _| panic!("called")),
        log.reserve(1, 1001).map(|record| record.commit()),
        log.append_group(&group),
        writer.append(1, &long),
        writer.append_with(1, 1001, |_, _| panic!("called")),
    ];
    for (n, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::TooLarge { max: 1000, .. })), "{n}: {refused:?}");
    }
    log.append(1, &long[..1000]).expect("room");
    drop((writer, log));
    assert_eq!(reopen(options(), path.path()).2.len(), 1);
    // The log's own records are no user's.
    let (log, _) = small().max_record(0).open(path.path()).expect("a log");
    log.truncate(log.end()).expect("room");
}

#[test]
fn a_record_that_is_trimmed_while_it_is_read_is_trimmed_and_not_damaged() {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let first = log.first();
                    let start = first.get() / SEGMENT * SEGMENT + 72;
                    match log.read(first.max(Lsn::new(start)), &mut Vec::new()) {
                        Ok(_) | Err(Error::Trimmed { .. } | Error::NotAppended { .. } | Error::NotARecord(_)) => {}
                        Err(error) => {
                            is_over.store(true, Relaxed);
                            panic!("{error:?}");
                        }
                    }
                }
            });
        }
        let mut n = 0;
        while n < 1500 && !is_over.load(Relaxed) {
            let end = commit(&log, &payload(n, 7000)).end;
            log.trim(end).expect("no failure");
            n += 1;
        }
        is_over.store(true, Relaxed);
    });
}

#[test]
fn a_closure_that_panics_leaves_no_record_and_no_bytes() {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let mut writer = log.writer();
    for n in 0..30 {
        let fill = |_, bytes: &mut [u8]| {
            bytes.fill(0xee);
            assert!(n % 3 == 0, "planted");
        };
        let _first = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| log.append_with(1, 501, fill)));
        let _second = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| log.try_append_with(1, 501, fill)));
        let _third = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| writer.append_with(1, 501, fill)));
        let mut dropped = log.reserve(1, 300).expect("room");
        dropped.fill(0xee);
        drop(dropped);
    }
    drop((log, writer));
    let (_, recovery, found) = reopen(small(), path.path());
    assert_eq!((recovery.verdict, found.len()), (Verdict::Clean, 30));
}

#[test]
fn a_log_of_many_segments_keeps_few_files_open_and_is_opened_again_with_few() {
    const FOLDER: &str = "RINGLOG_FEW_FILES";
    if let Some(path) = env::var_os(FOLDER) {
        let (log, _, found) = reopen(small(), Path::new(&path));
        for n in found.len()..found.len() + 600 {
            commit(&log, &payload(n, 3000));
        }
        assert!(log.segments().len() > 35);
        return;
    }
    let path = folder();
    for _ in 0..2 {
        let test = "a_log_of_many_segments_keeps_few_files_open_and_is_opened_again_with_few";
        let limited = Command::new("sh")
            .args(["-c", "ulimit -n 30 && exec \"$0\" --exact \"$1\" --test-threads 1"])
            .args([env::current_exe().expect("a program").as_os_str(), test.as_ref()])
            .env(FOLDER, path.path())
            .output()
            .expect("a shell");
        assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stdout));
    }
    assert_eq!(reopen(small(), path.path()).2.len(), 1200);
}

#[test]
fn in_a_forked_child_each_call_says_so_and_dropping_the_log_ends() {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let end = (0..40).map(|n| commit(&log, &payload(n, 3000)).end).max();
    let end = end.expect("some");
    log.on_durable(end, |outcome| assert!(outcome.is_ok()));
    let manifest = || fs::read(path.path().join("MANIFEST")).expect("a file");
    let before = manifest();
    Child::fork(|| {
        // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
        let log = unsafe { core::ptr::read(&raw const log) };
        assert!(matches!(log.append(1, b"record"), Err(Error::Forked)));
        assert!(matches!(log.trim(end), Err(Error::Forked)));
        assert!(matches!(log.roll(), Err(Error::Forked)));
        assert!(matches!(log.truncate(end), Err(Error::Forked)));
        assert!(matches!(log.sync(), Err(Error::Forked)));
        assert!(matches!(log.read(Lsn::new(72), &mut Vec::new()), Err(Error::Forked)));
        assert!(matches!(log.close(), Err(Error::Forked)));
        let called = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&called);
        log.on_durable(end, move |outcome| seen.store(matches!(outcome, Err(Error::Forked)), Relaxed));
        assert!(called.load(Relaxed));
        drop(log);
    })
    .succeeds();
    assert_eq!(before, manifest(), "the child has changed nothing");
    log.trim(end).expect("no failure");
    commit(&log, b"goes on");
    drop(log);
    let (_, recovery, found) = reopen(small(), path.path());
    assert_eq!((recovery.verdict, found.last().map(|(_, bytes)| &bytes[..])), (Verdict::Clean, Some(&b"goes on"[..])));
}

#[test]
fn a_log_that_is_rolled_beside_commits_goes_on_behind_all_that_was_appended_before() {
    let path = folder();
    let (log, _) = small().open(path.path()).expect("a new log");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut n = 0;
                while !is_over.load(Relaxed) {
                    commit(&log, &payload(n, 1000));
                    n += 1;
                }
            });
        }
        for n in 0..200 {
            let before = log.append(2, b"before").expect("no failure").start;
            let at = log.roll().expect("no failure");
            if at < before || !at.get().is_multiple_of(SEGMENT) {
                is_over.store(true, Relaxed);
                panic!("{n}: rolled to {at} behind {before}");
            }
            log.trim(before).expect("no failure");
        }
        is_over.store(true, Relaxed);
    });
    log.close().expect("no failure");
    assert!(matches!(log.roll(), Err(Error::Closed)));
}

#[test]
fn whatever_the_policy_an_idle_log_proves_its_newest_batch() {
    for policy in [SyncPolicy::WhenAsked, SyncPolicy::Every(Duration::from_millis(5)), SyncPolicy::EveryBytes(1)] {
        let path = folder();
        let (log, _) = small().sync(policy).open(path.path()).expect("a new log");
        let done = commit(&log, b"the newest").end;
        let start = Instant::now();
        while log.durable() == done || log.end().get() < 2 << 12 {
            assert!(start.elapsed() < Duration::from_secs(20), "{policy:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn options_that_no_log_can_have_make_no_directory() {
    let path = folder();
    let path = path.path().join("log");
    let never = [SyncPolicy::EveryBytes(0), SyncPolicy::Every(Duration::ZERO)].map(|policy| small().sync(policy));
    let sizes = [small().segment_size(100_000), small().segment_size(2 << 40), small().cookie(vec![1; 2049])];
    for options in sizes.into_iter().chain(never) {
        assert!(matches!(options.open(&path), Err(OpenError::Option(_))));
        assert!(!path.exists());
    }
}

/// What lies in a folder, by name.
fn contents(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file"))).collect()
}

#[test]
fn a_file_that_was_cut_is_damage_wherever_it_was_cut() {
    let folder = folder();
    let (log, _) = small().open(folder.path()).expect("a new log");
    let records: Vec<_> = (0..36).map(|n| commit(&log, &payload(n, 1000))).collect();
    let last = &records[35];
    let end = log.end().get();
    assert!(end > SEGMENT && !end.is_multiple_of(SEGMENT), "{end}");
    let killed = killed(log, folder.path(), end);
    let name = format!("{:020}.seg", end / SEGMENT * SEGMENT);
    let whole = fs::read(killed.path().join(&name)).expect("a segment");
    assert_eq!(whole.len() as u64, 4096 + SEGMENT, "before anything was written to it");
    let behind = 4096 + last.end.get().next_multiple_of(4096) % SEGMENT;
    for len in [0, 100, 4096, 8192, 8200, behind - 4096, behind, whole.len() as u64 - 1] {
        let cut = File::options().write(true).open(killed.path().join(&name)).expect("a segment");
        cut.set_len(len).expect("shorter");
        let before = contents(killed.path());
        let Err(OpenError::Damaged(report)) = small().open(killed.path()) else { panic!("not noticed at {len}") };
        let Verdict::Damaged(damage) = &report.verdict else { panic!("{:?}", report.verdict) };
        assert_eq!((&damage.file, damage.range.start), (&name, report.end), "{len}");
        assert!(damage.range.end >= last.end, "{damage:?}");
        assert!(report.end < last.start || len >= behind, "{report:?}");
        assert_eq!(contents(killed.path()), before, "a refusal changes nothing");
        fs::write(killed.path().join(&name), &whole).expect("as it was");
    }
    let cut = File::options().write(true).open(killed.path().join(&name)).expect("a segment");
    cut.set_len(8192).expect("shorter");
    // Set aside, it is the end of the log, also for a process that dies before the file is whole again.
    let report = {
        let directory = DiskDirectory::open(killed.path()).expect("a log");
        let opened = Recover::new().segment_size(SEGMENT).on_damage(OnDamage::SetAside).open(&directory);
        opened.expect("set aside").report().clone()
    };
    let (log, recovery, records) = reopen(small(), killed.path());
    assert_eq!((&recovery.verdict, recovery.end), (&Verdict::Unclosed, report.end));
    assert!(!records.is_empty() && records.iter().all(|(lsn, _)| *lsn < report.end));
    let again = commit(&log, b"again");
    log.close().expect("closed");
    drop(log);
    // Behind the end of a closed log was nothing.
    let cut = File::options().write(true).open(killed.path().join(&name)).expect("a segment");
    cut.set_len(4096 + again.end.get().next_multiple_of(4096) % SEGMENT).expect("shorter");
    let (_log, recovery, found) = reopen(small(), killed.path());
    assert_eq!((recovery.verdict, found.len()), (Verdict::Clean, records.len() + 1));
}
