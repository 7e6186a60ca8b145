//! Reservations that are committed, aborted, held and leaked.

mod common;

use core::mem;
use core::panic::AssertUnwindSafe;
use std::{panic, thread};

use buffer_ring::{AppendError, BufferRing, ReadError, Reservation, RingError};
use common::{LIMIT, MOMENT, current, eventually, held, in_memory, options, pattern, read, stored, within};

#[test]
fn a_committed_reservation_is_a_record_like_any_other() {
    let (ring, device) = in_memory(options(2, 4096));
    let mut reserved = ring.reserve(100).expect("room");
    reserved.copy_from_slice(&pattern(1, 100));
    let extent = reserved.extent();
    assert_eq!(reserved.commit(), extent);
    let reserved = ring.try_reserve(4096).expect("room");
    assert_eq!((extent.start(), reserved.extent().start(), reserved.len()), (0, 4096, 4096));
    reserved.commit();
    assert_eq!(ring.sync(), Ok(8192));
    assert!(stored(&device, extent) == pattern(1, 100));
    let stats = ring.stats();
    assert_eq!((stats.records_appended, stats.bytes_appended, stats.reservations_aborted), (2, 4196, 0));
}

/// Writes into the reservation, and drops it in one of the ways that there are.
fn abort(ring: &BufferRing, how: usize) {
    let half_done = |mut reserved: Reservation<'_>| {
        reserved.fill(0xAB);
        match how {
            0 => drop(reserved),
            _ => panic!("planned: an encoder fails"),
        }
    };
    match how {
        0 => half_done(ring.reserve(1000).expect("room")),
        1 => {
            let reserved = ring.reserve(1000).expect("room");
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| half_done(reserved)));
            assert!(outcome.is_err());
        }
        _ => {
            let outcome = thread::scope(|scope| scope.spawn(|| half_done(ring.reserve(1000).expect("room"))).join());
            assert!(outcome.is_err());
        }
    }
}

#[test]
fn an_aborted_reservation_leaves_zeros_and_stops_no_thread() {
    within(LIMIT, || {
        for how in 0..3 {
            let (ring, device) = in_memory(options(2, 4096));
            let before = ring.append(&pattern(1, 500)).expect("room");
            abort(&ring, how);
            let after = ring.append(&pattern(2, 500)).expect("room");
            assert_eq!(after.start(), 1500, "the range stays in the log");
            assert_eq!(ring.sync(), Ok(4096));
            assert!(stored(&device, before) == pattern(1, 500) && stored(&device, after) == pattern(2, 500));
            assert!(device.contents()[500..1500].iter().all(|&byte| byte == 0), "way {how}");
            let stats = ring.stats();
            assert_eq!((stats.records_appended, stats.bytes_appended, stats.reservations_aborted), (2, 1000, 1));
            assert!(stats.oldest_reservation.is_none());
        }
    });
}

#[test]
fn an_abort_as_the_last_one_out_sends_the_buffer_on_its_way() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let reserved = ring.reserve(10).expect("room");
        let ticket = ring.flush(&current(&ring));
        assert!(!ticket.is_done());
        drop(reserved);
        assert_eq!((ticket.wait(), ring.written_watermark()), (Ok(()), 4096));
        assert!(device.contents() == [0; 4096]);
    });
}

#[test]
fn a_reservation_begins_as_zeros_whatever_an_earlier_generation_left() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, 8192));
        for lap in 0..6 {
            let reserved = ring.reserve(8000).expect("room");
            assert!(reserved.iter().all(|&byte| byte == 0), "lap {lap}");
            drop(reserved);
            // Fills the next buffer to the last byte: with three of them, each is in turn one or the other.
            ring.append(&[0xAB; 8192]).expect("room");
        }
        // A buffer that was full before is padded with zeros, not with what it held.
        let short = ring.append(b"short").expect("room");
        ring.sync().expect("a working device");
        assert!(device.contents()[short.end() as usize..].iter().all(|&byte| byte == 0));
        let padding = device.contents()[8000..8192].to_vec();
        assert!(padding == vec![0; 192]);
    });
}

#[test]
fn the_padding_of_a_reused_buffer_is_fresh_zeros() {
    let (ring, device) = in_memory(options(2, 8192));
    for _ in 0..4 {
        ring.append(&[0xAB; 8192]).expect("room");
    }
    for _ in 0..4 {
        let extent = ring.append(&[0xCD; 4097]).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        let padding = &device.contents()[extent.end() as usize..];
        assert!(padding.len() == 4095 && padding.iter().all(|&byte| byte == 0));
    }
}

/// A ring of three buffers: the first is full but for a leaked reservation, the others behind it are full and written.
fn full_behind_a_leak() -> (BufferRing, buffer_ring::MemoryDevice) {
    let (ring, device) = in_memory(options(3, 4096));
    ring.append(&pattern(1, 4096)).expect("room");
    ring.append(&pattern(2, 1000)).expect("room");
    mem::forget(ring.reserve(100).expect("room"));
    ring.append(&pattern(3, 4096)).expect("room");
    ring.append(&pattern(4, 4096)).expect("room");
    (ring, device)
}

