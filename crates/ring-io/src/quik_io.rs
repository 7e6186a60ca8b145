//! `QuikIO`: one file (or memory that plays one) and the engine that writes to it.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use ring_alloc::Arena;
use rustix::io::Errno;

use crate::file::{self, LogFile};
use crate::lock::WriterLock;
use crate::mark::Ending;
use crate::memory::MemoryDevice;
use crate::order::Order;
use crate::seam::{Backend, Storage};
use crate::space::{DEFAULT_LIMIT, Space};
use crate::{
    AttachError, DeviceError, Engine, EngineKind, FileError, OpenError, Operation, QuikIOBuilder, WriteMode,
    WriteQueue, engine, event, events,
};

/// A file for a log, together with the engine that writes to it.
///
/// Reading and syncing are for everybody; writing is for the one [`WriteQueue`] that is attached. Other writers are kept away
/// by an advisory lock on the file (`flock`), which lasts as long as the queue, or as long as a `QuikIO` that was made by
/// [`open`](Self::open). It is taken and released on the open file: a program must not use `flock` on the same `File` itself.
pub struct QuikIO {
    backend: Box<dyn Backend>,
    storage: Arc<dyn Storage>,
    engine: Engine,
    pub(crate) start_at: Option<u64>,
    pub(crate) write_mode: WriteMode,
    /// Whether every write is durable.
    pub(crate) synced: bool,
    /// Bytes that may be prepared ahead of the log.
    pub(crate) prepare: u64,
    health: Health,
    attached: AtomicBool,
    /// Held for good, if it was opened here. Declared last: released when nothing can write any more.
    lock: Option<WriterLock>,
}

impl QuikIO {
    /// A `QuikIO` for `file`, with io_uring where that works and positioned writes where not; [`engine`](Self::engine) tells.
    /// The environment variable `BUFFER_RING_ENGINE` (`uring` or `positioned`) chooses one of the two.
    ///
    /// It never fails: a file that cannot hold a log is refused by [`start`](Self::start) and [`attach`](Self::attach).
    #[must_use]
    pub fn new(file: impl Into<Arc<File>>) -> Self {
        let file = Arc::new(LogFile::new(file.into()));
        let (backend, engine) = engine::best(&file);
        Self::assemble(backend, file, engine)
    }

