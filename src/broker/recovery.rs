//! Durable state out of records: what a broker does once, before it serves anybody, and a standby
//! all the time.
//!
//! Replay repeats and decides nothing: limits, times to live, cycles and abandoned exchanges were
//! looked at when the records were written, and what came of that is in the records. Afterwards the
//! queues have their appointments, so what became due meanwhile happens at the next tick.
//!
//! What comes back: everything that administration defined, durable exchanges with the messages they
//! hold back and those they keep, their bindings to durable destinations, durable queues under their
//! identity with their persistent messages, delivery counts and deadlines, and the names that
//! deduplication remembers. Messages in queues and those held back stay in a cold index that has them.
//! What was delivered and not settled is ready again, in its place, and says that it was delivered; so
//! do, after a crash, some that were about to be.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Broker,
    exchange::{Exchange, Kind, Target, holds::HoldEntry},
    message::Message,
    queue::{
        Queue, QueueDeclaration,
        arguments::{self, Declaration},
        cold::ColdEntry,
        properties::Properties,
        ready::Entry,
    },
    record::{Definition, DefinitionKey, HoldId, HoldKey, Keeper, Position, QueueId, Record},
    time::Time,
    topology::DeclareExchange,
    turn::Turn,
};

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records, those inside of transactions counted one by one.
    pub records: u64,
    /// Queues that are there now because of them.
    pub queues: u64,
    /// Messages in queues that are there now because of them.
    pub messages: u64,
}

impl Replayed {
    /// There was nothing: the broker begins, and needs its first vhost and user.
    pub fn is_new(&self) -> bool {
        self.records == 0
    }
}

/// Why records could not be repeated. The log was written by a broker that knew better, or it is
/// not this broker's: nothing may be served from it.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A record names a queue that no record declared.
    #[error("the log names queue {0} before it declares it")]
    UnknownQueue(u64),
    /// Two queues have one identity.
    #[error("the log declares queue {0} twice")]
    DeclaredTwice(u64),
    /// A declaration is refused that was once accepted.
    #[error("the log declares {what} '{name}' in vhost '{vhost}', which is refused now: {reason}")]
    Refused {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its vhost.
        vhost: String,
        /// Why it is refused.
        reason: String,
    },
}

/// Queues by their identity; `None` for one that is gone, whose late records mean nothing.
type Queues = HashMap<QueueId, Option<Arc<Queue>>, foldhash::fast::RandomState>;

impl Broker {
    /// Repeats `records`, oldest first.
    ///
    /// # Panics
    /// When a journal is attached: it would be told everything a second time.
    pub fn replay(
        &self,
        records: impl Iterator<Item = (Position, Record)>,
        now: Time,
    ) -> Result<Replayed, ReplayError> {
        let mut replay = Replay::new(self, now);
        for (at, record) in records {
            replay.apply(record, at)?;
        }
        Ok(replay.finish(now))
    }
}

/// Records being repeated in a broker that nobody uses yet.
pub struct Replay<'a> {
    turn: Turn<'a>,
    queues: Queues,
    count: u64,
    /// Vhosts whose policies have changed and are not yet in force.
    changed: BTreeSet<String>,
    /// Definitions recorded before this are repeated already.
    defined_before: Position,
    /// Where the record is that is repeated now.
    place: Position,
}

impl<'a> Replay<'a> {
    /// Nothing is repeated yet.
    ///
    /// # Panics
    /// When a journal is attached: it would be told everything a second time.
    pub fn new(broker: &'a Broker, now: Time) -> Self {
        assert!(!broker.is_logged(), "records are replayed before a journal is attached");
        let turn = Turn::replay(broker, now);
        Self {
            turn,
            queues: Queues::default(),
            count: 0,
            changed: BTreeSet::new(),
            defined_before: Position::NONE,
            place: Position::NONE,
        }
    }

