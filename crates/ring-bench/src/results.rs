//! What a run leaves behind: numbers, and the machine that they are about. This is the JSON file.

use serde::{Deserialize, Serialize};

use crate::log::Family;
use crate::machine::Machine;
use crate::measure::Sample;
use crate::placement::{Hops, Placement};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub quick: bool,
    pub rounds: Vec<RoundResult>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundResult {
    pub workload: String,
    pub size: usize,
    pub threads: usize,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub family: Family,
    /// One of them per repetition; the same index in all entries of a round is the same moment.
    pub samples: Vec<Numbers>,
    /// Why it is out, if it is.
    pub disqualified: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Numbers {
    pub records: u64,
    pub payload_bytes: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Of the whole device: others' writes count, too.
    pub device_bytes: u64,
    /// Of this process.
    pub process_bytes: u64,
    /// That this process read, from a device or from the page cache.
    #[serde(default)]
    pub read_bytes: u64,
    pub file_bytes: Option<u64>,
    /// Nanoseconds at [`PERCENTILES`].
    pub latency: Option<Vec<u64>>,
    /// How far apart the processors were; `None` if there is only one.
    #[serde(default)]
    pub hops: Option<Hops>,
}

pub const PERCENTILES: [f64; 7] = [10.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

impl From<&Sample> for Numbers {
    fn from(sample: &Sample) -> Self {
        let latency = sample.latency.as_ref();
        Self {
            records: sample.records,
            payload_bytes: sample.payload,
            seconds: sample.wall.as_secs_f64(),
            cpu_seconds: sample.cpu.as_secs_f64(),
            device_bytes: sample.device,
            process_bytes: sample.process,
            read_bytes: sample.read,
            file_bytes: sample.file,
            latency: latency.map(|all| PERCENTILES.iter().map(|&at| all.value_at_percentile(at)).collect()),
            hops: None,
        }
    }
}

/// What can be read off a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Wall time, not CPU time: two threads side by side halve it.
    NanosPerRecord,
    MegabytesPerSecond,
    RecordsPerSecond,
    /// Microseconds at this index of [`PERCENTILES`].
    Percentile(usize),
    CpuPerGigabyte,
    DevicePerPayload,
    DevicePerRecord,
    FilePerPayload,
    ReadPerPayload,
}

impl Metric {
    pub const P50: Self = Self::Percentile(1);
    pub const P99: Self = Self::Percentile(4);
    pub const P999: Self = Self::Percentile(5);

    /// What decides a workload.
    pub fn of(workload: &str) -> Self {
        match workload {
            "staging" | "log-append" | "log-follow" => Self::NanosPerRecord,
            "streaming" | "log-streaming" | "log-recovery" => Self::MegabytesPerSecond,
            "latency" => Self::P999,
            "log-tail" => Self::P50,
            "space" => Self::DevicePerPayload,
            _ => Self::RecordsPerSecond,
        }
    }

    pub fn title(self) -> String {
        match self {
            Self::NanosPerRecord => "ns/record".into(),
            Self::MegabytesPerSecond => "MB/s".into(),
            Self::RecordsPerSecond => "records/s".into(),
            Self::Percentile(index) => format!("p{} µs", PERCENTILES[index]),
            Self::CpuPerGigabyte => "CPU s/GB".into(),
            Self::DevicePerPayload => "device bytes/payload byte".into(),
            Self::DevicePerRecord => "device bytes/record".into(),
            Self::FilePerPayload => "file bytes/payload byte".into(),
            Self::ReadPerPayload => "bytes read/payload byte".into(),
        }
    }

    pub fn more_is_better(self) -> bool {
        matches!(self, Self::MegabytesPerSecond | Self::RecordsPerSecond)
    }

    pub fn read(self, numbers: &Numbers) -> Option<f64> {
        let payload = numbers.payload_bytes as f64;
        let value = match self {
            Self::NanosPerRecord => numbers.seconds * 1e9 / numbers.records as f64,
            Self::MegabytesPerSecond => payload / 1e6 / numbers.seconds,
            Self::RecordsPerSecond => numbers.records as f64 / numbers.seconds,
            Self::Percentile(index) => *numbers.latency.as_ref()?.get(index)? as f64 / 1e3,
            Self::CpuPerGigabyte => numbers.cpu_seconds / (payload / 1e9),
            Self::DevicePerPayload => numbers.device_bytes as f64 / payload,
            Self::DevicePerRecord => numbers.device_bytes as f64 / numbers.records as f64,
            Self::FilePerPayload => numbers.file_bytes? as f64 / payload,
            Self::ReadPerPayload => numbers.read_bytes as f64 / payload,
        };
        value.is_finite().then_some(value)
    }
}

/// Several values of the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&low, &high) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { low, median, high })
    }
}

impl Results {
    /// The rounds of a workload.
    pub fn of(&self, workload: &str) -> Vec<&RoundResult> {
        self.rounds.iter().filter(|round| round.workload == workload).collect()
    }
}

impl Entry {
    pub fn spread(&self, metric: Metric) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|numbers| metric.read(numbers)))
    }

    /// How this one does beside `other`, repetition by repetition: the values of the same moment are divided.
    pub fn ratio(&self, other: &Self, metric: Metric) -> Option<Spread> {
        self.ratio_where(other, metric, |_| true)
    }

    /// The same, of those repetitions in which this one met the processors at `placement`.
    pub fn ratio_at(&self, placement: Placement, other: &Self, metric: Metric) -> Option<Spread> {
        self.ratio_where(other, metric, |ours| ours.hops.and_then(Hops::placement) == Some(placement))
    }

    fn ratio_where(&self, other: &Self, metric: Metric, counts: impl Fn(&Numbers) -> bool) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples).filter(|(ours, _)| counts(ours));
        Spread::of(pairs.filter_map(|(ours, theirs)| Some(metric.read(ours)? / metric.read(theirs)?)))
    }

    pub fn is_in(&self) -> bool {
        self.disqualified.is_none()
    }
}

impl RoundResult {
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name && entry.is_in())
    }

    /// The best of those that `eligible` names.
    pub fn best(&self, metric: Metric, eligible: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let candidates = self.entries.iter().filter(|entry| entry.is_in() && eligible(entry));
        let values = candidates.filter_map(|entry| Some((entry, entry.spread(metric)?.median)));
        let sign = if metric.more_is_better() { 1.0 } else { -1.0 };
        values.max_by(|(_, one), (_, other)| (sign * one).total_cmp(&(sign * other))).map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 8.0]), Some(Spread { low: 1.0, median: 3.0, high: 8.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
