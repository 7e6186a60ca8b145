//! The engine for tests: a device in memory that completes, fails and shortens writes on request.

use core::mem;
use core::ops::Range;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use ring_alloc::Arena;
use rustix::io::Errno;

use crate::backend::{Attempt, Backend, Completion, Job, Request, Storage};
use crate::completion_queue::CompletionQueue;
use crate::files::Segment;
use crate::lock::{Identity, WriterLock};
use crate::locks::Mutex;
use crate::prealloc::marker::Key;
use crate::prealloc::settle::Scope;
use crate::watch::Watcher;
use crate::{DeviceEvent, FileError, QuikIOBuilder, Registered, Wait};

/// Bytes that the device holds at most; a write beyond them fails with `EFBIG`.
const MAX_LEN: u64 = 1 << 32;

/// A write can begin at each multiple of this many bytes, as on most disks.
const SECTOR: usize = 512;

/// Controls a device in memory, made by [`QuikIO::in_memory`](crate::QuikIO::in_memory). Clones control the same
/// device.
///
/// By default, the device completes each write at once, in order of arrival, and each sync. A write that goes out
/// again, because it came back short or was put off, arrives again.
///
/// It has one file, and [more](Self::another_file) for a log in [segments](crate::QuikIOOptions::segments): a handle is
/// of one of them, and the device's controls are those of all.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    shared: Arc<Shared>,
    file: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    completions: Arc<CompletionQueue>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are not there are empty.
    files: BTreeMap<usize, Content>,
    holding: bool,
    held: Vec<Held>,
    writes: Vec<(u64, usize)>,
    durable_writes: Vec<(u64, usize)>,
    /// What will happen to writes yet to come, by order of arrival.
    faults: BTreeMap<usize, WriteFault>,
    sync_fault: Option<Errno>,
    /// The file of each sync.
    syncs: Vec<usize>,
    /// The key of the markers, as it is and as it is on stable storage.
    key: Keyed,
    synced_key: Keyed,
    key_fault: Option<Errno>,
    /// Decides when what is held completes, if the device does so by itself.
    chance: Option<Chance>,
    /// Whether a thread waits in `reap`; other threads may rely on it to hand completions on.
    reaping: bool,
    watcher: Watcher,
}

/// What a file holds.
#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Where the two may differ, as far as either of them reaches.
    dirty: Range<usize>,
}

impl Content {
    fn soil(&mut self, range: Range<usize>) {
        self.dirty = if self.dirty.is_empty() {
            range
        } else {
            self.dirty.start.min(range.start)..self.dirty.end.max(range.end)
        };
    }

    fn sync(&mut self) {
        let len = self.bytes.len();
        self.synced.resize(len, 0);
        let dirty = self.dirty.start.min(len)..self.dirty.end.min(len);
        self.synced[dirty.clone()].copy_from_slice(&self.bytes[dirty]);
        self.dirty = 0..0;
    }
}

/// A key, and how many there had been before.
#[derive(Clone, Copy, Debug, Default)]
struct Keyed {
    key: Option<Key>,
    changes: u64,
}

/// A write that has arrived, or a sync that has begun; its number, what will happen to it if it is a write, and where
/// its completion goes.
#[derive(Debug)]
struct Held {
    number: usize,
    job: Job,
    fault: WriteFault,
    completions: Arc<CompletionQueue>,
    /// What it will put on stable storage, beside bytes.
    key: Option<Keyed>,
}

#[derive(Clone, Copy, Debug, Default)]
enum WriteFault {
    #[default]
    None,
    Fail(Errno),
    Shorten(usize),
}

