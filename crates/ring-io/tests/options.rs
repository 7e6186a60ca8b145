//! Options and the safe way to open a file go together.

mod common;

use core::error::Error;
use std::fs;
use std::io;
use std::sync::Arc;

use common::{buffers, bytes, disk, open};
use ring_alloc::{ArenaError, BLOCK};
use ring_io::{AttachError, DeviceError, EngineKind, FileError, OpenError, QuikIO, SegmentFault, Wait, WriteMode};
use ring_testing::{assert_no_repetition, chain};
use rustix::fs::OFlags;
use rustix::io::Errno;

#[test]
fn what_is_opened_with_options_has_them_and_is_locked() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, vec![1; 3 * BLOCK]).expect("a file");
    let options = QuikIO::options().start_at(BLOCK as u64).write_mode(WriteMode::Serialized);
    let options = options.engine(EngineKind::Positioned).prepare(0);
    let io = options.clone().open(&path).expect("nothing else writes to it");
    assert_eq!((io.start(), io.write_mode()), (Ok(BLOCK as u64), WriteMode::Serialized));
    assert_eq!(io.engine().kind(), EngineKind::Positioned);
    assert_eq!(options.clone().open(&path).unwrap_err().file_error(), Some(&FileError::Locked));
    drop(io);
    let file = Arc::new(open(&path, OFlags::empty()));
    for io in [options.file(Arc::clone(&file)), QuikIO::options().start_at(BLOCK as u64).file(file)] {
        assert_eq!(io.expect("a fit file").start(), Ok(BLOCK as u64));
    }
}

#[test]
fn options_that_cannot_be_leave_no_file_behind() {
    let dir = disk();
    let path = dir.path().join("log");
    let refused = [QuikIO::options().start_at(1).open(&path), QuikIO::options().engine(EngineKind::Memory).open(&path)];
    let [start, engine] = refused.map(|refused| refused.expect_err("it cannot be"));
    assert_eq!(start.file_error(), Some(&FileError::UnalignedStart(1)));
    assert!(matches!(engine.file_error(), Some(FileError::EngineUnavailable { kind: EngineKind::Memory, .. })));
    assert!(!path.exists());
}

#[test]
fn how_much_is_prepared_is_an_option_of_what_is_opened() {
    let dir = disk();
    for (prepare, prepares) in [(0, false), (1 << 20, true)] {
        let path = dir.path().join(format!("log{prepare}"));
        let io = Arc::new(QuikIO::options().prepare(prepare).open(&path).expect("a new file"));
        let (arena, _buffers) = buffers(1, BLOCK);
        let queue = io.attach(&arena).expect("the only queue");
        for block in 0..64 {
            assert_eq!(queue.write_durable_now(0, bytes(7, BLOCK), block * BLOCK as u64).result, Ok(()));
            queue.reap(Wait::No, &mut Vec::new());
        }
        let len = fs::metadata(&path).expect("the file").len();
        // Nothing is prepared where the file system never overwrites in place.
        assert!(len == 64 * BLOCK as u64 || prepares, "{len} bytes with {prepare} prepared");
    }
}

fn device_errors() -> [(DeviceError, Option<i32>); 2] {
    let (io, device) = QuikIO::in_memory();
    device.fail_write(0, Errno::NOSPC.raw_os_error());
    let io = Arc::new(io);
    let (arena, _buffers) = buffers(1, BLOCK);
    let queue = io.attach(&arena).expect("the only queue");
    let full = queue.write_durable_now(0, bytes(7, BLOCK), 0).result.expect_err("it fails");
    let (io, device) = QuikIO::in_memory();
    (0..1000).for_each(|write| device.shorten_write(write, 0));
    let queue = Arc::new(io).attach(&arena).expect("the only queue");
    let stuck = queue.write_durable_now(0, bytes(7, BLOCK), 0).result.expect_err("it takes nothing");
    [(full, Some(Errno::NOSPC.raw_os_error())), (stuck, None)]
}

/// The first error of the operating system among `error` and its sources.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    chain(error).into_iter().filter_map(|error| error.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error)
}

