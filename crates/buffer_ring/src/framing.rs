//! Framing: a header and a trailer around the bytes of each buffer, added by the thread that flushes it.
//!
//! ```text
//! plain     │ bytes of the appends ───────────────────────────────│ zeros │
//! framed    │ header │ bytes of the appends ──────│ trailer │ zeros       │
//!           ▲        ▲                                                   ▲
//!           │        └ address of the first append                       └ a multiple of 4096
//!           └ address of the batch, a multiple of 4096
//! ```
//!
//! What is flushed together is a *batch*. A format above the ring puts into the frame what makes a batch provable:
//! where it belongs, what it follows, a checksum over all of it. Appends know nothing of that, and pay nothing.

use core::fmt;

/// Bytes of a frame around the bytes of one buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    /// Bytes before the first append: a multiple of 8.
    pub header: usize,
    /// Bytes behind the last append, whatever its batch holds.
    pub trailer: usize,
    /// Bytes behind that for each begun block of 4096 bytes of header and appends.
    pub trailer_per_block: usize,
}

/// What is known of a batch when its frame is filled. Addresses are absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// The address of its first byte, a multiple of 4096.
    pub base: u64,
    /// Counts the batches of this ring, from 1.
    pub generation: u64,
    /// The address of the batch before it; `None` for the ring's first.
    pub previous: Option<u64>,
    /// The address of the batch behind it.
    pub next: u64,
    /// Whether the next batch begins at the next segment.
    pub last: bool,
    /// Every byte of the log below is on stable storage. At most `base`, and the address of a batch.
    pub durable: u64,
}

/// Fills the frames of a ring's batches; see [`BufferRingBuilder::framing`](crate::BufferRingBuilder::framing).
///
/// ```
/// # use std::sync::Arc;
/// # use buffer_ring::{BatchInfo, BufferRing, BufferRingOptions, Framing, Margins, QuikIO};
/// /// Each batch begins with its own address, and ends with the length of what was appended.
/// #[derive(Debug)]
/// struct Numbered;
///
/// impl Framing for Numbered {
///     fn margins(&self) -> Margins {
///         Margins { header: 8, trailer: 8, trailer_per_block: 0 }
///     }
///
///     fn seal(&self, info: &BatchInfo, header: &mut [u8], payload: &[u8], trailer: &mut [u8]) {
///         header.copy_from_slice(&info.base.to_le_bytes());
///         trailer[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
///     }
/// }
///
/// let (io, device) = QuikIO::in_memory();
/// # let io_instance = Some(io.into());
/// let options = BufferRingOptions { capacity: 2, buffer_size: 8192, io_instance, ..Default::default() };
/// let ring = BufferRing::builder(options).framing(Arc::new(Numbered)).build()?;
/// assert_eq!(ring.append_durable(b"record")?.start(), 8);
/// assert_eq!(ring.append_durable(b"another")?.start(), 4096 + 8);
/// let file = device.contents();
/// assert_eq!((&file[8..14], &file[4096..4104]), (&b"record"[..], &4096_u64.to_le_bytes()[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Framing: fmt::Debug + Send + Sync {
    /// Returns how large the frames are. Asked once, when the ring is made.
    fn margins(&self) -> Margins;

    /// Fills the frame of one batch, which is sealed and has all its bytes: `payload`, what was appended, with zeros
    /// where a reservation was aborted or a lease not used up. `header` has the bytes of an earlier batch; `trailer` is
    /// zeros, and reaches to the end of the batch.
    ///
    /// It is called by the thread that flushes the batch, in the order of no address: two batches may be framed at the
    /// same time. Until it returns the batch is not written, and nothing behind it is durable; it must not call the
    /// ring. If it panics, the ring is poisoned with [`RingError::Framing`](crate::RingError::Framing), and the batch
    /// is not written.
    fn seal(&self, info: &BatchInfo, header: &mut [u8], payload: &[u8], trailer: &mut [u8]);
}
