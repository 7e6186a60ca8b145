//! `ringlog dump`: records, in order.

use core::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use ringlog::Lsn;

use crate::output::{Failure, Output, Status};
use crate::records::{Reading, Show, records};
use crate::source::{Source, lsn};

/// Print the records of a log, in order: one line each, or one JSON object each
///
/// Records that were truncated, or trimmed, are not printed. A record longer than a buffer comes where its last part
/// is. Of a log that a process is writing, the records up to its present end are printed.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// Directory of the log
    dir: PathBuf,
    /// Print records that end behind this position, such as that of a record
    #[arg(long, value_name = "LSN", value_parser = lsn, default_value = "0", hide_default_value = true)]
    from: Lsn,
    /// Print records that end at this position or before
    #[arg(long, value_name = "LSN", value_parser = lsn)]
    to: Option<Lsn>,
    /// Print at most so many records
    #[arg(long, value_name = "RECORDS")]
    limit: Option<u64>,
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    reading: Reading,
}

impl Dump {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let source = Source::open(&self.dir)?;
        let range = self.from..self.to.unwrap_or(Lsn::new(u64::MAX));
        let mut left = self.limit.unwrap_or(u64::MAX);
        let judged = records(&source, &self.reading, range, |item| {
            if left > 0 && self.show.shows(&item) {
                left -= 1;
                output.raw(&self.show.line(output, &item))?;
            }
            Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        judged.remark(output)
    }
}
