//! A log, its disk, the truth about both, and what happens to them.

/// Adds a line to the trace, if it is kept.
macro_rules! note {
    ($w:expr, $($t:tt)*) => { if $w.keep_trace { let s = format!($($t)*); $w.trace.push(s); } };
}

mod damage;
mod oracle;

use crate::choose::Choose;
use crate::design::Design;
use crate::disk::{Crash, Disk, Step};
use crate::flaw::Flaw;
use crate::format::{Record, SECTORS, Sector};
use crate::log::{Log, Opening, Submitted};
use crate::recovery::{Judged, Verdict, judge};

#[derive(Clone)]
struct Batch {
    base: u64,
    next: u64,
    sectors: Vec<Sector>,
    /// What stood there before.
    under: Vec<Sector>,
    /// What was durable when it was taken for flushing.
    watermark: u64,
    is_data: bool,
    /// What it has made the named value.
    value: Option<u32>,
    /// The truncations that have made it void.
    void_by: Vec<u64>,
}

/// What was submitted and not thrown away since, and what of it was acknowledged.
#[derive(Clone, Default)]
struct Truth {
    chain: Vec<Batch>,
    acknowledged: u64,
    /// The trim point is one of these: the last that was settled, or one that was under way.
    trims: Vec<u64>,
    salts: Vec<(u32, u32)>,
    /// Whether the last update of MANIFEST has come to its end, so that it was acted upon.
    manifest_settled: bool,
}

impl Truth {
    /// The named value is lost, as if it had never been set.
    fn forget_values(&mut self) {
        self.chain.iter_mut().for_each(|batch| batch.value = None);
    }
}

#[derive(Clone)]
pub(crate) struct World {
    d: Design,
    disk: Disk,
    truth: Truth,
    log: Option<Log>,
    bodies: u32,
    buffer: u64,
    trace: Vec<String>,
    keep_trace: bool,
}

/// A rule that was broken.
#[derive(Debug)]
pub struct Violation {
    /// Its name in the table of the crate.
    pub rule: &'static str,
    /// What was found, and what was expected.
    pub what: String,
    /// The steps that led there, if they were kept.
    pub trace: Vec<String>,
}
type Check = Result<(), Violation>;

/// What has happened: that a run met what it was to meet.
#[derive(Default, Clone, Debug)]
pub struct Figures {
    /// Scenarios, or systematic paths.
    pub scenarios: u64,
    /// Power cuts and kills.
    pub crashes: u64,
    /// Of these, kills.
    pub kills: u64,
    /// Crashes while the log was being opened.
    pub crashes_in_recovery: u64,
    /// Openings after a crash.
    pub torn: u64,
    /// Batches that were submitted, never acknowledged, and not there.
    pub batches_cut: u64,
    /// Images with one damage or two.
    pub damaged_images: u64,
    /// Of these, those whose verdict was damage.
    pub judged_damaged: u64,
    /// Of these, those in which a promise survived above the damage.
    pub had_to_be_damaged: u64,
    /// Damage to what was acknowledged that no promise was left to prove.
    pub unprovable: u64,
    /// Damage that was set aside.
    pub set_aside: u64,
    /// Fast opens that were compared.
    pub fast_checks: u64,
    /// Of these, those that left something out.
    pub fast_jumps: u64,
    /// Batches that were submitted.
    pub batches: u64,
    /// Trims.
    pub trims: u64,
    /// Segments of the longest log.
    pub segments: u64,
    /// Truncations.
    pub truncations: u64,
    /// Changes of the named value.
    pub values: u64,
    /// Writes and syncs that failed.
    pub failures: u64,
}

impl World {
    pub(crate) fn new(d: Design, buffer: u64, keep_trace: bool) -> World {
        let truth = Truth { trims: vec![0], ..Truth::default() };
        World { d, disk: Disk::default(), truth, log: None, bodies: 0, buffer, trace: Vec::new(), keep_trace }
    }

    fn fail(&self, rule: &'static str, what: String) -> Violation {
        Violation { rule, what, trace: self.trace.clone() }
    }

    fn judge(&self, fast: bool) -> Judged {
        judge(&self.d, &self.disk.seen, &self.disk.manifests, self.buffer, fast)
    }

    fn cut_truth(&mut self, at: u64, f: &mut Figures) {
        let before = self.truth.chain.len();
        self.truth.chain.retain(|b| b.base < at);
        for batch in &mut self.truth.chain {
            batch.void_by.retain(|&by| by < at);
        }
        f.batches_cut += (before - self.truth.chain.len()) as u64;
    }

