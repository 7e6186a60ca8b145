//! What an append costs, counted and not timed, so that a busy machine cannot excuse a slower path: instructions,
//! atomics, allocations, system calls; and what the device gets. Each has a budget, and more than that is a failure.

use core::ops::RangeInclusive;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;

use crate::bench::MANIFEST;
use crate::run::{run, run_and_read, target};

/// What is counted, and what is allowed. The instructions are those of the whole loop around an append of 64 bytes, the
/// copy included.
const BUDGETS: &[(&str, RangeInclusive<f64>)] = &[
    ("instructions per append", 20.0..=136.0),
    ("atomic read-modify-writes per append", 2.0..=2.0),
    // Two for a lease of up to 16 KiB, and what ending it takes.
    ("instructions per append, writer", 20.0..=90.0),
    ("atomics per append, writer", 0.0..=0.05),
    ("allocations per append", 0.0..=0.0),
    ("system calls per append", 0.0..=0.0),
    ("flushes per buffer", 1.0..=1.0),
    ("file bytes per payload byte", 1.0..=1.01),
    ("device bytes per payload byte", 1.0..=1.01),
];

const FEW: u64 = 10_000;
const MANY: u64 = 20_000;
/// 8 MiB and a bit.
const STREAMED: u64 = 8 * 16_384 + 100;

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("counts takes no arguments".into());
    }
    let folder = target("bench");
    let build = [("CARGO_TARGET_DIR", folder.as_str())];
    run(&build, &format!("cargo build --release --manifest-path {MANIFEST} --bin counts"))?;
    let counts = format!("{folder}/release/counts");

    let mut found = own_counts(&counts)?;
    found.extend(system_calls(&counts, &format!("{folder}/trace"))?);
    found.extend(instructions(&counts, &folder)?);
    verdict(&found)
}

fn verdict(found: &HashMap<&str, f64>) -> Result<(), String> {
    println!();
    let mut broken = Vec::new();
    for (what, budget) in BUDGETS {
        let Some(value) = found.get(what) else { continue };
        let word = if budget.contains(value) { "within" } else { "NOT WITHIN" };
        println!("{what:<38}{value:>9.3}  {word} {}..={}", budget.start(), budget.end());
        if !budget.contains(value) {
            broken.push(*what);
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("over budget: {}", broken.join(", "))) }
}

/// What the program counts by itself.
fn own_counts(counts: &str) -> Result<HashMap<&'static str, f64>, String> {
    let mut found = HashMap::new();
    let appends = read(&run_and_read(&[], &format!("{counts} append {MANY}"))?);
    found.insert("allocations per append", value(&appends, "allocations")? / value(&appends, "records")?);
    let stream = read(&run_and_read(&[], &format!("{counts} stream {STREAMED}"))?);
    let payload = value(&stream, "payload")?;
    found.insert("flushes per buffer", value(&stream, "flushes")? / value(&stream, "buffers")?);
    found.insert("file bytes per payload byte", value(&stream, "log")? / payload);
    match value(&stream, "device") {
        Ok(device) => _ = found.insert("device bytes per payload byte", device / payload),
        Err(_) => println!("skipped: the file system refuses direct I/O, so that nobody knows when it writes"),
    }
    Ok(found)
}

/// Lines of a name and a number.
fn read(printed: &str) -> HashMap<String, f64> {
    let pair = |line: &str| line.split_once(' ').and_then(|(name, number)| Some((name.into(), number.parse().ok()?)));
    printed.lines().filter_map(pair).collect()
}

fn value(counts: &HashMap<String, f64>, name: &str) -> Result<f64, String> {
    counts.get(name).copied().ok_or_else(|| format!("the program does not tell `{name}`"))
}

/// Between the program's two marks.
fn system_calls(counts: &str, trace: &str) -> Result<Option<(&'static str, f64)>, String> {
    if !is_installed("strace") {
        println!("skipped: strace is not installed, so system calls are not counted");
        return Ok(None);
    }
    run(&[], &format!("strace -f -o {trace} {counts} append {MANY}"))?;
    let text = fs::read_to_string(trace).map_err(|error| format!("{trace}: {error}"))?;
    let calls = between(&text, "getppid(").ok_or("the trace has not two marks")?;
    Ok(Some(("system calls per append", calls as f64 / MANY as f64)))
}

