//! The log: opening and writing. It may be stopped at each step.

use std::collections::{BTreeMap, VecDeque};

use crate::choose::Choose;
use crate::design::Design;
use crate::disk::{Disk, Name, Step};
use crate::flaw::Flaw;
use crate::format::{BatchHeader, Epoch, Manifest, NONE, Record, SECTORS, Sector, Table, own_sum, sum};
use crate::recovery::{Judged, Verdict, segment_head_is_good};

#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) id: u32,
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) written: bool,
    synced_write: bool,
}

/// Number, predecessor, and epoch with its salt.
type First = (u64, u64, Option<(u32, u32)>);

#[derive(Clone)]
struct Syncing {
    covers: u64,
    until: u64,
    files: VecDeque<u64>,
}

#[derive(Clone)]
pub(crate) struct Log {
    d: Design,
    manifest: Manifest,
    slot: usize,
    pub(crate) buffer: u64,
    pub(crate) next: u64,
    number: u64,
    previous: u64,
    pub(crate) durable: u64,
    pub(crate) flights: VecDeque<Flight>,
    flight_ids: u32,
    syncing: Option<Syncing>,
    /// Segments up to this one may be written to.
    ready: u64,
    /// Trimmed segments to be used again.
    pool: Vec<u64>,
    /// Each segment's first batch.
    firsts: BTreeMap<u64, First>,
    bodies: u32,
    /// The named value; and the one before, for a flaw.
    value: Option<u32>,
    value_before: Option<u32>,
    /// A write or a sync has failed: nothing is acknowledged any more.
    failed: bool,
}

/// What a submitted batch looks like, for the oracle.
pub(crate) struct Submitted {
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) sectors: Vec<Sector>,
}

fn write_slot(disk: &mut Disk, m: &Manifest, n: usize) {
    disk.manifests.push(m.clone());
    let id = disk.manifests.len() as u32 - 1;
    disk.write(Name::Manifest, n * SECTORS, Sector::Slot(id), 0);
    disk.write(Name::Manifest, n * SECTORS + 1, Sector::SlotRest(id), 0);
}

fn write_segment_head(disk: &mut Disk, d: &Design, segment: u64, before: u64) {
    disk.write(Name::Segment(segment), 0, Sector::SegmentHead { log: d.log, segment, before }, 0);
    disk.write(Name::Segment(segment), 1, Sector::SegmentRest { log: d.log, segment }, 0);
}

/// Both slots, the older one first, each synced before the other is touched.
fn write_manifest(disk: &mut Disk, d: &Design, m: &mut Manifest, newest: &mut usize) -> Step<()> {
    m.sequence += 1;
    *newest = 1 - *newest;
    write_slot(disk, m, *newest);
    disk.sync(Name::Manifest, u64::MAX)?;
    if !d.has(Flaw::ManifestOneSlot) {
        write_slot(disk, m, 1 - *newest);
        disk.sync(Name::Manifest, u64::MAX)?;
    }
    Ok(())
}

/// The first segment, before there is a MANIFEST.
fn fresh(disk: &mut Disk, d: &Design) -> Step<()> {
    if d.has(Flaw::ManifestBeforeFirst) {
        return Ok(());
    }
    if !disk.seen.names.contains_key(&Name::Segment(0)) {
        disk.create(Name::Segment(0))?;
    }
    write_segment_head(disk, d, 0, NONE);
    disk.sync(Name::Segment(0), u64::MAX)?;
    disk.sync_dir()
}

fn create(disk: &mut Disk, d: &Design, m: &Manifest) -> Step<()> {
    let name = if d.has(Flaw::ManifestInPlace) { Name::Manifest } else { Name::ManifestTmp };
    if disk.seen.names.contains_key(&name) {
        disk.unlink(name)?;
        if !d.has(Flaw::TmpNotSynced) {
            disk.sync_dir()?;
        }
    }
    disk.create(name)?;
    disk.manifests.push(m.clone());
    let id = disk.manifests.len() as u32 - 1;
    for n in 0..2 {
        disk.write(name, n * SECTORS, Sector::Slot(id), 0);
        disk.write(name, n * SECTORS + 1, Sector::SlotRest(id), 0);
    }
    disk.sync(name, u64::MAX)?;
    if name == Name::ManifestTmp {
        if !d.has(Flaw::TmpNotSynced) {
            disk.sync_dir()?;
        }
        disk.rename(name, Name::Manifest)?;
    }
    disk.sync_dir()
}

