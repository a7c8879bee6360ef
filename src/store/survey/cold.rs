//! Cold files, seen from outside: every record by its own checksum.

use std::io;
use std::path::{Path, PathBuf};

use super::{Damage, next_record};
use crate::store::disk::{Access, Disk, File};
use crate::store::error::OpenError;
use crate::store::format::{
    self, BATCH_BYTES_LIMIT, FORMAT_VERSION, HeaderFault, Position, Purpose, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};

/// Read at once.
const PIECE_BYTES: usize = 2 * BATCH_BYTES_LIMIT;

/// A cold file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdSurvey {
    /// Its number.
    pub number: u32,
    /// Whose records it has; `None` if its header is damaged.
    pub owner: Option<u64>,
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Whole records.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
}

impl ColdSurvey {
    /// Reads a cold file through, and gives every record that is whole to `each`.
    pub(in crate::store) fn take(
        disk: &dyn Disk,
        path: &Path,
        number: u32,
        damage: &mut Vec<Damage>,
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<Self, OpenError> {
        let io = || OpenError::io(path);
        let file = disk.open(path, Access::Read).map_err(io())?;
        let file_bytes = file.bytes().map_err(io())?;
        let mut tell = |at: u64, bytes: u64, what: &str| {
            let position = (at >= SEGMENT_HEADER_BYTES as u64).then(|| Position::cold(number, at as u32));
            let (file, what) = (path.to_owned(), what.to_owned());
            damage.push(Damage { file, segment: Some(number.into()), position, at, bytes, what });
        };
        let owner = match cold_header(&*file, path, number)? {
            Ok(header) => {
                if header.file_bytes > file_bytes {
                    tell(file_bytes, header.file_bytes - file_bytes, "the file was cut short");
                }
                match header.purpose {
                    Purpose::Cold { owner } => Some(owner),
                    Purpose::Log => None,
                }
            }
            Err(what) => {
                tell(0, SEGMENT_HEADER_BYTES as u64, what);
                None
            }
        };
        let mut survey = Self { number, owner, file: path.into(), file_bytes, records: 0, record_bytes: 0 };
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut bytes = Vec::new();
        while at < file_bytes {
            bytes.resize(PIECE_BYTES.min((file_bytes - at) as usize), 0);
            let filled = file.read_full_at(&mut bytes, at).map_err(io())?;
            bytes.truncate(filled);
            let is_end = at + filled as u64 >= file_bytes || filled == 0;
            let base = Position::cold(number, at as u32);
            let mut done = 0;
            while done < bytes.len() && (is_end || bytes.len() - done >= BATCH_BYTES_LIMIT) {
                let rest = &bytes[done..];
                let length = if rest.len() < RECORD_HEADER_BYTES { usize::MAX } else { format::record_bytes(rest) };
                let is_whole = length <= rest.len().min(BATCH_BYTES_LIMIT)
                    && format::check_whole(&rest[..length], base.plus(done)).is_ok();
                if is_whole {
                    each(at + done as u64, &rest[..length]);
                    survey.records += 1;
                    survey.record_bytes += length as u64;
                    done += length;
                } else {
                    let next = next_record(&bytes, done + 1, base).unwrap_or(bytes.len());
                    tell(at + done as u64, (next - done) as u64, "checksum of the record");
                    done = next;
                }
            }
            at += done as u64;
            if is_end {
                break;
            }
        }
        Ok(survey)
    }
}

/// Header of the cold file `number`, or what is wrong with it. A newer format is an error.
pub(in crate::store) fn cold_header(
    file: &dyn File,
    path: &Path,
    number: u32,
) -> Result<Result<SegmentHeader, &'static str>, OpenError> {
    let header = match read(file).map_err(OpenError::io(path))? {
        Ok(header) => header,
        Err(HeaderFault::Newer(found)) => {
            return Err(OpenError::NewerFormat { file: path.into(), found, known: FORMAT_VERSION });
        }
        Err(HeaderFault::Damaged(what)) => return Ok(Err(what)),
    };
    let is_this = matches!(header.purpose, Purpose::Cold { .. }) && header.number == u64::from(number);
    Ok(if is_this { Ok(header) } else { Err("the file's header is of another kind") })
}

/// The header at the beginning of a file.
pub(super) fn read(file: &dyn File) -> io::Result<Result<SegmentHeader, HeaderFault>> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let filled = file.read_full_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..filled]))
}
