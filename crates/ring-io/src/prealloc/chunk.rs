//! The memory for preallocating writes: one piece for the whole process, since most rings prepare nothing most of the
//! time.
//!
//! Two that prepare at once have a piece each; the larger one is kept afterwards. No thread waits for the lock: memory
//! of its own does as well, and in a forked child a thread that does not exist there may hold it.

use parking_lot::Mutex;
use ring_alloc::{Buffer, Frozen};

/// Zeros or markers, of any log.
static SPARE: Mutex<Option<Buffer>> = Mutex::new(None);

/// At least `len` bytes.
pub(crate) fn borrow(len: usize) -> Option<Buffer> {
    let spare = SPARE.try_lock().and_then(|mut spare| spare.take_if(|spare| spare.len() >= len));
    spare.or_else(|| Buffer::zeroed(len).ok())
}

pub(crate) fn give_back(bytes: Frozen) {
    let Some(buffer) = bytes.thaw().ok() else { return };
    let Some(mut spare) = SPARE.try_lock() else { return };
    let smaller = match &*spare {
        Some(kept) if kept.len() >= buffer.len() => Some(buffer),
        _ => spare.replace(buffer),
    };
    drop(spare);
    // Its memory is unmapped without the lock.
    drop(smaller);
}

#[cfg(test)]
mod tests {
    use ring_alloc::BLOCK;

    use super::*;

    #[test]
    fn what_one_ring_gives_back_serves_the_next() {
        const MANY: usize = 10;
        let all: Vec<_> = (0..MANY).map(|n| borrow((n + 1) * BLOCK).expect("memory")).collect();
        assert!(all.iter().zip(1..).all(|(buffer, blocks)| buffer.len() >= blocks * BLOCK));
        let largest = all.iter().map(|buffer| buffer.len()).max().expect("some");
        all.into_iter().for_each(|buffer| give_back(buffer.freeze(BLOCK)));
        // Another test may have borrowed it.
        assert!(SPARE.lock().as_ref().is_none_or(|spare| spare.len() >= largest));
    }
}
