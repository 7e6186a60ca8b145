//! The logs: how each is written and read, with the settings that its documentation gives for durability.

use core::fmt::Display;
use std::convert::Infallible;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use ringlog::Log;
use ringlog::recovery::TornTail;
use wal_db::{OpenPolicy, Wal, WalConfig};

use crate::disk::{Event, Recorder};
use crate::workload::{self, OPENINGS};

type Outcome<T> = Result<T, String>;

/// Bytes of a segment, where it can be chosen: small, so that a recording crosses many.
const SEGMENT: u64 = 64 << 10;
const BUFFER: usize = 16 << 10;
const REGION: u64 = 1;

/// Appends a group of records, and syncs it. The log is closed when it is dropped.
type AppendGroup = Box<dyn FnMut(Vec<Vec<u8>>) -> Outcome<()>>;

/// A log, and what it does about what it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// The default: torn tails are cut, damage is refused.
    Ringlog,
    RinglogStrict,
    /// The default: what is bad in the last file is its end.
    RaftEngine,
    RaftEngineStrict,
    /// Entries that cannot be read are left out, as its manual says of aborted ones.
    Okaywal,
    OkaywalStrict,
    /// The default: what is bad is the end.
    WalDb,
    WalDbStrict,
}

/// What writes the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ringlog,
    RaftEngine,
    Okaywal,
    WalDb,
}

impl Contestant {
    pub const ALL: [Self; 8] = [
        Self::Ringlog,
        Self::RinglogStrict,
        Self::RaftEngine,
        Self::RaftEngineStrict,
        Self::Okaywal,
        Self::OkaywalStrict,
        Self::WalDb,
        Self::WalDbStrict,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ringlog => "ringlog",
            Self::RinglogStrict => "ringlog, torn tails refused",
            Self::RaftEngine => "raft-engine",
            Self::RaftEngineStrict => "raft-engine, absolute consistency",
            Self::Okaywal => "okaywal, bad entries left out",
            Self::OkaywalStrict => "okaywal, bad entries refused",
            Self::WalDb => "wal-db",
            Self::WalDbStrict => "wal-db, strict",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    pub fn program(self) -> Program {
        match self {
            Self::Ringlog | Self::RinglogStrict => Program::Ringlog,
            Self::RaftEngine | Self::RaftEngineStrict => Program::RaftEngine,
            Self::Okaywal | Self::OkaywalStrict => Program::Okaywal,
            Self::WalDb | Self::WalDbStrict => Program::WalDb,
        }
    }

    /// Opens the log, and gives each of its records to `each`.
    pub fn read(self, folder: &Path, mut each: impl FnMut(&[u8])) -> Outcome<()> {
        match self {
            Self::Ringlog | Self::RinglogStrict => {
                let tail = if self == Self::RinglogStrict { TornTail::Refuse } else { TornTail::Cut };
                let each = |record: ringlog::Record<'_>| {
                    each(record.payload);
                    Ok::<_, Infallible>(())
                };
                let opened = ringlog().torn_tail(tail).open_with(folder, each);
                opened.map(drop).map_err(|error| chain(&error))
            }
            Self::RaftEngine | Self::RaftEngineStrict => {
                let engine = Engine::open(raft_engine(folder, self == Self::RaftEngineStrict)).map_err(text)?;
                let (first, last) = (engine.first_index(REGION), engine.last_index(REGION));
                for index in first.unwrap_or(1)..=last.unwrap_or(0) {
                    let entry = engine.get_entry::<Entries>(REGION, index).map_err(text)?;
                    each(&entry.ok_or("an entry between the first and the last is missing")?.value);
                }
                Ok(())
            }
            Self::Okaywal | Self::OkaywalStrict => {
                let found = Found { strict: self == Self::OkaywalStrict, records: Arc::default() };
                let records = Arc::clone(&found.records);
                let opened = okaywal(folder).open(found);
                opened.and_then(WriteAheadLog::shutdown).map_err(text)?;
                mem::take(&mut *records.lock().expect("no panic")).iter().for_each(|record| each(record));
                Ok(())
            }
            Self::WalDb | Self::WalDbStrict => {
                let policy = if self == Self::WalDbStrict { OpenPolicy::Strict } else { OpenPolicy::TruncateTail };
                let config = WalConfig::new().with_open_policy(policy);
                let log = Wal::open_segmented_with(folder, SEGMENT, config).map_err(text)?;
                for record in log.iter().map_err(text)? {
                    each(record.map_err(text)?.data());
                }
                Ok(())
            }
        }
    }
}

