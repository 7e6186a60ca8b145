//! The tasks of `crates/ring-lab`, which is a program of its own so that the chores stay quick to build.

use crate::engines;
use crate::planted;
use crate::run::run;

/// Of the gate: images, in memory and over a real kernel.
const FEW_IMAGES: &str = "100000";

pub(crate) fn crash(arguments: &[String]) -> Result<(), String> {
    lab("crash", arguments)
}

pub(crate) fn faults(arguments: &[String]) -> Result<(), String> {
    lab("faults", arguments)
}

/// What the gate has time for.
pub(crate) fn few() -> Result<(), String> {
    crash(&["--images".into(), FEW_IMAGES.into()])?;
    faults(&[])?;
    planted::task(&["--gate".into()])
}

/// Where root can do everything, nothing may be skipped.
fn lab(task: &str, arguments: &[String]) -> Result<(), String> {
    let mut required = Vec::new();
    if engines::root_can_do_everything().is_ok() {
        required.push(("BUFFER_RING_REQUIRE_ROOT", "1"));
    }
    let line = format!("cargo run --quiet --release --package ring-lab -- {task} {}", arguments.join(" "));
    run(&required, line.trim_end())
}
