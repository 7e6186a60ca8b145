//! One aligned write through the best engine that this machine has, durable when it is reported.
//!
//! `cargo run -p ring-io --example one_write [FOLDER]`; the file in the folder is removed afterwards.

use core::error::Error;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use ring_alloc::{BLOCK, Buffer};
use ring_io::{QuikIO, Wait};

fn main() -> Result<(), Box<dyn Error>> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(parent)?;
    let io = Arc::new(QuikIO::open(folder.path().join("log"))?);
    println!("engine: {}; direct I/O: {}", io.engine(), if io.is_direct() { "yes" } else { "no" });

    let mut buffer = Buffer::zeroed(BLOCK)?;
    buffer[..5].copy_from_slice(b"hello");
    let bytes = buffer.freeze(BLOCK);
    let start = io.start()?;

    // The queue is the exclusive right to write; the token is the caller's name for the write.
    let queue = io.attach(bytes.arena())?;
    queue.submit_durable(7, bytes, start);
    let mut finished = Vec::new();
    queue.reap(Wait::Until(None), &mut finished);
    let write = finished.pop().ok_or("a write that is waited for comes back")?;
    write.result?;
    println!("write {}: {} bytes at {start}, on stable storage: {}", write.token, write.bytes.len(), write.durable);

    let mut back = [0; 5];
    let read = io.read_at(start, &mut back)?;
    println!("read back {read} bytes: {:?}", String::from_utf8_lossy(&back));
    Ok(())
}
