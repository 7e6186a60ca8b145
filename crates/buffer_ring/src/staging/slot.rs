//! One slot of the ring: a state word, the bytes that it governs, and what is known of the generation that is in it.
//!
//! All `unsafe` code of the crate is here, because only here do the word and the bytes meet. The word decides which
//! thread may touch which bytes; the decision is handed out as a value, and only that value gives access: a [`Grant`]
//! to its range, a [`Flush`] to everything, [`Slot::copy_stable`] to bytes that no thread writes any more. A
//! [`Lease`](crate::staging::lease::Lease) is a grant that its owner fills bit by bit, and that others may end.

use core::ops::Range;
use std::sync::Arc;

use ring_alloc::{Arena, Frozen, Region};
use ring_io::events;
use ring_state::{Released, Reserve, Seal, Snapshot, StateWord};

use crate::extent::{Extent, Placement};
use crate::framing::BatchInfo;
use crate::staging::deferred_flush::DeferredFlush;
use crate::staging::layout::Layout;
use crate::staging::reader_latch::ReaderLatch;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::shadow::Shadow;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64};

/// No address.
const NONE: u64 = u64::MAX;

/// A place in the ring. Two cache lines: the first is all that an append touches.
///
/// | field | written by | read by | ordered by |
/// |---|---|---|---|
/// | `word` | each thread that reserves, pins, releases, seals, flushes | the same, and readers | E1 to E4 |
/// | `base`, `generation` | the opener, before the word opens | holders of a grant or a pin; others twice | E3; R12 |
/// | `region` | never | all | the ring's making |
/// | `completed` | the thread that takes the completion | all | R9 |
/// | `free` | the same; the opener | openers | R11; the token (R2) |
/// | `sealed_len`, `next_base` | the sealer; the opener resets them | the flusher, the completion; readers (0: not known) | E1; R6 |
/// | `previous` | the opener | the flusher | E3, E1 |
/// | `sealed_at` | the sealer; the opener resets it | the statistics | nothing: a stale time is a wrong number |
/// | `deferred` | the sealer, and the thread that requests the flush | the same; waiting appends, as a hint | R7 |
/// | `latch` | readers and the opener | the same | R5, R6 |
///
/// The bytes: a range is its [`Grant`]'s alone until that is released; then they belong to the [`Flush`], until the
/// device has read them; and meanwhile to readers below what [`copy_stable`](Slot::copy_stable) finds stable.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Slot {
    word: StateWord,
    /// File address of the first byte of this generation. Set before the word opens, so that the thread that is inside
    /// may read it.
    base: AtomicU64,
    /// Which generation is in the slot; generations are counted through the whole ring, from 1. Set like `base`.
    generation: AtomicU64,
    /// What is appended. Here and not behind the arena, so that an append finds it beside the word.
    region: Region,
    pub(super) shadow: Shadow,
    /// The last generation in this slot whose bytes have been written.
    completed: AtomicU64,
    /// Whether the next generation may begin here. That must not be read off the word, where a late arrival's addition
    /// can make a free slot look busy.
    free: AtomicBool,
    /// Bytes of the generation, once it is sealed; until then 0.
    sealed_len: AtomicU32,
    /// Where the next generation begins, once this one is sealed; until then 0. Not used without frames.
    next_base: AtomicU64,
    /// Where the generation before began; [`NONE`] if there was none. Not used without frames.
    previous: AtomicU64,
    /// When it was sealed, in nanoseconds of the ring's clock; until then 0.
    sealed_at: AtomicU64,
    layout: Arc<Layout>,
    pub(crate) deferred: DeferredFlush,
    pub(crate) latch: ReaderLatch,
}

// Checkers' atomics are larger.
#[cfg(not(any(loom, shuttle)))]
const _: () =
    assert!(core::mem::offset_of!(Slot, region) + size_of::<Region>() <= 64, "an append's fields share one line");

