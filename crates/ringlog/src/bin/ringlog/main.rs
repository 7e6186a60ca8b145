//! The command `ringlog`: looks at a log, verifies it, prints it, copies it, repairs it, measures it.
//!
//! Only `repair`, `bench` and the target of `copy` are written to. Everything else reads through
//! [`ReadOnly`](source::ReadOnly), which refuses to change a byte, and takes no lock, so that it is safe beside a
//! writer.

#![forbid(unsafe_code)]

mod bench;
mod copy;
mod dump;
mod inspect;
mod install;
mod output;
mod rebuild;
mod records;
mod repair;
mod source;
mod stats;
mod tail;
mod verify;
mod walk;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Failure, Form, Output, Status};

/// Look at, verify, print, copy, repair and measure logs of the crate `ringlog`
#[derive(Debug, Parser)]
#[command(name = "ringlog", version, propagate_version = true, after_help = STATUSES)]
struct Arguments {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: Command,
}

const STATUSES: &str = "Exit status: 0 the log is good, 1 it is torn, which opening it repairs, 2 acknowledged records \
                        are damaged, 3 bad usage, or nothing that can be judged: no log, files of another one, an \
                        I/O error.";

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Dump(dump::Dump),
    Tail(tail::Tail),
    Stats(stats::Stats),
    Copy(copy::Copy),
    Repair(repair::Repair),
    Bench(bench::Bench),
    Completions(install::Completions),
    Man(install::Man),
}

impl Command {
    fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        match self {
            Self::Inspect(inspect) => inspect.run(output),
            Self::Verify(verify) => verify.run(output),
            Self::Dump(dump) => dump.run(output),
            Self::Tail(tail) => tail.run(output),
            Self::Stats(stats) => stats.run(output),
            Self::Copy(copy) => copy.run(output),
            Self::Repair(repair) => repair.run(output),
            Self::Bench(bench) => bench.run(output),
            Self::Completions(completions) => completions.run(output),
            Self::Man(man) => man.run(output),
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            // A reader that is gone does not need it.
            let _ = refusal.print();
            return if refusal.use_stderr() { Status::Unjudged } else { Status::Good }.into();
        }
    };
    let mut output = Output::new(&arguments.form);
    let outcome = arguments.command.run(&mut output).and_then(|status| output.flush().map(|()| status));
    let why = match outcome {
        Ok(status) => return status.into(),
        Err(Failure::Pipe) => return ExitCode::SUCCESS,
        Err(Failure::Why(why)) => why,
    };
    output.fail(&why);
    Status::Unjudged.into()
}
