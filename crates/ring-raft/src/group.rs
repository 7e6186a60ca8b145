//! One group: its records are appended, and its entries read.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use ringlog::Lsn;
use tracing::{debug, trace};

use crate::index::{EntryId, Index, LOST};
use crate::logs::{Inner, lock};
use crate::record::{Body, ENTRY, Record, decode, encode_entry_head, entry_head};
use crate::{Error, GroupStats};

/// Entries that lie further apart than that are read one by one.
const SPARSE: u64 = 64 << 10;

/// A group, shared by all of its handles.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: u64,
    /// Held from the reservation of a record until the index knows it: so the index has the order of the log.
    pub(crate) writing: Mutex<Writing>,
    pub(crate) index: Mutex<Index>,
    pub(crate) counts: Counts,
}

/// What only one thread changes at a time, beside the index.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// The number of the newest record.
    pub(crate) number: u64,
    /// The entries from here on belong to a batch that failed, and there was no room to say that they are void.
    taken_back: Option<u64>,
    /// Behind the newest vote that was saved in this opening.
    vote_end: Option<Lsn>,
}

/// What a group has done in this opening.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    appended: AtomicU64,
    appended_bytes: AtomicU64,
    read: AtomicU64,
    read_from_file: AtomicU64,
}

impl Counts {
    // Relaxed: they order nothing.
    fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl Group {
    /// A group as the log has it; `number` is that of its newest record.
    pub(crate) fn new(id: u64, number: u64, index: Index) -> Arc<Self> {
        let writing = Mutex::new(Writing { number, ..Writing::default() });
        Arc::new(Self { id, writing, index: Mutex::new(index), counts: Counts::default() })
    }

    /// What is known of it, if it may be written to and read.
    fn known(&self) -> Result<MutexGuard<'_, Index>, Error> {
        let index = lock(&self.index);
        if index.is_removed {
            return Err(Error::UnknownGroup(self.id));
        }
        match &index.lost {
            Some(lost) => Err(Error::Lost { group: self.id, lost: lost.clone() }),
            None => Ok(index),
        }
    }

    pub(crate) fn stats(&self) -> GroupStats {
        let index = lock(&self.index);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GroupStats {
            group: self.id,
            entries: index.first()..index.next(),
            purged: index.purged.as_ref().map(|id| id.index),
            committed: index.committed.as_ref().map(|id| id.index),
            cached_bytes: index.recent.bytes(),
            appended: load(&self.counts.appended),
            appended_bytes: load(&self.counts.appended_bytes),
            read: load(&self.counts.read),
            read_from_file: load(&self.counts.read_from_file),
            lost: index.lost.clone(),
        }
    }
}

/// The log of one group, without a consensus engine: entries are bytes, and so are leaders and votes.
///
/// Made by [`RaftLogs::group_log`](crate::RaftLogs::group_log). What is appended is in memory when a call returns, and
/// durable in the order of the calls; [`on_durable`](Self::on_durable) says when. Clones are the same group.
///
/// ```
/// use ring_raft::{EntryId, RaftLogs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (logs, _) = RaftLogs::open_blocking("", ringlog::Log::options().in_memory())?;
/// let group = logs.group_log(7);
/// group.save_vote(b"for node 1, in term 1")?;
/// let mut batch = group.batch()?;
/// for (index, data) in [b"one", b"two"].into_iter().enumerate() {
///     batch.push(index as u64, b"leader", data.len(), |bytes| Ok(bytes.copy_from_slice(data)))?;
/// }
/// let end = batch.finish();
/// group.on_durable(end, |outcome| assert!(outcome.is_ok()));
///
/// let mut entries = Vec::new();
/// group.read(0..2, usize::MAX, |index, data| Ok(entries.push((index, data.to_vec()))))?;
/// assert_eq!(entries, [(0, b"one".to_vec()), (1, b"two".to_vec())]);
/// group.truncate(1)?;
/// assert_eq!(group.last()?.map(|id| id.index), Some(0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GroupLog {
    pub(crate) logs: Arc<Inner>,
    pub(crate) group: Arc<Group>,
}

impl fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupLog").field(&self.group.stats()).finish()
    }
}

