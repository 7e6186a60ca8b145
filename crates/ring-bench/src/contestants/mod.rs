//! Who takes part. Each file holds one kind, and the lists that the workloads draw on.

pub mod baselines;
pub mod followers;
pub mod limits;
pub mod ours;
pub mod ringlog;
#[cfg(feature = "rivals")]
pub mod rivals;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
pub mod tasks;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memmap2::Mmap;
use ring_alloc::Buffer;
use rustix::fs::{OFlags, SeekFrom};

use crate::log::Outcome;
use crate::stamp::Tally;

/// A file for direct I/O, whose first `len` bytes have been written to: overwriting them changes no metadata. What an
/// earlier repetition left there serves again.
pub fn prepared(path: &Path, len: u64) -> Outcome<File> {
    let file = direct(path)?;
    let have = file.metadata()?.len();
    if have < len {
        const STEP: usize = 1 << 20;
        let zeros = Buffer::zeroed(STEP)?;
        rustix::fs::seek(&file, SeekFrom::Start(0))?;
        for step in 0..len.div_ceil(STEP as u64) {
            let mut rest = &zeros[..];
            while !rest.is_empty() {
                let done = rustix::io::pwrite(&file, rest, step * STEP as u64 + (STEP - rest.len()) as u64)?;
                rest = &rest[done..];
            }
        }
        file.sync_all()?;
    }
    Ok(file)
}

/// A file for direct I/O; made if it is missing.
pub fn direct(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    Ok(options.custom_flags(OFlags::DIRECT.bits() as i32).open(path)?)
}

/// All records in the first `len` bytes of the file at `path`.
pub fn scan_file(path: &Path, len: u64, tally: &mut Tally) -> Outcome<()> {
    let file = File::open(path)?;
    // SAFETY: the file is this program's own, and it is written no more.
    let bytes = unsafe { Mmap::map(&file)? };
    tally.scan(&bytes[..len as usize]);
    Ok(())
}
