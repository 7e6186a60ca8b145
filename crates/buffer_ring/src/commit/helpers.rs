//! The ring's own threads, which wait in place of those that cannot: of futures, and of commits whose callers gave up.
//!
//! One waits for the lowest address that is wanted, and brings it about as any waiting thread does; another waits for room. Each is
//! started when it is needed for the first time, sleeps while nothing is wanted, and ends with the ring.
//!
//! The lowest, because nothing is durable before what lies below it; what came meanwhile goes out in the same batch, unless that was
//! sealed already. A lower address that is wanted later recalls the thread from what it is at, which may be a wait for bytes behind
//! a reservation that is held.
//!
//! Only these threads wake tasks, and only when they owe nothing to anyone: they hold no lock and no role, and are in no buffer. So a
//! waker may use the ring like any other code, and even drop it. Its panic ends here.

use core::task::Waker;
use std::collections::BTreeMap;
use std::io;

use ring_io::event;

use crate::RingError;
use crate::ring::commit::DurabilityWait;
use crate::ring::core::Shared;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, AtomicUsize, Condvar, JoinHandle, Mutex, is_this_thread, spawn};

/// All of a ring's.
#[derive(Debug)]
pub(crate) struct Helpers {
    pub(crate) commit: Helper<Commits>,
    #[cfg(any(feature = "async", test))]
    pub(crate) room: Helper<crate::ring::futures::Room>,
    /// Whether the ring is going.
    ending: AtomicBool,
    /// Followers that are at what callers gave up, for as long as the ring is not going.
    followers: AtomicUsize,
    /// Whether the thread that waits for durability is to look at once what is wanted. Changed within its lock.
    cancelled: AtomicBool,
}

/// What is to become durable.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// Of tasks, by where their bytes end and in the order in which they came.
    tasks: BTreeMap<Ticket, Waker>,
    #[cfg(any(feature = "async", test))]
    arrivals: u64,
    /// The highest address that was wanted and that its caller no longer waits for; 0 if there is none.
    abandoned: u64,
    /// The address that the thread is at.
    current: Option<u64>,
}

/// An address that a task waits for, and a number that distinguishes it from others.
pub(crate) type Ticket = (u64, u64);

impl Commits {
    fn lowest(&self) -> Option<u64> {
        let abandoned = Some(self.abandoned).filter(|&address| address > 0);
        let task = self.tasks.keys().next().map(|&(address, _)| address);
        [abandoned, task].into_iter().flatten().min()
    }

    /// Takes out everything up to `address`.
    fn take_up_to(&mut self, address: u64) -> Vec<Waker> {
        if self.abandoned <= address {
            self.abandoned = 0;
        }
        let later = match address.checked_add(1) {
            Some(next) => self.tasks.split_off(&(next, 0)),
            None => BTreeMap::new(),
        };
        core::mem::replace(&mut self.tasks, later).into_values().collect()
    }

    /// Whether a thread that is at another address has to come back for this one.
    fn is_before_current(&self, address: u64) -> Option<u64> {
        self.current.filter(|&current| address < current)
    }
}

impl Helpers {
    pub(crate) fn new() -> Self {
        Self {
            commit: Helper::new(),
            #[cfg(any(feature = "async", test))]
            room: Helper::new(),
            ending: AtomicBool::new(false),
            followers: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Has a thread bring it about that `address` is durable, and `waker` woken then. The error says why there is no thread.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn await_commit(&self, shared: &Shared, address: u64, waker: Waker) -> io::Result<Ticket> {
        let mut ticket = (address, 0);
        self.want_commit(shared, address, |commits| {
            commits.arrivals += 1;
            ticket.1 = commits.arrivals;
            commits.tasks.insert(ticket, waker);
        })
        .map(|()| ticket)
        .inspect_err(|_| self.forget_commit(ticket, false))
    }

    /// Gives the ticket up if it is still there. `abandoned`: the task is gone, but what it wanted is still wanted.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn forget_commit(&self, ticket: Ticket, abandoned: bool) {
        let waker = self.commit.with(|commits| {
            let waker = commits.tasks.remove(&ticket)?;
            if abandoned {
                commits.abandoned = commits.abandoned.max(ticket.0);
            }
            Some(waker)
        });
        // Not dropped within the lock: with the waker a task may go, and with it others that wait.
        drop(waker);
    }

    /// Has a thread bring it about that `address` is durable, which a caller gave up on.
    pub(crate) fn adopt_commit(&self, shared: &Shared, address: u64) -> io::Result<()> {
        self.want_commit(shared, address, |commits| commits.abandoned = commits.abandoned.max(address))
    }

    fn want_commit(&self, shared: &Shared, address: u64, add: impl FnOnce(&mut Commits)) -> io::Result<()> {
        let interrupted = self.commit.with(|commits| {
            add(commits);
            let interrupted = commits.is_before_current(address);
            if interrupted.is_some() {
                self.cancelled.store(true, Relaxed);
            }
            interrupted
        });
        let started = self.commit.start(shared, "ring-commit", Shared::commit_for_others);
        if let Some(current) = interrupted {
            shared.wake_helper_at(current);
        }
        started
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Acquire)
    }
}

