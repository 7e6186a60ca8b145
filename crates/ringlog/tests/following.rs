//! Followers beside writers, damage, trims, truncations, failures and other processes.

mod common;

use core::fmt::Debug;
use core::ops::{ControlFlow, Range};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use buffer_ring::MemoryDevice;
use common::open::{SEGMENT, payload, small};
use ring_testing::Child;
use ringlog::directory::{DiskDirectory, MemoryDirectory};
use ringlog::format::HEADER_LEN;
use ringlog::recovery::{Content, OnDamage, Verdict, Verify, verify};
use ringlog::{Error, Follow, Group, Item, Log, Lsn, Options, Record, Upto, segment};

/// Waits for what has to come, and fails if it does not.
const LONG: Duration = Duration::from_secs(60);

fn in_memory() -> Log {
    small().in_memory().open("").expect("a log").0
}

/// A device that holds nothing for ever: a log that goes would wait for it.
struct Released(MemoryDevice);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release_all();
    }
}

/// What producer `n` sends as number `count`.
fn numbered(n: u64, count: u64, len: usize) -> Vec<u8> {
    let mut bytes = [n.to_le_bytes(), count.to_le_bytes()].concat();
    bytes.extend(payload(count as usize, len));
    bytes
}

/// Checks that each producer's records come in order, and all records in the order of their ends.
#[derive(Default)]
struct Order {
    counts: [u64; 5],
    end: Lsn,
}

impl Order {
    fn check(&mut self, record: &Record<'_>) {
        let (n, rest) = record.payload.split_first_chunk::<8>().expect("a number");
        let (n, count) = (u64::from_le_bytes(*n), u64::from_le_bytes(*rest.first_chunk().expect("a count")));
        assert_eq!(count, self.counts[n as usize], "of producer {n} at {}", record.lsn);
        self.counts[n as usize] += 1;
        assert!(record.end >= self.end, "{} after {}", record.end, self.end);
        self.end = record.end;
    }
}

#[test]
fn followers_beside_many_producers_see_every_record_once_in_order_and_none_early() {
    const EACH: u64 = 1500;
    let log = in_memory();
    let followers = [Upto::Durable, Upto::Staged, Upto::Durable, Upto::Staged].map(|upto| {
        let (mut follow, log) = (log.follow(Lsn::START, upto), log.clone());
        thread::spawn(move || {
            let mut order = Order::default();
            while let Some(record) = follow.next().expect("a working log") {
                order.check(&record);
                assert!(upto == Upto::Staged || record.end <= log.durable(), "{} is not durable", record.end);
            }
            order.counts
        })
    });
    let producers = [0, 1, 2, 3, 4].map(|n: u64| {
        let (log, mut writer) = (log.clone(), log.writer());
        thread::spawn(move || {
            for count in 0..EACH {
                let bytes = numbered(n, count, (count % 200) as usize);
                let appended = match n {
                    0 | 1 => writer.append(1, &bytes),
                    3 if count % 100 == 99 => log.append(1, &numbered(n, count, 30_000)),
                    3 => log.append_group(Group::new().push(1, &bytes)),
                    4 if count % 10 == 0 => log.commit(1, &[IoSlice::new(&bytes)]).map(|done| done.lsn()..done.end()),
                    _ => log.append(1, &bytes),
                };
                appended.expect("room");
            }
        })
    });
    producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
    log.close().expect("a working device");
    for follower in followers {
        assert_eq!(follower.join().expect("no panic"), [EACH; 5]);
    }
}

