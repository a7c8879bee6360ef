//! Random operations on a broker with indexes of its own, and on one that has everything in memory: the
//! same deliveries in the same order, the same counts, also after restarts. Once with durable queues, of
//! which persistent messages are in the log and the others are spilled, and once with queues that are in
//! no log.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::{ColdEntry, Header, LevelPlaces, Look, Overflow, Page, PageRequest, Wanted, Window};
use crate::broker::{
    Broker, Options,
    connections::ConnectionId,
    consumer::{Batch, ConsumerId, ConsumerOptions, Handed, Held, Outlet, Settle},
    exchange::holds::HoldsRequest,
    message::Message,
    queue::{
        Queue,
        leases::{LeaseError, LeaseSettle, Note, Receive},
        machine::Got,
        stream::Summary,
    },
    record::{Appended, Decoder, Haste, Journal, Pins, Position, QueueId, Record, encode},
    time::Time,
    topology::DeclareQueue,
    turn::Turn,
    value::{Table, Value},
    verb::{ColdPages, Verb},
};

mod leasing;
mod selective;
mod streams;

/// Records, what belongs together of them, and how many are flushed.
#[derive(Default)]
struct VecJournal(Mutex<Vec<Vec<u8>>>, Arc<Pins>, AtomicU64);

impl VecJournal {
    fn all(&self) -> Vec<(Position, Record)> {
        let mut decoder = Decoder::default();
        let records = self.0.lock();
        (1..).map(Position).zip(records.iter()).map(|(at, bytes)| (at, decoder.decode(bytes, at).unwrap())).collect()
    }

    fn message(&self, place: Position) -> Message {
        let record = Decoder::default().decode(&self.0.lock()[place.0 as usize - 1], place).unwrap();
        record.message().cloned().unwrap()
    }

    fn end(&self) -> u64 {
        self.0.lock().len() as u64 + 1
    }
}

impl Journal for VecJournal {
    fn append(&self, record: &Record, _: Haste) -> Appended {
        let mut encoded = Vec::new();
        encode(record, &mut encoded);
        let mut records = self.0.lock();
        records.push(encoded);
        let at = Position(records.len() as u64);
        Appended { at, end: at }
    }

    fn flushed(&self) -> Position {
        Position(self.2.load(Ordering::Relaxed))
    }

    fn end(&self) -> Position {
        Position(VecJournal::end(self))
    }

    fn pins(&self) -> &Arc<Pins> {
        &self.1
    }
}

type Tree = BTreeMap<(QueueId, u8, u64), ColdEntry>;

/// An index that is as durable as the test says.
#[derive(Clone, Default)]
struct Index {
    tree: Tree,
    headers: BTreeMap<QueueId, Header>,
    segments: BTreeMap<(QueueId, u64), Summary>,
    notes: BTreeMap<(QueueId, u64), Note>,
    seen: BTreeMap<(QueueId, u64), crate::broker::queue::dedup::Seen>,
    covered: u64,
}

impl Index {
    fn apply(&mut self, id: QueueId, look: &Look) {
        if look.is_purged {
            self.tree.retain(|(queue, ..), _| *queue != id);
        }
        for put in &look.puts {
            self.tree.insert((id, put.level, put.seq), put.clone());
        }
        for gone in &look.deletes {
            let was = self.tree.remove(&(id, gone.level, gone.seq));
            if let Some(was) = was {
                assert_eq!(was.has_own_ttl.then_some(was.deadline), gone.deadline);
            }
        }
        for &(level, head) in &look.heads {
            self.tree.retain(|&(queue, of, seq), _| queue != id || of != level || seq >= head);
            self.segments.retain(|&(queue, base), _| queue != id || base >= head);
        }
        for change in &look.notes {
            let was = match &change.put {
                Some(note) => self.notes.insert((id, change.seq), note.clone()),
                None => self.notes.remove(&(id, change.seq)),
            };
            // More may be told to go than there is, where a look was not written.
            assert!(was.map_or(0, |was| was.parts_count()) <= change.parts_before);
        }
        if let Some(look) = &look.seen {
            self.seen.retain(|(queue, serial), _| *queue != id || *serial >= look.from);
            self.seen.extend(look.puts.iter().map(|seen| ((id, seen.serial), seen.clone())));
        }
        self.segments.extend(look.segments.iter().map(|segment| ((id, segment.base), *segment)));
        if let Some(header) = &look.header {
            self.headers.insert(id, header.clone());
        }
    }

