//! What only this engine does. Without io_uring these print why they are skipped.

use std::fs::File;
use std::sync::LazyLock;
use std::{env, thread};

use ring_alloc::{BLOCK, Buffer};
use rustix::fs::FlockOperation;

use super::*;
use crate::SegmentFile;
use crate::backend::Flush;
use crate::file::LogFile;

fn engine() -> Option<Uring> {
    Uring::new(Submitter::Caller)
        .inspect_err(|reason| {
            assert!(env::var_os("BUFFER_RING_REQUIRE_URING").is_none(), "io_uring is required: {reason}");
            eprintln!("SKIPPED: {reason}");
        })
        .ok()
}

/// All of a log, in one file for all tests.
fn file() -> Arc<Segment> {
    static FILE: LazyLock<Arc<Segment>> = LazyLock::new(another_file);
    Arc::clone(&FILE)
}

fn another_file() -> Arc<Segment> {
    Segment::whole(Arc::new(LogFile::new(Arc::new(tempfile::tempfile().expect("a file")))))
}

fn write(token: u64) -> Job {
    let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
    Job::Write(Request::new(token, bytes, token * BLOCK as u64, false).to(&file()))
}

fn tokens(completed: &[Completion]) -> Vec<u64> {
    let token = |(job, _): &Completion| match job {
        Job::Write(request) => Some(request.token),
        Job::Sync(_) => None,
    };
    let mut tokens: Vec<_> = completed.iter().filter_map(token).collect();
    tokens.sort_unstable();
    tokens
}

#[test]
fn the_kernel_ends_a_wait_at_its_deadline() {
    let Some(engine) = engine() else { return };
    let error = engine.enter_and_wait(Some(Duration::from_millis(1))).expect_err("nothing is in flight");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::TIME));
}

#[test]
fn in_flight_are_never_more_than_the_queue_holds() {
    let Some(engine) = engine() else { return };
    let entries = engine.ring.params().sq_entries() as usize;
    let many = 3 * entries as u64 + 5;
    for token in 0..many {
        engine.submit(write(token));
    }
    let mut completed = Vec::new();
    while completed.len() < many as usize {
        let queues = engine.queues.lock();
        assert_eq!(queues.slots.used() + queues.backlog.len() + completed.len(), many as usize);
        assert!(queues.slots.used() <= entries);
        drop(queues);
        let mut some = Vec::new();
        engine.reap(Wait::Until(None), &mut some);
        assert!(!some.is_empty() && some.iter().all(|(_, result)| *result == Ok(BLOCK)));
        completed.append(&mut some);
    }
    assert_eq!(tokens(&completed), (0..many).collect::<Vec<_>>());
}

#[test]
fn an_entry_that_the_kernel_did_not_take_is_offered_again_and_not_pushed_twice() {
    let Some(engine) = engine() else { return };
    // As after a `submit` whose system call failed: pushed, and the kernel not notified.
    {
        let queues = &mut *engine.queues.lock();
        queues.backlog.push_back(write(7));
        assert!(engine.push(queues) && engine.push(queues));
        assert_eq!((queues.slots.used(), queues.backlog.len()), (1, 0));
    }
    let mut completed = Vec::new();
    engine.reap(Wait::Until(None), &mut completed);
    engine.reap(Wait::Until(None), &mut completed);
    assert_eq!(tokens(&completed), [7]);
}

#[test]
fn polling_offers_what_was_not_taken_too() {
    let Some(engine) = engine() else { return };
    {
        let queues = &mut *engine.queues.lock();
        queues.backlog.push_back(write(7));
        assert!(engine.push(queues));
    }
    let mut completed = Vec::new();
    engine.reap(Wait::No, &mut completed);
    let progress = engine.collect(true, &mut completed);
    assert!(!progress.to_submit);
    engine.reap(Wait::Until(None), &mut completed);
    assert_eq!(tokens(&completed), [7]);
}

