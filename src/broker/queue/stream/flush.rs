//! How far a stream may be read: to what the log has flushed. A message that was delivered and is gone
//! after a crash would leave its offset to another one.

use std::collections::VecDeque;

use super::Stream;
use crate::broker::record::Position;

/// Messages at the end of a stream that are not known to be safe.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    /// From which offset on messages are safe once the log is flushed up to a position. Grows with what
    /// the log has not flushed, which is bounded there.
    marks: VecDeque<(u64, Position)>,
    /// Messages from here on have no mark yet, and are not safe at all.
    marked_below: u64,
    /// Somebody comes when the log is flushed.
    is_awaited: bool,
}

impl Unflushed {
    pub(super) fn readable_below(&self) -> u64 {
        self.marks.front().map_or(self.marked_below, |(first, _)| *first)
    }
}

impl Stream {
    /// What was appended is safe once the log is flushed up to `end`.
    pub(in crate::broker) fn mark(&mut self, end: Position) {
        let first = std::mem::replace(&mut self.unflushed.marked_below, self.next_offset);
        if first < self.next_offset && self.unflushed.marks.back().is_none_or(|(_, last)| *last < end) {
            self.unflushed.marks.push_back((first, end));
        }
    }

    /// What was appended is as safe as it will be.
    pub(in crate::broker) fn mark_safe(&mut self) {
        self.unflushed.marked_below = self.next_offset;
    }

    /// The log is flushed up to `position`.
    pub(in crate::broker) fn flushed(&mut self, position: Position) {
        while self.unflushed.marks.front().is_some_and(|(_, end)| *end <= position) {
            self.unflushed.marks.pop_front();
        }
    }

    /// How far the log has to be flushed before more can be read.
    pub(in crate::broker) fn unflushed_until(&self) -> Option<Position> {
        self.unflushed.marks.front().map(|(_, end)| *end)
    }

    /// Somebody will come when the log is flushed, or nobody any more. Returns what was true before.
    pub(in crate::broker) fn set_awaited(&mut self, is_awaited: bool) -> bool {
        std::mem::replace(&mut self.unflushed.is_awaited, is_awaited)
    }
}
