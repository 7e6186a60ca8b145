//! Cutting a log: where, when it is refused, and that it is on stable storage.

mod common;

use std::fs;
use std::process::Command;
use std::sync::Arc;

use common::{attach, bytes, disk, drain, open, pattern, skipped};
use ring_alloc::BLOCK;
use ring_io::{DeviceEvent, FileError, MemoryDevice, QuikIO, WriteQueue};
use rustix::fs::OFlags;
use rustix::io::Errno;

const SIZE: u64 = BLOCK as u64;

fn commit(queue: &WriteQueue, n: u64) {
    queue.submit_durable(n, bytes(n, BLOCK), n * SIZE);
    assert!(drain(queue).iter().all(|write| write.durable), "block {n}");
}

fn log(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|n| pattern(n, BLOCK)).collect()
}

/// A device with a log of `blocks` blocks.
fn holding(blocks: u64) -> MemoryDevice {
    let (io, device) = QuikIO::in_memory();
    let queue = attach(&Arc::new(io));
    (0..blocks).for_each(|n| commit(&queue, n));
    device
}

#[test]
fn a_log_goes_on_where_it_was_cut() {
    let dir = disk();
    for kept in [0, 1, 7, 10] {
        let path = dir.path().join(format!("log {kept}"));
        fs::write(&path, log(10)).expect("a file");
        let io = Arc::new(QuikIO::open(&path).expect("a file"));
        assert_eq!(io.cut(kept * SIZE), Ok(()));
        assert_eq!((io.start(), fs::read(&path).expect("the file")), (Ok(kept * SIZE), log(kept)));
        let queue = attach(&io);
        (kept..kept + 3).for_each(|n| commit(&queue, n));
        drop(queue);
        assert!(fs::read(&path).expect("the file") == log(kept + 3), "{kept} blocks");
    }
}

#[test]
fn a_cut_is_on_stable_storage_when_it_returns() {
    let device = holding(10);
    let (io, syncs) = (device.builder().build().expect("no obstacle"), device.syncs());
    assert_eq!(io.cut(4 * SIZE), Ok(()));
    assert!(device.synced() == log(4) && device.contents() == log(4));
    assert_eq!(device.syncs(), syncs + 1);
}

#[test]
fn a_cut_that_cannot_be_synced_fails_and_so_does_everything_after_it() {
    let device = holding(10);
    let io = device.builder().build().expect("no obstacle");
    device.fail_sync(Errno::IO.raw_os_error());
    assert_eq!(io.cut(4 * SIZE), Err(FileError::Cut(Errno::IO.raw_os_error())));
    assert_eq!(io.sync().unwrap_err().errno(), Some(Errno::IO.raw_os_error()));
    assert_eq!(io.cut(3 * SIZE), Err(FileError::Cut(Errno::IO.raw_os_error())));
}

#[test]
fn a_cut_beyond_the_end_of_the_log_is_refused() {
    let device = holding(10);
    let io = device.builder().build().expect("no obstacle");
    for at in [10 * SIZE + 1, 11 * SIZE, 1 << 40, u64::MAX] {
        assert_eq!(io.cut(at), Err(FileError::CutBeyondEnd { at, end: 10 * SIZE }));
    }
    assert!(device.contents() == log(10));
    assert_eq!(
        FileError::CutBeyondEnd { at: 8192, end: 4096 }.to_string(),
        "cut at 8192 is beyond the end of the log at 4096"
    );
}

#[test]
fn a_cut_within_a_block_leaves_zeros_up_to_the_next_one() {
    let dir = disk();
    let path = dir.path().join("log");
    for at in [0, 1, 511, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE + 100] {
        fs::write(&path, vec![7; 4 * SIZE as usize]).expect("a file");
        let mut expected = vec![7; at as usize];
        expected.resize(at.next_multiple_of(SIZE) as usize, 0);
        let io = QuikIO::open(&path).expect("nothing else writes to it");
        assert_eq!((io.cut(at), io.start()), (Ok(()), Ok(expected.len() as u64)));
        drop(io);
        assert!(fs::read(&path).expect("the file") == expected, "cut at {at}");

        let device = holding(4);
        let mut expected = log(4)[..at as usize].to_vec();
        expected.resize(at.next_multiple_of(SIZE) as usize, 0);
        let io = device.builder().build().expect("no obstacle");
        assert_eq!(io.cut(at), Ok(()));
        assert!(device.contents() == expected && device.synced() == expected, "cut at {at} in memory");
    }
}

