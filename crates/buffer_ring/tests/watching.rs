//! Following the durable watermark: by waiting, and by an event that any event loop understands.

mod common;

use core::mem;
use core::time::Duration;
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
        assert_eq!(read(&watch), None, "moves before the first look are not counted");
        assert_eq!(watch.get(), 4096);
        ring.append_durable(&pattern(2, 100)).expect("a working device");
        ring.append_durable(&pattern(3, 100)).expect("a working device");
        assert_eq!((read(&watch.clone()), read(&watch)), (Some(2), None), "one event for all clones");
        let other = ring.durable_watch();
        assert_eq!(read(&other), None);
        drop(watch);
        ring.append_durable(&pattern(4, 100)).expect("a working device");
        assert_eq!(read(&other), Some(1), "one that is gone harms no other");
        // Written plainly, it moves nothing.
        ring.append(&pattern(5, 100)).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        assert_eq!(read(&other), None);
        ring.sync().expect("a working device");
        assert_eq!(read(&other), Some(1));
    });
}

#[test]
fn a_failure_reaches_those_that_watch() {
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
fn a_watch_outlives_its_ring_and_learns_that_it_is_gone() {
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

/// Waits until the event is readable, and takes that away.
fn await_event(watch: &DurableWatch) {
    eventually("the event is readable", || read(watch).is_some());
}

#[test]
fn an_event_made_after_the_end_or_the_failure_is_readable_at_once() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, 4096));
        let watch = ring.durable_watch();
        drop(ring);
        assert_eq!(read(&watch), Some(1));
        assert_eq!(read(&watch), None);

        let (ring, device) = in_memory(options(2, 4096));
        let (before, after) = (ring.durable_watch(), ring.durable_watch());
        assert_eq!(read(&before), None);
        device.fail_sync(EIO);
        ring.append(&pattern(1, 4096)).expect("room");
        ring.flush(&current(&ring)).wait().expect("written");
        ring.sync().expect_err("a failing device");
        assert_eq!((read(&before), read(&after)), (Some(1), Some(1)));
        let later = ring.durable_watch();
        assert_eq!(read(&later), Some(1));
        drop(ring);
        assert_eq!((read(&before), read(&later), read(&after.clone())), (Some(1), Some(1), Some(1)), "its end, too");
    });
}

/// An event that is being made while the ring ends or fails is readable, in whatever order that happens.
#[test]
fn an_event_that_is_made_while_the_ring_ends_or_fails_is_readable() {
    within(LIMIT, || {
        for round in 0..400 {
            let (ring, device) = in_memory(options(2, 4096));
            let watch = ring.durable_watch();
            if round % 2 == 0 {
                device.fail_write(0, EIO);
            }
            let clones = [watch.clone(), watch.clone()];
            thread::scope(|scope| {
                scope.spawn(move || {
                    if round % 2 == 0 {
                        ring.append_durable(&pattern(1, 100)).expect_err("a failing device");
                        // Its end would make the event readable, too.
                        core::mem::forget(ring);
                    }
                });
                for watch in clones {
                    scope.spawn(move || watch.eventfd().expect("a descriptor").try_clone_to_owned().expect("another"));
                }
            });
            assert!(read(&watch).is_some(), "round {round}");
        }
    });
}

/// The ways to give up, each with the address that was to be durable.
fn given_up(ring: &BufferRing, way: usize) -> u64 {
    match way {
        0 => match ring.append_durable_timeout(&pattern(1, 100), MOMENT) {
            Err(AppendError::NotDurableYet(extent)) => extent.end(),
            other => panic!("nothing can be durable: {other:?}"),
        },
        1 => {
            let extent = ring.append(&pattern(1, 5000)).expect("room");
            assert_eq!(ring.wait_durable_timeout(extent.end(), MOMENT), Err(RingError::TimedOut));
            extent.end()
        }
        2 => {
            // Written plainly before: what is missing is a sync.
            let extent = ring.append(&pattern(1, 8192)).expect("room");
            ring.append(&pattern(2, 100)).expect("room");
            assert_eq!(ring.sync_timeout(MOMENT), Err(RingError::TimedOut));
            extent.end() + 100
        }
        _ => {
            // Even without time, and whatever the others have begun.
            let end = ring.append(&pattern(1, 100)).expect("room").end();
            for _ in 0..2 {
                assert!(ring.append_durable_timeout(&pattern(2, 100), MOMENT).is_err());
            }
            assert_eq!(ring.wait_durable_timeout(end, core::time::Duration::ZERO), Err(RingError::TimedOut));
            end + 200
        }
    }
}

