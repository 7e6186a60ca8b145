//! From one thread to 128: what is acknowledged is below the watermark and on the device, over every engine, policy and
//! write mode, through writers and without, and beside threads that append without waiting.

mod common;

use core::time::Duration;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, CommitPolicy, EngineKind, Extent, QuikIO, WriteMode};
use common::append_path::PathMix;
use common::{LIMIT, Random, buffered_file, direct_file, disk, options, pattern, within};

const POLICIES: [CommitPolicy; 3] =
    [CommitPolicy::Immediate, CommitPolicy::MinBytes(8192), CommitPolicy::MinInterval(Duration::from_micros(200))];

/// What is on stable storage in a range.
type Stored<'a> = &'a (dyn Fn(Extent) -> Vec<u8> + Sync);

/// `threads` threads with `each` records: three of four are committed, in one of the ways there are.
fn commit(ring: &BufferRing, appenders: PathMix, threads: u64, each: u64, stored: Stored<'_>) {
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut appender = appenders.of(ring, thread as usize);
                let mut random = Random::new(thread);
                let mut staged = Vec::new();
                for id in thread * each..(thread + 1) * each {
                    let payload = pattern(id, random.up_to(600));
                    let extent = match random.below(8) {
                        // A writer takes a lease after a run of short ones.
                        0 | 1 if appender.is_writer() => {
                            for part in payload.chunks(60) {
                                staged.push((appender.append(part).expect("room"), part.to_vec()));
                            }
                            continue;
                        }
                        0 | 1 => {
                            staged.push((appender.append(&payload).expect("room"), payload));
                            continue;
                        }
                        2 => {
                            let extent = appender.append(&payload).expect("room");
                            assert!(ring.sync().expect("a working device") >= extent.end());
                            extent
                        }
                        3 => {
                            let extent = appender.append(&payload).expect("room");
                            assert_eq!(ring.wait_durable(extent.end()), Ok(()));
                            extent
                        }
                        // The shortest of times: mostly it is over before.
                        4 if !appender.is_writer() => {
                            match ring.append_durable_timeout(&payload, Duration::from_micros(50)) {
                                Ok(extent) => extent,
                                Err(AppendError::NotDurableYet(extent)) => {
                                    assert_eq!(ring.wait_durable(extent.end()), Ok(()));
                                    extent
                                }
                                Err(AppendError::TimedOut) => continue,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        _ => appender.append_durable(&payload).expect("a working device"),
                    };
                    assert!(ring.durable_watermark() >= extent.end());
                    assert!(stored(extent) == payload, "acknowledged, and not on the device: {extent:?}");
                }
                // What was only staged is below the watermark by and by.
                if let Some((last, _)) = staged.last() {
                    assert_eq!(ring.wait_durable(last.end()), Ok(()));
                    assert!(staged.iter().all(|(extent, payload)| stored(*extent) == *payload));
                }
            });
        }
    });
}

fn everywhere(open: impl Fn() -> QuikIO + Send + 'static, second: impl Fn() -> File + Send + 'static) {
    within(4 * LIMIT, move || {
        let mut leased = 0;
        let settings =
            [1, 2, 7, 32, 128].into_iter().flat_map(|threads| PathMix::ALL.map(|appenders| (threads, appenders)));
        for (round, (threads, appenders)) in settings.enumerate() {
            let (io, file) = (open(), second());
            let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(3, 16384) };
            let policy = POLICIES[round / PathMix::ALL.len() % POLICIES.len()];
            let ring = BufferRing::builder(options).commit_policy(policy).build().expect("a ring");
            let stored = |extent: Extent| {
                let mut bytes = vec![0; extent.len()];
                file.read_exact_at(&mut bytes, extent.start()).expect("it is there");
                bytes
            };
            commit(&ring, appenders, threads, 128 / threads + 4, &stored);
            leased += ring.stats().writers.leased_records;
            let end = ring.sync().expect("a working device");
            assert_eq!(ring.close(), Ok(end));
        }
        assert!(leased > 100, "writers took no leases: {leased}");
    });
}

#[test]
fn acknowledged_is_on_the_device_in_memory() {
    within(4 * LIMIT, || {
        for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
            let settings = POLICIES.into_iter().zip([128, 16, 1]);
            for ((policy, threads), appenders) in
                settings.flat_map(|setting| PathMix::ALL.map(|appenders| (setting, appenders)))
            {
                let (_, device) = QuikIO::in_memory();
                let io = device.builder().write_mode(mode).build().expect("no obstacle");
                let options = BufferRingOptions { io_instance: Some(Arc::new(io)), ..options(3, 16384) };
                let ring = BufferRing::builder(options).commit_policy(policy).build().expect("a ring");
                let stored = |extent: Extent| device.synced()[extent.start() as usize..extent.end() as usize].to_vec();
                commit(&ring, appenders, threads, 128 / threads + 4, &stored);
                let stats = ring.stats();
                assert!(stats.syncs + stats.durable_writes <= stats.records_appended, "{policy:?}: {stats:?}");
            }
        }
    });
}

#[test]
fn acknowledged_is_on_the_device_past_the_cache() {
    let folder = disk();
    let path = folder.path().join("log");
    let again = path.clone();
    everywhere(move || QuikIO::new(direct_file(&path)), move || buffered_file(&again));
}

#[test]
fn acknowledged_is_on_the_device_with_positioned_writes() {
    let folder = disk();
    let path = folder.path().join("log");
    let again = path.clone();
    let open =
        move || QuikIO::builder(direct_file(&path)).engine(EngineKind::Positioned).build().expect("always there");
    everywhere(open, move || buffered_file(&again));
}
