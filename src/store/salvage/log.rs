//! The log of a salvage: segments copied batch by batch, with filler where something is damaged.

use std::path::{Path, PathBuf};

use super::region::{Chain, filler, piece_bytes};
use super::{Loss, SalvageError};
use crate::store::disk::{Access, Disk, File};
use crate::store::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, Position, Purpose, SEGMENT_HEADER_BYTES, SegmentHeader, tag_of,
};
use crate::store::scan::{Found, Scanner};
use crate::store::segments::{IDENTITY_FILE, segment_name};
use crate::store::survey::{LogSurvey, SegmentSurvey};

/// Numbers of cold files that are not given again when the identity is lost.
const COLD_NUMBERS_SKIPPED: u32 = 1 << 20;

/// What was copied.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) losses: Vec<Loss>,
    pub(super) records_rescued: u64,
    pub(super) records_kept: u64,
}

/// Copies the segments of `survey` to `dir`, whole from `covered` on.
pub(super) fn copy(
    disk: &dyn Disk,
    survey: &LogSurvey,
    dir: &Path,
    covered: Option<Position>,
) -> Result<Copied, SalvageError> {
    let Some(store) = survey.id else { return Ok(Copied::default()) };
    let needed = Position(covered.unwrap_or_default().0 & !(BATCH_ALIGN as u64 - 1));
    let mut copy = Copy { disk, dir, tag: tag_of(&store), copied: Copied::default(), last: None };
    for segment in survey.segments.iter().filter(|segment| !segment.is_cut_off) {
        copy.reach(segment, needed)?;
        copy.segment(segment)?;
    }
    copy.finish(needed, covered.unwrap_or_default(), store)?;
    Ok(copy.copied)
}

/// The file without which a directory with several segments is not opened.
pub(super) fn write_identity(disk: &dyn Disk, survey: &LogSurvey, dir: &Path) -> Result<(), SalvageError> {
    let Some(store) = survey.id else { return Ok(()) };
    let path = dir.join(IDENTITY_FILE);
    let last_cold = survey.cold.iter().map(|cold| cold.number).max().unwrap_or_default();
    // Where nobody knows which numbers were given, many are passed over: none is given twice.
    let reserved = survey.cold_reserved.unwrap_or(last_cold.saturating_add(COLD_NUMBERS_SKIPPED)).max(last_cold);
    let header = SegmentHeader::identity(store, reserved);
    let written = disk.create(&path, Access::Write).and_then(|file| {
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        disk.sync_dir(dir)
    });
    written.map_err(SalvageError::io(&path))
}

fn new_header(store: [u8; 16], number: u64, first: Position, file_bytes: u64) -> SegmentHeader {
    SegmentHeader {
        purpose: Purpose::Log,
        store,
        number,
        first,
        watermark: Position(0),
        chain: 0,
        batch: 1,
        epoch: 0,
        time_ms: 0,
        file_bytes,
        cold_reserved: 0,
    }
}

struct Copy<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    tag: u32,
    copied: Copied,
    /// The segment that was written last.
    last: Option<Output>,
}

/// A segment of the new log.
struct Output {
    file: Box<dyn File>,
    path: PathBuf,
    header: SegmentHeader,
    end: Position,
    chain: Chain,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SalvageError> {
        let place = self.header.place(self.end);
        self.file.write_all_at(bytes, place).map_err(SalvageError::io(&self.path))?;
        self.end = self.end.plus(bytes.len());
        Ok(())
    }

    fn finish(&self) -> Result<(), SalvageError> {
        let finished = self.file.bytes().and_then(|bytes| {
            if bytes < self.header.file_bytes {
                self.file.set_bytes(self.header.file_bytes)?;
            }
            self.file.sync_data()
        });
        finished.map_err(SalvageError::io(&self.path))
    }
}

