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
                "        drop(driver);\n        // Somebody who sleeps may have to take the role.\n        self.tell();",
                "        drop(driver);",
                "the_driver_hands_its_role_on",
            ],
            [
                "a driver wakes the others before it leaves",
                "        drop(driver);\n        // Somebody who sleeps may have to take the role.\n        self.tell();",
                "        self.tell();\n        drop(driver);",
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
];
