//! Payloads of the log's own records: named values, named positions, truncations, and the snapshot of all of them.
//!
//! | type | payload |
//! |---|---|
//! | metadata | u32 length of the name, name, value; kind 1 instead of 0: removed |
//! | cursor | u64 position, name; kind 1 instead of 0: removed |
//! | truncation | u64 address: records from there up to this one are void |
//! | snapshot | u64 address below which it is complete, u64 records before that or [`NOT_COUNTED`], entries |
//!
//! An entry of a snapshot is u32 length, three zero bytes, u8 type (7, 8 or 9), then the payload of that type and
//! zeros to a multiple of 8. A truncation in a snapshot has a second u64: where it ends.

use thiserror::Error;

use super::{is_zero, padded, u32_at, u64_at};

/// Why a payload of these types is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct OwnRefusal(&'static str);

/// The kind of a record that takes a name away, instead of setting it.
pub const REMOVED: u8 = 1;

/// Of a snapshot: the records before it were not counted.
pub const NOT_COUNTED: u64 = u64::MAX;

/// A named value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What it is set to.
    pub value: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// Returns the payload.
    ///
    /// # Panics
    ///
    /// If the name is longer than `u32::MAX`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = u32::try_from(self.name.len()).expect("a short name");
        [&len.to_le_bytes(), self.name, self.value].concat()
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`OwnRefusal`] if the name reaches beyond it.
    pub fn decode(payload: &'a [u8]) -> Result<Self, OwnRefusal> {
        let rest = payload.get(4..).ok_or(OwnRefusal("metadata without a name"))?;
        let split = rest.split_at_checked(u32_at(payload, 0) as usize);
        let (name, value) = split.ok_or(OwnRefusal("the name reaches beyond the payload"))?;
        Ok(Self { name, value })
    }
}

/// A named position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// Where it is.
    pub position: u64,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Position<'a> {
    /// Returns the payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.position.to_le_bytes(), self.name].concat()
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`OwnRefusal`] if it is shorter than a position.
    pub fn decode(payload: &'a [u8]) -> Result<Self, OwnRefusal> {
        let name = payload.get(8..).ok_or(OwnRefusal("a cursor without a position"))?;
        Ok(Self { position: u64_at(payload, 0), name })
    }
}

/// What makes records void: those from `from` up to the truncation itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The first address that is void.
    pub from: u64,
}

impl Truncation {
    /// Returns the payload.
    #[must_use]
    pub fn encode(&self) -> [u8; 8] {
        self.from.to_le_bytes()
    }

    /// Reads the payload of a truncation that stands at `address`.
    ///
    /// # Errors
    ///
    /// [`OwnRefusal`] if it is not 8 bytes, or reaches beyond itself.
    pub fn decode(payload: &[u8], address: u64) -> Result<Self, OwnRefusal> {
        if payload.len() != 8 {
            return Err(OwnRefusal("a truncation is 8 bytes"));
        }
        let from = u64_at(payload, 0);
        if from <= address { Ok(Self { from }) } else { Err(OwnRefusal("a truncation of what comes later")) }
    }
}

/// One thing that a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotEntry<'a> {
    /// A named value.
    Metadata(Metadata<'a>),
    /// A named position.
    Cursor(Position<'a>),
    /// A range of void records.
    Void {
        /// The first address.
        from: u64,
        /// Behind the last one.
        to: u64,
    },
}

const METADATA: u8 = 7;
const CURSOR: u8 = 8;
const VOID: u8 = 9;

/// All named values, positions and truncations, as of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// Below it, nothing is missing.
    pub complete_to: u64,
    /// Records before that address, since the log was created; or [`NOT_COUNTED`].
    pub records: u64,
    /// What it holds.
    pub entries: Vec<SnapshotEntry<'a>>,
}

