//! The verdict. It reads, and never writes.

use core::mem;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use super::batch::Tally;
use super::chain::{Chain, Expected, Source, follow, intact};
use super::report::{Content, Damage, Evidence, Proof, Report, Torn, Verdict};
use super::scan::{HeaderScan, has_table};
use crate::Lsn;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{
    BLOCK, BatchHeader, Gap, MAX_GAPS, Manifest, NO_ADDRESS, SEGMENT_HEADER_LEN, SegmentHeader, SegmentRefusal, is_zero,
};
use crate::manifest::ManifestFile;
use crate::segment::{parse_name, read_header};

/// More threads than this do not read faster.
const MAX_THREADS: usize = 4;

/// How much [`verify`] reads.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verify {
    pub(super) fast: bool,
    pub(super) threads: usize,
}

impl Default for Verify {
    fn default() -> Self {
        Self::new()
    }
}

impl Verify {
    /// Everything, with one thread per processor, four at most.
    pub fn new() -> Self {
        Self { fast: false, threads: thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS) }
    }

    /// Begins at the last segment before which everything is proven to have been durable, instead of the first one.
    /// The verdict holds for the range that the report names; damage below is not seen.
    pub fn fast(mut self, yes: bool) -> Self {
        self.fast = yes;
        self
    }

    /// Sets how many segments are read side by side; each takes about a mebibyte of memory.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 64);
        self
    }
}

/// Finds the end of a log, and proves what lies behind it. Takes no lock, and changes nothing.
///
/// The verdict is in the report, also if it is "damaged". The tail of a log that another process is writing to may
/// look torn.
///
/// # Errors
///
/// [`OpenError`] if the directory is no log that can be judged: [`OpenError::Missing`] if it is empty.
pub fn verify<D: Directory>(directory: &D, how: &Verify) -> Result<Report, OpenError> {
    Ok(judge(directory, how, false, false)?.ok_or(OpenError::Missing)?.report)
}

/// A log, judged.
#[derive(Debug)]
pub(super) struct Judged<F> {
    pub(super) manifest: ManifestFile<F>,
    pub(super) report: Report,
    /// Those that `MANIFEST` knows, and those that are skipped now.
    pub(super) gaps: Vec<Gap>,
    /// The first cookie found.
    pub(super) cookie: Option<Vec<u8>>,
}

/// `None`: there is no log, and nothing that could be part of one.
pub(super) fn judge<D: Directory>(
    directory: &D,
    how: &Verify,
    write: bool,
    skip: bool,
) -> Result<Option<Judged<D::File>>, OpenError> {
    let names = directory.list().map_err(OpenError::io("list", "the directory"))?;
    let Some(manifest) = ManifestFile::read(directory, write)? else {
        return names.iter().try_for_each(|name| holds_nothing(directory, name)).map(|()| None);
    };
    let (source, headers) = Source::of(directory, manifest.content(), names)?;
    let mut judging = Judging { source: &source, scans: BTreeMap::new(), threads: how.threads };
    let found = judging.judge(how, |judging, start| judging.find(start, skip))?;
    let gaps = found.gaps.clone();
    let report = found.report(&source, headers.bad);
    Ok(Some(Judged { manifest, report, gaps, cookie: headers.cookie }))
}

/// What is certain of a log that another opener writes to: all that it has made durable. Reads, and never writes.
///
/// # Errors
///
/// [`OpenError`]; it may be gone the next time, as files come and go meanwhile.
pub(super) fn survey<D: Directory>(directory: &D, how: &Verify) -> Result<(Report, Manifest), OpenError> {
    let names = directory.list().map_err(OpenError::io("list", "the directory"))?;
    let manifest = ManifestFile::read(directory, false)?.ok_or(OpenError::Missing)?.content().clone();
    let (source, headers) = Source::of(directory, &manifest, names)?;
    let mut judging = Judging { source: &source, scans: BTreeMap::new(), threads: 1 };
    let found = judging.judge(how, |judging, start| judging.find_proven(start))?;
    Ok((found.report(&source, headers.bad), manifest))
}

