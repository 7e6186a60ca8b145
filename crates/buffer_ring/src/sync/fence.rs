//! A full barrier between two threads of which one passes it at every record, and the other one hardly ever.
//!
//! Both set a mark, pass the barrier, and look at the other's mark: then at least one sees the other. A fence on each
//! side does that, and costs the frequent side as much as the rest of a small record. Where the kernel offers
//! `membarrier`, the frequent side needs none: the rare side has the kernel make every running thread of the process
//! pass one, wherever it is.

use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

use crate::sync::Ordering::SeqCst;
use crate::sync::fence;

/// How a writer and those that take back its lease come to see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// Both pass a fence: some nanoseconds for each record.
    Fence,
    /// The kernel makes the writer pass one when it is needed: some microseconds for each time that leases are taken
    /// back.
    Membarrier,
}

impl Barrier {
    /// The better one that works here, asked of the kernel once in a process.
    pub(crate) fn probe() -> Self {
        const UNKNOWN: u8 = 0;
        const FENCE: u8 = 1;
        const MEMBARRIER: u8 = 2;
        // Not a `OnceLock`: a fork while another thread initialises it would leave it locked in the child. Several
        // threads may ask.
        static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
        let mut found = FOUND.load(Relaxed);
        if found == UNKNOWN {
            found = if kernel::register() { MEMBARRIER } else { FENCE };
            FOUND.store(found, Relaxed);
        }
        if found == MEMBARRIER { Self::Membarrier } else { Self::Fence }
    }

    /// The frequent side.
    #[inline(always)]
    pub(crate) fn light(self) {
        // ordering: the barrier, light side. The compiler keeps the order; the processor is made to by the heavy side.
        core::sync::atomic::compiler_fence(SeqCst);
        if self == Self::Fence {
            slow_fence();
        }
    }

    /// The rare side. `false` if the kernel will not, though it did once: then this thread has passed a fence and the
    /// others none, and it must rely on nothing that it sees of them.
    #[must_use]
    pub(crate) fn heavy(self) -> bool {
        // ordering: the barrier, heavy side.
        fence(SeqCst);
        match self {
            Self::Fence => true,
            Self::Membarrier => kernel::make_all_pass(),
        }
    }
}

/// Out of the way of those that need none.
#[cold]
fn slow_fence() {
    // ordering: the barrier, light side, where the kernel does not help.
    fence(SeqCst);
}

#[cfg(not(any(loom, shuttle, miri)))]
mod kernel {
    use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

    pub(super) fn register() -> bool {
        let register = MembarrierCommand::RegisterPrivateExpedited;
        membarrier_query().contains_command(MembarrierCommand::PrivateExpedited)
            && membarrier(register).is_ok()
            && make_all_pass()
    }

    pub(super) fn make_all_pass() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

/// A checker knows fences only.
#[cfg(any(loom, shuttle, miri))]
mod kernel {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn make_all_pass() -> bool {
        false
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle, miri)))]
mod tests {
    use rustix::thread::{MembarrierCommand, membarrier_query};

    use super::*;

    #[test]
    fn the_kernel_passes_the_barrier_for_writers_where_it_can() {
        let offered = membarrier_query().contains_command(MembarrierCommand::PrivateExpedited);
        for _ in 0..2 {
            assert_eq!(Barrier::probe() == Barrier::Membarrier, offered);
        }
        assert!(Barrier::probe().heavy() && Barrier::Fence.heavy());
    }
}
