//! How long a thread that waits for another one's write spins before it sleeps: about as long as two writes take, and not
//! at all on a machine where that was in vain.

use core::sync::atomic::AtomicUsize as Hint;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::thread;
use std::time::Instant;

/// A wait that is longer than this is not spent spinning.
const LONGEST_SPIN: Duration = Duration::from_micros(500);

/// Fewer spins than this within the time mean that the thread was descheduled.
const FEW_SPINS: u32 = 4;

/// So many waits do without spinning then, before it is tried again; twice as many each time that it is tried in vain, up
/// to a limit.
const BACKOFF_WAITS: usize = 64;
const MOST_BACKOFF_WAITS: usize = 1 << 15;

/// Whether spinning pays. Hints: what they say costs time, and nothing else.
#[derive(Debug)]
pub(crate) struct SpinPolicy {
    /// Whether there is a processor to spin on.
    may_spin: bool,
    /// About how many waits do without spinning from now on, and how many will after the next one that spins in vain.
    backoff: Hint,
    next_backoff: Hint,
}

impl SpinPolicy {
    pub(crate) fn new() -> Self {
        // Checkers would explore little else.
        let may_spin = !cfg!(any(loom, shuttle)) && thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        Self { may_spin, backoff: Hint::new(0), next_backoff: Hint::new(BACKOFF_WAITS) }
    }

    /// The limit of one wait for two writes that take `write_time` each.
    pub(crate) fn limit(&self, write_time: Duration) -> SpinLimit<'_> {
        let left = self.backoff.load(Relaxed);
        if left > 0 {
            // Several threads may take the same one.
            self.backoff.store(left - 1, Relaxed);
        }
        let time = if self.may_spin && left == 0 { (2 * write_time).min(LONGEST_SPIN) } else { Duration::ZERO };
        SpinLimit { policy: self, time, end: None, spins: 0 }
    }
}

/// How long it pays to look again and again, before sleeping.
///
/// Each look gives the processor away. On a machine that is busy with other things it comes back too late: then it is
/// better to sleep, and be put before the others when there is something to see.
#[derive(Debug)]
pub(crate) struct SpinLimit<'a> {
    policy: &'a SpinPolicy,
    time: Duration,
    /// Known once it is tried.
    end: Option<Instant>,
    spins: u32,
}

impl SpinLimit<'_> {
    pub(crate) fn lasts(&mut self) -> bool {
        if self.time.is_zero() {
            return false;
        }
        let now = Instant::now();
        let lasts = now < *self.end.get_or_insert(now + self.time);
        self.spins += 1;
        if self.spins == FEW_SPINS {
            self.policy.next_backoff.store(BACKOFF_WAITS, Relaxed);
        } else if !lasts && self.spins < FEW_SPINS {
            let waits = self.policy.next_backoff.load(Relaxed);
            self.policy.backoff.store(waits, Relaxed);
            self.policy.next_backoff.store((2 * waits).min(MOST_BACKOFF_WAITS), Relaxed);
        }
        lasts
    }
}
