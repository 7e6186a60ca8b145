//! The backend of a `QuikIO`: what an engine, and what a storage has to do. Jobs go in, raw completions come out.

use core::fmt::Debug;
use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ring_alloc::{Arena, Frozen};
use rustix::io::Errno;

use crate::files::Segment;
use crate::lock::WriterLock;
use crate::prealloc::marker::Key;
use crate::prealloc::settle::Scope;
use crate::{DeviceError, FileError, Finished, Registered, Wait, event};

/// One write in flight. It owns the bytes: they stay in place as long as the request lives.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) token: u64,
    pub(crate) bytes: Frozen,
    /// The address of the first of `bytes`: in a log of one file, where they are in the file.
    pub(crate) offset: u64,
    /// The address of the write after it.
    pub(crate) next: u64,
    /// The file that they go to, from the moment when it is known to be there.
    pub(crate) segment: Option<Arc<Segment>>,
    /// Whether what is written is to be on stable storage when the request comes back; each attempt by itself, the last
    /// as the first.
    pub(crate) durable: bool,
    /// What is put on stable storage with it, if it is durable.
    pub(crate) scope: Scope,
    /// Whether it is the queue's own, and writes preallocated space.
    pub(crate) preparing: bool,
    /// How many of `bytes` are in the file already: whole blocks, unless the device stops inside of one over and over.
    pub(crate) done: usize,
    /// Completions in a row that brought no block to its end.
    pub(crate) stalls: u32,
    pub(crate) submitted: Instant,
}

impl Request {
    /// The kernel writes less than 2 GiB in one call; more would only come back short.
    const MAX_WRITE: usize = 1 << 30;

    pub(crate) fn new(token: u64, bytes: Frozen, offset: u64, durable: bool) -> Self {
        Self {
            token,
            next: offset + bytes.len() as u64,
            bytes,
            offset,
            segment: None,
            durable,
            scope: Scope::Data,
            preparing: false,
            done: 0,
            stalls: 0,
            submitted: Instant::now(),
        }
    }

    /// A write of the queue's own.
    pub(crate) fn preparing(bytes: Frozen, offset: u64) -> Self {
        Self { preparing: true, ..Self::new(0, bytes, offset, false) }
    }

    /// The same for this file.
    pub(crate) fn to(self, segment: &Arc<Segment>) -> Self {
        Self { segment: Some(Arc::clone(segment)), ..self }
    }

    /// The file that it goes to.
    ///
    /// # Panics
    ///
    /// If that is not known yet.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        self.segment.as_ref().expect("a file that is there")
    }

    /// Gives it back without having tried it, because of the failure of another.
    pub(crate) fn untried(self, failure: &DeviceError) -> Finished {
        let (token, error) = (self.token, DeviceError::untried(self.range(), failure));
        event!(DEBUG, clone(error), token, %error, "write given back");
        self.refused(error)
    }

    /// Gives it back without having tried it.
    pub(crate) fn refused(self, error: DeviceError) -> Finished {
        Finished { token: self.token, bytes: self.bytes, durable: false, result: Err(error) }
    }

    /// The addresses of all of `bytes`.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }

    /// What the device is to write next.
    pub(crate) fn remaining(&self) -> &[u8] {
        let rest = &self.bytes[self.done..];
        &rest[..rest.len().min(Self::MAX_WRITE)]
    }

    /// The address at which [`remaining`](Self::remaining) begins.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.done as u64
    }

    /// Where that is in its file.
    pub(crate) fn file_offset(&self) -> u64 {
        self.segment().offset(self.position())
    }
}

/// A request that the device no longer reads, and how many of its remaining bytes were written.
pub(crate) type Attempt = (Request, Result<usize, Errno>);

/// A job for an engine.
#[derive(Debug)]
pub(crate) enum Job {
    Write(Request),
    /// A sync of what has completed.
    Sync(Flush),
}

impl Job {
    /// Does all of it on its file, in this thread.
    pub(crate) fn carry_out(&self) -> Result<usize, Errno> {
        match self {
            Self::Write(request) => request.segment().file().write(request),
            Self::Sync(flush) => flush.file.segment.file().sync(flush.scope).map(|()| 0),
        }
    }

    /// The file that it is for.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        match self {
            Self::Write(request) => request.segment(),
            Self::Sync(flush) => &flush.file.segment,
        }
    }
}

