//! Acting on the verdict: the steps that make a log ready to be appended to, in an order in which a crash at any of
//! them is harmless.
//!
//! 1. Lock, so that no log writer, not even a killed one whose I/O is still in flight, changes what is judged.
//! 2. Judge. A refusal ends here: nothing was changed.
//! 3. Sync the directory, `MANIFEST` and every segment from the known durable address to the end: after a kill all of
//!    it may be in a cache only, and step 4 promises it.
//! 4. One update of `MANIFEST`: one more epoch, with a fresh salt, at exactly the end that was found. That is the
//!    cut: what lies behind belongs to older epochs, whose promises end here, and is never accepted again. No byte of
//!    it is overwritten.
//! 5. Remove what lies below the trim point.
//!
//! When damage is set aside, missing files are made and others moved only after step 4: the other order and a crash
//! would turn damage into a silent cut.

use std::io;

use super::judge::{Judged, Verify, judge};
use super::report::{Report, Verdict};
use crate::Lsn;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{
    Epoch, FirstBatch, Framing, HeaderKey, MAX_COOKIE, Manifest, NO_ADDRESS, SegmentHeader, is_segment_size, u64_at,
};
use crate::manifest::ManifestFile;
use crate::random::Random;
use crate::segment::{aside_name, below, ensure, parse_name, remove};
use crate::values::Values;

/// The name of the file that is locked.
pub(super) const LOCK: &str = "LOCK";

/// The name of the directory in errors.
const DIRECTORY: &str = "the directory";

/// What opening does about a write that was in flight and never acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TornTail {
    /// Ends the log before it, durably.
    #[default]
    Cut,
    /// [`OpenError::Torn`], with the report; nothing was changed.
    Refuse,
}

/// What opening does about acknowledged bytes that are damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// [`OpenError::Damaged`], with the report; nothing was changed.
    #[default]
    Refuse,
    /// Ends the log before it. Nothing is deleted: the segment with the damage is copied, later ones are renamed, to
    /// `aside-…`.
    SetAside,
    /// Leaves it out: what is intact behind it stays part of the log. For replicas, which can fetch the missing range
    /// elsewhere.
    Skip,
}

#[derive(Clone, Debug)]
enum Entropy {
    System,
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    Seed(Random),
}

impl Entropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        match self {
            Self::System => {
                let mut filled = 0;
                while filled < bytes.len() {
                    let read = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
                    filled +=
                        read.map_err(|errno| OpenError::io("read", "the random number generator")(errno.into()))?;
                }
            }
            Self::Seed(random) => {
                for chunk in bytes.chunks_mut(8) {
                    chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
                }
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, OpenError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64_at(&bytes, 0))
    }
}

/// Opens a log for appending: creates it, or recovers it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Recover {
    pub(crate) segment_size: u64,
    cookie: Vec<u8>,
    pub(crate) must_exist: bool,
    torn_tail: TornTail,
    on_damage: OnDamage,
    how: Verify,
    entropy: Entropy,
}

impl Default for Recover {
    fn default() -> Self {
        Self::new()
    }
}

impl Recover {
    /// Cuts a torn tail, refuses damage, verifies everything.
    pub fn new() -> Self {
        Self {
            segment_size: 64 << 20,
            cookie: Vec::new(),
            must_exist: false,
            torn_tail: TornTail::default(),
            on_damage: OnDamage::default(),
            how: Verify::new(),
            entropy: Entropy::System,
        }
    }

    /// Bytes of addresses in each segment of a new log: a multiple of 4096, at least 16 KiB. A log that exists keeps
    /// its own.
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// Bytes of the user's own, at most 2048, for the header of each segment of a new log.
    pub fn cookie(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.cookie = bytes.into();
        self
    }

    /// Fails with [`OpenError::Missing`] instead of creating a log, as when a mount is missing.
    pub fn must_exist(mut self, yes: bool) -> Self {
        self.must_exist = yes;
        self
    }

    /// What to do about a torn tail.
    pub fn torn_tail(mut self, what: TornTail) -> Self {
        self.torn_tail = what;
        self
    }

    /// What to do about damage.
    pub fn on_damage(mut self, what: OnDamage) -> Self {
        self.on_damage = what;
        self
    }

    /// How much to verify.
    pub fn verify(mut self, how: Verify) -> Self {
        self.how = how;
        self
    }

