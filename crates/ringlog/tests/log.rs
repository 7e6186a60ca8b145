//! The log as its users see it: what was appended comes back, in order, whatever happened to segments meanwhile.

mod common;

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::IoSlice;
use std::panic;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use common::open::{Records, SEGMENT, payload, reopen, small};
use ringlog::directory::DiskDirectory;
use ringlog::recovery::{Verdict, Verify, verify};
use ringlog::{Error, Group, Log, Lsn, OpenError, SyncPolicy, Writer};

#[test]
fn every_kind_of_record_comes_back_over_many_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, recovery) = small().open(folder.path()).expect("a new log");
    assert_eq!((recovery.verdict, recovery.records), (Verdict::Fresh, 0));
    let (mut expected, mut writer) = (Records::new(), log.writer());
    for n in 0..600_usize {
        let (kind, bytes) = (n as u8, payload(n, n * 37 % 900));
        let at = match n % 8 {
            0 => log.append(kind, &bytes),
            1 => log.append_vectored(kind, &bytes.chunks(100).map(IoSlice::new).collect::<Vec<_>>()),
            2 => log.append_with(kind, bytes.len(), |_, target| target.copy_from_slice(&bytes)),
            3 => writer.append(kind, &bytes),
            4 => writer.append_with(kind, bytes.len(), |_, target| target.copy_from_slice(&bytes)),
            5 => log.commit(kind, &[IoSlice::new(&bytes)]).map(|done| done.lsn()..done.end()),
            6 => {
                let mut record = log.reserve(kind, bytes.len()).expect("room");
                record.copy_from_slice(&bytes);
                drop(log.reserve(kind, 50).expect("room"));
                let range = record.lsn()..record.end();
                let at = record.commit();
                assert_eq!(at, range);
                Ok(at)
            }
            _ => log.append(kind, &payload(n, 20_000 + n)),
        };
        let at = at.expect("no failure");
        let bytes = if n % 8 == 7 { payload(n, 20_000 + n) } else { bytes };
        expected.push((at.start, kind, bytes));
        if n % 50 == 49 {
            let mut group = Group::new();
            for k in 0..5 {
                group.push(k, &payload(n + usize::from(k), 30));
            }
            let at = log.append_group(&group).expect("no failure").start;
            expected.extend((0..5).map(|k| (at, k, payload(n + usize::from(k), 30))));
        }
    }
    assert!(log.segments().len() > 20);
    let mut bytes = Vec::new();
    // Of a group only the first payload is read by its address.
    let first_there = |n: &usize| expected[..*n].last().is_none_or(|before| before.0 != expected[*n].0);
    for (at, kind, payload) in (0..expected.len()).filter(first_there).step_by(9).map(|n| &expected[n]) {
        assert_eq!(log.read(*at, &mut bytes).expect("it is there"), *kind);
        assert_eq!(&bytes, payload);
    }
    drop(writer);
    let end = log.close().expect("no failure");
    assert!(matches!(log.append(0, b"late"), Err(Error::Closed)));
    drop(log);

    let (log, recovery, mut found) = reopen(small(), folder.path());
    assert_eq!((&recovery.verdict, recovery.end), (&Verdict::Clean, end));
    // A group's payloads but the first have addresses of their own, and a long record is shown where it ends.
    let mut first = Lsn::START;
    for (at, _, payload) in &mut found {
        if payload.len() == 30 {
            first = if expected.iter().any(|(expected, ..)| expected == at) { *at } else { first };
            *at = first;
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    expected.sort_by_key(|(at, ..)| *at);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "the records are others");
    let at = log.append(7, b"goes on").expect("no failure");
    assert!(at.start > end);
    drop(log);
    let report = verify(&DiskDirectory::open(folder.path()).expect("a log"), &Verify::new()).expect("a log");
    assert_eq!((report.verdict, report.records), (Verdict::Clean, recovery.records + 1));
}

