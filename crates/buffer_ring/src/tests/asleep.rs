//! Threads that wait for a few instructions of another one give their processor away, also to a thread of lower
//! priority: they sleep.
//!
//! The other thread stands still, in the midst of sealing or with a reservation, until the kernel has counted that the
//! waiting one slept. One that only spins or yields is never counted.

use core::time::Duration;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use ring_alloc::{Arena, BLOCK};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::extent::ADDRESS_LIMIT;
use crate::ring::append::Patience;
use crate::ring::core::Core;
use crate::staging::layout::Layout;
use crate::staging::rotation::BufferId;
use crate::staging::slot::Seized;
use crate::writeback::device;
use crate::{AppendError, CommitPolicy, Extent, QuikIO, ReadError};

/// A hang, and nothing else, takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a thread has to be seen asleep that does so again and again.
const NAPS: u64 = 3;

fn ring(auto_flush: bool, auto_rotate: bool) -> Arc<Core> {
    let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
    let queue = device::attach(&Arc::new(QuikIO::in_memory().0), &arena).expect("the only queue");
    Arc::new(Core::new(&arena, Layout::plain(&arena), auto_flush, auto_rotate, CommitPolicy::default(), 0, Some(queue)))
}

/// Without a device: memory ends long before the last address.
fn ring_at(start: u64) -> Arc<Core> {
    let arena = Arc::new(Arena::new(2, BLOCK).expect("a valid arena"));
    Arc::new(Core::new(&arena, Layout::plain(&arena), true, true, CommitPolicy::default(), start, None))
}

/// How often a thread has given its processor away and was not ready to run. A yield does not count.
fn naps(thread: &str) -> u64 {
    let status = fs::read_to_string(PathBuf::from("/proc/self/task").join(thread).join("status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
    line.trim().parse().expect("a number")
}

/// Seals the only buffer with bytes, stops before it says so, and goes on when the thread that does `wait` has slept
/// `least` times.
fn seal_beside(core: Arc<Core>, prepare: fn(), wait: Wait, least: u64) {
    let (said, heard) = mpsc::channel();
    let sealer = thread::spawn(move || {
        core.append(&[1; BLOCK], Patience::ForRoom).expect("there is room");
        let Seized::Sealed(pin) = core.staging.slots()[0].reserve(8) else { panic!("it is full") };
        let (here, there) = mpsc::channel();
        let waiter = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                prepare();
                let thread = gettid().as_raw_nonzero().to_string();
                here.send((naps(&thread), thread)).expect("the sealer listens");
                wait(&core);
            })
        };
        let (before, thread) = there.recv().expect("the waiter says so");
        while naps(&thread) < before + least {
            thread::yield_now();
        }
        core.dispatch(core.finish_seal(pin));
        waiter.join().expect("it goes on");
        said.send(()).expect("the test waits");
    });
    match heard.recv_timeout(LIMIT) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the waiting thread does not sleep, or is not woken"),
        Err(mpsc::RecvTimeoutError::Disconnected) => sealer.join().expect("no panic"),
    }
}

type Wait = fn(&Core);

/// With `auto_rotate` or without.
const WAITS: [(&str, bool, Wait); 5] = [
    ("tail", true, |core| assert_eq!(core.tail(), BLOCK as u64)),
    ("sync", true, |core| assert_eq!(core.sync(None), Ok(BLOCK as u64))),
    ("wait_durable", true, |core| assert_eq!(core.wait_durable(8, None), Ok(()))),
    ("read", true, |core| assert_eq!(core.read(Extent::new(0, 8), &mut [0; 8]), Ok(8))),
    ("rotate", false, |core| assert_eq!(core.rotate(), Ok(()))),
];

#[test]
fn a_thread_that_waits_for_a_sealer_sleeps() {
    for (name, auto_rotate, wait) in WAITS {
        println!("{name}");
        seal_beside(ring(true, auto_rotate), || (), wait, NAPS);
    }
}

/// The one with the processor has real-time priority, and the sealer does not.
#[test]
fn a_sealer_goes_on_beside_a_thread_with_real_time_priority_on_its_processor() {
    if !thread::spawn(become_urgent).join().expect("no panic") {
        assert!(env::var_os("BUFFER_RING_REQUIRE_ROOT").is_none(), "real-time priority is required, and refused");
        println!("skipped: real-time priority is refused");
        return;
    }
    let pinned = thread::spawn(|| {
        let all = sched_getaffinity(None).expect("it has processors");
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).expect("at least one"));
        // The threads that it starts inherit that.
        sched_setaffinity(None, &one).expect("it may run there");
        for (name, auto_rotate, wait) in WAITS {
            println!("{name}");
            seal_beside(ring(true, auto_rotate), || assert!(become_urgent(), "real-time priority"), wait, NAPS);
        }
    });
    pinned.join().expect("no panic");
}

/// Whether the calling thread has real-time priority now.
fn become_urgent() -> bool {
    let thread = gettid().as_raw_nonzero().to_string();
    let outcome = Command::new("chrt").args(["--fifo", "--pid", "10", &thread]).output();
    outcome.is_ok_and(|output| output.status.success())
}

/// It cannot know before it falls asleep, and room never comes.
#[test]
fn a_thread_that_waits_for_room_is_woken_when_the_addresses_are_used_up() {
    for wait in [
        (|core| assert_eq!(core.append(&[1; 8], Patience::ForRoom), Err(AppendError::AddressesExhausted))) as Wait,
        |core| {
            let forever = Patience::Until(None);
            assert_eq!(core.reserve(8, forever).map(drop), Err(AppendError::AddressesExhausted));
        },
        |core| {
            let deadline = Some(Instant::now() + 10 * LIMIT);
            assert_eq!(core.append(&[1; 600], Patience::Until(deadline)), Err(AppendError::AddressesExhausted));
        },
    ] {
        seal_beside(ring_at(ADDRESS_LIMIT - BLOCK as u64), || (), wait, 1);
    }
}

/// Where nothing reports that the last writer has left, it looks until it gives up, and sleeps between.
#[test]
fn a_reader_beside_a_held_reservation_sleeps() {
    for (auto_flush, auto_rotate) in [(false, true), (true, false), (false, false)] {
        let core = ring(auto_flush, auto_rotate);
        core.append(&[1; 8], Patience::ForRoom).expect("there is room");
        let held = core.reserve(8, Patience::ForRoom).expect("there is room");
        assert_eq!(core.staging.current(), BufferId::new(1, 0));
        let reader = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let thread = gettid().as_raw_nonzero().to_string();
                let before = naps(&thread);
                assert_eq!(core.read(Extent::new(0, 8), &mut [0; 8]), Err(ReadError::Reserved));
                naps(&thread) - before
            })
        };
        let naps = reader.join().expect("it gives up");
        assert!(naps >= 100, "it has slept {naps} times");
        held.commit();
    }
}
