//! The cells of all writers of a ring, and which of them may have a lease in which buffer.
//!
//! Cells come in chunks of up to 64, in a list that only grows; a cell that is given up goes to the next writer. Each
//! chunk has a word for every buffer of the ring, with a bit for each cell that took a lease there. So taking back the
//! leases of a buffer is a look at one word for 64 writers, and at the cells of those few that have one.
//!
//! A bit says *perhaps*: it stays when the lease ends, until the buffer is sealed. It never says too little: a writer
//! sets its bit when it has got its range, and then looks whether the buffer has been sealed; the sealer seals, and
//! then takes the bits. Both go through the word by a read-modify-write: either the sealer finds the bit, or the writer
//! comes second, acquires the seal, sees it, and ends its lease itself. The same holds for the chunk and the count of
//! writers: a writer that has its cell counts itself, and then appends; either the sealer finds its chunk, or it comes
//! second, and too late to get a range of that buffer.

use crate::staging::lease::LeaseCell;
use crate::staging::slot::Slot;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, OnceLock};

/// Cells of a chunk. A checker looks at each of them.
const CELLS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

/// All writers of a ring.
#[derive(Debug)]
pub(crate) struct LeaseRegistry {
    first: OnceLock<Box<Chunk>>,
    /// Writers that there ever were.
    enrolled: AtomicU64,
    /// Buffers of the ring.
    slots: usize,
}

#[derive(Debug)]
struct Chunk {
    cells: [LeaseCell; CELLS],
    /// Which cells have an owner.
    taken: AtomicU64,
    /// For each buffer: which cells may have a lease there.
    leased: Box<[AtomicU64]>,
    next: OnceLock<Box<Chunk>>,
}

/// A writer's cell in the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    chunk: &'a Chunk,
    index: usize,
}

impl LeaseRegistry {
    pub(crate) fn new(slots: usize) -> Self {
        Self { first: OnceLock::new(), enrolled: AtomicU64::new(0), slots }
    }

    /// A cell that no other writer has.
    pub(crate) fn enroll(&self) -> Place<'_> {
        let place = self.take();
        // ordering: the writer's half of W5. Behind the search, which may have made the chunk.
        self.enrolled.fetch_add(1, AcqRel);
        place
    }

    fn take(&self) -> Place<'_> {
        let mut link = &self.first;
        loop {
            let chunk = link.get_or_init(|| Box::new(Chunk::new(self.slots)));
            if let Some(index) = chunk.take() {
                return Place { chunk, index };
            }
            link = &chunk.next;
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let mut link = &self.first;
        core::iter::from_fn(move || {
            let chunk = link.get()?;
            link = &chunk.next;
            Some(&**chunk)
        })
    }

    /// A cell in no ring, for one that a forked child has: the search could come upon a chunk that another thread was
    /// just making.
    pub(crate) fn apart(&self) -> Place<'static> {
        let chunk = Box::leak(Box::new(Chunk::new(self.slots)));
        Place { chunk, index: 0 }
    }

    /// Revokes all leases, in a forked child: their owners find that out, and do not exist.
    pub(crate) fn disown(&self) {
        self.chunks().flat_map(|chunk| &chunk.cells).for_each(LeaseCell::disown);
    }

    /// Cells that may have a lease in `slot`: for its sealer all of them, which then are forgotten.
    pub(crate) fn leased(&self, slot: &Slot, sealed: bool) -> impl Iterator<Item = &LeaseCell> {
        // ordering: the sealer's half of W5. An addition of nothing: the read-modify-write is the point.
        let chunks = if self.enrolled.fetch_add(0, AcqRel) == 0 { None } else { Some(self.chunks()) };
        chunks.into_iter().flatten().flat_map(move |chunk| {
            let word = &chunk.leased[slot.index()];
            // ordering: the sealer's half of W4.
            let bits = if sealed { word.swap(0, AcqRel) } else { word.fetch_or(0, AcqRel) };
            (0..CELLS).filter(move |index| bits >> index & 1 != 0).map(|index| &chunk.cells[index])
        })
    }

    /// Writers, records and bytes appended through them.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        self.chunks().fold((0, 0, 0), |(writers, records, bytes), chunk| {
            let taken = u64::from(chunk.taken.load(Relaxed).count_ones());
            let appended = chunk.cells.iter().map(LeaseCell::appended);
            let (more_records, more_bytes) = appended.fold((0, 0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
            (writers + taken, records + more_records, bytes + more_bytes)
        })
    }
}

impl Chunk {
    fn new(slots: usize) -> Self {
        Self {
            cells: core::array::from_fn(|_| LeaseCell::new()),
            taken: AtomicU64::new(0),
            leased: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            next: OnceLock::new(),
        }
    }

    fn take(&self) -> Option<usize> {
        let free = |taken: u64| taken.trailing_ones() as usize;
        let take = |taken: u64| (free(taken) < CELLS).then(|| taken | 1 << free(taken));
        // ordering: acquire half of W6.
        self.taken.fetch_update(Acquire, Relaxed, take).ok().map(free)
    }
}

impl<'a> Place<'a> {
    pub(crate) fn cell(self) -> &'a LeaseCell {
        &self.chunk.cells[self.index]
    }

    /// Says that the cell has a lease in `slot`. The thread that takes leases back finds it from now on; a thread that
    /// came before has made known why.
    pub(crate) fn announce(self, slot: &Slot) {
        // ordering: the writer's half of W4.
        self.chunk.leased[slot.index()].fetch_or(1 << self.index, AcqRel);
    }

    /// Gives the cell up.
    pub(crate) fn leave(self) {
        // ordering: release half of W6.
        self.chunk.taken.fetch_and(!(1 << self.index), Release);
    }
}
