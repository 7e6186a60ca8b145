//! The file under a log: what it must be, and how it is opened, read, written and synced.

use core::ffi::CStr;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ring_alloc::{BLOCK, Buffer, round_down, round_up};
use rustix::fs::{AtFlags, FileType, IFlags, OFlags, Stat, StatVfsMountFlags, StatxFlags, XattrFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use crate::FileError;
use crate::backend::{Request, Storage};
use crate::fork::Process;
use crate::lock::WriterLock;
use crate::prealloc::marker::Key;
use crate::prealloc::settle::Scope;
use crate::retry::is_transient;

/// Bytes of the largest buffer that a direct read goes through.
const MAX_BOUNCE: u64 = 1 << 20;

/// The kernel takes no offset beyond this, so no file has bytes there.
const MAX_OFFSET: u64 = round_down(i64::MAX as u64);

/// `f_type` of file systems that are memory (tmpfs, ramfs), or never overwrite in place (btrfs, zfs, bcachefs, nilfs2).
const NOT_IN_PLACE: [u32; 6] = [0x0102_1994, 0x8584_58f6, 0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e, 0x3434];

/// `f_type` of file systems that answer for themselves, without a server, and never with `ECANCELED`: ext2 to ext4,
/// xfs, btrfs, f2fs, tmpfs, ramfs, zfs, bcachefs, nilfs2, jfs, exfat, ntfs3.
const LOCAL: [u32; 12] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x0102_1994,
    0x8584_58f6,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x3434,
    0x3153_464a,
    0x2011_bab0,
    0x7366_746e,
];

/// `f_type` of FUSE, also of virtiofs.
const FUSE: u32 = 0x6573_5546;

/// `OFlags::DSYNC` is all of `O_SYNC`, of which this is a part.
const O_DSYNC: OFlags = OFlags::from_bits_retain(libc::O_DSYNC.cast_unsigned());

/// The extended attribute that holds the key of the markers.
const KEY: &CStr = c"user.ring-io.prepared";

#[derive(Debug)]
pub(crate) struct LogFile {
    file: Arc<File>,
    direct: bool,
    process: Process,
}

