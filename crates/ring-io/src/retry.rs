//! What a raw completion means: a write that is finished, or one that has to go out again.

use core::time::Duration;
use std::thread;

use ring_alloc::round_down;
use rustix::io::Errno;

use crate::seam::{Completion, Request};
use crate::{DeviceError, Finished, Operation};

/// Attempts in a row that may bring nothing forward.
pub(crate) const MAX_STALLS: u32 = 64;

/// Stalls after which the next attempt is made at once; then the pauses grow, from a microsecond to 4 ms.
const EAGER_STALLS: u32 = 4;
const MAX_PAUSE_EXPONENT: u32 = 12;

/// What becomes of a request.
pub(crate) enum Verdict {
    /// Its caller gets this.
    Finished(Finished),
    /// It goes out again.
    Again(Request),
}

/// Whether the answer says "not now" rather than "no".
pub(crate) fn is_transient(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::CANCELED)
}

/// Pauses before another attempt, as long as befits the `stalls` so far: 0.2 s in all for one that is given up.
pub(crate) fn pause(stalls: u32) {
    if stalls > EAGER_STALLS {
        let exponent = (stalls - EAGER_STALLS - 1).min(MAX_PAUSE_EXPONENT);
        thread::sleep(Duration::from_micros(1 << exponent));
    }
}

/// Decides, and counts in a request that goes out again how often it has stalled.
pub(crate) fn judge((mut request, result): Completion) -> Verdict {
    let range = request.offset..request.offset + request.bytes.len() as u64;
    let (token, position) = (request.token, request.position());
    let error = match result {
        Ok(written) if request.done + written >= request.bytes.len() => {
            tracing::trace!(token, offset = range.start, len = request.bytes.len(), "write completed");
            return finished(request, Ok(()));
        }
        Ok(written) if written > 0 && request.stalls < MAX_STALLS => {
            // Direct I/O resumes at block boundaries only; part of a block is written twice, with the same bytes.
            let done = round_down((request.done + written) as u64) as usize;
            request.stalls = if done > request.done { 0 } else { request.stalls + 1 };
            request.done = done;
            tracing::debug!(
                token,
                position,
                written,
                resumes_at = request.position(),
                "short write: the rest goes out"
            );
            return Verdict::Again(request);
        }
        Ok(_) => DeviceError::no_progress(Operation::Write, range),
        Err(errno) if is_transient(errno) && request.stalls < MAX_STALLS => {
            request.stalls += 1;
            tracing::debug!(token, position, %errno, stalls = request.stalls, "write put off: it goes out again");
            return Verdict::Again(request);
        }
        Err(errno) => DeviceError::new(Operation::Write, errno, range),
    };
    tracing::error!(token, position, %error, "write failed");
    finished(request, Err(error))
}

fn finished(request: Request, result: Result<(), DeviceError>) -> Verdict {
    let durable = request.durable && result.is_ok();
    Verdict::Finished(Finished { token: request.token, bytes: request.bytes, durable, result })
}
