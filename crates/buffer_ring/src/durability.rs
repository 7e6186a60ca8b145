//! The watermarks: how far the log is written, and how far it is on stable storage.
//!
//! Writes complete in any order; a watermark moves only over lives that are complete without a gap. Only a sync that began after a
//! write completed makes that write durable: so what a sync covers is read before it begins. One thread syncs at a time, in its own
//! thread; who comes meanwhile waits, and is often covered by the next sync together with others.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::RingError;
use crate::ring::Core;
use crate::rotation::Life;
use crate::sync::Ordering::{AcqRel, Acquire, Release};
use crate::sync::{AtomicBool, AtomicU64, Mutex};

/// How far the log has come. Addresses are absolute.
#[derive(Debug)]
pub(crate) struct Durability {
    written: Watermark,
    durable: Watermark,
    /// Lives that are written beyond a gap: generation and end address. At most as many as there are buffers.
    ahead: Mutex<BTreeMap<u64, u64>>,
    /// The sync role.
    syncing: AtomicBool,
    /// Whether the ring is gone.
    closed: AtomicBool,
}

/// A position in the log, told in lives and in bytes.
#[derive(Debug)]
struct Watermark {
    /// All lives up to this one are below.
    generation: AtomicU64,
    address: AtomicU64,
}

impl Watermark {
    fn new(address: u64) -> Self {
        Self { generation: AtomicU64::new(0), address: AtomicU64::new(address) }
    }

    /// By one thread at a time. The generation comes last: whoever sees it sees the address.
    fn set(&self, mark: Mark) {
        self.address.store(mark.address, Release);
        self.generation.store(mark.generation, Release);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    fn address(&self) -> u64 {
        self.address.load(Acquire)
    }
}

/// What a watermark is set to.
#[derive(Clone, Copy, Debug)]
struct Mark {
    generation: u64,
    address: u64,
}

impl Durability {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            written: Watermark::new(start),
            durable: Watermark::new(start),
            ahead: Mutex::new(BTreeMap::new()),
            syncing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.address()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.address()
    }

    /// Life `generation`, which ends at `end`, has been written. Without a device that is as durable as it gets.
    pub(crate) fn written_up_to(&self, generation: u64, end: u64, durable: bool) {
        let mut ahead = self.ahead.lock();
        ahead.insert(generation, end);
        let mut mark = Mark { generation: self.written.generation(), address: self.written.address() };
        while let Some(address) = ahead.remove(&(mark.generation + 1)) {
            mark = Mark { generation: mark.generation + 1, address };
        }
        self.written.set(mark);
        if durable {
            self.durable.set(mark);
        }
    }

    /// What a sync that begins now will cover.
    fn covered(&self) -> Mark {
        let _ahead = self.ahead.lock();
        Mark { generation: self.written.generation(), address: self.written.address() }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

impl Core {
    pub(crate) fn sync(&self, deadline: Option<Instant>) -> Result<u64, RingError> {
        let generation = self.flush_everything();
        self.wait_life_durable(generation, deadline)
    }

    /// Has all lives written that have bytes, and gives the last of them.
    pub(crate) fn flush_everything(&self) -> u64 {
        let current = self.rotation.current();
        let has_bytes = self.seal_and_flush(current);
        self.flush_all_held(u64::MAX);
        if has_bytes { current.generation() } else { current.generation() - 1 }
    }

    /// Without `auto_flush`: asks for the flush of all sealed buffers that begin below `address`.
    fn flush_all_held(&self, address: u64) {
        if self.auto_flush() {
            return;
        }
        for slot in &self.slots {
            let generation = slot.generation();
            let concerned = slot.snapshot().is_sealed() && slot.base() < address;
            if concerned && slot.generation() == generation {
                self.flush_held(Life::new(generation, slot.index()));
            }
        }
    }

    /// Waits until all lives up to `generation`, whose flushes have been asked for, are durable.
    pub(crate) fn wait_life_durable(&self, generation: u64, deadline: Option<Instant>) -> Result<u64, RingError> {
        let Durability { written, durable, .. } = &self.durability;
        self.wait_until(deadline, || {
            let done = durable.generation() >= generation || written.generation() >= generation;
            if done { Some(Ok(())) } else { self.poisoned().map(Err) }
        })??;
        self.sync_until(|| durable.generation() >= generation, deadline)?;
        Ok(durable.address())
    }

    pub(crate) fn wait_durable(&self, address: u64, deadline: Option<Instant>) -> Result<(), RingError> {
        let Durability { written, durable, .. } = &self.durability;
        if durable.address() >= address {
            return Ok(());
        }
        while written.address() < address {
            let seen = self.rotation.current();
            self.flush_up_to(address, seen);
            self.wait_until(deadline, || {
                // After a rotation the address may lie in the new current buffer.
                if written.address() >= address || self.rotation.current() != seen {
                    return Some(Ok(()));
                }
                let tail = self.tail();
                let beyond = || (address > tail).then_some(RingError::NotAppended { address, tail });
                self.poisoned().or_else(beyond).map(Err)
            })??;
        }
        self.sync_until(|| durable.address() >= address, deadline)
    }

    /// Has all lives written that begin below `address`; `current` is the last of them.
    fn flush_up_to(&self, address: u64, current: Life) {
        // If the slot has moved on to a later life, the current one has been written.
        if self.slots[current.slot()].base() < address && address <= self.tail() {
            self.seal_and_flush(current);
        }
        self.flush_all_held(address);
    }

    /// Makes durable what is written now.
    pub(crate) fn sync_written(&self, deadline: Option<Instant>) -> Result<(), RingError> {
        let written = self.durability.written();
        self.sync_until(|| self.durability.durable() >= written, deadline)
    }

    /// Syncs, or waits for others who do, until `done`. What that needs must have been written.
    fn sync_until(&self, done: impl Fn() -> bool, deadline: Option<Instant>) -> Result<(), RingError> {
        while !done() {
            if let Some(error) = self.poisoned() {
                return Err(error);
            }
            match SyncRole::take(self) {
                Some(role) if !done() => role.sync(),
                Some(_) => {}
                None => {
                    let ended = || done() || self.poisoned().is_some() || !self.durability.syncing.load(Acquire);
                    self.wait_until(deadline, || ended().then_some(()))?;
                }
            }
        }
        Ok(())
    }
}

/// The right to sync, one thread at a time. Dropping it lets others know.
struct SyncRole<'a>(&'a Core);

impl<'a> SyncRole<'a> {
    fn take(core: &'a Core) -> Option<Self> {
        // Not `then_some`: a role that is made only to be dropped would take itself away from its holder.
        (!core.durability.syncing.swap(true, AcqRel)).then(|| Self(core))
    }

    fn sync(self) {
        let core = self.0;
        let covered = core.durability.covered();
        let start = Instant::now();
        match core.device.with(|queue| queue.io().sync()) {
            Some(Ok(())) if core.poisoned().is_none() => {
                tracing::debug!(durable = covered.address, elapsed = ?start.elapsed(), "synced");
                core.counters.synced();
                core.durability.durable.set(covered);
            }
            Some(Ok(())) => {}
            Some(Err(error)) => core.poison(RingError::Device(error)),
            None => core.poison(RingError::Closed),
        }
    }
}

impl Drop for SyncRole<'_> {
    fn drop(&mut self) {
        // A swap like all others of the role, so that they have one order that loom can follow.
        self.0.durability.syncing.swap(false, AcqRel);
        self.0.waiters.wake();
    }
}
