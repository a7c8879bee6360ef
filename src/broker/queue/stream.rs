//! A stream: messages that stay after they were consumed, each under an offset.
//!
//! Knows no consumer: whoever reads keeps its own offset. What leaves is decided by retention
//! alone, oldest first and a whole segment at a time, and never the last segment. An offset is
//! given once and for all; after retention the first offset is larger than zero.
//!
//! ```text
//!    segments:   [ base 0 | 256 messages ] [ base 256 | .. ] ... [ base n | .. ]
//!                  first_offset                                      next_offset - 1
//! ```
//!
//! Invariants:
//! - offsets are contiguous: a segment's base is its predecessor's base plus its length;
//! - times never decrease with offsets;
//! - no segment but the last may be empty, and the last is empty only when the stream is.

mod offset;

use std::collections::VecDeque;

pub use self::offset::{OffsetError, OffsetSpec};
use super::arguments::QueueArguments;
use crate::broker::{
    message::Message,
    record::Position,
    time::Time,
    value::{Table, Value},
};

/// Most messages of a segment, and so the most that one call of [`Stream::retain`] drops.
pub const SEGMENT_MESSAGES_MAX: usize = 256;
/// Most messages that one call of [`Stream::next`] looks at.
pub const SCAN_MESSAGES_MAX: usize = 256;
/// Bytes after which a segment ends unless the declaration names fewer.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// A limit on bytes or age is kept to within this part of it.
const SEGMENTS_OF_A_LIMIT: u64 = 8;
/// How many messages stay slices of the buffers that they were read into. Readers at the end of
/// the stream find those; older ones would pin buffers, so they are compacted.
const UNCOMPACTED_MESSAGES: usize = 32;

/// What limits a stream. Absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Drop the oldest segment while all together hold more.
    pub max_length_bytes: Option<u64>,
    /// Drop a segment whose last message is older.
    pub max_age_ms: Option<u64>,
    /// End a segment after so many bytes.
    pub segment_bytes_max: Option<u64>,
}

impl From<&QueueArguments> for StreamOptions {
    fn from(arguments: &QueueArguments) -> Self {
        Self {
            max_length_bytes: arguments.max_length_bytes,
            max_age_ms: arguments.max_age_ms,
            segment_bytes_max: arguments.stream_segment_bytes_max,
        }
    }
}

impl StreamOptions {
    fn segment_bytes(&self) -> u64 {
        let of_limit = self.max_length_bytes.map_or(u64::MAX, |limit| limit / SEGMENTS_OF_A_LIMIT);
        SEGMENT_BYTES_MAX.min(self.segment_bytes_max.unwrap_or(u64::MAX)).min(of_limit)
    }

    fn segment_age_ms(&self) -> u64 {
        self.max_age_ms.map_or(u64::MAX, |limit| limit / SEGMENTS_OF_A_LIMIT)
    }
}

/// Messages under offsets.
#[derive(Debug)]
pub struct Stream {
    options: StreamOptions,
    segments: VecDeque<Segment>,
    next_offset: u64,
    held_bytes: u64,
    body_bytes: u64,
    /// Offset of the first message that came at the time of the last one.
    last_chunk_offset: u64,
}

#[derive(Debug)]
struct Segment {
    base: u64,
    /// Where the log has the oldest message.
    place: Position,
    entries: Vec<Entry>,
    held_bytes: u64,
    body_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    time: Time,
    message: Message,
}

impl Segment {
    fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    fn first_time(&self) -> Option<Time> {
        self.entries.first().map(|entry| entry.time)
    }

    fn last_time(&self) -> Option<Time> {
        self.entries.last().map(|entry| entry.time)
    }
}

/// What a search for the next message came to.
#[derive(Debug)]
pub enum Next<'a> {
    /// The message at this offset passes.
    Message(u64, &'a Message),
    /// Nothing up to this offset passes, and more was not looked at: ask again from there.
    Searched(u64),
    /// Nothing more has come; the next message will have this offset.
    End(u64),
}

impl Stream {
    /// An empty stream.
    pub fn new(options: StreamOptions) -> Self {
        Self { options, segments: VecDeque::new(), next_offset: 0, held_bytes: 0, body_bytes: 0, last_chunk_offset: 0 }
    }

