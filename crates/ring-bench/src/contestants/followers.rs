//! Followers of a `ringlog`: what a record costs that is still in memory, and how long it takes to one that waits.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringlog::{Follow, Log, Upto};

use crate::log::{Contestant, Family, Outcome};
use crate::measure::{Job, Meters, Sample, histogram};

pub const MEMORY: [Contestant; 3] = [
    Contestant::program(Family::Limit, "copy by the mebibyte, record by record", copy),
    Contestant::program(Family::Ours, "ringlog follower, staged", |job| from_memory(job, Upto::Staged)),
    Contestant::program(Family::Ours, "ringlog follower, durable", |job| from_memory(job, Upto::Durable)),
];
pub const LATENCY: [Contestant; 2] = [
    Contestant::program(Family::Ours, "ringlog follower, staged", |job| latency(job, Upto::Staged)),
    Contestant::program(Family::Ours, "ringlog follower, durable", |job| latency(job, Upto::Durable)),
];

const MIB: usize = 1 << 20;

/// Between two records of which one is timed.
const PACE: Duration = Duration::from_millis(1);

fn open(job: &Job, memory: usize) -> Outcome<Log> {
    Ok(Log::options().ring(memory / MIB, MIB).open(job.place.folder.join("ringlog"))?.0)
}

/// What a follower at least does: the bytes are copied once, and looked at where each record begins.
fn copy(job: &Job) -> Outcome<Sample> {
    let (place, record) = (&job.place, job.place.size + 8);
    let records = place.expected as usize / place.size;
    let source = vec![1_u8; records * record];
    let meters = Meters::read(place);
    let start = Instant::now();
    let mut sum = 0_u64;
    let mut buffer = Vec::with_capacity(MIB);
    for part in source.chunks(MIB / record * record) {
        buffer.clear();
        buffer.extend_from_slice(part);
        sum += buffer.chunks(record).map(|record| u64::from(record[0])).sum::<u64>();
    }
    black_box(sum);
    Ok(meters.sample(place, start, records as u64))
}

/// All records are in the ring's memory when the follower begins.
fn from_memory(job: &Job, upto: Upto) -> Outcome<Sample> {
    let place = &job.place;
    let log = open(job, 2 * place.expected as usize)?;
    let records = place.expected / place.size as u64;
    let mut follow = log.follow(log.end(), upto);
    let payload = vec![7; place.size];
    for _ in 0..records {
        log.append(0, &payload)?;
    }
    log.sync()?;
    let meters = Meters::read(place);
    let start = Instant::now();
    let mut seen = 0;
    while seen < records && follow.try_next()?.is_some() {
        seen += 1;
    }
    let sample = meters.sample(place, start, records);
    if seen == records { Ok(sample) } else { Err(format!("{seen} records came").into()) }
}

/// From before the append, or the commit, to when the follower has the record.
fn latency(job: &Job, upto: Upto) -> Outcome<Sample> {
    let place = &job.place;
    let log = open(job, 8 * MIB)?;
    let records = place.expected / place.size as u64;
    let follow = log.follow(log.end(), upto);
    let (meters, epoch) = (Meters::read(place), Instant::now());
    let follower = thread::spawn(move || times(follow, epoch));
    for _ in 0..records {
        let now = epoch.elapsed().as_nanos() as u64;
        let mut payload = vec![7; place.size];
        payload[..8].copy_from_slice(&now.to_le_bytes());
        let at = log.append(0, &payload)?;
        if upto == Upto::Durable {
            log.wait_durable(at.end)?;
        }
        thread::sleep(PACE);
    }
    log.close()?;
    let times = follower.join().expect("no panic")?;
    let mut sample = meters.sample(place, epoch, records);
    let seen = times.len();
    sample.latency = Some(times);
    if seen == records { Ok(sample) } else { Err(format!("{seen} records came").into()) }
}

fn times(mut follow: Follow, epoch: Instant) -> Result<Histogram<u64>, ringlog::Error> {
    let mut times = histogram();
    while let Some(record) = follow.next()? {
        let sent = u64::from_le_bytes(*record.payload.first_chunk().expect("a time"));
        times.saturating_record(epoch.elapsed().as_nanos() as u64 - sent);
    }
    Ok(times)
}
