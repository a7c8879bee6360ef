//! What the broker would write to its log, as values, and the seam to whoever keeps them.
//!
//! Records of a queue are appended while that queue's lock is held, so that log order is queue
//! order; a queue, exchange or vhost is recorded before anybody can find it. Only durable things are
//! recorded: durable queues and their persistent messages (all messages of a stream, whose offsets
//! have no gaps), durable exchanges with what they keep, the bindings between them, and what
//! administration defines ([`Definition`]). Tracing is not: it is off after a start, as in RabbitMQ.
//! What was decided is recorded, never what it was decided by: [`recovery`](super::recovery) only
//! repeats.

mod codec;
mod definition;
mod log;
mod pins;

use std::sync::Arc;

pub use codec::{DecodeError, Decoder, decode, encode, encode_enqueued, kind_name};
pub use definition::{Definition, DefinitionKey};
pub use log::Log;
pub use pins::{Pin, Pins};

use super::{message::Message, queue::dedup::Seen, time::Time, value::Table};

/// Place in the log; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// Of what is in no log. No record begins there.
    pub const NONE: Self = Self(0);

    /// No log gets that long, and its cold files have the bit above it set, too.
    const SPILLED: u64 = 1 << 62;

    /// That place in the files of what is in no log.
    pub const fn in_spill(self) -> Self {
        Self(self.0 | Self::SPILLED)
    }

    /// Whether it is a place in the files of what is in no log.
    pub const fn is_in_spill(self) -> bool {
        self.0 & Self::SPILLED != 0 && self.0 >> 63 == 0
    }

    /// Such a place as those files themselves have it.
    pub const fn plain(self) -> Self {
        Self(self.0 & !Self::SPILLED)
    }
}

/// Identity of a queue in records; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Identity of a message that an exchange holds back; grows and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// When a message that an exchange holds back is due, and which it is: they are released in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldKey {
    /// When it is due.
    pub due: Time,
    /// Its identity.
    pub hold: HoldId,
}

