//! The questions, and the contestants of each. A round is one setting in which all contestants meet; ratios are taken
//! within a round only.

use std::time::Duration;

#[cfg(feature = "rivals")]
use crate::contestants::rivals;
#[cfg(feature = "rocksdb")]
use crate::contestants::rocksdb;
use crate::contestants::{baselines, followers, limits, ours, ringlog};
use crate::log::Contestant;
use crate::measure::Amount;

/// A workload: its name, and the question that it answers.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub question: &'static str,
    rounds: fn(Scale) -> Vec<Round>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Enough to see that it runs, and roughly how.
    Quick,
    /// Enough to quote.
    Full,
}

/// What a round is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// A run of its own with so many records, whose log keeps all of them.
    Beforehand(u64),
    /// The first measurement itself.
    First,
    /// Each of them.
    Always,
    /// The contestants check by themselves what they find.
    Never,
}

/// One setting.
#[derive(Clone)]
pub struct Round {
    pub size: usize,
    pub threads: usize,
    pub amount: Amount,
    pub timed: bool,
    /// Bytes of memory that a log in memory has.
    pub memory: usize,
    /// Bytes of payload or of file that are going to be needed.
    pub expected: u64,
    pub check: Check,
    pub repetitions: usize,
    pub contestants: Vec<Contestant>,
}

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "staging",
        question: "What does a record cost until it lies in the log's memory?",
        rounds: staging,
    },
    Workload {
        name: "streaming",
        question: "How fast do records reach the file, and what does the CPU pay?",
        rounds: streaming,
    },
    Workload {
        name: "durable",
        question: "How many records per second are each waited for until they are on stable storage?",
        rounds: durable,
    },
    Workload {
        name: "memory-device",
        question: "The same where a sync takes microseconds: a disk in memory (zram).",
        rounds: memory_device,
    },
    Workload {
        name: "latency",
        question: "How long does one append take while the device is kept busy?",
        rounds: latency,
    },
    Workload {
        name: "log-append",
        question: "What does a record cost in `ringlog`, beside the bare ring, while the device takes what is staged?",
        rounds: log_append,
    },
    Workload { name: "log-streaming", question: "How fast do records reach segments?", rounds: log_streaming },
    Workload {
        name: "log-commit",
        question: "How many records per second does `ringlog` commit, beside the bare ring, also while it rotates?",
        rounds: log_commit,
    },
    Workload { name: "log-recovery", question: "How fast is a log verified and replayed?", rounds: log_recovery },
    Workload {
        name: "log-follow",
        question: "What does a follower of `ringlog` pay for a record that is in memory?",
        rounds: log_follow,
    },
    Workload {
        name: "log-tail",
        question: "How long after its append does a follower of `ringlog` have a record?",
        rounds: log_tail,
    },
    Workload { name: "space", question: "How many bytes does the device get for a byte of payload?", rounds: space },
];

impl Workload {
    pub fn rounds(&self, scale: Scale) -> Vec<Round> {
        (self.rounds)(scale)
    }

    /// Whether it needs the memory-backed device.
    pub fn is_on_memory_device(&self) -> bool {
        self.name == "memory-device"
    }
}

