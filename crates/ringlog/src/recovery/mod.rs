//! Finding the end of a log, and proving that nothing acknowledged lies behind it.
//!
//! From the first batch of the first kept segment, batches are accepted while each part of them is right: signature,
//! log, address, number, link, epoch, checksums. Acceptance stops at `a`. Then all remaining evidence is collected:
//! `W` is the highest address up to which `MANIFEST`, or a signed header in the segment of `a` or behind, promises
//! that bytes were durable.
//!
//! | | verdict |
//! |---|---|
//! | `W > a`, or the segment of `a` is missing | **damaged**: what was acknowledged is not as it was |
//! | otherwise, and a clean close left the log at `a` | **clean** |
//! | otherwise, and a batch of the newest epoch is at `a` or behind, or a part of one | **torn**: a write that was never acknowledged |
//! | otherwise | **unclosed**: a process ended without closing the log |
//!
//! [`verify`] reads only, and [`look`] does so beside a writer. [`Recover`] acts on the verdict: a torn tail is cut
//! by beginning a new epoch at `a`, without overwriting a byte; damage is refused, unless the caller has decided
//! otherwise. [`replay`] hands out the records.

mod batch;
mod chain;
mod judge;
mod look;
mod open;
mod reader;
mod replay;
mod report;
mod scan;

pub use batch::check_batch;
pub use judge::{Verify, verify};
pub use look::look;
pub use open::{OnDamage, Opened, Recover, TornTail};
pub use replay::{Item, Record, Replay, ReplayError, replay};
pub use report::{Content, Damage, Evidence, Proof, Report, Torn, Verdict};
