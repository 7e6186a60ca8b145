//! Group commit: how many device writes commits take, which waits for whom, and what the policies change.

mod common;

use core::time::Duration;
use std::sync::{Arc, Barrier};
use std::thread;

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, CommitPolicy, MemoryDevice, QuikIO, RingError};
use common::{EIO, Holding, LIMIT, MOMENT, current, eventually, in_memory, options, pattern, stored, within};

fn with_policy(policy: CommitPolicy) -> (Arc<BufferRing>, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(8, 64 << 10) };
    (Arc::new(BufferRing::builder(options).commit_policy(policy).build().expect("valid options")), device)
}

/// How often the device had to flush its cache.
fn device_flushes(device: &MemoryDevice) -> usize {
    device.syncs() + device.durable_writes().len()
}

fn commit_in_a_thread(ring: &Arc<BufferRing>, id: u64) -> thread::JoinHandle<()> {
    let ring = Arc::clone(ring);
    thread::spawn(move || {
        let extent = ring.append_durable(&pattern(id, 100)).expect("a working device");
        assert!(ring.durable_watermark() >= extent.end());
    })
}

#[test]
fn a_lone_commit_is_one_durable_write() {
    within(LIMIT, || {
        let policies = [
            CommitPolicy::Immediate,
            CommitPolicy::MinBytes(1 << 20),
            CommitPolicy::MinInterval(Duration::from_micros(100)),
        ];
        for policy in policies {
            let (ring, device) = with_policy(policy);
            for id in 1..=20 {
                let extent = ring.append_durable(&pattern(id, 100)).expect("a working device");
                assert!(ring.durable_watermark() >= extent.end());
                assert!(device.synced().len() as u64 >= extent.end() && stored(&device, extent) == pattern(id, 100));
                assert_eq!((device.durable_writes().len() as u64, device.syncs()), (id, 0), "{policy:?}");
            }
            let stats = ring.stats();
            assert_eq!((stats.durable_writes, stats.syncs, stats.buffers_flushed), (20, 0, 20));
        }
    });
}

#[test]
fn a_thread_that_comes_while_batches_are_under_way_shares_the_next() {
    within(LIMIT, || {
        let (ring, device) = with_policy(CommitPolicy::Immediate);
        let holding = Holding::new(&device);
        let first = commit_in_a_thread(&ring, 0);
        eventually("the first batch is under way", || device.held() == 1);
        let others: Vec<_> = (1..=30).map(|id| commit_in_a_thread(&ring, id)).collect();
        eventually("a second batch is, and all have appended", || {
            device.held() == 2 && ring.stats().records_appended == 31
        });
        drop(holding);
        [first].into_iter().chain(others).for_each(|thread| thread.join().expect("no panic"));
        let flushes = device_flushes(&device);
        assert!(flushes <= 3, "{flushes} flushes of the device for 31 commits");
    });
}

#[test]
fn a_crowd_needs_few_flushes_of_the_device() {
    within(LIMIT, || {
        const THREADS: usize = 64;
        const COMMITS: u64 = 20;
        for policy in [CommitPolicy::Immediate, CommitPolicy::MinBytes(4096)] {
            let (ring, device) = with_policy(policy);
            // The device takes its time: as long as it takes all threads that can come to come.
            let holding = Holding::new(&device);
            let begin = Barrier::new(THREADS + 1);
            thread::scope(|scope| {
                for thread in 0..THREADS as u64 {
                    let (ring, begin) = (&ring, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        for commit in 0..COMMITS {
                            ring.append_durable(&pattern(thread * COMMITS + commit, 100)).expect("a working device");
                        }
                    });
                }
                begin.wait();
                let all = THREADS as u64 * COMMITS;
                let mut seen = 0;
                // The last batches may not have arrived at the device when all have appended: then they are not held
                // any more.
                while ring.stats().records_appended < all {
                    // Until no thread comes any more.
                    let appended = ring.stats().records_appended;
                    if appended == seen && device.held() > 0 {
                        device.release(0);
                    }
                    seen = appended;
                    thread::sleep(Duration::from_millis(1));
                }
                drop(holding);
            });
            let (flushes, commits) = (device_flushes(&device), THREADS * COMMITS as usize);
            assert!(flushes * 100 <= commits * 10, "{policy:?}: {flushes} flushes of the device for {commits} commits");
        }
    });
}

#[test]
fn with_min_bytes_a_second_batch_waits_until_it_has_them() {
    within(LIMIT, || {
        let (ring, device) = with_policy(CommitPolicy::MinBytes(10_000));
        let holding = Holding::new(&device);
        let first = commit_in_a_thread(&ring, 0);
        eventually("the first batch is under way", || device.held() == 1);
        let small: Vec<_> = (1..=5).map(|id| commit_in_a_thread(&ring, id)).collect();
        eventually("all have appended", || ring.stats().records_appended == 6);
        assert_eq!(ring.wait_durable_timeout(ring.tail(), MOMENT), Err(RingError::TimedOut));
        assert_eq!(device.held(), 1, "5 small ones are not enough");
        ring.append(&pattern(9, 10_000)).expect("room");
        let last = commit_in_a_thread(&ring, 6);
        eventually("the second batch is under way", || device.held() == 2);
        drop(holding);
        small.into_iter().chain([first, last]).for_each(|thread| thread.join().expect("no panic"));
        assert!(device_flushes(&device) <= 3);
    });
}

