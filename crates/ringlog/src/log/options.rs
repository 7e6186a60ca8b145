//! Opening: recover, replay, and start the ring behind what was found.

use core::sync::atomic::AtomicU64;
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::Mutex;
use buffer_ring::{BLOCK, BufferRing, BufferRingOptions, CommitPolicy, FileError, OptionsError, QuikIO};

use super::callbacks::Callbacks;
use super::commit::Unsettled;
use super::holds::Holds;
use super::keeper::{Keeper, Progress, WRITTEN_AT_OPEN};
use super::own::Own;
use super::sealer::{Sealer, longest_payload};
use super::turn::Turn;
use super::{Inner, Log};
use crate::directory::{AnyDirectory, Directory, DiskDirectory, Either, MemoryDirectory};
use crate::error::OpenError;
use crate::format::{BatchInfo, HEADER_LEN, MAX_PAYLOAD, RecordHeader, RecordType, trailer_len};
use crate::manifest::ManifestFile;
use crate::recovery::{Item, OnDamage, Opened, Record, Recover, Replay, ReplayError, Report, TornTail, Verify, replay};
use crate::segment::place;
#[cfg(feature = "async")]
use crate::tasks::{Reads, Tasks};

/// A segment holds at least so many buffers.
const BUFFERS_OF_A_SEGMENT: u64 = 4;

/// When records become durable that nothing waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// With the next commit, sync or durable wait of any thread.
    #[default]
    WhenAsked,
    /// At most so long after they were appended; more than zero.
    Every(Duration),
    /// When so many bytes have gone to the device; more than zero.
    EveryBytes(u64),
}

/// How a log is opened. Made by [`Log::options`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    recover: Recover,
    pub(crate) replay: Replay,
    buffers: usize,
    buffer_size: usize,
    sync: SyncPolicy,
    commits: CommitPolicy,
    memory: Option<MemoryDirectory>,
}

impl Options {
    pub(super) fn new() -> Self {
        Self {
            recover: Recover::new(),
            replay: Replay::new(),
            buffers: 8,
            buffer_size: 1 << 20,
            sync: SyncPolicy::default(),
            commits: CommitPolicy::default(),
            memory: None,
        }
    }

    /// How many buffers the ring has, at least 2, and bytes of each: a multiple of 4096, at most 256 MiB, and at most a
    /// quarter of a segment. 8 of 1 MiB by default.
    pub fn ring(mut self, buffers: usize, buffer_size: usize) -> Self {
        (self.buffers, self.buffer_size) = (buffers, buffer_size);
        self
    }

