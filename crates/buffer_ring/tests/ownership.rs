//! Memory outlives the I/O that reads it, whatever is dropped first, and whatever order writes complete in.

mod common;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs::File;
use std::sync::Arc;
use std::thread;

use buffer_ring::{BufferHandle, BufferRing, FlushTicket, QuikIO, RingError};
use common::{
    Holding, LIMIT, MOMENT, buffered_file, current, disk, eventually, in_memory, options, pattern, ring_on, within,
};

/// Every order of five things.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for next in 0..5 {
        let insert =
            |order: Vec<usize>| (0..=order.len()).map(move |at| [&order[..at], &[next], &order[at..]].concat());
        orders = orders.into_iter().flat_map(insert).collect();
    }
    assert_eq!(orders.len(), 120);
    orders
}

/// What a thread may have in hand when the ring goes.
struct Parts {
    ring: Option<BufferRing>,
    io: Option<Arc<QuikIO>>,
    file: Option<Arc<File>>,
    ticket: Option<FlushTicket>,
    handle: Option<BufferHandle>,
}

impl Parts {
    /// Two buffers on their way, and a third with bytes in it.
    fn new(io: QuikIO, file: Option<Arc<File>>) -> Self {
        let io = Arc::new(io);
        let ring = ring_on(Arc::clone(&io), options(3, 8192));
        ring.append(&pattern(0, 8192)).expect("room");
        ring.append(&pattern(1, 5000)).expect("room");
        let handle = current(&ring);
        let ticket = ring.flush(&handle);
        ring.append(&pattern(2, 100)).expect("room");
        Self { ring: Some(ring), io: Some(io), file, ticket: Some(ticket), handle: Some(handle) }
    }

    fn take(&mut self, which: usize) {
        match which {
            0 => drop(self.ring.take()),
            1 => drop(self.io.take()),
            2 => drop(self.file.take()),
            3 => drop(self.ticket.take()),
            _ => drop(self.handle.take()),
        }
    }
}

fn expected() -> Vec<u8> {
    [pattern(0, 8192), pattern(1, 5000), vec![0; 3192], pattern(2, 100), vec![0; 3996]].concat()
}

#[test]
fn everything_can_be_dropped_in_every_order_with_writes_in_flight() {
    within(LIMIT, || {
        for order in orders() {
            let (io, device) = QuikIO::in_memory();
            device.hold();
            let mut parts = Parts::new(io, None);
            assert_eq!(device.held(), 2);
            let progress = AtomicUsize::new(0);
            thread::scope(|scope| {
                let dropping = scope.spawn(|| {
                    for &which in &order {
                        parts.take(which);
                        progress.fetch_add(1, Ordering::Release);
                    }
                });
                let ring_at = order.iter().position(|&which| which == 0).expect("the ring is among them");
                eventually("all before the ring is gone", || progress.load(Ordering::Acquire) >= ring_at);
                eventually("the ring has flushed its last buffer", || device.held() == 3);
                assert_eq!(progress.load(Ordering::Acquire), ring_at, "{order:?}: the ring waits for its I/O");
                assert_eq!(device.contents(), [], "nothing has completed");
                // Newest first.
                (0..3).rev().for_each(|held| device.release(held));
                dropping.join().expect("no panic");
            });
            assert!(device.contents() == expected(), "{order:?}");
        }
    });
}

#[test]
fn everything_can_be_dropped_in_every_order_on_a_real_file() {
    let dir = disk();
    within(LIMIT, move || {
        let path = dir.path().join("log");
        for order in orders() {
            let _ = std::fs::remove_file(&path);
            let file = Arc::new(buffered_file(&path));
            let mut parts = Parts::new(QuikIO::new(Arc::clone(&file)), Some(file));
            order.iter().for_each(|&which| parts.take(which));
            assert!(std::fs::read(&path).expect("the file") == expected(), "{order:?}");
        }
    });
}

