//! A second opinion: the verdict by the rules alone, one after the other, on the bytes of the files.
//!
//! It shares nothing with the crate but the two checksum functions, knows no windows, no threads and no limits, and
//! is slow.

use core::hash::Hasher;
use std::collections::BTreeMap;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use siphasher::sip::SipHasher24;

pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Fresh,
    Refused,
    Clean(u64),
    Unclosed(u64),
    Torn(u64),
    Damaged { at: u64, promised: u64 },
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn crc(pieces: &[&[u8]]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

/// A whole block; what a file lacks is zero.
fn block(file: &[u8], at: usize) -> [u8; 4096] {
    core::array::from_fn(|n| file.get(at + n).copied().unwrap_or(0))
}

#[derive(Clone, Debug, PartialEq)]
struct Manifest {
    sequence: u64,
    log: u64,
    key: [u8; 16],
    size: u64,
    trim: u64,
    first: (u64, u64),
    first_epoch: Option<(u64, u64)>,
    known: u64,
    clean: Option<u64>,
    /// Epoch, salt, start.
    epochs: Vec<(u64, u64, u64)>,
    /// Start, end, number, previous, epoch, salt.
    gaps: Vec<[u64; 6]>,
}

fn slot(bytes: &[u8; 4096]) -> Option<Manifest> {
    if bytes[..5] != *b"RLm1\x01" || number(bytes, 4088, 8) != crc(&[&bytes[..4088]]) {
        return None;
    }
    let n = |at| number(bytes, at, 8);
    Some(Manifest {
        sequence: n(8),
        log: n(16),
        key: bytes[24..40].try_into().unwrap(),
        size: n(40),
        trim: n(56),
        first: (n(64), n(72)),
        first_epoch: Some((number(bytes, 80, 4), n(88))).filter(|(epoch, _)| *epoch != 0),
        known: n(96),
        clean: Some(n(104)).filter(|clean| *clean != u64::MAX),
        epochs: (0..number(bytes, 48, 4) as usize)
            .map(|e| 128 + 24 * e)
            .map(|at| (number(bytes, at, 4), n(at + 8), n(at + 16)))
            .collect(),
        gaps: (0..number(bytes, 52, 4) as usize)
            .map(|g| 1664 + 48 * g)
            .map(|at| [n(at), n(at + 8), n(at + 16), n(at + 24), number(bytes, at + 32, 4), n(at + 40)])
            .collect(),
    })
}

#[derive(Clone, Copy)]
struct Head {
    last: bool,
    opens: bool,
    number: u64,
    epoch: u64,
    len: usize,
    durable: u64,
    previous: u64,
    salt: u64,
}

struct Log<'a> {
    files: &'a Files,
    m: Manifest,
}

impl Log<'_> {
    fn file(&self, address: u64) -> Option<&[u8]> {
        let base = address / self.m.size * self.m.size;
        self.files.get(&format!("{base:020}.seg")).map(|file| &file[..])
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let file = self.file(address).unwrap_or_default();
        let at = 4096 + (address % self.m.size) as usize;
        (at..at + len).map(|at| file.get(at).copied().unwrap_or(0)).collect()
    }

    /// A header that stands where it says and is this log's.
    fn head(&self, address: u64) -> Option<Head> {
        self.file(address)?;
        let bytes = self.bytes(address, 72);
        let mut sip = SipHasher24::new_with_key(&self.m.key);
        sip.write(&bytes[..64]);
        let is_mine = bytes[..5] == *b"RLb1\x01"
            && sip.finish() == number(&bytes, 64, 8)
            && number(&bytes, 8, 8) == self.m.log
            && number(&bytes, 16, 8) == address
            && number(&bytes, 40, 8) <= address;
        is_mine.then(|| Head {
            last: bytes[5] & 1 != 0,
            opens: bytes[5] & 2 != 0,
            number: number(&bytes, 24, 8),
            epoch: number(&bytes, 32, 4),
            len: number(&bytes, 36, 4) as usize,
            durable: number(&bytes, 40, 8),
            previous: number(&bytes, 48, 8),
            salt: number(&bytes, 56, 8),
        })
    }

    fn epoch_is_right(&self, address: u64, head: &Head, before: Option<(u64, u64)>) -> bool {
        let own = (head.epoch, head.salt);
        if let Some((epoch, salt, _)) = self.m.epochs.iter().rfind(|epoch| epoch.2 <= address) {
            return own == (*epoch, *salt);
        }
        head.epoch < self.m.epochs[0].0 && before.is_none_or(|before| before == own || (before.0 < own.0 && head.opens))
    }

    fn seed(&self, epoch: u64, salt: u64, purpose: u32, address: u64) -> Vec<u8> {
        let epoch = (epoch as u32).to_le_bytes();
        [&self.m.log.to_le_bytes()[..], &salt.to_le_bytes(), &epoch, &purpose.to_le_bytes(), &address.to_le_bytes()]
            .concat()
    }

    /// Where the batch with this header ends, if all of it is right.
    fn whole(&self, address: u64, head: &Head) -> Option<u64> {
        let covered = 72 + head.len;
        let blocks = covered.div_ceil(4096);
        let len = (covered + 8 * blocks + 8).div_ceil(4096) * 4096;
        let end = address + len as u64;
        if end > (address / self.m.size + 1) * self.m.size {
            return None;
        }
        let bytes = self.bytes(address, len);
        let (data, rest) = bytes.split_at(covered);
        let (table, rest) = rest.split_at(8 * blocks);
        let own = crc(&[&self.seed(head.epoch, head.salt, 1, address), table]);
        let blocks_are_right = data.chunks(4096).enumerate().all(|(n, block)| {
            let seed = self.seed(head.epoch, head.salt, 0, address + 4096 * n as u64);
            crc(&[&seed, block]) == number(table, 8 * n, 8)
        });
        let is_right = blocks_are_right && own == number(rest, 0, 8) && rest[8..].iter().all(|&byte| byte == 0);
        is_right.then_some(end)
    }

    fn promise(&self, address: u64, head: &Head) -> u64 {
        for &(epoch, salt, start) in &self.m.epochs {
            if epoch == head.epoch && (salt != head.salt || address < start) {
                return 0;
            }
        }
        let replaced = self.m.epochs.iter().find(|epoch| epoch.0 > head.epoch).map_or(u64::MAX, |epoch| epoch.2);
        head.durable.min(replaced)
    }

    /// A table of checksums of a batch at `end` whose header is not there: every length is tried.
    fn has_part(&self, end: u64) -> bool {
        let (epoch, salt, _) = *self.m.epochs.last().unwrap();
        let room = ((end / self.m.size + 1) * self.m.size - end) as usize;
        let bytes = self.bytes(end, room);
        (8..room).step_by(8).any(|len| {
            let covered = 72 + len;
            let blocks = covered.div_ceil(4096);
            let own = covered + 8 * blocks;
            let all = (own + 8).div_ceil(4096) * 4096;
            all <= room
                && number(&bytes, own, 8) != 0
                && bytes[own + 8..all].iter().all(|&byte| byte == 0)
                && crc(&[&self.seed(epoch, salt, 1, end), &bytes[covered..own]]) == number(&bytes, own, 8)
        })
    }
}

