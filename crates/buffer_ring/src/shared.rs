//! What the ring, its tickets and its handles share: its parts, its first error, its tail.

use std::sync::{Arc, Weak};

use ring_alloc::Arena;
use ring_io::{event, events};

use crate::bells::Bells;
use crate::device::{Device, WriteQueue};
use crate::durability::Durability;
use crate::flights::Flights;
use crate::helpers::Helpers;
use crate::latency::Recorder;
use crate::parking::Parking;
use crate::role::Role;
use crate::rotation::Rotation;
use crate::slot::Slot;
use crate::stats::Counters;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, spin_loop};
use crate::waiters::Waiters;
use crate::writer::Registry;
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
    /// Bytes of the longest payload that is taken. 0: the ring is poisoned, `failure` is set, and all leases have been taken back.
    pub(crate) longest: AtomicUsize,
    /// Whether `failure` is set: no lease begins any more, and no write.
    pub(crate) failing: AtomicBool,
    failure: Mutex<Option<RingError>>,
    pub(crate) durability: Durability,
    pub(crate) counters: Counters,
    pub(crate) registry: Registry,
    pub(crate) latency: Recorder,
    pub(crate) waiters: Waiters,
    /// Those who wait for durability.
    pub(crate) parking: Parking,
    pub(crate) flights: Flights,
    pub(crate) bells: Bells,
    pub(crate) helpers: Helpers,
    /// The highest address that a caller has waited for in vain until its deadline.
    pub(crate) abandoned: AtomicU64,
    pub(crate) device: Device,
    /// Whoever has it takes finished writes from the device.
    pub(crate) driver: Role,
}

impl Shared {
    /// Puts the parts of a ring together, whose log begins at `start`, and opens its first life.
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
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            durability: Durability::new(start),
            counters: Counters::new(),
            registry: Registry::new(arena.count()),
            latency: Recorder::new(false),
            waiters: Waiters::new(),
            parking: Parking::new(),
            flights: Flights::new(policy),
            bells: Bells::new(),
            helpers: Helpers::new(),
            abandoned: AtomicU64::new(start),
            device: Device::new(queue),
            driver: Role::new(),
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
        // Sessions look at nothing but their leases. Who knows of the failure must find that they have none.
        self.slots.iter().for_each(|slot| self.revoke_leases(slot));
        {
            let _failure = self.failure.lock();
            self.longest.store(0, Relaxed);
        }
        self.waiters.wake();
        self.parking.wake_up_to(u64::MAX);
        self.bells.ring();
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

    pub(crate) fn is_poisoned(&self) -> bool {
        self.longest.load(Relaxed) == 0
    }

    pub(crate) fn poisoned(&self) -> Option<RingError> {
        self.is_poisoned().then(|| self.failure())
    }

    pub(crate) fn failure(&self) -> RingError {
        self.failure.lock().clone().expect("set before the flag")
    }

    #[cold]
    pub(crate) fn poison_error(&self) -> AppendError {
        AppendError::Poisoned(self.failure())
    }

    /// The next address to be given out. Waits for a thread that is just sealing, for the few instructions until it has told.
    pub(crate) fn tail(&self) -> u64 {
        loop {
            let slot = &self.slots[self.rotation.current().slot()];
            let generation = slot.generation();
            let word = slot.snapshot();
            let base = slot.base();
            if slot.generation() == generation {
                let next_base = self.rotation.next_base();
                if !word.is_sealed() {
                    // An offset beyond the end is a crosser's, whose buffer is full up to its last block.
                    return base + u64::from(word.offset()).min(self.buffer_size as u64);
                }
                if next_base > base {
                    return next_base;
                }
                if word.is_vacant() {
                    // About to be opened.
                    return base;
                }
            }
            spin_loop();
        }
    }

    /// Address of the first byte that a leaked reservation holds back. Only when the ring is about to go, and nobody is inside.
    pub(crate) fn leaked(&self) -> Option<u64> {
        let stuck = |slot: &&Slot| !slot.is_free() && !slot.snapshot().is_flushing() && slot.snapshot().writers() > 0;
        self.slots.iter().filter(stuck).map(Slot::base).min()
    }
}