#[test]
fn with_min_interval_there_is_so_much_time_between_batches() {
    within(LIMIT, || {
        let (ring, device) = with_policy(CommitPolicy::MinInterval(2 * LIMIT));
        ring.append_durable(&pattern(0, 100)).expect("the first one waits for nothing");
        let extent = ring.append(&pattern(1, 100)).expect("room");
        let waiters = [(); 3].map(|()| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.wait_durable_timeout(extent.end(), MOMENT))
        });
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Err(RingError::TimedOut));
        }
        assert_eq!(device_flushes(&device), 1, "the interval is not over");
        // What is asked for in another way is not a commit.
        ring.flush(&current(&ring)).wait().expect("written");
        assert_eq!(device.writes().len(), 2);
        assert_eq!(ring.wait_durable(extent.end()), Ok(()), "a sync of what has been written");
    });
}

#[test]
fn a_failure_reaches_a_thread_that_waits_out_an_interval() {
    within(LIMIT, || {
        let (ring, device) = with_policy(CommitPolicy::MinInterval(2 * LIMIT));
        ring.append_durable(&pattern(0, 100)).expect("the first one waits for nothing");
        let waiter = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.append_durable(&pattern(1, 100)))
        };
        eventually("it has appended", || ring.stats().records_appended == 2);
        device.fail_write(0, EIO);
        assert!(ring.flush(&current(&ring)).wait().is_err());
        assert!(waiter.join().expect("no panic").is_err());
        assert!(ring.poisoned().is_some());
    });
}

#[test]
fn buffers_that_went_out_while_no_thread_waited_are_synced_once() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(8, 4096));
        for id in 0..4 {
            ring.append(&pattern(id, 4096)).expect("room");
        }
        ring.flush(&current(&ring)).wait().expect("written");
        assert_eq!(device_flushes(&device), 0);
        assert_eq!(ring.sync(), Ok(4 * 4096));
        assert_eq!((device.syncs(), device.durable_writes().len()), (1, 0));
    });
}

#[test]
fn a_time_that_is_over_hands_the_work_on() {
    within(LIMIT, || {
        for _ in 0..20 {
            let (ring, device) = with_policy(CommitPolicy::Immediate);
            let holding = Holding::new(&device);
            let extent = ring.append(&pattern(0, 100)).expect("room");
            let impatient = {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.wait_durable_timeout(extent.end(), MOMENT))
            };
            eventually("it leads", || device.held() == 1);
            let patient = commit_in_a_thread(&ring, 1);
            assert_eq!(impatient.join().expect("no panic"), Err(RingError::TimedOut));
            drop(holding);
            patient.join().expect("no panic");
            assert_eq!(ring.wait_durable(extent.end()), Ok(()), "what was asked for went on");
        }
    });
}

/// A ring on which a buffer has been written plainly, so that a sync is needed, and a device that holds what is
/// submitted.
fn in_need_of_a_sync() -> (BufferRing, MemoryDevice, Holding) {
    let (ring, device) = in_memory(options(8, 4096));
    ring.append(&pattern(0, 100)).expect("room");
    ring.flush(&current(&ring)).wait().expect("written");
    let holding = Holding::new(&device);
    (ring, device, holding)
}

/// Of the calls with a deadline each may be the one that has the sync made.
#[test]
fn a_sync_that_hangs_holds_no_thread_whose_time_is_over() {
    within(LIMIT, || {
        let calls: [fn(&BufferRing) -> Option<RingError>; 2] =
            [|ring| ring.sync_timeout(MOMENT).err(), |ring| ring.wait_durable_timeout(4096, MOMENT).err()];
        for call in calls {
            let (ring, device, holding) = in_need_of_a_sync();
            while device.syncs() == 0 {
                assert_eq!(call(&ring), Some(RingError::TimedOut));
            }
            for again in calls {
                assert_eq!(again(&ring), Some(RingError::TimedOut));
            }
            assert_eq!((device.syncs(), device.held(), ring.durable_watermark()), (1, 1, 0), "one at a time");
            thread::scope(|scope| {
                let waiter = scope.spawn(|| ring.wait_durable(4096));
                drop(holding);
                assert_eq!(waiter.join().expect("no panic"), Ok(()));
            });
            assert_eq!((device.syncs(), ring.stats().syncs, ring.close()), (1, 1, Ok(4096)));
        }
    });
}

