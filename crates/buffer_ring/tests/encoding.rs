//! Records that are encoded in place, by the ring and by both kinds of writers; and the writer that owns its share of
//! the ring.

mod common;

use core::panic::AssertUnwindSafe;
use std::io::IoSlice;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;

#[cfg(feature = "async")]
use buffer_ring::RingError;
use buffer_ring::{AppendError, BufferRing, Extent, OwnedWriter, Placement};
use common::{EIO, LIMIT, current, in_memory, options, pattern, within};
#[cfg(feature = "async")]
use common::{Holding, eventually};

const BUFFER: usize = 64 << 10;

/// What appends: the ring, or a writer of one of the kinds.
enum AppendPath<'a> {
    Ring(&'a BufferRing),
    Writer(buffer_ring::Writer<'a>),
    Owned(OwnedWriter),
}

impl<'a> AppendPath<'a> {
    fn all(ring: &'a Arc<BufferRing>) -> [Self; 3] {
        [Self::Ring(ring), Self::Writer(ring.writer()), Self::Owned(ring.writer_owned())]
    }

    fn append_with(&mut self, len: usize, fill: impl FnOnce(Placement, &mut [u8])) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append_with(len, fill),
            Self::Writer(writer) => writer.append_with(len, fill),
            Self::Owned(writer) => writer.append_with(len, fill),
        }
    }

    fn append(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append(payload),
            Self::Writer(writer) => writer.append(payload),
            Self::Owned(writer) => writer.append(payload),
        }
    }

    fn append_durable_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append_durable_vectored(parts),
            Self::Writer(writer) => writer.append_durable_vectored(parts),
            Self::Owned(writer) => writer.append_durable_vectored(parts),
        }
    }
}

/// What the device has once the ring is closed, against what was appended: the rest is zeros.
fn assert_log(ring: &BufferRing, device: &buffer_ring::MemoryDevice, log: &[(Extent, Vec<u8>)]) {
    assert!(log.windows(2).all(|pair| pair[0].0.end() <= pair[1].0.start()), "extents ascend");
    let end = ring.close().expect("a working device");
    let mut expected = vec![0; end as usize];
    for (extent, bytes) in log {
        expected[extent.start() as usize..extent.end() as usize].copy_from_slice(bytes);
    }
    assert!(device.synced() == expected);
}

#[test]
fn a_record_is_encoded_at_its_own_address_in_fresh_zeros() {
    within(LIMIT, || {
        for appender in 0..3 {
            let (ring, device) = in_memory(options(2, BUFFER));
            let ring = Arc::new(ring);
            let mut appender = AppendPath::all(&ring).into_iter().nth(appender).expect("one of three");
            let mut log = Vec::new();
            // Through each buffer more than once, so that there are old bytes to be seen.
            for id in 0..3000_u64 {
                let len = 16 + (id as usize * 31) % 200;
                let mut given = None;
                let extent = appender.append_with(len, |placement, bytes| {
                    assert!(bytes.len() == len && bytes.iter().all(|&byte| byte == 0), "old bytes are seen");
                    bytes[..8].copy_from_slice(&placement.start().to_le_bytes());
                    bytes[len - 1] = 0xFF;
                    given = Some(*placement);
                });
                let extent = extent.expect("room");
                assert_eq!(given, Some(extent));
                let mut bytes = vec![0; len];
                bytes[..8].copy_from_slice(&extent.start().to_le_bytes());
                bytes[len - 1] = 0xFF;
                log.push((extent, bytes));
                if id % 5 == 0 {
                    let bytes = pattern(id, 50);
                    log.push((appender.append(&bytes).expect("room"), bytes));
                }
            }
            if !matches!(appender, AppendPath::Ring(_)) {
                assert!(ring.stats().writers.leased_records > 2000, "within leases: {:?}", ring.stats().writers);
            }
            assert_eq!(ring.stats().records_appended, 3600);
            drop(appender);
            assert_log(&ring, &device, &log);
        }
    });
}

