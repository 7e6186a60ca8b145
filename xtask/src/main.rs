//! The project's chores, so that a workflow or a person needs one word and nothing to copy: `cargo xtask help`.

mod asan;
mod bench;
mod ci;
mod counts;
mod engines;
mod images;
mod kills;
mod lab;
mod loom;
mod models;
mod mutants;
mod patch;
mod planted;
mod release;
mod run;
mod shuttle;
mod survivors;
mod tidy;
mod tsan;
mod verdicts;
mod workbench;

use std::env;
use std::process::ExitCode;

type Task = fn(&[String]) -> Result<(), String>;

/// Name, what follows it on the command line, what it is for, and the function that does it.
const TASKS: &[(&str, &str, &str, Task)] = &[
    ("ci", "", "everything the gate asks for, in order; stops at the first failure", ci::task),
    (
        "bench",
        "[workload…] [--quick] [--report]",
        "the ring beside limits and rivals; --light: without rivals, --layers: each layer alone",
        bench::task,
    ),
    ("counts", "", "what an append costs, counted: instructions, atomics, system calls, allocations", counts::task),
    (
        "engines",
        "[part of a pass's name]",
        "all tests by io_uring, by positioned writes, and where io_uring or its extras are refused",
        engines::task,
    ),
    (
        "loom",
        "[--quick | --deep] [filter]",
        "model-check; --deep allows four preemptions, ten minutes a model",
        loom::task,
    ),
    (
        "mutants",
        "[--hunt] [--trust] [filter]",
        "break the protocol in many places, one by one: each time a model must fail",
        mutants::task,
    ),
    (
        "crash",
        "[--images n] [--seed s] [--log file]",
        "cut the power in every legal way, and look what is left",
        lab::crash,
    ),
    (
        "raft",
        "[--images n] [--kills n]",
        "crash images of Raft groups beside a model, also with damage; and a cluster that is killed",
        images::raft,
    ),
    (
        "images",
        "[--images n] [--seed s]",
        "crash images of a log, also with damage: each has its verdict",
        images::task,
    ),
    ("faults", "[--seed s] [--only title]", "a fault at each I/O of a short workload, over a real kernel", lab::faults),
    ("planted", "[--gate] [filter]", "plant bugs, one by one: each time the lab must notice", planted::task),
    (
        "release",
        "[--no-registry]",
        "what has to hold before the crates are published, and what to do then; publishes nothing",
        release::task,
    ),
    (
        "survivors",
        "[--shard k/n] [--in-diff rev] [crate…]",
        "let cargo-mutants change the code, place by place: each time a test must fail",
        survivors::task,
    ),
    ("shuttle", "[--schedules n] [--seed s] [filter]", "run larger programs in random schedules", shuttle::task),
    (
        "kills",
        "[--count n] [--seed s] [--calls n]",
        "kill the example commit_log at random moments and at each system call; nothing acknowledged may be lost",
        kills::task,
    ),
    ("asan", "", "the tests under AddressSanitizer", asan::task),
    ("tidy", "", "what no compiler checks: imports, edges of orderings, long lines, names of types", tidy::task),
    ("tsan", "", "the tests under ThreadSanitizer; needs the sources of std", tsan::task),
    (
        "verdicts",
        "[--trials n] [--seed s] [--only log]",
        "what other logs and ringlog say about power cuts and damage to their own files",
        verdicts::task,
    ),
    ("help", "", "this list", help),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (name, rest) = arguments.split_first().map_or(("help", &[][..]), |(name, rest)| (name.as_str(), rest));
    let outcome = match TASKS.iter().find(|(task, ..)| *task == name) {
        Some((.., task)) => task(rest),
        None => Err(format!("there is no task `{name}`; `cargo xtask help` lists them")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help(_: &[String]) -> Result<(), String> {
    println!("cargo xtask <task>\n");
    for (name, arguments, purpose, _) in TASKS {
        println!("  {:<46}{purpose}", format!("{name} {arguments}"));
    }
    Ok(())
}
