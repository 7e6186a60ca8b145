//! Running a model, and telling how much it explored. Shared by the models of the word and those of the ring.

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::Relaxed;
use std::env;
use std::time::Instant;

/// How much of a model is explored.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each crate's models need one of the two")]
pub(crate) enum Bound {
    /// Every interleaving.
    None,
    /// Those with so many preemptions at most; one more when `LOOM_DEEP` is set.
    Preemptions(usize),
}

/// Explores `program`, and prints how many executions that took. `LOOM_MAX_PREEMPTIONS` overrides `bound`.
pub(crate) fn model(name: &str, bound: Bound, program: impl Fn() + Send + Sync + 'static) {
    let executions: &Count = Box::leak(Box::default());
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none()
        && let Bound::Preemptions(bound) = bound
    {
        builder.preemption_bound = Some(bound + usize::from(env::var_os("LOOM_DEEP").is_some()));
    }
    let bound = builder.preemption_bound.map_or("none".to_owned(), |bound| bound.to_string());
    let start = Instant::now();
    builder.check(move || {
        executions.fetch_add(1, Relaxed);
        program();
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("\nmodel {name}: {} executions at bound {bound} in {seconds:.2} s", executions.load(Relaxed));
}

/// Counts, outside of the model, that a branch was reached.
pub(crate) fn hit(branch: &Count) {
    branch.fetch_add(1, Relaxed);
}