impl MemoryDevice {
    /// Makes a device with one empty file. [`QuikIO::in_memory`](crate::QuikIO::in_memory) makes one in use.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default(), file: 0 }
    }

    /// Makes one more file on the device, of `len` zeros that are on stable storage, and returns its handle, for
    /// [`QuikIOOptions::segments`](crate::QuikIOOptions::segments) and
    /// [`QuikIO::add_segment`](crate::QuikIO::add_segment).
    ///
    /// [`contents`](Self::contents), [`synced`](Self::synced) and [`write_through`](Self::write_through) of the handle
    /// are those of the new file. All else is the device's.
    ///
    /// ```
    /// use ring_io::{MemoryDevice, QuikIO, SEGMENT_HEADER};
    ///
    /// const SIZE: u64 = 1 << 20;
    /// let device = MemoryDevice::new();
    /// let first = device.another_file((SEGMENT_HEADER + SIZE) as usize);
    /// first.write_through(0, b"a header");
    ///
    /// let io = QuikIO::options().segments(SIZE, [(0, first.clone())])?;
    /// assert_eq!(io.start()?, 0);
    /// assert!(first.synced().starts_with(b"a header"));
    /// # Ok::<(), ring_io::FileError>(())
    /// ```
    #[must_use]
    pub fn another_file(&self, len: usize) -> Self {
        let file = self.control(|state| {
            let last = state.files.last_key_value().map_or(0, |(&file, _)| file);
            state.files.insert(last + 1, Content { bytes: vec![0; len], synced: vec![0; len], dirty: 0..0 });
            last + 1
        });
        Self { shared: Arc::clone(&self.shared), file }
    }

    /// Puts `bytes` into the file at `offset`, at once on stable storage: as another program would that writes and
    /// syncs the file, such as the maker of a segment.
    pub fn write_through(&self, offset: usize, bytes: &[u8]) {
        self.control(|state| {
            let file = state.file(self.file);
            put(&mut file.bytes, offset, bytes);
            put(&mut file.synced, offset, bytes);
        });
    }

    /// Whether both are files of one device.
    pub(crate) fn is_on(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Builds another [`QuikIO`](crate::QuikIO) on this device: after a first one is gone, as when a file is opened
    /// again, or with other options than those of [`QuikIO::in_memory`](crate::QuikIO::in_memory).
    pub fn builder(&self) -> QuikIOBuilder {
        QuikIOBuilder::on_memory(self.clone())
    }

    /// Returns what the file holds: the bytes of completed writes, with zeros between them.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.control(|state| state.file(self.file).bytes.clone())
    }

    /// Returns what is on stable storage: [`contents`](Self::contents) as of the last successful sync, and the bytes of
    /// completed durable writes since.
    #[must_use]
    pub fn synced(&self) -> Vec<u8> {
        self.control(|state| state.file(self.file).synced.clone())
    }

    /// Returns the key of the markers in [preallocated space](QuikIOBuilder::prepare), which a file has in an
    /// attribute.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 16]> {
        self.control(|state| state.key.key.map(Key::bytes))
    }

    /// Returns the key that is on stable storage.
    #[must_use]
    pub fn synced_key(&self) -> Option<[u8; 16]> {
        self.control(|state| state.synced_key.key.map(Key::bytes))
    }

    /// Sets or removes the key, at once on stable storage, as a tool would that copies files or changes attributes.
    pub fn set_key(&self, key: Option<[u8; 16]>) {
        self.control(|state| {
            state.change_key(key.map(Key::from));
            state.harden_key(Some(state.key));
        });
    }

    /// Makes every access to the key fail with `errno`, an error of `fgetxattr`, until it is called with `None`.
    ///
    /// # Panics
    ///
    /// If `errno` is not one (1 to 4095).
    pub fn fail_keys(&self, errno: Option<i32>) {
        self.control(|state| state.key_fault = errno.map(Errno::from_raw_os_error));
    }

    /// Holds every write and every [submitted](crate::WriteQueue::submit_sync) sync that arrives from now on, until it
    /// is released.
    ///
    /// A [`WriteQueue`](crate::WriteQueue) that is dropped waits for that.
    pub fn hold(&self) {
        self.control(|state| state.holding = true);
    }

    /// Returns how many writes and syncs are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.control(|state| state.held.len())
    }

    /// Completes the held write or sync number `n`, counted from the oldest, which is 0. The device reads the bytes of
    /// a write only now.
    ///
    /// # Panics
    ///
    /// If fewer are held.
    pub fn release(&self, n: usize) {
        self.control(|state| {
            let held = state.held.remove(n);
            state.complete(held);
        });
    }

    /// Completes everything that is held, oldest first, and stops holding.
    pub fn release_all(&self) {
        self.control(|state| {
            state.holding = false;
            state.chance = None;
            for held in mem::take(&mut state.held) {
                state.complete(held);
            }
        });
    }

    /// [Holds](Self::hold) from now on, and completes what is held in an order and at moments that `seed` decides.
    ///
    /// That may happen whenever something arrives or a thread polls; when a thread waits, at least one completes, so
    /// nothing ever has to be released. A program of one thread does the same each time.
    pub fn shuffle(&self, seed: u64) {
        self.control(|state| {
            state.holding = true;
            state.chance = Some(Chance(seed));
        });
    }

    /// Calls `watch` for every event from now on, in order.
    ///
    /// The device is locked meanwhile, and must not be used; except at [`DeviceEvent::SyncBegan`], where `watch` may
    /// do what other threads might do while a sync is running.
    ///
    /// If `watch` panics, the device goes on. The first panic is resumed in the thread that uses this remote control
    /// next, or does so already.
    pub fn watch(&self, watch: impl Fn(DeviceEvent<'_>) + Send + Sync + 'static) {
        let before = self.control(|state| mem::replace(&mut state.watcher, Watcher::new(watch)));
        // Not dropped within the lock: it is foreign.
        drop(before);
    }

    /// Makes the `nth` write from now (0 is the next) fail with `errno`, once, without writing anything.
    ///
    /// # Panics
    ///
    /// If `errno` is not one (1 to 4095).
    pub fn fail_write(&self, nth: usize, errno: i32) {
        self.plan(nth, WriteFault::Fail(Errno::from_raw_os_error(errno)));
    }

    /// Makes the `nth` write from now (0 is the next) stop after its first `bytes` bytes, once.
    pub fn shorten_write(&self, nth: usize, bytes: usize) {
        self.plan(nth, WriteFault::Shorten(bytes));
    }

    /// Makes the next sync that ends fail with `errno`, once.
    ///
    /// # Panics
    ///
    /// If `errno` is not one (1 to 4095).
    pub fn fail_sync(&self, errno: i32) {
        self.control(|state| state.sync_fault = Some(Errno::from_raw_os_error(errno)));
    }

    /// Returns all writes so far, in order of arrival: where they begin, and length, in bytes. A write begins at an
    /// offset in the file, or at an address of a log in segments.
    #[must_use]
    pub fn writes(&self) -> Vec<(u64, usize)> {
        self.control(|state| state.writes.clone())
    }

    /// Returns those of [`writes`](Self::writes) that were durable. Each is a flush of the device's cache, as a sync
    /// is.
    #[must_use]
    pub fn durable_writes(&self) -> Vec<(u64, usize)> {
        self.control(|state| state.durable_writes.clone())
    }

    /// Returns how many syncs there were, failed ones included, durable writes not.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.control(|state| state.syncs.len())
    }

    /// Returns the numbers of the syncs of this file, as [`DeviceEvent`]s have them.
    #[must_use]
    pub fn file_syncs(&self) -> Vec<usize> {
        let of_this = |(sync, &file): (usize, &usize)| (file == self.file).then_some(sync);
        self.control(|state| state.syncs.iter().enumerate().filter_map(of_this).collect())
    }

    /// Returns whether this sync, by its number, was of this file.
    #[must_use]
    pub fn has_sync(&self, sync: usize) -> bool {
        self.control(|state| state.syncs.get(sync) == Some(&self.file))
    }

    fn plan(&self, nth: usize, fault: WriteFault) {
        self.control(|state| {
            let arrival = state.writes.len() + nth;
            state.faults.insert(arrival, fault);
        });
    }

    /// Does what a call of the remote control asks for, then resumes a panic of the watcher.
    fn control<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.shared.state.lock();
        let watcher = state.watcher.clone();
        let result = f(&mut state);
        drop(state);
        let panic = watcher.take_panic();
        match panic {
            Some(payload) if !thread::panicking() => resume_unwind(payload),
            _ => result,
        }
    }

    /// A write arrives, whose outcome goes to `completions`.
    fn arrive(&self, request: Request, completions: &Arc<CompletionQueue>) {
        completions.expect_one_more();
        let state = &mut *self.shared.state.lock();
        let arrival = state.writes.len();
        let write = (request.position(), request.remaining().len());
        state.writes.push(write);
        if request.durable {
            state.durable_writes.push(write);
        }
        let fault = state.faults.remove(&arrival).unwrap_or_default();
        let (bytes, durable) = (request.remaining(), request.durable);
        let key = if durable { state.key_within(request.scope) } else { None };
        state.watcher.notify(DeviceEvent::WriteArrived { write: arrival, offset: write.0, bytes, durable });
        let completions = Arc::clone(completions);
        self.begin(state, Held { number: arrival, job: Job::Write(request), fault, completions, key });
    }

    /// Holds it, or completes it at once.
    fn begin(&self, state: &mut State, held: Held) {
        if state.holding {
            state.held.push(held);
            let reaper = state.reaping.then_some(&self.shared.completions);
            state.complete_some(reaper);
        } else {
            state.complete(held);
        }
    }

    /// A sync begins. Returns its number, and the key that it covers.
    fn begin_sync(&self, file: usize, scope: Scope) -> (usize, Option<Keyed>) {
        let (sync, key, watcher) = {
            let mut state = self.shared.state.lock();
            state.syncs.push(file);
            state.complete_some(None);
            (state.syncs.len() - 1, state.key_within(scope), state.watcher.clone())
        };
        watcher.notify(DeviceEvent::SyncBegan { sync });
        (sync, key)
    }
}

