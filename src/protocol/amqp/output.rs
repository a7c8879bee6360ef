//! What a connection shares with those who deliver to it: its encoded output, the delivery tags and
//! ledgers of its channels, and what it has to be told.
//!
//! One lock guards all of it. It is taken under a queue's lock and takes no other lock.
//!
//! Invariants:
//! - a delivery's tag is assigned in the moment in which it is encoded, so tags are in wire order;
//! - a channel is removed only after its consumers were cancelled at their queues.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    codec::hot,
    properties::{self, Rewrite},
};
use crate::{
    broker::{
        Broker,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        consumer::{Batch, ConsumerId, Delivery, Handed, Ledger, Outlet},
        message::Message,
        queue::Queue,
        value::{HeadersBuilder, Value},
    },
    protocol::outbox::Chunk,
};

/// How the output gets to the peer. Implemented by whoever owns the socket.
pub trait Link: Send + Sync {
    /// Writes what waits, as far as the peer takes it.
    fn flush(&self);
    /// Has the connection's own task look at [`Shared::take_events`].
    fn wake(&self);
}

/// Something that happened elsewhere and that the connection's session has to act on.
#[derive(Debug)]
pub enum Event {
    /// A consumer was cancelled by its queue.
    ConsumerCancelled {
        /// Its channel.
        channel: u16,
        /// Its source in the channel's ledger.
        source: u32,
    },
    /// The connection is to be closed.
    Close(String),
    /// An alarm went on or off.
    AlarmChanged,
    /// Output has drained: parked consumers can go on.
    Drained,
    /// The log has been flushed further, or a page is there.
    Proceed,
}

/// See the module's text.
pub struct Shared {
    output: Mutex<Output>,
    link: OnceLock<Weak<dyn Link>>,
    events: Mutex<Vec<Event>>,
    has_events: AtomicBool,
    /// It is registered with those who wait for the log or for a page.
    is_waiting: AtomicBool,
    outbox_bytes_max: u64,
}

/// The part behind the lock.
pub struct Output {
    chunk: Chunk,
    channels: HashMap<u16, ChannelOutput, foldhash::fast::FixedState>,
    /// Largest frame, as negotiated.
    pub frame_max: u32,
    /// The client wants to be told of cancelled consumers.
    pub notifies_cancel: bool,
    /// Somebody has promised to flush.
    is_flush_promised: bool,
    /// Bytes encoded since the connection was opened.
    encoded_bytes: u64,
    /// Bytes that the peer's socket has taken.
    sent_bytes: u64,
    /// Consumers that wait for room.
    parked: Vec<(Arc<Queue>, ConsumerId)>,
    /// Bytes received, for listings.
    pub received_bytes: u64,
    /// Reads that brought them.
    pub reads_count: u64,
    /// Writes that the peer's socket has taken something of.
    writes_count: u64,
    /// It is not read from because of an alarm.
    pub is_blocked: bool,
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

/// What an outlet calls a consumer: its channel and its source.
pub fn outlet_key(channel: u16, source: u32) -> u64 {
    u64::from(channel) << 32 | u64::from(source)
}

impl Shared {
    /// For a connection whose outbox is full at `outbox_bytes_max` bytes.
    pub fn new(outbox_bytes_max: usize) -> Self {
        Self {
            output: Mutex::new(Output {
                chunk: Chunk::default(),
                channels: HashMap::default(),
                frame_max: super::options::FRAME_MAX_MIN,
                notifies_cancel: false,
                is_flush_promised: false,
                encoded_bytes: 0,
                sent_bytes: 0,
                parked: Vec::new(),
                received_bytes: 0,
                reads_count: 0,
                writes_count: 0,
                is_blocked: false,
            }),
            link: OnceLock::new(),
            events: Mutex::default(),
            has_events: AtomicBool::new(false),
            is_waiting: AtomicBool::new(false),
            outbox_bytes_max: outbox_bytes_max as u64,
        }
    }

    /// Connects it to its socket, which holds it: so it holds the socket weakly.
    pub fn set_link(&self, link: Weak<dyn Link>) {
        assert!(self.link.set(link).is_ok(), "a connection has one socket");
    }

    fn link(&self) -> Option<Arc<dyn Link>> {
        self.link.get()?.upgrade()
    }

    /// The part behind the lock.
    pub fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock()
    }

