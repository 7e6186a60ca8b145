//! raft-engine: TiKV's log store, with group commit through a queue of writers. Each thread is a region, each record a
//! key of it.

use raft_engine::{Config, Engine, LogBatch};

use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::Tally;

pub const RAFT_ENGINE: Contestant = Contestant::of::<RaftEngine<true>>(Family::Rival, "raft-engine");
pub const RAFT_ENGINE_STREAMING: Contestant =
    Contestant::of::<RaftEngine<false>>(Family::Rival, "raft-engine").single();

pub struct RaftEngine<const SYNC: bool> {
    engine: Engine,
}

pub struct Region<'a, const SYNC: bool> {
    engine: &'a Engine,
    batch: LogBatch,
    region: u64,
    number: u64,
}

fn region(thread: usize) -> u64 {
    thread as u64 + 1
}

impl<const SYNC: bool> Log for RaftEngine<SYNC> {
    type Writer<'a> = Region<'a, SYNC>;

    fn open(place: &Place) -> Outcome<Self> {
        let folder = place.folder.join("raft-engine");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let dir = folder.to_string_lossy().into_owned();
        Ok(Self { engine: Engine::open(Config { dir, ..Config::default() })? })
    }

    fn writer(&self, thread: usize) -> Region<'_, SYNC> {
        Region { engine: &self.engine, batch: LogBatch::with_capacity(1), region: region(thread), number: 0 }
    }

    fn finish(&mut self) -> Outcome<()> {
        Ok(self.engine.sync()?)
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        for region in self.engine.raft_groups() {
            let note = |_: &[u8], value: &[u8]| {
                tally.note(value);
                true
            };
            self.engine.scan_raw_messages(region, None, None, false, note)?;
        }
        Ok(true)
    }
}

impl<const SYNC: bool> Writer for Region<'_, SYNC> {
    fn append(&mut self, record: &[u8]) {
        self.batch.put(self.region, self.number.to_be_bytes().to_vec(), record.to_vec()).expect("the batch takes it");
        self.number += 1;
        self.engine.write(&mut self.batch, SYNC).expect("the engine takes it");
    }
}
