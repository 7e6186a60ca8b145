//! A waker is foreign code, and so are its clones and its end: they panic, use the ring, wait, drop other futures, drop
//! the ring. None of that reaches other tasks and threads.

mod common;

use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, panic_any};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Wake;
use std::thread;

use buffer_ring::{AppendError, AppendFuture, BufferRing, DurableFuture, Extent, MemoryDevice, RingError};
use common::{Holding, LIMIT, MOMENT, eventually, in_memory, options, pattern, within};

/// A waker that does something when it is woken, and something when the last of its copies is dropped.
struct Does<W: Fn(), D: Fn()>(W, D);

impl<W: Fn() + Send + Sync, D: Fn() + Send + Sync> Wake for Does<W, D> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

impl<W: Fn(), D: Fn()> Drop for Does<W, D> {
    fn drop(&mut self) {
        (self.1)();
    }
}

fn on_wake(wake: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Does(wake, || {})))
}

/// A waker, and what waits until it is woken.
fn bell() -> (Waker, impl Fn()) {
    let (ring, rung) = mpsc::channel();
    let waker = on_wake(move || _ = ring.send(()));
    (waker, move || rung.recv_timeout(LIMIT).expect("the task is woken"))
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let (waker, woken) = bell();
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(output) = poll(&mut future, &waker) {
            return output;
        }
        woken();
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a payload panics");
        }
    }
}

/// What a waker does when it is woken. It gets the ring, and an address that is durable soon.
type Harm = fn(&'static BufferRing, u64);

const HARMFUL: &[(&str, Harm)] = &[
    ("panics", |_, _| panic!("a waker panics")),
    ("panics with a payload that panics", |_, _| panic_any(PanicsWhenDropped)),
    ("appends", |ring, _| drop(ring.append(b"of a waker"))),
    ("fills a buffer", |ring, _| drop(ring.append(&[7; 4096]))),
    ("commits", |ring, _| drop(ring.append_durable(b"of a waker"))),
    ("syncs", |ring, _| drop(ring.sync())),
    ("waits", |ring, address| drop(ring.wait_durable_timeout(address, LIMIT))),
    ("waits for what never comes", |ring, _| drop(ring.durable_watch().wait_ge_timeout(1 << 40, MOMENT))),
    ("polls another future", |ring, _| {
        let mut other = Box::pin(ring.append_durable_async(b"of a waker"));
        let _ = poll(&mut other, Waker::noop());
    }),
];

/// Its waker, which harms also when it is dropped if `on_drop`.
fn harmful(harm: Harm, on_drop: bool, ring: &'static BufferRing, address: u64) -> Waker {
    let dropped = move || {
        if on_drop && !thread::panicking() {
            harm(ring, address);
        }
    };
    Waker::from(Arc::new(Does(move || harm(ring, address), dropped)))
}

fn leaked() -> (&'static BufferRing, MemoryDevice) {
    let (ring, device) = in_memory(options(4, 8192));
    (Box::leak(Box::new(ring)), device)
}

/// Whatever a waker did before, others can commit, by waiting and by futures.
fn works(ring: &'static BufferRing, device: &MemoryDevice) {
    let by_thread = ring.append_durable(&pattern(1, 100)).expect("a working device");
    let by_future = block_on(ring.append_durable_async(&pattern(2, 100))).expect("a working device");
    for (id, extent) in [(1, by_thread), (2, by_future)] {
        assert!(common::stored(device, extent) == pattern(id, 100));
    }
}

/// Two writes come back together; beside the harmful task, two threads and another task wait for them.
#[test]
fn a_waker_for_durability_harms_no_thread_no_task_and_no_completion() {
    within(LIMIT, || {
        for (what, harm, on_drop) in HARMFUL.iter().flat_map(|&(what, harm)| [(what, harm, false), (what, harm, true)])
        {
            let (ring, device) = leaked();
            let holding = Holding::new(&device);
            let first = ring.append(&pattern(1, 8192)).expect("room");
            let second = ring.append(&pattern(2, 8192)).expect("room");
            let waker = harmful(harm, on_drop, ring, second.end());
            let mut victim: DurableFuture<'_> = ring.wait_durable_async(first.end());
            assert!(poll(&mut victim, &waker).is_pending());
            drop(waker);
            let (waker, woken) = bell();
            let mut other = ring.wait_durable_async(first.end());
            assert!(poll(&mut other, &waker).is_pending());
            thread::scope(|scope| {
                let waiting = [first, second].map(|extent| scope.spawn(move || ring.wait_durable(extent.end())));
                thread::sleep(Duration::from_millis(5));
                drop(holding);
                for thread in waiting {
                    assert_eq!(thread.join().expect("an innocent thread"), Ok(()), "{what}");
                }
            });
            while poll(&mut other, &waker).is_pending() {
                woken();
            }
            works(ring, &device);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(victim)));
            eventually("nothing stays in flight", || ring.written_watermark() >= second.end());
        }
    });
}