impl LogFile {
    pub(crate) fn new(file: Arc<File>) -> Self {
        // A file whose flags cannot be read is refused by `check`.
        let direct = rustix::fs::fcntl_getfl(&file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        Self { file, direct, process: Process::here() }
    }

    /// One attempt at what remains of `request`, in this thread.
    pub(crate) fn write(&self, request: &Request) -> Result<usize, Errno> {
        self.check_process()?;
        let (bytes, offset) = (request.remaining(), request.file_offset());
        if !request.durable {
            return rustix::io::pwrite(&self.file, bytes, offset);
        }
        let flags = match request.scope {
            Scope::Data => ReadWriteFlags::DSYNC,
            Scope::Whole(_) => ReadWriteFlags::SYNC,
        };
        match rustix::io::pwritev2(&self.file, &[IoSlice::new(bytes)], offset, flags) {
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => self.write_and_sync(bytes, offset, request.scope),
            outcome => outcome,
        }
    }

    /// What it was made of.
    pub(crate) fn handed_back(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Whether io_uring answers `ECANCELED` only for what it has never begun. No file system named in [`LOCAL`] has
    /// that errno; a server behind another one may answer whatever it likes, also after a sync that has failed.
    pub(crate) fn cancels_only_unbegun(&self) -> bool {
        let local = |system: rustix::fs::StatFs| LOCAL.contains(&(system.f_type as u32));
        self.file_type() == Ok(FileType::BlockDevice) || rustix::fs::fstatfs(&self.file).is_ok_and(local)
    }

    /// Whether io_uring would have the thread that submits a write wait for its end: FUSE does not know a write that
    /// must not block, and does not say so.
    pub(crate) fn blocks_submit(&self) -> bool {
        rustix::fs::fstatfs(&self.file).is_ok_and(|system| system.f_type as u32 == FUSE)
    }

    /// Whether `other` is this file.
    pub(crate) fn is(&self, other: Result<Stat, Errno>) -> bool {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        rustix::fs::fstat(&self.file).is_ok_and(|stat| other.is_ok_and(|other| identity(stat) == identity(other)))
    }

    /// Whether it was removed from its last directory.
    pub(crate) fn has_no_name(&self) -> bool {
        rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Writes out everything that the file's file system has not yet, names included.
    pub(crate) fn sync_file_system(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.file)
    }

    /// The same without these flags, which a filter of system calls or a file system may not know.
    fn write_and_sync(&self, bytes: &[u8], offset: u64, scope: Scope) -> Result<usize, Errno> {
        let written = rustix::io::pwrite(&self.file, bytes, offset)?;
        match self.sync(scope) {
            // "Not now" is no answer to a sync: the kernel reports each error once.
            Err(errno) if is_transient(errno) => Err(Errno::IO),
            outcome => outcome.map(|()| written),
        }
    }

    /// The callers have compared the process; but a subscriber of events that they have called since may have forked.
    fn check_process(&self) -> Result<(), Errno> {
        if self.process.is_here() { Ok(()) } else { Err(Errno::PERM) }
    }

    pub(crate) fn direct_alignment(&self) -> Option<u32> {
        direct_alignment(&self.file)
    }

    fn file_type(&self) -> Result<FileType, FileError> {
        Ok(FileType::from_raw_mode(rustix::fs::fstat(&self.file)?.st_mode))
    }

    /// One step of a read: some bytes from `offset`, 0 at the end of the file.
    fn read_some(&self, offset: u64, buf: &mut [u8], bounce: Option<&mut Buffer>) -> Result<usize, Errno> {
        let Some(bounce) = bounce else {
            return retry_on_intr(|| rustix::io::pread(&self.file, &mut *buf, offset));
        };
        // Direct I/O wants memory, offset and length in whole blocks.
        let base = round_down(offset);
        let skip = (offset - base) as usize;
        let want = round_up((skip + buf.len()) as u64).min(bounce.len() as u64) as usize;
        let got = retry_on_intr(|| rustix::io::pread(&self.file, &mut bounce[..want], base))?;
        let len = got.saturating_sub(skip).min(buf.len());
        buf[..len].copy_from_slice(&bounce[skip..skip + len]);
        Ok(len)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The alignment that direct I/O needs of memory and offsets, if the kernel knows it.
pub(crate) fn direct_alignment(file: &File) -> Option<u32> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let is_known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    // 0 stands for files that the kernel serves through its cache even so.
    is_known.then_some(stat.stx_dio_mem_align.max(stat.stx_dio_offset_align))
}

impl Storage for LogFile {
    fn check(&self) -> Result<(), FileError> {
        match self.file_type()? {
            FileType::RegularFile | FileType::BlockDevice => {}
            FileType::Directory => return Err(FileError::Directory),
            FileType::Fifo => return Err(FileError::NotRegular("pipe")),
            FileType::Socket => return Err(FileError::NotRegular("socket")),
            FileType::CharacterDevice => return Err(FileError::NotRegular("character device")),
            _ => return Err(FileError::NotRegular("file of unknown type")),
        }
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        if !matches!(flags & OFlags::RWMODE, OFlags::WRONLY | OFlags::RDWR) {
            return Err(FileError::NotWritable);
        }
        if flags.contains(OFlags::APPEND) {
            return Err(FileError::Append);
        }
        match self.direct_alignment() {
            Some(needed) if self.direct && needed > BLOCK as u32 => Err(FileError::Alignment { needed }),
            _ => Ok(()),
        }
    }

    fn len(&self) -> Result<u64, FileError> {
        if self.file_type()? == FileType::BlockDevice {
            return Err(FileError::NoEnd);
        }
        Ok(rustix::fs::fstat(&self.file)?.st_size.cast_unsigned())
    }

    fn lock(&self) -> Result<WriterLock, FileError> {
        WriterLock::of_file(&self.file)
    }

    fn logical_block_size(&self) -> usize {
        if self.direct { logical_block_size(self.direct_alignment()) } else { 1 }
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn is_synced(&self) -> bool {
        let (flags, system) = (rustix::fs::fcntl_getfl(&self.file), rustix::fs::fstatvfs(&self.file));
        flags.is_ok_and(|flags| flags.contains(O_DSYNC))
            || system.is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::SYNCHRONOUS))
            || rustix::fs::ioctl_getflags(&self.file).is_ok_and(|flags| flags.contains(IFlags::SYNC))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let len = MAX_OFFSET.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..len];
        if buf.is_empty() {
            return Ok(0);
        }
        let mut bounce = if self.direct {
            let span = round_up(offset + len as u64) - round_down(offset);
            Some(Buffer::zeroed(span.min(MAX_BOUNCE) as usize).map_err(|_| Errno::NOMEM)?)
        } else {
            None
        };
        let mut done = 0;
        while done < len {
            match self.read_some(offset + done as u64, &mut buf[done..], bounce.as_mut())? {
                0 => break,
                some => done += some,
            }
        }
        Ok(done)
    }

    fn sync(&self, scope: Scope) -> Result<(), Errno> {
        self.check_process()?;
        match scope {
            Scope::Data => rustix::fs::fdatasync(&self.file),
            Scope::Whole(_) => rustix::fs::fsync(&self.file),
        }
    }

    fn cut(&self, len: u64) -> Result<(), Errno> {
        self.check_process()?;
        retry_on_intr(|| rustix::fs::ftruncate(&self.file, len))
    }

    fn key(&self) -> Result<Option<Key>, Errno> {
        let mut bytes = [0; Key::LEN + 1];
        match rustix::fs::fgetxattr(&self.file, KEY, &mut bytes) {
            Ok(len) => Ok(Key::from_attribute(&bytes[..len])),
            // Longer than a key.
            Err(Errno::RANGE) => Ok(None),
            Err(errno) if has_no_attribute(errno) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn set_key(&self, key: Option<Key>) -> Result<(), Errno> {
        self.check_process()?;
        match key {
            Some(key) => rustix::fs::fsetxattr(&self.file, KEY, &key.bytes(), XattrFlags::empty()),
            None => match rustix::fs::fremovexattr(&self.file, KEY) {
                Err(errno) if has_no_attribute(errno) => Ok(()),
                outcome => outcome,
            },
        }
    }

    fn is_worth_preparing(&self) -> bool {
        let in_place = |system: rustix::fs::StatFs| !NOT_IN_PLACE.contains(&(system.f_type as u32));
        // Where every write is synced, a preparing one would get the error of another write.
        !self.is_synced() && rustix::fs::fstatfs(&self.file).is_ok_and(in_place)
    }
}

/// Whether an errno means that the file does not have the attribute, as none can have it where the file system knows
/// no attributes.
fn has_no_attribute(errno: Errno) -> bool {
    matches!(errno, Errno::NODATA | Errno::OPNOTSUPP)
}

/// Where a direct write may begin, if this is what the kernel reports.
fn logical_block_size(alignment: Option<u32>) -> usize {
    match alignment {
        Some(known) if (1..BLOCK as u32).contains(&known) => known as usize,
        _ => BLOCK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Segment;

    fn temporary() -> LogFile {
        LogFile::new(Arc::new(tempfile::tempfile().expect("a file")))
    }

    #[test]
    fn a_direct_write_begins_where_the_kernel_says_and_any_other_anywhere() {
        let known = [None, Some(0), Some(1), Some(512), Some(4095), Some(4096), Some(16384)];
        assert_eq!(known.map(logical_block_size), [BLOCK, BLOCK, 1, 512, 4095, BLOCK, BLOCK]);
        let [cached, direct] = [false, true].map(|direct| LogFile { direct, ..temporary() });
        assert_eq!(cached.logical_block_size(), 1);
        assert!((512..=BLOCK).contains(&direct.logical_block_size()), "{}", direct.logical_block_size());
    }

    #[test]
    fn the_file_of_another_process_is_not_touched() {
        let file = Arc::new(LogFile { process: Process::elsewhere(), ..temporary() });
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        let request = Request::new(7, bytes, 0, true).to(&Segment::whole(Arc::clone(&file)));
        let key = Key::from([7; Key::LEN]);
        let refused = [
            file.write(&request).map(drop),
            file.sync(Scope::Data),
            file.cut(BLOCK as u64),
            file.set_key(Some(key)),
            file.set_key(None),
        ];
        assert_eq!(refused, [Err(Errno::PERM); 5]);
        assert_eq!((file.len(), file.key()), (Ok(0), Ok(None)));
    }

    #[test]
    fn a_file_without_a_key_has_none_and_loses_none() {
        let file = temporary();
        assert_eq!((file.key(), file.set_key(None), file.key()), (Ok(None), Ok(()), Ok(None)));
    }

    #[test]
    fn a_file_has_a_name_until_it_is_removed() {
        let named = tempfile::NamedTempFile::new().expect("a file");
        let file = LogFile::new(Arc::new(named.reopen().expect("the same file")));
        assert!(!file.has_no_name());
        drop(named);
        assert!(file.has_no_name());
    }

    /// Row by row: the file system answers as it likes, or is known never to answer `ECANCELED`.
    #[test]
    fn a_file_system_that_is_not_known_may_cancel_what_it_has_begun() {
        let procfs = LogFile::new(Arc::new(File::open("/proc/self/stat").expect("a file of procfs")));
        assert!(procfs.check().is_err() && !procfs.cancels_only_unbegun());
        if let Ok(shared) = tempfile::tempfile_in("/dev/shm") {
            assert!(LogFile::new(Arc::new(shared)).cancels_only_unbegun());
        }
    }
}
