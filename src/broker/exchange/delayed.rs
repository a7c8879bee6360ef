//! Messages that wait until they are due, and how long a message asks to wait.
//!
//! What is due comes out by time, and in the order it came in among equals.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use crate::broker::record::HoldId;
use crate::broker::time::Time;
use crate::broker::value::{Headers, HeadersBuilder, Value, ValueRef};

/// The header that asks for a delay in milliseconds.
pub const DELAY: &str = "x-delay";

/// The longest delay, about 49 days. A message that asks for more is not delayed at all, as with RabbitMQ's plugin.
pub const DELAY_MS_MAX: i128 = u32::MAX as i128;

/// Capacity below which the heap keeps its memory.
const CAPACITY_KEPT: usize = 1024;

/// Messages that wait.
#[derive(Debug)]
pub struct Delayed<M> {
    heap: BinaryHeap<Held<M>>,
}

#[derive(Debug)]
struct Held<M> {
    due: Time,
    /// Grows with every message.
    hold: HoldId,
    message: M,
}

impl<M> Default for Delayed<M> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<M> Delayed<M> {
    /// Nothing held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds a message until `due`. `hold` is larger than any before.
    pub fn hold(&mut self, due: Time, hold: HoldId, message: M) {
        self.heap.push(Held { due, hold, message });
    }

    /// Lets go of messages wherever they are, as a log says it was done. Returns those that were here.
    pub fn forget(&mut self, holds: &[HoldId]) -> Vec<(Time, HoldId)> {
        let holds: HashSet<_, foldhash::fast::FixedState> = holds.iter().collect();
        let mut gone = Vec::new();
        self.heap.retain(|held| {
            let is_gone = holds.contains(&held.hold);
            if is_gone {
                gone.push((held.due, held.hold));
            }
            !is_gone
        });
        gone
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.heap = BinaryHeap::new();
    }

    /// Takes out at most `max` messages that are due at `now`, as far as the iterator is driven.
    pub fn pop_due(&mut self, now: Time, max: usize) -> impl Iterator<Item = (Time, HoldId, M)> {
        if self.heap.capacity() > CAPACITY_KEPT && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        std::iter::from_fn(move || {
            self.next_due().filter(|due| *due <= now)?;
            self.heap.pop().map(|held| (held.due, held.hold, held.message))
        })
        .take(max)
    }

    /// When the first message is due.
    pub fn next_due(&self) -> Option<Time> {
        self.heap.peek().map(|held| held.due)
    }

    /// All held messages with the time each is due, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Time, HoldId, &M)> {
        self.heap.iter().map(|held| (held.due, held.hold, &held.message))
    }

    /// Number of held messages.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

/// The greatest is the one that is due first.
impl<M> Ord for Held<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.hold).cmp(&(self.due, self.hold))
    }
}

impl<M> PartialOrd for Held<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> PartialEq for Held<M> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<M> Eq for Held<M> {}

/// The milliseconds that a message asks to wait; `None` when it is to be routed at once.
///
/// Integers, other numbers (cut off at the point) and text of an integer count. Zero, less, more
/// than [`DELAY_MS_MAX`] and everything else is no delay.
pub fn delay_ms(headers: Headers<'_>) -> Option<u64> {
    let asked = asked_ms(headers.get(DELAY)?)?;
    (1..=DELAY_MS_MAX).contains(&asked).then_some(asked as u64)
}

/// The headers of a message after its delay: `x-delay` turned negative, so that consumers see how
/// long it waited and a further delayed exchange does not hold it again.
pub fn released_headers(headers: Headers<'_>) -> Vec<u8> {
    let mut released = HeadersBuilder::new();
    let mut delay = delay_ms(headers);
    for (name, value) in headers.iter() {
        match delay.take_if(|_| name == DELAY.as_bytes()) {
            Some(ms) => {
                let ms = -(ms as i64);
                released.push(DELAY, &i32::try_from(ms).map_or(Value::I64(ms), Value::I32));
            }
            None => released.push_ref(name, value),
        }
    }
    released.finish()
}