#[test]
fn a_thread_that_follows_finishes_a_commit_whose_caller_gave_up() {
    within(LIMIT, || {
        for (way, before) in (0..4).flat_map(|way| [(way, false), (way, true)]) {
            let (ring, device) = in_memory(options(4, 8192));
            let holding = Holding::new(&device);
            let watch = ring.durable_watch();
            let follow = |address| {
                let watch = watch.clone();
                thread::spawn(move || watch.wait_ge(address))
            };
            // The first wants less than what was given up, the second more, and gets that later.
            let followers: Vec<_> = if before { [50, 8193].map(follow).into() } else { Vec::new() };
            if before {
                thread::sleep(MOMENT);
            }
            let address = given_up(&ring, way);
            let followers: Vec<_> = if before { followers } else { [50, 8193].map(follow).into() };
            thread::sleep(core::time::Duration::from_millis(5));
            drop(holding);
            assert!(watch.wait_ge(address).is_ok_and(|durable| durable >= address), "way {way}, {before}");
            ring.append_durable(&pattern(9, 8192)).expect("a working device");
            for follower in followers {
                assert!(follower.join().expect("no panic").is_ok());
            }
            assert_eq!(device.synced(), device.contents());
        }
    });
}

#[test]
fn an_event_comes_for_a_commit_whose_caller_gave_up() {
    within(LIMIT, || {
        for (way, before) in (0..4).flat_map(|way| [(way, false), (way, true)]) {
            let (ring, device) = in_memory(options(4, 8192));
            let holding = Holding::new(&device);
            let watch = ring.durable_watch();
            if before {
                assert_eq!(read(&watch), None);
            }
            let address = given_up(&ring, way);
            // Nothing but the event looks at the ring from here on.
            assert_eq!(read(&watch), None, "way {way}, {before}");
            drop(holding);
            while watch.get() < address {
                await_event(&watch);
            }
            assert!(device.synced().len() as u64 >= address);
        }
    });
}

#[cfg(feature = "async")]
#[test]
fn a_future_that_is_dropped_leaves_its_commit_to_the_ring() {
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Waker};

    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 8192));
        let holding = Holding::new(&device);
        let watch = ring.durable_watch();
        assert_eq!(read(&watch), None);
        {
            let mut future = pin!(ring.append_durable_async(b"record"));
            assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(holding);
        while watch.get() < 6 {
            await_event(&watch);
        }
        assert!(device.synced().starts_with(b"record"));
    });
}

#[test]
fn followers_that_give_up_themselves_leave_the_commit_to_others() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 8192));
        let holding = Holding::new(&device);
        let watch = ring.durable_watch();
        let address = given_up(&ring, 0);
        let patient = {
            let watch = watch.clone();
            thread::spawn(move || watch.wait_ge(address))
        };
        for _ in 0..3 {
            assert_eq!(watch.wait_ge_timeout(address, MOMENT), Err(RingError::TimedOut));
        }
        drop(holding);
        assert!(patient.join().expect("no panic").is_ok());
    });
}

#[test]
fn a_commit_that_fails_after_its_caller_gave_up_reaches_those_that_follow() {
    within(LIMIT, || {
        for by_event in [false, true] {
            let (ring, device) = in_memory(options(4, 8192));
            let holding = Holding::new(&device);
            let watch = ring.durable_watch();
            if by_event {
                assert_eq!(read(&watch), None);
            }
            device.fail_write(0, EIO);
            let address = given_up(&ring, 0);
            let follower = (!by_event).then(|| {
                let watch = watch.clone();
                thread::spawn(move || watch.wait_ge(address))
            });
            thread::sleep(core::time::Duration::from_millis(5));
            drop(holding);
            match follower {
                Some(follower) => assert!(matches!(follower.join().expect("no panic"), Err(RingError::Device(_)))),
                None => await_event(&watch),
            }
            let failure = watch.wait_ge_timeout(address, core::time::Duration::ZERO);
            assert!(matches!(failure, Err(RingError::Device(_))), "{failure:?}");
            assert_eq!(watch.get(), 0);
        }
    });
}

// What a caller gave up, while the ring goes.

