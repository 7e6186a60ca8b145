//! What all test files need: rings over devices of every kind, recognizable bytes, and a limit to every wait.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod append_path;

use core::sync::atomic::Ordering::Acquire;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use std::{env, panic, thread};

use buffer_ring::{BufferHandle, BufferRing, BufferRingOptions, Extent, MemoryDevice, QuikIO};
pub(crate) use ring_testing::Random;
use tempfile::TempDir;

pub(crate) const EIO: i32 = 5;
pub(crate) const EAGAIN: i32 = 11;

/// More than anything here takes, on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Long enough to be noticed as a wait, short enough to be waited for. No test depends on it being longer than
/// something else.
pub(crate) const MOMENT: Duration = Duration::from_millis(30);

/// Runs `body` in a thread of its own, and fails if it has not ended after `limit`: that is how a hang shows.
pub(crate) fn within<R: Send + 'static>(limit: Duration, body: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, outcome) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _ = done.send(body());
    });
    match outcome.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            panic::resume_unwind(worker.join().expect_err("a thread that ends without an outcome panicked"))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {limit:?}: a thread waits for ever"),
    }
}

/// Waits for something that other threads bring about.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn options(capacity: usize, buffer_size: usize) -> BufferRingOptions {
    BufferRingOptions { capacity, buffer_size, ..BufferRingOptions::default() }
}

/// Without `auto_flush`.
pub(crate) fn held(capacity: usize, buffer_size: usize) -> BufferRingOptions {
    BufferRingOptions { auto_flush: false, ..options(capacity, buffer_size) }
}

/// Without `auto_rotate`.
pub(crate) fn fixed(capacity: usize, buffer_size: usize) -> BufferRingOptions {
    BufferRingOptions { auto_rotate: false, ..options(capacity, buffer_size) }
}

/// A ring over a device in memory.
pub(crate) fn in_memory(options: BufferRingOptions) -> (BufferRing, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    (ring_on(io, options), device)
}

pub(crate) fn ring_on(io: impl Into<Arc<QuikIO>>, options: BufferRingOptions) -> BufferRing {
    BufferRing::with_options(BufferRingOptions { io_instance: Some(io.into()), ..options })
}

pub(crate) fn current(ring: &BufferRing) -> BufferHandle {
    ring.current_buffer(Acquire)
}

/// What the ring says is there.
pub(crate) fn read(ring: &BufferRing, extent: Extent) -> Vec<u8> {
    let mut bytes = vec![0xEE; extent.len()];
    assert_eq!(ring.read(extent, &mut bytes), Ok(extent.len()), "{extent:?}");
    bytes
}

/// What the device has there.
pub(crate) fn stored(device: &MemoryDevice, extent: Extent) -> Vec<u8> {
    device.contents()[extent.start() as usize..extent.end() as usize].to_vec()
}

/// The device keeps its writes in flight as long as this lives. Make it after the ring: a ring that is dropped waits
/// for them.
pub(crate) struct Holding(pub(crate) MemoryDevice);

impl Holding {
    pub(crate) fn new(device: &MemoryDevice) -> Self {
        device.hold();
        Self(device.clone())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.release_all();
    }
}

/// A folder on a real file system, deleted with the answer.
pub(crate) fn disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on disk")
}

/// `O_DIRECT`, whose value differs between architectures.
const O_DIRECT: i32 = if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o200_000 } else { 0o40_000 };

/// A file to read and write, created if it is missing.
pub(crate) fn buffered_file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("a file")
}

/// The same past the kernel's cache.
pub(crate) fn direct_file(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(O_DIRECT).open(path).expect("a file")
}

/// `len` bytes, none of them zero, and different for each `id`.
pub(crate) fn pattern(id: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(id);
    let words = core::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().map(|byte| byte | 1).take(len).collect()
}

/// Says why a test cannot be done here, which is a failure where the variable `required` says that it must. Always
/// `false`.
pub(crate) fn skipped(required: &str, why: &str) -> bool {
    assert!(env::var_os(required).is_none(), "not to be skipped, says {required}: {why}");
    eprintln!("SKIPPED: {why}");
    false
}
