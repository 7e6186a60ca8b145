//! Records that carry their writer and number, and the count of them afterwards: a log that loses or doubles one is no
//! contestant.
//!
//! ```text
//!   byte 0   1        2 .. 8         8 ..
//! ┌────────┬────────┬──────────────┬───────────────────────┐
//! │ marker │ thread │ number, LE   │ the same filler in all │
//! └────────┴────────┴──────────────┴───────────────────────┘
//! ```

const MARKER: u8 = 0xA5;
const FILLER: u8 = 0x5A;
/// Bytes of a stamp, and so of the shortest record.
pub const STAMP: usize = 8;

/// The one record of a thread, stamped anew for each append.
pub struct Record {
    bytes: Vec<u8>,
    base: u64,
    number: u64,
}

impl Record {
    pub fn new(thread: usize, size: usize) -> Self {
        assert!(size >= STAMP && thread < 256);
        let base = u64::from(MARKER) | (thread as u64) << 8;
        Self { bytes: vec![FILLER; size], base, number: 0 }
    }

    /// The next record. Numbers begin at 0.
    #[inline]
    pub fn next(&mut self) -> &[u8] {
        let stamp = self.base | self.number << 16;
        self.number += 1;
        self.bytes[..STAMP].copy_from_slice(&stamp.to_le_bytes());
        &self.bytes
    }

    pub fn written(&self) -> u64 {
        self.number
    }
}

/// What was found of what was written.
#[derive(Debug)]
pub struct Tally {
    size: usize,
    /// For each thread, how often each number was seen: 0, 1, or 2 for more than once.
    seen: Vec<Vec<u8>>,
    torn: u64,
}

impl Tally {
    /// `counts[thread]` records of `size` bytes are expected.
    pub fn new(counts: &[u64], size: usize) -> Self {
        Self { size, seen: counts.iter().map(|&count| vec![0; count as usize]).collect(), torn: 0 }
    }

    /// One record, as the log gives it back.
    pub fn note(&mut self, record: &[u8]) {
        let whole =
            record.len() == self.size && record[0] == MARKER && record[STAMP..].iter().all(|&byte| byte == FILLER);
        let number = |record: &[u8]| u64::from_le_bytes(record[..STAMP].try_into().expect("8 bytes")) >> 16;
        let place = whole.then(|| self.seen.get_mut(record[1] as usize)?.get_mut(number(record) as usize)).flatten();
        match place {
            Some(times) => *times = (*times + 1).min(2),
            None => self.torn += 1,
        }
    }

    /// All records in `bytes`, whatever zeros lie between them.
    pub fn scan(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(start) = rest.iter().position(|&byte| byte != 0) {
            rest = &rest[start..];
            let len = self.size.min(rest.len());
            self.note(&rest[..len]);
            rest = &rest[len..];
        }
    }

    /// What is wrong, if anything is.
    pub fn verdict(&self) -> Result<(), String> {
        let count = |times| self.seen.iter().flatten().filter(|&&seen| seen == times).count();
        match (count(0), count(2), self.torn) {
            (0, 0, 0) => Ok(()),
            (lost, doubled, torn) => Err(format!("{lost} records lost, {doubled} doubled, {torn} torn")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(numbers: &[u64]) -> Vec<u8> {
        let mut record = Record::new(0, 20);
        let records: Vec<_> = (0..3).map(|_| record.next().to_vec()).collect();
        numbers.iter().flat_map(|&number| [records[number as usize].as_slice(), &[0; 7]].concat()).collect()
    }

    fn verdict(bytes: &[u8]) -> Result<(), String> {
        let mut tally = Tally::new(&[3], 20);
        tally.scan(bytes);
        tally.verdict()
    }

    #[test]
    fn what_is_all_there_passes_in_any_order() {
        assert_eq!(verdict(&log(&[2, 0, 1])), Ok(()));
    }

    #[test]
    fn a_lost_a_doubled_and_a_torn_record_are_reported() {
        assert_eq!(verdict(&log(&[0, 2])), Err("1 records lost, 0 doubled, 0 torn".into()));
        assert_eq!(verdict(&log(&[0, 1, 2, 1])), Err("0 records lost, 1 doubled, 0 torn".into()));
        let mut torn = log(&[0, 1, 2]);
        torn[15] ^= 1;
        assert_eq!(verdict(&torn), Err("1 records lost, 0 doubled, 1 torn".into()));
    }
}
