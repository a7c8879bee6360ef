//! A stream: messages that stay after they were consumed, each under an offset.
//!
//! Knows no consumer: whoever reads keeps its own offset. What leaves is decided by retention
//! alone, oldest first and a whole segment at a time, and never the last segment. An offset is
//! given once and for all; after retention the first offset is larger than zero.
//!
//! ```text
//!    segments:   [ base 0 | 256 messages ] [ base 256 | .. ] ... [ base n | .. ]
//!                  first_offset                                      next_offset - 1
//!                └──── cold: summaries ────┘└──────── resident ────────┘
//! ```
//!
//! With an index ([`cold`]) only the end of the stream is resident. Of an older segment memory has a
//! [`Summary`], which is all that retention and searching by time need; readers have its messages
//! fetched.
//!
//! Invariants:
//! - offsets are contiguous: a segment's base is its predecessor's base plus its length;
//! - times never decrease with offsets;
//! - no segment is empty;
//! - cold segments come before resident ones, and the index has all of their messages;
//! - nobody is given what the log has not flushed ([`flush`]).

mod cold;
mod flush;
mod offset;
mod reading;

use std::collections::VecDeque;

use self::{cold::Cold, flush::Unflushed};
pub use self::{
    offset::{OffsetError, OffsetSpec},
    reading::{StreamMessage, StreamPage},
};
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
    unflushed: Unflushed,
    /// What an index keeps of it, when one does.
    cold: Option<Box<Cold>>,
}

/// What a stream knows of a segment wherever its messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The first offset.
    pub base: u64,
    /// Messages.
    pub count: u64,
    /// When the first one came.
    pub first_time: Time,
    /// When the last one came.
    pub last_time: Time,
    /// The first offset of the stream whose message came at that time.
    pub last_time_offset: u64,
    /// Bytes that the messages account for.
    pub held_bytes: u64,
    /// Bytes of the bodies alone.
    pub body_bytes: u64,
}

impl Summary {
    /// Of a segment whose first message comes at `time`, after a segment of which it has `previous`.
    fn begin(base: u64, time: Time, previous: Option<&Self>) -> Self {
        let same_time = previous.filter(|previous| previous.last_time == time);
        let last_time_offset = same_time.map_or(base, |previous| previous.last_time_offset);
        Self { base, count: 0, first_time: time, last_time: time, last_time_offset, held_bytes: 0, body_bytes: 0 }
    }

    fn add(&mut self, message: &Message, time: Time) {
        if time != self.last_time {
            self.last_time_offset = self.end();
            self.last_time = time;
        }
        self.count += 1;
        self.held_bytes += message.held_bytes();
        self.body_bytes += message.body_bytes();
    }

    fn end(&self) -> u64 {
        self.base + self.count
    }
}

#[derive(Debug)]
struct Segment {
    summary: Summary,
    /// Its messages; none when it is cold.
    entries: Vec<Entry>,
}

/// A message of a stream.
#[derive(Debug)]
pub(super) struct Entry {
    time: Time,
    /// Where the log has it.
    place: Position,
    message: Message,
}

impl Segment {
    fn end(&self) -> u64 {
        self.summary.end()
    }

    fn is_cold(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Where a consumer begins: at an offset, but with nothing that came before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The offset.
    pub offset: u64,
    /// The time.
    pub since: Time,
}

/// What a search for the next message came to.
#[derive(Debug)]
pub enum Next<'a> {
    /// The message at this offset passes.
    Message(u64, &'a Message),
    /// Nothing up to this offset passes, and more was not looked at: ask again from there.
    Searched(u64),
    /// The message at this offset is not in memory: [`Stream::want`] it.
    Cold(u64),
    /// Nothing more can be read; the next message will have this offset or a later one.
    End(u64),
}

impl Stream {
    /// An empty stream.
    pub fn new(options: StreamOptions) -> Self {
        Self {
            options,
            segments: VecDeque::new(),
            next_offset: 0,
            held_bytes: 0,
            body_bytes: 0,
            unflushed: Unflushed::default(),
            cold: None,
        }
    }

