//! Times that are too long to be a deadline: each call with a timeout waits as if it had none.

mod common;

use core::time::Duration;
use std::thread;

use buffer_ring::{AppendError, BufferRing, CommitPolicy, Extent, QuikIO, RingError};
use common::{Holding, LIMIT, MOMENT, current, disk, eventually, held, in_memory, options, ring_on, within};

/// Beyond what the clock can be set to, the most that it might, and some that only a part of the way down cannot take.
const LONG: [Duration; 6] = [
    Duration::MAX,
    Duration::from_secs(u64::MAX),
    Duration::from_secs(i64::MAX as u64),
    Duration::from_secs(i64::MAX as u64 / 2),
    Duration::from_secs(u64::MAX / 1_000_000_000),
    Duration::from_secs(1 << 33),
];

type Call = fn(&BufferRing, Duration);

/// On a ring that is full, and whose device holds what there is until the call waits.
const CALLS: [(&str, Call); 8] = [
    ("append_timeout", |ring, timeout| _ = ring.append_timeout(&[3; 4096], timeout).expect("room comes")),
    ("reserve_timeout", |ring, timeout| _ = ring.reserve_timeout(4096, timeout).expect("room comes")),
    ("append_durable_timeout", |ring, timeout| {
        let extent = ring.append_durable_timeout(&[3; 4096], timeout).expect("it becomes durable");
        assert!(ring.durable_watermark() >= extent.end());
    }),
    ("sync_timeout", |ring, timeout| assert_eq!(ring.sync_timeout(timeout), Ok(8192))),
    ("wait_durable_timeout", |ring, timeout| assert_eq!(ring.wait_durable_timeout(8192, timeout), Ok(()))),
    ("wait_timeout", |ring, timeout| {
        assert_eq!(ring.flush(&current(ring)).wait_timeout(timeout), Ok(()));
        assert_eq!(ring.written_watermark(), 8192);
    }),
    ("Writer::append_timeout", |ring, timeout| {
        _ = ring.writer().append_timeout(&[3; 4096], timeout).expect("room comes");
    }),
    ("Writer::reserve_timeout", |ring, timeout| {
        _ = ring.writer().reserve_timeout(4096, timeout).expect("room comes");
    }),
];

#[test]
fn a_call_with_a_long_timeout_waits_for_its_answer() {
    within(LIMIT, || {
        for timeout in LONG {
            for (name, call) in CALLS {
                println!("{name}, {timeout:?}");
                let (ring, device) = in_memory(options(2, 4096));
                let holding = Holding::new(&device);
                ring.append(&[1; 4096]).expect("room");
                ring.append(&[2; 4096]).expect("room");
                ring.flush(&current(&ring));
                assert_eq!(device.held(), 2, "the ring is full, and nothing is written");
                thread::scope(|scope| {
                    let waiting = scope.spawn(|| call(&ring, timeout));
                    thread::sleep(MOMENT);
                    assert!(!waiting.is_finished(), "{name} did not wait for {timeout:?}");
                    drop(holding);
                });
                let watch = ring.durable_watch();
                assert_eq!(ring.sync_timeout(timeout), Ok(ring.tail()));
                assert_eq!(watch.wait_ge_timeout(8192, timeout).map(|durable| durable >= 8192), Ok(true));
            }
        }
    });
}

/// The engines wait by system calls of their own.
#[test]
fn a_call_with_a_long_timeout_waits_at_a_file() {
    within(LIMIT, || {
        let dir = disk();
        for (n, timeout) in LONG.into_iter().enumerate() {
            let io = QuikIO::open(dir.path().join(n.to_string())).expect("a file");
            let ring = ring_on(io, options(2, 4096));
            for record in 0..20_u64 {
                let extent = ring.append_durable_timeout(&[1; 3000], timeout).expect("it becomes durable");
                assert_eq!(extent, Extent::new(record * 8192, 3000));
                assert!(ring.durable_watermark() >= extent.end());
                ring.append_timeout(&[2; 1000], timeout).expect("room comes");
                assert_eq!(ring.wait_durable_timeout(extent.end() + 1, timeout), Ok(()));
                assert_eq!(ring.flush(&current(&ring)).wait_timeout(timeout), Ok(()));
            }
        }
    });
}

#[test]
fn a_follower_with_a_long_timeout_waits_for_what_comes() {
    within(LIMIT, || {
        for timeout in LONG {
            let (ring, _device) = in_memory(options(2, 4096));
            let watch = ring.durable_watch();
            thread::scope(|scope| {
                let follower = scope.spawn(|| watch.wait_ge_timeout(10, timeout));
                thread::sleep(MOMENT);
                assert!(!follower.is_finished(), "it did not wait for {timeout:?}");
                ring.append_durable(&[1; 10]).expect("a working device");
                assert!(follower.join().expect("no panic").is_ok_and(|durable| durable >= 10));
            });
        }
    });
}

/// A batch that is due at no time that the clock knows still goes with what is asked for without waiting.
#[test]
fn an_interval_without_an_end_holds_back_commits_and_nothing_else() {
    within(LIMIT, || {
        for interval in LONG {
            let io = QuikIO::in_memory().0;
            let options = buffer_ring::BufferRingOptions { io_instance: Some(io.into()), ..options(2, 4096) };
            let policy = CommitPolicy::MinInterval(interval);
            let ring = BufferRing::builder(options).commit_policy(policy).build().expect("no obstacle");
            let first = ring.append_durable(&[1; 100]).expect("nothing is under way");
            let second = ring.append_durable_timeout(&[2; 100], MOMENT);
            assert!(matches!(second, Err(AppendError::NotDurableYet(_))), "{second:?}");
            assert!(ring.durable_watermark() >= first.end());
            ring.append(&[3; 4096]).expect("room");
            eventually("a full buffer is written", || ring.written_watermark() >= 8192);
            assert_eq!(
                ring.wait_durable_timeout(ring.tail() + 1, interval),
                Err(RingError::NotAppended { address: ring.tail() + 1, tail: ring.tail() })
            );
        }
    });
}

/// A call without a timeout gives up there, since nothing says that the flush will come.
#[test]
fn without_auto_flush_a_long_timeout_waits_for_a_flush_that_another_thread_asks_for() {
    within(LIMIT, || {
        const CALLS: [Call; 4] = [
            |ring, timeout| _ = ring.append_timeout(&[3; 4096], timeout).expect("room comes"),
            |ring, timeout| _ = ring.reserve_timeout(4096, timeout).expect("room comes"),
            |ring, timeout| _ = ring.append_durable_timeout(&[3; 4096], timeout).expect("it becomes durable"),
            |ring, timeout| _ = ring.writer().append_timeout(&[3; 4096], timeout).expect("room comes"),
        ];
        for timeout in LONG {
            for call in CALLS {
                let (ring, _device) = in_memory(held(2, 4096));
                let first = current(&ring);
                ring.append(&[1; 4096]).expect("room");
                ring.append(&[2; 4096]).expect("room");
                assert_eq!(ring.append(&[3; 4096]), Err(AppendError::RingFull));
                thread::scope(|scope| {
                    let waiting = scope.spawn(|| call(&ring, timeout));
                    thread::sleep(MOMENT);
                    assert!(!waiting.is_finished(), "it did not wait for {timeout:?}");
                    ring.flush(&first);
                });
            }
        }
    });
}
