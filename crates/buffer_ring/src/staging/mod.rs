//! Staging: the log in memory. Nothing here does I/O, and nothing waits, but `tail` for a few
//! instructions of another thread.
//!
//! What a thread does to a buffer is answered by a value that says what has to happen next: a [`Grant`] is
//! filled and released, a [`PinGuard`](slot::PinGuard) is handed over and released, a [`Flush`](slot::Flush) goes to
//! the device, and a buffer that was [opened](rotation::Rotated::Opened) lets those go on that wait for room.

pub(crate) mod append;
pub(crate) mod deferred_flush;
pub(crate) mod layout;
pub(crate) mod lease;
pub(crate) mod lease_registry;
pub(crate) mod reader_latch;
pub(crate) mod rotation;
pub(crate) mod slot;

use std::sync::Arc;

use ring_alloc::Arena;

use crate::staging::layout::Layout;
use crate::staging::lease::LeaseCell;
use crate::staging::lease_registry::LeaseRegistry;
use crate::staging::rotation::{BufferId, Rotated, Rotation, Target};
use crate::staging::slot::{Grant, Slot};
use crate::sync::AtomicUsize;
use crate::sync::Ordering::{self, Relaxed};
use crate::sync::fence::Barrier;

/// The buffers of a ring, which of them is current, and the leases in them.
#[derive(Debug)]
pub(crate) struct Staging {
    slots: Box<[Slot]>,
    rotation: Rotation,
    layout: Arc<Layout>,
    capacity: usize,
    auto_flush: bool,
    auto_rotate: bool,
    /// Bytes of the longest payload that is taken. 0: the ring takes no more, because it is poisoned or is being
    /// closed, or because the process is a forked child.
    longest: AtomicUsize,
    leases: LeaseRegistry,
}

impl Staging {
    /// The buffers of `arena`, for a log that begins at `start`. None is open yet.
    pub(crate) fn new(arena: &Arc<Arena>, layout: Layout, auto_flush: bool, auto_rotate: bool, start: u64) -> Self {
        let (capacity, layout) = (layout.capacity(), Arc::new(layout));
        Self {
            slots: (0..arena.count()).map(|index| Slot::new(arena, index, &layout)).collect(),
            rotation: Rotation::new(start),
            layout,
            capacity,
            auto_flush,
            auto_rotate,
            longest: AtomicUsize::new(capacity),
            leases: LeaseRegistry::new(arena.count()),
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot that buffer `id` is in, or was.
    #[inline]
    pub(crate) fn slot(&self, id: BufferId) -> &Slot {
        &self.slots[id.slot()]
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn auto_flush(&self) -> bool {
        self.auto_flush
    }

    pub(crate) fn auto_rotate(&self) -> bool {
        self.auto_rotate
    }

    pub(crate) fn leases(&self) -> &LeaseRegistry {
        &self.leases
    }

    /// From now on no payload is taken. Under the lock of a failure, so that a thread that sees this, and takes the
    /// lock, finds the failure if that was the cause.
    pub(crate) fn refuse(&self) {
        self.longest.store(0, Relaxed);
    }

    /// Whether no payload is taken any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.longest.load(Relaxed) == 0
    }

    /// In a forked child: what its appends look at, plain or into a lease.
    pub(crate) fn disown(&self) {
        self.refuse();
        self.leases.disown();
    }

    #[inline]
    pub(crate) fn current(&self) -> BufferId {
        self.rotation.current()
    }

    /// See [`Rotation::current_with`].
    pub(crate) fn current_with(&self, ordering: Ordering) -> BufferId {
        self.rotation.current_with(ordering)
    }

    /// Makes `id` current, unless a later one is.
    pub(crate) fn publish(&self, id: BufferId) {
        self.rotation.publish(id);
    }

    /// See [`Rotation::next_base`].
    pub(crate) fn next_base(&self) -> u64 {
        self.rotation.next_base()
    }

    /// See [`Rotation::tail`].
    pub(crate) fn tail(&self) -> u64 {
        self.rotation.tail(&self.slots)
    }

    /// Where the rotation goes by itself.
    pub(crate) fn target(&self) -> Target {
        if self.auto_rotate { Target::Next } else { Target::Same }
    }

    /// Opens the next buffer, if there is need and `target` is free.
    pub(crate) fn advance(&self, target: Target) -> Rotated {
        self.rotation.advance(&self.slots, target)
    }

    /// Whether `target` could be opened now. May be out of date.
    pub(crate) fn has_room(&self, target: Target) -> bool {
        self.rotation.has_room(&self.slots, target)
    }

    /// Whether the log has reached its last address.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.rotation.is_exhausted(&self.slots)
    }

    /// See [`Rotation::hand_over`].
    pub(crate) fn hand_over(&self, id: BufferId, next_base: u64) {
        self.rotation.hand_over(id, next_base);
    }

    /// Without `auto_flush`: whether the slot after `seen` waits for a flush that no thread has requested.
    pub(crate) fn next_is_deferred(&self, seen: BufferId) -> bool {
        let next = &self.slots[Rotation::target(seen, &self.slots, Target::Next)];
        !self.auto_flush && next.deferred.is_deferred(next.generation())
    }

    /// Whether no buffer is opened any more; then the log ends at [`next_base`](Self::next_base).
    pub(crate) fn is_frozen(&self) -> bool {
        self.rotation.is_frozen()
    }

    /// See [`Rotation::take_token_for_good`].
    pub(crate) fn take_token_for_good(&self) -> bool {
        self.rotation.take_token_for_good()
    }

    /// See [`Rotation::set_frozen`].
    pub(crate) fn set_frozen(&self) {
        self.rotation.set_frozen();
    }

    /// Revokes the leases in `slot`, and answers the rest of each that this thread has ended, to be returned one by
    /// one. For the `sealed` buffer's sealer all that there are; for others those that are known, since a thread that
    /// waits for their owners looks again anyway.
    pub(crate) fn revoke<'a>(&'a self, slot: &'a Slot, sealed: bool) -> impl Iterator<Item = Grant<'a>> {
        let leased = self.leases.leased(slot, sealed);
        let mut revoked: Vec<(&LeaseCell, u64)> = leased.filter_map(|cell| Some((cell, cell.revoke(slot)?))).collect();
        // If there is no barrier, all are left to their owners.
        if !revoked.is_empty() && !Barrier::probe().heavy() {
            revoked.clear();
        }
        revoked.into_iter().filter_map(|(cell, number)| cell.claim(slot, number))
    }

    /// Bytes that the current buffer has left. May be out of date.
    pub(crate) fn room(&self) -> usize {
        let word = self.slot(self.current()).snapshot();
        if word.is_sealed() { self.capacity } else { self.capacity.saturating_sub(word.offset() as usize) }
    }
}
