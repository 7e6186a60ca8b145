//! `ringlog dump`: records, in order.

use core::ops::Bound;
use std::path::PathBuf;

use clap::Args;
use ringlog::Lsn;

use crate::output::{Failure, Output, Status};
use crate::records::{Reading, Show, Troubles};
use crate::source::lsn;

/// Print the records of a log, in order: one line each, or one JSON object each
///
/// Records that were truncated, or trimmed, are not printed. A record longer than a buffer comes where its last part
/// is. Of a log that a process is writing, those are printed that are proven to be durable. Damage is reported where it
/// lies, and what is behind it is printed, too.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// Directory of the log
    dir: PathBuf,
    /// Print records that end behind this position, such as that of a record
    #[arg(long, value_name = "LSN", value_parser = lsn)]
    from: Option<Lsn>,
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
        let reader = self.reading.open(&self.dir)?;
        let to = self.to.filter(|to| *to < reader.end());
        let bound = |limit: Option<Lsn>| limit.map_or(Bound::Unbounded, Bound::Included);
        let mut scan = reader.scan((bound(self.from), bound(to)));
        let (mut left, mut troubles) = (self.limit.unwrap_or(u64::MAX), Troubles::default());
        while left > 0 {
            match scan.next_item() {
                Ok(None) => break,
                Ok(Some(item)) => {
                    troubles.pass();
                    if self.show.shows(&item) {
                        output.raw(&self.show.line(output, &item))?;
                        left -= 1;
                    }
                }
                Err(error) => {
                    if troubles.meet(output, error)?.is_break() {
                        break;
                    }
                }
            }
        }
        troubles.end(output, &reader)
    }
}
