//! What a power cut may leave of a recording.
//!
//! | what | after the cut |
//! |---|---|
//! | a sector of 512 bytes that was synced | as it was then, or as any later write before the cut left it |
//! | a sector that was not | the same: each sector by itself |
//! | the size of a file | any that it had since its last sync |
//! | names | in order, as a journal keeps them: all up to the last sync of any file or folder, and perhaps some more |
//!
//! The operation at which the power is cut is one of those that may have left something.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring_testing::Random;

use crate::disk::{Event, Node, ROOT};

pub const SECTOR: usize = 512;

/// A change of a part of a sector.
#[derive(Clone, Debug)]
struct Piece {
    event: usize,
    at: usize,
    bytes: Vec<u8>,
}

/// A file: what is certain, and what may have happened since.
#[derive(Clone, Debug, Default)]
struct File {
    /// Sectors as they are on stable storage, as far as the file ever reached.
    certain: Vec<u8>,
    pieces: BTreeMap<usize, Vec<Piece>>,
    /// The size on stable storage, and all since.
    sizes: Vec<usize>,
    /// Sectors as they were before the last sync of a write to them.
    previous: BTreeMap<usize, Vec<u8>>,
    /// Sectors of writes that are on stable storage, in order.
    writes: Vec<(usize, usize)>,
    unsynced_writes: Vec<(usize, usize)>,
}

impl File {
    fn size(&self) -> usize {
        self.sizes.last().copied().unwrap_or_default()
    }

    fn write(&mut self, event: usize, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.size() < end {
            self.sizes.push(end);
        }
        let mut place = offset;
        while place < end {
            let (sector, at) = (place / SECTOR, place % SECTOR);
            let len = (SECTOR - at).min(end - place);
            let bytes = bytes[place - offset..][..len].to_vec();
            self.pieces.entry(sector).or_default().push(Piece { event, at, bytes });
            place += len;
        }
        if !bytes.is_empty() {
            self.unsynced_writes.push((offset / SECTOR, (end - 1) / SECTOR));
        }
    }

    /// What is cut off never comes back: it reads as zeros if the file grows again, or if the cut was not kept.
    fn resize(&mut self, len: usize) {
        if len < self.size() {
            let kept = len.min(self.certain.len());
            self.certain[kept..].fill(0);
            self.pieces.retain(|sector, _| sector * SECTOR < len);
            if let Some(pieces) = self.pieces.get_mut(&(len / SECTOR)) {
                pieces.retain(|piece| piece.at < len % SECTOR);
                pieces.iter_mut().for_each(|piece| piece.bytes.truncate(len % SECTOR - piece.at));
            }
        }
        self.sizes.push(len);
    }

    fn certain_sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        let start = (sector * SECTOR).min(self.certain.len());
        let rest = &self.certain[start..];
        let len = rest.len().min(SECTOR);
        bytes[..len].copy_from_slice(&rest[..len]);
        bytes
    }

    /// Makes what happened to some sectors certain.
    fn settle(&mut self, sectors: impl IntoIterator<Item = usize>) {
        for sector in sectors {
            let Some(pieces) = self.pieces.remove(&sector) else { continue };
            let before = self.certain_sector(sector);
            let end = (sector + 1) * SECTOR;
            if self.certain.len() < end {
                self.certain.resize(end, 0);
            }
            for piece in pieces {
                self.certain[sector * SECTOR + piece.at..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
            }
            // Also if it is the same: an older one would take earlier writes along.
            self.previous.insert(sector, before.to_vec());
        }
    }

    fn sync(&mut self) {
        let all: Vec<_> = self.pieces.keys().copied().collect();
        self.settle(all);
        self.sizes = vec![self.size()];
        self.writes.append(&mut self.unsynced_writes);
    }

    /// The newest write is on stable storage, and a size that it needs.
    fn sync_newest(&mut self) {
        if let Some(write) = self.unsynced_writes.pop() {
            self.settle(write.0..=write.1);
            self.sizes = vec![self.size()];
            self.writes.push(write);
        }
    }

    /// The file after the cut. `keeps` decides how many changes of a sector arrived, of those that there are.
    fn image(&self, random: &mut Random, keeps: Keeps) -> Vec<u8> {
        let size = match keeps {
            Keeps::All => self.size(),
            Keeps::None => self.sizes.first().copied().unwrap_or_default(),
            _ if self.sizes.is_empty() => 0,
            _ => self.sizes[random.below(self.sizes.len())],
        };
        let mut image = self.certain.clone();
        image.resize(size, 0);
        for (sector, pieces) in &self.pieces {
            let count = match keeps {
                Keeps::All => pieces.len(),
                Keeps::None => 0,
                Keeps::Before(event) => pieces.iter().filter(|piece| piece.event < event).count(),
                Keeps::Most if random.chance(90) => pieces.len(),
                Keeps::Most | Keeps::Some => random.below(pieces.len() + 1),
            };
            for piece in &pieces[..count] {
                let start = (sector * SECTOR + piece.at).min(size);
                let end = (start + piece.bytes.len()).min(size);
                image[start..end].copy_from_slice(&piece.bytes[..end - start]);
            }
        }
        image
    }
}

