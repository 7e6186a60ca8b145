//! The files of a log, and which addresses each of them holds.
//!
//! ```text
//!   address   0               S               2S              3S
//!             ├───────────────┼───────────────┼───────────────┤
//!   file      [h| segment 0   ][h| segment 1   ][h| segment 2   ]     h: 4096 bytes of its maker's
//! ```
//!
//! A log in one file is the trivial case: one segment without a header, which holds every address. It keeps no account
//! of its writes, since each sync covers all of it.

use core::mem;
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;

use ring_alloc::{BLOCK, is_aligned};

use crate::backend::{Backend, Flush, Job, Request, Storage, Unsynced};
use crate::file::LogFile;
use crate::lock::WriterLock;
use crate::locks::Mutex;
use crate::prealloc::settle::Scope;
use crate::{DeviceError, FileError, Finished, MemoryDevice, Operation, SegmentFault, event};

/// The bytes at the beginning of each segment's file that are its maker's: the log's first byte in it lies behind them.
pub const SEGMENT_HEADER: u64 = BLOCK as u64;

/// An open file for a segment, or memory in place of one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SegmentFile {
    /// A file, open for writing.
    File(Arc<File>),
    /// A file in memory, made by [`MemoryDevice::another_file`].
    Memory(MemoryDevice),
}

impl From<File> for SegmentFile {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

impl From<Arc<File>> for SegmentFile {
    fn from(file: Arc<File>) -> Self {
        Self::File(file)
    }
}

impl From<MemoryDevice> for SegmentFile {
    fn from(device: MemoryDevice) -> Self {
        Self::Memory(device)
    }
}

/// One file of a log, as the engines know it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// The address of the first byte that it holds.
    start: u64,
    /// Where in the file that byte is.
    header: u64,
    medium: Medium,
    /// [`Storage::logical_block_size`].
    pub(crate) logical_block_size: usize,
}

#[derive(Debug)]
enum Medium {
    File(Arc<LogFile>),
    Memory(MemoryDevice),
}

impl Medium {
    fn storage(&self) -> &dyn Storage {
        match self {
            Self::File(file) => &**file,
            Self::Memory(device) => device,
        }
    }
}

impl Segment {
    /// All of a log, in one file.
    pub(crate) fn whole(file: Arc<LogFile>) -> Arc<Self> {
        Arc::new(Self::new(0, 0, 0, Medium::File(file)))
    }

    /// All of a log, in memory.
    pub(crate) fn whole_in_memory(device: MemoryDevice) -> Arc<Self> {
        Arc::new(Self::new(0, 0, 0, Medium::Memory(device)))
    }

    fn new(number: u64, start: u64, header: u64, medium: Medium) -> Self {
        let logical_block_size = medium.storage().logical_block_size();
        Self { number, start, header, medium, logical_block_size }
    }

    /// The segment with this `number`, for a log in segments of `size` bytes, and the right to be its only writer.
    pub(crate) fn open(size: u64, number: u64, file: SegmentFile) -> Result<(Arc<Self>, WriterLock), FileError> {
        let refused = |fault| FileError::Segment { number, fault };
        let start = number.checked_mul(size).ok_or(refused(SegmentFault::Beyond))?;
        start.checked_add(size + SEGMENT_HEADER).ok_or(refused(SegmentFault::Beyond))?;
        let medium = match file {
            SegmentFile::File(file) => Medium::File(Arc::new(LogFile::new(file))),
            SegmentFile::Memory(device) => Medium::Memory(device),
        };
        let segment = Self::new(number, start, SEGMENT_HEADER, medium);
        let storage = segment.storage();
        storage.check()?;
        let len = storage.len().map_err(|error| match error {
            FileError::NoEnd => refused(SegmentFault::Device),
            error => error,
        })?;
        let needed = size + SEGMENT_HEADER;
        if len < needed {
            return Err(refused(SegmentFault::Short { len, needed }));
        }
        let lock = storage.lock()?;
        Ok((Arc::new(segment), lock))
    }

