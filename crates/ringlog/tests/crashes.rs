//! Crash images of a real log that several threads write to, roll, trim, truncate and read: nothing durable is lost,
//! nothing is invented or comes back, groups and long records are whole or not there, the verdict is the oracle's and
//! never "damaged"; and each image once more with damage. The log goes on from an image, and crashes again.

mod common;

use common::crash::Machine;
use common::world::{Figures, run};

/// Crashes, recovers and goes on, `rounds` times.
fn scenario(seed: u64, rounds: usize, steps: usize) -> Result<Figures, String> {
    let mut machine = Machine::new(seed);
    for _ in 0..rounds {
        machine.open()?;
        let hands = machine.random.pick(&[1, 1, 2, 3]);
        let steps = 1 + machine.random.below(steps);
        machine.work(hands, steps)?;
        match machine.random.below(8) {
            0 => machine.close()?,
            1 | 2 => machine.crash(false)?,
            3 | 4 => machine.interrupt()?,
            _ => machine.crash(true)?,
        }
    }
    machine.open()?;
    machine.close()?;
    Ok(machine.figures)
}

#[test]
fn every_crash_of_a_real_log_keeps_what_was_durable_and_adds_nothing() {
    // Damaged ones are counted besides.
    let default = if cfg!(debug_assertions) { 500 } else { 50_000 };
    let images = |figures: &Figures| figures.images;
    let (wanted, figures) = run("RINGLOG_CRASHES", default, images, |seed| scenario(seed, 4, 60));
    if wanted >= 500 {
        let Figures { torn, clean, unclosed, kills, records, .. } = figures;
        let Figures { damaged_images, judged_damaged, refused, had_to_be_damaged, .. } = figures;
        let met = [torn, clean, unclosed, kills, records, damaged_images, judged_damaged, refused, had_to_be_damaged];
        assert!(met.iter().all(|&times| times > 0), "{met:?}");
    }
}

#[test]
fn a_log_that_crashes_again_and_again_has_every_durable_record_of_every_round() {
    // Checked all the same, but faster, by the gate.
    let rounds = if cfg!(debug_assertions) { 50 } else { 200 };
    let figures = scenario(200, rounds, 12).unwrap_or_else(|what| panic!("{what}"));
    assert!(figures.images >= rounds as u64 && figures.torn > 0, "{figures:#?}");
}
