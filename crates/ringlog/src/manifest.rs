//! `MANIFEST`: two slots, and the order in which they change.
//!
//! An update writes *both* slots, the one that does not hold the newest content first, with a sync between them and
//! after them. Only then may it be acted upon. With one slot per update, one bad sector would fall back to a state
//! without the newest epoch, and acknowledged batches would be cut as torn.
//!
//! Creation writes `MANIFEST.tmp` and renames it, so that a `MANIFEST` is complete from its first moment.

use core::mem;
use std::io;

use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{Epoch, FirstBatch, MAX_EPOCHS, Manifest, ManifestRefusal, SLOT_LEN};

/// The name of the file.
pub const NAME: &str = "MANIFEST";

/// Its name while it is created.
pub const TEMPORARY: &str = "MANIFEST.tmp";

/// The open `MANIFEST` of a log, and what its newest slot says.
#[derive(Debug)]
pub struct ManifestFile<F> {
    file: F,
    content: Manifest,
    /// The slot that holds the content.
    newest: usize,
    /// Whether an update has failed: then either content may be in the file, and the next one may not pass for it.
    has_failed: bool,
}

impl<F> ManifestFile<F> {
    /// Reads it; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`OpenError::BadManifest`], [`OpenError::Newer`], [`OpenError::Contradiction`] and [`OpenError::Io`].
    pub fn read<D: Directory<File = F>>(directory: &D, write: bool) -> Result<Option<Self>, OpenError> {
        let file = match directory.open(NAME, write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(OpenError::io("open", NAME))?,
        };
        let mut bytes = [0; 2 * SLOT_LEN];
        // A short file is a bad slot: its missing bytes read as zeros.
        directory.read_at(&file, &mut bytes, 0).map_err(OpenError::io("read", NAME))?;
        let (slots, _) = bytes.as_chunks::<SLOT_LEN>();
        let slots = (Manifest::decode(&slots[0]), Manifest::decode(&slots[1]));
        let (newest, content) = match slots {
            (Err(ManifestRefusal::Version(version)), _) | (_, Err(ManifestRefusal::Version(version))) => {
                return Err(OpenError::Newer { file: NAME.into(), version });
            }
            (Ok(first), Ok(second)) => {
                if (first.log_id, first.key, first.segment_size) != (second.log_id, second.key, second.segment_size) {
                    return Err(OpenError::Contradiction { what: "the log they describe" });
                }
                if first.sequence == second.sequence && first != second {
                    return Err(OpenError::Contradiction { what: "the same update" });
                }
                if first.sequence >= second.sequence { (0, first) } else { (1, second) }
            }
            (Ok(first), Err(_)) => (0, first),
            (Err(_), Ok(second)) => (1, second),
            (Err(first), Err(second)) => return Err(OpenError::BadManifest { first, second }),
        };
        Ok(Some(Self { file, content, newest, has_failed: false }))
    }

    /// Creates it. The first segment must be durable already.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`]; there is no `MANIFEST` then, or a whole one.
    pub fn create<D: Directory<File = F>>(directory: &D, content: Manifest) -> Result<Self, OpenError> {
        let io = OpenError::io;
        let names = directory.list().map_err(io("list", NAME))?;
        if names.iter().any(|name| name == TEMPORARY) {
            directory.unlink(TEMPORARY).map_err(io("remove", TEMPORARY))?;
            directory.sync_dir().map_err(io("sync the directory of", TEMPORARY))?;
        }
        let file = directory.create(TEMPORARY).map_err(io("create", TEMPORARY))?;
        let slot = content.encode();
        directory.write_at(&file, &[slot, slot].concat(), 0).map_err(io("write", TEMPORARY))?;
        directory.sync_file(&file).map_err(io("sync", TEMPORARY))?;
        directory.sync_dir().map_err(io("sync the directory of", TEMPORARY))?;
        directory.rename(TEMPORARY, NAME).map_err(io("rename", TEMPORARY))?;
        directory.sync_dir().map_err(io("sync the directory of", NAME))?;
        directory.sync_parent().map_err(io("sync the parent directory of", NAME))?;
        Ok(Self { file, content, newest: 0, has_failed: false })
    }

    /// Returns what the newest slot says.
    #[must_use]
    pub fn content(&self) -> &Manifest {
        &self.content
    }

    /// Puts what was read on stable storage: after a kill it may be in a cache only.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`].
    pub fn sync<D: Directory<File = F>>(&self, directory: &D) -> Result<(), OpenError> {
        directory.sync_file(&self.file).map_err(OpenError::io("sync", NAME))
    }

