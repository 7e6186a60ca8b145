//! The process that a file belongs to. After `fork(2)` the child shares open files with its parent, but has neither its
//! threads nor its io_uring: it must not touch what it inherited, and has to find that out before it does.
//!
//! ```text
//!   parent:  page = 1 ──fork──────────────────────────────▶ page = 1
//!                        └──▶ child: page = 0 ──here()──▶ page = 2 ──fork──▶ …
//! ```
//!
//! The number of the process lies in a page that the kernel wipes in a child (`MADV_WIPEONFORK`), whichever way the
//! child was made. Everything that reaches for a file remembers the number that it was made under, as a [`Process`],
//! and compares: one load. An object of a parent does so before it takes any lock, for another thread may have held
//! that lock at the moment of the fork, and does not exist in the child.
//!
//! Code that cannot afford even the load is [adopted](adopt): it is called in the child before `fork` returns there.

use core::cell::Cell;
use core::fmt;
use core::hint::spin_loop;
use core::mem;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};
use core::time::Duration;
use std::sync::{Arc, Weak};
use std::thread;

use lock_api::{GuardSend, RawMutex};
use ring_alloc::{Arena, BLOCK};

use crate::lock::WRITTEN;

/// The process in which a value was made.
#[derive(Clone, Copy)]
pub struct Process {
    number: u64,
    current: &'static AtomicU64,
}

impl Process {
    /// Returns the process of the caller.
    #[must_use]
    pub fn here() -> Self {
        hook();
        let current = current();
        loop {
            // Relaxed here and below: the numbers order nothing, they are only compared.
            let number = current.load(Relaxed);
            if number != 0 {
                return Self { number, current };
            }
            let next = LAST.fetch_add(1, Relaxed) + 1;
            // Another thread may have been faster.
            _ = current.compare_exchange(0, next, Relaxed, Relaxed);
        }
    }

    /// Returns whether the caller is in this process, and not in a child of it. One load, no system call.
    #[must_use]
    #[inline]
    pub fn is_here(self) -> bool {
        self.current.load(Relaxed) == self.number
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("is_here", &self.is_here()).finish_non_exhaustive()
    }
}

/// Something that has to act in a forked child before anything else does.
///
/// In the child it is never dropped: another thread may have been changing it at the moment of the fork, and what that
/// left half done must not even be freed.
pub trait Inherited: Send + Sync {
    /// Called in the child, by its only thread, before `fork` returns there.
    ///
    /// It must do no more than a signal handler may: not allocate, not lock, not panic. Storing to atomics is fine.
    ///
    /// `fork` of the C library calls it; a child of the bare system call (`clone`) is known by [`Process::is_here`]
    /// only.
    fn disown(&self);
}

/// Calls `heir` in each child that is forked as long as `heir` lives. Dropping the returned value forgets it, if it is
/// gone by then.
pub fn adopt(heir: Weak<dyn Inherited>) -> Adopted {
    hook();
    HEIRS.lock().push(heir);
    Adopted(Process::here())
}

/// The registration of an heir, made by [`adopt`].
#[derive(Debug)]
#[must_use = "dropping it forgets what was adopted"]
pub struct Adopted(Process);

impl Drop for Adopted {
    fn drop(&mut self) {
        // In a child of the bare system call a thread of the parent may have the lock for ever.
        if self.0.is_here() {
            HEIRS.lock().retain(|heir| heir.strong_count() > 0);
        }
    }
}

/// The number of this process; 0: not given yet. In a page of its own, whose address never changes.
static CURRENT: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The memory of that page.
static KEPT: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

/// The same where there is no such page. Then only [`in_child`] wipes it.
static PLAIN: AtomicU64 = AtomicU64::new(0);

/// The last number that was given to this process or to one that it descends from.
static LAST: AtomicU64 = AtomicU64::new(0);

fn current() -> &'static AtomicU64 {
    let mut page = CURRENT.load(Relaxed);
    if page.is_null() {
        // Not a `OnceLock`: a fork while another thread initialises it would leave it locked in the child.
        let arena = Arena::new(1, BLOCK).map(Arc::new).ok();
        let new = arena.as_ref().map_or(ptr::from_ref(&PLAIN).cast_mut(), |arena| arena.address(0).cast());
        match CURRENT.compare_exchange(ptr::null_mut(), new, Relaxed, Relaxed) {
            Ok(_) => {
                // Never given back, and kept where a search for leaks finds it.
                let arena = arena.map_or(ptr::null_mut(), |arena| Arc::into_raw(arena).cast_mut());
                KEPT.store(arena, Relaxed);
                page = new;
            }
            Err(first) => page = first,
        }
    }
    // SAFETY: *valid for ever*: it is `PLAIN`, or a mapped page, aligned and zeroed at first, whose arena is never
    // dropped. *Only used atomically*: nothing else knows its address. Relaxed loads of the pointer suffice: what it
    // points to was the kernel's to prepare.
    unsafe { &*page }
}

/// What is called in a child.
static HEIRS: Mutex<Vec<Weak<dyn Inherited>>> = Mutex::new(Vec::new());

