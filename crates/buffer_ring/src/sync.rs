//! The one place of this crate that knows where atomics and locks come from.

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
