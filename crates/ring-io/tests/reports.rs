//! What a `QuikIO` and its queue say of themselves.

mod common;

use std::fs;
use std::sync::Arc;

use common::{attach, bytes, disk, drain, open};
use ring_alloc::BLOCK;
use ring_io::{EngineKind, FileError, QuikIO};
use rustix::fs::OFlags;

#[test]
fn a_quik_io_and_its_queue_print_what_they_are_and_do() {
    let device = QuikIO::in_memory().1;
    let io = Arc::new(device.builder().start_at(BLOCK as u64).build().expect("no obstacle"));
    let printed = format!("{io:?}");
    assert!(printed.starts_with("QuikIO { engine: memory, files: One(Segment {"), "{printed}");
    assert!(printed.ends_with("start_at: Some(4096), write_mode: TailLocalized, attached: false, .. }"), "{printed}");
    let queue = attach(&io);
    let printed = format!("{queue:?}");
    assert!(printed.starts_with("WriteQueue { in_flight: 0, waiting: 0, registered: Registered {"), "{printed}");
    assert!(printed.ends_with("attached: true, .. } }"), "{printed}");
}

#[test]
fn a_device_in_memory_is_not_direct_and_has_nothing_registered() {
    let (io, _device) = QuikIO::in_memory();
    assert!(!io.is_direct());
    let queue = attach(&Arc::new(io));
    let registered = queue.registered();
    assert_eq!((registered.buffers(), registered.file()), (false, false));
    assert_eq!(registered.reason(), Some("a device in memory has nothing to register with"));
}

#[test]
fn memory_takes_no_engine_of_files() {
    let device = QuikIO::in_memory().1;
    for kind in [EngineKind::IoUring, EngineKind::Positioned] {
        let refused = FileError::EngineUnavailable { kind, reason: "there is no file, only memory".to_owned() };
        assert_eq!(device.builder().engine(kind).build().expect_err("it has no file"), refused);
    }
    let io = device.builder().engine(EngineKind::Memory).build().expect("its own engine");
    assert_eq!(io.engine().kind(), EngineKind::Memory);
}

#[test]
fn the_length_of_a_file_is_its_own_and_not_that_of_the_log() {
    let dir = disk();
    let path = dir.path().join("log");
    for (len, log_end) in [(0, 0), (1, BLOCK), (BLOCK + 7, 2 * BLOCK)] {
        fs::write(&path, vec![7; len]).expect("a file");
        let io = QuikIO::new(open(&path, OFlags::empty()));
        assert_eq!((io.file_len(), io.log_end()), (Ok(len as u64), Ok(log_end as u64)));
    }
}

#[test]
fn a_second_queue_begins_behind_what_the_first_has_written_wherever_that_was_to_start() {
    let device = QuikIO::in_memory().1;
    let start = 3 * BLOCK as u64;
    let io = Arc::new(device.builder().start_at(start).build().expect("no obstacle"));
    assert_eq!(io.start(), Ok(start));
    for n in 0..3 {
        let queue = attach(&io);
        let begin = io.start().expect("a start");
        assert_eq!(begin, start + n * 2 * BLOCK as u64);
        queue.submit(n, bytes(n, BLOCK), begin);
        assert_eq!(queue.write_now(n, bytes(n, BLOCK), begin + BLOCK as u64).result, Ok(()));
        assert_eq!(drain(&queue)[0].result, Ok(()));
    }
}
