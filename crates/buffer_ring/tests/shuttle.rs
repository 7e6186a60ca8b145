//! Programs too large for every interleaving: eight threads do eight things each, drawn at random, in random schedules.
//! Run with `cargo xtask shuttle`.
//!
//! Shuttle finds deadlocks and endless loops. It knows no orderings: all threads see every store at once, so that a
//! weak ordering is loom's to find.
#![cfg(shuttle)]

mod common;
mod schedules;

use core::sync::atomic::AtomicU64 as Count;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::Arc;

use buffer_ring::model::ModelDevice;
use buffer_ring::{AppendError, BufferRing, Extent, FlushTicket, RingError, RotateError};
use common::Random;
use common::append_path::{AppendPath, PathMix};
use schedules::explore;
use shuttle::sync::atomic::AtomicUsize;
use shuttle::thread;

/// The tests of this file.
const PROGRAMS: usize = 7;

const THREADS: usize = 8;
const STEPS: usize = 8;
const BUFFER: usize = 4096;

/// What distinguishes the programs.
#[derive(Clone, Copy)]
struct Setting {
    /// Whether writes stay in flight until a thread that does nothing else completes them, in any order.
    held: bool,
    auto_flush: bool,
    auto_rotate: bool,
    /// Whether the device breaks down at some moment.
    breaks: bool,
}

const PLAIN: Setting = Setting { held: false, auto_flush: true, auto_rotate: true, breaks: false };

#[test]
fn auto_flush_instant_device() {
    program("auto_flush_instant_device", PLAIN);
}

#[test]
fn auto_flush_held_device() {
    program("auto_flush_held_device", Setting { held: true, ..PLAIN });
}

#[test]
fn auto_flush_breaking_device() {
    program("auto_flush_breaking_device", Setting { held: true, breaks: true, ..PLAIN });
}

#[test]
fn manual_flush_instant_device() {
    program("manual_flush_instant_device", Setting { auto_flush: false, ..PLAIN });
}

#[test]
fn manual_flush_held_device() {
    program("manual_flush_held_device", Setting { auto_flush: false, held: true, ..PLAIN });
}

#[test]
fn manual_flush_breaking_device() {
    program("manual_flush_breaking_device", Setting { auto_flush: false, held: true, breaks: true, ..PLAIN });
}

#[test]
fn manual_rotation() {
    program("manual_rotation", Setting { auto_rotate: false, held: true, ..PLAIN });
}

/// What the schedules of a program have come across, all together: it must not be nothing.
#[derive(Default)]
struct Met {
    laps: Count,
    waits_for_room: Count,
    aborts: Count,
    read_backs: Count,
    failures: Count,
    leased: Count,
}

fn program(name: &str, setting: Setting) {
    let met: &'static Met = Box::leak(Box::default());
    let schedules = explore(name, PROGRAMS, move |random| play(setting, random, met));
    let Met { laps, waits_for_room, aborts, read_backs, failures, leased } = met;
    let [laps, waits, aborts, reads, failures, leased] =
        [laps, waits_for_room, aborts, read_backs, failures, leased].map(|count| count.load(Relaxed));
    println!(
        "    {laps} with a lap, {failures} with a failure; {waits} waits for room, \
         {aborts} aborts, {reads} reads, {leased} records in leases"
    );
    if schedules >= 100 {
        assert!(laps > 0 && aborts > 0 && reads > 0 && leased > 0, "the programs are too small");
        // Without rotation no thread waits for room.
        assert!(waits > 0 || !setting.auto_rotate, "the ring was never full");
        assert_eq!(failures > 0, setting.breaks);
    }
}

