//! A subscriber of `tracing` is foreign code: at each event it uses the log that the event is about, in whatever thread
//! of the log that is.

mod common;

use core::cell::Cell;
use core::time::Duration;
use std::sync::{Mutex, mpsc};
use std::thread;

use common::open::{payload, reopen, small};
use ring_testing::events::OnEvent;
use ringlog::Log;
use ringlog::directory::MemoryDirectory;

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

static LOG: Mutex<Option<Log>> = Mutex::new(None);

thread_local! {
    /// Events that this thread has had, and whether it is in one.
    static SEEN: Cell<usize> = const { Cell::new(0) };
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn react(_event: &str) {
    let log = LOG.lock().expect("no panic").clone();
    let Some(log) = log.filter(|_| !IS_INSIDE.replace(true)) else { return };
    SEEN.set(SEEN.get() + 1);
    // The thread that makes segments must not wait for what needs one.
    if thread::current().name() != Some("ringlog-keeper") {
        match SEEN.get() % 3 {
            0 => drop(log.set_meta("seen", &SEEN.get().to_le_bytes()).expect("room")),
            1 => drop(log.truncate(log.end()).expect("room")),
            _ => drop(log.append(9, b"of a subscriber").expect("room")),
        }
    }
    assert!(log.meta("always").is_some());
    drop(log);
    IS_INSIDE.set(false);
}

#[test]
fn a_subscriber_uses_the_log_at_each_of_its_events_and_nothing_hangs() {
    tracing::subscriber::set_global_default(OnEvent::new(react)).expect("the only one");
    let (done, ends) = mpsc::channel();
    let writing = thread::spawn(move || {
        let directory = MemoryDirectory::new();
        let (log, _) = small().directory(&directory).open("").expect("a log");
        log.set_meta("always", b"here").expect("room");
        *LOG.lock().expect("no panic") = Some(log.clone());
        let mut sent = 0;
        for n in 0..6000 {
            let at = log.append(1, &payload(n, if n % 50 == 0 { 30_000 } else { 2000 })).expect("room");
            sent += 1;
            log.set_meta("of the writer", &[n as u8; 1500]).expect("room");
            match n % 20 {
                0 => log.wait_durable(at.end).expect("durable"),
                10 => drop(log.trim(log.settled()).expect("trimmed")),
                15 => _ = log.roll().expect("rolled"),
                _ => {}
            }
        }
        *LOG.lock().expect("no panic") = None;
        log.close().expect("closed");
        drop(log);
        let (log, _, records) = reopen(small().directory(&directory), "".as_ref());
        assert_eq!(log.meta("always").as_deref(), Some(&b"here"[..]));
        assert!(SEEN.get() > 100 && records.len() < sent + SEEN.get(), "{}", SEEN.get());
        done.send(()).expect("it is waited for");
    });
    ends.recv_timeout(LIMIT).expect("it hangs, or has panicked");
    writing.join().expect("no panic");
}
