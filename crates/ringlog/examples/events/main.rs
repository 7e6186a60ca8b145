//! An event log: producers that wait for nothing, and a consumer that sends each event exactly once although it is
//! killed again and again.
//!
//! ```text
//! cargo run --release --example events
//! ```

mod mailer;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, thread};

use mailer::{Failure, Mailer};
use ringlog::{Log, Upto};

const PRODUCERS: u8 = 4;
const KILLS: u32 = 10;

fn main() -> Result<(), Failure> {
    if let Some(folder) = env::args().nth(1) {
        return run(folder.as_ref(), &AtomicBool::new(false));
    }
    let folder = tempfile::tempdir_in(env::current_exe()?.parent().expect("it is a file"))?;
    for kill in 1..=KILLS {
        let mut child = Command::new(env::current_exe()?).arg(folder.path()).stdout(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(u64::from(kill) * 30));
        child.kill()?;
        child.wait()?;
        let mailer = Mailer::open(folder.path(), Log::options)?;
        let events: u64 = mailer.last().values().sum();
        println!("killed {kill} times: {events} events, each one there, sent or still to be sent");
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
        });
        run(folder.path(), &stop)
    })?;
    let mailer = Mailer::open(folder.path(), Log::options)?;
    assert_eq!(mailer.left()?, 0);
    println!("closed: {} letters, none lost, none sent twice", mailer.last().values().sum::<u64>());
    Ok(())
}

/// Produces and sends until `stop`, while another follower shows what was appended last.
fn run(folder: &Path, stop: &AtomicBool) -> Result<(), Failure> {
    let mailer = Mailer::open(folder, Log::options)?;
    thread::scope(|scope| {
        let sending = scope.spawn(|| mailer.send());
        let producing: Vec<_> = (0..PRODUCERS)
            .map(|n| {
                scope.spawn({
                    let mailer = &mailer;
                    move || mailer.produce(n, stop)
                })
            })
            .collect();
        let mut newest = mailer.events.follow(mailer.events.end(), Upto::Staged);
        scope.spawn(move || {
            let mut seen = 0_u64;
            while let Ok(Some(event)) = newest.next() {
                seen += 1;
                if seen.is_multiple_of(20_000) {
                    println!("{seen} events appended, the newest by producer {}", event.kind);
                }
            }
        });
        producing.into_iter().try_for_each(|producer| producer.join().expect("no panic").map(drop))?;
        mailer.events.close()?;
        Ok(sending.join().expect("no panic")?)
    })
}
