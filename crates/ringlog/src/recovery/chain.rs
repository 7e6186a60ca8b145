//! From batch to batch, until one does not continue the log.
//!
//! A batch never crosses a segment. So each segment is walked alone, by as many threads as are allowed, and the walks
//! are joined in order: the first batch of each must be the one that the walk before leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use super::batch::{BadRecord, Tally, check_bytes};
use super::reader::SegmentReader;
use super::report::Content;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{BLOCK, BatchHeader, Gap, HeaderRefusal, MAX_ADDRESS, Manifest};

/// The files of a log.
#[derive(Debug)]
pub(super) struct Source<'a, D> {
    pub(super) directory: &'a D,
    pub(super) manifest: Manifest,
    /// By number.
    pub(super) segments: BTreeMap<u64, String>,
    /// Those that are shorter than their headers say, or than a header.
    pub(super) cut: BTreeSet<u64>,
}

impl<'a, D: Directory> Source<'a, D> {
    /// The segment that holds `address`, if its file exists.
    pub(super) fn reader(&self, segment: u64) -> Result<Option<SegmentReader<'a, D>>, OpenError> {
        let size = self.manifest.segment_size;
        let opened =
            self.segments.get(&segment).map(|name| SegmentReader::open(self.directory, name, segment * size, size));
        opened.transpose()
    }

    pub(super) fn name(&self, address: u64) -> String {
        let segment = self.manifest.segment_of(address);
        let missing = || crate::segment::file_name(segment * self.manifest.segment_size);
        self.segments.get(&segment).cloned().unwrap_or_else(missing)
    }
}

/// What the next batch must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) number: u64,
    pub(super) previous: u64,
    /// Epoch and salt of the batch before, if that was read.
    pub(super) before: Option<(u32, u64)>,
    /// Epoch and salt that it must have, if that is known.
    pub(super) exactly: Option<(u32, u64)>,
}

impl Expected {
    fn behind(header: &BatchHeader) -> Self {
        let before = Some((header.epoch, header.salt));
        Self { number: header.number + 1, previous: header.address, before, exactly: None }
    }

    fn behind_gap(gap: &Gap) -> Self {
        Self { number: gap.number, previous: gap.previous, before: None, exactly: Some((gap.epoch, gap.salt)) }
    }

    fn is_met_by(&self, manifest: &Manifest, header: &BatchHeader) -> bool {
        header.number == self.number
            && header.previous == self.previous
            && self.exactly.is_none_or(|exactly| exactly == (header.epoch, header.salt))
            && manifest.epoch_fits(header, self.before)
    }
}

/// Why the log ends here.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// No batch here continues it.
    Content(Content),
    /// It may go on, in a way that this crate cannot read.
    Header(HeaderRefusal),
    Record(BadRecord),
}

/// A run of batches inside one segment, each the successor of the one before.
#[derive(Debug)]
struct Walk {
    first: Option<BatchHeader>,
    last: Option<BatchHeader>,
    next: u64,
    tally: Tally,
    /// The highest promise of its batches, and where it stands.
    top: Option<(u64, u64)>,
    stop: Option<Stop>,
}

/// Batches from `start` on, up to `until` in the same segment.
fn walk<D: Directory>(source: &Source<'_, D>, start: u64, until: u64) -> Result<Walk, OpenError> {
    let mut walk = Walk { first: None, last: None, next: start, tally: Tally::default(), top: None, stop: None };
    let Some(mut reader) = source.reader(source.manifest.segment_of(start))? else {
        walk.stop = Some(Stop::Content(Content::MissingFile));
        return Ok(walk);
    };
    while walk.next < until && walk.stop.is_none() {
        match step(source, &mut reader, &walk, until)? {
            Err(stop) => walk.stop = Some(stop),
            Ok(header) => match walk.tally.add(&mut reader, &header)? {
                Err(bad) => walk.stop = Some(Stop::Record(bad)),
                Ok(()) => {
                    walk.first = walk.first.or(Some(header));
                    walk.last = Some(header);
                    walk.top = walk.top.max(Some((source.manifest.promise_of(&header), header.address)));
                    walk.next = source.manifest.behind(&header);
                }
            },
        }
    }
    Ok(walk)
}

/// The batch at `walk.next`, if it is whole and follows the one before it in the walk.
fn step<D: Directory>(
    source: &Source<'_, D>,
    reader: &mut SegmentReader<'_, D>,
    walk: &Walk,
    until: u64,
) -> Result<Result<BatchHeader, Stop>, OpenError> {
    let (manifest, at) = (&source.manifest, walk.next);
    let header = match reader.header(manifest, at)? {
        Ok(header) => header,
        Err(refusal) => return refused(reader, at, refusal).map(Err),
    };
    let stale = Content::StaleBatch { number: header.number, epoch: header.epoch };
    let follows = match &walk.last {
        Some(last) => Expected::behind(last).is_met_by(manifest, &header),
        None => manifest.epoch_fits(&header, None),
    };
    if !follows {
        return Ok(Err(Stop::Content(stale)));
    }
    if at + header.layout().len as u64 > until {
        return Ok(Err(Stop::Content(Content::BadLength)));
    }
    Ok(check_bytes(reader, &header)?.map_or(Ok(header), |content| Err(Stop::Content(content))))
}

