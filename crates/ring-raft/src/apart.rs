//! Work in a thread of its own, as a future.

use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::logs::lock;

/// What a thread has made, and the task that waits for it.
struct Slot<T> {
    outcome: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

/// What `work` returns; a thread does it when the future is polled first. Its panic goes to the task.
pub(crate) fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    Apart { work: Some(work), slot: Arc::new(Mutex::new(Slot { outcome: None, waker: None })) }
}

struct Apart<W, T> {
    work: Option<W>,
    slot: Arc<Mutex<Slot<T>>>,
}

// Nothing in it is pinned.
impl<W, T> Unpin for Apart<W, T> {}

impl<T: Send + 'static, W: FnOnce() -> T + Send + 'static> Future for Apart<W, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(work) = self.work.take() {
            let slot = Arc::clone(&self.slot);
            let (hand_over, taken) = std::sync::mpsc::sync_channel::<W>(1);
            let run = move || {
                let Ok(work) = taken.recv() else { return };
                let outcome = catch_unwind(AssertUnwindSafe(work));
                let mut slot = lock(&slot);
                slot.outcome = Some(outcome);
                if let Some(waker) = slot.waker.take() {
                    drop(slot);
                    waker.wake();
                }
            };
            match thread::Builder::new().name("ring-raft".into()).spawn(run) {
                Ok(_) => _ = hand_over.send(work),
                // Without a thread, it is done here.
                Err(_) => return Poll::Ready(work()),
            }
        }
        let mut slot = lock(&self.slot);
        match slot.outcome.take() {
            Some(Ok(outcome)) => Poll::Ready(outcome),
            Some(Err(panic)) => resume_unwind(panic),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
