//! Every interleaving of small programs in which writers take part. Run with `cargo xtask loom`.
//!
//! Under loom a writer takes a lease of two records at once, and all records are 512 bytes long, the grain of what loom
//! sees.
#![cfg(loom)]

#[path = "../../ring-state/tests/model/mod.rs"]
mod model;

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::Arc;

use buffer_ring::model::ModelDevice;
use buffer_ring::{AppendError, BufferRing, Extent, Writer};

use loom::thread;
use model::{Bound, hit, model};

/// A ring whose first chunk of cells is there: how it comes is for the models of the parts.
fn ring(device: &ModelDevice) -> Arc<BufferRing> {
    let ring = device.ring(2, true, true);
    drop(ring.writer());
    Arc::new(ring)
}

fn append(writer: &mut Writer<'_>, mark: u8) -> Extent {
    writer.append(&[mark; 512]).expect("the ring takes it")
}

/// Closes the ring, and checks that the device has each record where its extent says, and zeros elsewhere.
fn check(ring: Arc<BufferRing>, device: &ModelDevice, appended: &[(Extent, u8)]) {
    let ring = Arc::into_inner(ring).expect("all threads are gone");
    let end = ring.close().expect("nothing failed");
    assert_eq!(device.synced_up_to(), end);
    let mut file = vec![0; end as usize];
    for (at, bytes) in device.written() {
        file[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    let mut expected = vec![0; end as usize];
    for (extent, mark) in appended {
        expected[extent.start() as usize..extent.end() as usize].fill(*mark);
    }
    assert!(file == expected, "the file is not what was appended");
}

/// What a writer appends is durable when a thread says so, the thread that ends its lease.
#[test]
fn a_watermark_never_passes_an_open_lease() {
    static SYNCED: Count = Count::new(0);
    static TAKEN_BACK: Count = Count::new(0);
    model("a_watermark_never_passes_an_open_lease", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = ring(&device);
        let syncer = {
            let (ring, device) = (Arc::clone(&ring), device.clone());
            thread::spawn(move || {
                let synced = ring.sync().expect("nothing failed");
                assert!(synced <= device.synced_up_to());
                synced
            })
        };
        let mut writer = ring.writer();
        let extents = [append(&mut writer, 1), append(&mut writer, 2)];
        drop(writer);
        assert!(extents[0].end() <= extents[1].start());
        if syncer.join().unwrap() > 0 {
            hit(&SYNCED);
            if extents[1].start() > extents[0].end() {
                hit(&TAKEN_BACK);
            }
        }
        check(ring, &device, &[(extents[0], 1), (extents[1], 2)]);
    });
    assert!(SYNCED.load(Relaxed) > 0 && TAKEN_BACK.load(Relaxed) > 0);
}

/// A writer with a lease does nothing any more, and the other threads neither know nor wait.
#[test]
fn a_commit_does_not_wait_for_an_idle_writer() {
    static TAKEN_BACK: Count = Count::new(0);
    model("a_commit_does_not_wait_for_an_idle_writer", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = ring(&device);
        let committer = {
            let (ring, device) = (Arc::clone(&ring), device.clone());
            thread::spawn(move || {
                let extent = ring.append_durable(&[2; 512]).expect("nothing failed");
                assert!(device.synced_up_to() >= extent.end());
                extent
            })
        };
        let mut writer = ring.writer();
        let mine = append(&mut writer, 1);
        // As idle as can be: it never comes back.
        core::mem::forget(writer);
        let theirs = committer.join().unwrap();
        if ring.stats().writers.unused_bytes == 512 {
            hit(&TAKEN_BACK);
        }
        ring.wait_durable(mine.end()).expect("nothing failed");
        assert!(device.synced_up_to() >= mine.end());
        check(ring, &device, &[(mine, 1), (theirs, 2)]);
    });
    assert!(TAKEN_BACK.load(Relaxed) > 0);
}

/// The thread that sees the ring poisoned appends nothing more, though its lease has room.
#[test]
fn a_writer_that_sees_the_ring_poisoned_appends_nothing() {
    static REFUSED: Count = Count::new(0);
    static BEFORE: Count = Count::new(0);
    model("a_writer_that_sees_the_ring_poisoned_appends_nothing", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = ring(&device);
        device.break_down();
        ring.append(&[3; 512]).expect("no thread knows yet");
        let flusher = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || assert!(ring.flush(&ring.current_buffer(Acquire)).wait().is_err()))
        };
        let mut writer = ring.writer();
        if writer.append(&[1; 512]).is_ok() {
            let poisoned = ring.poisoned().is_some();
            hit(if poisoned { &REFUSED } else { &BEFORE });
            let second = writer.append(&[2; 512]);
            assert!(!poisoned || matches!(second, Err(AppendError::Poisoned(_))), "{second:?}");
        }
        drop(writer);
        flusher.join().unwrap();
    });
    assert!(REFUSED.load(Relaxed) > 0 && BEFORE.load(Relaxed) > 0);
}

/// Its cell goes to the next writer, which must not find the lease of the one before still there.
#[test]
fn a_writer_that_begins_beside_the_end_of_another_has_its_cell_alone() {
    static SAME_CELL: Count = Count::new(0);
    static OTHER_CELL: Count = Count::new(0);
    model("a_writer_that_begins_beside_the_end_of_another_has_its_cell_alone", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = ring(&device);
        let mut first = ring.writer();
        let one = append(&mut first, 1);
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut second = ring.writer();
                hit(if ring.stats().writers.open == 1 { &SAME_CELL } else { &OTHER_CELL });
                append(&mut second, 2)
            })
        };
        drop(first);
        let two = other.join().unwrap();
        check(ring, &device, &[(one, 1), (two, 2)]);
    });
    assert!(SAME_CELL.load(Relaxed) > 0 && OTHER_CELL.load(Relaxed) > 0);
}

/// A writer's records are durable when the ring is closed, or were refused, though its lease has room.
#[test]
fn a_writer_beside_close_is_durable_or_refused() {
    static APPENDED: Count = Count::new(0);
    static BETWEEN: Count = Count::new(0);
    static REFUSED: Count = Count::new(0);
    model("a_writer_beside_close_is_durable_or_refused", Bound::Preemptions(3), || {
        let device = ModelDevice::instant();
        let ring = ring(&device);
        let appender = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut writer = ring.writer();
                [writer.append(&[1; 512]), writer.append(&[2; 512])]
            })
        };
        let end = ring.close().expect("nothing failed");
        assert_eq!(device.synced_up_to(), end);
        let file: Vec<u8> = device.written().into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(file.len() as u64, end);
        let appended = appender.join().unwrap();
        for (outcome, mark) in appended.iter().zip([1, 2]) {
            match outcome {
                Ok(extent) => {
                    let bytes = &file[extent.start() as usize..extent.end() as usize];
                    assert!(bytes.iter().all(|&byte| byte == mark), "{extent:?} was not there when close had returned");
                }
                Err(error) => assert_eq!(*error, AppendError::Closed),
            }
        }
        hit(match appended {
            [Ok(_), Ok(_)] => &APPENDED,
            [Ok(_), Err(_)] => &BETWEEN,
            [Err(_), _] => &REFUSED,
        });
    });
    assert!([&APPENDED, &BETWEEN, &REFUSED].iter().all(|count| count.load(Relaxed) > 0));
}
