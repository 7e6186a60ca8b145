//! What the machine can do. None of these is a log: they show what a log could cost at best.

use std::hint::black_box;
use std::io::IoSlice;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use ring_alloc::Arena;
use rustix::io::ReadWriteFlags;
use std::os::fd::AsRawFd;

use super::prepared;
use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::measure::{Amount, Job, Meters, Sample, histogram};
use crate::stamp::Record;

pub const COPY: Contestant = Contestant::of::<Copy<false>>(Family::Limit, "private copy");
pub const COPY_TO_SHARE: Contestant = Contestant::of::<Copy<true>>(Family::Limit, "private copy, a share each");
pub const CHUNKS: Contestant = Contestant::of::<Chunks>(Family::Limit, "shared memory, 64 KiB at once");
pub const ADDITIONS: Contestant = Contestant::of::<Additions>(Family::Limit, "two fetch_adds + copy");
pub const LOOP: Contestant = Contestant::program(Family::Limit, "bare io_uring loop", |job| io_uring_loop(job, false));
pub const COPY_LOOP: Contestant =
    Contestant::program(Family::Limit, "copy + io_uring loop", |job| io_uring_loop(job, true));
pub const OVERWRITE: Contestant = Contestant::program(Family::Limit, "dsync overwrite loop", dsync_overwrite);
pub const FIO: Contestant = Contestant::program(Family::Limit, "fio, dsync overwrite", fio);

/// Bytes that a thread has for itself.
pub struct PrivateRegion {
    start: *mut u8,
    len: usize,
    next: usize,
}

impl PrivateRegion {
    fn place(&mut self, record: &[u8]) {
        if self.len - self.next < record.len() {
            self.next = 0;
        }
        // SAFETY: `next` is at most `len`, the length of the region.
        let target = unsafe { self.start.add(self.next) };
        // SAFETY: the record fits behind `next`, and the region is this thread's alone.
        unsafe { target.copy_from_nonoverlapping(record.as_ptr(), record.len()) };
        self.next += record.len();
        black_box(target);
    }
}

/// Each thread copies into memory of its own: as much as a ring has, since that is what a thread's appends go through
/// there, or, with `SHARED`, a part of it. Such a part may stay in the cache of one processor, where no log can stay
/// that others write too.
pub struct Copy<const SHARED: bool> {
    arena: Arena,
    len: usize,
}

impl<const SHARED: bool> Log for Copy<SHARED> {
    type Writer<'a> = PrivateRegion;

    fn open(place: &Place) -> Outcome<Self> {
        let parts = if SHARED { place.threads } else { 1 };
        let len = (place.memory / parts).next_multiple_of(4096);
        let arena = Arena::new(place.threads, len)?;
        touch(&arena);
        Ok(Self { arena, len })
    }

    fn writer(&self, thread: usize) -> PrivateRegion {
        PrivateRegion { start: self.arena.address(thread), len: self.len, next: 0 }
    }
}

impl Writer for PrivateRegion {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.place(record);
    }
}

/// One memory for all threads, of which each takes a chunk at a time and fills it alone. Another processor may have
/// filled the same bytes a lap before: what moving them between the caches costs, no log that threads share can save.
pub struct Chunks {
    next: AtomicU64,
    arena: Arena,
}

const CHUNK: usize = 64 << 10;

impl Log for Chunks {
    type Writer<'a> = ChunkWriter<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        assert!(place.memory.is_multiple_of(CHUNK), "chunks must not wrap");
        let arena = Arena::new(1, place.memory)?;
        touch(&arena);
        Ok(Self { next: AtomicU64::new(0), arena })
    }

    fn writer(&self, _: usize) -> ChunkWriter<'_> {
        ChunkWriter { log: self, chunk: PrivateRegion { start: self.arena.address(0), len: 0, next: 0 } }
    }
}

/// One thread's chunk.
pub struct ChunkWriter<'a> {
    log: &'a Chunks,
    chunk: PrivateRegion,
}

impl Writer for ChunkWriter<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        if self.chunk.len - self.chunk.next < record.len() {
            let offset =
                self.log.next.fetch_add(CHUNK as u64, Ordering::Relaxed) as usize % self.log.arena.buffer_size();
            self.chunk = PrivateRegion { start: self.log.arena.address(0).wrapping_add(offset), len: CHUNK, next: 0 };
        }
        self.chunk.place(record);
    }
}

/// One word for all threads: an addition to seize a range, one to leave it, and nothing else that a ring would need.
pub struct Additions {
    word: AtomicU64,
    arena: Arena,
    mask: usize,
}

impl Log for Additions {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        assert!(place.memory.is_power_of_two() && place.memory.is_multiple_of(place.size), "ranges must not wrap");
        let arena = Arena::new(1, place.memory)?;
        touch(&arena);
        Ok(Self { word: AtomicU64::new(0), arena, mask: place.memory - 1 })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }
}