#[test]
fn commits_of_many_threads_survive_and_a_log_that_is_not_closed_is_recovered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let lsns: Vec<_> = thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| {
            let log = log.clone();
            scope.spawn(move || {
                let commit = |n: usize| {
                    let bytes = payload(thread * 1000 + n, 8 * (1 + n % 60));
                    (log.commit(thread as u8, &[IoSlice::new(&bytes)]).expect("no failure").lsn(), thread as u8, bytes)
                };
                (0..150).map(commit).collect::<Records>()
            })
        });
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    // As if the process had been killed: nothing is closed.
    core::mem::forget(log);
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    let (_log, recovery, found) = reopen(small(), copy.path());
    assert_eq!((recovery.verdict, recovery.records), (Verdict::Unclosed, 600));
    let mut expected = lsns;
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_is_trimmed_is_gone_and_its_segments_are_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let mut most = 0;
    for n in 0..2010_usize {
        let done = log.commit(1, &[IoSlice::new(&payload(n, 700))]).expect("no failure");
        assert!(log.settled() <= done.lsn());
        let end = done.end();
        drop(done);
        if n % 40 == 39 {
            assert!(log.settled() >= end);
            let trimmed = log.trim(end).expect("no failure");
            assert_eq!(trimmed.first, log.first());
            let files = std::fs::read_dir(folder.path()).expect("a folder").count();
            most = most.max(files);
        }
    }
    assert!(most <= 9, "{most} files");
    let (first, mut bytes) = (log.first(), Vec::new());
    assert!(first.get() > 10 * SEGMENT);
    assert!(matches!(log.read(Lsn::new(72), &mut bytes), Err(Error::Trimmed { first: at }) if at == first));
    drop(log);
    let (_log, recovery, found) = reopen(small(), folder.path());
    assert_eq!((recovery.verdict, recovery.first), (Verdict::Clean, first));
    assert!(found.iter().all(|(at, ..)| *at >= first) && !found.is_empty());
}

#[test]
fn a_log_goes_on_in_a_new_segment_when_it_is_rolled_with_or_without_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let mut starts = vec![0];
    for n in 0..5_u8 {
        for _ in 0..n % 3 {
            log.append(n, b"record").expect("no failure");
        }
        let at = log.roll().expect("no failure").get();
        assert!(at.is_multiple_of(SEGMENT) && at > *starts.last().expect("one"), "{at}");
        starts.push(at);
    }
    assert_eq!(log.append(9, b"behind").expect("no failure").start.get(), starts[5] + 72);
    log.close().expect("no failure");
    drop(log);
    let (_, recovery, found) = reopen(small(), folder.path());
    assert_eq!((recovery.verdict, found.len()), (Verdict::Clean, 5));
}

#[test]
fn records_become_durable_by_time_and_by_bytes_without_any_wait() {
    for policy in [SyncPolicy::Every(Duration::from_millis(5)), SyncPolicy::EveryBytes(16 << 10)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = small().sync(policy).open(folder.path()).expect("a new log");
        let mut end = Lsn::START;
        for n in 0..200 {
            end = log.append(1, &payload(n, 500)).expect("no failure").end;
        }
        let wanted = if policy == SyncPolicy::EveryBytes(16 << 10) { Lsn::new(end.get() - (33 << 10)) } else { end };
        let start = Instant::now();
        while log.durable() < wanted {
            assert!(start.elapsed() < Duration::from_secs(60), "{policy:?}: {} of {wanted}", log.durable());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn an_idle_log_proves_its_newest_batch_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let done = log.commit(1, &[IoSlice::new(b"the newest")]).expect("no failure");
    let start = Instant::now();
    while log.durable() == done.end() || log.end().get() < 2 << 12 {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(log.end().get(), (2 << 12) + 72, "no second empty batch");
    let report = verify(&DiskDirectory::open(folder.path()).expect("a log"), &Verify::new()).expect("a log");
    assert_eq!((report.promised.get(), report.records), (1 << 12, 1));
}

#[test]
fn a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || Log::options().ring(4, 4 << 12).segment_size(SEGMENT);
    let (log, _) = options().open(folder.path()).expect("a new log");
    let mut expected = Records::new();
    // With smaller buffers than the next opening has, so that its buffer does not fit.
    drop(log);
    let (log, _) = small().open(folder.path()).expect("a log");
    while log.end().get() < SEGMENT - (3 << 12) {
        let bytes = payload(expected.len(), 3000);
        expected.push((log.commit(3, &[IoSlice::new(&bytes)]).expect("no failure").lsn(), 3, bytes));
    }
    log.close().expect("no failure");
    drop(log);
    let panics = panics_of_keepers();
    let (log, recovery, found) = reopen(options().sync(SyncPolicy::EveryBytes(1)), folder.path());
    assert_eq!((recovery.verdict, &found), (Verdict::Clean, &expected));
    let at = log.commit(4, &[IoSlice::new(b"next")]).expect("no failure").lsn();
    assert_eq!(at.get(), SEGMENT + 72);
    expected.push((at, 4, b"next".to_vec()));
    drop(log);
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    assert_eq!(reopen(options(), folder.path()).2, expected);
}

/// Counts the panics of keepers from now on.
fn panics_of_keepers() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, hook) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        counted.fetch_add(usize::from(thread::current().name() == Some("ringlog-keeper")), Ordering::Relaxed);
        hook(info);
    }));
    panics
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_reason_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    for options in [
        small().ring(1, 4096),
        small().ring(2, 4095),
        small().ring(2, 0),
        small().ring(2, 512 << 20),
        small().ring(2, (SEGMENT / 4) as usize + 4096),
        small().segment_size(4096),
    ] {
        assert!(matches!(options.open(&path), Err(OpenError::Option(_))));
    }
    assert!(matches!(small().must_exist(true).open(&path), Err(OpenError::Missing)));
    assert!(!path.exists());
    let (log, _) = small().open(&path).expect("a new log");
    assert!(matches!(small().open(&path), Err(OpenError::Locked { .. })));
    drop(log);
    // A log keeps its segments' size, which has to hold the ring's buffers.
    let refused = small().segment_size(1 << 20).ring(2, 128 << 10).open(&path);
    assert!(matches!(refused, Err(OpenError::Option(_))));
    std::fs::write(folder.path().join("file"), b"no directory").expect("written");
    assert!(small().open(folder.path().join("file")).is_err());
}

