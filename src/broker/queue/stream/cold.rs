//! What of a stream only the cold index has: the segments behind its resident end.
//!
//! Checkpoints ask a stream what changed and tell it what became of that, as they do with other queues
//! ([`crate::broker::queue::cold`]). A message is filed under its offset, with the time at which it came
//! in place of a deadline; beside the messages the index has the [`Summary`] of each segment, so that a
//! start reads one entry for up to 256 messages.
//!
//! Readers of cold segments have whole segments fetched. Those are shared, and few stay: the ones used
//! last, as long as somebody reads them.
//!
//! Invariants:
//! - messages before `indexed_below` are in the index or among the puts of the look under way; before
//!   `committed_below` they are in the index;
//! - a cold segment ends at or before `committed_below`;
//! - a segment is asked for once until its page has come.

use super::{Entry, Segment, Stream, Summary};
use crate::broker::{
    queue::cold::{ColdEntry, Header, Look, Page, Wanted, Window},
    record::Position,
    time::Time,
};

/// What a stream keeps for its cold segments.
#[derive(Debug, Default)]
pub(super) struct Cold {
    indexed_below: u64,
    committed_below: u64,
    /// Nothing before this offset is in the index.
    head: u64,
    /// As the index has it.
    header: Option<Header>,
    given: Option<Given>,
    /// Cold segments that were fetched, the one used last at the end.
    fetched: Vec<Fetched>,
    /// Bases of segments that are to be asked for.
    wanted: Vec<u64>,
    /// Bases of segments that were asked for.
    asked: Vec<u64>,
    is_damaged: bool,
}

/// What a look has told and nobody has confirmed.
#[derive(Debug)]
struct Given {
    below: u64,
    head: u64,
    header: Option<Header>,
}

#[derive(Debug)]
struct Fetched {
    base: u64,
    held_bytes: u64,
    entries: Vec<Entry>,
    /// Somebody has read it since it was last asked who does.
    is_used: bool,
}

/// Cold segments of a stream that are in memory at a time; more readers at more places take turns.
const FETCHED_MAX: usize = 8;
/// Bytes that they hold, unless one alone holds more.
const FETCHED_BYTES_MAX: u64 = 4 << 20;
/// Segments are fetched before somebody waits for them while fewer than this are under way.
const AHEAD_MAX: usize = FETCHED_MAX / 4;

impl Cold {
    /// The messages of a cold segment, if they were fetched.
    pub(super) fn page(&self, base: u64) -> Option<&[Entry]> {
        self.fetched.iter().find(|fetched| fetched.base == base).map(|fetched| &fetched.entries[..])
    }

    /// Retention took what is before `first`.
    pub(super) fn forget_before(&mut self, first: u64) {
        self.fetched.retain(|fetched| fetched.base >= first);
        self.wanted.retain(|base| *base >= first);
    }

    fn want(&mut self, base: u64) {
        let is_known = self.asked.contains(&base) || self.wanted.contains(&base) || self.page(base).is_some();
        if !is_known && !self.is_damaged {
            self.wanted.push(base);
        }
    }

    fn keep(&mut self, fetched: Fetched) {
        self.fetched.retain(|other| other.base != fetched.base);
        self.fetched.push(fetched);
        let bytes = |all: &[Fetched]| all.iter().map(|one| one.held_bytes).sum::<u64>();
        while self.fetched.len() > 1 && (self.fetched.len() > FETCHED_MAX || bytes(&self.fetched) > FETCHED_BYTES_MAX) {
            self.fetched.remove(0);
        }
    }
}

impl Stream {
    /// Has an index keep what is too much for memory.
    pub(in crate::broker) fn keep_cold(&mut self) {
        self.cold = Some(Box::default());
    }

    /// Everything that the index says is cold.
    pub(in crate::broker) fn restore_index(&mut self, header: Header, segments: Vec<Summary>) {
        let Some(cold) = &mut self.cold else { return };
        debug_assert!(self.segments.is_empty(), "what the index has comes before what records say");
        (cold.indexed_below, cold.committed_below) = (header.indexed_below, header.indexed_below);
        self.next_offset = header.indexed_below;
        for summary in segments {
            self.held_bytes += summary.held_bytes;
            self.body_bytes += summary.body_bytes;
            self.segments.push_back(Segment { summary, entries: Vec::new() });
        }
        cold.head = self.segments.front().map_or(self.next_offset, |first| first.summary.base);
        cold.header = Some(header);
        self.mark_safe();
    }

