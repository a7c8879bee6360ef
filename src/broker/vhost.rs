//! A virtual host: a name space of exchanges and queues.
//!
//! Looking a queue or an exchange up takes one shard of a map; changing the topology takes the
//! vhost's `topology` lock first, so that two changes cannot cross.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::{
    exchange::{Declaration, Exchange, Kind},
    queue::{Queue, QueueDeclaration, arguments::QueueArguments, machine::Limits},
    turn::Turn,
    value::Table,
};

type Map<V> = DashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// An empty map; both numbers are what most vhosts need, so that an idle one stays small.
fn map<V>(capacity: usize, shards: usize) -> Map<V> {
    Map::with_capacity_and_hasher_and_shard_amount(capacity, foldhash::fast::RandomState::default(), shards)
}

/// A virtual host.
pub struct Vhost {
    /// Its name.
    pub name: Arc<str>,
    pub(in crate::broker) queues: Map<Arc<Queue>>,
    pub(in crate::broker) exchanges: Map<Arc<Exchange>>,
    /// Queues that exist for one consumer and that no listing shows.
    hidden: Map<Arc<Queue>>,
    /// Guards changes of exchanges, queues and bindings. Queue locks may be taken after it.
    pub(in crate::broker) topology: Mutex<()>,
    /// What administration knows of it.
    metadata: RwLock<Metadata>,
    /// Every publish and delivery is copied to the trace exchange.
    pub is_traced: Arc<AtomicBool>,
    is_deleted: AtomicBool,
    default_exchange: Arc<Exchange>,
    connections: AtomicU64,
    /// Who wants to know of new queues.
    watchers: Mutex<Vec<Weak<dyn QueueWatcher>>>,
}

/// Somebody who wants to know of new queues.
pub trait QueueWatcher: Send + Sync {
    /// A queue was declared. Called under the topology lock: it may note that and nothing else.
    fn declared(&self, queue: &Arc<Queue>);
}

/// What administration knows of a vhost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Free text.
    pub description: String,
    /// Free words.
    pub tags: Vec<String>,
    /// Queue type of declarations that name none.
    pub default_queue_type: Option<String>,
}

/// The exchanges that every vhost has: name, kind, internal.
const PREDECLARED: [(&str, Kind, bool); 7] = [
    ("amq.direct", Kind::Direct, false),
    ("amq.fanout", Kind::Fanout, false),
    ("amq.topic", Kind::Topic, false),
    ("amq.headers", Kind::Headers, false),
    ("amq.match", Kind::Headers, false),
    (TRACE_EXCHANGE, Kind::Topic, true),
    ("", Kind::Direct, false),
];

/// Name of the exchange that traced messages go to.
pub const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

impl Vhost {
    /// A vhost with the predeclared exchanges.
    pub fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new_cyclic(|vhost| {
            let exchanges = map(16, 8);
            let mut default_exchange = None;
            for (name, kind, is_internal) in PREDECLARED {
                let declaration =
                    Declaration { kind, is_durable: true, is_auto_delete: false, is_internal, arguments: Table::new() };
                let exchange = Exchange::new(name.into(), declaration, vhost.clone())
                    .expect("predeclared exchanges have no arguments that could be wrong");
                let exchange = Arc::new(exchange);
                exchanges.insert(exchange.name.clone(), exchange.clone());
                default_exchange = Some(exchange);
            }
            Self {
                name,
                queues: map(0, 16),
                exchanges,
                hidden: map(0, 4),
                topology: Mutex::new(()),
                metadata: RwLock::default(),
                is_traced: Arc::default(),
                is_deleted: AtomicBool::new(false),
                default_exchange: default_exchange.expect("PREDECLARED is not empty"),
                connections: AtomicU64::new(0),
                watchers: Mutex::default(),
            }
        })
    }

    /// Every vhost has an exchange of that name from its beginning.
    pub(in crate::broker) fn is_predeclared(name: &str) -> bool {
        PREDECLARED.iter().any(|(predeclared, ..)| *predeclared == name)
    }

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.get(name).map(|queue| queue.clone())
    }

    /// The hidden queue of that name.
    pub fn hidden(&self, name: &str) -> Option<Arc<Queue>> {
        self.hidden.get(name).map(|queue| queue.clone())
    }

    /// The queue that the default exchange sends that key to.
    pub(in crate::broker) fn queue_by_key(&self, key: &[u8]) -> Option<Arc<Queue>> {
        let name = std::str::from_utf8(key).ok()?;
        self.queue(name).or_else(|| self.hidden(name))
    }

    /// Makes a queue for one consumer, reachable by the default exchange and shown by no listing.
    pub fn add_hidden(self: &Arc<Self>, name: &str, turn: &Turn<'_>) -> Arc<Queue> {
        let declaration = QueueDeclaration {
            is_durable: false,
            is_auto_delete: false,
            owner: None,
            arguments: Table::new(),
            parsed: QueueArguments::default(),
            dead_queue: None,
        };
        let name: Arc<str> = name.into();
        let id = turn.broker.next_queue_id();
        let queue = Arc::new(Queue::new(id, name.clone(), declaration, self, Limits::default(), turn.now));
        self.hidden.insert(name, queue.clone());
        queue
    }

    /// Removes a hidden queue.
    pub fn remove_hidden(&self, queue: &Arc<Queue>, turn: &mut Turn<'_>) {
        self.hidden.remove(&queue.name);
        queue.close(turn);
    }

    /// The exchange of that name; the empty name is the default exchange.
    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        if name.is_empty() {
            return Some(self.default_exchange.clone());
        }
        self.exchanges.get(name).map(|exchange| exchange.clone())
    }

    /// The exchange that routes to the queue that the key names.
    pub fn default_exchange(&self) -> &Arc<Exchange> {
        &self.default_exchange
    }

    /// All queues, in no order.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.iter().map(|entry| entry.value().clone()).collect()
    }

    /// All exchanges, in no order.
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.exchanges.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Number of queues.
    pub fn queues_count(&self) -> usize {
        self.queues.len()
    }

    /// Has somebody told of queues that are declared from now on.
    pub fn watch_queues(&self, watcher: Weak<dyn QueueWatcher>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|known| known.strong_count() > 0);
        watchers.push(watcher);
    }

    pub(in crate::broker) fn tell_watchers(&self, queue: &Arc<Queue>) {
        self.watchers.lock().iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.declared(queue));
    }

    /// Open connections.
    pub fn connections_count(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A connection has opened it.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that had opened it is gone.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// What administration knows of it; [`Broker::change_vhost`](super::Broker::change_vhost)
    /// changes it.
    pub fn metadata(&self) -> RwLockReadGuard<'_, Metadata> {
        self.metadata.read()
    }

    pub(in crate::broker) fn set_metadata(&self, metadata: Metadata) {
        *self.metadata.write() = metadata;
    }

    /// Has `seen` see the changed metadata before anybody else does.
    pub(in crate::broker) fn change_metadata(&self, change: impl FnOnce(&mut Metadata), seen: impl FnOnce(&Metadata)) {
        let mut metadata = self.metadata.write();
        let mut changed = metadata.clone();
        change(&mut changed);
        seen(&changed);
        *metadata = changed;
    }

    /// It was deleted.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    pub(in crate::broker) fn mark_deleted(&self) {
        self.is_deleted.store(true, Ordering::Release);
    }
}