#[test]
fn a_waker_for_room_harms_no_other_task() {
    within(LIMIT, || {
        for (what, harm, on_drop) in HARMFUL.iter().flat_map(|&(what, harm)| [(what, harm, false), (what, harm, true)])
        {
            let (ring, device) = leaked();
            let holding = Holding::new(&device);
            let full = [(); 4].map(|()| ring.append(&[1; 8192]).expect("room"));
            let waker = harmful(harm, on_drop, ring, full[0].end());
            let mut victim: AppendFuture<'_> = ring.append_async(&[2; 8192]);
            assert!(poll(&mut victim, &waker).is_pending());
            drop(waker);
            let (waker, woken) = bell();
            let mut other = ring.append_async(&[3; 8192]);
            assert!(poll(&mut other, &waker).is_pending());
            drop(holding);
            let extent: Extent = loop {
                woken();
                if let Poll::Ready(outcome) = poll(&mut other, &waker) {
                    break outcome.expect("there is room");
                }
            };
            assert_eq!(ring.wait_durable(extent.end()), Ok(()), "{what}");
            works(ring, &device);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(victim)));
        }
    });
}

/// The panic of a clone, or of the drop of a waker that is replaced, is the polling task's own.
#[test]
fn a_waker_that_panics_when_it_is_cloned_leaves_nothing_behind() {
    /// Panics when it is cloned.
    static TABLE: RawWakerVTable = RawWakerVTable::new(|_| panic!("a clone panics"), |_| {}, |_| {}, |_| {});
    within(LIMIT, || {
        let (ring, device) = leaked();
        // SAFETY: *the contract of `RawWaker`*: its functions touch no data, and may be called from any thread.
        let waker = unsafe { Waker::from_raw(RawWaker::new(core::ptr::null(), &TABLE)) };
        let holding = Holding::new(&device);
        let full = [(); 4].map(|()| ring.append(&[1; 8192]).expect("room"));
        let mut durable = ring.wait_durable_async(full[3].end());
        let mut room = ring.append_async(&[2; 100]);
        for _ in 0..2 {
            assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut durable, &waker))).is_err());
            assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut room, &waker))).is_err());
        }
        drop(holding);
        assert_eq!(block_on(durable), Ok(()));
        assert!(block_on(room).is_ok());
        works(ring, &device);
    });
}

