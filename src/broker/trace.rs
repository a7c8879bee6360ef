//! The trace of a vhost: while it is on, every message that is published or delivered there is copied
//! to the exchange `amq.rabbitmq.trace`, with what happened to it in its headers.
//!
//! Nothing is looked at while it is off but one flag per batch. Copies are published when no lock
//! is held any more, and are not traced themselves.

use std::sync::Arc;

use super::{
    Broker,
    connections::ConnectionId,
    message::Message,
    publish::Batch,
    turn::Turn,
    value::{HeadersBuilder, Table, Value},
    vhost::{TRACE_EXCHANGE, Vhost},
};

/// Shows the properties of a message as a table. The protocol that encoded them provides it.
pub type ShowProperties = fn(&Message) -> Table;

/// Who published a message, or takes it.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Its connection.
    pub connection: ConnectionId,
    /// The channel there.
    pub channel: u16,
}

/// A copy that waits until no lock is held.
pub(in crate::broker) struct Trace {
    vhost: Arc<Vhost>,
    message: Message,
}

impl Broker {
    /// Provides what shows the properties of traced messages; the first call counts.
    pub fn show_properties_by(&self, show: ShowProperties) {
        self.show_properties.get_or_init(|| show);
    }
}

impl Turn<'_> {
    /// Traces a publish that was routed to `queues`.
    pub fn trace_published<'q>(
        &mut self,
        vhost: &Arc<Vhost>,
        message: &Message,
        queues: impl Iterator<Item = &'q str>,
        by: Party,
    ) {
        let mut key = b"publish.".to_vec();
        key.extend_from_slice(message.exchange());
        let queues = queues.map(Value::text).collect();
        self.trace(vhost, &key, message, None, by, Some(("routed_queues", Value::Array(queues))));
    }

    /// Traces a delivery from `queue`.
    pub fn trace_delivered(
        &mut self,
        vhost: &Arc<Vhost>,
        message: &Message,
        queue: &str,
        is_redelivered: bool,
        to: Party,
    ) {
        let redelivered = ("redelivered", Value::I32(is_redelivered.into()));
        self.trace(vhost, format!("deliver.{queue}").as_bytes(), message, Some(redelivered), to, None);
    }

    fn trace(
        &mut self,
        vhost: &Arc<Vhost>,
        key: &[u8],
        message: &Message,
        first: Option<(&str, Value)>,
        party: Party,
        last: Option<(&str, Value)>,
    ) {
        if message.exchange() == TRACE_EXCHANGE.as_bytes() {
            return;
        }
        let connection = self.broker.connections.get(party.connection).map(|connection| connection.info);
        let (name, user) = connection.map(|info| (info.name.clone(), info.user.clone())).unwrap_or_default();
        let keys = std::iter::once(message.key().to_vec()).chain(message.copy_keys()).map(Value::Text).collect();
        let properties = self.broker.show_properties.get().map(|show| show(message)).unwrap_or_default();
        let mut headers = HeadersBuilder::new();
        headers.push("exchange_name", &Value::Text(message.exchange().to_vec()));
        headers.push("routing_keys", &Value::Array(keys));
        headers.push("properties", &Value::Table(properties));
        headers.push("node", &Value::text(self.broker.options.node_name.as_str()));
        let rest = [
            ("vhost", Value::text(&*vhost.name)),
            ("connection", Value::text(&*name)),
            ("channel", Value::I32(party.channel.into())),
            ("user", Value::text(&*user)),
        ];
        for (name, value) in first.into_iter().chain(rest).chain(last) {
            headers.push(name, &value);
        }
        let message = message.copied(TRACE_EXCHANGE, key, headers.finish());
        self.traces.push_back(Trace { vhost: vhost.clone(), message });
    }

    /// Publishes a copy.
    pub(in crate::broker) fn publish_trace(&mut self, trace: Trace) {
        let Trace { vhost, message } = trace;
        let Some(exchange) = vhost.exchange(TRACE_EXCHANGE) else { return };
        let route = Arc::new(vhost.route(&exchange, &message, &[], None, self));
        let mut batch = Batch::default();
        batch.push(message, &route);
        batch.place(self, &mut Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{exchange::Target, options::Options, time::Time, topology::DeclareQueue};

    const BY: Party = Party { connection: ConnectionId(1), channel: 3 };

    #[test]
    fn a_trace_reaches_its_exchange_when_the_turn_ends_and_is_not_traced_itself() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, Time(0));
        let wanted = DeclareQueue { name: "traces", ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
        vhost.bind(TRACE_EXCHANGE, &Target::Queue(queue.clone()), b"#", &Table::new(), &mut turn).unwrap();
        let message = Message::build("x", b"k", b"", (0, 0), b"body");
        turn.trace_published(&vhost, &message, ["q"].into_iter(), BY);
        turn.trace_delivered(&vhost, &message, "q", true, BY);
        assert!(queue.snapshot().is_empty());
        turn.end();
        let traced: Vec<_> = queue.snapshot().into_iter().map(|(_, message, _)| message).collect();
        let keys: Vec<_> = traced.iter().map(|message| message.key().to_vec()).collect();
        assert_eq!(keys, [&b"publish.x"[..], b"deliver.q"]);
        assert_eq!(traced[0].body_to_vec(), b"body");
        let headers = traced[0].headers().to_table();
        assert_eq!(headers.get("channel"), Some(&Value::I32(3)));
        assert_eq!(headers.get("routed_queues"), Some(&Value::Array(vec![Value::text("q")])));
        assert_eq!(traced[1].headers().to_table().get("redelivered"), Some(&Value::I32(1)));
        let mut turn = Turn::new(&broker, Time(0));
        turn.trace_delivered(&vhost, &traced[0], "traces", false, BY);
        turn.end();
        assert_eq!(queue.snapshot().len(), 2);
    }
}
