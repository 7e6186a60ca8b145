//! A disk that is a FUSE file system: a real kernel on one side; on the other a log of everything that arrives, and a
//! disk that answers in the order, at the time and with the failure that it was given.
//!
//! There are two files: `disk`, and `acks`, into which the workload writes each acknowledgement after it has received
//! it. Both go through one lock, so the position of an acknowledgement in the log is exact.

use core::mem;
use core::time::Duration;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use crate::log::Event;
use crate::record::Key;
use ring_testing::Random;

const DISK: INodeNo = INodeNo(2);
const ACKS: INodeNo = INodeNo(3);
/// The attribute of a file that holds the key of its markers.
pub(crate) const KEY: &str = "user.ring-io.prepared";
const TTL: Duration = Duration::from_secs(3600);

/// The key of the markers of the file at `path`.
pub(crate) fn key_of(path: &Path) -> Option<Key> {
    let mut key = Key::default();
    rustix::fs::getxattr(path, KEY, &mut key).ok().filter(|&len| len == key.len()).map(|_| key)
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing was written.
    Error(i32),
    /// It and all later ones of its kind fail.
    ErrorForEver(i32),
    /// It fails, and half of it was written.
    ErrorHalfLanded(i32),
    /// Only this many bytes are written.
    Short(usize),
    /// The answer comes after all others that can come without it.
    Held,
    /// The disk is gone.
    Vanish,
}

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Write(usize),
    Flush(usize),
}

/// A request that waits for its answer.
#[derive(Debug)]
enum Waiting {
    Write { write: usize, offset: usize, bytes: Vec<u8>, key: Covered, reply: ReplyWrite },
    Flush { flush: usize, key: Covered, reply: ReplyEmpty },
}

/// The key as it was when a flush began that covers it.
type Covered = Option<Option<Key>>;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// The key of the markers: an attribute of the disk.
    key: Option<Key>,
    events: Vec<Event>,
    waiting: Vec<Waiting>,
    writes: usize,
    flushes: usize,
    fault: Option<(Target, Fault)>,
    /// Whether the fault was met.
    met: bool,
    vanished: bool,
    /// Requests arrive, and are not answered.
    held: bool,
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

/// A mounted disk. Unmounted when dropped.
pub(crate) struct Machine {
    folder: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    disk: Option<JoinHandle<()>>,
}

impl Machine {
    /// Mounts a disk with these bytes and this key at `folder`.
    pub(crate) fn mount(folder: &Path, bytes: Vec<u8>, key: Option<Key>, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        (shared.lock().bytes, shared.lock().key) = (bytes, key);
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("ring-lab".into())];
        let session = fuser::spawn_mount(Files(Arc::clone(&shared)), folder, &config)?;
        let disk = thread::spawn({
            let shared = Arc::clone(&shared);
            move || answer(&shared, Random::new(seed))
        });
        Ok(Self { folder: folder.to_owned(), shared, session: Some(session), disk: Some(disk) })
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(crate) fn acks(&self) -> PathBuf {
        self.folder.join("acks")
    }

    pub(crate) fn plan(&self, target: Target, fault: Fault) {
        self.shared.lock().fault = Some((target, fault));
    }

    pub(crate) fn fault_was_met(&self) -> bool {
        self.shared.lock().met
    }

