//! What a log says of itself while it is open: no batch, trim or settled address goes beyond what is so.

mod common;

use std::io::IoSlice;
use std::path::Path;

use common::open::{SEGMENT, payload, reopen, small};
use ringlog::Log;
use ringlog::directory::{Directory, DiskDirectory};
use ringlog::format::{BLOCK, BatchHeader, FirstBatch, HEADER_LEN, Manifest, SEGMENT_HEADER_LEN};
use ringlog::manifest::ManifestFile;
use ringlog::segment::file_name;

/// The files of a log, as they are now.
struct Files {
    directory: DiskDirectory,
    manifest: Manifest,
}

impl Files {
    fn of(path: &Path) -> Self {
        let directory = DiskDirectory::open(path).expect("a log");
        let manifest = ManifestFile::read(&directory, false).expect("readable").expect("a log").content().clone();
        Self { directory, manifest }
    }

    /// The header of the batch at `address`, if one begins there.
    fn header(&self, address: u64) -> Option<BatchHeader> {
        let file = self.directory.open(&file_name(address / SEGMENT * SEGMENT), false).expect("a segment");
        let mut bytes = [0; HEADER_LEN];
        let at = SEGMENT_HEADER_LEN as u64 + address % SEGMENT;
        self.directory.read_at(&file, &mut bytes, at).expect("readable");
        BatchHeader::decode_at(&bytes, &self.manifest.key, self.manifest.log_id, address).ok()
    }
}

#[test]
fn no_batch_promises_what_no_sync_has_covered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    for n in 0..100 {
        log.append(1, &payload(n, 1000)).expect("no failure");
    }
    let end = log.end().get();
    log.sync().expect("no failure");
    let files = Files::of(folder.path());
    let headers: Vec<_> = (0..end).step_by(BLOCK).filter_map(|address| files.header(address)).collect();
    assert!(headers.len() > 10, "{}", headers.len());
    for header in headers {
        // Sealed before the first sync ended.
        assert_eq!(header.durable, 0, "the batch at {}", header.address);
    }
}

#[test]
fn a_trim_stops_where_the_log_is_durable_and_notes_the_first_batch_that_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    while log.end().get() < 2 * SEGMENT + 2000 {
        log.append(1, &payload(1, 1000)).expect("no failure");
    }
    log.sync().expect("no failure");
    // In the buffer, and nowhere else.
    let staged = log.append(2, b"staged").expect("no failure");
    let trimmed = log.trim(staged.end).expect("no failure");
    let durable = log.durable();
    let range = 2 * SEGMENT..=durable.get();
    assert!(range.contains(&trimmed.first.get()), "{trimmed:?}, durable up to {durable}");
    let files = Files::of(folder.path());
    let head = files.header(2 * SEGMENT).expect("a batch");
    let first = FirstBatch { number: head.number, previous: head.previous, epoch: Some((head.epoch, head.salt)) };
    assert_eq!(files.manifest.first, first);
}

#[test]
fn what_is_settled_is_durable_and_lies_below_each_commit_that_is_not_applied() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let commit = |log: &Log| log.commit(1, &[IoSlice::new(b"record")]).expect("no failure");
    let (first, second) = (commit(&log), commit(&log));
    assert!(log.settled() <= first.lsn());
    drop(second);
    assert!(log.settled() <= first.lsn(), "the first one is not applied");
    let end = first.end();
    drop(first);
    assert!(log.settled() >= end);
    log.append(2, b"in memory").expect("no failure");
    assert!(log.settled() <= log.durable(), "{} is not durable", log.settled());
}

#[test]
fn a_segment_that_is_used_again_gets_its_own_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = small().open(folder.path()).expect("a new log");
    let mut freed = 0;
    for n in 0..400 {
        let end = log.commit(1, &[IoSlice::new(&payload(n, 1000))]).expect("no failure").end();
        freed += log.trim(end).expect("no failure").bytes;
    }
    assert!(freed > 10 * SEGMENT);
    drop(log);
    let (_log, recovery, _) = reopen(small(), folder.path());
    assert_eq!(recovery.bad_segment_headers, [""; 0]);
}
