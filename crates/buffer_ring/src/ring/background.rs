//! What the ring's own threads do: they wait in place of those that cannot.

use std::io;

use ring_io::event;

use crate::commit::helpers::{Helper, run_again_after_panic};
use crate::error::RingError;
use crate::ring::commit::DurabilityWait;
use crate::ring::core::Core;
use crate::sync::{AtomicBool, is_this_thread};

impl Core {
    /// Starts the thread that waits for durability, or wakes it where it waits for address `interrupted`.
    pub(super) fn start_committer(&self, interrupted: Option<u64>) -> io::Result<()> {
        let started = self.start(&self.waiting.helpers().commit, "ring-commit", Self::commit_for_others);
        if let Some(current) = interrupted {
            self.wake_helper_at(current);
        }
        started
    }

    pub(super) fn start<W: Default>(&self, helper: &Helper<W>, name: &'static str, run: fn(&Self)) -> io::Result<()> {
        helper.start(
            name,
            || self.waiting.helpers().is_ending(),
            || {
                let core = self.share().ok_or_else(|| io::Error::other("the ring has gone"))?;
                Ok(move || run(&core))
            },
        )
    }

    /// All that the thread does that waits for durability.
    fn commit_for_others(&self) {
        run_again_after_panic(
            || self.commit_until_the_end(),
            // Whatever was wrong, those that wait look again, each for itself.
            || self.waiting.helpers().wake_commits(u64::MAX),
        );
    }

    fn commit_until_the_end(&self) {
        let helpers = self.waiting.helpers();
        while let Some(upto) = helpers.next_commit() {
            let wait = DurabilityWait { upto, deadline: None, cancelled: Some(helpers.cancelled()) };
            if self.run(wait) == Err(RingError::TimedOut) {
                continue;
            }
            // Also after an error: then they look again. One that waited for an address that was never appended,
            // because it saw the tail too high, must not keep the others.
            helpers.wake_commits(upto.max(self.writeback.durable()));
        }
    }

    /// The thread that waits until `address` is durable looks again, wherever it sleeps.
    pub(crate) fn wake_helper_at(&self, address: u64) {
        self.waiting.wake_at(address);
        self.writeback.interrupt();
    }

    /// A caller gives up waiting for `address`, and what it began goes on.
    #[cold]
    pub(crate) fn abandon(&self, address: u64) {
        if self.waiting.abandon(address) {
            let _ = self.adopt_abandoned();
        }
    }

    /// Has the ring's own thread finish what callers gave up on.
    pub(crate) fn adopt_abandoned(&self) -> io::Result<()> {
        let Some(address) = self.unfinished() else { return Ok(()) };
        let interrupted = self.waiting.helpers().adopt_commit(address);
        self.start_committer(interrupted).inspect_err(|error| {
            let error = error.to_string();
            event!(WARN, error, "cannot start a thread: an event may be late");
        })
    }

    /// The address that a caller gave up on, if it is not durable yet.
    pub(crate) fn unfinished(&self) -> Option<u64> {
        let address = self.waiting.abandoned();
        (address > self.writeback.durable() && self.poisoned().is_none()).then_some(address)
    }

    /// Does `f` in a follower, unless the ring is going: its end waits until `f` is over. `f` gets what calls it back.
    pub(crate) fn work_as_follower<R>(&self, f: impl FnOnce(&AtomicBool) -> R) -> Option<R> {
        // Emitted when the ring no longer waits for this thread: a subscriber may drop it.
        let _held = ring_io::events::hold();
        let result = self.waiting.helpers().work_as_follower(f);
        self.waiting.changes().notify();
        result
    }

    /// Ends the threads. Tasks that still wait are woken, to find that the ring is going.
    pub(crate) fn end_helpers(&self) {
        let helpers = self.waiting.helpers();
        let current = helpers.end();
        if !helpers.is_without_followers() {
            self.wake_all();
            self.writeback.interrupt();
            let _ = self.wait_until(None, || helpers.is_without_followers().then_some(()));
        }
        let threads = helpers.take_threads();
        if threads.is_empty() {
            return;
        }
        self.wake_helper_at(current.unwrap_or(0));
        // A waker that drops the ring is called by one of them.
        for thread in threads.into_iter().filter(|thread| !is_this_thread(thread)) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a helper panicked");
        }
        helpers.wake_all();
    }
}
