//! Makes the crash images of a log, one after the other, and has each judged.
//!
//! At each position of the log where the set of possible images, or of what must survive, has changed: nothing
//! survives, everything, all but one write, only one, everything up to one, everything from one on (the newest
//! survives, the oldest is lost); each write torn at its ends and in the middle; all subsets if there are not too
//! many; and random subsets, with random tears.

use core::fmt::Write;
use core::ops::Range;

use crate::discipline;
use crate::disk::{Disk, Pending};
use crate::log::{Event, Log};
use crate::oracle::Oracle;
use crate::promise::Promise;
use crate::record::{BLOCK, Key, is_marker};
use ring_testing::Random;

/// Up to this many writes, all subsets are tried at a position.
const ALL_SUBSETS: usize = 10;
/// This many writes are taken by themselves: the oldest, and the newest.
const BY_ITSELF: (usize, usize) = (4, 12);

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Lost,
    Whole,
    /// Sectors below.
    Head(usize),
    /// Sectors from there on.
    Tail(usize),
    Without(usize),
    Only(usize),
    /// Each at random.
    Torn(u64),
}

impl Take {
    pub(crate) fn takes(self, sector: usize) -> bool {
        match self {
            Self::Lost => false,
            Self::Whole => true,
            Self::Head(end) => sector < end,
            Self::Tail(start) => sector >= start,
            Self::Without(one) => sector != one,
            Self::Only(one) => sector == one,
            Self::Torn(seed) => Random::new(seed ^ (sector as u64) << 32).chance(50),
        }
    }
}

/// An illegal image.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) position: usize,
    pub(crate) choice: String,
    pub(crate) what: String,
}

/// What an exploration has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explored {
    pub(crate) images: u64,
    pub(crate) torn: u64,
    /// Of a killed process, which has lost no completed write.
    pub(crate) killed: u64,
    /// Of a power cut, with a hole that a killed process could not have left.
    pub(crate) far_holes: u64,
    pub(crate) positions: u64,
    /// Records that went into leases of writers.
    pub(crate) leased: u64,
    /// Payloads that were markers under the key that the file had, in their places.
    pub(crate) imitated: u64,
    /// One random image, with its key, and what must have survived then.
    pub(crate) survivor: Vec<u8>,
    pub(crate) key: Option<Key>,
    pub(crate) owed_end: usize,
}

/// Tries the images of `log`; the choices follow from its seed.
pub(crate) fn explore(log: &Log, mut progress: impl FnMut(u64)) -> Result<Explored, Violation> {
    let at = |position: usize| move |what| Violation { position, choice: "the log itself".into(), what };
    let mut oracle = Oracle::new(log).map_err(at(log.events.len()))?;
    if let Some((position, what)) = discipline::broken(log, &oracle) {
        return Err(at(position)(what));
    }
    let places = log.events.iter().filter(|event| matters(event)).count().max(1) as u64;
    let mut explorer = Explorer {
        disk: Disk::new(&log.before, log.key),
        image: log.before.clone(),
        random: Random::new(log.seed),
        promise: Promise::new(log),
        per_place: (log.images / places).max(8) as usize,
        explored: Explored::default(),
    };
    let survives_at = explorer.random.below(places as usize) as u64;
    for (position, event) in log.events.iter().enumerate() {
        let changed = explorer.disk.step(event);
        explorer.promise.note(event);
        let nothing = |what| Violation { position, choice: "nothing pending survives".into(), what };
        oracle.step(event, &explorer.disk.stable, &changed).map_err(nothing)?;
        explorer.restore(&changed);
        if let Event::Leased { records } = event {
            explorer.explored.leased += records;
        }
        if let Event::Imitated { start, bytes } = event {
            explorer.explored.imitated += u64::from(explorer.is_marker(*start as usize, bytes));
        }
        if matters(event) {
            let before = explorer.explored.images;
            let violation = |(choice, what)| Violation { position, choice, what };
            explorer.place(&oracle, event).map_err(violation)?;
            if matches!(event, Event::Arrived { .. }) {
                explorer.killed(&oracle).map_err(violation)?;
            }
            progress(explorer.explored.images - before);
            if explorer.explored.positions == survives_at {
                explorer.survive(&oracle).map_err(|(choice, what)| Violation { position, choice, what })?;
            }
            explorer.explored.positions += 1;
        }
    }
    Ok(explorer.explored)
}

