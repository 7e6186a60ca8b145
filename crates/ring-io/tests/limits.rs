//! What a process may be refused: io_uring by filters and limits, memory to register, descriptors, room in a file,
//! locks. Each test brings the limit about, in a thread or a process of its own.

mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use common::{attach, buffers, bytes, disk, drain, open, pattern, patterned, read_all, skipped, this_test};
use ring_alloc::BLOCK;
use ring_io::{AttachError, DeviceError, EngineKind, FileError, QuikIO, Wait};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::set_thread_uid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Marks a process that a test has to itself, and may limit.
const ALONE: &str = "RING_IO_TEST_IS_ALONE";

/// Runs `body` in a process of its own: the test `name` again.
fn alone(name: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let output = this_test(name, ALONE, "").output().expect("a process");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
    // A test that passes keeps what it says to itself; run it with `--nocapture` to see what was skipped.
    eprint!("{err}");
}

/// Runs `body` in a thread for which the system calls `calls` fail with `errno`, and in whatever that thread starts.
fn denied<R: Send>(calls: &[i64], errno: Errno, body: impl FnOnce() -> R + Send) -> R {
    denied_where(calls.iter().map(|&call| (call, vec![])).collect(), errno, body)
}

/// The same, for calls that a rule fits.
fn denied_where<R: Send>(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: Errno, body: impl FnOnce() -> R + Send) -> R {
    let answer = SeccompAction::Errno(errno.raw_os_error().cast_unsigned());
    let arch = env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
    let filter = BpfProgram::try_from(filter).expect("a filter");
    thread::scope(|scope| {
        let denied = scope.spawn(move || {
            apply_filter(&filter).expect("a kernel with seccomp");
            body()
        });
        denied.join().expect("no panic")
    })
}

fn limit(resource: Resource, value: u64) {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).expect("a limit");
}

fn log(dir: &Path) -> File {
    open(&dir.join("log"), OFlags::DIRECT)
}

/// A log that works: some buffers, read back.
fn assert_works(io: QuikIO) {
    let io = Arc::new(io);
    let (arena, buffers) = buffers(4, 4 * BLOCK);
    let queue = io.attach(&arena).expect("the only queue");
    for (token, buffer) in (0..).zip(buffers) {
        queue.submit(token, patterned(buffer, token, 4 * BLOCK), token * 4 * BLOCK as u64);
    }
    assert!(drain(&queue).iter().all(|write| write.result.is_ok()));
    io.sync().expect("a working disk");
    let expected: Vec<_> = (0..4).flat_map(|token| pattern(token, 4 * BLOCK)).collect();
    assert!(read_all(&io, expected.len()) == expected);
}

fn assert_falls_back(io: QuikIO, reason: &str) {
    assert_eq!((io.engine().kind(), io.engine().reason()), (EngineKind::Positioned, Some(reason)));
    assert_works(io);
}

fn io_uring_is_there() -> bool {
    let works = common::Device::io_uring().is_some() && env::var_os("BUFFER_RING_ENGINE").is_none();
    works || skipped("BUFFER_RING_REQUIRE_URING", "io_uring is not there to be refused, or not to be used")
}

fn privileged() -> bool {
    rustix::process::geteuid().is_root() || skipped("BUFFER_RING_REQUIRE_ROOT", "only root can become another user")
}

#[test]
fn where_a_filter_forbids_io_uring_positioned_writes_take_over_and_say_why() {
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    let forbidden = "EPERM, a seccomp filter or sysctl kernel.io_uring_disabled forbids it";
    let unknown = "ENOSYS, neither the kernel nor its seccomp filter knows io_uring";
    for (errno, why) in [(Errno::PERM, forbidden), (Errno::NOSYS, unknown)] {
        for (call, number) in [
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_register", libc::SYS_io_uring_register),
            ("io_uring_enter", libc::SYS_io_uring_enter),
        ] {
            denied(&[number], errno, || {
                assert_falls_back(QuikIO::new(log(dir.path())), &format!("{call}: {why}"));
                let error = QuikIO::builder(log(dir.path())).engine(EngineKind::IoUring).build().unwrap_err();
                let expected =
                    FileError::EngineUnavailable { kind: EngineKind::IoUring, reason: format!("{call}: {why}") };
                assert_eq!(error, expected);
            });
        }
    }
}

#[test]
fn a_filter_that_comes_too_late_fails_what_is_in_flight_and_hangs_nothing() {
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    let io = Arc::new(QuikIO::new(log(dir.path())));
    let queue = attach(&io);
    denied(&[libc::SYS_io_uring_enter], Errno::PERM, move || {
        for token in 0..3 {
            queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
        }
        let finished = drain(&queue);
        let errnos: Vec<_> = finished.iter().map(|write| write.result.as_ref().map_err(DeviceError::errno)).collect();
        assert_eq!(errnos, [Err(Some(Errno::PERM.raw_os_error())); 3]);
        drop(queue);
    });
}