    fn acknowledge(&mut self) {
        if let Some(log) = &self.log {
            self.truth.acknowledged = self.truth.acknowledged.max(log.durable);
        }
    }

    fn submit(&mut self, blocks: u64, roll: bool, record: Record, choose: &mut Choose, f: &mut Figures) -> Step<()> {
        let watermark = self.log.as_ref().unwrap().durable;
        let s = self.log.as_mut().unwrap().submit(&mut self.disk, blocks, roll, record, choose)?;
        note!(self, "submit [{}..{}) next {} {:?}", s.base, s.base + blocks, s.next, s.sectors[0]);
        f.batches += 1;
        f.segments = f.segments.max(s.base / self.d.segment + 1);
        let under = (0..s.sectors.len())
            .map(|n| {
                let (name, at) = self.d.place(s.base + (n / SECTORS) as u64);
                let file = &self.disk.stable.files[self.disk.seen.names[&name]];
                file.get(at + n % SECTORS).copied().unwrap_or(Sector::Zero)
            })
            .collect();
        self.append_truth(s, under, watermark, record);
        f.truncations += u64::from(matches!(record, Record::Truncation(_)));
        f.values += u64::from(matches!(record, Record::Value(_)));
        Ok(())
    }

    fn append_truth(&mut self, s: Submitted, under: Vec<Sector>, watermark: u64, record: Record) {
        let Submitted { base, next, sectors } = s;
        for batch in
            self.truth.chain.iter_mut().filter(|b| matches!(record, Record::Truncation(from) if b.base >= from))
        {
            batch.void_by.push(base);
        }
        let is_data = record == Record::Data;
        let value = if let Record::Value(value) = record { Some(value) } else { None };
        let void_by = Vec::new();
        self.truth.chain.push(Batch { base, next, sectors, under, watermark, is_data, value, void_by });
    }

    fn work(&mut self, choose: &mut Choose, f: &mut Figures) -> Step<()> {
        let log = self.log.as_mut().unwrap();
        let end = (log.next / self.d.segment + 1) * self.d.segment;
        let room = (end - log.next).min(self.buffer);
        if log.is_tight() {
            // An empty batch, which leads on; a log that has failed takes none.
            return if log.has_failed() { Ok(()) } else { self.submit(1, false, Record::Data, choose, f) };
        }
        match choose.pick(14) {
            0..=4 => {
                if log.flights.len() < 3 && !log.has_failed() {
                    let blocks = 1 + choose.pick(room as usize) as u64;
                    let roll = choose.percent(8);
                    let trim = log.trim_point();
                    let from: Vec<u64> = self.truth.chain.iter().map(|b| b.base).filter(|&b| b >= trim).collect();
                    let value = log.bodies() + 1;
                    let record = match choose.pick(20) {
                        0..=2 if !from.is_empty() => Record::Truncation(from[choose.pick(from.len())]),
                        3..=5 => Record::Value(value),
                        _ => Record::Data,
                    };
                    self.submit(blocks, roll, record, choose, f)?;
                }
            }
            5..=8 => {
                let open: Vec<usize> = (0..log.flights.len()).filter(|&n| !log.flights[n].written).collect();
                if !open.is_empty() && !log.has_failed() {
                    let n = open[choose.pick(open.len())];
                    if choose.percent(2) {
                        note!(self, "write {} fails", log.flights[n].base);
                        log.fail_write(&mut self.disk, n, choose);
                        f.failures += 1;
                        return Ok(());
                    }
                    note!(self, "complete {}", log.flights[n].base);
                    log.complete(&mut self.disk, n);
                }
            }
            9 => {
                log.sync_begin(&self.disk);
                note!(self, "sync begins");
            }
            10 | 11 if choose.percent(3) => {
                note!(self, "sync fails");
                log.fail_sync(&mut self.disk, choose);
                f.failures += u64::from(log.has_failed());
            }
            10 | 11 => {
                log.sync_step(&mut self.disk)?;
                note!(self, "sync step: durable {}", log.durable);
            }
            12 => {
                if choose.percent(40) {
                    log.prepare_next(&mut self.disk, choose)?;
                    note!(self, "prepared");
                }
            }
            _ => {
                let limit = if self.d.has(Flaw::TrimBeyondDurable) { u64::MAX } else { log.durable };
                let low = log.trim_point();
                let to: Vec<u64> = self.truth.chain.iter().map(|b| b.base).filter(|&b| b > low && b <= limit).collect();
                if !to.is_empty() && choose.percent(60) {
                    let to = to[choose.pick(to.len())];
                    note!(self, "trim {to}");
                    self.truth.trims.push(to);
                    f.trims += 1;
                    self.truth.manifest_settled = false;
                    log.trim(&mut self.disk, to, choose)?;
                    self.truth.manifest_settled = true;
                    self.truth.trims = vec![log.trim_point()];
                }
            }
        }
        self.acknowledge();
        Ok(())
    }

