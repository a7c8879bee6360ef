//! Random operations on a broker whose records are kept, and a second broker that replays them:
//! both must hold the same.

use std::{fmt::Write as _, sync::atomic::Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::broker::{
    Options,
    connections::ConnectionId,
    consumer::{Batch as Delivered, ConsumerId, ConsumerOptions, Handed, Held, Outlet, Settle},
    publish::{self, Batch},
    record::{Journal, Position},
    topology::DeclareQueue,
    value::{Table, Value},
    verb::Verb,
    vhost::Vhost,
};

/// Keeps records in memory; what is flushed is said by the test.
#[derive(Default)]
pub(crate) struct VecJournal {
    records: Mutex<Vec<Record>>,
}

impl Journal for VecJournal {
    fn append(&self, record: &Record) -> Position {
        let mut records = self.records.lock();
        records.push(record.clone());
        Position(records.len() as u64)
    }

    fn flushed(&self) -> Position {
        Position(self.records.lock().len() as u64)
    }
}

/// Takes every delivery and keeps what has to be settled.
#[derive(Default)]
struct Client {
    held: Mutex<Vec<(u64, Held)>>,
}

impl Outlet for Client {
    fn deliver(&self, key: u64, batch: &Delivered<'_>) -> Handed {
        let mut held = self.held.lock();
        batch.for_each(|delivery| held.extend(delivery.held.map(|one| (key, one))));
        Handed::default()
    }

    fn cancelled(&self, _: u64) {}

    fn flush(&self) {}
}

#[derive(Clone, Debug)]
enum Op {
    DeclareQueue { name: u8, kind: u8 },
    DeleteQueue(u8),
    Purge(u8),
    DeclareExchange { name: u8, kind: u8 },
    DeleteExchange(u8),
    Bind { exchange: u8, queue: u8, key: u8 },
    BindExchange { source: u8, destination: u8, key: u8 },
    Unbind { exchange: u8, queue: u8, key: u8 },
    Publish(Vec<Publish>),
    Consume { queue: u8, no_ack: bool, prefetch: u8 },
    Cancel(u8),
    Leave(u8),
    Get { queue: u8, no_ack: bool },
    Settle { nth: u8, count: u8, how: u8 },
    Commit { publishes: Vec<Publish>, nth: u8, count: u8, how: u8 },
    Advance(u16),
    AddVhost(u8),
    DeleteVhost(u8),
}

#[derive(Clone, Debug)]
struct Publish {
    exchange: u8,
    key: u8,
    is_persistent: bool,
    ttl_ms: Option<u8>,
    priority: u8,
}

const NAMES: u8 = 5;
const QUEUE_KINDS: u8 = 11;

fn publish() -> impl Strategy<Value = Publish> {
    (0..3u8, 0..NAMES, prop::bool::weighted(0.8), prop::option::weighted(0.3, 0..60u8), 0..4u8).prop_map(
        |(exchange, key, is_persistent, ttl_ms, priority)| Publish { exchange, key, is_persistent, ttl_ms, priority },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES;
    prop_oneof![
        4 => (name(), 0..QUEUE_KINDS).prop_map(|(name, kind)| Op::DeclareQueue { name, kind }),
        1 => name().prop_map(Op::DeleteQueue),
        1 => name().prop_map(Op::Purge),
        1 => (0..3u8, 0..4u8).prop_map(|(name, kind)| Op::DeclareExchange { name, kind }),
        1 => (0..3u8).prop_map(Op::DeleteExchange),
        2 => (0..3u8, name(), name()).prop_map(|(exchange, queue, key)| Op::Bind { exchange, queue, key }),
        1 => (0..3u8, 0..3u8, name())
            .prop_map(|(source, destination, key)| Op::BindExchange { source, destination, key }),
        1 => (0..3u8, name(), name()).prop_map(|(exchange, queue, key)| Op::Unbind { exchange, queue, key }),
        10 => prop::collection::vec(publish(), 1..6).prop_map(Op::Publish),
        2 => (name(), any::<bool>(), 0..4u8)
            .prop_map(|(queue, no_ack, prefetch)| Op::Consume { queue, no_ack, prefetch }),
        1 => (0..8u8).prop_map(Op::Cancel),
        1 => (0..8u8).prop_map(Op::Leave),
        3 => (name(), any::<bool>()).prop_map(|(queue, no_ack)| Op::Get { queue, no_ack }),
        5 => (any::<u8>(), 1..5u8, 0..4u8).prop_map(|(nth, count, how)| Op::Settle { nth, count, how }),
        2 => (prop::collection::vec(publish(), 0..5), any::<u8>(), 0..4u8, 0..4u8)
            .prop_map(|(publishes, nth, count, how)| Op::Commit { publishes, nth, count, how }),
        3 => (0..80u16).prop_map(Op::Advance),
        1 => (0..2u8).prop_map(Op::AddVhost),
        1 => (0..2u8).prop_map(Op::DeleteVhost),
    ]
}

/// A broker in the middle of a story.
struct Story {
    broker: Broker,
    journal: Arc<VecJournal>,
    client: Arc<Client>,
    /// Consumers and single gets, by the key that the client knows them by.
    takers: Vec<(Arc<Queue>, Option<ConsumerId>)>,
    now: Time,
    published: u32,
}

fn broker() -> Broker {
    Broker::new(Options::default(), Time(1_000_000)).unwrap()
}

fn queue_name(name: u8) -> String {
    format!("q{name}")
}

fn exchange_name(name: u8) -> String {
    if name == 0 { "amq.fanout".to_owned() } else { format!("x{name}") }
}

/// The arguments of a kind of queue, and whether it is durable and goes with its last consumer.
fn queue_kind(kind: u8) -> (Table, bool, bool) {
    let mut table = Table::new();
    let mut set = |name: &str, value: Value| table.push(name, value);
    let dead_letter_to = |set: &mut dyn FnMut(&str, Value), key: &str| {
        set("x-dead-letter-exchange", Value::text(""));
        set("x-dead-letter-routing-key", Value::text(key));
    };
    match kind {
        1 => {
            set("x-max-length", Value::I64(2));
            dead_letter_to(&mut set, "q1");
        }
        2 => {
            set("x-message-ttl", Value::I64(30));
            dead_letter_to(&mut set, "q2");
        }
        3 => set("x-max-priority", Value::I64(2)),
        4 => {
            set("x-queue-type", Value::text("quorum"));
            set("x-delivery-limit", Value::I64(1));
            dead_letter_to(&mut set, "q0");
        }
        5 => set("x-queue-type", Value::text("stream")),
        6 => {
            set("x-max-length", Value::I64(1));
            set("x-overflow", Value::text("reject-publish-dlx"));
            dead_letter_to(&mut set, "q3");
        }
        7 => set("x-single-active-consumer", Value::Bool(true)),
        8 => {
            set("x-message-ttl", Value::I64(0));
            set("x-dead-letter-exchange", Value::text("amq.fanout"));
        }
        9 => dead_letter_to(&mut set, "q4"),
        _ => {}
    }
    // Transient queues dead-letter into durable ones, too.
    (table, kind != 9, kind == 10)
}

impl Story {
    fn new() -> Self {
        let broker = broker();
        let journal = Arc::new(VecJournal::default());
        broker.attach_journal(journal.clone());
        Self { broker, journal, client: Arc::default(), takers: Vec::new(), now: Time(1_000_000), published: 0 }
    }

    fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").unwrap()
    }

    fn message(&mut self, publish: &Publish) -> (Message, Arc<crate::broker::exchange::Exchange>) {
        self.published += 1;
        let exchange = match publish.exchange {
            0 => String::new(),
            other => exchange_name(other - 1),
        };
        let body = format!("m{}", self.published);
        let mut message = Message::build(&exchange, queue_name(publish.key).as_bytes(), b"", (0, 0), body.as_bytes());
        message.traits.persistent = publish.is_persistent;
        message.traits.priority = publish.priority;
        message.traits.ttl_ms = publish.ttl_ms.map(u64::from);
        let exchange = self.vhost().exchange(&exchange).unwrap_or_else(|| self.vhost().default_exchange().clone());
        (message, exchange)
    }

    fn batch(&mut self, publishes: &[Publish]) -> Batch {
        let messages: Vec<_> = publishes.iter().map(|publish| self.message(publish)).collect();
        let vhost = self.vhost();
        let mut turn = Turn::new(&self.broker, self.now);
        let mut batch = Batch::default();
        for (message, exchange) in messages {
            let route = vhost.route(&exchange, &message, &[], None, &mut turn);
            batch.push(message, &Arc::new(route));
        }
        batch
    }

    /// Takes some unsettled deliveries, by queue.
    fn held(&self, nth: u8, count: u8) -> Vec<(Arc<Queue>, Vec<Held>)> {
        let mut held = self.client.held.lock();
        if held.is_empty() {
            return Vec::new();
        }
        let start = usize::from(nth) % held.len();
        let end = (start + usize::from(count)).min(held.len());
        let mut runs: Vec<(Arc<Queue>, Vec<Held>)> = Vec::new();
        for (key, held) in held.drain(start..end) {
            let queue = &self.takers[key as usize].0;
            match runs.iter_mut().find(|(known, _)| Arc::ptr_eq(known, queue)) {
                Some((_, list)) => list.push(held),
                None => runs.push((queue.clone(), vec![held])),
            }
        }
        runs
    }

    fn run(&mut self, op: &Op) {
        let vhost = self.vhost();
        let now = self.now;
        match op {
            Op::Publish(publishes) => {
                let mut batch = self.batch(publishes);
                let mut turn = Turn::new(&self.broker, now);
                batch.place(&mut turn, &mut Vec::new());
                turn.end();
                return;
            }
            Op::Commit { publishes, nth, count, how } => {
                let mut batch = self.batch(publishes);
                let settles: Vec<_> =
                    self.held(*nth, *count).into_iter().map(|(queue, held)| (queue, settle(*how), held)).collect();
                let mut turn = Turn::new(&self.broker, now);
                publish::commit(&mut batch, &settles, &mut turn, &mut Vec::new());
                turn.end();
                return;
            }
            Op::Advance(ms) => {
                self.now = now.after_ms(u64::from(*ms));
                self.broker.tick(self.now);
                return;
            }
            _ => {}
        }
        let mut turn = Turn::new(&self.broker, now);
        match op {
            Op::DeclareQueue { name, kind } => {
                let (arguments, durable, auto_delete) = queue_kind(*kind);
                let name = queue_name(*name);
                let wanted = DeclareQueue { name: &name, durable, exclusive: false, auto_delete, arguments };
                drop(vhost.declare_queue(&wanted, Some(ConnectionId(1)), &mut turn));
            }
            Op::DeleteQueue(name) => {
                drop(vhost.delete_queue(&queue_name(*name), false, false, None, &mut turn));
            }
            Op::Purge(name) => {
                if let Some(queue) = vhost.queue(&queue_name(*name)).filter(|queue| !queue.is_stream()) {
                    queue.purge(&mut turn);
                }
            }
            Op::DeclareExchange { name, kind } => {
                let name = exchange_name(*name);
                let (kind, durable, auto_delete) = match kind {
                    0 => ("fanout", true, false),
                    1 => ("topic", true, true),
                    2 => ("direct", false, false),
                    _ => ("direct", true, false),
                };
                let wanted = DeclareExchange { name: &name, kind, durable, auto_delete, ..DeclareExchange::default() };
                drop(vhost.declare_exchange(&wanted, &mut turn));
            }
            Op::DeleteExchange(name) => drop(vhost.delete_exchange(&exchange_name(*name), false, &mut turn)),
            Op::Bind { exchange, queue, key } => {
                if let Some(queue) = vhost.queue(&queue_name(*queue)) {
                    let key = queue_name(*key);
                    let target = Target::Queue(queue);
                    let arguments = Table::new();
                    drop(vhost.bind(&exchange_name(*exchange), &target, key.as_bytes(), &arguments, &mut turn));
                }
            }
            Op::BindExchange { source, destination, key } => {
                if let Some(destination) = vhost.exchange(&exchange_name(*destination)) {
                    let key = queue_name(*key);
                    let target = Target::Exchange(destination);
                    let arguments = Table::new();
                    drop(vhost.bind(&exchange_name(*source), &target, key.as_bytes(), &arguments, &mut turn));
                }
            }
            Op::Unbind { exchange, queue, key } => {
                if let Some(queue) = vhost.queue(&queue_name(*queue)) {
                    let key = queue_name(*key);
                    let target = Target::Queue(queue);
                    let arguments = Table::new();
                    drop(vhost.unbind(&exchange_name(*exchange), &target, key.as_bytes(), &arguments, &mut turn));
                }
            }
            Op::Consume { queue, no_ack, prefetch } => {
                if let Some(queue) = vhost.queue(&queue_name(*queue)) {
                    let id = self.broker.next_consumer_id();
                    let key = self.takers.len() as u64;
                    self.takers.push((queue.clone(), Some(id)));
                    let options = ConsumerOptions {
                        tag: "c".into(),
                        no_ack: *no_ack && !queue.is_stream(),
                        exclusive: false,
                        priority: 0,
                        prefetch: u32::from(*prefetch),
                        declared_prefetch: u32::from(*prefetch),
                        shared_credit: None,
                        arguments: Table::new(),
                        outlet: self.client.clone(),
                        key,
                        connection: ConnectionId(1),
                        channel: 1,
                    };
                    drop(queue.consume(id, options, &mut turn));
                }
            }
            Op::Cancel(nth) => {
                if let Some((queue, Some(id))) = self.takers.get(usize::from(*nth))
                    && queue.cancel(*id, &mut turn)
                {
                    vhost.remove_queue(queue, &mut turn);
                }
            }
            Op::Leave(nth) => {
                if let Some((queue, Some(id))) = self.takers.get(usize::from(*nth)) {
                    let mut held = self.client.held.lock();
                    let (mine, others): (Vec<_>, Vec<_>) = held.drain(..).partition(|(key, _)| *key == u64::from(*nth));
                    *held = others;
                    drop(held);
                    let mine: Vec<_> = mine.into_iter().map(|(_, held)| held).collect();
                    let (requeued, returned) = mine.split_at(mine.len() / 2);
                    if queue.leave(&[*id], requeued, returned, &mut turn) {
                        vhost.remove_queue(queue, &mut turn);
                    }
                }
            }
            Op::Get { queue, no_ack } => {
                if let Some(queue) = vhost.queue(&queue_name(*queue)).filter(|queue| !queue.is_stream())
                    && let Verb::Done(Some(got)) = queue.get(*no_ack, &mut turn)
                    && let Some(held) = got.held
                {
                    let key = self.takers.len() as u64;
                    self.takers.push((queue, None));
                    self.client.held.lock().push((key, held));
                }
            }
            Op::Settle { nth, count, how } => {
                for (queue, held) in self.held(*nth, *count) {
                    queue.settle(&held, settle(*how), &mut turn);
                }
            }
            Op::AddVhost(name) => drop(self.broker.add_vhost(&format!("v{name}"), Default::default())),
            Op::DeleteVhost(name) => {
                self.broker.delete_vhost(&format!("v{name}"), &mut turn);
            }
            Op::Publish(_) | Op::Commit { .. } | Op::Advance(_) => unreachable!("done above"),
        }
        turn.end();
    }

    fn replayed(&self) -> Broker {
        let replayed = broker();
        replayed.replay(self.journal.records.lock().iter().cloned(), self.now).unwrap();
        replayed
    }
}

fn settle(how: u8) -> Settle {
    match how {
        0 => Settle::Accepted,
        1 => Settle::Requeued,
        2 => Settle::Returned,
        _ => Settle::Rejected,
    }
}

/// Everything of a broker that is to survive a restart, as text.
fn durable_state(broker: &Broker) -> String {
    let mut out = String::new();
    for vhost in broker.vhosts() {
        writeln!(out, "vhost {}", vhost.name).unwrap();
        let mut exchanges: Vec<_> =
            vhost.exchanges().into_iter().filter(|exchange| exchange.declaration.is_durable).collect();
        exchanges.sort_by(|a, b| a.name.cmp(&b.name));
        for exchange in exchanges {
            let declaration = &exchange.declaration;
            let kind = declaration.kind.name();
            writeln!(out, "  exchange {:?} {kind} auto_delete={}", exchange.name, declaration.is_auto_delete).unwrap();
            let mut bindings: Vec<_> = exchange
                .bindings()
                .into_iter()
                .filter(|binding| binding.target.is_durable())
                .map(|binding| format!("    to {} by {:?}", binding.target.name(), binding.key))
                .collect();
            bindings.sort();
            bindings.iter().for_each(|binding| writeln!(out, "{binding}").unwrap());
        }
        let mut queues: Vec<_> = vhost.queues().into_iter().filter(|queue| queue.survives_restart()).collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in queues {
            let declaration = &queue.declaration;
            let (id, auto_delete, arguments) = (queue.id.0, declaration.is_auto_delete, &declaration.arguments);
            writeln!(out, "  queue {id} {} auto_delete={auto_delete} {arguments:?}", queue.name).unwrap();
            messages(&queue, &mut out);
        }
    }
    out
}

/// Ready and unsettled messages in the order in which they would be delivered.
fn messages(queue: &Queue, out: &mut String) {
    let mut machine = queue.lock();
    if let Some(stream) = &machine.stream {
        for offset in stream.first_offset()..stream.next_offset() {
            let (message, at) = stream.get(offset).unwrap();
            let body = String::from_utf8_lossy(&message.body_to_vec()).into_owned();
            writeln!(out, "    {offset} {body} at={}", at.0).unwrap();
        }
        return;
    }
    let priority_max = machine.ready.priority_max();
    let mut entries: Vec<Entry> = machine.ready.iter().cloned().collect();
    assert!(entries.is_sorted_by_key(|e| (std::cmp::Reverse(e.message.traits.priority.min(priority_max)), e.seq)));
    entries.extend(machine.unsettled.iter_mut().map(|entry| entry.clone()));
    entries.retain(|entry| entry.message.traits.persistent);
    entries.sort_by_key(|e| (std::cmp::Reverse(e.message.traits.priority.min(priority_max)), e.seq));
    for entry in entries {
        let message = &entry.message;
        writeln!(
            out,
            "    {} {} key={} headers={:?} deadline={} count={} redelivered={}",
            entry.seq,
            String::from_utf8_lossy(&message.body_to_vec()),
            String::from_utf8_lossy(message.key()),
            message.headers().to_table(),
            entry.deadline.0,
            entry.delivery_count,
            entry.redelivered
        )
        .unwrap();
    }
}

fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut story = Story::new();
    for op in ops {
        story.run(op);
    }
    let replayed = story.replayed();
    prop_assert_eq!(durable_state(&story.broker), durable_state(&replayed));
    // A new identity is not one of the log's.
    prop_assert!(replayed.queue_ids.load(Ordering::Relaxed) <= story.broker.queue_ids.load(Ordering::Relaxed));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_replayed_broker_equals_the_one_that_was_recorded(ops in prop::collection::vec(op(), 1..60)) {
        check(&ops)?;
    }
}

