//! Runs rounds: contestants take turns, so that whatever the machine does to one it does to all.

use std::fs;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::log::{Contestant, Outcome, Place};
use crate::measure::{Amount, Job, Sample};
use crate::memory_device::MemoryDevice;
use crate::placement::{self, Hops};
use crate::results::{Entry, Numbers, RoundResult};
use crate::workloads::{Check, Round, Scale, Workload};

pub fn run(workloads: &[Workload], scale: Scale, only: &str, folder: &Path) -> Outcome<Vec<RoundResult>> {
    let plan: Vec<_> = workloads.iter().map(|workload| (workload, rounds(workload, scale, only))).collect();
    let steps: usize =
        plan.iter().flat_map(|(_, rounds)| rounds).map(|round| round.repetitions * round.contestants.len()).sum();
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}")?);
    let mut results = Vec::new();
    for (workload, rounds) in plan {
        let device = if workload.is_on_memory_device() {
            match MemoryDevice::new() {
                Ok(device) => Some(device),
                Err(error) => {
                    bar.println(format!("{}: skipped, there is no memory-backed device: {error}", workload.name));
                    continue;
                }
            }
        } else {
            None
        };
        let folder = device.as_ref().map_or(folder, MemoryDevice::folder).join(workload.name);
        for round in rounds {
            results.push(run_round(workload, &round, &folder, &bar)?);
        }
        fs::remove_dir_all(&folder)?;
    }
    bar.finish_and_clear();
    Ok(results)
}

fn rounds(workload: &Workload, scale: Scale, only: &str) -> Vec<Round> {
    let mut rounds = workload.rounds(scale);
    rounds.iter_mut().for_each(|round| round.contestants.retain(|contestant| contestant.name.contains(only)));
    rounds
}

fn run_round(workload: &Workload, round: &Round, folder: &Path, bar: &ProgressBar) -> Outcome<RoundResult> {
    let new = |contestant: &Contestant| Entry {
        name: contestant.name.into(),
        family: contestant.family,
        samples: Vec::new(),
        disqualified: None,
    };
    let mut entries: Vec<_> = round.contestants.iter().map(new).collect();
    for repetition in 0..round.repetitions {
        for (contestant, entry) in round.contestants.iter().zip(&mut entries) {
            bar.set_message(format!(
                "{}: {} B, {} threads: {}",
                workload.name, round.size, round.threads, contestant.name
            ));
            if entry.is_in() {
                let before = placement::hop();
                match measure(round, contestant, repetition, folder) {
                    Ok(sample) => {
                        let hops = before.zip(placement::hop()).map(|(before, after)| Hops { before, after });
                        entry.samples.push(Numbers { hops, ..(&sample).into() });
                        entry.disqualified = sample.verdict.and_then(Result::err);
                    }
                    Err(error) => entry.disqualified = Some(error.to_string()),
                }
                if let Some(reason) = &entry.disqualified {
                    bar.println(format!("{}: {} is out: {reason}", workload.name, contestant.name));
                }
            }
            bar.inc(1);
        }
    }
    Ok(RoundResult { workload: workload.name.into(), size: round.size, threads: round.threads, entries })
}

fn measure(round: &Round, contestant: &Contestant, repetition: usize, folder: &Path) -> Outcome<Sample> {
    // The same folder in each repetition: what is prepared there serves again.
    let place = Place {
        folder: folder.join(contestant.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")),
        threads: round.threads,
        size: round.size,
        memory: round.memory,
        expected: round.expected,
        checked: matches!(round.check, Check::Always) || (matches!(round.check, Check::First) && repetition == 0),
    };
    fs::create_dir_all(&place.folder)?;
    let job = Job { place, amount: round.amount, timed: round.timed };
    if let Check::Beforehand(records) = round.check
        && repetition == 0
    {
        let place = Place { checked: true, ..job.place.clone() };
        let sample = contestant.run(&Job { place, amount: Amount::Records(records), timed: false })?;
        if let Some(Err(reason)) = sample.verdict {
            return Err(reason.into());
        }
    }
    contestant.run(&job)
}
