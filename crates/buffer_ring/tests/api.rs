//! The basics exactly as documented, and what the appending and waiting calls answer.

mod common;

use core::sync::atomic::Ordering;
use std::io::IoSlice;
use std::sync::Arc;
use std::thread;

use buffer_ring::{
    AppendError, BufferHandle, BufferRing, BufferRingOptions, EngineKind, Extent, FlushTicket, QuikIO, Reservation,
    RingError,
};
use common::{LIMIT, buffered_file, disk, in_memory, options, pattern, read, stored, within};

#[test]
fn the_documented_basics_run_as_written() {
    let dir = disk();
    let path = dir.path().join("log");
    let file = buffered_file(&path);

    let options = BufferRingOptions {
        capacity: 4,
        buffer_size: buffer_ring::ONE_MEGABYTE_BLOCK,
        io_instance: Some(Arc::new(QuikIO::new(file))),
        auto_flush: true,
        auto_rotate: true,
    };
    let ring = BufferRing::with_options(options);

    let my_buffer = ring.current_buffer(Ordering::Acquire);
    let first = ring.append(b"first").expect("room");
    ring.flush(&my_buffer);
    let second = ring.append(b"second").expect("room");
    assert_eq!((first.start(), second.start()), (0, 4096), "the flush sealed the first buffer");

    let current = ring.current_buffer(Ordering::Acquire);
    assert!(!current.is_sealed(), "looking never changes anything");
    if current.is_sealed() {
        ring.flush(&current);
    }
    assert!(!ring.current_buffer(Ordering::Acquire).is_sealed());
    ring.flush(&current);
    assert!(current.is_sealed(), "an open buffer is sealed first");
    ring.flush(&my_buffer);

    assert_eq!(ring.close(), Ok(8192));
    let content = std::fs::read(&path).expect("the file");
    assert_eq!(content.len(), 8192);
    assert_eq!((&content[..5], &content[4096..4102]), (&b"first"[..], &b"second"[..]));
}

#[test]
fn the_default_options_are_empty_and_automatic() {
    let BufferRingOptions { capacity, buffer_size, io_instance, auto_flush, auto_rotate } =
        BufferRingOptions::default();
    assert_eq!((capacity, buffer_size, auto_flush, auto_rotate), (0, 0, true, true));
    assert!(io_instance.is_none());
}

#[test]
fn a_quik_io_takes_a_file_or_a_shared_one_and_says_its_engine() {
    let dir = disk();
    let owned = QuikIO::new(buffered_file(&dir.path().join("a")));
    let shared = QuikIO::new(Arc::new(buffered_file(&dir.path().join("b"))));
    for io in [owned, shared] {
        let engine = io.engine();
        assert!(matches!(engine.kind(), EngineKind::IoUring | EngineKind::Positioned));
        assert_eq!(engine.kind() == EngineKind::IoUring, engine.reason().is_none(), "a fallback says why");
    }
}

#[test]
fn the_public_types_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send>(_: &T) {}
    shared::<BufferRing>();
    shared::<BufferRingOptions>();
    shared::<BufferHandle>();
    shared::<FlushTicket>();
    shared::<Extent>();
    shared::<QuikIO>();
    shared::<Reservation<'static>>();
    let ring = BufferRing::with_options(options(2, 4096));
    let reservation = ring.reserve(1).expect("room");
    sent(&reservation);
    thread::scope(|scope| scope.spawn(|| reservation.commit()).join()).expect("committed in another thread");
    assert_eq!(ring.stats().records_appended, 1);
}

#[test]
fn a_payload_that_never_fits_is_refused_and_changes_nothing() {
    let (ring, device) = in_memory(options(2, 8192));
    let too_large = AppendError::TooLarge { len: 8193, max: 8192 };
    let long = vec![1; 8193];
    assert_eq!(ring.append(&[]), Err(AppendError::Empty));
    assert_eq!(ring.try_append(&[]), Err(AppendError::Empty));
    assert_eq!(ring.append_timeout(&[], LIMIT), Err(AppendError::Empty));
    assert_eq!(ring.append_durable(&[]), Err(AppendError::Empty));
    assert_eq!(ring.append_vectored(&[]), Err(AppendError::Empty));
    assert_eq!(ring.append_vectored(&[IoSlice::new(&[]), IoSlice::new(&[])]), Err(AppendError::Empty));
    assert_eq!(ring.reserve(0).err(), Some(AppendError::Empty));
    assert_eq!(ring.try_reserve(0).err(), Some(AppendError::Empty));
    assert_eq!(ring.append(&long).as_ref(), Err(&too_large));
    assert_eq!(ring.try_append(&long).as_ref(), Err(&too_large));
    assert_eq!(ring.append_durable(&long).as_ref(), Err(&too_large));
    assert_eq!(ring.append_vectored(&[IoSlice::new(&long[1..]), IoSlice::new(b"1")]).as_ref(), Err(&too_large));
    assert_eq!(ring.reserve(8193).err().as_ref(), Some(&too_large));
    assert_eq!(ring.try_reserve(usize::MAX).err(), Some(AppendError::TooLarge { len: usize::MAX, max: 8192 }));
    assert_eq!((ring.tail(), ring.stats().records_appended), (0, 0));
    assert_eq!((ring.close(), device.writes().len()), (Ok(0), 0), "nothing was appended, nothing is written");
}

