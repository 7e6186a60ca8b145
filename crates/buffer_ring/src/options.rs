//! What a ring is made of.

use std::sync::Arc;

use ring_alloc::is_aligned;
use ring_io::QuikIO;
use ring_state::MAX_CAPACITY;

use crate::error::OptionsError;

/// The most buffers of a ring.
pub const MAX_BUFFERS: usize = 1 << 16;

/// The parts of a [`BufferRing`](crate::BufferRing).
///
/// The default has no buffers and is no valid ring: capacity and buffer size are always a choice.
///
/// ```
/// # use std::sync::Arc;
/// # use buffer_ring::{BufferRing, BufferRingOptions, QuikIO};
/// # let folder = tempfile::tempdir()?;
/// # let file = std::fs::File::options().read(true).write(true).create_new(true).open(folder.path().join("log"))?;
/// let options = BufferRingOptions {           // exactly these five fields
///     capacity: 4,                            // buffers in the ring
///     buffer_size: buffer_ring::ONE_MEGABYTE_BLOCK, // bytes of each, a positive multiple of 4096
///     // None: test mode, sealed buffers are recycled without I/O, and nothing is ever durable
///     io_instance: Some(Arc::new(QuikIO::new(file))),
///     auto_flush: true,
///     auto_rotate: true,
/// };
/// let ring = BufferRing::with_options(options);   // panics with a clear sentence on invalid options
/// # assert_eq!(ring.append(b"record").map(|extent| extent.start()), Ok(0));
/// # assert_eq!(ring.close()?, 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BufferRingOptions {
    /// Buffers in the ring: at least 2 with `auto_rotate`, at least 1 without, at most [`MAX_BUFFERS`].
    pub capacity: usize,
    /// Bytes of each buffer: a positive multiple of 4096, at most 2 GiB. Also the longest payload.
    pub buffer_size: usize,
    /// Where full buffers go. `None` is for tests: sealed buffers are recycled without I/O, and what promises
    /// durability answers `NoDevice`. Tests of durable code use [`QuikIO::in_memory`].
    pub io_instance: Option<Arc<QuikIO>>,
    /// Whether a sealed buffer is written as soon as the last writer has left. If not, it keeps its bytes until
    /// [`flush`](crate::BufferRing::flush) is called for it.
    pub auto_flush: bool,
    /// Whether the next buffer becomes current when the current one is sealed. If not, that is up to
    /// [`rotate`](crate::BufferRing::rotate).
    pub auto_rotate: bool,
}

impl Default for BufferRingOptions {
    fn default() -> Self {
        Self { capacity: 0, buffer_size: 0, io_instance: None, auto_flush: true, auto_rotate: true }
    }
}

impl BufferRingOptions {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let least = if self.auto_rotate { 2 } else { 1 };
        if self.capacity < least {
            return Err(OptionsError::Capacity { given: self.capacity, least });
        }
        if self.capacity > MAX_BUFFERS {
            return Err(OptionsError::TooManyBuffers(self.capacity));
        }
        if self.buffer_size == 0 || !is_aligned(self.buffer_size as u64) {
            return Err(OptionsError::BufferSize(self.buffer_size));
        }
        if self.buffer_size > MAX_CAPACITY as usize {
            return Err(OptionsError::BufferTooLarge(self.buffer_size));
        }
        Ok(())
    }
}
