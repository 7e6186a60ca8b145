//! The tests, once for each way in which a machine may let us write: io_uring, positioned writes by choice, positioned
//! writes because io_uring is refused, and io_uring without registered buffers. And those of writers where `membarrier`
//! is refused, so that both sides of a lease pass a fence.
//!
//! The first pass runs all tests. The others leave out those in which the engine makes no difference.
//!
//! Each pass names the engine or barrier that it means to get, and one of the tests fails if it is another.

use core::fmt::Display;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use rustix::thread::{MembarrierCommand, membarrier_query};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::ci::TESTS;
use crate::run::{Variables, root, run};

/// The variable in which the tests get the expected engine.
const EXPECT: &str = "BUFFER_RING_EXPECT";

/// And the barrier.
const EXPECT_BARRIER: &str = "BUFFER_RING_EXPECT_BARRIER";

/// The packages that can write to a file, by one engine or the other.
const WRITERS: [&str; 4] = ["ring-io", "buffer_ring", "ring-lab", "ringlog"];

/// Test programs of these that write to a device in memory only or know no engine, or are empty without a checker.
const IN_MEMORY: &[&str] = &[
    "commits",
    "counting",
    "crashes",
    "disk",
    "encoding",
    "fast",
    "failures",
    "faults",
    "foreign",
    "framing",
    "fuzz",
    "images",
    "instructions",
    "loom",
    "loom_writers",
    "manual",
    "memory",
    "readers",
    "reservations",
    "rules",
    "shuffle",
    "shuttle",
    "space",
    "stress",
    "sweep",
    "vector",
    "watching",
    "write_modes",
    "writer",
];

/// Tests of other programs with this in their name use a device in memory, too, and wait until `close` gives up.
const LEAK: &str = "leak";

/// The tests in which writers race with threads that revoke their leases.
const WRITER_TESTS: &str = "--test writer --test oracle --test acknowledged --test instructions";

/// What the tests need beside Rust, to bring faults about.
const TOOLS: [&str; 5] = ["losetup", "mkfs.ext4", "mkfs.xfs", "mount", "strace"];

/// All passes, or those whose names contain the arguments.
pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let all = tests_of_engines(&WRITERS)?;
    passes(&arguments.join(" "), &all, &all)
}

/// For the gate: all passes, but io_uring is refused only for the tests that look at the reason, those of `ring-io`. To
/// all others it is positioned writes, as by choice. And what a ring writes from, registered or not, is no concern of
/// the crates above it.
pub(crate) fn few() -> Result<(), String> {
    passes("", &tests_of_engines(&["ring-io"])?, &tests_of_engines(&["ring-io", "buffer_ring"])?)
}

fn passes(filter: &str, tests_of_reasons: &str, tests_of_registration: &str) -> Result<(), String> {
    let mut passes = 0;
    let mut pass = |name: &str, work: &dyn Fn() -> Result<(), String>| {
        if !name.contains(filter) {
            return Ok(());
        }
        passes += 1;
        println!("\n-- {name}");
        work().map_err(|error| format!("{name}: {error}"))
    };
    let tests = tests_of_engines(&WRITERS)?;
    let (io_uring, root) = (io_uring_is_allowed(), root_can_do_everything());
    let mut required = Vec::new();
    match &io_uring {
        Ok(()) => required.extend([("BUFFER_RING_REQUIRE_URING", "1"), (EXPECT, "io_uring")]),
        Err(why) => println!("io_uring: {why}; tests that need it are skipped"),
    }
    if membarrier_query().contains_command(MembarrierCommand::PrivateExpedited) {
        required.push((EXPECT_BARRIER, "Membarrier"));
    }
    match &root {
        Ok(()) => required.push(("BUFFER_RING_REQUIRE_ROOT", "1")),
        Err(why) => println!("root: {why}; tests that need it are skipped"),
    }
    pass("the first choice", &|| run(&required, TESTS))?;
    pass("positioned writes, chosen", &|| {
        run(&[("BUFFER_RING_ENGINE", "positioned"), (EXPECT, "positioned writes (asked for by")], &tests)
    })?;
    for (name, errno) in [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS)] {
        let expected = format!("positioned writes (io_uring_setup: {name}");
        pass(&format!("io_uring denied with {name}"), &|| {
            denied(io_uring_calls(), errno, &[(EXPECT, &expected)], tests_of_reasons)
        })?;
    }
    let membarrier = || [(libc::SYS_membarrier, vec![])].into();
    pass("writers, membarrier denied with ENOSYS", &|| {
        denied(membarrier(), libc::ENOSYS, &[(EXPECT_BARRIER, "Fence")], &command_for(WRITER_TESTS))
    })?;
    let expected = [(EXPECT, "io_uring, buffers registered: false")];
    pass("registration of buffers denied with ENOMEM", &|| match &io_uring {
        Ok(()) => denied(registration_of_buffers()?, libc::ENOMEM, &expected, tests_of_registration),
        Err(why) => {
            println!("skipped: {why}");
            Ok(())
        }
    })?;
    if passes == 0 { Err(format!("no pass has `{filter}` in its name")) } else { Ok(()) }
}

