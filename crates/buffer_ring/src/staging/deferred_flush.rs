//! Manual flushing: a sealed buffer that waits until a thread asks for its flush.
//!
//! Without `auto_flush` the sealer does not release its pin: it leaves it here. So no thread can see the buffer
//! drained, and no thread flushes it. The thread that requests the flush takes the pin over and releases it; from there
//! on everything goes as always.
//!
//! ```text
//! open(g) ──seal──▶ deferred(g) ──request──▶ flushed(g)
//!    └───request───▶ requested(g) ──seal──▶ flushed(g)
//! ```
//!
//! Every state carries the generation, so that a request for an old generation finds nothing to pick up.

use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Relaxed};

const OPEN: u64 = 0;
const REQUESTED: u64 = 1;
const DEFERRED: u64 = 2;
const FLUSHED: u64 = 3;

/// The pin on one buffer that its sealer left behind.
#[derive(Debug)]
pub(crate) struct DeferredFlush(AtomicU64);

impl DeferredFlush {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(state(0, FLUSHED)))
    }

    /// The opener of generation `generation` makes it ready.
    pub(crate) fn open(&self, generation: u64) {
        self.0.store(state(generation, OPEN), Relaxed);
    }

    /// The sealer leaves its pin here. If the answer is `false`, the flush has been requested already: the sealer
    /// releases the pin.
    pub(crate) fn defer(&self, generation: u64) -> bool {
        self.change(generation, OPEN, DEFERRED) || {
            let requested = self.change(generation, REQUESTED, FLUSHED);
            debug_assert!(requested, "two sealers of generation {generation}");
            false
        }
    }

    /// Asks for the flush of generation `generation`, which is sealed or about to be. If the answer is `true`, the
    /// caller has the pin now, and has to release it.
    #[must_use]
    pub(crate) fn request(&self, generation: u64) -> bool {
        self.change(generation, DEFERRED, FLUSHED)
            || (!self.change(generation, OPEN, REQUESTED) && self.change(generation, DEFERRED, FLUSHED))
    }

    /// Whether the flush of `generation` waits for a request.
    pub(crate) fn is_deferred(&self, generation: u64) -> bool {
        self.0.load(Relaxed) == state(generation, DEFERRED)
    }

    fn change(&self, generation: u64, from: u64, to: u64) -> bool {
        let (from, to) = (state(generation, from), state(generation, to));
        // ordering: both halves of R7.
        self.0.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
    }
}

const fn state(generation: u64, phase: u64) -> u64 {
    generation << 2 | phase
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_comes_second_gets_the_pin_and_gets_it_once() {
        let deferred = DeferredFlush::new();
        deferred.open(7);
        assert!(deferred.defer(7) && deferred.is_deferred(7));
        assert!(deferred.request(7) && !deferred.request(7) && !deferred.is_deferred(7));
        deferred.open(8);
        assert!(!deferred.request(8) && !deferred.request(8));
        assert!(!deferred.defer(8) && !deferred.request(8));
    }

    #[test]
    fn the_states_of_all_generations_are_distinct() {
        const LAST: u64 = (1 << 48) - 1;
        let phases = [OPEN, REQUESTED, DEFERRED, FLUSHED];
        let mut states: Vec<_> =
            [0, 1, 2, LAST - 1, LAST].map(|generation| phases.map(|phase| state(generation, phase))).concat();
        states.dedup();
        assert!(states.is_sorted() && states.len() == 20, "{states:?}");
    }

    #[test]
    fn a_request_for_an_old_generation_finds_nothing() {
        let deferred = DeferredFlush::new();
        deferred.open(8);
        assert!(!deferred.request(7));
        assert!(deferred.defer(8));
        assert!(!deferred.request(7) && deferred.is_deferred(8));
    }
}
