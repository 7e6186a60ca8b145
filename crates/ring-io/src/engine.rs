//! Which engine runs, and why.

use core::fmt;
use std::env;
use std::sync::Arc;

use crate::file::LogFile;
use crate::positioned::Positioned;
use crate::seam::Backend;
use crate::uring::Uring;
use crate::{FileError, event};

/// The environment variable that chooses the engine where the builder does not.
const ENGINE_VARIABLE: &str = "BUFFER_RING_ENGINE";

/// The ways of writing to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineKind {
    /// Asynchronous writes through an io_uring instance of its own.
    IoUring,
    /// `pwrite` and `pwritev2` on a few threads.
    Positioned,
    /// No device at all: see [`QuikIO::in_memory`](crate::QuikIO::in_memory).
    Memory,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Positioned => "positioned writes",
            Self::Memory => "memory",
        })
    }
}

/// The engine of a [`QuikIO`](crate::QuikIO), settled at construction.
///
/// Displays as its kind and, where that is not the first choice, the reason: `positioned writes (io_uring_setup: …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    kind: EngineKind,
    reason: Option<String>,
}

impl Engine {
    pub(crate) fn new(kind: EngineKind, reason: Option<String>) -> Self {
        Self { kind, reason }
    }

    /// Which engine it is.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Why it is not io_uring, the first choice; or who asked for it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// The best engine there is: what the environment asks for, else io_uring, else positioned writes.
pub(crate) fn best(file: &Arc<LogFile>) -> (Box<dyn Backend>, Engine) {
    let reason = if preferred() == Some(EngineKind::Positioned) {
        format!("asked for by {ENGINE_VARIABLE}")
    } else {
        match Uring::new(Arc::clone(file)) {
            Ok(uring) => return (Box::new(uring), Engine::new(EngineKind::IoUring, None)),
            Err(reason) => {
                event!(WARN, clone(reason), %reason, "no io_uring: falling back to positioned writes");
                reason
            }
        }
    };
    (Box::new(Positioned::new(Arc::clone(file))), Engine::new(EngineKind::Positioned, Some(reason)))
}

/// The engine of that kind or none.
pub(crate) fn exactly(kind: EngineKind, file: &Arc<LogFile>) -> Result<(Box<dyn Backend>, Engine), FileError> {
    let unavailable = |reason| FileError::EngineUnavailable { kind, reason };
    let backend: Box<dyn Backend> = match kind {
        EngineKind::IoUring => Box::new(Uring::new(Arc::clone(file)).map_err(unavailable)?),
        EngineKind::Positioned => Box::new(Positioned::new(Arc::clone(file))),
        EngineKind::Memory => return Err(unavailable("it has no file; it is made by QuikIO::in_memory".to_owned())),
    };
    Ok((backend, Engine::new(kind, Some("asked for by the builder".to_owned()))))
}

fn preferred() -> Option<EngineKind> {
    let value = env::var_os(ENGINE_VARIABLE)?;
    match value.to_str() {
        Some("io_uring") => Some(EngineKind::IoUring),
        Some("positioned") => Some(EngineKind::Positioned),
        _ => {
            event!(WARN, ?value, "{ENGINE_VARIABLE} is neither `io_uring` nor `positioned`: ignored");
            None
        }
    }
}