#[test]
fn a_follower_waits_for_what_comes_and_ends_with_the_log() {
    let log = in_memory();
    let (sent, received) = mpsc::channel();
    let mut follow = log.follow(log.end(), Upto::Staged);
    let follower = thread::spawn(move || {
        while let Some(record) = follow.next().expect("a working log") {
            sent.send(record.lsn).expect("the test waits");
        }
    });
    for n in 0..5 {
        let at = log.append(1, &payload(n, 100)).expect("room");
        assert_eq!(received.recv_timeout(LONG), Ok(at.start));
    }
    let mut late = log.follow(log.end(), Upto::Durable);
    assert!(matches!(late.next_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
    log.close().expect("a working device");
    follower.join().expect("no panic");
    assert_eq!(late.next().expect("a closed log"), None);
    assert_eq!(late.try_next().expect("a closed log"), None);
}

#[test]
fn an_event_loop_learns_by_a_descriptor_that_there_is_more_and_that_the_log_has_ended() {
    let log = in_memory();
    let mut follow = log.follow(log.end(), Upto::Durable);
    let event = File::from(follow.eventfd().expect("a descriptor").try_clone_to_owned().expect("a descriptor"));
    let is_readable = || match (&event).read(&mut [0; 8]) {
        Ok(len) => len == 8,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    };
    assert!(!is_readable());
    let at = log.append(1, b"a record").expect("room");
    assert!(!is_readable(), "it is not durable");
    log.wait_durable(at.end).expect("a working device");
    assert!(is_readable() && !is_readable());
    assert_eq!(follow.try_next().expect("a log").map(|record| record.lsn), Some(at.start));
    log.close().expect("a working device");
    assert!(is_readable());
    assert_eq!(follow.next().expect("a closed log"), None);
    let folder = tempfile::tempdir().expect("a folder");
    drop(on_disk(small(), folder.path()));
    let reader = Log::options().open_read_only(folder.path()).expect("a log");
    assert!(matches!(reader.follow(Lsn::START).eventfd(), Err(Error::File(_))));
}

#[test]
fn a_follower_of_a_failed_log_gets_all_that_can_be_read_and_then_the_error() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let at = log.append(1, b"durable").expect("room");
    log.wait_durable(at.end).expect("a working device");
    let mut followers = [log.follow(Lsn::START, Upto::Durable), log.follow(Lsn::START, Upto::Staged)];
    log.append(1, b"staged").expect("room");
    directory.device().fail_write(0, 5);
    log.sync().expect_err("a failed device");
    let mut counts = [0, 0];
    for (follow, count) in followers.iter_mut().zip(&mut counts) {
        let error = loop {
            match follow.next() {
                Ok(Some(_)) => *count += 1,
                Ok(None) => panic!("the log was not closed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Poisoned(_)), "{error:?}");
        assert!(matches!(follow.next(), Err(Error::Poisoned(_))));
    }
    assert_eq!(counts, [1, 2]);
}

#[test]
fn a_trim_stops_at_a_reader_unless_it_is_not_pinned() {
    let log = in_memory();
    let ats: Vec<_> = (0..600).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    let end = log.sync().expect("a working device");
    let (mut pinned, mut free) =
        (log.follow(Lsn::START, Upto::Durable), log.follow(Lsn::START, Upto::Durable).unpinned());
    let scan = log.scan(ats[100].start..);
    assert_eq!(log.trim(end).expect("a working device").first, Lsn::START);
    for at in &ats[..350] {
        assert_eq!(pinned.next().expect("it is there").map(|record| record.lsn), Some(at.start));
    }
    let trimmed = log.trim(end).expect("a working device");
    assert!(trimmed.first > Lsn::START && trimmed.first <= ats[100].start, "{trimmed:?}");
    drop(scan);
    let first = log.trim(end).expect("a working device").first;
    assert!(first > trimmed.first && first <= ats[349].end, "{first:?}");
    assert!(matches!(free.next(), Err(Error::Trimmed { first: now }) if now == first));
    let next = free.next().expect("it goes on").expect("a record").lsn;
    assert_eq!(Some(next), ats.iter().map(|at| at.start).find(|at| *at >= first));
    assert_eq!(pinned.next().expect("it is there").map(|record| record.lsn), Some(ats[350].start));
    drop(pinned);
    assert!(log.trim(end).expect("a working device").first > first);
}

#[test]
fn a_follower_reads_on_while_a_trim_is_stuck_in_a_sync_and_a_new_reader_begins_where_the_log_will() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let ats: Vec<_> = (0..300).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    // What is committed here needs no segment that a sync would have to make.
    log.roll().expect("room");
    let mut follow = log.follow(log.sync().expect("a working device"), Upto::Durable);
    let (to, stall) = (ats[200].start, directory.stall_syncs());
    let trim = thread::spawn({
        let log = log.clone();
        move || log.trim(to).expect("a working device")
    });
    stall.wait_for_sync();
    let (sender, read) = mpsc::channel();
    let reader = thread::spawn({
        let log = log.clone();
        move || {
            // Also if the sync was another one.
            while log.scan(..).next().expect("a record").is_none_or(|record| record.lsn < to) {
                thread::yield_now();
            }
            for n in 0..5 {
                let sent = log.commit(2, &[IoSlice::new(&payload(n, 100))]).expect("durable");
                assert_eq!(follow.next().expect("a record").map(|record| record.lsn), Some(sent.lsn()));
                sender.send(n).expect("a receiver");
            }
        }
    });
    for n in 0..5 {
        assert_eq!(read.recv_timeout(LONG), Ok(n));
    }
    assert!(!trim.is_finished() && log.first() == Lsn::START);
    drop(stall);
    assert_eq!(trim.join().expect("no panic").first, to);
    reader.join().expect("no panic");
    assert_eq!(log.scan(..).next().expect("a record").map(|record| record.lsn), Some(to));
}

#[test]
fn a_position_that_is_not_in_the_log_is_refused_with_the_nearest_one_that_is() {
    let log = in_memory();
    let ats: Vec<_> = (0..300).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    let end = log.sync().expect("a working device");
    let first = log.trim(ats[200].start).expect("a working device").first;
    assert!(matches!(log.scan(Lsn::START..).next(), Err(Error::Trimmed { first: now }) if now == first));
    assert!(matches!(log.follow(Lsn::START, Upto::Staged).next(), Err(Error::Trimmed { first: now }) if now == first));
    let beyond = Lsn::new(end.get() + 100_000);
    assert!(matches!(log.scan(beyond..).next(), Err(Error::NotAppended { .. })));
    assert!(matches!(log.scan(..beyond).next(), Err(Error::NotAppended { .. })));
    assert!(matches!(log.follow(beyond, Upto::Staged).next(), Err(Error::NotAppended { .. })));
    let inside = Lsn::new(ats[250].start.get() + 16);
    let is_refused = |outcome| match outcome {
        Err(Error::InsideRecord { address, record }) => address == inside && record == ats[250],
        _ => false,
    };
    let mut scan = log.scan(inside..);
    assert!(is_refused(scan.next().map(|record| record.map(|record| record.lsn))));
    assert_eq!(scan.next().expect("it goes on").map(|record| record.lsn), Some(ats[251].start));
    assert!(is_refused(log.follow(inside, Upto::Durable).next().map(|record| record.map(|record| record.lsn))));
    // Where a scan begins without a position, it is where the log begins.
    assert_eq!(log.scan(..).next().expect("a scan").map(|record| record.lsn >= first), Some(true));
}

#[test]
fn a_follower_learns_once_that_what_it_was_given_is_truncated() {
    let log = in_memory();
    let ats: Vec<_> = (0..10).map(|n| log.append(n, b"a record").expect("room")).collect();
    let mut follow = log.follow(Lsn::START, Upto::Staged);
    let mut behind = log.follow(Lsn::START, Upto::Staged);
    for _ in 0..8 {
        assert!(follow.try_next().expect("a log").is_some());
    }
    for _ in 0..3 {
        assert!(behind.try_next().expect("a log").is_some());
    }
    log.truncate(ats[5].start).expect("room");
    let next = log.append(50, b"after").expect("room");
    assert_eq!(follow.next_item().expect("a log"), Some(Item::Truncated { from: ats[5].start }));
    let kinds = |follow: &mut Follow| {
        let mut kinds = Vec::new();
        while follow.position() < next.end {
            match follow.next_item().expect("a log").expect("the log is open") {
                Item::Record(record) => kinds.push(i32::from(record.kind)),
                Item::Truncated { .. } => kinds.push(-1),
                _ => kinds.push(-2),
            }
        }
        kinds
    };
    assert_eq!(kinds(&mut follow), [50]);
    // The one that was not given any of it only passes it over.
    assert_eq!(kinds(&mut behind), [3, 4, 50]);
}

/// Damages a byte of the log in its file.
fn damage(path: &Path, address: u64) {
    let file = File::options().read(true).write(true).open(path.join(segment::file_name(address / SEGMENT * SEGMENT)));
    let (file, at, mut byte) = (file.expect("a segment"), 4096 + address % SEGMENT, [0]);
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[!byte[0]], at).expect("a byte");
}

fn on_disk(options: Options, path: &Path) -> Log {
    options.open(path).expect("a log").0
}

/// Many records, of which the one at 120 is in a damaged batch.
fn damaged(path: &Path) -> Vec<Range<Lsn>> {
    let log = on_disk(small(), path);
    let ats: Vec<_> = (0..300).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    log.close().expect("a working device");
    drop(log);
    damage(path, ats[120].start.get() + 100);
    ats
}

#[test]
fn damage_is_reported_with_its_range_and_everything_else_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let ats = damaged(folder.path());
    let reader = Log::options().open_read_only(folder.path()).expect("a damaged log");
    assert!(matches!(reader.report().verdict, Verdict::Clean | Verdict::Damaged(_)));
    let mut expected: Vec<_> = ats.iter().map(|at| at.start).collect();
    let mut found = Vec::new();
    let mut scan = reader.scan(..);
    let range = loop {
        match scan.next() {
            Ok(record) => found.push(record.expect("damage comes first").lsn),
            Err(Error::Damaged { range, content: Content::BadBlock { .. } }) => break range,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(range.contains(&ats[120].start) && range.end.get() - range.start.get() <= 2 << 12, "{range:?}");
    while let Some(record) = scan.next().expect("what is behind it") {
        found.push(record.lsn);
    }
    expected.retain(|lsn| !range.contains(lsn));
    assert_eq!(found, expected);
    // The others see the same.
    let (mut backwards, mut rev) = (Vec::new(), reader.scan(..).rev());
    loop {
        match rev.next() {
            Ok(Some(record)) => backwards.push(record.lsn),
            Ok(None) => break,
            Err(Error::Damaged { range: same, .. }) => assert_eq!(same, range),
            Err(error) => panic!("{error:?}"),
        }
    }
    backwards.reverse();
    assert_eq!(backwards, expected);
    let failed = reader.scan(..).in_parallel(2, |record| assert!(expected.contains(&record.lsn)));
    assert!(matches!(failed, Err(Error::Damaged { range: same, .. }) if same == range));
    let mut follow = reader.follow(Lsn::START);
    let followed: Vec<_> = (0..expected.len())
        .map(|_| match follow.next() {
            Ok(record) => record.expect("it never ends").lsn,
            Err(_) => follow.next().expect("what is behind it").expect("it never ends").lsn,
        })
        .collect();
    assert_eq!(followed, expected);
}

#[test]
fn a_batch_that_was_verified_serves_further_reads_until_two_others_were_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let batches = [1, 2, 3].map(|n| {
        let ats = [0, 1, 2].map(|_| log.append(n, &payload(usize::from(n), 100)).expect("room"));
        log.sync().expect("a working device");
        ats
    });
    let mut record = Vec::new();
    let mut read = |batch: usize, n: usize| log.read(batches[batch][n].start, &mut record);
    assert_eq!(read(0, 0).expect("a record"), 1);
    damage(folder.path(), batches[0][1].start.get() + 20);
    assert_eq!((read(0, 2).expect("verified"), read(1, 2).expect("a record")), (1, 2));
    assert_eq!((read(0, 1).expect("verified"), read(1, 0).expect("verified")), (1, 2));
    assert_eq!(read(2, 0).expect("a record"), 3);
    assert!(matches!(read(0, 1), Err(Error::Damaged { .. })));
    assert_eq!((read(1, 1).expect("a record"), read(2, 2).expect("a record")), (2, 3));
    // Inside of a record stands none, also in a batch that is in memory.
    let inside = Lsn::new(batches[2][0].start.get() + 8);
    assert!(matches!(log.read(inside, &mut record), Err(Error::NotARecord(_))));
    log.truncate(batches[2][1].start).expect("room");
    assert!(matches!(log.read(batches[2][1].start, &mut record), Err(Error::Truncated(_))));
}

#[test]
fn behind_a_damaged_batch_that_ends_a_segment_the_next_segment_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let damaged = log.append(1, b"the last one of its segment").expect("room");
    log.roll().expect("room");
    let next = log.append(2, b"the first one of the next").expect("room");
    assert_eq!(next.start.get() / SEGMENT, 1);
    log.close().expect("a working device");
    drop(log);
    damage(folder.path(), damaged.start.get() + 10);
    let reader = Log::options().open_read_only(folder.path()).expect("a damaged log");
    let mut scan = reader.scan(..);
    let Err(Error::Damaged { range, .. }) = scan.next() else { panic!("it is damaged") };
    assert_eq!(range, Lsn::START..Lsn::new(SEGMENT));
    assert_eq!(scan.next().expect("no other damage").map(|record| record.lsn), Some(next.start));
}

#[test]
fn a_log_that_was_trimmed_inside_of_a_record_is_read_from_the_next_one_on() {
    let log = in_memory();
    let ats: Vec<_> = (0..300).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    log.sync().expect("a working device");
    let first = log.trim(Lsn::new(ats[150].start.get() + 100)).expect("a working device").first;
    assert_eq!(first.get(), ats[150].start.get() + 100);
    let next = Some(ats[151].start);
    assert_eq!(log.scan(..).next().expect("a scan").map(|record| record.lsn), next);
    assert_eq!(log.follow(first, Upto::Durable).next().expect("a follower").map(|record| record.lsn), next);
    let (mut rev, mut last) = (log.scan(..).rev(), None);
    while let Some(record) = rev.next().expect("a scan") {
        last = Some(record.lsn);
    }
    assert_eq!(last, next);
}

#[test]
fn a_range_begins_and_ends_where_the_log_is_durable() {
    let log = in_memory();
    for n in 0..10 {
        let from = log.durable();
        let at = log.append(n, b"new").expect("room");
        log.sync().expect("a working device");
        let mut scan = log.scan(from..);
        assert_eq!(scan.next().expect("a scan").map(|record| record.lsn), Some(at.start));
        assert_eq!(scan.next().expect("a scan"), None);
        assert_eq!(log.scan(log.durable()..).next().expect("a scan"), None);
        assert_eq!(log.scan(log.end()..).next().expect("a scan"), None);
        let behind = (core::ops::Bound::Excluded(at.start), core::ops::Bound::Unbounded);
        assert_eq!(log.scan(behind).next().expect("a scan").map(|record| record.lsn), Some(at.start));
    }
    assert!(matches!(log.follow(log.end(), Upto::Durable).next_timeout(Duration::ZERO), Err(Error::TimedOut)));
    let mut patient = log.follow(log.end(), Upto::Staged);
    let at = log.append(1, b"one more").expect("room");
    let given = patient.next_timeout(Duration::MAX).expect("a follower").map(|record| record.lsn);
    assert_eq!(given, Some(at.start));
}

#[test]
fn a_durable_follower_passes_over_what_is_truncated_when_the_truncation_is_durable() {
    let log = in_memory();
    let ats: Vec<_> = (0..4).map(|n| log.append(n, b"a record").expect("room")).collect();
    log.sync().expect("a working device");
    log.truncate(ats[1].start).expect("room");
    let next = log.append(9, b"behind it").expect("room");
    let mut follow = log.follow(Lsn::START, Upto::Durable);
    assert_eq!(follow.try_next().expect("a log").map(|record| record.lsn), Some(ats[0].start));
    assert_eq!(follow.try_next().expect("a log"), None);
    assert_eq!(follow.position(), ats[0].end, "a crash may take the truncation back");
    log.sync().expect("a working device");
    assert_eq!(follow.next_timeout(LONG).expect("a log").map(|record| record.lsn), Some(next.start));
}

#[test]
fn a_reader_beside_a_trim_learns_where_the_log_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    for n in 0..600 {
        log.append(1, &payload(n, 700)).expect("room");
        if n % 50 == 0 {
            // Later headers promise what is durable by then.
            log.sync().expect("a working device");
        }
    }
    log.sync().expect("a working device");
    let reader = Log::options().open_read_only(folder.path()).expect("a log in use");
    let (mut scan, mut follow) = (reader.scan(..), reader.follow(reader.first()));
    let first = log.trim(log.durable()).expect("a working device").first;
    // Files that are kept to be used again are still what they were.
    let error = |mut next: Box<dyn FnMut() -> Result<bool, Error> + '_>| loop {
        match next() {
            Ok(is_there) => assert!(is_there, "it ended"),
            Err(error) => break error,
        }
    };
    let of_scan = error(Box::new(|| Ok(scan.next()?.is_some())));
    let of_follower = error(Box::new(|| Ok(follow.next()?.is_some())));
    for error in [of_scan, of_follower] {
        assert!(matches!(error, Error::Trimmed { first: now } if now == first), "{error:?}");
    }
}

