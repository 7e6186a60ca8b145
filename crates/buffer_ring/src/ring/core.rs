//! What the ring, its tickets and its handles share: its parts, its first error.

use core::ops::Range;
use std::sync::{Arc, Weak};

use ring_alloc::Arena;
use ring_io::fork::{Inherited, Process};
use ring_io::{event, events};

use crate::commit::eventcount::EventCount;
use crate::commit::eventfd::EventFds;
use crate::commit::groups::CommitGroups;
use crate::commit::helpers::Helpers;
use crate::commit::waiters::CommitWaiters;
use crate::metrics::latency::Recorder;
use crate::ring::stats::Counters;
use crate::staging::lease_registry::Registry;
use crate::staging::rotation::Rotation;
use crate::staging::slot::Slot;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex};
use crate::writeback::device::{Device, WriteQueue};
use crate::writeback::exclusive::Exclusive;
use crate::writeback::watermarks::Durability;
use crate::{AppendError, CommitPolicy, RingError};

/// What the ring, its tickets and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// This, for threads of its own.
    pub(crate) this: Weak<Self>,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) rotation: Rotation,
    pub(crate) buffer_size: usize,
    pub(crate) auto_flush: bool,
    pub(crate) auto_rotate: bool,
    /// Bytes of the longest payload that is taken. 0: the ring takes no more, because it is poisoned or is being closed, or because the
    /// process is a forked child.
    pub(crate) longest: AtomicUsize,
    /// Whether the ring is poisoned: `failure` is set, and all leases have been taken back.
    poisoned: AtomicBool,
    /// Whether `failure` is set: no lease begins any more, and no write.
    pub(crate) failing: AtomicBool,
    failure: Mutex<Option<RingError>>,
    pub(crate) durability: Durability,
    pub(crate) counters: Counters,
    pub(crate) registry: Registry,
    pub(crate) latency: Recorder,
    pub(crate) changes: EventCount,
    /// Those who wait for durability.
    pub(crate) waiters: CommitWaiters,
    pub(crate) groups: CommitGroups,
    pub(crate) eventfds: EventFds,
    pub(crate) helpers: Helpers,
    /// The highest address that a caller has waited for in vain until its deadline.
    pub(crate) abandoned: AtomicU64,
    /// From the end of what the file held before to the start of the log: nothing is ever written there.
    pub(crate) gap: Range<u64>,
    pub(crate) device: Device,
    /// Whoever has it takes finished writes from the device.
    pub(crate) driver: Exclusive,
    process: Process,
}

impl Inherited for Shared {
    /// What a child's append looks at, plain or into a lease.
    fn disown(&self) {
        self.longest.store(0, Relaxed);
        self.registry.disown();
    }
}

impl Shared {
    /// Puts the parts of a ring together, whose log begins at `start`, and opens its first generation.
    pub(crate) fn new(
        arena: &Arc<Arena>,
        auto_flush: bool,
        auto_rotate: bool,
        policy: CommitPolicy,
        start: u64,
        queue: Option<WriteQueue>,
    ) -> Self {
        let shared = Self {
            this: Weak::new(),
            slots: (0..arena.count()).map(|index| Slot::new(arena, index)).collect(),
            rotation: Rotation::new(start),
            buffer_size: arena.buffer_size(),
            auto_flush,
            auto_rotate,
            longest: AtomicUsize::new(arena.buffer_size()),
            poisoned: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            durability: Durability::new(start),
            counters: Counters::new(),
            registry: Registry::new(arena.count()),
            latency: Recorder::new(false),
            changes: EventCount::new(),
            waiters: CommitWaiters::new(),
            groups: CommitGroups::new(policy),
            eventfds: EventFds::new(),
            helpers: Helpers::new(),
            abandoned: AtomicU64::new(start),
            gap: start..start,
            device: Device::new(queue),
            driver: Exclusive::new(),
            process: Process::here(),
        };
        shared.advance();
        shared
    }

    /// Keeps the first error, and lets everybody who waits know. When it returns everybody can know, also of an error that came first
    /// in another thread.
    #[cold]
    pub(crate) fn poison(&self, error: RingError) {
        let _held = events::hold();
        let is_first = {
            let mut failure = self.failure.lock();
            let is_first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            self.failing.store(true, Relaxed);
            is_first
        };
        if is_first {
            event!(ERROR, %error, "the ring is poisoned");
        }
        // Writers look at nothing but their leases. Who knows of the failure must find that they have none.
        self.slots.iter().for_each(|slot| self.revoke_leases(slot));
        {
            let _failure = self.failure.lock();
            self.longest.store(0, Relaxed);
            self.poisoned.store(true, Relaxed);
        }
        self.wake_all();
        // Whoever drives sleeps at the device, where perhaps nothing will happen any more.
        self.device.interrupt();
    }

    /// Does `f`, except after a failure; and no failure comes while it does.
    pub(crate) fn unless_poisoned(&self, f: impl FnOnce()) {
        let failure = self.failure.lock();
        if failure.is_none() {
            f();
        }
    }

    pub(crate) fn poisoned(&self) -> Option<RingError> {
        if self.is_inherited() {
            return Some(RingError::Forked);
        }
        self.poisoned.load(Relaxed).then(|| self.failure.lock().clone().expect("set before the flag"))
    }

    /// Whether the ring takes no more bytes.
    pub(crate) fn has_ended(&self) -> bool {
        self.longest.load(Relaxed) == 0
    }

    /// Whether the caller is in a child that was forked from the ring's process. There each call finds that out before it takes a lock or a
    /// role, or waits: a thread of the parent may have had what it needs, and never gives it back here.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_here()
    }

    pub(crate) fn check_process(&self) -> Result<(), RingError> {
        if self.is_inherited() { Err(RingError::Forked) } else { Ok(()) }
    }

    /// The ring takes no more bytes from now on, though nothing has failed.
    pub(crate) fn refuse_appends(&self) {
        {
            let _failure = self.failure.lock();
            self.longest.store(0, Relaxed);
        }
        self.changes.notify();
        // A thread that waits for room may be at the device.
        self.device.interrupt();
    }

    /// Wakes all threads that wait, for whatever it is, so that they look again.
    pub(crate) fn wake_all(&self) {
        self.changes.notify();
        self.waiters.wake_up_to(u64::MAX);
        self.eventfds.notify();
    }

    /// Why the ring [takes no more bytes](Self::has_ended).
    #[cold]
    pub(crate) fn end_error(&self) -> AppendError {
        if self.is_inherited() {
            return AppendError::Forked;
        }
        // The lock orders this look behind a failure that was the cause.
        self.failure.lock().clone().map_or(AppendError::Closed, AppendError::Poisoned)
    }

    /// The next address to be given out. It never decreases.
    pub(crate) fn tail(&self) -> u64 {
        if self.is_inherited() {
            // A forked child has no thread that would finish what was under way.
            return self.rotation.next_base();
        }
        self.rotation.tail(&self.slots)
    }
}
