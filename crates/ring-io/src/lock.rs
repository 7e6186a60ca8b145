//! One writer per file: an advisory lock against other processes, and a list against the rest of this one.
//!
//! `flock` belongs to the open file. Two `QuikIO`s that share one, or a file system without locks, would both get it;
//! so a process also lists the files that it writes. It belongs to the file's name in the file system, too: two device
//! nodes of one block device are two files. So the list knows a block device by its number, and a writer claims it from
//! the kernel (`O_EXCL`), which also knows what is mounted, and which partitions it has.
//!
//! A lock ends by an explicit call, and not with the last descriptor: the user's own `File` may live on, and io_uring
//! keeps what it writes to open for a while. After a kill that while is all there is, so another process's lock is
//! tried again for a second.
//!
//! A forked child shares the open file, and with it the lock, which stays its parent's: the child never releases it,
//! and the list that it inherits keeps it from taking the same one.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::fork::{Mutex, Process};
use crate::{FileError, event};

/// Pauses between attempts: 1, 2, 4, … ms, a second in all.
const ATTEMPTS: u32 = 10;

/// What no two files share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Identity {
    /// Device and inode.
    File(u64, u64),
    /// The number of the device, whatever its nodes are.
    BlockDevice(u64),
    /// The address of a device in memory, and one of its files.
    Memory(usize, usize),
}

/// What this process writes; and, in a forked child, what the process that it was forked from wrote then.
pub(crate) static WRITTEN: Mutex<BTreeMap<Identity, Process>> = Mutex::new(BTreeMap::new());

/// The right to be the only writer, until it is dropped. Forgotten, it lasts as long as the process, or as what that
/// has the kernel write.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: Option<FileLock>,
    /// Of a block device: closing it ends the claim.
    _claim: Option<OwnedFd>,
    /// Dropped last, so that no thread of this process tries while the file is still locked.
    _listed: Listed,
}

#[derive(Debug)]
struct FileLock {
    file: Arc<File>,
    process: Process,
}

#[derive(Debug)]
struct Listed {
    identity: Identity,
    process: Process,
}

impl WriterLock {
    /// For something that only this process can reach.
    pub(crate) fn in_process(identity: Identity) -> Result<Self, FileError> {
        Ok(Self { _file: None, _claim: None, _listed: Listed::new(identity, || Ok(false))? })
    }

    pub(crate) fn of_file(file: &Arc<File>) -> Result<Self, FileError> {
        let stat = rustix::fs::fstat(file)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        let identity =
            if is_device { Identity::BlockDevice(stat.st_rdev) } else { Identity::File(stat.st_dev, stat.st_ino) };
        let listed = Listed::new(identity, || is_unlocked(file))?;
        let claim = if is_device { claim(file)? } else { None };
        Ok(Self { _file: FileLock::new(file)?, _claim: claim, _listed: listed })
    }
}

impl Listed {
    /// `is_over`: whether a writer in the process that this one was forked from has gone.
    fn new(identity: Identity, is_over: impl FnOnce() -> Result<bool, FileError>) -> Result<Self, FileError> {
        let process = Process::here();
        let listed = WRITTEN.lock().get(&identity).copied();
        match listed {
            Some(writer) if writer.is_here() || !is_over()? => return Err(FileError::Locked),
            _ => {}
        }
        let mut written = WRITTEN.lock();
        // Another thread may have been faster.
        if written.get(&identity).is_some_and(|writer| writer.is_here()) {
            return Err(FileError::Locked);
        }
        written.insert(identity, process);
        Ok(Self { identity, process })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if self.process.is_here() {
            WRITTEN.lock().remove(&self.identity);
        }
    }
}

/// Opens the same file once more: no descriptor of another process shares that with this one.
fn reopen(file: &File, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // To read: that flag is none.
    rustix::fs::open(path, OFlags::CLOEXEC | flags, Mode::empty())
}

/// Tries again for about a second while the answer is `busy`: what a process that has ended had, or what another one
/// has for a moment, such as a program that looks at devices, is free then.
fn patiently<T>(busy: Errno, mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut outcome = attempt();
    for pause in (0..ATTEMPTS).map(|attempt| Duration::from_millis(1 << attempt)) {
        if outcome.as_ref().err() != Some(&busy) {
            break;
        }
        event!(DEBUG, ?pause, "another process has the file: trying again");
        thread::sleep(pause);
        outcome = attempt();
    }
    outcome
}

/// Whether nothing has the file locked, this process's own descriptors included. What cannot be known is taken for
/// locked.
fn is_unlocked(file: &File) -> Result<bool, FileError> {
    let probe = reopen(file, OFlags::empty());
    Ok(probe.is_ok_and(|probe| rustix::fs::flock(&probe, FlockOperation::NonBlockingLockExclusive).is_ok()))
}

/// Claims a block device, as mounting it does. `None`: it cannot be opened for that.
fn claim(file: &File) -> Result<Option<OwnedFd>, FileError> {
    match patiently(Errno::BUSY, || reopen(file, OFlags::EXCL)) {
        Ok(claim) => Ok(Some(claim)),
        Err(Errno::BUSY) => Err(FileError::InUse),
        Err(errno) => {
            event!(WARN, %errno, "the block device cannot be claimed: other nodes of it are not kept from writing");
            Ok(None)
        }
    }
}

impl FileLock {
    /// `None`: the file system has no locks.
    fn new(file: &Arc<File>) -> Result<Option<Self>, FileError> {
        let lock = || rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
        match patiently(Errno::WOULDBLOCK, || retry_on_intr(lock)) {
            Ok(()) => Ok(Some(Self { file: Arc::clone(file), process: Process::here() })),
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
        // In a forked child it is the parent's.
        if self.process.is_here()
            && let Err(errno) = rustix::fs::flock(&self.file, FlockOperation::Unlock)
        {
            event!(WARN, %errno, "the file stays locked until it is closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn a_program_that_this_process_starts_inherits_no_claim() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for flags in [OFlags::empty(), OFlags::NONBLOCK] {
            let opened = reopen(file.as_file(), flags).expect("the same file");
            assert_eq!(fcntl_getfd(&opened), Ok(FdFlags::CLOEXEC));
            assert!(rustix::fs::fcntl_getfl(&opened).expect("flags").contains(flags));
        }
    }
}