#[test]
fn damage_between_the_parts_of_a_long_record_hides_it_from_no_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small().ring(8, 2 << 12), folder.path());
    let (long, short) = thread::scope(|scope| {
        let long = scope.spawn(|| log.append(1, &payload(3, 60_000)).expect("room"));
        let short: Vec<_> = (0..40)
            .map(|n| {
                let at = log.append(2, &payload(n, 100)).expect("room");
                log.sync().expect("a working device");
                at
            })
            .collect();
        (long.join().expect("no panic"), short)
    });
    log.close().expect("a working device");
    drop(log);
    // One of those between its parts, if there is one in a batch of its own.
    let between = short.iter().find(|at| at.start > long.start && at.end < long.end);
    if let Some(between) = between {
        damage(folder.path(), between.start.get() + 10);
    }
    let reader = Log::options().open_read_only(folder.path()).expect("a log");
    let seen = |mut next: Box<dyn FnMut() -> Result<Option<Lsn>, Error> + '_>| {
        let mut seen = Vec::new();
        loop {
            match next() {
                Ok(None) => return seen,
                Ok(Some(lsn)) => seen.push(lsn),
                Err(Error::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (mut scan, mut rev) = (reader.scan(..), reader.scan(..).rev());
    let forwards = seen(Box::new(|| Ok(scan.next()?.map(|record| record.lsn))));
    let mut backwards = seen(Box::new(|| Ok(rev.next()?.map(|record| record.lsn))));
    backwards.reverse();
    assert_eq!(forwards, backwards);
}

#[test]
fn a_long_record_with_a_damaged_part_is_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let long = log.append(1, &payload(3, 50_000)).expect("room");
    let next = log.append(2, b"next").expect("room");
    log.close().expect("a working device");
    drop(log);
    damage(folder.path(), long.start.get() + 20_000);
    let reader = Log::options().open_read_only(folder.path()).expect("a damaged log");
    let mut scan = reader.scan(..);
    assert!(matches!(scan.next(), Err(Error::Damaged { .. })));
    assert_eq!(scan.next().expect("what is behind it").map(|record| record.lsn), Some(next.start));
    assert_eq!(scan.next().expect("nothing else"), None);
}

#[test]
fn damage_around_the_beginning_of_a_log_is_no_trim() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let ats: Vec<_> = (0..300).map(|n| log.append(1, &payload(n, 700)).expect("room")).collect();
    let first = log.trim(log.sync().expect("a working device").min(ats[150].start)).expect("a working device").first;
    assert_eq!(first, ats[150].start);
    log.close().expect("a working device");
    drop(log);
    damage(folder.path(), first.get() + 100);
    let reader = Log::options().open_read_only(folder.path()).expect("a damaged log");
    let mut scan = reader.scan(..);
    let Err(Error::Damaged { range, .. }) = scan.next() else { panic!("the first batch is damaged") };
    assert!(range.contains(&first));
    let behind = ats.iter().map(|at| at.start).find(|at| *at >= range.end);
    assert_eq!(scan.next().expect("what is behind it").map(|record| record.lsn), behind);
}

