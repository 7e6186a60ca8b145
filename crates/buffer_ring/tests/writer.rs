//! Writers: what they promise, what they leave behind, and whom they never hold up.

mod common;

use core::mem;
use core::time::Duration;
use std::io::IoSlice;
use std::sync::Barrier as Meeting;
use std::{env, thread};

use buffer_ring::{AppendError, BufferRing, Extent, RingError, Writer};
use common::{
    EIO, Holding, LIMIT, Random, current, eventually, fixed, held, in_memory, options, pattern, read, within,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

const BUFFER: usize = 64 << 10;

/// Appends until the writer has a lease of at least `least` bytes. All records are 16 bytes long.
fn warm_up(writer: &mut Writer<'_>, least: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    while leased(writer) < least {
        extents.push(writer.append(&[7; 16]).expect("room"));
    }
    extents
}

/// Bytes that the writer's lease has left, as it tells them.
fn leased(writer: &Writer<'_>) -> u64 {
    let told = format!("{writer:?}");
    let number = told.split("leased: ").nth(1).and_then(|rest| rest.split(',').next());
    number.expect("it tells").trim().parse().expect("a number")
}

#[test]
fn a_writer_appends_what_it_is_given_where_it_says() {
    let (ring, device) = in_memory(options(4, BUFFER));
    let mut writer = ring.writer();
    let mut random = Random::new(7);
    let mut log = Vec::new();
    for id in 0..5000 {
        let bytes = pattern(id, random.up_to(300));
        let extent = match id % 3 {
            0 => writer.append(&bytes),
            1 => writer.append_vectored(&[IoSlice::new(&bytes[..1]), IoSlice::new(&[]), IoSlice::new(&bytes[1..])]),
            _ => writer.append_timeout(&bytes, LIMIT),
        };
        log.push((extent.expect("room"), bytes));
    }
    assert!(log.windows(2).all(|pair| pair[0].0.end() <= pair[1].0.start()), "a writer's own extents ascend");
    let stats = ring.stats();
    assert_eq!(stats.records_appended, 5000);
    assert_eq!(stats.bytes_appended, log.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    assert!(stats.writers.leased_records > 4000 && stats.writers.leases_ended > 10, "{:?}", stats.writers);
    drop(writer);
    ring.close().expect("nothing failed");
    let mut expected = vec![0; device.contents().len()];
    for (extent, bytes) in log {
        expected[extent.start() as usize..extent.end() as usize].copy_from_slice(&bytes);
    }
    assert!(device.contents() == expected, "the log has the records, and zeros between them");
}

#[test]
fn writers_and_plain_appends_mix() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, BUFFER));
        let log: Vec<(Extent, Vec<u8>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|thread| {
                    let ring = &ring;
                    scope.spawn(move || {
                        let (mut writer, mut random) = (ring.writer(), Random::new(thread));
                        let append = |id| {
                            let bytes = pattern(thread << 32 | id, random.up_to(200));
                            let extent = match thread {
                                0 => ring.append(&bytes),
                                1 if id % 100 == 0 => writer.append_durable(&bytes),
                                2 if id % 50 == 0 => writer.reserve(bytes.len()).map(|mut reserved| {
                                    reserved.copy_from_slice(&bytes);
                                    reserved.commit()
                                }),
                                _ => writer.append(&bytes),
                            };
                            let extent = extent.expect("room");
                            if id % 97 == 0 {
                                assert!(read(ring, extent) == bytes);
                            }
                            (extent, bytes)
                        };
                        (0..4000).map(append).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(ring.stats().records_appended, 24000);
        ring.close().expect("nothing failed");
        let mut expected = vec![0; device.contents().len()];
        for (extent, bytes) in log {
            let place = &mut expected[extent.start() as usize..extent.end() as usize];
            assert!(place.iter().all(|&byte| byte == 0), "{extent:?} overlaps another one");
            place.copy_from_slice(&bytes);
        }
        assert!(device.contents() == expected);
    });
}

#[test]
fn a_writer_takes_a_lease_after_a_run_of_appends_and_none_when_each_is_waited_for() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(4, BUFFER));
        let mut writer = ring.writer();
        for _ in 0..200 {
            writer.append_durable(&[1; 16]).expect("room");
            writer.append(&[2; 16]).expect("room");
        }
        let stats = ring.stats();
        assert_eq!((stats.writers.leased_records, stats.writers.unused_bytes), (0, 0));
        assert_eq!(stats.records_appended, 400);
        warm_up(&mut writer, 8000);
        assert!(ring.stats().writers.leased_records > 0);
    });
}

