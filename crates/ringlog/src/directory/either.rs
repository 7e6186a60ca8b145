//! The directory of a log that is open: which of the two forms it has is chosen when it is opened.

use core::ops::Range;
use std::io;

use buffer_ring::SegmentFile;

use super::{Directory, DiskDirectory, MemoryDirectory};

/// One of two forms.
#[derive(Clone, Debug)]
pub(crate) enum Either<D, M> {
    Disk(D),
    Memory(M),
}

/// On disk, or in memory.
pub(crate) type AnyDirectory = Either<DiskDirectory, MemoryDirectory>;

type File = Either<<DiskDirectory as Directory>::File, <MemoryDirectory as Directory>::File>;
type Lock = Either<<DiskDirectory as Directory>::Lock, <MemoryDirectory as Directory>::Lock>;

/// Calls the same method of the form that it is.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Either::Disk(directory) => directory.$method($($argument),*),
            Either::Memory(directory) => directory.$method($($argument),*),
        }
    };
    // A file of it is made.
    (file of $self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Either::Disk(directory) => directory.$method($($argument),*).map(Either::Disk),
            Either::Memory(directory) => directory.$method($($argument),*).map(Either::Memory),
        }
    };
    // A file of it is used.
    ($self:ident.$method:ident($file:ident; $($argument:expr),*)) => {
        match ($self, $file) {
            (Either::Disk(directory), Either::Disk(file)) => directory.$method(file, $($argument),*),
            (Either::Memory(directory), Either::Memory(file)) => directory.$method(file, $($argument),*),
            _ => unreachable!("a file of another directory"),
        }
    };
}

impl Directory for AnyDirectory {
    type File = File;
    type Lock = Lock;

    fn create(&self, name: &str) -> io::Result<File> {
        either!(file of self.create(name))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<File> {
        either!(file of self.open(name, write))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        either!(self.read_at(file; buffer, offset))
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        either!(self.write_at(file; bytes, offset))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        either!(self.len(file;))
    }

    fn extend(&self, file: &File, len: u64, written: u64) -> io::Result<()> {
        either!(self.extend(file; len, written))
    }

    fn segment_file(&self, file: File, addresses: Range<u64>) -> SegmentFile {
        either!(self.segment_file(file; addresses))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        either!(self.rename(from, to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        either!(self.unlink(name))
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        either!(self.sync_file(file;))
    }

    fn sync_dir(&self) -> io::Result<()> {
        either!(self.sync_dir())
    }

    fn sync_parent(&self) -> io::Result<()> {
        either!(self.sync_parent())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        either!(self.list())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Lock>> {
        match self {
            Either::Disk(directory) => Ok(directory.lock(name)?.map(Either::Disk)),
            Either::Memory(directory) => Ok(directory.lock(name)?.map(Either::Memory)),
        }
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        either!(self.is_locked(name))
    }
}
