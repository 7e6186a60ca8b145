//! Mutated logs whose checksums and signatures are right again, so that the mutation reaches the code behind them;
//! and random bytes.
//!
//! Nothing may panic, and nothing may be changed by a refusal. `RINGLOG_FUZZ` sets the number of inputs,
//! `RINGLOG_SEED` the first seed.

mod common;

use core::convert::Infallible;
use core::mem::discriminant;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::world::{how, recover};
use ringlog::OpenError;
use ringlog::directory::MemoryDirectory;
use ringlog::format::{
    BLOCK, BatchHeader, BatchInfo, Framing, HEADER_LEN, Layout, Manifest, Metadata, NO_ADDRESS, RecordRefusal,
    RecordType, Snapshot, SnapshotEntry, crc64, payload_capacity, trailer_len,
};
use ringlog::manifest;
use ringlog::recovery::{OnDamage, Replay, replay, verify};
use ringlog::segment::file_name;
use ringlog::testing::{LongRecord, Payload, Random, ReferenceWriter};

const SIZE: u64 = 16 << 10;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A log with every kind of record, in batches of one block.
fn log(seed: u64) -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    let mut writer = ReferenceWriter::open(&directory, recover(SIZE, seed), 4096).unwrap();
    let mut long = LongRecord::new(9, vec![5; 5000]);
    for n in 0..6_u8 {
        let mut batch = writer.batch();
        let first = batch.record(n, &[n; 50]).unwrap();
        batch.group(&[Payload { kind: 1, bytes: b"one" }, Payload { kind: 2, bytes: b"" }]).unwrap();
        batch.push(RecordType::NoOp, 0, &[]).unwrap();
        batch.push(RecordType::Metadata, 0, &Metadata { name: b"vote", value: b"7" }.encode()).unwrap();
        batch.push(RecordType::Cursor, 0, &[0; 12]).unwrap();
        batch.push(RecordType::Truncation, 0, &first.to_le_bytes()).unwrap();
        let entries = vec![SnapshotEntry::Void { from: 0, to: 8 }];
        batch.push(RecordType::Snapshot, 0, &Snapshot { complete_to: 0, records: 0, entries }.encode()).unwrap();
        batch.filler(40);
        long.place(&mut batch, 1200);
        writer.submit(batch, false, false).unwrap();
        if n % 2 == 0 || n == 5 {
            writer.settle().unwrap();
        }
    }
    drop(writer);
    directory.power_cut(0)
}

fn content(directory: &MemoryDirectory) -> Manifest {
    let slot = directory.contents()[manifest::NAME][..4096].try_into().unwrap();
    Manifest::decode(&slot).unwrap()
}

fn put(directory: &MemoryDirectory, name: &str, at: usize, bytes: &[u8]) {
    let mut file = directory.contents().get(name).map_or_else(Vec::new, |file| file.to_vec());
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    directory.put(name, file);
}

/// A few bytes become others: random ones, or such as break comparisons.
fn mutate(random: &mut Random, bytes: &mut [u8], at: usize, len: usize) {
    for _ in 0..1 + random.below(3) {
        let at = at + random.below(len);
        let value = match random.below(4) {
            0 => vec![1 << random.below(8) ^ bytes[at]],
            1 => random.pick(&[0, 1, 8, 0x7FFF_FFFF, u64::MAX, 4096, 1 << 40]).to_le_bytes()
                [..random.pick(&[1, 2, 4, 8])]
                .to_vec(),
            2 => vec![0; random.pick(&[1, 8, 64])],
            _ => vec![random.next() as u8],
        };
        let len = value.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&value[..len]);
    }
}

