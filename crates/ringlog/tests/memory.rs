//! A log in memory: the same log, with a device that fails on request, and with crashes.

mod common;

use core::convert::Infallible;
use core::time::Duration;
use std::sync::{Arc, Mutex};

use common::open::{SEGMENT, payload, reopen, small};
use ringlog::directory::MemoryDirectory;
use ringlog::recovery::{Recover, Verdict, Verify, verify};
use ringlog::{Error, Group, Log, Lsn, segment};

#[test]
fn a_log_in_memory_reads_back_and_is_gone_with_its_last_clone() {
    let open = || small().in_memory().open("nowhere").expect("a log");
    let (log, recovery) = open();
    assert_eq!(recovery.verdict, Verdict::Fresh);
    let ats: Vec<_> = (0..200).map(|n| log.append(n as u8, &payload(n, 700)).expect("room").start).collect();
    assert!(log.segments().len() > 2);
    let mut record = Vec::new();
    for (n, at) in ats.iter().enumerate() {
        assert_eq!(log.read(*at, &mut record).expect("it is there"), n as u8);
        assert_eq!(record, payload(n, 700));
    }
    let clone = log.clone();
    log.close().expect("closed");
    assert!(matches!(clone.append(0, b"late"), Err(Error::Closed)));
    drop((log, clone));
    assert_eq!(open().1.verdict, Verdict::Fresh);
    assert!(!std::fs::exists("nowhere").expect("the folder"));
}

#[test]
fn a_log_in_a_directory_in_memory_is_opened_again() {
    let directory = MemoryDirectory::new();
    let options = || small().directory(&directory);
    let mut sent = Vec::new();
    for round in 0..5 {
        let (log, _, records) = reopen(options(), "".as_ref());
        assert_eq!(records, sent, "round {round}");
        for n in 0..60 {
            let bytes = payload(n + round, 100 * n);
            sent.push((log.append(7, &bytes).expect("room").start, 7, bytes));
        }
        let held = options().open("");
        assert!(matches!(held, Err(ringlog::OpenError::Locked { .. })));
        log.close().expect("closed");
        drop(log);
        assert_eq!(verify(&directory, &Verify::new()).expect("a log").verdict, Verdict::Clean);
    }
}

#[test]
fn a_log_that_was_locked_before_it_is_opened_is_at_no_moment_free_for_another_opener() {
    let directory = MemoryDirectory::new();
    let options = || small().directory(&directory);
    options().open("").expect("a log").0.close().expect("closed");
    let lock = Recover::lock(&directory).expect("it is free");
    let is_locked = || matches!(options().open(""), Err(ringlog::OpenError::Locked { .. }));
    assert!(is_locked() && matches!(Recover::lock(&directory), Err(ringlog::OpenError::Locked { .. })));
    let opened = Recover::new().open_locked(&directory, lock).expect("a log");
    assert!(is_locked());
    drop(opened);
    assert!(!is_locked());
    let lock = Recover::lock(&directory).expect("it is free");
    assert!(Recover::new().segment_size(1).open_locked(&directory, lock).is_err());
    assert!(!is_locked());
}

#[test]
fn segments_in_memory_are_used_again_and_hold_what_the_ring_wrote() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    for n in 0..400 {
        let done = log.commit(1, &[std::io::IoSlice::new(&payload(n, 3000))]).expect("durable");
        let mut record = Vec::new();
        log.read(done.lsn(), &mut record).expect("it is there");
        assert_eq!(record, payload(n, 3000), "{n}");
        let from = done.lsn();
        drop(done);
        if n % 7 == 0 {
            log.trim(from).expect("trimmed");
        }
    }
    assert!(directory.contents().len() < 12, "{:?}", directory.contents().keys());
    drop(log);
    let (_, recovery, records) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!(recovery.verdict, Verdict::Clean);
    assert_eq!(records.last().map(|record| &record.2), Some(&payload(399, 3000)));
}

