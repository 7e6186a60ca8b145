//! Small logs on disk: how they are opened, filled and read back.

use core::convert::Infallible;
use std::path::Path;

use ringlog::{Log, Lsn, Options, Recovery};

/// Eight buffers of two blocks, and segments of sixteen.
pub(crate) const SEGMENT: u64 = 16 << 12;

pub(crate) fn small() -> Options {
    Log::options().ring(8, 2 << 12).segment_size(SEGMENT)
}

pub(crate) type Records = Vec<(Lsn, u8, Vec<u8>)>;

pub(crate) fn reopen(options: Options, path: &Path) -> (Log, Recovery, Records) {
    let mut records = Vec::new();
    let (log, recovery) = options
        .open_with(path, |record| {
            records.push((record.lsn, record.kind, record.payload.to_vec()));
            Ok::<_, Infallible>(())
        })
        .expect("a log");
    (log, recovery, records)
}

pub(crate) fn payload(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (n * 31 + at * 7) as u8).collect()
}
