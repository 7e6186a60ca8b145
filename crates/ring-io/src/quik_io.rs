//! `QuikIO`: the file of a log, or its segments (or memory that plays them), and the engine that writes to it.

use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ring_alloc::{Arena, is_aligned, round_up};
use rustix::io::Errno;

use crate::backend::{Backend, Flush, Storage};
use crate::engine::memory::MemoryDevice;
use crate::engine::uring::Submitter;
use crate::file::LogFile;
use crate::files::{Files, Segment};
use crate::fork::Process;
use crate::lock::WriterLock;
use crate::prealloc::marker::{Ending, Key};
use crate::prealloc::settle::{Scope, Settling};
use crate::prealloc::{DEFAULT_LIMIT, Preallocation};
use crate::sequencer::WriteSequencer;
use crate::sticky_error::StickyError;
use crate::{
    AttachError, DeviceError, Engine, EngineKind, FileError, OpenError, Operation, QuikIOBuilder, QuikIOOptions,
    SegmentFault, WriteMode, WriteQueue, engine, event, events,
};

/// A file for a log, or [several](QuikIOOptions::segments), with the engine that writes to it.
///
/// Any thread may read and sync; only the one [`WriteQueue`] that is attached may write. Other writers are kept away by
/// an advisory lock on the file (`flock`), which lasts as long as the queue, or as long as a `QuikIO` that was made by
/// [`open`](Self::open). It is taken and released on the open file: a program must not use `flock` on the same `File`
/// itself. A block device is also claimed (`O_EXCL`), which keeps away writers at its other nodes, at its partitions,
/// and mounts; but not those at a device that is mapped onto it, such as a loop device.
///
/// It belongs to the process that made it: in a child of `fork(2)` every call answers an error, and dropping does
/// nothing; see [`fork`](crate::fork).
pub struct QuikIO {
    backend: Arc<dyn Backend>,
    files: Files,
    engine: Engine,
    pub(crate) start_at: Option<u64>,
    pub(crate) write_mode: WriteMode,
    /// Whether every write is durable.
    pub(crate) synced: bool,
    /// Bytes that may be prepared ahead of the log.
    pub(crate) prepare: u64,
    sticky_error: StickyError,
    settling: Settling,
    attached: AtomicBool,
    /// Why [`open`](Self::open) did not open it with `O_DIRECT`.
    cached: Option<String>,
    /// Where the furthest write ends that was ever asked for.
    written_end: AtomicU64,
    process: Process,
    /// Held for good, if it was opened here. Declared last: released when nothing can write any more.
    lock: Option<WriterLock>,
}

impl QuikIO {
    /// Makes a `QuikIO` for `file`, with io_uring where that works, else (and on FUSE) with positioned writes;
    /// [`engine`](Self::engine) says which.
    ///
    /// The environment variable `BUFFER_RING_ENGINE` (`uring`, `io_uring` or `positioned`) chooses one of the two;
    /// another value changes nothing, and [`engine`](Self::engine) says so.
    ///
    /// It never fails: a file that cannot hold a log is refused by [`start`](Self::start) and [`attach`](Self::attach).
    #[must_use]
    pub fn new(file: impl Into<Arc<File>>) -> Self {
        let file = Arc::new(LogFile::new(file.into()));
        let (backend, engine) = engine::best(&file, Submitter::Caller);
        Self::assemble(backend, Files::One(Segment::whole(file)), engine)
    }

