//! The mutants of `buffer_ring`.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "crates/buffer_ring/src/rotation.rs",
        "buffer_ring",
        &[
            [
                "an opener's life is not acquired with its number",
                "Life(self.current.load(Acquire))",
                "Life(self.current.load(Relaxed))",
                "two_threads_wrap_round",
            ],
            [
                "an opener does not release its life",
                "self.current.fetch_max(life.0, AcqRel);",
                "self.current.fetch_max(life.0, Acquire);",
                "two_threads_wrap_round",
            ],
            [
                "the next base is told after the token is set",
                "self.next_base.store(next_base, Release);\n        self.pending.swap(true, AcqRel);",
                "self.pending.swap(true, AcqRel);\n        self.next_base.store(next_base, Release);",
                "two_threads_wrap_round",
            ],
            [
                "a sealer sets the token without release",
                "self.next_base.store(next_base, Release);\n        self.pending.swap(true, AcqRel);",
                "self.next_base.store(next_base, Release);\n        self.pending.swap(true, Acquire);",
                "two_threads_wrap_round",
            ],
            [
                "a sealer does not set the token",
                "self.next_base.store(next_base, Release);\n        self.pending.swap(true, AcqRel);",
                "self.next_base.store(next_base, Release);",
                "two_threads_wrap_round",
            ],
            [
                "the token is taken without acquire",
                "while self.pending.swap(false, AcqRel) {",
                "while self.pending.swap(false, Release) {",
                "two_threads_wrap_round",
            ],
            [
                "the token is only looked at",
                "while self.pending.swap(false, AcqRel) {",
                "while self.pending.load(Acquire) {",
                "two_threads_wrap_round",
            ],
            [
                "the token is not put back",
                "            self.pending.swap(true, AcqRel);\n            if !self.has_room",
                "            if !self.has_room",
                "a_full_ring_lets_its_waiter_go_on",
            ],
            [
                "the token is put back by a store",
                "            self.pending.swap(true, AcqRel);\n            if !self.has_room",
                "            self.pending.store(true, Release);\n            if !self.has_room",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            [
                "an opener does not publish its life",
                "self.publish(next);\n                outcome",
                "outcome",
                "two_threads_wrap_round",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/slot.rs",
        "buffer_ring",
        &[
            ["the gate stays closed", "        self.gate.open();\n", "", "a_reader_never_meets_the_next_life"],
            [
                "a life that could not begin is not free again",
                "            self.free.store(true, Release);\n        }\n        opened",
                "        }\n        opened",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            ["a slot is not marked busy", "        self.free.store(false, Release);\n", "", "two_threads_wrap_round"],
            [
                "the crosser does not tell the length",
                "                self.sealed_len.store(len, Relaxed);\n                Seized",
                "                Seized",
                "two_threads_wrap_round",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/gate.rs",
        "buffer_ring",
        &[
            [
                "readers enter a closed gate",
                "(readers != CLOSED).then_some(readers + 1)",
                "Some(readers + 1)",
                "a_reader_never_meets_the_next_life",
            ],
            [
                "the opener closes in spite of readers",
                "self.0.compare_exchange(0, CLOSED, Acquire, Relaxed).is_ok()",
                "{ self.0.swap(CLOSED, Acquire); true }",
                "a_reader_never_meets_the_next_life",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/hold.rs",
        "buffer_ring",
        &[
            [
                "a request that comes first leaves no mark",
                "(!self.change(generation, OPEN, REQUESTED) && self.change(generation, HELD, FLUSHED))",
                "self.change(generation, HELD, FLUSHED)",
                "a_held_buffer_goes_out_once_when_it_is_asked_for",
            ],
            [
                "two requests get the place",
                "self.change(generation, HELD, FLUSHED)\n            ||",
                "self.is_held(generation)\n            ||",
                "a_held_buffer_goes_out_once_when_it_is_asked_for",
            ],
            [
                "the sealer deposits though the flush was asked for",
                "            false\n",
                "            true\n",
                "a_held_buffer_goes_out_once_when_it_is_asked_for",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/waiters.rs",
        "buffer_ring",
        &[
            [
                "a waker does not count in the order of all",
                "self.sleepers.fetch_add(0, AcqRel) > 0",
                "self.sleepers.load(crate::sync::Ordering::Acquire) > 0",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a waker does not release",
                "self.sleepers.fetch_add(0, AcqRel)",
                "self.sleepers.fetch_add(0, crate::sync::Ordering::Acquire)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper does not acquire",
                "self.sleepers.fetch_add(1, AcqRel)",
                "self.sleepers.fetch_add(1, crate::sync::Ordering::Release)",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper looks before it is counted",
                "self.sleepers.fetch_add(1, AcqRel);\n        let mut outcome = Ok(());\n        if !ready() {",
                "let ready = ready();\n        self.sleepers.fetch_add(1, AcqRel);\n        let mut outcome = Ok(());\n        if !ready {",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
            [
                "a sleeper does not look when it is counted",
                "if !ready() {",
                "let _ = ready; if true {",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/drive.rs",
        "buffer_ring",
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
                "Err(error) => {\n                    self.complete(bytes);\n                    self.poison(RingError::Device(error))\n                }",
                "a_device_error_reaches_a_thread_that_waits_for_durability",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/flush.rs",
        "buffer_ring",
        &[
            [
                "a deposit wakes nobody (trap 5)",
                "// Who waits for room may have to give up now.\n            self.waiters.wake();",
                "",
                "a_deposit_wakes_who_waits_for_room",
            ],
            [
                "a flush is not asked for when the buffer is sealed already",
                "if has_bytes && !self.auto_flush {",
                "if false {",
                "a_held_buffer_goes_out_once_when_it_is_asked_for",
            ],
            [
                "a completion rotates nothing",
                "slot.complete(bytes);\n        self.advance();",
                "slot.complete(bytes);",
                "a_full_ring_lets_its_waiter_go_on",
            ],
            [
                "a ticket looks whether the ring is closed after it has looked for its answer",
                "let closed = self.shared.durability.is_closed();\n            self.shared.outcome(|| self.has_completed()).or(closed.then_some(Err(RingError::Closed)))",
                "let outcome = self.shared.outcome(|| self.has_completed());\n            let closed = self.shared.durability.is_closed();\n            outcome.or(closed.then_some(Err(RingError::Closed)))",
                "a_ticket_outlives_a_ring_that_is_dropped_with_a_write_in_flight",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/append.rs",
        "buffer_ring",
        &[
            [
                "a late arrival does not look whether it was in the way",
                "self.pay(&self.slots[seen.slot()], duty);\n        self.advance();",
                "self.pay(&self.slots[seen.slot()], duty);",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            [
                "a late arrival does not flush what it left quiet",
                "self.pay(&self.slots[seen.slot()], duty);",
                "let _ = duty;",
                "a_late_arrival_does_not_lose_the_rotation",
            ],
            [
                "who waits for room does not look for a failure",
                "} else if self.poisoned.load(Acquire) {",
                "} else if false {",
                "a_device_error_reaches_a_thread_that_waits_for_room",
            ],
            [
                "who waits for room does not look for a held buffer",
                "patience == Patience::ForRoom && self.next_is_held(seen)",
                "false",
                "a_deposit_wakes_who_waits_for_room",
            ],
            [
                "who leaves does not flush",
                "self.pay(slot, grant.leave());",
                "let _ = (slot, grant.leave());",
                "exact_appends_fill_buffers_that_go_out_once",
            ],
        ],
    ),
    (
        "crates/buffer_ring/src/durability.rs",
        "buffer_ring",
        &[
            [
                "the watermark is the highest end",
                "while let Some(address) = ahead.remove(&(mark.generation + 1)) {\n            mark = Mark { generation: mark.generation + 1, address };\n        }",
                "if let Some((&generation, &address)) = ahead.last_key_value()\n            && generation > mark.generation\n        {\n            mark = Mark { generation, address };\n        }",
                "watermarks_never_pass_a_hole",
            ],
            [
                "a sync covers what was written when it ends",
                "        let covered = self.durability.covered();\n        let start = Instant::now();\n        match self.device.sync() {",
                "        let start = Instant::now();\n        let synced = self.device.sync();\n        let covered = self.durability.covered();\n        match synced {",
                "a_sync_covers_only_what_was_written_before_it_began",
            ],
            [
                "who waits for durability flushes nothing",
                "            self.flush_up_to(address, current);\n",
                "",
                "a_waiter_for_durability_flushes_what_it_needs",
            ],
        ],
    ),
];
