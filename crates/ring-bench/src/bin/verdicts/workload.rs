//! Numbered records that a seed repeats, so that every byte that a log gives back can be compared.

use core::ops::Range;

use ring_testing::Random;

/// How many times a log is opened while one recording is made, and groups that are appended each time.
pub const OPENINGS: usize = 3;
pub const GROUPS: usize = 40;

/// The record `number`: the number, a checksum, and bytes; some records are zeros behind those two.
pub fn record(seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ (number + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93));
    let len = match random.below(10) {
        0 => 1000 + random.below(5000),
        1..4 => 120 + random.below(880),
        _ => random.below(120),
    };
    let check = random.next();
    let zeros = random.chance(12);
    let mut bytes = [number.to_le_bytes(), check.to_le_bytes()].concat();
    bytes.extend((0..len).map(|_| if zeros { 0 } else { random.next() as u8 }));
    bytes
}

/// The number of a record that is exactly as it was appended.
pub fn number_of(seed: u64, bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    // A number that no workload reaches would only cost time.
    (number < 1 << 32 && record(seed, number) == bytes).then_some(number)
}

/// The groups of an opening: each is synced as a whole.
pub fn groups(seed: u64, opening: usize) -> Vec<Range<u64>> {
    let all = (0..OPENINGS * GROUPS).scan((Random::new(seed), 0), |(random, next), _| {
        let start = *next;
        *next += random.up_to(4) as u64;
        Some(start..*next)
    });
    all.skip(opening * GROUPS).take(GROUPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_every_byte() {
        for number in 0..50 {
            let bytes = record(7, number);
            assert_eq!(number_of(7, &bytes), Some(number));
            for place in [8, bytes.len() - 1] {
                let mut other = bytes.clone();
                other[place] ^= 1;
                assert_eq!(number_of(7, &other), None);
            }
            assert_eq!(number_of(7, &bytes[..bytes.len() - 1]), None);
            assert_eq!(number_of(8, &bytes), None, "of another run");
        }
    }

    #[test]
    fn the_groups_of_all_openings_number_the_records_without_a_gap() {
        let all: Vec<_> = (0..OPENINGS).flat_map(|opening| groups(3, opening)).collect();
        assert_eq!((all.len(), all[0].start), (OPENINGS * GROUPS, 0));
        assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start) && all.iter().all(|group| !group.is_empty()));
    }
}