#[test]
fn a_leaked_reservation_holds_the_watermark_and_the_ring_fills_up_behind_it() {
    within(LIMIT, || {
        let (ring, device) = full_behind_a_leak();
        assert_eq!(ring.try_append(b"x"), Err(AppendError::RingFull));
        assert_eq!(ring.append_timeout(b"x", MOMENT), Err(AppendError::TimedOut));
        assert_eq!(ring.reserve_timeout(1, MOMENT).err(), Some(AppendError::TimedOut));
        assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
        assert_eq!(ring.wait_durable_timeout(4097, MOMENT), Err(RingError::TimedOut));
        assert_eq!(ring.wait_durable(4096), Ok(()), "what is before it can become durable");
        assert_eq!((ring.written_watermark(), ring.durable_watermark()), (4096, 4096));
        assert_eq!(device.writes(), [(0, 4096), (8192, 4096), (12288, 4096)], "all buffers but its own were written");
        let stats = ring.stats();
        let oldest = stats.oldest_reservation.expect("a leaked one");
        assert_eq!((oldest.buffer_start, oldest.count), (4096, 1));
        assert!(oldest.waiting.is_some() && stats.full_waits >= 2);
        assert_eq!(ring.poisoned(), None);
    });
}

#[test]
fn closing_over_a_leak_makes_durable_what_is_before_it_and_says_so() {
    within(LIMIT, || {
        let (ring, device) = full_behind_a_leak();
        let ticket = ring.flush(&current(&ring));
        assert_eq!(ring.close(), Err(RingError::ReservationLeaked(4096)));
        assert!(device.synced()[..4096] == pattern(1, 4096));
        assert_eq!(ticket.wait(), Ok(()), "its own buffer was written");
        // The leaked one's buffer never was, and never shows half of itself.
        assert!(device.contents()[4096..8192].iter().all(|&byte| byte == 0));
    });
}

#[test]
fn dropping_over_a_leak_does_not_hang_and_lets_waiters_know() {
    within(LIMIT, || {
        for options in [options(2, 4096), held(2, 4096)] {
            let (ring, device) = in_memory(options);
            mem::forget(ring.reserve(100).expect("room"));
            let ticket = ring.flush(&current(&ring));
            let waiting = thread::spawn(move || ticket.wait());
            drop(ring);
            assert_eq!(waiting.join().expect("no panic"), Err(RingError::Closed));
            assert_eq!(device.writes(), []);
        }
    });
}

#[test]
fn of_reservations_in_several_buffers_the_first_is_reported() {
    let (ring, _device) = in_memory(options(3, 4096));
    let first = ring.reserve(8).expect("room");
    ring.append(&[1; 4088]).expect("room");
    let second = ring.reserve(8).expect("room");
    let oldest = || ring.stats().oldest_reservation.map(|oldest| (oldest.buffer_start, oldest.count));
    assert_eq!(oldest(), Some((0, 1)));
    first.commit();
    assert_eq!(oldest(), Some((4096, 1)));
    second.commit();
    assert_eq!(oldest(), None);
}

#[test]
fn a_leak_in_an_open_buffer_is_found_by_close() {
    within(LIMIT, || {
        for options in [options(2, 4096), held(2, 4096)] {
            let (ring, device) = in_memory(options);
            ring.append(&pattern(1, 4096)).expect("room");
            ring.append(&pattern(2, 100)).expect("room");
            mem::forget(ring.reserve(100).expect("room"));
            let oldest = ring.stats().oldest_reservation.expect("a leaked one");
            assert_eq!((oldest.buffer_start, oldest.count, oldest.waiting), (4096, 1, None));
            assert_eq!(ring.close(), Err(RingError::ReservationLeaked(4096)));
            assert!(device.synced() == pattern(1, 4096));
        }
    });
}

#[test]
fn a_reservation_held_for_long_and_then_committed_lets_everything_go_on() {
    within(LIMIT, || {
        for commit in [true, false] {
            let (ring, device) = in_memory(options(2, 4096));
            thread::scope(|scope| {
                let mut reserved = ring.reserve(100).expect("room");
                reserved.copy_from_slice(&pattern(1, 100));
                let second = scope.spawn(|| ring.append(&pattern(2, 4096)).map(|extent| extent.start()));
                assert_eq!(second.join().expect("no panic"), Ok(4096));
                // Both need the first buffer.
                let third = scope.spawn(|| ring.append(&pattern(3, 4096)).map(|extent| extent.start()));
                let synced = scope.spawn(|| ring.sync());
                let last = current(&ring);
                eventually("a thread wants the next buffer", || last.is_sealed());
                assert_eq!(ring.written_watermark(), 0);
                if commit {
                    reserved.commit();
                } else {
                    drop(reserved);
                }
                assert_eq!(third.join().expect("no panic"), Ok(8192));
                assert!(synced.join().expect("no panic").is_ok_and(|watermark| watermark >= 8192));
            });
            assert!(ring.stats().oldest_reservation.is_none());
            assert_eq!(ring.close(), Ok(12288));
            let first = if commit { pattern(1, 100) } else { vec![0; 100] };
            let expected = [first, vec![0; 3996], pattern(2, 4096), pattern(3, 4096)].concat();
            assert!(device.contents() == expected);
        }
    });
}

#[test]
fn bytes_beside_a_held_reservation_are_read_as_soon_as_it_ends() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 4096));
        let extent = ring.append(&pattern(1, 100)).expect("room");
        thread::scope(|scope| {
            let reserved = ring.reserve(100).expect("room");
            let reader = scope.spawn(|| read(&ring, extent));
            let handle = current(&ring);
            eventually("the reader has the buffer sealed", || handle.is_sealed());
            reserved.commit();
            assert!(reader.join().expect("no panic") == pattern(1, 100));
        });
        let (manual, _device) = in_memory(held(2, 4096));
        let extent = manual.append(&pattern(1, 100)).expect("room");
        let reserved = manual.reserve(100).expect("room");
        assert_eq!(manual.read(extent, &mut [0; 100]), Err(ReadError::Reserved), "it might be held for ever");
        reserved.commit();
        assert!(read(&manual, extent) == pattern(1, 100));
    });
}
