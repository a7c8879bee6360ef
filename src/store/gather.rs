//! Where appended records gather while the writer thread is busy: batches in the making.
//!
//! A record is copied once, into the buffer that is later written as it is. Positions are given out
//! here; which segment a batch ends up in is not known yet and does not matter.
//!
//! Invariants:
//! - batches follow each other without a gap: the first position of one is the end of the one before;
//! - a batch is at most `batch_bytes_max` long, padding included.

use std::collections::VecDeque;

use super::disk::BLOCK_BYTES;
use super::format::{self, BATCH_ALIGN, BATCH_HEADER_BYTES, Head, Position, RECORD_HEADER_BYTES};

/// Buffers kept for the next batches. More than that only wait when the disk is slow.
const POOL_BUFFERS_MAX: usize = 4;
const BUFFER_BYTES_MIN: usize = 64 << 10;
/// What may wait for more at most, in bytes.
const LINGER_BYTES_MAX: usize = BUFFER_BYTES_MIN;

/// What the writer waits for. Waking it is worth a system call only when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterState {
    /// Nothing: it will look by itself.
    Busy,
    /// Something to write.
    Asleep,
    /// More, since nobody waits for what there is.
    Lingering,
}

/// Batches that the writer has not taken.
pub(super) struct Gather {
    current: Batch,
    sealed: VecDeque<Batch>,
    pool: Vec<Buffer>,
    batch_bytes_max: usize,
    pub(super) writer: WriterState,
    /// Somebody waits for some of what has gathered.
    pub(super) is_urgent: bool,
    /// Nothing more is taken.
    pub(super) is_closed: bool,
}

impl Gather {
    pub(super) fn new(first: Position, epoch: u64, batch_bytes_max: usize) -> Self {
        Self {
            current: Batch::new(first, epoch, Buffer::new(BUFFER_BYTES_MIN)),
            sealed: VecDeque::new(),
            pool: Vec::new(),
            batch_bytes_max,
            writer: WriterState::Busy,
            is_urgent: false,
            is_closed: false,
        }
    }

    /// Copies a record to the end; returns where it begins. `body_bytes` is the length of all parts
    /// and was checked to fit in a batch.
    #[inline]
    pub(super) fn append(&mut self, head: Head, parts: &[&[u8]], body_bytes: usize) -> Position {
        let bytes = RECORD_HEADER_BYTES + body_bytes;
        if self.current.bytes + bytes + BATCH_ALIGN > self.batch_bytes_max {
            self.rotate();
        }
        self.current.push(head, parts, bytes)
    }

    /// Position after the last record.
    pub(super) fn end(&self) -> Position {
        if self.current.records == 0 { self.current.first } else { self.current.first.plus(self.current.bytes) }
    }

    /// Later records belong to this epoch.
    pub(super) fn set_epoch(&mut self, epoch: u64) {
        if self.current.records > 0 {
            self.rotate();
        }
        self.current.epoch = epoch;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.records == 0 && self.sealed.is_empty()
    }

    /// Whether what has gathered may wait for more: nobody waits for it, and it is not much.
    pub(super) fn is_patient(&self) -> bool {
        !self.is_urgent && !self.is_closed && self.sealed.is_empty() && self.current.bytes < LINGER_BYTES_MAX
    }

    /// Whether the writer is to be woken for what has gathered; whoever asks does it.
    #[inline]
    pub(super) fn takes_wake(&mut self) -> bool {
        let is_due = match self.writer {
            WriterState::Busy => false,
            WriterState::Asleep => true,
            WriterState::Lingering => !self.is_patient(),
        };
        if is_due {
            self.writer = WriterState::Busy;
        }
        is_due
    }

    /// Moves everything that gathered to `batches`.
    pub(super) fn take(&mut self, batches: &mut VecDeque<Batch>) {
        if self.current.records > 0 {
            self.rotate();
        }
        batches.append(&mut self.sealed);
        self.is_urgent = false;
    }

    /// A batch without records, which only carries the watermark.
    pub(super) fn take_empty(&mut self) -> Batch {
        assert!(self.is_empty(), "an empty batch is for an idle log");
        self.rotate();
        self.sealed.pop_back().expect("rotate() pushed one")
    }

    /// Takes back the buffer of a batch that was written.
    pub(super) fn give_back(&mut self, batch: Batch) {
        if self.pool.len() < POOL_BUFFERS_MAX {
            self.pool.push(batch.buffer);
        }
    }

    fn rotate(&mut self) {
        let first = self.current.end();
        let buffer = self.pool.pop().unwrap_or_else(|| Buffer::new(BUFFER_BYTES_MIN));
        let next = Batch::new(first, self.current.epoch, buffer);
        self.sealed.push_back(std::mem::replace(&mut self.current, next));
    }
}

/// One batch in its buffer, placed so that the buffer begins where a block of the file begins.
pub(super) struct Batch {
    buffer: Buffer,
    /// Bytes of the first block that belong to the batch before.
    skew: usize,
    /// Length so far, with the header.
    bytes: usize,
    pub(super) records: u32,
    pub(super) first: Position,
    pub(super) epoch: u64,
}

impl Batch {
    fn new(first: Position, epoch: u64, buffer: Buffer) -> Self {
        let skew = (first.0 % BLOCK_BYTES as u64) as usize;
        Self { buffer, skew, bytes: BATCH_HEADER_BYTES, records: 0, first, epoch }
    }