    /// Writes `content`, whose sequence it sets, into both slots. When it returns, the update may be acted upon.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`]. Then either content may be on stable storage: stop, and open the log anew. No further update
    /// is made.
    pub fn update<D: Directory<File = F>>(&mut self, directory: &D, content: Manifest) -> Result<(), OpenError> {
        if mem::replace(&mut self.has_failed, true) {
            let why = "an update has failed before; close the log, and open it anew";
            return Err(OpenError::io("update", NAME)(io::Error::other(why)));
        }
        let content = Manifest { sequence: self.content.sequence + 1, ..content };
        let bytes = content.encode();
        for slot in [1 - self.newest, self.newest] {
            let at = (slot * SLOT_LEN) as u64;
            directory.write_at(&self.file, &bytes, at).map_err(OpenError::io("write", NAME))?;
            self.sync(directory)?;
        }
        (self.newest, self.content, self.has_failed) = (1 - self.newest, content, false);
        Ok(())
    }
}

impl Manifest {
    /// Returns what an opening for appending at `end` writes: one more epoch, with a fresh salt, at exactly the end
    /// that was found.
    ///
    /// Epochs that start at the end or above are dropped: nothing of them is left.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoEpochLeft`].
    pub fn reopened(&self, end: u64, salt: u64) -> Result<Self, OpenError> {
        let epoch = self.newest_epoch().epoch.checked_add(1).ok_or(OpenError::NoEpochLeft)?;
        let mut next = self.clone();
        next.epochs.retain(|epoch| epoch.start < end);
        next.epochs.push(Epoch { epoch, salt, start: end });
        let surplus = next.epochs.len().saturating_sub(MAX_EPOCHS);
        next.epochs.drain(..surplus);
        next.known_durable = end;
        next.clean_end = None;
        next.trim = self.trim.min(end);
        // The batch at the end, wherever it was expected, will be the new epoch's first one.
        if end == next.first_segment() * next.segment_size {
            next.first.epoch = None;
        }
        for gap in next.gaps.iter_mut().filter(|gap| gap.end == end) {
            (gap.epoch, gap.salt) = (epoch, salt);
        }
        next.gaps.retain(|gap| gap.end <= end);
        Ok(next)
    }

    /// Returns what a clean close writes behind the last batch, when all of it is durable.
    #[must_use]
    pub fn closed(&self, end: u64) -> Self {
        Self { known_durable: end, clean_end: Some(end), ..self.clone() }
    }

