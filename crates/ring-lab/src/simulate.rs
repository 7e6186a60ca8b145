//! One incarnation of a ring over a disk in memory, in one thread. A seed makes every choice: the same log each time.
//!
//! Writers are numbers, not threads: their appends interleave with each other, with reservations that stay open, and
//! with a disk that completes writes at arbitrary moments.

use core::mem;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::{Arc, Mutex, Weak};

use buffer_ring::ring_io::DeviceEvent;
use buffer_ring::{AppendError, BufferRing, BufferRingOptions, Extent, MemoryDevice, QuikIO, Reservation, WriteMode};

use crate::append_path::{AppendPath, PathMix};
use crate::imitate;
use crate::log::{Event, Log};
use crate::record::{BLOCK, HEADER, Key, RecordId, encode, log_end, marker};
use crate::workload::Mode;
use ring_testing::Random;

const WRITERS: usize = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const AN_HOUR: Duration = Duration::from_secs(3600);
const TRANSIENT: [i32; 4] = [4, 11, 16, 125];

/// The file in which an incarnation begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) image: Vec<u8>,
    pub(crate) key: Option<Key>,
    /// This many bytes are known to be a log.
    pub(crate) owed: usize,
}

impl Found {
    /// As a tool that copies files leaves it: without its key, with the one of another log, or with markers of
    /// another log behind it.
    fn copied(mut self, random: &mut Random) -> Self {
        let foreign = [random.next(), random.next()].map(u64::to_le_bytes).concat().try_into().expect("16 bytes");
        // The device on which it goes on holds whole blocks.
        self.image.resize(self.image.len().next_multiple_of(BLOCK), 0);
        match random.below(12) {
            0 => self.key = None,
            1 => self.key = Some(foreign),
            2 => {
                for _ in 0..random.up_to(3) {
                    let address = self.image.len() as u64;
                    self.image.extend(marker(foreign, address));
                }
            }
            _ => {}
        }
        self
    }
}

/// An incarnation of a ring on a file that was found.
pub(crate) fn simulate(seed: u64, incarnation: u32, found: Found) -> Result<Log, String> {
    let mut random = Random::new(seed);
    let Found { image: before, key, owed } = found.copied(&mut random);
    let mode = random.pick(&[Mode::Auto, Mode::Auto, Mode::Auto, Mode::Held, Mode::Manual]);
    let write_mode = random.pick(&[WriteMode::TailLocalized, WriteMode::TailLocalized, WriteMode::Serialized]);
    let (capacity, buffer_size) = (2 + random.below(4), BLOCK * random.pick(&[1, 1, 2, 3, 4]));
    let faults = random.chance(40);
    let prepare = random.pick(&[0, 16 << 10, 64 << 10]);
    let hands = random.pick(&PathMix::ALL);

    let (_, device) = QuikIO::in_memory();
    fill(&device, &before)?;
    device.set_key(key);
    let events = Arc::new(Mutex::new(Vec::new()));
    device.shuffle(random.next());
    let io = device.builder().write_mode(write_mode).prepare(prepare).build().map_err(|error| error.to_string())?;
    let start = io.start().map_err(|error| error.to_string())?;
    if start < owed as u64 {
        return Err(format!("the log was found to end at {start}, and {owed} bytes of it must survive"));
    }
    if start != log_end(&before, key) as u64 {
        return Err(format!("the log was found to end at {start}, and ends at {}", log_end(&before, key)));
    }
    let ring = Arc::new(BufferRing::with_options(BufferRingOptions {
        capacity,
        buffer_size,
        io_instance: Some(Arc::new(io)),
        auto_flush: mode == Mode::Auto,
        auto_rotate: mode != Mode::Manual,
    }));
    record(&device, &events, &ring);
    let fault = plan_faults(&device, &mut random, faults);
    let setting = format!(
        "memory, {mode:?}, {write_mode:?}, {capacity} buffers of {buffer_size}, {hands:?}, incarnation {incarnation}, \
         {prepare} preallocated, faults: {fault}"
    );
    let thirst = random.pick(&[1, 3, 6, 15]);
    let mut incarnation = Incarnation {
        thirst,
        sync_fails: fault.contains("sync"),
        ring: &ring,
        hands: core::array::from_fn(|writer| hands.of(&ring, writer)),
        device: &device,
        events: &events,
        random,
        mode,
        incarnation,
        buffer_size,
        sequences: [0; WRITERS],
        open: Vec::new(),
        placed: Vec::new(),
        keys: key.into_iter().collect(),
    };
    let steps = 60 + incarnation.random.below(240);
    for _ in 0..steps {
        incarnation.step();
    }
    incarnation.end();
    drop(ring);
    let events = mem::take(&mut *events.lock().expect("no panic"));
    let serialized = write_mode == WriteMode::Serialized;
    let reach = (mode != Mode::Manual).then_some((capacity * buffer_size) as u64);
    Ok(Log { seed, images: 0, setting, serialized, reach, file_system: None, before, key, start, events })
}

