//! Memory and file that the kernel knows beforehand.
//!
//! Registering a buffer pins it, and so has the kernel back all of it with memory: half a second to some seconds for a
//! gigabyte. So each is registered when it goes to the device for the first time. By then its user has filled it, and
//! pinning is all that is left to do.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::Submitter;
use ring_alloc::{Arena, Frozen};
use rustix::io::Errno;

use crate::retry::patiently;
use crate::{Registered, event};

/// What is registered with a ring, until [`revoke`](Self::revoke).
#[derive(Debug)]
pub(super) struct Registration {
    /// The arena whose buffer `n` is registered as buffer `n`. Kept here, it outlives its registration.
    arena: Option<Arc<Arena>>,
    buffers: Vec<Pinned>,
    /// Whether the file is registered as file 0.
    pub(super) file: bool,
}

/// How far a buffer's registration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pinned {
    /// It has not been at the device yet.
    NotYet,
    Yes,
    /// A thread is at it, or the kernel has refused: it goes without.
    No,
}

impl Registration {
    /// Registers what the kernel allows, and reports what it doesn't.
    pub(super) fn new(submitter: &Submitter<'_>, arena: &Arc<Arena>, file: BorrowedFd<'_>) -> (Self, Registered) {
        let pinned = patiently(|| table(submitter, arena));
        let file = submitter.register_files(&[file.as_fd().as_raw_fd()]);

        let refusals: Vec<_> = [("buffers", pinned.as_ref().err()), ("file", file.as_ref().err())]
            .into_iter()
            .filter_map(|(what, error)| Some(format!("{what}: {}", error?)))
            .collect();
        let reason = (!refusals.is_empty()).then(|| refusals.join("; "));
        if let Some(reason) = &reason {
            event!(DEBUG, clone(reason), reason, "not everything could be registered: going on without");
        }
        let registered = Registered { buffers: pinned.is_ok(), file: file.is_ok(), reason };
        let arena = pinned.is_ok().then(|| Arc::clone(arena));
        (Self { arena, buffers: pinned.unwrap_or_default(), file: file.is_ok() }, registered)
    }

    /// The arena and the buffer that `bytes` are from, if that is to be registered now: by the caller, who
    /// [notes](Self::note) the outcome.
    pub(super) fn claim(&mut self, bytes: &Frozen) -> Option<(Arc<Arena>, usize)> {
        let index = self.index(bytes)?;
        if self.buffers[index] != Pinned::NotYet {
            return None;
        }
        self.buffers[index] = Pinned::No;
        Some((Arc::clone(bytes.arena()), index))
    }

    /// Whether the kernel has registered the buffer that was claimed.
    pub(super) fn note(&mut self, index: usize, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => self.buffers[index] = Pinned::Yes,
            Err(error) => {
                let error = error.to_string();
                event!(DEBUG, %error, index, "the buffer could not be registered: going on without");
            }
        }
    }

    /// The number under which the kernel knows the buffer that `bytes` are from.
    pub(super) fn buffer(&self, bytes: &Frozen) -> Option<u16> {
        let index = self.index(bytes)?;
        if self.buffers[index] == Pinned::Yes { u16::try_from(index).ok() } else { None }
    }

    fn index(&self, bytes: &Frozen) -> Option<usize> {
        let arena = self.arena.as_ref()?;
        Arc::ptr_eq(arena, bytes.arena()).then(|| bytes.index())
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

/// Makes the kernel's table for the buffers of `arena`, and registers the first one, which is about to be used: if
/// there is no memory to lock, that finds out. All of them where the kernel has no empty tables (before 5.19).
fn table(submitter: &Submitter<'_>, arena: &Arc<Arena>) -> io::Result<Vec<Pinned>> {
    let sparse = u32::try_from(arena.count()).map_err(|_| Errno::INVAL.into());
    match sparse.and_then(|count| submitter.register_buffers_sparse(count)) {
        Ok(()) => {
            let mut pinned = vec![Pinned::NotYet; arena.count()];
            if let Err(error) = register(submitter, arena, 0) {
                submitter.unregister_buffers()?;
                return Err(error);
            }
            pinned[0] = Pinned::Yes;
            Ok(pinned)
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            let buffers: Vec<_> = (0..arena.count()).map(|index| whole(arena, index)).collect();
            // SAFETY: *valid until unregistered*: as in `register`.
            unsafe { submitter.register_buffers(&buffers) }?;
            Ok(vec![Pinned::Yes; arena.count()])
        }
        Err(error) => Err(error),
    }
}

/// Registers buffer `index` of the arena that has a table.
pub(super) fn register(submitter: &Submitter<'_>, arena: &Arc<Arena>, index: usize) -> io::Result<()> {
    // The kernel takes at most 2^14 buffers.
    let offset = index as u32;
    // SAFETY: *valid until unregistered*: it is a whole buffer of `arena`, which stays mapped as long as an `Arc` of it
    // lives; the `Registration` has one, and `revoke` lets go of it only after the buffers are unregistered.
    unsafe { submitter.register_buffers_update(offset, &[whole(arena, index)], None) }
}

fn whole(arena: &Arena, index: usize) -> libc::iovec {
    libc::iovec { iov_base: arena.address(index).cast(), iov_len: arena.buffer_size() }
}
