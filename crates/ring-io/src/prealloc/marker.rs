//! The markers of preallocated space, and how the end of a log is found before them in a file that was not closed.
//!
//! ```text
//!   0               16              32         40                     4096        ┌───────────────────────────────┐
//!  ┌───────────────┬───────────────┬──────────┬──────────────────────────┐        │ user.ring-io.prepared         │
//!  │ "ring-io free"│    the key    │ its own  │          zeros           │   ◀──  │ the key: 128 random bits      │
//!  │    and zeros  │ 128 random bit│ address  │                          │        │ (an attribute of the file)    │
//!  └───────────────┴───────────────┴──────────┴──────────────────────────┘        └───────────────────────────────┘
//! ```
//!
//! A block is preallocated space only if all of its 4096 bytes are as they must be, under the key that the file has in
//! its attribute. Everything else is log: zeros, a block that was torn in the middle of a write, a marker under any
//! other key, and the whole file if it has no key. There is no checksum, since there is no byte that it would add to
//! what is compared.
//!
//! The attribute is where no payload can be, so a payload is a marker only if it was made from the key, or is a marker
//! that was read and is appended at its own address. [`imitates`] finds such a block in each write before it goes out,
//! and the queue then [removes the key](crate::prealloc): no acknowledged block ever is a marker under the key that its
//! file has.

use std::io;

use ring_alloc::{BLOCK, is_aligned, round_up};
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::GetRandomFlags;

use crate::backend::Storage;
use crate::{FileError, event};

const MAGIC: [u8; 16] = *b"ring-io free\0\0\0\0";

/// Bytes of a marker that are not zero.
const HEAD: usize = 40;

/// The rest.
static ZEROS: [u8; BLOCK - HEAD] = [0; BLOCK - HEAD];

/// What is read at a time on the way back.
const PIECE: usize = 1 << 20;

/// What the markers of one file share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; Self::LEN]);

impl Key {
    /// Bytes.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn random() -> io::Result<Self> {
        let mut key = [0; Self::LEN];
        let mut filled = 0;
        while filled < key.len() {
            filled += retry_on_intr(|| rustix::rand::getrandom(&mut key[filled..], GetRandomFlags::empty()))?;
        }
        Ok(Self(key))
    }

    /// An attribute of any other length is not ours: the file then has no markers.
    pub(crate) fn from_attribute(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// Makes markers of `blocks`, whose first will lie at `address`. They are zeros, or were markers.
    pub(crate) fn write_markers(self, blocks: &mut [u8], address: u64) {
        for (block, address) in blocks.chunks_exact_mut(BLOCK).zip((address..).step_by(BLOCK)) {
            block[..16].copy_from_slice(&MAGIC);
            block[16..32].copy_from_slice(&self.0);
            block[32..HEAD].copy_from_slice(&address.to_le_bytes());
        }
    }

    /// Whether `block`, from `address`, is a marker with this key. The key first: each block of each write is looked
    /// at.
    fn is_on(self, block: &[u8], address: u64) -> bool {
        block[16..32] == self.0
            && block[..16] == MAGIC
            && block[32..HEAD] == address.to_le_bytes()
            && block[HEAD..] == ZEROS
    }

    /// That of the marker that `block` may be.
    fn within(block: &[u8]) -> Self {
        Self(block[16..32].try_into().expect("16 bytes"))
    }
}

impl From<[u8; Key::LEN]> for Key {
    fn from(bytes: [u8; Key::LEN]) -> Self {
        Self(bytes)
    }
}

/// Whether one of these blocks, the first from `address`, is preallocated space for a reader of a file with this key.
/// Where the key cannot be read, another reader may be able to, so any key counts.
pub(crate) fn imitates(key: Result<Option<Key>, Errno>, blocks: &[u8], address: u64) -> bool {
    if key == Ok(None) {
        return false;
    }
    let mut blocks = blocks.chunks_exact(BLOCK).zip((address..).step_by(BLOCK));
    blocks.any(|(block, address)| match key {
        Ok(Some(key)) => key.is_on(block, address),
        _ => Key::within(block).is_on(block, address),
    })
}

