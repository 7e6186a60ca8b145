//! One totally ordered log of what happened at the disk and of what the ring reported to its users: everything else
//! is computed from it.

use core::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::{Key, RecordId};
use crate::records::Logged;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A write has arrived. Writes have the numbers 0, 1, 2, … in this order.
    Arrived {
        write: usize,
        offset: u64,
        bytes: Vec<u8>,
        synced: bool,
    },
    /// Its first `written` bytes have been written, and those of a synced write are on stable storage.
    Completed {
        write: usize,
        written: usize,
    },
    /// It failed; any part of it may have been written.
    Failed {
        write: usize,
    },
    /// While the disk was reading a write, its bytes changed.
    Changed {
        write: usize,
    },
    FlushBegan {
        flush: usize,
    },
    FlushEnded {
        flush: usize,
        succeeded: bool,
    },
    /// The file was cut or extended to this length.
    Resized {
        len: u64,
    },
    /// The key of the file's markers was changed; on stable storage it was not.
    KeyChanged {
        key: Option<Key>,
    },
    /// The key is on stable storage as it was when the flush or the synced write began that is ending.
    KeySynced {
        key: Option<Key>,
    },
    /// These bytes, which are no record but may look like anything, were placed here.
    Imitated {
        start: u64,
        bytes: Vec<u8>,
    },
    /// A thread is about to append this.
    Submitted {
        record: RecordId,
        len: u32,
    },
    /// The ring has accepted it, at this address.
    Placed {
        record: RecordId,
        start: u64,
    },
    /// The ring has refused it, so it must never be seen.
    Refused {
        record: RecordId,
    },
    /// The ring reports that this record is on stable storage.
    Acknowledged {
        record: RecordId,
    },
    /// The ring reports that everything below is on stable storage.
    Watermark {
        address: u64,
    },
    /// The number of records that went into leases of writers.
    Leased {
        records: u64,
    },
    /// What happened to a log of records.
    Logged(Logged),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrived { write, offset, bytes, synced } => {
                let kind = if *synced { "synced write" } else { "write" };
                write!(f, "{kind} {write} of {offset}..{} arrived", offset + bytes.len() as u64)
            }
            Self::Imitated { start, bytes } => write!(f, "a payload at {start}..{}", start + bytes.len() as u64),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What happened in one incarnation of a log, from its opening to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Log {
    /// The seed of all choices of the exploration.
    pub(crate) seed: u64,
    /// About how many images are tried.
    pub(crate) images: u64,
    /// In words: mode, engine, sizes.
    pub(crate) setting: String,
    /// Whether one write at a time is promised.
    pub(crate) serialized: bool,
    /// How far the log can be written behind what is missing: all buffers together. Nothing where a buffer may be
    /// opened again in place while another is in flight.
    pub(crate) reach: Option<u64>,
    /// The file system between the log and the disk, if there is one.
    pub(crate) file_system: Option<String>,
    /// The disk as it was found: the file of the log, where there is no file system.
    #[serde(with = "sparse")]
    pub(crate) before: Vec<u8>,
    /// The key of the file's markers then, where there is no file system.
    pub(crate) key: Option<Key>,
    /// Where in it the log begins.
    pub(crate) start: u64,
    pub(crate) events: Vec<Event>,
}

/// An image without its zero blocks.
mod sparse {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::record::{BLOCK, zeros};

    pub(super) fn serialize<S: Serializer>(image: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let blocks = image.chunks(BLOCK).enumerate().filter(|(_, block)| zeros(block) < block.len());
        (image.len(), blocks.collect::<Vec<_>>()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let (len, blocks) = <(usize, Vec<(usize, Vec<u8>)>)>::deserialize(deserializer)?;
        let mut image = vec![0; len];
        for (n, block) in blocks {
            image[n * BLOCK..n * BLOCK + block.len()].copy_from_slice(&block);
        }
        Ok(image)
    }
}

impl Log {
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, postcard::to_stdvec(self).map_err(io::Error::other)?)
    }

    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        postcard::from_bytes(&std::fs::read(path)?).map_err(io::Error::other)
    }
}