    fn read(&self, id: QueueId, wanted: Wanted, message: impl Fn(Position) -> Message) -> Page {
        let (entries, next, next_deadline): (Vec<ColdEntry>, _, _) = match wanted {
            Wanted::Front { level, from, to, messages_max, bytes_max } => {
                let mut range = self.tree.range((id, level, from)..(id, level, to)).map(|(_, entry)| entry);
                let (mut entries, mut bytes) = (Vec::new(), 0);
                let mut next = None;
                for entry in &mut range {
                    bytes += entry.body_bytes;
                    if entries.len() == messages_max || !entries.is_empty() && bytes > bytes_max {
                        next = Some(entry.seq);
                        break;
                    }
                    entries.push(entry.clone());
                }
                (entries, next, Time::NEVER)
            }
            Wanted::Expired { after, until, messages_max } => {
                let of = self.tree.iter().filter(|((queue, ..), entry)| *queue == id && entry.has_own_ttl);
                let mut all: Vec<_> = of.map(|(_, entry)| entry.clone()).collect();
                all.sort_by_key(|entry| (entry.deadline, entry.seq));
                all.retain(|entry| (entry.deadline, entry.seq) > after);
                let due = all.iter().take_while(|entry| entry.deadline <= until).count().min(messages_max.min(2));
                let next_deadline = all.get(due).map_or(Time::NEVER, |entry| entry.deadline);
                all.truncate(due);
                (all, None, next_deadline)
            }
        };
        let result = Ok(entries.into_iter().map(|entry| (entry.clone(), message(entry.place))).collect());
        Page { generation: 0, wanted, result, next, next_deadline }
    }
}

#[derive(Default)]
struct Store {
    index: Mutex<Index>,
    /// Of what was spilled.
    spill_index: Mutex<Index>,
    asked: Mutex<Vec<(PageRequest, Option<Page>)>>,
    /// What was spilled and not released, by place from 1 on.
    spilled: Mutex<Vec<Option<Message>>>,
}

impl Store {
    fn spill(&self, overflow: Overflow) -> Spilled {
        let mut spilled = self.spilled.lock();
        let mut write = |message| {
            spilled.push(Some(message));
            Position(spilled.len() as u64).in_spill()
        };
        let mut places = Vec::new();
        for (level, messages) in overflow.levels {
            places.push((level, messages.into_iter().map(|(seq, message)| (seq, write(message))).collect()));
        }
        (overflow.below, places)
    }

    /// Gives up what is before the first message of each priority, as nobody may read it again.
    fn release(&self) {
        let index = self.spill_index.lock();
        let mut first: BTreeMap<(QueueId, u8), u64> = BTreeMap::new();
        for (&(queue, level, _), entry) in &index.tree {
            first.entry((queue, level)).or_insert(entry.place.plain().0);
        }
        let kept_from = first.into_values().min().unwrap_or(u64::MAX);
        self.spilled
            .lock()
            .iter_mut()
            .zip(1..)
            .filter(|(_, at)| *at < kept_from)
            .for_each(|(spilled, _)| *spilled = None);
    }
}

/// What was written of a queue.
type Spilled = (u64, Vec<LevelPlaces>);

impl ColdPages for Store {
    fn fetch(&self, request: PageRequest) {
        self.asked.lock().push((request, None));
    }

    fn fetch_held(&self, _: HoldsRequest) {}

    fn find(&self, queue: QueueId, level: u8, seq: u64) -> Option<ColdEntry> {
        self.index.lock().tree.get(&(queue, level, seq)).cloned()
    }

    fn header(&self, queue: QueueId) -> Option<Header> {
        self.index.lock().headers.get(&queue).cloned()
    }

    fn notes(&self, queue: QueueId) -> Vec<Note> {
        let index = self.index.lock();
        index.notes.iter().filter(|((of, _), _)| *of == queue).map(|(_, note)| note.clone()).collect()
    }

    fn seen_by_queue(&self, queue: QueueId) -> Vec<crate::broker::queue::dedup::Seen> {
        let index = self.index.lock();
        index.seen.iter().filter(|((of, _), _)| *of == queue).map(|(_, seen)| seen.clone()).collect()
    }

    fn segments(&self, queue: QueueId) -> Vec<Summary> {
        let index = self.index.lock();
        index.segments.iter().filter(|((of, _), _)| *of == queue).map(|(_, segment)| *segment).collect()
    }
}

/// A delivery as its consumer saw it.
type Seen = (u64, Vec<u8>, bool, u32);

#[derive(Default)]
struct Client {
    seen: Mutex<Vec<Seen>>,
    held: Mutex<Vec<(u64, Held)>>,
}

impl Outlet for Client {
    fn deliver(&self, key: u64, batch: &Batch<'_>) -> Handed {
        batch.for_each(|one| {
            self.seen.lock().push((key, one.message.body_to_vec(), one.redelivered, one.delivery_count.unwrap_or(0)));
            self.held.lock().extend(one.held.map(|held| (key, held)));
        });
        Handed::default()
    }

    fn cancelled(&self, _: u64) {}

    fn flush(&self) {}
}

/// One of the two brokers.
struct Side {
    broker: Arc<Broker>,
    journal: Arc<VecJournal>,
    store: Option<Arc<Store>>,
    client: Arc<Client>,
    consumers: Vec<ConsumerId>,
    is_durable: bool,
}

