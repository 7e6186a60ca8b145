//! What opening a log reads, in bytes: its end, however long it is.

mod common;

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::io;

use buffer_ring::SegmentFile;
use common::open::payload;
use ringlog::Log;
use ringlog::directory::{Directory, MemoryDirectory, MemoryFile, MemoryLock};
use ringlog::recovery::{Recover, Report, Verdict, Verify};

/// Counts what is read.
#[derive(Debug)]
struct Counting {
    inner: MemoryDirectory,
    read: AtomicU64,
}

impl Directory for Counting {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn read_at(&self, file: &MemoryFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.inner.read_at(file, buffer, offset)?;
        self.read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        self.inner.create(name)
    }

    fn open(&self, name: &str, write: bool) -> io::Result<MemoryFile> {
        self.inner.open(name, write)
    }

    fn write_at(&self, file: &MemoryFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(file, bytes, offset)
    }

    fn len(&self, file: &MemoryFile) -> io::Result<u64> {
        self.inner.len(file)
    }

    fn extend(&self, file: &MemoryFile, len: u64, written: u64) -> io::Result<()> {
        self.inner.extend(file, len, written)
    }

    fn segment_file(&self, file: MemoryFile, addresses: Range<u64>) -> SegmentFile {
        self.inner.segment_file(file, addresses)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.inner.unlink(name)
    }

    fn sync_file(&self, file: &MemoryFile) -> io::Result<()> {
        self.inner.sync_file(file)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.inner.sync_parent()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn lock(&self, name: &str) -> io::Result<Option<MemoryLock>> {
        self.inner.lock(name)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.inner.is_locked(name)
    }
}

/// Bytes that opening a copy of the directory reads, and what it finds.
fn opened(directory: &MemoryDirectory, fast: bool) -> (u64, Report) {
    let counting = Counting { inner: directory.fork(), read: AtomicU64::new(0) };
    let opened = Recover::new().verify(Verify::new().fast(fast).threads(1)).open(&counting).expect("a log");
    (counting.read.load(Relaxed), opened.report().clone())
}

/// Two of the windows that a segment is read through.
const SEGMENT: u64 = 2 << 20;

#[test]
fn opening_a_long_log_after_a_crash_reads_its_end_only() {
    let directory = MemoryDirectory::new();
    let options = Log::options().ring(4, 64 << 10).segment_size(SEGMENT).directory(&directory);
    let (log, _) = options.open("").expect("a log");
    log.set_meta("vote", b"7").expect("room");
    for n in 0..900 {
        let at = log.append(0, &payload(n, 60_000)).expect("room");
        if n % 10 == 0 {
            log.wait_durable(at.end).expect("durable");
        }
    }
    // The thread that repeats the named value in each segment may be late.
    let (image, segments, headers) = (0..)
        .find_map(|round| {
            let at = log.append(0, &payload(round, 60_000)).expect("room");
            log.wait_durable(at.end).expect("durable");
            let image = directory.power_cut(round as u64);
            let segments = log.segments().len() as u64;
            // Each segment's header is looked at, and there may be up to three that are not used yet.
            let headers = (segments + 3) * 4096;
            assert!(round < 200, "it is never repeated");
            (opened(&image, true).0 < headers + 3 * SEGMENT).then_some((image, segments, headers))
        })
        .expect("it ends");
    assert!(segments > 20, "{segments}");
    drop(log);
    let ((read, fast), (all, full)) = (opened(&image, true), opened(&image, false));
    assert!(!matches!(fast.verdict, Verdict::Damaged(_)), "{fast:?}");
    assert_eq!((fast.end, &fast.verdict, fast.meta("vote")), (full.end, &full.verdict, Some(&b"7"[..])));
    println!("{segments} segments of {SEGMENT} bytes: {} read beside headers, {all} by a full opening", read - headers);
    assert!(all > segments * SEGMENT, "{all}");
}
