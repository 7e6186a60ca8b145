//! A log over several files: where its bytes go, what waits for which segment, what a sync covers, and what is refused.

mod common;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use common::{Holding, O_DSYNC, attach, bytes, disk, drain, open, pattern, skipped};
use ring_alloc::BLOCK;
use ring_io::{
    AttachError, DeviceEvent, EngineKind, FileError, Finished, LogWrite, MemoryDevice, Operation, QuikIO,
    QuikIOOptions, SEGMENT_HEADER, SegmentFault, SegmentFile, Wait, WriteMode, WriteQueue,
};
use ring_testing::Child;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;

/// Bytes of the log in a segment.
const SIZE: u64 = 4 * STEP;
const STEP: u64 = BLOCK as u64;
const LEN: usize = (SEGMENT_HEADER + SIZE) as usize;

/// What the makers of these segments put into their headers.
const HEADER: [u8; BLOCK] = [0x5A; BLOCK];

/// Where the files of a log are made.
enum Place {
    Disk(TempDir),
    Memory(MemoryDevice),
}

impl Place {
    fn path(&self, number: u64) -> PathBuf {
        let Self::Disk(dir) = self else { panic!("a place on disk") };
        dir.path().join(number.to_string())
    }

    /// Makes a file for segment `number`, and opens it.
    fn segment(&self, number: u64) -> SegmentFile {
        match self {
            Self::Disk(_) => {
                let mut content = HEADER.to_vec();
                content.resize(LEN, 0);
                fs::write(self.path(number), content).expect("a file");
                open(&self.path(number), OFlags::DIRECT).into()
            }
            Self::Memory(device) => {
                let file = device.another_file(LEN);
                file.write_through(0, &HEADER);
                file.into()
            }
        }
    }

    fn segments(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, SegmentFile)> {
        numbers.into_iter().map(|number| (number, self.segment(number))).collect()
    }
}

/// All bytes of a segment, past the engine.
fn content(file: &SegmentFile, place: &Place, number: u64) -> Vec<u8> {
    match file {
        SegmentFile::Memory(device) => device.contents(),
        _ => fs::read(place.path(number)).expect("a file"),
    }
}

/// On each engine: a log that has these segments.
fn on_every_engine(numbers: &[u64], options: &QuikIOOptions, test: impl Fn(&Arc<QuikIO>, &Place)) {
    let device = MemoryDevice::new();
    let places = [
        (EngineKind::IoUring, Place::Disk(disk())),
        (EngineKind::Positioned, Place::Disk(disk())),
        (EngineKind::Memory, Place::Memory(device)),
    ];
    for (kind, place) in places {
        let options = options.clone().engine(kind);
        match options.segments(SIZE, place.segments(numbers.iter().copied())) {
            Ok(io) => {
                assert_eq!((io.engine().kind(), io.segment_size()), (kind, Some(SIZE)));
                test(&Arc::new(io), &place);
            }
            Err(error @ FileError::EngineUnavailable { .. }) => {
                assert!(!skipped("BUFFER_RING_REQUIRE_URING", &error.to_string()));
            }
            Err(error) => panic!("{kind}: {error}"),
        }
    }
}

/// A log in memory, and the handles of its segments.
fn in_memory(numbers: &[u64], options: QuikIOOptions) -> (Arc<QuikIO>, MemoryDevice, Vec<MemoryDevice>) {
    let device = MemoryDevice::new();
    let files: Vec<_> = numbers.iter().map(|_| device.another_file(LEN)).collect();
    let io = options.segments(SIZE, numbers.iter().copied().zip(files.clone())).expect("segments in memory");
    (Arc::new(io), device, files)
}

/// One block at `address`, and the next write at `next`.
fn write(token: u64, address: u64, next: u64) -> LogWrite {
    LogWrite { token, bytes: bytes(token, BLOCK), address, next, durable: false }
}

/// Write `token` is block `token` of the log.
fn submit(queue: &WriteQueue, token: u64) {
    queue.submit(token, bytes(token, BLOCK), token * STEP);
}

fn tokens(finished: &[Finished]) -> Vec<u64> {
    let mut tokens: Vec<_> = finished.iter().map(|write| write.token).collect();
    tokens.sort_unstable();
    tokens
}

fn all_ok(finished: &[Finished]) -> bool {
    finished.iter().all(|write| write.result.is_ok())
}

fn fault(number: u64, fault: SegmentFault) -> FileError {
    FileError::Segment { number, fault }
}

fn removed(io: &QuikIO, number: u64) -> Result<Vec<u64>, FileError> {
    Ok(io.remove_segments_before(number)?.into_iter().map(|(number, _)| number).collect())
}

#[test]
fn each_byte_lies_in_its_segment_behind_the_header_and_a_read_goes_through_all_of_them() {
    on_every_engine(&[5, 6, 7], &QuikIO::options(), |io, place| {
        assert_eq!(io.start(), Ok(5 * SIZE));
        let queue = attach(io);
        for token in 20..31 {
            submit(&queue, token);
        }
        let last = queue.write_now(31, bytes(31, BLOCK), 31 * STEP);
        assert_eq!(last.result.unwrap_err().missing_segment(), Some(8), "where the log would go on");
        let finished = drain(&queue);
        assert!(all_ok(&finished) && tokens(&finished) == (20..31).collect::<Vec<_>>());
        let mut log: Vec<_> = (20..31).flat_map(|token| pattern(token, BLOCK)).collect();
        log.resize(3 * SIZE as usize, 0);
        let mut read = vec![0xEE; log.len() + BLOCK];
        assert_eq!(io.read_at(5 * SIZE, &mut read), Ok(log.len()), "up to the segment that is missing");
        assert!(read[..log.len()] == log && read[log.len()..] == [0xEE; BLOCK]);
        let (from, len) = (SIZE - 10, SIZE as usize + 20);
        assert_eq!(io.read_at(5 * SIZE + from, &mut read[..len]), Ok(len));
        assert!(read[..len] == log[from as usize..][..len]);
        assert_eq!(io.sync(), Ok(()));
        drop(queue);
        io.add_segment(8, place.segment(8)).expect("the next one");
        for (number, file) in io.remove_segments_before(8).expect("nothing is in them") {
            let part = &log[(number - 5) as usize * SIZE as usize..][..SIZE as usize];
            assert!(content(&file, place, number) == [&HEADER, part].concat(), "segment {number}");
        }
    });
}

