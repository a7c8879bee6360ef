//! What a consumer is to a queue, how deliveries leave it, and the ledger of unsettled deliveries.
//!
//! A protocol implements [`Outlet`] once per connection. Queues hand deliveries to it in batches,
//! while they hold their own lock; an outlet therefore never calls back into the broker from
//! there. The ledger is the protocol-independent record of what was delivered and not settled; it
//! lives beside the outlet's delivery tags, under the outlet's lock.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::{
    connections::ConnectionId,
    exchange::envelopes::Presenter,
    message::Message,
    queue::{Queue, unsettled::Unsettled},
    record::QueueId,
    selector::Selector,
    value::Table,
};

/// Identity of a consumer, unique in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// Where a queue holds an unsettled delivery: its sequence number is its identity, the slot only
/// finds it fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Identity of the message inside its queue.
    pub seq: u64,
    /// Place in the queue's table of unsettled deliveries.
    pub slot: u32,
}

/// How a client settled a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Done with it.
    Accepted,
    /// Back to its place in the queue; counts as a failed delivery.
    Requeued,
    /// Back to its place as if it had never left: it was not transmitted.
    Returned,
    /// Refused: dead-lettered, or dropped without a dead-letter exchange.
    Rejected,
}

/// One delivery, borrowed from the queue while an outlet encodes it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What is delivered.
    pub message: &'a Message,
    /// Set when the consumer must settle it.
    pub held: Option<Held>,
    /// It was delivered before.
    pub redelivered: bool,
    /// Earlier deliveries that failed, for queues that report it.
    pub delivery_count: Option<u32>,
    /// Place in a stream.
    pub stream_offset: Option<u64>,
    /// With it its consumer becomes the owner of the message's group.
    pub opens_group: bool,
}

/// Deliveries of one queue for one consumer, in order.
pub struct Batch<'a> {
    items: &'a [Assigned],
    unsettled: &'a Unsettled,
    reports_count: bool,
    /// By item, where the queue takes its message in another form than it has it; no longer than needed.
    rendered: Vec<Option<Message>>,
}

/// A message taken out of the ready part for one consumer.
#[derive(Debug)]
pub enum Assigned {
    /// Settled by being delivered.
    Owned {
        /// The message itself.
        message: Message,
        /// It was delivered before.
        redelivered: bool,
        /// Earlier failed deliveries.
        delivery_count: u32,
        /// With it its consumer becomes the owner of the message's group.
        opens_group: bool,
    },
    /// Kept by the queue until it is settled.
    Unsettled(Held),
    /// The same; with it its consumer becomes the owner of the message's group.
    Opening(Held),
    /// Read from a stream; the stream keeps it.
    Stream {
        /// The message itself.
        message: Message,
        /// Identity for settling.
        held: Option<Held>,
        /// Place in the stream.
        offset: u64,
    },
}

impl<'b> Batch<'b> {
    /// What was assigned to one consumer.
    pub(super) fn new(
        items: &'b [Assigned],
        unsettled: &'b Unsettled,
        reports_count: bool,
        presenter: Presenter<'_>,
    ) -> Self {
        let mut rendered = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let message = match item {
                Assigned::Owned { message, .. } | Assigned::Stream { message, .. } => message,
                Assigned::Unsettled(held) | Assigned::Opening(held) => match unsettled.get(*held) {
                    Some(entry) => &entry.message,
                    None => continue,
                },
            };
            if let Cow::Owned(message) = presenter.present(message) {
                rendered.resize_with(index, || None);
                rendered.push(Some(message));
            }
        }
        Self { items, unsettled, reports_count, rendered }
    }

    /// Number of deliveries.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without deliveries.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A consumer is told of failures only once there are some; a single get is always told.
    fn reported(&self, count: u32) -> Option<u32> {
        (self.reports_count && count > 0).then_some(count)
    }

    /// Calls `take` with the deliveries in order. Not an iterator: a delivery that is passed on by
    /// value through several adapters costs more than its encoding.
    #[inline(always)]
    pub fn for_each<'a>(&'a self, mut take: impl FnMut(Delivery<'a>)) {
        for (index, item) in self.items.iter().enumerate() {
            let rendered = self.rendered.get(index).and_then(Option::as_ref);
            take(match item {
                Assigned::Owned { message, redelivered, delivery_count, opens_group } => Delivery {
                    message: rendered.unwrap_or(message),
                    held: None,
                    redelivered: *redelivered,
                    delivery_count: self.reported(*delivery_count),
                    stream_offset: None,
                    opens_group: *opens_group,
                },
                Assigned::Unsettled(held) | Assigned::Opening(held) => {
                    let Some(entry) = self.unsettled.get(*held) else { continue };
                    Delivery {
                        message: rendered.unwrap_or(&entry.message),
                        held: Some(*held),
                        redelivered: entry.redelivered,
                        delivery_count: self.reported(entry.delivery_count),
                        stream_offset: None,
                        opens_group: matches!(item, Assigned::Opening(_)),
                    }
                }
                Assigned::Stream { message, held, offset } => Delivery {
                    message: rendered.unwrap_or(message),
                    held: *held,
                    redelivered: false,
                    delivery_count: None,
                    stream_offset: Some(*offset),
                    opens_group: false,
                },
            });
        }
    }
}

