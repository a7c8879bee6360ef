//! What an AMQP connection adds to [`crate::protocol::shared`]: the delivery tags and ledgers of its
//! channels, and how deliveries are encoded.
//!
//! Invariants:
//! - a delivery's tag is assigned in the moment in which it is encoded, so tags are in wire order;
//! - a channel is removed only after its consumers were cancelled at their queues.

use std::{collections::HashMap, sync::Arc};

use super::{
    codec::hot,
    properties::{self, Rewrite},
};
use crate::{
    broker::{
        connections::ChannelStatus,
        consumer::{Batch, Delivery, Handed, Ledger, Outlet},
        message::Message,
        value::{HeadersBuilder, Value},
    },
    protocol::{
        outbox::Chunk,
        shared::{self, Wire},
    },
};

pub use crate::protocol::shared::{Event, Link, outlet_key};

/// What an AMQP connection shares with those who deliver to it.
pub type Shared = shared::Shared<Channels>;

/// The part of it behind the lock.
pub type Output = shared::Output<Channels>;

/// The channels of a connection, and what was agreed with the client.
pub struct Channels {
    open: HashMap<u16, ChannelOutput, foldhash::fast::FixedState>,
    /// Largest frame, as negotiated.
    pub frame_max: u32,
    /// The client wants to be told of cancelled consumers.
    pub notifies_cancel: bool,
}

impl Default for Channels {
    fn default() -> Self {
        Self { open: HashMap::default(), frame_max: super::options::FRAME_MAX_MIN, notifies_cancel: false }
    }
}

impl Wire for Channels {
    fn channels(&self) -> Vec<ChannelStatus> {
        let mut all: Vec<_> = self
            .open
            .iter()
            .map(|(&number, open)| ChannelStatus { number, unsettled: open.ledger.len() as u64, ..open.status.clone() })
            .collect();
        all.sort_by_key(|status| status.number);
        all
    }
}

/// One channel's part of the output.
#[derive(Default)]
pub struct ChannelOutput {
    last_tag: u64,
    /// What was delivered and not settled.
    pub ledger: Ledger,
    /// Tags of consumers, by source.
    tags: Vec<Option<Arc<str>>>,
    /// What listings show.
    pub status: ChannelStatus,
}

/// Bodies up to this size are copied into the contiguous output.
const COPIED_BODY_MAX: u64 = 4096;

impl Output {
    /// Opens a channel.
    pub fn open_channel(&mut self, channel: u16) {
        self.wire.open.insert(channel, ChannelOutput::default());
    }

    /// The channel's part.
    pub fn channel(&mut self, channel: u16) -> Option<&mut ChannelOutput> {
        self.wire.open.get_mut(&channel)
    }

    /// Notes how many publishes of a channel are not confirmed, for listings.
    pub fn set_unconfirmed(&mut self, channel: u16, count: u64) {
        if let Some(open) = self.channel(channel) {
            open.status.unconfirmed = count;
        }
    }

    /// Removes a channel.
    pub fn close_channel(&mut self, channel: u16) -> Option<ChannelOutput> {
        self.wire.open.remove(&channel)
    }

    /// Appends method, header and body of a message, the body as slices when it is large.
    pub fn put_content(&mut self, channel: u16, message: &Message, method: impl FnOnce(&mut Vec<u8>), extra: Extra) {
        let before = self.chunk.len();
        ContentWriter { chunk: &mut self.chunk, channel, frame_max: self.wire.frame_max }.put(message, method, extra);
        self.encoded_bytes += (self.chunk.len() - before) as u64;
    }
}

/// A delivery that was just encoded, for those of the same batch that differ in tag and body only.
struct Pattern<'a> {
    route_bytes: &'a [u8],
    properties: &'a [u8],
    redelivered: bool,
    head: hot::DeliveryHead,
}

/// Encodes messages for one channel.
struct ContentWriter<'a> {
    chunk: &'a mut Chunk,
    channel: u16,
    frame_max: u32,
}

impl ContentWriter<'_> {
    fn put(&mut self, message: &Message, method: impl FnOnce(&mut Vec<u8>), extra: Extra) {
        method(self.chunk.bytes_mut());
        let rewritten = rewritten_properties(message, &extra);
        let properties = rewritten.as_deref().unwrap_or(message.properties());
        hot::put_content_header(self.chunk.bytes_mut(), self.channel, message.body_bytes(), properties);
        self.put_body(message);
    }

    fn put_body(&mut self, message: &Message) {
        let size = message.body_bytes();
        if size == 0 {
            return;
        }
        if size <= COPIED_BODY_MAX
            && let Some(body) = message.body_contiguous()
        {
            hot::put_body_contiguous(self.chunk.bytes_mut(), self.channel, self.frame_max, body);
            return;
        }
        let part_max = hot::body_part_max(self.frame_max);
        let mut size_left = size;
        let mut frame_left = 0;
        for slice in message.body_slices() {
            let mut at = 0;
            while at < slice.len() {
                if frame_left == 0 {
                    frame_left = part_max.min(size_left as usize);
                    hot::put_body_frame_head(self.chunk.bytes_mut(), self.channel, frame_left as u32);
                }
                let step = frame_left.min(slice.len() - at);
                self.chunk.push_slice(slice.part(at, step));
                at += step;
                frame_left -= step;
                size_left -= step as u64;
                if frame_left == 0 {
                    self.chunk.bytes_mut().push(super::codec::frame::FRAME_END);
                }
            }
        }
        debug_assert!(size_left == 0 && frame_left == 0);
    }

    #[inline(always)]
    fn put_delivery<'a>(
        &mut self,
        consumer_tag: &str,
        tag: u64,
        delivery: &Delivery<'a>,
        pattern: &mut Option<Pattern<'a>>,
    ) {
        let message = delivery.message;
        let extra = Extra { delivery_count: delivery.delivery_count, stream_offset: delivery.stream_offset };
        let is_plain = extra.is_none() && message.view().is_none() && message.body_bytes() <= COPIED_BODY_MAX;
        if is_plain && let Some(body) = message.body_contiguous() {
            let out = self.chunk.bytes_mut();
            let (route_bytes, properties) = (message.route_bytes(), message.properties());
            if let Some(pattern) = pattern
                && pattern.redelivered == delivery.redelivered
                && pattern.route_bytes == route_bytes
                && pattern.properties == properties
                && pattern.head.put_again(out, tag, body)
            {
                return;
            }
            let (channel, frame_max) = (self.channel, self.frame_max);
            let consumer_tag = consumer_tag.as_bytes();
            let redelivered = delivery.redelivered;
            let content = hot::ContentOut { channel, frame_max, properties, body_size: body.len() as u64 };
            *pattern = hot::put_delivery(out, &content, consumer_tag, tag, redelivered, route_bytes, body)
                .map(|head| Pattern { route_bytes, properties, redelivered, head });
            return;
        }
        let (channel, redelivered) = (self.channel, delivery.redelivered);
        let method = |out: &mut Vec<u8>| {
            hot::put_deliver(out, channel, consumer_tag.as_bytes(), tag, redelivered, message.route_bytes());
        };
        self.put(message, method, extra);
    }
}

