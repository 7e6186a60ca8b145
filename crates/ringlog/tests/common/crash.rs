//! A real log in a directory in memory, the truth about its records, and what any crash must leave of them.

use core::convert::Infallible;
use core::fmt;
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use ringlog::directory::{Directory, MemoryDirectory};
use ringlog::format::{BLOCK, BatchHeader, HEADER_LEN, Manifest, RECORD_HEADER_LEN, RecordHeader, RecordType};
use ringlog::manifest::ManifestFile;
use ringlog::recovery::{Item, Replay, Report, Verdict, replay, verify};
use ringlog::segment::parse_name;
use ringlog::testing::Random;
use ringlog::{Error, Group, Log, Lsn, Options, Record, SyncPolicy};

use super::oracle::{self, Answer};
use super::world::{Batch, Check, Figures, Shown, World, answer, how};

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// What a record begins with: its number.
const NUMBER: usize = 8;

/// What is known of the records that were ever appended.
#[derive(Default)]
struct Truth {
    /// By number: the payload.
    sent: BTreeMap<u64, Vec<u8>>,
    /// Numbers that must never be seen: given up, or lost in a crash.
    dead: BTreeSet<u64>,
    /// Numbers that are there together, or not at all.
    groups: Vec<Range<u64>>,
    /// By number, of what was appended: where it is.
    placed: BTreeMap<u64, Range<Lsn>>,
    /// Truncations that were asked for, and where they stand once they do.
    truncated: Vec<(Lsn, Option<Range<Lsn>>)>,
    /// Of a few names: what each was said to stand for, in order, and up to where that is said once it is.
    said: BTreeMap<&'static str, Vec<Said<Vec<u8>>>>,
    /// The same of cursors, and where each was set to.
    moved: BTreeMap<&'static str, Vec<Said<Lsn>>>,
    /// Whether there are any: they hold trims back.
    has_cursors: bool,
    /// The highest trim that was asked for, and the highest that was answered.
    trim: Lsn,
    trimmed: Lsn,
}

impl Truth {
    /// Another number, and a payload that begins with it.
    fn draw(&mut self, random: &mut Random, copied: &[u8]) -> (u64, Vec<u8>) {
        let number = self.sent.len() as u64;
        let mut payload = number.to_le_bytes().to_vec();
        let len = random.pick(&[0, 1, 9, 100, 900, 2500, 4000, 9000, 20_000]);
        let byte = random.next() as u8;
        match random.below(4) {
            0 => payload.resize(NUMBER + len, 0),
            // A copy of what stands in a segment, at the start of a block or not.
            1 if !copied.is_empty() => {
                payload.resize(NUMBER + random.below(BLOCK), byte);
                payload.extend(copied.iter().take(len));
            }
            _ => payload.extend((0..len).map(|n| byte.wrapping_mul(n as u8 | 1))),
        }
        self.sent.insert(number, payload.clone());
        (number, payload)
    }
}

/// What a name stands for, and the end of the record that says so.
type Said<V> = (Option<V>, Option<Lsn>);

/// Names of cursors; each is moved by one thread at a time.
const CURSORS: [&str; 2] = ["mailer", "vote"];

/// Where a cursor is that is being made while the log is trimmed.
const SOMEWHERE: Lsn = Lsn::new(u64::MAX);

/// Names that are set; each by one thread at a time.
const NAMES: [&str; 3] = ["vote", "schema", ""];

/// A real log that is written to, and that may crash.
pub(crate) struct Machine {
    pub(crate) random: Random,
    pub(crate) directory: MemoryDirectory,
    log: Option<Log>,
    truth: Mutex<Truth>,
    options: Options,
    world: World,
    pub(crate) figures: Figures,
}

