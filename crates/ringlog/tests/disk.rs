//! Recovery on a real file system: what a directory in memory cannot show.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use buffer_ring::ring_io::make_direct;
use ringlog::directory::{Directory, DiskDirectory};
use ringlog::format::{BatchInfo, HEADER_LEN, NO_ADDRESS, RecordHeader, RecordType, trailer_len};
use ringlog::recovery::{Item, Recover, Replay, Verdict, Verify, replay, verify};
use ringlog::segment::file_name;
use ringlog::{Log, OpenError};
use rustix::fs::OFlags;

const SIZE: u64 = 1 << 20;

fn recover() -> Recover {
    Recover::new().segment_size(SIZE)
}

/// Opens the log, appends one batch, and leaves without closing.
fn append(directory: &DiskDirectory, payload: &[u8]) -> u64 {
    let opened = recover().open(directory).unwrap();
    let report = opened.report();
    let base = report.end.get();
    let record = RecordHeader { len: payload.len() as u32, blocks_back: 0, record_type: RecordType::Record, kind: 1 };
    let payload_len = record.padded_len() as u32;
    let mut bytes = vec![0; HEADER_LEN + payload_len as usize + trailer_len(payload_len)];
    bytes[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&record.encode());
    bytes[HEADER_LEN + 8..][..payload.len()].copy_from_slice(payload);
    let next_base = base + bytes.len() as u64;
    let info = BatchInfo {
        base,
        generation: 0,
        previous: report.previous,
        next_base,
        last: false,
        payload_len,
        durable: base,
    };
    opened.framing().seal(&mut bytes, info);
    let file = directory.open(&file_name(base / SIZE * SIZE), true).unwrap();
    directory.write_at(&file, &bytes, 4096 + base % SIZE).unwrap();
    directory.sync_file(&file).unwrap();
    base
}

#[test]
fn a_log_on_disk_is_made_written_closed_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let directory = DiskDirectory::create(folder.path().join("log")).unwrap();
    for n in 0..10_u8 {
        assert_eq!(append(&directory, &[n; 100]), u64::from(n) * 4096);
    }
    let mut opened = recover().open(&directory).unwrap();
    assert_eq!((opened.report().batches, opened.report().epoch), (10, 10));
    let end = opened.report().end.get();
    opened.close(&directory, end).unwrap();
    drop(opened);
    let report = verify(&directory, &Verify::new()).unwrap();
    assert_eq!((report.verdict.clone(), report.end.get()), (Verdict::Clean, end));
    let mut found = Vec::new();
    let each = |item: Item<'_>| {
        if let Item::Record(record) = item {
            found.push(record.payload[0]);
        }
        Ok::<_, core::convert::Infallible>(())
    };
    replay(&directory, &report, &Replay::new(), each).unwrap();
    assert_eq!(found, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_second_opener_gets_the_name_of_the_locked_file_and_a_reader_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let directory = DiskDirectory::open(folder.path()).unwrap();
    let opened = recover().open(&directory).unwrap();
    match recover().open(&directory) {
        Err(OpenError::Locked { file }) => assert_eq!(file, "LOCK"),
        other => panic!("{other:?}"),
    }
    assert!(verify(&directory, &Verify::new()).is_ok());
    drop(opened);
    // A writer that was killed: its I/O keeps a segment open, and locked.
    let segment = directory.lock(&file_name(0)).unwrap();
    assert!(matches!(recover().open(&directory), Err(OpenError::Locked { file }) if file == file_name(0)));
    drop(segment);
    assert!(recover().open(&directory).is_ok());
}

#[test]
fn files_in_the_way_are_errors_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let directory = DiskDirectory::open(folder.path()).unwrap();
    append(&directory, b"first");
    // A folder in the place of a segment.
    fs::create_dir(folder.path().join(file_name(5 * SIZE))).unwrap();
    match verify(&directory, &Verify::new()) {
        Err(OpenError::Io { file, .. }) => assert_eq!(file, file_name(5 * SIZE)),
        other => panic!("{other:?}"),
    }
    fs::remove_dir(folder.path().join(file_name(5 * SIZE))).unwrap();
    // Names that are not the log's do not matter.
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(folder.path().join("folder.seg")).unwrap();
    assert!(verify(&directory, &Verify::new()).is_ok());
    // A file cut in the middle of its only batch: no promise covers it.
    let path = folder.path().join(file_name(0));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..4096 + 40]).unwrap();
    assert_eq!(verify(&directory, &Verify::new()).unwrap().verdict, Verdict::Unclosed);
    fs::write(&path, &bytes).unwrap();
    // A sparse file of any length is read no further than its segment.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let report = verify(&directory, &Verify::new()).unwrap();
    assert_eq!((report.batches, report.previous), (1, 0));
    assert_ne!(report.previous, NO_ADDRESS);
}

#[test]
fn a_directory_without_permission_is_an_error_and_a_read_only_log_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let directory = DiskDirectory::create(&path).unwrap();
    append(&directory, b"first");
    for entry in fs::read_dir(&path).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o444)).unwrap();
    }
    assert_eq!(verify(&directory, &Verify::new()).unwrap().batches, 1);
    assert!(DiskDirectory::open(folder.path().join("missing")).is_err());
    assert!(DiskDirectory::open(path.join("LOCK")).is_err());
}

#[test]
fn segments_are_written_past_the_kernels_cache_where_it_can_be() {
    const DIRECT: u32 = OFlags::DIRECT.bits();
    let folder = tempfile::tempdir().unwrap();
    let plain = File::create(folder.path().join("plain")).unwrap();
    let can_be = make_direct(&plain);
    let (log, _) = Log::options().segment_size(SIZE).ring(4, 64 << 10).open(folder.path().join("log")).unwrap();
    for _ in 0..40 {
        log.append(0, &[1; 60_000]).unwrap();
    }
    log.sync().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let is_segment = |path: &Path| path.starts_with(folder.path()) && path.extension() == Some("seg".as_ref());
        if fs::read_link(entry.path()).is_ok_and(|path| is_segment(&path)) {
            let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let is_direct = u32::from_str_radix(flags, 8).unwrap() & DIRECT != 0;
            seen += u32::from(is_direct == can_be);
        }
    }
    assert!(seen > 0, "{can_be}");
}
