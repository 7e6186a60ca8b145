//! Which buffer is current, and which thread makes the next one current.
//!
//! A sealer publishes the next generation's address and sets the *token*. The thread that takes the token, by a swap,
//! is the one rotation owner: while it holds the token no other thread changes `current`, so that it can look whether
//! the next slot can be opened, and open it. If it cannot be, the token goes back, and the thread that removes the
//! obstacle takes it up: the flusher that frees the slot, the late arrival that undoes its addition, the last reader
//! that leaves the latch.
//!
//! Nothing is lost between two such threads because both go through the token with a read-modify-write after what they
//! did: either the swap that puts the token back comes first, and the other one finds the token; or it comes second,
//! then it acquires what the other one did, and the look that follows sees it.
//!
//! A thread with an old idea of `current` can reserve in a slot that was just opened, fill it, and seal it, all before
//! its opener has published it as current. So a sealer first publishes *its own* generation, and the publication only
//! ever moves forward.

use crossbeam_utils::CachePadded;

use crate::staging::slot::Slot;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, AtomicU64, Backoff, Ordering};

const SLOT_BITS: u32 = 16;

/// A generation and its slot, in one word: the generation above, the slot's index in the low bits. Later generations
/// compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BufferId(u64);

impl BufferId {
    pub(crate) fn new(generation: u64, slot: usize) -> Self {
        debug_assert!(generation < 1 << (64 - SLOT_BITS) && slot < 1 << SLOT_BITS);
        Self(generation << SLOT_BITS | slot as u64)
    }

    #[inline]
    pub(crate) fn generation(self) -> u64 {
        self.0 >> SLOT_BITS
    }

    #[inline]
    pub(crate) fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }
}

/// Which slot the rotation may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The next one.
    Next,
    /// The same one, for its next generation.
    Same,
}

/// What became of a try to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotated {
    /// This thread opened the next generation.
    Opened(BufferId),
    /// There was nothing to do, or another thread does it, or the target is not free.
    No,
    /// The log has no more addresses.
    Exhausted,
}

/// The current generation, and the token for changing it.
#[derive(Debug)]
pub(crate) struct Rotation {
    current: CachePadded<AtomicU64>,
    /// The token: the current buffer is sealed and needs a successor, which no thread is opening yet.
    pending: AtomicBool,
    /// File address of the next generation's first byte. Set by the sealer of the current generation.
    next_base: AtomicU64,
    /// Whether no generation is opened any more.
    frozen: AtomicBool,
}

impl Rotation {
    /// A rotation whose first generation, yet to be opened, begins at `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            current: CachePadded::new(AtomicU64::new(0)),
            pending: AtomicBool::new(true),
            next_base: AtomicU64::new(start),
            frozen: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn current(&self) -> BufferId {
        // ordering: acquire half of R1.
        BufferId(self.current.load(Acquire))
    }

    /// The same with an ordering of the caller's choice, but never weaker: a generation is of use only together with
    /// what its opener prepared.
    pub(crate) fn current_with(&self, ordering: Ordering) -> BufferId {
        // ordering: acquire half of R1, or more.
        let ordering = if ordering == Ordering::SeqCst { ordering } else { Acquire };
        BufferId(self.current.load(ordering))
    }

    /// Makes `id` current, unless a later one is.
    pub(crate) fn publish(&self, id: BufferId) {
        // ordering: release half of R1. A read-modify-write also when a later generation stays, so that it breaks no
        // one else's edge.
        self.current.fetch_max(id.0, Release);
    }

    /// Where the next generation begins, if the current one is sealed and its sealer has come this far; else where the
    /// current one does.
    pub(crate) fn next_base(&self) -> u64 {
        // ordering: acquire half of R2, for `tail`: a thread that knows this address finds its sealer's generation
        // current, or a later one.
        self.next_base.load(Acquire)
    }

    /// The next address to be given out. Waits for a thread that is between sealing and publishing where the next
    /// generation begins.
    ///
    /// It never decreases from one look to a later one, in whichever thread: an answer from a generation says that the
    /// generation is current, or comes with `next_base`, which says that its sealer's generation is.
    pub(crate) fn tail(&self, slots: &[Slot]) -> u64 {
        let mut backoff = Backoff::new();
        loop {
            if let Some(tail) = self.tail_from(self.current(), slots) {
                return tail;
            }
            backoff.pause();
        }
    }

    /// The tail as a thread finds it that has seen generation `seen` current; `None` if it has to look again.
    pub(crate) fn tail_from(&self, seen: BufferId, slots: &[Slot]) -> Option<u64> {
        let slot = &slots[seen.slot()];
        let generation = slot.generation();
        let word = slot.snapshot();
        let base = slot.base();
        if slot.generation() != generation {
            return None;
        }
        if !word.is_sealed() {
            // A later generation than the current one: its opener has not published it yet. The next look must not miss
            // it.
            if generation != seen.generation() {
                self.publish(BufferId::new(generation, seen.slot()));
            }
            // An offset beyond the end is an overflowing writer's, whose batch will be as long as the buffer, or at
            // least as what can be appended to it: see `Layout`.
            return Some(base + u64::from(word.offset()).min(slot.capacity_bytes()));
        }
        let next_base = self.next_base();
        // A vacant word is that of a generation about to be opened, or of one that is over.
        (next_base > base || word.is_vacant()).then_some(next_base)
    }

