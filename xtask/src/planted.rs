//! Plants bugs in a copy of the checkout, one at a time, and wants the lab to catch each: a rig that never fails proves nothing.
//!
//! Each bug names the level that must kill it. All of them have to die; before that, every level has to find nothing in what is unchanged.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::target;
use crate::{engines, mutants};

/// Who must kill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// The lab, over disks in memory.
    Memory,
    /// The lab, over a real kernel and a file of FUSE.
    Fuse,
    /// The lab, with a fault at each I/O of a file of FUSE.
    Faults,
    /// A model, by `cargo xtask mutants` with this filter: what a processor of today hides from every run.
    Models(&'static str),
}

/// A text, which occurs once in that file, and what it becomes.
type Change = (&'static str, &'static str, &'static str);

struct Bug {
    what: &'static str,
    level: Level,
    /// Whether the gate tries it, beside the nightly run.
    gate: bool,
    changes: &'static [Change],
}

const QUIK_IO: &str = "crates/ring-io/src/quik_io.rs";
const RETRY: &str = "crates/ring-io/src/retry.rs";
const ORDER: &str = "crates/ring-io/src/order.rs";
const SLOT: &str = "crates/buffer_ring/src/slot.rs";
const LEASE: &str = "crates/buffer_ring/src/slot/lease.rs";
const WRITER: &str = "crates/buffer_ring/src/writer/mod.rs";
const DURABILITY: &str = "crates/buffer_ring/src/durability.rs";
const LEDGER: &str = "crates/buffer_ring/src/ledger.rs";
const ROTATION: &str = "crates/buffer_ring/src/rotation.rs";
const LOG_FILE: &str = "crates/ring-io/src/file.rs";

const BUGS: &[Bug] = &[
    Bug {
        what: "acknowledge without sync",
        level: Level::Memory,
        gate: true,
        changes: &[(QUIK_IO, "let outcome = self.storage.sync();", "let outcome = Ok::<(), Errno>(());")],
    },
    Bug {
        what: "retry a failed sync",
        level: Level::Memory,
        gate: true,
        changes: &[(
            QUIK_IO,
            "let outcome = self.storage.sync();",
            "let outcome = self.storage.sync().or_else(|_| self.storage.sync());",
        )],
    },
    Bug {
        what: "reuse a buffer before its write has completed",
        level: Level::Memory,
        gate: false,
        changes: &[(
            SLOT,
            "        unsafe { slot.region.freeze(padded) }\n",
            "        let (bytes, twin) = unsafe { (slot.region.freeze(padded), slot.region.freeze(padded)) };
        slot.complete(twin);
        bytes\n",
        )],
    },
    Bug {
        what: "leave a buffer without releasing what was written",
        level: Level::Models("word: E1, release half"),
        gate: false,
        changes: &[],
    },
    Bug {
        what: "write a buffer twice",
        level: Level::Memory,
        gate: false,
        changes: &[(
            RETRY,
            "        Ok(written) if request.done + written >= request.bytes.len() => {\n",
            "        Ok(written) if request.done + written >= request.bytes.len() => {
            if request.stalls == 0 {
                request.stalls = 1;
                return Verdict::Again(request);
            }\n",
        )],
    },
    Bug {
        what: "move the watermark to the newest write instead of the first gap",
        level: Level::Memory,
        gate: true,
        changes: &[
            (
                LEDGER,
                "while let Some(life) = self.ahead.remove(&(self.generation + 1)) {",
                "while let Some((generation, life)) = self.ahead.pop_last() {",
            ),
            (
                LEDGER,
                "            self.generation += 1;\n            self.written = life.end;",
                "            self.generation = self.generation.max(generation);
            self.written = self.written.max(life.end);",
            ),
        ],
    },
    Bug {
        what: "count as synced what was written while the sync ran",
        level: Level::Memory,
        gate: false,
        changes: &[(
            LEDGER,
            "    pub(crate) fn end_sync(&mut self) {\n        self.syncing = None;",
            "    pub(crate) fn end_sync(&mut self) {\n        self.syncing = None;\n        self.unsynced = None;",
        )],
    },
    Bug {
        what: "have the device flushed by two calls at once",
        level: Level::Memory,
        gate: true,
        changes: &[(DURABILITY, "self.durability.durable() == base", "self.durability.durable() <= base")],
    },
    Bug {
        what: "take a plain write for a durable one",
        level: Level::Memory,
        gate: false,
        changes: &[(LEDGER, "            if !life.durable {", "            if self.generation == u64::MAX {")],
    },
    // The flag goes, and who asked is told even so: the bit remembers.
    Bug {
        what: "drop the synced flag of a write that goes on after it came back short",
        level: Level::Memory,
        gate: false,
        changes: &[
            (
                RETRY,
                "    let reached = request.done + written;\n",
                "    let reached = request.done + written;
    if request.durable {
        (request.durable, request.token) = (false, request.token | 1 << 63);
    }\n",
            ),
            (
                RETRY,
                "    let durable = request.durable && result.is_ok();\n    Verdict::Finished(Finished { token: request.token,",
                "    let durable = (request.durable || request.token >> 63 == 1) && result.is_ok();
    Verdict::Finished(Finished { token: request.token & (u64::MAX >> 1),",
            ),
        ],
    },
    Bug {
        what: "write plainly what was to be durable",
        level: Level::Fuse,
        gate: false,
        changes: &[(LOG_FILE, "        if !request.durable {", "        if request.token < u64::MAX {")],
    },
    Bug {
        what: "take the last block of the log for prepared space",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "crates/ring-io/src/mark.rs",
            "ending.log = walk_back(storage, file, id);",
            "ending.log = walk_back(storage, file, id).saturating_sub(BLOCK as u64);",
        )],
    },
    Bug {
        what: "prepare space where the log is",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "crates/ring-io/src/space.rs",
            "let start = self.end.max(self.reach);",
            "let start = self.end.max(self.reach).saturating_sub(BLOCK as u64);",
        )],
    },
    Bug {
        what: "take a short write for a whole one",
        level: Level::Memory,
        gate: true,
        changes: &[(
            RETRY,
            "Ok(written) if request.done + written >= request.bytes.len() => {",
            "Ok(written) if written > 0 => {",
        )],
    },
    Bug {
        what: "try a failed write once more",
        level: Level::Faults,
        gate: false,
        changes: &[(
            RETRY,
            "        Err(errno) if is_transient(errno) && request.stalls < MAX_STALLS => {",
            "        Err(errno) if (is_transient(errno) || errno == Errno::IO) && request.stalls < MAX_STALLS => {",
        )],
    },
    Bug {
        what: "sync nothing without io_uring",
        level: Level::Fuse,
        gate: false,
        changes: &[(
            QUIK_IO,
            "let outcome = self.storage.sync();",
            "let outcome = if self.engine.kind() == EngineKind::Positioned { Ok(()) } else { self.storage.sync() };",
        )],
    },
    Bug {
        what: "cross the hole that a full disk has left",
        level: Level::Memory,
        gate: false,
        changes: &[(
            RETRY,
            "        Err(errno) => DeviceError::new(Operation::Write, errno, range),",
            "        Err(Errno::NOSPC) => return finished(request, Ok(())),
        Err(errno) => DeviceError::new(Operation::Write, errno, range),",
        )],
    },
    Bug {
        what: "lose a rotation",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "crates/buffer_ring/src/flush.rs",
            "        slot.complete(bytes);\n        self.advance_as_driver();\n        self.tell();",
            "        slot.complete(bytes);\n        self.tell();",
        )],
    },
    Bug {
        what: "pad with what was in the buffer before",
        level: Level::Memory,
        gate: false,
        changes: &[(SLOT, "        padding.fill(0);\n", "        let _ = padding;\n")],
    },
    Bug {
        what: "leave the bytes of an aborted reservation",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "crates/buffer_ring/src/reservation.rs",
            "        if let Some(mut grant) = self.grant.take() {\n            grant.bytes_mut().fill(0);\n",
            "        if let Some(grant) = self.grant.take() {\n",
        )],
    },
    Bug {
        what: "leave what was in the buffer before in the rest of a lease",
        level: Level::Memory,
        gate: false,
        changes: &[(
            WRITER,
            "        rest.bytes_mut().fill(0);\n        self.counters.lease_ended",
            "        let _ = rest.bytes_mut();\n        self.counters.lease_ended",
        )],
    },
    Bug {
        what: "append to a lease that was taken back",
        level: Level::Memory,
        gate: true,
        changes: &[(
            LEASE,
            "        if is_revoked() {\n            return None;",
            "        if false {\n            return None;",
        )],
    },
    Bug {
        what: "take back with the rest of a lease what is filled of it",
        level: Level::Memory,
        gate: false,
        changes: &[(
            LEASE,
            "Some(Grant { slot, start: start + filled, len: len - filled })",
            "Some(Grant { slot, start: start + filled - filled.min(64), len: len - filled + filled.min(64) })",
        )],
    },
    Bug {
        what: "begin a serialized write before its turn",
        level: Level::Memory,
        gate: false,
        changes: &[(
            ORDER,
            "self.waiting.first_entry().filter(|first| first.key().0 <= self.next)?",
            "self.waiting.first_entry()?",
        )],
    },
    Bug {
        what: "take the next serialized write that has come for the next one in the log",
        level: Level::Memory,
        gate: true,
        changes: &[(
            ORDER,
            "        self.next = self.next.max(range.end);\n        self.next_turn()",
            "        self.next = self.next.max(range.end);\n        self.waiting.pop_first().map(|(_, request)| request)",
        )],
    },
    Bug {
        what: "go past a buffer that is not written, and open one again behind it",
        level: Level::Memory,
        gate: true,
        changes: &[(
            ROTATION,
            "            Target::Next if current.slot() + 1 < slots.len() => current.slot() + 1,\n",
            "            Target::Next if target == Target::Next => {
                let mut next = (1..=slots.len()).map(|n| (current.slot() + n) % slots.len());
                let first = (current.slot() + 1) % slots.len();
                next.find(|&slot| slots[slot].is_openable()).unwrap_or(first)
            }\n",
        )],
    },
    Bug {
        what: "go on with a short write a block too far",
        level: Level::Memory,
        gate: false,
        changes: &[(
            RETRY,
            "        request.done = block;\n        request.stalls = 0;",
            "        request.done = (block + 4096).min(request.bytes.len() - 4096);\n        request.stalls = 0;",
        )],
    },
];

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let filters: Vec<_> = arguments.iter().filter(|argument| *argument != "--gate").collect();
    let gate = filters.len() < arguments.len();
    let wanted = |bug: &&Bug| {
        (bug.gate || !gate) && (filters.is_empty() || filters.iter().any(|filter| bug.what.contains(filter.as_str())))
    };
    let bugs: Vec<_> = BUGS.iter().filter(wanted).collect();
    if bugs.is_empty() {
        return Err("no planted bug has such a name".into());
    }
    let start = Instant::now();
    let lab = Lab::new()?;
    let levels: BTreeSet<_> = bugs.iter().map(|bug| bug.level).collect();
    lab.build()?;
    let mut skipped = BTreeSet::new();
    for level in levels {
        let Some(arguments) = level.arguments() else { continue };
        match lab.run(arguments)? {
            Ran::Nothing => println!("unchanged: ring-lab {arguments}: finds nothing"),
            Ran::Found(why) => return Err(format!("without any bug, `ring-lab {arguments}` fails: {why}")),
            Ran::Skipped(why) => {
                println!("{why}: no bug of level {level:?} is planted");
                skipped.insert(level);
            }
        }
    }
    let bugs: Vec<_> = bugs.into_iter().filter(|bug| !skipped.contains(&bug.level)).collect();
    let mut survivors = Vec::new();
    for (number, bug) in bugs.iter().enumerate() {
        let begun = Instant::now();
        let killed = lab.try_bug(bug)?;
        let verdict = killed.clone().map_or("SURVIVED".to_owned(), |why| format!("killed: {why}"));
        let (count, seconds) = (bugs.len(), begun.elapsed().as_secs_f64());
        println!("[{}/{count}] {} ({:?}, {seconds:.0} s): {verdict}", number + 1, bug.what, bug.level);
        if killed.is_none() {
            survivors.push(bug.what);
        }
    }
    println!("\n{} of {} killed ({:.0} s)", bugs.len() - survivors.len(), bugs.len(), start.elapsed().as_secs_f64());
    if survivors.is_empty() { Ok(()) } else { Err(format!("the lab has not noticed: {}", survivors.join("; "))) }
}