/// A thread of the kernel that submits moves the queue's head only after it has begun what it fetched: a write may have
/// completed, and its slot be free, while its entry still takes up room. Here the head stands still, as nothing enters
/// the kernel.
#[test]
fn a_full_submission_queue_keeps_writes_and_interrupts_back_though_slots_are_free() {
    let Some(engine) = engine() else { return };
    let entries = u64::from(engine.ring.params().sq_entries());
    {
        let queues = &mut *engine.queues.lock();
        for _ in 0..entries {
            let entry = opcode::Nop::new().build().user_data(INTERRUPT);
            // SAFETY: *one at a time*: `queues` is locked, and this handle lives no longer than the statement.
            let mut submission = unsafe { engine.ring.submission_shared() };
            // SAFETY: *valid until completed*: the entry points to nothing.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("room for as many as the queue has entries");
        }
        queues.interrupt = Interrupt::Wanted;
        queues.backlog.extend((0..entries).map(write));
        assert!(engine.push(queues), "the kernel has something to fetch");
        assert_eq!((queues.slots.used(), queues.backlog.len() as u64), (0, entries));
        assert_eq!(queues.interrupt, Interrupt::Wanted);
    }
    let mut completed = Vec::new();
    while completed.len() < entries as usize {
        engine.reap(Wait::Until(None), &mut completed);
    }
    assert_eq!(tokens(&completed), (0..entries).collect::<Vec<_>>());
}

#[test]
fn a_ring_that_cannot_be_entered_answers_for_everything() {
    let Some(engine) = engine() else { return };
    let many = 2 * u64::from(engine.ring.params().sq_entries());
    for token in 0..many {
        engine.submit(write(token));
    }
    engine.submit(Job::Sync(Flush::of(&file(), Scope::Data)));
    let mut completed = Vec::new();
    engine.give_up(Errno::BADF, &mut completed);
    engine.submit(write(many));
    engine.submit(Job::Sync(Flush::of(&file(), Scope::Data)));
    engine.reap(Wait::Until(None), &mut completed);
    assert_eq!((tokens(&completed), completed.len() as u64), ((0..=many).collect(), many + 3));
    assert!(completed.iter().all(|(_, result)| *result == Err(Errno::BADF)));
}

#[test]
fn an_interrupt_ends_a_wait_and_only_one() {
    let Some(engine) = engine() else { return };
    // As if the device never answered: the kernel knows nothing of it.
    engine.queues.lock().slots.put(write(7));
    let mut completed = Vec::new();
    engine.interrupt();
    engine.interrupt();
    engine.reap(Wait::Until(None), &mut completed);
    assert!(completed.is_empty());
    let soon = Instant::now() + Duration::from_millis(5);
    engine.reap(Wait::Until(Some(soon)), &mut completed);
    assert!(completed.is_empty() && Instant::now() >= soon, "the second wait was not interrupted");
    engine.interrupt();
    engine.reap(Wait::Until(None), &mut completed);
    assert!(completed.is_empty());
}

#[test]
fn an_interrupt_stays_until_a_thread_waits_with_nothing_else_to_return() {
    let Some(engine) = engine() else { return };
    engine.queues.lock().slots.put(write(7));
    let mut completed = Vec::new();
    engine.interrupt();
    engine.reap(Wait::No, &mut completed);
    engine.reap(Wait::Until(None), &mut completed);
    assert!(completed.is_empty());
    // Both have arrived when they are looked for.
    engine.submit(write(8));
    thread::sleep(Duration::from_millis(50));
    engine.interrupt();
    engine.reap(Wait::Until(None), &mut completed);
    assert_eq!(completed.len(), 1);
    completed.clear();
    engine.reap(Wait::Until(None), &mut completed);
    assert!(completed.is_empty());
}

fn request(durable: bool, scope: Scope, preparing: bool) -> Request {
    let Job::Write(request) = write(7) else { unreachable!("a write") };
    Request { durable, scope, preparing, ..request }
}

#[test]
fn a_write_is_as_durable_as_it_was_asked_to_be() {
    let flags = |durable, scope| sync_flags(&request(durable, scope, false));
    assert_eq!([flags(false, Scope::Data), flags(false, Scope::Whole(7))], [0, 0]);
    assert_eq!([flags(true, Scope::Data), flags(true, Scope::Whole(7))], [libc::RWF_DSYNC, libc::RWF_SYNC]);
}

/// Row by row: what comes back, whether the thread that reaps does it on a file system that cancels only what it has
/// not begun, and on any other.
#[test]
fn what_was_never_begun_is_done_here_unless_it_may_have_been_begun_or_is_not_worth_it() {
    let write = |durable, preparing| Job::Write(request(durable, Scope::Data, preparing));
    let sync = || Job::Sync(Flush::of(&file(), Scope::Data));
    for (job, errno, known, unknown) in [
        (write(false, false), Errno::CANCELED, true, true),
        (write(false, false), Errno::AGAIN, true, true),
        (write(true, false), Errno::CANCELED, true, false),
        (write(true, false), Errno::AGAIN, true, false),
        (write(false, true), Errno::CANCELED, false, false),
        (write(false, true), Errno::AGAIN, false, false),
        (write(false, false), Errno::IO, false, false),
        (write(true, false), Errno::IO, false, false),
        (sync(), Errno::CANCELED, true, false),
        (sync(), Errno::AGAIN, false, false),
        (sync(), Errno::IO, false, false),
    ] {
        for (cancels_only_unbegun, expected) in [(true, known), (false, unknown)] {
            assert_eq!(
                is_ours(&job, errno, || cancels_only_unbegun),
                expected,
                "{errno} of {job:?}, {cancels_only_unbegun}"
            );
        }
    }
}