#[derive(Clone, Debug)]
struct Publish {
    is_persistent: bool,
    priority: u8,
    ttl: Option<u8>,
    size: u8,
}

#[derive(Clone, Debug)]
enum Op {
    Publish(Vec<Publish>),
    Consume { no_ack: bool, prefetch: u8 },
    Leave,
    Get { no_ack: bool },
    Settle { nth: u8, count: u8, how: u8 },
    PublishLater { publishes: Vec<Publish>, ms: u8 },
    Receive { max: u8, lease_ms: u8 },
    SettleLeases { nth: u8, count: u8, how: u8 },
    Purge,
    Advance(u8),
    Look { lag: u8, window: u8 },
    Looked { is_committed: bool },
    LookSpilled { window: u8 },
    Spilled { is_committed: bool },
    Load,
    Answer,
    Restart { is_committed: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let publish = (prop::bool::weighted(0.6), 0..4u8, prop::option::weighted(0.3, 1..60u8), 0..9u8)
        .prop_map(|(is_persistent, priority, ttl, size)| Publish { is_persistent, priority, ttl, size });
    prop_oneof![
        10 => prop::collection::vec(publish.clone(), 1..8).prop_map(Op::Publish),
        2 => (any::<bool>(), 0..4u8).prop_map(|(no_ack, prefetch)| Op::Consume { no_ack, prefetch }),
        2 => Just(Op::Leave),
        4 => any::<bool>().prop_map(|no_ack| Op::Get { no_ack }),
        6 => (any::<u8>(), 1..4u8, 0..4u8).prop_map(|(nth, count, how)| Op::Settle { nth, count, how }),
        1 => (prop::collection::vec(publish, 1..4), 0..40u8)
            .prop_map(|(publishes, ms)| Op::PublishLater { publishes, ms }),
        1 => Just(Op::Purge),
        3 => (0..40u8).prop_map(Op::Advance),
        6 => (0..4u8, 0..6u8).prop_map(|(lag, window)| Op::Look { lag, window }),
        6 => prop::bool::weighted(0.8).prop_map(|is_committed| Op::Looked { is_committed }),
        6 => (0..6u8).prop_map(|window| Op::LookSpilled { window }),
        6 => prop::bool::weighted(0.8).prop_map(|is_committed| Op::Spilled { is_committed }),
        3 => Just(Op::Load),
        2 => Just(Op::Answer),
        2 => any::<bool>().prop_map(|is_committed| Op::Restart { is_committed }),
    ]
}

/// The same with leases, and without consumers: in which order lapsed messages come back to them depends on
/// what is in memory.
fn leasing_op() -> impl Strategy<Value = Op> {
    let others = op().prop_map(|op| if matches!(op, Op::Consume { .. }) { Op::Answer } else { op });
    prop_oneof![
        5 => others,
        2 => (1..5u8, 0..40u8).prop_map(|(max, lease_ms)| Op::Receive { max, lease_ms }),
        2 => (any::<u8>(), 1..5u8, 0..5u8).prop_map(|(nth, count, how)| Op::SettleLeases { nth, count, how }),
    ]
}

fn arguments(kind: u8) -> Table {
    let mut table = Table::new();
    let mut set = |name: &str, value: Value| table.push(name, value);
    if kind != 0 {
        set("x-dead-letter-exchange", Value::text(""));
        set("x-dead-letter-routing-key", Value::text("dead"));
    }
    match kind {
        1 => set("x-max-priority", Value::I64(3)),
        2 => set("x-message-ttl", Value::I64(30)),
        3 => set("x-max-length", Value::I64(5)),
        4 => {
            set("x-queue-type", Value::text("quorum"));
            set("x-delivery-limit", Value::I64(2));
        }
        5 => {
            set("x-max-priority", Value::I64(2));
            set("x-max-length-bytes", Value::I64(30));
        }
        6 => {
            set("x-max-priority", Value::I64(2));
            set("x-message-ttl", Value::I64(30));
        }
        _ => {}
    }
    table
}

impl Side {
    fn open(journal: Arc<VecJournal>, store: Option<Arc<Store>>, now: Time) -> Self {
        let covered = store.as_ref().map_or(0, |store| store.index.lock().covered);
        let is_needed = |(at, record): &(Position, Record)| {
            at.0 >= covered || !matches!(record, Record::Enqueue { .. }) && is_definition(record)
        };
        let records: Vec<_> = journal.all().into_iter().filter(is_needed).collect();
        let pages = store.clone().map(|store| store as Arc<dyn ColdPages>);
        let broker = Broker::open(Options::default(), now, pages, records.into_iter(), journal.clone()).unwrap().0;
        Self {
            broker: Arc::new(broker),
            journal,
            store,
            client: Arc::default(),
            consumers: Vec::new(),
            is_durable: true,
        }
    }