/// Whether the file of a segment is shorter than its header says, or than a header.
fn is_cut(file: &[u8], segment: u64, size: u64) -> bool {
    let head = block(file, 0);
    let says = head[..6] == *b"RLs1\x01\x01"
        && (number(&head, 16, 8), number(&head, 24, 8)) == (segment, size)
        && number(&head, 4088, 8) == crc(&[&head[..4088]]);
    file.len() < 4096 || says && (file.len() as u64) < 4096 + size
}

pub(crate) fn judge(files: &Files) -> Answer {
    let segments: Vec<u64> = files
        .keys()
        .filter_map(|name| name.strip_suffix(".seg"))
        .filter(|digits| digits.len() == 20)
        .filter_map(|digits| digits.parse().ok())
        .collect();
    let Some(manifest) = files.get("MANIFEST") else {
        let holds_something =
            |base: &u64| *base != 0 || files[&format!("{base:020}.seg")].iter().skip(4096).any(|&byte| byte != 0);
        return if segments.iter().any(holds_something) { Answer::Refused } else { Answer::Fresh };
    };
    let slots = [slot(&block(manifest, 0)), slot(&block(manifest, 4096))];
    if let [Some(a), Some(b)] = &slots
        && (a.log != b.log || (a.sequence == b.sequence && a != b))
    {
        return Answer::Refused;
    }
    let Some(m) = slots.into_iter().flatten().max_by_key(|slot| slot.sequence) else { return Answer::Refused };
    let foreign = |base: &u64| {
        let head = block(&files[&format!("{base:020}.seg")], 0);
        head[..5] == *b"RLs1\x01" && number(&head, 4088, 8) == crc(&[&head[..4088]]) && number(&head, 8, 8) != m.log
    };
    if segments.iter().any(foreign) {
        return Answer::Refused;
    }
    let log = Log { files, m };
    let m = &log.m;

    let mut a = m.trim / m.size * m.size;
    let (mut number, mut previous) = m.first;
    let (mut before, mut exactly) = (None, m.first_epoch);
    loop {
        if let Some(gap) = m.gaps.iter().find(|gap| gap[0] <= a && a < gap[1]) {
            a = gap[1];
            (number, previous, before, exactly) = (gap[2], gap[3], None, Some((gap[4], gap[5])));
            continue;
        }
        let Some(head) = log.head(a) else { break };
        let own = (head.epoch, head.salt);
        if !log.epoch_is_right(a, &head, before)
            || exactly.take().is_some_and(|exactly| exactly != own)
            || (head.number, head.previous) != (number, previous)
        {
            break;
        }
        let Some(end) = log.whole(a, &head) else { break };
        (number, previous, before) = (number + 1, a, Some(own));
        a = if head.last { (a / m.size + 1) * m.size } else { end };
    }

    let newest = *m.epochs.last().unwrap();
    let mut promised = m.known.max(m.clean.unwrap_or(0)).max(newest.2);
    let mut torn = false;
    for &base in segments.iter().filter(|&&base| base >= a / m.size * m.size && base.is_multiple_of(m.size)) {
        for address in (base..base + m.size).step_by(4096) {
            let Some(head) = log.head(address) else { continue };
            if head.epoch > newest.0 || m.epochs.iter().any(|epoch| epoch.0 == head.epoch && epoch.1 != head.salt) {
                return Answer::Refused;
            }
            promised = promised.max(log.promise(address, &head));
            torn |= address >= a && head.epoch == newest.0;
        }
    }
    let is_gone = log.file(a).is_none_or(|file| m.clean != Some(a) && is_cut(file, a / m.size, m.size));
    if promised > a || is_gone {
        return Answer::Damaged { at: a, promised };
    }
    if m.clean == Some(a) {
        return Answer::Clean(a);
    }
    if torn || log.has_part(a) { Answer::Torn(a) } else { Answer::Unclosed(a) }
}