fn lock(truth: &Mutex<Truth>) -> MutexGuard<'_, Truth> {
    truth.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn failed(what: &str) -> impl Fn(Error) -> String + '_ {
    move |error| format!("{what}: {error:?}")
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let mut random = Random::new(seed ^ 0x5EED);
        world.size = random.pick(&[16_384, 32_768, 40_960, 65_536]);
        let sync = random.pick(&[
            SyncPolicy::WhenAsked,
            SyncPolicy::WhenAsked,
            SyncPolicy::EveryBytes(10_000),
            SyncPolicy::Every(Duration::from_micros(300)),
        ]);
        let options = Log::options().segment_size(world.size).sync(sync);
        let directory = MemoryDirectory::new();
        let truth = Mutex::new(Truth { has_cursors: seed.is_multiple_of(2), ..Truth::default() });
        Self { random, directory, log: None, truth, options, world, figures: Figures::default() }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    /// Opens what a crash has left, which has been checked, and checks what is handed out.
    pub(crate) fn open(&mut self) -> Check {
        let mut found = Vec::new();
        let blocks = 1 + self.random.below((self.world.size / 4 / BLOCK as u64).min(4) as usize);
        let options = self.options.clone().ring(2 + self.random.below(4), blocks * BLOCK).directory(&self.directory);
        let full = verify(&self.directory, &how());
        let fast = self.random.chance(50);
        let opened = if fast {
            options.open("").map_err(|error| format!("opening a legal image: {error:?}"))
        } else {
            let each = |record: Record<'_>| {
                found.push((record.lsn.get(), record.kind, record.payload.to_vec()));
                Ok::<_, Infallible>(())
            };
            options.open_with("", each).map_err(|error| format!("opening a legal image: {error:?}"))
        };
        let (log, report) = opened?;
        if let (true, Ok(full)) = (fast, &full) {
            self.figures.fast_jumps += u64::from(report.checked_from > full.checked_from);
            if (report.end, &report.verdict) != (full.end, &full.verdict) {
                return Err(format!("opened as {report:?}, which is {full:?}"));
            }
            // Before the first change, as a reader of files sees it.
            found = replayed(&self.directory, full)?;
        }
        if let Verdict::Damaged(damage) = &report.verdict {
            return Err(format!("opened as {damage}"));
        }
        if self.random.chance(70) {
            self.directory.device().shuffle(self.random.next());
        }
        self.log = Some(log);
        let mut truth = lock(&self.truth);
        let seen = check_records(&truth, &found, &report)?;
        // What is not there now must never come back.
        let lost: Vec<_> = truth.sent.keys().copied().filter(|number| !seen.contains(number)).collect();
        truth.dead.extend(lost);
        truth.placed.retain(|number, _| seen.contains(number));
        truth.truncated.retain_mut(|(_, placed)| placed.as_ref().is_some_and(|placed| placed.end <= report.end));
        (truth.trim, truth.trimmed) = (report.first, report.first);
        drop(truth);
        let log = self.log();
        for name in NAMES {
            let now = log.meta(name);
            check_said(lock(&self.truth).said.get(name), name, now.as_ref(), report.end)?;
            lock(&self.truth).said.insert(name, vec![(now, Some(Lsn::START))]);
        }
        let cursors: BTreeMap<_, _> = log.cursors().into_iter().collect();
        for name in CURSORS {
            let now = cursors.get(name).copied();
            check_said(lock(&self.truth).moved.get(name), name, now.as_ref(), report.end)?;
            lock(&self.truth).moved.insert(name, vec![(now, Some(Lsn::START))]);
        }
        Ok(())
    }

    /// The machine stops in the middle of something.
    pub(crate) fn interrupt(&mut self) -> Check {
        self.directory.device().release_all();
        let (changes, mut random) = (self.random.below(12) as u64, Random::new(self.random.next()));
        let to = some(&lock(&self.truth).placed, &mut random);
        self.directory.stop_after(changes);
        let log = self.log().clone();
        if let (true, Some(to)) = (random.chance(70), to) {
            let to = to.start.min(log.durable());
            let mut truth = lock(&self.truth);
            truth.trim = truth.trim.max(to);
            drop(truth);
            let _stopped = log.trim(to);
        } else {
            let _stopped = log.close();
        }
        drop(log);
        self.crash(true)
    }

    /// The machine or the process stops, and so does the log.
    pub(crate) fn crash(&mut self, power: bool) -> Check {
        let seed = self.random.next();
        let image = self.look(seed, power)?;
        // The old one goes on in its own directory, which is no part of the world any more.
        self.directory.device().release_all();
        self.log = None;
        self.directory = image;
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Check {
        self.directory.device().release_all();
        if self.random.chance(50) {
            self.log().close().map_err(failed("closing"))?;
            let seed = self.random.next();
            let image = self.look(seed, true)?;
            let report = verify(&image, &how()).map_err(|error| format!("closed: {error:?}"))?;
            if report.verdict != Verdict::Clean {
                return Err(format!("closed, and after a power cut judged {report:?}"));
            }
        }
        self.log = None;
        let report = verify(&self.directory, &how()).map_err(|error| format!("closed: {error:?}"))?;
        if report.verdict == Verdict::Clean { Ok(()) } else { Err(format!("closed, and judged {report:?}")) }
    }

    // ------------------------------------------------------------ what happens

    /// `steps` things by each of `hands` threads, with a look at crash images now and then.
    pub(crate) fn work(&mut self, hands: usize, steps: usize) -> Check {
        let seeds: Vec<_> = (1..hands).map(|_| self.random.next()).collect();
        let (log, truth, directory) = (self.log().clone(), &self.truth, self.directory.clone());
        let hand = |random: &mut Random| step(&log, truth, &directory, random);
        let mut own = Random::new(self.random.next());
        let looks: Vec<_> = (0..steps).map(|_| self.random.chance(35).then(|| self.random.next())).collect();
        thread::scope(|scope| {
            let others: Vec<_> = seeds
                .into_iter()
                .map(|seed| {
                    let hand = &hand;
                    scope.spawn(move || {
                        let mut random = Random::new(seed);
                        (0..steps).try_for_each(|_| hand(&mut random))
                    })
                })
                .collect();
            let mut outcome = Ok(());
            let mut images = Vec::new();
            for look in looks {
                outcome = outcome.and_then(|()| hand(&mut own));
                if let (Some(seed), Ok(())) = (look, &outcome) {
                    let image = Image::take(&log, truth, &directory, seed, seed % 5 > 0);
                    outcome = image.check(truth).map(|checked| images.push(checked));
                }
            }
            for other in others {
                let joined = other.join().unwrap_or_else(|_| Err("a hand panicked".into()));
                outcome = outcome.and(joined);
            }
            outcome.map(|()| images)
        })
        .and_then(|images| images.into_iter().try_for_each(|image| self.count(&image)))
    }

    /// A crash image of this moment, checked.
    fn look(&mut self, seed: u64, power: bool) -> Result<MemoryDirectory, String> {
        let image = Image::take(self.log(), &self.truth, &self.directory, seed, power);
        let checked = image.check(&self.truth)?;
        self.count(&checked)?;
        Ok(checked.directory)
    }

    /// Counts it, and tries it again with a few kinds of damage.
    fn count(&mut self, image: &Checked) -> Check {
        self.figures.images += 1;
        self.figures.kills += u64::from(!image.power);
        let Some(report) = &image.report else {
            self.figures.fresh += 1;
            return Ok(());
        };
        self.figures.records += image.records;
        match report.verdict {
            Verdict::Clean => self.figures.clean += 1,
            Verdict::Torn(_) => self.figures.torn += 1,
            _ => self.figures.unclosed += 1,
        }
        let before = self.world.figures;
        if image.power {
            let all = verify(&image.uncut, &how()).map_err(|error| format!("the log itself: {error:?}"))?;
            self.world.chain = chain(&image.uncut, &all)?;
            self.world.known_from = all.checked_from.get();
            let segments = image.directory.contents();
            self.world.reach = segments.keys().filter_map(|name| parse_name(name)).max().unwrap_or(0) + self.world.size;
            self.world.trims = vec![report.first.get()];
            self.world.acknowledged = report.end.get();
            for _ in 0..2 {
                self.world.check_damaged(&image.directory, report)?;
            }
            if self.world.past.len() < 30 {
                self.world.past.push(image.directory.contents());
            }
        }
        let now = self.world.figures;
        self.figures.damaged_images += now.damaged_images - before.damaged_images;
        self.figures.judged_damaged += now.judged_damaged - before.judged_damaged;
        self.figures.refused += now.refused - before.refused;
        self.figures.had_to_be_damaged += now.had_to_be_damaged - before.had_to_be_damaged;
        self.figures.unprovable += now.unprovable - before.unprovable;
        Ok(())
    }
}

