//! Calls when records are durable, for storage traits that hand over a callback.
//!
//! One thread waits for the lowest address, and so brings durability about as any committer does; then it makes the
//! calls that are due, in the order of their addresses. Calls that are asked for while it waits become due together.

use core::mem;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use buffer_ring::ring_io::locks::{Condvar, Mutex};
use buffer_ring::{BufferRing, RingError, ring_io::events::shield};

use super::{Error, Log};
use crate::Lsn;

type Call = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl Log {
    /// Has `call` called when all below `end` is on stable storage, or with the error why it never will be; and has it
    /// put there, as [`wait_durable`](Self::wait_durable) does.
    ///
    /// Calls are made in the order of their addresses, one at a time, by a thread of the log. A call may append, but
    /// must not wait for the log, as what it waits for may be behind it. If it panics, the panic hook reports it, and
    /// the other calls are made.
    ///
    /// In a forked child it is called at once, with [`Error::Forked`].
    pub fn on_durable(&self, end: Lsn, call: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if let Err(forked) = self.inner.check_process() {
            let _panicked = shield(|| call(Err(forked)));
            return;
        }
        self.inner.callbacks.add(&self.inner.ring, end.get(), Box::new(call));
    }
}

/// The calls that are to be made.
#[derive(Default)]
pub(super) struct Callbacks {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    /// By address, then in the order in which they were asked for.
    calls: BTreeMap<u64, Vec<Call>>,
    is_over: bool,
}

impl Shared {
    /// Waits for the lowest address, and takes all calls that are due then, with their outcome; `None`: there will be
    /// no more.
    fn next(&self, ring: &BufferRing) -> Option<(Vec<Call>, Result<(), RingError>)> {
        let mut state = self.state.lock();
        let lowest = loop {
            match state.calls.first_key_value() {
                Some((lowest, _)) => break *lowest,
                None if state.is_over => return None,
                None => state = self.changed.wait(state),
            }
        };
        drop(state);
        let outcome = ring.wait_durable(lowest);
        let reached = if outcome.is_ok() { ring.durable_watermark() } else { lowest };
        let mut state = self.state.lock();
        let later = state.calls.split_off(&(reached + 1));
        let due = mem::replace(&mut state.calls, later);
        Some((due.into_values().flatten().collect(), outcome))
    }
}

impl Callbacks {
    fn add(&self, ring: &Arc<BufferRing>, end: u64, call: Call) {
        self.shared.state.lock().calls.entry(end).or_default().push(call);
        self.shared.changed.notify_all();
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let (shared, ring) = (Arc::clone(&self.shared), Arc::clone(ring));
            let run = move || {
                while let Some((calls, outcome)) = shared.next(&ring) {
                    for call in calls {
                        let outcome = outcome.clone().map_err(Error::from);
                        // Its panic is its owner's, and was reported by the hook.
                        let _panicked = shield(|| call(outcome));
                    }
                }
            };
            // Without a thread, the next call that is added tries again.
            *thread = thread::Builder::new().name("ringlog-durable".into()).spawn(run).ok();
        }
    }

    /// Makes the calls that are left: the log is closed, so that each has its outcome.
    pub(super) fn end(&self) {
        self.shared.state.lock().is_over = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        // A call may hold the last clone of the log.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ended = thread.join();
        }
    }
}
