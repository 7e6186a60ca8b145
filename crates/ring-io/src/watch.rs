//! The events of a device in memory, in the order in which they happen.

use core::any::Any;
use core::fmt;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::locks::Mutex;

/// Something that happened at a [`MemoryDevice`](crate::MemoryDevice). Writes and syncs are numbered from 0, in order
/// of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceEvent<'a> {
    /// A write has arrived, and the device may read its bytes from now on.
    WriteArrived {
        /// Its number.
        write: usize,
        /// Where in the file, in bytes; or at which address of a log in segments.
        offset: u64,
        /// What is to be written.
        bytes: &'a [u8],
        /// Whether it is to be on stable storage when it completes.
        durable: bool,
    },
    /// It is in the file, perhaps not all of it.
    WriteCompleted {
        /// Its number.
        write: usize,
        /// What was written.
        bytes: &'a [u8],
    },
    /// It failed.
    WriteFailed {
        /// Its number.
        write: usize,
    },
    /// What was beyond `len` is no longer in the file; on stable storage it is there until a sync.
    Cut {
        /// Bytes of the file.
        len: u64,
    },
    /// The key of the markers in [preallocated space](crate::QuikIOBuilder::prepare) has changed; on stable storage it
    /// has not.
    KeyChanged {
        /// What it is now.
        key: Option<[u8; 16]>,
    },
    /// It is on stable storage as it was when a sync or a durable write began, which succeeds.
    KeySynced {
        /// What it was then.
        key: Option<[u8; 16]>,
    },
    /// A sync of a file begins, which puts on stable storage what has completed there by now.
    SyncBegan {
        /// Its number.
        sync: usize,
    },
    /// It has ended.
    SyncEnded {
        /// Its number.
        sync: usize,
        /// Whether it has succeeded.
        succeeded: bool,
    },
}

type Watch = dyn Fn(DeviceEvent<'_>) + Send + Sync;

/// What a panic carries.
type Payload = Box<dyn Any + Send>;

#[derive(Clone, Default)]
pub(crate) struct Watcher {
    watch: Option<Arc<Watch>>,
    /// The first panic of `watch`, for the remote control: the thread that caused the event may be in the middle of a
    /// completion.
    panic: Arc<Mutex<Option<Payload>>>,
}

impl Watcher {
    pub(crate) fn new(watch: impl Fn(DeviceEvent<'_>) + Send + Sync + 'static) -> Self {
        Self { watch: Some(Arc::new(watch)), panic: Arc::default() }
    }

    pub(crate) fn notify(&self, event: DeviceEvent<'_>) {
        if let Some(watch) = &self.watch
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| watch(event)))
        {
            self.panic.lock().get_or_insert(payload);
        }
    }

    pub(crate) fn take_panic(&self) -> Option<Payload> {
        self.panic.lock().take()
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.watch.is_some() { "watched" } else { "unwatched" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_watched_prints_otherwise_than_one_that_is_not() {
        assert_ne!(format!("{:?}", Watcher::new(|_| ())), format!("{:?}", Watcher::default()));
    }
}
