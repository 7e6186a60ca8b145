//! The choices that `QuikIO::new` and `QuikIO::open` make by themselves.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ring_alloc::is_aligned;

use crate::backend::Storage;
use crate::engine::uring::Submitter;
use crate::file::LogFile;
use crate::open::Opened;
use crate::{Engine, EngineKind, FileError, MemoryDevice, OpenError, QuikIO, WriteMode, engine, event, open};

/// Options for a [`QuikIO`]: its engine, its write mode, the start of its log, its preallocation. See
/// [`QuikIO::options`].
///
/// ```
/// use ring_io::{QuikIO, WriteMode};
///
/// let folder = tempfile::tempdir()?;
/// let io = QuikIO::options().write_mode(WriteMode::Serialized).prepare(0).open(folder.path().join("log"))?;
/// assert_eq!(io.write_mode(), WriteMode::Serialized);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct QuikIOOptions {
    start_at: Option<u64>,
    engine: Option<EngineKind>,
    write_mode: WriteMode,
    prepare: Option<u64>,
    submitter: Submitter,
}

impl QuikIOOptions {
    /// Starts the log at this byte of the file, a multiple of 4096.
    ///
    /// What the file holds from there on is overwritten. A second ring on the same [`QuikIO`] starts behind what was
    /// written through it.
    pub fn start_at(mut self, offset: u64) -> Self {
        self.start_at = Some(offset);
        self
    }

    /// Requires this engine, whatever the environment variable `BUFFER_RING_ENGINE` says.
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine = Some(kind);
        self
    }

    /// Lets a thread of the kernel submit (`IORING_SETUP_SQPOLL`), so that no completion interrupts a system call of an
    /// appending thread.
    ///
    /// For programs whose event loop appends: otherwise `epoll_wait` and reads with a timeout return `EINTR` in a
    /// thread when a buffer that it has flushed is written.
    ///
    /// It costs a thread of the kernel per `QuikIO`, which looks for more work for a millisecond after each flush
    /// before it sleeps: next to a whole processor under a steady load. Only for the engine io_uring; with positioned
    /// writes there is nothing to interrupt.
    pub fn kernel_submits(mut self, on: bool) -> Self {
        self.submitter = if on { Submitter::Kernel } else { Submitter::Caller };
        self
    }

    /// Sets the order in which the parts of the log reach the file. The default is [`WriteMode::TailLocalized`].
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// Sets how many bytes are preallocated ahead of the log at most, which makes durable writes faster; 0 for none.
    /// The default is 8 MiB for a file, and 0 for memory.
    ///
    /// It begins small, when a few small durable writes have come in a row, and is never more than has been written
    /// durably. [`QuikIO::log_end`] says how it is found again: by an extended attribute, so that nothing is prepared
    /// where the file system has none.
    pub fn prepare(mut self, bytes: u64) -> Self {
        self.prepare = Some(bytes);
        self
    }

    /// Opens the file at `path` like [`QuikIO::open`]: with direct I/O where that works, its directory synced, and
    /// locked against other writers while the `QuikIO` lives.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if it cannot be opened, or for one of the reasons of [`file`](Self::file). A file that is missing
    /// is created only after the options have been checked.
    pub fn open(self, path: impl AsRef<Path>) -> Result<QuikIO, OpenError> {
        let path = path.as_ref();
        let refused = |error| OpenError::file(path, error);
        self.check().map_err(refused)?;
        // Before a missing file is created.
        let kind = self.engine_kind().map_err(refused)?;
        let Opened { file, lock, cached, created } = open::open(path)?;
        let io = self.assemble(kind, file).inspect_err(|_| {
            // Still locked: no other writer has it.
            if created {
                _ = fs::remove_file(path);
            }
        });
        let io = io.map_err(refused)?.opened(lock, cached);
        let (path, engine, direct) = (path.to_path_buf(), io.engine(), io.is_direct());
        event!(DEBUG, clone(engine), path = %path.display(), %engine, direct, "opened");
        Ok(io)
    }

    /// Makes a `QuikIO` for a file that is open already. It is locked while a ring is attached.
    ///
    /// # Errors
    ///
    /// [`FileError`], if the file cannot hold a log, the start is not a multiple of 4096, the engine is unavailable, or
    /// `BUFFER_RING_ENGINE` names none.
    pub fn file(self, file: impl Into<Arc<File>>) -> Result<QuikIO, FileError> {
        self.on_file(file.into())
    }

    fn on_file(self, file: Arc<File>) -> Result<QuikIO, FileError> {
        self.check()?;
        let kind = self.engine_kind()?;
        let file = Arc::new(LogFile::new(file));
        file.check()?;
        self.assemble(kind, file)
    }

    fn on_memory(self, device: MemoryDevice) -> Result<QuikIO, FileError> {
        self.check()?;
        if let Some(kind) = self.engine.filter(|&kind| kind != EngineKind::Memory) {
            let reason = "there is no file, only memory".to_owned();
            return Err(FileError::EngineUnavailable { kind, reason });
        }
        let engine = Engine::new(EngineKind::Memory, None);
        Ok(self.apply(QuikIO::assemble(Box::new(device.clone()), Arc::new(device), engine)))
    }

    fn check(&self) -> Result<(), FileError> {
        match self.start_at {
            Some(start) if !is_aligned(start) => Err(FileError::UnalignedStart(start)),
            _ => Ok(()),
        }
    }

    /// The engine that was asked for here; `None`: the environment decides, in which a wrong name is an error.
    fn engine_kind(&self) -> Result<Option<EngineKind>, FileError> {
        match self.engine {
            None => _ = engine::preferred()?,
            Some(EngineKind::Memory) => return Err(engine::memory_has_no_file()),
            Some(_) => {}
        }
        Ok(self.engine)
    }

    fn assemble(self, kind: Option<EngineKind>, file: Arc<LogFile>) -> Result<QuikIO, FileError> {
        let (backend, engine) = match kind {
            Some(kind) => engine::exactly(kind, &file, self.submitter)?,
            None => engine::best(&file, self.submitter),
        };
        Ok(self.apply(QuikIO::assemble(backend, file, engine)))
    }

    fn apply(self, mut io: QuikIO) -> QuikIO {
        io.start_at = self.start_at;
        io.write_mode = self.write_mode;
        io.prepare = self.prepare.unwrap_or(io.prepare);
        io
    }
}

