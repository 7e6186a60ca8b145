//! Memory and files that the kernel knows beforehand.
//!
//! Registering a buffer pins it, and so has the kernel back all of it with memory: half a second to some seconds for a
//! gigabyte. So each is registered when it goes to the device for the first time. By then its user has filled it, and
//! pinning is all that is left to do.
//!
//! Of a log in segments the newest are registered, which are those that are written. An entry in the submission queue
//! names a place in the kernel's table, not a file: so a place is given to another segment only when no job in a slot
//! is for the one that had it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::Submitter;
use ring_alloc::{Arena, Frozen};
use rustix::io::Errno;

use super::slots::Slots;
use crate::files::Segment;
use crate::retry::patiently;
use crate::{Registered, event};

/// Places for files of a log in segments. Few of them are written at once.
pub(super) const PLACES: usize = 16;

/// What the kernel takes for a place without a file.
const NO_FILE: RawFd = -1;

/// What is registered with a ring, until [`revoke`](Self::revoke).
#[derive(Debug)]
pub(super) struct Registration {
    /// The arena whose buffer `n` is registered as buffer `n`. Kept here, it outlives its registration.
    arena: Option<Arc<Arena>>,
    buffers: Vec<Pinned>,
    /// The places in the kernel's table of files; none, if it has no table.
    places: Vec<Place>,
}

/// A place in the kernel's table of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// The file with this number has it.
    Of(u64),
    /// A thread is at it, or the kernel has refused: it stays as it is.
    Busy,
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
    /// Registers what the kernel allows, and reports what it doesn't. `segments`: there may be more files later.
    pub(super) fn new(
        submitter: &Submitter<'_>,
        arena: &Arc<Arena>,
        files: &[Arc<Segment>],
        segments: bool,
    ) -> (Self, Registered) {
        let pinned = patiently(|| table(submitter, arena));
        let places = places(submitter, files, if segments { PLACES } else { 1 });

        let refusals: Vec<_> = [("buffers", pinned.as_ref().err()), ("file", places.as_ref().err())]
            .into_iter()
            .filter_map(|(what, error)| Some(format!("{what}: {}", error?)))
            .collect();
        let reason = (!refusals.is_empty()).then(|| refusals.join("; "));
        if let Some(reason) = &reason {
            event!(DEBUG, clone(reason), reason, "not everything could be registered: going on without");
        }
        let registered = Registered { buffers: pinned.is_ok(), file: places.is_ok(), reason };
        let arena = pinned.is_ok().then(|| Arc::clone(arena));
        (Self { arena, buffers: pinned.unwrap_or_default(), places: places.unwrap_or_default() }, registered)
    }

    /// The number under which the kernel knows this file.
    pub(super) fn file(&self, segment: &Segment) -> Option<i32> {
        let place = self.places.iter().position(|&place| place == Place::Of(segment.number))?;
        i32::try_from(place).ok()
    }

    /// A place for one more file, which the caller fills and [notes](Self::note_file): a free one, or that of the
    /// oldest file that no job in `slots` is for.
    pub(super) fn claim_place(&mut self, segment: &Segment, slots: &Slots) -> Option<usize> {
        if self.file(segment).is_some() {
            return None;
        }
        let age = |&(_, place): &(usize, &Place)| match *place {
            Place::Free => Some(None),
            Place::Of(number) if !slots.is_for(number) => Some(Some(number)),
            Place::Of(_) | Place::Busy => None,
        };
        let (_, index) = self.places.iter().enumerate().filter_map(|place| Some((age(&place)?, place.0))).min()?;
        self.places[index] = Place::Busy;
        Some(index)
    }

    /// The place of this file, which no job is for any more.
    pub(super) fn reclaim_place(&mut self, segment: &Segment) -> Option<usize> {
        let index = self.places.iter().position(|&place| place == Place::Of(segment.number))?;
        self.places[index] = Place::Busy;
        Some(index)
    }

    /// What has become of a place: `segment` has it now, or no file has.
    pub(super) fn note_file(&mut self, index: usize, segment: Option<&Arc<Segment>>, outcome: &io::Result<usize>) {
        match outcome {
            Ok(_) => self.places[index] = segment.map_or(Place::Free, |segment| Place::Of(segment.number)),
            Err(error) => {
                let error = error.to_string();
                event!(DEBUG, %error, index, "the file could not be registered: going on without");
            }
        }
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
        if !self.places.is_empty()
            && let Err(error) = submitter.unregister_files()
        {
            event!(WARN, %error, "the files could not be unregistered");
        }
        if let Some(arena) = self.arena
            && let Err(error) = submitter.unregister_buffers()
        {
            event!(WARN, %error, "the buffers could not be unregistered: their memory is never freed");
            core::mem::forget(arena);
        }
    }
}

/// Makes the kernel's table for files, with `count` places, and gives them to the newest of `files`.
fn places(submitter: &Submitter<'_>, files: &[Arc<Segment>], count: usize) -> io::Result<Vec<Place>> {
    let newest = &files[files.len().saturating_sub(count)..];
    let (mut descriptors, mut places) = (vec![NO_FILE; count], vec![Place::Free; count]);
    for (segment, (descriptor, place)) in newest.iter().zip(descriptors.iter_mut().zip(&mut places)) {
        (*descriptor, *place) = (descriptor_of(segment), Place::Of(segment.number));
    }
    submitter.register_files(&descriptors)?;
    Ok(places)
}

/// Gives place `index` of the table to another file, or to none.
pub(super) fn replace_file(
    submitter: &Submitter<'_>,
    index: usize,
    segment: Option<&Arc<Segment>>,
) -> io::Result<usize> {
    let descriptor = segment.map_or(NO_FILE, |segment| descriptor_of(segment));
    // There are few places.
    submitter.register_files_update(index as u32, &[descriptor])
}

fn descriptor_of(segment: &Segment) -> RawFd {
    segment.file().as_fd().as_raw_fd()
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
