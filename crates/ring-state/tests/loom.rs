//! Every interleaving of small programs over one word. Run with `cargo xtask loom`.
//!
//! The threads that race are the spawned ones, and each model counts, outside the model, that the branch it is about
//! was taken: a model that never gets there would pass with any bug.
#![cfg(loom)]

mod model;

use core::sync::atomic::AtomicUsize as Count;
use core::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use model::{Bound, hit, model};
use ring_state::{Drained, MAX_OPTIMISTIC_LEN, Released, Reserve, Seal, StateWord};

/// Memory that loom watches: an access that races with another one fails the model.
struct Bytes<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: loom checks each access against all others; a race is a failed model, which is what the type is for.
unsafe impl<const N: usize> Sync for Bytes<N> {}

impl<const N: usize> Bytes<N> {
    fn new() -> Self {
        Self(core::array::from_fn(|_| UnsafeCell::new(0)))
    }

    fn set(&self, index: usize, value: u32) {
        // SAFETY: the pointer is valid within the closure; loom fails the model if the access is not exclusive.
        self.0[index].with_mut(|cell| unsafe { *cell = value });
    }

    fn get(&self, index: usize) -> u32 {
        // SAFETY: the pointer is valid within the closure; loom fails the model if another thread writes meanwhile.
        self.0[index].with(|cell| unsafe { *cell })
    }
}

/// A buffer of `N` units, with a log of all grants, kept outside of loom's sight.
struct Buffer<const N: usize> {
    word: StateWord,
    bytes: Bytes<N>,
    /// Bytes of a unit.
    unit: u32,
    flushes: Count,
    sealers: Count,
    sealed_len: Count,
    granted: Count,
}

impl<const N: usize> Buffer<N> {
    fn open(unit: u32) -> Arc<Self> {
        let word = StateWord::vacant();
        assert!(word.reopen());
        Arc::new(Self {
            word,
            bytes: Bytes::new(),
            unit,
            flushes: Count::new(0),
            sealers: Count::new(0),
            sealed_len: Count::new(0),
            granted: Count::new(0),
        })
    }

    fn capacity(&self) -> u32 {
        N as u32 * self.unit
    }

    /// Appends `units`, filled with `mark`; true if they were granted.
    fn append(&self, units: u32, mark: u32) -> bool {
        match self.word.reserve(units * self.unit, self.capacity()) {
            Reserve::Granted { start } => {
                let first = start / self.unit;
                for unit in first..first + units {
                    self.bytes.set(unit as usize, mark);
                }
                self.granted.fetch_add(units as usize, Relaxed);
                self.flush_if_drained(self.word.release());
                true
            }
            Reserve::Sealed { len } => {
                self.sealed(len);
                self.flush_if_drained(self.word.release());
                false
            }
            Reserve::Late(released) => {
                self.flush_if_drained(released);
                false
            }
        }
    }

    /// Seals on request.
    fn seal(&self) {
        if self.word.pin() {
            if let Seal::Sealed { len } = self.word.seal(self.capacity()) {
                self.sealed(len);
            }
            self.flush_if_drained(self.word.release());
        }
    }

    fn sealed(&self, len: u32) {
        self.sealers.fetch_add(1, Relaxed);
        self.sealed_len.store(len as usize, Relaxed);
    }

    fn flush_if_drained(&self, released: Released) {
        if let Released::Flushable(drained) = released
            && self.word.try_take_flush(drained)
        {
            self.flush(drained);
        }
    }

    /// Reads what the device would read.
    fn flush(&self, drained: Drained) {
        self.flushes.fetch_add(1, Relaxed);
        for unit in 0..drained.len() / self.unit {
            assert_ne!(self.bytes.get(unit as usize), 0, "unit {unit} was flushed before it was written");
        }
    }