    /// Bytes of addresses in each segment of a new log: a multiple of 4096. A log that exists keeps its own. 64 MiB by
    /// default.
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.recover = self.recover.segment_size(bytes);
        self
    }

    /// When records become durable that nothing waits for.
    pub fn sync(mut self, when: SyncPolicy) -> Self {
        self.sync = when;
        self
    }

    /// When commits go to the device: see [`CommitPolicy`].
    pub fn commit_policy(mut self, policy: CommitPolicy) -> Self {
        self.commits = policy;
        self
    }

    /// What to do about a write that was in flight when a process or the machine ended, and that was never
    /// acknowledged. It is cut off by default.
    pub fn torn_tail(mut self, what: TornTail) -> Self {
        self.recover = self.recover.torn_tail(what);
        self
    }

    /// What to do about acknowledged records that are damaged. The log is refused by default.
    pub fn on_damage(mut self, what: OnDamage) -> Self {
        self.recover = self.recover.on_damage(what);
        self
    }

    /// Bytes of the longest record, to be appended and to be read. 64 MiB by default.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.replay = self.replay.max_record(bytes);
        self
    }

    /// Fails with [`OpenError::Missing`] instead of making an empty log: for a program that must not start anew because
    /// a mount was missing.
    pub fn must_exist(mut self, yes: bool) -> Self {
        self.recover = self.recover.must_exist(yes);
        self
    }

    /// Bytes of the user's own, at most 2048, for the header of each segment of a new log.
    pub fn cookie(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.recover = self.recover.cookie(bytes);
        self
    }

    /// Has the log live in memory, and no longer than its last clone: for tests. The path that it is opened with is not
    /// looked at. Each segment takes up to four times its size.
    ///
    /// ```
    /// use ringlog::Log;
    ///
    /// let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("")?;
    /// let at = log.append(0, b"a record")?;
    /// log.wait_durable(at.end)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_memory(self) -> Self {
        self.directory(&MemoryDirectory::new())
    }

    /// The same in a directory that outlives the log: to open it again, to look at what a crash would leave, or to have
    /// the [device](MemoryDirectory::device) fail.
    pub fn directory(mut self, directory: &MemoryDirectory) -> Self {
        self.memory = Some(directory.clone());
        self
    }

    /// Opens the log in the directory `path`: creates it, or recovers it. Of a long log only the end is read and
    /// verified: from the last segment on before which everything is proven to have been durable. The report says from
    /// where; damage below is found when it is read, by [`open_with`](Self::open_with), or by
    /// [`verify`](crate::recovery::verify). [After a crash](crate::after_a_crash): what is done, and what is to decide.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the log is damaged, locked, or cannot be read or written. Unless it is [`OpenError::Io`] or
    /// [`OpenError::Ring`], nothing was changed.
    pub fn open(self, path: impl AsRef<Path>) -> Result<(Log, Report), OpenError> {
        let (directory, opened) = self.recovered(path.as_ref(), Verify::new().fast(true))?;
        self.start(directory, opened)
    }

    /// Opens the log, verifies all of it, and gives each of its records to `each`, in order. No record is given before
    /// the verdict on all of them: see [after a crash](crate::after_a_crash), with an example.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and the first error of `each`.
    pub fn open_with<E>(
        self,
        path: impl AsRef<Path>,
        mut each: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(Log, Report), ReplayError<E>> {
        let (directory, opened) = self.recovered(path.as_ref(), Verify::new())?;
        replay(&directory, opened.report(), &self.replay, |item| match item {
            Item::Record(record) => each(record),
            Item::Gap(_) | Item::Truncated { .. } => Ok(()),
        })?;
        Ok(self.start(directory, opened)?)
    }

    /// Checks everything that can be refused without a change, then recovers.
    fn recovered(&self, path: &Path, how: Verify) -> Result<(AnyDirectory, Opened<AnyDirectory>), OpenError> {
        let is_buffer =
            self.buffer_size.is_multiple_of(BLOCK) && (1..=MAX_PAYLOAD as usize + BLOCK).contains(&self.buffer_size);
        if !is_buffer || self.buffers < 2 {
            return Err(OpenError::Option("a ring has at least 2 buffers, of a multiple of 4096 bytes up to 256 MiB"));
        }
        if matches!(self.sync, SyncPolicy::Every(Duration::ZERO) | SyncPolicy::EveryBytes(0)) {
            return Err(OpenError::Option("a log is synced after more than no time, and more than no bytes"));
        }
        self.recover.check()?;
        let directory = self.directory_at(path)?;
        match ManifestFile::read(&directory, false)? {
            Some(manifest) => self.check_segment(manifest.content().segment_size)?,
            None => self.check_segment(self.recover.segment_size)?,
        }
        let opened = self.recover.clone().verify(how).open(&directory)?;
        Ok((directory, opened))
    }

    /// Where the log is: in memory, or at `path`.
    pub(crate) fn directory_at(&self, path: &Path) -> Result<AnyDirectory, OpenError> {
        Ok(match &self.memory {
            Some(memory) => Either::Memory(memory.clone()),
            None => Either::Disk(self.on_disk(path)?),
        })
    }

    fn on_disk(&self, path: &Path) -> Result<DiskDirectory, OpenError> {
        let io = |operation| move |source| OpenError::Io { operation, file: path.display().to_string(), source };
        match DiskDirectory::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.recover.must_exist {
                    return Err(OpenError::Missing);
                }
                self.check_segment(self.recover.segment_size)?;
                DiskDirectory::create(path).map_err(io("create"))
            }
            opened => opened.map_err(io("open")),
        }
    }

    fn check_segment(&self, size: u64) -> Result<(), OpenError> {
        if size / BUFFERS_OF_A_SEGMENT < self.buffer_size as u64 {
            return Err(OpenError::Option("a buffer is at most a quarter of a segment"));
        }
        Ok(())
    }

    fn start(self, directory: AnyDirectory, opened: Opened<AnyDirectory>) -> Result<(Log, Report), OpenError> {
        let (report, manifest) = (opened.report().clone(), opened.manifest().clone());
        let size = report.segment_size;
        let mut log = Start { end: report.end.get(), previous: report.previous, framing: opened.framing() };
        // No buffer fits behind the end: the ring begins with the next segment.
        let (here, is_full) = (log.end / size, log.end % size > size - self.buffer_size as u64);
        let start = if is_full { (here + 1) * size } else { log.end };
        let progress = Arc::new(Progress::new(size, self.buffer_size, start));
        let own = Arc::new(Mutex::new(Own::recovered(&report)));
        let mut keeper = Keeper::new(directory, opened, Arc::clone(&own), Arc::clone(&progress), self.sync);
        let mut files = vec![(here, keeper.made(here, WRITTEN_AT_OPEN)?)];
        if is_full {
            files.push((here + 1, keeper.made(here + 1, WRITTEN_AT_OPEN)?));
            log.end_segment(keeper.directory(), size)?;
        }
        let io = QuikIO::options().start_at(log.end).segments(size, files).map_err(device)?;
        let io = Arc::new(io);
        let options = BufferRingOptions {
            capacity: self.buffers,
            buffer_size: self.buffer_size,
            io_instance: Some(Arc::clone(&io)),
            ..Default::default()
        };
        let sealer = Sealer { framing: log.framing, previous: log.previous, progress };
        let ring = BufferRing::builder(options).commit_policy(self.commits).framing(Arc::new(sealer)).build();
        let ring = Arc::new(ring.map_err(OpenError::Ring)?);
        keeper.attach(&ring, &io, log.end);
        let keeper = Arc::new(keeper);
        let thread = Keeper::spawn(&keeper).map_err(OpenError::io("start the thread of", "the log"))?;
        let longest = longest_payload(self.buffer_size);
        let inner = Inner {
            process: Process::here(),
            ring,
            keeper,
            thread: Some(thread),
            unsettled: Unsettled::new(),
            manifest: Arc::new(manifest),
            longest,
            short: longest.min(self.replay.max_record),
            replay: self.replay,
            closed: Mutex::new(false),
            callbacks: Callbacks::default(),
            long: Turn::new(),
            own,
            void_version: AtomicU64::new(0),
            holds: Holds::new(),
            readers: Arc::default(),
            #[cfg(feature = "async")]
            durable_tasks: Tasks::default(),
            #[cfg(feature = "async")]
            staged_tasks: Tasks::default(),
            #[cfg(feature = "async")]
            reads: Reads::default(),
        };
        Ok((Log { inner: Arc::new(inner) }, report))
    }
}

