//! The io_uring engine: one ring, many threads.
//!
//! ```text
//!  submit ──▶ backlog ──▶ slot + submission queue ──▶ kernel ──▶ completion queue ──▶ reap
//!            └─────────────── one lock ─────────────┘           └── the same lock ─┘
//! ```
//!
//! The lock is held to move jobs between the queues, never across a system call. In flight are at most as many jobs as
//! the submission queue has entries, so neither queue can overflow; the backlog takes the rest.
//!
//! An entry that the kernel did not take (`EAGAIN`, `EBUSY`, `EINTR`) stays in the submission queue, and the next call
//! offers it again. It is never pushed twice.
//!
//! What would block the submitting thread goes to one of the kernel's workers, and comes back cancelled if no task can
//! be created for one, or if its thread has exited before. Then the thread that reaps carries it out.

mod registration;
mod setup;
mod slots;
#[cfg(test)]
mod tests;

use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use ring_alloc::Arena;
use rustix::io::Errno;

use self::registration::Registration;
pub(crate) use self::setup::Submitter;
use self::slots::Slots;
use crate::backend::{Attempt, Backend, Completion, Job, Request};
use crate::files::Segment;
use crate::fork::Process;
use crate::locks::Mutex;
use crate::prealloc::settle::Scope;
use crate::retry::{MAX_STALLS, pause};
use crate::{Registered, Wait, event};

/// What the operation is called that does nothing but end a wait.
const INTERRUPT: u64 = u64::MAX;

pub(crate) struct Uring {
    /// Declared first and so closed before the files and the registered memory, which its requests point to.
    ring: IoUring,
    queues: Mutex<Queues>,
    /// Whether a write was given up, which the kernel may still carry out.
    given_up: AtomicBool,
    process: Process,
}

/// The user-space half. Its lock also protects the two queues shared with the kernel.
#[derive(Debug)]
struct Queues {
    /// Not yet pushed.
    backlog: VecDeque<Job>,
    /// Pushed, and their completions not yet seen.
    slots: Slots,
    /// Jobs that are waited for, and were not submitted yet.
    announced: usize,
    registration: Option<Registration>,
    interrupt: Interrupt,
    /// Set once the kernel cannot be entered any more: nothing is pushed from then on.
    broken: Option<Errno>,
}

impl Uring {
    /// The engine, or in words why there is none.
    pub(crate) fn new(submitter: Submitter) -> Result<Self, String> {
        let ring = setup::ring(submitter)?;
        // One entry stays free for an interrupt.
        let slots = Slots::new(ring.params().sq_entries() as usize - 1);
        let (backlog, interrupt) = (VecDeque::new(), Interrupt::No);
        let queues = Queues { backlog, slots, announced: 0, registration: None, interrupt, broken: None };
        let (queues, process) = (Mutex::new(queues), Process::here());
        Ok(Self { ring, queues, given_up: AtomicBool::new(false), process })
    }

    /// Whether this is a forked child, which does not have the ring's memory. The callers have compared the process;
    /// but a subscriber of events that they have called since may have forked.
    fn is_inherited(&self) -> bool {
        !self.process.is_here()
    }

    /// Moves jobs from the backlog to the submission queue. Returns whether the kernel has something to fetch there.
    fn push(&self, queues: &mut Queues) -> bool {
        let Queues { backlog, slots, registration, interrupt, .. } = queues;
        // SAFETY: *one at a time*: `queues`, borrowed mutably, comes from the lock, and this handle lives no longer.
        let mut submission = unsafe { self.ring.submission_shared() };
        if *interrupt == Interrupt::Wanted && !submission.is_full() {
            let entry = opcode::Nop::new().build().user_data(INTERRUPT);
            // SAFETY: *valid until completed*: the entry points to nothing.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("an entry that no slot has");
            *interrupt = Interrupt::OnItsWay;
        }
        while !slots.is_full()
            && !submission.is_full()
            && let Some(job) = backlog.pop_front()
        {
            let (slot, job) = slots.put(job);
            let entry = entry(job, registration.as_ref()).user_data(slot as u64);
            // SAFETY: *valid until completed*: the entry of a write points into its request's bytes, which stay mapped
            // and unwritten while the request lives; it lives in its slot until the completion is taken from the queue,
            // or is leaked. The descriptor belongs to the job's file, which the job keeps open as long.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("as many entries as slots");
        }
        !submission.is_empty()
    }

    /// Registers the buffer that a write is from, if it is the buffer's first.
    fn register_buffer(&self, job: &Job) {
        let Job::Write(request) = job else { return };
        // Not a `let` chain: the lock must not last as long as the system call.
        let claimed =
            self.queues.lock().registration.as_mut().and_then(|registration| registration.claim(&request.bytes));
        if let Some((arena, index)) = claimed {
            let outcome = registration::register(&self.ring.submitter(), &arena, index);
            if let Some(registration) = &mut self.queues.lock().registration {
                registration.note(index, &outcome);
            }
        }
    }

