//! The rules of recovery, one by one, each on the smallest log that shows it.

mod common;

use core::convert::Infallible;

use common::oracle;
use common::world::{Shown, answer, how, recover};
use ringlog::directory::{Directory, MemoryDirectory};
use ringlog::format::{
    BatchHeader, BatchInfo, Framing, HEADER_LEN, Manifest, Metadata, NO_ADDRESS, REMOVED, RecordRefusal, RecordType,
    SLOT_LEN, SegmentHeader, Snapshot, SnapshotEntry,
};
use ringlog::manifest::{self, ManifestFile};
use ringlog::recovery::{
    Content, Evidence, Item, OnDamage, Proof, Recover, Replay, ReplayError, Report, TornTail, Verdict, replay, verify,
};
use ringlog::segment::file_name;
use ringlog::testing::{LongRecord, Payload, ReferenceWriter};
use ringlog::{Lsn, OpenError};

/// Eight blocks.
const SIZE: u64 = 32 << 10;

fn open(directory: &MemoryDirectory, seed: u64) -> ReferenceWriter {
    ReferenceWriter::open(directory, recover(SIZE, seed), 4096).unwrap()
}

/// One block with one record, and with a snapshot if it begins a segment.
fn submit(writer: &mut ReferenceWriter, payload: &[u8]) -> u64 {
    let mut batch = writer.batch();
    batch.record(1, payload).unwrap();
    if writer.next().is_multiple_of(SIZE) {
        batch.snapshot(Vec::new()).unwrap();
    }
    writer.submit(batch, false, false).unwrap().base
}

/// Batches, each made durable before the next is sealed, so that each promises all before it.
fn write(writer: &mut ReferenceWriter, batches: usize) {
    for n in 0..batches {
        submit(writer, format!("record {n}").as_bytes());
        writer.settle().unwrap();
    }
}

/// A log of this many batches, left by a process without closing it.
fn log(batches: usize) -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    write(&mut open(&directory, 1), batches);
    directory.power_cut(0)
}

/// The place of an address.
fn at(address: u64) -> (String, usize) {
    (file_name(address / SIZE * SIZE), 4096 + (address % SIZE) as usize)
}

fn change(directory: &MemoryDirectory, name: &str, at: usize, bytes: &[u8]) {
    let mut file = directory.contents()[name].to_vec();
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    directory.put(name, file);
}

fn damage(directory: &MemoryDirectory, address: u64, bytes: &[u8]) {
    let (name, at) = at(address);
    change(directory, &name, at, bytes);
}

/// The verdict, which the oracle shares.
fn judge(directory: &MemoryDirectory) -> Result<Report, OpenError> {
    let judged = verify(directory, &how());
    assert_eq!(answer(&judged).unwrap(), oracle::judge(&directory.contents()));
    judged
}

fn records(directory: &MemoryDirectory) -> Vec<Shown> {
    let mut found = Vec::new();
    let report = judge(directory).unwrap();
    let each = |item: Item<'_>| {
        if let Item::Record(record) = item {
            found.push((record.lsn.get(), record.kind, record.payload.to_vec()));
        }
        Ok::<_, Infallible>(())
    };
    replay(directory, &report, &Replay::new(), each).unwrap();
    found
}

fn manifest(directory: &MemoryDirectory) -> Manifest {
    ManifestFile::read(directory, false).unwrap().unwrap().content().clone()
}

fn put_manifest(directory: &MemoryDirectory, content: &Manifest) {
    let slot = content.encode();
    directory.put(manifest::NAME, [slot, slot].concat());
}

fn header(directory: &MemoryDirectory, address: u64) -> BatchHeader {
    let (name, at) = at(address);
    let bytes = directory.contents()[&name][at..at + HEADER_LEN].try_into().unwrap();
    let manifest = manifest(directory);
    BatchHeader::decode_at(&bytes, &manifest.key, manifest.log_id, address).unwrap()
}