/// How a file ends: with the log, or with preallocated space behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// Where the log ends, a multiple of 4096.
    pub(crate) log: u64,
    /// Where the file ends.
    pub(crate) file: u64,
    /// Under which markers are found.
    pub(crate) key: Result<Option<Key>, Errno>,
}

impl Ending {
    /// Looks at the last block, and goes back from there only over preallocated space. What cannot be read is not taken
    /// for free.
    pub(crate) fn of(storage: &dyn Storage) -> Result<Self, FileError> {
        loop {
            let key = storage.key();
            let ending = Self::under(key, storage)?;
            // A payload that is a marker comes into a file only when the key is gone from it.
            if !ending.is_prepared() || storage.key() == key {
                return Ok(ending);
            }
        }
    }

    /// Whether there is preallocated space behind the log.
    pub(crate) fn is_prepared(&self) -> bool {
        self.log < self.file
    }

    fn under(key: Result<Option<Key>, Errno>, storage: &dyn Storage) -> Result<Self, FileError> {
        let file = storage.len()?;
        let mut ending = Self { log: round_up(file), file, key };
        match key {
            Ok(None) => {}
            Ok(Some(key)) if is_aligned(file) => {
                ending.log = walk_back(storage, file, key);
                if ending.is_prepared() {
                    event!(DEBUG, log = ending.log, file, "the file ends with preallocated space");
                }
            }
            Ok(Some(_)) => {}
            Err(errno) => event!(WARN, %errno, "the key of preallocated space cannot be read: all of the file is log"),
        }
        Ok(ending)
    }
}

/// Where the markers with this `key` begin that reach to `end`. Most files have none: it looks at the last block by
/// itself.
fn walk_back(storage: &dyn Storage, mut end: u64, key: Key) -> u64 {
    let mut bytes = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(bytes.len() as u64);
        let piece = &mut bytes[..(end - start) as usize];
        if let Err(errno) = read(storage, start, piece) {
            event!(WARN, %errno, start, end, "the file cannot be read: it is taken for data");
            return end;
        }
        for block in piece.chunks_exact(BLOCK).rev() {
            if !key.is_on(block, end - BLOCK as u64) {
                return end;
            }
            end -= BLOCK as u64;
        }
        if bytes.len() < PIECE {
            bytes = vec![0; PIECE];
        }
    }
    end
}