impl Level {
    /// What the lab is started with.
    fn arguments(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("crash --level memory --images 2000000 --seed 1"),
            Self::Fuse => Some("crash --level fuse --images 400000 --seed 1"),
            Self::Faults => Some("faults --seed 1"),
            Self::Models(_) => None,
        }
    }
}

/// What the lab said.
enum Ran {
    Nothing,
    /// The first thing that it found.
    Found(String),
    /// Why it could not look.
    Skipped(String),
}

/// The copy that is changed, and its build.
struct Lab {
    tree: PathBuf,
    build: PathBuf,
}

impl Lab {
    fn new() -> Result<Self, String> {
        let place = PathBuf::from(target("planted"));
        let (tree, build) = (place.join("tree"), place.join("build"));
        mutants::copy_sources(&tree)?;
        Ok(Self { tree, build })
    }

    fn build(&self) -> Result<(), String> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--package", "ring-lab"]).env("CARGO_TARGET_DIR", &self.build);
        // Most of the time goes into builds.
        cargo.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        let built = cargo.current_dir(&self.tree).stdin(Stdio::null()).output();
        let built = built.map_err(|error| format!("cannot start cargo: {error}"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        if built.status.success() { Ok(()) } else { Err(format!("it does not compile\n{said}")) }
    }

    fn run(&self, arguments: &str) -> Result<Ran, String> {
        let mut lab = Command::new(self.build.join("release/ring-lab"));
        if engines::root_can_do_everything().is_ok() {
            lab.env("BUFFER_RING_REQUIRE_ROOT", "1");
        }
        let ran = lab.args(arguments.split(' ')).current_dir(&self.tree).stdin(Stdio::null()).output();
        let ran = ran.map_err(|error| format!("cannot start the lab: {error}"))?;
        if ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stdout);
            let skipped = said.lines().find(|line| line.starts_with("skipped: disks"));
            return Ok(skipped.map_or(Ran::Nothing, |why| Ran::Skipped(why.to_owned())));
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let telling = |line: &&str| {
            line.contains("VIOLATION")
                || line.contains("unnoticed")
                || line.contains("panicked")
                || line.contains("run ")
        };
        let line = said.lines().find(telling).or_else(|| said.lines().next()).unwrap_or("it said nothing");
        Ok(Ran::Found(line.trim().trim_start_matches("ring-lab: ").chars().take(150).collect()))
    }

