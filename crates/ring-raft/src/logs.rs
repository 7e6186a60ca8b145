//! All groups of one log: opening, trimming, removing.

use core::fmt;
use core::future::Future;
use core::ops::Range;
#[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
use core::sync::atomic::AtomicBool;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog::recovery::Verdict;
use ringlog::{Log, Lsn, Trimmed};
use tracing::{info, warn};

use crate::apart::apart;
use crate::group::{Group, Writing};
use crate::index::{Index, Lost};
use crate::record::{Body, Record};
use crate::recovery::Recovered;
use crate::{Error, GroupLog, Options};

/// How long an append waits for room before it looks whether there will be any.
const SOON: Duration = Duration::from_millis(100);

/// Locks, also what a thread held that panicked: each change is complete when something else can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What opening has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// What the log says.
    pub log: ringlog::Recovery,
    /// How many groups there are.
    pub groups: usize,
    /// How many entries they have.
    pub entries: u64,
    /// By group, what damage has taken that was accepted when the log was opened. All other groups go on.
    pub lost: BTreeMap<u64, Lost>,
}

/// What a group has, and has done since the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// The number of the group.
    pub group: u64,
    /// The indexes of its entries.
    pub entries: Range<u64>,
    /// Up to where it is purged.
    pub purged: Option<u64>,
    /// Up to where it is committed, as was saved.
    pub committed: Option<u64>,
    /// Bytes of the entries that are kept in memory.
    pub cached_bytes: usize,
    /// Entries that were appended.
    pub appended: u64,
    /// Their bytes.
    pub appended_bytes: u64,
    /// Entries that were read.
    pub read: u64,
    /// Those of them that were not in memory.
    pub read_from_file: u64,
    /// What damage has taken.
    pub lost: Option<Lost>,
}

/// The logs of Raft groups, in one log. Cheap to clone; the last clone, of it and of its groups, closes the log.
///
/// ```
/// use ring_raft::RaftLogs;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("raft");
/// let (logs, recovery) = RaftLogs::open_blocking(&path, ringlog::Log::options())?;
/// assert_eq!((recovery.groups, logs.groups()), (0, vec![]));
/// let vote = logs.group_log(1).save_vote(b"for node 2")?;
/// logs.log().wait_durable(vote)?;
/// drop(logs);
/// let (logs, recovery) = RaftLogs::open_blocking(&path, ringlog::Log::options())?;
/// assert_eq!(logs.group_log(1).vote()?.as_deref(), Some(&b"for node 2"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RaftLogs {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for RaftLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLogs").field("log", &self.inner.log).field("groups", &self.groups()).finish()
    }
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) log: Log,
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
    group_count: AtomicUsize,
    /// Bytes of recent entries.
    pub(crate) cache: usize,
    segment_size: u64,
    /// The segment in which the state of all groups was said last.
    states_in: AtomicU64,
    #[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
    is_trimming: AtomicBool,
}

