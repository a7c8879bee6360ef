//! What a STOMP connection adds to [`crate::protocol::shared`]: its delivery tags, its ledger, and how
//! MESSAGE frames are encoded.
//!
//! Invariant: a delivery's tag is assigned in the moment in which it is encoded, so tags are in wire
//! order.

use std::collections::VecDeque;

use super::{
    codec::{self, Escapes},
    dialect::{
        Dialect,
        activemq::message::{self as activemq_message, Style},
        rabbitmq::{destination, properties},
    },
    options::Options,
};
use crate::{
    broker::{
        connections::ChannelStatus,
        consumer::{Batch, Delivery, Handed, Ledger, Outlet},
        message::Message,
    },
    protocol::{
        amqp::output::{Extra, rewritten_properties},
        outbox::Chunk,
        shared::{self, Event, Wire},
    },
};

/// What a STOMP connection shares with those who deliver to it.
pub type Shared = shared::Shared<Deliveries>;

/// The number of the channel that a connection is in listings.
pub(super) const CHANNEL: u16 = 1;

/// Bodies up to this size are copied into the contiguous output.
const COPIED_BODY_MAX: u64 = 4096;

/// What is being delivered to a connection.
#[derive(Default)]
pub struct Deliveries {
    /// It has logged in.
    pub(super) is_open: bool,
    last_tag: u64,
    /// What was delivered and not settled.
    pub(super) ledger: Ledger,
    /// By source of the ledger.
    subscriptions: Vec<Option<Subscribed>>,
    /// What listings show.
    pub(super) status: ChannelStatus,
    dialect: Dialect,
    pub(super) trailing_lf: bool,
    last: Last,
    /// What messages of ActiveMQ's dialect are written by.
    style: Style,
    /// Tags of deliveries that are acknowledged by their message's id, with a hash of that.
    ids: VecDeque<(u64, u64)>,
}

/// How a subscription's messages begin.
#[derive(Default)]
pub(super) struct Subscribed {
    /// The command, and the header `subscription` where there is one.
    pub(super) head: Vec<u8>,
    /// What stands before the tag in `message-id`.
    pub(super) message_id: Vec<u8>,
    /// Messages say by what they are acknowledged.
    pub(super) has_ack: bool,
    /// They are acknowledged by their own id.
    pub(super) is_known_by_id: bool,
    /// One acknowledgement stands for all of its group before it.
    pub(super) is_cumulative: bool,
    /// The same for all sources of one subscription.
    pub(super) group: u64,
    /// What all messages have as their destination.
    pub(super) destination: Option<Vec<u8>>,
}

/// The message that was encoded last: many are alike but for their bodies.
#[derive(Default)]
struct Last {
    route: Vec<u8>,
    destination: Vec<u8>,
    properties: Vec<u8>,
    headers: Vec<u8>,
}

impl Last {
    fn set(&mut self, route: &[u8], properties: &[u8], message: &Message) {
        if self.route != route || self.destination.is_empty() {
            replace(&mut self.route, route);
            let mut text = Vec::new();
            destination::put_destination(message.exchange(), message.key(), &mut text);
            self.destination.clear();
            codec::put_header(b"destination", &text, &mut self.destination);
        }
        if self.properties != properties {
            replace(&mut self.properties, properties);
            self.headers.clear();
            properties::put_headers(properties, &mut self.headers);
        }
    }
}

fn hash_of(id: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(&foldhash::fast::FixedState::default(), id)
}

fn replace(old: &mut Vec<u8>, new: &[u8]) {
    if old.capacity() > KEPT_BYTES_MAX {
        *old = Vec::new();
    }
    old.clear();
    old.extend_from_slice(new);
}

/// Bytes of properties that a connection remembers for longer than a message.
const KEPT_BYTES_MAX: usize = 4096;

impl Deliveries {
    /// Readies for a connection of that dialect.
    pub(super) fn begin(&mut self, dialect: Dialect, options: &Options) {
        self.dialect = dialect;
        self.style.topic_exchange = options.default_topic_exchange.clone().into_bytes();
        self.trailing_lf = options.trailing_lf;
    }

    /// Says what the connection is called, and how text is written to it.
    pub(super) fn name_session(&mut self, session: &str, escapes: Escapes) {
        self.style.session = session.as_bytes().to_vec();
        self.style.escapes = Some(escapes);
    }

    /// Says what the client calls a queue or a topic of its own.
    pub(super) fn name_temporary(&mut self, name: &str, text: &[u8]) {
        self.style.temporary.insert(name.as_bytes().into(), text.into());
    }

    /// How messages of a source are written.
    pub(super) fn subscription(&self, source: u32) -> Option<&Subscribed> {
        self.subscriptions.get(source as usize)?.as_ref()
    }

    /// The oldest unsettled delivery of the message with that id, of one group or of any.
    pub(super) fn find_delivery(&self, id: &[u8], group: Option<u64>) -> Option<u64> {
        let hash = hash_of(id);
        let is_of = |source| group.is_none_or(|group| self.subscription(source).is_some_and(|one| one.group == group));
        let known = self.ids.iter().filter(|(_, other)| *other == hash).map(|(tag, _)| *tag);
        known.into_iter().find(|tag| self.ledger.source_of(*tag).is_some_and(is_of))
    }

