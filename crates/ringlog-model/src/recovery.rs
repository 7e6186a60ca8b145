//! The verdict on what is on a disk. It only reads.

use crate::design::Design;
use crate::disk::{Image, Name};
use crate::flaw::Flaw;
use crate::format::{BatchHeader, Epoch, Manifest, NONE, Record, SECTORS, Sector, own_sum, sum};

#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) head: BatchHeader,
    pub(crate) next: u64,
    pub(crate) sectors: Vec<Sector>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is there.
    Fresh,
    /// The log ends at `end`; nothing behind it was acknowledged.
    End {
        at: u64,
        clean: bool,
    },
    Damaged {
        at: u64,
        promised: u64,
    },
    /// MANIFEST is missing, bad, or older than the log.
    BadManifest,
}

#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) manifest: Option<Manifest>,
    /// Which slot holds it.
    pub(crate) slot: usize,
    /// Where it began to read.
    pub(crate) from: u64,
    /// Truncations behind the end, for a flaw.
    unaccepted: Vec<(u64, u64)>,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) number: u64,
    pub(crate) previous: u64,
}

fn slot(image: &Image, manifests: &[Manifest], n: usize) -> Option<Manifest> {
    let at = n * SECTORS;
    match (image.read(Name::Manifest, at)?, image.read(Name::Manifest, at + 1)?) {
        (Sector::Slot(a), Sector::SlotRest(b)) if a == b => Some(manifests[a as usize].clone()),
        _ => None,
    }
}

/// A header that stands where it says and is this log's.
fn header(d: &Design, image: &Image, address: u64) -> Option<BatchHeader> {
    match d.block(image, address)? {
        [Sector::First { head, .. }, _]
            if head.ok
                && (head.log == d.log || d.has(Flaw::ForeignAccepted))
                && (head.address == address || d.has(Flaw::NoAddress))
                && (head.durable <= head.address || d.has(Flaw::DurableTooNew)) =>
        {
            Some(head)
        }
        _ => None,
    }
}

pub(crate) fn segment_head_is_good(d: &Design, image: &Image, segment: u64) -> bool {
    let is_mine = |log, number| (log, number) == (d.log, segment);
    let first = image.read(Name::Segment(segment), 0);
    let rest = image.read(Name::Segment(segment), 1);
    matches!(first, Some(Sector::SegmentHead { log, segment, .. }) if is_mine(log, segment))
        && matches!(rest, Some(Sector::SegmentRest { log, segment }) if is_mine(log, segment))
}

fn epoch_at(m: &Manifest, address: u64) -> Option<&Epoch> {
    m.epochs.iter().rev().find(|e| e.start <= address)
}

/// Epoch and salt are those that belong at `address`, behind a batch of epoch `before`.
fn epoch_fits(d: &Design, m: &Manifest, head: &BatchHeader, before: Option<(u32, u32)>) -> bool {
    if d.has(Flaw::SmallerEpochAccepted) {
        return true;
    }
    match epoch_at(m, head.address) {
        Some(e) => e.epoch == head.epoch && e.salt == head.salt,
        // Below the oldest epoch that is kept: they only grow, and one epoch has one salt.
        None => {
            head.epoch < m.epochs[0].epoch
                && before.is_none_or(|(epoch, salt)| {
                    (epoch < head.epoch && (head.opens || d.has(Flaw::NoOpensFlag)))
                        || (epoch == head.epoch && salt == head.salt)
                })
        }
    }
}

/// How far a good header proves that bytes were durable.
fn promise(d: &Design, m: &Manifest, head: &BatchHeader) -> u64 {
    if d.has(Flaw::PromiseNotCapped) {
        return head.durable;
    }
    let newest = m.epochs.last().unwrap();
    if head.epoch > newest.epoch {
        return 0;
    }
    match m.epochs.iter().find(|e| e.epoch >= head.epoch) {
        // Not of this life of the log: of a copy that went another way.
        Some(e) if e.epoch == head.epoch && (e.salt != head.salt || head.address < e.start) => return 0,
        _ => {}
    }
    let cap = m.epochs.iter().find(|e| e.epoch > head.epoch).map_or(u64::MAX, |e| e.start);
    head.durable.min(cap)
}

fn candidates<'a>(d: &'a Design, image: &'a Image, from_segment: u64) -> impl Iterator<Item = BatchHeader> + 'a {
    image.names.range(Name::Segment(from_segment)..Name::Aside(0)).flat_map(move |(name, _)| {
        let Name::Segment(k) = *name else { unreachable!() };
        (k * d.segment..(k + 1) * d.segment).filter_map(move |a| header(d, image, a))
    })
}

