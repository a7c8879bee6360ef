//! What the clients of a cycle note, and the names that they give.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    history::{Event, MessageId, Place, QueueId, StreamId, Traits, TxId, WipeId},
    sqs,
};

/// Shared by all clients of a cycle.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) cycle: u32,
    events: Mutex<Vec<Event>>,
    promised: AtomicUsize,
    /// The last of each kind of name.
    names: AtomicU64,
    seqs: Vec<AtomicU64>,
    sqs: Mutex<sqs::Left>,
}

/// Milliseconds of the machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("it is earlier than the end of time")
}

/// Publishers that a cycle may have.
const PUBLISHERS_MAX: usize = 128;

impl Record {
    pub(crate) fn new(cycle: u32) -> Self {
        let seqs = (0..PUBLISHERS_MAX).map(|_| AtomicU64::new(0)).collect();
        let (promised, names) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { cycle, events: Mutex::default(), promised, names, seqs, sqs: Mutex::default() }
    }

    pub(crate) fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// Notes these, and nothing between them.
    pub(crate) fn note_all(&self, events: Vec<Event>) {
        self.events.lock().unwrap().extend(events);
    }

    /// What clients of SQS hand on to each other.
    pub(crate) fn sqs<T>(&self, use_it: impl FnOnce(&mut sqs::Left) -> T) -> T {
        use_it(&mut self.sqs.lock().unwrap())
    }

    /// Notes a confirm.
    pub(crate) fn confirm(&self, message: MessageId, traits: Traits) {
        self.promised.fetch_add(usize::from(!traits.is_transient), Ordering::Relaxed);
        self.note(Event::Confirmed { message });
    }

    /// Confirms until now, without those of transient messages.
    pub(crate) fn promised(&self) -> usize {
        self.promised.load(Ordering::Relaxed)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Notes that one more message goes out.
    pub(crate) fn publish(&self, publisher: u32, queues: &[QueueId], traits: Traits, tx: Option<TxId>) -> MessageId {
        let seq = self.seqs[publisher as usize].fetch_add(1, Ordering::Relaxed);
        let message = MessageId { cycle: self.cycle, publisher, seq };
        self.note(Event::Publish { message, queues: queues.to_vec(), traits, tx });
        message
    }

    /// Notes that a reader is about to come.
    pub(crate) fn open(&self, queue: QueueId, is_sole: bool) -> StreamId {
        let stream = StreamId(self.name());
        self.note(Event::Opened { stream, queue, is_sole });
        stream
    }

    pub(crate) fn durable(&self, places: impl IntoIterator<Item = Place>) {
        places.into_iter().for_each(|place| self.note(Event::Durable { place }));
    }

    pub(crate) fn tx(&self) -> TxId {
        TxId(self.name())
    }

    pub(crate) fn wipe(&self) -> WipeId {
        WipeId(self.name())
    }

    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }
}
