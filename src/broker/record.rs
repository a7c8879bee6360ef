//! What the broker would write to its log, as values, and the seam to whoever keeps them.
//!
//! Records of a queue are appended while that queue's lock is held, so that log order is queue
//! order. Only durable things are recorded: durable queues and their persistent messages, durable
//! exchanges, and the bindings between them.

use std::sync::Arc;

use super::{message::Message, time::Time, value::Table};

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
        /// Where it was.
        from: QueueId,
        /// Its identity there; zero when it was refused and never in that queue.
        seq: u64,
        /// Where it went, with its identity and deadline there.
        to: Vec<(QueueId, u64, Time)>,
        /// The message as it went on.
        message: Option<Message>,
    },
    /// All ready messages up to a seq left a queue.
    Purge {
        /// The queue.
        queue: QueueId,
        /// The last seq that may have been removed.
        up_to: u64,
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
    /// A vhost was made or removed.
    Vhost {
        /// Made, or removed.
        is_present: bool,
        /// Its name.
        name: Arc<str>,
    },
    /// Records between these two took effect together, or not at all.
    TransactionBegin,
    /// See [`Record::TransactionBegin`].
    TransactionEnd,
}

/// Keeps records. Appending never waits: a reply waits for [`Journal::flushed`] instead.
pub trait Journal: Send + Sync {
    /// Appends a record; returns the position after it.
    fn append(&self, record: &Record) -> Position;

    /// Everything before this position is safe.
    fn flushed(&self) -> Position;
}
