//! `faults`: a fault of each kind at every write and at every flush of a short workload, over a real kernel.
//!
//! Each run checks three things: that the workload ends, that it reports what it must, and that every image which a
//! power cut then might leave is legal. A run whose workload ended before it met its fault does not count as tried.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use clap::Args;
use libc::{EAGAIN, EBUSY, ECANCELED, EDQUOT, EINTR, EIO, ENOSPC};

use crate::append_path::PathMix;
use crate::explore::explore;
use crate::incarnation::{self, Plan, Recorded};
use crate::log::{Event, Log};
use crate::machine::{Fault, Target};
use crate::record::is_preallocated;
use crate::report::{self, count, table};
use crate::workload::Engine;

const IMAGES: u64 = 600;
/// Times that the disk vanishes, for each engine.
const VANISHES: usize = 5;

/// Name, row of the matrix in `docs/TESTING.md`, what happens, and what the workload must report.
type Kind = (&'static str, u32, Fault, Expected);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// No error.
    Success,
    /// The error has to be reported.
    Failure,
    /// Only an end: whether it succeeds is up to the kernel.
    Either,
}

const WRITE_KINDS: &[Kind] = &[
    ("write: comes back short inside of a block", 8, Fault::Short(2048), Expected::Success),
    ("write: comes back short after a block", 8, Fault::Short(4096), Expected::Success),
    ("write: comes back with nothing written", 9, Fault::Short(0), Expected::Either),
    ("write: EIO, once", 10, Fault::Error(EIO), Expected::Failure),
    ("write: EIO, for ever", 10, Fault::ErrorForEver(EIO), Expected::Failure),
    ("write: EIO, after half of it has landed", 10, Fault::ErrorHalfLanded(EIO), Expected::Failure),
    ("write: ENOSPC", 12, Fault::Error(ENOSPC), Expected::Failure),
    ("write: ENOSPC, for ever", 12, Fault::ErrorForEver(ENOSPC), Expected::Failure),
    ("write: EDQUOT", 12, Fault::Error(EDQUOT), Expected::Failure),
    ("write: EINTR", 16, Fault::Error(EINTR), Expected::Success),
    ("write: EAGAIN", 16, Fault::Error(EAGAIN), Expected::Success),
    ("write: EBUSY", 16, Fault::Error(EBUSY), Expected::Success),
    ("write: ECANCELED", 16, Fault::Error(ECANCELED), Expected::Success),
    ("write: held, while the rest goes on", 17, Fault::Held, Expected::Success),
    ("disk: vanishes", 18, Fault::Vanish, Expected::Failure),
];

const FLUSH_KINDS: &[Kind] = &[
    ("flush: EIO, then success", 11, Fault::Error(EIO), Expected::Failure),
    ("flush: EIO, for ever", 11, Fault::ErrorForEver(EIO), Expected::Failure),
    ("flush: ENOSPC", 12, Fault::Error(ENOSPC), Expected::Failure),
    ("flush: held", 17, Fault::Held, Expected::Success),
];

