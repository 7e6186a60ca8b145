//! The choices that `QuikIO::new` makes by itself.

use std::fs::File;
use std::sync::Arc;

use ring_alloc::is_aligned;

use crate::file::LogFile;
use crate::seam::Storage;
use crate::uring::Submitter;
use crate::{Engine, EngineKind, FileError, MemoryDevice, QuikIO, WriteMode, engine};

/// Makes a [`QuikIO`] whose start, engine or write mode is chosen by hand. See [`QuikIO::builder`] and [`MemoryDevice::builder`].
#[derive(Debug)]
#[must_use]
pub struct QuikIOBuilder {
    target: Target,
    start_at: Option<u64>,
    engine: Option<EngineKind>,
    write_mode: WriteMode,
    prepare: Option<u64>,
    submitter: Submitter,
}

#[derive(Debug)]
enum Target {
    File(Arc<File>),
    Memory(MemoryDevice),
}

impl QuikIOBuilder {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self::on(Target::File(file))
    }

    pub(crate) fn on_memory(device: MemoryDevice) -> Self {
        Self::on(Target::Memory(device))
    }

    fn on(target: Target) -> Self {
        let (write_mode, submitter) = (WriteMode::default(), Submitter::default());
        Self { target, start_at: None, engine: None, write_mode, prepare: None, submitter }
    }

    /// The log begins at this byte of the file, a multiple of 4096. What the file holds from there on is overwritten. A second ring on the
    /// same [`QuikIO`] begins behind what was written through it.
    pub fn start_at(mut self, offset: u64) -> Self {
        self.start_at = Some(offset);
        self
    }

    /// This engine or none, whatever the environment variable `BUFFER_RING_ENGINE` says.
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine = Some(kind);
        self
    }

    /// Whether a thread of the kernel takes over what is submitted (`IORING_SETUP_SQPOLL`), so that no completion interrupts a system call of
    /// the threads that append. For programs whose event loop appends; without it, `epoll_wait` and reads with a timeout return `EINTR`
    /// there when a buffer that the thread has flushed is written.
    ///
    /// It costs a thread of the kernel per `QuikIO`, which looks for more work for a millisecond after each flush before it sleeps: next to
    /// a whole processor under a steady load. Only for the engine io_uring; with positioned writes there is nothing to interrupt.
    pub fn kernel_submits(mut self, on: bool) -> Self {
        self.submitter = if on { Submitter::Kernel } else { Submitter::Caller };
        self
    }

    /// In which order the parts of the log reach the file; [`WriteMode::TailLocalized`] if nothing is said.
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// How many bytes of the file may be prepared ahead of the log, for durable writes to be faster; 0: none. The default is 8 MiB for a
    /// file, and 0 for memory.
    ///
    /// It begins small, when a few small durable writes have come in a row, and is never more than has been written durably.
    /// [`QuikIO::log_end`] says how it is found again: by an extended attribute, so that nothing is prepared where the
    /// file system has none.
    pub fn prepare(mut self, bytes: u64) -> Self {
        self.prepare = Some(bytes);
        self
    }

    /// The `QuikIO`.
    ///
    /// # Errors
    ///
    /// [`FileError`], if the file cannot hold a log, the start is not a multiple of 4096, or the engine is unavailable.
    pub fn build(self) -> Result<QuikIO, FileError> {
        if let Some(start) = self.start_at.filter(|&start| !is_aligned(start)) {
            return Err(FileError::UnalignedStart(start));
        }
        let mut io = match self.target {
            Target::File(file) => {
                let file = Arc::new(LogFile::new(file));
                file.check()?;
                let (backend, engine) = match self.engine {
                    Some(kind) => engine::exactly(kind, &file, self.submitter)?,
                    None => engine::best(&file, self.submitter),
                };
                QuikIO::assemble(backend, file, engine)
            }
            Target::Memory(device) => {
                if let Some(kind) = self.engine.filter(|&kind| kind != EngineKind::Memory) {
                    let reason = "there is no file, only memory".to_owned();
                    return Err(FileError::EngineUnavailable { kind, reason });
                }
                QuikIO::assemble(Box::new(device.clone()), Arc::new(device), Engine::new(EngineKind::Memory, None))
            }
        };
        io.start_at = self.start_at;
        io.write_mode = self.write_mode;
        io.prepare = self.prepare.unwrap_or(io.prepare);
        Ok(io)
    }
}