/// What became of a reservation.
#[derive(Debug)]
pub(crate) enum Seized<'a> {
    Granted(Grant<'a>),
    /// It did not fit: the caller sealed the buffer, and holds a pin.
    Sealed(PinGuard<'a>),
    /// Too late for this buffer. What the caller owes it comes along.
    Late(Released),
}

impl Slot {
    pub(crate) fn new(arena: &Arc<Arena>, index: usize, layout: &Arc<Layout>) -> Self {
        let start = layout.header_len();
        Self {
            word: StateWord::vacant(),
            base: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            region: arena.region(index).part(start..start + layout.capacity()),
            shadow: Shadow::new(arena.buffer_size()),
            completed: AtomicU64::new(0),
            free: AtomicBool::new(true),
            sealed_len: AtomicU32::new(0),
            next_base: AtomicU64::new(0),
            previous: AtomicU64::new(NONE),
            sealed_at: AtomicU64::new(0),
            layout: Arc::clone(layout),
            deferred: DeferredFlush::new(),
            latch: ReaderLatch::new(),
        }
    }

    /// One without frames.
    #[cfg(test)]
    pub(crate) fn plain(arena: &Arc<Arena>, index: usize) -> Self {
        Self::new(arena, index, &Arc::new(Layout::plain(arena)))
    }

    pub(crate) fn index(&self) -> usize {
        self.region.index()
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.region.len() as u64
    }

    #[inline]
    fn capacity(&self) -> u32 {
        self.region.len() as u32
    }

    /// Seizes `len` bytes.
    #[inline]
    pub(crate) fn reserve(&self, len: u32) -> Seized<'_> {
        match self.word.reserve(len, self.capacity()) {
            Reserve::Granted { start } => Seized::Granted(Grant { slot: self, start, len }),
            Reserve::Sealed { len } => {
                self.sealed_len.store(len, Relaxed);
                Seized::Sealed(PinGuard { slot: self })
            }
            Reserve::Late(released) => Seized::Late(released),
        }
    }

    /// Pins the generation in the slot, without bytes.
    pub(crate) fn pin(&self) -> Option<PinGuard<'_>> {
        self.word.pin().then_some(PinGuard { slot: self })
    }

    /// Takes over the pin that the sealer of `generation` left with the deferred flush, if it is there.
    pub(crate) fn claim_deferred(&self, generation: u64) -> Option<PinGuard<'_>> {
        self.deferred.request(generation).then_some(PinGuard { slot: self })
    }

    /// What a thread owes after it has left: the flush, if it is the one that takes it.
    #[inline]
    pub(crate) fn try_take_flush(&self, released: Released) -> Option<Flush<'_>> {
        match released {
            Released::Flushable(drained) if self.word.try_take_flush(drained) => {
                Some(Flush { slot: self, len: drained.len() })
            }
            _ => None,
        }
    }

    /// The device has read the bytes: this generation is over, and the slot free.
    pub(crate) fn complete(&self, bytes: Frozen) {
        debug_assert_eq!(bytes.index(), self.index());
        self.shadow.read(0..bytes.len() - self.layout.header_len());
        drop(bytes);
        self.word.complete(self.sealed_len.load(Relaxed));
        // ordering: release half of R9.
        self.completed.store(self.generation(), Release);
        // ordering: release half of R11.
        self.free.store(true, Release);
    }

    /// Whether the next generation can begin here. May be out of date, unless the caller holds the rotation token.
    pub(crate) fn is_openable(&self) -> bool {
        self.is_free() && self.word.snapshot().is_vacant() && self.latch.is_free()
    }

    /// Whether the generation in the slot is over.
    pub(crate) fn is_free(&self) -> bool {
        // ordering: acquire half of R11.
        self.free.load(Acquire)
    }

    /// Whether the bytes of `generation` have been written.
    pub(crate) fn has_completed(&self, generation: u64) -> bool {
        // ordering: acquire half of R9.
        self.completed.load(Acquire) >= generation
    }

    /// Begins generation `generation` at file address `base`. `false` if a reader or a late arrival is in the way.
    ///
    /// Only for the holder of the rotation token.
    pub(crate) fn open(&self, generation: u64, base: u64) -> bool {
        if !self.is_free() || !self.latch.try_close() {
            return false;
        }
        self.free.store(false, Relaxed);
        // ordering: release halves of R12, in this order.
        self.generation.store(generation, Release);
        self.base.store(base, Release);
        self.sealed_len.store(0, Relaxed);
        if !self.layout.is_plain() {
            self.next_base.store(0, Relaxed);
        }
        self.sealed_at.store(0, Relaxed);
        self.deferred.open(generation);
        // A reader that comes in from here on finds the new generation, empty, and has no business with the bytes of
        // the old one.
        self.latch.reopen();
        let opened = self.word.reopen();
        if !opened {
            // A late arrival's addition. What was prepared stays, and is prepared again by the next try,
            // which comes by the token.
            self.free.store(true, Relaxed);
        }
        opened
    }

    /// Takes the generation in the slot out of use if it is open, has no bytes, and no thread is inside: it takes none
    /// any more.
    pub(crate) fn retire(&self) -> bool {
        self.word.retire()
    }

    /// Which generation is in the slot. Lasting for the thread that is inside, else it may be out of date.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        // ordering: acquire half of R12.
        self.generation.load(Acquire)
    }

    /// File address of the first byte of the generation in the slot. As lasting as [`generation`](Self::generation).
    #[inline]
    pub(crate) fn base(&self) -> u64 {
        // ordering: acquire half of R12.
        self.base.load(Acquire)
    }

    /// File address of the first byte of the batch, for a thread that is inside.
    #[inline]
    pub(crate) fn batch_base(&self) -> u64 {
        self.base() - self.layout.header_len() as u64
    }

    /// The word as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.word.snapshot()
    }

    /// Bytes of the generation, if it is sealed and the caller is ordered behind its sealer; else perhaps 0.
    pub(crate) fn sealed_len(&self) -> u32 {
        self.sealed_len.load(Relaxed)
    }

    /// Settles where the next generation begins. For the sealer, which is inside, and calls it once.
    pub(crate) fn end_generation(&self) -> u64 {
        let next_base = self.layout.next_base(self.base(), self.sealed_len());
        if !self.layout.is_plain() {
            self.next_base.store(next_base, Relaxed);
        }
        next_base
    }

    /// Where the next generation begins, for a thread that is ordered behind the sealer.
    pub(crate) fn next_base(&self) -> u64 {
        if self.layout.is_plain() { self.base() + self.span(self.sealed_len()) } else { self.next_base.load(Relaxed) }
    }

    /// The address of the batch behind this one, as [`next_base`](Self::next_base).
    pub(crate) fn next_batch(&self) -> u64 {
        self.next_base() - self.layout.header_len() as u64
    }

    /// Bytes from `base` on that belong to the generation if it has `len` bytes: up to the next one if it is sealed.
    fn span(&self, len: u32) -> u64 {
        if self.layout.is_plain() {
            self.layout.batch_len(len)
        } else {
            self.next_base.load(Relaxed).saturating_sub(self.base()).max(u64::from(len))
        }
    }

    /// With frames: notes that the generation to be opened here comes after the one in `before`. `false` if the slot is
    /// not free: its flusher may still have to find what the generation here came after.
    ///
    /// Only for the holder of the rotation token.
    pub(crate) fn follow(&self, before: Option<&Self>) -> bool {
        if self.layout.is_plain() {
            return true;
        }
        let is_free = self.is_free();
        if is_free {
            self.previous.store(before.map_or(NONE, Self::base), Relaxed);
        }
        is_free
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// When the generation was sealed, in nanoseconds of the ring's clock.
    pub(crate) fn sealed_at(&self) -> u64 {
        self.sealed_at.load(Relaxed)
    }

    /// The bytes of the generation that no thread writes any more, all of them from the first on; `None` if a thread
    /// may be writing.
    ///
    /// Only for a reader inside the latch.
    fn stable(&self) -> Option<Stable> {
        let generation = self.generation();
        if self.has_completed(generation) {
            return Some(Stable { len: self.sealed_len(), is_sealed: true });
        }
        let word = self.word.snapshot();
        if word.is_flushing() {
            return Some(Stable { len: self.sealed_len(), is_sealed: true });
        }
        let is_sealed = word.is_sealed();
        // The sealer's pin is there from the seal on, until the flush is requested; it has no bytes.
        let places = u32::from(is_sealed && self.deferred.is_deferred(generation));
        // A sealed word loses its offset when the write comes back, which is before that is known from `completed`.
        let len = || if is_sealed { self.sealed_len() } else { word.offset() };
        (word.writers() == places).then(|| Stable { len: len(), is_sealed })
    }

    /// Copies bytes of the generation from `start` on into `target`, as many as there are and fit; those behind the
    /// end, up to the next block, are zeros. Only for a reader inside the latch.
    pub(crate) fn copy_stable(&self, start: u64, target: &mut [u8]) -> Copied {
        let Some(Stable { len, .. }) = self.stable() else {
            // Where a sealed generation ends is known before its last writers have left.
            let sealed_len = self.sealed_len();
            let end = if sealed_len > 0 { self.span(sealed_len) } else { self.capacity_bytes() };
            return if start < end { Copied::Writing } else { Copied::Beyond };
        };
        let span = self.span(len);
        if start >= span {
            return Copied::Beyond;
        }
        let (start, len) = (start as usize, len as usize);
        let copied = target.len().min(len.saturating_sub(start));
        let padding = (target.len() - copied).min(span as usize - (start + copied));
        target[..copied].copy_from_slice(self.stable_bytes(start..start + copied));
        target[copied..copied + padding].fill(0);
        Copied::Bytes(copied + padding)
    }

    /// Adds to `bytes`, which holds the first bytes of the generation, all further ones that no thread writes any more.
    /// `None`: a thread may be writing. Else the address of the next batch, with frames, if no others will follow.
    ///
    /// Only for a reader inside the latch.
    pub(crate) fn copy_rest(&self, bytes: &mut Vec<u8>) -> Option<Option<u64>> {
        let Stable { len, is_sealed } = self.stable()?;
        let len = len as usize;
        bytes.extend_from_slice(self.stable_bytes(bytes.len().min(len)..len));
        // All that were inside have left, the sealer too, or it has deferred the flush: this is ordered behind both.
        let next = if is_sealed { self.next_base.load(Relaxed) } else { 0 };
        Some((next > 0).then(|| next - self.layout.header_len() as u64))
    }

    /// Bytes of the generation, for a reader inside the latch. They are below what [`stable`](Self::stable) gave
    /// it.
    fn stable_bytes(&self, range: Range<usize>) -> &[u8] {
        self.shadow.read(range.clone());
        // SAFETY: *unwritten*: `stable` saw, at one moment, all threads gone that had been granted a range below
        // its answer, and acquired their release. In this generation no range below it is granted again; the next
        // generation cannot begin while the caller is inside the latch; and a flush only writes behind it.
        unsafe { self.region.bytes(range) }
    }
}

