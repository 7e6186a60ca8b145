//! The completion queue of the engines in user space.

use core::mem;

use crate::Wait;
use crate::backend::Completion;
use crate::locks::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(crate) struct CompletionQueue {
    state: Mutex<Completions>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Completions {
    completed: Vec<Completion>,
    /// Expected and not yet reaped, those in `completed` included.
    in_flight: usize,
    interrupted: bool,
}

impl CompletionQueue {
    /// One more completion will come.
    pub(crate) fn expect_one_more(&self) {
        self.state.lock().in_flight += 1;
    }

    /// One that was expected will not come; a thread that waits for it has to be interrupted.
    pub(crate) fn expect_one_less(&self) {
        self.state.lock().in_flight -= 1;
    }

    /// Here it is.
    pub(crate) fn push(&self, completion: Completion) {
        self.state.lock().completed.push(completion);
        self.changed.notify_one();
    }

    /// [`Backend::interrupt`](crate::backend::Backend::interrupt) of the engines in user space.
    pub(crate) fn interrupt(&self) {
        self.state.lock().interrupted = true;
        self.changed.notify_all();
    }

    /// [`Backend::reap`](crate::backend::Backend::reap) of the engines in user space.
    pub(crate) fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        let mut state = self.state.lock();
        if let Wait::Until(deadline) = wait {
            while state.completed.is_empty() && state.in_flight > 0 && !mem::take(&mut state.interrupted) {
                let is_late;
                (state, is_late) = self.changed.wait_until(state, deadline);
                if is_late {
                    break;
                }
            }
        }
        state.in_flight -= state.completed.len();
        completed.append(&mut state.completed);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::MemoryDevice;
    use crate::backend::{Flush, Job};
    use crate::files::Segment;
    use crate::prealloc::settle::Scope;

    #[test]
    fn with_nothing_in_flight_nothing_is_waited_for() {
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            let (queue, mut completed) = (CompletionQueue::default(), Vec::new());
            queue.reap(Wait::Until(None), &mut completed);
            assert!(completed.is_empty(), "nothing was ever expected");
            queue.expect_one_more();
            let file = Segment::whole_in_memory(MemoryDevice::new());
            queue.push((Job::Sync(Flush::of(&file, Scope::Data)), Ok(0)));
            queue.reap(Wait::Until(None), &mut completed);
            assert_eq!(completed.len(), 1);
            // What was reaped is no longer in flight, nor what will not come.
            queue.expect_one_more();
            queue.expect_one_less();
            queue.reap(Wait::Until(None), &mut completed);
            _ = done.send(completed.len());
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(1), "it waits for what does not come");
    }
}
