//! `ring-raft`: the logs of Raft groups in one [`ringlog`], as the log storage of [openraft].
//!
//! Replication is openraft's; this crate is what it writes to. Entries, votes, truncations, purges and committed
//! indexes of one or many groups are records of one log. So a node with a thousand groups does one group commit, and
//! each rule of order holds because a log is durable as a prefix: a vote does not overtake the entries before it, a
//! truncated entry does not come back, callbacks are made in order.
//!
//! | need | call |
//! |---|---|
//! | the log storage of a group, for `openraft::Raft::new` | [`RaftLogs::open`], [`RaftLogs::group`] |
//! | another format of the entries than [`Postcard`] | [`Codec`] |
//! | what a damaged log has lost, group by group | [`Recovery::lost`], [`RaftLogs::remove`] |
//! | to give up segments that all groups have purged | is done after purges; [`RaftLogs::trim`] |
//! | another consensus engine, or none | [`RaftLogs::group_log`], without default features |
//! | what a group has and does | [`RaftLogs::stats`]; `tracing` events with the fields `group` and `index` |
//!
//! [`a_replicated_service`] is a whole service, to be copied.
//!
//! [openraft]: https://docs.rs/openraft

#![forbid(unsafe_code)]

#[doc = include_str!("a_replicated_service.md")]
#[cfg_attr(feature = "openraft-0_9", doc = "```rust,no_run")]
#[cfg_attr(feature = "openraft-0_9", doc = include_str!("../examples/service.rs"))]
#[cfg_attr(feature = "openraft-0_9", doc = "```")]
pub mod a_replicated_service {}
mod apart;
mod codec;
mod error;
mod group;
mod index;
mod logs;
mod options;
#[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
mod raft_log;
mod record;
mod recovery;
#[cfg(feature = "openraft-0_10")]
mod v0_10;
#[cfg(feature = "openraft-0_9")]
mod v0_9;

pub use codec::{Codec, Postcard, TypeConfig, V0_9, V0_10};
pub use error::Error;
pub use group::{Batch, GroupLog};
pub use index::{EntryId, Lost};
pub use logs::{GroupStats, RaftLogs, Recovery};
pub use options::Options;
#[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
pub use raft_log::RaftLog;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
