//! A device in memory that decides by a seed, and reports what happens.

mod common;

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};

use common::{attach, bytes, drain};
use ring_alloc::BLOCK;
use ring_io::{DeviceEvent, MemoryDevice, QuikIO, Wait};

/// Submits `count` writes, looks for completions now and then, syncs; gives what the device events.
fn story(seed: u64, count: u64) -> Vec<String> {
    let (io, device) = QuikIO::in_memory();
    let io = Arc::new(io);
    let events = Arc::new(Mutex::new(Vec::new()));
    device.shuffle(seed);
    device.watch({
        let events = Arc::clone(&events);
        move |event| {
            let line = match event {
                DeviceEvent::WriteArrived { write, durable, .. } => format!("arrived {write} {durable}"),
                DeviceEvent::WriteCompleted { write, bytes } => format!("completed {write}: {}", bytes.len()),
                other => format!("{other:?}"),
            };
            events.lock().expect("no panic").push(line);
        }
    });
    let queue = attach(&io);
    let mut finished = Vec::new();
    for token in 0..count {
        queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
        if token % 3 == 0 {
            queue.reap(Wait::No, &mut finished);
        }
    }
    queue.submit_sync().expect("no fault");
    let own = queue.write_durable_now(count, bytes(count, BLOCK), count * BLOCK as u64);
    assert!(own.durable);
    finished.extend(drain(&queue));
    assert_eq!(finished.len() as u64, count);
    io.sync().expect("a working device");
    assert_eq!(device.synced().len() as u64, (count + 1) * BLOCK as u64);
    events.lock().expect("no panic").clone()
}

#[test]
fn a_seed_repeats_what_a_shuffled_device_does() {
    assert_eq!(story(7, 30), story(7, 30));
    assert_ne!(story(7, 30), story(8, 30));
}

#[test]
fn a_shuffled_device_completes_out_of_order_and_each_write_once() {
    let events = story(1, 30);
    let completed: Vec<_> = events.iter().filter(|line| line.starts_with("completed")).collect();
    let in_order: Vec<_> = (0..31).map(|write| format!("completed {write}: {BLOCK}")).collect();
    assert_ne!(completed, in_order.iter().collect::<Vec<_>>());
    let mut sorted: Vec<_> = completed.into_iter().collect();
    sorted.sort_by_key(|line| line[10..line.len() - 6].parse::<u32>().expect("a number"));
    assert_eq!(sorted, in_order.iter().collect::<Vec<_>>());
    let syncs: Vec<_> = events.iter().filter(|line| line.starts_with("Sync")).collect();
    let sync =
        |sync| [format!("SyncBegan {{ sync: {sync} }}"), format!("SyncEnded {{ sync: {sync}, succeeded: true }}")];
    assert_eq!(syncs, [0, 1].map(sync).as_flattened().iter().collect::<Vec<_>>());
}

#[test]
fn a_failed_write_and_a_short_one_are_reported_as_what_they_are() {
    let (io, device) = QuikIO::in_memory();
    let events = Arc::new(Mutex::new(Vec::new()));
    device.fail_write(0, 5);
    device.shorten_write(1, 512);
    device.watch({
        let events = Arc::clone(&events);
        move |event| match event {
            DeviceEvent::WriteCompleted { write, bytes } => events.lock().expect("no panic").push((write, bytes.len())),
            DeviceEvent::WriteFailed { write } => events.lock().expect("no panic").push((write, usize::MAX)),
            _ => {}
        }
    });
    let queue = attach(&Arc::new(io));
    queue.submit(0, bytes(0, BLOCK), 0);
    queue.submit(1, bytes(1, BLOCK), BLOCK as u64);
    assert_eq!(drain(&queue).len(), 2);
    assert_eq!(*events.lock().expect("no panic"), [(0, usize::MAX), (1, 512), (2, BLOCK)]);
}

#[test]
fn a_panic_of_the_watcher_does_not_meet_another_one() {
    /// Uses the remote control while its thread unwinds.
    struct Uses(MemoryDevice);
    impl Drop for Uses {
        fn drop(&mut self) {
            assert_eq!(self.0.held(), 0);
        }
    }
    let (io, device) = QuikIO::in_memory();
    let queue = attach(&Arc::new(io));
    device.watch(|event| assert!(!matches!(event, DeviceEvent::WriteArrived { .. }), "the watcher's"));
    queue.submit(7, bytes(7, BLOCK), 0);
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let _uses = Uses(device.clone());
        panic!("its own");
    }));
    assert_eq!(payload.expect_err("a panic").downcast_ref::<&str>(), Some(&"its own"));
    assert_eq!(drain(&queue)[0].result, Ok(()));
}