    /// What must hold once all writers are gone, if the buffer was sealed.
    fn check_one_generation(&self) {
        let word = self.word.snapshot();
        assert_eq!(word.writers(), 0);
        if word.is_sealed() {
            assert_eq!(self.sealers.load(Relaxed), 1, "sealers");
            assert_eq!(self.flushes.load(Relaxed), 1, "flushes");
            assert_eq!(word.offset() as usize, self.sealed_len.load(Relaxed), "sealed length");
        } else {
            assert_eq!((self.sealers.load(Relaxed), self.flushes.load(Relaxed)), (0, 0));
        }
        assert_eq!(word.offset(), self.granted.load(Relaxed) as u32 * self.unit, "bytes granted");
    }
}

/// Two threads append twice each to a buffer of three units: blind additions, exact ones, and one of each.
fn two_writers(name: &'static str, unit: u32, mixed: bool) {
    static SEALED: Count = Count::new(0);
    static OPEN: Count = Count::new(0);
    SEALED.store(0, Relaxed);
    OPEN.store(0, Relaxed);
    model(name, Bound::None, move || {
        let buffer = Buffer::<3>::open(unit);
        let other = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                let _ = buffer.append(if mixed { 2 } else { 1 }, 1) && buffer.append(1, 2);
            })
        };
        let _ = buffer.append(1, 3) && buffer.append(1, 4);
        other.join().unwrap();
        hit(if buffer.word.snapshot().is_sealed() { &SEALED } else { &OPEN });
        buffer.check_one_generation();
    });
    assert!(SEALED.load(Relaxed) > 0, "nobody sealed");
    assert_eq!(OPEN.load(Relaxed), 0, "four units fitted into three");
}

#[test]
fn optimistic_writers_seal_once_and_flush_once() {
    two_writers("optimistic_writers_seal_once_and_flush_once", 8, false);
}

#[test]
fn exact_writers_seal_once_and_flush_once() {
    two_writers("exact_writers_seal_once_and_flush_once", 600, false);
}

#[test]
fn optimistic_and_exact_writers_seal_once_and_flush_once() {
    two_writers("optimistic_and_exact_writers_seal_once_and_flush_once", 400, true);
}

#[test]
fn three_writers_agree_on_which_one_overflows() {
    static CROSSED: Count = Count::new(0);
    model("three_writers_agree_on_which_one_overflows", Bound::None, || {
        let buffer = Buffer::<2>::open(8);
        let others = [1, 2].map(|mark| {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || buffer.append(1, mark))
        });
        let mut granted = usize::from(buffer.append(1, 3));
        for other in others {
            granted += usize::from(other.join().unwrap());
        }
        assert_eq!(granted, 2);
        hit(&CROSSED);
        buffer.check_one_generation();
    });
    assert!(CROSSED.load(Relaxed) > 0);
}

/// A blind addition of such a length, times all threads, could make the offset wrap. So it is never there, not even for
/// a moment.
#[test]
fn a_long_reservation_never_runs_over_the_end() {
    const LEN: u32 = 2 * MAX_OPTIMISTIC_LEN;
    static SEALED: Count = Count::new(0);
    static OPEN: Count = Count::new(0);
    model("a_long_reservation_never_runs_over_the_end", Bound::None, || {
        let word = StateWord::vacant();
        assert!(word.reopen());
        let word = Arc::new(word);
        let reserve = |word: &StateWord| {
            let outcome = word.reserve(LEN, LEN);
            let seen = word.snapshot();
            assert!(seen.offset() <= LEN, "{seen:?}");
            hit(if seen.is_sealed() { &SEALED } else { &OPEN });
            outcome
        };
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || reserve(&word))
        };
        let outcomes = [reserve(&word), other.join().unwrap()];
        assert!(outcomes.contains(&Reserve::Granted { start: 0 }) && outcomes.contains(&Reserve::Sealed { len: LEN }));
    });
    assert!(SEALED.load(Relaxed) > 0 && OPEN.load(Relaxed) > 0, "one of the two was always first");
}

