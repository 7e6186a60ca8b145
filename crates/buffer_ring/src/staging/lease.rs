//! A lease: a granted range that one writer fills record by record, and that others may take back.
//!
//! ```text
//!   granted range:  │ record │ record │ record ▒▒▒▒▒▒▒▒ rest ▒▒▒▒▒▒▒▒│
//!                                             ▲ mark
//!
//!   state:  over(n-1) ──begin──▶ held(n) ──revoke──▶ revoked(n) ──claim──▶ over(n)
//!                                   └────────────end─────────────────────────┘
//! ```
//!
//! The owner writes behind its mark without any instruction on shared memory but its cell. Before each record it says
//! that it is busy, and looks whether the lease has been revoked; after it, it moves the mark, and looks once more. A
//! revoker revokes, and looks whether the owner is busy. Between its own mark and the look at the other's each has a
//! full [barrier](mod@crate::sync::fence), so that at least one of the two sees the other:
//!
//! - the owner is not seen busy: it will see the lease revoked before it writes again, and the revoker may end the
//!   lease;
//! - the owner is seen busy: it will see the lease revoked when it is done, and ends the lease itself.
//!
//! If both see each other, both try to end it. Only one brings the state to *over*, and gets the rest of the range as a
//! [`Grant`]: to fill it with zeros, and to leave the buffer. The number of the lease is part of the state, so that a
//! revoker that is late finds a later lease changed, and leaves it alone.

use core::slice;

use crate::extent::{Extent, Placement};
use crate::staging::slot::{Grant, Slot};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::fence::Barrier;
use crate::sync::{AtomicU32, AtomicU64};

const OVER: u64 = 0;
const HELD: u64 = 1;
const REVOKED: u64 = 2;
const PHASE: u64 = 3;

/// From the number of one lease to that of the next.
const NEXT: u64 = 4;

const BUSY: u64 = 1;

/// Where a writer and those that take back its lease meet. A cache line of its own, so that the writer shares it with
/// no thread as long as nothing is taken back.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct LeaseCell {
    /// Bytes that were ever appended through the cell, and in the lowest bit, whether the owner is busy. Written by
    /// the owner.
    mark: AtomicU64,
    /// The number of the lease, and its phase in the two lowest bits.
    state: AtomicU64,
    /// What the lease is. Written by the owner while it is over; read by a revoker, for which it counts only if it then
    /// claims.
    slot: AtomicU32,
    start: AtomicU32,
    len: AtomicU32,
    /// What the mark was when it began.
    origin: AtomicU64,
    /// Records that were ever appended through the cell.
    records: AtomicU64,
}

impl LeaseCell {
    pub(crate) fn new() -> Self {
        Self {
            mark: AtomicU64::new(0),
            state: AtomicU64::new(OVER),
            slot: AtomicU32::new(0),
            start: AtomicU32::new(0),
            len: AtomicU32::new(0),
            origin: AtomicU64::new(0),
            records: AtomicU64::new(0),
        }
    }

    /// Revokes the lease if there is one in `slot`, and gives its number. Then a [heavy barrier](Barrier::heavy) has to
    /// follow, and [`claim`](Self::claim).
    #[must_use]
    pub(crate) fn revoke(&self, slot: &Slot) -> Option<u64> {
        // ordering: acquire half of W1.
        let state = self.state.load(Acquire);
        if state & PHASE != HELD || self.slot.load(Relaxed) as usize != slot.index() {
            return None;
        }
        // A lease with this number was in the slot. If it still is the one, it is now revoked, and by this thread.
        let revoked = state - HELD + REVOKED;
        self.state.compare_exchange(state, revoked, Relaxed, Relaxed).is_ok().then_some(state - HELD)
    }

    /// Revokes the lease in a forked child, where nothing else happens meanwhile. Its owner, if it exists there, finds
    /// that out at its next record.
    pub(crate) fn disown(&self) {
        let state = self.state.load(Relaxed);
        if state & PHASE == HELD {
            self.state.store(state - HELD + REVOKED, Relaxed);
        }
    }

