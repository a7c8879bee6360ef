//! From a published message to its queues: the route, cached by exchange and key, and the batch
//! that takes each queue's lock once for all messages of one read.

use std::{collections::HashMap, sync::Arc};

use super::{
    consumer::{Held, Settle},
    exchange::{self, Exchange, Kind, RecentHistory, Routing, Target, holds::HoldEntry},
    message::{Message, View},
    queue::{Queue, dedup::Observed},
    record::{HoldKey, Keeper, Pin, Position, Record},
    route::{self, Route},
    time::Time,
    turn::Turn,
    vhost::Vhost,
};

/// Looks up a property by name, for exchanges that route by one.
pub type Property<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// The routes that one connection used lately, by exchange and key.
#[derive(Default)]
pub struct RouteCache {
    last_bytes: Vec<u8>,
    last: Option<Arc<Route>>,
    all: HashMap<Box<[u8]>, Arc<Route>, foldhash::fast::RandomState>,
}

/// Routes that one connection keeps; a full cache starts again.
const ROUTES_MAX: usize = 1024;

impl RouteCache {
    /// The route for exchange and key (each with its length byte in front), if it still holds.
    #[inline]
    pub fn get(&mut self, route_bytes: &[u8]) -> Option<&Arc<Route>> {
        let is_last = self.last_bytes == route_bytes && self.last.as_ref().is_some_and(|route| route.is_current());
        if !is_last {
            let route = self.all.get(route_bytes)?;
            if !route.is_current() {
                self.all.remove(route_bytes);
                return None;
            }
            let route = route.clone();
            self.set_last(route_bytes, route);
        }
        self.last.as_ref()
    }

    /// Remembers a route.
    pub fn put(&mut self, route_bytes: &[u8], route: &Arc<Route>) {
        if !route.is_cacheable {
            return;
        }
        if self.all.len() >= ROUTES_MAX {
            self.all.clear();
        }
        self.all.insert(route_bytes.into(), route.clone());
        self.set_last(route_bytes, route.clone());
    }

    fn set_last(&mut self, route_bytes: &[u8], route: Arc<Route>) {
        self.last_bytes.clear();
        self.last_bytes.extend_from_slice(route_bytes);
        self.last = Some(route);
    }
}

impl Vhost {
    /// Where a message goes that is published to `start`. `copies` are further routing keys.
    /// An exchange on the way may keep the message for later, or have seen it before: then the
    /// route says [`Route::is_kept`].
    pub fn route(
        &self,
        start: &Arc<Exchange>,
        message: &Message,
        copies: &[Vec<u8>],
        property: Option<Property<'_>>,
        turn: &mut Turn<'_>,
    ) -> Route {
        let mut seen = None;
        if let Some(dedup) = &start.dedup {
            // Taken for the look alone: routing may take other locks.
            let observed = dedup.lock().observe(message.headers(), None, 0, turn.now);
            match observed {
                Observed::Duplicate(_) => {
                    // Its publisher is told that it is kept: the first one has to be.
                    if self.records(start, turn) {
                        turn.wait_for_log();
                    }
                    return Route::kept();
                }
                Observed::New(name) if self.records(start, turn) => {
                    let keeper = Keeper::Exchange { vhost: self.name.clone(), name: start.name.clone() };
                    seen = Some(Box::new(Record::Seen { keeper, seen: name }));
                }
                Observed::New(_) | Observed::Unnamed => {}
            }
        }
        let mut route = self.route_from(start, message, copies, property, None, turn);
        route.seen = seen;
        route
    }

    /// Whether what an exchange keeps is recorded.
    fn records(&self, exchange: &Exchange, turn: &Turn<'_>) -> bool {
        turn.broker.is_logged() && exchange.declaration.is_durable && !exchange.is_deleted() && !self.is_deleted()
    }