/// Which of the changes that may have arrived did.
#[derive(Clone, Copy, Debug)]
pub enum Keeps {
    /// All: the program was killed, the machine was not.
    All,
    None,
    /// Those before an event.
    Before(usize),
    /// Nine sectors of ten.
    Most,
    /// Each sector by itself.
    Some,
}

/// The state of the disk before an event, and the event.
pub struct Moment {
    files: BTreeMap<Node, File>,
    folders: Vec<Node>,
    names: BTreeMap<(Node, OsString), Node>,
    unsynced_names: Vec<Event>,
    /// See [`Event`].
    pub submitted: u64,
    pub acknowledged: u64,
    /// What was acknowledged before the last acknowledgement.
    pub acknowledged_before: u64,
    event: usize,
}

impl Moment {
    /// The power is cut while the event at `position` happens.
    pub fn at(events: &[Event], position: usize) -> Self {
        let mut moment = Self {
            files: BTreeMap::new(),
            folders: vec![ROOT],
            names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            submitted: 0,
            acknowledged: 0,
            acknowledged_before: 0,
            event: position,
        };
        events[..position].iter().enumerate().for_each(|(number, event)| moment.apply(number, event, true));
        // What has only begun promises nothing.
        moment.apply(position, &events[position], false);
        moment
    }

    fn apply(&mut self, number: usize, event: &Event, is_over: bool) {
        match event {
            Event::Created { node, is_folder, .. } => {
                if *is_folder {
                    self.folders.push(*node);
                } else {
                    self.files.insert(*node, File { sizes: vec![0], ..File::default() });
                }
                self.unsynced_names.push(event.clone());
            }
            Event::Removed { .. } | Event::Renamed { .. } => self.unsynced_names.push(event.clone()),
            Event::Written { node, offset, bytes, synced } => {
                let file = self.files.entry(*node).or_default();
                file.write(number, *offset as usize, bytes);
                if *synced && is_over {
                    file.sync_newest();
                }
            }
            Event::Resized { node, len } => self.files.entry(*node).or_default().resize(*len as usize),
            Event::Synced { node } if is_over => {
                if let Some(file) = self.files.get_mut(node) {
                    file.sync();
                }
                self.unsynced_names.drain(..).for_each(|event| rename(&mut self.names, &event));
            }
            Event::Synced { .. } => {}
            Event::Submitted(end) => self.submitted = *end,
            Event::Acknowledged(end) if is_over => {
                (self.acknowledged_before, self.acknowledged) = (self.acknowledged, *end);
            }
            Event::Acknowledged(_) => {}
        }
    }

    /// One of the legal images.
    pub fn image(&self, random: &mut Random) -> (Image, Keeps) {
        let keeps = match random.below(8) {
            0 => Keeps::All,
            1 => Keeps::None,
            2 => Keeps::Before(self.event - random.below(self.event.min(64) + 1)),
            3 | 4 => Keeps::Most,
            _ => Keeps::Some,
        };
        let mut names = self.names.clone();
        let kept = match keeps {
            Keeps::All => self.unsynced_names.len(),
            Keeps::None => 0,
            _ => random.below(self.unsynced_names.len() + 1),
        };
        self.unsynced_names[..kept].iter().for_each(|event| rename(&mut names, event));
        let mut image = Image::default();
        self.collect(ROOT, Path::new(""), &names, random, keeps, &mut image);
        (image, keeps)
    }

    fn collect(
        &self,
        folder: Node,
        path: &Path,
        names: &BTreeMap<(Node, OsString), Node>,
        random: &mut Random,
        keeps: Keeps,
        image: &mut Image,
    ) {
        for ((_, name), node) in names.range((folder, OsString::new())..(folder + 1, OsString::new())) {
            let path = path.join(name);
            if self.folders.contains(node) {
                image.folders.push(path.clone());
                self.collect(*node, &path, names, random, keeps, image);
            } else if let Some(file) = self.files.get(node) {
                image.files.insert(path, Left { node: *node, bytes: file.image(random, keeps) });
            }
        }
    }

    /// Sectors of a file in an image that a program may rely on, and that hold something.
    pub fn relied_on(&self, left: &Left) -> Vec<usize> {
        let file = &self.files[&left.node];
        let is_certain = |sector: &usize| !file.pieces.contains_key(sector);
        let certain = left.bytes.len().min(file.certain.len()).min(file.sizes.first().copied().unwrap_or_default());
        let holds = |sector: &usize| {
            left.bytes[sector * SECTOR..certain.min((sector + 1) * SECTOR)].iter().any(|&byte| byte != 0)
        };
        (0..certain.div_ceil(SECTOR)).filter(is_certain).filter(holds).collect()
    }

    /// A sector of a file as it was before the last sync of a write to it.
    pub fn previous(&self, node: Node, sector: usize) -> Option<&[u8]> {
        Some(self.files[&node].previous.get(&sector)?)
    }