#[track_caller]
fn damaged(directory: &MemoryDirectory) -> (u64, u64, Content, Proof) {
    match judge(directory).unwrap().verdict {
        Verdict::Damaged(damage) => (damage.range.start.get(), damage.range.end.get(), damage.content, damage.proof),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn ends(directory: &MemoryDirectory) -> (u64, Verdict) {
    let report = judge(directory).unwrap();
    (report.end.get(), report.verdict)
}

// ---------------------------------------------------------------- fresh logs

#[test]
fn an_empty_directory_is_no_log_and_opening_makes_one() {
    let directory = MemoryDirectory::new();
    assert!(matches!(judge(&directory), Err(OpenError::Missing)));
    assert!(matches!(recover(SIZE, 1).must_exist(true).open(&directory), Err(OpenError::Missing)));
    assert!(directory.list().unwrap().is_empty(), "a refusal leaves nothing behind");
    let opened = recover(SIZE, 1).cookie("mine").open(&directory).unwrap();
    assert_eq!(opened.report().verdict, Verdict::Fresh);
    assert_eq!(opened.segment_header(0).cookie, b"mine");
    drop(opened);
    assert_eq!(ends(&directory), (0, Verdict::Unclosed));
    // The cookie goes on, whatever the next opening says.
    assert_eq!(recover(SIZE, 2).cookie("other").open(&directory).unwrap().segment_header(5).cookie, b"mine");
}

#[test]
fn options_that_no_log_can_have_are_refused() {
    let directory = MemoryDirectory::new();
    for size in [0, 4096, 16_385, 12_288, 2 << 40] {
        assert!(matches!(recover(size, 1).open(&directory), Err(OpenError::Option(_))), "{size}");
    }
    assert!(matches!(Recover::new().cookie(vec![0; 2049]).open(&directory), Err(OpenError::Option(_))));
    assert!(directory.list().unwrap().is_empty());
}

#[test]
fn without_manifest_any_byte_in_a_segment_is_refused() {
    let directory = log(3);
    directory.remove(manifest::NAME);
    let content = directory.contents();
    assert!(matches!(judge(&directory), Err(OpenError::NoManifest { .. })));
    assert!(matches!(recover(SIZE, 1).open(&directory), Err(OpenError::NoManifest { .. })));
    assert_eq!(directory.contents(), content);
    let later = MemoryDirectory::new();
    later.put(&file_name(SIZE), []);
    assert!(matches!(judge(&later), Err(OpenError::NoManifest { .. })));
}

#[test]
fn what_an_interrupted_creation_leaves_is_a_fresh_log() {
    let directory = MemoryDirectory::new();
    directory.put(&file_name(0), [vec![7; 4096], vec![0; 8000]].concat());
    directory.put(manifest::TEMPORARY, [1, 2, 3]);
    assert!(matches!(judge(&directory), Err(OpenError::Missing)));
    write(&mut open(&directory, 1), 2);
    assert_eq!(ends(&directory.power_cut(0)).0, 8192);
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let directory = MemoryDirectory::new();
    let first = open(&directory, 1);
    assert!(matches!(recover(SIZE, 2).open(&directory), Err(OpenError::Locked { .. })));
    drop(first);
    assert!(recover(SIZE, 2).open(&directory).is_ok());
}

// ---------------------------------------------------------------- accepting

#[test]
fn every_kind_of_record_reads_back_from_its_address() {
    let directory = MemoryDirectory::new();
    let mut writer = ReferenceWriter::open(&directory, recover(SIZE, 1), 8192).unwrap();
    let mut batch = writer.batch();
    let first = batch.record(7, b"hello").unwrap();
    batch.filler(100);
    let empty = batch.record(0, b"").unwrap();
    let group = batch.group(&[Payload { kind: 1, bytes: b"a" }, Payload { kind: 2, bytes: b"bc" }]).unwrap();
    batch.group(&[]).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.submit_empty(false).unwrap();
    let payload: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    let mut long = LongRecord::new(3, payload.clone());
    let whole = loop {
        let mut batch = writer.batch();
        let done = long.place(&mut batch, 6000);
        let between = batch.record(4, b"between");
        assert!(between.is_some());
        writer.submit(batch, false, false).unwrap();
        if let Some(whole) = done {
            break whole;
        }
    };
    writer.settle().unwrap();
    let mut found = records(&directory);
    found.retain(|record| record.1 != 4);
    let expected = [
        (first, 7, b"hello".to_vec()),
        (empty, 0, Vec::new()),
        (group, 1, b"a".to_vec()),
        (group + 8 + 16, 2, b"bc".to_vec()),
        (whole, 3, payload),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_long_record_without_its_last_part_is_no_record() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    let mut long = LongRecord::new(3, vec![5; 5000]);
    let mut batch = writer.batch();
    assert_eq!(long.place(&mut batch, 3000), None);
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    assert!(records(&directory).is_empty());
}

#[test]
fn a_truncation_makes_the_records_between_its_address_and_itself_void() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    let kept = submit(&mut writer, b"kept") + 72;
    let from = submit(&mut writer, b"void") + 72;
    submit(&mut writer, b"void too");
    let mut batch = writer.batch();
    batch.push(RecordType::Truncation, 0, &from.to_le_bytes()).unwrap();
    let after = batch.record(1, b"after").unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    assert_eq!(records(&directory), [(kept, 1, b"kept".to_vec()), (after, 1, b"after".to_vec())]);
}

#[test]
fn records_longer_than_the_reader_allows_are_refused_with_their_address() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    submit(&mut writer, &[1; 2000]);
    writer.settle().unwrap();
    let report = judge(&directory).unwrap();
    let each = |_: Item<'_>| Ok::<_, Infallible>(());
    let refused = replay(&directory, &report, &Replay::new().max_record(1999), each);
    assert!(matches!(refused, Err(ReplayError::Log(OpenError::RecordTooLong { address: 72, len: 2000, .. }))));
    assert!(replay(&directory, &report, &Replay::new().max_record(2000), each).is_ok());
}

#[test]
fn a_batch_over_many_blocks_is_whole_or_refused_at_the_first_bad_block() {
    let directory = MemoryDirectory::new();
    let how = recover(4 << 20, 1);
    let mut writer = ReferenceWriter::open(&directory, how, 1 << 20).unwrap();
    let payload: Vec<u8> = (0..900_000_u32).map(|n| (n / 7) as u8).collect();
    let mut batch = writer.batch();
    let at = batch.record(1, &payload).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    submit(&mut writer, b"promises");
    writer.settle().unwrap();
    assert_eq!(records(&directory)[0], (at, 1, payload));
    for block in [0, 1, 63, 64, 65, 128, 219] {
        let bad = directory.power_cut(0);
        change(&bad, &file_name(0), 4096 + block * 4096 + 999, &[0xEE; 2]);
        assert_eq!(damaged(&bad).2, Content::BadBlock { index: block as u64 });
    }
    let layout = header(&directory, 0);
    let table = ringlog::format::Layout::of(layout.payload_len);
    let bad = directory.power_cut(0);
    change(&bad, &file_name(0), 4096 + table.table + 1000, &[0xEE; 2]);
    assert_eq!(damaged(&bad).2, Content::BadTable);
    let bad = directory.power_cut(0);
    change(&bad, &file_name(0), 4096 + table.len - 1, &[1]);
    assert_eq!(damaged(&bad).2, Content::BadPadding);
}

#[test]
fn threads_change_nothing_about_the_report() {
    let directory = log(70);
    let one = judge(&directory).unwrap();
    for threads in [2, 3, 8] {
        assert_eq!(verify(&directory, &how().threads(threads)).unwrap(), one);
    }
    damage(&directory, 3 * SIZE + 4096, &[9; 10]);
    let one = judge(&directory).unwrap();
    assert_eq!(one.end.get(), 3 * SIZE + 4096);
    assert_eq!(verify(&directory, &how().threads(4)).unwrap(), one);
}

// ---------------------------------------------------------------- the verdict

#[test]
fn a_closed_log_is_clean_and_one_without_close_is_unclosed() {
    let directory = log(3);
    assert_eq!(ends(&directory), (3 * 4096, Verdict::Unclosed));
    let mut writer = open(&directory, 2);
    write(&mut writer, 1);
    writer.submit_empty(false).unwrap();
    writer.close().unwrap();
    drop(writer);
    let (end, verdict) = ends(&directory.power_cut(0));
    assert_eq!((end, verdict), (5 * 4096, Verdict::Clean));
    // Opening it again clears the mark.
    drop(open(&directory, 3));
    assert_eq!(ends(&directory), (5 * 4096, Verdict::Unclosed));
}

#[test]
fn a_bad_last_batch_is_torn_and_one_below_a_promise_is_damage() {
    let directory = log(3);
    damage(&directory, 2 * 4096 + 80, &[9; 8]);
    let torn = ends(&directory);
    assert!(matches!(torn, (8192, Verdict::Torn(torn)) if torn.content == Content::BadBlock { index: 0 }), "{torn:?}");
    let directory = log(3);
    damage(&directory, 4096 + 80, &[9; 8]);
    let proof = Proof::Batch { at: Lsn::new(8192) };
    assert_eq!(damaged(&directory), (4096, 8192, Content::BadBlock { index: 0 }, proof));
}

#[test]
fn a_block_of_acknowledged_records_that_reads_back_as_zeros_is_damage() {
    let directory = log(3);
    damage(&directory, 4096, &[0; 4096]);
    assert_eq!(damaged(&directory).2, Content::Zeros);
}

#[test]
fn a_batch_without_its_header_is_torn_by_its_checksums() {
    let directory = log(3);
    damage(&directory, 8192, &[0; 512]);
    // A small batch is whole in its first sector.
    assert_eq!(ends(&directory), (8192, Verdict::Unclosed));
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    submit(&mut writer, &[3; 3000]);
    damage(&directory, 0, &[0; 512]);
    let evidence = Evidence::Table { at: Lsn::START };
    let (_, verdict) = ends(&directory);
    assert!(matches!(verdict, Verdict::Torn(torn) if torn.evidence == evidence), "{verdict:?}");
}

#[test]
fn an_intact_batch_behind_a_hole_is_no_proof_of_damage() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    (0..3).for_each(|_| _ = submit(&mut writer, b"in flight together"));
    damage(&directory, 4096, &[0; 4096]);
    let (end, verdict) = ends(&directory);
    assert_eq!(end, 4096);
    assert!(matches!(verdict, Verdict::Torn(torn) if torn.evidence == Evidence::Header { at: Lsn::new(8192) }));
}

