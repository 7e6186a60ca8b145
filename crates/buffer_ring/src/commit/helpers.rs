//! The ring's own threads, which wait in place of those that cannot: of futures, and of commits whose callers gave up.
//!
//! One waits for the lowest address that is wanted, and brings it about as any waiting thread does; another waits for
//! room. Each is started when it is needed for the first time, sleeps while nothing is wanted, and ends with the ring.
//!
//! The lowest, because nothing is durable before what lies below it; what came meanwhile goes out in the same batch,
//! unless that was sealed already. A lower address that is wanted later cancels what the thread is at, which may be a
//! wait for bytes behind a reservation that is held.
//!
//! Only these threads wake tasks, and only when no other thread waits for them: they hold no lock, no claim and no pin.
//! So a waker may use the ring like any other code, and even drop it. Its panic ends here.

use core::task::Waker;
use std::collections::BTreeMap;
use std::io;

use ring_io::event;

#[cfg(any(feature = "async", test))]
use crate::staging::rotation::BufferId;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, AtomicUsize, Condvar, JoinHandle, Mutex, spawn};

/// All of a ring's.
#[derive(Debug)]
pub(crate) struct Helpers {
    pub(crate) commit: Helper<Commits>,
    #[cfg(any(feature = "async", test))]
    pub(crate) room: Helper<Room>,
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

    /// Adds a task to be woken when `address` is durable. The thread has to be [started](Helper::start) next, and to be
    /// woken where it waits for the second address, if there is one.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn add_task(&self, address: u64, waker: Waker) -> (Ticket, Option<u64>) {
        let mut ticket = (address, 0);
        let interrupted = self.want_commit(address, |commits| {
            commits.arrivals += 1;
            ticket.1 = commits.arrivals;
            commits.tasks.insert(ticket, waker);
        });
        (ticket, interrupted)
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

    /// Adds an address that a caller gave up on. The same has to follow as after [`add_task`](Self::add_task).
    #[must_use]
    pub(crate) fn adopt_commit(&self, address: u64) -> Option<u64> {
        self.want_commit(address, |commits| commits.abandoned = commits.abandoned.max(address))
    }

    fn want_commit(&self, address: u64, add: impl FnOnce(&mut Commits)) -> Option<u64> {
        self.commit.with(|commits| {
            add(commits);
            let interrupted = commits.is_before_current(address);
            if interrupted.is_some() {
                self.cancelled.store(true, Relaxed);
            }
            interrupted
        })
    }

    /// The lowest address that is wanted, as soon as there is one; `None` when the ring is going.
    pub(crate) fn next_commit(&self) -> Option<u64> {
        let lowest = |commits: &mut Commits| {
            commits.current = commits.lowest();
            self.cancelled.store(false, Relaxed);
            commits.current
        };
        self.commit.next(|| self.is_ending(), lowest)
    }

    /// Whether the thread is to look at once for what is wanted.
    pub(crate) fn cancelled(&self) -> &AtomicBool {
        &self.cancelled
    }

    /// Wakes the tasks that wait for addresses up to `address`.
    pub(crate) fn wake_commits(&self, address: u64) {
        wake_all(self.commit.with(|commits| commits.take_up_to(address)));
    }

    /// Does `f` in a follower, unless the ring is going. `f` gets what calls it back.
    pub(crate) fn work_as_follower<R>(&self, f: impl FnOnce(&AtomicBool) -> R) -> Option<R> {
        // ordering: acquire half of R19, for the look that follows.
        self.followers.fetch_add(1, AcqRel);
        let result = (!self.is_ending()).then(|| f(&self.ending));
        // ordering: release half of R19: what the follower has done.
        self.followers.fetch_sub(1, AcqRel);
        result
    }

    /// Whether no follower works any more, after [`end`](Self::end).
    pub(crate) fn is_without_followers(&self) -> bool {
        // ordering: both halves of R19. An addition of nothing: the read-modify-write is the point.
        self.followers.fetch_add(0, AcqRel) == 0
    }

    /// The ring is going: from now on no thread is started, and no follower begins. The answer is the address that the
    /// thread is at.
    pub(crate) fn end(&self) -> Option<u64> {
        self.commit.with(|commits| {
            // ordering: carries nothing by itself; R19 and the locks order the looks that rely on it.
            self.ending.store(true, Release);
            self.cancelled.store(true, Relaxed);
            commits.current
        })
    }

    /// The threads that there are, each woken to find that the ring is going.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        let threads = [
            self.commit.take_thread(),
            #[cfg(any(feature = "async", test))]
            self.room.take_thread(),
        ];
        let threads: Vec<_> = threads.into_iter().flatten().collect();
        if !threads.is_empty() {
            self.commit.look_again();
            #[cfg(any(feature = "async", test))]
            self.room.look_again();
        }
        threads
    }

    /// Wakes all tasks, so that they look again.
    pub(crate) fn wake_all(&self) {
        self.wake_commits(u64::MAX);
        #[cfg(any(feature = "async", test))]
        self.wake_room();
    }

    /// Adds a task that has found buffer `seen` to be full. The thread has to be [started](Helper::start) next.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn add_room_task(&self, seen: BufferId, waker: Waker) -> u64 {
        self.room.with(|room| room.add(seen, waker))
    }

    /// The oldest buffer that a task has found to be full, as soon as there is one; `None` when the ring is going. The
    /// tasks stay in the list, so that they can take themselves away.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn next_room(&self) -> Option<BufferId> {
        self.room.next(|| self.is_ending(), |room| room.seen.filter(|_| !room.wakers.is_empty()))
    }

    /// Wakes all tasks that wait for room.
    #[cfg(any(feature = "async", test))]
    pub(crate) fn wake_room(&self) {
        wake_all(self.room.with(Room::take));
    }

    #[cfg(any(feature = "async", test))]
    pub(crate) fn forget_room(&self, place: u64) {
        let waker = self.room.with(|room| room.wakers.remove(&place));
        // Not dropped within the lock: with the waker a task may go, and with it others that wait for room.
        drop(waker);
    }

    pub(crate) fn is_ending(&self) -> bool {
        // ordering: as of R19, whose read-modify-writes bring the flag; nothing else is read behind it.
        self.ending.load(Acquire)
    }
}

