//! The watermarks: how far the log is written, and how far it is on stable storage.
//!
//! Both are read off the [ledger](crate::writeback::ledger), under its lock, and never move backward. What is written plainly needs a sync; one
//! thread syncs at a time, and what the sync covers is settled before it begins. It waits for the sync itself, unless it has a deadline:
//! then it submits the sync, and leaves its role with it to whoever takes the outcome from the device.
//!
//! Syncs and durable writes have the device flush its cache. If that fails, the error is told to one of those that are under way, and may
//! be about another's bytes; so a success tells nothing beside one whose outcome is not known. Therefore there is never more than one:
//!
//! - a write is durable only if [all before it is](Shared::may_be_durable). It keeps the watermark of what is written where that of what
//!   is durable is, until it is over, so that nothing needs a sync, and nothing behind it may be durable;
//! - a sync runs only if there is something written that it is needed for, and it keeps the durable watermark below that.

use std::time::Instant;

use ring_io::{DeviceError, event, events};

use crate::RingError;
use crate::metrics::latency::Measure;
use crate::ring::core::Shared;
use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicBool, AtomicU64, Mutex};
use crate::writeback::exclusive::{Claim, Exclusive};
use crate::writeback::ledger::Ledger;

/// How far the log has come. Addresses are absolute.
#[derive(Debug)]
pub(crate) struct Durability {
    ledger: Mutex<Ledger>,
    written: Watermark,
    durable: Watermark,
    /// Whoever has it syncs the device.
    pub(crate) syncer: Exclusive,
    /// Whether the ring is gone.
    closed: AtomicBool,
}

/// A position in the log. Set under the ledger's lock, read by everybody.
#[derive(Debug)]
struct Watermark(AtomicU64);

impl Watermark {
    fn set(&self, address: u64) {
        self.0.store(address, Release);
    }

    fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}

impl Durability {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(start)),
            written: Watermark(AtomicU64::new(start)),
            durable: Watermark(AtomicU64::new(start)),
            syncer: Exclusive::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.get()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

impl Shared {
    /// Whether a write at `base` may be a durable one. Once it may, it stays so until that write is over.
    pub(crate) fn may_be_durable(&self, base: u64) -> bool {
        self.durability.durable() == base
    }

    /// BufferId `generation`, which ends at `end`, has been written, and perhaps is `durable`.
    pub(crate) fn record(&self, generation: u64, end: u64, durable: bool) {
        self.update(|ledger| ledger.complete(generation, end, durable));
    }

    fn update(&self, f: impl FnOnce(&mut Ledger)) {
        let mut moved = false;
        {
            let mut ledger = self.durability.ledger.lock();
            let before = ledger.durable();
            f(&mut ledger);
            self.durability.written.set(ledger.written());
            self.unless_poisoned(|| {
                self.durability.durable.set(ledger.durable());
                moved = ledger.durable() > before;
            });
        }
        if moved {
            self.eventfds.notify();
        }
    }

    /// Makes durable what is written now, on behalf of all who wait for that; `false` if it all is. Waits for the device only if
    /// `to_its_end`.
    pub(crate) fn sync_device(&self, syncer: Claim<'_>, to_its_end: bool) -> bool {
        let _held = events::hold();
        // In a statement of its own: the lock must not last as long as the sync.
        let needed = self.durability.ledger.lock().begin_sync();
        if needed && !to_its_end {
            // Before somebody can have the outcome.
            syncer.detach();
            match self.device.submit_sync() {
                Some(Ok(())) => {}
                Some(Err(error)) => self.end_sync(self.durability.syncer.reattach(), Err(error)),
                None => drop(self.durability.syncer.reattach()),
            }
            return true;
        }
        if needed {
            let start = Instant::now();
            match self.device.sync() {
                Some(outcome) => {
                    self.latency.time(Measure::Device, start.elapsed());
                    self.end_sync(syncer, outcome);
                }
                // What was not durable when the ring was closed never will be.
                None => drop(syncer),
            }
        } else {
            drop(syncer);
        }
        self.notify();
        // Whoever drives may be covered by the sync, and need not wait for the device.
        self.device.interrupt();
        needed
    }

    /// A sync has ended, and with it its holder's role. Then who waits has to be told.
    pub(crate) fn end_sync(&self, syncer: Claim<'_>, outcome: Result<(), DeviceError>) {
        match outcome {
            Ok(()) => {
                self.update(Ledger::end_sync);
                self.counters.synced();
                let durable = self.durability.durable();
                event!(DEBUG, durable, "synced");
            }
            Err(error) => self.poison(RingError::Device(error)),
        }
        drop(syncer);
    }
}
