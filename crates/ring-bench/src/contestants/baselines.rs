//! What one would write by hand, in an afternoon.

use std::fs::{self, File};
use std::io::{BufWriter, IoSlice, Write};
use std::path::PathBuf;

use parking_lot::{Condvar, Mutex};
use ring_alloc::{Buffer, round_up};
use rustix::io::ReadWriteFlags;

use super::{prepared, scan_file};
use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::Tally;

pub const MUTEX: Contestant = Contestant::of::<Locked>(Family::Baseline, "mutex + Vec");
pub const BUF_WRITER: Contestant = Contestant::of::<Buffered>(Family::Baseline, "mutex + BufWriter");
pub const GROUP_COMMIT: Contestant = Contestant::of::<GroupCommit>(Family::Baseline, "leader–follower by hand");

/// A `Vec` behind a lock, emptied when it is full.
pub struct Locked {
    bytes: Mutex<Vec<u8>>,
    limit: usize,
}

impl Log for Locked {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        let limit = if place.checked { place.expected as usize } else { place.memory };
        // Touched before, as for every contestant.
        let mut bytes = vec![1; limit];
        bytes.clear();
        Ok(Self { bytes: Mutex::new(bytes), limit })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        tally.scan(&self.bytes.into_inner());
        Ok(true)
    }
}

impl Writer for &Locked {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        let mut bytes = self.bytes.lock();
        if bytes.len() + record.len() > self.limit {
            bytes.clear();
        }
        bytes.extend_from_slice(record);
    }
}

/// The standard library's buffer behind a lock, over the kernel's cache.
pub struct Buffered {
    file: Mutex<BufWriter<File>>,
    path: PathBuf,
}

impl Log for Buffered {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        let path = place.folder.join("buffered");
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        Ok(Self { file: Mutex::new(file), path })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }

    fn finish(&mut self) -> Outcome<()> {
        let file = self.file.get_mut();
        file.flush()?;
        Ok(file.get_ref().sync_data()?)
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        scan_file(&self.path, fs::metadata(&self.path)?.len(), tally)?;
        Ok(true)
    }
}

impl Writer for &Buffered {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.file.lock().write_all(record).expect("the file takes it");
    }
}

/// Group commit as in the textbook: a committer that finds no leader becomes it, writes what has gathered, and wakes
/// the rest.
pub struct GroupCommit {
    state: Mutex<Batches>,
    written: Condvar,
    file: File,
    path: PathBuf,
}

struct Batches {
    gathering: Vec<u8>,
    /// The batch that gathers now. Batches below have been written, except the one that the leader has.
    number: u64,
    durable: u64,
    /// What the leader writes from; taken while there is one.
    block: Option<Buffer>,
    /// Where the next batch begins.
    end: u64,
}

/// Bytes of a batch, at most.
const BATCH: usize = 1 << 20;

impl Log for GroupCommit {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        let path = place.folder.join("group");
        let file = prepared(&path, place.expected)?;
        let block = Some(Buffer::zeroed(BATCH)?);
        let batches = Batches { gathering: Vec::with_capacity(BATCH), number: 1, durable: 0, block, end: 0 };
        Ok(Self { state: Mutex::new(batches), written: Condvar::new(), file, path })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        scan_file(&self.path, self.state.into_inner().end, tally)?;
        Ok(true)
    }
}

impl Writer for &GroupCommit {
    fn append(&mut self, record: &[u8]) {
        let mut state = self.state.lock();
        state.gathering.extend_from_slice(record);
        assert!(state.gathering.len() <= BATCH, "more threads than a batch has room for");
        let mine = state.number;
        while state.durable < mine {
            let Some(mut block) = state.block.take() else {
                self.written.wait(&mut state);
                continue;
            };
            // All batches before this one are durable.
            let len = state.gathering.len();
            let padded = round_up(len as u64) as usize;
            block[..len].copy_from_slice(&state.gathering);
            block[len..padded].fill(0);
            state.gathering.clear();
            let (number, offset) = (state.number, state.end);
            state.number += 1;
            state.end += padded as u64;
            parking_lot::MutexGuard::unlocked(&mut state, || {
                let slice = [IoSlice::new(&block[..padded])];
                let done = rustix::io::pwritev2(&self.file, &slice, offset, ReadWriteFlags::DSYNC);
                assert_eq!(done, Ok(padded), "the file takes it");
            });
            state.durable = number;
            state.block = Some(block);
            self.written.notify_all();
        }
    }
}
