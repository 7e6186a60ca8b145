//! Rebuilding the groups from the records of the log, and finding out what each of them has lost.
//!
//! The records of a group are numbered. Where damage was accepted, the next record of a group says by its number how
//! many are missing, and a state says what should be there:
//!
//! | what follows the gap | what is lost |
//! |---|---|
//! | the number that was expected | nothing |
//! | `n` records are missing, and the next entry, or state, is `n` entries behind the last one | these entries: no other `n` records lead so far |
//! | a state with the same last entry | nothing: equal last entries of Raft logs have equal entries before them |
//! | another state | the entries that are not committed for sure |
//! | another record | the same, and perhaps the vote, until it or the state is said again |
//! | nothing | the same, and what came behind, which is not known |

use core::ops::Range;
use std::collections::BTreeMap;

use ringlog::Lsn;

use crate::Error;
use crate::index::{Index, Lost};
use crate::record::{Body, Record, decode};

/// The groups, as far as the log is read.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    groups: BTreeMap<u64, Known>,
}

/// A group, as far as the log is read.
#[derive(Debug)]
struct Known {
    index: Index,
    /// The number of the newest record.
    number: u64,
    /// Where its records end.
    end: Lsn,
    /// How many records are missing.
    missing: u64,
    /// Whether the records before the first one that was read are trimmed or lost, and no state has followed.
    is_partial: bool,
    /// Whether the entries at the end may be others, or more.
    is_tail_open: bool,
    /// Whether a vote may be missing.
    is_vote_open: bool,
}

impl Recovered {
    /// Adds the next record of the log.
    pub(crate) fn add(&mut self, record: &ringlog::Record<'_>) -> Result<(), Error> {
        let foreign = || Error::Foreign(record.lsn);
        let Record { group, number, body } = decode(record.kind, record.payload).ok_or_else(foreign)?;
        if number == 1 || self.groups.get(&group).is_some_and(|known| number <= known.number) {
            // An earlier group of this number was removed, and the record that says so may be lost.
            self.groups.remove(&group);
        }
        if body == Body::Remove {
            self.groups.remove(&group);
            return Ok(());
        }
        let known = self.groups.entry(group).or_insert_with(|| Known::new(number, record.lsn));
        known.add(number, body, record).ok_or_else(foreign)?;
        known.end = record.end;
        Ok(())
    }

    /// The groups, each with the number of its newest record. `gaps` is the damage that was accepted.
    pub(crate) fn groups(self, gaps: &[Range<Lsn>]) -> BTreeMap<u64, (u64, Index)> {
        let gap = gaps.last().map_or(Lsn::START, |gap| gap.start);
        let ended = |(id, known): (u64, Known)| (id, (known.number, known.ended(gap)));
        self.groups.into_iter().map(ended).collect()
    }
}

impl Known {
    fn new(number: u64, at: Lsn) -> Self {
        let mut index = Index::default();
        index.state_at = at.get();
        let is_partial = number != 1;
        Self { index, number: number - 1, end: at, missing: 0, is_partial, is_tail_open: false, is_vote_open: false }
    }

    /// `None`: no log of this crate goes on so.
    fn add(&mut self, number: u64, body: Body<'_>, record: &ringlog::Record<'_>) -> Option<()> {
        let missing = number.checked_sub(self.number + 1)?;
        self.number = number;
        self.missing += missing;
        let next = self.index.next();
        // Entries lead there, and nothing else does.
        let are_entries = |end: u64| missing > 0 && next.checked_add(missing) == Some(end) && !self.is_tail_open;
        let is_explained = match &body {
            Body::Entry { index, .. } => are_entries(*index),
            Body::State(state) => are_entries(state.entries.end),
            _ => false,
        };
        if let Body::State(state) = body {
            let is_sure = (missing == 0 && !self.is_tail_open) || is_explained;
            // Of a partial group the last entry may be an older one.
            let is_same = state.last.is_some() && state.last == self.index.last() && !self.is_partial;
            let untrusted = if is_sure || is_same { u64::MAX } else { self.committed_to() };
            self.index.restore(state, untrusted, record.lsn);
            (self.is_partial, self.is_tail_open, self.is_vote_open, self.missing) = (false, false, false, 0);
            return Some(());
        }
        if missing > 0 && !is_explained {
            self.open();
        }
        match body {
            Body::Entry { index, leader, .. } => {
                // Where records are missing, an empty group does not begin anywhere.
                if !self.index.takes(index) || (self.missing > 0 && index != next) {
                    self.skip_to(index, is_explained)?;
                }
                self.is_tail_open = false;
                self.index.push(index, leader, record.lsn.get());
            }
            Body::Truncate(from) => {
                if self.is_tail_open && from > self.index.next() {
                    self.lose(from);
                }
                self.is_tail_open = false;
                self.index.truncate(from);
            }
            Body::Purge(id) => self.index.purge(id),
            Body::Vote(vote) => (self.index.vote, self.is_vote_open) = (Some(vote.to_vec()), false),
            Body::Committed(committed) => self.index.committed = committed,
            Body::State(_) | Body::Remove => {}
        }
        Some(())
    }

    /// The next entry is another one than the next.
    fn skip_to(&mut self, index: u64, is_explained: bool) -> Option<()> {
        let next = self.index.next();
        if self.missing > 0 && !is_explained && !self.is_tail_open {
            // It was missed that the group begins elsewhere.
            self.open();
        }
        if self.missing > 0 && index < next {
            // The truncation is lost.
            self.index.truncate(index);
        } else if self.missing > 0 {
            self.lose(index);
        } else if self.is_partial && index > next {
            // Those before are trimmed: the state will say that they were purged.
            self.index.lose_to(index, 0);
        } else {
            return None;
        }
        Some(())
    }

    /// Records are missing, and they may have said anything: from the first entry on that is not committed for sure,
    /// all may be others.
    fn open(&mut self) {
        let (next, sure) = (self.index.next(), self.index.first().max(self.committed_to()));
        (self.is_tail_open, self.is_vote_open) = (true, true);
        if sure < next {
            self.index.truncate(sure);
            self.index.lose_to(next, u64::MAX);
        }
    }

    /// The entries before `next` are lost that are not known.
    fn lose(&mut self, next: u64) {
        // More than records are missing cannot be: what is before was purged.
        self.index.lose_to(next, self.missing);
    }

    /// Behind the last entry that is committed for sure.
    fn committed_to(&self) -> u64 {
        self.index.committed.as_ref().map_or(0, |id| id.index + 1)
    }

    /// The log ends. The newest damage begins at `gap`.
    fn ended(mut self, gap: Lsn) -> Index {
        let is_silent = gap > Lsn::START && self.end <= gap;
        if is_silent || self.is_partial {
            self.open();
        }
        let known = self.index.gap();
        let lost = if self.is_partial {
            // What came before is not known either.
            Some(0..u64::MAX)
        } else if self.is_tail_open {
            Some(known.map_or(self.index.next(), |lost| lost.start)..u64::MAX)
        } else {
            known
        };
        if lost.is_some() || self.is_vote_open {
            let next = self.index.next();
            self.index.lost = Some(Lost { indexes: lost.unwrap_or(next..next), vote: self.is_vote_open });
        }
        self.index
    }
}
