//! The tasks of `crates/ring-lab`, which is a program of its own so that the chores stay quick to build.

use crate::run::run;

pub(crate) fn crash(arguments: &[String]) -> Result<(), String> {
    lab("crash", arguments)
}

pub(crate) fn faults(arguments: &[String]) -> Result<(), String> {
    lab("faults", arguments)
}

fn lab(task: &str, arguments: &[String]) -> Result<(), String> {
    let line = format!("cargo run --quiet --release --package ring-lab -- {task} {}", arguments.join(" "));
    run(&[], line.trim_end())
}