/// Bytes of a generation that no thread writes any more.
#[derive(Clone, Copy, Debug)]
struct Stable {
    /// The first so many.
    len: u32,
    /// Whether no others follow.
    is_sealed: bool,
}

/// What a reader found in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// So many bytes, at least one.
    Bytes(usize),
    /// A thread may be writing in the generation, which the start is in.
    Writing,
    /// The generation ends at or before the start.
    Beyond,
}

/// A range of the buffer that is one thread's alone. Dropping it without [`release`](Self::release) leaks it: the
/// buffer is never flushed.
#[derive(Debug)]
#[must_use]
pub(crate) struct Grant<'a> {
    pub(super) slot: &'a Slot,
    pub(super) start: u32,
    pub(super) len: u32,
}

impl<'a> Grant<'a> {
    #[inline]
    pub(crate) fn slot(&self) -> &'a Slot {
        self.slot
    }

    /// Where the range lies in the file.
    #[inline]
    pub(crate) fn extent(&self) -> Extent {
        Extent::within(self.slot.base() + u64::from(self.start), self.len as usize)
    }

    /// The same, with where its batch begins.
    #[inline]
    pub(crate) fn placement(&self) -> Placement {
        Placement { extent: self.extent(), batch_base: self.slot.batch_base() }
    }

    #[inline]
    fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.slot.shadow.read(self.range());
        // SAFETY: *unwritten*: the word granted this range to this value alone, and `self` is borrowed.
        unsafe { self.slot.region.bytes(self.range()) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.slot.shadow.write(self.range());
        // SAFETY: *exclusive*: the word granted this range to this value alone, and `self` is borrowed mutably. The
        // flusher and the readers wait until this value has left.
        unsafe { self.slot.region.bytes_mut(self.range()) }
    }

    /// Gives the range up, filled.
    #[inline]
    pub(crate) fn release(self) -> Released {
        self.slot.word.release()
    }
}

