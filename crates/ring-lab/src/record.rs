//! What the workloads append, and how it is found again in an untrusted file.
//!
//! ```text
//! ┌───────┬─────┬─────────────┬────────┬──────────┬─────┬─────────────┐
//! │ magic │ len │ incarnation │ writer │ sequence │ crc │ payload ... │   six little-endian words, then noise
//! └───────┴─────┴─────────────┴────────┴──────────┴─────┴─────────────┘
//! ```
//!
//! The payload follows from the rest, so a found record can be compared byte for byte without having been kept.

use core::fmt;

use serde::{Deserialize, Serialize};

use ring_testing::Random;

pub(crate) const BLOCK: usize = 4096;
/// Bytes before the payload.
pub(crate) const HEADER: usize = 24;
/// No byte of it is zero: the first byte distinguishes a record from padding.
const MAGIC: u32 = 0xB1A4_C3D7;
/// No ring of a workload has larger buffers.
const MAX_LEN: usize = 1 << 20;

/// Which record it is. No two appends have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RecordId {
    /// How often the log had been opened before, plus 1.
    pub(crate) incarnation: u32,
    pub(crate) writer: u32,
    pub(crate) sequence: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of writer {} in incarnation {}", self.sequence, self.writer, self.incarnation)
    }
}

/// The record as bytes, `len` of them.
pub(crate) fn encode(id: RecordId, len: usize) -> Vec<u8> {
    assert!((HEADER..=MAX_LEN).contains(&len), "no record has {len} bytes");
    let mut bytes = Vec::with_capacity(len + 8);
    for word in [MAGIC, len as u32, id.incarnation, id.writer, id.sequence, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let mut random = Random::new(u64::from(id.incarnation) << 56 ^ u64::from(id.writer) << 40 ^ u64::from(id.sequence));
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    let crc = crc(&bytes);
    bytes[20..HEADER].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The record that `bytes` begin with, and its length.
pub(crate) fn decode(bytes: &[u8]) -> Option<(RecordId, usize)> {
    let header = bytes.get(..HEADER)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let len = word(4) as usize;
    if word(0) != MAGIC || !(HEADER..=MAX_LEN).contains(&len) {
        return None;
    }
    let id = RecordId { incarnation: word(8), writer: word(12), sequence: word(16) };
    (crc(bytes.get(..len)?) == word(20)).then_some((id, len))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..20]);
    hasher.update(&bytes[HEADER..]);
    hasher.finalize()
}

/// Finds the records of `image` from `from` on, as a program that reopens its log would: one after the other,
/// skipping padding; behind anything else it goes on at the next block.
pub(crate) fn scan<E>(
    image: &[u8],
    from: usize,
    mut found: impl FnMut(usize, RecordId, usize) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = from;
    while at < image.len() {
        if let Some((id, len)) = decode(&image[at..]) {
            found(at, id, len)?;
            at += len;
            continue;
        }
        let end = image.len().min((at + 1).next_multiple_of(BLOCK));
        let zeros = zeros(&image[at..end]);
        at = if zeros == 0 { end } else { at + zeros };
    }
    Ok(())
}

/// Whether `bytes`, which lie at `address`, are nothing but preallocated space, as `ring-io` writes it ahead of the
/// log; the kernel may have cut it at any sector.
pub(crate) fn is_preallocated(mut bytes: &[u8], mut address: u64) -> bool {
    const MARKER: usize = 40;
    while !bytes.is_empty() {
        let inside = address as usize % BLOCK;
        let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK - inside));
        let zeros_from = if inside == 0 {
            let marked =
                piece.starts_with(b"ring-io free\0\0\0\0") && piece.get(32..MARKER) == Some(&address.to_le_bytes());
            if !marked {
                return false;
            }
            MARKER
        } else {
            0
        };
        if zeros(&piece[zeros_from..]) < piece.len() - zeros_from {
            return false;
        }
        address += piece.len() as u64;
        bytes = rest;
    }
    true
}

/// The key of a file's markers.
pub(crate) type Key = [u8; 16];

