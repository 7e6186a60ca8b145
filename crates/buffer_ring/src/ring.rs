//! The ring: slots, rotation, device and waiters put together, and the path of an append through them.

use core::time::Duration;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use ring_alloc::{Arena, is_aligned};
use ring_io::{AttachError, Finished};
use ring_state::Duty;

use crate::device::{self, Device, WriteQueue};
use crate::durability::Durability;
use crate::error::TimedOut;
use crate::rotation::{Life, Rotated, Rotation, Target};
use crate::slot::{Grant, Inside, Seized, Slot};
use crate::stats::Counters;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, Mutex, Ordering, spin_loop};
use crate::waiters::Waiters;
use crate::{
    AppendError, BufferHandle, BufferRingOptions, Extent, FlushTicket, OptionsError, ReadError, Reservation, RingError,
    RingStats, RotateError,
};

/// A latch-free ring of buffers between many appending threads and one file.
///
/// All methods but [`close`](Self::close) take `&self`: share the ring by reference or in an [`Arc`](std::sync::Arc). What an
/// append does, and when its bytes are durable, is told in the [crate documentation](crate).
///
/// Dropping the ring flushes what it can, without a sync, and waits for all I/O in flight; [`close`](Self::close) does the same
/// with a sync, and tells how it went.
#[derive(Debug)]
pub struct BufferRing {
    core: Arc<Core>,
}

/// How often a thread looks whether another one is just about to open the next buffer.
const GLANCES: usize = if cfg!(loom) { 0 } else { 64 };

/// How long a thread that finds the ring full will wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Never,
    Forever,
    Until(Instant),
}

/// What the ring, its tickets and its handles share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) rotation: Rotation,
    buffer_size: usize,
    auto_flush: bool,
    auto_rotate: bool,
    /// Whether `failure` is set; read by every append.
    poisoned: AtomicBool,
    failure: Mutex<Option<RingError>>,
    pub(crate) durability: Durability,
    pub(crate) counters: Counters,
    pub(crate) waiters: Waiters,
    pub(crate) device: Device,
    /// The driver role: whoever has it takes finished writes from the device. With it comes the scratch space for them.
    pub(crate) driver: Mutex<Vec<Finished>>,
}

impl BufferRing {
    /// A ring with these parts.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is wrong, where [`try_with_options`](Self::try_with_options) gives an error.
    #[must_use]
    pub fn with_options(options: BufferRingOptions) -> Self {
        match Self::try_with_options(options) {
            Ok(ring) => ring,
            Err(error) => panic!("invalid options for a buffer ring: {error}"),
        }
    }

    /// A ring with these parts.
    ///
    /// On a file with content the log begins behind it, at the next multiple of 4096 (or where the builder of the
    /// [`QuikIO`](crate::QuikIO) said); that content is synced first, so that the durable watermark, which begins there, tells
    /// the truth.
    ///
    /// # Errors
    ///
    /// [`OptionsError`]: sizes out of range, no memory, a file that cannot hold a log, a `QuikIO` that already serves a ring.
    pub fn try_with_options(options: BufferRingOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let BufferRingOptions { capacity, buffer_size, io_instance, auto_flush, auto_rotate } = options;
        let arena = Arc::new(Arena::new(capacity, buffer_size).map_err(OptionsError::Memory)?);
        let (start, queue) = match io_instance {
            None => (0, None),
            Some(io) => {
                let queue = device::attach(&io, &arena).map_err(OptionsError::Device)?;
                let start = io.start().map_err(|error| OptionsError::Device(AttachError::File(error)))?;
                if start > 0 {
                    io.sync().map_err(OptionsError::Sync)?;
                }
                (start, Some(queue))
            }
        };
        debug_assert!(is_aligned(start));
        Ok(Self::assemble(&arena, auto_flush, auto_rotate, start, queue))
    }

    pub(crate) fn assemble(
        arena: &Arc<Arena>,
        auto_flush: bool,
        auto_rotate: bool,
        start: u64,
        queue: Option<WriteQueue>,
    ) -> Self {
        let core = Core {
            slots: (0..arena.count()).map(|index| Slot::new(arena, index)).collect(),
            rotation: Rotation::new(start),
            buffer_size: arena.buffer_size(),
            auto_flush,
            auto_rotate,
            poisoned: AtomicBool::new(false),
            failure: Mutex::new(None),
            durability: Durability::new(start),
            counters: Counters::new(),
            waiters: Waiters::new(),
            device: Device::new(queue),
            driver: Mutex::new(Vec::new()),
        };
        core.advance();
        Self { core: Arc::new(core) }
    }

