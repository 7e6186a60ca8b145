use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::process;
use std::thread;
use std::time::Instant;

/// More than a child needs on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The exit status of a child whose body has panicked.
const PANICKED: i32 = 101;

/// Ends the process at once: no destructor of the parent's runs.
fn exit(status: i32) -> ! {
    // SAFETY: it does not come back.
    unsafe { libc::_exit(status) }
}

/// A child of `fork(2)` that has not been waited for. It reports by its exit status.
#[derive(Debug)]
#[must_use]
pub struct Child(i32);

impl Child {
    /// Forks by the C library, and runs `body` in the child.
    ///
    /// # Panics
    ///
    /// If there is no child to be had.
    pub fn fork(body: impl FnOnce()) -> Self {
        // SAFETY: *the child does not rely on other threads*: it calls what is tested not to, and the allocator, which
        // the C library keeps usable in the child.
        let pid = unsafe { libc::fork() };
        Self::run(pid, body)
    }

    /// Forks by the bare system call, of which the C library knows nothing: `body` must not allocate.
    ///
    /// # Panics
    ///
    /// If there is no child to be had.
    pub fn clone(body: impl FnOnce()) -> Self {
        let none = 0_usize;
        // SAFETY: as above, and nothing is allocated. Without flags it is a `fork`: the child has memory of its own.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as usize, none, none, none, none) };
        Self::run(pid as i32, body)
    }

    fn run(pid: i32, body: impl FnOnce()) -> Self {
        assert!(pid >= 0, "no child");
        if pid == 0 {
            exit(catch_unwind(AssertUnwindSafe(body)).map_or(PANICKED, |()| 0));
        }
        Self(pid)
    }

    /// Waits until the child ends, as it should.
    ///
    /// # Panics
    ///
    /// If it has panicked, was killed, or hangs.
    pub fn succeeds(self) {
        let deadline = Instant::now() + LIMIT;
        let mut status = 0;
        loop {
            // SAFETY: `status` is valid for the call.
            let ended = unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) };
            if ended == self.0 {
                break;
            }
            if Instant::now() >= deadline {
                eprintln!("the child of {} hangs", process::id());
                // SAFETY: it is a child that has not been waited for.
                unsafe { libc::kill(self.0, libc::SIGKILL) };
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(libc::WIFEXITED(status), "the child was killed by signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0, "{PANICKED}: an assertion failed in the child");
    }
}