#[test]
fn a_commit_ends_the_lease_and_has_what_was_in_it() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, BUFFER));
        let mut writer = ring.writer();
        let before = warm_up(&mut writer, 1000);
        let extent = writer.append_durable(&pattern(1, 16)).expect("room");
        assert_eq!(leased(&writer), 0);
        assert!(ring.durable_watermark() >= extent.end() && extent.start() >= before[before.len() - 1].end());
        assert!(device.synced()[extent.start() as usize..extent.end() as usize] == pattern(1, 16));
        let next = writer.append(&[1; 16]).expect("room");
        assert!(next.start() >= extent.end());
    });
}

/// The heart of it: nobody waits for a writer that does nothing. A hang would show.
#[test]
fn an_idle_writer_holds_up_nobody() {
    within(LIMIT, || {
        for options in [options(2, BUFFER), held(3, BUFFER)] {
            let (ring, _device) = in_memory(options);
            let mut idle: Vec<_> = (0..100).map(|_| ring.writer()).collect();
            let mut commits = 0;
            for round in 0..20 {
                for writer in idle.iter_mut().skip(round % 3) {
                    for _ in 0..40 {
                        writer.append(&[1; 16]).expect("room");
                    }
                }
                for _ in 0..5 {
                    let extent = ring.append_durable(&pattern(commits, 100)).expect("room");
                    assert!(ring.durable_watermark() >= extent.end());
                    commits += 1;
                }
                assert_eq!(ring.sync(), Ok(ring.durable_watermark()));
            }
            let stats = ring.stats();
            assert_eq!(stats.oldest_reservation, None, "nothing is left that could be waited for");
            assert_eq!(stats.writers.open, 100);
            assert!(stats.writers.leases_ended > 100, "{:?}", stats.writers);
        }
    });
}

/// The first commit ends the leases of idle writers; those that follow do exactly what they do without.
#[test]
fn idle_writers_cost_those_who_commit_nothing_but_their_leases() {
    const COMMITS: u64 = 5000;
    let commit = |idle: u64| {
        within(LIMIT, move || {
            let (ring, _device) = in_memory(options(2, BUFFER));
            let mut writers: Vec<_> = (0..idle).map(|_| ring.writer()).collect();
            writers.iter_mut().for_each(|writer| drop(warm_up(writer, 100)));
            let opened = ring.stats().writers.leases_ended;
            ring.append_durable(&[1; 100]).expect("room");
            let before = ring.stats();
            assert_eq!(before.writers.leases_ended - opened, idle, "all that there were, in one commit");
            for _ in 0..COMMITS {
                ring.append_durable(&[1; 100]).expect("room");
            }
            let after = ring.stats();
            assert_eq!(after.writers.leases_ended, before.writers.leases_ended);
            let flushes = after.durable_writes + after.syncs - before.durable_writes - before.syncs;
            (flushes, after.buffers_flushed - before.buffers_flushed, after.full_waits - before.full_waits)
        })
    };
    assert_eq!(commit(0), (COMMITS, COMMITS, 0));
    assert_eq!(commit(20), commit(0));
}

#[test]
fn a_lease_of_an_idle_writer_is_ended_by_whoever_needs_its_buffer() {
    within(LIMIT, || {
        type Need = fn(&BufferRing, Extent);
        let needs: [(&str, Need); 6] = [
            ("sync", |ring, _| drop(ring.sync())),
            ("flush", |ring, _| ring.flush(&current(ring)).wait().expect("written")),
            ("wait_durable", |ring, extent| ring.wait_durable(extent.end()).expect("durable")),
            ("read", |ring, extent| assert_eq!(read(ring, extent), [7; 16])),
            ("a full buffer", |ring, _| {
                let life = current(ring);
                while !life.is_sealed() {
                    ring.append(&[1; 1000]).expect("room");
                }
            }),
            ("append_durable", |ring, _| drop(ring.append_durable(&[1]))),
        ];
        for (what, need) in needs {
            let (ring, _device) = in_memory(options(4, BUFFER));
            let mut writer = ring.writer();
            let extents = warm_up(&mut writer, 500);
            let last = extents[extents.len() - 1];
            let before = ring.stats().writers;
            need(&ring, last);
            let after = ring.stats().writers;
            assert_eq!(after.leases_ended, before.leases_ended + 1, "{what}");
            assert_eq!(
                after.unused_bytes - before.unused_bytes,
                leased(&writer),
                "{what}: as much as the writer believes"
            );
            let next = writer.append(&[2; 16]).expect("room");
            assert!(next.start() >= last.end(), "{what}: its own extents ascend");
        }
    });
}