    /// Where in the file the byte at `address` is.
    pub(crate) fn offset(&self, address: u64) -> u64 {
        address - self.start + self.header
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        self.medium.storage()
    }

    /// What the engines for files write to.
    pub(crate) fn file(&self) -> &Arc<LogFile> {
        match &self.medium {
            Medium::File(file) => file,
            Medium::Memory(_) => unreachable!("memory under an engine for files"),
        }
    }

    /// What the engine in memory writes to.
    pub(crate) fn memory(&self) -> &MemoryDevice {
        self.device().expect("memory under the engine in memory")
    }

    /// The device that it is on, if that is one in memory.
    pub(crate) fn device(&self) -> Option<&MemoryDevice> {
        match &self.medium {
            Medium::File(_) => None,
            Medium::Memory(device) => Some(device),
        }
    }

    /// Whether one engine serves both.
    fn is_beside(&self, other: &Self) -> bool {
        match (self.device(), other.device()) {
            (Some(device), Some(other)) => device.is_on(other),
            (device, other) => device.is_none() && other.is_none(),
        }
    }

    /// What it was made of.
    pub(crate) fn handed_back(&self) -> SegmentFile {
        match &self.medium {
            Medium::File(file) => SegmentFile::File(file.handed_back()),
            Medium::Memory(device) => SegmentFile::Memory(device.clone()),
        }
    }
}

/// What a log is in.
#[derive(Debug)]
pub(crate) enum Files {
    One(Arc<Segment>),
    Segments(Segments),
}

impl Files {
    /// All that are there, by their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        match self {
            Self::One(file) => vec![Arc::clone(file)],
            Self::Segments(segments) => segments.all(),
        }
    }

    /// The one file of the log.
    pub(crate) fn one(&self) -> Result<&dyn Storage, FileError> {
        match self {
            Self::One(file) => Ok(file.storage()),
            Self::Segments(_) => Err(FileError::Segmented),
        }
    }

    pub(crate) fn segments(&self) -> Result<&Segments, FileError> {
        match self {
            Self::One(_) => Err(FileError::NotSegmented),
            Self::Segments(segments) => Ok(segments),
        }
    }

    /// A write is about to go to the device.
    pub(crate) fn begin(&self, request: Request) -> Begun {
        match self {
            Self::One(file) => Begun::Now(request.to(file)),
            Self::Segments(segments) => segments.begin(request),
        }
    }

    /// The same; if it has to wait, or cannot be written, it is kept here. It is counted as in flight already.
    pub(crate) fn begin_or_keep(&self, request: Request, backend: &dyn Backend) -> Option<Request> {
        match self {
            Self::One(file) => Some(request.to(file)),
            Self::Segments(segments) => segments.begin_or_keep(request, backend),
        }
    }

    /// A write that had begun has ended. `durable`: and is on stable storage.
    pub(crate) fn ended(&self, file: u64, durable: bool) {
        if let Self::Segments(segments) = self {
            segments.ended(file, durable);
        }
    }

    /// What a sync has to cover that begins now.
    pub(crate) fn flush(&self, scope: Scope) -> Flush {
        match self {
            Self::One(file) => Flush::of(file, scope),
            Self::Segments(segments) => segments.flush(scope),
        }
    }

    /// The sync of a file has succeeded.
    pub(crate) fn synced(&self, file: &Unsynced) {
        if let Self::Segments(segments) = self {
            segments.synced(file);
        }
    }

    /// A write or a sync has failed.
    pub(crate) fn fail(&self, failure: &DeviceError, backend: &dyn Backend) {
        if let Self::Segments(segments) = self {
            segments.fail(failure, backend);
        }
    }

    /// Fills `buf`, which is as long as `range`. It answers fewer bytes only where the next segment is missing, or a
    /// file ends.
    pub(crate) fn read_at(&self, range: Range<u64>, buf: &mut [u8]) -> Result<usize, DeviceError> {
        match self {
            Self::One(file) => {
                let read = file.storage().read_at(range.start, buf);
                read.map_err(|errno| DeviceError::new(Operation::Read, errno, range))
            }
            Self::Segments(segments) => segments.read_at(range, buf),
        }
    }

    /// What came back untried since the last call, each with the address of the write after it.
    pub(crate) fn take_untried(&self) -> Vec<(u64, Finished)> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Segments(segments) => segments.take_untried(),
        }
    }

    /// Never frees nor unlocks them.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::One(file) => mem::forget(Arc::clone(file)),
            Self::Segments(segments) => mem::forget(mem::take(segments.state.get_mut())),
        }
    }
}

