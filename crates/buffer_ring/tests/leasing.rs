//! When a writer keeps its lease, and when it goes without one.

mod common;

use buffer_ring::{BufferRing, Extent, ONE_MEGABYTE_BLOCK, Writer, WriterStats};
use common::{current, fixed, held, in_memory, options, pattern, read};

fn stats(ring: &BufferRing) -> WriterStats {
    ring.stats().writers
}

/// With a lease that has room for more records of that length.
fn leasing(ring: &BufferRing, len: usize) -> Writer<'_> {
    let mut writer = ring.writer();
    for id in 0..100 {
        writer.append(&pattern(id, len)).expect("room");
    }
    let before = stats(ring).leased_records;
    writer.append(&pattern(100, len)).expect("room");
    assert_eq!(stats(ring).leased_records, before + 1, "it has a lease");
    writer
}

#[test]
fn a_durable_append_goes_into_the_lease_that_has_room_and_ends_it() {
    let (ring, device) = in_memory(options(2, ONE_MEGABYTE_BLOCK));
    let mut writer = leasing(&ring, 64);
    let before = stats(&ring);
    let extent = writer.append_durable(&pattern(1, 64)).expect("a working device");
    let after = stats(&ring);
    assert_eq!((after.leased_records, after.leases_ended), (before.leased_records + 1, before.leases_ended + 1));
    assert!(common::stored(&device, extent) == pattern(1, 64));
    // Now it has none, and takes none for this.
    writer.append_durable(&pattern(2, 64)).expect("a working device");
    assert_eq!(stats(&ring), after);
}

/// It waits for no writer that has nothing to write, whichever way it has to get along with the buffer.
#[test]
fn a_reader_takes_the_lease_of_an_idle_writer_back() {
    let size = ONE_MEGABYTE_BLOCK;
    for options in [options(2, size), fixed(2, size), held(2, size)] {
        let (ring, _device) = in_memory(options);
        let writer = leasing(&ring, 64);
        let before = stats(&ring).leases_ended;
        assert!(read(&ring, Extent::new(64 * 100, 64)) == pattern(100, 64));
        assert_eq!(stats(&ring).leases_ended, before + 1);
        assert!(!current(&ring).is_sealed(), "and needs nothing else");
        drop(writer);
    }
}

#[test]
fn records_that_are_encoded_in_place_share_leases() {
    let (ring, _device) = in_memory(options(2, ONE_MEGABYTE_BLOCK));
    let mut writer = ring.writer();
    let mut written = Vec::new();
    for id in 0..1000 {
        let bytes = pattern(id, 16);
        let extent = writer.append_with(16, |_, target| target.copy_from_slice(&bytes)).expect("room");
        written.push((extent, bytes));
    }
    let stats = stats(&ring);
    assert!(stats.leased_records > 900 && stats.leases_ended < 100, "{stats:?}");
    // Not before: a reader takes a lease back.
    assert!(written.into_iter().all(|(extent, bytes)| read(&ring, extent) == bytes));
}
