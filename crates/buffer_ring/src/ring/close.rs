//! The end of a ring that is still core: nothing is appended any more, and what was appended becomes durable.
//!
//! An append looks once whether the ring takes bytes, and may then be delayed for as long as the scheduler likes. So
//! refusing appends is not enough: closing also [freezes](Core::freeze) the rotation. From then on no buffer is open,
//! and none will be; an append that comes late finds only sealed buffers, as in a full ring, and looks once more
//! whether the ring takes bytes. What got a range before lies below the end of the log, which does not move any more,
//! and closing waits until all below is durable.

use core::time::Duration;
use std::time::Instant;

use ring_io::events;

use crate::error::RingError;
use crate::ring::commit::DurabilityWait;
use crate::ring::core::Core;
use crate::ring::flush::Sealing;
use crate::sync::Backoff;

/// How long closing waits for reservations that are held, before it says so and leaves it at that. Encoding a record
/// takes less.
const PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// May be called by several threads, and again: each step finds what was done before.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<u64, RingError> {
        self.refuse_appends();
        let end = self.freeze();
        self.flush_everything();
        let outcome = self.await_end(end, deadline);
        if outcome == Err(RingError::TimedOut) {
            return outcome.map(|()| end);
        }
        let drained = self.drain(deadline);
        match outcome {
            Ok(()) => {
                drained?;
                // All is durable, so that no thread has anything to do with the device any more.
                self.writeback.detach_device();
            }
            Err(RingError::ReservationLeaked(_)) => {}
            // What waits has the failure, and may still read what is in memory.
            Err(error) => return Err(error),
        }
        self.writeback.close();
        self.wake_all();
        outcome.map(|()| self.writeback.durable())
    }

    /// Sees to it that no generation is opened any more. Gives the address at which the log ends.
    pub(crate) fn freeze(&self) -> u64 {
        let mut backoff = Backoff::new();
        while !self.staging.is_frozen() {
            // Sealed, and nothing will be opened: the token stays here. Or open and empty: then it stays with the
            // thread that opened it.
            if self.staging.take_token_for_good() || self.retire_current() {
                self.staging.set_frozen();
            } else {
                // Another thread has sealed and is about to hand over, or is inside for a moment.
                backoff.pause();
            }
        }
        self.staging.next_base()
    }

    /// Seals the current generation, or takes it out of use if it is open and has no bytes. `true`: it was taken out of
    /// use.
    fn retire_current(&self) -> bool {
        let _held = events::hold();
        let current = self.staging.current();
        match self.try_seal(current) {
            Sealing::Sealed(flush) => {
                self.dispatch(flush);
                false
            }
            Sealing::Already => false,
            // Whichever generation it is by now: if it is open, there is no later one.
            Sealing::Empty => self.staging.slot(current).retire(),
        }
    }

    /// Waits until all below `end` is durable, or written where there is no device; at least what no reservation holds
    /// back.
    fn await_end(&self, end: u64, deadline: Option<Instant>) -> Result<(), RingError> {
        let outcome = self.await_written(end, deadline);
        if !self.writeback.exists() {
            return outcome;
        }
        let below = match outcome {
            Ok(()) => end,
            Err(RingError::ReservationLeaked(_)) => self.writeback.written(),
            Err(error) => return Err(error),
        };
        match self.run(DurabilityWait { upto: below, deadline, cancelled: None }) {
            // The cause of the delay is known.
            Err(RingError::TimedOut) if outcome.is_err() => outcome,
            durable => durable.and(outcome),
        }
    }

    /// Waits until all below `end` is written, which reservations may keep from happening.
    fn await_written(&self, end: u64, deadline: Option<Instant>) -> Result<(), RingError> {
        loop {
            let patience = Instant::now() + PATIENCE;
            let until = deadline.map_or(patience, |deadline| deadline.min(patience));
            let written = || self.outcome(|| self.writeback.written() >= end);
            if let Ok(outcome) = self.wait_patiently(Some(until), written) {
                return outcome;
            }
            // A late arrival at the generation that was taken out of use holds nothing.
            if let Some(held) = self.oldest_reservation().filter(|oldest| oldest.buffer_start < end) {
                return Err(RingError::ReservationLeaked(held.buffer_start));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(RingError::TimedOut);
            }
            // It is the device that takes its time.
        }
    }
}
