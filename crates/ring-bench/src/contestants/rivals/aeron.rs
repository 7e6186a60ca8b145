//! Aeron's many-to-one ring buffer: several writers, and a reader that has to keep up. The reader takes part in the
//! measurement, as it must: without one, the ring is full after its first round.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use aeron_rs::command::control_protocol_events::AeronCommand;
use aeron_rs::concurrent::atomic_buffer::{AlignedBuffer, AtomicBuffer};
use aeron_rs::concurrent::ring_buffer::ManyToOneRingBuffer;

use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::Tally;

pub const AERON: Contestant = Contestant::of::<Aeron>(Family::Rival, "Aeron many-to-one");

/// What the ring keeps behind its bytes.
const TRAILER: i32 = 768;

struct Shared {
    ring: ManyToOneRingBuffer,
    /// The memory under `ring`.
    _memory: AlignedBuffer,
    stop: AtomicBool,
}

// SAFETY: the ring's `write` is made for many threads and its `read` for one; it only lacks the declaration, since it
// holds a pointer to `_memory`, which lives as long.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

pub struct Aeron {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<Vec<u8>>>,
    read: Vec<u8>,
}

impl Log for Aeron {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        let memory = AlignedBuffer::with_capacity(place.memory as i32 + TRAILER);
        let buffer = AtomicBuffer::from_aligned(&memory);
        buffer.set_memory(0, place.memory as i32 + TRAILER, 0);
        let ring = ManyToOneRingBuffer::new(buffer).map_err(|error| format!("{error:?}"))?;
        let shared = Arc::new(Shared { ring, _memory: memory, stop: AtomicBool::new(false) });
        let (theirs, keep) = (Arc::clone(&shared), place.checked);
        let reader = thread::spawn(move || {
            let mut kept = Vec::new();
            loop {
                let last = theirs.stop.load(Ordering::Acquire);
                let count = theirs.ring.read_all(|_, record| {
                    if keep {
                        kept.extend_from_slice(record.as_slice());
                    }
                });
                match count {
                    // None may have been read for the padding before the ring's end.
                    0 if last && theirs.ring.size() == 0 => return kept,
                    0 => thread::yield_now(),
                    _ => {}
                }
            }
        });
        Ok(Self { shared, reader: Some(reader), read: Vec::new() })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }

    fn finish(&mut self) -> Outcome<()> {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            self.read = reader.join().map_err(|_| "the reader panicked")?;
        }
        Ok(())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        tally.scan(&self.read);
        Ok(true)
    }
}

impl Writer for &Aeron {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        let source = AtomicBuffer::wrap_raw_slice(std::ptr::from_ref(record).cast_mut());
        while self.shared.ring.write(AeronCommand::ClientKeepAlive, source, 0, record.len() as i32).is_err() {
            thread::yield_now();
        }
    }
}