#[test]
fn a_read_that_begins_where_no_segment_is_names_it_and_is_not_the_end_of_the_file() {
    on_every_engine(&[1, 3], &QuikIO::options(), |io, _| {
        let mut buf = [0; 2 * BLOCK];
        assert_eq!(io.read_at(2 * SIZE - STEP, &mut buf), Ok(BLOCK), "what is there");
        for (address, missing) in [(0, 0), (2 * SIZE, 2), (4 * SIZE, 4), (3 * SIZE - 1, 2)] {
            let error = io.read_at(address, &mut buf).expect_err("nothing is there");
            assert_eq!((error.missing_segment(), error.operation()), (Some(missing), Operation::Read));
            assert_eq!((error.errno(), error.kind()), (None, std::io::ErrorKind::NotFound));
        }
        assert_eq!(io.read_at(SIZE, &mut []), Ok(0));
        assert!(io.read_at(0, &mut []).is_err());
    });
}

#[test]
fn a_segment_that_another_program_has_cut_ends_a_read() {
    let place = Place::Disk(disk());
    let io = QuikIO::options().segments(SIZE, place.segments(0..2)).expect("two segments");
    let file = open(&place.path(0), OFlags::empty());
    file.set_len(SEGMENT_HEADER + STEP).expect("a file");
    let mut buf = vec![0; 2 * SIZE as usize];
    assert_eq!(io.read_at(0, &mut buf), Ok(BLOCK), "what follows would not be what follows in the log");
    assert_eq!(io.read_at(STEP, &mut buf), Ok(0));
}

#[test]
fn the_last_write_of_a_segment_waits_until_the_next_one_is_there() {
    on_every_engine(&[0], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        let mut finished = Vec::new();
        queue.submit_write(write(0, 0, STEP));
        queue.submit_write(write(1, STEP, SIZE));
        assert_eq!(queue.in_flight(), 2);
        queue.reap(Wait::Until(None), &mut finished);
        assert_eq!((tokens(&finished), queue.in_flight()), (vec![0], 1));
        queue.reap(Wait::No, &mut finished);
        let soon = Instant::now() + Duration::from_millis(5);
        queue.reap(Wait::Until(Some(soon)), &mut finished);
        assert!(Instant::now() >= soon, "it is waited for");
        queue.interrupt();
        queue.reap(Wait::Until(None), &mut finished);
        assert_eq!((finished.len(), queue.in_flight(), queue.waiting()), (1, 1, 0));
        assert_eq!(io.read_at(STEP, &mut [0; 1]), Ok(1));
        io.add_segment(1, place.segment(1)).expect("the next one");
        queue.reap(Wait::Until(None), &mut finished);
        assert!(all_ok(&finished) && tokens(&finished) == [0, 1] && queue.in_flight() == 0);
        let mut read = vec![0; BLOCK];
        assert_eq!(io.read_at(STEP, &mut read), Ok(BLOCK));
        assert!(read == pattern(1, BLOCK));
    });
}

#[test]
fn a_thread_that_waits_at_the_device_gets_what_a_new_segment_lets_go() {
    on_every_engine(&[0], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        queue.submit_write(write(7, 0, SIZE));
        thread::scope(|scope| {
            let reaper = scope.spawn(|| drain(&queue));
            thread::sleep(Duration::from_millis(5));
            // What others submit meanwhile is not held up.
            let now = queue.write_or_submit(write(8, STEP, 2 * STEP)).expect("its segment is there");
            assert_eq!(now.result, Ok(()));
            io.add_segment(1, place.segment(1)).expect("the next one");
            assert_eq!(tokens(&reaper.join().expect("no panic")), [7]);
        });
    });
}

#[test]
fn every_write_that_waits_for_a_segment_goes_out_with_it_and_no_other() {
    on_every_engine(&[0], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        // The last of segment 0, all of segment 1 whose last waits for segment 2, and the first of segment 2.
        (3..9).for_each(|token| submit(&queue, token));
        assert_eq!(queue.in_flight(), 6);
        let mut finished = Vec::new();
        for (number, expected) in [(2, vec![8]), (1, vec![3, 4, 5, 6, 7, 8])] {
            io.add_segment(number, place.segment(number)).expect("a new one");
            while finished.len() < expected.len() {
                queue.reap(Wait::Until(None), &mut finished);
            }
            queue.reap(Wait::No, &mut finished);
            assert!(all_ok(&finished));
            assert_eq!(tokens(&finished), expected);
        }
        assert_eq!(queue.in_flight(), 0);
    });
}

#[test]
fn a_durable_write_is_durable_by_itself_and_makes_no_other_file_so() {
    let (io, device, files) = in_memory(&[0, 1], QuikIO::options());
    let queue = attach(&io);
    submit(&queue, 1);
    assert_eq!(drain(&queue)[0].result, Ok(()));
    let durable = queue.write_or_submit(LogWrite { durable: true, ..write(4, 4 * STEP, 5 * STEP) });
    assert!(durable.is_some_and(|write| write.durable));
    assert!(files[1].synced()[BLOCK..2 * BLOCK] == pattern(4, BLOCK));
    assert!(files[0].synced() == vec![0; LEN] && files[0].contents()[2 * BLOCK..3 * BLOCK] == pattern(1, BLOCK));
    assert_eq!((device.syncs(), device.durable_writes()), (0, vec![(4 * STEP, BLOCK)]));
    // It waits like any other, and is durable then.
    queue.submit_write(LogWrite { durable: true, ..write(7, 7 * STEP, 8 * STEP) });
    io.add_segment(2, device.another_file(LEN)).expect("the next one");
    assert!(drain(&queue)[0].durable);
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::Unsynced)), "its own write was not durable");
    assert_eq!(io.sync(), Ok(()));
    assert_eq!((device.syncs(), removed(&io, 2)), (1, Ok(vec![0, 1])), "segment 1 needed none");
}