/// The segments of a log that are there, and the writes that wait for those that are not.
#[derive(Debug)]
pub(crate) struct Segments {
    size: u64,
    state: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    files: BTreeMap<u64, Entry>,
    /// Those with smaller numbers were removed, if they ever were there.
    first: u64,
    /// Writes that wait for their own segment, or for that of the write after them.
    held: Vec<Request>,
    /// Why none waits any more.
    failure: Option<DeviceError>,
    /// What came back without having been tried, with the address of the write after it.
    untried: Vec<(u64, Finished)>,
}

/// A segment, and what happens to it.
#[derive(Debug)]
struct Entry {
    segment: Arc<Segment>,
    in_flight: usize,
    /// Writes that came back, and were not durable by themselves.
    ended: u64,
    /// How many of them a sync covers that has succeeded.
    synced: u64,
    _lock: WriterLock,
}

/// When a write goes to the device.
#[derive(Debug)]
pub(crate) enum Begun {
    Now(Request),
    /// The segment with this number is not there yet: its own, or that of the write after it.
    NotYet(Request, u64),
    /// It cannot be written.
    Never(Request, DeviceError),
}

impl Table {
    fn check_beside(&self, segment: &Segment) -> Result<(), FileError> {
        let is_alone = |other: &Entry| !segment.is_beside(&other.segment);
        let refused = FileError::Segment { number: segment.number, fault: SegmentFault::Elsewhere };
        if self.files.values().next().is_some_and(is_alone) { Err(refused) } else { Ok(()) }
    }

    /// The segment with this number that is not there, of those that `request` needs.
    fn missing(&self, size: u64, request: &Request) -> Option<u64> {
        let needed = [request.offset / size, request.next / size];
        needed.into_iter().find(|number| !self.files.contains_key(number))
    }

    fn begin(&mut self, size: u64, request: Request) -> Begun {
        let number = request.offset / size;
        let last = request.range().end.saturating_sub(1).max(request.offset) / size;
        if last != number {
            let error = DeviceError::crosses(request.range(), (number + 1).saturating_mul(size));
            return Begun::Never(request, error);
        }
        if number < self.first {
            let error = DeviceError::no_segment(Operation::Write, request.range(), number);
            return Begun::Never(request, error);
        }
        if let Some(missing) = self.missing(size, &request) {
            return match &self.failure {
                Some(failure) => {
                    let error = DeviceError::untried(request.range(), failure);
                    Begun::Never(request, error)
                }
                None => Begun::NotYet(request, missing),
            };
        }
        let entry = self.files.get_mut(&number).expect("a segment that is not missing");
        entry.in_flight += 1;
        Begun::Now(request.to(&entry.segment))
    }
}

impl Segments {
    /// # Errors
    ///
    /// [`FileError`], if one of the files cannot be a segment, or there is none.
    pub(crate) fn new(size: u64, files: impl IntoIterator<Item = (u64, SegmentFile)>) -> Result<Self, FileError> {
        if size < BLOCK as u64 || !is_aligned(size) || size.checked_add(SEGMENT_HEADER).is_none() {
            return Err(FileError::SegmentSize(size));
        }
        let mut state = Table::default();
        for (number, file) in files {
            let there = state.files.contains_key(&number);
            let (segment, lock) = if there { Err(there_already(number)) } else { Segment::open(size, number, file) }?;
            state.check_beside(&segment)?;
            state.files.insert(number, Entry::new(segment, lock));
        }
        let Some(&first) = state.files.keys().next() else {
            return Err(FileError::Segment { number: 0, fault: SegmentFault::Missing });
        };
        state.first = first;
        Ok(Self { size, state: Mutex::new(state) })
    }

