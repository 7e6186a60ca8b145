//! The gate: what has to hold before a change goes in. `.ci/run` and the workflow run nothing else.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::run::{root, run};
use crate::{counts, engines, images, kills, lab, loom, models, release, shuttle};

/// The two commands the README gives to a newcomer, word for word.
const MAIN_JOB: &str = "cargo run --release --example wal";
pub(crate) const TESTS: &str = "cargo test --workspace";

/// A target without `std`, but with the 64-bit atomics that the usual embedded targets lack.
const BARE_TARGET: &str = "x86_64-unknown-none";

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("ci takes no arguments: it is the whole gate or nothing".into());
    }
    let start = Instant::now();
    step("the README gives the commands that run here", || readme_gives(&[MAIN_JOB, TESTS]))?;
    step("every witness is a model", every_witness_is_a_model)?;
    step("format", || run(&[], "cargo fmt --all --check"))?;
    // Each of the openrafts takes half a minute to build, and so both of them are for the nightly run.
    step("lints", || {
        run(&[], "cargo clippy --workspace --exclude ring-raft --all-targets --all-features -- -D warnings")?;
        run(&[], "cargo clippy -p ring-raft --all-targets -- -D warnings")
    })?;
    step("documentation", || {
        let warnings = [("RUSTDOCFLAGS", "-D warnings")];
        run(&warnings, "cargo doc --workspace --exclude ring-raft --no-deps --all-features")?;
        run(&warnings, "cargo doc -p ring-raft --no-deps")
    })?;
    step("each crate alone, as a package if it is published", each_crate_alone)?;
    step("ring-state without std", ring_state_without_std)?;
    step("tests, over each engine", engines::few)?;
    step("futures", || {
        run(&[], "cargo test -p buffer_ring --features async --test futures --test foreign_wakers")?;
        run(&[], "cargo test -p ringlog --features async --test futures")
    })?;
    step("the command", || run(&[], "cargo test -p ringlog --features command --test command"))?;
    step("models", || loom::task(&["--quick".to_owned()]))?;
    step("random schedules", || shuttle::task(&[]))?;
    step("kills", kills::few)?;
    step("images of a log", images::few)?;
    step("the lab: power cuts, faults, planted bugs", lab::few)?;
    step("counts", || counts::task(&[]))?;
    step("the main job", || run(&[], MAIN_JOB))?;
    println!("\nall of it holds ({:.0} s)", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("\n== {name}");
    let start = Instant::now();
    let outcome = work();
    let verdict = if outcome.is_ok() { "done" } else { "FAILED" };
    println!("-- {name}: {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
    outcome
}

fn readme_gives(commands: &[&str]) -> Result<(), String> {
    let readme = fs::read_to_string(root().join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    match commands.iter().find(|command| !gives(&readme, command)) {
        Some(missing) => Err(format!("README.md has no line `{missing}`; change it, or xtask/src/ci.rs")),
        None => Ok(()),
    }
}

/// Whether some line of `text` is `command`, perhaps behind a prompt or before a comment.
fn gives(text: &str, command: &str) -> bool {
    text.lines().any(|line| line.split(" #").next().unwrap_or(line).trim().trim_start_matches("$ ") == command)
}

/// `docs/ORDERINGS.md` names a model for each edge; it must be one.
fn every_witness_is_a_model() -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"));
    let document = read("docs/ORDERINGS.md")?;
    let witnesses: Vec<_> = witnesses(&document).collect();
    match witnesses.iter().find(|witness| models::find(witness).is_err()) {
        Some(missing) => Err(format!("docs/ORDERINGS.md names `{missing}`, which is no model")),
        None if witnesses.is_empty() => Err("docs/ORDERINGS.md names no witness at all".into()),
        None => Ok(()),
    }
}

/// What stands between backquotes in the last column of the tables, where that is headed `witness`.
fn witnesses(document: &str) -> impl Iterator<Item = &str> {
    let mut heading = None;
    let cells = document.lines().filter_map(move |line| {
        let row = line.trim_end().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        let cell = row.and_then(|row| row.rsplit('|').next());
        heading = cell.map(|cell| heading.unwrap_or(cell.trim()));
        cell.filter(|_| heading == Some("witness"))
    });
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

/// In the workspace, one crate's features can hide what another has forgotten to ask for.
fn each_crate_alone() -> Result<(), String> {
    release::few()?;
    let unpublished = release::unpublished()?;
    // Its openraft takes half a minute to build; the nightly run checks it.
    let mut checked = unpublished.iter().filter(|name| *name != "ring-raft");
    checked.try_for_each(|name| run(&[], &format!("cargo check -p {name}")))
}

fn ring_state_without_std() -> Result<(), String> {
    // Asked of rustc, not of rustup, which a distribution's Rust does not have.
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", BARE_TARGET]).output();
    let folder = asked.map_err(|error| format!("cannot start rustc: {error}"))?.stdout;
    if fs::exists(String::from_utf8_lossy(&folder).trim()).unwrap_or(false) {
        return run(&[], &format!("cargo check -p ring-state --target {BARE_TARGET}"));
    }
    println!("skipped: {BARE_TARGET} is not installed (rustup target add {BARE_TARGET})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_the_names_in_the_last_column() {
        let document = "\
text `no`
| `edge` | witness |
|---|---|
| `E1` | `yes`, and `this_too` |
| E2 | none |

| `edge` | why |
| E3 | `no` |
";
        assert_eq!(witnesses(document).collect::<Vec<_>>(), ["yes", "this_too"]);
    }

    #[test]
    fn a_command_counts_only_as_a_whole_line() {
        let text = "Try `cargo test` or:\n```sh\n$ cargo run --example pack   # packs\ncargo test --workspace\n```\n";
        assert!(gives(text, "cargo run --example pack"));
        assert!(gives(text, "cargo test --workspace"));
        assert!(!gives(text, "cargo test"));
        assert!(!gives(text, "cargo run"));
    }
}
