//! The keeper: one thread that has segments ready before they are needed, syncs by time, and ends the window in which
//! damage to an idle log's newest batch could not be proved.

use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use buffer_ring::ring_io::events;
use buffer_ring::ring_io::locks::{Condvar, Mutex};
use buffer_ring::{BatchInfo, BufferRing, QuikIO, RingError, SegmentFile};

use super::Error;
use super::append::append_noop;
use super::options::{SyncPolicy, device};
use super::own::Own;
use crate::directory::{AnyDirectory, Directory};
use crate::error::OpenError;
use crate::format::HEADER_LEN;
use crate::recovery::Opened;
use crate::segment::{ensure_whole, recycle};

/// How long the log is idle before an empty batch proves the newest one, and how long a try to make a segment waits
/// after one that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How long this thread waits, in a sync or for room, before it looks whether a segment is wanted.
pub(super) const STEP: Duration = Duration::from_millis(5);

/// Bytes of the segment that a log is opened in that are written beforehand, if they are not there: opening waits for
/// that.
pub(super) const WRITTEN_AT_OPEN: u64 = 16 << 20;

/// How far the log is, as its batches say when they are sealed.
#[derive(Debug)]
pub(super) struct Progress {
    segment_size: u64,
    buffer_size: usize,
    state: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    /// The segment up to which all are needed soon.
    wanted: u64,
    /// The newest batch, where the log goes on behind it, and whether it is an empty one.
    newest: u64,
    end: u64,
    is_empty: bool,
    /// The highest promise of a header.
    promised: u64,
    /// Batches, and their bytes, since a segment was last made.
    batches: u64,
    bytes: u64,
    /// Whether the keeper sleeps until something happens.
    is_asleep: bool,
    is_over: bool,
}