#[test]
fn each_payload_of_a_group_longer_than_a_buffer_has_the_address_of_its_own_bytes() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    log.append(1, b"before").expect("room");
    let mut group = Group::new();
    for n in 0..9 {
        group.push(100 + n, &payload(n.into(), 3000));
    }
    let range = log.append_group(&group).expect("room");
    log.close().expect("closed");
    drop(log);
    let (log, _, records) = reopen(small().directory(&directory), "".as_ref());
    let shown: Vec<_> = records[1..].iter().map(|(lsn, kind, bytes)| (*lsn, *kind, bytes.clone())).collect();
    assert_eq!(shown.len(), 9);
    for (n, (lsn, kind, bytes)) in shown.iter().enumerate() {
        assert_eq!((usize::from(*kind), bytes), (100 + n, &payload(n, 3000)));
        assert!(range.contains(lsn), "{n}: {lsn} in {range:?}");
        if n > 0 {
            let file = &directory.contents()[&segment::file_name(lsn.get() / SEGMENT * SEGMENT)];
            let header = &file[4096 + (lsn.get() % SEGMENT) as usize..][..8];
            assert_eq!(header, [0xb8, 0x0b, 0, 0, 0, 0, 0, *kind], "the length, and the kind");
        }
    }
    // A truncation from one of them on keeps those before it.
    log.truncate(shown[5].0).expect("it is there");
    log.close().expect("closed");
    drop(log);
    let (_, _, records) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!(records[1..].iter().map(|record| record.1).collect::<Vec<_>>(), [100, 101, 102, 103, 104]);
}

#[test]
fn a_failed_write_of_the_device_ends_the_log_and_a_kill_keeps_what_was_durable() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let done = log.commit(1, &[std::io::IoSlice::new(b"durable")]).expect("durable");
    let durable = log.durable();
    directory.device().fail_write(0, 5);
    let lost = log.append(1, b"lost").expect("room");
    assert!(matches!(log.wait_durable(lost.end), Err(Error::Poisoned(_))));
    assert_eq!(log.durable(), durable);
    assert!(matches!(log.append(1, b"late"), Err(Error::Poisoned(_))));
    let image = directory.power_cut(1);
    let mut records = Vec::new();
    let (_, recovery) = small()
        .directory(&image)
        .open_with("", |record| {
            records.push(record.lsn);
            Ok::<_, Infallible>(())
        })
        .expect("a log");
    assert_eq!((records, recovery.end >= done.end()), (vec![done.lsn()], true));
}

#[test]
fn a_device_that_is_held_keeps_what_is_in_flight_from_being_durable() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let device = directory.device();
    device.hold();
    let at = log.append(1, b"in flight").expect("room");
    let called = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&called);
    log.on_durable(at.end, move |outcome| *seen.lock().expect("no panic") = Some(outcome.is_ok()));
    while device.held() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(log.durable(), Lsn::new(log.durable().get()).min(at.start));
    let lost = (0..64).map(|seed| directory.power_cut(seed)).filter(|image| {
        let report = verify(image, &Verify::new()).expect("a log");
        assert!(!matches!(report.verdict, Verdict::Damaged(_)), "{report:?}");
        report.records == 0
    });
    assert!(lost.count() > 0);
    device.release_all();
    log.wait_durable(at.end).expect("durable");
    for seed in 0..64 {
        assert_eq!(verify(&directory.power_cut(seed), &Verify::new()).expect("a log").records, 1);
    }
    drop(log);
    assert_eq!(*called.lock().expect("no panic"), Some(true));
    assert!(SEGMENT > 0 && Log::options().in_memory().open("").is_ok());
}

#[test]
fn a_reservation_that_must_not_wait_is_refused_without_room_and_a_full_disk_says_why_there_is_none() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    drop(log.try_reserve(1, 100).expect("room"));
    directory.stop_after(0);
    let mut appended = 0;
    let refused = loop {
        match log.try_reserve(1, 1000) {
            Ok(mut record) => {
                record.fill(appended as u8);
                record.commit();
                appended += 1;
            }
            Err(Error::Full) if log.wait_durable_timeout(log.end(), Duration::from_millis(100)).is_ok() => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full), "{refused:?}");
    let why = log.check_room();
    assert!(matches!(why, Err(Error::NoSegment(_))), "{why:?}");
    directory.stop_after(u64::MAX);
    log.sync().expect("durable");
    log.check_room().expect("there is room again");
    log.try_reserve(1, 1000).expect("room").commit();
    drop(log);
    let (_, _, records) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!(records.len(), appended + 1);
}
