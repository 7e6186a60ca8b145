//! Where there is no more room: small file systems of their own, and files whose length is limited. The error says so,
//! what was acknowledged is in the file, and nothing behind the hole was acknowledged.

mod common;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use buffer_ring::{BufferRing, EngineKind, Extent, QuikIO, RingError, WriteMode};
use common::{LIMIT, disk, options, pattern, ring_on, skipped, within};
use rustix::fs::FallocateFlags;
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;

const SIZE: usize = 64 << 10;
const RECORD: usize = 10_000;

/// A file system in a file, unmounted when dropped.
struct Small {
    dir: TempDir,
}

impl Small {
    /// With `free` bytes left, as exactly as the file system does such things; `None` where that cannot be done.
    fn new(kind: &str, free: u64) -> Option<Self> {
        // xfs is not made smaller.
        const SIZE: u64 = 320 << 20;
        let dir = disk();
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(SIZE)).expect("a sparse file");
        let small = Self { dir };
        fs::create_dir(small.root()).expect("a folder");
        let (image, root) = (image.to_string_lossy(), small.root());
        let options: &[&str] = if kind == "ext4" { &["-q", "-F", "-m", "0"] } else { &["-q"] };
        let steps = [
            Command::new(format!("mkfs.{kind}")).args(options).arg(&*image).output(),
            Command::new("mount").args(["-o", "loop", &*image]).arg(&root).output(),
        ];
        for step in steps {
            match step {
                Ok(output) if output.status.success() => {}
                outcome => {
                    skipped("BUFFER_RING_REQUIRE_ROOT", &format!("a small {kind}: {outcome:?}"));
                    return None;
                }
            }
        }
        // A full file system may have no room for the log's name.
        small.empty_log();
        small.fill(free);
        Some(small)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn empty_log(&self) -> PathBuf {
        let path = self.root().join("log");
        File::create(&path).expect("a name that is there");
        path
    }

    /// Takes everything but `free` bytes, in pieces that get smaller as the room does.
    fn fill(&self, free: u64) {
        let file = |name: &str| File::create(self.root().join(name)).expect("room for a name");
        let (kept_free, filler) = (file("free"), file("filler"));
        let take = |file: &File, at, len| rustix::fs::fallocate(file, FallocateFlags::empty(), at, len);
        if free > 0 {
            take(&kept_free, 0, free).expect("room for what stays free");
        }
        let (mut taken, mut piece) = (0, 64 << 20);
        while piece >= 4096 {
            match take(&filler, taken, piece) {
                Ok(()) => taken += piece,
                Err(_) => piece /= 2,
            }
        }
        drop(kept_free);
        fs::remove_file(self.root().join("free")).expect("what stays free");
        rustix::fs::syncfs(filler).expect("a working file system");
    }

    fn relieve(&self) {
        fs::remove_file(self.root().join("filler")).expect("the filler");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // If it was never mounted, there is nothing to be done.
        let _ = Command::new("umount").arg(self.root()).output();
    }
}