    fn route_from(
        &self,
        start: &Arc<Exchange>,
        message: &Message,
        copies: &[Vec<u8>],
        property: Option<Property<'_>>,
        released: Option<&Arc<Exchange>>,
        turn: &mut Turn<'_>,
    ) -> Route {
        let keys: smallvec::SmallVec<[&[u8]; 1]> =
            std::iter::once(message.key()).chain(copies.iter().map(Vec::as_slice)).collect();
        let (headers, random) = (message.headers(), turn.random());
        let renderer = turn.broker.renderer().map(|renderer| &**renderer);
        let routing = Routing { key: message.key(), headers, property, random, message: Some(message), renderer };
        let mut route = route::walk(self, start, &keys, &routing, released);
        route.envelopes = std::mem::take(&mut route.wrapped).seal(self, message, turn.broker, turn.now);
        for keeper in std::mem::take(&mut route.keepers) {
            if let Some(recent) = &keeper.recent
                && RecentHistory::<Message>::wants(message.headers())
            {
                let mut recent = recent.lock();
                let mut place = Position::NONE;
                // All of them: what is displaced depends on every one.
                if self.records(&keeper, turn) {
                    let (vhost, exchange) = (self.name.clone(), keeper.name.clone());
                    place = turn.record_now(&Record::Kept { vhost, exchange, message: message.clone() });
                }
                recent.store((place, message.clone()));
            }
            if released.is_none_or(|released| !Arc::ptr_eq(released, &keeper))
                && keeper.delays()
                && let Some(delay_ms) = exchange::delay_ms(message.headers())
            {
                route.is_kept |= self.hold(&keeper, message.clone(), turn.now.after_ms(delay_ms), turn);
            }
        }
        route
    }

    /// Has an exchange hold a message back until it is due; false if it holds nothing back.
    pub(super) fn hold(&self, keeper: &Arc<Exchange>, message: Message, due: Time, turn: &mut Turn<'_>) -> bool {
        let Some(delayed) = &keeper.delayed else { return false };
        let mut delayed = delayed.lock();
        // Under the lock, so that what is due at once comes out in this order.
        let hold = turn.broker.next_hold_id();
        let mut place = Position::NONE;
        if message.traits.persistent && self.records(keeper, turn) {
            let (vhost, exchange) = (self.name.clone(), keeper.name.clone());
            let message = message.clone();
            place = turn.record_now(&Record::Held { vhost, exchange, hold, due, message, body: None });
        }
        let (key, body_bytes) = (HoldKey { due, hold }, message.body_bytes());
        delayed.hold(HoldEntry { key, place, body_bytes }, message);
        keeper.appoint(&mut delayed, turn);
        true
    }

    /// Publishes what a delaying exchange has held long enough.
    pub fn release_delayed(self: &Arc<Self>, exchange: &Arc<Exchange>, turn: &mut Turn<'_>) {
        if exchange.declaration.kind == Kind::Schedule {
            return self.release_scheduled(exchange, turn);
        }
        let Some(delayed) = &exchange.delayed else { return };
        loop {
            // No checkpoint covers the record of it while the index is told that they are held.
            let pin = turn.broker.pin();
            let due = delayed.lock().release(turn.now, RELEASED_MAX);
            if due.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            let mut holds: Vec<HoldKey> = Vec::new();
            for (key, is_recorded, message) in due {
                if is_recorded {
                    holds.push(key);
                }
                let headers = exchange::released_headers(message.headers());
                let message = message.with_view(View { headers: Some(headers), ..View::default() });
                let copies = message.copy_keys();
                let route = self.route_from(exchange, &message, &copies, None, Some(exchange), turn);
                batch.push(message, &Arc::new(route));
            }
            let mut released = Vec::new();
            if !holds.is_empty() {
                let (vhost, exchange) = (self.name.clone(), exchange.name.clone());
                released.push(Record::Released { vhost, exchange, holds });
            }
            // In one record with what the queues take: neither lost nor published twice.
            commit_with(&mut batch, &[], released, turn, &mut Vec::new());
            delayed.lock().released();
            drop(pin);
            turn.drain();
        }
        exchange.proceed_holds(turn);
    }
}

