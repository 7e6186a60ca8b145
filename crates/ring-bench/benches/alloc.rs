//! What the arena costs: to be mapped, and to be copied into.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ring_alloc::{Arena, Buffer, ONE_MEGABYTE_BLOCK};

fn alloc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("alloc");
    group.bench_function("map and unmap 4 x 1 MiB", |bencher| {
        bencher.iter_with_large_drop(|| Arena::new(4, ONE_MEGABYTE_BLOCK).expect("memory"));
    });
    group.bench_function("first touch of 4 x 1 MiB", |bencher| {
        let new = || Arena::new(4, ONE_MEGABYTE_BLOCK).expect("memory").into_buffers();
        let touch = |mut buffers: Vec<Buffer>| {
            buffers.iter_mut().for_each(|buffer| buffer.iter_mut().step_by(4096).for_each(|byte| *byte = 1));
            buffers
        };
        bencher.iter_batched(new, touch, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Bytes(ONE_MEGABYTE_BLOCK as u64));
    group.bench_function("copy 1 MiB", |bencher| {
        let mut buffer = Buffer::zeroed(ONE_MEGABYTE_BLOCK).expect("memory");
        let source = vec![1; ONE_MEGABYTE_BLOCK];
        bencher.iter(|| buffer.copy_from_slice(black_box(&source)));
    });
    group.finish();
}

criterion_group!(benches, alloc);
criterion_main!(benches);
