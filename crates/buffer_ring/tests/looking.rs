//! What a ring and its values show of themselves.

mod common;

use std::sync::Arc;

use buffer_ring::BufferRing;
use common::{LIMIT, current, fixed, in_memory, options, pattern, within};

#[test]
fn handles_tickets_watches_and_reservations_print_where_they_are() {
    let (ring, _device) = in_memory(options(2, 4096));
    let handle = current(&ring);
    let shown = |sealed, written| format!("BufferHandle {{ generation: 1, sealed: {sealed}, written: {written} }}");
    assert_eq!(format!("{handle:?}"), shown(false, false));
    let reservation = ring.reserve(8).expect("room");
    assert_eq!(format!("{reservation:?}"), format!("Reservation({:?})", reservation.extent()));
    let ticket = ring.flush(&handle);
    assert_eq!(
        (format!("{handle:?}"), format!("{ticket:?}")),
        (shown(true, false), "FlushTicket { done: false }".into())
    );
    reservation.commit();
    ticket.wait().expect("a working device");
    assert_eq!(
        (format!("{handle:?}"), format!("{ticket:?}")),
        (shown(true, true), "FlushTicket { done: true }".into())
    );
    assert!(ring.stats().engine.is_some() && BufferRing::with_options(options(2, 4096)).stats().engine.is_none());
    let watch = ring.durable_watch();
    assert_eq!(format!("{watch:?}"), "DurableWatch { durable: 0 }");
    ring.sync().expect("a working device");
    assert_eq!(format!("{watch:?}"), "DurableWatch { durable: 4096 }");
    assert_eq!(format!("{ring:?}"), "BufferRing { capacity: 2, buffer_size: 4096, written: 4096, durable: 4096, .. }");
}

#[test]
fn a_writer_prints_what_its_lease_has_left() {
    let (ring, _device) = in_memory(options(2, 4096));
    let ring = Arc::new(ring);
    assert_eq!(format!("{:?}", ring.writer()), "Writer { leased: 0, .. }");
    assert_eq!(format!("{:?}", ring.writer_owned()), "OwnedWriter(Writer { leased: 0, .. })");
    let mut writer = ring.writer();
    for _ in 0..9 {
        writer.append(&[1; 64]).expect("room");
    }
    // The ninth is the first of a quarter of what is left.
    assert_eq!(format!("{writer:?}"), format!("Writer {{ leased: {}, .. }}", (4096 - 8 * 64) / 4 - 64));
}

#[test]
fn padding_is_what_the_last_block_of_each_write_has_left() {
    let (ring, device) = in_memory(options(2, 8192));
    for (len, padding, written) in [(100, 3996, 4096), (4096, 3996, 8192), (4097, 3996 + 4095, 16384)] {
        ring.append(&pattern(len as u64, len)).expect("room");
        ring.flush(&current(&ring)).wait().expect("a working device");
        assert_eq!((ring.stats().padding_bytes, device.contents().len()), (padding, written), "{len}");
    }
}

/// There a buffer is as good as written, and free, when it is sealed.
#[test]
fn a_rotation_without_a_device_ends() {
    within(LIMIT, || {
        let ring = BufferRing::with_options(fixed(2, 4096));
        for generation in 1..5 {
            let extent = ring.append(&[1; 100]).expect("room");
            assert_eq!((extent.start(), current(&ring).generation()), ((generation - 1) * 4096, generation));
            assert_eq!(ring.rotate(), Ok(()));
            assert!(current(&ring).generation() > generation);
        }
    });
}