    /// Bytes of the log in each.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The first that is there.
    pub(crate) fn first(&self) -> Arc<Segment> {
        let state = self.state.lock();
        Arc::clone(&state.files.values().next().expect("a log has a segment").segment)
    }

    /// The address of its first byte.
    pub(crate) fn start(&self) -> u64 {
        self.first().start
    }

    fn all(&self) -> Vec<Arc<Segment>> {
        self.state.lock().files.values().map(|entry| Arc::clone(&entry.segment)).collect()
    }

    /// The segment that holds this address, or the number that it would have.
    pub(crate) fn at(&self, address: u64) -> Result<Arc<Segment>, u64> {
        let number = address / self.size;
        self.state.lock().files.get(&number).map(|entry| Arc::clone(&entry.segment)).ok_or(number)
    }

    fn read_at(&self, range: Range<u64>, buf: &mut [u8]) -> Result<usize, DeviceError> {
        let mut done = 0;
        loop {
            let at = range.start + done as u64;
            let segment = match self.at(at) {
                Ok(segment) => segment,
                Err(number) if done == 0 => return Err(DeviceError::no_segment(Operation::Read, range, number)),
                Err(_) => return Ok(done),
            };
            let len = (segment.start + self.size - at).min((buf.len() - done) as u64) as usize;
            let read = segment.storage().read_at(segment.offset(at), &mut buf[done..done + len]);
            let read = read.map_err(|errno| DeviceError::new(Operation::Read, errno, range.clone()))?;
            done += read;
            if read < len || done == buf.len() {
                return Ok(done);
            }
        }
    }

    /// One more is there. Sends the writes that have waited for it.
    pub(crate) fn add(&self, segment: Arc<Segment>, lock: WriterLock, backend: &dyn Backend) -> Result<(), FileError> {
        let number = segment.number;
        let mut state = self.state.lock();
        if number < state.first {
            return Err(FileError::Segment { number, fault: SegmentFault::Removed });
        }
        if state.files.contains_key(&number) {
            return Err(there_already(number));
        }
        state.check_beside(&segment)?;
        state.files.insert(number, Entry::new(Arc::clone(&segment), lock));
        let mut ready = Vec::new();
        for request in mem::take(&mut state.held) {
            match state.begin(self.size, request) {
                Begun::Now(request) => ready.push(request),
                Begun::NotYet(request, _) | Begun::Never(request, _) => state.held.push(request),
            }
        }
        drop(state);
        backend.add(&segment);
        let writes = ready.len();
        event!(DEBUG, number, writes, "segment added");
        for request in ready {
            backend.submit(Job::Write(request));
            backend.retract();
        }
        Ok(())
    }

