//! A checker's types behind the calls that the ring makes.

use core::task::Waker;
use std::io;
use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

pub(crate) use checker::hint::spin_loop;
pub(crate) use checker::sync::MutexGuard;
pub(crate) use checker::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use checker::thread::{JoinHandle, yield_now};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;

/// A checker always has a thread left.
pub(crate) fn spawn(_: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Ok(checker::thread::spawn(run))
}

pub(crate) fn is_this_thread(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == checker::thread::current().id()
}

/// Shuttle's threads see everything at once.
#[cfg(shuttle)]
pub(crate) fn fence(_: Ordering) {}

/// Whatever the pause, a checker has to know that this thread can do nothing until another one has run.
#[derive(Debug)]
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn pause(&mut self) {
        yield_now();
    }

    pub(crate) fn sleep(&mut self) {
        yield_now();
    }
}

#[derive(Debug)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("not poisoned")
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(checker::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).expect("not poisoned")
    }

    /// Checkers know no time: nothing ever times out.
    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, _: Option<Instant>) -> (MutexGuard<'a, T>, bool) {
        (self.wait(guard), false)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Lets its thread sleep until the waker is used, be it before or after.
pub(crate) struct Parker(Arc<Unpark>);

struct Unpark {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Unpark { woken: Mutex::new(false), changed: Condvar::new() }))
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    pub(crate) fn park(&self, _deadline: Option<Instant>) {
        let mut woken = self.0.woken.lock();
        while !core::mem::take(&mut *woken) {
            woken = self.0.changed.wait(woken);
        }
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }
}

/// What the standard library's shows a thread that looks, and no more: that it is set is known by an acquire of what
/// its setter released.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    setting: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: AtomicBool::new(false), setting: Mutex::new(()) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // ordering: acquire half of the edge of the standard library's `OnceLock`.
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _setting = self.setting.lock();
        let value = self.value.get_or_init(init);
        // ordering: release half of the edge of the standard library's `OnceLock`.
        self.is_set.store(true, Ordering::Release);
        value
    }
}

/// A checker's own orders each reader behind all before it, so that the thread that calls the device would be ordered
/// behind the thread that called it before, and a missing ordering elsewhere would stay unseen. Here readers pass each
/// other without a trace, and only a writer comes before or after each of them: the standard library's lock says
/// whether it has to wait.
#[derive(Debug)]
pub(crate) struct RwLock<T> {
    value: std::sync::RwLock<T>,
    writes: AtomicUsize,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: std::sync::RwLock::new(value), writes: AtomicUsize::new(0) }
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, T> {
        // ordering: acquire half of the edge that a lock has.
        self.writes.load(Ordering::Acquire);
        // Not locked: a writer does nothing that a checker sees before it is done, so that no thread comes in between.
        self.value.try_read().expect("no writer is inside")
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, T> {
        loop {
            // ordering: both halves of the edge that a lock has.
            self.writes.fetch_add(1, Ordering::AcqRel);
            if let Ok(value) = self.value.try_write() {
                return value;
            }
            yield_now();
        }
    }
}
