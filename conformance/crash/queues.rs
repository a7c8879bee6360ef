//! The exchanges and queues of the campaign, all durable.

use lapin::types::{AMQPValue, FieldTable};

use crate::{
    history::{Queue, QueueId, Reason, Topology, Traits},
    rng::Rng,
};

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
/// Persistent and transient messages of several priorities.
pub(crate) const PRIORITY: QueueId = QueueId(20);
/// Transient messages beside persistent ones.
pub(crate) const MIXED: QueueId = QueueId(21);
/// Filled and read over STOMP.
pub(crate) const STOMP_WORK: QueueId = QueueId(22);
/// Of a durable subscription over STOMP.
pub(crate) const STOMP_TOPIC: QueueId = QueueId(23);
/// Of one in ActiveMQ's dialect, of a client with a name.
pub(crate) const ACTIVEMQ_TOPIC: QueueId = QueueId(24);

/// Of SQS, made over HTTP: filled and read there and over AMQP.
pub(crate) const SQS_WORK: QueueId = QueueId(25);
/// A FIFO queue.
pub(crate) const SQS_GROUPS: QueueId = QueueId(26);
/// Subscribed to the topic, without and with envelopes.
pub(crate) const SNS_RAW: QueueId = QueueId(27);
pub(crate) const SNS_WRAPPED: QueueId = QueueId(28);
/// What is published to the topic goes to each.
pub(crate) const SNS: [QueueId; 2] = [SNS_RAW, SNS_WRAPPED];
pub(crate) const SQS: [QueueId; 4] = [SQS_WORK, SQS_GROUPS, SNS_RAW, SNS_WRAPPED];

pub(crate) const FAN_EXCHANGE: &str = "fan";
pub(crate) const BOTH_EXCHANGE: &str = "both";
/// Fanout exchanges and what is bound to them.
pub(crate) const EXCHANGES: &[(&str, &[QueueId])] = &[(FAN_EXCHANGE, &FAN), (BOTH_EXCHANGE, &TX)];

const NAMES: [&str; 29] = [
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
    "priority",
    "mixed",
    "stomp.work",
    "stomp.topic",
    "ActiveMQ.Durable.crash:topic",
    "sqs-work",
    "sqs-groups.fifo",
    "sns-raw",
    "sns-wrapped",
];

/// Less than publishers use.
const PRIORITY_MAX: u8 = 3;
/// The highest that publishers use for [`PRIORITY`].
const PRIORITY_USED_MAX: u64 = 5;

/// Short, so that kills fall into it, and long enough for messages to wait.
const RETRY_WAIT_MS: i32 = 60;

pub(crate) fn name(queue: QueueId) -> &'static str {
    NAMES[queue.0]
}

pub(crate) fn is_of_sqs(queue: QueueId) -> bool {
    SQS.contains(&queue)
}

pub(crate) fn all() -> impl Iterator<Item = QueueId> {
    (0..NAMES.len()).map(QueueId)
}

/// What a message for these queues is published with. Transient ones have queues in which nothing but the
/// publishers' own confirms hangs on them.
pub(crate) fn traits(queues: &[QueueId], rng: &mut Rng) -> Traits {
    match queues {
        [PRIORITY] => Traits {
            is_transient: rng.is_one_in(4),
            priority: u8::try_from(rng.within(0..PRIORITY_USED_MAX + 1)).expect("priorities are small"),
            due_ms: 0,
        },
        [MIXED] => Traits { is_transient: rng.is_one_in(2), ..Traits::default() },
        _ => Traits::default(),
    }
}

pub(crate) fn topology() -> Topology {
    let dead_letter = |queue| match queue {
        RETRY_WORK => Some((Reason::Rejected, RETRY_WAIT)),
        RETRY_WAIT => Some((Reason::Expired, RETRY_WORK)),
        _ => None,
    };
    let priority_max = |queue| (queue == PRIORITY).then_some(PRIORITY_MAX);
    let queue = |queue| Queue {
        dead_letter: dead_letter(queue),
        priority_max: priority_max(queue),
        is_grouped: queue == SQS_GROUPS,
    };
    Topology { queues: all().map(queue).collect() }
}

pub(crate) fn arguments(queue: QueueId) -> FieldTable {
    let mut arguments = FieldTable::default();
    let Queue { dead_letter, priority_max, .. } = topology().queues[queue.0];
    if let Some(priority_max) = priority_max {
        arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(priority_max));
    }
    if let Some((why, next)) = dead_letter {
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(name(next).into()));
        if why == Reason::Expired {
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(RETRY_WAIT_MS));
        }
    }
    arguments
}