/// A mutex that a forked child finds unlocked, and what it protects in order: [`prepare`] takes each of them.
pub(crate) type Mutex<T> = lock_api::Mutex<Latch, T>;

thread_local! {
    /// Whether this thread is about to fork, and has taken the locks.
    static FORKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the C library calls the handlers.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// Has the C library call the handlers around each fork.
fn hook() {
    // ordering: acquire half of D4.
    if !HOOKED.load(Acquire) {
        // Several threads may come here at once: that the handlers are called several times does no harm, and nothing
        // waits.
        // SAFETY: *callable at any fork*: the handlers are functions of this crate, which take no arguments and do not
        // unwind.
        let outcome = unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        // ordering: release half of D4. Without memory it stays false, and the next caller tries again.
        HOOKED.store(outcome == 0, Release);
    }
}

extern "C" fn prepare() {
    if !FORKING.replace(true) {
        mem::forget(HEIRS.lock());
        mem::forget(WRITTEN.lock());
    }
}

extern "C" fn in_parent() {
    if FORKING.replace(false) {
        unlock();
    }
}

extern "C" fn in_child() {
    if FORKING.replace(false) {
        unlock();
        // The kernel has done so if it can.
        current().store(0, Relaxed);
        for heir in HEIRS.lock().iter().filter_map(Weak::upgrade) {
            heir.disown();
            mem::forget(heir);
        }
    }
}

/// Undoes what [`prepare`] did.
fn unlock() {
    // SAFETY: *locked by this thread*: `FORKING` was set, by `prepare`, which forgot the guard.
    unsafe { WRITTEN.force_unlock() };
    // SAFETY: as above.
    unsafe { HEIRS.force_unlock() };
}

/// A lock whose unlocking is one store: in a child, where other threads may have been waiting for it, there is nothing
/// else to touch. It is held for a few instructions.
#[derive(Debug)]
pub(crate) struct Latch(AtomicBool);

// SAFETY: *exclusive*: `lock` and `try_lock` succeed only by changing the flag from false to true, and only `unlock`
// changes it back.
unsafe impl RawMutex for Latch {
    #[allow(clippy::declare_interior_mutable_const, reason = "what each lock begins as")]
    const INIT: Self = Self(AtomicBool::new(false));

    type GuardMarker = GuardSend;

    fn lock(&self) {
        const SPINS: u32 = 64;
        const YIELDS: u32 = 128;
        let mut tries = 0;
        while !self.try_lock() {
            tries += 1;
            match tries {
                ..SPINS => spin_loop(),
                SPINS..YIELDS => thread::yield_now(),
                // Its holder may have a lower priority, and nothing else to run on.
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn try_lock(&self) -> bool {
        // ordering: acquire half of D3.
        !self.0.swap(true, Acquire)
    }

    unsafe fn unlock(&self) {
        // ordering: release half of D3.
        self.0.store(false, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Process {
        /// One that the caller is not in.
        pub(crate) fn elsewhere() -> Self {
            Self { number: u64::MAX, ..Self::here() }
        }
    }

    #[derive(Debug)]
    struct Heir;

    impl Inherited for Heir {
        fn disown(&self) {}
    }

    #[test]
    fn a_process_is_here_or_elsewhere_and_says_so() {
        assert_eq!(format!("{:?}", Process::here()), "Process { is_here: true, .. }");
        assert_eq!(format!("{:?}", Process::elsewhere()), "Process { is_here: false, .. }");
    }

    #[test]
    fn the_handlers_are_registered_once_and_for_all() {
        assert!(Process::here().is_here() && HOOKED.load(Relaxed));
    }

    #[test]
    fn what_was_adopted_and_is_gone_is_forgotten_and_what_lives_is_not() {
        let [gone, alive] = [Arc::new(Heir), Arc::new(Heir)];
        let weak = [&gone, &alive].map(|heir| Arc::downgrade(heir) as Weak<dyn Inherited>);
        let [first, second] = weak.clone().map(adopt);
        let known = || weak.each_ref().map(|weak| HEIRS.lock().iter().filter(|heir| heir.ptr_eq(weak)).count());
        assert_eq!(known(), [1, 1]);
        drop(gone);
        drop(first);
        assert_eq!(known(), [0, 1]);
        drop(alive);
        drop(second);
        assert_eq!(known(), [0, 0]);
    }

    #[test]
    fn a_thread_that_forks_has_every_lock_until_it_has_forked() {
        prepare();
        let free = [HEIRS.try_lock().is_some(), WRITTEN.try_lock().is_some()];
        in_parent();
        assert_eq!(free, [false, false]);
        drop((HEIRS.lock(), WRITTEN.lock()));
    }

    #[test]
    fn one_thread_at_a_time_has_the_lock() {
        const EACH: u64 = 100;
        const THREADS: u64 = 4;
        static COUNT: Mutex<u64> = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut count = COUNT.lock();
                        let before = *count;
                        // For the others to come in.
                        thread::yield_now();
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(*COUNT.lock(), THREADS * EACH);
    }
}
