//! The atomic word: one method per transition. The only file of the crate that spells an `Ordering`.

use core::fmt;

use crate::layout::{FLUSHING, MAX_CAPACITY, MAX_OPTIMISTIC_LEN, SEALED, WRITER, bytes};
use crate::snapshot::{Drained, Fit, Snapshot};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicUsize, const_unless_loom};

/// What [`StateWord::reserve`] decided for its caller.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The bytes from `start` are yours. Release exactly once.
    Granted {
        /// Offset of the first byte in the buffer.
        start: u32,
    },
    /// They did not fit, and you sealed the buffer, which holds `len` bytes. You still hold a pin: release exactly
    /// once.
    Sealed {
        /// Bytes in the buffer; 0 never happens to a reservation that would fit an empty buffer.
        len: u32,
    },
    /// The buffer is sealed, or about to be: go to the next one. You hold no pin.
    Late(Released),
}

/// What a thread has left behind: a flush that may have become due.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Nothing to do: another thread is still inside, or the buffer is open.
    Pending,
    /// The buffer was left drained: try to take the flush. If that fails, another thread has done so or will.
    Flushable(Drained),
}

/// What [`StateWord::seal`] found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// You sealed the buffer, which holds `len` bytes.
    Sealed {
        /// Bytes in the buffer, at least 1.
        len: u32,
    },
    /// Nothing has been reserved; the buffer stays open.
    Empty,
    /// Another thread has sealed it, or has overflowed it and is about to.
    Already,
}

/// The state of one buffer.
pub struct StateWord(pub(crate) AtomicUsize);

impl StateWord {
    const_unless_loom! {
        /// The word of a buffer that waits for its first [`reopen`](Self::reopen).
        #[must_use]
        pub fn vacant() -> Self {
            Self(AtomicUsize::new(SEALED))
        }
    }

