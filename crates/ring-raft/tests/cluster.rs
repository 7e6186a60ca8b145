//! The example `cluster`, with kills: all nodes agree, with every acknowledged write.
//! `RING_RAFT_KILLS=100 RING_RAFT_SECONDS=60` for more.

use std::env;
use std::process::Command;

#[test]
fn three_nodes_that_are_killed_while_clients_write_agree_and_have_lost_no_write() {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or(default.into());
    // Beside the folder of the test.
    let tests = env::current_exe().expect("this program");
    let program = tests.ancestors().nth(2).expect("the folder of the build").join("examples/cluster");
    let mut cluster = Command::new(program);
    cluster.args(["--kill", &setting("RING_RAFT_KILLS", "3"), "--seconds", &setting("RING_RAFT_SECONDS", "4")]);
    let output = cluster.args(["--writers", "4"]).output().expect("the example is built");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    println!("{out}");
    let number = |name: &str| -> u64 {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {out}"));
        line[name.len()..].split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    };
    assert!(number("kills") >= 1 && number("acknowledged") >= 10, "{out}");
    assert!(out.contains("all nodes agree, with every acknowledged write"), "{out}");
}
