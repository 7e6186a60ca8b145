//! The frame of each batch: header, checksums, and the news for the keeper.

use std::sync::Arc;

use buffer_ring::{BatchInfo, Framing, Margins};

use super::keeper::Progress;
use crate::format::{self, BLOCK, HEADER_LEN, RECORD_HEADER_LEN, RecordType};

/// A checksum for each block, and one for all of them.
const MARGINS: Margins = Margins { header: HEADER_LEN, trailer: 8, trailer_per_block: 8 };

/// The longest payload that the ring takes as one record.
pub(super) const fn longest_payload(buffer_size: usize) -> usize {
    let blocks = buffer_size / BLOCK;
    buffer_size - MARGINS.header - MARGINS.trailer - blocks * MARGINS.trailer_per_block - RECORD_HEADER_LEN
}

/// Frames the batches of a log that is open.
#[derive(Debug)]
pub(super) struct Sealer {
    pub(super) framing: format::Framing,
    /// The address of the last batch before the ring's first, or `NO_ADDRESS`.
    pub(super) previous: u64,
    pub(super) progress: Arc<Progress>,
}

impl Framing for Sealer {
    fn margins(&self) -> Margins {
        MARGINS
    }

    fn seal(&self, info: &BatchInfo, header: &mut [u8], payload: &[u8], trailer: &mut [u8]) {
        let batch = format::BatchInfo {
            base: info.base,
            generation: info.generation - 1,
            previous: info.previous.unwrap_or(self.previous),
            next_base: info.next,
            last: info.last,
            payload_len: payload.len() as u32,
            durable: info.durable,
        };
        self.framing.seal_around(header, payload, trailer, batch);
        let is_empty = payload.len() == RECORD_HEADER_LEN && payload[6] == RecordType::NoOp as u8;
        let batch_len = header.len() + payload.len() + trailer.len();
        self.progress.sealed(info, batch_len, is_empty);
    }
}