/// A block of preallocated space, as `ring-io` writes it.
pub(crate) fn marker(key: Key, address: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..16].copy_from_slice(b"ring-io free\0\0\0\0");
    block[16..32].copy_from_slice(&key);
    block[32..40].copy_from_slice(&address.to_le_bytes());
    block
}

/// Whether this block of a file is preallocated space for a reader that knows the key.
pub(crate) fn is_marker(block: &[u8], address: usize, key: Key) -> bool {
    block.len() == BLOCK && block[16..32] == key && is_preallocated(block, address as u64)
}

/// Where the log ends in a file with these bytes and this key.
pub(crate) fn log_end(image: &[u8], key: Option<Key>) -> usize {
    let mut end = image.len().next_multiple_of(BLOCK);
    while let Some(key) = key
        && end > 0
        && let Some(block) = image.get(end - BLOCK..end)
        && is_marker(block, end - BLOCK, key)
    {
        end -= BLOCK;
    }
    end
}

/// How many zeros `bytes` begin with.
pub(crate) fn zeros(bytes: &[u8]) -> usize {
    const WIDTH: usize = 64;
    let whole = bytes.chunks_exact(WIDTH).take_while(|chunk| *chunk == [0; WIDTH]).count() * WIDTH;
    whole + bytes[whole..].iter().take_while(|&&byte| byte == 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(image: &[u8]) -> Vec<(usize, u32)> {
        let mut all = Vec::new();
        let outcome: Result<(), ()> = scan(image, 0, |at, id, _| {
            all.push((at, id.sequence));
            Ok(())
        });
        assert_eq!(outcome, Ok(()));
        all
    }

    fn record(sequence: u32, len: usize) -> Vec<u8> {
        encode(RecordId { incarnation: 1, writer: 2, sequence }, len)
    }

    #[test]
    fn a_record_with_any_bit_changed_is_none() {
        let whole = record(7, 61);
        assert_eq!(decode(&whole), Some((RecordId { incarnation: 1, writer: 2, sequence: 7 }, 61)));
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed), None, "bit {bit}");
        }
        assert_eq!(decode(&whole[..60]), None);
    }

    #[test]
    fn preallocated_space_is_known_by_its_markers_also_in_pieces() {
        let mut space = vec![0; 2 * BLOCK];
        for (n, block) in space.chunks_mut(BLOCK).enumerate() {
            block.copy_from_slice(&marker([7; 16], ((8 + n) * BLOCK) as u64));
        }
        let address = 8 * BLOCK as u64;
        assert!(is_preallocated(&space, address) && is_preallocated(&space[2048..], address + 2048));
        assert!(!is_preallocated(&space, address + BLOCK as u64) && !is_preallocated(&record(1, 4096), address));
        space[BLOCK + 3000] = 1;
        assert!(!is_preallocated(&space, address) && is_preallocated(&space[..BLOCK], address));
    }

    #[test]
    fn a_log_ends_before_markers_under_the_key_of_its_file() {
        let mut image = vec![1; 2 * BLOCK];
        (2..5).for_each(|n| image.extend(marker([7; 16], (n * BLOCK) as u64)));
        let ends = |image: &[u8]| [Some([7; 16]), Some([8; 16]), None].map(|key| log_end(image, key) / BLOCK);
        assert_eq!(ends(&image), [2, 5, 5]);
        assert_eq!(ends(&image[..image.len() - 512]), [5, 5, 5]);
        image[3 * BLOCK + 40] = 1;
        assert_eq!(ends(&image), [4, 5, 5]);
        assert_eq!(log_end(&image[2 * BLOCK..3 * BLOCK], Some([7; 16])), BLOCK, "in another place");
        assert_eq!(log_end(&marker([7; 16], 0), Some([7; 16])), 0);
    }

    #[test]
    fn a_scan_skips_padding_and_goes_on_behind_what_is_torn() {
        let mut image = record(1, 100);
        image.resize(300, 0);
        image.extend(record(2, 50));
        image.resize(BLOCK, 0);
        image.extend(record(3, 3000));
        image[BLOCK + 700] ^= 1;
        image.resize(2 * BLOCK, 0);
        image.extend(record(4, HEADER));
        assert_eq!(found(&image), [(0, 1), (300, 2), (2 * BLOCK, 4)]);
    }
}