#[test]
fn an_explicit_seal_and_a_full_buffer_have_one_sealer() {
    static REQUESTED: Count = Count::new(0);
    static CROSSED: Count = Count::new(0);
    model("an_explicit_seal_and_a_full_buffer_have_one_sealer", Bound::None, || {
        let buffer = Buffer::<2>::open(8);
        assert!(buffer.append(1, 1));
        let writer = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || buffer.append(1, 2) && buffer.append(1, 3))
        };
        buffer.seal();
        let _ = writer.join().unwrap();
        let len = buffer.sealed_len.load(Relaxed);
        hit(if len == 16 { &CROSSED } else { &REQUESTED });
        buffer.check_one_generation();
    });
    assert!(REQUESTED.load(Relaxed) > 0 && CROSSED.load(Relaxed) > 0);
}

/// A crossing that was foreseen takes the exact way; this one is blind.
#[test]
fn an_overflowing_writer_and_an_explicit_seal_have_one_sealer() {
    static CROSSED: Count = Count::new(0);
    static REQUESTED: Count = Count::new(0);
    model("an_overflowing_writer_and_an_explicit_seal_have_one_sealer", Bound::Preemptions(3), || {
        let buffer = Buffer::<2>::open(8);
        assert!(buffer.append(1, 1));
        let writers = [2, 3].map(|mark| {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || buffer.append(1, mark))
        });
        buffer.seal();
        for writer in writers {
            let _ = writer.join().unwrap();
        }
        hit(if buffer.sealed_len.load(Relaxed) == 16 { &CROSSED } else { &REQUESTED });
        buffer.check_one_generation();
    });
    assert!(REQUESTED.load(Relaxed) > 0 && CROSSED.load(Relaxed) > 0);
}

/// E1.
#[test]
fn the_flusher_sees_every_byte() {
    static BY_WRITER: Count = Count::new(0);
    static BY_SEALER: Count = Count::new(0);
    model("the_flusher_sees_every_byte", Bound::None, || {
        let buffer = Buffer::<2>::open(8);
        let Reserve::Granted { start: 0 } = buffer.word.reserve(8, 16) else { panic!("an empty buffer") };
        let writer = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                buffer.bytes.set(0, 1);
                match buffer.word.release() {
                    Released::Flushable(drained) if buffer.word.try_take_flush(drained) => hit(&BY_WRITER),
                    _ => {}
                }
            })
        };
        assert!(buffer.word.pin());
        assert_eq!(buffer.word.seal(16), Seal::Sealed { len: 8 });
        if let Released::Flushable(drained) = buffer.word.release()
            && buffer.word.try_take_flush(drained)
        {
            hit(&BY_SEALER);
            assert_eq!(buffer.bytes.get(0), 1);
        }
        writer.join().unwrap();
        assert!(buffer.word.snapshot().is_flushing(), "nobody took the flush");
    });
    assert!(BY_WRITER.load(Relaxed) > 0 && BY_SEALER.load(Relaxed) > 0);
}

/// E2: the flusher reads, completes; the opener writes as the next generation's first writer.
#[test]
fn the_next_generation_waits_for_the_flusher() {
    static SECOND_LIFE: Count = Count::new(0);
    model("the_next_generation_waits_for_the_flusher", Bound::None, || {
        let buffer = Buffer::<1>::open(8);
        assert!(buffer.append(1, 1));
        assert!(buffer.word.pin());
        let Seal::Sealed { len: 8 } = buffer.word.seal(8) else { panic!("one unit is in") };
        let Released::Flushable(drained) = buffer.word.release() else { panic!("nobody else is inside") };
        assert!(buffer.word.try_take_flush(drained));
        let opener = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                if buffer.word.reopen() {
                    hit(&SECOND_LIFE);
                    buffer.bytes.set(0, 2);
                }
            })
        };
        assert_eq!(buffer.bytes.get(0), 1);
        buffer.word.complete(8);
        opener.join().unwrap();
    });
    assert!(SECOND_LIFE.load(Relaxed) > 0);
}