/// Mutates the batch at `base` and seals it again with its new content.
fn mutate_batch(random: &mut Random, directory: &MemoryDirectory, manifest: &Manifest, base: u64) {
    let (name, at) = (file_name(base / SIZE * SIZE), 4096 + (base % SIZE) as usize);
    let mut bytes = directory.contents()[&name][at..at + 4096].to_vec();
    let head =
        BatchHeader::decode_at(bytes[..HEADER_LEN].as_array().unwrap(), &manifest.key, manifest.log_id, base).unwrap();
    let records = head.payload_len as usize;
    match random.below(8) {
        0 => {
            // The header; only the signature is right again.
            mutate(random, &mut bytes, 5, 59);
            let signature = manifest.key.sign(&bytes[..64]);
            bytes[64..72].copy_from_slice(&signature.to_le_bytes());
        }
        kind => {
            // Headers of records more often than their bytes.
            if kind < 5 {
                let mut at = HEADER_LEN;
                for _ in 0..random.below(8) {
                    let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
                    let next = at + 8 + len.next_multiple_of(8);
                    at = if next + 24 < HEADER_LEN + records { next } else { at };
                }
                mutate(random, &mut bytes, at, 24);
            } else {
                mutate(random, &mut bytes, HEADER_LEN, records);
            }
            let BatchHeader { previous, payload_len, durable, flags, .. } = head;
            let next_base = if flags.last { (base / SIZE + 1) * SIZE } else { base + 4096 };
            let start = if flags.opens_epoch { base } else { u64::MAX };
            let framing = Framing::new(manifest.key, head.log_id, head.epoch, head.salt, start, head.number);
            let info = BatchInfo { base, generation: 0, previous, next_base, last: flags.last, payload_len, durable };
            framing.seal(&mut bytes, info);
        }
    }
    put(directory, &name, at, &bytes);
}

/// Everything that reads or opens a log. Only that it comes to an end matters, and that a refusal changes nothing.
fn everything(random: &mut Random, directory: &MemoryDirectory) -> Result<u64, OpenError> {
    let fast = verify(directory, &how().fast(true));
    let judged = verify(directory, &how());
    if let (Ok(fast), Ok(full)) = (&fast, &judged) {
        assert!(fast.checked_from >= full.checked_from);
    }
    if let Ok(report) = &judged {
        let how = Replay::new().max_record(1 << 20);
        let _ = replay(directory, report, &how, |_| Ok::<_, Infallible>(()));
    }
    if random.chance(20) {
        let what = random.pick(&[OnDamage::Refuse, OnDamage::SetAside, OnDamage::Skip]);
        let before = directory.contents();
        let opened = recover(SIZE, random.next()).on_damage(what).open(directory);
        match opened {
            Ok(opened) => {
                let end = opened.report().end;
                drop(opened);
                // A log that was opened once opens again.
                assert!(verify(directory, &how()).is_ok_and(|report| report.end == end));
            }
            Err(OpenError::Io { .. }) => {}
            Err(_) => assert_eq!(directory.contents(), before, "a refusal has changed something"),
        }
    }
    judged.map(|report| report.end.get())
}

#[test]
fn no_mutated_log_makes_recovery_panic_and_most_reach_the_records() {
    let inputs = env("RINGLOG_FUZZ", if cfg!(debug_assertions) { 2_000 } else { 60_000 });
    let first = env("RINGLOG_SEED", 1);
    let logs: Vec<_> = (0..3).map(log).collect();
    let (mut reached, mut refusals, mut errors) = (0, BTreeSet::new(), Vec::new());
    for seed in first..first + inputs {
        let mut random = Random::new(seed);
        let directory = random.pick(&[0, 1, 2]);
        let directory = logs[directory].fork();
        let manifest = content(&directory);
        let base = 4096 * random.below(6) as u64;
        let input = random.below(10);
        match input {
            0 => {
                let mut slot = manifest.encode();
                mutate(&mut random, &mut slot, 8, 4000);
                let sum = crc64(&slot[..4088]);
                slot[4088..].copy_from_slice(&sum.to_le_bytes());
                let both = [slot, slot].concat();
                put(&directory, manifest::NAME, 0, if random.chance(50) { &both } else { &slot });
            }
            1 => {
                let mut header = directory.contents()[&file_name(0)][..4096].to_vec();
                mutate(&mut random, &mut header, 4, 100);
                let sum = crc64(&header[..4088]);
                header[4088..].copy_from_slice(&sum.to_le_bytes());
                put(&directory, &file_name(0), 0, &header);
            }
            _ => mutate_batch(&mut random, &directory, &manifest, base),
        }
        let judged = everything(&mut random, &directory);
        // The mutated batch itself was read, not only those before it.
        let records = match &judged {
            Ok(end) => *end > base,
            Err(OpenError::Record { address, .. }) => address / 4096 == base / 4096,
            Err(_) => false,
        };
        reached += u64::from(records && input > 1);
        if let Err(OpenError::Record { refusal, .. }) = &judged {
            refusals.insert(format!("{:?}", discriminant(refusal)));
        }
        if let Err(error) = judged
            && !errors.contains(&discriminant(&error))
        {
            errors.push(discriminant(&error));
        }
    }
    println!(
        "{inputs} inputs, {reached} reached the records; {} refusals of records, {} of logs",
        refusals.len(),
        errors.len()
    );
    assert!(reached * 2 >= inputs, "{reached} of {inputs}");
    let all = [
        RecordRefusal::Type(0),
        RecordRefusal::BlocksBack(0),
        RecordRefusal::Length(0),
        RecordRefusal::Padding,
        RecordRefusal::Payload(""),
    ];
    assert_eq!(refusals, all.iter().map(|refusal| format!("{:?}", discriminant(refusal))).collect());
    assert!(errors.len() >= 5, "BadManifest, Contradiction, Foreign, Header and Record at least");
}

