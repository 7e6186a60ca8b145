//! The header of a segment file: which log and which segment it is. It promises no batch, because it is written ahead;
//! but it can say how long the file is.
//!
//! | at | field |
//! |---|---|
//! | 0, u32 | magic |
//! | 4, u8 x 4 | version, flags, 0, 0 |
//! | 8, u64 | log id |
//! | 16, u64 | segment number |
//! | 24, u64 | segment size |
//! | 32, u32 | length of the cookie |
//! | 36, u32 | 0 |
//! | 40 | the user's cookie, at most 2048 bytes; then zeros |
//! | 4088, u64 | CRC-64/NVME of bytes 0..4088 |

use thiserror::Error;

use super::bytes::put;
use super::{BLOCK, MAX_SEGMENT, MIN_SEGMENT, VERSION, crc64, is_zero, u32_at, u64_at};

/// The length of a segment header; addresses begin behind it.
pub const SEGMENT_HEADER_LEN: usize = BLOCK;

/// The longest cookie.
pub const MAX_COOKIE: usize = 2048;

const MAGIC: u32 = u32::from_le_bytes(*b"RLs1");
const COOKIE: usize = 40;
const CRC: usize = SEGMENT_HEADER_LEN - 8;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that it belongs to.
    pub log_id: u64,
    /// It holds the addresses from here times the segment size.
    pub number: u64,
    /// Bytes of addresses in each segment.
    pub segment_size: u64,
    /// The file had its whole length, on stable storage, before this header was written: one that is shorter was cut.
    pub whole: bool,
    /// Bytes that the user chooses when the log is created, the same in each segment.
    pub cookie: Vec<u8>,
}

/// Why a block is no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentRefusal {
    /// Another magic number.
    #[error("no segment header")]
    Magic,
    /// The checksum does not match.
    #[error("the checksum of the segment header does not match")]
    Checksum,
    /// A version that this crate does not know.
    #[error("format version {0} is unknown; use a newer release")]
    Version(u8),
    /// A rule of the format is broken.
    #[error("{0}")]
    Rule(&'static str),
}

impl SegmentHeader {
    /// Returns the header's block.
    ///
    /// # Panics
    ///
    /// If the cookie is longer than [`MAX_COOKIE`].
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        assert!(self.cookie.len() <= MAX_COOKIE, "a cookie of {} bytes", self.cookie.len());
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 4, &[VERSION, u8::from(self.whole)]);
        put(&mut bytes, 8, &self.log_id.to_le_bytes());
        put(&mut bytes, 16, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.segment_size.to_le_bytes());
        put(&mut bytes, 32, &(self.cookie.len() as u32).to_le_bytes());
        put(&mut bytes, COOKIE, &self.cookie);
        let sum = crc64(&bytes[..CRC]);
        put(&mut bytes, CRC, &sum.to_le_bytes());
        bytes
    }

    /// Reads a block.
    ///
    /// # Errors
    ///
    /// [`SegmentRefusal`] if it is no segment header of this version.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_LEN]) -> Result<Self, SegmentRefusal> {
        if u32_at(bytes, 0) != MAGIC {
            return Err(SegmentRefusal::Magic);
        }
        if crc64(&bytes[..CRC]) != u64_at(bytes, CRC) {
            return Err(SegmentRefusal::Checksum);
        }
        if bytes[4] != VERSION {
            return Err(SegmentRefusal::Version(bytes[4]));
        }
        let cookie_end = COOKIE + (u32_at(bytes, 32) as usize).min(MAX_COOKIE + 1);
        if cookie_end > COOKIE + MAX_COOKIE {
            return Err(SegmentRefusal::Rule("the cookie is too long"));
        }
        if bytes[5] > 1 || !is_zero(&bytes[6..8]) || !is_zero(&bytes[36..COOKIE]) || !is_zero(&bytes[cookie_end..CRC]) {
            return Err(SegmentRefusal::Rule("reserved bytes are not zero"));
        }
        let segment_size = u64_at(bytes, 24);
        if !is_segment_size(segment_size) {
            return Err(SegmentRefusal::Rule("the segment size is impossible"));
        }
        let cookie = bytes[COOKIE..cookie_end].to_vec();
        let (log_id, number, whole) = (u64_at(bytes, 8), u64_at(bytes, 16), bytes[5] == 1);
        Ok(Self { log_id, number, segment_size, whole, cookie })
    }

    /// Returns the length of a whole file.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        SEGMENT_HEADER_LEN as u64 + self.segment_size
    }
}

pub(crate) fn is_segment_size(bytes: u64) -> bool {
    (MIN_SEGMENT..=MAX_SEGMENT).contains(&bytes) && bytes.is_multiple_of(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let cookie = b"orders of shop 9".to_vec();
        SegmentHeader { log_id: 7, number: 3, segment_size: 32 << 10, whole: false, cookie }
    }

    /// With `change`, and the checksum right.
    fn read(change: impl FnOnce(&mut [u8; SEGMENT_HEADER_LEN])) -> Result<SegmentHeader, SegmentRefusal> {
        let mut bytes = header().encode();
        change(&mut bytes);
        let sum = crc64(&bytes[..CRC]);
        put(&mut bytes, CRC, &sum.to_le_bytes());
        SegmentHeader::decode(&bytes)
    }

    #[test]
    fn a_segment_header_reads_back_as_it_was_written() {
        assert_eq!(read(|_| ()), Ok(header()));
        assert_eq!(read(|bytes| bytes[5] = 1), Ok(SegmentHeader { whole: true, ..header() }));
    }

    #[test]
    fn each_broken_rule_of_a_segment_header_has_its_refusal() {
        assert_eq!(read(|bytes| bytes[0] ^= 1), Err(SegmentRefusal::Magic));
        assert_eq!(read(|bytes| bytes[4] = 9), Err(SegmentRefusal::Version(9)));
        assert!(matches!(read(|bytes| bytes[5] = 2), Err(SegmentRefusal::Rule(_))));
        assert!(matches!(read(|bytes| bytes[7] = 1), Err(SegmentRefusal::Rule(_))));
        assert!(matches!(read(|bytes| bytes[36] = 1), Err(SegmentRefusal::Rule(_))));
        assert!(matches!(read(|bytes| bytes[35] = 255), Err(SegmentRefusal::Rule(_))));
        assert!(matches!(read(|bytes| bytes[3000] = 1), Err(SegmentRefusal::Rule(_))));
        assert!(matches!(read(|bytes| bytes[24] = 1), Err(SegmentRefusal::Rule(_))));
        let mut bytes = header().encode();
        bytes[100] ^= 4;
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentRefusal::Checksum));
    }
}
