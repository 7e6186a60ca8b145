//! A directory in memory that can crash.
//!
//! On stable storage is what a sync covered. Of all the rest, a power cut leaves each sector of 512 bytes of each
//! write, and each change of the names, independently of all others: present or not. A kill leaves every completed
//! write visible, and none of it stable.

use core::fmt;
use core::mem;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use buffer_ring::{MemoryDevice, SegmentFile};

use super::Directory;
use super::mirror::Mirror;
use crate::random::Random;

const SECTOR: usize = 512;

/// A directory in memory. Clones are the same directory; [`fork`](Self::fork) copies it.
///
/// # Examples
///
/// ```
/// use ringlog::directory::{Directory, MemoryDirectory};
///
/// let directory = MemoryDirectory::new();
/// let file = directory.create("a")?;
/// directory.write_at(&file, b"hello", 0)?;
/// directory.sync_file(&file)?;
/// directory.sync_dir()?;
/// directory.write_at(&file, b"world", 512)?;
/// let after = directory.power_cut(1);
/// let content = &after.contents()["a"];
/// assert_eq!(&content[..5], b"hello");
/// assert!(content.len() == 5 || &content[512..] == b"world");
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    state: Arc<Mutex<State>>,
    stalls: Arc<Stalls>,
}

/// What syncs of files wait for.
#[derive(Debug, Default)]
struct Stalls {
    /// How many [`Stall`]s there are, and how many syncs wait for them.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
}

/// Has syncs wait until it is dropped; made by [`MemoryDirectory::stall_syncs`].
#[derive(Debug)]
#[must_use]
pub struct Stall {
    stalls: Arc<Stalls>,
}

impl Stall {
    /// Returns when a sync waits.
    pub fn wait_for_sync(&self) {
        let counts = lock(&self.stalls.counts);
        let waited = self.stalls.changed.wait_while(counts, |(_, waiting)| *waiting == 0);
        drop(waited.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        lock(&self.stalls.counts).0 -= 1;
        self.stalls.changed.notify_all();
    }
}

impl Stalls {
    fn pass(&self) {
        let mut counts = lock(&self.counts);
        counts.1 += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_while(counts, |(stalls, _)| *stalls > 0);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).1 -= 1;
    }
}

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An open file of a [`MemoryDirectory`].
#[derive(Clone, Debug)]
pub struct MemoryFile(usize);

/// The lock on a file of a [`MemoryDirectory`], until it is dropped.
pub struct MemoryLock {
    state: Arc<Mutex<State>>,
    name: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    files: Vec<FileContent>,
    stable_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    pending: Vec<Effect>,
    /// Writes so far.
    writes: u64,
    /// Changes until it stops.
    fuse: Option<u64>,
    locked: BTreeSet<String>,
    /// The files that a ring writes to.
    pub(super) mirror: Mirror,
}

#[derive(Clone, Debug, Default)]
struct FileContent {
    stable: Arc<Vec<u8>>,
    /// What a reader sees now.
    seen: Arc<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Effect {
    Write {
        number: u64,
        /// It has not completed yet.
        in_flight: bool,
        file: usize,
        at: usize,
        bytes: Arc<[u8]>,
    },
    Extend {
        file: usize,
        len: usize,
    },
    Create {
        name: String,
        file: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        name: String,
    },
}

fn put(content: &mut Arc<Vec<u8>>, at: usize, bytes: &[u8]) {
    extend(content, at + bytes.len());
    Arc::make_mut(content)[at..at + bytes.len()].copy_from_slice(bytes);
}

fn extend(content: &mut Arc<Vec<u8>>, len: usize) {
    if content.is_empty() {
        // The kernel's zeros take no memory.
        *content = Arc::new(vec![0; len]);
    } else if content.len() < len {
        Arc::make_mut(content).resize(len, 0);
    }
}

/// The sectors of a write, with their places.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR - at % SECTOR).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR).enumerate().map(move |(n, sector)| (at + first + n * SECTOR, sector));
    core::iter::once((at, head)).chain(rest).filter(|(_, sector)| !sector.is_empty())
}