#[test]
fn a_cut_is_refused_while_a_queue_is_attached_and_hinders_none_afterwards() {
    let device = holding(10);
    let io = Arc::new(device.builder().build().expect("no obstacle"));
    let queue = attach(&io);
    assert_eq!(io.cut(4 * SIZE), Err(FileError::Attached));
    assert!(device.contents() == log(10));
    drop(queue);
    assert!(io.cut(11 * SIZE).is_err());
    assert_eq!(io.cut(4 * SIZE), Ok(()));
    drop(attach(&io));
}

#[test]
fn a_cut_is_refused_while_another_writes_to_the_file() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, log(10)).expect("a file");
    let other = QuikIO::new(open(&path, OFlags::empty()));
    let io = QuikIO::open(&path).expect("a file");
    assert_eq!(other.cut(SIZE), Err(FileError::Locked));
    assert!(fs::read(&path).expect("the file") == log(10));
    drop(io);
    assert_eq!(other.cut(SIZE), Ok(()));
    assert!(fs::read(&path).expect("the file") == log(1));
    QuikIO::open(&path).expect("the lock lasted for the call");
}

#[test]
fn a_file_that_cannot_be_written_cannot_be_cut() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, log(10)).expect("a file");
    let io = QuikIO::new(fs::File::open(&path).expect("the file"));
    assert_eq!(io.cut(SIZE), Err(FileError::NotWritable));
}

#[test]
fn space_prepared_behind_a_log_goes_with_the_cut() {
    let device = QuikIO::in_memory().1;
    let io = Arc::new(device.builder().prepare(4 << 20).build().expect("no obstacle"));
    let queue = attach(&io);
    (0..20).for_each(|n| commit(&queue, n));
    // After a failure nothing is cut off, as after a kill.
    device.fail_sync(Errno::IO.raw_os_error());
    assert!(io.sync().is_err());
    drop(queue);
    let again = device.builder().build().expect("no obstacle");
    assert!(device.contents().len() > 20 * BLOCK);
    assert_eq!(again.cut(21 * SIZE), Err(FileError::CutBeyondEnd { at: 21 * SIZE, end: 20 * SIZE }));
    assert_eq!(again.cut(20 * SIZE), Ok(()));
    assert!(device.synced() == log(20));
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).output();
    }
}

#[test]
fn a_block_device_cannot_be_cut() {
    let dir = disk();
    let image = dir.path().join("image");
    fs::write(&image, vec![1; 1 << 20]).expect("an image");
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
    let device = match attached {
        Ok(output) if output.status.success() => Loop(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        outcome => {
            skipped("BUFFER_RING_REQUIRE_ROOT", &format!("a loop device: {outcome:?}"));
            return;
        }
    };
    let io = QuikIO::builder(open(device.0.as_ref(), OFlags::empty())).start_at(0).build().expect("a device");
    assert_eq!(io.cut(4096), Err(FileError::NoEnd));
}

#[test]
fn what_watches_a_device_sees_the_cut_before_its_sync() {
    let device = holding(3);
    let seen = Arc::new(ring_io::locks::Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    device.watch(move |event| {
        events.lock().push(match event {
            DeviceEvent::Cut { len } => format!("cut at {len}"),
            DeviceEvent::SyncBegan { .. } => "sync".to_owned(),
            DeviceEvent::SyncEnded { succeeded, .. } => format!("synced: {succeeded}"),
            _ => return,
        });
    });
    device.builder().build().expect("no obstacle").cut(SIZE).expect("a cut");
    assert_eq!(*seen.lock(), ["cut at 4096", "sync", "synced: true"]);
}