/// A sync that begins: of one file after the other, in the order of their addresses.
#[derive(Debug)]
pub(crate) struct Flush {
    /// The file that is synced now.
    pub(crate) file: Unsynced,
    pub(crate) rest: VecDeque<Unsynced>,
    pub(crate) scope: Scope,
    pub(crate) submitted: Instant,
}

/// A file, and what of it a sync covers that begins now.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) segment: Arc<Segment>,
    /// How many writes to it had ended; not counted for a log in one file.
    pub(crate) ended: u64,
}

impl Flush {
    pub(crate) fn new(file: Unsynced, rest: VecDeque<Unsynced>, scope: Scope) -> Self {
        Self { file, rest, scope, submitted: Instant::now() }
    }

    /// Of a log in one file.
    pub(crate) fn of(segment: &Arc<Segment>, scope: Scope) -> Self {
        Self::new(Unsynced { segment: Arc::clone(segment), ended: 0 }, VecDeque::new(), scope)
    }

    /// That of the next file, once this one is synced.
    pub(crate) fn next(mut self) -> Option<Self> {
        let file = self.rest.pop_front()?;
        Some(Self::new(file, self.rest, self.scope))
    }
}

/// A job that the device is done with: an [`Attempt`], or a sync, which writes 0 bytes.
pub(crate) type Completion = (Job, Result<usize, Errno>);

/// How jobs reach the device. Every job that goes into `submit` comes out of `reap` exactly once.
pub(crate) trait Backend: Debug + Send + Sync {
    /// Called before the first submit of a queue: here memory and `files` are registered. A log in `segments` may get
    /// more of them.
    fn attach(&self, arena: &Arc<Arena>, files: &[Arc<Segment>], segments: bool) -> Registered;

    /// Called after the last reap of a queue: undoes `attach`.
    fn detach(&self) {}

    /// Takes `job`, without waiting for the device. Any thread.
    fn submit(&self, job: Job);

    /// Writes in the caller's own thread, not in order with submitted jobs. Any thread.
    fn write_now(&self, request: Request) -> Attempt;

    /// Appends completions, waiting as `wait` says. One thread at a time: the queue sees to that.
    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>);

    /// Whether a write came back with an error though the device may still carry it out. Once true it stays so, and
    /// nothing is written from then on.
    fn has_given_up(&self) -> bool {
        false
    }

    /// A job will be submitted later, for which a `reap` waits as for one that was.
    fn announce(&self);

    /// An announced job was submitted, or will not be; then a `reap` that waits has to be interrupted.
    fn retract(&self);

    /// One more file of the log is there.
    fn add(&self, _segment: &Arc<Segment>) {}

    /// A file of the log is no longer used: the engine lets go of it.
    fn remove(&self, _segment: &Arc<Segment>) {}

    /// Makes the `reap` that waits now, or else the next one that would, return without a completion. Any thread.
    fn interrupt(&self);
}

/// Where the bytes are stored: a file, or memory in place of one.
pub(crate) trait Storage: Debug + Send + Sync {
    /// Checks that it can hold a log at all.
    fn check(&self) -> Result<(), FileError>;

    /// Its length in bytes.
    fn len(&self) -> Result<u64, FileError>;

    /// Makes the caller the only writer.
    fn lock(&self) -> Result<WriterLock, FileError>;

    /// A write may begin at each multiple of this many bytes; at most 4096.
    fn logical_block_size(&self) -> usize;

    fn is_direct(&self) -> bool;

    /// Whether every write to it is a durable one, asked for or not.
    fn is_synced(&self) -> bool;

    /// Fills `buf` from `offset`; answers fewer than `buf.len()` bytes only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;

    fn sync(&self, scope: Scope) -> Result<(), Errno>;

    /// Cuts off what is beyond `len` bytes.
    fn cut(&self, len: u64) -> Result<(), Errno>;

    /// The key of its markers, which is kept where no write of bytes reaches it; `None`: it has none, or no place for
    /// one.
    fn key(&self) -> Result<Option<Key>, Errno>;

    /// Replaces or removes the key: on stable storage after a flush of [`Scope::Whole`].
    fn set_key(&self, key: Option<Key>) -> Result<(), Errno>;

    /// Whether writing a block beforehand makes it cheaper to write again.
    fn is_worth_preparing(&self) -> bool;
}
