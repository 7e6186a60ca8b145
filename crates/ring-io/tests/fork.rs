//! A forked child has copies of everything, and owns none of it: each call says so, and dropping does nothing to the
//! parent.

mod common;

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::fs::{self, File};
use std::io::{Read, pipe};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use common::{Device, Holding, attach, buffers, bytes, disk, drain, open, pattern, patterned};
use ring_alloc::{Arena, BLOCK, Buffer};
use ring_io::fork::{self, Inherited, Process};
use ring_io::{AttachError, EngineKind, FileError, QuikIO, Wait, WriteMode, WriteQueue};
use ring_testing::Child;
use rustix::fs::{FlockOperation, OFlags};

fn is_locked(path: &Path) -> bool {
    rustix::fs::flock(open(path, OFlags::empty()), FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Every call, in a child of the process that `queue` is of.
fn assert_all_refused(io: &Arc<QuikIO>, queue: &WriteQueue) {
    let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
    assert_eq!(io.start(), Err(FileError::Forked));
    assert_eq!(io.log_end(), Err(FileError::Forked));
    assert_eq!(io.attach(&arena).unwrap_err(), AttachError::File(FileError::Forked));
    assert!(io.read_at(0, &mut [0; BLOCK]).unwrap_err().is_forked());
    let error = io.sync().unwrap_err();
    assert!(error.is_forked() && error.errno().is_none());
    assert!(error.to_string().starts_with("sync was not tried: the file belongs to the process"), "{error}");
    assert_eq!(io.preparing_stopped(), None);

    assert_eq!((queue.in_flight(), queue.waiting()), (0, 0));
    let mut finished = Vec::new();
    assert_eq!(queue.reap(Wait::Until(None), &mut finished), None);
    assert!(finished.is_empty(), "what the parent has in flight is not handed out here");
    queue.submit(7, bytes(7, BLOCK), 0);
    queue.submit_durable(8, bytes(8, BLOCK), 0);
    assert_eq!(queue.in_flight(), 2);
    queue.interrupt();
    queue.reap(Wait::Until(None), &mut finished);
    finished.push(queue.write_now(9, bytes(9, BLOCK), 0));
    finished.push(queue.write_durable_now(10, bytes(10, BLOCK), 0));
    let tokens: Vec<_> = finished.iter().map(|write| write.token).collect();
    assert_eq!((tokens, queue.in_flight()), (vec![7, 8, 9, 10], 0));
    assert!(finished.iter().all(|write| !write.durable && write.result.as_ref().unwrap_err().is_forked()));
    assert!(queue.submit_sync().unwrap_err().is_forked());
}

fn engines() -> impl Iterator<Item = (EngineKind, QuikIO, tempfile::TempDir)> {
    [EngineKind::IoUring, EngineKind::Positioned].into_iter().filter_map(|kind| {
        let dir = disk();
        let io = QuikIO::builder(open(&dir.path().join("log"), OFlags::DIRECT)).engine(kind).build();
        Some((kind, io.inspect_err(|why| eprintln!("SKIPPED: {why}")).ok()?, dir))
    })
}

#[test]
fn in_a_child_every_call_answers_so_and_the_parent_goes_on_as_if_there_were_none() {
    const EACH: u64 = 40;
    for (kind, io, dir) in engines() {
        let path = dir.path().join("log");
        let io = Arc::new(io);
        let queue = attach(&io);
        let mut next = 0;
        let mut write = |queue: &WriteQueue, durable| {
            for _ in 0..EACH {
                let (token, offset) = (next, next * BLOCK as u64);
                next += 1;
                if durable {
                    assert_eq!(queue.write_durable_now(token, bytes(token, BLOCK), offset).result, Ok(()));
                } else {
                    queue.submit(token, bytes(token, BLOCK), offset);
                }
            }
        };
        // So that space is prepared, which dropping the queue cuts off; and one thread or more writes.
        write(&queue, true);
        write(&queue, false);
        let (mut end, other_end) = pipe().expect("a pipe");
        let child_io = Arc::clone(&io);
        let child = Child::fork(|| {
            // What the parent acknowledges meanwhile lies beyond all that the child's queue knows of.
            let mut byte = [0];
            end.read_exact(&mut byte).expect("the parent's word");
            assert_all_refused(&child_io, &queue);
            // By a copy, as moving it out of the parent is not to be had.
            drop(child_io);
            // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
            drop(unsafe { core::ptr::read(&raw const queue) });
            // SAFETY: as above.
            drop(unsafe { core::ptr::read(&raw const io) });
        });
        write(&queue, true);
        std::io::Write::write_all(&mut &other_end, b"x").expect("a child that reads");
        child.succeeds();
        assert!(is_locked(&path), "{kind}: the child has released its parent's lock");
        write(&queue, false);
        write(&queue, true);
        assert!(drain(&queue).iter().all(|write| write.result.is_ok()), "{kind}");
        assert_eq!(io.sync(), Ok(()));
        drop(queue);
        assert!(!is_locked(&path));
        let expected: Vec<_> = (0..5 * EACH).flat_map(|token| pattern(token, BLOCK)).collect();
        assert!(fs::read(&path).expect("the file") == expected, "{kind}");
    }
}

#[test]
fn a_child_waits_for_nothing_that_a_thread_of_its_parent_had() {
    let Some(device) = Device::memory() else { return };
    let memory = device.memory.as_ref().expect("a device in memory");
    let queue = attach(&device.io);
    let holding = Holding::new(memory);
    queue.submit(1, bytes(1, BLOCK), 0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let queue = &queue;
        let reaper = scope.spawn(move || {
            sender.send(rustix::thread::gettid()).expect("a test that listens");
            let mut finished = Vec::new();
            queue.reap(Wait::Until(None), &mut finished);
            finished.len()
        });
        let status = format!("/proc/self/task/{}/status", receiver.recv().expect("a thread").as_raw_nonzero());
        // It holds the lock for reaping by then.
        while !fs::read_to_string(&status).expect("a thread that lives").contains("S (sleeping)") {
            thread::yield_now();
        }
        let child = Child::fork(|| {
            assert_all_refused(&device.io, queue);
            // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
            drop(unsafe { core::ptr::read(queue) });
        });
        child.succeeds();
        drop(holding);
        assert_eq!(reaper.join().expect("no panic"), 1);
    });
}

#[test]
fn a_child_does_not_get_the_file_that_its_parent_writes() {
    let dir = disk();
    let path = dir.path().join("log");
    let file = Arc::new(open(&path, OFlags::DIRECT));
    let io = Arc::new(QuikIO::new(Arc::clone(&file)));
    let queue = attach(&io);
    let refused = || {
        let error = QuikIO::open(&path).unwrap_err();
        assert_eq!(error.file_error(), Some(&FileError::Locked));
        // `flock` alone would give it: the child shares the open file.
        let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
        for file in [Arc::clone(&file), Arc::new(open(&path, OFlags::empty()))] {
            let error = Arc::new(QuikIO::new(file)).attach(&arena).unwrap_err();
            assert_eq!(error, AttachError::File(FileError::Locked));
        }
    };
    Child::fork(refused).succeeds();
    // In a child's child, too.
    Child::fork(|| Child::fork(refused).succeeds()).succeeds();
    drop(queue);
    drop(attach(&io));
}

#[test]
fn a_child_gets_the_file_when_its_parent_is_done_with_it() {
    let dir = disk();
    let path = dir.path().join("log");
    let io = Arc::new(QuikIO::open(&path).expect("a new file"));
    let queue = attach(&io);
    let (mut end, other_end) = pipe().expect("a pipe");
    let child = Child::fork(|| {
        end.read_exact(&mut [0]).expect("the parent's word");
        let io = Arc::new(QuikIO::open(&path).expect("the parent is done"));
        let queue = attach(&io);
        assert_eq!(queue.write_durable_now(1, bytes(1, BLOCK), 0).result, Ok(()));
        assert_eq!(QuikIO::open(&path).unwrap_err().file_error(), Some(&FileError::Locked));
        drop((queue, io));
        drop(QuikIO::open(&path).expect("the child is done"));
    });
    drop((queue, io));
    std::io::Write::write_all(&mut &other_end, b"x").expect("a child that reads");
    child.succeeds();
    assert!(fs::read(&path).expect("the file") == pattern(1, BLOCK));
}

#[test]
fn a_child_writes_files_of_its_own_and_its_own_child_does_not() {
    for (kind, io, _dir) in engines() {
        let io = Arc::new(io);
        let queue = attach(&io);
        let child = Child::fork(|| {
            let dir = disk();
            let own = QuikIO::builder(open(&dir.path().join("own"), OFlags::DIRECT)).engine(kind).build();
            let own = Arc::new(own.expect("as in the parent"));
            let (arena, buffers) = buffers(2, BLOCK);
            let writes = own.attach(&arena).expect("the only queue");
            for (token, buffer) in (0..).zip(buffers) {
                writes.submit(token, patterned(buffer, token, BLOCK), token * BLOCK as u64);
            }
            assert!(drain(&writes).iter().all(|write| write.result.is_ok()));
            assert_eq!(own.sync(), Ok(()));
            Child::fork(|| {
                assert_all_refused(&own, &writes);
                assert_all_refused(&io, &queue);
            })
            .succeeds();
            assert_eq!(writes.write_durable_now(2, bytes(2, BLOCK), 2 * BLOCK as u64).result, Ok(()));
            drop(writes);
            assert_eq!(own.log_end(), Ok(3 * BLOCK as u64));
            assert!(io.sync().unwrap_err().is_forked());
        });
        child.succeeds();
        assert_eq!(io.sync(), Ok(()));
    }
}

/// The threads of a child get the stacks that those of its parent have slept on.
#[test]
fn threads_of_a_child_are_woken_whatever_its_parents_threads_waited_for() {
    const ROUNDS: u64 = 4;
    let open = |dir: &tempfile::TempDir| {
        let io = QuikIO::builder(open(&dir.path().join("log"), OFlags::empty()));
        Arc::new(io.engine(EngineKind::Positioned).build().expect("it needs nothing"))
    };
    let rounds = |queue: &WriteQueue| {
        for token in 0..ROUNDS {
            for part in 0..4 {
                queue.submit(token, bytes(token, BLOCK), (4 * token + part) * BLOCK as u64);
            }
            assert!(drain(queue).iter().all(|write| write.result.is_ok()));
            // Long enough for its threads to fall asleep.
            thread::sleep(core::time::Duration::from_millis(1));
        }
    };
    let dirs = [(); 6].map(|()| disk());
    let parents = dirs.each_ref().map(|dir| attach(&open(dir)));
    parents.iter().for_each(rounds);
    // What they wait for is somewhere else in each child.
    for queues in 1..=10 {
        Child::fork(|| {
            let dirs: Vec<_> = (0..queues).map(|_| disk()).collect();
            let queues: Vec<_> = dirs.iter().map(|dir| attach(&open(dir))).collect();
            queues.iter().for_each(rounds);
        })
        .succeeds();
    }
    parents.iter().for_each(rounds);
}

#[test]
fn a_child_that_the_c_library_knows_nothing_of_finds_out_too() {
    let dir = disk();
    let io = Arc::new(QuikIO::open(dir.path().join("log")).expect("a new file"));
    let queue = attach(&io);
    let bytes = bytes(1, BLOCK);
    let here = Process::here();
    let child = Child::clone(|| {
        assert!(!here.is_here());
        assert!(io.sync().is_err_and(|error| error.is_forked()));
        assert!(queue.write_now(1, bytes, 0).result.is_err_and(|error| error.is_forked()));
        assert!(!Process::here().is_here() || !here.is_here());
    });
    child.succeeds();
    assert!(here.is_here());
    assert_eq!(io.log_end(), Ok(0));
}

#[test]
fn a_child_finds_zeros_where_its_parent_has_bytes() {
    let mut buffer = Buffer::zeroed(3 * BLOCK).expect("a buffer");
    buffer.fill(7);
    Child::fork(|| {
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(8);
    })
    .succeeds();
    assert!(buffer.iter().all(|byte| *byte == 7));
}

/// What a thread was just changing is half done in the child: it must not even be freed.
#[test]
fn a_child_of_threads_amid_their_writes_drops_what_it_has() {
    const EACH: u64 = 8;
    for (kind, path) in [(EngineKind::IoUring, "uring"), (EngineKind::Positioned, "positioned")] {
        let dir = disk();
        let file = open(&dir.path().join(path), OFlags::empty());
        let io = QuikIO::builder(file).engine(kind).write_mode(WriteMode::Serialized).build();
        let Ok(io) = io.inspect_err(|why| eprintln!("SKIPPED: {why}")).map(Arc::new) else { continue };
        let queue = attach(&io);
        let next = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        let first = next.fetch_add(EACH, Relaxed);
                        // Backward, so that they wait for their turn in order.
                        for token in (first..first + EACH).rev() {
                            queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
                        }
                        queue.reap(Wait::No, &mut Vec::new());
                    }
                    drain(&queue);
                });
            }
            let _ends = Ends(&done);
            for _ in 0..60 {
                Child::fork(|| {
                    // SAFETY: *never used again*: the child exits, and runs no destructor of the parent's.
                    drop(unsafe { core::ptr::read(&raw const queue) });
                    // SAFETY: as above.
                    drop(unsafe { core::ptr::read(&raw const io) });
                })
                .succeeds();
            }
        });
        drain(&queue);
        assert_eq!(io.sync(), Ok(()));
        drop(queue);
        assert_eq!(io.log_end(), Ok(next.into_inner() * BLOCK as u64), "{kind}");
    }
}