/// What the kernel may still write must not land on what another writer has been promised.
#[test]
fn what_was_given_up_keeps_the_file_locked_for_the_rest_of_the_process() {
    const CHECK: &str = "RING_IO_TEST_TRIES_TO_OPEN_WHAT_WAS_GIVEN_UP";
    const NAME: &str = "what_was_given_up_keeps_the_file_locked_for_the_rest_of_the_process";
    if let Some(path) = env::var_os(CHECK) {
        let error = QuikIO::open(path).err();
        return println!("found: {:?}", error.as_ref().map(|error| error.file_error()));
    }
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    for opened in [false, true] {
        let path = dir.path().join(format!("log {opened}"));
        let io = if opened { QuikIO::open(&path) } else { Ok(QuikIO::new(open(&path, OFlags::DIRECT))) };
        let io = Arc::new(io.expect("the only writer"));
        let queue = attach(&io);
        let queue = denied(&[libc::SYS_io_uring_enter], Errno::PERM, move || {
            queue.submit(1, bytes(1, BLOCK), 0);
            assert!(drain(&queue)[0].result.is_err());
            queue
        });
        // It might land on this one.
        let errno = |result: &Result<(), DeviceError>| result.as_ref().err().and_then(DeviceError::errno);
        let late = queue.write_durable_now(2, bytes(2, BLOCK), 0);
        assert_eq!(errno(&late.result), Some(Errno::PERM.raw_os_error()));
        drop(queue);
        let arena = Arc::new(ring_alloc::Arena::new(1, BLOCK).expect("an arena"));
        assert_eq!(io.attach(&arena).unwrap_err(), AttachError::Busy);
        drop(io);
        let next = Arc::new(QuikIO::builder(open(&path, OFlags::DIRECT)).engine(EngineKind::Positioned).build());
        let next = Arc::new(Arc::into_inner(next).expect("the only one").expect("a file"));
        assert_eq!(next.attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
        assert_eq!(QuikIO::open(&path).unwrap_err().file_error(), Some(&FileError::Locked));
        let output = this_test(NAME, CHECK, &path).output().expect("a process");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.contains("found: Some(Some(Locked))"), "opened here: {opened}\n{out}");
    }
}

/// Memory that the kernel has pinned for this process.
fn pinned() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).expect("a kernel that counts");
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
}

#[test]
fn a_buffer_is_registered_when_it_first_goes_to_the_device() {
    const SIZE: usize = 512 * BLOCK;
    alone("a_buffer_is_registered_when_it_first_goes_to_the_device", || {
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let io = Arc::new(QuikIO::new(log(dir.path())));
        let (arena, buffers) = buffers(64, SIZE);
        let before = pinned();
        let queue = io.attach(&arena).expect("the only queue");
        if !queue.registered().buffers() {
            return assert!(queue.registered().reason().is_some());
        }
        assert_eq!(pinned() - before, SIZE, "the first is about to be used, the others may never be");
        for (token, buffer) in (0..).zip(buffers).skip(1).take(3) {
            queue.submit(token, patterned(buffer, token, SIZE), (token - 1) * SIZE as u64);
            let write = drain(&queue).remove(0);
            assert_eq!((write.result, pinned() - before), (Ok(()), (token as usize + 1) * SIZE));
            // Once.
            queue.submit(token, write.bytes, (token - 1) * SIZE as u64);
            assert_eq!(drain(&queue)[0].result, Ok(()));
            assert_eq!(pinned() - before, (token as usize + 1) * SIZE);
        }
        drop(queue);
        assert_eq!(pinned(), before);
        let expected: Vec<_> = (1..4).flat_map(|token| pattern(token, SIZE)).collect();
        assert!(read_all(&io, expected.len()) == expected);
    });
}

#[test]
fn without_memory_to_lock_positioned_writes_take_over() {
    alone("without_memory_to_lock_positioned_writes_take_over", || {
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let file = log(dir.path());
        limit(Resource::Memlock, 0);
        set_thread_uid(rustix::process::Uid::from_raw(64_001)).expect("root can");
        assert_falls_back(QuikIO::new(file), "io_uring_setup: ENOMEM, perhaps RLIMIT_MEMLOCK is too small");
    });
}

#[test]
fn with_little_memory_to_lock_nothing_is_registered_and_everything_written() {
    alone("with_little_memory_to_lock_nothing_is_registered_and_everything_written", || {
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let file = log(dir.path());
        limit(Resource::Memlock, 64 << 10);
        set_thread_uid(rustix::process::Uid::from_raw(64_002)).expect("root can");
        let io = Arc::new(QuikIO::new(file));
        assert_eq!(io.engine().to_string(), "io_uring");
        let (arena, _buffers) = buffers(4, 64 * BLOCK);
        let queue = io.attach(&arena).expect("the only queue");
        let registered = queue.registered();
        assert!(!registered.buffers() && registered.file(), "{registered:?}");
        let reason = registered.reason().expect("a reason");
        assert!(reason.starts_with("buffers: ") && reason.contains("os error 12"), "{reason}");
        drop(queue);
        assert_works(Arc::into_inner(io).expect("no other owner"));
    });
}