    /// Adds a message, which the log has at `place`, and returns its offset. Nobody can read it before
    /// it is marked as safe.
    ///
    /// Drops nothing: call [`Stream::retain`] afterwards.
    pub fn append(&mut self, message: Message, now: Time, place: Position) -> u64 {
        let offset = self.next_offset;
        let last = self.segments.back().map(|segment| segment.summary);
        // The clock never runs backwards, but searching by time must not depend on it.
        let time = last.map_or(now, |last| last.last_time.max(now));
        let held_bytes = message.held_bytes();
        if self.starts_segment(held_bytes, time) {
            let summary = Summary::begin(offset, time, last.as_ref());
            self.segments.push_back(Segment { summary, entries: Vec::new() });
        }
        let segment = self.segments.back_mut().expect("a first append starts a segment");
        self.held_bytes += held_bytes;
        self.body_bytes += message.body_bytes();
        segment.summary.add(&message, time);
        segment.entries.push(Entry { time, place, message });
        self.next_offset += 1;
        self.compact_behind();
        offset
    }

    fn starts_segment(&self, held_bytes: u64, now: Time) -> bool {
        let Some(last) = self.segments.back().filter(|last| !last.is_cold()) else { return true };
        last.entries.len() >= SEGMENT_MESSAGES_MAX
            || last.summary.held_bytes.saturating_add(held_bytes) > self.options.segment_bytes()
            || now.ms_since(last.summary.first_time) > self.options.segment_age_ms()
    }

    fn compact_behind(&mut self) {
        if let Some(offset) = self.next_offset.checked_sub(1 + UNCOMPACTED_MESSAGES as u64)
            && let Some((segment_index, entry_index)) = self.locate(offset)
            && let Some(entry) = self.segments[segment_index].entries.get_mut(entry_index)
        {
            entry.message.compact();
        }
    }

    /// The offset of the oldest message; the next offset when there is none.
    pub fn first_offset(&self) -> u64 {
        self.segments.front().map_or(self.next_offset, |first| first.summary.base)
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
            self.options.max_age_ms.is_some_and(|limit| now.ms_since(first.summary.last_time) > limit)
        };
        match self.segments.front() {
            Some(first) if over_bytes || over_age(first) => {}
            _ => return 0,
        }
        self.drop_front().map_or(0, |dropped| dropped.count as usize)
    }

    fn drop_front(&mut self) -> Option<Summary> {
        let dropped = self.segments.pop_front()?.summary;
        self.held_bytes -= dropped.held_bytes;
        self.body_bytes -= dropped.body_bytes;
        let first = self.first_offset();
        if let Some(cold) = &mut self.cold {
            cold.forget_before(first);
        }
        Some(dropped)
    }

    /// Gives an empty stream the offset of its first message.
    pub(in crate::broker) fn start_at(&mut self, offset: u64) {
        debug_assert!(self.is_empty());
        self.next_offset = offset;
        self.mark_safe();
    }

    /// Drops what is before `first`, as [`Stream::retain`] did when it was logged. Segments may have
    /// been cut otherwise then: of one in memory the rest stays.
    pub(in crate::broker) fn trim_to(&mut self, first: u64) {
        while let Some(front) = self.segments.front().filter(|front| front.summary.base < first) {
            if front.end() > first {
                return self.trim_front(first);
            }
            self.drop_front();
        }
    }

    fn trim_front(&mut self, first: u64) {
        let Some(front) = self.segments.front_mut().filter(|front| !front.is_cold()) else { return };
        let before = front.summary;
        front.entries.drain(..(first - before.base) as usize);
        let Some(time) = front.entries.first().map(|entry| entry.time) else { return };
        front.summary = Summary::begin(first, time, None);
        for entry in &front.entries {
            front.summary.add(&entry.message, entry.time);
        }
        self.held_bytes -= before.held_bytes - front.summary.held_bytes;
        self.body_bytes -= before.body_bytes - front.summary.body_bytes;
    }

    /// The moment from which [`Stream::retain`] will drop something for its age, if any.
    pub fn next_expiry(&self) -> Option<Time> {
        if self.segments.len() < 2 {
            return None;
        }
        let last = self.segments.front()?.summary.last_time;
        Some(last.after_ms(self.options.max_age_ms?.saturating_add(1)))
    }