fn read(storage: &dyn Storage, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
    let read = storage.read_at(offset, buf)?;
    if read == buf.len() { Ok(()) } else { Err(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring_alloc::{Arena, Buffer};

    use super::*;
    use crate::lock::WriterLock;
    use crate::prealloc::settle::Scope;
    use crate::{MemoryDevice, QuikIO};

    const AT: u64 = 7 * BLOCK as u64;

    fn key() -> Key {
        Key::random().expect("random bytes")
    }

    #[test]
    fn a_block_is_a_mark_only_as_a_whole_in_its_place_and_under_its_key() {
        let (key, other) = (key(), key());
        assert_ne!(key, other);
        let mut block = [0; BLOCK];
        assert!(!key.is_on(&block, AT), "zeros are data");
        key.write_markers(&mut block, AT);
        assert!(key.is_on(&block, AT) && !other.is_on(&block, AT) && !key.is_on(&block, AT + BLOCK as u64));
        for byte in 0..BLOCK {
            block[byte] ^= 0x10;
            assert!(!key.is_on(&block, AT), "byte {byte}");
            block[byte] ^= 0x10;
        }
    }

    #[test]
    fn a_torn_write_over_a_mark_is_data_wherever_it_was_torn() {
        let key = key();
        let mut old = [0; BLOCK];
        key.write_markers(&mut old, 0);
        let new: Vec<u8> = (0..BLOCK).map(|byte| byte as u8 | 1).collect();
        for sectors in 1..1 << (BLOCK / 512) {
            let mut torn = old;
            for (sector, bytes) in torn.chunks_exact_mut(512).enumerate().filter(|(n, _)| sectors >> n & 1 == 1) {
                bytes.copy_from_slice(&new[sector * 512..][..512]);
            }
            assert!(!key.is_on(&torn, 0), "sectors {sectors:#b}");
        }
    }

    #[test]
    fn a_mark_among_other_blocks_imitates_under_its_own_key_or_one_that_cannot_be_read() {
        let (key, other) = (key(), key());
        for place in 0..3 {
            let mut blocks = vec![0xFF; 3 * BLOCK];
            let marker = &mut blocks[place * BLOCK..][..BLOCK];
            marker.fill(0);
            key.write_markers(marker, AT + (place * BLOCK) as u64);
            let outcome = |key| imitates(key, &blocks, AT);
            assert_eq!(
                [outcome(Ok(Some(key))), outcome(Err(Errno::ACCESS)), outcome(Ok(Some(other))), outcome(Ok(None))],
                [true, true, false, false],
                "block {place}"
            );
            assert!(!imitates(Ok(Some(key)), &blocks, AT + BLOCK as u64), "elsewhere");
        }
    }

    /// A file whose writer removes the key, and appends what was a marker under it, while a reader looks for the end.
    #[derive(Debug)]
    struct Overtaken(MemoryDevice);

    impl Storage for Overtaken {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
            Storage::set_key(&self.0, None)?;
            self.0.read_at(offset, buf)
        }

        fn key(&self) -> Result<Option<Key>, Errno> {
            Storage::key(&self.0)
        }

        fn set_key(&self, key: Option<Key>) -> Result<(), Errno> {
            Storage::set_key(&self.0, key)
        }

        fn check(&self) -> Result<(), FileError> {
            self.0.check()
        }

        fn len(&self) -> Result<u64, FileError> {
            self.0.len()
        }

        fn lock(&self) -> Result<WriterLock, FileError> {
            self.0.lock()
        }

        fn logical_block_size(&self) -> usize {
            self.0.logical_block_size()
        }

        fn is_direct(&self) -> bool {
            self.0.is_direct()
        }

        fn is_synced(&self) -> bool {
            self.0.is_synced()
        }

        fn sync(&self, scope: Scope) -> Result<(), Errno> {
            self.0.sync(scope)
        }

        fn cut(&self, len: u64) -> Result<(), Errno> {
            self.0.cut(len)
        }

        fn is_worth_preparing(&self) -> bool {
            self.0.is_worth_preparing()
        }
    }

    #[test]
    fn a_reader_takes_no_payload_for_a_mark_whose_key_goes_while_it_reads() {
        let (io, device) = QuikIO::in_memory();
        let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
        let queue = Arc::new(io).attach(&arena).expect("the only queue");
        let key = key();
        let mut buffer = Buffer::zeroed(2 * BLOCK).expect("a buffer");
        key.write_markers(&mut buffer, 0);
        assert!(queue.write_durable_now(0, buffer.freeze(2 * BLOCK), 0).durable);
        MemoryDevice::set_key(&device, Some(key.bytes()));
        assert_eq!(Ending::of(&device).map(|ending| ending.log), Ok(0));
        assert_eq!(Ending::of(&Overtaken(device)).map(|ending| ending.log), Ok(2 * BLOCK as u64));
    }

    #[test]
    fn an_attribute_of_another_length_is_no_key() {
        assert_eq!(Key::from_attribute(&[7; 16]).map(Key::bytes), Some([7; 16]));
        for len in [0, 1, 15, 17] {
            assert_eq!(Key::from_attribute(&[7; 17][..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_file_that_ends_inside_a_block_is_all_log() {
        let device = MemoryDevice::new();
        Storage::cut(&device, 100).expect("room");
        MemoryDevice::set_key(&device, Some(key().bytes()));
        let ending = Ending::of(&device).expect("a length");
        assert_eq!((ending.log, ending.file, ending.is_prepared()), (BLOCK as u64, 100, false));
    }
}
