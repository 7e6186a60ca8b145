//! Jobs that the kernel has, each in a slot whose number travels with it as `user_data`.

use core::mem;

use crate::backend::Job;

/// A fixed number of slots. What is in one when the slots are dropped is leaked, for the kernel may be reading it.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Job>>,
    free: Vec<usize>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| None).collect(), free: (0..count).rev().collect() }
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// # Panics
    ///
    /// If all slots are taken.
    pub(super) fn put(&mut self, job: Job) -> (usize, &Job) {
        let slot = self.free.pop().expect("a free slot");
        (slot, self.slots[slot].insert(job))
    }

    /// # Panics
    ///
    /// If the slot is empty.
    pub(super) fn take(&mut self, slot: usize) -> Job {
        let job = self.slots[slot].take().expect("a job in its slot");
        self.free.push(slot);
        job
    }

    /// Whether a job for this file is in one of them.
    pub(super) fn is_for(&self, number: u64) -> bool {
        self.slots.iter().flatten().any(|job| job.segment().number == number)
    }

    /// Empties all slots. The caller takes over the care for what the kernel may be reading.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Job> {
        self.free = (0..self.slots.len()).rev().collect();
        self.slots.iter_mut().filter_map(Option::take)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for job in self.slots.drain(..) {
            mem::forget(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{BLOCK, Buffer};

    use super::*;
    use crate::backend::Request;

    #[test]
    fn what_the_kernel_may_still_read_is_never_freed() {
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        let arena = Arc::clone(bytes.arena());
        let mut slots = Slots::new(2);
        slots.put(Job::Write(Request::new(7, bytes, 0, false)));
        drop(slots);
        assert_eq!(Arc::strong_count(&arena), 2);
    }
}
