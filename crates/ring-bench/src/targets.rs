//! What the ring has to reach, as ratios within one round, and whether it did.

use crate::log::Family;
use crate::placement::Placement;
use crate::results::{Entry, Metric, Results, RoundResult, Spread};

/// A target beside what was measured.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub number: &'static str,
    pub what: &'static str,
    pub wanted: String,
    /// The worst of all settings that the target speaks of.
    pub measured: Spread,
    /// The setting in which that was.
    pub setting: String,
    pub met: bool,
}

struct Target {
    number: &'static str,
    what: &'static str,
    /// Workload, sizes (none: any), threads.
    workload: &'static str,
    sizes: &'static [usize],
    threads: &'static [usize],
    /// At most, or at least.
    bound: Bound,
    value: fn(&RoundResult) -> Option<Spread>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const APPEND: &str = "buffer_ring append";
const WRITER: &str = "buffer_ring writer";
const GROWING: &str = "buffer_ring, growing file";
const DURABLE: &str = "buffer_ring append_durable";
const OVERWRITING: &str = "append_durable, zero-filled";
const GROWING_WRITER: &str = "buffer_ring writer, growing file";
const LOG_APPEND: &str = "ringlog append";
const LOG_WRITER: &str = "ringlog writer";
const LOG_COMMIT: &str = "ringlog commit";

const A2: Target = Target {
    number: "A2",
    what: "staging by a writer, 16–256 B, 4 threads: time of a private copy",
    workload: "staging",
    sizes: &[16, 64, 256],
    threads: &[4],
    bound: Bound::AtMost(1.5),
    value: |round| nanos(round, WRITER, "private copy"),
};

const A3: Target = Target {
    number: "A3",
    what: "staging by a writer, 4 KiB, 2–8 threads: time of a private copy",
    workload: "staging",
    sizes: &[4096],
    threads: &[2, 4, 8],
    bound: Bound::AtMost(1.6),
    value: |round| nanos(round, WRITER, "private copy"),
};

const B1: Target = Target {
    number: "B1",
    what: "streaming by `append`, 256 B, 1 and 4 threads: speed of the bare io_uring loop",
    workload: "streaming",
    sizes: &[],
    threads: &[1, 4],
    bound: Bound::AtLeast(0.85),
    value: |round| megabytes(round, APPEND, "bare io_uring loop"),
};

const B2: Target = Target {
    number: "B2",
    what: "streaming by `append`, 1 thread: CPU s/GB",
    threads: &[1],
    bound: Bound::AtMost(0.15),
    value: |round| cpu(round, APPEND),
    ..B1
};

const G2: Target = Target {
    number: "G2",
    what: "`ringlog`, `append`, 16 and 256 B, 1 thread: ns more than the ring's `append` to a file",
    workload: "log-append",
    sizes: &[16, 256],
    threads: &[1],
    bound: Bound::AtMost(2.0),
    value: |round| more(round, LOG_APPEND, GROWING, Metric::NanosPerRecord),
};

const G3: Target = Target {
    number: "G3",
    what: "`ringlog`, commits by 1, 16 and 64 threads: rate of the ring on a new file",
    workload: "log-commit",
    sizes: &[],
    threads: &[1, 16, 64],
    bound: Bound::AtLeast(0.97),
    value: |round| ratio(round, LOG_COMMIT, DURABLE, Metric::RecordsPerSecond),
};

const G4: Target = Target {
    number: "G4",
    what: "`ringlog`, streaming by `append`: speed of the ring on a growing file",
    workload: "log-streaming",
    sizes: &[],
    threads: &[1, 4],
    bound: Bound::AtLeast(0.95),
    value: |round| megabytes(round, LOG_APPEND, GROWING),
};

const G5: Target = Target {
    number: "G5",
    what: "`ringlog`, verifying a log: speed of direct reads",
    workload: "log-recovery",
    sizes: &[],
    threads: &[1],
    bound: Bound::AtLeast(0.9),
    value: |round| megabytes(round, "ringlog verify", "direct reads of 1 MiB"),
};

const G6: Target = Target {
    number: "G6",
    what: "a follower of `ringlog`, records of 256 B in memory: ns per record",
    workload: "log-follow",
    sizes: &[256],
    threads: &[1],
    bound: Bound::AtMost(60.0),
    value: |round| round.entry("ringlog follower, staged")?.spread(Metric::NanosPerRecord),
};

const TARGETS: &[Target] = &[
    Target {
        number: "A1",
        what: "staging, 16–256 B, 1 thread: time of two fetch_adds + copy",
        workload: "staging",
        sizes: &[16, 64, 256],
        threads: &[1],
        bound: Bound::AtMost(1.05),
        value: |round| nanos(round, APPEND, "two fetch_adds + copy"),
    },
    A2,
    Target {
        what: "the same, while the processors had a cache in common",
        value: |round| writer_at(Placement::Near, round),
        ..A2
    },
    Target {
        what: "the same, while the processors did not have a cache in common",
        value: |round| writer_at(Placement::Far, round),
        ..A2
    },
    Target {
        what: "a writer: speed of Aeron's many-to-one ring",
        bound: Bound::AtLeast(4.0),
        value: |round| nanos(round, "Aeron many-to-one", WRITER),
        ..A2
    },
    A3,
    Target {
        what: "the same, while the processors had a cache in common",
        value: |round| writer_at(Placement::Near, round),
        ..A3
    },
    Target {
        what: "the same, while the processors did not have a cache in common",
        value: |round| writer_at(Placement::Far, round),
        ..A3
    },
    Target {
        what: "staging by `append`, 4 KiB, 2–8 threads: time of a private copy",
        value: |round| nanos(round, APPEND, "private copy"),
        ..A3
    },
    B1,
    Target { what: "a writer: the same", value: |round| megabytes(round, WRITER, "bare io_uring loop"), ..B1 },
    Target {
        what: "`append`: speed of glommio's stream writer",
        bound: Bound::AtLeast(1.6),
        value: |round| megabytes(round, APPEND, "glommio stream writer"),
        ..B1
    },
    Target {
        what: "a writer: the same",
        bound: Bound::AtLeast(1.6),
        value: |round| megabytes(round, WRITER, "glommio stream writer"),
        ..B1
    },
    B2,
    Target { what: "a writer: the same", value: |round| cpu(round, WRITER), ..B2 },
    Target { what: "streaming by `append`, 4 threads: CPU s/GB", threads: &[4], bound: Bound::AtMost(0.30), ..B2 },
    Target {
        what: "a writer: the same",
        threads: &[4],
        bound: Bound::AtMost(0.30),
        value: |round| cpu(round, WRITER),
        ..B2
    },
    Target {
        number: "B3",
        what: "streaming: bytes to the device per byte of payload",
        workload: "space",
        sizes: &[256],
        threads: &[1],
        bound: Bound::AtMost(1.01),
        value: |round| round.entry(APPEND)?.spread(Metric::DevicePerPayload),
    },
    Target {
        number: "B3",
        what: "streaming: bytes of the file per byte of payload",
        workload: "space",
        sizes: &[256],
        threads: &[1],
        bound: Bound::AtMost(1.01),
        value: |round| round.entry(GROWING)?.spread(Metric::FilePerPayload),
    },
    Target {
        number: "C1",
        what: "durable, 1 thread, both over written blocks: rate of 4 KiB dsync overwrites",
        workload: "durable",
        sizes: &[],
        threads: &[1],
        bound: Bound::AtLeast(0.95),
        value: |round| ratio(round, OVERWRITING, "dsync overwrite loop", Metric::RecordsPerSecond),
    },
    Target {
        number: "C2",
        what: "durable, 4 and 16 threads: rate of the best rival",
        workload: "durable",
        sizes: &[],
        threads: &[4, 16],
        bound: Bound::AtLeast(1.6),
        value: beside_best_rival,
    },
    Target {
        number: "C3",
        what: "durable, 64 threads: rate of the best rival",
        workload: "durable",
        sizes: &[],
        threads: &[64],
        bound: Bound::AtLeast(2.1),
        value: beside_best_rival,
    },
    Target {
        number: "C4",
        what: "durable, 16 threads, both over written blocks: p99 of leader–follower by hand",
        workload: "durable",
        sizes: &[],
        threads: &[16],
        bound: Bound::AtMost(1.0),
        value: |round| ratio(round, OVERWRITING, "leader–follower by hand", Metric::P99),
    },
    Target {
        number: "C5",
        what: "durable, 16 threads, memory-backed device: rate of okaywal",
        workload: "memory-device",
        sizes: &[],
        threads: &[16],
        bound: Bound::AtLeast(4.0),
        value: |round| ratio(round, DURABLE, "okaywal", Metric::RecordsPerSecond),
    },
    G2,
    Target {
        what: "a writer, 16 B, 1 thread: ns",
        sizes: &[16],
        bound: Bound::AtMost(6.0),
        value: |round| round.entry(LOG_WRITER)?.spread(Metric::NanosPerRecord),
        ..G2
    },
    Target {
        what: "a writer, 256 B, 1 and 4 threads: time of the ring's writer to a file",
        sizes: &[256],
        threads: &[1, 4],
        bound: Bound::AtMost(1.15),
        value: |round| nanos(round, LOG_WRITER, GROWING_WRITER),
        ..G2
    },
    G3,
    Target {
        what: "the same: rate of the ring over written blocks",
        value: |round| ratio(round, LOG_COMMIT, OVERWRITING, Metric::RecordsPerSecond),
        ..G3
    },
    Target {
        what: "the same, p99.9 that rotating each MiB adds: in medians of a 4 KiB dsync overwrite",
        bound: Bound::AtMost(1.0),
        value: |round| {
            let small = "ringlog commit, small segments";
            let of = [(small, Metric::P999), (LOG_COMMIT, Metric::P999), ("dsync overwrite loop", Metric::P50)];
            at_each_moment(round, of, |[small, large, write]| (small - large) / write)
        },
        ..G3
    },
    G4,
    Target {
        what: "a writer: speed of the ring's writer on a growing file",
        value: |round| megabytes(round, LOG_WRITER, GROWING_WRITER),
        ..G4
    },
    Target {
        what: "by `append`: CPU s/GB more than the ring's",
        bound: Bound::AtMost(0.04),
        value: |round| more(round, LOG_APPEND, GROWING, Metric::CpuPerGigabyte),
        ..G4
    },
    Target {
        what: "a writer: CPU s/GB more than the ring's",
        bound: Bound::AtMost(0.04),
        value: |round| more(round, LOG_WRITER, GROWING_WRITER, Metric::CpuPerGigabyte),
        ..G4
    },
    G5,
    Target {
        what: "verifying a log from the page cache: MB/s",
        bound: Bound::AtLeast(4000.0),
        value: |round| round.entry("ringlog verify, from the page cache")?.spread(Metric::MegabytesPerSecond),
        ..G5
    },
    Target {
        what: "`ringlog`, a cold scan by one thread: speed of direct reads",
        value: |round| megabytes(round, "ringlog scan", "direct reads of 1 MiB"),
        ..G5
    },
    G6,
];

/// Rivals begin with a new file, and so does the ring beside them.
fn beside_best_rival(round: &RoundResult) -> Option<Spread> {
    let metric = Metric::RecordsPerSecond;
    let rival = round.best(metric, |entry: &Entry| entry.family == Family::Rival)?;
    ratio(round, DURABLE, &rival.name, metric)
}

fn writer_at(placement: Placement, round: &RoundResult) -> Option<Spread> {
    round.entry(WRITER)?.ratio_at(placement, round.entry("private copy")?, Metric::NanosPerRecord)
}

fn nanos(round: &RoundResult, one: &str, other: &str) -> Option<Spread> {
    ratio(round, one, other, Metric::NanosPerRecord)
}

fn megabytes(round: &RoundResult, one: &str, other: &str) -> Option<Spread> {
    ratio(round, one, other, Metric::MegabytesPerSecond)
}

fn cpu(round: &RoundResult, name: &str) -> Option<Spread> {
    round.entry(name)?.spread(Metric::CpuPerGigabyte)
}

fn ratio(round: &RoundResult, one: &str, other: &str, metric: Metric) -> Option<Spread> {
    round.entry(one)?.ratio(round.entry(other)?, metric)
}

/// How much more of something one takes than the other.
fn more(round: &RoundResult, one: &str, other: &str, metric: Metric) -> Option<Spread> {
    at_each_moment(round, [(one, metric), (other, metric)], |[one, other]| one - other)
}

/// What `value` makes of some contestants' values, repetition by repetition.
fn at_each_moment<const COUNT: usize>(
    round: &RoundResult,
    of: [(&str, Metric); COUNT],
    value: impl Fn([f64; COUNT]) -> f64,
) -> Option<Spread> {
    let entries = of.iter().map(|&(name, metric)| Some((round.entry(name)?, metric))).collect::<Option<Vec<_>>>()?;
    let moments = entries.iter().map(|(entry, _)| entry.samples.len()).min()?;
    let values_at = |moment: usize| {
        let values = entries.iter().map(|(entry, metric)| metric.read(&entry.samples[moment]));
        Some(value(values.collect::<Option<Vec<_>>>()?.try_into().ok()?))
    };
    Spread::of((0..moments).filter_map(values_at))
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// How bad a value is: larger is worse.
    fn badness(self, value: f64) -> f64 {
        match self {
            Self::AtMost(_) => value,
            Self::AtLeast(_) => -value,
        }
    }
}

/// All targets whose rounds were run.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().filter_map(|target| verdict(target, results)).collect()
}

fn verdict(target: &Target, results: &Results) -> Option<Verdict> {
    let rounds = results.rounds.iter().filter(|round| {
        round.workload == target.workload
            && (target.sizes.is_empty() || target.sizes.contains(&round.size))
            && target.threads.contains(&round.threads)
    });
    let measured = rounds.filter_map(|round| Some((round, (target.value)(round)?)));
    let badness = |spread: &Spread| target.bound.badness(spread.median);
    let (round, worst) = measured.max_by(|(_, one), (_, other)| badness(one).total_cmp(&badness(other)))?;
    let (sign, limit) = match target.bound {
        Bound::AtMost(limit) => ("≤", limit),
        Bound::AtLeast(limit) => ("≥", limit),
    };
    Some(Verdict {
        number: target.number,
        what: target.what,
        wanted: format!("{sign} {limit}"),
        measured: worst,
        setting: format!("{} B, {} thread{}", round.size, round.threads, if round.threads == 1 { "" } else { "s" }),
        met: target.bound.holds(worst.median),
    })
}
