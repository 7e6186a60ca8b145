//! Mutated batches, sealed again, through all that a reader does with the bytes of one: header, checksums, records, the
//! log's own payloads. No files and no threads, so that a hundred million of them take minutes; `tests/fuzz.rs` has
//! whole logs.
//!
//! `RINGLOG_FUZZ_BATCHES` sets their number, `RINGLOG_SEED` the first seed.

use core::mem::discriminant;
use core::ops::Range;
use std::env;

use super::records::{Assembler, Piece, Trouble};
use crate::format::{
    BLOCK, BatchHeader, BatchInfo, Framing, HEADER_LEN, HeaderKey, Layout, Metadata, NO_ADDRESS, RECORD_HEADER_LEN,
    RecordHeader, RecordRefusal, RecordType, Snapshot, SnapshotEntry, padded,
};
use crate::random::Random;
use crate::recovery::check_batch;

const KEY: HeaderKey = HeaderKey::new([7; 16]);
const LOG: u64 = 9;
const BASE: u64 = 8192;
/// The longest record that the reader puts together.
const LONGEST: usize = 4096;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// A batch with a record of each type, and where their headers are.
fn batch() -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut headers) = (vec![0; HEADER_LEN], Vec::new());
    let mut add = |record_type, payload: &[u8]| {
        let at = bytes.len();
        headers.push(at);
        let header = RecordHeader { len: payload.len() as u32, blocks_back: (at / BLOCK) as u16, record_type, kind: 3 };
        bytes.extend(header.encode());
        bytes.extend(payload);
        bytes.resize(at + header.padded_len() as usize, 0);
        BASE + at as u64
    };
    let first = add(RecordType::Record, &[1; 50]);
    let entry = |len: u32| [&len.to_le_bytes()[..], &[0, 0, 0, 5], &vec![2; padded(len) as usize]].concat();
    add(RecordType::Group, &[entry(8), entry(0), entry(16)].concat());
    add(RecordType::NoOp, &[]);
    let whole = [&30_u64.to_le_bytes()[..], &[RecordType::Record as u8, 0, 0, 0, 0, 0, 0, 0], &[3; 10]].concat();
    let long = add(RecordType::First, &whole);
    add(RecordType::Metadata, &Metadata { name: b"vote", value: b"7" }.encode());
    add(RecordType::Middle, &[&long.to_le_bytes()[..], &[3; 10]].concat());
    add(RecordType::Cursor, &[first.to_le_bytes(), *b"consumer"].concat());
    add(RecordType::Truncation, &first.to_le_bytes());
    let entries = vec![SnapshotEntry::Void { from: 0, to: 8 }];
    add(RecordType::Snapshot, &Snapshot { complete_to: first, records: 0, entries }.encode());
    add(RecordType::Last, &[&long.to_le_bytes()[..], &[3; 10]].concat());
    add(RecordType::Record, &[4; 3]);
    (bytes, headers)
}

/// Some bytes become others: random ones, or such as break comparisons.
fn mutate(random: &mut Random, bytes: &mut [u8], within: Range<usize>) {
    for _ in 0..1 + random.below(3) {
        let at = within.start + random.below(within.len());
        let value = match random.below(4) {
            0 => u64::from(1_u8 << random.below(8) ^ bytes[at]),
            1 => random.pick(&[0, 1, 8, 0x7FFF_FFFF, u64::MAX, 4096, 1 << 40, BASE]),
            2 => 0,
            _ => random.next(),
        };
        let len = random.pick(&[1, 1, 2, 4, 8]).min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }
}

#[derive(Debug, PartialEq)]
enum Refused {
    /// Before a record was looked at.
    Batch,
    Record(RecordRefusal),
}

