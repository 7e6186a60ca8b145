//! The mutants of leases, and of their revocation.

use super::Group;

pub(super) const GROUPS: &[Group] = &[
    (
        "buffer_ring/lease.rs",
        &[
            [
                "a lease is revoked without acquiring what it is",
                "let state = self.state.load(Acquire);",
                "let state = self.state.load(Relaxed);",
                "a_lease_in_another_buffer_is_left_alone",
            ],
            [
                "a lease begins without releasing what it is",
                "cell.state.store(self.state, Release);",
                "cell.state.store(self.state, Relaxed);",
                "a_lease_is_taken_back_as_what_it_is",
            ],
            [
                "a revoker does not acquire the records",
                "let mark = self.mark.load(Acquire);",
                "let mark = self.mark.load(Relaxed);",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "the owner does not release the records",
                "cell.mark.store(filled << 1, Release);",
                "cell.mark.store(filled << 1, Relaxed);",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "the owner passes no barrier before it looks",
                "BUSY, Relaxed);\n        barrier.light();",
                "BUSY, Relaxed);",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "the owner passes no barrier after a record",
                "filled << 1, Release);\n        barrier.light();",
                "filled << 1, Release);",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "the owner does not say that it is busy",
                "cell.mark.store(position << 1 | BUSY, Relaxed);",
                "",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "the owner does not look before it writes",
                "if is_revoked() {\n            return None;",
                "if false {\n            return None;",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "the owner does not look after it has written",
                "revoked: is_revoked() }",
                "revoked: false }",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "a revoker does not look whether the owner is busy",
                "if mark & BUSY != 0 {",
                "if false {",
                "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
            ],
            [
                "a lease is revoked by a store",
                "self.state.compare_exchange(state, revoked, Relaxed, Relaxed).is_ok().then_some(state - HELD)",
                "self.state.store(revoked, Relaxed);\n        Some(state - HELD)",
                "two_who_take_the_same_lease_back_end_it_once",
            ],
            [
                "a revoker ends whatever it finds",
                "self.state.compare_exchange(number + REVOKED, number + OVER, Release, Relaxed).ok()?;",
                "self.state.store(number + OVER, Release);",
                "a_writer_that_is_dropped_and_who_takes_its_lease_back_end_it_once",
            ],
            [
                "the owner ends what is over",
                "(phase != OVER).then(|| Grant",
                "Some(Grant",
                "a_writer_that_is_dropped_and_who_takes_its_lease_back_end_it_once",
            ],
            [
                "a revoker does not release what it has read",
                "self.state.compare_exchange(number + REVOKED, number + OVER, Release, Relaxed)",
                "self.state.compare_exchange(number + REVOKED, number + OVER, Relaxed, Relaxed)",
                "who_takes_a_lease_back_has_read_what_it_is_before_the_next_one_begins",
            ],
            [
                "the owner does not acquire what a revoker has read",
                "self.cell.state.swap(self.state, Acquire)",
                "self.cell.state.swap(self.state, Relaxed)",
                "who_takes_a_lease_back_has_read_what_it_is_before_the_next_one_begins",
            ],
            [
                "leases have no numbers",
                "(self.state & !PHASE) + NEXT + HELD",
                "(self.state & !PHASE) + HELD",
                "a_revoker_that_is_late_leaves_the_next_lease_alone",
            ],
            [
                "the rest of a lease begins where it began",
                "Some(Grant { slot, start: start + filled, len: len - filled })",
                "Some(Grant { slot, start: start + filled * 0, len })",
                "two_who_take_the_same_lease_back_end_it_once",
            ],
        ],
    ),
    (
        "buffer_ring/fence.rs",
        &[[
            "a revoker passes no barrier",
            "        fence(SeqCst);\n        match self {\n            Self::Fence => true,",
            "        match self {\n            Self::Fence => true,",
            "a_lease_is_ended_by_its_owner_or_by_who_takes_it_back",
        ]],
    ),
    (
        "buffer_ring/lease_registry.rs",
        &[
            [
                "the sealer takes the bits without acquiring",
                "word.swap(0, AcqRel)",
                "word.swap(0, crate::sync::Ordering::Release)",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "the sealer takes the bits without releasing the seal",
                "word.swap(0, AcqRel)",
                "word.swap(0, crate::sync::Ordering::Acquire)",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "the sealer only looks at the bits",
                "word.swap(0, AcqRel)",
                "word.load(crate::sync::Ordering::Acquire)",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "a writer does not release its lease",
                "fetch_or(1 << self.index, AcqRel)",
                "fetch_or(1 << self.index, Acquire)",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "a writer does not acquire the seal",
                "fetch_or(1 << self.index, AcqRel)",
                "fetch_or(1 << self.index, Release)",
                "a_lease_that_begins_beside_the_seal_is_ended",
            ],
            [
                "a writer is counted before it has its chunk",
                "        let place = self.take();\n        self.enrolled.fetch_add(1, AcqRel);\n        place\n",
                "        self.enrolled.fetch_add(1, AcqRel);\n        self.take()\n",
                "a_lease_in_a_new_chunk_of_cells_is_ended",
            ],
            [
                "a writer does not release its chunk",
                "self.enrolled.fetch_add(1, AcqRel)",
                "self.enrolled.fetch_add(1, Acquire)",
                "a_lease_in_a_new_chunk_of_cells_is_ended",
            ],
            [
                "the sealer does not acquire a chunk",
                "self.enrolled.fetch_add(0, AcqRel)",
                "self.enrolled.fetch_add(0, Release)",
                "a_lease_in_a_new_chunk_of_cells_is_ended",
            ],
            [
                "the sealer only looks at the count",
                "self.enrolled.fetch_add(0, AcqRel)",
                "self.enrolled.load(Acquire)",
                "a_lease_in_a_new_chunk_of_cells_is_ended",
            ],
            [
                "a cell is given up without releasing what was counted",
                "fetch_and(!(1 << self.index), Release)",
                "fetch_and(!(1 << self.index), Relaxed)",
                "the_next_writer_in_a_cell_goes_on_where_the_one_before_ended",
            ],
            [
                "a cell is taken without acquiring what was counted",
                "self.taken.fetch_update(Acquire, Relaxed, take)",
                "self.taken.fetch_update(Relaxed, Relaxed, take)",
                "the_next_writer_in_a_cell_goes_on_where_the_one_before_ended",
            ],
        ],
    ),
    (
        "buffer_ring/writer/mod.rs",
        &[
            [
                "a writer does not look for the seal behind its announcement",
                "Ok(!slot.snapshot().is_sealed() && ",
                "Ok(",
                "a_commit_does_not_wait_for_an_idle_writer",
            ],
            [
                "a writer does not look for a failure behind its announcement",
                " && !self.core().is_failing())",
                ")",
                "a_writer_that_sees_the_ring_poisoned_appends_nothing",
            ],
            [
                "a writer gives its cell up before its lease has ended",
                "        self.end_lease(Why::NotNeeded);\n        self.place.leave();",
                "        self.place.leave();\n        self.end_lease(Why::NotNeeded);",
                "a_writer_that_begins_beside_the_end_of_another_has_its_cell_alone",
            ],
        ],
    ),
    (
        "buffer_ring/core.rs",
        &[
            [
                "a failure is known before leases are taken back",
                "self.failing.store(true, Relaxed);",
                "self.failing.store(true, Relaxed);\n            self.poisoned.store(true, Relaxed);",
                "a_writer_that_sees_the_ring_poisoned_appends_nothing",
            ],
            [
                "a failure takes back no lease",
                "self.staging.slots().iter().for_each(|slot| self.revoke_leases(slot));",
                "",
                "a_writer_that_sees_the_ring_poisoned_appends_nothing",
            ],
            [
                "a sealer takes back no lease",
                "        self.revoke_after_seal(slot);\n",
                "",
                "a_commit_does_not_wait_for_an_idle_writer",
            ],
        ],
    ),
];
