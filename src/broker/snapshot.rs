//! All definitions at one place of the log, so that records before it need not be kept for them.
//!
//! Vhosts, exchanges, queues and bindings do not change while they are told; users, permissions,
//! policies, limits and parameters may, and so may what exchanges keep. Records of those
//! say how the thing is from then on, so repeating them once more comes to the same.

use std::sync::Arc;

use super::{
    Broker,
    exchange::{Exchange, Target},
    queue::dedup::SeenLook,
    record::{Position, QueueId, Record},
    value::Table,
    vhost::Vhost,
};

/// See the module's text.
#[derive(Debug)]
pub struct Snapshot {
    /// Definitions recorded before this are in `records`.
    pub at: Position,
    /// In an order in which they can be repeated; with those whose own place matters that place.
    pub records: Vec<(Position, Record)>,
}

impl Broker {
    /// Tells everything but messages in queues, messages that are held back, and names that are remembered.
    pub fn snapshot(&self) -> Snapshot {
        let _gate = self.snapshot_gate.write();
        let at = self.journal().map_or(Position::NONE, |journal| journal.end());
        let mut records: Vec<_> = self.definitions().into_iter().map(|record| (at, record)).collect();
        for vhost in self.vhosts() {
            tell(&vhost, at, &mut records);
        }
        Snapshot { at, records }
    }

    /// All queues whose messages an index may have.
    pub fn durable_queues(&self) -> Vec<Arc<super::queue::Queue>> {
        let all = self.vhosts().into_iter().flat_map(|vhost| vhost.queues());
        all.filter(|queue| queue.survives_restart()).collect()
    }

    /// Queues that were deleted since this was last asked, each with its largest priority.
    pub fn take_gone_queues(&self) -> Vec<(QueueId, u8)> {
        std::mem::take(&mut self.gone_queues.lock())
    }

    /// Nobody could be told of those; the next look has them again.
    pub fn give_back_gone_queues(&self, queues: Vec<(QueueId, u8)>) {
        self.gone_queues.lock().extend(queues);
    }

    /// All exchanges whose messages held back an index may have.
    pub fn durable_delays(&self) -> Vec<Arc<Exchange>> {
        let all = self.vhosts().into_iter().flat_map(|vhost| vhost.exchanges());
        all.filter(|exchange| exchange.delayed.is_some() && exchange.identity() != Position::NONE).collect()
    }

    /// First half of a checkpoint of names that exchanges remember: those of which an index has to know something. They
    /// are asked with [`Exchange::looked_seen`] afterwards.
    pub fn look_seen(&self) -> Vec<(Arc<Exchange>, SeenLook)> {
        let all = self.vhosts().into_iter().flat_map(|vhost| vhost.exchanges());
        let ours = all.filter(|exchange| exchange.dedup.is_some() && exchange.identity() != Position::NONE);
        ours.filter_map(|exchange| exchange.look_seen().map(|look| (exchange, look))).collect()
    }

    pub(in crate::broker) fn note_gone_exchange(&self, exchange: &Exchange) {
        let is_indexed = exchange.delayed.is_some() || exchange.dedup.is_some();
        if is_indexed && exchange.identity() != Position::NONE {
            self.gone_exchanges.lock().push(exchange.identity());
        }
    }

    /// Exchanges that held messages back or remembered names, and were deleted since this was last asked.
    pub fn take_gone_exchanges(&self) -> Vec<Position> {
        std::mem::take(&mut self.gone_exchanges.lock())
    }

    /// Nobody could be told of those; the next look has them again.
    pub fn give_back_gone_exchanges(&self, exchanges: Vec<Position>) {
        self.gone_exchanges.lock().extend(exchanges);
    }
}

fn tell(vhost: &Vhost, at: Position, records: &mut Vec<(Position, Record)>) {
    let is_told = |target: &Target| target.is_durable() && !target.is_deleted();
    let exchanges: Vec<_> = vhost.exchanges().into_iter().filter(|of| of.declaration.is_durable).collect();
    for exchange in exchanges.iter().filter(|exchange| !Vhost::is_predeclared(&exchange.name)) {
        let declaration = &exchange.declaration;
        let declared = Record::ExchangeDeclared {
            vhost: vhost.name.clone(),
            name: exchange.name.clone(),
            kind: declaration.kind.name().to_owned(),
            auto_delete: declaration.is_auto_delete,
            internal: declaration.is_internal,
            arguments: declaration.arguments.clone(),
        };
        // Its place is its identity.
        records.push((exchange.identity(), declared));
        let notes = exchange.notes();
        if !notes.is_empty() {
            let (vhost, name) = (vhost.name.clone(), exchange.name.clone());
            records.push((at, Record::ExchangeAltered { vhost, name, notes: Table::clone(&notes) }));
        }
    }
    for queue in vhost.queues().into_iter().filter(|queue| queue.survives_restart()) {
        let declared = Record::QueueDeclared {
            queue: queue.id,
            vhost: vhost.name.clone(),
            name: queue.name.clone(),
            auto_delete: queue.declaration.is_auto_delete,
            arguments: queue.declaration.arguments.clone(),
            dead_queue: queue.declaration.dead_queue.clone(),
        };
        records.push((at, declared));
        let properties = queue.properties();
        if !properties.is_empty() {
            records.push((at, Record::QueueAltered { queue: queue.id, properties: properties.to_table() }));
        }
    }
    for exchange in &exchanges {
        for binding in exchange.bindings().into_iter().filter(|binding| is_told(&binding.target)) {
            let bound = Record::Binding {
                is_bound: true,
                vhost: vhost.name.clone(),
                source: exchange.name.clone(),
                destination: binding.target.name().clone(),
                to_queue: matches!(binding.target, Target::Queue(_)),
                key: binding.key.into_vec(),
                arguments: binding.arguments,
            };
            records.push((at, bound));
        }
        if let Some(recent) = &exchange.recent {
            let kept = |(place, message): &(Position, super::message::Message)| {
                let (vhost, exchange, message) = (vhost.name.clone(), exchange.name.clone(), message.clone());
                (*place, Record::Kept { vhost, exchange, message })
            };
            records.extend(recent.lock().replay().map(kept));
        }
    }
}
