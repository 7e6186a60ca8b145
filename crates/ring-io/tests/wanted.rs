//! An event is made only for a subscriber that wants it. Alone in its process: what subscribers want is asked of all of
//! them at once.

use core::sync::atomic::{AtomicUsize, Ordering};

use ring_io::events::{emit, is_wanted};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Wants warnings and errors. During each it looks whether another event would be wanted.
struct Warnings;

static WANTED_DURING_AN_EVENT: AtomicUsize = AtomicUsize::new(0);
static EVENTS: AtomicUsize = AtomicUsize::new(0);

impl Subscriber for Warnings {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
        WANTED_DURING_AN_EVENT.fetch_add(usize::from(is_wanted(Level::ERROR)), Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn an_event_is_wanted_by_a_subscriber_of_its_level_and_not_during_another() {
    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    assert_eq!(LEVELS.map(is_wanted), [false; 5], "there is no subscriber");
    tracing::subscriber::set_global_default(Warnings).expect("the first one");
    assert_eq!(LEVELS.map(is_wanted), [true, true, false, false, false]);
    emit(|| tracing::warn!("an event"));
    assert_eq!((EVENTS.load(Ordering::Relaxed), WANTED_DURING_AN_EVENT.load(Ordering::Relaxed)), (1, 0));
    assert!(is_wanted(Level::WARN), "it is over");
}