/// Where the ring starts.
struct Start {
    end: u64,
    previous: u64,
    framing: crate::format::Framing,
}

impl Start {
    /// No buffer fits into the rest of the segment: an empty batch ends it, and says that the next one, which is there,
    /// goes on.
    fn end_segment(&mut self, directory: &AnyDirectory, size: u64) -> Result<(), OpenError> {
        let (base, next_base) = (self.end, (self.end / size + 1) * size);
        let noop = RecordHeader { len: 0, blocks_back: 0, record_type: RecordType::NoOp, kind: 0 }.encode();
        let payload_len = noop.len() as u32;
        let mut bytes = vec![0; HEADER_LEN + noop.len() + trailer_len(payload_len)];
        bytes[HEADER_LEN..][..noop.len()].copy_from_slice(&noop);
        let (previous, durable) = (self.previous, base);
        let info = BatchInfo { base, generation: 0, previous, next_base, last: true, payload_len, durable };
        self.framing.seal(&mut bytes, info);
        let (name, at) = place(base, size);
        let name = &*name;
        let file = directory.open(name, true).map_err(OpenError::io("open", name))?;
        directory.write_at(&file, &bytes, at).map_err(OpenError::io("write", name))?;
        directory.sync_file(&file).map_err(OpenError::io("sync", name))?;
        let framing = self.framing.clone().behind(1);
        *self = Self { end: next_base, previous: base, framing };
        Ok(())
    }
}

pub(super) fn device(error: FileError) -> OpenError {
    OpenError::Ring(OptionsError::Device(error.into()))
}
