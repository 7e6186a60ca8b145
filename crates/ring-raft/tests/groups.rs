//! The log of a group without a consensus engine: what comes back, what is refused, and what goes wrong.

use core::time::Duration;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use ring_raft::{EntryId, Error, GroupLog, Options, RaftLogs};
use ringlog::directory::MemoryDirectory;
use ringlog::recovery::OnDamage;
use ringlog::{Log, Lsn};

const SEGMENT: u64 = 65_536;
const BLOCK: usize = 4096;

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

fn small() -> ringlog::Options {
    Log::options().segment_size(SEGMENT).ring(3, 2 * BLOCK)
}

fn open(directory: &MemoryDirectory) -> RaftLogs {
    let (logs, recovery) = RaftLogs::open_blocking("", small().directory(directory)).expect("logs");
    assert!(recovery.lost.is_empty(), "{recovery:?}");
    logs
}

fn append(group: &GroupLog, indexes: core::ops::Range<u64>, leader: &[u8], len: usize) -> Result<Lsn, Error> {
    let mut batch = group.batch()?;
    for index in indexes {
        batch.push(index, leader, len, |bytes| {
            bytes.fill(index as u8);
            Ok(())
        })?;
    }
    Ok(batch.finish())
}

/// The indexes, each with the length and the first byte of its data.
fn entries(group: &GroupLog) -> Vec<(u64, usize, u8)> {
    let mut entries = Vec::new();
    let each = |index, data: &[u8]| {
        entries.push((index, data.len(), data.first().copied().unwrap_or(0)));
        Ok(())
    };
    group.read(0..u64::MAX, usize::MAX, each).expect("entries");
    entries
}

fn id(index: u64, leader: &[u8]) -> EntryId {
    EntryId { index, leader: leader.into() }
}

#[test]
fn groups_of_one_log_come_back_from_disk_each_with_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raft");
    let (logs, recovery) = RaftLogs::open_blocking(&path, small()).expect("logs");
    assert_eq!((recovery.groups, recovery.entries), (0, 0));
    for number in [3, 1, 2] {
        let group = logs.group_log(number);
        append(&group, 0..5, b"a", 10 * number as usize).expect("room");
        append(&group, 5..7, b"b", 20_000).expect("room");
        group.save_vote(&[number as u8]).expect("room");
        group.save_committed(Some(id(3, b"a"))).expect("room");
        group.truncate(6).expect("room");
        group.purge(id(number, b"a")).expect("room");
    }
    assert_eq!(logs.groups(), [1, 2, 3]);
    let before: Vec<_> = (1..4).map(|number| entries(&logs.group_log(number))).collect();
    logs.close().expect("closed");
    drop(logs);
    let (logs, recovery) = RaftLogs::open_blocking(&path, small()).expect("logs");
    assert_eq!((recovery.groups, recovery.entries, logs.groups()), (3, 4 + 3 + 2, vec![1, 2, 3]));
    for number in 1..4 {
        let group = logs.group_log(number);
        assert_eq!(entries(&group), before[number as usize - 1]);
        assert_eq!(entries(&group).first().map(|entry| entry.0), Some(number + 1));
        assert_eq!(group.vote().expect("known"), Some(vec![number as u8]));
        assert_eq!(group.committed().expect("known"), Some(id(3, b"a")));
        assert_eq!(group.purged().expect("known"), Some(id(number, b"a")));
        assert_eq!(group.last().expect("known"), Some(id(5, b"b")));
        assert_eq!(group.leaders(0..99).expect("known"), [id(4, b"a"), id(5, b"b")]);
    }
}

