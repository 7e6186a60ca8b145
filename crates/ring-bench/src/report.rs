//! A page of Markdown with a picture for each question, an SVG file beside it.

mod picture;

use core::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::log::{Family, Outcome};
use crate::record;
use crate::report::picture::{Picture, Series};
use crate::results::{Entry, Metric, PERCENTILES, Results, RoundResult};
use crate::table::short;
use crate::workloads::WORKLOADS;

/// Writes the page and its pictures into `folder`, and returns the path of the page.
pub fn write(results: &Results, folder: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut page = format!("# Limits, rivals, ourselves\n{}\n", record::machine(results));
    results.rounds.iter().filter_map(headline).for_each(|line| page.push_str(&line));
    for workload in WORKLOADS {
        let rounds = results.of(workload.name);
        if rounds.is_empty() {
            continue;
        }
        _ = writeln!(page, "\n## {}\n\n{} {}\n", workload.name, workload.question, hint(workload.name));
        for (number, picture) in pictures(workload.name, &rounds).iter().enumerate() {
            let file = format!("{}-{number}.svg", workload.name);
            picture.draw(&folder.join(&file))?;
            _ = writeln!(page, "![{}]({file})", picture.title);
        }
        page.push_str(&record::table(&rounds));
    }
    let path = folder.join("report.md");
    fs::write(&path, page)?;
    Ok(path)
}

/// One line for a round: our best beside the best of the others.
fn headline(round: &RoundResult) -> Option<String> {
    let metric = Metric::of(&round.workload);
    let ours = round.best(metric, |entry| entry.family == Family::Ours)?;
    let other = round.best(metric, |entry| matches!(entry.family, Family::Rival | Family::Baseline))?;
    let (mine, theirs) = (ours.spread(metric)?.median, other.spread(metric)?.median);
    let factor = if metric.more_is_better() { mine / theirs } else { theirs / mine };
    Some(format!(
        "- {}, {}: **{factor:.2}×** the speed of {} ({}: {} against {} {})\n",
        round.workload,
        setting(round),
        other.name,
        ours.name,
        short(mine),
        short(theirs),
        metric.title(),
    ))
}

/// What to know to read the pictures.
fn hint(workload: &str) -> &'static str {
    match workload {
        "staging" => "Lower is better. Wall time over the records of all threads: two cores side by side halve it.",
        "streaming" => "256 bytes each, to one file, up to and with the last sync.",
        "durable" => "100 bytes each. The loops of 4 KiB overwrites run alone in each round.",
        "latency" => "Lower is better. Each append is timed; two threads write as fast as they can.",
        "log-append" => {
            "Lower is better. All but the copy and the ring in memory also write to a file meanwhile; wall time."
        }
        "log-streaming" => "To files that grow, up to and with the last sync.",
        "log-commit" => "100 bytes each. Small segments are of 1 MiB, the others of 64 MiB.",
        "log-recovery" => {
            "Payload per second. By as many threads as there are processors, scans by one; direct reads by four."
        }
        "log-follow" => "Lower is better. All records are in the memory of the ring, and durable.",
        "log-tail" => "Lower is better. One record in a millisecond, timed from before its append.",
        "space" => "Lower is better. Counted by the kernel for the whole device, journal included.",
        _ => "",
    }
}

fn pictures<'a>(workload: &str, rounds: &[&'a RoundResult]) -> Vec<Picture<'a>> {
    let side_by_side = |metric| rounds.iter().map(move |round| bars(round, metric));
    let percentiles = rounds.iter().filter_map(|round| percentiles(round));
    match workload {
        "staging" => by_threads(rounds, Metric::NanosPerRecord),
        "durable" | "log-commit" => {
            by_threads(rounds, Metric::RecordsPerSecond).into_iter().chain(percentiles).collect()
        }
        "log-append" | "log-follow" => side_by_side(Metric::NanosPerRecord).collect(),
        "streaming" | "log-streaming" | "log-recovery" => {
            side_by_side(Metric::MegabytesPerSecond).chain(side_by_side(Metric::CpuPerGigabyte)).collect()
        }
        "memory-device" => side_by_side(Metric::RecordsPerSecond).chain(percentiles).collect(),
        "latency" | "log-tail" => percentiles.collect(),
        _ => {
            let metric = |size| if size == 256 { Metric::DevicePerPayload } else { Metric::DevicePerRecord };
            rounds.iter().map(|round| bars(round, metric(round.size))).collect()
        }
    }
}

fn setting(round: &RoundResult) -> String {
    format!("{} B, {} thread{}", round.size, round.threads, if round.threads == 1 { "" } else { "s" })
}

/// A picture for each record size, with a line for each contestant.
fn by_threads<'a>(rounds: &[&'a RoundResult], metric: Metric) -> Vec<Picture<'a>> {
    let by_size = rounds.chunk_by(|one, other| one.size == other.size).map(|rounds| {
        let mut series: Vec<Series<'a>> = Vec::new();
        for entry in rounds.iter().flat_map(|round| &round.entries).filter(|entry| entry.is_in()) {
            if series.iter().all(|one| one.name != entry.name) {
                let values = rounds.iter().map(|round| round.entry(&entry.name)?.spread(metric)).collect();
                series.push(Series::new(entry, values));
            }
        }
        Picture {
            title: format!("{} B, by threads", rounds[0].size),
            unit: metric.title(),
            axis: "threads",
            settings: rounds.iter().map(|round| round.threads.to_string()).collect(),
            series,
        }
    });
    by_size.collect()
}

fn percentiles<'a>(round: &'a RoundResult) -> Option<Picture<'a>> {
    let timed = round.entries.iter().filter(|entry| entry.is_in() && entry.spread(Metric::P50).is_some());
    let values = |entry: &Entry| (0..PERCENTILES.len()).map(|at| entry.spread(Metric::Percentile(at))).collect();
    let series: Vec<_> = timed.map(|entry| Series::new(entry, values(entry))).collect();
    (!series.is_empty()).then(|| Picture {
        title: format!("latency, {}", setting(round)),
        unit: "µs".into(),
        axis: "percentile",
        settings: PERCENTILES.iter().map(|at| format!("p{at}")).collect(),
        series,
    })
}

fn bars<'a>(round: &'a RoundResult, metric: Metric) -> Picture<'a> {
    let entries = round.entries.iter().filter(|entry| entry.is_in());
    Picture {
        title: setting(round),
        unit: metric.title(),
        axis: "",
        settings: vec![String::new()],
        series: entries.map(|entry| Series::new(entry, vec![entry.spread(metric)])).collect(),
    }
}
