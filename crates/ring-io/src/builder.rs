//! The choices that `QuikIO::new` makes by itself.

use std::fs::File;
use std::sync::Arc;

use ring_alloc::is_aligned;

use crate::file::LogFile;
use crate::seam::Storage;
use crate::{EngineKind, FileError, QuikIO, engine};

/// Makes a [`QuikIO`] whose start or engine is chosen by hand. See [`QuikIO::builder`].
#[derive(Debug)]
#[must_use]
pub struct QuikIOBuilder {
    file: Arc<File>,
    start_at: Option<u64>,
    engine: Option<EngineKind>,
}

impl QuikIOBuilder {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file, start_at: None, engine: None }
    }

    /// The log begins at this byte of the file, a multiple of 4096. What the file holds from there on is overwritten.
    pub fn start_at(mut self, offset: u64) -> Self {
        self.start_at = Some(offset);
        self
    }

    /// This engine or none, whatever the environment says.
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine = Some(kind);
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
        let file = Arc::new(LogFile::new(self.file));
        file.check()?;
        let (backend, engine) = match self.engine {
            Some(kind) => engine::exactly(kind, &file)?,
            None => engine::best(&file),
        };
        Ok(QuikIO::assemble(backend, file, engine, self.start_at))
    }
}
