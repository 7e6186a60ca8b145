//! Kills the example `commit_log` at random moments, then at each of its first system calls, and has it prove each time
//! that what was acknowledged is in the log. Some of its threads, all, or none append through a writer, and wait for
//! several records at once.
//!
//! A log is killed several times: what the next life makes of the end that it finds is tried too. Everything but the
//! moment itself follows from the seed; so the command that a failure prints meets the same circumstances, and nearly
//! the same moment.

use core::hash::BuildHasher;
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io, thread};

use indicatif::{ProgressBar, ProgressStyle};
use ring_testing::Random;

use crate::run::{root, run};

const USAGE: &str = "cargo xtask kills [--count n] [--seed s] [--calls n]";

/// The calls by which commits reach the kernel: `strace` kills at each of them.
const CALLS: [&str; 4] = ["io_uring_enter", "pwritev2", "pwrite64", "fdatasync"];

/// Of each call, the first so many, unless something else is said.
const EACH: u64 = 25;

/// Kills of one log, before the next.
const LIVES: u64 = 4;

/// What the gate has time for.
const FEW: u64 = 50;
const FEW_CALLS: u64 = 8;

/// The task of the gate.
pub(crate) fn few() -> Result<(), String> {
    kill(FEW, some_seed())?;
    at_each_call(FEW_CALLS)
}

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let mut count = 200;
    let mut calls = EACH;
    let mut seed = some_seed();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|value| value.parse().ok());
        let number = number.ok_or(format!("a number has to follow {argument}: {USAGE}"));
        match argument.as_str() {
            "--count" => count = number?,
            "--seed" => seed = number?,
            "--calls" => calls = number?,
            other => return Err(format!("kills does not know `{other}`: {USAGE}")),
        }
    }
    kill(count, seed)?;
    at_each_call(calls)
}

/// Builds the victim, and answers where it is.
fn victim() -> Result<PathBuf, String> {
    run(&[], "cargo build --release -p buffer_ring --example commit_log")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(root().join(target).join("release/examples/commit_log"))
}

/// Kills at the first, second, … call of each kind, counted in each thread by itself, over each engine.
fn at_each_call(most: u64) -> Result<(), String> {
    if most == 0 {
        return Ok(());
    }
    if let Err(error) = Command::new("strace").arg("-V").stdout(Stdio::null()).status() {
        println!("skipped: kills at each system call: strace: {error}");
        return Ok(());
    }
    let program = victim()?;
    let log = program.with_file_name("killed-at-a-call.log");
    let rounds = ["io_uring", "positioned"].into_iter().flat_map(|engine| CALLS.map(|call| (engine, call)));
    let bar = ProgressBar::new(2 * CALLS.len() as u64 * most);
    let (mut table, mut total) = (String::new(), Proved::default());
    for (engine, call) in rounds {
        remove(&log)?;
        let mut kills = 0;
        while kills < most && killed_at(&program, &log, engine, call, kills + 1)? {
            kills += 1;
            let again = |why: String| {
                let log = log.display();
                format!(
                    "killed at {call} number {kills} over {engine}: {why}\nthe log stays: {log}\n\
                     to try again: cargo xtask kills --count 0 --calls {kills}"
                )
            };
            if log.exists() {
                let proved = verify(&program, &log).map_err(again)?;
                total.acknowledged += proved.acknowledged;
                total.others += proved.others;
            }
            bar.inc(1);
        }
        table.push_str(&format!("  {engine:<12}{call:<16}{kills:>4} kills\n"));
    }
    bar.finish_and_clear();
    remove(&log)?;
    let acknowledged = total.acknowledged;
    print!("{table}");
    println!("killed at a system call: {acknowledged} times an acknowledged record was looked for, and was there");
    if acknowledged == 0 { Err("no system call was met, or nothing was ever acknowledged".into()) } else { Ok(()) }
}

/// Runs the victim until its call number `nth`; `false` if it ended before, as no thread of it makes so many.
fn killed_at(program: &Path, log: &Path, engine: &str, call: &str, nth: u64) -> Result<bool, String> {
    let mut victim = Command::new("strace");
    victim.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    victim.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]).arg(program);
    victim.arg("--file").arg(log).args(["--threads", "3", "--records", "600", "--buffer-size", "16384"]);
    let writers = [0, 2, 3][nth as usize / 2 % 3];
    victim.args(["--batch", "10", "--writers", &writers.to_string()]);
    // Waiting threads write by themselves; only buffers that are full go through io_uring.
    let bytes = if call == "io_uring_enter" { 6000 } else { [50, 700][nth as usize % 2] };
    victim.args(["--bytes", &bytes.to_string()]).env("BUFFER_RING_ENGINE", engine);
    let status = victim.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.map(|status| !status.success()).map_err(|error| format!("cannot start strace: {error}"))
}

