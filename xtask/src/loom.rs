//! Runs the loom models, each in a process of its own and one on each processor, and shows how much each one explored.
//!
//! A model reports with one line, `model <name>: <n> executions at bound <b> in <s> s`. A run without such a line
//! proves nothing, and counts as failed; and so does a program without models (a test file compiled without `--cfg
//! loom`).
//!
//! With `--quick`, as in the gate, the longest models explore less. With `--deep` a model that is bounded reports
//! twice: as far as it goes here, and with four preemptions, until it has been at that for [`DEEP_SECONDS`]. If it was
//! not done then, its line ends with `, cut off`, and the table says so.

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use crate::models::{Model, PROGRAMS};
use crate::run::{root, run_and_read, rustflags, target};

/// The models that take longest. In the gate they have [`FEW`] preemptions, and all of theirs in the nightly run.
const LONG: [&str; 15] = [
    "a_deferred_flush_wakes_a_thread_that_waits_for_room",
    "an_append_is_covered_by_its_own_sync",
    "two_threads_lap_the_ring",
    "a_reader_never_meets_the_next_generation",
    "optimistic_appends_fill_buffers_that_go_out_once",
    "a_writer_that_sees_the_ring_poisoned_appends_nothing",
    "all_that_wait_for_room_go_on",
    "a_sealer_opens_the_next_buffer",
    "a_deferred_flush_goes_out_once_when_it_is_requested",
    "an_opener_fetches_a_thread_that_waits_for_room_from_the_device",
    "a_lease_is_taken_back_as_what_it_is",
    "a_driver_that_leaves_has_a_successor",
    "a_device_error_reaches_a_thread_that_waits_for_durability",
    "an_opener_wakes_a_thread_that_waits_for_room",
    "three_writers_agree_on_which_one_overflows",
];

/// Preemptions of a long model in the gate.
const FEW: &str = "2";

/// How long one model may explore deeper. All of them together end within the six hours of a nightly job.
const DEEP_SECONDS: &str = "600";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Depth {
    Quick,
    Usual,
    Deep,
}

#[derive(Debug, PartialEq)]
struct Explored {
    name: String,
    executions: u64,
    /// Preemptions explored, or `none` for every interleaving.
    bound: String,
    seconds: f64,
    /// Whether it was stopped before it had explored all of that.
    cut_off: bool,
}

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let (flags, filters): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let depth = match flags.as_slice() {
        [] => Depth::Usual,
        [flag] if *flag == "--quick" => Depth::Quick,
        [flag] if *flag == "--deep" => Depth::Deep,
        [flag, ..] => {
            return Err(format!("loom does not know `{flag}`: cargo xtask loom [--quick | --deep] [filter]"));
        }
    };

    let (flags, target) = (rustflags("--cfg loom"), target("loom"));
    let variables = [("RUSTFLAGS", &*flags), ("CARGO_TARGET_DIR", &*target)];

    let mut work = Vec::new();
    for program in PROGRAMS {
        let built = root().join(program.built(&run_and_read(&variables, &format!("cargo {}", program.build()))?)?);
        let models = program.models(&built, &filters)?;
        if models.is_empty() && filters.is_empty() {
            return Err(format!("{} ({}) has no models, so nothing was shown", program.package, program.target));
        }
        work.extend(models.into_iter().map(|model| (built.clone(), model)));
    }
    if work.is_empty() {
        return Err("no model has such a name".into());
    }
    let (explored, failed) = explore_all(&work, depth);
    print!("\n{}", table(&explored));
    match failed.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!(
            "{} of {} models failed, and said why above: {}\n\
             one of them alone, with the places of what it did: LOOM_LOCATION=1 cargo xtask loom {}",
            failed.len(),
            work.len(),
            failed.join(", "),
            first
        )),
    }
}

/// Explores all models, as many at once as there are processors. Gives the reports, in their order, and the models that
/// failed.
fn explore_all(work: &[(PathBuf, Model)], depth: Depth) -> (Vec<Explored>, Vec<&str>) {
    let bar = ProgressBar::new(work.len() as u64);
    bar.set_style(ProgressStyle::with_template("[{elapsed}] {pos} of {len} {wide_msg}").expect("well formed"));
    bar.enable_steady_tick(Duration::from_secs(1));
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let one_after_the_other = || {
        loop {
            let number = next.fetch_add(1, Relaxed);
            let Some((built, model)) = work.get(number) else { break };
            bar.set_message(model.test.clone());
            let outcome = explore(built, model, depth);
            bar.suspend(|| match &outcome {
                Ok(reports) => reports.iter().for_each(|report| {
                    println!(
                        "{}: {} executions at bound {}, {}",
                        report.name,
                        report.executions,
                        report.bound,
                        report.time().trim()
                    )
                }),
                Err(why) => println!("\n{} FAILED: {why}", model.test),
            });
            bar.inc(1);
            outcomes.lock().expect("not poisoned").push((number, outcome));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(one_after_the_other);
        }
    });
    bar.finish_and_clear();

    let mut outcomes = outcomes.into_inner().expect("not poisoned");
    outcomes.sort_by_key(|(number, _)| *number);
    let (mut explored, mut failed) = (Vec::new(), Vec::new());
    for (number, outcome) in outcomes {
        match outcome {
            Ok(reports) => explored.extend(reports),
            Err(_) => failed.push(work[number].1.test.as_str()),
        }
    }
    (explored, failed)
}

