//! Changes to `buffer_ring` that no model has been seen to notice: each wants a model, a sentence that says why it changes nothing, or
//! to become part of the code. `cargo xtask mutants --open` tries them, with the model that is the best guess; one that is killed
//! moves to [`ring`](super::ring).

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "crates/buffer_ring/src/waiters.rs",
        &[
            [
                "a waker does not acquire",
                "self.sleepers.fetch_add(0, AcqRel)",
                "self.sleepers.fetch_add(0, crate::sync::Ordering::Release)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper does not release",
                "self.sleepers.fetch_add(1, AcqRel)",
                "self.sleepers.fetch_add(1, crate::sync::Ordering::Acquire)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper that wakes does not release",
                "self.sleepers.fetch_sub(1, AcqRel)",
                "self.sleepers.fetch_sub(1, crate::sync::Ordering::Acquire)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper that wakes does not acquire",
                "self.sleepers.fetch_sub(1, AcqRel)",
                "self.sleepers.fetch_sub(1, crate::sync::Ordering::Release)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a waker does not wait for those who are about to sleep",
                "drop(self.lock.lock());",
                "",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/drive.rs",
        &[
            [
                "a driver does not look for its answer before it drives (trap 7)",
                "if let Some(answer) = ready() {\n                    self.resign(driver);\n                    return Ok(answer);\n                }\n                if",
                "if",
                "the_driver_hands_its_role_on",
            ],
            [
                "a driver that leaves wakes nobody",
                "        drop(driver);\n        // Somebody who sleeps may have to take the role.\n        self.waiters.wake();",
                "        drop(driver);",
                "the_driver_hands_its_role_on",
            ],
            [
                "a driver wakes the others before it leaves",
                "        drop(driver);\n        // Somebody who sleeps may have to take the role.\n        self.waiters.wake();",
                "        self.waiters.wake();\n        drop(driver);",
                "the_driver_hands_its_role_on",
            ],
            [
                "a sleeper does not look whether a driver is wanted",
                "answer.is_some() || self.wants_driver()",
                "answer.is_some()",
                "the_driver_hands_its_role_on",
            ],
            [
                "drained while a driver still completes",
                "self.device.in_flight() == 0 && !self.driver.is_taken()",
                "self.device.in_flight() == 0",
                "a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight",
            ],
            [
                "who waits is told of the failure and not of what was done before",
                "if done() { Some(Ok(())) } else { failure.map(Err) }",
                "failure.map_or_else(|| done().then_some(Ok(())), |error| Some(Err(error)))",
                "a_device_error_reaches_a_thread_that_waits_for_durability",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/durability.rs",
        &[
            [
                "watermark, release half of the generation",
                "self.generation.store(mark.generation, Release);",
                "self.generation.store(mark.generation, crate::sync::Ordering::Relaxed);",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "watermark, acquire half of the generation",
                "self.generation.load(Acquire)",
                "self.generation.load(crate::sync::Ordering::Relaxed)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "watermark, release half of the address",
                "self.address.store(mark.address, Release);",
                "self.address.store(mark.address, crate::sync::Ordering::Relaxed);",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "watermark, acquire half of the address",
                "self.address.load(Acquire)",
                "self.address.load(crate::sync::Ordering::Relaxed)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "watermark, generation before address",
                "self.address.store(mark.address, Release);\n        self.generation.store(mark.generation, Release);",
                "self.generation.store(mark.generation, Release);\n        self.address.store(mark.address, Release);",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "closed, release half",
                "self.closed.store(true, Release)",
                "self.closed.store(true, crate::sync::Ordering::Relaxed)",
                "a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight",
            ],
            [
                "closed, acquire half",
                "self.closed.load(Acquire)",
                "self.closed.load(crate::sync::Ordering::Relaxed)",
                "a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight",
            ],
            [
                "the watermark moves by one life at most",
                "while let Some(address) = ahead.remove(&(mark.generation + 1)) {",
                "if let Some(address) = ahead.remove(&(mark.generation + 1)) {",
                "watermarks_never_pass_a_hole",
            ],
            [
                "a failed sync makes durable",
                "Err(error) => self.poison(RingError::Device(error)),\n        }\n    }\n}",
                "Err(error) => {\n                self.durability.durable.set(covered);\n                self.poison(RingError::Device(error))\n            }\n        }\n    }\n}",
                "a_device_error_reaches_a_thread_that_waits_for_durability",
            ],
            [
                "a sync makes durable in spite of a failure",
                "self.unless_poisoned(|| self.durability.durable.set(covered));",
                "self.durability.durable.set(covered);",
                "a_device_error_reaches_a_thread_that_waits_for_durability",
            ],
            [
                "what a sync covers is read while it moves",
                "        let _ahead = self.ahead.lock();\n        self.written.get()",
                "        self.written.get()",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "who has synced wakes nobody",
                "                drop(syncer);\n                self.waiters.wake();",
                "                drop(syncer);",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "who has synced wakes before it gives the role up",
                "                drop(syncer);\n                self.waiters.wake();",
                "                self.waiters.wake();\n                drop(syncer);",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "who has synced does not interrupt the driver",
                "                self.device.interrupt();\n",
                "",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "who waits for durability does not look again after a rotation",
                "self.outcome(|| written.address() >= address || rotated())",
                "{\n                let _ = &rotated;\n                self.outcome(|| written.address() >= address)\n            }",
                "a_waiter_is_not_left_alone_with_an_append_that_comes_late",
            ],
            [
                "who waits for the sync role does not look whether it is free",
                "self.outcome(|| done() || free())",
                "{\n                    let _ = &free;\n                    self.outcome(&done)\n                }",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "who waits does not flush what was sealed and held",
                "        self.flush_all_held(current, address);\n",
                "",
                "a_held_buffer_goes_out_once_when_it_is_asked_for",
            ],
        ],
    ),
];