#[test]
fn every_error_is_an_io_error_of_its_kind() {
    use io::ErrorKind::{
        InvalidInput, IsADirectory, NotFound, OutOfMemory, PermissionDenied, ResourceBusy, StorageFull, Unsupported,
        WriteZero,
    };
    fn check<E: Into<io::Error> + Error + Clone + PartialEq + Send + Sync + 'static>(
        error: E,
        kind: io::ErrorKind,
    ) -> io::Error {
        let converted: io::Error = error.clone().into();
        assert_eq!((converted.kind(), converted.to_string()), (kind, error.to_string()), "{error:?}");
        let kept = converted.get_ref().and_then(|kept| kept.downcast_ref::<E>());
        assert_eq!(kept, Some(&error), "the error is kept");
        assert_no_repetition(&converted);
        converted
    }
    let [(full, no_space), (stuck, none)] = device_errors();
    assert_eq!(errno(&check(full, StorageFull)), no_space);
    assert_eq!(errno(&check(stuck, WriteZero)), none);

    let unavailable = FileError::EngineUnavailable { kind: EngineKind::IoUring, reason: "none".to_owned() };
    let files = [
        (FileError::NotWritable, PermissionDenied),
        (FileError::Directory, IsADirectory),
        (FileError::NotRegular("pipe"), Unsupported),
        (FileError::NoEnd, InvalidInput),
        (FileError::Append, InvalidInput),
        (FileError::Locked, ResourceBusy),
        (FileError::Attached, ResourceBusy),
        (FileError::InUse, ResourceBusy),
        (FileError::Forked, io::ErrorKind::Other),
        (FileError::UnalignedStart(1), InvalidInput),
        (FileError::CutBeyondEnd { at: 8192, end: 4096 }, InvalidInput),
        (FileError::Cut(Errno::NOSPC.raw_os_error()), StorageFull),
        (FileError::Cut(0), io::ErrorKind::Other),
        (FileError::Alignment { needed: 65536 }, Unsupported),
        (unavailable, Unsupported),
        (FileError::UnknownEngine("abacus".to_owned()), InvalidInput),
        (FileError::Segmented, Unsupported),
        (FileError::NotSegmented, Unsupported),
        (FileError::SegmentSize(1), InvalidInput),
        (FileError::Stat(Errno::NOMEM.raw_os_error()), OutOfMemory),
    ];
    for (error, kind) in files {
        check(AttachError::File(error.clone()), kind);
        check(error, kind);
    }
    let faults = [
        (SegmentFault::Missing, NotFound),
        (SegmentFault::There, io::ErrorKind::AlreadyExists),
        (SegmentFault::Removed, InvalidInput),
        (SegmentFault::InUse, ResourceBusy),
        (SegmentFault::Unsynced, ResourceBusy),
        (SegmentFault::Last, ResourceBusy),
        (SegmentFault::Short { len: 1, needed: 8192 }, InvalidInput),
        (SegmentFault::Device, Unsupported),
        (SegmentFault::Synced, Unsupported),
        (SegmentFault::Elsewhere, Unsupported),
        (SegmentFault::Beyond, InvalidInput),
    ];
    for (fault, kind) in faults {
        check(FileError::Segment { number: 7, fault }, kind);
    }
    check(AttachError::Busy, ResourceBusy);
    let open = |path: &str| -> OpenError { QuikIO::open(path).expect_err("it cannot hold a log") };
    check(open("/no/such/folder/log"), NotFound);
    check(open("/dev/null"), Unsupported);
    check(open("/"), IsADirectory);
    let arenas = [
        (ArenaError::NoBuffers, InvalidInput),
        (ArenaError::BufferSize(1), InvalidInput),
        (ArenaError::TooLarge { count: 2, buffer_size: usize::MAX & !4095 }, InvalidInput),
        (ArenaError::Map { bytes: 4096, errno: Errno::NOMEM.raw_os_error() }, OutOfMemory),
    ];
    for (error, kind) in arenas {
        check(error, kind);
    }
}