    fn declare(&self, name: &str, arguments: Table, now: Time) {
        let mut turn = Turn::new(&self.broker, now);
        let wanted = DeclareQueue { name, durable: self.is_durable, arguments, ..DeclareQueue::default() };
        self.broker.vhost("/").unwrap().declare_queue(&wanted, None, &mut turn).unwrap();
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.broker.vhost("/").unwrap().queue(name).unwrap()
    }

    fn load(&self) {
        let Some(store) = &self.store else { return };
        let (index, spill_index) = (store.index.lock(), store.spill_index.lock());
        let message = |place: Position| match place.is_in_spill() {
            true => store.spilled.lock()[place.plain().0 as usize - 1].clone().expect("it was not released"),
            false => self.journal.message(place),
        };
        for (request, page) in store.asked.lock().iter_mut().filter(|(_, page)| page.is_none()) {
            let half = request.halved();
            let read = match (request.is_in_log, request.is_in_spill) {
                (true, true) => index.read(request.id, half.wanted, message).merge(spill_index.read(
                    request.id,
                    half.wanted,
                    message,
                )),
                (false, true) => spill_index.read(request.id, request.wanted, message),
                _ => index.read(request.id, request.wanted, message),
            };
            *page = Some(Page { generation: request.generation, ..read });
        }
    }

    /// Answers until nothing is asked.
    fn answer(&self, now: Time) {
        let Some(store) = &self.store else { return };
        for round in 0.. {
            assert!(round < 10_000, "pages are asked for without end");
            self.load();
            let Some((request, page)) = store.asked.lock().pop() else { return };
            if let Some(queue) = request.queue.upgrade() {
                queue.page_in(page.unwrap(), &mut Turn::new(&self.broker, now));
                assert!(!queue.is_damaged());
            }
        }
    }

    fn get(&self, name: &str, no_ack: bool, now: Time) -> Option<Seen> {
        for _ in 0..10_000 {
            let queue = self.queue(name);
            let got = queue.get(no_ack, &mut Turn::new(&self.broker, now));
            match got {
                Verb::Done(got) => {
                    let got = got?;
                    self.client.held.lock().extend(got.held.map(|held| (0, held)));
                    return Some((0, got.message.body_to_vec(), got.redelivered, got.delivery_count));
                }
                Verb::Pending(_) => self.answer(now),
            }
        }
        panic!("a get waits without end");
    }

    /// What one receiver gets, one by one: how many come at once depends on what is in memory.
    fn receive(&self, max: usize, lease_ms: u64, now: Time) -> Vec<(ReceivedOne, (u64, u64))> {
        let (mut all, mut rounds) = (Vec::new(), 0);
        while all.len() < max {
            assert!(rounds < 10_000, "a receive waits without end");
            rounds += 1;
            let wanted = Receive { max: 1, lease_ms, ..Receive::default() };
            let received = self.queue("q").receive(&wanted, &mut Turn::new(&self.broker, now));
            match received {
                Verb::Done(received) => {
                    let Some(one) = received.unwrap().messages.pop() else { break };
                    let seen = (one.message.body_to_vec(), one.receives, one.first_received_at);
                    all.push((seen, (one.seq, one.nonce)));
                }
                Verb::Pending(_) => self.answer(now),
            }
        }
        all
    }

    fn settle_leases(&self, leases: &[(u64, u64)], how: LeaseSettle, now: Time) -> Vec<Result<(), LeaseError>> {
        for _ in 0..10_000 {
            let settled = self.queue("q").settle_leases(leases, how, &mut Turn::new(&self.broker, now));
            match settled {
                Verb::Done(settled) => return settled,
                Verb::Pending(_) => self.answer(now),
            }
        }
        panic!("a settle waits without end");
    }

    fn status(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let (of, dead) = (self.queue("q").status(), self.queue("dead").status());
        let seen = self.client.seen.lock().len();
        let aside = (of.leased, of.withheld);
        (
            of.ready,
            of.unsettled,
            of.ready_bytes,
            of.unsettled_bytes,
            of.counters,
            dead.ready,
            dead.ready_bytes,
            seen,
            aside,
        )
    }
}

fn is_definition(record: &Record) -> bool {
    match record {
        Record::QueueDeclared { .. } | Record::QueueAltered { .. } | Record::Defined(_) => true,
        Record::Transaction(records) => records.iter().all(is_definition),
        _ => false,
    }
}

/// Body, number of receives and time of the first.
type ReceivedOne = (Vec<u8>, u32, Time);

const QUEUES: [&str; 2] = ["q", "dead"];

struct Story {
    model: Side,
    cold: Side,
    now: Time,
    published: u32,
    /// Leases as the model and the other broker have named them, and how they were settled.
    leases: Vec<[(u64, u64); 2]>,
    is_dropping_by_priority: bool,
    has_length_limit: bool,
    /// The look under way: what the index will be, and the window.
    given: Option<(Index, Window)>,
    /// The same of what is spilled.
    spilling: Option<(Index, Window)>,
    /// What was written of each queue, and nobody has been told.
    written: Option<[Option<Spilled>; 2]>,
}

impl Story {
    fn new(kind: u8, is_durable: bool) -> Self {
        let now = Time(1_000_000);
        let mut model = Side::open(Arc::default(), None, now);
        let mut cold = Side::open(Arc::default(), Some(Arc::default()), now);
        for side in [&mut model, &mut cold] {
            side.is_durable = is_durable;
            side.declare("q", arguments(kind), now);
            side.declare("dead", Table::new(), now);
        }
        Self {
            model,
            cold,
            now,
            published: 0,
            leases: Vec::new(),
            is_dropping_by_priority: kind == 5,
            has_length_limit: [3, 5].contains(&kind),
            given: None,
            spilling: None,
            written: None,
        }
    }

