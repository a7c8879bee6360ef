//! How a verb answers that may have to wait for something outside of memory, and who is told when
//! that something has come.
//!
//! A verb never waits itself. What waits for the log is a finished reply with a gate; what waits
//! for a page is the verb, and its caller asks again. Either way the connection registers with
//! [`Waiting`] *before* it looks a last time, so that no arrival is missed.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{
    connections::ConnectionHandle,
    exchange::holds::HoldsRequest,
    queue::{
        Queue,
        cold::{ColdEntry, Header, PageRequest, Window},
        dedup::Seen,
        leases::Note,
        stream::Summary,
    },
    record::{Position, QueueId},
    turn::Turn,
};

/// What a verb came to.
#[derive(Debug)]
pub enum Verb<T> {
    /// It is done.
    Done(T),
    /// It cannot be done yet and has changed nothing: ask again when the ticket is served.
    Pending(Ticket),
}

/// Something that is being fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Who reads messages that are not in memory.
pub trait ColdPages: Send + Sync {
    /// Has a page read. Asked under the queue's lock: neither blocks nor reads. The answer comes through
    /// [`Queue::page_in`](super::queue::Queue::page_in), always, and whoever gives it then calls
    /// [`Waiting::proceed`].
    fn fetch(&self, request: PageRequest);

    /// Has a page of messages read that an exchange holds back, in the same way. The answer comes through
    /// [`Exchange::page_in`](super::exchange::Exchange::page_in).
    fn fetch_held(&self, request: HoldsRequest);

    /// Reads the index, and may block: only while records are replayed.
    fn find(&self, queue: QueueId, level: u8, seq: u64) -> Option<ColdEntry>;

    /// The header of a queue, while records are replayed.
    fn header(&self, queue: QueueId) -> Option<Header>;

    /// What is noted beside messages of a queue, while records are replayed.
    fn notes(&self, queue: QueueId) -> Vec<Note> {
        let _ = queue;
        Vec::new()
    }

    /// Names that a queue remembers, while records are replayed.
    fn seen_by_queue(&self, queue: QueueId) -> Vec<Seen> {
        let _ = queue;
        Vec::new()
    }

    /// Names that the exchange of that identity remembers, while records are replayed.
    fn seen_by_exchange(&self, exchange: Position) -> Vec<Seen> {
        let _ = exchange;
        Vec::new()
    }

    /// The segments of a stream, in order, while records are replayed.
    fn segments(&self, queue: QueueId) -> Vec<Summary>;
}

/// Who writes messages that are in no log to files when their queue gets long.
pub trait Spill: Send + Sync {
    /// What a queue may have in memory without being told of.
    fn window(&self) -> Window;

    /// A queue has more in memory than that, by half of it or more, and half of it or more is in no log. Told under the queue's lock, once
    /// until [`Queue::overflow`] has been asked: neither blocks nor reads.
    fn overflows(&self, queue: &Arc<Queue>);
}

/// Connections with replies or verbs that wait, and streams whose readers do.
#[derive(Default)]
pub struct Waiting {
    connections: Mutex<Vec<Weak<dyn ConnectionHandle>>>,
    streams: Mutex<Vec<Weak<Queue>>>,
}

impl Waiting {
    /// Has the connection told once when something has come. It registers again if that was not
    /// what it waited for.
    pub fn register(&self, connection: Weak<dyn ConnectionHandle>) {
        self.connections.lock().push(connection);
    }

    /// Has the readers of a stream served once when the log has been flushed further. Called under the
    /// queue's lock.
    pub(in crate::broker) fn await_flush(&self, stream: Weak<Queue>) {
        self.streams.lock().push(stream);
    }

    /// Whether [`Self::serve_streams`] is to be called when the log has been flushed.
    pub fn has_streams(&self) -> bool {
        !self.streams.lock().is_empty()
    }

    /// The log has been flushed further: serves the readers of streams who waited for that. Takes as long
    /// as it takes to hand deliveries over, so the log's own thread is not to do it.
    pub fn serve_streams(&self, turn: &mut Turn<'_>) {
        let waiting = std::mem::take(&mut *self.streams.lock());
        for stream in waiting.iter().filter_map(Weak::upgrade) {
            stream.serve_flushed(turn);
        }
    }

    /// The log has been flushed further, or a page is there.
    pub fn proceed(&self) {
        let waiting = std::mem::take(&mut *self.connections.lock());
        for connection in waiting.iter().filter_map(Weak::upgrade) {
            connection.proceed();
        }
    }
}
