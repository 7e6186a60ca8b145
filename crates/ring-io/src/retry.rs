//! What an attempt at a write means: it is finished, or has to go out again.

use core::time::Duration;
use std::{io, thread};

use ring_alloc::round_down;
use rustix::io::Errno;

use crate::backend::{Attempt, Request};
use crate::{DeviceError, Finished, Operation, event};

/// Attempts in a row that may bring no block to its end.
pub(crate) const MAX_STALLS: u32 = 64;

/// The same for a preallocating write that was cancelled: once, since the thread that submitted it may have exited.
const PREPARING_STALLS: u32 = 1;

/// Stalls after which the next attempt is made at once; then the pauses grow, from a microsecond to 4 ms.
const EAGER_STALLS: u32 = 4;
const MAX_PAUSE_EXPONENT: u32 = 12;

/// What becomes of a request after an attempt.
pub(crate) enum Decision {
    /// Its caller gets this.
    Finished(Finished),
    /// It is sent again.
    Again(Request),
}

/// Whether an errno means "not now" rather than "no".
pub(crate) fn is_transient(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::CANCELED)
}

/// Pauses in which memory is waited for that the kernel may be about to free: 0.1, 0.2, 0.4, ... ms, 0.1 s in all. Seen
/// on two busy cores: 25 ms at most.
const MEMORY_PAUSES: u32 = 10;

/// Asks again for a moment when there is no memory (`ENOMEM`): what a ring had locked counts against `RLIMIT_MEMLOCK`
/// until the kernel has torn the ring down, which it does after the last descriptor is closed.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut outcome = attempt();
    for pause in (0..MEMORY_PAUSES).map(|n| Duration::from_micros(100 << n)) {
        match &outcome {
            Err(error) if error.raw_os_error() == Some(Errno::NOMEM.raw_os_error()) => thread::sleep(pause),
            _ => break,
        }
        outcome = attempt();
    }
    outcome
}

/// Pauses before another attempt.
pub(crate) fn pause(stalls: u32) {
    thread::sleep(pause_after(stalls));
}

/// As long as befits the `stalls` so far: 0.2 s in all for an attempt that is given up.
fn pause_after(stalls: u32) -> Duration {
    match stalls.checked_sub(EAGER_STALLS + 1) {
        None => Duration::ZERO,
        Some(exponent) => Duration::from_micros(1 << exponent.min(MAX_PAUSE_EXPONENT)),
    }
}

/// Decides what becomes of a request, and counts its stalls. `logical_block_size`: where a write
/// may begin.
pub(crate) fn decide((mut request, result): Attempt, logical_block_size: usize) -> Decision {
    let range = request.range();
    let (token, offset, position) = (request.token, request.offset, request.position());
    let error = match result {
        Ok(written) if request.done + written >= request.bytes.len() => {
            let elapsed = request.submitted.elapsed();
            let len = request.bytes.len();
            event!(TRACE, token, offset, len, ?elapsed, "write completed");
            return finished(request, Ok(()));
        }
        Ok(written) if written > 0 && request.stalls < MAX_STALLS => {
            resume(&mut request, written, logical_block_size);
            let (resumes_at, stalls) = (request.position(), request.stalls);
            event!(DEBUG, token, position, written, resumes_at, stalls, "short write: the rest is sent");
            return Decision::Again(request);
        }
        Ok(_) => DeviceError::no_progress(Operation::Write, range),
        // It is only meant to make others faster, and must not hold them up.
        Err(Errno::CANCELED) if request.preparing && request.stalls >= PREPARING_STALLS => {
            DeviceError::new(Operation::Write, Errno::CANCELED, range)
        }
        Err(errno) if is_transient(errno) && request.stalls < MAX_STALLS => {
            request.stalls += 1;
            let (errno, stalls) = (errno.raw_os_error(), request.stalls);
            event!(DEBUG, token, position, errno, stalls, "write put off: it is sent again");
            return Decision::Again(request);
        }
        Err(errno) => DeviceError::new(Operation::Write, errno, range),
    };
    // The queue decides whether the failure of a preallocating write is worth an event.
    if !request.preparing {
        let elapsed = request.submitted.elapsed();
        event!(ERROR, clone(error), token, offset, position, %error, errno = error.errno(), ?elapsed, "write failed");
    }
    finished(request, Err(error))
}

/// Where a short write is resumed: at the block in which it stopped, so that it stays aligned; part of the block is
/// written twice, with the same bytes. If that made no progress, as close to the exact byte as possible, so that the
/// kernel returns the real errno.
fn resume(request: &mut Request, written: usize, logical_block_size: usize) {
    let reached = request.done + written;
    let block = round_down(reached as u64) as usize;
    if block > request.done {
        request.done = block;
        request.stalls = 0;
        return;
    }
    if request.stalls > 0 {
        request.done = request.done.max(reached - reached % logical_block_size);
    }
    request.stalls += 1;
}

fn finished(request: Request, result: Result<(), DeviceError>) -> Decision {
    let durable = request.durable && result.is_ok();
    Decision::Finished(Finished { token: request.token, bytes: request.bytes, durable, result })
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use ring_alloc::{BLOCK, Buffer};

    use super::*;

    #[test]
    fn a_write_goes_out_so_often_in_vain_and_not_once_more() {
        for result in [Ok(100), Err(Errno::AGAIN), Err(Errno::CANCELED)] {
            let bytes = Buffer::zeroed(BLOCK).expect("a buffer").freeze(BLOCK);
            let (mut request, mut attempts) = (Request::new(7, bytes, 0, false), 1);
            let finished = loop {
                match decide((request, result), 512) {
                    Decision::Again(rest) => request = rest,
                    Decision::Finished(finished) => break finished,
                }
                attempts += 1;
            };
            assert_eq!((attempts, finished.result.is_err()), (MAX_STALLS + 1, true), "{result:?}");
        }
    }

    #[test]
    fn the_pauses_between_attempts_grow_to_a_bound() {
        let micros = |stalls| pause_after(stalls).as_micros();
        assert_eq!([0, 1, 4, 5, 6, 7, 16, 17, 18, MAX_STALLS].map(micros), [0, 0, 0, 1, 2, 4, 2048, 4096, 4096, 4096]);
    }

    #[test]
    fn only_memory_is_waited_for_and_not_for_ever() {
        let attempts = |errno: Errno, refusals: u32| {
            let left = Cell::new(refusals);
            let attempt = || match left.replace(left.get().saturating_sub(1)) {
                0 => Ok(refusals),
                _ => Err(errno.into()),
            };
            (patiently(attempt).map_err(|error: io::Error| Errno::from_io_error(&error)), refusals - left.get())
        };
        assert_eq!(attempts(Errno::NOMEM, 3), (Ok(3), 3));
        assert_eq!(attempts(Errno::PERM, 3), (Err(Some(Errno::PERM)), 1));
        let given_up = (Err(Some(Errno::NOMEM)), MEMORY_PAUSES + 1);
        assert_eq!(attempts(Errno::NOMEM, 100), given_up);
    }
}
