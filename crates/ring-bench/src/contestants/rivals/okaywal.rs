//! okaywal: a write-ahead log with group commit by one file sync for several writers.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use okaywal::{Configuration, Entry, EntryId, LogManager, LogVoid, SegmentReader, WriteAheadLog};
use parking_lot::Mutex;

use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::Tally;

pub const OKAYWAL: Contestant = Contestant::of::<Okaywal>(Family::Rival, "okaywal");

pub struct Okaywal {
    /// `None` once it is closed.
    log: Option<WriteAheadLog>,
    folder: PathBuf,
}

fn configuration(folder: &PathBuf) -> Configuration {
    // What was checkpointed could not be read back.
    Configuration::default_for(folder).checkpoint_after_bytes(1 << 40)
}

impl Log for Okaywal {
    type Writer<'a> = &'a WriteAheadLog;

    fn open(place: &Place) -> Outcome<Self> {
        let folder = place.folder.join("okaywal");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        Ok(Self { log: Some(configuration(&folder).open(LogVoid)?), folder })
    }

    fn writer(&self, _: usize) -> &WriteAheadLog {
        self.log.as_ref().expect("not closed yet")
    }

    fn read_back(mut self, tally: &mut Tally) -> Outcome<bool> {
        if let Some(log) = self.log.take() {
            log.shutdown()?;
        }
        let found = Found::default();
        configuration(&self.folder).open(found.clone())?.shutdown()?;
        let records = mem::take(&mut *found.0.lock());
        records.iter().for_each(|record| tally.note(record));
        Ok(true)
    }
}

impl Writer for &WriteAheadLog {
    fn append(&mut self, record: &[u8]) {
        let mut entry = self.begin_entry().expect("the log takes it");
        entry.write_chunk(record).expect("the log takes it");
        entry.commit().expect("the log takes it");
    }
}

/// Collects what is recovered.
#[derive(Clone, Debug, Default)]
struct Found(Arc<Mutex<Vec<Vec<u8>>>>);

impl LogManager for Found {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        self.0.lock().extend(entry.read_all_chunks()?.into_iter().flatten());
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
