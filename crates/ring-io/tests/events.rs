//! What the device layer tells by `tracing`: every step of a write, with the facts that identify it.

mod common;

use core::fmt;
use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex};

use common::{attach, bytes, disk, drain, open};
use ring_alloc::BLOCK;
use ring_io::QuikIO;
use rustix::fs::OFlags;
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was told: `level message field=value …`, in the order of telling.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// Everything that this thread tells while it does `body`.
    fn during(body: impl FnOnce()) -> Vec<String> {
        let told = Self::default();
        tracing::subscriber::with_default(told.clone(), body);
        told.0.lock().expect("no panic").clone()
    }
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{} {value:?}{}", &self.0[..5], &self.0[5..]);
                } else {
                    self.0 += &format!(" {}={value:?}", field.name());
                }
            }
        }
        let mut line = Line(format!("{:5}", event.metadata().level().as_str()));
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// One event begins with `start`, and it has all `fields`, each `name=` or `name=value`.
fn assert_told(told: &[String], start: &str, fields: &[&str]) {
    let found: Vec<_> = told.iter().filter(|line| line.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start:?} in {told:#?}");
    for field in fields {
        assert!(found[0].contains(&format!(" {field}")), "{field:?} in {:?}", found[0]);
    }
}

#[test]
fn every_step_of_a_write_is_told_with_what_identifies_it() {
    let told = Told::during(|| {
        let (io, device) = QuikIO::in_memory();
        let queue = attach(&Arc::new(io));
        device.shorten_write(0, BLOCK);
        device.fail_write(1, Errno::AGAIN.raw_os_error());
        queue.submit(7, bytes(7, 2 * BLOCK), 4096);
        assert_eq!(drain(&queue)[0].result, Ok(()));
    });
    assert_told(&told, "DEBUG attached", &["engine=memory", "mode=TailLocalized"]);
    assert_told(&told, "TRACE write begins", &["token=7", "offset=4096", "len=8192", "durable=false"]);
    assert_told(&told, "DEBUG short write", &["token=7", "position=4096", "written=4096", "resumes_at=8192"]);
    assert_told(&told, "DEBUG write put off", &["token=7", "position=8192", "errno=11", "stalls=1"]);
    assert_told(&told, "TRACE write completed", &["token=7", "offset=4096", "len=8192", "elapsed="]);
}

#[test]
fn failures_are_told_with_their_errno() {
    let told = Told::during(|| {
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
    let error = "error=write of bytes 4096..8192 failed: Input/output error (os error 5)";
    assert_told(&told, "ERROR write failed", &["token=7", "offset=4096", "errno=5", "elapsed=", error]);
    assert_told(&told, "TRACE synced", &["elapsed="]);
    assert_told(&told, "ERROR sync failed", &["errno=28", "elapsed="]);
}

#[test]
fn a_fallback_is_told_with_its_reason() {
    let dir = disk();
    let path = dir.path().join("log");
    if env::var_os("BUFFER_RING_ENGINE").is_some() {
        eprintln!("SKIPPED: BUFFER_RING_ENGINE leaves nothing to fall back from");
        return;
    }
    let told = Told::during(|| {
        let rules = BTreeMap::from([(libc::SYS_io_uring_setup, vec![])]);
        let answer = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let arch = env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
        // Each test has a thread of its own.
        apply_filter(&BpfProgram::try_from(filter).expect("a filter")).expect("a kernel with seccomp");
        drop(QuikIO::new(open(&path, OFlags::empty())));
    });
    // An outer filter may have denied it already, in its way.
    assert_told(&told, "WARN  no io_uring: falling back to positioned writes", &["reason=io_uring_setup: E"]);
}