#[test]
fn a_panic_in_an_encoder_leaves_zeros_and_everything_goes_on() {
    within(LIMIT, || {
        for appender in 0..3 {
            let (ring, device) = in_memory(options(2, BUFFER));
            let ring = Arc::new(ring);
            let mut appender = AppendPath::all(&ring).into_iter().nth(appender).expect("one of three");
            let mut log = Vec::new();
            for id in 0..500_u64 {
                if id % 50 == 20 {
                    let panics = |placement: Placement, bytes: &mut [u8]| {
                        bytes[..10].fill(0xEE);
                        panic!("at {}", placement.start());
                    };
                    let payload =
                        catch_unwind(AssertUnwindSafe(|| appender.append_with(100, panics))).expect_err("a panic");
                    let text = payload.downcast_ref::<String>().expect("its own");
                    let at: u64 = text.strip_prefix("at ").and_then(|at| at.parse().ok()).expect("an address");
                    assert!(log.iter().all(|(extent, _): &(Extent, Vec<u8>)| extent.end() <= at));
                    log.push((Extent::new(at, 100), vec![0; 100]));
                }
                let bytes = pattern(id, 60);
                log.push((appender.append(&bytes).expect("room"), bytes));
            }
            let stats = ring.stats();
            assert_eq!((stats.records_appended, stats.reservations_aborted), (500, 10));
            assert_eq!(stats.oldest_reservation.map(|oldest| oldest.count), stats.oldest_reservation.map(|_| 1));
            drop(appender);
            assert_eq!(ring.stats().oldest_reservation, None, "no thread is inside");
            assert_log(&ring, &device, &log);
        }
    });
}

/// The lease is asked for while its owner is in the encoder, which then panics: the owner ends it.
#[test]
fn a_lease_that_is_taken_back_under_a_panicking_encoder_is_ended() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, BUFFER));
        let mut writer = ring.writer();
        let mut last = writer.append(&[7; 16]).expect("room");
        while ring.stats().writers.leased_records == 0 {
            last = writer.append(&[7; 16]).expect("room");
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            writer.append_with(16, |_, bytes| {
                bytes.fill(0xEE);
                // Seals, and takes leases back.
                ring.flush(&current(&ring));
                panic!("now");
            })
        }));
        assert!(outcome.is_err());
        assert_eq!(ring.sync(), Ok(4096), "the lease is over");
        let synced = device.synced();
        assert!(synced[last.end() as usize..].iter().all(|&byte| byte == 0));
        let next = writer.append(&[8; 16]).expect("room");
        assert_eq!(next.start(), 4096);
    });
}

#[test]
fn what_cannot_be_appended_is_refused_before_the_encoder_is_called() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let ring = Arc::new(ring);
        for mut appender in AppendPath::all(&ring) {
            let never = |_: Placement, _: &mut [u8]| panic!("called");
            assert_eq!(appender.append_with(0, never), Err(AppendError::Empty));
            assert_eq!(appender.append_with(4097, never), Err(AppendError::TooLarge { len: 4097, max: 4096 }));
        }
        device.fail_write(0, EIO);
        ring.append(b"x").expect("room");
        ring.sync().expect_err("a failing device");
        for mut appender in AppendPath::all(&ring) {
            let refused = appender.append_with(1, |_, _| panic!("called"));
            assert!(matches!(refused, Err(AppendError::Poisoned(_))), "{refused:?}");
        }
    });
}

#[test]
fn parts_that_are_committed_together_are_durable_as_one() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, BUFFER));
        let ring = Arc::new(ring);
        for (id, mut appender) in AppendPath::all(&ring).into_iter().enumerate() {
            // Some in a row, for the writers' leases.
            for _ in 0..20 {
                appender.append(&[7; 16]).expect("room");
            }
            let bytes = pattern(id as u64, 300);
            let parts = [&bytes[..1], &[], &bytes[1..200], &bytes[200..]].map(IoSlice::new);
            let extent = appender.append_durable_vectored(&parts).expect("a working device");
            assert_eq!(extent.len(), 300);
            assert!(device.synced()[extent.start() as usize..extent.end() as usize] == bytes);
            assert_eq!(appender.append_durable_vectored(&[]), Err(AppendError::Empty));
        }
    });
}

