//! Without `auto_flush` exactly that is written which was asked for, also later.

mod common;

use buffer_ring::{BufferRing, BufferRingOptions, CommitPolicy, MemoryDevice, QuikIO, WriteMode};
use common::{LIMIT, current, held, in_memory, pattern, ring_on, within};

/// Four buffers, on a device of that mode.
fn ring_in(mode: WriteMode) -> (BufferRing, MemoryDevice) {
    let (io, device) = QuikIO::in_memory();
    drop(io);
    let io = device.builder().write_mode(mode).build().expect("a device");
    (ring_on(io, held(4, 4096)), device)
}

/// Fills up the current buffer, and so seals it when the next append comes.
fn fill(ring: &BufferRing, id: u64) {
    ring.append(&pattern(id, 4096 - (ring.tail() % 4096) as usize)).expect("room");
}

#[test]
fn a_wait_for_an_address_asks_for_nothing_that_begins_there() {
    within(LIMIT, || {
        type Wait = fn(&BufferRing);
        let waits: [Wait; 3] = [
            |ring| ring.wait_durable(4096).expect("a working device"),
            |ring| ring.wait_durable_timeout(4096, LIMIT).expect("a working device"),
            |ring| assert!(ring.durable_watch().wait_ge_timeout(4096, core::time::Duration::ZERO).is_err()),
        ];
        for (way, wait) in waits.into_iter().enumerate() {
            for next_is_sealed in [false, true] {
                let (ring, device) = in_memory(held(4, 4096));
                fill(&ring, 1);
                ring.append(&pattern(2, 100)).expect("room");
                let second = current(&ring);
                if next_is_sealed {
                    fill(&ring, 3);
                    ring.append(&pattern(4, 100)).expect("room");
                }
                wait(&ring);
                let written = if way == 2 { vec![] } else { vec![(0, 4096)] };
                assert_eq!(device.writes(), written, "{way} {next_is_sealed}");
                assert_eq!(second.is_sealed(), next_is_sealed);
                // Nor is it asked for by the time that it is sealed.
                fill(&ring, 5);
                ring.append(&pattern(6, 100)).expect("room");
                assert!(second.is_sealed());
                assert_eq!(device.writes(), written, "{way} {next_is_sealed}");
            }
        }
    });
}

#[test]
fn a_flush_asks_for_no_later_buffer_and_for_none_without_bytes() {
    within(LIMIT, || {
        for mode in [WriteMode::default(), WriteMode::Serialized] {
            for sealed_by_an_append in [false, true] {
                let (ring, device) = ring_in(mode);
                ring.append(&pattern(1, 100)).expect("room");
                let first = current(&ring);
                if sealed_by_an_append {
                    fill(&ring, 2);
                    ring.append(&pattern(3, 100)).expect("room");
                }
                ring.flush(&first).wait().expect("a working device");
                let second = current(&ring);
                if !sealed_by_an_append {
                    // It is open, and has no bytes: neither is that asked for.
                    ring.flush(&second).wait().expect("nothing to write");
                    assert_eq!(ring.sync(), Ok(4096));
                    fill(&ring, 4);
                }
                fill(&ring, 5);
                ring.append(&pattern(6, 100)).expect("room");
                assert!(second.is_sealed() && !second.is_written());
                assert_eq!(device.writes(), [(0, 4096)], "{mode:?} {sealed_by_an_append}");
                // All before it, in serialized mode.
                ring.flush(&second).wait().expect("a working device");
                assert_eq!(device.writes(), [(0, 4096), (4096, 4096)]);
            }
        }
    });
}

/// There are no batches to hold back: what is waited for is asked for at once.
#[test]
fn without_auto_flush_no_policy_holds_a_commit_back() {
    within(LIMIT, || {
        for policy in [CommitPolicy::MinInterval(core::time::Duration::MAX), CommitPolicy::MinBytes(u64::MAX)] {
            let (io, device) = QuikIO::in_memory();
            let options = BufferRingOptions { io_instance: Some(io.into()), ..held(4, 4096) };
            let ring = BufferRing::builder(options).commit_policy(policy).build().expect("valid options");
            for id in 0..3 {
                ring.append_durable(&pattern(id, 100)).expect("a working device");
            }
            assert_eq!(device.writes().len(), 3, "{policy:?}");
        }
    });
}