#[test]
fn what_no_log_can_have_is_refused_and_changes_nothing() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    assert!(matches!(logs.stats(1), Err(Error::UnknownGroup(1))));
    assert!(matches!(logs.remove(1), Err(Error::UnknownGroup(1))));
    let group = logs.group_log(1);
    assert!(matches!(logs.stats(1), Err(Error::UnknownGroup(1))), "it has no record");
    append(&group, 1..6, b"a", 10).expect("room");
    group.save_committed(Some(id(3, b"a"))).expect("room");
    group.purge(id(1, b"a")).expect("room");
    let (before, end) = (entries(&group), logs.log().end());
    for index in [0, 1, 5, 7, u64::MAX] {
        let refused = append(&group, index..index.saturating_add(1).max(index), b"a", 1);
        if index < u64::MAX {
            assert!(matches!(refused, Err(Error::NotConsecutive { group: 1, expected: 6, .. })), "{refused:?}");
        }
    }
    assert!(matches!(group.truncate(3), Err(Error::Committed { from: 3, committed: 3, .. })));
    assert!(matches!(group.truncate(1), Err(Error::Purged { from: 1, purged: 1, .. })));
    group.truncate(6).expect("nothing to be done");
    group.truncate(99).expect("nothing to be done");
    group.purge(id(0, b"a")).expect("nothing to be done");
    group.save_committed(Some(id(3, b"a"))).expect("nothing to be done");
    let huge = group.batch().expect("a batch").push(6, b"a", usize::MAX, |_| Ok(()));
    assert!(matches!(huge, Err(Error::Encode { .. })), "{huge:?}");
    let long = group.batch().expect("a batch").push(6, b"a", 100 << 20, |_| Ok(()));
    assert!(matches!(long, Err(Error::Log(ringlog::Error::TooLarge { .. }))), "{long:?}");
    assert_eq!((entries(&group), logs.log().end()), (before, end));
    let errors = [Error::UnknownGroup(7), Error::NotConsecutive { group: 1, index: 9, expected: 6 }];
    assert_eq!(
        errors.map(|error| io::Error::from(error).kind()),
        [io::ErrorKind::NotFound, io::ErrorKind::InvalidInput]
    );
}

#[test]
fn a_purge_beyond_the_last_entry_has_the_group_go_on_behind_a_snapshot() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let group = logs.group_log(1);
    append(&group, 0..3, b"a", 10).expect("room");
    group.purge(id(50, b"z")).expect("room");
    assert_eq!((entries(&group), group.last().expect("known")), (vec![], Some(id(50, b"z"))));
    assert!(matches!(append(&group, 52..53, b"z", 1), Err(Error::NotConsecutive { expected: 51, .. })));
    append(&group, 48..53, b"z", 10).expect("room");
    assert!(matches!(append(&group, 48..49, b"z", 1), Err(Error::NotConsecutive { expected: 53, .. })));
    drop((group, logs));
    let group = open(&directory).group_log(1);
    assert_eq!(entries(&group), [(51, 10, 51), (52, 10, 52)]);
}

#[test]
fn an_entry_that_fails_or_panics_while_it_is_encoded_takes_its_batch_back() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let group = logs.group_log(1);
    append(&group, 0..3, b"a", 10).expect("room");
    for len in [10, 30_000] {
        let fail = |group: &GroupLog| -> Result<(), Error> {
            let mut batch = group.batch()?;
            batch.push(3, b"b", len, |_| Ok(()))?;
            batch.push(4, b"b", len, |bytes| {
                bytes[0] = 1;
                Err(io::ErrorKind::InvalidData.into())
            })
        };
        let error = fail(&group).expect_err("it fails");
        assert!(matches!(error, Error::Encode { group: 1, index: 4, .. }), "{error:?}");
        let panicking = std::thread::scope(|scope| {
            let panic = || {
                let mut batch = group.batch().expect("a batch");
                batch.push(3, b"b", len, |_| Ok(())).expect("room");
                let _panics = batch.push(4, b"b", len, |_| panic!("a codec panics on purpose"));
            };
            scope.spawn(panic).join()
        });
        assert!(panicking.is_err());
        assert_eq!(entries(&group).len(), 3);
    }
    append(&group, 3..5, b"c", 7).expect("the log goes on");
    let before = entries(&group);
    drop((group, logs));
    assert_eq!(entries(&open(&directory).group_log(1)), before);
}

#[test]
fn the_same_vote_is_written_once() {
    let logs = open(&MemoryDirectory::new());
    let group = logs.group_log(1);
    let end = group.save_vote(b"one").expect("room");
    let (again, tail) = (group.save_vote(b"one").expect("room"), logs.log().end());
    assert_eq!((again, logs.log().end()), (end, tail));
    logs.log().wait_durable(again).expect("durable");
    assert!(group.save_vote(b"two").expect("room") > end);
}

