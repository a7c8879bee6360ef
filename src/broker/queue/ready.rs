//! The ready part of a queue: messages waiting for a consumer, in delivery order.
//!
//! Knows nothing of consumers or of the log. A requeued message returns to the place it left.
//!
//! A priority may have a [`Gap`]: a range of seqs whose messages wait in the cold index and are not
//! here. What is here with a smaller seq is its head, what is here with a larger one its tail; what
//! is here inside of the range (the index has not got it yet, or it came back) is in the gap's `out`,
//! and waits for the range to be read, or to be evicted.
//!
//! Invariants:
//! - inside a priority, entries are ordered by seq;
//! - `len` and `bytes` count the entries that are present (not taken from the middle), `loose` those
//!   of them without a place, `cold_len` and `cold_bytes` those in gaps;
//! - the first and last slot of a priority are present;
//! - a gap has at least one message, and no two are of one priority.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque},
};

use super::cold::Window;
use crate::broker::{message::Message, record::Position, time::Time};

/// A waiting message.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its identity in this queue; grows with every message.
    pub seq: u64,
    /// The message.
    pub message: Message,
    /// When it expires.
    pub deadline: Time,
    /// Deliveries that failed.
    pub delivery_count: u32,
    /// It was delivered before.
    pub redelivered: bool,
    /// Where the log has the message, or where it was spilled; [`Position::NONE`] when it is only here.
    pub place: Position,
}

/// All waiting messages of one queue.
#[derive(Debug)]
pub struct Ready {
    /// By priority; a queue without priorities has one.
    levels: Vec<VecDeque<Slot>>,
    len: usize,
    bytes: u64,
    /// Number and bytes of what is nowhere but here.
    loose: (usize, u64),
    /// Slots whose message was taken from the middle.
    holes: usize,
    /// Deadlines of messages that carry their own time to live. May name messages that have gone.
    deadlines: BinaryHeap<Reverse<(Time, u64, u8)>>,
    gaps: Vec<Gap>,
    cold_len: u64,
    cold_bytes: u64,
    /// A message that belongs to a group has been here since it was last empty.
    has_groups: bool,
}

/// Messages of one priority that only the cold index has.
#[derive(Debug)]
pub struct Gap {
    /// The priority.
    pub level: u8,
    /// The first seq of the range.
    pub from: u64,
    /// The seq behind the range.
    pub to: u64,
    /// Messages.
    pub len: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Those of them that are persistent, as number and bytes.
    pub persistent: (u64, u64),
    /// The first message expires at this time or later. [`Self::UNKNOWN`] where nobody has looked.
    pub deadline: Time,
    /// Seqs in the range that the index may have and that are none of these messages: they have gone,
    /// or are somewhere in memory.
    pub out: BTreeSet<u64>,
}

impl Gap {
    /// A deadline that is to be looked at.
    pub const UNKNOWN: Time = Time(0);

    /// Whether a message of the index is one of these.
    pub fn has(&self, seq: u64) -> bool {
        (self.from..self.to).contains(&seq) && !self.out.contains(&seq)
    }
}

/// What is delivered next.
#[derive(Debug)]
pub enum Front<'a> {
    /// This message.
    Entry(&'a Entry),
    /// The first message of a gap in this priority.
    Cold(u8),
    /// Nothing.
    Empty,
}

impl<'a> Front<'a> {
    /// The message, when it is here.
    pub fn entry(self) -> Option<&'a Entry> {
        if let Self::Entry(entry) = self { Some(entry) } else { None }
    }
}

/// What comes next in a priority from some place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// The message of this seq.
    Entry(u64),
    /// One of a gap, of this seq at least.
    Cold(u64),
    /// Nothing.
    End,
}

#[derive(Debug)]
struct Slot {
    seq: u64,
    entry: Option<Entry>,
}

impl Ready {
    /// An empty queue with priorities `0..=priority_max`.
    pub fn new(priority_max: u8) -> Self {
        let levels = (0..=priority_max).map(|_| VecDeque::new()).collect();
        Self {
            levels,
            len: 0,
            bytes: 0,
            loose: (0, 0),
            holes: 0,
            deadlines: BinaryHeap::new(),
            gaps: Vec::new(),
            cold_len: 0,
            cold_bytes: 0,
            has_groups: false,
        }
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.len + self.cold_len as usize
    }

