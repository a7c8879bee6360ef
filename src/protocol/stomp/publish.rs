//! SEND: a frame becomes a message, and the messages of one read go to their queues together.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{
    codec::Head,
    destination::Destination,
    output::CHANNEL,
    properties::Said,
    reply::{self, Refusal},
    session::{Body, Flow, Session},
};
use crate::{
    broker::{
        access::Access,
        block::Slice,
        exchange::{Exchange, Kind},
        message::{Layout, Message, Traits, Ttl},
        route::Route,
        trace::Party,
        turn::Turn,
    },
    protocol::amqp::{
        publish::{DEFAULT_EXCHANGE, REPLY_TO, parse_expiration, property_of},
        reply::{Code, Failure},
    },
};

/// The destination of the last SEND: most go where the one before went.
#[derive(Default)]
pub(super) struct Destined {
    text: Vec<u8>,
    /// Exchange and key, each with its length in front.
    route: Vec<u8>,
}

/// Bodies up to this size are copied beside their properties; larger ones stay where they were read.
pub(super) const COPIED_BODY_MAX: usize = 4096;

impl Session {
    pub(super) fn send(&mut self, head: &Head<'_>, body: Body<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        if head.get("message-id").is_some() {
            return Err(Refusal::new("Invalid header", "'message-id' is not allowed on 'SEND'.\n"));
        }
        let Some(destination) = head.get("destination") else {
            return Err(Refusal::new("Missing destination", "\"SEND\" must include a 'destination' header\n"));
        };
        if self.destined.route.is_empty() || self.destined.text != *destination {
            self.destine(&destination, head, turn)?;
        }
        let mut said = Said::read(head)?;
        let mut is_temporary = false;
        if let Some(to) = said.reply_to() {
            // Others than those of this connection are forwarded as they are.
            if let Destination::TempQueue(name) = Destination::parse(to).map_err(|_| Refusal::processing())? {
                is_temporary = true;
                let queue = self.reply_queue(&name, turn)?;
                said.set_reply_to(queue.as_bytes());
            }
        }
        let (message, layout) = self.message(&said, body)?;
        let receipt = head.get("receipt").map(|id| id.into_owned());
        let transaction = head.get("transaction");
        if receipt.is_none() && transaction.is_none() && !is_temporary && said.user_id().is_none() {
            self.repeated.set(head, &message, layout);
        }
        match transaction {
            Some(transaction) => self.send_at_commit(&transaction, message, receipt)?,
            None => self.publish(message, receipt, turn)?,
        }
        Ok(Flow::Done)
    }

    /// Finds out where a destination leads; a queue is declared for the first SEND to it.
    fn destine(&mut self, text: &[u8], head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let destination = Destination::parse(text)?;
        self.ensure(&destination, "SEND", text, head, turn)?;
        let topic_exchange = self.options().default_topic_exchange.clone();
        let (exchange, key) = destination.route(&topic_exchange);
        if exchange.len() > u8::MAX.into() || key.len() > u8::MAX.into() {
            return Err(Refusal::processing());
        }
        let mut route = Vec::with_capacity(2 + exchange.len() + key.len());
        for part in [exchange, key] {
            route.push(part.len() as u8);
            route.extend_from_slice(part);
        }
        self.repeated.clear();
        self.destined = Destined { text: text.to_vec(), route };
        Ok(())
    }

    /// The message that a SEND to the present destination makes, and where its parts are.
    fn message(&self, said: &Said<'_>, body: Body<'_>) -> Result<(Message, Layout), Refusal> {
        let fields = said.fields()?;
        let mut traits = Traits {
            persistent: fields.delivery_mode == Some(2),
            priority: fields.priority.unwrap_or(0),
            ttl: Ttl::NONE,
        };
        if let (Some(user_id), Some(login)) = (said.user_id(), &self.login)
            && user_id != login.user.name.as_bytes()
            && !login.user.is_impersonator()
        {
            return Err(reply::precondition_failed(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                login.user.name
            )));
        }
        if let Some(expiration) = said.expiration() {
            traits.ttl = Ttl::of_ms(parse_expiration(expiration).map_err(reply::precondition_failed)?);
        }
        if let Some(name) = said.copies {
            let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",longstr}}");
            return Err(reply::precondition_failed(text));
        }
        if said.reply_to() == Some(REPLY_TO.as_bytes()) {
            return Err(reply::precondition_failed("fast reply consumer does not exist"));
        }
        let route = &self.destined.route;
        let body_bytes = match &body {
            Body::Inline(_, _, len) if *len <= COPIED_BODY_MAX => *len,
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(route.len() + said.headers.len() + body_bytes + PROPERTIES_BYTES);
        bytes.extend_from_slice(route);
        let at = bytes.len();
        let (headers_at, headers_len) = fields.encode(&said.headers, &mut bytes);
        let headers = if headers_len == 0 { (0, 0) } else { (at + headers_at, headers_len) };
        let layout = Layout { route_at: 0, properties: (at, bytes.len() - at), headers };
        let body_at = bytes.len();
        let parts: SmallVec<[Slice; 1]> = match body {
            Body::Inline(block, at, len) if len <= COPIED_BODY_MAX => {
                bytes.extend_from_slice(&block[at..at + len]);
                return Ok((Message::inline(Arc::new(bytes), layout, traits, (body_at, len)), layout));
            }
            Body::Inline(block, at, len) => smallvec![Slice::new(block.clone(), at, len)],
            Body::Parts(parts) => parts.into(),
        };
        Ok((Message::new(Arc::new(bytes), layout, traits).with_body_parts(parts), layout))
    }

    /// Routes a message and adds it to the batch.
    pub(super) fn publish(
        &mut self,
        message: Message,
        receipt: Option<Vec<u8>>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let generation = self.broker.access.generation();
        if generation != self.routes_generation {
            self.routes = Default::default();
            self.routes_generation = generation;
        }
        let found;
        let route = match self.routes.get(message.route_bytes()) {
            Some(route) => route,
            None => {
                found = self.find_route(&message, turn)?;
                &found
            }
        };
        if self.is_traced
            && let Some(vhost) = &self.vhost
        {
            let queues = route.queues.iter().map(|queue| &*queue.name);
            turn.trace_published(vhost, &message, queues, Party { connection: self.id, channel: CHANNEL });
        }
        if let Some(receipt) = receipt {
            self.batch_receipts.push((self.batch.len() as u32, receipt));
        }
        self.batch.push(message, route);
        Ok(())
    }

    fn find_route(&mut self, message: &Message, turn: &mut Turn<'_>) -> Result<Arc<Route>, Refusal> {
        let exchange = self.find_exchange(message)?;
        let property = |name: &str| property_of(message, name);
        let route = Arc::new(self.vhost()?.route(&exchange, message, &[], Some(&property), turn));
        self.routes.put(message.route_bytes(), &route);
        Ok(route)
    }

    fn find_exchange(&mut self, message: &Message) -> Result<Arc<Exchange>, Refusal> {
        let name = String::from_utf8_lossy(message.exchange()).into_owned();
        let vhost = self.vhost()?;
        self.require(if name.is_empty() { DEFAULT_EXCHANGE } else { &name }, Access::Write, "exchange")?;
        let exchange = vhost.find_exchange(&name)?;
        if exchange.declaration.is_internal {
            let text = format!("cannot publish to internal exchange '{name}' in vhost '{}'", vhost.name);
            return Err(Failure::channel(Code::AccessRefused, text).into());
        }
        if matches!(exchange.declaration.kind.routing(), Kind::Topic) {
            self.require_topic(&exchange, message.key(), Access::Write)?;
        }
        Ok(exchange)
    }

    /// Places the gathered messages and answers those that asked for it.
    pub(super) fn place_batch(&mut self, turn: &mut Turn<'_>) {
        let mut refused = Vec::new();
        self.batch.place(turn, &mut refused);
        self.answer_batch(&refused, turn);
    }

    /// Answers messages of the batch, of which some were refused by queues.
    pub(super) fn answer_batch(&mut self, refused: &[usize], turn: &mut Turn<'_>) {
        if self.batch_receipts.is_empty() {
            return;
        }
        let gate = turn.take_gate();
        let trailing_lf = self.options().trailing_lf;
        for (index, receipt) in std::mem::take(&mut self.batch_receipts) {
            let frame = if refused.binary_search(&(index as usize)).is_ok() {
                reply::message_refused(&receipt, trailing_lf)
            } else {
                reply::receipt(&receipt, trailing_lf)
            };
            self.reply(frame, gate);
        }
    }
}

/// Octets that properties other than headers have by and large.
const PROPERTIES_BYTES: usize = 64;
