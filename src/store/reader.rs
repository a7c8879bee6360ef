//! Reading one record at a time, long after it was written.

use std::io;
use std::path::PathBuf;

use super::error::{Corruption, ReadError};
use super::format::{self, BATCH_BYTES_LIMIT, Position, RECORD_HEADER_BYTES, Record};
use super::segments::{cold_name, segment_name};
use super::shared::Shared;

/// Read at first, in the hope that the record is not longer.
const GUESS_BYTES: usize = 4 << 10;

/// Where a record is.
struct Place {
    path: PathBuf,
    segment: u64,
    /// First position of the file: its name among the open ones.
    key: Position,
    at: u64,
    /// No record of the file reaches beyond this.
    end: u64,
}

impl Shared {
    pub(super) fn read<'a>(&self, position: Position, buffer: &'a mut Vec<u8>) -> Result<Record<'a>, ReadError> {
        let place = self.place(position)?;
        let bytes = match self.fetch(&place, buffer) {
            Ok(bytes) => bytes,
            // Released while it was read: its file has other contents by now, or is gone.
            Err(_) if self.place(position).is_err() => return Err(ReadError::Released(position)),
            Err(error) => return Err(ReadError::Io { path: place.path, error }),
        };
        let Some(bytes) = bytes else {
            return Err(self.damage(place, position, "length of the record"));
        };
        format::check_record(&buffer[..bytes], position).map_err(|what| self.damage(place, position, what))?;
        Ok(format::record(&buffer[..bytes], position))
    }

    fn place(&self, position: Position) -> Result<Place, ReadError> {
        let segments = self.segments.lock();
        if position.is_cold() {
            let (file, at) = position.cold_parts();
            let cold = segments.cold.get(&file).ok_or(ReadError::Released(position))?;
            return Ok(Place {
                path: self.path(&cold_name(file)),
                segment: u64::from(file),
                key: Position::cold(file, 0),
                at: u64::from(at),
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
            at: format::place_in(segment.first, position),
            end: format::place_in(segment.first, segment.end.unwrap_or_else(|| self.flushed())),
        })
    }

    /// Reads the bytes of the record; `None` when its length cannot be one.
    fn fetch(&self, place: &Place, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let file = self.file(place.key, &place.path)?;
        let guess = place.end.saturating_sub(place.at).min(GUESS_BYTES as u64) as usize;
        buffer.resize(guess, 0);
        let mut filled = file.read_full_at(buffer, place.at)?;
        if filled < RECORD_HEADER_BYTES {
            return Ok(None);
        }
        let bytes = format::record_bytes(buffer);
        if bytes > BATCH_BYTES_LIMIT || place.at + bytes as u64 > place.end {
            return Ok(None);
        }
        if bytes > filled {
            buffer.resize(bytes, 0);
            filled += file.read_full_at(&mut buffer[filled..], place.at + filled as u64)?;
        }
        Ok((filled >= bytes).then_some(bytes))
    }

    fn damage(&self, place: Place, position: Position, what: &'static str) -> ReadError {
        self.forget_file(place.key);
        if self.place(position).is_err() {
            return ReadError::Released(position);
        }
        ReadError::Corrupt(Corruption { file: place.path, segment: place.segment, position, what })
    }
}