    /// The sealer of `id` hands over: the next generation begins at `next_base`, and a thread is to open it.
    pub(crate) fn hand_over(&self, id: BufferId, next_base: u64) {
        // ordering: release half of R2, for `tail`: with the next base comes the generation that it follows.
        self.publish(id);
        self.next_base.store(next_base, Release);
        // ordering: release half of R2. The thread that hands over takes the token next, and acquires then.
        self.pending.swap(true, Release);
    }

    /// Takes the token for good, if it is there: the current generation is sealed, and none is opened any more.
    pub(crate) fn take_token_for_good(&self) -> bool {
        // ordering: acquire half of R2.
        self.pending.swap(false, AcqRel)
    }

    /// Makes known that no generation is opened any more. Only for the thread that has the token, or has taken the open
    /// generation out of use.
    pub(crate) fn set_frozen(&self) {
        // ordering: release half of R17.
        self.frozen.store(true, Release);
    }

    /// Whether no generation is opened any more; then the log ends at [`next_base`](Self::next_base).
    pub(crate) fn is_frozen(&self) -> bool {
        // ordering: acquire half of R17.
        self.frozen.load(Acquire)
    }

    /// Opens the next generation, if there is need and `target` is free.
    pub(crate) fn advance(&self, slots: &[Slot], target: Target) -> Rotated {
        // ordering: acquire half of R2, release half of R3.
        while self.pending.swap(false, AcqRel) {
            // Look again, now that the token makes `current` stable: what looked free before may have belonged to an
            // older one.
            let current = self.current();
            let slot = &slots[Self::target(current, slots, target)];
            let base = self.next_base.load(Relaxed);
            if !Self::is_address(base, slot) {
                // ordering: release half of R2: the token stays for a later look.
                self.pending.swap(true, Release);
                return Rotated::Exhausted;
            }
            let next = BufferId::new(current.generation() + 1, slot.index());
            let before = (current.generation() > 0).then(|| &slots[current.slot()]);
            if slot.follow(before) && slot.open(next.generation(), base) {
                self.publish(next);
                return Rotated::Opened(next);
            }
            // ordering: acquire half of R3, and release half of R2 once more: for what a failed opening has prepared.
            self.pending.swap(true, AcqRel);
            if !self.has_room(slots, target) {
                break;
            }
        }
        Rotated::No
    }

    /// Whether the log has reached its last address: the current generation is sealed, and is the last one.
    pub(crate) fn is_exhausted(&self, slots: &[Slot]) -> bool {
        !Self::is_address(self.next_base(), &slots[0])
    }

    fn is_address(base: u64, slot: &Slot) -> bool {
        base <= slot.layout().last_base()
    }

    /// Whether `target` could be opened now. May be out of date.
    pub(crate) fn has_room(&self, slots: &[Slot], target: Target) -> bool {
        slots[Self::target(self.current(), slots, target)].is_openable()
    }

    pub(crate) fn target(current: BufferId, slots: &[Slot], target: Target) -> usize {
        match target {
            // No generation was opened yet: the first slot.
            _ if current.generation() == 0 => 0,
            Target::Next if current.slot() + 1 < slots.len() => current.slot() + 1,
            Target::Next => 0,
            Target::Same => current.slot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{Arena, BLOCK};

    use super::*;
    use crate::extent::ADDRESS_LIMIT;
    use crate::staging::layout::Layout;

    const LAST: u64 = (1 << (64 - SLOT_BITS)) - 1;

    fn slots() -> Box<[Slot]> {
        let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
        let layout = Arc::new(Layout::plain(&arena));
        (0..2).map(|index| Slot::new(&arena, index, &layout)).collect()
    }

    #[test]
    fn a_generation_packs_and_orders_by_generation() {
        for generation in [0, 1, 2, LAST - 1, LAST] {
            for slot in [0, 1, (1 << SLOT_BITS) - 1] {
                let id = BufferId::new(generation, slot);
                assert_eq!((id.generation(), id.slot()), (generation, slot));
                assert!(generation == 0 || id > BufferId::new(generation - 1, (1 << SLOT_BITS) - 1));
            }
        }
    }

    #[test]
    fn the_smallest_generations_use_up_the_addresses_before_the_generations() {
        assert!(ADDRESS_LIMIT / BLOCK as u64 <= LAST);
        // The last generations of a log that began at 0 and took a block for each.
        for left in 0..3 {
            let (slots, rotation) = (slots(), Rotation::new(ADDRESS_LIMIT - left * BLOCK as u64));
            let before = LAST - left;
            rotation.publish(BufferId::new(before, (before % 2) as usize));
            for generation in before + 1..=LAST {
                let id = BufferId::new(generation, (generation % 2) as usize);
                assert_eq!(rotation.advance(&slots, Target::Next), Rotated::Opened(id));
                rotation.hand_over(id, slots[id.slot()].base() + BLOCK as u64);
            }
            assert_eq!(rotation.advance(&slots, Target::Next), Rotated::Exhausted);
            assert!(rotation.is_exhausted(&slots));
        }
    }
}
