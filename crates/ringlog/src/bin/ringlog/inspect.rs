//! `ringlog inspect`: what stands in the files.

use std::path::PathBuf;

use clap::Args;
use ringlog::directory::Directory;
use ringlog::format::{BatchHeader, Manifest, NO_ADDRESS, SEGMENT_HEADER_LEN, SLOT_LEN, SegmentHeader};
use ringlog::manifest::NAME;
use ringlog::recovery::Verify;
use ringlog::segment::parse_name;

use crate::output::{Cell, Failure, Output, Page, Status};
use crate::source::{Judgement, Source};
use crate::walk::header_at;

/// Show what stands in the files of a log: MANIFEST, epochs, segments, the first and the last batch
///
/// Only the end of the log is verified. Where MANIFEST cannot be read, what else there is is shown nevertheless.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Directory of the log
    dir: PathBuf,
}

impl Inspect {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let source = Source::open(&self.dir)?;
        let judged = source.judge(&Verify::new().fast(true));
        let mut page = Page::default();
        match &judged {
            Ok((judged, _)) => judged.show(&source, &mut page),
            Err(_) => _ = page.fact("verdict", "none"),
        }
        let manifest = judged.as_ref().ok().map(|(_, manifest)| manifest.clone()).or_else(|| source.manifest().ok());
        if let Some(manifest) = &manifest {
            of_manifest(&mut page, manifest);
        }
        let names = source.directory().list().map_err(Failure::at(format!("cannot list {}", self.dir.display())))?;
        page.fact("set aside", names.iter().filter(|name| name.starts_with("aside-")).count());
        let slots = slots(&source)?;
        let is_log = !slots.is_empty() || names.iter().any(|name| parse_name(name).is_some());
        let columns = &["slot", "state", "sequence", "known durable", "clean end", "trim point", "epochs"];
        page.table("MANIFEST", columns, slots);
        if let Some(Manifest { epochs, gaps, .. }) = &manifest {
            let epochs = epochs.iter().map(|epoch| vec![epoch.epoch.into(), epoch.start.into(), Cell::id(epoch.salt)]);
            page.table("epochs", &["epoch", "start", "salt"], epochs.collect());
            let gaps = gaps.iter().map(|gap| vec![gap.start.into(), gap.end.into(), gap.number.into()]);
            page.table("gaps", &["start", "end", "next batch"], gaps.collect());
        }
        let segments = segments(&source, manifest.as_ref(), names)?;
        page.table("segments", &["file", "bytes", "header", "first batch", "epoch"], segments);
        if let Ok((judged, manifest)) = &judged {
            let columns = &["which", "address", "number", "epoch", "bytes", "of records", "promises", "flags"];
            page.table("batches", columns, batches(&source, manifest, judged)?);
        }
        if is_log {
            output.page(&page)?;
        }
        Ok(judged.map_err(source.here())?.0.status())
    }
}

fn of_manifest(page: &mut Page, manifest: &Manifest) {
    let Manifest { segment_size, trim, first, .. } = manifest;
    page.fact("segment size", Cell::size(*segment_size)).fact("trim point", *trim);
    page.fact("first batch number", first.number);
    page.fact("batch before", (first.previous != NO_ADDRESS).then_some(first.previous));
}

/// Both slots of MANIFEST, if there is such a file.
fn slots(source: &Source) -> Result<Vec<Vec<Cell>>, Failure> {
    let directory = source.directory();
    let file = match directory.open(NAME, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(Failure::at("cannot open MANIFEST"))?,
    };
    let mut bytes = [0; 2 * SLOT_LEN];
    directory.read_at(&file, &mut bytes, 0).map_err(Failure::at("cannot read MANIFEST"))?;
    let slots = bytes.as_chunks::<SLOT_LEN>().0.iter().enumerate().map(|(n, slot)| match Manifest::decode(slot) {
        Ok(Manifest { sequence, known_durable, clean_end, trim, epochs, .. }) => {
            let state = Cell::from("good");
            vec![
                n.into(),
                state,
                sequence.into(),
                known_durable.into(),
                clean_end.into(),
                trim.into(),
                epochs.len().into(),
            ]
        }
        Err(refusal) => {
            let none = || Cell::from(None::<u64>);
            vec![n.into(), refusal.to_string().into(), none(), none(), none(), none(), none()]
        }
    });
    Ok(slots.collect())
}

fn segments(source: &Source, manifest: Option<&Manifest>, mut names: Vec<String>) -> Result<Vec<Vec<Cell>>, Failure> {
    names.retain(|name| parse_name(name).is_some());
    names.sort();
    let directory = source.directory();
    let row = |name: String| {
        let read = |file| {
            let mut header = [0; SEGMENT_HEADER_LEN];
            directory.read_at(&file, &mut header, 0)?;
            Ok((directory.len(&file)?, SegmentHeader::decode(&header)))
        };
        let (len, header) = match directory.open(&name, false).and_then(read) {
            Ok(read) => read,
            // A trim may have taken it meanwhile; a folder is none.
            Err(error) => {
                let none = || Cell::from(None::<u64>);
                return Ok(vec![name.into(), none(), error.to_string().into(), none(), none()]);
            }
        };
        let state = match &header {
            Ok(header) if manifest.is_some_and(|manifest| manifest.log_id != header.log_id) => {
                format!("of log {:016x}", header.log_id)
            }
            Ok(header) if header.file_name() != name => format!("of segment {}", header.number),
            Ok(header) if header.cookie.is_empty() => "good".into(),
            Ok(header) => format!("good, cookie \"{}\"", String::from_utf8_lossy(&header.cookie)),
            Err(refusal) => refusal.to_string(),
        };
        let first = match (manifest, parse_name(&name)) {
            (Some(manifest), Some(base)) if base.is_multiple_of(manifest.segment_size) => {
                header_at(source, manifest, base)?
            }
            _ => None,
        };
        let first = first.map_or((None, None), |first| (Some(first.number), Some(first.epoch)));
        Ok(vec![name.into(), len.into(), state.into(), first.0.into(), first.1.into()])
    };
    names.into_iter().map(row).collect()
}

/// The first and the last batch.
fn batches(source: &Source, manifest: &Manifest, judged: &Judgement) -> Result<Vec<Vec<Cell>>, Failure> {
    let first = manifest.first_segment() * manifest.segment_size;
    let mut rows = Vec::new();
    for (which, address) in [("first", first), ("last", judged.report.previous)] {
        if address >= judged.report.end.get() {
            continue;
        }
        let Some(header) = header_at(source, manifest, address)? else { continue };
        let BatchHeader { address, number, epoch, payload_len, durable, flags, .. } = header;
        let flags =
            [(flags.last, "last of its segment"), (flags.opens_epoch, "opens an epoch"), (flags.empty, "empty")];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        let len = header.layout().len;
        rows.push(vec![
            which.into(),
            address.into(),
            number.into(),
            epoch.into(),
            len.into(),
            payload_len.into(),
            durable.into(),
            flags.into(),
        ]);
    }
    Ok(rows)
}