#[test]
fn recent_entries_are_read_without_a_file_and_older_ones_with_one() {
    let directory = MemoryDirectory::new();
    let options = Options::new(small().directory(&directory)).cache(20 * 1000);
    let (logs, _) = RaftLogs::open_blocking("", options).expect("logs");
    let (group, other) = (logs.group_log(1), logs.group_log(2));
    append(&other, 0..1, b"a", 1).expect("room");
    for index in 0..100 {
        append(&group, index..index + 1, b"a", 1000).expect("room");
    }
    let read = |range| {
        let before = logs.stats(1).expect("known");
        group.read(range, usize::MAX, |_, _| Ok(())).expect("entries");
        let after = logs.stats(1).expect("known");
        (after.read - before.read, after.read_from_file - before.read_from_file)
    };
    assert_eq!(read(90..100), (10, 0));
    assert_eq!(read(0..95), (95, 90));
    assert_eq!(read(3..4), (1, 1));
    let stats = logs.stats(1).expect("known");
    assert_eq!(
        (stats.entries, stats.cached_bytes, stats.appended, stats.appended_bytes),
        (0..100, 10_000, 100, 100_000)
    );
    let mut seen = Vec::new();
    let few = group.read(0..100, 2500, |index, data| {
        seen.push((index, data.len(), data[0]));
        Ok(())
    });
    few.expect("entries");
    assert_eq!(seen, [(0, 1000, 0), (1, 1000, 1)]);
    // None is kept, and what is read is made durable.
    let (logs, _) = RaftLogs::open_blocking("", Options::new(small().in_memory()).cache(0)).expect("logs");
    let group = logs.group_log(1);
    append(&group, 0..10, b"a", 10_000).expect("room");
    assert_eq!(entries(&group).len(), 10);
    assert_eq!(logs.stats(1).expect("known").cached_bytes, 0);
}

#[test]
fn segments_that_all_groups_have_purged_go_and_votes_stay() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let idle = logs.group_log(9);
    idle.save_vote(b"of long ago").expect("room");
    idle.purge(id(5, b"a")).expect("room");
    let groups = [logs.group_log(1), logs.group_log(2)];
    for index in 0..300 {
        for group in &groups {
            append(group, index..index + 1, b"a", 1000).expect("room");
        }
    }
    assert_eq!(logs.trim().expect("trimmed").bytes, 0, "no group has purged");
    groups[0].purge(id(280, b"a")).expect("room");
    assert_eq!(logs.trim().expect("trimmed").bytes, 0, "one has not");
    groups[1].purge(id(250, b"a")).expect("room");
    let trimmed = logs.trim().expect("trimmed");
    assert!(trimmed.bytes >= 7 * SEGMENT, "{trimmed:?}");
    assert_eq!(logs.log().first(), trimmed.first);
    for image in [directory.power_cut(3), directory.kill(4)] {
        let logs = open(&image);
        assert_eq!(logs.group_log(9).vote().expect("known").as_deref(), Some(&b"of long ago"[..]));
        assert_eq!(logs.group_log(9).purged().expect("known"), Some(id(5, b"a")));
        assert_eq!(logs.group_log(1).purged().expect("known"), Some(id(280, b"a")));
        assert_eq!(entries(&logs.group_log(2)).first(), Some(&(251, 1000, 251)));
        append(&logs.group_log(9), 6..7, b"b", 9).expect("it goes on");
    }
}

