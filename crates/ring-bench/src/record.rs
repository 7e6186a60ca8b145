//! The results, as the chapter that quotes them has them: between two marks of `docs/BENCHMARKING.md`.

use core::fmt::Write;
use std::fs;
use std::path::Path;

use crate::log::Outcome;
use crate::results::{Entry, Results, RoundResult};
use crate::table::{metrics, short};
use crate::workloads::WORKLOADS;

const BEGIN: &str = "<!-- results: written by `cargo xtask bench --record` -->\n";
const END: &str = "<!-- end of results -->\n";

/// Puts the results into the chapter at `path`, in the place of the earlier ones.
pub fn record(results: &Results, path: &Path) -> Outcome<()> {
    let chapter = fs::read_to_string(path)?;
    let (before, rest) = chapter.split_once(BEGIN).ok_or("the chapter has no place for results")?;
    let (_, after) = rest.split_once(END).ok_or("the chapter's results have no end")?;
    fs::write(path, format!("{before}{BEGIN}{}\n{END}{after}", text(results)))?;
    Ok(())
}

fn text(results: &Results) -> String {
    let mut text = machine(results);
    for workload in WORKLOADS {
        let rounds = results.of(workload.name);
        if !rounds.is_empty() {
            _ = writeln!(text, "\n### {}\n\n{}", workload.name, workload.question);
            text.push_str(&table(&rounds));
        }
    }
    text
}

/// Names what was measured, and when.
pub fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let quick = if results.quick { "A quick run, not to be quoted. " } else { "" };
    format!(
        "\n{quick}{}, {} hardware threads; {}; {}; device cache: {}; {}; commit {}; {}.\n",
        machine.processor,
        machine.threads,
        machine.kernel,
        machine.mount,
        machine.cache,
        machine.compiler,
        machine.commit,
        machine.date
    )
}

/// The table of a workload's rounds.
pub fn table(rounds: &[&RoundResult]) -> String {
    let metrics = metrics(&rounds[0].workload);
    let mut text = String::from("\n| |");
    metrics.iter().for_each(|metric| _ = write!(text, " {} |", metric.title()));
    _ = writeln!(text, "\n|---|{}", "---|".repeat(metrics.len()));
    rounds.iter().for_each(|round| rows(&mut text, round));
    text
}

fn rows(text: &mut String, round: &RoundResult) {
    for entry in &round.entries {
        _ = write!(text, "| {} B, {} thr., {} |", round.size, round.threads, entry.name);
        cells(text, round, entry);
        text.push('\n');
    }
}

fn cells(text: &mut String, round: &RoundResult, entry: &Entry) {
    for &metric in metrics(&round.workload) {
        let cell = match (&entry.disqualified, entry.spread(metric)) {
            (Some(reason), _) => format!("out: {reason}"),
            (None, Some(all)) => format!("{} [{}–{}]", short(all.median), short(all.low), short(all.high)),
            (None, None) => String::new(),
        };
        _ = write!(text, " {cell} |");
    }
}