/// What a scan of all of the log shows, which is the same backwards.
fn in_both_directions<T: Debug + PartialEq>(log: &Log, seen: impl Fn(Item<'_>) -> T) -> Vec<T> {
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    let (mut scan, mut rev) = (log.scan(..), log.scan(..).rev());
    while let Some(item) = scan.next_item().expect("a scan") {
        forwards.push(seen(item));
    }
    while let Some(item) = rev.next_item().expect("a scan") {
        backwards.push(seen(item));
    }
    backwards.reverse();
    assert_eq!(forwards, backwards);
    forwards
}

#[test]
fn a_skipped_gap_is_an_item_and_no_record() {
    let folder = tempfile::tempdir().expect("a folder");
    damaged(folder.path());
    let (log, _) = small()
        .on_damage(OnDamage::Skip)
        .open_with(folder.path(), |_| Ok::<_, core::convert::Infallible>(()))
        .expect("a log with a gap");
    let seen = |item: Item<'_>| match item {
        Item::Record(record) => (true, record.lsn),
        Item::Gap(range) => (false, range.start),
        _ => unreachable!("a scan"),
    };
    let forwards = in_both_directions(&log, seen);
    assert_eq!(forwards.iter().filter(|(is_record, _)| !is_record).count(), 1);
    let mut count = 0;
    log.scan(..)
        .for_each(|_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .expect("a scan");
    assert_eq!(count + 1, forwards.len());
}

#[test]
fn what_is_in_memory_is_not_read_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let mut followers = [log.follow(Lsn::START, Upto::Durable), log.follow(Lsn::START, Upto::Staged)];
    let before = log.stats().buffers_flushed;
    for n in 0..6 {
        let at = log.commit(1, &[IoSlice::new(&payload(n, 3000))]).expect("room");
        // As if the device had lost it.
        damage(folder.path(), at.lsn().get() + 100);
        for follow in &mut followers {
            assert_eq!(follow.next_timeout(LONG).expect("from memory").expect("a record").payload, payload(n, 3000));
        }
    }
    let sealed = log.stats().buffers_flushed;
    for n in 0..3 {
        log.append(1, &payload(n, 100)).expect("room");
        assert!(followers[1].next_timeout(LONG).expect("from memory").is_some());
    }
    assert!(sealed > before, "commits seal");
    assert_eq!(log.stats().buffers_flushed, sealed, "a follower does not");
}