/// How many lines stand between the two that contain `mark`.
fn between(text: &str, mark: &str) -> Option<usize> {
    let mut marks = text.lines().enumerate().filter(|(_, line)| line.contains(mark)).map(|(number, _)| number);
    let (first, second) = (marks.next()?, marks.next()?);
    marks.next().is_none().then_some(second - first - 1)
}

/// Two runs under valgrind: what the longer one takes more is the appends'.
fn instructions(counts: &str, folder: &str) -> Result<HashMap<&'static str, f64>, String> {
    let mut found = HashMap::new();
    if !is_installed("valgrind") {
        println!("skipped: valgrind is not installed, so instructions are not counted");
        return Ok(found);
    }
    let atomics = atomics(counts);
    if atomics.is_none() {
        println!("skipped: objdump is not installed, so atomics are not counted");
    }
    let profile = |how: &str, count: u64| {
        let path = format!("{folder}/callgrind.{how}.{count}");
        let options = format!("--dump-instr=yes --compress-pos=no --callgrind-out-file={path}");
        run(&[], &format!("valgrind -q --tool=callgrind {options} {counts} {how} {count}"))?;
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>(executed(&text))
    };
    for (how, all, atomic) in [
        ("append", "instructions per append", "atomic read-modify-writes per append"),
        ("writer", "instructions per append, writer", "atomics per append, writer"),
    ] {
        let (few, many) = (profile(how, FEW)?, profile(how, MANY)?);
        let more = |of: &dyn Fn(u64) -> bool| {
            let sum = |executed: &HashMap<u64, u64>| {
                executed.iter().filter(|(at, _)| of(**at)).map(|(_, times)| times).sum::<u64>()
            };
            (sum(&many) - sum(&few)) as f64 / (MANY - FEW) as f64
        };
        found.insert(all, more(&|_| true));
        if let Some(atomics) = &atomics {
            found.insert(atomic, more(&|at| atomics.contains(&at)));
        }
    }
    Ok(found)
}

/// How often each instruction was executed, by its address. In a profile with instructions, a line of costs begins with
/// one; the line after `calls=` is what the callee took, which has lines of its own.
fn executed(profile: &str) -> HashMap<u64, u64> {
    let mut executed = HashMap::new();
    let mut is_call = false;
    for line in profile.lines() {
        if let Some(address) = line.strip_prefix("0x")
            && !is_call
        {
            let mut fields = address.split(' ');
            let address = fields.next().and_then(|field| u64::from_str_radix(field, 16).ok());
            let times = fields.nth(1).and_then(|field| field.parse::<u64>().ok());
            if let (Some(address), Some(times)) = (address, times) {
                *executed.entry(address).or_default() += times;
            }
        }
        is_call = line.starts_with("calls=");
    }
    executed
}

/// Addresses of the program's atomic read-modify-writes: those with the prefix `lock`, and exchanges with memory, which
/// have it unsaid.
fn atomics(program: &str) -> Option<HashSet<u64>> {
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn", program]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_atomic = |instruction: &str| {
        instruction.starts_with("lock ") || (instruction.starts_with("xchg") && instruction.contains('('))
    };
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    let atomic = lines.filter(|(_, instruction)| is_atomic(instruction.trim_start()));
    Some(atomic.filter_map(|(address, _)| u64::from_str_radix(address.trim(), 16).ok()).collect())
}

fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_two_marks_counts() {
        assert_eq!(between("a\n1 mark() = 1\nb\nc\n1 mark() = 1\nd", "mark("), Some(2));
        assert_eq!(between("a\n1 mark() = 1\nb", "mark("), None);
        assert_eq!(between("mark()\nmark()\nmark()", "mark("), None);
    }

    #[test]
    fn what_a_callee_took_is_counted_once() {
        let profile = "fn=(1) main\n0x10 3 5\ncalls=2 0x40 \n0x14 3 900\n0x14 3 2\n0x10 4 1\ntotals: 8\n";
        assert_eq!(executed(profile), HashMap::from([(0x10, 6), (0x14, 2)]));
    }

    #[test]
    fn more_than_the_budget_is_a_failure() {
        assert_eq!(verdict(&HashMap::from([("flushes per buffer", 1.0)])), Ok(()));
        assert!(verdict(&HashMap::from([("flushes per buffer", 1.1)])).is_err_and(|error| error.contains("flushes")));
    }
}
