//! From an exchange and a message to queues: the walk over bindings between exchanges and over
//! alternate exchanges, and the cached result of such a walk.

use std::{collections::HashSet, sync::Arc};

use smallvec::SmallVec;

use super::{
    exchange::{
        Exchange, Kind, Passage, Routing, Target, delay_ms,
        envelopes::{Envelopes, Wanted},
    },
    queue::Queue,
    record::Record,
    vhost::Vhost,
};

/// The queues that a message goes to, each once.
pub type Queues = SmallVec<[Arc<Queue>; 1]>;

/// The result of a walk, and what it depends on.
#[derive(Default)]
pub struct Route {
    /// Where the message goes.
    pub queues: Queues,
    /// The exchanges that were asked, with their generation at that time.
    visited: SmallVec<[(Arc<Exchange>, u64); 1]>,
    /// The same exchange and key always give this result, until something is declared or bound.
    pub is_cacheable: bool,
    /// An exchange has kept the message for later, or has seen it before: it counts as routed.
    pub is_kept: bool,
    /// Exchanges on the way that hold messages back or keep them: the caller hands them the
    /// message.
    pub(in crate::broker) keepers: SmallVec<[Arc<Exchange>; 1]>,
    /// To be recorded once the message is in its queues: the name by which its exchange knows it.
    pub(in crate::broker) seen: Option<Box<Record>>,
    /// Bindings on the way that want the message wrapped.
    pub(in crate::broker) wrapped: Wanted,
    /// The message passes these exchanges for as long as the route is there.
    pub(in crate::broker) passages: SmallVec<[Passage; 1]>,
    /// What the message carries for them.
    pub(in crate::broker) envelopes: Option<Arc<Envelopes>>,
}

impl Route {
    /// The route to one queue.
    pub(in crate::broker) fn to(queue: Arc<Queue>) -> Self {
        Self { queues: SmallVec::from_iter([queue]), ..Self::default() }
    }

    /// The route of a message that is not to be routed.
    pub(in crate::broker) fn kept() -> Self {
        Self { is_kept: true, ..Self::default() }
    }

    /// Whether the walk would still give the same.
    pub fn is_current(&self) -> bool {
        self.is_cacheable
            && self.visited.iter().all(|(exchange, generation)| exchange.generation() == *generation)
            && !self.queues.iter().any(|queue| queue.is_deleted())
    }
}

/// Walks from `start` to queues. `keys` are the routing keys of the message: its own and copies.
/// An exchange that holds the message back is not walked through, unless it is `released`.
pub fn walk(
    vhost: &Vhost,
    start: &Arc<Exchange>,
    keys: &[&[u8]],
    routing: &Routing<'_>,
    released: Option<&Arc<Exchange>>,
) -> Route {
    let mut route = Route { is_cacheable: keys.len() == 1, ..Route::default() };
    let mut waiting: SmallVec<[Arc<Exchange>; 4]> = SmallVec::from_iter([start.clone()]);
    let (mut targets, mut wrapped) = (Vec::new(), Vec::new());
    while let Some(exchange) = waiting.pop() {
        route.visited.push((exchange.clone(), exchange.generation()));
        if exchange.delays() || exchange.recent.is_some() {
            route.keepers.push(exchange.clone());
            // Or the next message of that key would go past them.
            route.is_cacheable = false;
            let is_released = released.is_some_and(|released| Arc::ptr_eq(released, &exchange));
            if exchange.delays() && !is_released && delay_ms(routing.headers).is_some() {
                continue;
            }
        }
        if exchange.is_default() {
            for key in keys {
                match vhost.queue_by_key(key) {
                    Some(queue) => route.queues.push(queue),
                    // A queue of that name may be declared without the exchange's knowing.
                    None => route.is_cacheable = false,
                }
            }
            continue;
        }
        route.is_cacheable &= exchange.routes_by_key_alone();
        if exchange.declaration.kind == Kind::Filtered {
            route.passages.push(Passage::new(&exchange));
        }
        targets.clear();
        let keys = if exchange.routes_every_key() { keys } else { &keys[..1] };
        for key in keys {
            exchange.route(&Routing { key, ..*routing }, &mut targets, &mut wrapped);
        }
        for (target, label) in wrapped.drain(..) {
            if let Target::Queue(queue) = target {
                route.wrapped.push(queue.id, &exchange, label);
            }
        }
        if targets.is_empty()
            && let Some(alternate) = exchange.alternate()
        {
            match vhost.exchange(&alternate) {
                Some(alternate) => push_exchange(&route, &mut waiting, alternate),
                None => route.is_cacheable = false,
            }
        }
        for target in targets.drain(..) {
            match target {
                Target::Queue(queue) => route.queues.push(queue),
                Target::Exchange(next) => push_exchange(&route, &mut waiting, next),
            }
        }
    }
    deduplicate(&mut route.queues);
    route
}

/// Leaves each queue once, in order of first appearance.
fn deduplicate(queues: &mut Queues) {
    if queues.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity_and_hasher(queues.len(), foldhash::fast::FixedState::default());
    queues.retain(|queue| seen.insert(queue.id));
}

fn push_exchange(route: &Route, waiting: &mut SmallVec<[Arc<Exchange>; 4]>, exchange: Arc<Exchange>) {
    let is_known = route.visited.iter().any(|(known, _)| Arc::ptr_eq(known, &exchange))
        || waiting.iter().any(|known| Arc::ptr_eq(known, &exchange));
    if !is_known {
        waiting.push(exchange);
    }
}

#[cfg(test)]
mod tests {
    use crate::broker::{
        Broker, Options,
        message::Message,
        time::Time,
        topology::DeclareExchange,
        turn::Turn,
        value::{Table, Value},
    };

    #[test]
    fn a_route_to_an_exchange_that_holds_messages_back_is_not_remembered() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, Time(0));
        let arguments = Table::from_iter([("x-delayed-type", Value::text("fanout"))]);
        let wanted = DeclareExchange { name: "x", kind: "x-delayed-message", arguments, ..DeclareExchange::default() };
        let exchange = vhost.declare_exchange(&wanted, &mut turn).unwrap();
        let mut headers = Vec::new();
        Table::from_iter([("x-delay", Value::I32(5))]).encode(&mut headers);
        let message = Message::build("x", b"k", &headers, (0, headers.len()), b"m");
        for held in 1..=2 {
            let route = vhost.route(&exchange, &message, &[], None, &mut turn);
            assert!(route.is_kept && !route.is_cacheable);
            assert_eq!(exchange.delayed.as_ref().unwrap().lock().resident(), held);
        }
    }
}