#[test]
fn what_a_serialized_log_skips_counts_as_written() {
    let (io, device, _) = in_memory(&[0, 1], QuikIO::options().write_mode(WriteMode::Serialized));
    let queue = attach(&io);
    // The last one first; the rest of segment 0 is skipped.
    for (token, address, next) in [(2, SIZE, SIZE + STEP), (1, STEP, SIZE), (0, 0, STEP)] {
        queue.submit_write(write(token, address, next));
    }
    let finished = drain(&queue);
    assert!(all_ok(&finished) && queue.waiting() == 0);
    assert_eq!(device.writes(), [(0, BLOCK), (STEP, BLOCK), (SIZE, BLOCK)]);
    let now = queue.write_or_submit(write(3, SIZE + STEP, SIZE + 3 * STEP)).expect("its segment is there");
    assert_eq!(now.result, Ok(()));
    drop(queue);
    assert_eq!(io.start(), Ok(SIZE + 3 * STEP), "where the log goes on");
}

#[test]
fn a_plain_file_may_skip_as_well() {
    let device = MemoryDevice::new();
    let io = Arc::new(device.builder().write_mode(WriteMode::Serialized).build().expect("no obstacle"));
    let queue = attach(&io);
    queue.submit_write(write(1, 4 * STEP, 5 * STEP));
    queue.submit_write(write(0, 0, 4 * STEP));
    assert!(all_ok(&drain(&queue)));
    assert_eq!(device.writes(), [(0, BLOCK), (4 * STEP, BLOCK)]);
    assert_eq!(queue.write_or_submit(write(2, 5 * STEP, 9 * STEP)).map(|write| write.result), Some(Ok(())));
    drop(queue);
    assert_eq!(io.segment_size(), None);
}

#[test]
fn in_a_serialized_log_what_waits_for_a_segment_holds_up_all_that_is_behind_it() {
    let (io, device, _) = in_memory(&[0], QuikIO::options().write_mode(WriteMode::Serialized));
    let queue = attach(&io);
    queue.submit_write(write(1, SIZE, SIZE + STEP));
    assert!(queue.write_or_submit(write(0, 0, SIZE)).is_none(), "it waits for segment 1");
    assert_eq!((queue.in_flight(), queue.waiting(), device.writes()), (1, 1, vec![]));
    io.add_segment(1, device.another_file(LEN)).expect("the next one");
    assert!(all_ok(&drain(&queue)));
    assert_eq!(device.writes(), [(0, BLOCK), (SIZE, BLOCK)]);
}

#[test]
fn a_write_in_the_own_thread_that_would_have_to_wait_is_submitted_or_refused_as_was_asked() {
    on_every_engine(&[0], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        let refused = [
            queue.write_now(1, bytes(1, BLOCK), 3 * STEP),
            queue.write_durable_now(2, bytes(2, BLOCK), 3 * STEP),
            queue.write_now(3, bytes(3, BLOCK), SIZE),
        ];
        for write in refused {
            let error = write.result.expect_err("segment 1 is missing");
            assert_eq!((error.missing_segment(), error.operation(), write.durable), (Some(1), Operation::Write, false));
            assert!(write.bytes[..] == pattern(write.token, BLOCK), "it comes back with its bytes");
        }
        assert_eq!(queue.in_flight(), 0);
        assert!(queue.write_or_submit(write(4, 3 * STEP, SIZE)).is_none());
        assert_eq!(queue.in_flight(), 1);
        io.add_segment(1, place.segment(1)).expect("the next one");
        let finished = drain(&queue);
        assert!(all_ok(&finished) && tokens(&finished) == [4], "the refusals were no failures");
        assert_eq!(queue.write_now(1, bytes(1, BLOCK), 3 * STEP).result, Ok(()));
    });
}

#[test]
fn a_write_from_one_segment_into_the_next_comes_back_and_changes_no_file() {
    for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
        let (io, device, _) = in_memory(&[0, 1], QuikIO::options().write_mode(mode).start_at(3 * STEP));
        let queue = attach(&io);
        let crossing = |token| LogWrite {
            token,
            bytes: bytes(token, 2 * BLOCK),
            address: 3 * STEP,
            next: 5 * STEP,
            durable: false,
        };
        queue.submit_write(crossing(1));
        let mut finished = drain(&queue);
        drop(queue);
        let queue = attach(&io);
        if mode == WriteMode::TailLocalized {
            queue.submit_write(write(3, 6 * STEP, 2 * SIZE));
        }
        finished.extend(queue.write_or_submit(crossing(2)));
        assert_eq!((tokens(&finished), device.writes()), (vec![1, 2], vec![]));
        // It leaves a hole, like a write that fails.
        queue.submit_write(write(4, 5 * STEP, 2 * SIZE));
        for write in drain(&queue) {
            assert_eq!(write.result.expect_err("it is behind").behind(), Some(3 * STEP..5 * STEP));
        }
        for write in finished {
            let error = write.result.expect_err("it crosses a boundary");
            assert_eq!((error.kind(), error.range()), (std::io::ErrorKind::InvalidInput, 3 * STEP..5 * STEP));
            assert_eq!((error.errno(), error.missing_segment()), (None, None));
            assert!(write.bytes[..] == pattern(write.token, 2 * BLOCK));
            assert!(error.to_string().contains(&SIZE.to_string()), "{error}");
        }
    }
}

#[test]
#[should_panic(expected = "and then 0")]
fn a_log_does_not_go_back() {
    let (io, _device, _) = in_memory(&[0], QuikIO::options());
    attach(&io).submit_write(write(0, STEP, 0));
}

