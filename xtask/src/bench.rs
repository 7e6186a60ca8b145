//! The ring beside limits, baselines and rivals. What measures is a workspace of its own, so that no other build
//! includes what we are compared with.

use std::path::Path;

use crate::run::{run, target};

pub(crate) const MANIFEST: &str = "crates/ring-bench/Cargo.toml";

/// Where Debian and its relatives keep RocksDB.
const ROCKSDB: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/librocksdb.so", "/usr/lib/aarch64-linux-gnu/librocksdb.so", "/usr/lib64/librocksdb.so"];

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let (own, passed): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| *argument == "--light" || *argument == "--layers");
    let is_asked = |name| own.iter().any(|argument| *argument == name);
    let folder = target("bench");
    let build = [("CARGO_TARGET_DIR", folder.as_str())];
    if is_asked("--layers") {
        return run(&build, &format!("cargo bench --manifest-path {MANIFEST}{}", tail(&passed)));
    }
    let features = match (is_asked("--light"), ROCKSDB.iter().any(|path| Path::new(path).exists())) {
        (true, _) => "",
        (false, true) => " --features rivals,rocksdb",
        (false, false) => {
            println!("without RocksDB, whose library is not installed (Debian: librocksdb-dev)");
            " --features rivals"
        }
    };
    run(&build, &format!("cargo build --release --manifest-path {MANIFEST}{features}"))?;
    run(&[], &format!("{folder}/release/ring-bench --folder {folder}/logs --out {folder}{}", tail(&passed)))
}

fn tail(arguments: &[&String]) -> String {
    arguments.iter().map(|argument| format!(" {argument}")).collect()
}
