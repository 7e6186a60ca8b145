//! Every fault at every place: a run over a hundred buffers, again and again, with one thing gone wrong at each of its
//! I/Os in turn. What was acknowledged must be there, the ring poisoned or complete, and no case may hang. So it is
//! through the ring itself, a record a buffer; and, over fewer buffers, with short records through writers.

mod common;

use std::sync::{Arc, OnceLock};
use std::thread;

use buffer_ring::{AppendError, BufferRing, FlushTicket, MemoryDevice, QuikIO, RingError, WriteMode};
use common::append_path::{AppendPath, PathMix};
use common::{EAGAIN, EIO, Holding, LIMIT, MOMENT, Random, current, options, pattern, ring_on, within};

const ENOSPC: i32 = 28;
const EINTR: i32 = 4;
const EBUSY: i32 = 16;
const ECANCELED: i32 = 125;

const SIZE: usize = 8192;
const BUFFERS: usize = 100;

/// Of a run with writers, and bytes of its records.
const FEW_BUFFERS: usize = 20;
const SHORT: usize = 200;

/// The records of a run without writers.
fn log() -> &'static [u8] {
    static LOG: OnceLock<Vec<u8>> = OnceLock::new();
    LOG.get_or_init(|| (0..BUFFERS as u64).flat_map(|id| pattern(id, SIZE)).collect())
}

fn buffers(appenders: PathMix) -> usize {
    if appenders == PathMix::Ring { BUFFERS } else { FEW_BUFFERS }
}

/// Appends what belongs into buffer number `nth`, by three hands in turn, so that two writers are idle with their
/// leases at its end; and notes it in `log`.
fn fill(appenders: &mut [AppendPath<'_>], nth: usize, log: &mut Vec<u8>) -> Result<(), AppendError> {
    let end = (nth + 1) * SIZE;
    let mut append = |appender: &mut AppendPath<'_>, bytes: &[u8]| {
        let extent = appender.append(bytes)?;
        log.resize(log.len().max(end), 0);
        log[extent.start() as usize..extent.end() as usize].copy_from_slice(bytes);
        Ok(extent.end() as usize)
    };
    if !appenders.iter().any(AppendPath::is_writer) {
        return append(&mut appenders[0], &self::log()[nth * SIZE..end]).map(drop);
    }
    for id in 0.. {
        // None like another; and to the end of the buffer, or nearly.
        let bytes = &self::log()[nth * SIZE + id..][..SHORT];
        if append(&mut appenders[id % 3], bytes)? > end - SIZE / 8 {
            break;
        }
    }
    Ok(())
}

/// What came of a run.
struct Outcome {
    /// The records, where the ring has put them.
    log: Vec<u8>,
    /// Every byte below was acknowledged as durable.
    acknowledged: usize,
    /// Records that went into leases.
    leased: u64,
    failure: Option<RingError>,
    device: MemoryDevice,
}

impl Outcome {
    fn assert_honest(&self, case: &str) {
        let synced = self.device.synced();
        assert!(synced.len() >= self.acknowledged, "{case}: acknowledged and not there");
        assert!(synced[..self.acknowledged] == self.log[..self.acknowledged], "{case}: acknowledged and changed");
        for (at, block) in synced.chunks(4096).enumerate() {
            let whole = *block == self.log[at * 4096..][..block.len()];
            assert!(whole || block.iter().all(|&byte| byte == 0), "{case}: block {at} belongs to none");
        }
    }

    fn assert_complete(&self, case: &str) {
        assert_eq!((self.acknowledged, &self.failure), (self.log.len(), &None), "{case}");
        self.assert_honest(case);
    }

    /// Poisoned by the write that begins at `offset`, or by what it entailed, and nothing from there on acknowledged.
    fn assert_poisoned_at(&self, offset: u64, errno: Option<i32>, case: &str) {
        let Some(RingError::Device(error)) = &self.failure else { panic!("{case}: {:?}", self.failure) };
        assert_eq!(error.errno(), errno, "{case}");
        assert!(error.range().contains(&offset), "{case}: {error}");
        assert!(self.acknowledged as u64 <= error.range().start, "{case}: acknowledged up to {}", self.acknowledged);
        self.assert_honest(case);
    }
}

