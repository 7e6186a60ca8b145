//! A batch: what the ring flushes together, and what recovery accepts together.
//!
//! ```text
//! header 72 B | records, with zero filler between
//! checksum per 4096-byte block, 8 B each | checksum of the checksums 8 B | zeros to 4096
//! ```
//!
//! | header, at | field |
//! |---|---|
//! | 0, u32 | magic |
//! | 4, u8 x 4 | version, flags, 0, 0 |
//! | 8, u64 | log id |
//! | 16, u64 | address of this header |
//! | 24, u64 | batch number |
//! | 32, u32 | epoch |
//! | 36, u32 | bytes of records |
//! | 40, u64 | durable: the watermark when this batch was sealed |
//! | 48, u64 | address of the previous header |
//! | 56, u64 | salt of the epoch |
//! | 64, u64 | SipHash-2-4 of bytes 0..64 under the key in MANIFEST |

use thiserror::Error;

use super::bytes::put;
use super::{
    BLOCK, BlockSums, HeaderKey, MAX_ADDRESS, RECORD_HEADER_LEN, RecordHeader, RecordType, VERSION, u32_at, u64_at,
};

/// The length of a batch header.
pub const HEADER_LEN: usize = 72;

/// The most bytes of records in a batch: a buffer of 256 MiB, so that *blocks back* fits 16 bits.
pub const MAX_PAYLOAD: u32 = (256 << 20) - BLOCK as u32;

const MAGIC: u32 = u32::from_le_bytes(*b"RLb1");

/// The length of a checksum in the table of a batch, and of that of the table itself.
pub const SUM_LEN: usize = 8;

/// What a header says about its batch, beside numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFlags {
    /// The next batch begins at the next segment.
    pub last: bool,
    /// The first batch of its epoch.
    pub opens_epoch: bool,
    /// It has no record to show, only a no-op.
    pub empty: bool,
}

impl BatchFlags {
    const ALL: u8 = 0b111;

    fn to_bits(self) -> u8 {
        u8::from(self.last) | u8::from(self.opens_epoch) << 1 | u8::from(self.empty) << 2
    }

    fn from_bits(bits: u8) -> Self {
        Self { last: bits & 1 != 0, opens_epoch: bits & 2 != 0, empty: bits & 4 != 0 }
    }
}

/// The header of a batch. Its 72 bytes are evidence by themselves, without the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Last of its segment, first of its epoch, empty.
    pub flags: BatchFlags,
    /// The log that it belongs to.
    pub log_id: u64,
    /// Its own address.
    pub address: u64,
    /// Counts batches over the whole log, epochs included.
    pub number: u64,
    /// Counts openings for appending.
    pub epoch: u32,
    /// The salt of the epoch.
    pub salt: u64,
    /// Bytes of records behind the header; a multiple of 8.
    pub payload_len: u32,
    /// Everything below was on stable storage when this batch was sealed.
    pub durable: u64,
    /// The address of the batch before, or [`NO_ADDRESS`](super::NO_ADDRESS).
    pub previous: u64,
}

/// Why bytes are no header of a batch that may stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderRefusal {
    /// Another magic number.
    #[error("no batch header")]
    Magic,
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
    /// Signed, but in a version that this crate does not know.
    #[error("format version {0} is unknown; use a newer release")]
    Version(u8),
    /// Signed, but with flags that this crate does not know.
    #[error("flags {0:#04x} are unknown; use a newer release")]
    Flags(u8),
    /// Signed, but a rule of the format is broken.
    #[error("{0}")]
    Rule(&'static str),
    /// A batch of another log.
    #[error("a batch of log {0:016x}")]
    OtherLog(u64),
    /// A batch that belongs to another address.
    #[error("a batch that belongs to address {0}")]
    OtherAddress(u64),
}

impl BatchHeader {
    /// Returns whether `bytes` begin like a header: the cheap test before [`decode_at`](Self::decode_at).
    #[must_use]
    pub fn is_likely(bytes: &[u8]) -> bool {
        u32_at(bytes, 0) == MAGIC
    }

