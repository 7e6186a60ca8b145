//! A directory of the file system.

use core::ops::Range;
use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use buffer_ring::ring_alloc::Buffer;
use buffer_ring::ring_io::make_direct;
use buffer_ring::{BLOCK, SegmentFile};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;

use super::Directory;

/// Pauses between attempts to lock: 1, 2, 4, … ms, a second in all.
const ATTEMPTS: u32 = 10;

/// Bytes of zeros that are written at once.
const PIECE: usize = 256 << 10;

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct DiskDirectory {
    path: PathBuf,
}

/// An open file of a [`DiskDirectory`].
#[derive(Debug)]
pub struct DiskFile(File);

/// The lock on a file of a [`DiskDirectory`], until it is dropped.
#[derive(Debug)]
pub struct DiskLock {
    _file: File,
}

impl DiskDirectory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        if fs::metadata(&path)?.is_dir() { Ok(Self { path }) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// Opens the directory at `path`, or creates it, with its name durable.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let directory = Self::open(path)?;
        directory.sync_parent()?;
        Ok(directory)
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn options(write: bool) -> OpenOptions {
        let mut options = OpenOptions::new();
        // A named pipe in the place of a segment must not block.
        options.read(true).write(write).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        options
    }

    fn regular(file: File) -> io::Result<DiskFile> {
        if file.metadata()?.is_file() {
            return Ok(DiskFile(file));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

impl Directory for DiskDirectory {
    type File = DiskFile;
    type Lock = DiskLock;

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        Self::regular(Self::options(true).create_new(true).open(self.path.join(name))?)
    }

    fn open(&self, name: &str, write: bool) -> io::Result<DiskFile> {
        Self::regular(Self::options(write).open(self.path.join(name))?)
    }

    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match file.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, file: &DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.0.write_all_at(bytes, offset)
    }

    fn len(&self, file: &DiskFile) -> io::Result<u64> {
        Ok(file.0.metadata()?.len())
    }

    fn extend(&self, DiskFile(file): &DiskFile, len: u64, written: u64) -> io::Result<()> {
        let (mut at, written) = (file.metadata()?.len(), written.min(len));
        // What the ring will write past the cache should not be there from now.
        if at.is_multiple_of(BLOCK as u64) {
            make_direct(file);
        }
        let zeros = Buffer::zeroed(PIECE).map_err(io::Error::other)?;
        while at < written {
            let piece = PIECE.min((written - at) as usize);
            file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
        }
        if at < len {
            match fallocate(file, FallocateFlags::empty(), at, len - at) {
                // Not every file system can.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len)?,
                reserved => reserved?,
            }
        }
        Ok(())
    }

    fn segment_file(&self, DiskFile(file): DiskFile, _: Range<u64>) -> SegmentFile {
        make_direct(&file);
        file.into()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_file(&self, file: &DiskFile) -> io::Result<()> {
        file.0.sync_all()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn sync_parent(&self) -> io::Result<()> {
        let parent = fs::canonicalize(&self.path)?;
        parent.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is not the log's.
        fs::read_dir(&self.path)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn lock(&self, name: &str) -> io::Result<Option<DiskLock>> {
        let path = self.path.join(name);
        for attempt in 0..=ATTEMPTS {
            let file = Self::regular(Self::options(false).open(&path)?)?.0;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // The file may have lost its name since it was opened; then its lock excludes no other opener.
                    let (ours, named) = (file.metadata()?, fs::metadata(&path)?);
                    if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
                        return Ok(Some(DiskLock { _file: file }));
                    }
                }
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis((1 << attempt) >> 1)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let DiskFile(file) = match self.open(name, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        // For a moment, and beside others that look: a writer tries again.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_ends_where_the_file_ends() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DiskDirectory::create(folder.path().join("log")).unwrap();
        let file = directory.create("a").unwrap();
        assert_eq!(directory.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        directory.write_at(&file, b"hello", 3).unwrap();
        directory.sync_file(&file).unwrap();
        directory.sync_dir().unwrap();
        let mut buffer = [9; 10];
        assert_eq!(directory.read_at(&file, &mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer, b"\0\0\0hello\x09\x09");
        assert_eq!(directory.len(&file).unwrap(), 8);
        directory.rename("a", "b").unwrap();
        assert_eq!(directory.list().unwrap(), ["b"]);
        directory.unlink("b").unwrap();
        assert_eq!(directory.open("b", false).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_never_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DiskDirectory::open(folder.path()).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
        assert!(made.success());
        for name in ["folder", "pipe"] {
            assert_eq!(directory.open(name, false).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(DiskDirectory::open(folder.path().join("missing")).is_err());
    }

    #[test]
    fn a_second_opener_is_refused_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DiskDirectory::open(folder.path()).unwrap();
        assert_eq!(directory.lock("LOCK").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!directory.is_locked("LOCK").unwrap());
        directory.create("LOCK").unwrap();
        assert!(!directory.is_locked("LOCK").unwrap());
        let held = directory.lock("LOCK").unwrap();
        assert!(held.is_some() && directory.is_locked("LOCK").unwrap());
        assert!(directory.lock("LOCK").unwrap().is_none());
        drop(held);
        assert!(!directory.is_locked("LOCK").unwrap());
        assert!(directory.lock("LOCK").unwrap().is_some());
    }
}
