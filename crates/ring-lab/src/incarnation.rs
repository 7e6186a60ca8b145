//! One incarnation of a ring in a process of its own, over a mounted disk, and its log.

use core::time::Duration;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;
use std::{env, fs};

use buffer_ring::ring_io::QuikIO;
use buffer_ring::{EngineKind, WriteMode};
use clap::ValueEnum;
use tempfile::TempDir;

use crate::append_path::PathMix;
use crate::log::Log;
use crate::machine::{Fault, Machine, Target};
use crate::record::{Key, log_end};
use crate::workload::{Engine, Setting};

/// A workload takes milliseconds; it takes longer only if a thread waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) incarnation: u32,
    pub(crate) engine: Engine,
    /// Which threads have a writer, if that does not follow from the seed.
    pub(crate) hands: Option<PathMix>,
    pub(crate) appends: usize,
    pub(crate) before: Vec<u8>,
    /// The key of its markers.
    pub(crate) key: Option<Key>,
    /// How much of `before` is known to be log.
    pub(crate) owed: usize,
    pub(crate) fault: Option<(Target, Fault)>,
    pub(crate) images: u64,
}

/// The outcome.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) log: Log,
    /// The last line of the workload.
    pub(crate) said: String,
    /// Whether the fault was met.
    pub(crate) met: bool,
}

/// Whether this machine has a level beyond memory. If it has none but must have (`BUFFER_RING_REQUIRE_ROOT`), that is
/// an error.
pub(crate) fn is_available() -> Result<bool, String> {
    let Some(why) = missing() else { return Ok(true) };
    if env::var_os("BUFFER_RING_REQUIRE_ROOT").is_some() {
        return Err(format!("a FUSE disk is required: {why}"));
    }
    println!("skipped: FUSE disks: {why}");
    Ok(false)
}

/// The engines that this machine allows.
pub(crate) fn engines() -> Result<Vec<Engine>, String> {
    let file = tempfile::tempfile().map_err(|error| error.to_string())?;
    match QuikIO::builder(file).engine(EngineKind::IoUring).build() {
        Ok(_) => Ok(vec![Engine::Uring, Engine::Positioned]),
        Err(error) if env::var_os("BUFFER_RING_REQUIRE_URING").is_some() => {
            Err(format!("io_uring is required: {error}"))
        }
        Err(error) => {
            println!("skipped: io_uring: {error}");
            Ok(vec![Engine::Positioned])
        }
    }
}

fn missing() -> Option<String> {
    let fuse = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = fuse {
        return Some(format!("/dev/fuse: {error}"));
    }
    let probe = tempfile::tempdir().and_then(|folder| Machine::mount(folder.path(), Vec::new(), None, 0).map(drop));
    probe.err().map(|error| format!("a FUSE file system cannot be mounted: {error}"))
}

pub(crate) fn record(plan: &Plan) -> Result<Recorded, String> {
    let context = |what: &str, error: io::Error| format!("{what}: {error}");
    let start = log_end(&plan.before, plan.key) as u64;
    if start < plan.owed as u64 {
        return Err(format!("the log was found to end at {start}, and {} bytes of it must survive", plan.owed));
    }
    let folder = TempDir::new().map_err(|error| context("a folder", error))?;
    let machine = Machine::mount(folder.path(), plan.before.clone(), plan.key, plan.seed);
    let machine = machine.map_err(|error| context("mount", error))?;
    if let Some((target, fault)) = plan.fault {
        machine.plan(target, fault);
    }
    let said = run(plan, &machine.disk(), &machine.acks())?;
    let met = machine.fault_was_met();
    let events = machine.take();
    drop(machine);
    let setting = Setting::of(plan.seed, plan.hands);
    let log = Log {
        seed: plan.seed,
        images: plan.images,
        setting: format!(
            "fuse, {:?}, {setting:?}, incarnation {}, fault: {:?}; {said}",
            plan.engine, plan.incarnation, plan.fault
        ),
        serialized: setting.write_mode == WriteMode::Serialized,
        reach: setting.reach(),
        file_system: None,
        before: plan.before.clone(),
        key: plan.key,
        start,
        events,
    };
    Ok(Recorded { log, said, met })
}

/// Runs the workload in a process of its own, and returns its last line.
pub(crate) fn run(plan: &Plan, log: &Path, acks: &Path) -> Result<String, String> {
    let engine = match plan.engine {
        Engine::Uring => "uring",
        Engine::Positioned => "positioned",
    };
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("workload").arg("--log").arg(log).arg("--acks").arg(acks).args(["--engine", engine]);
    command.args(["--seed", &plan.seed.to_string(), "--incarnation", &plan.incarnation.to_string()]);
    command.args(["--appends", &plan.appends.to_string()]);
    if let Some(hands) = plan.hands.and_then(|hands| hands.to_possible_value()) {
        command.args(["--hands", hands.get_name()]);
    }
    finish(command, plan.seed)
}

/// Runs a workload, and returns its last line.
pub(crate) fn finish(mut command: Command, seed: u64) -> Result<String, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("the workload does not start: {error}"))?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                let _ = child.kill();
                return Err(format!("the workload of seed {} does not end: a thread waits for ever", seed));
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut said = String::new();
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut said));
    let _ = child.stderr.take().map(|mut err| err.read_to_string(&mut said));
    if status.success() {
        Ok(said.trim().lines().last().unwrap_or_default().to_owned())
    } else {
        Err(format!("the workload of seed {} ended by {status}: {}", seed, said.trim()))
    }
}