    /// Begins with what [`Broker::snapshot`] told at `at`.
    pub fn begin(
        &mut self,
        at: Position,
        records: impl Iterator<Item = (Position, Record)>,
    ) -> Result<(), ReplayError> {
        for (place, record) in records {
            self.apply(record, place)?;
        }
        self.defined_before = at;
        Ok(())
    }

    /// Identities before these are taken, though nothing may have them any more.
    pub fn reserve_ids(&self, queue: QueueId, hold: HoldId) {
        self.turn.broker.reserve_queue_id(QueueId(queue.0.saturating_sub(1)));
        self.turn.broker.reserve_hold_id(HoldId(hold.0.saturating_sub(1)));
    }

    /// All records have been repeated. It is `now`, which may be later than the records say.
    pub fn finish(mut self, now: Time) -> Replayed {
        self.turn.now = now;
        self.apply_policies();
        let mut replayed = Replayed { records: self.count, ..Replayed::default() };
        for queue in self.queues.values().flatten() {
            queue.lock().mark_redelivered();
            queue.touch(&self.turn);
            replayed.queues += 1;
            replayed.messages += queue.status().ready;
        }
        let exchanges = self.turn.broker.vhosts().into_iter().flat_map(|vhost| vhost.exchanges());
        for exchange in exchanges {
            if let Some(delayed) = &exchange.delayed {
                exchange.appoint(&mut delayed.lock(), &self.turn);
            }
        }
        replayed
    }

