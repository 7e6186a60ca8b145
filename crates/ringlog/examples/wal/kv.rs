//! A key-value store: a map in memory, and a log of all changes to it.
//!
//! A change is committed to the log first, and applied to the map then, so that what the store has acknowledged is in
//! the log, and what the map shows is durable. A checkpoint saves the map as a snapshot, and trims the log up to where
//! all changes are in that map. Opening loads the snapshot, and applies what the log still has. Threads may apply their
//! changes in another order than that of the log, so each entry has the address of its change: the higher one wins.

use core::fmt::{self, Debug};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ringlog::{Log, Lsn, Options, Recovery, Trimmed};

/// Each key with the address of its newest change, and its value; `None`: it was deleted.
pub(crate) type Map = BTreeMap<Vec<u8>, (Lsn, Option<Arc<[u8]>>)>;

const DELETE: u8 = 0;
const PUT: u8 = 1;

pub(crate) struct Kv {
    log: Log,
    map: Mutex<Map>,
    folder: PathBuf,
    /// Held by a checkpoint: an older snapshot must not replace a newer one, up to which the log is trimmed.
    saving: Mutex<()>,
}

fn apply(map: &mut Map, lsn: Lsn, kind: u8, key: &[u8], value: &[u8]) {
    let slot = map.entry(key.to_vec()).or_default();
    if lsn >= slot.0 {
        *slot = (lsn, (kind == PUT).then(|| value.into()));
    }
}

impl Kv {
    pub(crate) fn open(folder: &Path, options: Options) -> io::Result<(Self, Recovery)> {
        fs::create_dir_all(folder)?;
        let mut map = load(folder)?;
        let replayed = options.open_with(folder.join("log"), |record| {
            let half = || io::Error::new(io::ErrorKind::InvalidData, "a record with half a key");
            let (len, rest) = record.payload.split_first_chunk().ok_or_else(half)?;
            let (key, value) = rest.split_at_checked(u16::from_le_bytes(*len).into()).ok_or_else(half)?;
            apply(&mut map, record.lsn, record.kind, key, value);
            Ok::<_, io::Error>(())
        });
        let (log, recovery) = replayed.map_err(io::Error::other)?;
        Ok((Self { log, map: Mutex::new(map), folder: folder.to_owned(), saving: Mutex::default() }, recovery))
    }

    /// Returns when the value is on stable storage.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.commit(PUT, key, value)
    }

    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.commit(DELETE, key, &[])
    }

    fn commit(&self, kind: u8, key: &[u8], value: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a key of more than 65535 bytes");
        let len = u16::try_from(key.len()).map_err(too_long)?.to_le_bytes();
        let done = self.log.commit(kind, &[IoSlice::new(&len), IoSlice::new(key), IoSlice::new(value)])?;
        apply(&mut self.map(), done.lsn(), kind, key, value);
        drop(done); // applied: a checkpoint may pass it
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> io::Result<Trimmed> {
        let _alone = self.saving.lock().expect("no checkpoint has panicked");
        let before = self.log.settled(); // all below is in the map
        let snapshot = {
            let mut map = self.map();
            // No older put comes behind such a delete any more.
            map.retain(|_, (lsn, value)| value.is_some() || *lsn >= before);
            map.clone()
        };
        save(&self.folder, &snapshot)?;
        Ok(self.log.trim(before)?)
    }

    pub(crate) fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().expect("no thread has panicked")
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }
}

impl Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kv").field("log", &self.log).finish_non_exhaustive()
    }
}

/// Replaces the snapshot in `folder`: after a crash it is the old one or the new one, as a whole.
pub(crate) fn save(folder: &Path, map: &Map) -> io::Result<()> {
    let new = folder.join("snapshot.new");
    let mut file = io::BufWriter::new(File::create(&new)?);
    for (key, (lsn, value)) in map {
        let Some(value) = value else { continue };
        file.write_all(&lsn.to_bytes())?;
        for part in [key, &**value] {
            file.write_all(&(part.len() as u64).to_le_bytes())?;
            file.write_all(part)?;
        }
    }
    file.into_inner()?.sync_all()?;
    fs::rename(new, folder.join("snapshot"))?;
    File::open(folder)?.sync_all()
}

/// The map that was saved last; empty if none was.
pub(crate) fn load(folder: &Path) -> io::Result<Map> {
    let bytes = match fs::read(folder.join("snapshot")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        bytes => bytes?,
    };
    let (mut rest, mut map) = (&*bytes, Map::new());
    while !rest.is_empty() {
        let lsn = Lsn::new(number(&mut rest)?);
        let [key, value] = [part(&mut rest)?, part(&mut rest)?];
        map.insert(key.to_vec(), (lsn, Some(value.into())));
    }
    Ok(map)
}

fn number(bytes: &mut &[u8]) -> io::Result<u64> {
    let number = bytes.split_off(..8).and_then(|bytes| bytes.try_into().ok());
    Ok(u64::from_le_bytes(number.ok_or(io::ErrorKind::UnexpectedEof)?))
}

fn part<'a>(bytes: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let len = number(bytes)? as usize;
    bytes.split_off(..len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