    /// Takes keys and salts from a generator with this seed, so that a test repeats to the bit. A log that holds real
    /// data must not be opened so: its batches could be imitated.
    #[cfg(feature = "testing")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.entropy = Entropy::Seed(Random::new(seed));
        self
    }

    /// Locks the log, judges it, and makes it ready to be appended to.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Unless it is [`OpenError::Io`], nothing was changed.
    pub fn open<D: Directory>(mut self, directory: &D) -> Result<Opened<D>, OpenError> {
        self.check()?;
        let (lock, created) = lock(directory)?;
        let opened = self.recover(directory, lock);
        if created && !matches!(opened, Ok(_) | Err(OpenError::Io { .. })) {
            // The refusal is what the caller needs; an empty file does no harm.
            let _ = directory.unlink(LOCK);
        }
        opened
    }

    /// Locks a log, for [`open_locked`](Self::open_locked): what is done to its files in between, no log writer sees
    /// half done. Makes `LOCK`, if it is not there.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] and [`OpenError::Io`].
    pub fn lock<D: Directory>(directory: &D) -> Result<D::Lock, OpenError> {
        lock(directory).map(|(lock, _created)| lock)
    }

    /// [`open`](Self::open) of a log that was [locked](Self::lock) before, and stays so.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_locked<D: Directory>(mut self, directory: &D, lock: D::Lock) -> Result<Opened<D>, OpenError> {
        self.check()?;
        self.recover(directory, lock)
    }

    /// Refuses what no log can have.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !is_segment_size(self.segment_size) {
            return Err(OpenError::Option("a segment is a multiple of 4096 bytes, from 16 KiB to 1 TiB"));
        }
        if self.cookie.len() > MAX_COOKIE {
            return Err(OpenError::Option("a cookie is at most 2048 bytes"));
        }
        Ok(())
    }

    fn recover<D: Directory>(&mut self, directory: &D, lock: D::Lock) -> Result<Opened<D>, OpenError> {
        let skip = self.on_damage == OnDamage::Skip;
        let Some(judged) = judge(directory, &self.how, true, skip)? else { return self.create(directory, lock) };
        let is_damaged = match judged.report.verdict {
            Verdict::Damaged(_) if self.on_damage == OnDamage::Refuse => {
                return Err(OpenError::Damaged(Box::new(judged.report)));
            }
            Verdict::Torn(_) if self.torn_tail == TornTail::Refuse => {
                return Err(OpenError::Torn(Box::new(judged.report)));
            }
            Verdict::Damaged(_) => true,
            _ => false,
        };
        let Judged { mut manifest, report, gaps, cookie } = judged;
        let (old, end) = (manifest.content().clone(), report.end.get());
        let next = Manifest { gaps, ..old.clone() }.reopened(end, self.entropy.number()?)?;
        let header = |number| SegmentHeader {
            log_id: old.log_id,
            number,
            segment_size: old.segment_size,
            whole: false,
            cookie: cookie.clone().unwrap_or_else(|| self.cookie.clone()),
        };
        let here = header(old.segment_of(end));

        sync_what_was_found(directory, &manifest, end)?;
        if !is_damaged {
            ensure(directory, &here)?;
        } else if self.on_damage == OnDamage::SetAside {
            copy_aside(directory, old.sequence, &here.file_name())?;
        }
        manifest.update(directory, next)?;
        if is_damaged {
            ensure(directory, &here)?;
            if self.on_damage == OnDamage::SetAside {
                move_aside(directory, old.sequence, end)?;
            }
        }
        remove(directory, &below(directory, manifest.content().trim, old.segment_size)?)?;
        Ok(Opened { report, manifest, header: here, _lock: lock })
    }

    fn create<D: Directory>(&mut self, directory: &D, lock: D::Lock) -> Result<Opened<D>, OpenError> {
        if self.must_exist {
            return Err(OpenError::Missing);
        }
        let (log_id, salt) = (self.entropy.number()?, self.entropy.number()?);
        let mut key = [0; 16];
        self.entropy.fill(&mut key)?;
        let segment_size = self.segment_size;
        let header = SegmentHeader { log_id, number: 0, segment_size, whole: false, cookie: self.cookie.clone() };
        let content = Manifest {
            sequence: 1,
            log_id,
            key: HeaderKey::new(key),
            segment_size,
            trim: 0,
            first: FirstBatch { number: 0, previous: NO_ADDRESS, epoch: None },
            known_durable: 0,
            clean_end: None,
            epochs: vec![Epoch { epoch: 1, salt, start: 0 }],
            gaps: Vec::new(),
        };
        ensure(directory, &header)?;
        let manifest = ManifestFile::create(directory, content)?;
        let zero = Lsn::START;
        let report = Report {
            log_id,
            segment_size,
            first: zero,
            checked_from: zero,
            end: zero,
            promised: zero,
            batches: 0,
            records: 0,
            segments: 1,
            next_number: 0,
            previous: NO_ADDRESS,
            epoch: 1,
            verdict: Verdict::Fresh,
            gaps: Vec::new(),
            void: Vec::new(),
            values: Values::default(),
            bad_segment_headers: Vec::new(),
        };
        Ok(Opened { report, manifest, header, _lock: lock })
    }
}