    fn usage(&mut self, ops: usize, choose: &mut Choose, f: &mut Figures) -> Step<()> {
        for _ in 0..ops {
            self.work(choose, f)?;
        }
        if choose.percent(15) {
            note!(self, "close");
            let log = self.log.as_mut().unwrap();
            log.settle(&mut self.disk)?;
            self.acknowledge();
            let log = self.log.as_ref().unwrap();
            if !log.is_tight() && !log.has_failed() {
                self.submit(1, false, Record::Data, choose, f)?; // an empty batch, which proves the one before
            }
            self.truth.manifest_settled = false;
            self.log.as_mut().unwrap().close(&mut self.disk)?;
            self.truth.manifest_settled = true;
            self.acknowledge();
        }
        Ok(())
    }

    fn open(&mut self, j: &Judged, aside: bool, choose: &mut Choose) -> Step<()> {
        self.buffer = 1 + choose.pick(self.d.segment.min(4) as usize - 1) as u64;
        let salt = choose_salt(choose, &mut self.truth.salts);
        note!(self, "open at {:?}, buffer {}, aside {aside}", j.verdict, self.buffer);
        self.truth.manifest_settled = false;
        let how = Opening { buffer: self.buffer, salt, bodies: self.bodies, aside };
        let log = Log::open(&mut self.disk, self.d, j, how, choose)?;
        self.log = Some(log);
        self.truth.manifest_settled = true;
        Ok(())
    }

    fn stop(&mut self, power: bool, choose: &mut Choose, f: &mut Figures) {
        self.disk.fuse = 0;
        if let Some(log) = self.log.take() {
            self.bodies = log.bodies();
        }
        f.crashes += 1;
        note!(self, "{} with {} pending", if power { "power cut" } else { "kill" }, self.disk.pending());
        if power {
            self.disk.power_cut(choose);
        } else {
            f.kills += 1;
            self.disk.kill(choose);
        }
        self.bodies += 1000;
    }

    /// Crashes again and again while it opens, until it has.
    fn recover(&mut self, choose: &mut Choose, f: &mut Figures) -> Check {
        loop {
            let j = self.judge(false);
            self.check_legal(&j, f)?;
            if let Verdict::End { at, .. } = j.verdict {
                f.torn += 1;
                self.cut_truth(at, f);
            }
            let trim = j.manifest.as_ref().map_or(0, |m| m.trim);
            self.disk.fuse = if choose.percent(40) { 1 + choose.pick(16) as u32 } else { 0 };
            match self.open(&j, false, choose) {
                Ok(()) => {
                    self.disk.fuse = 0;
                    self.truth.trims = vec![trim];
                    return Ok(());
                }
                Err(Crash) => {
                    f.crashes_in_recovery += 1;
                    let power = choose.percent(60);
                    self.stop(power, choose, f);
                }
            }
        }
    }

    pub(crate) fn scenario(&mut self, choose: &mut Choose, damage: bool, f: &mut Figures) -> Check {
        f.scenarios += 1;
        let rounds = 1 + choose.pick(5);
        for _ in 0..rounds {
            self.recover(choose, f)?;
            let mut fork = None;
            if damage && choose.percent(5) {
                // A copy of the directory, taken now, that goes another way.
                let mut other = self.clone();
                other.stop(true, choose, f);
                if other.judge(false).verdict != Verdict::BadManifest {
                    other.recover(choose, f)?;
                    let _ = other.usage(20, choose, f);
                    other.disk.fuse = 0;
                    other.stop(true, choose, f);
                    fork = Some(other.disk.seen.clone());
                }
                // This one goes on in an epoch of its own.
                self.stop(true, choose, f);
                self.recover(choose, f)?;
            }
            self.disk.fuse = if choose.percent(30) { 1 + choose.pick(40) as u32 } else { 0 };
            let ops = 1 + choose.pick(40);
            let _ = self.usage(ops, choose, f);
            let power = choose.percent(60);
            self.stop(power, choose, f);
            if damage && choose.percent(60) {
                if !power {
                    self.disk.power_cut(choose);
                }
                let mut keep = None;
                for _ in 0..4 {
                    if let Some(w) = self.clone().damaged(fork.as_ref(), choose, f)? {
                        keep = Some(w);
                    }
                }
                if let Some(w) = keep {
                    *self = w;
                }
            }
        }
        let j = self.judge(false);
        self.check_legal(&j, f)
    }