impl Default for MemoryDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn file(&mut self, file: usize) -> &mut Content {
        self.files.entry(file).or_default()
    }

    /// With the state still locked, so that completions are delivered in the order in which they change the contents.
    fn complete(&mut self, Held { number, job, fault, completions, key }: Held) {
        let result = match &job {
            Job::Write(request) => self.complete_write(number, request, fault).inspect(|_| self.harden_key(key)),
            Job::Sync(flush) => self.end_sync(number, flush.file.segment.memory().file, key).map(|()| 0),
        };
        completions.push((job, result));
    }

    fn complete_write(&mut self, write: usize, request: &Request, fault: WriteFault) -> Result<usize, Errno> {
        let bytes = request.remaining();
        let result = match fault {
            WriteFault::None => self.write(request, bytes),
            WriteFault::Shorten(len) => self.write(request, &bytes[..bytes.len().min(len)]),
            WriteFault::Fail(errno) => Err(errno),
        };
        self.watcher.notify(match result {
            Ok(written) => DeviceEvent::WriteCompleted { write, bytes: &bytes[..written] },
            Err(_) => DeviceEvent::WriteFailed { write },
        });
        result
    }

    /// What a flush of that scope covers that begins now.
    fn key_within(&self, scope: Scope) -> Option<Keyed> {
        (scope != Scope::Data).then_some(self.key)
    }

    fn change_key(&mut self, key: Option<Key>) {
        self.key = Keyed { key, changes: self.key.changes + 1 };
        self.watcher.notify(DeviceEvent::KeyChanged { key: key.map(Key::bytes) });
    }

    fn harden_key(&mut self, key: Option<Keyed>) {
        if let Some(key) = key.filter(|key| key.changes > self.synced_key.changes) {
            self.synced_key = key;
            self.watcher.notify(DeviceEvent::KeySynced { key: key.key.map(Key::bytes) });
        }
    }

    fn end_sync(&mut self, sync: usize, file: usize, key: Option<Keyed>) -> Result<(), Errno> {
        let result = self.sync_fault.take().map_or(Ok(()), Err);
        if result.is_ok() {
            self.file(file).sync();
            self.harden_key(key);
        }
        self.watcher.notify(DeviceEvent::SyncEnded { sync, succeeded: result.is_ok() });
        result
    }

    /// Completes some of those that are held, if the device does so by itself; at least one for the queue `waiting`, if
    /// there is one.
    fn complete_some(&mut self, waiting: Option<&Arc<CompletionQueue>>) {
        let Some(chance) = &mut self.chance else { return };
        let mut count = chance.below(4).saturating_sub(1);
        let is_for = |completions: &Arc<CompletionQueue>, held: &Held| Arc::ptr_eq(&held.completions, completions);
        let mut waiting = waiting.filter(|completions| self.held.iter().any(|held| is_for(completions, held)));
        while (count > 0 || waiting.is_some()) && !self.held.is_empty() {
            let Some(chance) = &mut self.chance else { return };
            let held = self.held.remove(chance.below(self.held.len()));
            waiting = waiting.filter(|completions| !is_for(completions, &held));
            self.complete(held);
            count = count.saturating_sub(1);
        }
    }

    fn write(&mut self, request: &Request, bytes: &[u8]) -> Result<usize, Errno> {
        let offset = request.file_offset();
        offset.checked_add(bytes.len() as u64).filter(|&end| end <= MAX_LEN).ok_or(Errno::FBIG)?;
        let start = offset as usize;
        let file = self.file(request.segment().memory().file);
        // Zeros may come before it.
        let soiled = start.min(file.bytes.len())..start + bytes.len();
        put(&mut file.bytes, start, bytes);
        file.soil(soiled);
        if request.durable {
            put(&mut file.synced, start, bytes);
        }
        Ok(bytes.len())
    }
}

