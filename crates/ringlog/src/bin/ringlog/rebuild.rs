//! Rebuilding a log whose `MANIFEST` is lost, as far as that can be done.
//!
//! `MANIFEST` alone knows the key under which the headers of batches are signed, the trim point, the accepted gaps, and
//! how far the log was known to be durable. Without it, a batch is recognised by its structure: its own address, the
//! log's id, the number and the address that continue the batch before, an epoch that may follow, and the checksums of
//! all of its bytes. If a slot still holds a key under which the signatures are right, these are checked, too.
//!
//! The log that results has the same id, the same addresses, and the same records. Its headers are signed with a new
//! key, unless the old one was found, so that its segments are written anew, beside the old ones, which are kept. At no
//! step does the directory look like a new or an empty log: until the new `MANIFEST` has its name, opening refuses it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringlog::directory::{Directory, DiskDirectory};
use ringlog::format::{
    BLOCK, BatchHeader, BlockSums, Epoch, FirstBatch, HEADER_LEN, HeaderKey, MAX_EPOCHS, Manifest, SEGMENT_HEADER_LEN,
    SLOT_LEN, SUM_LEN, SegmentHeader,
};
use ringlog::manifest::{ManifestFile, NAME, TEMPORARY};
use ringlog::recovery::{Recover, check_batch};
use ringlog::segment::{aside_name, file_name, parse_name};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::output::Failure;

/// What can be rebuilt.
#[derive(Debug)]
pub(crate) struct Plan {
    files: Files,
    chain: Chain,
    /// The run of segments before, behind which some are missing.
    before: Option<Chain>,
    /// Intact batches behind the end: how many, and how far they promise that the log was durable.
    behind: Option<(u64, u64)>,
}

/// The segments, and what they agree on.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    header: SegmentHeader,
    /// By number.
    segments: BTreeMap<u64, Segment>,
    /// The key that a bad slot holds, and under which the log is signed.
    key: Option<HeaderKey>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    base: u64,
    /// Behind the last address that the file has bytes for.
    filled: u64,
}

/// Batches of which each continues the one before.
#[derive(Debug)]
struct Chain {
    first: BatchHeader,
    last: BatchHeader,
    end: u64,
    batches: u64,
    epochs: Vec<Epoch>,
}

