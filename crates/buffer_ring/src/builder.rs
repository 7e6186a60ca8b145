//! A ring with more than the five options.

use core::num::NonZeroU64;
use std::sync::Arc;

use ring_alloc::{Arena, is_aligned};
use ring_io::AttachError;

use crate::commit::groups::CommitPolicy;
use crate::error::OptionsError;
use crate::extent::ADDRESS_LIMIT;
use crate::framing::Framing;
#[cfg(feature = "latencies")]
use crate::metrics::latency::Recorder;
use crate::options::BufferRingOptions;
use crate::ring::BufferRing;
use crate::ring::core::Core;
use crate::staging::layout::Layout;
use crate::writeback::device;

/// Made by [`BufferRing::builder`].
///
/// ```
/// # use core::time::Duration;
/// # use buffer_ring::{BufferRing, BufferRingOptions, CommitPolicy};
/// # use buffer_ring::QuikIO;
/// # let io_instance = Some(QuikIO::in_memory().0.into());
/// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, io_instance, ..Default::default() };
/// let ring = BufferRing::builder(options)
///     .commit_policy(CommitPolicy::MinInterval(Duration::from_millis(5)))
///     .build()?;
/// # assert!(ring.append_durable(b"record").is_ok());
/// # Ok::<(), buffer_ring::OptionsError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BufferRingBuilder {
    options: BufferRingOptions,
    policy: CommitPolicy,
    #[cfg(feature = "latencies")]
    measure_latency: bool,
    prefault: bool,
    framing: Option<Arc<dyn Framing>>,
}

impl BufferRingBuilder {
    pub(crate) fn new(options: BufferRingOptions) -> Self {
        Self {
            options,
            policy: CommitPolicy::default(),
            #[cfg(feature = "latencies")]
            measure_latency: false,
            prefault: false,
            framing: None,
        }
    }

    /// When durable appends go to the device. Whatever the policy, no thread waits for another thread to come.
    pub fn commit_policy(mut self, policy: CommitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether [`stats`](BufferRing::stats) reports latencies, as histograms (feature `latencies`). Each commit then
    /// takes a lock and reads the clock twice.
    #[cfg(feature = "latencies")]
    pub fn measure_latency(mut self, on: bool) -> Self {
        self.measure_latency = on;
        self
    }

    /// Whether all memory of the buffers is there before the ring is. Otherwise the kernel provides it when a page is
    /// written for the first time: the ring is made at once, whatever its size, and takes no more memory than the log
    /// has needed; but in the first round through its buffers some appends take longer, by up to some milliseconds for
    /// each 2 MiB. With it, making the ring takes that time: a second or more for each gigabyte. Needs Linux 5.14; does
    /// nothing on an older one.
    pub fn prefault(mut self, on: bool) -> Self {
        self.prefault = on;
        self
    }

    /// Puts a frame around the bytes of each buffer. Then the longest payload is shorter than a buffer, by the
    /// [margins](crate::Margins); the first append of a batch lies behind its header; and what is read between the
    /// appends of two batches is zeros or a frame. Needs `auto_flush` and `auto_rotate`.
    pub fn framing(mut self, framing: Arc<dyn Framing>) -> Self {
        self.framing = Some(framing);
        self
    }

    /// The ring.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::try_with_options`].
    pub fn build(self) -> Result<BufferRing, OptionsError> {
        let Self { options, policy, prefault, framing, .. } = self;
        options.check()?;
        if framing.is_some() && !(options.auto_flush && options.auto_rotate) {
            return Err(OptionsError::FramingByHand);
        }
        let BufferRingOptions { capacity, buffer_size, io_instance, auto_flush, auto_rotate } = options;
        let arena = Arc::new(Arena::new(capacity, buffer_size).map_err(OptionsError::Memory)?);
        let segment_size = io_instance.as_ref().and_then(|io| io.segment_size()).and_then(NonZeroU64::new);
        let layout = match (framing, segment_size) {
            (Some(framing), segment_size) => Layout::framed(&arena, framing, segment_size)?,
            (None, Some(_)) => return Err(OptionsError::SegmentsWithoutFrames),
            (None, None) => Layout::plain(&arena),
        };
        if prefault {
            arena.populate();
        }
        let (start, content, queue) = match io_instance {
            None => (0, 0, None),
            Some(io) => {
                let queue = device::attach(&io, &arena).map_err(OptionsError::Device)?;
                let start = io.start().map_err(|error| OptionsError::Device(AttachError::File(error)))?;
                if !layout.fits_at(start) {
                    return Err(OptionsError::SegmentFull { start });
                }
                if start.checked_add(buffer_size as u64).is_none_or(|end| end > ADDRESS_LIMIT) {
                    return Err(OptionsError::Start { start });
                }
                if start > 0 {
                    io.sync().map_err(OptionsError::Sync)?;
                }
                // A block device has no end, and no gap before the log.
                (start, io.file_len().map_or(start, |len| len.min(start)), Some(queue))
            }
        };
        debug_assert!(is_aligned(start));
        let mut core = Core::new(&arena, layout, auto_flush, auto_rotate, policy, start, queue);
        #[cfg(feature = "latencies")]
        if self.measure_latency {
            core.latency = Recorder::on();
        }
        core.writeback.set_content_end(content);
        Ok(BufferRing::new(core))
    }
}