/// With the last waker of a task that has ended the ring goes: in a thread of its own.
#[test]
fn a_waker_may_drop_the_ring() {
    within(LIMIT, || {
        for for_room in [false, true] {
            let (ring, device) = in_memory(options(2, 4096));
            let ring = Arc::new(ring);
            let watch = ring.durable_watch();
            let holding = Holding::new(&device);
            let extents = [(); 2].map(|()| ring.append(&[1; 4096]).expect("room"));
            let owned = Mutex::new(Some(Arc::clone(&ring)));
            let (done, is_done) = mpsc::channel();
            let waker = on_wake(move || {
                drop(owned.lock().expect("no panic").take());
                let _ = done.send(());
            });
            // A future that is leaked keeps its waker in the ring, and borrows it no longer.
            if for_room {
                let mut future = Box::new(ring.append_async(&[2; 100]));
                assert!(poll(&mut *future, &waker).is_pending());
                core::mem::forget(future);
            } else {
                let mut future = Box::new(ring.wait_durable_async(extents[1].end()));
                assert!(poll(&mut *future, &waker).is_pending());
                core::mem::forget(future);
            }
            drop(ring);
            drop(holding);
            is_done.recv_timeout(LIMIT).expect("it is woken");
            eventually("the ring is gone", || watch.wait_ge(1 << 40) == Err(RingError::Closed));
            assert_eq!(device.contents().len(), 8192);
        }
    });
}

/// A waker that blocks for good holds up other futures, and no thread.
#[test]
fn a_waker_that_blocks_holds_up_no_thread() {
    within(LIMIT, || {
        let (ring, _device) = leaked();
        let (let_go, is_let_go) = mpsc::channel::<()>();
        let is_let_go = Mutex::new(is_let_go);
        let (entered, has_entered) = mpsc::channel();
        let waker = on_wake(move || {
            let _ = entered.send(());
            let _ = is_let_go.lock().expect("no panic").recv();
        });
        let extent = ring.append(&[1; 100]).expect("room");
        let mut future = ring.wait_durable_async(extent.end());
        while poll(&mut future, &waker).is_pending() {
            has_entered.recv_timeout(LIMIT).expect("it is woken");
            for _ in 0..10 {
                assert!(ring.append_durable(&[2; 100]).is_ok());
            }
            assert!(ring.sync().is_ok());
            let_go.send(()).expect("it waits");
        }
    });
}

/// At a task limit the polling thread does the work itself.
#[test]
fn without_a_thread_to_be_had_a_future_does_its_work_itself() {
    use std::collections::BTreeMap;
    use std::env::consts::ARCH;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let rules = BTreeMap::from([(libc::SYS_clone, vec![]), (libc::SYS_clone3, vec![])]);
        let answer = SeccompAction::Errno(libc::EAGAIN.cast_unsigned());
        let arch = ARCH.try_into().expect("an architecture that seccompiler knows");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
        // For this thread alone.
        apply_filter(&BpfProgram::try_from(filter).expect("a filter")).expect("a kernel with seccomp");
        assert!(thread::Builder::new().spawn(|| {}).is_err(), "the filter refuses threads");

        let extent = ring.append(&pattern(1, 4096)).expect("room");
        let mut durable = ring.wait_durable_async(extent.end());
        assert_eq!(poll(&mut durable, Waker::noop()), Poll::Ready(Ok(())));
        assert!(common::stored(&device, extent) == pattern(1, 4096));
        let holding = Holding::new(&device);
        for _ in 0..2 {
            ring.append(&[2; 4096]).expect("room");
        }
        drop(holding);
        let mut room = ring.append_async(&[3; 100]);
        assert!(matches!(poll(&mut room, Waker::noop()), Poll::Ready(Ok(_))));
        let Poll::Ready(Ok(_)) = poll(&mut Box::pin(ring.append_durable_async(b"both")), Waker::noop()) else {
            panic!("without a thread nothing is pending")
        };

        // An event is readable at the latest when the ring is used again, or is refused at once.
        let watch = ring.durable_watch();
        let holding = Holding::new(&device);
        let Err(AppendError::NotDurableYet(extent)) = ring.append_durable_timeout(&[4; 100], MOMENT) else {
            panic!("nothing can be durable")
        };
        let refused = watch.eventfd().expect_err("no thread can finish the commit");
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        drop(holding);
        assert!(watch.wait_ge(extent.end()).is_ok(), "a thread that waits needs no other");
        assert!(watch.eventfd().is_ok());
    });
}
