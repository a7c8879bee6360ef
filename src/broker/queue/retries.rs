//! Messages that wait to be tried again: those that came back, so that a failing consumer is not asked
//! again at once, and dead ones that nobody took though the queue is to keep them until somebody does.
//!
//! A message that waits here is neither ready nor unsettled; it is listed with the unsettled ones.
//! When its time has come it returns to its place in the queue, or is dead-lettered again.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{
    machine::{Dead, Reason},
    ready::Entry,
};
use crate::broker::time::Time;

/// How long a message that came back waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryDelay {
    /// Milliseconds after the first failed delivery; it grows by as much with each further one.
    pub min_ms: u64,
    /// Milliseconds that it does not grow beyond.
    pub max_ms: Option<u64>,
}

impl RetryDelay {
    /// The wait after that many failed deliveries.
    pub fn after(&self, delivery_count: u32) -> u64 {
        let grown = self.min_ms.saturating_mul(u64::from(delivery_count.max(1)));
        self.max_ms.map_or(grown, |max_ms| grown.min(max_ms))
    }
}

/// The messages of one queue that wait to be tried again.
#[derive(Debug, Default)]
pub struct Retries {
    waiting: BinaryHeap<Reverse<Waiting>>,
    bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    due: Time,
    entry: Entry,
    /// Why it is dead, if it is.
    dead: Option<Reason>,
}

/// What is to be done with a message whose time has come.
#[derive(Debug)]
pub enum Retry {
    /// It is ready again.
    Deliver(Entry),
    /// It is dead-lettered again.
    DeadLetter(Dead),
}

impl Retries {
    /// Holds a message until `due`.
    pub fn hold(&mut self, due: Time, entry: Entry) {
        self.bytes += entry.message.body_bytes();
        self.waiting.push(Reverse(Waiting { due, entry, dead: None }));
    }

    /// Holds a dead message until `due`.
    pub fn hold_dead(&mut self, due: Time, Dead { entry, reason }: Dead) {
        self.bytes += entry.message.body_bytes();
        self.waiting.push(Reverse(Waiting { due, entry, dead: Some(reason) }));
    }

    /// Takes one message whose time has come.
    pub fn pop_due(&mut self, now: Time) -> Option<Retry> {
        if self.waiting.peek()?.0.due > now {
            return None;
        }
        let Reverse(Waiting { entry, dead, .. }) = self.waiting.pop()?;
        self.bytes -= entry.message.body_bytes();
        Some(match dead {
            None => Retry::Deliver(entry),
            Some(reason) => Retry::DeadLetter(Dead { entry, reason }),
        })
    }

    /// When the next message is due, or [`Time::NEVER`].
    pub fn next_due(&self) -> Time {
        self.waiting.peek().map_or(Time::NEVER, |Reverse(first)| first.due)
    }

    /// The messages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.waiting.iter().map(|Reverse(waiting)| &waiting.entry)
    }

    /// Gives each message to `each`, in no order.
    pub fn for_each_mut(&mut self, mut each: impl FnMut(&mut Entry)) {
        let mut waiting = std::mem::take(&mut self.waiting).into_vec();
        waiting.iter_mut().for_each(|Reverse(waiting)| each(&mut waiting.entry));
        self.waiting = waiting.into();
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of the bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.entry.seq).cmp(&(other.due, other.entry.seq))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{message::Message, record::Position};

    fn entry(seq: u64) -> Entry {
        let message = Message::build("", b"q", b"", (0, 0), b"body");
        Entry { seq, message, deadline: Time::NEVER, delivery_count: 1, redelivered: true, place: Position::NONE }
    }

    #[test]
    fn messages_come_back_when_due_and_in_order_of_their_seq() {
        let mut retries = Retries::default();
        retries.hold(Time(20), entry(1));
        retries.hold(Time(10), entry(3));
        retries.hold(Time(10), entry(2));
        assert_eq!((retries.next_due(), retries.len(), retries.bytes()), (Time(10), 3, 12));
        let mut due = || match retries.pop_due(Time(10)) {
            Some(Retry::Deliver(entry)) => Some(entry.seq),
            Some(Retry::DeadLetter(dead)) => panic!("{dead:?} is alive"),
            None => None,
        };
        assert_eq!([due(), due(), due()], [Some(2), Some(3), None]);
    }

    #[test]
    fn a_dead_message_stays_dead() {
        let mut retries = Retries::default();
        retries.hold_dead(Time(10), Dead { entry: entry(1), reason: Reason::Expired });
        assert_eq!((retries.len(), retries.bytes()), (1, 4));
        assert!(matches!(retries.pop_due(Time(10)), Some(Retry::DeadLetter(Dead { reason: Reason::Expired, .. }))));
        assert_eq!((retries.len(), retries.bytes()), (0, 0));
    }

    #[test]
    fn the_delay_grows_up_to_its_maximum() {
        let delay = RetryDelay { min_ms: 100, max_ms: Some(250) };
        assert_eq!([1, 2, 3].map(|count| delay.after(count)), [100, 200, 250]);
    }
}
