//! Crash images of the log of several groups that append, truncate, purge, vote and commit in random order, beside a
//! simple model of each: no acknowledged entry or vote is lost, no truncated entry comes back, and trims lose nothing.
//! Each image also with damage that is accepted: a group either is as the model has it, or is reported.
//!
//! `RING_RAFT_IMAGES=100000 RING_RAFT_SEED=7` for more of them, and for others.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::{env, thread};

use ring_raft::{EntryId, Error, GroupLog, Options, RaftLogs, Recovery};
use ring_testing::Random;
use ringlog::directory::MemoryDirectory;
use ringlog::recovery::{OnDamage, Verdict};
use ringlog::{Log, Lsn};

const GROUPS: u64 = 4;
const BLOCK: usize = 4096;

/// A group, as it has to be.
#[derive(Clone, Default, PartialEq, Eq)]
struct Model {
    first: u64,
    /// From `first` on: the leader, and the data.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    purged: Option<EntryId>,
    committed: Option<EntryId>,
    vote: Option<Vec<u8>>,
}

impl fmt::Debug for Model {
    /// Of each entry the leader, the first bytes, and the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entries {}..{}:", self.first, self.next())?;
        for (leader, data) in &self.entries {
            write!(f, " {}/{:02x}{:02x}+{}", leader[0], data[0], data[1], data.len())?;
        }
        write!(f, "; purged {:?}, committed {:?}, vote {:x?}", self.purged, self.committed, self.vote)
    }
}

/// What was done, one record each.
#[derive(Clone, Debug)]
enum Step {
    Entry(u64, Vec<u8>, Vec<u8>),
    Truncate(u64),
    Purge(EntryId),
    Commit(Option<EntryId>),
    Vote(Vec<u8>),
    Remove,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn id(&self, index: u64) -> EntryId {
        EntryId { index, leader: self.entries[(index - self.first) as usize].0.as_slice().into() }
    }

    fn last(&self) -> Option<EntryId> {
        if self.entries.is_empty() { self.purged.clone() } else { Some(self.id(self.next() - 1)) }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Entry(index, leader, data) => {
                if self.entries.is_empty() {
                    self.first = *index;
                }
                self.entries.push((leader.clone(), data.clone()));
            }
            Step::Truncate(from) => self.entries.truncate(from.saturating_sub(self.first) as usize),
            Step::Purge(id) => {
                let gone = (id.index + 1).saturating_sub(self.first).min(self.entries.len() as u64);
                self.entries.drain(..gone as usize);
                (self.first, self.purged) = (id.index + 1, Some(id.clone()));
            }
            Step::Commit(id) => self.committed.clone_from(id),
            Step::Vote(vote) => self.vote = Some(vote.clone()),
            Step::Remove => *self = Self::default(),
        }
    }

    /// As the log has it.
    fn of(group: &GroupLog) -> Result<Self, Error> {
        let mut entries = Vec::new();
        group.read(0..u64::MAX, usize::MAX, |index, data| {
            entries.push((index, data.to_vec()));
            Ok(())
        })?;
        let (purged, committed, vote) = (group.purged()?, group.committed()?, group.vote()?);
        let first = entries.first().map_or_else(|| purged.as_ref().map_or(0, |id| id.index + 1), |entry| entry.0);
        let leaders = group.leaders(0..u64::MAX)?;
        let leader_of = |index| leaders.iter().find(|id| id.index >= index).expect("a leader").leader.to_vec();
        let entries = entries.into_iter().map(|(index, data)| (leader_of(index), data)).collect();
        let model = Self { first, entries, purged, committed, vote };
        assert_eq!(group.last()?, model.last());
        Ok(model)
    }

    /// Whether a user may see `found` where damage has taken records: a purge or a commit that is not known any more is
    /// done once more, and harms nothing.
    fn allows(&self, found: &Self) -> bool {
        let is_older = |found: &Option<EntryId>, now: &Option<EntryId>| {
            found.as_ref().map(|id| id.index) <= now.as_ref().map(|id| id.index)
        };
        let purged = self.first.saturating_sub(found.first) as usize;
        let is_known = found.next() == self.next() && found.entries.get(purged..) == Some(&self.entries[..]);
        (self.same(found) || is_known)
            && self.vote == found.vote
            && is_older(&found.purged, &self.purged)
            && is_older(&found.committed, &self.committed)
    }

    /// Whether they are the same to a user: an empty group without a purge has no first index.
    fn same(&self, other: &Self) -> bool {
        let ignore = |model: &Self| {
            let mut model = model.clone();
            if model.entries.is_empty() {
                model.first = 0;
            }
            model
        };
        ignore(self) == ignore(other)
    }
}