    /// Returns the header's bytes, signed.
    #[must_use]
    pub fn encode(&self, key: &HeaderKey) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 4, &[VERSION, self.flags.to_bits()]);
        put(&mut bytes, 8, &self.log_id.to_le_bytes());
        put(&mut bytes, 16, &self.address.to_le_bytes());
        put(&mut bytes, 24, &self.number.to_le_bytes());
        put(&mut bytes, 32, &self.epoch.to_le_bytes());
        put(&mut bytes, 36, &self.payload_len.to_le_bytes());
        put(&mut bytes, 40, &self.durable.to_le_bytes());
        put(&mut bytes, 48, &self.previous.to_le_bytes());
        put(&mut bytes, 56, &self.salt.to_le_bytes());
        let signature = key.sign(&bytes[..64]);
        put(&mut bytes, 64, &signature.to_le_bytes());
        bytes
    }

    /// Reads a header of the log `log_id` at `address`.
    ///
    /// # Errors
    ///
    /// [`HeaderRefusal`]: these bytes are no evidence. `Version`, `Flags` and `Rule` are signed by this log's key: a
    /// newer release wrote them, or a defective one.
    pub fn decode_at(
        bytes: &[u8; HEADER_LEN],
        key: &HeaderKey,
        log_id: u64,
        address: u64,
    ) -> Result<Self, HeaderRefusal> {
        if !Self::is_likely(bytes) {
            return Err(HeaderRefusal::Magic);
        }
        if key.sign(&bytes[..64]) != u64_at(bytes, 64) {
            return Err(HeaderRefusal::Signature);
        }
        let header = Self {
            flags: BatchFlags::from_bits(bytes[5]),
            log_id: u64_at(bytes, 8),
            address: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            epoch: u32_at(bytes, 32),
            payload_len: u32_at(bytes, 36),
            durable: u64_at(bytes, 40),
            previous: u64_at(bytes, 48),
            salt: u64_at(bytes, 56),
        };
        // Log and address come first: what belongs elsewhere is no evidence here, whatever its version.
        if header.log_id != log_id {
            return Err(HeaderRefusal::OtherLog(header.log_id));
        }
        if header.address != address {
            return Err(HeaderRefusal::OtherAddress(header.address));
        }
        if bytes[4] != VERSION {
            return Err(HeaderRefusal::Version(bytes[4]));
        }
        if bytes[5] & !BatchFlags::ALL != 0 {
            return Err(HeaderRefusal::Flags(bytes[5]));
        }
        header.rules().map_err(HeaderRefusal::Rule)?;
        if bytes[6] != 0 || bytes[7] != 0 {
            return Err(HeaderRefusal::Rule("reserved bytes are not zero"));
        }
        Ok(header)
    }

    fn rules(&self) -> Result<(), &'static str> {
        let rules = [
            (
                self.address.is_multiple_of(BLOCK as u64) && self.address < MAX_ADDRESS,
                "the address is no block of a log",
            ),
            (self.payload_len >= 8 && self.payload_len.is_multiple_of(8), "the length is no multiple of 8"),
            (self.payload_len <= MAX_PAYLOAD, "the batch is longer than 256 MiB"),
            (self.durable <= self.address, "the promise is above the batch's own address"),
            (self.previous == super::NO_ADDRESS || self.previous < self.address, "the previous batch lies behind"),
            (self.epoch > 0, "epochs count from 1"),
            (self.number < u64::MAX, "the batch number is out of range"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
    }

    /// Returns the batch's layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::of(self.payload_len)
    }
}

/// Where the parts of a batch are, relative to its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Blocks that have a checksum: those of header and records.
    pub blocks: usize,
    /// Where the checksums begin, and the bytes covered by them end.
    pub table: usize,
    /// The whole batch, padding included: a multiple of 4096.
    pub len: usize,
}

impl Layout {
    /// Returns the layout of a batch with this many bytes of records.
    #[must_use]
    pub const fn of(payload_len: u32) -> Self {
        let table = HEADER_LEN + payload_len as usize;
        let blocks = table.div_ceil(BLOCK);
        let len = (table + (blocks + 1) * SUM_LEN).next_multiple_of(BLOCK);
        Self { blocks, table, len }
    }
}

/// Returns the bytes behind `payload_len` bytes of records: checksums and padding.
#[must_use]
pub const fn trailer_len(payload_len: u32) -> usize {
    let layout = Layout::of(payload_len);
    layout.len - layout.table
}

/// Returns how many bytes of records fit into a buffer of `buffer_len` bytes; 0 if it is no block.
#[must_use]
pub fn payload_capacity(buffer_len: usize) -> u32 {
    let buffer_len = buffer_len.min(256 << 20) / BLOCK * BLOCK;
    let most = buffer_len / BLOCK;
    // Few blocks are needed for checksums; the first length that leaves enough room for its own is the best.
    let fits = |blocks: &usize| (buffer_len - SUM_LEN * (blocks + 1)).div_ceil(BLOCK) <= *blocks;
    let blocks = (most - most.min(most / 512 + 2)..=most).skip_while(|&blocks| blocks == 0).find(fits);
    blocks.map_or(0, |blocks| ((buffer_len - SUM_LEN * (blocks + 1)).min(blocks * BLOCK) - HEADER_LEN) as u32)
}