    /// True without messages.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.gaps.is_empty()
    }

    /// Bytes of the bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.cold_bytes
    }

    /// Number of messages that are in memory, and the bytes of their bodies.
    pub fn resident(&self) -> (usize, u64) {
        (self.len, self.bytes)
    }

    /// Number of messages that have been written nowhere, and the bytes of their bodies.
    pub fn loose(&self) -> (usize, u64) {
        self.loose
    }

    /// Number of messages that only the index has, and the bytes of their bodies.
    pub fn cold(&self) -> (u64, u64) {
        (self.cold_len, self.cold_bytes)
    }

    /// Those of them that are persistent.
    pub fn cold_persistent(&self) -> (u64, u64) {
        let each = self.gaps.iter().map(|gap| gap.persistent);
        each.fold((0, 0), |(len, bytes), (more, more_bytes)| (len + more, bytes + more_bytes))
    }

    /// What only the index has.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What only the index has of a priority.
    pub fn gap(&self, level: u8) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.level == level)
    }

    /// The largest priority that is told apart.
    pub fn priority_max(&self) -> u8 {
        (self.levels.len() - 1) as u8
    }

    /// Puts a message at the place that its priority and seq give it.
    pub fn push(&mut self, entry: Entry) {
        let level = entry.message.traits.priority.min(self.priority_max());
        self.len += 1;
        self.bytes += entry.message.body_bytes();
        self.has_groups |= entry.message.traits.has_group;
        if entry.place == Position::NONE {
            self.loose = (self.loose.0 + 1, self.loose.1 + entry.message.body_bytes());
        }
        if entry.message.traits.ttl.ms().is_some() && entry.deadline != Time::NEVER {
            self.note_deadline(&entry, level);
        }
        let slots = &mut self.levels[level as usize];
        let slot = Slot { seq: entry.seq, entry: Some(entry) };
        if slots.back().is_none_or(|last| last.seq < slot.seq) {
            slots.push_back(slot);
        } else if slots.front().is_some_and(|first| slot.seq < first.seq) {
            slots.push_front(slot);
        } else {
            match slots.binary_search_by_key(&slot.seq, |slot| slot.seq) {
                Ok(at) => {
                    debug_assert!(slots[at].entry.is_none(), "a message waits once");
                    slots[at] = slot;
                    self.holes -= 1;
                }
                Err(at) => slots.insert(at, slot),
            }
        }
    }

    /// Number of places of a priority, those of taken messages included; `None` past the last one.
    pub fn level_len(&self, level: usize) -> Option<usize> {
        self.levels.get(level).map(VecDeque::len)
    }

    /// The messages in up to `max` places of a priority, from place `from`.
    pub fn slots(&self, level: usize, from: usize, max: usize) -> impl Iterator<Item = &Entry> {
        let slots = self.levels.get(level).into_iter();
        slots.flat_map(move |slots| slots.iter().skip(from).take(max)).filter_map(|slot| slot.entry.as_ref())
    }

    /// What is delivered next.
    #[inline]
    pub fn front(&self) -> Front<'_> {
        if !self.gaps.is_empty() {
            return self.front_beside_gaps();
        }
        let first = self.levels.iter().rev().find_map(|slots| slots.front());
        first.and_then(|slot| slot.entry.as_ref()).map_or(Front::Empty, Front::Entry)
    }

    fn front_beside_gaps(&self) -> Front<'_> {
        for level in (0..self.levels.len()).rev() {
            match self.head(level) {
                Front::Empty => {}
                front => return front,
            }
        }
        Front::Empty
    }

    /// The first of a priority.
    pub fn head(&self, level: usize) -> Front<'_> {
        let first = self.levels[level].front();
        match self.gap(level as u8) {
            Some(gap) if first.is_none_or(|first| first.seq >= gap.from) => Front::Cold(level as u8),
            _ => first.and_then(|slot| slot.entry.as_ref()).map_or(Front::Empty, Front::Entry),
        }
    }

    /// What comes first in a priority with a seq of `from` or more.
    pub fn ahead(&self, level: u8, from: u64) -> Ahead {
        let slots = &self.levels[usize::from(level)];
        let gap = self.gaps.iter().find(|gap| gap.level == level && from < gap.to);
        if gap.is_none() && slots.back().is_none_or(|last| last.seq < from) {
            return Ahead::End;
        }
        let at = match slots.front() {
            Some(first) if first.seq < from => slots.partition_point(|slot| slot.seq < from),
            _ => 0,
        };
        let found = slots.range(at..).find(|slot| slot.entry.is_some()).map(|slot| slot.seq);
        match (found, gap) {
            (found, Some(gap)) if found.is_none_or(|seq| seq >= gap.from) => Ahead::Cold(from.max(gap.from)),
            (Some(seq), _) => Ahead::Entry(seq),
            (None, _) => Ahead::End,
        }
    }

    /// Whether what is here before the gap of a priority is more than that.
    pub fn is_head_beyond(&self, level: u8, window: &Window) -> bool {
        self.gap(level).is_some_and(|gap| {
            // Places of taken messages may be before the gap or behind it: rather a few messages too many.
            let head_len = self.head_len(gap).saturating_sub(self.holes);
            head_len >= window.messages || head_len as u64 * (gap.bytes / gap.len.max(1)) >= window.bytes
        })
    }

    /// A message that belongs to a group may be here.
    #[inline]
    pub fn has_groups(&self) -> bool {
        self.has_groups
    }

    /// Messages of a priority that come before its gap.
    pub fn head_len(&self, gap: &Gap) -> usize {
        self.levels[gap.level as usize].partition_point(|slot| slot.seq < gap.from)
    }

    /// Takes the message that is delivered next, if it is here.
    pub fn pop(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        if !self.gaps.is_empty() {
            let seq = self.front_beside_gaps().entry()?.seq;
            let is_first = |slots: &VecDeque<Slot>| slots.front().is_some_and(|slot| slot.seq == seq);
            let level = self.levels.iter().position(is_first)?;
            return self.pop_level(level);
        }
        let level = self.levels.iter().rposition(|slots| !slots.is_empty())?;
        self.pop_level(level)
    }

    fn pop_level(&mut self, level: usize) -> Option<Entry> {
        let slots = &mut self.levels[level];
        let entry = slots.pop_front()?.entry?;
        while slots.pop_front_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        self.count_out(&entry);
        Some(entry)
    }

    fn count_out(&mut self, entry: &Entry) {
        self.len -= 1;
        self.bytes -= entry.message.body_bytes();
        if entry.place == Position::NONE {
            self.loose = (self.loose.0 - 1, self.loose.1 - entry.message.body_bytes());
        }
        if self.len == 0 {
            self.has_groups = false;
            self.deadlines.clear();
            for slots in &mut self.levels {
                if slots.capacity() > KEPT_CAPACITY {
                    slots.shrink_to(KEPT_CAPACITY);
                }
            }
        }
    }

    /// Takes the message of that seq from wherever it is.
    pub fn take(&mut self, level: u8, seq: u64) -> Option<Entry> {
        let slots = &mut self.levels[level as usize];
        let at = slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        let entry = slots[at].entry.take()?;
        self.holes += 1;
        if entry.place == Position::NONE {
            self.forget_out(level, seq);
        }
        let slots = &mut self.levels[level as usize];
        while slots.pop_front_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        while slots.pop_back_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        self.count_out(&entry);
        // Two messages that stay must not keep the places of all that expired between them.
        if self.holes > 64 && self.holes > self.len / 4 {
            self.levels.iter_mut().for_each(|slots| slots.retain(|slot| slot.entry.is_some()));
            self.holes = 0;
        }
        Some(entry)
    }

    /// Takes one message whose deadline is at or before `now`.
    pub fn pop_expired(&mut self, now: Time) -> Option<Entry> {
        while let Some(&Reverse((deadline, seq, level))) = self.deadlines.peek() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            if let Some(entry) = self.take(level, seq) {
                return Some(entry);
            }
        }
        // Messages without a time to live of their own expire in the order in which they came.
        let level = (0..self.levels.len())
            .find(|&level| self.head(level).entry().is_some_and(|entry| entry.deadline <= now))?;
        self.pop_level(level)
    }

    /// The earliest deadline of what is here, or [`Time::NEVER`]. May be early: of a message that has
    /// gone.
    pub fn next_deadline(&self) -> Time {
        let heads = (0..self.levels.len()).filter_map(|level| self.head(level).entry()).map(|entry| entry.deadline);
        let own = self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline);
        heads.chain(own).min().unwrap_or(Time::NEVER)
    }

    fn note_deadline(&mut self, entry: &Entry, level: u8) {
        self.prune_deadlines();
        self.deadlines.push(Reverse((entry.deadline, entry.seq, level)));
    }

    fn prune_deadlines(&mut self) {
        if self.deadlines.len() > 64 && self.deadlines.len() > 2 * self.len {
            let levels = &self.levels;
            self.deadlines.retain(|Reverse((_, seq, level))| {
                let slots = &levels[*level as usize];
                slots.binary_search_by_key(seq, |slot| slot.seq).is_ok_and(|at| slots[at].entry.is_some())
            });
        }
    }

    /// Messages of a priority that are here with `from <= seq < to`.
    pub fn range(&self, level: u8, from: u64, to: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let slots = &self.levels[level as usize];
        let start = slots.partition_point(|slot| slot.seq < from);
        let end = slots.partition_point(|slot| slot.seq < to).max(start);
        slots.range(start..end).filter_map(|slot| slot.entry.as_ref())
    }

    /// The message of that seq, when it is here.
    pub fn get(&self, level: u8, seq: u64) -> Option<&Entry> {
        let slots = self.levels.get(usize::from(level))?;
        // Most often the first, as with queues that everybody takes everything of.
        if let Some(first) = slots.front().filter(|first| first.seq == seq) {
            return first.entry.as_ref();
        }
        let at = slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        slots[at].entry.as_ref()
    }

    /// The message of that seq, when it is here.
    pub fn get_mut(&mut self, level: u8, seq: u64) -> Option<&mut Entry> {
        let slots = self.levels.get_mut(level as usize)?;
        let at = slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        slots[at].entry.as_mut()
    }

    /// No message of a priority has a smaller seq, wherever it waits.
    pub fn first_seq(&self, level: u8) -> Option<u64> {
        let first = self.levels[level as usize].front().map(|slot| slot.seq);
        first.into_iter().chain(self.gap(level).map(|gap| gap.from)).min()
    }

    /// Puts a gap in that the index is known to have.
    pub fn restore_gap(&mut self, gap: Gap) {
        if gap.len > 0 {
            debug_assert!(self.gap(gap.level).is_none(), "a priority has one gap");
            self.cold_len += gap.len;
            self.cold_bytes += gap.bytes;
            self.gaps.push(gap);
        }
    }

    /// Takes the gap of a priority away.
    pub fn remove_gap(&mut self, level: u8) -> Option<Gap> {
        let at = self.gaps.iter().position(|gap| gap.level == level)?;
        let gap = self.gaps.swap_remove(at);
        self.cold_len -= gap.len;
        self.cold_bytes -= gap.bytes;
        Some(gap)
    }

    /// Takes one message out of a gap; false when it is not in it.
    pub fn take_cold(&mut self, level: u8, seq: u64, body_bytes: u64, is_persistent: bool) -> bool {
        let Some(mut gap) = self.remove_gap(level) else { return false };
        let has = gap.has(seq);
        if has {
            gap.out.insert(seq);
            gap.len -= 1;
            gap.bytes = gap.bytes.saturating_sub(body_bytes);
            if is_persistent {
                gap.persistent.0 = gap.persistent.0.saturating_sub(1);
                gap.persistent.1 = gap.persistent.1.saturating_sub(body_bytes);
            }
        }
        self.restore_gap(gap);
        has
    }

    /// The index may have a message that is somewhere else, or gone.
    pub fn note_out(&mut self, level: u8, seq: u64) {
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.level == level && (gap.from..gap.to).contains(&seq)) {
            gap.out.insert(seq);
        }
    }

    /// The index no longer has a message that had gone.
    pub fn forget_out(&mut self, level: u8, seq: u64) {
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.level == level) {
            gap.out.remove(&seq);
        }
    }

    /// Fills the gap of a priority from its beginning up to `next`, and takes that part of it away.
    /// `deadline` is the least that the rest may have. Returns how many messages it should still have
    /// had when it is at its end: none, unless the index is wrong.
    pub fn fill(&mut self, level: u8, page: Vec<Entry>, next: u64, deadline: Time) -> u64 {
        let Some(mut gap) = self.remove_gap(level) else { return 0 };
        let bytes = page.iter().map(|entry| entry.message.body_bytes()).sum::<u64>();
        let (from, missing) = (gap.from, gap.len.saturating_sub(page.len() as u64));
        gap.len = missing;
        gap.bytes = gap.bytes.saturating_sub(bytes);
        let (persistent, persistent_bytes) = persistent(&page);
        gap.persistent.0 = gap.persistent.0.saturating_sub(persistent);
        gap.persistent.1 = gap.persistent.1.saturating_sub(persistent_bytes);
        gap.from = next;
        gap.deadline = deadline;
        gap.out = gap.out.split_off(&next);
        let is_over = gap.from >= gap.to;
        if !is_over {
            self.restore_gap(gap);
        }
        self.len += page.len();
        self.bytes += bytes;
        for entry in &page {
            self.has_groups |= entry.message.traits.has_group;
            if entry.message.traits.ttl.ms().is_some() && entry.deadline != Time::NEVER {
                self.note_deadline(entry, level);
            }
        }
        // What is behind stays where it is: it may be much, and what is before is not.
        let slots = &mut self.levels[level as usize];
        let before = slots.partition_point(|slot| slot.seq < from);
        let inside = slots.partition_point(|slot| slot.seq < next).max(before);
        let mut front: Vec<Slot> = slots.drain(..inside).collect();
        front.extend(page.into_iter().map(|entry| Slot { seq: entry.seq, entry: Some(entry) }));
        front[before..].sort_by_key(|slot| slot.seq);
        slots.reserve(front.len());
        front.into_iter().rev().for_each(|slot| slots.push_front(slot));
        self.trim(level as usize);
        if is_over { missing } else { 0 }
    }

    /// Leaves those messages to the index that it has, as `is_indexed` says, and that are behind the
    /// window, which is filled in delivery order. Returns them.
    pub fn evict(&mut self, window: &Window, is_indexed: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut evicted = Vec::new();
        let (mut messages, mut bytes) = (window.messages, window.bytes);
        for level in (0..self.levels.len()).rev() {
            let gap = self.remove_gap(level as u8);
            let slots = &mut self.levels[level];
            let head = gap.as_ref().map_or(slots.len(), |gap| slots.partition_point(|slot| slot.seq < gap.from));
            let tail = gap.as_ref().map_or(slots.len(), |gap| slots.partition_point(|slot| slot.seq < gap.to));
            let mut kept = 0;
            for entry in slots.range(..head).map(|slot| slot.entry.as_ref()) {
                let body_bytes = entry.map_or(0, |entry| entry.message.body_bytes());
                if messages == 0 || body_bytes > bytes {
                    // Nothing of a lower priority comes before this.
                    messages = 0;
                    break;
                }
                messages -= usize::from(entry.is_some());
                bytes -= body_bytes;
                kept += 1;
            }
            if kept == slots.len() {
                gap.into_iter().for_each(|gap| self.restore_gap(gap));
                continue;
            }
            let start = evicted.len();
            let behind = slots.split_off(tail);
            let between = slots.split_off(head);
            let over = slots.split_off(kept);
            let mut leave = |slots: &mut VecDeque<Slot>, from: VecDeque<Slot>| {
                for slot in from {
                    match slot.entry {
                        None => self.holes -= 1,
                        Some(entry) if is_indexed(&entry) => evicted.push(entry),
                        entry => slots.push_back(Slot { seq: slot.seq, entry }),
                    }
                }
            };
            leave(slots, over);
            let over_end = slots.len();
            leave(slots, between);
            let behind_start = slots.len();
            leave(slots, behind);
            let gone = &evicted[start..];
            let body_bytes = gone.iter().map(|entry| entry.message.body_bytes()).sum::<u64>();
            self.len -= gone.len();
            self.bytes -= body_bytes;
            if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
                let mut gap = gap.unwrap_or(Gap {
                    level: level as u8,
                    from: u64::MAX,
                    to: 0,
                    len: 0,
                    bytes: 0,
                    persistent: (0, 0),
                    deadline: Time::NEVER,
                    out: BTreeSet::new(),
                });
                if first.seq < gap.from {
                    (gap.from, gap.deadline) = (first.seq, first.deadline);
                }
                gap.to = gap.to.max(last.seq + 1);
                gap.len += gone.len() as u64;
                gap.bytes += body_bytes;
                let (persistent, persistent_bytes) = persistent(gone);
                gap.persistent.0 += persistent;
                gap.persistent.1 += persistent_bytes;
                if !gap.out.is_empty() {
                    gone.iter().for_each(|entry| _ = gap.out.remove(&entry.seq));
                }
                // What stays inside of the range may come to the index any time.
                let slots = self.levels[level].range(kept..over_end).chain(self.levels[level].range(behind_start..));
                gap.out.extend(slots.map(|slot| slot.seq).filter(|seq| (gap.from..gap.to).contains(seq)));
                self.restore_gap(gap);
            } else if let Some(gap) = gap {
                self.restore_gap(gap);
            }
            self.trim(level);
            let slots = &mut self.levels[level];
            if slots.capacity() > KEPT_CAPACITY.max(4 * slots.len()) {
                slots.shrink_to(KEPT_CAPACITY.max(2 * slots.len()));
            }
        }
        self.prune_deadlines();
        evicted
    }

    /// Notes where messages of a priority have been written, which are in the order of their seqs. Of
    /// those that are no longer here nothing is noted.
    pub fn place(&mut self, level: u8, places: &[(u64, Position)]) {
        let Some(&(first, _)) = places.first() else { return };
        let slots = &mut self.levels[level as usize];
        let start = slots.partition_point(|slot| slot.seq < first);
        let mut places = places.iter().peekable();
        for slot in slots.range_mut(start..) {
            while places.next_if(|(seq, _)| *seq < slot.seq).is_some() {}
            let Some((seq, place)) = places.peek() else { return };
            if let Some(entry) = slot.entry.as_mut().filter(|entry| entry.seq == *seq) {
                debug_assert_eq!(entry.place, Position::NONE, "a message is written once");
                entry.place = *place;
                self.loose = (self.loose.0 - 1, self.loose.1 - entry.message.body_bytes());
            }
        }
    }

    fn trim(&mut self, level: usize) {
        let slots = &mut self.levels[level];
        while slots.pop_front_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        while slots.pop_back_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
    }

    /// All messages that are here, in delivery order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().rev().flatten().filter_map(|slot| slot.entry.as_ref())
    }

    /// All messages that are here, in no particular order; what decides about places and sums must stay.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.levels.iter_mut().flatten().filter_map(|slot| slot.entry.as_mut())
    }

    /// Compacts up to `max` messages with `from < seq <= to`, oldest first over all priorities;
    /// returns the seq it got to.
    ///
    /// One budget spent priority by priority would stand still: a lower priority would use it up
    /// while the oldest message of a higher one keeps holding the returned seq back.
    pub fn compact(&mut self, from: u64, to: u64, max: usize) -> u64 {
        let mut heads = BinaryHeap::new();
        for (level, slots) in self.levels.iter().enumerate() {
            let start = slots.partition_point(|slot| slot.seq <= from);
            if let Some(slot) = slots.get(start).filter(|slot| slot.seq <= to) {
                heads.push(Reverse((slot.seq, level, start)));
            }
        }
        for _ in 0..max {
            let Some(Reverse((_, level, index))) = heads.pop() else {
                return to;
            };
            let slots = &mut self.levels[level];
            if let Some(entry) = &mut slots[index].entry {
                entry.message.compact();
            }
            if let Some(next) = slots.get(index + 1).filter(|slot| slot.seq <= to) {
                heads.push(Reverse((next.seq, level, index + 1)));
            }
        }
        heads.pop().map_or(to, |Reverse((seq, _, _))| seq - 1)
    }
}

