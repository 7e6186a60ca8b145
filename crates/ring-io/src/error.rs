//! Everything that can go wrong: with a file, when opening or attaching, and at the device.

use core::fmt;
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::EngineKind;

/// An operation on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes from the file.
    Read,
    /// Bytes to the file.
    Write,
    /// What was written, to stable storage.
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// Why the device did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Os(OsError),
    /// It took or gave no bytes, without a reason.
    NoProgress,
    /// It was not asked, because it is the parent's.
    Forked,
    /// The segment with this number is not there.
    NoSegment(u64),
    /// The bytes lie on both sides of this address, where one segment ends and the next begins.
    Crosses(u64),
}

/// A failure of the device that a retry does not cure.
///
/// Displays like `write of bytes 4096..8192 failed (errno 5)`; its source is an [`io::Error`] with that errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    operation: Operation,
    fault: Fault,
    range: Range<u64>,
    /// The write whose failure kept this one from being tried.
    behind: Option<Range<u64>>,
}

impl DeviceError {
    pub(crate) fn new(operation: Operation, errno: Errno, range: Range<u64>) -> Self {
        Self { operation, fault: Fault::Os(OsError(errno.into())), range, behind: None }
    }

    pub(crate) fn no_progress(operation: Operation, range: Range<u64>) -> Self {
        Self { operation, fault: Fault::NoProgress, range, behind: None }
    }

    /// What was asked for in a child that was forked from the process to which the device belongs.
    pub(crate) fn forked(operation: Operation, range: Range<u64>) -> Self {
        Self { operation, fault: Fault::Forked, range, behind: None }
    }

    /// A write of `range` that was not tried, because of `failure`.
    pub(crate) fn untried(range: Range<u64>, failure: &Self) -> Self {
        let operation = Operation::Write;
        Self { operation, range, behind: Some(failure.range()), ..failure.clone() }
    }

    /// What was asked for in a segment that is not there.
    pub(crate) fn no_segment(operation: Operation, range: Range<u64>, number: u64) -> Self {
        Self { operation, fault: Fault::NoSegment(number), range, behind: None }
    }

    /// A write over a boundary between segments.
    pub(crate) fn crosses(range: Range<u64>, boundary: u64) -> Self {
        Self { operation: Operation::Write, fault: Fault::Crosses(boundary), range, behind: None }
    }

    /// Returns the operation that failed.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the errno; `None` if the device reported success over and over without taking a block, or was not asked:
    /// because [the process was forked](Self::is_forked), [a segment is missing](Self::missing_segment), or the write
    /// would cross the boundary between two.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match &self.fault {
            Fault::Os(os) => os.0.raw_os_error(),
            _ => None,
        }
    }

    /// Returns the number of the segment that is not there, which is why nothing was read or written: it was removed,
    /// or not added.
    #[must_use]
    pub fn missing_segment(&self) -> Option<u64> {
        match self.fault {
            Fault::NoSegment(number) => Some(number),
            _ => None,
        }
    }

    /// Returns whether nothing was tried because this process was [forked](crate::fork) from the one that the device
    /// belongs to.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.fault == Fault::Forked
    }

    /// Returns the bytes of the file that the operation was for. Any part of them may have been read or written.
    ///
    /// For a sync, which concerns the whole file: `0..u64::MAX`.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Returns the write before this one in the log whose failure, with this [`errno`](Self::errno), kept this one
    /// from being tried: with [`WriteMode::Serialized`](crate::WriteMode::Serialized), or of a write that waited for a
    /// [segment](crate::QuikIO::add_segment). If it was a sync that failed: `0..u64::MAX`.
    #[must_use]
    pub fn behind(&self) -> Option<Range<u64>> {
        self.behind.clone()
    }

    /// Returns the error kind by which the standard library knows this failure: [`io::ErrorKind::WriteZero`] where the
    /// device makes no progress, [`io::ErrorKind::Other`] in a forked child, [`io::ErrorKind::NotFound`] where a
    /// segment is missing, and [`io::ErrorKind::InvalidInput`] for a write from one segment into the next.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match &self.fault {
            Fault::Os(os) => os.0.kind(),
            Fault::NoProgress => io::ErrorKind::WriteZero,
            Fault::Forked => io::ErrorKind::Other,
            Fault::NoSegment(_) => io::ErrorKind::NotFound,
            Fault::Crosses(_) => io::ErrorKind::InvalidInput,
        }
    }
}