/// What an outlet says after it took a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handed {
    /// The outlet is full; it will call [`Queue::resume`] for this consumer once it has drained.
    pub is_full: bool,
    /// The outlet had nothing to write before: somebody must call [`Outlet::flush`].
    pub needs_flush: bool,
}

/// A connection's way to its consumers.
pub trait Outlet: Send + Sync {
    /// Takes a batch for the consumer that `key` names. Called under the queue's lock: it may take
    /// the outlet's own lock, and nothing else.
    fn deliver(&self, key: u64, batch: &Batch<'_>) -> Handed;

    /// The queue is gone, or handed its only place to somebody else: no more deliveries follow.
    /// Called under no lock.
    fn cancelled(&self, key: u64);

    /// Writes what was encoded. Called under no lock.
    fn flush(&self);
}

/// Credit that all consumers of one channel share.
#[derive(Debug, Default)]
pub struct SharedCredit {
    limit: AtomicU32,
    used: AtomicU32,
    /// A consumer went without since credit last came back.
    is_wanted: AtomicBool,
}

impl SharedCredit {
    /// Sets how many unsettled deliveries the channel may hold; 0 means no limit.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many unsettled deliveries the channel may hold; 0 means no limit.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Takes one credit; false when there is none.
    pub fn reserve(&self) -> bool {
        if self.try_reserve() {
            return true;
        }
        // Credit that came back before the flag was up is seen by the second try; whoever gives it
        // back later sees the flag.
        self.is_wanted.store(true, Ordering::SeqCst);
        self.try_reserve()
    }

    fn try_reserve(&self) -> bool {
        let limit = self.limit();
        if limit == 0 {
            self.used.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| (used < limit).then_some(used + 1)).is_ok()
    }

    /// Whether somebody went without since this was last asked, and has to be looked at now that
    /// credit has come back.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst) && self.is_wanted.swap(false, Ordering::SeqCst)
    }

    /// Takes credits for what was delivered before the credit was shared.
    pub fn charge(&self, count: u32) {
        self.used.fetch_add(count, Ordering::AcqRel);
    }

    /// Gives back `count` credits.
    pub fn release(&self, count: u32) {
        let before = self.used.fetch_sub(count, Ordering::SeqCst);
        debug_assert!(before >= count, "credit is released once");
    }
}

/// What a protocol asks for when it starts a consumer.
#[derive(Clone)]
pub struct ConsumerOptions {
    /// Name of the consumer, unique on its channel.
    pub tag: Arc<str>,
    /// Deliveries need no settling.
    pub no_ack: bool,
    /// Nobody else may consume from the queue.
    pub exclusive: bool,
    /// Larger is served first.
    pub priority: i32,
    /// Unsettled deliveries that it may hold; 0 means no limit.
    pub prefetch: u32,
    /// What the client asked for as `prefetch`, for listings.
    pub declared_prefetch: u32,
    /// Credit shared with the other consumers of its channel.
    pub shared_credit: Option<Arc<SharedCredit>>,
    /// What it wants of the queue; the rest stays for others. `None`: everything.
    pub selector: Option<Arc<Selector>>,
    /// While it is there it is served and nobody else, whoever came first. A second one waits for its end.
    pub is_sole: bool,
    /// Arguments, for listings and streams.
    pub arguments: Table,
    /// Where its deliveries go.
    pub outlet: Arc<dyn Outlet>,
    /// What the outlet calls it.
    pub key: u64,
    /// Its connection.
    pub connection: ConnectionId,
    /// The number of its channel there.
    pub channel: u16,
}

