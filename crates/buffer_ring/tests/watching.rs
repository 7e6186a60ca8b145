//! Following the durable watermark: by waiting, and by an event that any event loop understands.

mod common;

use std::io::Read;
use std::sync::Arc;
use std::thread;

use buffer_ring::{AppendError, BufferRing, DurableWatch, RingError};
use common::{EIO, Holding, LIMIT, MOMENT, current, eventually, in_memory, options, pattern, within};

/// What the event counts, and so takes away.
fn read(watch: &DurableWatch) -> Option<u64> {
    let mut event = std::fs::File::from(watch.eventfd().expect("a descriptor").try_clone_to_owned().expect("another"));
    let mut count = [0; 8];
    event.read_exact(&mut count).is_ok().then(|| u64::from_ne_bytes(count))
}

#[test]
fn a_watch_follows_the_durable_watermark_and_moves_nothing() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let watch = ring.durable_watch();
        assert_eq!(watch.get(), 0);
        let followers = [100, 4097].map(|address| {
            let watch = watch.clone();
            thread::spawn(move || watch.wait_ge(address))
        });
        ring.append(&pattern(1, 100)).expect("room");
        assert_eq!(watch.wait_ge_timeout(100, MOMENT), Err(RingError::TimedOut));
        assert!(device.writes().is_empty(), "a watch asks for nothing");
        ring.append_durable(&pattern(2, 100)).expect("a working device");
        assert_eq!(watch.get(), 4096);
        ring.append_durable(&pattern(3, 100)).expect("a working device");
        for (follower, least) in followers.into_iter().zip([100, 4097]) {
            let reached = follower.join().expect("no panic").expect("it gets there");
            assert!(reached >= least && reached <= 8192);
        }
        assert_eq!(watch.wait_ge(0), Ok(8192));
    });
}

#[test]
fn the_event_is_readable_after_each_move() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, 4096));
        let watch = ring.durable_watch();
        ring.append_durable(&pattern(1, 100)).expect("a working device");
        assert_eq!(read(&watch), None, "moves before the first look are not told");
        assert_eq!(watch.get(), 4096);
        ring.append_durable(&pattern(2, 100)).expect("a working device");
        ring.append_durable(&pattern(3, 100)).expect("a working device");
        assert_eq!((read(&watch.clone()), read(&watch)), (Some(2), None), "one event for all clones");
        let other = ring.durable_watch();
        assert_eq!(read(&other), None);
        drop(watch);
        ring.append_durable(&pattern(4, 100)).expect("a working device");
        assert_eq!(read(&other), Some(1), "one that is gone harms nobody");
        // Written plainly, it moves nothing.
        ring.append(&pattern(5, 100)).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        assert_eq!(read(&other), None);
        ring.sync().expect("a working device");
        assert_eq!(read(&other), Some(1));
    });
}

#[test]
fn a_failure_reaches_those_who_watch() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let watch = ring.durable_watch();
        assert_eq!(read(&watch), None);
        let follower = {
            let watch = watch.clone();
            thread::spawn(move || watch.wait_ge(1))
        };
        device.fail_write(0, EIO);
        let failure = match ring.append_durable(&pattern(1, 100)) {
            Err(AppendError::Poisoned(failure)) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(follower.join().expect("no panic"), Err(failure.clone()));
        assert_eq!(read(&watch), Some(1));
        drop(ring);
        assert_eq!(watch.wait_ge(1), Err(failure));
    });
}

#[test]
fn a_watch_outlives_its_ring_and_is_told_that_it_is_gone() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, 4096));
        let watch = ring.durable_watch();
        assert_eq!(read(&watch), None);
        let follower = {
            let watch = watch.clone();
            thread::spawn(move || watch.wait_ge(4097))
        };
        ring.append_durable(&pattern(1, 100)).expect("a working device");
        drop(ring);
        assert_eq!(follower.join().expect("no panic"), Err(RingError::Closed));
        assert_eq!(watch.wait_ge(4096), Ok(4096), "what was durable stays so");
        assert!(read(&watch) >= Some(1));
    });
}

#[test]
fn many_followers_see_what_is_durable_and_in_their_order() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 16384));
        let ring = Arc::new(ring);
        let followers: Vec<_> = (1..=16)
            .map(|n| {
                let (watch, device) = (ring.durable_watch(), device.clone());
                thread::spawn(move || {
                    for address in (n..200 * 100).step_by(900) {
                        let reached = watch.wait_ge(address).expect("it gets there");
                        assert!(reached >= address && device.synced().len() as u64 >= reached);
                    }
                })
            })
            .collect();
        let committers = [0, 1, 2, 3].map(|id| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (0..50).for_each(|n| drop(ring.append_durable(&pattern(id * 50 + n, 100)))))
        });
        committers.into_iter().for_each(|thread| thread.join().expect("no panic"));
        followers.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}

// Durable appends with a time limit.

#[test]
fn a_durable_append_that_takes_too_long_tells_where_its_bytes_are() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 4096));
        let holding = Holding::new(&device);
        let Err(AppendError::NotDurableYet(extent)) = ring.append_durable_timeout(&pattern(1, 100), MOMENT) else {
            panic!("nothing can be durable")
        };
        assert_eq!((extent.start(), extent.len(), ring.durable_watermark()), (0, 100, 0));
        assert!(common::read(&ring, extent) == pattern(1, 100));
        drop(holding);
        assert_eq!(ring.wait_durable(extent.end()), Ok(()), "the append stays valid");
        assert!(common::stored(&device, extent) == pattern(1, 100));
        assert!(ring.append_durable_timeout(&pattern(2, 100), LIMIT).is_ok());
    });
}

#[test]
fn a_durable_append_that_finds_no_room_in_time_has_appended_nothing() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let _holding = Holding::new(&device);
        for id in 0..2 {
            ring.append(&pattern(id, 4096)).expect("room");
        }
        let tail = ring.tail();
        assert_eq!(ring.append_durable_timeout(&pattern(1, 100), MOMENT), Err(AppendError::TimedOut));
        assert_eq!((ring.tail(), ring.stats().records_appended), (tail, 2));
    });
}

/// A writer that stalls in the buffer of somebody who commits is told by `stats`, and lets go who has a deadline.
#[test]
fn a_stalled_writer_beside_a_commit_is_told() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, 4096));
        let ring: Arc<BufferRing> = Arc::new(ring);
        let stalled = ring.reserve(100).expect("room");
        let committer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.append_durable(&pattern(1, 100)))
        };
        eventually("it is told who is waited for", || {
            let oldest = ring.stats().oldest_reservation;
            oldest.is_some_and(|oldest| oldest.buffer_start == 0 && oldest.count == 1 && oldest.waiting.is_some())
        });
        assert_eq!(ring.wait_durable_timeout(1, MOMENT), Err(RingError::TimedOut));
        stalled.commit();
        assert!(committer.join().expect("no panic").is_ok());
        assert_eq!(ring.stats().oldest_reservation, None);
    });
}
