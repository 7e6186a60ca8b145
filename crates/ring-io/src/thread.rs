//! Threads of the library, which leave signals to the threads of the process.

use std::io;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// What a thread brings upon itself. Blocked, these would only be seen by no handler; the last is how the kernel
/// announces `EFBIG`.
const OWN: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGSYS, Signal::SIGXFSZ];

/// Starts a thread in which no signal handler of the process runs: signals to the process go to its own threads.
///
/// # Errors
///
/// As [`thread::Builder::spawn`].
#[doc(hidden)]
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let mut blocked = SigSet::all();
    OWN.into_iter().for_each(|signal| blocked.remove(signal));
    // A thread inherits the mask of the one that starts it; from its beginning, which it could not set for itself.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    before.thread_set_mask()?;
    spawned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_ours_takes_no_signal_of_the_process_and_the_one_that_starts_it_keeps_its_own() {
        let before = SigSet::thread_get_mask().expect("a mask");
        let inside = spawn("masked", || SigSet::thread_get_mask().expect("a mask")).expect("a thread");
        let inside = inside.join().expect("no panic");
        for signal in Signal::iterator().filter(|signal| ![Signal::SIGKILL, Signal::SIGSTOP].contains(signal)) {
            assert_eq!(inside.contains(signal), !OWN.contains(&signal), "{signal}");
        }
        assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    }
}
