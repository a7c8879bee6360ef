//! What clients of a broker saw, as values: each publish, promise, delivery and settle, in the order
//! in which it was noted.
//!
//! Knows no client, no broker and no wire. What a client asks for is noted before it is sent, what
//! it is told after it was received: if one event stands after another's answer, it came later.

/// A message, wherever copies of it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MessageId {
    /// Cycle of the campaign that published it.
    pub(crate) cycle: u32,
    /// Publishes on one channel at a time, `seq` rising.
    pub(crate) publisher: u32,
    pub(crate) seq: u64,
}

/// Index into [`Topology::queues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) usize);

/// One consumer, or one get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// One transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TxId(pub(crate) u64);

/// One purge or deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WipeId(pub(crate) u64);

/// A message in one queue, from when it came until it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) queue: QueueId,
    pub(crate) message: MessageId,
    /// How often it had been dead-lettered before: tells its stays in the queues of a loop apart.
    pub(crate) deaths: u64,
}

/// How a client finished with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Requeued,
    /// Dead-lettered where the queue says so, else dropped.
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiping {
    /// What is ready goes, what is unsettled stays.
    Purge,
    /// Everything goes, and what is published until the queue is declared again.
    Delete,
}

/// Why a queue dead-letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
}

/// A durable queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    /// Where its dead messages go, and what makes them so.
    pub(crate) dead_letter: Option<(Reason, QueueId)>,
    /// The highest priority that it knows.
    pub(crate) priority_max: Option<u8>,
    /// Publishers are groups: nobody is given a message of one while somebody else has an earlier one.
    pub(crate) is_grouped: bool,
}

/// What a message is published with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Its confirm is no promise beyond the run of the broker.
    pub(crate) is_transient: bool,
    pub(crate) priority: u8,
    /// Nobody may have it before, by the machine's clock.
    pub(crate) due_ms: u64,
}

/// The queues of a campaign.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    pub(crate) queues: Vec<Queue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message goes out, to be routed to these queues.
    Publish {
        message: MessageId,
        queues: Vec<QueueId>,
        traits: Traits,
        tx: Option<TxId>,
    },
    /// The broker took responsibility.
    Confirmed {
        message: MessageId,
    },
    /// The broker declined responsibility.
    Nacked {
        message: MessageId,
    },
    /// A consumer is about to be asked for, or a get about to be sent.
    Opened {
        stream: StreamId,
        queue: QueueId,
        /// It is the queue's only reader between two crashes, and requeues nothing.
        is_sole: bool,
    },
    Delivered {
        stream: StreamId,
        place: Place,
        redelivered: bool,
        /// When this was noted.
        at_ms: u64,
    },
    /// Whoever was given this last has it until then, by the machine's clock, whatever happens to the broker, and
    /// nobody else is given it unless he gives it back. Afterwards it may come again.
    Leased {
        place: Place,
        until_ms: u64,
    },
    /// A delivery whose content is not what was published.
    Damaged {
        stream: StreamId,
    },
    /// A settle goes out.
    Settled {
        place: Place,
        outcome: Outcome,
        tx: Option<TxId>,
    },
    /// Something positive came that follows this settle in the log. A settle itself is never
    /// answered, so it takes two steps on its channel: a later publish was confirmed, hence the
    /// broker has seen the settle; and a persistent publish to a durable queue that was sent after
    /// that confirm was confirmed too. (One publish is not enough: a broker may take the publishes
    /// of one read before its settles. The answer to a commit counts for the settles of its
    /// transaction without this event.)
    /// Over HTTP the answer to a deletion says it.
    Durable {
        place: Place,
    },
    Commit {
        tx: TxId,
    },
    Committed {
        tx: TxId,
    },
    /// Also a transaction's end without the broker: its channel closed before the commit.
    RolledBack {
        tx: TxId,
    },
    /// A purge or a deletion goes out. The queue's readers until then have been gets on the same
    /// channel, so that none of their deliveries can be on its way.
    Wipe {
        wipe: WipeId,
        queue: QueueId,
        wiping: Wiping,
    },
    Wiped {
        wipe: WipeId,
    },
    /// The broker said that the queue exists.
    Declared {
        queue: QueueId,
    },
    /// The broker was killed, and its clients have read what it sent before that.
    Crashed,
}
