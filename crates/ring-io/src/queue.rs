//! The right to write: one queue per file, the same promises over every engine.

use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use ring_alloc::{Arena, Frozen, is_aligned};
use rustix::io::Errno;

use crate::backend::{Completion, Job, Request};
use crate::files::Begun;
use crate::lock::WriterLock;
use crate::locks::{Mutex, TimedGuard, TimedMutex};
use crate::prealloc::marker::imitates;
use crate::prealloc::settle::Scope;
use crate::prealloc::{Preallocation, Prepared};
use crate::retry::{self, Decision};
use crate::sequencer::{Turn, WriteSequencer};
use crate::{DeviceError, Operation, QuikIO, event, events};

/// How long [`WriteQueue::reap`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No time at all: what is there now.
    No,
    /// Until something has finished, or this moment (`None`: for ever).
    Until(Option<Instant>),
}

/// A write, and where the log goes on behind it.
#[derive(Debug)]
pub struct LogWrite {
    /// The caller's name for it.
    pub token: u64,
    /// The bytes, lent to the device: a multiple of 4096 of them.
    pub bytes: Frozen,
    /// The address of the first of them, a multiple of 4096.
    pub address: u64,
    /// The address of the write after it: where this one ends, or a later multiple of 4096, if the log skips what lies
    /// between, such as the rest of a segment.
    pub next: u64,
    /// Whether the bytes are to be on stable storage when it comes back, as with [`WriteQueue::submit_durable`].
    pub durable: bool,
}

/// A write that has come back, with the bytes that were lent for it.
#[derive(Debug)]
pub struct Finished {
    /// What it was submitted as.
    pub token: u64,
    /// The bytes, which the device no longer reads.
    pub bytes: Frozen,
    /// Whether they are on stable storage: it was submitted as durable, and the result is `Ok`. If not, a sync has to
    /// put them there.
    pub durable: bool,
    /// Whether they are all in the file.
    pub result: Result<(), DeviceError>,
}

/// What is registered with the engine, which only makes writes faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub(crate) buffers: bool,
    pub(crate) file: bool,
    pub(crate) reason: Option<String>,
}

impl Registered {
    pub(crate) fn nothing(reason: &str) -> Self {
        Self { buffers: false, file: false, reason: Some(reason.to_owned()) }
    }

    /// Returns whether the arena's buffers are registered, each at its first write. One that the kernel refuses then,
    /// because no more memory may be locked, is written unregistered.
    #[must_use]
    pub fn buffers(&self) -> bool {
        self.buffers
    }

    /// Returns whether the file is registered.
    #[must_use]
    pub fn file(&self) -> bool {
        self.file
    }

