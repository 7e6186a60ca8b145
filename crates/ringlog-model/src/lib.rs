//! The rules of `ringlog`'s record layer as a program: a specification that can be run.
//!
//! It shares no code with `ringlog`. A `World` is a log, its disk and the truth about both: a writer that submits
//! batches whose writes come back in any order, syncs, makes and recycles segments, trims and closes; a disk that
//! leaves any legal state after a power cut or a kill; recovery, which may itself be stopped at each step; damage of
//! many kinds; and an oracle. Checksums are ideal: they never collide.
//!
//! | rule | what the oracle requires |
//! |---|---|
//! | `a` | nothing acknowledged is missing after a legal crash |
//! | `b` | what is accepted is exactly what was submitted there, and not cut or trimmed since |
//! | `c` | a legal crash is never damage, and neither is damage beside the log |
//! | `d` | what lies below a promise that survives, and is not as it was, is damage |
//! | `d` | one bad slot of `MANIFEST` changes nothing; a missing segment is noticed; setting aside is never half done |
//! | `fast` | a fast open finds the end that a full one finds |
//!
//! All of it is required again after each recovery, with further appends, cuts and crashes behind it.
//!
//! | module | |
//! |---|---|
//! | `disk` | what a crash may leave |
//! | `format` | what stands in a sector |
//! | `recovery` | the verdict, which only reads |
//! | `log` | opening and writing |
//! | `world` | what happens in a scenario, and the truth about it; `oracle`: what must hold; `damage` |
//! | `flaw` | mistakes that can be planted, one at a time |
//! | `choose` | where choices come from: chance, or all of them in order |
//!
//! With a [`Flaw`] the model breaks one rule, and the oracle has to notice: so each rule is known to be needed, and the
//! oracle to be awake. [`random`] and [`systematic`] run the scenarios; `tests/model.rs` says how many.
//!
//! Not modelled: the contents of records but truncations and one named value, which a snapshot at the head of each
//! segment keeps; long records, cursors, gaps (damage that was skipped), failed writes of `MANIFEST` and the directory,
//! writes of a killed process that arrive after the next opening, checksums that collide.

#![forbid(unsafe_code)]

mod choose;
mod design;
mod disk;
mod flaw;
mod format;
mod log;
mod recovery;
mod world;

use choose::Choose;
use design::Design;
use world::World;

pub use flaw::Flaw;
pub use world::{Figures, Plan, Violation};

/// Runs the scenario that follows from `seed`, with that flaw or none, and adds what happened to `figures`.
///
/// # Errors
///
/// The rule that was broken. With `trace`, also what led there.
pub fn random(flaw: Option<Flaw>, seed: u64, trace: bool, figures: &mut Figures) -> Result<(), Violation> {
    let mut choose = Choose::chance(seed);
    let segment = 3 + choose.pick(3) as u64;
    let epochs = [2, 3, 64, 64][choose.pick(4)];
    let damage = choose.percent(50);
    World::new(Design { flaw, segment, log: 1, epochs }, 2, trace).scenario(&mut choose, damage, figures)
}

/// Goes through the paths of `plan`, every choice in order, up to `limit` of them. Returns whether these were all.
///
/// # Errors
///
/// The rule that was broken.
pub fn systematic(flaw: Option<Flaw>, plan: Plan, limit: u64, figures: &mut Figures) -> Result<bool, Violation> {
    let mut choose = Choose::all();
    for _ in 0..limit {
        World::new(Design { flaw, segment: 2, log: 1, epochs: 64 }, 1, false).small(&mut choose, plan, figures)?;
        if !choose.next() {
            return Ok(true);
        }
    }
    Ok(false)
}
