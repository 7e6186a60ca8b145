//! What the log holds of a page: the whole of it, or what was written since an earlier record.

use std::io;

use ringlog::Lsn;

use crate::page::{InLog, PAGE};

/// The kinds of the log's records.
const WHOLE: u8 = 1;
const INCREMENT: u8 = 2;

/// What a record of a page is to hold.
pub(crate) enum Content<'a> {
    Whole(Box<[u8]>),
    /// Writes, each of some bytes at a place in the page, upon what the log holds already.
    Increment(InLog, Vec<(usize, &'a [u8])>),
}

impl Content<'_> {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Whole(_) => WHOLE,
            Self::Increment(..) => INCREMENT,
        }
    }

    /// Bytes of the record.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(page) => 4 + page.len(),
            Self::Increment(_, writes) => writes.iter().fold(12, |len, (_, bytes)| len + 4 + bytes.len()),
        }
    }

    /// Writes the record in place, all of `record`.
    pub(crate) fn encode(&self, page: u32, record: &mut [u8]) {
        let (id, mut rest) = record.split_at_mut(4);
        id.copy_from_slice(&page.to_le_bytes());
        let mut put = |bytes: &[u8]| {
            let (target, behind) = core::mem::take(&mut rest).split_at_mut(bytes.len());
            target.copy_from_slice(bytes);
            rest = behind;
        };
        match self {
            Self::Whole(bytes) => put(bytes),
            Self::Increment(upon, writes) => {
                put(&upon.newest.to_bytes());
                for (at, bytes) in writes {
                    put(&(*at as u16).to_le_bytes());
                    put(&(bytes.len() as u16).to_le_bytes());
                    put(bytes);
                }
            }
        }
    }
}

/// A record, read back.
pub(crate) struct Read<'a> {
    pub(crate) page: u32,
    /// The record that this one adds to; `None`: it holds the whole page.
    pub(crate) previous: Option<Lsn>,
    bytes: &'a [u8],
}

impl<'a> Read<'a> {
    pub(crate) fn decode(kind: u8, record: &'a [u8]) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the log has a record that is none of a page store");
        let (page, bytes) = record.split_first_chunk().ok_or_else(bad)?;
        let page = u32::from_le_bytes(*page);
        match kind {
            WHOLE if bytes.len() == PAGE => Ok(Self { page, previous: None, bytes }),
            INCREMENT => {
                let (previous, bytes) = bytes.split_first_chunk().ok_or_else(bad)?;
                Ok(Self { page, previous: Some(Lsn::from_bytes(*previous)), bytes })
            }
            _ => Err(bad()),
        }
    }

    /// Puts what the record holds into the page that it belongs to; `None`: it does not fit.
    pub(crate) fn apply(&self, page: &mut [u8]) -> Option<()> {
        if self.previous.is_none() {
            page.copy_from_slice(self.bytes);
            return Some(());
        }
        let mut rest = self.bytes;
        while let Some((head, behind)) = rest.split_first_chunk::<4>() {
            let [at, len] =
                [[head[0], head[1]], [head[2], head[3]]].map(|bytes| usize::from(u16::from_le_bytes(bytes)));
            let (bytes, behind) = behind.split_at_checked(len)?;
            page.get_mut(at..at + len)?.copy_from_slice(bytes);
            rest = behind;
        }
        Some(())
    }
}