/// Locks `LOCK`, and each segment for a moment: a killed writer's I/O keeps its segments, not `LOCK`, open and locked,
/// and when it has ended no other will begin. Whether `LOCK` had to be made.
fn lock<D: Directory>(directory: &D) -> Result<(D::Lock, bool), OpenError> {
    let io = OpenError::io;
    let mut created = false;
    let lock = loop {
        match directory.lock(LOCK) {
            Ok(lock) => break lock.ok_or_else(|| OpenError::Locked { file: LOCK.into() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.create(LOCK) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => created = made.map(|_| true).map_err(io("create", LOCK))?,
            },
            Err(error) => return Err(io("lock", LOCK)(error)),
        }
    };
    for name in directory.list().map_err(io("list", DIRECTORY))? {
        if parse_name(&name).is_some() {
            let segment = directory.lock(&name).map_err(io("lock", &name))?;
            drop(segment.ok_or(OpenError::Locked { file: name })?);
        }
    }
    Ok((lock, created))
}

fn sync_what_was_found<D: Directory>(
    directory: &D,
    manifest: &ManifestFile<D::File>,
    end: u64,
) -> Result<(), OpenError> {
    directory.sync_dir().map_err(OpenError::io("sync", DIRECTORY))?;
    manifest.sync(directory)?;
    let content = manifest.content();
    let from = content.known_durable.min(end) / content.segment_size * content.segment_size;
    for name in directory.list().map_err(OpenError::io("list", DIRECTORY))? {
        if parse_name(&name).is_some_and(|base| (from..=end).contains(&base)) {
            let file = directory.open(&name, true).map_err(OpenError::io("open", &name))?;
            directory.sync_file(&file).map_err(OpenError::io("sync", &name))?;
        }
    }
    Ok(())
}

/// Copies the segment that will be written to again, before anything else is done.
fn copy_aside<D: Directory>(directory: &D, sequence: u64, name: &str) -> Result<(), OpenError> {
    let io = OpenError::io;
    let from = match directory.open(name, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(io("open", name))?,
    };
    let copy = &aside_name(sequence, name);
    // An interrupted attempt left it.
    match directory.unlink(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", copy)(error)),
        _ => {}
    }
    let to = directory.create(copy).map_err(io("create", copy))?;
    let (mut piece, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let read = directory.read_at(&from, &mut piece, at).map_err(io("read", name))?;
        if read == 0 {
            break;
        }
        directory.write_at(&to, &piece[..read], at).map_err(io("write", copy))?;
        at += read as u64;
    }
    directory.sync_file(&to).map_err(io("sync", copy))?;
    directory.sync_dir().map_err(io("sync the directory of", copy))
}

/// Renames the segments behind the one that holds `end`.
fn move_aside<D: Directory>(directory: &D, sequence: u64, end: u64) -> Result<(), OpenError> {
    for name in directory.list().map_err(OpenError::io("list", DIRECTORY))? {
        if parse_name(&name).is_some_and(|base| base > end) {
            directory.rename(&name, &aside_name(sequence, &name)).map_err(OpenError::io("rename", &name))?;
        }
    }
    directory.sync_dir().map_err(OpenError::io("sync", DIRECTORY))
}

/// A log that is locked, recovered, and ready to be appended to.
#[derive(Debug)]
pub struct Opened<D: Directory> {
    report: Report,
    manifest: ManifestFile<D::File>,
    header: SegmentHeader,
    /// Of `LOCK`.
    _lock: D::Lock,
}

impl<D: Directory> Opened<D> {
    /// Returns what recovery found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns what seals the batches of the new epoch; its first one begins at the end of the report.
    #[must_use]
    pub fn framing(&self) -> Framing {
        let Manifest { key, log_id, .. } = *self.manifest.content();
        let Epoch { epoch, salt, start } = self.manifest.content().newest_epoch();
        Framing::new(key, log_id, epoch, salt, start, self.report.next_number)
    }

    /// Returns what `MANIFEST` says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.manifest.content()
    }

    /// Returns the header of the segment with this number.
    #[must_use]
    pub fn segment_header(&self, number: u64) -> SegmentHeader {
        SegmentHeader { number, ..self.header.clone() }
    }

    /// Moves the trim point to `to`, at most the durable watermark, and returns the segments that may then be removed
    /// or used again. `first` is the first batch of the segment that holds `to`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`]. Then stop, and open the log anew.
    pub fn trim(&mut self, directory: &D, to: u64, first: FirstBatch, durable: u64) -> Result<Vec<String>, OpenError> {
        let next = self.manifest.content().trimmed(to, first, durable);
        self.manifest.update(directory, next)?;
        below(directory, to, self.header.segment_size)
    }

    /// Records a clean close at `end`: the address behind the last batch, when all of it is durable.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn close(&mut self, directory: &D, end: u64) -> Result<(), OpenError> {
        let next = self.manifest.content().closed(end);
        self.manifest.update(directory, next)
    }
}
