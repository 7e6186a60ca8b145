//! The watermarks: how far the log is written, and how far it is on stable storage.
//!
//! Both are read off the [ledger](crate::writeback::ledger), under its lock, and never move backward. What is written
//! plainly needs a sync; one thread syncs at a time, and what the sync covers is settled before it begins. It waits for
//! the sync itself, unless it has a deadline: then it submits the sync, and leaves its claim to the thread that takes
//! the outcome from the device.
//!
//! Syncs and durable writes have the device flush its cache. If that fails, the error is notified to one of those that
//! are under way, and may be about another's bytes; so a success reports nothing beside one whose outcome is not known.
//! Therefore there is never more than one:
//!
//! - a write is durable only if [all before it is](crate::writeback::Writeback::may_be_durable). It keeps the watermark
//!   of what is written where that of what is durable is, until it is over, so that nothing needs a sync, and nothing
//!   behind it may be durable;
//! - a sync runs only if there is something written that it is needed for, and it keeps the durable watermark below
//!   that.

use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicBool, AtomicU64, Mutex};
use crate::writeback::ledger::Ledger;

/// How far the log has come. Addresses are absolute.
#[derive(Debug)]
pub(crate) struct Watermarks {
    ledger: Mutex<Ledger>,
    written: Watermark,
    durable: Watermark,
    /// Whether the ring is gone.
    closed: AtomicBool,
}

/// A position in the log. Set under the ledger's lock, read by all threads.
#[derive(Debug)]
struct Watermark(AtomicU64);

impl Watermark {
    fn set(&self, address: u64) {
        // ordering: release half of R10.
        self.0.store(address, Release);
    }

    fn get(&self) -> u64 {
        // ordering: acquire half of R10.
        self.0.load(Acquire)
    }
}

impl Watermarks {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(start)),
            written: Watermark(AtomicU64::new(start)),
            durable: Watermark(AtomicU64::new(start)),
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
        // ordering: release half of R16.
        self.closed.store(true, Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // ordering: acquire half of R16.
        self.closed.load(Acquire)
    }

    /// A sync is about to begin: see [`Ledger::begin_sync`].
    #[must_use]
    pub(crate) fn begin_sync(&self) -> bool {
        self.ledger.lock().begin_sync()
    }

    /// Changes the ledger, and moves the watermarks; the durable one only if `guarded` calls what it is given, which it
    /// does unless the ring is poisoned. Answers whether that one has moved.
    #[must_use]
    pub(crate) fn update(&self, change: impl FnOnce(&mut Ledger), guarded: impl FnOnce(&mut dyn FnMut())) -> bool {
        let mut moved = false;
        let mut ledger = self.ledger.lock();
        let before = ledger.durable();
        change(&mut ledger);
        self.written.set(ledger.written());
        guarded(&mut || {
            self.durable.set(ledger.durable());
            moved = ledger.durable() > before;
        });
        moved
    }
}