fn asked_ms(value: ValueRef<'_>) -> Option<i128> {
    if let Some(n) = value.as_integer() {
        return Some(n.into());
    }
    match value.to_value() {
        Value::Text(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
        // Casting cuts off the fraction and keeps within bounds; what is not a number becomes zero.
        Value::F32(n) => Some(n as i128),
        Value::F64(n) => Some(n as i128),
        Value::Decimal { scale, value } => {
            Some(10_i128.checked_pow(scale.into()).map_or(0, |divisor| i128::from(value) / divisor))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Table;

    fn headers(entries: &[(&str, Value)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        entries.iter().map(|(name, value)| (*name, value.clone())).collect::<Table>().encode(&mut bytes);
        bytes
    }

    fn delay(value: Value) -> Option<u64> {
        delay_ms(Headers::new(&headers(&[(DELAY, value)])))
    }

    #[test]
    fn messages_come_out_by_time_and_then_by_arrival() {
        let mut delayed = Delayed::new();
        let messages = [(30, "c"), (10, "a"), (20, "b1"), (20, "b2"), (20, "b3")];
        for (hold, (due, name)) in (0..).zip(messages) {
            delayed.hold(Time(due), HoldId(hold), name);
        }
        assert_eq!(delayed.next_due(), Some(Time(10)));
        assert_eq!(delayed.pop_due(Time(9), 10).next(), None);
        assert_eq!(delayed.pop_due(Time(20), 3).map(|(.., name)| name).collect::<Vec<_>>(), ["a", "b1", "b2"]);
        assert_eq!(delayed.pop_due(Time(20), 3).map(|(.., name)| name).collect::<Vec<_>>(), ["b3"]);
        assert_eq!(delayed.next_due(), Some(Time(30)));
        assert_eq!(delayed.len(), 1);
    }

    #[test]
    fn an_iterator_that_is_dropped_early_leaves_the_rest() {
        let mut delayed = Delayed::new();
        (0..3).for_each(|n| delayed.hold(Time(n), HoldId(n), n));
        assert_eq!(delayed.pop_due(Time(9), 3).next(), Some((Time(0), HoldId(0), 0)));
        assert_eq!(delayed.len(), 2);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut delayed = Delayed::new();
        (0..100_000).for_each(|n| delayed.hold(Time(n), HoldId(n), n));
        assert_eq!(delayed.pop_due(Time::NEVER, 99_999).count(), 99_999);
        assert_eq!(delayed.pop_due(Time::NEVER, 1).count(), 1);
        assert!(delayed.heap.capacity() <= CAPACITY_KEPT);
    }

    #[test]
    fn every_integer_and_what_reads_as_one_is_a_delay() {
        assert_eq!(delay(Value::I32(5000)), Some(5000));
        assert_eq!(delay(Value::U8(5)), Some(5));
        assert_eq!(delay(Value::I64(4_294_967_295)), Some(4_294_967_295));
        assert_eq!(delay(Value::text("1500")), Some(1500));
        assert_eq!(delay(Value::F64(12.9)), Some(12));
        assert_eq!(delay(Value::Decimal { scale: 1, value: 129 }), Some(12));
    }

    #[test]
    fn nothing_else_delays() {
        assert_eq!(delay_ms(Headers::default()), None);
        for value in [
            Value::I32(0),
            Value::I32(-1),
            Value::I64(4_294_967_296),
            Value::text("soon"),
            Value::text(""),
            Value::F64(f64::NAN),
            Value::F64(f64::INFINITY),
            Value::F64(0.9),
            Value::Decimal { scale: 255, value: 1 },
            Value::Bool(true),
            Value::Void,
            Value::Timestamp(5),
        ] {
            assert_eq!(delay(value.clone()), None, "{value:?}");
        }
    }

    #[test]
    fn a_released_message_says_how_long_it_waited_and_waits_no_more() {
        let before = headers(&[("a", Value::text("1")), (DELAY, Value::text("700")), ("b", Value::Void)]);
        let after = released_headers(Headers::new(&before));
        assert_eq!(after, headers(&[("a", Value::text("1")), (DELAY, Value::I32(-700)), ("b", Value::Void)]));
        assert_eq!(delay_ms(Headers::new(&after)), None);
    }
}
