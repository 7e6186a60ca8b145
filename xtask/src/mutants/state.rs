//! The mutants of `ring-state`.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "ring-state/word.rs",
        &[
            // The three edges, each half.
            [
                "E1, release half",
                "self.0.fetch_sub(WRITER, Release)",
                "self.0.fetch_sub(WRITER, Relaxed)",
                "the_flusher_sees_every_byte",
            ],
            [
                "E1, acquire half",
                "drained.0.flushing().0, Acquire, Relaxed)",
                "drained.0.flushing().0, Relaxed, Relaxed)",
                "the_flusher_sees_every_byte",
            ],
            [
                "E2, release half",
                "self.0.fetch_sub(FLUSHING + bytes(len), Release)",
                "self.0.fetch_sub(FLUSHING + bytes(len), Relaxed)",
                "the_next_generation_waits_for_the_flusher",
            ],
            [
                "E2, acquire half",
                "compare_exchange(SEALED, 0, AcqRel, Relaxed)",
                "compare_exchange(SEALED, 0, Release, Relaxed)",
                "the_next_generation_waits_for_the_flusher",
            ],
            [
                "E3, release half",
                "compare_exchange(SEALED, 0, AcqRel, Relaxed)",
                "compare_exchange(SEALED, 0, Acquire, Relaxed)",
                "the_next_generation_sees_what_its_opener_prepared",
            ],
            [
                "E3, acquire half of a blind reservation",
                "self.0.fetch_add(WRITER + bytes(len), Acquire)",
                "self.0.fetch_add(WRITER + bytes(len), Relaxed)",
                "the_next_generation_sees_what_its_opener_prepared",
            ],
            [
                "E3, acquire half of an exact reservation",
                "compare_exchange_weak(seen.0, next.0, Acquire, Relaxed)",
                "compare_exchange_weak(seen.0, next.0, Relaxed, Relaxed)",
                "the_next_generation_sees_what_its_opener_prepared",
            ],
            [
                "E3, acquire half of entering",
                "compare_exchange_weak(seen.0, seen.pinned().0, Acquire, Relaxed)",
                "compare_exchange_weak(seen.0, seen.pinned().0, Relaxed, Relaxed)",
                "the_next_generation_sees_what_its_opener_prepared",
            ],
            // Planted bugs.
            [
                "the flush is taken by setting its bit, whatever was there",
                "self.0.compare_exchange(drained.0.0, drained.0.flushing().0, Acquire, Relaxed).is_ok()",
                "{ let _ = drained; self.0.fetch_or(FLUSHING, Acquire); true }",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a late addition is not undone",
                "Fit::Late => Reserve::Late(self.undo(len)),",
                "Fit::Late => Reserve::Late(Released::Pending),",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a late addition's length is undone, its count is not",
                "let change = WRITER + bytes(len);",
                "let change = bytes(len);",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a late addition's count is undone, its length is not",
                "let change = WRITER + bytes(len);",
                "let change = WRITER;",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a late addition is undone in two steps, the count first",
                "Self::released(Snapshot(self.0.fetch_sub(change, Relaxed) - change))",
                "self.0.fetch_sub(WRITER, Relaxed); let rest = change - WRITER; \
                 Self::released(Snapshot(self.0.fetch_sub(rest, Relaxed) - rest))",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "who undoes does not look whether it was the last one",
                "Self::released(Snapshot(self.0.fetch_sub(change, Relaxed) - change))",
                "{ self.0.fetch_sub(change, Relaxed); Released::Pending }",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a long reservation is added before it is known to fit",
                "if len <= MAX_OPTIMISTIC_LEN.min(capacity) && seen.has_room(len, capacity) {",
                "if len <= capacity && seen.has_room(len, capacity) {",
                "a_long_reservation_never_runs_over_the_end",
            ],
            [
                "an overflowing writer leaves its addition in",
                "self.0.fetch_add(SEALED.wrapping_sub(bytes(len)), Relaxed);",
                "self.0.fetch_or(SEALED, Relaxed);",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "an overflowing writer does not seal",
                "self.0.fetch_add(SEALED.wrapping_sub(bytes(len)), Relaxed);",
                "self.0.fetch_sub(bytes(len), Relaxed);",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "an exact reservation that does not fit seals without staying inside",
                "seen.pinned().sealed()",
                "seen.sealed()",
                "exact_writers_seal_once_and_flush_once",
            ],
            [
                "an exact reservation stores what it has read",
                "match self.0.compare_exchange_weak(seen.0, next.0, Acquire, Relaxed) {\n                Ok(_)",
                "self.0.store(next.0, Relaxed); match Ok(0) {\n                Ok::<usize, usize>(_)",
                "exact_writers_seal_once_and_flush_once",
            ],
            [
                "who leaves a sealed buffer last is not told",
                "Self::released(Snapshot(before.0 - WRITER))",
                "Released::Pending",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "who leaves is told what it saw before it left",
                "Self::released(Snapshot(before.0 - WRITER))",
                "Self::released(before)",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "a seal on request sets the bit, whatever was there",
                "match self.0.compare_exchange_weak(seen.0, seen.sealed().0, Relaxed, Relaxed) {",
                "match Ok::<usize, usize>(self.0.fetch_or(SEALED, Relaxed)) {",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "the end of a flush wipes late arrivals out",
                "let before = Snapshot(self.0.fetch_sub(FLUSHING + bytes(len), Release));",
                "let before = Snapshot(self.0.swap(SEALED, Release));",
                "a_late_arrival_never_leaves_a_hole",
            ],
            [
                "the end of a flush leaves its bytes in",
                "let before = Snapshot(self.0.fetch_sub(FLUSHING + bytes(len), Release));",
                "let before = Snapshot(self.0.fetch_sub(FLUSHING, Release));",
                "a_late_arrival_never_leaves_a_hole",
            ],
            [
                "the next generation begins over a late arrival's addition",
                "self.0.compare_exchange(SEALED, 0, AcqRel, Relaxed).is_ok()",
                "{ self.0.swap(0, AcqRel); true }",
                "a_late_arrival_never_leaves_a_hole",
            ],
        ],
    ),
    (
        "ring-state/snapshot.rs",
        &[
            [
                "a sealed buffer grants",
                "self.0 & (SEALED | CROWD) == 0",
                "self.0 & CROWD == 0",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "a sealed buffer is sealed again",
                "if self.is_sealed() || self.offset() > capacity {",
                "if self.offset() > capacity {",
                "an_explicit_seal_and_a_full_buffer_have_one_sealer",
            ],
            [
                "an exact reservation gets what runs over the end",
                "} else if self.offset() as u64 + len as u64 <= capacity as u64 {",
                "} else if self.offset() as u64 <= capacity as u64 {",
                "exact_writers_seal_once_and_flush_once",
            ],
            [
                "a buffer grants what runs over its end",
                "bytes(capacity - len) | !OFFSET_MASK",
                "bytes(capacity) | !OFFSET_MASK",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "a writer after the overflowing one overflows, too",
                "if self.is_sealed() || self.offset() > capacity {",
                "if self.is_sealed() {",
                "optimistic_and_exact_writers_seal_once_and_flush_once",
            ],
            [
                "a buffer with writers inside is drained",
                "self.is_sealed() && self.writers() == 0 && self.offset() > 0",
                "self.is_sealed() && self.offset() > 0",
                "optimistic_writers_seal_once_and_flush_once",
            ],
            [
                "an open buffer is drained",
                "self.is_sealed() && self.writers() == 0 && self.offset() > 0",
                "self.writers() == 0 && self.offset() > 0",
                "a_generation_does_not_end_under_a_pin",
            ],
            [
                "a buffer whose flush is under way is drained",
                "self.offset() > 0 && !self.is_flushing() {",
                "self.offset() > 0 {",
                "optimistic_and_exact_writers_seal_once_and_flush_once",
            ],
            [
                "a thread may enter while the device reads",
                "!ended && !self.is_flushing()",
                "!ended",
                "a_generation_does_not_end_under_a_pin",
            ],
        ],
    ),
    // What only a ring can show.
    (
        "ring-state/word.rs",
        &[
            [
                "the flush is taken by setting its bit, if nobody was faster",
                "self.0.compare_exchange(drained.0.0, drained.0.flushing().0, Acquire, Relaxed).is_ok()",
                "{ let _ = drained; self.0.fetch_or(FLUSHING, Acquire) & FLUSHING == 0 }",
                "optimistic_appends_fill_buffers_that_go_out_once",
            ],
            [
                "a buffer without bytes can be sealed on request",
                "if seen.offset() == 0 {",
                "if seen.offset() == u32::MAX {",
                "a_generation_can_end_before_its_opener_has_published_it",
            ],
        ],
    ),
    (
        "ring-state/word.rs",
        &[
            [
                "an overflowing writer takes its addition back before it seals",
                "self.0.fetch_add(SEALED.wrapping_sub(bytes(len)), Relaxed);",
                "self.0.fetch_sub(bytes(len), Relaxed); self.0.fetch_or(SEALED, Relaxed);",
                "an_overflowing_writer_and_an_explicit_seal_have_one_sealer",
            ],
            [
                "a seal on request does not know that a writer has overflowed",
                "if seen.is_sealed() || seen.offset() > capacity {",
                "if seen.is_sealed() {",
                "an_overflowing_writer_and_an_explicit_seal_have_one_sealer",
            ],
        ],
    ),
    (
        "ring-state/word.rs",
        &[[
            "a snapshot acquires nothing",
            "Snapshot(self.0.load(Acquire))",
            "Snapshot(self.0.load(Relaxed))",
            "a_reader_never_meets_the_next_generation",
        ]],
    ),
    (
        "ring-state/snapshot.rs",
        &[[
            "a vacant buffer is drained",
            "self.writers() == 0 && self.offset() > 0 && !self.is_flushing()",
            "self.writers() == 0 && !self.is_flushing()",
            "a_late_arrival_does_not_lose_the_rotation",
        ]],
    ),
];