#[test]
#[should_panic(expected = "and then 4097")]
fn a_log_goes_on_at_whole_blocks() {
    let (io, _device, _) = in_memory(&[0], QuikIO::options());
    attach(&io).submit_write(write(0, 0, STEP + 1));
}

/// At each sync that begins: which of the files have all that was written to them on stable storage.
fn record_syncs(device: &MemoryDevice, files: &[MemoryDevice]) -> Arc<Mutex<Vec<Vec<bool>>>> {
    let states = Arc::new(Mutex::new(Vec::new()));
    let (record, files) = (Arc::clone(&states), files.to_vec());
    device.watch(move |event| {
        if let DeviceEvent::SyncBegan { .. } = event {
            let state = files.iter().map(|file| file.synced() == file.contents()).collect();
            record.lock().expect("no panic").push(state);
        }
    });
    states
}

#[test]
fn a_sync_takes_the_files_that_need_it_one_after_the_other_in_order() {
    for submitted in [false, true] {
        let (io, device, files) = in_memory(&[0, 1, 2, 3], QuikIO::options());
        let queue = attach(&io);
        let states = record_syncs(&device, &files);
        let sync = || {
            if !submitted {
                return io.sync();
            }
            queue.submit_sync().expect("no failure so far");
            assert_eq!(queue.in_flight(), 1, "it is one, whatever it covers");
            queue.reap(Wait::Until(None), &mut Vec::new()).expect("its outcome")
        };
        for token in [13, 4, 5, 1] {
            submit(&queue, token);
        }
        assert!(all_ok(&drain(&queue)));
        assert_eq!((sync(), queue.in_flight()), (Ok(()), 0));
        let expected = [[false, false, true, false], [true, false, true, false], [true, true, true, false]];
        assert_eq!(*states.lock().expect("no panic"), expected);
        assert!(files.iter().all(|file| file.synced() == file.contents()));

        submit(&queue, 9);
        assert!(all_ok(&drain(&queue)));
        assert_eq!((sync(), device.syncs()), (Ok(()), 4), "only what no sync covers yet");
        assert_eq!((sync(), device.syncs()), (Ok(()), 5), "with nothing to cover the device is asked nevertheless");
        assert!(files.iter().all(|file| file.synced() == file.contents()));
        assert_eq!([0, 1, 2, 3].map(|file| files[file].file_syncs()), [vec![0], vec![1], vec![3], vec![2, 4]]);
        assert_eq!((removed(&io, 3), device.file_syncs()), (Ok(vec![0, 1, 2]), vec![]));
        // It has files of the device that it watches.
        device.watch(|_| ());
    }
}

#[test]
fn a_submitted_sync_of_several_files_goes_on_when_each_has_been_synced() {
    on_every_engine(&[0, 1, 2], &QuikIO::options(), |io, _| {
        let queue = attach(io);
        for token in [0, 4, 8] {
            submit(&queue, token);
        }
        assert!(all_ok(&drain(&queue)));
        assert_eq!(removed(io, 1), Err(fault(0, SegmentFault::Unsynced)));
        queue.submit_sync().expect("no failure so far");
        assert_eq!(queue.reap(Wait::Until(None), &mut Vec::new()), Some(Ok(())));
        assert_eq!(removed(io, 2), Ok(vec![0, 1]), "both are covered");
        assert_eq!(io.sync(), Ok(()));
    });
}

#[test]
fn a_sync_covers_no_write_that_comes_back_after_it_has_begun() {
    let (io, device, files) = in_memory(&[0, 1, 2], QuikIO::options());
    let queue = Arc::new(attach(&io));
    submit(&queue, 0);
    assert!(all_ok(&drain(&queue)));
    let other = Arc::downgrade(&queue);
    device.watch(move |event| {
        if let (DeviceEvent::SyncBegan { sync: 0 }, Some(queue)) = (event, other.upgrade()) {
            for token in [1, 4] {
                assert_eq!(queue.write_now(token, bytes(token, BLOCK), token * STEP).result, Ok(()));
            }
        }
    });
    assert_eq!((io.sync(), device.syncs()), (Ok(()), 1), "segment 1 had nothing to sync when it began");
    assert!(files[1].synced() != files[1].contents());
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::Unsynced)));
    assert_eq!(removed(&io, 2), Err(fault(0, SegmentFault::Unsynced)));
    assert_eq!((io.sync(), device.syncs()), (Ok(()), 3));
    assert_eq!(removed(&io, 2), Ok(vec![0, 1]));
}