/// Who cannot have the owner pass a barrier cannot know what it is doing, and leaves the lease to it.
#[test]
fn a_lease_is_left_to_its_owner_where_the_kernel_refuses_a_barrier_that_it_gave_before() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, BUFFER));
        let mut writer = ring.writer();
        if !ring.stats().writers.membarrier {
            eprintln!("SKIPPED: the kernel offers no membarrier");
            return;
        }
        let end = warm_up(&mut writer, 1).last().expect("some").end();
        thread::scope(|scope| {
            let commit = scope.spawn(|| {
                refuse_membarrier();
                ring.wait_durable(end)
            });
            let sealed = || ring.stats().oldest_reservation.is_some_and(|oldest| oldest.waiting.is_some());
            eventually("the lease is all that the commit waits for", sealed);
            assert_eq!((ring.durable_watermark(), device.writes().len()), (0, 0));
            // It finds its lease revoked: this record goes behind it.
            let next = writer.append(&[8; 16]).expect("room");
            assert_eq!(commit.join().expect("no panic"), Ok(()));
            assert!(next.start() >= ring.durable_watermark());
        });
        drop(writer);
        ring.close().expect("nothing failed");
        let contents = device.contents();
        assert!(contents[..end as usize].iter().all(|&byte| byte == 7));
        assert_eq!(contents[end as usize..].iter().filter(|&&byte| byte != 0).count(), 16);
    });
}

/// For this thread, for good.
fn refuse_membarrier() {
    let rules = [(libc::SYS_membarrier, Vec::new())].into();
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("a filter");
    apply_filter(&BpfProgram::try_from(filter).expect("a filter")).expect("a kernel with seccomp");
}

#[test]
fn what_an_ended_lease_has_left_is_zeros() {
    within(LIMIT, || {
        // Buffers with content of an earlier life.
        let (ring, device) = in_memory(options(2, 4096));
        ring.append(&pattern(1, 4096)).expect("room");
        ring.append(&pattern(2, 4096)).expect("room");
        let mut writer = ring.writer();
        let extents = warm_up(&mut writer, 200);
        let end = ring.sync().expect("nothing failed");
        let last = extents[extents.len() - 1].end() as usize;
        assert!(device.contents()[8192..last].iter().all(|&byte| byte == 7));
        assert!(device.contents()[last..end as usize].iter().all(|&byte| byte == 0));
    });
}

#[test]
fn long_records_go_alone_and_longer_ones_than_a_buffer_not_at_all() {
    let (ring, _device) = in_memory(options(4, 4096));
    let mut writer = ring.writer();
    let before = warm_up(&mut writer, 200);
    assert_eq!(writer.append(&[1; 4097]), Err(AppendError::TooLarge { len: 4097, max: 4096 }));
    assert_eq!(writer.append(&[]), Err(AppendError::Empty));
    assert_eq!(writer.append_vectored(&[IoSlice::new(&[]), IoSlice::new(&[])]), Err(AppendError::Empty));
    assert_eq!(writer.append_durable(&[]), Err(AppendError::Empty));
    assert_eq!(writer.append_durable(&[1; 4097]), Err(AppendError::TooLarge { len: 4097, max: 4096 }));
    assert_eq!(writer.reserve(4097).map(drop), Err(AppendError::TooLarge { len: 4097, max: 4096 }));
    assert!(leased(&writer) > 0, "what is refused costs no lease");
    let whole = writer.append(&pattern(1, 4096)).expect("room");
    assert!(whole.start() == 4096 && whole.start() >= before[before.len() - 1].end());
    assert!(read(&ring, whole) == pattern(1, 4096));
}

