//! The mutants of what `buffer_ring` does with its parts.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "buffer_ring/drive.rs",
        &[
            [
                "a driver does not look for its answer before it drives (trap 7)",
                "if let Some(answer) = ready() {\n                    self.release_driver(driver);\n                    return Ok(answer);\n                }\n                if",
                "if",
                "no_thread_sleeps_at_the_device_for_an_answer_that_is_there",
            ],
            [
                "a driver that leaves wakes no thread",
                "        drop(driver);\n        self.notify();",
                "        drop(driver);",
                "a_driver_that_leaves_has_a_successor",
            ],
            [
                "a driver wakes the others before it leaves",
                "        drop(driver);\n        self.notify();",
                "        self.notify();\n        drop(driver);",
                "a_driver_that_leaves_has_a_successor",
            ],
            [
                "a sleeper does not look whether a driver is wanted",
                "answer.is_some() || self.writeback.wants_driver()",
                "answer.is_some()",
                "a_driver_that_leaves_has_a_successor",
            ],
            [
                "drained while a driver still completes",
                "self.writeback.in_flight() == 0 && !self.writeback.is_driven()",
                "self.writeback.in_flight() == 0",
                "what_is_drained_has_been_dealt_with",
            ],
            [
                "who waits is notified of the failure and not of what was done before",
                "if done() { Some(Ok(())) } else { failure.map(Err) }",
                "failure.map_or_else(|| done().then_some(Ok(())), |error| Some(Err(error)))",
                "what_was_done_before_the_failure_was_done",
            ],
            [
                "who waits looks for the failure last",
                "        let failure = self.poisoned();\n        if done() { Some(Ok(())) } else { failure.map(Err) }",
                "        if done() { Some(Ok(())) } else { self.poisoned().map(Err) }",
                "what_was_done_before_the_failure_was_done",
            ],
        ],
    ),
    (
        "buffer_ring/ring/append.rs",
        &[
            [
                "a late arrival does not look whether it was in the way",
                "self.flush_if_drained(self.staging.slot(seen), released);\n        self.advance();",
                "self.flush_if_drained(self.staging.slot(seen), released);",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            [
                "a late arrival pays in the first slot",
                "self.flush_if_drained(self.staging.slot(seen), released);",
                "self.flush_if_drained(&self.staging.slots()[0], released);",
                "a_late_arrival_pays_where_it_was_late",
            ],
            [
                "a late arrival does not flush what it left drained",
                "self.flush_if_drained(self.staging.slot(seen), released);",
                "let _ = released;",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            [
                "who waits for room does not look for a failure",
                "} else if self.has_ended() {\n                Some",
                "} else if false {\n                Some",
                "a_device_error_reaches_a_thread_that_waits_for_room",
            ],
            [
                "who waits for room does not look for a deferred flush",
                "patience == Patience::ForRoom && self.staging.next_is_deferred(seen)",
                "false",
                "a_deferred_flush_wakes_a_thread_that_waits_for_room",
            ],
        ],
    ),
    (
        "buffer_ring/core.rs",
        &[
            [
                "who leaves does not flush",
                "self.flush_if_drained(slot, grant.release());",
                "let _ = (slot, grant.release());",
                "exact_appends_fill_buffers_that_go_out_once",
            ],
            [
                "a completion rotates nothing",
                "slot.complete(bytes);\n        self.advance_as_driver();",
                "slot.complete(bytes);",
                "a_full_ring_lets_its_waiter_go_on",
            ],
            [
                "the sealer leaves before it has handed over",
                "        self.staging.hand_over(BufferId::new(generation, slot.index()), next_base);\n        self.advance();\n        self.revoke_after_seal(slot);\n        if !self.staging.auto_flush() && slot.deferred.defer(generation) {",
                "        if self.staging.auto_flush() {\n            self.flush_if_drained(slot, pin.release());\n            self.staging.hand_over(BufferId::new(generation, slot.index()), next_base);\n            self.advance();\n            return None;\n        }\n        if slot.deferred.defer(generation) {",
                "a_tail_is_of_one_generation",
            ],
            [
                "the sealer opens nothing",
                "self.staging.hand_over(BufferId::new(generation, slot.index()), next_base);\n        self.advance();",
                "self.staging.hand_over(BufferId::new(generation, slot.index()), next_base);",
                "a_sealer_opens_the_next_buffer",
            ],
            [
                "a completion wakes before it has changed anything",
                "        self.record(generation, end, durable);\n        self.counters.flushed();\n        slot.complete(bytes);\n        self.advance_as_driver();\n        self.notify();",
                "        self.notify();\n        self.record(generation, end, durable);\n        self.counters.flushed();\n        slot.complete(bytes);\n        self.advance_as_driver();",
                "a_completion_wakes_a_thread_that_waits_for_it",
            ],
            [
                "the slot is free before the watermark moves",
                "        self.record(generation, end, durable);\n        self.counters.flushed();\n        slot.complete(bytes);",
                "        slot.complete(bytes);\n        self.record(generation, end, durable);\n        self.counters.flushed();",
                "a_thread_that_sees_a_buffer_written_sees_the_watermark",
            ],
            [
                "a failure wakes no thread",
                "        self.wake_all();\n        // Whoever drives",
                "        // Whoever drives",
                "a_failure_wakes_a_thread_that_waits",
            ],
            [
                "a failure does not interrupt the driver",
                "self.wake_all();\n        self.writeback.interrupt();",
                "self.wake_all();",
                "a_failure_fetches_the_driver_from_the_device",
            ],
            [
                "the flag of a failure is set before the failure",
                "            let mut failure = self.failure.lock();\n",
                "            self.poisoned.store(true, Relaxed);\n            let mut failure = self.failure.lock();\n",
                "a_thread_that_sees_the_ring_poisoned_sees_by_what",
            ],
            [
                "closing wakes none of those that wait for room",
                "self.waiting.changes().notify();\n        self.writeback.interrupt();",
                "self.writeback.interrupt();",
                "close_wakes_an_append_that_sleeps_until_there_is_room",
            ],
            [
                "closing does not fetch the driver that waits for room",
                "self.waiting.changes().notify();\n        self.writeback.interrupt();",
                "self.waiting.changes().notify();",
                "close_fetches_an_append_that_waits_for_room",
            ],
            [
                "a deferred flush wakes no thread (trap 5)",
                "self.waiting.changes().notify();\n            None",
                "None",
                "a_deferred_flush_wakes_a_thread_that_waits_for_room",
            ],
            [
                "a completion wakes no thread",
                "self.advance_as_driver();\n        self.notify();",
                "self.advance_as_driver();",
                "a_completion_wakes_a_thread_that_waits_for_it",
            ],
        ],
    ),
    (
        "buffer_ring/flush.rs",
        &[
            [
                "a flush is not asked for when the buffer is sealed already",
                "if has_bytes && !self.staging.auto_flush() {",
                "if false {",
                "a_deferred_flush_goes_out_once_when_it_is_requested",
            ],
            [
                "a stale handle seals a later generation",
                "if slot.generation() == id.generation() { pin.seal() } else { Seal::Already }",
                "pin.seal()",
                "a_stale_handle_leaves_the_next_generation_alone",
            ],
            [
                "a visitor does not look whether it was in the way",
                "        self.flush_if_drained(slot, pin.release());\n        self.advance();",
                "        self.flush_if_drained(slot, pin.release());",
                "a_visitor_does_not_lose_the_rotation",
            ],
        ],
    ),
    (
        "buffer_ring/handle.rs",
        &[
            [
                "a ticket looks whether the ring is closed after it has looked for its answer",
                "let closed = self.core.writeback.is_closed();\n            self.core.outcome(|| self.has_completed()).or(closed.then_some(Err(RingError::Closed)))",
                "let outcome = self.core.outcome(|| self.has_completed());\n            let closed = self.core.writeback.is_closed();\n            outcome.or(closed.then_some(Err(RingError::Closed)))",
                "a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight",
            ],
            [
                "is_sealed looks at the generation first",
                "let sealed = slot.snapshot().is_sealed();\n        sealed || slot.generation() != self.id.generation()",
                "let later = slot.generation() != self.id.generation();\n        later || slot.snapshot().is_sealed()",
                "a_handle_that_was_sealed_stays_sealed",
            ],
        ],
    ),
    (
        "buffer_ring/close.rs",
        &[
            [
                "closing refuses nothing",
                "self.refuse_appends();\n        let end",
                "let end",
                "an_append_beside_close_is_durable_or_refused",
            ],
            [
                "closing lets buffers be opened",
                "let end = self.freeze();",
                "let end = self.tail();",
                "an_append_beside_close_is_durable_or_refused",
            ],
            [
                "closing lets the open buffer be",
                "Sealing::Empty => self.staging.slot(current).retire(),",
                "Sealing::Empty => true,",
                "an_append_beside_close_is_durable_or_refused",
            ],
            [
                "closing waits for nothing",
                "let outcome = self.await_end(end, deadline);",
                "let outcome = if end > 0 { Ok(()) } else { self.await_end(end, deadline) };",
                "an_append_beside_close_is_durable_or_refused",
            ],
        ],
    ),
    (
        "buffer_ring/rotation.rs",
        &[
            [
                "the thread that freezes the rotation releases nothing",
                "self.frozen.store(true, Release);",
                "self.frozen.store(true, Relaxed);",
                "a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends",
            ],
            [
                "a thread that sees the rotation frozen acquires nothing",
                "self.frozen.load(Acquire)",
                "self.frozen.load(Relaxed)",
                "a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends",
            ],
            [
                "the thread that keeps the token acquires nothing",
                "fn take_token_for_good(&self) -> bool {\n        self.pending.swap(false, AcqRel)",
                "fn take_token_for_good(&self) -> bool {\n        self.pending.swap(false, Relaxed)",
                "a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends",
            ],
        ],
    ),
    (
        "ring-state/word.rs",
        &[[
            "a buffer is taken out of use without acquiring who opened it",
            "compare_exchange(0, SEALED, Acquire, Relaxed)",
            "compare_exchange(0, SEALED, Relaxed, Relaxed)",
            "a_thread_that_sees_the_rotation_frozen_knows_where_the_log_ends",
        ]],
    ),
];
