//! Whose turn it is, for threads and tasks alike: a task holds its turn while it waits for something else, which no
//! mutex allows.

use core::mem;
use core::task::Waker;

use buffer_ring::ring_io::events::shield;
use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::{Condvar, Mutex};

/// One has it, the others wait.
#[derive(Debug)]
pub(super) struct Turn {
    process: Process,
    waiting: Mutex<Waiting>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    is_taken: bool,
    tasks: Vec<Waker>,
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Turn);

impl Turn {
    pub(super) fn new() -> Self {
        Self { process: Process::here(), waiting: Mutex::default(), freed: Condvar::new() }
    }

    pub(super) fn take(&self) -> Taken<'_> {
        let mut waiting = self.waiting.lock();
        while mem::replace(&mut waiting.is_taken, true) {
            waiting = self.freed.wait(waiting);
        }
        Taken(self)
    }

    /// The same for a task. One that is not polled any more, but kept, holds all others back.
    #[cfg(feature = "async")]
    pub(super) async fn take_async(&self) -> Taken<'_> {
        core::future::poll_fn(|context| {
            // Foreign code, which may panic: before anything is locked.
            let waker = context.waker().clone();
            let mut waiting = self.waiting.lock();
            if mem::replace(&mut waiting.is_taken, true) {
                waiting.tasks.push(waker);
                return core::task::Poll::Pending;
            }
            core::task::Poll::Ready(Taken(self))
        })
        .await
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // In a forked child, a thread that is not there may have locked it.
        if !self.0.process.is_here() {
            return;
        }
        let tasks = {
            let mut waiting = self.0.waiting.lock();
            waiting.is_taken = false;
            mem::take(&mut waiting.tasks)
        };
        self.0.freed.notify_one();
        // All of them, since any may have been given up meanwhile.
        for task in tasks {
            let _panicked = shield(|| task.wake());
        }
    }
}