/// One thing that a thread does with the log.
fn step(log: &Log, truth: &Mutex<Truth>, directory: &MemoryDirectory, random: &mut Random) -> Check {
    let copied = if random.chance(10) { some_segment(directory, random) } else { Vec::new() };
    let draw = |random: &mut Random| lock(truth).draw(random, &copied);
    let place = |number: u64, range: Range<Lsn>| _ = lock(truth).placed.insert(number, range);
    let kind = random.next() as u8;
    match random.below(if lock(truth).has_cursors { 21 } else { 18 }) {
        0..=3 => {
            let (number, payload) = draw(random);
            place(number, log.append(kind, &payload).map_err(failed("append"))?);
        }
        4 | 5 => {
            let (number, payload) = draw(random);
            let (head, rest) = payload.split_at(NUMBER);
            let parts = [IoSlice::new(head), IoSlice::new(rest)];
            let done = log.commit(kind, &parts).map_err(failed("commit"))?;
            place(number, done.lsn()..done.end());
        }
        6 => {
            let mut writer = log.writer();
            for _ in 0..1 + random.below(4) {
                let (number, payload) = draw(random);
                place(number, writer.append(kind, &payload).map_err(failed("append of a writer"))?);
            }
        }
        7 => {
            let (number, mut short) = draw(random);
            short.truncate(3000);
            lock(truth).sent.insert(number, short.clone());
            let filled = log.append_with(kind, short.len(), |_, bytes| bytes.copy_from_slice(&short));
            place(number, filled.map_err(failed("append_with"))?);
        }
        8 => {
            let (number, mut payload) = draw(random);
            payload.truncate(3000);
            let mut truth = lock(truth);
            truth.sent.insert(number, payload.clone());
            let given_up = random.chance(60);
            if given_up {
                truth.dead.insert(number);
            }
            drop(truth);
            let mut reserved = log.reserve(kind, payload.len()).map_err(failed("reserve"))?;
            reserved.copy_from_slice(&payload);
            if !given_up {
                place(number, reserved.commit());
            }
        }
        9 => {
            let mut group = Group::new();
            let mut locked = lock(truth);
            let from = locked.sent.len() as u64;
            for _ in 0..1 + random.below(4) {
                let (_, payload) = locked.draw(random, &copied);
                group.push(kind, &payload);
            }
            let numbers = from..locked.sent.len() as u64;
            locked.groups.push(numbers.clone());
            drop(locked);
            let range = log.append_group(&group).map_err(failed("append_group"))?;
            place(numbers.start, range);
        }
        10 => _ = log.sync().map_err(failed("sync"))?,
        11 => {
            let end = log.end();
            match log.wait_durable_timeout(end, LIMIT) {
                Ok(()) => {}
                Err(error) => return Err(format!("waiting for {end}: {error:?}")),
            }
        }
        12 => {
            let mut locked = lock(truth);
            let Some(from) = some(&locked.placed, random).map(|range| range.start) else { return Ok(()) };
            if from < locked.trim {
                return Ok(());
            }
            locked.truncated.push((from, None));
            drop(locked);
            match log.truncate(from) {
                Ok(at) => {
                    let mut locked = lock(truth);
                    let asked = locked.truncated.iter_mut().find(|(of, at)| *of == from && at.is_none());
                    asked.expect("it was asked for").1 = Some(at);
                }
                // Another thread has trimmed the log meanwhile.
                Err(Error::Trimmed { .. }) => {}
                Err(error) => return Err(format!("truncate: {error:?}")),
            }
        }
        13 => {
            let mut locked = lock(truth);
            let Some(to) = some(&locked.placed, random).map(|range| range.start) else { return Ok(()) };
            // One in four goes as far as it can.
            let to = if random.chance(25) { log.durable().min(log.settled()) } else { to };
            let to = if locked.placed.values().any(|range| range.start == to) { to } else { locked.trim };
            locked.trim = locked.trim.max(to);
            drop(locked);
            let trimmed = log.trim(to).map_err(failed("trim"))?;
            let mut locked = lock(truth);
            locked.trimmed = locked.trimmed.max(trimmed.first);
        }
        14 | 15 => {
            let mut locked = lock(truth);
            let name = random.pick(&NAMES);
            let value = random.chance(80).then(|| vec![random.next() as u8; random.pick(&[0, 1, 30, 800])]);
            let said = locked.said.entry(name).or_default();
            // Another thread is about to.
            if said.last().is_some_and(|(_, end)| end.is_none()) {
                return Ok(());
            }
            said.push((value.clone(), None));
            drop(locked);
            let placed = match &value {
                Some(value) => log.set_meta(name, value).map(Some),
                None => log.remove_meta(name),
            };
            let placed = placed.map_err(failed("a named value"))?;
            let mut locked = lock(truth);
            let said = locked.said.get_mut(name).expect("it was said");
            match placed {
                Some(placed) => said.last_mut().expect("it was said").1 = Some(placed.end),
                // It stood for nothing already: no record says so again.
                None => drop(said.pop()),
            }
            if log.meta(name) != value {
                return Err(format!("{name:?} was set, and stands for something else"));
            }
        }
        16 => _ = log.roll().map_err(failed("roll"))?,
        18.. => move_cursor(log, truth, random)?,
        _ => {
            let placed = some(&lock(truth).placed, random);
            let Some(placed) = placed else { return Ok(()) };
            let mut payload = Vec::new();
            match log.read(placed.start, &mut payload) {
                Ok(_) => {
                    let truth = lock(truth);
                    let number = u64::from_le_bytes(payload[..NUMBER].try_into().expect("eight bytes"));
                    if truth.placed.get(&number) != Some(&placed) || truth.sent[&number] != payload {
                        return Err(format!("read at {} gives number {number}", placed.start));
                    }
                }
                Err(Error::Trimmed { .. } | Error::Truncated(_)) => {}
                Err(error) => return Err(format!("read: {error:?}")),
            }
        }
    }
    Ok(())
}

