//! An exchange as the broker shares it: its declaration, its bindings and its alternate.
//!
//! Routing takes the bindings' read lock; binding takes the write lock and moves the generation
//! on, so that a cached route can be told to be out of date.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{BindError, Binding, Holds, Kind, KindError, RecentHistory, Router, Routing, envelopes::Label};
use crate::broker::{
    error,
    message::Message,
    queue::{
        Queue,
        arguments::{DEDUP_HEADER_DEFAULT, DedupArguments},
        behaviour::DedupScope,
        dedup::{SeenLook, Window},
    },
    record::Position,
    value::Table,
    vhost::Vhost,
};

/// Where a binding leads.
#[derive(Clone)]
pub enum Target {
    /// To a queue.
    Queue(Arc<Queue>),
    /// To another exchange.
    Exchange(Arc<Exchange>),
}

impl Target {
    fn address(&self) -> usize {
        match self {
            Self::Queue(queue) => Arc::as_ptr(queue) as usize,
            Self::Exchange(exchange) => Arc::as_ptr(exchange) as usize,
        }
    }

    /// Name of the queue or exchange.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Queue(queue) => &queue.name,
            Self::Exchange(exchange) => &exchange.name,
        }
    }

    /// What kind of thing it is.
    pub(in crate::broker) fn kind(&self) -> error::Kind {
        match self {
            Self::Queue(_) => error::Kind::Queue,
            Self::Exchange(_) => error::Kind::Exchange,
        }
    }

    /// It was deleted.
    pub(in crate::broker) fn is_deleted(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.is_deleted(),
            Self::Exchange(exchange) => exchange.is_deleted(),
        }
    }

    /// Exchanges that have, or had, bindings to it.
    pub(in crate::broker) fn inbound(&self) -> &Mutex<Vec<Arc<Exchange>>> {
        match self {
            Self::Queue(queue) => &queue.inbound,
            Self::Exchange(exchange) => &exchange.inbound,
        }
    }

    /// Whether it survives a restart.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.survives_restart(),
            Self::Exchange(exchange) => exchange.declaration.is_durable,
        }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

/// What an exchange was declared as.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// How it routes.
    pub kind: Kind,
    /// It survives a restart.
    pub is_durable: bool,
    /// It goes when its last binding has gone.
    pub is_auto_delete: bool,
    /// Clients may not publish to it.
    pub is_internal: bool,
    /// Its arguments.
    pub arguments: Table,
}

/// An exchange.
pub struct Exchange {
    /// Its name; empty for the default exchange.
    pub name: Arc<str>,
    /// What it was declared as.
    pub declaration: Declaration,
    /// Where it is.
    pub vhost: Weak<Vhost>,
    router: RwLock<Router<Target>>,
    generation: AtomicU64,
    is_deleted: AtomicBool,
    /// Position after its declaration in the log, zero without one.
    declared_at: AtomicU64,
    /// Position of its declaration in the log, zero without one.
    identity: AtomicU64,
    alternate: RwLock<Option<Arc<str>>>,
    /// Messages that are held back, in an exchange that does so.
    pub delayed: Option<Mutex<Holds<Message>>>,
    /// The last messages with their places in the log, in an exchange that keeps them.
    pub recent: Option<Mutex<RecentHistory<(Position, Message)>>>,
    /// Names of messages that it has seen, in an exchange that was asked to tell.
    pub dedup: Option<Mutex<Window>>,
    /// Exchanges that have, or had, bindings to it.
    pub(in crate::broker) inbound: Mutex<Vec<Arc<Exchange>>>,
    /// Name of the policy that applies.
    pub policy: Mutex<Option<Arc<str>>>,
    /// What layers above keep with it; [`Vhost::alter_exchange`](Vhost::alter_exchange) changes it.
    notes: RwLock<Arc<Table>>,
    /// Messages that were routed here and are not in their queues yet: see [`Passage`].
    passing: AtomicU64,
}

/// A message is on its way from an exchange to its queues, as long as this is there.
pub(in crate::broker) struct Passage(Arc<Exchange>);

