//! A subscriber that keeps what it is told. Shared by the tests of events of `ring-io` and of the ring.

use core::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was told: `level message field=value …`, in the order of telling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// Everything that this thread tells while it does `body`.
    pub(crate) fn during(body: impl FnOnce()) -> Vec<String> {
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
pub(crate) fn assert_told(told: &[String], start: &str, fields: &[&str]) {
    let found: Vec<_> = told.iter().filter(|line| line.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start:?} in {told:#?}");
    for field in fields {
        assert!(found[0].contains(&format!(" {field}")), "{field:?} in {:?}", found[0]);
    }
}
