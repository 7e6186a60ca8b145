//! A log, its directory, and the truth about it.

use core::convert::Infallible;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::{env, thread};

use ringlog::directory::{Directory, MemoryDirectory};
use ringlog::format::{Manifest, Metadata, Position, REMOVED, RecordType, Snapshot, SnapshotEntry};
use ringlog::manifest::ManifestFile;
use ringlog::recovery::{Item, OnDamage, Recover, Replay, Report, Verdict, Verify, replay, verify};
use ringlog::testing::{BatchBuilder, LongRecord, Payload, Random, ReferenceWriter, Submitted};
use ringlog::{Lsn, OpenError};

use super::damage::{Damaged, damage};
use super::oracle::{self, Answer, Files};

pub(crate) type Check = Result<(), String>;

/// A payload of the user: address, kind, bytes.
pub(crate) type Shown = (u64, u8, Vec<u8>);

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) bytes: Vec<u8>,
    /// What stood there before.
    pub(crate) under: Vec<u8>,
    /// The watermark when it was sealed.
    pub(crate) durable: u64,
    pub(crate) records: Vec<Shown>,
    /// By address, of payloads of a group: where the group begins.
    pub(crate) groups: BTreeMap<u64, u64>,
    /// Truncations in it: from where, and where they stand.
    pub(crate) voids: Vec<(u64, u64)>,
    /// What it says of the name "vote".
    pub(crate) vote: Option<Vote>,
    /// Where it says that the cursor "mailer" stands.
    pub(crate) mailer: Option<Option<u64>>,
    /// Whether it repeats all truncations before it.
    pub(crate) has_snapshot: bool,
}

/// What a name stands for, if it does.
pub(crate) type Vote = Option<u8>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) images: u64,
    pub(crate) kills: u64,
    pub(crate) torn: u64,
    pub(crate) clean: u64,
    pub(crate) unclosed: u64,
    pub(crate) fresh: u64,
    pub(crate) damaged_images: u64,
    pub(crate) judged_damaged: u64,
    pub(crate) refused: u64,
    pub(crate) had_to_be_damaged: u64,
    pub(crate) unprovable: u64,
    pub(crate) fast_jumps: u64,
    pub(crate) set_aside: u64,
    pub(crate) skipped: u64,
    pub(crate) interrupted: u64,
    pub(crate) batches: u64,
    pub(crate) trims: u64,
    pub(crate) records: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { images, kills, torn, clean, unclosed, fresh, damaged_images, judged_damaged, refused, .. } = *other;
        self.images += images;
        self.kills += kills;
        self.torn += torn;
        self.clean += clean;
        self.unclosed += unclosed;
        self.fresh += fresh;
        self.damaged_images += damaged_images;
        self.judged_damaged += judged_damaged;
        self.refused += refused;
        let Self { had_to_be_damaged, unprovable, fast_jumps, set_aside, skipped, interrupted, .. } = *other;
        self.had_to_be_damaged += had_to_be_damaged;
        self.unprovable += unprovable;
        self.fast_jumps += fast_jumps;
        self.set_aside += set_aside;
        self.skipped += skipped;
        self.interrupted += interrupted;
        self.batches += other.batches;
        self.trims += other.trims;
        self.records += other.records;
    }
}

/// Runs scenarios, each with another seed, until `count` says that enough was seen: as many as the variable says, or
/// `default`. Returns how many were wanted, and the figures of all.
pub(crate) fn run(
    variable: &str,
    default: u64,
    count: impl Fn(&Figures) -> u64 + Sync,
    scenario: impl Fn(u64) -> Result<Figures, String> + Sync,
) -> (u64, Figures) {
    let number = |variable: &str| env::var(variable).ok().and_then(|number| number.parse().ok());
    let (wanted, first) = (number(variable).unwrap_or(default), number("RINGLOG_SEED").unwrap_or(1));
    let next = AtomicU64::new(0);
    let total = Mutex::new((Figures::default(), None::<String>));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = first + next.fetch_add(1, Relaxed);
                    let ran = catch_unwind(AssertUnwindSafe(|| scenario(seed)));
                    let (figures, failure) = &mut *total.lock().expect("no panic");
                    match ran.unwrap_or_else(|_| Err("panic".into())) {
                        Ok(more) => figures.add(&more),
                        Err(what) => {
                            let again = format!("RINGLOG_SEED={seed} {variable}=1");
                            _ = failure.get_or_insert(format!("seed {seed}: {what}\n  {again}"));
                        }
                    }
                    if failure.is_some() || count(figures) >= wanted {
                        break;
                    }
                }
            });
        }
    });
    let (figures, failure) = total.into_inner().expect("no panic");
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{figures:#?}");
    (wanted, figures)
}