/// Adds a gap; those that it meets become part of it.
fn accept(gaps: &mut Vec<Gap>, gap: Gap) -> Result<(), OpenError> {
    let mut whole = gap;
    for met in gaps.extract_if(.., |met| met.start <= gap.end && gap.start <= met.end) {
        let start = whole.start.min(met.start);
        // The batch behind the last of them is the next one.
        whole = Gap { start, ..if met.end > whole.end { met } else { whole } };
    }
    if gaps.len() == MAX_GAPS {
        return Err(OpenError::TooManyGaps);
    }
    let at = gaps.partition_point(|other| other.start < whole.start);
    gaps.insert(at, whole);
    Ok(())
}

/// Refuses a file that holds data of a log: what is left of an interrupted creation is a first segment without any.
fn holds_nothing<D: Directory>(directory: &D, name: &str) -> Result<(), OpenError> {
    let Some(base) = parse_name(name) else { return Ok(()) };
    let file = directory.open(name, false).map_err(OpenError::io("open", name))?;
    let mut at = SEGMENT_HEADER_LEN as u64;
    let mut block = [0; BLOCK];
    loop {
        let read = directory.read_at(&file, &mut block, at).map_err(OpenError::io("read", name))?;
        if base != 0 || !is_zero(&block[..read]) {
            return Err(OpenError::NoManifest { file: name.into() });
        }
        if read < BLOCK {
            return Ok(());
        }
        at += BLOCK as u64;
    }
}

/// The headers of the segment files.
#[derive(Debug, Default)]
struct Headers {
    bad: Vec<String>,
    /// The numbers of files that are shorter than they say, or too short to say anything.
    cut: BTreeSet<u64>,
    cookie: Option<Vec<u8>>,
}