    /// What has happened.
    pub(crate) fn take(&self) -> Vec<Event> {
        mem::take(&mut self.shared.lock().events)
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        if let Some(disk) = self.disk.take() {
            disk.join().map_err(|_| io::Error::other("the disk panicked"))?;
        }
        match self.session.take() {
            Some(session) => session.umount_and_join(),
            None => Ok(()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let vanished = self.shared.lock().vanished;
        if let Err(error) = self.end() {
            // A process still has one of its files open; a lazy unmount ends when that closes it.
            if !vanished {
                eprintln!("{}: {error}", self.folder.display());
            }
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        }
    }
}

/// The disk's thread: takes requests at random, and answers them.
fn answer(shared: &Shared, mut random: Random) {
    let mut state = shared.lock();
    loop {
        if state.waiting.is_empty() || state.held && !state.over {
            if state.over {
                return;
            }
            state = shared.changed.wait(state).expect("no panic");
            continue;
        }
        // Others may arrive meanwhile.
        if random.chance(30) && !state.over {
            let pause = Duration::from_micros(random.below(300) as u64);
            state = shared.changed.wait_timeout(state, pause).expect("no panic").0;
        }
        let one = random.below(state.waiting.len());
        let waiting = state.waiting.swap_remove(one);
        if state.fault_of(&waiting) == Some(Fault::Held) && !state.over {
            state.met = true;
            drop(state);
            // Long for a program, though not for a person.
            thread::sleep(Duration::from_millis(30));
            state = shared.lock();
        }
        state.complete(waiting);
    }
}

impl State {
    fn change_key(&mut self, key: Option<Key>) {
        self.key = key;
        self.events.push(Event::KeyChanged { key });
    }

    fn fault_of(&self, waiting: &Waiting) -> Option<Fault> {
        let (target, fault) = self.fault?;
        let for_ever = matches!(fault, Fault::ErrorForEver(_));
        let hit = match (target, waiting) {
            (Target::Write(nth), Waiting::Write { write, .. }) => nth == *write || for_ever && nth < *write,
            (Target::Flush(nth), Waiting::Flush { flush, .. }) => nth == *flush || for_ever && nth < *flush,
            _ => false,
        };
        hit.then_some(fault)
    }

    fn complete(&mut self, waiting: Waiting) {
        let fault = self.fault_of(&waiting);
        self.met |= fault.is_some();
        if self.vanished || fault == Some(Fault::Vanish) {
            self.vanished = true;
            return match waiting {
                Waiting::Write { reply, .. } => reply.error(Errno::EIO),
                Waiting::Flush { reply, .. } => reply.error(Errno::EIO),
            };
        }
        match waiting {
            Waiting::Write { write, offset, bytes, key, reply } => {
                let (landed, error) = match fault {
                    Some(Fault::Error(errno) | Fault::ErrorForEver(errno)) => (0, Some(errno)),
                    Some(Fault::ErrorHalfLanded(errno)) => (bytes.len() / 2, Some(errno)),
                    Some(Fault::Short(len)) => (len.min(bytes.len()), None),
                    _ => (bytes.len(), None),
                };
                let end = offset + landed;
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[offset..end].copy_from_slice(&bytes[..landed]);
                match error {
                    Some(errno) => {
                        self.events.push(Event::Failed { write });
                        reply.error(Errno::from_i32(errno));
                    }
                    None => {
                        self.events.extend(key.map(|key| Event::KeySynced { key }));
                        self.events.push(Event::Completed { write, written: landed });
                        reply.written(landed as u32);
                    }
                }
            }
            Waiting::Flush { flush, key, reply } => match fault {
                Some(Fault::Error(errno) | Fault::ErrorForEver(errno) | Fault::ErrorHalfLanded(errno)) => {
                    self.events.push(Event::FlushEnded { flush, succeeded: false });
                    reply.error(Errno::from_i32(errno));
                }
                _ => {
                    self.events.extend(key.map(|key| Event::KeySynced { key }));
                    self.events.push(Event::FlushEnded { flush, succeeded: true });
                    reply.ok();
                }
            },
        }
    }
}

struct Files(Arc<Shared>);

impl Files {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = if ino == DISK { self.0.lock().bytes.len() as u64 } else { 0 };
        let now = SystemTime::UNIX_EPOCH;
        let (kind, perm) =
            if ino == INodeNo::ROOT { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn wait(&self, state: &mut State, event: Event, waiting: Waiting) {
        state.events.push(event);
        state.waiting.push(waiting);
        self.0.changed.notify_all();
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ino = match name.to_str() {
            Some("disk") if parent == INodeNo::ROOT => DISK,
            Some("acks") if parent == INodeNo::ROOT => ACKS,
            _ => return reply.error(Errno::ENOENT),
        };
        reply.entry(&TTL, &self.attr(ino), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(len) = size.filter(|_| ino == DISK) {
            let mut state = self.0.lock();
            state.bytes.resize(len as usize, 0);
            state.events.push(Event::Resized { len });
        }
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Not for the disk: the kernel would then write the rest of a short write to the wrong offset.
        let flags = if ino == ACKS { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.0.lock();
        if state.vanished {
            return reply.error(Errno::EIO);
        }
        let rest = if ino == DISK { state.bytes.get(offset as usize..).unwrap_or_default() } else { &[] };
        reply.data(&rest[..rest.len().min(size as usize)]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.lock();
        if state.vanished {
            return reply.error(Errno::EIO);
        }
        if ino == ACKS {
            match postcard::from_bytes(data) {
                Ok(event) => state.events.push(event),
                Err(_) => return reply.error(Errno::EINVAL),
            }
            return reply.written(data.len() as u32);
        }
        let (write, offset, bytes) = (state.writes, offset as usize, data.to_vec());
        state.writes += 1;
        let synced = flags.0 & libc::O_DSYNC != 0;
        let key = (flags.0 & libc::O_SYNC == libc::O_SYNC).then_some(state.key);
        let event = Event::Arrived { write, offset: offset as u64, bytes: bytes.clone(), synced };
        self.wait(&mut state, event, Waiting::Write { write, offset, bytes, key, reply });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        if state.vanished {
            return reply.error(Errno::EIO);
        }
        if ino != DISK {
            return reply.ok();
        }
        let flush = state.flushes;
        state.flushes += 1;
        let key = (!datasync).then_some(state.key);
        self.wait(&mut state, Event::FlushBegan { flush }, Waiting::Flush { flush, key, reply });
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        match (ino, name.to_str(), value.try_into()) {
            (DISK, Some(KEY), Ok(key)) => {
                self.0.lock().change_key(Some(key));
                reply.ok();
            }
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        if ino == DISK && name == KEY && state.key.is_some() {
            state.change_key(None);
            reply.ok();
        } else {
            reply.error(Errno::ENODATA);
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.0.lock().key.filter(|_| ino == DISK && name == KEY) {
            None => reply.error(Errno::ENODATA),
            Some(key) if size == 0 => reply.size(key.len() as u32),
            Some(key) => reply.data(&key),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::mpsc;
    use std::{env, thread};

    use buffer_ring::ring_io::EngineKind;
    use buffer_ring::{BufferRing, BufferRingOptions, QuikIO};

    use super::*;

    fn hold(machine: &Machine, held: bool) {
        machine.shared.lock().held = held;
        machine.shared.changed.notify_all();
    }

    #[test]
    fn an_append_that_flushes_to_fuse_returns_while_the_server_holds_the_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = match Machine::mount(folder.path(), Vec::new(), None, 1) {
            Ok(machine) => machine,
            Err(error) => {
                assert!(env::var_os("BUFFER_RING_REQUIRE_ROOT").is_none(), "not to be skipped: {error}");
                eprintln!("SKIPPED: FUSE disks: {error}");
                return;
            }
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(machine.disk()).expect("the disk");
        let io = Arc::new(QuikIO::new(file));
        if env::var_os("BUFFER_RING_ENGINE").is_none() {
            let reason = "through io_uring, FUSE would have a submit wait for the server";
            assert_eq!((io.engine().kind(), io.engine().reason()), (EngineKind::Positioned, Some(reason)));
        }
        if io.engine().kind() != EngineKind::Positioned {
            return;
        }
        let options =
            BufferRingOptions { capacity: 4, buffer_size: 4096, io_instance: Some(io), ..BufferRingOptions::default() };
        let ring = BufferRing::try_with_options(options).expect("a ring");
        hold(&machine, true);
        thread::scope(|scope| {
            let (appended, result) = mpsc::channel();
            let ring = &ring;
            scope.spawn(move || {
                for record in [[1; 4000], [2; 4000]] {
                    ring.append(&record).expect("room");
                }
                appended.send(()).expect("the test waits");
            });
            // A hang is a failure, and the disk has to answer nevertheless.
            let outcome = result.recv_timeout(Duration::from_secs(60));
            if outcome.is_ok() {
                while machine.shared.lock().waiting.is_empty() {
                    thread::yield_now();
                }
            }
            let written = machine.shared.lock().bytes.len();
            hold(&machine, false);
            assert_eq!((outcome, written), (Ok(()), 0));
        });
        assert_eq!(ring.sync().expect("a working disk"), 2 * 4096);
        assert_eq!(machine.shared.lock().bytes[4096], 2);
    }
}