/// [`QuikIOOptions`] for a file that is open already, or for memory. See [`QuikIO::builder`] and
/// [`MemoryDevice::builder`].
#[derive(Debug)]
#[must_use]
pub struct QuikIOBuilder {
    target: Target,
    options: QuikIOOptions,
}

#[derive(Debug)]
enum Target {
    File(Arc<File>),
    Memory(MemoryDevice),
}

impl QuikIOBuilder {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { target: Target::File(file), options: QuikIOOptions::default() }
    }

    pub(crate) fn on_memory(device: MemoryDevice) -> Self {
        Self { target: Target::Memory(device), options: QuikIOOptions::default() }
    }

    fn map(self, change: impl FnOnce(QuikIOOptions) -> QuikIOOptions) -> Self {
        Self { options: change(self.options), ..self }
    }

    /// See [`QuikIOOptions::start_at`].
    pub fn start_at(self, offset: u64) -> Self {
        self.map(|options| options.start_at(offset))
    }

    /// See [`QuikIOOptions::engine`].
    pub fn engine(self, kind: EngineKind) -> Self {
        self.map(|options| options.engine(kind))
    }

    /// See [`QuikIOOptions::kernel_submits`].
    pub fn kernel_submits(self, on: bool) -> Self {
        self.map(|options| options.kernel_submits(on))
    }

    /// See [`QuikIOOptions::write_mode`].
    pub fn write_mode(self, mode: WriteMode) -> Self {
        self.map(|options| options.write_mode(mode))
    }

    /// See [`QuikIOOptions::prepare`].
    pub fn prepare(self, bytes: u64) -> Self {
        self.map(|options| options.prepare(bytes))
    }

    /// Makes the `QuikIO`.
    ///
    /// # Errors
    ///
    /// [`FileError`], for the reasons of [`QuikIOOptions::file`].
    pub fn build(self) -> Result<QuikIO, FileError> {
        match self.target {
            Target::File(file) => self.options.on_file(file),
            Target::Memory(device) => self.options.on_memory(device),
        }
    }
}
