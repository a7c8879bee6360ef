//! Cold files of a salvage: records where they were, lost ones between them.

use std::io;
use std::path::Path;

use super::log::Copied;
use super::region::put_lost;
use super::{Loss, SalvageError};
use crate::store::disk::{Access, Disk, File};
use crate::store::format::{
    BATCH_BYTES_LIMIT, Position, Purpose, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
};
use crate::store::segments::cold_name;
use crate::store::survey::{ColdSurvey, cold_header};

/// Copies a cold file to `dir`.
pub(super) fn copy(disk: &dyn Disk, cold: &ColdSurvey, store: StoreId, dir: &Path) -> Result<Copied, SalvageError> {
    let source = disk.open(&cold.file, Access::Read).map_err(SalvageError::io(&cold.file))?;
    let header = match cold_header(&*source, &cold.file, cold.number)? {
        Ok(header) => header,
        Err(_) => SegmentHeader {
            // As it stands: nothing else says whose file it is.
            purpose: Purpose::Cold { owner: owner_of(&*source).map_err(SalvageError::io(&cold.file))? },
            store,
            number: cold.number.into(),
            first: Position::cold(cold.number, SEGMENT_HEADER_BYTES as u32),
            watermark: Position(0),
            chain: 0,
            batch: 0,
            epoch: 0,
            time_ms: 0,
            file_bytes: cold.file_bytes,
            cold_reserved: 0,
        },
    };
    let path = dir.join(cold_name(cold.number));
    let file = disk.create(&path, Access::Write).map_err(SalvageError::io(&path))?;
    let mut output = Output { file, number: cold.number, end: SEGMENT_HEADER_BYTES as u64, copied: Copied::default() };
    let mut failed = None;
    ColdSurvey::take(disk, &cold.file, cold.number, &mut Vec::new(), |at, record| {
        if failed.is_none() {
            failed = output.lose(at, &cold.file).and_then(|()| output.write(record)).err();
            output.copied.records_kept += 1;
        }
    })?;
    let end = header.file_bytes.max(cold.file_bytes);
    let header = SegmentHeader { file_bytes: end, ..header };
    let finished = failed.map_or(Ok(()), Err).and_then(|()| {
        output.lose(end, &cold.file)?;
        let header = SegmentHeader { file_bytes: output.end, ..header };
        output.file.write_all_at(&header.encode(), 0)?;
        output.file.sync_data()?;
        disk.sync_dir(dir)
    });
    finished.map_err(SalvageError::io(&path))?;
    Ok(output.copied)
}

fn owner_of(file: &dyn File) -> io::Result<u64> {
    let mut owner = [0; 8];
    file.read_full_at(&mut owner, 92)?;
    Ok(u64::from_le_bytes(owner))
}

struct Output {
    file: Box<dyn File>,
    number: u32,
    end: u64,
    copied: Copied,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Fills up to `to`. What is too short for a record at the end of a file is left out.
    fn lose(&mut self, to: u64, source: &Path) -> io::Result<()> {
        if to - self.end >= RECORD_HEADER_BYTES as u64 {
            let position = Position::cold(self.number, self.end as u32);
            self.copied.losses.push(Loss { file: source.into(), position, bytes: to - self.end });
        }
        while to - self.end >= RECORD_HEADER_BYTES as u64 {
            let left = to - self.end;
            // No rest is too short to be one itself.
            let piece = if left <= BATCH_BYTES_LIMIT as u64 { left } else { BATCH_BYTES_LIMIT as u64 / 2 };
            let mut bytes = vec![0; piece as usize];
            put_lost(&mut bytes, Position::cold(self.number, self.end as u32));
            self.write(&bytes)?;
        }
        Ok(())
    }
}
