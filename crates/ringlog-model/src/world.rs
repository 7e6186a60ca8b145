//! A log, its disk, and what must hold: the oracle.

use crate::choose::Choose;
use crate::disk::{Crash, Disk, Image, Name, Step};
use crate::flaw::Flaw;
use crate::format::{SECTORS, Sector, Table, own_sum, sum};
use crate::log::{Design, Judged, Log, Submitted, Verdict, judge};

#[derive(Clone)]
struct Batch {
    base: u64,
    next: u64,
    sectors: Vec<Sector>,
    /// What stood there before.
    under: Vec<Sector>,
    /// What was durable when it was taken for flushing.
    watermark: u64,
    truncates: bool,
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
    /// Writes and syncs that failed.
    pub failures: u64,
}

macro_rules! note {
    ($w:expr, $($t:tt)*) => { if $w.keep_trace { let s = format!($($t)*); $w.trace.push(s); } };
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

    // ------------------------------------------------------------ the oracle

    /// What was accepted is exactly what was submitted there: nothing that was cut, trimmed or never submitted.
    fn check_content(&self, j: &Judged, old_manifest: bool) -> Check {
        let Some(first) = j.accepted.first() else { return Ok(()) };
        let Some(from) = self.truth.chain.iter().position(|b| b.base == first.head.address) else {
            return Err(self.fail("b", format!("accepted at {}: no batch is there", first.head.address)));
        };
        for (n, a) in j.accepted.iter().enumerate() {
            match self.truth.chain.get(from + n) {
                Some(b) if b.base == a.head.address && b.sectors == a.sectors && b.next == a.next => {}
                Some(b) => {
                    return Err(self.fail(
                        "b",
                        format!(
                            "accepted at {} {:?}, but it was {} {:?}",
                            a.head.address, a.sectors[0], b.base, b.sectors[0]
                        ),
                    ));
                }
                None => {
                    return Err(
                        self.fail("b", format!("accepted at {}: behind the end {:?}", a.head.address, a.sectors[0]))
                    );
                }
            }
        }
        let trim = j.manifest.as_ref().unwrap().trim;
        let end = j.accepted.last().map_or(0, |last| last.next);
        let within = |b: &&Batch| b.base >= first.head.address.max(trim) && b.base < end;
        let is_shown = |b: &&Batch| !b.truncates && b.void_by.iter().all(|&by| by >= end);
        let expected: Vec<u64> = self.truth.chain.iter().filter(within).filter(is_shown).map(|b| b.base).collect();
        let shown = j.shown(&self.d);
        if shown != expected {
            return Err(self.fail("b", format!("replay shows {shown:?} instead of {expected:?}")));
        }
        if !old_manifest && !self.truth.trims.contains(&trim) {
            return Err(self.fail("b", format!("trimmed to one of {:?}, recovered {trim}", self.truth.trims)));
        }
        Ok(())
    }

    /// After a legal crash.
    fn check_legal(&self, j: &Judged, f: &mut Figures) -> Check {
        match j.verdict {
            Verdict::Fresh => {
                if self.truth.acknowledged > 0 {
                    return Err(self.fail("a", "the log is gone".into()));
                }
            }
            Verdict::End { at, .. } => {
                self.check_content(j, false)?;
                if at < self.truth.acknowledged {
                    return Err(
                        self.fail("a", format!("acknowledged to {}, recovered to {at}", self.truth.acknowledged))
                    );
                }
            }
            ref v => return Err(self.fail("c", format!("a legal crash, judged {v:?}"))),
        }
        f.fast_checks += 1;
        let fast = self.judge(true);
        if fast.verdict != j.verdict || fast.number != j.number || fast.previous != j.previous {
            return Err(self
                .fail("fast", format!("{:?} {} instead of {:?} {}", fast.verdict, fast.number, j.verdict, j.number)));
        }
        f.fast_jumps += u64::from(fast.accepted.len() < j.accepted.len());
        Ok(())
    }

    /// What is below the highest promise that is still there, and no longer as it was.
    fn must_be_damage(&self, image: &Image, j: &Judged, newest_sequence: u64) -> Option<(u64, u64)> {
        let m = j.manifest.as_ref()?;
        let mut promised = 0;
        if m.sequence == newest_sequence {
            promised = m.known_durable.max(m.clean.unwrap_or(0));
        }
        for b in &self.truth.chain {
            if let (Some([Sector::First { head, .. }, _]), Sector::First { head: was, .. }) =
                (self.d.block(image, b.base), b.sectors[0])
            {
                if head == was && b.base >= m.trim {
                    promised = promised.max(b.watermark);
                }
            }
        }
        for b in &self.truth.chain {
            if b.base >= m.trim && b.base < promised {
                let there = (0..(b.sectors.len() / SECTORS) as u64).all(|n| {
                    let was = &b.sectors[n as usize * SECTORS..][..SECTORS];
                    self.d.block(image, b.base + n).is_some_and(|s| s == was)
                });
                if !there {
                    return Some((b.base, promised));
                }
            }
        }
        None
    }

    // ------------------------------------------------------------ what happens

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

    fn submit(
        &mut self,
        blocks: u64,
        roll: bool,
        truncates: Option<u64>,
        choose: &mut Choose,
        f: &mut Figures,
    ) -> Step<()> {
        let watermark = self.log.as_ref().unwrap().durable;
        let s = self.log.as_mut().unwrap().submit(&mut self.disk, blocks, roll, truncates, choose)?;
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
        self.append_truth(s, under, watermark, truncates);
        f.truncations += u64::from(truncates.is_some());
        Ok(())
    }

    fn append_truth(&mut self, s: Submitted, under: Vec<Sector>, watermark: u64, truncates: Option<u64>) {
        let Submitted { base, next, sectors } = s;
        for batch in self.truth.chain.iter_mut().filter(|b| truncates.is_some_and(|from| b.base >= from)) {
            batch.void_by.push(base);
        }
        let truncates = truncates.is_some();
        self.truth.chain.push(Batch { base, next, sectors, under, watermark, truncates, void_by: Vec::new() });
    }

    fn work(&mut self, choose: &mut Choose, f: &mut Figures) -> Step<()> {
        let log = self.log.as_mut().unwrap();
        let end = (log.next / self.d.segment + 1) * self.d.segment;
        let room = (end - log.next).min(self.buffer);
        if log.is_tight() {
            // An empty batch, which leads on; a log that has failed takes none.
            return if log.has_failed() { Ok(()) } else { self.submit(1, false, None, choose, f) };
        }
        match choose.pick(14) {
            0..=4 => {
                if log.flights.len() < 3 && !log.has_failed() {
                    let blocks = 1 + choose.pick(room as usize) as u64;
                    let roll = choose.percent(8);
                    let trim = log.trim_point();
                    let from: Vec<u64> = self.truth.chain.iter().map(|b| b.base).filter(|&b| b >= trim).collect();
                    let truncates = (!from.is_empty() && choose.percent(15)).then(|| from[choose.pick(from.len())]);
                    self.submit(blocks, roll, truncates, choose, f)?;
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
                let to: Vec<u64> = self.truth.chain.iter().map(|b| b.base).filter(|&b| b > low && b < limit).collect();
                if !to.is_empty() && choose.percent(60) {
                    let to = to[choose.pick(to.len())];
                    note!(self, "trim {to}");
                    self.truth.trims.push(to);
                    f.trims += 1;
                    self.truth.manifest_settled = false;
                    log.trim(&mut self.disk, to, choose)?;
                    self.truth.manifest_settled = true;
                    self.truth.trims = vec![to];
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
                self.submit(1, false, None, choose, f)?; // an empty batch, which proves the one before
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
        let log = Log::open(&mut self.disk, self.d, j, self.buffer, salt, self.bodies, aside, choose)?;
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

    // ------------------------------------------------------------ damage

    /// One damage, or two; the verdict is checked. Returns the world in which the rest was set aside, or a tail was lost
    /// unprovably.
    fn damaged(
        mut self,
        fork: Option<&Image>,
        choose: &mut Choose,
        f: &mut Figures,
    ) -> Result<Option<World>, Violation> {
        let before = self.judge(false);
        let Some(m) = before.manifest.clone() else { return Ok(None) };
        // Only what a legal crash has left, with its own verdict right.
        self.check_legal(&before, f)?;
        let Verdict::End { at: end, .. } = before.verdict else { return Ok(None) };
        let clean_image = self.disk.stable.clone();
        // A crash between the two writes of an update leaves two slots that differ, and nothing relies on that update.
        let is_settled = slot_sequences(&self.disk) == Some((m.sequence, m.sequence)) || self.truth.manifest_settled;
        let times = 1 + usize::from(choose.percent(25));
        let mut slots_hit = 0;
        let mut missing_only: Option<u64> = None;
        let mut foreign_history = false;
        for _ in 0..times {
            let what = self.one_damage(fork, end, choose, &mut slots_hit, &mut foreign_history);
            note!(self, "damage: {what}");
            missing_only = what.strip_prefix("missing segment ").filter(|_| times == 1).and_then(|k| k.parse().ok());
        }
        self.disk.damage_is_past(&clean_image);
        self.disk.seen = self.disk.stable.clone();
        f.damaged_images += 1;
        let mut j = self.judge(false);
        let old_manifest = j.manifest.as_ref().is_some_and(|n| n.sequence != m.sequence);
        if slots_hit < 2 && is_settled && j.manifest.as_ref() != Some(&m) {
            return Err(self.fail("d", format!("one slot was damaged: {m:?} became {:?}", j.manifest)));
        }
        let damaged = matches!(j.verdict, Verdict::Damaged { .. } | Verdict::BadManifest);
        f.judged_damaged += u64::from(damaged);
        // (b) holds whatever was damaged. Both slots replaced by older ones: what was trimmed since may appear again.
        if j.manifest.is_some() {
            self.check_content(&j, old_manifest)?;
        }
        if let Some((at, promised)) = self.must_be_damage(&self.disk.seen, &j, m.sequence) {
            f.had_to_be_damaged += 1;
            if !damaged {
                return Err(self.fail(
                    "d",
                    format!("{at} is damaged, and a promise of {promised} is there; judged {:?}", j.verdict),
                ));
            }
        }
        // A segment that held something acknowledged is gone: known, even if no promise is left.
        if let Some(k) = missing_only {
            let held =
                |b: &Batch| self.d.segment_of(b.base) == k && b.base < self.truth.acknowledged && b.base >= m.trim;
            if self.truth.chain.iter().any(held) && !damaged {
                return Err(self.fail("d", format!("segment {k} is missing; judged {:?}", j.verdict)));
            }
        }
        // No false alarm: nothing of the log was touched, so nothing changes.
        let touched = self.touched(&clean_image, end) || slots_hit > 0 || foreign_history;
        if !touched && j.verdict != before.verdict {
            return Err(
                self.fail("c", format!("nothing of the log was damaged; {:?} became {:?}", before.verdict, j.verdict))
            );
        }
        // Fast open never gives what full open does not.
        let fast = self.judge(true);
        // (A whole MANIFEST that is older than the log is noticed only by reading the epochs behind it.)
        if fast.manifest.is_some() && !old_manifest {
            self.check_content(&fast, old_manifest)?;
            if let (Verdict::End { at: x, .. }, Verdict::End { at: y, .. }) = (&fast.verdict, &j.verdict) {
                if x != y {
                    return Err(self.fail("fast", format!("end {x} instead of {y}")));
                }
            }
            if let (Verdict::End { .. }, Verdict::Damaged { at, .. }) = (&fast.verdict, &j.verdict) {
                if *at >= fast.from {
                    return Err(self.fail("fast", format!("does not see damage at {at}")));
                }
            }
        }
        match j.verdict {
            Verdict::End { at, .. } if !old_manifest => {
                if at < self.truth.acknowledged {
                    f.unprovable += 1;
                    // Only batches that no surviving promise covers: `must_be_damage` has checked that.
                }
                self.truth.acknowledged = self.truth.acknowledged.min(at);
                self.cut_truth(at, f);
                Ok(Some(self))
            }
            Verdict::Damaged { at, .. } if !old_manifest && at >= j.manifest.as_ref().unwrap().trim => {
                f.set_aside += 1;
                self.disk.fuse = if choose.percent(30) { 1 + choose.pick(16) as u32 } else { 0 };
                while self.open(&j, true, choose).is_err() {
                    // Stopped half way: either it is still damage at the same place, or all of it is done.
                    f.crashes_in_recovery += 1;
                    let power = choose.percent(60);
                    self.stop(power, choose, f);
                    let again = self.judge(false);
                    match again.verdict {
                        Verdict::Damaged { at: x, .. } if x == at => {}
                        Verdict::End { at: x, .. }
                            if x == at && again.manifest.as_ref().is_some_and(|n| n.sequence > m.sequence) =>
                        {
                            self.truth.acknowledged = at;
                            self.cut_truth(at, f);
                            if self.open(&again, false, choose).is_err() {
                                unreachable!("there is no fuse");
                            }
                            self.truth.trims = vec![again.manifest.as_ref().map_or(0, |m| m.trim)];
                            self.stop(true, choose, f);
                            return Ok(Some(self));
                        }
                        v => {
                            return Err(self.fail(
                                "d",
                                format!("setting aside {:?} was interrupted, and now it is {v:?}", j.verdict),
                            ));
                        }
                    }
                    self.disk.fuse = 0;
                    j = again;
                }
                self.disk.fuse = 0;
                self.truth.acknowledged = at;
                self.cut_truth(at, f);
                let ops = 1 + choose.pick(15);
                let _ = self.usage(ops, choose, f);
                let power = choose.percent(70);
                self.stop(power, choose, f);
                Ok(Some(self))
            }
            _ => Ok(None),
        }
    }

    fn touched(&self, clean: &Image, end: u64) -> bool {
        let mut a = self.truth.chain.iter().map(|b| b.base).min().unwrap_or(0) / self.d.segment * self.d.segment;
        while a < end.max(self.truth.chain.last().map_or(0, |b| b.next)) + self.d.segment {
            if self.d.block(clean, a) != self.d.block(&self.disk.seen, a) {
                return true;
            }
            if clean.names.contains_key(&Name::Segment(a / self.d.segment))
                != self.disk.seen.names.contains_key(&Name::Segment(a / self.d.segment))
            {
                return true;
            }
            a += 1;
        }
        false
    }

    fn one_damage(
        &mut self,
        fork: Option<&Image>,
        end: u64,
        choose: &mut Choose,
        slots_hit: &mut u32,
        foreign: &mut bool,
    ) -> String {
        let d = self.d;
        let segments: Vec<u64> = self
            .disk
            .stable
            .names
            .keys()
            .filter_map(|n| if let Name::Segment(k) = n { Some(*k) } else { None })
            .collect();
        if segments.is_empty() {
            return "none".into();
        }
        let low = segments[0] * d.segment;
        let span = end.max(low + 1) - low + 3;
        let address = low + choose.pick(span as usize) as u64;
        let batch = if self.truth.chain.is_empty() {
            None
        } else {
            Some(self.truth.chain[choose.pick(self.truth.chain.len())].clone())
        };
        let (name, at) = d.place(address);
        let image = &mut self.disk.stable;
        let file = image.names.get(&name).copied();
        let older = |past: &[(usize, usize, Sector)], file: usize, at: usize, now: Sector, choose: &mut Choose| {
            let mut all: Vec<Sector> =
                past.iter().filter(|p| p.0 == file && p.1 == at && p.2 != now).map(|p| p.2).collect();
            all.push(Sector::Zero);
            all[choose.pick(all.len())]
        };
        match choose.pick(18) {
            0 | 1 => {
                let Some(file) = file else { return "none".into() };
                let i = at + choose.pick(SECTORS);
                let new = match image.read(name, i).unwrap() {
                    Sector::First { mut head, body, truncates } if choose.percent(50) => {
                        head.ok = false;
                        Sector::First { head, body, truncates }
                    }
                    Sector::First { head, truncates, .. } => Sector::First { head, body: 999_999, truncates },
                    Sector::Last { body, mut table } if choose.percent(50) => {
                        table.sums[0] ^= 1;
                        Sector::Last { body, table }
                    }
                    _ => Sector::Junk(choose.pick(1000) as u32),
                };
                image.put(file, i, new);
                format!("bit in {address} sector {i}")
            }
            2 => {
                let Some(file) = file else { return "none".into() };
                let i = at + choose.pick(SECTORS);
                image.put(file, i, Sector::Zero);
                format!("zero sector in {address}")
            }
            3 => {
                let Some(file) = file else { return "none".into() };
                for i in 0..SECTORS {
                    image.put(file, at + i, Sector::Zero);
                }
                format!("zero block {address}")
            }
            4 | 5 => {
                let Some(file) = file else { return "none".into() };
                let i = at + choose.pick(SECTORS);
                let now = image.read(name, i).unwrap();
                let old = older(&self.disk.past, file, i, now, choose);
                image.put(file, i, old);
                format!("stale sector in {address}: {old:?}")
            }
            6 | 7 => {
                // A write that never got there: all of what stood before.
                let Some(b) = batch else { return "none".into() };
                for n in 0..(b.sectors.len() / SECTORS) as u64 {
                    let (name, at) = d.place(b.base + n);
                    let Some(&file) = image.names.get(&name) else { continue };
                    for i in 0..SECTORS {
                        let n = n as usize * SECTORS + i;
                        // If it is there at all.
                        if image.read(name, at + i) != Some(b.sectors[n]) {
                            continue;
                        }
                        let old = b.under[n];
                        image.put(file, at + i, old);
                    }
                }
                format!("lost write {}", b.base)
            }
            8 => {
                // A write that went elsewhere; what should have been there is there, or not.
                let Some(b) = batch else { return "none".into() };
                let lost = choose.percent(50);
                for n in 0..(b.sectors.len() / SECTORS) as u64 {
                    let (to, at) = d.place(address + n);
                    let (from, from_at) = d.place(b.base + n);
                    for i in 0..SECTORS {
                        if let Some(&file) = image.names.get(&to) {
                            image.put(file, at + i, b.sectors[n as usize * SECTORS + i]);
                        }
                        if let (true, Some(&file)) = (lost && b.base != address, image.names.get(&from)) {
                            let old = image.read(from, from_at + i).unwrap();
                            if old == b.sectors[n as usize * SECTORS + i] {
                                image.put(file, from_at + i, Sector::Zero);
                            }
                        }
                    }
                }
                format!("misdirected write of {} to {address}", b.base)
            }
            9 | 10 => {
                let other = low + choose.pick(span as usize) as u64;
                let (to, to_at) = d.place(other);
                let (Some(file), Some(&to_file)) = (file, image.names.get(&to)) else { return "none".into() };
                for i in 0..SECTORS {
                    let (x, y) = (image.read(name, at + i).unwrap(), image.read(to, to_at + i).unwrap());
                    image.put(file, at + i, y);
                    image.put(to_file, to_at + i, x);
                }
                format!("swapped {address} and {other}")
            }
            11 => {
                let k = segments[choose.pick(segments.len())];
                image.names.remove(&Name::Segment(k));
                format!("missing segment {k}")
            }
            12 => {
                let k = segments[choose.pick(segments.len())];
                let to = segments[0] + choose.pick(segments.len() + 2) as u64;
                let copy = image.files[image.names[&Name::Segment(k)]].clone();
                image.files.push(copy);
                self.disk.seen.files.push(Vec::new());
                image.names.insert(Name::Segment(to), image.files.len() - 1);
                format!("segment {k} also as {to}")
            }
            13 => {
                // Another log's, otherwise the same.
                let k = segments[choose.pick(segments.len())];
                let mut copy = image.files[image.names[&Name::Segment(k)]].clone();
                for s in &mut copy {
                    if let Sector::First { head, body, .. } = s {
                        head.log = 77;
                        *body += 500_000;
                    }
                    if let Sector::Last { body, .. } = s {
                        *body += 500_000;
                    }
                }
                // Its sums are right.
                let mut i = SECTORS;
                while i + 1 < copy.len() {
                    if let Sector::First { head, .. } = copy[i] {
                        let n = head.blocks as usize * SECTORS;
                        if n > 0 && i + n <= copy.len() {
                            resum(&d, &mut copy[i..i + n]);
                        }
                    }
                    i += SECTORS;
                }
                *foreign = true;
                image.files.push(copy);
                self.disk.seen.files.push(Vec::new());
                image.names.insert(Name::Segment(k), image.files.len() - 1);
                format!("foreign segment {k}")
            }
            14 => {
                let (Some(other), false) = (fork, d.epochs < 8) else { return "none".into() };
                let k = segments[choose.pick(segments.len())];
                let Some(&file) = other.names.get(&Name::Segment(k)) else { return "none".into() };
                *foreign = true;
                image.files.push(other.files[file].clone());
                self.disk.seen.files.push(Vec::new());
                image.names.insert(Name::Segment(k), image.files.len() - 1);
                format!("segment {k} of a copy that went another way")
            }
            15 => {
                // A slot, or both: bad, or as they were earlier.
                let Some(&file) = image.names.get(&Name::Manifest) else { return "none".into() };
                let both = choose.percent(30);
                let first = choose.pick(2);
                let kind = choose.pick(3);
                let old = self.disk.manifests.len();
                let old = choose.pick(old) as u32;
                for n in [first, 1 - first] {
                    if n == first || both {
                        *slots_hit += 1;
                        if kind == 0 {
                            image.put(file, n * SECTORS + choose.pick(SECTORS), Sector::Junk(1));
                        } else {
                            // As it was earlier.
                            let seq = self.disk.manifests[old as usize].sequence;
                            let now = (0..2)
                                .filter_map(|n| match image.read(Name::Manifest, n * SECTORS) {
                                    Some(Sector::Slot(i)) => Some(self.disk.manifests[i as usize].sequence),
                                    _ => None,
                                })
                                .max()
                                .unwrap_or(0);
                            if seq >= now {
                                return "none".into();
                            }
                            image.put(file, n * SECTORS, Sector::Slot(old));
                            image.put(file, n * SECTORS + 1, Sector::SlotRest(old));
                        }
                    }
                }
                format!("slots of MANIFEST: {} kind {kind}", if both { "both" } else { "one" })
            }
            16 => {
                let k = segments[choose.pick(segments.len())];
                let file = &mut image.files[image.names[&Name::Segment(k)]];
                let len = choose.pick(file.len() + 1);
                file.truncate(len);
                format!("segment {k} cut to {len} sectors")
            }
            _ => {
                let k = segments[choose.pick(segments.len())];
                let file = image.names[&Name::Segment(k)];
                image.put(file, choose.pick(SECTORS), Sector::Junk(3));
                format!("header of segment {k}")
            }
        }
    }

    // ------------------------------------------------------------ exhaustively

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
            match Log::open(&mut self.disk, self.d, &j, 1, salt, self.bodies, false, &mut first) {
                Ok(log) => {
                    self.log = Some(log);
                    self.disk.fuse = 0;
                    note!(self, "open at {:?}", j.verdict);
                    for _ in 0..plan.batches {
                        let newest = self.truth.chain.last().map(|b| b.base);
                        let truncates = newest.filter(|_| plan.failures && choose.pick(2) == 1);
                        let s = self.log.as_mut().unwrap().submit(&mut self.disk, 1, false, truncates, &mut first);
                        let s = s.expect("there is no fuse");
                        note!(self, "submit {}", s.base);
                        self.append_truth(s, Vec::new(), 0, truncates);
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

fn slot_sequences(disk: &Disk) -> Option<(u64, u64)> {
    let read = |n: usize| match (
        disk.stable.read(Name::Manifest, n * SECTORS),
        disk.stable.read(Name::Manifest, n * SECTORS + 1),
    ) {
        (Some(Sector::Slot(a)), Some(Sector::SlotRest(b))) if a == b => Some(disk.manifests[a as usize].sequence),
        _ => None,
    };
    Some((read(0)?, read(1)?))
}

fn resum(d: &Design, sectors: &mut [Sector]) {
    let Sector::First { head, .. } = sectors[0] else { return };
    let Some(&Sector::Last { body, .. }) = sectors.last() else { return };
    let log = if d.has(Flaw::ForeignAccepted) { 0 } else { head.log };
    let seed = |a: u64| (log, head.epoch, head.salt, if d.has(Flaw::NoAddress) { 0 } else { a });
    let mut sums = [0; 4];
    for (n, block) in sectors.chunks(SECTORS).enumerate().take(4) {
        sums[n] = sum(seed(head.address + n as u64), block);
    }
    let own = own_sum(seed(head.address), sums);
    *sectors.last_mut().unwrap() = Sector::Last { body, table: Table { sums, own } };
}
