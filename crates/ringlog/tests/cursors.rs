//! Cursors: positions that outlive crashes, and records that no trim gives up before a cursor has passed them.

mod common;

use core::ops::Range;
use core::time::Duration;
use std::sync::mpsc;
use std::{fs, thread};

use common::open::{SEGMENT, payload, reopen, small};
use ring_testing::Child;
use ringlog::directory::MemoryDirectory;
use ringlog::recovery::{Verify, verify};
use ringlog::{Cursor, Error, Log, Lsn, Recovery};

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Durable records over some segments.
fn fill(log: &Log, segments: u64) -> Vec<Range<Lsn>> {
    let (from, mut records) = (log.end().get(), Vec::new());
    while log.end().get() < from + segments * SEGMENT {
        records.push(log.append(1, &payload(records.len(), 2000)).expect("room"));
    }
    log.sync().expect("durable");
    records
}

/// What keeps writes from coming back; not while a failed test has the log closed.
struct Held<'a>(&'a MemoryDirectory);

impl<'a> Held<'a> {
    fn all(directory: &'a MemoryDirectory) -> Self {
        directory.device().hold();
        Self(directory)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.device().release_all();
    }
}

fn durable(log: &Log, cursor: &Cursor, to: Lsn) {
    let said = cursor.advance(to).expect("room");
    log.wait_durable(said.end).expect("durable");
}

fn new(directory: &MemoryDirectory) -> Log {
    small().directory(directory).open("").expect("a log").0
}

/// What recovery finds in what a power cut leaves now, with full and with fast checks.
fn recovered(directory: &MemoryDirectory, seed: u64) -> Recovery {
    let image = directory.power_cut(seed);
    let [full, fast] = [false, true].map(|fast| verify(&image, &Verify::new().fast(fast)).expect("a log"));
    assert!(full.cursors().eq(fast.cursors()), "{full:?} and {fast:?}");
    full
}

fn names(cursors: &[(String, Lsn)]) -> Vec<&str> {
    cursors.iter().map(|(name, _)| &**name).collect()
}

#[test]
fn a_cursor_is_where_it_was_after_closing_after_a_kill_and_after_a_power_cut() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let records = fill(&log, 1);
    let cursor = log.cursor("mailer").expect("room");
    assert_eq!((cursor.name(), cursor.position()), ("mailer", log.first()));
    durable(&log, &cursor, records[3].end);
    assert_eq!(recovered(&directory, 1).cursor("mailer"), Some(records[3].end));
    let killed = verify(&directory.kill(1), &Verify::new()).expect("a log");
    assert_eq!(killed.cursor("mailer"), Some(records[3].end));

    let said = cursor.advance(records[5].end).expect("room");
    assert_eq!((cursor.position(), said.start >= records[5].end), (records[5].end, true));
    log.close().expect("closed");
    drop((cursor, log));
    let (log, recovery, _) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!(recovery.cursors().collect::<Vec<_>>(), [(&b"mailer"[..], records[5].end)]);
    assert_eq!(log.cursors(), [("mailer".to_owned(), records[5].end)]);
    let cursor = log.cursor("mailer").expect("it is there");
    assert_eq!(cursor.position(), records[5].end);
    assert!(format!("{cursor:?}").contains("mailer"), "{cursor:?}");
}

#[test]
fn a_trim_stops_at_the_lowest_cursor_and_names_it() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let records = fill(&log, 6);
    let (slow, fast) = (log.cursor("slow").expect("room"), log.cursor("fast").expect("room"));
    let trimmed = log.trim(log.durable()).expect("held");
    assert_eq!((trimmed.first, trimmed.bytes), (Lsn::START, 0));
    // Both are where they began; the first name counts.
    assert_eq!(trimmed.held_by.as_deref(), Some("fast"));

    let (low, high) = (&records[records.len() / 3], &records[records.len() / 2]);
    durable(&log, &fast, high.end);
    durable(&log, &slow, low.end);
    let trimmed = log.trim(log.durable()).expect("trimmed");
    assert_eq!((trimmed.first, trimmed.held_by.as_deref()), (low.end, Some("slow")));
    assert!(trimmed.bytes >= SEGMENT && log.first() == low.end);
    let mut bytes = Vec::new();
    for record in records.iter().filter(|record| record.start >= low.end) {
        log.read(record.start, &mut bytes).expect("no cursor has passed it");
    }
    // What is asked for lies below all of them.
    assert_eq!(log.trim(low.end).expect("nothing to do").held_by, None);

    durable(&log, &slow, log.durable());
    let trimmed = log.trim(log.durable()).expect("trimmed");
    assert_eq!((trimmed.first, trimmed.held_by.as_deref()), (high.end, Some("fast")));
    fast.remove().expect("room");
    log.sync().expect("durable");
    assert!(log.trim(slow.position()).expect("trimmed").held_by.is_none());
    assert!(log.first() > high.end && names(&log.cursors()) == ["slow"]);
}