impl Passage {
    /// To be had before the exchange is asked for its targets.
    pub(in crate::broker) fn new(exchange: &Arc<Exchange>) -> Self {
        exchange.passing.fetch_add(1, Ordering::AcqRel);
        Self(exchange.clone())
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.passing.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What became of a binding that was to be replaced in a moment when nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is replaced, or it was not there.
    Done,
    /// Something passes: it is as it was.
    Busy,
}

impl Exchange {
    /// An exchange without bindings.
    pub fn new(name: Arc<str>, declaration: Declaration, vhost: Weak<Vhost>) -> Result<Self, KindError> {
        let router = Router::new(&declaration.kind, &declaration.arguments)?;
        let text = |key: &str| -> Option<Arc<str>> { declaration.arguments.get(key)?.as_text().map(Arc::from) };
        let integer = |key: &str| declaration.arguments.get(key).and_then(|value| value.as_integer());
        let holds = matches!(declaration.kind, Kind::Delayed(_) | Kind::Schedule);
        let delayed = holds.then(|| Mutex::new(Holds::new()));
        let recent = matches!(declaration.kind, Kind::RecentHistory)
            .then(|| RecentHistory::new(&declaration.arguments).map(Mutex::new))
            .transpose()?;
        let wants_dedup =
            declaration.arguments.get("x-message-deduplication").and_then(|value| value.as_bool()).unwrap_or(false);
        let count = |key: &str| integer(key).and_then(|count| u64::try_from(count).ok());
        let dedup = wants_dedup.then(|| {
            Mutex::new(Window::new(&DedupArguments {
                cache_size: count("x-cache-size"),
                cache_ttl_ms: count("x-cache-ttl"),
                header: text("x-deduplication-header")
                    .map_or_else(|| DEDUP_HEADER_DEFAULT.to_owned(), |name| name.to_string()),
                scope: DedupScope::Queue,
            }))
        });
        Ok(Self {
            name,
            vhost,
            router: RwLock::new(router),
            generation: AtomicU64::new(1),
            is_deleted: AtomicBool::new(false),
            declared_at: AtomicU64::new(0),
            identity: AtomicU64::new(0),
            alternate: RwLock::new(text("alternate-exchange")),
            delayed,
            recent,
            dedup,
            inbound: Mutex::new(Vec::new()),
            policy: Mutex::new(None),
            notes: RwLock::default(),
            passing: AtomicU64::new(0),
            declaration,
        })
    }

    /// True for the exchange without a name, which routes to the queue that the key names.
    pub fn is_default(&self) -> bool {
        self.name.is_empty()
    }

    /// It holds messages back that ask for it by their headers.
    pub(in crate::broker) fn delays(&self) -> bool {
        matches!(self.declaration.kind, Kind::Delayed(_))
    }

    /// Moves on whenever a cached route through this exchange may have become wrong.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(in crate::broker) fn touch(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// It was deleted; who still holds it must look it up again.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    pub(in crate::broker) fn mark_deleted(&self) {
        // Whoever keeps a message here looks under these locks whether the exchange is still there:
        // none can be recorded once its deletion is.
        let mut delayed = self.delayed.as_ref().map(Mutex::lock);
        let _recent = self.recent.as_ref().map(Mutex::lock);
        let held = delayed.as_mut().map(|delayed| delayed.clear());
        self.is_deleted.store(true, Ordering::Release);
        self.touch();
        drop(delayed);
        drop(held);
    }

    /// Where the log has its declaration, which tells it from others that had its name;
    /// [`Position::NONE`] when no log has.
    pub fn identity(&self) -> Position {
        Position(self.identity.load(Ordering::Relaxed))
    }

    pub(in crate::broker) fn set_identity(&self, position: Position) {
        self.identity.store(position.0, Ordering::Relaxed);
    }

    /// What layers above keep with it: nothing that the broker reads.
    pub fn notes(&self) -> Arc<Table> {
        self.notes.read().clone()
    }

    pub(in crate::broker) fn set_notes(&self, notes: Table) {
        *self.notes.write() = Arc::new(notes);
    }

    /// Behind its declaration in the log: whoever is told that it exists waits for that.
    pub(in crate::broker) fn declared_at(&self) -> Position {
        Position(self.declared_at.load(Ordering::Relaxed))
    }

    pub(in crate::broker) fn set_declared_at(&self, position: Position) {
        self.declared_at.store(position.0, Ordering::Relaxed);
    }

    /// What an index is to know of the names that it remembers. A deleted one has none.
    pub(in crate::broker) fn look_seen(&self) -> Option<SeenLook> {
        self.dedup.as_ref().filter(|_| !self.is_deleted())?.lock().look()
    }

