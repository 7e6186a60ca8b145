//! A ring in a forked child: every call answers `Forked` at once, whatever the parent's threads were at; dropping does
//! nothing; and the parent goes on as if there were no child.

mod common;

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::fs;
use std::io::{Read, Write, pipe};
use std::sync::Arc;
use std::thread;

use buffer_ring::{
    AppendError, BufferRing, EngineKind, Extent, MemoryDevice, QuikIO, ReadError, RingError, RotateError, Writer,
};
use common::MOMENT;
#[cfg(feature = "async")]
use common::eventually;
use common::forked::Child;
use common::{buffered_file, current, direct_file, disk, fixed, in_memory, options, pattern, read, ring_on};

const FORKED: AppendError = AppendError::Forked;

/// Every call that could do something, in a child of the process that `ring` is of. `extent`: something appended.
fn assert_all_refused(ring: &BufferRing, extent: Extent) {
    let record = &[1; 100][..];
    let soon = Duration::from_secs(1 << 20);
    assert_eq!(ring.append(record), Err(FORKED));
    assert_eq!(ring.try_append(record), Err(FORKED));
    assert_eq!(ring.append_timeout(record, soon), Err(FORKED));
    assert_eq!(ring.append_vectored(&[]), Err(AppendError::Empty));
    assert_eq!(ring.append_durable(record), Err(FORKED));
    assert_eq!(ring.append_durable_timeout(record, soon), Err(FORKED));
    assert_eq!(ring.reserve(100).map(drop), Err(FORKED));
    assert_eq!(ring.try_reserve(100).map(drop), Err(FORKED));
    assert_eq!(ring.rotate(), Err(RotateError::Forked));
    assert_eq!(ring.sync(), Err(RingError::Forked));
    assert_eq!(ring.sync_timeout(soon), Err(RingError::Forked));
    assert_eq!(ring.wait_durable(extent.end()), Err(RingError::Forked));
    assert_eq!(ring.wait_durable_timeout(extent.end(), soon), Err(RingError::Forked));
    assert_eq!(ring.flush(&current(ring)).wait(), Err(RingError::Forked));
    assert_eq!(ring.read(extent, &mut vec![0; extent.len()]), Err(ReadError::Forked));
    assert_eq!(ring.poisoned(), Some(RingError::Forked));
    let watch = ring.durable_watch();
    assert_eq!(watch.wait_ge(u64::MAX), Err(RingError::Forked));
    assert_eq!(watch.wait_ge_timeout(extent.end(), soon), Err(RingError::Forked));
    assert!(watch.eventfd().is_err());
    assert_eq!(watch.get(), ring.durable_watermark());
    assert!(ring.written_watermark() >= ring.durable_watermark() && ring.tail() >= ring.durable_watermark());
    assert!(ring.stats().engine.is_none());
    let mut writer = ring.writer();
    assert_eq!(writer.append(record), Err(FORKED));
    assert_eq!(writer.append_durable(record), Err(FORKED));
    assert_eq!(writer.reserve(100).map(drop), Err(FORKED));
    assert!(!format!("{ring:?}").is_empty());
    let sentence = "the ring belongs to the process that this one was forked from; open the file again in this process";
    assert_eq!(FORKED.to_string(), sentence);
}

/// A copy of what a child has, to drop it or to give it away.
fn copy<T>(of: &T) -> T {
    // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
    unsafe { core::ptr::read(of) }
}

/// However a test ends, its threads do.
struct Releases<'a>(&'a MemoryDevice);

impl Drop for Releases<'_> {
    fn drop(&mut self) {
        self.0.release_all();
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// After so many records a writer has a lease.
fn with_a_lease<'a>(ring: &'a BufferRing, expected: &mut Vec<(Extent, Vec<u8>)>) -> Writer<'a> {
    let mut writer = ring.writer();
    for number in 0..64 {
        let payload = pattern(number, 40);
        expected.push((writer.append(&payload).expect("room"), payload));
    }
    writer
}