fn rename(names: &mut BTreeMap<String, usize>, from: &str, to: &str) {
    if let Some(file) = names.remove(from) {
        names.insert(to.to_owned(), file);
    }
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the simulated machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn apply_to_stable(&mut self, effect: &Effect) {
        match effect {
            Effect::Write { file, at, bytes, .. } => put(&mut self.files[*file].stable, *at, bytes),
            Effect::Extend { file, len } => extend(&mut self.files[*file].stable, *len),
            Effect::Create { name, file } => _ = self.stable_names.insert(name.clone(), *file),
            Effect::Rename { from, to } => rename(&mut self.stable_names, from, to),
            Effect::Unlink { name } => {
                let unlinked = self.stable_names.remove(name);
                let is_named =
                    |file: &usize| self.names.values().chain(self.stable_names.values()).any(|of| of == file);
                if let Some(file) = unlinked.filter(|file| !is_named(file)) {
                    self.files[file] = FileContent::default();
                }
            }
        }
    }

    fn apply_to_seen(&mut self, effect: &Effect) {
        match effect {
            Effect::Write { file, at, bytes, .. } => put(&mut self.files[*file].seen, *at, bytes),
            Effect::Extend { file, len } => extend(&mut self.files[*file].seen, *len),
            Effect::Create { name, file } => _ = self.names.insert(name.clone(), *file),
            Effect::Rename { from, to } => rename(&mut self.names, from, to),
            Effect::Unlink { name } => _ = self.names.remove(name),
        }
    }

    fn push(&mut self, effect: Effect) {
        self.apply_to_seen(&effect);
        self.pending.push(effect);
    }

    /// Returns the number of the write.
    pub(super) fn write(&mut self, file: usize, at: u64, bytes: &[u8], in_flight: bool) -> u64 {
        self.writes += 1;
        let number = self.writes;
        self.push(Effect::Write { number, in_flight, file, at: at as usize, bytes: bytes.into() });
        number
    }

    /// A write that was in flight has completed; `durably`: as one that the device has put on stable storage.
    pub(super) fn complete(&mut self, write: u64, durably: bool) {
        if durably {
            self.settle(|effect| matches!(effect, Effect::Write { number, .. } if *number == write));
        }
        for effect in &mut self.pending {
            if let Effect::Write { number, in_flight, .. } = effect
                && *number == write
            {
                *in_flight = false;
            }
        }
    }

    /// The writes that a sync of this file covers that begins now.
    pub(super) fn covered(&self, file: usize) -> BTreeSet<u64> {
        let written = self.pending.iter().filter_map(|effect| match effect {
            Effect::Write { number, in_flight: false, file: of, .. } if *of == file => Some(*number),
            _ => None,
        });
        written.collect()
    }

    /// A sync has succeeded that covers these writes of a file.
    pub(super) fn synced(&mut self, file: usize, covered: &BTreeSet<u64>) {
        self.settle(|effect| match effect {
            Effect::Write { number, .. } => covered.contains(number),
            Effect::Extend { file: of, .. } => *of == file,
            _ => false,
        });
    }

    /// What a reader sees.
    pub(super) fn seen(&self, file: usize) -> &[u8] {
        &self.files[file].seen
    }

    /// Makes stable what `is_covered` says.
    fn settle(&mut self, is_covered: impl Fn(&Effect) -> bool) {
        let (covered, pending) = mem::take(&mut self.pending).into_iter().partition::<Vec<_>, _>(is_covered);
        self.pending = pending;
        covered.iter().for_each(|effect| self.apply_to_stable(effect));
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A copy without the state of a running machine.
    fn rebooted(&self) -> Self {
        let mut after = self.clone();
        after.names.clone_from(&self.stable_names);
        after.files.iter_mut().for_each(|file| file.seen = Arc::clone(&file.stable));
        after.pending.clear();
        after.fuse = None;
        after.locked.clear();
        after.mirror = Mirror::default();
        after
    }
}

impl MemoryDirectory {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), stalls: Arc::default() }
    }

    /// Returns an independent copy, locks included; a log that is open writes to the original only.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::with(State { mirror: Mirror::default(), ..self.state().clone() })
    }

    /// Returns the remote control of the device that an open log has its segments on: it can hold, shuffle and fail
    /// what the log's ring writes and syncs. All else that a log does with its directory goes past it.
    ///
    /// It must not be [watched](MemoryDevice::watch): the directory does that itself.
    #[must_use]
    pub fn device(&self) -> MemoryDevice {
        self.state().mirror.device.clone()
    }

    /// Returns what is left after a power cut now; the seed chooses among all legal states.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let state = self.state();
        let mut after = state.rebooted();
        let likely = random.pick(&[0, 15, 50, 85, 100]);
        for effect in &state.pending {
            if let Effect::Write { file, at, bytes, .. } = effect {
                for (at, sector) in sectors(*at, bytes) {
                    if random.chance(likely) {
                        put(&mut after.files[*file].stable, at, sector);
                    }
                }
            } else if random.chance(likely) {
                after.apply_to_stable(effect);
            }
        }
        Self::with(after.rebooted())
    }

    /// Returns what is left after the process is killed now: completed writes are there, but not stable; of each
    /// write in flight, each sector is there or not.
    #[must_use]
    pub fn kill(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let state = self.state();
        let mut after = state.rebooted();
        for effect in &state.pending {
            match effect {
                Effect::Write { in_flight: true, file, at, bytes, .. } => {
                    for (at, sector) in sectors(*at, bytes).filter(|_| random.chance(50)) {
                        after.write(*file, at as u64, sector, false);
                    }
                }
                _ => after.push(effect.clone()),
            }
        }
        Self::with(after)
    }

    /// Lets this many more changes and syncs succeed; each further one fails and has no effect. What the ring of an
    /// open log writes is not counted: for that, [`device`](Self::device) has faults.
    pub fn stop_after(&self, changes: u64) {
        self.state().fuse = Some(changes);
    }

    /// Has syncs of files wait, as on a device that is stuck, until the answer is dropped. Syncs of what the ring of an
    /// open log writes go on: for those there is [`device`](Self::device).
    pub fn stall_syncs(&self) -> Stall {
        lock(&self.stalls.counts).0 += 1;
        Stall { stalls: Arc::clone(&self.stalls) }
    }

    /// Returns whether [`stop_after`](Self::stop_after) leaves no further change.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().fuse == Some(0)
    }

    /// Returns how many changes are not on stable storage.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.state().pending.len()
    }

    /// Begins a write that completes with [`complete`](Self::complete); a sync before that does not cover it.
    ///
    /// # Errors
    ///
    /// If the simulated machine has stopped.
    pub fn begin_write(&self, file: &MemoryFile, bytes: &[u8], offset: u64) -> io::Result<u64> {
        let mut state = self.state();
        state.change()?;
        Ok(state.write(file.0, offset, bytes, true))
    }

    /// Completes a write; `durably`: as one that the device has put on stable storage.
    pub fn complete(&self, write: u64, durably: bool) {
        self.state().complete(write, durably);
    }

    /// Returns the names and what a reader sees behind them.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Arc<Vec<u8>>> {
        let state = self.state();
        state.names.iter().map(|(name, &file)| (name.clone(), Arc::clone(&state.files[file].seen))).collect()
    }

    /// Replaces a file, on stable storage: for damage, or a file from elsewhere.
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        let content = Arc::new(bytes.into());
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(FileContent { stable: Arc::clone(&content), seen: content });
        state.names.insert(name.to_owned(), file);
        state.stable_names.insert(name.to_owned(), file);
    }

    /// Removes a file, on stable storage.
    pub fn remove(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.stable_names.remove(name);
    }
}

