//! Rings that flush or rotate only when they are notified to.

mod common;

use std::thread;

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, RingError, RotateError};
use common::{Holding, LIMIT, MOMENT, current, eventually, fixed, held, in_memory, pattern, read, stored, within};

#[test]
fn a_sealed_buffer_keeps_its_bytes_until_it_is_flushed() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(3, 4096));
        let first = current(&ring);
        let extents = [1, 2, 3].map(|id| ring.append(&pattern(id, 4000)).expect("room"));
        assert!(first.is_sealed() && !first.is_written());
        assert_eq!(device.writes(), [], "no thread has asked for a flush");
        for (id, extent) in (1..).zip(extents) {
            assert!(read(&ring, extent) == pattern(id, 4000));
        }
        assert_eq!(ring.flush(&first).wait(), Ok(()));
        assert_eq!(device.writes(), [(0, 4096)]);
        assert!(first.is_sealed() && first.is_written());
        assert!(stored(&device, extents[0]) == pattern(1, 4000));
    });
}

#[test]
fn a_full_ring_says_so_at_once_rather_than_drop_a_byte() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(2, 4096));
        let first = current(&ring);
        ring.append(&pattern(0, 3000)).expect("room");
        ring.append(&pattern(1, 3000)).expect("room in the second buffer");
        assert_eq!(
            ring.append(&[9; 3000]),
            Err(AppendError::RingFull),
            "also without `try_`: no thread would ever flush"
        );
        assert_eq!(ring.try_append(&[9; 1]), Err(AppendError::RingFull));
        assert_eq!(ring.reserve(1).err(), Some(AppendError::RingFull));
        assert_eq!(ring.append_timeout(&[9; 1], MOMENT), Err(AppendError::TimedOut));
        assert_eq!(device.writes(), []);
        ring.flush(&first);
        let third = ring.append(&pattern(2, 3000)).expect("one buffer is free again");
        assert_eq!(third.start(), 8192);
        assert_eq!(ring.sync(), Ok(12288));
        assert!(device.contents()[..3000] == pattern(0, 3000) && device.contents()[4096..7096] == pattern(1, 3000));
        assert_eq!(ring.stats().records_appended, 3);
    });
}

#[test]
fn flushes_in_any_order_leave_the_watermark_at_the_gap() {
    within(LIMIT, || {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            let (ring, device) = in_memory(held(4, 4096));
            let buffers = [0, 1, 2].map(|id| {
                ring.append(&pattern(id, 4096)).expect("room");
                let handle = current(&ring);
                assert_eq!(handle.generation(), id + 1);
                handle
            });
            ring.append(b"the fourth").expect("room");
            let mut flushed = [false; 3];
            for which in order {
                let ticket = ring.flush(&buffers[which]);
                assert_eq!(ticket.wait_timeout(LIMIT), Ok(()));
                assert!(ticket.is_done() && buffers[which].is_written());
                flushed[which] = true;
                let prefix = flushed.iter().take_while(|&&flushed| flushed).count() as u64;
                assert_eq!(ring.written_watermark(), prefix * 4096, "{order:?}: {flushed:?}");
                assert_eq!(ring.durable_watermark(), 0);
            }
            assert_eq!(device.writes(), order.map(|which| (which as u64 * 4096, 4096)));
            assert_eq!(ring.close(), Ok(16384), "closing flushes the rest");
        }
    });
}

#[test]
fn sync_flushes_everything_that_is_deferred() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(4, 4096));
        for id in 0..4 {
            ring.append(&pattern(id, 4000)).expect("room");
        }
        assert_eq!((ring.sync(), ring.tail()), (Ok(16384), 16384));
        assert_eq!((ring.written_watermark(), ring.durable_watermark()), (16384, 16384));
        assert_eq!(device.writes().len(), 4);
        assert_eq!(ring.append(b"more").map(|extent| extent.start()), Ok(16384), "and the ring goes on");
    });
}

#[test]
fn waiting_for_an_address_flushes_what_begins_below_it() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(4, 4096));
        let extents = [0, 1, 2].map(|id| ring.append(&pattern(id, 4000)).expect("room"));
        assert_eq!(ring.wait_durable(extents[1].end()), Ok(()));
        assert!(ring.durable_watermark() >= extents[1].end());
        assert_eq!(device.writes().len(), 2, "the third buffer belongs to none concern yet");
        assert!(!current(&ring).is_sealed());
        assert!(ring.append_durable(b"x").is_ok());
    });
}