impl GroupLog {
    /// Returns the number of the group.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.group.id
    }

    /// Begins to append entries: all of the batch, or none of it. Other writers of the group wait until it ends.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn batch(&self) -> Result<Batch<'_>, Error> {
        let writing = self.write()?;
        Ok(Batch { log: self, writing: Some(writing), end: self.logs.log.end(), entries: Vec::new() })
    }

    /// Makes the entries from `from` on void. Nothing happens if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Committed`] and [`Error::Purged`] if there are entries that must stay; [`Error::Lost`],
    /// [`Error::UnknownGroup`] and [`Error::Log`].
    pub fn truncate(&self, from: u64) -> Result<Lsn, Error> {
        let group = self.group.id;
        let mut writing = self.write()?;
        {
            let index = lock(&self.group.index);
            if let Some(purged) = index.purged.as_ref().map(|id| id.index).filter(|purged| from <= *purged) {
                return Err(Error::Purged { group, from, purged });
            }
            let committed = index.committed.as_ref().map(|id| id.index);
            if let Some(committed) = committed.filter(|committed| from <= *committed && from < index.next()) {
                return Err(Error::Committed { group, from, committed });
            }
            if from >= index.next() {
                return Ok(self.logs.log.end());
            }
        }
        let at = self.append(&mut writing, Body::Truncate(from))?;
        lock(&self.group.index).truncate(from);
        debug!(group, index = from, "truncated");
        self.done(writing, at)
    }

    /// Gives up the entries up to `id`. What lies beyond the last entry is what a snapshot brings: then none is left,
    /// and the group goes on behind `id`. Nothing happens if it is purged already.
    ///
    /// The segments that all groups have purged go with the next [trim](crate::RaftLogs::trim).
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], [`Error::UnknownGroup`] and [`Error::Log`].
    pub fn purge(&self, id: EntryId) -> Result<Lsn, Error> {
        let mut writing = self.write()?;
        if lock(&self.group.index).purged.as_ref().is_some_and(|purged| purged.index >= id.index) {
            return Ok(self.logs.log.end());
        }
        let at = self.append(&mut writing, Body::Purge(id.clone()))?;
        debug!(group = self.group.id, index = id.index, "purged");
        lock(&self.group.index).purge(id);
        self.done(writing, at)
    }

    /// Saves the vote, and returns the address up to which the log has to be durable before it counts. Saving the same
    /// vote once more writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], [`Error::UnknownGroup`] and [`Error::Log`].
    pub fn save_vote(&self, vote: &[u8]) -> Result<Lsn, Error> {
        let mut writing = self.write()?;
        if lock(&self.group.index).vote.as_deref() == Some(vote) {
            // One that was read back is durable.
            return Ok(writing.vote_end.unwrap_or(self.logs.log.durable()));
        }
        let at = self.append(&mut writing, Body::Vote(vote))?;
        debug!(group = self.group.id, "voted");
        writing.vote_end = Some(at.end);
        lock(&self.group.index).vote = Some(vote.to_vec());
        self.done(writing, at)
    }

    /// Saves up to where the group is committed: what must not be truncated any more.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], [`Error::UnknownGroup`] and [`Error::Log`].
    pub fn save_committed(&self, committed: Option<EntryId>) -> Result<Lsn, Error> {
        let mut writing = self.write()?;
        if lock(&self.group.index).committed == committed {
            return Ok(self.logs.log.end());
        }
        let at = self.append(&mut writing, Body::Committed(committed.clone()))?;
        lock(&self.group.index).committed = committed;
        self.done(writing, at)
    }

    /// Has `call` called when all below `end` is durable, or with the error why it never will be: in the order of the
    /// addresses, by a thread of the log.
    pub fn on_durable(&self, end: Lsn, call: impl FnOnce(Result<(), ringlog::Error>) + Send + 'static) {
        self.logs.log.on_durable(end, call);
    }

    /// Returns the vote that was saved last.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn vote(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.known()?.vote.clone())
    }

    /// Returns up to where the group is committed, as it was saved last.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn committed(&self) -> Result<Option<EntryId>, Error> {
        Ok(self.known()?.committed.clone())
    }

    /// Returns up to where the group is purged.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn purged(&self) -> Result<Option<EntryId>, Error> {
        Ok(self.known()?.purged.clone())
    }

    /// Returns the last entry, or what is purged if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn last(&self) -> Result<Option<EntryId>, Error> {
        Ok(self.known()?.last())
    }

    /// Returns the last entry of each leader in the range, without reading any.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] and [`Error::UnknownGroup`].
    pub fn leaders(&self, range: Range<u64>) -> Result<Vec<EntryId>, Error> {
        Ok(self.known()?.leaders(range))
    }

    /// Calls `each` for the entries of the range that the group has, in order: until they are `max` bytes together, but
    /// at least once if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], [`Error::UnknownGroup`], [`Error::Log`] for what cannot be read, [`Error::Decode`] with the
    /// error of `each`.
    pub fn read(
        &self,
        range: Range<u64>,
        max: usize,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let group = self.group.id;
        let wanted: Vec<_> = {
            let index = self.known()?;
            let (start, end) = (range.start.max(index.first()), range.end.min(index.next()));
            (start..end).map(|at| (at, index.place(at).unwrap_or(LOST), index.recent.get(at).cloned())).collect()
        };
        let mut given = 0;
        let mut give = |index: u64, data: &[u8], from_file: bool| {
            if given > 0 && given + data.len() > max {
                return Ok(false);
            }
            given = (given + data.len()).max(1);
            Counts::add(&self.group.counts.read, 1);
            Counts::add(&self.group.counts.read_from_file, u64::from(from_file));
            each(index, data).map_err(|source| Error::Decode { group, index, source })?;
            Ok(true)
        };
        for run in wanted.chunk_by(|a, b| a.2.is_some() == b.2.is_some()) {
            let goes_on = if run[0].2.is_some() {
                run.iter().try_fold(true, |goes_on, (index, _, data)| match data {
                    Some(data) if goes_on => give(*index, data, false),
                    _ => Ok(false),
                })?
            } else {
                let places: Vec<_> = run.iter().map(|(index, place, _)| (*index, *place)).collect();
                trace!(group, index = places[0].0, entries = places.len(), "read from the file");
                self.read_files(&places, |index, data| give(index, data, true))?
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Gives entries that are not in memory to `give`, until that is `false`.
    fn read_files(
        &self,
        places: &[(u64, u64)],
        mut give: impl FnMut(u64, &[u8]) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let log = &self.logs.log;
        let (first, last) = (places[0].1, places[places.len() - 1].1);
        let mut left = places;
        let mut early = HashMap::new();
        if (last - first) / (places.len() as u64) < SPARSE && places.len() > 1 {
            if Lsn::new(last) >= log.durable() {
                log.wait_durable(log.end())?;
            }
            let mut scan = log.scan(Lsn::new(first)..);
            while let [(index, place), rest @ ..] = left {
                if let Some(data) = early.remove(place) {
                    let data: Vec<u8> = data;
                    if !give(*index, self.data(*index, Lsn::new(*place), ENTRY, &data)?)? {
                        return Ok(false);
                    }
                    left = rest;
                    continue;
                }
                let Some(record) = scan.next().or_else(|error| self.or_purged(*index, error))? else { break };
                if record.lsn.get() == *place {
                    if !give(*index, self.data(*index, record.lsn, record.kind, record.payload)?)? {
                        return Ok(false);
                    }
                    left = rest;
                } else if record.lsn.get() > last {
                    break;
                } else if left.binary_search_by_key(&record.lsn.get(), |(_, place)| *place).is_ok() {
                    // One that is longer than a buffer ends behind later ones.
                    early.insert(record.lsn.get(), record.payload.to_vec());
                }
            }
        }
        let mut bytes = Vec::new();
        for (index, place) in left {
            let kind = match log.read(Lsn::new(*place), &mut bytes) {
                Ok(kind) => kind,
                Err(error) => match self.or_purged(*index, error)? {
                    Some(()) | None => return Ok(false),
                },
            };
            if !give(*index, self.data(*index, Lsn::new(*place), kind, &bytes)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What could not be read may be purged by now: then there is nothing to be read.
    fn or_purged<T>(&self, index: u64, error: ringlog::Error) -> Result<Option<T>, Error> {
        if self.known()?.place(index).is_none() { Ok(None) } else { Err(error.into()) }
    }

    /// The codec's bytes of a record that has to be the entry.
    fn data<'a>(&self, index: u64, at: Lsn, kind: u8, payload: &'a [u8]) -> Result<&'a [u8], Error> {
        match decode(kind, payload) {
            Some(Record { group, body: Body::Entry { index: found, data, .. }, .. })
                if (group, found) == (self.group.id, index) =>
            {
                Ok(data)
            }
            _ => Err(Error::Foreign(at)),
        }
    }

    fn known(&self) -> Result<MutexGuard<'_, Index>, Error> {
        self.group.known()
    }

    fn write(&self) -> Result<MutexGuard<'_, Writing>, Error> {
        let mut writing = lock(&self.group.writing);
        drop(self.known()?);
        if let Some(from) = writing.taken_back {
            self.append(&mut writing, Body::Truncate(from))?;
            writing.taken_back = None;
        }
        Ok(writing)
    }

    fn append(&self, writing: &mut Writing, body: Body<'_>) -> Result<Range<Lsn>, Error> {
        self.logs.append(&self.group, writing, body)
    }

    /// A record is known to the index: the group is free for others.
    fn done(&self, writing: MutexGuard<'_, Writing>, at: Range<Lsn>) -> Result<Lsn, Error> {
        drop(writing);
        self.logs.save_states(at.start);
        Ok(at.end)
    }
}

/// Entries that are being appended to a group: all of them, or none. Made by [`GroupLog::batch`].
///
/// Dropped without [`finish`](Self::finish), or after an error, it takes back what was appended.
#[derive(Debug)]
#[must_use = "a batch that is dropped appends nothing"]
pub struct Batch<'a> {
    log: &'a GroupLog,
    /// Until it is finished.
    writing: Option<MutexGuard<'a, Writing>>,
    end: Lsn,
    entries: Vec<Placed>,
}

