//! Mutants of what the ring does for others than its own threads: followers, events, tasks; and of what a thread leaves
//! to another one.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "buffer_ring/commit.rs",
        &[[
            "a thread that parks does not look whether it is cancelled",
            "if !self.has_news(wait.upto) && !wait.is_cancelled() {",
            "if !self.has_news(wait.upto) {",
            "a_thread_that_is_cancelled_comes_back_from_where_it_parks",
        ]],
    ),
    (
        "buffer_ring/sync.rs",
        &[[
            "a sync does not fetch the driver from the device",
            "        self.writeback.interrupt();\n        needed",
            "        needed",
            "a_sync_fetches_the_driver_from_the_device",
        ]],
    ),
    (
        "buffer_ring/ring/mod.rs",
        &[
            [
                "the ring is closed after its followers were woken",
                "        self.core.writeback.close();\n        self.core.wake_all();",
                "        self.core.wake_all();\n        self.core.writeback.close();",
                "a_follower_learns_that_the_ring_has_gone",
            ],
            [
                "the end of the ring rings no bell",
                "        self.core.wake_all();\n",
                "        self.core.waiting.changes().notify();\n        self.core.waiting.waiters().wake_up_to(u64::MAX);\n",
                "an_event_that_is_made_while_the_ring_goes_is_readable",
            ],
        ],
    ),
    (
        "buffer_ring/watch.rs",
        &[
            [
                "a follower looks for the end last",
                "        let closed = self.writeback.is_closed();\n        let outcome = self.outcome(|| self.writeback.durable() >= address);",
                "        let outcome = self.outcome(|| self.writeback.durable() >= address);\n        let closed = self.writeback.is_closed();",
                "what_was_durable_at_the_end_stays_durable_for_a_follower",
            ],
            [
                "a new event does not look whether the ring has gone",
                "self.core.poisoned().is_some() || self.core.writeback.is_closed()",
                "self.core.poisoned().is_some()",
                "an_event_that_is_made_while_the_ring_goes_is_readable",
            ],
            [
                "a new event does not look whether the ring has failed",
                "self.core.poisoned().is_some() || self.core.writeback.is_closed()",
                "self.core.writeback.is_closed()",
                "an_event_that_is_made_while_the_ring_fails_is_readable",
            ],
            [
                "a follower that parks does not look for what a caller gave up",
                "if self.watched(address).is_none() && \
                 (self.unfinished().is_none() || self.waiting.helpers().is_ending()) {",
                "if self.watched(address).is_none() {",
                "a_follower_finishes_what_a_caller_gave_up",
            ],
            [
                "a new event does not look for what a caller gave up",
                "            let _ = self.core.adopt_abandoned();\n",
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
        "buffer_ring/commit/mod.rs",
        &[
            [
                "a caller that gives up wakes no follower",
                "            self.waiters.wake_followers();\n",
                "",
                "a_follower_finishes_what_a_caller_gave_up",
            ],
            [
                "a caller that gives up leaves nothing to the thread of the ring",
                "self.eventfds.is_any()",
                "false",
                "an_event_comes_for_what_a_caller_gave_up",
            ],
        ],
    ),
    (
        "buffer_ring/background.rs",
        &[[
            "the end of a ring does not wait for followers",
            "if !helpers.is_without_followers() {",
            "if false {",
            "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
        ]],
    ),
    (
        "buffer_ring/helpers.rs",
        &[
            [
                "the end of a ring does not count followers in the order of all",
                "self.followers.fetch_add(0, AcqRel) == 0",
                "self.followers.load(Acquire) == 0",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a follower does not look whether the ring is going",
                "(!self.is_ending()).then(|| f(&self.ending))",
                "Some(f(&self.ending))",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a follower that is done does not release",
                "self.followers.fetch_sub(1, AcqRel);",
                "self.followers.fetch_sub(1, Acquire);",
                "the_end_of_a_ring_comes_after_what_a_follower_has_begun",
            ],
            [
                "a thread that sleeps does not learn that the ring goes",
                "            self.commit.look_again();\n",
                "",
                "a_task_is_woken_when_its_bytes_are_durable",
            ],
            [
                "a task that needs less does not recall the thread",
                "            if interrupted.is_some() {",
                "            if false {",
                "a_task_that_needs_less_is_served_first",
            ],
        ],
    ),
];
