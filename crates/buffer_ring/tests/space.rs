//! What is lost of the log to leases that ended before they were full: zeros, beside the bytes appended. A stream loses
//! little, and a thread that waits for each record nothing at all. `docs/BENCHMARKING.md` has the table, which comes of
//! `cargo test --release -p buffer_ring --test space -- --nocapture`.

mod common;

use std::thread;

use buffer_ring::{BufferRing, Writer};
use common::{LIMIT, in_memory, options, within};

const BUFFER: usize = 1 << 20;

/// Times that each load is run: with several threads, each time is another.
const TIMES: usize = 5;

/// A load of writers, one in each of some threads.
struct Load {
    threads: usize,
    /// Records of each thread, and their bytes.
    records: usize,
    len: usize,
    /// How many are waited for at once; `None`: no thread waits.
    batch: Option<usize>,
}

impl Load {
    /// The unused bytes for each byte appended, and the part of the records that went into leases.
    fn run(&self) -> (f64, f64) {
        let (ring, _device) = in_memory(options(4, BUFFER));
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| self.append(&ring, &mut ring.writer()));
            }
        });
        ring.sync().expect("nothing failed");
        let stats = ring.stats();
        assert_eq!(stats.records_appended, (self.threads * self.records) as u64);
        let of = |part: u64, whole: u64| part as f64 / whole as f64;
        (of(stats.writers.unused_bytes, stats.bytes_appended), of(stats.writers.leased_records, stats.records_appended))
    }

    fn append(&self, ring: &BufferRing, writer: &mut Writer<'_>) {
        let payload = vec![1; self.len];
        for record in 1..=self.records {
            if self.batch == Some(1) {
                writer.append_durable(&payload).expect("room");
                continue;
            }
            let extent = writer.append(&payload).expect("room");
            if self.batch.is_some_and(|batch| record % batch == 0) {
                ring.wait_durable(extent.end()).expect("nothing failed");
            }
        }
    }

    /// Runs it some times, says how that went, and gives the median of what was lost: where other programs want the
    /// processor, a writer loses the lease that it holds meanwhile.
    fn lost(&self) -> f64 {
        let mut runs: Vec<_> = (0..TIMES).map(|_| self.run()).collect();
        runs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let Self { threads, len, batch, .. } = self;
        let waits = match batch {
            None => "nobody waits".to_owned(),
            Some(1) => "each is waited for".to_owned(),
            Some(batch) => format!("{batch} are waited for at once"),
        };
        let percent = |part: f64| format!("{:.2} %", 100.0 * part);
        let (least, median, most) = (runs[0], runs[TIMES / 2], runs[TIMES - 1]);
        let (least, median, most, leased) = (percent(least.0), percent(median.0), percent(most.0), percent(median.1));
        println!("| {len} B, {threads} thr., {waits} | {median} [{least}–{most}] | {leased} |");
        runs[TIMES / 2].0
    }
}

#[test]
fn a_stream_loses_little_to_leases() {
    within(LIMIT, || {
        for threads in [1, 4] {
            for len in [16, 64, 256, 1000] {
                let records = (16 << 20) / len / threads;
                let lost = Load { threads, records, len, batch: None }.lost();
                assert!(lost < 0.05, "{lost} of a stream");
            }
        }
    });
}

#[test]
fn waiting_for_each_record_loses_nothing_and_waiting_for_some_little() {
    within(LIMIT, || {
        for threads in [1, 16] {
            for batch in [1, 10, 100, 1000] {
                let lost = Load { threads, records: 5000, len: 100, batch: Some(batch) }.lost();
                assert!(if batch == 1 { lost == 0.0 } else { lost < 0.3 }, "{lost} of a load that waits for {batch}");
            }
        }
    });
}
