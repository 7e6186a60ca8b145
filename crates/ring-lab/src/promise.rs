//! What the write modes promise beyond what is acknowledged, where every completed write is there: after the process
//! is killed.
//!
//! Writes are in flight then, and each of them is there, in part, or not at all. So a log has holes, and they are
//! bounded: a buffer is used again only when it has been written, so that nothing is written further than all buffers
//! together from what is missing; and a serialized log begins a write only when all before it is there.
//!
//! After a power cut no mode promises that, since a disk may keep a later write and lose an earlier one that no sync
//! covers.

use core::ops::Range;

use crate::disk::SECTOR;
use crate::log::{Event, Log};
use crate::record::{is_preallocated, zeros};

/// Where holes may be.
#[derive(Debug)]
pub(crate) struct Promise {
    serialized: bool,
    /// All buffers together.
    reach: Option<usize>,
    /// Where writes of the log have arrived, by number; nothing for those that preallocate space.
    writes: Vec<Range<usize>>,
}

impl Promise {
    /// For this log, before anything has happened.
    pub(crate) fn new(log: &Log) -> Self {
        Self { serialized: log.serialized, reach: log.reach.map(|reach| reach as usize), writes: Vec::new() }
    }

    pub(crate) fn note(&mut self, event: &Event) {
        if let Event::Arrived { offset, bytes, .. } = event {
            let end = if is_preallocated(bytes, *offset) { *offset as usize } else { *offset as usize + bytes.len() };
            self.writes.push(*offset as usize..end);
        }
    }

    /// Looks for a hole in `image`, from `from` on, where none may be. Missing zeros cannot be noticed; and what
    /// imitates preallocated space may be there because preallocated space is.
    pub(crate) fn check(&self, image: &[u8], expected: &[u8], from: usize) -> Result<(), String> {
        let from = from / SECTOR * SECTOR;
        let sectors = || expected.get(from..).unwrap_or_default().chunks(SECTOR).zip((from..).step_by(SECTOR));
        let there = |sector: &[u8], at: usize| image.get(at..at + sector.len()) == Some(sector);
        let Some(hole) = sectors().find(|(sector, at)| !there(sector, *at)).map(|(_, at)| at) else { return Ok(()) };
        let is_written = |sector: &[u8], at| {
            zeros(sector) < sector.len() && !is_preallocated(sector, at as u64) && there(sector, at)
        };
        let last = sectors().filter(|(sector, at)| *at > hole && is_written(sector, *at)).last();
        let Some(end) = last.map(|(sector, at)| at + sector.len()) else { return Ok(()) };
        if let Some(reach) = self.reach.filter(|reach| end - hole > *reach) {
            return Err(format!(
                "a hole at {hole}, and the log goes on to {end}, further than its buffers' {reach} bytes"
            ));
        }
        let in_one_write = || self.writes.iter().any(|write| write.contains(&hole) && end <= write.end);
        if self.serialized && !in_one_write() {
            return Err(format!("a hole at {hole}, and a serialized log goes on to {end}, in another write"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BLOCK, marker};

    fn check(serialized: bool, reach: Option<usize>, holes: &[(usize, usize)]) -> Result<(), String> {
        // Three writes: of a block, of two, of one.
        let writes = vec![0..BLOCK, BLOCK..3 * BLOCK, 3 * BLOCK..4 * BLOCK];
        let expected = vec![1; 4 * BLOCK];
        let mut image = expected.clone();
        holes.iter().for_each(|&(start, end)| image[start..end].fill(0));
        Promise { serialized, reach, writes }.check(&image, &expected, 0)
    }

    #[test]
    fn a_hole_is_no_further_from_the_end_than_all_buffers_reach() {
        assert!(check(false, Some(3 * BLOCK), &[(BLOCK, 2 * BLOCK)]).is_ok());
        assert!(check(false, Some(3 * BLOCK), &[(BLOCK - SECTOR, BLOCK)]).is_err());
        assert!(
            check(false, Some(3 * BLOCK), &[(0, BLOCK), (3 * BLOCK, 4 * BLOCK)]).is_ok(),
            "the end is missing, too"
        );
        assert!(check(false, None, &[(0, BLOCK)]).is_ok());
    }

    #[test]
    fn preallocated_space_that_a_later_payload_imitates_is_not_yet_the_log() {
        let mut expected = vec![1; 4 * BLOCK];
        expected[3 * BLOCK..].copy_from_slice(&marker([7; 16], 3 * BLOCK as u64));
        let mut image = vec![0; 4 * BLOCK];
        image[3 * BLOCK..].copy_from_slice(&expected[3 * BLOCK..]);
        let promise = Promise { serialized: true, reach: Some(BLOCK), writes: Vec::new() };
        assert!(promise.check(&image, &expected, 0).is_ok());
        image[2 * BLOCK..3 * BLOCK].fill(1);
        assert!(promise.check(&image, &expected, 0).is_err());
    }

    #[test]
    fn a_serialized_log_is_a_prefix_and_its_last_write_in_part() {
        assert!(check(true, None, &[]).is_ok());
        assert!(check(true, None, &[(3 * BLOCK, 3 * BLOCK + SECTOR)]).is_ok());
        assert!(check(true, None, &[(BLOCK, 2 * BLOCK), (3 * BLOCK, 4 * BLOCK)]).is_ok());
        assert!(check(true, None, &[(BLOCK, 2 * BLOCK)]).is_err());
        assert!(check(true, None, &[(0, BLOCK), (2 * BLOCK, 4 * BLOCK)]).is_err());
    }
}
