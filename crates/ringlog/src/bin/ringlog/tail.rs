//! `ringlog tail`: the last records, and those that come.

use core::time::Duration;
use std::path::PathBuf;
use std::thread;

use clap::Args;
use ringlog::{Error, Reader};

use crate::output::{Failure, Output, Status};
use crate::records::{Reading, Show, Troubles};

/// How long a follower waits for more before it has to be asked again.
const LONG: Duration = Duration::from_secs(3600);

/// An error of a log that is followed is believed when it comes so many times in a row: its writer may be changing it.
const ERRORS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Print the last records of a log, and those that a process appends to it meanwhile
///
/// With -f it goes on until it is interrupted, over restarts of the writer. A record is printed when it is proven to be
/// durable: by the next batch, which follows within 100 ms, or by the end of the writer.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Directory of the log
    dir: PathBuf,
    /// Print so many of the last records
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: usize,
    /// Go on with the records that are appended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    reading: Reading,
}

impl Tail {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let reader = self.reading.open(&self.dir)?;
        let mut troubles = Troubles::default();
        self.last(&reader, output, &mut troubles)?;
        if self.follow { self.go_on(&reader, output, troubles) } else { troubles.end(output, &reader) }
    }

    /// Prints the last records.
    fn last(&self, reader: &Reader, output: &mut Output, troubles: &mut Troubles) -> Result<(), Failure> {
        let (mut last, mut scan) = (Vec::new(), reader.scan(..).rev());
        while last.len() < self.lines {
            match scan.next_item() {
                Ok(None) => break,
                Ok(Some(item)) => {
                    troubles.pass();
                    if self.show.shows(&item) {
                        last.push(self.show.line(output, &item));
                    }
                }
                // A writer has trimmed what is before.
                Err(Error::Trimmed { .. }) => break,
                Err(error) => {
                    if troubles.meet(output, error)?.is_break() {
                        break;
                    }
                }
            }
        }
        last.iter().rev().try_for_each(|line| output.raw(line))
    }

    /// Prints what comes behind the last records.
    fn go_on(&self, reader: &Reader, output: &mut Output, mut troubles: Troubles) -> Result<Status, Failure> {
        let (mut follow, mut patience, mut errors) = (reader.follow(reader.end()), Duration::ZERO, 0);
        loop {
            match follow.next_item_timeout(patience) {
                Ok(None) => return troubles.end(output, reader),
                Ok(Some(item)) => {
                    if self.show.shows(&item) {
                        output.raw(&self.show.line(output, &item))?;
                    }
                    // Printed at the latest when nothing more is there.
                    (patience, errors) = (Duration::ZERO, 0);
                    troubles.pass();
                }
                Err(Error::TimedOut) => {
                    output.flush()?;
                    (patience, errors) = (LONG, 0);
                }
                Err(Error::File(_)) if errors < ERRORS => {
                    errors += 1;
                    thread::sleep(PAUSE);
                }
                Err(error) => {
                    if troubles.meet(output, error)?.is_break() {
                        return troubles.end(output, reader);
                    }
                }
            }
        }
    }
}