    /// Adds a message and returns its offset.
    ///
    /// Drops nothing: call [`Stream::retain`] afterwards.
    pub fn append(&mut self, message: Message, now: Time, place: Position) -> u64 {
        let offset = self.next_offset;
        let last_time = self.segments.back().and_then(Segment::last_time);
        // The clock never runs backwards, but searching by time must not depend on it.
        let now = last_time.map_or(now, |last| last.max(now));
        if last_time != Some(now) {
            self.last_chunk_offset = offset;
        }
        let (held_bytes, body_bytes) = (message.held_bytes(), message.body_bytes());
        if self.starts_segment(held_bytes, now) {
            let entries = Vec::new();
            self.segments.push_back(Segment { base: offset, place, entries, held_bytes: 0, body_bytes: 0 });
        }
        let segment = self.segments.back_mut().expect("a first append starts a segment");
        segment.entries.push(Entry { time: now, message });
        // A message that several queues took is in the log earlier than in its queue.
        segment.place = segment.place.min(place);
        segment.held_bytes += held_bytes;
        segment.body_bytes += body_bytes;
        self.held_bytes += held_bytes;
        self.body_bytes += body_bytes;
        self.next_offset += 1;
        self.compact_behind();
        offset
    }

    fn starts_segment(&self, held_bytes: u64, now: Time) -> bool {
        let Some(last) = self.segments.back() else { return true };
        last.entries.len() >= SEGMENT_MESSAGES_MAX
            || last.held_bytes.saturating_add(held_bytes) > self.options.segment_bytes()
            || last.first_time().is_some_and(|first| now.ms_since(first) > self.options.segment_age_ms())
    }

    fn compact_behind(&mut self) {
        if let Some(offset) = self.next_offset.checked_sub(1 + UNCOMPACTED_MESSAGES as u64)
            && let Some((segment_index, entry_index)) = self.locate(offset)
        {
            self.segments[segment_index].entries[entry_index].message.compact();
        }
    }

    /// Where the log has the oldest message.
    pub fn first_place(&self) -> Option<Position> {
        self.segments.front().map(|segment| segment.place)
    }

    /// The offset of the oldest message; the next offset when there is none.
    pub fn first_offset(&self) -> u64 {
        self.segments.front().map_or(self.next_offset, |first| first.base)
    }

    /// The offset that the next message gets.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Number of messages.
    pub fn len(&self) -> u64 {
        self.next_offset - self.first_offset()
    }

    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the messages account for, as retention counts them.
    pub fn bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes of the bodies alone.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Replaces the limits, for what comes and what is there.
    pub fn set_options(&mut self, options: StreamOptions) {
        self.options = options;
    }

    /// Drops the oldest segment if a limit asks for it, and returns how many messages it held.
    ///
    /// One call drops at most [`SEGMENT_MESSAGES_MAX`]; zero means that nothing is left to drop.
    pub fn retain(&mut self, now: Time) -> usize {
        if self.segments.len() < 2 {
            return 0;
        }
        let over_bytes = self.options.max_length_bytes.is_some_and(|limit| self.held_bytes > limit);
        let over_age = |first: &Segment| {
            self.options
                .max_age_ms
                .is_some_and(|limit| first.last_time().is_some_and(|last| now.ms_since(last) > limit))
        };
        match self.segments.front() {
            Some(first) if over_bytes || over_age(first) => {}
            _ => return 0,
        }
        let dropped = self.segments.pop_front().expect("two segments or more");
        self.held_bytes -= dropped.held_bytes;
        self.body_bytes -= dropped.body_bytes;
        dropped.entries.len()
    }

    /// Gives an empty stream the offset of its first message.
    pub(in crate::broker) fn start_at(&mut self, offset: u64) {
        debug_assert!(self.is_empty());
        self.next_offset = offset;
        self.last_chunk_offset = offset;
    }

    /// Drops the segments that end before `first`, as [`Stream::retain`] did when it was logged.
    pub(in crate::broker) fn trim_to(&mut self, first: u64) {
        while let Some(front) = self.segments.front().filter(|front| front.base < first) {
            // Limits may have changed since, and segments been cut otherwise: then the rest stays.
            if front.end() > first {
                return;
            }
            self.held_bytes -= front.held_bytes;
            self.body_bytes -= front.body_bytes;
            self.segments.pop_front();
        }
    }

    /// The moment from which [`Stream::retain`] will drop something for its age, if any.
    pub fn next_expiry(&self) -> Option<Time> {
        if self.segments.len() < 2 {
            return None;
        }
        let last = self.segments.front().and_then(Segment::last_time)?;
        Some(last.after_ms(self.options.max_age_ms?.saturating_add(1)))
    }