/// Makes a cursor, moves it or removes it.
fn move_cursor(log: &Log, truth: &Mutex<Truth>, random: &mut Random) -> Check {
    let mut locked = lock(truth);
    let name = random.pick(&CURSORS);
    let record = some(&locked.placed, random);
    let moved = locked.moved.entry(name).or_default();
    // Another thread is about to.
    if moved.last().is_some_and(|(_, end)| end.is_none()) {
        return Ok(());
    }
    let is_there = moved.last().is_some_and(|(to, _)| to.is_some());
    let to = match record {
        _ if !is_there => Some(SOMEWHERE),
        _ if random.chance(15) => None,
        // Most go far, so that there is something to trim.
        Some(record) if random.chance(30) => Some(record.end),
        _ => Some(log.durable()),
    };
    moved.push((to, None));
    drop(locked);
    let asked = match to {
        Some(_) if !is_there => log.cursor(name).map(|cursor| Some((cursor.position(), log.end()))),
        Some(to) => log.cursor(name).and_then(|cursor| cursor.advance(to)).map(|said| Some((to, said.end))),
        None => log.cursor(name).and_then(|cursor| cursor.remove()).map(|()| None),
    };
    let mut locked = lock(truth);
    let last = locked.moved.get_mut(name).and_then(|moved| moved.last_mut()).expect("it was said");
    match asked {
        Ok(Some((at, end))) => *last = (Some(at), Some(end)),
        Ok(None) => last.1 = Some(log.end()),
        Err(Error::Trimmed { .. }) => _ = locked.moved.get_mut(name).expect("it was said").pop(),
        Err(error) => return Err(format!("a cursor: {error:?}")),
    }
    Ok(())
}

