//! What is known of a group: where each entry is, which leader wrote it, and what was said of the rest.

use core::fmt;
use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;

use ringlog::Lsn;

use crate::record::State;

/// An entry: its index, and its leader as the consensus engine encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The index.
    pub index: u64,
    /// The leader that wrote it, encoded.
    pub leader: Arc<[u8]>,
}

/// What damage has taken from a group, or may have taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The entries. It ends at `u64::MAX` if it is not known how many there were.
    pub indexes: Range<u64>,
    /// Whether the vote may be an old one: the node must not vote in this group again.
    pub vote: bool,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.indexes;
        match end.saturating_sub(start) {
            0 => f.write_str("no entry")?,
            1 => write!(f, "entry {start}")?,
            _ if end == u64::MAX => write!(f, "what it had from entry {start} on")?,
            _ => write!(f, "the entries {start} to {}", end - 1)?,
        }
        if self.vote { f.write_str(", and perhaps its vote") } else { Ok(()) }
    }
}

/// Where an entry was that is lost.
pub(crate) const LOST: u64 = u64::MAX;

/// The entries of a group, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Of the first entry, or of the next one.
    first: u64,
    /// Where each entry is.
    places: VecDeque<u64>,
    /// By the first index that it wrote: a leader.
    leaders: VecDeque<(u64, Arc<[u8]>)>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) vote: Option<Vec<u8>>,
    /// Where the newest record begins that says all but the entries; or the first record of the group.
    pub(crate) state_at: u64,
    pub(crate) lost: Option<Lost>,
    pub(crate) is_removed: bool,
    pub(crate) recent: Recent,
}

impl Index {
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next entry has.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether an entry with this index may follow.
    pub(crate) fn takes(&self, index: u64) -> bool {
        index == self.next() || (self.is_empty() && self.purged.is_none())
    }

    /// Where an entry is.
    pub(crate) fn place(&self, index: u64) -> Option<u64> {
        self.places.get(index.checked_sub(self.first)? as usize).copied()
    }

    /// Where the first entry is.
    pub(crate) fn first_place(&self) -> Option<u64> {
        self.places.front().copied()
    }

    /// The leader that wrote an entry.
    pub(crate) fn leader(&self, index: u64) -> Option<&Arc<[u8]>> {
        self.place(index)?;
        let behind = self.leaders.partition_point(|(first, _)| *first <= index);
        self.leaders.get(behind.checked_sub(1)?).map(|(_, leader)| leader)
    }

    /// The last entry, or what is purged if there is none.
    pub(crate) fn last(&self) -> Option<EntryId> {
        let last = self.next().checked_sub(1);
        let entry = last.and_then(|index| Some(EntryId { index, leader: Arc::clone(self.leader(index)?) }));
        entry.or_else(|| self.purged.clone())
    }

    /// The last entry of each leader in the range.
    pub(crate) fn leaders(&self, range: Range<u64>) -> Vec<EntryId> {
        let (start, end) = (range.start.max(self.first), range.end.min(self.next()));
        let ends = self.leaders.iter().skip(1).map(|(first, _)| *first).chain([u64::MAX]);
        let parts = self.leaders.iter().zip(ends).map(|((first, leader), behind)| (*first, behind.min(end), leader));
        let in_range = parts.filter(|(first, behind, _)| start.max(*first) < *behind);
        in_range.map(|(_, behind, leader)| EntryId { index: behind - 1, leader: Arc::clone(leader) }).collect()
    }

    pub(crate) fn push(&mut self, index: u64, leader: &[u8], place: u64) {
        if self.is_empty() {
            (self.first, self.leaders) = (index, VecDeque::new());
        }
        if self.leaders.back().is_none_or(|(_, last)| **last != *leader) {
            self.leaders.push_back((index, leader.into()));
        }
        self.places.push_back(place);
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.places.truncate(from.saturating_sub(self.first) as usize);
        self.first = self.first.min(from);
        while self.leaders.pop_back_if(|(first, _)| *first >= from).is_some() {}
        self.recent.truncate(from);
    }

    /// Drops the entries up to `id`.
    pub(crate) fn purge(&mut self, id: EntryId) {
        let first = id.index + 1;
        if first >= self.next() {
            (self.first, self.places, self.leaders) = (first, VecDeque::new(), VecDeque::new());
        } else if first > self.first {
            self.places.drain(..(first - self.first) as usize);
            self.first = first;
            while self.leaders.get(1).is_some_and(|(begins, _)| *begins <= first) {
                self.leaders.pop_front();
            }
        }
        self.recent.purge(first);
        self.purged = Some(id);
    }

    pub(crate) fn state(&self) -> State {
        State {
            entries: self.first..self.next(),
            last: self.last(),
            purged: self.purged.clone(),
            committed: self.committed.clone(),
            vote: self.vote.clone(),
        }
    }