impl Directory for MemoryDirectory {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change()?;
        let file = state.files.len();
        state.files.push(FileContent::default());
        state.push(Effect::Create { name: name.to_owned(), file });
        Ok(MemoryFile(file))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<MemoryFile> {
        self.state().find(name).map(MemoryFile)
    }

    fn read_at(&self, file: &MemoryFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state();
        let rest = state.seen(file.0).get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, file: &MemoryFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.write(file.0, offset, bytes, false);
        let mirrored = state.mirror.of(file.0);
        // Not locked any more: the device may be, by a thread that waits for the directory.
        drop(state);
        if let Some(device) = mirrored {
            device.write_through(offset as usize, bytes);
        }
        Ok(())
    }

    fn len(&self, file: &MemoryFile) -> io::Result<u64> {
        Ok(self.state().files[file.0].seen.len() as u64)
    }

    fn extend(&self, file: &MemoryFile, len: u64, _written: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.push(Effect::Extend { file: file.0, len: len as usize });
        Ok(())
    }

    fn segment_file(&self, file: MemoryFile, addresses: Range<u64>) -> SegmentFile {
        Mirror::begin(&self.state, file.0, addresses.start).into()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(from)?;
        state.change()?;
        state.push(Effect::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.find(name)?;
        state.change()?;
        state.mirror.end(file);
        state.push(Effect::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn sync_file(&self, file: &MemoryFile) -> io::Result<()> {
        self.stalls.pass();
        let mut state = self.state();
        state.change()?;
        let covered = state.covered(file.0);
        state.synced(file.0, &covered);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.settle(|effect| !matches!(effect, Effect::Write { .. } | Effect::Extend { .. }));
        Ok(())
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.state().change()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn lock(&self, name: &str) -> io::Result<Option<MemoryLock>> {
        let mut state = self.state();
        state.find(name)?;
        let is_free = state.locked.insert(name.to_owned());
        Ok(is_free.then(|| MemoryLock { state: Arc::clone(&self.state), name: name.to_owned() }))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        Ok(self.state().locked.contains(name))
    }
}

impl fmt::Debug for MemoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryLock").field(&self.name).finish()
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.state).locked.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_any_subset_of_the_rest() {
        let directory = MemoryDirectory::new();
        let file = directory.create("a").unwrap();
        directory.write_at(&file, &[1; 1024], 0).unwrap();
        directory.sync_file(&file).unwrap();
        directory.sync_dir().unwrap();
        directory.write_at(&file, &[2; 1024], 0).unwrap();
        directory.create("b").unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let after = directory.power_cut(seed);
            let files = after.contents();
            let sectors = files["a"].chunks(512).map(|sector| sector[0]).collect::<Vec<_>>();
            assert!(files["a"].chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            seen.insert((sectors, files.contains_key("b")));
            assert_eq!(after.unsynced(), 0);
        }
        assert_eq!(seen.len(), 8, "every subset is seen: {seen:?}");
    }

    #[test]
    fn a_sync_does_not_cover_a_write_that_is_under_way() {
        let directory = MemoryDirectory::new();
        let file = directory.create("a").unwrap();
        directory.sync_dir().unwrap();
        let flight = directory.begin_write(&file, &[1; 512], 0).unwrap();
        directory.sync_file(&file).unwrap();
        assert_eq!(directory.unsynced(), 1);
        directory.complete(flight, false);
        directory.sync_file(&file).unwrap();
        assert_eq!(directory.unsynced(), 0);
        let flight = directory.begin_write(&file, &[1; 512], 0).unwrap();
        directory.complete(flight, true);
        assert_eq!(directory.unsynced(), 0);
    }

    #[test]
    fn a_kill_leaves_everything_visible_and_nothing_stable() {
        let directory = MemoryDirectory::new();
        let file = directory.create("a").unwrap();
        directory.write_at(&file, &[1; 512], 0).unwrap();
        let after = directory.kill(1);
        assert_eq!(after.contents()["a"].len(), 512);
        assert_eq!(after.unsynced(), 2);
    }

    #[test]
    fn after_the_stop_nothing_changes() {
        let directory = MemoryDirectory::new();
        directory.stop_after(1);
        directory.create("a").unwrap();
        assert!(directory.is_stopped());
        assert!(directory.create("b").is_err());
        assert!(directory.rename("a", "b").is_err());
        assert_eq!(directory.list().unwrap(), ["a"]);
    }
}