/// What the operating system answered, as the standard library has it, made to be copied and compared.
#[derive(Debug)]
struct OsError(io::Error);

impl Clone for OsError {
    fn clone(&self) -> Self {
        Self(os(self.0.raw_os_error().unwrap_or_default()))
    }
}

impl PartialEq for OsError {
    fn eq(&self, other: &Self) -> bool {
        self.0.raw_os_error() == other.0.raw_os_error()
    }
}

impl Eq for OsError {}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if self.operation != Operation::Sync {
            write!(f, " of bytes {}..{}", self.range.start, self.range.end)?;
        }
        match &self.behind {
            Some(failed) if failed.end == u64::MAX => f.write_str(" was not tried: a sync before it")?,
            Some(failed) => write!(f, " was not tried: that of bytes {}..{} before it", failed.start, failed.end)?,
            None => {}
        }
        match &self.fault {
            Fault::Os(os) => write!(f, " failed (errno {})", os.0.raw_os_error().unwrap_or_default()),
            Fault::NoProgress => f.write_str(" failed: the device makes no progress"),
            Fault::Forked => write!(f, " was not tried: {FORKED}"),
            Fault::NoSegment(number) => {
                write!(f, " was not tried: segment {number} was removed, or not added yet")
            }
            Fault::Crosses(boundary) => {
                write!(f, " was not tried: a segment ends at {boundary}, and each write goes to one")
            }
        }
    }
}

impl core::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            Fault::Os(os) => Some(&os.0),
            _ => None,
        }
    }
}