/// Puts `before` into the device, as if it had always been there.
fn fill(device: &MemoryDevice, before: &[u8]) -> Result<(), String> {
    let io = device.builder().start_at(0).build().map_err(|error| error.to_string())?;
    let ring = BufferRing::with_options(BufferRingOptions {
        capacity: 2,
        buffer_size: 1 << 20,
        io_instance: Some(Arc::new(io)),
        ..BufferRingOptions::default()
    });
    for piece in before.chunks(1 << 20) {
        ring.append(piece).map_err(|error| error.to_string())?;
    }
    ring.close().map(|_| ()).map_err(|error| error.to_string())
}

/// Records everything that happens at the device; while a sync runs, completions are taken from it, as another thread
/// might do.
fn record(device: &MemoryDevice, events: &Arc<Mutex<Vec<Event>>>, ring: &Arc<BufferRing>) {
    let (events, ring) = (Arc::clone(events), Arc::downgrade(ring));
    let arrived = Mutex::new(Vec::<Vec<u8>>::new());
    // What was written before is not part of the log.
    let first = device.writes().len();
    let first_sync = device.syncs();
    device.watch(move |event| {
        let push = |event| events.lock().expect("no panic").push(event);
        match event {
            DeviceEvent::WriteArrived { write, offset, bytes, durable } => {
                arrived.lock().expect("no panic").push(bytes.to_vec());
                push(Event::Arrived { write: write - first, offset, bytes: bytes.to_vec(), synced: durable });
            }
            DeviceEvent::WriteCompleted { write, bytes } => {
                if arrived.lock().expect("no panic")[write - first][..bytes.len()] != *bytes {
                    push(Event::Changed { write: write - first });
                }
                push(Event::Completed { write: write - first, written: bytes.len() });
            }
            DeviceEvent::WriteFailed { write } => push(Event::Failed { write: write - first }),
            DeviceEvent::SyncBegan { sync } => {
                push(Event::FlushBegan { flush: sync - first_sync });
                for _ in 0..4 {
                    Weak::upgrade(&ring).map(|ring| ring.written_watermark());
                }
            }
            DeviceEvent::KeyChanged { key } => push(Event::KeyChanged { key }),
            DeviceEvent::KeySynced { key } => push(Event::KeySynced { key }),
            DeviceEvent::SyncEnded { sync, succeeded } => {
                push(Event::FlushEnded { flush: sync - first_sync, succeeded });
            }
            _ => {}
        }
    });
}

fn plan_faults(device: &MemoryDevice, random: &mut Random, faults: bool) -> String {
    if !faults {
        return "none".into();
    }
    let mut faults = Vec::new();
    for _ in 0..random.up_to(4) {
        let nth = random.below(12);
        match random.below(9) {
            0..=2 => {
                let bytes = 512 * random.below(24);
                device.shorten_write(nth, bytes);
                faults.push(format!("write {nth} short at {bytes}"));
            }
            3..=4 => {
                let errno = random.pick(&TRANSIENT);
                device.fail_write(nth, errno);
                faults.push(format!("write {nth} postponed by {errno}"));
            }
            5..=6 => {
                let errno = random.pick(&[EIO, ENOSPC]);
                device.fail_write(nth, errno);
                faults.push(format!("write {nth} fails by {errno}"));
            }
            _ => faults.push("a sync fails".into()),
        }
    }
    faults.join(", ")
}

