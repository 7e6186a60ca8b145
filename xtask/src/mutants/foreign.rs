//! Mutants of what the ring does for others than its own threads: followers, events, tasks; and of what a thread leaves
//! to another one.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "buffer_ring/ring/commit.rs",
        &[[
            "a thread that parks does not look whether it is cancelled",
            "if !self.has_news(wait.upto) && !wait.is_cancelled() {",
            "if !self.has_news(wait.upto) {",
            "a_thread_that_is_cancelled_comes_back_from_where_it_parks",
        ]],
    ),
    (
        "buffer_ring/watermarks.rs",
        &[[
            "a sync does not fetch the driver from the device",
            "        self.device.interrupt();\n        needed",
            "        needed",
            "a_sync_fetches_the_driver_from_the_device",
        ]],
    ),
    (
        "buffer_ring/ring/mod.rs",
        &[
            [
                "the ring is closed after its followers were woken",
                "        self.shared.durability.close();\n        self.shared.wake_all();",
                "        self.shared.wake_all();\n        self.shared.durability.close();",
                "a_follower_learns_that_the_ring_has_gone",
            ],
            [
                "the end of the ring rings no bell",
                "        self.shared.wake_all();\n",
                "        self.shared.changes.notify();\n        self.shared.waiters.wake_up_to(u64::MAX);\n",
                "an_event_that_is_made_while_the_ring_goes_is_readable",
            ],
        ],
    ),
    (
        "buffer_ring/ring/watch.rs",
        &[
            [
                "a follower looks for the end last",
                "        let closed = self.durability.is_closed();\n        let outcome = self.outcome(|| self.durability.durable() >= address);",
                "        let outcome = self.outcome(|| self.durability.durable() >= address);\n        let closed = self.durability.is_closed();",
                "what_was_durable_at_the_end_stays_durable_for_a_follower",
            ],
            [
                "a new event does not look whether the ring has gone",
                "self.shared.poisoned().is_some() || self.shared.durability.is_closed()",
                "self.shared.poisoned().is_some()",
                "an_event_that_is_made_while_the_ring_goes_is_readable",
            ],
            [
                "a new event does not look whether the ring has failed",
                "self.shared.poisoned().is_some() || self.shared.durability.is_closed()",
                "self.shared.durability.is_closed()",
                "an_event_that_is_made_while_the_ring_fails_is_readable",
            ],
            [
                "a follower that parks does not look for what a caller gave up",
                "if self.watched(address).is_none() && (self.unfinished().is_none() || self.helpers.is_ending()) {",
                "if self.watched(address).is_none() {",
                "a_follower_finishes_what_a_caller_gave_up",
            ],
            [
                "a new event does not look for what a caller gave up",
                "            let _ = self.shared.adopt_abandoned();\n",
                "",
                "an_event_comes_for_what_a_caller_gave_up",
            ],
        ],
    ),
    (
        "buffer_ring/eventfd.rs",
        &[
            [
                "a ringer does not count in the order of all",
                "self.count.fetch_add(0, AcqRel) > 0",
                "self.count.load(crate::sync::Ordering::Acquire) > 0",
                "an_eventfd_is_notified_or_its_owner_sees_the_change",
            ],
            [
                "a ringer does not release",
                "self.count.fetch_add(0, AcqRel) > 0",
                "self.count.fetch_add(0, crate::sync::Ordering::Acquire) > 0",
                "an_eventfd_is_notified_or_its_owner_sees_the_change",
            ],
            [
                "a bell that goes takes another one along",
                "let eventfd = registered.eventfds.remove(&number);",
                "let eventfd = registered.eventfds.pop_first();",
                "an_eventfd_that_goes_silences_no_other",
            ],
        ],
    ),
    (
        "buffer_ring/commit/helpers.rs",
        &[
            [
                "a caller that gives up wakes no follower",
                "            self.waiters.wake_followers();\n",
                "",
                "a_follower_finishes_what_a_caller_gave_up",
            ],
            [
                "a caller that gives up leaves nothing to the thread of the ring",
                "        if self.eventfds.is_any() {\n",
                "        if false {\n",
                "an_event_comes_for_what_a_caller_gave_up",
            ],
            [
                "a task that needs less does not recall the thread",
                "            if interrupted.is_some() {",
                "            if false {",
                "a_task_that_needs_less_is_served_first",
            ],
            [
                "the end of a ring does not wait for followers",
                "if helpers.followers.fetch_add(0, AcqRel) > 0 {",
                "if false {",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "the end of a ring does not count followers in the order of all",
                "if helpers.followers.fetch_add(0, AcqRel) > 0 {",
                "if helpers.followers.load(Acquire) > 0 {",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a follower does not look whether the ring is going",
                "(!helpers.is_ending()).then(|| f(&helpers.ending))",
                "Some(f(&helpers.ending))",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a follower that is done does not release",
                "helpers.followers.fetch_sub(1, AcqRel);",
                "helpers.followers.fetch_sub(1, Acquire);",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a thread that sleeps does not learn that the ring goes",
                "        helpers.commit.look_again();\n",
                "",
                "a_task_is_woken_when_its_bytes_are_durable",
            ],
        ],
    ),
];