    #[inline]
    fn push(&mut self, head: Head, parts: &[&[u8]], bytes: usize) -> Position {
        let position = self.first.plus(self.bytes);
        let at = self.skew + self.bytes;
        // Room for the padding of the batch and of its last block, too.
        self.buffer.reserve(at + bytes + BATCH_ALIGN + BLOCK_BYTES, at);
        let record = &mut self.buffer.bytes_mut()[at..at + bytes];
        format::put_record_header(record, head, (bytes - RECORD_HEADER_BYTES) as u32);
        let mut rest = &mut record[RECORD_HEADER_BYTES..];
        for part in parts {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        self.bytes += bytes;
        self.records += 1;
        position
    }

    /// Its length as it will be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.next_multiple_of(BATCH_ALIGN)
    }

    /// Position after it.
    pub(super) fn end(&self) -> Position {
        self.first.plus(self.bytes())
    }

    /// Completes the blocks that the batch lies in: `before` are the bytes of its first block that
    /// belong to the batch before. Returns the batch itself, for its header and checksums.
    pub(super) fn complete(&mut self, before: &[u8]) -> &mut [u8] {
        let (skew, bytes, padded) = (self.skew, self.bytes, self.bytes());
        let end = (skew + padded).next_multiple_of(BLOCK_BYTES);
        self.buffer.reserve(end, skew + bytes);
        let buffer = self.buffer.bytes_mut();
        if before.is_empty() {
            buffer[..skew].fill(0);
        } else {
            buffer[..skew].copy_from_slice(before);
        }
        buffer[skew + bytes..end].fill(0);
        &mut buffer[skew..skew + padded]
    }

    /// What is to be written: whole blocks.
    pub(super) fn blocks(&self) -> &[u8] {
        &self.buffer.bytes()[..(self.skew + self.bytes()).next_multiple_of(BLOCK_BYTES)]
    }

    /// The bytes of its last block, up to its end: what the next write begins with.
    pub(super) fn tail(&self) -> &[u8] {
        let end = self.skew + self.bytes();
        &self.buffer.bytes()[end - end % BLOCK_BYTES..end]
    }
}

/// Bytes aligned to a block.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    skew: usize,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + BLOCK_BYTES];
        let skew = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Self { bytes, skew }
    }

    /// Makes room for `capacity` bytes, keeping the first `used`.
    #[inline]
    fn reserve(&mut self, capacity: usize, used: usize) {
        if capacity > self.bytes.len() - BLOCK_BYTES {
            self.grow(capacity, used);
        }
    }

    #[cold]
    fn grow(&mut self, capacity: usize, used: usize) {
        let mut grown = Self::new(capacity.next_power_of_two());
        grown.bytes_mut()[..used].copy_from_slice(&self.bytes()[..used]);
        *self = grown;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.skew..]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skew..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_each_other_across_batches() {
        let mut gather = Gather::new(Position(0), 1, 4096);
        let mut batches = VecDeque::new();
        let first = gather.append(Head::new(1, 0), &[b"ab", b"cde"], 5);
        assert_eq!(first, Position(BATCH_HEADER_BYTES as u64));
        gather.take(&mut batches);
        let end = batches[0].end();
        assert_eq!(end.0 % BATCH_ALIGN as u64, 0);
        let second = gather.append(Head::new(1, 0), &[b"f"], 1);
        assert_eq!(second, end.plus(BATCH_HEADER_BYTES));
    }

    #[test]
    fn a_batch_is_full_at_its_bound() {
        let mut gather = Gather::new(Position(0), 1, 4096);
        let mut batches = VecDeque::new();
        for _ in 0..100 {
            gather.append(Head::new(1, 0), &[&[7; 100]], 100);
        }
        gather.take(&mut batches);
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| batch.bytes() <= 4096));
    }

    #[test]
    fn a_buffer_that_grows_keeps_what_it_has() {
        let mut gather = Gather::new(Position(8), 1, 4 << 20);
        let mut batches = VecDeque::new();
        for at in 0..40_u8 {
            gather.append(Head::new(1, 0), &[&[at; 9000]], 9000);
        }
        gather.take(&mut batches);
        let batch = &mut batches[0];
        let bytes = batch.complete(&[1; 8]).to_vec();
        for at in 0..40 {
            let body = BATCH_HEADER_BYTES + at * 9012 + RECORD_HEADER_BYTES;
            assert!(bytes[body..body + 9000].iter().all(|byte| *byte == at as u8));
        }
        assert_eq!(batch.blocks()[..8], [1; 8]);
        assert!(batch.blocks().as_ptr().align_offset(BLOCK_BYTES) == 0);
    }

    #[test]
    fn what_nobody_waits_for_may_wait_unless_it_is_much_or_the_log_ends() {
        let gather = || Gather::new(Position(0), 1, 1 << 20);
        let append = |gather: &mut Gather, bytes: usize| _ = gather.append(Head::new(1, 0), &[&vec![0; bytes]], bytes);
        let mut little = gather();
        append(&mut little, 100);
        assert!(little.is_patient());
        little.is_closed = true;
        assert!(!little.is_patient());
        let mut much = gather();
        append(&mut much, LINGER_BYTES_MAX);
        assert!(!much.is_patient());
        let mut wanted = gather();
        append(&mut wanted, 100);
        wanted.is_urgent = true;
        assert!(!wanted.is_patient());
        wanted.take(&mut VecDeque::new());
        append(&mut wanted, 100);
        assert!(wanted.is_patient(), "what was wanted has been taken");
    }
}
