//! Writeback: sealed buffers on their way to the device, and how far the log has come there. It knows neither the
//! threads that wait for it nor how bytes get into a buffer.
//!
//! Whatever comes back from the device is returned: what it means for a buffer's slot, and for the threads that wait,
//! is decided by the [core](crate::ring::core).

pub(crate) mod device;
pub(crate) mod exclusive;
pub(crate) mod ledger;
pub(crate) mod watermarks;

use core::ops::Range;

use ring_io::{DeviceError, Engine, Finished, LogWrite, Wait};

use crate::writeback::device::{Device, WriteQueue};
use crate::writeback::exclusive::{Claim, Exclusive};
use crate::writeback::ledger::Ledger;
use crate::writeback::watermarks::Watermarks;

/// The bytes of one buffer, ready for the device.
pub(crate) struct Batch {
    /// All of the log below has been handed to the device before.
    pub(crate) base: u64,
    pub(crate) write: LogWrite,
}

/// What one look at the device brought back.
pub(crate) struct Reaped {
    pub(crate) writes: Vec<Finished>,
    /// The outcome of the sync that was submitted, if it has ended: for its [claim](Writeback::reattach_syncer).
    pub(crate) synced: Option<Result<(), DeviceError>>,
}

/// The device of a ring, and how far the log has come there.
#[derive(Debug)]
pub(crate) struct Writeback {
    device: Device,
    watermarks: Watermarks,
    /// The thread that has it takes finished writes from the device.
    driver: Exclusive,
    /// The thread that has it syncs the device.
    syncer: Exclusive,
    /// From the end of what the file held before to the start of the log: nothing is ever written there.
    gap: Range<u64>,
}

impl Writeback {
    pub(crate) fn new(queue: Option<WriteQueue>, start: u64) -> Self {
        Self {
            device: Device::new(queue),
            watermarks: Watermarks::new(start),
            driver: Exclusive::new(),
            syncer: Exclusive::new(),
            gap: start..start,
        }
    }

    /// The file's earlier content ends at `end`, below the start of the log.
    pub(crate) fn set_content_end(&mut self, end: u64) {
        self.gap.start = end;
    }

    /// Whether there ever was a file.
    pub(crate) fn exists(&self) -> bool {
        self.device.exists()
    }

    /// Whether a buffer is written only after the one before it.
    pub(crate) fn is_serialized(&self) -> bool {
        self.device.is_serialized()
    }

    /// What was submitted and has not come back.
    pub(crate) fn in_flight(&self) -> usize {
        self.device.in_flight()
    }

    /// Lets the thread that waits at the device look whether it still has to.
    pub(crate) fn interrupt(&self) {
        self.device.interrupt();
    }

    /// Takes the device away, which waits for what is in flight.
    pub(crate) fn detach_device(&self) {
        self.device.close();
    }

    /// Submits a write. `None`: there is no device any more.
    pub(crate) fn submit(&self, write: LogWrite) -> Option<()> {
        self.device.with(|queue| queue.submit_write(write))
    }

    /// Writes in this thread, or submits a write that has to wait for its segment: then the inner answer is `None`.
    /// `None`: there is no device any more.
    pub(crate) fn write_or_submit(&self, write: LogWrite) -> Option<Option<Finished>> {
        self.device.with(|queue| queue.write_or_submit(write))
    }

    /// Takes from the device what has ended there. For the driver.
    pub(crate) fn reap(&self, _driver: &Claim<'_>, wait: Wait) -> Reaped {
        let mut writes = Vec::new();
        let synced = self.device.with(|queue| queue.reap(wait, &mut writes)).flatten();
        Reaped { writes, synced }
    }

    /// The driver's claim, if there is something in flight and no thread has it.
    pub(crate) fn claim_driver(&self) -> Option<Claim<'_>> {
        if self.in_flight() > 0 { self.driver.try_claim() } else { None }
    }

    /// Whether a thread drives. May be out of date.
    pub(crate) fn is_driven(&self) -> bool {
        self.driver.is_claimed()
    }

    /// See [`Exclusive::is_claimed_now`].
    pub(crate) fn is_driven_now(&self) -> bool {
        self.driver.is_claimed_now()
    }

    /// Whether there is something in flight that no thread waits for. May be out of date.
    pub(crate) fn wants_driver(&self) -> bool {
        self.in_flight() > 0 && !self.is_driven()
    }

    pub(crate) fn claim_syncer(&self) -> Option<Claim<'_>> {
        self.syncer.try_claim()
    }

    /// Whether a sync is under way. May be out of date.
    pub(crate) fn is_syncing(&self) -> bool {
        self.syncer.is_claimed()
    }

    /// The claim of a sync that was submitted, for the thread that has its outcome.
    pub(crate) fn reattach_syncer(&self) -> Claim<'_> {
        self.syncer.reattach()
    }

    /// See [`Ledger::begin_sync`].
    pub(crate) fn begin_sync(&self) -> bool {
        self.watermarks.begin_sync()
    }

    /// Syncs the device. `None`: there is none, or none any more, and nothing was synced.
    pub(crate) fn sync(&self) -> Option<Result<(), DeviceError>> {
        self.device.sync()
    }

    /// The same, without waiting for it: the thread that reaps takes the outcome.
    pub(crate) fn submit_sync(&self) -> Option<Result<(), DeviceError>> {
        self.device.submit_sync()
    }

    /// See [`Watermarks::update`].
    pub(crate) fn update(&self, change: impl FnOnce(&mut Ledger), guarded: impl FnOnce(&mut dyn FnMut())) -> bool {
        self.watermarks.update(change, guarded)
    }

    /// Every byte below is written. Only grows.
    pub(crate) fn written(&self) -> u64 {
        self.watermarks.written()
    }

    /// Every byte below is on stable storage. Only grows.
    pub(crate) fn durable(&self) -> u64 {
        self.watermarks.durable()
    }

    /// Whether a write at `base` may be a durable one. Once it may, it stays so until that write is over.
    pub(crate) fn may_be_durable(&self, base: u64) -> bool {
        self.watermarks.durable() == base
    }

    /// The ring is gone: no watermark moves any more.
    pub(crate) fn close(&self) {
        self.watermarks.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.watermarks.is_closed()
    }

    /// Reads the file at `at`, and answers where it ends if that is within `target`. `None`: there is no device any
    /// more.
    pub(crate) fn read_at(&self, at: u64, target: &mut [u8]) -> Option<Result<Option<u64>, DeviceError>> {
        let read = match self.device.with(|queue| queue.io().read_at(at, target))? {
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        let (missing, rest) = (at + read as u64, &mut target[read..]);
        // Until the log's first write is there, the file may end before the log starts.
        let in_gap = self.gap.contains(&missing) && missing + rest.len() as u64 <= self.gap.end;
        if rest.is_empty() || in_gap {
            rest.fill(0);
            return Some(Ok(None));
        }
        Some(Ok(Some(missing)))
    }

    /// What the ring writes through.
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.device.with(|queue| queue.io().engine().clone())
    }

    /// Whether the buffers are registered with the engine.
    pub(crate) fn has_registered_buffers(&self) -> bool {
        self.device.with(|queue| queue.registered().buffers()).unwrap_or(false)
    }
}
