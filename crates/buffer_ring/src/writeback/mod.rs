//! Writeback: the way of sealed buffers to the device, and how far the log has come there.

pub(crate) mod device;
pub(crate) mod exclusive;
pub(crate) mod ledger;
pub(crate) mod watermarks;
