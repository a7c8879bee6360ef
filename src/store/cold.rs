//! Cold files: records that were moved out of sparse segments, one owner a file, dropped whole.
//!
//! A cold file is the header of a segment and then records, each with its own checksum, without batches.
//! It counts only once it is complete: it is written under another name, synced and then renamed. Its
//! records are named by positions with the highest bit set, and read by [`Log::read`](super::Log::read).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Access, Disk, File};
use super::error::ReadError;
use super::format::{self, Head, Position, Purpose, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::segments::{IDENTITY_FILE, cold_name};
use super::shared::Shared;

/// Gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

/// A complete cold file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdFile {
    /// Its number, for [`Log::drop_cold`](super::Log::drop_cold).
    pub number: u32,
    /// Whose records it has.
    pub owner: u64,
    /// Its size.
    pub file_bytes: u64,
}

/// Writes a cold file. Waits for the disk: use it from a thread that may. A writer that is dropped
/// leaves nothing behind.
pub struct ColdWriter {
    shared: Arc<Shared>,
    file: Box<dyn File>,
    path: PathBuf,
    header: SegmentHeader,
    number: u32,
    owner: u64,
    buffer: Vec<u8>,
    /// What is in the file already.
    written: u64,
    is_finished: bool,
}

impl ColdWriter {
    pub(super) fn create(shared: &Arc<Shared>, owner: u64) -> Result<Self, ReadError> {
        let number = shared.take_cold_number()?;
        let name = shared.segments.lock().new_name();
        let path = shared.path(&name);
        let file = shared.disk.create(&path, Access::Write).map_err(|error| failed(&path, error))?;
        let header = SegmentHeader {
            purpose: Purpose::Cold { owner },
            store: shared.store,
            number: u64::from(number),
            first: Position::cold(number, SEGMENT_HEADER_BYTES as u32),
            watermark: Position(0),
            chain: 0,
            batch: 0,
            epoch: 0,
            time_ms: shared.time_ms.load(std::sync::atomic::Ordering::Relaxed),
            // Set by `finish`, which knows it.
            file_bytes: 0,
            cold_reserved: 0,
        };
        let (shared, buffer) = (shared.clone(), header.encode());
        Ok(Self { shared, file, path, header, number, owner, buffer, written: 0, is_finished: false })
    }

    /// Number of the file.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its size so far.
    pub fn file_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds a record; returns its new position, which can be read after [`ColdWriter::finish`]. `None`
    /// when the file is as long as a segment may be, or the record longer than any may be: begin another.
    pub fn append(&mut self, head: Head, body: &[u8]) -> Result<Option<Position>, ReadError> {
        let at = self.file_bytes();
        let bytes = RECORD_HEADER_BYTES + body.len();
        if at + bytes as u64 > self.shared.options.segment_bytes || bytes > format::BATCH_BYTES_LIMIT {
            return Ok(None);
        }
        let position = Position::cold(self.number, at as u32);
        let start = self.buffer.len();
        self.buffer.resize(start + RECORD_HEADER_BYTES, 0);
        self.buffer.extend_from_slice(body);
        let record = &mut self.buffer[start..];
        format::put_record_header(record, head, body.len() as u32);
        format::seal_record(record, position);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok(Some(position))
    }

    /// Makes the file durable and known. Only after this may the records that it replaces be released.
    pub fn finish(mut self) -> Result<ColdFile, ReadError> {
        self.write()?;
        self.header.file_bytes = self.written;
        let path = self.shared.path(&cold_name(self.number));
        let shared = self.shared.clone();
        let finished = self.file.write_all_at(&self.header.encode(), 0).and_then(|()| {
            self.file.sync_data()?;
            shared.disk.rename(&self.path, &path)?;
            shared.disk.sync_dir(&shared.dir)
        });
        finished.map_err(|error| failed(&path, error))?;
        self.is_finished = true;
        shared.cold_bytes.fetch_add(self.written, std::sync::atomic::Ordering::Relaxed);
        let cold = ColdFile { number: self.number, owner: self.owner, file_bytes: self.written };
        shared.segments.lock().cold.insert(self.number, cold);
        Ok(cold)
    }

    fn write(&mut self) -> Result<(), ReadError> {
        self.file.write_all_at(&self.buffer, self.written).map_err(|error| failed(&self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for ColdWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed now is removed at the next start.
            let _ = self.shared.disk.remove(&self.path);
        }
    }
}

impl Shared {
    /// A number that no cold file ever had, so that a place in one that is gone never names a record of
    /// another. Numbers are promised on the disk before they are used, many at a time.
    fn take_cold_number(&self) -> Result<u32, ReadError> {
        let mut reserved = self.cold_reserved.lock();
        let number = self.segments.lock().next_cold + 1;
        if number > *reserved {
            let path = self.path(IDENTITY_FILE);
            if number > NUMBER_MAX {
                return Err(failed(&path, io::Error::other("all numbers of cold files are used up")));
            }
            let promised = number.saturating_add(NUMBERS_AHEAD).min(NUMBER_MAX);
            let name = self.segments.lock().new_name();
            let header = SegmentHeader::identity(self.store, promised);
            write_identity(&*self.disk, &self.dir, &name, &header).map_err(|error| failed(&path, error))?;
            *reserved = promised;
        }
        self.segments.lock().next_cold = number;
        Ok(number)
    }
}

/// Puts the identity in the place of the one before, in one step. Also after an error the directory has
/// one of the two.
pub(super) fn write_identity(disk: &dyn Disk, dir: &Path, draft: &str, header: &SegmentHeader) -> io::Result<()> {
    let new = dir.join(draft);
    let file = disk.create(&new, Access::Write)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    disk.rename(&new, &dir.join(IDENTITY_FILE))?;
    disk.sync_dir(dir)
}

/// What a position has room for.
const NUMBER_MAX: u32 = (1 << 31) - 1;
/// Numbers promised at once. A restart leaves out those that were not used.
const NUMBERS_AHEAD: u32 = 255;

fn failed(path: &Path, error: io::Error) -> ReadError {
    ReadError::Io { path: path.into(), error }
}
