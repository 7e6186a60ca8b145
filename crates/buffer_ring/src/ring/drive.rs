//! The driver: one thread waits for the device, on behalf of all that wait.

use core::time::Duration;
use std::time::Instant;

use ring_io::{Wait, events};

use crate::error::{RingError, TimedOut};
use crate::ring::core::Core;
use crate::sync::yield_now;
use crate::writeback::Reaped;
use crate::writeback::exclusive::Claim;

/// A wait for a writer that is inside a buffer takes this long only if a reservation is held.
pub(crate) const SUSPICIOUS: Duration = Duration::from_secs(1);

impl Core {
    /// Takes finished writes from the device, if there are any, and no other thread is at it.
    pub(crate) fn poll(&self) {
        if let Some(driver) = self.writeback.claim_driver() {
            self.drive(driver, Wait::No);
        }
    }

    /// Takes from the device what has ended there, and says how much.
    pub(crate) fn drive(&self, driver: Claim<'_>, wait: Wait) -> usize {
        let _held = events::hold();
        let Reaped { writes, synced } = self.writeback.reap(&driver, wait);
        let count = writes.len() + usize::from(synced.is_some());
        writes.into_iter().for_each(|write| self.finish(write));
        if let Some(outcome) = synced {
            self.end_sync(self.writeback.reattach_syncer(), outcome);
        }
        self.release_driver(driver);
        count
    }

    pub(crate) fn release_driver(&self, driver: Claim<'_>) {
        drop(driver);
        // A thread that sleeps may have to drive next.
        self.notify();
    }

    /// Waits until nothing is in flight, and everything that was has been dealt with.
    pub(crate) fn drain(&self, deadline: Option<Instant>) -> Result<(), TimedOut> {
        let done = || self.is_inherited() || self.writeback.in_flight() == 0 && !self.writeback.is_driven();
        self.wait_until(deadline, || done().then_some(()))
    }

    /// Waits until `ready` has an answer: drives the device while there is something to drive, sleeps otherwise.
    pub(crate) fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(TimedOut);
            }
            if let Some(driver) = self.writeback.claim_driver() {
                // The driver before may have brought the answer.
                if let Some(answer) = ready() {
                    self.release_driver(driver);
                    return Ok(answer);
                }
                if self.drive(driver, Wait::Until(deadline)) == 0 {
                    yield_now();
                }
                continue;
            }
            let mut answer = None;
            let look = || {
                answer = ready();
                answer.is_some() || self.writeback.wants_driver()
            };
            // Whether the time was over is looked at above, after one more look for the answer.
            let _ = self.waiting.changes().wait_unless(look, deadline);
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    /// The same for what takes a moment, unless a thread holds a reservation for long: says so once if that is the
    /// cause.
    pub(crate) fn wait_patiently<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        let suspicious = Instant::now() + SUSPICIOUS;
        let outcome =
            self.wait_until(Some(deadline.map_or(suspicious, |deadline| deadline.min(suspicious))), &mut ready);
        if outcome.is_ok() || deadline.is_some_and(|deadline| deadline <= suspicious) {
            return outcome;
        }
        self.warn_of_stall();
        self.wait_until(deadline, ready)
    }

    /// The answer of a thread that waits until `done`, or until the ring is poisoned.
    pub(crate) fn outcome(&self, done: impl FnOnce() -> bool) -> Option<Result<(), RingError>> {
        if self.is_inherited() {
            return Some(Err(RingError::Forked));
        }
        // In this order: what was done before the failure was done.
        let failure = self.poisoned();
        if done() { Some(Ok(())) } else { failure.map(Err) }
    }
}

pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    // A time so long that it cannot be expressed is for ever.
    Instant::now().checked_add(timeout)
}
