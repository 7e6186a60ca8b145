//! Commit: threads and tasks that wait, for room or for durability. Nothing here does I/O but to notify an event
//! file descriptor.
//!
//! Three kinds of waiting, with one way each to lose no wake-up: threads that sleep until anything changes (the
//! [event count](eventcount)), threads that wait for an address ([commit waiters](waiters)), and event loops (the
//! [event file descriptors](eventfd)). Tasks have [threads of the ring](helpers) wait for them.

pub(crate) mod backoff;
pub(crate) mod eventcount;
pub(crate) mod eventfd;
pub(crate) mod groups;
pub(crate) mod helpers;
pub(crate) mod waiters;

use crate::commit::eventcount::EventCount;
use crate::commit::eventfd::EventFds;
use crate::commit::groups::{CommitGroups, CommitPolicy};
use crate::commit::helpers::Helpers;
use crate::commit::waiters::CommitWaiters;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// All that wait for a ring.
#[derive(Debug)]
pub(crate) struct Waiting {
    changes: EventCount,
    waiters: CommitWaiters,
    groups: CommitGroups,
    eventfds: EventFds,
    helpers: Helpers,
    /// The highest address that a caller has waited for in vain until its deadline.
    abandoned: AtomicU64,
}

impl Waiting {
    /// No thread waits yet for a log that begins at `start`.
    pub(crate) fn new(policy: CommitPolicy, start: u64) -> Self {
        Self {
            changes: EventCount::new(),
            waiters: CommitWaiters::new(),
            groups: CommitGroups::new(policy),
            eventfds: EventFds::new(),
            helpers: Helpers::new(),
            abandoned: AtomicU64::new(start),
        }
    }

    /// Threads that wait until anything changes.
    pub(crate) fn changes(&self) -> &EventCount {
        &self.changes
    }

    /// Threads that wait until an address is durable.
    pub(crate) fn waiters(&self) -> &CommitWaiters {
        &self.waiters
    }

    /// The commit groups under way, and how many wait for the next.
    pub(crate) fn groups(&self) -> &CommitGroups {
        &self.groups
    }

    pub(crate) fn eventfds(&self) -> &EventFds {
        &self.eventfds
    }

    pub(crate) fn helpers(&self) -> &Helpers {
        &self.helpers
    }

    /// Wakes all that wait, for whatever it is, so that they look again.
    pub(crate) fn wake_all(&self) {
        self.changes.notify();
        self.waiters.wake_up_to(u64::MAX);
        self.eventfds.notify();
    }

    /// Wakes the threads that wait for `address` itself, wherever they sleep, but for the device.
    pub(crate) fn wake_at(&self, address: u64) {
        self.changes.notify();
        self.waiters.elect_at(address);
    }

    /// A caller gives up waiting for `address`. If the watermark is followed, a follower that waits sees to what it
    /// began. `true`: there are event file descriptors, for which a thread of the ring has to.
    #[must_use]
    pub(crate) fn abandon(&self, address: u64) -> bool {
        // ordering: R13 and R18 carry it to followers that come later.
        self.abandoned.fetch_max(address, Relaxed);
        if !self.waiters.is_empty() {
            self.waiters.wake_followers();
        }
        self.eventfds.is_any()
    }

    /// The highest address that a caller gave up on.
    pub(crate) fn abandoned(&self) -> u64 {
        self.abandoned.load(Relaxed)
    }
}