/// Whether there are new images after it, or more that must survive.
fn matters(event: &Event) -> bool {
    matches!(
        event,
        Event::Arrived { .. }
            | Event::FlushEnded { .. }
            | Event::Acknowledged { .. }
            | Event::Watermark { .. }
            | Event::Resized { .. }
    )
}

struct Explorer<'a> {
    disk: Disk<'a>,
    /// Equals `disk.stable` between two images.
    image: Vec<u8>,
    random: Random,
    promise: Promise,
    per_place: usize,
    explored: Explored,
}

impl Explorer<'_> {
    /// Whether these bytes at `start` hold a marker under the key that the file has.
    fn is_marker(&self, start: usize, bytes: &[u8]) -> bool {
        let first = start.next_multiple_of(BLOCK);
        let blocks = bytes.get(first - start..).unwrap_or_default().chunks(BLOCK).zip((first..).step_by(BLOCK));
        let key = self.disk.keys().last().copied().flatten();
        key.is_some_and(|key| blocks.into_iter().any(|(block, address)| is_marker(block, address, key)))
    }

    fn place(&mut self, oracle: &Oracle, event: &Event) -> Result<(), (String, String)> {
        let count = self.disk.pending.len();
        let mut choices = self.directed();
        let by_hand = choices.len();
        let reported = matches!(event, Event::Acknowledged { .. } | Event::FlushEnded { .. });
        let subsets = 1_usize << count.min(usize::BITS as usize - 1);
        if count <= ALL_SUBSETS && (subsets <= self.per_place || reported && subsets <= 8 * self.per_place) {
            choices.extend((0..subsets).map(|bits| subset(count, |n| bits >> n & 1 == 1)));
        }
        while count > 0 && choices.len() < self.per_place.max(by_hand + 4) {
            let choice = by_chance(&mut self.random, &self.disk.pending);
            choices.push(choice);
        }
        choices.into_iter().try_for_each(|choice| self.try_choice(oracle, &choice))
    }

    fn directed(&mut self) -> Vec<Vec<Take>> {
        let count = self.disk.pending.len();
        let mut choices = vec![vec![Take::Lost; count], vec![Take::Whole; count]];
        for one in (0..count).filter(|&n| n < BY_ITSELF.0 || n + BY_ITSELF.1 >= count) {
            choices.push(subset(count, |n| n == one));
            choices.push(subset(count, |n| n != one));
            choices.push(subset(count, |n| n <= one));
            choices.push(subset(count, |n| n >= one));
            let sectors = self.disk.pending[one].sectors();
            let middle = self.random.below(sectors);
            for tear in [Take::Head(middle), Take::Tail(middle), Take::Without(middle), Take::Only(middle)] {
                let others = self.random.pick(&[Take::Lost, Take::Whole]);
                choices.push((0..count).map(|n| if n == one { tear } else { others }).collect());
            }
        }
        choices
    }

    fn try_choice(&mut self, oracle: &Oracle, choice: &[Take]) -> Result<(), (String, String)> {
        let mut differs: Vec<Range<usize>> = Vec::new();
        for (pending, take) in self.disk.pending.iter().zip(choice).filter(|(_, take)| **take != Take::Lost) {
            pending.apply(&mut self.image, |sector| take.takes(sector));
            differs.push(pending.offset..pending.end());
        }
        self.explored.images += 1;
        self.explored.torn += u64::from(choice.iter().any(|take| !matches!(take, Take::Lost | Take::Whole)));
        let verdict = oracle.judge(&self.image, &differs);
        let verdict = verdict.and_then(|()| oracle.judge_end(&self.image, self.disk.keys()));
        // One in many: enough to see that there are some.
        if oracle.is_complete() && self.explored.images.is_multiple_of(64) {
            self.explored.far_holes += u64::from(self.holes(oracle).is_err());
        }
        self.restore(&differs);
        verdict.map_err(|what| (describe(&self.disk.pending, choice), what))
    }

    /// The images of a killed process: all completed writes are there, and each other one is there, or not, or in
    /// part.
    fn killed(&mut self, oracle: &Oracle) -> Result<(), (String, String)> {
        if !oracle.is_complete() {
            return Ok(());
        }
        let open: Vec<_> = self.disk.pending.iter().map(Pending::is_open).collect();
        let count = open.len();
        let mut choices = vec![vec![Take::Lost; count], vec![Take::Whole; count]];
        choices.extend((0..count).filter(|&n| open[n]).map(|one| subset(count, |n| n == one)));
        choices.extend((0..2).map(|_| by_chance(&mut self.random, &self.disk.pending)));
        for choice in choices {
            let mut differs: Vec<Range<usize>> = Vec::new();
            for (pending, take) in self.disk.pending.iter().zip(&choice) {
                let taken = |sector| if pending.is_open() { take.takes(sector) } else { pending.has_completed(sector) };
                pending.apply(&mut self.image, taken);
                differs.push(pending.offset..pending.end());
            }
            self.explored.images += 1;
            self.explored.killed += 1;
            let verdict = oracle.judge(&self.image, &differs).and_then(|()| self.holes(oracle));
            self.restore(&differs);
            let all = format!(
                "the process is killed, all completed writes are there, and {}",
                describe(&self.disk.pending, &choice)
            );
            verdict.map_err(|what| (all, what))?;
        }
        Ok(())
    }

    /// Whether the image has holes where the write mode does not allow them after a kill.
    fn holes(&self, oracle: &Oracle) -> Result<(), String> {
        self.promise.check(&self.image, oracle.expected(), oracle.watermark())
    }

    /// Makes the image equal to stable storage again, from which it may differ in these parts.
    fn restore(&mut self, differs: &[Range<usize>]) {
        let stable = &self.disk.stable;
        self.image.resize(stable.len(), 0);
        for range in differs {
            let range = range.start.min(stable.len())..range.end.min(stable.len());
            self.image[range.clone()].copy_from_slice(&stable[range]);
        }
    }

    /// Keeps a random image for the next incarnation, and checks all of it, as that incarnation might.
    fn survive(&mut self, oracle: &Oracle) -> Result<(), (String, String)> {
        let choice = by_chance(&mut self.random, &self.disk.pending);
        let mut image = self.disk.stable.clone();
        for (pending, take) in self.disk.pending.iter().zip(&choice) {
            pending.apply(&mut image, |sector| take.takes(sector));
        }
        oracle.judge_whole(&image).map_err(|what| (describe(&self.disk.pending, &choice), what))?;
        self.explored.survivor = image;
        self.explored.key = self.random.pick(self.disk.keys());
        self.explored.owed_end = oracle.owed_end();
        Ok(())
    }
}