/// The verdict. `buffer` matters only to the flaw that computes with it; `fast`: begins at the last segment before
/// which all is proven.
pub(crate) fn judge(d: &Design, image: &Image, manifests: &[Manifest], buffer: u64, fast: bool) -> Judged {
    let mut j = Judged {
        verdict: Verdict::BadManifest,
        manifest: None,
        slot: 0,
        from: 0,
        unaccepted: Vec::new(),
        accepted: Vec::new(),
        number: 0,
        previous: NONE,
    };
    if !image.names.contains_key(&Name::Manifest) {
        // Nothing, or what an interrupted creation leaves: a first segment with nothing in it.
        let empty = |n: &Name| match n {
            Name::Segment(0) => (0..d.segment).all(|a| header(d, image, a).is_none()),
            Name::Segment(_) => false,
            _ => true,
        };
        if image.names.keys().all(empty) {
            j.verdict = Verdict::Fresh;
        }
        return j;
    }
    let slots = [slot(image, manifests, 0), slot(image, manifests, 1)];
    let Some(newest) = (0..2).filter(|&n| slots[n].is_some()).max_by_key(|&n| slots[n].as_ref().unwrap().sequence)
    else {
        return j;
    };
    let m = slots[newest].clone().unwrap();
    j.slot = newest;
    j.manifest = Some(m.clone());
    if m.log != d.log {
        return j;
    }

    let known = if d.has(Flaw::EpochStartNoPromise) {
        0
    } else {
        m.known_durable.max(m.clean.unwrap_or(0)).max(m.epochs.last().unwrap().start)
    };
    let mut segment = d.segment_of(m.trim);
    (j.number, j.previous) = m.first;
    let mut trusted = !d.has(Flaw::FirstNotKnown) || segment == 0;
    let mut first_epoch = m.first_epoch.filter(|_| !d.has(Flaw::FirstEpochNotKnown));
    if fast {
        // The last segment that begins with a good header of the right epoch, and before which all is proven durable,
        // by MANIFEST or by a header in it or behind it.
        let opens = |k: u64| header(d, image, k * d.segment).is_some_and(|head| epoch_fits(d, &m, &head, None));
        let last = image
            .names
            .keys()
            .filter_map(|n| if let Name::Segment(k) = n { Some(*k) } else { None })
            .max()
            .unwrap_or(0);
        let mut begins = last.max(segment);
        while begins > segment {
            let top = candidates(d, image, begins).map(|head| promise(d, &m, &head)).max().unwrap_or(0).max(known);
            if opens(begins) && (top >= begins * d.segment || d.has(Flaw::OpenUnproven)) {
                break;
            }
            begins -= 1;
        }
        if begins > segment
            && let Some(head) = header(d, image, begins * d.segment)
        {
            // The link is looked at from both sides.
            let linked = head.previous != NONE
                && header(d, image, head.previous).is_some_and(|p| {
                    p.number + 1 == head.number && p.last && epoch_fits(d, &m, &p, None) && p.epoch <= head.epoch
                });
            if linked || d.has(Flaw::OpenUnproven) {
                segment = begins;
                (j.number, j.previous) = (head.number, head.previous);
                trusted = true;
                first_epoch = None;
            }
        }
    }

    let mut a = segment * d.segment;
    j.from = a;
    let mut before = None;
    loop {
        if d.has(Flaw::SegmentHeadDecides) && !segment_head_is_good(d, image, d.segment_of(a)) {
            break;
        }
        let Some(head) = header(d, image, a) else { break };
        let end = (d.segment_of(a) + 1) * d.segment;
        if !epoch_fits(d, &m, &head, before) || first_epoch.take().is_some_and(|e| e != (head.epoch, head.salt)) {
            break;
        }
        if trusted && !d.has(Flaw::NoLink) && (head.number != j.number || head.previous != j.previous) {
            break;
        }
        trusted = true;
        if head.blocks == 0 || a + head.blocks > end {
            break;
        }
        let mut sectors = Vec::new();
        for n in 0..head.blocks {
            sectors.extend(d.block(image, a + n).unwrap());
        }
        if !body_is_good(d, &head, &sectors, a) {
            break;
        }
        let after = a + head.blocks;
        let next = if d.has(Flaw::SkipBySize) {
            if after + buffer > end { end } else { after }
        } else if head.last {
            end
        } else {
            after
        };
        before = Some((head.epoch, head.salt));
        j.number = head.number + 1;
        j.previous = a;
        j.accepted.push(Accepted { head, next, sectors });
        a = next;
    }

    if d.has(Flaw::TruncationUnaccepted) {
        let behind = candidates(d, image, d.segment_of(a)).filter(|head| head.address >= a);
        j.unaccepted =
            behind.filter_map(|head| Some((truncation(&d.block(image, head.address)?)?, head.address))).collect();
    }

    // What is proven beyond `a`?
    let mut promised = known;
    let newest = m.epochs.last().unwrap();
    for head in candidates(d, image, d.segment_of(a)) {
        if head.epoch > newest.epoch && !d.has(Flaw::HigherEpochIgnored) {
            j.verdict = Verdict::BadManifest;
            return j;
        }
        // One epoch has one salt: this MANIFEST and these batches are of two copies that went different ways.
        let other_copy = m.epochs.iter().any(|e| e.epoch == head.epoch && e.salt != head.salt);
        if other_copy && !d.has(Flaw::OtherSaltIgnored) {
            j.verdict = Verdict::BadManifest;
            return j;
        }
        promised = promised.max(promise(d, &m, &head));
        if d.has(Flaw::IntactIsDamage) && head.address > a && head.epoch == newest.epoch && head.salt == newest.salt {
            promised = promised.max(head.address);
        }
    }
    if d.has(Flaw::PredecessorEndPromises) {
        for (name, _) in image.names.range(Name::Segment(d.segment_of(a))..Name::Aside(0)) {
            if let Some(Sector::SegmentHead { before, segment, .. }) = image.read(*name, 0)
                && before != NONE
                && *name == Name::Segment(segment)
            {
                promised = promised.max(before.min(segment * d.segment));
            }
        }
    }
    let len = image.len(Name::Segment(d.segment_of(a)));
    if d.has(Flaw::ShortFileIsEnd) && len.is_some_and(|len| len <= d.sector_of(a)) {
        promised = 0;
    }
    let is_short =
        |(name, _): (&Name, &usize)| image.len(*name).is_some_and(|len| len < d.sector_of(d.segment - 1) + SECTORS);
    if d.has(Flaw::ShortFileIsDamage)
        && image.names.range(Name::Segment(segment)..=Name::Segment(d.segment_of(a))).any(is_short)
    {
        promised = u64::MAX;
    }
    // It was made before anything could lead there.
    let missing = !image.names.contains_key(&Name::Segment(d.segment_of(a))) && !d.has(Flaw::LastBeforeNext);
    j.verdict = if (promised > a && !d.has(Flaw::PromiseIgnored)) || missing {
        Verdict::Damaged { at: a, promised }
    } else {
        Verdict::End { at: a, clean: m.clean == Some(a) }
    };
    j
}