    /// Takes those with smaller numbers away, all or none.
    pub(crate) fn remove_before(&self, number: u64, backend: &dyn Backend) -> Result<Vec<Arc<Segment>>, FileError> {
        let refused = |number, fault| FileError::Segment { number, fault };
        let mut state = self.state.lock();
        let last = state.files.keys().next_back().copied().unwrap_or_default();
        if number > last {
            return Err(refused(last, SegmentFault::Last));
        }
        if backend.has_given_up() {
            // The kernel may still carry out what has come back.
            return Err(refused(number.saturating_sub(1), SegmentFault::InUse));
        }
        let held = state.held.iter().map(|request| request.offset / self.size).find(|&held| held < number);
        // A sync, a read or a list may have it, too.
        let is_busy = |entry: &mut Entry| entry.in_flight > 0 || Arc::get_mut(&mut entry.segment).is_none();
        let mut files = state.files.range_mut(..number);
        let busy = files.find_map(|(&number, entry)| is_busy(entry).then_some(number));
        if let Some(busy) = held.or(busy) {
            return Err(refused(busy, SegmentFault::InUse));
        }
        if let Some((&number, _)) = state.files.range(..number).find(|(_, entry)| entry.ended > entry.synced) {
            return Err(refused(number, SegmentFault::Unsynced));
        }
        let kept = state.files.split_off(&number);
        let removed = mem::replace(&mut state.files, kept);
        state.first = state.first.max(number);
        drop(state);
        let removed = removed.into_values().map(|entry| {
            // Before it is unlocked.
            backend.remove(&entry.segment);
            Arc::clone(&entry.segment)
        });
        Ok(removed.collect())
    }

    fn begin(&self, request: Request) -> Begun {
        self.state.lock().begin(self.size, request)
    }

    fn begin_or_keep(&self, request: Request, backend: &dyn Backend) -> Option<Request> {
        let mut state = self.state.lock();
        match state.begin(self.size, request) {
            Begun::Now(request) => return Some(request),
            Begun::NotYet(request, _) => {
                let (token, offset, next) = (request.token, request.offset, request.next);
                event!(DEBUG, token, offset, next, "the write waits for a segment");
                state.held.push(request);
                // Within the lock, before it can be retracted.
                backend.announce();
            }
            Begun::Never(request, error) => {
                state.untried.push((request.next, request.refused(error)));
                drop(state);
                // A thread may be waiting at the device for a segment.
                backend.interrupt();
            }
        }
        None
    }

    fn ended(&self, number: u64, durable: bool) {
        let mut state = self.state.lock();
        let entry = state.files.get_mut(&number).expect("a segment with a write in flight");
        entry.in_flight -= 1;
        entry.ended += u64::from(!durable);
    }

    /// The files with writes that no sync covers, by address. If there are none: the last file, so that a sync always
    /// is one of the device.
    fn flush(&self, scope: Scope) -> Flush {
        let state = self.state.lock();
        let unsynced = |entry: &Entry| Unsynced { segment: Arc::clone(&entry.segment), ended: entry.ended };
        let mut files: VecDeque<_> =
            state.files.values().filter(|entry| entry.ended > entry.synced).map(unsynced).collect();
        let first = files.pop_front().or_else(|| state.files.values().next_back().map(unsynced));
        Flush::new(first.expect("a log has a segment"), files, scope)
    }

    fn synced(&self, file: &Unsynced) {
        if let Some(entry) = self.state.lock().files.get_mut(&file.segment.number) {
            entry.synced = entry.synced.max(file.ended);
        }
    }

    /// What waits comes back untried, now and later.
    fn fail(&self, failure: &DeviceError, backend: &dyn Backend) {
        let mut state = self.state.lock();
        state.failure.get_or_insert_with(|| failure.clone());
        let held = mem::take(&mut state.held);
        if held.is_empty() {
            return;
        }
        let count = held.len();
        for request in held {
            state.untried.push((request.next, request.untried(failure)));
        }
        drop(state);
        (0..count).for_each(|_| backend.retract());
        backend.interrupt();
    }

    fn take_untried(&self) -> Vec<(u64, Finished)> {
        mem::take(&mut self.state.lock().untried)
    }

    /// Another queue begins; `failure`: that of the file, which lasts.
    pub(crate) fn begin_queue(&self, failure: Option<DeviceError>) {
        self.state.lock().failure = failure;
    }
}

impl Entry {
    fn new(segment: Arc<Segment>, lock: WriterLock) -> Self {
        Self { segment, in_flight: 0, ended: 0, synced: 0, _lock: lock }
    }
}

fn there_already(number: u64) -> FileError {
    FileError::Segment { number, fault: SegmentFault::There }
}