/// Puts `bytes` at `start`, after zeros if `contents` end before it.
fn put(contents: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    contents.resize(contents.len().max(start), 0);
    // Most writes extend the file. To zero first what they bring took half of the time of all tests: a loop over bytes,
    // in a build without optimization.
    let (over, behind) = bytes.split_at(bytes.len().min(contents.len() - start));
    contents[start..start + over.len()].copy_from_slice(over);
    contents.extend_from_slice(behind);
}

impl Backend for MemoryDevice {
    fn attach(&self, _: &Arc<Arena>, _: &[Arc<Segment>], _: bool) -> Registered {
        Registered::nothing("a device in memory has nothing to register with")
    }

    fn submit(&self, job: Job) {
        let completions = &self.shared.completions;
        match job {
            Job::Write(request) => self.arrive(request, completions),
            Job::Sync(ref flush) => {
                completions.expect_one_more();
                let (number, key) = self.begin_sync(flush.file.segment.memory().file, flush.scope);
                let held = Held { number, job, fault: WriteFault::None, completions: Arc::clone(completions), key };
                self.begin(&mut self.shared.state.lock(), held);
            }
        }
    }

    fn write_now(&self, request: Request) -> Attempt {
        let completions = Arc::default();
        self.arrive(request, &completions);
        // If the device completes writes by itself, then this one now.
        self.shared.state.lock().complete_some(Some(&completions));
        let mut completed = Vec::new();
        completions.reap(Wait::Until(None), &mut completed);
        let Some((Job::Write(request), result)) = completed.pop() else { unreachable!("a queue for one write") };
        (request, result)
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        let waiting = (wait != Wait::No).then_some(&self.shared.completions);
        let mut state = self.shared.state.lock();
        state.complete_some(waiting);
        state.reaping = waiting.is_some();
        drop(state);
        self.shared.completions.reap(wait, completed);
        self.shared.state.lock().reaping = false;
    }

