//! The whole ring against a model that is a plain vector of bytes: many threads, every way to append, through writers
//! and without, every device.
//!
//! The lengths come from a seed, which is printed; `BUFFER_RING_SEED` sets it.

mod common;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;
use std::{env, fs, thread};

use buffer_ring::{AppendError, BufferRing, EngineKind, Extent, QuikIO};
use common::append_path::{AppendPath, PathMix};
use common::{Random, buffered_file, current, direct_file, disk, held, in_memory, options, ring_on, within};

/// Capacities and buffer sizes of one round each; all are tried together with 1, 2, 4 and 8 threads in turn.
const SIZES: [usize; 5] = [4096, 8192, 20480, 65536, 1 << 20];

static SEED: LazyLock<u64> = LazyLock::new(|| match env::var("BUFFER_RING_SEED") {
    Ok(seed) => seed.parse().expect("BUFFER_RING_SEED is a number"),
    Err(_) => SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64,
});

/// Bytes that payloads are cut from, so that making them costs nothing. None of them is zero.
static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| common::pattern(*SEED, (1 << 20) + 4096));

/// Records that went into leases, in all rounds.
static LEASED: AtomicU64 = AtomicU64::new(0);

/// One round: what the ring looks like, and a thread that appends how much.
#[derive(Clone, Debug)]
struct Round {
    capacity: usize,
    buffer_size: usize,
    threads: usize,
    appenders: PathMix,
    manual: bool,
    seed: u64,
}

/// A part of the log as one thread knows it.
#[derive(Clone, Copy, Debug)]
struct Record {
    extent: Extent,
    /// Where its bytes are in the pool; `None`: aborted.
    pool: Option<usize>,
}

impl Record {
    fn bytes(&self) -> Option<&'static [u8]> {
        self.pool.map(|at| &POOL[at..at + self.extent.len()])
    }
}

/// One thread's way through a round.
struct Appender<'a> {
    ring: &'a BufferRing,
    appender: AppendPath<'a>,
    round: &'a Round,
    random: Random,
    records: Vec<Record>,
}

