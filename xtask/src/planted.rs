//! Plants bugs in a copy of the checkout, one at a time, and wants the lab to catch each: a rig that never fails proves
//! nothing. Some kinds of bug the lab has no view of; those a test of a normal build has to catch.
//!
//! Each bug names the level that must kill it. All of them have to die; before that, every level has to find nothing in
//! what is unchanged.
//!
//! Bugs of `ringlog` are [planted all at once](switched), each behind a switch.

mod ringlog;
mod switched;

use core::time::Duration;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use crate::patch::Change;
use crate::workbench::Workbench;
use crate::{engines, mutants};

/// A lab that is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// Most of the time goes into builds.
const RELEASE: &[(&str, &str)] =
    &[("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")];

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
    /// A test of a normal build, by `cargo test` with these arguments: what the lab has no view of.
    Tests(&'static str),
}

struct Bug {
    what: &'static str,
    level: Level,
    /// Whether the gate tries it, beside the nightly run.
    gate: bool,
    /// In which file, which code, and what it becomes.
    changes: &'static [(&'static str, &'static str, &'static str)],
}

impl Bug {
    fn changes(&self) -> Vec<Change> {
        self.changes.iter().map(|&(file, from, to)| Change { file, from, to }).collect()
    }
}

const QUIK_IO: &str = "ring-io/quik_io.rs";
const STICKY_ERROR: &str = "ring-io/sticky_error.rs";
const RETRY: &str = "ring-io/retry.rs";
const SEQUENCER: &str = "ring-io/sequencer.rs";
const SLOT: &str = "buffer_ring/slot.rs";
const LEASE: &str = "buffer_ring/lease.rs";
const WATERMARKS: &str = "buffer_ring/watermarks.rs";
const LEDGER: &str = "buffer_ring/ledger.rs";
const LOG_FILE: &str = "ring-io/file.rs";
const ROTATION: &str = "buffer_ring/rotation.rs";
const MARKER: &str = "ring-io/prealloc/marker.rs";
const QUEUE: &str = "ring-io/queue.rs";
const SETTLE: &str = "ring-io/prealloc/settle.rs";
const PREALLOC: &str = "ring-io/prealloc/mod.rs";
const FILES: &str = "ring-io/files.rs";

/// Bugs of Raft logs: on the smallest log that shows them, in crash images, and as openraft sees them.
const GROUPS: Level = Level::Tests("-p ring-raft --no-default-features --test groups");
const GROUP_IMAGES: Level = Level::Tests("-p ring-raft --no-default-features --test images");
const OPENRAFT: Level = Level::Tests("-p ring-raft --test openraft_0_9");

/// Bugs of a log over several files.
const SEGMENTS: Level = Level::Tests("-p ring-io --test segments");