/// What the ring knows about a batch when it seals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// The address of the header.
    pub base: u64,
    /// Counts the batches since the log was opened, from 0.
    pub generation: u64,
    /// The address of the batch before, or [`NO_ADDRESS`](super::NO_ADDRESS).
    pub previous: u64,
    /// Where the next batch begins.
    pub next_base: u64,
    /// The next batch begins at the next segment.
    pub last: bool,
    /// Bytes of records; a multiple of 8.
    pub payload_len: u32,
    /// The durable watermark, read before this call.
    pub durable: u64,
}

/// Seals the batches of one epoch: what the ring calls where it fills a buffer's padding.
///
/// # Examples
///
/// ```
/// use ringlog::format::{BatchInfo, Framing, HeaderKey, NO_ADDRESS, RecordHeader, RecordType};
///
/// let key = HeaderKey::new([7; 16]);
/// let framing = Framing::new(key, 1, 1, 99, 0, 0);
/// let mut buffer = vec![0; 4096];
/// let record = RecordHeader { len: 5, blocks_back: 0, record_type: RecordType::Record, kind: 0 };
/// buffer[72..80].copy_from_slice(&record.encode());
/// buffer[80..85].copy_from_slice(b"hello");
/// let info = BatchInfo {
///     base: 0, generation: 0, previous: NO_ADDRESS, next_base: 4096, last: false, payload_len: 16, durable: 0,
/// };
/// assert_eq!(framing.header_len() + 16 + framing.trailer_len(16), 4096);
/// framing.seal(&mut buffer, info);
/// ```
#[derive(Clone, Debug)]
pub struct Framing {
    key: HeaderKey,
    log_id: u64,
    epoch: u32,
    salt: u64,
    epoch_start: u64,
    first_number: u64,
    sums: BlockSums,
}

impl Framing {
    /// Seals batches of the epoch that starts at `epoch_start`; the first since opening gets `first_number`.
    #[must_use]
    pub fn new(key: HeaderKey, log_id: u64, epoch: u32, salt: u64, epoch_start: u64, first_number: u64) -> Self {
        let sums = BlockSums::new(log_id, salt, epoch);
        Self { key, log_id, epoch, salt, epoch_start, first_number, sums }
    }

    /// Seals batches behind this many others of the epoch.
    #[must_use]
    pub fn behind(self, batches: u64) -> Self {
        Self { first_number: self.first_number + batches, ..self }
    }

    /// Returns the bytes before the records.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Returns the bytes behind the records.
    #[must_use]
    pub const fn trailer_len(&self, payload_len: u32) -> usize {
        trailer_len(payload_len)
    }

    /// Writes header, checksums and padding around the records at `bytes[72..72 + payload_len]`.
    ///
    /// # Panics
    ///
    /// If `bytes` are shorter than the batch, or `info` breaks a rule of the format: both are errors of the caller,
    /// and sealing would write a batch that no reader accepts.
    pub fn seal(&self, bytes: &mut [u8], info: BatchInfo) {
        let layout = Layout::of(info.payload_len);
        assert!(bytes.len() >= layout.len, "a batch of {} bytes in a buffer of {}", layout.len, bytes.len());
        let (covered, trailer) = bytes[..layout.len].split_at_mut(layout.table);
        let (header, payload) = covered.split_at_mut(HEADER_LEN);
        self.seal_around(header, payload, trailer, info);
    }

