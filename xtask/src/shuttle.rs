//! Runs the programs that are too large for loom, in random schedules.
//!
//! Each run begins at another seed, unless one is given; a schedule that fails prints the command that repeats it. A
//! run in which no program reports, `program <name>: <n> schedules ...`, proves nothing, and counts as failed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::{run_and_read, rustflags, target};

/// Of all programs together: half a minute on two cores.
const SCHEDULES: u64 = 20_000;

const USAGE: &str = "cargo xtask shuttle [--schedules n] [--seed s] [filter]";

#[derive(Debug, PartialEq)]
struct Args<'a> {
    schedules: u64,
    seed: Option<u64>,
    filters: Vec<&'a str>,
}

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let Args { schedules, seed, filters } = args(arguments)?;
    let (flags, target) = (rustflags("--cfg shuttle"), target("shuttle"));
    let (schedules, seed) = (schedules.to_string(), seed.unwrap_or_else(some_seed).to_string());
    let variables = [
        ("RUSTFLAGS", &*flags),
        ("CARGO_TARGET_DIR", &*target),
        ("BUFFER_RING_SCHEDULES", &*schedules),
        ("BUFFER_RING_SEED", &*seed),
    ];
    let line = "cargo test --profile loom -p buffer_ring --test shuttle -- --nocapture --test-threads=2";
    let line = [&[line], &filters[..]].concat().join(" ");
    let total: u64 = run_and_read(&variables, &line)?.lines().filter_map(schedules_in).sum();
    if total == 0 {
        return Err("no program has reported: does the filter match one?".into());
    }
    println!("{total} schedules, from seed {seed} on, and none failed");
    Ok(())
}

fn args(arguments: &[String]) -> Result<Args<'_>, String> {
    let mut args = Args { schedules: SCHEDULES, seed: None, filters: Vec::new() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.ok_or(format!("a number has to follow {argument}: {USAGE}"))
        };
        match argument.as_str() {
            "--schedules" => args.schedules = number()?,
            "--seed" => args.seed = Some(number()?),
            flag if flag.starts_with('-') => return Err(format!("shuttle does not know `{flag}`: {USAGE}")),
            filter => args.filters.push(filter),
        }
    }
    Ok(args)
}

/// Another one each second, and far from those of the runs before. Short, because people type it.
fn some_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() % 1_000_000_000 * 1_000_000)
}

/// The number of schedules in a line that is a report.
fn schedules_in(line: &str) -> Option<u64> {
    let (_, report) = line.strip_prefix("program ")?.split_once(": ")?;
    report.split_once(" schedules from seed ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(u64, Option<u64>, String), String> {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        args(&arguments).map(|args| (args.schedules, args.seed, args.filters.join(" ")))
    }

    #[test]
    fn numbers_follow_their_flags_and_the_rest_are_filters() {
        assert_eq!(parsed(""), Ok((SCHEDULES, None, String::new())));
        assert_eq!(parsed("held --seed 7 --schedules 1 manual"), Ok((1, Some(7), "held manual".into())));
        for wrong in ["--seed", "--seed x", "--schedules -1", "--deep"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_report_tells_how_many_schedules_it_is_about() {
        assert_eq!(
            schedules_in("program held_device: 143 schedules from seed 0, 6465 steps each, in 0.65 s"),
            Some(143)
        );
        assert_eq!(schedules_in("program held_device fails in the schedule of seed 7; to see it again:"), None);
        assert_eq!(schedules_in("test held_device ... ok"), None);
    }
}
