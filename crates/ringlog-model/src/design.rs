//! What a log is made with, and where its blocks are.

use crate::disk::{Image, Name};
use crate::flaw::Flaw;
use crate::format::{BatchHeader, SECTORS, Sector};

#[derive(Clone, Copy)]
pub(crate) struct Design {
    pub(crate) flaw: Option<Flaw>,
    /// Blocks in a segment.
    pub(crate) segment: u64,
    pub(crate) log: u8,
    /// Epochs that MANIFEST keeps.
    pub(crate) epochs: usize,
}

impl Design {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
    pub(crate) fn segment_of(&self, address: u64) -> u64 {
        address / self.segment
    }
    pub(crate) fn sector_of(&self, address: u64) -> usize {
        SECTORS + (address % self.segment) as usize * SECTORS
    }
    pub(crate) fn block(&self, image: &Image, address: u64) -> Option<[Sector; SECTORS]> {
        let (name, at) = (Name::Segment(self.segment_of(address)), self.sector_of(address));
        Some([image.read(name, at)?, image.read(name, at + 1)?])
    }
    pub(crate) fn place(&self, address: u64) -> (Name, usize) {
        (Name::Segment(self.segment_of(address)), self.sector_of(address))
    }
    /// What the checksums of a block begin with.
    pub(crate) fn seed(&self, head: &BatchHeader, address: u64) -> (u8, u32, u32, u64) {
        let log = if self.has(Flaw::ForeignAccepted) { 0 } else { head.log };
        (log, head.epoch, head.salt, if self.has(Flaw::NoAddress) { 0 } else { address })
    }
}