#[test]
fn without_a_descriptor_for_io_uring_positioned_writes_take_over() {
    alone("without_a_descriptor_for_io_uring_positioned_writes_take_over", || {
        if !io_uring_is_there() {
            return;
        }
        let dir = disk();
        let file = log(dir.path());
        let next = file.try_clone().expect("a descriptor").as_raw_fd();
        limit(Resource::Nofile, next.try_into().expect("a number"));
        assert_falls_back(QuikIO::new(file), "io_uring_setup: EMFILE, RLIMIT_NOFILE is reached");
    });
}

/// The kernel takes what fits, also part of a block; the error comes only for what begins beyond.
fn write_beyond_the_limit(kind: EngineKind, flags: OFlags) {
    const BLOCKS: usize = 16;
    let fits = 6 * BLOCK + 2048;
    let dir = disk();
    let path = dir.path().join("log");
    let io = match QuikIO::builder(open(&path, flags)).engine(kind).build() {
        Ok(io) => Arc::new(io),
        Err(error) => {
            skipped("BUFFER_RING_REQUIRE_URING", &error.to_string());
            return;
        }
    };
    let queue = attach(&io);
    limit(Resource::Fsize, fits as u64);
    queue.submit(1, bytes(1, BLOCKS * BLOCK), 0);
    let error = drain(&queue).remove(0).result.unwrap_err();
    assert_eq!((error.errno(), error.range()), (Some(Errno::FBIG.raw_os_error()), 0..(BLOCKS * BLOCK) as u64));
    queue.submit(2, bytes(2, BLOCK), (BLOCKS * BLOCK) as u64);
    let error = drain(&queue).remove(0).result.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::FBIG.raw_os_error()), "nothing of it fits");
    assert!(fs::read(&path).expect("the file")[..] == pattern(1, BLOCKS * BLOCK)[..fits], "what fits is there");
}

/// Under a shell that ignores the signal, as the host of a log must: nothing else in this test can without unsafe code.
fn with_the_signal_ignored(name: &str) -> Output {
    let this = this_test(name, ALONE, "");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(this.get_program()).args(this.get_args());
    shell.env(ALONE, "").output().expect("a shell")
}

macro_rules! file_size_limit {
    ($($name:ident: $kind:ident $flags:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            if env::var_os(ALONE).is_some() {
                return write_beyond_the_limit(EngineKind::$kind, OFlags::$flags);
            }
            let output = with_the_signal_ignored(stringify!($name));
            assert!(output.status.success(), "{output:?}");
        })*
    };
}

file_size_limit! {
    the_limit_of_a_file_is_told_by_io_uring: IoUring DIRECT,
    the_limit_of_a_file_is_told_by_io_uring_through_the_cache: IoUring RDWR,
    the_limit_of_a_file_is_told_by_positioned_writes: Positioned DIRECT,
    the_limit_of_a_file_is_told_by_positioned_writes_through_the_cache: Positioned RDWR,
}

/// Why the documentation asks for that.
#[test]
fn the_limit_of_a_file_kills_a_host_that_does_not_ignore_the_signal() {
    if env::var_os(ALONE).is_some() {
        return write_beyond_the_limit(EngineKind::Positioned, OFlags::DIRECT);
    }
    let mut test = this_test("the_limit_of_a_file_kills_a_host_that_does_not_ignore_the_signal", ALONE, "");
    let output = test.output().expect("a process");
    assert_eq!(output.status.signal(), Some(libc::SIGXFSZ), "{output:?}");
}

#[test]
fn where_direct_io_is_refused_writes_go_through_the_cache() {
    let dir = disk();
    let direct = u64::from(OFlags::DIRECT.bits());
    let flags = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(direct), direct);
    let rule = SeccompRule::new(vec![flags.expect("a condition")]).expect("a rule");
    let io = denied_where([(libc::SYS_openat, vec![rule])].into(), Errno::INVAL, || {
        QuikIO::open(dir.path().join("log")).expect("what the cache is for")
    });
    assert!(!io.is_direct());
    assert_works(io);
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).output();
    }
}

