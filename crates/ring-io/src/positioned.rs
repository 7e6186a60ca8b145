//! The engine that needs nothing from the kernel but `pwrite`: a few threads, started when there is work for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use ring_alloc::Arena;

use crate::file::LogFile;
use crate::mailbox::Mailbox;
use crate::seam::{Attempt, Backend, Completion, Job, Request, Storage};
use crate::{Registered, Wait, event};

/// Writes that can be at the device at once. A log is one stream: more threads only wait for each other.
const MAX_THREADS: usize = 4;

#[derive(Debug)]
pub(crate) struct Positioned {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<LogFile>,
    work: Mutex<Work>,
    arrived: Condvar,
    mailbox: Mailbox,
}

#[derive(Debug, Default)]
struct Work {
    queue: VecDeque<Job>,
    /// Threads that wait for `arrived`.
    idle: usize,
    closing: bool,
}

impl Positioned {
    pub(crate) fn new(file: Arc<LogFile>) -> Self {
        let shared = Shared { file, work: Mutex::default(), arrived: Condvar::new(), mailbox: Mailbox::default() };
        Self { shared: Arc::new(shared), threads: Mutex::default() }
    }

    /// Starts one more thread, unless there are enough. Answers whether there is any.
    fn start_thread(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.len() < MAX_THREADS {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("ring-io".to_owned()).spawn(move || shared.run()) {
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
    fn attach(&self, _: &Arc<Arena>) -> Registered {
        Registered::nothing("positioned writes have nothing to register with")
    }

    fn submit(&self, job: Job) {
        self.shared.mailbox.announce();
        let crowded = {
            let mut work = self.shared.work.lock();
            work.queue.push_back(job);
            work.queue.len() > work.idle
        };
        if crowded && !self.start_thread() {
            // No thread to be had: then this one does it.
            let job = self.shared.work.lock().queue.pop_front();
            job.into_iter().for_each(|job| self.shared.carry_out(job));
        }
        self.shared.arrived.notify_one();
    }

    fn write_now(&self, request: Request) -> Attempt {
        let result = self.shared.file.write(&request);
        (request, result)
    }

    fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        self.shared.mailbox.reap(wait, completed);
    }

    fn interrupt(&self) {
        self.shared.mailbox.interrupt();
    }
}

impl Drop for Positioned {
    fn drop(&mut self) {
        self.shared.work.lock().closing = true;
        self.shared.arrived.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "a writing thread panicked");
        }
    }
}

impl Shared {
    /// The life of a thread. It ends only when nothing is queued.
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
            self.arrived.wait(&mut work);
            work.idle -= 1;
        }
    }

    fn carry_out(&self, job: Job) {
        let result = match &job {
            Job::Write(request) => self.file.write(request),
            Job::Sync(_) => self.file.sync().map(|()| 0),
        };
        self.mailbox.deliver((job, result));
    }
}

#[cfg(test)]
mod tests {
    use ring_alloc::{BLOCK, Buffer};

    use super::*;

    #[test]
    fn however_many_writes_there_are_a_few_threads_write_them() {
        const MANY: u64 = 500;
        let file = tempfile::tempfile().expect("a file");
        let engine = Positioned::new(Arc::new(LogFile::new(Arc::new(file))));
        for token in 0..MANY {
            let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
            engine.submit(Job::Write(Request::new(token, bytes, token * BLOCK as u64, false)));
            assert!((1..=MAX_THREADS).contains(&engine.threads.lock().len()));
        }
        let mut completed = Vec::new();
        while completed.len() < MANY as usize {
            engine.reap(Wait::Until(None), &mut completed);
        }
        assert!(completed.iter().all(|(_, result)| *result == Ok(BLOCK)));
    }
}