/// A random subset, with random tears: few, some, or many of each.
pub(crate) fn by_chance(random: &mut Random, pending: &[Pending<'_>]) -> Vec<Take> {
    let (lost, torn) = (random.below(101), random.below(101));
    let one = |_: &Pending<'_>| match random.chance(lost) {
        true => Take::Lost,
        false if random.chance(torn) => Take::Torn(random.next()),
        false => Take::Whole,
    };
    pending.iter().map(one).collect()
}

fn subset(count: usize, has: impl Fn(usize) -> bool) -> Vec<Take> {
    (0..count).map(|n| if has(n) { Take::Whole } else { Take::Lost }).collect()
}

pub(crate) fn describe(pending: &[Pending<'_>], choice: &[Take]) -> String {
    let mut text = String::from("of what is pending there survive");
    for (pending, take) in pending.iter().zip(choice).filter(|(_, take)| **take != Take::Lost) {
        let _ = write!(text, " {}({}..{}):{take:?}", pending.write, pending.offset, pending.end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordId, encode, marker};

    const LEN: usize = 1500;

    fn record(sequence: u32) -> RecordId {
        RecordId { incarnation: 1, writer: 0, sequence }
    }

    /// A block with one record.
    fn block(sequence: u32) -> Vec<u8> {
        let mut bytes = encode(record(sequence), LEN);
        bytes.resize(BLOCK, 0);
        bytes
    }

    fn appended(sequence: u32) -> [Event; 2] {
        let start = u64::from(sequence) * BLOCK as u64;
        [
            Event::Submitted { record: record(sequence), len: LEN as u32 },
            Event::Placed { record: record(sequence), start },
        ]
    }

    fn arrived(sequence: u32, synced: bool) -> Event {
        let offset = u64::from(sequence) * BLOCK as u64;
        Event::Arrived { write: sequence as usize, offset, bytes: block(sequence), synced }
    }

    fn completed(sequence: u32) -> Event {
        Event::Completed { write: sequence as usize, written: BLOCK }
    }

    fn flushed(flush: usize, succeeded: bool) -> [Event; 2] {
        [Event::FlushBegan { flush }, Event::FlushEnded { flush, succeeded }]
    }

    fn acknowledged(sequence: u32) -> Event {
        Event::Acknowledged { record: record(sequence) }
    }

    /// The verdict of an exploration on two appended records, and then `events`.
    fn verdict(events: impl IntoIterator<Item = Event>) -> Result<u64, String> {
        let events = [appended(0), appended(1)].into_iter().flatten().chain(events).collect();
        let (before, setting, file_system) = (Vec::new(), "by hand".to_owned(), None);
        let log = Log {
            seed: 1,
            images: 2000,
            setting,
            serialized: false,
            reach: None,
            file_system,
            before,
            key: None,
            start: 0,
            events,
        };
        explore(&log, |_| ()).map(|explored| explored.images).map_err(|violation| violation.what)
    }

    fn said_to_be_stable(verdict: Result<u64, String>) {
        let what = verdict.expect_err("a violation");
        assert!(what.contains("were reported stable"), "{what}");
    }

    #[test]
    fn a_write_that_a_flush_covers_may_be_acknowledged() {
        let flush = flushed(0, true);
        let events =
            [arrived(0, false), arrived(1, false), completed(0)].into_iter().chain(flush).chain([acknowledged(0)]);
        assert!(verdict(events).expect("no violation") > 1000);
    }

    #[test]
    fn a_write_that_no_flush_covers_may_not() {
        said_to_be_stable(verdict([arrived(0, false), completed(0), acknowledged(0)]));
    }

    #[test]
    fn a_flush_does_not_cover_what_completes_while_it_runs() {
        let [begin, end] = flushed(0, true);
        said_to_be_stable(verdict([arrived(0, false), begin, completed(0), end, acknowledged(0)]));
    }

    #[test]
    fn a_flush_after_one_that_failed_covers_nothing_of_it() {
        let events = [arrived(0, false), completed(0)].into_iter().chain(flushed(0, false)).chain(flushed(1, true));
        said_to_be_stable(verdict(events.chain([acknowledged(0)])));
    }

    #[test]
    fn a_synced_write_is_stable_when_it_completes_and_not_before() {
        assert!(verdict([arrived(0, true), completed(0), acknowledged(0)]).is_ok());
        said_to_be_stable(verdict([arrived(0, true), acknowledged(0), completed(0)]));
    }

    #[test]
    fn a_synced_write_that_came_back_short_is_stable_as_far_as_it_was_written() {
        let short = Event::Completed { write: 0, written: LEN.next_multiple_of(512) };
        assert!(verdict([arrived(0, true), short, acknowledged(0)]).is_ok());
        said_to_be_stable(verdict([arrived(0, true), Event::Completed { write: 0, written: 1024 }, acknowledged(0)]));
    }

    /// A payload that is a marker of the file takes the first block; `before` and `after` are what happens to the key
    /// before it is written, and before it is acknowledged.
    fn imitated(before: Vec<Event>, after: Vec<Event>) -> Result<u64, String> {
        let bytes = marker([7; 16], 0).to_vec();
        let (write, written) = (0, BLOCK);
        let payload = Event::Imitated { start: 0, bytes: bytes.clone() };
        let arrived = Event::Arrived { write, offset: 0, bytes, synced: true };
        let acknowledged = Event::Watermark { address: BLOCK as u64 };
        let write = [payload, arrived, Event::Completed { write, written }];
        let events = before.into_iter().chain(write).chain(after).chain([acknowledged]).collect();
        let (setting, file_system, key) = ("by hand".to_owned(), None, Some([7; 16]));
        let (before, start) = (Vec::new(), 0);
        let log = Log {
            seed: 1,
            images: 2000,
            setting,
            serialized: false,
            reach: None,
            file_system,
            before,
            key,
            start,
            events,
        };
        explore(&log, |_| ()).map(|explored| explored.imitated).map_err(|violation| violation.what)
    }

    #[test]
    fn a_payload_that_is_a_marker_is_acknowledged_only_when_its_key_is_gone_for_good() {
        let (changed, synced) = (Event::KeyChanged { key: None }, Event::KeySynced { key: None });
        assert!(imitated(vec![changed.clone()], vec![synced.clone()]).is_ok());
        assert!(imitated(vec![], vec![changed.clone(), synced.clone()]).is_ok_and(|imitated| imitated == 1));
        let failed = flushed(0, false).to_vec();
        let after_a_failure = [changed.clone()].into_iter().chain(failed).collect();
        for (before, after) in [(vec![], vec![]), (vec![changed], vec![]), (after_a_failure, vec![synced])] {
            let what = imitated(before, after).expect_err("a violation");
            assert!(what.contains("the log would be found to end"), "{what}");
        }
    }

    #[test]
    fn a_watermark_does_not_pass_a_hole() {
        let flush = flushed(0, true);
        let events = [arrived(0, false), arrived(1, false), completed(1)].into_iter().chain(flush);
        said_to_be_stable(verdict(events.chain([Event::Watermark { address: 2 * BLOCK as u64 }])));
    }

    #[test]
    fn what_was_refused_is_not_to_be_seen() {
        let record = RecordId { incarnation: 1, writer: 9, sequence: 0 };
        let mut bytes = encode(record, LEN);
        bytes.resize(BLOCK, 0);
        let refused = [Event::Submitted { record, len: LEN as u32 }, Event::Refused { record }];
        let write = Event::Arrived { write: 0, offset: 8192, bytes, synced: false };
        let what = verdict(refused.into_iter().chain([write])).expect_err("a violation");
        assert!(what.contains("8192"), "{what}");
    }

    #[test]
    fn nothing_is_written_twice_nor_changed_on_its_way() {
        let again = |first: Option<Event>| {
            let second = Event::Arrived { write: 1, offset: 0, bytes: block(0), synced: false };
            verdict([arrived(0, false)].into_iter().chain(first).chain([second]))
        };
        assert!(again(None).is_err());
        assert!(again(Some(completed(0))).is_err());
        assert!(again(Some(Event::Completed { write: 0, written: 512 })).is_ok());
        assert!(again(Some(Event::Failed { write: 0 })).is_ok());
        assert!(verdict([arrived(0, false), Event::Changed { write: 0 }]).is_err());
    }
}