#[test]
fn the_first_file_that_cannot_be_synced_ends_the_sync_for_good() {
    for submitted in [false, true] {
        let (io, device, files) = in_memory(&[0, 1, 2], QuikIO::options());
        let queue = attach(&io);
        for token in [0, 4, 8] {
            submit(&queue, token);
        }
        assert!(all_ok(&drain(&queue)));
        // It waits for segment 3.
        submit(&queue, 11);
        let remote = device.clone();
        device.watch(move |event| {
            if event == (DeviceEvent::SyncBegan { sync: 1 }) {
                remote.fail_sync(Errno::IO.raw_os_error());
            }
        });
        let outcome = if submitted {
            queue.submit_sync().expect("no failure so far");
            queue.reap(Wait::Until(None), &mut Vec::new()).expect("its outcome")
        } else {
            io.sync()
        };
        device.watch(|_| ());
        let failure = outcome.expect_err("the second file fails");
        assert_eq!((failure.errno(), failure.operation()), (Some(Errno::IO.raw_os_error()), Operation::Sync));
        let is_synced = |file: &MemoryDevice| file.synced() == file.contents();
        assert_eq!(files.iter().map(is_synced).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(device.syncs(), 2, "the third file was not synced");

        // No later one is a success, and none is tried.
        assert_eq!((io.sync(), queue.submit_sync()), (Err(failure.clone()), Err(failure.clone())));
        assert_eq!(device.syncs(), 2);
        assert_eq!(removed(&io, 1), Ok(vec![0]));
        assert_eq!(removed(&io, 2), Err(fault(1, SegmentFault::Unsynced)));

        // Nothing goes on behind what may be lost: neither what waits, nor what would have to.
        submit(&queue, 15);
        let given_back = drain(&queue);
        assert_eq!(tokens(&given_back), [11, 15]);
        for write in given_back {
            let error = write.result.expect_err("untried");
            assert_eq!((error.operation(), error.errno()), (Operation::Write, failure.errno()));
            assert_eq!(error.behind(), Some(0..u64::MAX));
            assert!(error.to_string().contains("was not tried: a sync before it failed (errno 5)"), "{error}");
        }
        for number in [3, 4] {
            io.add_segment(number, device.another_file(LEN)).expect("a segment may come nevertheless");
        }
        assert_eq!((queue.in_flight(), device.writes().len()), (0, 3));
        drop(queue);
        let queue = attach(&io);
        submit(&queue, 19);
        let error = drain(&queue).remove(0).result.expect_err("the failure is that of the file");
        assert_eq!(error.behind(), Some(0..u64::MAX));
    }
}

#[test]
fn a_write_that_fails_gives_back_what_waits_for_a_segment_in_either_mode() {
    for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
        for own_thread in [false, true] {
            let (io, device, _) = in_memory(&[0], QuikIO::options().write_mode(mode));
            let queue = attach(&io);
            device.fail_write(0, Errno::NOSPC.raw_os_error());
            if mode == WriteMode::TailLocalized {
                queue.submit_write(write(1, STEP, SIZE));
            }
            let mut finished = Vec::new();
            if own_thread {
                finished.extend(queue.write_or_submit(write(0, 0, STEP)));
            } else {
                queue.submit_write(write(0, 0, STEP));
            }
            finished.extend(drain(&queue));
            if mode == WriteMode::Serialized {
                queue.submit_write(write(1, STEP, SIZE));
                finished.extend(drain(&queue));
            }
            assert_eq!(tokens(&finished), [0, 1]);
            for write in finished {
                let error = write.result.expect_err("it failed, or was not tried");
                let behind = (write.token == 1).then_some(0..STEP);
                assert_eq!((error.errno(), error.behind()), (Some(Errno::NOSPC.raw_os_error()), behind));
            }
            io.add_segment(1, device.another_file(LEN)).expect("a segment may come nevertheless");
            assert_eq!((queue.in_flight(), queue.waiting(), device.writes().len()), (0, 0, 1));
        }
    }
}

#[test]
fn a_serialized_log_gives_back_all_that_is_behind_what_waited_for_a_segment_in_vain() {
    let (io, device, _) = in_memory(&[0], QuikIO::options().write_mode(WriteMode::Serialized));
    let queue = attach(&io);
    queue.submit_write(write(0, 0, SIZE));
    queue.submit_write(write(1, SIZE, SIZE + STEP));
    device.fail_sync(Errno::IO.raw_os_error());
    assert!(io.sync().is_err());
    let finished = drain(&queue);
    assert_eq!((tokens(&finished), queue.waiting(), device.writes()), (vec![0, 1], 0, vec![]));
    assert!(finished.iter().all(|write| write.result.is_err()));
}

#[test]
fn a_thread_that_waits_for_a_segment_gets_a_write_that_crosses_a_boundary_at_once() {
    on_every_engine(&[0, 1], &QuikIO::options(), |io, _| {
        let queue = attach(io);
        queue.submit_write(write(7, 0, 2 * SIZE));
        thread::scope(|scope| {
            let reaper = scope.spawn(|| drain(&queue));
            thread::sleep(Duration::from_millis(5));
            queue.submit(8, bytes(8, 2 * BLOCK), 3 * STEP);
            assert_eq!(tokens(&reaper.join().expect("no panic")), [7, 8]);
        });
    });
}

#[test]
fn a_thread_that_waits_for_a_segment_gets_what_a_failed_sync_gives_back() {
    let (io, device, _) = in_memory(&[0], QuikIO::options());
    let queue = attach(&io);
    queue.submit_write(write(7, 0, SIZE));
    thread::scope(|scope| {
        let reaper = scope.spawn(|| drain(&queue));
        thread::sleep(Duration::from_millis(5));
        device.fail_sync(Errno::IO.raw_os_error());
        assert!(io.sync().is_err());
        assert_eq!(tokens(&reaper.join().expect("no panic")), [7]);
    });
}

#[test]
fn dropping_the_queue_drops_what_waits_for_a_segment_and_the_next_one_begins_anew() {
    for mode in [WriteMode::TailLocalized, WriteMode::Serialized] {
        on_every_engine(&[0], &QuikIO::options().write_mode(mode), |io, place| {
            let queue = attach(io);
            let waiting = write(1, STEP, SIZE);
            let arena = Arc::clone(waiting.bytes.arena());
            queue.submit_write(waiting);
            queue.submit_write(write(0, 0, STEP));
            queue.submit_write(write(2, SIZE, SIZE + STEP));
            drop(queue);
            assert_eq!(Arc::strong_count(&arena), 1, "its memory is free");
            let refused = io.attach(&arena).expect_err("the log would go on in segment 1");
            assert_eq!(refused, AttachError::File(fault(1, SegmentFault::Missing)));
            io.add_segment(1, place.segment(1)).expect("the next one");
            let queue = attach(io);
            assert_eq!(queue.in_flight(), 0);
            let address = io.start().expect("segment 1");
            queue.submit_write(write(3, address, 2 * SIZE));
            assert_eq!(queue.in_flight(), 1, "it waits, and is not given back for what the first queue left");
            io.add_segment(2, place.segment(2)).expect("the next one");
            let finished = drain(&queue);
            assert!(all_ok(&finished) && tokens(&finished) == [3]);
        });
    }
}

