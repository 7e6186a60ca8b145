//! A slot of `MANIFEST`: what a log knows about itself beside its batches.
//!
//! | at | field |
//! |---|---|
//! | 0, u32 | magic |
//! | 4, u8 x 4 | version, 0, 0, 0 |
//! | 8, u64 | sequence: +1 with each update |
//! | 16, u64 | log id |
//! | 24, u8 x 16 | header key |
//! | 40, u64 | segment size |
//! | 48, u32 | number of epochs |
//! | 52, u32 | number of gaps |
//! | 56, u64 | trim point |
//! | 64, u64 | number of the first batch of the segment that holds the trim point |
//! | 72, u64 | address of the batch before that |
//! | 80, u32 | epoch of that first batch; 0: there is none yet |
//! | 84, u32 | 0 |
//! | 88, u64 | salt of that epoch |
//! | 96, u64 | known durable: everything below was on stable storage |
//! | 104, u64 | clean end: where a clean close left the log; all ones: not closed |
//! | 112..128 | 0 |
//! | 128, 64 x 24 B | epochs: u32 epoch, u32 0, u64 salt, u64 start |
//! | 1664, 48 x 48 B | gaps: u64 start, u64 end, u64 number, u64 address of the batch before, u32 epoch, u32 0, u64 salt of the batch behind |
//! | 3968..4088 | 0 |
//! | 4088, u64 | CRC-64/NVME of bytes 0..4088 |

use core::ops::Range;

use thiserror::Error;

use super::bytes::put;
use super::segment::is_segment_size;
use super::{BLOCK, BatchHeader, HeaderKey, MAX_ADDRESS, VERSION, crc64, is_zero, u32_at, u64_at};

/// The length of a slot.
pub const SLOT_LEN: usize = BLOCK;

/// The newest epochs that `MANIFEST` keeps.
pub const MAX_EPOCHS: usize = 64;

/// The accepted gaps that `MANIFEST` can hold.
pub const MAX_GAPS: usize = 48;

const MAGIC: u32 = u32::from_le_bytes(*b"RLm1");
const EPOCHS: usize = 128;
const EPOCH_LEN: usize = 24;
const GAPS: usize = EPOCHS + MAX_EPOCHS * EPOCH_LEN;
const GAP_LEN: usize = 48;
const END: usize = GAPS + MAX_GAPS * GAP_LEN;
const CRC: usize = SLOT_LEN - 8;
const NONE: u64 = u64::MAX;

/// One opening for appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counts from 1.
    pub epoch: u32,
    /// Random, so that two copies of one log that both went on can be distinguished.
    pub salt: u64,
    /// Where it begins: the end of the log as it was found then.
    pub start: u64,
}

/// An accepted range of damage: no batch is read there, and the batch behind it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the damage begins.
    pub start: u64,
    /// Where the next batch begins.
    pub end: u64,
    /// The next batch's number.
    pub number: u64,
    /// The address that the next batch has for the one before.
    pub previous: u64,
    /// The next batch's epoch.
    pub epoch: u32,
    /// The next batch's salt.
    pub salt: u64,
}

impl Gap {
    /// Returns the addresses of the gap.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// What the first batch of the first kept segment must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstBatch {
    /// Its number.
    pub number: u64,
    /// The address of the one before, or [`NO_ADDRESS`](super::NO_ADDRESS).
    pub previous: u64,
    /// Its epoch and salt, if such a batch was there at the last update.
    pub epoch: Option<(u32, u64)>,
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Grows with each update.
    pub sequence: u64,
    /// The log.
    pub log_id: u64,
    /// Signs batch headers.
    pub key: HeaderKey,
    /// Bytes of addresses in each segment.
    pub segment_size: u64,
    /// What lies below is not part of the log any more.
    pub trim: u64,
    /// The first batch of the segment that holds the trim point.
    pub first: FirstBatch,
    /// Everything below was on stable storage at the last update.
    pub known_durable: u64,
    /// Where a clean close left the log.
    pub clean_end: Option<u64>,
    /// The newest epochs, the oldest of them first; never empty.
    pub epochs: Vec<Epoch>,
    /// Accepted damage, in order.
    pub gaps: Vec<Gap>,
}

/// Why a block is no slot of `MANIFEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestRefusal {
    /// Another magic number.
    #[error("no MANIFEST slot")]
    Magic,
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// A version that this crate does not know.
    #[error("format version {0} is unknown; use a newer release")]
    Version(u8),
    /// A rule of the format is broken.
    #[error("{0}")]
    Rule(&'static str),
}