impl From<DeviceError> for io::Error {
    /// Keeps the error, with its [`kind`](DeviceError::kind).
    fn from(error: DeviceError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// What a call answers in a child, and the way out.
const FORKED: &str = "the file belongs to the process that this one was forked from; open it again in this process";

/// Why a file cannot hold a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FileError {
    /// It was opened without write access.
    #[error("the file is not open for writing")]
    NotWritable,
    /// It is a directory.
    #[error("a directory cannot hold a log")]
    Directory,
    /// It is something else without offsets: a pipe, a socket, a character device.
    #[error("a {0} cannot hold a log")]
    NotRegular(&'static str),
    /// It is a block device, which is always full, and nothing says where the log begins.
    #[error("a block device has no end of data to begin at, so start_at has to say where")]
    NoEnd,
    /// It was opened with `O_APPEND`, which ignores offsets.
    #[error("the file is open for appending, which ignores offsets")]
    Append,
    /// It has a writer already: another process, or another `QuikIO` in this one.
    #[error("another process or QuikIO already writes to this file")]
    Locked,
    /// It is a block device that is mounted, or claimed (`O_EXCL`): by another process, by another `QuikIO` in this
    /// one, or by the `File` that was handed over, which must be opened without that.
    #[error("the block device is mounted or claimed by another process, QuikIO or open file")]
    InUse,
    /// This process was [forked](crate::fork) from the one that the `QuikIO` was made in.
    #[error("{FORKED}")]
    Forked,
    /// The start that the builder was given.
    #[error("start {0} is not a multiple of 4096")]
    UnalignedStart(u64),
    /// The log is shorter than the place of a [cut](crate::QuikIO::cut).
    #[error("cut at {at} is beyond the end of the log at {end}")]
    CutBeyondEnd {
        /// Where the cut was to be.
        at: u64,
        /// Where the log ends.
        end: u64,
    },
    /// A queue is attached, whose log must not be [cut](crate::QuikIO::cut).
    #[error("a ring writes to this QuikIO, so that its file cannot be cut: drop the ring first")]
    Attached,
    /// The file could not be [cut](crate::QuikIO::cut), or that could not be put on stable storage; with the errno.
    #[error("cannot cut the file: {}", os(*.0))]
    Cut(i32),
    /// Direct I/O on this file needs a larger alignment than 4096.
    #[error("direct I/O on this file needs an alignment of {needed} bytes, more than 4096")]
    Alignment {
        /// Bytes.
        needed: u32,
    },
    /// The engine that the builder asked for cannot run.
    #[error("engine {kind} is unavailable: {reason}")]
    EngineUnavailable {
        /// The engine asked for.
        kind: EngineKind,
        /// Why it cannot run.
        reason: String,
    },
    /// The size of [segments](crate::QuikIOOptions::segments) that was asked for.
    #[error("segment size {0} is not a multiple of 4096 from 4096 on")]
    SegmentSize(u64),
    /// This file cannot be a segment of the log, or cannot be removed from it.
    #[error("segment {number} {fault}")]
    Segment {
        /// The segment.
        number: u64,
        /// Why.
        fault: SegmentFault,
    },
    /// The log is in [segments](crate::QuikIOOptions::segments), and what was asked for is for one file.
    #[error("the log is in segments, which have neither an end of their own nor preallocated space, and are not cut")]
    Segmented,
    /// The log is in one file, and what was asked for is for [segments](crate::QuikIOOptions::segments).
    #[error("the log is in one file: make the QuikIO with QuikIOOptions::segments to have several")]
    NotSegmented,
    /// The environment variable `BUFFER_RING_ENGINE` names no engine.
    #[error("there is no engine `{0}`: set BUFFER_RING_ENGINE to uring, io_uring or positioned, or unset it")]
    UnknownEngine(String),
    /// The operating system could not describe the file; with its errno.
    #[error("cannot examine the file: {}", os(*.0))]
    Stat(i32),
}

impl FileError {
    /// Returns the error kind by which the standard library knows this failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        use io::ErrorKind::{InvalidInput, IsADirectory, Other, PermissionDenied, ResourceBusy, Unsupported};
        match self {
            Self::NotWritable => PermissionDenied,
            Self::Directory => IsADirectory,
            Self::Locked | Self::InUse | Self::Attached => ResourceBusy,
            Self::NotRegular(_) | Self::Alignment { .. } | Self::EngineUnavailable { .. } => Unsupported,
            Self::Segmented | Self::NotSegmented => Unsupported,
            Self::SegmentSize(_) => InvalidInput,
            Self::Segment { fault, .. } => fault.kind(),
            Self::NoEnd | Self::Append | Self::UnalignedStart(_) | Self::UnknownEngine(_) => InvalidInput,
            Self::CutBeyondEnd { .. } => InvalidInput,
            // 0: the device gave no reason.
            Self::Cut(0) | Self::Forked => Other,
            Self::Stat(errno) | Self::Cut(errno) => os(*errno).kind(),
        }
    }
}

impl From<FileError> for io::Error {
    /// Keeps the error, with its [`kind`](FileError::kind).
    fn from(error: FileError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        Self::Stat(errno.raw_os_error())
    }
}

/// What is wrong with a [segment](crate::QuikIOOptions::segments).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentFault {
    /// The log needs it to begin, or has no segment at all.
    #[error("is missing: add it first")]
    Missing,
    /// It was added before.
    #[error("is there already")]
    There,
    /// Segments were removed up to a later one.
    #[error("was removed, and the log does not go back")]
    Removed,
    /// A write to it has not come back, or waits until it is added; or a sync or a read of it is under way.
    #[error("is in use by a write, a sync or a read: wait for its end first")]
    InUse,
    /// It has bytes that no successful sync covers.
    #[error("has bytes that are not on stable storage: sync first")]
    Unsynced,
    /// It is the last one, in which the log goes on.
    #[error("is the last one, in which the log goes on: keep it")]
    Last,
    /// Its file is too short.
    #[error("has {len} bytes instead of {needed}: fill it with zeros first")]
    Short {
        /// Bytes of the file.
        len: u64,
        /// Bytes that it must have.
        needed: u64,
    },
    /// It is a block device.
    #[error("is a block device, and has to be a regular file")]
    Device,
    /// Every write to it is synced, which a log has to know from its beginning: files opened with `O_DSYNC` or
    /// `O_SYNC`, with the attribute `S`, or on a file system that is mounted with `sync`.
    #[error("has every write synced, unlike the segments before it: open them all alike")]
    Synced,
    /// It is in memory and the others are files, or the reverse, or in the memory of another device.
    #[error("is on another device than the segments before it")]
    Elsewhere,
    /// Its addresses are beyond the last one.
    #[error("lies beyond the last address")]
    Beyond,
}

