//! Reading records long after they were written: one, or many that lie near each other.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Access, BLOCK_BYTES};
use super::error::{Corruption, ReadError};
use super::format::{self, BATCH_BYTES_LIMIT, Position, RECORD_HEADER_BYTES, Record};
use super::options::Sync;
use super::segments::{cold_name, segment_name};
use super::shared::Shared;

/// Read at first, in the hope that the record is not longer.
const GUESS_BYTES: usize = 4 << 10;
/// Read at once when many records are wanted.
const SPAN_BYTES: u64 = 1 << 20;
/// Between two wanted records, read for nothing. A disk delivers about as much in the time of another
/// request.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Where a record is.
struct Place {
    path: PathBuf,
    segment: u64,
    /// First position of the file: its name among the open ones.
    key: Position,
    /// No record of the file reaches beyond this.
    end: u64,
}

impl Place {
    /// Where in this file another position is, if it is in this file.
    fn of(&self, position: Position) -> Option<u64> {
        if position < self.key || position.is_cold() != self.key.is_cold() {
            return None;
        }
        let at = if position.is_cold() { position.0 - self.key.0 } else { format::place_in(self.key, position) };
        (at < self.end).then_some(at)
    }
}

/// Bytes of a file that were read at once.
struct Span {
    place: Place,
    /// Where they begin in the file.
    at: u64,
    /// Where they are in the block; nothing else of it counts.
    filled: Range<usize>,
}

impl Span {
    /// Where in the block the record at a position is, if it is there whole. Nothing of it is verified.
    fn whole(&self, position: Position, block: &[u8]) -> Option<Range<usize>> {
        let skip = usize::try_from(self.place.of(position)?.checked_sub(self.at)?).ok()?;
        let begin = self.filled.start.checked_add(skip)?;
        let rest = block[..self.filled.end].get(begin..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES)?;
        let bytes = format::record_bytes(rest);
        (bytes <= rest.len()).then_some(begin..begin + bytes)
    }
}

/// What many records are read into, in long pieces. Whoever clones one holds what was read; a block that
/// nobody holds is read into again.
pub type Block = Arc<Vec<u8>>;

/// Whether what is read is going to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Hardly: past the page cache, which is kept for what is. That saves a copy, too.
    Once,
    /// By others, soon: through the page cache.
    Shared,
}

/// One of many records.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The record.
    pub record: Record<'a>,
    /// What it was read into, with others.
    pub block: &'a Block,
    /// Where the record's body begins in the block.
    pub at: usize,
}