fn refused<D: Directory>(
    reader: &mut SegmentReader<'_, D>,
    at: u64,
    refusal: HeaderRefusal,
) -> Result<Stop, OpenError> {
    let block = if at < reader.filled() { reader.read(at, BLOCK)? } else { &[] };
    Ok(Content::of_refused(refusal, block).map_or_else(Stop::Header, Stop::Content))
}

/// The part of a log that proves itself.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// From here to its end, all was walked.
    pub(super) walked_from: u64,
    /// Where it ends.
    pub(super) end: u64,
    /// The highest promise of its batches in the segment with the end, and where it stands.
    pub(super) top: Option<(u64, u64)>,
    pub(super) expected: Expected,
    pub(super) tally: Tally,
    /// What stands at the end.
    pub(super) content: Content,
}

/// Follows the log from `start`, where `expected` must be met, as far as it goes below `limit`; that is the end of a
/// batch.
pub(super) fn follow<D: Directory>(
    source: &Source<'_, D>,
    start: u64,
    expected: Expected,
    gaps: &[Gap],
    threads: usize,
    limit: u64,
) -> Result<Chain, OpenError> {
    let size = source.manifest.segment_size;
    let (tally, content) = (Tally::default(), Content::Zeros);
    let mut chain = Chain { walked_from: start, end: start, top: None, expected, tally, content };
    let mut ahead = BTreeMap::new();
    loop {
        if let Some(gap) = gaps.iter().find(|gap| gap.range().contains(&chain.end)) {
            (chain.end, chain.expected) = (gap.end, Expected::behind_gap(gap));
            chain.walked_from = gap.end;
            continue;
        }
        let segment = chain.end / size;
        if chain.end >= limit {
            return Ok(chain);
        }
        if chain.end >= MAX_ADDRESS - size {
            chain.content = Content::BeyondFile;
            return Ok(chain);
        }
        let next_gap = gaps.iter().map(|gap| gap.start).filter(|&start| start > chain.end).min();
        let until = next_gap.unwrap_or(limit).min(limit).min((segment + 1) * size);
        if threads > 1 && chain.end == segment * size && next_gap.is_none() && !ahead.contains_key(&segment) {
            ahead = walk_side_by_side(source, segment, threads)?;
        }
        let walked = match ahead.remove(&segment) {
            Some(walked) if chain.end == segment * size => walked,
            _ => walk(source, chain.end, until)?,
        };
        if let Some(first) = walked.first.filter(|first| !chain.expected.is_met_by(&source.manifest, first)) {
            chain.content = Content::StaleBatch { number: first.number, epoch: first.epoch };
            return Ok(chain);
        }
        if let Some(last) = &walked.last {
            chain.expected = Expected::behind(last);
        }
        chain.end = walked.next;
        chain.top = walked.top.filter(|_| walked.next / size == segment);
        chain.tally.join(&walked.tally)?;
        let file = || source.name(walked.next);
        match walked.stop {
            None => {}
            Some(Stop::Content(content)) => {
                chain.content = content;
                return Ok(chain);
            }
            Some(Stop::Header(refusal)) => {
                return Err(OpenError::Header { file: file(), address: walked.next, refusal });
            }
            Some(Stop::Record((address, refusal))) => return Err(OpenError::Record { file: file(), address, refusal }),
        }
    }
}

/// Walks the segments from `first` on, one per thread.
fn walk_side_by_side<D: Directory>(
    source: &Source<'_, D>,
    first: u64,
    threads: usize,
) -> Result<BTreeMap<u64, Walk>, OpenError> {
    let size = source.manifest.segment_size;
    let there = (first..).zip(source.segments.range(first..)).take(threads);
    let segments = there.take_while(|(wanted, (segment, _))| wanted == *segment).map(|(segment, _)| segment);
    thread::scope(|scope| {
        let walks = segments.map(|segment| {
            let walking = move || walk(source, segment * size, (segment + 1) * size);
            (segment, scope.spawn(walking))
        });
        let walks = walks.collect::<Vec<_>>();
        let joined = walks.into_iter().map(|(segment, walk)| {
            let walked = walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((segment, walked?))
        });
        joined.collect()
    })
}

/// The header of the whole batch that stands at `at` and belongs there, if there is one.
pub(super) fn intact<D: Directory>(
    source: &Source<'_, D>,
    reader: &mut SegmentReader<'_, D>,
    at: u64,
) -> Result<Option<BatchHeader>, OpenError> {
    let nothing = Walk { first: None, last: None, next: at, tally: Tally::default(), top: None, stop: None };
    let end = reader.end();
    Ok(step(source, reader, &nothing, end)?.ok())
}
