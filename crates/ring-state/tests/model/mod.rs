//! Runs a model, and reports how much it explored. Shared by the models of the word and those of the ring.

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::env;
use std::sync::Arc;
use std::time::Instant;

/// How much of a model is explored.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each crate's models need one of the two")]
pub(crate) enum Bound {
    /// Every interleaving.
    None,
    /// Those with so many preemptions at most.
    Preemptions(usize),
}

/// How many preemptions a bounded model may have when `LOOM_DEEP` is set.
const DEEP: usize = 4;

/// Explores `program`, and prints how many executions that took. `LOOM_MAX_PREEMPTIONS` overrides `bound`.
///
/// With `LOOM_DEEP`, a number of seconds, it is explored to `bound` first, all of it, and then deeper, until that many
/// seconds are over.
pub(crate) fn model(name: &str, bound: Bound, program: impl Fn() + Send + Sync + 'static) {
    let program = Arc::new(program);
    let mut builder = loom::model::Builder::new();
    if let Bound::Preemptions(bound) = bound {
        builder.preemption_bound = builder.preemption_bound.or(Some(bound));
    }
    explore(name, &builder, Arc::clone(&program));
    if let (Some(bound), Some(limit)) = (builder.preemption_bound, env::var("LOOM_DEEP").ok())
        && bound < DEEP
    {
        builder.preemption_bound = Some(DEEP);
        builder.max_duration = Some(Duration::from_secs(limit.parse().expect("LOOM_DEEP is a number of seconds")));
        // How often loom looks at the clock.
        builder.checkpoint_interval = 1000;
        explore(name, &builder, program);
    }
}

fn explore(name: &str, builder: &loom::model::Builder, program: Arc<impl Fn() + Send + Sync + 'static>) {
    let executions = Arc::new(Count::new(0));
    let start = Instant::now();
    builder.check({
        let executions = Arc::clone(&executions);
        move || {
            executions.fetch_add(1, Relaxed);
            program();
        }
    });
    let (executions, time) = (executions.load(Relaxed), start.elapsed());
    let bound = builder.preemption_bound.map_or("none".to_owned(), |bound| bound.to_string());
    // Loom does not say whether it came to the end.
    let cut_off = if builder.max_duration.is_some_and(|limit| time >= limit) { ", cut off" } else { "" };
    println!("\nmodel {name}: {executions} executions at bound {bound} in {:.2} s{cut_off}", time.as_secs_f64());
}

/// Counts, outside of the model, that a branch was reached.
pub(crate) fn hit(branch: &Count) {
    branch.fetch_add(1, Relaxed);
}