#[test]
fn known_durable_clean_end_and_the_newest_epoch_are_promises() {
    // The last batch, which no later one promises.
    let directory = log(3);
    drop(open(&directory, 2));
    let opened = directory.power_cut(0);
    damage(&opened, 8192 + 100, &[1]);
    let (start, end, _, proof) = damaged(&opened);
    assert_eq!((start, end, proof), (8192, 12_288, Proof::EpochStart));

    let mut content = manifest(&directory);
    content.epochs.pop();
    content.known_durable = 12_288;
    put_manifest(&opened, &content);
    assert_eq!(damaged(&opened).3, Proof::KnownDurable);
    (content.known_durable, content.clean_end) = (0, Some(12_288));
    put_manifest(&opened, &content);
    assert_eq!(damaged(&opened).3, Proof::CleanEnd);
    content.clean_end = None;
    put_manifest(&opened, &content);
    assert!(matches!(ends(&opened), (8192, Verdict::Torn(_))));
}

#[test]
fn a_missing_segment_is_damage_even_without_a_promise() {
    let directory = log(8);
    assert_eq!(ends(&directory), (SIZE, Verdict::Unclosed));
    directory.remove(&file_name(SIZE));
    let (start, end, content, proof) = damaged(&directory);
    assert_eq!((start, end, content, proof), (SIZE, 2 * SIZE, Content::MissingFile, Proof::MissingFile));
    let directory = log(20);
    directory.remove(&file_name(SIZE));
    assert_eq!(damaged(&directory).2, Content::MissingFile);
}

