//! A ring with more than the five options.

use std::sync::Arc;

use ring_alloc::{Arena, is_aligned};
use ring_io::AttachError;

use crate::latency::Recorder;
use crate::shared::Shared;
use crate::{BufferRing, BufferRingOptions, CommitPolicy, OptionsError, device};

/// Made by [`BufferRing::builder`].
///
/// ```
/// # use core::time::Duration;
/// # use buffer_ring::{BufferRing, BufferRingOptions, CommitPolicy};
/// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() };
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
    measure_latency: bool,
}

impl BufferRingBuilder {
    pub(crate) fn new(options: BufferRingOptions) -> Self {
        Self { options, policy: CommitPolicy::default(), measure_latency: false }
    }

    /// When durable appends go to the device. Whatever the policy, nobody waits for somebody else to come.
    pub fn commit_policy(mut self, policy: CommitPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether [`stats`](BufferRing::stats) tells latencies, as histograms. Each commit then takes a lock and reads the clock twice.
    pub fn measure_latency(mut self, on: bool) -> Self {
        self.measure_latency = on;
        self
    }

    /// The ring.
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::try_with_options`].
    pub fn build(self) -> Result<BufferRing, OptionsError> {
        let Self { options, policy, measure_latency } = self;
        options.check()?;
        let BufferRingOptions { capacity, buffer_size, io_instance, auto_flush, auto_rotate } = options;
        let arena = Arc::new(Arena::new(capacity, buffer_size).map_err(OptionsError::Memory)?);
        let (start, queue) = match io_instance {
            None => (0, None),
            Some(io) => {
                let queue = device::attach(&io, &arena).map_err(OptionsError::Device)?;
                let start = io.start().map_err(|error| OptionsError::Device(AttachError::File(error)))?;
                if start > 0 {
                    io.sync().map_err(OptionsError::Sync)?;
                }
                (start, Some(queue))
            }
        };
        debug_assert!(is_aligned(start));
        let mut shared = Shared::new(&arena, auto_flush, auto_rotate, policy, start, queue);
        shared.latency = Recorder::new(measure_latency);
        Ok(BufferRing::new(shared))
    }
}