#[test]
fn a_block_device_holds_a_log_from_the_start_that_was_asked_for() {
    let dir = disk();
    let image = dir.path().join("image");
    File::create(&image).and_then(|file| file.set_len(1 << 20)).expect("a sparse file");
    let attached = Command::new("losetup").args(["--find", "--show", "--sector-size", "4096"]).arg(&image).output();
    let device = match attached {
        Ok(output) if output.status.success() => Loop(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        outcome => {
            skipped("BUFFER_RING_REQUIRE_ROOT", &format!("a loop device: {outcome:?}"));
            return;
        }
    };
    let io = QuikIO::open(&device.0).expect("a device to write to");
    assert_eq!((io.start(), io.is_direct()), (Err(FileError::NoEnd), true));
    assert_eq!(QuikIO::open(&device.0).unwrap_err().file_error(), Some(&FileError::Locked));
    drop(io);
    let file = open(Path::new(&device.0), OFlags::DIRECT);
    let io = Arc::new(QuikIO::builder(file).start_at(512 << 10).build().expect("a device to write to"));
    assert_eq!(io.start(), Ok(512 << 10));
    let queue = attach(&io);
    queue.submit(1, bytes(1, 4 * BLOCK), 512 << 10);
    // It ends, as a full file system does.
    queue.submit(2, bytes(2, 4 * BLOCK), (1 << 20) - 2 * BLOCK as u64);
    queue.submit(3, bytes(3, BLOCK), 1 << 20);
    let mut finished = drain(&queue);
    finished.sort_by_key(|write| write.token);
    let errnos: Vec<_> = finished.iter().map(|write| write.result.as_ref().map_err(DeviceError::errno)).collect();
    let full = Err(Some(Errno::NOSPC.raw_os_error()));
    assert_eq!(errnos, [Ok(&()), full, full]);
    io.sync().expect("a working device");
    drop(queue);
    let mut back = vec![0; 4 * BLOCK];
    assert_eq!(io.read_at(512 << 10, &mut back), Ok(4 * BLOCK));
    assert!(back == pattern(1, 4 * BLOCK));
}

#[test]
fn where_there_are_no_locks_the_log_goes_on_without() {
    let dir = disk();
    for errno in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL] {
        denied(&[libc::SYS_flock], errno, || {
            let first = QuikIO::open(dir.path().join("log")).expect("no lock is no obstacle");
            // This process is still in order.
            let second = Arc::new(QuikIO::new(log(dir.path())));
            let (arena, _buffers) = buffers(1, BLOCK);
            assert_eq!(second.attach(&arena).unwrap_err(), AttachError::File(FileError::Locked));
            assert_works(first);
        });
    }
}

#[test]
fn a_lock_that_fails_for_another_reason_is_an_error() {
    let dir = disk();
    denied(&[libc::SYS_flock], Errno::IO, || {
        let error = QuikIO::open(dir.path().join("log")).unwrap_err();
        assert_eq!(error.file_error(), Some(&FileError::Stat(Errno::IO.raw_os_error())));
    });
    assert_works(QuikIO::open(dir.path().join("log")).expect("no other writer"));
}

#[test]
fn where_no_thread_can_be_started_the_one_that_submits_writes() {
    let dir = disk();
    let io = Arc::new(QuikIO::builder(log(dir.path())).engine(EngineKind::Positioned).build().expect("no obstacle"));
    let queue = attach(&io);
    denied(&[libc::SYS_clone3, libc::SYS_clone], Errno::AGAIN, || {
        for token in 0..3 {
            queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
        }
        assert!(drain(&queue).iter().all(|write| write.result.is_ok()));
    });
    assert!(read_all(&io, 3 * BLOCK) == (0..3).flat_map(|token| pattern(token, BLOCK)).collect::<Vec<_>>());
}

/// This test again, under a `strace` that watches `calls` and does what `inject` says; `None` where there is no
/// `strace`.
fn traced(name: &str, path: &Path, calls: &str, inject: Option<&str>) -> Option<(bool, String)> {
    let this = this_test(name, ALONE, path);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-e", &format!("trace={calls}")]);
    for inject in inject.into_iter().flat_map(|all| all.split(' ')) {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    // LeakSanitizer cannot work beside strace.
    strace.env(ALONE, path).env("ASAN_OPTIONS", "detect_leaks=0");
    match strace.arg(this.get_program()).args(this.get_args()).output() {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            skipped("BUFFER_RING_REQUIRE_ROOT", &format!("strace: {error}"));
            None
        }
    }
}

/// After a crash a new file is there only if its directory was synced: before anything is written to it, and not in
/// vain.
#[test]
fn the_directory_of_a_new_file_is_synced_or_there_is_no_file() {
    const NAME: &str = "the_directory_of_a_new_file_is_synced_or_there_is_no_file";
    if let Some(path) = env::var_os(ALONE) {
        match QuikIO::open(path) {
            Ok(io) => {
                let queue = attach(&Arc::new(io));
                queue.submit(1, bytes(1, BLOCK), 0);
                assert_eq!(drain(&queue)[0].result, Ok(()));
            }
            Err(error) => eprintln!("errno {:?}, directory {:?}", error.errno(), error.unsynced_directory()),
        }
        return;
    }
    let dir = disk();
    // The descriptor may have been opened by a link.
    let real = fs::canonicalize(dir.path()).expect("the folder");
    let synced = format!("<{}>", real.display());
    let (path, calls) = (dir.path().join("log"), "fsync");
    let Some((passed, output)) = traced(NAME, &path, calls, Some("fsync:error=EIO:when=1")) else { return };
    assert!(passed && output.contains("errno Some(5), directory Some("), "{output}");
    assert!(!path.exists(), "it was created in vain");
    File::create(&path).expect("a file");
    let (passed, output) = traced(NAME, &path, calls, Some("fsync:error=EIO:when=1")).expect("strace");
    assert!(passed && output.contains("errno Some(5), directory Some("), "{output}");
    assert!(path.exists(), "it was there before");
    let (passed, output) = traced(NAME, &path, calls, None).expect("strace");
    assert!(
        passed && output.matches(&synced).count() == 1,
        "left over from another program, it is new still: {output}"
    );
    let (passed, output) = traced(NAME, &path, calls, None).expect("strace");
    assert!(passed && !output.contains(&synced), "it has content, so it was there: {output}");
}