    /// Copies `payload` into the log. Waits while the ring is full.
    ///
    /// The bytes are staged when it returns, not durable: see [`wait_durable`](Self::wait_durable) and
    /// [`append_durable`](Self::append_durable).
    ///
    /// # Errors
    ///
    /// [`AppendError`]; nothing was appended then. Without `auto_flush` it does not wait for a flush that nobody has asked for:
    /// that is [`AppendError::RingFull`].
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.append(payload, Patience::Forever)
    }

    /// Copies `payload` into the log without ever waiting.
    ///
    /// # Errors
    ///
    /// [`AppendError::RingFull`] if no buffer is free at this moment, and the others of [`append`](Self::append).
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        self.core.append(payload, Patience::Never)
    }

    /// Copies `payload` into the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`AppendError::TimedOut`], and the others of [`append`](Self::append). Without `auto_flush` it does wait for other threads to
    /// ask for the flush.
    pub fn append_timeout(&self, payload: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        self.core.append(payload, until(timeout))
    }

    /// Copies several parts into the log as one contiguous extent. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append), for the parts together.
    pub fn append_vectored(&self, parts: &[IoSlice<'_>]) -> Result<Extent, AppendError> {
        let len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        self.core.append_with(len, Patience::Forever, |mut target| {
            for part in parts {
                let (head, rest) = target.split_at_mut(part.len());
                head.copy_from_slice(part);
                target = rest;
            }
        })
    }

    /// Copies `payload` into the log, and returns when it is on stable storage: [`append`](Self::append) and
    /// [`wait_durable`](Self::wait_durable) in one.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append). [`AppendError::Poisoned`] may also mean that the bytes were staged, and not made durable.
    pub fn append_durable(&self, payload: &[u8]) -> Result<Extent, AppendError> {
        let extent = self.append(payload)?;
        self.wait_durable(extent.end()).map_err(AppendError::Poisoned)?;
        Ok(extent)
    }

    /// Reserves `len` zeroed bytes of the log, to encode into in place. Waits while the ring is full.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, Patience::Forever)
    }

    /// Reserves `len` zeroed bytes of the log without ever waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_append`](Self::try_append).
    pub fn try_reserve(&self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, Patience::Never)
    }

    /// Reserves `len` zeroed bytes of the log. Waits while the ring is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`append_timeout`](Self::append_timeout).
    pub fn reserve_timeout(&self, len: usize, timeout: Duration) -> Result<Reservation<'_>, AppendError> {
        self.core.reserve(len, until(timeout))
    }

    /// The buffer that appends go to now. Looking changes nothing; the answer may be out of date at once, and stays bound to this
    /// life of the buffer.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
    /// # ring.append(b"record")?;
    /// let current = ring.current_buffer(Ordering::Acquire);
    /// if current.is_sealed() { ring.flush(&current); }   // looking never changes anything
    /// ring.flush(&current);                              // seals it first when it is still open
    /// # assert!(current.is_sealed() && current.is_written());
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `ordering` is `Release` or `AcqRel`, which no load has.
    #[must_use]
    pub fn current_buffer(&self, ordering: Ordering) -> BufferHandle {
        assert!(!matches!(ordering, Ordering::Release | Ordering::AcqRel), "there is no {ordering:?} load");
        BufferHandle::new(Arc::clone(&self.core), self.core.rotation.current_with(ordering))
    }

    /// Sees to it that this life of the buffer is written: seals it if it is still open, and has it written when the last writer
    /// has left. Does not wait; the ticket can.
    ///
    /// An empty buffer, and one that has been written, need nothing: a flush through a stale handle never touches a later life.
    ///
    /// ```
    /// # use std::sync::atomic::Ordering;
    /// # use buffer_ring::{BufferRing, BufferRingOptions};
    /// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
    /// # ring.append(b"record")?;
    /// # let my_buffer = ring.current_buffer(Ordering::Acquire);
    /// ring.flush(&my_buffer);
    /// # assert_eq!(ring.flush(&my_buffer).wait(), Ok(()));
    /// # assert_eq!(ring.stats().buffers_flushed, 1);
    /// # Ok::<(), buffer_ring::AppendError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the handle is of another ring.
    pub fn flush(&self, buffer: &BufferHandle) -> FlushTicket {
        assert!(buffer.is_of(&self.core), "the buffer belongs to another ring");
        let life = buffer.life();
        let has_bytes = self.core.seal_and_flush(life);
        FlushTicket::new(Arc::clone(&self.core), has_bytes.then_some(life))
    }

    /// Makes the next buffer of the ring current, and seals the present one if it is still open. An open buffer without bytes stays
    /// current: it is as good as the next.
    ///
    /// Only a ring without `auto_rotate` has to be told.
    ///
    /// # Errors
    ///
    /// [`RotateError::RingFull`] if the next buffer is not free; nothing was sealed, unless a write to the buffer raced.
    pub fn rotate(&self) -> Result<(), RotateError> {
        self.core.rotate()
    }

    /// Makes everything that was appended before the call durable, and gives the durable watermark.
    ///
    /// Waits for reservations that are held in the buffers concerned.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring.
    pub fn sync(&self) -> Result<u64, RingError> {
        self.core.sync(None)
    }

    /// Like [`sync`](Self::sync), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn sync_timeout(&self, timeout: Duration) -> Result<u64, RingError> {
        self.core.sync(deadline(timeout))
    }

    /// Returns when the durable watermark has reached `address`, usually an [`Extent::end`]. Flushes and syncs what that needs, so
    /// that it does not depend on anybody else's flush.
    ///
    /// Waits for reservations that are held in the buffers concerned, the caller's own included.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::NotAppended`] if the address is beyond the tail.
    pub fn wait_durable(&self, address: u64) -> Result<(), RingError> {
        self.core.wait_durable(address, None)
    }

    /// Like [`wait_durable`](Self::wait_durable), but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Also [`RingError::TimedOut`]; what was asked for still goes on.
    pub fn wait_durable_timeout(&self, address: u64, timeout: Duration) -> Result<(), RingError> {
        self.core.wait_durable(address, deadline(timeout))
    }

    /// Every byte of the log below this address is on stable storage. Only grows, and never past a hole.
    #[must_use]
    pub fn durable_watermark(&self) -> u64 {
        self.core.durability.durable()
    }

    /// Every byte of the log below this address has been written to the device, which may not have synced it. Only grows.
    #[must_use]
    pub fn written_watermark(&self) -> u64 {
        self.core.durability.written()
    }

    /// The address that the next append will get, if no other thread comes first, and it fits the buffer.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.core.tail()
    }

    /// Fills the first `extent.len()` bytes of `target` with the bytes of the log there, and gives their number.
    ///
    /// They come from memory while their buffer is still there, else from the file; the answer is the same. After a failure of the
    /// device, whatever is in memory can still be read. Addresses that nobody wrote, such as the padding between buffers, read as
    /// zeros.
    ///
    /// While other threads are appending to the same buffer, it may have to be sealed and waited for; so a thread must not hold a
    /// [`Reservation`] near an extent that it reads.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn read(&self, extent: Extent, target: &mut [u8]) -> Result<usize, ReadError> {
        self.core.read(extent, target)
    }

    /// The error that poisoned the ring, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<RingError> {
        self.core.poisoned()
    }

    /// What the ring has done so far. A sum of counters that move on while they are read.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.core.stats()
    }

    /// Makes everything durable, waits for all I/O, and gives the durable watermark, at which the log ends.
    ///
    /// # Errors
    ///
    /// The [`RingError`] that poisoned the ring; [`RingError::ReservationLeaked`] if a forgotten reservation holds the rest back.
    /// In each case all I/O in flight has ended.
    pub fn close(self) -> Result<u64, RingError> {
        let flushed = self.core.flush_everything();
        if let Some(address) = self.core.leaked() {
            self.core.drain();
            self.core.sync_written(None)?;
            return Err(RingError::ReservationLeaked(address));
        }
        let durable = self.core.wait_life_durable(flushed, None);
        self.core.drain();
        durable
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        self.core.flush_everything();
        self.core.drain();
        // What a leaked reservation held back is lost; nobody may wait for it.
        self.core.device.close();
        self.core.durability.close();
        self.core.waiters.wake();
    }
}

