//! What other logs and `ringlog` say about power cuts and damage. Built beside the benchmark, in whose workspace the
//! other logs are.

use crate::bench::MANIFEST;
use crate::run::{run, target};

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let folder = target("bench");
    let build = [("CARGO_TARGET_DIR", folder.as_str())];
    run(&build, &format!("cargo build --release --manifest-path {MANIFEST} --features verdicts --bin verdicts"))?;
    let arguments: String = arguments.iter().map(|argument| format!(" {argument}")).collect();
    run(&[], &format!("{folder}/release/verdicts{arguments}"))
}