/// Some network file systems answer so. The test before this one is what `strace` runs.
#[test]
fn where_a_directory_cannot_be_synced_the_file_system_is_or_there_is_no_file() {
    const OPENING: &str = "the_directory_of_a_new_file_is_synced_or_there_is_no_file";
    let dir = disk();
    let path = dir.path().join("log");
    let unknown = "fsync:error=EINVAL:when=1";
    let broken = format!("{unknown} syncfs:error=EIO:when=1");
    let Some((passed, output)) = traced(OPENING, &path, "fsync,syncfs", Some(&broken)) else { return };
    assert!(passed && output.contains("errno Some(5), directory Some("), "{output}");
    assert!(!path.exists(), "{output}");
    let (passed, output) = traced(OPENING, &path, "fsync,syncfs", Some(unknown)).expect("strace");
    assert!(passed && output.matches("syncfs(").count() == 1 && path.exists(), "{output}");
}

/// Runs `body` in a thread that is not root.
fn unprivileged<R: Send>(uid: u32, body: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            set_thread_uid(rustix::process::Uid::from_raw(uid)).expect("root can");
            body()
        });
        other.join().expect("no panic")
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root can");
}

#[test]
fn a_log_is_created_in_a_directory_that_may_not_be_read() {
    if !privileged() {
        return;
    }
    let dir = disk();
    set_mode(dir.path(), 0o333);
    let path = dir.path().join("log");
    unprivileged(64_011, || {
        for what in ["created", "empty", "empty still"] {
            assert_eq!(QuikIO::open(&path).expect(what).start(), Ok(0));
        }
        assert_works(QuikIO::open(&path).expect("what a plain open would open"));
        QuikIO::open(&path).expect("with content");
    });
}

#[test]
fn a_log_is_created_below_a_directory_that_may_not_be_searched() {
    alone("a_log_is_created_below_a_directory_that_may_not_be_searched", || {
        if !privileged() {
            return;
        }
        let dir = disk();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("a directory");
        set_mode(&inner, 0o777);
        env::set_current_dir(&inner).expect("the directory");
        std::os::unix::fs::symlink("target", "link").expect("a link");
        set_mode(dir.path(), 0o700);
        unprivileged(64_012, || {
            assert!(fs::canonicalize("link").is_err(), "the directory above may be searched");
            assert_works(QuikIO::open("log").expect("what a plain open would open"));
            assert_works(QuikIO::open("link").expect("what a plain open would open"));
        });
        assert!(inner.join("target").exists());
    });
}

#[test]
fn a_log_that_was_removed_while_it_was_opened_is_made_anew() {
    let dir = disk();
    let path = dir.path().join("log");
    let old = File::create(&path).expect("a file");
    flock(&old, FlockOperation::LockExclusive).expect("a lock");
    thread::scope(|scope| {
        let opened = scope.spawn(|| QuikIO::open(&path));
        // Until the other thread has it open, too, and waits for the lock.
        let open = || {
            let all = fs::read_dir("/proc/self/fd").expect("descriptors");
            all.filter(|fd| fs::read_link(fd.as_ref().expect("one").path()).is_ok_and(|target| target == path)).count()
        };
        while open() < 2 {
            thread::yield_now();
        }
        fs::remove_file(&path).expect("the file");
        drop(old);
        assert_works(opened.join().expect("no panic").expect("a file"));
    });
    assert_eq!(fs::metadata(&path).expect("a file with a name").len(), 16 * BLOCK as u64);
}