/// Appends buffer after buffer, with a sync after every `every`-th; ends at the first error. `before_sync` may prepare
/// a fault.
fn run(
    how: How,
    prepare: impl FnOnce(&MemoryDevice) + Send + 'static,
    before_sync: impl Fn(&BufferRing, &MemoryDevice) + Send + 'static,
) -> Outcome {
    within(LIMIT, move || run_here(how, prepare, before_sync))
}

fn run_here(
    How { mode, every, appenders: which }: How,
    prepare: impl FnOnce(&MemoryDevice),
    before_sync: impl Fn(&BufferRing, &MemoryDevice),
) -> Outcome {
    let (_, device) = QuikIO::in_memory();
    let io = device.builder().write_mode(mode).build().expect("no obstacle");
    let ring = ring_on(Arc::new(io), options(4, SIZE));
    prepare(&device);
    let (mut log, mut acknowledged) = (Vec::new(), 0);
    let mut appenders: Vec<_> = (0..3).map(|appender| which.of(&ring, appender)).collect();
    for nth in 0..buffers(which) {
        if fill(&mut appenders, nth, &mut log).is_err() {
            break;
        }
        if (nth + 1) % every == 0 {
            before_sync(&ring, &device);
            let Ok(durable) = ring.sync() else { break };
            acknowledged = durable;
        }
    }
    // After a failure it must stay.
    let failure = ring.poisoned();
    before_sync(&ring, &device);
    let again = ring.sync();
    assert!(failure.is_none() || again.clone().err() == failure, "{failure:?}, then {again:?}");
    acknowledged = acknowledged.max(again.unwrap_or(0)).max(ring.durable_watermark());
    let failure = ring.poisoned();
    let leased = ring.stats().writers.leased_records;
    drop(appenders);
    assert_eq!(ring.close().err(), failure);
    Outcome { log, acknowledged: acknowledged as usize, leased, failure, device }
}

const MODES: [WriteMode; 2] = [WriteMode::TailLocalized, WriteMode::Serialized];

/// A sort of runs.
#[derive(Clone, Copy, Debug)]
struct How {
    mode: WriteMode,
    /// A sync comes after so many buffers.
    every: usize,
    appenders: PathMix,
}

/// In both modes, with a sync after each buffer and after a few, with writers and without.
fn every_sort() -> impl Iterator<Item = How> {
    let sorts = MODES.into_iter().flat_map(|mode| [1, 7].map(|every| (mode, every)));
    sorts.flat_map(|(mode, every)| PathMix::ALL.map(|appenders| How { mode, every, appenders }))
}

/// Calls `case` for every write of a run of each sort.
fn at_every_write(mut case: impl FnMut(How, usize, u64, &str)) {
    for how in every_sort() {
        let undisturbed = run(how, |_| (), |_, _| ());
        undisturbed.assert_complete("undisturbed");
        assert_eq!(
            undisturbed.leased > 100,
            how.appenders != PathMix::Ring,
            "{how:?}: {} in leases",
            undisturbed.leased
        );
        let writes = undisturbed.device.writes();
        assert_eq!(writes.len(), buffers(how.appenders), "{how:?}");
        for (nth, (offset, _)) in writes.into_iter().enumerate() {
            case(how, nth, offset, &format!("{how:?}, write {nth}"));
        }
    }
}

fn fails_once(errno: i32) {
    at_every_write(|how, nth, offset, case| {
        let outcome = run(how, move |device| device.fail_write(nth, errno), |_, _| ());
        outcome.assert_poisoned_at(offset, Some(errno), case);
    });
}

#[test]
fn every_write_fails_once_with_an_io_error() {
    fails_once(EIO);
}

#[test]
fn every_write_fails_once_for_want_of_space() {
    fails_once(ENOSPC);
}

#[test]
fn from_every_write_on_all_fail() {
    at_every_write(|how, nth, offset, case| {
        let prepare = move |device: &MemoryDevice| (nth..2 * BUFFERS).for_each(|nth| device.fail_write(nth, EIO));
        run(how, prepare, |_, _| ()).assert_poisoned_at(offset, Some(EIO), case);
    });
}