/// Kills `count` times. Kill `n` follows from the seed `seed + n`, and from those before it that had the same log.
fn kill(count: u64, seed: u64) -> Result<(), String> {
    if count == 0 {
        return Ok(());
    }
    let program = victim()?;
    let log = program.with_file_name("killed.log");

    const LOOK: &str = "{bar:40} {pos} of {len} kills, {eta} left";
    let bar = ProgressBar::new(count);
    bar.set_style(ProgressStyle::with_template(LOOK).expect("the template is well formed"));
    let mut total = Proved::default();
    for nth in 0..count {
        if nth % LIVES == 0 {
            remove(&log)?;
        }
        let proved = one(&program, &log, seed + nth).map_err(|why| {
            let (first, lives) = (seed + nth - nth % LIVES, nth % LIVES + 1);
            let log = log.display();
            format!(
                "kill {nth}: {why}\nthe log stays: {log}\n\
                 to try again: cargo xtask kills --seed {first} --count {lives}"
            )
        })?;
        total.acknowledged += proved.acknowledged;
        total.others += proved.others;
        bar.inc(1);
    }
    bar.finish_and_clear();
    remove(&log)?;
    let Proved { acknowledged, others } = total;
    println!(
        "{count} kills, from seed {seed} on: {acknowledged} times an acknowledged record was looked for, and was there"
    );
    println!("({others} times one that was not acknowledged)");
    if acknowledged == 0 && count > 0 { Err("nothing was ever acknowledged".into()) } else { Ok(()) }
}

/// Short, because people type it.
fn some_seed() -> u64 {
    u64::from(RandomState::new().hash_one(0) as u32)
}

/// What `commit_log` says it has found.
#[derive(Default)]
struct Proved {
    acknowledged: u64,
    others: u64,
}

fn one(program: &Path, log: &Path, seed: u64) -> Result<Proved, String> {
    let mut random = Random::new(seed);
    let threads = [1, 2, 4, 16, 64][random.below(5)];
    let bytes = [0, 10, 100, 1000, 9000][random.below(5)];
    let engine = ["io_uring", "positioned"][random.below(2)];
    let (writers, batch) = ([0, threads / 2, threads][random.below(3)], [1, 10, 100, 1000][random.below(4)]);
    // Some die before the first commit, few live to see the last.
    let life = Duration::from_micros(random.below(60_000) as u64);
    let mut command = Command::new(program);
    command.arg("--file").arg(log).args(["--records", "1000000", "--buffer-size", "65536"]);
    command.args(["--threads", &threads.to_string(), "--bytes", &bytes.to_string()]);
    command.args(["--writers", &writers.to_string(), "--batch", &batch.to_string()]);
    command.env("BUFFER_RING_ENGINE", engine).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    thread::sleep(life);
    let early = child.try_wait().map_err(|error| error.to_string())?;
    child.kill().and_then(|()| child.wait()).map_err(|error| format!("cannot kill: {error}"))?;
    let circumstances = format!(
        "{threads} threads, {writers} with writers and {batch} records at once, {bytes} bytes, {engine}, after {life:?}"
    );
    if let Some(status) = early {
        return Err(format!("it ended by itself ({status}; {circumstances})"));
    }
    if !log.exists() {
        return Ok(Proved::default());
    }

    verify(program, log).map_err(|why| format!("{why} ({circumstances})"))
}

/// Has the log proved.
fn verify(program: &Path, log: &Path) -> Result<Proved, String> {
    let output = Command::new(program).arg("--file").arg(log).arg("--verify").output();
    let output = output.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    proved(&String::from_utf8_lossy(&output.stdout)).ok_or("it does not say what it has proved".into())
}

fn proved(text: &str) -> Option<Proved> {
    let (_, proved) = text.split_once("proved  ")?;
    let (acknowledged, rest) = proved.split_once(" acknowledged records are in the log, and ")?;
    let others = rest.split_once(" others")?.0;
    Some(Proved { acknowledged: acknowledged.parse().ok()?, others: others.parse().ok()? })
}

fn remove(log: &Path) -> Result<(), String> {
    for path in [log, &log.with_added_extension("acknowledged")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proved_is_read_as_it_is_printed() {
        let proved = proved("x\n    proved  17 acknowledged records are in the log, and 3 others\n").expect("numbers");
        assert_eq!((proved.acknowledged, proved.others), (17, 3));
        assert!(super::proved("   commits  12 per second").is_none());
    }
}