    /// Goes on as a record says that was read back: of the entries those from `untrusted` on are lost.
    pub(crate) fn restore(&mut self, state: State, untrusted: u64, at: Lsn) {
        self.state_at = at.get();
        let State { entries, last, purged, committed, vote } = state;
        if self.first != entries.start || self.next() != entries.end || untrusted < entries.end {
            let place = |index| self.place(index).filter(|_| index < untrusted).unwrap_or(LOST);
            let places = entries.clone().map(place).collect();
            let kept = |index: &u64| self.place(*index).is_some() && *index < untrusted;
            let mut leaders: VecDeque<(u64, Arc<[u8]>)> = VecDeque::new();
            for index in entries.clone().filter(kept) {
                if let Some(leader) = self.leader(index).filter(|leader| leaders.back().is_none_or(|l| l.1 != **leader))
                {
                    leaders.push_back((index, Arc::clone(leader)));
                }
            }
            if let Some(last) = last.filter(|last| leaders.back().is_none_or(|(_, leader)| *leader != last.leader)) {
                leaders.push_back((last.index, last.leader));
            }
            (self.first, self.places, self.leaders) = (entries.start, places, leaders);
        }
        (self.purged, self.committed, self.vote) = (purged, committed, vote);
    }

    /// The entries up to `next` are lost; at most so many of them, as what is before was purged.
    pub(crate) fn lose_to(&mut self, next: u64, most: u64) {
        if next.checked_sub(self.next()).is_none_or(|lost| lost > most) {
            (self.first, self.places, self.leaders) = (next.saturating_sub(most), VecDeque::new(), VecDeque::new());
        }
        while self.next() < next {
            self.places.push_back(LOST);
        }
    }

    /// The entries that are lost.
    pub(crate) fn gap(&self) -> Option<Range<u64>> {
        let lost = |place: &u64| *place == LOST;
        let (start, end) = (self.places.iter().position(lost)?, self.places.iter().rposition(lost)?);
        Some(self.first + start as u64..self.first + end as u64 + 1)
    }
}

/// The newest entries, encoded: those that reading needs no file for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// Of the first one.
    first: u64,
    entries: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Recent {
    /// Adds an entry, and keeps `limit` bytes at most.
    pub(crate) fn push(&mut self, index: u64, entry: Arc<[u8]>, limit: usize) {
        if self.first + self.entries.len() as u64 != index {
            *self = Self { first: index, ..Self::default() };
        }
        self.bytes += entry.len();
        self.entries.push_back(entry);
        self.shrink(limit);
    }

    pub(crate) fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.len();
            self.first += 1;
        }
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Arc<[u8]>> {
        self.entries.get(index.checked_sub(self.first)? as usize)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn truncate(&mut self, from: u64) {
        while self.first + self.entries.len() as u64 > from {
            let Some(entry) = self.entries.pop_back() else { return };
            self.bytes -= entry.len();
        }
    }

    fn purge(&mut self, first: u64) {
        while self.first < first {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.len();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, leader: &[u8]) -> EntryId {
        EntryId { index, leader: leader.into() }
    }

    fn filled() -> Index {
        let mut index = Index::default();
        for (at, leader) in [b"a", b"a", b"b", b"b", b"c"].into_iter().enumerate() {
            index.push(5 + at as u64, leader, 100 * at as u64);
        }
        index
    }

    #[test]
    fn leaders_are_known_after_truncations_and_purges() {
        let mut index = filled();
        assert_eq!((index.first(), index.next(), index.last()), (5, 10, Some(id(9, b"c"))));
        assert_eq!(index.leaders(0..20), [id(6, b"a"), id(8, b"b"), id(9, b"c")]);
        assert_eq!(index.leaders(6..8), [id(6, b"a"), id(7, b"b")]);
        assert_eq!(index.leaders(8..8), []);
        index.truncate(9);
        assert_eq!(index.last(), Some(id(8, b"b")));
        index.purge(id(6, b"a"));
        assert_eq!((index.first(), index.leaders(0..20)), (7, vec![id(8, b"b")]));
        index.push(9, b"b", 900);
        assert_eq!(index.leaders(0..20), [id(9, b"b")]);
        index.truncate(7);
        assert_eq!(
            (index.is_empty(), index.last(), index.takes(7), index.takes(8)),
            (true, Some(id(6, b"a")), true, false)
        );
        index.purge(id(20, b"d"));
        assert_eq!((index.next(), index.last(), index.leader(20)), (21, Some(id(20, b"d")), None));
    }

    #[test]
    fn what_is_restored_names_the_entries_that_are_not_known() {
        let mut index = filled();
        let state = State { entries: 7..12, last: Some(id(11, b"d")), ..State::default() };
        index.restore(state, 9, Lsn::new(7));
        assert_eq!((index.gap(), index.first(), index.next()), (Some(9..12), 7, 12));
        assert_eq!(index.last(), Some(id(11, b"d")));
        assert_eq!((index.place(8), index.place(9)), (Some(300), Some(LOST)));
    }

    #[test]
    fn the_newest_entries_are_kept_as_far_as_the_limit_allows() {
        let mut recent = Recent::default();
        for index in 3..13 {
            recent.push(index, [index as u8; 10].into(), 35);
        }
        assert_eq!((recent.get(9), recent.bytes()), (None, 30));
        assert_eq!(recent.get(10).map(|entry| entry[0]), Some(10));
        recent.truncate(12);
        assert_eq!((recent.get(12), recent.bytes()), (None, 20));
        recent.push(12, [9; 10].into(), 35);
        recent.purge(11);
        assert_eq!((recent.get(10), recent.get(12).map(|entry| entry[0]), recent.bytes()), (None, Some(9), 20));
        recent.purge(20);
        recent.push(20, [1; 50].into(), 35);
        assert_eq!((recent.get(20), recent.bytes()), (None, 0));
    }
}