impl Core {
    fn append(&self, payload: &[u8], patience: Patience) -> Result<Extent, AppendError> {
        self.append_with(payload.len(), patience, |target| target.copy_from_slice(payload))
    }

    /// Reserves, fills, leaves. `fill` must not panic: the range would be leaked.
    #[inline]
    fn append_with(&self, len: usize, patience: Patience, fill: impl FnOnce(&mut [u8])) -> Result<Extent, AppendError> {
        let mut grant = self.seize(len, patience)?;
        fill(grant.bytes_mut());
        let extent = grant.extent();
        self.leave(grant);
        self.counters.appended(len);
        Ok(extent)
    }

    fn reserve(&self, len: usize, patience: Patience) -> Result<Reservation<'_>, AppendError> {
        Ok(Reservation::new(self, self.seize(len, patience)?))
    }

    /// Seizes `len` bytes of the current buffer, or of a later one if it is full.
    #[inline]
    fn seize(&self, len: usize, patience: Patience) -> Result<Grant<'_>, AppendError> {
        if len == 0 {
            return Err(AppendError::Empty);
        }
        if len > self.buffer_size {
            return Err(AppendError::TooLarge { len, max: self.buffer_size });
        }
        loop {
            if self.poisoned.load(Relaxed) {
                return Err(self.poison_error());
            }
            let seen = self.rotation.current();
            match self.slots[seen.slot()].reserve(len as u32) {
                Seized::Granted(grant) => {
                    // Granted in a life that its opener has not published yet: the caller's next look has to find it.
                    if grant.slot().generation() != seen.generation() {
                        self.rotation.publish(Life::new(grant.slot().generation(), seen.slot()));
                    }
                    return Ok(grant);
                }
                Seized::Sealed(inside) => self.after_seal(inside, patience, seen)?,
                Seized::Late(duty) => self.after_late(duty, patience, seen)?,
            }
        }
    }

    /// Ends a granted range.
    #[inline]
    pub(crate) fn leave(&self, grant: Grant<'_>) {
        let slot = grant.slot();
        self.pay(slot, grant.leave());
    }

    /// Does what a thread owes after it has left `slot`.
    #[inline]
    pub(crate) fn pay(&self, slot: &Slot, duty: Duty) {
        if let Duty::Flush(quiet) = duty
            && let Some(flush) = slot.take_flush(quiet)
        {
            self.dispatch(flush);
        }
    }

    #[cold]
    fn after_seal(&self, inside: Inside<'_>, patience: Patience, seen: Life) -> Result<(), AppendError> {
        self.finish_seal(inside);
        // Even if the buffer has opened again in place: whether a full buffer is told must not depend on the device's speed.
        if !self.auto_rotate {
            return Err(AppendError::Sealed);
        }
        self.wait_for_room(patience, seen)
    }

    #[cold]
    fn after_late(&self, duty: Duty, patience: Patience, seen: Life) -> Result<(), AppendError> {
        self.pay(&self.slots[seen.slot()], duty);
        self.advance();
        self.wait_for_room(patience, seen)
    }

    /// Waits until the current life is another than `seen`, as long as `patience` lasts.
    fn wait_for_room(&self, patience: Patience, seen: Life) -> Result<(), AppendError> {
        let rotated = || self.rotation.current() != seen;
        // Another thread may be between sealing and opening.
        let mut tries = 0;
        while !rotated() && tries < GLANCES && self.rotation.has_room(&self.slots, self.target()) {
            spin_loop();
            tries += 1;
        }
        if rotated() {
            return Ok(());
        }
        if !self.auto_rotate {
            return Err(AppendError::Sealed);
        }
        // A write that has finished may be all that is missing.
        self.drive(ring_io::Wait::No);
        if rotated() {
            return Ok(());
        }
        let deadline = match patience {
            Patience::Never => return Err(AppendError::RingFull),
            Patience::Forever => None,
            Patience::Until(deadline) => Some(deadline),
        };
        let look = || {
            if rotated() {
                Some(Ok(()))
            } else if self.poisoned.load(Acquire) {
                Some(Err(self.poison_error()))
            } else if patience == Patience::Forever && self.next_is_held(seen) {
                Some(Err(AppendError::RingFull))
            } else {
                None
            }
        };
        let start = Instant::now();
        // A ring that stays full for so long may be so because of a forgotten reservation.
        let suspicious = start + Duration::from_secs(1);
        let mut outcome = self.wait_until(Some(deadline.map_or(suspicious, |deadline| deadline.min(suspicious))), look);
        if outcome.is_err() && deadline.is_none_or(|deadline| deadline > suspicious) {
            self.warn_of_stall();
            outcome = self.wait_until(deadline, look);
        }
        self.counters.waited_for_room(start.elapsed());
        match outcome {
            Ok(outcome) => outcome,
            Err(TimedOut) => Err(AppendError::TimedOut),
        }
    }

    /// Without `auto_flush`: whether the slot after `seen` waits for a flush that nobody has asked for.
    fn next_is_held(&self, seen: Life) -> bool {
        let next = &self.slots[Rotation::target(seen, &self.slots, Target::Next)];
        !self.auto_flush && next.hold.is_held(next.generation())
    }

    /// The sealer's part: tells where the next life begins, has it opened, and leaves, or deposits its place for a later flush.
    pub(crate) fn finish_seal(&self, inside: Inside<'_>) {
        let slot = inside.slot();
        let (generation, base, len) = (slot.generation(), slot.base(), slot.sealed_len());
        inside.note_time(self.counters.now());
        tracing::trace!(generation, base, len, "sealed");
        let next_base = base + ring_alloc::round_up(u64::from(len));
        self.rotation.hand_over(Life::new(generation, slot.index()), next_base);
        self.advance();
        if !self.auto_flush && slot.hold.deposit(generation) {
            // Who waits for room may have to give up now.
            self.waiters.wake();
        } else {
            self.pay(slot, inside.leave());
        }
    }

    /// Opens the next life if that is due and possible; to be called by whoever has removed an obstacle.
    pub(crate) fn advance(&self) {
        self.advance_to(self.target());
    }

    fn advance_to(&self, target: Target) -> bool {
        match self.rotation.advance(&self.slots, target) {
            Rotated::Opened(life) => {
                tracing::trace!(generation = life.generation(), slot = life.slot(), "opened");
                self.waiters.wake();
                true
            }
            Rotated::Exhausted => {
                self.poison(RingError::AddressesExhausted);
                false
            }
            Rotated::No => false,
        }
    }

    /// Where the rotation goes by itself.
    fn target(&self) -> Target {
        if self.auto_rotate { Target::Next } else { Target::Same }
    }

    fn rotate(&self) -> Result<(), RotateError> {
        if self.poisoned.load(Acquire) {
            return Err(RotateError::Poisoned(self.failure()));
        }
        let seen = self.rotation.current();
        let slot = &self.slots[seen.slot()];
        let word = slot.snapshot();
        if !word.is_sealed() && word.offset() == 0 {
            return Ok(());
        }
        if !self.rotation.has_room(&self.slots, Target::Next) {
            self.drive(ring_io::Wait::No);
        }
        if self.rotation.current() == seen && !self.rotation.has_room(&self.slots, Target::Next) {
            return Err(RotateError::RingFull);
        }
        self.seal(seen);
        if self.advance_to(Target::Next) || self.rotation.current() != seen {
            return Ok(());
        }
        // While this thread had the token, the buffer may have become free to open in place.
        self.advance();
        if self.rotation.current() == seen { Err(RotateError::RingFull) } else { Ok(()) }
    }

    pub(crate) fn auto_flush(&self) -> bool {
        self.auto_flush
    }

    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// Keeps the first error, and lets everybody who waits know.
    #[cold]
    pub(crate) fn poison(&self, error: RingError) {
        {
            let mut failure = self.failure.lock();
            if failure.is_some() {
                return;
            }
            tracing::error!(%error, "the ring is poisoned");
            *failure = Some(error);
            self.poisoned.store(true, Release);
        }
        self.waiters.wake();
    }

    pub(crate) fn poisoned(&self) -> Option<RingError> {
        self.poisoned.load(Acquire).then(|| self.failure())
    }

    fn failure(&self) -> RingError {
        self.failure.lock().clone().expect("set before the flag")
    }

    #[cold]
    fn poison_error(&self) -> AppendError {
        AppendError::Poisoned(self.failure())
    }

    pub(crate) fn tail(&self) -> u64 {
        loop {
            let slot = &self.slots[self.rotation.current().slot()];
            let generation = slot.generation();
            let word = slot.snapshot();
            let base = slot.base();
            if slot.generation() != generation {
                spin_loop();
                continue;
            }
            let next_base = self.rotation.next_base();
            let end = base + u64::from(word.offset()).min(self.buffer_size as u64);
            return match word.is_sealed() {
                // An offset beyond the end is a crosser's, whose buffer is full up to its last block.
                false => end,
                true if next_base > base => next_base,
                // The sealer is about to publish it.
                true => ring_alloc::round_up(end),
            };
        }
    }

    /// Address of the first byte that a leaked reservation holds back. Only when the ring is about to go, and nobody is inside.
    fn leaked(&self) -> Option<u64> {
        let stuck = |slot: &&Slot| !slot.is_free() && !slot.snapshot().is_flushing() && slot.snapshot().writers() > 0;
        self.slots.iter().filter(stuck).map(Slot::base).min()
    }
}

fn deadline(timeout: Duration) -> Option<Instant> {
    // A time so long that it cannot be told is for ever.
    Instant::now().checked_add(timeout)
}

fn until(timeout: Duration) -> Patience {
    deadline(timeout).map_or(Patience::Forever, Patience::Until)
}