#[test]
fn an_append_whose_sync_hangs_is_durable_later() {
    within(LIMIT, || {
        let (ring, device, holding) = in_need_of_a_sync();
        let mut extents = Vec::new();
        while device.syncs() == 0 {
            thread::scope(|scope| {
                let append = scope.spawn(|| ring.append_durable_timeout(&pattern(1, 100), MOMENT));
                // Its write comes back. Then it needs the sync.
                while device.held() == 0 && !append.is_finished() {
                    thread::yield_now();
                }
                if device.held() > 0 {
                    device.release(0);
                }
                match append.join().expect("no panic") {
                    Err(AppendError::NotDurableYet(extent)) => extents.push(extent),
                    other => panic!("{other:?}"),
                }
            });
        }
        assert_eq!((device.syncs(), device.durable_writes().len(), ring.durable_watermark()), (1, 0, 0));
        let end = extents.last().expect("one at least").end();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| ring.wait_durable(end));
            drop(holding);
            assert_eq!(waiter.join().expect("no panic"), Ok(()));
        });
        assert!(device.synced().len() as u64 >= end && ring.durable_watermark() >= end);
        assert!(extents.into_iter().all(|extent| stored(&device, extent) == pattern(1, 100)));
        assert_eq!(ring.poisoned(), None);
    });
}

/// Who polls with no time at all has begun what it asks for, each time.
#[test]
fn looks_without_any_time_bring_a_commit_about() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let extent = ring.append(&pattern(1, 100)).expect("room");
        let beyond = ring.wait_durable_timeout(extent.end() + 1, Duration::ZERO);
        assert_eq!(beyond, Err(RingError::NotAppended { address: extent.end() + 1, tail: extent.end() }));
        while let Err(error) = ring.wait_durable_timeout(extent.end(), Duration::ZERO) {
            assert_eq!(error, RingError::TimedOut);
            thread::yield_now();
        }
        assert!(device.synced().len() as u64 >= extent.end());
    });
}

#[test]
fn a_ring_that_is_dropped_waits_for_a_sync_that_was_left() {
    within(LIMIT, || {
        let (ring, device, holding) = in_need_of_a_sync();
        while device.syncs() == 0 {
            assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
        }
        let dropping = thread::spawn(move || drop(ring));
        // Time enough for one that does not wait.
        thread::sleep(MOMENT);
        assert!(!dropping.is_finished());
        drop(holding);
        dropping.join().expect("no panic");
        assert_eq!((device.syncs(), device.held(), device.synced()), (1, 0, device.contents()));
    });
}

#[test]
fn latencies_are_reported_if_they_are_asked_for() {
    within(LIMIT, || {
        assert!(in_memory(options(2, 4096)).0.stats().latencies.is_none());
        let (io, device) = QuikIO::in_memory();
        let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(2, 4096) };
        let ring = Arc::new(BufferRing::builder(options).measure_latency(true).build().expect("valid options"));
        for id in 0..5 {
            ring.append_durable(&pattern(id, 100)).expect("a working device");
        }
        let latencies = ring.stats().latencies.expect("asked for");
        let counts = [&latencies.commit, &latencies.batch_size, &latencies.device].map(|histogram| histogram.len());
        assert_eq!((counts, latencies.room.len(), latencies.stragglers.len()), ([5, 5, 5], 0, 0));
        assert_eq!((latencies.batch_size.min(), latencies.batch_size.max()), (1, 1));
        // A straggler, a sync and a full ring.
        let stalled = ring.reserve(100).expect("room");
        let committer = commit_in_a_thread(&ring, 5);
        eventually("it waits for the straggler", || {
            ring.stats().oldest_reservation.is_some_and(|it| it.waiting.is_some())
        });
        stalled.commit();
        committer.join().expect("no panic");
        let holding = Holding::new(&device);
        let appender = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || assert!((0..3).all(|id| ring.append(&pattern(id, 4096)).is_ok())))
        };
        eventually("the ring is full", || device.held() == 2);
        drop(holding);
        appender.join().expect("no panic");
        ring.sync().expect("a working device");
        let latencies = ring.stats().latencies.expect("asked for");
        assert_eq!((latencies.stragglers.len(), ring.stats().syncs), (1, 1));
        assert_eq!(latencies.room.len(), ring.stats().full_waits);
    });
}

/// A leader that gives up before its batch may depart leaves that to a thread that has parked meanwhile.
#[test]
fn a_leader_whose_time_is_over_leaves_the_batch_to_another_thread() {
    within(LIMIT, || {
        let (io, _device) = QuikIO::in_memory();
        let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(4, 4096) };
        let policy = CommitPolicy::MinInterval(Duration::from_millis(500));
        let ring = BufferRing::builder(options).commit_policy(policy).build().expect("valid options");
        for _ in 0..3 {
            ring.append_durable(&pattern(1, 100)).expect("a working device");
            thread::scope(|scope| {
                let impatient =
                    scope.spawn(|| ring.append_durable_timeout(&pattern(2, 100), Duration::from_millis(200)));
                thread::sleep(Duration::from_millis(50));
                assert!(ring.append_durable(&pattern(3, 100)).is_ok());
                assert!(matches!(
                    impatient.join().expect("no panic"),
                    Err(AppendError::NotDurableYet(_) | AppendError::TimedOut) | Ok(_)
                ));
            });
        }
    });
}
