//! What the ring tells by `tracing`, and that an append which finds room tells nothing.

mod common;

use core::fmt;
use std::sync::{Arc, Mutex};

use common::{EIO, current, in_memory, options};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was told: `level message field=value …`, in the order of telling.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// Everything that this thread tells while it does `body`.
    fn during(body: impl FnOnce()) -> Vec<String> {
        let told = Self::default();
        tracing::subscriber::with_default(told.clone(), body);
        told.0.lock().expect("no panic").clone()
    }
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{} {value:?}{}", &self.0[..5], &self.0[5..]);
                } else {
                    self.0 += &format!(" {}={value:?}", field.name());
                }
            }
        }
        let mut line = Line(format!("{:5}", event.metadata().level().as_str()));
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// One event begins with `start`, and it has all `fields`, each `name=` or `name=value`.
fn assert_told(told: &[String], start: &str, fields: &[&str]) {
    let found: Vec<_> = told.iter().filter(|line| line.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start:?} in {told:#?}");
    for field in fields {
        assert!(found[0].contains(&format!(" {field}")), "{field:?} in {:?}", found[0]);
    }
}

#[test]
fn the_way_of_a_buffer_is_told_with_its_generation() {
    let told = Told::during(|| {
        let (ring, _device) = in_memory(options(2, 4096));
        ring.append(&[1; 100]).expect("room");
        ring.flush(&current(&ring)).wait().expect("a working device");
        ring.sync().expect("a working device");
    });
    assert_told(&told, "TRACE sealed", &["generation=1", "base=0", "len=100"]);
    assert_told(&told, "TRACE opened generation=2", &[]);
    assert_told(&told, "TRACE flushing", &["generation=1", "base=0", "len=100"]);
    assert_told(&told, "TRACE write completed", &["offset=0", "len=4096", "elapsed="]);
    assert_told(&told, "DEBUG synced", &["durable=4096", "elapsed="]);
}

#[test]
fn a_poisoning_is_told_once_with_its_cause() {
    let told = Told::during(|| {
        let (ring, device) = in_memory(options(2, 4096));
        device.fail_write(0, EIO);
        ring.append(&[1; 100]).expect("room");
        ring.sync().expect_err("a failing device");
        ring.append(&[1; 100]).expect_err("a poisoned ring");
        ring.sync().expect_err("a poisoned ring");
    });
    assert_told(
        &told,
        "ERROR the ring is poisoned",
        &["error=write of bytes 0..4096 failed: Input/output error (os error 5)"],
    );
}

#[test]
fn an_append_that_finds_room_tells_nothing() {
    let (ring, _device) = in_memory(options(2, 4096));
    let told = Told::during(|| {
        ring.append(&[1; 100]).expect("room");
        ring.try_append(&[2; 100]).expect("room");
        let mut reservation = ring.reserve(100).expect("room");
        reservation.fill(3);
        reservation.commit();
        drop(ring.try_reserve(100).expect("room"));
    });
    assert_eq!(told, [] as [&str; 0]);
}
