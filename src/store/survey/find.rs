//! Finding whole records among bytes that are damaged, by their own checksums.

use crate::store::format::{self, BATCH_BYTES_LIMIT, Head, Position, RECORD_HEADER_BYTES};

/// Bytes of checksums that one search may compute: a bound of its time, far beyond what damage needs.
const EFFORT_BYTES: u64 = 1 << 30;

/// The first place from `from` on where a whole record stands; `base` is the position of `bytes[0]`.
///
/// A record's checksum covers its position, so that what looks like one elsewhere is none.
pub(in crate::store) fn next_record(bytes: &[u8], from: usize, base: Position) -> Option<usize> {
    let mut effort = EFFORT_BYTES;
    (from..bytes.len().saturating_sub(RECORD_HEADER_BYTES - 1)).find(|at| {
        let header = &bytes[*at..];
        let has_known_flags = u16::from_le_bytes([header[10], header[11]]) <= Head::MUST_UNDERSTAND;
        let length = format::record_bytes(header);
        if !has_known_flags || length > BATCH_BYTES_LIMIT || length > header.len() || effort < length as u64 {
            return false;
        }
        effort -= length as u64;
        format::check_whole(&header[..length], base.plus(*at)).is_ok()
    })
}