/// How a log is opened.
pub(crate) struct Opening {
    /// Blocks of the longest batch.
    pub(crate) buffer: u64,
    pub(crate) salt: u32,
    /// The last body that was written.
    pub(crate) bodies: u32,
    /// Opens also what is damaged: all from there on is given up.
    pub(crate) aside: bool,
}

impl Log {
    /// Goes on where the verdict says.
    pub(crate) fn open(disk: &mut Disk, d: Design, j: &Judged, how: Opening, choose: &mut Choose) -> Step<Self> {
        let Opening { buffer, salt, bodies, aside } = how;
        let salt = if d.has(Flaw::NoSalt) { 0 } else { salt };
        let (mut m, mut slot, at) = match j.verdict {
            Verdict::Fresh => {
                let m = Manifest {
                    sequence: 1,
                    log: d.log,
                    epochs: vec![Epoch { epoch: 1, salt, start: 0 }],
                    trim: 0,
                    first: (0, NONE),
                    first_epoch: None,
                    known_durable: 0,
                    clean: None,
                };
                fresh(disk, &d)?;
                create(disk, &d, &m)?;
                (m, 0, 0)
            }
            Verdict::End { at, .. } => (j.manifest.clone().unwrap(), j.slot, at),
            Verdict::Damaged { at, .. } if aside => (j.manifest.clone().unwrap(), j.slot, at),
            _ => unreachable!("refused"),
        };
        // After a kill, what is seen may still be in a cache.
        if !d.has(Flaw::DirNotSyncedAtOpen) {
            disk.sync_dir()?;
        }
        if !d.has(Flaw::ManifestNotSyncedAtOpen) {
            disk.sync(Name::Manifest, u64::MAX)?;
        }
        let first_segment = d.segment_of(m.trim);
        if !d.has(Flaw::AcceptedNotSynced) {
            for k in first_segment.max(d.segment_of(m.known_durable))..=d.segment_of(at) {
                disk.sync(Name::Segment(k), u64::MAX)?;
            }
        }
        let mut firsts = BTreeMap::new();
        firsts.insert(first_segment, (m.first.0, m.first.1, m.first_epoch));
        for batch in &j.accepted {
            if batch.head.address % d.segment == 0 {
                let h = &batch.head;
                firsts.insert(d.segment_of(h.address), (h.number, h.previous, Some((h.epoch, h.salt))));
            }
        }
        let mut log = Log {
            d,
            manifest: m.clone(),
            slot,
            buffer,
            next: at,
            number: j.number,
            previous: j.previous,
            durable: at,
            flights: VecDeque::new(),
            flight_ids: bodies,
            syncing: None,
            ready: 0,
            pool: Vec::new(),
            firsts,
            bodies,
            value: j.value(&d),
            value_before: None,
            failed: false,
        };
        // What is missing is made only when the decision to go on without it is durable.
        let early = !aside || d.has(Flaw::SetAsideBeforeManifest);
        let mut here = d.segment_of(at);
        let end = (here + 1) * d.segment;
        let tight = at % d.segment != 0 && at + buffer > end;
        if tight && d.has(Flaw::SkipBySize) {
            here += 1;
            log.next = end;
        }
        if early {
            log.prepare_to_begin(disk, here, tight, choose)?;
        }

        if aside && d.has(Flaw::SetAsideBeforeManifest) {
            log.set_aside(disk, here)?;
        }
        if !matches!(j.verdict, Verdict::Fresh) {
            let newest = *m.epochs.last().unwrap();
            let raise = !(d.has(Flaw::EpochNotRaised));
            if raise {
                // Epochs of which nothing is left go: empty ones, and those that are cut off as a whole.
                if d.has(Flaw::EpochsNotCut) {
                    if newest.start == log.next && m.epochs.len() > 1 {
                        m.epochs.pop();
                    }
                } else {
                    m.epochs.retain(|e| e.start < log.next);
                }
                m.epochs.push(Epoch { epoch: newest.epoch + 1, salt, start: log.next });
                if m.epochs.len() > d.epochs {
                    m.epochs.remove(0);
                }
            }
            if !(aside && d.has(Flaw::KnownNotLowered)) {
                m.known_durable = at;
            }
            m.clean = None;
            if at == first_segment * d.segment {
                m.first_epoch = None;
            }
            if d.has(Flaw::EpochNotSynced) {
                m.sequence += 1;
                slot = 1 - slot;
                write_slot(disk, &m, slot);
            } else {
                write_manifest(disk, &d, &mut m, &mut slot)?;
            }
        }
        log.manifest = m;
        log.slot = slot;
        if !early {
            log.prepare_to_begin(disk, here, tight, choose)?;
        }
        if aside && !d.has(Flaw::SetAsideBeforeManifest) {
            log.set_aside(disk, here)?;
        }
        // Leftovers: of a trim that did not come to its end, and sometimes of what was cut.
        let names: Vec<Name> = disk.seen.names.keys().copied().collect();
        for name in names {
            if let Name::Segment(k) = name
                && (k < first_segment || (k > log.ready && !aside && choose.percent(30)))
            {
                disk.unlink(name)?;
            }
        }
        Ok(log)
    }

