//! The device that models run on: writes complete when the model says so, and the checker, loom or shuttle, sees every
//! step.

use std::sync::Arc;

use ring_alloc::{Arena, Frozen};
use ring_io::{AttachError, DeviceError, Finished, LogWrite, QuikIO, Wait, WriteMode};

use crate::sync::Ordering::{AcqRel, Acquire};
use crate::sync::{AtomicUsize, Condvar, Mutex};

/// A device and its remote control.
#[derive(Clone, Debug)]
pub struct ModelDevice(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    in_flight: AtomicUsize,
    /// Of use for its errors.
    memory: QuikIO,
}

#[derive(Debug, Default)]
struct State {
    /// Whether what is submitted completes at once.
    instant: bool,
    held: Vec<Job>,
    ready: Vec<Finished>,
    /// The outcome of a submitted sync.
    ended: Option<Result<(), DeviceError>>,
    /// What is in the file.
    written: Vec<CompletedWrite>,
    /// How many of them a sync has covered.
    synced: usize,
    /// How many syncs were asked for.
    syncs: usize,
    /// Whether a sync or a durable write was begun whose success the ring does not know. An error is notified once:
    /// there is one at a time.
    flushing: bool,
    broken: Option<DeviceError>,
    sync_broken: Option<DeviceError>,
    interrupted: bool,
}

/// What was submitted.
#[derive(Debug)]
enum Job {
    Write(Write),
    /// A sync of the first so many that were written.
    Sync(usize),
}

#[derive(Debug)]
struct Write {
    token: u64,
    bytes: Frozen,
    offset: u64,
    durable: bool,
}

impl From<LogWrite> for Write {
    fn from(LogWrite { token, bytes, address, durable, .. }: LogWrite) -> Self {
        Self { token, bytes, offset: address, durable }
    }
}

/// A write that has completed.
#[derive(Debug)]
struct CompletedWrite {
    offset: u64,
    bytes: Vec<u8>,
    durable: bool,
}

impl ModelDevice {
    /// A device on which everything completes at once.
    #[must_use]
    pub fn instant() -> Self {
        Self::new(true)
    }

    /// A device whose writes and syncs complete by [`complete`](Self::complete), except for those that a thread makes
    /// itself.
    #[must_use]
    pub fn held() -> Self {
        Self::new(false)
    }

    fn new(instant: bool) -> Self {
        let (memory, _) = QuikIO::in_memory();
        Self(Arc::new(Inner {
            state: Mutex::new(State { instant, ..State::default() }),
            changed: Condvar::new(),
            in_flight: AtomicUsize::new(0),
            memory,
        }))
    }

    /// What a ring sees of this device.
    pub(crate) fn queue(&self) -> WriteQueue {
        WriteQueue(self.clone())
    }

    /// Completes the `n`-th write or sync in flight; `false` if there is none.
    pub fn complete(&self, n: usize) -> bool {
        let mut state = self.0.state.lock();
        if n >= state.held.len() {
            return false;
        }
        let job = state.held.remove(n);
        state.finish(job);
        drop(state);
        self.0.changed.notify_all();
        true
    }

    /// Completes everything that is in flight, and from now on everything as it comes.
    pub fn complete_from_now_on(&self) {
        let mut state = self.0.state.lock();
        state.instant = true;
        while let Some(job) = state.held.pop() {
            state.finish(job);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// From now on all operations fail.
    pub fn break_down(&self) {
        self.0.state.lock().broken = Some(an_error());
    }

    /// From now on writes succeed, and syncs fail until [`mend`](Self::mend).
    pub fn break_syncs(&self) {
        self.0.state.lock().sync_broken = Some(an_error());
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        let mut state = self.0.state.lock();
        (state.broken, state.sync_broken) = (None, None);
    }

    /// What was written where, in the order of completion.
    #[must_use]
    pub fn written(&self) -> Vec<(u64, Vec<u8>)> {
        self.0.state.lock().written.iter().map(|write| (write.offset, write.bytes.clone())).collect()
    }

    /// How many syncs were asked for, failed ones included.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.0.state.lock().syncs
    }

    /// The address below which everything is on stable storage, on a log that begins at 0.
    #[must_use]
    pub fn synced_up_to(&self) -> u64 {
        let state = self.0.state.lock();
        let (synced, later) = state.written.split_at(state.synced);
        let durable = synced.iter().chain(later.iter().filter(|write| write.durable));
        let mut writes: Vec<_> = durable.map(|write| (write.offset, write.bytes.len())).collect();
        writes.sort_unstable();
        writes.into_iter().fold(0, |end, (at, len)| if at == end { end + len as u64 } else { end })
    }
}

fn an_error() -> DeviceError {
    let (memory, remote) = QuikIO::in_memory();
    remote.fail_sync(5);
    memory.sync().expect_err("it is to fail")
}

impl State {
    fn begin_flush(&mut self) {
        assert!(!self.flushing, "two calls have the device flushed at once");
        self.flushing = true;
    }

    fn arrive(&mut self, job: Job) {
        if self.instant {
            self.finish(job);
        } else {
            self.held.push(job);
        }
    }

