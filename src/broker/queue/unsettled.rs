//! The unsettled part of a queue: delivered messages that no client has settled yet.
//!
//! A table of slots: a settle names the slot to find the entry at once and the seq to prove that
//! it means this entry.

use super::ready::Entry;
use crate::broker::consumer::Held;

/// All unsettled deliveries of one queue.
#[derive(Debug, Default)]
pub struct Unsettled {
    slots: Vec<Slot>,
    free: u32,
    len: usize,
    bytes: u64,
}

#[derive(Debug)]
enum Slot {
    Taken { entry: Entry, consumer: u32 },
    Free { next: u32 },
}

const NO_SLOT: u32 = u32::MAX;
/// Slots whose memory a queue keeps when all is settled.
const KEPT_SLOTS: usize = 1024;

impl Unsettled {
    /// An empty table.
    pub fn new() -> Self {
        Self { free: NO_SLOT, ..Self::default() }
    }

    /// Number of unsettled deliveries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is unsettled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a delivery to the consumer of that slot in the queue's table of consumers.
    #[inline(always)]
    pub fn add(&mut self, entry: Entry, consumer: u32) -> Held {
        self.len += 1;
        self.bytes += entry.message.body_bytes();
        let seq = entry.seq;
        let slot = self.free;
        if slot == NO_SLOT {
            self.slots.push(Slot::Taken { entry, consumer });
            return Held { seq, slot: (self.slots.len() - 1) as u32 };
        }
        let place = &mut self.slots[slot as usize];
        let Slot::Free { next } = *place else { unreachable!("the free list names free slots") };
        self.free = next;
        *place = Slot::Taken { entry, consumer };
        Held { seq, slot }
    }

    /// The delivery, when it is still unsettled.
    pub fn get(&self, held: Held) -> Option<&Entry> {
        match self.slots.get(held.slot as usize) {
            Some(Slot::Taken { entry, .. }) if entry.seq == held.seq => Some(entry),
            _ => None,
        }
    }

    /// Where the message of that seq is held, if it is. Looks at all of them.
    pub fn find(&self, seq: u64) -> Option<Held> {
        let is_it = |slot: &Slot| matches!(slot, Slot::Taken { entry, .. } if entry.seq == seq);
        self.slots.iter().position(is_it).map(|slot| Held { seq, slot: slot as u32 })
    }

    /// Takes the delivery and the slot of its consumer.
    pub fn take(&mut self, held: Held) -> Option<(Entry, u32)> {
        self.get(held)?;
        let free = Slot::Free { next: self.free };
        let Slot::Taken { entry, consumer } = std::mem::replace(&mut self.slots[held.slot as usize], free) else {
            return None;
        };
        self.count_out(held.slot, entry.message.body_bytes());
        Some((entry, consumer))
    }

    /// Ends the delivery, and the message with it. Returns the slot of its consumer and what `seen`
    /// makes of it. Most deliveries end like this: the message is not moved out to be dropped.
    #[inline]
    pub fn end<T>(&mut self, held: Held, seen: impl FnOnce(u32, &Entry) -> T) -> Option<(u32, T)> {
        let place = self.slots.get_mut(held.slot as usize)?;
        let Slot::Taken { entry, consumer } = place else { return None };
        if entry.seq != held.seq {
            return None;
        }
        let (consumer, bytes, seen) = (*consumer, entry.message.body_bytes(), seen(*consumer, entry));
        *place = Slot::Free { next: self.free };
        self.count_out(held.slot, bytes);
        Some((consumer, seen))
    }

    #[inline]
    fn count_out(&mut self, slot: u32, bytes: u64) {
        self.free = slot;
        self.len -= 1;
        self.bytes -= bytes;
        if self.len == 0 && self.slots.len() > KEPT_SLOTS {
            self.slots = Vec::new();
            self.free = NO_SLOT;
        }
    }

    /// All unsettled deliveries, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Taken { entry, .. } => Some(entry),
            Slot::Free { .. } => None,
        })
    }

    /// Number of slots, for walking in chunks with [`Self::compact`].
    pub fn slots_count(&self) -> usize {
        self.slots.len()
    }

    /// The deliveries in up to `max` slots from `from`.
    pub fn slots(&self, from: usize, max: usize) -> impl Iterator<Item = &Entry> {
        self.slots.iter().skip(from).take(max).filter_map(|slot| match slot {
            Slot::Taken { entry, .. } => Some(entry),
            Slot::Free { .. } => None,
        })
    }

    /// Compacts the messages with seq up to `to` in `max` slots from `from`; returns the next slot.
    pub fn compact(&mut self, from: usize, to: u64, max: usize) -> usize {
        let end = (from + max).min(self.slots.len());
        for slot in self.slots.get_mut(from..end).into_iter().flatten() {
            if let Slot::Taken { entry, .. } = slot
                && entry.seq <= to
            {
                entry.message.compact();
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{message::Message, record::Position, time::Time};

    fn entry(seq: u64) -> Entry {
        let message = Message::build("", b"q", b"", (0, 0), b"body");
        Entry { seq, message, deadline: Time::NEVER, delivery_count: 0, redelivered: false, place: Position::NONE }
    }

    #[test]
    fn a_reused_slot_does_not_answer_to_its_former_seq() {
        let mut unsettled = Unsettled::new();
        let first = unsettled.add(entry(1), 0);
        assert!(unsettled.take(first).is_some());
        let second = unsettled.add(entry(2), 7);
        assert_eq!(first.slot, second.slot);
        assert!(unsettled.take(first).is_none());
        assert_eq!(unsettled.take(second).map(|(entry, consumer)| (entry.seq, consumer)), Some((2, 7)));
        assert!(unsettled.is_empty());
    }
}