    /// What happened since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        if !self.has_events.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.events.lock())
    }

    /// Whether something happened since [`Self::take_events`].
    pub fn has_events(&self) -> bool {
        self.has_events.load(Ordering::Acquire)
    }

    fn tell(&self, event: Event) {
        self.events.lock().push(event);
        self.has_events.store(true, Ordering::Release);
        if let Some(link) = self.link() {
            link.wake();
        }
    }

    /// Takes all output for writing, after `sent_bytes` of earlier output were written. `None`:
    /// there is none.
    pub fn take_output(&self, sent_bytes: u64) -> Option<Chunk> {
        let mut output = self.output.lock();
        output.add_sent(sent_bytes);
        let has_room = output.waiting_bytes() <= self.outbox_bytes_max / 2;
        let is_over = has_room && !output.parked.is_empty();
        output.is_flush_promised = false;
        let chunk = (!output.chunk.is_empty()).then(|| std::mem::take(&mut output.chunk));
        if is_over {
            drop(output);
            self.tell(Event::Drained);
        }
        chunk
    }

    /// The peer's socket has taken `bytes` of a chunk that is not through yet: what they deliver
    /// counts as transmitted from now on.
    pub fn note_sent(&self, bytes: u64) {
        self.output.lock().add_sent(bytes);
    }

    /// Has it told when the log is flushed further or a page is there. Whoever waits looks again
    /// after this.
    pub fn wait(self: &Arc<Self>, broker: &Broker) {
        if !self.is_waiting.swap(true, Ordering::AcqRel) {
            let handle: Arc<dyn ConnectionHandle> = self.clone();
            broker.waiting.register(Arc::downgrade(&handle));
        }
    }

    /// Nothing waits to be written.
    pub fn has_no_output(&self) -> bool {
        self.output.lock().chunk.is_empty()
    }

    /// The output waits for longer than anybody should: the session must not produce more.
    pub fn is_full(&self) -> bool {
        self.output.lock().waiting_bytes() > 2 * self.outbox_bytes_max
    }

    /// Takes the consumers that waited for room.
    pub fn take_parked(&self) -> Vec<(Arc<Queue>, ConsumerId)> {
        std::mem::take(&mut self.output.lock().parked)
    }
}

impl Output {
    /// Bytes encoded and not taken by the peer's socket.
    pub fn waiting_bytes(&self) -> u64 {
        self.encoded_bytes.saturating_sub(self.sent_bytes)
    }

    /// Bytes encoded since the connection was opened.
    pub fn encoded_bytes(&self) -> u64 {
        self.encoded_bytes
    }

    /// Bytes that the peer's socket has taken.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    fn add_sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        self.writes_count += u64::from(bytes > 0);
    }

    /// Appends what `encode` writes.
    pub fn encode<R>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let bytes = self.chunk.bytes_mut();
        let before = bytes.len();
        let result = encode(bytes);
        self.encoded_bytes += (bytes.len() - before) as u64;
        result
    }

    /// Takes what was encoded, for conversations without a socket.
    pub fn take_chunk(&mut self) -> Chunk {
        self.sent_bytes = self.encoded_bytes;
        self.is_flush_promised = false;
        std::mem::take(&mut self.chunk)
    }

    /// Opens a channel.
    pub fn open_channel(&mut self, channel: u16) {
        self.channels.insert(channel, ChannelOutput::default());
    }

    /// The channel's part.
    pub fn channel(&mut self, channel: u16) -> Option<&mut ChannelOutput> {
        self.channels.get_mut(&channel)
    }

    /// Notes how many publishes of a channel are not confirmed, for listings.
    pub fn set_unconfirmed(&mut self, channel: u16, count: u64) {
        if let Some(open) = self.channel(channel) {
            open.status.unconfirmed = count;
        }
    }

    /// Removes a channel.
    pub fn close_channel(&mut self, channel: u16) -> Option<ChannelOutput> {
        self.channels.remove(&channel)
    }

    /// Appends method, header and body of a message, the body as slices when it is large.
    pub fn put_content(&mut self, channel: u16, message: &Message, method: impl FnOnce(&mut Vec<u8>), extra: Extra) {
        let before = self.chunk.len();
        ContentWriter { chunk: &mut self.chunk, channel, frame_max: self.frame_max }.put(message, method, extra);
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
fn rewritten_properties(message: &Message, extra: &Extra) -> Option<Vec<u8>> {
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
        let mut guard = self.output.lock();
        let output = &mut *guard;
        let Some(open) = output.channels.get_mut(&channel) else {
            debug_assert!(false, "consumers are cancelled before their channel goes");
            return Handed::default();
        };
        let Some(tag) = open.consumer_tag(source) else { return Handed::default() };
        let mut writer = ContentWriter { chunk: &mut output.chunk, channel, frame_max: output.frame_max };
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
            && let Some(parked) = output.channels.get(&channel).and_then(|open| {
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

impl ConnectionHandle for Shared {
    fn close(&self, reason: &str) {
        self.tell(Event::Close(reason.to_owned()));
    }

    fn channels(&self) -> Vec<ChannelStatus> {
        let output = self.output.lock();
        let mut all: Vec<_> = output
            .channels
            .iter()
            .map(|(&number, open)| ChannelStatus { number, unsettled: open.ledger.len() as u64, ..open.status.clone() })
            .collect();
        all.sort_by_key(|status| status.number);
        all
    }

    fn traffic(&self) -> Traffic {
        let output = self.output.lock();
        Traffic {
            received_bytes: output.received_bytes,
            reads_count: output.reads_count,
            sent_bytes: output.sent_bytes,
            writes_count: output.writes_count,
            waiting_bytes: output.waiting_bytes(),
            is_blocked: output.is_blocked,
        }
    }

    fn alarm_changed(&self) {
        self.tell(Event::AlarmChanged);
    }

    fn proceed(&self) {
        self.is_waiting.store(false, Ordering::Release);
        self.tell(Event::Proceed);
    }
}
