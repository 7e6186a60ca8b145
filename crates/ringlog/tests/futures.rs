//! The log's futures, under a runtime and by hand.

mod common;

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::thread;

use common::open::{payload, reopen, small};
use ring_testing::Child;
use ringlog::directory::MemoryDirectory;
use ringlog::{Error, Lsn, Upto};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(3).enable_time().build().expect("a runtime")
}

fn poll<F: Future>(future: core::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn records_of_tasks_and_threads_come_back_also_those_longer_than_a_buffer() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    directory.device().shuffle(1);
    let len = |n: usize| if n.is_multiple_of(5) { 20_000 + n } else { n * 37 % 900 };
    let mut expected = BTreeMap::new();
    let runtime = runtime();
    let tasks: Vec<_> = (0..8_usize)
        .map(|task| {
            let log = log.clone();
            runtime.spawn(async move {
                let (mut writer, mut sent) = (log.writer(), Vec::new());
                for n in (task * 100..).take(30) {
                    let bytes = payload(n, len(n));
                    let at = match n % 4 {
                        0 => log.append_async(n as u8, bytes.clone()).await?.start,
                        1 => log.commit_async(n as u8, bytes.clone()).await?.lsn(),
                        2 => writer.append_async(n as u8, &bytes).await?.start,
                        _ => writer.commit_async(n as u8, &bytes).await?.lsn(),
                    };
                    sent.push((at, n as u8, bytes));
                }
                assert!(log.sync_async().await? > sent[29].0);
                Ok::<_, Error>(sent)
            })
        })
        .collect();
    let threads: Vec<_> = (0..2_usize)
        .map(|thread| {
            let log = log.clone();
            thread::spawn(move || {
                let append = |n: usize| {
                    let bytes = payload(n, len(n));
                    (log.append(n as u8, &bytes).expect("room").start, n as u8, bytes)
                };
                (2000 + thread * 100..).take(30).map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    for task in tasks {
        let sent = runtime.block_on(task).expect("no panic").expect("no failure");
        expected.extend(sent.into_iter().map(|(at, kind, bytes)| (at, (kind, bytes))));
    }
    for thread in threads {
        let sent = thread.join().expect("no panic");
        expected.extend(sent.into_iter().map(|(at, kind, bytes)| (at, (kind, bytes))));
    }
    assert!(log.settled() > *expected.last_key_value().expect("many").0);
    drop(log);
    let (_, _, records) = reopen(small().directory(&directory), "".as_ref());
    let found: BTreeMap<_, _> = records.into_iter().map(|(at, kind, bytes)| (at, (kind, bytes))).collect();
    assert_eq!(found.len(), 300);
    assert!(found == expected);
}

#[test]
fn a_long_record_whose_future_is_dropped_is_none_and_stands_in_no_other_ones_way() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let device = directory.device();
    device.hold();
    {
        // Room for a part of it.
        let mut dropped = pin!(log.append_async(1, payload(1, 90_000)));
        assert!(poll(dropped.as_mut()).is_pending());
        let mut second = pin!(log.append_async(2, payload(2, 90_000)));
        assert!(poll(second.as_mut()).is_pending());
        device.release_all();
        assert!(poll(second.as_mut()).is_pending(), "it is not its turn");
    }
    log.append(3, &payload(3, 30_000)).expect("it is its turn");
    log.close().expect("closed");
    drop(log);
    let (_, _, records) = reopen(small().directory(&directory), "".as_ref());
    assert_eq!(records.iter().map(|record| record.1).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_commit_of_a_task_holds_settled_back_until_it_is_applied_or_given_up() {
    let directory = MemoryDirectory::new();
    let (log, _) = small().directory(&directory).open("").expect("a log");
    let device = directory.device();
    drop(runtime().block_on(log.commit_async(0, vec![1])).expect("durable"));
    let before = log.end();
    device.hold();
    let mut writer = log.writer();
    let given_up = {
        let mut commit = Box::pin(writer.commit_async(0, &[2]));
        assert!(poll(commit.as_mut()).is_pending());
        commit
    };
    let mut commit = Box::pin(log.commit_async(0, vec![3]));
    assert!(poll(commit.as_mut()).is_pending());
    device.release_all();
    let done = runtime().block_on(commit).expect("durable");
    assert!(log.durable() >= done.end());
    let held = log.settled();
    assert!(before <= held && held < done.lsn(), "the first one may still be applied");
    drop(given_up);
    let end = done.end();
    assert!(held < log.settled() && log.settled() <= done.lsn());
    drop(done);
    assert!(log.settled() >= end);
}

#[test]
fn futures_of_what_will_not_be_are_errors() {
    let runtime = runtime();
    let (log, _) = small().in_memory().max_record(50_000).open("").expect("a log");
    let long = runtime.block_on(log.append_async(0, vec![0; 50_001]));
    assert!(matches!(long, Err(Error::TooLarge { len: 50_001, max: 50_000 })));
    let beyond = Lsn::new(log.end().get() + 1);
    assert!(matches!(runtime.block_on(log.wait_durable_async(beyond)), Err(Error::NotAppended { .. })));
    let late = log.append_async(0, vec![1]);
    log.close().expect("closed");
    assert!(matches!(runtime.block_on(late), Err(Error::Closed)));
    assert!(matches!(runtime.block_on(log.commit_async(0, vec![1])).map(drop), Err(Error::Closed)));
}

#[test]
fn tasks_follow_what_is_durable_and_what_is_staged_beside_tasks_that_append() {
    const EACH: u64 = 400;
    let runtime = runtime();
    let log = small().in_memory().open("").expect("a log").0;
    let followers = [Upto::Durable, Upto::Staged, Upto::Durable].map(|upto| {
        let (mut follow, log) = (log.follow(Lsn::START, upto), log.clone());
        runtime.spawn(async move {
            let mut counts = [0; 4];
            loop {
                // A future that is dropped has taken nothing.
                let next = tokio::time::timeout(Duration::from_micros(300), follow.next_async()).await;
                let Ok(record) = next else { continue };
                let Some(record) = record.expect("a working log") else { return counts };
                assert!(upto == Upto::Staged || record.end <= log.durable());
                let (n, count) = record.payload.split_first_chunk::<8>().expect("a number");
                let n = u64::from_le_bytes(*n) as usize;
                assert_eq!(u64::from_le_bytes(*count.first_chunk().expect("a count")), counts[n]);
                counts[n] += 1;
            }
        })
    });
    let producers = [0, 1, 2, 3].map(|n: u64| {
        let (log, mut writer) = (log.clone(), log.writer());
        runtime.spawn(async move {
            for count in 0..EACH {
                let mut bytes = [n.to_le_bytes(), count.to_le_bytes()].concat();
                bytes.extend(payload(count as usize, (count * 7 % 300) as usize));
                match n {
                    0 => drop(writer.append_async(1, &bytes).await.expect("room")),
                    1 if count % 20 == 0 => drop(log.commit_async(1, bytes).await.expect("room")),
                    _ => drop(log.append_async(1, bytes).await.expect("room")),
                }
            }
        })
    });
    runtime.block_on(async {
        for producer in producers {
            producer.await.expect("no panic");
        }
        log.close().expect("a working device");
        for follower in followers {
            assert_eq!(follower.await.expect("no panic"), [EACH; 4]);
        }
    });
}

#[test]
fn a_record_is_read_by_a_thread_of_the_log_and_a_stream_ends_with_it() {
    use tokio_stream::StreamExt;

    let runtime = runtime();
    let log = small().in_memory().open("").expect("a log").0;
    let ats: Vec<_> = (0..200).map(|n| log.append(n as u8, &payload(n, 700)).expect("room")).collect();
    for n in [0, 7, 150] {
        let read = runtime.block_on(log.read_async(ats[n].start)).expect("a record");
        assert_eq!(read, (n as u8, payload(n, 700)));
    }
    assert!(matches!(runtime.block_on(log.read_async(Lsn::new(ats[3].start.get() + 8))), Err(Error::NotARecord(_))));
    let stream = log.follow(Lsn::START, Upto::Durable).into_stream();
    log.close().expect("a working device");
    let records: Vec<_> = runtime.block_on(stream.map(|record| record.expect("a record")).collect());
    assert_eq!(
        records.iter().map(|record| record.lsn).collect::<Vec<_>>(),
        ats.iter().map(|at| at.start).collect::<Vec<_>>()
    );
    assert!(records.iter().enumerate().all(|(n, record)| record.payload == payload(n, 700)));
}

#[test]
fn a_future_that_was_given_up_while_a_file_is_read_leaves_the_follower_where_it_was() {
    let log = small().in_memory().open("").expect("a log").0;
    let ats: Vec<_> = (0..400).map(|n| log.append(n as u8, &payload(n, 700)).expect("room")).collect();
    log.sync().expect("a working device");
    let mut follow = log.follow(Lsn::START, Upto::Durable);
    for at in &ats {
        // Each is given up after one look, which may have begun to read.
        assert!(follow.position() <= at.start);
        let looked = {
            let mut future = pin!(follow.next_async());
            match poll(future.as_mut()) {
                Poll::Ready(record) => Some(record.expect("a log").map(|record| record.lsn)),
                Poll::Pending => None,
            }
        };
        let lsn = match looked {
            Some(lsn) => lsn,
            None => follow.next().expect("a log").map(|record| record.lsn),
        };
        assert_eq!(lsn, Some(at.start));
    }
}

#[test]
fn in_a_forked_child_a_follower_whose_file_another_thread_reads_says_so() {
    let log = small().in_memory().open("").expect("a log").0;
    for n in 0..400 {
        log.append(n as u8, &payload(n, 700)).expect("room");
    }
    log.sync().expect("a working device");
    let mut follow = log.follow(Lsn::START, Upto::Durable);
    // A thread of the parent has what follows.
    assert!(poll(pin!(follow.next_async())).is_pending());
    Child::fork(|| {
        assert!(matches!(poll(pin!(follow.next_async())), Poll::Ready(Err(Error::Forked))));
        assert!(matches!(follow.next(), Err(Error::Forked)));
        assert_eq!(follow.position(), Lsn::START);
    })
    .succeeds();
    assert!(follow.next().expect("the parent's own").is_some());
}

#[test]
fn long_records_whose_futures_were_given_up_take_no_room_from_others_and_hold_no_trim() {
    let directory = MemoryDirectory::new();
    let options = || small().max_record(60_000).directory(&directory);
    let (log, _) = options().open("").expect("a log");
    let mut follow = log.follow(Lsn::START, Upto::Durable);
    // Each is given up when its first parts are placed, and the ring has no room for the others.
    for n in 0..5 {
        directory.device().hold();
        let mut future = Box::pin(log.append_async(1, payload(n, 58_000)));
        let _ = poll(future.as_mut());
        drop(future);
        directory.device().release_all();
        log.sync().expect("a working device");
    }
    let long = log.append(2, &payload(9, 50_000)).expect("room");
    let last = log.append(3, &payload(1, 100_000 / 2)).expect("room");
    log.sync().expect("a working device");
    for at in [&long, &last] {
        while follow.next().expect("a log").expect("the log is open").lsn != at.start {}
    }
    let first = log.trim(log.durable()).expect("a working device").first;
    assert!(first > long.start, "{first:?}");
    log.close().expect("a working device");
    drop((log, follow));
    let (_, _, records) = reopen(options(), "".as_ref());
    assert_eq!(records.last().map(|(lsn, ..)| *lsn), Some(last.start));
}
