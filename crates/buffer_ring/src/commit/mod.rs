//! Commit: threads and tasks that wait. Nothing here does I/O.

pub(crate) mod eventcount;
pub(crate) mod eventfd;
pub(crate) mod groups;
pub(crate) mod helpers;
pub(crate) mod waiters;