#[test]
fn extents_say_the_bytes_place_at_once_and_ascend() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, 4096));
        let mut extents: Vec<(Extent, Vec<u8>)> = Vec::new();
        for (id, len) in [1, 4095, 1, 4096, 4096, 700, 700, 3000, 5].into_iter().enumerate() {
            let payload = pattern(id as u64, len);
            extents.push((ring.append(&payload).expect("room"), payload));
        }
        let starts: Vec<u64> = extents.iter().map(|(extent, _)| extent.start()).collect();
        assert_eq!(starts, [0, 1, 4096, 8192, 12288, 16384, 17084, 20480, 23480]);
        assert_eq!(ring.tail(), 23485);
        assert_eq!(ring.sync(), Ok(24576));
        for (extent, payload) in extents {
            assert_eq!((extent.len(), extent.end()), (payload.len(), extent.start() + payload.len() as u64));
            assert_eq!(extent, Extent::new(extent.start(), payload.len()));
            assert!(stored(&device, extent) == payload && read(&ring, extent) == payload, "{extent:?}");
        }
    });
}

#[test]
fn parts_are_appended_as_if_they_were_one() {
    let (ring, device) = in_memory(options(2, 4096));
    let payload = pattern(7, 4000);
    for cuts in [[0, 0, 4000], [0, 4000, 4000], [1, 2, 3], [1000, 1000, 3999]] {
        let [a, b, c] = cuts;
        let parts = [&payload[..a], &payload[a..b], &payload[b..c], &payload[c..]].map(IoSlice::new);
        let extent = ring.append_vectored(&parts).expect("room");
        assert_eq!(extent.len(), payload.len());
        ring.sync().expect("a working device");
        assert!(stored(&device, extent) == payload, "cut at {cuts:?}");
    }
    assert_eq!(ring.stats().records_appended, 4);
}

#[test]
fn the_watermarks_follow_the_tail_and_do_not_run_ahead_of_the_device() {
    let (ring, device) = in_memory(options(4, 8192));
    let marks = |ring: &BufferRing| (ring.durable_watermark(), ring.written_watermark(), ring.tail());
    assert_eq!(marks(&ring), (0, 0, 0));
    ring.append(&[1; 100]).expect("room");
    assert_eq!(marks(&ring), (0, 0, 100));
    ring.flush(&common::current(&ring)).wait().expect("written");
    assert_eq!(marks(&ring), (0, 4096, 4096), "written is not durable");
    assert!(device.synced().is_empty() && device.syncs() == 0);
    ring.append(&[2; 5000]).expect("room");
    assert_eq!(ring.sync(), Ok(12288));
    assert_eq!(marks(&ring), (12288, 12288, 12288));
    assert!(device.synced() == device.contents() && device.contents().len() == 12288);
    let syncs = device.syncs();
    assert_eq!(ring.sync(), Ok(12288));
    assert_eq!(device.syncs(), syncs, "there was nothing to sync");
}

#[test]
fn waiting_for_an_address_makes_it_durable_without_any_help() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        assert_eq!(ring.wait_durable(0), Ok(()));
        let extent = ring.append(&pattern(1, 10)).expect("room");
        assert_eq!(ring.wait_durable(extent.end()), Ok(()));
        assert!(ring.durable_watermark() >= extent.end());
        assert_eq!(device.synced()[..10], pattern(1, 10));
        assert_eq!(ring.wait_durable(extent.end()), Ok(()), "again");
        let tail = ring.tail();
        let beyond = RingError::NotAppended { address: tail + 1, tail };
        assert_eq!(ring.wait_durable(tail + 1), Err(beyond.clone()));
        assert_eq!(ring.wait_durable_timeout(tail + 1, LIMIT), Err(beyond));
        assert_eq!(ring.wait_durable(u64::MAX), Err(RingError::NotAppended { address: u64::MAX, tail }));
        assert_eq!(ring.poisoned(), None);
    });
}

#[test]
fn a_durable_append_is_durable_when_it_returns() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        for id in 0..5 {
            let extent = ring.append_durable(&pattern(id, 100)).expect("a working device");
            assert_eq!(extent.start(), id * 4096, "a buffer each: no other thread appends meanwhile");
            assert!(ring.durable_watermark() >= extent.end());
            assert!(device.synced()[extent.start() as usize..][..100] == pattern(id, 100));
        }
    });
}

#[test]
fn close_makes_everything_durable_and_answers_where_the_log_ends() {
    let (ring, device) = in_memory(options(2, 4096));
    assert_eq!(ring.append(&[9; 4096]).map(|extent| extent.end()), Ok(4096));
    assert_eq!(ring.append(&[9; 1]).map(|extent| extent.end()), Ok(4097));
    assert_eq!(ring.close(), Ok(8192));
    assert!(device.synced() == [vec![9; 4097], vec![0; 4095]].concat());
}

#[test]
fn a_ring_without_a_device_recycles_its_buffers() {
    within(LIMIT, || {
        let ring = BufferRing::with_options(options(2, 4096));
        for lap in 0..100 {
            assert_eq!(ring.append(&[1; 3000]).map(|extent| extent.start()), Ok(lap * 4096));
        }
        let stats = ring.stats();
        assert_eq!((stats.records_appended, stats.buffers_flushed, stats.full_waits), (100, 99, 0));
        assert!(stats.engine.is_none() && !stats.registered_buffers);
        assert_eq!((ring.written_watermark(), ring.tail()), (99 * 4096, 99 * 4096 + 3000));
    });
}