/// A pin on a buffer, without bytes. As long as it is there, the generation in the slot cannot end.
#[derive(Debug)]
#[must_use]
pub(crate) struct PinGuard<'a> {
    slot: &'a Slot,
}

impl<'a> PinGuard<'a> {
    pub(crate) fn slot(&self) -> &'a Slot {
        self.slot
    }

    /// Seals the buffer, if it is open and not empty.
    pub(crate) fn seal(&self) -> Seal {
        let seal = self.slot.word.seal(self.slot.capacity());
        if let Seal::Sealed { len } = seal {
            self.slot.sealed_len.store(len, Relaxed);
        }
        seal
    }

    /// Notes when the generation was sealed. For the sealer.
    pub(crate) fn note_time(&self, nanos: u64) {
        self.slot.sealed_at.store(nanos, Relaxed);
    }

    pub(crate) fn release(self) -> Released {
        self.slot.word.release()
    }
}

/// The flush of a buffer: from here on to its completion, the buffer is this value's alone.
#[derive(Debug)]
#[must_use]
pub(crate) struct Flush<'a> {
    slot: &'a Slot,
    len: u32,
}

impl<'a> Flush<'a> {
    pub(crate) fn slot(&self) -> &'a Slot {
        self.slot
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Fills what is behind the bytes with zeros, and the frame if there is one, and makes all of it ready for the
    /// device; `None` if the framing has panicked. Everything below `durable`, the base of a generation, is on stable
    /// storage.
    pub(crate) fn freeze(self, durable: u64) -> Option<Frozen> {
        let (slot, len, batch) = (self.slot, self.len as usize, self.slot.region.whole());
        let header_len = slot.layout.header_len();
        let (start, end) = (header_len, slot.layout.batch_len(self.len) as usize);
        slot.shadow.write(len..end - start);
        slot.shadow.read(0..len);
        // SAFETY: *exclusive*: all writers have left, no range is granted in a sealed buffer, or in its frame; readers
        // stay below `len`, and only one thread takes the flush.
        let trailer = unsafe { batch.bytes_mut(start + len..end) };
        trailer.fill(0);
        if let Some(framing) = slot.layout.framing() {
            // SAFETY: *exclusive*: as above; the trailer begins behind it.
            let header = unsafe { batch.bytes_mut(0..start) };
            // SAFETY: *unwritten*: as above, and between the two.
            let payload = unsafe { batch.bytes(start..start + len) };
            let info = self.info(durable);
            if events::shield(|| framing.seal(&info, header, payload, trailer)) {
                return None;
            }
        }
        // SAFETY: *quiet*: the next writer comes after `reopen`, which follows `complete`, which drops the answer
        // first.
        Some(unsafe { batch.freeze(end) })
    }

