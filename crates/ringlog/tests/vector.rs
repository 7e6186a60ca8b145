//! The format test vector: small checked-in logs, and what every later release must read from them.
//!
//! `RINGLOG_WRITE_VECTOR=1 cargo test -p ringlog --test vector` writes them anew. That is right only for a log that
//! no release has written; a format that changes gets a vector of its own, beside this one.

mod common;

use core::convert::Infallible;
use core::fmt::Write;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use common::oracle;
use common::world::{answer, how, recover};
use ringlog::directory::{Directory, DiskDirectory, MemoryDirectory};
use ringlog::format::{Metadata, Position, RecordType, Snapshot, SnapshotEntry, Truncation};
use ringlog::recovery::{Item, OnDamage, Replay, replay, verify};
use ringlog::segment::file_name;
use ringlog::testing::{LongRecord, Payload, ReferenceWriter};

const SIZE: u64 = 16 << 10;
const EXPECTED: &str = "expected.txt";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vector")
}

/// Every kind of record, two epochs, three segments, a trim, an empty batch at a roll.
fn every_kind() -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    let how = |seed| recover(SIZE, seed).cookie("vector");
    let mut writer = ReferenceWriter::open(&directory, how(1), 4096).unwrap();
    let mut batch = writer.batch();
    batch.record(7, b"hello").unwrap();
    batch.filler(24);
    batch.record(0, b"").unwrap();
    batch.group(&[Payload { kind: 1, bytes: b"one" }, Payload { kind: 2, bytes: b"two" }]).unwrap();
    batch.push(RecordType::Metadata, 0, &Metadata { name: b"vote", value: b"7" }.encode()).unwrap();
    batch.push(RecordType::Cursor, 0, &Position { position: 72, name: b"mailer" }.encode()).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    writer.submit_empty(true).unwrap();
    writer.settle().unwrap();
    let mut long = LongRecord::new(3, (0..6000_u32).map(|n| (n % 251) as u8).collect());
    loop {
        let mut batch = writer.batch();
        let done = long.place(&mut batch, 2500);
        batch.record(4, b"between its parts").unwrap();
        writer.submit(batch, false, false).unwrap();
        writer.settle().unwrap();
        if done.is_some() {
            break;
        }
    }
    drop(writer);
    let mut writer = ReferenceWriter::open(&directory, how(2), 4096).unwrap();
    let mut batch = writer.batch();
    let void = batch.record(5, b"void").unwrap();
    batch.push(RecordType::Truncation, 0, &Truncation { from: void }.encode()).unwrap();
    let entries = vec![
        SnapshotEntry::Metadata(Metadata { name: b"vote", value: b"7" }),
        SnapshotEntry::Cursor(Position { position: 72, name: b"mailer" }),
        SnapshotEntry::Void { from: void, to: void + 16 },
    ];
    batch.push(RecordType::Snapshot, 0, &Snapshot { complete_to: void, records: 9, entries }.encode()).unwrap();
    batch.record(6, &[0; 16]).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    // Before the last batch, which nothing promises.
    writer.trim(72, false).unwrap();
    let mut batch = writer.batch();
    batch.record(8, &[0xAB; 3000]).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    drop(writer);
    directory
}

fn change(directory: &MemoryDirectory, address: u64, bytes: &[u8]) {
    let name = file_name(address / SIZE * SIZE);
    let mut file = directory.contents()[&name].to_vec();
    let at = 4096 + (address % SIZE) as usize;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    directory.put(&name, file);
}

/// The logs of the vector, by their names.
fn logs() -> BTreeMap<&'static str, MemoryDirectory> {
    let unclosed = every_kind().power_cut(0);
    let last = verify(&unclosed, &how()).unwrap().previous;
    let closed = unclosed.fork();
    ReferenceWriter::open(&closed, recover(SIZE, 3), 4096).unwrap().close().unwrap();
    let torn = unclosed.fork();
    change(&torn, last + 1024, &[0; 512]);
    let headless = unclosed.fork();
    change(&headless, last, &[0; 512]);
    let zeros = unclosed.fork();
    change(&zeros, SIZE, &[0; 4096]);
    let bit = unclosed.fork();
    change(&bit, SIZE + 4096 + 2000, &[0x55]);
    let missing = unclosed.fork();
    missing.remove(&file_name(SIZE));
    let skipped = bit.fork();
    drop(recover(SIZE, 4).on_damage(OnDamage::Skip).open(&skipped).unwrap());
    [
        ("unclosed", unclosed),
        ("clean", closed.power_cut(0)),
        ("torn", torn),
        ("torn-without-header", headless),
        ("damaged-zeros", zeros),
        ("damaged-byte", bit),
        ("damaged-missing-segment", missing),
        ("gap", skipped.power_cut(0)),
    ]
    .into()
}

/// Everything that must never change, as text.
fn describe<D: Directory>(directory: &D) -> String {
    let mut text = String::new();
    let report = verify(directory, &how()).unwrap();
    let _ =
        writeln!(text, "log {:016x}, segments of {} bytes, epoch {}", report.log_id, report.segment_size, report.epoch);
    let _ = writeln!(text, "{} batches, {} records, from {}", report.batches, report.records, report.first);
    let _ = writeln!(text, "next is batch {} behind {}", report.next_number, report.previous);
    let _ = writeln!(text, "end {}, promised {}", report.end, report.promised);
    let _ = writeln!(text, "{:?}", report.verdict);
    let each = |item: Item<'_>| {
        match item {
            Item::Record(record) => {
                let sum = ringlog::format::crc64(record.payload);
                let (lsn, end, kind, len) = (record.lsn, record.end, record.kind, record.payload.len());
                let _ = writeln!(text, "{lsn}..{end} kind {kind}, {len} bytes, {sum:016x}");
            }
            other => _ = writeln!(text, "{other:?}"),
        }
        Ok::<_, Infallible>(())
    };
    replay(directory, &report, &Replay::new(), each).unwrap();
    text
}

fn write_vector() {
    let _ = fs::remove_dir_all(folder());
    for (name, log) in logs() {
        let folder = folder().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in log.contents() {
            fs::write(folder.join(file), &bytes[..]).unwrap();
        }
        fs::write(folder.join(EXPECTED), describe(&log)).unwrap();
    }
}

fn write_if_asked() {
    static WRITE: Once = Once::new();
    if std::env::var_os("RINGLOG_WRITE_VECTOR").is_some() {
        WRITE.call_once(write_vector);
    }
}

#[test]
fn the_checked_in_logs_give_the_same_answer_for_ever() {
    write_if_asked();
    let mut logs = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let directory = DiskDirectory::open(&path).unwrap();
        let expected = fs::read_to_string(path.join(EXPECTED)).unwrap();
        assert_eq!(describe(&directory), expected, "{}", path.display());
        let names = directory.list().unwrap().into_iter();
        let files = names.map(|name| (name.clone(), Arc::new(fs::read(path.join(name)).unwrap()))).collect();
        assert_eq!(answer(&verify(&directory, &how())).unwrap(), oracle::judge(&files), "{}", path.display());
        logs += 1;
    }
    assert_eq!(logs, 8);
}

#[test]
fn the_writer_still_writes_the_checked_in_bytes() {
    write_if_asked();
    for (name, log) in logs() {
        for (file, bytes) in log.contents() {
            let path = folder().join(name).join(file);
            assert!(fs::read(&path).is_ok_and(|checked_in| checked_in == bytes[..]), "{}", path.display());
        }
    }
}