#[test]
fn dropping_the_ring_flushes_everything_that_is_deferred() {
    let (ring, device) = in_memory(held(3, 4096));
    for id in 0..3 {
        ring.append(&pattern(id, 4096)).expect("room");
    }
    drop(ring);
    assert!(device.contents() == [0, 1, 2].map(|id| pattern(id, 4096)).concat());
}

#[test]
fn an_append_with_a_timeout_waits_for_another_threads_flush() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(held(2, 4096));
        let first = current(&ring);
        ring.append(&[1; 4096]).expect("room");
        ring.append(&[2; 4096]).expect("room");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| ring.append_timeout(&[3; 4096], LIMIT));
            // That append seals the second buffer before it waits.
            let second = current(&ring);
            eventually("the waiting append has sealed", || second.is_sealed());
            ring.flush(&first);
            assert_eq!(waiting.join().expect("no panic").map(|extent| extent.start()), Ok(8192));
        });
        assert_eq!(ring.stats().full_waits, 1);
    });
}

#[test]
fn without_rotation_a_full_buffer_is_reported_and_opens_again_in_place_once_flushed() {
    within(LIMIT, || {
        for capacity in [1, 2, 5] {
            let (ring, device) = in_memory(fixed(capacity, 4096));
            let holding = Holding::new(&device);
            let handle = current(&ring);
            assert_eq!(ring.append(&pattern(1, 4000)).map(|extent| extent.start()), Ok(0));
            assert_eq!(ring.append(&[2; 200]), Err(AppendError::Sealed));
            assert_eq!(ring.append(&[2; 1]), Err(AppendError::Sealed), "it stays so while it is being written");
            assert_eq!(current(&ring).generation(), handle.generation());
            drop(holding);
            assert_eq!(ring.flush(&handle).wait(), Ok(()));
            assert_eq!(current(&ring).generation(), handle.generation() + 1);
            assert_eq!(ring.append(&pattern(3, 4096)).map(|extent| extent.start()), Ok(4096));
            assert_eq!(ring.close(), Ok(8192));
            assert!(device.contents() == [pattern(1, 4000), vec![0; 96], pattern(3, 4096)].concat());
        }
    });
}

#[test]
fn rotate_makes_the_next_buffer_current_until_none_is_free() {
    within(LIMIT, || {
        let (ring, device) = in_memory(fixed(3, 4096));
        let _holding = Holding::new(&device);
        for lap in 0..3 {
            assert_eq!(ring.append(&pattern(lap, 100)).map(|extent| extent.start()), Ok(lap * 4096));
            let before = current(&ring);
            let rotated = ring.rotate();
            if lap < 2 {
                assert_eq!(rotated, Ok(()));
                assert!(before.is_sealed() && current(&ring).generation() == before.generation() + 1);
            } else {
                assert_eq!(rotated, Err(RotateError::RingFull));
                assert!(!before.is_sealed(), "nothing was sealed");
            }
        }
        assert_eq!(ring.append(b"there is still room").map(|extent| extent.start()), Ok(8292));
        device.release(0);
        eventually("the first write frees its buffer", || ring.rotate().is_ok());
        assert_eq!(ring.append(b"x").map(|extent| extent.start()), Ok(12288));
    });
}

#[test]
fn rotating_an_open_buffer_without_bytes_changes_nothing() {
    let (ring, device) = in_memory(fixed(2, 4096));
    for _ in 0..5 {
        assert_eq!(ring.rotate(), Ok(()));
        assert_eq!((current(&ring).generation(), current(&ring).is_sealed(), ring.tail()), (1, false, 0));
    }
    assert_eq!(ring.close(), Ok(0));
    assert_eq!(device.writes(), []);
}

