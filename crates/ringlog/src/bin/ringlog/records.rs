//! The records of a log, for the subcommands that print, count or copy them.

use core::ops::{ControlFlow, Range};
use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, ValueEnum};
use ringlog::recovery::{Item, Record, Replay, ReplayError, replay};
use ringlog::{Error, Log, Lsn, Reader};
use serde_json::{Map, Value, json};

use crate::output::{Failure, Output, Status, clean, escaped, hex, json_bytes};
use crate::source::{Judgement, Source};

/// How records are read.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reading {
    /// Read records of up to so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) max_record: usize,
}

impl Reading {
    /// Opens a log to be read, beside its writer, and also if it is damaged.
    pub(crate) fn open(&self, path: &Path) -> Result<Reader, Failure> {
        // Its absence has another error than that of a log in it.
        Source::open(path)?;
        let options = Log::options().max_record(self.max_record);
        options.open_read_only(path).map_err(Failure::at(path.display()))
    }
}

/// Gives the records and the gaps of a judged log to `each`, in order.
pub(crate) fn read(
    source: &Source,
    reading: &Reading,
    judged: &Judgement,
    each: impl FnMut(Item<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let replaying = Replay::new().max_record(reading.max_record);
    match replay(source.directory(), &judged.report, &replaying, each) {
        Ok(()) => Ok(()),
        Err(ReplayError::Stopped(_, failure)) => Err(failure),
        Err(ReplayError::Log(error)) => {
            let first = source.manifest().map_or(judged.report.first, |manifest| Lsn::new(manifest.trim));
            if first > judged.report.first {
                let why = format!("the log was trimmed to {first} while it was read; start again");
                return Err(Failure::new(why));
            }
            Err(source.here()(error))
        }
        Err(_) => Err(Failure::new("the log cannot be read")),
    }
}

/// What a stream of records has met that was no record.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Where damage begins; it is met again by each record that has a part in it.
    damaged: BTreeSet<Lsn>,
    trimmed: Lsn,
    /// Errors since the last record.
    in_a_row: u32,
    /// The error that ended the stream.
    last: Option<Error>,
}

/// No log has so many errors between two records: reading it gets no further.
const STUCK: u32 = 100_000;

impl Troubles {
    /// A record was met.
    pub(crate) fn pass(&mut self) {
        self.in_a_row = 0;
    }

    /// Says what was met. Whether what comes behind can be read.
    pub(crate) fn meet(&mut self, output: &mut Output, error: Error) -> Result<ControlFlow<()>, Failure> {
        self.in_a_row += 1;
        match error {
            Error::Damaged { ref range, .. } if self.in_a_row < STUCK => {
                if self.damaged.insert(range.start) {
                    let json = json!({ "damaged": { "from": range.start.get(), "to": range.end.get() } });
                    output.remark(&error.to_string(), || json)?;
                }
            }
            Error::Trimmed { first } if first > self.trimmed => {
                self.trimmed = first;
                output.remark(&error.to_string(), || json!({ "trimmed_to": first.get() }))?;
            }
            Error::Damaged { .. } | Error::Trimmed { .. } => {
                self.last = Some(error);
                return Ok(ControlFlow::Break(()));
            }
            error => return Err(error.into()),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the stream: says how the log ends, if that is not well.
    pub(crate) fn end(self, output: &mut Output, reader: &Reader) -> Result<Status, Failure> {
        let status = Judgement::of(reader.report()).remark(output)?;
        match self.last {
            _ if !self.damaged.is_empty() => Ok(Status::Damaged),
            Some(error) if status == Status::Good => Err(error.into()),
            _ => Ok(status),
        }
    }
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
            Item::Truncated { from } => {
                output.line(|| format!("{from}..  truncated"), || json!({ "truncated": { "from": from.get() } }))
            }
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