    fn prepare_to_begin(&mut self, disk: &mut Disk, here: u64, tight: bool, choose: &mut Choose) -> Step<()> {
        self.prepare(disk, here, choose)?;
        self.ready = here;
        if tight && !self.d.has(Flaw::LastBeforeNext) && !self.d.has(Flaw::SkipBySize) {
            self.prepare_next(disk, choose)?;
        }
        Ok(())
    }

    /// An epoch begins exactly at the cut. Where a whole buffer does not fit any more, the caller submits an empty
    /// batch, which leads on to the next segment.
    pub(crate) fn is_tight(&self) -> bool {
        !self.next.is_multiple_of(self.d.segment)
            && self.next + self.buffer > (self.d.segment_of(self.next) + 1) * self.d.segment
    }

    fn set_aside(&mut self, disk: &mut Disk, here: u64) -> Step<()> {
        let names: Vec<Name> = disk.seen.names.keys().copied().collect();
        for name in names {
            if let Name::Segment(k) = name
                && k > here
                && k > self.ready
            {
                disk.rename(name, Name::Aside(k))?;
            }
        }
        Ok(())
    }

    /// Afterwards `segment` is there, durably, with a good header.
    fn prepare(&mut self, disk: &mut Disk, segment: u64, choose: &mut Choose) -> Step<()> {
        let d = self.d;
        let name = Name::Segment(segment);
        let there = disk.seen.names.contains_key(&name);
        let recycle = !self.pool.is_empty() && (!there || choose.percent(50));
        if recycle {
            let old = self.pool.remove(0);
            disk.rename(Name::Segment(old), name)?;
            write_segment_head(disk, &d, segment, NONE);
        } else if !there {
            disk.create(name)?;
            write_segment_head(disk, &d, segment, NONE);
        } else if !segment_head_is_good(&d, &disk.seen, segment) {
            write_segment_head(disk, &d, segment, NONE);
        }
        disk.sync(name, u64::MAX)?;
        if !(d.has(Flaw::DirNotSynced) || there && d.has(Flaw::DirNotSyncedAtOpen)) {
            disk.sync_dir()?;
        }
        Ok(())
    }

    pub(crate) fn prepare_next(&mut self, disk: &mut Disk, choose: &mut Choose) -> Step<()> {
        self.prepare(disk, self.ready + 1, choose)?;
        self.ready += 1;
        Ok(())
    }