    /// First half of a checkpoint; see [`Queue::look`](crate::broker::queue::Queue::look).
    pub(in crate::broker::queue) fn look(&mut self, below: Position, window: &Window) -> Option<Look> {
        let (resident, resident_bytes) = self.resident();
        let is_whole = resident > window.messages || resident_bytes > window.bytes;
        let first_offset = self.first_offset();
        let cold = self.cold.as_deref_mut()?;
        // Whoever was to say what became of an earlier one has not.
        cold.given = None;
        // What retention took before it was indexed is not in the index, and will not be.
        let mut indexed_below = cold.indexed_below.max(first_offset);
        if is_whole {
            indexed_below = self.next_offset;
        } else {
            let newest = self.segments.iter().rev().take_while(|segment| segment.end() > indexed_below);
            let old = newest.filter_map(|segment| {
                let index = segment.entries.iter().rposition(|entry| entry.place < below)?;
                Some(segment.summary.base + index as u64 + 1)
            });
            indexed_below = old.fold(indexed_below, u64::max);
        }
        cold.indexed_below = indexed_below;
        let mut look = Look::default();
        let since = cold.committed_below;
        let at = self.segments.partition_point(|segment| segment.end() <= since);
        let mut previous = at.checked_sub(1).map(|before| self.segments[before].summary);
        for segment in self.segments.range(at..).take_while(|segment| segment.summary.base < indexed_below) {
            let base = segment.summary.base;
            let Some(first) = segment.entries.first() else { continue };
            let mut summary = Summary::begin(base, first.time, previous.as_ref());
            let told_before = look.puts.len();
            for (offset, entry) in (base..indexed_below).zip(&segment.entries) {
                summary.add(&entry.message, entry.time);
                if offset >= since {
                    look.puts.push(filed(offset, entry));
                }
            }
            if look.puts.len() > told_before {
                look.segments.push(summary);
            }
            previous = Some(summary);
        }
        if first_offset > cold.head {
            look.heads.push((0, first_offset));
        }
        let header = Header { indexed_below, next_seq: indexed_below, next_deadline: Time::NEVER, ..Header::default() };
        look.header = (cold.header.as_ref() != Some(&header)).then_some(header);
        if look.is_empty() {
            return None;
        }
        cold.given = Some(Given { below: indexed_below, head: first_offset, header: look.header.clone() });
        Some(look)
    }

    /// Second half of a checkpoint; see [`Queue::looked`](crate::broker::queue::Queue::looked). Returns
    /// what has left memory, to be dropped without a lock.
    pub(in crate::broker::queue) fn looked(&mut self, is_committed: bool, window: &Window) -> Vec<Vec<Entry>> {
        let Some(given) = self.cold.as_deref_mut().and_then(|cold| cold.given.take()) else { return Vec::new() };
        if !is_committed {
            return Vec::new();
        }
        if let Some(cold) = self.cold.as_deref_mut() {
            (cold.committed_below, cold.head) = (given.below, given.head);
            cold.header = given.header.or(cold.header.take());
        }
        self.evict(given.below, window)
    }

    fn evict(&mut self, committed_below: u64, window: &Window) -> Vec<Vec<Entry>> {
        let (mut resident, mut resident_bytes) = self.resident();
        let cold_count = self.segments.partition_point(Segment::is_cold);
        let mut evicted = Vec::new();
        // Readers at the end of the stream find its last segment.
        let without_last = self.segments.len().saturating_sub(1);
        for segment in self.segments.range_mut(cold_count.min(without_last)..without_last) {
            let is_small = resident <= window.messages && resident_bytes <= window.bytes;
            if is_small || segment.end() > committed_below {
                break;
            }
            resident -= segment.entries.len();
            resident_bytes -= segment.summary.held_bytes;
            evicted.push(std::mem::take(&mut segment.entries));
        }
        evicted
    }

    /// Messages in memory that nobody fetched, and the bytes that they hold.
    fn resident(&self) -> (usize, u64) {
        let resident = self.segments.iter().rev().take_while(|segment| !segment.is_cold());
        resident
            .fold((0, 0), |(count, bytes), segment| (count + segment.entries.len(), bytes + segment.summary.held_bytes))
    }

    /// Number of messages that are not resident, and the bytes of their bodies.
    pub(in crate::broker) fn cold_count(&self) -> (u64, u64) {
        let cold = self.segments.iter().take_while(|segment| segment.is_cold());
        cold.fold((0, 0), |(count, bytes), segment| (count + segment.summary.count, bytes + segment.summary.body_bytes))
    }