    /// The offset at which a consumer that asked for `spec` starts.
    pub fn resolve(&self, spec: &OffsetSpec, now: Time) -> u64 {
        match *spec {
            OffsetSpec::First => self.first_offset(),
            OffsetSpec::Last => self.last_chunk_offset.clamp(self.first_offset(), self.next_offset),
            OffsetSpec::Next => self.next_offset,
            OffsetSpec::Offset(offset) => offset.clamp(self.first_offset(), self.next_offset),
            OffsetSpec::Timestamp(secs) => self.offset_at(Time(secs.saturating_mul(1000))),
            OffsetSpec::Interval(ms) => self.offset_at(Time(now.0.saturating_sub(ms))),
        }
    }

    /// The first offset whose message came at `time` or later.
    fn offset_at(&self, time: Time) -> u64 {
        let index = self.segments.partition_point(|segment| segment.last_time().is_some_and(|last| last < time));
        match self.segments.get(index) {
            None => self.next_offset,
            Some(segment) => segment.base + segment.entries.partition_point(|entry| entry.time < time) as u64,
        }
    }

    /// The message at `offset` and when it came, unless retention took it or it has not come yet.
    pub fn get(&self, offset: u64) -> Option<(&Message, Time)> {
        let (segment_index, entry_index) = self.locate(offset)?;
        let entry = &self.segments[segment_index].entries[entry_index];
        Some((&entry.message, entry.time))
    }

    fn locate(&self, offset: u64) -> Option<(usize, usize)> {
        // Readers are mostly at the end.
        let last = self.segments.back()?;
        let segment_index = if offset >= last.base {
            self.segments.len() - 1
        } else {
            self.segments.partition_point(|segment| segment.base <= offset).checked_sub(1)?
        };
        let segment = &self.segments[segment_index];
        (offset < segment.end()).then(|| (segment_index, (offset - segment.base) as usize))
    }

    /// The first message at `from` or later that passes the filter. What retention took is skipped.
    ///
    /// Looks at no more than [`SCAN_MESSAGES_MAX`] messages.
    pub fn next(&self, from: u64, filter: &Filter) -> Next<'_> {
        let from = from.max(self.first_offset());
        let Some((mut segment_index, mut entry_index)) = self.locate(from) else {
            return Next::End(from.max(self.next_offset));
        };
        let mut offset = from;
        for _ in 0..SCAN_MESSAGES_MAX {
            let segment = &self.segments[segment_index];
            let message = &segment.entries[entry_index].message;
            if filter.passes(message) {
                return Next::Message(offset, message);
            }
            offset += 1;
            if offset == self.next_offset {
                return Next::End(offset);
            }
            entry_index += 1;
            if entry_index == segment.entries.len() {
                (segment_index, entry_index) = (segment_index + 1, 0);
            }
        }
        Next::Searched(offset)
    }

    /// Takes every message away, for the deletion of the stream. The next offset stays.
    pub fn clear(&mut self) {
        self.segments.clear();
        (self.held_bytes, self.body_bytes) = (0, 0);
        self.last_chunk_offset = self.next_offset;
    }
}

/// The header that holds a message's filter value.
const FILTER_VALUE_HEADER: &str = "x-stream-filter-value";

/// Which messages of a stream a consumer wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Sorted; `None` wants everything.
    values: Option<Vec<Vec<u8>>>,
    match_unfiltered: bool,
}

impl Filter {
    /// The filter that a consumer's arguments ask for: `x-stream-filter`, a text or an array of
    /// texts of which one must equal the message's value, and `x-stream-match-unfiltered`.
    ///
    /// As with RabbitMQ nothing is refused here: other kinds are no filter.
    pub fn parse(arguments: &Table) -> Self {
        let mut values = match arguments.get("x-stream-filter") {
            Some(Value::Text(text)) => Some(vec![text.clone()]),
            Some(Value::Array(items)) => Some(
                items
                    .iter()
                    .filter_map(|item| match item {
                        Value::Text(text) => Some(text.clone()),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        };
        if let Some(values) = &mut values {
            values.sort_unstable();
            values.dedup();
        }
        let match_unfiltered = arguments.get("x-stream-match-unfiltered").and_then(Value::as_bool).unwrap_or(false);
        Self { values, match_unfiltered }
    }

    /// True when every message passes.
    pub fn is_open(&self) -> bool {
        self.values.is_none()
    }

    /// Whether the message passes.
    pub fn passes(&self, message: &Message) -> bool {
        let Some(values) = &self.values else { return true };
        match message.headers().get(FILTER_VALUE_HEADER).and_then(|value| value.as_text_bytes()) {
            Some(value) => values.binary_search_by(|wanted| wanted.as_slice().cmp(value)).is_ok(),
            None => self.match_unfiltered,
        }
    }
}

#[cfg(test)]
mod tests;