    /// Returns what is not registered, and why; `None` if everything is.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// The exclusive right to write through a [`QuikIO`], for the buffers of one arena.
///
/// Dropping it waits for everything in flight, cuts off what was [prepared](crate::QuikIOBuilder::prepare) and not
/// used, then lets the next [`QuikIO::attach`] succeed. A queue that is leaked (`mem::forget`) keeps the file for
/// itself until the process ends; and so does one whose writes came back with errors because the kernel no longer lets
/// io_uring be entered: it may still carry them out.
///
/// Threads share it by reference. Any of them may submit; reaping threads take turns.
///
/// In a child of `fork(2)` each write comes back untried, with an error that [says so](DeviceError::is_forked), and
/// dropping the queue does nothing; see [`fork`](crate::fork).
pub struct WriteQueue {
    io: Arc<QuikIO>,
    registered: Registered,
    /// Counts a write or sync before the engine has it, until after `reap` has handed it out; so at 0 nothing is lent.
    in_flight: AtomicUsize,
    /// Whether one of them is a sync. Relaxed: the thread that submits the next knows the outcome of this one.
    syncing: AtomicBool,
    /// Locked by the one thread that reaps.
    reaper: TimedMutex<Reaper>,
    /// What stands before the engine in [`Serialized`](crate::WriteMode::Serialized).
    sequencer: Option<Mutex<WriteSequencer>>,
    /// `None`: the file has no end.
    prealloc: Option<Mutex<Preallocation>>,
    /// In a forked child: writes that are to come back untried. Never locked in the parent, so that no thread of it can
    /// have it locked.
    untried: Mutex<Vec<Finished>>,
    /// `None`: `io` has it for good.
    lock: Option<WriterLock>,
}

#[derive(Debug, Default)]
struct Reaper {
    /// Scratch space.
    completions: Vec<Completion>,
    /// For the next thread that reaps.
    finished: Vec<Finished>,
    synced: Option<Result<(), DeviceError>>,
}

impl LogWrite {
    /// A write that is not durable by itself, with the next one at its end.
    fn plain(token: u64, bytes: Frozen, address: u64) -> Self {
        let next = address.saturating_add(bytes.len() as u64);
        Self { token, bytes, address, next, durable: false }
    }
}

impl WriteQueue {
    pub(crate) fn new(
        io: Arc<QuikIO>,
        arena: &Arc<Arena>,
        sequencer: Option<WriteSequencer>,
        prealloc: Option<Preallocation>,
        lock: Option<WriterLock>,
    ) -> Self {
        let registered = io.backend().attach(arena, &io.files().all(), io.files().segments().is_ok());
        let (in_flight, syncing, reaper) = (AtomicUsize::new(0), AtomicBool::new(false), TimedMutex::default());
        let (sequencer, prealloc) = (sequencer.map(Mutex::new), prealloc.map(Mutex::new));
        let (engine, mode, untried) = (io.engine(), io.write_mode(), Mutex::default());
        event!(DEBUG, clone(engine, registered), %engine, ?mode, ?registered, "attached");
        Self { io, registered, in_flight, syncing, reaper, sequencer, prealloc, untried, lock }
    }

    /// Lends `bytes` to the device, which writes them at byte `offset` of the file. Returns without waiting for the
    /// device.
    ///
    /// Length and offset are multiples of 4096. `token` is the caller's name for the write. It never fails here: every
    /// outcome arrives by [`reap`](Self::reap). Writes complete in any order, so two at once must not overlap in the
    /// file. Bytes from outside the queue's arena are fine, only slower.
    ///
    /// In [`Serialized`](crate::WriteMode::Serialized) it is kept here until every byte of the file from
    /// [`QuikIO::start`] up to `offset` has been written; so the writes may be submitted in any order, but must leave
    /// no gap. After a failed write each later one comes back untried.
    ///
    /// # Panics
    ///
    /// If length or offset is not a multiple of 4096.
    pub fn submit(&self, token: u64, bytes: Frozen, offset: u64) {
        self.submit_write(LogWrite::plain(token, bytes, offset));
    }

    /// Submits a durable write: the bytes are on stable storage when it comes back without an error, and no sync has to
    /// follow.
    ///
    /// It says nothing about other writes. With several of them in flight, or a sync beside them, mind what
    /// [`QuikIO::sync`] says of that.
    ///
    /// # Panics
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_durable(&self, token: u64, bytes: Frozen, offset: u64) {
        self.submit_write(LogWrite { durable: true, ..LogWrite::plain(token, bytes, offset) });
    }

