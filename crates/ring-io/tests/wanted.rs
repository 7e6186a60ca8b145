//! An event is made only for a subscriber that wants it. Alone in its process: what subscribers want is asked of all of
//! them at once.

use core::sync::atomic::{AtomicUsize, Ordering};

use ring_io::events::{emit, is_wanted};
use ring_testing::events::OnEvent;
use tracing::Level;
use tracing::level_filters::LevelFilter;

static WANTED_DURING_AN_EVENT: AtomicUsize = AtomicUsize::new(0);
static EVENTS: AtomicUsize = AtomicUsize::new(0);

/// Looks during an event whether another one would be wanted.
fn count(_: &str) {
    EVENTS.fetch_add(1, Ordering::Relaxed);
    WANTED_DURING_AN_EVENT.fetch_add(usize::from(is_wanted(Level::ERROR)), Ordering::Relaxed);
}

#[test]
fn an_event_is_wanted_by_a_subscriber_of_its_level_and_not_during_another() {
    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    assert_eq!(LEVELS.map(is_wanted), [false; 5], "there is no subscriber");
    tracing::subscriber::set_global_default(OnEvent::up_to(LevelFilter::WARN, count)).expect("the first one");
    assert_eq!(LEVELS.map(is_wanted), [true, true, false, false, false]);
    emit(|| tracing::warn!("an event"));
    assert_eq!((EVENTS.load(Ordering::Relaxed), WANTED_DURING_AN_EVENT.load(Ordering::Relaxed)), (1, 0));
    assert!(is_wanted(Level::WARN), "it is over");
}
