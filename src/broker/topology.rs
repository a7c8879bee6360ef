//! Declaring, deleting and binding exchanges and queues, with the rules that make a redeclaration
//! harmless or refuse it.
//!
//! Every change holds its vhost's topology lock; queue locks may be taken under it.

use std::sync::{Arc, atomic::Ordering};

use base64::Engine as _;
use parking_lot::{MutexGuard, RwLockReadGuard};

use super::{
    Broker,
    connections::ConnectionId,
    error::{Error, Kind},
    exchange::{self, Exchange, Replaced, Target},
    queue::{
        Queue, QueueDeclaration,
        arguments::{self, QueueType, Stored},
        properties::Properties,
        settings,
    },
    record::{QueueId, Record},
    turn::Turn,
    value::Table,
    vhost::Vhost,
};

/// What a client asks for when it declares a queue.
#[derive(Clone, Debug, Default)]
pub struct DeclareQueue<'a> {
    /// Its name; empty asks for a name.
    pub name: &'a str,
    /// It survives a restart.
    pub durable: bool,
    /// Only this connection may use it.
    pub exclusive: bool,
    /// It goes when its last consumer has gone.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Table,
    /// See [`QueueDeclaration::dead_queue`]. What an existing queue has stays.
    pub dead_queue: Option<&'a str>,
    /// What a new queue has beside this. What an existing queue has stays.
    pub properties: Properties,
}

/// What a client asks for when it declares an exchange.
#[derive(Clone, Debug, Default)]
pub struct DeclareExchange<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name of its type.
    pub kind: &'a str,
    /// It survives a restart.
    pub durable: bool,
    /// It goes when its last binding has gone.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// Its arguments.
    pub arguments: Table,
}

/// A binding of a vhost.
#[derive(Clone)]
pub struct BindingStatus {
    /// The exchange that messages come from.
    pub source: Arc<str>,
    /// Where they go.
    pub destination: Target,
    /// Routing key.
    pub key: Box<[u8]>,
    /// Arguments.
    pub arguments: Table,
}

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

impl Vhost {
    /// The queue of that name, if `owner` may use it.
    pub fn find_queue(&self, name: &str, owner: Option<ConnectionId>) -> Result<Arc<Queue>, Error> {
        let queue = self.queue(name).ok_or_else(|| self.not_found(Kind::Queue, name))?;
        match queue.declaration.owner {
            Some(other) if Some(other) != owner => Err(self.locked(name)),
            _ => Ok(queue),
        }
    }

    /// The exchange of that name.
    pub fn find_exchange(&self, name: &str) -> Result<Arc<Exchange>, Error> {
        self.exchange(name).ok_or_else(|| self.not_found(Kind::Exchange, name))
    }

