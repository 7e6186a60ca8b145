//! `mem::forget` is safe code: whatever public value is forgotten, with writes in flight, no memory is reused or freed
//! that a thread still reads, and all threads else goes on or is notified. A panic is no different.
//!
//! What is forgotten here is leaked on purpose: `xtask/leaks.txt` names this file.

mod common;

use core::mem;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;

use buffer_ring::ring_alloc::{Arena, Buffer};
use buffer_ring::ring_io::{AttachError, FileError, Wait};
use buffer_ring::{AppendError, BufferRing, MemoryDevice, QuikIO, RingError};
use common::{
    Holding, LIMIT, MOMENT, buffered_file, current, disk, eventually, in_memory, options, pattern, ring_on, within,
};

const SIZE: usize = 4096;

/// A ring with two writes held, and a third buffer with bytes in it.
fn busy() -> (BufferRing, MemoryDevice) {
    let (ring, device) = in_memory(options(4, SIZE));
    device.hold();
    for id in 0..2 {
        ring.append(&pattern(id, SIZE)).expect("room");
    }
    ring.append(&pattern(2, 100)).expect("room");
    assert_eq!(device.held(), 2);
    (ring, device)
}

fn assert_first_two_intact(device: &MemoryDevice) {
    assert!(device.contents()[..2 * SIZE] == [pattern(0, SIZE), pattern(1, SIZE)].concat());
}

#[test]
fn a_forgotten_ring_leaves_its_writes_their_memory() {
    within(LIMIT, || {
        let (ring, device) = busy();
        mem::forget(ring);
        // Would show if the memory went to others.
        let others: Vec<_> = (0..8).map(|_| Buffer::zeroed(SIZE).expect("memory")).collect();
        device.release_all();
        assert_first_two_intact(&device);
        drop(others);
        assert_eq!(device.contents().len(), 2 * SIZE, "nobody flushed the third");
    });
}

#[test]
fn a_forgotten_ring_keeps_its_file() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        let ring = ring_on(QuikIO::new(buffered_file(&path)), options(2, SIZE));
        ring.append(&pattern(1, SIZE)).expect("room");
        mem::forget(ring);
        assert_eq!(QuikIO::open(&path).unwrap_err().file_error(), Some(&FileError::Locked));
    });
}

#[test]
fn forgotten_tickets_and_handles_hold_nothing_up() {
    within(LIMIT, || {
        let (ring, device) = busy();
        let handle = current(&ring);
        mem::forget(ring.flush(&handle));
        mem::forget(handle.clone());
        mem::forget(handle);
        device.release_all();
        assert_eq!(ring.close(), Ok(3 * SIZE as u64));
        assert_first_two_intact(&device);
    });
}

#[test]
fn a_forgotten_reservation_keeps_its_buffer_from_being_reused() {
    within(LIMIT, || {
        let (ring, device) = busy();
        let mut reserved = ring.reserve(100).expect("room");
        reserved.copy_from_slice(&pattern(3, 100));
        let extent = reserved.extent();
        mem::forget(reserved);
        device.release_all();
        while ring.append_timeout(&[9; SIZE], MOMENT) != Err(AppendError::TimedOut) {}
        assert_eq!(ring.wait_durable_timeout(extent.end(), MOMENT), Err(RingError::TimedOut));
        assert!(device.contents()[2 * SIZE..3 * SIZE].iter().all(|&byte| byte == 0), "its buffer is not written");
        assert_eq!(ring.close(), Err(RingError::ReservationLeaked(2 * SIZE as u64)));
        assert_first_two_intact(&device);
    });
}

#[test]
fn a_forgotten_quik_io_serves_its_ring_to_the_end() {
    within(LIMIT, || {
        let (io, device) = QuikIO::in_memory();
        let io = Arc::new(io);
        let ring = ring_on(Arc::clone(&io), options(2, SIZE));
        mem::forget(io);
        let holding = Holding::new(&device);
        ring.append(&pattern(0, SIZE)).expect("room");
        drop(holding);
        assert_eq!(ring.close(), Ok(SIZE as u64));
        assert!(device.synced() == pattern(0, SIZE));
    });
}

#[test]
fn a_forgotten_queue_and_a_forgotten_answer_keep_their_bytes() {
    within(LIMIT, || {
        let (io, device) = QuikIO::in_memory();
        let io = Arc::new(io);
        let arena = Arc::new(Arena::new(1, SIZE).expect("an arena"));
        let queue = io.attach(&arena).expect("the only queue");
        let submit = |token: u64| {
            let mut buffer = Buffer::zeroed(SIZE).expect("memory");
            buffer.copy_from_slice(&pattern(token, SIZE));
            queue.submit(token, buffer.freeze(SIZE), token * SIZE as u64);
        };
        submit(0);
        let mut finished = Vec::new();
        queue.reap(Wait::Until(None), &mut finished);
        mem::forget(finished);
        assert_eq!(queue.in_flight(), 0, "handed out is handed out");
        device.hold();
        submit(1);
        mem::forget(queue);
        assert_eq!(io.attach(&arena).err(), Some(AttachError::Busy), "its writes are still on their way");
        drop(io);
        device.release_all();
        assert_first_two_intact(&device);
    });
}

#[test]
fn what_was_never_built_may_be_forgotten() {
    let dir = disk();
    let path = dir.path().join("log");
    mem::forget(QuikIO::builder(buffered_file(&path)));
    let io = QuikIO::open(&path).expect("no thread has it");
    // Opened, it has the file for good.
    mem::forget(io);
    assert_eq!(QuikIO::open(&path).unwrap_err().file_error(), Some(&FileError::Locked));
}

#[test]
fn a_writer_that_panics_amid_held_writes_leaves_zeros_and_a_ring_that_works() {
    within(LIMIT, || {
        let (ring, device) = busy();
        let panicked = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut reserved = ring.reserve(100).expect("room");
                    reserved.fill(0xEE);
                    panic!("as planned");
                })
                .join()
        });
        assert!(panicked.is_err());
        let after = ring.append(&pattern(4, 100)).expect("room");
        device.release_all();
        assert_eq!(ring.close(), Ok(3 * SIZE as u64));
        assert_first_two_intact(&device);
        let third = &device.contents()[2 * SIZE..];
        assert!(third[..100] == pattern(2, 100) && third[100..200].iter().all(|&byte| byte == 0));
        assert!(third[200..300] == pattern(4, 100) && after.start() == 2 * SIZE as u64 + 200);
    });
}

#[test]
fn a_panic_that_takes_the_ring_along_waits_for_its_writes() {
    within(LIMIT, || {
        let (ring, device) = busy();
        let unwinding = thread::spawn(move || {
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let _ring = ring;
                panic!("as planned");
            }));
            assert!(unwound.is_err());
        });
        eventually("the unwinding ring has flushed its last buffer", || device.held() == 3);
        assert!(!unwinding.is_finished() && device.contents().is_empty());
        device.release_all();
        unwinding.join().expect("no other panic");
        assert_first_two_intact(&device);
        assert!(device.contents()[2 * SIZE..][..100] == pattern(2, 100));
    });
}