    /// Seals a buffer of `blocks` and hands it to the device. `roll`: the next one begins a segment.
    ///
    /// The first batch of a segment has a snapshot: the named value as all batches before have left it.
    pub(crate) fn submit(
        &mut self,
        disk: &mut Disk,
        blocks: u64,
        roll: bool,
        record: Record,
        choose: &mut Choose,
    ) -> Step<Submitted> {
        let d = self.d;
        let base = self.next;
        let here = d.segment_of(base);
        let end = (here + 1) * d.segment;
        let after = base + blocks;
        assert!(after <= end);
        let last = roll || after + self.buffer > end;
        let needed = if last && !d.has(Flaw::LastBeforeNext) { here + 1 } else { here };
        while self.ready < needed {
            self.prepare_next(disk, choose)?;
        }
        self.bodies += 1;
        self.flight_ids += 1;
        let body = self.bodies;
        let epoch = *self.manifest.epochs.last().unwrap();
        let head = BatchHeader {
            log: d.log,
            address: base,
            number: self.number,
            epoch: epoch.epoch,
            salt: epoch.salt,
            blocks,
            durable: if d.has(Flaw::DurableTooNew) {
                after
            } else if d.has(Flaw::DurableZero) {
                0
            } else {
                self.durable
            },
            previous: self.previous,
            last,
            opens: base == epoch.start,
            ok: true,
        };
        let value = if d.has(Flaw::SnapshotStale) { self.value_before } else { self.value };
        let snapshot = (base > 0 && base.is_multiple_of(d.segment)).then_some(value);
        if let Record::Value(value) = record {
            (self.value_before, self.value) = (self.value, Some(value));
        }
        let mut sectors = vec![Sector::First { head, body, record, snapshot }];
        for _ in 1..blocks as usize * SECTORS - 1 {
            sectors.push(if choose.percent(30) { Sector::Zero } else { Sector::Middle(body) });
        }
        sectors.push(Sector::Last { body, table: Table { sums: [0; 4], own: 0 } });
        let mut sums = [0; 4];
        for (n, block) in sectors.chunks(SECTORS).enumerate() {
            sums[n] = sum(d.seed(&head, base + n as u64), block);
        }
        let own = own_sum(d.seed(&head, base), sums);
        *sectors.last_mut().unwrap() = Sector::Last { body, table: Table { sums, own } };

        if base.is_multiple_of(d.segment) {
            self.firsts.insert(here, (self.number, self.previous, Some((epoch.epoch, epoch.salt))));
            if d.has(Flaw::PredecessorEndPromises) && here > 0 {
                write_segment_head(disk, &d, here, base);
            }
        }
        for n in 0..blocks {
            let (name, at) = d.place(base + n);
            for i in 0..SECTORS {
                disk.write(name, at + i, sectors[n as usize * SECTORS + i], self.flight_ids);
            }
        }
        let next = if last { end } else { after };
        let settled = self.flights.is_empty() || d.has(Flaw::TwoSyncs);
        let synced_write = settled && self.syncing.is_none() && choose.percent(30);
        self.flights.push_back(Flight { id: self.flight_ids, base, next, written: false, synced_write });
        self.number += 1;
        self.previous = base;
        self.next = next;
        Ok(Submitted { base, next, sectors })
    }

    /// A write comes back, whichever.
    pub(crate) fn complete(&mut self, disk: &mut Disk, n: usize) {
        let flight = &mut self.flights[n];
        flight.written = true;
        let (id, synced, next) = (flight.id, flight.synced_write, flight.next);
        if synced {
            disk.settle_flight(id);
            self.advance(next);
        } else {
            disk.completed(id);
            if self.d.has(Flaw::AckWithoutSync) {
                let to = self.written();
                self.advance(to);
            }
        }
    }

    /// A write comes back with an error.
    pub(crate) fn fail_write(&mut self, disk: &mut Disk, n: usize, choose: &mut Choose) {
        disk.fail_write(self.flights[n].id, choose);
        if self.d.has(Flaw::FailedWriteCounts) {
            self.flights[n].written = true;
        } else if self.d.has(Flaw::FailedWriteSkipped) {
            self.flights.remove(n);
        } else {
            self.failed = true;
        }
    }

