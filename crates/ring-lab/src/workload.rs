//! What a child process does to a log: several threads append through the public interface, and record each
//! acknowledgement.
//!
//! `workload --log FILE --acks FILE --seed S`: the shape of the ring, and which thread appends what in which way,
//! follow from the seed. An error of the ring is no failure of the workload: it is reported in the last line.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use buffer_ring::{AppendError, BufferRing, BufferRingOptions, EngineKind, Extent, QuikIO, WriteMode};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::append_path::{AppendPath, PathMix};
use crate::imitate::{self, Source};
use crate::log::Event;
use crate::machine;
use crate::record::{BLOCK, HEADER, Key, RecordId, encode};
use ring_testing::Random;

#[derive(Args, Clone, Debug)]
pub(crate) struct WorkloadOptions {
    /// The file of the log
    #[arg(long)]
    pub(crate) log: PathBuf,
    /// Where to record acknowledgements
    #[arg(long)]
    pub(crate) acks: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) incarnation: u32,
    #[arg(long, value_enum, default_value_t = Engine::Uring)]
    pub(crate) engine: Engine,
    /// Which threads append through a writer, if not as the seed decides
    #[arg(long, value_enum)]
    pub(crate) hands: Option<PathMix>,
    /// Appends of each thread
    #[arg(long, default_value_t = 20)]
    pub(crate) appends: usize,
    /// Threads
    #[arg(long, default_value_t = 3)]
    pub(crate) writers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Uring,
    Positioned,
}

impl ValueEnum for PathMix {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Ring => "ring",
            Self::Mixed => "mixed",
            Self::Writers => "writers",
        }))
    }
}

/// Whether the ring or the workload flushes and rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Auto,
    /// Sealed buffers are written on request.
    Held,
    Manual,
}

/// Everything that follows from the seed alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    mode: Mode,
    pub(crate) write_mode: WriteMode,
    capacity: usize,
    buffer_size: usize,
    hands: PathMix,
}

impl Setting {
    /// `hands`, if it was given.
    pub(crate) fn of(seed: u64, hands: Option<PathMix>) -> Self {
        let mut random = Random::new(seed);
        Self {
            mode: random.pick(&[Mode::Auto, Mode::Auto, Mode::Held, Mode::Manual]),
            write_mode: random.pick(&[WriteMode::TailLocalized, WriteMode::TailLocalized, WriteMode::Serialized]),
            capacity: 2 + random.below(4),
            buffer_size: BLOCK * random.pick(&[1, 2, 4, 16]),
            hands: hands.unwrap_or_else(|| random.pick(&PathMix::ALL)),
        }
    }

    /// How the log describes it.
    pub(crate) fn reach(&self) -> Option<u64> {
        (self.mode != Mode::Manual).then_some((self.capacity * self.buffer_size) as u64)
    }
}

pub(crate) fn task(options: &WorkloadOptions) -> Result<(), String> {
    let context = |what: &str, error: &dyn core::fmt::Display| format!("{what}: {error}");
    let setting = Setting::of(options.seed, options.hands);
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open(&options.log);
    let file = direct.map_err(|error| context("the log", &error))?;
    // Without that, a power cut may lose the file itself.
    let folder = options.log.parent().and_then(|folder| File::open(folder).ok());
    folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(|error| context("the folder", &error))?;
    let acks =
        File::options().write(true).open(&options.acks).map_err(|error| context("the acknowledgements", &error))?;
    let engine = match options.engine {
        Engine::Uring => EngineKind::IoUring,
        Engine::Positioned => EngineKind::Positioned,
    };
    let io = QuikIO::builder(file).engine(engine).write_mode(setting.write_mode).build();
    let ring = BufferRing::try_with_options(BufferRingOptions {
        capacity: setting.capacity,
        buffer_size: setting.buffer_size,
        io_instance: Some(Arc::new(io.map_err(|error| context("the engine", &error))?)),
        auto_flush: setting.mode == Mode::Auto,
        auto_rotate: setting.mode != Mode::Manual,
    });
    let ring = match ring {
        Ok(ring) => ring,
        Err(error) => {
            println!("refused: {error}");
            return Ok(());
        }
    };
    let mut seeds = Random::new(options.seed ^ 1);
    thread::scope(|scope| {
        for writer in 0..options.writers {
            let writer = Writer {
                ring: &ring,
                log: &options.log,
                hand: setting.hands.of(&ring, writer as usize),
                acks: &acks,
                setting,
                random: Random::new(seeds.next()),
                record: RecordId { incarnation: options.incarnation, writer, sequence: 0 },
                placed: Vec::new(),
                keys: Vec::new(),
            };
            scope.spawn(|| writer.run(options.appends));
        }
    });
    note(&acks, &Event::Leased { records: ring.stats().writers.leased_records });
    match ring.close() {
        Ok(end) => println!("closed at {end}"),
        Err(error) => println!("failed: {error}"),
    }
    Ok(())
}