    /// Submits a write with the address of the one after it, which may lie behind its end: [`submit`](Self::submit), or
    /// [`submit_durable`](Self::submit_durable), for a log that skips.
    ///
    /// In [`Serialized`](crate::WriteMode::Serialized) what is skipped counts as written.
    ///
    /// In a log in [segments](crate::QuikIOOptions::segments) the write goes to the device when its own segment and
    /// that of `next` are there. Until then it is kept here, in flight, and it goes out with [`QuikIO::add_segment`].
    /// It comes back untried if another write or a sync fails meanwhile. A write from one segment into the next, or
    /// into one that was removed, comes back with an error.
    ///
    /// A durable write makes its own bytes durable, and no others: neither those of its own file, nor an earlier
    /// segment. A ring has a batch durable only where its durable watermark equals the batch's address. Then every byte
    /// before it is on stable storage, in whichever file, so that success moves the watermark to `next`; and no earlier
    /// segment has bytes to sync, so that it is the only flush in flight.
    ///
    /// # Panics
    ///
    /// As [`submit`](Self::submit); or if `next` is no multiple of 4096, or below the end of the write.
    pub fn submit_write(&self, write: LogWrite) {
        let _held = events::hold();
        self.arrive(self.request(write));
    }

    /// Submits a sync of every write that was reaped before this call, as [`QuikIO::sync`] does. Returns without
    /// waiting; the outcome arrives by [`reap`](Self::reap).
    ///
    /// # Errors
    ///
    /// Those of [`QuikIO::sync`], if one is known already: then nothing was submitted.
    ///
    /// # Panics
    ///
    /// If the outcome of the one before has not been handed out: beside it, success would prove nothing.
    pub fn submit_sync(&self) -> Result<(), DeviceError> {
        let _held = events::hold();
        self.io.check_sync()?;
        let others = self.syncing.swap(true, Ordering::Relaxed);
        assert!(!others, "a submitted sync is under way");
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.io.backend().submit(Job::Sync(self.io.files().flush(self.io.scope())));
        Ok(())
    }

    fn request(&self, LogWrite { token, bytes, address: offset, next, durable }: LogWrite) -> Request {
        let len = bytes.len();
        assert!(is_aligned(offset) && is_aligned(len as u64), "{len} bytes at {offset}");
        let is_behind = next.checked_sub(offset).is_some_and(|room| room >= len as u64);
        assert!(is_aligned(next) && is_behind, "{len} bytes at {offset}, and then {next}");
        let durable = durable || self.io.synced;
        event!(TRACE, token, offset, len, durable, "write begins");
        let request = Request::new(token, bytes, offset, durable);
        self.io.note_write_up_to(next);
        Request { next, ..request }
    }

