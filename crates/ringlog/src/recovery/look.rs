//! What a process that only reads learns of a log, whether it is closed, killed, or in use.

use core::time::Duration;
use std::thread;

use super::judge::{Verify, judge, survey};
use super::open::LOCK;
use super::report::{Report, Verdict};
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::Manifest;

/// How often a log in use is looked at, before what is found counts: it may change while it is read.
const LOOKS: u32 = 8;

/// The pause before the next look; it doubles.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks at a log, without a lock, and without a change.
///
/// # Errors
///
/// [`OpenError`]; damage is not one of them, but a verdict.
pub(crate) fn look<D: Directory>(directory: &D, how: &Verify) -> Result<(Report, Manifest), OpenError> {
    let is_in_use = || directory.is_locked(LOCK).map_err(OpenError::io("look at", LOCK));
    let mut pause = PAUSE;
    for last in (0..LOOKS).rev() {
        let seen = if is_in_use()? {
            survey(directory, how)
        } else {
            judge(directory, how, false, false)
                .and_then(|judged| judged.ok_or(OpenError::Missing))
                .map(|judged| (judged.report, judged.manifest.content().clone()))
        };
        let is_fine = matches!(&seen, Ok((report, _)) if !matches!(report.verdict, Verdict::Damaged(_)));
        if is_fine || last == 0 || !is_in_use()? {
            return seen;
        }
        thread::sleep(pause);
        pause *= 2;
    }
    unreachable!("the last look was returned")
}