    fn try_bug(&self, bug: &Bug) -> Result<Option<String>, String> {
        if let Level::Models(filter) = bug.level {
            return mutants::task(&[filter.to_owned()]).map(|()| Some("by its model".into()));
        }
        let mut sources = Vec::new();
        for (file, from, to) in bug.changes {
            let path = self.tree.join(file);
            let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            fs::write(&path, apply(&source, bug, file, from, to)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            sources.push((path, source));
        }
        let outcome = self.build().and_then(|()| match bug.level.arguments() {
            Some(arguments) => self.run(arguments),
            None => Ok(Ran::Nothing),
        });
        for (path, source) in sources.iter().rev() {
            fs::write(path, source).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        match outcome.map_err(|error| format!("{}: {error}", bug.what))? {
            Ran::Found(why) => Ok(Some(why)),
            Ran::Nothing | Ran::Skipped(_) => Ok(None),
        }
    }
}

fn apply(source: &str, bug: &Bug, file: &str, from: &str, to: &str) -> Result<String, String> {
    match source.matches(from).count() {
        1 => Ok(source.replacen(from, to, 1)),
        count => Err(format!("{}: {file} has this {count} times instead of once:\n{from}", bug.what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn every_planted_bug_changes_places_that_are_there() {
        let mut names = BTreeSet::new();
        for bug in BUGS {
            assert!(names.insert(bug.what), "{} is there twice", bug.what);
            assert!(!bug.changes.is_empty() || matches!(bug.level, Level::Models(_)), "{} changes nothing", bug.what);
            for (file, from, to) in bug.changes {
                let source = fs::read_to_string(root().join(file)).expect(file);
                assert_ne!(apply(&source, bug, file, from, to).unwrap(), source, "{}", bug.what);
            }
        }
    }
}