/// One schedule.
fn play(setting: Setting, mut random: Random, met: &Met) {
    let device = if setting.held { ModelDevice::held() } else { ModelDevice::instant() };
    let capacity = 2 + random.below(3);
    let ring = Arc::new(device.ring(capacity, setting.auto_flush, setting.auto_rotate));
    let working = Arc::new(AtomicUsize::new(THREADS));
    let appenders = if random.below(3) == 0 { PathMix::Writers } else { PathMix::Mixed };

    let mut helpers = Vec::new();
    if setting.held {
        let (device, working, mut random) = (device.clone(), Arc::clone(&working), Random::new(random.next()));
        helpers.push(thread::spawn(move || {
            while working.load(Acquire) > 0 {
                if !device.complete(random.below(3)) {
                    thread::yield_now();
                }
            }
            device.complete_from_now_on();
        }));
    }
    if setting.breaks {
        // Early ones as often as late ones.
        let latest = random.up_to(400);
        let (device, looks) = (device.clone(), random.below(latest));
        helpers.push(thread::spawn(move || {
            (0..looks).for_each(|_| _ = device.synced_up_to());
            device.break_down();
        }));
    }
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let worker = Worker {
                setting,
                random: Random::new(random.next()),
                ring: Arc::clone(&ring),
                device: device.clone(),
                number,
                appenders,
                appended: Vec::new(),
                tickets: Vec::new(),
                reads: 0,
                watermarks: [0; 3],
            };
            let working = Arc::clone(&working);
            thread::spawn(move || {
                let worker = worker.run();
                working.fetch_sub(1, Release);
                worker
            })
        })
        .collect();
    let (mut appended, mut tickets) = (Vec::new(), Vec::new());
    for worker in workers {
        let worker = worker.join().expect("it would have ended the schedule");
        appended.extend(worker.appended);
        tickets.extend(worker.tickets);
        met.read_backs.fetch_add(worker.reads, Relaxed);
    }
    for helper in helpers {
        helper.join().expect("it would have ended the schedule");
    }

    let stats = ring.stats();
    met.waits_for_room.fetch_add(stats.full_waits, Relaxed);
    met.leased.fetch_add(stats.writers.leased_records, Relaxed);
    met.aborts.fetch_add(stats.reservations_aborted, Relaxed);
    met.laps.fetch_add(u64::from(ring.tail() > (capacity * BUFFER) as u64), Relaxed);
    let closed = Arc::into_inner(ring).expect("all threads are gone").close();
    match closed {
        Ok(end) => {
            assert_eq!(device.synced_up_to(), end);
            assert!(tickets.iter().all(|ticket| ticket.wait() == Ok(())));
        }
        Err(RingError::Device(_)) if setting.breaks => _ = met.failures.fetch_add(1, Relaxed),
        Err(error) => panic!("{error}"),
    }
    check(&device, closed.ok(), &appended);
}

/// What the device has is what was appended, each byte once, where its extent says, and zeros elsewhere. And it has all
/// up to `end`.
fn check(device: &ModelDevice, end: Option<u64>, appended: &[Appended]) {
    let mut written = device.written();
    written.sort_unstable_by_key(|(at, _)| *at);
    let log_end = appended.iter().map(|(extent, _)| extent.end().next_multiple_of(BUFFER as u64)).max().unwrap_or(0);
    // Behind the last record there may be what a lease had left.
    let file_end = written.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0);
    let mut expected = vec![None; log_end.max(file_end) as usize];
    for (extent, mark) in appended {
        for byte in &mut expected[extent.start() as usize..extent.end() as usize] {
            assert_eq!(byte.replace(*mark), None, "{extent:?} overlaps another one");
        }
    }
    let mut at = 0;
    for (start, bytes) in written {
        assert!(start == at || start > at && end.is_none(), "a hole, or written twice: {start} after {at}");
        at = start + bytes.len() as u64;
        let expected = &expected[start as usize..at as usize];
        let same = bytes.iter().zip(expected).all(|(byte, expected)| *byte == expected.unwrap_or(0));
        assert!(same, "what the device has at {start} is not what was appended");
    }
    if let Some(end) = end {
        assert!(at == end && log_end <= end, "the device has {at} bytes, the log ends at {end}, records at {log_end}");
    }
}

/// An extent, and the byte that it was filled with; 0 for an aborted reservation.
type Appended = (Extent, u8);

struct Worker {
    setting: Setting,
    random: Random,
    ring: Arc<BufferRing>,
    device: ModelDevice,
    number: usize,
    appenders: PathMix,
    appended: Vec<Appended>,
    tickets: Vec<FlushTicket>,
    reads: u64,
    /// As they were last seen: durable, written, tail.
    watermarks: [u64; 3],
}