fn some(placed: &BTreeMap<u64, Range<Lsn>>, random: &mut Random) -> Option<Range<Lsn>> {
    let newest: Vec<_> = placed.values().rev().take(40).collect();
    (!newest.is_empty()).then(|| newest[random.below(newest.len())].clone())
}

/// Bytes of a segment, from the start of a batch or near it.
fn some_segment(directory: &MemoryDirectory, random: &mut Random) -> Vec<u8> {
    let files = directory.contents();
    let segments: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".seg")).map(|(_, file)| file).collect();
    let Some(file) = (!segments.is_empty()).then(|| segments[random.below(segments.len())]) else { return Vec::new() };
    file.get(BLOCK * random.below(4)..).unwrap_or_default().to_vec()
}

/// What a crash has left, and what was known when it came.
struct Image {
    directory: MemoryDirectory,
    /// With all that was in flight.
    uncut: MemoryDirectory,
    power: bool,
    durable: Lsn,
    /// Was durable before, and not trimmed or truncated: it has to be there.
    required: BTreeMap<u64, Range<Lsn>>,
    /// A truncation that was durable before makes these void.
    void: Vec<Range<Lsn>>,
    /// Was trimmed before.
    trimmed: Lsn,
    /// What was said of names before.
    names: BTreeMap<&'static str, Vec<Said<Vec<u8>>>>,
    cursors: BTreeMap<&'static str, Vec<Said<Lsn>>>,
}

