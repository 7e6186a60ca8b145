//! How far apart the processors are: on a virtual machine that is the host's choice of the moment.
//!
//! Two processors that share a cache hand a line to each other in some tens of nanoseconds, and others in some
//! hundreds. What threads write in turns, as they do a log's memory, follows that; what each has for itself does not.
//! So each measurement records how far apart the processors were before it and after it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where the processors were during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// They had a cache in common.
    Near,
    /// They had none.
    Far,
}

/// Nanoseconds that a cache line takes from one processor to another and back, before a measurement and after it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Hops {
    pub before: f64,
    pub after: f64,
}

impl Hops {
    /// Less than that there and back is near. Seen so far: 30 on one core, 60 to 130 with a cache in common, and
    /// without 220 to 370 or 450 to 550.
    const NEAR: f64 = 170.0;

    /// `None` if they were moved meanwhile.
    pub fn placement(self) -> Option<Placement> {
        match (self.before < Self::NEAR, self.after < Self::NEAR) {
            (true, true) => Some(Placement::Near),
            (false, false) => Some(Placement::Far),
            _ => None,
        }
    }
}

const BATCHES: u32 = 5;
const ROUND_TRIPS: u32 = 100;

/// Nanoseconds there and back between the first and the last processor that this process may use; `None` if there is
/// only one.
pub fn hop() -> Option<f64> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    let (first, last) = (processors.next()?, processors.next_back()?);
    // Odd: the line is on its way there. Even: it is back.
    let line = AtomicU32::new(0);
    let end = 2 * BATCHES * ROUND_TRIPS;
    let wait_for = |value| {
        while line.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(last);
            for value in (1..end).step_by(2) {
                wait_for(value);
                line.store(value + 1, Ordering::Release);
            }
        });
        let there_and_back = scope.spawn(|| {
            stay_on(first);
            let batch = |batch| {
                let start = Instant::now();
                for number in batch * ROUND_TRIPS..(batch + 1) * ROUND_TRIPS {
                    line.store(2 * number + 1, Ordering::Release);
                    wait_for(2 * number + 2);
                }
                start.elapsed().as_nanos() as f64 / f64::from(ROUND_TRIPS)
            };
            // The quickest: in the others one of the two may have been interrupted.
            (0..BATCHES).map(batch).min_by(f64::total_cmp)
        });
        there_and_back.join().expect("only waits")
    })
}

/// Pins this thread; if that is refused, the time is that of wherever it runs.
fn stay_on(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    _ = sched_setaffinity(None, &one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_moved_meanwhile_was_neither_near_nor_far() {
        let placement = |before, after| Hops { before, after }.placement();
        assert_eq!(placement(80.0, 120.0), Some(Placement::Near));
        assert_eq!(placement(480.0, 510.0), Some(Placement::Far));
        assert_eq!(placement(225.0, 240.0), Some(Placement::Far));
        assert_eq!(placement(80.0, 510.0), None);
    }

    #[test]
    fn a_line_takes_some_time_unless_there_is_one_processor() {
        let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        assert_eq!(hop().map(|nanos| nanos > 0.0), several.then_some(true));
    }
}
