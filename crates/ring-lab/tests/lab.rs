//! A little of what the lab does, with every run of the tests.

use std::process::{Command, Output};

fn lab(arguments: &str) -> Output {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_ring-lab"));
    lab.args(arguments.split(' ')).output().expect("a program that starts")
}

fn assert_holds(arguments: &str) {
    let ran = lab(arguments);
    let (said, failed) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}{failed}");
    assert!(said.contains("violations"), "{said}");
}

#[test]
fn no_crash_of_some_runs_in_memory_loses_or_invents_anything() {
    assert_holds("crash --level memory --images 20000 --seed 1");
}

#[test]
fn nor_does_one_over_a_real_kernel_where_that_can_be_had() {
    let ran = lab("crash --level fuse --images 5000 --seed 1");
    let (said, failed) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}{failed}");
    match said.lines().find(|line| line.starts_with("skipped: FUSE disks")) {
        Some(why) => eprintln!("{}", why.replacen("skipped", "SKIPPED", 1)),
        None => assert!(said.lines().any(|line| line.starts_with("FUSE disk")), "{said}"),
    }
}