    /// Opens the file at `path` to read and write, past the kernel's cache (`O_DIRECT`) where the file system allows
    /// that.
    ///
    /// A missing file is created; an existing one keeps its content. If it is empty, it may be new, and its directory
    /// is synced, so that the file is there after a crash; a directory that may not be read, or does not know how to be
    /// synced, is replaced by the whole file system (`syncfs`). No second writer can use it through a `QuikIO` while
    /// this one lives.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if it cannot be opened or cannot hold a log, its directory cannot be synced, another writer has
    /// it (what another process has locked is tried for about a second), or `BUFFER_RING_ENGINE` names no engine. A
    /// file that the call had created is removed again if its directory is the reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(path)
    }

    /// Begins with the default options, to choose the engine, the write mode, the start of the log, or its
    /// preallocation; ends in [`open`](QuikIOOptions::open) or [`file`](QuikIOOptions::file).
    pub fn options() -> QuikIOOptions {
        QuikIOOptions::default()
    }

    /// Begins with the default [`options`](Self::options) for a file that is open already.
    pub fn builder(file: impl Into<Arc<File>>) -> QuikIOBuilder {
        QuikIOBuilder::new(file.into())
    }

    /// Makes a device in memory, which starts empty, and the handle that controls it: for tests that decide when writes
    /// complete, and how.
    #[must_use]
    pub fn in_memory() -> (Self, MemoryDevice) {
        let device = MemoryDevice::new();
        let engine = Engine::new(EngineKind::Memory, None);
        let file = Segment::whole_in_memory(device.clone());
        let io = Self::assemble(Box::new(device.clone()), Files::One(file), engine);
        (io, device)
    }

    /// It was opened here: `lock` is held for good, and `cached` says why it is not direct.
    pub(crate) fn opened(mut self, lock: WriterLock, cached: Option<String>) -> Self {
        (self.lock, self.cached) = (Some(lock), cached);
        self
    }

    pub(crate) fn assemble(backend: Box<dyn Backend>, files: Files, engine: Engine) -> Self {
        let prepare = if engine.kind() == EngineKind::Memory { 0 } else { DEFAULT_LIMIT };
        let synced = files.all().iter().any(|file| file.storage().is_synced());
        Self {
            backend: Arc::from(backend),
            files,
            engine,
            start_at: None,
            write_mode: WriteMode::default(),
            synced,
            prepare,
            sticky_error: StickyError::default(),
            settling: Settling::unknown(),
            attached: AtomicBool::new(false),
            cached: None,
            written_end: AtomicU64::new(0),
            process: Process::here(),
            lock: None,
        }
    }

    /// Returns the engine, and why it was chosen.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the order in which writes reach the file.
    ///
    /// If it was opened with `O_DSYNC` or `O_SYNC`, has the attribute `S` (`chattr +S`), or lies on a file system that
    /// is mounted with `sync`: [`WriteMode::Serialized`], whatever was asked for. Every write is a durable one then,
    /// and beside another one its success would prove nothing, as [`sync`](Self::sync) explains.
    #[must_use]
    pub fn write_mode(&self) -> WriteMode {
        if self.synced { WriteMode::Serialized } else { self.write_mode }
    }

    /// Returns whether the file was open with `O_DIRECT` when it was handed over; of segments, whether all were that
    /// are there.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        // In a forked child the list of segments must not be touched.
        let is_listed = self.files.one().is_ok() || !self.is_inherited();
        is_listed && self.files.all().iter().all(|file| file.storage().is_direct())
    }

    /// Returns why writes go through the kernel's cache, if [`open`](Self::open) could not open the file for direct
    /// I/O.
    #[must_use]
    pub fn not_direct_because(&self) -> Option<&str> {
        self.cached.as_deref()
    }

    /// Returns the byte of the file where a new log begins: the start that the builder was given, or behind everything
    /// that was written through this `QuikIO` since; without such a start, [`log_end`](Self::log_end).
    ///
    /// Of a log in segments: its address. Without a start, that of the first segment.
    ///
    /// # Errors
    ///
    /// [`FileError`], if the file cannot hold a log, is a block device and the builder was given no start, or is a
    /// segment that is missing.
    pub fn start(&self) -> Result<u64, FileError> {
        self.check_process()?;
        let written_end = self.written_end.load(Ordering::Relaxed);
        let file = match &self.files {
            Files::One(file) => file,
            Files::Segments(segments) => {
                let start = self.start_at.unwrap_or_else(|| segments.start()).max(written_end);
                let missing = |number| FileError::Segment { number, fault: SegmentFault::Missing };
                return segments.at(start).map(|_| start).map_err(missing);
            }
        };
        file.storage().check()?;
        match self.start_at {
            Some(start) => Ok(start.max(written_end)),
            None => self.log_end(),
        }
    }

    /// Returns where the log in the file ends, a multiple of 4096, without what was preallocated behind it and never
    /// used.
    ///
    /// A ring that was closed has cut that off, and so has one that was dropped. After a crash the file may end with
    /// it: recovery stops here, looks for the last valid record below, and [cuts](Self::cut) the log behind that before
    /// a ring goes on, which begins here. The page `buffer_ring::reopening` shows how, and what happens otherwise.
    /// Anything that was written counts as log, if only in part, and zeros too; so does a gap between writes that came
    /// to the file out of order.
    ///
    /// Preallocated space is known by a key that the file has in its extended attribute `user.ring-io.prepared`, and
    /// that no payload can imitate. Without it (a copy that was made without attributes) all of the file is log.
    ///
    /// Costs one `fgetxattr`; where there is a key, one read of 4 KiB, and of as much more as there is preallocated
    /// space.
    ///
    /// # Errors
    ///
    /// [`FileError`], if it does not have a length: a block device. [`FileError::Segmented`] for a log in segments.
    pub fn log_end(&self) -> Result<u64, FileError> {
        self.check_process()?;
        Ok(Ending::of(self.files.one()?)?.log)
    }

    /// Returns the length of the file in bytes, with what is preallocated behind the log.
    ///
    /// # Errors
    ///
    /// [`FileError`], if it does not have a length: a block device. [`FileError::Segmented`] for a log in segments.
    pub fn file_len(&self) -> Result<u64, FileError> {
        self.files.one()?.len()
    }

    /// Returns why no more space is preallocated: the disk is full, or a limit is reached. Durable writes go on
    /// without, as long as there is room for them.
    #[must_use]
    pub fn preparing_stopped(&self) -> Option<DeviceError> {
        if self.is_inherited() { None } else { self.sticky_error.preparing_stopped() }
    }

    /// Reads from byte `offset` of the file into `buf`: any offset, any length, also with `O_DIRECT`. Returns how many
    /// bytes were read, fewer than `buf.len()` only at the end of the file.
    ///
    /// A write in flight may be seen in part. Where the file ends before the log starts, the gap between them becomes
    /// readable, as zeros, with the first write behind it; a ring's `read` answers zeros for it from the beginning.
    ///
    /// Of a log in segments `offset` is an address, and a read goes on from one file to the next. It ends early only
    /// where the next segment is missing (or another program has cut a file); a read that *begins* in a missing segment
    /// is an error that [names it](DeviceError::missing_segment).
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; `buf` may then have been filled in part.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, DeviceError> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        if self.is_inherited() {
            return Err(DeviceError::forked(Operation::Read, range));
        }
        let read = self.files.read_at(range, buf);
        if let Err(error) = &read
            && error.errno().is_some()
        {
            event!(ERROR, clone(error), %error, "read failed");
        }
        read
    }

    /// Puts every write on stable storage that was reaped before this call. It promises nothing about later ones.
    ///
    /// In a log in segments, it syncs the files that have writes which no sync covers, one after the other, in the
    /// order of their addresses. The first that fails ends it.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], also that of a write that [preallocated space](QuikIOBuilder::prepare); after which it is
    /// unknown which writes are on stable storage: the kernel may have dropped them, and a later success would not
    /// bring them back. So nothing is retried: from then on each sync and each durable write gets that error, until a
    /// new `QuikIO` is made for the file, after checking what is in it. A durable write that failed has the same
    /// effect.
    ///
    /// The kernel reports an error to one of the calls that it concerns. So if several syncs and durable writes are in
    /// flight at once, the success of one counts only when all those have succeeded that overlapped it. A ring has one
    /// in flight at a time.
    pub fn sync(&self) -> Result<(), DeviceError> {
        let _held = events::hold();
        self.check_sync()?;
        let mut flush = self.files.flush(self.scope());
        loop {
            let storage = flush.file.segment.storage();
            let outcome = storage.sync(flush.scope);
            self.synced(outcome, &flush)?;
            let Some(next) = flush.next() else { return Ok(()) };
            flush = next;
        }
    }

    /// Whether a sync may be asked for. A child's would take its parent's errors away: an open file has each of them
    /// reported once.
    pub(crate) fn check_sync(&self) -> Result<(), DeviceError> {
        if self.is_inherited() {
            return Err(DeviceError::forked(Operation::Sync, 0..u64::MAX));
        }
        self.sticky_error.check()
    }

    /// What the outcome of the sync of a file means. No errno says "not now": the kernel reports each error once. What
    /// io_uring has never begun does not get here: the engine has carried it out.
    pub(crate) fn synced(&self, outcome: Result<(), Errno>, flush: &Flush) -> Result<(), DeviceError> {
        let elapsed = flush.submitted.elapsed();
        match outcome {
            Ok(()) => {
                event!(TRACE, ?elapsed, "synced");
                // Another call may have got the error that concerns this one.
                self.sticky_error.check()?;
                self.flushed(flush.scope);
                self.files.synced(&flush.file);
                Ok(())
            }
            Err(errno) => {
                let error = DeviceError::new(Operation::Sync, errno, 0..u64::MAX);
                event!(ERROR, clone(error), %error, errno = error.errno(), ?elapsed, "sync failed");
                self.sticky_error.set(error.clone());
                self.files.fail(&error, &*self.backend);
                Err(error)
            }
        }
    }

    /// Cuts the log at byte `at`: what is behind it is gone for good when this returns.
    ///
    /// The rest of the block that `at` lies in becomes zeros, like padding, and a ring starts behind it.
    ///
    /// For throwing away, before a log goes on after a crash, what was written to its end and not acknowledged. `at` is
    /// where the last record ends that is kept. Without that the records behind a gap would stand in the log again,
    /// below newer ones, and half a record in the last block would end every later reading of the log.
    ///
    /// It needs the writer's lock: that of a `QuikIO` made by [`open`](Self::open), or else one for the length of the
    /// call.
    ///
    /// ```
    /// use ring_io::QuikIO;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("log");
    /// std::fs::write(&path, vec![7; 3 * 4096])?;
    ///
    /// let io = QuikIO::open(&path)?;
    /// io.cut(2 * 4096)?;
    /// assert_eq!(io.start()?, 2 * 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`FileError::Attached`] while a queue is attached: drop the ring first;
    /// - [`FileError::CutBeyondEnd`] if `at` is beyond [`log_end`](Self::log_end);
    /// - [`FileError::NoEnd`] for a block device, which has no length;
    /// - [`FileError::Segmented`] for a log in segments;
    /// - [`FileError::Locked`] if another `QuikIO` or process writes to the file;
    /// - [`FileError::Cut`] if the file system refuses, or the cut cannot be put on stable storage. Then a later sync
    ///   cannot succeed either, and a new `QuikIO` has to find out what the file holds.
    pub fn cut(&self, at: u64) -> Result<(), FileError> {
        self.check_process()?;
        let storage = self.files.one()?;
        storage.check()?;
        // ordering: acquire half of D2.
        if self.attached.swap(true, Ordering::Acquire) {
            return Err(FileError::Attached);
        }
        let outcome = self.cut_unattached(storage, at);
        self.release();
        outcome
    }

    /// Only for the thread that has set `attached`.
    fn cut_unattached(&self, storage: &dyn Storage, at: u64) -> Result<(), FileError> {
        let _lock = if self.lock.is_none() { Some(storage.lock()?) } else { None };
        let Ending { log: end, key, .. } = Ending::of(storage)?;
        if at > end {
            return Err(FileError::CutBeyondEnd { at, end });
        }
        let refused = |errno: Errno| FileError::Cut(errno.raw_os_error());
        // Without a key all that is left is log, whatever it looks like.
        let unkeyed = if key == Ok(None) { Ok(()) } else { storage.set_key(None) };
        self.settling.changed();
        unkeyed.and_then(|()| storage.cut(at)).map_err(refused)?;
        if !is_aligned(at) {
            // Up again to the block: what a file gains in length is zeros.
            storage.cut(round_up(at)).map_err(refused)?;
        }
        let failed = |error: DeviceError| FileError::Cut(error.errno().unwrap_or_default());
        self.sync().map_err(failed)?;
        self.written_end.fetch_min(round_up(at), Ordering::Relaxed);
        event!(DEBUG, at, end, "the log is cut");
        Ok(())
    }

    /// Takes the exclusive right to write, for the buffers of `arena`. There is one at a time.
    ///
    /// # Errors
    ///
    /// [`AttachError::Busy`] while another queue lives; [`AttachError::File`] if the file cannot hold a log, or another
    /// writer has it already (what another process has locked is tried for about a second), or the segment is missing
    /// in which the log [begins](Self::start).
    pub fn attach(self: &Arc<Self>, arena: &Arc<Arena>) -> Result<WriteQueue, AttachError> {
        let _held = events::hold();
        self.check_process()?;
        self.files.one().map_or(Ok(()), Storage::check)?;
        // ordering: acquire half of D2.
        if self.attached.swap(true, Ordering::Acquire) {
            return Err(AttachError::Busy);
        }
        self.writer(arena).inspect_err(|_| self.release()).map_err(AttachError::File)
    }

    /// Only for the thread that has set `attached`.
    fn writer(self: &Arc<Self>, arena: &Arc<Arena>) -> Result<WriteQueue, FileError> {
        // Segments were locked when they came.
        let storage = self.files.one().ok();
        let lock = storage.filter(|_| self.lock.is_none()).map(Storage::lock).transpose()?;
        let sequencer = match self.write_mode() {
            WriteMode::TailLocalized => None,
            WriteMode::Serialized => Some(WriteSequencer::new(self.start()?)),
        };
        let prealloc = match storage.map(Ending::of) {
            Some(Ok(ending)) => {
                let limit = if storage.is_some_and(Storage::is_worth_preparing) { self.prepare } else { 0 };
                Some(Preallocation::new(limit, ending))
            }
            None | Some(Err(FileError::NoEnd)) => None,
            Some(Err(error)) => return Err(error),
        };
        // Another writer may have been there meanwhile, and been killed.
        self.settling.changed();
        if let Ok(segments) = self.files.segments() {
            self.start()?;
            segments.begin_queue(self.sticky_error.check().err());
        }
        Ok(WriteQueue::new(Arc::clone(self), arena, sequencer, prealloc, lock))
    }

    /// Gives the file this key, or none: on stable storage with the next flush that succeeds.
    pub(crate) fn set_key(&self, key: Option<Key>) -> Result<(), Errno> {
        let outcome = self.files.one().map_or(Err(Errno::OPNOTSUPP), |storage| storage.set_key(key));
        self.settling.changed();
        outcome
    }

    pub(crate) fn is_key_settled(&self) -> bool {
        self.settling.is_settled()
    }

    /// Of a flush that begins now.
    pub(crate) fn scope(&self) -> Scope {
        self.settling.scope()
    }

    /// A flush of that scope has succeeded, and nothing is known that would make that doubtful.
    pub(crate) fn flushed(&self, scope: Scope) {
        self.settling.succeeded(scope);
    }

    /// The queue is gone, and the next one may be attached.
    pub(crate) fn release(&self) {
        // ordering: release half of D2.
        self.attached.store(false, Ordering::Release);
    }

    /// Whether the caller is in a child that was forked from the process of this `QuikIO`: then nothing of it may be
    /// touched, not even a lock.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_here()
    }

    pub(crate) fn check_process(&self) -> Result<(), FileError> {
        if self.is_inherited() { Err(FileError::Forked) } else { Ok(()) }
    }

    /// A write up to byte `end` of the file is about to be asked for.
    pub(crate) fn note_write_up_to(&self, end: u64) {
        // Relaxed: D2 brings it to the next queue.
        self.written_end.fetch_max(end, Ordering::Relaxed);
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) fn sticky_error(&self) -> &StickyError {
        &self.sticky_error
    }
}

impl Drop for QuikIO {
    fn drop(&mut self) {
        if self.is_inherited() {
            // A forked child has neither the engine's threads nor its ring, and what they were at is half done for
            // ever.
            mem::forget(Arc::clone(&self.backend));
            self.files.forget();
        } else if self.backend.has_given_up() {
            // A write that was given up may still land: no next writer may be there yet. The kernel ends the lock
            // with the process, or with the write if that is later.
            mem::forget(self.lock.take());
            self.files.forget();
        }
    }
}

impl fmt::Debug for QuikIO {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuikIO")
            .field("engine", &format_args!("{}", self.engine))
            .field("files", &self.files)
            .field("start_at", &self.start_at)
            .field("write_mode", &self.write_mode())
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