#[test]
fn a_segment_is_kept_as_long_as_a_write_or_a_sync_needs_it() {
    let (io, device, _) = in_memory(&[0, 1], QuikIO::options());
    let queue = attach(&io);
    let holding = Holding::new(&device);
    submit(&queue, 1);
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::InUse)));
    device.release(0);
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::InUse)), "it has not been reaped");
    assert!(all_ok(&drain(&queue)));
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::Unsynced)));
    queue.submit_sync().expect("no failure so far");
    assert_eq!(removed(&io, 1), Err(fault(0, SegmentFault::InUse)));
    drop(holding);
    assert_eq!(queue.reap(Wait::Until(None), &mut Vec::new()), Some(Ok(())));
    // One with nothing to cover takes the last of them.
    let holding = Holding::new(&device);
    queue.submit_sync().expect("no failure so far");
    io.add_segment(2, device.another_file(LEN)).expect("the next one");
    assert_eq!((removed(&io, 1), removed(&io, 2)), (Ok(vec![0]), Err(fault(1, SegmentFault::InUse))));
    drop(holding);
    assert_eq!(queue.reap(Wait::Until(None), &mut Vec::new()), Some(Ok(())));
    assert_eq!(removed(&io, 3), Err(fault(2, SegmentFault::Last)));
    assert_eq!((removed(&io, 0), removed(&io, 2), removed(&io, 2)), (Ok(vec![]), Ok(vec![1]), Ok(vec![])));

    // A write that waits for its own segment, below the one to keep.
    io.add_segment(4, device.another_file(LEN)).expect("a later one");
    submit(&queue, 13);
    assert_eq!(removed(&io, 4), Err(fault(3, SegmentFault::InUse)));
    assert_eq!(removed(&io, 3), Ok(vec![2]));
    io.add_segment(3, device.another_file(LEN)).expect("the one between");
    assert!(all_ok(&drain(&queue)));
}

#[test]
fn what_was_removed_is_unlocked_and_returned_and_the_log_does_not_go_back_to_it() {
    let place = Place::Disk(disk());
    let files: Vec<_> = place.segments(0..3);
    for kind in [EngineKind::IoUring, EngineKind::Positioned] {
        let Ok(io) = QuikIO::options().engine(kind).segments(SIZE, files.clone()) else { continue };
        let io = Arc::new(io);
        let is_locked = |number| {
            let other = open(&place.path(number), OFlags::empty());
            rustix::fs::flock(other, FlockOperation::NonBlockingLockExclusive).is_err()
        };
        assert_eq!([0, 1, 2].map(is_locked), [true; 3]);
        let queue = attach(&io);
        let removed = io.remove_segments_before(2).expect("nothing is in them");
        assert_eq!([0, 1, 2].map(is_locked), [false, false, true]);
        for (number, file) in removed {
            let SegmentFile::File(file) = file else { panic!("a file") };
            let of = |file: std::io::Result<fs::Metadata>| file.expect("a file").ino();
            assert_eq!(of(file.metadata()), of(fs::metadata(place.path(number))));
        }
        assert_eq!(io.add_segment(1, files[1].1.clone()), Err(fault(1, SegmentFault::Removed)));
        submit(&queue, 4);
        let [submitted] = &drain(&queue)[..] else { panic!("one write") };
        let here = queue.write_or_submit(write(5, 5 * STEP, 6 * STEP)).expect("it would wait for ever");
        for write in [submitted, &here] {
            assert_eq!(write.result.as_ref().unwrap_err().missing_segment(), Some(1));
            assert!(write.bytes[..] == pattern(write.token, BLOCK));
        }
        assert_eq!(io.read_at(SIZE, &mut [0; 1]).unwrap_err().missing_segment(), Some(1));
        assert_eq!((io.read_at(2 * SIZE, &mut [0; 1]), io.start()), (Ok(1), Ok(2 * SIZE)));
        drop(queue);
        drop(io);
        assert_eq!([0, 1, 2].map(is_locked), [false; 3]);
    }
}

#[test]
fn a_log_of_many_segments_is_written_while_they_come_and_go() {
    const SEGMENTS: u64 = 50;
    for kept in [1, 3, SEGMENTS] {
        on_every_engine(&[0], &QuikIO::options(), |io, place| {
            let queue = attach(io);
            for number in 0..SEGMENTS {
                let (first, last) = (4 * number, 4 * number + 3);
                // The last one first, which waits.
                (first..=last).rev().for_each(|token| submit(&queue, token));
                io.add_segment(number + 1, place.segment(number + 1)).expect("the next one");
                assert!(all_ok(&drain(&queue)));
                let mut read = vec![0; SIZE as usize];
                assert_eq!(io.read_at(number * SIZE, &mut read), Ok(read.len()));
                let expected: Vec<_> = (first..=last).flat_map(|token| pattern(token, BLOCK)).collect();
                assert!(read == expected, "segment {number}");
                assert_eq!(io.sync(), Ok(()));
                if let Some(before) = (number + 1).checked_sub(kept) {
                    let files = io.remove_segments_before(before).expect("they are synced");
                    assert!(files.len() <= 1);
                }
            }
        });
    }
}

