//! What logs say about what a power cut leaves of their own files, and about damage to it. `cargo xtask verdicts`
//! builds and starts this.
//!
//! ```text
//!  records ──▶ log ──▶ disk, recorded ──▶ images ──▶ damage ──▶ the same log ──▶ records, or a refusal
//! ```
//!
//! Each program appends the same groups of records, each group synced, on a disk that writes down what happens. From
//! that, power cuts at random moments are computed, each with one of the legal images; a log that is opened on it has
//! to give back every acknowledged record. Then the same with one damage to what had been synced: the log has to
//! report it, or to give every acknowledged record back.

mod contestants;
mod crash;
mod damage;
mod disk;
mod tally;
mod worker;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ring_testing::Random;

use crate::contestants::{Contestant, Program};
use crate::crash::{Keeps, Moment};
use crate::damage::Damage;
use crate::disk::{Event, Recorder};
use crate::tally::{Outcome, Row};
use crate::worker::{Found, Worker};

/// Where a program keeps its log.
const LOG: &str = "log";

#[derive(Debug, Parser)]
#[command(name = "cargo xtask verdicts", about = "What logs say about power cuts and damage")]
struct Arguments {
    /// Trials of each log: so many power cuts, and so many with each kind of damage.
    #[arg(long, default_value_t = 1000)]
    trials: u64,
    /// Recordings of each program that the trials are taken from.
    #[arg(long, default_value_t = 10)]
    recordings: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only logs whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Prints so many trials of each outcome of each row.
    #[arg(long, default_value_t = 0)]
    show: u64,
    /// Takes one acknowledged record away from what each log returned: all of these trials must count as losses.
    #[arg(long)]
    plant: bool,
    /// Folder for the images.
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
    #[arg(long, hide = true)]
    worker: bool,
}

/// One program, recorded.
struct Recording {
    program: Program,
    seed: u64,
    events: Vec<Event>,
}

impl Recording {
    /// An event at which the power is cut: while a group is appended and synced, from the groups of all openings, or
    /// before the first one. The same group for all logs, however many events it has.
    fn position(&self, random: &mut Random) -> usize {
        let is_start = |(at, event): (usize, &Event)| matches!(event, Event::Submitted(_)).then_some(at);
        let starts = self.events.iter().enumerate().filter_map(is_start);
        let starts: Vec<_> = [0].into_iter().chain(starts).chain([self.events.len()]).collect();
        let group = random.below(starts.len() - 1);
        starts[group] + random.below(starts[group + 1] - starts[group])
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.worker { worker::serve() } else { run(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("verdicts: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let contestants: Vec<_> =
        Contestant::ALL.into_iter().filter(|contestant| contestant.name().contains(&arguments.only)).collect();
    let mut recordings = Vec::new();
    for program in Program::ALL {
        if contestants.iter().any(|contestant| contestant.program() == program) {
            for number in 0..arguments.recordings {
                recordings.push(record(program, arguments.seed + number)?);
            }
        }
    }
    let kinds = || [None].into_iter().chain(Damage::ALL.map(Some));
    let bar = ProgressBar::new(arguments.trials * 9 * contestants.len() as u64);
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}").map_err(text)?);
    let folder = tempfile::tempdir_in(&arguments.folder).map_err(text)?;
    let mut worker = Worker::start().map_err(text)?;
    let mut rows = Vec::new();
    for damage in kinds() {
        for &contestant in &contestants {
            let of_program: Vec<_> = recordings.iter().filter(|one| one.program == contestant.program()).collect();
            let mut row = Row::new(contestant, damage);
            for trial in 0..arguments.trials {
                let recording = of_program[(trial % arguments.recordings) as usize];
                // The same for all logs, as far as their files allow.
                let seed = Random::new(arguments.seed ^ trial << 16 ^ damage.map_or(0, |kind| kind as u64 + 1)).next();
                let one = Trial { contestant, damage, recording, seed, plant: arguments.plant };
                let seen = one.run(&mut worker, &folder.path().join("image")).map_err(text)?;
                if let Some(seen) = seen
                    && row.count(seen.outcome) <= arguments.show
                {
                    bar.suspend(|| println!("{seen}"));
                }
                bar.inc(1);
            }
            rows.push(row);
        }
    }
    bar.finish_and_clear();
    tally::print(&rows, arguments.seed, arguments.trials, arguments.recordings);
    Ok(())
}

fn record(program: Program, seed: u64) -> Result<Recording, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let recorder = Recorder::mount(folder.path()).map_err(|error| format!("no FUSE: {error}"))?;
    let written = program.write(&folder.path().join(LOG), seed, &recorder);
    let events = recorder.end().map_err(text)?;
    written.map_err(|error| format!("{program:?} did not write: {error}"))?;
    Ok(Recording { program, seed, events })
}

fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

/// One power cut, perhaps with damage, and one opening.
struct Trial<'a> {
    contestant: Contestant,
    damage: Option<Damage>,
    recording: &'a Recording,
    seed: u64,
    plant: bool,
}

/// What came of a trial.
struct Seen<'a> {
    trial: &'a Trial<'a>,
    position: usize,
    keeps: Keeps,
    place: Option<String>,
    acknowledged: u64,
    found: Found,
    outcome: Outcome,
}

impl Trial<'_> {
    /// `None`: there is no place for the damage.
    fn run(&self, worker: &mut Worker, folder: &Path) -> std::io::Result<Option<Seen<'_>>> {
        /// Moments at which there may be nothing to damage, in a row.
        const MOMENTS: usize = 20;
        let mut random = Random::new(self.seed);
        for _ in 0..MOMENTS {
            let position = self.recording.position(&mut random);
            let moment = Moment::at(&self.recording.events, position);
            let (mut image, keeps) = moment.image(&mut random);
            let place = match self.damage.map(|damage| damage.inflict(&mut image, &moment, &mut random)) {
                Some(None) => continue,
                place => place.flatten(),
            };
            worker::clear(folder)?;
            image.write(folder)?;
            let mut found = worker.open(self.contestant, self.recording.seed, &folder.join(LOG))?;
            if let (true, Found::Records(numbers), 1..) = (self.plant, &mut found, moment.acknowledged) {
                let victim = random.next() % moment.acknowledged;
                numbers.retain(|number| *number != Some(victim));
            }
            let outcome = tally::judge(&found, &moment);
            let acknowledged = moment.acknowledged;
            return Ok(Some(Seen { trial: self, position, keeps, place, acknowledged, found, outcome }));
        }
        Ok(None)
    }
}

impl core::fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Trial { contestant, damage, recording, seed, .. } = self.trial;
        let (name, kind) = (contestant.name(), damage.map_or("power cut", Damage::name));
        write!(f, "{:?}: {name}, {kind}, recording {}, trial {seed}: ", self.outcome, recording.seed)?;
        write!(f, "event {} of {}, ", self.position, recording.events.len())?;
        match self.keeps {
            Keeps::Before(event) => write!(f, "kept what came before event {event}, ")?,
            keeps => write!(f, "kept {keeps:?}, ")?,
        }
        if let Some(place) = &self.place {
            write!(f, "damage: {place}, ")?;
        }
        write!(f, "{} acknowledged; ", self.acknowledged)?;
        match &self.found {
            Found::Records(numbers) => write!(f, "{} records: {}", numbers.len(), tally::ranges(numbers)),
            other => write!(f, "{other:?}"),
        }
    }
}
