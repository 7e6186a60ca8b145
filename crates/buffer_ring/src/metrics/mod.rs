//! What a ring counts and measures. Nothing depends on it.

pub(crate) mod counters;
pub(crate) mod latency;
