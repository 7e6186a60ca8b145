//! The gate alone: readers and the opener, before a cell that both use.

use super::*;
use crate::gate::Gate;

#[test]
fn readers_and_the_opener_never_meet() {
    static READ: Count = Count::new(0);
    static BEFORE: Count = Count::new(0);
    static AFTER: Count = Count::new(0);
    model("readers_and_the_opener_never_meet", Bound::None, || {
        let parts = Arc::new((Gate::new(), cell()));
        let reader = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (gate, cell) = &*parts;
                gate.enter() && {
                    hit(&READ);
                    cell.read(0..512);
                    gate.leave()
                }
            })
        };
        let (gate, cell) = &*parts;
        let closed = gate.close();
        if closed {
            cell.write(0..512);
            gate.open();
        }
        let was_last = reader.join().unwrap();
        assert!(closed || was_last, "nobody would open the slot");
        hit(if closed { &AFTER } else { &BEFORE });
    });
    assert!(READ.load(Relaxed) > 0 && BEFORE.load(Relaxed) > 0 && AFTER.load(Relaxed) > 0);
}

/// The opener is the one that comes second: it sees the last of the readers' accesses.
#[test]
fn the_opener_waits_for_the_last_read() {
    static CLOSED: Count = Count::new(0);
    model("the_opener_waits_for_the_last_read", Bound::None, || {
        let parts = Arc::new((Gate::new(), cell()));
        let opener = {
            let parts = Arc::clone(&parts);
            thread::spawn(move || {
                let (gate, cell) = &*parts;
                if gate.close() {
                    hit(&CLOSED);
                    cell.write(0..512);
                    gate.open();
                }
            })
        };
        let (gate, cell) = &*parts;
        if gate.enter() {
            cell.read(0..512);
            let _ = gate.leave();
        }
        opener.join().unwrap();
    });
    assert!(CLOSED.load(Relaxed) > 0);
}
