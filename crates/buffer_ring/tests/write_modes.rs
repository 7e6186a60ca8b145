//! What each write mode promises about the file, through the ring: reported by the order in which writes arrive at the
//! device.

mod common;

use std::sync::Arc;
use std::thread;

use buffer_ring::{BufferRing, BufferRingOptions, DeviceError, MemoryDevice, QuikIO, RingError, WriteMode};
use common::{EIO, Holding, LIMIT, MOMENT, Random, current, eventually, held, options, pattern, ring_on, within};

const SIZE: usize = 4096;

fn serialized(options: BufferRingOptions) -> (BufferRing, MemoryDevice) {
    let (_, device) = QuikIO::in_memory();
    let io = device.builder().write_mode(WriteMode::Serialized).build().expect("no obstacle");
    (ring_on(Arc::new(io), options), device)
}

/// The writes so far are the log's, from its start on, each beginning where the one before it ends.
fn assert_a_prefix(device: &MemoryDevice) {
    let mut next = 0;
    for (offset, len) in device.writes() {
        assert_eq!(offset, next, "{:?}", device.writes());
        next += len as u64;
    }
}

/// Threads that append records of many lengths, while another completes held writes in random order.
fn busy(ring: &BufferRing, device: &MemoryDevice, seed: u64, look: impl Fn() + Sync) {
    const THREADS: u64 = 3;
    device.hold();
    thread::scope(|scope| {
        let appending: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random::new(seed * THREADS + thread);
                    for _ in 0..60 {
                        ring.append(&pattern(thread, random.up_to(SIZE))).expect("room in the end");
                    }
                })
            })
            .collect();
        let mut random = Random::new(seed);
        while !appending.iter().all(thread::ScopedJoinHandle::is_finished) {
            if device.held() > 0 {
                look();
                device.release(random.below(device.held()));
            }
            thread::yield_now();
        }
        device.release_all();
    });
    ring.sync().expect("a working device");
}

#[test]
fn tail_localized_writes_stay_within_the_ring_of_the_tail() {
    within(LIMIT, || {
        for seed in 0..20 {
            let capacity = 2 + seed as usize % 5;
            let (ring, device) = common::in_memory(options(capacity, SIZE));
            busy(&ring, &device, seed, || ());
            let mut furthest = 0;
            for (offset, len) in device.writes() {
                let distance = (offset + len as u64).max(furthest) - offset;
                assert!(distance <= (capacity * SIZE) as u64, "{capacity} buffers, seed {seed}: {distance} bytes");
                furthest = furthest.max(offset + len as u64);
            }
        }
    });
}

#[test]
fn tail_localized_writes_do_not_wait_for_each_other() {
    within(LIMIT, || {
        let (ring, device) = common::in_memory(options(4, SIZE));
        let first = ring.reserve(SIZE).expect("room");
        let _holding = Holding::new(&device);
        ring.append(&[1; SIZE]).expect("room");
        ring.append(&[2; SIZE]).expect("room");
        assert_eq!(device.writes(), [(SIZE as u64, SIZE)], "the first buffer has a writer inside");
        first.commit();
        assert_eq!(device.writes(), [(SIZE as u64, SIZE), (0, SIZE)]);
    });
}

#[test]
fn the_file_of_a_serialized_ring_is_at_every_moment_a_prefix_of_the_log() {
    within(LIMIT, || {
        for seed in 0..20 {
            let (ring, device) = serialized(options(2 + seed as usize % 5, SIZE));
            busy(&ring, &device, seed, || {
                assert!(device.held() <= 1);
                assert_a_prefix(&device);
            });
            assert_a_prefix(&device);
            let end = device.writes().iter().map(|(_, len)| *len as u64).sum();
            assert_eq!((ring.durable_watermark(), ring.tail()), (end, end), "seed {seed}");
        }
    });
}

