//! The ring beside the machine's limits, the obvious ways, and other logs. `cargo xtask bench` builds and starts this.

mod contestants;
mod log;
mod machine;
mod measure;
mod memory_device;
mod placement;
mod record;
mod report;
mod results;
mod runner;
mod stamp;
mod table;
mod targets;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::log::Outcome;
use crate::machine::Machine;
use crate::results::Results;
use crate::workloads::{Scale, WORKLOADS, Workload};

/// What quotes the results; the program is started at the root of the checkout.
const CHAPTER: &str = "docs/BENCHMARKING.md";

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    args_override_self = true,
    about = "Measures the ring beside limits, baselines and rivals"
)]
struct Arguments {
    /// Workloads to measure; all of them if none is named: staging, streaming, durable, memory-device, latency,
    /// log-append, log-streaming, log-commit, log-recovery, log-follow, log-tail, space.
    workloads: Vec<String>,
    /// Less of everything: to see that it runs, not to quote.
    #[arg(long)]
    quick: bool,
    /// Write the report with the pictures, too.
    #[arg(long)]
    report: bool,
    /// Put the results into `docs/BENCHMARKING.md`, too.
    #[arg(long)]
    record: bool,
    /// Measure nothing: make the report from the numbers of an earlier run.
    #[arg(long, value_name = "JSON")]
    from: Option<PathBuf>,
    /// Only contestants whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Folder on the device to be written to.
    #[arg(long, default_value = "target/bench/logs")]
    folder: PathBuf,
    /// Folder for the numbers and the report.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> Outcome<()> {
    if let Some(path) = &arguments.from {
        let results: Results = serde_json::from_slice(&fs::read(path)?)?;
        return show(&results, arguments);
    }
    let scale = if arguments.quick { Scale::Quick } else { Scale::Full };
    let workloads = chosen(&arguments.workloads)?;
    fs::create_dir_all(&arguments.folder)?;
    let machine = Machine::look(&arguments.folder);
    let only = arguments.only.as_deref().unwrap_or_default();
    let rounds = runner::run(&workloads, scale, only, &arguments.folder)?;
    let results = Results { machine, quick: arguments.quick, rounds };
    fs::create_dir_all(&arguments.out)?;
    let numbers = arguments.out.join("results.json");
    fs::write(&numbers, serde_json::to_vec_pretty(&results)?)?;
    show(&results, arguments)?;
    println!("numbers: {}", numbers.display());
    Ok(())
}

fn show(results: &Results, arguments: &Arguments) -> Outcome<()> {
    table::print(results);
    println!();
    if arguments.report {
        println!("report: {}", report::write(results, &arguments.out.join("report"))?.display());
    }
    if arguments.record {
        record::record(results, Path::new(CHAPTER))?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> Outcome<Vec<Workload>> {
    if names.is_empty() {
        return Ok(WORKLOADS.to_vec());
    }
    let find = |name: &String| {
        let found = WORKLOADS.iter().find(|workload| workload.name == name).copied();
        found.ok_or_else(|| format!("there is no workload `{name}`").into())
    };
    names.iter().map(find).collect()
}