#[test]
fn in_another_process_nothing_is_pushed_and_nothing_waited_for() {
    let Some(mut engine) = engine() else { return };
    engine.queues.lock().slots.put(write(7));
    engine.process = Process::elsewhere();
    engine.submit(write(8));
    engine.interrupt();
    let mut completed = Vec::new();
    engine.reap(Wait::Until(None), &mut completed);
    let queues = engine.queues.lock();
    assert_eq!((completed.len(), queues.slots.used(), queues.backlog.len()), (0, 1, 0));
    assert_eq!(queues.interrupt, Interrupt::No);
}

#[test]
fn what_is_registered_is_used_and_nothing_else() {
    let Some(engine) = engine() else { return };
    let other = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
    let mut buffers = Arena::new(2, BLOCK).expect("an arena").into_buffers();
    let bytes = [0, 1].map(|_| buffers.remove(0).freeze(BLOCK));
    let registered = engine.attach(bytes[0].arena(), &[file()], false);
    if !(registered.buffers() && registered.file()) {
        eprintln!("SKIPPED: {:?}", registered.reason());
        return;
    }
    for (token, bytes) in (0..).zip(bytes.into_iter().chain([other])) {
        engine.submit(Job::Write(Request::new(token, bytes, token * BLOCK as u64, false).to(&file())));
    }
    let mut completed = Vec::new();
    while completed.len() < 3 {
        engine.reap(Wait::Until(None), &mut completed);
    }
    let mut queues = engine.queues.lock();
    let registration = queues.registration.as_mut().expect("what `attach` has made");
    for (job, result) in completed {
        assert_eq!(result, Ok(BLOCK));
        let Job::Write(request) = &job else { panic!("there is no sync") };
        let buffer = (request.token < 2).then_some(request.token as u16);
        assert_eq!(registration.buffer(&request.bytes), buffer);
        for (is_known, flags) in [(true, squeue::Flags::FIXED_FILE), (false, squeue::Flags::empty())] {
            let known = if is_known { None } else { registration.reclaim_place(&file()) };
            let code = if buffer.is_some() { opcode::WriteFixed::CODE } else { opcode::Write::CODE };
            let entry = format!("{:?}", entry(&job, Some(registration)));
            let (code, flags) = (format!("op_code: {code},"), format!("flags: {},", flags.bits()));
            assert!(entry.contains(&code) && entry.contains(&flags), "{code} {flags} {entry}");
            known.into_iter().for_each(|place| registration.note_file(place, Some(&file()), &Ok(1)));
        }
    }
}

#[test]
fn after_writes_were_given_up_the_engine_says_so_and_writes_nothing() {
    let Some(engine) = engine() else { return };
    assert!(!engine.has_given_up());
    engine.queues.lock().slots.put(write(7));
    engine.give_up(Errno::BADF, &mut Vec::new());
    assert!(engine.has_given_up());
    let (_, result) = engine.write_now(request(false, Scope::Data, false));
    assert_eq!(result, Err(Errno::BADF));
}

#[test]
fn an_engine_prints_its_queues() {
    let Some(engine) = engine() else { return };
    let printed = format!("{engine:?}");
    assert!(printed.starts_with("Uring { queues: Mutex {"), "{printed}");
}

/// Segment `number` of a log, in a file of its own.
fn segment(number: u64) -> Arc<Segment> {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(2 * BLOCK as u64).expect("a file");
    Segment::open(BLOCK as u64, number, file.into()).expect("a segment").0
}

fn write_to(segment: &Arc<Segment>) -> Job {
    let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
    Job::Write(Request::new(segment.number, bytes, segment.number * BLOCK as u64, false).to(segment))
}

/// Under which number the kernel knows the file.
fn place(engine: &Uring, segment: &Arc<Segment>) -> Option<i32> {
    engine.queues.lock().registration.as_ref().and_then(|registration| registration.file(segment))
}