#[test]
fn a_group_that_is_removed_is_gone_and_may_begin_anew() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let (old, other) = (logs.group_log(1), logs.group_log(2));
    append(&old, 0..50, b"a", 5000).expect("room");
    old.save_vote(b"old").expect("room");
    append(&other, 0..1, b"a", 5).expect("room");
    logs.remove(1).expect("removed");
    assert!(matches!(old.vote(), Err(Error::UnknownGroup(1))));
    assert!(matches!(append(&old, 50..51, b"a", 1), Err(Error::UnknownGroup(1))));
    assert!(matches!(logs.remove(1), Err(Error::UnknownGroup(1))));
    other.purge(id(0, b"a")).expect("room");
    assert!(logs.trim().expect("trimmed").bytes > 0, "it holds nothing");
    let new = logs.group_log(1);
    assert_eq!((new.vote().expect("known"), new.last().expect("known")), (None, None));
    append(&new, 7..9, b"b", 3).expect("room");
    drop((old, new, other, logs));
    let logs = open(&directory);
    assert_eq!(entries(&logs.group_log(1)), [(7, 3, 7), (8, 3, 8)]);
    assert_eq!(logs.groups(), [1, 2]);
}

#[test]
fn a_log_of_another_program_is_refused() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let at = log.append(1, b"not of a group").expect("room");
    drop(log);
    match RaftLogs::open_blocking("", small().directory(&directory)) {
        Err(Error::Foreign(found)) => assert_eq!(found, at.start),
        other => panic!("{other:?}"),
    }
}

/// What callbacks were given, by the number of the append.
type Calls = Receiver<(u64, bool)>;

fn append_and_call(group: &GroupLog, indexes: core::ops::Range<u64>, len: usize) -> Calls {
    let (called, calls) = channel();
    for index in indexes {
        let end = append(group, index..index + 1, b"a", len).expect("room");
        let called = called.clone();
        group.on_durable(end, move |outcome| called.send((index, outcome.is_ok())).expect("heard"));
    }
    calls
}

fn all(calls: &Calls) -> Vec<(u64, bool)> {
    let next = || match calls.recv_timeout(LIMIT) {
        Ok(call) => Some(call),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("a callback is not made"),
    };
    core::iter::from_fn(next).collect()
}

#[test]
fn callbacks_are_made_once_each_in_order_and_a_panic_ends_none_of_the_others() {
    let logs = open(&MemoryDirectory::new());
    let (one, two) = (logs.group_log(1), logs.group_log(2));
    let end = append(&two, 0..1, b"a", 10).expect("room");
    two.on_durable(end, |_| panic!("a callback panics on purpose"));
    let calls = append_and_call(&one, 0..200, 500);
    assert_eq!(all(&calls), (0..200).map(|index| (index, true)).collect::<Vec<_>>());
}

#[test]
fn callbacks_that_are_pending_when_the_device_fails_get_the_error_and_the_log_takes_nothing() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let group = logs.group_log(1);
    logs.log().wait_durable(append(&group, 0..1, b"a", 5).expect("room")).expect("durable");
    directory.device().hold();
    let calls = append_and_call(&group, 1..6, 100);
    directory.device().fail_write(0, 5);
    directory.device().release_all();
    assert_eq!(all(&calls), (1..6).map(|index| (index, false)).collect::<Vec<_>>());
    let error = append(&group, 6..7, b"a", 5).expect_err("poisoned");
    assert!(matches!(error, Error::Log(ringlog::Error::Poisoned(_))), "{error:?}");
    let _may_be_refused = logs.close();
    drop((group, logs));
    let group = open(&directory.power_cut(1)).group_log(1);
    assert_eq!(entries(&group).first(), Some(&(0, 5, 0)), "what was acknowledged");
}

