//! What an operator can say about the log.

use super::disk::BLOCK_BYTES;
use super::format::{BATCH_BYTES_LIMIT, RECORD_OVERHEAD_BYTES};

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a record counts as flushed. Default [`Sync::Always`].
    pub sync: Sync,
    /// Size of a segment's file. Larger is fewer files; smaller frees disk sooner. Default 64 MiB;
    /// a multiple of 4 KiB, at most 2 GiB, and room for four batches.
    pub segment_bytes: u64,
    /// Longest batch, which is one write; a record must fit in one. Default 4 MiB, at most 16 MiB.
    pub batch_bytes_max: usize,
    /// Bytes that wait for the disk after which [`Log::admission`](super::Log::admission) says
    /// `Busy`, so that sessions stop reading. At four times as many, appending is refused. Default
    /// 16 MiB.
    pub unwritten_bytes_max: u64,
    /// Segments kept ready beside the reserve. Default 1.
    pub spare_segments_min: usize,
    /// Segments kept for settles and definitions when the disk is full. They must hold what had been
    /// admitted when it filled up, too. Default 2.
    pub reserve_segments: usize,
    /// Ready segments, with the reserve, beyond which a released one is removed. Default 4.
    pub spare_segments_max: usize,
    /// Free space of the file system under which the log takes no more of it for publishes. Default
    /// 256 MiB.
    pub free_bytes_min: u64,
    /// How fast segments are zeroed ahead. Unthrottled, zeroing takes the disk from the log, which was
    /// seen to drop to an eighth. Default 64 MiB/s.
    pub zero_bytes_per_sec: u64,
    /// How fast old segments are verified in the background; 0 is never. Default 4 MiB/s.
    pub scrub_bytes_per_sec: u64,
    /// How long the log is idle before it notes on the disk that its last batch was synced, after which
    /// damage to that batch is told from a torn write. Default 100 ms.
    pub seal_after_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: Sync::Always,
            segment_bytes: 64 << 20,
            batch_bytes_max: 4 << 20,
            unwritten_bytes_max: 16 << 20,
            spare_segments_min: 1,
            reserve_segments: 2,
            spare_segments_max: 4,
            free_bytes_min: 256 << 20,
            zero_bytes_per_sec: 64 << 20,
            scrub_bytes_per_sec: 4 << 20,
            seal_after_ms: 100,
        }
    }
}

impl Options {
    /// Checks the bounds, also those between one option and another.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let refused = |option, allowed: String| Err(OutOfBounds { option, allowed });
        let block = BLOCK_BYTES as u64;
        if !self.segment_bytes.is_multiple_of(block) || self.segment_bytes > 2 << 30 {
            return refused("segment_bytes", "a multiple of 4096, at most 2 GiB".into());
        }
        if self.batch_bytes_max < 2 * RECORD_OVERHEAD_BYTES || self.batch_bytes_max > BATCH_BYTES_LIMIT {
            return refused("batch_bytes_max", "between 256 bytes and 16 MiB".into());
        }
        // A batch begins anywhere in a block, and the file's first block is its header.
        let bytes_min = 4 * self.batch_bytes_max as u64 + 3 * block;
        if self.segment_bytes < bytes_min {
            return refused("segment_bytes", format!("at least {bytes_min}: room for four batches (batch_bytes_max)"));
        }
        let spares_min = self.spare_segments_min + self.reserve_segments;
        if self.spare_segments_max < spares_min {
            return refused("spare_segments_max", format!("at least {spares_min}: more than reserve_segments"));
        }
        // What was admitted before the disk was full must fit, or nothing of it is ever flushed.
        let reserve_bytes = (self.reserve_segments as u64).saturating_mul(self.segment_bytes);
        if self.unwritten_bytes_max >= reserve_bytes {
            let allowed = format!("less than the reserve (reserve_segments times segment_bytes, {reserve_bytes})");
            return refused("unwritten_bytes_max", allowed);
        }
        if self.zero_bytes_per_sec == 0 {
            return refused("zero_bytes_per_sec", "more than 0".into());
        }
        Ok(())
    }
}

/// An option that has a value it may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: must be {allowed}")]
pub struct OutOfBounds {
    /// Name of its field.
    pub option: &'static str,
    /// What it may be, beside the other options as they are.
    pub allowed: String,
}

/// When a record counts as flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When it is on stable storage.
    Always,
    /// When the operating system has it. A power cut loses confirmed messages: for benchmarks only.
    Os,
}
