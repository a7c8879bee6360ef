//! Reading records long after they were written: one, or many that lie near each other.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::error::{Corruption, ReadError};
use super::format::{self, BATCH_BYTES_LIMIT, Position, RECORD_HEADER_BYTES, Record};
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
    /// Where they begin.
    at: u64,
    /// How many they are; nothing in the buffer behind them counts.
    filled: usize,
}

impl Span {
    /// Where in the buffer the record at a position is, if it is there whole. Nothing of it is verified.
    fn whole(&self, position: Position, buffer: &[u8]) -> Option<Range<usize>> {
        let begin = usize::try_from(self.place.of(position)?.checked_sub(self.at)?).ok()?;
        let rest = buffer[..self.filled].get(begin..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES)?;
        let bytes = format::record_bytes(rest);
        (bytes <= rest.len()).then_some(begin..begin + bytes)
    }
}

impl Shared {
    pub(super) fn read<'a>(&self, position: Position, buffer: &'a mut Vec<u8>) -> Result<Record<'a>, ReadError> {
        let record = self.find(&mut None, &[position], buffer)?;
        Ok(format::record(&buffer[record], position))
    }

    pub(super) fn read_many(
        &self,
        positions: &[Position],
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(usize, Result<Record<'_>, ReadError>),
    ) {
        let mut span = None;
        for (index, position) in positions.iter().copied().enumerate() {
            match self.find(&mut span, &positions[index..], buffer) {
                Ok(record) => each(index, Ok(format::record(&buffer[record], position))),
                Err(error) => each(index, Err(error)),
            }
        }
    }

    /// Where in the buffer the first of `positions` is, verified. Reads on if it is not there, then as
    /// many of the others as are near it.
    fn find(
        &self,
        span: &mut Option<Span>,
        positions: &[Position],
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, ReadError> {
        let position = positions[0];
        let found = span.as_ref().and_then(|span| span.whole(position, buffer));
        let (record, span) = match (found, span) {
            (Some(record), Some(span)) => (record, span),
            (_, span) => {
                let place = match span.take() {
                    Some(span) if span.place.of(position).is_some() => span.place,
                    _ => self.place(position)?,
                };
                let span = span.insert(self.read_span(place, positions, buffer)?);
                match span.whole(position, buffer) {
                    Some(record) => (record, span),
                    None => return Err(self.damage(&span.place, position, "length of the record")),
                }
            }
        };
        match format::check_record(&buffer[record.clone()], position) {
            Ok(()) => Ok(record),
            Err(what) => Err(self.damage(&span.place, position, what)),
        }
    }

    fn read_span(&self, place: Place, positions: &[Position], buffer: &mut Vec<u8>) -> Result<Span, ReadError> {
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
        match self.fetch(&place, at, wanted as usize, buffer) {
            Ok(filled) => Ok(Span { place, at, filled }),
            Err(_) if self.place(positions[0]).is_err() => Err(ReadError::Released(positions[0])),
            Err(error) => Err(ReadError::Io { path: place.path, error }),
        }
    }

    /// Reads so many bytes from a place on, and more if the record that begins there is longer. Returns
    /// how many they are; a length that no record has is for the caller to find out.
    fn fetch(&self, place: &Place, at: u64, wanted: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let file = self.file(place.key, &place.path)?;
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
