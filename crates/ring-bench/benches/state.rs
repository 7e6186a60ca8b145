//! What the word alone costs: a reservation and its release, without bytes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ring_state::{Released, Reserve, StateWord};

const CAPACITY: u32 = 1 << 31;

/// Reserves and releases, and begins a new generation when the buffer is full.
fn round(word: &StateWord, len: u32) {
    match word.reserve(black_box(len), CAPACITY) {
        Reserve::Granted { start } => _ = black_box(start),
        Reserve::Sealed { .. } | Reserve::Late(_) => unreachable!("nobody else is there"),
    }
    assert_eq!(word.release(), Released::Pending);
}

fn open() -> StateWord {
    let word = StateWord::vacant();
    assert!(word.reopen());
    word
}

fn state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state");
    // 2^31 bytes are many reservations of these lengths, but not for ever.
    for (name, len) in [("reserve and release, by addition", 1), ("reserve and release, by exchange", 513)] {
        let word = std::cell::Cell::new(open());
        let mut left = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                if left == 0 {
                    word.set(open());
                    left = CAPACITY / len;
                }
                left -= 1;
                // SAFETY: one thread, and the cell is set only between two rounds.
                round(unsafe { &*word.as_ptr() }, len);
            });
        });
    }
    group.bench_function("a whole generation", |bencher| {
        let word = open();
        bencher.iter(|| {
            assert!(matches!(word.reserve(4096, 4096), Reserve::Granted { start: 0 }));
            assert_eq!(word.reserve(4096, 4096), Reserve::Sealed { len: 4096 });
            assert_eq!(word.release(), Released::Pending);
            let Released::Flushable(drained) = word.release() else { unreachable!("the last one out") };
            assert!(word.try_take_flush(drained));
            word.complete(drained.len());
            assert!(word.reopen());
        });
    });
    group.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
