//! The bytes on disk: one file per structure, encoder and decoder side by side. `docs/FORMAT.md` has the tables.
//!
//! All numbers are little-endian. A decoder takes an array of the structure's size, or a slice that it measures
//! first; it answers with a value that satisfies every rule of the structure, or with a typed refusal. No decoder
//! panics or allocates by a number that it has not verified.

mod batch;
mod bytes;
mod checksum;
mod manifest;
mod own;
mod record;
mod segment;

pub use batch::{
    BatchFlags, BatchHeader, BatchInfo, Framing, HEADER_LEN, HeaderRefusal, Layout, MAX_PAYLOAD, SUM_LEN,
    payload_capacity, trailer_len,
};
pub use checksum::{BlockSums, HeaderKey, crc64};
pub use manifest::{Epoch, FirstBatch, Gap, MAX_EPOCHS, MAX_GAPS, Manifest, ManifestRefusal, SLOT_LEN};
pub use own::{Metadata, NOT_COUNTED, OwnRefusal, Position, REMOVED, Snapshot, SnapshotEntry, Truncation};
pub use record::{GROUP_ENTRY_LEN, RECORD_HEADER_LEN, RecordHeader, RecordRefusal, RecordType, padded};
pub use segment::{MAX_COOKIE, SEGMENT_HEADER_LEN, SegmentHeader, SegmentRefusal};

pub(crate) use bytes::{is_zero, u16_at, u32_at, u64_at};
pub(crate) use segment::is_segment_size;

/// The unit of checksums, alignment and direct I/O.
pub const BLOCK: usize = 4096;

/// The version that this crate writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// Where there is no address: the predecessor of the first batch.
pub const NO_ADDRESS: u64 = u64::MAX;

/// The smallest segment: four buffers of one block.
pub const MIN_SEGMENT: u64 = 4 * BLOCK as u64;

/// The largest segment: one tebibyte.
pub const MAX_SEGMENT: u64 = 1 << 40;

/// Addresses end here, so that sums of addresses and sizes never overflow.
pub const MAX_ADDRESS: u64 = 1 << 62;