    /// Sectors of the writes to a file that are on stable storage, the newest first.
    pub fn writes(&self, node: Node) -> impl Iterator<Item = core::ops::RangeInclusive<usize>> {
        self.files[&node].writes.iter().rev().map(|(first, last)| *first..=*last)
    }
}

fn rename(names: &mut BTreeMap<(Node, OsString), Node>, event: &Event) {
    match event {
        Event::Created { parent, name, node, .. } => _ = names.insert((*parent, name.clone()), *node),
        Event::Removed { parent, name } => _ = names.remove(&(*parent, name.clone())),
        Event::Renamed { parent, name, new_parent, new_name } => {
            if let Some(node) = names.remove(&(*parent, name.clone())) {
                names.insert((*new_parent, new_name.clone()), node);
            }
        }
        _ => unreachable!("it changes no name"),
    }
}

/// A file in an image.
#[derive(Clone, Debug)]
pub struct Left {
    pub node: Node,
    pub bytes: Vec<u8>,
}

/// What is left of a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Parents before their children.
    pub folders: Vec<PathBuf>,
    pub files: BTreeMap<PathBuf, Left>,
}

impl Image {
    pub fn write(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        self.folders.iter().try_for_each(|folder| fs::create_dir(root.join(folder)))?;
        self.files.iter().try_for_each(|(path, left)| fs::write(root.join(path), &left.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Node = 2;

    fn created(name: &str) -> Event {
        Event::Created { parent: ROOT, name: name.into(), node: NODE, is_folder: false }
    }

    fn written(offset: u64, byte: u8, synced: bool) -> Event {
        Event::Written { node: NODE, offset, bytes: vec![byte; SECTOR], synced }
    }

    /// The first byte of each sector of the file in each image that comes, without a name: none.
    fn images(events: &[Event], position: usize) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let moment = Moment::at(events, position);
        let image = |seed| moment.image(&mut Random::new(seed)).0;
        let first_bytes = |left: &Left| left.bytes.iter().step_by(SECTOR).copied().collect::<Vec<_>>();
        (0..2000).map(|seed| image(seed).files.values().next().map(first_bytes)).collect()
    }

    fn expected(all: &[Option<&[u8]>]) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        all.iter().map(|one| one.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn what_was_synced_stays_and_each_later_sector_is_old_or_new() {
        let events = [
            created("a"),
            written(0, 1, false),
            written(512, 2, false),
            Event::Synced { node: NODE },
            written(0, 3, false),
            written(512, 4, false),
        ];
        assert_eq!(images(&events, 5), expected(&[Some(&[1, 2]), Some(&[3, 2]), Some(&[1, 4]), Some(&[3, 4])]));
        assert_eq!(images(&events, 4), expected(&[Some(&[1, 2]), Some(&[3, 2])]));
    }

    #[test]
    fn a_sync_that_has_only_begun_keeps_nothing() {
        let events = [created("a"), written(0, 1, false), Event::Synced { node: NODE }];
        assert_eq!(images(&events, 2), expected(&[None, Some(&[]), Some(&[0]), Some(&[1])]));
    }

    #[test]
    fn a_synced_write_stays_when_it_is_over_and_syncs_no_other() {
        let sync = Event::Synced { node: ROOT };
        let events = [created("a"), sync.clone(), written(0, 1, false), written(512, 2, true), sync];
        assert_eq!(images(&events, 4), expected(&[Some(&[0, 2]), Some(&[1, 2])]));
        assert!(images(&events, 3).contains(&Some(vec![])));
    }

    #[test]
    fn a_name_comes_back_only_in_order() {
        let renamed = Event::Renamed { parent: ROOT, name: "a".into(), new_parent: ROOT, new_name: "b".into() };
        let events = [created("a"), Event::Synced { node: ROOT }, renamed, Event::Submitted(1)];
        let moment = Moment::at(&events, 3);
        let names: std::collections::BTreeSet<_> =
            (0..100).map(|seed| moment.image(&mut Random::new(seed)).0.files.into_keys().collect::<Vec<_>>()).collect();
        assert_eq!(names, [vec![PathBuf::from("a")], vec![PathBuf::from("b")]].into());
    }

    #[test]
    fn a_sector_is_stale_by_one_sync_also_if_that_changed_nothing() {
        let sync = || Event::Synced { node: NODE };
        let events = [created("a"), written(0, 1, false), sync(), written(0, 1, false), sync(), Event::Submitted(1)];
        let stale = |position| Moment::at(&events, position).previous(NODE, 0).map(|bytes| bytes[0]);
        assert_eq!([stale(2), stale(4), stale(5)], [None, Some(0), Some(1)]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let resized = |len| Event::Resized { node: NODE, len };
        let events =
            [created("a"), written(0, 1, false), Event::Synced { node: NODE }, resized(0), resized(512), resized(512)];
        assert_eq!(images(&events, 5), expected(&[Some(&[]), Some(&[0])]));
    }
}
