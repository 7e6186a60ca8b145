//! Crash images of a real log that several threads write to, roll, trim, truncate and read: nothing durable is lost,
//! nothing is invented or comes back, groups and long records are whole or not there, the verdict is the oracle's and
//! never "damaged"; and each image once more with damage. The log goes on from an image, and crashes again.

mod common;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::env;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::thread;

use common::crash::Machine;
use common::world::Figures;

/// Crash images of one run; damaged ones are counted besides.
fn wanted() -> u64 {
    let default = if cfg!(debug_assertions) { 500 } else { 25_000 };
    env::var("RINGLOG_CRASHES").ok().and_then(|images| images.parse().ok()).unwrap_or(default)
}

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
    let (wanted, next) = (wanted(), AtomicU64::new(0));
    let first = env::var("RINGLOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let total = Mutex::new((Figures::default(), None::<String>));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = first + next.fetch_add(1, Relaxed);
                    let ran = catch_unwind(|| scenario(seed, 4, 60)).unwrap_or_else(|_| Err("panic".into()));
                    let (figures, failure) = &mut *total.lock().expect("no panic");
                    match ran {
                        Ok(more) => figures.add(&more),
                        Err(what) => {
                            let again = format!("RINGLOG_SEED={seed} RINGLOG_CRASHES=1");
                            _ = failure.get_or_insert(format!("seed {seed}: {what}\n  {again}"));
                        }
                    }
                    if failure.is_some() || figures.images >= wanted {
                        break;
                    }
                }
            });
        }
    });
    let (figures, failure) = total.into_inner().expect("no panic");
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{figures:#?}");
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