impl Shared {
    pub(super) fn read<'a>(&self, position: Position, buffer: &'a mut Vec<u8>) -> Result<Record<'a>, ReadError> {
        let place = self.place(position)?;
        let filled = match self.fetch(&place, position, buffer) {
            Ok(filled) => filled,
            Err(error) => return Err(self.failed(place, position, error)),
        };
        let span = Span { at: place.of(position).unwrap_or(place.end), filled: 0..filled, place };
        let Some(record) = span.whole(position, buffer) else {
            return Err(self.damage(&span.place, position, "length of the record"));
        };
        match format::check_record(&buffer[record.clone()], position) {
            Ok(()) => Ok(format::record(&buffer[record], position)),
            Err(what) => Err(self.damage(&span.place, position, what)),
        }
    }

    pub(super) fn read_many(
        &self,
        positions: &[Position],
        reading: Reading,
        block: &mut Block,
        mut each: impl FnMut(usize, Result<Found<'_>, ReadError>),
    ) {
        let mut span = None;
        for (index, position) in positions.iter().copied().enumerate() {
            match self.find(&mut span, &positions[index..], reading, block) {
                Ok(found) => {
                    let at = found.start + RECORD_HEADER_BYTES;
                    let record = format::record(&block[found], position);
                    each(index, Ok(Found { record, block, at }));
                }
                Err(error) => each(index, Err(error)),
            }
        }
    }

    /// Where in the block the first of `positions` is, verified. Reads on if it is not there, then as
    /// many of the others as are near it.
    fn find(
        &self,
        span: &mut Option<Span>,
        positions: &[Position],
        reading: Reading,
        block: &mut Block,
    ) -> Result<Range<usize>, ReadError> {
        let position = positions[0];
        let found = span.as_ref().and_then(|span| span.whole(position, block));
        let (record, span) = match (found, span) {
            (Some(record), Some(span)) => (record, span),
            (_, span) => {
                let place = match span.take() {
                    Some(span) if span.place.of(position).is_some() => span.place,
                    _ => self.place(position)?,
                };
                let span = span.insert(self.read_span(place, positions, reading, block)?);
                match span.whole(position, block) {
                    Some(record) => (record, span),
                    None => return Err(self.damage(&span.place, position, "length of the record")),
                }
            }
        };
        match format::check_record(&block[record.clone()], position) {
            Ok(()) => Ok(record),
            Err(what) => Err(self.damage(&span.place, position, what)),
        }
    }

    fn read_span(
        &self,
        place: Place,
        positions: &[Position],
        reading: Reading,
        block: &mut Block,
    ) -> Result<Span, ReadError> {
        let at = place.of(positions[0]).unwrap_or(place.end);
        let mut last = at;
        for next in positions[1..].iter().map_while(|next| place.of(*next)) {
            let gap = next.checked_sub(last);
            if gap.is_none_or(|gap| gap > GAP_BYTES_MAX) || next - at + GUESS_BYTES as u64 > SPAN_BYTES {
                break;
            }
            last = next;
        }
        let wanted = (last + GUESS_BYTES as u64).min(place.end) - at;
        match self.fill(&place, at, wanted as usize, reading, block) {
            Ok(filled) => Ok(Span { place, at, filled }),
            Err(error) => Err(self.failed(place, positions[0], error)),
        }
    }

    /// Reads so many bytes from a place on into a block that nobody else holds, and more if the record
    /// that begins there is longer. Returns where they are; a length that no record has is for the
    /// caller to find out.
    fn fill(
        &self,
        place: &Place,
        at: u64,
        wanted: usize,
        reading: Reading,
        block: &mut Block,
    ) -> io::Result<Range<usize>> {
        let is_direct = reading == Reading::Once && self.options.sync == Sync::Always;
        let access = if is_direct { Access::ReadDirect } else { Access::Read };
        let file = self.file(place.key, &place.path, access)?;
        // Whole blocks of the disk around what is wanted.
        let first = at - at % BLOCK_BYTES as u64;
        let skip = (at - first) as usize;
        let mut wanted = wanted;
        loop {
            let bytes = (skip + wanted).next_multiple_of(BLOCK_BYTES);
            let (to, skew) = room(block, bytes);
            let filled = skew + file.read_blocks_at(&mut to[skew..skew + bytes], first)?;
            let begin = (skew + skip).min(filled);
            let Some(rest) = to[begin..filled].get(..RECORD_HEADER_BYTES) else { return Ok(begin..filled) };
            let bytes = format::record_bytes(rest);
            if bytes <= wanted || bytes > BATCH_BYTES_LIMIT || at + bytes as u64 > place.end {
                return Ok(begin..filled);
            }
            wanted = bytes;
        }
    }

    /// Reads the record at a position, or as much of it as the file has, and returns how many bytes are in
    /// the buffer.
    fn fetch(&self, place: &Place, position: Position, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let at = place.of(position).unwrap_or(place.end);
        let wanted = (GUESS_BYTES as u64).min(place.end - at) as usize;
        let file = self.file(place.key, &place.path, Access::Read)?;
        // Never shorter again: only what is new must be cleared.
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let mut filled = file.read_full_at(&mut buffer[..wanted], at)?;
        if filled < RECORD_HEADER_BYTES {
            return Ok(filled);
        }
        let bytes = format::record_bytes(buffer);
        if bytes > filled && bytes <= BATCH_BYTES_LIMIT && at + bytes as u64 <= place.end {
            if buffer.len() < bytes {
                buffer.resize(bytes, 0);
            }
            filled += file.read_full_at(&mut buffer[filled..bytes], at + filled as u64)?;
        }
        Ok(filled)
    }

    fn failed(&self, place: Place, position: Position, error: io::Error) -> ReadError {
        match self.place(position) {
            Err(_) => ReadError::Released(position),
            Ok(_) => ReadError::Io { path: place.path, error },
        }
    }

    fn place(&self, position: Position) -> Result<Place, ReadError> {
        let segments = self.segments.lock();
        if position.is_cold() {
            let (file, _) = position.cold_parts();
            let cold = segments.cold.get(&file).ok_or(ReadError::Released(position))?;
            return Ok(Place {
                path: self.path(&cold_name(file)),
                segment: u64::from(file),
                key: Position::cold(file, 0),
                end: cold.file_bytes,
            });
        }
        if position >= self.flushed() {
            return Err(ReadError::NotFlushed(position));
        }
        let segment = segments.holding(position).ok_or(ReadError::Released(position))?;
        Ok(Place {
            path: self.path(&segment_name(segment.number)),
            segment: segment.number,
            key: segment.first,
            end: format::place_in(segment.first, segment.end.unwrap_or_else(|| self.flushed())),
        })
    }

    fn damage(&self, place: &Place, position: Position, what: &'static str) -> ReadError {
        self.forget_file(place.key);
        if self.place(position).is_err() {
            // Its file has other contents by now.
            return ReadError::Released(position);
        }
        ReadError::Corrupt(Corruption { file: place.path.clone(), segment: place.segment, position, what })
    }
}

/// A block for so many bytes, of its own, and where in it the first is that a disk can be read into.
fn room(block: &mut Block, bytes: usize) -> (&mut Vec<u8>, usize) {
    let is_fit = |block: &mut Vec<u8>| (bytes + BLOCK_BYTES..=2 * bytes + BLOCK_BYTES).contains(&block.len());
    if !Arc::get_mut(block).is_some_and(is_fit) {
        *block = Arc::new(vec![0; bytes + BLOCK_BYTES]);
    }
    let block = Arc::make_mut(block);
    let skew = block.as_ptr().align_offset(BLOCK_BYTES);
    (block, skew)
}