#[derive(Args)]
pub(crate) struct FaultOptions {
    #[arg(long)]
    seed: Option<u64>,
    /// Only runs whose title contains this
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn task(options: &FaultOptions) -> Result<(), String> {
    if !incarnation::is_available()? {
        return Ok(());
    }
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let seed = options.seed.unwrap_or_else(clock);
    println!("seed {seed}");
    let begun = Instant::now();
    let mut runs = Vec::new();
    let mut leased = 0;
    let engines = incarnation::engines()?;
    for (engine, hands) in engines.into_iter().flat_map(|engine| PathMix::ALL.map(|hands| (engine, hands))) {
        let unharmed = run(seed, engine, hands, None)?;
        leased +=
            explore(&unharmed.log, |_| ()).map_err(|violation| report::violation(&unharmed.log, &violation))?.leased;
        let number = |matches: fn(&Event) -> bool| unharmed.log.events.iter().filter(|event| matches(event)).count();
        let writes = number(|event| matches!(event, Event::Arrived { .. }));
        let flushes = number(|event| matches!(event, Event::FlushBegan { .. }));
        for (kinds, total, target) in [
            (WRITE_KINDS, writes, Target::Write as fn(usize) -> Target),
            (FLUSH_KINDS, flushes, Target::Flush as fn(usize) -> Target),
        ] {
            for kind in kinds {
                let step = if kind.2 == Fault::Vanish { total.div_ceil(VANISHES).max(1) } else { 1 };
                runs.extend((0..total).step_by(step).map(|nth| (engine, hands, *kind, target(nth))));
            }
        }
    }
    if leased == 0 {
        return Err("no writer has had a lease".into());
    }
    let title = |engine: Engine, hands: PathMix, kind: &Kind, target: Target| {
        // Without blanks, so that it can be typed.
        format!("{engine:?} {hands:?} {target:?} {}", kind.0).replace(' ', "-").replace(',', "").to_lowercase()
    };
    if let Some(only) = &options.only {
        runs.retain(|(engine, hands, kind, target)| title(*engine, *hands, kind, *target).contains(only.as_str()));
    }
    let bar = report::progress("faults", runs.len() as u64);
    let mut tried: BTreeMap<(u32, &str), (u64, u64)> = BTreeMap::new();
    for (engine, hands, kind, target) in runs {
        let title = title(engine, hands, &kind, target);
        let again = |what: String| format!("{title}: {what}\n  again: cargo xtask faults --seed {seed} --only {title}");
        let Recorded { log, said, met } = run(seed, engine, hands, Some((target, kind.2))).map_err(&again)?;
        let explored = explore(&log, |_| ()).map_err(|violation| again(report::violation(&log, &violation)))?;
        bar.inc(1);
        if met {
            expect(&log, &said, target, kind).map_err(&again)?;
            let (times, images) = tried.entry((kind.1, kind.0)).or_default();
            *times += 1;
            *images += explored.images;
        }
    }
    bar.finish_and_clear();
    let heading = ["fault", "row", "tried", "images", "violations"].map(str::to_owned).to_vec();
    let rows = tried.iter().map(|((row, kind), (times, images))| {
        vec![(*kind).to_owned(), row.to_string(), count(*times), count(*images), "0".to_owned()]
    });
    print!("{}", table(&[heading].into_iter().chain(rows).collect::<Vec<_>>()));
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn run(seed: u64, engine: Engine, hands: PathMix, fault: Option<(Target, Fault)>) -> Result<Recorded, String> {
    let (before, key) = (Vec::new(), None);
    let hands = Some(hands);
    incarnation::record(&Plan {
        seed,
        incarnation: 1,
        engine,
        hands,
        appends: 8,
        before,
        key,
        owed: 0,
        fault,
        images: IMAGES,
    })
}

/// Whether the workload reported what it must.
fn expect(log: &Log, said: &str, target: Target, (_, _, fault, expected): Kind) -> Result<(), String> {
    let succeeded = said.starts_with("closed");
    let of_the_log = log.events.iter().any(|event| match (event, target) {
        (Event::Arrived { write, offset, bytes, .. }, Target::Write(nth)) => {
            *write == nth && !is_preallocated(bytes, *offset)
        }
        _ => false,
    });
    // Behind the last cut the log is closed, and on stable storage: its outcome is no longer checked.
    let cut = log.events.iter().rposition(|event| matches!(event, Event::Resized { .. }));
    let flushed = |event: &Event| matches!(event, Event::FlushBegan { flush } if target == Target::Flush(*flush));
    let began = log.events.iter().position(flushed);
    let of_the_log = of_the_log || began.is_some_and(|began| cut.is_none_or(|cut| began < cut));
    match expected {
        Expected::Success if !succeeded => Err(format!("after {fault:?} it went wrong: {said}")),
        // Preallocation may fail: then there is none.
        Expected::Failure if succeeded && of_the_log => Err(format!("{fault:?} went unnoticed: {said}")),
        _ => Ok(()),
    }
}
