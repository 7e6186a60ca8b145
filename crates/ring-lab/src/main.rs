//! The lab: power cuts, dying disks and real file systems against the ring.
//!
//! ```text
//!  workload ──▶ ring ──▶ disk, recorded ──▶ Log ──▶ explorer ──▶ images ──▶ oracle
//!                        memory, or a FUSE file,    (every legal crash)     (both bounds)
//!                        bare or under a loop device with ext4 or xfs
//! ```
//!
//! Under a file system, the same is done to a log of `ringlog`: see [`records`].
//!
//! An incarnation is recorded once, and everything that a power cut might have left is computed from the log.
//! `cargo xtask crash` starts it.

#[path = "../../buffer_ring/tests/common/append_path.rs"]
mod append_path;
mod crash;
mod discipline;
mod disk;
mod explore;
mod faults;
mod filesystem;
mod imitate;
mod incarnation;
mod log;
mod machine;
mod oracle;
mod promise;
mod record;
mod records;
mod report;
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
    Crash(crash::CrashOptions),
    /// A fault at each I/O, one after the other.
    Faults(faults::FaultOptions),
    /// What the other tasks start in a process of its own
    #[command(hide = true)]
    Workload(workload::WorkloadOptions),
    /// The same for a log of records
    #[command(hide = true)]
    Records(records::RecordsOptions),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Crash(options) => crash::task(&options),
        Task::Faults(options) => faults::task(&options),
        Task::Workload(options) => workload::task(&options),
        Task::Records(options) => records::task(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ring-lab: {message}");
            ExitCode::FAILURE
        }
    }
}
