//! One page in memory: a chain of nodes that never change. The mapping table points to the newest node.
//!
//! ```text
//! table[7] ─▶ Write ─▶ Flushed ─▶ Write ─▶ Whole     in memory; the log holds all but the newest write
//! table[8] ─▶ Write ─▶ Absent                        evicted; written to since, without having been read
//! ```
//!
//! Each node also sums up what lies below, so that no decision needs a walk through the chain.

use core::ops::Range;
use std::io;
use std::sync::Arc;

use ringlog::Lsn;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// What a node takes in memory, roughly, beside bytes of the page.
const NODE: usize = 160;

/// Where the log holds a page, as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InLog {
    /// The newest record of the page.
    pub(crate) newest: Lsn,
    /// Behind that record: when the log is durable up to here, so is the page.
    pub(crate) end: Lsn,
    /// The record of the whole page which that one leads to. All records in between are needed, and none before.
    pub(crate) whole: Lsn,
    /// How many records that makes.
    pub(crate) records: u32,
}

impl InLog {
    /// A record holds the whole page.
    pub(crate) fn whole(record: Range<Lsn>) -> Self {
        Self { newest: record.start, end: record.end, whole: record.start, records: 1 }
    }

    /// One more record holds what was written since.
    pub(crate) fn incremented(self, record: Range<Lsn>) -> Self {
        Self { newest: record.start, end: record.end, whole: self.whole, records: self.records + 1 }
    }
}

/// What the log does not hold of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unflushed {
    Nothing,
    /// The writes above the newest `Flushed`, `Whole` or `Absent`: so many bytes.
    Writes(usize),
    /// More than the chain still has as single writes.
    Page,
}

/// A state of a page.
pub(crate) struct Node {
    what: What,
    pub(crate) in_log: Option<InLog>,
    pub(crate) unflushed: Unflushed,
    /// `Write` nodes in the chain.
    pub(crate) writes: usize,
    /// Bytes that the chain takes.
    pub(crate) memory: usize,
    /// Whether the chain ends in a whole page.
    pub(crate) is_resident: bool,
}

enum What {
    /// These bytes stand at `at`.
    Write {
        at: usize,
        bytes: Box<[u8]>,
        below: Arc<Node>,
    },
    /// All below is in the log.
    Flushed {
        below: Arc<Node>,
    },
    Whole(Box<[u8]>),
    /// The rest is in the log; or nowhere, and zeros.
    Absent,
}

impl Node {
    /// A page of which nothing is in memory.
    pub(crate) fn absent(in_log: Option<InLog>) -> Arc<Self> {
        let unflushed = Unflushed::Nothing;
        Arc::new(Self { what: What::Absent, in_log, unflushed, writes: 0, memory: 0, is_resident: false })
    }

    /// A page in one piece. `unflushed` is nothing, or the page.
    pub(crate) fn whole(bytes: Box<[u8]>, in_log: Option<InLog>, unflushed: Unflushed) -> Arc<Self> {
        let memory = NODE + bytes.len();
        Arc::new(Self { what: What::Whole(bytes), in_log, unflushed, writes: 0, memory, is_resident: true })
    }

    /// The page `below`, with these bytes at `at`.
    pub(crate) fn write(below: &Arc<Self>, at: usize, bytes: &[u8]) -> Arc<Self> {
        let unflushed = match below.unflushed {
            Unflushed::Nothing => Unflushed::Writes(bytes.len()),
            Unflushed::Writes(earlier) => Unflushed::Writes(earlier + bytes.len()),
            Unflushed::Page => Unflushed::Page,
        };
        Arc::new(Self {
            what: What::Write { at, bytes: bytes.into(), below: Arc::clone(below) },
            unflushed,
            writes: below.writes + 1,
            memory: below.memory + NODE + bytes.len(),
            ..**below
        })
    }

    /// The page `below`, which the log holds as it is.
    pub(crate) fn flushed(below: &Arc<Self>, in_log: InLog) -> Arc<Self> {
        let what = What::Flushed { below: Arc::clone(below) };
        let (in_log, unflushed, memory) = (Some(in_log), Unflushed::Nothing, below.memory + NODE);
        Arc::new(Self { what, in_log, unflushed, memory, ..**below })
    }

    fn below(&self) -> Option<&Arc<Self>> {
        match &self.what {
            What::Write { below, .. } | What::Flushed { below } => Some(below),
            What::Whole(_) | What::Absent => None,
        }
    }

    /// What was written since the newest node that is no write, oldest first.
    pub(crate) fn newest_writes(&self) -> Vec<(usize, &[u8])> {
        let (mut writes, mut node) = (Vec::new(), self);
        while let What::Write { at, bytes, below } = &node.what {
            writes.push((*at, &**bytes));
            node = below;
        }
        writes.reverse();
        writes
    }

    /// The bytes of the page. `load` gives what the log holds of it, unless all is in memory.
    pub(crate) fn image(&self, load: impl FnOnce(InLog) -> io::Result<Box<[u8]>>) -> io::Result<Box<[u8]>> {
        let (mut chain, mut node) = (vec![self], self);
        while let Some(below) = node.below() {
            chain.push(below);
            node = below;
        }
        let mut image = match (&node.what, node.in_log) {
            (What::Whole(bytes), _) => bytes.clone(),
            (_, Some(in_log)) => load(in_log)?,
            (_, None) => vec![0; PAGE].into(),
        };
        for node in chain.iter().rev() {
            if let What::Write { at, bytes, .. } = &node.what {
                image[*at..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(image)
    }

    /// The same page with all that the log holds in one piece, and what was written since still as single writes: so
    /// that these can still be flushed alone.
    pub(crate) fn resident(&self, load: impl FnOnce(InLog) -> io::Result<Box<[u8]>>) -> io::Result<Arc<Self>> {
        let mut flushed = self;
        while let What::Write { below, .. } = &flushed.what {
            flushed = below;
        }
        let page = Self::whole(flushed.image(load)?, flushed.in_log, flushed.unflushed);
        Ok(self.newest_writes().into_iter().fold(page, |page, (at, bytes)| Self::write(&page, at, bytes)))
    }
}