/// Writers in any order, while one thread brings segments, syncs, and takes away what is written.
#[test]
fn threads_write_what_comes_and_goes_meanwhile() {
    const SEGMENTS: u64 = 24;
    const THREADS: u64 = 4;
    const EACH: u64 = SIZE / STEP;
    on_every_engine(&[0], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        let written: [AtomicU64; SEGMENTS as usize] = [const { AtomicU64::new(0) }; SEGMENTS as usize];
        let reap = |wait| {
            let mut finished = Vec::new();
            queue.reap(wait, &mut finished);
            for write in finished {
                assert_eq!(write.result, Ok(()));
                assert!(write.bytes[..] == pattern(write.token, BLOCK));
                written[(write.token / EACH) as usize].fetch_add(1, Relaxed);
            }
        };
        let is_complete = |number: u64| written[number as usize].load(Relaxed) == EACH;
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let reap = &reap;
                let queue = &queue;
                scope.spawn(move || {
                    for token in (0..SEGMENTS * EACH).filter(|token| token % THREADS == thread) {
                        submit(queue, token);
                        reap(Wait::No);
                    }
                    while queue.in_flight() > 0 {
                        reap(Wait::Until(Some(Instant::now() + Duration::from_millis(1))));
                    }
                });
            }
            let (mut kept, mut added) = (0, 0);
            while kept < SEGMENTS {
                if added < SEGMENTS {
                    added += 1;
                    io.add_segment(added, place.segment(added)).expect("the next one");
                }
                reap(Wait::No);
                assert_eq!(io.sync(), Ok(()));
                let complete = (kept..added).take_while(|&number| is_complete(number)).count() as u64;
                // What came back since the sync is kept for the next one.
                for (number, file) in io.remove_segments_before(kept + complete).unwrap_or_default() {
                    let tokens = number * EACH..(number + 1) * EACH;
                    let log: Vec<_> = tokens.flat_map(|token| pattern(token, BLOCK)).collect();
                    assert!(content(&file, place, number) == [&HEADER[..], &log].concat(), "segment {number}");
                    kept = number + 1;
                }
            }
        });
        assert_eq!(queue.in_flight(), 0);
    });
}

#[test]
fn a_child_neither_sees_nor_changes_the_segments_of_its_parent() {
    on_every_engine(&[0, 1], &QuikIO::options(), |io, place| {
        let queue = attach(io);
        queue.submit_write(write(1, SIZE, 2 * SIZE));
        assert_eq!(queue.in_flight(), 1);
        let next = place.segment(2);
        let child = Child::fork(|| {
            assert_eq!(io.add_segment(2, next.clone()), Err(FileError::Forked));
            assert_eq!(removed(io, 1), Err(FileError::Forked));
            assert_eq!((io.start(), io.segment_size()), (Err(FileError::Forked), Some(SIZE)));
            assert!(io.read_at(0, &mut [0; 1]).unwrap_err().is_forked() && io.sync().unwrap_err().is_forked());
            assert!(!io.is_direct());
            let mut finished = Vec::new();
            assert_eq!((queue.in_flight(), queue.reap(Wait::Until(None), &mut finished)), (0, None));
            assert!(finished.is_empty(), "what waits in the parent is not handed out here");
            queue.submit_write(write(2, 0, STEP));
            queue.reap(Wait::Until(None), &mut finished);
            finished.extend(queue.write_or_submit(write(3, 0, 9 * SIZE)));
            assert_eq!(tokens(&finished), [2, 3]);
            assert!(finished.iter().all(|write| write.result.as_ref().unwrap_err().is_forked()));
            let open_files = || fs::read_dir("/proc/self/fd").expect("a list").count();
            let before = open_files();
            // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
            drop(unsafe { core::ptr::read(&raw const queue) });
            assert_eq!(Arc::strong_count(io), 1, "with the next one the `QuikIO` itself is dropped");
            // SAFETY: as above.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(io)) };
            assert_eq!(open_files(), before, "not even the memory of what another thread had locked may be freed");
        });
        child.succeeds();
        io.add_segment(2, next).expect("the parent's");
        let finished = drain(&queue);
        assert!(all_ok(&finished) && tokens(&finished) == [1]);
        if let Place::Disk(_) = place {
            let other = open(&place.path(0), OFlags::empty());
            let outcome = rustix::fs::flock(other, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(outcome, Err(Errno::WOULDBLOCK), "the child has unlocked it");
        }
    });
}

/// The outcome of making a log of one segment.
fn refusal(size: u64, number: u64, file: impl Into<SegmentFile>) -> FileError {
    QuikIO::options().segments(size, [(number, file)]).expect_err("it cannot be a segment")
}

#[test]
fn what_cannot_be_a_segment_is_refused_before_it_is_written() {
    let place = Place::Disk(disk());
    let dir = disk();
    let path = dir.path().join("short");
    fs::write(&path, vec![0; LEN - 1]).expect("a file");
    let short = SegmentFault::Short { len: LEN as u64 - 1, needed: LEN as u64 };
    assert_eq!(refusal(SIZE, 3, open(&path, OFlags::empty())), fault(3, short));
    for size in [0, 1, STEP - 1, STEP + 1, u64::MAX, u64::MAX - STEP + 1] {
        assert_eq!(refusal(size, 0, open(&path, OFlags::empty())), FileError::SegmentSize(size));
    }
    let none: [(u64, File); 0] = [];
    assert_eq!(QuikIO::options().segments(SIZE, none).unwrap_err(), fault(0, SegmentFault::Missing));
    for number in [u64::MAX, u64::MAX / SIZE] {
        assert_eq!(refusal(SIZE, number, place.segment(0)), fault(number, SegmentFault::Beyond));
    }
    let read_only = File::open(place.path(0)).expect("a file");
    assert_eq!(refusal(SIZE, 0, read_only), FileError::NotWritable);
    assert_eq!(refusal(SIZE, 0, open(&place.path(0), OFlags::APPEND)), FileError::Append);
    assert_eq!(refusal(SIZE, 0, File::open(dir.path()).expect("a directory")), FileError::Directory);
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).expect("a pipe");
    assert_eq!(refusal(SIZE, 0, open(&pipe, OFlags::empty())), FileError::NotRegular("pipe"));

    let twice = [(0, place.segment(0)), (0, place.segment(1))];
    assert_eq!(QuikIO::options().segments(SIZE, twice).unwrap_err(), fault(0, SegmentFault::There));
    let same = [(0, place.segment(0)), (1, open(&place.path(0), OFlags::empty()).into())];
    assert_eq!(QuikIO::options().segments(SIZE, same).unwrap_err(), FileError::Locked);
    let device = MemoryDevice::new();
    let mixed = [(0, place.segment(0)), (1, device.another_file(LEN).into())];
    assert_eq!(QuikIO::options().segments(SIZE, mixed).unwrap_err(), fault(1, SegmentFault::Elsewhere));
    let other = MemoryDevice::new();
    let apart = [(0, device.another_file(LEN)), (1, other.another_file(LEN))];
    assert_eq!(QuikIO::options().segments(SIZE, apart).unwrap_err(), fault(1, SegmentFault::Elsewhere));
    let io = QuikIO::options().segments(SIZE, place.segments([0])).expect("all locks are free again");
    assert_eq!(refusal(SIZE, 0, open(&place.path(0), OFlags::empty())), FileError::Locked);
    drop(io);
    for kind in [EngineKind::IoUring, EngineKind::Positioned] {
        let refused = QuikIO::options().engine(kind).segments(SIZE, [(0, device.another_file(LEN))]);
        assert!(matches!(refused, Err(FileError::EngineUnavailable { .. })));
    }
    let refused = QuikIO::options().engine(EngineKind::Memory).segments(SIZE, place.segments([0]));
    assert!(matches!(refused, Err(FileError::EngineUnavailable { .. })));
    let refused = QuikIO::options().start_at(1).segments(SIZE, place.segments([0]));
    assert_eq!(refused.unwrap_err(), FileError::UnalignedStart(1));
}