    /// Opens the file at `path` to read and write, past the kernel's cache (`O_DIRECT`) where the file system allows that.
    ///
    /// A missing file is created, and its directory synced; an existing one keeps its content. Nobody else can write to it through
    /// a `QuikIO` while this one lives.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if it cannot be opened or cannot hold a log, or somebody writes to it already (what another process has locked is
    /// tried for about a second).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = file::open(path).map_err(|error| OpenError::os(path, &error))?;
        let file = Arc::new(LogFile::new(Arc::new(file)));
        let lock = file.check().and_then(|()| file.lock()).map_err(|error| OpenError::file(path, error))?;
        let (backend, engine) = engine::best(&file);
        let io = Self { lock: Some(lock), ..Self::assemble(backend, file, engine) };
        let (path, engine, direct) = (path.to_path_buf(), io.engine(), io.is_direct());
        event!(DEBUG, clone(engine), path = %path.display(), %engine, direct, "opened");
        Ok(io)
    }

    /// For choosing the engine, the write mode, or where the log starts.
    pub fn builder(file: impl Into<Arc<File>>) -> QuikIOBuilder {
        QuikIOBuilder::new(file.into())
    }

    /// A device in memory, which starts empty, and its remote control: for tests that decide when writes complete, and how.
    #[must_use]
    pub fn in_memory() -> (Self, MemoryDevice) {
        let device = MemoryDevice::new();
        let engine = Engine::new(EngineKind::Memory, None);
        let io = Self::assemble(Box::new(device.clone()), Arc::new(device.clone()), engine);
        (io, device)
    }

    pub(crate) fn assemble(backend: Box<dyn Backend>, storage: Arc<dyn Storage>, engine: Engine) -> Self {
        let prepare = if engine.kind() == EngineKind::Memory { 0 } else { DEFAULT_LIMIT };
        let synced = storage.is_synced();
        Self {
            backend,
            storage,
            engine,
            start_at: None,
            write_mode: WriteMode::default(),
            synced,
            prepare,
            health: Health::default(),
            attached: AtomicBool::new(false),
            lock: None,
        }
    }

    /// Which engine writes, and why that one.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// In which order writes reach the file.
    ///
    /// If it was opened with `O_DSYNC` or `O_SYNC`, has the attribute `S` (`chattr +S`), or lies on a file system that is mounted with `sync`:
    /// [`WriteMode::Serialized`], whatever was asked for. Every write is a durable one then, and
    /// beside another one its success would tell nothing, as [`sync`](Self::sync) explains.
    #[must_use]
    pub fn write_mode(&self) -> WriteMode {
        if self.synced { WriteMode::Serialized } else { self.write_mode }
    }

    /// Whether the file was open with `O_DIRECT` when it was handed over.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.storage.is_direct()
    }

    /// The byte of the file where a new log begins: what the builder was told, else [`log_end`](Self::log_end).
    ///
    /// # Errors
    ///
    /// [`FileError`], if the file cannot hold a log, or is a block device and the builder was told nothing.
    pub fn start(&self) -> Result<u64, FileError> {
        self.storage.check()?;
        match self.start_at {
            Some(start) => Ok(start),
            None => self.log_end(),
        }
    }

    /// Where the log in the file ends, a multiple of 4096: without what was prepared behind it and never used.
    ///
    /// A ring that was closed has cut that off, and so has one that was dropped. After a crash the file may end with it; who reads the
    /// file stops here, and finds his last record below by what he knows of his records. A ring on the file goes on from here, and uses
    /// what is prepared. Anything that was written counts as log, if only in part, and zeros too; so does a gap between writes that
    /// came to the file out of order.
    ///
    /// Costs one read of 4 KiB, and of as much more as there is prepared space.
    ///
    /// # Errors
    ///
    /// [`FileError`], if it does not have a length: a block device.
    pub fn log_end(&self) -> Result<u64, FileError> {
        Ok(Ending::of(&*self.storage)?.log)
    }

    /// Why no more space is prepared ahead of the log: the disk is full, or a limit is reached. Durable writes go on without, as long as
    /// there is room for them.
    #[must_use]
    pub fn preparing_stopped(&self) -> Option<DeviceError> {
        self.health.stopped.lock().clone()
    }

    /// Reads from byte `offset` of the file into `buf`: any offset, any length, also with `O_DIRECT`. Returns how many bytes
    /// were read, fewer than `buf.len()` only at the end of the file.
    ///
    /// A write in flight may be seen in part.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; `buf` may then have been filled in part.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, DeviceError> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.storage.read_at(offset, buf).map_err(|errno| {
            let error = DeviceError::new(Operation::Read, errno, range);
            event!(ERROR, clone(error), %error, "read failed");
            error
        })
    }

    /// Puts on stable storage every write that was reaped before this call. Of later ones it promises nothing.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], also that of a write that [prepared space](QuikIOBuilder::prepare); after which nobody knows which writes are on
    /// stable storage: the kernel may have dropped them, and a later success would not bring them back. So nothing is retried: from then
    /// on each sync and each durable write gets that error, until a new `QuikIO` is made for the file, by whoever has looked what is
    /// in it. A durable write that failed has the same effect.
    ///
    /// The kernel tells an error to one of the calls that it concerns. So if several syncs and durable writes are under way at once, the
    /// success of one counts only when all those have succeeded that overlapped it. A ring has one under way at a time.
    pub fn sync(&self) -> Result<(), DeviceError> {
        let _held = events::hold();
        self.health.verdict()?;
        let start = Instant::now();
        let outcome = self.storage.sync();
        self.synced(outcome, start)
    }

    /// What the outcome of a sync means that was begun at `start`. No errno says "not now": what the sync had to tell is told once. By
    /// `ECANCELED` io_uring would say that it never began, but a file system might mean something else.
    pub(crate) fn synced(&self, outcome: Result<(), Errno>, start: Instant) -> Result<(), DeviceError> {
        let elapsed = start.elapsed();
        match outcome {
            Ok(()) => {
                event!(TRACE, ?elapsed, "synced");
                // Another call may have been told what was about this one.
                self.health.verdict()
            }
            Err(errno) => {
                let error = DeviceError::new(Operation::Sync, errno, 0..u64::MAX);
                event!(ERROR, clone(error), %error, errno = error.errno(), ?elapsed, "sync failed");
                self.health.fail(error.clone());
                Err(error)
            }
        }
    }

    /// The right to write, for the buffers of `arena`. There is one at a time.
    ///
    /// # Errors
    ///
    /// [`AttachError::Busy`] while another queue lives; [`AttachError::File`] if the file cannot hold a log, or somebody else writes to it
    /// already (what another process has locked is tried for about a second).
    pub fn attach(self: &Arc<Self>, arena: &Arc<Arena>) -> Result<WriteQueue, AttachError> {
        let _held = events::hold();
        self.storage.check()?;
        if self.attached.swap(true, Ordering::Acquire) {
            return Err(AttachError::Busy);
        }
        self.writer(arena).inspect_err(|_| self.release()).map_err(AttachError::File)
    }

    /// Only for the one who has set `attached`.
    fn writer(self: &Arc<Self>, arena: &Arc<Arena>) -> Result<WriteQueue, FileError> {
        let lock = if self.lock.is_none() { Some(self.storage.lock()?) } else { None };
        let order = match self.write_mode() {
            WriteMode::TailLocalized => None,
            WriteMode::Serialized => Some(Order::new(self.start()?)),
        };
        let space = match Ending::of(&*self.storage) {
            Ok(ending) => {
                let limit = if self.storage.is_worth_preparing() { self.prepare } else { 0 };
                Some(Space::new(limit, ending))
            }
            Err(FileError::NoEnd) => None,
            Err(error) => return Err(error),
        };
        Ok(WriteQueue::new(Arc::clone(self), arena, order, space, lock))
    }

    /// The queue is gone: the next may come.
    pub(crate) fn release(&self) {
        self.attached.store(false, Ordering::Release);
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }
}