#[test]
fn every_write_fails_after_half_of_it_landed() {
    at_every_write(|how, nth, offset, case| {
        // With a sync after each buffer, the rest is the next to arrive.
        if how.every > 1 && how.mode == WriteMode::TailLocalized {
            return;
        }
        let prepare = move |device: &MemoryDevice| {
            device.shorten_write(nth, 4096);
            device.fail_write(nth + 1, EIO);
        };
        run(how, prepare, |_, _| ()).assert_poisoned_at(offset, Some(EIO), case);
    });
}

#[test]
fn every_write_takes_nothing_once() {
    at_every_write(|how, nth, offset, case| {
        let outcome = run(how, move |device| device.shorten_write(nth, 0), |_, _| ());
        outcome.assert_poisoned_at(offset, None, case);
    });
}

#[test]
fn every_write_is_shortened_once() {
    for taken in [1, 2048, 4096, 4097] {
        at_every_write(|how, nth, offset, case| {
            let outcome = run(how, move |device| device.shorten_write(nth, taken), |_, _| ());
            outcome.assert_complete(case);
            let rest = offset + (taken / 4096 * 4096) as u64;
            let again = (rest, SIZE - taken / 4096 * 4096);
            let writes = outcome.device.writes();
            let count = writes.iter().filter(|&&write| write == again).count();
            assert_eq!(
                (writes.len(), count),
                (buffers(how.appenders) + 1, if rest == offset { 2 } else { 1 }),
                "{case}"
            );
        });
    }
}

#[test]
fn every_write_is_put_off_once_and_goes_out_again_once() {
    for errno in [EINTR, EAGAIN, EBUSY, ECANCELED] {
        at_every_write(|how, nth, offset, case| {
            let outcome = run(how, move |device| device.fail_write(nth, errno), |_, _| ());
            outcome.assert_complete(case);
            let writes = outcome.device.writes();
            let count = writes.iter().filter(|write| **write == (offset, SIZE)).count();
            assert_eq!((writes.len(), count), (buffers(how.appenders) + 1, 2), "{case}, errno {errno}");
        });
    }
}

#[test]
fn every_sync_fails_once_and_is_never_made_up_for() {
    for how in every_sort() {
        // What goes out while no thread waits for durability needs a sync.
        let write = |ring: &BufferRing| drop(ring.flush(&current(ring)).wait());
        let syncs = run(how, |_| (), move |ring, _| write(ring)).device.syncs();
        assert!(syncs >= buffers(how.appenders) / how.every, "{syncs} syncs");
        for nth in 0..syncs {
            let fail = move |ring: &BufferRing, device: &MemoryDevice| {
                write(ring);
                if device.syncs() == nth {
                    device.fail_sync(EIO);
                }
            };
            let outcome = run(how, |_| (), fail);
            let case = format!("{how:?}, sync {nth}");
            let Some(RingError::Device(error)) = &outcome.failure else { panic!("{case}: no failure") };
            assert_eq!(error.errno(), Some(EIO), "{case}");
            assert_eq!(outcome.device.syncs(), nth + 1, "{case}: the device was asked again");
            assert_eq!(outcome.acknowledged, nth * how.every * SIZE, "{case}");
            outcome.assert_honest(&case);
        }
    }
}

/// Three threads append, syncs among it, while a fourth completes held writes in random order, and the `nth` fails.
fn run_reordered(mode: WriteMode, nth: usize, errno: i32) -> (u64, Option<RingError>, MemoryDevice) {
    const THREADS: u64 = 3;
    let (_, device) = QuikIO::in_memory();
    let io = device.builder().write_mode(mode).build().expect("no obstacle");
    let ring = ring_on(Arc::new(io), options(4, SIZE));
    device.fail_write(nth, errno);
    device.hold();
    thread::scope(|scope| {
        let append = |thread: u64| {
            let ring: &BufferRing = &ring;
            move || {
                for id in 0..BUFFERS as u64 / THREADS + 1 {
                    let outcome =
                        ring.append(&log()[..SIZE]).map_err(drop).and_then(|extent| match (id + thread) % 5 {
                            0 => ring.wait_durable(extent.end()).map_err(drop),
                            _ => Ok(()),
                        });
                    if outcome.is_err() {
                        break;
                    }
                }
            }
        };
        let appending: Vec<_> = (0..THREADS).map(|thread| scope.spawn(append(thread))).collect();
        let mut random = Random::new(nth as u64);
        while !appending.iter().all(thread::ScopedJoinHandle::is_finished) {
            if device.held() > 0 {
                device.release(random.below(device.held()));
            }
            thread::yield_now();
        }
        device.release_all();
    });
    let _ = ring.sync();
    (ring.durable_watermark(), ring.poisoned(), device)
}

