//! A file has one writer: a second one is refused, in this process and in others, and when the first is gone there is
//! no trace.

mod common;

use core::mem;
use core::time::Duration;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use common::{attach, bytes, disk, drain, open, pattern, read_all, this_test, wait_for_line};
use ring_alloc::BLOCK;
use ring_io::{AttachError, FileError, QuikIO, Wait};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

fn buffered(path: &Path) -> File {
    open(path, OFlags::empty())
}

fn on(file: impl Into<Arc<File>>) -> Arc<QuikIO> {
    Arc::new(QuikIO::new(file))
}

fn assert_locked(io: &Arc<QuikIO>) {
    let (arena, _buffers) = common::buffers(1, BLOCK);
    // Twice: a refusal leaves nothing behind.
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
}

fn assert_open_locked(path: &Path) {
    let error = QuikIO::open(path).unwrap_err();
    assert_eq!((error.file_error(), error.errno()), (Some(&FileError::Locked), None));
    let sentence = format!("cannot open {}: another process or QuikIO already writes to this file", path.display());
    assert_eq!(error.to_string(), sentence);
}

/// What another program would find that knows `flock` and nothing of us.
fn is_locked(path: &Path) -> bool {
    rustix::fs::flock(buffered(path), FlockOperation::NonBlockingLockExclusive).is_err()
}

fn log() -> (tempfile::TempDir, PathBuf) {
    let dir = disk();
    let path = dir.path().join("log");
    (dir, path)
}

#[test]
fn whoever_opens_second_is_refused_until_the_first_is_gone() {
    let (_dir, path) = log();
    let first = Arc::new(QuikIO::open(&path).expect("no other writer"));
    assert!(is_locked(&path));
    assert_open_locked(&path);
    assert_locked(&on(buffered(&path)));
    let queue = attach(&first);
    assert_open_locked(&path);
    drop(queue);
    assert!(is_locked(&path), "a queue goes, its QuikIO stays");
    drop(first);
    assert!(!is_locked(&path));
    drop(QuikIO::open(&path).expect("the first is gone"));
    drop(attach(&on(buffered(&path))));
}

#[test]
fn a_file_that_was_handed_over_is_locked_while_it_has_a_queue() {
    let (_dir, path) = log();
    let (first, second) = (on(buffered(&path)), on(buffered(&path)));
    assert!(!is_locked(&path), "there is no writer yet");
    let queue = attach(&first);
    assert!(is_locked(&path));
    assert_locked(&second);
    assert_open_locked(&path);
    drop(queue);
    assert!(!is_locked(&path));
    let queue = attach(&second);
    assert_locked(&first);
    drop(queue);
    drop(attach(&first));
}

/// `flock` alone would give it to both, and take it from both when one goes.
#[test]
fn two_quik_ios_on_one_open_file_are_two_writers() {
    let (_dir, path) = log();
    let file = Arc::new(buffered(&path));
    let (first, second) = (on(Arc::clone(&file)), on(Arc::clone(&file)));
    let third = on(file.try_clone().expect("a duplicate"));
    let queue = attach(&first);
    assert_locked(&second);
    assert_locked(&third);
    assert!(is_locked(&path), "the refused ones have not released it");
    drop((second, third));
    assert!(is_locked(&path));
    drop(queue);
    assert!(!is_locked(&path));
}

#[test]
fn the_lock_ends_although_the_users_file_lives_on_whatever_goes_first() {
    let (_dir, path) = log();
    let file = Arc::new(buffered(&path));
    for queue_first in [true, false] {
        let io = on(Arc::clone(&file));
        let queue = attach(&io);
        queue.submit(1, bytes(1, BLOCK), 0);
        if queue_first {
            drop(queue);
            drop(io);
        } else {
            drop(io);
            assert!(is_locked(&path));
            drop(queue);
        }
        assert!(!is_locked(&path), "queue first: {queue_first}");
    }
    drop(file);
}

#[test]
fn a_queue_that_is_forgotten_keeps_the_file() {
    let (_dir, path) = log();
    let io = on(buffered(&path));
    let queue = attach(&io);
    queue.submit(1, bytes(1, BLOCK), 0);
    mem::forget(queue);
    drop(io);
    assert!(is_locked(&path), "its writes may still be on their way");
    assert_open_locked(&path);
}

#[test]
fn a_second_quik_io_can_read() {
    let (_dir, path) = log();
    let first = Arc::new(QuikIO::open(&path).expect("no other writer"));
    let queue = attach(&first);
    queue.submit(1, bytes(1, BLOCK), 0);
    assert_eq!(drain(&queue)[0].result, Ok(()));
    for file in [File::open(&path).expect("the file"), buffered(&path)] {
        assert!(read_all(&QuikIO::new(file), BLOCK) == pattern(1, BLOCK));
    }
    assert!(is_locked(&path));
}

#[test]
fn a_device_in_memory_has_one_writer_too() {
    let (first, device) = QuikIO::in_memory();
    let first = Arc::new(first);
    let second = Arc::new(device.builder().build().expect("no obstacle"));
    let queue = attach(&first);
    assert_locked(&second);
    drop(queue);
    drop(attach(&second));
}

/// What the process does that has the file: says so, and waits for the end of its input.
fn keep(path: &Path) {
    let io = QuikIO::open(path).expect("no other writer");
    println!("have it");
    io::copy(&mut io::stdin(), &mut io::sink()).expect("an end of the input");
    drop(io);
}

