//! What all test files need: recognizable buffers, and somewhere to write them.
#![allow(dead_code, reason = "each test file uses its part")]

use core::time::Duration;
use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{self, Command};
use std::sync::{Arc, Once};
use std::thread;

use ring_alloc::{Arena, BLOCK, Buffer, Frozen};
use ring_io::{EngineKind, Finished, MemoryDevice, QuikIO, Wait, WriteQueue};
use rustix::fs::OFlags;
use tempfile::TempDir;

/// The device keeps its writes in flight as long as this lives. Make it after the queue, which waits for them when it
/// is dropped: so a test that fails does not hang.
pub(crate) struct Holding(MemoryDevice);

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

/// Something to write to, for the length of a test.
pub(crate) struct Device {
    pub(crate) io: Arc<QuikIO>,
    pub(crate) memory: Option<MemoryDevice>,
    /// Deleted when the test is over.
    _dir: Option<TempDir>,
}

impl Device {
    fn on(dir: TempDir, flags: OFlags, kind: EngineKind) -> Option<Self> {
        Self::submitting(dir, flags, kind, false)
    }

    fn submitting(dir: TempDir, flags: OFlags, kind: EngineKind, kernel: bool) -> Option<Self> {
        let file = open(&dir.path().join("log"), flags);
        let direct = flags.contains(OFlags::DIRECT);
        match QuikIO::builder(file).engine(kind).kernel_submits(kernel).build() {
            Ok(io) => {
                assert_eq!((io.engine().kind(), io.is_direct()), (kind, direct));
                Some(Self { io: Arc::new(io), memory: None, _dir: Some(dir) })
            }
            Err(error) => {
                skipped("BUFFER_RING_REQUIRE_URING", &error.to_string());
                None
            }
        }
    }

    pub(crate) fn io_uring() -> Option<Self> {
        Self::on(disk(), OFlags::DIRECT, EngineKind::IoUring)
    }

    pub(crate) fn io_uring_buffered() -> Option<Self> {
        Self::on(shared_memory(), OFlags::empty(), EngineKind::IoUring)
    }

    pub(crate) fn io_uring_of_the_kernel() -> Option<Self> {
        Self::submitting(disk(), OFlags::DIRECT, EngineKind::IoUring, true)
    }

    pub(crate) fn positioned() -> Option<Self> {
        Self::on(disk(), OFlags::DIRECT, EngineKind::Positioned)
    }

    pub(crate) fn positioned_buffered() -> Option<Self> {
        Self::on(shared_memory(), OFlags::empty(), EngineKind::Positioned)
    }

    pub(crate) fn memory() -> Option<Self> {
        let (io, memory) = QuikIO::in_memory();
        Some(Self { io: Arc::new(io), memory: Some(memory), _dir: None })
    }
}

pub(crate) fn disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn shared_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| disk())
}

/// `OFlags::DSYNC` is all of `O_SYNC`, of which this is a part.
pub(crate) const O_DSYNC: OFlags = OFlags::from_bits_retain(libc::O_DSYNC.cast_unsigned());

pub(crate) fn open(path: &Path, flags: OFlags) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(flags.bits().cast_signed()).open(path).expect("a file")
}

/// `count` buffers of one arena.
pub(crate) fn buffers(count: usize, size: usize) -> (Arc<Arena>, Vec<Buffer>) {
    let mut buffers = Arena::new(count, size).expect("an arena").into_buffers();
    let first = buffers.remove(0).freeze(0);
    let arena = Arc::clone(first.arena());
    buffers.insert(0, first.thaw().expect("a buffer"));
    (arena, buffers)
}

/// What the bytes of write `token` look like: no two blocks of any two writes are alike.
pub(crate) fn pattern(token: u64, len: usize) -> Vec<u8> {
    let words = (0..len as u64 / 8).map(|word| (token << 32 | word).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

/// `len` patterned bytes in memory of their own.
pub(crate) fn bytes(token: u64, len: usize) -> Frozen {
    patterned(Buffer::zeroed(len).expect("a buffer"), token, len)
}

pub(crate) fn patterned(mut buffer: Buffer, token: u64, len: usize) -> Frozen {
    buffer[..len].copy_from_slice(&pattern(token, len));
    buffer.freeze(len)
}

/// A hang is a failure too: ends the process if it takes longer than all tests together.
fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("not done after five minutes: some test waits for ever");
            process::abort();
        });
    });
}

/// A queue for buffers that are in no arena in particular.
pub(crate) fn attach(io: &Arc<QuikIO>) -> WriteQueue {
    watch();
    io.attach(&Arc::new(Arena::new(1, BLOCK).expect("an arena"))).expect("the only queue")
}

/// Everything in flight, when it has finished.
pub(crate) fn drain(queue: &WriteQueue) -> Vec<Finished> {
    let mut finished = Vec::new();
    while queue.in_flight() > 0 {
        queue.reap(Wait::Until(None), &mut finished);
    }
    finished
}

/// All of the file.
pub(crate) fn read_all(io: &QuikIO, len: usize) -> Vec<u8> {
    let mut all = vec![0xEE; len + 1];
    let read = io.read_at(0, &mut all).expect("a readable file");
    all.truncate(read);
    all
}

/// This test program again, as a process of its own that runs only the test `name`; `variable` marks it as the other
/// one.
pub(crate) fn this_test(name: &str, variable: &str, value: impl AsRef<OsStr>) -> Command {
    let mut test = Command::new(env::current_exe().expect("this test"));
    test.args(["--exact", "--nocapture", name]).env(variable, value);
    test
}

/// Reads lines until one contains `mark`.
pub(crate) fn wait_for_line(lines: impl Read, mark: &str) {
    let mut lines = BufReader::new(lines).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(mark))), "the process never said `{mark}`");
}

/// Says why a test cannot be done here, which is a failure where the variable `required` says that it must. Always
/// `false`.
pub(crate) fn skipped(required: &str, why: &str) -> bool {
    assert!(env::var_os(required).is_none(), "not to be skipped, says {required}: {why}");
    eprintln!("SKIPPED: {why}");
    false
}