    /// Returns what a trim to `to`, at most the durable watermark, writes. `first` is the first batch of the segment
    /// that holds `to`.
    #[must_use]
    pub fn trimmed(&self, to: u64, first: FirstBatch, durable: u64) -> Self {
        let mut next = Self { trim: to, first, known_durable: durable, ..self.clone() };
        let base = next.first_segment() * next.segment_size;
        let passed = next.epochs.iter().skip(1).take_while(|epoch| epoch.start <= base).count();
        next.epochs.drain(..passed);
        next.gaps.retain(|gap| gap.end > base);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::MemoryDirectory;
    use crate::format::{HeaderKey, NO_ADDRESS};

    fn content(log_id: u64) -> Manifest {
        Manifest {
            sequence: 1,
            log_id,
            key: HeaderKey::new([3; 16]),
            segment_size: 32 << 10,
            trim: 0,
            first: FirstBatch { number: 0, previous: NO_ADDRESS, epoch: None },
            known_durable: 0,
            clean_end: None,
            epochs: vec![Epoch { epoch: 1, salt: 5, start: 0 }],
            gaps: Vec::new(),
        }
    }

    fn read(directory: &MemoryDirectory) -> Result<Option<Manifest>, OpenError> {
        Ok(ManifestFile::read(directory, false)?.map(|file| file.content))
    }

    #[test]
    fn a_crash_at_any_step_of_creation_leaves_no_manifest_or_a_whole_one() {
        let (mut without, mut with) = (0, 0);
        for steps in 0..9 {
            for seed in 0..50 {
                let directory = MemoryDirectory::new();
                directory.put(TEMPORARY, vec![9; 100]);
                directory.stop_after(steps);
                let created = ManifestFile::create(&directory, content(7)).is_ok();
                match read(&directory.power_cut(seed)).unwrap() {
                    Some(found) => {
                        assert_eq!(found, content(7));
                        with += 1;
                    }
                    None => {
                        assert!(!created, "steps {steps}, seed {seed}");
                        without += 1;
                    }
                }
            }
        }
        assert!(with > 50 && without > 50);
    }

    #[test]
    fn a_crash_at_any_step_of_an_update_leaves_the_old_content_or_the_new() {
        let mut seen = [0; 2];
        for steps in 0..=4 {
            for seed in 0..100 {
                let directory = MemoryDirectory::new();
                let mut file = ManifestFile::create(&directory, content(7)).unwrap();
                for end in [4096, 8192] {
                    file.update(&directory, file.content.closed(end)).unwrap();
                }
                directory.stop_after(steps);
                let done = file.update(&directory, file.content.closed(12_288)).is_ok();
                let found = read(&directory.power_cut(seed)).unwrap().unwrap();
                let new = found.clean_end == Some(12_288);
                assert!(new || found.clean_end == Some(8192));
                assert!(new || !done);
                seen[usize::from(new)] += 1;
            }
        }
        assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
    }

    #[test]
    fn what_an_interrupted_update_left_is_not_lost_by_the_next_one() {
        let ends = |directory: &MemoryDirectory| read(directory).unwrap().unwrap().clean_end;
        for steps in 0..=4 {
            for seed in 0..50 {
                let directory = MemoryDirectory::new();
                let mut file = ManifestFile::create(&directory, content(7)).unwrap();
                // One slot of the first update is there, and is read.
                directory.stop_after(2);
                assert!(file.update(&directory, file.content.closed(4096)).is_err());
                let directory = directory.power_cut(seed);
                assert_eq!(ends(&directory), Some(4096));
                let mut file = ManifestFile::read(&directory, true).unwrap().unwrap();
                directory.stop_after(steps);
                let _ = file.update(&directory, file.content.closed(8192));
                assert!(ends(&directory.power_cut(seed)).is_some_and(|end| end >= 4096), "{steps} steps, seed {seed}");
            }
        }
    }

    #[test]
    fn after_a_failed_update_no_other_content_takes_its_number() {
        for steps in 0..4 {
            let directory = MemoryDirectory::new();
            let mut file = ManifestFile::create(&directory, content(7)).unwrap();
            directory.stop_after(steps);
            assert!(file.update(&directory, file.content.closed(4096)).is_err());
            directory.stop_after(u64::MAX);
            let refused = file.update(&directory, file.content.closed(8192)).unwrap_err();
            assert!(refused.to_string().contains(NAME), "{refused}");
            for seed in 0..50 {
                let found = read(&directory.power_cut(seed)).unwrap().unwrap();
                assert!([None, Some(4096)].contains(&found.clean_end), "{steps} steps, seed {seed}");
            }
        }
    }

    #[test]
    fn one_bad_slot_changes_nothing_after_an_update() {
        for slot in 0..2 {
            let directory = MemoryDirectory::new();
            let mut file = ManifestFile::create(&directory, content(7)).unwrap();
            for end in [4096, 8192, 12_288] {
                file.update(&directory, file.content.closed(end)).unwrap();
                let copy = directory.fork();
                let bad = copy.open(NAME, true).unwrap();
                copy.write_at(&bad, &[1], (slot * SLOT_LEN + 999) as u64).unwrap();
                assert_eq!(read(&copy).unwrap().as_ref(), Some(&file.content));
            }
        }
    }

    #[test]
    fn manifests_that_no_crash_can_leave_are_refused() {
        let put = |first: &[u8], second: &[u8]| {
            let directory = MemoryDirectory::new();
            directory.put(NAME, [first, second].concat());
            read(&directory)
        };
        let good = content(7).encode();
        assert!(matches!(put(&[0; SLOT_LEN], &[0; SLOT_LEN]), Err(OpenError::BadManifest { .. })));
        assert!(matches!(put(&[], &[]), Err(OpenError::BadManifest { .. })));
        assert!(matches!(put(&good[..4000], &[]), Err(OpenError::BadManifest { .. })));
        assert!(matches!(put(&good, &content(8).encode()), Err(OpenError::Contradiction { .. })));
        assert!(matches!(put(&good, &content(7).closed(4096).encode()), Err(OpenError::Contradiction { .. })));
        assert_eq!(put(&good, &[]).unwrap(), Some(content(7)));
    }

    #[test]
    fn an_opening_drops_the_epochs_that_are_cut_off_as_a_whole() {
        let mut old = content(7);
        old.epochs = (0..64).map(|n| Epoch { epoch: n + 1, salt: 1, start: u64::from(n) * 4096 }).collect();
        let next = old.reopened(4096 * 64, 9).unwrap();
        assert_eq!((next.epochs.len(), next.epochs[0].epoch, next.newest_epoch().epoch), (64, 2, 65));
        let next = old.reopened(4096 * 10, 9).unwrap();
        assert_eq!((next.epochs.len(), next.newest_epoch()), (11, Epoch { epoch: 65, salt: 9, start: 40_960 }));
        old.epochs.last_mut().unwrap().epoch = u32::MAX;
        assert!(matches!(old.reopened(4096 * 64, 9), Err(OpenError::NoEpochLeft)));
    }
}