#[test]
fn an_owned_writer_lives_beside_its_ring_and_keeps_it() {
    struct Log {
        ring: Arc<BufferRing>,
        writer: OwnedWriter,
    }
    fn is_sent<T: Send + 'static>(value: T) -> T {
        value
    }
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, BUFFER));
        let ring = Arc::new(ring);
        let mut log = is_sent(Log { writer: ring.writer_owned(), ring });
        let first = log.writer.append(&pattern(1, 100)).expect("room");
        let Log { ring, mut writer } = log;
        assert!(Arc::ptr_eq(&ring, writer.ring()));
        drop(ring);
        // Its share is the last one.
        let thread = thread::spawn(move || {
            let durable = writer.append_durable(&pattern(2, 100)).expect("a working device");
            let mut reserved = writer.reserve(50).expect("room");
            reserved.copy_from_slice(&pattern(3, 50));
            let reserved = reserved.commit();
            writer.append(&pattern(4, 100)).expect("room");
            (durable, reserved)
        });
        let (second, third) = thread.join().expect("no panic");
        let contents = device.contents();
        for (extent, id) in [(first, 1), (second, 2), (third, 3)] {
            assert!(contents[extent.start() as usize..extent.end() as usize] == pattern(id, extent.len()), "{id}");
        }
        assert!(contents.len() as u64 > third.end(), "the ring was flushed when its last owner went");
    });
}

#[cfg(feature = "async")]
#[test]
fn owned_writers_commit_in_tasks_that_the_ring_does_not_outlive() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let ring = Arc::new(ring);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let tasks: Vec<_> = (0..4_u64)
            .map(|task| {
                let mut writer = ring.writer_owned();
                runtime.spawn(async move {
                    let mut mine = Vec::new();
                    for id in 0..100 {
                        let bytes = pattern(task << 32 | id, 200);
                        let extent = match id % 3 {
                            0 => writer.append_durable_async(&bytes).await,
                            _ => writer.append_async(&bytes).await,
                        };
                        mine.push((extent.expect("a working device"), bytes));
                    }
                    let end = mine.last().expect("some").0.end();
                    writer.wait_durable_async(end).await.expect("a working device");
                    mine
                })
            })
            .collect();
        for task in tasks {
            let mine = runtime.block_on(task).expect("no panic");
            assert!(mine.windows(2).all(|pair| pair[0].0.end() <= pair[1].0.start()), "a writer's extents ascend");
            let synced = device.synced();
            for (extent, bytes) in mine {
                assert!(synced[extent.start() as usize..extent.end() as usize] == bytes);
            }
        }
        let mut writer = ring.writer();
        assert!(runtime.block_on(writer.append_durable_async(b"x")).is_ok());
        drop(writer);
        ring.close().expect("a working device");
        let closed = runtime.block_on(ring.writer_owned().append_durable_async(b"x"));
        assert_eq!(closed, Err(AppendError::Closed));
    });
}

#[cfg(feature = "async")]
#[test]
fn close_ends_the_futures_that_wait() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let ring = Arc::new(ring);
        let holding = Holding::new(&device);
        for id in 0..2 {
            ring.append(&pattern(id, 4096)).expect("room");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let mut writer = ring.writer_owned();
        let room = runtime.spawn(async move { writer.append_async(b"no room").await });
        let waiter = Arc::clone(&ring);
        let durable = runtime.spawn(async move { waiter.wait_durable_async(8192).await });
        eventually("both are pending", || runtime.metrics().num_alive_tasks() == 2);
        let closing = thread::spawn({
            let ring = Arc::clone(&ring);
            move || ring.close()
        });
        assert_eq!(runtime.block_on(room).expect("no panic"), Err(AppendError::Closed));
        drop(holding);
        assert_eq!(runtime.block_on(durable).expect("no panic"), Ok(()));
        assert_eq!(closing.join().expect("no panic"), Ok(8192));
        assert_eq!(runtime.block_on(ring.wait_durable_async(8193)), Err(RingError::Closed));
    });
}

#[cfg(feature = "async")]
#[test]
fn futures_of_a_ring_without_a_device_promise_nothing() {
    let ring = Arc::new(BufferRing::with_options(options(2, 4096)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let mut owned = ring.writer_owned();
    let appends = [
        runtime.block_on(ring.append_durable_async(b"x")),
        runtime.block_on(owned.append_durable_async(b"x")),
        runtime.block_on(ring.writer().append_durable_async(b"x")),
    ];
    assert_eq!(appends, [const { Err(AppendError::NoDevice) }; 3]);
    assert_eq!(ring.tail(), 0, "nothing was appended");
    assert_eq!(runtime.block_on(ring.wait_durable_async(0)), Err(RingError::NoDevice));
    assert_eq!(runtime.block_on(owned.wait_durable_async(0)), Err(RingError::NoDevice));
    assert!(runtime.block_on(ring.append_async(b"x")).is_ok());
}