#[test]
fn a_ticket_and_a_handle_outlive_the_ring() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        device.hold();
        ring.append(&pattern(1, 100)).expect("room");
        let handle = current(&ring);
        let ticket = ring.flush(&handle);
        let nothing = ring.flush(&current(&ring));
        let waiting = thread::spawn({
            let ticket = ticket.clone();
            move || ticket.wait()
        });
        let dropping = thread::spawn(move || drop(ring));
        assert!(!ticket.is_done() && !handle.is_written());
        assert_eq!(ticket.wait_timeout(MOMENT), Err(RingError::TimedOut));
        device.release_all();
        dropping.join().expect("no panic");
        assert_eq!(waiting.join().expect("no panic"), Ok(()));
        assert_eq!((ticket.wait(), ticket.is_done(), nothing.wait()), (Ok(()), true, Ok(())));
        assert!(handle.is_sealed() && handle.is_written());
        assert!(device.contents()[..100] == pattern(1, 100));
    });
}

#[test]
fn a_full_ring_in_flight_makes_appends_wait_and_does_not_reuse_its_memory() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(3, 4096));
        let _holding = Holding::new(&device);
        for id in 0..3 {
            ring.append(&pattern(id, 4096)).expect("room");
        }
        thread::scope(|scope| {
            let last = current(&ring);
            let waiting = [3, 4].map(|id| {
                let ring = &ring;
                scope.spawn(move || (id, ring.append(&pattern(id, 4096)).expect("room in the end")))
            });
            eventually("an append has sealed the last buffer", || last.is_sealed() && device.held() == 3);
            assert_eq!((ring.tail(), ring.written_watermark()), (12288, 0));
            // The thread that waits for the oldest buffer is not worked by the others.
            device.release(2);
            device.release(1);
            eventually("the newest write has been noticed", || last.is_written());
            assert_eq!((ring.tail(), ring.written_watermark()), (12288, 0), "the watermark waits at the gap");
            device.release(0);
            let mut starts = waiting.map(|append| append.join().expect("no panic"));
            // The second one needs the buffer that the first one has not sealed yet to be let go.
            starts.sort_by_key(|(_, extent)| extent.start());
            assert_eq!(starts.map(|(_, extent)| extent.start()), [12288, 16384]);
            assert_eq!(ring.written_watermark(), 12288);
            device.release_all();
            ring.sync().expect("a working device");
            let contents = device.contents();
            for id in 0..3 {
                let start = id as usize * 4096;
                assert!(contents[start..start + 4096] == pattern(id, 4096), "buffer {id} went out as it was appended");
            }
            for (id, extent) in starts {
                assert!(contents[extent.start() as usize..extent.end() as usize] == pattern(id, 4096));
            }
        });
        assert!((1..=2).contains(&ring.stats().full_waits), "the other one may have come too late to wait");
    });
}

#[test]
fn writes_that_complete_out_of_order_resolve_their_tickets_and_not_the_watermark() {
    within(LIMIT, || {
        let mut random = common::Random::new(1);
        for _ in 0..50 {
            let (ring, device) = in_memory(options(8, 4096));
            let _holding = Holding::new(&device);
            let tickets: Vec<_> = (0..7)
                .map(|id| {
                    ring.append(&pattern(id, 4096)).expect("room");
                    ring.flush(&current(&ring))
                })
                .collect();
            let (mut held, mut done): (Vec<usize>, _) = ((0..7).collect(), [false; 7]);
            while !held.is_empty() {
                let at = random.below(held.len());
                let which = held.remove(at);
                device.release(at);
                assert_eq!(tickets[which].wait(), Ok(()));
                done[which] = true;
                let answers: Vec<bool> = tickets.iter().map(FlushTicket::is_done).collect();
                assert_eq!(answers, done, "each ticket is for its own buffer");
                let prefix = done.iter().take_while(|&&done| done).count() as u64;
                assert_eq!((ring.written_watermark(), ring.durable_watermark()), (prefix * 4096, 0), "{done:?}");
            }
            assert_eq!(ring.sync(), Ok(7 * 4096));
        }
    });
}