/// The last writer of a later buffer may leave before that of an earlier one.
#[test]
fn a_serialized_buffer_waits_for_the_one_before_it_to_be_handed_over() {
    within(LIMIT, || {
        let (ring, device) = serialized(options(4, SIZE));
        let first = ring.reserve(SIZE).expect("room");
        ring.append(&[1; SIZE]).expect("room");
        let second = current(&ring);
        let ticket = ring.flush(&second);
        ring.append(&[2; SIZE]).expect("room");
        assert_eq!((device.writes(), ticket.is_done()), (vec![], false));
        assert_eq!(ticket.wait_timeout(MOMENT), Err(RingError::TimedOut));
        assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
        thread::scope(|scope| {
            // Asleep, not at the device, which has nothing.
            let waiting = scope.spawn(|| ticket.wait());
            first.commit();
            assert_eq!(waiting.join().expect("no panic"), Ok(()));
        });
        assert_eq!(ring.sync(), Ok(3 * SIZE as u64));
        assert_a_prefix(&device);
    });
}

#[test]
fn a_failed_write_poisons_a_serialized_ring_and_nothing_behind_it_is_written() {
    within(LIMIT, || {
        for failing in 0..3 {
            let (ring, device) = serialized(options(8, SIZE));
            device.fail_write(failing, EIO);
            let holding = Holding::new(&device);
            let tickets: Vec<_> = (0..4)
                .map(|id| {
                    ring.append(&pattern(id, SIZE)).expect("room");
                    ring.flush(&current(&ring))
                })
                .collect();
            drop(holding);
            let failure = ring.sync().expect_err("a failing device");
            let range = |error: &DeviceError| (error.range(), error.behind());
            let RingError::Device(error) = &failure else { panic!("{failure:?}") };
            let start = (failing * SIZE) as u64;
            assert_eq!(range(error), (start..start + SIZE as u64, None), "the real failure, not what it entailed");
            let outcomes: Vec<_> = tickets.iter().map(|ticket| ticket.wait().is_ok()).collect();
            assert_eq!(outcomes, (0..4).map(|nth| nth < failing).collect::<Vec<_>>());
            assert_eq!((device.writes().len(), ring.written_watermark()), (failing + 1, start));
            assert_eq!(ring.close(), Err(failure));
            assert_eq!(device.writes().len(), failing + 1);
        }
    });
}

#[test]
fn a_serialized_ring_that_is_dropped_writes_everything_first() {
    within(LIMIT, || {
        let (ring, device) = serialized(options(8, SIZE));
        device.hold();
        (0..5).for_each(|id| _ = ring.append(&pattern(id, SIZE)).expect("room"));
        let dropping = thread::spawn(move || drop(ring));
        eventually("the first write is at the device", || device.held() == 1);
        assert!(!dropping.is_finished());
        device.release_all();
        dropping.join().expect("no panic");
        assert_a_prefix(&device);
        assert_eq!(device.contents().len(), 5 * SIZE);
    });
}

#[test]
fn a_leaked_reservation_does_not_keep_a_serialized_ring_from_ending() {
    within(LIMIT, || {
        for closes in [true, false] {
            let (ring, device) = serialized(options(4, SIZE));
            ring.append(&[1; SIZE]).expect("room");
            core::mem::forget(ring.reserve(SIZE).expect("room"));
            ring.append(&[3; SIZE]).expect("room");
            let ticket = ring.flush(&current(&ring));
            if closes {
                assert_eq!(ring.close(), Err(RingError::ReservationLeaked(SIZE as u64)));
            } else {
                drop(ring);
            }
            assert_eq!(ticket.wait(), Err(RingError::Closed));
            assert_eq!(device.writes(), [(0, SIZE)], "nothing behind the hole");
        }
    });
}

/// Otherwise its ticket would wait for a thread that asks for the others.
#[test]
fn flushing_one_buffer_of_a_serialized_ring_flushes_those_before_it() {
    within(LIMIT, || {
        let (ring, device) = serialized(held(4, SIZE));
        let handles: Vec<_> = (0..3)
            .map(|id| {
                ring.append(&pattern(id, SIZE)).expect("room");
                current(&ring)
            })
            .collect();
        assert_eq!(device.writes(), []);
        assert_eq!(ring.flush(&handles[1]).wait(), Ok(()));
        assert_eq!(device.writes(), [(0, SIZE), (SIZE as u64, SIZE)], "and not those after it");
        assert_eq!(ring.flush(&handles[2]).wait(), Ok(()));
        assert_a_prefix(&device);
    });
}
