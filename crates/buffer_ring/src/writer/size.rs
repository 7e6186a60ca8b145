//! How much a session takes at once.
//!
//! A session that commits every record, or hardly ever appends, gains nothing by a lease, and what is taken back unused is lost to the
//! log. So a session begins with plain appends. A run of them makes it take a lease, and each lease that it fills a larger one. A
//! lease that comes back with more than a quarter unused makes the next one smaller, and the next run longer; and leases grow again when
//! several times what was lost has been filled. So in the long run a session loses a small part of what it appends, whatever it does.
//!
//! Towards the end of a buffer leases become smaller, too: those that others have there when it is sealed are lost as far as
//! they are not filled.

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

/// What a session has learned of its user.
#[derive(Debug)]
pub(crate) struct Appetite {
    /// How many of the sizes it may take; 0: none.
    level: usize,
    /// Plain appends since the last wait, or the last change of level.
    run: u32,
    /// How long that has to become before the level rises.
    needed: u32,
    /// Bytes of leases to be filled before the level rises.
    owed: usize,
}

impl Appetite {
    pub(crate) fn new() -> Self {
        Self { level: usize::from(RUN == 0), run: 0, needed: RUN, owed: 0 }
    }

    /// Bytes of a lease for records of `len` bytes, in a buffer that has `room` bytes left; `None`: an append of its own is better.
    pub(crate) fn lease(&self, len: usize, room: usize) -> Option<usize> {
        let size = (*SIZES[..self.level].last()?).min(room / SHARE).min(len * MANY_RECORDS);
        (size >= LEAST && size / RECORDS >= len).then_some(size)
    }

    /// An append went without a lease.
    pub(crate) fn appended(&mut self) {
        self.run += 1;
        if self.run >= self.needed {
            self.grow();
        }
    }

    /// A lease of `len` bytes came to its end because the next record did not fit.
    pub(crate) fn filled(&mut self, len: usize) {
        self.needed = RUN;
        self.owed = self.owed.saturating_sub(len);
        if self.owed == 0 {
            self.grow();
        }
    }

    /// A lease of `len` bytes was taken back with `unused` bytes left.
    pub(crate) fn taken_back(&mut self, len: usize, unused: usize) {
        self.run = 0;
        self.owed += TIMES_LOST * unused;
        if unused > len / 4 {
            self.level = self.level.saturating_sub(1);
            self.needed = (self.needed * 2).min(LONG_RUN);
        }
    }

    /// The user waited for what was appended.
    pub(crate) fn waited(&mut self) {
        self.run = 0;
    }

    fn grow(&mut self) {
        self.run = 0;
        self.level = (self.level + 1).min(SIZES.len());
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn after(appends: u32) -> Appetite {
        let mut appetite = Appetite::new();
        (0..appends).for_each(|_| appetite.appended());
        appetite
    }

    #[test]
    fn a_run_of_appends_makes_leases_and_filled_ones_make_them_larger() {
        assert_eq!(after(RUN - 1).lease(16, ROOM), None);
        let mut appetite = after(RUN);
        for size in [1 << 10, 4 << 10, 16 << 10, 64 << 10, 64 << 10] {
            assert_eq!(appetite.lease(64, ROOM), Some(size));
            appetite.filled(size);
        }
    }

    #[test]
    fn waits_keep_a_session_without_leases() {
        let mut appetite = Appetite::new();
        for _ in 0..1000 {
            (1..RUN).for_each(|_| appetite.appended());
            appetite.waited();
            assert_eq!(appetite.lease(16, ROOM), None);
        }
    }

    #[test]
    fn a_lease_that_comes_back_unused_makes_the_next_smaller_and_later() {
        let mut appetite = after(RUN);
        appetite.filled(1024);
        appetite.taken_back(4096, 1024);
        assert_eq!(appetite.lease(16, ROOM), Some(4096), "most of it was used");
        appetite.taken_back(4096, 1025);
        assert_eq!(appetite.lease(16, ROOM), Some(1024));
        appetite.taken_back(1024, 1000);
        (1..4 * RUN).for_each(|_| appetite.appended());
        assert_eq!(appetite.lease(16, ROOM), None);
        appetite.appended();
        assert_eq!(appetite.lease(16, ROOM), Some(1024));
    }

    #[test]
    fn leases_grow_again_when_what_was_lost_is_little_beside_what_was_filled() {
        let mut appetite = after(RUN);
        appetite.filled(1024);
        appetite.taken_back(4096, 4000);
        let filled = (1..).find(|_| {
            appetite.filled(1024);
            appetite.lease(16, ROOM) == Some(4096)
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
    fn leases_become_smaller_towards_the_end_of_a_buffer() {
        let appetite = after(100 * RUN);
        assert_eq!(appetite.lease(16, 65536), Some(16384));
        assert_eq!(appetite.lease(16, 8192), Some(2048));
        assert_eq!(appetite.lease(16, 1024), Some(256));
        assert_eq!(appetite.lease(16, 1023), None);
        assert_eq!(appetite.lease(16, 0), None);
    }
}