#[test]
fn a_manual_ring_does_nothing_by_itself() {
    within(LIMIT, || {
        let manual = BufferRingOptions { auto_rotate: false, ..held(2, 4096) };
        let (ring, device) = in_memory(manual);
        let mut handles = Vec::new();
        for id in 0..2 {
            handles.push(current(&ring));
            ring.append(&pattern(id, 4000)).expect("room");
            assert_eq!(ring.append(&[9; 100]), Err(AppendError::Sealed));
            assert_eq!(ring.append_timeout(&[9; 100], LIMIT), Err(AppendError::Sealed));
            assert_eq!(ring.rotate().is_ok(), id == 0);
        }
        assert_eq!((ring.rotate(), device.writes().len()), (Err(RotateError::RingFull), 0));
        assert_eq!(ring.flush(&handles[0]).wait(), Ok(()));
        assert_eq!(ring.append(b"x"), Err(AppendError::Sealed), "free, but no thread has rotated");
        assert_eq!(ring.rotate(), Ok(()));
        assert_eq!(ring.append(b"x").map(|extent| extent.start()), Ok(8192));
        assert_eq!(ring.written_watermark(), 4096, "the second buffer is held");
        assert_eq!(ring.close(), Ok(12288));
    });
}

#[test]
fn a_stale_handle_never_touches_a_later_generation() {
    within(LIMIT, || {
        for options in [held(2, 4096), fixed(1, 4096)] {
            let (ring, device) = in_memory(options);
            let stale = current(&ring);
            for _ in 0..3 {
                ring.append(&[1; 100]).expect("room");
                ring.flush(&current(&ring)).wait().expect("written");
            }
            ring.append(&[2; 100]).expect("room");
            let (open, writes) = (current(&ring), device.writes());
            assert!(open.generation() > stale.generation());
            let ticket = ring.flush(&stale);
            assert!(ticket.is_done() && ticket.wait() == Ok(()));
            assert!(stale.is_sealed() && stale.is_written() && !open.is_sealed());
            assert_eq!((device.writes(), ring.tail()), (writes, 3 * 4096 + 100));
        }
    });
}

#[test]
fn a_stale_handle_does_not_let_go_of_a_later_generation_that_is_held() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(2, 4096));
        let stale = current(&ring);
        ring.append(&pattern(0, 4096)).expect("room");
        ring.sync().expect("a working device");
        ring.append(&pattern(1, 4096)).expect("room in the second buffer");
        // The third generation is in the first buffer again, sealed, and no thread has asked for it.
        ring.append(&pattern(2, 4096)).expect("room in the first buffer");
        let held = current(&ring);
        assert_eq!((stale.generation(), held.generation()), (1, 3));
        assert_eq!(ring.append(b"x"), Err(AppendError::RingFull));
        assert!(held.is_sealed());
        ring.flush(&stale);
        assert!(!held.is_written() && device.writes().len() == 1, "{:?}", device.writes());
        assert_eq!(ring.sync(), Ok(12288));
    });
}

#[test]
fn a_buffer_without_bytes_needs_no_flush() {
    let (ring, device) = in_memory(held(2, 4096));
    let empty = current(&ring);
    assert_eq!(ring.flush(&empty).wait(), Ok(()));
    assert!(!empty.is_sealed() && device.writes().is_empty());
    assert_eq!(ring.append(b"x").map(|extent| extent.start()), Ok(0));
}

#[test]
fn looking_changes_nothing() {
    let (ring, device) = in_memory(held(2, 4096));
    ring.append(&[1; 100]).expect("room");
    for _ in 0..10 {
        let handle = current(&ring);
        assert_eq!((handle.generation(), handle.is_sealed(), handle.is_written()), (1, false, false));
        let _ = (format!("{handle:?} {ring:?}"), ring.stats(), ring.poisoned(), ring.tail());
        assert_eq!((ring.written_watermark(), ring.durable_watermark(), ring.tail()), (0, 0, 100));
    }
    assert_eq!((device.writes().len(), device.syncs()), (0, 0));
}

#[test]
#[should_panic(expected = "the buffer belongs to another ring")]
fn the_handle_of_another_ring_is_a_mistake() {
    let (one, other) = (BufferRing::with_options(held(2, 4096)), BufferRing::with_options(held(2, 4096)));
    let _ = one.flush(&current(&other));
}

#[test]
fn a_ticket_for_a_held_reservation_times_out_and_the_flush_goes_on() {
    within(LIMIT, || {
        let (ring, device) = in_memory(held(2, 4096));
        let reserved = ring.reserve(10).expect("room");
        let ticket = ring.flush(&current(&ring));
        assert_eq!(ticket.wait_timeout(MOMENT), Err(RingError::TimedOut));
        assert!(!ticket.is_done() && device.writes().is_empty());
        reserved.commit();
        assert_eq!(ticket.wait(), Ok(()));
        assert_eq!(device.writes(), [(0, 4096)]);
    });
}
