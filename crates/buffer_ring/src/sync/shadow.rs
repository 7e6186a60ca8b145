//! What a checker sees of a buffer's bytes. Loom: for each 512 of them a cell that notices when two threads get in each
//! other's way. Shuttle: which threads are at which bytes at this moment. Nothing at all in a normal build.

use core::ops::Range;

#[cfg(not(any(loom, shuttle)))]
#[derive(Debug)]
pub(crate) struct Shadow;

#[cfg(not(any(loom, shuttle)))]
impl Shadow {
    pub(crate) fn new(_len: usize) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn read(&self, _range: Range<usize>) {}

    #[inline(always)]
    pub(crate) fn write(&self, _range: Range<usize>) {}
}

#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Shadow(Box<[loom::cell::UnsafeCell<()>]>);

#[cfg(loom)]
const GRAIN: usize = 512;

#[cfg(loom)]
// SAFETY: the cells hold nothing, and their pointers are never dereferenced: loom only records which thread comes when.
unsafe impl Sync for Shadow {}

#[cfg(loom)]
impl Shadow {
    pub(crate) fn new(len: usize) -> Self {
        Self((0..len / GRAIN).map(|_| loom::cell::UnsafeCell::new(())).collect())
    }

    pub(crate) fn read(&self, range: Range<usize>) {
        for cell in self.cells(range) {
            cell.with(|_| ());
        }
    }

    pub(crate) fn write(&self, range: Range<usize>) {
        for cell in self.cells(range) {
            cell.with_mut(|_| ());
        }
    }

    fn cells(&self, range: Range<usize>) -> &[loom::cell::UnsafeCell<()>] {
        assert!(range.start % GRAIN == 0 && range.end % GRAIN == 0, "models use multiples of {GRAIN} bytes");
        &self.0[range.start / GRAIN..range.end / GRAIN]
    }
}

/// Which threads are at which bytes at this moment, and whether to write.
#[cfg(shuttle)]
#[derive(Debug)]
pub(crate) struct Shadow {
    visits: std::sync::Mutex<Vec<(Range<usize>, bool)>>,
    /// Gives others a turn.
    turn: crate::sync::AtomicBool,
}

#[cfg(shuttle)]
impl Shadow {
    pub(crate) fn new(_len: usize) -> Self {
        Self { visits: Default::default(), turn: crate::sync::AtomicBool::new(false) }
    }

    pub(crate) fn read(&self, range: Range<usize>) {
        self.visit(range, false);
    }

    pub(crate) fn write(&self, range: Range<usize>) {
        self.visit(range, true);
    }

    fn visit(&self, range: Range<usize>, writes: bool) {
        {
            let mut visits = self.visits.lock().expect("not poisoned");
            for (other, other_writes) in visits.iter().filter(|_| !range.is_empty()) {
                let meet = range.start < other.end && other.start < range.end;
                assert!(!(meet && (writes || *other_writes)), "one at {range:?} (writes: {writes}), one at {other:?}");
            }
            visits.push((range.clone(), writes));
        }
        self.turn.load(crate::sync::Ordering::Relaxed);
        let mut visits = self.visits.lock().expect("not poisoned");
        let mine = visits.iter().position(|visit| *visit == (range.clone(), writes)).expect("put there above");
        visits.swap_remove(mine);
    }
}
