//! The watermarks: how far the log is written, and how far it is on stable storage.
//!
//! Writes complete in any order; a watermark moves only over lives that are complete without a gap. Only a sync that began after a
//! write completed makes that write durable: so what a sync covers is read before it begins. One thread syncs at a time, in its own
//! thread; who comes meanwhile waits, and is often covered by the next sync together with others.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::RingError;
use crate::role::Role;
use crate::rotation::Life;
use crate::shared::Shared;
use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicBool, AtomicU64, Mutex};

/// How far the log has come. Addresses are absolute.
#[derive(Debug)]
pub(crate) struct Durability {
    written: Watermark,
    durable: Watermark,
    /// Lives that are written beyond a gap: generation and end address. At most as many as there are buffers.
    ahead: Mutex<BTreeMap<u64, u64>>,
    /// Whoever has it syncs the device.
    syncer: Role,
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

    /// Both together. Only while nobody sets it.
    fn get(&self) -> Mark {
        Mark { generation: self.generation(), address: self.address() }
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
            syncer: Role::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.address()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.address()
    }

    /// Life `generation`, which ends at `end`, has been written.
    pub(crate) fn written_up_to(&self, generation: u64, end: u64) {
        let mut ahead = self.ahead.lock();
        ahead.insert(generation, end);
        let mut mark = self.written.get();
        while let Some(address) = ahead.remove(&(mark.generation + 1)) {
            mark = Mark { generation: mark.generation + 1, address };
        }
        self.written.set(mark);
    }

    /// What a sync that begins now will cover.
    fn covered(&self) -> Mark {
        let _ahead = self.ahead.lock();
        self.written.get()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

impl Shared {
    pub(crate) fn sync(&self, deadline: Option<Instant>) -> Result<u64, RingError> {
        let generation = self.flush_everything();
        self.wait_life_durable(generation, deadline)
    }

    /// Has all lives written that have bytes, and gives the last of them.
    pub(crate) fn flush_everything(&self) -> u64 {
        let current = self.rotation.current();
        let has_bytes = self.seal_and_flush(current);
        self.flush_all_held(current, u64::MAX);
        if has_bytes { current.generation() } else { current.generation() - 1 }
    }

    /// Without `auto_flush`: asks for the flush of all sealed buffers, up to life `last`, that begin below `address`.
    pub(crate) fn flush_all_held(&self, last: Life, address: u64) {
        if self.auto_flush {
            return;
        }
        for slot in &self.slots {
            // A life after `last` may just be prepared; its flush is nobody's wish yet.
            let generation = slot.generation();
            if generation <= last.generation() && slot.snapshot().is_sealed() && slot.base() < address {
                self.flush_held(Life::new(generation, slot.index()));
            }
        }
    }

    /// Waits until all lives up to `generation`, whose flushes have been asked for, are durable.
    pub(crate) fn wait_life_durable(&self, generation: u64, deadline: Option<Instant>) -> Result<u64, RingError> {
        let Durability { written, durable, .. } = &self.durability;
        self.wait_until(deadline, || self.outcome(|| written.generation() >= generation))??;
        self.sync_until(|| durable.generation() >= generation, deadline)?;
        Ok(durable.address())
    }

    pub(crate) fn wait_durable(&self, address: u64, deadline: Option<Instant>) -> Result<(), RingError> {
        let Durability { written, durable, .. } = &self.durability;
        while written.address() < address {
            let tail = self.tail();
            if address > tail {
                return Err(self.poisoned().unwrap_or(RingError::NotAppended { address, tail }));
            }
            let current = self.rotation.current();
            self.flush_up_to(address, current);
            // After a rotation the address may lie in the new current buffer.
            let rotated = || self.rotation.current() != current;
            self.wait_until(deadline, || self.outcome(|| written.address() >= address || rotated()))??;
        }
        self.sync_until(|| durable.address() >= address, deadline)
    }

    /// Has all lives written that begin below `address`; `current` is the last of them.
    fn flush_up_to(&self, address: u64, current: Life) {
        // If the slot has moved on to a later life, the current one has been written.
        if self.slots[current.slot()].base() < address {
            self.seal_and_flush(current);
        }
        self.flush_all_held(current, address);
    }

    /// Makes durable what is written now.
    pub(crate) fn sync_written(&self, deadline: Option<Instant>) -> Result<(), RingError> {
        let written = self.durability.written();
        self.sync_until(|| self.durability.durable() >= written, deadline)
    }

    /// Syncs, or waits for others who do, until `done`. What that needs must have been written.
    fn sync_until(&self, done: impl Fn() -> bool, deadline: Option<Instant>) -> Result<(), RingError> {
        loop {
            if let Some(outcome) = self.outcome(&done) {
                return outcome;
            }
            if let Some(syncer) = self.durability.syncer.take() {
                if !done() {
                    self.sync_device();
                }
                drop(syncer);
                self.waiters.wake();
                // Whoever drives may be covered by the sync, and need not wait for the device.
                self.device.interrupt();
            } else {
                let free = || !self.durability.syncer.is_taken();
                self.wait_until(deadline, || self.outcome(|| done() || free()))??;
            }
        }
    }

    /// Only for the one who has the sync role.
    fn sync_device(&self) {
        let covered = self.durability.covered();
        let start = Instant::now();
        match self.device.sync() {
            Ok(()) => {
                tracing::debug!(durable = covered.address, elapsed = ?start.elapsed(), "synced");
                self.counters.synced();
                self.unless_poisoned(|| self.durability.durable.set(covered));
            }
            Err(error) => self.poison(RingError::Device(error)),
        }
    }
}