impl Appender<'_> {
    fn run(mut self) -> Vec<Record> {
        // About four laps, all threads together, and not more than 16 MiB.
        let bytes = (4 * self.round.capacity * self.round.buffer_size).min(16 << 20) / self.round.threads;
        let (mut appended, mut steps) = (0, 0);
        while appended < bytes && steps < 400 || steps < 10 {
            let record = self.append();
            let before = self.records.last().map_or(0, |record| record.extent.end());
            assert!(before <= record.extent.start(), "{record:?} after {before}: {:?}", self.round);
            appended += record.extent.len();
            steps += 1;
            self.records.push(record);
            self.look_around();
        }
        self.records
    }

    fn len(&mut self) -> usize {
        let size = self.round.buffer_size;
        let most = match self.random.below(64) {
            0 => return size,
            1..=3 => size,
            4..=15 => 4096,
            _ => 700,
        };
        self.random.up_to(most.min(size))
    }

    fn append(&mut self) -> Record {
        let len = self.len();
        let pool = self.random.below(4096);
        let bytes = &POOL[pool..pool + len];
        let cut = self.random.below(len + 1);
        let way = self.random.below(8);
        let pool = (way != 7).then_some(pool);
        let extent = self.patiently(|appender| match way {
            0..=2 => appender.append(bytes),
            3 => appender.try_append(bytes),
            4 => appender.append_cut(bytes, cut),
            5 => appender.append_timeout(bytes, Duration::from_millis(1)),
            _ => {
                let mut reserved = if way == 6 { appender.reserve(len)? } else { appender.try_reserve(len)? };
                reserved[..cut].copy_from_slice(&bytes[..cut]);
                thread::yield_now();
                reserved[cut..].copy_from_slice(&bytes[cut..]);
                let extent = reserved.extent();
                if pool.is_some() {
                    assert_eq!(reserved.commit(), extent);
                }
                Ok(extent)
            }
        });
        assert_eq!(extent.len(), len);
        Record { extent, pool }
    }

    /// Tries again while the ring is full; in manual mode helps.
    fn patiently(&mut self, append: impl Fn(&mut AppendPath<'_>) -> Result<Extent, AppendError>) -> Extent {
        loop {
            match append(&mut self.appender) {
                Ok(extent) => return extent,
                Err(AppendError::RingFull | AppendError::TimedOut) if self.round.manual => {
                    self.ring.sync().expect("a working device");
                }
                Err(AppendError::RingFull | AppendError::TimedOut) => thread::yield_now(),
                Err(error) => panic!("{error}: {:?}", self.round),
            }
        }
    }

    /// What a thread may do between two appends.
    fn look_around(&mut self) {
        match self.random.below(200) {
            0 => {
                let last = self.records.last().expect("a record").extent.end();
                assert!(self.ring.sync().expect("a working device") >= last, "{:?}", self.round);
            }
            1 => {
                let last = self.records.last().expect("a record").extent.end();
                self.ring.wait_durable(last).expect("a working device");
                assert!(self.ring.durable_watermark() >= last, "{:?}", self.round);
            }
            2..=5 => {
                let ticket = self.ring.flush(&current(self.ring));
                if self.random.below(2) == 0 {
                    ticket.wait().expect("a working device");
                }
            }
            // Reading in manual mode may have to give up beside other writers.
            6..=25 if !self.round.manual || self.round.threads == 1 => {
                let record = self.records[self.random.below(self.records.len())];
                self.assert_reads(record);
            }
            _ => {}
        }
    }

    fn assert_reads(&self, record: Record) {
        let mut bytes = vec![0xEE; record.extent.len()];
        assert_eq!(self.ring.read(record.extent, &mut bytes), Ok(bytes.len()), "{record:?}: {:?}", self.round);
        let same = record.bytes().map_or_else(|| bytes.iter().all(|&byte| byte == 0), |expected| bytes == expected);
        assert!(same, "{record:?} reads differently: {:?}", self.round);
    }
}

impl Round {
    /// Appends from all threads, then compares the records with each other, the counts, and the content.
    fn run(&self, ring: BufferRing, content: impl FnOnce() -> Vec<u8>) {
        let mut seeds = Random::new(self.seed);
        let mut records: Vec<Record> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let random = Random::new(seeds.next());
                    let appender = self.appenders.of(&ring, thread);
                    let appender = Appender { ring: &ring, appender, round: self, random, records: Vec::new() };
                    scope.spawn(|| appender.run())
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        records.sort_by_key(|record| record.extent.start());
        for pair in records.windows(2) {
            assert!(pair[0].extent.end() <= pair[1].extent.start(), "{pair:?} overlap: {self:?}");
        }
        let end = ring.sync().expect("a working device");
        assert_eq!((end, ring.tail(), ring.written_watermark(), ring.durable_watermark()), (end, end, end, end));

        let model = self.model(&records, end);
        self.compare_stats(&ring, &records, end);
        let all = common::read(&ring, Extent::new(0, model.len()));
        self.compare("what is read back", &all, &model);
        assert_eq!(ring.close(), Ok(end), "{self:?}");
        self.compare("the content", &content(), &model);
    }

    /// The log as it has to be: every byte where its extent says, zeros everywhere else.
    fn model(&self, records: &[Record], end: u64) -> Vec<u8> {
        let mut model = vec![0; end as usize];
        for record in records {
            let place = &mut model[record.extent.start() as usize..record.extent.end() as usize];
            if let Some(bytes) = record.bytes() {
                place.copy_from_slice(bytes);
            }
        }
        let last = records.last().expect("records").extent.end();
        assert!(end >= last.next_multiple_of(4096), "{end} after {last}: {self:?}");
        model
    }