/// Messages that a delaying exchange releases at once.
const RELEASED_MAX: usize = 256;

/// Messages of one read, in order, with their routes.
#[derive(Default)]
pub struct Batch {
    messages: Vec<Message>,
    /// Consecutive messages with the same route: the route and their number.
    runs: Vec<(Arc<Route>, usize)>,
}

/// Messages that a batch gathers before it has to be placed.
pub const BATCH_MAX: usize = 1024;

impl Batch {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a message.
    #[inline(always)]
    pub fn push(&mut self, message: Message, route: &Arc<Route>) {
        self.messages.push(match &route.envelopes {
            None => message,
            Some(envelopes) => message.with_envelopes(envelopes.clone()),
        });
        match self.runs.last_mut() {
            Some((last, count)) if Arc::ptr_eq(last, route) => *count += 1,
            _ => self.runs.push((route.clone(), 1)),
        }
    }

    /// Puts all messages into their queues and empties the batch. Appends to `refused` the indices
    /// of messages that a queue was too full for.
    pub fn place(&mut self, turn: &mut Turn<'_>, refused: &mut Vec<usize>) {
        let mut start = 0;
        let mut messages = self.messages.drain(..);
        let mut found = Vec::new();
        for (route, count) in self.runs.drain(..) {
            let (last, others) = match route.queues.split_last() {
                Some((last, others)) => (Some(last), others),
                None => (None, &[][..]),
            };
            let mut bodies = match others {
                [] => Bodies::default(),
                _ => Bodies::record(&messages.as_slice()[..count], &route, turn),
            };
            for queue in others {
                queue.publish_shared(messages.as_slice()[..count].iter().cloned(), &mut bodies, turn, &mut found);
            }
            let mut run = messages.by_ref().take(count);
            if let Some(queue) = last {
                queue.publish_shared(&mut run, &mut bodies, turn, &mut found);
            }
            // What no queue took: there is none, or it was deleted meanwhile.
            run.for_each(drop);
            bodies.close(turn);
            if let Some(seen) = &route.seen {
                turn.record(Record::clone(seen));
            }
            if !found.is_empty() {
                found.sort_unstable();
                found.dedup();
                refused.extend(found.drain(..).map(|index| start + index));
            }
            start += count;
        }
    }
}

/// Publishes and settles in one step: the queues' locks are held together, one record tells all of
/// it, and nobody sees a part. Appends to `refused` as [`Batch::place`] does.
///
/// Dead letters of refused deliveries follow in records of their own.
pub fn commit(
    batch: &mut Batch,
    settles: &[(Arc<Queue>, Settle, Vec<Held>)],
    turn: &mut Turn<'_>,
    refused: &mut Vec<usize>,
) {
    commit_with(batch, settles, Vec::new(), turn, refused);
}

