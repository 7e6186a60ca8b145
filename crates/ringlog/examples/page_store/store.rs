//! The page store: a mapping table, whose entries change by compare-and-swap only, and a log.

use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use ringlog::recovery::ReplayError;
use ringlog::{Log, Lsn, Options, Recovery, Upto};

use crate::page::{InLog, Node, PAGE, Unflushed};
use crate::record::{Content, Read};

/// A page with so many writes on its chain is put into one piece with the next one.
const LONGEST_CHAIN: usize = 16;

/// Writes of so many bytes are flushed alone. If more is written, or if the log holds the page in so many records
/// already, a flush writes the whole page.
const LONGEST_INCREMENT: usize = PAGE / 4;
const MOST_RECORDS: u32 = 4;

/// Pages of [`PAGE`] bytes each, zeros at first. All methods may be called by any number of threads.
pub(crate) struct Store {
    log: Log,
    /// By page id.
    table: Box<[Entry]>,
    /// Bytes that the chains of all pages take; about so many are allowed.
    memory: AtomicIsize,
    budget: isize,
    /// Where eviction goes on.
    hand: AtomicUsize,
    /// Held by the thread that cleans.
    cleaning: Mutex<()>,
    pub(crate) counts: Counts,
}

struct Entry {
    newest: ArcSwap<Node>,
    /// Since eviction came by last.
    is_used: AtomicBool,
}

/// What the store has done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) whole: AtomicU64,
    pub(crate) increments: AtomicU64,
    /// Seized a place in the log and lost the check.
    pub(crate) failed: AtomicU64,
    /// Pages read back, and the records read for them.
    pub(crate) loads: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) relocations: AtomicU64,
}

fn count(counter: &AtomicU64) {
    // Relaxed: it orders nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}

fn damaged(page: u32, at: Lsn, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("page {page}: the record at {at} {what}"))
}

