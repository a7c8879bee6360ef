//! A channel: what it expects next, its mode, and what waits for the log or for commit.

use std::{collections::VecDeque, sync::Arc};

use super::{
    codec::{
        frame::{FRAME_OVERHEAD, Frame},
        hot,
        method::AMQPClass,
    },
    delivery_timeout::DeliveryMarks,
};
use crate::broker::{
    block::{Block, Slice},
    consumer::{ConsumerId, Settle, SharedCredit, Taken},
    message::Message,
    queue::Queue,
    record::Position,
};

/// What a channel expects next.
///
/// ```text
///            publish            header, size > 0        last body
///   Method ───────────▶ Header ────────────────▶ Body ────────────▶ Method
///                          └── header, size = 0 ─────────────────────▲
/// ```
#[derive(Default)]
pub(super) enum Content {
    /// A method frame.
    #[default]
    Method,
    /// Nothing: what comes is kept in [`Channel::parked`] until an earlier verb has been answered.
    Parked,
    /// The header of a publish.
    Header {
        /// Where the publish was read from.
        block: Block,
        /// The publish.
        publish: hot::Publish,
    },
    /// A part of the body.
    Body {
        /// Everything but the body.
        incoming: Incoming,
        /// Bytes that are missing.
        missing: u64,
        /// Parts that have come.
        parts: Vec<Slice>,
    },
}

/// A publish whose header has come.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The message, without its body.
    pub(super) message: Message,
    /// What has to be looked at again when it is complete.
    pub(super) notes: Notes,
    /// Return it if no queue takes it.
    pub(super) mandatory: bool,
    /// Further routing keys that its consumers are not to see.
    pub(super) copies: Vec<Vec<u8>>,
}

/// Which rare properties a publish has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// A user id, an expiration, a reply-to or headers: scan again.
    pub(super) is_special: bool,
    /// The properties are malformed.
    pub(super) is_malformed: bool,
    /// It asked to be delivered at once or not at all.
    pub(super) is_immediate: bool,
}

/// What a channel does with publishes and settles.
#[derive(Default)]
pub(super) enum Mode {
    /// They take effect at once, silently.
    #[default]
    Plain,
    /// Publishes are confirmed.
    Confirm(Confirms),
    /// They take effect at commit.
    Transaction(Transaction),
}

/// Publishes that are to be confirmed, by their number on the channel.
#[derive(Default)]
pub(super) struct Confirms {
    /// Number of the last publish.
    pub(super) last: u64,
    /// Number of the last publish that was answered.
    pub(super) answered: u64,
    /// Answers that wait for the log: after which position, up to which number, refused or not.
    pub(super) waiting: VecDeque<(Position, u64, bool)>,
}

impl Confirms {
    /// Publishes that have not been answered. Answers come in the order of the publishes.
    pub(super) fn unanswered(&self) -> u64 {
        self.last - self.answered
    }
}

/// What waits for commit.
#[derive(Default)]
pub(super) struct Transaction {
    /// Publishes.
    pub(super) published: Vec<Incoming>,
    /// Settles: each list with how it is settled.
    pub(super) settled: Vec<(Vec<Taken>, Settle)>,
    /// Bytes of the publishes.
    pub(super) bytes: u64,
}

/// A consumer as its channel sees it.
pub(super) struct Consumer {
    /// Its tag.
    pub(super) tag: Arc<str>,
    /// Its identity.
    pub(super) id: ConsumerId,
    /// Its queue.
    pub(super) queue: Arc<Queue>,
    /// Its source in the channel's ledger.
    pub(super) source: u32,
    /// Milliseconds that it asked for as delivery acknowledgement timeout.
    pub(super) timeout_ms: Option<u64>,
    /// Its queue exists for it alone, to take replies.
    pub(super) is_reply: bool,
}

impl Channel {
    /// Whether something of it waits for the log or for a page.
    pub(super) fn is_waiting(&self) -> bool {
        let has_confirms = matches!(&self.mode, Mode::Confirm(confirms) if !confirms.waiting.is_empty());
        has_confirms || !self.replies.is_empty() || self.pending.is_some() || !self.parked.is_empty()
    }

    /// Publishes that wait for their confirm.
    pub(super) fn unconfirmed(&self) -> u64 {
        match &self.mode {
            Mode::Confirm(confirms) => confirms.unanswered(),
            _ => 0,
        }
    }

    /// Keeps a frame for later.
    pub(super) fn park(&mut self, input: &Block, found: Frame) {
        self.start_parking();
        self.parked_bytes += found.payload_len + FRAME_OVERHEAD;
        self.parked.push_back((input.clone(), found));
    }

    /// Keeps all further frames for later.
    pub(super) fn start_parking(&mut self) {
        if !matches!(self.content, Content::Parked) {
            self.unparked = std::mem::replace(&mut self.content, Content::Parked);
        }
    }

    /// The first parked frame, if the channel can go on; without one, it parks no more.
    pub(super) fn unpark(&mut self) -> Option<(Block, Frame)> {
        if !matches!(self.content, Content::Parked) || !self.replies.is_empty() || self.pending.is_some() {
            return None;
        }
        self.content = std::mem::take(&mut self.unparked);
        let (input, found) = self.parked.pop_front()?;
        self.parked_bytes -= found.payload_len + FRAME_OVERHEAD;
        Some((input, found))
    }
}

/// A single get whose message is being fetched.
pub(super) struct PendingGet {
    /// From where.
    pub(super) queue: Arc<Queue>,
    /// It needs no settling.
    pub(super) no_ack: bool,
}

/// An open channel.
#[derive(Default)]
pub(super) struct Channel {
    /// What it expects next.
    pub(super) content: Content,
    /// What it does with publishes and settles.
    pub(super) mode: Mode,
    /// It was closed by the broker; everything but the answer is ignored.
    pub(super) is_closing: bool,
    /// Name of the queue that was declared last.
    pub(super) last_queue: Option<Arc<str>>,
    /// Unsettled deliveries that a new consumer may hold.
    pub(super) prefetch: u32,
    /// Credit of all its consumers together.
    pub(super) shared_credit: Option<Arc<SharedCredit>>,
    /// Which of its consumers is first to be asked when shared credit comes back.
    pub(super) first_sharer: usize,
    /// Its consumers.
    pub(super) consumers: Vec<Consumer>,
    /// The queue that takes replies for it.
    pub(super) reply_queue: Option<Arc<Queue>>,
    /// Replies that wait for the log, in order.
    pub(super) replies: VecDeque<(Option<Position>, AMQPClass)>,
    /// Frames that came while an earlier verb was not answered, in order.
    pub(super) parked: VecDeque<(Block, Frame)>,
    /// Octets of those frames.
    pub(super) parked_bytes: usize,
    /// What it expected when the first of them came.
    pub(super) unparked: Content,
    /// The single get that waits for its message.
    pub(super) pending: Option<PendingGet>,
    /// How old its deliveries are.
    pub(super) delivery_marks: DeliveryMarks,
}
