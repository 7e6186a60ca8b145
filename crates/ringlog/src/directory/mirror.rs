//! A ring writes to a device in memory, past the directory. What happens there is done in the directory as well, so
//! that its readers, and its crashes, see what they would see on disk.
//!
//! The device is locked while it reports an event, and the directory is locked then; never the other way round.

use core::mem;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use buffer_ring::{DeviceEvent, MemoryDevice, SEGMENT_HEADER};

use super::memory::{State, lock};

/// The files of a directory that a ring writes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    pub(super) device: MemoryDevice,
    is_watched: bool,
    /// By the file's index: what the ring knows it by.
    files: BTreeMap<usize, MemoryDevice>,
    /// Of files that are gone.
    spare: Vec<MemoryDevice>,
    /// By the first address that it holds: the file's index.
    addresses: BTreeMap<u64, usize>,
    /// By the device's number: the directory's, and whether it is durable when it completes.
    writes: BTreeMap<usize, (u64, bool)>,
    /// By the device's number: of which file, and what it covers.
    syncs: BTreeMap<usize, (usize, BTreeSet<u64>)>,
}

impl Mirror {
    /// What the ring knows this file by.
    pub(super) fn of(&self, file: usize) -> Option<MemoryDevice> {
        self.files.get(&file).cloned()
    }

    /// The file has lost its name.
    pub(super) fn end(&mut self, file: usize) {
        self.spare.extend(self.files.remove(&file));
        self.addresses.retain(|_, of| *of != file);
    }

    /// A ring will write to the file, whose first address is `start`.
    pub(super) fn begin(state: &Arc<Mutex<State>>, file: usize, start: u64) -> MemoryDevice {
        let mut locked = lock(state);
        let content = locked.seen(file).to_vec();
        let mirror = &mut locked.mirror;
        mirror.addresses.retain(|_, of| *of != file);
        mirror.addresses.insert(start, file);
        if let Some(known) = mirror.of(file) {
            return known;
        }
        let (device, spare) = (mirror.device.clone(), mirror.spare.pop());
        let is_watched = mem::replace(&mut mirror.is_watched, true);
        drop(locked);
        if !is_watched {
            let state = Arc::downgrade(state);
            device.watch(move |event| {
                if let Some(state) = state.upgrade() {
                    note(&state, event);
                }
            });
        }
        let handle = spare.unwrap_or_else(|| device.another_file(content.len()));
        handle.write_through(0, &content);
        lock(state).mirror.files.insert(file, handle.clone());
        handle
    }
}

/// Does in the directory what the device reports.
fn note(state: &Mutex<State>, event: DeviceEvent<'_>) {
    match event {
        DeviceEvent::WriteArrived { write, offset, bytes, durable } => {
            let mut state = lock(state);
            let Some((&start, &file)) = state.mirror.addresses.range(..=offset).next_back() else { return };
            let number = state.write(file, SEGMENT_HEADER + offset - start, bytes, true);
            state.mirror.writes.insert(write, (number, durable));
        }
        // Of a short one the rest arrives again.
        DeviceEvent::WriteCompleted { write, .. } => ended(state, write, true),
        DeviceEvent::WriteFailed { write } => ended(state, write, false),
        DeviceEvent::SyncBegan { sync } => {
            let files = lock(state).mirror.files.clone();
            let Some((&file, _)) = files.iter().find(|(_, device)| device.has_sync(sync)) else { return };
            let mut state = lock(state);
            let covered = state.covered(file);
            state.mirror.syncs.insert(sync, (file, covered));
        }
        DeviceEvent::SyncEnded { sync, succeeded } => {
            let mut state = lock(state);
            if let Some((file, covered)) = state.mirror.syncs.remove(&sync).filter(|_| succeeded) {
                state.synced(file, &covered);
            }
        }
        _ => {}
    }
}

fn ended(state: &Mutex<State>, write: usize, succeeded: bool) {
    let mut state = lock(state);
    if let Some((number, durable)) = state.mirror.writes.remove(&write) {
        state.complete(number, durable && succeeded);
    }
}
