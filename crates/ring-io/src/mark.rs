//! The marks of prepared space, by which whoever reopens a file tells it from the log.
//!
//! ```text
//!   0               16              32         40                     4096
//!  ┌───────────────┬───────────────┬──────────┬──────────────────────────┐
//!  │ "ring-io free"│ the file's id │ its own  │          zeros           │
//!  │    and zeros  │ 128 random bit│ address  │                          │
//!  └───────────────┴───────────────┴──────────┴──────────────────────────┘
//! ```
//!
//! A block is prepared space only if all of its 4096 bytes are as they must be. So nothing that is written there can be taken for free:
//! zeros are data, and so is a block that was torn in the middle of a write. There is no checksum, since there is no byte that it would
//! add to what is compared. The id keeps a client's record from being a mark by chance or by design: it is drawn when the first block is
//! prepared, so that nobody knew it before, and each block holds its own address, so that a copy elsewhere is no mark.

use std::io;

use ring_alloc::{BLOCK, is_aligned, round_up};
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::GetRandomFlags;

use crate::seam::Storage;
use crate::{FileError, event};

const MAGIC: [u8; 16] = *b"ring-io free\0\0\0\0";

/// Bytes of a mark that are not zero.
const LEN: usize = 40;

/// The rest.
static ZEROS: [u8; BLOCK - LEN] = [0; BLOCK - LEN];

/// What is read at a time on the way back.
const PIECE: usize = 1 << 20;

/// What the marks of one file share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId([u8; 16]);

impl LogId {
    pub(crate) fn random() -> io::Result<Self> {
        let mut id = [0; 16];
        let mut filled = 0;
        while filled < id.len() {
            filled += retry_on_intr(|| rustix::rand::getrandom(&mut id[filled..], GetRandomFlags::empty()))?;
        }
        Ok(Self(id))
    }

    /// Makes marks of `blocks`, whose first will lie at `address`. They are zeros, or were marks.
    pub(crate) fn mark(self, blocks: &mut [u8], address: u64) {
        for (block, address) in blocks.chunks_exact_mut(BLOCK).zip((address..).step_by(BLOCK)) {
            block[..LEN].copy_from_slice(&self.head(address));
        }
    }

    /// Whether `block`, from `address`, is a mark with this id.
    fn is_on(self, block: &[u8], address: u64) -> bool {
        block[..LEN] == self.head(address) && block[LEN..] == ZEROS
    }

    /// Of the mark that `block`, from `address`, is.
    fn of(block: &[u8], address: u64) -> Option<Self> {
        let id = Self(block[16..32].try_into().expect("16 bytes"));
        id.is_on(block, address).then_some(id)
    }

    fn head(self, address: u64) -> [u8; LEN] {
        let mut head = [0; LEN];
        head[..16].copy_from_slice(&MAGIC);
        head[16..32].copy_from_slice(&self.0);
        head[32..].copy_from_slice(&address.to_le_bytes());
        head
    }
}

/// How a file ends: with the log, or with prepared space behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// Where the log ends, a multiple of 4096.
    pub(crate) log: u64,
    /// Where the file ends.
    pub(crate) file: u64,
    /// Of the marks between the two.
    pub(crate) id: Option<LogId>,
}

impl Ending {
    /// Looks at the last block, and goes back from there only over prepared space. What cannot be read is not taken for free.
    pub(crate) fn of(storage: &dyn Storage) -> Result<Self, FileError> {
        let file = storage.len()?;
        let mut ending = Self { log: round_up(file), file, id: None };
        if file == 0 || !is_aligned(file) {
            return Ok(ending);
        }
        let mut block = [0; BLOCK];
        let last = file - BLOCK as u64;
        match read(storage, last, &mut block) {
            Ok(()) => ending.id = LogId::of(&block, last),
            Err(errno) => event!(DEBUG, %errno, "the file's last block cannot be read: it is taken for data"),
        }
        if let Some(id) = ending.id {
            ending.log = walk_back(storage, file, id);
            event!(DEBUG, log = ending.log, file, "the file ends with prepared space");
        }
        Ok(ending)
    }
}

/// Where the marks with this `id` begin that reach to `end`.
fn walk_back(storage: &dyn Storage, mut end: u64, id: LogId) -> u64 {
    let mut piece = vec![0; PIECE];
    loop {
        let start = end.saturating_sub(PIECE as u64);
        let piece = &mut piece[..(end - start) as usize];
        if let Err(errno) = read(storage, start, piece) {
            event!(WARN, %errno, start, end, "the file cannot be read: it is taken for data");
            return end;
        }
        for block in piece.chunks_exact(BLOCK).rev() {
            if !id.is_on(block, end - BLOCK as u64) {
                return end;
            }
            end -= BLOCK as u64;
        }
        if end == 0 {
            return 0;
        }
    }
}

fn read(storage: &dyn Storage, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
    let read = storage.read_at(offset, buf)?;
    if read == buf.len() { Ok(()) } else { Err(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_mark_only_as_a_whole_and_in_its_place() {
        let id = LogId::random().expect("random bytes");
        let (mut block, at) = ([0; BLOCK], 7 * BLOCK as u64);
        assert_eq!(LogId::of(&block, at), None, "zeros are data");
        id.mark(&mut block, at);
        assert_eq!(LogId::of(&block, at), Some(id));
        assert_eq!(LogId::of(&block, at + BLOCK as u64), None);
        for byte in 0..BLOCK {
            block[byte] ^= 0x10;
            assert!(!id.is_on(&block, at), "byte {byte}");
            block[byte] ^= 0x10;
        }
        assert_ne!(LogId::random().expect("random bytes"), id);
    }

    #[test]
    fn a_torn_write_over_a_mark_is_data_wherever_it_was_torn() {
        let id = LogId::random().expect("random bytes");
        let mut old = [0; BLOCK];
        id.mark(&mut old, 0);
        let new: Vec<u8> = (0..BLOCK).map(|byte| byte as u8 | 1).collect();
        for sectors in 1..1 << (BLOCK / 512) {
            let mut torn = old;
            for (sector, bytes) in torn.chunks_exact_mut(512).enumerate().filter(|(n, _)| sectors >> n & 1 == 1) {
                bytes.copy_from_slice(&new[sector * 512..][..512]);
            }
            assert_eq!(LogId::of(&torn, 0), None, "sectors {sectors:#b}");
        }
    }
}
