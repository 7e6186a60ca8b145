//! Options that make no ring: each is refused with its reason, and nothing is kept busy or written.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use buffer_ring::ring_io::{AttachError, FileError};
use buffer_ring::{BufferRing, BufferRingOptions, MAX_BUFFERS, OptionsError, QuikIO};
use common::{buffered_file, disk, options};

const MANUAL: BufferRingOptions =
    BufferRingOptions { capacity: 1, buffer_size: 4096, io_instance: None, auto_flush: true, auto_rotate: false };

fn refusal(options: BufferRingOptions) -> OptionsError {
    BufferRing::try_with_options(options).expect_err("options that make no ring")
}

#[test]
fn too_few_buffers_are_refused() {
    assert_eq!(refusal(options(0, 4096)), OptionsError::Capacity { given: 0, least: 2 });
    assert_eq!(refusal(options(1, 4096)), OptionsError::Capacity { given: 1, least: 2 });
    assert_eq!(refusal(BufferRingOptions { capacity: 0, ..MANUAL }), OptionsError::Capacity { given: 0, least: 1 });
    assert_eq!(refusal(BufferRingOptions::default()), OptionsError::Capacity { given: 0, least: 2 });
    assert_eq!(BufferRing::try_with_options(MANUAL).expect("one without rotation").tail(), 0);
    assert_eq!(BufferRing::try_with_options(options(2, 4096)).expect("two with").tail(), 0);
}

#[test]
fn too_many_buffers_are_refused() {
    for capacity in [MAX_BUFFERS + 1, usize::MAX] {
        assert_eq!(refusal(options(capacity, 4096)), OptionsError::TooManyBuffers(capacity));
    }
    let ring = BufferRing::try_with_options(options(MAX_BUFFERS, 4096)).expect("as many as there can be");
    assert_eq!(ring.append(b"record").map(|extent| extent.start()), Ok(0));
}

#[test]
fn a_buffer_that_is_no_whole_blocks_is_refused() {
    for size in [0, 1, 100, 512, 4095, 4097, (1 << 31) + 1, usize::MAX] {
        assert_eq!(refusal(options(2, size)), OptionsError::BufferSize(size));
    }
}

#[test]
fn a_buffer_above_two_gibibytes_is_refused_and_one_of_two_is_not() {
    for size in [(1 << 31) + 4096, 1 << 32, usize::MAX - 4095] {
        assert_eq!(refusal(options(2, size)), OptionsError::BufferTooLarge(size));
    }
    // Memory that no thread touches costs nothing.
    let ring = BufferRing::try_with_options(options(2, 1 << 31)).expect("the largest buffers");
    assert_eq!(ring.append(b"record").map(|extent| extent.end()), Ok(6));
}

#[test]
fn a_start_without_room_for_a_buffer_is_refused() {
    const LAST: u64 = (1 << 60) - 4096;
    let dir = disk();
    let file = Arc::new(buffered_file(&dir.path().join("log")));
    for (start, size) in [(LAST - 4096, 8192), (LAST, 4096), (1 << 62, 4096), (u64::MAX - 4095, 4096)] {
        let io = Arc::new(QuikIO::builder(Arc::clone(&file)).start_at(start).build().expect("a multiple of 4096"));
        let error = refusal(BufferRingOptions { io_instance: Some(io), ..options(2, size) });
        assert_eq!(error, OptionsError::Start { start });
    }
    let io = Arc::new(QuikIO::builder(file).start_at(LAST - 8192).build().expect("a multiple of 4096"));
    let ring = BufferRing::try_with_options(BufferRingOptions { io_instance: Some(io), ..options(2, 8192) });
    assert_eq!(ring.expect("room for one buffer").tail(), LAST - 8192);
}

/// `QuikIO::new` takes the file, and the ring refuses it, as often as it is tried.
fn assert_unfit(file: impl Into<Arc<File>>, expected: FileError) {
    let io = Arc::new(QuikIO::new(file));
    for _ in 0..2 {
        let error = refusal(BufferRingOptions { io_instance: Some(Arc::clone(&io)), ..options(2, 4096) });
        assert_eq!(error, OptionsError::Device(AttachError::File(expected.clone())));
        assert_eq!(error.to_string(), expected.to_string());
    }
}

#[test]
fn a_file_that_cannot_hold_a_log_is_refused() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, b"content").expect("a file");
    assert_unfit(File::open(&path).expect("the file"), FileError::NotWritable);
    assert_unfit(File::open(dir.path()).expect("the folder"), FileError::Directory);
    assert_unfit(OpenOptions::new().append(true).open(&path).expect("the file"), FileError::Append);
    let (_reader, writer) = io::pipe().expect("a pipe");
    assert_unfit(File::from(OwnedFd::from(writer)), FileError::NotRegular("pipe"));
    assert_eq!(fs::read(&path).expect("the file"), b"content");
}

#[test]
fn a_second_ring_on_one_quik_io_is_refused_until_the_first_is_gone() {
    let dir = disk();
    let path = dir.path().join("log");
    let io = Arc::new(QuikIO::new(buffered_file(&path)));
    let on_io = || BufferRingOptions { io_instance: Some(Arc::clone(&io)), ..options(2, 4096) };
    let first = BufferRing::with_options(on_io());
    assert_eq!(refusal(on_io()), OptionsError::Device(AttachError::Busy));
    first.append(b"first").expect("the refusal did no harm");
    let ticket = first.flush(&common::current(&first));
    drop(first);
    // A ticket of a ring that is gone keeps nothing busy.
    let second = BufferRing::try_with_options(on_io()).expect("the first ring is gone");
    assert_eq!(second.append(b"second").map(|extent| extent.start()), Ok(4096));
    assert_eq!(second.close(), Ok(8192));
    assert_eq!(ticket.wait(), Ok(()));
    let third = BufferRing::try_with_options(on_io()).expect("the second ring is gone");
    assert_eq!(third.tail(), 8192);
}

#[test]
fn options_refused_for_a_size_leave_the_quik_io_free() {
    let (io, _device) = QuikIO::in_memory();
    let io = Arc::new(io);
    let on_io = |capacity| BufferRingOptions { io_instance: Some(Arc::clone(&io)), ..options(capacity, 4096) };
    assert_eq!(refusal(on_io(1)), OptionsError::Capacity { given: 1, least: 2 });
    assert_eq!(BufferRing::try_with_options(on_io(2)).expect("no thread has it").tail(), 0);
}

#[test]
#[should_panic(expected = "capacity 1 is below 2, the least that works with auto_rotate = true")]
fn with_options_panics_with_the_sentence_for_the_capacity() {
    let _ = BufferRing::with_options(options(1, 4096));
}

#[test]
#[should_panic(expected = "buffer_size 100 is not a positive multiple of 4096")]
fn with_options_panics_with_the_sentence_for_the_buffer_size() {
    let _ = BufferRing::with_options(options(2, 100));
}

#[test]
#[should_panic(expected = "buffer_size 2147487744 is above 2 GiB")]
fn with_options_panics_with_the_sentence_for_a_huge_buffer() {
    let _ = BufferRing::with_options(options(2, (1 << 31) + 4096));
}

#[test]
#[should_panic(expected = "the file is not open for writing")]
fn with_options_panics_with_the_sentence_for_the_file() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, b"content").expect("a file");
    let file = File::open(&path).expect("the file");
    let _ = common::ring_on(QuikIO::new(file), options(2, 4096));
}
