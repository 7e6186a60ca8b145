//! Events of several producers, and a consumer that sends each of them exactly once, whatever kills it.
//!
//! The consumer follows what is durable, so that it never sends an event that a crash takes back. What it has sent it
//! writes down in a log of its own, `sent`: with each letter the position behind its event. After a restart it goes on
//! behind the last one that `sent` knows. Its cursor follows behind, and lets the events be trimmed.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread;

use ringlog::{Cursor, Error, Log, Lsn, Options, Record, SyncPolicy, Upto};

pub(crate) type Failure = Box<dyn core::error::Error + Send + Sync>;

/// Letters that are sent before they, and then the cursor, are made durable.
const BATCH: u64 = 500;

pub(crate) struct Mailer {
    pub(crate) events: Log,
    sent: Log,
    /// The last event of each producer.
    last: BTreeMap<u8, u64>,
}

/// The number of an event.
fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes"))
}

impl Mailer {
    /// Opens both logs in `folder`. Each letter must be the next one of its producer.
    pub(crate) fn open(folder: &Path, options: impl Fn() -> Options) -> Result<Self, Failure> {
        let mut last = BTreeMap::new();
        let mut next = |producer, event: u64| {
            let before = last.insert(producer, event).unwrap_or(0);
            if event == before + 1 {
                Ok(())
            } else {
                Err(io::Error::other(format!("producer {producer}: {event} after {before}")))
            }
        };
        let (sent, _) =
            options().open_with(folder.join("sent"), |letter| next(letter.kind, number(&letter.payload[8..])))?;
        let behind = position(&sent)?;
        let (events, _) =
            options().sync(SyncPolicy::Every(Duration::from_millis(2))).open_with(folder.join("events"), |event| {
                if event.end > behind { next(event.kind, number(event.payload)) } else { Ok(()) }
            })?;
        Ok(Self { events, sent, last })
    }

    /// Appends events of a producer, from where it was, until `stop`. Nothing waits for durability.
    pub(crate) fn produce(&self, producer: u8, stop: &AtomicBool) -> Result<u64, Error> {
        let (mut writer, mut event) = (self.events.writer(), self.last.get(&producer).copied().unwrap_or(0));
        while !stop.load(Ordering::Relaxed) {
            event += 1;
            writer.append(producer, &event.to_le_bytes())?;
            if event.is_multiple_of(64) {
                thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(event)
    }

    /// Sends all events until the log ends.
    pub(crate) fn send(&self) -> Result<(), Error> {
        let cursor = self.events.cursor("mailer")?;
        let mut follow = self.events.follow(position(&self.sent)?.max(cursor.position()), Upto::Durable);
        let mut letters = 0;
        while let Some(event) = follow.next()? {
            self.sent.append(event.kind, &letter(&event))?;
            letters += 1;
            if letters % BATCH == 0 {
                match self.forget(&cursor, follow.position()) {
                    // Nothing is forgotten any more; what is left is sent.
                    Err(Error::Closed) => {}
                    outcome => outcome?,
                }
            }
        }
        self.sent.close().map(drop)
    }

    /// Everything before `position` is sent, durably: it may go.
    fn forget(&self, cursor: &Cursor, position: Lsn) -> Result<(), Error> {
        self.sent.sync()?;
        cursor.advance(position)?;
        self.events.trim(position).map(drop)
    }

    /// How many events are not sent.
    pub(crate) fn left(&self) -> Result<usize, Error> {
        let (mut scan, mut left) = (self.events.scan(position(&self.sent)?..), 0);
        while scan.next()?.is_some() {
            left += 1;
        }
        Ok(left)
    }

    /// The last event of each producer.
    pub(crate) fn last(&self) -> &BTreeMap<u8, u64> {
        &self.last
    }
}

fn letter(event: &Record<'_>) -> Vec<u8> {
    [&event.end.to_bytes()[..], event.payload].concat()
}

/// Behind the last event that was sent.
fn position(sent: &Log) -> Result<Lsn, Error> {
    let mut letters = sent.scan(..).rev();
    Ok(letters.next()?.map_or(Lsn::START, |letter| Lsn::new(number(letter.payload))))
}
