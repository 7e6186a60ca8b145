//! Block arithmetic.

/// Bytes of a block: the unit in which direct I/O addresses memory and files.
pub const BLOCK: usize = 4096;

/// Bytes of a buffer of one mebibyte, a good size for streaming.
pub const ONE_MEGABYTE_BLOCK: usize = 1 << 20;

/// The smallest multiple of [`BLOCK`] that is not below `bytes`.
///
/// # Panics
///
/// In debug builds, if that multiple is beyond `u64::MAX`.
#[must_use]
pub const fn round_up(bytes: u64) -> u64 {
    round_down(bytes + (BLOCK as u64 - 1))
}

/// The largest multiple of [`BLOCK`] that is not above `bytes`.
#[must_use]
pub const fn round_down(bytes: u64) -> u64 {
    bytes & !(BLOCK as u64 - 1)
}

/// Whether `bytes` is a multiple of [`BLOCK`].
#[must_use]
pub const fn is_aligned(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_exact_around_every_block_edge() {
        let block = BLOCK as u64;
        for edge in [0, block, 7 * block, 1 << 40] {
            assert_eq!((round_down(edge), round_up(edge)), (edge, edge));
            assert_eq!((round_down(edge + 1), round_up(edge + 1)), (edge, edge + block));
            assert_eq!((round_down(edge + block - 1), round_up(edge + block - 1)), (edge, edge + block));
            assert!(is_aligned(edge) && !is_aligned(edge + 1));
        }
    }
}