#[test]
fn what_cannot_be_appended_or_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().max_record(100_000).open(folder.path()).expect("a new log");
    assert!(matches!(log.append_group(&Group::new()), Err(Error::Empty)));
    assert!(matches!(log.append(0, &[0; 100_001]), Err(Error::TooLarge { len: 100_001, max: 100_000 })));
    assert!(matches!(log.append_with(0, 9000, |_, _| panic!("called")), Err(Error::TooLarge { len: 9000, .. })));
    let at = log.append(5, &payload(1, 2000)).expect("no failure");
    let mut bytes = Vec::new();
    for inside in [8, 16, 1000, 1992] {
        let refused = log.read(Lsn::new(at.start.get() + inside), &mut bytes);
        assert!(matches!(refused, Err(Error::NotARecord(_))), "{inside}: {refused:?}");
    }
    assert!(matches!(log.read(log.end(), &mut bytes), Err(Error::NotAppended { .. })));
    assert!(matches!(log.wait_durable(Lsn::new(1 << 40)), Err(Error::NotAppended { .. })));
    let long = log.append(6, &payload(2, 60_000)).expect("no failure");
    log.sync().expect("no failure");
    assert_eq!(log.read(long.start, &mut bytes).expect("it is there"), 6);
    assert_eq!(bytes, payload(2, 60_000));
}

#[test]
fn what_is_truncated_is_void_for_readers_and_after_reopening_and_the_log_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let ats: Vec<_> = (0..100).map(|n| log.append(1, &payload(n, 300)).expect("no failure").start).collect();
    let cut = log.truncate(ats[60]).expect("no failure");
    let behind = log.append(2, b"behind").expect("no failure").start;
    assert!(cut.start > ats[99] && behind >= cut.end);
    let mut bytes = Vec::new();
    assert!(matches!(log.read(ats[60], &mut bytes), Err(Error::Truncated(at)) if at == ats[60]));
    assert!(matches!(log.read(ats[99], &mut bytes), Err(Error::Truncated(_))));
    assert_eq!(log.read(ats[59], &mut bytes).expect("it is there"), 1);
    assert_eq!(log.read(behind, &mut bytes).expect("it is there"), 2);
    log.truncate(ats[50]).expect("no failure");
    assert!(matches!(log.read(behind, &mut bytes), Err(Error::Truncated(_))));
    assert!(matches!(log.truncate(Lsn::new(1 << 40)), Err(Error::NotAppended { .. })));
    let last = log.append(3, b"last").expect("no failure").start;
    drop(log);
    let (log, recovery, found) = reopen(small(), folder.path());
    let expected: Vec<_> = ats[..50].iter().copied().chain([last]).collect();
    assert_eq!(found.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), expected);
    assert_eq!(recovery.verdict, Verdict::Clean);
    assert!(matches!(log.read(ats[55], &mut bytes), Err(Error::Truncated(_))));
    assert_eq!(log.read(last, &mut bytes).expect("it is there"), 3);
}

#[test]
fn calls_come_in_the_order_of_their_addresses_when_records_are_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let (sender, called) = mpsc::channel();
    for n in 0..200_usize {
        let end = log.append(1, &payload(n, 100)).expect("no failure").end;
        let (sender, other) = (sender.clone(), log.clone());
        log.on_durable(end, move |outcome| {
            assert!(outcome.is_ok() && other.durable() >= end);
            other.append(2, b"from a call").expect("room");
            sender.send(end).expect("a receiver");
            assert!(n % 50 != 7, "planted");
        });
    }
    let far = sender.clone();
    log.on_durable(Lsn::new(1 << 40), move |outcome| {
        assert!(matches!(outcome, Err(Error::NotAppended { .. } | Error::Closed)));
        far.send(Lsn::new(1 << 40)).expect("a receiver");
    });
    // Nothing waits for them but the calls; and none is lost when the log goes.
    drop((log, sender));
    let ends: Vec<_> = called.iter().collect();
    assert_eq!(ends.len(), 201);
    assert!(ends.is_sorted());
}

