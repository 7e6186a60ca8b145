//! One page that needs nothing else: the question, the winner, the margin, and the machine.

mod chart;

use core::fmt::Write;

use crate::log::Family;
use crate::report::chart::{Bar, Series, bars, lines};
use crate::results::{Entry, Metric, PERCENTILES, Results, RoundResult};
use crate::table::{metrics, short};
use crate::targets;
use crate::workloads::{WORKLOADS, Workload};

pub fn page(results: &Results) -> String {
    let mut body = head(results);
    body.push_str(&headlines(results));
    body.push_str(&target_table(results));
    for workload in WORKLOADS {
        let rounds: Vec<_> = results.rounds.iter().filter(|round| round.workload == workload.name).collect();
        if !rounds.is_empty() {
            body.push_str(&section(workload, &rounds));
        }
    }
    let style = include_str!("style.css");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>buffer_ring: limits, rivals, ourselves</title><style>{style}</style></head><body>{body}</body></html>\n"
    )
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let quick = if results.quick {
        "<p class=\"warning\">A quick run: it shows the shape, not numbers to quote.</p>"
    } else {
        ""
    };
    format!(
        "<h1>Limits, rivals, ourselves</h1>{quick}<p class=\"facts\">{}, {} hardware threads · {} · {} · device cache: {} · {} · \
         commit {} · {}</p>",
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

/// For each workload its most instructive rounds: our best, beside the limit and the best of the others.
fn headlines(results: &Results) -> String {
    let telling = [
        ("staging", 1),
        ("staging", 4),
        ("streaming", 1),
        ("durable", 1),
        ("durable", 16),
        ("durable", 64),
        ("memory-device", 16),
    ];
    let heads = telling.iter().filter_map(|&(workload, threads)| {
        let mut rounds = results.rounds.iter();
        headline(rounds.find(|round| round.workload == workload && round.threads == threads)?)
    });
    format!("<div class=\"heads\">{}</div>", heads.collect::<String>())
}

fn headline(round: &RoundResult) -> Option<String> {
    let metric = Metric::of(&round.workload);
    let ours = round.best(metric, |entry| entry.family == Family::Ours)?;
    let other = round.best(metric, |entry| matches!(entry.family, Family::Rival | Family::Baseline))?;
    // Of the medians that stand below it.
    let (mine, theirs) = (ours.spread(metric)?.median, other.spread(metric)?.median);
    let factor = if metric.more_is_better() { mine / theirs } else { theirs / mine };
    let class = if factor > 1.0 { "head win" } else { "head" };
    let threads = if round.threads == 1 { "1 thread".into() } else { format!("{} threads", round.threads) };
    Some(format!(
        "<div class=\"{class}\"><span>{}, {} B, {threads}</span><b>{factor:.2}×</b><strong>the speed of {}</strong>\
         <span>{}: {} against {} {}</span></div>",
        round.workload,
        round.size,
        escape(&other.name),
        escape(&ours.name),
        short(mine),
        short(theirs),
        metric.title(),
    ))
}

fn target_table(results: &Results) -> String {
    let rows = targets::verdicts(results).into_iter().map(|verdict| {
        let (class, word) = if verdict.met { ("met", "✓ met") } else { ("missed", "✗ not met") };
        let spread = verdict.measured;
        format!(
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{:.2} [{:.2}–{:.2}]</td><td>{}</td>\
             <td class=\"{class}\">{word}</td></tr>",
            verdict.number, verdict.what, verdict.wanted, spread.median, spread.low, spread.high, verdict.setting
        )
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h2>Targets</h2><p>Each is a ratio within one round: repetition by repetition the two values of the same moment are divided. \
         Shown are the median and the range, in the worst setting that the target speaks of.</p><div class=\"scroll\"><table>\
         <tr><th></th><th>beside</th><th class=\"number\">wanted</th><th class=\"number\">measured</th><th>where</th><th></th></tr>\
         {rows}</table></div>"
    )
}

fn section(workload: &Workload, rounds: &[&RoundResult]) -> String {
    let charts = match workload.name {
        "staging" => by_threads(rounds, Metric::NanosPerRecord),
        "durable" => format!(
            "{}{}",
            by_threads(rounds, Metric::RecordsPerSecond),
            rounds.iter().map(|round| percentiles(round)).collect::<String>()
        ),
        "streaming" => format!(
            "{}{}",
            side_by_side(rounds, Metric::MegabytesPerSecond),
            side_by_side(rounds, Metric::CpuPerGigabyte)
        ),
        "memory-device" => format!(
            "{}{}",
            side_by_side(rounds, Metric::RecordsPerSecond),
            rounds.iter().map(|round| percentiles(round)).collect::<String>()
        ),
        "latency" => rounds.iter().map(|round| percentiles(round)).collect(),
        _ => rounds
            .iter()
            .map(|round| {
                bar_chart(round, if round.size == 256 { Metric::DevicePerPayload } else { Metric::DevicePerRecord })
            })
            .collect(),
    };
    format!(
        "<h2>{}</h2><p>{} {}</p><div class=\"charts\">{charts}</div>{}",
        workload.name,
        workload.question,
        hint(workload.name),
        numbers(rounds)
    )
}

/// What one has to know to read the charts.
fn hint(workload: &str) -> &'static str {
    match workload {
        "staging" => {
            "Lower is better. Wall time over records of all threads together, so that two cores side by side halve it. Dashed: the machine’s limits."
        }
        "streaming" => {
            "256 bytes each, to one file, up to and with the last sync. Dashed: what a bare loop of 1 MiB writes does."
        }
        "durable" => {
            "100 bytes each. The loops of 4 KiB overwrites run alone in each round; lower is better for the percentiles."
        }
        "latency" => "Lower is better. Each append is timed; two threads write as fast as they can.",
        "space" => "Lower is better. Counted by the kernel for the whole device, journal included.",
        _ => "",
    }
}

/// One chart per record size, a line per contestant.
fn by_threads(rounds: &[&RoundResult], metric: Metric) -> String {
    let mut sizes: Vec<_> = rounds.iter().map(|round| round.size).collect();
    sizes.dedup();
    let chart = |size| {
        let rounds: Vec<_> = rounds.iter().filter(|round| round.size == size).collect();
        let settings: Vec<_> = rounds
            .iter()
            .map(|round| if round.threads == 1 { "1 thread".into() } else { format!("{}", round.threads) })
            .collect();
        let mut names: Vec<_> = Vec::new();
        for entry in rounds.iter().flat_map(|round| &round.entries).filter(|entry| entry.is_in()) {
            if !names.contains(&(&entry.name, entry.family)) {
                names.push((&entry.name, entry.family));
            }
        }
        let series: Vec<_> = names
            .iter()
            .map(|(name, family)| Series {
                name,
                class: class(name, *family),
                values: rounds.iter().map(|round| round.entry(name)?.spread(metric)).collect(),
            })
            .collect();
        figure(&lines(&format!("{size} B"), &metric.title(), &settings, &series))
    };
    sizes.into_iter().map(chart).collect()
}

fn percentiles(round: &RoundResult) -> String {
    let timed: Vec<_> =
        round.entries.iter().filter(|entry| entry.is_in() && entry.spread(Metric::P50).is_some()).collect();
    let settings: Vec<_> = PERCENTILES.iter().map(|at| format!("p{at}")).collect();
    let series: Vec<_> = timed
        .iter()
        .map(|entry| Series {
            name: &entry.name,
            class: class(&entry.name, entry.family),
            values: (0..PERCENTILES.len()).map(|index| entry.spread(Metric::Percentile(index))).collect(),
        })
        .collect();
    figure(&lines(&format!("latency, {} B, {} threads", round.size, round.threads), "µs", &settings, &series))
}

fn side_by_side(rounds: &[&RoundResult], metric: Metric) -> String {
    rounds.iter().map(|round| bar_chart(round, metric)).collect()
}

fn bar_chart(round: &RoundResult, metric: Metric) -> String {
    let limit = round.best(metric, |entry| entry.family == Family::Limit);
    let rows: Vec<_> = sorted(round, metric)
        .into_iter()
        .filter_map(|entry| {
            let beside = limit.filter(|limit| metric.more_is_better() && limit.name != entry.name);
            let note = beside.and_then(|limit| Some(format!("{:.2}× limit", entry.ratio(limit, metric)?.median)));
            Some(Bar {
                name: &entry.name,
                class: class(&entry.name, entry.family),
                value: entry.spread(metric)?,
                note: note.unwrap_or_default(),
            })
        })
        .collect();
    let reference = limit.filter(|_| metric.more_is_better()).and_then(|limit| Some(limit.spread(metric)?.median));
    let threads = if round.threads == 1 { "1 thread".into() } else { format!("{} threads", round.threads) };
    figure(&bars(&format!("{} B, {threads}", round.size), &metric.title(), &rows, reference))
}

/// The best first.
fn sorted(round: &RoundResult, metric: Metric) -> Vec<&Entry> {
    let mut entries: Vec<_> = round.entries.iter().filter(|entry| entry.is_in()).collect();
    let value = |entry: &Entry| {
        entry
            .spread(metric)
            .map_or(f64::MAX, |spread| if metric.more_is_better() { -spread.median } else { spread.median })
    };
    entries.sort_by(|one, other| value(one).total_cmp(&value(other)));
    entries
}

fn numbers(rounds: &[&RoundResult]) -> String {
    let mut table =
        String::from("<details><summary>all numbers: median [range]</summary><div class=\"scroll\"><table>");
    for round in rounds {
        let metrics = metrics(&round.workload);
        _ = write!(table, "<tr><th>{} B, {} threads</th>", round.size, round.threads);
        metrics.iter().for_each(|metric| _ = write!(table, "<th class=\"number\">{}</th>", metric.title()));
        table.push_str("</tr>");
        for entry in &round.entries {
            _ = write!(table, "<tr><td>{}</td>", escape(&entry.name));
            if let Some(reason) = &entry.disqualified {
                _ = write!(table, "<td colspan=\"{}\" class=\"missed\">out: {}</td>", metrics.len(), escape(reason));
            } else {
                for &metric in metrics {
                    let told = entry
                        .spread(metric)
                        .map(|all| format!("{} [{}–{}]", short(all.median), short(all.low), short(all.high)));
                    _ = write!(table, "<td class=\"number\">{}</td>", told.unwrap_or_default());
                }
            }
            table.push_str("</tr>");
        }
    }
    table.push_str("</table></div></details>");
    table
}

fn figure(svg: &str) -> String {
    if svg.is_empty() { String::new() } else { format!("<figure>{svg}</figure>") }
}

/// The same contestant has the same colour everywhere.
fn class(name: &str, family: Family) -> String {
    let number = |names: &[&str]| names.iter().position(|part| name.contains(part)).unwrap_or(names.len());
    match family {
        Family::Limit => "limit".into(),
        Family::Ours => format!(
            "ours-{}",
            match name {
                name if name.contains("session") => 2,
                name if name.contains("growing") || name.contains("zero-filled") => 1,
                _ => 0,
            }
        ),
        Family::Baseline => format!("b{}", number(&["mutex"])),
        Family::Rival => format!("r{}", number(&["raft", "okaywal", "Rocks", "glommio"])),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