/// A queue that deliveries of one channel came from.
pub struct Source {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The consumer, or `None` for single gets.
    pub consumer: Option<ConsumerId>,
    /// Unsettled deliveries of this source in the ledger.
    pub unsettled: u32,
    /// No more deliveries will come; the source goes when nothing is unsettled.
    pub is_closed: bool,
}

/// The unsettled deliveries of one channel, by delivery tag.
///
/// Invariants:
/// - tags ascend;
/// - `live` is the number of entries that are not settled;
/// - the first entry is not settled.
#[derive(Default)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    live: usize,
    sources: Vec<Option<Source>>,
    /// Numbers of sources that are free, of those that may be over, and of those for single gets.
    free: Vec<u32>,
    over: Vec<u32>,
    singles: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
    tag: u64,
    held: Held,
    source: u32,
    is_settled: bool,
    /// Bytes of the connection's output up to and including this delivery.
    sent_at: u64,
}

/// An entry taken out of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Which source it came from.
    pub source: u32,
    /// Which delivery of that source's queue.
    pub held: Held,
    /// Bytes of the connection's output up to and including this delivery.
    pub sent_at: u64,
    /// The delivery tag it had.
    pub tag: u64,
}

impl Ledger {
    /// Registers a queue to take deliveries from; returns its number.
    pub fn open_source(&mut self, queue: Arc<Queue>, consumer: Option<ConsumerId>) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.sources.push(None);
            (self.sources.len() - 1) as u32
        });
        if consumer.is_none() {
            self.singles.push(number);
        }
        self.sources[number as usize] = Some(Source { queue, consumer, unsettled: 0, is_closed: false });
        number
    }

    /// The number of the source for single gets from `queue`.
    pub fn get_source(&mut self, queue: &Arc<Queue>) -> u32 {
        let is_of_queue = |number: &u32| self.source(*number).is_some_and(|source| Arc::ptr_eq(&source.queue, queue));
        match self.singles.iter().copied().find(is_of_queue) {
            Some(source) => source,
            None => {
                let source = self.open_source(queue.clone(), None);
                // It goes with its last unsettled delivery.
                if let Some(Some(open)) = self.sources.get_mut(source as usize) {
                    open.is_closed = true;
                }
                source
            }
        }
    }

    /// The source of that number.
    pub fn source(&self, source: u32) -> Option<&Source> {
        self.sources.get(source as usize)?.as_ref()
    }

    /// No more deliveries come from this source.
    pub fn close_source(&mut self, source: u32) {
        if let Some(slot) = self.sources.get_mut(source as usize)
            && let Some(open) = slot
        {
            open.is_closed = true;
            if open.unsettled == 0 {
                self.over.push(source);
                self.sweep();
            }
        }
    }

    /// Notes a delivery. Tags must ascend.
    pub fn add(&mut self, tag: u64, source: u32, held: Held, sent_at: u64) {
        debug_assert!(self.entries.back().is_none_or(|last| last.tag < tag));
        self.entries.push_back(Entry { tag, held, source, is_settled: false, sent_at });
        self.live += 1;
        if let Some(Some(source)) = self.sources.get_mut(source as usize) {
            source.unsettled += 1;
        }
    }

    /// Takes the entry of one tag; `None` when it is not unsettled.
    pub fn take(&mut self, tag: u64) -> Option<Taken> {
        let at = self.find(tag)?;
        let entry = &mut self.entries[at];
        if entry.is_settled {
            return None;
        }
        entry.is_settled = true;
        let taken = Taken { source: entry.source, held: entry.held, sent_at: entry.sent_at, tag };
        self.live -= 1;
        self.forget(taken.source);
        self.trim();
        Some(taken)
    }

    /// Takes all entries up to and including `tag`, oldest first; 0 means all.
    pub fn take_up_to(&mut self, tag: u64, out: &mut Vec<Taken>) {
        while let Some(entry) = self.entries.front().copied() {
            if tag != 0 && entry.tag > tag {
                break;
            }
            self.entries.pop_front();
            if !entry.is_settled {
                self.live -= 1;
                self.forget(entry.source);
                out.push(Taken { source: entry.source, held: entry.held, sent_at: entry.sent_at, tag: entry.tag });
            }
        }
        self.trim();
    }

    /// Takes the entries of some sources up to and including `tag`, oldest first; 0 means all.
    pub fn take_of(&mut self, tag: u64, is_meant: impl Fn(u32) -> bool, out: &mut Vec<Taken>) {
        let end = if tag == 0 { self.entries.len() } else { self.entries.partition_point(|entry| entry.tag <= tag) };
        for at in 0..end {
            let entry = &mut self.entries[at];
            if !entry.is_settled && is_meant(entry.source) {
                entry.is_settled = true;
                let entry = *entry;
                self.live -= 1;
                self.forget(entry.source);
                out.push(Taken { source: entry.source, held: entry.held, sent_at: entry.sent_at, tag: entry.tag });
            }
        }
        self.trim();
    }

    /// Calls `found` with the tags of some sources before `tag` that are unsettled, oldest first.
    pub fn earlier(&self, tag: u64, is_meant: impl Fn(u32) -> bool, mut found: impl FnMut(u64)) {
        let earlier = self.entries.iter().take_while(|entry| entry.tag < tag);
        earlier.filter(|entry| !entry.is_settled && is_meant(entry.source)).for_each(|entry| found(entry.tag));
    }

    /// Whether `tag` is unsettled.
    pub fn contains(&self, tag: u64) -> bool {
        self.find(tag).is_some_and(|at| !self.entries[at].is_settled)
    }

    /// The source of an unsettled delivery.
    pub fn source_of(&self, tag: u64) -> Option<u32> {
        self.find(tag).map(|at| &self.entries[at]).filter(|entry| !entry.is_settled).map(|entry| entry.source)
    }

    /// The oldest tag that is unsettled.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.tag)
    }

    /// The oldest unsettled delivery with a tag below `end` and below what `below` says of its
    /// source; returns the source.
    pub fn first_below(&self, end: u64, below: impl Fn(u32) -> u64) -> Option<u32> {
        let mut old = self.entries.iter().take_while(|entry| entry.tag < end);
        old.find(|entry| !entry.is_settled && entry.tag < below(entry.source)).map(|entry| entry.source)
    }

    /// The queues that deliveries come from, with their numbers.
    pub fn sources(&self) -> impl Iterator<Item = (u32, &Source)> {
        (0..).zip(&self.sources).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Number of unsettled deliveries.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True when nothing is unsettled.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let first = self.entries.front()?.tag;
        let guess = tag.checked_sub(first)? as usize;
        if self.entries.get(guess).is_some_and(|entry| entry.tag == tag) {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&tag, |entry| entry.tag).ok()
    }

    fn forget(&mut self, source: u32) {
        if let Some(slot) = self.sources.get_mut(source as usize)
            && let Some(open) = slot
        {
            // A closed source is dropped by `sweep`, when the caller has used its number.
            open.unsettled -= 1;
            if open.is_closed && open.unsettled == 0 {
                self.over.push(source);
            }
        }
    }

    /// Keeps the sources of taken entries open, until [`Self::release_sources`] or
    /// [`Self::put_back`].
    pub fn keep_sources(&mut self, taken: &[Taken]) {
        for one in taken {
            if let Some(Some(source)) = self.sources.get_mut(one.source as usize) {
                source.unsettled += 1;
            }
        }
    }

    /// Ends [`Self::keep_sources`].
    pub fn release_sources(&mut self, taken: &[Taken]) {
        for one in taken {
            self.forget(one.source);
        }
    }

    /// Takes entries back whose sources were kept; they are unsettled again.
    pub fn put_back(&mut self, taken: &[Taken]) {
        for one in taken {
            let entry =
                Entry { tag: one.tag, held: one.held, source: one.source, is_settled: false, sent_at: one.sent_at };
            match self.entries.binary_search_by_key(&one.tag, |entry| entry.tag) {
                Ok(at) => self.entries[at] = entry,
                Err(at) => self.entries.insert(at, entry),
            }
            self.live += 1;
        }
    }

    /// Sorts what was taken out and not settled by queue, in its order: what was transmitted, of the first
    /// `sent_bytes`, and what never was and goes back as if it had not left. Sources that are done with are
    /// dropped.
    pub fn leave(&mut self, taken: Vec<Taken>, sent_bytes: u64) -> Vec<(Arc<Queue>, Vec<Held>, Vec<Held>)> {
        let mut by_queue: Vec<(Arc<Queue>, Vec<Held>, Vec<Held>)> = Vec::new();
        let mut places = HashMap::<QueueId, usize, foldhash::fast::FixedState>::default();
        for one in taken {
            let Some(source) = self.source(one.source) else { continue };
            let at = *places.entry(source.queue.id).or_insert_with(|| {
                by_queue.push((source.queue.clone(), Vec::new(), Vec::new()));
                by_queue.len() - 1
            });
            let (_, requeued, returned) = &mut by_queue[at];
            if one.sent_at <= sent_bytes { requeued.push(one.held) } else { returned.push(one.held) }
        }
        self.sweep();
        by_queue
    }

    /// Drops sources that are closed and have nothing unsettled.
    pub fn sweep(&mut self) {
        while let Some(number) = self.over.pop() {
            let Some(slot) = self.sources.get_mut(number as usize) else { continue };
            if let Some(source) = slot.take_if(|source| source.is_closed && source.unsettled == 0) {
                self.free.push(number);
                if source.consumer.is_none() {
                    self.singles.retain(|single| *single != number);
                }
            }
        }
    }

    fn trim(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.is_settled) {
            self.entries.pop_front();
        }
        // One old delivery must not keep the marks of all later ones.
        if self.entries.len() > 64 && self.entries.len() > 2 * self.live {
            self.entries.retain(|entry| !entry.is_settled);
        }
        if self.entries.is_empty() && self.entries.capacity() > 4096 {
            self.entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(seq: u64) -> Held {
        Held { seq, slot: seq as u32 }
    }

    fn ledger(tags: impl IntoIterator<Item = u64>) -> Ledger {
        let mut ledger = Ledger::default();
        for tag in tags {
            ledger.add(tag, 0, held(tag), 0);
        }
        ledger
    }

    #[test]
    fn a_tag_is_taken_once() {
        let mut ledger = ledger(1..=3);
        assert_eq!(ledger.take(2).map(|taken| taken.held), Some(held(2)));
        assert!(ledger.take(2).is_none());
        assert_eq!(ledger.len(), 2);
    }

    #[test]
    fn taking_up_to_a_tag_skips_what_is_settled() {
        let mut ledger = ledger(1..=5);
        ledger.take(2);
        let mut taken = Vec::new();
        ledger.take_up_to(4, &mut taken);
        assert_eq!(taken.iter().map(|taken| taken.tag).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn taking_of_a_source_leaves_the_others() {
        let mut ledger = Ledger::default();
        for tag in 1..=6 {
            ledger.add(tag, (tag % 2) as u32, held(tag), 0);
        }
        let mut taken = Vec::new();
        ledger.take_of(4, |source| source == 0, &mut taken);
        assert_eq!(taken.iter().map(|taken| taken.tag).collect::<Vec<_>>(), [2, 4]);
        ledger.take_of(0, |source| source == 1, &mut taken);
        assert_eq!(taken.iter().map(|taken| taken.tag).collect::<Vec<_>>(), [2, 4, 1, 3, 5]);
        assert_eq!((ledger.len(), ledger.oldest()), (1, Some(6)));
    }

    #[test]
    fn one_old_delivery_does_not_keep_marks_of_later_ones() {
        let mut ledger = ledger(1..=10_000);
        for tag in 2..=10_000 {
            assert!(ledger.take(tag).is_some());
        }
        assert!(ledger.entries.len() <= 65);
        assert!(ledger.contains(1));
    }

    #[test]
    fn shared_credit_stops_at_its_limit() {
        let credit = SharedCredit::default();
        credit.set_limit(2);
        assert!(credit.reserve() && credit.reserve() && !credit.reserve());
        credit.release(1);
        assert!(credit.reserve());
    }
}