#[test]
fn a_promise_ends_where_a_newer_epoch_starts() {
    // Two batches; one more of the old epoch promises both, and is cut off because it is torn.
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    (0..3).for_each(|_| _ = submit(&mut writer, &[1; 3000]));
    writer.settle().unwrap();
    submit(&mut writer, &[2; 3000]);
    drop(writer);
    let image = directory.power_cut(0);
    // The third is damaged unprovably: the fourth, which promises it, is torn away for now.
    let fourth = directory.contents()[&file_name(0)][4096 + 3 * 4096..][..4096].to_vec();
    damage(&image, 3 * 4096, &[0; 4096]);
    damage(&image, 2 * 4096, &[0; 4096]);
    assert_eq!(ends(&image).0, 2 * 4096);
    drop(open(&image, 2));
    // It comes back: its promise reached beyond the cut, and no longer does.
    damage(&image, 3 * 4096, &fourth);
    assert_eq!(header(&image, 3 * 4096).durable, 3 * 4096);
    assert_eq!(ends(&image).0, 2 * 4096);
}

#[test]
fn a_tail_that_was_cut_off_never_comes_back() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    (0..3).for_each(|_| _ = submit(&mut writer, b"old"));
    writer.settle().unwrap();
    drop(writer);
    let third = directory.contents()[&file_name(0)][4096 + 8192..][..4096].to_vec();
    damage(&directory, 4096, &[0; 8192]);
    let mut writer = open(&directory, 2);
    submit(&mut writer, b"new");
    writer.settle().unwrap();
    drop(writer);
    damage(&directory, 8192, &third);
    let (end, verdict) = ends(&directory);
    assert_eq!((end, verdict), (8192, Verdict::Unclosed));
    assert_eq!(header(&directory, 4096).epoch, 2);
}

#[test]
fn a_manifest_older_than_the_log_is_refused() {
    let directory = log(3);
    let old = directory.contents()[manifest::NAME].to_vec();
    write(&mut open(&directory, 2), 2);
    directory.put(manifest::NAME, old);
    assert!(matches!(judge(&directory), Err(OpenError::OldManifest { address: 12_288, epoch: 2, newest: 1, .. })));
}

#[test]
fn two_copies_that_both_went_on_are_not_mixed() {
    let directory = log(3);
    let other = directory.fork();
    write(&mut open(&directory, 2), 2);
    write(&mut open(&other, 3), 2);
    directory.put(&file_name(0), other.contents()[&file_name(0)].to_vec());
    assert!(matches!(judge(&directory), Err(OpenError::Mixed { address: 12_288, epoch: 2, .. })));
}

#[test]
fn a_segment_of_another_log_is_refused_and_never_cut() {
    let directory = log(20);
    let foreign = MemoryDirectory::new();
    write(&mut open(&foreign, 99), 20);
    for name in [file_name(0), file_name(2 * SIZE), file_name(77 * SIZE), file_name(1)] {
        let mixed = directory.fork();
        mixed.put(&name, foreign.contents()[&file_name(SIZE)].to_vec());
        let content = mixed.contents();
        assert!(matches!(judge(&mixed), Err(OpenError::Foreign { file, .. }) if file == name));
        assert!(recover(SIZE, 5).on_damage(OnDamage::SetAside).open(&mixed).is_err());
        assert_eq!(mixed.contents(), content);
    }
}

#[test]
fn a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to() {
    let directory = log(20);
    for number in 0..3 {
        change(&directory, &file_name(number * SIZE), 50, &[9; 5]);
    }
    let report = judge(&directory).unwrap();
    assert_eq!((report.end.get(), report.bad_segment_headers.len()), (20 * 4096, 3));
    drop(open(&directory, 2));
    let report = judge(&directory).unwrap();
    assert_eq!(report.bad_segment_headers, [file_name(0), file_name(SIZE)]);
}

#[test]
fn a_segment_under_another_name_proves_nothing() {
    let directory = log(20);
    let copy = directory.contents()[&file_name(SIZE)].to_vec();
    directory.put(&file_name(2 * SIZE), copy);
    // Four batches of that segment are gone; the first of them promised the segment before.
    let (end, verdict) = ends(&directory);
    assert_eq!((end, verdict), (2 * SIZE, Verdict::Unclosed));
    directory.put(&file_name(0), directory.contents()[&file_name(SIZE)].to_vec());
    assert_eq!(damaged(&directory).2, Content::OtherAddress { address: SIZE });
}

#[test]
fn a_payload_cannot_imitate_a_batch() {
    let directory = MemoryDirectory::new();
    let mut writer = ReferenceWriter::open(&directory, recover(SIZE, 1), 8192).unwrap();
    let mut batch = writer.batch();
    batch.record(1, b"first").unwrap();
    let first = writer.submit(batch, false, false).unwrap();
    // The copy, with its header at the start of the second block and its own address written over by the right one.
    let mut payload = vec![1; 4096 - 80];
    payload.extend_from_slice(&first.bytes[..3000]);
    payload[4096 - 80 + 16..4096 - 80 + 24].copy_from_slice(&8192_u64.to_le_bytes());
    let mut batch = writer.batch();
    batch.record(1, &payload).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    drop(writer);
    // Its batch is damaged, so that the reader looks for headers behind it.
    damage(&directory, 4096 + 100, &[9; 4]);
    assert_eq!(ends(&directory).0, 4096);
}

#[test]
fn torn_is_refused_on_demand_and_then_nothing_has_changed() {
    let directory = log(3);
    damage(&directory, 2 * 4096 + 100, &[9; 8]);
    let content = directory.contents();
    match recover(SIZE, 2).torn_tail(TornTail::Refuse).open(&directory) {
        Err(OpenError::Torn(report)) => assert_eq!(report.end.get(), 8192),
        other => panic!("{other:?}"),
    }
    assert_eq!(directory.contents(), content);
    assert!(recover(SIZE, 2).open(&directory).is_ok());
    // Unclosed is not torn.
    assert!(recover(SIZE, 3).torn_tail(TornTail::Refuse).open(&directory).is_ok());
}