/// E3, for the three ways into a buffer.
#[test]
fn the_next_generation_sees_what_its_opener_prepared() {
    static INSIDE: [Count; 3] = [Count::new(0), Count::new(0), Count::new(0)];
    for way in 0..3 {
        let name = ["blind", "exact", "enter"][way];
        model(&format!("the_next_generation_sees_what_its_opener_prepared ({name})"), Bound::None, move || {
            let word = Arc::new(StateWord::vacant());
            let base = Arc::new(Bytes::<1>::new());
            let late = {
                let (word, base) = (Arc::clone(&word), Arc::clone(&base));
                thread::spawn(move || {
                    let inside = match way {
                        0 => matches!(word.reserve(8, 4096), Reserve::Granted { start: 0 }),
                        1 => matches!(word.reserve(600, 4096), Reserve::Granted { start: 0 }),
                        _ => word.pin(),
                    };
                    if inside {
                        hit(&INSIDE[way]);
                        assert_eq!(base.get(0), 7);
                    }
                })
            };
            base.set(0, 7);
            assert!(word.reopen());
            late.join().unwrap();
        });
        assert!(INSIDE[way].load(Relaxed) > 0, "{name} never came in");
    }
}

/// A reservation that looked at an open buffer, and added to it in a later state: vacant, or even the next generation.
#[test]
fn a_late_arrival_never_leaves_a_hole() {
    static GRANTED_LATER: Count = Count::new(0);
    static REOPEN_FAILED: Count = Count::new(0);
    model("a_late_arrival_never_leaves_a_hole", Bound::None, || {
        let buffer = Buffer::<2>::open(8);
        assert!(buffer.append(1, 1));
        let late = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || match buffer.word.reserve(8, 16) {
                Reserve::Granted { start } => {
                    if start == 0 {
                        hit(&GRANTED_LATER);
                    }
                    buffer.word.release()
                }
                Reserve::Sealed { .. } => buffer.word.release(),
                Reserve::Late(released) => released,
            })
        };
        assert!(buffer.word.pin());
        let _ = buffer.word.seal(16);
        if let Released::Flushable(drained) = buffer.word.release()
            && buffer.word.try_take_flush(drained)
        {
            buffer.word.complete(drained.len());
            if buffer.word.reopen() {
                let word = buffer.word.snapshot();
                assert!(word.offset() == 0 || word.offset() == 8, "{word:?}");
            } else {
                hit(&REOPEN_FAILED);
            }
        }
        let _ = late.join().unwrap();
        let word = buffer.word.snapshot();
        assert!(word.writers() == 0 && word.offset() <= 16, "{word:?}");
    });
    assert!(GRANTED_LATER.load(Relaxed) > 0, "nobody came so late");
    assert!(REOPEN_FAILED.load(Relaxed) > 0, "no addition was in the way");
}

/// A writer inside keeps the generation from ending.
#[test]
fn a_generation_does_not_end_under_a_pin() {
    static INSIDE: Count = Count::new(0);
    static TOO_LATE: Count = Count::new(0);
    model("a_generation_does_not_end_under_a_pin", Bound::None, || {
        let buffer = Buffer::<1>::open(8);
        assert!(buffer.append(1, 1));
        let visitor = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                if buffer.word.pin() {
                    hit(&INSIDE);
                    let word = buffer.word.snapshot();
                    assert!(!word.is_flushing() && word.offset() == 8, "{word:?}");
                    buffer.flush_if_drained(buffer.word.release());
                } else {
                    hit(&TOO_LATE);
                }
            })
        };
        buffer.seal();
        visitor.join().unwrap();
        buffer.check_one_generation();
    });
    assert!(INSIDE.load(Relaxed) > 0 && TOO_LATE.load(Relaxed) > 0);
}
