//! The memory for preallocating writes: one piece for the whole process, since most rings prepare nothing most of the
//! time.
//!
//! Two that prepare at once have a piece each; the larger one is kept afterwards. No thread waits for the lock: memory
//! of its own does as well, and in a forked child a thread that does not exist there may hold it.

use ring_alloc::{Buffer, Frozen};

use crate::locks::Mutex;

/// Of all rings of this process.
pub(crate) static SPARE: Spare = Spare(Mutex::new(None));

/// Zeros or markers, of any log.
#[derive(Debug)]
pub(crate) struct Spare(Mutex<Option<Buffer>>);

impl Spare {
    /// At least `len` bytes.
    pub(crate) fn borrow(&self, len: usize) -> Option<Buffer> {
        let spare = self.0.try_lock().and_then(|mut spare| spare.take_if(|spare| spare.len() >= len));
        spare.or_else(|| Buffer::zeroed(len).ok())
    }

    pub(crate) fn give_back(&self, bytes: Frozen) {
        let Some(buffer) = bytes.thaw().ok() else { return };
        let Some(mut spare) = self.0.try_lock() else { return };
        let smaller = match &*spare {
            Some(kept) if kept.len() >= buffer.len() => Some(buffer),
            _ => spare.replace(buffer),
        };
        drop(spare);
        // Its memory is unmapped without the lock.
        drop(smaller);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring_alloc::BLOCK;

    use super::*;

    #[test]
    fn what_one_ring_gives_back_serves_the_next_and_of_two_the_larger_one() {
        for lens in [[2, 5], [5, 2]] {
            let spare = Spare(Mutex::new(None));
            let lent = lens.map(|blocks| spare.borrow(blocks * BLOCK).expect("memory").freeze(BLOCK));
            // So that its address is not used again.
            let arenas = lent.each_ref().map(|bytes| Arc::clone(bytes.arena()));
            lent.into_iter().for_each(|bytes| spare.give_back(bytes));
            let more = spare.borrow(6 * BLOCK).expect("memory");
            assert_eq!(more.len(), 6 * BLOCK, "more than there is to spare");
            let again = spare.borrow(BLOCK).expect("memory").freeze(BLOCK);
            let larger = if lens[0] > lens[1] { 0 } else { 1 };
            assert!(Arc::ptr_eq(again.arena(), &arenas[larger]), "{lens:?}");
            let other = spare.borrow(BLOCK).expect("memory").freeze(BLOCK);
            assert!(arenas.iter().all(|arena| !Arc::ptr_eq(arena, other.arena())), "it is lent once");
        }
    }
}
