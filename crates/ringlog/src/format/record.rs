//! A record: 8 bytes of header, a payload, zeros to a multiple of 8.
//!
//! ```text
//! u32 length | u16 blocks back to the batch header | u8 type (never 0) | u8 kind, the user's
//! payload | zeros to a multiple of 8
//! ```
//!
//! Eight zero bytes where a header could stand are filler. The bytes of a record are covered by the checksums of its
//! batch.

use thiserror::Error;

use super::bytes::put;
use super::{BLOCK, u16_at, u32_at};

/// The length of a record header.
pub const RECORD_HEADER_LEN: usize = 8;

/// The length of what precedes each payload of a group: u32 length, three zero bytes, u8 kind.
pub const GROUP_ENTRY_LEN: usize = 8;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// One payload of the user.
    Record = 1,
    /// Several payloads of the user, atomically; see [`GROUP_ENTRY_LEN`].
    Group = 2,
    /// 8 bytes that are never shown: what an empty batch consists of.
    NoOp = 3,
    /// The first part of a record longer than a buffer: u64 length of the whole, u8 type of the whole, 7 zeros, bytes.
    First = 4,
    /// A further part: u64 address of the first one, bytes.
    Middle = 5,
    /// The last part: u64 address of the first one, bytes.
    Last = 6,
    /// A named value of the log.
    Metadata = 7,
    /// A named position.
    Cursor = 8,
    /// Makes the records from an address up to this one void.
    Truncation = 9,
    /// All named values, positions and truncations.
    Snapshot = 10,
}

impl RecordType {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Record,
            2 => Self::Group,
            3 => Self::NoOp,
            4 => Self::First,
            5 => Self::Middle,
            6 => Self::Last,
            7 => Self::Metadata,
            8 => Self::Cursor,
            9 => Self::Truncation,
            10 => Self::Snapshot,
            _ => return None,
        })
    }

    /// The fixed bytes that a payload of this type begins with.
    #[must_use]
    pub const fn prefix_len(self) -> usize {
        match self {
            Self::Record | Self::Group | Self::NoOp => 0,
            Self::Middle | Self::Last | Self::Cursor | Self::Truncation => 8,
            Self::First | Self::Snapshot => 16,
            Self::Metadata => 4,
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of payload.
    pub len: u32,
    /// Blocks between the header of the batch and this one.
    pub blocks_back: u16,
    /// What the record is.
    pub record_type: RecordType,
    /// A byte that the user chooses.
    pub kind: u8,
}

/// Why bytes of a verified batch are no record: a defect of the program that wrote them, or a newer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordRefusal {
    /// A type that this crate does not know.
    #[error("record type {0} is unknown; use a newer release")]
    Type(u8),
    /// It leads to another batch header.
    #[error("the record claims to be {0} blocks behind its batch's header")]
    BlocksBack(u16),
    /// It reaches beyond the records of its batch.
    #[error("a length of {0} bytes reaches beyond the batch")]
    Length(u32),
    /// The bytes up to a multiple of 8 are not zero.
    #[error("the padding is not zero")]
    Padding,
    /// The payload is not what its type asks for.
    #[error("{0}")]
    Payload(&'static str),
}

impl RecordHeader {
    /// Returns the header's bytes.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        put(&mut bytes, 0, &self.len.to_le_bytes());
        put(&mut bytes, 4, &self.blocks_back.to_le_bytes());
        put(&mut bytes, 6, &[self.record_type as u8, self.kind]);
        bytes
    }

    /// Reads the 8 bytes at `offset` of a batch; `None` is filler.
    ///
    /// # Errors
    ///
    /// [`RecordRefusal`] if they are neither.
    pub fn decode(bytes: &[u8; RECORD_HEADER_LEN], offset: usize) -> Result<Option<Self>, RecordRefusal> {
        if *bytes == [0; RECORD_HEADER_LEN] {
            return Ok(None);
        }
        let record_type = RecordType::from_byte(bytes[6]).ok_or(RecordRefusal::Type(bytes[6]))?;
        let header = Self { len: u32_at(bytes, 0), blocks_back: u16_at(bytes, 4), record_type, kind: bytes[7] };
        if usize::from(header.blocks_back) != offset / BLOCK {
            return Err(RecordRefusal::BlocksBack(header.blocks_back));
        }
        if record_type == RecordType::NoOp && header.len != 0 {
            return Err(RecordRefusal::Payload("a no-op has a payload"));
        }
        if (header.len as usize) < record_type.prefix_len() {
            return Err(RecordRefusal::Payload("the payload is shorter than its type asks for"));
        }
        Ok(Some(header))
    }

    /// Returns the bytes that the record takes in its batch.
    #[must_use]
    pub const fn padded_len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + padded(self.len)
    }
}

/// Returns `len`, rounded up to a multiple of 8.
#[must_use]
pub const fn padded(len: u32) -> u64 {
    (len as u64).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_header_reads_back_as_it_was_written() {
        let header = RecordHeader { len: 70_000, blocks_back: 3, record_type: RecordType::Group, kind: 200 };
        assert_eq!(RecordHeader::decode(&header.encode(), 3 * BLOCK + 8), Ok(Some(header)));
        assert_eq!(header.padded_len(), 70_008);
        assert_eq!(RecordHeader::decode(&[0; 8], 72), Ok(None));
    }

    #[test]
    fn each_broken_rule_of_a_record_header_has_its_refusal() {
        let header = RecordHeader { len: 9, blocks_back: 0, record_type: RecordType::Record, kind: 0 };
        assert_eq!(RecordHeader::decode(&header.encode(), BLOCK), Err(RecordRefusal::BlocksBack(0)));
        let typed = |byte: u8| {
            let mut bytes = header.encode();
            bytes[6] = byte;
            RecordHeader::decode(&bytes, 72)
        };
        assert_eq!(typed(0), Err(RecordRefusal::Type(0)));
        assert_eq!(typed(11), Err(RecordRefusal::Type(11)));
        assert!(matches!(typed(RecordType::NoOp as u8), Err(RecordRefusal::Payload(_))));
        assert!(matches!(typed(RecordType::First as u8), Err(RecordRefusal::Payload(_))));
    }
}
