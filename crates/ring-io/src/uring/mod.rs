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
//! An entry that the kernel did not take (`EAGAIN`, `EBUSY`, `EINTR`) stays in the submission queue, and the next call offers
//! it again. It is never pushed twice.

mod registration;
mod setup;
mod slots;
#[cfg(test)]
mod tests;

use core::fmt;
use core::mem;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use parking_lot::Mutex;
use ring_alloc::Arena;
use rustix::io::Errno;

use self::registration::Registration;
use self::slots::Slots;
use crate::file::LogFile;
use crate::retry::{MAX_STALLS, pause};
use crate::seam::{Attempt, Backend, Completion, Job, Request};
use crate::{Registered, Wait, event};

/// What the operation is called that does nothing but end a wait.
const INTERRUPT: u64 = u64::MAX;

pub(crate) struct Uring {
    /// Declared first and so closed before the file and the registered memory, which its requests point to.
    ring: IoUring,
    queues: Mutex<Queues>,
    file: Arc<LogFile>,
}

/// The user-space half. Whoever has it locked may touch the two queues shared with the kernel.
#[derive(Debug)]
struct Queues {
    /// Not yet pushed.
    backlog: VecDeque<Job>,
    /// Pushed, and their completions not yet seen.
    slots: Slots,
    registration: Option<Registration>,
    interrupt: Interrupt,
    /// Set once the kernel cannot be entered any more: nothing is pushed from then on.
    broken: Option<Errno>,
}

impl Uring {
    /// The engine, or in words why there is none.
    pub(crate) fn new(file: Arc<LogFile>) -> Result<Self, String> {
        let ring = setup::ring()?;
        // One entry stays free for an interrupt.
        let slots = Slots::new(ring.params().sq_entries() as usize - 1);
        let interrupt = Interrupt::No;
        let queues = Queues { backlog: VecDeque::new(), slots, registration: None, interrupt, broken: None };
        Ok(Self { ring, queues: Mutex::new(queues), file })
    }

    /// Moves jobs from the backlog to the submission queue. Answers whether the kernel has something to fetch there.
    fn push(&self, queues: &mut Queues) -> bool {
        let Queues { backlog, slots, registration, interrupt, .. } = queues;
        // SAFETY: *one at a time*: `queues`, borrowed mutably, comes from the lock, and this handle lives no longer.
        let mut submission = unsafe { self.ring.submission_shared() };
        if *interrupt == Interrupt::Wanted {
            let entry = opcode::Nop::new().build().user_data(INTERRUPT);
            // SAFETY: *valid until completed*: the entry points to nothing.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("an entry that no slot has");
            *interrupt = Interrupt::OnItsWay;
        }
        while !slots.is_full()
            && let Some(job) = backlog.pop_front()
        {
            let (slot, job) = slots.put(job);
            let entry = self.entry(job, registration.as_ref()).user_data(slot as u64);
            // SAFETY: *valid until completed*: the entry of a write points into its request's bytes, which stay mapped and unwritten
            // while the request lives; it lives in its slot until the completion is taken from the queue, or is leaked. The
            // descriptor belongs to `self.file`, which outlives the ring.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("as many entries as slots");
        }
        !submission.is_empty()
    }

    /// Adds to the queues, and offers what that brought to the kernel.
    fn enqueue(&self, add: impl FnOnce(&mut Queues)) {
        let to_submit = {
            let queues = &mut *self.queues.lock();
            add(queues);
            queues.broken.is_none() && self.push(queues)
        };
        if to_submit && let Err(error) = self.ring.submit() {
            event!(DEBUG, %error, "io_uring_enter did not take the entry: it is offered again when reaping");
        }
    }

    fn entry(&self, job: &Job, registration: Option<&Registration>) -> squeue::Entry {
        let (fd, flags) = match registration {
            Some(registration) if registration.file => (Fd(0), squeue::Flags::FIXED_FILE),
            _ => (Fd(self.file.as_fd().as_raw_fd()), squeue::Flags::empty()),
        };
        let entry = match job {
            Job::Write(request) => {
                let (bytes, position) = (request.remaining(), request.position());
                // `remaining` is at most 1 GiB.
                let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
                let sync = if request.durable { libc::RWF_DSYNC } else { 0 };
                match registration.and_then(|registration| registration.buffer(&request.bytes)) {
                    Some(buffer) => {
                        opcode::WriteFixed::new(fd, start, len, buffer).offset(position).rw_flags(sync).build()
                    }
                    None => opcode::Write::new(fd, start, len).offset(position).rw_flags(sync).build(),
                }
            }
            Job::Sync(_) => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        };
        entry.flags(flags)
    }

    /// Moves completions from their queue to `completed`, and refills the submission queue. An interrupt is for whoever waits and has
    /// nothing else to return with; until there is somebody, it stays.
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
        Progress { to_submit, in_flight: queues.slots.used() > 0, interrupted }
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

    /// Answers for everything in flight, because the kernel no longer does; what it may still be reading is never unmapped.
    fn give_up(&self, errno: Errno, completed: &mut Vec<Completion>) {
        event!(ERROR, %errno, "io_uring_enter fails for good: everything in flight fails with it");
        let mut queues = self.queues.lock();
        queues.broken = Some(errno);
        for job in queues.slots.take_all() {
            if let Job::Write(request) = &job {
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
    fn attach(&self, arena: &Arc<Arena>) -> Registered {
        let (registration, registered) = Registration::new(&self.ring.submitter(), arena, self.file.as_fd());
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
        self.enqueue(|queues| queues.backlog.push_back(job));
    }

    fn write_now(&self, request: Request) -> Attempt {
        let result = self.file.write(&request);
        (request, result)
    }

    fn interrupt(&self) {
        self.enqueue(|queues| {
            if queues.interrupt == Interrupt::No {
                queues.interrupt = Interrupt::Wanted;
            }
        });
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        let mut stalls = 0;
        loop {
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

fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("queues", &self.queues).field("file", &self.file).finish_non_exhaustive()
    }
}