    /// Ends the lease that this thread has revoked, unless its owner is busy, or has ended it. The answer is the rest
    /// of it.
    #[must_use]
    pub(crate) fn claim<'a>(&self, slot: &'a Slot, number: u64) -> Option<Grant<'a>> {
        // ordering: acquire half of W2.
        let mark = self.mark.load(Acquire);
        if mark & BUSY != 0 {
            return None;
        }
        let filled = (mark >> 1).wrapping_sub(self.origin.load(Relaxed)) as u32;
        let (start, len) = (self.start.load(Relaxed), self.len.load(Relaxed));
        // ordering: release half of W3.
        self.state.compare_exchange(number + REVOKED, number + OVER, Release, Relaxed).ok()?;
        Some(Grant { slot, start: start + filled, len: len - filled })
    }

    /// Records and bytes that were ever appended through the cell.
    pub(crate) fn appended(&self) -> (u64, u64) {
        (self.records.load(Relaxed), self.mark.load(Relaxed) >> 1)
    }
}

/// The owner's side of a cell.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    cell: &'a LeaseCell,
    barrier: Barrier,
    /// The state of the cell as long as no thread revokes the lease; if there is none: as it was left.
    state: u64,
    /// What the position in the mark will be when the lease is full; the position itself if there is no lease.
    end: u64,
    /// Where in memory position 0 would be.
    bytes: Origin,
    /// Where in the log position 0 would be.
    address: u64,
    /// Kept here, since the slot is shared memory.
    batch_base: u64,
    /// Bytes of the lease, and the offset in the buffer at which it ends.
    len: u32,
    end_offset: u32,
    slot: Option<&'a Slot>,
}

/// An address in memory to count from, perhaps outside of what it was made from.
#[derive(Clone, Copy, Debug)]
struct Origin(*mut u8);

// SAFETY: an address is just a number; what is done with it is argued where it is used, and does not depend on the
// thread.
unsafe impl Send for Origin {}

// SAFETY: as above; it never changes.
unsafe impl Sync for Origin {}

/// A record that was written, and whether the lease has been revoked meanwhile: then its owner has to [end](Lease::end)
/// it.
#[derive(Debug)]
#[must_use]
pub(crate) struct LeaseWrite {
    pub(crate) extent: Extent,
    pub(crate) revoked: bool,
}

impl<'a> Lease<'a> {
    /// The cell's next owner, which is ordered behind the one before.
    pub(crate) fn new(cell: &'a LeaseCell, barrier: Barrier) -> Self {
        let (_, position) = cell.appended();
        let state = cell.state.load(Relaxed) & !PHASE;
        let bytes = Origin(core::ptr::null_mut());
        Self {
            cell,
            barrier,
            state,
            end: position,
            bytes,
            address: 0,
            batch_base: 0,
            len: 0,
            end_offset: 0,
            slot: None,
        }
    }

    /// Bytes that are left.
    pub(crate) fn room(&self) -> u64 {
        self.end - self.position()
    }

    /// Makes a grant the cell's next lease. There must be none.
    pub(crate) fn begin(&mut self, mut grant: Grant<'a>) {
        debug_assert!(self.slot.is_none(), "a lease begins within another one");
        let (cell, position) = (self.cell, self.position());
        let slot = grant.slot;
        self.bytes = Origin(grant.bytes_mut().as_mut_ptr().wrapping_sub(position as usize));
        self.address = grant.extent().start().wrapping_sub(position);
        self.batch_base = slot.batch_base();
        self.end = position + u64::from(grant.len);
        self.len = grant.len;
        self.end_offset = grant.start + grant.len;
        self.slot = Some(slot);
        cell.slot.store(slot.index() as u32, Relaxed);
        cell.start.store(grant.start, Relaxed);
        cell.len.store(grant.len, Relaxed);
        cell.origin.store(position, Relaxed);
        cell.mark.store(position << 1, Relaxed);
        self.state = (self.state & !PHASE) + NEXT + HELD;
        // ordering: release half of W1.
        cell.state.store(self.state, Release);
    }