    fn note_id(&mut self, tag: u64, id: &[u8]) {
        let oldest = self.ledger.oldest().unwrap_or(tag);
        while self.ids.front().is_some_and(|(tag, _)| *tag < oldest) {
            self.ids.pop_front();
        }
        if self.ids.len() > 64 && self.ids.len() > 2 * self.ledger.len() {
            let ledger = &self.ledger;
            self.ids.retain(|(tag, _)| ledger.contains(*tag));
        }
        self.ids.push_back((tag, hash_of(id)));
    }

    /// Names the subscription of a source.
    pub(super) fn set_subscription(&mut self, source: u32, subscribed: Option<Subscribed>) {
        let at = source as usize;
        if self.subscriptions.len() <= at {
            self.subscriptions.resize_with(at + 1, || None);
        }
        self.subscriptions[at] = subscribed;
    }

    /// The newest tag that was assigned.
    pub(super) fn last_tag(&self) -> u64 {
        self.last_tag
    }

    fn put(&mut self, source: u32, delivery: &Delivery<'_>, chunk: &mut Chunk) -> Option<u64> {
        let subscribed = self.subscriptions.get(source as usize)?.as_ref()?;
        let message = delivery.message;
        let extra = Extra { delivery_count: delivery.delivery_count, stream_offset: delivery.stream_offset };
        let rewritten = rewritten_properties(message, &extra);
        if self.dialect == Dialect::Activemq {
            let properties = rewritten.as_deref().unwrap_or(message.properties());
            self.last_tag += 1;
            let tag = self.last_tag;
            let is_known_by_id = subscribed.is_known_by_id;
            let id = activemq_message::put(&self.style, subscribed, delivery, properties, tag, chunk);
            codec::put_end(self.trailing_lf, chunk.bytes_mut());
            if is_known_by_id {
                self.note_id(tag, &id);
            }
            return Some(tag);
        }
        self.last.set(message.route_bytes(), rewritten.as_deref().unwrap_or(message.properties()), message);
        self.last_tag += 1;
        let out = chunk.bytes_mut();
        out.extend_from_slice(&subscribed.head);
        out.extend_from_slice(&self.last.destination);
        out.extend_from_slice(b"message-id:");
        out.extend_from_slice(&subscribed.message_id);
        codec::put_number(self.last_tag, out);
        let redelivered: &[u8] = if delivery.redelivered { b"\nredelivered:true\n" } else { b"\nredelivered:false\n" };
        out.extend_from_slice(redelivered);
        if subscribed.has_ack {
            out.extend_from_slice(b"ack:");
            out.extend_from_slice(&subscribed.message_id);
            codec::put_number(self.last_tag, out);
            out.push(b'\n');
        }
        out.extend_from_slice(&self.last.headers);
        let size = message.body_bytes();
        codec::put_content_length(size, out);
        out.push(b'\n');
        match message.body_contiguous() {
            Some(body) if size <= COPIED_BODY_MAX => out.extend_from_slice(body),
            _ => message.body_slices().for_each(|slice| chunk.push_slice(slice)),
        }
        codec::put_end(self.trailing_lf, chunk.bytes_mut());
        Some(self.last_tag)
    }
}

impl Wire for Deliveries {
    fn channels(&self) -> Vec<ChannelStatus> {
        let status = ChannelStatus { number: CHANNEL, unsettled: self.ledger.len() as u64, ..self.status.clone() };
        if self.is_open { vec![status] } else { Vec::new() }
    }
}

impl Outlet for Shared {
    fn deliver(&self, key: u64, batch: &Batch<'_>) -> Handed {
        let source = key as u32;
        let mut guard = self.output();
        let output = &mut *guard;
        let encoded_before = output.encoded_bytes;
        let chunk_before = output.chunk.len() as u64;
        batch.for_each(|delivery| {
            let Some(tag) = output.wire.put(source, &delivery, &mut output.chunk) else { return };
            if let Some(held) = delivery.held {
                let sent_at = encoded_before + output.chunk.len() as u64 - chunk_before;
                output.wire.ledger.add(tag, source, held, sent_at);
            }
        });
        output.encoded_bytes = encoded_before + output.chunk.len() as u64 - chunk_before;
        let is_full = output.waiting_bytes() > self.outbox_bytes_max;
        let source = output.wire.ledger.source(source);
        if is_full && let Some((queue, Some(consumer))) = source.map(|source| (source.queue.clone(), source.consumer)) {
            output.parked.push((queue, consumer));
        }
        let needs_flush = !std::mem::replace(&mut output.is_flush_promised, true);
        Handed { is_full, needs_flush }
    }

    fn cancelled(&self, key: u64) {
        self.tell(Event::ConsumerCancelled { channel: CHANNEL, source: key as u32 });
    }

    fn flush(&self) {
        if let Some(link) = self.link() {
            link.flush();
        }
    }
}