impl Segment {
    /// Reads; what the file lacks is zeros.
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        // Opened each time: there may be more segments than files that a process may open.
        let file = File::open(&self.path)?;
        let (mut read, at) = (0, address - self.base + SEGMENT_HEADER_LEN as u64);
        while read < buffer.len() {
            match file.read_at(&mut buffer[read..], at + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[read..].fill(0);
        Ok(())
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Files {
    fn open(path: &Path) -> Result<Self, Failure> {
        let directory = DiskDirectory::open(path)?;
        let mut lens = BTreeMap::new();
        let mut agreed: Option<(SegmentHeader, String)> = None;
        for name in directory.list()? {
            let Some(base) = parse_name(&name) else { continue };
            let file = directory.open(&name, false).map_err(Failure::at(format!("cannot open {name}")))?;
            let mut header = [0; SEGMENT_HEADER_LEN];
            directory.read_at(&file, &mut header, 0).map_err(Failure::at(format!("cannot read {name}")))?;
            lens.insert(base, directory.len(&file)?);
            let Ok(header) = SegmentHeader::decode(&header) else { continue };
            match &agreed {
                Some((other, of)) if (other.log_id, other.segment_size) != (header.log_id, header.segment_size) => {
                    return Err(Failure::new(format!(
                        "{name} belongs to log {:016x}, and {of} to log {:016x}; move away what does not belong here",
                        header.log_id, other.log_id
                    )));
                }
                Some(_) => {}
                None => agreed = Some((header, name)),
            }
        }
        let (header, _) = agreed.ok_or_else(|| {
            Failure::new(
                "without MANIFEST, and without one readable segment header, neither the log's id nor the size of its \
                 segments is known; restore MANIFEST",
            )
        })?;
        let size = header.segment_size;
        let segment = |(base, len): (u64, u64)| {
            let filled = base + len.saturating_sub(SEGMENT_HEADER_LEN as u64).min(size);
            (base / size, Segment { path: path.join(file_name(base)), base, filled })
        };
        let segments = lens.into_iter().filter(|(base, _)| base.is_multiple_of(size)).map(segment).collect();
        let mut files = Self { path: path.to_owned(), header, segments, key: None };
        files.key = files.find_key()?;
        Ok(files)
    }

    /// The key that a slot of a bad `MANIFEST` holds, if some batch of the log was signed with it.
    fn find_key(&self) -> Result<Option<HeaderKey>, Failure> {
        let Ok(manifest) = fs::read(self.path.join(NAME)) else { return Ok(None) };
        let slots = manifest.chunks(SLOT_LEN).take(2);
        let keys: Vec<_> =
            slots.filter_map(|slot| slot.get(24..)?.first_chunk()).map(|key| HeaderKey::new(*key)).collect();
        for segment in self.segments.values() {
            let mut head = [0; HEADER_LEN];
            segment.read(segment.base, &mut head)?;
            let signs = |key: &&HeaderKey| Some(key.sign(&head[..64])) == u64_at(&head, 64);
            if BatchHeader::is_likely(&head)
                && let Some(key) = keys.iter().find(signs)
            {
                return Ok(Some(*key));
            }
        }
        Ok(None)
    }

    /// The whole batch at `at` of a segment, if one of this log stands there: its header, and its bytes.
    fn batch(&self, segment: &Segment, at: u64) -> Result<Option<(BatchHeader, Vec<u8>)>, Failure> {
        let mut head = [0; HEADER_LEN];
        segment.read(at, &mut head)?;
        if !BatchHeader::is_likely(&head) {
            return Ok(None);
        }
        let is_right = |key: &HeaderKey| Some(key.sign(&head[..64])) == u64_at(&head, 64);
        if self.key.as_ref().is_some_and(|key| !is_right(key)) {
            return Ok(None);
        }
        // All rules but the signature: it is replaced by one that is right.
        let key = HeaderKey::new([0; 16]);
        let signature = key.sign(&head[..64]);
        head[64..].copy_from_slice(&signature.to_le_bytes());
        let Ok(header) = BatchHeader::decode_at(&head, &key, self.header.log_id, at) else { return Ok(None) };
        let layout = header.layout();
        if at + layout.len as u64 > segment.base + self.header.segment_size || at + layout.table as u64 > segment.filled
        {
            return Ok(None);
        }
        // The checksum of the checksums vouches for the length before memory is taken for it.
        let sums = BlockSums::of(&header);
        let mut table = vec![0; (layout.blocks + 1) * SUM_LEN];
        segment.read(at + layout.table as u64, &mut table)?;
        if Some(sums.table(at, &table[..layout.blocks * SUM_LEN])) != u64_at(&table, layout.blocks * SUM_LEN) {
            return Ok(None);
        }
        let mut bytes = vec![0; layout.len];
        segment.read(at, &mut bytes)?;
        Ok(check_batch(&header, &bytes).is_none().then_some((header, bytes)))
    }

    /// Follows the log from the start of a segment, and gives each batch to `each`. `None`: it begins with none.
    fn follow(
        &self,
        segment: u64,
        mut each: impl FnMut(&BatchHeader, Vec<u8>) -> Result<(), Failure>,
    ) -> Result<Option<Chain>, Failure> {
        let size = self.header.segment_size;
        let (mut at, mut chain) = (segment * size, None::<Chain>);
        while let Some(segment) = self.segments.get(&(at / size)) {
            let Some((header, bytes)) = self.batch(segment, at)? else { break };
            let end = if header.flags.last { segment.base + size } else { at + bytes.len() as u64 };
            let epoch = Epoch { epoch: header.epoch, salt: header.salt, start: at };
            match &mut chain {
                None => {
                    let epochs = vec![epoch];
                    chain = Some(Chain { first: header, last: header, end, batches: 1, epochs });
                }
                Some(chain) => {
                    let last = &chain.last;
                    let is_same = (last.epoch, last.salt) == (header.epoch, header.salt);
                    let is_later = last.epoch < header.epoch && header.flags.opens_epoch;
                    if (header.number, header.previous) != (last.number + 1, last.address) || !(is_same || is_later) {
                        break;
                    }
                    if is_later {
                        chain.epochs.push(epoch);
                        let surplus = chain.epochs.len().saturating_sub(MAX_EPOCHS);
                        chain.epochs.drain(..surplus);
                    }
                    (chain.last, chain.end, chain.batches) = (header, end, chain.batches + 1);
                }
            }
            each(&header, bytes)?;
            at = end;
        }
        Ok(chain)
    }

    /// Intact batches at `end` and behind.
    fn behind(&self, end: u64) -> Result<Option<(u64, u64)>, Failure> {
        let (mut batches, mut promise) = (0, 0);
        for segment in self.segments.range(end / self.header.segment_size..).map(|(_, segment)| segment) {
            let mut head = [0; HEADER_LEN];
            for at in (segment.base.max(end)..segment.filled).step_by(BLOCK) {
                segment.read(at, &mut head)?;
                if BatchHeader::is_likely(&head)
                    && let Some((header, _)) = self.batch(segment, at)?
                {
                    (batches, promise) = (batches + 1, promise.max(header.durable));
                }
            }
        }
        Ok((batches > 0).then_some((batches, promise)))
    }
}

impl Plan {
    /// Looks what can be rebuilt.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let files = Files::open(path)?;
        let (mut best, mut lower): (Option<Chain>, _) = (None, None);
        let mut before = None;
        let mut has_begun = false;
        for segment in files.segments.keys().copied() {
            // A run of segments without a hole is begun where its first batch is.
            has_begun &= before.is_some_and(|before| before + 1 == segment);
            before = Some(segment);
            if has_begun {
                continue;
            }
            if let Some(chain) = files.follow(segment, |_, _| Ok(()))? {
                has_begun = true;
                // Of runs that a hole parts, the last one is the log: the others may have been trimmed.
                if best.as_ref().is_none_or(|best| best.last.number < chain.last.number) {
                    lower = best.replace(chain);
                }
            }
        }
        let chain = best.ok_or_else(|| Failure::new("no segment begins with an intact batch; restore MANIFEST"))?;
        let behind = files.behind(chain.end)?;
        Ok(Self { files, chain, before: lower, behind })
    }

    fn numbers(&self) -> core::ops::RangeInclusive<u64> {
        let size = self.files.header.segment_size;
        self.chain.first.address / size..=self.chain.end / size
    }

    /// What stays unknown.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let Chain { first, end, .. } = &self.chain;
        let mut unknown = vec![
            match self.files.key {
                Some(_) => "nothing about signatures: MANIFEST still held the key, and all were checked".into(),
                None => {
                    "whether each batch was signed by this log: its key is lost, so only structure, numbers, links \
                         and checksums were checked"
                        .to_owned()
                }
            },
            format!("the trim point: records from {} on are there again, trimmed or not", first.address),
            "accepted gaps: where one began, the log ends".into(),
        ];
        unknown.extend(self.before.as_ref().map(|before| {
            // Trimmed segments are kept to be used again, and no batch says what is trimmed.
            format!(
                "whether {} batches between {} and {} are lost or were trimmed: their segments are not there; those \
                 before, which begin at {}, are set aside",
                first.number.saturating_sub(before.last.number + 1),
                before.end,
                first.address,
                before.first.address
            )
        }));
        unknown.push(match self.behind {
            Some((batches, promise)) if promise > *end => format!(
                "what was between {end} and {promise}, which was acknowledged: {batches} intact batches behind it \
                 prove that, and are set aside with it"
            ),
            _ => format!("whether more was acknowledged behind {end}: no intact batch there proves it"),
        });
        unknown
    }

    /// What would be done.
    pub(crate) fn say(&self) -> Vec<String> {
        let Chain { first, end, batches, .. } = &self.chain;
        let kept = "keep all segments, and MANIFEST, as aside-…";
        let signed = if self.files.key.is_some() { "" } else { ", signed with a new key" };
        vec![
            format!("write {batches} batches from {} to {end} into new segments{signed}", first.address),
            kept.into(),
            "make a new MANIFEST".into(),
        ]
    }

    /// Rebuilds the log, and says what was done.
    pub(crate) fn carry_out(&self) -> Result<Vec<String>, Failure> {
        let directory = DiskDirectory::open(&self.files.path)?;
        let _lock = Recover::lock(&directory)?;
        let mut key = [0; 16];
        getrandom(&mut key, GetRandomFlags::empty()).map_err(Failure::at("cannot get random numbers"))?;
        let key = self.files.key.unwrap_or(HeaderKey::new(key));
        self.write(&key)?;
        directory.sync_dir()?;

        let mut names = directory.list()?;
        names.sort();
        let number = (0..)
            .find(|number| !names.iter().any(|name| name.starts_with(&aside_name(*number, ""))))
            .unwrap_or(u64::MAX);
        let mut done = Vec::new();
        // A second name first, so that the name of the log's own file is never free.
        for name in names.iter().filter(|name| parse_name(name).is_some() || *name == NAME) {
            let to = aside_name(number, name);
            self.keep(name, &to)?;
            done.push(format!("kept {name} as {to}"));
        }
        directory.sync_dir()?;
        for number in self.numbers() {
            let name = file_name(number * self.files.header.segment_size);
            directory.rename(&rebuilt(&name), &name)?;
        }
        directory.sync_dir()?;
        let numbers = self.numbers();
        let others = names.iter().filter(|name| {
            parse_name(name).is_some_and(|base| {
                let size = self.files.header.segment_size;
                !base.is_multiple_of(size) || !numbers.contains(&(base / size))
            })
        });
        for name in others {
            // It has its other name.
            directory.unlink(name)?;
        }
        if names.iter().any(|name| name == TEMPORARY) {
            directory.rename(TEMPORARY, &aside_name(number, TEMPORARY))?;
        }
        directory.sync_dir()?;
        ManifestFile::create(&directory, self.manifest(key))?;
        let Chain { first, end, batches, .. } = &self.chain;
        let signed = if self.files.key.is_some() { "with the old key" } else { "signed with a new key" };
        done.push(format!("wrote {batches} batches from {} to {end} into new segments, {signed}", first.address));
        done.push("made a new MANIFEST".into());
        Ok(done)
    }

    /// Writes the new segments, under names that are no segments'.
    fn write(&self, key: &HeaderKey) -> Result<(), Failure> {
        let size = self.files.header.segment_size;
        let path = |number: u64| self.files.path.join(rebuilt(&file_name(number * size)));
        for number in self.numbers() {
            let header = SegmentHeader { number, whole: false, ..self.files.header.clone() };
            fs::write(path(number), header.encode()).map_err(Failure::at("cannot write a new segment"))?;
        }
        let first = *self.numbers().start();
        let written = self.files.follow(first, |header, mut bytes| {
            sign(header, &mut bytes, key);
            let (number, at) = (header.address / size, header.address % size + SEGMENT_HEADER_LEN as u64);
            let file = File::options().write(true).open(path(number));
            file.and_then(|file| file.write_all_at(&bytes, at)).map_err(Failure::at("cannot write a new segment"))
        })?;
        if written.is_none_or(|written| written.end != self.chain.end) {
            return Err(Failure::new("the log has changed; start again"));
        }
        let sync = |number| File::open(path(number)).and_then(|file| file.sync_all());
        self.numbers().try_for_each(sync).map_err(Failure::at("cannot sync a new segment"))
    }

    /// Gives a file a second name; where the file system has none, a copy.
    fn keep(&self, name: &str, to: &str) -> Result<(), Failure> {
        let (from, to) = (self.files.path.join(name), self.files.path.join(to));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)
                .and_then(|_| File::open(&to)?.sync_all())
                .map_err(Failure::at(format!("cannot keep {name}")))?;
        }
        Ok(())
    }

    fn manifest(&self, key: HeaderKey) -> Manifest {
        let Chain { first, end, epochs, .. } = &self.chain;
        Manifest {
            sequence: 1,
            log_id: self.files.header.log_id,
            key,
            segment_size: self.files.header.segment_size,
            trim: first.address,
            first: FirstBatch {
                number: first.number,
                previous: first.previous,
                epoch: Some((first.epoch, first.salt)),
            },
            known_durable: *end,
            clean_end: None,
            epochs: epochs.clone(),
            gaps: Vec::new(),
        }
    }
}

/// The name of a new segment before it is in its place.
fn rebuilt(name: &str) -> String {
    format!("rebuilt-{name}")
}

/// Signs the header of a batch, and renews the checksums that cover it.
fn sign(header: &BatchHeader, bytes: &mut [u8], key: &HeaderKey) {
    let (layout, sums) = (header.layout(), BlockSums::of(header));
    bytes[..HEADER_LEN].copy_from_slice(&header.encode(key));
    let (covered, trailer) = bytes.split_at_mut(layout.table);
    let (table, own) = trailer.split_at_mut(layout.blocks * SUM_LEN);
    let first = sums.block(header.address, &covered[..layout.table.min(BLOCK)]);
    table[..SUM_LEN].copy_from_slice(&first.to_le_bytes());
    own[..SUM_LEN].copy_from_slice(&sums.table(header.address, table).to_le_bytes());
}
