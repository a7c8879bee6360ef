//! Queues behind destinations: how they are declared, and where they send what they give up.

use std::sync::Arc;

use super::{
    super::super::reply::Refusal,
    DEAD_QUEUE, Speaker,
    advisory::Change,
    destination::{Destination, binding_key, virtual_topic},
    not_authorized, refusal,
};
use crate::broker::{
    access::Access,
    exchange::{Kind, Target},
    queue::Queue,
    topology::DeclareQueue,
    turn::Turn,
    value::Table,
};

impl Speaker<'_> {
    /// The queue of that name, declared durable if there is none.
    pub(super) fn ensure_queue(&mut self, name: &str, turn: &mut Turn<'_>) -> Result<Arc<Queue>, Refusal> {
        let vhost = self.vhost()?;
        if let Some(queue) = vhost.queue(name) {
            turn.wait_for(queue.declared_at());
            return Ok(queue);
        }
        self.require(name, Access::Configure, "queue")?;
        if name != DEAD_QUEUE && vhost.queue(DEAD_QUEUE).is_none() {
            // Like the queue's own property, not something that its user has asked for.
            let dead = DeclareQueue { name: DEAD_QUEUE, durable: true, ..DeclareQueue::default() };
            vhost.declare_queue(&dead, None, turn)?;
        }
        let dead_queue = (name != DEAD_QUEUE).then_some(DEAD_QUEUE);
        let wanted = DeclareQueue { name, durable: true, dead_queue, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, Some(self.id), turn)?;
        if let Some(topic) = virtual_topic(name.as_bytes()) {
            self.bind_topic(&queue, topic, turn)?;
        }
        self.advise_queue(name, turn);
        Ok(queue)
    }

    /// Has a queue take in what is sent to topics that fit a pattern.
    pub(super) fn bind_topic(
        &mut self,
        queue: &Arc<Queue>,
        pattern: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let exchange = self.options().default_topic_exchange.clone();
        let key = binding_key(pattern);
        if key.len() > u8::MAX.into() {
            return Err(Refusal::new("A destination is too long", "Topics have at most 255 bytes."));
        }
        let user = self.login.as_ref().map_or_else(String::new, |login| login.user.name.to_string());
        self.require(&exchange, Access::Read, "exchange").map_err(|_| {
            let topic = format!("topic://{}", String::from_utf8_lossy(pattern));
            not_authorized(&user, Access::Read, &topic)
        })?;
        let vhost = self.vhost()?;
        let source = vhost.find_exchange(&exchange)?;
        if matches!(source.declaration.kind.routing(), Kind::Topic) {
            self.require_topic(&source, &key, Access::Read)?;
        }
        vhost.bind(&exchange, &Target::Queue(queue.clone()), &key, &Table::new(), turn)?;
        Ok(())
    }

    /// The real name of a temporary destination of this connection, which is made when it is first spoken of.
    pub(super) fn temporary(&mut self, destination: &Destination, turn: &mut Turn<'_>) -> Result<Arc<str>, Refusal> {
        let text = destination.name();
        if let Some(name) = self.activemq.temporary.get(text) {
            return Ok(name.clone());
        }
        if self.activemq.temporary.len() >= self.options().subscriptions_max {
            return Err(Refusal::fatal("Too many temporary destinations", ""));
        }
        let name: Arc<str> = format!("{}:{}", self.session_id, self.activemq.temporary.len() + 1).into();
        if destination.is_queue() {
            let wanted = DeclareQueue { name: &name, exclusive: true, ..DeclareQueue::default() };
            let queue = self.vhost()?.declare_queue(&wanted, Some(self.id), turn)?;
            self.exclusive_queues.insert(queue.id, queue);
        }
        self.activemq.temporary.insert(text.into(), name.clone());
        self.shared.output().wire.name_temporary(&name, text);
        self.advise_temporary(text, &name, Change::Made, turn);
        Ok(name)
    }

    /// What a destination is called by others.
    pub(super) fn real_name<'d>(&'d self, destination: &'d Destination) -> &'d [u8] {
        let name = destination.name();
        self.activemq.temporary.get(name).map_or(name, |real| real.as_bytes())
    }

    /// The queue that somebody else has made for answers.
    pub(super) fn check_remote(&self, name: &[u8]) -> Result<(), Refusal> {
        let name = String::from_utf8_lossy(name);
        match self.vhost()?.queue(&name) {
            Some(_) => Ok(()),
            None => Err(refusal(format!("temp-queue://{name}"))),
        }
    }
}

/// A name of a queue as text, which AMQP's have to be.
pub(super) fn text(name: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(name).map_err(|_| Refusal::new("Destinations are UTF-8", ""))
}
