//! The tests under ThreadSanitizer, with a `std` that is built with it: otherwise it reports the channels and locks of
//! `std`.
//!
//! It does not see the edge from a submitted write through the kernel to its completion, and knows no fences.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

use crate::run::{run, rustflags, target};

/// The exit status that says: nothing was tested, because something is not installed.
const NOT_TESTED: i32 = 3;

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("tsan takes no arguments".into());
    }
    let asked = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = asked.map_err(|error| format!("cannot start rustc: {error}"))?.stdout;
    let sources = Path::new(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib/src/rust/library");
    if !sources.exists() {
        let missing = sources.display();
        eprintln!(
            "xtask: nothing was tested: ThreadSanitizer needs a std built with it, whose sources are not at {missing}; \
             install them with `rustup component add rust-src`, or your distribution's rust-src package"
        );
        exit(NOT_TESTED);
    }
    let (flags, target) = (rustflags("-Zsanitizer=thread"), target("tsan"));
    let variables = [("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", &*flags), ("CARGO_TARGET_DIR", &*target)];
    // No examples of the documentation: rustdoc would link them with the std that is installed.
    let tests = "--lib --bins --tests --no-fail-fast";
    let line = format!("cargo test --workspace {tests} -Zbuild-std --target {}-unknown-linux-gnu", env::consts::ARCH);
    run(&variables, &line)
}
