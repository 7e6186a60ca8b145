//! Does a known number of appends, so that others can count what they cost: `valgrind` the instructions, `strace` the
//! system calls, the allocator below the allocations, the kernel the bytes. Nothing here depends on time. `cargo xtask
//! counts` starts it and knows what is allowed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use buffer_ring::{BufferRing, BufferRingOptions, Extent, ONE_MEGABYTE_BLOCK, QuikIO};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of a record.
const SIZE: usize = 64;
const WARM: usize = 1000;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let count = |index: usize| arguments.get(index).and_then(|count| count.parse().ok()).expect("a number of records");
    match arguments.first().map(String::as_str) {
        Some("append") => appends(count(1)),
        Some("writer") => writer(count(1)),
        Some("stream") => stream(count(1)),
        _ => eprintln!("counts append <records> | writer <records> | stream <records>"),
    }
}

/// A number of appends that find room in the current buffer, between two system calls that mark them.
fn appends(count: usize) {
    let ring = ring(2, 4 * ONE_MEGABYTE_BLOCK, None);
    between_marks(count, |record| ring.append(record).expect("there is room"));
}

/// The same through a writer.
fn writer(count: usize) {
    let ring = ring(2, 4 * ONE_MEGABYTE_BLOCK, None);
    let mut writer = ring.writer();
    between_marks(count, |record| writer.append(record).expect("there is room"));
}

#[inline(always)]
fn between_marks(count: usize, mut append: impl FnMut(&[u8]) -> Extent) {
    assert!((count + WARM) * SIZE <= 4 * ONE_MEGABYTE_BLOCK, "more than a buffer holds");
    let record = [1; SIZE];
    // What a thread does once in its life, and a writer until its leases have grown.
    for _ in 0..WARM {
        append(&record);
    }
    mark();
    let before = ALLOCATIONS.get();
    for _ in 0..count {
        black_box(append(black_box(&record)));
    }
    let allocations = ALLOCATIONS.get() - before;
    mark();
    println!("allocations {allocations}");
    println!("records {count}");
}

/// So many appends, through as many buffers as that takes, to a file.
fn stream(count: usize) {
    let folder = tempfile::tempdir_in("target").expect("a folder");
    let io = QuikIO::open(folder.path().join("log")).expect("a file");
    let direct = io.is_direct();
    let ring = ring(4, ONE_MEGABYTE_BLOCK, Some(io));
    let before = process_bytes();
    let record = [1; SIZE];
    for _ in 0..count {
        ring.append(&record).expect("the ring takes it");
    }
    let stats = ring.sync().map(|_| ring.stats()).expect("the device takes it");
    println!("records {}", stats.records_appended);
    println!("buffers {}", (count * SIZE).div_ceil(ONE_MEGABYTE_BLOCK));
    println!("flushes {}", stats.buffers_flushed);
    let end = ring.close().expect("the device takes it");
    println!("payload {}", count * SIZE);
    println!("log {end}");
    // The kernel's cache writes when it likes.
    if direct {
        println!("device {}", process_bytes() - before);
    }
}

fn ring(capacity: usize, buffer_size: usize, io: Option<QuikIO>) -> BufferRing {
    let options = BufferRingOptions { capacity, buffer_size, io_instance: io.map(Arc::new), ..Default::default() };
    BufferRing::with_options(options)
}

/// A system call to be found in a trace.
fn mark() {
    // SAFETY: it has no effect at all.
    unsafe { libc::getppid() };
}

fn process_bytes() -> u64 {
    let all = fs::read_to_string("/proc/self/io").unwrap_or_default();
    all.lines().find_map(|line| line.strip_prefix("write_bytes: ")).and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
