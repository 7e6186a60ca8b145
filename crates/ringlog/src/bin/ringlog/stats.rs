//! `ringlog stats`: what a log holds, in numbers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ringlog::format::{BatchHeader, HEADER_LEN, Manifest, RECORD_HEADER_LEN, RecordType};
use ringlog::recovery::{Item, Verify};

use crate::output::{Cell, Failure, Output, Page, Status};
use crate::records::{Reading, read};
use crate::source::{Judgement, Source};
use crate::walk::Walk;

/// Count records, bytes, kinds, batches, overhead, segments, epochs and named values
///
/// The whole log is read, twice. Records that were truncated, or trimmed, are not counted as records.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Directory of the log
    dir: PathBuf,
    #[command(flatten)]
    reading: Reading,
}

/// Records of one kind.
#[derive(Debug)]
struct Kind {
    records: u64,
    bytes: u64,
    shortest: usize,
    longest: usize,
}

impl Stats {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let mut source = Source::open(&self.dir)?;
        source.show_progress(4);
        let mut kinds = BTreeMap::new();
        let (judged, manifest) = source.judge(&Verify::new()).map_err(|error| {
            source.done();
            source.here()(error)
        })?;
        let counted = read(&source, &self.reading, &judged, |item| {
            if let Item::Record(record) = item {
                let len = record.payload.len();
                let kind =
                    kinds.entry(record.kind).or_insert(Kind { records: 0, bytes: 0, shortest: len, longest: len });
                kind.records += 1;
                kind.bytes += len as u64;
                (kind.shortest, kind.longest) = (kind.shortest.min(len), kind.longest.max(len));
            }
            Ok(())
        });
        counted.inspect_err(|_| source.done())?;
        let counts = Counts::of(&source, &manifest, &judged);
        source.done();
        let counts = counts?;

        let report = &judged.report;
        let mut page = Page::default();
        judged.show(&source, &mut page);
        page.fact("first", report.first).fact("end", report.end);
        page.fact("records", kinds.values().map(|kind| kind.records).sum::<u64>());
        let payload = kinds.values().map(|kind| kind.bytes).sum::<u64>();
        page.fact("bytes of records", Cell::size(payload));
        page.fact("bytes of log", Cell::size(counts.bytes));
        let overhead = counts.bytes.saturating_sub(payload);
        let percent = overhead as f64 * 100.0 / payload.max(1) as f64;
        page.fact("overhead", Cell::new(format!("{overhead} B, {percent:.1} % of the records"), overhead));
        page.fact("batches", counts.sizes.len());
        page.fact("empty batches", counts.empty);
        page.fact("segments", report.segments).fact("segment size", Cell::size(report.segment_size));
        page.fact("epoch", report.epoch).fact("epochs in the log", counts.epochs.len());
        page.list("accepted gaps", report.gaps.iter().cloned());
        page.list("truncated", report.void.iter().cloned());
        let row = |(kind, Kind { records, bytes, shortest, longest }): (u8, Kind)| {
            vec![u32::from(kind).into(), records.into(), bytes.into(), shortest.into(), longest.into()]
        };
        page.table("kinds", &["kind", "records", "bytes", "shortest", "longest"], kinds.into_iter().map(row).collect());
        page.table("types", &["type", "records"], counts.types());
        page.table("batch sizes", &["quantile", "bytes", "of records"], counts.quantiles());
        let parts = counts.parts.iter().map(|(what, bytes)| vec![(*what).into(), (*bytes).into()]);
        page.table("where the bytes are", &["what", "bytes"], parts.collect());
        let epochs = counts
            .epochs
            .iter()
            .map(|(epoch, (batches, bytes))| vec![(*epoch).into(), (*batches).into(), (*bytes).into()]);
        page.table("epochs", &["epoch", "batches", "bytes"], epochs.collect());
        let values = report.metas().map(|(name, value)| vec![Cell::foreign(name), value.len().into()]);
        page.table("named values", &["name", "bytes"], values.collect());
        let cursors = report.cursors().map(|(name, position)| vec![Cell::foreign(name), position.into()]);
        page.table("cursors", &["name", "position"], cursors.collect());
        output.page(&page)?;
        Ok(judged.status())
    }
}

/// Totals over batches.
#[derive(Debug, Default)]
struct Counts {
    /// From where checking began to the end of the log.
    bytes: u64,
    empty: u64,
    /// Bytes of each batch, and of the records in it.
    sizes: Vec<(u32, u32)>,
    types: [u64; 11],
    epochs: BTreeMap<u32, (u64, u64)>,
    parts: Vec<(&'static str, u64)>,
}

impl Counts {
    fn of(source: &Source, manifest: &Manifest, judged: &Judgement) -> Result<Self, Failure> {
        let mut counts = Self::default();
        let (mut headers, mut trailers, mut heads, mut filler, mut own, mut skipped) = (0, 0, 0, 0, 0, 0);
        let mut walk = Walk::new(source, manifest, &judged.report);
        while let Some((header, next)) = walk.next()? {
            let BatchHeader { epoch, address, payload_len, flags, .. } = header;
            let layout = header.layout();
            counts.bytes += next - address;
            counts.empty += u64::from(flags.empty);
            counts.sizes.push((layout.len as u32, payload_len));
            let of_epoch = counts.epochs.entry(epoch).or_default();
            *of_epoch = (of_epoch.0 + 1, of_epoch.1 + layout.len as u64);
            headers += HEADER_LEN as u64;
            trailers += (layout.len - layout.table) as u64;
            skipped += next - address - layout.len as u64;
            let mut used = 0;
            for (record, _) in walk.records() {
                counts.types[record.record_type as usize] += 1;
                used += record.padded_len();
                let is_own =
                    record.record_type as u8 >= RecordType::Metadata as u8 || record.record_type == RecordType::NoOp;
                if is_own {
                    own += record.padded_len();
                } else {
                    heads += RECORD_HEADER_LEN as u64;
                }
            }
            filler += u64::from(payload_len) - used;
        }
        counts.parts = vec![
            ("headers of batches", headers),
            ("checksums and padding of batches", trailers),
            ("headers of records", heads),
            ("filler between records", filler),
            ("the log's own records", own),
            ("skipped ends of segments", skipped),
        ];
        let known: u64 = counts.parts.iter().map(|(_, bytes)| bytes).sum();
        counts.parts.insert(0, ("payloads, groups and padding", counts.bytes - known));
        counts.sizes.sort_unstable();
        Ok(counts)
    }

    fn types(&self) -> Vec<Vec<Cell>> {
        const NAMES: [&str; 10] = [
            "record",
            "group",
            "no-op",
            "first part of a long record",
            "middle part",
            "last part",
            "named value",
            "named position",
            "truncation",
            "snapshot",
        ];
        let found = NAMES.into_iter().zip(&self.types[1..]).filter(|(_, records)| **records > 0);
        found.map(|(name, records)| vec![name.into(), (*records).into()]).collect()
    }

    fn quantiles(&self) -> Vec<Vec<Cell>> {
        let Some(last) = self.sizes.len().checked_sub(1) else { return Vec::new() };
        let at = |percent: usize| self.sizes[last * percent / 100];
        let quantiles =
            [("shortest", 0), ("half are shorter than", 50), ("99 % are shorter than", 99), ("longest", 100)];
        let row = |(name, percent): (&'static str, usize)| {
            let (bytes, payload) = at(percent);
            vec![name.into(), bytes.into(), payload.into()]
        };
        quantiles.into_iter().map(row).collect()
    }
}