/// Explores one model, and gives what it reports, or all that it printed if it failed.
fn explore(built: &Path, model: &Model, depth: Depth) -> Result<Vec<Explored>, String> {
    let mut command = model.command(built);
    match depth {
        Depth::Quick if LONG.contains(&model.name()) => _ = command.env("LOOM_MAX_PREEMPTIONS", FEW),
        Depth::Quick | Depth::Usual => {}
        Depth::Deep => _ = command.env("LOOM_DEEP", DEEP_SECONDS),
    }
    let output = command.output().map_err(|error| format!("cannot start {}: {error}", built.display()))?;
    let said = [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat();
    let reports: Vec<_> = said.lines().filter_map(parse).collect();
    if !output.status.success() {
        Err(format!("{}\n{said}", output.status))
    } else if reports.is_empty() {
        Err(format!("it has reported nothing, so nothing was shown\n{said}"))
    } else {
        Ok(reports)
    }
}

impl Explored {
    fn time(&self) -> String {
        let seconds = self.seconds;
        if self.cut_off { format!("cut off after {seconds:.0} s") } else { format!("{seconds:>6.1} s") }
    }
}

/// The report in a line, if there is one.
fn parse(line: &str) -> Option<Explored> {
    let (name, numbers) = line.strip_prefix("model ")?.split_once(": ")?;
    let (executions, rest) = numbers.split_once(" executions at bound ")?;
    let (bound, time) = rest.split_once(" in ")?;
    let time = time.trim_end();
    let (time, cut_off) = time.strip_suffix(", cut off").map_or((time, false), |time| (time, true));
    let (executions, seconds) = (executions.parse().ok()?, time.strip_suffix(" s")?.parse().ok()?);
    Some(Explored { name: name.into(), executions, bound: bound.into(), seconds, cut_off })
}

fn table(models: &[Explored]) -> String {
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0).max("model".len());
    let mut table = format!("{:<width$}  {:>12}  {:>5}  {:>8}\n", "model", "executions", "bound", "time");
    for model in models {
        let Explored { name, executions, bound, .. } = model;
        table.push_str(&format!("{name:<width$}  {executions:>12}  {bound:>5}  {}\n", model.time()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    #[test]
    fn the_longest_models_are_models() {
        for name in LONG {
            assert_eq!(models::find(name).expect("a model").name(), name);
        }
    }

    fn model(name: &str, executions: u64, seconds: f64) -> Option<Explored> {
        Some(Explored { name: name.into(), executions, bound: "3".into(), seconds, cut_off: false })
    }

    #[test]
    fn a_report_has_a_line() {
        let expected = model("one_sealer", 40_123, 3.25);
        assert_eq!(parse("model one_sealer: 40123 executions at bound 3 in 3.25 s"), expected);
        assert_eq!(parse("model tiny: 1 executions at bound 3 in 0 s"), model("tiny", 1, 0.0));
        let unfinished = parse("model large: 7000 executions at bound 3 in 600.5 s, cut off");
        assert_eq!(unfinished, model("large", 7000, 600.5).map(|model| Explored { cut_off: true, ..model }));
    }

    #[test]
    fn other_lines_are_no_reports() {
        for line in [
            "",
            "running 3 tests",
            "test model_of_the_word ... ok",
            "model one_sealer: many executions at bound 3 in 3 s",
            "model one_sealer: 7 executions at bound 3 in 3 ms",
            "model one_sealer: 7 executions",
            "the model one_sealer: 7 executions at bound 3 in 3 s",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_table_is_as_wide_as_its_longest_name() {
        let mut models =
            [model("a_rather_long_name", 7, 0.04), model("short", 1_000_000, 61.0), model("x", 8000, 600.2)]
                .map(Option::unwrap);
        models[2].cut_off = true;
        let expected = "\
model                 executions  bound      time
a_rather_long_name             7      3     0.0 s
short                    1000000      3    61.0 s
x                           8000      3  cut off after 600 s
";
        assert_eq!(table(&models), expected);
    }
}