impl RaftLogs {
    /// Opens the log in the directory `path`, or creates it, and rebuilds all groups by one pass over it. A thread of
    /// its own reads the files.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: the log is damaged, locked, or cannot be read or written. [`Error::Foreign`]: it is not of Raft
    /// groups.
    pub fn open(
        path: impl AsRef<Path>,
        options: impl Into<Options>,
    ) -> impl Future<Output = Result<(Self, Recovery), Error>> + Send + 'static {
        let (path, options) = (path.as_ref().to_owned(), options.into());
        apart(move || Self::open_blocking(path, options))
    }

    /// The same by the calling thread.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_blocking(path: impl AsRef<Path>, options: impl Into<Options>) -> Result<(Self, Recovery), Error> {
        let Options { log, cache } = options.into();
        let mut recovered = Recovered::default();
        let (log, report) = log.open_with(path, |record| recovered.add(&record))?;
        let mut gaps = report.gaps.clone();
        if let Verdict::Damaged(damage) = &report.verdict
            && gaps.last().is_none_or(|gap| gap.start < damage.range.start)
        {
            // It was set aside: the log ends before it, and each group may have lost what it had there.
            gaps.push(report.end..report.end);
        }
        let groups = recovered.groups(&gaps);
        let lost: BTreeMap<_, _> =
            groups.iter().filter_map(|(id, (_, index))| Some((*id, index.lost.clone()?))).collect();
        for (group, lost) in &lost {
            warn!(group, index = lost.indexes.start, "lost {lost}");
        }
        let entries = groups.values().map(|(_, index)| index.next() - index.first()).sum();
        info!(groups = groups.len(), entries, "recovered");
        let groups = groups.into_iter().map(|(id, (number, index))| (id, Group::new(id, number, index)));
        let groups: BTreeMap<_, _> = groups.collect();
        let recovery = Recovery { groups: groups.len(), entries, lost, log: report };
        let segment_size = recovery.log.segment_size;
        let inner = Inner {
            states_in: AtomicU64::new(log.end().get() / segment_size),
            log,
            group_count: AtomicUsize::new(groups.len()),
            groups: Mutex::new(groups),
            cache,
            segment_size,
            #[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
            is_trimming: AtomicBool::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }

    /// The log of a group, which need not be there yet: its first record makes it.
    #[must_use]
    pub fn group_log(&self, id: u64) -> GroupLog {
        let mut groups = lock(&self.inner.groups);
        let new = || Group::new(id, 0, Index::default());
        let group = Arc::clone(groups.entry(id).or_insert_with(new));
        self.inner.group_count.store(groups.len(), Ordering::Relaxed);
        GroupLog { logs: Arc::clone(&self.inner), group }
    }

    /// Returns the numbers of the groups that have a record, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let groups = self.inner.all_groups();
        groups.iter().filter(|group| lock(&group.writing).number > 0).map(|group| group.id).collect()
    }

    /// Returns what a group has, and has done.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`].
    pub fn stats(&self, id: u64) -> Result<GroupStats, Error> {
        Ok(self.inner.existing(id)?.stats())
    }

    /// Removes a group with all that it has, durably: one that this node does not serve any more, or one that has
    /// [lost](Error::Lost) entries and is rebuilt from its peers. What still holds it gets [`Error::UnknownGroup`].
    ///
    /// Its number may be used again, for the same group of the cluster. Another group should get another number: where
    /// damage takes the record of the removal, what was committed before it may be there again.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] and [`Error::Log`].
    pub fn remove(&self, id: u64) -> Result<(), Error> {
        let group = self.inner.existing(id)?;
        let mut writing = lock(&group.writing);
        if lock(&group.index).is_removed {
            return Err(Error::UnknownGroup(id));
        }
        let at = self.inner.append(&group, &mut writing, Body::Remove)?;
        lock(&group.index).is_removed = true;
        info!(group = id, "removed");
        // Until then, trims leave what it needs if a crash has it come back.
        self.inner.wait_durable(at.end)?;
        lock(&self.inner.groups).remove(&id);
        Ok(())
    }

    /// Removes the segments that all groups have purged, or keeps them to be used again. The logs that openraft is
    /// given do so after a purge; other programs call it.
    ///
    /// What must survive is written again first: the votes, committed and purged indexes of groups that have not
    /// changed for long. A group that has [lost](Error::Lost) entries holds the log until it is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub fn trim(&self) -> Result<Trimmed, Error> {
        self.inner.trim()
    }

    /// The log under it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Closes the log for all clones and groups: what was appended becomes durable, and the callbacks are made.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub fn close(&self) -> Result<(), Error> {
        self.inner.log.close()?;
        Ok(())
    }
}

impl Inner {
    fn all_groups(&self) -> Vec<Arc<Group>> {
        lock(&self.groups).values().cloned().collect()
    }

    fn existing(&self, id: u64) -> Result<Arc<Group>, Error> {
        let group = lock(&self.groups).get(&id).cloned();
        group.filter(|group| lock(&group.writing).number > 0).ok_or(Error::UnknownGroup(id))
    }

    /// Bytes of recent entries that a group may keep.
    pub(crate) fn cache_of_a_group(&self) -> usize {
        self.cache / self.group_count.load(Ordering::Relaxed).max(1)
    }