impl<'a> Snapshot<'a> {
    /// Returns the payload.
    ///
    /// # Panics
    ///
    /// If an entry is longer than `u32::MAX`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [self.complete_to.to_le_bytes(), self.records.to_le_bytes()].concat();
        for entry in &self.entries {
            let (tag, payload) = match entry {
                SnapshotEntry::Metadata(metadata) => (METADATA, metadata.encode()),
                SnapshotEntry::Cursor(cursor) => (CURSOR, cursor.encode()),
                SnapshotEntry::Void { from, to } => (VOID, [from.to_le_bytes(), to.to_le_bytes()].concat()),
            };
            let len = u32::try_from(payload.len()).expect("a short entry");
            bytes.extend(len.to_le_bytes());
            bytes.extend([0, 0, 0, tag]);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    /// Reads the payload of a snapshot that stands at `address`.
    ///
    /// # Errors
    ///
    /// [`OwnRefusal`] if it is not well formed.
    pub fn decode(payload: &'a [u8], address: u64) -> Result<Self, OwnRefusal> {
        let mut rest = payload.get(16..).ok_or(OwnRefusal("a snapshot without its address"))?;
        let complete_to = u64_at(payload, 0);
        if complete_to > address {
            return Err(OwnRefusal("a snapshot of what comes later"));
        }
        let mut entries = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<8>() {
            let len = u32_at(head, 0);
            let entry = behind.get(..len as usize).ok_or(OwnRefusal("an entry reaches beyond the snapshot"))?;
            let padded = usize::try_from(padded(len)).unwrap_or(usize::MAX);
            let end = behind.get(len as usize..padded).filter(|zeros| is_zero(zeros));
            end.filter(|_| is_zero(&head[4..7])).ok_or(OwnRefusal("the padding of an entry is not zero"))?;
            entries.push(match (head[7], entry.len()) {
                (METADATA, _) => SnapshotEntry::Metadata(Metadata::decode(entry)?),
                (CURSOR, _) => SnapshotEntry::Cursor(Position::decode(entry)?),
                (VOID, 16) => SnapshotEntry::Void { from: u64_at(entry, 0), to: u64_at(entry, 8) },
                _ => return Err(OwnRefusal("an entry of an unknown type")),
            });
            rest = &behind[padded..];
        }
        if rest.is_empty() {
            Ok(Self { complete_to, records: u64_at(payload, 8), entries })
        } else {
            Err(OwnRefusal("half an entry"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_own_payloads_read_back_as_they_were_written() {
        let metadata = Metadata { name: b"vote", value: b"7" };
        assert_eq!(Metadata::decode(&metadata.encode()), Ok(metadata));
        let cursor = Position { position: 99, name: b"mailer" };
        assert_eq!(Position::decode(&cursor.encode()), Ok(cursor));
        assert_eq!(Truncation::decode(&Truncation { from: 5 }.encode(), 6), Ok(Truncation { from: 5 }));
        let entries =
            [SnapshotEntry::Metadata(metadata), SnapshotEntry::Cursor(cursor), SnapshotEntry::Void { from: 1, to: 2 }];
        let snapshot = Snapshot { complete_to: 1000, records: 3, entries: entries.to_vec() };
        assert_eq!(Snapshot::decode(&snapshot.encode(), 1000), Ok(snapshot));
    }

    #[test]
    fn payloads_that_reach_beyond_themselves_are_refused() {
        assert!(Metadata::decode(&[9, 0, 0, 0, 1]).is_err());
        assert!(Metadata::decode(&[1]).is_err());
        assert!(Position::decode(&[0; 7]).is_err());
        assert!(Truncation::decode(&[0; 9], 8).is_err());
        assert!(Truncation::decode(&9_u64.to_le_bytes(), 8).is_err());
        let good =
            Snapshot { complete_to: 8, records: 1, entries: vec![SnapshotEntry::Void { from: 1, to: 2 }] }.encode();
        assert!(Snapshot::decode(&good, 8).is_ok());
        assert!(Snapshot::decode(&good, 7).is_err());
        for len in 1..good.len() {
            assert_eq!(Snapshot::decode(&good[..len], 8).is_ok(), len == 16, "{len}");
        }
        for (at, byte) in [(16, 255), (16, 15), (20, 1), (23, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Snapshot::decode(&bad, 8).is_err(), "{at}");
        }
    }
}
