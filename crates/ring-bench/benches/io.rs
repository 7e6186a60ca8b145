//! What a write costs on its way through the layer: submitted, and reaped when it is done. Once with a device in
//! memory, so that only the bookkeeping is left, and once over written blocks of a file.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ring_alloc::{BLOCK, Buffer};
use ring_io::{QuikIO, Wait, WriteQueue};

/// Lends a block to the device, and takes it back.
fn round(queue: &WriteQueue, bytes: &mut Option<Buffer>, durable: bool) {
    let frozen = bytes.take().expect("it came back").freeze(BLOCK);
    if durable {
        queue.submit_durable(0, frozen, 0)
    } else {
        queue.submit(0, frozen, 0)
    }
    let mut finished = Vec::with_capacity(1);
    while finished.is_empty() {
        queue.reap(Wait::Until(None), &mut finished);
    }
    let finished = finished.remove(0);
    assert_eq!(finished.result, Ok(()));
    *bytes = finished.bytes.thaw().ok();
}

fn io(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("io");
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let file = QuikIO::open(folder.path().join("log")).expect("a file");
    for (name, io) in [("memory", QuikIO::in_memory().0), ("file", file)] {
        let frozen = Buffer::zeroed(BLOCK).expect("memory").freeze(BLOCK);
        let arena = Arc::clone(frozen.arena());
        let mut bytes = frozen.thaw().ok();
        let queue = Arc::new(io).attach(&arena).expect("nobody else writes");
        for (kind, durable) in [("write", false), ("durable write", true)] {
            group.bench_function(format!("{kind}, 4 KiB, {name}"), |bencher| {
                bencher.iter(|| round(&queue, &mut bytes, durable));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, io);
criterion_main!(benches);