impl Manifest {
    /// Returns the slot's block.
    ///
    /// # Panics
    ///
    /// If there are more epochs or gaps than a slot can hold.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        assert!(self.epochs.len() <= MAX_EPOCHS && self.gaps.len() <= MAX_GAPS, "too many epochs or gaps");
        let mut bytes = [0; SLOT_LEN];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 4, &[VERSION]);
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &self.log_id.to_le_bytes());
        put(&mut bytes, 24, &self.key.to_bytes());
        put(&mut bytes, 40, &self.segment_size.to_le_bytes());
        put(&mut bytes, 48, &(self.epochs.len() as u32).to_le_bytes());
        put(&mut bytes, 52, &(self.gaps.len() as u32).to_le_bytes());
        put(&mut bytes, 56, &self.trim.to_le_bytes());
        put(&mut bytes, 64, &self.first.number.to_le_bytes());
        put(&mut bytes, 72, &self.first.previous.to_le_bytes());
        let (epoch, salt) = self.first.epoch.unwrap_or_default();
        put(&mut bytes, 80, &epoch.to_le_bytes());
        put(&mut bytes, 88, &salt.to_le_bytes());
        put(&mut bytes, 96, &self.known_durable.to_le_bytes());
        put(&mut bytes, 104, &self.clean_end.unwrap_or(NONE).to_le_bytes());
        for (n, epoch) in self.epochs.iter().enumerate() {
            let at = EPOCHS + n * EPOCH_LEN;
            put(&mut bytes, at, &epoch.epoch.to_le_bytes());
            put(&mut bytes, at + 8, &epoch.salt.to_le_bytes());
            put(&mut bytes, at + 16, &epoch.start.to_le_bytes());
        }
        for (n, gap) in self.gaps.iter().enumerate() {
            let at = GAPS + n * GAP_LEN;
            for (n, number) in [gap.start, gap.end, gap.number, gap.previous].into_iter().enumerate() {
                put(&mut bytes, at + 8 * n, &number.to_le_bytes());
            }
            put(&mut bytes, at + 32, &gap.epoch.to_le_bytes());
            put(&mut bytes, at + 40, &gap.salt.to_le_bytes());
        }
        let sum = crc64(&bytes[..CRC]);
        put(&mut bytes, CRC, &sum.to_le_bytes());
        bytes
    }

    /// Reads a slot.
    ///
    /// # Errors
    ///
    /// [`ManifestRefusal`] if it is no slot of this version.
    pub fn decode(bytes: &[u8; SLOT_LEN]) -> Result<Self, ManifestRefusal> {
        if u32_at(bytes, 0) != MAGIC {
            return Err(ManifestRefusal::Magic);
        }
        if crc64(&bytes[..CRC]) != u64_at(bytes, CRC) {
            return Err(ManifestRefusal::Checksum);
        }
        if bytes[4] != VERSION {
            return Err(ManifestRefusal::Version(bytes[4]));
        }
        let counts = (u32_at(bytes, 48) as usize, u32_at(bytes, 52) as usize);
        if counts.0 == 0 || counts.0 > MAX_EPOCHS || counts.1 > MAX_GAPS {
            return Err(ManifestRefusal::Rule("the number of epochs or gaps is impossible"));
        }
        let epochs = (0..counts.0).map(|n| EPOCHS + n * EPOCH_LEN).map(|at| Epoch {
            epoch: u32_at(bytes, at),
            salt: u64_at(bytes, at + 8),
            start: u64_at(bytes, at + 16),
        });
        let gaps = (0..counts.1).map(|n| GAPS + n * GAP_LEN).map(|at| Gap {
            start: u64_at(bytes, at),
            end: u64_at(bytes, at + 8),
            number: u64_at(bytes, at + 16),
            previous: u64_at(bytes, at + 24),
            epoch: u32_at(bytes, at + 32),
            salt: u64_at(bytes, at + 40),
        });
        let first_epoch = (u32_at(bytes, 80), u64_at(bytes, 88));
        let manifest = Self {
            sequence: u64_at(bytes, 8),
            log_id: u64_at(bytes, 16),
            key: HeaderKey::new(core::array::from_fn(|n| bytes[24 + n])),
            segment_size: u64_at(bytes, 40),
            trim: u64_at(bytes, 56),
            first: FirstBatch {
                number: u64_at(bytes, 64),
                previous: u64_at(bytes, 72),
                epoch: (first_epoch.0 != 0).then_some(first_epoch),
            },
            known_durable: u64_at(bytes, 96),
            clean_end: Some(u64_at(bytes, 104)).filter(|&end| end != NONE),
            epochs: epochs.collect(),
            gaps: gaps.collect(),
        };
        manifest.rules().map_err(ManifestRefusal::Rule)?;
        let spare = [5..8, 84..88, 112..EPOCHS, EPOCHS + counts.0 * EPOCH_LEN..GAPS, GAPS + counts.1 * GAP_LEN..CRC];
        if spare.into_iter().any(|range| !is_zero(&bytes[range])) || END > CRC {
            return Err(ManifestRefusal::Rule("reserved bytes are not zero"));
        }
        Ok(manifest)
    }

    fn rules(&self) -> Result<(), &'static str> {
        let block = |address: u64| address.is_multiple_of(BLOCK as u64) && address < MAX_ADDRESS;
        let epochs_grow =
            self.epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
        let gaps_grow = self.gaps.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let rules = [
            (is_segment_size(self.segment_size), "the segment size is impossible"),
            (self.sequence > 0 && self.sequence < u64::MAX, "the sequence is impossible"),
            (self.epochs[0].epoch > 0 && epochs_grow, "epochs and their starts do not grow"),
            (self.epochs.iter().all(|epoch| block(epoch.start)), "an epoch starts inside a block"),
            (
                self.gaps.iter().all(|gap| block(gap.start) && block(gap.end) && gap.start < gap.end),
                "a gap is no range of blocks",
            ),
            (gaps_grow, "gaps do not grow"),
            (self.trim < MAX_ADDRESS && self.known_durable < MAX_ADDRESS, "an address is out of range"),
            (self.clean_end.is_none_or(block) && block(self.known_durable), "an end lies inside a block"),
            (self.first.number < u64::MAX, "the first batch number is impossible"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
    }

    /// Returns the segment that holds `address`.
    #[must_use]
    pub fn segment_of(&self, address: u64) -> u64 {
        address / self.segment_size
    }

    /// Returns where the batch behind the one with this header begins: at the next segment, if it is the last of its
    /// own.
    #[must_use]
    pub fn behind(&self, header: &BatchHeader) -> u64 {
        if header.flags.last {
            return (self.segment_of(header.address) + 1) * self.segment_size;
        }
        header.address + header.layout().len as u64
    }

    /// Returns the segment that holds the trim point: the first of the log.
    #[must_use]
    pub fn first_segment(&self) -> u64 {
        self.segment_of(self.trim)
    }

    /// Returns the newest epoch.
    ///
    /// # Panics
    ///
    /// If there is none, which no decoded slot can have.
    #[must_use]
    pub fn newest_epoch(&self) -> Epoch {
        *self.epochs.last().expect("a manifest has an epoch")
    }

    /// Returns how far this slot itself promises that bytes were durable.
    #[must_use]
    pub fn promise(&self) -> u64 {
        self.known_durable.max(self.clean_end.unwrap_or(0)).max(self.newest_epoch().start)
    }

    /// Whether epoch and salt of `header` are those that belong at its address, behind a batch with `before`.
    ///
    /// Where the table of epochs reaches, they are exactly the table's. Below it they never decrease, stay below the
    /// oldest entry's, have one salt each, and rise only at a batch that opens an epoch.
    #[must_use]
    pub fn epoch_fits(&self, header: &BatchHeader, before: Option<(u32, u64)>) -> bool {
        match self.epochs.iter().rev().find(|epoch| epoch.start <= header.address) {
            Some(epoch) => (epoch.epoch, epoch.salt) == (header.epoch, header.salt),
            None => {
                header.epoch < self.epochs[0].epoch
                    && before.is_none_or(|(epoch, salt)| {
                        (epoch, salt) == (header.epoch, header.salt)
                            || (epoch < header.epoch && header.flags.opens_epoch)
                    })
            }
        }
    }

    /// Returns how far `header` proves that bytes were durable: never beyond the start of the epoch that replaced its
    /// own, and nothing if it stands below its epoch's start.
    #[must_use]
    pub fn promise_of(&self, header: &BatchHeader) -> u64 {
        let own = self.epochs.iter().find(|epoch| epoch.epoch == header.epoch);
        if header.epoch > self.newest_epoch().epoch
            || own.is_some_and(|own| own.salt != header.salt || header.address < own.start)
        {
            return 0;
        }
        let replaced = self.epochs.iter().find(|epoch| epoch.epoch > header.epoch);
        replaced.map_or(header.durable, |epoch| header.durable.min(epoch.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BatchFlags;

    fn manifest() -> Manifest {
        Manifest {
            sequence: 9,
            log_id: 7,
            key: HeaderKey::new([3; 16]),
            segment_size: 32 << 10,
            trim: 33_000,
            first: FirstBatch { number: 4, previous: 28_672, epoch: Some((2, 5)) },
            known_durable: 65_536,
            clean_end: Some(69_632),
            epochs: vec![Epoch { epoch: 2, salt: 5, start: 4096 }, Epoch { epoch: 4, salt: 6, start: 40_960 }],
            gaps: vec![Gap { start: 45_056, end: 49_152, number: 9, previous: 45_056, epoch: 4, salt: 6 }],
        }
    }

    #[test]
    fn a_slot_reads_back_as_it_was_written() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
        let mut full = manifest();
        full.epochs = (0..64).map(|n| Epoch { epoch: n + 1, salt: u64::from(n), start: u64::from(n) * 4096 }).collect();
        full.gaps = (0..48)
            .map(|n| Gap { start: n * 8192, end: n * 8192 + 4096, number: n, previous: 0, epoch: 1, salt: 1 })
            .collect();
        full.clean_end = None;
        full.first.epoch = None;
        assert_eq!(Manifest::decode(&full.encode()), Ok(full));
    }

    #[test]
    fn each_broken_rule_of_a_slot_has_its_refusal() {
        let read = |change: &dyn Fn(&mut Manifest)| {
            let mut bad = manifest();
            change(&mut bad);
            Manifest::decode(&bad.encode())
        };
        let changes: [&dyn Fn(&mut Manifest); 13] = [
            &|m| m.segment_size = 4096,
            &|m| m.segment_size += 1,
            &|m| m.segment_size = 1 << 50,
            &|m| m.sequence = 0,
            &|m| m.epochs.clear(),
            &|m| m.epochs[0].epoch = 0,
            &|m| m.epochs[1].epoch = 2,
            &|m| m.epochs[1].start = 4096,
            &|m| m.epochs[1].start = 40_961,
            &|m| m.gaps[0].end = m.gaps[0].start,
            &|m| m.trim = u64::MAX,
            &|m| m.known_durable = 5,
            &|m| m.clean_end = Some(5),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert!(matches!(read(change), Err(ManifestRefusal::Rule(_))), "change {n}");
        }
        let resigned = |at: usize, value: u8| {
            let mut bytes = manifest().encode();
            bytes[at] = value;
            let sum = crc64(&bytes[..CRC]);
            put(&mut bytes, CRC, &sum.to_le_bytes());
            Manifest::decode(&bytes)
        };
        assert_eq!(resigned(0, 0), Err(ManifestRefusal::Magic));
        assert_eq!(resigned(4, 3), Err(ManifestRefusal::Version(3)));
        for (at, value) in [(5, 1), (48, 65), (51, 255), (52, 49), (84, 1), (112, 1), (1000, 1), (3000, 1), (4000, 1)] {
            assert!(matches!(resigned(at, value), Err(ManifestRefusal::Rule(_))), "byte {at}");
        }
        let mut bytes = manifest().encode();
        bytes[60] ^= 1;
        assert_eq!(Manifest::decode(&bytes), Err(ManifestRefusal::Checksum));
    }

    #[test]
    fn a_promise_ends_at_the_next_epoch_and_counts_only_in_its_own() {
        let manifest = manifest();
        let header = |epoch, salt, address, durable| BatchHeader {
            flags: BatchFlags::default(),
            log_id: 7,
            address,
            number: 1,
            epoch,
            salt,
            payload_len: 8,
            durable,
            previous: 0,
        };
        let promise = |epoch, salt, address, durable| manifest.promise_of(&header(epoch, salt, address, durable));
        assert_eq!(promise(4, 6, 53_248, 49_152), 49_152);
        assert_eq!(promise(2, 5, 53_248, 49_152), 40_960, "its epoch was replaced there");
        assert_eq!(promise(3, 9, 53_248, 49_152), 40_960, "an epoch of which nothing is left");
        assert_eq!(promise(1, 9, 53_248, 49_152), 4096, "an epoch older than the table");
        assert_eq!(promise(4, 6, 36_864, 36_864), 0, "below the start of its epoch");
        assert_eq!(promise(4, 9, 53_248, 49_152), 0, "another copy's");
        assert_eq!(promise(5, 6, 53_248, 49_152), 0, "of the future");
    }
}
