//! The open log: appending, waiting, reading, releasing. What the layer above holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::cold::{ColdFile, ColdWriter};
use super::error::{Corruption, Failure, ReadError, Refused};
use super::format::{Head, Position, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES, Record, StoreId};
use super::reader::{Block, Found, Reading};
use super::segments::SegmentInfo;
use super::shared::{Shared, Urgency};

/// An open log. All threads share it by reference; dropping it writes and syncs what was appended, and
/// ends its threads.
///
/// Threads, started by [`Recovered::start`](super::Recovered::start) and ended by [`Log::close`]: the
/// writer (writes and syncs batches), the housekeeper (zeroes, recycles and removes segments), the
/// scrubber (verifies old segments slowly).
pub struct Log {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Who is told of what happens in the log. Called from its threads, never under a lock of the store;
/// a call that waits holds up the log.
pub trait Owner: Send + Sync {
    /// Everything before `to` is durable. Called after each advance, in order, by the writer thread.
    fn flushed(&self, to: Position);

    /// The disk fills up, or has room again.
    fn space_changed(&self, space: Space) {
        let _ = space;
    }

    /// The log has failed: nothing is flushed any more. Confirm nothing, and end the process.
    fn failed(&self, failure: &Failure);

    /// The scrubber found damage in what was durable.
    fn corrupted(&self, corruption: &Corruption) {
        let _ = corruption;
    }
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it begins: what [`Log::read`] is given.
    pub position: Position,
    /// The place after it: it is durable when [`Log::flushed`] has reached this.
    pub end: Position,
}

/// Room for records on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ok,
    /// No more segments can be made: publishers must stop, while settles and definitions go on from
    /// the reserve.
    Low,
    /// The reserve is used up as well: nothing is written until a segment is released or space
    /// returns.
    Full,
}

/// Figures for operators and measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of the log that were made durable since the start, headers and padding included.
    pub written_bytes: u64,
    /// Bytes of the cold files that were made since the start.
    pub cold_written_bytes: u64,
    /// Segments of the log.
    pub segments_count: usize,
    /// Files that are ready to be a segment, or wait to be made so or removed.
    pub unused_count: usize,
    /// Cold files.
    pub cold_count: usize,
    /// What all of them take on the disk, as far as they may not be shorter.
    pub files_bytes: u64,
}

