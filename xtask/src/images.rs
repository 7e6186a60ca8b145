//! `cargo xtask images`: crash images of a log, of the reference writer and of a real log, each also with damage; and
//! readers of all kinds beside everything that a log does.

use crate::run::run;

/// Steps of a log beside its readers, for each image: 10^5 in the gate.
const STEPS: u64 = 4;

/// Of the gate, of each kind; with those that are damaged besides, they are more than 10^5.
const FEW: u64 = 25_000;

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let mut arguments = arguments.iter().map(String::as_str);
    let (mut images, mut seed) = (FEW, 1);
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|value| value.parse().ok());
        let number = number.ok_or_else(|| format!("{argument} takes a number"))?;
        match argument {
            "--images" => images = number,
            "--seed" => seed = number,
            _ => return Err(format!("{argument} is unknown; try --images or --seed")),
        }
    }
    let (steps, images, seed) = ((STEPS * images).to_string(), images.to_string(), seed.to_string());
    let environment = [
        ("RINGLOG_IMAGES", &*images),
        ("RINGLOG_CRASHES", &*images),
        ("RINGLOG_STEPS", &*steps),
        ("RINGLOG_SEED", &*seed),
    ];
    run(&environment, "cargo test --release -p ringlog --test images --test crashes --test readers -- --nocapture")
}

/// Crash images of the log of several Raft groups, each third one also with damage. A longer run is nightly.
const GROUPS: u64 = 2000;

/// `cargo xtask raft`: crash images of Raft groups, and a cluster that is killed.
pub(crate) fn raft(arguments: &[String]) -> Result<(), String> {
    let (mut images, mut kills) = (GROUPS, 4);
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|value| value.parse().ok()).ok_or("each argument takes a number")?;
        match &*pair[0] {
            "--images" => images = number,
            "--kills" => kills = number,
            other => return Err(format!("{other} is unknown; try --images or --kills")),
        }
    }
    let (images, seconds, kills) = (images.to_string(), (kills + 1).to_string(), kills.to_string());
    run(
        &[("RING_RAFT_IMAGES", &*images)],
        "cargo test --release -p ring-raft --no-default-features --test images -- --nocapture",
    )?;
    let killed = [("RING_RAFT_KILLS", &*kills), ("RING_RAFT_SECONDS", &*seconds)];
    run(&killed, "cargo test -p ring-raft --test cluster -- --nocapture")
}

/// What the gate has time for.
pub(crate) fn few() -> Result<(), String> {
    task(&[])
}