pub(crate) struct World {
    pub(crate) size: u64,
    pub(crate) directory: MemoryDirectory,
    pub(crate) writer: Option<ReferenceWriter>,
    /// What was submitted and not cut since.
    pub(crate) chain: Vec<Batch>,
    /// From where on `chain` is complete, and up to where the log may have written besides.
    pub(crate) known_from: u64,
    pub(crate) reach: u64,
    pub(crate) acknowledged: u64,
    /// The trim point is one of these: the last that was settled, or one that was in flight.
    pub(crate) trims: Vec<u64>,
    pub(crate) random: Random,
    /// What was on stable storage earlier.
    pub(crate) past: Vec<Files>,
    /// The files of another log.
    pub(crate) foreign: Files,
    /// The files of a copy that diverged.
    pub(crate) fork: Option<Files>,
    pub(crate) buffer: usize,
    long: Option<(LongRecord, u8, Vec<u8>)>,
    pub(crate) figures: Figures,
}

/// The crate's verdict, in the oracle's terms.
pub(crate) fn answer(judged: &Result<Report, OpenError>) -> Result<Answer, String> {
    Ok(match judged {
        Ok(report) => match &report.verdict {
            Verdict::Clean => Answer::Clean(report.end.get()),
            Verdict::Unclosed => Answer::Unclosed(report.end.get()),
            Verdict::Torn(_) => Answer::Torn(report.end.get()),
            Verdict::Damaged(damage) => {
                if damage.range.start != report.end || damage.range.is_empty() {
                    return Err(format!("the range of {damage:?} does not begin at {}", report.end));
                }
                Answer::Damaged { at: report.end.get(), promised: report.promised.get() }
            }
            other => return Err(format!("verify says {other:?}")),
        },
        Err(OpenError::Missing) => Answer::Fresh,
        Err(
            OpenError::NoManifest { .. }
            | OpenError::BadManifest { .. }
            | OpenError::Contradiction { .. }
            | OpenError::Foreign { .. }
            | OpenError::OldManifest { .. }
            | OpenError::Mixed { .. },
        ) => Answer::Refused,
        Err(other) => return Err(format!("verify fails: {other:?}")),
    })
}

