//! The lab: power cuts, dying disks and real file systems against the ring.
//!
//! ```text
//!  workload ──▶ ring ──▶ disk that writes down what happens ──▶ Log ──▶ explorer ──▶ images ──▶ oracle
//!                          memory, or a FUSE file, bare or                (every legal crash)     (both bounds)
//!                          under a loop device with ext4 or xfs
//! ```
//!
//! A run is recorded once, and all that a power cut might have left is computed from the log. `cargo xtask crash` starts it.

mod crash;
mod discipline;
mod disk;
mod explore;
mod faults;
mod filesystem;
#[path = "../../buffer_ring/tests/common/hand.rs"]
mod hand;
mod imitate;
mod log;
mod machine;
mod oracle;
mod promise;
mod record;
mod report;
mod session;
mod simulate;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Power cuts, dying disks and real file systems against the ring")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Explore crash images.
    Crash(crash::Options),
    /// A fault at each I/O, one after the other.
    Faults(faults::Options),
    /// What the others start in a process of its own
    #[command(hide = true)]
    Workload(workload::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Crash(options) => crash::task(&options),
        Task::Faults(options) => faults::task(&options),
        Task::Workload(options) => workload::task(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ring-lab: {message}");
            ExitCode::FAILURE
        }
    }
}