    /// Takes the topology lock. Snapshots of all definitions are taken between two changes.
    fn change_topology<'a>(&'a self, turn: &Turn<'a>) -> (RwLockReadGuard<'a, ()>, MutexGuard<'a, ()>) {
        // A deleted vhost removes its queues while it holds the gate itself.
        (turn.broker.snapshot_gate.read_recursive(), self.topology.lock())
    }

    fn not_found(&self, kind: Kind, name: &str) -> Error {
        Error::NotFound { kind, name: name.to_owned(), vhost: self.name.clone() }
    }

    fn locked(&self, name: &str) -> Error {
        Error::Locked { name: name.to_owned(), vhost: self.name.clone() }
    }

    /// Declares a queue, or finds that it is as it should be. `owner` is the connection that asks.
    pub fn declare_queue(
        self: &Arc<Self>,
        wanted: &DeclareQueue<'_>,
        owner: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Queue>, Error> {
        let default_queue_type = self.metadata().default_queue_type.as_deref().and_then(QueueType::parse);
        let server_named = wanted.name.is_empty();
        let declaration = arguments::Declaration {
            name: wanted.name,
            vhost: &self.name,
            durable: wanted.durable,
            exclusive: wanted.exclusive,
            auto_delete: wanted.auto_delete,
            server_named,
            arguments: &wanted.arguments,
            default_queue_type: default_queue_type.or(turn.broker.default_queue_type()),
        };
        if !server_named && let Some(existing) = self.queue(wanted.name) {
            return self.redeclare(&existing, &declaration, owner, turn);
        }
        let parsed = arguments::parse(&declaration)?;
        let _topology = self.change_topology(turn);
        if !server_named && let Some(existing) = self.queue(wanted.name) {
            return self.redeclare(&existing, &declaration, owner, turn);
        }
        self.check_queue_limits(wanted.name, turn)?;
        let name: Arc<str> = if server_named {
            let prefix = wanted.arguments.get("x-name-prefix").and_then(|value| value.as_text());
            Arc::from(random_name(prefix.unwrap_or("amq.gen-")))
        } else {
            Arc::from(wanted.name)
        };
        let declaration = QueueDeclaration {
            is_durable: declaration.is_durable(),
            is_auto_delete: wanted.auto_delete,
            owner: owner.filter(|_| wanted.exclusive),
            arguments: declaration.effective_arguments().into_owned(),
            parsed,
            dead_queue: wanted.dead_queue.map(Arc::from),
        };
        Ok(self.add_queue(turn.broker.next_queue_id(), name, declaration, wanted.properties.clone(), turn))
    }

    /// Puts a queue in place that does not exist. The caller holds the topology lock.
    pub(in crate::broker) fn add_queue(
        self: &Arc<Self>,
        id: QueueId,
        name: Arc<str>,
        declaration: QueueDeclaration,
        properties: Properties,
        turn: &mut Turn<'_>,
    ) -> Arc<Queue> {
        let effective = turn.broker.effective_queue_policy(self, &name, declaration.parsed.queue_type);
        let delivery_limit = turn.broker.options.delivery_limit;
        let limits = settings::limits(&declaration.parsed, &effective.policy, &properties, delivery_limit);
        let dead_letter = settings::dead_letter(&declaration, &effective.policy, &properties);
        let queue = Arc::new(Queue::new(id, name.clone(), declaration, self, limits, turn.now));
        *queue.policies.lock() = effective.names;
        queue.set_dead_letter(dead_letter);
        queue.set_properties(properties);
        if queue.survives_restart() && turn.broker.cold_pages().is_some() {
            queue.lock().keep_cold();
        }
        // Before anybody can find it: the log knows a queue before its first message.
        if queue.survives_restart() {
            turn.record(Record::QueueDeclared {
                queue: id,
                vhost: self.name.clone(),
                name: name.clone(),
                auto_delete: queue.declaration.is_auto_delete,
                arguments: queue.declaration.arguments.clone(),
                dead_queue: queue.declaration.dead_queue.clone(),
            });
            if !queue.properties().is_empty() {
                self.record_properties(&queue, turn);
            }
            queue.set_declared_at(turn.gate().unwrap_or_default());
        }
        self.queues.insert(name, queue.clone());
        self.tell_watchers(&queue);
        turn.broker.queues_count().fetch_add(1, Ordering::Relaxed);
        queue.touch(turn);
        queue
    }

    /// Changes what is known of a queue beside its declaration, at once and durably. Nobody else changes it
    /// while `change` looks at it.
    pub fn alter_queue<T>(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        change: impl FnOnce(&mut Properties) -> T,
        turn: &mut Turn<'_>,
    ) -> T {
        let _topology = self.change_topology(turn);
        let before = queue.properties();
        let mut properties = Properties::clone(&before);
        let answer = change(&mut properties);
        if properties == *before || queue.is_deleted() {
            turn.wait_for(queue.declared_at());
            return answer;
        }
        queue.set_properties(properties);
        if queue.survives_restart() {
            self.record_properties(queue, turn);
            queue.set_declared_at(turn.gate().unwrap_or_default());
        }
        turn.broker.apply_queue_policy(self, queue, turn);
        answer
    }

    fn record_properties(&self, queue: &Queue, turn: &mut Turn<'_>) {
        turn.record(Record::QueueAltered { queue: queue.id, properties: queue.properties().to_table() });
    }

    fn redeclare(
        &self,
        existing: &Arc<Queue>,
        declaration: &arguments::Declaration<'_>,
        owner: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Queue>, Error> {
        let has = existing.declaration.owner;
        if has.is_some() && has != owner {
            return Err(self.locked(&existing.name));
        }
        let stored = Stored {
            durable: existing.is_durable,
            auto_delete: existing.declaration.is_auto_delete,
            queue_type: existing.declaration.parsed.queue_type,
            arguments: &existing.declaration.arguments,
        };
        if let Some(difference) = arguments::inequivalence(&stored, declaration) {
            return Err(difference.into());
        }
        if has.is_some() != declaration.exclusive {
            return Err(self.locked(&existing.name));
        }
        existing.touch(turn);
        turn.wait_for(existing.declared_at());
        Ok(existing.clone())
    }

    fn check_queue_limits(&self, name: &str, turn: &Turn<'_>) -> Result<(), Error> {
        if name.starts_with("amq.") {
            return Err(Error::Reserved { kind: Kind::Queue, name: name.to_owned() });
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::Argument("a queue name is at most 255 bytes long".to_owned()));
        }
        if let Some(limit) = turn.broker.vhost_limits.get(&self.name).queues()
            && self.queues.len() as u64 >= limit
        {
            return Err(Error::LimitReached(format!(
                "cannot declare queue '{name}': queue limit in vhost '{}' ({limit}) is reached",
                self.name
            )));
        }
        let limit = turn.broker.options.queues_count_max;
        if turn.broker.queues_count().load(Ordering::Relaxed) >= limit {
            return Err(Error::LimitReached(format!(
                "cannot declare queue '{name}': queue limit in node ({limit}) is reached"
            )));
        }
        Ok(())
    }

    /// Deletes a queue; returns the number of ready messages that went with it.
    pub fn delete_queue(
        self: &Arc<Self>,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        owner: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) -> Result<u64, Error> {
        let queue = match self.find_queue(name, owner) {
            Ok(queue) => queue,
            Err(Error::NotFound { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        let status = queue.status();
        match queue.declaration.parsed.queue_type {
            QueueType::Quorum if if_unused || if_empty => {
                let flag = if if_unused { "if-unused" } else { "if-empty" };
                return Err(Error::NotImplemented(format!(
                    "cannot delete queue '{name}' in vhost '{}'. queue.delete operations with {flag} flag set are not supported by quorum queues",
                    self.name
                )));
            }
            // What a stream keeps is not counted as waiting in it.
            QueueType::Stream => {}
            _ if if_empty && status.ready > 0 => {
                return Err(Error::NotEmpty { name: name.to_owned(), vhost: self.name.clone() });
            }
            _ => {}
        }
        if if_unused && status.consumers > 0 {
            return Err(Error::InUse { kind: Kind::Queue, name: name.to_owned(), vhost: self.name.clone() });
        }
        let ready = self.remove_queue(&queue, turn);
        Ok(if queue.is_stream() { 0 } else { ready })
    }

    /// Deletes exactly this queue; returns the number of ready messages that went with it.
    pub fn remove_queue(self: &Arc<Self>, queue: &Arc<Queue>, turn: &mut Turn<'_>) -> u64 {
        let _topology = self.change_topology(turn);
        if self.queues.remove_if(&queue.name, |_, current| Arc::ptr_eq(current, queue)).is_none() {
            return 0;
        }
        turn.broker.queues_count().fetch_sub(1, Ordering::Relaxed);
        let sources = unbind_from_all(&Target::Queue(queue.clone()));
        if queue.survives_restart() {
            turn.record(Record::QueueDeleted { queue: queue.id });
            let priority_max = queue.declaration.parsed.max_priority.unwrap_or(0);
            turn.broker.gone_queues.lock().push((queue.id, priority_max));
        }
        let ready = queue.close(turn);
        for source in sources {
            self.delete_if_abandoned(&source, turn);
        }
        ready
    }

    /// Declares an exchange, or finds that it is as it should be.
    pub fn declare_exchange(
        self: &Arc<Self>,
        wanted: &DeclareExchange<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Exchange>, Error> {
        if wanted.name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        let kind = exchange::Kind::parse(wanted.kind, &wanted.arguments)?;
        if kind == exchange::Kind::Schedule {
            return Err(exchange::KindError::Unknown(wanted.kind.to_owned()).into());
        }
        let _topology = self.change_topology(turn);
        if let Some(existing) = self.exchange(wanted.name) {
            turn.wait_for(existing.declared_at());
            return self.redeclare_exchange(existing, wanted, &kind);
        }
        if wanted.name.starts_with("amq.") {
            return Err(Error::Reserved { kind: Kind::Exchange, name: wanted.name.to_owned() });
        }
        if self.exchanges.len() >= turn.broker.options.exchanges_count_max {
            let limit = turn.broker.options.exchanges_count_max;
            return Err(Error::LimitReached(format!(
                "cannot declare exchange '{}' in vhost '{}': exchange limit of {limit} is reached",
                wanted.name, self.name
            )));
        }
        if let Some(value) = wanted.arguments.get("alternate-exchange")
            && value.as_text().is_none()
        {
            return Err(Error::Argument(format!(
                "invalid type '{}' for arg 'alternate-exchange' in exchange '{}' in vhost '{}'",
                value.kind_name(),
                wanted.name,
                self.name
            )));
        }
        self.add_exchange(wanted, kind, turn)
    }

    /// The exchange of that name, which is made if there is none: one that clients cannot declare.
    pub(in crate::broker) fn ensure_exchange(
        self: &Arc<Self>,
        wanted: &DeclareExchange<'_>,
        kind: exchange::Kind,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Exchange>, Error> {
        let _topology = self.change_topology(turn);
        match self.exchange(wanted.name) {
            Some(existing) => {
                turn.wait_for(existing.declared_at());
                Ok(existing)
            }
            None => self.add_exchange(wanted, kind, turn),
        }
    }

    /// Puts an exchange in place that does not exist. The caller holds the topology lock.
    pub(in crate::broker) fn add_exchange(
        self: &Arc<Self>,
        wanted: &DeclareExchange<'_>,
        kind: exchange::Kind,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Exchange>, Error> {
        let declaration = exchange::Declaration {
            kind,
            is_durable: wanted.durable,
            is_auto_delete: wanted.auto_delete,
            is_internal: wanted.internal,
            arguments: wanted.arguments.clone(),
        };
        let exchange = Arc::new(Exchange::new(wanted.name.into(), declaration, Arc::downgrade(self))?);
        turn.broker.apply_exchange_policy(self, &exchange);
        // Before anybody can find it, as with queues.
        if wanted.durable {
            let identity = turn.record_now(&Record::ExchangeDeclared {
                vhost: self.name.clone(),
                name: exchange.name.clone(),
                kind: wanted.kind.to_owned(),
                auto_delete: wanted.auto_delete,
                internal: wanted.internal,
                arguments: wanted.arguments.clone(),
            });
            exchange.set_declared_at(turn.gate().unwrap_or_default());
            exchange.identify(identity, turn);
        }
        self.exchanges.insert(exchange.name.clone(), exchange.clone());
        Ok(exchange)
    }

    /// Changes what layers above keep with a durable exchange, and records it.
    pub fn alter_exchange<T>(
        &self,
        exchange: &Arc<Exchange>,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Table) -> T,
    ) -> T {
        let _topology = self.change_topology(turn);
        let mut notes = Table::clone(&exchange.notes());
        let changed = change(&mut notes);
        if notes != *exchange.notes() {
            if exchange.declaration.is_durable && !exchange.is_deleted() {
                let (vhost, name) = (self.name.clone(), exchange.name.clone());
                turn.record(Record::ExchangeAltered { vhost, name, notes: notes.clone() });
            }
            exchange.set_notes(notes);
        }
        changed
    }

    fn redeclare_exchange(
        &self,
        existing: Arc<Exchange>,
        wanted: &DeclareExchange<'_>,
        kind: &exchange::Kind,
    ) -> Result<Arc<Exchange>, Error> {
        let has = &existing.declaration;
        let differs = |argument: &str, received: &dyn std::fmt::Display, current: &dyn std::fmt::Display| {
            Err(Error::Inequivalent(format!(
                "inequivalent arg '{argument}' for exchange '{}' in vhost '{}': received '{received}' but current is '{current}'",
                existing.name, self.name
            )))
        };
        if kind.name() != has.kind.name() {
            return differs("type", &kind.name(), &has.kind.name());
        }
        for (argument, received, current) in [
            ("durable", wanted.durable, has.is_durable),
            ("auto_delete", wanted.auto_delete, has.is_auto_delete),
            ("internal", wanted.internal, has.is_internal),
        ] {
            if received != current {
                return differs(argument, &received, &current);
            }
        }
        for name in ["alternate-exchange", "x-delayed-type"] {
            if let Some(text) = arguments::difference(has.arguments.get(name), wanted.arguments.get(name)) {
                return Err(Error::Inequivalent(format!(
                    "inequivalent arg '{name}' for exchange '{}' in vhost '{}': {text}",
                    existing.name, self.name
                )));
            }
        }
        Ok(existing)
    }

    /// Deletes an exchange and its bindings. Deleting one that does not exist is fine.
    pub fn delete_exchange(&self, name: &str, if_unused: bool, turn: &mut Turn<'_>) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        if name.starts_with("amq.") && self.exchange(name).is_some() {
            return Err(Error::SystemExchange { name: name.to_owned(), vhost: self.name.clone() });
        }
        let _topology = self.change_topology(turn);
        let Some(exchange) = self.exchange(name) else { return Ok(()) };
        if if_unused && exchange.bindings_count() > 0 {
            return Err(Error::InUse { kind: Kind::Exchange, name: name.to_owned(), vhost: self.name.clone() });
        }
        self.remove_exchange(&exchange, turn);
        Ok(())
    }

    pub(in crate::broker) fn remove_exchange(&self, exchange: &Arc<Exchange>, turn: &mut Turn<'_>) {
        if self.exchanges.remove_if(&exchange.name, |_, current| Arc::ptr_eq(current, exchange)).is_none() {
            return;
        }
        let sources = unbind_from_all(&Target::Exchange(exchange.clone()));
        for binding in exchange.bindings() {
            exchange.unbind(&binding.target, &binding.key, &binding.arguments);
            // Or a queue that lives long would keep every exchange that was ever bound to it.
            binding.target.inbound().lock().retain(|source| !Arc::ptr_eq(source, exchange));
        }
        exchange.mark_deleted();
        turn.broker.note_gone_exchange(exchange);
        if exchange.declaration.is_durable {
            turn.record(Record::ExchangeDeleted { vhost: self.name.clone(), name: exchange.name.clone() });
        }
        for source in sources {
            self.delete_if_abandoned(&source, turn);
        }
    }

    fn delete_if_abandoned(&self, exchange: &Arc<Exchange>, turn: &mut Turn<'_>) {
        if !turn.is_replay() && exchange.declaration.is_auto_delete && exchange.bindings_count() == 0 {
            self.remove_exchange(exchange, turn);
        }
    }

    /// Binds `destination` to the exchange `source`; an equal binding is fine.
    pub fn bind(
        &self,
        source: &str,
        destination: &Target,
        key: &[u8],
        arguments: &Table,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let topology = self.change_topology(turn);
        let exchange = self.binding_source(source, destination)?;
        if destination.is_deleted() {
            return Err(self.not_found(destination.kind(), destination.name()));
        }
        if !exchange.bind(destination.clone(), key, arguments)? {
            return Ok(());
        }
        let mut inbound = destination.inbound().lock();
        if !inbound.iter().any(|known| Arc::ptr_eq(known, &exchange)) {
            inbound.push(exchange.clone());
        }
        drop(inbound);
        self.record_binding(true, &exchange, destination, key, arguments, turn);
        drop(topology);
        turn.replay_recent(self, &exchange, destination);
        Ok(())
    }

    /// Removes a binding; removing one that does not exist is fine.
    pub fn unbind(
        &self,
        source: &str,
        destination: &Target,
        key: &[u8],
        arguments: &Table,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let _topology = self.change_topology(turn);
        let exchange = self.binding_source(source, destination)?;
        if exchange.unbind(destination, key, arguments) {
            self.record_binding(false, &exchange, destination, key, arguments, turn);
            self.delete_if_abandoned(&exchange, turn);
        }
        Ok(())
    }

    /// Gives a binding other arguments: nobody sees the exchange with neither or both of them.
    pub fn rebind(
        &self,
        source: &str,
        destination: &Target,
        key: &[u8],
        (old, new): (&Table, &Table),
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let _topology = self.change_topology(turn);
        let exchange = self.binding_source(source, destination)?;
        if destination.is_deleted() {
            return Err(self.not_found(destination.kind(), destination.name()));
        }
        if !exchange.rebind(destination, key, old, new)? {
            return Ok(());
        }
        turn.begin_transaction();
        self.record_binding(true, &exchange, destination, key, new, turn);
        self.record_binding(false, &exchange, destination, key, old, turn);
        turn.end_transaction();
        Ok(())
    }

    /// As [`Self::rebind`], in a moment when no message is on its way from the exchange to its queues and `is_quiet`
    /// says so, too: what is published before goes by the old arguments and is in its queues, what is published
    /// after goes by the new ones.
    pub fn rebind_quietly(
        &self,
        source: &str,
        destination: &Target,
        key: &[u8],
        (old, new): (&Table, &Table),
        is_quiet: impl FnOnce() -> bool,
        turn: &mut Turn<'_>,
    ) -> Result<Replaced, Error> {
        let _topology = self.change_topology(turn);
        let exchange = self.binding_source(source, destination)?;
        if destination.is_deleted() {
            return Err(self.not_found(destination.kind(), destination.name()));
        }
        let (replaced, is_changed) = exchange.rebind_quietly(destination, key, (old, new), is_quiet)?;
        if is_changed {
            turn.begin_transaction();
            self.record_binding(true, &exchange, destination, key, new, turn);
            self.record_binding(false, &exchange, destination, key, old, turn);
            turn.end_transaction();
        }
        Ok(replaced)
    }

    /// The exchange that a binding from `source` to `destination` belongs to.
    fn binding_source(&self, source: &str, destination: &Target) -> Result<Arc<Exchange>, Error> {
        if source.is_empty() || destination.name().is_empty() {
            return Err(Error::DefaultExchange);
        }
        self.find_exchange(source)
    }

    fn record_binding(
        &self,
        is_bound: bool,
        source: &Arc<Exchange>,
        destination: &Target,
        key: &[u8],
        arguments: &Table,
        turn: &mut Turn<'_>,
    ) {
        if source.declaration.is_durable && destination.is_durable() {
            turn.record(Record::Binding {
                is_bound,
                vhost: self.name.clone(),
                source: source.name.clone(),
                destination: destination.name().clone(),
                to_queue: matches!(destination, Target::Queue(_)),
                key: key.to_vec(),
                arguments: arguments.clone(),
            });
        }
    }

    /// All bindings, those of the default exchange included.
    pub fn bindings(&self) -> Vec<BindingStatus> {
        let mut all = Vec::new();
        for queue in self.queues() {
            all.push(BindingStatus {
                source: Arc::from(""),
                key: queue.name.as_bytes().into(),
                destination: Target::Queue(queue),
                arguments: Table::new(),
            });
        }
        for exchange in self.exchanges() {
            all.extend(exchange.bindings().into_iter().map(|binding| BindingStatus {
                source: exchange.name.clone(),
                destination: binding.target,
                key: binding.key,
                arguments: binding.arguments,
            }));
        }
        all
    }
}

/// Removes all bindings to `target`; returns the exchanges that had any.
fn unbind_from_all(target: &Target) -> Vec<Arc<Exchange>> {
    let mut sources = std::mem::take(&mut *target.inbound().lock());
    sources.retain(|source| source.unbind_target(target));
    sources
}

/// A name that nobody else has: the prefix and 22 characters of base64url.
pub fn random_name(prefix: &str) -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Without a source of randomness a counter still keeps names apart in this process.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    }
    format!("{prefix}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

impl Broker {
    /// The type of queues whose declaration and vhost name none.
    fn default_queue_type(&self) -> Option<QueueType> {
        // A classic queue needs not be told so: its arguments stay as they were given.
        QueueType::parse(self.options.default_queue_type.as_str()).filter(|&kind| kind != QueueType::Classic)
    }
}
