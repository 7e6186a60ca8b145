//! Reading back: from memory while the buffer is there, else from the file.

use ring_io::events;

use crate::error::ReadError;
use crate::extent::Extent;
use crate::ring::core::Core;
use crate::staging::rotation::BufferId;
use crate::staging::slot::{Copied, Slot};
use crate::sync::{Backoff, spin_loop, yield_now};

/// How often a reader looks for a moment without writers before it has the buffer sealed.
const LOOKS: usize = if cfg!(shuttle) { 4 } else { 200 };

/// How often it looks where it cannot wait: some tenths of a second beside threads that copy.
const PATIENT_LOOKS: usize = 1 << 20;

/// After so many of them it sleeps once: a writer may be waiting for this thread's processor, and have a lower
/// priority.
const LOOKS_AWAKE: usize = 1 << 12;

/// What a slot has to do with an address.
enum Found {
    /// The bytes: so many.
    Bytes(usize),
    /// The address is in this generation, and a thread may be writing there.
    Writing(BufferId),
    /// The generation in the slot begins later, at this address.
    Later(u64),
    /// Nothing.
    Nothing,
}

/// What [`BufferRing::peek`](crate::BufferRing::peek) finds of a batch in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peek {
    /// All that is appended to it so far was added. `next` is where the batch behind it begins; `None`: more may come.
    Bytes {
        /// The address of the next batch.
        next: Option<u64>,
    },
    /// A thread may be writing in it, so that nothing was added.
    Writing,
    /// It has not begun.
    NotBegun,
    /// Its buffer is in use again: it has been written to the device, which may not have synced it.
    Written,
}

impl Core {
    /// Which batch is at `base`, and what it has behind the first `bytes`.
    pub(crate) fn peek(&self, base: u64, bytes: &mut Vec<u8>) -> Result<Peek, ReadError> {
        if self.is_inherited() {
            return Err(ReadError::Forked);
        }
        let mut is_later_there = false;
        for slot in self.staging.slots() {
            let found = self.within_latch(slot, || {
                let begins = (slot.generation() > 0).then(|| slot.batch_base());
                is_later_there |= begins.is_some_and(|begins| begins > base);
                (begins == Some(base)).then(|| {
                    let copied = slot.copy_rest(bytes).or_else(|| {
                        // Writers may be idle.
                        self.revoke_leases(slot);
                        slot.copy_rest(bytes)
                    });
                    copied.map_or(Peek::Writing, |next| Peek::Bytes { next })
                })
            });
            if let Some(found) = found.flatten() {
                return Ok(found);
            }
        }
        Ok(if is_later_there { Peek::Written } else { Peek::NotBegun })
    }

    pub(crate) fn read(&self, extent: Extent, target: &mut [u8]) -> Result<usize, ReadError> {
        if self.is_inherited() {
            return Err(ReadError::Forked);
        }
        if self.writeback.is_closed() {
            return Err(ReadError::Closed);
        }
        let len = target.len();
        let too_short = ReadError::TooShort { len, extent: extent.len() };
        let mut rest = target.get_mut(..extent.len()).ok_or(too_short)?;
        let tail = self.tail();
        if extent.end() > tail {
            return Err(ReadError::NotAppended { extent, tail });
        }
        let (mut at, mut looks, mut backoff) = (extent.start(), 0, Backoff::new());
        while !rest.is_empty() {
            match self.find(at, rest) {
                Found::Bytes(read) => {
                    rest = &mut rest[read..];
                    at += read as u64;
                }
                Found::Writing(id) => {
                    looks += 1;
                    self.await_drained(id, looks, &mut backoff)?;
                }
                // Whatever is not in memory has been written.
                Found::Later(later) => {
                    let read = usize::try_from(later - at).map_or(rest.len(), |gap| gap.min(rest.len()));
                    self.read_file(at, &mut rest[..read])?;
                    rest = &mut rest[read..];
                    at += read as u64;
                }
                Found::Nothing => {
                    self.read_file(at, rest)?;
                    break;
                }
            }
        }
        Ok(extent.len())
    }

    /// Looks for `at` in all slots. [`Found::Later`] is the nearest generation behind it.
    fn find(&self, at: u64, target: &mut [u8]) -> Found {
        let mut nearest = Found::Nothing;
        for slot in self.staging.slots() {
            match self.look_into(slot, at, target) {
                Found::Later(base) if matches!(nearest, Found::Later(nearer) if nearer <= base) => {}
                Found::Later(base) => nearest = Found::Later(base),
                Found::Nothing => {}
                found => return found,
            }
        }
        nearest
    }

    fn look_into(&self, slot: &Slot, at: u64, target: &mut [u8]) -> Found {
        let found = self.within_latch(slot, || {
            let (generation, base) = (slot.generation(), slot.base());
            if generation == 0 {
                return Found::Nothing;
            }
            if at < base {
                return Found::Later(base);
            }
            match slot.copy_stable(at - base, target) {
                Copied::Bytes(len) => Found::Bytes(len),
                Copied::Writing => Found::Writing(BufferId::new(generation, slot.index())),
                Copied::Beyond => Found::Nothing,
            }
        });
        // Between two generations: the old one has been written, and no thread knows an address in the new one.
        found.unwrap_or(Found::Nothing)
    }

