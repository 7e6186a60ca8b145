//! What the batch headers in a segment say, accepted or not: promises, and signs that this is not the whole story.

use super::batch::table_is_right;
use super::chain::Source;
use super::reader::SegmentReader;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{BLOCK, BatchHeader, BlockSums, HEADER_LEN, HeaderRefusal, Layout, MAX_PAYLOAD, is_zero, u64_at};

/// How far behind its start a batch without a header is looked for: 1 MiB.
const PART: usize = 256;

/// What the headers in one segment say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderScan {
    /// The highest promise, and where it stands.
    pub(super) top: Option<(u64, u64)>,
    /// A batch of an epoch that `MANIFEST` does not know: address and epoch.
    pub(super) newer: Option<(u64, u32)>,
    /// A batch of a known epoch with another salt: address and epoch.
    pub(super) mixed: Option<(u64, u32)>,
    /// A signed header that cannot be read.
    pub(super) unreadable: Option<(u64, HeaderRefusal)>,
    /// The last header of the newest epoch.
    pub(super) newest: Option<u64>,
}

impl HeaderScan {
    /// Reads the start of each block of a segment, from this address in it on.
    pub(super) fn of<D: Directory>(source: &Source<'_, D>, from: u64) -> Result<Self, OpenError> {
        Self::until(source, from, u64::MAX).map(|(scan, _)| scan)
    }

    /// The same, but no further than to a promise of `enough`. Also whether all was read.
    pub(super) fn until<D: Directory>(
        source: &Source<'_, D>,
        from: u64,
        enough: u64,
    ) -> Result<(Self, bool), OpenError> {
        let mut scan = Self::default();
        let Some(mut reader) = source.reader(source.manifest.segment_of(from))? else { return Ok((scan, true)) };
        for address in (from..reader.filled()).step_by(BLOCK) {
            let bytes = reader.read(address, BLOCK)?;
            if let Some(bytes) = bytes.first_chunk::<HEADER_LEN>().filter(|bytes| BatchHeader::is_likely(*bytes)) {
                scan.add(source, address, bytes);
                if scan.top.is_some_and(|(promise, _)| promise >= enough) {
                    return Ok((scan, false));
                }
            }
        }
        Ok((scan, true))
    }

    fn add<D>(&mut self, source: &Source<'_, D>, address: u64, bytes: &[u8; HEADER_LEN]) {
        let manifest = &source.manifest;
        let newest = manifest.newest_epoch();
        let header = match BatchHeader::decode_at(bytes, &manifest.key, manifest.log_id, address) {
            Ok(header) => header,
            Err(refusal @ (HeaderRefusal::Version(_) | HeaderRefusal::Flags(_) | HeaderRefusal::Rule(_))) => {
                self.unreadable = self.unreadable.or(Some((address, refusal)));
                return;
            }
            Err(_) => return,
        };
        if header.epoch > newest.epoch {
            self.newer = self.newer.or(Some((address, header.epoch)));
        }
        if manifest.epochs.iter().any(|epoch| epoch.epoch == header.epoch && epoch.salt != header.salt) {
            self.mixed = self.mixed.or(Some((address, header.epoch)));
        }
        if (header.epoch, header.salt) == (newest.epoch, newest.salt) {
            self.newest = Some(address);
        }
        self.top = self.top.max(Some((manifest.promise_of(&header), address)));
    }

    /// Refuses a log of which something newer, or another copy, is here.
    pub(super) fn check<D: Directory>(&self, source: &Source<'_, D>) -> Result<(), OpenError> {
        if let Some((address, epoch)) = self.newer {
            let newest = source.manifest.newest_epoch().epoch;
            return Err(OpenError::OldManifest { file: source.name(address), address, epoch, newest });
        }
        if let Some((address, epoch)) = self.mixed {
            return Err(OpenError::Mixed { file: source.name(address), address, epoch });
        }
        if let Some((address, refusal)) = self.unreadable {
            return Err(OpenError::Header { file: source.name(address), address, refusal });
        }
        Ok(())
    }
}

/// Whether the checksums of a batch of the newest epoch that begins at `base` are there, although its header is not.
///
/// Each block may be the last of such a batch. The checksums end with the last word of the block that is not zero,
/// which is their own checksum; how many they are follows from the length, but for one or two.
pub(super) fn has_table<D: Directory>(
    source: &Source<'_, D>,
    reader: &mut SegmentReader<'_, D>,
    base: u64,
) -> Result<bool, OpenError> {
    let newest = source.manifest.newest_epoch();
    let sums = BlockSums::new(source.manifest.log_id, newest.salt, newest.epoch);
    let filled = reader.filled().min(base + (PART * BLOCK) as u64);
    for last in (base..filled).step_by(BLOCK) {
        let block = reader.read(last, BLOCK)?;
        let Some(word) = (0..BLOCK / 8).rev().find(|word| !is_zero(&block[word * 8..][..8])) else { continue };
        debug_assert_ne!(u64_at(block, word * 8), 0);
        let own = (last - base) as usize + word * 8;
        let len = (last - base) as usize + BLOCK;
        let most = len / BLOCK;
        for blocks in most - (most / 512 + 1).min(most - 1)..=most {
            let Some(table) = own.checked_sub(8 * blocks).filter(|table| *table >= HEADER_LEN + 8) else { continue };
            let payload_len = u32::try_from(table - HEADER_LEN).unwrap_or(u32::MAX);
            let fits = payload_len <= MAX_PAYLOAD && Layout::of(payload_len) == Layout { blocks, table, len };
            if fits && table_is_right(reader, &sums, base, base + table as u64, blocks)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
