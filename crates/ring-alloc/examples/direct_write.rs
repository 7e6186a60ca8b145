//! One aligned buffer, written with direct I/O and read back.
//!
//! `cargo run -p ring-alloc --example direct_write [FOLDER]`; the file in the folder is removed afterwards.

use core::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::{env, io};

use ring_alloc::{BLOCK, Buffer};
use rustix::fs::OFlags;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let file = tempfile::NamedTempFile::new_in(&folder)?;
    let open = |flags: OFlags| {
        OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(file.path())
    };
    let (direct, how) = match open(OFlags::DIRECT) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => (open(OFlags::empty())?, "through the cache"),
        opened => (opened?, "with O_DIRECT"),
    };

    let mut buffer = Buffer::zeroed(BLOCK)?;
    buffer[..5].copy_from_slice(b"hello");
    println!("a buffer of {} bytes, at an address that is a multiple of {BLOCK}: {:p}", buffer.len(), buffer.as_ptr());

    // Frozen: no safe code can change the bytes while the device reads them.
    let frozen = buffer.freeze(BLOCK);
    direct.write_all_at(&frozen, 0)?;
    println!("written to {} {how}", file.path().display());

    let mut back = Buffer::zeroed(BLOCK)?;
    direct.read_exact_at(&mut back, 0)?;
    assert_eq!(back[..], frozen[..]);
    println!("read back: {:?}, and {} zeros", String::from_utf8_lossy(&back[..5]), BLOCK - 5);
    Ok(())
}
