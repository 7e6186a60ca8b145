//! Every interleaving of the ring's parts: one or two of them alone, and two threads that stand one step before their
//! race. Run with `cargo xtask loom`, like the models of the whole ring, which show that the parts fit together.
//!
//! Each model counts, outside of itself, that the branches it is about were taken.

#[path = "../../../ring-state/tests/model/mod.rs"]
mod model;

mod loom_close;
mod loom_commit;
mod loom_core;
mod loom_deferred_flush;
mod loom_exclusive;
mod loom_framing;
mod loom_helpers;
mod loom_lease;
mod loom_reader_latch;
mod loom_rotation;
mod loom_slot;
mod loom_waiters;
mod loom_waiting;
mod loom_watch;
mod loom_watermarks;

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use loom::thread;
use model::{Bound, hit, model};
use ring_alloc::{Arena, Frozen};
use ring_state::{Released, Seal};

use crate::staging::rotation::{BufferId, Rotated, Rotation, Target};
use crate::staging::slot::{Grant, Seized, Slot};
use crate::sync::shadow::Shadow;

const BUFFER: usize = 4096;

/// Memory of one cell, whose accesses loom checks.
fn cell() -> Shadow {
    Shadow::new(512)
}

/// A rotation and its slots.
struct RotationFixture {
    rotation: Rotation,
    slots: Box<[Slot]>,
    target: Target,
}

impl RotationFixture {
    /// With the first generation open.
    fn new(capacity: usize, target: Target) -> Arc<Self> {
        let arena = Arc::new(Arena::new(capacity, BUFFER).expect("a valid arena"));
        let slots = (0..capacity).map(|index| Slot::plain(&arena, index)).collect();
        let fixture = Self { rotation: Rotation::new(0), slots, target };
        assert_eq!(fixture.advance(), Rotated::Opened(BufferId::new(1, 0)));
        Arc::new(fixture)
    }

    fn advance(&self) -> Rotated {
        self.rotation.advance(&self.slots, self.target)
    }

    /// Fills generation `generation` in `slot`, seals it, hands over, leaves, and takes the flush.
    fn over(&self, slot: usize) -> Frozen {
        let slot = &self.slots[slot];
        assert_eq!(granted(slot, BUFFER).release(), Released::Pending);
        self.seal(slot)
    }

    fn seal(&self, slot: &Slot) -> Frozen {
        let Seized::Sealed(pin) = slot.reserve(BUFFER as u32) else { panic!("it is full") };
        let next_base = slot.base() + BUFFER as u64;
        self.rotation.hand_over(BufferId::new(slot.generation(), slot.index()), next_base);
        flush(slot, pin.release())
    }

    /// Does what a thread owes after it has left the slot, and whatever was released, looks whether it was in the way.
    fn flush_if_drained(&self, slot: &Slot, released: Released) {
        if let Some(flush) = slot.try_take_flush(released) {
            slot.complete(flush.freeze(0).expect("no framing"));
        }
        self.advance();
    }

    /// Appends `len` bytes, and gives their address.
    fn append(&self, len: usize) -> u64 {
        loop {
            let seen = self.rotation.current();
            let slot = &self.slots[seen.slot()];
            match slot.reserve(len as u32) {
                Seized::Granted(mut grant) => {
                    if slot.generation() != seen.generation() {
                        self.rotation.publish(BufferId::new(slot.generation(), slot.index()));
                    }
                    grant.bytes_mut().fill(1);
                    let start = grant.extent().start();
                    if let released @ Released::Flushable(_) = grant.release() {
                        self.flush_if_drained(slot, released);
                    }
                    return start;
                }
                Seized::Sealed(pin) => {
                    let next_base = slot.base() + u64::from(slot.sealed_len());
                    self.rotation.hand_over(BufferId::new(slot.generation(), slot.index()), next_base);
                    self.flush_if_drained(slot, pin.release());
                }
                Seized::Late(released) => self.flush_if_drained(slot, released),
            }
            thread::yield_now();
        }
    }

    /// Generation of the current generation, which must be the one in its slot.
    fn generation(&self) -> u64 {
        let current = self.rotation.current();
        assert_eq!(self.slots[current.slot()].generation(), current.generation());
        current.generation()
    }
}

/// A range of `len` bytes, filled.
fn granted(slot: &Slot, len: usize) -> Grant<'_> {
    let Seized::Granted(mut grant) = slot.reserve(len as u32) else { panic!("there is room") };
    let mark = slot.generation() as u8;
    grant.bytes_mut().fill(mark);
    grant
}

/// Takes the flush, which is due.
fn flush(slot: &Slot, released: Released) -> Frozen {
    slot.try_take_flush(released)
        .expect("no writer is inside, and no other thread takes it")
        .freeze(0)
        .expect("no framing")
}