#[test]
fn callbacks_that_are_pending_when_the_logs_are_dropped_are_made_once() {
    for seed in 0..20 {
        let directory = MemoryDirectory::new();
        let logs = open(&directory);
        directory.device().shuffle(seed);
        let calls = append_and_call(&logs.group_log(1), 0..20, 700);
        drop(logs);
        let calls = all(&calls);
        assert_eq!(calls, (0..20).map(|index| (index, true)).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_disk_is_reported_and_loses_nothing_and_with_room_the_log_goes_on() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let group = logs.group_log(1);
    append(&group, 0..1, b"a", 1000).expect("room");
    logs.log().sync().expect("durable");
    directory.stop_after(0);
    let full = (1..10_000).find_map(|index| append(&group, index..index + 1, b"a", 1000).err().map(|e| (index, e)));
    let (index, error) = full.expect("the disk is full");
    assert!(matches!(error, Error::Log(ringlog::Error::NoSegment(_))), "{error:?}");
    assert!(index > 10 && index < 200, "{index}");
    let read = entries(&group).len() as u64;
    assert_eq!(read, index, "what is staged can be read");
    directory.stop_after(u64::MAX);
    logs.log().sync().expect("room again");
    append(&group, index..index + 50, b"b", 1000).expect("it goes on");
    drop((group, logs));
    assert_eq!(entries(&open(&directory).group_log(1)).len() as u64, index + 50);
}

/// Damages the segment in which a place is.
fn damage(directory: &MemoryDirectory, at: Lsn) {
    let name = format!("{:020}.seg", at.get() / SEGMENT * SEGMENT);
    let mut bytes = directory.contents()[&name].to_vec();
    let offset = BLOCK + (at.get() % SEGMENT) as usize;
    bytes[offset] ^= 1;
    directory.put(&name, bytes);
}

#[test]
fn a_damaged_segment_costs_the_groups_that_it_held_their_entries_and_no_other_group_anything() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let [whole, harmed, tail] = [1, 2, 3].map(|id| logs.group_log(id));
    for group in [&whole, &harmed, &tail] {
        append(group, 0..3, b"a", 100).expect("room");
        group.save_vote(b"vote").expect("room");
    }
    let before = logs.log().roll().expect("a segment");
    // Each a batch of its own.
    let ends: Vec<_> = (3..8)
        .map(|index| {
            let end = append(&harmed, index..index + 1, b"a", 3000).expect("room");
            logs.log().wait_durable(end).expect("durable");
            end
        })
        .collect();
    logs.log().roll().expect("a segment");
    append(&whole, 3..4, b"a", 100).expect("room");
    append(&harmed, 8..9, b"a", 100).expect("room");
    append(&tail, 3..4, b"a", 100).expect("room");
    assert!(ends[0] > before);
    drop((whole, harmed, tail, logs));

    damage(&directory, Lsn::new(ends[1].get() - 10));
    let refused = RaftLogs::open_blocking("", small().directory(&directory));
    assert!(matches!(refused, Err(Error::Open(ringlog::OpenError::Damaged(_)))), "{refused:?}");
    let skip = || small().directory(&directory).on_damage(OnDamage::Skip);
    for opening in 0..2 {
        let (logs, recovery) = RaftLogs::open_blocking("", skip()).expect("logs");
        assert_eq!(recovery.lost.keys().collect::<Vec<_>>(), [&2], "{opening}: {recovery:?}");
        let lost = &recovery.lost[&2];
        assert!(lost.indexes.contains(&4) && !lost.indexes.contains(&2) && lost.indexes.end <= 8, "{lost:?}");
        assert!(!lost.vote);
        let harmed = logs.group_log(2);
        for error in [
            harmed.read(0..9, 9, |_, _| Ok(())).expect_err("lost"),
            harmed.save_vote(b"another").expect_err("lost"),
            append(&harmed, 9..10, b"a", 1).expect_err("lost"),
        ] {
            assert!(matches!(&error, Error::Lost { group: 2, lost: named } if named == lost), "{error:?}");
            assert!(error.to_string().contains("group 2 has lost"), "{error}");
        }
        for (number, group) in [1, 3].map(|number| (number, logs.group_log(number))) {
            assert_eq!(group.vote().expect("known").as_deref(), Some(&b"vote"[..]));
            let next = 4 + opening;
            assert_eq!(entries(&group).len() as u64, next, "group {number}");
            append(&group, next..next + 1, b"b", 10).expect("it goes on");
        }
        assert_eq!(logs.stats(2).expect("known").lost.as_ref(), Some(lost));
    }
    let (logs, _) = RaftLogs::open_blocking("", skip()).expect("logs");
    logs.remove(2).expect("removed");
    append(&logs.group_log(2), 0..3, b"c", 10).expect("rebuilt");
    drop(logs);
    let (logs, recovery) = RaftLogs::open_blocking("", skip()).expect("logs");
    assert!(recovery.lost.is_empty(), "{recovery:?}");
    assert_eq!(entries(&logs.group_log(2)).len(), 3);
}

#[test]
fn a_group_that_is_silent_behind_the_damage_may_have_lost_its_vote() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let (silent, other) = (logs.group_log(1), logs.group_log(2));
    append(&silent, 0..3, b"a", 10).expect("room");
    append(&other, 0..3, b"a", 10).expect("room");
    logs.log().sync().expect("durable");
    let vote = silent.save_vote(b"lost").expect("room");
    logs.log().wait_durable(vote).expect("durable");
    append(&other, 3..4, b"a", 10).expect("room");
    drop((silent, other, logs));
    damage(&directory, Lsn::new(vote.get() - 4));
    let skip = small().directory(&directory).on_damage(OnDamage::Skip);
    let (logs, recovery) = RaftLogs::open_blocking("", skip).expect("logs");
    assert_eq!(recovery.lost.keys().collect::<Vec<_>>(), [&1], "{recovery:?}");
    assert!(recovery.lost[&1].vote);
    assert!(matches!(logs.group_log(1).vote(), Err(Error::Lost { .. })));
    assert_eq!(entries(&logs.group_log(2)).len(), 4);
}