#[test]
fn a_position_that_a_crash_would_lose_frees_nothing() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let records = fill(&log, 6);
    let cursor = log.cursor("mailer").expect("room");
    let low = records[records.len() / 3].end;
    durable(&log, &cursor, low);
    let all = log.durable();
    let held = Held::all(&directory);
    cursor.advance(all).expect("room");
    assert_eq!(cursor.position(), all);
    let trimmed = log.trim(all).expect("held");
    assert_eq!((trimmed.first, trimmed.held_by.as_deref()), (low, Some("mailer")));
    for seed in 0..16 {
        let report = recovered(&directory, seed);
        assert!(report.cursor("mailer").expect("durable") >= report.first, "{report:?}");
    }
    drop(held);
    log.sync().expect("durable");
    let trimmed = log.trim(all).expect("trimmed");
    assert_eq!((trimmed.first, trimmed.held_by), (all, None));
}

#[test]
fn a_removal_that_a_crash_would_lose_frees_nothing_and_one_that_is_durable_is_for_good() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    fill(&log, 6);
    let cursor = log.cursor("mailer").expect("room");
    let other = log.cursor("mailer").expect("it is there");
    let all = log.sync().expect("durable");
    let held = Held::all(&directory);
    cursor.remove().expect("room");
    let trimmed = log.trim(all).expect("held");
    assert_eq!((trimmed.first, trimmed.held_by.as_deref()), (Lsn::START, Some("mailer")));
    assert!(matches!(other.advance(all), Err(Error::CursorRemoved)));
    assert_eq!((other.position(), log.cursors().len()), (Lsn::START, 0));
    other.remove().expect("nothing to do");
    drop(held);
    log.sync().expect("durable");
    assert_eq!(log.trim(all).expect("trimmed").held_by, None);
    assert!(log.first() > Lsn::START);
    assert_eq!(recovered(&directory, 3).cursors().count(), 0);
    drop(log);
    let (log, recovery, _) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!((recovery.cursor("mailer"), log.cursors().len()), (None, 0));
    // A new one of that name begins anew.
    assert_eq!(log.cursor("mailer").expect("room").position(), log.first());
}

#[test]
fn a_log_that_is_trimmed_as_far_as_it_can_be_keeps_its_cursors() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let cursors: Vec<_> = (0..20).map(|n| log.cursor(&format!("reader {n}")).expect("room")).collect();
    for round in 0..8 {
        let all = fill(&log, 2).pop().expect("some").end;
        // One is idle for a while, and then goes on.
        for cursor in cursors.iter().skip(usize::from(round % 4 != 3)) {
            durable(&log, cursor, all);
        }
        let trimmed = log.trim(all).expect("trimmed");
        assert_eq!(trimmed.held_by.is_none(), round % 4 == 3, "{round}: {trimmed:?}");
        for seed in 0..4 {
            let report = recovered(&directory, seed);
            assert!(report.cursors().map(|(_, at)| at).eq(log.cursors().into_iter().map(|(_, at)| at)), "{report:?}");
            assert_eq!(report.cursors().count(), 20);
        }
    }
}

#[test]
fn a_fast_opening_finds_cursors_in_the_snapshot_of_its_segment() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let at = fill(&log, 1)[4].end;
    durable(&log, &log.cursor("mailer").expect("room"), at);
    log.cursor("removed").expect("room").remove().expect("room");
    // The thread that repeats it in each segment may be late.
    let report = (0..200).find_map(|seed| {
        fill(&log, 1);
        let report = verify(&directory.power_cut(seed), &Verify::new().fast(true)).expect("a log");
        (report.checked_from.get() > 2 * SEGMENT).then_some(report)
    });
    let report = report.expect("it is repeated");
    assert_eq!(report.cursors().collect::<Vec<_>>(), [(&b"mailer"[..], at)]);
}

#[test]
fn a_cursor_may_go_back_as_far_as_the_log_and_no_further_and_not_beyond_its_end() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let records = fill(&log, 4);
    let (first, second) = (log.cursor("mailer").expect("room"), log.cursor("mailer").expect("room"));
    durable(&log, &first, records[60].end);
    assert_eq!(log.trim(records[60].end).expect("trimmed").held_by, None);
    let begins = log.first();
    assert_eq!(begins, records[60].end);
    assert!(matches!(second.advance(records[59].end), Err(Error::Trimmed { first }) if first == begins));
    first.advance(records[70].end).expect("room");
    second.advance(begins).expect("room");
    assert_eq!((first.position(), second.position()), (begins, begins));
    let end = log.end();
    let beyond = Lsn::new(end.get() + 8);
    assert!(matches!(first.advance(beyond), Err(Error::NotAppended { address, .. }) if address == beyond));
    first.advance(end).expect("the end itself");
    assert_eq!(second.position(), end);
    assert_eq!(log.cursor("another").expect("room").position(), begins);
}

