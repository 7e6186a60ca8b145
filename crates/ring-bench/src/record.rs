//! The results, as the chapter that quotes them has them: between two marks of `docs/BENCHMARKING.md`.

use core::fmt::Write;
use std::fs;
use std::path::Path;

use crate::log::Outcome;
use crate::results::{Entry, Results, RoundResult};
use crate::table::{metrics, short};
use crate::targets;
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
    let machine = &results.machine;
    let mut text = String::new();
    let quick = if results.quick { "A quick run, not to be quoted. " } else { "" };
    _ = write!(
        text,
        "\n{quick}{}, {} hardware threads; {}; {}; device cache: {}; {}; commit {}; {}.\n",
        machine.processor,
        machine.threads,
        machine.kernel,
        machine.mount,
        machine.cache,
        machine.compiler,
        machine.commit,
        machine.date
    );
    let verdicts = targets::verdicts(results);
    if !verdicts.is_empty() {
        text.push_str("\n| | ours beside | wanted | measured | where | |\n|---|---|---|---|---|---|\n");
    }
    for verdict in verdicts {
        let word = if verdict.met { "met" } else { "**not met**" };
        let spread = verdict.measured;
        _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} [{:.2}–{:.2}] | {} | {word} |",
            verdict.number, verdict.what, verdict.wanted, spread.median, spread.low, spread.high, verdict.setting
        );
    }
    for workload in WORKLOADS {
        let rounds: Vec<_> = results.rounds.iter().filter(|round| round.workload == workload.name).collect();
        if let Some(first) = rounds.first() {
            _ = write!(text, "\n### {}\n\n{}\n\n| |", workload.name, workload.question);
            let metrics = metrics(&first.workload);
            metrics.iter().for_each(|metric| _ = write!(text, " {} |", metric.title()));
            _ = writeln!(text, "\n|---|{}", "---|".repeat(metrics.len()));
        }
        rounds.into_iter().for_each(|round| rows(&mut text, round));
    }
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
        let told = match (&entry.disqualified, entry.spread(metric)) {
            (Some(reason), _) => format!("out: {reason}"),
            (None, Some(all)) => format!("{} [{}–{}]", short(all.median), short(all.low), short(all.high)),
            (None, None) => String::new(),
        };
        _ = write!(text, " {told} |");
    }
}