impl ChannelOutput {
    /// The tag of the next delivery.
    pub fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// The newest tag that was assigned.
    pub fn last_tag(&self) -> u64 {
        self.last_tag
    }

    /// Names the consumer of a source.
    pub fn set_consumer_tag(&mut self, source: u32, tag: Option<Arc<str>>) {
        let at = source as usize;
        if self.tags.len() <= at {
            self.tags.resize(at + 1, None);
        }
        self.tags[at] = tag;
    }

    /// The tag of the consumer of a source.
    pub fn consumer_tag(&self, source: u32) -> Option<Arc<str>> {
        self.tags.get(source as usize)?.clone()
    }
}

/// Headers that a delivery adds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// `x-delivery-count`
    pub delivery_count: Option<u32>,
    /// `x-stream-offset`
    pub stream_offset: Option<u64>,
}

impl Extra {
    fn is_none(&self) -> bool {
        self.delivery_count.is_none() && self.stream_offset.is_none()
    }
}

/// The properties as they go out, when they differ from those that came in.
pub(in crate::protocol) fn rewritten_properties(message: &Message, extra: &Extra) -> Option<Vec<u8>> {
    let view = message.view();
    if view.is_none() && extra.is_none() {
        return None;
    }
    let mut rewrite = Rewrite { without_expiration: view.is_some_and(|view| view.without_ttl), ..Rewrite::default() };
    let with_extra = (!extra.is_none()).then(|| {
        let mut headers = HeadersBuilder::new();
        headers.extend(message.headers(), |name| name != b"x-delivery-count" && name != b"x-stream-offset");
        if let Some(count) = extra.delivery_count {
            headers.push("x-delivery-count", &Value::I64(count.into()));
        }
        if let Some(offset) = extra.stream_offset {
            headers.push("x-stream-offset", &Value::I64(offset as i64));
        }
        headers.finish()
    });
    if let Some(headers) = &with_extra {
        rewrite.headers = Some(Some(headers));
    } else if let Some(headers) = view.and_then(|view| view.headers.as_deref()) {
        rewrite.headers = Some(Some(headers));
    }
    let mut out = Vec::new();
    properties::rewrite(message.properties(), &rewrite, &mut out);
    Some(out)
}

impl Outlet for Shared {
    fn deliver(&self, key: u64, batch: &Batch<'_>) -> Handed {
        let (channel, source) = ((key >> 32) as u16, key as u32);
        let mut guard = self.output();
        let output = &mut *guard;
        let Some(open) = output.wire.open.get_mut(&channel) else {
            debug_assert!(false, "consumers are cancelled before their channel goes");
            return Handed::default();
        };
        let Some(tag) = open.consumer_tag(source) else { return Handed::default() };
        let mut writer = ContentWriter { chunk: &mut output.chunk, channel, frame_max: output.wire.frame_max };
        let encoded_before = output.encoded_bytes;
        let chunk_before = writer.chunk.len() as u64;
        let mut pattern = None;
        batch.for_each(|delivery| {
            let delivery_tag = open.next_tag();
            writer.put_delivery(&tag, delivery_tag, &delivery, &mut pattern);
            if let Some(held) = delivery.held {
                let sent_at = encoded_before + writer.chunk.len() as u64 - chunk_before;
                open.ledger.add(delivery_tag, source, held, sent_at);
            }
        });
        output.encoded_bytes = encoded_before + writer.chunk.len() as u64 - chunk_before;
        let is_full = output.waiting_bytes() > self.outbox_bytes_max;
        if is_full
            && let Some(parked) = output.wire.open.get(&channel).and_then(|open| {
                let source = open.ledger.source(source)?;
                Some((source.queue.clone(), source.consumer?))
            })
        {
            output.parked.push(parked);
        }
        let needs_flush = !std::mem::replace(&mut output.is_flush_promised, true);
        Handed { is_full, needs_flush }
    }

    fn cancelled(&self, key: u64) {
        // The client is told by its session: after the answer, if it has deleted the queue itself.
        let (channel, source) = ((key >> 32) as u16, key as u32);
        self.tell(Event::ConsumerCancelled { channel, source });
    }

    fn flush(&self) {
        if let Some(link) = self.link() {
            link.flush();
        }
    }
}