#[test]
fn a_cursor_that_is_made_or_goes_back_while_the_log_is_trimmed_begins_where_the_log_will() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    // They have to be said again, durably, before their segment goes: no buffer takes a snapshot of both.
    log.set_meta("one", &[1; 5000]).expect("room");
    log.set_meta("two", &[2; 5000]).expect("room");
    let records = fill(&log, 3);
    let old = log.cursor("old").expect("room");
    let all = log.sync().expect("durable");
    durable(&log, &old, all);
    let to = records[records.len() / 2].end;
    thread::scope(|scope| {
        let held = Held::all(&directory);
        let (said, trimming) = (log.end(), scope.spawn(|| log.trim(to)));
        while log.end() == said && !trimming.is_finished() {
            thread::yield_now();
        }
        let new = log.cursor("new").expect("room");
        let back = old.advance(records[0].end);
        assert_eq!((new.position(), log.first(), trimming.is_finished()), (to, Lsn::START, false));
        assert!(matches!(back, Err(Error::Trimmed { first }) if first == to), "{back:?}");
        drop(held);
        assert_eq!(trimming.join().expect("no panic").expect("trimmed").first, to);
        assert_eq!((new.position(), log.first()), (to, to));
    });
}

#[test]
fn a_cursor_above_a_truncation_stays_where_it_is_and_goes_on() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let records = fill(&log, 1);
    let cursor = log.cursor("mailer").expect("room");
    durable(&log, &cursor, records[9].end);
    let at = log.truncate(records[4].start).expect("room");
    log.wait_durable(at.end).expect("durable");
    assert_eq!((cursor.position(), recovered(&directory, 1).cursor("mailer")), (records[9].end, Some(records[9].end)));
    let next = log.append(1, b"behind").expect("room");
    durable(&log, &cursor, next.end);
    assert_eq!(recovered(&directory, 2).cursor("mailer"), Some(next.end));
}

#[test]
fn names_of_all_kinds_are_apart_from_those_of_values_and_limited_with_them() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    log.set_meta("", b"a value").expect("room");
    log.set_meta("same", &[7; 4000]).expect("room");
    let kinds = ["", "same", "ü\0 /…", "a\nb"];
    for name in kinds {
        durable(&log, &log.cursor(name).expect("room"), log.durable());
    }
    assert_eq!((log.meta("").as_deref(), log.cursors().len()), (Some(&b"a value"[..]), 4));
    log.remove_meta("same").expect("room");
    assert!(kinds.iter().all(|name| recovered(&directory, 1).cursor(name).is_some()));
    // Longer than a buffer of this log.
    assert!(matches!(log.cursor(&"n".repeat(9000)), Err(Error::TooLarge { len: 9008, .. })));
    let refused = (0..100).find_map(|n| log.cursor(&format!("{n:04}").repeat(500)).err().map(|error| (n, error)));
    let (made, error) = refused.expect("64 KiB");
    assert!(matches!(error, Error::TooLarge { len: 2008, .. }), "{error:?}");
    assert_eq!(made, (64 << 10) / 2008);
    assert!(matches!(log.set_meta("more", &[0; 3000]), Err(Error::TooLarge { .. })));
    // Those that are there still move.
    durable(&log, &log.cursor("").expect("it is there"), log.durable());
    log.cursor(&"0000".repeat(500)).expect("it is there").remove().expect("room");
    log.cursor(&"9999".repeat(500)).expect("room again");
    log.sync().expect("durable");
    drop(log);
    let (log, recovery, _) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!((recovery.cursors().count(), log.cursors().len()), (made + 4, made + 4));
}

#[test]
fn threads_that_advance_trim_and_append_never_lose_a_record_that_a_cursor_has_not_passed() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let (sender, receiver) = mpsc::channel::<Range<Lsn>>();
    let cursor = log.cursor("mailer").expect("room");
    thread::scope(|scope| {
        scope.spawn(|| {
            let log = log.clone();
            for n in 0..600 {
                sender.send(log.append(1, &payload(n, 3000)).expect("room")).expect("read");
            }
            drop(sender);
        });
        scope.spawn(|| {
            let mut bytes = Vec::new();
            for record in receiver {
                log.read(record.start, &mut bytes).expect("not passed yet");
                cursor.advance(record.end).expect("room");
            }
        });
        scope.spawn(|| {
            for n in 0..200 {
                let trimmed = log.trim(log.end()).expect("trimmed");
                assert!(trimmed.first <= cursor.position());
                // Made and removed while the log is trimmed.
                let new = log.cursor(&format!("new {}", n % 3)).expect("room");
                assert!(new.position() >= trimmed.first && new.position() >= log.first());
                new.remove().expect("room");
                log.sync().expect("durable");
            }
        });
    });
    log.sync().expect("durable");
    log.trim(log.end()).expect("trimmed");
    let report = recovered(&directory, 1);
    assert!(report.first > Lsn::START && report.cursor("mailer") == Some(cursor.position()), "{report:?}");
}