    /// Its messages on disk cannot be read.
    pub(in crate::broker) fn is_damaged(&self) -> bool {
        self.cold.as_deref().is_some_and(|cold| cold.is_damaged)
    }

    /// Whether the message at `offset` has to be fetched, or had to be.
    pub(in crate::broker::queue) fn is_cold_at(&self, offset: u64) -> bool {
        self.locate(offset).is_some_and(|(segment_index, _)| self.segments[segment_index].is_cold())
    }

    /// Somebody is about to read at `offset`: what it reads there stays, and what comes next is fetched.
    pub(in crate::broker::queue) fn read_at(&mut self, offset: u64) {
        let Some((segment_index, _)) = self.locate(offset) else { return };
        let Some(segment) = self.segments.get(segment_index).filter(|segment| segment.is_cold()) else { return };
        let next = self.segments.get(segment_index + 1).filter(|next| next.is_cold()).map(|next| next.summary.base);
        let base = segment.summary.base;
        let Some(cold) = self.cold.as_deref_mut() else { return };
        let Some(at) = cold.fetched.iter().position(|fetched| fetched.base == base) else { return };
        cold.fetched[at].is_used = true;
        cold.fetched[at..].rotate_left(1);
        if let Some(next) = next
            && cold.asked.len() + cold.wanted.len() < AHEAD_MAX
        {
            cold.want(next);
        }
    }

    /// Somebody could take the message at `offset`, which is cold.
    pub(in crate::broker::queue) fn want(&mut self, offset: u64) {
        if let Some((segment_index, _)) = self.locate(offset)
            && let Some(cold) = self.cold.as_deref_mut()
        {
            cold.want(self.segments[segment_index].summary.base);
        }
    }

    /// The pages that are to be asked for now; each is handed out once.
    pub(in crate::broker::queue) fn wanted_pages(&mut self) -> Vec<Wanted> {
        let Some(cold) = self.cold.as_deref_mut() else { return Vec::new() };
        let mut pages = Vec::new();
        for base in cold.wanted.drain(..) {
            let Ok(index) = self.segments.binary_search_by_key(&base, |segment| segment.summary.base) else { continue };
            let Summary { count, .. } = self.segments[index].summary;
            cold.asked.push(base);
            let (to, messages_max) = (base + count, count as usize);
            pages.push(Wanted::Front { level: 0, from: base, to, messages_max, bytes_max: u64::MAX });
        }
        pages
    }

    /// Takes a page that was asked for. Returns what is wrong with the cold messages, once.
    pub(in crate::broker::queue) fn page_in(&mut self, page: Page) -> Option<String> {
        let cold = self.cold.as_deref_mut()?;
        let Wanted::Front { from, .. } = page.wanted else { return None };
        cold.asked.retain(|base| *base != from);
        if cold.is_damaged {
            return None;
        }
        // Retention may have taken it meanwhile.
        let index = self.segments.binary_search_by_key(&from, |segment| segment.summary.base).ok()?;
        let Summary { base, count, held_bytes, .. } = self.segments[index].summary;
        let found = match page.result {
            Ok(found) => found,
            Err(error) => {
                cold.is_damaged = true;
                return Some(error);
            }
        };
        let are_all = found.len() as u64 == count && found.iter().map(|(entry, _)| entry.seq).eq(base..base + count);
        if !are_all {
            cold.is_damaged = true;
            return Some(format!("the index misses messages from offset {base} on: it has {} of {count}", found.len()));
        }
        let entry = |(entry, message): (ColdEntry, _)| Entry { time: entry.deadline, place: entry.place, message };
        cold.keep(Fetched { base, held_bytes, entries: found.into_iter().map(entry).collect(), is_used: true });
        None
    }

    /// Gives up what was fetched and nobody has read since this was last called.
    pub(in crate::broker::queue) fn forget_unread(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.fetched.retain_mut(|fetched| std::mem::take(&mut fetched.is_used));
        }
    }

    /// Nobody reads: gives up everything that was fetched.
    pub(in crate::broker::queue) fn forget_fetched(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.fetched = Vec::new();
            cold.wanted.clear();
        }
    }
}

fn filed(offset: u64, entry: &Entry) -> ColdEntry {
    ColdEntry {
        level: 0,
        seq: offset,
        place: entry.place,
        deadline: entry.time,
        has_own_ttl: false,
        delivery_count: 0,
        redelivered: false,
        body_bytes: entry.message.body_bytes(),
    }
}

#[cfg(test)]
mod tests;