    /// A small log; each choice is gone through: order of completions, where it stops, which sectors and names are
    /// there.
    pub(crate) fn small(&mut self, choose: &mut Choose, plan: Plan, f: &mut Figures) -> Check {
        f.scenarios += 1;
        for _ in 0..plan.cycles {
            let j = self.judge(false);
            self.check_legal(&j, f)?;
            if let Verdict::End { at, .. } = j.verdict {
                self.cut_truth(at, f);
            }
            self.buffer = 1;
            if plan.crash_opening {
                self.disk.fuse = choose.pick(14) as u32;
            }
            let salt = choose_salt(&mut Choose::chance(self.truth.salts.len() as u64), &mut self.truth.salts);
            let mut first = Choose::chance(1);
            let how = Opening { buffer: 1, salt, bodies: self.bodies, aside: false };
            match Log::open(&mut self.disk, self.d, &j, how, &mut first) {
                Ok(log) => {
                    self.log = Some(log);
                    self.disk.fuse = 0;
                    note!(self, "open at {:?}", j.verdict);
                    for _ in 0..plan.batches {
                        let newest = self.truth.chain.last().map(|b| b.base);
                        let truncation = newest.filter(|_| plan.failures && choose.pick(2) == 1);
                        let record = truncation.map_or(Record::Data, Record::Truncation);
                        let s = self.log.as_mut().unwrap().submit(&mut self.disk, 1, false, record, &mut first);
                        let s = s.expect("there is no fuse");
                        note!(self, "submit {}", s.base);
                        self.append_truth(s, Vec::new(), 0, record);
                        f.batches += 1;
                        let log = self.log.as_mut().unwrap();
                        // None comes back, the newest, or the oldest, which is synced; or it fails, or the sync does.
                        let ends = choose.pick(if plan.failures { 5 } else { 3 });
                        let open: Vec<usize> = (0..log.flights.len()).filter(|&n| !log.flights[n].written).collect();
                        match (ends, open.first(), open.last()) {
                            (3, Some(&n), _) => log.fail_write(&mut self.disk, n, choose),
                            (1, _, Some(&n)) | (2 | 4, Some(&n), _) => log.complete(&mut self.disk, n),
                            _ => {}
                        }
                        if ends == 2 {
                            log.sync_begin(&self.disk);
                            let _ = log.sync_step(&mut self.disk);
                        }
                        if ends == 4 {
                            log.sync_begin(&self.disk);
                            log.fail_sync(&mut self.disk, choose);
                        }
                        note!(self, "end {ends}: durable {}", log.durable);
                        self.acknowledge();
                        if self.log.as_ref().unwrap().has_failed() {
                            f.failures += 1;
                            break;
                        }
                    }
                }
                Err(Crash) => f.crashes_in_recovery += 1,
            }
            let power = !plan.kills || choose.pick(2) == 0;
            self.stop(power, choose, f);
        }
        let j = self.judge(false);
        self.check_legal(&j, f)
    }
}

/// What the paths of a systematic run have.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Openings, each with a crash behind it.
    pub cycles: u32,
    /// Batches in each of them.
    pub batches: u32,
    /// Whether opening may crash, too.
    pub crash_opening: bool,
    /// Whether there are kills beside power cuts.
    pub kills: bool,
    /// Whether writes and syncs fail, and batches are truncations.
    pub failures: bool,
}

fn choose_salt(choose: &mut Choose, salts: &mut Vec<(u32, u32)>) -> u32 {
    // Never the same twice, in whatever copy.
    let salt = match choose {
        Choose::Chance(_) => choose.pick(1 << 30) as u32,
        Choose::All { .. } => salts.len() as u32,
    };
    salts.push((salt, 0));
    salt
}