/// The tasks that wait for room.
#[cfg(any(feature = "async", test))]
#[derive(Debug, Default)]
pub(crate) struct Room {
    wakers: BTreeMap<u64, Waker>,
    arrivals: u64,
    /// The oldest generation that one of them has found to be full.
    seen: Option<BufferId>,
}

#[cfg(any(feature = "async", test))]
impl Room {
    /// Adds a task that has found generation `seen` to be full. The answer is its number.
    fn add(&mut self, seen: BufferId, waker: Waker) -> u64 {
        self.arrivals += 1;
        self.wakers.insert(self.arrivals, waker);
        self.seen = Some(self.seen.map_or(seen, |oldest| oldest.min(seen)));
        self.arrivals
    }

    /// Takes them all out.
    pub(crate) fn take(&mut self) -> Vec<Waker> {
        self.seen = None;
        core::mem::take(&mut self.wakers).into_values().collect()
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

    /// After a change of what is wanted: lets the thread look, and starts it if there is none, with what `work`
    /// answers.
    pub(crate) fn start<F: FnOnce() + Send + 'static>(
        &self,
        name: &'static str,
        is_ending: impl FnOnce() -> bool,
        work: impl FnOnce() -> io::Result<F>,
    ) -> io::Result<()> {
        self.changed.notify_all();
        let mut thread = self.thread.lock();
        if thread.is_none() && !is_ending() {
            *thread = Some(spawn(name, work()?)?);
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
            wanted = self.changed.wait(wanted);
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

/// Calls `run` until it returns. After a panic in it, which is a bug of the ring, `recover` is called, and `run` once
/// more: a thread that is gone could not be replaced at a task limit.
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

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::cell::Cell;
    use std::sync::Arc;

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
    fn only_a_lower_address_fetches_the_thread_from_where_it_is() {
        let mut commits = Commits::default();
        assert_eq!(commits.is_before_current(0), None, "it is nowhere");
        commits.current = Some(500);
        let fetched = [0, 499, 500, 501].map(|address| commits.is_before_current(address));
        assert_eq!(fetched, [Some(500), Some(500), None, None]);
    }

    #[test]
    fn tasks_that_wait_for_the_same_address_are_all_woken() {
        let helpers = Helpers::new();
        let tickets = [500, 500, 400].map(|address| helpers.add_task(address, Waker::noop().clone()).0);
        assert!(tickets[0] != tickets[1] && tickets[0] != tickets[2], "{tickets:?}");
        helpers.forget_commit(tickets[0], false);
        assert_eq!(helpers.next_commit(), Some(400));
        assert_eq!(helpers.commit.with(|commits| commits.take_up_to(500)).len(), 2);
    }

    #[test]
    fn a_thread_is_started_once_and_not_at_the_end() {
        let started = Arc::new(AtomicUsize::new(0));
        let work = || {
            let started = Arc::clone(&started);
            move || {
                Ok(move || {
                    started.fetch_add(1, Relaxed);
                })
            }
        };
        let helper = Helper::<Commits>::new();
        helper.start("ending", || true, work()).expect("nothing to start");
        assert!(helper.take_thread().is_none());
        helper.start("first", || false, work()).expect("a thread");
        helper.start("second", || false, work()).expect("nothing to start");
        helper.take_thread().expect("the first one").join().expect("no panic");
        assert!(helper.take_thread().is_none());
        assert_eq!(started.load(Relaxed), 1);
        let helpers = Helpers::new();
        helpers.room.start("room", || false, work()).expect("a thread");
        assert_eq!(helpers.take_threads().into_iter().map(|thread| thread.join().is_ok()).collect::<Vec<_>>(), [true]);
        let refused = helper.start("none", || false, || Err::<fn(), _>(io::Error::other("no thread left")));
        assert!(refused.is_err() && helper.take_thread().is_none());
    }

    #[test]
    fn followers_are_counted_while_they_work_and_do_not_begin_at_the_end() {
        let helpers = Helpers::new();
        assert!(helpers.is_without_followers());
        let seen = helpers.work_as_follower(|ending| (ending.load(Relaxed), helpers.is_without_followers()));
        assert_eq!(seen, Some((false, false)));
        assert!(helpers.is_without_followers() && !helpers.is_ending());
        assert_eq!(helpers.end(), None, "the thread is nowhere");
        assert!(helpers.is_ending() && helpers.cancelled().load(Relaxed));
        assert!(helpers.take_threads().is_empty());
        assert_eq!(helpers.work_as_follower(|_| ()), None);
        assert!(helpers.is_without_followers());
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

    /// What a task found full before others came may have been left behind: it has to look again, though the latest
    /// generation is full, too.
    #[test]
    fn the_oldest_generation_that_a_task_found_full_decides_when_all_look_again() {
        let [first, second, third] = [1, 2, 3].map(|generation| BufferId::new(generation, 0));
        let mut room = Room::default();
        for (seen, oldest) in [(second, second), (third, second), (first, first), (third, first)] {
            room.add(seen, Waker::noop().clone());
            assert_eq!(room.seen, Some(oldest));
        }
        assert_eq!((room.take().len(), room.seen), (4, None));
        room.add(third, Waker::noop().clone());
        assert_eq!(room.seen, Some(third));
    }
}
