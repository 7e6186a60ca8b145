//! Damage to what a program had synced: one kind, at one place of an image.

use std::path::PathBuf;

use ring_testing::Random;

use crate::crash::{Image, Left, Moment, SECTOR};

const BLOCK: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Bit,
    ZeroSector,
    ZeroBlock,
    StaleSector,
    SwappedBlocks,
    LostWrite,
    CutFile,
    MissingFile,
}

impl Damage {
    pub const ALL: [Self; 8] = [
        Self::Bit,
        Self::ZeroSector,
        Self::ZeroBlock,
        Self::StaleSector,
        Self::SwappedBlocks,
        Self::LostWrite,
        Self::CutFile,
        Self::MissingFile,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bit => "one bit",
            Self::ZeroSector => "zeroed sector",
            Self::ZeroBlock => "zeroed block",
            Self::StaleSector => "stale sector",
            Self::SwappedBlocks => "swapped blocks",
            Self::LostWrite => "last write of a file lost",
            Self::CutFile => "cut file",
            Self::MissingFile => "missing file",
        }
    }

    /// Damages the image, and says where. `None`: this image has no place for it.
    pub fn inflict(self, image: &mut Image, moment: &Moment, random: &mut Random) -> Option<String> {
        let candidates = Candidates::of(image, moment);
        let (path, sector) = candidates.pick(random)?;
        let mut place = format!("{} sector {sector}", path.display());
        let start = sector * SECTOR;
        let block = start / BLOCK * BLOCK;
        let left = image.files.get_mut(&path).expect("a candidate");
        match self {
            Self::Bit => {
                let len = (left.bytes.len() - start).min(SECTOR);
                let (byte, bit) = (start + random.below(len), random.below(8));
                left.bytes[byte] ^= 1 << bit;
                place += &format!(" byte {byte} bit {bit}");
            }
            Self::ZeroSector => fill(left, start, SECTOR),
            Self::ZeroBlock => fill(left, block, BLOCK),
            Self::StaleSector => {
                let before = moment.previous(left.node, sector)?;
                overwrite(left, start, before).then_some(())?;
            }
            Self::SwappedBlocks => {
                let (other_path, other) = candidates.pick(random)?;
                let other = other * SECTOR / BLOCK * BLOCK;
                let one = left.bytes.get(block..block + BLOCK)?.to_vec();
                let two = image.files[&other_path].bytes.get(other..other + BLOCK)?.to_vec();
                (one != two).then_some(())?;
                overwrite(image.files.get_mut(&path)?, block, &two);
                overwrite(image.files.get_mut(&other_path)?, other, &one);
                place = format!("{} at {block} and {} at {other}", path.display(), other_path.display());
            }
            Self::LostWrite => {
                // With what was written to the same sectors since, which was not synced.
                let end = left.bytes.len().div_ceil(SECTOR);
                let mut writes = moment.writes(left.node).map(|sectors| *sectors.start()..end.min(*sectors.end() + 1));
                let lost = writes.find(|sectors| sectors.clone().any(|at| moment.previous(left.node, at).is_some()))?;
                place = format!("{} sectors {lost:?}", path.display());
                let node = left.node;
                let mut changed = false;
                for sector in lost {
                    if let Some(before) = moment.previous(node, sector) {
                        changed |= overwrite(left, sector * SECTOR, before);
                    }
                }
                changed.then_some(())?;
            }
            Self::CutFile => {
                let last = candidates.0.iter().filter(|(other, _)| *other == path).map(|(_, sector)| *sector).max()?;
                let end = left.bytes.len().min((last + 1) * SECTOR);
                let len = random.below(end);
                left.bytes.truncate(len);
                place = format!("{} to {len} bytes", path.display());
            }
            Self::MissingFile => {
                image.files.remove(&path);
                place = path.display().to_string();
            }
        }
        Some(place)
    }
}

/// Where damage is damage: sectors that hold something, and that were synced.
struct Candidates(Vec<(PathBuf, usize)>);

impl Candidates {
    fn of(image: &Image, moment: &Moment) -> Self {
        let files = image.files.iter();
        Self(files.flat_map(|(path, left)| moment.relied_on(left).into_iter().map(|at| (path.clone(), at))).collect())
    }

    fn pick(&self, random: &mut Random) -> Option<(PathBuf, usize)> {
        (!self.0.is_empty()).then(|| self.0[random.below(self.0.len())].clone())
    }
}

fn fill(left: &mut Left, start: usize, len: usize) {
    let end = left.bytes.len().min(start + len);
    left.bytes[start..end].fill(0);
}

/// Whether that changed anything.
fn overwrite(left: &mut Left, start: usize, bytes: &[u8]) -> bool {
    let end = left.bytes.len().min(start + bytes.len());
    let bytes = &bytes[..end - start];
    let changed = left.bytes[start..end] != *bytes;
    left.bytes[start..end].copy_from_slice(bytes);
    changed
}