/// If the disk is gone, this is lost with it.
pub(crate) fn note(mut acks: &File, event: &Event) {
    let bytes = postcard::to_stdvec(event).expect("it fits memory");
    let _ = acks.write(&bytes);
}

struct Writer<'a> {
    ring: &'a BufferRing,
    log: &'a Path,
    hand: AppendPath<'a>,
    acks: &'a File,
    setting: Setting,
    random: Random,
    record: RecordId,
    placed: Vec<(RecordId, Extent)>,
    /// The key of the file as it has seen it.
    keys: Vec<Key>,
}

/// The log as a client that reads its file may see it.
impl Source for &Path {
    fn key(&self) -> Option<Key> {
        machine::key_of(self)
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = File::open(self).and_then(|file| file.read_at(&mut bytes, offset as u64));
        bytes.truncate(read.unwrap_or(0));
        bytes
    }
}

impl Writer<'_> {
    fn run(mut self, appends: usize) {
        for _ in 0..appends {
            // A `Writer` takes a lease after a sequence of appends.
            let run = if self.hand.is_writer() { self.random.up_to(16) } else { 1 };
            (0..run).for_each(|_| self.append());
            match self.random.below(10) {
                0..=3 => self.wait_for_one(),
                4 => self.sync(),
                5 => _ = self.ring.flush(&self.ring.current_buffer(Ordering::Acquire)),
                6 if self.random.chance(30) => self.imitate(),
                _ => {}
            }
            if self.ring.poisoned().is_some() && self.random.chance(50) {
                return;
            }
        }
        self.wait_for_one();
    }

    fn note(&self, event: &Event) {
        note(self.acks, event);
    }

    fn append(&mut self) {
        let record = self.record;
        self.record.sequence += 1;
        // Few of a writer's are too long for a lease.
        let short = self.hand.is_writer() && self.random.chance(90);
        let most = if short {
            150
        } else if self.random.chance(10) {
            self.setting.buffer_size
        } else {
            1500
        };
        let len = HEADER + self.random.below(most - HEADER + 1);
        let bytes = encode(record, len);
        self.note(&Event::Submitted { record, len: len as u32 });
        let cut = self.random.below(len);
        let way = if short { 0 } else { self.random.below(6) };
        let durable = way == 3;
        let outcome = loop {
            let outcome = match way {
                0 | 1 => self.hand.append(&bytes),
                2 => self.hand.append_cut(&bytes, cut),
                3 => self.hand.append_durable(&bytes),
                4 => self.hand.append_timeout(&bytes, Duration::from_millis(50)),
                _ => self.hand.reserve(len).map(|mut reserved| {
                    reserved.copy_from_slice(&bytes);
                    thread::yield_now();
                    reserved.commit()
                }),
            };
            match outcome {
                Err(AppendError::RingFull | AppendError::TimedOut) => _ = self.ring.sync(),
                Err(AppendError::Sealed) => {
                    _ = self.ring.flush(&self.ring.current_buffer(Ordering::Acquire));
                    _ = self.ring.rotate();
                    thread::yield_now();
                }
                outcome => break outcome,
            }
        };
        if let Ok(extent) = outcome {
            self.note(&Event::Placed { record, start: extent.start() });
            if durable {
                self.note(&Event::Acknowledged { record });
            }
            self.placed.push((record, extent));
        }
    }

    /// Appends something that looks like preallocated space, or like a log.
    fn imitate(&mut self) {
        self.keys.extend(self.log.key().filter(|key| !self.keys.contains(key)));
        if self.random.chance(50) {
            self.sync();
        }
        let len = imitate::len(self.ring.tail(), self.random.up_to(3));
        let Ok(mut reservation) = self.ring.try_reserve(len.min(self.setting.buffer_size)) else { return };
        let (start, len) = (reservation.extent().start(), reservation.len());
        let bytes = imitate::payload(&mut self.random, &self.log, &self.keys, start, len);
        reservation.copy_from_slice(&bytes);
        self.note(&Event::Imitated { start, bytes });
        let extent = reservation.commit();
        if self.random.chance(60) && self.ring.wait_durable(extent.end()).is_ok() {
            self.note(&Event::Watermark { address: self.ring.durable_watermark() });
        }
    }

    fn wait_for_one(&mut self) {
        let recent = self.placed.len().min(4);
        if recent == 0 {
            return;
        }
        let (record, extent) = self.placed[self.placed.len() - self.random.up_to(recent)];
        if self.ring.wait_durable(extent.end()).is_ok() {
            self.note(&Event::Acknowledged { record });
            self.note(&Event::Watermark { address: self.ring.durable_watermark() });
        }
    }

    fn sync(&mut self) {
        if let Ok(address) = self.ring.sync() {
            self.note(&Event::Watermark { address });
        }
    }
}