#[test]
fn a_follower_that_begins_within_a_long_record_that_is_staged_gets_it() {
    let log = small().ring(16, 2 << 12).in_memory().open("").expect("a log").0;
    drop(log.commit(0, &[IoSlice::new(b"before")]).expect("room"));
    let long = log.append(1, &payload(7, 30_000)).expect("room");
    let next = log.append(2, b"next").expect("room");
    let mut follow = log.follow(Lsn::new(long.start.get() + 10_000), Upto::Staged);
    for expected in [long, next] {
        assert_eq!(follow.next_timeout(LONG).expect("a log").map(|record| record.lsn), Some(expected.start));
    }
}

#[test]
fn a_staged_follower_within_a_long_record_whose_first_part_alone_is_durable_gets_it() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let Released(device) = &Released(directory.device());
    device.hold();
    // It fits the ring, so that all parts are placed while no write comes back.
    let long = log.append(1, &payload(7, 50_000)).expect("room");
    let next = log.append(2, b"next").expect("room");
    let writes = device.held();
    assert!(writes > 4);
    device.release(0);
    let first = Lsn::new(long.start.get() + 1000);
    while log.wait_durable_timeout(first, Duration::from_millis(1)).is_err() {
        // Only the sync, which is behind the writes.
        if device.held() > writes - 1 {
            device.release(writes - 1);
        }
    }
    // The ring's first buffer.
    assert_eq!(log.durable().get(), (2 << 12) + HEADER_LEN as u64);
    for within in [5000, 10_000, 20_000, 45_000] {
        let mut follow = log.follow(Lsn::new(long.start.get() + within), Upto::Staged);
        let record = follow.next_timeout(LONG).expect("a log").expect("a record");
        assert_eq!((record.lsn, record.payload), (long.start, &payload(7, 50_000)[..]), "within {within}");
        assert_eq!(follow.next_timeout(LONG).expect("a log").map(|record| record.lsn), Some(next.start));
    }
}

