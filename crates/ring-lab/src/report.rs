//! What is shown during a run and at its end, and what is kept of a failure.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::explore::Violation;
use crate::log::Log;

/// Where the logs of failures are kept, from the root of the checkout.
const KEPT: &str = "target/lab";

pub(crate) fn progress(what: &str, count: u64) -> ProgressBar {
    let template = "{msg:<28} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count).with_style(style).with_message(what.to_owned())
}

/// Keeps `log`, and returns what is wrong with it and how to reproduce it.
pub(crate) fn violation(log: &Log, violation: &Violation) -> String {
    let Violation { position, choice, what } = violation;
    let report =
        format!("VIOLATION after event {position} of {}: {what}\n  {choice}\n  {}", log.events.len(), log.setting);
    let path = PathBuf::from(KEPT).join(format!("{:016x}.log", log.seed));
    match fs::create_dir_all(KEPT).and_then(|()| log.save(&path)) {
        Ok(()) => format!("{report}\n  replay: cargo xtask crash --log {}", path.display()),
        Err(error) => format!("{report}\n  the log of seed {} cannot be kept: {error}", log.seed),
    }
}

/// A table with the first column to the left, and the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(n, cell)| match n {
            0 => format!("{cell:<width$}", width = widths[n]),
            _ => format!("{cell:>width$}", width = widths[n]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

pub(crate) fn rate(number: u64, time: Duration) -> String {
    count((number as f64 / time.as_secs_f64().max(1e-9)) as u64)
}