/// Who remembers which messages came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A queue.
    Queue(QueueId),
    /// An exchange.
    Exchange {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

/// One change of durable state.
#[derive(Clone, Debug)]
pub enum Record {
    /// A message that several queues are about to take, or a transaction: [`Record::Enqueue`] names
    /// it by its position instead of having it again, and so may [`Record::Held`].
    ///
    /// It must stay resolvable until so many such records have named it as `targets` says, or
    /// a [`Record::BodyClosed`] says that no more will; where the log ends before either, nobody
    /// will name it either. Its bytes live as long as an entry of a queue that was made of it.
    Body {
        /// Records that may name it.
        targets: u32,
        /// The message.
        message: Message,
    },
    /// No further record names that body, though fewer did than had been said.
    BodyClosed {
        /// Where it is.
        body: Position,
    },
    /// A message entered a queue.
    Enqueue {
        /// The queue.
        queue: QueueId,
        /// Identity in the queue.
        seq: u64,
        /// The message; several queues share its body.
        message: Message,
        /// Where a [`Record::Body`] has the message already.
        body: Option<Position>,
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
    /// Messages up to this one may have been delivered: what comes back of them says so. A later
    /// record may name an earlier one, when fewer were delivered than had been reckoned with.
    Handed {
        /// The queue.
        queue: QueueId,
        /// The last such identity.
        up_to: u64,
    },
    /// A message was named for deduplication. Follows the message's own records: a message that is
    /// not in the log is none that came.
    Seen {
        /// Who remembers it.
        keeper: Keeper,
        /// Its name, and for how long.
        seen: Seen,
    },
    /// An exchange holds a message back.
    Held {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        exchange: Arc<str>,
        /// The identity of what is held.
        hold: HoldId,
        /// When it is to be published.
        due: Time,
        /// The message.
        message: Message,
        /// Where a [`Record::Body`] has the message already.
        body: Option<Position>,
    },
    /// An exchange no longer holds these back; they are in queues, or went nowhere.
    Released {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        exchange: Arc<str>,
        /// Their identities, with the time each was due.
        holds: Vec<HoldKey>,
    },
    /// An exchange keeps a message for those who bind later; the oldest may have to go for it.
    Kept {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        exchange: Arc<str>,
        /// The message.
        message: Message,
    },
    /// Deliveries failed; the messages are back in their places.
    Requeue {
        /// The queue.
        queue: QueueId,
        /// Their identities, each with the number of failed deliveries that it has now.
        seqs: Vec<(u64, u32)>,
    },
    /// Messages were leased, in one call.
    Leased {
        /// The queue.
        queue: QueueId,
        /// Which, and how.
        leased: LeasedTo,
    },
    /// Leases end at another time.
    LeaseChanged {
        /// The queue.
        queue: QueueId,
        /// The messages.
        seqs: Vec<u64>,
        /// When they end.
        until: Time,
    },
    /// Messages are withheld that have entered the queue.
    Withheld {
        /// The queue.
        queue: QueueId,
        /// Their identities, each with the time at which it is ready.
        seqs: Vec<(u64, Time)>,
    },
    /// Messages are no longer withheld.
    Unheld {
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
    /// A queue was emptied: what was in it and ready went.
    Purged {
        /// The queue.
        queue: QueueId,
        /// Messages from this one on came later.
        below: u64,
        /// Earlier ones that were not ready, and so stayed.
        kept: Vec<u64>,
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
        /// Where it sends what nobody has said anything about.
        dead_queue: Option<Arc<str>>,
    },
    /// What is known of a queue beside its declaration has changed.
    QueueAltered {
        /// Its identity.
        queue: QueueId,
        /// All of its properties from now on.
        properties: Table,
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
    /// What is kept with an exchange is this from now on.
    ExchangeAltered {
        /// Its vhost.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// All of it.
        notes: Table,
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
    /// Administration defined something, or changed it.
    Defined(Definition),
    /// Administration removed something, and whatever cannot be without it.
    Removed(DefinitionKey),
    /// All of these took effect together. One record, so that no other can come between them.
    Transaction(Vec<Record>),
}

impl Record {
    /// It says what there is, rather than what happens to messages: whoever asked for that waits for it.
    pub fn is_definition(&self) -> bool {
        match self {
            Self::QueueDeclared { .. }
            | Self::QueueAltered { .. }
            | Self::QueueDeleted { .. }
            | Self::ExchangeDeclared { .. }
            | Self::ExchangeAltered { .. }
            | Self::ExchangeDeleted { .. }
            | Self::Binding { .. }
            | Self::Defined(_)
            | Self::Removed(_) => true,
            Self::Transaction(records) => records.iter().any(Self::is_definition),
            _ => false,
        }
    }

    /// The message that it has in it, if it has one.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Body { message, .. }
            | Self::Enqueue { message, body: None, .. }
            | Self::Held { message, body: None, .. }
            | Self::Kept { message, .. } => Some(message),
            Self::Move { message, .. } => message.as_ref(),
            _ => None,
        }
    }

    /// It says something that a [`Snapshot`](super::snapshot::Snapshot) has.
    pub fn is_of_snapshot(&self) -> bool {
        match self {
            Self::Kept { .. } => true,
            Self::Transaction(records) => records.iter().any(Self::is_of_snapshot),
            other => other.is_definition(),
        }
    }
}

/// What one call leased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeasedTo {
    /// Identities of the messages in their queue. Those of messages that are in no log, too: nobody else gets
    /// them.
    pub seqs: Vec<u64>,
    /// The groups that they hold.
    pub groups: Vec<(u64, Arc<[u8]>)>,
    /// Names the leases.
    pub nonce: u64,
    /// When they began.
    pub at: Time,
    /// When they end.
    pub until: Time,
}

/// A message that enters a queue, borrowed: what most records are.
#[derive(Clone, Copy, Debug)]
pub struct Enqueued<'a> {
    /// The queue.
    pub queue: QueueId,
    /// Identity in the queue.
    pub seq: u64,
    /// The message.
    pub message: &'a Message,
    /// When it expires.
    pub deadline: Time,
    /// When it came.
    pub at: Time,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Where it begins: what a message in it is found by.
    pub at: Position,
    /// The position after it: it is safe when [`Journal::flushed`] has reached this.
    pub end: Position,
}

/// Whether a record is written at once, or gathers with others until somebody waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Haste {
    /// At once.
    #[default]
    Due,
    /// After [`Journal::hasten`], with the next one that is due, or else some milliseconds later.
    Patient,
}

/// Keeps records. Appending never waits: a reply waits for [`Journal::flushed`] instead, and whoever
/// moves that on calls [`Waiting::proceed`](super::verb::Waiting::proceed) afterwards.
pub trait Journal: Send + Sync {
    /// Appends a record.
    fn append(&self, record: &Record, haste: Haste) -> Appended;

    /// Appends the [`Record::Enqueue`] of a message that no other record has.
    fn append_enqueued(&self, enqueued: Enqueued<'_>, haste: Haste) -> Appended {
        let Enqueued { queue, seq, message, deadline, at } = enqueued;
        self.append(&Record::Enqueue { queue, seq, message: message.clone(), body: None, deadline, at }, haste)
    }

    /// Everything before this position is safe.
    fn flushed(&self) -> Position;

    /// The position after the last record.
    fn end(&self) -> Position;

    /// What several records say together, and so must not be divided by a checkpoint.
    fn pins(&self) -> &Arc<Pins>;

    /// Somebody waits for what was appended. Until then a journal may let settles, and what is [`Haste::Patient`],
    /// wait some moments for what comes next.
    fn hasten(&self) {}

    /// Whether more may be read from clients: false while too much waits for the disk. Whoever is told
    /// so asks again after the next [`Waiting::proceed`](super::verb::Waiting::proceed).
    fn has_room(&self) -> bool {
        true
    }
}