#[test]
fn a_device_that_needs_a_larger_alignment_is_written_through_the_cache() {
    let dir = disk();
    let image = dir.path().join("image");
    File::create(&image).and_then(|file| file.set_len(1 << 20)).expect("a sparse file");
    let attached = Command::new("losetup").args(["--find", "--show", "--sector-size", "16384"]).arg(&image).output();
    let device = match attached {
        Ok(output) if output.status.success() => Loop(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        outcome => {
            eprintln!("SKIPPED: no loop device with large sectors: {outcome:?}");
            return;
        }
    };
    let io = QuikIO::open(&device.0).expect("a device to write to");
    let reason = "direct I/O on this file needs an alignment of 16384 bytes, more than 4096";
    assert_eq!((io.is_direct(), io.not_direct_because()), (false, Some(reason)));
    let (io, len) = (Arc::new(io), 3 * BLOCK);
    let queue = attach(&io);
    queue.submit_durable(1, bytes(1, len), BLOCK as u64);
    assert_eq!(drain(&queue)[0].result, Ok(()));
    let mut back = vec![0; len];
    assert_eq!(io.read_at(BLOCK as u64, &mut back), Ok(len));
    assert!(back == pattern(1, len));
    drop((queue, io));
    let handed_over = QuikIO::builder(open(Path::new(&device.0), OFlags::DIRECT)).start_at(0).build();
    assert_eq!(handed_over.unwrap_err(), FileError::Alignment { needed: 16384 });
}

#[test]
fn memory_that_the_kernel_frees_late_is_waited_for() {
    alone("memory_that_the_kernel_frees_late_is_waited_for", || {
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let file = Arc::new(log(dir.path()));
        let reason = || {
            let (arena, _buffers) = buffers(4, BLOCK);
            let queue = Arc::new(QuikIO::new(Arc::clone(&file))).attach(&arena).expect("the only queue");
            queue.registered().reason().map(str::to_owned)
        };
        // None, unless a filter refuses registration whatever the limit.
        let without_a_limit = reason();
        // Room for one ring with its buffers.
        limit(Resource::Memlock, 64 << 10);
        unprivileged(64_013, || {
            for n in 0..100 {
                let io = Arc::new(QuikIO::new(Arc::clone(&file)));
                assert_eq!(io.engine().to_string(), "io_uring", "time {n}");
                drop(io);
                assert_eq!(reason(), without_a_limit, "time {n}");
            }
        });
    });
}

/// Runs `body` in a thread of a user at its limit of tasks, so that there are no more, neither threads nor workers of
/// the kernel.
fn without_another_task<R: Send>(uid: u32, body: impl FnOnce() -> R + Send) -> R {
    unprivileged(uid, || {
        limit(Resource::Nproc, 1);
        thread::Builder::new().spawn(|| ()).expect_err("the limit is reached");
        body()
    })
}

#[test]
fn what_the_kernel_has_no_worker_for_is_done_by_the_thread_that_reaps() {
    alone("what_the_kernel_has_no_worker_for_is_done_by_the_thread_that_reaps", || {
        const WRITES: u64 = 20;
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let io = Arc::new(QuikIO::open(dir.path().join("log")).expect("a file"));
        assert_eq!(io.engine().kind(), EngineKind::IoUring);
        let queue = attach(&io);
        without_another_task(64_014, || {
            for token in 0..WRITES {
                match token % 2 {
                    0 => queue.submit(token, bytes(token, 4 * BLOCK), token * 4 * BLOCK as u64),
                    _ => queue.submit_durable(token, bytes(token, 4 * BLOCK), token * 4 * BLOCK as u64),
                }
            }
            let finished = drain(&queue);
            assert_eq!(finished.len() as u64, WRITES);
            for write in finished {
                assert_eq!((write.result, write.durable), (Ok(()), write.token % 2 == 1), "write {}", write.token);
            }
            // Always a worker's.
            queue.submit_sync().expect("no failure");
            assert_eq!(queue.reap(Wait::Until(None), &mut Vec::new()), Some(Ok(())));
            assert_eq!((queue.in_flight(), io.sync()), (0, Ok(())));
        });
        let expected: Vec<_> = (0..WRITES).flat_map(|token| pattern(token, 4 * BLOCK)).collect();
        assert!(read_all(&io, expected.len()) == expected);
    });
}

#[test]
fn without_a_worker_small_durable_writes_go_on_and_no_space_is_prepared() {
    alone("without_a_worker_small_durable_writes_go_on_and_no_space_is_prepared", || {
        if !(io_uring_is_there() && privileged()) {
            return;
        }
        let dir = disk();
        let io = Arc::new(QuikIO::open(dir.path().join("log")).expect("a file"));
        let queue = attach(&io);
        without_another_task(64_015, || {
            for token in 0..100 {
                let write = queue.write_durable_now(token, bytes(token, BLOCK), token * BLOCK as u64);
                assert_eq!((write.result, write.durable), (Ok(()), true), "write {token}");
            }
        });
        assert_eq!((io.sync(), io.preparing_stopped()), (Ok(()), None));
        drop(queue);
        assert!(read_all(&io, 100 * BLOCK) == (0..100).flat_map(|token| pattern(token, BLOCK)).collect::<Vec<_>>());
    });
}

#[test]
fn a_thread_that_submits_has_one_worker_of_the_kernel_at_most() {
    const WRITES: u64 = 64;
    alone("a_thread_that_submits_has_one_worker_of_the_kernel_at_most", || {
        if !io_uring_is_there() {
            return;
        }
        let dir = disk();
        let io = Arc::new(QuikIO::open(dir.path().join("log")).expect("a file"));
        let queue = attach(&io);
        let workers = || {
            let tasks = fs::read_dir("/proc/self/task").expect("the tasks of this process");
            let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join("comm"));
            tasks.filter_map(|task| name(task).ok()).filter(|name| name.starts_with("iou-wrk")).count()
        };
        let all: Vec<_> = (0..WRITES).map(|token| bytes(token, 64 * BLOCK)).collect();
        for (token, bytes) in (0..).zip(all) {
            queue.submit(token, bytes, token * 64 * BLOCK as u64);
        }
        queue.submit_sync().expect("no failure");
        while queue.in_flight() > 0 {
            queue.reap(Wait::Until(None), &mut Vec::new());
        }
        // They stay for some seconds.
        assert_eq!(workers(), 1);
    });
}

