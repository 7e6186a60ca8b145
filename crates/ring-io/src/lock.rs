//! One writer per file: an advisory lock against other processes, and a list against the rest of this one.
//!
//! `flock` belongs to the open file. Two `QuikIO`s that share one, or a file system without locks, would both get it; so a process
//! also lists the files that it writes.
//!
//! A lock ends by an explicit call, and not with the last descriptor: the user's own `File` may live on, and io_uring keeps what it
//! writes to open for a while. After a kill that while is all there is, so another process's lock is tried again for a second.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use crate::{FileError, event};

/// Pauses between attempts: 1, 2, 4, … ms, a second in all.
const ATTEMPTS: u32 = 10;

/// Device and inode, or whatever else is no other's.
pub(crate) type Identity = (u64, u64);

/// What this process writes.
static WRITTEN: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

/// The right to be the only writer, until it is dropped.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: Option<FileLock>,
    /// Dropped last: nobody in this process tries while the file is still locked.
    _listed: Listed,
}

#[derive(Debug)]
struct FileLock(Arc<File>);

#[derive(Debug)]
struct Listed(Identity);

impl WriterLock {
    /// For something that only this process can reach.
    pub(crate) fn in_process(identity: Identity) -> Result<Self, FileError> {
        Ok(Self { _file: None, _listed: Listed::new(identity)? })
    }

    pub(crate) fn of_file(file: &Arc<File>) -> Result<Self, FileError> {
        let stat = rustix::fs::fstat(file)?;
        let listed = Listed::new((stat.st_dev, stat.st_ino))?;
        Ok(Self { _file: FileLock::new(file)?, _listed: listed })
    }
}

impl Listed {
    fn new(identity: Identity) -> Result<Self, FileError> {
        if WRITTEN.lock().insert(identity) { Ok(Self(identity)) } else { Err(FileError::Locked) }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        WRITTEN.lock().remove(&self.0);
    }
}

impl FileLock {
    /// `None`: the file system has no locks.
    fn new(file: &Arc<File>) -> Result<Option<Self>, FileError> {
        let attempt = || retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive));
        let mut outcome = attempt();
        for pause in (0..ATTEMPTS).map(|attempt| Duration::from_millis(1 << attempt)) {
            if outcome != Err(Errno::WOULDBLOCK) {
                break;
            }
            event!(DEBUG, ?pause, "another process has the file locked: trying again");
            thread::sleep(pause);
            outcome = attempt();
        }
        match outcome {
            Ok(()) => Ok(Some(Self(Arc::clone(file)))),
            Err(Errno::WOULDBLOCK) => Err(FileError::Locked),
            Err(errno @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                event!(WARN, %errno, "the file system has no locks: nothing keeps other processes from writing");
                Ok(None)
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Err(errno) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            event!(WARN, %errno, "the file stays locked until it is closed");
        }
    }
}