/// Reads a batch as scans and followers do, from an address on. The answer is how much was met.
fn read(bytes: &[u8], from: u64) -> Result<usize, Refused> {
    let head = bytes.first_chunk().expect("a header");
    let header = BatchHeader::decode_at(head, &KEY, LOG, BASE).map_err(|_| Refused::Batch)?;
    let layout = header.layout();
    if layout.len > bytes.len() || check_batch(&header, &bytes[..layout.len]).is_some() {
        return Err(Refused::Batch);
    }
    let records = &bytes[HEADER_LEN..layout.table];
    let mut assembler = Assembler::new(LONGEST);
    assembler.begin(BASE, header.epoch);
    assembler.skip_to(records, from);
    let mut pieces = 0;
    loop {
        match assembler.next(records) {
            Ok(None) => return Ok(pieces),
            Ok(Some(Piece::Missed { first, .. })) => assembler.ignore(first),
            Ok(Some(Piece::Record)) => {
                let (record, payload) = (assembler.met(), assembler.payload(records));
                assert!(payload.len() <= LONGEST && record.lsn < record.end, "{record:?}");
            }
            Ok(Some(Piece::Truncation { .. })) => {}
            Err(Trouble::Bad((_, refusal))) => return Err(Refused::Record(refusal)),
            // The next call goes on behind it.
            Err(Trouble::TooLong { .. }) => {}
        }
        pieces += 1;
        assert!(pieces <= records.len() / RECORD_HEADER_LEN, "a reader comes to an end");
    }
}

#[test]
fn no_sealed_batch_makes_a_reader_panic_and_most_reach_the_records() {
    let inputs = number("RINGLOG_FUZZ_BATCHES", 20_000);
    let seed = number("RINGLOG_SEED", 1);
    let (original, headers) = batch();
    let framing = Framing::new(KEY, LOG, 2, 77, 4096, 1);
    let payload_len = (original.len() - HEADER_LEN) as u32;
    let layout = Layout::of(payload_len);
    let info = BatchInfo {
        base: BASE,
        generation: 0,
        previous: NO_ADDRESS,
        next_base: BASE + layout.len as u64,
        last: false,
        payload_len,
        durable: 4096,
    };
    let (mut bytes, mut reached, mut refusals) = (vec![0; layout.len], 0_u64, Vec::new());
    let mut sealed = original.clone();
    sealed.resize(layout.len, 0);
    framing.seal(&mut sealed, info);
    assert_eq!(read(&sealed, BASE), Ok(7), "two records, three entries of a group, a long record, a truncation");
    for seed in seed..seed + inputs {
        let mut random = Random::new(seed);
        if random.chance(10) {
            bytes.copy_from_slice(&sealed);
            // The header; only its signature is right again.
            mutate(&mut random, &mut bytes, 0..64);
            let signature = KEY.sign(&bytes[..64]);
            bytes[64..72].copy_from_slice(&signature.to_le_bytes());
        } else {
            bytes.fill(0);
            bytes[..original.len()].copy_from_slice(&original);
            // Headers of records more often than their bytes.
            let within = if random.chance(60) {
                let at = random.pick(&headers);
                at..(at + 24).min(original.len())
            } else {
                HEADER_LEN..original.len()
            };
            mutate(&mut random, &mut bytes, within);
            framing.seal(&mut bytes, info);
        }
        let from = if random.chance(50) { BASE } else { BASE + random.below(original.len()) as u64 };
        let answer = read(&bytes, from);
        reached += u64::from(answer != Err(Refused::Batch));
        if let Err(Refused::Record(refusal)) = answer
            && !refusals.contains(&discriminant(&refusal))
        {
            refusals.push(discriminant(&refusal));
        }
    }
    println!("{inputs} batches, {reached} reached the records; {} refusals of records", refusals.len());
    assert!(reached * 2 >= inputs, "{reached} of {inputs}");
    // Only recovery looks at the padding of records.
    let all =
        [RecordRefusal::Type(0), RecordRefusal::BlocksBack(0), RecordRefusal::Length(0), RecordRefusal::Payload("")];
    assert!(all.iter().all(|refusal| refusals.contains(&discriminant(refusal))), "{refusals:?}");
}
