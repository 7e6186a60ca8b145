//! How much a writer takes at once.
//!
//! A writer that commits every record, or hardly ever appends, gains nothing by a lease, and what is taken back unused
//! is lost to the log. So a writer begins with plain appends. A run of them makes it take a lease, and each lease that
//! it fills a larger one. A lease that comes back with more than a quarter unused makes the next one smaller, and the
//! next run longer; and leases grow again when several times what was lost has been filled. So in the long run a writer
//! loses a small part of what it appends, whatever it does.
//!
//! Towards the end of a buffer leases become smaller, too: those that others have there when it is sealed are lost as
//! far as they are not filled.

/// Sizes of leases, in bytes.
const SIZES: &[usize] = if cfg!(any(loom, shuttle)) { &[1024] } else { &[1 << 10, 4 << 10, 16 << 10, 64 << 10] };

/// The shortest run of plain appends before a lease. Checkers begin with one.
const RUN: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 8 };

/// The longest.
const LONG_RUN: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 1024 };

/// A lease is at most one part in so many of what the buffer has left.
const SHARE: usize = if cfg!(any(loom, shuttle)) { 1 } else { 4 };

/// What was lost has to be filled so many times before leases grow again.
const TIMES_LOST: usize = 8;

/// The smallest lease.
const LEAST: usize = 256;

/// A lease is for at least so many records like the one that it is taken for.
const RECORDS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 4 };

/// With so many its price is nothing beside theirs: no need to take more.
const MANY_RECORDS: usize = 1024;

/// What a writer has learned of its user.
#[derive(Debug)]
pub(crate) struct LeaseSizer {
    /// How many of the sizes it may take; 0: none.
    level: usize,
    /// Plain appends since the last wait, or the last change of level.
    run: u32,
    /// How long that has to become before the level rises.
    needed: u32,
    /// Bytes of leases to be filled before the level rises.
    waste_debt: usize,
}

impl LeaseSizer {
    pub(crate) fn new() -> Self {
        Self { level: usize::from(RUN == 0), run: 0, needed: RUN, waste_debt: 0 }
    }

    /// Bytes of a lease for records of `len` bytes, in a buffer that has `room` bytes left; `None`: an append of its
    /// own is better.
    pub(crate) fn lease(&self, len: usize, room: usize) -> Option<usize> {
        // What is aligned to 8 bytes before a lease is so behind it.
        let size = (*SIZES[..self.level].last()?).min(room / SHARE).min(len * MANY_RECORDS) & !7;
        (size >= LEAST && size / RECORDS >= len).then_some(size)
    }

    /// An append went without a lease.
    pub(crate) fn record_append(&mut self) {
        self.run += 1;
        if self.run >= self.needed {
            self.grow();
        }
    }

    /// A lease of `len` bytes came to its end because the next record did not fit.
    pub(crate) fn record_filled(&mut self, len: usize) {
        self.needed = RUN;
        self.waste_debt = self.waste_debt.saturating_sub(len);
        if self.waste_debt == 0 {
            self.grow();
        }
    }

    /// A lease of `len` bytes was taken back with `unused` bytes left.
    pub(crate) fn record_revoked(&mut self, len: usize, unused: usize) {
        self.run = 0;
        self.waste_debt += TIMES_LOST * unused;
        if unused > len / 4 {
            self.level = self.level.saturating_sub(1);
            self.needed = (self.needed * 2).min(LONG_RUN);
        }
    }

    /// The user waited for what was appended.
    pub(crate) fn record_wait(&mut self) {
        self.run = 0;
    }

    fn grow(&mut self) {
        self.run = 0;
        self.level = (self.level + 1).min(SIZES.len());
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn after(appends: u32) -> LeaseSizer {
        let mut sizer = LeaseSizer::new();
        (0..appends).for_each(|_| sizer.record_append());
        sizer
    }

    #[test]
    fn a_run_of_appends_makes_leases_and_filled_ones_make_them_larger() {
        assert_eq!(after(RUN - 1).lease(16, ROOM), None);
        let mut sizer = after(RUN);
        for size in [1 << 10, 4 << 10, 16 << 10, 64 << 10, 64 << 10] {
            assert_eq!(sizer.lease(64, ROOM), Some(size));
            sizer.record_filled(size);
        }
    }

    #[test]
    fn waits_keep_a_writer_without_leases() {
        let mut sizer = LeaseSizer::new();
        for _ in 0..1000 {
            (1..RUN).for_each(|_| sizer.record_append());
            sizer.record_wait();
            assert_eq!(sizer.lease(16, ROOM), None);
        }
    }

    #[test]
    fn a_lease_that_comes_back_unused_makes_the_next_smaller_and_later() {
        let mut sizer = after(RUN);
        sizer.record_filled(1024);
        sizer.record_revoked(4096, 1024);
        assert_eq!(sizer.lease(16, ROOM), Some(4096), "most of it was used");
        sizer.record_revoked(4096, 1025);
        assert_eq!(sizer.lease(16, ROOM), Some(1024));
        sizer.record_revoked(1024, 1000);
        (1..4 * RUN).for_each(|_| sizer.record_append());
        assert_eq!(sizer.lease(16, ROOM), None);
        sizer.record_append();
        assert_eq!(sizer.lease(16, ROOM), Some(1024));
    }

    #[test]
    fn leases_grow_again_when_what_was_lost_is_little_beside_what_was_filled() {
        let mut sizer = after(RUN);
        sizer.record_filled(1024);
        sizer.record_revoked(4096, 4000);
        let filled = (1..).find(|_| {
            sizer.record_filled(1024);
            sizer.lease(16, ROOM) == Some(4096)
        });
        assert_eq!(filled, Some((8 * 4000_u32).div_ceil(1024)));
    }

    #[test]
    fn long_records_wait_for_large_leases_and_longer_ones_go_alone() {
        assert_eq!(after(RUN).lease(257, ROOM), None);
        assert_eq!(after(2 * RUN).lease(257, ROOM), Some(4096));
        assert_eq!(after(100 * RUN).lease(16384, ROOM), Some(65536));
        assert_eq!(after(100 * RUN).lease(16385, ROOM), None);
    }

    #[test]
    fn short_records_need_no_large_leases() {
        assert_eq!(after(100 * RUN).lease(16, ROOM), Some(16384));
        assert_eq!(after(100 * RUN).lease(1, ROOM), Some(1024));
    }

    #[test]
    fn a_lease_keeps_what_follows_it_aligned() {
        let sizer = after(RUN);
        let sizes = (1032..5000).step_by(8).map(|room| sizer.lease(16, room).expect("it is worth it"));
        assert!(sizes.into_iter().all(|size| size.is_multiple_of(8)));
    }

    #[test]
    fn leases_become_smaller_towards_the_end_of_a_buffer() {
        let sizer = after(100 * RUN);
        assert_eq!(sizer.lease(16, 65536), Some(16384));
        assert_eq!(sizer.lease(16, 8192), Some(2048));
        assert_eq!(sizer.lease(16, 1024), Some(256));
        assert_eq!(sizer.lease(16, 1023), None);
        assert_eq!(sizer.lease(16, 0), None);
    }
}