impl Scale {
    fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

fn staging(scale: Scale) -> Vec<Round> {
    let mut contestants =
        vec![limits::COPY, limits::COPY_TO_SHARE, limits::CHUNKS, limits::ADDITIONS, baselines::MUTEX];
    #[cfg(feature = "rivals")]
    contestants.push(rivals::AERON);
    contestants.extend(ours::STAGING);
    let round = |size, threads| Round {
        size,
        threads,
        amount: Amount::For(Duration::from_millis(scale.pick(20, 60))),
        timed: false,
        memory: 4 << 20,
        expected: 8 << 20,
        check: Check::Beforehand(20_000.min((8 << 20) / size as u64)),
        repetitions: scale.pick(3, 15),
        contestants: contestants.clone(),
    };
    let sizes: &[usize] = scale.pick(&[16, 256, 4096], &[16, 64, 256, 4096]);
    let threads: &[usize] = scale.pick(&[1, 4], &[1, 2, 4, 8]);
    sizes
        .iter()
        .flat_map(|&size| threads.iter().map(move |&threads| (size, threads)))
        .map(|(s, t)| round(s, t))
        .collect()
}

fn streaming(scale: Scale) -> Vec<Round> {
    let mut contestants = vec![limits::LOOP, limits::COPY_LOOP, baselines::BUF_WRITER];
    #[cfg(feature = "rivals")]
    contestants.push(rivals::GLOMMIO);
    contestants.extend(ours::STREAMING);
    let expected = scale.pick(256 << 20, 1 << 30);
    let round = |threads| Round {
        size: 256,
        threads,
        amount: Amount::Records(expected / 256),
        timed: false,
        memory: 0,
        expected,
        check: Check::First,
        repetitions: scale.pick(3, 5),
        contestants: at(threads, &contestants),
    };
    scale.pick(&[1, 4][..], &[1, 2, 4]).iter().map(|&threads| round(threads)).collect()
}

fn durable(scale: Scale) -> Vec<Round> {
    let mut contestants = vec![limits::OVERWRITE];
    if limits::has_fio() {
        contestants.push(limits::FIO);
    }
    contestants.extend(committers());
    let time = Duration::from_millis(scale.pick(250, 800));
    let threads: &[usize] = scale.pick(&[1, 16], &[1, 4, 16, 64]);
    let round = |&threads: &usize| Round {
        amount: Amount::For(time),
        repetitions: scale.pick(3, 5),
        contestants: at(threads, &contestants),
        ..commits(threads)
    };
    threads.iter().map(round).collect()
}

fn memory_device(scale: Scale) -> Vec<Round> {
    let mut contestants = vec![limits::OVERWRITE];
    contestants.extend(committers());
    let time = Duration::from_millis(scale.pick(200, 500));
    let threads: &[usize] = scale.pick(&[16], &[1, 16]);
    let round = |&threads: &usize| Round {
        amount: Amount::For(time),
        repetitions: scale.pick(3, 5),
        contestants: at(threads, &contestants),
        ..commits(threads)
    };
    threads.iter().map(round).collect()
}

fn latency(scale: Scale) -> Vec<Round> {
    let mut contestants = vec![baselines::BUF_WRITER];
    contestants.extend(ours::STREAMING);
    let expected = scale.pick(128 << 20, 512 << 20);
    let round = |threads| Round {
        size: 256,
        threads,
        amount: Amount::Records(expected / 256),
        timed: true,
        memory: 0,
        expected,
        check: Check::First,
        repetitions: scale.pick(3, 5),
        contestants: contestants.clone(),
    };
    vec![round(2)]
}

fn log_append(scale: Scale) -> Vec<Round> {
    let contestants = [&[limits::COPY][..], &ours::STAGING, &ours::GROWING, &ringlog::STAGING].concat();
    let settings = [(16, 1), (16, 4), (256, 1), (256, 4)];
    let round = |(size, threads)| Round {
        size,
        threads,
        amount: Amount::For(Duration::from_millis(scale.pick(60, 200))),
        timed: false,
        memory: 8 << 20,
        expected: 8 << 20,
        check: Check::Beforehand(20_000),
        repetitions: scale.pick(3, 9),
        contestants: contestants.clone(),
    };
    settings.map(round).into()
}

fn log_streaming(scale: Scale) -> Vec<Round> {
    let contestants = [&[limits::LOOP, limits::COPY_LOOP][..], &ours::GROWING, &ringlog::STREAMING].concat();
    let expected = scale.pick(256 << 20, 1 << 30);
    let settings = [(256, 1), (256, 4), (4096, 1), (4096, 4)];
    let round = |(size, threads)| Round {
        size,
        threads,
        amount: Amount::Records(expected / size as u64),
        timed: false,
        memory: 0,
        expected,
        check: Check::First,
        repetitions: scale.pick(3, 5),
        contestants: contestants.clone(),
    };
    settings.map(round).into()
}

fn log_commit(scale: Scale) -> Vec<Round> {
    let by_hand = [limits::OVERWRITE, baselines::GROUP_COMMIT];
    let contestants = [&by_hand[..], &ours::DURABLE[..1], &ours::DURABLE[3..], &ringlog::DURABLE].concat();
    let round = |threads| Round {
        amount: Amount::For(Duration::from_millis(scale.pick(250, 800))),
        repetitions: scale.pick(3, 5),
        contestants: contestants.clone(),
        ..commits(threads)
    };
    [1, 4, 16, 64].map(round).into()
}

fn log_recovery(scale: Scale) -> Vec<Round> {
    let expected = scale.pick(256 << 20, 1 << 30);
    [256, 4096].map(|size| programs(size, expected, scale.pick(3, 5), &ringlog::RECOVERY)).into()
}

/// Programs that are given so many bytes of payload, and check what they find by themselves.
fn programs(size: usize, expected: u64, repetitions: usize, contestants: &[Contestant]) -> Round {
    Round {
        size,
        threads: 1,
        amount: Amount::Records(expected / size as u64),
        timed: false,
        memory: 0,
        expected,
        check: Check::Never,
        repetitions,
        contestants: contestants.to_vec(),
    }
}

fn log_follow(scale: Scale) -> Vec<Round> {
    [256, 4096].map(|size| programs(size, 32 << 20, scale.pick(3, 9), &followers::MEMORY)).into()
}

fn log_tail(scale: Scale) -> Vec<Round> {
    vec![programs(256, scale.pick(300, 2000) * 256, scale.pick(3, 5), &followers::LATENCY)]
}

fn space(scale: Scale) -> Vec<Round> {
    let mut streamers = vec![limits::LOOP, baselines::BUF_WRITER];
    #[cfg(feature = "rivals")]
    streamers.extend([rivals::GLOMMIO, rivals::RAFT_ENGINE_STREAMING]);
    streamers.extend(ours::STREAMING);
    let expected = 64 << 20;
    let repetitions = scale.pick(1, 3);
    let stream = Round {
        size: 256,
        threads: 1,
        amount: Amount::Records(expected / 256),
        timed: false,
        memory: 0,
        expected,
        check: Check::First,
        repetitions,
        contestants: streamers,
    };
    let commits = |threads: usize, records| Round {
        amount: Amount::Records(records),
        repetitions,
        contestants: committers(),
        ..commits(threads)
    };
    vec![stream, commits(1, scale.pick(500, 2000)), commits(16, scale.pick(2000, 16_000))]
}

/// Records of 100 bytes, each waited for.
fn commits(threads: usize) -> Round {
    Round {
        size: 100,
        threads,
        amount: Amount::Records(0),
        timed: true,
        memory: 0,
        expected: 128 << 20,
        check: Check::Always,
        repetitions: 1,
        contestants: Vec::new(),
    }
}

fn committers() -> Vec<Contestant> {
    let mut contestants = vec![baselines::GROUP_COMMIT];
    #[cfg(feature = "rivals")]
    contestants.extend([rivals::RAFT_ENGINE, rivals::OKAYWAL]);
    #[cfg(feature = "rocksdb")]
    contestants.push(rocksdb::ROCKSDB);
    contestants.extend(ours::DURABLE);
    contestants
}

/// Programs measure the same whatever the threads; they stay in each round, so that ratios can be taken there.
fn at(threads: usize, contestants: &[Contestant]) -> Vec<Contestant> {
    contestants
        .iter()
        .filter(|contestant| contestant.is_program() || threads <= contestant.max_threads)
        .copied()
        .collect()
}