#[derive(Debug, Default)]
struct Figures {
    images: u64,
    opened: u64,
    trims: u64,
    removed: u64,
    damaged: u64,
    lost: u64,
    unharmed: u64,
}

/// Steps, each with the group, and the address behind its record.
type History = Vec<(u64, Step, Lsn)>;

struct World {
    random: Random,
    directory: MemoryDirectory,
    /// What was there when the log was opened.
    base: BTreeMap<u64, Model>,
    now: BTreeMap<u64, Model>,
    history: History,
    figures: Figures,
    cache: usize,
    /// The groups that were ever removed.
    removed: BTreeSet<u64>,
    /// Of the leader that writes now. Another one writes what takes the place of other entries.
    term: u64,
}

impl World {
    fn options(&mut self, directory: &MemoryDirectory) -> Options {
        let log = Log::options().segment_size(32_768).ring(2 + self.random.below(3), 2 * BLOCK);
        Options::new(log.directory(directory)).cache(self.cache)
    }

    /// One thing that one group does.
    fn step(&mut self, logs: &RaftLogs) -> Result<(), Error> {
        let (id, random) = (1 + self.random.below(GROUPS as usize) as u64, &mut self.random);
        let model = self.now.entry(id).or_default();
        let group = logs.group_log(id);
        let (next, committed) = (model.next(), model.committed.as_ref().map_or(0, |id| id.index + 1));
        let (steps, end): (Vec<_>, _) = match random.below(20) {
            0..=9 => {
                let start =
                    if model.entries.is_empty() && model.purged.is_none() { random.below(3) as u64 } else { next };
                self.term += u64::from(random.chance(30));
                let leader = self.term.to_le_bytes().to_vec();
                let mut batch = group.batch()?;
                let mut steps = Vec::new();
                for index in start..start + random.up_to(4) as u64 {
                    let len = random.pick(&[0, 5, 50, 500, 3000, 9000]);
                    let data = [&random.next().to_le_bytes()[..], &vec![index as u8; len]].concat();
                    batch.push(index, &leader, data.len(), |bytes| {
                        bytes.copy_from_slice(&data);
                        Ok(())
                    })?;
                    steps.push(Step::Entry(index, leader.clone(), data));
                }
                if random.chance(10) {
                    // Taken back; a crash may leave the entries all the same.
                    drop(batch);
                    self.term += 1;
                    steps.push(Step::Truncate(start));
                    (steps, logs.log().end())
                } else {
                    (steps, batch.finish())
                }
            }
            10 | 11 if next > model.first.max(committed) => {
                let lowest = model.first.max(committed);
                let from = lowest + random.below((next - lowest) as usize) as u64;
                self.term += 1;
                (vec![Step::Truncate(from)], group.truncate(from)?)
            }
            12 | 13 if next > model.first.max(committed) => {
                let lowest = model.first.max(committed);
                let upto = model.id(lowest + random.below((next - lowest) as usize) as u64);
                (vec![Step::Commit(Some(upto.clone()))], group.save_committed(Some(upto))?)
            }
            14 | 15 if committed > model.first => {
                let upto = model.id(model.first + random.below((committed - model.first) as usize) as u64);
                (vec![Step::Purge(upto.clone())], group.purge(upto)?)
            }
            16 if random.chance(20) => {
                let id = EntryId { index: next + random.below(50) as u64, leader: (*b"snapshot").into() };
                let steps = [Step::Purge(id.clone()), Step::Commit(Some(id.clone()))];
                self.history.push((group.id(), steps[0].clone(), group.purge(id.clone())?));
                model.take(&steps[0]);
                (vec![steps[1].clone()], group.save_committed(Some(id))?)
            }
            17 => {
                let vote = random.next().to_le_bytes().to_vec();
                (vec![Step::Vote(vote.clone())], group.save_vote(&vote)?)
            }
            18 if random.chance(10) => match logs.remove(id) {
                Ok(()) => {
                    self.figures.removed += 1;
                    self.removed.insert(id);
                    // It is durable, and so is all before it.
                    (vec![Step::Remove], Lsn::START)
                }
                Err(Error::UnknownGroup(_)) => return Ok(()),
                Err(error) => return Err(error),
            },
            19 => {
                self.figures.trims += u64::from(logs.trim()?.bytes > 0);
                return Ok(());
            }
            _ => return logs.log().sync().map(drop).map_err(Error::from),
        };
        for step in steps {
            self.now.entry(id).or_default().take(&step);
            self.history.push((id, step, end));
        }
        Ok(())
    }

