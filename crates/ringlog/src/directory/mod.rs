//! What a log needs of a directory, and two forms of it: on disk, and in memory with crashes.
//!
//! The trait is as small as the rules of recovery allow, so that each of its operations is a step at which a crash
//! can be simulated.

mod disk;
mod either;
mod memory;
mod mirror;

use core::fmt;
use core::ops::Range;
use std::io;

use buffer_ring::SegmentFile;

pub use disk::{DiskDirectory, DiskFile, DiskLock};
pub(crate) use either::{AnyDirectory, Either};
pub use memory::{MemoryDirectory, MemoryFile, MemoryLock, Stall};

/// A directory of files. Nothing is on stable storage before the sync that covers it has returned.
pub trait Directory: fmt::Debug + Sync {
    /// An open file.
    type File: fmt::Debug + Send + Sync;
    /// An exclusive lock, until it is dropped.
    type Lock: fmt::Debug + Send;

    /// Creates an empty file.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, and what the file system reports.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing, or only for reading.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidInput` if it is no regular file, and what the file system reports.
    fn open(&self, name: &str, write: bool) -> io::Result<Self::File>;

    /// Reads until `buffer` is full or the file ends, and returns how many bytes it read.
    ///
    /// # Errors
    ///
    /// What the device reports.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// What the device reports. Any part of the bytes may have been written.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns the length of the file.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Makes a file that is shorter `len` bytes long. The new bytes are zeros; those below `written` are written, the
    /// others need only have space reserved for them. Space that was written once is written again without a change of
    /// the file system's own books, which is what makes small commits fast.
    ///
    /// # Errors
    ///
    /// What the file system reports. A part may have been done; calling again goes on.
    fn extend(&self, file: &Self::File, len: u64, written: u64) -> io::Result<()>;

    /// Gives the file to a ring, which will write these addresses of the log into it, behind the header. Nothing else
    /// writes there from then on.
    fn segment_file(&self, file: Self::File, addresses: Range<u64>) -> SegmentFile;

    /// Renames a file; one that has the new name is replaced.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Puts the content of a file on stable storage, as far as its writes had completed.
    ///
    /// # Errors
    ///
    /// What the device reports. The content is in doubt from then on.
    fn sync_file(&self, file: &Self::File) -> io::Result<()>;

    /// Puts the names on stable storage.
    ///
    /// # Errors
    ///
    /// What the device reports.
    fn sync_dir(&self) -> io::Result<()>;

    /// Puts the name of the directory itself on stable storage.
    ///
    /// # Errors
    ///
    /// What the device reports.
    fn sync_parent(&self) -> io::Result<()>;

    /// Returns all names, in no particular order.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Locks an existing file against every other opener. Waits about a second, because a killed writer's I/O keeps
    /// its locks for a while; `None` if the lock is still held then.
    ///
    /// # Errors
    ///
    /// `NotFound`, and what the file system reports.
    fn lock(&self, name: &str) -> io::Result<Option<Self::Lock>>;

    /// Whether another opener has a file [locked](Self::lock) now; a file that does not exist is not locked. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn is_locked(&self, name: &str) -> io::Result<bool>;
}
