//! What only this engine does. Without io_uring these print why they are skipped.

use std::env;
use std::thread;

use ring_alloc::{BLOCK, Buffer};

use super::*;
use crate::backend::Flush;

fn engine() -> Option<Uring> {
    let file = tempfile::tempfile().expect("a file");
    Uring::new(Arc::new(LogFile::new(Arc::new(file))), Submitter::Caller)
        .inspect_err(|reason| {
            assert!(env::var_os("BUFFER_RING_REQUIRE_URING").is_none(), "io_uring is required: {reason}");
            eprintln!("SKIPPED: {reason}");
        })
        .ok()
}

fn write(token: u64) -> Job {
    let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
    Job::Write(Request::new(token, bytes, token * BLOCK as u64, false))
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
    engine.submit(Job::Sync(Flush::new(Scope::Data)));
    let mut completed = Vec::new();
    engine.give_up(Errno::BADF, &mut completed);
    engine.submit(write(many));
    engine.submit(Job::Sync(Flush::new(Scope::Data)));
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