#[test]
fn in_a_forked_child_followers_scans_and_readers_say_so_and_dropping_them_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let ats: Vec<_> = (0..60).map(|n| log.append(n, &payload(usize::from(n), 700)).expect("room").start).collect();
    log.sync().expect("a working device");
    let reader = Log::options().open_read_only(folder.path()).expect("a log in use");
    let follows = || [log.follow(Lsn::START, Upto::Durable), log.follow(Lsn::START, Upto::Staged)];
    let (mut begun, mut scan, mut rev) = (follows(), log.scan(..), log.scan(..).rev());
    begun.iter_mut().for_each(|follow| assert!(follow.next().expect("a record").is_some()));
    assert!(scan.next().expect("a record").is_some() && rev.next().expect("a record").is_some());
    let mut theirs = reader.follow(Lsn::START);
    assert!(theirs.next().expect("a record").is_some());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // What readers hold is locked again and again, and so at some fork.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(follows());
            }
        });
        for _ in 0..10 {
            Child::fork(|| {
                for follow in begun.iter_mut().chain(&mut follows()).chain([&mut theirs]) {
                    assert!(matches!(follow.next().map(drop), Err(Error::Forked)));
                    assert!(matches!(follow.try_next().map(drop), Err(Error::Forked)));
                    assert!(matches!(follow.next_item_timeout(LONG).map(drop), Err(Error::Forked)));
                    assert!(follow.eventfd().is_err());
                }
                assert!(matches!(scan.next().map(drop), Err(Error::Forked)));
                assert!(matches!(scan.seek(ats[3]), Err(Error::Forked)));
                assert!(matches!(rev.next().map(drop), Err(Error::Forked)));
                assert!(matches!(log.scan(..).next().map(drop), Err(Error::Forked)));
                assert!(matches!(log.scan(..).in_parallel(2, |_| {}), Err(Error::Forked)));
                assert!(matches!(log.read(ats[1], &mut Vec::new()), Err(Error::Forked)));
                assert!(matches!(reader.scan(..).next().map(drop), Err(Error::Forked)) && reader.refresh().is_err());
                drop((reader.clone(), log.clone()));
            })
            .succeeds();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for follow in begun.iter_mut().chain([&mut theirs]) {
        assert_eq!(follow.next().expect("the parent's own").map(|record| record.lsn), Some(ats[1]));
    }
    assert_eq!(scan.next().expect("the parent's own").map(|record| record.lsn), Some(ats[1]));
}

