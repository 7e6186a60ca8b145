//! A file system in memory, mounted by FUSE, that writes down each change and each sync in the order in which the
//! kernel passed them on. A program that knows nothing of it is recorded while it runs.

use core::mem;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

/// Nothing but this mount changes it.
const TTL: Duration = Duration::from_secs(3600);
const MAX_FILE: u64 = 1 << 30;

/// A node's number; the root has 1.
pub type Node = u64;
pub const ROOT: Node = 1;

/// What reached the disk, and what the workload knows.
#[derive(Clone, Debug)]
pub enum Event {
    Created {
        parent: Node,
        name: OsString,
        node: Node,
        is_folder: bool,
    },
    Removed {
        parent: Node,
        name: OsString,
    },
    Renamed {
        parent: Node,
        name: OsString,
        new_parent: Node,
        new_name: OsString,
    },
    /// `synced`: the write does not return before it is on stable storage.
    Written {
        node: Node,
        offset: u64,
        bytes: Vec<u8>,
        synced: bool,
    },
    Resized {
        node: Node,
        len: u64,
    },
    /// Of a file or a folder.
    Synced {
        node: Node,
    },
    /// All records below may have been handed to the log.
    Submitted(u64),
    /// All records below are acknowledged.
    Acknowledged(u64),
}

#[derive(Debug)]
enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Node>),
}

#[derive(Debug)]
struct State {
    nodes: HashMap<Node, Content>,
    next: Node,
    events: Vec<Event>,
}

/// A mounted file system. Unmounted when dropped.
pub struct Recorder {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Recorder {
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let nodes = HashMap::from([(ROOT, Content::Folder(BTreeMap::new()))]);
        let state = Arc::new(Mutex::new(State { nodes, next: ROOT + 1, events: Vec::new() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("verdicts".into())];
        let session = fuser::spawn_mount(Disk(Arc::clone(&state)), folder, &config)?;
        Ok(Self { state, session: Some(session) })
    }

    /// Adds what the workload knows at this moment.
    pub fn note(&self, event: Event) {
        lock(&self.state).events.push(event);
    }

    /// Unmounts, and returns what has happened.
    pub fn end(mut self) -> io::Result<Vec<Event>> {
        if let Some(session) = self.session.take() {
            session.umount_and_join()?;
        }
        Ok(mem::take(&mut lock(&self.state).events))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no panic")
}

struct Disk(Arc<Mutex<State>>);

impl State {
    fn folder(&mut self, node: Node) -> Result<&mut BTreeMap<OsString, Node>, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Content::Folder(names)) => Ok(names),
            Some(Content::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, node: Node) -> Result<&mut Vec<u8>, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Content::File(bytes)) => Ok(bytes),
            Some(Content::Folder(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn attr(&self, node: Node) -> Result<FileAttr, Errno> {
        let (kind, size) = match self.nodes.get(&node).ok_or(Errno::ENOENT)? {
            Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
            Content::Folder(_) => (FileType::Directory, 0),
        };
        let now = SystemTime::UNIX_EPOCH;
        let perm = if kind == FileType::Directory { 0o755 } else { 0o644 };
        Ok(FileAttr {
            ino: INodeNo(node),
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
        })
    }

    fn create(&mut self, parent: Node, name: &OsStr, content: Content) -> Result<FileAttr, Errno> {
        let node = self.next;
        let names = self.folder(parent)?;
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        names.insert(name.to_owned(), node);
        let is_folder = matches!(content, Content::Folder(_));
        self.nodes.insert(node, content);
        self.next += 1;
        self.events.push(Event::Created { parent, name: name.to_owned(), node, is_folder });
        self.attr(node)
    }

    fn remove(&mut self, parent: Node, name: &OsStr) -> Result<(), Errno> {
        // The node stays: a file that is open can still be written to.
        self.folder(parent)?.remove(name).ok_or(Errno::ENOENT)?;
        self.events.push(Event::Removed { parent, name: name.to_owned() });
        Ok(())
    }

    fn rename(&mut self, parent: Node, name: &OsStr, new_parent: Node, new_name: &OsStr) -> Result<(), Errno> {
        self.folder(new_parent)?;
        let node = self.folder(parent)?.remove(name).ok_or(Errno::ENOENT)?;
        self.folder(new_parent)?.insert(new_name.to_owned(), node);
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.events.push(Event::Renamed { parent, name, new_parent, new_name });
        Ok(())
    }

    fn resize(&mut self, node: Node, len: u64) -> Result<(), Errno> {
        if len > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        self.file(node)?.resize(len as usize, 0);
        self.events.push(Event::Resized { node, len });
        Ok(())
    }

    fn write(&mut self, node: Node, offset: u64, data: &[u8], synced: bool) -> Result<(), Errno> {
        let file = self.file(node)?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if end as u64 > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(data);
        self.events.push(Event::Written { node, offset, bytes: data.to_vec(), synced });
        Ok(())
    }
}

/// Answers a request that has nothing to return.
fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = lock(&self.0);
        let node = state.folder(parent.0).and_then(|names| names.get(name).copied().ok_or(Errno::ENOENT));
        entry(reply, node.and_then(|node| state.attr(node)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match lock(&self.0).attr(node.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
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
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = lock(&self.0);
        let resized = size.map_or(Ok(()), |len| state.resize(node.0, len));
        match resized.and_then(|()| state.attr(node.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, lock(&self.0).create(parent.0, name, Content::Folder(BTreeMap::new())));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match lock(&self.0).create(parent.0, name, Content::File(Vec::new())) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, lock(&self.0).remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = lock(&self.0);
        // `RENAME_NOREPLACE` is all that a log needs.
        let exists = state.folder(new_parent.0).is_ok_and(|names| names.contains_key(new_name));
        let outcome = match flags.bits() {
            0 => state.rename(parent.0, name, new_parent.0, new_name),
            libc::RENAME_NOREPLACE if exists => Err(Errno::EEXIST),
            libc::RENAME_NOREPLACE => state.rename(parent.0, name, new_parent.0, new_name),
            _ => Err(Errno::EINVAL),
        };
        answer(reply, outcome);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match lock(&self.0).file(node.0) {
            Ok(bytes) => {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                reply.data(&rest[..rest.len().min(size as usize)]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match lock(&self.0).write(node.0, offset, data, flags.0 & libc::O_DSYNC != 0) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = lock(&self.0);
        let outcome = match mode {
            0 => state
                .file(node.0)
                .map(|bytes| bytes.len() as u64)
                .and_then(|size| if offset + len > size { state.resize(node.0, offset + len) } else { Ok(()) }),
            libc::FALLOC_FL_KEEP_SIZE => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        };
        answer(reply, outcome);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).events.push(Event::Synced { node: node.0 });
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).events.push(Event::Synced { node: node.0 });
        reply.ok();
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = lock(&self.0);
        let names = match state.folder(node.0) {
            Ok(names) => names.clone(),
            Err(error) => return reply.error(error),
        };
        let own = [(OsString::from("."), node.0), (OsString::from(".."), ROOT)];
        for (place, (name, node)) in (1..).zip(own.into_iter().chain(names)).skip(offset as usize) {
            let kind = state.attr(node).map_or(FileType::RegularFile, |attr| attr.kind);
            if reply.add(INodeNo(node), place, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
