//! Crash images of random logs, and each of them with one damage: the verdict is the oracle's, nothing acknowledged
//! is lost, nothing is invented, no legal crash is "damaged", and damage below the highest surviving promise always
//! is.

mod common;

use common::world::{Figures, World, run};
use ringlog::recovery::Verdict;

fn scenario(seed: u64) -> Result<Figures, String> {
    let mut world = World::new(seed);
    let rounds = 1 + world.random.below(4);
    for _ in 0..rounds {
        world.recover(true)?;
        world.past.push(world.directory.power_cut(0).contents());
        if world.random.chance(10) {
            world.stop(true);
            let image = world.directory.clone();
            if let Some(report) = world.check_legal(&image)? {
                world.chain.retain(|batch| batch.base < report.end.get());
                world.fork_away()?;
            }
            world.recover(false)?;
        }
        if world.random.chance(30) {
            world.directory.stop_after(world.random.below(60) as u64);
        }
        for step in 0..4 + world.random.below(40) {
            if world.work().is_err() {
                break;
            }
            if step % 3 == 0 {
                look(&mut world)?;
            }
        }
        if world.random.chance(20) {
            let _ = world.close();
        }
        look(&mut world)?;
        let power = world.random.chance(60);
        world.stop(power);
    }
    let image = world.directory.clone();
    world.check_legal(&image)?;
    Ok(world.figures)
}

/// A few crash images of this moment, and each with a few kinds of damage.
fn look(world: &mut World) -> Result<(), String> {
    for _ in 0..2 {
        let seed = world.random.next();
        if world.random.chance(20) {
            let image = world.directory.kill(seed);
            world.check_legal(&image)?;
            continue;
        }
        let image = world.directory.power_cut(seed);
        let Some(report) = world.check_legal(&image)? else { continue };
        if world.past.len() < 40 {
            world.past.push(image.contents());
        }
        for _ in 0..2 {
            let Some((damaged, found)) = world.check_damaged(&image, &report)? else { continue };
            let trimmed = found.end < found.first;
            if matches!(found.verdict, Verdict::Damaged(_)) && !trimmed && world.random.chance(15) {
                world.check_decided(&damaged, &found)?;
            }
        }
    }
    Ok(())
}

#[test]
fn every_crash_image_is_judged_right_and_with_every_kind_of_damage() {
    let default = if cfg!(debug_assertions) { 3_000 } else { 100_000 };
    let images = |figures: &Figures| figures.images + figures.damaged_images;
    let (wanted, figures) = run("RINGLOG_IMAGES", default, images, scenario);
    // Every case that must occur has occurred.
    if wanted >= 3_000 {
        let Figures { torn, clean, unclosed, fresh, judged_damaged, refused, had_to_be_damaged, .. } = figures;
        let Figures { unprovable, fast_jumps, set_aside, skipped, interrupted, trims, records, kills, .. } = figures;
        let met = [torn, clean, unclosed, fresh, judged_damaged, refused, had_to_be_damaged, unprovable, fast_jumps];
        assert!(met.iter().all(|&times| times > 0), "{met:?}");
        let met = [set_aside, skipped, interrupted, trims, records, kills];
        assert!(met.iter().all(|&times| times > 0), "{met:?}");
    }
}