#[test]
fn a_gap_over_several_segments_is_one_item_in_both_directions() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let ats: Vec<_> = (0..600).map(|n| log.append(1, &payload(n, 700)).expect("room").start).collect();
    log.close().expect("a working device");
    drop(log);
    for number in [2, 3, 4] {
        let path = folder.path().join(segment::file_name(number * SEGMENT));
        let len = std::fs::metadata(&path).expect("a segment").len();
        std::fs::write(&path, vec![0; len as usize]).expect("written");
    }
    let log = on_disk(small().on_damage(OnDamage::Skip), folder.path());
    // Opening reads the end only, and that is intact.
    drop(log);
    let recovered = small()
        .on_damage(OnDamage::Skip)
        .open_with(folder.path(), |_| Ok::<_, core::convert::Infallible>(()))
        .expect("a log with a gap");
    let (log, report) = recovered;
    let [gap] = &report.gaps[..] else { panic!("{:?}", report.gaps) };
    assert!(gap.end.get() - gap.start.get() >= 3 * SEGMENT, "{gap:?}");
    let seen = |item: Item<'_>| match item {
        Item::Record(record) => record.lsn..record.end,
        Item::Gap(range) => range,
        _ => unreachable!("a scan"),
    };
    let forwards = in_both_directions(&log, seen);
    assert_eq!(forwards.iter().filter(|item| *item == gap).count(), 1);
    let records: Vec<_> = forwards.iter().filter(|item| *item != gap).map(|item| item.start).collect();
    let expected: Vec<_> = ats.into_iter().filter(|at| !gap.contains(at)).collect();
    assert_eq!(records, expected);
}