#[test]
fn rings_that_have_prepared_space_share_the_memory_for_it() {
    const RINGS: u64 = 64;
    alone("rings_that_have_prepared_space_share_the_memory_for_it", || {
        let resident = || {
            let pages = fs::read_to_string("/proc/self/statm").expect("what this process uses");
            pages.split(' ').nth(1).expect("resident pages").parse::<u64>().expect("a number") * BLOCK as u64
        };
        let dir = disk();
        let all = (0..RINGS).map(|n| attach(&Arc::new(QuikIO::open(dir.path().join(n.to_string())).expect("a file"))));
        let all: Vec<_> = all.collect();
        let before = resident();
        for queue in &all {
            for token in 0..6 {
                let write = queue.write_durable_now(token, bytes(token, BLOCK), token * BLOCK as u64);
                assert_eq!(write.result, Ok(()));
            }
        }
        let each = resident().saturating_sub(before) / RINGS;
        assert!(each < 256 << 10, "{each} bytes each");
    });
}

/// Row by row: what `strace` makes the `nth` call of io_uring_enter answer. The probe makes the first.
#[test]
fn an_entry_that_the_kernel_puts_off_at_any_call_goes_out_exactly_once() {
    const NAME: &str = "an_entry_that_the_kernel_puts_off_at_any_call_goes_out_exactly_once";
    const WRITES: u64 = 4;
    if let Some(path) = env::var_os(ALONE) {
        let io = Arc::new(QuikIO::open(path).expect("a file"));
        assert_eq!(io.engine().kind(), EngineKind::IoUring);
        let queue = attach(&io);
        for token in 0..WRITES {
            queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
            let finished = drain(&queue);
            assert_eq!((finished.len(), finished[0].token), (1, token));
            assert_eq!(finished[0].result, Ok(()));
            let rest = queue.in_flight();
            assert_eq!(rest, 0, "nothing comes twice");
        }
        return;
    }
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    let mut injected = 0;
    for errno in ["EINTR", "EAGAIN", "EBUSY"] {
        for call in 1..=2 * WRITES + 2 {
            let path = dir.path().join(format!("{errno}-{call}"));
            let inject = format!("io_uring_enter:error={errno}:when={call}");
            let Some((passed, output)) = traced(NAME, &path, "io_uring_enter", Some(&inject)) else { return };
            assert!(passed, "{errno} at call {call}: {output}");
            injected += output.matches("(INJECTED)").count();
            let expected: Vec<_> = (0..WRITES).flat_map(|token| pattern(token, BLOCK)).collect();
            assert!(fs::read(&path).expect("the file") == expected, "{errno} at call {call}");
        }
    }
    assert!(injected as u64 >= 3 * WRITES, "{injected} calls were tampered with");
}

/// The kernel may cancel what a thread leaves behind when it exits at once; the work is done nevertheless.
#[test]
fn writes_of_a_thousand_threads_that_exit_at_once_complete() {
    let dir = disk();
    let io = Arc::new(QuikIO::new(log(dir.path())));
    let queue = attach(&io);
    let mut finished = Vec::new();
    for round in 0..20 {
        thread::scope(|scope| {
            for token in round * 50..(round + 1) * 50 {
                let queue = &queue;
                scope.spawn(move || queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64));
            }
        });
        finished.extend(drain(&queue));
    }
    assert!(finished.iter().all(|write| write.result.is_ok()) && finished.len() == 1000);
    assert!(read_all(&io, 1000 * BLOCK) == (0..1000).flat_map(|token| pattern(token, BLOCK)).collect::<Vec<_>>());
}

#[test]
fn where_files_have_no_attributes_nothing_is_prepared_and_all_is_log() {
    let dir = disk();
    let calls = [libc::SYS_fgetxattr, libc::SYS_fsetxattr, libc::SYS_fremovexattr];
    for (errno, is_supported) in [(Errno::OPNOTSUPP, false), (Errno::PERM, true)] {
        let path = dir.path().join(errno.raw_os_error().to_string());
        denied(&calls, errno, || {
            let io = Arc::new(QuikIO::open(&path).expect("no obstacle"));
            let queue = attach(&io);
            for n in 0..20 {
                assert!(queue.write_durable_now(n, bytes(n, BLOCK), n * BLOCK as u64).durable);
            }
            let end = 20 * BLOCK as u64;
            assert_eq!((fs::metadata(&path).expect("the file").len(), io.log_end()), (end, Ok(end)));
            let mut marker = buffers(1, BLOCK).1.remove(0);
            marker[..12].copy_from_slice(b"ring-io free");
            marker[32..40].copy_from_slice(&end.to_le_bytes());
            let write = queue.write_durable_now(0, marker.freeze(BLOCK), end);
            // The file may have a key that this process is not allowed to see.
            let refused = is_supported.then_some(errno.raw_os_error());
            assert_eq!((write.durable, write.result.err().and_then(|error| error.errno())), (!is_supported, refused));
            assert_eq!(io.log_end(), Ok(end + BLOCK as u64));
        });
    }
}

