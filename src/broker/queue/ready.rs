//! The ready part of a queue: messages waiting for a consumer, in delivery order.
//!
//! Knows nothing of consumers or of the log. A requeued message returns to the place it left.
//!
//! Invariants:
//! - inside a priority, entries are ordered by seq;
//! - `len` and `bytes` count the entries that are present (not taken from the middle);
//! - the first and last slot of a priority are present.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

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
    /// Where the log has the message; [`Position::NONE`] when it has not.
    pub place: Position,
}

/// All waiting messages of one queue.
#[derive(Debug)]
pub struct Ready {
    /// By priority; a queue without priorities has one.
    levels: Vec<VecDeque<Slot>>,
    len: usize,
    bytes: u64,
    /// Slots whose message was taken from the middle.
    holes: usize,
    /// Deadlines of messages that carry their own time to live. May name messages that have gone.
    deadlines: BinaryHeap<Reverse<(Time, u64, u8)>>,
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
        Self { levels, len: 0, bytes: 0, holes: 0, deadlines: BinaryHeap::new() }
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes
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

    /// The message that is delivered next.
    pub fn front(&self) -> Option<&Entry> {
        self.levels.iter().rev().find_map(|slots| slots.front()).and_then(|slot| slot.entry.as_ref())
    }

    /// Takes the message that is delivered next.
    pub fn pop(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
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
        if self.len == 0 {
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
        while slots.pop_front_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        while slots.pop_back_if(|slot| slot.entry.is_none()).is_some() {
            self.holes -= 1;
        }
        self.count_out(&entry);
        // Two messages that stay must not keep the places of all that expired between them.
        if self.holes > 64 && self.holes > self.len {
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
        let level = self.levels.iter().position(|slots| {
            slots.front().and_then(|slot| slot.entry.as_ref()).is_some_and(|entry| entry.deadline <= now)
        })?;
        self.pop_level(level)
    }

    /// The earliest deadline, or [`Time::NEVER`]. May be early: of a message that has gone.
    pub fn next_deadline(&self) -> Time {
        let heads = self
            .levels
            .iter()
            .filter_map(|slots| slots.front())
            .filter_map(|slot| slot.entry.as_ref())
            .map(|entry| entry.deadline);
        let own = self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline);
        heads.chain(own).min().unwrap_or(Time::NEVER)
    }

    fn note_deadline(&mut self, entry: &Entry, level: u8) {
        if self.deadlines.len() > 64 && self.deadlines.len() > 2 * self.len {
            let levels = &self.levels;
            self.deadlines.retain(|Reverse((_, seq, level))| {
                let slots = &levels[*level as usize];
                slots.binary_search_by_key(seq, |slot| slot.seq).is_ok_and(|at| slots[at].entry.is_some())
            });
        }
        self.deadlines.push(Reverse((entry.deadline, entry.seq, level)));
    }

    /// All messages in delivery order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().rev().flatten().filter_map(|slot| slot.entry.as_ref())
    }

    /// All messages, in no particular order; what decides about places and sums must stay.
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