fn declare(name: u8, kind: u8) -> Op {
    Op::DeclareQueue { name, kind }
}

fn persistent(key: u8) -> Op {
    Op::Publish(vec![Publish { exchange: 0, key, is_persistent: true, ttl_ms: None, priority: 0 }])
}

/// Runs a story; returns the bodies in the queue of that number after a restart.
fn bodies_after(ops: &[Op], queue: u8) -> Vec<String> {
    let mut story = Story::new();
    ops.iter().for_each(|op| story.run(op));
    let replayed = story.replayed();
    assert_eq!(durable_state(&story.broker), durable_state(&replayed));
    let queue = replayed.vhost("/").unwrap().queue(&queue_name(queue)).unwrap();
    let bodies = queue.snapshot().into_iter().map(|(_, message, _)| message.body_to_vec());
    bodies.map(|body| String::from_utf8(body).unwrap()).collect()
}

#[test]
fn a_message_that_a_no_ack_consumer_took_at_once_does_not_come_back() {
    let consume = Op::Consume { queue: 0, no_ack: true, prefetch: 0 };
    assert!(bodies_after(&[declare(0, 0), consume, persistent(0)], 0).is_empty());
}

#[test]
fn a_dead_letter_of_a_transient_queue_stays_in_a_durable_one() {
    let get = Op::Get { queue: 0, no_ack: false };
    let reject = Op::Settle { nth: 0, count: 1, how: 3 };
    let ops = [declare(0, 9), declare(4, 0), persistent(0), get, reject];
    assert_eq!(bodies_after(&ops, 4), ["m1"]);
}

