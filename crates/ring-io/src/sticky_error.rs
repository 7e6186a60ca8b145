//! The first error after which it is unknown what is on stable storage: every later promise of durability gets it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::locks::Mutex;
use crate::retry::is_transient;
use crate::{DeviceError, event};

/// The errors so far.
#[derive(Debug, Default)]
pub(crate) struct StickyError {
    /// Whether any write of the log has failed, or the error is set.
    write_failed: AtomicBool,
    error: OnceLock<DeviceError>,
    /// Why preparing ended, where it is an error.
    preparing_stopped: Mutex<Option<DeviceError>>,
}

impl StickyError {
    /// Whether a sync or a durable write may still succeed.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        self.error.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Sets the error, unless there is one: a failure that may concern anything that is not on stable storage.
    pub(crate) fn set(&self, error: DeviceError) {
        self.note_failed_write();
        _ = self.error.set(error);
    }

    /// Sets the error after a failure that no caller waits for: the next one gets it.
    pub(crate) fn set_unseen(&self, error: DeviceError) {
        event!(ERROR, clone(error), %error, "failed behind the log");
        self.set(error);
    }

    /// A preallocating write has failed. A full disk or a limit only ends the preparing.
    pub(crate) fn preparing_failed(&self, error: DeviceError) {
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
        let is_full = |errno| full.contains(&errno) || is_transient(errno);
        if error.errno().is_none_or(|errno| is_full(Errno::from_raw_os_error(errno))) {
            event!(WARN, clone(error), %error, "no more space is prepared: durable writes become slower");
            *self.preparing_stopped.lock() = Some(error);
        } else {
            self.set_unseen(error);
        }
    }

    /// Why preparing ended, if it was an error that says nothing about the log.
    pub(crate) fn preparing_stopped(&self) -> Option<DeviceError> {
        self.preparing_stopped.lock().clone()
    }

    /// A write of the log has failed: from now on the end of the file is not what was submitted.
    pub(crate) fn note_failed_write(&self) {
        // Relaxed here and below: it is read when the queue is dropped, which comes after all that has used it.
        self.write_failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_failed_writes(&self) -> bool {
        self.write_failed.load(Ordering::Relaxed)
    }
}
