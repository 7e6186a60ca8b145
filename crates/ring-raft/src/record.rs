//! The records of Raft groups, byte by byte.
//!
//! ```text
//! record: u64 group | u64 number | body         numbers of a group: 1, 2, 3, … without a gap
//! id:     u64 index | u32 length | leader       of an entry
//! entry:  id | the codec's bytes
//! ```
//!
//! The kind of a record is the kind byte of the log's record. The numbers are what finds lost records: a log with a gap
//! in which a group has no record goes on with the next number of that group.

use core::ops::Range;

use crate::EntryId;

/// Bytes of the group and the number.
const HEAD: usize = 16;

/// The kinds.
pub(crate) const ENTRY: u8 = 1;
pub(crate) const TRUNCATE: u8 = 2;
pub(crate) const PURGE: u8 = 3;
pub(crate) const VOTE: u8 = 4;
pub(crate) const COMMITTED: u8 = 5;
pub(crate) const STATE: u8 = 6;
pub(crate) const REMOVE: u8 = 7;

/// A record of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) group: u64,
    pub(crate) number: u64,
    pub(crate) body: Body<'a>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Entry {
        index: u64,
        leader: &'a [u8],
        data: &'a [u8],
    },
    /// The entries from here on are void.
    Truncate(u64),
    /// The entries up to this one are given up.
    Purge(EntryId),
    Vote(&'a [u8]),
    Committed(Option<EntryId>),
    State(State),
    /// The group is gone.
    Remove,
}

/// All of a group but its entries: what was said before it does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The indexes of the entries.
    pub(crate) entries: Range<u64>,
    /// The last entry, or what is purged if there is none.
    pub(crate) last: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) vote: Option<Vec<u8>>,
}

/// Bytes of an entry's record before those of the codec.
pub(crate) fn entry_head(leader: &[u8]) -> usize {
    HEAD + 12 + leader.len()
}

/// Writes them.
pub(crate) fn encode_entry_head(group: u64, number: u64, index: u64, leader: &[u8], into: &mut [u8]) {
    into[..8].copy_from_slice(&group.to_le_bytes());
    into[8..16].copy_from_slice(&number.to_le_bytes());
    into[16..24].copy_from_slice(&index.to_le_bytes());
    into[24..28].copy_from_slice(&(leader.len() as u32).to_le_bytes());
    into[28..28 + leader.len()].copy_from_slice(leader);
}

fn put_id(id: &EntryId, into: &mut Vec<u8>) {
    into.extend(id.index.to_le_bytes());
    put_bytes(&id.leader, into);
}

fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend((bytes.len() as u32).to_le_bytes());
    into.extend(bytes);
}

fn put_option<T>(value: Option<T>, into: &mut Vec<u8>, put: impl FnOnce(T, &mut Vec<u8>)) {
    into.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(value, into);
    }
}

impl Record<'_> {
    /// The kind, and the bytes.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>) {
        let mut bytes = [self.group.to_le_bytes(), self.number.to_le_bytes()].concat();
        let into = &mut bytes;
        let kind = match &self.body {
            Body::Entry { index, leader, data } => {
                put_id(&EntryId { index: *index, leader: (*leader).into() }, into);
                into.extend(*data);
                ENTRY
            }
            Body::Truncate(from) => {
                into.extend(from.to_le_bytes());
                TRUNCATE
            }
            Body::Purge(id) => {
                put_id(id, into);
                PURGE
            }
            Body::Vote(vote) => {
                into.extend(*vote);
                VOTE
            }
            Body::Committed(id) => {
                put_option(id.as_ref(), into, put_id);
                COMMITTED
            }
            Body::State(state) => {
                into.extend(state.entries.start.to_le_bytes());
                into.extend(state.entries.end.to_le_bytes());
                for id in [&state.last, &state.purged, &state.committed] {
                    put_option(id.as_ref(), into, put_id);
                }
                put_option(state.vote.as_ref(), into, |vote, into| put_bytes(vote, into));
                STATE
            }
            Body::Remove => REMOVE,
        };
        (kind, bytes)
    }
}

/// Takes values from the front of bytes; `None`: they are not there.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let (is_some, rest) = self.0.split_first()?;
        self.0 = rest;
        match is_some {
            0 => Some(None),
            1 => take(self).map(Some),
            _ => None,
        }
    }

    fn id(&mut self) -> Option<EntryId> {
        Some(EntryId { index: self.u64()?, leader: self.bytes()?.into() })
    }
}

/// Reads a record; `None`: it is none of this crate's.
pub(crate) fn decode(kind: u8, bytes: &[u8]) -> Option<Record<'_>> {
    let mut take = Take(bytes);
    let (group, number) = (take.u64()?, take.u64()?);
    let body = match kind {
        ENTRY => {
            let (index, leader) = (take.u64()?, take.bytes()?);
            let data = core::mem::take(&mut take.0);
            // Its successor has an index, too.
            (index < u64::MAX).then_some(Body::Entry { index, leader, data })?
        }
        TRUNCATE => Body::Truncate(take.u64()?),
        PURGE => {
            let id = take.id()?;
            (id.index < u64::MAX).then_some(Body::Purge(id))?
        }
        VOTE => Body::Vote(core::mem::take(&mut take.0)),
        COMMITTED => Body::Committed(take.option(Take::id)?),
        STATE => {
            let (start, end) = (take.u64()?, take.u64()?);
            let (last, purged) = (take.option(Take::id)?, take.option(Take::id)?);
            let (committed, vote) = (take.option(Take::id)?, take.option(|take| take.bytes().map(<[u8]>::to_vec))?);
            (start <= end).then_some(Body::State(State { entries: start..end, last, purged, committed, vote }))?
        }
        REMOVE => Body::Remove,
        _ => return None,
    };
    take.0.is_empty().then_some(Record { group, number, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_read_back_as_it_was_and_none_of_its_prefixes_panics() {
        let id = |index| EntryId { index, leader: (*b"leader").into() };
        let state = State {
            entries: 4..9,
            last: Some(id(8)),
            purged: Some(id(3)),
            committed: None,
            vote: Some(b"vote".to_vec()),
        };
        for body in [
            Body::Entry { index: 7, leader: b"", data: b"data" },
            Body::Truncate(5),
            Body::Purge(id(3)),
            Body::Vote(b"vote"),
            Body::Committed(None),
            Body::Committed(Some(id(6))),
            Body::State(State::default()),
            Body::State(state),
            Body::Remove,
        ] {
            let record = Record { group: 1, number: 2, body };
            let (kind, bytes) = record.encode();
            assert_eq!(decode(kind, &bytes), Some(record.clone()));
            for len in 0..bytes.len() {
                assert_ne!(decode(kind, &bytes[..len]), Some(record.clone()), "{len} of {record:?}");
            }
            assert_eq!(decode(0, &bytes), None);
        }
        let mut head = vec![0; entry_head(b"ab")];
        encode_entry_head(1, 2, 7, b"ab", &mut head);
        let entry = Record { group: 1, number: 2, body: Body::Entry { index: 7, leader: b"ab", data: b"" } };
        assert_eq!(entry.encode(), (ENTRY, head));
    }
}
