//! What loom sees of a buffer's bytes: for each 512 of them a cell that notices when two threads get in each other's way. Nothing at all
//! in a normal build.

use core::ops::Range;

#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Shadow;

#[cfg(not(loom))]
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
// SAFETY: the cells hold nothing, and their pointers are never dereferenced: loom only keeps book of who comes when.
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