    /// An index knows that, or does not.
    pub fn looked_seen(&self, is_committed: bool) {
        if let Some(window) = &self.dedup {
            window.lock().looked(is_committed);
        }
    }

    /// Where messages go that no binding takes.
    pub fn alternate(&self) -> Option<Arc<str>> {
        self.alternate.read().clone()
    }

    pub(in crate::broker) fn set_alternate(&self, name: Option<Arc<str>>) {
        let declared =
            self.declaration.arguments.get("alternate-exchange").and_then(|value| value.as_text()).map(Arc::from);
        *self.alternate.write() = declared.or(name);
        self.touch();
    }

    /// Whether the route depends on exchange and key alone.
    pub fn routes_by_key_alone(&self) -> bool {
        self.delayed.is_none()
            && self.recent.is_none()
            && self.dedup.is_none()
            && self.router.read().routes_by_key_alone()
    }

    /// A message with several routing keys is routed by each of them; otherwise once, by its first.
    pub fn routes_every_key(&self) -> bool {
        self.router.read().routes_every_key()
    }

    /// Appends the targets of a message, and those of them that want it wrapped to `wrapped`.
    pub fn route(&self, routing: &Routing<'_>, out: &mut Vec<Target>, wrapped: &mut Vec<(Target, Label)>) {
        self.router.read().route_wrapped(routing, out, wrapped);
    }

    /// Adds a binding; false when it was there.
    pub(in crate::broker) fn bind(&self, target: Target, key: &[u8], arguments: &Table) -> Result<bool, BindError> {
        let is_new = self.router.write().bind(target, key, arguments)?;
        if is_new {
            self.touch();
        }
        Ok(is_new)
    }

    /// Replaces the arguments of a binding; false when there was none with the old ones, or they are the same.
    pub(in crate::broker) fn rebind(
        &self,
        target: &Target,
        key: &[u8],
        old: &Table,
        new: &Table,
    ) -> Result<bool, BindError> {
        let mut router = self.router.write();
        if !router.bind(target.clone(), key, new)? {
            return Ok(false);
        }
        if !router.unbind(target, key, old) {
            router.unbind(target, key, new);
            return Ok(false);
        }
        drop(router);
        self.touch();
        Ok(true)
    }

    /// As [`Self::rebind`], while no message is on its way from here to a queue and `is_quiet` says so, too. It is
    /// asked while nothing can be routed here, and may take queues' locks.
    pub(in crate::broker) fn rebind_quietly(
        &self,
        target: &Target,
        key: &[u8],
        (old, new): (&Table, &Table),
        is_quiet: impl FnOnce() -> bool,
    ) -> Result<(Replaced, bool), BindError> {
        let mut router = self.router.write();
        if self.passing.load(Ordering::Acquire) > 0 || !is_quiet() {
            return Ok((Replaced::Busy, false));
        }
        if !router.bind(target.clone(), key, new)? {
            return Ok((Replaced::Done, false));
        }
        if !router.unbind(target, key, old) {
            router.unbind(target, key, new);
            return Ok((Replaced::Done, false));
        }
        drop(router);
        self.touch();
        Ok((Replaced::Done, true))
    }

    /// Removes a binding; false when it was not there.
    pub(in crate::broker) fn unbind(&self, target: &Target, key: &[u8], arguments: &Table) -> bool {
        let was_there = self.router.write().unbind(target, key, arguments);
        if was_there {
            self.touch();
        }
        was_there
    }

    /// Number of bindings in which it is the source.
    pub fn bindings_count(&self) -> usize {
        self.router.read().len()
    }

    /// Where the first binding leads that is looked for.
    pub fn target_of(&self, is_it: impl Fn(&Binding<Target>) -> bool) -> Option<Target> {
        self.router.read().bindings().find(|binding| is_it(binding)).map(|binding| binding.target.clone())
    }

    /// The bindings in which it is the source.
    pub fn bindings(&self) -> Vec<Binding<Target>> {
        self.router.read().bindings().cloned().collect()
    }

    /// Removes all bindings to a target; returns whether there were any.
    pub(in crate::broker) fn unbind_target(&self, target: &Target) -> bool {
        let had_any = !self.router.write().unbind_target(target).is_empty();
        if had_any {
            self.touch();
        }
        had_any
    }
}