/// An entry that was appended.
#[derive(Debug)]
struct Placed {
    index: u64,
    leader: Arc<[u8]>,
    at: Lsn,
    data: Option<Arc<[u8]>>,
}

impl Batch<'_> {
    /// Appends an entry of `size` bytes, that `encode` writes where it lies in the log: all of them are zeros at first.
    /// One that the snapshot covers with which the group begins is left out.
    ///
    /// # Errors
    ///
    /// [`Error::NotConsecutive`]; [`Error::Encode`] with the error of `encode`; [`Error::Log`].
    pub fn push(
        &mut self,
        index: u64,
        leader: &[u8],
        size: usize,
        encode: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (logs, group) = (&self.log.logs, self.log.group.id);
        let expected = match self.entries.last() {
            Some(last) => last.index + 1,
            None => {
                let known = lock(&self.log.group.index);
                if known.is_empty() && known.purged.as_ref().is_some_and(|purged| index <= purged.index) {
                    return Ok(());
                }
                if known.takes(index) { index } else { known.next() }
            }
        };
        if index != expected || index == u64::MAX {
            return Err(Error::NotConsecutive { group, index, expected });
        }
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let (head, number) = (entry_head(leader), writing.number + 1);
        let mut data = None;
        let failed = |source| Error::Encode { group, index, source };
        let len = head.checked_add(size).ok_or_else(|| failed(io::ErrorKind::FileTooLarge.into()))?;
        let at = logs.place(ENTRY, len, |bytes| {
            encode_entry_head(group, number, index, leader, bytes);
            encode(&mut bytes[head..]).map_err(failed)?;
            data = (logs.cache > 0).then(|| Arc::from(&bytes[head..]));
            Ok(())
        })?;
        writing.number = number;
        if number == 1 {
            lock(&self.log.group.index).state_at = at.start.get();
        }
        self.end = at.end;
        let leader = match self.entries.last() {
            Some(last) if *last.leader == *leader => Arc::clone(&last.leader),
            _ => leader.into(),
        };
        Counts::add(&self.log.group.counts.appended_bytes, size as u64);
        self.entries.push(Placed { index, leader, at: at.start, data });
        Ok(())
    }

    /// Makes the entries part of the group: they can be read from now on. Returns the address up to which the log has
    /// to be durable for them to be.
    pub fn finish(mut self) -> Lsn {
        let (group, entries) = (&self.log.group, core::mem::take(&mut self.entries));
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return self.end };
        trace!(group = group.id, index = first.index, entries = entries.len(), "appended");
        Counts::add(&group.counts.appended, entries.len() as u64);
        let last = last.at;
        let limit = self.log.logs.cache_of_a_group();
        let mut index = lock(&group.index);
        for Placed { index: number, leader, at, data } in entries {
            index.push(number, &leader, at.get());
            if let Some(data) = data {
                index.recent.push(number, data, limit);
            }
        }
        drop(index);
        self.writing = None;
        self.log.logs.save_states(last);
        self.end
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let (Some(writing), Some(first)) = (&mut self.writing, self.entries.first()) else { return };
        debug!(group = self.log.group.id, index = first.index, "taken back");
        // If the log has failed, nothing of it will be there either.
        if let Err(error) = self.log.append(writing, Body::Truncate(first.index)) {
            debug!(group = self.log.group.id, %error, "not taken back");
            writing.taken_back = Some(first.index);
        }
    }
}