#[test]
fn every_write_fails_among_others_that_complete_in_any_order() {
    for mode in MODES {
        for nth in 0..BUFFERS {
            let (durable, failure, device) = within(LIMIT, move || run_reordered(mode, nth, EIO));
            let case = format!("{mode:?}, write {nth}");
            let Some(RingError::Device(error)) = failure else { panic!("{case}: {failure:?}") };
            let (offset, _) = device.writes()[nth];
            assert_eq!((error.errno(), error.range()), (Some(EIO), offset..offset + SIZE as u64), "{case}");
            assert!(durable <= offset, "{case}: {durable} acknowledged, beyond {offset}");
            let synced = device.synced();
            assert!(synced[..durable as usize].chunks(SIZE).all(|bytes| *bytes == log()[..SIZE]), "{case}");
        }
    }
}

/// Every order of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |orders, next| {
        let insert =
            |order: Vec<usize>| (0..=order.len()).map(move |at| [&order[..at], &[next], &order[at..]].concat());
        orders.into_iter().flat_map(insert).collect()
    })
}

#[test]
fn writes_complete_in_every_order_and_the_watermark_waits_at_the_gap() {
    const COUNT: usize = 6;
    within(LIMIT, || {
        let orders = orders(COUNT);
        assert_eq!(orders.len(), 720);
        for order in orders {
            let (ring, device) = common::in_memory(options(COUNT + 1, SIZE));
            let _holding = Holding::new(&device);
            let tickets: Vec<FlushTicket> = log()[..COUNT * SIZE]
                .chunks(SIZE)
                .map(|bytes| {
                    ring.append(bytes).expect("room");
                    ring.flush(&current(&ring))
                })
                .collect();
            let (mut held, mut done): (Vec<usize>, _) = ((0..COUNT).collect(), [false; COUNT]);
            for &which in &order {
                let at = held.iter().position(|&write| write == which).expect("still held");
                held.remove(at);
                device.release(at);
                assert_eq!(tickets[which].wait(), Ok(()));
                done[which] = true;
                let prefix = done.iter().take_while(|&&done| done).count();
                assert_eq!(ring.written_watermark(), (prefix * SIZE) as u64, "{order:?}");
            }
            assert_eq!(ring.sync(), Ok((COUNT * SIZE) as u64));
        }
    });
}

#[test]
fn a_write_that_never_completes_holds_the_watermark_and_no_thread_with_a_deadline() {
    within(LIMIT, || {
        for never in 0..3 {
            let (ring, device) = common::in_memory(options(4, SIZE));
            device.hold();
            for bytes in log()[..3 * SIZE].chunks(SIZE) {
                ring.append(bytes).expect("room");
            }
            let ticket = ring.flush(&current(&ring));
            (0..3).rev().filter(|&write| write != never).for_each(|write| device.release(write));
            let holding = Holding(device);
            assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
            assert_eq!(ring.wait_durable_timeout(3 * SIZE as u64, MOMENT), Err(RingError::TimedOut));
            assert_eq!(ticket.wait_timeout(MOMENT).is_err(), never == 2);
            assert_eq!(ring.written_watermark(), (never * SIZE) as u64);
            assert_eq!(ring.wait_durable((never * SIZE) as u64), Ok(()), "what is below is not held up");
            assert_eq!(ring.durable_watermark(), (never * SIZE) as u64);
            drop(holding);
            assert_eq!(ring.close(), Ok(3 * SIZE as u64));
        }
    });
}
