//! What a thread that submits notices of completions in its other system calls.

mod common;

use core::time::Duration;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::{attach, bytes, disk, drain, open, skipped};
use ring_alloc::BLOCK;
use ring_io::{EngineKind, QuikIO};
use rustix::fs::OFlags;

fn system_calls_are_not_interrupted(kind: EngineKind) {
    const LEN: usize = 64 * BLOCK;
    let dir = disk();
    let file = open(&dir.path().join("log"), OFlags::DIRECT);
    let io = match QuikIO::builder(file).engine(kind).kernel_submits(true).build() {
        Ok(io) => Arc::new(io),
        Err(error) => {
            skipped("BUFFER_RING_REQUIRE_URING", &error.to_string());
            return;
        }
    };
    let queue = attach(&io);
    let (mut silent, _peer) = UnixStream::pair().expect("sockets");
    silent.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    for token in 0..30 {
        queue.submit(token, bytes(token, LEN), token * LEN as u64);
        let error = silent.read(&mut [0]).expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "write {token}");
    }
    assert!(drain(&queue).iter().all(|write| write.result.is_ok()));
}

#[test]
fn completions_interrupt_no_thread_that_submits_where_the_kernel_submits() {
    system_calls_are_not_interrupted(EngineKind::IoUring);
}

#[test]
fn completions_of_positioned_writes_interrupt_no_thread_that_submits() {
    system_calls_are_not_interrupted(EngineKind::Positioned);
}
