//! Threads that sleep until something about the ring changes.
//!
//! Whoever changes something that others may wait for calls [`Waiters::wake`] after the change. A sleeper counts itself in before it
//! looks for the last time. Both sides touch the count by a read-modify-write: either the waker finds the sleeper counted and
//! notifies it, or the sleeper's counting comes second, acquires the change, and its last look sees it. No wake-up is lost, and
//! waking costs one atomic instruction while nobody sleeps.

use std::time::Instant;

use crate::error::TimedOut;
use crate::sync::Ordering::AcqRel;
use crate::sync::{AtomicUsize, Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct Waiters {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self { sleepers: AtomicUsize::new(0), lock: Mutex::new(()), changed: Condvar::new() }
    }

    /// Wakes all sleepers, so that they look again.
    pub(crate) fn wake(&self) {
        // An addition of nothing: the read-modify-write is the point.
        if self.sleepers.fetch_add(0, AcqRel) > 0 {
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Sleeps until the next wake, unless `ready` holds already. May return without cause: look again.
    pub(crate) fn sleep_unless(&self, ready: impl FnOnce() -> bool, deadline: Option<Instant>) -> Result<(), TimedOut> {
        let mut lock = self.lock.lock();
        self.sleepers.fetch_add(1, AcqRel);
        let mut outcome = Ok(());
        if !ready() {
            match deadline {
                None => self.changed.wait(&mut lock),
                Some(deadline) if self.changed.wait_until(&mut lock, deadline).timed_out() => outcome = Err(TimedOut),
                Some(_) => {}
            }
        }
        self.sleepers.fetch_sub(1, AcqRel);
        outcome
    }
}