/// The command for these tests. It names all packages, since fewer would be built anew, with fewer features.
fn command_for(tests: &str) -> String {
    let packages: String = WRITERS.iter().map(|package| format!(" -p {package}")).collect();
    format!("cargo test{packages} {tests}")
}

/// The command for all tests of `packages` in which the engine may make a difference, and those of other packages that
/// are called the same.
fn tests_of_engines(packages: &[&str]) -> Result<String, String> {
    let programs = programs(packages)?;
    let programs = programs.iter().filter(|program| !program.needs_a_feature && !IN_MEMORY.contains(&program.name()));
    let programs: BTreeSet<_> = programs.map(|program| format!(" --test {}", program.name())).collect();
    let programs: String = programs.into_iter().collect();
    Ok(command_for(&format!("--lib --bins{programs} -- --skip {LEAK}")))
}

struct Program {
    path: PathBuf,
    /// Of which `--workspace` knows nothing either: the gate runs it by itself.
    needs_a_feature: bool,
}

impl Program {
    fn name(&self) -> &str {
        name_of(&self.path)
    }
}

/// The test programs of `packages`.
fn programs(packages: &[&str]) -> Result<Vec<Program>, String> {
    let mut programs = Vec::new();
    for package in packages {
        let manifest = root().join("crates").join(package).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).map_err(|error| format!("{package}: {error}"))?;
        programs.extend(test_programs(package)?.into_iter().map(|path| {
            let needs_a_feature = manifest.contains(&format!("name = \"{}\"\nrequired-features", name_of(&path)));
            Program { path, needs_a_feature }
        }));
    }
    Ok(programs)
}

/// The sources of the test programs of `package`.
pub(crate) fn test_programs(package: &str) -> Result<Vec<PathBuf>, String> {
    let folder = root().join("crates").join(package).join("tests");
    let paths =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
    let mut paths = paths.map_err(|error| format!("{package}/tests: {error}"))?;
    paths.retain(|path| path.is_file());
    Ok(paths)
}

/// What cargo calls the program of the source at `path`.
pub(crate) fn name_of(path: &Path) -> &str {
    path.file_stem().and_then(OsStr::to_str).unwrap_or_default()
}

/// System calls, each with the conditions under which it is denied; none: always.
type Calls = BTreeMap<i64, Vec<SeccompRule>>;

/// What the seccomp filters of most containers deny.
fn io_uring_calls() -> Calls {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];
    calls.into_iter().map(|call| (call, vec![])).collect()
}

/// What a small `RLIMIT_MEMLOCK` denies to all users but root.
fn registration_of_buffers() -> Result<Calls, String> {
    const IORING_REGISTER_BUFFERS: u64 = 0;
    const IORING_REGISTER_BUFFERS2: u64 = 15;
    let rules = [IORING_REGISTER_BUFFERS, IORING_REGISTER_BUFFERS2].map(|opcode| {
        let opcode = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, opcode)?;
        SeccompRule::new(vec![opcode])
    });
    let rules = rules.into_iter().collect::<Result<_, _>>().map_err(no_filter)?;
    Ok([(libc::SYS_io_uring_register, rules)].into())
}

