//! Reading records back: one, a range, or all that come.
//!
//! ```text
//!   files ─▶ `BatchReader` ─▶ `Assembler` ─▶ records, in the order of the log
//!            verified batches   parts of long records, payloads of groups
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `batch` | batches of segment files, read ahead and verified |
//! | `records` | records from the bytes of batches |
//! | `forward` | both together, from batch to batch |
//! | `origin` | whose log it is: one that is open here, or one of another process |
//! | `pin` | what a trim leaves for a reader |
//! | `scan`, `rev` | the records of a range, forwards and backwards |
//! | `follow`, `following` | all records, and those that come: waiting for them, and finding them |
//! | `stream` | the same as a stream |
//! | `read_only` | a log of another process |

mod batch;
mod follow;
mod following;
mod forward;
#[cfg(test)]
mod fuzz;
mod origin;
mod pin;
mod read_only;
mod records;
mod rev;
mod scan;
#[cfg(feature = "async")]
mod stream;

pub(crate) use batch::AHEAD;
pub use follow::{Follow, Upto};
pub(crate) use forward::{Event, Files, Forward, Problem};
pub(crate) use origin::{File, Origin};
pub use read_only::Reader;
pub use rev::ScanRev;
pub use scan::Scan;
#[cfg(feature = "async")]
pub use stream::{OwnedRecord, RecordStream};