struct Checked {
    directory: MemoryDirectory,
    uncut: MemoryDirectory,
    power: bool,
    report: Option<Report>,
    records: u64,
}

impl Image {
    fn take(log: &Log, truth: &Mutex<Truth>, directory: &MemoryDirectory, seed: u64, power: bool) -> Self {
        let (durable, required, void, trimmed, names, cursors) = {
            let truth = lock(truth);
            let durable = log.durable();
            let is_durable = |range: &&Range<Lsn>| range.end <= durable;
            let required = truth.placed.iter().filter(|(_, range)| is_durable(range));
            let required: BTreeMap<_, _> = required.map(|(number, range)| (*number, range.clone())).collect();
            let placed = truth.truncated.iter().filter_map(|(from, at)| Some((from, at.as_ref().filter(is_durable)?)));
            let void = placed.map(|(from, at)| *from..at.start).collect();
            (durable, required, void, truth.trimmed, truth.said.clone(), truth.moved.clone())
        };
        let image = if power { directory.power_cut(seed) } else { directory.kill(seed) };
        let uncut = directory.fork();
        Self { directory: image, uncut, power, durable, required, void, trimmed, names, cursors }
    }

    fn check(self, truth: &Mutex<Truth>) -> Result<Checked, String> {
        let judged = verify(&self.directory, &how());
        let (said, expected) = (answer(&judged)?, oracle::judge(&self.directory.contents()));
        if said != expected {
            return Err(format!("a legal crash is {said:?} to the crate and {expected:?} to the oracle"));
        }
        let Self { directory, uncut, power, durable, mut required, void, trimmed, names, cursors } = self;
        let report = match said {
            Answer::Fresh => return Err("the log is gone".into()),
            Answer::Clean(_) | Answer::Torn(_) | Answer::Unclosed(_) => judged.expect("it has an answer"),
            _ => return Err(format!("a legal crash is judged {judged:?}")),
        };
        if report.end.get() + (HEADER_LEN as u64) < durable.get() {
            return Err(format!("durable to {durable}, recovered to {}", report.end));
        }
        let truth = lock(truth);
        for name in NAMES {
            let (maybe, now) = (maybe_said(&names, &truth.said, name), report.meta(name).map(<[u8]>::to_vec));
            check_said(Some(&maybe), name, now.as_ref(), durable).map_err(|what| format!("{what}: {report:?}"))?;
        }
        for name in CURSORS {
            let (mut maybe, now) = (maybe_said(&cursors, &truth.moved, name), report.cursor(name));
            let made = maybe.iter_mut().filter(|said| now.is_some() && said.0 == Some(SOMEWHERE));
            made.for_each(|said| said.0 = now);
            check_said(Some(&maybe), name, now.as_ref(), durable).map_err(|what| format!("{what}: {report:?}"))?;
        }
        let fast = verify(&directory, &how().fast(true)).map_err(|error| format!("fast: {error:?}"))?;
        if !fast.cursors().eq(report.cursors()) {
            return Err(format!("fast, the cursors are those of {fast:?} instead of {report:?}"));
        }
        // No record goes that a cursor has not passed.
        let kept = report.cursors().map(|(_, position)| position).min();
        if kept.is_some_and(|kept| report.first > kept) {
            return Err(format!("trimmed up to {}, and a cursor is at {kept:?}: {report:?}", report.first));
        }
        // What was asked for by now may have happened.
        required.retain(|_, range| {
            let is_void = |from: &Lsn, at: &Option<Range<Lsn>>| {
                *from <= range.start && at.as_ref().is_none_or(|at| range.start < at.start)
            };
            let is_kept = range.start >= truth.trim || kept.is_some_and(|kept| range.start >= kept);
            is_kept && !truth.truncated.iter().any(|(from, at)| is_void(from, at))
        });
        if report.first < trimmed || report.first > truth.trim {
            return Err(format!("trimmed to {trimmed} up to {}, recovered {}", truth.trim, report.first));
        }
        let found = replayed(&directory, &report)?;
        let seen = check_records(&truth, &found, &report)?;
        if let Some((number, range)) = required.iter().find(|(number, _)| !seen.contains(number)) {
            return Err(format!("durable to {durable}, and number {number} at {range:?} is lost: {report:?}"));
        }
        if let Some(shown) = found.iter().find(|shown| void.iter().any(|void| void.contains(&Lsn::new(shown.0)))) {
            return Err(format!("the record at {} was truncated, durably", shown.0));
        }
        Ok(Checked { directory, uncut, power, report: Some(report), records: found.len() as u64 })
    }
}

