//! What a process that only reads learns of a log, whether it is closed, killed, or in use.

use core::time::Duration;
use std::thread;

use super::judge::{Verify, judge, survey};
use super::open::LOCK;
use super::report::{Damage, Report, Verdict};
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::Manifest;
use crate::manifest::ManifestFile;

/// How often a log in use is looked at, before what is found counts: it may change while it is read.
const LOOKS: u32 = 8;

/// The pause before the next look; it doubles.
const PAUSE: Duration = Duration::from_millis(1);

/// Judges a log like [`verify`](super::verify), also one that another process is writing to: of that, what is proven
/// to be durable, and the verdict is [`Verdict::InUse`] if that is intact. Takes no lock, and changes nothing. Returns
/// also the `MANIFEST` that the report is of.
///
/// # Errors
///
/// [`OpenError`]; damage is not one of them, but a verdict. [`OpenError::Changed`] if the writer trims faster than the
/// log can be read.
pub fn look<D: Directory>(directory: &D, how: &Verify) -> Result<(Report, Manifest), OpenError> {
    let state = || {
        let is_in_use = directory.is_locked(LOCK).map_err(OpenError::io("look at", LOCK))?;
        // An error comes again.
        let sequence = ManifestFile::read(directory, false).ok().flatten().map(|file| file.content().sequence);
        Ok::<_, OpenError>((is_in_use, sequence))
    };
    let mut pause = PAUSE;
    for last in (0..LOOKS).rev() {
        let before = state()?;
        let seen = if before.0 {
            survey(directory, how).and_then(|seen| unless_trimmed(directory, seen))
        } else {
            judge(directory, how, false, false)
                .and_then(|judged| judged.ok_or(OpenError::Missing))
                .map(|judged| (judged.report, judged.manifest.content().clone()))
        };
        let is_fine =
            matches!(&seen, Ok((report, _)) if !matches!(report.verdict, Verdict::Torn(_) | Verdict::Damaged(_)));
        // It was not in use, and no process has opened it meanwhile.
        if is_fine || last == 0 || state()? == (false, before.1) && !before.0 {
            return seen;
        }
        thread::sleep(pause);
        pause *= 2;
    }
    unreachable!("the last look was returned")
}

/// Refuses damage that is none: what was missing was trimmed meanwhile.
fn unless_trimmed<D: Directory>(
    directory: &D,
    (report, manifest): (Report, Manifest),
) -> Result<(Report, Manifest), OpenError> {
    if let Verdict::Damaged(Damage { range, file, .. }) = &report.verdict {
        let now = ManifestFile::read(directory, false)?.ok_or(OpenError::Missing)?;
        let at = range.start.get();
        if manifest.segment_of(at) < now.content().first_segment() {
            return Err(OpenError::Changed { file: file.clone(), address: at });
        }
    }
    Ok((report, manifest))
}
