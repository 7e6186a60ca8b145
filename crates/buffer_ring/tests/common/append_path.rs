//! What a writer of a test appends by: the ring itself, or a writer of it. The lab has it from here.
#![allow(dead_code, reason = "each test file uses its part")]

use core::time::Duration;
use std::io::IoSlice;

use buffer_ring::{AppendError, BufferRing, Extent, Reservation, Writer};

/// Who has a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathMix {
    /// No thread.
    Ring,
    /// Every other writer.
    Mixed,
    /// All threads.
    Writers,
}

impl PathMix {
    pub(crate) const ALL: [Self; 3] = [Self::Ring, Self::Mixed, Self::Writers];

    /// That of writer number `writer`.
    pub(crate) fn of(self, ring: &BufferRing, writer: usize) -> AppendPath<'_> {
        match self {
            Self::Mixed if writer.is_multiple_of(2) => AppendPath::Writer(ring.writer()),
            Self::Writers => AppendPath::Writer(ring.writer()),
            _ => AppendPath::Ring(ring),
        }
    }
}

pub(crate) enum AppendPath<'a> {
    Ring(&'a BufferRing),
    Writer(Writer<'a>),
}

impl AppendPath<'_> {
    pub(crate) fn is_writer(&self) -> bool {
        matches!(self, Self::Writer(_))
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append(bytes),
            Self::Writer(writer) => writer.append(bytes),
        }
    }

    pub(crate) fn try_append(&mut self, bytes: &[u8]) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.try_append(bytes),
            Self::Writer(writer) => writer.try_append(bytes),
        }
    }

    pub(crate) fn append_timeout(&mut self, bytes: &[u8], timeout: Duration) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append_timeout(bytes, timeout),
            Self::Writer(writer) => writer.append_timeout(bytes, timeout),
        }
    }

    /// In two parts.
    pub(crate) fn append_cut(&mut self, bytes: &[u8], cut: usize) -> Result<Extent, AppendError> {
        let parts = [IoSlice::new(&bytes[..cut]), IoSlice::new(&bytes[cut..])];
        match self {
            Self::Ring(ring) => ring.append_vectored(&parts),
            Self::Writer(writer) => writer.append_vectored(&parts),
        }
    }

    pub(crate) fn append_durable(&mut self, bytes: &[u8]) -> Result<Extent, AppendError> {
        match self {
            Self::Ring(ring) => ring.append_durable(bytes),
            Self::Writer(writer) => writer.append_durable(bytes),
        }
    }

    pub(crate) fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        match self {
            Self::Ring(ring) => ring.reserve(len),
            Self::Writer(writer) => writer.reserve(len),
        }
    }

    pub(crate) fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        match self {
            Self::Ring(ring) => ring.try_reserve(len),
            Self::Writer(writer) => writer.try_reserve(len),
        }
    }
}
