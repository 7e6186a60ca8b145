//! A disk under a directory. After a power cut everything is there that a sync has covered. Of all the rest, each
//! sector of each write and each change of the directory is there or not, independently of all others.

use crate::choose::Choose;
use crate::format::{Manifest, Sector};
use core::mem;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    Manifest,
    ManifestTmp,
    Segment(u64),
    Aside(u64),
}

/// The machine, or the process, stopped here.
#[derive(Debug)]
pub(crate) struct Crash;
pub(crate) type Step<T> = Result<T, Crash>;

#[derive(Clone, Debug)]
enum Op {
    Write { file: usize, at: usize, sector: Sector, flight: u32, id: u64 },
    Create { name: Name, file: usize },
    Rename { from: Name, to: Name },
    Unlink { name: Name },
}

#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) files: Vec<Vec<Sector>>,
    pub(crate) names: BTreeMap<Name, usize>,
}

impl Image {
    pub(crate) fn read(&self, name: Name, at: usize) -> Option<Sector> {
        let file = *self.names.get(&name)?;
        Some(self.files[file].get(at).copied().unwrap_or(Sector::Zero))
    }

    /// Sectors in the file; what is behind reads as zeros.
    pub(crate) fn len(&self, name: Name) -> Option<usize> {
        Some(self.files[*self.names.get(&name)?].len())
    }

    pub(crate) fn put(&mut self, file: usize, at: usize, sector: Sector) {
        let file = &mut self.files[file];
        if file.len() <= at {
            file.resize(at + 1, Sector::Zero);
        }
        file[at] = sector;
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write { file, at, sector, .. } => self.put(file, at, sector),
            Op::Create { name, file } => {
                self.names.insert(name, file);
            }
            Op::Rename { from, to } => {
                if let Some(file) = self.names.remove(&from) {
                    self.names.insert(to, file);
                }
            }
            Op::Unlink { name } => {
                self.names.remove(&name);
            }
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) stable: Image,
    /// What a reader sees now.
    pub(crate) seen: Image,
    pending: Vec<Op>,
    clock: u64,
    /// Steps until it stops; 0: never.
    pub(crate) fuse: u32,
    /// Each sector that ever was on stable storage, for damage that brings old ones back.
    pub(crate) past: Vec<(usize, usize, Sector)>,
    pub(crate) manifests: Vec<Manifest>,
}

impl Disk {
    fn step(&mut self) -> Step<()> {
        if self.fuse > 0 {
            self.fuse -= 1;
            if self.fuse == 0 {
                return Err(Crash);
            }
        }
        Ok(())
    }

    fn push(&mut self, op: Op) {
        self.seen.apply(&op);
        self.pending.push(op);
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock
    }

    /// A write that is under way as long as `flight` is not completed; 0: it has come back.
    pub(crate) fn write(&mut self, name: Name, at: usize, sector: Sector, flight: u32) {
        let file = self.seen.names[&name];
        self.clock += 1;
        self.push(Op::Write { file, at, sector, flight, id: self.clock });
    }

    pub(crate) fn completed(&mut self, done: u32) {
        for op in &mut self.pending {
            if let Op::Write { flight, .. } = op
                && *flight == done
            {
                *flight = 0;
            }
        }
    }

    pub(crate) fn create(&mut self, name: Name) -> Step<()> {
        self.step()?;
        self.stable.files.push(Vec::new());
        self.seen.files.push(Vec::new());
        self.push(Op::Create { name, file: self.seen.files.len() - 1 });
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: Name, to: Name) -> Step<()> {
        self.step()?;
        self.push(Op::Rename { from, to });
        Ok(())
    }

    pub(crate) fn unlink(&mut self, name: Name) -> Step<()> {
        self.step()?;
        self.push(Op::Unlink { name });
        Ok(())
    }

    fn settle(&mut self, covered: impl Fn(&Op) -> bool) {
        let (stable, past) = (&mut self.stable, &mut self.past);
        self.pending.retain(|op| {
            let now = covered(op);
            if now {
                stable.apply(op);
                if let Op::Write { file, at, sector, .. } = *op {
                    past.push((file, at, sector));
                }
            }
            !now
        });
    }

    /// What had come back at time `until` is stable.
    pub(crate) fn sync(&mut self, name: Name, until: u64) -> Step<()> {
        self.step()?;
        let Some(&wanted) = self.seen.names.get(&name) else { return Ok(()) };
        self.settle(|op| matches!(*op, Op::Write { file, flight: 0, id, .. } if file == wanted && id <= until));
        Ok(())
    }

    /// A synced write has come back: it alone is stable.
    pub(crate) fn settle_flight(&mut self, done: u32) {
        self.settle(|op| matches!(*op, Op::Write { flight, .. } if flight == done));
    }

    /// A write has failed: of its sectors some are there, in a cache, and the others never will be.
    pub(crate) fn fail_write(&mut self, failed: u32, choose: &mut Choose) {
        self.lose(|op| matches!(*op, Op::Write { flight, .. } if flight == failed), choose);
    }

    /// A sync has failed: what it was to cover is as uncertain as before, and what has gone meanwhile stays so,
    /// whatever a later sync says.
    pub(crate) fn fail_sync(&mut self, name: Name, until: u64, choose: &mut Choose) {
        let Some(&wanted) = self.seen.names.get(&name) else { return };
        self.lose(|op| matches!(*op, Op::Write { file, flight: 0, id, .. } if file == wanted && id <= until), choose);
    }

    fn lose(&mut self, concerned: impl Fn(&Op) -> bool, choose: &mut Choose) {
        self.seen = self.stable.clone();
        for mut op in mem::take(&mut self.pending) {
            if concerned(&op) {
                if choose.percent(50) {
                    continue;
                }
                if let Op::Write { flight, .. } = &mut op {
                    *flight = 0;
                }
            }
            self.push(op);
        }
    }

    pub(crate) fn sync_dir(&mut self) -> Step<()> {
        self.step()?;
        self.settle(|op| !matches!(op, Op::Write { .. }));
        Ok(())
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn power_cut(&mut self, choose: &mut Choose) {
        let likely = [0, 15, 50, 85, 100][if matches!(choose, Choose::All { .. }) { 2 } else { choose.pick(5) }];
        for op in mem::take(&mut self.pending) {
            if choose.percent(likely) {
                self.stable.apply(&op);
                if let Op::Write { file, at, sector, .. } = op {
                    self.past.push((file, at, sector));
                }
            }
        }
        self.seen = self.stable.clone();
    }

    /// What damage has put there is what a later lost write leaves there.
    pub(crate) fn damage_is_past(&mut self, before: &Image) {
        for (file, sectors) in self.stable.files.iter().enumerate() {
            for (at, &sector) in sectors.iter().enumerate() {
                if before.files.get(file).and_then(|f| f.get(at)) != Some(&sector) {
                    self.past.push((file, at, sector));
                }
            }
        }
    }

    /// The process ends, the machine goes on: of what was under way each sector is there or not, and nothing of it, nor
    /// of what had come back, is stable.
    pub(crate) fn kill(&mut self, choose: &mut Choose) {
        let pending = mem::take(&mut self.pending);
        self.seen = self.stable.clone();
        for mut op in pending {
            if let Op::Write { flight, .. } = &mut op {
                if *flight != 0 && choose.percent(50) {
                    continue;
                }
                *flight = 0;
            }
            self.push(op);
        }
    }
}
