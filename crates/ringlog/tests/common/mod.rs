//! What the tests share: a log whose truth is known, damage, and the oracle.

// Each test program uses its own part.
#![allow(dead_code, unused_imports)]

pub(crate) mod crash;
pub(crate) mod damage;
pub(crate) mod open;
pub(crate) mod oracle;
pub(crate) mod world;