// ---------------------------------------------------------------- openings and epochs

/// The one-block batch at `address`, sealed again with a header that differs.
fn resealed(directory: &MemoryDirectory, address: u64, edit: &dyn Fn(&mut BatchHeader)) -> MemoryDirectory {
    let bad = directory.fork();
    let mut head = header(&bad, address);
    edit(&mut head);
    let BatchHeader { log_id, epoch, salt, number, previous, payload_len, durable, flags, .. } = head;
    let start = if flags.opens_epoch { address } else { u64::MAX };
    let framing = Framing::new(manifest(&bad).key, log_id, epoch, salt, start, number);
    let (name, at) = at(address);
    let mut bytes = bad.contents()[&name][at..at + 4096].to_vec();
    let last = flags.last;
    let next_base = if last { (address / SIZE + 1) * SIZE } else { address + 4096 };
    let info = BatchInfo { base: address, generation: 0, previous, next_base, last, payload_len, durable };
    framing.seal(&mut bytes, info);
    damage(&bad, address, &bytes);
    bad
}

#[test]
fn the_batch_behind_an_old_gap_must_be_the_one_that_manifest_names() {
    let directory = MemoryDirectory::new();
    (0..3).for_each(|seed| write(&mut open(&directory, seed), 1));
    damage(&directory, 4096, &[0; 4096]);
    let skipping = recover(SIZE, 3).on_damage(OnDamage::Skip);
    drop(ReferenceWriter::open(&directory, skipping, 4096).unwrap());
    // Until the table of epochs begins behind the gap.
    (4..80).for_each(|seed| write(&mut open(&directory, seed), 1));
    assert!(manifest(&directory).epochs[0].start > 8192);
    let whole = judge(&directory).unwrap();
    assert_eq!((whole.batches, whole.gaps.len()), (78, 1));
    let bad = resealed(&directory, 8192, &|head| head.salt ^= 1);
    let (at, _, content, _) = damaged(&bad);
    assert_eq!((at, content), (8192, Content::StaleBatch { number: 2, epoch: 3 }));
}

#[test]
fn more_epochs_than_manifest_keeps_are_still_accepted_in_order() {
    let directory = MemoryDirectory::new();
    for seed in 0..70 {
        write(&mut open(&directory, seed), 1);
    }
    let report = judge(&directory).unwrap();
    assert_eq!((report.batches, report.epoch), (70, 70));
    assert_eq!(manifest(&directory).epochs.len(), 64);
    // Below the table: one epoch has one salt, they never decrease, and rise only where a batch opens one.
    let second = 4096;
    assert_eq!(header(&directory, second).epoch, 2);
    assert_eq!(judge(&resealed(&directory, second, &|_| ())).unwrap().batches, 70);
    for edit in [
        (&|head: &mut BatchHeader| head.flags.opens_epoch = false) as &dyn Fn(&mut BatchHeader),
        &|head| head.epoch = 1,
        &|head| head.epoch = 69,
        &|head| head.number = 5,
        &|head| head.previous = NO_ADDRESS,
    ] {
        let bad = resealed(&directory, second, edit);
        let judged = verify(&bad, &how());
        let is_stopped = match &judged {
            Ok(report) => report.end.get() == second && matches!(report.verdict, Verdict::Damaged(_)),
            Err(error) => matches!(error, OpenError::Mixed { .. }),
        };
        assert!(is_stopped, "{judged:?}");
    }
}

#[test]
fn after_a_trim_the_first_batch_must_be_the_one_that_manifest_names() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    write(&mut writer, 20);
    writer.trim(SIZE + 4096, false).unwrap();
    drop(writer);
    let report = judge(&directory).unwrap();
    assert_eq!((report.first.get(), report.checked_from.get(), report.segments), (SIZE + 4096, SIZE, 2));
    assert_eq!(records(&directory)[0].0, SIZE + 4096 + 72);
    for edit in [
        (&|manifest: &mut Manifest| manifest.first.number += 1) as &dyn Fn(&mut Manifest),
        &|manifest| manifest.first.previous = 0,
        &|manifest| manifest.first.epoch = Some((1, 5)),
    ] {
        let bad = directory.fork();
        let mut content = manifest(&bad);
        edit(&mut content);
        put_manifest(&bad, &content);
        assert!(matches!(damaged(&bad).2, Content::StaleBatch { .. }));
    }
}

#[test]
fn segments_below_the_trim_point_are_removed_when_the_log_is_opened() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    write(&mut writer, 20);
    writer.trim(2 * SIZE, true).unwrap();
    drop(writer);
    assert!(directory.contents().contains_key(&file_name(0)));
    drop(open(&directory, 2));
    let names: Vec<_> = directory.list().unwrap().into_iter().filter(|name| name.ends_with(".seg")).collect();
    assert_eq!(names, [file_name(2 * SIZE)]);
    assert_eq!(ends(&directory).0, 20 * 4096);
}

#[test]
fn recycled_segments_never_bring_old_batches_back() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    for round in 0..10 {
        write(&mut writer, 8);
        writer.trim(round * SIZE, true).unwrap();
    }
    let end = writer.next();
    drop(writer);
    assert_eq!(ends(&directory.power_cut(0)), (end, Verdict::Unclosed));
    let names = directory.list().unwrap();
    assert!(names.iter().filter(|name| name.ends_with(".seg")).count() <= 4, "{names:?}");
}