impl Program {
    pub const ALL: [Self; 4] = [Self::Ringlog, Self::RaftEngine, Self::Okaywal, Self::WalDb];

    /// Appends the workload's groups, each synced, through several openings.
    pub fn write(self, folder: &Path, seed: u64, recorder: &Recorder) -> Outcome<()> {
        for opening in 0..OPENINGS {
            let mut append = self.open(folder)?;
            for group in workload::groups(seed, opening) {
                recorder.note(Event::Submitted(group.end));
                append(group.clone().map(|number| workload::record(seed, number)).collect())?;
                recorder.note(Event::Acknowledged(group.end));
            }
        }
        Ok(())
    }

    fn open(self, folder: &Path) -> Outcome<AppendGroup> {
        Ok(match self {
            Self::Ringlog => {
                let (log, _) = ringlog().open(folder).map_err(|error| chain(&error))?;
                Box::new(move |group| {
                    for record in group {
                        log.append(0, &record).map_err(text)?;
                    }
                    log.sync().map(drop).map_err(text)
                })
            }
            Self::RaftEngine => {
                let engine = Engine::open(raft_engine(folder, false)).map_err(text)?;
                Box::new(move |group| {
                    let mut batch = LogBatch::default();
                    let entry = |value| BytesValue { value, ..BytesValue::default() };
                    let entries: Vec<_> = group.into_iter().map(entry).collect();
                    batch.add_entries::<Entries>(REGION, &entries).map_err(text)?;
                    engine.write(&mut batch, true).map(drop).map_err(text)
                })
            }
            Self::Okaywal => {
                let found = Found { strict: true, records: Arc::default() };
                let log = Closing(Some(okaywal(folder).open(found).map_err(text)?));
                Box::new(move |group| {
                    let mut entry = log.get().begin_entry().map_err(text)?;
                    for record in group {
                        entry.write_chunk(&record).map_err(text)?;
                    }
                    entry.commit().map(drop).map_err(text)
                })
            }
            Self::WalDb => {
                let log = Wal::open_segmented(folder, SEGMENT).map_err(text)?;
                Box::new(move |group| {
                    for record in group {
                        let _lsn = log.append(&record).map_err(text)?;
                    }
                    log.sync().map_err(text)
                })
            }
        })
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// An error, and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn ringlog() -> ringlog::Options {
    Log::options().segment_size(SEGMENT).ring(4, BUFFER)
}

fn raft_engine(folder: &Path, strict: bool) -> Config {
    let recovery_mode = if strict { RecoveryMode::AbsoluteConsistency } else { RecoveryMode::TolerateTailCorruption };
    let (dir, target_file_size) = (folder.to_string_lossy().into_owned(), ReadableSize(SEGMENT));
    Config { dir, target_file_size, recovery_mode, ..Config::default() }
}

/// Entries of a region, which begin with their number.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |number| u64::from_le_bytes(*number)) + 1
    }
}

fn okaywal(folder: &Path) -> Configuration {
    // What is checkpointed leaves the log.
    Configuration::default_for(folder).checkpoint_after_bytes(1 << 40)
}

/// okaywal ends its thread only when it is asked to.
struct Closing(Option<WriteAheadLog>);

impl Closing {
    fn get(&self) -> &WriteAheadLog {
        self.0.as_ref().expect("not closed yet")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(WriteAheadLog::shutdown) {
            eprintln!("okaywal: {error}");
        }
    }
}

/// Collects what is recovered.
#[derive(Clone, Debug)]
struct Found {
    strict: bool,
    records: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LogManager for Found {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        match entry.read_all_chunks() {
            Ok(chunks) => self.records.lock().expect("no panic").extend(chunks.into_iter().flatten()),
            // Its manual: the entry should be ignored.
            Err(error) if !self.strict || error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
