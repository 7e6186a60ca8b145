//! The choices that `QuikIO::new` and `QuikIO::open` make by themselves.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ring_alloc::is_aligned;

use crate::backend::Storage;
use crate::engine::uring::Submitter;
use crate::file::LogFile;
use crate::files::{Files, Segment, Segments};
use crate::open::Opened;
use crate::{
    Engine, EngineKind, FileError, MemoryDevice, OpenError, QuikIO, SegmentFile, WriteMode, engine, event, open,
};

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
    /// Starts the log at this byte of the file, or at this address of a log in [segments](Self::segments): a multiple of
    /// 4096.
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
    /// where the file system has none. Nor is anything prepared in [segments](Self::segments).
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
        let io = self.assemble(kind, &file, Files::One(Segment::whole(Arc::clone(&file)))).inspect_err(|_| {
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

    /// Makes a `QuikIO` for a log in segments of `segment_size` bytes, which is fixed for the life of the log: segment
    /// `k` holds the addresses from `k * segment_size` on, in a file of its own, behind
    /// [`SEGMENT_HEADER`](crate::SEGMENT_HEADER) bytes that are its maker's. At least one segment has to be there from
    /// the beginning; more come with [`QuikIO::add_segment`].
    ///
    /// Each file is regular, as long as the header and `segment_size` bytes (filled with zeros beforehand), and on
    /// stable storage, with its header and its name in its directory. It is locked against other writers until it is
    /// removed, or the `QuikIO` is gone.
    ///
    /// Such a log begins at [`start_at`](Self::start_at), and has no end of its own: nothing is preallocated, found or
    /// cut there.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::sync::Arc;
    /// use ring_alloc::{BLOCK, Buffer};
    /// use ring_io::{LogWrite, QuikIO, SEGMENT_HEADER, Wait};
    ///
    /// const SIZE: u64 = 16 * 4096;
    /// let folder = tempfile::tempdir()?;
    /// let segment = |number: u64| -> std::io::Result<File> {
    ///     let path = folder.path().join(format!("{number}.seg"));
    ///     std::fs::write(&path, vec![0; (SEGMENT_HEADER + SIZE) as usize])?;
    ///     let file = File::options().read(true).write(true).open(path)?;
    ///     file.sync_all()?;
    ///     File::open(folder.path())?.sync_all()?;
    ///     Ok(file)
    /// };
    ///
    /// let io = Arc::new(QuikIO::options().segments(SIZE, [(0, segment(0)?)])?);
    /// let bytes = Buffer::zeroed(BLOCK)?.freeze(BLOCK);
    /// let queue = io.attach(bytes.arena())?;
    ///
    /// // The log skips the rest of segment 0, so the write waits for segment 1.
    /// queue.submit_write(LogWrite { token: 7, bytes, address: 0, next: SIZE, durable: true });
    /// let mut finished = Vec::new();
    /// queue.reap(Wait::No, &mut finished);
    /// assert!(finished.is_empty());
    ///
    /// io.add_segment(1, segment(1)?)?;
    /// queue.reap(Wait::Until(None), &mut finished);
    /// assert!(finished[0].durable);
    ///
    /// let removed = io.remove_segments_before(1)?;
    /// assert_eq!(removed.len(), 1);
    /// let error = io.read_at(0, &mut [0; 5]).unwrap_err();
    /// assert_eq!(error.missing_segment(), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileError`]: that of [`file`](Self::file) for one of the files, [`FileError::Segment`] if one cannot be a
    /// segment or there is none, [`FileError::SegmentSize`], or [`FileError::Locked`] if another writer has one of
    /// them.
    pub fn segments<F: Into<SegmentFile>>(
        self,
        segment_size: u64,
        files: impl IntoIterator<Item = (u64, F)>,
    ) -> Result<QuikIO, FileError> {
        self.check()?;
        let files = files.into_iter().map(|(number, file)| (number, file.into()));
        let segments = Segments::new(segment_size, files)?;
        let first = segments.first();
        match first.device() {
            Some(device) => self.in_memory(device.clone(), Files::Segments(segments)),
            None => {
                let kind = self.engine_kind()?;
                self.assemble(kind, first.file(), Files::Segments(segments))
            }
        }
    }

    fn on_file(self, file: Arc<File>) -> Result<QuikIO, FileError> {
        self.check()?;
        let kind = self.engine_kind()?;
        let file = Arc::new(LogFile::new(file));
        file.check()?;
        self.assemble(kind, &file, Files::One(Segment::whole(Arc::clone(&file))))
    }

    fn on_memory(self, device: MemoryDevice) -> Result<QuikIO, FileError> {
        self.check()?;
        let file = Segment::whole_in_memory(device.clone());
        self.in_memory(device, Files::One(file))
    }

    fn in_memory(self, device: MemoryDevice, files: Files) -> Result<QuikIO, FileError> {
        if let Some(kind) = self.engine.filter(|&kind| kind != EngineKind::Memory) {
            let reason = "there is no file, only memory".to_owned();
            return Err(FileError::EngineUnavailable { kind, reason });
        }
        let engine = Engine::new(EngineKind::Memory, None);
        Ok(self.apply(QuikIO::assemble(Box::new(device), files, engine)))
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

    /// `file`: the only one, or the first.
    fn assemble(self, kind: Option<EngineKind>, file: &LogFile, files: Files) -> Result<QuikIO, FileError> {
        let (backend, engine) = match kind {
            Some(kind) => engine::exactly(kind, self.submitter)?,
            None => engine::best(file, self.submitter),
        };
        Ok(self.apply(QuikIO::assemble(backend, files, engine)))
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