/// "Not now" is no answer to a sync: the kernel reports each error once.
#[test]
fn where_no_write_is_durable_by_itself_a_sync_follows_it_and_is_not_tried_again() {
    let dir = disk();
    let attach = || {
        let io = QuikIO::builder(log(dir.path())).engine(EngineKind::Positioned).build();
        attach(&Arc::new(io.expect("no obstacle")))
    };
    denied(&[libc::SYS_pwritev2], Errno::NOSYS, || {
        let queue = attach();
        let write = queue.write_durable_now(1, bytes(1, 2 * BLOCK), 0);
        assert_eq!((write.result, write.durable), (Ok(()), true));
        assert!(read_all(queue.io(), 2 * BLOCK) == pattern(1, 2 * BLOCK));
        drop(queue);
        for (errno, reported) in
            [(Errno::IO, Errno::IO), (Errno::NOSPC, Errno::NOSPC), (Errno::AGAIN, Errno::IO), (Errno::INTR, Errno::IO)]
        {
            denied(&[libc::SYS_fdatasync, libc::SYS_fsync], errno, || {
                let queue = attach();
                assert_eq!(queue.write_now(2, bytes(2, BLOCK), 0).result, Ok(()), "it needs no sync");
                let error = queue.write_durable_now(3, bytes(3, BLOCK), 0).result.expect_err("no sync, no promise");
                assert_eq!(error.errno(), Some(reported.raw_os_error()), "{errno}");
            });
        }
    });
}

#[test]
fn a_ring_that_is_put_off_for_ever_is_given_up() {
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    for errno in [Errno::AGAIN, Errno::BUSY, Errno::NOMEM] {
        let queue = attach(&Arc::new(QuikIO::new(open(&dir.path().join(errno.to_string()), OFlags::DIRECT))));
        denied(&[libc::SYS_io_uring_enter], errno, move || {
            for token in 0..3 {
                queue.submit(token, bytes(token, BLOCK), token * BLOCK as u64);
            }
            let finished = drain(&queue);
            let errnos: Vec<_> =
                finished.iter().map(|write| write.result.as_ref().map_err(DeviceError::errno)).collect();
            assert_eq!(errnos, [Err(Some(errno.raw_os_error())); 3]);
        });
    }
}

/// As kernels before 5.19 do, whose tables of buffers are never empty.
#[test]
fn without_empty_tables_all_buffers_are_registered_at_once_but_not_against_a_refusal() {
    /// `IORING_REGISTER_BUFFERS2`.
    const SPARSE: u64 = 15;
    if !io_uring_is_there() {
        return;
    }
    let dir = disk();
    let registered = || {
        let (arena, _buffers) = buffers(4, BLOCK);
        let queue = Arc::new(QuikIO::new(log(dir.path()))).attach(&arena).expect("the only queue");
        (queue.registered().buffers(), queue.registered().reason().map(str::to_owned))
    };
    if !registered().0 {
        eprintln!("SKIPPED: no buffers can be registered");
        return;
    }
    for (errno, is_registered) in [(Errno::INVAL, true), (Errno::PERM, false)] {
        let condition =
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, SPARSE).expect("a condition");
        let rule = SeccompRule::new(vec![condition]).expect("a rule");
        let rules = BTreeMap::from([(libc::SYS_io_uring_register, vec![rule])]);
        let (buffers, reason) = denied_where(rules, errno, registered);
        assert_eq!((buffers, reason.is_none()), (is_registered, is_registered), "{errno}: {reason:?}");
    }
}

#[test]
fn a_direct_file_that_cannot_be_opened_is_an_error_unless_the_file_system_knows_no_such_thing() {
    let dir = disk();
    let path = dir.path().join("log");
    fs::write(&path, vec![7; BLOCK]).expect("a file");
    let direct = u64::from(OFlags::DIRECT.bits());
    for errno in [Errno::INVAL, Errno::IO, Errno::MFILE] {
        let is_direct = SeccompCmpOp::MaskedEq(direct);
        let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, is_direct, direct).expect("a condition");
        let rule = SeccompRule::new(vec![condition]).expect("a rule");
        denied_where(BTreeMap::from([(libc::SYS_openat, vec![rule])]), errno, || match QuikIO::open(&path) {
            Ok(io) => {
                assert_eq!((errno, io.is_direct()), (Errno::INVAL, false));
                assert_eq!(io.not_direct_because(), Some("the file system refuses O_DIRECT"));
            }
            Err(error) => assert_eq!(error.errno(), Some(errno.raw_os_error())),
        });
    }
}
