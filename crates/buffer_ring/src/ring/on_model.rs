//! Rings on the device of the models.

use std::sync::Arc;

use ring_alloc::Arena;

use crate::commit::groups::CommitPolicy;
use crate::ring::BufferRing;
use crate::ring::core::Core;
use crate::ring::watch::DurableWatch;
use crate::staging::layout::Layout;
use crate::sync::model_device::ModelDevice;

impl ModelDevice {
    /// A ring of `capacity` buffers of 4096 bytes on this device.
    #[must_use]
    pub fn ring(&self, capacity: usize, auto_flush: bool, auto_rotate: bool) -> BufferRing {
        self.ring_with(capacity, auto_flush, auto_rotate, CommitPolicy::default())
    }

    /// The same with a policy.
    #[must_use]
    pub fn ring_with(&self, capacity: usize, auto_flush: bool, auto_rotate: bool, policy: CommitPolicy) -> BufferRing {
        let arena = Arc::new(Arena::new(capacity, 4096).expect("a valid arena"));
        BufferRing::new(Core::new(
            &arena,
            Layout::plain(&arena),
            auto_flush,
            auto_rotate,
            policy,
            0,
            Some(self.queue()),
        ))
    }
}

impl DurableWatch {
    /// What its event counts, which is taken away. The first call makes the event.
    #[must_use]
    pub fn take_event(&self) -> usize {
        self.make_eventfd().expect("a model of one").take()
    }
}