#[test]
fn a_group_that_has_lost_its_first_entries_is_named() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let group = logs.group_log(1);
    logs.log().wait_durable(group.save_vote(b"vote").expect("room")).expect("durable");
    let end = append(&group, 0..4, b"a", 100).expect("room");
    logs.log().wait_durable(end).expect("durable");
    append(&group, 4..5, b"a", 100).expect("room");
    drop((group, logs));
    damage(&directory, Lsn::new(end.get() - 10));
    let skip = small().directory(&directory).on_damage(OnDamage::Skip);
    let (_, recovery) = RaftLogs::open_blocking("", skip).expect("logs");
    assert_eq!(recovery.lost.get(&1).map(|lost| (lost.indexes.clone(), lost.vote)), Some((0..4, false)));
}

#[test]
fn damage_that_is_set_aside_may_have_cost_each_group_something() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    let [one, two] = [1, 2].map(|id| logs.group_log(id));
    append(&one, 0..3, b"a", 10).expect("room");
    logs.log().wait_durable(append(&two, 0..3, b"a", 10).expect("room")).expect("durable");
    let vote = two.save_vote(b"set aside").expect("room");
    logs.log().wait_durable(vote).expect("durable");
    logs.log().wait_durable(append(&one, 3..4, b"a", 10).expect("room")).expect("durable");
    drop((one, two, logs));
    damage(&directory, Lsn::new(vote.get() - 4));
    let aside = small().directory(&directory).on_damage(OnDamage::SetAside);
    let (logs, recovery) = RaftLogs::open_blocking("", aside).expect("logs");
    assert_eq!(recovery.lost.keys().collect::<Vec<_>>(), [&1, &2], "{recovery:?}");
    assert!(recovery.lost.values().all(|lost| lost.vote && lost.indexes == (0..u64::MAX)), "{recovery:?}");
    assert!(matches!(logs.group_log(2).vote(), Err(Error::Lost { .. })));
}

#[test]
fn groups_are_written_by_threads_at_the_same_time() {
    let directory = MemoryDirectory::new();
    let logs = open(&directory);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let logs = &logs;
            scope.spawn(move || {
                let group = logs.group_log(number);
                for index in 0..200 {
                    let end = append(&group, index..index + 1, b"a", 300).expect("room");
                    if index % 20 == 19 {
                        logs.log().wait_durable(end).expect("durable");
                        group.purge(id(index - 10, b"a")).expect("room");
                        logs.trim().expect("trimmed");
                    }
                    assert_eq!(entries(&group).last(), Some(&(index, 300, index as u8)));
                }
            });
        }
    });
    assert!(logs.log().first() > Lsn::START);
    drop(logs);
    let logs = open(&directory);
    for number in 0..4 {
        let entries = entries(&logs.group_log(number));
        assert_eq!((entries.first(), entries.last()), (Some(&(190, 300, 190)), Some(&(199, 300, 199))));
    }
}
