//! The latest messages of an exchange, for those who bind later.
//!
//! Routing itself is that of a fanout. Whoever publishes stores, whoever binds replays.

use std::collections::VecDeque;

use super::KindError;
use crate::broker::term::Term;
use crate::broker::value::{Headers, Table};

/// Messages kept when the exchange does not say how many.
pub const LENGTH_DEFAULT: usize = 20;

/// The argument of the exchange that says how many.
const LENGTH: &str = "x-recent-history-length";

/// Messages of the exchange, oldest first, at most `length_max`.
#[derive(Debug)]
pub struct RecentHistory<M> {
    messages: VecDeque<M>,
    length_max: usize,
}

impl<M> RecentHistory<M> {
    /// Nothing kept yet. `arguments` are those of the exchange.
    pub fn new(arguments: &Table) -> Result<Self, KindError> {
        Ok(Self { messages: VecDeque::new(), length_max: length(arguments)? })
    }

    /// True unless the message asks not to be kept.
    pub fn wants(headers: Headers<'_>) -> bool {
        let no_store = headers.get("x-recent-history-no-store");
        !no_store.is_some_and(|value| value.kind == b't' && value.payload != [0])
    }

    /// Keeps a message; returns the one that it displaces.
    pub fn store(&mut self, message: M) -> Option<M> {
        let displaced = if self.messages.len() >= self.length_max { self.messages.pop_front() } else { None };
        self.messages.push_back(message);
        displaced
    }

    /// The kept messages, oldest first.
    pub fn replay(&self) -> impl Iterator<Item = &M> {
        self.messages.iter()
    }

    /// Number of kept messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// How many messages the arguments of an exchange ask to keep.
pub(super) fn length(arguments: &Table) -> Result<usize, KindError> {
    let Some(value) = arguments.get(LENGTH) else { return Ok(LENGTH_DEFAULT) };
    value.as_integer().filter(|&n| n > 0).map(|n| usize::try_from(n).unwrap_or(usize::MAX)).ok_or_else(|| {
        KindError::InvalidArgument(format!(
            "Invalid argument {}, 'x-recent-history-length' must be a positive integer",
            Term(value)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::value::Value;

    fn arguments(length: Value) -> Table {
        [(LENGTH, length)].into_iter().collect()
    }

    fn headers(value: Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        Table::from_iter([("x-recent-history-no-store", value)]).encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_latest_messages_are_replayed_oldest_first() {
        let mut history = RecentHistory::new(&arguments(Value::I32(3))).unwrap();
        let displaced: Vec<_> = (0..5).filter_map(|n| history.store(n)).collect();
        assert_eq!(displaced, [0, 1]);
        assert_eq!(history.replay().copied().collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn twenty_are_kept_by_default() {
        let mut history = RecentHistory::new(&Table::new()).unwrap();
        assert_eq!((0..100).filter_map(|n| history.store(n)).count(), 80);
        assert_eq!(history.len(), 20);
    }

    #[test]
    fn the_length_is_a_positive_integer() {
        for (value, shown) in [(Value::I32(0), "0"), (Value::text("a"), "<<\"a\">>"), (Value::F64(1.5), "1.5")] {
            assert_eq!(
                length(&arguments(value)).unwrap_err().to_string(),
                format!("Invalid argument {shown}, 'x-recent-history-length' must be a positive integer")
            );
        }
    }

    #[test]
    fn only_a_true_flag_keeps_a_message_out() {
        assert!(RecentHistory::<()>::wants(Headers::default()));
        assert!(RecentHistory::<()>::wants(Headers::new(&headers(Value::Bool(false)))));
        assert!(RecentHistory::<()>::wants(Headers::new(&headers(Value::I32(1)))));
        assert!(!RecentHistory::<()>::wants(Headers::new(&headers(Value::Bool(true)))));
    }
}