#[test]
fn a_segment_that_cannot_be_added_changes_nothing() {
    let place = Place::Disk(disk());
    let io = Arc::new(QuikIO::options().segments(SIZE, place.segments([1])).expect("a segment"));
    let queue = attach(&io);
    submit(&queue, 7);
    let short = open(&place.path(9), OFlags::empty());
    let refused = [
        (1, place.segment(2), SegmentFault::There),
        (0, place.segment(0), SegmentFault::Removed),
        (u64::MAX, place.segment(2), SegmentFault::Beyond),
        (2, MemoryDevice::new().another_file(LEN).into(), SegmentFault::Elsewhere),
        (2, short.into(), SegmentFault::Short { len: 0, needed: LEN as u64 }),
    ];
    for (number, file, why) in refused {
        assert_eq!(io.add_segment(number, file), Err(fault(number, why)));
    }
    let synced = place.segment(2);
    drop(synced);
    assert_eq!(io.add_segment(2, open(&place.path(2), O_DSYNC)), Err(fault(2, SegmentFault::Synced)));
    let again = open(&place.path(1), OFlags::empty());
    assert_eq!(io.add_segment(2, again), Err(FileError::Locked));
    assert_eq!(queue.in_flight(), 1);
    io.add_segment(2, open(&place.path(2), OFlags::empty())).expect("nothing has it locked");
    assert!(all_ok(&drain(&queue)) && !io.is_direct());
}

#[test]
fn a_block_device_is_no_segment() {
    let Ok(device) = File::options().read(true).write(true).open("/dev/loop0") else {
        eprintln!("SKIPPED: there is no block device to open");
        return;
    };
    assert_eq!(refusal(SIZE, 0, device), fault(0, SegmentFault::Device));
}

#[test]
fn segments_that_sync_every_write_are_durable_and_serialized() {
    let place = Place::Disk(disk());
    drop(place.segments(0..2));
    let synced = |number| open(&place.path(number), O_DSYNC);
    let io = Arc::new(QuikIO::options().segments(SIZE, [(0, synced(0))]).expect("a segment"));
    assert_eq!(io.write_mode(), WriteMode::Serialized);
    let queue = attach(&io);
    (0..4).rev().for_each(|token| submit(&queue, token));
    io.add_segment(1, synced(1)).expect("one of the same kind");
    let finished = drain(&queue);
    assert!(finished.iter().map(|write| write.token).eq(0..4) && finished.iter().all(|write| write.durable));
    assert_eq!(removed(&io, 1), Ok(vec![0]), "nothing is left to sync");
}

#[test]
fn what_is_for_one_file_is_refused_for_segments_and_the_reverse() {
    let (io, device, _) = in_memory(&[0, 1], QuikIO::options());
    assert_eq!(
        (io.log_end(), io.file_len(), io.cut(0)),
        (Err(FileError::Segmented), Err(FileError::Segmented), Err(FileError::Segmented))
    );
    assert_eq!((io.preparing_stopped(), device.key()), (None, None));
    let (plain, memory) = QuikIO::in_memory();
    assert_eq!(plain.add_segment(0, memory.another_file(LEN)), Err(FileError::NotSegmented));
    assert_eq!(removed(&plain, 0), Err(FileError::NotSegmented));
}

#[test]
fn a_log_begins_only_in_a_segment_that_is_there() {
    let (io, device, _) = in_memory(&[2], QuikIO::options().start_at(3 * SIZE));
    assert_eq!(io.start(), Err(fault(3, SegmentFault::Missing)));
    let arena = Arc::clone(bytes(0, BLOCK).arena());
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(fault(3, SegmentFault::Missing)));
    io.add_segment(3, device.another_file(LEN)).expect("the one where it begins");
    assert_eq!(io.start(), Ok(3 * SIZE));
    assert_eq!(attach(&io).in_flight(), 0);
}

#[test]
fn nothing_is_prepared_in_segments() {
    let place = Place::Disk(disk());
    let io = QuikIO::options().prepare(1 << 20).segments(1 << 20, [(0, large(place.path(0)))]);
    let io = Arc::new(io.expect("a segment"));
    let queue = attach(&io);
    for token in 0..64 {
        assert!(queue.write_durable_now(token, bytes(token, BLOCK), token * STEP).durable);
    }
    drop(queue);
    let content = fs::read(place.path(0)).expect("a file");
    assert_eq!(content.len() as u64, SEGMENT_HEADER + (1 << 20), "nor is it cut");
    assert!(content[65 * BLOCK..].iter().all(|&byte| byte == 0));
}

fn large(path: impl AsRef<Path>) -> File {
    let file = open(path.as_ref(), OFlags::DIRECT);
    file.set_len(SEGMENT_HEADER + (1 << 20)).expect("a file");
    file
}
