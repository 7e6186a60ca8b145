//! An event log: several producers that wait for nothing, records that become durable by themselves every few
//! milliseconds, and numbers that are checked when the log is opened again.
//!
//! ```text
//! cargo run --release --example event_log
//! ```

use core::convert::Infallible;
use core::error::Error;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::{env, thread};

use ringlog::{Log, SyncPolicy};

const PRODUCERS: u64 = 4;
const EVENTS: u64 = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(env::current_exe()?.parent().expect("it is a file"))?;
    let path = folder.path().join("events");
    let (log, _) = Log::options().sync(SyncPolicy::Every(Duration::from_millis(2))).open(&path)?;

    // Each producer hears of every ten thousandth of its events when that is durable, and goes on meanwhile.
    let (durable, heard) = mpsc::channel();
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (mut writer, durable) = (log.writer(), durable.clone());
            scope.spawn(move || {
                for event in 1..=EVENTS {
                    let number = event.to_le_bytes();
                    let placed = writer.append(producer as u8, &number).expect("the log takes it");
                    if event % 10_000 == 0 {
                        let durable = durable.clone();
                        let call = move |outcome| durable.send((producer, event, outcome)).expect("main listens");
                        writer.log().on_durable(placed.end, call);
                    }
                }
            });
        }
        drop(durable);
        for (producer, event, outcome) in heard {
            outcome.map(|()| println!("producer {producer}: durable up to event {event}"))?;
        }
        Ok::<_, ringlog::Error>(())
    })?;
    log.close()?;
    drop(log);

    let mut last = BTreeMap::new();
    let (_log, recovery) = Log::options().open_with(&path, |record| {
        let event = u64::from_le_bytes(record.payload.try_into().expect("8 bytes"));
        let before = last.insert(record.kind, event).unwrap_or(0);
        assert_eq!(event, before + 1, "an event of producer {} is missing", record.kind);
        Ok::<_, Infallible>(())
    })?;
    assert!(last.len() as u64 == PRODUCERS && last.values().all(|event| *event == EVENTS), "{last:?}");
    println!("{} events, none missing or out of order; {}", recovery.records, recovery.verdict);
    Ok(())
}