#[test]
fn files_of_random_bytes_and_lengths_are_refused_or_fresh() {
    let inputs = env("RINGLOG_FUZZ", if cfg!(debug_assertions) { 200 } else { 3_000 });
    for seed in 0..inputs {
        let mut random = Random::new(seed);
        let directory = MemoryDirectory::new();
        let real = log(seed % 3);
        let names =
            [manifest::NAME, manifest::TEMPORARY, "LOCK", &file_name(0), &file_name(SIZE), &file_name(7), "other"];
        for name in names {
            let len = random.pick(&[0, 1, 511, 4095, 4096, 8192, 20_000, 40_000]);
            let byte = random.pick(&[0, 0xFF, 7]);
            let bytes = match random.below(3) {
                0 => (0..len).map(|_| random.next() as u8).collect(),
                1 => vec![byte; len],
                // A piece of a real log, cut anywhere.
                _ => real.contents().get(name).map_or_else(Vec::new, |file| file[..len.min(file.len())].to_vec()),
            };
            if random.chance(70) {
                directory.put(name, bytes);
            }
        }
        let _ = everything(&mut random, &directory);
    }
}

/// Seals `records` as the only batch of a log, and returns how it is read.
fn sealed(records: &[u8]) -> Result<u64, OpenError> {
    let directory = MemoryDirectory::new();
    let opened = recover(SIZE, 1).open(&directory).unwrap();
    let payload_len = records.len().next_multiple_of(8) as u32;
    let mut bytes = [&[0; HEADER_LEN], records].concat();
    bytes.resize(HEADER_LEN + payload_len as usize + trailer_len(payload_len), 0);
    let next_base = bytes.len() as u64;
    let info =
        BatchInfo { base: 0, generation: 0, previous: NO_ADDRESS, next_base, last: false, payload_len, durable: 0 };
    opened.framing().seal(&mut bytes, info);
    assert_eq!(next_base, Layout::of(payload_len).len as u64);
    drop(opened);
    put(&directory, &file_name(0), 4096, &bytes);
    let report = verify(&directory, &how())?;
    replay(&directory, &report, &Replay::new(), |_| Ok::<_, Infallible>(())).unwrap();
    Ok(report.batches)
}

#[test]
fn the_files_of_the_corpus_are_accepted_or_refused_as_their_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seen = [0; 2];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let records = fs::read(&path).unwrap();
        assert!(!records.is_empty() && records.len() <= payload_capacity(2 * BLOCK) as usize, "{}", path.display());
        let is_good = path.file_name().unwrap().to_str().unwrap().starts_with("good-");
        seen[usize::from(is_good)] += 1;
        match sealed(&records) {
            Ok(batches) => assert!(is_good && batches == 1, "{} is accepted", path.display()),
            Err(OpenError::Record { .. }) => assert!(!is_good, "{} is refused", path.display()),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(seen[0] >= 10 && seen[1] >= 5, "{seen:?}");
}