impl Worker {
    fn run(mut self) -> Self {
        let ring = Arc::clone(&self.ring);
        // A writer is idle while its thread does something else.
        let mut appender = self.appenders.of(&ring, self.number);
        for step in 0..STEPS {
            self.step((1 + self.number * STEPS + step) as u8, &mut appender);
            self.look();
        }
        drop(appender);
        self
    }

    fn step(&mut self, mark: u8, appender: &mut AppendPath<'_>) {
        let ring = Arc::clone(&self.ring);
        match self.random.below(20) {
            0..=4 => {
                let payload = vec![mark; self.len()];
                let outcome = appender.append(&payload);
                self.note(outcome, mark, false);
            }
            5..=7 => {
                let payload = vec![mark; self.len()];
                let outcome = appender.try_append(&payload);
                self.note(outcome, mark, true);
            }
            8 | 9 => {
                let len = self.len();
                let outcome = appender.reserve(len).map(|mut reservation| {
                    reservation.fill(mark);
                    reservation.commit()
                });
                self.note(outcome, mark, false);
            }
            10 | 11 => {
                let outcome = ring.reserve(self.len()).map(|mut reservation| {
                    reservation.fill(mark);
                    reservation.extent()
                });
                self.note(outcome, 0, false);
            }
            12 | 13 => {
                let ticket = ring.flush(&ring.current_buffer(Acquire));
                if self.random.below(2) == 0 {
                    self.may_fail(ticket.wait());
                }
                self.tickets.push(ticket);
            }
            14 => {
                let synced = ring.sync();
                if let Some(end) = self.may_fail(synced) {
                    assert!(self.appended.iter().all(|(extent, _)| extent.end() <= end), "synced up to {end} only");
                    assert!(end <= self.device.synced_up_to());
                }
            }
            15 | 16 => {
                let Some((extent, _)) = self.any() else { return };
                let waited = ring.wait_durable(extent.end());
                if self.may_fail(waited).is_some() {
                    assert!(extent.end() <= self.device.synced_up_to(), "{extent:?} is not durable");
                }
            }
            17 if !self.setting.auto_rotate => match ring.rotate() {
                Ok(()) | Err(RotateError::RingFull) => {}
                Err(error) => panic!("{error}"),
            },
            _ => {
                let Some((extent, mark)) = self.any() else { return };
                let mut bytes = vec![!mark; extent.len()];
                assert_eq!(ring.read(extent, &mut bytes), Ok(extent.len()), "{extent:?}");
                assert!(bytes.iter().all(|byte| *byte == mark), "{extent:?} was read as something else");
                self.reads += 1;
            }
        }
    }

    /// Watermarks are true, and never fall.
    fn look(&mut self) {
        let ring = &self.ring;
        let durable = ring.durable_watermark();
        let synced = self.device.synced_up_to();
        assert!(durable <= synced, "durable up to {durable}, synced up to {synced}");
        let now = [durable, ring.written_watermark(), ring.tail()];
        assert!(now.is_sorted(), "durable, written, tail: {now:?}");
        assert!(
            self.watermarks.iter().zip(now).all(|(before, now)| *before <= now),
            "{:?}, then {now:?}",
            self.watermarks
        );
        self.watermarks = now;
    }

    /// Short ones, long ones, and those that fill a buffer exactly.
    fn len(&mut self) -> usize {
        match self.random.below(8) {
            0..=2 => self.random.up_to(512),
            3..=5 => self.random.up_to(BUFFER),
            6 => 512 * self.random.up_to(BUFFER / 512),
            _ => BUFFER,
        }
    }

    /// One of this thread's extents.
    fn any(&mut self) -> Option<Appended> {
        let number = self.random.below(self.appended.len().max(1));
        self.appended.get(number).copied()
    }

    fn note(&mut self, outcome: Result<Extent, AppendError>, mark: u8, at_once: bool) {
        let Setting { auto_flush, auto_rotate, breaks, .. } = self.setting;
        match outcome {
            Ok(extent) => self.appended.push((extent, mark)),
            Err(AppendError::RingFull) if at_once || !auto_flush => {}
            Err(AppendError::Sealed) if !auto_rotate => {}
            Err(AppendError::Poisoned(_)) if breaks => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn may_fail<T>(&self, outcome: Result<T, RingError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(RingError::Device(_)) if self.setting.breaks => None,
            Err(error) => panic!("{error}"),
        }
    }
}
