//! What the tests of several crates share. It knows none of these crates, so that each can use it.

mod child;
mod errors;
pub mod events;
mod random;

pub use child::Child;
pub use errors::{assert_no_repetition, chain};
pub use random::Random;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
