//! `ringlog copy`: the records of a log, as a log of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use ringlog::directory::Directory;
use ringlog::format::{BLOCK, SEGMENT_HEADER_LEN, SegmentHeader};
use ringlog::recovery::{Item, Verify};
use ringlog::segment::file_name;
use ringlog::{Group, Log, Lsn, Recovery};

use crate::output::{Cell, Failure, Output, Page, Status};
use crate::records::{Reading, read};
use crate::source::{Judgement, Source};

/// Buffers of the ring that the copy is written through, and the most bytes of each.
const BUFFERS: usize = 8;
const BUFFER: u64 = 1 << 20;

/// Copy a log, also one that a process is writing, into a new log
///
/// The copy is a log with an id of its own: a plain copy of the files of a log that is being written looks damaged, and
/// is. It holds all records from the first to the end that the log had when the copy began, with their kinds, groups as
/// groups, the named values, and the cursors, each before the same records as in the original; records that were
/// truncated or trimmed are left out. Positions are new. Of a log that a process is writing, what is proven to be
/// durable is copied. The copy gets its name only when it is complete.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Directory of the log
    dir: PathBuf,
    /// Directory of the copy, which must not exist
    target: PathBuf,
    /// Bytes of each segment of the copy [default: those of the log]
    #[arg(long, value_name = "BYTES")]
    segment_size: Option<u64>,
    /// Copy a damaged log, up to the damage
    #[arg(long)]
    damaged: bool,
    #[command(flatten)]
    reading: Reading,
}

/// What was copied.
#[derive(Debug, Default)]
struct Copied {
    records: u64,
    bytes: u64,
    gaps: u64,
}

impl Copy {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let partial = partial(&self.target);
        for path in [&self.target, &partial] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Failure::new(format!(
                    "{} exists; name another directory, or move it away",
                    path.display()
                )));
            }
        }
        let mut source = Source::open(&self.dir)?;
        source.show_progress(2);
        let copied = self.write(&source, &partial);
        source.done();
        let (judged, copied, log_id) = copied?;
        fs::rename(&partial, &self.target).map_err(Failure::at(format!("cannot rename {}", partial.display())))?;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(Failure::at(format!("cannot sync {}", parent.display())))?;

        let mut page = Page::default();
        judged.show(&source, &mut page);
        page.fact("copy", self.target.display().to_string()).fact("log of the copy", Cell::id(log_id));
        page.fact("up to", judged.report.end);
        page.fact("records", copied.records).fact("bytes of records", Cell::size(copied.bytes));
        page.fact("named values", judged.report.metas().count()).fact("cursors", judged.report.cursors().count());
        page.fact("gaps left out", copied.gaps);
        output.page(&page)?;
        // The copy of a torn log is whole.
        Ok(if judged.status() == Status::Damaged { Status::Damaged } else { Status::Good })
    }

    fn write(&self, source: &Source, partial: &Path) -> Result<(Judgement, Copied, u64), Failure> {
        let (judged, _) = source.judge(&Verify::new()).map_err(source.here())?;
        if judged.status() == Status::Damaged && !self.damaged {
            let why = judged.proof();
            return Err(Failure::new(format!("the log is damaged; copy --damaged copies what is before: {why}")));
        }
        let Recovery { segment_size, checked_from, .. } = judged.report;
        let segment_size = self.segment_size.unwrap_or(segment_size);
        let buffer = BUFFER.min(segment_size / 4) / BLOCK as u64 * BLOCK as u64;
        let options = Log::options().segment_size(segment_size).ring(BUFFERS, buffer as usize);
        let options = options.max_record(self.reading.max_record).cookie(cookie(source, checked_from));
        let (log, made) = options.open(partial).map_err(Failure::at(partial.display()))?;

        let first = log.first();
        let cursors = judged.report.cursors().map(|(name, position)| (name, position, first)).collect();
        let (pending, copied) = (Vec::new(), Copied::default());
        let mut copying = Copying { log: &log, end: Lsn::START, pending, copied, cursors };
        read(source, &self.reading, &judged, |item| copying.add(&item))?;
        copying.flush()?;
        let Copying { copied, cursors, .. } = copying;
        for (name, value) in judged.report.metas() {
            let name = str::from_utf8(name).map_err(Failure::at("the name of a value is no text"))?;
            log.set_meta(name, value)?;
        }
        for (name, _, position) in cursors {
            let name = str::from_utf8(name).map_err(Failure::at("the name of a cursor is no text"))?;
            log.cursor(name)?.advance(position)?;
        }
        log.close()?;
        Ok((judged, copied, made.log_id))
    }
}

/// Records on their way.
struct Copying<'a> {
    log: &'a Log,
    /// Those that wait end here, and so are one group.
    end: Lsn,
    pending: Vec<(u8, Vec<u8>)>,
    copied: Copied,
    /// Each cursor: its name, its position, and that in the copy.
    cursors: Vec<(&'a [u8], Lsn, Lsn)>,
}

impl Copying<'_> {
    fn add(&mut self, item: &Item<'_>) -> Result<(), Failure> {
        match item {
            Item::Record(record) => {
                if record.end != self.end {
                    self.flush()?;
                    self.end = record.end;
                }
                self.copied.records += 1;
                self.copied.bytes += record.payload.len() as u64;
                self.pending.push((record.kind, record.payload.to_vec()));
            }
            Item::Gap(_) => self.copied.gaps += 1,
            _ => {}
        }
        Ok(())
    }

    /// Appends those that wait.
    fn flush(&mut self) -> Result<(), Failure> {
        let placed = match &*self.pending {
            [] => return Ok(()),
            [(kind, payload)] => self.log.append(*kind, payload)?,
            payloads => {
                let mut group = Group::new();
                for (kind, payload) in payloads {
                    group.push(*kind, payload);
                }
                self.log.append_group(&group)?
            }
        };
        self.pending.clear();
        for (_, position, copied) in &mut self.cursors {
            if self.end <= *position {
                *copied = placed.end;
            }
        }
        Ok(())
    }
}

/// The name of a copy that is not complete.
fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The user's bytes in the header of the segment that holds `address`; none if that header is bad.
fn cookie(source: &Source, address: Lsn) -> Vec<u8> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let manifest = source.manifest().map_err(io::Error::from)?;
        let file = source
            .directory()
            .open(&file_name(address.get() / manifest.segment_size * manifest.segment_size), false)?;
        let mut header = [0; SEGMENT_HEADER_LEN];
        source.directory().read_at(&file, &mut header, 0)?;
        Ok(SegmentHeader::decode(&header).ok().map(|header| header.cookie))
    };
    read().ok().flatten().unwrap_or_default()
}
