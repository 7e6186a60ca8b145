//! Frames around batches: where they lie, what they are given, and what becomes of one that panics.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::thread;

use buffer_ring::{
    AppendError, BLOCK, BatchInfo, BufferRing, BufferRingOptions, Framing, Margins, MemoryDevice, OptionsError,
    Placement, QuikIO, RingError, SEGMENT_HEADER,
};

const HEADER: usize = 72;

/// Writes what it is given into the frames, and keeps it.
#[derive(Debug)]
struct Recording {
    margins: Margins,
    sealed: Mutex<Vec<(BatchInfo, usize)>>,
    /// Panics at this batch.
    panics_at: u64,
}

impl Recording {
    fn new(margins: Margins, panics_at: u64) -> Arc<Self> {
        Arc::new(Self { margins, sealed: Mutex::default(), panics_at })
    }

    /// The batches, in the order of their addresses, with the bytes appended to each.
    fn batches(&self) -> Vec<(BatchInfo, usize)> {
        let mut batches = self.sealed.lock().expect("no panic inside").clone();
        batches.sort_by_key(|(info, _)| info.base);
        batches
    }
}

impl Framing for Recording {
    fn margins(&self) -> Margins {
        self.margins
    }

    fn seal(&self, info: &BatchInfo, header: &mut [u8], payload: &[u8], trailer: &mut [u8]) {
        assert!(info.generation != self.panics_at, "planted");
        assert_eq!((header.len() + payload.len() + trailer.len()) % BLOCK, 0);
        assert!(trailer.iter().all(|&byte| byte == 0));
        header.fill(0xAA);
        if let Some(address) = header.first_chunk_mut() {
            *address = info.base.to_le_bytes();
        }
        let blocks = (header.len() + payload.len()).div_ceil(BLOCK);
        trailer[..self.margins.trailer + blocks * self.margins.trailer_per_block].fill(0xBB);
        self.sealed.lock().expect("no panic inside").push((*info, payload.len()));
    }
}

/// The frames of a format with a checksum for each block.
const CHECKED: Margins = Margins { header: HEADER, trailer: 8, trailer_per_block: 8 };

fn ring(capacity: usize, buffer_size: usize, framing: &Arc<Recording>) -> (BufferRing, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    let options = BufferRingOptions { capacity, buffer_size, io_instance: Some(io.into()), ..Default::default() };
    (BufferRing::builder(options).framing(framing.clone()).build().expect("a valid ring"), device)
}

