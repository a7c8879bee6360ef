//! Filler: batches of given length that have what is whole of the bytes they replace.

use crate::store::format::{
    self, BATCH_BYTES_LIMIT, BATCH_HEADER_BYTES, BatchHeader, Head, LOST, Position, RECORD_HEADER_BYTES,
};
use crate::store::survey::next_record;

/// What stands in a salvaged record's place.
const LOST_HEAD: Head = Head { kind: LOST, version: 1, flags: 0 };

/// A batch in the place of damaged bytes, without its header.
pub(super) struct Filler {
    pub(super) batch: Vec<u8>,
    pub(super) records: u32,
    /// Those of them that are not lost.
    pub(super) rescued: u32,
    /// Ranges of it that are lost.
    pub(super) lost: Vec<(Position, u64)>,
}

/// How long the filler at the beginning of so many bytes is: at most a batch, and what it leaves has room
/// for another.
pub(super) fn piece_bytes(bytes: u64) -> usize {
    let piece = bytes.min(BATCH_BYTES_LIMIT as u64);
    let is_rest_too_short = bytes > piece && bytes - piece < BATCH_HEADER_BYTES as u64;
    (if is_rest_too_short { piece - BATCH_HEADER_BYTES as u64 } else { piece }) as usize
}

/// A batch as long as `damaged`, whose first byte is at `first`, with all of its records that are whole.
pub(super) fn filler(damaged: &[u8], first: Position) -> Filler {
    assert!(damaged.len() >= BATCH_HEADER_BYTES, "no batch is shorter than its header");
    let mut filler = Filler { batch: vec![0; damaged.len()], records: 0, rescued: 0, lost: Vec::new() };
    let mut done = BATCH_HEADER_BYTES;
    let mut from = done;
    while let Some(at) = next_record(damaged, from, first) {
        let bytes = format::record_bytes(&damaged[at..]);
        // Between two records there is nothing, or at least one record.
        if at > done && at - done < RECORD_HEADER_BYTES {
            from = at + 1;
            continue;
        }
        filler.lose(done, at, first);
        filler.batch[at..at + bytes].copy_from_slice(&damaged[at..at + bytes]);
        filler.records += 1;
        filler.rescued += 1;
        done = at + bytes;
        from = done;
    }
    filler.lose(done, damaged.len(), first);
    filler
}

impl Filler {
    /// Fills a range with a lost record. One that is too short is padding.
    fn lose(&mut self, from: usize, to: usize, first: Position) {
        if to - from >= RECORD_HEADER_BYTES {
            put_lost(&mut self.batch[from..to], first.plus(from));
            self.records += 1;
            self.lost.push((first.plus(from), (to - from) as u64));
        }
    }
}

/// Makes all of `bytes` one lost record.
pub(super) fn put_lost(bytes: &mut [u8], position: Position) {
    bytes.fill(0);
    let body_bytes = (bytes.len() - RECORD_HEADER_BYTES) as u32;
    format::put_record_header(bytes, LOST_HEAD, body_bytes);
    format::seal_record(bytes, position);
}

/// Where in the chain of batches the copy is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// Number of the next batch.
    pub(super) number: u64,
    /// Checksum of the last.
    pub(super) sum: u32,
    pub(super) epoch: u64,
    pub(super) time_ms: u64,
    pub(super) watermark: Position,
}

impl Chain {
    /// Seals a filler as the next batch.
    pub(super) fn seal_filler(&mut self, filler: &mut Filler, first: Position, tag: u32) {
        let header = BatchHeader {
            bytes: filler.batch.len() as u32,
            records: filler.records,
            number: self.number,
            first,
            epoch: self.epoch,
            time_ms: self.time_ms,
            watermark: self.watermark.min(first),
            chain: self.sum,
        };
        self.sum = header.seal(&mut filler.batch, tag);
        self.number += 1;
    }

    /// Makes a whole batch the next one; its records are not touched.
    pub(super) fn seal(&mut self, header: &BatchHeader, batch: &mut [u8], tag: u32) {
        let header = BatchHeader { number: self.number, chain: self.sum, ..*header };
        self.sum = header.seal(batch, tag);
        self.number += 1;
        (self.epoch, self.time_ms, self.watermark) = (header.epoch, header.time_ms, header.watermark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_leaves_nothing_or_a_batch() {
        let limit = BATCH_BYTES_LIMIT as u64;
        for bytes in [64, 72, limit, limit + 8, limit + 56, limit + 64, 2 * limit + 8] {
            let (mut left, mut pieces) = (bytes, 0);
            while left > 0 {
                let piece = piece_bytes(left);
                assert!((BATCH_HEADER_BYTES..=BATCH_BYTES_LIMIT).contains(&piece), "{bytes}");
                left -= piece as u64;
                pieces += 1;
            }
            assert_eq!(pieces, bytes.div_ceil(limit), "{bytes}");
        }
    }
}