#[test]
fn an_unsettled_delivery_is_ready_again_in_its_place() {
    let get = Op::Get { queue: 0, no_ack: false };
    let ops = [declare(0, 0), persistent(0), persistent(0), get];
    assert_eq!(bodies_after(&ops, 0), ["m1", "m2"]);
}

#[test]
fn a_deleted_vhost_takes_its_records_with_it() {
    let mut story = Story::new();
    story.run(&Op::AddVhost(0));
    let vhost = story.broker.vhost("v0").unwrap();
    let mut turn = Turn::new(&story.broker, story.now);
    let wanted = DeclareQueue { name: "q", durable: true, ..DeclareQueue::default() };
    vhost.declare_queue(&wanted, None, &mut turn).unwrap();
    turn.end();
    story.run(&Op::DeleteVhost(0));
    story.run(&Op::AddVhost(0));
    let replayed = story.replayed();
    assert_eq!(durable_state(&story.broker), durable_state(&replayed));
    assert!(replayed.vhost("v0").unwrap().queues().is_empty());
}

#[test]
fn a_record_of_a_queue_that_was_never_declared_is_refused() {
    let records = [Record::Settle { queue: QueueId(77), seqs: vec![1] }];
    assert!(matches!(broker().replay(records.into_iter(), Time(0)), Err(ReplayError::UnknownQueue(77))));
}

#[test]
fn a_deleted_exchange_is_forgotten_by_the_queues_that_were_bound_to_it() {
    let mut story = Story::new();
    story.run(&declare(0, 0));
    for _ in 0..3 {
        story.run(&Op::DeclareExchange { name: 1, kind: 0 });
        story.run(&Op::Bind { exchange: 1, queue: 0, key: 0 });
        story.run(&Op::DeleteExchange(1));
    }
    assert!(story.vhost().queue("q0").unwrap().inbound.lock().is_empty());
}