#[test]
fn fast_opening_reads_one_segment_and_finds_the_same_end() {
    let directory = log(70);
    let full = judge(&directory).unwrap();
    let fast = verify(&directory, &how().fast(true)).unwrap();
    assert_eq!((fast.end, fast.next_number, &fast.verdict), (full.end, full.next_number, &full.verdict));
    assert_eq!(fast.checked_from.get(), 8 * SIZE);
    // Damage above its start is seen, damage below is not.
    damage(&directory, 8 * SIZE + 4096, &[9; 4]);
    let fast = verify(&directory, &how().fast(true)).unwrap();
    assert!(matches!(fast.verdict, Verdict::Damaged(_)));
    let directory = log(70);
    damage(&directory, 4096 + 100, &[9; 4]);
    assert_eq!(damaged(&directory).0, 4096);
    assert_eq!(verify(&directory, &how().fast(true)).unwrap().verdict, Verdict::Unclosed);
    // Where the link to the segment before is broken, it begins further back.
    let directory = log(70);
    damage(&directory, 8 * SIZE - 4096, &[9; 4]);
    let fast = verify(&directory, &how().fast(true)).unwrap();
    assert_eq!((fast.checked_from.get(), fast.end.get()), (7 * SIZE, 8 * SIZE - 4096));
    assert!(matches!(fast.verdict, Verdict::Damaged(_)));
}

#[test]
fn fast_opening_begins_where_a_snapshot_says_what_was_before() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    let vote = |value| Metadata { name: b"vote", value };
    for n in 0..30 {
        let mut batch = writer.batch();
        batch.record(1, b"a record").unwrap();
        match n {
            2 => _ = batch.push(RecordType::Metadata, 0, &vote(b"old").encode()).unwrap(),
            // In the third segment, the only snapshot.
            18 => _ = batch.snapshot(vec![SnapshotEntry::Metadata(vote(b"7"))]).unwrap(),
            // In the last one, and complete to an earlier address only.
            27 => {
                let entries = vec![SnapshotEntry::Metadata(vote(b"not this"))];
                let snapshot = Snapshot { complete_to: 0, records: 0, entries };
                batch.push(RecordType::Snapshot, 0, &snapshot.encode()).unwrap();
            }
            _ => {}
        }
        writer.submit(batch, false, false).unwrap();
        writer.settle().unwrap();
    }
    for fast in [true, false] {
        let report = verify(&directory, &how().fast(fast)).unwrap();
        assert_eq!(report.checked_from.get(), if fast { 2 * SIZE } else { 0 });
        assert_eq!((report.meta("vote"), report.metas().count()), (Some(&b"7"[..]), 1));
    }
}

#[test]
fn a_name_that_was_removed_stands_for_nothing_and_too_much_is_refused() {
    let said = |said: &[(u8, &[u8], &[u8])]| {
        let directory = MemoryDirectory::new();
        let mut writer = ReferenceWriter::open(&directory, recover(1 << 20, 1), 128 << 10).unwrap();
        for &(kind, name, value) in said {
            let mut batch = writer.batch();
            batch.push(RecordType::Metadata, kind, &Metadata { name, value }.encode()).unwrap();
            writer.submit(batch, false, false).unwrap();
        }
        writer.settle().unwrap();
        verify(&directory, &how())
    };
    let report = said(&[(0, b"a", b"1"), (0, b"b", b"2"), (REMOVED, b"a", b""), (0, b"b", b"3")]).unwrap();
    assert_eq!(report.metas().collect::<Vec<_>>(), [(&b"b"[..], &b"3"[..])]);
    let long = vec![1; (64 << 10) - 1];
    assert_eq!(said(&[(0, b"a", &long)]).unwrap().meta("a"), Some(&long[..]));
    let refused = said(&[(0, b"a", &long), (0, b"b", b"")]);
    assert!(matches!(refused, Err(OpenError::Record { refusal: RecordRefusal::Payload(_), .. })), "{refused:?}");
    assert!(said(&[(0, b"a", &long), (REMOVED, b"a", b""), (0, b"b", &long)]).is_ok());
}

#[test]
fn a_crash_while_the_manifest_of_a_killed_writer_is_replaced_leaves_a_whole_slot() {
    for stop in 0..12 {
        for seed in 0..30 {
            let directory = MemoryDirectory::new();
            let mut writer = open(&directory, 1);
            write(&mut writer, 2);
            // Killed between writing a slot and syncing it.
            directory.stop_after(1);
            assert!(writer.close().is_err());
            drop(writer);
            let killed = directory.kill(seed);
            assert_eq!(ends(&killed).1, Verdict::Clean);
            killed.stop_after(stop);
            let _ = recover(SIZE, 2).open(&killed);
            assert_eq!(ends(&killed.power_cut(seed)).0, 8192);
        }
    }
}

#[test]
fn opening_syncs_what_it_found_before_it_promises_it() {
    // A kill: everything is visible, nothing is on stable storage.
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    (0..20).for_each(|_| _ = submit(&mut writer, b"never synced"));
    while let Some(position) = writer.flights().iter().position(|flight| !flight.written) {
        writer.complete(position);
    }
    let killed = directory.kill(3);
    let found = judge(&killed).unwrap().end;
    assert_eq!(found.get(), 20 * 4096);
    drop(open(&killed, 2));
    for seed in 0..20 {
        let image = killed.power_cut(seed);
        assert_eq!(ends(&image).0, found.get());
    }
}

// ---------------------------------------------------------------- deciding about damage