impl Headers {
    fn look_at<D: Directory>(
        &mut self,
        directory: &D,
        manifest: &Manifest,
        name: &str,
        base: u64,
    ) -> Result<(), OpenError> {
        let file = directory.open(name, false).map_err(OpenError::io("open", name))?;
        match SegmentHeader::decode(&read_header(directory, &file, name)?) {
            Ok(header) if header.log_id != manifest.log_id => {
                return Err(OpenError::Foreign { file: name.into(), found: header.log_id, expected: manifest.log_id });
            }
            // A segment that was renamed to be used again, before its header was written, has an old number.
            Ok(header) if header.segment_size != manifest.segment_size || header.file_name() != name => {
                self.bad.push(name.into());
            }
            Ok(header) => {
                if header.whole && directory.len(&file).map_err(OpenError::io("look at", name))? < header.file_len() {
                    self.cut.insert(header.number);
                }
                self.cookie.get_or_insert(header.cookie);
            }
            Err(SegmentRefusal::Version(version)) => return Err(OpenError::Newer { file: name.into(), version }),
            Err(_) if base.is_multiple_of(manifest.segment_size) => {
                self.bad.push(name.into());
                if directory.len(&file).map_err(OpenError::io("look at", name))? < SEGMENT_HEADER_LEN as u64 {
                    self.cut.insert(base / manifest.segment_size);
                }
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// Where a log may be begun to be read.
#[derive(Debug)]
struct Candidates {
    /// Whether elsewhere than where it begins.
    fast: bool,
    /// Only in segments below; 0: where it begins was given out.
    below: u64,
}

/// What was found from a start on.
#[derive(Debug)]
struct Found {
    start: u64,
    chain: Chain,
    tally: Tally,
    verdict: Verdict,
    promised: u64,
    gaps: Vec<Gap>,
}

impl Found {
    fn report<D: Directory>(self, source: &Source<'_, D>, bad_segment_headers: Vec<String>) -> Report {
        let Self { start, chain, tally, verdict, promised, gaps } = self;
        let (manifest, lsn) = (&source.manifest, |range: Range<u64>| Lsn::new(range.start)..Lsn::new(range.end));
        Report {
            log_id: manifest.log_id,
            segment_size: manifest.segment_size,
            first: Lsn::new(manifest.trim),
            checked_from: Lsn::new(start),
            end: Lsn::new(chain.end),
            promised: Lsn::new(promised),
            batches: tally.batches,
            records: tally.records,
            segments: source.segments.len(),
            next_number: chain.expected.number,
            previous: chain.expected.previous,
            epoch: manifest.newest_epoch().epoch,
            verdict,
            gaps: gaps.iter().map(|gap| lsn(gap.range())).collect(),
            void: tally.voids.into_iter().map(lsn).collect(),
            values: tally.values.settled(),
            bad_segment_headers,
        }
    }
}

impl<'a, D: Directory> Source<'a, D> {
    /// The files that `names` name, and what their headers say.
    fn of(directory: &'a D, manifest: &Manifest, names: Vec<String>) -> Result<(Self, Headers), OpenError> {
        let (mut headers, mut segments, size) = (Headers::default(), BTreeMap::new(), manifest.segment_size);
        for name in names {
            let Some(base) = parse_name(&name) else { continue };
            headers.look_at(directory, manifest, &name, base)?;
            if base.is_multiple_of(size) && base / size >= manifest.first_segment() {
                segments.insert(base / size, name);
            }
        }
        let cut = mem::take(&mut headers.cut);
        Ok((Source { directory, manifest: manifest.clone(), segments, cut }, headers))
    }
}

struct Judging<'s, 'd, D> {
    source: &'s Source<'d, D>,
    scans: BTreeMap<u64, HeaderScan>,
    threads: usize,
}

impl<D: Directory> Judging<'_, '_, D> {
    /// What the headers of a segment say; each segment is read once.
    fn scan(&mut self, segment: u64) -> Result<HeaderScan, OpenError> {
        if let Some(scan) = self.scans.get(&segment) {
            return Ok(*scan);
        }
        let scan = HeaderScan::of(self.source, segment * self.source.manifest.segment_size)?;
        self.scans.insert(segment, scan);
        Ok(scan)
    }

    /// The highest promise in a segment, or one of at least `enough`.
    fn promise(&mut self, segment: u64, enough: u64) -> Result<u64, OpenError> {
        let scan = match self.scans.get(&segment) {
            Some(scan) => *scan,
            None => {
                let (scan, is_whole) =
                    HeaderScan::until(self.source, segment * self.source.manifest.segment_size, enough)?;
                if is_whole {
                    self.scans.insert(segment, scan);
                }
                scan
            }
        };
        Ok(scan.top.map_or(0, |(promise, _)| promise))
    }

    /// The scans of all segments from `segment` on, several side by side.
    fn scan_from(&mut self, segment: u64) -> Result<Vec<HeaderScan>, OpenError> {
        let segments: Vec<_> = self.source.segments.range(segment..).map(|(segment, _)| *segment).collect();
        let unread: Vec<_> = segments.iter().copied().filter(|segment| !self.scans.contains_key(segment)).collect();
        let source = self.source;
        for group in unread.chunks(self.threads).filter(|group| group.len() > 1) {
            let scans = thread::scope(|scope| {
                let scans = group.iter().map(|&segment| {
                    scope.spawn(move || HeaderScan::of(source, segment * source.manifest.segment_size))
                });
                let scans = scans.collect::<Vec<_>>();
                let join = |scan: thread::ScopedJoinHandle<'_, _>| {
                    scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                scans.into_iter().map(join).collect::<Result<Vec<_>, _>>()
            })?;
            self.scans.extend(group.iter().copied().zip(scans));
        }
        segments.into_iter().map(|segment| self.scan(segment)).collect()
    }

    /// Has the log `found` from where it begins, or from the last proven start before which nothing has to be known.
    fn judge(
        &mut self,
        how: &Verify,
        find: impl Fn(&mut Self, (u64, Expected)) -> Result<Found, OpenError>,
    ) -> Result<Found, OpenError> {
        let mut candidates = Candidates { fast: how.fast, below: u64::MAX };
        loop {
            let start = self.start(&mut candidates)?;
            let found = find(self, start)?;
            // What was said before does not matter, or there is nothing before.
            if found.tally.values.snapshot().is_some() || candidates.below == 0 {
                return Ok(found);
            }
        }
    }

    /// Follows the log from a start up to where the headers that are there prove that all is durable.
    fn find_proven(&mut self, start: (u64, Expected)) -> Result<Found, OpenError> {
        let (source, (start, expected)) = (self.source, start);
        let manifest = &source.manifest;
        let mut promised = (manifest.promise(), Proof::KnownDurable);
        // The newest header is in the last segment that has any.
        for &segment in source.segments.keys().rev() {
            let scan = HeaderScan::of(source, segment * manifest.segment_size)?;
            scan.check(source)?;
            let Some((promise, at)) = scan.top else { continue };
            if promise > promised.0 {
                promised = (promise, Proof::Batch { at: Lsn::new(at) });
            }
            // Others may be what an opening has cut off.
            if scan.newest.is_some() {
                break;
            }
        }
        let (promised, proof) = promised;
        let chain = follow(source, start, expected, &manifest.gaps, self.threads, promised)?;
        let verdict = if chain.end < promised {
            let range = Lsn::new(chain.end)..Lsn::new(promised);
            Verdict::Damaged(Damage { range, file: source.name(chain.end), content: chain.content, proof })
        } else {
            Verdict::InUse
        };
        let (tally, gaps) = (chain.tally.clone(), manifest.gaps.clone());
        Ok(Found { start, chain, tally, verdict, promised, gaps })
    }

    /// Follows the log from a start, and judges what stands where it ends.
    fn find(&mut self, start: (u64, Expected), skip: bool) -> Result<Found, OpenError> {
        let source = self.source;
        let (start, mut expected) = start;
        let (mut from, mut gaps) = (start, source.manifest.gaps.clone());
        let (mut tally, mut damage) = (Tally::default(), None);
        loop {
            let chain = follow(source, from, expected, &gaps, self.threads, u64::MAX)?;
            tally.join(&chain.tally)?;
            let (verdict, promised) = self.verdict(&chain)?;
            let is_damaged = matches!(verdict, Verdict::Damaged(_));
            let gap = if skip && is_damaged { self.gap(&chain, promised)? } else { None };
            let verdict = damage.get_or_insert(verdict).clone();
            let Some(gap) = gap else { return Ok(Found { start, chain, tally, verdict, promised, gaps }) };
            accept(&mut gaps, gap)?;
            if gap.end == promised && gap.number == chain.expected.number {
                // Nothing behind it is intact: the log goes on where the promise ends.
                let chain = Chain { end: gap.end, ..chain };
                return Ok(Found { start, chain, tally, verdict, promised, gaps });
            }
            (from, expected) = (chain.end, chain.expected);
        }
    }

    /// Where to begin next, and what must be met there.
    fn start(&mut self, candidates: &mut Candidates) -> Result<(u64, Expected), OpenError> {
        let manifest = &self.source.manifest;
        if let Some(start) = if candidates.fast { self.proven_start(candidates.below)? } else { None } {
            candidates.below = start.0 / manifest.segment_size;
            return Ok(start);
        }
        candidates.below = 0;
        let first = &manifest.first;
        let expected = Expected { number: first.number, previous: first.previous, before: None, exactly: first.epoch };
        Ok((manifest.first_segment() * manifest.segment_size, expected))
    }

    /// The start of the last segment below number `below` that begins with a good batch of exactly the right epoch,
    /// before which everything is proven to have been durable, by `MANIFEST` or by a header in it or behind it, and
    /// whose predecessor is linked from both sides.
    fn proven_start(&mut self, below: u64) -> Result<Option<(u64, Expected)>, OpenError> {
        let source = self.source;
        let manifest = &source.manifest;
        let header_at = |address: u64| match source.reader(manifest.segment_of(address))? {
            Some(mut reader) if address.is_multiple_of(BLOCK as u64) => {
                reader.header(manifest, address).map(Result::ok)
            }
            _ => Ok::<_, OpenError>(None),
        };
        let mut top = manifest.promise();
        for &segment in source.segments.keys().rev().take_while(|segment| **segment > manifest.first_segment()) {
            let start = segment * manifest.segment_size;
            top = top.max(self.promise(segment, start)?);
            if segment >= below || top < start || manifest.epochs[0].start > start {
                continue;
            }
            let Some(head) = header_at(start)?.filter(|head| manifest.epoch_fits(head, None)) else { continue };
            if head.previous == NO_ADDRESS {
                continue;
            }
            let leads_here = header_at(head.previous)?.is_some_and(|before| {
                before.number + 1 == head.number
                    && before.flags.last
                    && before.epoch <= head.epoch
                    && manifest.segment_of(before.address) + 1 == segment
                    && manifest.epoch_fits(&before, None)
            });
            if leads_here {
                let (number, previous) = (head.number, head.previous);
                return Ok(Some((start, Expected { number, previous, before: None, exactly: None })));
            }
        }
        Ok(None)
    }

    /// What everything says that can still speak, and how far it promises.
    fn verdict(&mut self, chain: &Chain) -> Result<(Verdict, u64), OpenError> {
        let source = self.source;
        let manifest = &source.manifest;
        let end = chain.end;
        let mut promised = (manifest.newest_epoch().start, Proof::EpochStart);
        let mut raise = |to: u64, proof: Proof| {
            if to > promised.0 {
                promised = (to, proof);
            }
        };
        raise(manifest.known_durable, Proof::KnownDurable);
        raise(manifest.clean_end.unwrap_or(0), Proof::CleanEnd);
        if let Some((promise, at)) = chain.top {
            raise(promise, Proof::Batch { at: Lsn::new(at) });
        }
        // Of the segment with the end, what was walked has said all that it can.
        let segment = manifest.segment_of(end);
        let is_walked = chain.walked_from <= segment * manifest.segment_size;
        let scans = if is_walked {
            [HeaderScan::of(source, end)?].into_iter().chain(self.scan_from(segment + 1)?).collect()
        } else {
            self.scan_from(segment)?
        };
        let mut newest = None;
        for scan in scans {
            scan.check(source)?;
            if let Some((promise, at)) = scan.top {
                raise(promise, Proof::Batch { at: Lsn::new(at) });
            }
            newest = newest.max(scan.newest);
        }
        let missing = !source.segments.contains_key(&segment);
        // What lay behind is gone, whether or not anything is left that promised it.
        let cut = source.cut.contains(&segment) && manifest.clean_end != Some(end);
        let (promised, proof) = promised;
        if promised > end || missing || cut {
            let (to, proof) = if promised > end {
                (promised, proof)
            } else {
                ((segment + 1) * manifest.segment_size, if missing { Proof::MissingFile } else { Proof::WholeFile })
            };
            let content = if missing { Content::MissingFile } else { chain.content };
            let range = Lsn::new(end)..Lsn::new(to);
            let damage = Damage { range, file: source.name(end), content, proof };
            return Ok((Verdict::Damaged(damage), promised));
        }
        if manifest.clean_end == Some(end) {
            return Ok((Verdict::Clean, promised));
        }
        let header = newest.filter(|&at| at >= end).map(|at| Evidence::Header { at: Lsn::new(at) });
        let table = || {
            let Some(mut reader) = source.reader(segment)? else { return Ok::<_, OpenError>(None) };
            let found = has_table(source, &mut reader, end)?;
            Ok(found.then_some(Evidence::Table { at: Lsn::new(end) }))
        };
        let evidence = header.map_or_else(table, |evidence| Ok(Some(evidence)))?;
        let torn = |evidence| Verdict::Torn(Torn { content: chain.content, evidence });
        Ok((evidence.map_or(Verdict::Unclosed, torn), promised))
    }

    /// The damage at the end of `chain`, as a gap: up to the next intact batch that belongs there, or to where the
    /// promise ends. `None`: no address was promised that a gap could leave out.
    fn gap(&self, chain: &Chain, promised: u64) -> Result<Option<Gap>, OpenError> {
        let source = self.source;
        let manifest = &source.manifest;
        let Expected { number, previous, .. } = chain.expected;
        if promised <= chain.end {
            return Ok(None);
        }
        // Below the table of epochs, a batch that an earlier opening cut off looks like one that belongs there.
        let from = (chain.end + BLOCK as u64).max(manifest.epochs[0].start);
        for &segment in source.segments.range(manifest.segment_of(from)..).map(|(segment, _)| segment) {
            let Some(mut reader) = source.reader(segment)? else { continue };
            let base = segment * manifest.segment_size;
            let to = reader.filled().min(promised + BLOCK as u64);
            for at in (base.max(from)..to).step_by(BLOCK) {
                if let Some(head) = intact(source, &mut reader, at)?.filter(|head| head.number > number) {
                    let BatchHeader { number, previous, epoch, salt, .. } = head;
                    return Ok(Some(Gap { start: chain.end, end: at, number, previous, epoch, salt }));
                }
            }
        }
        Ok(Some(Gap { start: chain.end, end: promised, number, previous, epoch: 0, salt: 0 }))
    }
}