/// A ring is dropped at a device that holds its writes, while a thread follows what a caller gave up. They come back
/// `after` that.
fn follow_beside_the_end(timeout: Option<Duration>, before: Duration, after: Duration) -> Result<u64, RingError> {
    let (ring, device) = in_memory(options(4, 4096));
    let holding = Holding::new(&device);
    ring.append(&pattern(1, 4096)).expect("room");
    let address = ring.append(&pattern(2, 100)).expect("room").end();
    assert_eq!(ring.wait_durable_timeout(address, Duration::ZERO), Err(RingError::TimedOut));
    let watch = ring.durable_watch();
    let watermark = watch.clone();
    let dropper = thread::spawn(move || drop(ring));
    thread::sleep(before);
    let follower = thread::spawn(move || match timeout {
        Some(timeout) => watch.wait_ge_timeout(address, timeout),
        None => watch.wait_ge(address),
    });
    thread::sleep(after);
    drop(holding);
    dropper.join().expect("no panic");
    let outcome = follower.join().expect("no panic");
    let synced = device.synced().len() as u64;
    assert!(watermark.get() <= synced, "durable below {}, on stable storage {synced}", watermark.get());
    match &outcome {
        Ok(reached) => assert!(*reached >= address && *reached <= synced, "{reached}, on stable storage {synced}"),
        Err(error) => assert_eq!(*error, RingError::Closed),
    }
    outcome
}

#[test]
fn what_a_follower_finishes_while_the_ring_goes_is_on_stable_storage() {
    for timeout in [None, Some(2 * LIMIT)] {
        within(LIMIT, move || {
            for round in 0..300 {
                let before = Duration::from_micros(300 + round % 7 * 50);
                let after = Duration::from_micros(200 + round % 11 * 30);
                let outcome = follow_beside_the_end(timeout, before, after);
                assert!(matches!(outcome, Ok(_) | Err(RingError::Closed)), "round {round}: {outcome:?}");
            }
        });
    }
}

#[test]
fn a_follower_at_the_device_does_not_outlast_a_ring_that_goes() {
    within(LIMIT, || {
        for timeout in [None, Some(2 * LIMIT)] {
            let outcome = follow_beside_the_end(timeout, MOMENT, MOMENT);
            assert!(matches!(outcome, Ok(_) | Err(RingError::Closed)), "{outcome:?}");
        }
    });
}

/// A reservation that is never ended keeps the bytes behind it from the device. So the follower cannot finish anything.
#[test]
fn a_follower_behind_a_forgotten_reservation_learns_that_the_ring_has_gone() {
    within(LIMIT, || {
        for timeout in [None, Some(2 * LIMIT)] {
            let (ring, _device) = in_memory(options(4, 4096));
            mem::forget(ring.reserve(8).expect("room"));
            let address = ring.append(&pattern(1, 100)).expect("room").end();
            assert_eq!(ring.wait_durable_timeout(address, Duration::ZERO), Err(RingError::TimedOut));
            let watch = ring.durable_watch();
            let follower = thread::spawn(move || match timeout {
                Some(timeout) => watch.wait_ge_timeout(address, timeout),
                None => watch.wait_ge(address),
            });
            eventually("the follower is at it", || {
                ring.stats().oldest_reservation.is_some_and(|oldest| oldest.waiting.is_some())
            });
            drop(ring);
            assert_eq!(follower.join().expect("no panic"), Err(RingError::Closed));
        }
    });
}

// Durable appends with a time limit.

#[test]
fn a_durable_append_that_takes_too_long_says_where_its_bytes_are() {
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

/// A writer that stalls in the buffer of a thread that commits is notified by `stats`, and lets go who has a deadline.
#[test]
fn a_stalled_writer_beside_a_commit_is_reported() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, 4096));
        let ring: Arc<BufferRing> = Arc::new(ring);
        let stalled = ring.reserve(100).expect("room");
        let committer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.append_durable(&pattern(1, 100)))
        };
        eventually("the statistics name what is waited for", || {
            let oldest = ring.stats().oldest_reservation;
            oldest.is_some_and(|oldest| oldest.buffer_start == 0 && oldest.count == 1 && oldest.waiting.is_some())
        });
        assert_eq!(ring.wait_durable_timeout(1, MOMENT), Err(RingError::TimedOut));
        stalled.commit();
        assert!(committer.join().expect("no panic").is_ok());
        assert_eq!(ring.stats().oldest_reservation, None);
    });
}