#[test]
fn a_writer_never_waits_if_it_is_not_to() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, 4096));
        let _holding = Holding::new(&device);
        let mut writer = ring.writer();
        let mut appended = 0;
        let full = loop {
            match writer.try_append(&[1; 16]) {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, AppendError::RingFull);
        assert!(appended > 300, "two buffers, apart from what leases had left: {appended}");
        assert_eq!(writer.append_timeout(&[1; 16], Duration::from_millis(1)), Err(AppendError::TimedOut));
        assert_eq!(writer.try_reserve(16).map(drop), Err(AppendError::RingFull));
    });
}

#[test]
fn a_poisoned_ring_takes_nothing_from_writers_that_have_a_lease() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, BUFFER));
        let (mut one, mut other) = (ring.writer(), ring.writer());
        let staged = warm_up(&mut one, 500);
        warm_up(&mut other, 500);
        device.fail_sync(EIO);
        device.fail_write(0, EIO);
        let failure = ring.append_durable(&[1; 16]).expect_err("the device fails");
        assert!(matches!(failure, AppendError::Poisoned(RingError::Device(_))));
        for writer in [&mut one, &mut other] {
            assert_eq!(writer.append(&[1; 16]), Err(failure.clone()));
            assert_eq!(writer.append_durable(&[1; 16]), Err(failure.clone()));
            assert_eq!(writer.try_append(&[1; 16]), Err(failure.clone()));
            assert_eq!(writer.reserve(16).map(drop), Err(failure.clone()));
        }
        assert_eq!(read(&ring, staged[0]), [7; 16], "for rescue");
    });
}

#[test]
fn a_writer_goes_from_thread_to_thread() {
    let (ring, _device) = in_memory(options(4, BUFFER));
    let mut writer = ring.writer();
    let mut last = 0;
    for thread in 0..8 {
        let end;
        (writer, end) = thread::scope(|scope| {
            let moved = scope.spawn(|| {
                let ends = (0..500).map(|_| writer.append(&[thread; 16]).expect("room").end());
                let end = ends.last().expect("some");
                (writer, end)
            });
            moved.join().expect("no panic")
        });
        assert!(end > last);
        last = end;
    }
    assert_eq!(ring.stats().records_appended, 4000);
}

#[test]
fn a_thread_that_panics_leaves_nothing_behind() {
    within(LIMIT, || {
        let (owned, _device) = in_memory(options(2, BUFFER));
        let ring = &owned;
        thread::scope(|scope| {
            for reserves in [true, false, true, false] {
                let outcome = scope.spawn(move || {
                    let mut writer = ring.writer();
                    warm_up(&mut writer, 300);
                    if reserves {
                        let mut reserved = writer.reserve(100).expect("room");
                        reserved.fill(1);
                        panic!("while it encodes");
                    }
                    panic!("with a lease");
                });
                assert!(outcome.join().is_err());
            }
        });
        assert_eq!(ring.stats().reservations_aborted, 2);
        assert_eq!(ring.stats().writers.open, 0);
        assert!(ring.stats().writers.leases_ended >= 4);
        assert_eq!(ring.stats().oldest_reservation, None);
        let end = ring.tail().next_multiple_of(4096);
        assert_eq!(owned.close(), Ok(end));
    });
}