    fn compare_stats(&self, ring: &BufferRing, records: &[Record], end: u64) {
        let stats = ring.stats();
        let len = |records: &mut dyn Iterator<Item = &Record>| records.map(|record| record.extent.len() as u64).sum();
        let appended: u64 = len(&mut records.iter().filter(|record| record.pool.is_some()));
        let reserved: u64 = len(&mut records.iter());
        let committed = records.iter().filter(|record| record.pool.is_some()).count();
        assert_eq!((stats.records_appended, stats.bytes_appended), (committed as u64, appended), "{self:?}");
        assert_eq!(stats.reservations_aborted, (records.len() - committed) as u64, "{self:?}");
        LEASED.fetch_add(stats.writers.leased_records, Relaxed);
        assert!(self.appenders != PathMix::Ring || stats.writers.leased_records == 0);
        let unused = stats.writers.unused_bytes;
        assert_eq!(
            stats.padding_bytes + unused,
            end - reserved,
            "nothing but padding, and what leases had left: {self:?}"
        );
        assert_eq!(stats.buffers_flushed + 1, current(ring).generation(), "{self:?}");
        assert!(stats.syncs + stats.durable_writes > 0 && stats.oldest_reservation.is_none(), "{self:?}");
    }

    fn compare(&self, what: &str, is: &[u8], should: &[u8]) {
        if is != should {
            let differ = is.iter().zip(should).position(|(is, should)| is != should);
            panic!("{what} has {} bytes of {}, and differs at {differ:?}: {self:?}", is.len(), should.len());
        }
    }

    fn options(&self) -> buffer_ring::BufferRingOptions {
        if self.manual { held(self.capacity, self.buffer_size) } else { options(self.capacity, self.buffer_size) }
    }
}

/// All capacities with all sizes, and `threads` in turn.
fn every_round(run: impl Fn(&Round) + Send + 'static) {
    eprintln!("BUFFER_RING_SEED={}", *SEED);
    within(Duration::from_secs(300), move || {
        let mut seeds = Random::new(*SEED);
        for capacity in 2..=16 {
            for (number, buffer_size) in SIZES.into_iter().enumerate() {
                let threads = [1, 2, 4, 8][(capacity + number) % 4];
                let manual = seeds.below(8) == 0;
                let appenders = PathMix::ALL[seeds.below(PathMix::ALL.len())];
                run(&Round { capacity, buffer_size, threads, appenders, manual, seed: seeds.next() });
            }
        }
        assert!(LEASED.load(Relaxed) > 1000, "writers took no leases");
    });
}

/// The same on files, which are deleted after each round.
fn every_round_on_a_file(path: &Path, io: impl Fn(&Path) -> QuikIO + Send + 'static) {
    let path = path.to_owned();
    every_round(move |round| {
        let ring = ring_on(io(&path), round.options());
        round.run(ring, || fs::read(&path).expect("the file"));
        fs::remove_file(&path).expect("the file");
    });
}

#[test]
fn every_byte_is_where_its_extent_says_in_memory() {
    every_round(|round| {
        let (ring, device) = in_memory(round.options());
        let writes = device.clone();
        round.run(ring, || device.synced());
        assert!(writes.synced() == writes.contents(), "{round:?}");
    });
}

#[test]
fn every_byte_is_where_its_extent_says_on_tmpfs() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: there is no /dev/shm");
        return;
    };
    every_round_on_a_file(&dir.path().join("log"), |path| QuikIO::new(buffered_file(path)));
}

#[test]
fn every_byte_is_where_its_extent_says_past_the_cache_of_a_disk() {
    let dir = disk();
    every_round_on_a_file(&dir.path().join("log"), |path| {
        let io = QuikIO::new(direct_file(path));
        assert!(io.is_direct());
        io
    });
}

#[test]
fn every_byte_is_where_its_extent_says_with_positioned_writes() {
    let dir = disk();
    every_round_on_a_file(&dir.path().join("log"), |path| {
        let io = QuikIO::builder(direct_file(path)).engine(EngineKind::Positioned).build().expect("always there");
        assert!(io.is_direct() && io.engine().kind() == EngineKind::Positioned);
        io
    });
}