    fn finish(&mut self, job: Job) {
        match job {
            Job::Write(write) => {
                let finished = self.write(write);
                self.ready.push(finished);
            }
            Job::Sync(covered) => self.ended = Some(self.sync(covered)),
        }
    }

    /// A sync begins. Answers how many of those that were written it covers; more may be written before it ends.
    fn begin_sync(&mut self) -> usize {
        self.syncs += 1;
        self.begin_flush();
        self.written.len()
    }

    fn sync(&mut self, covered: usize) -> Result<(), DeviceError> {
        let broken = self.broken.as_ref().or(self.sync_broken.as_ref());
        broken.cloned().map_or(Ok(()), Err)?;
        self.synced = self.synced.max(covered);
        Ok(())
    }

    fn write(&mut self, Write { token, bytes, offset, durable }: Write) -> Finished {
        let result = self.broken.clone().map_or(Ok(()), Err);
        let durable = durable && result.is_ok();
        if result.is_ok() {
            self.written.push(CompletedWrite { offset, bytes: bytes.to_vec(), durable });
        }
        Finished { token, bytes, durable, result }
    }
}

/// What the ring sees of a [`ModelDevice`].
#[derive(Debug)]
pub(crate) struct WriteQueue(ModelDevice);

pub(crate) fn attach(_: &Arc<QuikIO>, _: &Arc<Arena>) -> Result<WriteQueue, AttachError> {
    Ok(WriteQueue(ModelDevice::instant()))
}

impl WriteQueue {
    pub(crate) fn submit_write(&self, write: LogWrite) {
        self.start(write.into());
    }

    /// A durable write in one step: whatever can come between its beginning and its end can also come before or after.
    pub(crate) fn write_or_submit(&self, write: LogWrite) -> Option<Finished> {
        let mut state = self.0.0.state.lock();
        if write.durable {
            state.begin_flush();
        }
        let finished = state.write(write.into());
        if finished.durable {
            state.flushing = false;
        }
        Some(finished)
    }

    fn start(&self, write: Write) {
        let mut state = self.0.0.state.lock();
        if write.durable {
            state.begin_flush();
        }
        state.arrive(Job::Write(write));
        // Before any thread can reap it.
        // ordering: as `WriteQueue::in_flight` of ring-io.
        self.0.0.in_flight.fetch_add(1, AcqRel);
    }

    pub(crate) fn submit_sync(&self) -> Result<(), DeviceError> {
        let mut state = self.0.0.state.lock();
        let covered = state.begin_sync();
        state.arrive(Job::Sync(covered));
        // Before any thread can reap it.
        // ordering: as `WriteQueue::in_flight` of ring-io.
        self.0.0.in_flight.fetch_add(1, AcqRel);
        Ok(())
    }

    pub(crate) fn reap(&self, wait: Wait, finished: &mut Vec<Finished>) -> Option<Result<(), DeviceError>> {
        let device = &self.0.0;
        let mut state = device.state.lock();
        while wait != Wait::No && state.ready.is_empty() && state.ended.is_none() && !state.held.is_empty() {
            if core::mem::take(&mut state.interrupted) {
                return None;
            }
            state = device.changed.wait(state);
        }
        let ended = state.ended.take();
        // ordering: release half of `WriteQueue::in_flight`: what was done with the writes → a thread that sees none.
        device.in_flight.fetch_sub(state.ready.len() + usize::from(ended.is_some()), AcqRel);
        // One that failed is never over.
        state.flushing &= !state.ready.iter().any(|write| write.durable) && ended != Some(Ok(()));
        finished.append(&mut state.ready);
        ended
    }

    pub(crate) fn interrupt(&self) {
        self.0.0.state.lock().interrupted = true;
        self.0.0.changed.notify_all();
    }

    pub(crate) fn in_flight(&self) -> usize {
        // ordering: acquire half of `WriteQueue::in_flight`.
        self.0.0.in_flight.load(Acquire)
    }

    pub(crate) fn io(&self) -> &Self {
        self
    }

    pub(crate) fn write_mode(&self) -> WriteMode {
        WriteMode::TailLocalized
    }

    pub(crate) fn registered(&self) -> &Self {
        self
    }

    pub(crate) fn buffers(&self) -> bool {
        false
    }

    pub(crate) fn engine(&self) -> &ring_io::Engine {
        self.0.0.memory.engine()
    }

    /// Covers what was written when it began; more may be written before it ends.
    pub(crate) fn sync(&self) -> Result<(), DeviceError> {
        let covered = self.0.0.state.lock().begin_sync();
        let mut state = self.0.0.state.lock();
        state.sync(covered)?;
        state.flushing = false;
        Ok(())
    }

    pub(crate) fn read_at(&self, at: u64, target: &mut [u8]) -> Result<usize, DeviceError> {
        let state = self.0.0.state.lock();
        for (index, byte) in target.iter_mut().enumerate() {
            let address = at + index as u64;
            let hit =
                |write: &&CompletedWrite| (write.offset..write.offset + write.bytes.len() as u64).contains(&address);
            let Some(write) = state.written.iter().find(hit) else { return Ok(index) };
            *byte = write.bytes[(address - write.offset) as usize];
        }
        Ok(target.len())
    }
}
