//! Runs the loom models and shows how much each one explored.
//!
//! A model reports with one line, `model <name>: <n> executions at bound <b> in <s> s`. A run without such a line proves nothing
//! (a filter that matches no test, a test file compiled without `--cfg loom`) and counts as failed.
//!
//! With `--deep` a model that is bounded reports twice: as far as it goes here, and with four preemptions, until it has been at that
//! for [`DEEP_SECONDS`]. If it was not done then, its line ends with `, cut off`, and the table says so.

use crate::models::{PROGRAMS, Program};
use crate::run::{run_and_read, rustflags, target};

/// How long one model may explore deeper. All of them together end within the six hours of a nightly job.
const DEEP_SECONDS: &str = "600";

#[derive(Debug, PartialEq)]
struct Model {
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
    if let Some(flag) = flags.iter().find(|flag| **flag != "--deep") {
        return Err(format!("loom does not know `{flag}`: cargo xtask loom [--deep] [filter]"));
    }
    let deep = !flags.is_empty();

    let (flags, target) = (rustflags("--cfg loom"), target("loom"));
    let mut variables = vec![("RUSTFLAGS", &*flags), ("CARGO_TARGET_DIR", &*target)];
    if deep {
        variables.push(("LOOM_DEEP", DEEP_SECONDS));
    }

    let mut models = Vec::new();
    for Program { package, target, .. } in PROGRAMS {
        let mut line = format!("cargo test --profile loom -p {package} {target} -- --nocapture --test-threads=2");
        // A library's other tests know nothing of loom.
        line.push_str(" --skip tests::");
        for filter in &filters {
            line.push(' ');
            line.push_str(filter);
        }
        let before = models.len();
        models.extend(run_and_read(&variables, &line)?.lines().filter_map(parse));
        if models.len() == before && filters.is_empty() {
            return Err(format!("no model of {package} ({target}) has reported, so nothing was shown"));
        }
    }
    if models.is_empty() {
        return Err("no model has reported: does the filter match one?".into());
    }
    print!("\n{}", table(&models));
    Ok(())
}

/// The report in a line, if there is one. The test harness may have begun the line: `test <name> ... model ...`.
fn parse(line: &str) -> Option<Model> {
    let (before, report) = line.split_once("model ")?;
    if !before.is_empty() && !before.ends_with("... ") {
        return None;
    }
    let (name, numbers) = report.split_once(": ")?;
    let (executions, rest) = numbers.split_once(" executions at bound ")?;
    let (bound, time) = rest.split_once(" in ")?;
    let time = time.trim_end();
    let (time, cut_off) = time.strip_suffix(", cut off").map_or((time, false), |time| (time, true));
    let (executions, seconds) = (executions.parse().ok()?, time.strip_suffix(" s")?.parse().ok()?);
    Some(Model { name: name.into(), executions, bound: bound.into(), seconds, cut_off })
}

fn table(models: &[Model]) -> String {
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0).max("model".len());
    let mut table = format!("{:<width$}  {:>12}  {:>5}  {:>8}\n", "model", "executions", "bound", "time");
    for Model { name, executions, bound, seconds, cut_off } in models {
        let time = if *cut_off { format!("cut off after {seconds:.0} s") } else { format!("{seconds:>6.1} s") };
        table.push_str(&format!("{name:<width$}  {executions:>12}  {bound:>5}  {time}\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, executions: u64, seconds: f64) -> Option<Model> {
        Some(Model { name: name.into(), executions, bound: "3".into(), seconds, cut_off: false })
    }

    #[test]
    fn a_report_is_found_alone_and_behind_the_harness() {
        let expected = model("one_sealer", 40_123, 3.25);
        assert_eq!(parse("model one_sealer: 40123 executions at bound 3 in 3.25 s"), expected);
        assert_eq!(parse("test one_sealer ... model one_sealer: 40123 executions at bound 3 in 3.25 s"), expected);
        assert_eq!(parse("model tiny: 1 executions at bound 3 in 0 s"), model("tiny", 1, 0.0));
        let unfinished = parse("model large: 7000 executions at bound 3 in 600.5 s, cut off");
        assert_eq!(unfinished, model("large", 7000, 600.5).map(|model| Model { cut_off: true, ..model }));
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