#[test]
fn a_child_of_a_busy_ring_is_refused_at_once_and_changes_nothing() {
    let (ring, device) = in_memory(options(4, 16 * 4096));
    let mut expected = Vec::new();
    let mut writer = with_a_lease(&ring, &mut expected);
    assert!(ring.stats().writers.leased_records > 0, "this test is about a lease");
    let mut reservation = ring.reserve(100).expect("room");
    reservation.fill(3);
    let other = ring.reserve(100).expect("room");
    let watch = ring.durable_watch();
    let ticket = ring.flush(&current(&ring));
    // The reservation holds that buffer, and the next one does not come back, so that the parent's threads sleep: at
    // the device, and parked.
    device.hold();
    let payload = pattern(999, 40);
    expected.push((ring.append(&payload).expect("room"), payload));
    ring.flush(&current(&ring));
    let mut leasing = with_a_lease(&ring, &mut expected);
    let end = reservation.extent().end();
    thread::scope(|scope| {
        let _ends = Releases(&device);
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| ring.wait_durable(end))).collect();
        thread::sleep(MOMENT);
        let child = Child::fork(|| {
            assert_eq!(leasing.append(&[9; 40]), Err(FORKED), "the lease was taken back");
            assert_eq!(writer.append(&[9; 40]), Err(FORKED));
            assert_eq!(ticket.wait(), Err(RingError::Forked));
            assert_eq!(watch.wait_ge(end), Err(RingError::Forked));
            assert_all_refused(&ring, expected[0].0);
            assert!(reservation.iter().all(|byte| *byte == 0), "the memory is the parent's");
            reservation.fill(4);
            copy(&reservation).commit();
            drop(copy(&other));
            drop((copy(&writer), copy(&leasing)));
            drop((copy(&ticket), copy(&watch)));
            assert_eq!(copy(&ring).close(), Err(RingError::Forked));
            drop(copy(&ring));
        });
        child.succeeds();
        let payload = pattern(1000, 40);
        expected.push((writer.append(&payload).expect("room"), payload));
        expected.push((reservation.extent(), vec![3; 100]));
        reservation.commit();
        drop(other);
        device.release_all();
        assert!(waiters.into_iter().all(|waiter| waiter.join().expect("no panic") == Ok(())));
    });
    drop((writer, leasing));
    assert_eq!(ring.sync(), Ok(ring.tail()));
    assert!(expected.iter().all(|(extent, payload)| read(&ring, *extent) == *payload));
    assert_eq!(ring.poisoned(), None);
}

#[test]
fn what_a_parent_acknowledges_while_its_child_drops_the_ring_stays() {
    for engine in [EngineKind::IoUring, EngineKind::Positioned] {
        let dir = disk();
        let path = dir.path().join("log");
        let io = QuikIO::builder(direct_file(&path)).engine(engine).build();
        let Ok(io) = io.inspect_err(|why| eprintln!("SKIPPED: {why}")).map(Arc::new) else { continue };
        let ring = ring_on(Arc::clone(&io), options(4, 1 << 16));
        let mut acknowledged = Vec::new();
        let mut commit = |count: u64| {
            for _ in 0..count {
                let payload = pattern(acknowledged.len() as u64, 100);
                acknowledged.push((ring.append_durable(&payload).expect("room"), payload));
            }
            acknowledged.clone()
        };
        // So that space is prepared behind the log, which a drop cuts off.
        commit(200);
        let (mut end, other_end) = pipe().expect("a pipe");
        let child = Child::fork(|| {
            end.read_exact(&mut [0]).expect("the parent's word");
            assert_all_refused(&ring, Extent::new(0, 100));
            drop((copy(&ring), copy(&io)));
        });
        // Less than was prepared.
        commit(6);
        (&other_end).write_all(b"x").expect("a child that reads");
        child.succeeds();
        // The parent is killed, as it were: its file as it is now.
        let found = fs::read(&path).expect("the file");
        let is_there = |(extent, payload): &(Extent, Vec<u8>)| {
            found.get(extent.start() as usize..extent.end() as usize) == Some(payload)
        };
        assert!(commit(0).iter().all(is_there), "{engine}: lost by a child's drop");
        let locked = rustix::fs::flock(buffered_file(&path), rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert!(locked.is_err(), "{engine}: unlocked by a child's drop");
        for _ in 0..20 {
            ring.append(&[7; 40_000]).expect("room");
        }
        assert_eq!(ring.close(), Ok(io.log_end().expect("a file")), "{engine}");
    }
}

#[test]
fn a_child_makes_rings_of_its_own() {
    let (ring, _device) = in_memory(options(2, 4096));
    ring.append(&[1; 10]).expect("room");
    let child = Child::fork(|| {
        let dir = disk();
        let path = dir.path().join("own");
        let own = ring_on(QuikIO::open(&path).expect("a file"), options(2, 8192));
        let mut expected = Vec::new();
        let writer = with_a_lease(&own, &mut expected);
        drop(writer);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    scope.spawn({
                        let own = &own;
                        move || (0..20).map(|_| own.append_durable(&[n; 3000]).expect("room")).collect::<Vec<_>>()
                    })
                })
                .collect();
            for (n, thread) in (0..).zip(threads) {
                expected.extend(thread.join().expect("no panic").into_iter().map(|extent| (extent, vec![n; 3000])));
            }
        });
        assert!(expected.iter().all(|(extent, payload)| read(&own, *extent) == *payload));
        Child::fork(|| {
            assert_all_refused(&own, expected[0].0);
            assert_all_refused(&ring, Extent::new(0, 10));
        })
        .succeeds();
        assert_all_refused(&ring, Extent::new(0, 10));
        assert_eq!(own.stats().records_appended, 64 + 80);
        assert_eq!(own.close(), Ok(fs::metadata(&path).expect("the file").len()));
    });
    child.succeeds();
    ring.append_durable(&[1; 10]).expect("room");
}