/// What was said of a name before an image was taken, and what was said since: that may be there, too.
fn maybe_said<V: Clone>(
    before: &BTreeMap<&'static str, Vec<Said<V>>>,
    now: &BTreeMap<&'static str, Vec<Said<V>>>,
    name: &str,
) -> Vec<Said<V>> {
    let before = before.get(name).map_or(&[][..], |said| said);
    let later = now.get(name).map_or(&[][..], |now| &now[before.len().saturating_sub(1).min(now.len())..]);
    [before, later].concat()
}

/// A name stands for what was said of it durably last, or for something that was said later.
fn check_said<V: PartialEq + fmt::Debug>(said: Option<&Vec<Said<V>>>, name: &str, now: Option<&V>, to: Lsn) -> Check {
    let said = said.map_or(&[][..], |said| said);
    let last = said.iter().rposition(|(_, end)| end.is_some_and(|end| end <= to));
    let may_be = |from: usize| said[from..].iter().any(|(value, _)| value.as_ref() == now);
    if last.map_or(now.is_none() || may_be(0), may_be) {
        return Ok(());
    }
    Err(format!("durable to {to}, {name:?} stands for {now:?}; said was {said:?}"))
}

fn replayed(directory: &MemoryDirectory, report: &Report) -> Result<Vec<Shown>, String> {
    let mut found = Vec::new();
    let each = |item: Item<'_>| {
        if let Item::Record(record) = item {
            found.push((record.lsn.get(), record.kind, record.payload.to_vec()));
        }
        Ok::<_, Infallible>(())
    };
    replay(directory, report, &Replay::new(), each).map_err(|error| format!("replay: {error:?}"))?;
    Ok(found)
}

/// Each record is one that was sent, where it was placed, once, and groups are whole. Returns the numbers.
fn check_records(truth: &Truth, found: &[Shown], report: &Report) -> Result<BTreeSet<u64>, String> {
    let mut seen = BTreeSet::new();
    for (lsn, _, payload) in found {
        let number = payload.first_chunk().map(|number| u64::from_le_bytes(*number));
        let number = number.ok_or_else(|| format!("a record without a number at {lsn}"))?;
        if truth.sent.get(&number) != Some(payload) {
            return Err(format!("invented: the record at {lsn}, as number {number}"));
        }
        if truth.dead.contains(&number) {
            return Err(format!("number {number} at {lsn} was given up, or lost before"));
        }
        if truth.placed.get(&number).is_some_and(|range| range.start.get() != *lsn) {
            return Err(format!("number {number} was placed at {:?}, found at {lsn}", truth.placed[&number]));
        }
        if !seen.insert(number) {
            return Err(format!("number {number} is there twice"));
        }
    }
    // A trim or a truncation from an address between them counts for each payload.
    let bounds: Vec<_> = report.void.iter().flat_map(|void| [void.start, void.end]).chain([report.first]).collect();
    let may_part = |group: &Range<u64>| match truth.placed.get(&group.start) {
        Some(range) => bounds.iter().any(|bound| range.start < *bound && *bound < range.end),
        None => bounds.iter().any(|bound| *bound > Lsn::START),
    };
    for group in &truth.groups {
        let members = seen.range(group.clone()).count() as u64;
        if members != 0 && members != group.end - group.start && !may_part(group) {
            return Err(format!("of the group {group:?}, {members} are there"));
        }
    }
    Ok(seen)
}

