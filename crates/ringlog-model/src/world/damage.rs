//! Damage to a log that is not open, and what must be noticed of it.

use super::{Batch, Figures, Violation, World};
use crate::choose::Choose;
use crate::design::Design;
use crate::disk::{Disk, Image, Name};
use crate::flaw::Flaw;
use crate::format::{Manifest, SECTORS, Sector, Table, own_sum, sum};
use crate::recovery::Verdict;

impl World {
    /// One damage, or two; the verdict is checked. Returns the world in which the rest was set aside, or a tail was
    /// lost unprovably.
    pub(super) fn damaged(
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
        // If they are of an earlier epoch, and no header of a later one is left, everything is as it was then.
        let newest = |m: &Manifest| m.epochs.last().map(|e| e.epoch);
        let is_as_before = old_manifest && j.manifest.as_ref().and_then(newest) < newest(&m);
        if j.manifest.is_some() && !is_as_before {
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
            if let (Verdict::End { at: x, .. }, Verdict::End { at: y, .. }) = (&fast.verdict, &j.verdict)
                && x != y
            {
                return Err(self.fail("fast", format!("end {x} instead of {y}")));
            }
            if let (Verdict::End { .. }, Verdict::Damaged { at, .. }) = (&fast.verdict, &j.verdict)
                && *at >= fast.from
            {
                return Err(self.fail("fast", format!("does not see damage at {at}")));
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
                if at <= j.from {
                    // Nothing is left that knows the value.
                    self.truth.forget_values();
                }
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

    pub(super) fn touched(&self, clean: &Image, end: u64) -> bool {
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

    pub(super) fn one_damage(
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
                    Sector::First { mut head, body, record, snapshot } if choose.percent(50) => {
                        head.ok = false;
                        Sector::First { head, body, record, snapshot }
                    }
                    Sector::First { head, record, snapshot, .. } => {
                        Sector::First { head, body: 999_999, record, snapshot }
                    }
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
