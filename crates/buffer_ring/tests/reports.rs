//! What is no cause for a warning.

mod common;
#[allow(dead_code, reason = "of its assertions only the empty one is needed")]
#[path = "../../ring-io/tests/told/mod.rs"]
mod told;

use buffer_ring::{AppendError, RingError};
use common::{MOMENT, in_memory, options, pattern};
use told::Told;

fn warnings(body: impl FnOnce()) -> Vec<String> {
    Told::during(body).into_iter().filter(|line| !line.starts_with("TRACE") && !line.starts_with("DEBUG")).collect()
}

/// A reservation holds the log back, but not for long: the caller gives up before that is worth a word.
#[test]
fn a_wait_that_is_over_soon_warns_of_no_reservation() {
    let (ring, _device) = in_memory(options(2, 4096));
    let reservation = ring.reserve(100).expect("room");
    let told = warnings(|| {
        let end = ring.append(b"record").expect("room").end();
        assert_eq!(ring.wait_durable_timeout(end, MOMENT), Err(RingError::TimedOut));
        assert!(ring.stats().oldest_reservation.is_some_and(|oldest| oldest.waiting.is_some()), "the batch waits");
        let outcome = ring.append_durable_timeout(b"record", MOMENT);
        assert!(matches!(outcome, Err(AppendError::NotDurableYet(_))), "{outcome:?}");
        while ring.try_append(&pattern(1, 4096)).is_ok() {}
        assert_eq!(ring.append_timeout(&pattern(1, 4096), MOMENT), Err(AppendError::TimedOut));
        assert_eq!(ring.close_timeout(MOMENT), Err(RingError::ReservationLeaked(0)));
    });
    assert_eq!(told, [] as [&str; 0]);
    reservation.commit();
    assert_eq!(warnings(|| assert_eq!(ring.close(), Ok(4096 * 2))), [] as [&str; 0]);
}