/// However a test ends, its threads do.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Heir(AtomicU32);

impl Inherited for Heir {
    fn disown(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn what_is_adopted_is_called_in_each_child_once_and_while_it_lives() {
    let heir = Arc::new(Heir(0.into()));
    let called = |heir: &Heir| heir.0.load(Relaxed);
    let weak: std::sync::Weak<Heir> = Arc::downgrade(&heir);
    let adopted = fork::adopt(weak);
    Child::fork(|| {
        assert_eq!(called(&heir), 1);
        Child::fork(|| assert_eq!(called(&heir), 2)).succeeds();
    })
    .succeeds();
    assert_eq!(called(&heir), 0, "not in the parent");
    drop(adopted);
    let late = Arc::downgrade(&heir);
    drop(heir);
    Child::fork(|| assert!(late.upgrade().is_none())).succeeds();
}

/// Each fork takes the locks of all that a child must find in order, and gives them back on both sides.
#[test]
fn forks_and_writers_that_come_and_go_do_not_hang_each_other() {
    let dir = disk();
    thread::scope(|scope| {
        for number in 0..2 {
            let path = dir.path().join(format!("log {number}"));
            scope.spawn(move || {
                for _ in 0..200 {
                    let io =
                        Arc::new(QuikIO::builder(open(&path, OFlags::empty())).engine(EngineKind::Positioned).build());
                    drop(attach(&Arc::new(Arc::into_inner(io).expect("one").expect("no obstacle"))));
                }
            });
        }
        for round in 0..50 {
            let path = dir.path().join(format!("child {round}"));
            Child::fork(|| drop(QuikIO::open(&path).expect("a file of its own"))).succeeds();
        }
    });
    assert!(File::open(dir.path().join("child 49")).is_ok());
}