/// As [`commit`], with more records in the same step.
pub(super) fn commit_with(
    batch: &mut Batch,
    settles: &[(Arc<Queue>, Settle, Vec<Held>)],
    more: Vec<Record>,
    turn: &mut Turn<'_>,
    refused: &mut Vec<usize>,
) {
    let routed = batch.runs.iter().flat_map(|(route, _)| route.queues.iter());
    let mut queues: Vec<Arc<Queue>> = routed.chain(settles.iter().map(|(queue, ..)| queue)).cloned().collect();
    queues.sort_by_key(|queue| queue.id);
    queues.dedup_by_key(|queue| queue.id);
    let mut locked: Vec<_> = queues.iter().map(|queue| (queue, queue.lock(), queue.effects(turn))).collect();
    let place_of = |queue: &Arc<Queue>| {
        queues.binary_search_by_key(&queue.id, |queue| queue.id).expect("`queues` holds every queue concerned")
    };
    // Its messages come before the record that names them.
    let _pin = turn.broker.pin();
    turn.begin_transaction();
    let mut start = 0;
    let mut seen = Vec::new();
    for (route, count) in batch.runs.drain(..) {
        let mut found = Vec::new();
        let mut bodies = match &route.queues[..] {
            [] | [_] => Bodies::default(),
            _ => Bodies::record(&batch.messages[start..start + count], &route, turn),
        };
        for queue in &route.queues {
            let (queue, machine, effects) = &mut locked[place_of(queue)];
            if !queue.is_deleted() {
                let messages = batch.messages[start..start + count].iter().cloned();
                queue.push(machine, messages, &mut bodies, turn, effects, &mut found);
            }
        }
        bodies.close(turn);
        found.sort_unstable();
        found.dedup();
        refused.extend(found.into_iter().map(|index| start + index));
        start += count;
        seen.extend(route.seen.as_deref().cloned());
    }
    batch.messages.clear();
    for (queue, how, held) in settles {
        let (queue, machine, effects) = &mut locked[place_of(queue)];
        queue.settle_all(machine, held, *how, turn.now, effects);
    }
    for (queue, _, effects) in &mut locked {
        queue.record_settled(effects, turn);
    }
    seen.into_iter().chain(more).for_each(|record| turn.record(record));
    turn.end_transaction();
    for (queue, machine, effects) in locked {
        queue.after_push(machine, effects, turn);
    }
}

/// Messages of one run that several queues record: the log has each once, and the queues' records
/// name it.
#[derive(Default)]
pub(in crate::broker) struct Bodies {
    /// By message: where it is, and how many queues have yet to name it. Zero where it is recorded with
    /// its queue.
    missing: Vec<(Position, u32)>,
    _pin: Option<Pin>,
}

impl Bodies {
    /// Records the messages that more than one queue of the route records.
    fn record(messages: &[Message], route: &Route, turn: &mut Turn<'_>) -> Self {
        if !turn.broker.is_logged() {
            return Self::default();
        }
        let count_of = |is_counted: &dyn Fn(&Queue) -> bool| {
            route.queues.iter().filter(|queue| queue.is_logged(turn) && is_counted(queue)).count() as u32
        };
        // What is not persistent is recorded by streams alone.
        let (of_persistent, of_others) = (count_of(&|_| true), count_of(&Queue::is_stream));
        if of_persistent < 2 {
            return Self::default();
        }
        let pin = turn.broker.pin();
        let mut record = |message: &Message| {
            let targets = if message.traits.persistent { of_persistent } else { of_others };
            if targets < 2 {
                return (Position::NONE, 0);
            }
            (turn.record_now(&Record::Body { targets, message: message.clone() }), targets)
        };
        Self { missing: messages.iter().map(&mut record).collect(), _pin: pin }
    }

    /// Where the run's message of that index is, for one more queue, if it is in the log already.
    pub(in crate::broker) fn name(&mut self, index: usize) -> Option<Position> {
        let (body, missing) = self.missing.get_mut(index)?;
        *missing = missing.checked_sub(1)?;
        Some(*body)
    }

    /// Has the log know which messages are named no more, though some queues did not take them.
    fn close(self, turn: &mut Turn<'_>) {
        for (body, missing) in self.missing {
            if missing > 0 {
                turn.record(Record::BodyClosed { body });
            }
        }
    }
}

