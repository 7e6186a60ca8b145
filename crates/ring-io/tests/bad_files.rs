//! Files that cannot hold a log are refused with the reason, when the log begins and not when it is too late.

mod common;

use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;

use common::{disk, drain, open, pattern, patterned};
use ring_alloc::BLOCK;
use ring_io::{AttachError, EngineKind, FileError, QuikIO};
use rustix::fs::OFlags;

/// `QuikIO::new` takes it, and everything that would start a log on it says no.
fn assert_refused(file: impl Into<Arc<File>>, expected: FileError) {
    let file = file.into();
    let io = Arc::new(QuikIO::new(Arc::clone(&file)));
    assert_eq!(io.start(), Err(expected.clone()));
    let (arena, _buffers) = common::buffers(1, BLOCK);
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(expected.clone()));
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(expected.clone()), "and it is not busy");
    assert_eq!(QuikIO::builder(file).start_at(0).build().unwrap_err(), expected);
}

#[test]
fn a_read_only_file_can_be_read() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, b"old content").expect("a file");
    assert_refused(File::open(&path).expect("the file"), FileError::NotWritable);
    let io = QuikIO::new(File::open(&path).expect("the file"));
    let mut buf = [0; 7];
    assert_eq!(io.read_at(4, &mut buf), Ok(7));
    assert_eq!(&buf, b"content");
}

#[test]
fn a_directory_is_refused() {
    let dir = disk();
    assert_refused(File::open(dir.path()).expect("the directory"), FileError::Directory);
    let error = QuikIO::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
}

#[test]
fn what_has_no_offsets_is_refused() {
    let (_reader, writer) = io::pipe().expect("a pipe");
    assert_refused(File::from(OwnedFd::from(writer)), FileError::NotRegular("pipe"));
    let (socket, _peer) = UnixStream::pair().expect("sockets");
    assert_refused(File::from(OwnedFd::from(socket)), FileError::NotRegular("socket"));
    let null = OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    assert_refused(null, FileError::NotRegular("character device"));
    let error = QuikIO::open("/dev/null").unwrap_err();
    assert_eq!(error.file_error(), Some(&FileError::NotRegular("character device")));
    assert_eq!(error.to_string(), "cannot open /dev/null: a character device cannot hold a log");
}

#[test]
fn a_file_that_ignores_offsets_is_refused() {
    let dir = disk();
    let file = OpenOptions::new().append(true).create(true).open(dir.path().join("log")).expect("a file");
    assert_refused(file, FileError::Append);
}

#[test]
fn a_start_between_blocks_is_refused() {
    let dir = disk();
    let file = Arc::new(open(&dir.path().join("log"), OFlags::empty()));
    for start in [1, 512, 4095, 4097, u64::MAX] {
        let error = QuikIO::builder(Arc::clone(&file)).start_at(start).build().unwrap_err();
        assert_eq!(error, FileError::UnalignedStart(start));
    }
    let io = QuikIO::builder(file).start_at(1 << 20).build().expect("a multiple of 4096");
    assert_eq!(io.start(), Ok(1 << 20));
}

#[test]
fn a_file_is_not_memory() {
    let dir = disk();
    let file = open(&dir.path().join("log"), OFlags::empty());
    let error = QuikIO::builder(file).engine(EngineKind::Memory).build().unwrap_err();
    assert!(matches!(error, FileError::EngineUnavailable { kind: EngineKind::Memory, .. }), "{error}");
}

#[test]
fn a_path_that_leads_nowhere_is_named() {
    let dir = disk();
    let path = dir.path().join("missing").join("log");
    let error = QuikIO::open(&path).unwrap_err();
    assert_eq!((error.path(), error.kind()), (&*path, io::ErrorKind::NotFound));
    assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
    assert_eq!(error.file_error(), None);
}

/// It leads to the file nevertheless, and looking for another one there would never end.
#[test]
fn a_path_to_a_file_that_has_lost_its_name_opens_that_file() {
    let dir = disk();
    for len in [0, BLOCK] {
        let path = dir.path().join("log");
        let file = open(&path, OFlags::empty());
        file.set_len(len as u64).expect("room");
        fs::remove_file(&path).expect("the file");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let (opened, outcome) = mpsc::channel();
        thread::spawn(move || opened.send(QuikIO::open(path)).is_ok());
        let io = Arc::new(outcome.recv_timeout(Duration::from_secs(60)).expect("it ends").expect("the file"));
        assert_eq!(io.start(), Ok(len as u64));
        let (arena, mut buffers) = common::buffers(1, BLOCK);
        let queue = io.attach(&arena).expect("the only queue");
        queue.submit(0, patterned(buffers.remove(0), 0, BLOCK), len as u64);
        assert_eq!(drain(&queue)[0].result, Ok(()));
        let mut found = vec![0; BLOCK];
        file.read_exact_at(&mut found, len as u64).expect("the same file");
        assert!(found == pattern(0, BLOCK));
    }
}

#[test]
fn existing_content_is_left_alone() {
    let dir = disk();
    let path = dir.path().join("log");
    for (len, start) in [(0, 0), (1, BLOCK), (BLOCK - 1, BLOCK), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK)] {
        let old = vec![0xAB; len];
        fs::write(&path, &old).expect("a file");
        let io = Arc::new(QuikIO::open(&path).expect("the file"));
        assert_eq!(io.start(), Ok(start as u64), "{len} bytes there");
        let (arena, mut buffers) = common::buffers(1, BLOCK);
        let queue = io.attach(&arena).expect("the only queue");
        queue.submit(0, patterned(buffers.remove(0), 0, BLOCK), start as u64);
        assert_eq!(drain(&queue)[0].result, Ok(()));
        let expected = [old, vec![0; start - len], pattern(0, BLOCK)].concat();
        assert!(fs::read(&path).expect("the file") == expected, "{len} bytes there");
    }
}

#[test]
fn a_link_to_nothing_leads_to_the_file_that_is_made() {
    let dir = disk();
    let (link, target) = (dir.path().join("link"), dir.path().join("log"));
    std::os::unix::fs::symlink("log", &link).expect("a link");
    let io = QuikIO::open(&link).expect("a new file");
    assert_eq!((io.start(), fs::metadata(&target).map(|file| file.len()).ok()), (Ok(0), Some(0)));
    let error = QuikIO::open(&target).unwrap_err();
    assert_eq!(error.file_error(), Some(&FileError::Locked), "it is the same file");
}
