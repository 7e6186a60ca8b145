//! `ringlog verify`: the verdict, and its proof.

use std::path::PathBuf;

use clap::Args;
use ringlog::recovery;

use crate::output::{Cell, Failure, Output, Page, Status};
use crate::source::Source;

/// Read all of a log, and prove how it ends
///
/// Each batch is checked, from the first one that is kept to the end of the log, and then everything behind that end
/// that could prove that more was acknowledged. Nothing is written, and no lock is kept.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Directory of the log
    dir: PathBuf,
    /// Check only the end, as opening the log does: from the last segment on before which all is proven to have been
    /// durable
    #[arg(long)]
    fast: bool,
    /// Read so many segments side by side [default: one per processor, four at most]
    #[arg(long)]
    threads: Option<usize>,
}

impl Verify {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let mut how = recovery::Verify::new().fast(self.fast);
        if let Some(threads) = self.threads {
            how = how.threads(threads);
        }
        let mut source = Source::open(&self.dir)?;
        if !self.fast {
            source.show_progress(1);
        }
        let judged = source.judge(&how);
        source.done();
        let (judged, _) = judged.map_err(source.here())?;
        let report = &judged.report;
        let mut page = Page::default();
        judged.show(&source, &mut page);
        page.fact("first", report.first).fact("checked from", report.checked_from);
        page.fact("end", report.end);
        page.fact("promised", report.promised);
        page.fact("batches", report.batches).fact("records", report.records);
        page.fact("segments", report.segments).fact("segment size", Cell::size(report.segment_size));
        page.fact("epoch", report.epoch);
        page.list("accepted gaps", report.gaps.iter().cloned());
        page.list("bad segment headers", report.bad_segment_headers.iter().map(String::as_str));
        output.page(&page)?;
        Ok(judged.status())
    }
}