    /// The word as it is now; it may have changed when you look at it.
    ///
    /// It acquires what the last threads to leave released, so that a thread which keeps the generation from ending by
    /// other means may read the bytes below [`Snapshot::offset`] if the snapshot shows no writer inside.
    #[must_use]
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.load(Acquire))
    }

    /// Seizes `len` bytes of a buffer of `capacity` bytes.
    ///
    /// One load and one addition when `len` is at most [`MAX_OPTIMISTIC_LEN`], a compare-exchange loop for longer ones.
    /// Both decide the same. The loop is lock-free: each failure is another thread's success.
    ///
    /// # Panics
    ///
    /// In debug builds, if `len` is 0 or above `capacity`, or `capacity` above [`MAX_CAPACITY`].
    #[inline]
    pub fn reserve(&self, len: u32, capacity: u32) -> Reserve {
        debug_assert!(0 < len && len <= capacity && capacity <= MAX_CAPACITY);
        // A stale word costs an addition that is undone, or a compare-exchange that fails.
        let seen = Snapshot(self.0.load(Relaxed));
        // At most the capacity, too, on which `has_room` relies.
        if len <= MAX_OPTIMISTIC_LEN.min(capacity) && seen.has_room(len, capacity) {
            self.reserve_optimistically(len, capacity)
        } else {
            // Also when it will not fit: then the exchange seals.
            self.reserve_exactly(len, capacity, seen)
        }
    }

    #[inline]
    pub(crate) fn reserve_optimistically(&self, len: u32, capacity: u32) -> Reserve {
        // ordering: acquire half of E3.
        let before = Snapshot(self.0.fetch_add(WRITER + bytes(len), Acquire));
        if before.has_room(len, capacity) {
            Reserve::Granted { start: before.offset() }
        } else {
            self.handle_overflow(before, len, capacity)
        }
    }

    /// What becomes of an addition that may have run over the end.
    #[cold]
    fn handle_overflow(&self, before: Snapshot, len: u32, capacity: u32) -> Reserve {
        match before.classify(len, capacity) {
            // The crowd came between the look and the addition.
            Fit::Granted => Reserve::Granted { start: before.offset() },
            Fit::Overflow => {
                // Until this instruction the offset stays beyond the capacity, so that no other thread can cross or
                // seal.
                self.0.fetch_add(SEALED.wrapping_sub(bytes(len)), Relaxed);
                Reserve::Sealed { len: before.offset() }
            }
            Fit::Late => Reserve::Late(self.undo(len)),
        }
    }

    #[inline]
    fn reserve_exactly(&self, len: u32, capacity: u32, mut seen: Snapshot) -> Reserve {
        loop {
            let (next, outcome) = match seen.would_fit(len, capacity) {
                Fit::Granted => (seen.granted(len), Reserve::Granted { start: seen.offset() }),
                Fit::Overflow => (seen.pinned().sealed(), Reserve::Sealed { len: seen.offset() }),
                Fit::Late => return Reserve::Late(Released::Pending),
            };
            // ordering: acquire half of E3.
            match self.0.compare_exchange_weak(seen.0, next.0, Acquire, Relaxed) {
                Ok(_) => return outcome,
                Err(now) => seen = Snapshot(now),
            }
        }
    }

    /// Takes back an addition, all of it in one instruction: no writers means that no undo is pending.
    #[inline]
    fn undo(&self, len: u32) -> Released {
        let change = WRITER + bytes(len);
        Self::released(Snapshot(self.0.fetch_sub(change, Relaxed) - change))
    }

    /// Pins the buffer without seizing bytes. As long as the pin is held, this generation of the buffer cannot end.
    ///
    /// `false` if the generation has already come to its flush; then nothing is pinned.
    #[must_use]
    pub fn pin(&self) -> bool {
        let mut seen = Snapshot(self.0.load(Relaxed));
        while seen.admits() {
            // ordering: acquire half of E3.
            match self.0.compare_exchange_weak(seen.0, seen.pinned().0, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = Snapshot(now),
            }
        }
        false
    }

    /// Seals the buffer on request. The caller must hold a pin, and keeps it whatever the answer.
    ///
    /// # Panics
    ///
    /// In debug builds, if no writer is inside.
    pub fn seal(&self, capacity: u32) -> Seal {
        let mut seen = Snapshot(self.0.load(Relaxed));
        loop {
            debug_assert!(seen.writers() > 0, "seal from outside: {seen:?}");
            if seen.is_sealed() || seen.offset() > capacity {
                return Seal::Already;
            }
            if seen.offset() == 0 {
                return Seal::Empty;
            }
            match self.0.compare_exchange_weak(seen.0, seen.sealed().0, Relaxed, Relaxed) {
                Ok(_) => return Seal::Sealed { len: seen.offset() },
                Err(now) => seen = Snapshot(now),
            }
        }
    }

    /// Leaves: after a granted range has been filled, after sealing, after entering.
    ///
    /// # Panics
    ///
    /// In debug builds, if no writer is inside.
    #[inline]
    pub fn release(&self) -> Released {
        // ordering: release half of E1.
        let before = Snapshot(self.0.fetch_sub(WRITER, Release));
        debug_assert!(before.writers() > 0, "release from outside: {before:?}");
        Self::released(Snapshot(before.0 - WRITER))
    }

    #[inline]
    fn released(left: Snapshot) -> Released {
        left.drained().map_or(Released::Pending, Released::Flushable)
    }

    /// Tries to become the one that flushes. From `true` until [`complete`](Self::complete) the bytes are the caller's.
    ///
    /// A compare-exchange from exactly the word that was seen: an unconditional "set the bit" could land on a later
    /// generation. If the exchange fails, a writer has come in meanwhile and will see the buffer drained again, or has
    /// taken the flush.
    #[must_use]
    pub fn try_take_flush(&self, drained: Drained) -> bool {
        // ordering: acquire half of E1.
        self.0.compare_exchange(drained.0.0, drained.0.flushing().0, Acquire, Relaxed).is_ok()
    }

    /// Ends the flush of `len` bytes: the buffer is vacant, apart from late arrivals that have not undone their
    /// addition.
    ///
    /// # Panics
    ///
    /// In debug builds, if no flush is under way, or its length is not `len`.
    pub fn complete(&self, len: u32) {
        // ordering: release half of E2.
        let before = Snapshot(self.0.fetch_sub(FLUSHING + bytes(len), Release));
        debug_assert!(before.is_flushing() && before.offset() >= len, "complete({len}) of {before:?}");
    }

    /// Takes an open buffer out of use that has no bytes: it is vacant again. `false` if a thread is inside, bytes were
    /// reserved, or it is not open.
    #[must_use]
    pub fn retire(&self) -> bool {
        // ordering: acquire half of E3.
        self.0.compare_exchange(0, SEALED, Acquire, Relaxed).is_ok()
    }

    /// Begins the next generation. `false` if the word is not exactly vacant, for instance because a late arrival is
    /// about to undo its addition.
    #[must_use]
    pub fn reopen(&self) -> bool {
        // ordering: acquire half of E2, release half of E3.
        self.0.compare_exchange(SEALED, 0, AcqRel, Relaxed).is_ok()
    }
}

impl fmt::Debug for StateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}
