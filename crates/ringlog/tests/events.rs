//! The consumer of the example `events`, killed at random moments, round after round: each event is sent once, and in
//! order. `RINGLOG_EVENTS_KILLS=100` for more rounds.

#[path = "../examples/events/mailer.rs"]
mod mailer;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::process::{self, Command, Stdio};
use std::{env, thread};

use mailer::Mailer;
use ring_testing::Random;
use ringlog::{Log, Options};

/// Where a child finds the logs.
const FOLDER: &str = "RINGLOG_EVENTS_FOLDER";

fn options() -> Options {
    Log::options().ring(4, 4096).segment_size(16 << 12)
}

/// Produces and sends until `stop`.
fn run(mailer: &Mailer, stop: &AtomicBool) {
    thread::scope(|scope| {
        let sending = scope.spawn(|| mailer.send());
        let producing = [0, 1, 2].map(|producer| scope.spawn(move || mailer.produce(producer, stop)));
        for producer in producing {
            producer.join().expect("no panic").expect("room");
        }
        mailer.events.close().expect("a working device");
        sending.join().expect("no panic").expect("a working log");
    });
}

#[test]
fn each_event_is_sent_once_and_in_order_however_often_the_consumer_is_killed() {
    if let Some(folder) = env::var_os(FOLDER) {
        let mailer = Mailer::open(folder.as_ref(), options).expect("the logs");
        run(&mailer, &AtomicBool::new(false));
    }
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let kills = number("RINGLOG_EVENTS_KILLS").unwrap_or(15);
    let seed = number("RINGLOG_SEED").unwrap_or_else(|| process::id().into());
    println!("RINGLOG_SEED={seed} RINGLOG_EVENTS_KILLS={kills}");
    let folder = tempfile::tempdir().expect("a folder");
    let (mut random, mut before) = (Random::new(seed), 0);
    for round in 0..kills {
        let mut child = Command::new(env::current_exe().expect("this program"));
        child.args(["each_event_is_sent_once_and_in_order_however_often_the_consumer_is_killed", "--exact"]);
        let mut child = child.env(FOLDER, folder.path()).stdout(Stdio::null()).spawn().expect("a process");
        thread::sleep(Duration::from_micros(20_000 + random.below(150_000) as u64));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let mailer = Mailer::open(folder.path(), options).unwrap_or_else(|why| panic!("round {round}: {why}"));
        let events = mailer.last().values().sum::<u64>();
        assert!(events >= before, "round {round}: {events} events, {before} were there before");
        before = events;
    }
    let mailer = Mailer::open(folder.path(), options).expect("the logs");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        run(&mailer, &stop);
    });
    drop(mailer);
    // All of them are sent: what is left in the log was sent before.
    let mailer = Mailer::open(folder.path(), options).expect("the logs");
    assert!(mailer.last().len() == 3 && mailer.last().values().sum::<u64>() > before);
    assert_eq!(mailer.left().expect("a log"), 0);
}