struct Incarnation<'a> {
    ring: &'a BufferRing,
    hands: [AppendPath<'a>; WRITERS],
    device: &'a MemoryDevice,
    events: &'a Mutex<Vec<Event>>,
    random: Random,
    mode: Mode,
    incarnation: u32,
    buffer_size: usize,
    /// How often, in percent of all steps, durability is requested.
    thirst: usize,
    /// Whether a sync should fail at some point.
    sync_fails: bool,
    sequences: [u32; WRITERS],
    /// Reservations that are filled, and not yet released.
    open: Vec<(RecordId, Reservation<'a>)>,
    placed: Vec<(RecordId, Extent)>,
    /// The key of the file as a client has seen it.
    keys: Vec<Key>,
}

impl Incarnation<'_> {
    fn note(&self, event: Event) {
        self.events.lock().expect("no panic").push(event);
    }

    fn step(&mut self) {
        if self.random.chance(self.thirst) {
            return if self.random.chance(70) { self.wait_for_one() } else { self.sync() };
        }
        match self.random.below(100) {
            0..=3 => self.imitate(),
            4..=64 => self.append_some(),
            65..=79 => self.reserve(),
            80..=86 => self.give_up_one(),
            87..=91 => _ = self.ring.flush(&self.ring.current_buffer(Ordering::Acquire)),
            92 if self.mode == Mode::Manual => _ = self.ring.rotate(),
            93 => self.begin_another_writer(),
            94 => self.device.fail_write(self.random.below(3), self.random.clone().pick(&TRANSIENT)),
            95 if self.sync_fails => {
                self.device.fail_sync(EIO);
                self.sync_fails = false;
            }
            _ => {
                _ = self.ring.written_watermark();
                self.note(Event::Watermark { address: self.ring.durable_watermark() });
            }
        }
    }

    /// Once, or through a `Writer` several times: it takes a lease after a sequence of appends.
    fn append_some(&mut self) {
        let writer = self.random.below(WRITERS);
        let run = if self.hands[writer].is_writer() { self.random.up_to(8) } else { 1 };
        (0..run).for_each(|_| self.append(writer));
    }

    /// In the place of one that is dropped, or leaked.
    fn begin_another_writer(&mut self) {
        let writer = self.random.below(WRITERS);
        if self.hands[writer].is_writer() {
            let before = mem::replace(&mut self.hands[writer], AppendPath::Writer(self.ring.writer()));
            if self.random.chance(50) {
                mem::forget(before);
            }
        }
    }

    fn next_record(&mut self, writer: usize) -> (RecordId, usize) {
        let record =
            RecordId { incarnation: self.incarnation, writer: writer as u32, sequence: self.sequences[writer] };
        self.sequences[writer] += 1;
        let most = match self.random.below(16) {
            4.. if self.hands[writer].is_writer() => 150,
            0 => self.buffer_size,
            1..=6 => 3000,
            _ => 500,
        };
        let len = HEADER + self.random.below(most - HEADER + 1);
        self.note(Event::Submitted { record, len: len as u32 });
        (record, len)
    }

    fn append(&mut self, writer: usize) {
        let (record, len) = self.next_record(writer);
        let bytes = encode(record, len);
        // A call that waits must not wait for a reservation of its own thread, nor for a flush that is never
        // requested.
        let may_wait = self.open.is_empty() && self.mode == Mode::Auto;
        let cut = self.random.below(len);
        let hand = &mut self.hands[writer];
        let outcome = match self.random.below(6) {
            0 | 1 if may_wait => hand.append(&bytes),
            2 if may_wait => hand.append_cut(&bytes, cut),
            3 if may_wait && self.random.chance(8 * self.thirst) => {
                let outcome = hand.append_durable(&bytes);
                if let Ok(extent) = outcome {
                    self.note(Event::Placed { record, start: extent.start() });
                    self.note(Event::Acknowledged { record });
                    self.placed.push((record, extent));
                    return;
                }
                outcome
            }
            _ => hand.try_append(&bytes),
        };
        self.outcome(record, outcome);
    }

    fn outcome(&mut self, record: RecordId, outcome: Result<Extent, AppendError>) {
        match outcome {
            Ok(extent) => {
                self.note(Event::Placed { record, start: extent.start() });
                self.placed.push((record, extent));
            }
            Err(AppendError::RingFull | AppendError::Sealed) => {
                self.note(Event::Refused { record });
                self.make_room();
            }
            // It may be in the log, or not.
            Err(_) => {}
        }
    }

    fn make_room(&mut self) {
        if self.mode == Mode::Manual {
            self.ring.flush(&self.ring.current_buffer(Ordering::Acquire));
            _ = self.ring.rotate();
        } else {
            self.sync();
        }
    }

    fn reserve(&mut self) {
        let writer = self.random.below(WRITERS);
        if self.hands[writer].is_writer() {
            return self.reserve_at_once(writer);
        }
        let (record, len) = self.next_record(writer);
        match self.ring.try_reserve(len) {
            Ok(mut reservation) => {
                reservation.copy_from_slice(&encode(record, len));
                if self.random.chance(20) {
                    // Aborted: the bytes become zeros, and are never seen.
                    self.note(Event::Refused { record });
                    return;
                }
                self.note(Event::Placed { record, start: reservation.extent().start() });
                self.open.push((record, reservation));
                if self.open.len() > 3 {
                    self.give_up_one();
                }
            }
            Err(AppendError::RingFull | AppendError::Sealed) => {
                self.note(Event::Refused { record });
                self.make_room();
            }
            Err(_) => {}
        }
    }

    /// A `Writer` does nothing else while it has a reservation.
    fn reserve_at_once(&mut self, writer: usize) {
        let (record, len) = self.next_record(writer);
        let is_aborted = self.random.chance(20);
        let outcome = self.hands[writer].try_reserve(len).map(|mut reservation| {
            reservation.copy_from_slice(&encode(record, len));
            (!is_aborted).then(|| reservation.commit())
        });
        match outcome {
            Ok(Some(extent)) => self.outcome(record, Ok(extent)),
            Ok(None) => self.note(Event::Refused { record }),
            Err(error) => self.outcome(record, Err(error)),
        }
    }

    /// Appends something that looks like preallocated space, or like a log.
    fn imitate(&mut self) {
        if self.random.chance(50) {
            self.sync();
        }
        self.keys.extend(self.device.key().filter(|key| !self.keys.contains(key)));
        let len = imitate::len(self.ring.tail(), self.random.up_to(3));
        match self.ring.try_reserve(len.min(self.buffer_size)) {
            Ok(mut reservation) => {
                let (start, len) = (reservation.extent().start(), reservation.len());
                let bytes = imitate::payload(&mut self.random, self.device, &self.keys, start, len);
                reservation.copy_from_slice(&bytes);
                self.note(Event::Imitated { start, bytes });
                let extent = reservation.commit();
                self.give_up_all();
                if self.random.chance(60) && self.ring.wait_durable(extent.end()).is_ok() {
                    self.note(Event::Watermark { address: self.ring.durable_watermark() });
                }
            }
            Err(AppendError::RingFull | AppendError::Sealed) => self.make_room(),
            Err(_) => {}
        }
    }

    fn give_up_one(&mut self) {
        if !self.open.is_empty() {
            let (record, reservation) = self.open.swap_remove(self.random.below(self.open.len()));
            self.placed.push((record, reservation.commit()));
        }
    }

    fn give_up_all(&mut self) {
        while !self.open.is_empty() {
            self.give_up_one();
        }
    }

    fn wait_for_one(&mut self) {
        self.give_up_all();
        if self.placed.is_empty() {
            return;
        }
        let recent = self.placed.len().min(8);
        let (record, extent) = self.placed[self.placed.len() - self.random.up_to(recent)];
        if self.ring.wait_durable(extent.end()).is_ok() {
            self.note(Event::Acknowledged { record });
            self.note(Event::Watermark { address: self.ring.durable_watermark() });
        }
    }

    fn sync(&mut self) {
        self.give_up_all();
        // With a deadline it submits what it has to wait for.
        let synced = if self.random.chance(50) { self.ring.sync() } else { self.ring.sync_timeout(AN_HOUR) };
        if let Ok(address) = synced {
            self.note(Event::Watermark { address });
        }
    }

    fn end(mut self) {
        self.give_up_all();
        if self.random.chance(50) {
            self.sync();
        }
        self.note(Event::Leased { records: self.ring.stats().writers.leased_records });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the keys, which are random.
    fn events(seed: u64) -> Vec<Event> {
        let mut events = simulate(seed, 1, Found::default()).expect("a working ring").events;
        for event in &mut events {
            match event {
                Event::Arrived { bytes, .. } | Event::Imitated { bytes, .. } => without_keys(bytes),
                Event::KeyChanged { key } | Event::KeySynced { key } => *key = key.map(|_| Key::default()),
                _ => {}
            }
        }
        events
    }

    fn without_keys(bytes: &mut [u8]) {
        const MAGIC: &[u8] = b"ring-io free";
        while let Some(at) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) {
            bytes[at..][..32].fill(1);
        }
    }

    #[test]
    fn a_seed_repeats_an_incarnation() {
        for seed in 0..20 {
            assert_eq!(events(seed), events(seed), "seed {seed}");
        }
    }
}