impl Store {
    /// Opens the store at `path`, or makes it: the mapping table follows from the records of the log, in their order.
    pub(crate) fn open(options: Options, path: &Path, pages: u32, budget: usize) -> io::Result<(Self, Recovery)> {
        let mut found = vec![None; pages as usize];
        let mut incomplete = BTreeSet::new();
        let opened = options.open_with(path, |record| {
            let Read { page, previous, .. } = Read::decode(record.kind, record.payload)?;
            let known = found.get_mut(page as usize).ok_or_else(|| damaged(page, record.lsn, "is of no page"))?;
            match (*known, previous) {
                (_, None) => {
                    *known = Some(InLog::whole(record.lsn..record.end));
                    incomplete.remove(&page);
                }
                (Some(upon), Some(previous)) if upon.newest == previous => {
                    *known = Some(upon.incremented(record.lsn..record.end));
                }
                (Some(_), Some(_)) => return Err(damaged(page, record.lsn, "adds to one that is not the newest")),
                // What it adds to is trimmed: a copy of the page comes, which was durable before the trim.
                (None, Some(_)) => _ = incomplete.insert(page),
            }
            Ok(())
        });
        let (log, recovery) = opened.map_err(|error| match error {
            ReplayError::Stopped(_, error) => error,
            error => io::Error::other(error),
        })?;
        if let Some(page) = incomplete.first() {
            let what = format!("page {page}: the log has no record that holds all of it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let entry = |in_log| Entry { newest: ArcSwap::new(Node::absent(in_log)), is_used: AtomicBool::new(false) };
        let store = Self {
            log,
            table: found.into_iter().map(entry).collect(),
            memory: AtomicIsize::new(0),
            budget: budget as isize,
            hand: AtomicUsize::new(0),
            cleaning: Mutex::new(()),
            counts: Counts::default(),
        };
        Ok((store, recovery))
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Bytes of the log, live or not.
    pub(crate) fn log_len(&self) -> u64 {
        // In this order: the log may grow and be trimmed meanwhile.
        let first = self.log.first().get();
        self.log.end().get() - first
    }

    /// Pages that the log holds.
    pub(crate) fn live(&self) -> usize {
        self.table.iter().filter(|entry| entry.newest.load().in_log.is_some()).count()
    }

    /// What the table leads to now.
    pub(crate) fn newest(&self, page: u32) -> Arc<Node> {
        self.table[page as usize].newest.load_full()
    }

    fn is_newest(&self, page: u32, head: &Arc<Node>) -> bool {
        Arc::ptr_eq(head, &self.table[page as usize].newest.load())
    }

    /// Eviction spares the page once.
    fn mark_used(&self, page: u32) {
        // Relaxed: a hint.
        self.table[page as usize].is_used.store(true, Ordering::Relaxed);
    }

    /// Runs `attempt` on the newest state of a page until it has done its work. It does not for two reasons: the page
    /// has changed before its state could be replaced; or it met an error, mostly that the log does not hold that state
    /// any more, and the page has changed.
    pub(crate) fn retry<T>(
        &self,
        page: u32,
        mut attempt: impl FnMut(&Arc<Node>) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        loop {
            let head = self.newest(page);
            match attempt(&head) {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(_) if !self.is_newest(page, &head) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The check: the page becomes `new`, if it still is `head`.
    fn replace(&self, page: u32, head: &Arc<Node>, new: Arc<Node>) -> bool {
        let grown = new.memory as isize - head.memory as isize;
        let replaced = Arc::ptr_eq(&self.table[page as usize].newest.compare_and_swap(head, new), head);
        if replaced {
            // Relaxed: it orders nothing.
            self.memory.fetch_add(grown, Ordering::Relaxed);
        }
        replaced
    }

    /// Puts `bytes` into a page at `at`. A page that is not in memory is read only when its chain has become long.
    pub(crate) fn write(&self, page: u32, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at + bytes.len() <= PAGE, "beyond the end of the page");
        self.mark_used(page);
        self.retry(page, |head| {
            let mut new = Node::write(head, at, bytes);
            if new.writes > LONGEST_CHAIN {
                new = Node::whole(self.image(page, &new)?, new.in_log, Unflushed::Page);
            }
            Ok(self.replace(page, head, new).then_some(()))
        })?;
        self.make_room()
    }

    /// Returns the bytes of a page, and brings it into memory.
    pub(crate) fn read(&self, page: u32) -> io::Result<Box<[u8]>> {
        self.mark_used(page);
        let image = self.retry(page, |head| {
            if head.is_resident {
                return self.image(page, head).map(Some);
            }
            let resident = head.resident(|in_log| self.load(page, in_log))?;
            // If that fails, this is still what the page was when the read began.
            self.replace(page, head, Arc::clone(&resident));
            self.image(page, &resident).map(Some)
        })?;
        self.make_room()?;
        Ok(image)
    }

    pub(crate) fn image(&self, page: u32, head: &Node) -> io::Result<Box<[u8]>> {
        head.image(|in_log| self.load(page, in_log))
    }

    /// Has the log hold the page as it is now. Returns up to where the log has to be durable for the page to be so.
    pub(crate) fn flush(&self, page: u32) -> io::Result<Lsn> {
        self.retry(page, |head| match (head.unflushed, head.in_log) {
            (Unflushed::Nothing, in_log) => Ok(Some(in_log.map_or(Lsn::START, |in_log| in_log.end))),
            _ => Ok(self.try_flush(page, head, self.content(page, head)?, true)?.map(|in_log| in_log.end)),
        })
    }

    /// Identify: what a flush of this state has to write.
    pub(crate) fn content<'a>(&self, page: u32, head: &'a Node) -> io::Result<Content<'a>> {
        match (head.unflushed, head.in_log) {
            (Unflushed::Writes(bytes), Some(in_log)) if bytes <= LONGEST_INCREMENT && in_log.records < MOST_RECORDS => {
                Ok(Content::Increment(in_log, head.newest_writes()))
            }
            _ => Ok(Content::Whole(self.image(page, head)?)),
        }
    }

    /// Seize, check, write. `None`: the page is not `head` any more. Without `keep`, nothing of it stays in memory.
    ///
    /// `head` was loaded before the place is seized, so of two flushes of a page that succeed, the later one has the
    /// higher address: it began with what the earlier one had installed, which had its place by then. So recovery finds
    /// the newest state last. And a flush that is durable is not preceded by one that is missing, as a log is durable
    /// up to an address, and not before all places below are committed or given up.
    pub(crate) fn try_flush(
        &self,
        page: u32,
        head: &Arc<Node>,
        content: Content<'_>,
        keep: bool,
    ) -> io::Result<Option<InLog>> {
        let mut place = self.log.reserve(content.kind(), content.len())?;
        content.encode(page, &mut place);
        let record = place.lsn()..place.end();
        let (in_log, counter) = match &content {
            Content::Whole(_) => (InLog::whole(record), &self.counts.whole),
            Content::Increment(upon, _) => (upon.incremented(record), &self.counts.increments),
        };
        let new = match content {
            _ if !keep => Node::absent(Some(in_log)),
            Content::Whole(image) => Node::whole(image, Some(in_log), Unflushed::Nothing),
            Content::Increment(..) => Node::flushed(head, in_log),
        };
        if !self.replace(page, head, new) {
            // The place is in nothing's way: zeros, which no reader shows.
            drop(place);
            count(&self.counts.failed);
            return Ok(None);
        }
        // From here on the table leads there: nothing may come between.
        place.commit();
        count(counter);
        Ok(Some(in_log))
    }

    /// Reads a page back: from its newest record back to the one that holds all of it.
    fn load(&self, page: u32, in_log: InLog) -> io::Result<Box<[u8]>> {
        count(&self.counts.loads);
        let (mut at, mut records) = (in_log.newest, Vec::new());
        loop {
            let mut payload = Vec::new();
            let kind = self.read_record(at, &mut payload)?;
            count(&self.counts.records);
            let Read { page: of, previous, .. } = Read::decode(kind, &payload)?;
            if of != page {
                return Err(damaged(page, at, "is of another page"));
            }
            records.push((at, kind, payload));
            match previous {
                Some(previous) => at = previous,
                None => break,
            }
        }
        let mut image: Box<[u8]> = vec![0; PAGE].into();
        for (at, kind, payload) in records.iter().rev() {
            let applied = Read::decode(*kind, payload)?.apply(&mut image);
            applied.ok_or_else(|| damaged(page, *at, "does not fit it"))?;
        }
        Ok(image)
    }

    /// Reads a record, from its file, or from the ring while it is not durable. Waits until it is committed, if the
    /// thread that seized its place is just about to.
    fn read_record(&self, at: Lsn, into: &mut Vec<u8>) -> io::Result<u8> {
        if at < self.log.durable() {
            return Ok(self.log.read(at, into)?);
        }
        let mut staged = self.log.follow(at, Upto::Staged).unpinned();
        match staged.next()? {
            Some(record) if record.lsn == at => {
                into.extend_from_slice(record.payload);
                Ok(record.kind)
            }
            _ => Err(ringlog::Error::NotARecord(at).into()),
        }
    }

    /// Evicts pages until the rest fits the memory.
    fn make_room(&self) -> io::Result<()> {
        // Relaxed: they order nothing.
        while self.memory.load(Ordering::Relaxed) > self.budget {
            let page = self.hand.fetch_add(1, Ordering::Relaxed) % self.table.len();
            // Each page gets a second chance.
            if !self.table[page].is_used.swap(false, Ordering::Relaxed) {
                self.evict(page as u32)?;
            }
        }
        Ok(())
    }

    /// Removes a page from memory, once the log holds it. Does not insist if another thread changes it meanwhile.
    pub(crate) fn evict(&self, page: u32) -> io::Result<()> {
        let head = self.newest(page);
        let evicted = match head.unflushed {
            Unflushed::Nothing if head.memory == 0 => false,
            Unflushed::Nothing => self.replace(page, &head, Node::absent(head.in_log)),
            _ => match self.content(page, &head) {
                // It was relocated meanwhile.
                Err(_) if !self.is_newest(page, &head) => false,
                content => self.try_flush(page, &head, content?, false)?.is_some(),
            },
        };
        if evicted {
            count(&self.counts.evictions);
        }
        Ok(())
    }

    /// Gives up the oldest segment of the log, after what is live there has been copied to the end. `false`: there is
    /// only one segment, another thread is cleaning, or nothing could be given up.
    pub(crate) fn clean(&self) -> io::Result<bool> {
        let Ok(_alone) = self.cleaning.try_lock() else { return Ok(false) };
        let segments = self.log.segments();
        let [_, second, ..] = &*segments else { return Ok(false) };
        let before = second.range.start;
        // Each place before is committed or given up then. Without that, the first flush of a page could still be on
        // its way from its seizure there to its check, and the page be passed over as one that the log does not hold.
        self.log.wait_durable(before)?;
        for page in 0..self.table.len() as u32 {
            self.relocate(page, before)?;
        }
        // The copies have to be durable before the originals go.
        self.log.sync()?;
        Ok(self.log.trim(before)?.bytes > 0)
    }

    /// Has a page need nothing of the log before `before`.
    fn relocate(&self, page: u32, before: Lsn) -> io::Result<()> {
        self.retry(page, |head| match head.in_log {
            Some(in_log) if in_log.whole < before => {
                let image = self.image(page, head)?;
                let done = self.try_flush(page, head, Content::Whole(image), head.is_resident)?;
                Ok(done.map(|_| count(&self.counts.relocations)))
            }
            // Whatever it becomes later needs still less: its flushes have seized their places behind.
            _ => Ok(Some(())),
        })
    }
}
