//! The log that a subcommand reads, and cannot change.

use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use ringlog::directory::{Directory, DiskDirectory, DiskFile};
use ringlog::format::Manifest;
use ringlog::manifest::ManifestFile;
use ringlog::recovery::{Damage, Evidence, Torn, Verdict, Verify, look};
use ringlog::segment::parse_name;
use ringlog::{Lsn, OpenError, Recovery};
use serde_json::json;

use crate::output::{Cell, Failure, Output, Page, Status};

/// A directory that refuses to be changed, and moves a progress bar.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    directory: DiskDirectory,
    bar: ProgressBar,
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this subcommand only reads"))
}

impl Directory for ReadOnly {
    type File = DiskFile;
    type Lock = core::convert::Infallible;

    fn create(&self, _: &str) -> io::Result<DiskFile> {
        refused()
    }

    fn open(&self, name: &str, write: bool) -> io::Result<DiskFile> {
        if write { refused() } else { self.directory.open(name, false) }
    }

    fn read_at(&self, file: &DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.directory.read_at(file, buffer, offset)?;
        self.bar.inc(read as u64);
        Ok(read)
    }

    fn write_at(&self, _: &DiskFile, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self, file: &DiskFile) -> io::Result<u64> {
        self.directory.len(file)
    }

    fn extend(&self, _: &DiskFile, _: u64, _: u64) -> io::Result<()> {
        refused()
    }

    fn segment_file(&self, file: DiskFile, addresses: Range<u64>) -> buffer_ring::SegmentFile {
        // Opened for reading, as each file of this directory is.
        self.directory.segment_file(file, addresses)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn unlink(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_file(&self, _: &DiskFile) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }

    fn sync_parent(&self) -> io::Result<()> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn lock(&self, _: &str) -> io::Result<Option<core::convert::Infallible>> {
        refused()
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.directory.is_locked(name)
    }
}

/// The log in a directory.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    directory: ReadOnly,
}

/// A log, judged.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) report: Recovery,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let directory = DiskDirectory::open(path).map_err(Failure::at(format!("cannot open {}", path.display())))?;
        Ok(Self { path: path.to_owned(), directory: ReadOnly { directory, bar: ProgressBar::hidden() } })
    }

    pub(crate) fn directory(&self) -> &ReadOnly {
        &self.directory
    }

    /// For `map_err`: names the directory.
    pub(crate) fn here(&self) -> impl FnOnce(OpenError) -> Failure {
        Failure::at(self.path.display().to_string())
    }

    /// Shows how much of the files is read, on a terminal, until [`done`](Self::done); `times` over.
    pub(crate) fn show_progress(&mut self, times: u64) {
        const LOOK: &str = "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
        let len = |name: &String| self.directory.open(name, false).and_then(|file| self.directory.len(&file));
        let names = self.directory.list().unwrap_or_default();
        let bytes: u64 =
            names.iter().filter(|name| parse_name(name).is_some()).map(|name| len(name).unwrap_or(0)).sum();
        // It stays hidden where standard error is no terminal.
        let bar = ProgressBar::new(bytes * times);
        self.directory.bar = match ProgressStyle::with_template(LOOK) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
    }

    pub(crate) fn done(&self) {
        self.directory.bar.finish_and_clear();
    }

    /// What `MANIFEST` says.
    pub(crate) fn manifest(&self) -> Result<Manifest, OpenError> {
        Ok(ManifestFile::read(&self.directory, false)?.ok_or(OpenError::Missing)?.content().clone())
    }

    /// Whether a process has the log open: it holds the lock of `LOCK`.
    pub(crate) fn is_open_elsewhere(&self) -> bool {
        self.directory.is_locked("LOCK").unwrap_or(false)
    }

    /// Judges the log; of one that is open elsewhere, what is proven to be durable. Also what `MANIFEST` says.
    pub(crate) fn judge(&self, how: &Verify) -> Result<(Judgement, Manifest), OpenError> {
        look(&self.directory, how).map(|(report, manifest)| (Judgement { report }, manifest))
    }
}

impl Judgement {
    pub(crate) fn status(&self) -> Status {
        match self.report.verdict {
            Verdict::Torn(_) => Status::Torn,
            Verdict::Damaged(_) => Status::Damaged,
            _ => Status::Good,
        }
    }

