//! `ringlog tail`: the last records, and those that come.

use core::ops::ControlFlow;
use core::time::Duration;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::thread;

use clap::Args;
use ringlog::recovery::{Item, Verify};
use ringlog::{Lsn, Recovery};
use serde_json::json;

use crate::output::{Failure, Output, Status};
use crate::records::{Reading, Show, records};
use crate::source::{Judgement, Source};
use crate::walk::has_batch;

/// Pauses between looks at a log: at first, and when nothing comes for long.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(500);

/// So often the last records are looked for anew, when a writer trims them away meanwhile.
const TRIES: u32 = 20;

/// Behind every record.
const END: Lsn = Lsn::new(u64::MAX);

/// Print the last records of a log, and those that a process appends to it meanwhile
///
/// With -f it goes on until it is interrupted, over restarts of the writer. A batch is printed when all of it is there.
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
        let source = Source::open(&self.dir)?;
        let mut tries = 0;
        let judged = loop {
            match self.last(&source, output) {
                // Nothing was printed yet.
                Err(Failure::Trimmed(_)) if tries < TRIES => tries += 1,
                outcome => break outcome?,
            }
        };
        if self.follow { self.go_on(&source, output, judged) } else { judged.remark(output) }
    }

    /// Prints the last records.
    fn last(&self, source: &Source, output: &mut Output) -> Result<Judgement, Failure> {
        // Most logs have enough of them where opening would begin.
        let mut start = source.judge(&Verify::new().fast(true)).map_err(source.here())?.report.checked_from;
        loop {
            let mut last = VecDeque::new();
            let judged = records(source, &self.reading, start..END, |item| {
                if self.show.shows(&item) {
                    last.push_back(self.show.line(output, &item));
                    if last.len() > self.lines {
                        last.pop_front();
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if last.len() >= self.lines || start <= judged.report.first {
                last.iter().try_for_each(|line| output.raw(line))?;
                return Ok(judged);
            }
            start = Lsn::START;
        }
    }

    /// Prints what comes behind the end that was judged.
    fn go_on(&self, source: &Source, output: &mut Output, mut judged: Judgement) -> Result<Status, Failure> {
        let (mut position, mut pause, mut sequence) = (judged.report.end, SOON, None);
        loop {
            output.flush()?;
            if judged.status() == Status::Damaged {
                return judged.remark(output);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LATER);
            let now = source.manifest().map(|manifest| manifest.sequence).ok();
            if now == sequence && !has_batch(source, position)? {
                continue;
            }
            sequence = now;
            let before = position;
            let outcome = records(source, &self.reading, before..END, |item| {
                match &item {
                    Item::Record(record) => position = record.end,
                    Item::Gap(gap) => position = gap.end,
                    _ => {}
                }
                if self.show.shows(&item) {
                    output.raw(&self.show.line(output, &item))?;
                }
                Ok(ControlFlow::Continue(()))
            });
            judged = match outcome {
                // What is left is read with the next look.
                Err(Failure::Trimmed(_)) => continue,
                outcome => outcome?,
            };
            let Recovery { first, end, .. } = judged.report;
            if first > before {
                let text = format!("what came next was trimmed; the log begins at {first}");
                output.remark(&text, || json!({ "trimmed_to": first.get() }))?;
            } else if end < before {
                let text = format!("the log was cut back to {end}");
                output.remark(&text, || json!({ "cut_to": end.get() }))?;
            }
            if end != before {
                pause = SOON;
            }
            position = end;
        }
    }
}
