//! The tests under AddressSanitizer: memory that is used after it was given back, or beyond its end, or never given
//! back. It sees no access by the kernel, and no borders between the buffers of one mapping.
//!
//! A stable compiler has it, and only hides the flag; hence `RUSTC_BOOTSTRAP`.

use std::env;

use crate::run::{root, run, rustflags, target};

/// What leaks on purpose, and why. Names of functions; needs `llvm-symbolizer` or `addr2line`.
const LEAKS: &str = "xtask/leaks.txt";

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("asan takes no arguments".into());
    }
    let (flags, target) = (rustflags("-Zsanitizer=address"), target("asan"));
    let leaks = format!("suppressions={}:print_suppressions=0", root().join(LEAKS).display());
    let variables = [
        ("RUSTC_BOOTSTRAP", "1"),
        ("RUSTFLAGS", &*flags),
        // The examples in the documentation link with what was built with the flag.
        ("RUSTDOCFLAGS", "-Zsanitizer=address"),
        ("LSAN_OPTIONS", &*leaks),
        ("CARGO_TARGET_DIR", &*target),
    ];
    // With a target that is named, build scripts and macros go without the flag.
    let line = format!("cargo test --workspace --no-fail-fast --target {}-unknown-linux-gnu", env::consts::ARCH);
    run(&variables, &line)
}