#[test]
fn a_follower_that_begins_within_a_long_record_gets_it_when_it_is_complete() {
    let log = in_memory();
    let long = log.append(1, &payload(7, 50_000)).expect("room");
    let next = log.append(2, b"next").expect("room");
    log.sync().expect("a working device");
    let within = Lsn::new(long.start.get() + 20_000);
    for upto in [Upto::Durable, Upto::Staged] {
        let mut follow = log.follow(within, upto);
        let record = follow.next_timeout(LONG).expect("a log").expect("a record");
        assert_eq!((record.lsn, record.end, record.payload), (long.start, long.end, &payload(7, 50_000)[..]));
        assert_eq!(follow.next_timeout(LONG).expect("a log").map(|record| record.lsn), Some(next.start));
    }
}

#[test]
fn another_reader_follows_a_log_over_trims_and_reopenings_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = on_disk(small(), folder.path());
    let mut sent: Vec<_> = (0..50).map(|n| log.append(1, &payload(n, 700)).expect("room").start).collect();
    log.sync().expect("a working device");
    let reader = Log::options().open_read_only(folder.path()).expect("a log in use");
    assert_eq!(reader.report().verdict, Verdict::InUse);
    assert!(reader.end() <= log.durable());
    let mut follow = reader.follow(Lsn::START);
    let mut seen = Vec::new();
    let mut take = |follow: &mut Follow, sent: &[Lsn]| {
        while seen.len() < sent.len() {
            seen.push(follow.next_timeout(LONG).expect("a log").expect("it never ends").lsn);
        }
        assert_eq!(seen, sent);
    };
    // An idle log's empty batch proves the last one.
    take(&mut follow, &sent);
    // Written, and not durable: nothing asks for that.
    sent.extend((50..100).map(|n| log.append(1, &payload(n, 700)).expect("room").start));
    let directory = DiskDirectory::open(folder.path()).expect("a folder");
    while verify(&directory, &Verify::new()).map_or(true, |report| report.end <= log.durable()) {
        thread::sleep(Duration::from_millis(1));
    }
    let cautious = Log::options().open_read_only(folder.path()).expect("a log in use");
    assert!(cautious.end() <= log.durable(), "{:?}, of {:?}", cautious.end(), log.durable());
    sent.extend((100..200).map(|n| log.append(1, &payload(n, 700)).expect("room").start));
    log.close().expect("a working device");
    take(&mut follow, &sent);
    drop(log);
    let log = on_disk(small(), folder.path());
    sent.extend((0..50).map(|n| log.append(2, &payload(n, 700)).expect("room").start));
    log.sync().expect("a working device");
    take(&mut follow, &sent);
    let first = log.trim(log.durable()).expect("a working device").first;
    assert!(first > Lsn::START);
    reader.refresh().expect("a log in use");
    assert_eq!(reader.first(), first);
    assert!(matches!(reader.scan(Lsn::START..).next(), Err(Error::Trimmed { first: now }) if now == first));
}