/// Three threads that append records and wait for some of them; what they know to be durable when the device fails.
fn append_until_it_fails(ring: &BufferRing) -> Vec<(u64, Extent)> {
    const THREADS: u64 = 3;
    let append = |thread: u64| {
        let mut durable = Vec::new();
        let mut staged = Vec::new();
        for id in (thread..).step_by(THREADS as usize) {
            let Ok(extent) = ring.append(&pattern(id, RECORD)) else { break };
            staged.push((id, extent));
            if id % 4 == 0 {
                match ring.wait_durable(extent.end()) {
                    Ok(()) => durable.append(&mut staged),
                    Err(_) => break,
                }
            }
        }
        durable
    };
    thread::scope(|scope| {
        let append = &append;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || append(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Fills the file at `path` until the device says `errno`. Gives the durable watermark.
fn fill_up(path: &Path, kind: EngineKind, mode: WriteMode, errno: i32) -> Option<u64> {
    let case = format!("{path:?}, {kind}, {mode:?}");
    let file = common::direct_file(path);
    let io = match QuikIO::builder(file).engine(kind).write_mode(mode).build() {
        Ok(io) => io,
        Err(error) => {
            skipped("BUFFER_RING_REQUIRE_URING", &error.to_string());
            return None;
        }
    };
    let ring = ring_on(io, options(4, SIZE));
    let start = ring.durable_watermark();
    let acknowledged = append_until_it_fails(&ring);
    let Some(RingError::Device(error)) = ring.poisoned() else { panic!("{case}: {:?}", ring.poisoned()) };
    assert_eq!(error.errno(), Some(errno), "{case}: {error}");
    let durable = ring.durable_watermark();
    assert!(durable <= error.range().start || error.range().end == u64::MAX, "{case}: the hole was crossed: {error}");
    assert!(acknowledged.iter().all(|(_, extent)| (start..=durable).contains(&extent.end())), "{case}");
    assert_eq!(ring.close(), Err(RingError::Device(error)), "{case}");
    let contents = fs::read(path).expect("the file");
    for (id, extent) in acknowledged {
        let there = &contents[extent.start() as usize..extent.end() as usize];
        assert!(there == pattern(id, RECORD), "{case}: record {id} at {extent:?} was acknowledged");
    }
    Some(durable)
}

/// Full at once, after a few buffers, and after many.
fn fills(kind: &'static str) {
    within(LIMIT, move || {
        for free in [0, 300 << 10, 4 << 20] {
            let Some(small) = Small::new(kind, free) else { return };
            for engine in [EngineKind::IoUring, EngineKind::Positioned] {
                for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
                    let path = small.empty_log();
                    if let Some(durable) = fill_up(&path, engine, mode, ENOSPC) {
                        // Some of the room goes for what the file system has to note down.
                        assert!(durable <= free + (64 << 10), "{kind} with {free} bytes free: {durable}");
                        assert_eq!(durable > 0, free > 0, "{kind} with {free} bytes free: {durable}");
                    }
                }
            }
            // With room again, a new ring goes on behind what is there.
            let path = small.empty_log();
            let before = fill_up(&path, EngineKind::Positioned, WriteMode::TailLocalized, ENOSPC).expect("an engine");
            small.relieve();
            let ring = ring_on(QuikIO::open(&path).expect("the log"), options(4, SIZE));
            let extent = ring.append_durable(&pattern(7, RECORD)).expect("room");
            assert!(extent.start() >= before, "{kind} with {free} bytes free");
            ring.close().expect("room");
            let contents = fs::read(&path).expect("the log");
            assert!(contents[extent.start() as usize..extent.end() as usize] == pattern(7, RECORD));
        }
    });
}

#[test]
fn a_full_ext4_poisons_and_keeps_what_was_acknowledged() {
    fills("ext4");
}

#[test]
fn a_full_xfs_poisons_and_keeps_what_was_acknowledged() {
    fills("xfs");
}

/// Tells the test that it runs in a process of its own, which ignores the signal.
const ALONE: &str = "BUFFER_RING_TEST_IS_ALONE";

fn alone(name: &str) -> Output {
    let this = env::current_exe().expect("this test");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" --exact --nocapture \"$1\""]).arg(this).arg(name);
    shell.env(ALONE, "").output().expect("a shell")
}

/// Whole buffers, whole blocks, and neither.
#[test]
fn a_file_at_its_limit_poisons_and_keeps_what_was_acknowledged() {
    if env::var_os(ALONE).is_none() {
        let output = alone("a_file_at_its_limit_poisons_and_keeps_what_was_acknowledged");
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let dir = disk();
    for limit in [20 * SIZE, 10 * SIZE + 4096, 5 * SIZE + 2048, 512].map(|limit| limit as u64) {
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: None }).expect("a limit");
        for engine in [EngineKind::IoUring, EngineKind::Positioned] {
            for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
                let path = dir.path().join(format!("{limit}-{engine}-{mode:?}"));
                let durable = fill_up(&path, engine, mode, EFBIG);
                assert!(durable.is_none_or(|durable| durable <= limit));
            }
        }
    }
}
