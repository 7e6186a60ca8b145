//! A reference writer: the rules of the format as a program that does nothing else, over a directory in memory that
//! can crash.
//!
//! It builds logs batch by batch: completions in any order, one sync at a time, rotation, segments that are used
//! again, trims, records longer than a buffer, empty batches, clean closes. It is a specification, not a log: it
//! keeps nothing that makes a writer fast.

mod builder;
mod writer;

pub use crate::random::Random;
pub use builder::{BatchBuilder, LongRecord, Payload};
pub use writer::{Flight, ReferenceWriter, Submitted};