impl Progress {
    pub(super) fn new(segment_size: u64, buffer_size: usize, end: u64) -> Self {
        let state = Seen { wanted: end / segment_size, newest: end, end, promised: end, ..Seen::default() };
        Self { segment_size, buffer_size, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A batch is on its way to the device. Once per buffer.
    pub(super) fn sealed(&self, info: &BatchInfo, batch_len: usize, is_empty: bool) {
        let mut state = self.state.lock();
        // The next segment is made while the second half of this one is written.
        let ahead = (info.base + self.segment_size / 2) / self.segment_size;
        state.wanted = state.wanted.max(ahead).max(info.next / self.segment_size);
        state.promised = state.promised.max(info.durable);
        state.batches += 1;
        state.bytes += batch_len as u64;
        state.end = state.end.max(info.next);
        if info.base >= state.newest {
            (state.newest, state.is_empty) = (info.base, is_empty);
        }
        if state.is_asleep {
            state.is_asleep = false;
            self.changed.notify_all();
        }
    }

    /// Whether batches were long since the last call: about as long as buffers.
    fn was_streaming(&self) -> bool {
        let mut state = self.state.lock();
        let (batches, bytes) = (mem::take(&mut state.batches), mem::take(&mut state.bytes));
        batches > 0 && bytes / batches >= self.buffer_size as u64 / 4
    }

    fn stop(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// What looks after the files of a log that is open.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: AnyDirectory,
    /// `MANIFEST`, and the log's lock.
    opened: Mutex<Opened<AnyDirectory>>,
    /// Where the log begins, as `MANIFEST` says.
    first: AtomicU64,
    /// Names of trimmed segments, to be used again.
    pool: Mutex<Vec<String>>,
    own: Arc<Mutex<Own>>,
    progress: Arc<Progress>,
    policy: SyncPolicy,
    ring: Weak<BufferRing>,
    pub(super) io: Weak<QuikIO>,
    /// Where the ring has begun. All segments up to there are ready.
    start: u64,
    /// Why the next one is not.
    trouble: Mutex<Option<Arc<OpenError>>>,
}

impl Keeper {
    pub(super) fn new(
        directory: AnyDirectory,
        opened: Opened<AnyDirectory>,
        own: Arc<Mutex<Own>>,
        progress: Arc<Progress>,
        policy: SyncPolicy,
    ) -> Self {
        Self {
            directory,
            first: AtomicU64::new(opened.manifest().trim),
            opened: Mutex::new(opened),
            pool: Mutex::default(),
            own,
            progress,
            policy,
            ring: Weak::new(),
            io: Weak::new(),
            start: 0,
            trouble: Mutex::default(),
        }
    }

    /// What it works for: a ring that begins at `start`.
    pub(super) fn attach(&mut self, ring: &Arc<BufferRing>, io: &Arc<QuikIO>, start: u64) {
        (self.ring, self.io, self.start) = (Arc::downgrade(ring), Arc::downgrade(io), start);
    }

    pub(super) fn directory(&self) -> &AnyDirectory {
        &self.directory
    }

    /// Whether the next segment is there, or may still come.
    pub(super) fn check_segments(&self) -> Result<(), Error> {
        match &*self.trouble.lock() {
            Some(why) => Err(Error::NoSegment(Arc::clone(why))),
            None => Ok(()),
        }
    }

    /// Has what waits for a segment that cannot be made fail, and what will, so that the log can go.
    pub(super) fn give_up(&self) {
        let wanted = self.progress.state.lock().wanted;
        if let Some(io) = self.io.upgrade() {
            let _forked = io.give_up_segments(wanted);
        }
    }

    pub(super) fn first(&self) -> u64 {
        // Relaxed here and below: it orders nothing, and is stored in the order of the trims, under their lock.
        self.first.load(Ordering::Relaxed)
    }

    /// By the thread that has changed `MANIFEST`, and still has it locked.
    pub(super) fn note_trim(&self, to: u64) {
        self.first.store(to, Ordering::Relaxed);
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Vec<String>> {
        self.pool.lock()
    }

    pub(super) fn manifest(&self) -> MutexGuard<'_, Opened<AnyDirectory>> {
        self.opened.lock()
    }

    /// The file of the segment with this number, made ready: one that is there, a trimmed one, or a new one. Its first
    /// `written` bytes are written, which costs each of them once more.
    pub(super) fn made(&self, number: u64, written: u64) -> Result<SegmentFile, OpenError> {
        let header = self.manifest().segment_header(number);
        let (name, size, directory) = (&header.file_name(), header.segment_size, &self.directory);
        {
            // Locked until the file has its new name, so that a trim does not take it for one that is left over.
            let mut pool = self.pool();
            let is_new = directory.open(name, true).is_err();
            if let Some(trimmed) = pool.pop_if(|_| is_new) {
                recycle(directory, &trimmed, &header)?;
            }
        }
        ensure_whole(directory, &header, written)?;
        let file = directory.open(name, true).map_err(OpenError::io("open", name))?;
        Ok(directory.segment_file(file, number * size..(number + 1) * size))
    }

    pub(super) fn stop(&self) {
        self.progress.stop();
    }

    pub(super) fn spawn(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let keeper = Arc::clone(self);
        thread::Builder::new().name("ringlog-keeper".into()).spawn(move || keeper.run())
    }

    fn run(&self) {
        let (mut synced, mut idle_since) = (Instant::now(), None);
        // Not where the log is now: much may have been appended before this thread has come to run.
        let (mut ready, mut synced_end) = (self.start / self.progress.segment_size, self.start);
        let mut kept_from = ready;
        loop {
            let state = self.progress.state.lock();
            if state.is_over {
                return;
            }
            let (end, newest) = (state.end, state.newest);
            let needs_proof = !state.is_empty && self.is_idle(state.promised);
            drop(state);

            self.close_durable(&mut kept_from);
            // Tried again: a full disk may have room then.
            let mut pause = (!self.add_wanted(&mut ready)).then_some(PAUSE);
            if end > self.start && !self.add_snapshot(end) {
                pause = Some(STEP);
            }
            let is_due = match self.policy {
                SyncPolicy::WhenAsked => false,
                SyncPolicy::Every(time) => {
                    let elapsed = synced.elapsed();
                    pause = Some(pause.unwrap_or(time).min(time.saturating_sub(elapsed)));
                    elapsed >= time
                }
                SyncPolicy::EveryBytes(bytes) => end - synced_end >= bytes,
            };
            if is_due {
                self.sync(&mut ready);
                (synced, synced_end) = (Instant::now(), end);
                continue;
            }
            if needs_proof {
                pause = Some(pause.unwrap_or(PAUSE).min(PAUSE));
                match idle_since {
                    Some((batch, since)) if batch == newest => {
                        if Instant::now() >= since + PAUSE {
                            self.append_empty(&mut ready);
                        }
                    }
                    _ => idle_since = Some((newest, Instant::now())),
                }
            } else {
                idle_since = None;
            }
            self.sleep(pause, ready);
        }
    }

    /// Whether nothing is staged, unless by this thread, and something durable lies above all promises.
    fn is_idle(&self, promised: u64) -> bool {
        let Some(ring) = self.ring.upgrade() else { return false };
        let (durable, tail) = (ring.durable_watermark(), ring.tail());
        let is_own = || self.own.try_lock().is_some_and(|own| own.ends_at(tail));
        durable > promised + HEADER_LEN as u64 && (durable == tail || is_own())
    }

    fn sleep(&self, pause: Option<Duration>, ready: u64) {
        let mut state = self.progress.state.lock();
        if state.is_over || ready < state.wanted && pause.is_none() {
            return;
        }
        // What is sealed may become durable, and idle, later on.
        let unproved = !state.is_empty && state.promised < state.end;
        let pause = pause.or(unproved.then_some(PAUSE));
        state.is_asleep = pause.is_none() || ready >= state.wanted;
        drop(self.progress.changed.wait_until(state, pause.map(|pause| Instant::now() + pause)));
    }

    /// Has the files of segments closed that are durable as a whole, from number `kept_from` on: nothing is written to
    /// them any more, and a log may have more segments than a process may have files.
    fn close_durable(&self, kept_from: &mut u64) {
        let (Some(ring), Some(io)) = (self.ring.upgrade(), self.io.upgrade()) else { return };
        let current = (ring.durable_watermark() - HEADER_LEN as u64) / self.progress.segment_size;
        // What is still in use, as by a sync that is just ending, goes the next time.
        if current > *kept_from && io.remove_segments_before(current).is_ok() {
            *kept_from = current;
        }
    }

    /// Appends a snapshot if a segment has been begun that needs one. `false` if there is no room for it now.
    fn add_snapshot(&self, end: u64) -> bool {
        let Some(ring) = self.ring.upgrade() else { return true };
        // A subscriber to events may change it, too: it does so when the lock is free again.
        let _held = events::hold();
        // Its owner may wait for room in the ring, and so for a segment that only this thread makes.
        let Some(mut own) = self.own.try_lock() else { return false };
        let size = self.progress.segment_size;
        !own.needs_snapshot(end, size) || own.add_snapshot(&ring, end, size)
    }

    /// Makes the segments behind `ready` that are wanted. `false` if one cannot be made now.
    fn add_wanted(&self, ready: &mut u64) -> bool {
        while *ready < self.progress.state.lock().wanted {
            let added = self.add(*ready + 1);
            let failed = added.is_err();
            *self.trouble.lock() = added.err().map(Arc::new);
            if failed {
                return false;
            }
            *ready += 1;
        }
        true
    }

    fn add(&self, number: u64) -> Result<(), OpenError> {
        // What streams needs no written space, and has no bandwidth for it.
        let written = if self.progress.was_streaming() { 0 } else { u64::MAX };
        let file = self.made(number, written)?;
        if let Some(io) = self.io.upgrade() {
            io.add_segment(number, file).map_err(device)?;
        }
        Ok(())
    }

    /// Has all that is staged now written and synced, as far as that is possible.
    fn sync(&self, ready: &mut u64) {
        let Some(ring) = self.ring.upgrade() else { return };
        let staged = ring.tail();
        // In steps: what it waits for may need a segment that only this thread makes.
        let mut step = STEP;
        while matches!(ring.wait_durable_timeout(staged, step), Err(RingError::TimedOut)) {
            if self.progress.state.lock().is_over {
                return;
            }
            step = if self.add_wanted(ready) { STEP } else { PAUSE };
        }
    }

    /// Appends a record that no reader shows, and has it written: its batch promises all before it.
    fn append_empty(&self, ready: &mut u64) {
        if self.ring.upgrade().is_some_and(|ring| append_noop(&ring).is_ok()) {
            self.sync(ready);
        }
    }
}
