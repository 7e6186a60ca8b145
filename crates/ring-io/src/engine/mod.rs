//! Which engine runs, and why.

pub(crate) mod memory;
mod positioned;
pub(crate) mod uring;

use core::fmt;
use std::env;
use std::ffi::OsStr;

use self::positioned::Positioned;
use self::uring::{Submitter, Uring};
use crate::backend::Backend;
use crate::file::LogFile;
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

/// The engine of a [`QuikIO`](crate::QuikIO), chosen when it is made.
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

    /// Returns which engine it is.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Returns why it is not io_uring, the first choice; or what asked for it; or why the environment's choice was
    /// ignored.
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

/// The best engine there is: what the environment asks for, else io_uring, else positioned writes. If the environment
/// asks for what does not exist, the engine says so.
pub(crate) fn best(file: &LogFile, submitter: Submitter) -> (Box<dyn Backend>, Engine) {
    let (preferred, unknown) = match preferred() {
        Ok(preferred) => (preferred, None),
        Err(error) => {
            event!(WARN, clone(error), %error, "the environment's choice of an engine is ignored");
            (None, Some(format!("ignored: {error}")))
        }
    };
    let reason = if preferred == Some(EngineKind::Positioned) {
        format!("asked for by {ENGINE_VARIABLE}")
    } else if preferred != Some(EngineKind::IoUring) && file.blocks_submit() {
        "through io_uring, FUSE would have a submit wait for the server".to_owned()
    } else {
        match Uring::new(submitter) {
            Ok(uring) => return (Box::new(uring), Engine::new(EngineKind::IoUring, unknown)),
            Err(reason) => {
                event!(WARN, clone(reason), %reason, "no io_uring: falling back to positioned writes");
                unknown.map_or(reason.clone(), |unknown| format!("{reason}; {unknown}"))
            }
        }
    };
    (Box::new(Positioned::new()), Engine::new(EngineKind::Positioned, Some(reason)))
}

/// The engine of that kind or none.
pub(crate) fn exactly(kind: EngineKind, submitter: Submitter) -> Result<(Box<dyn Backend>, Engine), FileError> {
    let unavailable = |reason| FileError::EngineUnavailable { kind, reason };
    let backend: Box<dyn Backend> = match kind {
        EngineKind::IoUring => Box::new(Uring::new(submitter).map_err(unavailable)?),
        EngineKind::Positioned => Box::new(Positioned::new()),
        EngineKind::Memory => return Err(memory_has_no_file()),
    };
    Ok((backend, Engine::new(kind, Some("asked for by the builder".to_owned()))))
}

pub(crate) fn memory_has_no_file() -> FileError {
    let reason = "it has no file; it is made by QuikIO::in_memory".to_owned();
    FileError::EngineUnavailable { kind: EngineKind::Memory, reason }
}

/// What the environment asks for. Nothing, if the variable is unset or empty.
pub(crate) fn preferred() -> Result<Option<EngineKind>, FileError> {
    env::var_os(ENGINE_VARIABLE).map_or(Ok(None), |value| named(&value))
}

/// The engine that the environment's `value` stands for.
fn named(value: &OsStr) -> Result<Option<EngineKind>, FileError> {
    match value.to_str() {
        Some("") => Ok(None),
        Some("uring" | "io_uring") => Ok(Some(EngineKind::IoUring)),
        Some("positioned") => Ok(Some(EngineKind::Positioned)),
        _ => Err(FileError::UnknownEngine(value.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn an_engine_gives_its_reason_and_prints_it_behind_its_kind() {
        let engine = Engine::new(EngineKind::Positioned, Some("not today".to_owned()));
        assert_eq!((engine.kind(), engine.reason()), (EngineKind::Positioned, Some("not today")));
        assert_eq!(engine.to_string(), "positioned writes (not today)");
        let first_choice = Engine::new(EngineKind::IoUring, None);
        assert_eq!((first_choice.reason(), first_choice.to_string()), (None, "io_uring".to_owned()));
    }

    #[test]
    fn the_environment_names_the_two_engines_that_it_can_choose() {
        let named = |value| named(OsStr::new(value));
        for (value, kind) in [
            ("io_uring", Some(EngineKind::IoUring)),
            ("uring", Some(EngineKind::IoUring)),
            ("positioned", Some(EngineKind::Positioned)),
            ("", None),
        ] {
            assert_eq!(named(value), Ok(kind), "{value:?}");
        }
        for unknown in ["memory", "IO_URING", "uring ", "positioned,uring"] {
            assert_eq!(named(unknown), Err(FileError::UnknownEngine(unknown.to_owned())));
        }
    }

    #[test]
    fn a_name_that_is_no_text_is_unknown_and_shown_as_well_as_it_can_be() {
        let error = named(OsStr::from_bytes(b"uring\xFF")).expect_err("no engine is called so");
        assert_eq!(
            error.to_string(),
            "there is no engine `uring\u{FFFD}`: set BUFFER_RING_ENGINE to uring, io_uring or positioned, or unset it"
        );
    }
}
