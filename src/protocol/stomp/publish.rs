//! Messages on their way: the messages of one read go to their queues together.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{
    dialect,
    output::CHANNEL,
    reply::{self, Refusal},
    session::{Body, Session},
};
use crate::{
    broker::{
        access::Access,
        block::Slice,
        exchange::{Exchange, Kind},
        message::{Layout, Message, Traits},
        route::Route,
        schedule::Schedule,
        trace::Party,
        turn::Turn,
    },
    protocol::amqp::{
        properties::Fields,
        publish::{DEFAULT_EXCHANGE, property_of},
        reply::{Code, Failure},
    },
};

impl Session {
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
        let mut route = self.vhost()?.route(&exchange, message, &[], Some(&property), turn);
        let not_local = &self.activemq.not_local;
        if !not_local.is_empty() {
            route.queues.retain(|queue| !not_local.contains(&queue.id));
        }
        let route = Arc::new(route);
        self.routes.put(message.route_bytes(), &route);
        Ok(route)
    }

    /// Has a message published when its time has come.
    pub(super) fn schedule(
        &mut self,
        message: &Message,
        schedule: &Schedule,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.find_exchange(message)?;
        match self.vhost()?.schedule(message, schedule, turn) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal { message: error.to_string().into(), ..Refusal::new("", "") }),
        }
    }

    fn find_exchange(&mut self, message: &Message) -> Result<Arc<Exchange>, Refusal> {
        let name = String::from_utf8_lossy(message.exchange()).into_owned();
        let vhost = self.vhost()?;
        let exchange_name = if name.is_empty() { DEFAULT_EXCHANGE } else { &name };
        self.require(exchange_name, Access::Write, "exchange")
            .map_err(|refusal| dialect::denied(self, refusal, message))?;
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
        for (index, receipt) in std::mem::take(&mut self.batch_receipts) {
            let frame = if refused.binary_search(&(index as usize)).is_ok() {
                self.encode_refusal(&reply::message_refused(&receipt))
            } else {
                self.encode_receipt(&receipt)
            };
            self.reply(frame, gate);
        }
    }
}

/// A message to that route, which is exchange and key, each with its length in front.
pub(super) fn build(route: &[u8], fields: &Fields<'_>, headers: &[u8], traits: Traits, body: Body<'_>) -> Message {
    let body_bytes = match &body {
        Body::Inline(_, _, len) if *len <= COPIED_BODY_MAX => *len,
        _ => 0,
    };
    let mut bytes = Vec::with_capacity(route.len() + headers.len() + body_bytes + PROPERTIES_BYTES);
    bytes.extend_from_slice(route);
    let at = bytes.len();
    let (headers_at, headers_len) = fields.encode(headers, &mut bytes);
    let headers = if headers_len == 0 { (0, 0) } else { (at + headers_at, headers_len) };
    let layout = Layout { route_at: 0, properties: (at, bytes.len() - at), headers };
    let body_at = bytes.len();
    let parts: SmallVec<[Slice; 1]> = match body {
        Body::Inline(block, at, len) if len <= COPIED_BODY_MAX => {
            bytes.extend_from_slice(&block[at..at + len]);
            return Message::inline(Arc::new(bytes), layout, traits, (body_at, len));
        }
        Body::Inline(block, at, len) => smallvec![Slice::new(block.clone(), at, len)],
        Body::Parts(parts) => parts.into(),
    };
    Message::new(Arc::new(bytes), layout, traits).with_body_parts(parts)
}

/// Appends a route to `out`.
pub(super) fn put_route(exchange: &[u8], key: &[u8], out: &mut Vec<u8>) {
    for part in [exchange, key] {
        out.push(part.len() as u8);
        out.extend_from_slice(part);
    }
}

/// Bodies up to this size are copied beside their properties; larger ones stay where they were read.
pub(super) const COPIED_BODY_MAX: usize = 4096;
/// Octets that properties other than headers have by and large.
const PROPERTIES_BYTES: usize = 64;
