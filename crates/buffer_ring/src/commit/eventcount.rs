//! Threads that sleep until something about the ring changes: an *event count*, after Dmitry Vyukov's.
//!
//! The thread that changes something that others may wait for calls [`EventCount::notify`] after the change. A sleeper
//! counts itself in before it looks for the last time. Both sides touch the count by a read-modify-write: either the
//! waker finds the sleeper counted and notifies it, or the sleeper's counting comes second, acquires the change, and
//! its last look sees it. No wake-up is lost, and waking costs one atomic instruction while no thread sleeps.

use std::time::Instant;

use crate::error::TimedOut;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicUsize, Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct EventCount {
    sleepers: AtomicUsize,
    /// Those that wait for room, asleep or at the device.
    for_room: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl EventCount {
    pub(crate) fn new() -> Self {
        Self {
            sleepers: AtomicUsize::new(0),
            for_room: AtomicUsize::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// Wakes all sleepers, so that they look again.
    pub(crate) fn notify(&self) {
        // An addition of nothing: the read-modify-write is the point. ordering: release half of R4.
        if self.sleepers.fetch_add(0, Release) > 0 {
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Counts the caller among those that wait for room, until the answer is dropped. It looks once more after that.
    pub(crate) fn ask_for_room(&self) -> WantsRoom<'_> {
        // ordering: acquire half of R4, like a sleeper's.
        self.for_room.fetch_add(1, Acquire);
        WantsRoom(self)
    }

    /// Whether a thread waits for the room that the caller has made.
    pub(crate) fn want_room(&self) -> bool {
        // ordering: release half of R4, like a waker's.
        self.for_room.fetch_add(0, Release) > 0
    }

    /// Sleeps until the next wake, unless `ready` holds already. May return without cause: look again.
    pub(crate) fn wait_unless(&self, ready: impl FnOnce() -> bool, deadline: Option<Instant>) -> Result<(), TimedOut> {
        let mut lock = self.lock.lock();
        // ordering: acquire half of R4.
        self.sleepers.fetch_add(1, Acquire);
        let mut outcome = Ok(());
        if !ready() {
            let is_late;
            (lock, is_late) = self.changed.wait_until(lock, deadline);
            if is_late {
                outcome = Err(TimedOut);
            }
        }
        self.sleepers.fetch_sub(1, Relaxed);
        drop(lock);
        outcome
    }
}

/// A thread that waits for room.
#[derive(Debug)]
#[must_use]
pub(crate) struct WantsRoom<'a>(&'a EventCount);

impl Drop for WantsRoom<'_> {
    fn drop(&mut self) {
        self.0.for_room.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn those_that_wait_for_room_are_counted_until_they_no_longer_do() {
        let changes = EventCount::new();
        assert!(!changes.want_room());
        let (first, second) = (changes.ask_for_room(), changes.ask_for_room());
        assert!(changes.want_room());
        drop(first);
        assert!(changes.want_room());
        drop(second);
        assert!(!changes.want_room());
    }

    #[test]
    fn a_sleeper_that_is_ready_does_not_sleep_and_one_whose_time_is_over_says_so() {
        let (changes, now) = (EventCount::new(), Instant::now());
        assert_eq!(changes.wait_unless(|| true, None), Ok(()));
        assert_eq!(changes.wait_unless(|| true, Some(now)), Ok(()));
        assert_eq!(changes.wait_unless(|| false, Some(now + Duration::from_millis(1))), Err(TimedOut));
        assert!(Instant::now() >= now + Duration::from_millis(1));
        assert_eq!(changes.sleepers.load(Relaxed), 0);
    }
}