/// An engine that has registered the first two of as many segments as the kernel has places, and one more.
fn engine_with_places() -> Option<(Uring, Vec<Arc<Segment>>)> {
    let engine = engine()?;
    let segments: Vec<_> = (0..=registration::PLACES as u64).map(segment).collect();
    let arena = Arc::new(Arena::new(1, BLOCK).expect("an arena"));
    let registered = engine.attach(&arena, &segments[..2], true);
    if !registered.file() {
        eprintln!("SKIPPED: {:?}", registered.reason());
        return None;
    }
    Some((engine, segments))
}

#[test]
fn each_new_segment_has_a_place_and_with_none_free_that_of_the_oldest() {
    let Some((engine, segments)) = engine_with_places() else { return };
    let (last, others) = segments.split_last().expect("segments");
    others[2..].iter().for_each(|segment| engine.add(segment));
    let places: Vec<_> = others.iter().map(|segment| place(&engine, segment).expect("a place")).collect();
    assert_eq!(places, (0..registration::PLACES as i32).collect::<Vec<_>>());
    engine.add(&others[3]);
    assert_eq!((place(&engine, &others[0]), place(&engine, &others[3])), (Some(0), Some(3)), "it has one");
    engine.add(last);
    assert_eq!((place(&engine, &others[0]), place(&engine, last)), (None, Some(0)));
    // With and without a place, each write is in its own file.
    for segment in &segments {
        engine.submit(write_to(segment));
    }
    let mut completed = Vec::new();
    while completed.len() < segments.len() {
        engine.reap(Wait::Until(None), &mut completed);
    }
    assert!(completed.iter().all(|(_, result)| *result == Ok(BLOCK)));
}

/// An entry that the kernel has not fetched yet names the place, and not the file.
#[test]
fn the_place_of_a_file_that_a_job_is_for_is_not_given_to_another() {
    let Some((engine, segments)) = engine_with_places() else { return };
    let (last, others) = segments.split_last().expect("segments");
    others[2..].iter().for_each(|segment| engine.add(segment));
    {
        let queues = &mut *engine.queues.lock();
        queues.backlog.push_back(write_to(&others[0]));
        assert!(engine.push(queues), "the kernel has not been notified");
    }
    engine.add(last);
    assert_eq!((place(&engine, &others[0]), place(&engine, &others[1])), (Some(0), None));
    assert_eq!(place(&engine, last), Some(1));
    let mut completed = Vec::new();
    engine.reap(Wait::Until(None), &mut completed);
    assert_eq!((tokens(&completed), &completed[0].1), (vec![0], &Ok(BLOCK)));
}

#[test]
fn the_kernel_lets_go_of_a_segment_that_is_removed_and_its_place_is_free() {
    let Some((engine, segments)) = engine_with_places() else { return };
    let (arena, file) = (Arc::new(Arena::new(1, BLOCK).expect("an arena")), segments[0].handed_back());
    let SegmentFile::File(file) = file else { panic!("a file") };
    let other = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("the same file");
    rustix::fs::flock(&file, FlockOperation::LockExclusive).expect("a lock");
    engine.remove(&segments[0]);
    assert_eq!(place(&engine, &segments[0]), None);
    drop(file);
    drop(segments.into_iter().next());
    // Its lock goes with the last that has it open. The kernel does that behind the call.
    let mut looks = (0..60_000).map(|_| thread::sleep(Duration::from_millis(1)));
    let is_free = || rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok();
    assert!(is_free() || looks.any(|()| is_free()), "the kernel has the file open");
    let next = segment(99);
    engine.add(&next);
    assert_eq!(place(&engine, &next), Some(0));
    engine.detach();
    assert!(engine.attach(&arena, &[next], true).file(), "the table can be made anew");
}

#[test]
fn a_job_that_is_announced_is_waited_for_and_one_that_is_retracted_is_not() {
    let Some(mut engine) = engine() else { return };
    let mut completed = Vec::new();
    engine.announce();
    let soon = Instant::now() + Duration::from_millis(5);
    engine.reap(Wait::Until(Some(soon)), &mut completed);
    assert!(completed.is_empty() && Instant::now() >= soon);
    engine.retract();
    engine.reap(Wait::Until(None), &mut completed);
    assert!(completed.is_empty(), "there is nothing to wait for");
    engine.process = Process::elsewhere();
    engine.announce();
    engine.retract();
    let segment = file();
    engine.add(&segment);
    engine.remove(&segment);
    assert_eq!(engine.queues.lock().announced, 0);
}
