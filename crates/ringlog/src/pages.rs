//! Memory that files are read into.

use core::ops::{Deref, DerefMut};

const PAGE: usize = 4096;

/// Bytes of which the first one begins a page, as what is read from a file does there. Large allocations begin 16 bytes
/// behind one: then each load of the kernel's copy seems to depend on a store just before it, whose address ends in the
/// same 12 bits, and reading from the page cache was seen to be seven times slower.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    /// Has `len` bytes; those that were there stay, as far as they have room.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.start + len > self.bytes.len() {
            let bytes = vec![0; len + PAGE];
            let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
            let old = core::mem::replace(self, Self { bytes, start, len });
            self[..old.len].copy_from_slice(&old);
        }
        self.len = len;
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_a_page_and_stay_when_there_are_more() {
        let mut pages = Pages::default();
        assert!(pages.is_empty());
        for len in [10, 5000, 4096, 1 << 20, 7, (1 << 20) + 1] {
            let before = pages.to_vec();
            pages.resize(len);
            let kept = before.len().min(len);
            assert_eq!((pages.len(), pages.as_ptr().align_offset(PAGE), &pages[..kept]), (len, 0, &before[..kept]));
            pages.fill(len as u8);
        }
    }
}
