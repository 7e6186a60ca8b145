//! The counters lose nothing, however many threads count, and whichever came and went before.

mod common;

use std::sync::Barrier;
use std::thread;

use buffer_ring::BufferRing;
use common::{LIMIT, options, within};

/// Each of `threads` threads appends `records` of `len` bytes, all at once.
fn append(ring: &BufferRing, threads: usize, records: usize, len: usize) {
    let begun = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                begun.wait();
                (0..records).for_each(|_| _ = ring.append(&vec![1; len]).expect("room"));
            });
        }
    });
}

#[test]
fn records_of_many_more_threads_than_processors_are_all_counted() {
    within(LIMIT, || {
        let ring = BufferRing::with_options(options(4, 1 << 16));
        // More than have a shard of their own; and once more, when the first ones have given theirs back.
        for round in 1..=3 {
            append(&ring, 100, 500, 3);
            let stats = ring.stats();
            assert_eq!((stats.records_appended, stats.bytes_appended), (round * 50_000, round * 150_000));
        }
        // Few threads, without the crowd: each in a shard of its own.
        append(&ring, 4, 20_000, 5);
        let stats = ring.stats();
        assert_eq!((stats.records_appended, stats.bytes_appended), (230_000, 850_000));
    });
}