    /// The verdict in a word.
    fn word(&self) -> &'static str {
        match self.report.verdict {
            Verdict::InUse => "open",
            Verdict::Fresh => "new",
            Verdict::Clean => "clean",
            Verdict::Unclosed => "unclosed",
            Verdict::Torn(_) => "torn",
            Verdict::Damaged(_) => "damaged",
            // A later release may know more.
            _ => "unknown",
        }
    }

    /// Why the verdict is right.
    pub(crate) fn proof(&self) -> String {
        let Recovery { checked_from, end, promised, epoch, ref gaps, .. } = self.report;
        let intact = match gaps.len() {
            _ if checked_from == end => format!("there is no batch at {end}, where the log begins"),
            0 => format!("all batches from {checked_from} to {end} are intact"),
            1 => format!("all batches from {checked_from} to {end} are intact, but for one gap that was accepted"),
            gaps => {
                format!("all batches from {checked_from} to {end} are intact, but for {gaps} gaps that were accepted")
            }
        };
        match &self.report.verdict {
            Verdict::InUse => format!(
                "{intact}; LOCK is locked, so a process has the log open, and what stands at {end} is not judged"
            ),
            Verdict::Clean => format!("{intact}; MANIFEST says that the log was closed at {end}"),
            Verdict::Torn(Torn { content, evidence }) => {
                let evidence = match evidence {
                    Evidence::Header { at } => format!("the header of a batch of epoch {epoch} stands at {at}"),
                    Evidence::Table { at } => {
                        format!("the checksums of a batch of epoch {epoch} that began at {at} are there")
                    }
                    _ => "a part of a batch is there".into(),
                };
                format!(
                    "{intact}; nothing promises that more than {promised} was durable, so nothing acknowledged lies \
                     behind; at {end}: {content}; {evidence}, so a write was in flight"
                )
            }
            Verdict::Damaged(Damage { range: Range { start, end }, file, content, proof }) => format!(
                "{intact}; at {start}, in {file}: {content}; but {proof} proves that all up to {end} was durable"
            ),
            _ => format!(
                "{intact}; nothing promises that more than {promised} was durable; behind is no batch of epoch \
                 {epoch}, nor a part of one that is recognised; MANIFEST does not say that the log was closed"
            ),
        }
    }

    /// What to do next.
    fn way_out(&self, path: &Path) -> Option<String> {
        let path = path.display();
        match self.report.verdict {
            Verdict::Torn(_) => Some(format!("open the log, which cuts the tail off, or `ringlog repair {path}`")),
            Verdict::Damaged(_) => Some(format!(
                "restore the file, or `ringlog repair {path}`, which sets the damage aside and deletes nothing"
            )),
            _ => None,
        }
    }

    /// What was found when the log was opened to be read.
    pub(crate) fn of(report: Recovery) -> Self {
        Self { report }
    }

    /// Ends a stream of records: says how the log ends, if that is not well.
    pub(crate) fn remark(&self, output: &mut Output) -> Result<Status, Failure> {
        if self.status() != Status::Good {
            let (verdict, proof) = (self.word(), self.proof());
            output
                .remark(&format!("the log is {verdict}: {proof}"), || json!({ "verdict": verdict, "proof": proof }))?;
        }
        Ok(self.status())
    }

    /// Adds verdict, proof, and what to do.
    pub(crate) fn show(&self, source: &Source, page: &mut Page) {
        page.fact("log", Cell::id(self.report.log_id)).fact("verdict", self.word());
        page.fact("open elsewhere", source.is_open_elsewhere());
        page.fact("proof", self.proof());
        if let Verdict::Damaged(Damage { range, file, content, proof }) = &self.report.verdict {
            page.fact("damaged", range.clone()).fact("file", &**file);
            page.fact("content", content.to_string()).fact("promised by", proof.to_string());
        }
        if let Some(way_out) = self.way_out(&source.path) {
            page.fact("way out", way_out);
        }
    }
}

/// Reads a position in the log.
pub(crate) fn lsn(text: &str) -> Result<Lsn, core::num::ParseIntError> {
    text.parse().map(Lsn::new)
}