    /// Adds to the queues, and offers what that brought to the kernel.
    fn enqueue(&self, add: impl FnOnce(&mut Queues)) {
        if self.is_inherited() {
            return;
        }
        let to_submit = {
            let queues = &mut *self.queues.lock();
            add(queues);
            queues.broken.is_none() && self.push(queues)
        };
        if to_submit && let Err(error) = self.ring.submit() {
            event!(DEBUG, %error, "io_uring_enter did not take the entry: it is offered again when reaping");
        }
    }

    /// Moves completions from their queue to `completed`, and refills the submission queue. An interrupt is for a
    /// thread that waits and has nothing else to return with; until there is one, it stays.
    fn collect(&self, waits: bool, completed: &mut Vec<Completion>) -> Progress {
        let queues = &mut *self.queues.lock();
        if let Some(errno) = queues.broken {
            completed.extend(queues.backlog.drain(..).map(|job| (job, Err(errno))));
            return Progress { to_submit: false, in_flight: false, interrupted: false };
        }
        // SAFETY: *one at a time*: `queues` is locked, and this handle lives no longer than the statement.
        for entry in unsafe { self.ring.completion_shared() } {
            if entry.user_data() == INTERRUPT {
                queues.interrupt = Interrupt::Arrived;
            } else {
                completed.push((queues.slots.take(entry.user_data() as usize), outcome(entry.result())));
            }
        }
        let interrupted = waits && completed.is_empty() && queues.interrupt == Interrupt::Arrived;
        if interrupted {
            queues.interrupt = Interrupt::No;
        }
        let to_submit = self.push(queues);
        Progress { to_submit, in_flight: queues.slots.used() + queues.announced > 0, interrupted }
    }

    /// Offers the submission queue to the kernel and waits there, without the lock, for a completion.
    fn enter_and_wait(&self, limit: Option<Duration>) -> io::Result<usize> {
        match limit {
            None => self.ring.submit_and_wait(1),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        }
    }

    /// Does here what was never begun; see [`is_ours`].
    fn carry_out_unbegun(&self, completed: &mut [Completion]) {
        // The kernel may still do what was given up: its errno, which may be `EAGAIN` too, says nothing else.
        if self.has_given_up() {
            return;
        }
        for (job, result) in completed {
            if let Err(errno) = *result
                && is_ours(job, errno, || job.segment().file().cancels_only_unbegun())
            {
                event!(DEBUG, %errno, "no kernel worker is available: done in this thread");
                *result = job.carry_out();
            }
        }
    }

    /// Completes everything in flight with an error, because the kernel no longer completes it; what the kernel may
    /// still be reading is never unmapped. It may also still carry out the writes, even those that it has not fetched,
    /// for another thread may be entering the kernel.
    fn give_up(&self, errno: Errno, completed: &mut Vec<Completion>) {
        event!(ERROR, %errno, "io_uring_enter fails for good: everything in flight fails with it");
        let mut queues = self.queues.lock();
        queues.broken = Some(errno);
        for job in queues.slots.take_all() {
            if let Job::Write(request) = &job {
                // Before the caller knows of the failure, and so before the queue can be dropped.
                self.given_up.store(true, Ordering::Relaxed);
                mem::forget(Arc::clone(request.bytes.arena()));
            }
            completed.push((job, Err(errno)));
        }
    }
}

/// What is left to do after completions were collected.
struct Progress {
    to_submit: bool,
    in_flight: bool,
    interrupted: bool,
}

/// How far an interrupt has come. One is on its way at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupt {
    No,
    Wanted,
    OnItsWay,
    Arrived,
}

impl Backend for Uring {
    fn attach(&self, arena: &Arc<Arena>, files: &[Arc<Segment>], segments: bool) -> Registered {
        let (registration, registered) = Registration::new(&self.ring.submitter(), arena, files, segments);
        self.queues.lock().registration = Some(registration);
        registered
    }

    fn detach(&self) {
        let registration = self.queues.lock().registration.take();
        if let Some(registration) = registration {
            registration.revoke(&self.ring.submitter());
        }
    }

    fn submit(&self, job: Job) {
        if self.is_inherited() {
            return;
        }
        self.register_buffer(&job);
        self.enqueue(|queues| queues.backlog.push_back(job));
    }

    fn write_now(&self, request: Request) -> Attempt {
        // What was given up could land on it.
        let broken = if self.has_given_up() { self.queues.lock().broken } else { None };
        let result = broken.map_or_else(|| request.segment().file().write(&request), Err);
        (request, result)
    }

    fn has_given_up(&self) -> bool {
        // ordering: only set before `reap` returns, which the dropping thread is ordered behind.
        self.given_up.load(Ordering::Relaxed)
    }

    fn announce(&self) {
        if !self.is_inherited() {
            self.queues.lock().announced += 1;
        }
    }

    fn retract(&self) {
        if !self.is_inherited() {
            self.queues.lock().announced -= 1;
        }
    }

    fn add(&self, segment: &Arc<Segment>) {
        if self.is_inherited() {
            return;
        }
        let place = {
            let Queues { registration, slots, .. } = &mut *self.queues.lock();
            registration.as_mut().and_then(|registration| registration.claim_place(segment, slots))
        };
        if let Some(place) = place {
            let outcome = registration::replace_file(&self.ring.submitter(), place, Some(segment));
            if let Some(registration) = &mut self.queues.lock().registration {
                registration.note_file(place, Some(segment), &outcome);
            }
        }
    }

