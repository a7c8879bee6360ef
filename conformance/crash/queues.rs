//! The exchanges and queues of the campaign, all durable.

use lapin::types::{AMQPValue, FieldTable};

use crate::history::{Queue, QueueId, Reason, Topology};

pub(crate) const DIRECT_0: QueueId = QueueId(0);
pub(crate) const DIRECT_1: QueueId = QueueId(1);
/// What is published to [`FAN_EXCHANGE`] goes to each.
pub(crate) const FAN: [QueueId; 10] = [
    QueueId(2),
    QueueId(3),
    QueueId(4),
    QueueId(5),
    QueueId(6),
    QueueId(7),
    QueueId(8),
    QueueId(9),
    QueueId(10),
    QueueId(11),
];
/// Transactions take from here.
pub(crate) const ORDERS: QueueId = QueueId(12);
/// Transactions put into one of these, or by [`BOTH_EXCHANGE`] into both.
pub(crate) const TX: [QueueId; 2] = [QueueId(13), QueueId(14)];
/// What is rejected here waits in [`RETRY_WAIT`] and comes again.
pub(crate) const RETRY_WORK: QueueId = QueueId(15);
pub(crate) const RETRY_WAIT: QueueId = QueueId(16);
pub(crate) const PURGED: QueueId = QueueId(17);
pub(crate) const DELETED: QueueId = QueueId(18);
/// Takes what is published only for its confirm.
pub(crate) const MARKS: QueueId = QueueId(19);

pub(crate) const FAN_EXCHANGE: &str = "fan";
pub(crate) const BOTH_EXCHANGE: &str = "both";
/// Fanout exchanges and what is bound to them.
pub(crate) const EXCHANGES: &[(&str, &[QueueId])] = &[(FAN_EXCHANGE, &FAN), (BOTH_EXCHANGE, &TX)];

const NAMES: [&str; 20] = [
    "direct.0",
    "direct.1",
    "fan.0",
    "fan.1",
    "fan.2",
    "fan.3",
    "fan.4",
    "fan.5",
    "fan.6",
    "fan.7",
    "fan.8",
    "fan.9",
    "orders",
    "tx.0",
    "tx.1",
    "retry.work",
    "retry.wait",
    "purged",
    "deleted",
    "marks",
];

/// Short, so that kills fall into it, and long enough for messages to wait.
const RETRY_WAIT_MS: i32 = 60;

pub(crate) fn name(queue: QueueId) -> &'static str {
    NAMES[queue.0]
}

pub(crate) fn all() -> impl Iterator<Item = QueueId> {
    (0..NAMES.len()).map(QueueId)
}

pub(crate) fn topology() -> Topology {
    let dead_letter = |queue| match queue {
        RETRY_WORK => Some((Reason::Rejected, RETRY_WAIT)),
        RETRY_WAIT => Some((Reason::Expired, RETRY_WORK)),
        _ => None,
    };
    Topology { queues: all().map(|queue| Queue { dead_letter: dead_letter(queue) }).collect() }
}

pub(crate) fn arguments(queue: QueueId) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some((why, next)) = topology().queues[queue.0].dead_letter {
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(name(next).into()));
        if why == Reason::Expired {
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(RETRY_WAIT_MS));
        }
    }
    arguments
}