    /// All groups, as far as a log goes that ends at `end`; and the steps of the batch that it may end in.
    fn upto(&self, end: Lsn) -> (BTreeMap<u64, Model>, Vec<(u64, Step)>) {
        let mut models = self.base.clone();
        let whole = self.history.iter().take_while(|(_, _, behind)| *behind <= end);
        whole.for_each(|(id, step, _)| models.entry(*id).or_default().take(step));
        let mut rest = self.history.iter().skip_while(|(_, _, behind)| *behind <= end);
        let first = rest.next().cloned();
        let batch = first.into_iter().flat_map(|(id, step, behind)| {
            let same =
                rest.clone().take_while(move |other| (other.0, other.2) == (id, behind)).map(|other| other.1.clone());
            core::iter::once((id, step)).chain(same.map(move |step| (id, step))).collect::<Vec<_>>()
        });
        (models, batch.collect())
    }

    /// Opens an image, and compares all groups. `durable` is what was acknowledged.
    fn check(&mut self, image: &MemoryDirectory, durable: Lsn) -> Result<BTreeMap<u64, Model>, String> {
        let options = self.options(image);
        let (logs, recovery) =
            RaftLogs::open_blocking("", options).map_err(|error| format!("not opened: {error:?}"))?;
        self.figures.opened += 1;
        if !recovery.lost.is_empty() {
            return Err(format!("lost without damage: {recovery:?}"));
        }
        let end = recovery.log.end;
        if let Some(lost) = self.history.iter().find(|(_, _, behind)| *behind <= durable && *behind > end) {
            return Err(format!("{durable} was durable, and the log ends at {end}, without {lost:?}"));
        }
        self.compare(&logs, &recovery)
    }

    fn compare(&self, logs: &RaftLogs, recovery: &Recovery) -> Result<BTreeMap<u64, Model>, String> {
        let (mut models, batch) = self.upto(recovery.log.end);
        let there = logs.groups();
        for id in 1..=GROUPS {
            let mut model = models.remove(&id).unwrap_or_default();
            if recovery.lost.contains_key(&id) {
                continue;
            }
            let is_damaged = !recovery.log.gaps.is_empty();
            let was_removed = self.removed.contains(&id);
            if is_damaged && (was_removed || !there.contains(&id)) {
                // The removal may be in the gap; or all that the group has, and then nothing is left to name it.
                continue;
            }
            let found = Model::of(&logs.group_log(id)).map_err(|error| format!("group {id}: {error:?}"))?;
            let mut steps = batch.iter().filter(|(of, _)| *of == id);
            let is_so = |model: &Model| model.same(&found) || (is_damaged && model.allows(&found));
            while !is_so(&model) {
                match steps.next() {
                    Some((_, step)) => model.take(step),
                    None => {
                        return Err(format!(
                            "group {id} is {found:?}\n  and not {:?}",
                            self.upto(recovery.log.end).0.get(&id)
                        ));
                    }
                }
            }
            models.insert(id, model);
        }
        Ok(models)
    }

    /// The same image, with damage in it that is accepted.
    fn check_damaged(&mut self, image: &MemoryDirectory) -> Result<(), String> {
        let segments: Vec<_> = image.contents().into_iter().filter(|(name, _)| name.ends_with(".seg")).collect();
        let (name, content) = &segments[self.random.below(segments.len())];
        let mut bytes = content.to_vec();
        let blocks = (bytes.len() / BLOCK).saturating_sub(1);
        if blocks == 0 {
            return Ok(());
        }
        let at = BLOCK * (1 + self.random.below(blocks)) + self.random.below(BLOCK);
        if self.random.chance(30) {
            let end = (at + 3 * BLOCK).min(bytes.len());
            bytes[at..end].fill(0);
        } else {
            bytes[at] ^= 1 << self.random.below(8);
        }
        image.put(name, bytes);
        let log = Log::options().directory(image).ring(2, 2 * BLOCK).on_damage(OnDamage::Skip);
        let (logs, recovery) = RaftLogs::open_blocking("", log).map_err(|error| format!("not skipped: {error:?}"))?;
        if !matches!(recovery.log.verdict, Verdict::Damaged(_)) {
            // What was never acknowledged, or is not read any more.
            return Ok(());
        }
        self.figures.damaged += 1;
        self.figures.lost += recovery.lost.len() as u64;
        self.figures.unharmed += u64::from(recovery.lost.len() < logs.groups().len());
        self.compare(&logs, &recovery).map_err(|what| format!("{name} at {at}, {recovery:?}: {what}"))?;
        for (id, lost) in &recovery.lost {
            let group = logs.group_log(*id);
            if !matches!(group.last(), Err(Error::Lost { .. })) || (lost.indexes.is_empty() && !lost.vote) {
                return Err(format!("group {id} has lost {lost:?}, and answers"));
            }
            logs.remove(*id).map_err(|error| format!("{error:?}"))?;
            if group.last().is_ok() || logs.group_log(*id).last().map_err(|error| format!("{error:?}"))?.is_some() {
                return Err(format!("group {id} was removed, and is there"));
            }
        }
        drop(logs);
        // Opened once more, only those that were removed are missing.
        let log = Log::options().directory(image).ring(2, 2 * BLOCK);
        let (_, again) = RaftLogs::open_blocking("", log).map_err(|error| format!("not opened again: {error:?}"))?;
        if again.lost.is_empty() { Ok(()) } else { Err(format!("lost {:?}, then {:?}", recovery.lost, again.lost)) }
    }
}