    fn messages(&mut self, publishes: &[Publish]) -> Vec<Message> {
        let mut messages = Vec::new();
        for one in publishes {
            self.published += 1;
            let body = format!("{:04}{}", self.published, "x".repeat(one.size.into()));
            let mut message = Message::build("", b"q", b"", (0, 0), body.as_bytes());
            message.traits.persistent = one.is_persistent;
            message.traits.priority = one.priority;
            // Whether a full queue drops one first or another expires may differ.
            let ttl = one.ttl.filter(|_| !self.has_length_limit);
            message.traits.ttl = ttl.map(u64::from).into();
            messages.push(message);
        }
        messages
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Publish(publishes) => {
                let messages = self.messages(publishes);
                // What is dropped for its length once it has been read is what is first then: with
                // priorities that may be another one than at the moment in which the queue was full.
                let at_once = if self.is_dropping_by_priority { 1 } else { messages.len() };
                for messages in messages.chunks(at_once) {
                    for side in [&self.model, &self.cold] {
                        let mut turn = Turn::new(&side.broker, self.now);
                        side.queue("q").publish(messages.iter().cloned(), &mut turn, &mut Vec::new());
                    }
                    if self.is_dropping_by_priority {
                        self.cold.answer(self.now);
                    }
                }
            }
            &Op::Consume { no_ack, prefetch } => {
                for side in [&mut self.model, &mut self.cold] {
                    let id = side.broker.next_consumer_id();
                    side.consumers.push(id);
                    let options = ConsumerOptions {
                        tag: "c".into(),
                        no_ack,
                        exclusive: false,
                        priority: 0,
                        prefetch: prefetch.into(),
                        declared_prefetch: prefetch.into(),
                        shared_credit: None,
                        selector: None,
                        is_sole: false,
                        arguments: Table::new(),
                        outlet: side.client.clone(),
                        key: side.consumers.len() as u64,
                        connection: ConnectionId(1),
                        channel: 1,
                    };
                    side.queue("q").consume(id, options, &mut Turn::new(&side.broker, self.now)).unwrap();
                }
            }
            Op::Leave => {
                for side in [&mut self.model, &mut self.cold] {
                    let key = side.consumers.len() as u64;
                    let Some(id) = side.consumers.pop() else { continue };
                    let mut held = Vec::new();
                    side.client.held.lock().retain(|(of, one)| {
                        if *of == key {
                            held.push(*one);
                        }
                        *of != key
                    });
                    side.queue("q").leave(&[id], &held, &[], &mut Turn::new(&side.broker, self.now));
                }
            }
            &Op::Get { no_ack } => {
                let got = self.model.get("q", no_ack, self.now);
                assert_eq!(self.cold.get("q", no_ack, self.now), got);
            }
            &Op::Settle { nth, count, how } => {
                let how = [Settle::Accepted, Settle::Requeued, Settle::Rejected, Settle::Returned][how as usize];
                for side in [&self.model, &self.cold] {
                    let mut all = side.client.held.lock();
                    if all.is_empty() {
                        continue;
                    }
                    let from = nth as usize % all.len();
                    let to = (from + count as usize).min(all.len());
                    let held: Vec<Held> = all.drain(from..to).map(|(_, held)| held).collect();
                    drop(all);
                    side.queue("q").settle(&held, how, &mut Turn::new(&side.broker, self.now));
                }
            }
            Op::PublishLater { publishes, ms } => {
                let messages = self.messages(publishes);
                for side in [&self.model, &self.cold] {
                    let held = messages.iter().cloned().map(|message| (message, Some(u64::from(*ms))));
                    side.queue("q").publish_each(held, &mut Turn::new(&side.broker, self.now)).unwrap();
                }
            }
            &Op::Receive { max, lease_ms } => {
                // What has lapsed is to be back on both sides.
                self.run(&Op::Advance(0));
                let [model, cold] =
                    [&self.model, &self.cold].map(|side| side.receive(max.into(), lease_ms.into(), self.now));
                let seen =
                    |all: &[(ReceivedOne, (u64, u64))]| all.iter().map(|(one, _)| one.clone()).collect::<Vec<_>>();
                assert_eq!(seen(&cold), seen(&model), "after {op:?}");
                self.leases.extend(model.into_iter().zip(cold).map(|(model, cold)| [model.1, cold.1]));
            }
            &Op::SettleLeases { nth, count, how } => {
                let how = match how {
                    0 => LeaseSettle::Accept { is_strict: true },
                    1 | 2 => LeaseSettle::Accept { is_strict: false },
                    3 => LeaseSettle::Change { lease_ms: 0 },
                    _ => LeaseSettle::Change { lease_ms: 50 },
                };
                if self.leases.is_empty() {
                    return;
                }
                self.run(&Op::Advance(0));
                let from = nth as usize % self.leases.len();
                let to = (from + count as usize).min(self.leases.len());
                // Some are settled twice.
                let named: Vec<_> =
                    if nth % 3 == 0 { self.leases[from..to].to_vec() } else { self.leases.drain(from..to).collect() };
                let [model, cold] = [(&self.model, 0), (&self.cold, 1)].map(|(side, nth)| {
                    let named: Vec<_> = named.iter().map(|both| both[nth]).collect();
                    side.settle_leases(&named, how, self.now)
                });
                assert_eq!(cold, model, "after {op:?}");
            }
            Op::Purge => {
                let [model, cold] =
                    [&self.model, &self.cold].map(|side| side.queue("q").purge(&mut Turn::new(&side.broker, self.now)));
                assert_eq!(model, cold);
            }
            &Op::Advance(ms) => {
                self.now = self.now.after_ms(ms.into());
                for _ in 0..4 {
                    self.model.broker.tick(self.now);
                    self.cold.broker.tick(self.now);
                    self.cold.answer(self.now);
                }
            }
            &Op::Look { lag, window } => {
                let window = Window { messages: window.into(), bytes: 8 * u64::from(window) };
                if self.given.is_some() || !self.cold.is_durable {
                    return;
                }
                let mut index = self.cold.store.as_ref().unwrap().index.lock().clone();
                index.covered = index.covered.max(self.cold.journal.end().saturating_sub(lag.into()));
                for name in QUEUES {
                    let queue = self.cold.queue(name);
                    if let Some(look) = queue.look(Position(index.covered), &window) {
                        assert!(look.puts.iter().all(|put| !put.place.is_in_spill()));
                        index.apply(queue.id, &look);
                    }
                }
                self.given = Some((index, window));
            }
            &Op::Looked { is_committed } => {
                let Some((index, window)) = self.given.take() else { return };
                if is_committed {
                    *self.cold.store.as_ref().unwrap().index.lock() = index;
                }
                for name in QUEUES {
                    self.cold.queue(name).looked(is_committed, &window);
                }
            }
            &Op::LookSpilled { window } => {
                let window = Window { messages: window.into(), bytes: 8 * u64::from(window) };
                if self.spilling.is_some() {
                    return;
                }
                let mut index = self.cold.store.as_ref().unwrap().spill_index.lock().clone();
                let written = self.write(&window);
                for (name, written) in QUEUES.into_iter().zip(written) {
                    let queue = self.cold.queue(name);
                    let written = written.as_ref().map(|(below, places)| (*below, &**places));
                    if let Some(look) = queue.look_spilled(written, &window) {
                        assert!(look.puts.iter().all(|put| put.place.is_in_spill()));
                        index.apply(queue.id, &look);
                    }
                }
                self.spilling = Some((index, window));
            }
            &Op::Spilled { is_committed } => {
                let Some((index, window)) = self.spilling.take() else { return };
                if is_committed {
                    *self.cold.store.as_ref().unwrap().spill_index.lock() = index;
                }
                for name in QUEUES {
                    self.cold.queue(name).spilled(is_committed, &window);
                }
                if is_committed && self.written.is_none() {
                    self.cold.store.as_ref().unwrap().release();
                }
            }
            Op::Load => {
                self.cold.load();
                if self.spilling.is_none() {
                    self.written = Some(self.write(&Window { messages: 2, bytes: 16 }));
                }
            }
            Op::Answer => self.cold.answer(self.now),
            Op::Restart { .. } if !self.cold.is_durable => {}
            &Op::Restart { is_committed } => {
                self.cold.answer(self.now);
                let store = self.cold.store.clone().unwrap();
                if let Some((index, _)) = self.given.take()
                    && is_committed
                {
                    *store.index.lock() = index;
                }
                store.asked.lock().clear();
                // Of what was spilled nothing is left.
                (self.spilling, self.written) = (None, None);
                *store.spill_index.lock() = Index::default();
                store.spilled.lock().clear();
                self.cold = Side::open(self.cold.journal.clone(), Some(store), self.now);
                self.model = Side::open(self.model.journal.clone(), None, self.now);
                for side in [&self.model, &self.cold] {
                    side.queue("q").serve(&mut Turn::new(&side.broker, self.now));
                }
                self.run(&Op::Advance(0));
            }
        }
        if self.cold.status() != self.model.status() {
            self.cold.answer(self.now);
            // What came back after its deadline expires with the next page or tick, whichever comes first.
            self.model.broker.tick(self.now);
            self.cold.broker.tick(self.now);
            self.cold.answer(self.now);
        }
        assert_eq!(self.cold.status(), self.model.status(), "after {op:?}");
        // Each consumer's deliveries in order: those of several may come in other batches.
        for side in [&self.cold, &self.model] {
            side.client.seen.lock().sort_by_key(|(key, ..)| *key);
            side.client.held.lock().sort_by_key(|(key, held)| (*key, held.seq));
        }
        assert_eq!(*self.cold.client.seen.lock(), *self.model.client.seen.lock());
    }