impl Copy<'_> {
    /// Closes what lies between the last segment and `next`, if it is needed.
    fn reach(&mut self, next: &SegmentSurvey, needed: Position) -> Result<(), SalvageError> {
        let (number, first) = self.last.as_ref().map_or((0, Position(0)), |last| (last.header.number, last.end));
        if self.last.is_some() && next.first < first {
            return Err(SalvageError::Overlap { file: next.file.clone() });
        }
        if number + 1 == next.number {
            // Its end was not known; the beginning of this one is.
            return if self.last.is_some() { self.fill(next.first, None) } else { Ok(()) };
        }
        if next.first <= needed {
            return Ok(()); // released
        }
        // One segment has all that is missing. Those before it are empty, and only there for the count.
        let begin = if self.last.is_some() && needed < first { number + 1 } else { next.number - 1 };
        for number in begin..next.number {
            let file_bytes = next.file_bytes;
            let header =
                SegmentHeader { epoch: 0, ..new_header(next.header.store, number, first.max(needed), file_bytes) };
            self.begin(header)?;
        }
        self.fill(next.first, None)
    }

    /// Begins a segment. It goes on with the chain if it follows the last.
    fn begin(&mut self, mut header: SegmentHeader) -> Result<(), SalvageError> {
        let mut chain = Chain {
            number: header.batch,
            sum: header.chain,
            epoch: header.epoch,
            time_ms: header.time_ms,
            watermark: header.watermark,
        };
        if let Some(last) = self.last.take() {
            last.finish()?;
            if last.header.number + 1 == header.number {
                chain = last.chain;
                (header.chain, header.batch) = (chain.sum, chain.number);
                header.epoch = header.epoch.max(chain.epoch);
                header.time_ms = header.time_ms.max(chain.time_ms);
            }
        }
        header.watermark = header.watermark.min(header.first);
        let path = self.dir.join(segment_name(header.number));
        let file = self.disk.create(&path, Access::Write).map_err(SalvageError::io(&path))?;
        let begun = file.allocate(header.file_bytes).and_then(|()| file.write_all_at(&header.encode(), 0));
        begun.map_err(SalvageError::io(&path))?;
        self.last = Some(Output { file, path, end: header.first, header, chain });
        Ok(())
    }

    fn segment(&mut self, segment: &SegmentSurvey) -> Result<(), SalvageError> {
        let mut header = segment.header.clone();
        // A file that was cut short gets its length back.
        header.file_bytes = header.file_bytes.max(SEGMENT_HEADER_BYTES as u64);
        self.begin(header)?;
        let io = || SalvageError::io(&segment.file);
        let file = self.disk.open(&segment.file, Access::Read).map_err(io())?;
        let file_bytes = file.bytes().map_err(io())?;
        let mut scanner = Scanner::with_header(file, &segment.file, file_bytes, segment.header.clone());
        let mut lost = segment.lost.iter().peekable();
        while scanner.next < segment.end {
            if let Some((_, to)) = lost.next_if(|(from, _)| *from == scanner.next) {
                self.fill(*to, Some((&mut scanner, &segment.file)))?;
                scanner.resume(*to).map_err(io())?;
                continue;
            }
            let output = self.last.as_mut().expect("begin() made one");
            match scanner.step().map_err(io())? {
                Found::Batch(header, batch) => {
                    let mut batch = batch.to_vec();
                    output.chain.seal(&header, &mut batch, self.tag);
                    output.write(&batch)?;
                    self.copied.records_kept += u64::from(header.records);
                }
                // It was whole a moment ago.
                Found::Bad(what) => {
                    let error = std::io::Error::other(format!("position {}: {what}, at the second look", scanner.next));
                    return Err(SalvageError::Io { path: segment.file.clone(), error });
                }
            }
        }
        Ok(())
    }

    /// Writes filler from the end of the last segment to `to`, with what is whole of the bytes in `source`.
    fn fill(&mut self, to: Position, mut source: Option<(&mut Scanner, &Path)>) -> Result<(), SalvageError> {
        let output = self.last.as_mut().expect("what is filled lies in a segment");
        while output.end < to {
            let first = output.end;
            let bytes = piece_bytes(to.0 - first.0).max(BATCH_HEADER_BYTES);
            let mut damaged = vec![0; bytes];
            if let Some((scanner, path)) = &mut source {
                let place = scanner.header.place(first);
                let read = scanner.bytes(place, bytes).map_err(SalvageError::io(path))?;
                damaged[..read.len()].copy_from_slice(read);
            }
            let mut filler = filler(&damaged, first);
            output.chain.seal_filler(&mut filler, first, self.tag);
            let file = source.as_ref().map_or_else(|| output.path.clone(), |(_, path)| path.to_path_buf());
            let losses = filler.lost.iter().map(|(position, bytes)| Loss {
                file: file.clone(),
                position: *position,
                bytes: *bytes,
            });
            self.copied.losses.extend(losses);
            self.copied.records_rescued += u64::from(filler.rescued);
            self.copied.records_kept += u64::from(filler.rescued);
            output.write(&filler.batch)?;
        }
        Ok(())
    }

    /// The log must reach to what the checkpoint covers.
    fn finish(&mut self, needed: Position, covered: Position, store: [u8; 16]) -> Result<(), SalvageError> {
        let last = self.last.as_ref().map(|last| (last.header.number, last.end, last.header.file_bytes));
        let (number, end, file_bytes) = last.unwrap_or((0, Position(0), 0));
        if last.is_none() || end < needed {
            // A gap before what is needed is as if segments had been released.
            let skipped = u64::from(last.is_some());
            let file_bytes = file_bytes.max(2 * SEGMENT_HEADER_BYTES as u64);
            self.begin(new_header(store, number + 1 + skipped, needed, file_bytes))?;
        }
        self.fill(Position(covered.0.next_multiple_of(BATCH_ALIGN as u64)), None)?;
        if let Some(last) = &self.last {
            last.finish()?;
        }
        self.disk.sync_dir(self.dir).map_err(SalvageError::io(self.dir))
    }
}