#[test]
fn damage_is_refused_and_nothing_has_changed() {
    let directory = log(20);
    damage(&directory, 4096, &[0; 4096]);
    let content = directory.contents();
    match recover(SIZE, 2).open(&directory) {
        Err(OpenError::Damaged(report)) => {
            let text = OpenError::Damaged(report).to_string();
            assert!(text.contains("address 4096 of 00000000000000000000.seg is zeros"), "{text}");
            assert!(text.contains("set the damage aside"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(directory.contents(), content);
}

#[test]
fn setting_damage_aside_ends_the_log_before_it_and_deletes_nothing() {
    let directory = log(20);
    damage(&directory, 4096, &[0; 4096]);
    let before = directory.contents();
    let how = recover(SIZE, 2).on_damage(OnDamage::SetAside);
    let mut writer = ReferenceWriter::open(&directory, how, 4096).unwrap();
    assert!(matches!(writer.opened().report().verdict, Verdict::Damaged(_)));
    assert_eq!(writer.next(), 4096);
    write(&mut writer, 3);
    drop(writer);
    assert_eq!(ends(&directory), (4 * 4096, Verdict::Unclosed));
    let after = directory.contents();
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".seg")) {
        let kept = after.iter().find(|(aside, _)| aside.starts_with("aside-") && aside.ends_with(name.as_str()));
        assert_eq!(kept.map(|(_, bytes)| bytes), Some(bytes), "{name}");
    }
}

#[test]
fn skipping_damage_keeps_what_is_intact_behind_it() {
    let directory = log(20);
    let all = records(&directory);
    damage(&directory, 4096, &[0; 4096]);
    damage(&directory, 9 * 4096 + 80, &[7; 4]);
    let how = || recover(SIZE, 2).on_damage(OnDamage::Skip);
    let mut writer = ReferenceWriter::open(&directory, how(), 4096).unwrap();
    let gaps = [4096..8192, 9 * 4096..10 * 4096].map(|gap| Lsn::new(gap.start)..Lsn::new(gap.end));
    assert_eq!(writer.opened().report().gaps, gaps);
    assert_eq!(writer.next(), 20 * 4096);
    write(&mut writer, 1);
    drop(writer);
    assert_eq!(ends(&directory), (21 * 4096, Verdict::Unclosed));
    let mut expected: Vec<_> =
        all.into_iter().filter(|record| ![4096 + 72, 9 * 4096 + 72].contains(&record.0)).collect();
    expected.push((20 * 4096 + 72, 1, b"record 0".to_vec()));
    assert_eq!(records(&directory), expected);
    // A reader meets the gaps in their places.
    let report = judge(&directory).unwrap();
    let mut met = Vec::new();
    let each = |item: Item<'_>| {
        if let Item::Gap(range) = item {
            met.push(range);
        }
        Ok::<_, Infallible>(())
    };
    replay(&directory, &report, &Replay::new(), each).unwrap();
    assert_eq!(met, gaps);
}

#[test]
fn skipping_lost_segments_gives_no_durable_address_again() {
    let directory = log(20);
    drop(open(&directory, 2));
    directory.remove(&file_name(SIZE));
    directory.remove(&file_name(2 * SIZE));
    let how = recover(SIZE, 3).on_damage(OnDamage::Skip);
    let mut writer = ReferenceWriter::open(&directory, how, 4096).unwrap();
    assert_eq!(writer.next(), 20 * 4096);
    assert_eq!(writer.opened().report().gaps, [Lsn::new(SIZE)..Lsn::new(20 * 4096)]);
    drop(writer);
    // Opened again before anything was appended, and again.
    for seed in 4..6 {
        writer = open(&directory, seed);
        assert_eq!(writer.next(), 20 * 4096);
        drop(writer);
    }
    write(&mut open(&directory, 7), 1);
    assert_eq!(ends(&directory).0, 21 * 4096);
}

#[test]
fn a_gap_that_meets_an_older_one_takes_its_place() {
    let skip = |directory: &MemoryDirectory, seed| {
        let opened = recover(SIZE, seed).on_damage(OnDamage::Skip).open(directory).unwrap();
        let gaps = opened.report().gaps.iter().map(|gap| (gap.start.get() / 4096, gap.end.get() / 4096));
        gaps.collect::<Vec<_>>()
    };
    let directory = log(20);
    damage(&directory, 5 * 4096, &[0; 2 * 4096]);
    assert_eq!(skip(&directory, 2), [(5, 7)]);
    // In front of it, and meeting it.
    damage(&directory, 4 * 4096, &[0; 4096]);
    assert_eq!(skip(&directory, 3), [(4, 7)]);
    // Around it.
    damage(&directory, 2 * 4096, &[0; 4096]);
    damage(&directory, 3 * 4096, &[0; 4096]);
    damage(&directory, 7 * 4096, &[0; 4096]);
    assert_eq!(skip(&directory, 4), [(2, 8)]);
    damage(&directory, 12 * 4096, &[0; 4096]);
    assert_eq!(skip(&directory, 5), [(2, 8), (12, 13)]);
    assert_eq!(ends(&directory), (20 * 4096, Verdict::Unclosed));
    assert_eq!(records(&directory).len(), 13);
}

#[test]
fn what_was_never_acknowledged_is_not_kept_behind_a_gap() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    write(&mut writer, 3);
    (0..3).for_each(|_| _ = submit(&mut writer, b"in flight"));
    drop(writer);
    // Two durable batches and the first that was not: the intact ones behind it were never acknowledged either.
    damage(&directory, 4096, &[0; 3 * 4096]);
    assert_eq!(damaged(&directory).1, 3 * 4096);
    let opened = recover(SIZE, 2).on_damage(OnDamage::Skip).open(&directory).unwrap();
    assert_eq!(opened.report().gaps, [Lsn::new(4096)..Lsn::new(3 * 4096)]);
    assert_eq!(opened.report().end.get(), 3 * 4096);
}

