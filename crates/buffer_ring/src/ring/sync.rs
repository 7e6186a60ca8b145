//! A sync of the device, on behalf of all that wait for what it covers.

use std::time::Instant;

use ring_io::{DeviceError, event, events};

use crate::error::RingError;
use crate::metrics::latency::Measure;
use crate::ring::core::Core;
use crate::writeback::exclusive::Claim;
use crate::writeback::ledger::Ledger;

impl Core {
    /// Makes durable what is written now, on behalf of all that wait for that; `false` if it all is. Waits for the
    /// device only if `to_its_end`.
    pub(crate) fn sync_device(&self, syncer: Claim<'_>, to_its_end: bool) -> bool {
        let _held = events::hold();
        // In a statement of its own: the lock must not last as long as the sync.
        let needed = self.writeback.begin_sync();
        if needed && !to_its_end {
            // Before a thread can have the outcome.
            syncer.detach();
            match self.writeback.submit_sync() {
                Some(Ok(())) => {}
                Some(Err(error)) => self.end_sync(self.writeback.reattach_syncer(), Err(error)),
                None => drop(self.writeback.reattach_syncer()),
            }
            return true;
        }
        if needed {
            let start = Instant::now();
            match self.writeback.sync() {
                Some(outcome) => {
                    self.latency.time(Measure::Device, start.elapsed());
                    self.end_sync(syncer, outcome);
                }
                // What was not durable when the ring was closed never will be.
                None => drop(syncer),
            }
        } else {
            drop(syncer);
        }
        self.notify();
        // The thread that drives may be covered by the sync, and need not wait for the device.
        self.writeback.interrupt();
        needed
    }

    /// A sync has ended, and with it its holder's claim. Then those that wait have to be notified.
    pub(crate) fn end_sync(&self, syncer: Claim<'_>, outcome: Result<(), DeviceError>) {
        match outcome {
            Ok(()) => {
                self.update(Ledger::end_sync);
                self.counters.synced();
                let durable = self.writeback.durable();
                event!(DEBUG, durable, "synced");
            }
            Err(error) => self.poison(RingError::Device(error)),
        }
        drop(syncer);
    }
}