/// A thread that is started when it is wanted, and what it is wanted for.
#[derive(Debug)]
pub(crate) struct Helper<W> {
    wanted: Mutex<W>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<W: Default> Helper<W> {
    fn new() -> Self {
        Self { wanted: Mutex::new(W::default()), changed: Condvar::new(), thread: Mutex::new(None) }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut W) -> R) -> R {
        f(&mut self.wanted.lock())
    }

    /// After a change of what is wanted: lets the thread look, and starts it if there is none.
    pub(crate) fn start(&self, shared: &Shared, name: &'static str, run: fn(&Shared)) -> io::Result<()> {
        self.changed.notify_all();
        let mut thread = self.thread.lock();
        if thread.is_none() && !shared.helpers.is_ending() {
            let shared = shared.this.upgrade().ok_or_else(|| io::Error::other("the ring has gone"))?;
            *thread = Some(spawn(name, move || run(&shared))?);
        }
        Ok(())
    }

    /// What is wanted, taken by `take` when there is something; `None` when the ring is going.
    pub(crate) fn next<R>(&self, ending: impl Fn() -> bool, take: impl Fn(&mut W) -> Option<R>) -> Option<R> {
        let mut wanted = self.wanted.lock();
        loop {
            if ending() {
                return None;
            }
            if let Some(next) = take(&mut wanted) {
                return Some(next);
            }
            self.changed.wait(&mut wanted);
        }
    }

    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread.lock().take()
    }

    /// After a change of what the thread looks at without the lock.
    fn look_again(&self) {
        // So that it is either before its look, or asleep.
        drop(self.wanted.lock());
        self.changed.notify_all();
    }
}

impl Shared {
    /// The generation of the thread that waits for durability.
    fn commit_for_others(&self) {
        let helpers = &self.helpers;
        run_again_after_panic(
            || self.commit_until_the_end(),
            // Whatever was wrong, those that wait look again, each for itself.
            || wake_all(helpers.commit.with(|commits| commits.take_up_to(u64::MAX))),
        );
    }

    fn commit_until_the_end(&self) {
        let helpers = &self.helpers;
        let lowest = |commits: &mut Commits| {
            commits.current = commits.lowest();
            helpers.cancelled.store(false, Relaxed);
            commits.current
        };
        while let Some(address) = helpers.commit.next(|| helpers.is_ending(), lowest) {
            let wait = DurabilityWait { upto: address, deadline: None, cancelled: Some(&helpers.cancelled) };
            if self.run(wait) == Err(RingError::TimedOut) {
                continue;
            }
            // Also after an error: then they look again. One that waited for an address that was never appended, because it saw the
            // tail too high, must not keep the others.
            let done = address.max(self.durability.durable());
            wake_all(helpers.commit.with(|commits| commits.take_up_to(done)));
        }
    }

    /// The thread that waits until `address` is durable looks again, wherever it sleeps.
    pub(crate) fn wake_helper_at(&self, address: u64) {
        self.changes.notify();
        self.waiters.elect_at(address);
        self.device.interrupt();
    }

    /// A caller gives up waiting for `address`, and what it began goes on. If the watermark is followed, a follower that waits sees to
    /// that, and for those that have nothing but an event, the ring's own thread.
    #[cold]
    pub(crate) fn abandon(&self, address: u64) {
        // ordering: R13 and R18 carry it to followers that come later.
        self.abandoned.fetch_max(address, Relaxed);
        if !self.waiters.is_empty() {
            self.waiters.wake_followers();
        }
        if self.eventfds.is_any() {
            let _ = self.adopt_abandoned();
        }
    }

    /// Has the ring's own thread finish what callers gave up on.
    pub(crate) fn adopt_abandoned(&self) -> io::Result<()> {
        let Some(address) = self.unfinished() else { return Ok(()) };
        self.helpers.adopt_commit(self, address).inspect_err(|error| {
            let error = error.to_string();
            event!(WARN, error, "cannot start a thread: an event may be late");
        })
    }