#[test]
fn another_process_is_refused_until_this_one_is_done() {
    const PATH: &str = "RING_IO_TEST_TRIES_TO_OPEN";
    if let Some(path) = env::var_os(PATH) {
        return match QuikIO::open(path) {
            Ok(_) => println!("got it"),
            Err(error) => println!("refused: {error}"),
        };
    }
    let (_dir, path) = log();
    let open_elsewhere = || {
        let mut test = this_test("another_process_is_refused_until_this_one_is_done", PATH, &path);
        let output = test.output().expect("a process");
        String::from_utf8(output.stdout).expect("text")
    };
    let io = QuikIO::open(&path).expect("no other writer");
    let answer = open_elsewhere();
    assert!(answer.contains("another process or QuikIO already writes to this file"), "{answer}");
    drop(io);
    let answer = open_elsewhere();
    assert!(answer.contains("got it"), "{answer}");
}

#[test]
fn this_process_is_refused_until_the_other_one_is_done() {
    const PATH: &str = "RING_IO_TEST_KEEPS_OPEN";
    if let Some(path) = env::var_os(PATH) {
        return keep(Path::new(&path));
    }
    let (_dir, path) = log();
    let mut test = this_test("this_process_is_refused_until_the_other_one_is_done", PATH, &path);
    let mut other = test.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
    wait_for_line(other.stdout.as_mut().expect("its output"), "have it");
    assert_open_locked(&path);
    assert_locked(&on(buffered(&path)));
    drop(other.stdin.take());
    assert!(other.wait().expect("its end").success());
    drop(QuikIO::open(&path).expect("the other one is gone"));
}

/// Many large writes in flight, for ever.
fn write_without_end(path: &Path) -> ! {
    const MANY: u64 = 32;
    const LARGE: usize = 64 * BLOCK;
    let io = Arc::new(QuikIO::open(path).expect("no other writer"));
    let queue = attach(&io);
    (0..MANY).for_each(|token| queue.submit(token, bytes(token, LARGE), token * LARGE as u64));
    println!("writing");
    io::stdout().flush().expect("a reader");
    loop {
        let mut finished = Vec::new();
        queue.reap(Wait::Until(None), &mut finished);
        finished.into_iter().for_each(|write| queue.submit(write.token, write.bytes, write.token * LARGE as u64));
    }
}

/// The kernel keeps the file open until the killed process's writes have ended, which is after the process has.
#[test]
fn after_a_writer_is_killed_amid_its_writes_the_next_gets_the_file() {
    const PATH: &str = "RING_IO_TEST_WRITES_WITHOUT_END";
    if let Some(path) = env::var_os(PATH) {
        write_without_end(Path::new(&path));
    }
    let (_dir, path) = log();
    for _ in 0..5 {
        let mut test = this_test("after_a_writer_is_killed_amid_its_writes_the_next_gets_the_file", PATH, &path);
        let mut writer = test.stdout(Stdio::piped()).spawn().expect("a process");
        wait_for_line(writer.stdout.as_mut().expect("its output"), "writing");
        writer.kill().expect("a process to kill");
        writer.wait().expect("its end");
        let io = QuikIO::open(&path).expect("the writer is dead");
        drop(attach(&Arc::new(io)));
    }
}

/// A block device, and a second node of it in `dir`; both gone with the value.
struct Loop {
    device: PathBuf,
    node: PathBuf,
}

impl Loop {
    fn new(dir: &Path) -> Option<Self> {
        let image = dir.join("image");
        File::create(&image).expect("a file").set_len(1 << 20).expect("room");
        let losetup = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
        let device = losetup.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let device = String::from_utf8(device?).expect("a path");
        let (device, node) = (PathBuf::from(device.trim()), dir.join("node"));
        let number = rustix::fs::stat(&device).expect("a device").st_rdev;
        let made = rustix::fs::mknodat(rustix::fs::CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, number);
        let made = Self { device, node: made.map(|()| node).unwrap_or_default() };
        (!made.node.as_os_str().is_empty()).then_some(made)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(detached.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

#[test]
fn a_block_device_has_one_writer_whatever_its_nodes_are_called() {
    const PATH: &str = "RING_IO_TEST_TRIES_ANOTHER_NODE";
    const NAME: &str = "a_block_device_has_one_writer_whatever_its_nodes_are_called";
    let on = |path: &Path| Arc::new(QuikIO::builder(open(path, OFlags::DIRECT)).start_at(0).build().expect("a device"));
    let (arena, _buffers) = common::buffers(1, BLOCK);
    if let Some(path) = env::var_os(PATH) {
        return println!("found: {:?}", on(Path::new(&path)).attach(&arena).err());
    }
    let dir = disk();
    let Some(device) = Loop::new(dir.path()) else {
        common::skipped("BUFFER_RING_REQUIRE_ROOT", "no loop device, or no node of it");
        return;
    };
    let first = on(&device.device);
    let elsewhere = || {
        let output = this_test(NAME, PATH, &device.node).output().expect("a process");
        String::from_utf8(output.stdout).expect("text")
    };
    let queue = attach(&first);
    assert_eq!(on(&device.node).attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
    // `flock` knows two files there.
    let found = elsewhere();
    assert!(found.contains("found: Some(File(InUse))"), "{found}");
    // Like one that is mounted. No program that another test starts may inherit a claim, and keep it.
    let claim = || rustix::fs::open(&device.node, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
    assert_eq!(claim().map(drop), Err(rustix::io::Errno::BUSY));
    drop(queue);
    let found = elsewhere();
    assert!(found.contains("found: None"), "{found}");
    let queue = attach(&on(&device.node));
    assert_eq!(first.attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
    drop(queue);
    // For a moment, as by a program that looks at new devices.
    let claimed = claim().expect("free");
    let looking = thread::spawn(|| {
        thread::sleep(Duration::from_millis(50));
        drop(claimed);
    });
    drop(attach(&first));
    looking.join().expect("no panic");
}
