//! The ring, through its public surface.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use buffer_ring::{BufferRing, BufferRingOptions, ONE_MEGABYTE_BLOCK, QuikIO};

use super::{direct, prepared, scan_file};
use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::Tally;

pub const STAGING: [Contestant; 2] =
    [ours::<Staging>("buffer_ring append"), ours::<ByWriters<Staging>>("buffer_ring writer")];
pub const STREAMING: [Contestant; 3] = [
    ours::<Streaming<true>>("buffer_ring append"),
    ours::<ByWriters<Streaming<true>>>("buffer_ring writer"),
    ours::<Streaming<false>>("buffer_ring, growing file"),
];
pub const GROWING: [Contestant; 2] = [
    ours::<Streaming<false>>("buffer_ring, growing file"),
    ours::<ByWriters<Streaming<false>>>("buffer_ring writer, growing file"),
];
pub const DURABLE: [Contestant; 4] = [
    ours::<Durable<false>>("buffer_ring append_durable"),
    ours::<DurableByWriters>("buffer_ring writer, durable"),
    super::tasks::FUTURES,
    ours::<Durable<true>>("append_durable, zero-filled"),
];

const fn ours<L: Log>(name: &'static str) -> Contestant {
    Contestant::of::<L>(Family::Ours, name)
}

/// A ring, and where its log is.
struct Ring {
    /// `None` once it is closed.
    ring: Option<BufferRing>,
    path: PathBuf,
    end: u64,
}

impl Ring {
    fn new(capacity: usize, buffer_size: usize, io: Option<QuikIO>, path: PathBuf) -> Outcome<Self> {
        let io_instance = io.map(Arc::new);
        let options = BufferRingOptions { capacity, buffer_size, io_instance, ..BufferRingOptions::default() };
        Ok(Self { ring: Some(BufferRing::try_with_options(options)?), path, end: 0 })
    }

    /// On a file that has been written to as far as the log will come.
    fn on_prepared(capacity: usize, buffer_size: usize, place: &Place) -> Outcome<Self> {
        let path = place.folder.join("log");
        let file = prepared(&path, place.expected)?;
        let io = QuikIO::builder(file).start_at(0).build()?;
        Self::new(capacity, buffer_size, Some(io), path)
    }

    /// On a file that grows.
    fn on_new(capacity: usize, buffer_size: usize, place: &Place) -> Outcome<Self> {
        let path = place.folder.join("grows");
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let io = QuikIO::new(direct(&path)?);
        Self::new(capacity, buffer_size, Some(io), path)
    }

    fn get(&self) -> &BufferRing {
        self.ring.as_ref().expect("not closed yet")
    }

    fn close(&mut self) -> Outcome<()> {
        if let Some(ring) = self.ring.take() {
            self.end = ring.close()?;
        }
        Ok(())
    }

    fn read_back(mut self, tally: &mut Tally) -> Outcome<bool> {
        self.close()?;
        scan_file(&self.path, self.end, tally)?;
        Ok(true)
    }
}

/// A log that is a ring.
trait OnRing: Log {
    fn ring(&self) -> &Ring;
}

impl OnRing for Staging {
    fn ring(&self) -> &Ring {
        &self.0
    }
}

impl<const PREPARED: bool> OnRing for Streaming<PREPARED> {
    fn ring(&self) -> &Ring {
        &self.0
    }
}

/// The same ring, through a writer for each thread.
pub struct ByWriters<L>(L);

impl<L: OnRing> Log for ByWriters<L> {
    type Writer<'a>
        = Leasing<'a>
    where
        L: 'a;

    fn open(place: &Place) -> Outcome<Self> {
        L::open(place).map(Self)
    }

    fn writer(&self, _: usize) -> Leasing<'_> {
        Leasing(self.0.ring().get().writer())
    }

    fn finish(&mut self) -> Outcome<()> {
        self.0.finish()
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct Leasing<'a>(buffer_ring::Writer<'a>);

impl Writer for Leasing<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.0.append(record).expect("the ring takes it");
    }
}

/// Durable appends through a writer for each thread.
pub struct DurableByWriters(Durable<false>);

impl Log for DurableByWriters {
    type Writer<'a> = DurableLeasing<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        Durable::open(place).map(Self)
    }

    fn writer(&self, _: usize) -> DurableLeasing<'_> {
        DurableLeasing(self.0.0.get().writer())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct DurableLeasing<'a>(buffer_ring::Writer<'a>);

impl Writer for DurableLeasing<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.0.append_durable(record).expect("the ring takes it");
    }
}

/// Without a device, unless the records have to be found again.
pub struct Staging(Ring);

impl Log for Staging {
    type Writer<'a> = Append<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        let capacity = place.memory / ONE_MEGABYTE_BLOCK;
        if place.checked {
            return Ok(Self(Ring::on_new(capacity, ONE_MEGABYTE_BLOCK, place)?));
        }
        let ring = Ring::new(capacity, ONE_MEGABYTE_BLOCK, None, PathBuf::new())?;
        // Page faults belong to no measurement.
        for _ in 0..2 * place.memory / 4096 {
            ring.get().append(&[1; 4096])?;
        }
        Ok(Self(ring))
    }

    fn writer(&self, _: usize) -> Append<'_> {
        Append(self.0.get())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

/// To a file, prepared or growing.
pub struct Streaming<const PREPARED: bool>(Ring);

impl<const PREPARED: bool> Log for Streaming<PREPARED> {
    type Writer<'a> = Append<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        const CAPACITY: usize = 8;
        let make = if PREPARED { Ring::on_prepared } else { Ring::on_new };
        Ok(Self(make(CAPACITY, ONE_MEGABYTE_BLOCK, place)?))
    }

    fn writer(&self, _: usize) -> Append<'_> {
        Append(self.0.get())
    }

    fn finish(&mut self) -> Outcome<()> {
        self.0.close()
    }

    fn length(&self) -> Option<u64> {
        (!PREPARED).then(|| fs::metadata(&self.0.path).ok()).flatten().map(|metadata| metadata.len())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct Append<'a>(&'a BufferRing);

impl Writer for Append<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.0.append(record).expect("the ring takes it");
    }
}

/// Each append waits until it is on stable storage. On a new file, the ring prepares space by itself.
pub struct Durable<const PREPARED: bool>(Ring);

impl<const PREPARED: bool> Durable<PREPARED> {
    pub fn ring(&self) -> &BufferRing {
        self.0.get()
    }
}

impl<const PREPARED: bool> Log for Durable<PREPARED> {
    type Writer<'a> = AppendDurable<'a>;

    fn open(place: &Place) -> Outcome<Self> {
        let make = if PREPARED { Ring::on_prepared } else { Ring::on_new };
        Ok(Self(make(8, 256 << 10, place)?))
    }

    fn writer(&self, _: usize) -> AppendDurable<'_> {
        AppendDurable(self.0.get())
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        self.0.read_back(tally)
    }
}

pub struct AppendDurable<'a>(&'a BufferRing);

impl Writer for AppendDurable<'_> {
    #[inline]
    fn append(&mut self, record: &[u8]) {
        self.0.append_durable(record).expect("the ring takes it");
    }
}
