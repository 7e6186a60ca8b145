//! Every transition from every small word, and from the words next to each limit, against the rules spelled out once
//! more.

extern crate std;

use crate::layout::{CROWDED, FLUSHING, MAX_THREADS, RESERVED_MASK, SEALED, bytes};
use crate::snapshot::{Drained, Fit, Snapshot};
use crate::sync::{AtomicUsize, Ordering};
use crate::word::{Released, Reserve, Seal, StateWord};
use crate::{MAX_CAPACITY, MAX_OPTIMISTIC_LEN};

/// The word as four plain fields: the other side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    offset: u32,
    writers: u32,
    flushing: bool,
    sealed: bool,
}

impl Fields {
    fn pack(self) -> usize {
        bytes(self.offset)
            | (self.writers as usize) << 8
            | if self.flushing { FLUSHING } else { 0 }
            | if self.sealed { SEALED } else { 0 }
    }

    fn unpack(word: usize) -> Self {
        assert_eq!(word & RESERVED_MASK, 0, "reserved bits of {word:#x}");
        let snapshot = Snapshot(word);
        Self {
            offset: snapshot.offset(),
            writers: snapshot.writers(),
            flushing: snapshot.is_flushing(),
            sealed: snapshot.is_sealed(),
        }
    }

    fn word(self) -> StateWord {
        StateWord(AtomicUsize::new(self.pack()))
    }

    fn released(self) -> Released {
        let drained = self.sealed && !self.flushing && self.writers == 0 && self.offset > 0;
        if drained { Released::Flushable(Snapshot(self.pack()).drained().expect("drained")) } else { Released::Pending }
    }
}

fn after(word: &StateWord) -> Fields {
    Fields::unpack(word.0.load(Ordering::Relaxed))
}

/// All words with these offsets and writer counts.
fn words(offsets: &[u32], writers: &[u32]) -> impl Iterator<Item = Fields> {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    offsets.iter().flat_map(move |&offset| {
        writers.iter().flat_map(move |&writers| {
            flags.into_iter().map(move |(flushing, sealed)| Fields { offset, writers, flushing, sealed })
        })
    })
}

fn small_and_limit_words() -> impl Iterator<Item = Fields> {
    const END: u32 = MAX_CAPACITY;
    const OVERSHOT: u32 = END + MAX_THREADS as u32 * MAX_OPTIMISTIC_LEN;
    let small = [0, 1, 2, 3, 4, 5, 511, 512, 513, 1023, 1024, 1025, 1536];
    let large = [END - 513, END - 512, END - 1, END, END + 1, OVERSHOT - 512, OVERSHOT];
    let counts = [0, 1, 2, 3, CROWDED - 1, CROWDED, CROWDED + 1, CROWDED + MAX_THREADS as u32 - 1];
    words(&small, &counts).chain(words(&large, &counts)).collect::<std::vec::Vec<_>>().into_iter()
}

#[test]
fn fields_survive_packing() {
    for fields in small_and_limit_words() {
        assert_eq!(Fields::unpack(fields.pack()), fields);
    }
}

#[test]
fn a_word_is_vacant_only_if_nothing_but_the_seal_is_set() {
    for fields in small_and_limit_words() {
        let vacant = fields == Fields { offset: 0, writers: 0, flushing: false, sealed: true };
        assert_eq!(Snapshot(fields.pack()).is_vacant(), vacant, "{fields:?}");
    }
}

#[test]
fn a_drained_word_keeps_its_length() {
    for offset in [1, 2, 511, MAX_CAPACITY] {
        let drained = Fields { offset, writers: 0, flushing: false, sealed: true };
        assert_eq!(Snapshot(drained.pack()).drained().map(Drained::len), Some(offset));
    }
}

#[test]
fn sealing_and_flushing_set_their_bit_and_leave_it_set() {
    for fields in small_and_limit_words() {
        let word = Snapshot(fields.pack());
        assert_eq!(Fields::unpack(word.sealed().0), Fields { sealed: true, ..fields });
        assert_eq!(Fields::unpack(word.flushing().0), Fields { flushing: true, ..fields });
    }
}

#[test]
fn a_word_prints_its_four_fields() {
    let word = Fields { offset: 7, writers: 2, flushing: true, sealed: false }.word();
    let printed = "Snapshot { offset: 7, writers: 2, flushing: true, sealed: false }";
    assert_eq!(std::format!("{word:?} {:?}", word.snapshot()), std::format!("{printed} {printed}"));
}

#[test]
fn a_classification_follows_from_the_word_before() {
    for fields in small_and_limit_words() {
        let snapshot = Snapshot(fields.pack());
        for capacity in [1, 2, 4, 512, 1024, MAX_CAPACITY] {
            for len in [1, 2, 3, 4, 511, 512, 513, 1024, MAX_CAPACITY].into_iter().filter(|&len| len <= capacity) {
                let end = u64::from(fields.offset) + u64::from(len);
                let expected = if fields.sealed || fields.offset > capacity {
                    Fit::Late
                } else if end <= u64::from(capacity) {
                    Fit::Granted
                } else {
                    Fit::Overflow
                };
                assert_eq!(snapshot.classify(len, capacity), expected, "{len} of {capacity} onto {fields:?}");
                let crowded = expected == Fit::Granted && fields.writers >= CROWDED;
                let expected = if crowded { Fit::Overflow } else { expected };
                assert_eq!(snapshot.would_fit(len, capacity), expected, "{len} of {capacity} onto {fields:?}");
                let granted = expected == Fit::Granted;
                assert_eq!(snapshot.has_room(len, capacity), granted, "{len} of {capacity} onto {fields:?}");
            }
        }
    }
}