/// Whether a session may read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes. What is admitted now will fit.
    Open,
    /// The disk is behind: read on after some later `flushed`.
    Busy,
    /// The disk is full: only what frees space, and definitions.
    DiskLow,
    /// Nothing becomes durable any more.
    Failed,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>, threads: Vec<JoinHandle<()>>) -> Self {
        Self { shared, threads: Mutex::new(threads) }
    }

    /// Appends a record. Never waits for the disk: the record is durable once [`Log::flushed`] has
    /// reached its `end`. Records are kept in the order in which calls return.
    #[inline]
    pub fn append(&self, head: Head, parts: &[&[u8]]) -> Result<Appended, Refused> {
        self.shared.append(head, parts, Urgency::Ordinary)
    }

    /// The same for a record that may use the reserve of a full disk, and that is never refused because
    /// the disk is behind: what frees space, a definition, or what was admitted before.
    #[inline]
    pub fn append_essential(&self, head: Head, parts: &[&[u8]]) -> Result<Appended, Refused> {
        self.shared.append(head, parts, Urgency::Essential)
    }

    /// The same for a record that nobody is known to wait for. It is written with the next one that is not
    /// so, after [`Log::hasten`], or else some milliseconds later: a sync for each would hold up those who
    /// read.
    #[inline]
    pub fn append_patient(&self, head: Head, parts: &[&[u8]]) -> Result<Appended, Refused> {
        self.shared.append(head, parts, Urgency::Patient)
    }

    /// Somebody waits for what was appended.
    pub fn hasten(&self) {
        self.shared.hasten();
    }

    /// Identity of the store, made with its directory.
    pub fn id(&self) -> StoreId {
        self.shared.store
    }

    /// Longest body of a record.
    pub fn body_bytes_max(&self) -> usize {
        self.shared.options.batch_bytes_max - RECORD_OVERHEAD_BYTES
    }

    /// Asked by sessions before they read: what is admitted always fits.
    #[inline]
    pub fn admission(&self) -> Admission {
        self.shared.admission()
    }

    /// Everything before this is durable.
    #[inline]
    pub fn flushed(&self) -> Position {
        self.shared.flushed()
    }

    /// Place after the last record that was appended.
    pub fn end(&self) -> Position {
        self.shared.gather.lock().end()
    }

    /// Waits until everything before `position` is durable. For checkpoints and tests; sessions wait
    /// for [`Owner::flushed`] instead.
    pub fn wait_flushed(&self, position: Position) -> Result<(), Failure> {
        self.shared.wait_flushed(position)
    }

    /// Waits until everything that was appended before is durable; returns the place after it.
    pub fn flush(&self) -> Result<Position, Failure> {
        let end = self.end();
        self.wait_flushed(end).map(|()| end)
    }

    /// Why the log failed, if it did.
    pub fn failure(&self) -> Option<Failure> {
        self.shared.failure()
    }

    /// Room on the disk.
    pub fn space(&self) -> Space {
        self.shared.space()
    }

    /// Time of the broker, in milliseconds since 1970, with which later batches are stamped. It never
    /// runs backwards here.
    pub fn set_time(&self, time_ms: u64) {
        self.shared.time_ms.fetch_max(time_ms, Ordering::Relaxed);
    }

    /// Later records belong to this epoch.
    pub fn set_epoch(&self, epoch: u64) {
        self.shared.gather.lock().set_epoch(epoch);
    }

    /// Reads one record, verified by its own checksum, into `buffer`. Waits for the disk: call it from
    /// a thread that may. Also reads what a [`ColdWriter`] relocated.
    pub fn read<'a>(&self, position: Position, buffer: &'a mut Vec<u8>) -> Result<Record<'a>, ReadError> {
        self.shared.read(position, buffer)
    }

    /// Reads many records, each verified, and gives each to `each` with its place in `positions`.
    ///
    /// For positions in ascending order of which many are near each other: those are read at once, up to
    /// 1 MiB. Any other order gives the same answers, only slower. An error is that of one record, and the
    /// others are read all the same. Waits for the disk, like [`Log::read`].
    pub fn read_many(
        &self,
        positions: &[Position],
        reading: Reading,
        block: &mut Block,
        each: impl FnMut(usize, Result<Found<'_>, ReadError>),
    ) {
        self.shared.read_many(positions, reading, block, each);
    }

    /// The segments of the log, oldest first; the last is being written.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments.lock().infos(self.flushed())
    }

    /// Number of the segment that holds a flushed position; `None` if it was released.
    pub fn segment_of(&self, position: Position) -> Option<u64> {
        self.shared.segments.lock().holding(position).map(|segment| segment.number)
    }

    /// Gives up the segments that end at or before `position`; returns how many. The caller knows that
    /// they are dead: a durable checkpoint covers them, and nothing that lives is in them.
    pub fn release_before(&self, position: Position) -> usize {
        self.shared.release(|segment| segment.end.is_some_and(|end| end <= position))
    }

    /// Gives up one segment, under the same condition; `false` if it is unknown or being written.
    pub fn drop_segment(&self, number: u64) -> bool {
        self.shared.release(|segment| segment.number == number) == 1
    }

    /// Begins a cold file, for relocated records of one owner (a queue, say).
    pub fn cold_writer(&self, owner: u64) -> Result<ColdWriter, ReadError> {
        ColdWriter::create(&self.shared, owner)
    }

    /// The complete cold files.
    pub fn cold_files(&self) -> Vec<ColdFile> {
        self.shared.segments.lock().cold.values().copied().collect()
    }

    /// Removes a cold file; `false` if it is unknown.
    pub fn drop_cold(&self, file: u32) -> bool {
        self.shared.drop_cold(file)
    }

    /// Figures of now.
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }

    /// Writes and syncs what was appended, and ends the threads. Later appends are refused. Not to be
    /// called by the [`Owner`], from one of those threads: it would wait for itself. The same holds for
    /// dropping the log.
    pub fn close(&self) {
        self.shared.close();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so, and there is nothing left to do with it.
            let _ = thread.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

const _: () = assert!(RECORD_HEADER_BYTES < RECORD_OVERHEAD_BYTES);