impl Judged {
    /// The named value at the end: from the snapshots, and from what changed it since.
    pub(crate) fn value(&self, d: &Design) -> Option<u32> {
        let mut found = None;
        for batch in &self.accepted {
            let Sector::First { record, snapshot, .. } = batch.sectors[0] else { continue };
            if let Some(value) = snapshot.filter(|_| !d.has(Flaw::SnapshotIgnored)) {
                found = value;
            }
            if let Record::Value(value) = record {
                found = Some(value);
            }
        }
        found
    }

    /// What replay shows: the addresses of the batches that are not void.
    pub(crate) fn shown(&self, d: &Design) -> Vec<u64> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let accepted = self.accepted.iter().filter_map(|batch| Some((truncation(&batch.sectors)?, batch.head.address)));
        let all: Vec<_> = accepted.chain(self.unaccepted.iter().copied()).collect();
        let is_void = |at: u64| {
            all.iter().any(|&(from, by)| {
                let is_voided = all.iter().any(|&(start, end)| start <= by && by < end);
                at >= from
                    && (at < by || d.has(Flaw::TruncationOpenEnded))
                    && !d.has(Flaw::TruncationIgnored)
                    && !(is_voided && d.has(Flaw::TruncationVoided))
            })
        };
        let records = self.accepted.iter().filter(|batch| record(&batch.sectors) == Some(Record::Data));
        records.map(|batch| batch.head.address).filter(|&at| at >= manifest.trim && !is_void(at)).collect()
    }
}

/// The record of a batch.
fn record(sectors: &[Sector]) -> Option<Record> {
    match sectors.first()? {
        Sector::First { record, .. } => Some(*record),
        _ => None,
    }
}

/// The address that a batch truncates the log to, if its record is a truncation.
fn truncation(sectors: &[Sector]) -> Option<u64> {
    match record(sectors)? {
        Record::Truncation(from) => Some(from),
        _ => None,
    }
}

fn body_is_good(d: &Design, head: &BatchHeader, sectors: &[Sector], at: u64) -> bool {
    if d.has(Flaw::TableUnchecked) {
        return true;
    }
    let Some(Sector::Last { table, .. }) = sectors.last() else { return false };
    if table.own != own_sum(d.seed(head, at), table.sums) {
        return false;
    }
    sectors.chunks(SECTORS).enumerate().all(|(n, block)| {
        sum(d.seed(head, at + n as u64), block) == table.sums[n]
            || (d.has(Flaw::FillerUnchecked) && block.contains(&Sector::Zero))
    })
}
