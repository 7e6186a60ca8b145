//! What stands in a sector. Checksums are ideal: a flipped bit is a flag, and sums are 64-bit hashes.

use core::hash::{Hash, Hasher};

/// Sectors per block.
pub(crate) const SECTORS: usize = 2;
pub(crate) const NONE: u64 = u64::MAX;

/// A batch header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) log: u8,
    pub(crate) address: u64,
    pub(crate) number: u64,
    pub(crate) epoch: u32,
    pub(crate) salt: u32,
    pub(crate) blocks: u64,
    pub(crate) durable: u64,
    pub(crate) previous: u64,
    /// The next batch is at the beginning of the next segment.
    pub(crate) last: bool,
    /// The first batch of its epoch.
    pub(crate) opens: bool,
    /// Its own checksum is right.
    pub(crate) ok: bool,
}

/// The checksums of a batch's blocks, and their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Table {
    pub(crate) sums: [u64; 4],
    pub(crate) own: u64,
}

/// What a batch's record is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Record {
    Data,
    /// The data from this address on is void, up to the truncation.
    Truncation(u64),
    /// The named value, of which there is one, changes.
    Value(u32),
}

/// What a sector holds. Bodies are numbers: two that differ are different bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Sector {
    Zero,
    Junk(u32),
    First {
        head: BatchHeader,
        body: u32,
        record: Record,
        snapshot: Option<Option<u32>>,
    },
    Middle(u32),
    Last {
        body: u32,
        table: Table,
    },
    /// The two sectors of a segment header. `before` is only for a flaw.
    SegmentHead {
        log: u8,
        segment: u64,
        before: u64,
    },
    SegmentRest {
        log: u8,
        segment: u64,
    },
    /// The two sectors of a slot of `MANIFEST`, by the number of the update.
    Slot(u32),
    SlotRest(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Epoch {
    pub(crate) epoch: u32,
    pub(crate) salt: u32,
    pub(crate) start: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) sequence: u64,
    pub(crate) log: u8,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) trim: u64,
    /// Number and predecessor of the first batch of the segment that holds the trim point.
    pub(crate) first: (u64, u64),
    /// Its epoch and salt, if there is such a batch.
    pub(crate) first_epoch: Option<(u32, u32)>,
    pub(crate) known_durable: u64,
    pub(crate) clean: Option<u64>,
}

struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (self.0 >> 31);
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }
}

/// `place`: log id, epoch, salt, address of the block.
pub(crate) fn sum(place: (u8, u32, u32, u64), sectors: &[Sector]) -> u64 {
    let mut mix = Mix(0x1234_5678);
    place.hash(&mut mix);
    for sector in sectors {
        match sector {
            Sector::Last { body, .. } => body.hash(&mut mix),
            other => other.hash(&mut mix),
        }
    }
    mix.finish()
}

pub(crate) fn own_sum(place: (u8, u32, u32, u64), sums: [u64; 4]) -> u64 {
    let mut mix = Mix(0x9876_5432);
    (place, sums).hash(&mut mix);
    mix.finish()
}