    /// The sync under way fails at its next file.
    pub(crate) fn fail_sync(&mut self, disk: &mut Disk, choose: &mut Choose) {
        let Some(syncing) = &self.syncing else { return };
        if let Some(&k) = syncing.files.front() {
            disk.fail_sync(Name::Segment(k), syncing.until, choose);
        }
        if !self.d.has(Flaw::FailedSyncRetried) {
            self.syncing = None;
            self.failed = true;
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    fn advance(&mut self, to: u64) {
        if self.failed {
            return;
        }
        while self.flights.front().is_some_and(|f| f.next <= to && f.written) {
            self.flights.pop_front();
        }
        self.durable = self.durable.max(to);
    }

    fn written(&self) -> u64 {
        self.flights.iter().take_while(|f| f.written).last().map_or(self.durable, |f| f.next)
    }

    pub(crate) fn sync_begin(&mut self, disk: &Disk) {
        let covers = self.written();
        if self.failed
            || self.syncing.is_some()
            || covers == self.durable
            || self.flights.iter().any(|f| f.synced_write)
        {
            return;
        }
        let mut files: VecDeque<u64> =
            self.flights.iter().take_while(|f| f.written).map(|f| self.d.segment_of(f.base)).collect();
        files.make_contiguous().sort_unstable();
        let mut only: Vec<u64> = files.into();
        only.dedup();
        if self.d.has(Flaw::OnlyNewestSynced) {
            only = only.pop().into_iter().collect();
        }
        self.syncing = Some(Syncing { covers, until: disk.now(), files: only.into() });
    }

    /// One file of the sync under way.
    pub(crate) fn sync_step(&mut self, disk: &mut Disk) -> Step<()> {
        let Some(mut syncing) = self.syncing.take() else { return Ok(()) };
        if let Some(k) = syncing.files.pop_front() {
            disk.sync(Name::Segment(k), syncing.until)?;
        }
        if syncing.files.is_empty() {
            let to = if self.d.has(Flaw::SyncCoversLater) { self.written() } else { syncing.covers };
            self.advance(to);
        } else {
            self.syncing = Some(syncing);
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, disk: &mut Disk) -> Step<()> {
        if self.failed {
            return Ok(());
        }
        while self.syncing.is_some() {
            self.sync_step(disk)?;
        }
        while let Some(n) = self.flights.iter().rposition(|f| !f.written) {
            self.complete(disk, n);
        }
        self.sync_begin(disk);
        while self.syncing.is_some() {
            self.sync_step(disk)?;
        }
        Ok(())
    }

    /// `to` is the address of a batch.
    pub(crate) fn trim(&mut self, disk: &mut Disk, to: u64, choose: &mut Choose) -> Step<()> {
        let d = self.d;
        let keep = d.segment_of(to);
        let Some(&first) = self.firsts.get(&keep) else { return Ok(()) };
        // The value that was set below is kept by the snapshot, once that is durable.
        let is_kept = keep == 0 || self.durable > keep * d.segment;
        if !is_kept && !d.has(Flaw::TrimBeforeSnapshot) && !d.has(Flaw::TrimBeyondDurable) {
            return Ok(());
        }
        let early = d.has(Flaw::RecycleBeforeTrim);
        if early {
            self.drop_segments(disk, keep, choose)?;
        }
        self.manifest.trim = to;
        self.manifest.first = (first.0, first.1);
        self.manifest.first_epoch = first.2;
        self.manifest.known_durable = self.durable;
        let base = keep * d.segment;
        while self.manifest.epochs.len() > 1 && self.manifest.epochs[1].start <= base {
            self.manifest.epochs.remove(0);
        }
        write_manifest(disk, &d, &mut self.manifest, &mut self.slot)?;
        self.firsts.retain(|&k, _| k >= keep);
        if !early {
            self.drop_segments(disk, keep, choose)?;
        }
        Ok(())
    }

    fn drop_segments(&mut self, disk: &mut Disk, keep: u64, choose: &mut Choose) -> Step<()> {
        let names: Vec<Name> = disk.seen.names.keys().copied().collect();
        for name in names {
            if let Name::Segment(k) = name
                && k < keep
                && !self.pool.contains(&k)
            {
                if choose.percent(60) {
                    self.pool.push(k);
                    if self.d.has(Flaw::RecycleBeforeTrim) {
                        self.prepare_next(disk, choose)?;
                    }
                } else {
                    disk.unlink(name)?;
                }
            }
        }
        Ok(())
    }

    /// Behind the last batch, which by now is durable.
    pub(crate) fn close(&mut self, disk: &mut Disk) -> Step<()> {
        self.settle(disk)?;
        if self.failed && !self.d.has(Flaw::ClosedAfterFailure) {
            return Ok(());
        }
        self.manifest.known_durable = self.durable;
        self.manifest.clean = Some(self.next);
        write_manifest(disk, &self.d, &mut self.manifest, &mut self.slot)
    }

    pub(crate) fn trim_point(&self) -> u64 {
        self.manifest.trim
    }
    pub(crate) fn bodies(&self) -> u32 {
        self.bodies
    }
}