    /// Has `fill` write a record in place, and waits for room; not for ever on a full disk.
    pub(crate) fn place(
        &self,
        kind: u8,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<Range<Lsn>, Error> {
        loop {
            match self.log.try_reserve(kind, len) {
                Ok(mut record) => {
                    // If it fails, the record is given up, and the log goes on.
                    fill(&mut record)?;
                    return Ok(record.commit());
                }
                Err(ringlog::Error::Full) => self.wait_durable(self.log.end())?,
                Err(too_large @ ringlog::Error::TooLarge { .. }) => {
                    // One that is longer than a buffer is placed in parts.
                    let mut bytes = Vec::new();
                    bytes.try_reserve_exact(len).map_err(|_| too_large)?;
                    bytes.resize(len, 0);
                    fill(&mut bytes)?;
                    return Ok(self.log.append(kind, &bytes)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until all below `end` is durable; not for ever on a full disk.
    pub(crate) fn wait_durable(&self, end: Lsn) -> Result<(), Error> {
        loop {
            match self.log.wait_durable_timeout(end, SOON) {
                Err(ringlog::Error::TimedOut) => self.log.check_room()?,
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Appends a record of a group.
    pub(crate) fn append(&self, group: &Group, writing: &mut Writing, body: Body<'_>) -> Result<Range<Lsn>, Error> {
        let says_all = matches!(body, Body::State(_));
        let (kind, bytes) = Record { group: group.id, number: writing.number + 1, body }.encode();
        let at = self.place(kind, bytes.len(), |into| {
            into.copy_from_slice(&bytes);
            Ok(())
        })?;
        writing.number += 1;
        if says_all || writing.number == 1 {
            lock(&group.index).state_at = at.start.get();
        }
        Ok(at)
    }

    /// A record was appended at `at`. The first one of a segment has the state of all groups written behind it: so that
    /// a damaged segment shows what each group has lost, and a trim has little left to write.
    pub(crate) fn save_states(&self, at: Lsn) {
        let segment = at.get() / self.segment_size;
        // Relaxed: it only chooses one thread. Looked at first, as it is shared by all groups.
        let is_done = self.states_in.load(Ordering::Relaxed) >= segment;
        if is_done || self.states_in.fetch_max(segment, Ordering::Relaxed) >= segment {
            return;
        }
        let limit = self.cache_of_a_group();
        for group in self.all_groups() {
            lock(&group.index).recent.shrink(limit);
            if let Err(error) = self.save_state(&group, segment * self.segment_size) {
                // A trim will do it.
                warn!(group = group.id, %error, "its state is not written");
                return;
            }
        }
    }

    /// Writes the state of a group if the newest one is below `address`.
    fn save_state(&self, group: &Group, address: u64) -> Result<(), Error> {
        let mut writing = lock(&group.writing);
        let state = {
            let index = lock(&group.index);
            let is_needed = writing.number > 0 && !index.is_removed && index.lost.is_none();
            (is_needed && index.state_at < address).then(|| index.state())
        };
        match state {
            Some(state) => self.append(group, &mut writing, Body::State(state)).map(drop),
            None => Ok(()),
        }
    }

    /// Up to where all groups have purged. Asked before the groups: what is appended later lies behind it.
    fn purged_to(&self, groups: &[Arc<Group>]) -> u64 {
        let end = self.log.end().get();
        let needed = groups.iter().flat_map(|group| {
            let _whole = lock(&group.writing);
            let index = lock(&group.index);
            // One that has lost entries is not written to, and one that is being removed may come back.
            let state = (index.lost.is_some() || index.is_removed).then_some(index.state_at);
            [index.first_place(), state].into_iter().flatten()
        });
        needed.fold(end, u64::min)
    }

    fn is_trimmable(&self, to: u64) -> bool {
        to / self.segment_size > self.log.first().get() / self.segment_size
    }

    fn trim(&self) -> Result<Trimmed, Error> {
        let groups = self.all_groups();
        let to = self.purged_to(&groups);
        if self.is_trimmable(to) {
            for group in &groups {
                self.save_state(group, to)?;
            }
            // The purges, too: if a crash took one back, its entries would be missing.
            self.wait_durable(self.log.end())?;
        }
        let trimmed = self.log.trim(Lsn::new(to))?;
        if trimmed.bytes > 0 {
            info!(first = trimmed.first.get(), bytes = trimmed.bytes, "trimmed");
        }
        Ok(trimmed)
    }

    /// The same by a thread, if there is something to be trimmed.
    #[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
    pub(crate) fn trim_apart(self: &Arc<Self>) {
        // Relaxed: it only keeps threads from being started in vain.
        if !self.is_trimmable(self.purged_to(&self.all_groups())) || self.is_trimming.swap(true, Ordering::Relaxed) {
            return;
        }
        let logs = Arc::clone(self);
        let trim = move || {
            logs.is_trimming.store(false, Ordering::Relaxed);
            if let Err(error) = logs.trim() {
                warn!(%error, "not trimmed");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("ring-raft-trim".into()).spawn(trim) {
            self.is_trimming.store(false, Ordering::Relaxed);
            warn!(%error, "not trimmed");
        }
    }
}
