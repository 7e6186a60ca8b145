//! What is reported through `tracing`.

use core::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A subscriber of `tracing` that calls a function with each event, as `LEVEL message field=value …`.
pub struct OnEvent<F> {
    call: F,
    level: LevelFilter,
}

impl<F> OnEvent<F> {
    /// Returns a subscriber that wants all events.
    pub const fn new(call: F) -> Self {
        Self::up_to(LevelFilter::TRACE, call)
    }

    /// Returns a subscriber that wants the events up to `level`.
    pub const fn up_to(level: LevelFilter, call: F) -> Self {
        Self { call, level }
    }
}

impl<F> fmt::Debug for OnEvent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent")
    }
}

impl<F: Fn(&str) + 'static> Subscriber for OnEvent<F> {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
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
        (self.call)(&line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Returns all events that this thread reports while it runs `body`, in their order.
///
/// # Panics
///
/// If `body` does.
pub fn during(body: impl FnOnce()) -> Vec<String> {
    // Where `tracing` knows of one subscriber only, the thread that comes first to an event decides alone, by its own
    // default, whether anybody wants it: another test's thread, which has none, would turn it off for this one.
    static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
    ANOTHER.get_or_init(|| Dispatch::new(OnEvent::new(|_: &str| ())));

    let log = Arc::new(Mutex::new(Vec::new()));
    let of_subscriber = Arc::clone(&log);
    let keep = move |line: &str| of_subscriber.lock().expect("no panic").push(line.to_owned());
    tracing::subscriber::with_default(OnEvent::new(keep), body);
    log.lock().expect("no panic").clone()
}

/// Checks that one event begins with `start`, and that it has all `fields`, each `name=` or `name=value`.
///
/// # Panics
///
/// If there is none, or more than one, or a field is missing.
pub fn assert_one(events: &[String], start: &str, fields: &[&str]) {
    let found: Vec<_> = events.iter().filter(|line| line.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start:?} in {events:#?}");
    for field in fields {
        assert!(found[0].contains(&format!(" {field}")), "{field:?} in {:?}", found[0]);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_event_is_seen_although_another_thread_came_to_it_first() {
        let report = || tracing::trace!("an event");
        let events = during(|| {
            thread::spawn(report).join().expect("no panic");
            report();
        });
        assert_one(&events, "TRACE an event", &[]);
    }
}
