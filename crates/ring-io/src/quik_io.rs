//! `QuikIO`: one file (or memory that plays one) and the engine that writes to it.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ring_alloc::{Arena, round_up};

use crate::file::{self, LogFile};
use crate::lock::WriterLock;
use crate::memory::MemoryDevice;
use crate::order::Order;
use crate::seam::{Backend, Storage};
use crate::{
    AttachError, DeviceError, Engine, EngineKind, FileError, OpenError, Operation, QuikIOBuilder, WriteMode,
    WriteQueue, engine,
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
    attached: AtomicBool,
    /// Held for good, if it was opened here. Declared last: released when nothing can write any more.
    lock: Option<WriterLock>,
}

impl QuikIO {
    /// A `QuikIO` for `file`, with io_uring where that works and positioned writes where not; [`engine`](Self::engine) tells.
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
        tracing::debug!(path = %path.display(), engine = %io.engine, direct = io.is_direct(), "opened");
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
        let write_mode = WriteMode::default();
        Self { backend, storage, engine, start_at: None, write_mode, attached: AtomicBool::new(false), lock: None }
    }

    /// Which engine writes, and why that one.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// In which order writes reach the file.
    #[must_use]
    pub fn write_mode(&self) -> WriteMode {
        self.write_mode
    }

    /// Whether the file was open with `O_DIRECT` when it was handed over.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.storage.is_direct()
    }

    /// The byte of the file where a new log begins: what the builder was told, else the present length, rounded up to 4096.
    ///
    /// # Errors
    ///
    /// [`FileError`], if the file cannot hold a log, or is a block device and the builder was told nothing.
    pub fn start(&self) -> Result<u64, FileError> {
        self.storage.check()?;
        match self.start_at {
            Some(start) => Ok(start),
            None => Ok(round_up(self.storage.len()?)),
        }
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
            tracing::error!(%error, "read failed");
            error
        })
    }

    /// Puts on stable storage every write that was reaped before this call. Of later ones it promises nothing.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], after which nobody knows which writes are on stable storage: the kernel may have dropped them, and
    /// a later success would not bring them back. So it is never retried here, and should not be by the caller.
    pub fn sync(&self) -> Result<(), DeviceError> {
        let start = Instant::now();
        let outcome = self.storage.sync();
        let elapsed = start.elapsed();
        match outcome {
            Ok(()) => {
                tracing::trace!(?elapsed, "synced");
                Ok(())
            }
            Err(errno) => {
                let error = DeviceError::new(Operation::Sync, errno, 0..u64::MAX);
                tracing::error!(%error, errno = error.errno(), ?elapsed, "sync failed");
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
        self.storage.check()?;
        if self.attached.swap(true, Ordering::Acquire) {
            return Err(AttachError::Busy);
        }
        self.writer(arena).inspect_err(|_| self.release()).map_err(AttachError::File)
    }

    /// Only for the one who has set `attached`.
    fn writer(self: &Arc<Self>, arena: &Arc<Arena>) -> Result<WriteQueue, FileError> {
        let lock = if self.lock.is_none() { Some(self.storage.lock()?) } else { None };
        let order = match self.write_mode {
            WriteMode::TailLocalized => None,
            WriteMode::Serialized => Some(Order::new(self.start()?)),
        };
        Ok(WriteQueue::new(Arc::clone(self), arena, order, lock))
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
}

impl fmt::Debug for QuikIO {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuikIO")
            .field("engine", &format_args!("{}", self.engine))
            .field("storage", &self.storage)
            .field("start_at", &self.start_at)
            .field("write_mode", &self.write_mode)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
