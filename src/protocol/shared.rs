//! What a connection shares with those who deliver to it: its encoded output, and what it has to be
//! told. A protocol adds its own part: delivery tags, ledgers, whatever it encodes by.
//!
//! One lock guards all of it. It is taken under a queue's lock and takes no other lock.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use super::outbox::Chunk;
use crate::broker::{
    Broker,
    connections::{ChannelStatus, ConnectionHandle, Traffic},
    consumer::ConsumerId,
    queue::Queue,
};

/// How the output gets to the peer. Implemented by whoever owns the socket.
pub trait Link: Send + Sync {
    /// Writes what waits, as far as the peer takes it.
    fn flush(&self);
    /// Has the connection's own task look at [`Shared::take_events`].
    fn wake(&self);
}

/// Encoded output as the owner of the socket sees it.
pub trait Outbox: Send + Sync {
    /// Takes all output for writing, after `sent_bytes` of earlier output were written. `None`:
    /// there is none.
    fn take_output(&self, sent_bytes: u64) -> Option<Chunk>;
    /// The peer's socket has taken `bytes` of a chunk that is not through yet: what they deliver
    /// counts as transmitted from now on.
    fn note_sent(&self, bytes: u64);
    /// Nothing waits to be written.
    fn has_no_output(&self) -> bool;
}

/// A protocol's own part of what is shared.
pub trait Wire: Default + Send {
    /// The open channels, for listings.
    fn channels(&self) -> Vec<ChannelStatus>;
}

/// Something that happened elsewhere and that the connection's session has to act on.
pub enum Event {
    /// A consumer was cancelled by its queue.
    ConsumerCancelled {
        /// Its channel.
        channel: u16,
        /// Its source in the channel's ledger.
        source: u32,
    },
    /// A queue was declared that the connection watches for.
    QueueDeclared {
        /// The queue.
        queue: Arc<Queue>,
        /// What it is watched for by.
        watch: u64,
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
pub struct Shared<W> {
    output: Mutex<Output<W>>,
    link: OnceLock<Weak<dyn Link>>,
    events: Mutex<Vec<Event>>,
    has_events: AtomicBool,
    /// It is registered with those who wait for the log or for a page.
    is_waiting: AtomicBool,
    pub(super) outbox_bytes_max: u64,
}

/// The part behind the lock.
pub struct Output<W> {
    pub(super) chunk: Chunk,
    /// The protocol's own part.
    pub wire: W,
    /// Somebody has promised to flush.
    pub(super) is_flush_promised: bool,
    /// Bytes encoded since the connection was opened.
    pub(super) encoded_bytes: u64,
    /// Bytes that the peer's socket has taken.
    sent_bytes: u64,
    /// Consumers that wait for room.
    pub(super) parked: Vec<(Arc<Queue>, ConsumerId)>,
    /// Bytes received, for listings.
    pub received_bytes: u64,
    /// Reads that brought them.
    pub reads_count: u64,
    /// Writes that the peer's socket has taken something of.
    writes_count: u64,
    /// It is not read from because of an alarm.
    pub is_blocked: bool,
}

/// What an outlet calls a consumer: its channel and its source.
pub fn outlet_key(channel: u16, source: u32) -> u64 {
    u64::from(channel) << 32 | u64::from(source)
}

impl<W: Wire> Shared<W> {
    /// For a connection whose outbox is full at `outbox_bytes_max` bytes.
    pub fn new(outbox_bytes_max: usize) -> Self {
        Self {
            output: Mutex::new(Output {
                chunk: Chunk::default(),
                wire: W::default(),
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

    pub(super) fn link(&self) -> Option<Arc<dyn Link>> {
        self.link.get()?.upgrade()
    }

    /// The part behind the lock.
    pub fn output(&self) -> MutexGuard<'_, Output<W>> {
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

    pub(super) fn tell(&self, event: Event) {
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
    pub fn wait(self: &Arc<Self>, broker: &Broker)
    where
        W: 'static,
    {
        if !self.is_waiting.swap(true, Ordering::AcqRel) {
            let handle: Arc<dyn ConnectionHandle> = self.clone();
            broker.waiting.register(Arc::downgrade(&handle));
        }
        if let Some(journal) = broker.journal() {
            journal.hasten();
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

impl<W> Output<W> {
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
}

impl<W: Wire> ConnectionHandle for Shared<W> {
    fn close(&self, reason: &str) {
        self.tell(Event::Close(reason.to_owned()));
    }

    fn channels(&self) -> Vec<ChannelStatus> {
        self.output.lock().wire.channels()
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

impl<W: Wire> Outbox for Shared<W> {
    fn take_output(&self, sent_bytes: u64) -> Option<Chunk> {
        Self::take_output(self, sent_bytes)
    }

    fn note_sent(&self, bytes: u64) {
        Self::note_sent(self, bytes);
    }

    fn has_no_output(&self) -> bool {
        Self::has_no_output(self)
    }
}
