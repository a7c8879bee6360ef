//! The scrubber: reads old segments slowly and verifies every batch, so that damage is found while
//! there still is a backup or a standby to repair it from.
//!
//! One thread, started by recovery, ended by `Shared::close`. What it finds it tells the owner, once
//! for each batch or record; it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use super::cold::ColdFile;
use super::disk::Access;
use super::error::{Corruption, OpenError, ReadError};
use super::format::{Position, SEGMENT_HEADER_BYTES};
use super::scan::{Found, Scanner, read_header};
use super::segments::{Segment, cold_name, segment_name};
use super::shared::Shared;

/// Between two rounds through all segments.
const ROUND_REST: Duration = Duration::from_secs(60);

pub(super) struct Scrubber {
    shared: Arc<Shared>,
    /// Told already.
    known: Vec<Position>,
}

impl Scrubber {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, known: Vec::new() }
    }

    pub(super) fn run(mut self) {
        while self.round() && self.shared.pause(ROUND_REST) {}
    }

    /// Verifies every sealed segment and cold file; `false` when the log ended meanwhile.
    pub(super) fn round(&mut self) -> bool {
        let (live, cold) = {
            let segments = self.shared.segments.lock();
            (segments.live.clone(), segments.cold.values().copied().collect::<Vec<_>>())
        };
        let still = |position: &Position| live.iter().any(|one| one.first <= *position) || position.is_cold();
        self.known.retain(still);
        live.iter().all(|segment| self.segment(segment)) && cold.iter().all(|cold| self.cold(cold))
    }

    fn segment(&mut self, segment: &Segment) -> bool {
        let Some(end) = segment.end else { return true };
        let path = self.shared.path(&segment_name(segment.number));
        let is_live = |shared: &Shared| shared.segments.lock().holding(segment.first).is_some();
        let mut scanner = match Scanner::open(&*self.shared.disk, &path) {
            Ok(scanner) => scanner,
            Err(OpenError::Corrupt(corruption)) if is_live(&self.shared) => {
                self.tell(Corruption { position: segment.first, ..corruption });
                return true;
            }
            // Released meanwhile, or an error that the next round meets again.
            Err(_) => return true,
        };
        while scanner.next < end {
            let at = scanner.next;
            let (bytes, bad) = match scanner.step() {
                Ok(Found::Batch(header, _)) => (u64::from(header.bytes), None),
                Ok(Found::Bad(what)) => (0, Some(what)),
                Err(_) => return true,
            };
            if let Some(what) = bad {
                // The last batch of a segment whose successor was released is not known to be the last.
                let is_end = segment.is_end_late && scanner.look_behind(at).is_ok_and(|(watermark, _)| watermark <= at);
                // A released segment is written anew while we read it.
                if !is_end && is_live(&self.shared) {
                    self.tell(scanner.corruption(at, what));
                }
                return true;
            }
            if !self.rest(bytes) {
                return false;
            }
        }
        true
    }

    fn cold(&mut self, cold: &ColdFile) -> bool {
        let path = self.shared.path(&cold_name(cold.number));
        let opened = self.shared.disk.open(&path, Access::Read);
        if let Some(OpenError::Corrupt(corruption)) = opened.ok().and_then(|file| read_header(&*file, &path).err()) {
            self.tell(Corruption { position: Position::cold(cold.number, 0), ..corruption });
        }
        let (mut at, mut buffer) = (SEGMENT_HEADER_BYTES as u32, Vec::new());
        while u64::from(at) < cold.file_bytes {
            let bytes = match self.shared.read(Position::cold(cold.number, at), &mut buffer) {
                Ok(record) => record.end().cold_parts().1 - at,
                Err(ReadError::Corrupt(corruption)) => {
                    self.tell(corruption);
                    return true;
                }
                Err(_) => return true,
            };
            at += bytes;
            if !self.rest(u64::from(bytes)) {
                return false;
            }
        }
        true
    }

    fn tell(&mut self, corruption: Corruption) {
        if !self.known.contains(&corruption.position) {
            self.known.push(corruption.position);
            self.shared.owner.corrupted(&corruption);
        }
    }

    fn rest(&self, bytes: u64) -> bool {
        let rate = self.shared.options.scrub_bytes_per_sec.max(1);
        self.shared.pause(Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate))
    }
}