    fn remove(&self, segment: &Arc<Segment>) {
        if self.is_inherited() {
            return;
        }
        let place = {
            let registration = &mut self.queues.lock().registration;
            registration.as_mut().and_then(|registration| registration.reclaim_place(segment))
        };
        if let Some(place) = place {
            let outcome = registration::replace_file(&self.ring.submitter(), place, None);
            if let Some(registration) = &mut self.queues.lock().registration {
                registration.note_file(place, None, &outcome);
            }
        }
    }

    fn interrupt(&self) {
        self.enqueue(|queues| {
            if queues.interrupt == Interrupt::No {
                queues.interrupt = Interrupt::Wanted;
            }
        });
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        self.wait_and_collect(wait, completed);
        self.carry_out_unbegun(completed);
    }
}

impl Uring {
    fn wait_and_collect(&self, wait: Wait, completed: &mut Vec<Completion>) {
        let mut stalls = 0;
        while !self.is_inherited() {
            let progress = self.collect(wait != Wait::No, completed);
            let waiting = match wait {
                Wait::Until(deadline) if completed.is_empty() && progress.in_flight && !progress.interrupted => {
                    time_left(deadline)
                }
                _ => None,
            };
            let entered = match waiting {
                Some(limit) => self.enter_and_wait(limit),
                None if progress.to_submit => self.ring.submit(),
                None => return,
            };
            match entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
                Ok(_) | Err(Errno::TIME | Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) if stalls < MAX_STALLS => {
                    stalls += 1;
                    pause(stalls);
                }
                Err(errno) => return self.give_up(errno, completed),
            }
            if waiting.is_none() {
                return;
            }
        }
    }
}

/// Whether this thread may and should do what io_uring came back from with `errno`.
///
/// The kernel completes a request with `ECANCELED` by itself only where it takes it out of a worker's queue, or
/// refuses to put it there (`io_wq_enqueue`, `io_wq_submit_work`, `io_queue_iowq`). A sync gets there without
/// having been tried. A write was tried so far as that was possible without blocking: some of its bytes may be in
/// the file, but had its own sync failed, that errno would be here. So both may be done from the beginning, as long
/// as no `ECANCELED` comes from the file system. For a plain write it would not matter, nor does `EAGAIN`, which
/// older kernels let through from the try. But `EAGAIN` of a sync is the file system's.
///
/// A preallocating write is not worth a thread's time.
///
/// `cancels_only_unbegun` is [that of the job's file](crate::file::LogFile::cancels_only_unbegun).
fn is_ours(job: &Job, errno: Errno, cancels_only_unbegun: impl FnOnce() -> bool) -> bool {
    match (job, errno) {
        (Job::Write(request), _) if request.preparing => false,
        (Job::Write(request), Errno::CANCELED | Errno::AGAIN) => !request.durable || cancels_only_unbegun(),
        (Job::Sync(_), Errno::CANCELED) => cancels_only_unbegun(),
        _ => false,
    }
}

/// `None`: the deadline has passed. `Some(None)`: there is none.
fn time_left(deadline: Option<Instant>) -> Option<Option<Duration>> {
    match deadline {
        None => Some(None),
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            (!left.is_zero()).then_some(Some(left))
        }
    }
}

/// What the kernel is asked to do.
fn entry(job: &Job, registration: Option<&Registration>) -> squeue::Entry {
    let segment = job.segment();
    let (fd, flags) = match registration.and_then(|registration| registration.file(segment)) {
        Some(index) => (Fd(index), squeue::Flags::FIXED_FILE),
        None => (Fd(segment.file().as_fd().as_raw_fd()), squeue::Flags::empty()),
    };
    let entry = match job {
        Job::Write(request) => {
            let (bytes, position) = (request.remaining(), request.file_offset());
            // `remaining` is at most 1 GiB.
            let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
            let sync = sync_flags(request);
            match registration.and_then(|registration| registration.buffer(&request.bytes)) {
                Some(buffer) => opcode::WriteFixed::new(fd, start, len, buffer).offset(position).rw_flags(sync).build(),
                None => opcode::Write::new(fd, start, len).offset(position).rw_flags(sync).build(),
            }
        }
        Job::Sync(flush) => {
            let flags = match flush.scope {
                Scope::Data => FsyncFlags::DATASYNC,
                Scope::Whole(_) => FsyncFlags::empty(),
            };
            opcode::Fsync::new(fd).flags(flags).build()
        }
    };
    entry.flags(flags)
}

/// What a write puts on stable storage by itself, in flags of `pwritev2`.
fn sync_flags(request: &Request) -> i32 {
    match request.scope {
        _ if !request.durable => 0,
        Scope::Data => libc::RWF_DSYNC,
        Scope::Whole(_) => libc::RWF_SYNC,
    }
}

fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("queues", &self.queues).finish_non_exhaustive()
    }
}
