//! Keeps from being trimmed what a reader has not given yet.

use super::forward::Forward;
use crate::Lsn;
use crate::log::Hold;

/// A reader's hold, which moves once per batch.
#[derive(Debug)]
pub(super) struct Pin {
    hold: Option<Hold>,
    /// Where the next batch began when it was last moved.
    next: Option<u64>,
}

impl Pin {
    pub(super) fn new(hold: Option<Hold>) -> Self {
        Self { hold, next: None }
    }

    /// Lets go of what a reader does not need that goes on at `position`. Whether it has come to another batch.
    pub(super) fn advance<F>(&mut self, forward: &Forward<F>, position: Lsn) -> bool {
        let next = Some(forward.next_batch());
        if self.next == next {
            return false;
        }
        self.next = next;
        if let Some(hold) = &self.hold {
            hold.advance(forward.needed(position).get());
        }
        true
    }
}