/// Tests under a seccomp filter: in a thread of its own, since there is no way back.
fn denied(calls: Calls, errno: i32, variables: Variables<'_>, tests: &str) -> Result<(), String> {
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    let arch = env::consts::ARCH.try_into().map_err(no_filter)?;
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, arch).map_err(no_filter)?;
    let filter = BpfProgram::try_from(filter).map_err(no_filter)?;
    thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            apply_filter(&filter).map_err(no_filter)?;
            run(variables, tests)
        });
        filtered.join().expect("no panic")
    })
}

fn no_filter(error: impl Display) -> String {
    format!("no seccomp filter: {error}")
}

/// Asked of the system, and not of what is to be tested.
fn io_uring_is_allowed() -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if read("/proc/sys/kernel/io_uring_disabled").trim() != "0" {
        return Err("sysctl kernel.io_uring_disabled is not 0".into());
    }
    match status("Seccomp:") {
        Some(mode) if mode == "0" => Ok(()),
        _ => Err("a seccomp filter may forbid it".into()),
    }
}

pub(crate) fn root_can_do_everything() -> Result<(), String> {
    const CAP_SYS_ADMIN: u32 = 21;
    let capabilities = status("CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
    if capabilities >> CAP_SYS_ADMIN & 1 == 0 {
        return Err("this is not root, or not the machine's".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices".into());
    }
    match TOOLS.iter().find(|tool| !installed(tool)) {
        Some(missing) => Err(format!("{missing} is not installed")),
        None => Ok(()),
    }
}

fn status(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned())
}

fn installed(tool: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(tool).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a test gets at a file.
    const FILES: [&str; 7] =
        ["disk()", "direct_file", "buffered_file", "QuikIO::open", "QuikIO::new", "EngineKind", "BufferRing::open"];

    #[test]
    fn every_package_that_can_write_to_a_file_takes_part_in_every_pass() {
        for entry in fs::read_dir(root().join("crates")).expect("the crates") {
            let entry = entry.expect("a crate");
            let name = entry.file_name().into_string().expect("a name");
            let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).expect("a manifest");
            let dependencies = ["ring-io", "buffer_ring"].map(|package| format!("\n{package}.workspace = true"));
            let writes = name == "ring-io" || dependencies.iter().any(|line| manifest.contains(line));
            assert_eq!(WRITERS.contains(&&*name), writes, "{name}");
        }
    }

    #[test]
    fn what_only_the_first_pass_runs_knows_no_file() {
        let programs = programs(&WRITERS).expect("programs");
        for name in IN_MEMORY {
            let mut found = programs.iter().filter(|program| program.name() == *name).peekable();
            assert!(found.peek().is_some(), "there is no program {name}");
            for program in found {
                let source = fs::read_to_string(&program.path).expect("a source");
                assert_eq!(FILES.iter().find(|word| source.contains(**word)), None, "{}", program.path.display());
            }
        }
        let sources = programs.iter().map(|program| fs::read_to_string(&program.path).expect("a source"));
        let tests: Vec<_> = sources.flat_map(|source| tests_with(&source, LEAK)).collect();
        assert!(tests.len() > 3, "{tests:?}");
        for test in tests {
            assert_eq!(FILES.iter().find(|word| test.contains(**word)), None, "{test}");
        }
    }

    /// The tests in `source` with `part` in their names.
    fn tests_with(source: &str, part: &str) -> Vec<String> {
        let tests = source.split("\n#[test]\n").skip(1).map(|test| test.split("\n}\n").next().unwrap_or(test));
        tests.filter(|test| test.lines().next().is_some_and(|head| head.contains(part))).map(str::to_owned).collect()
    }
}
