//! Which files there are: live segments, ready ones, dead ones that wait for the housekeeper, cold ones.
//!
//! Knows names and numbers; touches no file.
//!
//! Invariants:
//! - `live` is ordered by number, and by position; only its last, the one being written, has no end;
//! - a segment is in one of `live`, `dead` and `spares`.

use std::collections::{BTreeMap, VecDeque};

use super::cold::ColdFile;
use super::format::Position;
use super::options::Options;

pub(super) const LOCK_FILE: &str = "lock";
pub(super) const IDENTITY_FILE: &str = "identity";

/// Files of the store, under one lock. Taken after that of the batch in the making, and never held
/// across a file operation.
pub(super) struct Segments {
    pub(super) live: Vec<Segment>,
    /// Names of files that are ready to be begun, synced and of the right size.
    pub(super) spares: VecDeque<String>,
    /// Released segments and removed cold files: names, sizes.
    pub(super) dead: Vec<(String, u64)>,
    pub(super) cold: BTreeMap<u32, ColdFile>,
    /// The last number given to a cold file.
    pub(super) next_cold: u32,
    /// The next number for a file that is none of the log's yet.
    pub(super) next_file: u64,
    /// The last attempt to make a segment found no room.
    pub(super) is_full: bool,
    /// The writer has records and no segment for them.
    pub(super) is_stuck: bool,
    /// The housekeeper has something to do.
    pub(super) has_chores: bool,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) first: Position,
    /// `None` while it is being written.
    pub(super) end: Option<Position>,
    /// The segment after it was released before the last start: `end` is where that one at the latest
    /// began, and the last batch may end before.
    pub(super) is_end_late: bool,
    pub(super) file_bytes: u64,
}

/// A segment, for whoever decides what lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; segments are numbered without gaps from 1 on.
    pub number: u64,
    /// Position of its first batch.
    pub first: Position,
    /// Position after its last batch; for the one being written, what is flushed.
    pub end: Position,
    /// Size of its file.
    pub file_bytes: u64,
    /// It is being written, and cannot be released.
    pub is_active: bool,
}

impl Segments {
    pub(super) fn holding(&self, position: Position) -> Option<&Segment> {
        let after = self.live.partition_point(|segment| segment.first <= position);
        let segment = &self.live[after.checked_sub(1)?];
        segment.end.is_none_or(|end| position < end).then_some(segment)
    }

    pub(super) fn infos(&self, flushed: Position) -> Vec<SegmentInfo> {
        let info = |segment: &Segment| SegmentInfo {
            number: segment.number,
            first: segment.first,
            end: segment.end.unwrap_or(flushed.max(segment.first)),
            file_bytes: segment.file_bytes,
            is_active: segment.end.is_none(),
        };
        self.live.iter().map(info).collect()
    }

    /// A name for a file in the making; at start such files are removed.
    pub(super) fn new_name(&mut self) -> String {
        self.next_file += 1;
        format!("new-{:08x}", self.next_file)
    }

    pub(super) fn spare_name(&mut self) -> String {
        self.next_file += 1;
        format!("spare-{:08x}", self.next_file)
    }

    /// A ready segment that is not needed for the reserve.
    pub(super) fn take_spare(&mut self, options: &Options) -> Option<String> {
        if self.spares.len() > options.reserve_segments { self.take_reserve() } else { None }
    }

    /// Any ready segment.
    pub(super) fn take_reserve(&mut self) -> Option<String> {
        self.has_chores = true;
        self.spares.pop_front()
    }

    pub(super) fn wants_spare(&self, options: &Options) -> bool {
        self.spares.len() < options.reserve_segments + options.spare_segments_min
    }
}

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(u64),
    Cold(u32),
    Spare(u64),
    New,
    Other,
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

pub(super) fn cold_name(number: u32) -> String {
    format!("cold-{number:08x}.seg")
}

pub(super) fn file_kind(name: &str) -> FileKind {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let kind = if name.starts_with("new-") {
        Some(FileKind::New)
    } else if let Some(digits) = name.strip_prefix("spare-") {
        hex(digits).map(FileKind::Spare)
    } else if let Some(digits) = name.strip_prefix("cold-").and_then(|rest| rest.strip_suffix(".seg")) {
        u32::from_str_radix(digits, 16).ok().map(FileKind::Cold)
    } else {
        name.strip_suffix(".seg").and_then(hex).map(FileKind::Segment)
    };
    kind.unwrap_or(FileKind::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name() {
        assert_eq!(file_kind(&segment_name(26)), FileKind::Segment(26));
        assert_eq!(file_kind(&cold_name(26)), FileKind::Cold(26));
        assert_eq!(file_kind("spare-0000001a"), FileKind::Spare(26));
        assert_eq!(file_kind("new-0000001a"), FileKind::New);
        assert_eq!(file_kind(LOCK_FILE), FileKind::Other);
        assert_eq!(file_kind("notes.seg"), FileKind::Other);
    }
}
