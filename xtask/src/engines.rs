//! All tests, once for each way in which a machine may let us write: io_uring, positioned writes by choice, positioned writes
//! because io_uring is refused, and io_uring without registered buffers. And those of writers where `membarrier` is refused, so that
//! both sides of a lease pass a fence.
//!
//! Each pass says what engine or barrier it means to get, and one of the tests fails if it is another.

use core::fmt::Display;
use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs, thread};

use rustix::thread::{MembarrierCommand, membarrier_query};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::ci::TESTS;
use crate::run::{Variables, run};

/// The variable in which the tests get the expected engine.
const EXPECT: &str = "BUFFER_RING_EXPECT";

/// And the barrier.
const EXPECT_BARRIER: &str = "BUFFER_RING_EXPECT_BARRIER";

/// The tests in which writers race with threads that revoke their leases.
const WRITER_TESTS: &str =
    "cargo test -p buffer_ring --test writer --test oracle --test acknowledged --test instructions";

/// What the tests need beside Rust, to bring faults about.
const TOOLS: [&str; 5] = ["losetup", "mkfs.ext4", "mkfs.xfs", "mount", "strace"];

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("engines takes no arguments".into());
    }
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
    pass("the first choice", || run(&required, TESTS))?;
    pass("positioned writes, chosen", || {
        run(&[("BUFFER_RING_ENGINE", "positioned"), (EXPECT, "positioned writes (asked for by")], TESTS)
    })?;
    for (name, errno) in [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS)] {
        let expected = format!("positioned writes (io_uring_setup: {name}");
        pass(&format!("io_uring denied with {name}"), || {
            denied(io_uring_calls(), errno, &[(EXPECT, &expected)], TESTS)
        })?;
    }
    let membarrier = || [(libc::SYS_membarrier, vec![])].into();
    pass("writers, membarrier denied with ENOSYS", || {
        denied(membarrier(), libc::ENOSYS, &[(EXPECT_BARRIER, "Fence")], WRITER_TESTS)
    })?;
    if let Err(why) = io_uring {
        println!("skipped: registration of buffers denied ({why})");
        return Ok(());
    }
    let expected = [(EXPECT, "io_uring, buffers registered: false")];
    pass("registration of buffers denied with ENOMEM", || {
        denied(registration_of_buffers()?, libc::ENOMEM, &expected, TESTS)
    })
}

fn pass(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("\n-- {name}");
    work().map_err(|error| format!("{name}: {error}"))
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