#[test]
fn a_child_is_refused_in_every_mode() {
    let rings = [in_memory(options(2, 4096)), in_memory(fixed(1, 4096)), in_memory(common::held(2, 4096))];
    for (ring, _device) in &rings {
        let extent = ring.append(&[1; 10]).expect("room");
        Child::fork(|| assert_all_refused(ring, extent)).succeeds();
    }
    let without = BufferRing::with_options(options(2, 4096));
    let extent = without.append(&[1; 10]).expect("room");
    Child::fork(|| assert_all_refused(&without, extent)).succeeds();
    assert!(rings.iter().all(|(ring, _)| ring.append(&[1; 10]).is_ok()));
}

#[test]
fn a_child_of_the_bare_system_call_is_refused_when_it_waits_or_a_buffer_is_full() {
    let (ring, device) = in_memory(options(4, 4096));
    ring.append(&[1; 10]).expect("room");
    let child = Child::clone(|| {
        assert!(ring.sync() == Err(RingError::Forked));
        assert!(ring.append_durable(&[2; 10]) == Err(FORKED));
        let outcome = (0..2).try_for_each(|_| ring.append(&[2; 4000]).map(drop));
        assert!(outcome == Err(FORKED));
    });
    child.succeeds();
    let extent = ring.append_durable(&[3; 10]).expect("room");
    assert_eq!((extent.start(), device.contents()[..20].to_vec()), (10, [[1; 10], [3; 10]].concat()));
}

/// Its first address is what the child sees, not a search for a thread that is sealing.
#[test]
fn a_forked_child_never_waits_for_the_parents_appenders() {
    let (ring, _device) = in_memory(options(4, 4096));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut writer = ring.writer();
                while !done.load(Relaxed) {
                    writer.append(&[1; 200]).expect("room");
                    ring.append(&[2; 3000]).expect("room");
                    ring.sync().expect("no device that fails");
                }
            });
        }
        let _ends = Ends(&done);
        for _ in 0..100 {
            Child::fork(|| {
                assert_all_refused(&ring, Extent::new(0, 1));
                drop(copy(&ring));
            })
            .succeeds();
        }
    });
    assert_eq!(ring.poisoned(), None);
}

/// A thread that the child does not have may be ringing them at the fork.
#[test]
fn a_child_drops_a_watch_whatever_the_parent_does_with_its_event() {
    let (ring, _device) = in_memory(options(4, 4096));
    let watches: Vec<_> = (0..500).map(|_| ring.durable_watch()).collect();
    for watch in &watches {
        watch.eventfd().expect("a descriptor");
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                ring.append_durable(&[1; 8]).expect("a working device");
            }
        });
        let _ends = Ends(&done);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(3));
            Child::fork(|| drop(copy(&watches[0]))).succeeds();
        }
    });
    assert_eq!(ring.poisoned(), None);
    drop(watches);
    ring.append_durable(&[1; 8]).expect("a working device");
}

#[cfg(feature = "async")]
#[test]
fn a_childs_futures_are_ready_and_dropping_them_takes_nothing_from_the_parent() {
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    let (ring, device) = in_memory(options(2, 4096));
    device.hold();
    let extent = ring.append(&[1; 4096]).expect("room");
    ring.append(&[1; 4096]).expect("room");
    let mut context = Context::from_waker(Waker::noop());
    let mut durable = pin!(ring.wait_durable_async(extent.end()));
    let mut room = pin!(ring.append_async(&[1; 10]));
    assert!(durable.as_mut().poll(&mut context).is_pending());
    assert!(room.as_mut().poll(&mut context).is_pending());
    let child = Child::fork(|| {
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(durable.as_mut().poll(&mut context), Poll::Ready(Err(RingError::Forked)));
        assert_eq!(room.as_mut().poll(&mut context), Poll::Ready(Err(FORKED)));
        let mut late = Box::pin(ring.append_durable_async(&[2; 10]));
        assert_eq!(late.as_mut().poll(&mut context), Poll::Ready(Err(FORKED)));
        drop(copy(&ring));
    });
    child.succeeds();
    device.release_all();
    eventually("the first is durable", || durable.as_mut().poll(&mut context).is_ready());
    eventually("the second has room", || room.as_mut().poll(&mut context).is_ready());
}