#[test]
fn a_long_record_with_a_part_in_a_gap_is_not_shown() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    let mut long = LongRecord::new(3, vec![5; 5000]);
    for part in 0..3 {
        let mut batch = writer.batch();
        assert_eq!(long.place(&mut batch, 2000).is_some(), part == 2);
        writer.submit(batch, false, false).unwrap();
        writer.settle().unwrap();
    }
    write(&mut writer, 1);
    drop(writer);
    assert_eq!(records(&directory).len(), 2);
    damage(&directory, 4096 + 500, &[1; 3]);
    drop(recover(SIZE, 2).on_damage(OnDamage::Skip).open(&directory).unwrap());
    assert_eq!(records(&directory), [(3 * 4096 + 72, 1, b"record 0".to_vec())]);
}

#[test]
fn more_gaps_than_manifest_holds_are_refused_and_nothing_has_changed() {
    let directory = log(110);
    (0..48).for_each(|n| damage(&directory, (2 * n + 1) * 4096, &[0; 4096]));
    let enough = directory.fork();
    let opened = recover(SIZE, 2).on_damage(OnDamage::Skip).open(&enough).unwrap();
    assert_eq!((opened.report().gaps.len(), opened.report().end.get()), (48, 110 * 4096));
    damage(&directory, 97 * 4096, &[0; 4096]);
    let content = directory.contents();
    let refused = recover(SIZE, 2).on_damage(OnDamage::Skip).open(&directory);
    assert!(matches!(refused, Err(OpenError::TooManyGaps)));
    assert_eq!(directory.contents(), content);
}

// ---------------------------------------------------------------- newer and defective writers

#[test]
fn what_a_newer_release_wrote_is_refused() {
    let directory = log(3);
    let resealed = |edit: &dyn Fn(&mut [u8])| {
        let newer = directory.fork();
        let mut bytes = newer.contents()[&file_name(0)][4096 + 8192..][..HEADER_LEN].to_vec();
        edit(&mut bytes);
        let signature = manifest(&newer).key.sign(&bytes[..64]);
        bytes[64..].copy_from_slice(&signature.to_le_bytes());
        damage(&newer, 8192, &bytes);
        newer
    };
    for edit in
        [(&|bytes: &mut [u8]| bytes[4] = 2) as &dyn Fn(&mut [u8]), &|bytes| bytes[5] = 0x10, &|bytes| bytes[7] = 1]
    {
        let newer = resealed(edit);
        assert!(matches!(verify(&newer, &how()), Err(OpenError::Header { address: 8192, .. })));
        // Also if it is behind the end.
        damage(&newer, 4096, &[0; 4096]);
        assert!(matches!(verify(&newer, &how()), Err(OpenError::Header { address: 8192, .. })));
    }
    let newer = directory.fork();
    let mut slot = manifest(&newer).encode();
    slot[4] = 2;
    let sum = ringlog::format::crc64(&slot[..SLOT_LEN - 8]);
    slot[SLOT_LEN - 8..].copy_from_slice(&sum.to_le_bytes());
    change(&newer, manifest::NAME, SLOT_LEN, &slot);
    assert!(matches!(verify(&newer, &how()), Err(OpenError::Newer { version: 2, .. })));
    let newer = directory.fork();
    let mut bytes =
        SegmentHeader { log_id: 1, number: 5, segment_size: SIZE, whole: false, cookie: Vec::new() }.encode();
    bytes[4] = 2;
    let sum = ringlog::format::crc64(&bytes[..4088]);
    bytes[4088..].copy_from_slice(&sum.to_le_bytes());
    newer.put(&file_name(5 * SIZE), bytes);
    assert!(matches!(verify(&newer, &how()), Err(OpenError::Newer { version: 2, .. })));
}

#[test]
fn a_record_that_cannot_be_read_is_refused_and_never_cut() {
    let directory = MemoryDirectory::new();
    let mut writer = open(&directory, 1);
    submit(&mut writer, b"good");
    let mut batch = writer.batch();
    // A truncation of what comes later.
    let bad = batch.push(RecordType::Truncation, 0, &u64::MAX.to_le_bytes()).unwrap();
    writer.submit(batch, false, false).unwrap();
    writer.settle().unwrap();
    drop(writer);
    let content = directory.contents();
    assert!(matches!(verify(&directory, &how()), Err(OpenError::Record { address, .. }) if address == bad));
    assert!(recover(SIZE, 2).on_damage(OnDamage::SetAside).open(&directory).is_err());
    assert_eq!(directory.contents(), content);
}

#[test]
fn replay_stops_where_the_callers_function_fails() {
    let directory = log(3);
    let report = judge(&directory).unwrap();
    let stopped = replay(&directory, &report, &Replay::new(), |_| Err("no"));
    assert!(matches!(stopped, Err(ReplayError::Stopped(at, "no")) if at.get() == 72));
    // A file that changes behind the verdict is noticed.
    damage(&directory, 4096 + 100, &[1; 3]);
    let changed = replay(&directory, &report, &Replay::new(), |_| Ok::<_, Infallible>(()));
    assert!(matches!(changed, Err(ReplayError::Log(OpenError::Changed { address: 4096, .. }))));
}
