//! How long a thread that waits for another one's write spins before it sleeps: about as long as two writes take, and
//! not at all on a machine where that was in vain.

use core::sync::atomic::AtomicUsize as Hint;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::thread;
use std::time::Instant;

/// A wait that is longer than this is not spent spinning.
const LONGEST_SPIN: Duration = Duration::from_micros(500);

/// Fewer spins than this within the time mean that the thread was descheduled.
const FEW_SPINS: u32 = 4;

/// So many waits do without spinning then, before it is tried again; twice as many each time that it is tried in vain,
/// up to a limit.
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
        !self.time.is_zero() && self.lasts_at(Instant::now())
    }

    fn lasts_at(&mut self, now: Instant) -> bool {
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

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// `backoff`: how many waits do without spinning, `next`: how many will after the next one in vain.
    fn policy(may_spin: bool, backoff: usize, next: usize) -> SpinPolicy {
        SpinPolicy { may_spin, backoff: Hint::new(backoff), next_backoff: Hint::new(next) }
    }

    fn state(policy: &SpinPolicy) -> (usize, usize) {
        (policy.backoff.load(Relaxed), policy.next_backoff.load(Relaxed))
    }

    #[test]
    fn spinning_lasts_as_long_as_two_writes_where_it_can_help() {
        for (may_spin, backoff, write_time, limit) in [
            (true, 0, micros(0), micros(0)),
            (true, 0, micros(100), micros(200)),
            (true, 0, micros(249), micros(498)),
            (true, 0, micros(251), LONGEST_SPIN),
            (true, 1, micros(100), micros(0)),
            (false, 0, micros(100), micros(0)),
        ] {
            let policy = policy(may_spin, backoff, BACKOFF_WAITS);
            let mut spinning = policy.limit(write_time);
            assert_eq!(spinning.time, limit, "{may_spin} {backoff} {write_time:?}");
            assert!(!limit.is_zero() || !spinning.lasts());
        }
        let fresh = SpinPolicy::new();
        assert_eq!(state(&fresh), (0, BACKOFF_WAITS));
        assert_eq!(fresh.may_spin, thread::available_parallelism().is_ok_and(|count| count.get() != 1));
    }

    #[test]
    fn as_many_waits_as_said_do_without_spinning() {
        let policy = policy(true, 2, BACKOFF_WAITS);
        let limits: Vec<_> = (0..4).map(|_| (policy.limit(micros(100)).time, policy.backoff.load(Relaxed))).collect();
        assert_eq!(limits, [(micros(0), 1), (micros(0), 0), (micros(200), 0), (micros(200), 0)]);
    }

    #[test]
    fn spinning_ends_exactly_after_its_time() {
        let policy = policy(true, 0, BACKOFF_WAITS);
        let (mut limit, start) = (policy.limit(micros(100)), Instant::now());
        let looks = [0, 1, 199, 200, 201].map(|later| limit.lasts_at(start + micros(later)));
        assert_eq!(looks, [true, true, true, false, false]);
        let hour = Duration::from_secs(3600);
        assert!(SpinLimit { policy: &policy, time: hour, end: None, spins: 0 }.lasts());
        assert!(!SpinLimit { policy: &policy, time: hour, end: Some(start), spins: 0 }.lasts());
    }

    #[test]
    fn few_looks_in_the_whole_time_double_the_waits_without_spinning() {
        for (looks, before, after) in [
            (1, 64, (64, 128)),
            (2, 128, (128, 256)),
            (3, 1 << 14, (1 << 14, 1 << 15)),
            (3, 1 << 15, (1 << 15, 1 << 15)),
            // Often enough: it was not in vain, and the next time counts as the first.
            (4, 256, (0, BACKOFF_WAITS)),
            (5, 256, (0, BACKOFF_WAITS)),
            (6, 256, (0, BACKOFF_WAITS)),
        ] {
            let policy = policy(true, 0, before);
            let (mut limit, start) = (policy.limit(micros(100)), Instant::now());
            for look in 1..looks {
                assert!(limit.lasts_at(start));
                assert_eq!(policy.backoff.load(Relaxed), 0, "the time is not over at look {look}");
            }
            assert!(looks == 1 || !limit.lasts_at(start + LONGEST_SPIN));
            if looks == 1 {
                // Descheduled from the first look on.
                limit.end = Some(start);
                assert!(!limit.lasts_at(start + LONGEST_SPIN));
            }
            assert_eq!(state(&policy), after, "{looks} looks");
        }
    }
}