    /// The same around `payload`, which lies between the two in memory: `header` is 72 bytes, and `trailer` reaches to
    /// the end of the batch.
    ///
    /// # Panics
    ///
    /// If the lengths are not those of the batch's [`Layout`], or `info` breaks a rule of the format.
    pub fn seal_around(&self, header: &mut [u8], payload: &[u8], trailer: &mut [u8], info: BatchInfo) {
        let layout = Layout::of(info.payload_len);
        assert_eq!(
            (header.len(), payload.len(), trailer.len()),
            (HEADER_LEN, info.payload_len as usize, layout.len - layout.table),
            "the parts of a batch"
        );
        let end = info.base + layout.len as u64;
        assert!(
            if info.last { info.next_base >= end } else { info.next_base == end },
            "next_base is not behind the batch"
        );
        let first = payload.first_chunk().and_then(|chunk| RecordHeader::decode(chunk, HEADER_LEN).ok().flatten());
        let is_noop = first.is_some_and(|record| record.record_type == RecordType::NoOp);
        let signed = BatchHeader {
            flags: BatchFlags {
                last: info.last,
                opens_epoch: info.base == self.epoch_start,
                empty: is_noop && payload.len() == RECORD_HEADER_LEN,
            },
            log_id: self.log_id,
            address: info.base,
            number: self.first_number + info.generation,
            epoch: self.epoch,
            salt: self.salt,
            payload_len: info.payload_len,
            durable: info.durable,
            previous: info.previous,
        };
        if let Err(rule) = signed.rules() {
            panic!("{rule}: {signed:?}");
        }
        header.copy_from_slice(&signed.encode(&self.key));
        // The first block is the header and what follows it.
        let (head, rest) = payload.split_at(payload.len().min(BLOCK - HEADER_LEN));
        let first = [&*header, head].concat();
        let (table, padding) = trailer.split_at_mut(layout.blocks * SUM_LEN);
        let blocks = [&*first].into_iter().chain(rest.chunks(BLOCK));
        for (n, (block, sum)) in blocks.zip(table.chunks_exact_mut(SUM_LEN)).enumerate() {
            let address = info.base + (n * BLOCK) as u64;
            sum.copy_from_slice(&self.sums.block(address, block).to_le_bytes());
        }
        padding.fill(0);
        put(padding, 0, &self.sums.table(info.base, table).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::NO_ADDRESS;

    fn header() -> BatchHeader {
        BatchHeader {
            flags: BatchFlags { last: true, opens_epoch: false, empty: true },
            log_id: 0x1111_2222_3333_4444,
            address: 8192,
            number: 7,
            epoch: 3,
            salt: 0x5555_6666_7777_8888,
            payload_len: 4000,
            durable: 4096,
            previous: 0,
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let key = HeaderKey::new([9; 16]);
        assert_eq!(BatchHeader::decode_at(&header().encode(&key), &key, header().log_id, 8192), Ok(header()));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_refused() {
        let key = HeaderKey::new([9; 16]);
        let bytes = header().encode(&key);
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode_at(&bad, &key, header().log_id, 8192).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_under_another_key_is_refused() {
        let bytes = header().encode(&HeaderKey::new([8; 16]));
        let read = BatchHeader::decode_at(&bytes, &HeaderKey::new([9; 16]), header().log_id, 8192);
        assert_eq!(read, Err(HeaderRefusal::Signature));
    }

    #[test]
    fn each_broken_rule_of_a_signed_header_has_its_refusal() {
        let key = HeaderKey::new([9; 16]);
        let read = |change: &dyn Fn(&mut BatchHeader)| {
            let mut bad = header();
            change(&mut bad);
            BatchHeader::decode_at(&bad.encode(&key), &key, header().log_id, bad.address)
        };
        assert!(matches!(read(&|h| h.address = 100), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.address = u64::MAX - 4095), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.payload_len = 12), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.payload_len = 0), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.payload_len = u32::MAX - 7), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.durable = 8193), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.previous = 8192), Err(HeaderRefusal::Rule(_))));
        assert!(matches!(read(&|h| h.epoch = 0), Err(HeaderRefusal::Rule(_))));
        assert_eq!(read(&|h| h.log_id = 5), Err(HeaderRefusal::OtherLog(5)));
        assert_eq!(read(&|h| h.previous = NO_ADDRESS).map(|h| h.previous), Ok(NO_ADDRESS));
        let mut newer = header().encode(&key);
        newer[4] = 2;
        let signature = key.sign(&newer[..64]);
        newer[64..].copy_from_slice(&signature.to_le_bytes());
        assert_eq!(BatchHeader::decode_at(&newer, &key, header().log_id, 8192), Err(HeaderRefusal::Version(2)));
        newer[4..6].copy_from_slice(&[VERSION, 0x80]);
        let signature = key.sign(&newer[..64]);
        newer[64..].copy_from_slice(&signature.to_le_bytes());
        assert_eq!(BatchHeader::decode_at(&newer, &key, header().log_id, 8192), Err(HeaderRefusal::Flags(0x80)));
    }

    #[test]
    fn a_buffer_is_filled_to_the_last_multiple_of_eight() {
        for blocks in (1..2000).chain([4095, 4096, 65_535, 65_536]) {
            let buffer = blocks * BLOCK;
            let fits = payload_capacity(buffer);
            assert!(fits.is_multiple_of(8) && Layout::of(fits).len <= buffer, "{blocks} blocks");
            assert!(Layout::of(fits + 8).len > buffer, "{blocks} blocks");
        }
        assert_eq!(payload_capacity(4096), 4096 - 72 - 16);
        assert_eq!(payload_capacity(0), 0);
        assert_eq!(payload_capacity(4095), 0);
    }
}
