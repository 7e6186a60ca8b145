//! What the ring reports by `tracing`, and that an append which finds room reports nothing.

mod common;

use common::{EIO, current, in_memory, options};
use ring_testing::events;

#[test]
fn the_way_of_a_buffer_is_reported_with_its_generation() {
    let told = events::during(|| {
        let (ring, _device) = in_memory(options(2, 4096));
        ring.append(&[1; 100]).expect("room");
        ring.flush(&current(&ring)).wait().expect("a working device");
        ring.sync().expect("a working device");
    });
    events::assert_one(&told, "TRACE sealed", &["generation=1", "base=0", "len=100"]);
    events::assert_one(&told, "TRACE opened generation=2", &[]);
    events::assert_one(&told, "TRACE flushing", &["generation=1", "base=0", "len=100"]);
    events::assert_one(&told, "TRACE write completed", &["offset=0", "len=4096", "elapsed="]);
    events::assert_one(&told, "DEBUG synced", &["durable=4096"]);
}

#[test]
fn a_poisoning_is_reported_once_with_its_cause() {
    let told = events::during(|| {
        let (ring, device) = in_memory(options(2, 4096));
        device.fail_write(0, EIO);
        ring.append(&[1; 100]).expect("room");
        ring.sync().expect_err("a failing device");
        ring.append(&[1; 100]).expect_err("a poisoned ring");
        ring.sync().expect_err("a poisoned ring");
    });
    events::assert_one(&told, "ERROR the ring is poisoned", &["error=write of bytes 0..4096 failed (errno 5)"]);
}

#[test]
fn an_append_that_finds_room_reports_nothing() {
    let (ring, _device) = in_memory(options(2, 4096));
    let told = events::during(|| {
        ring.append(&[1; 100]).expect("room");
        ring.try_append(&[2; 100]).expect("room");
        let mut reservation = ring.reserve(100).expect("room");
        reservation.fill(3);
        reservation.commit();
        drop(ring.try_reserve(100).expect("room"));
    });
    assert_eq!(told, [] as [&str; 0]);
}