/// What has gone wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether anything of the log has.
    pub(crate) troubled: AtomicBool,
    /// The first failure after which nobody knows what is on stable storage.
    failure: OnceLock<DeviceError>,
    /// Why preparing ended, where it is one.
    stopped: Mutex<Option<DeviceError>>,
}

impl Health {
    /// Whether a sync or a durable write may still succeed.
    pub(crate) fn verdict(&self) -> Result<(), DeviceError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// A preparing write has failed.
    pub(crate) fn preparing_failed(&self, error: DeviceError) {
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(Errno::raw_os_error);
        if error.errno().is_none_or(|errno| full.contains(&errno)) {
            event!(WARN, clone(error), %error, "no more space is prepared: durable writes become slower");
            *self.stopped.lock() = Some(error);
        } else {
            self.fail_unseen(error);
        }
    }

    /// Something failed that nobody waits for: whoever comes next is told.
    pub(crate) fn fail_unseen(&self, error: DeviceError) {
        event!(ERROR, clone(error), %error, "failed behind the log");
        self.fail(error);
    }

    /// Something failed that may have been about anything that is not on stable storage.
    pub(crate) fn fail(&self, error: DeviceError) {
        self.troubled.store(true, Ordering::Relaxed);
        _ = self.failure.set(error);
    }
}

impl fmt::Debug for QuikIO {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuikIO")
            .field("engine", &format_args!("{}", self.engine))
            .field("storage", &self.storage)
            .field("start_at", &self.start_at)
            .field("write_mode", &self.write_mode())
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