/// Opens, works and crashes, some times.
fn scenario(seed: u64) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    let cache = random.pick(&[0, 1000, 1 << 20]);
    let (base, now, history, figures) = Default::default();
    let directory = MemoryDirectory::new();
    let mut world = World { random, directory, base, now, history, figures, cache, removed: BTreeSet::new(), term: 1 };
    for _ in 0..3 {
        let directory = world.directory.clone();
        let options = world.options(&directory);
        let (logs, recovery) = RaftLogs::open_blocking("", options).map_err(|error| format!("{error:?}"))?;
        world.compare(&logs, &recovery).map_err(|what| format!("opened: {what}"))?;
        if world.random.chance(50) {
            directory.device().shuffle(world.random.next());
        }
        for _ in 0..60 {
            world.step(&logs).map_err(|error| format!("{error:?}"))?;
            if world.random.chance(25) {
                let (durable, seed) = (logs.log().durable(), world.random.next());
                let image = if world.random.chance(70) { directory.power_cut(seed) } else { directory.kill(seed) };
                world.figures.images += 1;
                if world.random.chance(50) {
                    world.check_damaged(&image.fork()).map_err(|what| format!("damaged: {what}"))?;
                }
                world.check(&image, durable)?;
            }
        }
        for id in 1..=GROUPS {
            let found = Model::of(&logs.group_log(id)).map_err(|error| format!("{error:?}"))?;
            let model = world.now.get(&id).cloned().unwrap_or_default();
            if !model.same(&found) {
                return Err(format!("group {id} is {found:?}, and not {model:?}, without a crash"));
            }
        }
        // It goes on from what a crash has left.
        let (durable, seed) = (logs.log().durable(), world.random.next());
        let image = directory.power_cut(seed);
        drop(logs);
        world.now = world.check(&image, durable)?;
        world.base = world.now.clone();
        world.history.clear();
        world.directory = image;
    }
    Ok(world.figures)
}

#[test]
fn every_crash_of_many_groups_keeps_what_was_acknowledged_and_brings_nothing_back() {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let wanted = number("RING_RAFT_IMAGES").unwrap_or(if cfg!(debug_assertions) { 400 } else { 10_000 });
    let next = AtomicU64::new(number("RING_RAFT_SEED").unwrap_or(1));
    let total = Mutex::new((Figures::default(), None));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let ran = catch_unwind(AssertUnwindSafe(|| scenario(seed)));
                    let (total, failure) = &mut *total.lock().expect("no panic");
                    match ran.unwrap_or_else(|_| Err("panic".into())) {
                        Ok(more) => {
                            total.images += more.images;
                            total.opened += more.opened;
                            total.trims += more.trims;
                            total.removed += more.removed;
                            total.damaged += more.damaged;
                            total.lost += more.lost;
                            total.unharmed += more.unharmed;
                        }
                        Err(what) => *failure = Some(format!("RING_RAFT_SEED={seed} RING_RAFT_IMAGES=1: {what}")),
                    }
                    if failure.is_some() || total.images >= wanted {
                        break;
                    }
                }
            });
        }
    });
    let (figures, failure) = total.into_inner().expect("no panic");
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
    println!("{figures:#?}");
    let Figures { images, trims, removed, damaged, lost, unharmed, .. } = figures;
    assert!(images >= wanted);
    if wanted >= 400 {
        assert!([trims, removed, damaged, lost, unharmed].iter().all(|&times| times > 0), "{figures:?}");
    }
}
