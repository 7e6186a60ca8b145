//! Payloads that look like preallocated space, or like a log: what a client may append that has read the file, its
//! key, or another log.

use buffer_ring::MemoryDevice;

use crate::record::{BLOCK, Key, RecordId, encode, marker};
use ring_testing::Random;

/// Where a payload is taken from.
pub(crate) trait Source {
    /// The file's key as it is now.
    fn key(&self) -> Option<Key>;

    /// Some bytes of the file, as far as they exist.
    fn read(&self, offset: usize, len: usize) -> Vec<u8>;
}

impl Source for MemoryDevice {
    fn key(&self) -> Option<Key> {
        Self::key(self)
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let contents = self.contents();
        contents.get(offset..contents.len().min(offset + len)).unwrap_or_default().to_vec()
    }
}

/// The length of a payload at `tail` in which `blocks` blocks are in their places.
pub(crate) fn len(tail: u64, blocks: usize) -> usize {
    tail.next_multiple_of(BLOCK as u64).abs_diff(tail) as usize + blocks * BLOCK
}

/// `len` bytes that are appended at `start`: up to the first whole block anything but padding, then blocks, and
/// behind them zeros.
pub(crate) fn payload(random: &mut Random, source: &impl Source, known: &[Key], start: u64, len: usize) -> Vec<u8> {
    let first = self::len(start, 0).min(len);
    let mut bytes = vec![0xFF; first];
    let way = random.below(8);
    let made_up = [random.next(), random.next()].map(u64::to_le_bytes).concat().try_into().expect("16 bytes");
    let former = if known.is_empty() { made_up } else { random.pick(known) };
    let elsewhere = random.below(start as usize / BLOCK + 1) * BLOCK;
    for n in 0..(len - first) / BLOCK {
        let address = start + (first + n * BLOCK) as u64;
        let real = source.key().unwrap_or(former);
        let block = match way {
            0..=2 => marker(real, address).to_vec(),
            3 => source.read(address as usize, BLOCK),
            4 => marker(former, address).to_vec(),
            5 => marker(made_up, address).to_vec(),
            6 => source.read(elsewhere + n * BLOCK, BLOCK),
            // A batch of another log, and preallocated space behind it.
            _ if n == 0 => {
                encode(RecordId { incarnation: u32::MAX, writer: 0, sequence: random.below(100) as u32 }, 700)
            }
            _ => marker(made_up, address).to_vec(),
        };
        bytes.extend(block);
        bytes.resize(first + (n + 1) * BLOCK, 0);
    }
    bytes.resize(len, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::is_marker;

    struct Nothing;

    impl Source for Nothing {
        fn key(&self) -> Option<Key> {
            Some([3; 16])
        }

        fn read(&self, _: usize, _: usize) -> Vec<u8> {
            Vec::new()
        }
    }

    #[test]
    fn payloads_are_markers_in_their_places_under_the_real_key_and_others() {
        let mut random = Random::new(1);
        let (mut real, mut others) = (0, 0);
        for start in [0, 1, 4095, 4096, 5000] {
            for _ in 0..100 {
                let len = len(start, 2);
                let bytes = payload(&mut random, &Nothing, &[[4; 16]], start, len);
                assert_eq!((bytes.len(), (start as usize + len) % BLOCK), (len, 0));
                let (block, address) = (&bytes[len - BLOCK..], start as usize + len - BLOCK);
                real += usize::from(is_marker(block, address, [3; 16]));
                others += usize::from(is_marker(block, address, [4; 16]));
            }
        }
        assert!(real > 100 && others > 20, "{real}, {others}");
    }
}
