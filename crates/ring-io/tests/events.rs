//! What the device layer reports through `tracing`: every step of a write, with the facts that identify it.

mod common;

use std::env;
use std::sync::Arc;

use common::{attach, bytes, disk, drain, open, this_test};
use ring_alloc::BLOCK;
use ring_io::QuikIO;
use ring_testing::events;
use rustix::fs::OFlags;
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

#[test]
fn every_step_of_a_write_is_an_event_with_what_identifies_it() {
    let told = events::during(|| {
        let (io, device) = QuikIO::in_memory();
        let queue = attach(&Arc::new(io));
        device.shorten_write(0, BLOCK);
        device.fail_write(1, Errno::AGAIN.raw_os_error());
        queue.submit(7, bytes(7, 2 * BLOCK), 4096);
        assert_eq!(drain(&queue)[0].result, Ok(()));
    });
    events::assert_one(&told, "DEBUG attached", &["engine=memory", "mode=TailLocalized"]);
    events::assert_one(&told, "TRACE write begins", &["token=7", "offset=4096", "len=8192", "durable=false"]);
    events::assert_one(&told, "DEBUG short write", &["token=7", "position=4096", "written=4096", "resumes_at=8192"]);
    events::assert_one(&told, "DEBUG write put off", &["token=7", "position=8192", "errno=11", "stalls=1"]);
    events::assert_one(&told, "TRACE write completed", &["token=7", "offset=4096", "len=8192", "elapsed="]);
}

#[test]
fn failures_are_events_with_their_errno() {
    let told = events::during(|| {
        let (io, device) = QuikIO::in_memory();
        let io = Arc::new(io);
        let queue = attach(&io);
        device.fail_write(0, Errno::IO.raw_os_error());
        queue.submit(7, bytes(7, BLOCK), 4096);
        assert!(drain(&queue)[0].result.is_err());
        io.sync().expect("no fault yet");
        device.fail_sync(Errno::NOSPC.raw_os_error());
        assert!(io.sync().is_err());
    });
    let error = "error=write of bytes 4096..8192 failed (errno 5)";
    events::assert_one(&told, "ERROR write failed", &["token=7", "offset=4096", "errno=5", "elapsed=", error]);
    events::assert_one(&told, "TRACE synced", &["elapsed="]);
    events::assert_one(&told, "ERROR sync failed", &["errno=28", "elapsed="]);
}

/// From now on `call`, if a rule fits or there is none, fails in this thread: each test has one of its own.
fn deny(call: i64, rules: Vec<SeccompRule>, errno: Errno) {
    let answer = SeccompAction::Errno(errno.raw_os_error().cast_unsigned());
    let arch = env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
    let filter = SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, answer, arch).expect("a filter");
    apply_filter(&BpfProgram::try_from(filter).expect("a filter")).expect("a kernel with seccomp");
}

#[test]
fn a_fallback_is_an_event_with_its_reason() {
    let dir = disk();
    let path = dir.path().join("log");
    if env::var_os("BUFFER_RING_ENGINE").is_some() {
        eprintln!("SKIPPED: BUFFER_RING_ENGINE leaves nothing to fall back from");
        return;
    }
    let told = events::during(|| {
        deny(libc::SYS_io_uring_setup, vec![], Errno::NOSYS);
        drop(QuikIO::new(open(&path, OFlags::empty())));
    });
    // An outer filter may have denied it already, in its way.
    events::assert_one(&told, "WARN  no io_uring: falling back to positioned writes", &["reason=io_uring_setup: E"]);
}

#[test]
fn a_file_that_cannot_be_opened_directly_is_an_event_with_the_reason() {
    let dir = disk();
    let path = dir.path().join("log");
    std::fs::write(&path, b"old content").expect("a file");
    let told = events::during(|| {
        let direct = u64::from(OFlags::DIRECT.bits());
        let flags = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(direct), direct);
        let rule = SeccompRule::new(vec![flags.expect("a condition")]).expect("a rule");
        deny(libc::SYS_openat, vec![rule], Errno::INVAL);
        drop(QuikIO::open(&path).expect("what the cache is for"));
    });
    let reason = r#"reason="the file system refuses O_DIRECT""#;
    events::assert_one(&told, "WARN  writes go through the kernel's cache", &["path=", reason]);
}

#[test]
fn a_path_without_a_folder_has_the_working_directory_synced() {
    const HERE: &str = "RING_IO_TEST_OPENS_HERE";
    if env::var_os(HERE).is_some() {
        let told = events::during(|| drop(QuikIO::open("log").expect("a new file")));
        events::assert_one(&told, "DEBUG opened", &["path=log"]);
        let elsewhere: Vec<_> = told.iter().filter(|line| line.contains("file system is")).collect();
        assert!(elsewhere.is_empty(), "it has a directory: {elsewhere:?}");
        return;
    }
    let dir = disk();
    let mut test = this_test("a_path_without_a_folder_has_the_working_directory_synced", HERE, "");
    let output = test.current_dir(dir.path()).output().expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(dir.path().join("log").exists());
}