    /// Where a record of `len` bytes would lie, if there is room for it.
    #[inline]
    pub(crate) fn next(&self, len: usize) -> Placement {
        let extent = Extent::within(self.address.wrapping_add(self.position()), len);
        Placement { extent, batch_base: self.batch_base }
    }

    /// Has `fill` write a record of `len` bytes. `None` if there is no room for it, or no lease any more: then the
    /// owner has to [end](Self::end) it. So it has if `fill` panics: the owner stays busy, so that no other thread can.
    #[inline(always)]
    pub(crate) fn write(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Option<LeaseWrite> {
        // Read once: what the barrier lies between would be read again.
        let Self { cell, barrier, state, end, bytes, address, .. } = *self;
        let position = self.position();
        // With nothing to write it is as if there were no room.
        if (len as u64).wrapping_sub(1) >= end - position {
            return None;
        }
        let is_revoked = || cell.state.load(Relaxed) != state;
        cell.mark.store(position << 1 | BUSY, Relaxed);
        barrier.light();
        if is_revoked() {
            return None;
        }
        #[cfg(any(loom, shuttle))]
        if let Some(slot) = self.slot {
            let end = self.end_offset as usize - (end - position) as usize;
            slot.shadow.write(end..end + len);
        }
        // SAFETY:
        // - in bounds, initialised, alive: the range lies in what was granted, by the comparison with the end; the
        //   grant's slice was made from the arena, which the slot keeps alive as long as `'a`;
        // - not aliased: the word granted it to this lease alone, whose count is still inside. The owner is borrowed
        //   mutably, and behind its mark no other thread writes or reads before the lease is over. It is not: the owner
        //   has said that it is busy before it saw the lease held, so that a revoker sees one or the other, and leaves
        //   the rest to the owner; see the top of this file.
        let target = unsafe { slice::from_raw_parts_mut(bytes.0.wrapping_add(position as usize), len) };
        fill(target);
        let filled = position + len as u64;
        cell.records.store(cell.records.load(Relaxed) + 1, Relaxed);
        // ordering: release half of W2.
        cell.mark.store(filled << 1, Release);
        barrier.light();
        Some(LeaseWrite { extent: Extent::within(address.wrapping_add(position), len), revoked: is_revoked() })
    }

    /// Bytes that were ever appended through the cell: no other thread writes them.
    #[inline(always)]
    fn position(&self) -> u64 {
        self.cell.mark.load(Relaxed) >> 1
    }

    /// Ends the lease, if there is one.
    pub(crate) fn end(&mut self) -> Option<End<'a>> {
        let slot = self.slot.take()?;
        let position = self.position();
        let unused = (self.end - position) as u32;
        self.end = position;
        self.state = self.state & !PHASE | OVER;
        // ordering: acquire half of W3.
        let phase = self.cell.state.swap(self.state, Acquire) & PHASE;
        let rest = (phase != OVER).then(|| Grant { slot, start: self.end_offset - unused, len: unused });
        Some(End { was_revoked: phase != HELD, len: self.len, unused, rest })
    }
}

