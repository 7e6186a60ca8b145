//! The records of a log, for the subcommands that print, count or copy them.

use core::ops::{ControlFlow, Range};

use clap::{Args, ValueEnum};
use ringlog::recovery::{Item, Record, Replay, ReplayError, Verify, replay};
use ringlog::{Lsn, Recovery};
use serde_json::{Map, Value, json};

use crate::output::{Failure, Output, clean, escaped, hex, json_bytes};
use crate::source::{Judgement, Source};
use crate::walk::is_begun_before;

/// How records are read.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reading {
    /// Read records of up to so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) max_record: usize,
}

/// Why reading ends early.
enum Stop {
    Enough,
    Failed(Failure),
}

/// Gives the records, and the gaps, of which the end lies in `range`, without its start, to `each`, in order, until that
/// has enough. A log that is open elsewhere is read up to the end that it had at first.
pub(crate) fn records(
    source: &Source,
    reading: &Reading,
    range: Range<Lsn>,
    each: impl FnMut(Item<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<Judgement, Failure> {
    let judged = judge_from(source, range.start)?;
    read(source, reading, &judged, range, each)?;
    Ok(judged)
}

/// The same of a log that was judged from where the first of them begins.
pub(crate) fn read(
    source: &Source,
    reading: &Reading,
    judged: &Judgement,
    range: Range<Lsn>,
    mut each: impl FnMut(Item<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let replaying = Replay::new().max_record(reading.max_record);
    let outcome = replay(source.directory(), &judged.report, &replaying, |item| {
        let end = match &item {
            Item::Record(record) => record.end,
            Item::Gap(gap) => gap.end,
            _ => return Ok(()),
        };
        if end <= range.start {
            return Ok(());
        }
        let is_enough = end > range.end || each(item).map_err(Stop::Failed)?.is_break();
        if is_enough { Err(Stop::Enough) } else { Ok(()) }
    });
    match outcome {
        Ok(()) | Err(ReplayError::Stopped(_, Stop::Enough)) => Ok(()),
        Err(ReplayError::Stopped(_, Stop::Failed(failure))) => Err(failure),
        Err(ReplayError::Log(error)) => {
            let first = source.manifest().map_or(judged.report.first, |manifest| Lsn::new(manifest.trim));
            if first > judged.report.first {
                return Err(Failure::Trimmed(first));
            }
            Err(source.here()(error))
        }
        Err(_) => Err(Failure::new("the log cannot be read")),
    }
}

/// Judges only the end of the log, if that is where all of the records begin that end behind `after`.
fn judge_from(source: &Source, after: Lsn) -> Result<Judgement, Failure> {
    let judged = source.judge(&Verify::new().fast(true)).map_err(source.here())?;
    let Recovery { first, checked_from, .. } = judged.report;
    if checked_from <= first || (checked_from <= after && !is_begun_before(source, &judged.report, after)?) {
        return Ok(judged);
    }
    source.judge(&Verify::new()).map_err(source.here())
}

/// How payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Payload {
    /// As text, with escapes where it is none; in JSON, bytes that are no text come as `hex`
    Utf8,
    /// As hexadecimal digits
    Hex,
    /// As JSON, if it is JSON, else like utf8
    Json,
    /// Not at all
    None,
}

/// How records are printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Show {
    /// Show payloads like this
    #[arg(long, value_enum, default_value_t = Payload::Utf8)]
    payload: Payload,
    /// Show at most so many bytes of each payload [default: 64 in text, all in JSON]
    #[arg(long)]
    bytes: Option<usize>,
    /// Show only records of this kind; may be given several times
    #[arg(long)]
    kind: Vec<u8>,
}

impl Show {
    /// Whether the item is to be shown: a gap is, whatever the kinds, as it may have held any.
    pub(crate) fn shows(&self, item: &Item<'_>) -> bool {
        match item {
            Item::Record(record) => self.kind.is_empty() || self.kind.contains(&record.kind),
            _ => true,
        }
    }

    /// The item as a line of the output.
    pub(crate) fn line(&self, output: &Output, item: &Item<'_>) -> String {
        match item {
            Item::Record(record) => output.line(|| self.text(record), || self.json(record)),
            Item::Gap(Range { start, end }) => output.line(
                || format!("{start}..{end}  gap: damage that was accepted"),
                || json!({ "gap": { "from": start.get(), "to": end.get() } }),
            ),
            _ => String::new(),
        }
    }

    fn text(&self, record: &Record<'_>) -> String {
        let Record { lsn, kind, payload, .. } = record;
        let shown = &payload[..payload.len().min(self.bytes.unwrap_or(64))];
        let parsed = || serde_json::from_slice::<Value>(payload).ok();
        let more = if shown.len() < payload.len() && self.payload != Payload::None { "…" } else { "" };
        let shown = match self.payload {
            Payload::Hex => hex(shown),
            Payload::Json if more.is_empty() => {
                parsed().map_or_else(|| escaped(shown), |json| clean(&json.to_string()))
            }
            Payload::Utf8 | Payload::Json => escaped(shown),
            Payload::None => String::new(),
        };
        format!("{lsn:>12}  kind {kind:<3}  {:>6} B  {shown}{more}", payload.len()).trim_end().to_owned()
    }

    fn json(&self, record: &Record<'_>) -> Value {
        let Record { lsn, end, kind, payload, .. } = record;
        let shown = &payload[..payload.len().min(self.bytes.unwrap_or(usize::MAX))];
        let mut json = Map::new();
        json.insert("lsn".into(), lsn.get().into());
        json.insert("end".into(), end.get().into());
        json.insert("kind".into(), (*kind).into());
        json.insert("len".into(), payload.len().into());
        let parsed = || serde_json::from_slice::<Value>(payload).ok().map(|value| ("json", value));
        let shown = match self.payload {
            Payload::Utf8 => Some(json_bytes(shown)),
            Payload::Hex => Some(("hex", hex(shown).into())),
            Payload::Json => parsed().or_else(|| Some(json_bytes(shown))),
            Payload::None => None,
        };
        json.extend(shown.map(|(name, value)| (name.to_owned(), value)));
        json.into()
    }
}
