//! Whether io_uring works here, and if not, why, in words that help.

use std::{fs, io};

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

use crate::event;
use crate::retry::{is_transient, patiently};

/// Jobs in flight at once; more wait their turn in user space.
const ENTRIES: u32 = 128;

/// Workers that the kernel may start for each thread that submits: what would block that thread goes to them. The
/// kernel's own bound is four per processor and thread; 1, 2, 4 and 8 stream equally fast to ext4 (433 to 582 MB/s, 16
/// runs on two cores).
const WORKERS: u32 = 1;

/// The same, where one thread of the kernel submits for all.
const KERNEL_WORKERS: u32 = 4;

/// How long that thread looks for more before it sleeps.
const POLL_MS: u32 = 1;

/// The thread in which requests begin, and which their completions interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Submitter {
    /// The one that calls.
    #[default]
    Caller,
    /// One of the kernel, for this ring.
    Kernel,
}

/// A ring that is known to take our writes and syncs.
pub(super) fn ring(submitter: Submitter) -> Result<IoUring, String> {
    let mut builder = IoUring::builder();
    builder.dontfork();
    let workers = match submitter {
        Submitter::Caller => WORKERS,
        Submitter::Kernel => {
            builder.setup_sqpoll(POLL_MS);
            KERNEL_WORKERS
        }
    };
    let ring = patiently(|| builder.build(ENTRIES));
    let ring = ring.map_err(|error| refused("io_uring_setup", &error))?;
    if !ring.params().is_feature_ext_arg() {
        return Err("the kernel is older than 5.11 and cannot wait for io_uring with a deadline".to_owned());
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| refused("io_uring_register", &error))?;
    let needed = [opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE];
    if !needed.into_iter().all(|code| probe.is_supported(code)) {
        return Err("the kernel's io_uring has no write or no sync".to_owned());
    }
    // The kernel applies it to each thread that submits, from its first time on.
    if let Err(error) = ring.submitter().register_iowq_max_workers(&mut [workers, 0]) {
        event!(DEBUG, %error, "the kernel is older than 5.15, and bounds its workers by itself");
    }
    // A filter may allow the other two calls and not this one.
    match ring.submit() {
        Err(error) if !Errno::from_io_error(&error).is_some_and(is_transient) => Err(refused("io_uring_enter", &error)),
        _ => Ok(ring),
    }
}

fn refused(call: &str, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS) => format!("{call}: ENOSYS, neither the kernel nor its seccomp filter knows io_uring"),
        Some(Errno::PERM) => {
            let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            format!("{call}: EPERM, {}", forbidden(&setting.unwrap_or_default()))
        }
        Some(Errno::ACCESS) => format!("{call}: EACCES, a security module forbids it"),
        Some(Errno::NOMEM) => format!("{call}: ENOMEM, perhaps RLIMIT_MEMLOCK is too small"),
        Some(Errno::MFILE) => format!("{call}: EMFILE, RLIMIT_NOFILE is reached"),
        _ => format!("{call}: {error}"),
    }
}

/// What forbids it, if this is the setting of the kernel.
fn forbidden(setting: &str) -> String {
    match setting.trim() {
        level @ ("1" | "2") => format!("sysctl kernel.io_uring_disabled={level} forbids it"),
        _ => "a seccomp filter or sysctl kernel.io_uring_disabled forbids it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_in_the_way() {
        let said = |errno: Errno| refused("io_uring_setup", &errno.into());
        assert_eq!(said(Errno::ACCESS), "io_uring_setup: EACCES, a security module forbids it");
        assert_eq!(said(Errno::NOMEM), "io_uring_setup: ENOMEM, perhaps RLIMIT_MEMLOCK is too small");
        assert_eq!(said(Errno::MFILE), "io_uring_setup: EMFILE, RLIMIT_NOFILE is reached");
        let unknown = "io_uring_setup: ENOSYS, neither the kernel nor its seccomp filter knows io_uring";
        assert_eq!(said(Errno::NOSYS), unknown);
        assert!(said(Errno::PERM).starts_with("io_uring_setup: EPERM, "));
        assert_eq!(said(Errno::IO), format!("io_uring_setup: {}", io::Error::from(Errno::IO)));
        for level in ["1", "2"] {
            let by_the_setting = format!("sysctl kernel.io_uring_disabled={level} forbids it");
            assert_eq!(forbidden(&format!("{level}\n")), by_the_setting);
        }
        for allowed in ["0\n", ""] {
            assert_eq!(forbidden(allowed), "a seccomp filter or sysctl kernel.io_uring_disabled forbids it");
        }
    }

    #[test]
    fn where_the_kernel_has_all_that_it_takes_there_is_a_ring() {
        let mut probe = Probe::new();
        let works = IoUring::new(4).is_ok_and(|ring| {
            let submitter = ring.submitter();
            ring.params().is_feature_ext_arg() && submitter.register_probe(&mut probe).is_ok() && ring.submit().is_ok()
        });
        let works = works && probe.is_supported(opcode::WriteFixed::CODE);
        assert_eq!(ring(Submitter::Caller).map(drop).is_ok(), works);
    }
}