pub(crate) fn how() -> Verify {
    Verify::new().threads(1)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = random.pick(&[16_384, 20_480, 32_768]);
        let foreign = MemoryDirectory::new();
        let mut other = ReferenceWriter::open(&foreign, recover(size, random.next()), 4096).unwrap();
        for _ in 0..6 {
            let mut batch = other.batch();
            batch.record(1, b"of another log");
            other.submit(batch, false, false).unwrap();
        }
        other.settle().unwrap();
        Self {
            size,
            directory: MemoryDirectory::new(),
            writer: None,
            chain: Vec::new(),
            known_from: 0,
            reach: 0,
            acknowledged: 0,
            trims: vec![0],
            random,
            past: Vec::new(),
            foreign: foreign.contents(),
            fork: None,
            buffer: 4096,
            long: None,
            figures: Figures::default(),
        }
    }

    // ------------------------------------------------------------ the truth

    /// What the log holds between two addresses, for a reader that begins at the first of them.
    fn shown(&self, from: u64, to: u64, trim: u64, gaps: &[core::ops::Range<Lsn>]) -> Vec<Shown> {
        let batches = self.chain.iter().filter(|batch| (from..to).contains(&batch.base));
        let batches = batches.filter(|batch| !gaps.iter().any(|gap| gap.contains(&Lsn::new(batch.base))));
        let batches = batches.collect::<Vec<_>>();
        // A snapshot knows those in a gap before it.
        let repeated = batches.iter().rfind(|batch| batch.has_snapshot).map_or(0, |batch| batch.base);
        let repeated = self.chain.iter().filter(|batch| batch.base < repeated);
        let voids: Vec<_> = repeated.chain(batches.iter().copied()).flat_map(|batch| &batch.voids).collect();
        let is_void = |at: u64| voids.iter().any(|(from, to)| (*from..*to).contains(&at));
        let begins = |batch: &Batch, at: u64| batch.groups.get(&at).copied().unwrap_or(at);
        let records = batches.iter().flat_map(|batch| batch.records.iter().map(|record| (*batch, record)));
        let records = records.filter(|(batch, (at, ..))| begins(batch, *at) >= from && *at >= trim && !is_void(*at));
        records.map(|(_, record)| record.clone()).collect()
    }

    /// What the newest batch below an address says, of those that say anything of it.
    fn newest<T>(&self, below: u64, said: impl Fn(&Batch) -> Option<T>) -> Option<T> {
        self.chain.iter().rev().filter(|batch| batch.base < below).find_map(said)
    }

    /// What was accepted is exactly what was submitted there.
    pub(crate) fn check_content(&mut self, directory: &MemoryDirectory, report: &Report, any_trim: bool) -> Check {
        let (from, end, trim) = (report.checked_from.get(), report.end.get(), report.first.get());
        if from < self.known_from {
            return Ok(());
        }
        if !any_trim && !self.trims.contains(&trim) {
            return Err(format!("trimmed to one of {:?}, recovered {trim}", self.trims));
        }
        let batches: Vec<_> = self.chain.iter().filter(|batch| (from..end).contains(&batch.base)).collect();
        if report.gaps.is_empty() {
            let leads_on = batches.windows(2).all(|pair| pair[0].next == pair[1].base);
            let begins = batches.first().is_none_or(|batch| batch.base == from);
            let ends = batches.last().map_or(from, |batch| batch.next) == end;
            if !leads_on || !begins || !ends || batches.len() as u64 != report.batches {
                let bases: Vec<_> = self.chain.iter().map(|batch| (batch.base, batch.next)).collect();
                return Err(format!("accepted {} batches in {from}..{end}, but there were {bases:?}", report.batches));
            }
        }
        let mut found = Vec::new();
        let replayed = replay(directory, report, &Replay::new(), |item| {
            if let Item::Record(record) = item {
                found.push((record.lsn.get(), record.kind, record.payload.to_vec()));
            }
            Ok::<_, Infallible>(())
        });
        replayed.map_err(|error| format!("replay: {error:?}"))?;
        let gaps = &report.gaps;
        let mut expected = self.shown(from, end, trim, gaps);
        if !gaps.is_empty() {
            // A long record of which a part lies in a gap is not shown.
            expected.retain(|record| found.contains(record) || record.2.len() < 6000);
        }
        self.figures.records += found.len() as u64;
        if found != expected {
            let short = |shown: &[Shown]| shown.iter().map(|record| (record.0, record.2.len())).collect::<Vec<_>>();
            return Err(format!("replayed {:?}, expected {:?}", short(&found), short(&expected)));
        }
        Ok(())
    }

    /// After a legal crash.
    pub(crate) fn check_legal(&mut self, image: &MemoryDirectory) -> Result<Option<Report>, String> {
        self.figures.images += 1;
        let judged = verify(image, &how());
        let said = answer(&judged)?;
        let expected = oracle::judge(&image.contents());
        if said != expected {
            return Err(format!("a legal crash is {said:?} to the crate and {expected:?} to the oracle"));
        }
        match said {
            Answer::Fresh => {
                self.figures.fresh += 1;
                return if self.acknowledged == 0 { Ok(None) } else { Err("the log is gone".into()) };
            }
            Answer::Clean(_) => self.figures.clean += 1,
            Answer::Torn(_) => self.figures.torn += 1,
            Answer::Unclosed(_) => self.figures.unclosed += 1,
            _ => return Err(format!("a legal crash is judged {judged:?}")),
        }
        let report = judged.unwrap();
        self.check_content(image, &report, false)?;
        if report.end.get() < self.acknowledged {
            return Err(format!("acknowledged to {}, recovered to {}", self.acknowledged, report.end));
        }
        let fast = verify(image, &how().fast(true)).map_err(|error| format!("fast: {error:?}"))?;
        let named = |report: &Report| (report.meta("vote").map(<[u8]>::to_vec), report.cursor("mailer"));
        if (&fast.verdict, fast.end, fast.next_number, fast.previous, named(&fast))
            != (&report.verdict, report.end, report.next_number, report.previous, named(&report))
        {
            return Err(format!("fast: {fast:?} instead of {report:?}"));
        }
        self.figures.fast_jumps += u64::from(fast.checked_from > report.checked_from);
        let (from, end) = (report.checked_from.get(), report.end.get());
        let said = |batch: &Batch| batch.mailer.filter(|_| batch.base >= from);
        // What was said before the trim point, only a snapshot repeats.
        let expected = if from >= self.known_from { self.newest(end, said) } else { None };
        let found = report.cursor("mailer").map(Lsn::get);
        if expected.is_some_and(|expected| expected != found) {
            return Err(format!("the cursor is at {found:?} instead of {expected:?}: {report:?}"));
        }
        Ok(Some(report))
    }

    /// What lies below the highest promise that is still there, and is no longer as it was.
    fn must_be_damaged(&self, files: &Files, report: &Report, known: u64) -> Option<(u64, u64)> {
        let stands = |batch: &Batch, len: usize| {
            let file = files.get(&format!("{:020}.seg", batch.base / self.size * self.size));
            let at = 4096 + (batch.base % self.size) as usize;
            // What a short file lacks reads as zeros.
            file.is_some_and(|file| {
                let there = file.get(at.min(file.len())..(at + len).min(file.len())).unwrap_or_default();
                let (same, rest) = batch.bytes[..len].split_at(there.len());
                there == same && rest.iter().all(|&byte| byte == 0)
            })
        };
        let low = report.first.get() / self.size * self.size;
        let batches: Vec<_> = self.chain.iter().filter(|batch| batch.base >= low).collect();
        let from_headers = batches.iter().filter(|batch| stands(batch, 72)).map(|batch| batch.durable).max();
        let promised = from_headers.unwrap_or(0).max(known);
        let broken = batches.iter().find(|batch| batch.base < promised && !stands(batch, batch.bytes.len()));
        broken.map(|batch| (batch.base, promised))
    }

    /// Whether anything of the log itself differs.
    fn is_touched(&self, before: &Files, after: &Files, report: &Report) -> bool {
        let end = report.end.get().max(self.chain.last().map_or(0, |batch| batch.next)).max(self.reach) + self.size;
        let low = report.first.get() / self.size * self.size;
        let addresses = |files: &Files, base: u64| {
            let file = files.get(&format!("{base:020}.seg"))?;
            let mut bytes = file.get(4096..).unwrap_or_default().to_vec();
            bytes.resize(self.size as usize, 0);
            // Whether it is whole, or has a header.
            Some((bytes, file.len() as u64 >= 4096 + self.size, file.len() >= 4096))
        };
        let segments = (low..end).step_by(self.size as usize);
        before.get("MANIFEST") != after.get("MANIFEST")
            || segments.into_iter().any(|base| addresses(before, base) != addresses(after, base))
    }

    // ------------------------------------------------------------ damage

    /// One damage to a legal image, and what must be said about it.
    pub(crate) fn check_damaged(
        &mut self,
        image: &MemoryDirectory,
        report: &Report,
    ) -> Result<Option<(MemoryDirectory, Report)>, String> {
        let before = image.contents();
        let Some(Damaged { directory, what, foreign }) = damage(self, image, report) else { return Ok(None) };
        self.check_damage(&before, &directory, report, foreign).map_err(|error| format!("{what}: {error}"))
    }

    fn check_damage(
        &mut self,
        before: &Files,
        directory: &MemoryDirectory,
        report: &Report,
        foreign: bool,
    ) -> Result<Option<(MemoryDirectory, Report)>, String> {
        self.figures.damaged_images += 1;
        let after = directory.contents();
        let judged = verify(directory, &how());
        let said = answer(&judged)?;
        let expected = oracle::judge(&after);
        if said != expected {
            return Err(format!("{said:?} to the crate and {expected:?} to the oracle: {judged:?}"));
        }
        let is_damaged = matches!(said, Answer::Damaged { .. } | Answer::Refused);
        self.figures.judged_damaged += u64::from(is_damaged);
        self.figures.refused += u64::from(said == Answer::Refused);
        let sequence = |files: &Files| {
            let slots = files.get("MANIFEST").map_or(&[][..], |file| file.as_chunks::<4096>().0);
            slots.iter().filter_map(|slot| Manifest::decode(slot).ok()).map(|slot| slot.sequence).max()
        };
        let is_newest = sequence(before) == sequence(&after);
        if !self.is_touched(before, &after, report) && !foreign {
            // What stands behind the end may read differently, the verdict may not.
            if answer(&judged) != answer(&Ok(report.clone())) {
                return Err(format!("nothing of the log was damaged, and {report:?} became {judged:?}"));
            }
        }
        let Ok(found) = judged else { return Ok(None) };
        // A reader never gets what was not submitted, whatever is damaged.
        self.check_content(directory, &found, !is_newest)?;
        let manifest = ManifestFile::read(directory, false).unwrap().unwrap();
        if let Some((at, promised)) = self.must_be_damaged(&after, &found, manifest.content().promise())
            && is_newest
        {
            self.figures.had_to_be_damaged += 1;
            if !is_damaged {
                return Err(format!("{at} is damaged and {promised} was promised, but it is judged {found:?}"));
            }
        }
        self.figures.unprovable += u64::from(!is_damaged && found.end.get() < self.acknowledged);
        self.check_fast(directory, &found, is_newest)?;
        Ok(Some((directory.clone(), found)))
    }

    /// A fast opening never finds what a full one does not.
    fn check_fast(&mut self, directory: &MemoryDirectory, full: &Report, is_newest: bool) -> Check {
        let Ok(fast) = verify(directory, &how().fast(true)) else { return Ok(()) };
        // Only a reader of the epochs behind it sees whether all of MANIFEST is older than the log.
        if !is_newest {
            return Ok(());
        }
        self.check_content(directory, &fast, false)?;
        let is_damaged = |report: &Report| matches!(report.verdict, Verdict::Damaged(_));
        match (is_damaged(&fast), is_damaged(full)) {
            (false, false) if fast.end != full.end => Err(format!("fast: the end is {}, not {}", fast.end, full.end)),
            (false, true) if full.end >= fast.checked_from => {
                Err(format!("fast: from {} it does not see damage at {}", fast.checked_from, full.end))
            }
            _ => Ok(()),
        }
    }

    /// Damage is set aside or skipped, perhaps with interruptions; then the log goes on.
    pub(crate) fn check_decided(&mut self, directory: &MemoryDirectory, found: &Report) -> Check {
        let refused = directory.fork();
        let content = refused.contents();
        match recover(self.size, 1).open(&refused) {
            Err(OpenError::Damaged(report)) if report.verdict == found.verdict => {}
            other => return Err(format!("opening damage: {other:?}")),
        }
        if refused.contents() != content {
            return Err("refusing has changed the disk".into());
        }
        let what = self.random.pick(&[OnDamage::SetAside, OnDamage::Skip]);
        let mut image = directory.fork();
        let opened = loop {
            if self.random.chance(40) {
                image.stop_after(self.random.below(16) as u64);
            }
            let seed = self.random.next();
            match recover(self.size, seed).on_damage(what).open(&image) {
                Ok(opened) => break opened,
                Err(OpenError::Io { .. }) => self.figures.interrupted += 1,
                Err(error) => return Err(format!("{what:?}: {error:?}")),
            }
            let seed = self.random.next();
            image = if self.random.chance(50) { image.power_cut(seed) } else { image.kill(seed) };
            match verify(&image, &how()) {
                Ok(now) => {
                    // The gap may be known already, and the file of the end still missing.
                    let is_there = now.end == found.end || (!now.gaps.is_empty() && now.end > found.end);
                    let still = matches!(now.verdict, Verdict::Damaged(_)) && is_there;
                    // Only a durable cut may end the report of damage.
                    let is_decided = now.epoch > found.epoch && !matches!(now.verdict, Verdict::Damaged(_));
                    let done = is_decided
                        && match what {
                            OnDamage::SetAside => now.end == found.end,
                            _ => now.end >= found.end,
                        };
                    if !still && !done {
                        return Err(format!("{what:?} was interrupted: {found:?} became {now:?}"));
                    }
                }
                Err(error) => return Err(format!("{what:?} was interrupted: {error:?}")),
            }
        };
        let report = opened.report().clone();
        let seed = self.random.next();
        if self.random.chance(50) {
            image = image.power_cut(seed);
        }
        drop(opened);
        let now = verify(&image, &how()).map_err(|error| format!("after {what:?}: {error:?}"))?;
        if matches!(now.verdict, Verdict::Damaged(_)) || now.end != report.end || now.gaps != report.gaps {
            return Err(format!("after {what:?}, {report:?} is {now:?}"));
        }
        let expected = oracle::judge(&image.contents());
        if answer(&Ok(now.clone()))? != expected {
            return Err(format!("after {what:?}, {now:?} is {expected:?} to the oracle"));
        }
        if what == OnDamage::SetAside {
            self.figures.set_aside += 1;
            if now.end != found.end {
                return Err(format!("set aside at {}, but the end is {}", found.end, now.end));
            }
        } else {
            self.figures.skipped += 1;
            if now.end < found.promised {
                return Err(format!("skipped {}, and the end {} may be given again", found.promised, now.end));
            }
        }
        self.check_content(&image, &now, true)
    }

    // ------------------------------------------------------------ what happens

    /// Writes nothing but `payloads`, each a batch, and makes them durable.
    pub(crate) fn write_settled(&mut self, payloads: &[&[u8]]) {
        for payload in payloads {
            self.submit_with(false, |batch| vec![(batch.record(0, payload).unwrap(), 0, payload.to_vec())]).unwrap();
        }
        self.writer.as_mut().unwrap().settle().unwrap();
        self.acknowledge();
    }

    pub(crate) fn submit_with(
        &mut self,
        roll: bool,
        fill: impl FnOnce(&mut BatchBuilder) -> Vec<Shown>,
    ) -> Result<(), OpenError> {
        let mut batch = self.writer.as_ref().unwrap().batch();
        let records = fill(&mut batch);
        self.submit(batch, roll, records, Vec::new(), None, false)
    }

    fn submit(
        &mut self,
        batch: BatchBuilder,
        roll: bool,
        records: Vec<Shown>,
        voids: Vec<(u64, u64)>,
        vote: Option<Vote>,
        has_snapshot: bool,
    ) -> Result<(), OpenError> {
        let durably = self.random.chance(30);
        let writer = self.writer.as_mut().unwrap();
        let before = writer.directory().contents();
        let durable = writer.durable();
        let Submitted { base, next, bytes, .. } = writer.submit(batch, roll, durably)?;
        let file = before.get(&format!("{:020}.seg", base / self.size * self.size));
        let at = 4096 + (base % self.size) as usize;
        let under = (at..at + bytes.len()).map(|at| file.and_then(|file| file.get(at)).copied().unwrap_or(0)).collect();
        self.chain.push(Batch {
            base,
            next,
            bytes,
            under,
            durable,
            records,
            groups: BTreeMap::new(),
            voids,
            vote,
            mailer: None,
            has_snapshot,
        });
        self.figures.batches += 1;
        Ok(())
    }

    fn payload(&mut self, room: usize) -> Vec<u8> {
        let random = &mut self.random;
        let len = random.pick(&[0, 1, 7, 8, 100, 1000, 4000, 8000]).min(room);
        let byte = random.next() as u8;
        match random.below(4) {
            0 => vec![0; len],
            // A copy of an older batch, so that its header is at the start of a block.
            1 if room > 6000 && !self.chain.is_empty() => {
                let copied = random.below(self.chain.len());
                let mut bytes = vec![byte; 4096 - 80];
                bytes.extend_from_slice(&self.chain[copied].bytes);
                bytes.truncate(room);
                bytes
            }
            _ => (0..len).map(|n| byte.wrapping_mul(n as u8 | 1)).collect(),
        }
    }

    /// A batch with random content of every kind.
    fn random_batch(&mut self, roll: bool) -> Result<(), OpenError> {
        let mut batch = self.writer.as_ref().unwrap().batch();
        let (mut records, mut voids, mut vote, mut has_snapshot) = (Vec::new(), Vec::new(), None, false);
        let mut mailer = None;
        for _ in 0..self.random.below(5) {
            let room = batch.room();
            let kind = self.random.next() as u8;
            match self.random.below(12) {
                0 => {
                    let payloads: Vec<_> = (0..self.random.below(4)).map(|_| self.payload(100)).collect();
                    let group: Vec<_> = payloads.iter().map(|bytes| Payload { kind, bytes }).collect();
                    if let Some(at) = batch.group(&group) {
                        let mut entry = at;
                        for (n, bytes) in payloads.into_iter().enumerate() {
                            let len = bytes.len().next_multiple_of(8) as u64;
                            records.push((if n == 0 { at } else { entry + 8 }, kind, bytes));
                            entry += 8 + len;
                        }
                    }
                }
                1 => batch.filler(self.random.below(300)),
                2 => {
                    let known: Vec<_> =
                        self.chain.iter().flat_map(|batch| &batch.records).map(|record| record.0).collect();
                    if !known.is_empty() && self.random.chance(40) {
                        let from = self.random.pick(&known);
                        if let Some(at) = batch.push(RecordType::Truncation, 0, &from.to_le_bytes()) {
                            voids.push((from, at));
                        }
                    }
                }
                3 => {
                    let said = Metadata { name: b"vote", value: &[kind] }.encode();
                    if batch.push(RecordType::Metadata, kind % 2, &said).is_some() {
                        vote = Some((kind % 2 != REMOVED).then_some(kind));
                    }
                }
                11 if self.random.chance(50) => {
                    let position = self.random.below(self.reach.max(1) as usize) as u64;
                    let position = position.min(self.chain.last().map_or(0, |batch| batch.base));
                    let said = Position { position, name: b"mailer" }.encode();
                    if batch.push(RecordType::Cursor, kind % 2, &said).is_some() {
                        mailer = Some((kind % 2 != REMOVED).then_some(position));
                    }
                }
                4 if self.random.chance(30) => {
                    // Complete to an earlier address only: it says nothing.
                    let entries = vec![SnapshotEntry::Void { from: 8, to: 16 }];
                    let snapshot = Snapshot { complete_to: 0, records: 9, entries };
                    _ = batch.push(RecordType::Snapshot, 0, &snapshot.encode());
                }
                4 => {
                    let earlier = self.chain.iter().flat_map(|batch| &batch.voids).chain(&voids);
                    let mut entries: Vec<_> = earlier.map(|&(from, to)| SnapshotEntry::Void { from, to }).collect();
                    let value = vote.or_else(|| self.newest(u64::MAX, |batch| batch.vote)).flatten();
                    let value = value.as_ref().map(core::slice::from_ref);
                    entries.extend(value.map(|value| SnapshotEntry::Metadata(Metadata { name: b"vote", value })));
                    let position = mailer.or_else(|| self.newest(u64::MAX, |batch| batch.mailer)).flatten();
                    let cursor = position.map(|position| Position { position, name: b"mailer" });
                    entries.extend(cursor.map(SnapshotEntry::Cursor));
                    has_snapshot |= batch.snapshot(entries).is_some();
                }
                5 | 6 => self.long_part(&mut batch, &mut records),
                _ => {
                    let payload = self.payload(room);
                    if let Some(at) = batch.record(kind, &payload) {
                        records.push((at, kind, payload));
                    }
                }
            }
        }
        self.submit(batch, roll, records, voids, vote, has_snapshot)?;
        self.chain.last_mut().expect("it was submitted").mailer = mailer;
        Ok(())
    }

    fn long_part(&mut self, batch: &mut BatchBuilder, records: &mut Vec<Shown>) {
        let random = &mut self.random;
        let (record, kind, payload) = self.long.get_or_insert_with(|| {
            let payload: Vec<u8> = (0..6000 + random.below(9000)).map(|n| n as u8).collect();
            (LongRecord::new(9, payload.clone()), 9, payload)
        });
        if let Some(first) = record.place(batch, 3000) {
            records.push((first, *kind, core::mem::take(payload)));
            self.long = None;
        }
    }

    pub(crate) fn acknowledge(&mut self) {
        if let Some(writer) = &self.writer {
            self.acknowledged = self.acknowledged.max(writer.durable());
        }
    }

    /// One thing that a writer does.
    pub(crate) fn work(&mut self) -> Result<(), OpenError> {
        let writer = self.writer.as_mut().unwrap();
        let io = |error| OpenError::Io { operation: "sync", file: "a segment".into(), source: error };
        if writer.is_tight() {
            return self.submit_with(false, |_| Vec::new());
        }
        match self.random.below(14) {
            0..=4 if writer.flights().len() < 4 => {
                let roll = self.random.chance(8);
                self.random_batch(roll)?;
            }
            0..=4 => {}
            5..=8 => {
                let open: Vec<_> = (0..writer.flights().len()).filter(|&n| !writer.flights()[n].written).collect();
                if !open.is_empty() {
                    let position = self.random.pick(&open);
                    writer.complete(position);
                }
            }
            9 => writer.sync_begin(),
            10 | 11 => writer.sync_step().map_err(io)?,
            12 if self.random.chance(30) => writer.prepare_next()?,
            12 => {}
            _ => {
                let low = writer.opened().manifest().trim;
                let to: Vec<_> = self
                    .chain
                    .iter()
                    .map(|batch| batch.base)
                    .filter(|&base| base > low && base <= writer.durable())
                    .collect();
                if !to.is_empty() && self.random.chance(60) {
                    let to = self.random.pick(&to);
                    self.trims.push(to);
                    let keep = self.random.chance(60);
                    writer.trim(to, keep)?;
                    self.trims = vec![writer.opened().manifest().trim];
                    self.figures.trims += 1;
                }
            }
        }
        self.acknowledge();
        Ok(())
    }

    /// Closes the log.
    pub(crate) fn close(&mut self) -> Result<(), OpenError> {
        if !self.writer.as_ref().unwrap().is_tight() {
            self.submit_with(false, |_| Vec::new())?;
        }
        let writer = self.writer.as_mut().unwrap();
        writer.close()?;
        self.acknowledge();
        Ok(())
    }

    /// The machine or the process stops; the log goes on from what is left.
    pub(crate) fn stop(&mut self, power: bool) {
        let seed = self.random.next();
        self.writer = None;
        self.long = None;
        self.directory = if power { self.directory.power_cut(seed) } else { self.directory.kill(seed) };
        self.figures.kills += u64::from(!power);
    }

    /// Opens the log, with crashes on the way.
    pub(crate) fn recover(&mut self, interrupted: bool) -> Check {
        loop {
            let image = self.directory.clone();
            match self.check_legal(&image)? {
                Some(report) => self.chain.retain(|batch| batch.base < report.end.get()),
                None => self.chain.clear(),
            }
            if interrupted && self.random.chance(50) {
                self.directory.stop_after(self.random.below(20) as u64);
            }
            self.buffer = if self.size >= 32_768 { self.random.pick(&[4096, 8192]) } else { 4096 };
            let (seed, fast) = (self.random.next(), self.random.chance(50));
            let how = recover(self.size, seed).verify(how().fast(fast));
            match ReferenceWriter::open(&self.directory, how, self.buffer) {
                Ok(mut writer) => {
                    // Until then, what a kill left may still vanish.
                    self.trims = vec![writer.opened().manifest().trim];
                    let made = if self.random.chance(60) { writer.make_whole() } else { Ok(()) };
                    self.writer = Some(writer);
                    if made.is_err() || self.directory.is_stopped() {
                        self.stop(true);
                        continue;
                    }
                    return Ok(());
                }
                Err(OpenError::Io { .. }) => self.figures.interrupted += 1,
                Err(error) => return Err(format!("opening a legal image: {error:?}")),
            }
            let power = self.random.chance(60);
            self.stop(power);
        }
    }

    /// A copy of the directory and this one diverge.
    pub(crate) fn fork_away(&mut self) -> Check {
        let other = self.directory.fork();
        let how = recover(self.size, self.random.next()).verify(how());
        let Ok(mut writer) = ReferenceWriter::open(&other, how, 4096) else {
            return Err("the fork does not open".into());
        };
        for _ in 0..5 {
            let mut batch = writer.batch();
            batch.record(3, b"of the copy");
            writer.submit(batch, false, false).map_err(|error| error.to_string())?;
        }
        writer.settle().map_err(|error| error.to_string())?;
        self.fork = Some(other.contents());
        Ok(())
    }
}

pub(crate) fn recover(size: u64, seed: u64) -> Recover {
    Recover::new().segment_size(size).seed(seed).verify(how())
}
