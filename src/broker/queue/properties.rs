//! What is known of a queue beside its declaration, and may change while the queue lives.
//!
//! Arguments belong to the declaration: they are compared when it is repeated, and never change. A property
//! may be changed at any time and takes effect at once; a declaration neither names properties nor minds
//! them. How they go together with arguments and policies is said in `settings`.
//!
//! Durable queues record every change ([`Record::QueueAltered`](crate::broker::record::Record)) as the whole
//! of what holds from then on. In the log and in definitions they are a table; what a newer broker wrote
//! there and this one does not know is kept, so that it is not lost on the way back.

use super::{arguments::DEDUP_HEADER_DEFAULT, behaviour::DedupScope, selective::GroupMode};
use crate::broker::value::{Table, Value};

use std::sync::Arc;

/// See the module's text. What is absent is not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// Milliseconds that a lease of a message lasts for which nobody says how long.
    pub lease_ms: Option<u64>,
    /// Milliseconds that a message is withheld for which nobody says how long.
    pub withhold_ms: Option<u64>,
    /// Milliseconds that a receiver waits for a message who does not say how long.
    pub wait_ms: Option<u64>,
    /// Milliseconds that a message may wait before it expires.
    pub message_ttl_ms: Option<u64>,
    /// Bytes that a message may have for those who ask.
    pub message_bytes_max: Option<u64>,
    /// Failed deliveries after which a message is given up.
    pub delivery_limit: Option<u64>,
    /// The queue of this vhost that takes what was given up because its deliveries failed.
    pub dead_queue: Option<Arc<str>>,
    /// How long a consumer owns a group of messages.
    pub group_mode: Option<GroupMode>,
    /// Which messages repeat earlier ones.
    pub dedup: Option<Dedup>,
    /// What is kept here for others: tags, policies, times.
    pub notes: Table,
    /// What this broker does not know.
    pub others: Table,
}

/// Which messages repeat earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    /// The header that names a message.
    pub header: String,
    /// Milliseconds for which a name is remembered.
    pub window_ms: u64,
    /// Among which messages a name is looked for.
    pub scope: DedupScope,
}

impl Default for Dedup {
    fn default() -> Self {
        Self { header: DEDUP_HEADER_DEFAULT.to_owned(), window_ms: DEDUP_WINDOW_MS, scope: DedupScope::Queue }
    }
}

/// Milliseconds for which a message's name is remembered.
pub const DEDUP_WINDOW_MS: u64 = 5 * 60 * 1_000;

const LEASE: &str = "lease-ms";
const WITHHOLD: &str = "withhold-ms";
const WAIT: &str = "wait-ms";
const MESSAGE_TTL: &str = "message-ttl-ms";
const MESSAGE_BYTES: &str = "message-bytes-max";
const DELIVERY_LIMIT: &str = "delivery-limit";
const DEAD_QUEUE: &str = "dead-queue";
const GROUP_MODE: &str = "group-mode";
const DEDUP_HEADER: &str = "dedup-header";
const DEDUP_WINDOW: &str = "dedup-window-ms";
const DEDUP_SCOPE: &str = "dedup-scope";
const NOTES: &str = "notes";

impl Properties {
    /// True when nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As a table, for the log and for definitions.
    pub fn to_table(&self) -> Table {
        let mut table = Table::new();
        let numbers = [
            (LEASE, self.lease_ms),
            (WITHHOLD, self.withhold_ms),
            (WAIT, self.wait_ms),
            (MESSAGE_TTL, self.message_ttl_ms),
            (MESSAGE_BYTES, self.message_bytes_max),
            (DELIVERY_LIMIT, self.delivery_limit),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                table.push(name, integer(number));
            }
        }
        if let Some(queue) = &self.dead_queue {
            table.push(DEAD_QUEUE, Value::text(&**queue));
        }
        if let Some(mode) = self.group_mode {
            table.push(GROUP_MODE, Value::text(mode.name()));
        }
        if let Some(dedup) = &self.dedup {
            table.push(DEDUP_HEADER, Value::text(&*dedup.header));
            table.push(DEDUP_WINDOW, integer(dedup.window_ms));
            table.push(DEDUP_SCOPE, Value::text(dedup.scope.name()));
        }
        if !self.notes.is_empty() {
            table.push(NOTES, Value::Table(self.notes.clone()));
        }
        self.others.iter().for_each(|(name, value)| table.push(name, value.clone()));
        table
    }

    /// From a table. A value of the wrong kind is none: it was said by nobody who knew.
    pub fn from_table(table: Table) -> Self {
        let mut rest = table;
        let mut number = |name| rest.remove(name).and_then(|value| u64::try_from(value.as_integer()?).ok());
        let mut properties = Self {
            lease_ms: number(LEASE),
            withhold_ms: number(WITHHOLD),
            wait_ms: number(WAIT),
            message_ttl_ms: number(MESSAGE_TTL),
            message_bytes_max: number(MESSAGE_BYTES),
            delivery_limit: number(DELIVERY_LIMIT),
            ..Self::default()
        };
        let window_ms = number(DEDUP_WINDOW);
        let mut text = |name| rest.remove(name).and_then(|value| value.as_text().map(ToOwned::to_owned));
        properties.dead_queue = text(DEAD_QUEUE).map(Arc::from);
        properties.group_mode = text(GROUP_MODE).as_deref().and_then(GroupMode::parse);
        let scope = text(DEDUP_SCOPE).as_deref().and_then(DedupScope::parse).unwrap_or_default();
        properties.dedup =
            text(DEDUP_HEADER).map(|header| Dedup { header, window_ms: window_ms.unwrap_or(DEDUP_WINDOW_MS), scope });
        if let Some(Value::Table(notes)) = rest.remove(NOTES) {
            properties.notes = notes;
        }
        properties.others = rest;
        properties
    }
}

fn integer(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Properties {
        Properties {
            lease_ms: Some(30_000),
            withhold_ms: Some(0),
            wait_ms: Some(20_000),
            message_ttl_ms: Some(345_600_000),
            message_bytes_max: Some(1 << 20),
            delivery_limit: Some(3),
            dead_queue: Some("dead".into()),
            group_mode: Some(GroupMode::Unsettled),
            dedup: Some(Dedup { scope: DedupScope::Group, ..Dedup::default() }),
            notes: Table::from_iter([("tags", Value::Table(Table::from_iter([("a", Value::text("b"))])))]),
            others: Table::from_iter([("of-tomorrow", Value::Bool(true))]),
        }
    }

    #[test]
    fn a_table_has_all_of_them_and_what_is_not_known() {
        assert_eq!(Properties::from_table(all().to_table()), all());
        assert!(Properties::default().to_table().is_empty());
        assert!(Properties::from_table(Table::new()).is_empty());
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_none() {
        let table = Table::from_iter([
            (LEASE, Value::text("soon")),
            (WAIT, Value::I64(-1)),
            (GROUP_MODE, Value::text("whatever")),
            (NOTES, Value::Bool(true)),
        ]);
        assert!(Properties::from_table(table).is_empty());
    }
}
