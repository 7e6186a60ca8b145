//! What tasks need that must not block: threads of the log that wait and read in their stead. Each is started when it
//! is first needed.

use core::mem;
use core::task::Waker;
use core::time::Duration;
use std::sync::{Arc, Weak, mpsc};
use std::task::Wake;
use std::thread::{self, Thread};

use buffer_ring::ring_io::events::shield;
use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::{Condvar, Mutex};
use buffer_ring::{BufferRing, DurableWatch, RingError};

use crate::OpenError;

/// How often a thread looks for what is staged, and for what another process has written.
const STAGED: Duration = Duration::from_millis(1);
const OTHERS: Duration = Duration::from_millis(5);

/// How long it waits for durability at a time.
const LONG: Duration = Duration::from_secs(3600);

/// What tasks wait for.
#[derive(Debug)]
pub(crate) enum Pace {
    Durable(DurableWatch),
    Staged(DurableWatch, Weak<BufferRing>),
    /// What another process does.
    Others,
}

impl Pace {
    /// How far the log is; `None`: it has ended, or that is not known.
    fn position(&self) -> Option<u64> {
        let has_ended =
            |watch: &DurableWatch| !matches!(watch.wait_ge_timeout(u64::MAX, Duration::ZERO), Err(RingError::TimedOut));
        match self {
            Self::Durable(watch) => (!has_ended(watch)).then(|| watch.get()),
            Self::Staged(watch, ring) => ring.upgrade().filter(|_| !has_ended(watch)).map(|ring| ring.tail()),
            Self::Others => None,
        }
    }

    /// Waits until the log may be further than at `before`.
    fn wait(&self, before: Option<u64>) {
        match self {
            Self::Durable(watch) => drop(watch.wait_ge_timeout(before.map_or(0, |durable| durable + 1), LONG)),
            Self::Staged(watch, _) => drop(watch.wait_ge_timeout(watch.get() + 1, STAGED)),
            Self::Others => thread::sleep(OTHERS),
        }
    }
}

/// Tasks that wait for the log to come further.
#[derive(Debug)]
pub(crate) struct Tasks {
    process: Process,
    shared: Arc<TaskList>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { process: Process::here(), shared: Arc::default() }
    }
}

#[derive(Debug, Default)]
struct TaskList {
    state: Mutex<Listed>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Listed {
    waiting: Vec<Task>,
    is_started: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Task {
    /// Where the log was when the task looked; `None`: it wants to look again.
    seen: Option<u64>,
    waker: Waker,
}

impl Tasks {
    /// Has a task woken when the log is further than `seen`, or has ended.
    pub(crate) fn add(&self, seen: Option<u64>, waker: Waker, pace: impl FnOnce() -> Pace) -> Result<(), OpenError> {
        let mut state = self.shared.state.lock();
        if !state.is_started {
            let (shared, pace) = (Arc::clone(&self.shared), pace());
            start("ringlog-tasks", move || shared.run(&pace))?;
            state.is_started = true;
        }
        // One that gave up a future and made another is there already.
        if !state.waiting.iter().any(|task| task.seen == seen && task.waker.will_wake(&waker)) {
            state.waiting.push(Task { seen, waker });
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // In a forked child, a thread that is not there may have locked it.
        if !self.process.is_here() {
            return mem::forget(Arc::clone(&self.shared));
        }
        // Not joined: the thread itself may be dropping the log, in a waker.
        self.shared.state.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl TaskList {
    fn run(&self, pace: &Pace) {
        loop {
            // Before a task is seen: what happens after the task has looked is later.
            let before = pace.position();
            {
                let mut state = self.state.lock();
                while state.waiting.is_empty() && !state.is_over {
                    state = self.changed.wait(state);
                }
                if state.is_over {
                    return;
                }
            }
            pace.wait(before);
            let now = pace.position();
            let due: Vec<_> = {
                let is_due = |waiting: &mut Task| now.is_none() || waiting.seen != now;
                self.state.lock().waiting.extract_if(.., is_due).collect()
            };
            for Task { waker, .. } in due {
                let _panicked = shield(|| waker.wake());
            }
        }
    }
}

fn start(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let started = thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).map_err(OpenError::io("start the thread", name))
}

/// Something that blocks, and answers its task itself.
type Job = Box<dyn FnOnce() + Send>;

/// A thread that reads files for tasks.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Ends the thread when it is dropped.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

/// The answer to a task, when there is one.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    slot: Arc<Mutex<AnswerSlot<T>>>,
}

#[derive(Debug)]
struct AnswerSlot<T> {
    answer: Option<T>,
    waker: Option<Waker>,
}

/// A thread that waits for an answer.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Reads {
    /// Has `read` done elsewhere.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Answer<T>, OpenError> {
        let slot = Arc::new(Mutex::new(AnswerSlot { answer: None, waker: None }));
        let answered = Arc::clone(&slot);
        let job = Box::new(move || {
            let answer = read();
            let waker = {
                let mut slot = answered.lock();
                slot.answer = Some(answer);
                slot.waker.take()
            };
            if let Some(waker) = waker {
                let _panicked = shield(|| waker.wake());
            }
        });
        let mut jobs = self.jobs.lock();
        let sender = match &*jobs {
            Some(sender) => sender,
            None => {
                let (sender, received) = mpsc::channel::<Job>();
                start("ringlog-reader", move || {
                    for job in received {
                        let _panicked = shield(job);
                    }
                })?;
                jobs.insert(sender)
            }
        };
        // The thread ends with the sender.
        let _sent = sender.send(job);
        Ok(Answer { slot })
    }
}

impl<T> Answer<T> {
    /// Waits for the answer.
    pub(crate) fn wait(&self) -> T {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match self.take(&waker) {
                Some(answer) => return answer,
                None => thread::park(),
            }
        }
    }

    /// The answer; if it is not there, `waker` is called when it is.
    pub(crate) fn take(&self, waker: &Waker) -> Option<T> {
        // Foreign code, which may panic: before anything is locked.
        let waker = waker.clone();
        let mut slot = self.slot.lock();
        let answer = slot.answer.take();
        let old = if answer.is_none() { slot.waker.replace(waker) } else { None };
        drop(slot);
        drop(old);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Log;

    /// A task that nothing has to be done for.
    struct Idle;

    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_task_that_gives_up_and_waits_again_is_listed_once() {
        let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("").expect("a log");
        let tasks = Tasks::default();
        let (seen, wakers) = (log.durable().get(), [(); 2].map(|()| Waker::from(Arc::new(Idle))));
        for _ in 0..1000 {
            for waker in &wakers {
                tasks.add(Some(seen), waker.clone(), || Pace::Durable(log.durable_watch())).expect("a thread");
            }
        }
        assert_eq!(tasks.shared.state.lock().waiting.len(), 2);
        // They leave the list when the log has come further.
        let at = log.append(0, b"a record").expect("room");
        log.wait_durable(at.end).expect("a working device");
        while !tasks.shared.state.lock().waiting.is_empty() {
            thread::yield_now();
        }
    }
}