#[test]
fn a_segment_that_cannot_be_made_holds_commits_back_and_loses_nothing() {
    for freed in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = small().open(folder.path()).expect("a new log");
        // In the place of the third segment, as unusable as a full disk.
        let obstacle = folder.path().join(format!("{:020}.seg", 2 * SEGMENT));
        std::fs::create_dir(&obstacle).expect("a folder");
        let (mut acknowledged, mut expected) = (0, Records::new());
        loop {
            let bytes = payload(expected.len(), 2000);
            let at = log.append(1, &bytes).expect("room");
            expected.push((at.start, 1, bytes));
            match log.wait_durable_timeout(at.end, Duration::from_millis(300)) {
                Ok(()) => acknowledged += 1,
                Err(Error::TimedOut) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(log.durable().get() < 2 * SEGMENT && acknowledged > 20);
        if freed {
            std::fs::remove_dir(&obstacle).expect("removed");
            log.wait_durable(log.end()).expect("no failure");
            acknowledged = expected.len();
        } else {
            assert!(matches!(log.close(), Err(Error::NoSegment(why)) if why.to_string().contains("open")));
        }
        drop(log);
        if !freed {
            std::fs::remove_dir(&obstacle).expect("removed");
        }
        let (_, recovery, found) = reopen(small(), folder.path());
        assert!(found.len() >= acknowledged && expected.starts_with(&found), "{freed}");
        assert_eq!(recovery.verdict == Verdict::Clean, freed);
    }
}

#[test]
fn a_log_that_syncs_by_itself_makes_the_segments_that_the_sync_needs() {
    for policy in [SyncPolicy::Every(Duration::from_micros(200)), SyncPolicy::EveryBytes(4 << 10)] {
        let folder = tempfile::tempdir().expect("a folder");
        // Segments of four buffers, and room for two segments in memory.
        let options = Log::options().ring(8, 4 << 12).segment_size(SEGMENT);
        let (log, _) = options.sync(policy).open(folder.path()).expect("a new log");
        for n in 0..3000 {
            let end = log.append(1, &payload(n, 2000)).expect("no failure").end;
            if n % 300 == 299 {
                log.wait_durable_timeout(end, Duration::from_secs(60)).expect("in time");
            }
        }
        assert!(log.segments().len() > 80);
    }
}

#[test]
fn a_record_lies_behind_all_that_any_thread_had_placed_before_its_call() {
    let (log, _) = small().in_memory().open("").expect("a log");
    let highest = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (log, highest) = (&log, &highest);
            scope.spawn(move || {
                for n in 0..3000 {
                    let before = highest.load(Ordering::Acquire);
                    let len = 1 + (n * 37 + thread * 11) % 700;
                    let (start, end) = match n % 3 {
                        0 => log.append(0, &vec![1; len]).map(|at| (at.start, at.end)),
                        1 => log.reserve(0, len).map(|place| (place.lsn(), place.end())),
                        _ => log.reserve(0, len).map(|place| place.commit()).map(|at| (at.start, at.end)),
                    }
                    .expect("room");
                    assert!(start.get() >= before, "{start} was placed after {before}");
                    highest.fetch_max(end.get(), Ordering::AcqRel);
                }
            });
        }
    });
}

#[test]
fn what_a_writer_appends_after_a_truncation_is_not_void() {
    type Way = fn(&mut Writer) -> Lsn;
    let ways: [Way; 3] = [
        |writer| writer.append(2, b"behind the truncation").expect("room").start,
        |writer| writer.append_with(2, 8, |lsn, bytes| bytes.copy_from_slice(&lsn.to_bytes())).expect("room").start,
        |writer| writer.commit(2, b"behind the truncation").expect("durable").lsn(),
    ];
    for append in ways {
        let (log, _) = small().in_memory().open("").expect("a log");
        let (mut writer, mut other) = (log.writer(), log.writer());
        // Leases grow.
        for _ in 0..150 {
            writer.append(0, b"a record").expect("room");
        }
        let first = writer.append(1, b"in its lease").expect("room");
        let at = log.truncate(first.start).expect("room");
        assert!(at.start.get() - first.end.get() > 100, "the lease reaches beyond");
        let (next, behind) = (append(&mut writer), append(&mut other));
        let mut record = Vec::new();
        for at in [next, behind] {
            assert_eq!(log.read(at, &mut record).expect("a record"), 2);
        }
        assert!(matches!(log.read(first.start, &mut record), Err(Error::Truncated(_))));
    }
}
