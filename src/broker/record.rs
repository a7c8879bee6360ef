//! What the broker would write to its log, as values, and the seam to whoever keeps them.
//!
//! Records of a queue are appended while that queue's lock is held, so that log order is queue
//! order; a queue, exchange or vhost is recorded before anybody can find it. Only durable things are
//! recorded: durable queues and their persistent messages (all messages of a stream, whose offsets
//! have no gaps), durable exchanges, and the bindings between them. What was decided is recorded,
//! never what it was decided by: [`recovery`](super::recovery) only repeats.

use std::sync::Arc;

use super::{message::Message, time::Time, value::Table, vhost::Metadata};

/// Place in the log; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Identity of a queue in records; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// One change of durable state.
#[derive(Clone, Debug)]
pub enum Record {
    /// Messages entered a queue.
    Enqueue {
        /// The queue.
        queue: QueueId,
        /// Identity in the queue.
        seq: u64,
        /// The message; several queues share its body.
        message: Message,
        /// When it expires.
        deadline: Time,
        /// When it came, which readers of a stream may ask for.
        at: Time,
    },
    /// Messages left a queue for good.
    Settle {
        /// The queue.
        queue: QueueId,
        /// Their identities.
        seqs: Vec<u64>,
    },
    /// Deliveries failed; the messages are back in their places.
    Requeue {
        /// The queue.
        queue: QueueId,
        /// Their identities.
        seqs: Vec<u64>,
    },
    /// One message left a queue and entered others (or none) in one step.
    Move {
        /// Where it was, with its identity there; `None` when it was in no recorded queue.
        from: Option<(QueueId, u64)>,
        /// Where it went, with its identity and deadline there.
        to: Vec<(QueueId, u64, Time)>,
        /// The message as it went on; `None` when it went nowhere.
        message: Option<Message>,
        /// When it moved.
        at: Time,
    },
    /// A stream gave up its oldest messages.
    StreamTrimmed {
        /// The stream.
        queue: QueueId,
        /// The first offset that is left.
        first: u64,
    },
    /// A queue was declared.
    QueueDeclared {
        /// Its identity.
        queue: QueueId,
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// It goes when its last consumer has gone.
        auto_delete: bool,
        /// Its arguments.
        arguments: Table,
    },
    /// A queue was deleted, with all its messages.
    QueueDeleted {
        /// Its identity.
        queue: QueueId,
    },
    /// An exchange was declared.
    ExchangeDeclared {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Name of its type.
        kind: String,
        /// It goes when its last binding has gone.
        auto_delete: bool,
        /// Clients may not publish to it.
        internal: bool,
        /// Its arguments.
        arguments: Table,
    },
    /// An exchange was deleted.
    ExchangeDeleted {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A binding was made or removed.
    Binding {
        /// Made, or removed.
        is_bound: bool,
        /// Its vhost.
        vhost: Arc<str>,
        /// The exchange that messages come from.
        source: Arc<str>,
        /// The queue or exchange that they go to.
        destination: Arc<str>,
        /// The destination is a queue.
        to_queue: bool,
        /// Routing key.
        key: Vec<u8>,
        /// Arguments.
        arguments: Table,
    },
    /// A vhost was made.
    VhostAdded {
        /// Its name.
        name: Arc<str>,
        /// What administration knows of it.
        metadata: Metadata,
    },
    /// A vhost was removed, with everything in it.
    VhostRemoved {
        /// Its name.
        name: Arc<str>,
    },
    /// All of these took effect together. One record, so that no other can come between them.
    Transaction(Vec<Record>),
}

/// Keeps records. Appending never waits: a reply waits for [`Journal::flushed`] instead, and whoever
/// moves that on calls [`Waiting::proceed`](super::verb::Waiting::proceed) afterwards.
pub trait Journal: Send + Sync {
    /// Appends a record; returns the position after it.
    fn append(&self, record: &Record) -> Position;

    /// Everything before this position is safe.
    fn flushed(&self) -> Position;
}