    /// What was written of the queues earlier, or is now.
    fn write(&mut self, window: &Window) -> [Option<Spilled>; 2] {
        let store = self.cold.store.as_ref().unwrap();
        let write = |name| self.cold.queue(name).overflow(window).map(|overflow| store.spill(overflow));
        self.written.take().unwrap_or_else(|| QUEUES.map(write))
    }

    /// Everything that is left, in order.
    fn drain(&mut self) {
        self.run(&Op::Leave);
        self.run(&Op::Leave);
        while !self.model.consumers.is_empty() {
            self.run(&Op::Leave);
        }
        while self.model.queue("q").status().leased + self.model.queue("q").status().withheld > 0 {
            self.run(&Op::Advance(40));
        }
        loop {
            let left = self.model.queue("q").status().ready;
            self.run(&Op::Get { no_ack: true });
            if left == 0 {
                break;
            }
        }
        let dead = |side: &Side| {
            let mut all: Vec<_> = std::iter::from_fn(|| side.get("dead", true, self.now)).collect();
            all.sort();
            all
        };
        assert_eq!(dead(&self.cold), dead(&self.model));
    }
}

fn check(kind: u8, is_durable: bool, ops: &[Op]) {
    let mut story = Story::new(kind, is_durable);
    // Whom what is withheld goes to, and what a full queue drops, depends on when it comes back, and that on whether it is
    // in memory.
    let is_watched = [3, 5].contains(&kind) || ops.iter().any(|op| matches!(op, Op::Consume { .. }));
    for op in ops {
        match op {
            Op::PublishLater { publishes, .. } if is_watched => story.run(&Op::Publish(publishes.clone())),
            op => story.run(op),
        }
    }
    story.drain();
}