    /// Repeats a record, which is at `place`.
    pub fn apply(&mut self, record: Record, place: Position) -> Result<(), ReplayError> {
        self.count += 1;
        self.place = place;
        if !matches!(record, Record::Defined(Definition::Policy(..)) | Record::Removed(DefinitionKey::Policy { .. })) {
            self.apply_policies();
        }
        match record {
            Record::Body { .. } | Record::BodyClosed { .. } => {}
            Record::Enqueue { queue, seq, message, body, deadline, at } => {
                if let Some(queue) = self.queue(queue)? {
                    restore(queue, seq, message, deadline, at, body.unwrap_or(place));
                }
            }
            Record::Settle { queue, seqs } => {
                if let Some(queue) = self.queue(queue)? {
                    let mut machine = queue.lock();
                    let find = |level, seq| self.find(queue, level, seq);
                    seqs.iter().for_each(|&seq| drop(machine.restore_gone(seq, &find)));
                }
            }
            Record::Requeue { queue, seqs } => {
                if let Some(queue) = self.queue(queue)? {
                    let mut machine = queue.lock();
                    let find = |level, seq| self.find(queue, level, seq);
                    seqs.iter().for_each(|&(seq, count)| machine.restore_requeued(seq, count, &find));
                }
            }
            Record::Leased { queue, leased } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_leased(leased, &|level, seq| self.find(queue, level, seq));
                }
            }
            Record::LeaseChanged { queue, seqs, until } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_lease_changed(&seqs, until);
                }
            }
            Record::Withheld { queue, seqs } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_withheld(&seqs, &|level, seq| self.find(queue, level, seq));
                }
            }
            Record::Unheld { queue, seqs } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_unheld(&seqs);
                }
            }
            Record::Move { from, to, message, at } => {
                if let Some((queue, seq)) = from
                    && let Some(queue) = self.queue(queue)?
                {
                    queue.lock().restore_gone(seq, &|level, seq| self.find(queue, level, seq));
                }
                for (queue, seq, deadline) in to {
                    if let Some(queue) = self.queue(queue)?
                        && let Some(message) = &message
                    {
                        restore(queue, seq, message.clone(), deadline, at, place);
                    }
                }
            }
            Record::Handed { queue, up_to } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_handed(up_to);
                }
            }
            Record::Seen { keeper: Keeper::Queue(queue), seen } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_seen(seen);
                }
            }
            Record::Seen { keeper: Keeper::Exchange { vhost, name }, seen } => {
                if let Some(exchange) = self.exchange(&vhost, &name)
                    && let Some(window) = &exchange.dedup
                    // An earlier one may have had its name.
                    && exchange.identity() < place
                {
                    window.lock().restore(seen);
                }
            }
            Record::Held { vhost, exchange, hold, due, message, body } => {
                let place = body.unwrap_or(place);
                self.turn.broker.reserve_hold_id(hold);
                if let Some(exchange) = self.exchange(&vhost, &exchange)
                    && let Some(delayed) = &exchange.delayed
                    // An earlier one may have had its name.
                    && exchange.identity() < place
                {
                    let entry = HoldEntry { key: HoldKey { due, hold }, place, body_bytes: message.body_bytes() };
                    delayed.lock().restore(entry, message);
                }
            }
            Record::Released { vhost, exchange, holds } => {
                if let Some(delayed) = self.exchange(&vhost, &exchange).as_ref().and_then(|of| of.delayed.as_ref()) {
                    let mut delayed = delayed.lock();
                    holds.into_iter().for_each(|key| delayed.restore_released(key));
                }
            }
            Record::Kept { vhost, exchange, message } => {
                if let Some(recent) = self.exchange(&vhost, &exchange).as_ref().and_then(|of| of.recent.as_ref()) {
                    let mut recent = recent.lock();
                    // What a snapshot has already is not kept twice.
                    if recent.replay().last().is_none_or(|(last, _)| *last < place) {
                        recent.store((place, message));
                    }
                }
            }
            Record::Defined(_) | Record::Removed(_) if place < self.defined_before => {}
            Record::Defined(definition) => self.define(definition)?,
            Record::Removed(key) => self.remove(key),
            Record::Purged { queue, below, kept } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_purged(below, &kept, &|level, seq| self.find(queue, level, seq));
                }
            }
            Record::StreamTrimmed { queue, first } => {
                if let Some(queue) = self.queue(queue)? {
                    queue.lock().restore_trimmed(first);
                }
            }
            Record::Transaction(records) => {
                self.count -= 1;
                for record in records {
                    self.apply(record, place)?;
                }
            }
            // The snapshot has it, or what became of it.
            topology if place < self.defined_before => drop(topology),
            topology => self.apply_topology(topology)?,
        }
        Ok(())
    }

    fn define(&mut self, definition: Definition) -> Result<(), ReplayError> {
        let broker = self.turn.broker;
        let refuse = |what, name: &str, vhost: &str, error: &dyn std::fmt::Display| {
            Err(refused(what, name, vhost, error.to_string()))
        };
        match definition {
            Definition::Vhost { name, metadata } => {
                broker.add_vhost(&name, metadata.clone());
                broker.change_vhost(&name, |changed| *changed = metadata);
            }
            Definition::User(user) => {
                let name = user.name.clone();
                if let Err(error) = broker.access.put(Arc::unwrap_or_clone(user)) {
                    return refuse("user", &name, "", &error);
                }
            }
            Definition::Permissions(of) => {
                if let Err(error) = broker.access.set_permissions(&of.user, &of.vhost, of.permissions) {
                    return refuse("permissions of user", &of.user, &of.vhost, &error);
                }
            }
            Definition::TopicPermissions(of) => {
                let set = broker.access.set_topic_permissions(&of.user, &of.vhost, &of.exchange, of.permissions);
                if let Err(error) = set {
                    return refuse("topic permissions of user", &of.user, &of.vhost, &error);
                }
            }
            Definition::Policy(layer, policy) => {
                self.changed.insert(policy.vhost.clone());
                broker.policies.set(layer, Arc::unwrap_or_clone(policy));
            }
            Definition::VhostLimits { vhost, limits } => broker.vhost_limits.set(&vhost, limits),
            Definition::Parameter(parameter) => broker.parameters.restore(parameter),
            Definition::GlobalParameter { name, value } => {
                broker.parameters.set_global(&name, Arc::unwrap_or_clone(value));
            }
        }
        Ok(())
    }

    /// What is not there any more is as it should be.
    fn remove(&mut self, key: DefinitionKey) {
        let broker = self.turn.broker;
        match key {
            DefinitionKey::Vhost(name) => {
                broker.delete_vhost(&name, &mut self.turn);
                for queue in self.queues.values_mut() {
                    queue.take_if(|queue| queue.is_deleted());
                }
            }
            DefinitionKey::User(name) => _ = broker.access.delete(&name),
            DefinitionKey::Permissions { user, vhost } => _ = broker.access.clear_permissions(&user, &vhost),
            DefinitionKey::TopicPermissions { user, vhost, exchange } => {
                _ = broker.access.clear_topic_permissions(&user, &vhost, exchange.as_deref());
            }
            DefinitionKey::Policy { layer, vhost, name } => {
                _ = broker.policies.clear(layer, &vhost, &name);
                self.changed.insert(vhost);
            }
            DefinitionKey::VhostLimits { vhost } => _ = broker.vhost_limits.clear(&vhost),
            DefinitionKey::Parameter { vhost, component, name } => {
                _ = broker.parameters.clear(&vhost, &component, &name);
            }
            DefinitionKey::GlobalParameter { name } => _ = broker.parameters.clear_global(&name),
        }
    }

    /// Puts changed policies in force, once for all that changed in a row.
    fn apply_policies(&mut self) {
        for name in std::mem::take(&mut self.changed) {
            if let Some(vhost) = self.turn.broker.vhost(&name) {
                self.turn.broker.apply_policies(&vhost, &mut self.turn);
            }
        }
    }

    fn exchange(&self, vhost: &str, name: &str) -> Option<Arc<Exchange>> {
        self.turn.broker.vhost(vhost)?.exchange(name)
    }

    fn apply_topology(&mut self, record: Record) -> Result<(), ReplayError> {
        let broker = self.turn.broker;
        match record {
            Record::QueueDeclared { queue: id, vhost, name, auto_delete, arguments, dead_queue } => {
                let queue = self.declare_queue(id, &vhost, &name, (auto_delete, dead_queue), arguments)?;
                if self.queues.insert(id, queue).is_some() {
                    return Err(ReplayError::DeclaredTwice(id.0));
                }
                broker.reserve_queue_id(id);
            }
            Record::QueueAltered { queue: id, properties } => {
                if let Some(queue) = self.queue(id)?.cloned()
                    && let Some(vhost) = queue.vhost.upgrade()
                {
                    let properties = Properties::from_table(properties);
                    vhost.alter_queue(&queue, |of| *of = properties, &mut self.turn);
                }
            }
            Record::QueueDeleted { queue: id } => {
                self.queue(id)?;
                if let Some(Some(queue)) = self.queues.insert(id, None)
                    && let Some(vhost) = queue.vhost.upgrade()
                {
                    vhost.remove_queue(&queue, &mut self.turn);
                }
            }
            Record::ExchangeDeclared { vhost, name, kind, auto_delete, internal, arguments } => {
                let Some(vhost) = broker.vhost(&vhost) else { return Ok(()) };
                let wanted =
                    DeclareExchange { name: &name, kind: &kind, durable: true, auto_delete, internal, arguments };
                let added = Kind::parse(&kind, &wanted.arguments)
                    .map_err(|error| error.to_string())
                    .and_then(|kind| vhost.add_exchange(&wanted, kind, &mut self.turn).map_err(|e| e.to_string()));
                let exchange = added.map_err(|reason| refused("exchange", &name, &vhost.name, reason))?;
                exchange.identify(self.place, &self.turn);
                if let (Some(window), Some(pages)) = (&exchange.dedup, broker.cold_pages()) {
                    let mut window = window.lock();
                    pages.seen_by_exchange(self.place).into_iter().for_each(|seen| window.restore_told(seen));
                }
            }
            Record::ExchangeAltered { vhost, name, notes } => {
                if let Some(exchange) = self.exchange(&vhost, &name) {
                    exchange.set_notes(notes);
                }
            }
            Record::ExchangeDeleted { vhost, name } => {
                if let Some(vhost) = broker.vhost(&vhost)
                    && let Some(exchange) = vhost.exchange(&name)
                {
                    vhost.remove_exchange(&exchange, &mut self.turn);
                }
            }
            Record::Binding { is_bound, vhost, source, destination, to_queue, key, arguments } => {
                let Some(vhost) = broker.vhost(&vhost) else { return Ok(()) };
                let target = if to_queue {
                    vhost.queue(&destination).map(Target::Queue)
                } else {
                    vhost.exchange(&destination).map(Target::Exchange)
                };
                // One end may have been deleted while the other was being bound.
                let (Some(target), Some(_)) = (target, vhost.exchange(&source)) else { return Ok(()) };
                let done = if is_bound {
                    vhost.bind(&source, &target, &key, &arguments, &mut self.turn)
                } else {
                    vhost.unbind(&source, &target, &key, &arguments, &mut self.turn)
                };
                done.map_err(|error| refused("a binding of exchange", &source, &vhost.name, error.to_string()))?;
            }
            _ => unreachable!("`apply` handles everything that is no topology"),
        }
        Ok(())
    }

    /// What the index has of a message.
    fn find(&self, queue: &Queue, level: u8, seq: u64) -> Option<ColdEntry> {
        self.turn.broker.cold_pages()?.find(queue.id, level, seq)
    }

    /// The queue of that identity, unless it is gone.
    fn queue(&self, id: QueueId) -> Result<Option<&Arc<Queue>>, ReplayError> {
        match self.queues.get(&id) {
            Some(queue) => Ok(queue.as_ref()),
            // It was gone when the snapshot was taken.
            None if self.place < self.defined_before => Ok(None),
            None => Err(ReplayError::UnknownQueue(id.0)),
        }
    }

    /// `None` when its vhost was removed while it was being declared.
    fn declare_queue(
        &mut self,
        id: QueueId,
        vhost: &str,
        name: &Arc<str>,
        (auto_delete, dead_queue): (bool, Option<Arc<str>>),
        arguments: super::value::Table,
    ) -> Result<Option<Arc<Queue>>, ReplayError> {
        let Some(vhost) = self.turn.broker.vhost(vhost) else { return Ok(None) };
        let declaration = Declaration {
            name,
            vhost: &vhost.name,
            durable: true,
            exclusive: false,
            auto_delete,
            server_named: false,
            arguments: &arguments,
            // The arguments in the log are those in force.
            default_queue_type: None,
        };
        let parsed =
            arguments::parse(&declaration).map_err(|error| refused("queue", name, &vhost.name, error.to_string()))?;
        let declaration = QueueDeclaration {
            is_durable: true,
            is_auto_delete: auto_delete,
            owner: None,
            arguments,
            parsed,
            dead_queue,
        };
        let queue = vhost.add_queue(id, name.clone(), declaration, Properties::default(), &mut self.turn);
        if let Some(pages) = self.turn.broker.cold_pages() {
            let seen = pages.seen_by_queue(id);
            if !seen.is_empty() {
                queue.lock().restore_told(seen);
            }
        }
        if let Some(pages) = self.turn.broker.cold_pages()
            && let Some(header) = pages.header(id)
        {
            let mut machine = queue.lock();
            match &mut machine.stream {
                Some(stream) => stream.restore_index(header, pages.segments(id)),
                None => {
                    machine.restore_header(header);
                    machine.restore_notes(pages.notes(id), &|level, seq| pages.find(id, level, seq));
                }
            }
        }
        Ok(Some(queue))
    }
}

fn restore(queue: &Queue, seq: u64, message: Message, deadline: Time, at: Time, place: Position) {
    let entry = Entry { seq, message, deadline, delivery_count: 0, redelivered: false, place };
    queue.lock().restore(entry, at);
}

fn refused(what: &'static str, name: &str, vhost: &str, reason: String) -> ReplayError {
    ReplayError::Refused { what, name: name.to_owned(), vhost: vhost.to_owned(), reason }
}

#[cfg(test)]
mod tests;
