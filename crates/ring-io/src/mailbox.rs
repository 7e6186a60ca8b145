//! Where the engines in user space put completions until they are reaped.

use core::mem;

use parking_lot::{Condvar, Mutex};

use crate::Wait;
use crate::backend::Completion;

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Mail {
    completed: Vec<Completion>,
    /// Announced and not yet reaped, those in `completed` included.
    in_flight: usize,
    interrupted: bool,
}

impl Mailbox {
    /// One more completion will come.
    pub(crate) fn announce(&self) {
        self.mail.lock().in_flight += 1;
    }

    /// Here it is.
    pub(crate) fn deliver(&self, completion: Completion) {
        self.mail.lock().completed.push(completion);
        self.changed.notify_one();
    }

    /// [`Backend::interrupt`](crate::backend::Backend::interrupt) of the engines in user space.
    pub(crate) fn interrupt(&self) {
        self.mail.lock().interrupted = true;
        self.changed.notify_all();
    }

    /// [`Backend::reap`](crate::backend::Backend::reap) of the engines in user space.
    pub(crate) fn reap(&self, wait: Wait, completed: &mut Vec<Completion>) {
        let mut mail = self.mail.lock();
        if let Wait::Until(deadline) = wait {
            while mail.completed.is_empty() && mail.in_flight > 0 && !mem::take(&mut mail.interrupted) {
                match deadline {
                    None => self.changed.wait(&mut mail),
                    Some(deadline) => {
                        if self.changed.wait_until(&mut mail, deadline).timed_out() {
                            break;
                        }
                    }
                }
            }
        }
        mail.in_flight -= mail.completed.len();
        completed.append(&mut mail.completed);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::backend::{Flush, Job};
    use crate::settle::Scope;

    #[test]
    fn with_nothing_in_flight_nothing_is_waited_for() {
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            let (mailbox, mut completed) = (Mailbox::default(), Vec::new());
            mailbox.reap(Wait::Until(None), &mut completed);
            assert!(completed.is_empty(), "nothing was ever announced");
            mailbox.announce();
            mailbox.deliver((Job::Sync(Flush::new(Scope::Data)), Ok(0)));
            mailbox.reap(Wait::Until(None), &mut completed);
            assert_eq!(completed.len(), 1);
            // What was reaped is no longer in flight.
            mailbox.reap(Wait::Until(None), &mut completed);
            _ = done.send(completed.len());
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(1), "it waits for what does not come");
    }
}