/// The largest payload: what is refused with one byte more.
fn longest(ring: &BufferRing) -> usize {
    match ring.append(&vec![1; 1 << 20]) {
        Err(AppendError::TooLarge { max, .. }) => max,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_is_as_long_as_a_buffer_without_its_frame() {
    for (margins, buffer_size, expected) in [
        (CHECKED, BLOCK, BLOCK - HEADER - 8 - 8),
        (CHECKED, 4 * BLOCK, 4 * BLOCK - HEADER - 8 - 4 * 8),
        (Margins { header: 0, trailer: 1, trailer_per_block: 0 }, BLOCK, BLOCK - 1),
        (Margins { header: BLOCK - 8, trailer: 0, trailer_per_block: 7 }, BLOCK, 1),
    ] {
        let framing = Recording::new(margins, 0);
        let (ring, device) = ring(2, buffer_size, &framing);
        assert_eq!(longest(&ring), expected, "{margins:?}");
        let extent = ring.append_durable(&vec![7; expected]).expect("it fits");
        assert_eq!(extent.start(), margins.header as u64);
        assert_eq!(device.contents().len(), buffer_size, "{margins:?}");
        assert_eq!(framing.batches()[0].1, expected);
    }
}

#[test]
fn batches_follow_one_another_and_say_so() {
    let framing = Recording::new(CHECKED, 0);
    let (ring, device) = ring(2, 4 * BLOCK, &framing);
    let (mut extents, mut bases) = (Vec::new(), Vec::new());
    for n in 0..400_u32 {
        let payload = vec![n as u8 | 1; 8 * (1 + n as usize * 37 % 400)];
        let extent = match n % 4 {
            0 => ring.append_durable(&payload),
            1 => ring.append_filled(payload.len(), |placement, bytes| {
                bases.push((placement.start(), placement.batch_base()));
                bytes.copy_from_slice(&payload);
            }),
            _ => ring.append(&payload),
        };
        extents.push((extent.expect("room"), payload));
        if n % 50 == 0 {
            ring.sync().expect("no failure");
        }
        // In memory or in the file: the same.
        let (extent, payload) = &extents[n as usize / 2];
        let mut bytes = vec![0; payload.len()];
        ring.read(*extent, &mut bytes).expect("it is there");
        assert_eq!(&bytes, payload);
    }
    let end = ring.close().expect("no failure");
    let (file, batches) = (device.contents(), framing.batches());
    assert!(batches.len() > 50);
    let (mut base, mut previous) = (0, None);
    for (number, (info, len)) in batches.iter().enumerate() {
        assert_eq!((info.base, info.previous, info.generation), (base, previous, number as u64 + 1));
        assert!(info.durable <= info.base && batches.iter().any(|(other, _)| other.base == info.durable), "{info:?}");
        assert!(!info.last);
        let table = HEADER + len;
        let whole = (table + 8 + 8 * table.div_ceil(BLOCK)).next_multiple_of(BLOCK);
        assert_eq!(info.next, base + whole as u64);
        let bytes = &file[base as usize..info.next as usize];
        assert_eq!((&bytes[..8], bytes[8], bytes[HEADER - 1]), (&base.to_le_bytes()[..], 0xAA, 0xAA));
        assert_eq!(bytes[table], 0xBB);
        (base, previous) = (info.next, Some(info.base));
    }
    for (start, base) in bases {
        assert!(batches.iter().any(|(info, _)| info.base == base && (base..info.next).contains(&start)));
    }
    // The watermark stands where the next append would be.
    assert_eq!((end, file.len() as u64), (base + HEADER as u64, base));
    for (extent, payload) in &extents {
        assert_eq!(&file[extent.start() as usize..extent.end() as usize], payload);
        let (info, len) = batches.iter().rev().find(|(info, _)| info.base < extent.start()).expect("a batch");
        assert!(extent.end() <= info.base + (HEADER + len) as u64, "an append never reaches into a frame");
    }
}

#[test]
fn what_a_batch_promises_was_durable_when_it_was_sealed() {
    let framing = Recording::new(CHECKED, 0);
    let (ring, device) = ring(4, BLOCK, &framing);
    ring.append_durable(&[1; 8]).expect("no failure");
    // Held, so that nothing becomes durable meanwhile.
    device.hold();
    ring.append(&[2; 3000]).expect("room");
    ring.append(&[3; 3000]).expect("room");
    ring.append(&[4; 3000]).expect("room");
    device.release_all();
    ring.sync().expect("no failure");
    ring.append_durable(&[5; 8]).expect("no failure");
    let promised: Vec<_> = framing.batches().iter().map(|(info, _)| info.durable / BLOCK as u64).collect();
    assert_eq!(promised, [0, 1, 1, promised[3], 4]);
}

#[test]
fn writers_that_race_never_reach_into_a_frame() {
    let framing = Recording::new(CHECKED, 0);
    let (ring, device) = ring(3, 2 * BLOCK, &framing);
    let tail = AtomicU64::new(0);
    let extents: Vec<_> = thread::scope(|scope| {
        let appender = |seed: usize| {
            let (ring, tail) = (&ring, &tail);
            move || {
                let mut writer = ring.writer();
                let mut extents = Vec::new();
                for n in 0..3000 {
                    let len = 8 * (1 + (n * 31 + seed * 7) % 250);
                    let payload = vec![(1 + (n + seed) % 255) as u8; len];
                    let before = tail.fetch_max(ring.tail(), Ordering::Relaxed);
                    assert!(before <= ring.tail(), "the tail never decreases");
                    let (base, bytes) = (&Cell::new(0), &payload);
                    let fill = move |placement: Placement, target: &mut [u8]| {
                        base.set(placement.batch_base());
                        target.copy_from_slice(bytes);
                    };
                    let extent = match seed {
                        0 => writer.append(&payload),
                        1 => ring.append(&payload),
                        2 => writer.append_filled(len, fill),
                        _ => ring.append_with(len, fill),
                    };
                    extents.push((extent.expect("room"), base.get(), payload[0]));
                    if n % 500 == 0 {
                        ring.wait_durable(extents[n / 2].0.end()).expect("no failure");
                    }
                }
                extents
            }
        };
        let threads = [0, 1, 2, 3].map(|seed| scope.spawn(appender(seed)));
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    ring.close().expect("no failure");
    let (file, batches) = (device.contents(), framing.batches());
    assert!(batches.windows(2).all(|pair| pair[0].0.next == pair[1].0.base));
    assert!(batches.windows(2).all(|pair| pair[1].0.previous == Some(pair[0].0.base)));
    for (extent, base, byte) in extents {
        let batch = batches.iter().find(|(info, _)| (info.base..info.next).contains(&extent.start())).expect("a batch");
        assert!(base == 0 || base == batch.0.base, "{extent:?} at {base}");
        let bytes = &file[extent.start() as usize..extent.end() as usize];
        assert!(bytes.iter().all(|&read| read == byte), "{extent:?}");
    }
}

#[test]
fn a_log_goes_on_behind_its_last_batch() {
    let framing = Recording::new(CHECKED, 0);
    let (first, device) = ring(2, BLOCK, &framing);
    first.append_durable(&[1; 100]).expect("no failure");
    first.close().expect("no failure");
    drop(first);
    let framing = Recording::new(CHECKED, 0);
    let io = device.builder().build().expect("it is free");
    let options =
        BufferRingOptions { capacity: 2, buffer_size: BLOCK, io_instance: Some(io.into()), ..Default::default() };
    let second = BufferRing::builder(options).framing(framing.clone()).build().expect("a valid ring");
    assert_eq!((second.tail(), second.durable_watermark()), (4096 + 72, 4096 + 72));
    assert_eq!(second.append_durable(&[2; 100]).expect("no failure").start(), 4096 + 72);
    let [(info, _)] = framing.batches()[..] else { panic!("one batch") };
    assert_eq!((info.base, info.previous, info.durable), (4096, None, 4096));
}

#[test]
fn a_framing_that_panics_poisons_the_ring_and_no_caller_unwinds() {
    let framing = Recording::new(CHECKED, 2);
    let (ring, device) = ring(2, BLOCK, &framing);
    let kept = ring.append_durable(&[1; 100]).expect("the first batch");
    let failed = RingError::Framing(4096);
    assert_eq!(ring.append_durable(&[2; 100]), Err(AppendError::Poisoned(failed.clone())));
    assert_eq!(ring.append(&[3; 100]), Err(AppendError::Poisoned(failed.clone())));
    assert_eq!(ring.sync_timeout(Duration::from_secs(10)), Err(failed));
    let mut bytes = [0; 100];
    ring.read(kept, &mut bytes).expect("it is there");
    drop(ring);
    assert_eq!((bytes, device.contents().len()), ([1; 100], BLOCK));
}

#[test]
fn what_cannot_be_framed_is_refused() {
    let options = |auto_flush, auto_rotate| BufferRingOptions {
        capacity: 2,
        buffer_size: BLOCK,
        auto_flush,
        auto_rotate,
        ..Default::default()
    };
    let build = |options, margins| BufferRing::builder(options).framing(Recording::new(margins, 0)).build();
    for (auto_flush, auto_rotate) in [(false, true), (true, false), (false, false)] {
        let refused = build(options(auto_flush, auto_rotate), CHECKED).expect_err("by hand");
        assert_eq!(refused, OptionsError::FramingByHand);
    }
    for margins in [
        Margins { header: 4, ..CHECKED },
        Margins { header: 4096, trailer: 0, trailer_per_block: 0 },
        Margins { header: 4080, trailer: 8, trailer_per_block: 8 },
        Margins { header: 8, trailer: usize::MAX, trailer_per_block: 0 },
        Margins { header: 8, trailer: 0, trailer_per_block: usize::MAX },
    ] {
        let refused = build(options(true, true), margins).expect_err("no room");
        assert_eq!(refused, OptionsError::Margins { margins, buffer_size: BLOCK });
    }
    assert!(build(options(true, true), Margins { header: 4072, trailer: 8, trailer_per_block: 8 }).is_ok());
}

/// Blocks of a segment.
const SEGMENT: u64 = 10 * BLOCK as u64;

/// A segment on the device.
fn segment(device: &MemoryDevice) -> MemoryDevice {
    device.another_file((SEGMENT_HEADER + SEGMENT) as usize)
}

fn segmented(buffer_size: usize, framing: &Arc<Recording>) -> (BufferRing, Arc<QuikIO>, MemoryDevice) {
    let device = MemoryDevice::new();
    let io = Arc::new(QuikIO::options().segments(SEGMENT, [(0, segment(&device))]).expect("a valid segment"));
    let options =
        BufferRingOptions { capacity: 3, buffer_size, io_instance: Some(Arc::clone(&io)), ..Default::default() };
    (BufferRing::builder(options).framing(framing.clone()).build().expect("a valid ring"), io, device)
}

#[test]
fn a_log_in_segments_skips_what_no_buffer_fits_into() {
    for buffer_size in [BLOCK, 3 * BLOCK, 10 * BLOCK] {
        let framing = Recording::new(CHECKED, 0);
        let (ring, io, device) = segmented(buffer_size, &framing);
        (1..40).for_each(|number| io.add_segment(number, segment(&device)).expect("it is new"));
        let mut appended = Vec::new();
        for n in 0..200_usize {
            let payload = vec![(1 + n % 250) as u8; 8 * (1 + n * 53 % 440)];
            let append = if n % 7 == 0 { BufferRing::append_durable } else { BufferRing::append };
            appended.push((append(&ring, &payload).expect("room"), payload));
            if n % 61 == 60 {
                ring.roll();
            }
        }
        ring.sync().expect("no failure");
        for (extent, payload) in &appended {
            let mut bytes = vec![0; payload.len()];
            io.read_at(extent.start(), &mut bytes).expect("the segment is there");
            assert_eq!(&bytes, payload);
        }
        let batches = framing.batches();
        assert!(batches.windows(2).all(|pair| pair[0].0.next == pair[1].0.base));
        for (info, _) in &batches {
            let end = (info.base / SEGMENT + 1) * SEGMENT;
            assert!(info.base + buffer_size as u64 <= end && info.next <= end, "{info:?}");
            assert_eq!(info.last, info.next == end);
        }
        assert!(batches.iter().filter(|(info, _)| info.last).count() > 10);
        ring.close().expect("no failure");
    }
}

#[test]
fn a_commit_at_the_end_of_a_segment_waits_until_the_next_one_is_there() {
    let framing = Recording::new(CHECKED, 0);
    let (ring, io, device) = segmented(5 * BLOCK, &framing);
    ring.append_durable(&[1; 8]).expect("no failure");
    assert!(!ring.roll(), "nothing is staged");
    let extent = ring.append(&[2; 8]).expect("room");
    assert_eq!(ring.wait_durable_timeout(extent.end(), Duration::from_millis(50)), Err(RingError::TimedOut));
    // Appends go on meanwhile, in the segment that is not there yet.
    let next = ring.append(&[3; 8]).expect("room");
    assert_eq!(next.start(), SEGMENT + HEADER as u64);
    thread::scope(|scope| {
        let commits = [extent, next].map(|extent| {
            let ring = &ring;
            scope.spawn(move || ring.wait_durable(extent.end()))
        });
        thread::sleep(Duration::from_millis(20));
        assert!(commits.iter().all(|commit| !commit.is_finished()));
        io.add_segment(1, segment(&device)).expect("it is new");
        commits.into_iter().for_each(|commit| commit.join().expect("no panic").expect("no failure"));
    });
    let last: Vec<_> = framing.batches().iter().map(|(info, _)| (info.base / BLOCK as u64, info.last)).collect();
    assert_eq!(last, [(0, false), (1, true), (10, false)]);
}

#[test]
fn a_log_in_segments_needs_frames_and_room_for_a_buffer() {
    let device = MemoryDevice::new();
    let io = |start| {
        let segments = [(0, segment(&device))];
        QuikIO::options().start_at(start).segments(SEGMENT, segments).expect("a valid segment")
    };
    let build = |start, buffer_size, framing: Option<Arc<Recording>>| {
        let io_instance = Some(Arc::new(io(start)));
        let ring =
            BufferRing::builder(BufferRingOptions { capacity: 2, buffer_size, io_instance, ..Default::default() });
        framing.map_or(ring.clone(), |framing| ring.framing(framing)).build().map(drop)
    };
    let framed = || Some(Recording::new(CHECKED, 0));
    assert_eq!(build(0, BLOCK, None), Err(OptionsError::SegmentsWithoutFrames));
    let refused = OptionsError::SegmentSize { segment_size: SEGMENT, buffer_size: 11 * BLOCK };
    assert_eq!(build(0, 11 * BLOCK, framed()), Err(refused));
    for (start, buffer_size, fits) in [(0, 10, true), (4096, 10, false), (4096, 9, true), (9 * 4096, 1, true)] {
        let expected = if fits { Ok(()) } else { Err(OptionsError::SegmentFull { start }) };
        assert_eq!(build(start, buffer_size * BLOCK, framed()), expected);
    }
}