    /// Where a consumer that asked for `spec` starts.
    pub fn resolve(&self, spec: &OffsetSpec, now: Time) -> Start {
        let offset = match *spec {
            OffsetSpec::First => self.first_offset(),
            OffsetSpec::Last => {
                let last = self.segments.back().map_or(self.next_offset, |last| last.summary.last_time_offset);
                last.max(self.first_offset())
            }
            OffsetSpec::Next => self.next_offset,
            OffsetSpec::Offset(offset) => offset.clamp(self.first_offset(), self.next_offset),
            OffsetSpec::Timestamp(secs) => return self.start_since(Time(secs.saturating_mul(1000))),
            OffsetSpec::Interval(ms) => return self.start_since(Time(now.0.saturating_sub(ms))),
        };
        Start { offset, since: Time(0) }
    }

    /// The first message that came at `since` or later. Where it is in a segment that is not in memory,
    /// its reader passes over those before it.
    fn start_since(&self, since: Time) -> Start {
        let index = self.segments.partition_point(|segment| segment.summary.last_time < since);
        let offset = self.segments.get(index).map_or(self.next_offset, |segment| {
            let earlier = segment.entries.partition_point(|entry| entry.time < since);
            segment.summary.base + earlier as u64
        });
        Start { offset, since }
    }

    /// The message at `offset` and when it came, unless retention took it, it has not come yet, or it
    /// is not in memory.
    pub fn get(&self, offset: u64) -> Option<(&Message, Time)> {
        let (segment_index, entry_index) = self.locate(offset)?;
        let entry = self.entries_of(segment_index)?.get(entry_index)?;
        Some((&entry.message, entry.time))
    }

    fn locate(&self, offset: u64) -> Option<(usize, usize)> {
        // Readers are mostly at the end.
        let last = self.segments.back()?;
        let segment_index = if offset >= last.summary.base {
            self.segments.len() - 1
        } else {
            self.segments.partition_point(|segment| segment.summary.base <= offset).checked_sub(1)?
        };
        let segment = &self.segments[segment_index];
        (offset < segment.end()).then(|| (segment_index, (offset - segment.summary.base) as usize))
    }

    /// The messages of a segment, if they are in memory.
    fn entries_of(&self, segment_index: usize) -> Option<&[Entry]> {
        let segment = &self.segments[segment_index];
        match &self.cold {
            Some(cold) if segment.is_cold() => cold.page(segment.summary.base),
            _ => Some(&segment.entries),
        }
    }

    /// The first message at `from` or later that came at `since` or later and passes the filter. What
    /// retention took is skipped.
    ///
    /// Looks at no more than [`SCAN_MESSAGES_MAX`] messages.
    pub fn next(&self, from: u64, since: Time, filter: &Filter) -> Next<'_> {
        let mut offset = from.max(self.first_offset());
        let end = self.unflushed.readable_below().min(self.next_offset);
        let looked_max = offset.saturating_add(SCAN_MESSAGES_MAX as u64);
        let Some((mut segment_index, mut entry_index)) = self.locate(offset).filter(|_| offset < end) else {
            return Next::End(offset);
        };
        loop {
            let Some(entries) = self.entries_of(segment_index) else { return Next::Cold(offset) };
            for entry in &entries[entry_index..] {
                if offset == end {
                    return Next::End(offset);
                }
                if offset == looked_max {
                    return Next::Searched(offset);
                }
                if since <= entry.time && filter.passes(&entry.message) {
                    return Next::Message(offset, &entry.message);
                }
                offset += 1;
            }
            (segment_index, entry_index) = (segment_index + 1, 0);
            if segment_index == self.segments.len() {
                return Next::End(offset);
            }
        }
    }

    /// Takes every message away, for the deletion of the stream. The next offset stays.
    pub fn clear(&mut self) {
        self.segments.clear();
        (self.held_bytes, self.body_bytes) = (0, 0);
        self.cold = None;
        self.mark_safe();
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
