//! Running a program in many schedules, each of which one number repeats: it decides who runs next, and what the
//! program does.
//!
//! Half of the schedules are uniformly random. The other half follow PCT (Burckhardt and others, ASPLOS 2010): each
//! thread has a priority, the highest one runs, and at a few random moments it falls below all others. That finds what
//! needs one thread to sleep for very long. Shuttle's own PCT learns from the schedules before, so that no number could
//! repeat one schedule alone.

use core::any::Any;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use std::env;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use shuttle::rand::{RngCore, thread_rng};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::common::Random;

/// Schedules of all programs together, unless `BUFFER_RING_SCHEDULES` says how many.
const SCHEDULES: usize = 1000;

/// About as many decisions as a schedule has: the moments of PCT lie among them.
const DECISIONS: usize = 3000;

/// A schedule that takes so many has no end.
const ENDLESS: usize = 1_000_000;

/// Runs `program` in its share of the schedules, and says how many that were. `programs` share them.
pub(crate) fn explore(name: &str, programs: usize, program: impl Fn(Random) + Send + Sync + 'static) -> u64 {
    let count = number("BUFFER_RING_SCHEDULES", SCHEDULES as u64).div_ceil(programs as u64);
    let first = number("BUFFER_RING_SEED", 0);
    let seed = Arc::new(AtomicU64::new(first));
    let steps = Arc::new(AtomicU64::new(0));

    let mut config = Config::new();
    config.stack_size = 1 << 17;
    config.max_steps = MaxSteps::FailAfter(ENDLESS);
    // Ours is one number, and shuttle's thousands of digits.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;

    let scheduler = Seeded {
        seeds: first..first.saturating_add(count),
        seed: seed.clone(),
        steps: steps.clone(),
        ..Seeded::default()
    };
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config).run(move || program(Random::new(thread_rng().next_u64())))
    }));
    if let Err(panic) = outcome {
        fail(name, seed.load(Relaxed), panic);
    }
    let (steps, seconds) = (steps.load(Relaxed) / count, start.elapsed().as_secs_f64());
    println!("\nprogram {name}: {count} schedules from seed {first}, {steps} steps each, in {seconds:.2} s");
    count
}

fn fail(name: &str, seed: u64, panic: Box<dyn Any + Send>) -> ! {
    eprintln!("\nprogram {name} fails in the schedule of seed {seed}; to see it again:");
    eprintln!("    cargo xtask shuttle --schedules 1 --seed {seed} {name}\n");
    resume_unwind(panic)
}

fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")),
        Err(_) => default,
    }
}

/// A scheduler whose schedules know nothing of each other.
#[derive(Default)]
struct Seeded {
    seeds: core::ops::Range<u64>,
    /// That of the schedule that runs.
    seed: Arc<AtomicU64>,
    /// Of all schedules.
    steps: Arc<AtomicU64>,
    random: Option<Random>,
    pct: Option<Pct>,
}

/// What PCT knows of one schedule.
struct Pct {
    /// By thread.
    priorities: Vec<u64>,
    /// Below all that there are.
    lowest: u64,
    decisions: usize,
    /// The decisions before which who runs falls behind.
    falls: Vec<usize>,
}

impl Pct {
    fn new(random: &mut Random) -> Self {
        let falls = random.up_to(12);
        let falls = (0..falls).map(|_| random.below(DECISIONS)).collect();
        Self { priorities: Vec::new(), lowest: u64::from(u32::MAX), decisions: 0, falls }
    }

    fn choose(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
        random: &mut Random,
    ) -> TaskId {
        let last = runnable.iter().map(|task| usize::from(task.id())).max().expect("a task can run");
        while self.priorities.len() <= last {
            self.priorities.push(random.next() | 1 << 63);
        }
        if runnable.len() > 1
            && let Some(current) = current
        {
            if is_yielding || self.falls.contains(&self.decisions) {
                self.priorities[usize::from(current)] = self.lowest;
                self.lowest -= 1;
            }
            self.decisions += 1;
        }
        let highest = runnable.iter().max_by_key(|task| self.priorities[usize::from(task.id())]);
        highest.expect("a task can run").id()
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        self.seed.store(seed, Relaxed);
        let mut random = Random::new(seed);
        self.pct = (random.below(2) == 0).then(|| Pct::new(&mut random));
        self.random = Some(random);
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        self.steps.fetch_add(1, Relaxed);
        let random = self.random.as_mut()?;
        Some(match &mut self.pct {
            Some(pct) => pct.choose(runnable, current, is_yielding, random),
            None => runnable[random.below(runnable.len())].id(),
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.random.as_mut().map_or(0, Random::next)
    }
}
