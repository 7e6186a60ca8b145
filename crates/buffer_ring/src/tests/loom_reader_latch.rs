//! The latch alone: readers and the opener, before a cell that both use.

use super::*;
use crate::staging::reader_latch::ReaderLatch;

#[test]
fn readers_and_the_opener_never_meet() {
    static READ: Count = Count::new(0);
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("readers_and_the_opener_never_meet", Bound::None, || {
        let parts = Arc::new((ReaderLatch::new(), cell()));
        let reader = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (latch, cell) = &*parts;
                latch.try_acquire() && {
                    hit(&READ);
                    cell.read(0..512);
                    latch.release()
                }
            })
        };
        let (latch, cell) = &*parts;
        let closed = latch.try_close();
        if closed {
            cell.write(0..512);
            latch.reopen();
        }
        let was_last = reader.join().unwrap();
        assert!(closed || was_last, "no thread would open the slot");
        hit(if closed { &AFTER } else { &BEFORE });
    });
    assert!(READ.load(Relaxed) > 0 && BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

/// The opener is the one that comes second: it sees the last of the readers' accesses.
#[test]
fn the_opener_waits_for_the_last_read() {
    static CLOSED: Count = Count::new(0);
    model("the_opener_waits_for_the_last_read", Bound::None, || {
        let parts = Arc::new((ReaderLatch::new(), cell()));
        let opener = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (latch, cell) = &*parts;
                if latch.try_close() {
                    hit(&CLOSED);
                    cell.write(0..512);
                    latch.reopen();
                }
            })
        };
        let (latch, cell) = &*parts;
        if latch.try_acquire() {
            cell.read(0..512);
            let _ = latch.release();
        }
        opener.join().unwrap();
    });
    assert!(CLOSED.load(Relaxed) > 0);
}