const BUGS: &[Bug] = &[
    Bug {
        what: "trim a Raft log without the votes of silent groups",
        level: GROUPS,
        gate: false,
        changes: &[("ring-raft/logs.rs", "self.save_state(group, to)?;", "let _silent = group;")],
    },
    Bug {
        what: "truncate a Raft group in memory only",
        level: GROUP_IMAGES,
        gate: false,
        changes: &[(
            "ring-raft/group.rs",
            "let at = self.append(&mut writing, Body::Truncate(from))?;",
            "let at = self.logs.log.end()..self.logs.log.end();",
        )],
    },
    Bug {
        what: "believe a Raft group whose records are missing",
        level: GROUP_IMAGES,
        gate: false,
        changes: &[(
            "ring-raft/recovery.rs",
            "let missing = number.checked_sub(self.number + 1)?;",
            "let missing = number.checked_sub(self.number + 1)?.min(0);",
        )],
    },
    Bug {
        what: "trim a Raft log before the purges are durable",
        level: GROUP_IMAGES,
        gate: false,
        changes: &[("ring-raft/logs.rs", "self.wait_durable(self.log.end())?; } let trimmed", "} let trimmed")],
    },
    Bug {
        what: "take a batch of a Raft group back in memory only",
        level: GROUPS,
        gate: false,
        changes: &[(
            "ring-raft/group.rs",
            "if let Err(error) = self.log.append(writing, Body::Truncate(first.index)) {",
            "if let Err(error) = Ok::<(), Error>(()) {",
        )],
    },
    Bug {
        what: "believe a Raft group that is silent behind the damage",
        level: GROUPS,
        gate: false,
        changes: &[(
            "ring-raft/recovery.rs",
            "gap > Lsn::START && self.end <= gap",
            "gap > Lsn::START && self.end < Lsn::START",
        )],
    },
    Bug {
        what: "report an append of openraft before it is durable",
        level: OPENRAFT,
        gate: false,
        changes: &[(
            "ring-raft/raft_log.rs",
            "self.log.on_durable(end, |outcome| call.call(outcome.map_err(io::Error::from)));",
            "let _end = end; call.call(Ok(()));",
        )],
    },
    Bug {
        what: "acknowledge without sync",
        level: Level::Memory,
        gate: true,
        changes: &[(QUIK_IO, "let outcome = storage.sync(flush.scope);", "let outcome = Ok::<(), Errno>(());")],
    },
    Bug {
        what: "retry a failed sync",
        level: Level::Memory,
        gate: true,
        changes: &[(
            QUIK_IO,
            "let outcome = storage.sync(flush.scope);",
            "let outcome = storage.sync(flush.scope).or_else(|_| storage.sync(flush.scope));",
        )],
    },
    Bug {
        what: "reuse a buffer before its write has completed",
        level: Level::Memory,
        gate: false,
        changes: &[(
            SLOT,
            "        Some(unsafe { batch.freeze(end) })\n",
            "        let (bytes, twin) = unsafe { (batch.clone().freeze(end), batch.freeze(end)) };
        slot.complete(twin);
        Some(bytes)\n",
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
                return Decision::Again(request);
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
                "while let Some(batch) = self.ahead.remove(&(self.generation + 1)) {",
                "while let Some((generation, batch)) = self.ahead.pop_last() {",
            ),
            (
                LEDGER,
                "            self.generation += 1;\n            self.written = batch.end;",
                "            self.generation = self.generation.max(generation);
            self.written = self.written.max(batch.end);",
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
        what: "have two cache flushes in flight",
        level: Level::Memory,
        gate: true,
        changes: &[(
            "buffer_ring/writeback/mod.rs",
            "self.watermarks.durable() == base",
            "self.watermarks.durable() <= base",
        )],
    },
    Bug {
        what: "take a plain write for a durable one",
        level: Level::Memory,
        gate: false,
        changes: &[(LEDGER, "            if !batch.durable {", "            if self.generation == u64::MAX {")],
    },
    // The flag goes, and the flush is still reported: the bit remembers.
    Bug {
        what: "drop the synced flag of a write that is continued after it came back short",
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
                "    let durable = request.durable && result.is_ok();\n    Decision::Finished(Finished { token: request.token,",
                "    let durable = (request.durable || request.token >> 63 == 1) && result.is_ok();
    Decision::Finished(Finished { token: request.token & (u64::MAX >> 1),",
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
        what: "take the last block of the log for preallocated space",
        level: Level::Memory,
        gate: false,
        changes: &[(
            MARKER,
            "ending.log = walk_back(storage, file, key);",
            "ending.log = walk_back(storage, file, key).saturating_sub(BLOCK as u64);",
        )],
    },
    Bug {
        what: "preallocate space where the log is",
        level: Level::Memory,
        gate: false,
        changes: &[(
            PREALLOC,
            "let start = self.end.max(self.submitted_end);",
            "let start = self.end.max(self.submitted_end).saturating_sub(BLOCK as u64);",
        )],
    },
    Bug {
        what: "take a marker for preallocated space whatever its key",
        level: Level::Memory,
        gate: false,
        changes: &[(
            MARKER,
            "            if !key.is_on(block, end - BLOCK as u64) {",
            "            if !Key::within(block).is_on(block, end - BLOCK as u64) {",
        )],
    },
    Bug {
        what: "keep the key of a file although a payload is a marker under it",
        level: Level::Memory,
        gate: true,
        changes: &[(QUEUE, "        if !imitates(key, &request.bytes, request.offset) {", "        if key == key {")],
    },
    Bug {
        what: "remove the key only when the write of such a payload is over",
        level: Level::Memory,
        gate: false,
        changes: &[
            (QUEUE, "            self.look_at(&request, prealloc);\n", ""),
            (QUEUE, "        self.look_at(request, prealloc);\n", ""),
            (
                QUEUE,
                "fn look_at(&self, request: &Request, prealloc",
                "fn look_at(&self, offset: u64, bytes: &[u8], prealloc",
            ),
            (QUEUE, "!imitates(key, &request.bytes, request.offset)", "!imitates(key, bytes, offset)"),
            (
                QUEUE,
                "prealloc.lock().give_up_key(&self.io), request.range());",
                "prealloc.lock().give_up_key(&self.io), offset..offset);",
            ),
            (
                QUEUE,
                "        if write.durable {
            self.io.flushed(scope);
",
                "        if write.durable {
            if let Some(prealloc) = &self.prealloc {
                self.look_at(offset, &write.bytes, prealloc);
            }
            self.io.flushed(scope);
",
            ),
            (
                QUEUE,
                "fn apply_sticky_error(&self, durable: bool,",
                "fn apply_sticky_error(&self, offset: u64, durable: bool,",
            ),
            (
                QUEUE,
                "        self.make_way(&request);\n",
                "        let start = request.offset;\n        self.make_way(&request);\n",
            ),
            (
                QUEUE,
                "        let finished = self.apply_sticky_error(durable, scope, finished);",
                "        let finished = self.apply_sticky_error(start, durable, scope, finished);",
            ),
            (
                QUEUE,
                "                    let write = self.apply_sticky_error(durable, scope, write);",
                "                    let start = next - write.bytes.len() as u64;
                    let write = self.apply_sticky_error(start, durable, scope, write);",
            ),
        ],
    },
    Bug {
        what: "decide what a durable write takes along before the write is inspected",
        level: Level::Memory,
        gate: false,
        changes: &[(
            QUEUE,
            "        self.make_way(&request);
        request.scope = self.io.scope();
",
            "        request.scope = self.io.scope();
        self.make_way(&request);
",
        )],
    },
    Bug {
        what: "never have a changed key put on stable storage",
        level: Level::Memory,
        gate: false,
        changes: &[(
            SETTLE,
            "if self.settled.load(Ordering::Relaxed) < changes {",
            "if self.settled.load(Ordering::Relaxed) < changes.min(1) {",
        )],
    },
    Bug {
        what: "flush the bytes alone where the key has changed",
        level: Level::Fuse,
        gate: false,
        changes: &[
            (LOG_FILE, "Scope::Whole(_) => ReadWriteFlags::SYNC,", "Scope::Whole(_) => ReadWriteFlags::DSYNC,"),
            (LOG_FILE, "rustix::fs::fsync(&self.file)", "rustix::fs::fdatasync(&self.file)"),
        ],
    },
    Bug {
        what: "take a short write for a complete one",
        level: Level::Memory,
        gate: true,
        changes: &[(
            RETRY,
            "Ok(written) if request.done + written >= request.bytes.len() => {",
            "Ok(written) if written > 0 => {",
        )],
    },
    Bug {
        what: "retry a failed write",
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
            "let outcome = storage.sync(flush.scope);",
            "let outcome = match self.engine.kind() {
            EngineKind::Positioned => Ok(()),
            _ => storage.sync(flush.scope),
        };",
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
            "buffer_ring/core.rs",
            "        slot.complete(bytes);\n        self.advance_as_driver();\n        self.notify();",
            "        slot.complete(bytes);\n        self.notify();",
        )],
    },
    Bug {
        what: "pad with what was in the buffer before",
        level: Level::Memory,
        gate: false,
        changes: &[(SLOT, "        trailer.fill(0);\n", "        let _ = &trailer;\n")],
    },
    Bug {
        what: "leave the bytes of an aborted reservation",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "buffer_ring/reservation.rs",
            "        if let Some(mut grant) = self.grant.take() {\n            grant.bytes_mut().fill(0);\n",
            "        if let Some(grant) = self.grant.take() {\n",
        )],
    },
    Bug {
        what: "leave what was in the buffer before in the rest of a lease",
        level: Level::Memory,
        gate: false,
        changes: &[(
            "buffer_ring/core.rs",
            "        rest.bytes_mut().fill(0);\n        self.counters.lease_ended",
            "        let _ = rest.bytes_mut();\n        self.counters.lease_ended",
        )],
    },
    Bug {
        what: "append to a revoked lease",
        level: Level::Memory,
        gate: true,
        changes: &[(
            LEASE,
            "        if is_revoked() {\n            return None;",
            "        if false {\n            return None;",
        )],
    },
    Bug {
        what: "revoke with the rest of a lease what is filled of it",
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
            SEQUENCER,
            "self.waiting.first_entry().filter(|first| first.key().0 <= self.next)?",
            "self.waiting.first_entry()?",
        )],
    },
    Bug {
        what: "take the next serialized write that has come for the next one in the log",
        level: Level::Memory,
        gate: true,
        changes: &[(
            SEQUENCER,
            "        self.next = self.next.max(next);\n        self.next_turn()",
            "        self.next = self.next.max(next);\n        self.waiting.pop_first().map(|(_, request)| request)",
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
        what: "continue with a short write a block too far",
        level: Level::Tests("-p ring-io --test faults"),
        gate: false,
        changes: &[(
            RETRY,
            "        request.done = block;\n        request.stalls = 0;",
            "        request.done = (block + 4096).min(request.bytes.len() - 4096);\n        request.stalls = 0;",
        )],
    },
    Bug {
        what: "leave a generation unpublished that an append has found before its opener published it",
        level: Level::Tests("-p buffer_ring --lib"),
        gate: false,
        changes: &[("buffer_ring/ring/append.rs", "if grant.slot().generation() != seen.generation() {", "if false {")],
    },
    Bug {
        what: "keep the last failure of a ring instead of the first",
        level: Level::Tests("-p buffer_ring --test failures"),
        gate: false,
        changes: &[(
            "buffer_ring/core.rs",
            "failure.get_or_insert_with(|| error.clone());",
            "*failure = Some(error.clone());",
        )],
    },
    Bug {
        what: "keep the last failure of a file instead of the first",
        level: Level::Tests("-p ring-io --test faults"),
        gate: false,
        changes: &[
            (STICKY_ERROR, "error: OnceLock<DeviceError>,", "error: Mutex<Option<DeviceError>>,"),
            (
                STICKY_ERROR,
                "self.error.get().map_or(Ok(()), |error| Err(error.clone()))",
                "self.error.lock().as_ref().map_or(Ok(()), |error| Err(error.clone()))",
            ),
            (STICKY_ERROR, "_ = self.error.set(error);", "*self.error.lock() = Some(error);"),
        ],
    },
    Bug {
        what: "move the durable watermark by a sync that succeeds after the failure",
        level: Level::Tests("-p buffer_ring --test failures"),
        gate: false,
        changes: &[(
            WATERMARKS,
            "guarded(&mut || {",
            "drop(guarded); let always = |f: &mut dyn FnMut()| f(); always(&mut || {",
        )],
    },
    Bug {
        what: "give up a wait for room after its first second",
        level: Level::Tests("-p buffer_ring --test patience"),
        gate: false,
        changes: &[(
            "buffer_ring/drive.rs",
            "deadline.is_some_and(|deadline| deadline <= suspicious)",
            "deadline.is_some()",
        )],
    },
    Bug {
        what: "forget the deadline of a wait for room after its first second",
        level: Level::Tests("-p buffer_ring --test patience"),
        gate: false,
        changes: &[(
            "buffer_ring/drive.rs",
            "self.wait_until(deadline, ready)\n    }",
            "self.wait_until(None, ready)\n    }",
        )],
    },
    Bug {
        what: "report a failure for what was done before it",
        level: Level::Tests("-p buffer_ring --test failures"),
        gate: false,
        changes: &[(
            "buffer_ring/drive.rs",
            "if done() { Some(Ok(())) } else { failure.map(Err) }",
            "match failure { Some(failure) => Some(Err(failure)), None => done().then_some(Ok(())) }",
        )],
    },
    Bug {
        what: "take back the leases of the first buffer only after a failure",
        level: Level::Tests("-p buffer_ring --test failures"),
        gate: false,
        changes: &[(
            "buffer_ring/core.rs",
            "self.staging.slots().iter().for_each(|slot| self.revoke_leases(slot));",
            "self.staging.slots().iter().take(1).for_each(|slot| self.revoke_leases(slot));",
        )],
    },
    Bug {
        what: "read from the file what only a buffer in memory has",
        level: Level::Tests("-p buffer_ring --test reading"),
        gate: false,
        changes: &[("buffer_ring/read.rs", "nearer <= base", "nearer >= base")],
    },
    Bug {
        what: "take the largest value that fits for every latency",
        level: Level::Tests("-p buffer_ring --test patience"),
        gate: false,
        changes: &[(
            "buffer_ring/latency.rs",
            "let recorded = histograms[measure as usize].lock().record(value);",
            "histograms[measure as usize].lock().saturating_record(value); let recorded = Ok::<(), ()>(());",
        )],
    },
    Bug {
        what: "send the last write of a segment before the next segment is there",
        level: SEGMENTS,
        gate: false,
        changes: &[(FILES, "needed.into_iter().find(|number|", "needed.into_iter().take(1).find(|number|")],
    },
    Bug {
        what: "sync only the first of several files",
        level: SEGMENTS,
        gate: false,
        changes: &[(
            "ring-io/backend.rs",
            "let file = self.rest.pop_front()?;",
            "let file = self.rest.pop_front().filter(|_| false)?;",
        )],
    },
    Bug {
        what: "sync the later of several files first",
        level: SEGMENTS,
        gate: false,
        changes: &[(
            FILES,
            "state.files.values().filter(|entry| entry.ended",
            "state.files.values().rev().filter(|entry| entry.ended",
        )],
    },
    Bug {
        what: "take a write that comes back during a sync of its file for a synced one",
        level: SEGMENTS,
        gate: false,
        changes: &[(FILES, "entry.synced = entry.synced.max(file.ended);", "entry.synced = entry.ended;")],
    },
    Bug {
        what: "remove a segment with bytes that are not on stable storage",
        level: SEGMENTS,
        gate: false,
        changes: &[(FILES, "entry.ended += u64::from(!durable);", "_ = durable;")],
    },
    Bug {
        what: "take what a serialized log skips for a gap",
        level: SEGMENTS,
        gate: false,
        changes: &[(
            SEQUENCER,
            "self.next = self.next.max(next);",
            "self.next = self.next.max(next.min(self.next + 4096));",
        )],
    },
    Bug {
        what: "give the place of a registered file to another while an entry names it",
        level: Level::Tests("-p ring-io --lib"),
        gate: false,
        changes: &[(
            "ring-io/engine/uring/registration.rs",
            "Place::Of(number) if !slots.is_for(number) => Some(Some(number)),",
            "Place::Of(number) => Some(Some(number)),",
        )],
    },
];

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let filters: Vec<_> = arguments.iter().filter(|argument| *argument != "--gate").collect();
    let gate = filters.len() < arguments.len();
    let is_named = |what: &str| filters.is_empty() || filters.iter().any(|filter| what.contains(filter.as_str()));
    let bugs: Vec<_> = BUGS.iter().filter(|bug| (bug.gate || !gate) && is_named(bug.what)).collect();
    // All tests of the log have to be built once more for them: the workflow has a job for that, beside the gate.
    let is_wanted = |bug: &&switched::Bug| is_named(&bug.title()) && !gate;
    let mut switched: Vec<_> = switched::all().filter(is_wanted).collect();
    if bugs.is_empty() && switched.is_empty() {
        return Err("no planted bug has such a name".into());
    }
    let lab = Lab::new()?;
    let levels: BTreeSet<_> = bugs.iter().map(|bug| bug.level).collect();
    if levels.iter().any(|level| level.arguments().is_some()) {
        lab.build()?;
    }
    let mut skipped = BTreeSet::new();
    for level in levels {
        if let Level::Tests(arguments) = level {
            match lab.test(arguments)? {
                Ran::Found(why) => return Err(format!("without any bug, `cargo test {arguments}` fails: {why}")),
                Ran::Nothing | Ran::Skipped(_) => println!("unchanged: cargo test {arguments}: passes"),
            }
        }
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
    if switched.iter().any(|bug| bug.is_mounted())
        && let Err(why) = engines::root_can_do_everything()
    {
        println!("{why}: no bug is planted that only a mounted file system shows");
        switched.retain(|bug| !bug.is_mounted());
    }
    let bugs: Vec<_> = bugs.into_iter().filter(|bug| !skipped.contains(&bug.level)).collect();
    let mut tally = Tally::of(bugs.len() + switched.len());
    for bug in bugs {
        let begun = Instant::now();
        let killed = lab.try_bug(bug)?;
        tally.add(bug.what, &format!("{:?}", bug.level), begun.elapsed(), killed);
    }
    if !switched.is_empty() {
        switched::try_all(&lab.0, &switched, &mut tally)?;
    }
    tally.end()
}

/// What has become of the bugs so far.
struct Tally {
    start: Instant,
    all: usize,
    tried: usize,
    survivors: Vec<&'static str>,
}

impl Tally {
    fn of(all: usize) -> Self {
        Self { start: Instant::now(), all, tried: 0, survivors: Vec::new() }
    }

    /// `killed`: how it was noticed.
    fn add(&mut self, what: &'static str, level: &str, time: Duration, killed: Option<String>) {
        self.tried += 1;
        if killed.is_none() {
            self.survivors.push(what);
        }
        let verdict = killed.map_or("SURVIVED".to_owned(), |why| format!("killed: {why}"));
        println!("[{}/{}] {what} ({level}, {:.0} s): {verdict}", self.tried, self.all, time.as_secs_f64());
    }

    fn end(self) -> Result<(), String> {
        let killed = self.tried - self.survivors.len();
        println!("\n{killed} of {} killed ({:.0} s)", self.tried, self.start.elapsed().as_secs_f64());
        if self.survivors.is_empty() { Ok(()) } else { Err(format!("not noticed: {}", self.survivors.join("; "))) }
    }
}

impl Level {
    /// What the lab is started with.
    fn arguments(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("crash --level memory --images 2000000 --seed 1"),
            Self::Fuse => Some("crash --level fuse --images 400000 --seed 1"),
            Self::Faults => Some("faults --seed 1"),
            Self::Models(_) | Self::Tests(_) => None,
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

/// The copy that is changed, and the lab that is built there.
struct Lab(Workbench);

impl Lab {
    fn new() -> Result<Self, String> {
        Ok(Self(Workbench::new("planted")?))
    }

    fn build(&self) -> Result<(), String> {
        self.0.cargo("build --release --package ring-lab", RELEASE).map(drop)
    }

    fn run(&self, arguments: &str) -> Result<Ran, String> {
        let mut lab = Command::new(self.0.built("release/ring-lab"));
        if engines::root_can_do_everything().is_ok() {
            lab.env("BUFFER_RING_REQUIRE_ROOT", "1");
        }
        lab.args(arguments.split(' '));
        let ran = self.0.run(lab, PATIENCE)?;
        let said = ran.output;
        if ran.status.is_some_and(|status| status.success()) {
            let skipped = said.lines().find(|line| line.starts_with("skipped: disks"));
            return Ok(skipped.map_or(Ran::Nothing, |why| Ran::Skipped(why.to_owned())));
        }
        if ran.status.is_none() {
            return Ok(Ran::Found(format!("it hangs: not done after {PATIENCE:?}")));
        }
        let signs = ["VIOLATION", "unnoticed", "panicked", "run "];
        let is_telling = |line: &&str| signs.iter().any(|sign| line.contains(sign));
        let line = said.lines().find(is_telling).or_else(|| said.lines().next()).unwrap_or("it said nothing");
        Ok(Ran::Found(line.trim().trim_start_matches("ring-lab: ").chars().take(150).collect()))
    }

    /// Runs tests of a normal build.
    fn test(&self, arguments: &str) -> Result<Ran, String> {
        self.0.cargo(&format!("test --no-run {arguments}"), &[])?;
        let mut tests = Command::new("cargo");
        tests.args(["test", "--quiet"]).args(arguments.split(' ')).env("CARGO_TARGET_DIR", self.0.built(""));
        let ran = self.0.run(tests, PATIENCE)?;
        if ran.status.is_some_and(|status| status.success()) {
            return Ok(Ran::Nothing);
        }
        let line = ran.output.lines().find(|line| line.contains("panicked")).unwrap_or("it hangs");
        Ok(Ran::Found(line.trim().chars().take(150).collect()))
    }

    fn try_bug(&self, bug: &Bug) -> Result<Option<String>, String> {
        if let Level::Models(filter) = bug.level {
            return mutants::task(&[filter.to_owned()]).map(|()| Some("by its model".into()));
        }
        let outcome = self.0.with(&bug.changes(), || {
            if let Level::Tests(arguments) = bug.level {
                return self.test(arguments);
            }
            self.build()?;
            bug.level.arguments().map_or(Ok(Ran::Nothing), |arguments| self.run(arguments))
        });
        match outcome.map_err(|error| format!("{}: {error}", bug.what))? {
            Ran::Found(why) => Ok(Some(why)),
            Ran::Nothing | Ran::Skipped(_) => Ok(None),
        }
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
            for change in bug.changes() {
                change.try_on(&root()).unwrap_or_else(|why| panic!("{}: {why}", bug.what));
            }
        }
    }
}