/// Number of the persistent ones and the bytes of their bodies.
fn persistent(entries: &[Entry]) -> (u64, u64) {
    let persistent = entries.iter().filter(|entry| entry.message.traits.persistent);
    persistent.fold((0, 0), |(len, bytes), entry| (len + 1, bytes + entry.message.body_bytes()))
}

/// Slots whose memory an emptied queue keeps.
const KEPT_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, priority: u8, deadline: Option<u64>) -> Entry {
        let mut message = Message::build("", b"q", b"", (0, 0), b"body");
        message.traits.priority = priority;
        message.traits.ttl = deadline.into();
        let deadline = deadline.map_or(Time::NEVER, Time);
        Entry { seq, message, deadline, delivery_count: 0, redelivered: false, place: Position::NONE }
    }

    fn drain(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).map(|entry| entry.seq).collect()
    }

    #[test]
    fn requeued_message_keeps_its_place() {
        let mut ready = Ready::new(0);
        (1..=5).for_each(|seq| ready.push(entry(seq, 0, None)));
        let (first, second) = (ready.pop().unwrap(), ready.pop().unwrap());
        ready.push(second);
        ready.push(first);
        assert_eq!(drain(&mut ready), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn higher_priority_goes_first_and_larger_ones_are_capped() {
        let mut ready = Ready::new(5);
        for (seq, priority) in [(1, 0), (2, 9), (3, 5), (4, 1)] {
            ready.push(entry(seq, priority, None));
        }
        assert_eq!(drain(&mut ready), [2, 3, 4, 1]);
    }

    #[test]
    fn a_message_expires_behind_one_that_lives_longer() {
        let mut ready = Ready::new(0);
        ready.push(entry(1, 0, None));
        ready.push(entry(2, 0, Some(50)));
        ready.push(entry(3, 0, Some(40)));
        assert_eq!(ready.next_deadline(), Time(40));
        assert_eq!(ready.pop_expired(Time(60)).unwrap().seq, 3);
        assert_eq!(ready.pop_expired(Time(60)).unwrap().seq, 2);
        assert!(ready.pop_expired(Time(60)).is_none());
        assert_eq!((ready.len(), ready.bytes()), (1, 4));
    }

    #[test]
    fn places_of_expired_messages_do_not_pile_up_between_two_that_stay() {
        let mut ready = Ready::new(0);
        ready.push(entry(0, 0, None));
        (1..10_000).for_each(|seq| ready.push(entry(seq, 0, Some(seq))));
        ready.push(entry(10_000, 0, None));
        while ready.pop_expired(Time(10_000)).is_some() {}
        assert_eq!(ready.len(), 2);
        assert!(ready.levels[0].len() <= 2 + 64 + 1);
        assert_eq!(drain(&mut ready), [0, 10_000]);
    }

    #[test]
    fn every_round_of_compaction_gets_on_by_as_many_messages_as_it_may_whatever_their_priorities() {
        let mut ready = Ready::new(3);
        for seq in 1..=40 {
            ready.push(entry(seq, (seq * 7 % 4) as u8, None));
        }
        let reached = |ready: &mut Ready, from| ready.compact(from, 30, 8);
        assert_eq!([0, 8, 16, 24].map(|from| reached(&mut ready, from)), [8, 16, 24, 30]);
        assert_eq!(ready.compact(0, 30, 30), 30);
        assert_eq!(ready.compact(30, 30, 8), 30);
    }

    #[test]
    fn forgotten_deadlines_do_not_pile_up() {
        let mut ready = Ready::new(0);
        ready.push(entry(0, 0, Some(1_000_000)));
        for seq in 1..10_000 {
            ready.push(entry(seq, 0, Some(1_000_000 + seq)));
            ready.take(0, seq).unwrap();
        }
        assert!(ready.deadlines.len() < 200);
    }
}
