//! A task that one thread at a time does on behalf of all that wait: driving the device, syncing.

use core::mem;

use crate::sync::AtomicBool;
use crate::sync::Ordering::{AcqRel, Acquire};

/// The task. Claiming it never waits: a thread that does not get it sleeps until it is given up, or its effect is
/// there.
#[derive(Debug)]
pub(crate) struct Exclusive {
    claimed: AtomicBool,
}

/// The right to do it. Dropping it gives it up; the holder then wakes a thread that waits.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Exclusive);

impl Exclusive {
    pub(crate) fn new() -> Self {
        Self { claimed: AtomicBool::new(false) }
    }

    pub(crate) fn try_claim(&self) -> Option<Claim<'_>> {
        // Not `then_some`: a holder that is made only to be dropped would give up what another thread has.
        // ordering: acquire half of R8, release half of R8 even in vain, and acquire half of R15.
        (!self.claimed.swap(true, AcqRel)).then(|| Claim(self))
    }

    /// The right that its holder has [left](Claim::detach). For the one that sees the end of what it was left with.
    pub(crate) fn reattach(&self) -> Claim<'_> {
        Claim(self)
    }

    /// Whether a thread has it, which may not have seen what the caller did before. A thread that takes it later will
    /// have.
    pub(crate) fn is_claimed_now(&self) -> bool {
        // A read-modify-write that changes nothing, so that all takings come before or after it.
        // ordering: release half of R15.
        self.claimed.fetch_or(false, AcqRel)
    }

    /// Whether a thread has it. May be out of date.
    pub(crate) fn is_claimed(&self) -> bool {
        // ordering: acquire half of R8.
        self.claimed.load(Acquire)
    }
}

impl Claim<'_> {
    /// Leaves the task claimed, with something that goes on without this thread: the thread that sees the end of it
    /// [reattaches](Exclusive::reattach) it.
    pub(crate) fn detach(self) {
        mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // A swap like the taking, so that all changes have one order that loom can follow.
        // ordering: release half of R8, and acquire half for what was done before failed claims.
        self.0.claimed.swap(false, AcqRel);
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_claimed_once_until_its_claim_is_given_up_or_while_it_goes_on_alone() {
        let task = Exclusive::new();
        let claimed = || {
            assert_eq!(task.is_claimed(), task.is_claimed_now());
            task.is_claimed()
        };
        assert!(!claimed());
        let claim = task.try_claim().expect("it is free");
        assert!(claimed() && task.try_claim().is_none());
        assert!(claimed(), "a vain try gives nothing up");
        drop(claim);
        assert!(!claimed());
        task.try_claim().expect("it is free").detach();
        assert!(claimed() && task.try_claim().is_none());
        drop(task.reattach());
        assert!(!claimed());
    }
}