impl SegmentFault {
    fn kind(self) -> io::ErrorKind {
        match self {
            Self::Missing => io::ErrorKind::NotFound,
            Self::There => io::ErrorKind::AlreadyExists,
            Self::InUse | Self::Unsynced | Self::Last => io::ErrorKind::ResourceBusy,
            Self::Device | Self::Synced | Self::Elsewhere => io::ErrorKind::Unsupported,
            Self::Removed | Self::Short { .. } | Self::Beyond => io::ErrorKind::InvalidInput,
        }
    }
}

/// Why no [`WriteQueue`](crate::WriteQueue) could be attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Another queue is attached: two writers to one file would overwrite each other.
    #[error("this QuikIO already serves a ring")]
    Busy,
    /// The file cannot hold a log.
    #[error(transparent)]
    File(#[from] FileError),
}

impl AttachError {
    /// Returns the error kind by which the standard library knows this failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Busy => io::ErrorKind::ResourceBusy,
            Self::File(error) => error.kind(),
        }
    }
}

impl From<AttachError> for io::Error {
    /// Keeps the error, with its [`kind`](AttachError::kind).
    fn from(error: AttachError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why [`QuikIO::open`](crate::QuikIO::open) failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot open {}: {cause}", path.display())]
pub struct OpenError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Cause {
    #[error("{}", os(*.0))]
    Os(i32),
    #[error(
        "cannot {step}, {}, without which a new file may be gone after a crash: {}; \
         repair that, or hand over an open file that is safe by other means", directory.display(), os(*.errno)
    )]
    Directory { directory: PathBuf, step: &'static str, errno: i32 },
    #[error(transparent)]
    File(FileError),
}

impl OpenError {
    pub(crate) fn os(path: &Path, error: &io::Error) -> Self {
        // The one error the standard library makes up itself is a path with a zero byte in it.
        let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
        Self { path: path.to_owned(), cause: Cause::Os(errno) }
    }

    pub(crate) fn directory(path: &Path, directory: &Path, step: &'static str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        Self { path: path.to_owned(), cause: Cause::Directory { directory: directory.to_owned(), step, errno } }
    }

    pub(crate) fn file(path: &Path, error: FileError) -> Self {
        Self { path: path.to_owned(), cause: Cause::File(error) }
    }

    /// Returns the path that was to be opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the errno, if the file could not be opened or its [directory](Self::unsynced_directory) not synced.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Os(errno) | Cause::Directory { errno, .. } => Some(errno),
            Cause::File(_) => None,
        }
    }

    /// Returns the directory of an empty file that could not be put on stable storage, so that the file might be gone
    /// after a crash. If the call had created the file, it has removed it again.
    #[must_use]
    pub fn unsynced_directory(&self) -> Option<&Path> {
        match &self.cause {
            Cause::Directory { directory, .. } => Some(directory),
            Cause::Os(_) | Cause::File(_) => None,
        }
    }

    /// Returns why the file cannot hold a log, if it could be opened.
    #[must_use]
    pub fn file_error(&self) -> Option<&FileError> {
        match &self.cause {
            Cause::Os(_) | Cause::Directory { .. } => None,
            Cause::File(error) => Some(error),
        }
    }

    /// Returns the error kind by which the standard library knows this failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match &self.cause {
            Cause::Os(errno) | Cause::Directory { errno, .. } => os(*errno).kind(),
            Cause::File(error) => error.kind(),
        }
    }
}

impl From<OpenError> for io::Error {
    /// Keeps the error, with its [`kind`](OpenError::kind).
    fn from(error: OpenError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_alike_only_if_the_system_gave_the_same_reason() {
        let failed = |errno| DeviceError::new(Operation::Write, errno, 0..4096);
        assert_eq!(failed(Errno::IO), failed(Errno::IO).clone());
        assert_ne!(failed(Errno::IO), failed(Errno::NOSPC));
        assert_ne!(failed(Errno::IO), DeviceError::no_progress(Operation::Write, 0..4096));
    }

    #[test]
    fn only_what_was_asked_for_in_a_child_is_forked() {
        assert!(DeviceError::forked(Operation::Write, 0..4096).is_forked());
        let others =
            [DeviceError::new(Operation::Write, Errno::IO, 0..1), DeviceError::no_progress(Operation::Read, 0..1)];
        assert!(others.iter().all(|error| !error.is_forked()));
    }
}
