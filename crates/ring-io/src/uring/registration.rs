//! Memory and file that the kernel knows beforehand.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::Submitter;
use ring_alloc::{Arena, Frozen};

use crate::{Registered, event};

/// What is registered with a ring, until [`revoke`](Self::revoke).
#[derive(Debug)]
pub(super) struct Registration {
    /// The arena whose buffer `n` is registered as buffer `n`. Kept here, it outlives its registration.
    arena: Option<Arc<Arena>>,
    /// Whether the file is registered as file 0.
    pub(super) file: bool,
}

impl Registration {
    /// Registers what the kernel allows, and tells what it doesn't.
    pub(super) fn new(submitter: &Submitter<'_>, arena: &Arc<Arena>, file: BorrowedFd<'_>) -> (Self, Registered) {
        let buffers: Vec<_> = (0..arena.count())
            .map(|index| libc::iovec { iov_base: arena.address(index).cast(), iov_len: arena.buffer_size() })
            .collect();
        // SAFETY: *valid until unregistered*: each is a whole buffer of `arena`, which stays mapped as long as an `Arc` of it
        // lives; `self.arena` is one, and `revoke` lets go of it only after the buffers are unregistered.
        let buffers = unsafe { submitter.register_buffers(&buffers) };
        let file = submitter.register_files(&[file.as_fd().as_raw_fd()]);

        let refusals: Vec<_> = [("buffers", &buffers), ("file", &file)]
            .into_iter()
            .filter_map(|(what, outcome)| Some(format!("{what}: {}", outcome.as_ref().err()?)))
            .collect();
        let reason = (!refusals.is_empty()).then(|| refusals.join("; "));
        if let Some(reason) = &reason {
            event!(DEBUG, clone(reason), reason, "not everything could be registered: going on without");
        }
        let registration = Self { arena: buffers.is_ok().then(|| Arc::clone(arena)), file: file.is_ok() };
        (registration, Registered { buffers: buffers.is_ok(), file: file.is_ok(), reason })
    }

    /// The number under which the kernel knows the buffer that `bytes` are from.
    pub(super) fn buffer(&self, bytes: &Frozen) -> Option<u16> {
        let arena = self.arena.as_ref()?;
        if !Arc::ptr_eq(arena, bytes.arena()) {
            return None;
        }
        u16::try_from(bytes.index()).ok()
    }

    pub(super) fn revoke(self, submitter: &Submitter<'_>) {
        if self.file
            && let Err(error) = submitter.unregister_files()
        {
            event!(WARN, %error, "the file could not be unregistered");
        }
        if let Some(arena) = self.arena
            && let Err(error) = submitter.unregister_buffers()
        {
            event!(WARN, %error, "the buffers could not be unregistered: their memory is never freed");
            core::mem::forget(arena);
        }
    }
}
