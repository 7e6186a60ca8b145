//! Staging: the log in memory. Nothing here waits, and nothing here does I/O.

pub(crate) mod deferred_flush;
pub(crate) mod lease;
pub(crate) mod lease_registry;
pub(crate) mod reader_latch;
pub(crate) mod rotation;
pub(crate) mod slot;