    fn arrive(&self, request: Request) {
        if self.io.is_inherited() {
            return self.untried.lock().push(forked(request));
        }
        let Some(sequencer) = &self.sequencer else { return self.start(request) };
        let mut sequencer = sequencer.lock();
        match sequencer.enqueue(request) {
            Turn::Now(request) => {
                drop(sequencer);
                self.start(request);
            }
            Turn::Later => {}
            // Counted with `sequencer` still locked, before another thread can hand it out.
            Turn::Never => _ = self.in_flight.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn start(&self, request: Request) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let backend = self.io.backend();
        let Some(mut request) = self.io.files().begin_or_keep(request, backend) else { return };
        if let Some(prealloc) = &self.prealloc {
            self.look_at(&request, prealloc);
            let mut prealloc = prealloc.lock();
            let is_free = prealloc.begin_write(&self.io, &request, request.durable);
            // Behind that: it may have changed the key.
            request.scope = self.io.scope();
            if !is_free {
                return prealloc.keep(request);
            }
        }
        backend.submit(Job::Write(request));
        self.prepare();
    }

    /// Removes the key of preallocated space if this write, which goes to the device next, holds what would be a marker
    /// under it. A key that is drawn meanwhile is random, and none that these bytes could know.
    fn look_at(&self, request: &Request, prealloc: &Mutex<Preallocation>) {
        let key = prealloc.lock().key();
        if !imitates(key, &request.bytes, request.offset) {
            return;
        }
        let (outcome, range) = (prealloc.lock().give_up_key(&self.io), request.range());
        match outcome {
            Ok(()) => event!(
                WARN,
                clone(range),
                ?range,
                "appended bytes are a marker of preallocated space: no more of it is prepared"
            ),
            // Then nothing is acknowledged any more.
            Err(errno) => self.io.sticky_error().set_unseen(DeviceError::new(Operation::Write, errno, range)),
        }
    }

    /// Has space prepared ahead, if it is time.
    fn prepare(&self) {
        let next = self.prealloc.as_ref().and_then(|prealloc| prealloc.lock().next(&self.io));
        if let Some(request) = next
            && let Begun::Now(request) = self.io.files().begin(request)
        {
            self.io.backend().submit(Job::Write(request));
        }
    }

    /// Writes in this thread, and returns when the bytes are in the file, or with the error.
    ///
    /// The outcome is that of [`submit`](Self::submit), without a submission and without [`reap`](Self::reap): for a
    /// thread that has nothing else to do meanwhile. It is not counted by [`in_flight`](Self::in_flight), and does not
    /// wait for what is, unless space is just being [preallocated](crate::QuikIOBuilder::prepare) in its place.
    ///
    /// # Panics
    ///
    /// If length or offset is not a multiple of 4096. In [`Serialized`](crate::WriteMode::Serialized), if it is not its
    /// turn: every byte of the file from [`QuikIO::start`] up to `offset` must have come back written.
    #[must_use]
    pub fn write_now(&self, token: u64, bytes: Frozen, offset: u64) -> Finished {
        self.write_or_refuse(LogWrite::plain(token, bytes, offset))
    }

    /// Writes in this thread, and returns when the bytes are on stable storage, or with the error: the outcome of
    /// [`submit_durable`](Self::submit_durable).
    ///
    /// # Panics
    ///
    /// As [`write_now`](Self::write_now).
    #[must_use]
    pub fn write_durable_now(&self, token: u64, bytes: Frozen, offset: u64) -> Finished {
        self.write_or_refuse(LogWrite { durable: true, ..LogWrite::plain(token, bytes, offset) })
    }

    /// Writes in this thread, like [`write_now`](Self::write_now) or [`write_durable_now`](Self::write_durable_now);
    /// or, if the write has to wait for a segment, submits it, as [`submit_write`](Self::submit_write) does, and
    /// returns `None`: then its outcome arrives by [`reap`](Self::reap).
    ///
    /// # Panics
    ///
    /// As [`write_now`](Self::write_now) and [`submit_write`](Self::submit_write).
    #[must_use]
    pub fn write_or_submit(&self, write: LogWrite) -> Option<Finished> {
        let _held = events::hold();
        // It has its turn already.
        self.write_here(self.request(write)).map_err(|not_yet| self.start(not_yet.0)).ok()
    }

    /// The same, for a write that must not wait: it comes back untried if a segment is missing.
    fn write_or_refuse(&self, write: LogWrite) -> Finished {
        let _held = events::hold();
        self.write_here(self.request(write)).unwrap_or_else(|not_yet| {
            let (request, missing) = *not_yet;
            let error = DeviceError::no_segment(Operation::Write, request.range(), missing);
            request.refused(error)
        })
    }

    /// Gives it back if it has to wait for a segment, with the number of that.
    fn write_here(&self, mut request: Request) -> Result<Finished, Box<(Request, u64)>> {
        if self.io.is_inherited() {
            return Ok(forked(request));
        }
        if let Some(sequencer) = &self.sequencer {
            match sequencer.lock().claim(request) {
                Ok(its_turn) => request = its_turn,
                Err(untried) => return Ok(*untried),
            }
        }
        let next = request.next;
        let finished = match self.io.files().begin(request) {
            Begun::Now(request) => self.carry_out(request),
            Begun::NotYet(request, missing) => return Err(Box::new((request, missing))),
            Begun::Never(request, error) => {
                self.failed(&error);
                request.refused(error)
            }
        };
        if let Some(sequencer) = &self.sequencer {
            self.pass_on(sequencer, next, &finished.result);
        }
        self.tidy_up();
        Ok(finished)
    }

    fn carry_out(&self, mut request: Request) -> Finished {
        self.make_way(&request);
        request.scope = self.io.scope();
        let (durable, scope) = (request.durable, request.scope);
        let (file, logical_block_size) = (request.segment().number, request.segment().logical_block_size);
        let finished = loop {
            match retry::decide(self.io.backend().write_now(request), logical_block_size) {
                Decision::Finished(write) => break write,
                Decision::Again(rest) => request = rest,
            }
            retry::pause(request.stalls);
        };
        let finished = self.apply_sticky_error(durable, scope, finished);
        self.io.files().ended(file, finished.durable);
        finished
    }

    /// Waits until nothing is being prepared in the place of a write that a thread waits for: durable, or to be synced
    /// soon.
    fn make_way(&self, request: &Request) {
        let Some(prealloc) = &self.prealloc else { return };
        self.look_at(request, prealloc);
        let range = &request.range();
        let mut interrupted = false;
        let mut free = prealloc.lock().begin_write(&self.io, request, true);
        while !free {
            let mut reaper = self.reaper.lock();
            free = prealloc.lock().is_free(range);
            interrupted |= !free && !self.collect(Wait::Until(None), &mut reaper);
        }
        if interrupted {
            // The interrupt was meant for another thread.
            self.interrupt();
        }
        self.prepare();
    }

    /// Takes back what a preallocating write was lent, if that has ended: perhaps no other thread reaps.
    fn tidy_up(&self) {
        if self.prealloc.as_ref().is_some_and(|prealloc| prealloc.lock().is_preparing())
            && let Some(mut reaper) = self.reaper.try_lock()
        {
            self.collect(Wait::No, &mut reaper);
        }
    }

    /// What a write may say of itself. A durable one: nothing, after a failure that may have been about it; and its own
    /// failure may be about others.
    fn apply_sticky_error(&self, durable: bool, scope: Scope, mut write: Finished) -> Finished {
        let sticky = self.io.sticky_error();
        if write.durable
            && let Err(failure) = sticky.check()
        {
            (write.durable, write.result) = (false, Err(failure));
        }
        if write.durable {
            self.io.flushed(scope);
        }
        if let Err(error) = &write.result {
            if durable {
                sticky.set(error.clone());
            }
            self.failed(error);
        }
        write
    }

    /// A write of the log has failed.
    fn failed(&self, error: &DeviceError) {
        self.io.sticky_error().note_failed_write();
        self.io.files().fail(error, self.io.backend());
    }

    /// In [`Serialized`](crate::WriteMode::Serialized): lets go what waited for the write before the one at `next`, or
    /// nothing any more.
    fn pass_on(&self, sequencer: &Mutex<WriteSequencer>, next: u64, result: &Result<(), DeviceError>) {
        let mut sequencer = sequencer.lock();
        match result {
            Ok(()) => {
                let next = sequencer.succeeded(next);
                drop(sequencer);
                next.into_iter().for_each(|request| self.start(request));
            }
            Err(error) => _ = self.in_flight.fetch_add(sequencer.failed(error), Ordering::Relaxed),
        }
    }

    /// Appends finished writes to `finished`, and returns the outcome of a [submitted sync](Self::submit_sync) if one
    /// has ended.
    ///
    /// - [`Wait::No`]: what has finished by now. If another thread is reaping: nothing, at once.
    /// - [`Wait::Until`]: returns when there is something to hand out, or nothing is in flight, or the moment has come,
    ///   or after an [`interrupt`](Self::interrupt). If another thread is reaping it waits for its turn first, and what
    ///   that thread gets does not count.
    pub fn reap(&self, wait: Wait, finished: &mut Vec<Finished>) -> Option<Result<(), DeviceError>> {
        if self.io.is_inherited() {
            finished.append(&mut self.untried.lock());
            return None;
        }
        let _held = events::hold();
        // No caller may have to wait for a preallocating write alone.
        let wait = if self.in_flight() == 0 { Wait::No } else { wait };
        let mut reaper = self.become_reaper(wait)?;
        while reaper.finished.is_empty() && reaper.synced.is_none() && self.collect(wait, &mut reaper) {}
        let synced = reaper.synced.take();
        if synced.is_some() {
            self.syncing.store(false, Ordering::Relaxed);
        }
        // ordering: release half of D1.
        self.in_flight.fetch_sub(reaper.finished.len() + usize::from(synced.is_some()), Ordering::Release);
        finished.append(&mut reaper.finished);
        synced
    }

    /// Takes completions from the engine, once, and deals with them. `false` if there were none.
    fn collect(&self, wait: Wait, Reaper { completions, finished, synced }: &mut Reaper) -> bool {
        if let Some(sequencer) = &self.sequencer {
            let before = finished.len();
            sequencer.lock().take_untried(finished);
            if finished.len() > before {
                return true;
            }
        }
        let untried = self.io.files().take_untried();
        if !untried.is_empty() {
            for (next, write) in untried {
                write.result.as_ref().err().into_iter().for_each(|error| self.failed(error));
                self.hand_out(next, write, finished);
            }
            return true;
        }
        self.io.backend().reap(wait, completions);
        let any = !completions.is_empty();
        let mut again = Vec::new();
        for (job, result) in completions.drain(..) {
            let request = match job {
                Job::Write(request) => request,
                Job::Sync(flush) => {
                    match (self.io.synced(result.map(|_| ()), &flush), flush.next()) {
                        (Ok(()), Some(next)) => self.io.backend().submit(Job::Sync(next)),
                        (outcome, _) => *synced = Some(outcome),
                    }
                    continue;
                }
            };
            let (preparing, next) = (request.preparing, request.next);
            let (durable, scope) = (request.durable, request.scope);
            let (file, logical_block_size) = (request.segment().number, request.segment().logical_block_size);
            match retry::decide((request, result), logical_block_size) {
                Decision::Finished(write) if preparing => self.prepared(write),
                Decision::Finished(write) => {
                    let write = self.apply_sticky_error(durable, scope, write);
                    self.io.files().ended(file, write.durable);
                    self.hand_out(next, write, finished);
                }
                Decision::Again(request) => again.push(request),
            }
        }
        // One pause for all: a device that puts off everything is not waited for once per write.
        retry::pause(again.iter().map(|request| request.stalls).max().unwrap_or(0));
        again.into_iter().for_each(|request| self.io.backend().submit(Job::Write(request)));
        any
    }

    /// A write has come back that was submitted, and the next one begins at `next`.
    fn hand_out(&self, next: u64, write: Finished, finished: &mut Vec<Finished>) {
        if let Some(sequencer) = &self.sequencer {
            self.pass_on(sequencer, next, &write.result);
        }
        finished.push(write);
    }

    /// A preallocating write has ended.
    fn prepared(&self, Finished { bytes, result, .. }: Finished) {
        let cancelled = |error: &DeviceError| error.errno() == Some(Errno::CANCELED.raw_os_error());
        let outcome = match result {
            Ok(()) => Prepared::Yes,
            Err(error) if cancelled(&error) => Prepared::NotNow,
            Err(error) => {
                // Before anything that waited for it can succeed.
                self.io.sticky_error().preparing_failed(error);
                Prepared::No
            }
        };
        let kept = self.prealloc.as_ref().map(|prealloc| prealloc.lock().done(bytes, outcome));
        kept.into_iter().flatten().for_each(|request| self.io.backend().submit(Job::Write(request)));
    }

    /// Cuts preallocated space off the file that the log has not used, and takes its key away. Only when nothing is in
    /// flight.
    fn trim(&self) {
        let Some(prealloc) = &self.prealloc else { return };
        let (Ok(storage), sticky) = (self.io.files().one(), self.io.sticky_error()) else { return };
        if sticky.has_failed_writes() {
            return;
        }
        let Ok(mut len) = storage.len() else { return };
        let surplus = prealloc.lock().surplus(len);
        if let Some(end) = surplus {
            match storage.cut(end).and_then(|()| storage.sync(self.io.scope())) {
                Ok(()) => event!(DEBUG, end, "what was prepared behind the log is cut off"),
                // Nothing is lost, the file is only longer. But the kernel will not report this error again.
                Err(errno) => return sticky.set_unseen(DeviceError::new(Operation::Sync, errno, 0..u64::MAX)),
            }
            len = end;
        }
        // A power cut may bring it back, until the first flush of the next queue: no block of the log is a marker under
        // it.
        let is_idle = prealloc.lock().has_idle_key(len);
        if is_idle && let Err(errno) = self.io.set_key(None) {
            event!(DEBUG, %errno, "the file keeps the key of its preallocated space");
        }
    }

    /// Makes the thread that waits in [`reap`](Self::reap) return early, or else the next one that would wait: what it
    /// waits for may have come from elsewhere.
    pub fn interrupt(&self) {
        if !self.io.is_inherited() {
            self.io.backend().interrupt();
        }
    }

    fn become_reaper(&self, wait: Wait) -> Option<TimedGuard<'_, Reaper>> {
        match wait {
            Wait::No => self.reaper.try_lock(),
            Wait::Until(deadline) => self.reaper.lock_until(deadline),
        }
    }