impl Writer for &Additions {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        const WRITER: u64 = 1 << 8;
        let before = self.word.fetch_add((record.len() as u64) << 32 | WRITER, Ordering::Acquire);
        let offset = (before >> 32) as usize & self.mask;
        // SAFETY: `mask` keeps the offset inside the mapping, and the record's length divides its size.
        let target = unsafe { self.arena.address(0).add(offset) };
        // SAFETY: the range is this thread's alone, until others have gone round a whole arena: bytes that are never
        // read.
        unsafe { target.copy_from_nonoverlapping(record.as_ptr(), record.len()) };
        // A ring has to look at the answer, too.
        black_box(self.word.fetch_sub(WRITER, Ordering::Release));
    }
}

/// Page faults belong to no measurement.
fn touch(arena: &Arena) {
    for index in 0..arena.count() {
        for offset in (0..arena.buffer_size()).step_by(4096) {
            // SAFETY: inside the buffer.
            let page = unsafe { arena.address(index).add(offset) };
            // SAFETY: no other thread has the arena yet.
            unsafe { page.write(0) };
        }
    }
}

/// Writes of 1 MiB from registered huge pages, four in flight, over what has been written before.
fn io_uring_loop(job: &Job, copying: bool) -> Outcome<Sample> {
    const DEPTH: usize = 4;
    const CHUNK: usize = 1 << 20;
    let (place, total) = (&job.place, job.place.expected);
    let file = prepared(&place.folder.join("limit"), total)?;
    let arena = Arena::new(DEPTH, CHUNK)?;
    touch(&arena);
    let mut ring = IoUring::new(DEPTH as u32)?;
    let vectors: Vec<_> =
        (0..DEPTH).map(|index| libc::iovec { iov_base: arena.address(index).cast(), iov_len: CHUNK }).collect();
    // SAFETY: the arena is declared before the ring goes, and outlives it by the explicit drop below.
    unsafe { ring.submitter().register_buffers(&vectors)? };
    ring.submitter().register_files(&[file.as_raw_fd()])?;

    let mut record = Record::new(0, place.size);
    let meters = Meters::read(place);
    let start = Instant::now();
    let (mut sent, mut in_flight) = (0, 0);
    let mut idle: Vec<_> = (0..DEPTH).collect();
    while sent < total || in_flight > 0 {
        while sent < total
            && let Some(index) = idle.pop()
        {
            if copying {
                let mut region = PrivateRegion { start: arena.address(index), len: CHUNK, next: 0 };
                for _ in 0..CHUNK / place.size {
                    region.place(record.next());
                }
            }
            let entry = opcode::WriteFixed::new(types::Fixed(0), arena.address(index), CHUNK as u32, index as u16)
                .offset(sent)
                .build()
                .user_data(index as u64);
            // SAFETY: the buffer is not touched until its completion is seen, and stays mapped.
            unsafe { ring.submission().push(&entry)? };
            sent += CHUNK as u64;
            in_flight += 1;
            ring.submit()?;
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            if completion.result() != CHUNK as i32 {
                return Err(format!("a write of {CHUNK} bytes came back with {}", completion.result()).into());
            }
            idle.push(completion.user_data() as usize);
            in_flight -= 1;
        }
    }
    file.sync_data()?;
    let sample = meters.sample(place, start, total / place.size as u64);
    drop(ring);
    drop(arena);
    Ok(sample)
}

/// A block of 4 KiB at a time, over what has been written before, each on stable storage before the next.
fn dsync_overwrite(job: &Job) -> Outcome<Sample> {
    const SPACE: u64 = 16 << 20;
    let (place, Amount::For(time)) = (&job.place, job.amount) else { return Err("needs a time".into()) };
    let file = prepared(&place.folder.join("limit"), SPACE)?;
    let block = ring_alloc::Buffer::zeroed(4096)?;
    let mut latency = histogram();
    let meters = Meters::read(place);
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        let before = Instant::now();
        let offset = count * 4096 % SPACE;
        rustix::io::pwritev2(&file, &[IoSlice::new(&block)], offset, ReadWriteFlags::DSYNC)?;
        latency.saturating_record(before.elapsed().as_nanos() as u64);
        count += 1;
    }
    Ok(Sample { latency: Some(latency), ..meters.sample(place, start, count) })
}

/// The same by fio, as a second opinion.
fn fio(job: &Job) -> Outcome<Sample> {
    let (place, Amount::For(time)) = (&job.place, job.amount) else { return Err("needs a time".into()) };
    prepared(&place.folder.join("limit"), 16 << 20)?;
    let meters = Meters::read(place);
    let start = Instant::now();
    let output = Command::new("fio")
        .args(["--name=dsync", "--rw=write", "--bs=4k", "--size=16m", "--sync=dsync", "--direct=1", "--ioengine=psync"])
        .args(["--overwrite=1", "--time_based", "--output-format=json"])
        .arg(format!("--runtime={}ms", time.as_millis()))
        .arg(format!("--filename={}", place.folder.join("limit").display()))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..])?;
    let write = &json["jobs"][0]["write"];
    let count = write["total_ios"].as_u64().ok_or("fio tells no count")?;
    let wall = Duration::from_millis(write["runtime"].as_u64().ok_or("fio tells no time")?);
    Ok(Sample { wall, ..meters.sample(place, start, count) })
}

/// Whether there is a fio to ask.
pub fn has_fio() -> bool {
    Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success())
}
