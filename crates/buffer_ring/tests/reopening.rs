//! The documentation's way to reopen a log, with its own code, against crashes in a row.

mod common;

#[path = "../src/reopening/framing.rs"]
#[allow(unreachable_pub, reason = "it is written for the documentation")]
mod framing;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use buffer_ring::{BLOCK, BufferRing, BufferRingOptions, Extent, Placement, QuikIO};
use common::{LIMIT, Random, current, disk, ring_on, within};
use framing::{HEADER, encode, reopen, scan};

const CAPACITY: usize = 4;
const SIZE: usize = 16 << 10;

fn payload(life: u8, number: u32) -> Vec<u8> {
    let mut random = Random::new(u64::from(life) << 32 | u64::from(number));
    let len = 5 + random.below(700);
    [&[life][..], &number.to_le_bytes(), &vec![0; random.below(30)], &common::pattern(random.next(), len)].concat()
}

fn append(ring: &BufferRing, payload: &[u8]) -> Extent {
    let fill = |placement: Placement, bytes: &mut [u8]| encode(*placement, payload, bytes);
    ring.append_with(HEADER + payload.len(), fill).expect("room")
}

/// Commits 100 records, acknowledged one by one or through a writer, and appends some more that the crash finds on
/// their way.
fn live(ring: BufferRing, life: u8, path: &Path, random: &mut Random) -> Vec<Vec<u8>> {
    let acknowledged: Vec<_> = (0..100).map(|number| payload(life, number)).collect();
    let mut writer = ring.writer();
    let mut end = 0;
    for (number, payload) in acknowledged.iter().enumerate() {
        let fill = |placement: Placement, bytes: &mut [u8]| encode(*placement, payload, bytes);
        end = match number % 4 {
            0 => append(&ring, payload).end(),
            _ => writer.append_with(HEADER + payload.len(), fill).expect("room").end(),
        };
        if number % 7 == 0 {
            ring.wait_durable(end).expect("a working disk");
        }
    }
    drop(writer);
    ring.wait_durable(end).expect("a working disk");
    ring.flush(&current(&ring)).wait().expect("a working disk");
    let durable = ring.durable_watermark();
    // Not acknowledged: a few buffers, in part whole, in part lost.
    let mut unacknowledged = Vec::new();
    for number in 100..100 + 5 + random.below(40) as u32 {
        unacknowledged.push(append(&ring, &payload(life, number)));
    }
    ring.flush(&current(&ring)).wait().expect("a working disk");
    drop(ring);
    crash(path, durable, &unacknowledged, random);
    acknowledged
}

/// Loses one block of what was not acknowledged at least, inside a record, so that a half of it is there.
fn crash(path: &Path, durable: u64, unacknowledged: &[Extent], random: &mut Random) {
    let mut file = fs::read(path).expect("the log");
    let blocks = file.len() as u64 / BLOCK as u64;
    let first = unacknowledged.iter().map(|extent| extent.start()).find(|start| start % BLOCK as u64 != 0);
    let torn = first.map_or(durable, |start| start) as usize;
    // The rest of a record's header and payload are gone: neither a record nor zeros.
    file[torn + HEADER - 4..torn + HEADER + 5].fill(0xEE);
    for block in durable / BLOCK as u64..blocks {
        let range = block as usize * BLOCK..(block as usize + 1) * BLOCK;
        if !range.contains(&torn) && random.below(3) == 0 {
            file[range].fill(0);
        }
    }
    fs::write(path, file).expect("the log");
}

fn found(path: &Path) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let io = QuikIO::open(path).expect("nothing else has it");
    scan(&io, |_, payload| records.push(payload.to_vec())).expect("it can be read");
    records
}

fn is_missing(records: &[Vec<u8>], acknowledged: &[Vec<u8>]) -> usize {
    acknowledged.iter().filter(|record| !records.contains(record)).count()
}

#[test]
fn all_that_was_acknowledged_in_any_life_is_found_after_every_crash() {
    let dir = disk();
    within(LIMIT, move || {
        for seed in 0..10 {
            let path = dir.path().join(format!("log{seed}"));
            let mut random = Random::new(seed);
            let mut acknowledged = Vec::new();
            for life in 0..4 {
                let mut records = Vec::new();
                let ring = reopen(&path, CAPACITY, SIZE, |_, payload| records.push(payload.to_vec())).expect("a log");
                assert_eq!(is_missing(&records, &acknowledged), 0, "seed {seed}, life {life}");
                acknowledged.extend(live(ring, life, &path, &mut random));
            }
            let records = found(&path);
            assert_eq!(is_missing(&records, &acknowledged), 0, "seed {seed}");
            let times = |record| records.iter().filter(|found| *found == record).count();
            assert!(acknowledged.iter().all(|record| times(record) == 1), "seed {seed}: one is there twice");
        }
    });
}

/// What the page warns of: without the cut the second life's records lie behind the first one's half record.
#[test]
fn a_log_that_goes_on_without_the_cut_loses_what_its_second_life_has_acknowledged() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        let options = || BufferRingOptions { capacity: CAPACITY, buffer_size: SIZE, ..Default::default() };
        let mut random = Random::new(1);
        let mut lives = Vec::new();
        for life in 0..2 {
            let ring = ring_on(QuikIO::open(&path).expect("a log"), options());
            lives.push(live(ring, life, &path, &mut random));
        }
        let records = found(&path);
        assert_eq!((is_missing(&records, &lives[0]), is_missing(&records, &lives[1])), (0, 100));
    });
}

#[test]
fn damage_that_no_kill_leaves_behind_is_not_cut_away() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        let ring = reopen(&path, CAPACITY, SIZE, |_, _| {}).expect("a new log");
        let extents: Vec<_> = (0..300).map(|number| append(&ring, &payload(0, number))).collect();
        ring.close().expect("a working disk");
        let mut file = fs::read(&path).expect("the log");
        let damaged = extents[3];
        file[damaged.end() as usize - 1] ^= 1;
        fs::write(&path, &file).expect("the log");
        let error = reopen(&path, CAPACITY, SIZE, |_, _| {}).expect_err("acknowledged bytes are damaged");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(fs::read(&path).expect("the log") == file, "nothing was changed");
        assert_eq!(found(&path).len(), 3);
    });
}

/// A payload that looks like a record, where reading comes upon it: the address says that it is none.
#[test]
fn a_record_within_a_payload_is_not_taken_for_one() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        let ring = reopen(&path, CAPACITY, SIZE, |_, _| {}).expect("a new log");
        let mut inner = vec![0; HEADER + 10];
        encode(Extent::new(0, inner.len()), b"0123456789", &mut inner);
        let outer = append(&ring, &inner);
        ring.close().expect("a working disk");
        // Its own header was never written.
        let mut file = fs::read(&path).expect("the log");
        file[outer.start() as usize..outer.start() as usize + HEADER].fill(0);
        fs::write(&path, &file).expect("the log");
        assert_eq!(found(&path), [] as [Vec<u8>; 0]);
        assert!(Arc::new(QuikIO::open(&path).expect("a log")).log_end().is_ok_and(|end| end == BLOCK as u64));
    });
}
