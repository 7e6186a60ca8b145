//! Whether the key of a file's markers is on stable storage as it is now.
//!
//! A key is set or removed by a call that only changes the kernel's memory, and flushes of the log's bytes need not
//! take that along. So while a change is unsettled, each flush that begins is a *whole* one, of the file's bytes and of
//! all that belongs to it; the first that succeeds settles what had changed before it began. It is a flush that the log
//! makes in any case: a change costs none of its own, and never runs beside another.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a sync or a durable write puts on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The bytes, and the metadata that is needed to find them.
    Data,
    /// Also the key of the markers, after so many changes.
    Whole(u64),
}

/// Counts the changes. Relaxed: a flush that has to cover a change begins behind it, in the same thread or in one that
/// has reaped a write of that thread; and what is settled is a fact at the device, which no memory of ours has to
/// follow.
#[derive(Debug)]
pub(crate) struct Settling {
    changes: AtomicU64,
    settled: AtomicU64,
}

impl Settling {
    /// For a file that has just been found: an earlier writer may have changed its key and been killed.
    pub(crate) fn unknown() -> Self {
        Self { changes: AtomicU64::new(1), settled: AtomicU64::new(0) }
    }

    /// The key has changed, or may have.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// For a flush that begins now.
    #[must_use]
    pub(crate) fn scope(&self) -> Scope {
        let changes = self.changes.load(Ordering::Relaxed);
        if self.settled.load(Ordering::Relaxed) < changes { Scope::Whole(changes) } else { Scope::Data }
    }

    /// A flush of that scope has succeeded.
    pub(crate) fn succeeded(&self, scope: Scope) {
        if let Scope::Whole(changes) = scope {
            self.settled.fetch_max(changes, Ordering::Relaxed);
        }
    }

    /// Whether a power cut would leave the key as it is.
    #[must_use]
    pub(crate) fn is_settled(&self) -> bool {
        self.scope() == Scope::Data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_settled_by_a_flush_that_began_behind_it() {
        let settling = Settling::unknown();
        let first = settling.scope();
        settling.changed();
        let second = settling.scope();
        settling.succeeded(first);
        assert!(!settling.is_settled(), "that began before the second change");
        settling.succeeded(Scope::Data);
        assert!(!settling.is_settled(), "and that was none of the key");
        settling.succeeded(second);
        assert_eq!((settling.is_settled(), settling.scope()), (true, Scope::Data));
        settling.succeeded(first);
        assert!(settling.is_settled(), "a late answer takes nothing back");
    }
}