    /// Returns how many writes and syncs were submitted and not yet handed out by [`reap`](Self::reap), without writes
    /// that are [waiting](Self::waiting).
    ///
    /// The answer may be out of date when you read it, except that it stays 0 as long as no thread submits.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        // ordering: acquire half of D1.
        if self.io.is_inherited() { self.untried.lock().len() } else { self.in_flight.load(Ordering::Acquire) }
    }

    /// Returns how many submitted writes wait for their turn, in [`Serialized`](crate::WriteMode::Serialized).
    ///
    /// While nothing is in flight, they wait for one that was not submitted; dropping the queue drops them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        if self.io.is_inherited() {
            return 0;
        }
        self.sequencer.as_ref().map_or(0, |sequencer| sequencer.lock().waiting())
    }

    /// Returns what is registered with the engine.
    #[must_use]
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Returns the `QuikIO` that it writes through.
    #[must_use]
    pub fn io(&self) -> &Arc<QuikIO> {
        &self.io
    }
}

impl fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteQueue")
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .field("registered", &self.registered)
            .field("io", &self.io)
            .finish()
    }
}

/// A write that comes back untried, in a forked child.
fn forked(request: Request) -> Finished {
    let error = DeviceError::forked(Operation::Write, request.range());
    request.refused(error)
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        if self.io.is_inherited() {
            // What a thread of the parent was just changing must not even be freed.
            mem::forget((self.sequencer.take(), self.prealloc.take(), mem::take(&mut self.reaper)));
            return;
        }
        let _held = events::hold();
        // What waits for a segment waits no longer.
        self.io.files().fail(&DeviceError::no_progress(Operation::Write, 0..u64::MAX), self.io.backend());
        let mut finished = Vec::new();
        while self.in_flight() > 0 {
            self.reap(Wait::Until(None), &mut finished);
            finished.clear();
        }
        while self.prealloc.as_ref().is_some_and(|prealloc| prealloc.lock().is_preparing()) {
            self.collect(Wait::Until(None), &mut self.reaper.lock());
        }
        if self.io.backend().has_given_up() {
            // What the kernel may still write must land before the next writer does. So `attached` stays, too.
            return mem::forget(self.lock.take());
        }
        self.trim();
        self.io.backend().detach();
        // In this order: a thread that finds the queue gone finds the file unlocked.
        drop(self.lock.take());
        self.io.release();
    }
}

#[cfg(test)]
mod tests;
