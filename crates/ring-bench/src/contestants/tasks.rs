//! The ring's futures: a task in the place of each thread, on a runtime with a worker for each processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use super::ours::Durable;
use crate::log::{Contestant, Family, Log, Outcome};
use crate::measure::{Amount, Job, Meters, Sample, conclude, histogram};
use crate::stamp::Record;

pub const FUTURES: Contestant = Contestant::tasks(Family::Ours, "buffer_ring, tasks on tokio", run);

fn run(job: &Job) -> Outcome<Sample> {
    let log = Arc::new(Durable::<false>::open(&job.place)?);
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = Runtime::new()?;
    let meters = Meters::read(&job.place);
    let start = Instant::now();
    let tasks: Vec<_> = (0..job.place.threads)
        .map(|task| {
            let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
            runtime.spawn(commit(log, Record::new(task, job.place.size), job.share(task), stop))
        })
        .collect();
    if let Amount::For(time) = job.amount {
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    }
    let mut written = Vec::new();
    for task in tasks {
        let (count, latency) = runtime.block_on(task)?;
        written.push((count, Some(latency)));
    }
    let log = Arc::into_inner(log).expect("all tasks have ended");
    conclude(job, log, &meters, start, &written)
}

/// One record behind the other, each when the one before is on stable storage.
async fn commit(
    log: Arc<Durable<false>>,
    mut record: Record,
    limit: u64,
    stop: Arc<AtomicBool>,
) -> (u64, Histogram<u64>) {
    let mut latency = histogram();
    while record.written() < limit && !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        log.ring().append_durable_async(record.next()).await.expect("the ring takes it");
        latency.saturating_record(start.elapsed().as_nanos() as u64);
    }
    (record.written(), latency)
}