    fn announce(&self) {
        self.shared.completions.expect_one_more();
    }

    fn retract(&self) {
        self.shared.completions.expect_one_less();
    }

    fn interrupt(&self) {
        self.shared.completions.interrupt();
    }
}

impl Storage for MemoryDevice {
    fn check(&self) -> Result<(), FileError> {
        Ok(())
    }

    fn len(&self) -> Result<u64, FileError> {
        Ok(self.shared.state.lock().file(self.file).bytes.len() as u64)
    }

    fn lock(&self) -> Result<WriterLock, FileError> {
        WriterLock::in_process(Identity::Memory(Arc::as_ptr(&self.shared).addr(), self.file))
    }

    fn logical_block_size(&self) -> usize {
        SECTOR
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn is_synced(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let state = &mut *self.shared.state.lock();
        let bytes = &state.file(self.file).bytes;
        let rest = &bytes[offset.min(bytes.len() as u64) as usize..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn sync(&self, scope: Scope) -> Result<(), Errno> {
        let (sync, key) = self.begin_sync(self.file, scope);
        self.shared.state.lock().end_sync(sync, self.file, key)
    }

    fn cut(&self, len: u64) -> Result<(), Errno> {
        let state = &mut *self.shared.state.lock();
        let file = state.file(self.file);
        let (before, after) = (file.bytes.len(), len as usize);
        // Its new bytes are zeros.
        file.bytes.resize(after, 0);
        file.soil(before.min(after)..before.max(after));
        state.watcher.notify(DeviceEvent::Cut { len });
        Ok(())
    }

    fn key(&self) -> Result<Option<Key>, Errno> {
        let state = self.shared.state.lock();
        state.key_fault.map_or(Ok(state.key.key), Err)
    }

    fn set_key(&self, key: Option<Key>) -> Result<(), Errno> {
        let state = &mut *self.shared.state.lock();
        state.key_fault.map_or(Ok(()), Err)?;
        if key.is_some() || state.key.key.is_some() {
            state.change_key(key);
        }
        Ok(())
    }

    fn is_worth_preparing(&self) -> bool {
        true
    }
}

/// Random numbers that a seed repeats: splitmix64.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ring_alloc::{BLOCK, Buffer};

    use super::*;

    fn request(token: u64) -> Request {
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        let file = Segment::whole_in_memory(MemoryDevice::new());
        Request::new(token, bytes, token * BLOCK as u64, false).to(&file)
    }

    fn token((job, _): &Completion) -> u64 {
        let Job::Write(request) = job else { panic!("there is no sync") };
        request.token
    }

    #[test]
    fn chance_serves_whoever_waits_first_of_all() {
        for seed in 0..100 {
            let device = MemoryDevice::new();
            device.hold();
            let elsewhere = Arc::default();
            (0..3).for_each(|token| device.arrive(request(token), &elsewhere));
            device.submit(Job::Write(request(7)));
            device.shuffle(seed);
            let mut completed = Vec::new();
            device.reap(Wait::Until(Some(Instant::now())), &mut completed);
            assert_eq!(completed.iter().map(token).collect::<Vec<_>>(), [7], "seed {seed}");

            // As if a thread were waiting when it arrives.
            device.shared.state.lock().reaping = true;
            device.submit(Job::Write(request(8)));
            device.reap(Wait::No, &mut completed);
            assert_eq!(completed.last().map(token), Some(8), "seed {seed}");
        }
    }

    #[test]
    fn a_poll_completes_none_one_or_two() {
        let mut counts: Vec<_> = (0..100)
            .map(|seed| {
                let device = MemoryDevice::new();
                device.hold();
                (0..8).for_each(|token| device.submit(Job::Write(request(token))));
                device.shuffle(seed);
                let mut completed = Vec::new();
                device.reap(Wait::No, &mut completed);
                completed.len()
            })
            .collect();
        counts.sort_unstable();
        counts.dedup();
        assert_eq!(counts, [0, 1, 2]);
    }

    /// So a seed that found something finds it again, with a later version too. The numbers are those that the authors
    /// of the generator publish.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut chance = Chance(1_234_567);
        let numbers: [usize; 5] = core::array::from_fn(|_| chance.below(usize::MAX));
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
        assert!((0..100).all(|_| chance.below(3) < 3));
    }
}