#[test]
fn a_purge_leaves_when_what_a_consumer_has_was_first_received() {
    let publish = |size| Publish { is_persistent: false, priority: 0, ttl: None, size };
    let receive = || Op::Receive { max: 1, lease_ms: 0 };
    check(
        0,
        false,
        &[
            Op::Publish(vec![publish(0)]),
            receive(),
            Op::Advance(1),
            Op::Get { no_ack: false },
            Op::Publish(vec![publish(0), publish(0), publish(7), publish(6)]),
            Op::LookSpilled { window: 0 },
            Op::Publish(vec![publish(0)]),
            Op::Purge,
            Op::Settle { nth: 0, count: 1, how: 1 },
            receive(),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_queue_with_an_index_does_what_one_in_memory_does(
        kind in 0..7u8, ops in prop::collection::vec(op(), 1..60)
    ) {
        check(kind, true, &ops);
    }

    #[test]
    fn leases_of_a_queue_with_an_index_are_those_of_one_in_memory(
        kind in prop::sample::select(vec![0, 1, 2, 4, 6]), ops in prop::collection::vec(leasing_op(), 1..60)
    ) {
        check(kind, true, &ops);
    }

    #[test]
    fn leases_of_a_queue_that_is_spilled_are_those_of_one_in_memory(
        kind in prop::sample::select(vec![0, 1, 2, 6]), ops in prop::collection::vec(leasing_op(), 1..60)
    ) {
        check(kind, false, &ops);
    }

    #[test]
    fn a_queue_that_is_spilled_does_what_one_in_memory_does(
        kind in prop::sample::select(vec![0, 1, 2, 3, 5, 6]), ops in prop::collection::vec(op(), 1..60)
    ) {
        check(kind, false, &ops);
    }
}

#[test]
fn what_is_behind_the_window_of_a_queue_that_is_in_no_log_leaves_memory() {
    let mut story = Story::new(0, false);
    let publish = Publish { is_persistent: true, priority: 0, ttl: None, size: 0 };
    story.run(&Op::Publish(vec![publish; 20]));
    story.run(&Op::LookSpilled { window: 3 });
    story.run(&Op::Spilled { is_committed: true });
    let queue = story.cold.queue("q");
    assert_eq!((queue.cold(), queue.persistent()), ((17, 17 * 4), (20, 20 * 4)));
    story.drain();
    story.run(&Op::LookSpilled { window: 3 });
    story.run(&Op::Spilled { is_committed: true });
    assert!(story.cold.store.unwrap().spilled.lock().iter().all(Option::is_none), "released");
}

/// Ten persistent messages and ten others by turns.
fn publish_both(story: &mut Story) {
    let publish = |is_persistent| Publish { is_persistent, priority: 0, ttl: None, size: 0 };
    story.run(&Op::Publish((0..20).map(|number| publish(number % 2 == 0)).collect()));
}

fn leave_memory(story: &mut Story) {
    story.run(&Op::Look { lag: 0, window: 3 });
    story.run(&Op::LookSpilled { window: 3 });
    story.run(&Op::Looked { is_committed: true });
    story.run(&Op::Spilled { is_committed: true });
}

#[test]
fn what_is_behind_the_window_of_a_durable_queue_leaves_memory_whether_it_is_persistent_or_not() {
    let mut story = Story::new(0, true);
    publish_both(&mut story);
    story.run(&Op::Look { lag: 0, window: 3 });
    story.run(&Op::Looked { is_committed: true });
    let queue = story.cold.queue("q");
    assert_eq!(queue.cold().0, 8, "of the persistent ones all that are behind the window");
    story.run(&Op::LookSpilled { window: 3 });
    story.run(&Op::Spilled { is_committed: true });
    assert_eq!((queue.cold(), queue.persistent()), ((17, 17 * 4), (10, 10 * 4)));
    story.drain();
    leave_memory(&mut story);
    assert!(story.cold.store.unwrap().spilled.lock().iter().all(Option::is_none), "released");
}

/// A message goes back to a queue whose search for expired ones has passed its deadline, and is left to the index
/// by a look that has nothing to tell, while the next page of that search is on its way.
#[test]
fn what_expires_is_found_though_a_page_was_asked_for_before_it_left_memory() {
    let side = |store: Option<Arc<Store>>| Side::open(Arc::default(), store, Time(0));
    let cold = side(Some(Arc::default()));
    cold.declare("q", arguments(0), Time(0));
    let (queue, store) = (cold.queue("q"), cold.store.clone().unwrap());
    let window = Window { messages: 2, bytes: 1 << 20 };
    let publish = |ttl: Option<u64>, now| {
        let mut message = Message::build("", b"q", b"", (0, 0), b"m");
        message.traits.persistent = true;
        message.traits.ttl = ttl.into();
        queue.publish(std::iter::once(message), &mut Turn::new(&cold.broker, now), &mut Vec::new());
    };
    let checkpoint = || {
        let look = queue.look(Position(u64::MAX), &window);
        if let Some(look) = &look {
            store.index.lock().apply(queue.id, look);
            queue.looked(true, &window);
        }
        look.is_some()
    };
    (0..3).for_each(|_| publish(None, Time(0)));
    publish(Some(10), Time(0));
    (0..4).for_each(|_| publish(None, Time(0)));
    publish(Some(20), Time(0));
    publish(Some(40), Time(0));
    let held = [(); 4].map(|()| {
        let taken = queue.get(false, &mut Turn::new(&cold.broker, Time(1)));
        let Verb::Done(Some(Got { held: Some(held), .. })) = taken else { panic!("there is one") };
        held
    });
    while checkpoint() {}
    assert!(queue.cold().0 >= 2);
    // The search passes the one that a client holds.
    queue.tick(&mut Turn::new(&cold.broker, Time(30)));
    cold.answer(Time(30));
    assert_eq!(queue.status().counters.expired, 1);
    while checkpoint() {}
    // The next page is on its way when that one comes back, and leaves memory at once.
    queue.tick(&mut Turn::new(&cold.broker, Time(50)));
    cold.load();
    queue.settle_quietly(&held, Settle::Returned, &mut Turn::new(&cold.broker, Time(50)));
    assert!(!checkpoint(), "there is nothing to tell");
    cold.answer(Time(50));
    queue.tick(&mut Turn::new(&cold.broker, Time(51)));
    cold.answer(Time(51));
    assert_eq!((queue.status().ready, queue.status().counters.expired), (7, 3));
}

#[test]
fn a_purge_takes_what_is_in_the_log_and_what_is_spilled() {
    let mut story = Story::new(0, true);
    publish_both(&mut story);
    leave_memory(&mut story);
    story.run(&Op::Purge);
    leave_memory(&mut story);
    let store = story.cold.store.clone().unwrap();
    assert!(store.index.lock().tree.is_empty() && store.spill_index.lock().tree.is_empty());
}

#[test]
fn what_was_spilled_of_a_durable_queue_is_gone_after_a_restart_and_the_rest_is_there() {
    let mut story = Story::new(0, true);
    publish_both(&mut story);
    leave_memory(&mut story);
    story.run(&Op::Restart { is_committed: true });
    assert_eq!(story.cold.queue("q").status().ready, 10);
    publish_both(&mut story);
    leave_memory(&mut story);
    assert_eq!((story.cold.queue("q").status().ready, story.cold.queue("q").cold().0), (30, 30));
    story.drain();
}