    fn info(&self, durable: u64) -> BatchInfo {
        let (slot, header_len) = (self.slot, self.slot.layout.header_len() as u64);
        let (previous, next) = (slot.previous.load(Relaxed), slot.next_batch());
        BatchInfo {
            base: slot.batch_base(),
            generation: slot.generation(),
            previous: (previous != NONE).then(|| previous - header_len),
            next,
            last: slot.layout.opens_segment(next),
            durable: durable - header_len,
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use ring_alloc::BLOCK;

    use super::*;

    /// The first generation of a buffer of one block, at address 0.
    fn open() -> Slot {
        let slot = Slot::plain(&Arc::new(Arena::new(1, BLOCK).expect("a valid arena")), 0);
        assert!(slot.open(1, 0));
        slot
    }

    fn granted(slot: &Slot, len: u32) -> Grant<'_> {
        let Seized::Granted(mut grant) = slot.reserve(len) else { panic!("there is room") };
        grant.bytes_mut().fill(7);
        grant
    }

    #[test]
    fn a_slot_can_be_opened_when_its_generation_is_over_and_no_reader_is_inside() {
        let slot = Slot::plain(&Arc::new(Arena::new(1, BLOCK).expect("a valid arena")), 0);
        assert!(slot.is_openable());
        assert!(slot.latch.try_acquire() && !slot.is_openable());
        assert!(slot.latch.release() && slot.is_openable());
        assert!(slot.open(1, 0) && !slot.is_openable() && !slot.is_free());
        assert!(!slot.open(2, 4096) && slot.generation() == 1);
        let pin = slot.pin().expect("it is open");
        assert_eq!(granted(&slot, 8).release(), Released::Pending);
        assert_eq!(pin.seal(), Seal::Sealed { len: 8 });
        let bytes = slot.try_take_flush(pin.release()).expect("no thread is inside").freeze(0).expect("no framing");
        assert!(!slot.is_openable() && !slot.has_completed(1));
        slot.complete(bytes);
        assert!(slot.is_openable() && slot.has_completed(1) && !slot.has_completed(2));
    }

    #[test]
    fn what_a_thread_may_be_writing_is_not_read_in_whatever_state_the_buffer_is() {
        for (sealed, deferred) in [(false, false), (true, false), (true, true)] {
            let slot = open();
            let look = |start| slot.copy_stable(start, &mut [0; 16]);
            let grant = granted(&slot, 8);
            if sealed {
                let pin = slot.pin().expect("it is open");
                assert_eq!(pin.seal(), Seal::Sealed { len: 8 });
                // A pin that is left with the deferred flush is not released.
                if deferred {
                    // The pin stays there.
                    assert!(slot.deferred.defer(1));
                } else {
                    assert_eq!(pin.release(), Released::Pending);
                }
            }
            assert_eq!((look(0), look(4095), look(4096)), (Copied::Writing, Copied::Writing, Copied::Beyond));
            let _ = grant.release();
            let mut target = [1; 16];
            assert_eq!(slot.copy_stable(0, &mut target), Copied::Bytes(16), "{sealed} {deferred}");
            assert_eq!(target, [[7; 8], [0; 8]].concat()[..]);
            assert_eq!((look(4088), look(4096)), (Copied::Bytes(8), Copied::Beyond));
        }
    }
}