/// The batches of an image, as the damage knows them.
fn chain(directory: &MemoryDirectory, report: &Report) -> Result<Vec<Batch>, String> {
    let manifest = ManifestFile::read(directory, false).map_err(|error| format!("{error:?}"))?.expect("a log");
    let Manifest { key, log_id, segment_size: size, .. } = *manifest.content();
    let mut unfiltered = report.clone();
    (unfiltered.void, unfiltered.first) = (Vec::new(), Lsn::START);
    let mut ends = Vec::new();
    let each = |item: Item<'_>| {
        if let Item::Record(record) = item {
            ends.push((record.end.get(), (record.lsn.get(), record.kind, record.payload.to_vec())));
        }
        Ok::<_, Infallible>(())
    };
    replay(directory, &unfiltered, &Replay::new(), each).map_err(|error| format!("unfiltered: {error:?}"))?;
    let (mut batches, mut at) = (Vec::new(), report.checked_from.get());
    while at < report.end.get() {
        let name = format!("{:020}.seg", at / size * size);
        let bytes = |at: u64, len: usize| -> Vec<u8> {
            let mut bytes = vec![0; len];
            let file = directory.open(&name, false).expect("a segment");
            directory.read_at(&file, &mut bytes, 4096 + at % size).expect("memory");
            bytes
        };
        let head = BatchHeader::decode_at(bytes(at, HEADER_LEN).first_chunk().expect("a header"), &key, log_id, at);
        let head = head.map_err(|refusal| format!("the batch at {at}: {refusal}"))?;
        let layout = head.layout();
        let bytes = bytes(at, layout.len);
        let next = if head.flags.last { (at / size + 1) * size } else { at + layout.len as u64 };
        let own: Vec<_> = ends.iter().filter(|(end, _)| (at + 1..=next).contains(end)).collect();
        let records = own.iter().map(|(_, shown)| shown.clone()).collect();
        // The payloads of a group have one end, and the first of them has the address of the group.
        let begins = |end: u64| own.iter().filter(|(of, _)| *of == end).map(|(_, shown)| shown.0).min();
        let groups = own.iter().filter_map(|(end, shown)| Some((shown.0, begins(*end)?))).collect();
        let voids = truncations(&bytes, at, head.payload_len as usize);
        let under = vec![0; bytes.len()];
        batches.push(Batch {
            base: at,
            next,
            bytes,
            under,
            durable: head.durable,
            records,
            groups,
            voids,
            vote: None,
            mailer: None,
            has_snapshot: false,
        });
        at = next;
    }
    Ok(batches)
}

/// The truncations in a batch: from where, and where they stand.
fn truncations(batch: &[u8], base: u64, payload_len: usize) -> Vec<(u64, u64)> {
    let (mut found, mut at) = (Vec::new(), HEADER_LEN);
    while at < HEADER_LEN + payload_len {
        let header: &[u8; RECORD_HEADER_LEN] = batch[at..].first_chunk().expect("a record");
        match RecordHeader::decode(header, at).expect("a verified record") {
            Some(record) => {
                if record.record_type == RecordType::Truncation {
                    let from = batch[at + RECORD_HEADER_LEN..].first_chunk().expect("an address");
                    found.push((u64::from_le_bytes(*from), base + at as u64));
                }
                at += record.padded_len() as usize;
            }
            None => at += RECORD_HEADER_LEN,
        }
    }
    found
}