#[test]
fn a_leaked_writer_holds_up_neither_commits_nor_the_end() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, BUFFER));
        for round in 0..100 {
            let mut writer = ring.writer();
            let extents = warm_up(&mut writer, 100);
            mem::forget(writer);
            if round % 2 == 0 {
                assert_eq!(ring.wait_durable(extents[0].end()), Ok(()));
            }
        }
        assert_eq!(ring.stats().writers.open, 100);
        let end = ring.close().expect("no reservation was leaked");
        assert_eq!(device.synced().len() as u64, end);
    });
    within(LIMIT, || {
        let (ring, device) = in_memory(options(2, BUFFER));
        let mut writer = ring.writer();
        let extents = warm_up(&mut writer, 100);
        mem::forget(writer);
        drop(ring);
        assert!(device.contents()[..extents[0].len()].iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_leaked_reservation_of_a_writer_is_one_of_the_ring() {
    within(LIMIT, || {
        let (ring, _device) = in_memory(options(2, BUFFER));
        let mut writer = ring.writer();
        mem::forget(writer.reserve(100).expect("room"));
        assert_eq!(ring.sync_timeout(Duration::from_millis(1)), Err(RingError::TimedOut));
        writer.append(&[1; 16]).expect("room in the next buffer");
        drop(writer);
        assert_eq!(ring.close(), Err(RingError::ReservationLeaked(0)));
    });
}

#[test]
fn thousands_of_writers_come_and_go() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, 1 << 20));
        let mut writers: Vec<_> = (0..3000).map(|_| ring.writer()).collect();
        for round in 0..3 {
            for (id, writer) in writers.iter_mut().enumerate() {
                for _ in 0..12 {
                    writer.append(&(id as u64 + 1).to_le_bytes()).expect("room");
                }
            }
            ring.append_durable(&[round; 16]).expect("nobody is waited for");
        }
        assert_eq!(ring.stats().writers.open, 3000);
        assert_eq!(ring.stats().oldest_reservation, None);
        writers.truncate(1000);
        let more: Vec<_> = (0..2000).map(|_| ring.writer()).collect();
        assert_eq!(ring.stats().writers.open, 3000);
        drop((more, writers));
        assert_eq!(ring.stats().writers.open, 0);
        assert_eq!(ring.stats().records_appended, 3 * (3000 * 12 + 1));
        let end = ring.close().expect("nothing failed");
        assert_eq!(device.contents().len() as u64, end);
    });
}

#[test]
fn manual_rings_have_writers_too() {
    within(LIMIT, || {
        let (ring, device) = in_memory(fixed(1, 4096));
        let mut writer = ring.writer();
        for life in 0..5 {
            let mut extents = Vec::new();
            let full = loop {
                match writer.append(&[life + 1; 24]) {
                    Ok(extent) => extents.push(extent),
                    Err(error) => break error,
                }
            };
            assert_eq!(full, AppendError::Sealed);
            assert!(extents.len() > 100, "{}", extents.len());
            eventually("it opens in place", || !current(&ring).is_sealed());
            let first = extents[0].start();
            assert_eq!(first, u64::from(life) * 4096);
        }
        drop(writer);
        ring.close().expect("nothing failed");
        assert_eq!(device.contents().len(), 5 * 4096);
    });
}

/// Each thread's records are found in the buffers that were sealed under it, at the worst moments for it.
#[test]
fn leases_are_taken_back_under_busy_writers() {
    within(LIMIT, || {
        let (ring, device) = in_memory(options(4, BUFFER));
        let start = Meeting::new(5);
        let log: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (1..=4_u8)
                .map(|thread| {
                    let (ring, start) = (&ring, &start);
                    scope.spawn(move || {
                        let mut writer = ring.writer();
                        start.wait();
                        let append = |id: usize| (writer.append(&[thread; 40][..1 + id % 40]).expect("room"), thread);
                        (0..50_000).map(append).collect::<Vec<_>>()
                    })
                })
                .collect();
            start.wait();
            let mut syncs = 0;
            while !threads.iter().all(|thread| thread.is_finished()) {
                ring.sync().expect("nothing failed");
                syncs += 1;
            }
            assert!(syncs > 0);
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        ring.close().expect("nothing failed");
        let mut expected = vec![0; device.contents().len()];
        for (extent, thread) in log {
            for byte in &mut expected[extent.start() as usize..extent.end() as usize] {
                assert_eq!(mem::replace(byte, thread), 0, "{extent:?} overlaps another one");
            }
        }
        assert!(device.contents() == expected);
    });
}

#[test]
fn the_stats_say_whether_writers_need_no_fence() {
    let (ring, _device) = in_memory(options(4, BUFFER));
    let membarrier = ring.stats().writers.membarrier;
    match env::var("BUFFER_RING_EXPECT_BARRIER") {
        Ok(expected) => assert_eq!(if membarrier { "Membarrier" } else { "Fence" }, expected),
        Err(_) if membarrier => {}
        Err(_) => eprintln!("SKIPPED: the kernel offers no membarrier here"),
    }
}
