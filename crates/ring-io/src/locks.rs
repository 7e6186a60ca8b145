//! Locks that a forked child can use for what it makes itself: those of the standard library, which are words that the
//! kernel waits at, without poison and without needless wake-ups.
//!
//! A lock that keeps its sleepers in a table of the process does not do. The child inherits the table with the threads
//! of its parent in it, and the C library gives the stacks of those threads to the first threads of the child: one
//! that goes to sleep finds itself in the table already, and is never woken.
//!
//! What a panicking thread has left behind a lock is as it was: everything that is locked here is in order at each
//! point at which foreign code runs.

use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{self, MutexGuard, PoisonError};
use std::time::Instant;

/// A mutex that a panic does not poison.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Mutex<T> {
    /// Makes an unlocked one.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits until no other thread has it. A thread that has it already must not call this.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same without waiting: `None` if a thread has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(sync::TryLockError::WouldBlock) => None,
        }
    }

    /// What is locked, by whoever has the mutex for itself.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition variable. Those who notify change what is waited for under the mutex that is waited with: then nothing
/// is missed, and no system call is made while no thread waits.
#[derive(Debug, Default)]
pub struct Condvar {
    changed: sync::Condvar,
    /// Changed under the mutex. A thread that notifies has had the mutex after its change: either the sleeper counted
    /// itself before that and is seen, or it has looked after it.
    sleepers: AtomicUsize,
}

impl Condvar {
    /// Makes one that nobody waits at.
    pub const fn new() -> Self {
        Self { changed: sync::Condvar::new(), sleepers: AtomicUsize::new(0) }
    }

    /// Sleeps until notified, with the mutex unlocked. May return without cause: look again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        // Relaxed here and below: the mutex orders it.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// The same up to `deadline`, if there is one. Also returns whether that has come.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> (MutexGuard<'a, T>, bool) {
        let Some(deadline) = deadline else { return (self.wait(guard), false) };
        let left = deadline.saturating_duration_since(Instant::now());
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let (guard, outcome) = self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        (guard, outcome.timed_out())
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }
}

/// A mutex that can be waited for until a deadline.
#[derive(Debug, Default)]
pub(crate) struct TimedMutex<T> {
    value: Mutex<T>,
    /// Whether a thread has the value: that thread alone locks it.
    taken: Mutex<bool>,
    freed: Condvar,
}

/// What [`TimedMutex`] locks, until it is dropped.
#[derive(Debug)]
pub(crate) struct TimedGuard<'a, T> {
    // Declared first, and so unlocked before the next thread gets its turn.
    value: MutexGuard<'a, T>,
    _turn: Taken<'a>,
}

/// The right to lock the value.
#[derive(Debug)]
struct Taken<'a> {
    taken: &'a Mutex<bool>,
    freed: &'a Condvar,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.taken.lock() = false;
        self.freed.notify_one();
    }
}

impl<T> TimedMutex<T> {
    pub(crate) fn lock(&self) -> TimedGuard<'_, T> {
        self.lock_until(None).expect("no deadline comes")
    }

    /// `None`: a thread has it.
    pub(crate) fn try_lock(&self) -> Option<TimedGuard<'_, T>> {
        let was_taken = mem::replace(&mut *self.taken.lock(), true);
        (!was_taken).then(|| self.guard())
    }

    /// `None`: a thread has had it until `deadline`. Without one it is waited for as long as it takes.
    pub(crate) fn lock_until(&self, deadline: Option<Instant>) -> Option<TimedGuard<'_, T>> {
        let (mut taken, mut late) = (self.taken.lock(), false);
        while *taken {
            if late {
                return None;
            }
            (taken, late) = self.freed.wait_until(taken, deadline);
        }
        *taken = true;
        Some(self.guard())
    }

    /// For the thread that has taken the turn.
    fn guard(&self) -> TimedGuard<'_, T> {
        TimedGuard { value: self.value.lock(), _turn: Taken { taken: &self.taken, freed: &self.freed } }
    }
}

impl<T> Deref for TimedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for TimedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;
    use core::time::Duration;
    use std::panic::catch_unwind;
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    /// More than anything here takes.
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_panic_poisons_nothing() {
        let mutex = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = mutex.lock();
            assert!(mutex.try_lock().is_none());
            *guard = 2;
            panic!("of foreign code");
        }));
        assert!(panicked.is_err());
        assert_eq!(mutex.try_lock().map(|value| *value), Some(2));
        assert_eq!(*mutex.lock(), 2);
    }

    #[test]
    fn a_timed_mutex_is_waited_for_until_the_deadline_or_for_ever() {
        let mutex = Arc::new(TimedMutex::<u32>::default());
        let mut guard = mutex.try_lock().expect("free");
        *guard = 7;
        assert!(mutex.try_lock().is_none());
        assert!(mutex.lock_until(Some(Instant::now())).is_none());
        assert!(mutex.lock_until(Some(Instant::now() + Duration::from_millis(1))).is_none());
        let (seen, sees) = mpsc::channel();
        let waiting = [None, Some(Instant::now() + LIMIT)].map(|deadline| {
            let (mutex, seen) = (Arc::clone(&mutex), seen.clone());
            thread::spawn(move || {
                let guard = mutex.lock_until(deadline);
                seen.send(guard.map(|guard| *guard)).expect("it is waited for");
            })
        });
        assert!(sees.recv_timeout(Duration::from_millis(20)).is_err(), "it is taken");
        drop(guard);
        assert_eq!([(); 2].map(|()| sees.recv_timeout(LIMIT)), [Ok(Some(7)), Ok(Some(7))]);
        waiting.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert!(mutex.try_lock().is_some());
    }

    #[test]
    fn who_waits_is_woken_and_who_is_late_is_told() {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let (done, ended) = mpsc::channel();
        for _ in 0..3 {
            let (shared, done) = (Arc::clone(&shared), done.clone());
            thread::spawn(move || {
                let mut value = shared.0.lock();
                while *value == 0 {
                    value = shared.1.wait(value);
                }
                *value -= 1;
                _ = done.send(());
            });
        }
        let (value, is_late) = shared.1.wait_until(shared.0.lock(), Some(Instant::now()));
        assert!(is_late);
        drop(value);
        *shared.0.lock() = 1;
        shared.1.notify_one();
        assert_eq!(ended.recv_timeout(LIMIT), Ok(()));
        *shared.0.lock() = 2;
        shared.1.notify_all();
        assert_eq!([ended.recv_timeout(LIMIT), ended.recv_timeout(LIMIT)], [Ok(()), Ok(())]);
        assert_eq!(*shared.0.lock(), 0);
    }
}