#[test]
fn a_reservation_moves_exactly_the_fields_it_says() {
    for before in small_and_limit_words() {
        for capacity in [1, 4, 512, 1024, MAX_CAPACITY] {
            for len in [1, 3, 511, 512, 513, 1024].into_iter().filter(|&len| len <= capacity) {
                let word = before.word();
                let outcome = word.reserve(len, capacity);
                let context = std::format!("{len} of {capacity} onto {before:?}: {outcome:?}");
                let expected = match outcome {
                    Reserve::Granted { start } => {
                        assert!(
                            !before.sealed && u64::from(start) + u64::from(len) <= u64::from(capacity),
                            "{context}"
                        );
                        assert_eq!(start, before.offset, "{context}");
                        Fields { offset: before.offset + len, writers: before.writers + 1, ..before }
                    }
                    Reserve::Sealed { len: valid } => {
                        assert!(!before.sealed && before.offset <= capacity, "{context}");
                        assert!(len > capacity - before.offset || before.writers >= CROWDED, "{context}");
                        assert_eq!(valid, before.offset, "{context}");
                        Fields { sealed: true, writers: before.writers + 1, ..before }
                    }
                    Reserve::Late(released) => {
                        assert!(before.sealed || before.offset > capacity, "{context}");
                        assert_eq!(released, Released::Pending, "{context}");
                        before
                    }
                };
                assert_eq!(after(&word), expected, "{context}");
            }
        }
    }
}

/// The word may have become any other one between the look and the addition.
#[test]
fn an_optimistic_addition_is_granted_seals_or_is_taken_back_whatever_it_meets() {
    // The last thread that may add has not.
    let most = MAX_CAPACITY + (MAX_THREADS as u32 - 1) * MAX_OPTIMISTIC_LEN;
    for before in small_and_limit_words().filter(|before| before.offset <= most) {
        for capacity in [1, 4, 512, 1024, MAX_CAPACITY] {
            for len in [1, 3, 511, 512].into_iter().filter(|&len| len <= capacity) {
                let word = before.word();
                let inside = Fields { writers: before.writers + 1, ..before };
                let expected = match Snapshot(before.pack()).classify(len, capacity) {
                    Fit::Granted => {
                        let after = Fields { offset: before.offset + len, ..inside };
                        (Reserve::Granted { start: before.offset }, after)
                    }
                    Fit::Overflow => (Reserve::Sealed { len: before.offset }, Fields { sealed: true, ..inside }),
                    Fit::Late => (Reserve::Late(before.released()), before),
                };
                let outcome = word.reserve_optimistically(len, capacity);
                assert_eq!((outcome, after(&word)), expected, "{len} of {capacity} onto {before:?}");
            }
        }
    }
}

#[test]
fn pinning_needs_a_generation_that_has_not_come_to_its_flush() {
    for before in small_and_limit_words() {
        let word = before.word();
        let pinned = word.pin();
        assert_eq!(pinned, !before.flushing && (!before.sealed || before.offset > 0), "{before:?}");
        assert_eq!(after(&word), Fields { writers: before.writers + u32::from(pinned), ..before }, "{before:?}");
    }
}

#[test]
fn sealing_needs_an_open_buffer_with_bytes() {
    for before in small_and_limit_words().filter(|before| before.writers > 0) {
        for capacity in [1, 4, 512, 1024, MAX_CAPACITY] {
            let word = before.word();
            let expected = if before.sealed || before.offset > capacity {
                Seal::Already
            } else if before.offset == 0 {
                Seal::Empty
            } else {
                Seal::Sealed { len: before.offset }
            };
            assert_eq!(word.seal(capacity), expected, "{before:?}");
            let sealed = before.sealed || matches!(expected, Seal::Sealed { .. });
            assert_eq!(after(&word), Fields { sealed, ..before }, "{before:?}");
        }
    }
}

#[test]
fn a_release_gives_the_flush_to_the_thread_that_leaves_the_buffer_drained() {
    for before in small_and_limit_words().filter(|before| before.writers > 0) {
        let word = before.word();
        let left = Fields { writers: before.writers - 1, ..before };
        assert_eq!(word.release(), left.released(), "{before:?}");
        assert_eq!(after(&word), left);
    }
}

#[test]
fn the_flush_is_taken_from_exactly_the_word_that_was_seen() {
    let drained = Fields { offset: 5, writers: 0, flushing: false, sealed: true };
    let Released::Flushable(seen) = drained.released() else { panic!("{drained:?} is drained") };
    for now in small_and_limit_words() {
        let word = now.word();
        let taken = word.try_take_flush(seen);
        assert_eq!(taken, now == drained, "{now:?}");
        assert_eq!(after(&word), Fields { flushing: now.flushing || taken, ..now });
    }
}

#[test]
fn completing_leaves_the_late_arrivals_alone() {
    for (late, extra) in [(0, 0), (1, 512), (3, 700)] {
        let word = Fields { offset: 1024 + extra, writers: late, flushing: true, sealed: true }.word();
        word.complete(1024);
        let left = Fields { offset: extra, writers: late, flushing: false, sealed: true };
        assert_eq!(after(&word), left);
        assert_eq!(word.reopen(), late == 0, "{left:?}");
    }
}

#[test]
fn only_the_exact_vacant_word_reopens() {
    for before in small_and_limit_words() {
        let word = before.word();
        let vacant = before == Fields { offset: 0, writers: 0, flushing: false, sealed: true };
        assert_eq!(word.reopen(), vacant, "{before:?}");
        assert_eq!(after(&word), Fields { sealed: before.sealed && !vacant, ..before });
    }
}
