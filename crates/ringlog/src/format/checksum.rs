//! The two checksums: a keyed one for batch headers, and CRC-64/NVME, seeded with the place of the bytes, for
//! everything else.

use core::fmt;
use core::hash::Hasher;

use crc_fast::{CrcAlgorithm, Digest};
use siphasher::sip::SipHasher24;

use super::BatchHeader;

/// The secret under which batch headers are signed: 128 random bits that stand in `MANIFEST` and nowhere else.
///
/// No payload can imitate a batch header, whatever its author has read in the segments, because the signature needs
/// the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderKey([u8; 16]);

impl HeaderKey {
    /// The key with these bits.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bits, to be stored in `MANIFEST`.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns SipHash-2-4 of `bytes` under this key.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish()
    }
}

impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderKey(..)")
    }
}

/// Returns CRC-64/NVME of `bytes`.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

const BLOCK_SUM: u32 = 0;
const TABLE_SUM: u32 = 1;

/// The checksums of one batch's blocks. Each begins with log id, salt, epoch, purpose and address, so that the same
/// bytes at another place, in another epoch or in another copy of the log have another checksum.
#[derive(Clone, Debug)]
pub struct BlockSums {
    block: Digest,
    table: Digest,
}

impl BlockSums {
    /// The checksums of the batch with this header.
    #[must_use]
    pub fn of(header: &BatchHeader) -> Self {
        Self::new(header.log_id, header.salt, header.epoch)
    }

    /// The checksums of all batches of one epoch.
    #[must_use]
    pub fn new(log_id: u64, salt: u64, epoch: u32) -> Self {
        let begun = |purpose: u32| {
            let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
            let mut seed = [0; 24];
            seed[..8].copy_from_slice(&log_id.to_le_bytes());
            seed[8..16].copy_from_slice(&salt.to_le_bytes());
            seed[16..20].copy_from_slice(&epoch.to_le_bytes());
            seed[20..].copy_from_slice(&purpose.to_le_bytes());
            digest.update(&seed);
            digest
        };
        Self { block: begun(BLOCK_SUM), table: begun(TABLE_SUM) }
    }

    /// Returns the checksum of the block at `address`.
    #[must_use]
    pub fn block(&self, address: u64, bytes: &[u8]) -> u64 {
        Self::sum(&self.block, address, bytes)
    }

    /// Returns the checksum of the checksums of the batch at `address`.
    #[must_use]
    pub fn table(&self, address: u64, table: &[u8]) -> u64 {
        Self::sum(&self.table, address, table)
    }

    fn sum(begun: &Digest, address: u64, bytes: &[u8]) -> u64 {
        let mut digest = *begun;
        digest.update(&address.to_le_bytes());
        digest.update(bytes);
        digest.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_their_published_test_vectors() {
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        let key = HeaderKey::new(core::array::from_fn(|n| n as u8));
        let message: [u8; 15] = core::array::from_fn(|n| n as u8);
        assert_eq!(key.sign(&message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_checksum_depends_on_each_part_of_its_place() {
        let bytes = [7; 64];
        let sums = [
            BlockSums::new(1, 2, 3).block(4096, &bytes),
            BlockSums::new(9, 2, 3).block(4096, &bytes),
            BlockSums::new(1, 9, 3).block(4096, &bytes),
            BlockSums::new(1, 2, 9).block(4096, &bytes),
            BlockSums::new(1, 2, 3).block(8192, &bytes),
            BlockSums::new(1, 2, 3).table(4096, &bytes),
        ];
        for (n, sum) in sums.iter().enumerate() {
            assert!(!sums[..n].contains(sum), "{n}");
        }
    }
}
