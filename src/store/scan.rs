//! Reads the batches of one segment in order, each verified. Recovery and the scrubber use it.
//!
//! It says that something is wrong, not what that means: only who knows the watermarks can tell a torn
//! write from damage.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Access, Disk, File};
use super::error::{Corruption, OpenError};
use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, FORMAT_VERSION, HeaderFault, Position, SEGMENT_HEADER_BYTES,
    SegmentHeader, tag_of,
};

/// Read at once. A batch that is longer is read whole.
const WINDOW_BYTES: usize = 4 << 20;
/// Looked through at once in search of a batch.
const SEARCH_BYTES: usize = 64 << 10;

pub(super) struct Scanner {
    file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file_bytes: u64,
    tag: u32,
    window: Vec<u8>,
    window_at: u64,
    filled: usize,
    /// Where the next batch should begin.
    pub(super) next: Position,
    /// Its number.
    pub(super) number: u64,
    /// Checksum of the batch before it.
    pub(super) chain: u32,
}

/// What stands at the place of the next batch.
pub(super) enum Found<'a> {
    Batch(BatchHeader, &'a [u8]),
    Bad(&'static str),
}

impl Scanner {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, OpenError> {
        let file = disk.open(path, Access::Read).map_err(OpenError::io(path))?;
        let file_bytes = file.bytes().map_err(OpenError::io(path))?;
        let header = read_header(&*file, path)?;
        Ok(Self::with_header(file, path, file_bytes, header))
    }

    /// Reads a file whose header is not read from it.
    pub(super) fn with_header(file: Box<dyn File>, path: &Path, file_bytes: u64, header: SegmentHeader) -> Self {
        Self {
            file,
            path: path.into(),
            file_bytes,
            tag: tag_of(&header.store),
            window: Vec::new(),
            window_at: 0,
            filled: 0,
            next: header.first,
            number: header.batch,
            chain: header.chain,
            header,
        }
    }

    /// The next batch, with its bytes.
    pub(super) fn step(&mut self) -> io::Result<Found<'_>> {
        let place = self.header.place(self.next);
        let (next, tag) = (self.next, self.tag);
        let length = match BatchHeader::claim(self.bytes(place, BATCH_HEADER_BYTES)?, next, tag) {
            Ok(length) => length,
            Err(what) => return Ok(Found::Bad(what)),
        };
        let (number, chain) = (self.number, self.chain);
        let batch = self.bytes(place, length)?;
        if batch.len() < length {
            return Ok(Found::Bad("the batch is cut short"));
        }
        let (header, sum) = match BatchHeader::verify(batch) {
            Ok(verified) => verified,
            Err(what) => return Ok(Found::Bad(what)),
        };
        // A batch from before an earlier cut of the tail can stand at the right place, whole.
        if header.number != number || header.chain != chain {
            return Ok(Found::Bad("the batch does not follow the one before it"));
        }
        self.next = header.end();
        self.number += 1;
        self.chain = sum;
        // Again, since the borrow of the window ended above; it is all there.
        Ok(Found::Batch(header, self.bytes(place, length)?))
    }

    /// Looks behind a bad batch at `bad` for whole ones. Returns the highest watermark among them, and
    /// the place in the file after the last that claims to be one, whole or not.
    pub(super) fn look_behind(&mut self, bad: Position) -> io::Result<(Position, u64)> {
        let begin = self.header.place(bad.max(self.header.first));
        let (mut watermark, mut remains) = (Position(0), begin);
        let mut place = begin;
        loop {
            // Nearly all places hold no batch: look at many at a time.
            let bytes = self.bytes(place, SEARCH_BYTES)?;
            let looked_at = bytes.len() - bytes.len() % BATCH_ALIGN;
            let Some(ahead) = bytes.chunks_exact(BATCH_ALIGN).position(BatchHeader::may_begin) else {
                if looked_at == 0 {
                    break;
                }
                place += looked_at as u64;
                continue;
            };
            place += (ahead * BATCH_ALIGN) as u64;
            let position = Position(self.header.first.0 + (place - self.header.place(self.header.first)));
            let tag = self.tag;
            if let Ok(length) = BatchHeader::claim(self.bytes(place, BATCH_HEADER_BYTES)?, position, tag) {
                remains = remains.max(place + length as u64).min(self.file_bytes);
                let batch = self.bytes(place, length)?;
                if batch.len() == length
                    && let Ok((header, _)) = BatchHeader::verify(batch)
                {
                    watermark = watermark.max(header.watermark);
                }
            }
            place += BATCH_ALIGN as u64;
        }
        Ok((watermark, remains))
    }

    /// Whether a batch of this place claims to stand at `position`, whole or not; its length.
    pub(super) fn claim_at(&mut self, position: Position) -> io::Result<Option<usize>> {
        let (place, tag) = (self.header.place(position), self.tag);
        Ok(BatchHeader::claim(self.bytes(place, BATCH_HEADER_BYTES)?, position, tag).ok())
    }

    /// The next place from `from` on, before `end`, where a batch claims to stand.
    pub(super) fn next_claim(&mut self, from: Position, end: Option<Position>) -> io::Result<Option<Position>> {
        let mut position = Position(from.0.next_multiple_of(BATCH_ALIGN as u64));
        while end.is_none_or(|end| position < end) {
            let bytes = self.bytes(self.header.place(position), SEARCH_BYTES)?;
            let looked_at = bytes.len() - bytes.len() % BATCH_ALIGN;
            let Some(ahead) = bytes.chunks_exact(BATCH_ALIGN).position(BatchHeader::may_begin) else {
                if looked_at == 0 {
                    break;
                }
                position = position.plus(looked_at);
                continue;
            };
            position = position.plus(ahead * BATCH_ALIGN);
            if self.claim_at(position)?.is_some() {
                return Ok(Some(position).filter(|found| end.is_none_or(|end| *found < end)));
            }
            position = position.plus(BATCH_ALIGN);
        }
        Ok(None)
    }

    /// Goes on at `position`, where a batch claims to stand, as if everything before it were whole.
    pub(super) fn resume(&mut self, position: Position) -> io::Result<()> {
        let place = self.header.place(position);
        let header = self.bytes(place, BATCH_HEADER_BYTES)?;
        let (number, chain) = BatchHeader::numbers(header);
        (self.next, self.number, self.chain) = (position, number, chain);
        Ok(())
    }

    /// Reads anew what was read ahead: somebody may have written it since.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
    }

    pub(super) fn corruption(&self, position: Position, what: &'static str) -> Corruption {
        Corruption { file: self.path.clone(), segment: self.header.number, position, what }
    }

    /// Up to `bytes` bytes at a place; fewer at the end of the file.
    #[inline]
    pub(super) fn bytes(&mut self, place: u64, bytes: usize) -> io::Result<&[u8]> {
        let is_here = place >= self.window_at && place + bytes as u64 <= self.window_at + self.filled as u64;
        if !is_here {
            self.fill(place, bytes)?;
        }
        let at = (place - self.window_at) as usize;
        Ok(&self.window[at.min(self.filled)..(at + bytes).min(self.filled)])
    }

    fn fill(&mut self, place: u64, bytes: usize) -> io::Result<()> {
        let rest = usize::try_from(self.file_bytes.saturating_sub(place)).unwrap_or(usize::MAX);
        if self.window_at + self.filled as u64 == self.file_bytes && place >= self.window_at && self.filled > 0 {
            return Ok(()); // all that is left is here
        }
        let wanted = bytes.max(WINDOW_BYTES).min(rest);
        if self.window.len() < wanted {
            self.window.resize(wanted, 0);
        }
        self.filled = 0;
        self.filled = self.file.read_full_at(&mut self.window[..wanted], place)?;
        self.window_at = place;
        Ok(())
    }
}

/// Reads and checks a segment's header.
pub(super) fn read_header(file: &dyn File, path: &Path) -> Result<SegmentHeader, OpenError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let filled = file.read_full_at(&mut bytes, 0).map_err(OpenError::io(path))?;
    SegmentHeader::decode(&bytes[..filled]).map_err(|fault| match fault {
        HeaderFault::Newer(found) => OpenError::NewerFormat { file: path.into(), found, known: FORMAT_VERSION },
        HeaderFault::Damaged(what) => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let segment = match super::segments::file_kind(name) {
                super::segments::FileKind::Segment(number) => number,
                super::segments::FileKind::Cold(number) => u64::from(number),
                _ => 0,
            };
            OpenError::Corrupt(Corruption { file: path.into(), segment, position: Position(0), what })
        }
    })
}