    /// The address that a caller gave up on, if it is not durable yet.
    pub(crate) fn unfinished(&self) -> Option<u64> {
        let address = self.abandoned.load(Relaxed);
        (address > self.durability.durable() && self.poisoned().is_none()).then_some(address)
    }

    /// Does `f` in a follower, unless the ring is going: its end waits until `f` is over. `f` gets what calls it back.
    pub(crate) fn work_as_follower<R>(&self, f: impl FnOnce(&AtomicBool) -> R) -> Option<R> {
        // Emitted when the ring no longer waits for this thread: a subscriber may drop it.
        let _held = ring_io::events::hold();
        let helpers = &self.helpers;
        helpers.followers.fetch_add(1, AcqRel);
        let result = (!helpers.is_ending()).then(|| f(&helpers.ending));
        helpers.followers.fetch_sub(1, AcqRel);
        self.changes.notify();
        result
    }

    /// Ends the threads. Tasks that still wait are woken, to find that the ring is going.
    pub(crate) fn end_helpers(&self) {
        let helpers = &self.helpers;
        let current = helpers.commit.with(|commits| {
            helpers.ending.store(true, Release);
            helpers.cancelled.store(true, Relaxed);
            commits.current
        });
        if helpers.followers.fetch_add(0, AcqRel) > 0 {
            self.wake_all();
            self.device.interrupt();
            let _ = self.wait_until(None, || (helpers.followers.fetch_add(0, AcqRel) == 0).then_some(()));
        }
        let threads = [
            helpers.commit.take_thread(),
            #[cfg(any(feature = "async", test))]
            helpers.room.take_thread(),
        ];
        if threads.iter().all(Option::is_none) {
            return;
        }
        helpers.commit.look_again();
        #[cfg(any(feature = "async", test))]
        helpers.room.look_again();
        self.wake_helper_at(current.unwrap_or(0));
        // A waker that drops the ring is called by one of them.
        for thread in threads.into_iter().flatten().filter(|thread| !is_this_thread(thread)) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a helper panicked");
        }
        wake_all(helpers.commit.with(|commits| commits.take_up_to(u64::MAX)));
        #[cfg(any(feature = "async", test))]
        wake_all(helpers.room.with(crate::ring::futures::Room::take));
    }
}

/// Calls `run` until it returns. After a panic in it, which is a bug of the ring, `recover` is called, and `run` once more: a thread
/// that is gone could not be replaced at a task limit.
pub(crate) fn run_again_after_panic(run: impl Fn(), recover: impl Fn()) {
    while shielded(&run) {
        event!(ERROR, "a thread of the ring panicked, and goes on");
        recover();
    }
}

/// Wakes tasks. By a thread that owes nothing to others.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if shielded(|| waker.wake()) {
            event!(ERROR, "a waker panicked: its task may never be polled again");
        }
    }
}

/// Calls foreign code, and answers whether it panicked. A checker's own panics go through.
fn shielded(foreign: impl FnOnce()) -> bool {
    if cfg!(any(loom, shuttle)) {
        foreign();
        return false;
    }
    ring_io::events::shield(foreign)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn a_thread_that_panics_goes_on_after_those_that_wait_were_let_go() {
        let (runs, recovered) = (Cell::new(0), Cell::new(0));
        let run = || {
            runs.set(runs.get() + 1);
            assert_eq!(recovered.get() + 1, runs.get());
            assert!(runs.get() == 3, "a bug");
        };
        run_again_after_panic(run, || recovered.set(recovered.get() + 1));
        assert_eq!((runs.get(), recovered.get()), (3, 2));
    }

    #[test]
    fn the_lowest_address_comes_first_of_tasks_and_of_what_was_abandoned() {
        let mut commits = Commits::default();
        assert_eq!(commits.lowest(), None);
        commits.abandoned = 300;
        commits.tasks.extend([((500, 1), Waker::noop().clone()), ((500, 2), Waker::noop().clone())]);
        assert_eq!(commits.lowest(), Some(300));
        assert!(commits.take_up_to(299).is_empty());
        assert_eq!(commits.lowest(), Some(300));
        assert!(commits.take_up_to(300).is_empty());
        assert_eq!(commits.lowest(), Some(500));
        commits.abandoned = 600;
        assert_eq!(commits.lowest(), Some(500));
        assert_eq!(commits.take_up_to(500).len(), 2);
        assert_eq!(commits.lowest(), Some(600));
        commits.tasks.insert((u64::MAX, 3), Waker::noop().clone());
        assert_eq!(commits.take_up_to(u64::MAX).len(), 1);
        assert_eq!(commits.lowest(), None);
    }
}
