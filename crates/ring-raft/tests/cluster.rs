//! The example `cluster`, with kills: all nodes agree, with every acknowledged write.
//! `RING_RAFT_KILLS=100 RING_RAFT_SECONDS=60` for more.

#[path = "../examples/cluster/machine.rs"]
mod machine;
#[path = "../examples/cluster/node.rs"]
mod node;
#[path = "../examples/cluster/trial.rs"]
mod trial;

use std::env;
use std::process::Command;

use trial::{Report, Trial};

#[test]
fn three_nodes_that_are_killed_while_clients_write_agree_and_have_lost_no_write() {
    trial::run_if_node();
    let setting =
        |name: &str, default: u32| env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (kills, seconds) = (setting("RING_RAFT_KILLS", 4), setting("RING_RAFT_SECONDS", 5).into());
    let folder = tempfile::tempdir().expect("a folder");
    let program = || {
        let mut program = Command::new(env::current_exe().expect("this program"));
        let name = "three_nodes_that_are_killed_while_clients_write_agree_and_have_lost_no_write";
        program.args([name, "--exact", "--nocapture"]);
        program
    };
    let report = trial::run(Trial { seconds, kills, writers: 4 }, folder.path(), program);
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    println!("{report:?}");
    let Report { kills: killed, sent, acknowledged, refused, keys, applied, firsts } = report;
    assert_eq!((killed, firsts.len()), (kills, 3));
    assert!(acknowledged > 10 && sent >= acknowledged && keys >= acknowledged && applied >= keys as u64, "{refused}");
}
