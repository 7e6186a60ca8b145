//! The numbers, for a terminal.

use crate::results::{Entry, Metric, Results, RoundResult};
use crate::targets;
use crate::workloads::WORKLOADS;

pub fn print(results: &Results) {
    let machine = &results.machine;
    println!("\n{} ({} threads), {}", machine.processor, machine.threads, machine.kernel);
    println!("{}, cache: {}; {}, commit {}", machine.mount, machine.cache, machine.compiler, machine.commit);
    for workload in WORKLOADS {
        let rounds = results.of(workload.name);
        if !rounds.is_empty() {
            println!("\n{}: {}", workload.name, workload.question);
        }
        rounds.into_iter().for_each(print_round);
    }
    let verdicts = targets::verdicts(results);
    if !verdicts.is_empty() {
        println!("\ntargets (worst setting; median, and range of the repetitions)");
    }
    for verdict in verdicts {
        let word = if verdict.met { "met    " } else { "NOT MET" };
        let spread = verdict.measured;
        println!(
            "  {} {word} {:>6.2} [{:.2}–{:.2}] {:<7} {} ({})",
            verdict.number, spread.median, spread.low, spread.high, verdict.wanted, verdict.what, verdict.setting
        );
    }
}

/// What is shown of a workload: what decides, and what it cost.
pub fn metrics(workload: &str) -> &'static [Metric] {
    match workload {
        "staging" | "log-follow" => &[Metric::NanosPerRecord],
        "log-tail" => &[Metric::P50, Metric::P99, Metric::P999],
        "log-append" => &[Metric::NanosPerRecord, Metric::MegabytesPerSecond, Metric::CpuPerGigabyte],
        "log-streaming" => &[Metric::MegabytesPerSecond, Metric::CpuPerGigabyte, Metric::DevicePerPayload],
        "log-commit" => &[Metric::RecordsPerSecond, Metric::P50, Metric::P99, Metric::P999, Metric::DevicePerRecord],
        "log-recovery" => &[Metric::MegabytesPerSecond, Metric::CpuPerGigabyte, Metric::ReadPerPayload],
        "streaming" => &[Metric::MegabytesPerSecond, Metric::CpuPerGigabyte, Metric::DevicePerPayload],
        "latency" => &[Metric::P999, Metric::P99, Metric::P50, Metric::MegabytesPerSecond],
        "space" => &[Metric::DevicePerPayload, Metric::DevicePerRecord, Metric::FilePerPayload],
        _ => &[Metric::RecordsPerSecond, Metric::P50, Metric::P99, Metric::DevicePerRecord],
    }
}

fn print_round(round: &RoundResult) {
    let metrics = metrics(&round.workload);
    print!("\n  {:<34}", format!("{} B, {} threads", round.size, round.threads));
    metrics.iter().for_each(|metric| print!(" {:>32}", metric.title()));
    println!();
    for entry in &round.entries {
        print!("  {:<34}", entry.name);
        match &entry.disqualified {
            Some(reason) => print!(" out: {reason}"),
            None => metrics.iter().for_each(|&metric| print!(" {:>32}", cell(entry, metric))),
        }
        println!();
    }
}

fn cell(entry: &Entry, metric: Metric) -> String {
    entry.spread(metric).map_or_else(String::new, |spread| {
        format!("{} [{}–{}]", short(spread.median), short(spread.low), short(spread.high))
    })
}

/// Three digits that matter.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