    /// Looks into a slot while its next generation cannot begin. `None`: it is just beginning.
    fn within_latch<R>(&self, slot: &Slot, look: impl FnOnce() -> R) -> Option<R> {
        if !slot.latch.try_acquire() {
            return None;
        }
        let found = look();
        if slot.latch.release() {
            self.advance();
        }
        Some(found)
    }

    /// Gives the writers in `id` time to leave. When others keep coming it has the buffer sealed, so that they
    /// go elsewhere, unless sealing is the user's business.
    fn await_drained(&self, id: BufferId, looks: usize, backoff: &mut Backoff) -> Result<(), ReadError> {
        if looks == 1 || looks.is_multiple_of(LOOKS) {
            // Writers may be idle.
            self.revoke_leases(self.staging.slot(id));
        }
        if looks == LOOKS && self.staging.auto_rotate() {
            self.seal(id);
        }
        if looks < LOOKS || !(self.staging.auto_flush() && self.staging.auto_rotate()) {
            // A buffer that is not sealed, or not flushed, notifies no thread when the last writer has left.
            if looks > PATIENT_LOOKS {
                return Err(ReadError::Reserved);
            }
            // On a busy machine each yield costs a time slice: many of them would last for minutes.
            if looks.is_multiple_of(LOOKS_AWAKE) {
                backoff.sleep()
            } else if looks < LOOKS && looks.is_multiple_of(8) {
                yield_now()
            } else {
                spin_loop()
            }
            return Ok(());
        }
        let slot = self.staging.slot(id);
        let drained = || slot.has_completed(id.generation()) || slot.snapshot().is_flushing();
        // Without a deadline the wait ends only with the answer.
        let _ = self.wait_until(None, || drained().then_some(()));
        Ok(())
    }

    fn read_file(&self, at: u64, target: &mut [u8]) -> Result<(), ReadError> {
        let _held = events::hold();
        let gone = if self.writeback.exists() { ReadError::Closed } else { ReadError::Gone(at) };
        match self.writeback.read_at(at, target).ok_or(gone)?? {
            None => Ok(()),
            Some(missing) => Err(ReadError::Truncated(missing)),
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;
    use std::thread;

    use ring_alloc::{Arena, BLOCK};

    use super::*;
    use crate::commit::groups::CommitPolicy;
    use crate::ring::append::Patience;
    use crate::staging::layout::Layout;

    fn core(auto_flush: bool, auto_rotate: bool) -> Core {
        let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
        Core::new(&arena, Layout::plain(&arena), auto_flush, auto_rotate, CommitPolicy::default(), 0, None)
    }

    #[test]
    fn a_reader_has_a_buffer_sealed_after_many_looks_unless_that_is_the_users_business() {
        for (auto_flush, auto_rotate, looks, sealed, refused) in [
            (true, true, 1, false, false),
            (true, true, 8, false, false),
            (true, true, LOOKS - 1, false, false),
            (true, false, 1, false, false),
            (true, false, LOOKS, false, false),
            (true, false, LOOKS + 1, false, false),
            (false, true, LOOKS - 1, false, false),
            (false, true, LOOKS, true, false),
            (false, true, LOOKS + 1, false, false),
            (false, true, LOOKS_AWAKE, false, false),
            (false, true, PATIENT_LOOKS, false, false),
            (false, true, PATIENT_LOOKS + 1, false, true),
            (true, false, PATIENT_LOOKS, false, false),
            (true, false, PATIENT_LOOKS + 1, false, true),
        ] {
            let core = core(auto_flush, auto_rotate);
            let reservation = core.reserve(8, Patience::Never).expect("there is room");
            let id = core.staging.current();
            let outcome = core.await_drained(id, looks, &mut Backoff::new());
            let case = (auto_flush, auto_rotate, looks);
            assert_eq!(outcome, if refused { Err(ReadError::Reserved) } else { Ok(()) }, "{case:?}");
            assert_eq!(core.staging.slot(id).snapshot().is_sealed(), sealed, "{case:?}");
            drop(reservation);
        }
    }

    #[test]
    fn a_reader_that_has_sealed_a_buffer_waits_until_its_last_writer_has_left() {
        for later in 0..2 {
            let core = core(true, true);
            let reservation = core.reserve(8, Patience::Never).expect("there is room");
            let id = core.staging.current();
            if later > 0 {
                assert!(core.seal(id));
            }
            thread::scope(|scope| {
                let wait = scope.spawn(|| core.await_drained(id, LOOKS + later, &mut Backoff::new()));
                while !core.staging.slot(id).snapshot().is_sealed() {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(10));
                assert!(!wait.is_finished(), "the writer is inside");
                reservation.commit();
                assert_eq!(wait.join().expect("no panic"), Ok(()));
            });
            assert!(core.has_completed(id));
        }
    }
}