impl Turn<'_> {
    /// Delivers what an exchange has kept to a new binding's destination.
    pub(in crate::broker) fn replay_recent(&mut self, vhost: &Vhost, exchange: &Arc<Exchange>, to: &Target) {
        let Some(recent) = exchange.recent.as_ref().filter(|_| !self.is_replay()) else { return };
        let kept: Vec<Message> = recent.lock().replay().map(|(_, message)| message.clone()).collect();
        let mut batch = Batch::default();
        for message in kept {
            let route = match to {
                Target::Queue(queue) => Route::to(queue.clone()),
                Target::Exchange(next) => vhost.route_from(next, &message, &[], None, None, self),
            };
            batch.push(message, &Arc::new(route));
        }
        batch.place(self, &mut Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{
        Broker,
        options::Options,
        time::Time,
        topology::{DeclareExchange, DeclareQueue},
        value::{Table, Value},
        vhost::Metadata,
    };

    /// An exchange `d` that delays, a queue `q` bound to it, and a message on its way for 100 ms.
    fn hold(vhost: &Arc<Vhost>, turn: &mut Turn<'_>) -> Arc<Queue> {
        let arguments = Table::from_iter([("x-delayed-type", Value::text("fanout"))]);
        let wanted = DeclareExchange { name: "d", kind: "x-delayed-message", arguments, ..DeclareExchange::default() };
        let exchange = vhost.declare_exchange(&wanted, turn).unwrap();
        let queue = vhost.declare_queue(&DeclareQueue { name: "q", ..DeclareQueue::default() }, None, turn).unwrap();
        vhost.bind("d", &Target::Queue(queue.clone()), b"", &Table::new(), turn).unwrap();
        let mut headers = Vec::new();
        Table::from_iter([(exchange::delayed::DELAY, Value::I32(100))]).encode(&mut headers);
        let message = Message::build("d", b"", &headers, (0, headers.len()), b"body");
        assert!(vhost.route(&exchange, &message, &[], None, turn).is_kept);
        queue
    }

    #[test]
    fn copies_are_further_keys_for_direct_and_topic_exchanges_only() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, Time(0));
        let queues: Vec<_> = (0..8)
            .map(|n| {
                let name = format!("q{n}");
                let wanted = DeclareQueue { name: &name, ..DeclareQueue::default() };
                vhost.declare_queue(&wanted, None, &mut turn).unwrap()
            })
            .collect();
        let copies: Vec<_> = (1..8).map(|n| format!("k{n}").into_bytes()).collect();
        for (kind, taken) in [("direct", 8), ("topic", 8), ("x-consistent-hash", 1), ("x-random", 1)] {
            let wanted = DeclareExchange { name: kind, kind, ..DeclareExchange::default() };
            let exchange = vhost.declare_exchange(&wanted, &mut turn).unwrap();
            for (n, queue) in queues.iter().enumerate() {
                let key = if taken == 8 { format!("k{n}") } else { "1".to_owned() };
                vhost.bind(kind, &Target::Queue(queue.clone()), key.as_bytes(), &Table::new(), &mut turn).unwrap();
            }
            let message = Message::build(kind, b"k0", &[], (0, 0), b"");
            assert_eq!(vhost.route(&exchange, &message, &copies, None, &mut turn).queues.len(), taken, "{kind}");
        }
        turn.end();
    }

    #[test]
    fn a_delayed_message_is_released_in_the_vhost_of_its_exchange() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let (first, second) = (broker.vhost("/").unwrap(), broker.add_vhost("other", Metadata::default()));
        let mut turn = Turn::new(&broker, Time(0));
        let queue = hold(&first, &mut turn);
        let other = hold(&second, &mut turn);
        turn.end();
        broker.tick(Time(99));
        assert_eq!((queue.snapshot().len(), other.snapshot().len()), (0, 0));
        broker.tick(Time(100));
        assert_eq!((queue.snapshot().len(), other.snapshot().len()), (1, 1));
    }

    #[test]
    fn what_a_deleted_exchange_held_is_gone() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, Time(0));
        let queue = hold(&vhost, &mut turn);
        let exchange = vhost.exchange("d").unwrap();
        vhost.delete_exchange("d", false, &mut turn).unwrap();
        turn.end();
        broker.tick(Time(100));
        assert!(queue.snapshot().is_empty());
        drop(exchange);
    }
}
