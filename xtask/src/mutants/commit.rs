//! The mutants of group commit: the ledger, the watermarks, waiters, flights, and the roles.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "buffer_ring/ledger.rs",
        &[
            [
                "the watermark is the highest end",
                "while let Some(batch) = self.ahead.remove(&(self.generation + 1)) {",
                "if let Some((generation, batch)) = self.ahead.pop_last() {\n            self.generation = self.generation.max(generation) - 1;",
                "watermarks_never_pass_a_hole",
            ],
            ["a plain write is durable", "if !batch.durable {", "if false {", "a_commit_behind_a_plain_write_syncs_it"],
            [
                "a sync covers what was written when it ends",
                "        self.syncing = None;\n    }",
                "        self.syncing = None;\n        self.unsynced = None;\n    }",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "a sync that has begun has succeeded",
                "self.syncing.or(self.unsynced).unwrap_or(self.written)",
                "self.unsynced.unwrap_or(self.written)",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "a sync is taken for one that no thread needs",
                "        self.syncing.is_some()\n    }",
                "        false\n    }",
                "a_commit_behind_a_plain_write_syncs_it",
            ],
        ],
    ),
    (
        "buffer_ring/sync.rs",
        &[
            [
                "what a sync covers is settled when it has ended",
                "match self.writeback.sync() {\n                Some(outcome) => {",
                "match self.writeback.sync() {\n                Some(outcome) => {\n                    self.update(Ledger::end_sync);\n                    let _ = self.writeback.begin_sync();",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "a sync is submitted, and its role given up",
                "            syncer.detach();",
                "            drop(syncer);",
                "a_sync_that_was_left_is_ended_by_another_thread",
            ],
            [
                "a sync that has ended keeps its role",
                "Err(error) => self.poison(RingError::Device(error)),\n        }\n        drop(syncer);",
                "Err(error) => self.poison(RingError::Device(error)),\n        }\n        syncer.detach();",
                "a_sync_that_was_left_is_ended_by_another_thread",
            ],
            [
                "the role is given back before the end of the sync is recorded",
                "        match outcome {\n            Ok(()) => {\n                self.update",
                "        drop(syncer);\n        let syncer = None::<Claim<'_>>;\n        match outcome {\n            Ok(()) => {\n                self.update",
                "a_sync_that_was_left_is_ended_by_another_thread",
            ],
        ],
    ),
    (
        "buffer_ring/writeback/mod.rs",
        &[[
            "a write may be durable beside a sync",
            "self.watermarks.durable() == base",
            "self.watermarks.durable() <= base",
            "a_commit_behind_a_plain_write_syncs_it",
        ]],
    ),
    (
        "buffer_ring/ring/sync.rs",
        &[["who has synced tells nobody", "        self.notify();", "", "a_commit_behind_a_plain_write_syncs_it"]],
    ),
    (
        "buffer_ring/watermarks.rs",
        &[
            [
                "a watermark, release half",
                "self.0.store(address, Release)",
                "self.0.store(address, crate::sync::Ordering::Relaxed)",
                "the_durable_watermark_is_never_ahead_of_the_written_one",
            ],
            [
                "a watermark, acquire half",
                "self.0.load(Acquire)",
                "self.0.load(crate::sync::Ordering::Relaxed)",
                "the_durable_watermark_is_never_ahead_of_the_written_one",
            ],
            [
                "closed, release half",
                "self.closed.store(true, Release)",
                "self.closed.store(true, crate::sync::Ordering::Relaxed)",
                "a_thread_that_sees_the_ring_closed_sees_what_was_written_before",
            ],
            [
                "closed, acquire half",
                "self.closed.load(Acquire)",
                "self.closed.load(crate::sync::Ordering::Relaxed)",
                "a_thread_that_sees_the_ring_closed_sees_what_was_written_before",
            ],
        ],
    ),
    (
        "buffer_ring/waiters.rs",
        &[
            [
                "who has changed something does not count in the order of all",
                "self.count.fetch_add(0, AcqRel) == 0",
                "self.count.load(crate::sync::Ordering::Acquire) == 0",
                "a_parked_thread_is_woken_by_what_it_waits_for",
            ],
            [
                "who has changed something does not release",
                "self.count.fetch_add(0, AcqRel) == 0",
                "self.count.fetch_add(0, crate::sync::Ordering::Acquire) == 0",
                "a_parked_thread_is_woken_by_what_it_waits_for",
            ],
            [
                "who parks does not acquire",
                "elected: false });\n        self.count.fetch_add(1, AcqRel);",
                "elected: false });\n        self.count.fetch_add(1, crate::sync::Ordering::Release);",
                "a_parked_thread_is_woken_by_what_it_waits_for",
            ],
            [
                "who parks is not counted",
                "elected: false });\n        self.count.fetch_add(1, AcqRel);",
                "elected: false });",
                "a_parked_thread_is_woken_by_what_it_waits_for",
            ],
            [
                "a batch wakes one of its own",
                "while let Some(first) = waiting.first()",
                "if let Some(first) = waiting.first()",
                "each_batch_wakes_its_own",
            ],
            [
                "a batch does not wake a thread that waits for its last byte",
                "first.address <= address",
                "first.address < address",
                "each_batch_wakes_its_own",
            ],
            [
                "who was called does not learn of it",
                "        waiter.elected\n    }",
                "        false\n    }",
                "an_election_is_answered_or_passed_on",
            ],
        ],
    ),
    (
        "buffer_ring/groups.rs",
        &[
            [
                "a flight is counted by a thread that sees it, and not by all",
                "self.count.compare_exchange(seen, seen + 1, AcqRel, Relaxed).is_ok()",
                "{ self.count.store(seen + 1, crate::sync::Ordering::Release); true }",
                "with_a_least_interval_there_is_one_group",
            ],
            [
                "the next flight does not acquire what the one before did",
                "self.count.compare_exchange(seen, seen + 1, AcqRel, Relaxed)",
                "self.count.compare_exchange(seen, seen + 1, crate::sync::Ordering::Release, Relaxed)",
                "with_a_least_interval_there_is_one_group",
            ],
            [
                "a flight that ends does not release",
                "self.0.count.fetch_sub(1, AcqRel);",
                "self.0.count.fetch_sub(1, Acquire);",
                "with_a_least_interval_there_is_one_group",
            ],
            [
                "a second flight starts whatever it carries",
                "CommitPolicy::MinInterval(_) => count == 0,",
                "CommitPolicy::MinInterval(_) => true,",
                "with_a_least_interval_there_is_one_group",
            ],
            [
                "there is no second flight",
                "!self.is_fast() && pending",
                "false && pending",
                "one_group_starts_at_once_and_a_second_when_it_has_enough",
            ],
        ],
    ),
    (
        "buffer_ring/commit.rs",
        &[
            [
                "who waits for durability seals nothing",
                "match self.try_seal(current) {",
                "match if true { Sealing::Already } else { self.try_seal(current) } {",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a leader leaves deferred what it has sealed",
                "                    self.flush_deferred_below(wait.upto);\n                    led = self.await_straggler",
                "                    led = self.await_straggler",
                "a_waiter_asks_for_the_flush_of_an_append_that_comes_late",
            ],
            [
                "a leader that has waited reports no thread",
                "        drop(group);\n        self.notify_waiters();",
                "        drop(group);",
                "a_commit_that_comes_while_a_leader_waits_is_elected",
            ],
            [
                "a leader that has waited reports before the flight has ended",
                "        drop(group);\n        self.notify_waiters();",
                "        self.notify_waiters();\n        drop(group);",
                "a_commit_that_comes_while_a_leader_waits_is_elected",
            ],
            [
                "who parks does not look once more",
                "if !self.has_news(wait.upto) && !wait.is_cancelled() {",
                "if true {",
                "the_next_batch_starts_when_the_group_is_over",
            ],
            [
                "who parks does not look whether a flight may start",
                "            || self.has_open_bytes(address) && self.may_start_batch()\n",
                "",
                "the_next_batch_starts_when_the_group_is_over",
            ],
            [
                "no thread is called for the next flight",
                "            self.waiting.waiters().elect_beyond(self.staging.next_base());",
                "",
                "the_next_batch_starts_when_the_group_is_over",
            ],
            [
                "who gets the role of syncing does not look whether it is done",
                "            if self.durable_outcome(address).is_none() {",
                "            if true {",
                "a_failed_sync_is_not_tried_again",
            ],
            [
                "a driver does not look for its answer before it drives",
                "            if self.durable_outcome(address).is_some() {\n                self.release_driver(driver);",
                "            if false {\n                self.release_driver(driver);",
                "a_write_in_a_thread_of_its_own_fetches_the_driver_from_the_device",
            ],
        ],
    ),
    (
        "buffer_ring/drive.rs",
        &[
            [
                "the outcome of a sync that was left is lost",
                "            self.end_sync(self.writeback.reattach_syncer(), outcome);",
                "            drop(outcome);",
                "a_sync_that_was_left_is_ended_by_another_thread",
            ],
            [
                "who has taken the outcome of a sync reports no thread",
                "        drop(driver);\n        self.notify();",
                "        drop(driver);",
                "a_sync_that_was_left_is_ended_by_another_thread",
            ],
        ],
    ),
    (
        "buffer_ring/flush.rs",
        &[
            [
                "who writes in its own thread reports before the flight has ended",
                "        drop(group);\n        match finished.expect(\"a write after the ring was closed\") {\n            Some(finished) => self.finish(finished),\n            None => self.notify_waiters(),\n        }",
                "        match finished.expect(\"a write after the ring was closed\") {\n            Some(finished) => self.finish(finished),\n            None => self.notify_waiters(),\n        }\n        drop(group);",
                "the_next_batch_starts_when_the_group_is_over",
            ],
            [
                "who writes in its own thread does not fetch the driver",
                "        if self.writeback.is_driven_now() {",
                "        if false {",
                "a_write_in_a_thread_of_its_own_fetches_the_driver_from_the_device",
            ],
        ],
    ),
    (
        "buffer_ring/core.rs",
        &[
            [
                "a failed write poisons nothing",
                "Err(error) => self.poison(RingError::Device(error)),",
                "Err(_) => {}",
                "a_device_error_reaches_a_thread_that_waits_for_room",
            ],
            [
                "a failed write frees its buffer",
                "Err(error) => self.poison(RingError::Device(error)),",
                "Err(error) => {\n                self.complete(bytes, durable);\n                self.poison(RingError::Device(error))\n            }",
                "a_device_error_reaches_a_thread_that_waits_for_durability",
            ],
        ],
    ),
    (
        "buffer_ring/exclusive.rs",
        &[[
            "who looks for a holder after a change does not count in the order of all",
            "self.claimed.fetch_or(false, AcqRel)",
            "self.claimed.load(Acquire)",
            "a_write_in_a_thread_of_its_own_fetches_the_driver_from_the_device",
        ]],
    ),
    (
        "buffer_ring/commit/mod.rs",
        &[[
            "a failure does not wake those that wait for durability",
            "        self.waiters.wake_up_to(u64::MAX);\n",
            "",
            "a_failed_commit_reaches_all_that_wait",
        ]],
    ),
];