#[test]
fn a_trim_makes_the_room_that_a_full_disk_has_advances_wait_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let cursor = log.cursor("mailer").expect("room");
    let records = fill(&log, 3);
    durable(&log, &cursor, records[50].end);
    let next = log.segments().last().expect("one").range.start.get() + SEGMENT;
    // In the place of segments to come, as unusable as a full disk.
    let obstacles: Vec<_> = (0..4).map(|n| folder.path().join(format!("{:020}.seg", next + n * SEGMENT))).collect();
    let obstacles: Vec<_> = obstacles.into_iter().filter(|path| fs::create_dir(path).is_ok()).collect();
    let (sender, receiver) = mpsc::channel();
    let advancing = {
        let (cursor, to) = (cursor.clone(), records[50].end);
        thread::spawn(move || {
            // Until the ring is full, and then it waits.
            for n in 0..30_000 {
                sender.send(n).expect("read");
                cursor.advance(to).expect("room, in the end");
            }
        })
    };
    while receiver.recv_timeout(Duration::from_millis(500)).is_ok() {}
    assert!(!advancing.is_finished(), "the ring was never full");
    let (done, trimmed) = mpsc::channel();
    let trimming = log.clone();
    thread::spawn(move || done.send(trimming.trim(trimming.end()).map(|trimmed| trimmed.first)));
    let trimmed = trimmed.recv_timeout(LIMIT).expect("the trim does not wait for those that wait for room");
    assert_eq!(trimmed.expect("trimmed"), records[50].end);
    obstacles.iter().for_each(|path| fs::remove_dir(path).expect("removed"));
    // The rest needs no more than the ring has.
    while receiver.recv_timeout(LIMIT).is_ok() {}
    advancing.join().expect("no panic");
    assert_eq!(cursor.position(), records[50].end);
}

#[test]
fn cursors_of_a_log_that_is_closed_or_has_failed_say_so() {
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let at = fill(&log, 1)[2].end;
    let cursor = log.cursor("mailer").expect("room");
    log.close().expect("closed");
    assert!(matches!(cursor.advance(at), Err(Error::Closed)));
    assert!(matches!(log.cursor("new"), Err(Error::Closed)));
    assert_eq!((cursor.position(), log.cursors().len()), (Lsn::START, 1));
    assert!(matches!(cursor.remove(), Err(Error::Closed)));

    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let cursor = log.cursor("mailer").expect("room");
    let end = log.sync().expect("durable");
    directory.device().fail_write(0, 5);
    assert!(matches!(log.commit(1, &[]), Err(Error::Poisoned(_))));
    assert!(matches!(cursor.advance(end), Err(Error::Poisoned(_))));
    assert!(matches!(log.cursor("new"), Err(Error::Poisoned(_))));
    assert!(matches!(cursor.clone().remove(), Err(Error::Poisoned(_))));
    assert_eq!((cursor.position(), recovered(&directory, 1).cursor("mailer")), (Lsn::START, Some(Lsn::START)));
}

#[test]
fn in_a_forked_child_cursors_say_so_and_dropping_them_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let cursor = log.cursor("mailer").expect("room");
    Child::fork(|| {
        let cursor = cursor.clone();
        assert!(matches!(cursor.advance(Lsn::START), Err(Error::Forked)));
        assert_eq!(cursor.position(), Lsn::START);
        assert!(matches!(cursor.clone().remove(), Err(Error::Forked)));
        assert!(matches!(log.cursor("mailer"), Err(Error::Forked)) && log.cursors().is_empty());
        drop(cursor);
    })
    .succeeds();
    cursor.advance(log.end()).expect("the parent's own");
}

#[test]
fn a_cursor_holds_its_share_of_the_log_and_goes_to_any_thread() {
    fn anywhere<T: Send + Sync + 'static>(of: T) -> T {
        of
    }
    let directory = MemoryDirectory::new();
    let log = new(&directory);
    let cursor = anywhere(log.cursor("mailer").expect("room"));
    let end = log.append(1, b"record").expect("room").end;
    drop(log);
    let moved = thread::spawn(move || cursor.advance(end).map(drop));
    moved.join().expect("no panic").expect("the log is open");
    let (_, recovery, records) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!((recovery.cursor("mailer"), records.len()), (Some(end), 1));
}