/// How a lease came to its end.
#[derive(Debug)]
#[must_use]
pub(crate) struct End<'a> {
    pub(crate) was_revoked: bool,
    /// Bytes of it, and how many of them have no record.
    pub(crate) len: u32,
    pub(crate) unused: u32,
    /// What is for the caller to fill with zeros, and to leave; `None` if a revoker has it.
    pub(crate) rest: Option<Grant<'a>>,
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{Arena, BLOCK};

    use super::*;
    use crate::staging::slot::Seized;

    /// Its number among the leases of a cell, with its phase.
    fn state(cell: &LeaseCell) -> u64 {
        cell.state.load(Relaxed)
    }

    fn range(grant: Grant<'_>) -> (u64, usize) {
        let extent = grant.extent();
        let _ = grant.release();
        (extent.start(), extent.len())
    }

    #[test]
    fn a_lease_ends_once_by_its_owner_or_by_a_revoker_and_never_has_the_number_of_an_earlier_one() {
        let slot = Slot::plain(&Arc::new(Arena::new(1, BLOCK).expect("a valid arena")), 0);
        assert!(slot.open(1, 0));
        let other = Slot::plain(&Arc::new(Arena::new(2, BLOCK).expect("a valid arena")), 1);
        let cell = LeaseCell::new();
        let mut lease = Lease::new(&cell, Barrier::Fence);
        for number in 1..=8 {
            // 100 bytes each, of which the first 30 have records.
            let start = (number - 1) * 100;
            let Seized::Granted(grant) = slot.reserve(100) else { panic!("there is room") };
            lease.begin(grant);
            assert_eq!(state(&cell), number * NEXT + HELD);
            for (len, at) in [(10, start), (20, start + 10)] {
                assert_eq!(lease.next(len).start(), at);
                let written = lease.write(len, |bytes| bytes.fill(7)).expect("there is room");
                assert_eq!((written.extent.start(), written.extent.len(), written.revoked), (at, len, false));
            }
            assert!(lease.write(71, |_| panic!("there is no room")).is_none());
            assert!(lease.write(0, |_| panic!("there is nothing to write")).is_none());
            assert_eq!((lease.room(), cell.appended()), (70, (2 * number, 30 * number)));
            assert!(cell.revoke(&other).is_none(), "it is in another slot");
            // In turn: its owner, a revoker that claims it, one that does not, a forked child.
            let claimed = match number % 4 {
                1 => None,
                0 => {
                    cell.disown();
                    assert_eq!(state(&cell), number * NEXT + REVOKED);
                    None
                }
                turn => {
                    assert_eq!(cell.revoke(&slot), Some(number * NEXT));
                    assert_eq!((state(&cell), cell.revoke(&slot)), (number * NEXT + REVOKED, None));
                    (turn == 2).then(|| cell.claim(&slot, number * NEXT).expect("its owner is not busy"))
                }
            };
            if number % 4 != 1 {
                assert!(lease.write(10, |_| panic!("it was revoked")).is_none());
            }
            let end = lease.end().expect("there is one");
            assert_eq!((end.was_revoked, end.len, end.unused), (number % 4 != 1, 100, 70));
            assert_ne!(end.rest.is_some(), claimed.is_some(), "the rest is one thread's");
            assert_eq!(end.rest.or(claimed).map(range), Some((start + 30, 70)));
            assert_eq!(state(&cell), number * NEXT + OVER);
            assert!(lease.end().is_none() && lease.room() == 0 && cell.revoke(&slot).is_none());
            assert!(cell.claim(&slot, number * NEXT).is_none(), "it is over");
        }
        // The cell's next owner goes on with the numbers and the positions.
        let next = Lease::new(&cell, Barrier::Fence);
        assert_eq!((next.state, next.room(), cell.appended()), (8 * NEXT, 0, (16, 240)));
    }

    #[test]
    fn a_lease_is_not_taken_from_an_owner_that_is_busy() {
        let slot = Slot::plain(&Arc::new(Arena::new(1, BLOCK).expect("a valid arena")), 0);
        assert!(slot.open(1, 0));
        let cell = LeaseCell::new();
        let mut lease = Lease::new(&cell, Barrier::Fence);
        let Seized::Granted(grant) = slot.reserve(100) else { panic!("there is room") };
        lease.begin(grant);
        let written = lease.write(10, |bytes| {
            bytes.fill(7);
            let number = cell.revoke(&slot).expect("it is held");
            assert!(cell.claim(&slot, number).is_none());
        });
        assert!(written.is_some_and(|written| written.revoked), "its owner finds out");
        let end = lease.end().expect("there is one");
        assert!(end.was_revoked);
        assert_eq!(end.rest.map(range), Some((10, 90)));
    }
}
