//! Opening a log by its path: direct where that works, locked, and there after a crash.
//!
//! A file that has content is there after a crash if its writer has done its part. An empty one may be new, even if it
//! was not created here: the program that did may have died before it synced the directory. So the directory of an
//! empty file is synced before a byte is written. Where that cannot be done, `syncfs` does the same at more cost: it
//! writes out the file system that the file is on.
//!
//! What this call has created it removes again if that fails. Another process may have opened the file meanwhile; so it
//! is removed under the lock, and each opener that gets the lock checks whether the file still has a name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring_alloc::BLOCK;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use crate::backend::Storage;
use crate::file::{LogFile, direct_alignment};
use crate::lock::WriterLock;
use crate::{OpenError, event};

/// Links from one to the next, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A file with no other writer.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<LogFile>,
    pub(crate) lock: WriterLock,
    /// Why it is not direct.
    pub(crate) cached: Option<String>,
    /// Whether it was missing.
    pub(crate) created: bool,
}

/// Opens `path` to read and write; creates it if it is missing.
pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    loop {
        let (file, created, cached) = open_or_create(path).map_err(|error| OpenError::os(path, &error))?;
        let file = Arc::new(file);
        let prepared = file.check().and_then(|()| file.lock());
        let lock = prepared.map_err(|error| OpenError::file(path, error))?;
        if file.has_no_name() && !file.is(rustix::fs::stat(path)) {
            let path = path.to_path_buf();
            event!(DEBUG, path = %path.display(), "removed while it was opened: once more");
            continue;
        }
        // Only what is there to be written from its beginning; a block device has no length.
        if file.len() == Ok(0)
            && let Err(error) = keep_after_a_crash(path, &file)
        {
            if created {
                _ = fs::remove_file(path);
            }
            return Err(error);
        }
        return Ok(Opened { file, lock, cached, created });
    }
}

/// The file, whether it was created, and why it is not direct.
fn open_or_create(path: &Path) -> io::Result<(LogFile, bool, Option<String>)> {
    match open_existing(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(|(file, cached)| (file, false, cached)),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let (plain, created) = match options.clone().create_new(true).open(path) {
        // At the end of a link that leads nowhere, or another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            (options.create(true).truncate(false).open(path)?, false)
        }
        created => (created?, true),
    };
    // In two steps: refused with `O_DIRECT`, the file would be there nevertheless.
    match open_existing(path) {
        Ok((file, cached)) => Ok((file, created, cached)),
        Err(error) => {
            let cached = format!("cannot open it once more with O_DIRECT: {error}");
            warn_of_the_cache(path, &cached);
            Ok((LogFile::new(Arc::new(plain)), created, Some(cached)))
        }
    }
}

fn open_existing(path: &Path) -> io::Result<(LogFile, Option<String>)> {
    let with = |flags: OFlags| {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path);
        opened.map(|file| LogFile::new(Arc::new(file)))
    };
    let reason = match with(OFlags::DIRECT) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            "the file system refuses O_DIRECT".to_owned()
        }
        opened => {
            let file = opened?;
            match file.direct_alignment() {
                Some(needed) if needed > BLOCK as u32 => {
                    format!("direct I/O on this file needs an alignment of {needed} bytes, more than 4096")
                }
                _ => return Ok((file, None)),
            }
        }
    };
    let file = with(OFlags::empty())?;
    warn_of_the_cache(path, &reason);
    Ok((file, Some(reason)))
}

/// Has all further I/O of an open file go past the kernel's cache (`O_DIRECT`), which then takes whole blocks only.
/// `false`: the file system refuses it, or wants more than blocks of 4096 bytes, and nothing has changed.
///
/// For files that are opened elsewhere, such as [segments](crate::QuikIOOptions::segments). All handles that share the
/// opening are changed.
pub fn make_direct(file: &File) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    if rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return false;
    }
    let fits = direct_alignment(file).is_none_or(|needed| needed <= BLOCK as u32);
    fits || rustix::fs::fcntl_setfl(file, flags).is_err()
}

fn warn_of_the_cache(path: &Path, reason: &str) {
    let (path, reason) = (path.to_path_buf(), reason.to_owned());
    event!(WARN, path = %path.display(), reason, "writes go through the kernel's cache");
}

/// Puts the file's name on stable storage.
fn keep_after_a_crash(path: &Path, file: &LogFile) -> Result<(), OpenError> {
    let name = behind_links(path);
    let directory = match name.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let opened = match File::open(directory) {
        Ok(opened) => opened,
        Err(error) => {
            let shown = directory.to_path_buf();
            event!(DEBUG, directory = %shown.display(), %error, "cannot be opened: its file system is synced");
            return sync_file_system(path, directory, file);
        }
    };
    // It may have been renamed, or the path leads through `/proc`.
    let there = rustix::fs::statat(&opened, name.file_name().unwrap_or_default(), AtFlags::SYMLINK_NOFOLLOW);
    if !file.is(there) {
        return sync_file_system(path, directory, file);
    }
    match opened.sync_all() {
        Ok(()) => Ok(()),
        // Some network file systems know no such thing.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            let shown = directory.to_path_buf();
            event!(DEBUG, directory = %shown.display(), %error, "cannot be synced: its file system is");
            sync_file_system(path, directory, file)
        }
        Err(error) => Err(OpenError::directory(path, directory, "sync its directory", &error)),
    }
}

fn sync_file_system(path: &Path, directory: &Path, file: &LogFile) -> Result<(), OpenError> {
    let synced = file.sync_file_system();
    synced.map_err(|errno| {
        let step = "sync the file system, in place of its directory";
        OpenError::directory(path, directory, step, &io::Error::from(errno))
    })
}

/// The path behind the links that `path` is; relative to the working directory, which may lie below one that must not
/// be searched.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.with_file_name("").join(target);
    }
    path
}
