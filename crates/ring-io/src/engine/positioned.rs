//! The engine that needs nothing from the kernel but `pwrite`: a few threads, started when there is work for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use ring_alloc::Arena;

use crate::backend::{Attempt, Backend, Completion, Job, Request};
use crate::completion_queue::CompletionQueue;
use crate::files::Segment;
use crate::locks::{Condvar, Mutex};
use crate::thread;
use crate::{Registered, Wait, event};

/// The most writes that are at the device at once. A log is one stream: more threads would only wait for each other.
const MAX_THREADS: usize = 4;

#[derive(Debug)]
pub(crate) struct Positioned {
    pool: Arc<Pool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Pool {
    work: Mutex<Work>,
    arrived: Condvar,
    completions: CompletionQueue,
}

#[derive(Debug, Default)]
struct Work {
    queue: VecDeque<Job>,
    /// Threads that wait for `arrived`.
    idle: usize,
    closing: bool,
}

impl Positioned {
    pub(crate) fn new() -> Self {
        let pool = Pool { work: Mutex::default(), arrived: Condvar::new(), completions: CompletionQueue::default() };
        Self { pool: Arc::new(pool), threads: Mutex::default() }
    }

    /// Starts one more thread, unless there are enough. Returns whether there is any.
    fn start_thread(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.len() < MAX_THREADS {
            let pool = Arc::clone(&self.pool);
            match thread::spawn("ring-io", move || pool.run()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let running = threads.len();
                    event!(WARN, %error, running, "cannot start a thread to write");
                }
            }
        }
        !threads.is_empty()
    }
}

impl Backend for Positioned {
    fn attach(&self, _: &Arc<Arena>, _: &[Arc<Segment>], _: bool) -> Registered {
        Registered::nothing("positioned writes have nothing to register with")
    }

    fn submit(&self, job: Job) {
        self.pool.completions.expect_one_more();
        let crowded = {
            let mut work = self.pool.work.lock();
            work.queue.push_back(job);
            work.queue.len() > work.idle
        };
        if crowded && !self.start_thread() {
            // No thread can be started: this one does it.
            let job = self.pool.work.lock().queue.pop_front();
            job.into_iter().for_each(|job| self.pool.carry_out(job));
        }
        self.pool.arrived.notify_one();
    }

    fn write_now(&self, request: Request) -> Attempt {
        let result = request.segment().file().write(&request);
        (request, result)
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        self.pool.completions.reap(wait, completed);
    }

    fn announce(&self) {
        self.pool.completions.expect_one_more();
    }

    fn retract(&self) {
        self.pool.completions.expect_one_less();
    }

    fn interrupt(&self) {
        self.pool.completions.interrupt();
    }
}

impl Drop for Positioned {
    fn drop(&mut self) {
        self.pool.work.lock().closing = true;
        self.pool.arrived.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a writing thread panicked");
        }
    }
}

impl Pool {
    /// The body of a thread, which ends only when nothing is queued.
    fn run(&self) {
        while let Some(job) = self.next() {
            self.carry_out(job);
        }
    }

    /// The oldest job, when there is one; `None` when there will not be.
    fn next(&self) -> Option<Job> {
        let mut work = self.work.lock();
        loop {
            if let Some(job) = work.queue.pop_front() {
                return Some(job);
            }
            if work.closing {
                return None;
            }
            work.idle += 1;
            work = self.arrived.wait(work);
            work.idle -= 1;
        }
    }

    fn carry_out(&self, job: Job) {
        let result = job.carry_out();
        self.completions.push((job, result));
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::mpsc;
    use std::thread;

    use ring_alloc::{BLOCK, Buffer};

    use super::*;
    use crate::file::LogFile;

    fn file() -> Arc<Segment> {
        Segment::whole(Arc::new(LogFile::new(Arc::new(tempfile::tempfile().expect("a file")))))
    }

    #[test]
    fn its_threads_leave_signals_to_the_process() {
        const SIGTERM: u64 = 1 << (libc::SIGTERM - 1);
        let engine = Positioned::new();
        let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
        engine.submit(Job::Write(Request::new(1, bytes, 0, false).to(&file())));
        engine.reap(Wait::Until(None), &mut Vec::new());
        let tasks = std::fs::read_dir("/proc/self/task").expect("the tasks of this process");
        let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        let ours: Vec<_> = statuses.filter(|status| status.starts_with("Name:\tring-io\n")).collect();
        assert!(!ours.is_empty());
        for status in ours {
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("a mask");
            assert!(u64::from_str_radix(blocked, 16).expect("a mask") & SIGTERM != 0, "{status}");
        }
    }

    #[test]
    fn a_thread_that_was_started_makes_it_unnecessary_to_write_in_the_callers() {
        let engine = Positioned::new();
        for threads in 1..=MAX_THREADS + 1 {
            assert!(engine.start_thread(), "a thread can be had");
            assert_eq!(engine.threads.lock().len(), threads.min(MAX_THREADS));
        }
    }

    #[test]
    fn one_write_after_the_other_needs_one_thread_which_is_idle_in_between() {
        let engine = Positioned::new();
        let file = file();
        for token in 0..5 {
            let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
            engine.submit(Job::Write(Request::new(token, bytes, token * BLOCK as u64, false).to(&file)));
            let mut completed = Vec::new();
            engine.reap(Wait::Until(None), &mut completed);
            assert_eq!((completed.len(), engine.threads.lock().len()), (1, 1));
            let is_idle = || engine.pool.work.lock().idle == 1;
            let mut looks = (0..60_000).map(|_| thread::sleep(Duration::from_millis(1)));
            assert!(is_idle() || looks.any(|()| is_idle()), "its thread waits for the next");
        }
    }

    #[test]
    fn however_many_writes_there_are_a_few_threads_write_them() {
        const MANY: u64 = 500;
        let engine = Positioned::new();
        let file = file();
        for token in 0..MANY {
            let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
            engine.submit(Job::Write(Request::new(token, bytes, token * BLOCK as u64, false).to(&file)));
            assert!((1..=MAX_THREADS).contains(&engine.threads.lock().len()));
        }
        let mut completed = Vec::new();
        while completed.len() < MANY as usize {
            engine.reap(Wait::Until(None), &mut completed);
        }
        assert!(completed.iter().all(|(_, result)| *result == Ok(BLOCK)));
    }

    #[test]
    fn an_interrupt_ends_a_wait_for_what_does_not_come() {
        let engine = Positioned::new();
        engine.pool.completions.expect_one_more();
        engine.interrupt();
        let (ended, outcome) = mpsc::channel();
        thread::spawn(move || {
            let mut completed = Vec::new();
            engine.reap(Wait::Until(None), &mut completed);
            _ = ended.send(completed.len());
        });
        assert_eq!(outcome.recv_timeout(Duration::from_secs(60)), Ok(0));
    }

    #[test]
    fn when_the_engine_is_gone_its_threads_are_too() {
        let engine = Positioned::new();
        let pool = Arc::clone(&engine.pool);
        assert!(engine.start_thread() && Arc::strong_count(&pool) > 2);
        drop(engine);
        assert_eq!(Arc::strong_count(&pool), 1);
    }
}
